// Package baseline has the rules that others split energy by, behind the interface of the project's own estimator, so that
// both can be held against the same truth. Like package attribution it is pure.
//
// None of the rules tells its uncertainty: no tick has a report. All take CPU time as it is, whatever class of core it was
// used on. They remember every function they ever saw, which suits a comparison and not an agent.
package baseline

import (
	"math"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// CPUShare gives what is above the idle power to the workloads by their share of the CPU time. The idle power is that of the
// first quiet minute; until there is enough of it, the board's.
func CPUShare(b attribution.Board) attribution.Estimator {
	return newEstimator("cpu-share", &cpuShare{idle: newIdle(b)})
}

// Utilisation gives each workload the share of all energy that it used of the processors' capacity, and the rest to nobody.
// It is the rule of Kepler (internal/monitor, v0.11) and of Scaphandre (src/sensors).
func Utilisation(b attribution.Board) attribution.Estimator {
	return newEstimator("utilisation", utilisation{max(1, float64(cores(b)))})
}

// NNLS explains the power above idle of the last 300 s by one non-negative number of watts per busy core for each function,
// fitted each second by least squares. What the fit does not explain goes to nobody.
func NNLS(b attribution.Board) attribution.Estimator {
	perCore := 1.0
	if n := cores(b); n > 0 && b.Peak > b.Idle {
		perCore = (b.Peak - b.Idle) / float64(n)
	}
	return newEstimator("nnls", &nnls{idle: newIdle(b), prior: perCore})
}

// FaasMeter returns a constructor of the rule of FaasMeter (Rehman, Fuerst and Sharma, arXiv:2408.06130, and its artifact): watts
// per request in flight, whatever CPU time it uses, from a non-negative fit to the first minute; after that one factor for all of
// them, once in 30 s. No function has less than floor watts at first: 1 in the artifact, which is as much as a small board has to give.
func FaasMeter(floor float64) func(attribution.Board) attribution.Estimator {
	return func(b attribution.Board) attribution.Estimator {
		return newEstimator("faasmeter", &faasMeter{idle: newIdle(b), floor: floor})
	}
}

func cores(b attribution.Board) (n int) {
	for _, c := range b.Cores {
		n += c
	}
	return n
}

// rule says what the uses of an interval are to get.
type rule interface {
	// split fills joules, which is zero, for each use. Energy is the interval's without what makes up for negative ones. What a
	// rule learns from an interval is for later ones.
	split(in *view, joules []float64)
	base() float64 // W
}

// view is an interval as rules see it.
type view struct {
	*attribution.Interval
	seconds, joules float64
	group           []int  // of each use
	function        []bool // whether each use is of a function
	groups          int
}

// estimator is what the rules have in common: slots, groups, whole microjoules.
type estimator struct {
	name     string
	rule     rule
	slots    []slot
	free     []attribution.Slot
	leaving  []attribution.Slot // free as soon as a tick has said so
	groups   map[group]int
	debt     energy.Energy // what negative intervals have to get back, not negative
	view     view
	joules   []float64
	whole    apportioner
	tick     attribution.Tick
	rejected map[string]uint64
}

type slot struct {
	group    int
	function bool
}

// group is what shares a coefficient: a function, or any other workload by its ID.
type group struct {
	namespace, function string
	id                  workload.ID
}

func newEstimator(name string, r rule) *estimator {
	return &estimator{name: name, rule: r, groups: map[group]int{}, rejected: map[string]uint64{}}
}

func (e *estimator) Name() string { return e.name }

func (e *estimator) Enter(w workload.Workload) attribution.Slot {
	key := group{id: w.ID}
	if w.Kind == workload.Function {
		key = group{namespace: w.Namespace, function: w.Function}
	}
	g, ok := e.groups[key]
	if !ok {
		g = len(e.groups)
		e.groups[key] = g
	}
	entry := slot{group: g, function: w.Kind == workload.Function}
	if n := len(e.free); n > 0 {
		s := e.free[n-1]
		e.free = e.free[:n-1]
		e.slots[s] = entry
		return s
	}
	e.slots = append(e.slots, entry)
	return attribution.Slot(len(e.slots) - 1)
}

// Leave makes the slot free after the next tick, which says so.
func (e *estimator) Leave(s attribution.Slot) { e.leaving = append(e.leaving, s) }

// Regime is ignored: none of the rules knows of regimes.
func (e *estimator) Regime(string) {}

func (e *estimator) Step(in *attribution.Interval, emit func(*attribution.Tick)) {
	n := len(in.Uses)
	measured := in.Energy
	if measured < 0 {
		e.debt -= measured
		measured = 0
	}
	paid := min(e.debt, measured)
	e.debt -= paid
	measured -= paid

	v := &e.view
	v.Interval, v.seconds, v.joules, v.groups = in, (in.End - in.Start).Seconds(), measured.Joules(), len(e.groups)
	v.group, v.function, e.joules = v.group[:0], v.function[:0], e.joules[:0]
	for _, u := range in.Uses {
		v.group = append(v.group, e.slots[u.Slot].group)
		v.function = append(v.function, e.slots[u.Slot].function)
		e.joules = append(e.joules, 0)
	}
	if why := unfit(v); why != "" {
		e.rejected[why]++
	} else {
		e.rule.split(v, e.joules)
	}
	shares, base := e.whole.apportion(measured, e.joules)
	t := &e.tick
	*t = attribution.Tick{Start: in.Start, End: in.End, Energy: measured, Base: base, Shares: t.Shares[:0], Left: e.leaving}
	for i := range n {
		share := attribution.Share{Slot: in.Uses[i].Slot}
		if in.Uses[i].Cold {
			share.ColdStart = shares[i]
		} else {
			share.Energy = shares[i]
		}
		t.Shares = append(t.Shares, share)
	}
	e.free = append(e.free, e.leaving...)
	emit(t)
	e.leaving = e.leaving[:0]
}

// unfit says why a rule must not see an interval; empty if it may.
func unfit(v *view) string {
	if v.seconds <= 0 {
		return "time"
	}
	for i := range v.Uses {
		u := &v.Uses[i]
		// What is in flight is negative where nobody knows.
		for _, x := range [...]float64{u.Total(), max(0, u.InFlight), u.Started, u.Completed} {
			if math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
				return "usage"
			}
		}
	}
	return ""
}

func (e *estimator) Flush(func(*attribution.Tick)) {}

func (e *estimator) Model() attribution.Model {
	return attribution.Model{Base: e.rule.base(), Rejected: e.rejected}
}
