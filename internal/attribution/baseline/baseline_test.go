package baseline

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

var all = map[string]func(attribution.Board) attribution.Estimator{
	"cpu-share": CPUShare, "utilisation": Utilisation, "nnls": NNLS, "faasmeter": FaasMeter(0), "faasmeter 1 W": FaasMeter(1),
}

func function(name string) workload.Workload {
	return workload.Workload{ID: workload.ID("pod-" + name), Kind: workload.Function, Namespace: "fn", Name: name, Function: name}
}

var daemon = workload.Workload{ID: "system.slice", Kind: workload.System, Name: "system.slice"}

// bench feeds an estimator one interval after the other.
type bench struct {
	t   *testing.T
	e   attribution.Estimator
	at  time.Duration
	in  energy.Energy // high-water mark of what was measured
	sum energy.Energy
	raw energy.Energy
}

func cpu(s attribution.Slot, seconds float64) attribution.Use {
	return attribution.Use{Slot: s, CPU: [attribution.MaxClasses]float64{seconds}}
}

// step returns a copy of the one tick that an interval gives.
func (b *bench) step(d time.Duration, e energy.Energy, uses ...attribution.Use) attribution.Tick {
	b.t.Helper()
	var out []attribution.Tick
	b.e.Step(&attribution.Interval{Start: b.at, End: b.at + d, Energy: e, Uses: uses}, func(tick *attribution.Tick) {
		out = append(out, *tick)
		out[len(out)-1].Shares = slices.Clone(tick.Shares)
	})
	if len(out) != 1 || out[0].Start != b.at || out[0].End != b.at+d || len(out[0].Shares) != len(uses) {
		b.t.Fatalf("an interval at %v with %d uses gave %+v", b.at, len(uses), out)
	}
	b.at += d
	b.raw += e
	b.in = max(b.in, b.raw)
	tick := out[0]
	sum := tick.Base
	for i, s := range tick.Shares {
		if s.Energy < 0 || s.ColdStart < 0 || s.Slot != uses[i].Slot {
			b.t.Errorf("at %v: share %+v of use %+v", b.at, s, uses[i])
		}
		sum += s.Energy + s.ColdStart
	}
	if tick.Energy < 0 || tick.Base < 0 || sum != tick.Energy {
		b.t.Errorf("at %v: parts are %d µJ, measured %d, base %d", b.at, sum, tick.Energy, tick.Base)
	}
	if b.sum += tick.Energy; b.sum != b.in {
		b.t.Errorf("at %v: %d µJ posted, most ever measured %d", b.at, b.sum, b.in)
	}
	return tick
}

func TestUtilisation(t *testing.T) {
	b := &bench{t: t, e: Utilisation(attribution.Board{Cores: [attribution.MaxClasses]int{3, 1}})}
	f, g := b.e.Enter(function("f")), b.e.Enter(function("g"))
	// 4 cores for 1 s: 1 core-second is a quarter, half a core-second an eighth. 8 J: 2 J and 1 J, 5 J rest.
	tick := b.step(time.Second, 8*energy.Joule, cpu(f, 1), cpu(g, 0.5))
	if tick.Shares[0].Energy != 2*energy.Joule || tick.Shares[1].Energy != energy.Joule || tick.Base != 5*energy.Joule {
		t.Errorf("%+v", tick)
	}
	cold := cpu(f, 1)
	cold.Cold = true
	if tick = b.step(time.Second, 4*energy.Joule, cold); tick.Shares[0].Energy != 0 || tick.Shares[0].ColdStart != energy.Joule {
		t.Errorf("cold: %+v", tick)
	}
}

func TestCPUShare(t *testing.T) {
	b := &bench{t: t, e: CPUShare(attribution.Board{Idle: 3})}
	f, d := b.e.Enter(function("f")), b.e.Enter(daemon)
	// Until something is known the board says 3 W: 5 J - 3 J = 2 J by 3:1.
	tick := b.step(time.Second, 5*energy.Joule, cpu(f, 0.75), cpu(d, 0.25))
	if tick.Shares[0].Energy != 1_500_000 || tick.Shares[1].Energy != 500_000 || tick.Base != 3*energy.Joule {
		t.Errorf("by the board's idle power: %+v", tick)
	}
	// Half a second after a function is not quiet, whatever it takes; then 2 W + 1 W per core of the daemon's.
	b.step(500*time.Millisecond, 50*energy.Joule, cpu(d, 0.1))
	for i := range 60 {
		c := 0.1 + 0.1*float64(i%2)
		b.step(time.Second, energy.Energy(math.Round((2+c)*1e6)), cpu(d, c))
		if m := b.e.Model().Base; i < 4 && m != 3 || i >= 5 && math.Abs(m-2) > 1e-6 {
			t.Errorf("after %d s of quiet the base is %v W", i+1, m)
		}
	}
	// After a minute it learns no more.
	b.step(time.Minute, 600*energy.Joule, cpu(d, 6))
	tick = b.step(time.Second, 5*energy.Joule, cpu(f, 0.5), cpu(d, 0.25))
	if got := tick.Shares[0].Energy; got < 1_999_990 || got > 2_000_010 { // (5 - 2)·2/3
		t.Errorf("by the learnt idle power: %+v", tick)
	}
}

func TestQuietIntervals(t *testing.T) {
	b := &bench{t: t, e: CPUShare(attribution.Board{Idle: 3})}
	f := b.e.Enter(function("f"))
	for range 20 { // a function in flight that waits for something is not quiet
		b.step(time.Second, 9*energy.Joule, attribution.Use{Slot: f, InFlight: 1})
	}
	if m := b.e.Model().Base; m != 3 {
		t.Errorf("base %v W", m)
	}
}

func TestNNLS(t *testing.T) {
	b := &bench{t: t, e: NNLS(attribution.Board{Idle: 1, Peak: 5, Cores: [attribution.MaxClasses]int{4}})}
	f, g := b.e.Enter(function("f")), b.e.Enter(function("g"))
	// First all are alike: (5 - 1)/4 = 1 W per core.
	if tick := b.step(time.Second, 3*energy.Joule, cpu(f, 0.5), cpu(g, 1)); tick.Shares[0].Energy != 500_000 || tick.Shares[1].Energy != 1_000_000 {
		t.Errorf("at first: %+v", tick)
	}
	// Truth: 2 W per core for f, nothing for g: the fit of g would be negative with an offset of -0.1 W, so it stays zero.
	for i := range 300 {
		x, y := float64(i%3)/4, float64(i%5)/4
		b.step(time.Second, energy.Energy(math.Round((1+2*x)*1e6)), cpu(f, x), cpu(g, y))
	}
	tick := b.step(time.Second, 10*energy.Joule, cpu(f, 1), cpu(g, 1))
	if e, h := tick.Shares[0].Energy, tick.Shares[1].Energy; e < 1_999_000 || e > 2_001_000 || h > 1000 {
		t.Errorf("fitted: %+v", tick)
	}
	// 301 s of another truth leave nothing of the first.
	for i := range 301 {
		x, y := float64(i%3)/4, float64(i%5)/4
		b.step(time.Second, energy.Energy(math.Round((1+0.5*x+3*y)*1e6)), cpu(f, x), cpu(g, y))
	}
	tick = b.step(time.Second, 4_500_000, cpu(f, 1), cpu(g, 1))
	if e, h := tick.Shares[0].Energy, tick.Shares[1].Energy; e < 499_000 || e > 501_000 || h < 2_999_000 || h > 3_001_000 {
		t.Errorf("fitted again: %+v", tick)
	}
	// What was fitted is never given out twice: 1 J measured, 3.5 J expected, by 1:6.
	tick = b.step(time.Second, energy.Joule, cpu(f, 1), cpu(g, 1))
	if e := tick.Shares[0].Energy; tick.Base != 0 || e < 142_000 || e > 144_000 {
		t.Errorf("less than expected: %+v", tick)
	}
}

func TestFaasMeter(t *testing.T) {
	flying := func(s attribution.Slot, n float64) attribution.Use { return attribution.Use{Slot: s, InFlight: n} }
	run := func(floor float64) (*bench, attribution.Slot, attribution.Slot) {
		b := &bench{t: t, e: FaasMeter(floor)(attribution.Board{Idle: 1})}
		f, g := b.e.Enter(function("f")), b.e.Enter(function("g"))
		// Before the fit by time in flight: 4 J above idle, 3:1.
		if tick := b.step(time.Second, 5*energy.Joule, flying(f, 3), flying(g, 1)); tick.Shares[0].Energy != 3*energy.Joule || tick.Base != energy.Joule {
			t.Errorf("before the fit: %+v", tick)
		}
		for i := range 59 { // 1 W for each f in flight, 0.4 W for each g; the first second agrees with neither and counts little
			x, y := float64(i%2*20), float64(i%3*20)
			b.step(time.Second, energy.Energy(math.Round((1+x+0.4*y)*1e6)), flying(f, x), flying(g, y))
		}
		return b, f, g
	}
	b, f, g := run(0)
	tick := b.step(time.Second, 10*energy.Joule, flying(f, 1), flying(g, 1))
	if e, h := tick.Shares[0].Energy, tick.Shares[1].Energy; e < 995_000 || e > 1_005_000 || h < 395_000 || h > 405_000 {
		t.Errorf("fitted: %+v", tick)
	}
	// From here on everything takes twice as much. 29 s complete the first step with p = 0.3, r = 0.2/√30 = 0.0365: gain 0.891.
	for range 29 {
		b.step(time.Second, energy.Energy(math.Round((1+2*1.4)*1e6)), flying(f, 1), flying(g, 1))
	}
	tick = b.step(time.Second, 10*energy.Joule, flying(f, 1), flying(g, 1))
	ratio := float64(tick.Shares[0].Energy) / float64(tick.Shares[1].Energy)
	// The step's seconds had 29·2.8 + 9 J, predicted were 30·1.4: missed/predicted = (90.2 - 42)/42 = 1.148; 1 + 0.891·1.148.
	if e := tick.Shares[0].Energy.Joules(); math.Abs(e-2.023) > 0.02 || math.Abs(ratio-2.5) > 0.05 {
		t.Errorf("after a step: %+v", tick)
	}
	b, f, g = run(1)
	tick = b.step(time.Second, 10*energy.Joule, flying(f, 1), flying(g, 1))
	if h := tick.Shares[1].Energy; h != energy.Joule {
		t.Errorf("with a floor of 1 W: %+v", tick)
	}
	// A daemon has no requests; beside one function in flight it counts as half of what runs.
	b = &bench{t: t, e: FaasMeter(0)(attribution.Board{Idle: 1})}
	f, d := b.e.Enter(function("f")), b.e.Enter(daemon)
	tick = b.step(time.Second, 4*energy.Joule, flying(f, 1), cpu(d, 0.1))
	if tick.Shares[0].Energy != 2*energy.Joule || tick.Shares[1].Energy != energy.Joule { // 1 s to 0.5 s
		t.Errorf("with a daemon: %+v", tick)
	}
}

func TestSlotsAndGroups(t *testing.T) {
	for name, construct := range all {
		e := construct(attribution.Board{}).(*estimator)
		a := e.Enter(function("f"))
		b := e.Enter(daemon)
		w := function("f")
		w.ID = "another pod"
		c := e.Enter(w)
		if a == b || b == c || e.slots[a].group != e.slots[c].group || e.slots[a].group == e.slots[b].group {
			t.Errorf("%s: slots %d %d %d, groups %+v", name, a, b, c, e.slots)
		}
		e.Leave(b)
		if d := e.Enter(function("h")); d == b {
			t.Errorf("%s: slot %d is used again before a tick says that it may be", name, d)
		}
		for i, want := range [][]attribution.Slot{{b}, nil} {
			e.Step(&attribution.Interval{End: time.Second}, func(tick *attribution.Tick) {
				if !slices.Equal(tick.Left, want) {
					t.Errorf("%s: tick %d says that %v left, want %v", name, i, tick.Left, want)
				}
			})
		}
		if d := e.Enter(function("g")); d != b || e.slots[d].group == e.slots[a].group || !e.slots[d].function {
			t.Errorf("%s: slot %d after %d was free", name, d, b)
		}
	}
}

// random is an interval that may have anything in it.
func random(r *rand.Rand, slots []attribution.Slot) (time.Duration, energy.Energy, []attribution.Use) {
	var uses []attribution.Use
	for _, s := range slots {
		if r.IntN(3) == 0 {
			continue
		}
		u := attribution.Use{Slot: s, InFlight: float64(r.IntN(3)) * r.Float64(), Unclassed: 0.01 * r.Float64(), Cold: r.IntN(5) == 0}
		u.CPU[r.IntN(attribution.MaxClasses)] = 0.3 * r.ExpFloat64()
		uses = append(uses, u)
	}
	e := energy.Energy(r.Int64N(2_000_000) - 200_000)
	switch r.IntN(20) {
	case 0:
		e = 0
	case 1:
		e = energy.Energy(r.Int64N(5)) // fewer microjoules than workloads
	case 2:
		e = energy.Energy(r.Int64N(1 << 60)) // beyond what floating point counts
	case 3:
		if len(uses) > 0 {
			uses[0].CPU[0] = []float64{math.NaN(), math.Inf(1), -1, 1e300, 5e-324}[r.IntN(5)]
		}
	}
	return time.Duration(1+r.Int64N(3e8)) * time.Nanosecond, e, uses
}

func TestConservation(t *testing.T) {
	for name, construct := range all {
		for seed := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, 1))
			board := attribution.Board{Idle: r.Float64() * 3, Peak: 5, Cores: [attribution.MaxClasses]int{4}}
			b := &bench{t: t, e: construct(board)}
			var slots []attribution.Slot
			for i := range 7 {
				slots = append(slots, b.e.Enter(function(fmt.Sprint("f", i%5))))
			}
			slots = append(slots, b.e.Enter(daemon))
			for range 3000 {
				d, e, uses := random(r, slots)
				b.step(d, e, uses...)
				b.in -= b.raw // so that the totals stay small
				b.sum -= b.raw
				b.raw = 0
				if t.Failed() {
					t.Fatalf("%s, seed %d", name, seed)
				}
			}
			if m := b.e.Model().Base; math.IsNaN(m) || math.IsInf(m, 0) || m < 0 {
				t.Errorf("%s: base %v W", name, m)
			}
		}
	}
}

func TestDeterminism(t *testing.T) {
	for name, construct := range all {
		trace := func() (out []string) {
			r := rand.New(rand.NewPCG(7, 7))
			b := &bench{t: t, e: construct(attribution.Board{Idle: 1, Cores: [attribution.MaxClasses]int{4}})}
			var slots []attribution.Slot
			for i := range 6 {
				slots = append(slots, b.e.Enter(function(fmt.Sprint("f", i))))
			}
			for range 2000 {
				d, e, uses := random(r, slots)
				out = append(out, fmt.Sprint(b.step(d, min(e, 1e7), uses...)))
			}
			return out
		}
		if !slices.Equal(trace(), trace()) {
			t.Errorf("%s: two runs differ", name)
		}
	}
}

func TestDebt(t *testing.T) {
	b := &bench{t: t, e: Utilisation(attribution.Board{Cores: [attribution.MaxClasses]int{1}})}
	f := b.e.Enter(function("f"))
	for i, step := range []struct{ in, want energy.Energy }{{10, 10}, {-4, 0}, {-3, 0}, {5, 0}, {3, 1}, {8, 8}} {
		if tick := b.step(time.Second, step.in, cpu(f, 1)); tick.Energy != step.want || tick.Shares[0].Energy != step.want {
			t.Errorf("interval %d of %d µJ: %+v, want %d", i, step.in, tick, step.want)
		}
	}
}

func TestApportion(t *testing.T) {
	for _, tc := range []struct {
		total  energy.Energy
		joules []float64
		shares []energy.Energy
		base   energy.Energy
	}{
		{10, []float64{2.5e-6, 2.5e-6}, []energy.Energy{3, 2}, 5},              // a tie goes to the first
		{10, []float64{2.2e-6, 3.7e-6}, []energy.Energy{2, 4}, 4},              // 2.2, 3.7, 4.1
		{10, []float64{1.4e-6, 1.3e-6}, []energy.Energy{2, 1}, 7},              // 1.4, 1.3, 7.3
		{3, []float64{1e-6, 1e-6, 1e-6, 1e-6}, []energy.Energy{1, 1, 1, 0}, 0}, // scaled to 0.75 each
		{10, []float64{-1, math.NaN(), math.Inf(1), 1e-6}, []energy.Energy{0, 0, 0, 1}, 9},
		{10, []float64{math.MaxFloat64, math.MaxFloat64}, []energy.Energy{5, 5}, 0},
		{7, nil, nil, 7},
		{0, []float64{1}, []energy.Energy{0}, 0},
	} {
		var a apportioner
		if shares, base := a.apportion(tc.total, tc.joules); !slices.Equal(shares, tc.shares) || base != tc.base {
			t.Errorf("%d µJ among %v J: %v and base %d; want %v and %d", tc.total, tc.joules, shares, base, tc.shares, tc.base)
		}
	}
}

// Where nobody knows what is in flight, CPU time is split all the same.
func TestInFlightUnknown(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(attribution.Board) attribution.Estimator{"cpu-share": CPUShare, "utilisation": Utilisation} {
		e := make(attribution.Board{Cores: [attribution.MaxClasses]int{2}, Idle: 1})
		slot := e.Enter(workload.Workload{ID: "f", Kind: workload.Function, Function: "f"})
		var given energy.Energy
		for i := range 3 {
			e.Step(&attribution.Interval{
				Start: time.Duration(i) * time.Second, End: time.Duration(i+1) * time.Second, Energy: 3 * energy.Joule,
				Weight: [attribution.MaxClasses]float64{1}, Node: [attribution.MaxClasses]float64{1},
				Uses: []attribution.Use{{Slot: slot, CPU: [attribution.MaxClasses]float64{1}, InFlight: -1}},
			}, func(t *attribution.Tick) {
				for _, s := range t.Shares {
					given += s.Energy
				}
			})
		}
		if given == 0 {
			t.Errorf("%s gives nothing: %v", name, e.Model().Rejected)
		}
	}
}
