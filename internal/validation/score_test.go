package validation

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// puppet is an estimator that gives what a function of the tick's number tells it to, late, and with reports each 10 s.
type puppet struct {
	give    func(k int, in *attribution.Interval) (joules []float64, base energy.Energy)
	reports func(k int) *attribution.Report
	late    int
	regimes []string
	pending []attribution.Tick
	k       int
}

func (p *puppet) Name() string                             { return "puppet" }
func (p *puppet) Leave(attribution.Slot)                   {}
func (p *puppet) Regime(what string)                       { p.regimes = append(p.regimes, what) }
func (p *puppet) Model() attribution.Model                 { return attribution.Model{Base: 1, Changes: 3} }
func (p *puppet) Enter(workload.Workload) attribution.Slot { p.k--; return attribution.Slot(90 + p.k) } // descending

func (p *puppet) Step(in *attribution.Interval, emit func(*attribution.Tick)) {
	p.k = max(p.k, 0)
	joules, base := p.give(p.k, in)
	t := attribution.Tick{Start: in.Start, End: in.End, Energy: in.Energy, Base: base}
	for i, u := range in.Uses {
		share := attribution.Share{Slot: u.Slot, Energy: energy.Energy(math.Round(joules[i] * 1e6))}
		if i == 0 { // half of it as a cold start, which counts the same
			share.ColdStart = share.Energy / 2
			share.Energy -= share.ColdStart
		}
		t.Shares = append(t.Shares, share)
	}
	if p.reports != nil {
		t.Report = p.reports(p.k)
	}
	p.k++
	p.pending = append(p.pending, t)
	if len(p.pending) > p.late {
		emit(&p.pending[0])
		p.pending = p.pending[1:]
	}
}

func (p *puppet) Flush(emit func(*attribution.Tick)) {
	for i := range p.pending {
		emit(&p.pending[i])
	}
	p.pending = nil
}

// steady is 600 s in ticks of 1 s with functions a and b, the latter by two pods, and a daemon: 4, 1 + 1, 0.5 J each second beside
// 2 J of base.
func steady() *Case {
	fn := func(id, name string) workload.Workload {
		return workload.Workload{ID: workload.ID(id), Kind: workload.Function, Namespace: "fn", Name: id, Function: name}
	}
	c := &Case{Name: "steady", Seed: 9, Classes: []string{""}, Board: attribution.Board{Cores: [attribution.MaxClasses]int{4}},
		Workloads: []workload.Workload{fn("a-1", "a"), fn("b-1", "b"), fn("b-2", "b"), {ID: "d", Kind: workload.System, Name: "d"}}}
	for k := range 600 {
		t := Tick{Truth: []float64{4, 1, 1, 0.5}}
		t.Start, t.End, t.Energy = time.Duration(k)*time.Second, time.Duration(k+1)*time.Second, 8_500_000
		for w := range 4 {
			t.Uses = append(t.Uses, attribution.Use{Slot: attribution.Slot(w), CPU: [attribution.MaxClasses]float64{0.1}})
		}
		c.Ticks = append(c.Ticks, t)
	}
	return c
}

// split gives a, b's pods and the daemon so many joules each second. The puppet's slots descend, so uses come reversed.
func split(a, b, d float64) (joules []float64, base energy.Energy) {
	return []float64{d, b / 2, b / 2, a}, energy.Energy(math.Round((8.5 - a - b - d) * 1e6))
}

func judge(t *testing.T, p *puppet, c *Case) *Score {
	t.Helper()
	o, err := Run(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return Judge(c, o)
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9 {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestScoreExact(t *testing.T) {
	for _, late := range []int{0, 7} {
		s := judge(t, &puppet{late: late, give: func(int, *attribution.Interval) ([]float64, energy.Energy) { return split(4, 2, 0.5) }}, steady())
		if s.Conservation != 0 || s.MeanError != 0 || s.WorstError != 0 || s.WAPE10 != 0 || s.WAPE60 != 0 || *s.LateWorst != 0 ||
			s.Coverage != nil || s.Convergence != 0 || s.OthersError != 0 || s.Seed != 9 || s.Base != 1 || s.Changes != 3 {
			t.Errorf("late by %d: %+v", late, s)
		}
	}
}

// merged is an estimator that takes seven intervals together, of which each is right.
type merged struct {
	puppet
	tick attribution.Tick
	n    int
}

func (m *merged) Step(in *attribution.Interval, emit func(*attribution.Tick)) {
	m.puppet.Step(in, func(t *attribution.Tick) {
		if m.n == 0 {
			m.tick = *t
		} else {
			m.tick.End, m.tick.Energy, m.tick.Base = t.End, m.tick.Energy+t.Energy, m.tick.Base+t.Base
			for i, s := range t.Shares {
				m.tick.Shares[i].Energy += s.Energy
				m.tick.Shares[i].ColdStart += s.ColdStart
			}
		}
		if m.n++; m.n == 7 {
			m.Flush(emit)
		}
	})
}

func (m *merged) Flush(emit func(*attribution.Tick)) {
	if m.n > 0 {
		emit(&m.tick)
	}
	m.n = 0
}

func TestScoreMergedTicks(t *testing.T) {
	c := steady()
	o, err := Run(&merged{puppet: puppet{give: func(int, *attribution.Interval) ([]float64, energy.Energy) { return split(5, 1.5, 0.8) }}}, c)
	if err != nil {
		t.Fatal(err)
	}
	s := Judge(c, o)
	near(t, "mean", s.MeanError, 0.25)
	near(t, "others", s.OthersError, 0.3/6)
	if s.Conservation != 0 || math.Abs(s.WAPE10-0.25) > 1e-6 || len(o.given) != 600 || o.given[3][0] != 20*energy.Joule { // 4 s of 5 W
		t.Errorf("%+v; after 4 s %v", s, o.given[3])
	}
}

// a gets 5 J instead of 4, b 1.5 J instead of 2, the daemon 0.8 J instead of 0.5.
func TestScoreErrors(t *testing.T) {
	s := judge(t, &puppet{give: func(int, *attribution.Interval) ([]float64, energy.Energy) { return split(5, 1.5, 0.8) }}, steady())
	near(t, "mean", s.MeanError, 0.25)      // 25 % and 25 %
	near(t, "worst", s.WorstError, 0.25)    //
	near(t, "bias", s.Bias, 0)              // +25 % and -25 %
	near(t, "10 s", s.WAPE10, 1.5/6)        // 1 + 0.5 of 4 + 2
	near(t, "60 s", s.WAPE60, 1.5/6)        //
	near(t, "others", s.OthersError, 0.3/6) //
	near(t, "late mean", *s.LateMean, 0.25) //
	near(t, "convergence", s.Convergence, -1)
	if len(s.Curve) != 19 { // from 0 s to 540 s
		t.Errorf("%d points", len(s.Curve))
	}
	if len(s.Functions) != 2 || s.Functions[1].Function != "b" || math.Abs(s.Functions[1].Truth-1200) > 1e-9 || math.Abs(s.Functions[1].Estimate-900) > 1e-9 {
		t.Errorf("%+v", s.Functions)
	}
}

// a has everything of the functions in the first 100 s, then all is right.
func TestScoreConvergence(t *testing.T) {
	c := steady()
	s := judge(t, &puppet{give: func(k int, _ *attribution.Interval) ([]float64, energy.Energy) {
		if k < 100 {
			return split(6, 0, 0.5)
		}
		return split(4, 2, 0.5)
	}}, c)
	near(t, "mean", s.MeanError, (200./2400+200./1200)/2)
	near(t, "worst", s.WorstError, 200./1200)
	near(t, "bias", s.Bias, (200./2400-200./1200)/2)
	near(t, "10 s", s.WAPE10, 400./3600)
	near(t, "60 s", s.WAPE60, 400./3600)
	near(t, "late mean", *s.LateMean, 0)
	// A window of 60 s that begins at t has an error of (100 - t)·4/360; that is 0.111 at 90 s and nothing at 100 s.
	near(t, "convergence", s.Convergence, 100)
	near(t, "first window", s.Curve[0], 4./6)
	near(t, "window from 60 s", s.Curve[2], 160./360)

	// The same after a change at 300 s, until 330 s: (330 - t)·4/360 is 0.111 at 320 s, and nothing at 330 s.
	c.Changes = []time.Duration{300 * time.Second}
	s = judge(t, &puppet{give: func(k int, _ *attribution.Interval) ([]float64, energy.Energy) {
		if k >= 300 && k < 330 {
			return split(6, 0, 0.5)
		}
		return split(4, 2, 0.5)
	}}, c)
	if !slices.Equal(s.AfterChange, []float64{30}) || s.Convergence != 0 {
		t.Errorf("after the change %v, after the start %v", s.AfterChange, s.Convergence)
	}
}

// Reports of 10 s after 300 s: 30 of two functions. a is off by 1 J in each, b by 1 J in every third.
func TestScoreCoverage(t *testing.T) {
	p := &puppet{
		give: func(k int, _ *attribution.Interval) ([]float64, energy.Energy) {
			if k/10%3 == 0 {
				return split(4.1, 1.9, 0.5)
			}
			return split(4.1, 2, 0.4)
		},
		reports: func(k int) *attribution.Report {
			if k%10 != 9 {
				return nil
			}
			return &attribution.Report{Start: time.Duration(k-9) * time.Second, End: time.Duration(k+1) * time.Second, Functions: []attribution.FunctionDeviation{
				{Namespace: "fn", Function: "a", Period: 0.6, Total: 20, Collinear: true}, // 1 J is beyond 0.6, within 1.18
				{Namespace: "fn", Function: "b", Period: 0.4, Total: 100},                 // and beyond 0.78
				{Namespace: "other", Function: "b", Period: 9, Total: 9},
			}}
		},
	}
	s := judge(t, p, steady())
	if s.Coverage == nil || s.Coverage.Intervals != 60 {
		t.Fatalf("%+v", s.Coverage)
	}
	near(t, "1 sigma", s.Coverage.OneSigma, 20./60)
	near(t, "95 %", s.Coverage.P95, 50./60)
	near(t, "half width", s.Coverage.HalfWidth, 1.959964*0.5)
	near(t, "half width over energy", s.Coverage.HalfWidthRelative, 1.959964*0.5/30)
	// a is off by 60 J in all, 3 times 20; b by -20 J, 0.2 times 100.
	near(t, "totals", s.Coverage.Totals95, 0.5)
	near(t, "z of a", s.Functions[0].Z, 3)
	near(t, "z of b", s.Functions[1].Z, -0.2)
	if !s.Functions[0].Collinear || s.Functions[1].Collinear {
		t.Errorf("%+v", s.Functions)
	}
}

func TestScoreConservation(t *testing.T) {
	give := func(k int, _ *attribution.Interval) ([]float64, energy.Energy) {
		joules, base := split(4, 2, 0.5)
		if k == 17 {
			base -= 3
		}
		return joules, base
	}
	if s := judge(t, &puppet{give: give}, steady()); s.Conservation != 3 {
		t.Errorf("3 µJ are missing in a tick, found %d", s.Conservation)
	}
	// An estimator that posts what makes up for a negative interval posts too much.
	c := steady()
	c.Ticks[5].Energy = -7
	p := &puppet{give: func(_ int, in *attribution.Interval) ([]float64, energy.Energy) { return make([]float64, 4), in.Energy }}
	if _, err := Run(p, c); err == nil {
		t.Error("a negative base was taken")
	}
	p = &puppet{give: func(_ int, in *attribution.Interval) ([]float64, energy.Energy) {
		in.Energy = max(0, in.Energy)
		return make([]float64, 4), in.Energy
	}}
	if s := judge(t, p, c); s.Conservation != 7 {
		t.Errorf("7 µJ posted too much, found %d", s.Conservation)
	}
}

func TestRunRefuses(t *testing.T) {
	good := func(int, *attribution.Interval) ([]float64, energy.Energy) { return split(4, 2, 0.5) }
	for want, e := range map[string]attribution.Estimator{
		"a tick too many":                &twice{puppet{give: good}},
		"599 of 600 intervals came back": &lossy{puppet{give: good}},
	} {
		if o, err := Run(e, steady()); err == nil || o != nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "run puppet on steady, seed 9: ") {
			t.Errorf("%s: %v", want, err)
		}
	}
	p := &puppet{give: good, regimes: nil}
	c := steady()
	c.Regimes = []Regime{{100 * time.Second, "governor"}, {100 * time.Second, "fan"}}
	judge(t, p, c)
	if !slices.Equal(p.regimes, []string{"governor", "fan"}) {
		t.Errorf("told %q", p.regimes)
	}
}

type twice struct{ puppet }

func (p *twice) Flush(emit func(*attribution.Tick)) {
	emit(&attribution.Tick{})
}

type lossy struct{ puppet }

func (p *lossy) Step(in *attribution.Interval, emit func(*attribution.Tick)) {
	p.puppet.Step(in, func(t *attribution.Tick) {
		if t.End < 600*time.Second {
			emit(t)
		}
	})
}

func TestSummarise(t *testing.T) {
	cover := func(p float64) *Coverage { return &Coverage{P95: p} }
	u := Summarise([]*Score{
		{MeanError: 0.03, Bias: 0.01, Coverage: cover(0.99), Convergence: 50, Conservation: 0, Curve: []float64{1, 2, 3}},
		{MeanError: 0.01, Bias: -0.02, Coverage: cover(0.90), Convergence: -1, Conservation: 2, Curve: []float64{3, 4}},
		{MeanError: 0.02, Bias: 0.00, Coverage: cover(0.95), Convergence: 30, Curve: []float64{5, 0}},
		{MeanError: 0.04, Bias: 0.01, Convergence: 70, AfterChange: []float64{20, 10}, Curve: []float64{7, 9}},
	})
	near(t, "median", u.MeanError.Median, 0.025)
	near(t, "worst", u.MeanError.Worst, 0.04)
	near(t, "median bias", u.Bias.Median, 0.005)
	near(t, "worst bias", u.Bias.Worst, -0.02)
	near(t, "coverage", u.P95.Median, 0.95)
	near(t, "worst coverage", u.P95.Worst, 0.90) // 0.99 is nearer
	near(t, "convergence", u.Convergence.Median, 50)
	near(t, "longest", u.Convergence.Worst, 70)
	near(t, "after a change", u.AfterChange.Median, 20)
	if u.Diverged != 1 || u.Conservation != 2 || u.LateMean != nil || !slices.Equal(u.Curve, []float64{4, 3}) {
		t.Errorf("%+v", u)
	}
	if e := Summarise(nil); e.Curve != nil || e.MeanError != (Stat{}) {
		t.Errorf("of nothing: %+v", e)
	}
}
