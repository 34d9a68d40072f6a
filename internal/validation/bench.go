package validation

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
)

// Named is an estimator to be judged.
type Named struct {
	Name string
	New  func(attribution.Board) attribution.Estimator
}

// Setup makes the cases of one load, one for each seed.
type Setup struct {
	Name string
	// Plain marks the loads that the overall result is of.
	Plain bool
	Make  func(seed uint64) (*Case, error)
}

// Curve makes the cases of one disturbance, from none to much.
type Curve struct {
	Name, Label string // Label is that of the axis, with its unit
	X           []float64
	Make        func(x float64, seed uint64) (*Case, error)
	// Worst shows the worst function instead of the mean over functions.
	Worst bool
}

// Plan is what a benchmark does.
type Plan struct {
	Data          string
	Cases         []Setup
	Curves        []Curve
	Seeds, Curved uint64 // seeds of each case and of each point of a curve
	// First is the first seed; zero counts as 1. Whoever tuned an estimator by some seeds judges it by others.
	First uint64
}

// Result is that of a plan. All errors are relative.
type Result struct {
	Format     string        `json:"format"`
	Data       string        `json:"data"`
	Seeds      uint64        `json:"seeds"`
	CurveSeeds uint64        `json:"curve_seeds"`
	FirstSeed  uint64        `json:"first_seed"`
	Estimators []string      `json:"estimators"`
	Overall    []Row         `json:"overall"` // over all plain cases and seeds
	Cases      []CaseResult  `json:"cases"`
	Curves     []CurveResult `json:"curves"`
}

// CaseResult has a row for each estimator.
type CaseResult struct {
	Case  string `json:"case"`
	Plain bool   `json:"plain"`
	Rows  []Row  `json:"estimators"`
}

// Row is an estimator's result.
type Row struct {
	Estimator string   `json:"estimator"`
	Summary   Summary  `json:"summary"`
	Scores    []*Score `json:"scores,omitempty"`
}

// CurveResult has a line for each estimator.
type CurveResult struct {
	Curve string    `json:"curve"`
	Label string    `json:"label"`
	Worst bool      `json:"shows_worst_function"`
	X     []float64 `json:"x"`
	Lines []Line    `json:"lines"`
}

// Line has the stats of an estimator at each x.
type Line struct {
	Estimator  string `json:"estimator"`
	MeanError  []Stat `json:"mean_error"`
	WorstError []Stat `json:"worst_error"`
}

const resultFormat = "wattlet-bench-attribution/1"

// Run judges estimators by a plan. Before each case it tells progress how many of how many are done. It ends early, with the
// context's error, if that is done.
func (p Plan) Run(ctx context.Context, estimators []Named, progress func(done, all int, what string)) (*Result, error) {
	out := &Result{Format: resultFormat, Data: p.Data, Seeds: p.Seeds, CurveSeeds: p.Curved, FirstSeed: max(1, p.First)}
	for _, e := range estimators {
		out.Estimators = append(out.Estimators, e.Name)
	}
	all := len(p.Cases) * int(p.Seeds)
	for _, c := range p.Curves {
		all += len(c.X) * int(p.Curved)
	}
	done := 0
	judge := func(what string, seeds uint64, build func(seed uint64) (*Case, error)) ([][]*Score, error) {
		scores := make([][]*Score, len(estimators))
		for seed := out.FirstSeed; seed < out.FirstSeed+seeds; seed++ {
			progress(done, all, what)
			c, err := build(seed)
			if err != nil {
				return nil, err
			}
			for i, e := range estimators {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				o, err := Run(e.New(c.Board), c)
				if err != nil {
					return nil, err
				}
				scores[i] = append(scores[i], Judge(c, o))
			}
			done++
		}
		return scores, nil
	}
	overall := make([][]*Score, len(estimators))
	for _, s := range p.Cases {
		scores, err := judge(s.Name, p.Seeds, s.Make)
		if err != nil {
			return nil, err
		}
		r := CaseResult{Case: s.Name, Plain: s.Plain}
		for i, e := range estimators {
			r.Rows = append(r.Rows, Row{e.Name, Summarise(scores[i]), scores[i]})
			if s.Plain {
				overall[i] = append(overall[i], scores[i]...)
			}
		}
		out.Cases = append(out.Cases, r)
	}
	for i, e := range estimators {
		out.Overall = append(out.Overall, Row{Estimator: e.Name, Summary: Summarise(overall[i])})
	}
	for _, c := range p.Curves {
		r := CurveResult{Curve: c.Name, Label: c.Label, Worst: c.Worst, X: c.X, Lines: make([]Line, len(estimators))}
		for _, x := range c.X {
			scores, err := judge(fmt.Sprintf("%s %g", c.Name, x), p.Curved, func(seed uint64) (*Case, error) { return c.Make(x, seed) })
			if err != nil {
				return nil, err
			}
			for i, e := range estimators {
				u := Summarise(scores[i])
				l := &r.Lines[i]
				l.Estimator, l.MeanError, l.WorstError = e.Name, append(l.MeanError, u.MeanError), append(l.WorstError, u.WorstError)
			}
		}
		out.Curves = append(out.Curves, r)
	}
	progress(done, all, "done")
	return out, nil
}

// shapes are the libraries that a plan is made of.
type shapes struct {
	plain []*Library
	// reference is what the curves disturb, and fine the same at half the step if there is such a thing.
	reference, fine *Library
	from, to        *Library // a governor's change; nil without
	little, big     *Library // for functions on different classes; nil without
	pair            []string
}

// SyntheticPlan needs no recorded data. Quick is for a look: shorter loads, fewer points.
func SyntheticPlan(seeds uint64, quick bool) Plan {
	l := Synthetic(11, 1)
	other := *l
	other.Name, other.Idle, other.Functions = "synthetic-low", 0.4, nil
	for _, f := range l.Functions {
		g := Shapes{Function: f.Function, Rate: f.Rate}
		for _, p := range f.Profiles {
			p.Energy = slices.Clone(p.Energy)
			for k := range p.Energy {
				p.Energy[k] *= 1.8
			}
			g.Profiles = append(g.Profiles, p)
		}
		other.Functions = append(other.Functions, g)
	}
	few := Synthetic(4, 2)
	few.Name = "synthetic-few"
	return shapes{plain: []*Library{l, few}, reference: l, from: l, to: &other}.plan("synthetic", seeds, quick)
}

// RecordedPlan is made of recorded runs: each is a case of its own, and a run on all cores is what the curves disturb. A change of
// governor goes from the highest idle power to the lowest; functions are mixed over core classes if there is a run that names
// itself -0b-, confined to the little cores, and one on all cores of the same governors.
func RecordedPlan(runs []*Recording, data string, seeds uint64, quick bool) (Plan, error) {
	if len(runs) == 0 {
		return Plan{}, fmt.Errorf("plan for %s: no recorded runs", data)
	}
	var s shapes
	byName := map[string]*Recording{}
	for _, r := range runs {
		l, err := r.Library(Cut{})
		if err != nil {
			return Plan{}, err
		}
		l.Name = brief(r.Name, runs)
		byName[l.Name] = r
		s.plain = append(s.plain, l)
		if !strings.Contains(r.Name, "-0b-") && (s.reference == nil || strings.Contains(r.Name, "-ii-") && !strings.Contains(s.reference.Name, "-ii")) {
			s.reference = l
		}
	}
	s.reference = cmp.Or(s.reference, s.plain[0])
	var err error
	if s.fine, err = byName[s.reference.Name].Library(Cut{Step: 50 * time.Millisecond}); err != nil {
		return Plan{}, err
	}
	idle := func(a, b *Library) int { return cmp.Compare(a.Idle, b.Idle) }
	if from, to := slices.MaxFunc(s.plain, idle), s.reference; from.Idle > 1.5*to.Idle {
		s.from, s.to = from, to
	}
	for _, l := range s.plain {
		r := byName[l.Name]
		if strings.Contains(r.Name, "-0b-") && s.little == nil && s.reference != l && len(byName[s.reference.Name].Busy) == 8 && len(r.Busy) == 8 {
			s.little = l
		}
	}
	if s.little != nil { // of the run on all cores what the big ones did: cores 4-7, the A15 rail
		s.big, err = byName[s.reference.Name].Library(Cut{Class: []int{-1, -1, -1, -1, 0, 0, 0, 0}, Classes: []string{""}, Rails: []string{"a15_W"}})
		if err != nil {
			return Plan{}, err
		}
	}
	s.pair = []string{"google", "slashdot", "amazon"} // differ in power and length
	return s.plan(data, seeds, quick), nil
}

// brief shortens a run's name to the board's setting, if no other run has the same.
func brief(name string, runs []*Recording) string {
	cut := func(name string) string {
		name = strings.TrimPrefix(name, "governors-")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		return name
	}
	short, same := cut(name), 0
	for _, r := range runs {
		if cut(r.Name) == short {
			same++
		}
	}
	if same > 1 {
		return strings.TrimPrefix(name, "governors-")
	}
	return short
}

func (s shapes) plan(data string, seeds uint64, quick bool) Plan {
	p := Plan{Data: data, Seeds: max(1, seeds), Curved: max(1, min(seeds, 3))}
	span := 30 * time.Minute
	if quick {
		span, p.Curved = 10*time.Minute, 1
	}
	compose := func(l *Library, o Options) (*Case, error) {
		o.Duration = cmp.Or(o.Duration, span)
		return Compose(l, o)
	}
	add := func(name string, plain bool, make func(seed uint64) (*Case, error)) {
		p.Cases = append(p.Cases, Setup{name, plain, func(seed uint64) (*Case, error) {
			c, err := make(seed)
			if err == nil {
				c.Name = name
			}
			return c, err
		}})
	}
	for _, l := range s.plain {
		add(l.Name, true, func(seed uint64) (*Case, error) { return compose(l, Options{Seed: seed}) })
	}
	if s.little != nil {
		for _, known := range []bool{false, true} {
			name := "mixed classes"
			if known {
				name += ", known"
			}
			add(name, false, func(seed uint64) (*Case, error) {
				l, err := Mixed(s.little, s.big, known)
				if err != nil {
					return nil, err
				}
				return compose(l, Options{Seed: seed})
			})
		}
	}
	ref := s.reference
	change := func(what string) func(seed uint64) (*Case, error) {
		return func(seed uint64) (*Case, error) {
			a, err := compose(s.from, Options{Seed: seed, Duration: span / 2})
			if err != nil {
				return nil, err
			}
			b, err := compose(s.to, Options{Seed: seed + 1000, Duration: span / 2})
			if err != nil {
				return nil, err
			}
			return Concat(a, b, what)
		}
	}
	if s.from != nil {
		add("governor change", false, change(""))
		add("governor change, told", false, change("governor"))
	}
	add("meter faults", false, func(seed uint64) (*Case, error) { return compose(ref, Options{Seed: seed, Gain: 0.01, Loss: 0.04}) })
	n := len(ref.Functions)
	if n >= 3 {
		add("collinear pair", false, func(seed uint64) (*Case, error) {
			return compose(ref.Subset(s.pair...), Options{Seed: seed, Pair: true, Together: 1})
		})
	}
	add(fmt.Sprint(5*n, " functions"), false, func(seed uint64) (*Case, error) {
		return compose(ref.Variants(5, 3), Options{Seed: seed, Rate: 0.01, Duration: 2 * span})
	})
	add("forked children", false, func(seed uint64) (*Case, error) {
		// They never rest, so nobody can learn the idle power; it must be known.
		return compose(Forked(), Options{Seed: seed, IdleError: -1})
	})

	curve := func(name, label string, worst bool, x []float64, make func(x float64, seed uint64) (*Case, error)) {
		if quick && len(x) > 3 {
			x = []float64{x[0], x[len(x)/2], x[len(x)-1]}
		}
		p.Curves = append(p.Curves, Curve{name, label, x, make, worst})
	}
	curve("lag", "lag left in, s", false, []float64{0, 0.1, 0.2, 0.4, 0.8}, func(x float64, seed uint64) (*Case, error) {
		return compose(ref, Options{Seed: seed, Lag: seconds(x)})
	})
	curve("loss", "readings lost, %", false, []float64{0, 4, 10, 25, 50}, func(x float64, seed uint64) (*Case, error) {
		return compose(ref, Options{Seed: seed, Loss: x / 100})
	})
	curve("gain", "gain error of the meter, %", false, []float64{-5, -2, 0, 2, 5}, func(x float64, seed uint64) (*Case, error) {
		return compose(ref, Options{Seed: seed, Gain: x / 100})
	})
	curve("noise", "noise of the meter, mW rms in 100 ms", false, []float64{1, 20, 50, 100, 200}, func(x float64, seed uint64) (*Case, error) {
		return compose(ref, Options{Seed: seed, Noise: x / 1000})
	})
	ticks := []float64{100, 200, 500, 1000}
	if s.fine != nil {
		ticks = slices.Insert(ticks, 0, 50)
	}
	curve("tick", "tick, ms", false, ticks, func(x float64, seed uint64) (*Case, error) {
		o := Options{Seed: seed, Tick: seconds(x / 1000)}
		if o.Tick < ref.Step {
			return compose(s.fine, o)
		}
		return compose(ref, o)
	})
	curve("rate", "calls per second and function", false, []float64{0.01, 0.025, 0.05, 0.1, 0.2}, func(x float64, seed uint64) (*Case, error) {
		return compose(ref, Options{Seed: seed, Rate: x})
	})
	if n >= 6 {
		curve("functions", "number of functions", false, []float64{3, math.Ceil(float64(n) / 2), float64(n), float64(3 * n), float64(5 * n)},
			func(x float64, seed uint64) (*Case, error) {
				o := Options{Seed: seed, Rate: 0.05 * float64(n) / x}
				if l := int(x) / n; l > 1 {
					return compose(ref.Variants(l, 3), o)
				}
				some := *ref
				some.Functions = some.Functions[:min(n, int(x))]
				return compose(&some, o)
			})
	}
	if n >= 3 {
		curve("collinearity", "part of a pair's calls that start together", true, []float64{0, 0.25, 0.5, 0.75, 1},
			func(x float64, seed uint64) (*Case, error) {
				return compose(ref.Subset(s.pair...), Options{Seed: seed, Pair: true, Together: x})
			})
	}
	return p
}
