// Package push sends what a scrape would find to a receiver of Prometheus remote write, from where no scrape can come in. While
// the receiver is away, samples wait in memory.
package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	attempt    = 30 * time.Second // for one request, from dialling to the answer's end
	leastWait  = time.Second      // after a request that must be repeated; doubles each time
	longestOwn = 30 * time.Second // up to here
	longest    = 10 * time.Minute // of the waits that a receiver asks for
	grace      = 5 * time.Second  // to send what waits, at the end
)

// Config is what a Pusher is made of.
type Config struct {
	// URL is where the receiver takes remote write, as https://hub:9779/api/v1/write.
	URL string
	// User and PasswordFile are for basic auth. The file is read for each request; a newline at its end does not count.
	User, PasswordFile string
	// CA is a file with the certificates to trust, instead of the system's.
	CA string
	// Protocol is 1.0 or 2.0.
	Protocol string
	// NativeHistograms sends those with 1.0 too, as always with 2.0; without, they go as their classic part: sum, count and the
	// bucket +Inf.
	NativeHistograms bool
	// Interval is the time between two samples of a series, from 1 s to 2 min, after which Prometheus's queries would soon find none.
	Interval time.Duration
	// Buffer is how many bytes may wait for the receiver, compressed, at least 64 KiB.
	Buffer int
	// Labels are given to each series that does not have them.
	Labels map[string]string
	// Gatherer has the series.
	Gatherer prometheus.Gatherer
	// UserAgent is what requests say of their sender.
	UserAgent string
	// Transport carries the requests; nil for one that knows CA and the proxies of the environment.
	Transport http.RoundTripper
	Logger    *slog.Logger
}

// Pusher gathers and sends. It is a prometheus.Collector of how that goes.
type Pusher struct {
	cfg    Config
	two    bool
	labels []label
	client *http.Client
	buffer buffer

	// Of the goroutine that gathers.
	last       map[string]struct{} // series of the time before
	lastMS     int64
	incomplete bool // not all was gathered
	// Of the goroutine that sends.
	state state

	samples, refused, crowded prometheus.Counter
	success                   prometheus.Gauge
}

// state is how the receiver was at the last request.
type state int

const (
	unknown state = iota
	taking
	away
	refusing
)

// New returns a Pusher. It reads files and sends nothing.
func New(cfg Config) (*Pusher, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("URL %q: it must be as https://hub:9779/api/v1/write", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("URL %q: the user and its password go elsewhere, since others can see them here", u.Redacted())
	case cfg.Protocol != "1.0" && cfg.Protocol != "2.0":
		return nil, fmt.Errorf("protocol %q: it must be 1.0 or 2.0", cfg.Protocol)
	case cfg.Interval < time.Second || cfg.Interval > 2*time.Minute:
		return nil, fmt.Errorf("interval %v: it must be from 1s to 2m", cfg.Interval)
	case cfg.Buffer < 64<<10:
		return nil, fmt.Errorf("buffer of %d bytes: it must be at least 65536", cfg.Buffer)
	case (cfg.User == "") != (cfg.PasswordFile == ""):
		return nil, errors.New("a user needs a password file, and it a user")
	}
	p := &Pusher{
		cfg: cfg, two: cfg.Protocol == "2.0", buffer: buffer{limit: cfg.Buffer, more: make(chan struct{}, 1)},
		samples: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wattlet_push_samples_total", Help: "Samples that the receiver has taken.",
		}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wattlet_push_last_success_timestamp_seconds", Help: "When the receiver last took samples.",
		}),
	}
	dropped := func(reason string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wattlet_push_dropped_samples_total", ConstLabels: prometheus.Labels{"reason": reason},
			Help: "Samples that the receiver will never have: it refused them, or they were the oldest when the buffer was full.",
		})
	}
	p.refused, p.crowded = dropped("refused"), dropped("buffer_full")
	for name, value := range cfg.Labels {
		p.labels = append(p.labels, label{name, value})
	}
	if cfg.User != "" {
		if _, err := p.password(); err != nil {
			return nil, err
		}
	}
	transport := cfg.Transport
	if transport == nil {
		if transport, err = newTransport(cfg.CA); err != nil {
			return nil, err
		}
	}
	p.client = &http.Client{
		Transport: transport, Timeout: attempt,
		// Elsewhere a POST may become a GET, and any page's 200 would pass for success.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

// newTransport returns what carries requests over TLS to who has a certificate of file ca, or of the system's if it is empty.
func newTransport(ca string) (http.RoundTripper, error) {
	trusted := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		trusted.RootCAs = x509.NewCertPool()
		if !trusted.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates to trust: %s has none in PEM format", ca)
		}
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trusted, IdleConnTimeout: 5 * time.Minute}, nil
}

// password reads the password anew: whoever renews it need not restart anything.
func (p *Pusher) password() (string, error) {
	b, err := os.ReadFile(p.cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// Describe implements prometheus.Collector.
func (p *Pusher) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []prometheus.Metric{p.samples, p.refused, p.crowded, p.success} {
		ch <- m.Desc()
	}
}

// Collect implements prometheus.Collector.
func (p *Pusher) Collect(ch chan<- prometheus.Metric) {
	ch <- p.samples
	ch <- p.refused
	ch <- p.crowded
	ch <- p.success
}

// Run gathers and sends until ctx ends. Then it gathers once more, marks all series as ended, and tries for 5 s to send what
// waits. It never fails.
func (p *Pusher) Run(ctx context.Context) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var sender sync.WaitGroup
	ended := make(chan struct{})
	sender.Go(func() { p.send(sending, ended) })

	// Agents that start together do not push together.
	tick := time.NewTicker(1 + rand.N(p.cfg.Interval))
	defer tick.Stop()
	regular := sync.OnceFunc(func() { tick.Reset(p.cfg.Interval) })
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			regular()
			p.gather(time.Now())
		case <-ctx.Done():
		}
	}
	p.gather(time.Now())
	p.markEnded()
	close(ended)
	defer time.AfterFunc(grace, stop).Stop()
	sender.Wait()
	p.client.CloseIdleConnections()
	if n := p.buffer.waiting(); n > 0 {
		p.cfg.Logger.Warn("samples are lost: the receiver did not take them before the end", "samples", n)
	}
	return nil
}

// gather puts the newest value of each series into the buffer, and a mark for those that are gone.
func (p *Pusher) gather(now time.Time) {
	families, err := p.cfg.Gatherer.Gather()
	if incomplete := err != nil; incomplete != p.incomplete {
		p.incomplete = incomplete
		if incomplete {
			p.cfg.Logger.Error("not all metrics can be pushed", "err", err)
		} else {
			p.cfg.Logger.Info("all metrics are pushed again")
		}
	}
	ms := now.UnixMilli()
	if ms == p.lastMS { // at the end: another value of the same instant would be refused
		ms++
	}
	p.lastMS = ms
	e := encoder{two: p.two, keep: p.keep}
	these := make(map[string]struct{}, len(p.last))
	flatten(families, p.labels, p.two || p.cfg.NativeHistograms, func(pt point) {
		these[pt.id] = struct{}{}
		e.add(pt, ms)
	})
	for id := range p.last {
		if _, still := these[id]; !still {
			e.add(point{id: id, kind: -1, value: staleMarker}, ms)
		}
	}
	p.last = these
	e.flush()
}

// markEnded says of all series that nothing more comes.
func (p *Pusher) markEnded() {
	e := encoder{two: p.two, keep: p.keep}
	for id := range p.last {
		e.add(point{id: id, kind: -1, value: staleMarker}, p.lastMS+1)
	}
	e.flush()
}

// keep puts a message into the buffer, and counts what gets lost for it.
func (p *Pusher) keep(m message) { p.lose(p.buffer.put(m)) }

// lose counts samples for which there was no room.
func (p *Pusher) lose(samples int, first bool) {
	p.crowded.Add(float64(samples))
	if first {
		p.cfg.Logger.Warn("the receiver is away for long: the oldest samples are lost", "buffer_bytes", p.cfg.Buffer)
	}
}

// send sends messages, oldest first, until ctx ends, or the buffer is empty after ended.
func (p *Pusher) send(ctx context.Context, ended <-chan struct{}) {
	wait := leastWait
	for ctx.Err() == nil {
		m, ok := p.buffer.take()
		if !ok {
			if ended == nil {
				return
			}
			select {
			case <-p.buffer.more:
			case <-ended:
				ended = nil
			}
			continue
		}
		a := p.post(ctx, m)
		if !a.again {
			p.samples.Add(float64(a.taken))
			p.refused.Add(float64(m.samples - a.taken))
			p.buffer.done(m)
			wait = leastWait
			if a.err != nil {
				p.became(refusing, a.err)
			} else {
				p.success.SetToCurrentTime()
				p.became(taking, nil)
			}
			continue
		}
		p.lose(p.buffer.back(m))
		if ctx.Err() == nil { // else it is our own end that was in the way
			p.became(away, a.err)
		}
		timer := time.NewTimer(max(wait/2+rand.N(wait/2), min(a.after, longest)))
		wait = min(2*wait, longestOwn)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-ended: // the last chance
			ended, wait = nil, leastWait
		}
		timer.Stop()
	}
}

// became logs a change of the receiver's state.
func (p *Pusher) became(s state, err error) {
	if s == p.state {
		return
	}
	p.state = s
	switch s {
	case taking:
		p.cfg.Logger.Info("samples are pushed", "url", p.cfg.URL)
	case away:
		p.cfg.Logger.Warn("the receiver does not take samples, they wait in memory", "err", err)
	case refusing:
		p.cfg.Logger.Error("the receiver refuses samples, they are lost", "err", err)
	case unknown:
	}
}

// answer is what came of a request.
type answer struct {
	taken int           // samples
	again bool          // the request may be repeated
	after time.Duration // not earlier than this
	err   error
}

// post sends a message.
func (p *Pusher) post(ctx context.Context, m message) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.URL, bytes.NewReader(m.body))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	req.Header.Set("User-Agent", p.cfg.UserAgent)
	if p.two {
		req.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	if p.cfg.User != "" {
		password, err := p.password()
		if err != nil {
			return answer{again: true, err: err}
		}
		req.SetBasicAuth(p.cfg.User, password)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{again: true, err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return answer{again: true, err: fmt.Errorf("answer to %s: %w", p.cfg.URL, err)}
	}
	return p.read(resp.StatusCode, resp.Header, text, m.samples, time.Now())
}

// read says what an answer to a request with so many samples means.
func (p *Pusher) read(status int, header http.Header, text []byte, samples int, now time.Time) answer {
	taken := 0
	if p.two { // it says how much it has written, also of a request that it refuses in parts
		taken = min(written(header, "Samples", samples)+written(header, "Histograms", samples), samples)
	} else if status/100 == 2 {
		taken = samples
	}
	err := fmt.Errorf("POST %s: status %d: %s", p.cfg.URL, status, strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " "))
	switch {
	case status/100 == 2 && taken == samples:
		return answer{taken: taken}
	case status/100 == 2:
		// An older receiver takes 2.0 for an empty request of 1.0.
		return answer{taken: taken, err: fmt.Errorf("POST %s: status %d, but of %d samples only %d are confirmed; if it does not know 2.0, use protocol 1.0",
			p.cfg.URL, status, samples, taken)}
	case status/100 == 5 || status == http.StatusTooManyRequests:
		return answer{again: true, after: retryAfter(header.Get("Retry-After"), now), err: err}
	default:
		return answer{taken: taken, err: err}
	}
}

// written reads how much of something a receiver of 2.0 says to have written, of so much at most; 0 if it does not say.
func written(header http.Header, what string, most int) int {
	n, err := strconv.ParseUint(header.Get("X-Prometheus-Remote-Write-"+what+"-Written"), 10, 31)
	if err != nil {
		return 0
	}
	return min(int(n), most)
}

// retryAfter reads a header Retry-After, of seconds or a date (RFC 9110, 10.2.3); 0 if it is neither or past.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
