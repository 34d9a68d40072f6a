// Package validation holds estimators of attribution against loads whose true energy per function is known, and says by how
// much they miss it and whether they know that.
//
// What matters: the true energies never reach an estimator; a case is the same for the same seed, whatever is estimated from
// it; and real measurements give the shapes (Library), so that no estimator gets the constant power per CPU-second that most
// of them assume.
package validation

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Case is a load with the truth about it.
type Case struct {
	Name  string
	Seed  uint64
	Board attribution.Board // what an estimator is told
	// Classes names the core classes of Board; one empty name where all cores are alike.
	Classes   []string
	Workloads []workload.Workload
	Ticks     []Tick
	// Regimes are changes of the board that estimators are told of; Changes are when it changed, told or not.
	Regimes []Regime
	Changes []time.Duration
}

// Tick is one interval with its truth.
type Tick struct {
	// Interval is what an estimator sees, but that the slot of a use is an index into the case's workloads.
	attribution.Interval
	// Truth is the active energy of each of the interval's uses, J.
	Truth []float64
	// Lost says that the reading at the interval's end did not arrive: Energy was found between its neighbours.
	Lost bool
}

// Regime is an announced change of the board.
type Regime struct {
	At   time.Duration
	What string
}

// Check says what makes a case unfit: a case from elsewhere, such as a simulated board, is checked before it is used. It must
// have ticks that follow each other, uses by ascending workload, a finite truth for each use, and at least one function.
func (c *Case) Check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("case %s: %s", c.Name, fmt.Sprintf(format, args...))
	}
	if names, _ := c.functions(); len(names) == 0 {
		return fault("no function among its %d workloads", len(c.Workloads))
	}
	if len(c.Ticks) == 0 {
		return fault("no ticks")
	}
	if len(c.Classes) == 0 || len(c.Classes) > attribution.MaxClasses {
		return fault("%d core classes; there must be 1 to %d", len(c.Classes), attribution.MaxClasses)
	}
	last := c.Ticks[0].Start
	for k := range c.Ticks {
		t := &c.Ticks[k]
		if t.Start != last || t.End <= t.Start {
			return fault("tick %d is from %v to %v, the one before ends at %v", k, t.Start, t.End, last)
		}
		last = t.End
		if len(t.Truth) != len(t.Uses) {
			return fault("tick %d has %d uses and %d truths", k, len(t.Uses), len(t.Truth))
		}
		for i, u := range t.Uses {
			if u.Slot < 0 || int(u.Slot) >= len(c.Workloads) || i > 0 && u.Slot <= t.Uses[i-1].Slot {
				return fault("tick %d: use %d is of workload %d", k, i, u.Slot)
			}
			if math.IsNaN(t.Truth[i]) || math.IsInf(t.Truth[i], 0) {
				return fault("tick %d: the truth of workload %d is %v", k, u.Slot, t.Truth[i])
			}
		}
	}
	return nil
}

// functions returns the names of the functions, and for each workload the index of its function; -1 for those that serve none.
func (c *Case) functions() (names []string, of []int) {
	index := map[[2]string]int{}
	for _, w := range c.Workloads {
		if w.Kind != workload.Function {
			of = append(of, -1)
			continue
		}
		key := [2]string{w.Namespace, w.Function}
		i, ok := index[key]
		if !ok {
			i = len(names)
			index[key] = i
			names = append(names, w.Function)
		}
		of = append(of, i)
	}
	return names, of
}

// Concat appends b to a: from there on the board is b's, and the estimators go on with what they learnt of a. They are told of
// it if what is not empty. Both must have the same workloads.
func Concat(a, b *Case, what string) (*Case, error) {
	if !slices.Equal(a.Workloads, b.Workloads) || len(a.Ticks) == 0 {
		return nil, errors.New("cases to be joined need ticks and the same workloads")
	}
	out := *a
	at := a.Ticks[len(a.Ticks)-1].End
	out.Ticks = append(slices.Clip(out.Ticks), b.Ticks...)
	for k := range b.Ticks {
		t := &out.Ticks[len(a.Ticks)+k]
		t.Start, t.End = t.Start+at, t.End+at
	}
	out.Changes = append(slices.Clip(out.Changes), at)
	if what != "" {
		out.Regimes = append(slices.Clip(out.Regimes), Regime{at, what})
	}
	return &out, nil
}

// Recorder takes a trace down. The times of its rows do not fall.
type Recorder interface {
	Workload(workload.Workload) error
	// Power is a reading: when it was received, the meter's epoch and own clock, and its running total.
	Power(received time.Duration, epoch uint64, at time.Duration, e energy.Energy) error
	Usage(*workload.Sample) error
	Activity(workload.Activity) error
	Event(workload.Event) error
}

// The meter of a recorded case has a clock of its own, and its messages take time.
const (
	meterEpoch     = 1
	meterAhead     = 12345 * time.Millisecond
	messageFastest = 2 * time.Millisecond
	messageSpread  = 5 * time.Millisecond
)

// Record plays a case to a recorder as an agent would have seen it: running totals by the meter's clock, with lost messages
// missing, and CPU time as counters. A lag of the meter's is in the totals, for whoever reads the trace to find.
func Record(c *Case, r Recorder) error {
	if err := c.Check(); err != nil {
		return err
	}
	for _, w := range c.Workloads {
		if err := r.Workload(w); err != nil {
			return err
		}
	}
	events := make([]workload.Event, 0, len(c.Regimes))
	for _, g := range c.Regimes {
		events = append(events, workload.Event{ID: workload.Node, At: g.At, What: workload.RegimePrefix + g.What})
	}
	p := player{c: c, r: r, cpu: make([][attribution.MaxClasses]float64, len(c.Workloads)), unclassed: make([]float64, len(c.Workloads)),
		activity: make([]workload.Activity, len(c.Workloads))}
	for i, w := range c.Workloads {
		p.activity[i].ID = w.ID
	}
	if err := p.readings(c.Ticks[0].Start, false); err != nil {
		return err
	}
	for k := range c.Ticks {
		t := &c.Ticks[k]
		for len(events) > 0 && events[0].At <= t.Start {
			if err := r.Event(events[0]); err != nil {
				return err
			}
			events = events[1:]
		}
		p.take(t)
		if err := p.readings(t.End, t.Lost); err != nil {
			return err
		}
	}
	return nil
}

// player has the counters of a case that is played.
type player struct {
	c         *Case
	r         Recorder
	total     energy.Energy
	node      [attribution.MaxClasses]float64 // s
	cpu       [][attribution.MaxClasses]float64
	unclassed []float64
	activity  []workload.Activity
	readingNo uint64
}

func (p *player) take(t *Tick) {
	p.total += t.Energy
	for q, s := range t.Node {
		p.node[q] += s
	}
	for _, u := range t.Uses {
		for q, s := range u.CPU {
			p.cpu[u.Slot][q] += s
		}
		p.unclassed[u.Slot] += u.Unclassed
		a := &p.activity[u.Slot]
		a.Started += int64(math.Round(u.Started))
		a.Completed += int64(math.Round(u.Completed))
		a.InFlight = a.Started - a.Completed
	}
}

// readings gives the recorder what can be read at an instant.
func (p *player) readings(at time.Duration, lost bool) error {
	if p.readingNo++; !lost {
		delay := messageFastest + time.Duration(p.readingNo*2654435761%uint64(messageSpread)) // any spread will do
		if err := p.r.Power(at+delay, meterEpoch, at+meterAhead, p.total); err != nil {
			return err
		}
	}
	s := &workload.Sample{At: at}
	add := func(id workload.ID, cpu [attribution.MaxClasses]float64, unclassed float64) {
		for q, class := range p.c.Classes {
			s.Usage = append(s.Usage, workload.Usage{ID: id, Class: class, At: at, CPU: seconds(cpu[q])})
		}
		if unclassed > 0 {
			s.Usage = append(s.Usage, workload.Usage{ID: id, At: at, CPU: seconds(unclassed)})
		}
	}
	add(workload.Node, p.node, 0)
	for i, w := range p.c.Workloads {
		add(w.ID, p.cpu[i], p.unclassed[i])
	}
	slices.SortFunc(s.Usage, func(a, b workload.Usage) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Class, b.Class))
	})
	if err := p.r.Usage(s); err != nil {
		return err
	}
	for i, w := range p.c.Workloads {
		if w.Kind != workload.Function {
			continue
		}
		p.activity[i].At = at
		if err := p.r.Activity(p.activity[i]); err != nil {
			return err
		}
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }
