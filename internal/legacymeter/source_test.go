package legacymeter

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	boardAddr = "10.0.0.5:10000"
	agentAddr = "10.0.0.9:40000"
)

// bench is a source and a network in a bubble; the board is plugged in by the test.
type bench struct {
	t      *testing.T
	net    *memNet
	source *Source
	conn   *memConn

	streams atomic.Int64

	mu       sync.Mutex
	readings []energy.Reading
}

// newBench starts a source of channel 6 that ends with the test.
func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, net: &memNet{}}
	cfg := Config{Address: boardAddr, Channel: 6, SupplyVoltage: 5 * energy.Volt}
	if change != nil {
		change(&cfg)
	}
	var err error
	if b.source, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	b.conn = b.net.listen(agentAddr)
	b.source.listen = func() (net.PacketConn, error) { return b.conn, nil }
	return b
}

// run starts the source and returns what ends it.
func (b *bench) run() (end func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.source.Run(ctx, func(channel int, r energy.Reading) {
			if channel != 6 {
				b.t.Errorf("a reading of channel %d", channel)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.readings = append(b.readings, r)
		})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run returned %v", err)
		}
	}
}

// plug connects a board, and returns what unplugs it.
func (b *bench) plug(opts BoardOptions) (unplug func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	opts.Streams = &b.streams
	conn := b.net.listen(boardAddr)
	go func() { done <- ServeBoard(ctx, conn, opts) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("ServeBoard returned %v", err)
		}
	}
}

// seen returns the readings so far.
func (b *bench) seen() []energy.Reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.readings)
}

// epochs returns the epochs of the readings in order, and fails if one returns or runs backwards.
func (b *bench) epochs() (epochs []uint64) {
	var last energy.Reading
	for _, r := range b.seen() {
		switch {
		case r.Epoch == 0 || !r.Estimated:
			b.t.Errorf("reading %+v", r)
		case r.Epoch == last.Epoch:
			if r.At <= last.At || r.Charge < last.Charge || r.Energy < last.Energy {
				b.t.Errorf("reading %+v after %+v", r, last)
			}
		case slices.Contains(epochs, r.Epoch):
			b.t.Errorf("epoch %x again", r.Epoch)
		default:
			epochs = append(epochs, r.Epoch)
		}
		last = r
	}
	return epochs
}

// An hour with one request, of the earlier client's form: the firmware never ends a stream.
func TestSourceAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		unplug := b.plug(BoardOptions{})
		pass(t, 100*time.Second) // the board is up before the source
		end := b.run()
		pass(t, time.Hour+time.Millisecond)

		requests := b.net.requests(boardAddr)
		if len(requests) != 1 || requests[0].data != "6\x00" || b.streams.Load() != 1 {
			t.Errorf("%d requests, first %q, %d streams", len(requests), requests[0].data, b.streams.Load())
		}
		readings := b.seen()
		if len(readings) != 3601 || len(b.epochs()) != 1 {
			t.Fatalf("%d readings in %d epochs", len(readings), len(b.epochs()))
		}
		last := readings[3600]
		// 600 mA for 3700 s at 5 V.
		if last.At != 3700*time.Second || last.Charge != 2220*energy.Coulomb || last.Energy != 11100*energy.Joule ||
			last.Interval != time.Second || last.Power != 3*energy.Watt || last.Current != 600_000 || last.Voltage != 0 {
			t.Errorf("last reading %+v", last)
		}
		if !last.Host.Equal(time.Now().Add(-time.Millisecond)) {
			t.Errorf("last reading said at %v, now %v", last.Host, time.Now())
		}
		st := b.source.Status()
		if !st.Up || st.Kind != "legacy" || st.Notifications != 3601 || st.Connects != 1 || st.Err != "" ||
			st.Identity != "10.0.0.5:10000 channel 6" || st.Clock.Valid || len(st.Errors) != 0 {
			t.Errorf("status %+v", st)
		}
		if m, ok := b.source.Last(); !ok || m != (Message{3_700_000_000, 2_220_000, 600}) {
			t.Errorf("last message %+v", m)
		}
		end()
		unplug()
	})
}

// The earlier client asked once: a lost request meant no data for ever. Asking too often starts streams that never end.
func TestSourceAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		if st := b.source.Status(); st.Up || !strings.Contains(st.Err, "not been asked yet") {
			t.Errorf("status %+v", st)
		}
		end := b.run()
		pass(t, 3*time.Hour)
		if st := b.source.Status(); st.Up || !strings.Contains(st.Err, "has not answered") {
			t.Errorf("status %+v", st)
		}
		requests := b.net.requests(boardAddr)
		for i, seconds := range []int{10, 20, 40, 80, 160, 300, 300, 300} {
			least := time.Duration(seconds) * time.Second
			if gap := requests[i+1].at.Sub(requests[i].at); gap < least || gap > least*5/4+lastLook {
				t.Errorf("request %d came after %v, want %v and up to a quarter more", i+1, gap, least)
			}
			if requests[i].from.String() != agentAddr {
				t.Errorf("request %d came from another socket, %v", i, requests[i].from)
			}
		}
		unplug := b.plug(BoardOptions{})
		pass(t, 6*time.Minute+15*time.Second)
		if st := b.source.Status(); !st.Up || b.streams.Load() != 1 {
			t.Errorf("status %+v, %d streams", st, b.streams.Load())
		}
		// After an answer the pauses are short again.
		unplug()
		before := len(b.net.requests(boardAddr))
		pass(t, 12600*time.Millisecond)
		if got := len(b.net.requests(boardAddr)) - before; got != 1 {
			t.Errorf("%d requests in 12.6 s after the board was unplugged", got)
		}
		end()
	})
}

// Every I2C error restarts the firmware: streams end, totals begin at zero, and nothing says so.
func TestSourceBoardRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reboot := make(chan struct{})
		b := newBench(t, nil)
		unplug := b.plug(BoardOptions{Reboot: reboot})
		end := b.run()
		pass(t, 100*time.Second)
		for range 5 {
			reboot <- struct{}{}
			pass(t, time.Minute)
		}
		end()
		if n := len(b.epochs()); n != 6 {
			t.Fatalf("%d epochs after 5 restarts", n)
		}
		if st := b.source.Status(); st.Restarts != 5 || st.Connects != 6 {
			t.Errorf("status %+v", st)
		}
		// The charge of all runs, but for less than a second before each restart and the end: 600 mA for 400 s.
		var sum energy.Charge
		var last energy.Reading
		for _, r := range b.seen() {
			if r.Epoch == last.Epoch {
				sum += r.Charge - last.Charge
			} else {
				sum += r.Charge
				if zero := r.Host.Add(-r.At); zero.Before(last.Host) {
					t.Errorf("epoch began at %v, before the last reading of the former at %v", zero, last.Host)
				}
			}
			last = r
		}
		if all := 240 * energy.Coulomb; sum > all || sum <= all-6*600_000 {
			t.Errorf("charge %v of %v", sum, all)
		}
		unplug()
	})
}

// An outage of the network, not of the board, costs nothing.
func TestSourceOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var cut atomic.Bool
		b.net.copies = func(packet) int {
			if cut.Load() {
				return 0
			}
			return 1
		}
		unplug := b.plug(BoardOptions{})
		end := b.run()
		pass(t, 60*time.Second+250*time.Millisecond)
		cut.Store(true)
		pass(t, 10*time.Minute)
		if st := b.source.Status(); st.Up || !strings.Contains(st.Err, "was last heard 10m0s ago") {
			t.Errorf("status %+v", st) // a dead source is not a constant load
		}
		cut.Store(false)
		pass(t, 5*time.Second)
		readings := b.seen()
		last := readings[len(readings)-1]
		if st := b.source.Status(); !st.Up || st.Restarts != 0 || len(b.epochs()) != 1 || last.Charge != 399*energy.Coulomb {
			t.Errorf("status %+v, last %+v", st, last)
		}
		end()
		unplug()
	})
}

func TestSourceTwoStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.net.copies = func(p packet) int {
			if p.to.String() == boardAddr {
				return 2 // the request is doubled, and so is the stream
			}
			return 1
		}
		unplug := b.plug(BoardOptions{})
		end := b.run()
		pass(t, time.Minute+time.Millisecond)
		readings := b.seen()
		if st := b.source.Status(); b.streams.Load() != 2 || st.Duplicates != 60 || len(b.epochs()) != 1 || len(readings) != 60 ||
			readings[59].Charge != 36*energy.Coulomb {
			t.Errorf("%d streams, status %+v, %d readings", b.streams.Load(), st, len(readings))
		}
		end()
		unplug()
	})
}

// Each of these ended the earlier client, or was taken for a reading.
func TestSourceSurvives(t *testing.T) {
	agent, board := netip.MustParseAddrPort(agentAddr), netip.MustParseAddrPort(boardAddr)
	forged := string(Message{TimestampUS: 1, ChargeMAS: 9e12}.Append(nil))
	for name, tc := range map[string]struct {
		do      func(b *bench)
		counted string
	}{
		"ICMP refusal":        {func(b *bench) { b.conn.errs <- syscall.ECONNREFUSED }, "read"},
		"undecodable":         {func(b *bench) { b.net.send(board, agent, "\x08") }, "decode"},
		"text":                {func(b *bench) { b.net.send(board, agent, "DATA_REQUEST") }, "decode"},
		"2 KiB":               {func(b *bench) { b.net.send(board, agent, strings.Repeat(" \x05", 1024)) }, "decode"},
		"NaN":                 {func(b *bench) { b.net.send(board, agent, "\x11\x00\x00\x00\x00\x00\x00\xf8\x7f") }, "decode"},
		"from another host":   {func(b *bench) { b.net.send(netip.MustParseAddrPort("10.0.0.6:10000"), agent, forged) }, "foreign"},
		"from another port":   {func(b *bench) { b.net.send(netip.MustParseAddrPort("10.0.0.5:10001"), agent, forged) }, "foreign"},
		"an impossible leap":  {func(b *bench) { b.net.send(board, agent, string(Message{1 << 50, 1e6, 1}.Append(nil))) }, "strange"},
		"empty, all is zero":  {func(b *bench) { b.net.send(board, agent, "") }, ""},
		"a very late message": {func(b *bench) { b.net.send(board, agent, string(Message{1e6, 600, 600}.Append(nil))) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				unplug := b.plug(BoardOptions{})
				end := b.run()
				pass(t, 30*time.Second+500*time.Millisecond)
				tc.do(b)
				pass(t, 30*time.Second)
				readings := b.seen()
				st := b.source.Status()
				if !st.Up || len(b.epochs()) != 1 || readings[len(readings)-1].Charge != 36*energy.Coulomb || b.streams.Load() != 1 {
					t.Errorf("status %+v, last reading %+v, %d streams", st, readings[len(readings)-1], b.streams.Load())
				}
				if want := map[bool]int{true: 0, false: 1}[tc.counted == ""]; len(st.Errors) != want || st.Errors[tc.counted] != uint64(want) {
					t.Errorf("errors %v", st.Errors)
				}
				end()
				unplug()
			})
		})
	}
}

// Before its first measurement a board sends messages of no bytes; they are its stream all the same.
func TestSourceBlankBoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		unplug := b.plug(BoardOptions{Measure: func(channel int, uptime time.Duration) Message {
			if uptime < time.Minute {
				return Message{}
			}
			return steady(channel, uptime)
		}})
		end := b.run()
		pass(t, 50*time.Second)
		if st := b.source.Status(); st.Up || !strings.Contains(st.Err, "has not measured yet") ||
			b.streams.Load() != 1 || len(b.seen()) != 0 {
			t.Errorf("status %+v, %d streams", st, b.streams.Load())
		}
		pass(t, 11*time.Second)
		if st := b.source.Status(); !st.Up || b.streams.Load() != 1 {
			t.Errorf("status %+v, %d streams", st, b.streams.Load())
		}
		end()
		unplug()
	})
}

// A process that did not run finds its deadline passed and its datagrams waiting. It must not ask.
func TestSourceStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		stall := make(chan struct{})
		var stalled atomic.Bool
		b.source.cfg.Now = func() time.Time {
			if stalled.CompareAndSwap(true, false) {
				<-stall
			}
			return time.Now()
		}
		unplug := b.plug(BoardOptions{})
		end := b.run()
		pass(t, 30*time.Second)
		stalled.Store(true)
		pass(t, 60*time.Second)
		close(stall)
		pass(t, 30*time.Second)
		readings := b.seen()
		if b.streams.Load() != 1 || len(b.epochs()) != 1 || len(readings) < 119 {
			t.Errorf("%d streams, %d readings", b.streams.Load(), len(readings))
		}
		for _, r := range readings { // what waited is not said to be new
			if want := readings[0].Host.Add(r.At - readings[0].At); r.Host.Sub(want).Abs() > 10*time.Millisecond {
				t.Fatalf("%+v, said at %v", r, want)
			}
		}
		end()
		unplug()
	})
}

func TestSourceResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var saved energy.Reading
		b := newBench(t, nil)
		unplug := b.plug(BoardOptions{})
		end := b.run()
		pass(t, time.Minute+time.Millisecond)
		end()
		readings := b.seen()
		saved = readings[len(readings)-1]
		saved.Host = saved.Host.Round(0) // as read from a file

		pass(t, 10*time.Minute) // the agent is not running; its stream goes nowhere
		again := newBench(t, func(c *Config) { c.Resume = func() (energy.Reading, bool) { return saved, true } })
		again.net = b.net
		again.conn = b.net.listen(agentAddr)
		end = again.run()
		pass(t, time.Second)
		end()
		first := again.seen()[0]
		if first.Epoch != saved.Epoch || first.Charge-saved.Charge != 360_000_600 {
			t.Errorf("%+v after %+v", first, saved)
		}
		unplug()
	})
}

// An agent that restarts again and again would fill the board's memory with streams, if it asked each time.
func TestSourceTakesUpItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.LocalPort = 40000 })
		unplug := b.plug(BoardOptions{})
		for range 10 {
			end := b.run()
			pass(t, 20*time.Second)
			end()
			b.conn = b.net.listen(agentAddr)
		}
		requests := b.net.requests(boardAddr)
		if len(requests) != 1 || requests[0].at.Sub(b.source.start) < firstLook || b.streams.Load() != 1 || len(b.epochs()) != 1 {
			t.Errorf("%d requests, %d streams", len(requests), b.streams.Load())
		}
		unplug()
		// The stream is gone: ask.
		unplug = b.plug(BoardOptions{})
		end := b.run()
		pass(t, 5*time.Second)
		if st := b.source.Status(); !st.Up || st.Connects != 2 || st.Restarts != 1 || b.streams.Load() != 1 {
			t.Errorf("status %+v", st)
		}
		end()
		unplug()
	})
}

// The earlier system's mock server ignores the request's words and sends no timestamps.
func TestSourceMockServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		mock := b.net.listen(boardAddr)
		go func() {
			_, from, err := mock.ReadFrom(make([]byte, 16))
			if err != nil {
				t.Error(err)
				return
			}
			for _, charge := range []float64{0.5, 900, 900, 1850.25} {
				_, _ = mock.WriteTo(Message{ChargeMAS: charge, CurrentMA: 7}.Append(nil), from)
				<-time.After(time.Second)
			}
			mock.Close()
		}()
		end := b.run()
		pass(t, 5*time.Second)
		end()
		readings := b.seen()
		if len(readings) != 4 || len(b.epochs()) != 1 {
			t.Fatalf("%d readings in %d epochs", len(readings), len(b.epochs()))
		}
		if r := readings[3]; r.Charge != 1_850_250 || r.Energy != 9_251_250 || r.Interval != time.Second || r.Current != 950_250 {
			t.Errorf("last reading %+v", r)
		}
	})
}

func TestSourceNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.Address = "meter.lan" })
		var known atomic.Bool
		b.source.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
			if host != "meter.lan" || !known.Load() {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.4"), netip.MustParseAddr("10.0.0.5")}, nil
		}
		unplug := b.plug(BoardOptions{})
		end := b.run()
		pass(t, 5*time.Second)
		if st := b.source.Status(); st.Up || st.Err != "find meter.lan: no such host" || st.Connects != 0 {
			t.Errorf("status %+v", st)
		}
		known.Store(true)
		pass(t, time.Minute)
		if st := b.source.Status(); !st.Up || len(b.net.requests("10.0.0.4:10000"))+len(b.net.requests(boardAddr)) > 2 {
			t.Errorf("status %+v", st)
		}
		end()
		unplug()
	})
}

// Readers on other goroutines saw halves of two messages in the earlier client. The race detector watches this one.
func TestSourceConcurrentReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		unplug := b.plug(BoardOptions{})
		end := b.run()
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for range 300 {
					<-time.After(100 * time.Millisecond)
					b.source.Status().Errors["mine"]++
					if m, ok := b.source.Last(); ok && m.ChargeMAS != float64(m.TimestampUS)*600/1e6 {
						t.Errorf("torn message %+v", m)
					}
				}
			})
		}
		readers.Wait()
		end()
		unplug()
		if st := b.source.Status(); len(st.Errors) != 0 {
			t.Errorf("a reader changed the status: %v", st.Errors)
		}
	})
}

func TestNew(t *testing.T) {
	good := Config{Address: "10.0.0.5", Channel: 1, SupplyVoltage: 5 * energy.Volt}
	for address, want := range map[string]string{
		"10.0.0.5":       "10.0.0.5:10000",
		"10.0.0.5:30000": "10.0.0.5:30000",
		"meter.lan":      "meter.lan:10000",
		"meter.lan:1":    "meter.lan:1",
		"::1":            "[::1]:10000",
		"[::1]":          "[::1]:10000",
		"[::1]:30000":    "[::1]:30000",
	} {
		cfg := good
		cfg.Address = address
		s, err := New(cfg)
		if err != nil || s.Status().Identity != want+" channel 1" {
			t.Errorf("%s: %v, %v", address, s, err)
		}
	}
	for name, change := range map[string]func(*Config){
		"":                      func(c *Config) { c.Address = "" },
		"port \"0\"":            func(c *Config) { c.Address = "a:0" },
		"port \"65536\"":        func(c *Config) { c.Address = "a:65536" },
		"port \"\"":             func(c *Config) { c.Address = "a:" },
		"no host name":          func(c *Config) { c.Address = ":10000" },
		"too many colons":       func(c *Config) { c.Address = "a:b:c" },
		"no channel 0":          func(c *Config) { c.Channel = 0 },
		"no channel 7":          func(c *Config) { c.Channel = 7 },
		"supply voltage 0 V":    func(c *Config) { c.SupplyVoltage = 0 },
		"supply voltage -5.000": func(c *Config) { c.SupplyVoltage = -5 * energy.Volt },
		"supply voltage 101.0":  func(c *Config) { c.SupplyVoltage = 101 * energy.Volt },
	} {
		cfg := good
		change(&cfg)
		if s, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}
