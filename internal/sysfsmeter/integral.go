package sysfsmeter

import (
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// integral turns power samples into running totals by the trapezoid rule: between two samples power is taken to go in a
// straight line. Holding the last value instead gives the same long-run mean, but is off by half a poll period on every
// ramp, and it books a step wholly to one side of it; the trapezoid is exact on ramps, halves the error at a step, and like
// holding never leaves the range of what was measured.
//
// A line is drawn only between two good samples at most maxGap apart. All other time is unmeasured.
type integral struct {
	maxGap time.Duration

	last sample
	at   time.Duration
	ok   bool // last may be the start of a line

	energy     energy.Energy
	charge     energy.Charge
	restE      int64 // what energy and charge lack, in 2e-6 of their unit: rounded away it would be a drift
	restQ      int64
	unmeasured time.Duration
	samples    uint64
	saturated  uint64

	interval time.Duration // of the line drawn last; zero if there is none
	from     sample        // its start
}

// add takes in the sample taken at the time at and returns that time as the totals use it, in whole microseconds.
//
// No product overflows: |power| <= 1e10 µW, twice that times 6e7 µs (maxGap is a minute at most) is 1.2e18.
func (g *integral) add(at time.Duration, x sample) time.Duration {
	at = max(at.Truncate(time.Microsecond), g.at)
	dt := at - g.at
	g.interval = 0
	if g.ok && !x.off && dt <= g.maxGap {
		us := dt.Microseconds()
		e := g.restE + int64(g.last.power+x.power)*us
		q := g.restQ + int64(g.last.current+x.current)*us
		g.interval, g.from = dt, g.last
		g.energy += energy.Energy(e / 2e6)
		g.charge += energy.Charge(q / 2e6)
		g.restE, g.restQ = e%2e6, q%2e6
	} else {
		g.unmeasured += dt
	}
	if !x.off {
		g.samples++
		if x.saturated {
			g.saturated++
		}
	}
	g.last, g.at, g.ok = x, at, !x.off
	return at
}

// fill writes the totals, and the means and extremes of the last line, to r. The extremes are those of its two ends.
func (g *integral) fill(r *energy.Reading) {
	r.Energy, r.Charge, r.Unmeasured = g.energy, g.charge, g.unmeasured
	r.Samples, r.Saturated = g.samples, g.saturated
	if g.interval <= 0 {
		return
	}
	a, b := g.from, g.last
	r.Interval = g.interval
	r.Power, r.MinPower, r.MaxPower = (a.power+b.power)/2, min(a.power, b.power), max(a.power, b.power)
	r.Voltage, r.MinVolts, r.MaxVolts = (a.voltage+b.voltage)/2, min(a.voltage, b.voltage), max(a.voltage, b.voltage)
	r.Current = (a.current + b.current) / 2
}
