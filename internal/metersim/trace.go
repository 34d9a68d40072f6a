package metersim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// ErrTrace is wrapped by the errors of ParseTrace.
var ErrTrace = errors.New("not a trace of seconds,watts")

// trace is a recorded load that repeats. at[0] is 0 and the last element of at is the period.
type trace struct {
	at     []time.Duration
	watts  []float64
	before []float64 // joules from the start to at[i]
	linear bool
}

// ParseTrace reads a load from CSV rows of seconds and watts, with or without a header. Seconds ascend and are counted from
// the first row; the last row is the end, where the load starts again. Between rows the load is straight if linear is set,
// else it holds the row before, and the last row's watts do not matter.
func ParseTrace(r io.Reader, linear bool) (Load, error) {
	t := &trace{linear: linear}
	var zero time.Duration
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		bad := func(why string) (Load, error) {
			return nil, fmt.Errorf("%w: line %d: %q: %s", ErrTrace, n, line, why)
		}
		s, w, ok := strings.Cut(line, ",")
		if !ok {
			return bad("no comma")
		}
		at, errAt := seconds(strings.TrimSpace(s))
		watts, errW := strconv.ParseFloat(strings.TrimSpace(w), 64)
		if errAt != nil && errW != nil && len(t.at) == 0 && n == 1 {
			continue
		}
		switch {
		case errAt != nil:
			return bad("the first column is not a number of seconds")
		case errW != nil || math.IsNaN(watts) || math.Abs(watts) > 1e9:
			return bad("the second column is not a number of watts")
		}
		if len(t.at) == 0 {
			zero = at
		}
		at -= zero
		if last := len(t.at) - 1; last >= 0 {
			if at <= t.at[last] {
				return bad("seconds do not ascend")
			}
			t.before = append(t.before, t.before[last]+t.area(t.watts[last], watts, at-t.at[last]))
		} else {
			t.before = append(t.before, 0)
		}
		t.at, t.watts = append(t.at, at), append(t.watts, watts)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrace, err)
	}
	if len(t.at) < 2 {
		return nil, fmt.Errorf("%w: %d rows; the first and the end are needed at least", ErrTrace, len(t.at))
	}
	return t, nil
}

// seconds reads a decimal number of seconds to the nanosecond, which a float would lose in a wall clock's seconds.
func seconds(s string) (time.Duration, error) {
	if strings.Trim(s, "+-.0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return time.ParseDuration(s + "s")
}

// area is the energy of a stretch d within one gap, with the power a at its start and b at its end.
func (t *trace) area(a, b float64, d time.Duration) float64 {
	if t.linear {
		return (a + b) / 2 * d.Seconds()
	}
	return a * d.Seconds()
}

// power is the power at a phase within the gap after row i.
func (t *trace) power(i int, phase time.Duration) float64 {
	if !t.linear {
		return t.watts[i]
	}
	share := float64(phase-t.at[i]) / float64(t.at[i+1]-t.at[i])
	return t.watts[i] + (t.watts[i+1]-t.watts[i])*share
}

// gap returns the row whose gap holds the phase.
func (t *trace) gap(phase time.Duration) int {
	return sort.Search(len(t.at), func(i int) bool { return t.at[i] > phase }) - 1
}

// within is the energy between two phases of one period, a before b.
func (t *trace) within(a, b time.Duration) float64 {
	i, j := t.gap(a), t.gap(b)
	if i == j {
		return t.area(t.power(i, a), t.power(i, b), b-a)
	}
	return t.area(t.power(i, a), t.watts[i+1], t.at[i+1]-a) +
		t.before[j] - t.before[i+1] +
		t.area(t.watts[j], t.power(j, b), b-t.at[j])
}

func (t *trace) Energy(from, to time.Duration) float64 {
	last := len(t.at) - 1
	n0, ph0 := split(from, t.at[last])
	n1, ph1 := split(to, t.at[last])
	e := float64(n1-n0) * t.before[last]
	if ph0 <= ph1 {
		return e + t.within(ph0, ph1)
	}
	return e - t.within(ph1, ph0)
}

func (t *trace) Power(at time.Duration) float64 {
	_, phase := split(at, t.at[len(t.at)-1])
	return t.power(t.gap(phase), phase)
}
