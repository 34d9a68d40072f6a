package attribution

import (
	"math"
	"slices"
)

const (
	// phiStart is the fluctuation φ before any data, and phiLow and phiHigh its bounds: the relative standard deviation of a
	// function's power over 100 ms at constant CPU use, for a function that draws what the mean core draws.
	phiStart, phiLow, phiHigh = 0.8, 0.2, 1.5
	// adaptSpan is the time over which innovations are summed to judge φ, and adaptTime the time constant of its adaptation, s.
	adaptSpan, adaptTime = 5, 300
	// adaptTarget is the ratio of the variance of summed innovations to what the filter expects. It is not 1: what moves
	// between functions does not show in the sum of all, so a filter whose sums are as it says understates the parts. It was
	// chosen for 95 % coverage of 10 s windows on compositions of measured jobs.
	adaptTarget = 0.8
)

// adaptation fits φ to the innovations.
type adaptation struct{ nu, variance, length, seen float64 }

func (a *adaptation) add(f *filter, in innovation, dt float64) {
	a.nu += in.nu
	a.variance += in.variance
	a.length += dt
	if a.length < adaptSpan-slack {
		return
	}
	// Quiet times say nothing of fluctuation.
	if a.variance > 4*f.meter*a.length {
		a.seen += a.length
		ratio := min(sq(a.nu)/a.variance, 9)
		rate := a.length / min(adaptTime, 60+a.seen)
		f.phi2 *= math.Exp(rate * (ratio/adaptTarget - 1))
		f.phi2 = min(phiHigh*phiHigh, max(phiLow*phiLow, f.phi2))
	}
	a.nu, a.variance, a.length = 0, 0, 0
}

// change finds changes of the board that nobody announced, by Page's and Hinkley's cumulative test (E. S. Page, Biometrika
// 41, 1954) on the standardised innovations of seconds.
type change struct{ nu, variance, length, up, down float64 }

const (
	changeDrift, changeLimit, changeClip = 0.75, 12, 5
)

// add says whether the board has changed.
func (c *change) add(in innovation, dt float64) bool {
	c.nu += in.nu
	c.variance += in.variance
	c.length += dt
	if c.length < 1-slack {
		return false
	}
	z := min(changeClip, max(-changeClip, c.nu/math.Sqrt(c.variance)))
	c.nu, c.variance, c.length = 0, 0, 0
	c.up, c.down = max(0, c.up+z-changeDrift), max(0, c.down-z-changeDrift)
	if max(c.up, c.down) <= changeLimit {
		return false
	}
	*c = change{}
	return true
}

// regime is what was known of a board under one setting of governors and limits.
type regime struct {
	x, p []float64 // node-wide state and its covariance
}

// regimes remembers settings, so that a return to one needs no new learning.
type regimes struct {
	known map[string]regime
	now   string
}

// rememberedRegimes bounds the settings that are kept.
const rememberedRegimes = 32

func (r *regimes) enter(f *filter, what string) {
	n := f.iConcave() + 1
	if r.now != "" && (len(r.known) < rememberedRegimes || r.known[r.now].x != nil) {
		old := regime{slices.Clone(f.x[:n]), make([]float64, 0, n*n)}
		for i := range n {
			old.p = append(old.p, f.p[i*f.stride:i*f.stride+n]...)
		}
		r.known[r.now] = old
	}
	r.now = what
	back, ok := r.known[what]
	if !ok {
		f.inflate(0)
		return
	}
	for i := range n {
		f.decouple(i)
	}
	copy(f.x, back.x)
	for i := range n {
		copy(f.p[i*f.stride:], back.p[i*n:(i+1)*n])
	}
}

// forget drops what is stored of the present setting, under which the board has changed.
func (r *regimes) forget() {
	delete(r.known, r.now)
}
