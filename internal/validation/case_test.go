package validation

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// compose makes a short case of a synthetic library.
func compose(t *testing.T, o Options) *Case {
	t.Helper()
	if o.Duration == 0 {
		o.Duration = 5 * time.Minute
	}
	c, err := Compose(Synthetic(5, 1), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return c
}

// sums returns the measured energy, the truth, and the truth and CPU time per workload.
func sums(c *Case) (measured, truth float64, each, cpu []float64) {
	each, cpu = make([]float64, len(c.Workloads)), make([]float64, len(c.Workloads))
	for k := range c.Ticks {
		t := &c.Ticks[k]
		measured += t.Energy.Joules()
		for i, u := range t.Uses {
			truth += t.Truth[i]
			each[u.Slot] += t.Truth[i]
			cpu[u.Slot] += u.Total()
		}
	}
	return measured, truth, each, cpu
}

func TestComposeBalances(t *testing.T) {
	quiet := Options{Seed: 3, Noise: -1}
	c := compose(t, quiet)
	measured, truth, each, cpu := sums(c)
	if want := 1.5*300 + truth; math.Abs(measured-want) > 1e-6 {
		t.Errorf("measured %.6f J, 300 s of 1.5 W and %.6f J are %.6f", measured, truth, want)
	}
	for i, w := range c.Workloads {
		if each[i] <= 0 || cpu[i] <= 0 {
			t.Errorf("%s used %v J and %v s", w.ID, each[i], cpu[i])
		}
	}
	// 0.15 cores at 0.6 W, ±50 % and 30 %, cut at zero: 27 J in 300 s.
	if d := each[len(each)-1]; math.Abs(d-27) > 3 {
		t.Errorf("the daemon used %v J", d)
	}
	for name, o := range map[string]Options{
		"a tick of 1 s": {Seed: 3, Noise: -1, Tick: time.Second},
		"losses":        {Seed: 3, Noise: -1, Loss: 0.3},
	} {
		m, e, _, _ := sums(compose(t, o))
		if math.Abs(m-measured) > 1e-5 || math.Abs(e-truth) > 1e-6 {
			t.Errorf("%s: %v J measured of which %v J active; without %v and %v", name, m, e, measured, truth)
		}
	}
	if m, e, _, _ := sums(compose(t, Options{Seed: 3, Noise: -1, Gain: 0.02})); math.Abs(m-1.02*measured) > 1e-5 || e != truth {
		t.Errorf("a gain of 2 %%: %v J, %v active; without %v and %v", m, e, measured, truth)
	}
	// The board does not tell the truth about its idle power, 1.5 W, and knows 1 W per core.
	if b := c.Board; math.Abs(b.Idle-1.8) > 1e-12 || math.Abs(b.Peak-5.8) > 1e-12 || b.Cores != [attribution.MaxClasses]int{4} {
		t.Errorf("%+v", b)
	}
}

func TestComposeIsDeterministic(t *testing.T) {
	o := Options{Seed: 5, Lag: 130 * time.Millisecond, Loss: 0.1, Duration: time.Minute}
	show := func(o Options) string { return fmt.Sprintf("%+v", compose(t, o).Ticks) }
	first := show(o)
	if show(o) != first {
		t.Error("the same seed makes two cases")
	}
	o.Seed = 6
	if show(o) == first {
		t.Error("another seed makes the same case")
	}
}

// A change of the meter changes nothing of the load.
func TestComposeMeterAndLoadAreApart(t *testing.T) {
	a, b := compose(t, Options{Seed: 5}), compose(t, Options{Seed: 5, Noise: 0.2, Lag: time.Second, Loss: 0.5, Gain: 0.1})
	for k := range a.Ticks {
		if !slices.Equal(a.Ticks[k].Uses, b.Ticks[k].Uses) || !slices.Equal(a.Ticks[k].Truth, b.Ticks[k].Truth) {
			t.Fatalf("tick %d: %+v and %+v", k, a.Ticks[k], b.Ticks[k])
		}
	}
}

func TestComposeLag(t *testing.T) {
	a, b := compose(t, Options{Seed: 5, Noise: -1}), compose(t, Options{Seed: 5, Noise: -1, Lag: 250 * time.Millisecond})
	for k := 10; k < len(a.Ticks); k++ { // half of the third last tick and half of the second last but one
		want := (a.Ticks[k-2].Energy + a.Ticks[k-3].Energy) / 2
		if d := b.Ticks[k].Energy - want; d < -2 || d > 2 {
			t.Fatalf("tick %d: %v, want %v", k, b.Ticks[k].Energy, want)
		}
	}
}

func TestComposeLoss(t *testing.T) {
	a, b := compose(t, Options{Seed: 5}), compose(t, Options{Seed: 5, Loss: 0.2})
	lost, since := 0, 0
	var sum, want energy.Energy
	for k := range a.Ticks {
		sum, want = sum+b.Ticks[k].Energy, want+a.Ticks[k].Energy
		if b.Ticks[k].Lost {
			lost++
			continue
		}
		if sum != want {
			t.Fatalf("tick %d: %d µJ since the last reading, want %d", k, sum, want)
		}
		for j := since; j < k; j++ {
			if d := b.Ticks[j].Energy - b.Ticks[k].Energy; d < -1 || d > 1 {
				t.Fatalf("ticks %d and %d of one gap: %v and %v", j, k, b.Ticks[j].Energy, b.Ticks[k].Energy)
			}
		}
		since = k + 1
		sum, want = 0, 0
	}
	if lost < 500 || lost > 700 { // of 3000
		t.Errorf("%d of %d lost", lost, len(b.Ticks))
	}
}

func TestComposeActivity(t *testing.T) {
	c := compose(t, Options{Seed: 2, Rate: 0.1})
	started, completed, flight := make([]float64, 6), make([]float64, 6), make([]float64, 6)
	for k := range c.Ticks {
		for _, u := range c.Ticks[k].Uses {
			started[u.Slot] += u.Started
			completed[u.Slot] += u.Completed
			flight[u.Slot] += u.InFlight * 0.1
		}
	}
	for f := range 5 {
		if started[f] < 5 || started[f] != completed[f] {
			t.Errorf("function %d: %v started, %v completed", f, started[f], completed[f])
		}
		if mean := flight[f] / started[f]; mean < 0.9 || mean > 4.5 { // jobs of 0.9·1 s to 1.1·4 s
			t.Errorf("function %d: a request takes %v s", f, mean)
		}
	}
	if started[5] != 0 || flight[5] != 0 {
		t.Error("the daemon has requests")
	}
}

func TestComposeRefuses(t *testing.T) {
	l := Synthetic(2, 1)
	for _, o := range []Options{{Tick: 50 * time.Millisecond}, {Tick: 150 * time.Millisecond}, {Loss: 1}, {Loss: -1}, {Lag: -1}, {Rate: -1}, {Duration: 1}, {Pair: true}} {
		if c, err := Compose(l, o); err == nil || c != nil || !strings.HasPrefix(err.Error(), "compose synthetic: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestPair(t *testing.T) {
	both := func(together float64) (both, either int) {
		c := compose(t, Options{Seed: 4, Pair: true, Together: together, Duration: 20 * time.Minute})
		for k := range c.Ticks {
			var started [3]bool
			for _, u := range c.Ticks[k].Uses {
				if u.Slot < 3 && u.Started > 0 {
					started[u.Slot] = true
				}
			}
			if started[0] || started[1] {
				either++
			}
			if started[0] && started[1] {
				both++
			}
		}
		return both, either
	}
	if b, e := both(1); b == 0 || b != e {
		t.Errorf("together: %d of %d", b, e)
	}
	if b, e := both(0); b > e/10 || e == 0 {
		t.Errorf("apart: %d of %d at the same time", b, e)
	}
}

func TestForkedChildren(t *testing.T) {
	c, err := Compose(Forked(), Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, _, each, cpu := sums(c)
	// 9 and 0.6 requests of 20 and 300 ms a second: 0.18 cores each, 324 s in 30 min, at 1 W per core.
	for f := range 2 {
		if math.Abs(cpu[f]-324) > 25 || math.Abs(each[f]-cpu[f]) > 0.05*cpu[f] {
			t.Errorf("%s: %v s, %v J", c.Workloads[f].Name, cpu[f], each[f])
		}
	}
	for k := range c.Ticks {
		for _, u := range c.Ticks[k].Uses {
			if u.Slot == 0 && math.Abs(u.InFlight*0.1-u.Total()) > 1e-9 { // one child each, that does nothing but compute
				t.Fatalf("tick %d: %+v", k, u)
			}
		}
	}
}

func TestMixedClasses(t *testing.T) {
	little, big := Synthetic(4, 1), Synthetic(4, 2)
	for _, known := range []bool{false, true} {
		l, err := Mixed(little, big, known)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Compose(l, Options{Seed: 1, Duration: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		var cpu [5][attribution.MaxClasses]float64
		for k := range c.Ticks {
			for _, u := range c.Ticks[k].Uses {
				for q, s := range u.CPU {
					cpu[u.Slot][q] += s
				}
			}
		}
		for w := range cpu {
			other := 1
			if known && (w%2 == 1 || w == 4) { // the daemon too is on the little ones
				other = 0
			}
			if cpu[w][1-other] == 0 || cpu[w][other] != 0 {
				t.Errorf("known %v, workload %d: %v s", known, w, cpu[w])
			}
		}
		if want := map[bool][2]float64{true: {1, 0.25}, false: {1, 1}}[known]; c.Ticks[0].Weight[0] != want[0] || c.Ticks[0].Weight[1] != want[1] {
			t.Errorf("known %v: weights %v", known, c.Ticks[0].Weight)
		}
	}
	if _, err := Mixed(little, Synthetic(3, 1), true); err == nil {
		t.Error("mixed different functions")
	}
}

func TestConcat(t *testing.T) {
	a, b := compose(t, Options{Seed: 1, Duration: time.Minute}), compose(t, Options{Seed: 2, Duration: time.Minute})
	c, err := Concat(a, b, "governor")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if len(c.Ticks) != 1200 || len(a.Ticks) != 600 || b.Ticks[0].Start != 0 || !slices.Equal(c.Changes, []time.Duration{time.Minute}) ||
		!slices.Equal(c.Regimes, []Regime{{time.Minute, "governor"}}) || a.Regimes != nil {
		t.Errorf("%d ticks, changes %v, regimes %v", len(c.Ticks), c.Changes, c.Regimes)
	}
	if c, err = Concat(a, b, ""); err != nil || c.Regimes != nil {
		t.Errorf("untold: %v, %v", c.Regimes, err)
	}
	other, err := Compose(Synthetic(4, 1), Options{Duration: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Concat(a, other, ""); err == nil {
		t.Error("joined different workloads")
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Case){
		"no function":  func(c *Case) { c.Workloads = c.Workloads[5:] },
		"no ticks":     func(c *Case) { c.Ticks = nil },
		"core classes": func(c *Case) { c.Classes = nil },
		"tick 7 is":    func(c *Case) { c.Ticks[7].Start++ },
		"truths":       func(c *Case) { c.Ticks[7].Truth = nil },
		"of workload":  func(c *Case) { c.Ticks[7].Uses[0].Slot = 6 },
		"the truth of": func(c *Case) { c.Ticks[7].Truth[0] = math.NaN() },
	} {
		c := compose(t, Options{Duration: time.Minute})
		spoil(c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := Record(c, &tape{}); err == nil {
			t.Errorf("%s: recorded", name)
		}
	}
}

// tape is a recorder that keeps everything.
type tape struct {
	workloads []workload.Workload
	received  []time.Duration
	at        []time.Duration
	total     []energy.Energy
	samples   []workload.Sample
	activity  []workload.Activity
	events    []workload.Event
	fail      error
}

func (r *tape) Workload(w workload.Workload) error {
	r.workloads = append(r.workloads, w)
	return r.fail
}

func (r *tape) Power(received time.Duration, _ uint64, at time.Duration, e energy.Energy) error {
	r.received, r.at, r.total = append(r.received, received), append(r.at, at), append(r.total, e)
	return r.fail
}

func (r *tape) Usage(s *workload.Sample) error {
	r.samples = append(r.samples, *s)
	return r.fail
}

func (r *tape) Activity(a workload.Activity) error {
	r.activity = append(r.activity, a)
	return r.fail
}

func (r *tape) Event(e workload.Event) error {
	r.events = append(r.events, e)
	return r.fail
}

func TestRecord(t *testing.T) {
	a, b := compose(t, Options{Seed: 1, Duration: time.Minute, Loss: 0.1}), compose(t, Options{Seed: 2, Duration: time.Minute})
	c, err := Concat(a, b, "governor")
	if err != nil {
		t.Fatal(err)
	}
	var r tape
	if err := Record(c, &r); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.workloads, c.Workloads) || !slices.Equal(r.events, []workload.Event{{ID: workload.Node, At: time.Minute, What: "regime:governor"}}) {
		t.Errorf("workloads %v, events %v", r.workloads, r.events)
	}
	lost := 0
	for k := range c.Ticks {
		if c.Ticks[k].Lost {
			lost++
		}
	}
	if len(r.total) != len(c.Ticks)+1-lost || lost == 0 || !slices.IsSorted(r.received) || !slices.IsSorted(r.at) || !slices.IsSorted(r.total) {
		t.Errorf("%d readings of %d ticks with %d lost", len(r.total), len(c.Ticks), lost)
	}
	// The meter's clock is ahead, and its messages take 2 to 7 ms.
	for i := range r.at {
		if d := r.received[i] - (r.at[i] - meterAhead); d < 2*time.Millisecond || d >= 7*time.Millisecond {
			t.Fatalf("reading %d took %v", i, d)
		}
	}
	measured, _, _, cpu := sums(c)
	if got := r.total[len(r.total)-1].Joules(); math.Abs(got-measured) > 1e-9 {
		t.Errorf("the meter ends at %v J, want %v", got, measured)
	}
	last := r.samples[len(r.samples)-1]
	node := 0.0
	for _, s := range cpu {
		node += s
	}
	if len(r.samples) != len(c.Ticks)+1 || len(last.Usage) != 7 || last.At != 2*time.Minute {
		t.Fatalf("%d samples, the last %+v", len(r.samples), last)
	}
	for i, u := range last.Usage {
		want := node
		if u.ID != workload.Node {
			want = cpu[slices.IndexFunc(c.Workloads, func(w workload.Workload) bool { return w.ID == u.ID })]
		}
		if math.Abs(u.CPU.Seconds()-want) > 1e-6 || i > 0 && u.ID <= last.Usage[i-1].ID {
			t.Errorf("%+v, want %v s", u, want)
		}
	}
	counts := map[workload.ID]workload.Activity{}
	for _, a := range r.activity {
		if was := counts[a.ID]; a.Started < was.Started || a.Completed < was.Completed || a.InFlight != a.Started-a.Completed || a.InFlight < 0 {
			t.Fatalf("%+v after %+v", a, was)
		}
		counts[a.ID] = a
	}
	if len(counts) != 5 {
		t.Errorf("activity of %d functions", len(counts))
	}
	r.fail = fmt.Errorf("disk full")
	if err := Record(c, &r); !errors.Is(err, r.fail) {
		t.Errorf("a recorder that fails: %v", err)
	}
}
