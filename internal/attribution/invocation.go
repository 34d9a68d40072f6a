package attribution

import (
	"math"
	"time"
)

const (
	// cycleLingers is how long a cycle goes on without any request: counts of requests are told some time after their energy was used.
	// In traffic that never pauses for so long, a cycle of longCycle is closed at the next instant without requests; what its
	// edges lose or gain is little against it. After longestCycle it is closed anyway.
	cycleLingers = 2 * time.Second
	longCycle    = 10 * time.Second
	longestCycle = 2 * time.Minute
	// ahead is the number of ticks before the first that knows of a request whose energy is taken for its.
	ahead = 3
	// leastCycles and leastInvocations are the numbers below which no interval is given.
	leastCycles, leastInvocations = 5, 10
)

// Invocations estimates the mean energy of one invocation of a function from its energy and its counts of requests, by
// regeneration cycles: from one instant without requests in flight to the next, energy and completions belong to each other
// exactly (M. A. Crane, D. L. Iglehart, Simulating Stable Stochastic Systems, J. ACM 21, 1974). Where no such instant comes
// in time, a request in flight counts half at each end.
type Invocations struct {
	count  float64 // completed
	energy float64 // J, of closed cycles
	served float64 // invocations, of closed cycles

	n          float64 // cycles
	yy, yz, zz float64 // sums of squares and products of energy and invocations

	open   bool // a cycle is
	cycle  struct{ energy, completed, first float64 }
	length time.Duration  // of the cycle
	quiet  time.Duration  // since there was a request
	before [ahead]float64 // J, of the last ticks without any
	last   float64        // requests in flight at the end

	overhead float64 // J, with nothing in flight and nothing completed
}

// Add takes in what a function used in a tick of the length given: its energy in J, the requests completed in it, and those in
// flight at its end. It says whether a cycle closed, with its energy and its number of invocations.
func (v *Invocations) Add(length time.Duration, joules, completed, inFlight float64) (closed bool, energy, invocations float64) {
	v.count += completed
	c := &v.cycle
	idle := completed == 0 && inFlight == 0 && v.last == 0
	if !v.open {
		if idle {
			v.overhead += v.before[0] // of a warm pod that nobody asked anything
			copy(v.before[:], v.before[1:])
			v.before[ahead-1] = joules
			return false, 0, 0
		}
		v.open, c.first = true, v.last
		for _, e := range v.before {
			c.energy += e
		}
		v.before = [ahead]float64{}
	}
	c.energy += joules
	c.completed += completed
	v.length += length
	v.quiet += length
	if !idle {
		v.quiet = 0
	}
	v.last = inFlight
	if v.length < longestCycle && (inFlight > 0 || v.quiet < cycleLingers && v.length < longCycle) {
		return false, 0, 0
	}
	served := c.completed + (inFlight-c.first)/2
	if served <= 0 && v.length < longestCycle {
		return false, 0, 0
	}
	energy, invocations = c.energy, served
	v.open, v.length, v.quiet = false, 0, 0
	c.energy, c.completed = 0, 0
	if served <= 0 {
		v.overhead += energy // requests that were never seen to complete
		return false, 0, 0
	}
	v.energy += energy
	v.served += served
	v.n++
	v.yy += energy * energy
	v.yz += energy * served
	v.zz += served * served
	return true, energy, invocations
}

// Count returns the number of completed invocations.
func (v *Invocations) Count() float64 { return v.count }

// Overhead returns the energy of times without any request, J.
func (v *Invocations) Overhead() float64 { return v.overhead }

// Mean returns the mean energy of one invocation, J, and its 95 % interval. stdDev is the standard deviation of the
// function's whole energy, total, both J, by the model. ok is false before the first cycle; interval is false where the
// data are too few for one, and low and high are then the mean.
func (v *Invocations) Mean(total, stdDev float64) (mean, low, high float64, interval, ok bool) {
	if v.served <= 0 {
		return 0, 0, 0, false, false
	}
	mean = v.energy / v.served
	if v.n < leastCycles || v.served < leastInvocations {
		return mean, mean, mean, false, true
	}
	s2 := max(0, v.yy-2*mean*v.yz+mean*mean*v.zz) / (v.n - 1)
	perCycle := v.served / v.n
	variance := s2 / (v.n * perCycle * perCycle)
	if total > 0 {
		variance += sq(mean * stdDev / total)
	}
	half := student95(v.n-1) * math.Sqrt(variance)
	return mean, max(0, mean-half), mean + half, true, true
}

// student95 is the 97.5 % quantile of Student's t with n degrees of freedom, by the Cornish-Fisher expansion (M. Abramowitz,
// I. A. Stegun, Handbook of Mathematical Functions, 1964, 26.7.5); within 0.5 % from 4 degrees on.
func student95(n float64) float64 {
	const x = 1.959964
	x3, x5, x7, x9 := math.Pow(x, 3), math.Pow(x, 5), math.Pow(x, 7), math.Pow(x, 9)
	return x + (x3+x)/(4*n) + (5*x5+16*x3+3*x)/(96*n*n) + (3*x7+19*x5+17*x3-15*x)/(384*n*n*n) +
		(79*x9+776*x7+1482*x5-1920*x3-945*x)/(92160*n*n*n*n)
}
