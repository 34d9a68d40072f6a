// Package meter is the client of a Wattlet meter: it observes the running totals of all channels, survives loss,
// reordering, reboots and silence of the meter, recovers lost samples, and maps the meter's clock to the host's.
package meter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/hostclock"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

const (
	// A handshake is six flights, each sent again after a quarter of a second; a request is sent again after 1, 3 and 7 s.
	handshakeTimeout = 20 * time.Second
	requestTimeout   = 10 * time.Second
	// The first request is asked anew before the waits between its repetitions get long: a handshake costs more than another request.
	firstTimeout = 4 * time.Second
	firstTries   = 3
	// Silence of silenceBase and silenceIntervals report intervals ends a session.
	silenceBase      = 1500 * time.Millisecond
	silenceIntervals = 3
	// Between sessions: quickly at first, since most ends are a reboot or a lost path.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	// Exchanges of time: quickly until the line stands.
	timeQuick = time.Second
	timeSlow  = 10 * time.Second
	// Before the first report of a session: until the error of the offset is bounded well. Where three of ten datagrams are lost each way,
	// ten exchanges are too few for three good ones in one session of sixteen, twenty in one of 3,600.
	minFirstExchanges = 3
	maxFirstExchanges = 20
	firstExchange     = 500 * time.Millisecond
	goodBound         = 20 * time.Millisecond
	// recoverWait lets reordered reports arrive before they are asked for again, and spaces the requests.
	recoverWait = 200 * time.Millisecond
)

// Config is what a Client is made of.
type Config struct {
	Endpoint
	Logger *slog.Logger
	// Now is the wall clock with a monotonic reading; nil means time.Now. Uptime is the host's time since boot, suspension
	// included; nil means hostclock.Uptime.
	Now    func() time.Time
	Uptime func() time.Duration

	// Handshake bounds the handshake of a session; 0 means 20 s.
	Handshake time.Duration

	// OnReport, if set, gets every fresh report, with what sink gets. OnBatch, if set, gets the samples of every report,
	// recovered ones too, each once, not always in order; without it nothing is recovered. Both must be quick and may not
	// keep what they are given.
	OnReport func(*meterpb.Report)
	OnBatch  func(boot uint32, b *meterpb.PastBatch)
}

// Client reads one meter, all its channels.
type Client struct {
	cfg Config

	mu      sync.Mutex
	status  energy.Status
	trouble string // kind of the last session's end, to tell each once
	tracker tracker
	clock   clock
	at      time.Duration // meter's clock in the newest report
	silence time.Duration
}

// New checks the configuration; it does not connect.
func New(cfg Config) (*Client, error) {
	if _, _, err := cfg.address(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Uptime == nil {
		cfg.Uptime = hostclock.Uptime
	}
	if cfg.Handshake == 0 {
		cfg.Handshake = handshakeTimeout
	}
	return &Client{
		cfg:     cfg,
		status:  energy.Status{Kind: "meter", Errors: map[string]uint64{}, Err: "not connected yet"},
		silence: silenceBase + silenceIntervals*time.Second,
	}, nil
}

// Status returns the meter's health.
func (c *Client) Status() energy.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Errors = maps.Clone(s.Errors)
	s.Lost, s.Recovered = c.tracker.lost, c.tracker.recovered
	s.Clock = c.clock.status(c.at)
	s.Up = s.Up && c.cfg.Now().Sub(s.LastSuccess) < c.silence
	return s
}

// Run keeps a session with the meter and delivers the readings of its channels to sink until ctx ends.
func (c *Client) Run(ctx context.Context, sink func(channel int, r energy.Reading)) error {
	backoff := minBackoff
	for {
		before := c.Status().Notifications
		there, err := c.session(ctx, sink)
		if ctx.Err() != nil {
			return nil
		}
		c.failed(err)
		// A meter that is there and whose answers are lost will be no better off for being let alone.
		if c.Status().Notifications > before || there && errors.Is(err, context.DeadlineExceeded) {
			backoff = minBackoff
		}
		wait := backoff/2 + rand.N(backoff)
		if me := (*wire.MeterError)(nil); errors.As(err, &me) {
			wait = max(wait, min(me.RetryAfter, maxBackoff))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// failed notes the end of a session and tells it once.
func (c *Client) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := kind(err)
	c.status.Errors[k]++
	if c.status.Up || c.trouble != k {
		c.cfg.Logger.Warn("meter lost", "meter", c.cfg.URL, "err", err)
	}
	c.status.Up, c.status.Err, c.trouble = false, err.Error(), k
}

// errSilence ends a session in which nothing comes.
var errSilence = errors.New("no report")

// kind names an error for the count of errors.
func kind(err error) string {
	var me *wire.MeterError
	switch {
	case errors.Is(err, ErrKey):
		return "key"
	case errors.Is(err, errSilence):
		return "silence"
	case errors.As(err, &me):
		return "refused"
	case errors.Is(err, wire.ErrRevision):
		return "revision"
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrBatch):
		return "decode"
	default:
		return "connect"
	}
}

// session is one connection from handshake to its end, written as if it never broke; it returns why it ended, and whether the meter was
// there at its beginning.
func (c *Client) session(ctx context.Context, sink func(int, energy.Reading)) (there bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	shake, done := context.WithTimeout(ctx, c.cfg.Handshake)
	conn, err := Dial(shake, c.cfg.Endpoint)
	done()
	if err != nil {
		cancel()
		return false, err
	}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	defer conn.Close() //nolint:errcheck // the session is over, and its peer may be gone

	id, err := firstAnswer(ctx, conn)
	if err != nil {
		return true, err
	}
	c.connected(id)
	c.compareClocks(ctx, conn)

	ended := make(chan error, 1)
	alive, gap := make(chan struct{}, 1), make(chan struct{}, 1)
	handle := func(body []byte, err error) {
		if err == nil {
			err = c.take(body, sink, alive, gap)
		}
		if err != nil {
			select {
			case ended <- err:
			default:
			}
		}
	}
	request, done := context.WithTimeout(ctx, requestTimeout)
	err = conn.observe(request, handle)
	done()
	if err != nil {
		select {
		case err = <-ended: // the meter's own words
		default:
		}
		return true, err
	}
	helpers.Go(func() { c.keepTime(ctx, conn) })
	if c.cfg.OnBatch != nil {
		helpers.Go(func() { c.recoverBatches(ctx, conn, gap) })
	}

	silence := time.NewTimer(c.silence)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case err := <-ended:
			return true, fmt.Errorf("%s: the observation ended: %w", c.cfg.URL, err)
		case <-conn.cc.Done():
			return true, fmt.Errorf("%s: the meter closed the session", c.cfg.URL)
		case <-alive:
			silence.Reset(c.silence)
		case <-silence.C:
			return true, fmt.Errorf("%s: %w for %v", c.cfg.URL, errSilence, c.silence)
		}
	}
}

// firstAnswer asks a meter who it is.
func firstAnswer(ctx context.Context, conn *Conn) (id *meterpb.Identity, err error) {
	for range firstTries {
		request, done := context.WithTimeout(ctx, firstTimeout)
		id, err = conn.Identity(request)
		done()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			break
		}
	}
	return id, err
}

// connected notes what the meter says of itself.
func (c *Client) connected(id *meterpb.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Connects++
	c.status.Identity, c.status.Firmware = id.Name, id.FirmwareVersion
	interval := time.Duration(id.Sampling.GetReportIntervalUs()) * time.Microsecond
	c.silence = silenceBase + silenceIntervals*min(max(interval, 10*time.Millisecond), 10*time.Second)
}

// take folds one notification. An error ends the session.
func (c *Client) take(body []byte, sink func(int, energy.Reading), alive, gap chan<- struct{}) error {
	var r meterpb.Report
	bad := wire.UnmarshalReport(body, &r)
	if errors.Is(bad, wire.ErrRevision) {
		return bad
	}
	c.mu.Lock()
	if bad != nil {
		c.status.Errors["decode"]++
		if !errors.Is(bad, wire.ErrBatch) {
			c.mu.Unlock()
			return nil // a broken message is a lost one
		}
	}
	v := c.tracker.see(r.BootId, r.Seq)
	switch v {
	case stale:
		c.status.Duplicates++
	case newBoot:
		c.status.Restarts++
		c.cfg.Logger.Info("meter restarted", "meter", c.cfg.URL, "up", time.Duration(r.TUs)*time.Microsecond)
	}
	var host time.Time
	if v == fresh || v == newBoot {
		if !c.status.Up {
			c.cfg.Logger.Info("meter up", "meter", c.cfg.URL, "name", c.status.Identity, "channels", len(r.Channels))
		}
		c.at = time.Duration(r.TUs) * time.Microsecond
		host = c.hostTime(r.BootId)
		c.status.Up, c.status.Err, c.status.LastSuccess = true, "", host
		c.status.Notifications++
	}
	holes := len(c.tracker.missing) > 0
	c.mu.Unlock()

	poke(alive)
	if holes {
		poke(gap)
	}
	if v == stale {
		return nil
	}
	if v != late {
		for _, ch := range r.Channels {
			sink(int(ch.Channel), wire.Reading(&r, ch, host))
		}
		if c.cfg.OnReport != nil {
			c.cfg.OnReport(&r)
		}
	}
	if past := wire.Past(&r); past != nil && c.cfg.OnBatch != nil {
		c.cfg.OnBatch(r.BootId, past)
	}
	return nil
}

// hostTime is the host's wall clock at the newest report's t_us. Without the map of clocks it is the arrival, which errs by
// the path's delay; with it, a report that waited in a socket's buffer is still dated right.
func (c *Client) hostTime(boot uint32) time.Time {
	now := c.cfg.Now()
	if k := c.clock.of(boot); k.valid {
		return now.Add(min(k.host(c.at)-c.cfg.Uptime(), 0))
	}
	return now
}

func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// compareClocks exchanges times at the start of a session, so that its first report is dated right: through a lossy path that
// report may be the second or third repetition of itself.
func (c *Client) compareClocks(ctx context.Context, conn *Conn) {
	for good, tries := 0, 0; tries < maxFirstExchanges && ctx.Err() == nil; tries++ {
		// Short: an answer to a repeated request would date nothing.
		if c.exchange(ctx, conn, firstExchange) {
			good++
		}
		c.mu.Lock()
		bound := c.clock.bound
		c.mu.Unlock()
		if good >= minFirstExchanges && bound < goodBound {
			return
		}
	}
}

// exchange asks for the meter's time once and takes the answer in. A failed exchange costs only itself: the session ends by
// silence.
func (c *Client) exchange(ctx context.Context, conn *Conn, patience time.Duration) bool {
	request, done := context.WithTimeout(ctx, patience)
	defer done()
	sent := c.cfg.Uptime()
	t, err := conn.Time(request)
	received := c.cfg.Uptime()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			c.status.Errors["time"]++
		}
		return false
	}
	c.clock.of(t.BootId).add(exchange{
		hostSent: sent, hostReceived: received,
		meterReceived: time.Duration(t.ReceivedUs) * time.Microsecond, meterSent: time.Duration(t.SentUs) * time.Microsecond,
	})
	return true
}

// keepTime exchanges times until ctx ends.
func (c *Client) keepTime(ctx context.Context, conn *Conn) {
	for {
		c.mu.Lock()
		wait := timeQuick
		if c.clock.settled() {
			wait = timeSlow
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			c.exchange(ctx, conn, requestTimeout)
		}
	}
}

// recoverBatches fetches the samples of missing reports until ctx ends.
func (c *Client) recoverBatches(ctx context.Context, conn *Conn, gap <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-gap:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(recoverWait):
		}
		c.mu.Lock()
		from, any := c.tracker.first()
		c.mu.Unlock()
		if !any {
			continue
		}
		request, done := context.WithTimeout(ctx, requestTimeout)
		l, err := conn.Samples(request, from)
		done()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.mu.Lock()
			c.status.Errors["samples"]++
			c.mu.Unlock()
			if l == nil {
				continue
			}
		}
		c.recovered(from, l)
	}
}

// recovered hands on the batches of an answer that were missing, and gives up what the meter no longer has.
func (c *Client) recovered(from uint32, l *meterpb.SampleList) {
	var deliver []*meterpb.PastBatch
	c.mu.Lock()
	if l.BootId == c.tracker.boot {
		for _, b := range l.Batches {
			if c.tracker.take(b.Seq) {
				deliver = append(deliver, b)
			}
		}
		// What the answer passed over is gone from the ring, or was malformed there.
		c.tracker.forget(max(from+1, l.Next))
	}
	c.mu.Unlock()
	for _, b := range deliver {
		c.cfg.OnBatch(l.BootId, b)
	}
}
