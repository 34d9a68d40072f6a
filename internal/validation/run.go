package validation

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
)

// Outcome is what an estimator made of a case.
type Outcome struct {
	Estimator string
	// Model is the estimator's in the end.
	Model attribution.Model
	// PerTick is the mean time that a tick took. Nothing else in an outcome depends on the machine.
	PerTick time.Duration

	functions []string
	// given has per tick's end the running totals of each function, of all other workloads together, and of the base, µJ.
	given   [][]energy.Energy
	excess  energy.Energy // largest difference of a tick's, or the sum's, energy and its parts
	reports []report
}

// report is a copy of an estimator's.
type report struct {
	start, end time.Duration
	functions  []attribution.FunctionDeviation // by function; zero where it says nothing
	has        []bool
}

// Run feeds a case to an estimator and keeps what it answers. It is an error if time does not come back as it should, tick after
// tick, of one interval or several.
func Run(e attribution.Estimator, c *Case) (*Outcome, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	r := &runner{c: c, o: &Outcome{Estimator: e.Name()}}
	r.o.functions, r.function = c.functions()
	r.o.given = make([][]energy.Energy, 0, len(c.Ticks))
	r.sums = make([]energy.Energy, len(r.o.functions)+2)
	slots := make([]attribution.Slot, len(c.Workloads))
	for i, w := range c.Workloads {
		slots[i] = e.Enter(w)
		for int(slots[i]) >= len(r.workload) {
			r.workload = append(r.workload, -1)
		}
		r.workload[slots[i]] = i
	}
	regimes := c.Regimes
	var uses []attribution.Use
	began := time.Now()
	for k := range c.Ticks {
		t := &c.Ticks[k]
		for len(regimes) > 0 && regimes[0].At <= t.Start {
			e.Regime(regimes[0].What)
			regimes = regimes[1:]
		}
		uses = append(uses[:0], t.Uses...)
		for i := range uses {
			uses[i].Slot = slots[uses[i].Slot]
		}
		slices.SortFunc(uses, func(a, b attribution.Use) int { return cmp.Compare(a.Slot, b.Slot) })
		in := t.Interval
		in.Uses = uses
		e.Step(&in, r.take)
	}
	e.Flush(r.take)
	r.o.PerTick = time.Since(began) / time.Duration(len(c.Ticks))
	r.o.Model = e.Model()
	if r.err == nil && len(r.o.given) != len(c.Ticks) {
		r.err = fmt.Errorf("%d of %d intervals came back", len(r.o.given), len(c.Ticks))
	}
	if r.err != nil {
		return nil, fmt.Errorf("run %s on %s, seed %d: %w", e.Name(), c.Name, c.Seed, r.err)
	}
	r.excess(r.posted - r.highest)
	return r.o, nil
}

type runner struct {
	c        *Case
	o        *Outcome
	err      error
	function []int // of each workload
	workload []int // of each slot
	sums     []energy.Energy
	// What must be posted is the most that the meter's running total ever was.
	total, highest, posted energy.Energy
}

func (r *runner) excess(d energy.Energy) { r.o.excess = max(r.o.excess, d, -d) }

func (r *runner) take(t *attribution.Tick) {
	k, ticks := len(r.o.given), r.c.Ticks
	if r.err != nil {
		return
	}
	if k == len(ticks) {
		r.err = fmt.Errorf("a tick too many, from %v to %v", t.Start, t.End)
		return
	}
	last := k + sort.Search(len(ticks)-k, func(i int) bool { return ticks[k+i].End >= t.End })
	if t.Start != ticks[k].Start || last == len(ticks) || t.End != ticks[last].End {
		r.err = fmt.Errorf("a tick came back as from %v to %v, after %d intervals", t.Start, t.End, k)
		return
	}
	for i := k; i <= last; i++ {
		r.total += ticks[i].Energy
	}
	r.highest = max(r.highest, r.total)
	r.posted += t.Energy
	r.excess(r.posted - r.highest)
	was := slices.Clone(r.sums)
	sum := t.Base
	others := len(r.o.functions)
	r.sums[others+1] += t.Base
	for i, s := range t.Shares {
		if int(s.Slot) >= len(r.workload) || s.Slot < 0 || r.workload[s.Slot] < 0 || i > 0 && s.Slot <= t.Shares[i-1].Slot {
			r.err = fmt.Errorf("tick from %v: share %d is for slot %d", t.Start, i, s.Slot)
			return
		}
		if s.Energy < 0 || s.ColdStart < 0 || t.Base < 0 {
			r.err = fmt.Errorf("a negative share in %+v", t)
			return
		}
		sum += s.Energy + s.ColdStart
		f := r.function[r.workload[s.Slot]]
		if f < 0 {
			f = others
		}
		r.sums[f] += s.Energy + s.ColdStart
	}
	r.excess(t.Energy - sum)
	// Within a tick of several intervals the totals are lines.
	for i := k; i <= last; i++ {
		row, part := slices.Clone(r.sums), float64(ticks[i].End-t.Start)/float64(t.End-t.Start)
		for f := range row {
			row[f] = was[f] + energy.Energy(math.Round(float64(row[f]-was[f])*part))
		}
		r.o.given = append(r.o.given, row)
	}
	if t.Report != nil {
		r.report(t.Report)
	}
}

func (r *runner) report(in *attribution.Report) {
	out := report{start: in.Start, end: in.End, functions: make([]attribution.FunctionDeviation, len(r.o.functions)), has: make([]bool, len(r.o.functions))}
	for _, d := range in.Functions {
		for i, w := range r.c.Workloads {
			if f := r.function[i]; f >= 0 && w.Namespace == d.Namespace && w.Function == d.Function {
				out.functions[f], out.has[f] = d, true
				break
			}
		}
	}
	r.o.reports = append(r.o.reports, out)
}
