package metersim

import (
	"math"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// Load is what a board draws, as a pure function of true time since power-on.
type Load interface {
	// Energy is the exact integral of the power from one instant to another, in joules; its sign turns if to is before from.
	Energy(from, to time.Duration) float64
	// Power is the power at an instant, in watts.
	Power(at time.Duration) float64
}

// joules is the energy of p held for d. The product of microwatts and nanoseconds is in femtojoules.
func joules(p energy.Power, d time.Duration) float64 { return float64(p) * float64(d) / 1e15 }

// split says how many whole periods lie before t and where in its period t is. Integers, because after a year a float's
// phase of a 50 ms period would be off by microseconds.
func split(t, period time.Duration) (n int64, phase time.Duration) {
	n, phase = int64(t/period), t%period
	if phase < 0 {
		n, phase = n-1, phase+period
	}
	return n, phase
}

// Constant returns a load that always draws p.
func Constant(p energy.Power) Load { return constant(p) }

type constant energy.Power

func (c constant) Energy(from, to time.Duration) float64 { return joules(energy.Power(c), to-from) }
func (c constant) Power(time.Duration) float64           { return energy.Power(c).Watts() }

// Square returns a load that draws high for the first part of each period, duty of it (0 to 1), and low for the rest. The
// period must be positive.
func Square(low, high energy.Power, period time.Duration, duty float64) Load {
	return square{low, high, period, time.Duration(math.Round(duty * float64(period)))}
}

type square struct {
	low, high    energy.Power
	period, duty time.Duration
}

func (s square) Energy(from, to time.Duration) float64 {
	n0, ph0 := split(from, s.period)
	n1, ph1 := split(to, s.period)
	on := time.Duration(n1-n0)*s.duty + min(ph1, s.duty) - min(ph0, s.duty)
	return joules(s.high, on) + joules(s.low, to-from-on)
}

func (s square) Power(at time.Duration) float64 {
	if _, phase := split(at, s.period); phase < s.duty {
		return s.high.Watts()
	}
	return s.low.Watts()
}

// Sine returns a load that swings by amplitude around mean, beginning upwards. The period must be positive.
func Sine(mean, amplitude energy.Power, period time.Duration) Load {
	return sine{mean, amplitude, period}
}

type sine struct {
	mean, amplitude energy.Power
	period          time.Duration
}

func (s sine) angle(t time.Duration) float64 {
	_, phase := split(t, s.period)
	return 2 * math.Pi * float64(phase) / float64(s.period)
}

func (s sine) Energy(from, to time.Duration) float64 {
	a, b := s.angle(from), s.angle(to)
	// cos a - cos b as a product keeps its digits where a and b are close.
	return joules(s.mean, to-from) + joules(s.amplitude, s.period)/math.Pi*math.Sin((a+b)/2)*math.Sin((b-a)/2)
}

func (s sine) Power(at time.Duration) float64 {
	return s.mean.Watts() + s.amplitude.Watts()*math.Sin(s.angle(at))
}

// Ramp returns a load that goes evenly from low to high in each period and back at once. The period must be positive.
func Ramp(low, high energy.Power, period time.Duration) Load { return ramp{low, high, period} }

type ramp struct {
	low, high energy.Power
	period    time.Duration
}

func (r ramp) Energy(from, to time.Duration) float64 {
	n0, ph0 := split(from, r.period)
	n1, ph1 := split(to, r.period)
	// The rise adds (high-low)·phase²/2T in a period; the difference of squares as a product keeps its digits.
	rise := float64(n1-n0) + float64(ph1-ph0)/float64(r.period)*((float64(ph1)+float64(ph0))/float64(r.period))
	return joules(r.low, to-from) + joules(r.high-r.low, r.period)/2*rise
}

func (r ramp) Power(at time.Duration) float64 {
	_, phase := split(at, r.period)
	return r.low.Watts() + (r.high-r.low).Watts()*float64(phase)/float64(r.period)
}

// Sum returns a load that draws what all the loads draw together.
func Sum(loads ...Load) Load { return sum(loads) }

type sum []Load

func (s sum) Energy(from, to time.Duration) float64 {
	var e float64
	for _, l := range s {
		e += l.Energy(from, to)
	}
	return e
}

func (s sum) Power(at time.Duration) float64 {
	var p float64
	for _, l := range s {
		p += l.Power(at)
	}
	return p
}
