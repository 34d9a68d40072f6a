// Package metersim is a meter made of software: loads that are known exactly, the INA3221 sensor with its errors, the
// accounting of the firmware, and the CoAP server over DTLS, so that everything behind the wire can be tested against the
// truth. Instants are true time since the simulator's power-on; the meter's own clock drifts against it and starts again from
// zero at each boot.
package metersim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// Sim is a meter on the network. Its methods may be called by several goroutines.
type Sim struct {
	o       Options
	socket  socket
	reboots chan struct{}
	// latest is the last report of the present boot, nil before its first.
	latest  atomic.Pointer[payload]
	serving atomic.Pointer[server]

	mu      sync.Mutex
	meter   *Meter
	started time.Time
	elapsed time.Duration
}

// Listen binds the address. What arrives from then on is answered once Run serves.
func Listen(o Options) (*Sim, error) {
	if err := o.validateServing(); err != nil {
		return nil, err
	}
	m, err := NewMeter(o)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	addr, err := net.ResolveUDPAddr("udp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", o.Addr, err)
	}
	if o.Insecure && !addr.IP.IsLoopback() {
		return nil, fmt.Errorf("%w: without DTLS only loopback is served, not %s; take 127.0.0.1 or give a key", ErrOptions, o.Addr)
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; take another address or end what uses it", o.Addr, err)
	}
	return &Sim{
		o: o, socket: socket{conn: conn}, meter: m, reboots: make(chan struct{}, 1), started: o.Now(),
	}, nil
}

// Close releases the address of a Sim that is not run.
func (s *Sim) Close() error { return s.socket.conn.Close() }

// Addr returns the address it listens on.
func (s *Sim) Addr() *net.UDPAddr {
	addr, _ := s.socket.conn.LocalAddr().(*net.UDPAddr)
	return addr
}

// URL returns the address for a client, as coaps://127.0.0.1:5684.
func (s *Sim) URL() string {
	if s.o.Insecure {
		return "coap://" + s.Addr().String()
	}
	return "coaps://" + s.Addr().String()
}

// maxTick is how late the end of a batch that filled up early is seen at most.
const maxTick = 50 * time.Millisecond

// Run measures and serves in real time until ctx ends, then closes sessions and socket and returns nil. It answers from the
// first report on, one sweep after power-on. Call it once.
func (s *Sim) Run(ctx context.Context) error {
	broken := make(chan struct{})
	var errRead error
	// What arrives before the first report waits in the socket, so that a client that is quick loses nothing.
	read := sync.OnceFunc(func() {
		go func() {
			defer close(broken)
			errRead = s.socket.run()
		}()
	})
	err := s.loop(ctx, read, broken)
	if srv := s.serving.Swap(nil); srv != nil {
		srv.stop(false)
	}
	errClose := s.socket.conn.Close()
	read()
	<-broken
	return errors.Join(err, errRead, errClose)
}

// loop keeps the meter up to date, and calls read when it serves, until ctx ends or broken is closed.
func (s *Sim) loop(ctx context.Context, read func(), broken <-chan struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	cut := s.o.RebootEvery
	for {
		var reboot bool
		select {
		case <-ctx.Done():
			return nil
		case <-broken:
			return nil
		case <-s.reboots:
			reboot = true
		case <-timer.C:
		}
		now := s.advance(ctx)
		if reboot || s.o.RebootEvery > 0 && now >= cut {
			cut = now + s.o.RebootEvery
			s.powerCut()
		}
		if s.serving.Load() == nil && s.latest.Load() != nil {
			srv, err := s.serve()
			if err != nil {
				return err
			}
			s.serving.Store(srv)
			read()
			s.o.Log.Info("meter is up", "url", s.URL(), "boot_id", s.BootID())
		}
		s.mu.Lock()
		next := s.meter.NextReport() - s.sinceStart()
		s.mu.Unlock()
		timer.Reset(max(0, min(next, maxTick)))
	}
}

// advance lets the meter measure up to now and notifies the observers of the last report. It catches up in steps, so that
// after a long stop nobody waits long for the lock.
func (s *Sim) advance(ctx context.Context) (now time.Duration) {
	var last *meterpb.Report
	for done := false; !done && ctx.Err() == nil; {
		s.mu.Lock()
		now = s.sinceStart()
		step := min(now, s.meter.Now()+10*time.Second)
		s.meter.Advance(step, func(r *meterpb.Report) { last = r })
		done = step == now
		s.mu.Unlock()
	}
	if last != nil {
		p := newPayload(last)
		s.latest.Store(p)
		if srv := s.serving.Load(); srv != nil {
			srv.notify(p)
		}
	}
	return now
}

// powerCut ends the boot: sessions are gone without a word.
func (s *Sim) powerCut() {
	s.mu.Lock()
	s.meter.Reboot(s.o.RebootTakes)
	s.mu.Unlock()
	s.latest.Store(nil)
	if srv := s.serving.Swap(nil); srv != nil {
		srv.stop(true)
	}
	s.o.Log.Info("meter lost its power", "for", s.o.RebootTakes)
}

// sinceStart returns true time since power-on, which never goes back. It must be called with mu held.
func (s *Sim) sinceStart() time.Duration {
	s.elapsed = max(s.elapsed, s.o.Now().Sub(s.started))
	return s.elapsed
}

// Now returns true time since power-on, which is the time of the loads.
func (s *Sim) Now() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sinceStart()
}

// Reboot cuts the meter's power for Options.RebootTakes while Run serves. It returns at once; the power is back when BootID
// has changed. Peers hear nothing: their sessions are gone without a close_notify.
func (s *Sim) Reboot() {
	select {
	case s.reboots <- struct{}{}:
	default: // One is about to happen.
	}
}

// clockUs returns the meter's clock.
func (s *Sim) clockUs() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.ClockUs(s.sinceStart())
}

func (s *Sim) identity() *meterpb.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.Identity(s.sinceStart())
}

func (s *Sim) samples(from uint32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.Samples(from)
}

// BootID returns the id of the present boot, or of the last one while there is no power.
func (s *Sim) BootID() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.BootID()
}

// Observers returns how many observations there are.
func (s *Sim) Observers() int {
	if srv := s.serving.Load(); srv != nil {
		return srv.count()
	}
	return 0
}

// Boots returns all boots, the last or present one at the end.
func (s *Sim) Boots() []Boot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.Boots()
}

// Truth returns what the load of a channel drew from power-on to the instant the meter has measured up to.
func (s *Sim) Truth(channel uint32) energy.Energy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.Truth(channel, 0, s.meter.Now())
}

// TruthAt returns what the load of a channel drew from the start of a boot until that boot's clock read tUs: what a perfect
// meter's total would be at that t_us. ok is false for a boot or channel there is not.
func (s *Sim) TruthAt(channel, bootID uint32, tUs uint64) (e energy.Energy, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.TruthAt(channel, bootID, tUs)
}
