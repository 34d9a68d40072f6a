package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/validation"
	"github.com/wattlet/wattlet/internal/workload"
)

// benchBoards are the simulated boards on which estimators are judged, with the scenario that runs on each.
var benchBoards = []struct{ board, scenario string }{
	{"raspberrypi-3b", "many:8"}, {"odroid-xu4", "many:8"}, {"coral", "many:8"}, {"jetson-nano", "many:8"}, {"raspberrypi-3b", "forked"},
}

// boardSetups are cases of simulated boards, whose physics is not additive: cores share clocks and clusters, heat leaks, governors follow
// the load.
func boardSetups(quick bool) (setups []validation.Setup) {
	long := 30 * time.Minute
	if quick {
		long = 10 * time.Minute
	}
	for _, b := range benchBoards {
		setups = append(setups, validation.Setup{
			Name: fmt.Sprintf("board %s, %s", b.board, b.scenario),
			Make: func(seed uint64) (*validation.Case, error) { return boardCase(b.board, b.scenario, seed, long) },
		})
	}
	return setups
}

// boardCase lets a simulated board run and returns what the agent's alignment makes of it, with the truth of each interval.
func boardCase(board, scenario string, seed uint64, long time.Duration) (*validation.Case, error) {
	s, err := boardsim.Preset(scenario)
	if err != nil {
		return nil, err
	}
	b, err := boardsim.New(boardsim.Options{Board: board, Seed: seed, Scenario: s})
	if err != nil {
		return nil, err
	}
	spec := b.Spec()
	told := accounting.Board{Idle: 1.2 * spec.Published.Idle}
	for _, c := range slices.Backward(spec.Classes) { // the fastest last there, first here
		class := accounting.Class{Name: c.Name, Cores: c.Cores}
		for _, p := range c.Points {
			class.Points = append(class.Points, accounting.OperatingPoint{KHz: p.KHz, Microvolt: p.Microvolt})
		}
		told.Classes = append(told.Classes, class)
	}
	o := &observed{known: map[workload.ID]workload.Workload{}}
	o.attributor = accounting.NewAttributor(accounting.AttributorConfig{
		Board: told, Tick: 100 * time.Millisecond, Describe: func(id workload.ID) workload.Workload { return o.known[id] },
		Estimator: func(b attribution.Board) attribution.Estimator { o.board = b; return o },
	}, nil)
	b.Advance(time.Minute) // until it is warm
	if err := b.Record(o, long, boardsim.RecordOptions{Meter: boardsim.Meter{Noise: 0.02}, Truth: o.truth}); err != nil {
		return nil, err
	}
	o.attributor.Flush()
	return o.made(fmt.Sprintf("board %s, %s", board, scenario), seed, told)
}

// observed takes down a board's recording through the agent's alignment. It stands in for the estimator there, and keeps the
// intervals.
type observed struct {
	attributor *accounting.Attributor
	board      attribution.Board
	known      map[workload.ID]workload.Workload
	workloads  []workload.Workload // by slot
	intervals  []attribution.Interval
	truths     []truthAt
}

// truthAt is the energy of all workloads up to an instant, J.
type truthAt struct {
	at     time.Duration
	joules map[workload.ID]float64
}

func (o *observed) Workload(w workload.Workload) error {
	o.known[w.ID] = w
	return nil
}

func (o *observed) Power(_ time.Duration, _ uint64, at time.Duration, e energy.Energy) error {
	o.attributor.Energy(at, e, 0)
	return nil
}

func (o *observed) Usage(s *workload.Sample) error {
	o.attributor.Sample(s)
	return nil
}

func (o *observed) Activity(a workload.Activity) error {
	o.attributor.Activity(a)
	return nil
}

// Event is not told: a pod's start is part of its energy here.
func (o *observed) Event(workload.Event) error { return nil }

func (o *observed) truth(at time.Duration, t boardsim.Truth) {
	joules := make(map[workload.ID]float64, len(t.Workloads))
	for _, w := range t.Workloads {
		joules[w.ID] += w.Energy + w.ColdStart
	}
	o.truths = append(o.truths, truthAt{at, joules})
}

func (*observed) Name() string { return "observed" }

func (o *observed) Enter(w workload.Workload) attribution.Slot {
	o.workloads = append(o.workloads, w)
	return attribution.Slot(len(o.workloads) - 1)
}

func (*observed) Leave(attribution.Slot) {}
func (*observed) Regime(string)          {}

func (o *observed) Step(in *attribution.Interval, emit func(*attribution.Tick)) {
	kept := *in
	kept.Uses = slices.Clone(in.Uses)
	o.intervals = append(o.intervals, kept)
	emit(&attribution.Tick{Start: in.Start, End: in.End, Energy: in.Energy, Base: in.Energy})
}

func (*observed) Flush(func(*attribution.Tick)) {}
func (*observed) Model() attribution.Model      { return attribution.Model{} }

// made puts intervals and truth together.
func (o *observed) made(name string, seed uint64, told accounting.Board) (*validation.Case, error) {
	c := &validation.Case{Name: name, Seed: seed, Board: o.board, Workloads: o.workloads}
	for _, class := range told.Classes {
		c.Classes = append(c.Classes, class.Name)
	}
	for _, in := range o.intervals {
		t := validation.Tick{Interval: in}
		for _, u := range in.Uses {
			id := o.workloads[u.Slot].ID
			t.Truth = append(t.Truth, o.until(in.End, id)-o.until(in.Start, id))
		}
		c.Ticks = append(c.Ticks, t)
	}
	return c, c.Check()
}

// until interpolates the energy of a workload up to an instant.
func (o *observed) until(at time.Duration, id workload.ID) float64 {
	i, exact := slices.BinarySearchFunc(o.truths, at, func(t truthAt, at time.Duration) int { return int(t.at - at) })
	switch {
	case exact || i == 0:
		return o.truths[min(i, len(o.truths)-1)].joules[id]
	case i == len(o.truths):
		return o.truths[i-1].joules[id]
	}
	a, b := o.truths[i-1], o.truths[i]
	return a.joules[id] + (b.joules[id]-a.joules[id])*float64(at-a.at)/float64(b.at-a.at)
}
