package accounting

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
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
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(b)
		if err != nil {
			return
		}
		for name, n := range st.Nodes {
			if n.Totals.EnergyMark < n.Totals.Energy {
				t.Errorf("node %s: a mark below its sum passed", name)
			}
		}
	})
}
