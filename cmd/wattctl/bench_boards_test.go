package main

import (
	"math"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/validation"
)

// judgeBoard judges the agent's estimator on a simulated board.
func judgeBoard(t *testing.T, board, scenario string) *validation.Score {
	t.Helper()
	c, err := boardCase(board, scenario, 3, 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	o, err := validation.Run(attribution.New(c.Board), c)
	if err != nil {
		t.Fatal(err)
	}
	s := validation.Judge(c, o)
	if s.Conservation != 0 {
		t.Errorf("%s, %s: %d µJ off", board, scenario, s.Conservation)
	}
	return s
}

// Two functions do the same, one by children that live 20 ms: each has its share, although no live process ever shows the
// children's time.
func TestForkedChildrenHaveTheirShare(t *testing.T) {
	t.Parallel()
	for _, board := range []string{"raspberrypi-3b", "odroid-xu4", "jetson-nano"} {
		s := judgeBoard(t, board, "forked")
		if len(s.Functions) != 2 {
			t.Fatalf("%s: functions %+v", board, s.Functions)
		}
		a, b := s.Functions[0], s.Functions[1]
		got, want := a.Estimate/(a.Estimate+b.Estimate), a.Truth/(a.Truth+b.Truth)
		if math.Abs(got-want) > 0.02 {
			t.Errorf("%s: %s has %.3f of both functions' energy, truly %.3f", board, a.Function, got, want)
		}
	}
}

// On boards whose physics is not additive errors are larger, and the intervals must know.
func TestSimulatedBoards(t *testing.T) {
	t.Parallel()
	for _, board := range []string{"raspberrypi-3b", "coral", "jetson-nano"} {
		s := judgeBoard(t, board, "many:8")
		if s.MeanError > 0.08 || s.Coverage == nil || s.Coverage.P95 < 0.9 {
			t.Errorf("%s: mean error %.3f, coverage %+v", board, s.MeanError, s.Coverage)
		}
	}
}

// The twin that starts with each call of another is flagged with it, and not said to be known.
func TestCollinearFunctionsAreFlagged(t *testing.T) {
	t.Parallel()
	s := judgeBoard(t, "raspberrypi-3b", "collinear")
	for _, f := range s.Functions {
		if together := f.Function != "alone"; f.Collinear != together {
			t.Errorf("%s: collinear %v", f.Function, f.Collinear)
		}
		if f.Collinear && math.Abs(f.Z) > 3 {
			t.Errorf("%s: %.1f J, truly %.1f, said to be known to %.1f J", f.Function, f.Estimate, f.Truth, f.StdDev)
		}
	}
}
