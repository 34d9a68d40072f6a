package trace

import (
	"errors"
	"io"
	"math"
	"math/bits"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// Summary is what Check says of a trace.
type Summary struct {
	Meta Meta
	// Workloads is their number, without Node.
	Workloads int
	// Power, Usage, Frequency, Activity and Events are numbers of rows.
	Power, Usage, Frequency, Activity, Events int64
	// Boots is the number of uninterrupted runs of the meter.
	Boots int
	// Duration is the time of the last row since the trace's start.
	Duration time.Duration
	// Measured is the energy between the first and last reading of every boot. What was used between two boots is not in it.
	Measured energy.Energy
}

// Check reads a whole trace once. It returns the first fault, which is an *Error, with the totals up to there.
func Check(dir string) (Summary, error) {
	r, err := Open(dir)
	if err != nil {
		return Summary{}, err
	}
	defer r.Close()
	return check(r)
}

func check(r *Reader) (s Summary, err error) {
	s.Meta, s.Workloads = r.meta, len(r.workloads)
	counts := [...]*int64{PowerRow: &s.Power, FrequencyRow: &s.Frequency, UsageRow: &s.Usage, ActivityRow: &s.Activity, EventRow: &s.Events}
	var last Power
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return s, nil
		} else if err != nil {
			return s, err
		}
		*counts[rec.Row]++
		s.Duration = rec.At()
		if rec.Row != PowerRow {
			continue
		}
		if p := rec.Power; s.Boots == 0 || p.Boot != last.Boot {
			s.Boots++
		} else {
			// The difference fits 64 bits without a sign: totals never decrease.
			sum, carry := bits.Add64(uint64(s.Measured), uint64(p.Energy)-uint64(last.Energy), 0)
			if carry != 0 || sum > math.MaxInt64 {
				r.last.bad(3, "the energy measured is beyond 64 bits of µJ")
				return s, r.last.err
			}
			s.Measured = energy.Energy(sum)
		}
		last = rec.Power
	}
}
