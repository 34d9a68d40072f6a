package meter_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/meter"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

var key = []byte("0123456789abcdef")

// background runs a part of the test's world until the test ends, and waits for its end.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func startMeter(t *testing.T, o metersim.Options) *metersim.Sim {
	t.Helper()
	if o.PSK == nil {
		o.PSK = metersim.OneKey("wattlet", key)
	}
	if o.Channels == nil {
		o.Channels = []metersim.Channel{
			{Load: metersim.Constant(5 * energy.Watt), Ideal: true},
			{Load: metersim.Square(2*energy.Watt, 8*energy.Watt, 50*time.Millisecond, 0.3), Ideal: true},
			{Load: metersim.Constant(1 * energy.Watt), Noise: 3},
		}
	}
	sim, err := metersim.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	background(t, sim.Run)
	return sim
}

func startLink(t *testing.T, o metersim.LinkOptions) *metersim.Link {
	t.Helper()
	link, err := metersim.ListenLink(o)
	if err != nil {
		t.Fatal(err)
	}
	background(t, link.Run)
	return link
}

// collector is a consumer of a client's readings.
type collector struct {
	*meter.Client
	stop func()

	mu       sync.Mutex
	readings map[int][]energy.Reading
	samples  map[uint32]map[uint64]int32 // of channel 3, by boot and number
	doubled  int
}

func collect(t *testing.T, url string, edit func(*meter.Config, *collector)) *collector {
	t.Helper()
	c := &collector{readings: map[int][]energy.Reading{}, samples: map[uint32]map[uint64]int32{}}
	cfg := meter.Config{
		Endpoint: meter.Endpoint{URL: url, Identity: "wattlet", Key: key},
		Logger:   slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg, c)
	}
	var err error
	if c.Client, err = meter.New(cfg); err != nil {
		t.Fatal(err)
	}
	c.stop = background(t, func(ctx context.Context) error {
		return c.Run(ctx, func(ch int, r energy.Reading) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.readings[ch] = append(c.readings[ch], r)
		})
	})
	return c
}

// withSamples collects batches, too.
func withSamples(cfg *meter.Config, c *collector) {
	cfg.OnBatch = func(boot uint32, b *meterpb.PastBatch) {
		s, err := wire.Samples(nil, b, 3)
		if err != nil {
			panic(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.samples[boot] == nil {
			c.samples[boot] = map[uint64]int32{}
		}
		for _, s := range s {
			if _, there := c.samples[boot][s.Number]; there {
				c.doubled++
			}
			c.samples[boot][s.Number] = s.Count
		}
	}
}

func (c *collector) of(ch int) []energy.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.readings[ch])
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

// near says whether two energies differ by rounding only.
func near(a, b energy.Energy) bool { return max(a-b, b-a) <= 1 }

func TestReadingsAreTheMetersTotals(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"DTLS": true, "plain, on loopback": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := metersim.Options{Name: "bench", ClockDriftPPM: 30}
			if !secure {
				o.Insecure, o.PSK = true, nil
			}
			var sim *metersim.Sim
			if secure {
				sim = startMeter(t, o)
			} else {
				o.Channels = []metersim.Channel{{Load: metersim.Constant(5 * energy.Watt), Ideal: true}, {Load: metersim.Sine(4*energy.Watt, 3*energy.Watt, 333*time.Millisecond), Ideal: true}}
				var err error
				if sim, err = metersim.Listen(o); err != nil {
					t.Fatal(err)
				}
				background(t, sim.Run)
			}
			c := collect(t, sim.URL(), nil)
			until(t, "20 readings", func() bool { return len(c.of(2)) >= 20 })
			for _, ch := range []int{1, 2} {
				var last energy.Reading
				for _, r := range c.of(ch) {
					truth, ok := sim.TruthAt(uint32(ch), uint32(r.Epoch), uint64(r.At.Microseconds()))
					if !ok || !near(r.Energy, truth) {
						t.Fatalf("channel %d at %v: %d µJ, truth %d", ch, r.At, r.Energy, truth)
					}
					if r.At <= last.At || r.Samples <= last.Samples || r.Unmeasured != 0 {
						t.Fatalf("reading %+v after %+v", r, last)
					}
					last = r
				}
			}
			s := c.Status()
			if !s.Up || s.Err != "" || s.Identity != "bench" || s.Lost != 0 || s.Duplicates > 1 || s.Connects != 1 || s.Restarts != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// Through a bad network and three reboots, every reading that is passed on is one the meter made, in order.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{RebootTakes: 300 * time.Millisecond})
	link := startLink(t, metersim.LinkOptions{Target: sim.Addr().String(), Loss: 0.2, Duplicate: 0.1, Reorder: 0.1, Jitter: 5 * time.Millisecond})
	c := collect(t, "coaps://"+link.Addr().String(), nil)
	seen := func() int {
		epochs := map[uint64]bool{}
		for _, r := range c.of(1) {
			epochs[r.Epoch] = true
		}
		return len(epochs)
	}
	for boot := range 3 {
		n := len(c.of(1))
		until(t, "readings of a boot", func() bool { return seen() > boot && len(c.of(1)) >= n+15 })
		sim.Reboot()
	}
	until(t, "the last boot", func() bool { return seen() == 4 })
	for ch := 1; ch <= 2; ch++ {
		var last energy.Reading
		ended := map[uint64]bool{}
		for _, r := range c.of(ch) {
			truth, ok := sim.TruthAt(uint32(ch), uint32(r.Epoch), uint64(r.At.Microseconds()))
			if !ok || !near(r.Energy, truth) {
				t.Fatalf("channel %d: boot %x at %v: %d µJ, truth %d", ch, r.Epoch, r.At, r.Energy, truth)
			}
			if r.Epoch == last.Epoch && r.At <= last.At || ended[r.Epoch] {
				t.Fatalf("channel %d: out of order: %+v after %+v", ch, r, last)
			}
			if r.Epoch != last.Epoch {
				ended[last.Epoch] = true
			}
			last = r
		}
	}
	if s := c.Status(); s.Restarts != 3 || s.Lost == 0 || s.Connects < 4 || s.Errors["silence"]+s.Errors["connect"] < 3 {
		t.Errorf("status %+v", s)
	}
	if s := link.Stats(); s.Dropped == 0 || s.Duplicated == 0 || s.Reordered == 0 {
		t.Errorf("the network was not bad: %+v", s)
	}
}

// What a lossy network took is fetched again: the samples are those that a client on a good network got.
func TestLostSamplesAreFetched(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{})
	link := startLink(t, metersim.LinkOptions{Target: sim.Addr().String()})
	good, bad := collect(t, sim.URL(), withSamples), collect(t, "coaps://"+link.Addr().String(), withSamples)
	until(t, "a first reading", func() bool { return len(bad.of(3)) > 0 && len(good.of(3)) > 0 })
	link.SetLoss(0.15)
	until(t, "some losses", func() bool { return bad.Status().Lost >= 10 })
	link.SetLoss(0)
	until(t, "all recovered", func() bool { s := bad.Status(); return s.Recovered == s.Lost })
	boot := sim.BootID()
	time0 := bad.of(3)[0].Samples // the first report's samples end here
	n := bad.of(3)
	end := n[len(n)-1].Samples
	until(t, "the good client to be as far", func() bool { g := good.of(3); return g[len(g)-1].Samples >= end })
	bad.stop()
	good.stop()
	if bad.doubled != 0 || good.doubled != 0 {
		t.Errorf("%d and %d samples came twice", bad.doubled, good.doubled)
	}
	from := max(time0, good.of(3)[0].Samples)
	for i := from; i < end; i++ {
		b, there := bad.samples[boot][i]
		if !there {
			t.Fatalf("sample %d of %d to %d was not recovered", i, from, end)
		}
		if g := good.samples[boot][i]; g != b {
			t.Fatalf("sample %d is %d, and was %d", i, b, g)
		}
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{})
	link := startLink(t, metersim.LinkOptions{Target: sim.Addr().String()})
	c := collect(t, "coaps://"+link.Addr().String(), nil)
	until(t, "up", func() bool { return c.Status().Up })
	link.Pause()
	until(t, "down", func() bool { return !c.Status().Up })
	until(t, "told why", func() bool { s := c.Status(); return s.Errors["silence"] > 0 && s.Err != "" })
	before := c.of(1)
	link.Resume()
	until(t, "up again", func() bool { return c.Status().Up })
	after := c.of(1)[len(before)]
	last := before[len(before)-1]
	if after.Epoch != last.Epoch {
		t.Errorf("a cut network became a reboot: %+v after %+v", after, last)
	}
	if gap := after.At - last.At; gap < time.Second || after.Unmeasured != 0 {
		t.Errorf("%v between the readings around the cut, %v unmeasured", gap, after.Unmeasured)
	}
	if s := c.Status(); s.Lost == 0 {
		t.Errorf("no report was lost in the cut: %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{MaxObservers: 1})
	first := collect(t, sim.URL(), nil)
	until(t, "the first observer", func() bool { return first.Status().Up })

	second := collect(t, sim.URL(), nil)
	until(t, "busy", func() bool { return second.Status().Errors["refused"] > 0 })
	if s := second.Status(); s.Up || !strings.Contains(s.Err, "the meter answers: ") {
		t.Errorf("status %+v", s)
	}
	first.stop()
	until(t, "the place is free", func() bool { return second.Status().Up })

	wrong := collect(t, sim.URL(), func(cfg *meter.Config, _ *collector) {
		cfg.Key = []byte("another key here")
		cfg.Handshake = 2 * time.Second
	})
	until(t, "no answer", func() bool { return wrong.Status().Errors["connect"] > 0 })
	if s := wrong.Status(); !strings.Contains(s.Err, "has another key or identity") {
		t.Errorf("status %+v", s)
	}

	nobody := collect(t, "coaps://127.0.0.1:9", nil) // discard: nothing listens
	until(t, "refused by the host", func() bool { return nobody.Status().Errors["connect"] > 0 })
	if s := nobody.Status(); !strings.Contains(s.Err, "nothing listens there") {
		t.Errorf("status %+v", s)
	}
}

// Reports that waited in the socket while the process stood still are dated when they were measured, not when they were read.
func TestStaleReportsAreDatedRight(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{})
	block, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c := collect(t, sim.URL(), func(cfg *meter.Config, _ *collector) {
		cfg.OnReport = func(r *meterpb.Report) {
			if r.TUs > 3_000_000 {
				once.Do(func() { close(held); <-block })
			}
		}
	})
	until(t, "the clocks are compared", func() bool { return c.Status().Clock.Valid })
	<-held
	first := len(c.of(1))
	const pause = time.Second
	<-time.After(pause) // less than the watchdog allows
	resumed := time.Now()
	close(block)
	until(t, "the backlog", func() bool { return len(c.of(1)) >= first+10 })
	all := c.of(1)
	if all[first].Host.After(resumed.Add(-pause / 2)) {
		t.Errorf("a report that waited is dated %v before it was read", resumed.Sub(all[first].Host))
	}
	for i := 1; i < len(all); i++ {
		host, own := all[i].Host.Sub(all[i-1].Host), all[i].At-all[i-1].At
		if i >= first-5 && max(host-own, own-host) > 20*time.Millisecond {
			t.Errorf("reading %d: %v after the one before by the meter's clock, %v by the host's", i, own, host)
		}
	}
}

// One process reads many meters, each with its own health.
func TestManyMeters(t *testing.T) {
	t.Parallel()
	var all []*collector
	for range 5 {
		all = append(all, collect(t, startMeter(t, metersim.Options{}).URL(), nil))
	}
	silent := startMeter(t, metersim.Options{})
	link := startLink(t, metersim.LinkOptions{Target: silent.Addr().String()})
	cut := collect(t, "coaps://"+link.Addr().String(), nil)
	until(t, "all up", func() bool {
		return cut.Status().Up && !slices.ContainsFunc(all, func(c *collector) bool { return !c.Status().Up })
	})
	link.Pause()
	until(t, "one down", func() bool { return !cut.Status().Up })
	for i, c := range all {
		n := len(c.of(1))
		until(t, "the others go on", func() bool { return len(c.of(1)) > n+3 })
		if s := c.Status(); !s.Up || s.Lost != 0 {
			t.Errorf("meter %d: %+v", i, s)
		}
	}
}

func TestConnAsksForEverything(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{Name: "bench"})
	conn, err := meter.Dial(t.Context(), meter.Endpoint{URL: sim.URL(), Identity: "wattlet", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	id, err := conn.Identity(t.Context())
	if err != nil || id.Name != "bench" || len(id.Channels) != 3 {
		t.Errorf("identity %v, %v", id, err)
	}
	tm, err := conn.Time(t.Context())
	if err != nil || tm.BootId != id.BootId {
		t.Errorf("time %v, %v", tm, err)
	}
	var l *meterpb.SampleList
	until(t, "samples", func() bool {
		l, err = conn.Samples(t.Context(), 1)
		return err != nil || len(l.Batches) > 0
	})
	if err != nil || l.Batches[0].Seq != 1 {
		t.Errorf("samples %v, %v", l, err)
	}
	links, err := conn.Resources(t.Context())
	if err != nil || !strings.Contains(links, "</power>") {
		t.Errorf("resources %q, %v", links, err)
	}
}
