package accounting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// fakeMeter is a meter whose answers are its fields.
type fakeMeter struct{ status energy.Status }

func (f *fakeMeter) Run(ctx context.Context, _ func(int, energy.Reading)) error {
	<-ctx.Done()
	return nil
}
func (f *fakeMeter) Status() energy.Status { return f.status }

func config(store *Store) Config {
	return Config{
		Nodes: []NodeConfig{{Name: "pi", Meter: "bench", Channel: 5}, {Name: "nano", Meter: "bench", Channel: 6}},
		Tick:  time.Second, StaleAfter: 3 * time.Second, SaveEvery: 10 * time.Second,
		Store: store, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	start := time.Now()
	s, err := OpenStore(dir, "boot-1", func() time.Duration { return time.Since(start) + time.Hour })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSnapshotsFollowTheTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(config(nil))
		if err != nil {
			t.Fatal(err)
		}
		l.AddMeter("bench", &fakeMeter{energy.Status{Kind: "meter", Up: true}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		sink := l.Sink("bench")
		start := time.Now()
		send := func(at time.Duration, e energy.Energy) {
			sink(5, energy.Reading{Epoch: 1, At: at, Host: start.Add(at), Energy: e, Power: 1, Interval: 100 * time.Millisecond, Voltage: 5 * energy.Volt})
			sink(4, energy.Reading{Epoch: 1, At: at, Host: start.Add(at), Energy: 1e9})
		}
		first := l.Snapshot()
		if n := first.Nodes[0]; !n.Known || n.Fresh || n.Energy != 0 || len(first.Meters) != 1 {
			t.Errorf("first snapshot %+v", first)
		}

		send(900*time.Millisecond, 10*energy.Joule)
		<-time.After(1100 * time.Millisecond) // the bubble's clock
		send(1900*time.Millisecond, 13*energy.Joule)
		<-time.After(time.Second)
		n := l.Snapshot().Nodes[0]
		if n.Energy != 3*energy.Joule || !n.Fresh || n.Power != 3*energy.Watt || n.Interval != time.Second {
			t.Errorf("second tick: %+v", n)
		}
		if first.Nodes[0].Energy != 0 {
			t.Error("a published snapshot changed")
		}
		if other := l.Snapshot().Nodes[1]; other.Fresh || other.Energy != 0 {
			t.Errorf("a node got another channel's reading: %+v", other)
		}

		<-time.After(5 * time.Second)
		n = l.Snapshot().Nodes[0]
		if n.Fresh || n.Power != 0 || n.Energy != 3*energy.Joule {
			t.Errorf("an old reading is still shown, or its total lost: %+v", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Means are over the time that was measured; where none was, there are none.
func TestMeansOfPartlyMeasuredTicks(t *testing.T) {
	const s = time.Second
	n := node{account: account{start: t0}}
	for i, tc := range []struct {
		at, unmeasured, interval time.Duration
		energy                   energy.Energy
		fresh                    bool
		power                    energy.Power
	}{
		{1 * s, 0, 0, 100 * energy.Joule, false, 0},                       // the first: nothing to subtract from
		{3 * s, 0, s, 106 * energy.Joule, true, 3 * energy.Watt},          // a whole tick
		{5 * s, 1 * s, s, 109 * energy.Joule, true, 3 * energy.Watt},      // half of one
		{6 * s, 2 * s, 0, 109 * energy.Joule, false, 0},                   // none of it
		{6 * s, 2 * s, 100 * s / 1000, 109 * energy.Joule, false, 0},      // known already: as before
		{7 * s, 2 * s, 0, 112 * energy.Joule, true, 3 * energy.Watt},      // again
		{7 * s, 2 * s, 0, 112 * energy.Joule, false, 0},                   // the same again, without a mean of its own
		{8 * s, 3 * s, s / 10, 112 * energy.Joule, true, energy.Watt / 2}, // only the report's own mean
	} {
		r := energy.Reading{Epoch: 1, At: tc.at, Host: t0.Add(tc.at), Energy: tc.energy, Unmeasured: tc.unmeasured, Interval: tc.interval, Power: energy.Watt / 2}
		n.observe(r)
		if got := n.publish(r.Host, 5*s); got.Fresh != tc.fresh || got.Power != tc.power {
			t.Errorf("%d: fresh %v, %v; want %v, %v", i, got.Fresh, got.Power, tc.fresh, tc.power)
		}
	}
}

func TestTotalsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	run := func(end bool, e energy.Energy, at time.Duration) Node {
		store := openStore(t, dir)
		defer store.Close()
		l, err := New(config(store))
		if err != nil {
			t.Fatal(err)
		}
		l.Sink("bench")(5, energy.Reading{Epoch: 77, At: at, Host: time.Now(), Energy: e})
		if end {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := l.Run(ctx); err != nil {
				t.Fatal(err)
			}
		} else {
			l.save(false) // the last one before a SIGKILL
		}
		l.publish(time.Now())
		return l.Snapshot().Nodes[0]
	}
	const s = time.Second
	run(true, 100*energy.Joule, 10*s)
	if n := run(false, 160*energy.Joule, 20*s); n.Energy != 60*energy.Joule {
		t.Errorf("after an end in order: %v, want 60 J", n.Energy)
	}
	if n := run(false, 190*energy.Joule, 30*s); n.Energy != 90*energy.Joule {
		t.Errorf("after a kill: %v, want 90 J", n.Energy)
	}
	store := openStore(t, dir)
	l, err := New(config(store))
	if err != nil {
		t.Fatal(err)
	}
	if n := l.Snapshot().Nodes[0]; n.Known {
		t.Errorf("after a kill, totals were published before the meter was heard: %+v", n)
	}
	if r, ok := l.Last("bench", 5); !ok || r.Epoch != 77 || r.At != 30*s {
		t.Errorf("last reading %+v, %v", r, ok)
	}
	// A process that never heard its meter must not make the state clean.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	store.Close()
	l, err = New(config(openStore(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	if n := l.Snapshot().Nodes[0]; n.Known {
		t.Error("a run without a reading made old totals clean")
	}
}

// The word "clean" is good for one start: a process that is killed before its first save has published more than is saved.
func TestCleanIsGoodForOneStart(t *testing.T) {
	dir := t.TempDir()
	at := time.Duration(0)
	start := func() (*Ledger, *Store) {
		store := openStore(t, dir)
		l, err := New(config(store))
		if err != nil {
			t.Fatal(err)
		}
		return l, store
	}
	read := func(l *Ledger) {
		at += 10 * time.Second
		l.Sink("bench")(5, energy.Reading{Epoch: 3, At: at, Host: time.Now(), Energy: energy.Energy(at.Microseconds())})
	}
	l, store := start()
	read(l)
	read(l)
	l.save(true)
	store.Close()

	l, store = start()
	if n := l.Snapshot().Nodes[0]; !n.Known || n.Energy != 10*energy.Joule {
		t.Errorf("after an end in order: %+v", n)
	}
	read(l)
	l.publish(time.Now())
	published := l.Snapshot().Nodes[0].Energy
	store.Close() // killed: nothing was saved

	l, _ = start()
	if n := l.Snapshot().Nodes[0]; n.Known {
		t.Errorf("%v are published at once, after %v were", n.Energy, published)
	}
	read(l)
	l.publish(time.Now())
	if n := l.Snapshot().Nodes[0]; n.Energy < published {
		t.Errorf("%v after %v", n.Energy, published)
	}
}

func TestBadState(t *testing.T) {
	for name, text := range map[string]string{
		"truncated":     `{"version":1,"clean":tr`,
		"empty":         ``,
		"other version": `{"version":99}`,
		"unknown field": `{"version":1,"cleen":true}`,
		"impossible":    `{"version":1,"nodes":{"pi":{"totals":{"energy_uj":5,"energy_mark_uj":4}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			cfg := config(openStore(t, dir))
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			l, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			l.publish(time.Now())
			if l.Snapshot().Errors["state"] != 1 || !strings.Contains(log.String(), "set aside") {
				t.Errorf("errors %v, log %q", l.Snapshot().Errors, log.String())
			}
			aside, err := filepath.Glob(filepath.Join(dir, "state.json.*.bad"))
			if err != nil || len(aside) != 1 {
				t.Fatalf("set aside: %v, %v", aside, err)
			}
			if b, _ := os.ReadFile(aside[0]); string(b) != text {
				t.Errorf("the file set aside has %q", b)
			}
		})
	}
}

func TestStoreIsTakenOnce(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	if _, err := OpenStore(dir, "b", func() time.Duration { return 0 }); err == nil || !strings.Contains(err.Error(), "another wattlet") {
		t.Errorf("second open: %v", err)
	}
	if _, err := OpenStore(filepath.Join(dir, "lock", "x"), "b", nil); err == nil || !strings.Contains(err.Error(), "--state.directory") {
		t.Errorf("a directory that cannot be: %v", err)
	}
}

// A disk that fails costs the saving, not the measuring, and is told once.
func TestSavingFails(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	cfg := config(openStore(t, dir))
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state.json.new"), 0o700); err != nil { // in the way of the new file
		t.Fatal(err)
	}
	l.save(false)
	l.save(false)
	l.Sink("bench")(5, energy.Reading{Epoch: 1, At: 1, Host: time.Now(), Interval: time.Second})
	l.publish(time.Now())
	if s := l.Snapshot(); s.Errors["state"] != 2 || !s.Nodes[0].Fresh {
		t.Errorf("snapshot %+v", s)
	}
	if strings.Count(log.String(), "cannot be saved") != 1 {
		t.Errorf("log %q", log.String())
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "--state.directory") {
		t.Errorf("a start in a directory that takes nothing: %v", err)
	}
}

// A host's clock that is stepped between two runs of the agent must not become unmeasured time.
func TestSteppedWallClock(t *testing.T) {
	dir := t.TempDir()
	up := time.Hour
	s, err := OpenStore(dir, "boot-1", func() time.Duration { return up })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wall := time.Date(1970, 1, 1, 0, 20, 0, 0, time.UTC) // a board without a clock battery
	err = s.Save(State{Nodes: map[string]NodeState{"pi": {Last: energy.Reading{Epoch: 1, At: time.Second, Host: wall.Add(-2 * time.Second)}}}}, wall)
	if err != nil {
		t.Fatal(err)
	}
	up += 30 * time.Second
	wall = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	st, err := s.Load(wall)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := st.Nodes["pi"].Last.Host, wall.Add(-32*time.Second); !got.Equal(want) {
		t.Errorf("last reading at %v, want %v", got, want)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"clean":true,"host_boot":"x","nodes":{"pi":{"meter":"m","channel":1,"totals":{},"last":{},"last_uptime_ns":0}}}`))
	f.Add([]byte(`{"version":1,"nodes":{"pi":{"accounts":{"posted_uj":9,"base_uj":4,"unattributed_uj":1,"departed_uj":2,` +
		`"workloads":[{"kind":"pod","namespace":"n","name":"a","energy_uj":2,"coldstart_uj":1}],` +
		`"functions":[{"namespace":"n","name":"f","histogram":{"count":3,"sum":1.5,"buckets":{"-4":2},"zero":1}}]}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(b)
		if err != nil {
			return
		}
		for name, n := range st.Nodes {
			if n.Totals.EnergyMark < n.Totals.Energy {
				t.Errorf("node %s: a mark below its sum passed", name)
			}
			for _, clean := range []bool{true, false} {
				if c := restoreAccounts(n, clean); !c.save().valid() || n.Accounts != nil && c.Posted != n.Accounts.Posted {
					t.Errorf("node %s, clean %v: %+v of %+v", name, clean, c, n.Accounts)
				}
			}
		}
	})
}

// What cannot be read is counted each tick and told once.
func TestSampleErrors(t *testing.T) {
	s := newSplit(t, "", time.Hour)
	var log strings.Builder
	s.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	for i, tc := range []struct {
		err    error
		errors uint64
		lines  int
	}{
		{nil, 0, 0}, {errors.New("one"), 3, 1}, {errors.New("other"), 6, 2}, {nil, 6, 2}, {errors.New("other"), 9, 3},
	} {
		s.usage.err = tc.err
		s.run(3)
		if n := s.Snapshot().Errors["cgroup"]; n != tc.errors || strings.Count(log.String(), "level=WARN") != tc.lines {
			t.Errorf("%d: %d errors, log %q", i, n, log.String())
		}
	}
	// What could be read was used all the same.
	if n := s.show(); n.workload("pod-a") < 10*energy.Joule {
		t.Errorf("a has %v", n.workload("pod-a"))
	}
}

// Where CPU times cannot be read, or no longer, the node's energy is published nevertheless.
func TestDeafLedger(t *testing.T) {
	s := newSplit(t, "", time.Hour)
	s.usage.silent, s.usage.err = true, errors.New("gone")
	s.run(60)
	if n := s.show(); n.Attribution.Pending != 0 || n.Energy != 119*energy.Joule || n.Attribution.Unattributed != n.Energy || !s.Snapshot().Sampled.IsZero() {
		t.Errorf("never read: %v pending of %v, %+v", n.Attribution.Pending, n.Measured, n.Attribution)
	}
	s.usage.silent = false
	s.run(60)
	had := s.show().workload("pod-a")
	if had < 55*energy.Joule || !s.Snapshot().Sampled.Equal(t0.Add(s.now)) {
		t.Errorf("a has %v; sampled %v", had, s.Snapshot().Sampled)
	}
	s.usage.silent = true
	s.run(14)
	if n := s.show(); n.Attribution.Pending < 13*2*energy.Joule {
		t.Errorf("given up after 14 s: %v pending", n.Attribution.Pending)
	}
	s.run(2)
	if n := s.show(); n.Attribution.Pending != 0 {
		t.Errorf("%v pending after 16 s", n.Attribution.Pending)
	}
	s.run(3600)
	if n := s.show(); n.Attribution.Pending != 0 || n.workload("pod-a") > had+4*energy.Joule {
		t.Errorf("%v pending after an hour, a has %v after %v", n.Attribution.Pending, n.workload("pod-a"), had)
	}
}

// A meter that is silent for an hour and comes back costs the attribution of that hour and no energy.
func TestSilentMeter(t *testing.T) {
	s := newSplit(t, "", time.Hour)
	s.run(30)
	had := s.show().workload("pod-a")
	for range 3600 {
		s.now += time.Second
		s.sample()
		s.show()
	}
	s.run(120)
	n := s.show()
	if n.Attribution.Pending > 4*energy.Joule || n.workload("pod-a") < had+115*energy.Joule || n.workload("pod-a") > had+170*energy.Joule {
		t.Errorf("pending %v, a has %v after %v", n.Attribution.Pending, n.workload("pod-a"), had)
	}
	if q := len(s.own.attributor.queue); q > 5 {
		t.Errorf("%d ticks wait", q)
	}
}

// One reading that claims to be of the future must not hold up those after it.
func TestReadingOfTheFuture(t *testing.T) {
	s := newSplit(t, "", time.Hour)
	s.run(10)
	r := s.reading(1, 0)
	r.At += time.Millisecond
	r.Host = r.Host.Add(time.Hour)
	s.sink(5, r)
	s.run(10)
	if n := s.show(); n.Attribution.Pending > 5*energy.Joule || n.workload("pod-a") < 14*energy.Joule {
		t.Errorf("pending %v, a has %v", n.Attribution.Pending, n.workload("pod-a"))
	}
}

// What was published never changes; a node whose energy is not split has no part in any of it.
func TestSnapshotsAreImmutable(t *testing.T) {
	s := newSplit(t, "", time.Hour)
	s.run(5)
	s.Activity(workload.Activity{ID: "a", At: s.now})
	s.run(15)
	s.Activity(workload.Activity{ID: "a", At: s.now, Started: 3, Completed: 3})
	s.run(15)
	old := s.Snapshot()
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := text(old)
	if !strings.Contains(before, `"buckets"`) {
		t.Fatalf("no histogram in %s", before)
	}
	s.Activity(workload.Activity{ID: "a", At: s.now, Started: 9, Completed: 9})
	s.usage.ids = append(s.usage.ids, "c")
	s.run(30)
	if after := text(old); after != before {
		t.Errorf("it was\n%s and is\n%s", before, after)
	}
	if other := s.Snapshot().Nodes[1]; other.Attribution != nil || other.Energy != 0 || s.state(false).Nodes["nano"].Accounts != nil {
		t.Errorf("%+v", other)
	}
	s.sink(6, energy.Reading{Epoch: 1, At: time.Second, Host: t0.Add(s.now), Energy: 5})
	s.sink(6, energy.Reading{Epoch: 1, At: 2 * time.Second, Host: t0.Add(s.now), Energy: 12})
	s.show()
	if other := s.Snapshot().Nodes[1]; other.Energy != 7 || other.Measured != 7 {
		t.Errorf("%+v", other)
	}
}

// All inputs at once, while the ledger runs and is read; at the end nothing is pending.
func TestLedgerFromAllSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		usage := &usageReader{uptime: func() time.Duration { return time.Hour + time.Since(start) }, ids: []workload.ID{"a", "b"}}
		cfg := config(nil)
		var versions atomic.Int64
		cfg.Attribution = &AttributionConfig{Node: "pi", Usage: usage, Uptime: usage.uptime, AttributorConfig: AttributorConfig{
			Board: Board{Classes: []Class{{Cores: 4}}}, Tick: cfg.Tick,
			Describe: func(id workload.ID) workload.Workload {
				if id == "b" {
					return workload.Workload{Kind: workload.Function, Namespace: "fn", Name: "pod-b", Function: fmt.Sprint(versions.Load() / 10)}
				}
				return workload.Workload{Kind: workload.Function, Namespace: "fn", Name: "pod-a", Function: "a"}
			},
		}}
		l, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var all sync.WaitGroup
		every := func(d time.Duration, do func(at time.Duration)) {
			all.Go(func() {
				tick := time.NewTicker(d)
				defer tick.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
						do(usage.uptime())
					}
				}
			})
		}
		sink := l.Sink("bench")
		every(100*time.Millisecond, func(time.Duration) {
			up := time.Since(start)
			for _, channel := range []int{5, 6} {
				sink(channel, energy.Reading{Epoch: 1, At: up, Host: time.Now(), Energy: 3 * energy.Energy(up.Microseconds())})
			}
		})
		every(300*time.Millisecond, func(at time.Duration) {
			l.Activity(workload.Activity{ID: "a", At: at, InFlight: 1, Started: int64(at / time.Second), Completed: int64(at/time.Second) - 1})
		})
		every(700*time.Millisecond, func(at time.Duration) {
			l.Event(workload.Event{ID: "b", At: at, What: workload.Created})
			l.Event(workload.Event{ID: workload.Node, At: at, What: "regime:x"})
			versions.Add(1)
			l.Redescribe()
			l.Tracked()
		})
		every(150*time.Millisecond, func(time.Duration) {
			for _, n := range l.Snapshot().Nodes {
				if a := n.Attribution; a != nil && (a.Invariant != 0 || n.Energy > n.Measured) {
					t.Errorf("%+v", a)
				}
			}
		})
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		all.Wait()
		l.save(true) // there is no store: nothing is settled
		l.settle()
		l.publish(time.Now())
		n := l.Snapshot().Nodes[0]
		if n.Attribution.Pending != 0 || n.Energy != n.Measured || n.Energy < 170*energy.Joule || n.workload("pod-a") < 20*energy.Joule {
			t.Errorf("%v of %v, %+v", n.Energy, n.Measured, n.Attribution)
		}
	})
}

// A start that ends within a tick is accounted up to the instant at which its workload got ready, and what follows is work, however long a tick is.
func TestStartWithinATick(t *testing.T) {
	s := newSplit(t, "", time.Hour)
	s.own.attributor.cfg.Watched = func(id workload.ID) bool { return id == "c" }
	s.usage.cpu = map[workload.ID]time.Duration{"c": 0}
	s.run(20)
	s.usage.ids = append(s.usage.ids, "c")
	s.run(1) // it is there and has done nothing
	s.now += 900 * time.Millisecond
	s.sink(5, s.reading(1, 0))
	s.usage.cpu["c"] = 300 * time.Millisecond
	readings := s.own.attributor.last
	s.Event(workload.Event{ID: "c", At: s.now - 20*time.Millisecond, What: workload.Ready})
	if s.own.attributor.last == readings {
		t.Error("nothing was read when it got ready")
	}
	// Whoever tells it again, and of others, has nothing read.
	readings = s.own.attributor.last
	s.now += apart
	s.Event(workload.Event{ID: "c", At: s.now, What: workload.Ready})
	s.Event(workload.Event{ID: "a", At: s.now, What: workload.Ready})
	s.Event(workload.Event{ID: "nobody", At: s.now, What: workload.Ready})
	if s.own.attributor.last != readings {
		t.Error("it is read for nothing")
	}
	s.now += 50 * time.Millisecond
	s.usage.cpu["c"] += 30 * time.Millisecond // of work
	s.sample()
	s.run(15)
	cpu := map[bool]float64{}
	for _, in := range s.own.attributor.est.(*fair).intervals {
		for _, u := range in.Uses {
			if u.Slot == s.own.attributor.byID["c"].slot {
				cpu[u.Cold] += u.Total()
			}
		}
	}
	if math.Abs(cpu[true]-0.3) > 1e-9 || math.Abs(cpu[false]-0.03) > 1e-9 {
		t.Errorf("of its CPU time %.3f s were its start and %.3f s work, want 0.3 and 0.03", cpu[true], cpu[false])
	}
	if f := s.show().Attribution.Functions[2]; f.Name != "c" || f.ColdStarts != 1 || f.ColdStart <= 0 || f.Energy <= 0 {
		t.Errorf("%+v", f)
	}
}
