package accounting

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

const ms = time.Millisecond

// fair is an estimator whose result can be worked out by hand: all that used CPU time in an interval get the same, nobody else
// anything, and the base what cannot be divided. It emits each interval at once and holds its caller to the contract.
type fair struct {
	t         testing.TB
	board     attribution.Board
	used      []bool // by slot
	free      []attribution.Slot
	leaving   []attribution.Slot
	debt      energy.Energy
	intervals []attribution.Interval
	regimes   map[string]int // at which interval
	end       time.Duration
	keep      bool
}

func (f *fair) Name() string { return "fair" }

func (f *fair) Enter(workload.Workload) attribution.Slot {
	if n := len(f.free); n > 0 {
		s := f.free[n-1]
		f.free = f.free[:n-1]
		f.used[s] = true
		return s
	}
	f.used = append(f.used, true)
	return attribution.Slot(len(f.used) - 1)
}

func (f *fair) Leave(s attribution.Slot) {
	if !f.used[s] {
		f.t.Errorf("slot %d left twice", s)
	}
	f.used[s] = false
	f.leaving = append(f.leaving, s)
}

func (f *fair) Regime(what string) { f.regimes[what] = len(f.intervals) }

func (f *fair) Step(in *attribution.Interval, emit func(*attribution.Tick)) {
	if in.Start < f.end || in.End <= in.Start {
		f.t.Errorf("interval from %v to %v after one to %v", in.Start, in.End, f.end)
	}
	f.end = in.End
	if f.keep {
		c := *in
		c.Uses = slices.Clone(in.Uses)
		f.intervals = append(f.intervals, c)
	}
	t := attribution.Tick{Start: in.Start, End: in.End, Energy: in.Energy + f.debt}
	f.debt = min(0, t.Energy)
	t.Energy -= f.debt
	n := energy.Energy(0)
	last := attribution.Slot(-1)
	for _, u := range in.Uses {
		if !f.used[u.Slot] {
			f.t.Errorf("slot %d is used after it was left", u.Slot)
		}
		if u.Slot <= last {
			f.t.Errorf("slots %d and %d out of order", last, u.Slot)
		}
		last = u.Slot
		if !(u.Total() >= 0) || u.Started < 0 || u.Completed < 0 || math.IsNaN(u.InFlight) {
			f.t.Errorf("use %+v", u)
		}
		if u.Total() > 0 {
			n++
		}
	}
	t.Base = t.Energy
	for _, u := range in.Uses {
		if u.Total() == 0 {
			continue
		}
		s := attribution.Share{Slot: u.Slot, Energy: t.Energy / n}
		t.Base -= s.Energy
		if u.Cold {
			s.Energy, s.ColdStart = 0, s.Energy
		}
		t.Shares = append(t.Shares, s)
	}
	t.Left, f.leaving = f.leaving, nil
	f.free = append(f.free, t.Left...)
	emit(&t)
}

func (f *fair) Flush(func(*attribution.Tick)) {}
func (f *fair) Model() attribution.Model      { return attribution.Model{} }

// rig feeds an Attributor with a fair estimator.
type rig struct {
	*Attributor
	est    *fair
	t      testing.TB
	before Accounts
	parts  map[*WorkloadAccount]WorkloadAccount
	fed    energy.Energy
	shown  energy.Energy
}

func newRig(tb testing.TB, cfg AttributorConfig, accounts *Accounts) *rig {
	tb.Helper()
	r := &rig{t: tb, parts: map[*WorkloadAccount]WorkloadAccount{}}
	if cfg.Board.Classes == nil {
		cfg.Board.Classes = []Class{{Cores: 4}}
	}
	if cfg.Estimator == nil {
		r.est = &fair{t: tb, regimes: map[string]int{}, keep: true}
		cfg.Estimator = func(b attribution.Board) attribution.Estimator { r.est.board = b; return r.est }
	}
	if cfg.Describe == nil {
		cfg.Describe = func(id workload.ID) workload.Workload {
			return workload.Workload{Kind: workload.Function, Namespace: "fn", Name: "pod-" + string(id), Function: string(id)}
		}
	}
	r.Attributor = NewAttributor(cfg, accounts)
	r.check()
	return r
}

// check says whether the parts make the whole and nothing has fallen.
func (r *rig) check() {
	r.t.Helper()
	c := r.Accounts()
	sum := c.Base + c.Departed + c.Held()
	if shown := c.Posted - c.Held(); shown < r.shown {
		r.t.Fatalf("what is shown fell from %v to %v", r.shown, shown)
	} else {
		r.shown = shown
	}
	for _, w := range c.workloads {
		sum += w.Energy + w.ColdStart
		if was, ok := r.parts[w]; ok && (w.Energy < was.Energy || w.ColdStart < was.ColdStart) {
			r.t.Fatalf("a workload's account fell from %v to %v", was.Energy, w.Energy)
		}
		r.parts[w] = *w
	}
	if sum != c.Posted {
		r.t.Fatalf("posted %d µJ, the parts sum to %d", c.Posted, sum)
	}
	b := &r.before
	if c.Posted < b.Posted || c.Base < b.Base || c.Unattributed < b.Unattributed || c.Departed < b.Departed || c.Unmeasured < b.Unmeasured {
		r.t.Fatalf("an account fell: %+v after %+v", *c, *b)
	}
	if c.Unattributed > c.Base {
		r.t.Fatalf("unattributed %v of a base of %v", c.Unattributed, c.Base)
	}
	*b = Accounts{Posted: c.Posted, Base: c.Base, Unattributed: c.Unattributed, Departed: c.Departed, Unmeasured: c.Unmeasured}
}

// power feeds totals of a constant power from a time to another, the first excluded.
func (r *rig) power(watts energy.Energy, from, to, every time.Duration) {
	for at := from + every; at <= to; at += every {
		r.fed += watts * energy.Energy(every.Microseconds())
		r.Energy(at, r.fed, 0)
		r.check()
	}
}

func usage(id workload.ID, at, cpu time.Duration) workload.Usage {
	return workload.Usage{ID: id, At: at, CPU: cpu}
}

func (r *rig) sample(at time.Duration, us ...workload.Usage) {
	r.Sample(&workload.Sample{At: at, Usage: us})
	r.check()
}

func (r *rig) account(name string) WorkloadAccount {
	for k, w := range r.Accounts().workloads {
		if k.name == name {
			return *w
		}
	}
	return WorkloadAccount{}
}

// spans formats the intervals that the estimator got.
func (r *rig) spans() []string {
	var out []string
	for _, in := range r.est.intervals {
		out = append(out, fmt.Sprintf("%v-%v %d", in.Start, in.End, in.Energy))
	}
	return out
}

func (r *rig) wantSpans(want ...string) {
	r.t.Helper()
	if got := r.spans(); !slices.Equal(got, want) {
		r.t.Errorf("intervals\n%q, want\n%q", got, want)
	}
}

// The energy of a tick is that of its time plus the lag. What was measured before the first and after the last goes to nobody.
func TestEdgesAndLag(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second, Lag: 200 * ms}, nil)
	r.Energy(500*ms, 0, 0)
	r.power(1, 500*ms, 2200*ms, 100*ms)
	r.power(3, 2200*ms, 3200*ms, 100*ms)
	r.power(2, 3200*ms, 4500*ms, 100*ms)
	for i := range 4 {
		at := time.Duration(i+1) * time.Second
		cpu := time.Duration(0)
		if i >= 2 {
			cpu = 400 * ms // used between 2 and 3 s
		}
		r.sample(at, usage("a", at, cpu), usage(workload.Node, at, time.Hour+cpu))
	}
	r.Flush()
	r.check()
	r.wantSpans("1s-2s 1000000", "2s-3s 3000000", "3s-4s 2000000")
	c := r.Accounts()
	// 0.7 J from 0.5 to 1.2 s and 0.6 J from 4.2 to 4.5 s were of no tick; a got all of its tick.
	if got := r.account("pod-a").Energy; got != 3*energy.Joule || c.Unattributed != 1_300_000 || c.Posted != r.fed || c.Base != r.fed-got {
		t.Errorf("a has %v, unattributed %v, base %v, posted %v of %v", got, c.Unattributed, c.Base, c.Posted, r.fed)
	}
	if u := r.est.intervals[1].Uses; len(u) != 1 || u[0].CPU[0] != 0.4 || u[0].InFlight >= 0 {
		t.Errorf("uses %+v", u)
	}
}

// While it is held, nothing is given to the estimator; when the time is over all that was held is, with the edges in place.
func TestHold(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second, Lag: 100 * ms, Hold: 5 * time.Second}, nil)
	r.Energy(0, 0, 0)
	for i := range 9 {
		at := time.Duration(i+1) * time.Second
		r.power(2, at-time.Second, at, 100*ms)
		r.sample(at, usage("a", at, at/2), usage(workload.Node, at, at/2))
		// The hold ends 5 s after the first sample, with the tick from 5 s to 6 s, which is closed by the next sample.
		if n := len(r.est.intervals); i < 6 && n != 0 || i == 6 && n != 5 {
			t.Fatalf("%v: %d intervals", at, n)
		}
	}
	r.Flush()
	r.check()
	if c := r.Accounts(); c.Posted != r.fed || c.Unattributed != 2_200_000+1_800_000 {
		// Until 1.1 s; and the last tick ends at 9.1 s, of which no reading came: it is given up from 8.1 s.
		t.Errorf("posted %v of %v, unattributed %v", c.Posted, r.fed, c.Unattributed)
	}
}

// Where readings are far apart, ticks are cut at readings, and at the ends of report periods.
func TestCutAtReadings(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: 100 * ms}, nil)
	next := 350 * ms
	for at := 1000 * ms; at <= 11_500*ms; at += 100 * ms {
		for ; next <= at; next += time.Second {
			r.Energy(next, energy.Energy(next.Microseconds())*5, 0)
			r.check()
		}
		r.sample(at, usage("a", at, at/2), usage(workload.Node, at, at/2))
	}
	want := []string{"1s-1.35s 1750000"}
	for i := 1; i < 9; i++ {
		want = append(want, fmt.Sprintf("%d.35s-%d.35s 5000000", i, i+1))
	}
	want = append(want, "9.35s-10s 3250000", "10s-10.35s 1750000")
	r.wantSpans(want...)
	for _, in := range r.est.intervals {
		if got, want := in.Uses[0].CPU[0], (in.End-in.Start).Seconds()/2; math.Abs(got-want) > 1e-9 {
			t.Errorf("%v to %v: %v CPU-seconds, want %v", in.Start, in.End, got, want)
		}
	}
}

// Nobody knows the course of energy in a gap: the ticks in it are one.
func TestGapIsOneTick(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: 100 * ms}, nil)
	r.Energy(900*ms, 0, 0)
	for at := 1000 * ms; at <= 9000*ms; at += 100 * ms {
		switch {
		case at <= 5000*ms || at > 8000*ms:
			r.power(2, at-100*ms, at, 100*ms)
		case at == 8000*ms:
			r.power(2, 5000*ms, at, 3000*ms)
		}
		r.sample(at, usage("a", at, at/2), usage(workload.Node, at, at/2))
	}
	i := slices.IndexFunc(r.est.intervals, func(in attribution.Interval) bool { return in.End-in.Start > 101*ms })
	if i < 0 {
		t.Fatal("no long interval")
	}
	in := r.est.intervals[i]
	if in.Start != 5*time.Second || in.End != 8*time.Second || in.Energy != 6*energy.Joule || math.Abs(in.Uses[0].CPU[0]-1.5) > 1e-9 {
		t.Errorf("%+v", in)
	}
	// From 1.0 to 5.0 s and 8.0 to 8.9 s the ticks are single.
	if n := len(r.est.intervals); n != 40+1+9 {
		t.Errorf("%d intervals", n)
	}
}

// Time without readings is given up after a while; if its energy becomes known after all, it is nobody's.
func TestGivenUp(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: 100 * ms}, nil)
	r.Energy(900*ms, 0, 0)
	for at := 1000 * ms; at <= 60_000*ms; at += 100 * ms {
		if at <= 5000*ms {
			r.power(2, at-100*ms, at, 100*ms)
		}
		r.sample(at, usage("a", at, at/2), usage(workload.Node, at, at/2))
	}
	c := r.Accounts()
	// Ticks wait for 30 s beyond a lag of 2 s. When the tick to 59.9 s was closed the newest sample was of 59.9 s: all ticks that ended
	// before 27.9 s were given up, which is 22.8 s after 5.0 s.
	if c.Unmeasured != 22_800*ms {
		t.Errorf("unmeasured %v", c.Unmeasured)
	}
	before := c.Unattributed
	r.fed += 2 * 55 * energy.Joule
	r.Energy(60*time.Second, r.fed, 0)
	r.sample(60_100*ms, usage("a", 60_100*ms, 30_050*ms))
	r.check()
	if late := c.Unattributed - before; late != 2*22_800_000 {
		t.Errorf("late %v", late)
	}
	in := r.est.intervals[len(r.est.intervals)-1]
	if in.Start != 27_800*ms || in.End != 60*time.Second || in.Energy != 2*32_200_000 {
		t.Errorf("the rest of the gap: %v to %v, %v", in.Start, in.End, in.Energy)
	}
	r.Flush()
	r.check()
	if c.Posted != r.fed {
		t.Errorf("posted %v of %v", c.Posted, r.fed)
	}
}

func kernelTime(r *rig) (sum float64) {
	if r.kernel == nil {
		return 0
	}
	for _, in := range r.est.intervals {
		for _, u := range in.Uses {
			if u.Slot == r.kernel.slot {
				sum += u.Total()
			}
		}
	}
	return sum
}

// What the node's counters have more than the groups is the kernel's. Jiffies are coarse: their noise is not.
func TestKernelRemainder(t *testing.T) {
	for name, tc := range map[string]struct {
		node     func(at time.Duration, rng *rand.Rand) time.Duration
		min, max float64
	}{
		"none, whole jiffies": {func(at time.Duration, _ *rand.Rand) time.Duration { return (at / 3).Truncate(10 * ms) }, 0, 0.01},
		"none, noisy jiffies": {func(at time.Duration, rng *rand.Rand) time.Duration {
			return at/3 + time.Duration(rng.Int64N(int64(20*ms))) - 10*ms
		}, 0, 0.02},
		"a tenth of a core":    {func(at time.Duration, _ *rand.Rand) time.Duration { return (at/3 + at/10).Truncate(10 * ms) }, 29.97, 30.01},
		"the node counts less": {func(at time.Duration, _ *rand.Rand) time.Duration { return at / 4 }, 0, 0},
		// 200 s with 0.2 cores less are forgotten but for 10 s, which 0.5 cores make up for in 20 s of 100.
		"less, then more": {func(at time.Duration, _ *rand.Rand) time.Duration {
			return at/3 - min(at, 200*time.Second)/5 + max(0, at-200*time.Second)/2
		}, 39.9, 40.01},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			r := newRig(t, AttributorConfig{Tick: 100 * ms}, nil)
			r.Energy(0, 0, 0)
			for at := 100 * ms; at <= 300*time.Second+100*ms; at += 100 * ms {
				r.power(2, at-100*ms, at, 100*ms)
				r.sample(at, usage("a", at, at/3), usage(workload.Node, at, time.Hour+tc.node(at, rng)))
			}
			if got := kernelTime(r); got < tc.min || got > tc.max {
				t.Errorf("%v CPU-seconds, want %v to %v", got, tc.min, tc.max)
			}
		})
	}
}

// A workload counts from zero at first sight, unless it cannot have used so much since the last sample. What it used last counts.
func TestNewAndVanished(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	r.power(2, 0, 8*time.Second, 500*ms)
	r.sample(1 * time.Second)
	r.sample(2*time.Second, usage("old", 2*time.Second, 100*time.Second), usage("new", 2*time.Second, 300*ms))
	r.Sample(&workload.Sample{
		At: 3 * time.Second, Ended: []workload.ID{"new"},
		Usage: []workload.Usage{usage("new", 2900*ms, 700*ms), usage("old", 3*time.Second, 101*time.Second)},
	})
	if got := r.Tracked(); len(got) != 2 {
		t.Errorf("tracked %v", got)
	}
	// Another one of the same name, at once; the old one's counter falls.
	r.sample(4*time.Second, usage("new", 4*time.Second, 200*ms), usage("old", 4*time.Second, 50*time.Second))
	r.sample(5*time.Second, usage("new", 5*time.Second, 200*ms), usage("old", 5*time.Second, 51*time.Second))
	r.Flush()
	r.check()
	var got []float64
	for _, in := range r.est.intervals {
		sum := 0.0
		for _, u := range in.Uses {
			sum += u.Total()
		}
		got = append(got, math.Round(sum*1e9)/1e9)
	}
	if want := []float64{0.3, 1.4, 0.2, 1}; !slices.Equal(got, want) {
		t.Errorf("CPU-seconds %v, want %v", got, want)
	}
	// new: all of the 2nd, half of the 3rd, all of the 4th second; old: the rest and the 5th.
	if n, o := r.account("pod-new").Energy, r.account("pod-old").Energy; n != 5*energy.Joule || o != 3*energy.Joule {
		t.Errorf("new %v, old %v", n, o)
	}
	if len(r.est.used) != 2+1 {
		t.Errorf("%d slots", len(r.est.used))
	}
}

// A time without samples belongs to nobody, with its CPU time and its requests.
func TestLongTick(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	r.power(2, 0, 20*time.Second, 500*ms)
	r.sample(1*time.Second, usage("a", 1*time.Second, 0))
	r.Activity(workload.Activity{ID: "a", At: 1 * time.Second, InFlight: 1, Started: 1})
	r.sample(2*time.Second, usage("a", 2*time.Second, 100*ms))
	r.Activity(workload.Activity{ID: "a", At: 3 * time.Second, InFlight: 1, Started: 3, Completed: 2})
	r.sample(14*time.Second, usage("a", 14*time.Second, 9*time.Second))
	r.sample(15*time.Second, usage("a", 15*time.Second, 9100*ms))
	r.Activity(workload.Activity{ID: "a", At: 15 * time.Second, InFlight: 0, Started: 3, Completed: 3})
	r.Flush()
	r.check()
	r.wantSpans("1s-2s 2000000", "14s-15s 2000000")
	if c := r.Accounts(); c.Unattributed != 2_000_000+24_000_000+10_000_000 || c.Posted != r.fed {
		t.Errorf("unattributed %v, posted %v", c.Unattributed, c.Posted)
	}
	for _, in := range r.est.intervals {
		if u := in.Uses[0]; u.InFlight > 1 || u.Total() > 0.11 {
			t.Errorf("%v to %v: %+v", in.Start, in.End, u)
		}
	}
	if f := r.Accounts().Functions()[0]; f.invocations() != 3 {
		t.Errorf("%v invocations", f.invocations())
	}
}

// Requests in flight are a mean over the tick, between rows that follow one another on a line; unknown where rows are too few.
func TestActivityOfTicks(t *testing.T) {
	type row struct {
		at                           time.Duration
		inFlight, started, completed int64
	}
	for name, tc := range map[string]struct {
		rows []row
		want [][3]float64 // in flight, started, completed by tick, from 200 ms on
	}{
		"dense": {
			[]row{{200 * ms, 0, 10, 10}, {300 * ms, 2, 12, 10}, {400 * ms, 2, 13, 11}, {500 * ms, 0, 13, 13}, {600 * ms, 0, 13, 13}},
			[][3]float64{{0.5*1 + 0.5*2, 3, 1}, {0.5 * 1, 0, 2}, {0, 0, 0}, {0, 0, 0}},
		},
		"too seldom to tell": {
			[]row{{200 * ms, 1, 5, 4}, {850 * ms, 0, 5, 5}},
			[][3]float64{{-1, 0, 0}, {-1, 0, 0}, {-1, 0, 0}, {-1, 0, 1}},
		},
		"counts begin again": {
			[]row{{200 * ms, 0, 100, 100}, {300 * ms, 0, 1, 1}, {500 * ms, 0, 3, 2}},
			[][3]float64{{0, 0, 0}, {0, 2, 1}, {0, 0, 0}, {0, 0, 0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, AttributorConfig{Tick: 200 * ms}, nil)
			r.Energy(0, 0, 0)
			r.power(2, 0, 1200*ms, 100*ms)
			rows := tc.rows
			for at := 200 * ms; at <= 1000*ms; at += 200 * ms {
				// Rows come when they are read, some before the sample of their time, some after.
				for len(rows) > 0 && rows[0].at < at {
					r.Activity(workload.Activity{ID: "a", At: rows[0].at, InFlight: rows[0].inFlight, Started: rows[0].started, Completed: rows[0].completed})
					rows = rows[1:]
				}
				r.sample(at, usage("a", at, at/10))
				for len(rows) > 0 && rows[0].at == at {
					r.Activity(workload.Activity{ID: "a", At: at, InFlight: rows[0].inFlight, Started: rows[0].started, Completed: rows[0].completed})
					rows = rows[1:]
				}
			}
			r.Flush()
			for i, in := range r.est.intervals {
				u := in.Uses[0]
				got := [3]float64{math.Round(u.InFlight*1e9) / 1e9, u.Started, u.Completed}
				if got != tc.want[i] {
					t.Errorf("tick %d: %v, want %v", i, got, tc.want[i])
				}
			}
		})
	}
}
