package validation

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	warmUp     = 300 * time.Second // after which an estimator ought to know the load
	short      = 10 * time.Second
	long       = 60 * time.Second
	converged  = 0.1
	normal95   = 1.959964 // two-sided 95 % of a normal distribution, in standard deviations
	curvePoint = 30 * time.Second
)

// Score says how far an outcome is from the truth. Errors are relative: 0.01 is 1 %.
type Score struct {
	Seed uint64 `json:"seed"`
	// Conservation is the largest difference between measured energy and the sum of its parts, of a tick or since the start, µJ.
	Conservation energy.Energy `json:"conservation_uj"`
	// Functions has those that used energy at all.
	Functions []FunctionScore `json:"functions"`
	// MeanError and WorstError are those of the functions' energies over the whole trace; Bias is the mean of the signed ones.
	MeanError  float64 `json:"mean_error"`
	WorstError float64 `json:"worst_error"`
	Bias       float64 `json:"bias"`
	// LateMean and LateWorst are the same without the first 300 s; absent if the trace is not longer.
	LateMean  *float64 `json:"late_mean_error,omitempty"`
	LateWorst *float64 `json:"late_worst_error,omitempty"`
	// OthersError is that of all that is no function, over the energy of all functions.
	OthersError float64 `json:"others_error"`
	// WAPE10 and WAPE60 are the sums of errors over windows and functions, by the sum of the truths.
	WAPE10   float64   `json:"wape_10s"`
	WAPE60   float64   `json:"wape_60s"`
	Coverage *Coverage `json:"coverage,omitempty"`
	// Convergence is the time until windows of 60 s have less than 10 % error for a minute; AfterChange the same for each change
	// of the board, since the change. Negative is never.
	Convergence float64   `json:"convergence_s"`
	AfterChange []float64 `json:"after_change_s,omitempty"`
	// Curve is the error of windows of 60 s, one each 30 s.
	Curve []float64 `json:"-"`
	// MicrosPerTick depends on the machine.
	MicrosPerTick float64 `json:"us_per_tick"`
	Base          float64 `json:"model_base_w"`
	Changes       uint64  `json:"model_changes"`
}

// FunctionScore is that of one function.
type FunctionScore struct {
	Function string  `json:"function"`
	Truth    float64 `json:"truth_j"`
	Estimate float64 `json:"estimate_j"`
	// StdDev is the last that the estimator said of Estimate, J; Z is how many of them it was off at that time. Zero without.
	StdDev         float64 `json:"stddev_j,omitempty"`
	Z              float64 `json:"z,omitempty"`
	PriorDominated bool    `json:"prior_dominated,omitempty"`
	Collinear      bool    `json:"collinear,omitempty"`
}

// Error is relative and signed.
func (f FunctionScore) Error() float64 { return (f.Estimate - f.Truth) / f.Truth }

// Coverage says how often an estimator's intervals, of functions that ran in a report's period, had the truth in them after the
// first 300 s.
type Coverage struct {
	Intervals int     `json:"intervals"`
	OneSigma  float64 `json:"one_sigma"`
	P95       float64 `json:"p95"`
	// HalfWidth is the mean half width of the 95 % intervals, J, and HalfWidthRelative their sum over that of the truths.
	HalfWidth         float64 `json:"half_width_j"`
	HalfWidthRelative float64 `json:"half_width_relative"`
	// Totals95 is the share of functions whose energy since the start is in its 95 % interval at the last report.
	Totals95 float64 `json:"totals_p95"`
}

// scorer has both running totals, in joules, at each tick's end.
type scorer struct {
	c            *Case
	o            *Outcome
	of           []int // function of each workload
	n            int   // functions; the column n has all other workloads
	truth, given [][]float64
	ran          [][]int // ticks so far in which each function used CPU time
}

// Judge scores an outcome of a case.
func Judge(c *Case, o *Outcome) *Score {
	_, of := c.functions()
	s := scorer{c: c, o: o, of: of, n: len(o.functions)}
	s.total()
	last := len(c.Ticks) - 1
	out := &Score{Seed: c.Seed, Conservation: o.excess, MicrosPerTick: float64(o.PerTick.Nanoseconds()) / 1e3, Base: o.Model.Base, Changes: o.Model.Changes}
	var errs, all []float64
	for f, name := range o.functions {
		e := FunctionScore{Function: name, Truth: s.truth[last][f], Estimate: s.given[last][f]}
		all = append(all, e.Truth)
		if e.Truth > 0 {
			errs = append(errs, e.Error())
			out.Functions = append(out.Functions, e)
		}
	}
	out.MeanError, out.WorstError, out.Bias = spread(errs)
	out.OthersError = (s.given[last][s.n] - s.truth[last][s.n]) / max(1e-12, mean(all)*float64(len(all)))
	if first := s.at(s.start() + warmUp); first >= 0 && first < last {
		late := make([]float64, 0, s.n)
		for f := range s.n {
			if truth := s.truth[last][f] - s.truth[first][f]; truth > 0 {
				late = append(late, (s.given[last][f]-s.given[first][f]-truth)/truth)
			}
		}
		if len(late) > 0 {
			m, w, _ := spread(late)
			out.LateMean, out.LateWorst = &m, &w
		}
	}
	out.WAPE10, out.WAPE60 = s.windows(short), s.windows(long)
	out.Coverage = s.coverage(out.Functions)
	out.Convergence = s.convergence(s.start())
	for _, t := range c.Changes {
		out.AfterChange = append(out.AfterChange, s.convergence(t))
	}
	for t := s.start(); t+long <= s.end(); t += curvePoint {
		missed, truth := s.window(t, t+long)
		out.Curve = append(out.Curve, missed/max(truth, 1e-12))
	}
	return out
}

// spread returns the mean and the largest of the absolute values, and the mean of the values.
func spread(errs []float64) (absolute, worst, bias float64) {
	for _, e := range errs {
		absolute, worst, bias = absolute+math.Abs(e), max(worst, math.Abs(e)), bias+e
	}
	n := float64(max(1, len(errs)))
	return absolute / n, worst, bias / n
}

func (s *scorer) total() {
	truth, ran := make([]float64, s.n+1), make([]int, s.n)
	for k := range s.c.Ticks {
		t := &s.c.Ticks[k]
		for i := range t.Uses {
			u := &t.Uses[i]
			f := s.of[u.Slot]
			if f < 0 {
				f = s.n
			} else if u.Total() > 0 {
				ran[f]++
			}
			truth[f] += t.Truth[i]
		}
		given := make([]float64, s.n+1)
		for f := range given {
			given[f] = s.o.given[k][f].Joules()
		}
		s.truth, s.ran, s.given = append(s.truth, slices.Clone(truth)), append(s.ran, slices.Clone(ran)), append(s.given, given)
	}
}

func (s *scorer) start() time.Duration { return s.c.Ticks[0].Start }
func (s *scorer) end() time.Duration   { return s.c.Ticks[len(s.c.Ticks)-1].End }

// at returns the last tick that ends at t or before; -1 if none does.
func (s *scorer) at(t time.Duration) int {
	return sort.Search(len(s.c.Ticks), func(k int) bool { return s.c.Ticks[k].End > t }) - 1
}

// between returns what a running total gained from one instant to another.
func between(total [][]float64, a, b, f int) float64 {
	switch {
	case b < 0:
		return 0
	case a < 0:
		return total[b][f]
	}
	return total[b][f] - total[a][f]
}

// window returns the sum over functions of errors and of truths.
func (s *scorer) window(from, to time.Duration) (missed, truth float64) {
	a, b := s.at(from), s.at(to)
	for f := range s.n {
		e := between(s.truth, a, b, f)
		missed, truth = missed+math.Abs(between(s.given, a, b, f)-e), truth+e
	}
	return missed, truth
}

// windows returns the error over all whole windows.
func (s *scorer) windows(length time.Duration) float64 {
	var missed, truth float64
	for t := s.start(); t+length <= s.end(); t += length {
		m, e := s.window(t, t+length)
		missed, truth = missed+m, truth+e
	}
	return missed / max(truth, 1e-12)
}

// convergence returns the seconds from an instant to the first after which all windows of 60 s that begin within a minute are
// good; -1 if there is none.
func (s *scorer) convergence(from time.Duration) float64 {
	good := 0
	for t := from; t+long <= s.end(); t += short {
		missed, truth := s.window(t, t+long)
		if missed > converged*truth || truth <= 0 {
			good = 0
			continue
		}
		if good++; good > int(long/short) {
			return (t - long - from).Seconds()
		}
	}
	return -1
}

// coverage holds what the estimator said of its uncertainty against the truth; nil if it said nothing. It fills in what the last
// report says of each function.
func (s *scorer) coverage(functions []FunctionScore) *Coverage {
	var c Coverage
	var width, truth float64
	for _, r := range s.o.reports {
		a, b := s.at(r.start), s.at(r.end)
		if r.start < s.start()+warmUp || b < 0 {
			continue
		}
		for f, d := range r.functions {
			ran := s.ran[b][f]
			if a >= 0 {
				ran -= s.ran[a][f]
			}
			if ran == 0 || !r.has[f] {
				continue
			}
			e := between(s.truth, a, b, f)
			missed := math.Abs(between(s.given, a, b, f) - e)
			c.Intervals++
			width, truth = width+normal95*d.Period, truth+e
			if missed <= d.Period {
				c.OneSigma++
			}
			if missed <= normal95*d.Period {
				c.P95++
			}
		}
	}
	if c.Intervals == 0 {
		return nil
	}
	n := float64(c.Intervals)
	c.OneSigma, c.P95, c.HalfWidth, c.HalfWidthRelative = c.OneSigma/n, c.P95/n, width/n, width/max(truth, 1e-12)
	last := s.o.reports[len(s.o.reports)-1]
	b := s.at(last.end)
	told := 0.0
	for i := range functions {
		f := slices.Index(s.o.functions, functions[i].Function)
		if !last.has[f] || b < 0 {
			continue
		}
		told++
		d := last.functions[f]
		off := s.given[b][f] - s.truth[b][f]
		functions[i].StdDev, functions[i].PriorDominated, functions[i].Collinear = d.Total, d.PriorDominated, d.Collinear
		if d.Total > 0 {
			functions[i].Z = off / d.Total
		}
		if math.Abs(off) <= normal95*d.Total {
			c.Totals95++
		}
	}
	c.Totals95 /= max(told, 1)
	return &c
}

// Stat is over seeds: the median, and the seed that does worst.
type Stat struct {
	Median float64 `json:"median"`
	Worst  float64 `json:"worst"`
}

// Summary is over the seeds of a case. A stat is absent where no seed has it.
type Summary struct {
	Conservation      energy.Energy `json:"conservation_uj"` // the worst
	MeanError         Stat          `json:"mean_error"`
	WorstError        Stat          `json:"worst_error"`
	Bias              Stat          `json:"bias"` // the worst is the farthest from zero
	LateMean          *Stat         `json:"late_mean_error,omitempty"`
	LateWorst         *Stat         `json:"late_worst_error,omitempty"`
	OthersError       Stat          `json:"others_error"`
	WAPE10            Stat          `json:"wape_10s"`
	WAPE60            Stat          `json:"wape_60s"`
	OneSigma          *Stat         `json:"coverage_one_sigma,omitempty"` // the worst is the farthest from 0.683
	P95               *Stat         `json:"coverage_p95,omitempty"`       // the worst is the farthest from 0.95
	HalfWidthRelative *Stat         `json:"half_width_relative,omitempty"`
	Totals95          *Stat         `json:"coverage_totals_p95,omitempty"`
	Convergence       *Stat         `json:"convergence_s,omitempty"`  // of the seeds that converge; absent if none does
	Diverged          int           `json:"not_converged"`            // seeds that never did, at the start or after a change
	AfterChange       *Stat         `json:"after_change_s,omitempty"` // the longest of a seed
	Curve             []float64     `json:"curve"`                    // medians of windows of 60 s, one each 30 s
	MicrosPerTick     Stat          `json:"us_per_tick"`
}

// Summarise returns the medians and worst of scores over seeds.
func Summarise(scores []*Score) Summary {
	var u Summary
	pick := func(ideal float64, get func(*Score) (float64, bool)) *Stat {
		var v []float64
		for _, s := range scores {
			if x, ok := get(s); ok {
				v = append(v, x)
			}
		}
		if len(v) == 0 {
			return nil
		}
		far := slices.MaxFunc(v, func(a, b float64) int { return cmp.Compare(math.Abs(a-ideal), math.Abs(b-ideal)) })
		return &Stat{Median: median(v), Worst: far}
	}
	always := func(get func(*Score) float64) Stat {
		if s := pick(0, func(s *Score) (float64, bool) { return get(s), true }); s != nil {
			return *s
		}
		return Stat{}
	}
	optional := func(get func(*Score) *float64) *Stat {
		return pick(0, func(s *Score) (float64, bool) {
			if p := get(s); p != nil {
				return *p, true
			}
			return 0, false
		})
	}
	covered := func(ideal float64, get func(*Coverage) float64) *Stat {
		return pick(ideal, func(s *Score) (float64, bool) {
			if s.Coverage == nil {
				return 0, false
			}
			return get(s.Coverage), true
		})
	}
	u.MeanError = always(func(s *Score) float64 { return s.MeanError })
	u.WorstError = always(func(s *Score) float64 { return s.WorstError })
	u.Bias = always(func(s *Score) float64 { return s.Bias })
	u.OthersError = always(func(s *Score) float64 { return s.OthersError })
	u.WAPE10 = always(func(s *Score) float64 { return s.WAPE10 })
	u.WAPE60 = always(func(s *Score) float64 { return s.WAPE60 })
	u.MicrosPerTick = always(func(s *Score) float64 { return s.MicrosPerTick })
	u.LateMean = optional(func(s *Score) *float64 { return s.LateMean })
	u.LateWorst = optional(func(s *Score) *float64 { return s.LateWorst })
	u.OneSigma = covered(0.6827, func(c *Coverage) float64 { return c.OneSigma })
	u.P95 = covered(0.95, func(c *Coverage) float64 { return c.P95 })
	u.HalfWidthRelative = covered(0, func(c *Coverage) float64 { return c.HalfWidthRelative })
	u.Totals95 = covered(0.95, func(c *Coverage) float64 { return c.Totals95 })
	u.Convergence = pick(0, func(s *Score) (float64, bool) { return s.Convergence, s.Convergence >= 0 })
	u.AfterChange = pick(0, func(s *Score) (float64, bool) {
		if len(s.AfterChange) == 0 || slices.Min(s.AfterChange) < 0 {
			return 0, false
		}
		return slices.Max(s.AfterChange), true
	})
	points := math.MaxInt
	for _, s := range scores {
		u.Conservation = max(u.Conservation, s.Conservation)
		if s.Convergence < 0 || slices.ContainsFunc(s.AfterChange, func(x float64) bool { return x < 0 }) {
			u.Diverged++
		}
		points = min(points, len(s.Curve))
	}
	for i := 0; len(scores) > 0 && i < points; i++ {
		var v []float64
		for _, s := range scores {
			v = append(v, s.Curve[i])
		}
		u.Curve = append(u.Curve, median(v))
	}
	return u
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
