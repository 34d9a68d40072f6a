// Package legacymeter speaks the protocol of the earlier system, so that its boards, clients, exporters and configuration
// files keep working: a Source reads a board, a Responder answers as the earlier client did, ServeBoard is a simulated board,
// and ParseConfig reads the earlier client's file.
//
// The earlier firmware measures charge only and forgets everything at a restart, without saying so. Energy is charge times a
// configured supply voltage, marked as estimated; restarts are told from the board's clock (see track). Its protocol has no
// keys and no end: whoever can send a datagram starts a stream that lasts until the board restarts. Replace it where you can.
package legacymeter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	// DefaultPort is the board's UDP port in all samples of the earlier system. Its firmware was built with 30000 by default.
	DefaultPort = 10000
	// Channels is the number of channels of a board: 1 to 3 are its sensor at 0x41, 4 to 6 the one at 0x40.
	Channels = 6

	// maxPause is the longest wait between two requests, before jitter. Each one a board hears starts another stream for
	// ever, even if its answers do not arrive.
	maxPause = 5 * time.Minute
	// maxVoltage keeps charge times voltage within 63 bits.
	maxVoltage = 100 * energy.Volt
	// firstLook is how long a source with a port of its own listens before it asks.
	firstLook = 3 * time.Second
	// lastLook is how long to look for datagrams that waited in the socket while this process did not run, before asking.
	lastLook = 100 * time.Millisecond
)

// Config is what a Source is made of.
type Config struct {
	// Address is the board's host or host:port; the port is DefaultPort if not given.
	Address string
	// Channel is 1 to Channels.
	Channel int
	// SupplyVoltage is the voltage the board is assumed to be supplied with, up to 100 V.
	SupplyVoltage energy.Voltage
	// Resume returns the last reading an earlier process had of this board and channel, or false; nil for none. It is called
	// at the first message. If the board has run on since, its epoch is continued and the energy of the time between counts.
	Resume func() (energy.Reading, bool)
	// LocalPort is the UDP port to listen at; 0 for any. With a port of its own a source that starts again first listens for the
	// stream it asked for in its former life, which the board still sends, and asks only if there is none: each request takes
	// memory of the board until that restarts, and restarts of an agent that asks each time would exhaust it.
	LocalPort uint16
	// Now is the wall clock with a monotonic reading; nil for time.Now.
	Now func() time.Time
	// Logger hears of changes of state; nil for none.
	Logger *slog.Logger
}

// Source reads one channel of one board.
type Source struct {
	cfg  Config
	host string
	port uint16
	// start is the zero of the monotonic clock.
	start time.Time
	// silence is the time without any datagram after which the board is asked again.
	silence time.Duration
	listen  func() (net.PacketConn, error)
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	message atomic.Pointer[Message]

	mu     sync.Mutex
	status energy.Status
	asks   int // since the last reading

	// Of Run alone.
	track track
	peer  netip.AddrPort
	try   int // requests in a row that nothing came of
	up    bool
}

// New returns a source for one channel of a board. Nothing is sent before Run.
func New(cfg Config) (*Source, error) {
	host, port, err := splitAddress(cfg.Address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("legacy meter %q: %w; write host or host:port", cfg.Address, err)
	case cfg.Channel < 1 || cfg.Channel > Channels:
		return nil, fmt.Errorf("legacy meter %s: no channel %d; there are 1 to %d", cfg.Address, cfg.Channel, Channels)
	case cfg.SupplyVoltage <= 0 || cfg.SupplyVoltage > maxVoltage:
		return nil, fmt.Errorf("legacy meter %s: supply voltage %v; give the voltage of the board's supply, up to %v",
			cfg.Address, cfg.SupplyVoltage, maxVoltage)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		cfg: cfg, host: host, port: port,
		silence: reorderWindow,
		// Not connected: a connected socket would keep the host's address of that moment, and tie a refusal to later reads.
		listen: func() (net.PacketConn, error) { return net.ListenPacket("udp", ":"+strconv.Itoa(int(cfg.LocalPort))) },
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		start:  cfg.Now(),
		status: energy.Status{Kind: "legacy", Errors: map[string]uint64{}},
		track:  track{volts: cfg.SupplyVoltage, resume: cfg.Resume},
	}
	s.status.Identity = fmt.Sprintf("%s channel %d", net.JoinHostPort(host, strconv.Itoa(int(port))), cfg.Channel)
	return s, nil
}

// splitAddress splits host or host:port; an IPv6 address with a port needs brackets.
func splitAddress(address string) (host string, port uint16, err error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")); err == nil {
		return addr.String(), DefaultPort, nil
	}
	host, service := address, strconv.Itoa(DefaultPort)
	if strings.Contains(address, ":") {
		if host, service, err = net.SplitHostPort(address); err != nil {
			return "", 0, err
		}
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q is not 1 to 65535", service)
	}
	if host == "" || len(host) > 253 {
		return "", 0, errors.New("no host name")
	}
	return host, uint16(n), nil
}

// Run asks the board for its stream and delivers a reading to sink for each message that tells something new, until ctx ends;
// it returns nil then. It asks once and again only after 10 s without any datagram from the board, ever less often. The
// only error is that there is no socket to be had.
func (s *Source) Run(ctx context.Context, sink func(channel int, r energy.Reading)) error {
	conn, err := s.listen()
	if err != nil {
		return fmt.Errorf("open UDP port %d to read legacy meter %s: %w", s.cfg.LocalPort, s.cfg.Address, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // ends a read

	if s.cfg.LocalPort != 0 && s.find(ctx) {
		s.receive(ctx, conn, firstLook, sink)
		s.fell(ctx)
	}
	pause := s.silence
	for ctx.Err() == nil {
		sent := s.ask(ctx, conn)
		heard := s.receive(ctx, conn, pause, sink)
		s.fell(ctx)
		switch s.try++; {
		case heard:
			pause, s.try = s.silence, 0
		case sent:
			pause = min(2*pause, max(maxPause, s.silence))
		}
	}
	return nil
}

// fell notes that nothing came for a while.
func (s *Source) fell(ctx context.Context) {
	if s.up && ctx.Err() == nil {
		s.up = false
		s.cfg.Logger.Warn("legacy meter has fallen silent; asking again", "meter", s.status.Identity)
	}
}

// find finds the board's address. A name that cannot be resolved now keeps its last one.
func (s *Source) find(ctx context.Context) bool {
	if addr, err := netip.ParseAddr(s.host); err == nil {
		s.peer = netip.AddrPortFrom(addr.Unmap(), s.port)
		return true
	}
	look, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := s.resolve(look, s.host)
	switch {
	case err == nil && len(addrs) > 0:
		s.peer = netip.AddrPortFrom(addrs[s.try%len(addrs)].Unmap(), s.port) // another one if nothing came of the former
	case ctx.Err() == nil:
		if err == nil {
			err = errors.New("the name has no address")
		}
		s.fail("resolve", fmt.Errorf("find %s: %w", s.host, err))
	}
	return s.peer.IsValid() && ctx.Err() == nil
}

// ask sends one request, in the form of the earlier client: the channel in decimal digits and a NUL.
func (s *Source) ask(ctx context.Context, conn net.PacketConn) bool {
	if !s.find(ctx) {
		return false
	}
	request := append(strconv.AppendInt(nil, int64(s.cfg.Channel), 10), 0)
	if _, err := conn.WriteTo(request, net.UDPAddrFromAddrPort(s.peer)); err != nil {
		if ctx.Err() == nil {
			s.fail("request", fmt.Errorf("ask %v: %w", s.peer, err))
		}
		return false
	}
	s.track.request(s.instant(s.cfg.Now()))
	s.mu.Lock()
	s.asks++
	s.status.Connects++
	s.status.Err = ""
	s.mu.Unlock()
	return true
}

// receive takes in datagrams until none came for the pause, at first, or for the silence after any; heard is whether one came.
func (s *Source) receive(
	ctx context.Context, conn net.PacketConn, pause time.Duration, sink func(int, energy.Reading),
) (heard bool) {
	buf := make([]byte, maxMessage+1)
	deadline, looked := time.Now().Add(jitter(pause)), false
	for ctx.Err() == nil {
		if err := conn.SetReadDeadline(deadline); err != nil && ctx.Err() == nil {
			s.fail("read", err)
		}
		n, from, err := conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return heard
		case errors.Is(err, os.ErrDeadlineExceeded):
			if looked {
				return heard
			}
			deadline, looked = time.Now().Add(lastLook), true
		case err != nil:
			// An ICMP refusal, at most; the board may be starting.
			s.fail("read", err)
			if sleep(ctx, min(time.Second, s.silence)); time.Now().After(deadline) {
				return heard
			}
		case !s.isPeer(from):
			s.count("foreign")
		default:
			heard = true
			deadline, looked = time.Now().Add(jitter(s.silence)), false
			s.take(buf[:n], sink)
		}
	}
	return heard
}

// instant splits the clocks.
func (s *Source) instant(now time.Time) instant { return instant{now.Sub(s.start), now.Round(0)} }

// isPeer says whether a datagram came from where the request went.
func (s *Source) isPeer(from net.Addr) bool {
	a, ok := from.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return false
	}
	ap := a.AddrPort()
	return ap.Port() == s.peer.Port() && ap.Addr().Unmap().WithZone("") == s.peer.Addr().WithZone("")
}

// take decodes a datagram and delivers its reading.
func (s *Source) take(b []byte, sink func(int, energy.Reading)) {
	m, err := Parse(b)
	if err != nil {
		s.fail("decode", fmt.Errorf("datagram of %v: %w", s.peer, err))
		return
	}
	now := s.cfg.Now()
	r, v := s.track.take(m, s.instant(now))

	s.mu.Lock()
	switch v {
	case known:
		s.status.Duplicates++
	case strange:
		s.status.Errors["strange"]++
	case blank:
		s.status.Err = "the board answers but has not measured yet; if this stays, look at its sensors"
	case renewed:
		s.status.Restarts++
		fallthrough
	case began, took:
		s.message.Store(&m)
		s.status.Notifications++
		s.status.LastSuccess, s.status.Err, s.asks = now, "", 0
	}
	s.mu.Unlock()

	if r.Epoch == 0 {
		return
	}
	if v == renewed {
		s.cfg.Logger.Info("legacy meter has started anew; its totals begin at zero", "meter", s.status.Identity)
	}
	if !s.up {
		s.up = true
		s.cfg.Logger.Info("legacy meter is heard", "meter", s.status.Identity, "address", s.peer.String())
	}
	sink(s.cfg.Channel, r)
}

// count notes a failure that says nothing about the board.
func (s *Source) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors[what]++
}

// fail notes a failure that explains why readings do not come.
func (s *Source) fail(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors[what]++
	s.status.Err = err.Error()
}

// Status returns the source's health. It may be called at any time.
func (s *Source) Status() energy.Status {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Errors = maps.Clone(st.Errors)
	st.Up = !st.LastSuccess.IsZero() && now.Sub(st.LastSuccess) < s.silence
	switch {
	case st.Up:
		st.Err = ""
	case st.Err != "":
	case s.asks == 0 && st.LastSuccess.IsZero():
		st.Err = st.Identity + " has not been asked yet"
	case st.LastSuccess.IsZero():
		st.Err = fmt.Sprintf("%s has not answered %d requests; check that it is on, its address, and its port "+
			"(the firmware's own default was 30000)", st.Identity, s.asks)
	default:
		st.Err = fmt.Sprintf("%s was last heard %v ago; check that it is on and in reach", st.Identity,
			now.Sub(st.LastSuccess).Round(time.Second))
	}
	return st
}

// Last returns the last message taken in, as it came, for a Responder; false before the first.
func (s *Source) Last() (Message, bool) {
	m := s.message.Load()
	if m == nil {
		return Message{}, false
	}
	return *m, true
}

// jitter lengthens d by up to a quarter, so that many agents do not ask in step after a power cut.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
