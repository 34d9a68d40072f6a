package attribution

import "math"

const (
	// reversion is the time in which what was learnt of a function fades while it runs, s: directions that the data cannot see
	// go back to the prior instead of drifting.
	reversion = 1800
	// baseWalk and kappaWalk are the drift of base power (W/√s) and of watts per core (relative, 1/√s).
	baseWalk, kappaWalk = 1e-3, 5e-4
	// spreadFunction, spreadDaemon and spreadActive are prior standard deviations relative to watts per core: of a function's
	// deviation, of an always-on daemon's, which nearly coincides with the base, and of what is drawn while active.
	spreadFunction, spreadDaemon, spreadActive = 0.5, 0.15, 0.25
	// grain is the time over which the power of a function at constant CPU use is seen to fluctuate, s.
	grain = 0.1
	// lagPrior and lagWalk are the standard deviation of the lag that alignment leaves (s) and its drift (s/√s).
	lagPrior, lagWalk = 0.03, 3e-4
	// smearPrior and smearWalk are those of the part of an interval's energy that sensors show in the intervals beside it.
	smearPrior, smearWalk = 0.1, 3e-4
	// huber is the innovation, in standard deviations, beyond which a step is taken for an outlier.
	huber = 4
	// maxFull is the number of principals with full covariance.
	maxFull = 32
	// perPrincipal is the number of state variables of a principal with full covariance; see the offsets.
	perPrincipal = 4
	tiny         = 1e-12
)

// Offsets of a principal's state variables.
const (
	offDeviation = iota // W per weighted busy core, from the node's mean
	offActive           // W per request in flight, from the node's mean
	offTotal            // J attributed by all data so far, less what was posted
	offPeriod           // J attributed in this report period
)

// filter estimates, from the energy of short steps, the node's power model and at the same time the energy of each principal.
//
// The state is x = [b, κ_1 … κ_Q, α, γ, λ, ς, (d, a, A, W) of each principal]. In a step of length Δ a principal with c_q weighted
// CPU-seconds on class q, r = Σ c_q/Δ, and n·Δ request-seconds in flight draws
//
//	e = Σ κ_q c_q + d Σ c_q + (α + a) n Δ + γ min(r, 1) Δ + ς m + w,   Var w = φ² θ κ r Δ · grain
//
// and the meter sees b Δ + Σ e - λ (P(end) - P(start)) + noise, where λ is the lag that alignment has left and P the power that
// the model expects. Since A and W integrate e inside the state, one Kalman update corrects the energy that
// was attributed before together with the coefficients it was attributed by, each in proportion to its covariance with what
// was observed: A is at any time the estimate of the principal's whole energy in the light of all data, and its variance
// is in P. That is fixed-point smoothing by state augmentation (B. D. O. Anderson, J. B. Moore, Optimal Filtering, 1979, ch. 7).
type filter struct {
	classes int
	n       int       // state variables in use
	stride  int       // row length of p
	x       []float64 // state
	p       []float64 // covariance, symmetric, n rows of stride
	ph      []float64 // scratch: P Hᵀ/√S
	row     []float64 // scratch: covariance of one principal's energy with the state

	phi2  float64 // φ²
	meter float64 // variance of the energy of one second by the meter's noise, J²/s
	prior struct{ base, kappa float64 }

	// resets counts how often all covariances were given up because rounding had spoilt them.
	resets uint64
}

// index of node-wide state variables.
const (
	iBase  = 0
	iKappa = 1 // the first of classes
)

func (f *filter) iActive() int  { return iKappa + f.classes }
func (f *filter) iConcave() int { return iKappa + f.classes + 1 }
func (f *filter) iLag() int     { return iKappa + f.classes + 2 }
func (f *filter) iSmear() int   { return iKappa + f.classes + 3 }
func (f *filter) iFirst() int   { return iKappa + f.classes + 4 } // of the principals

func newFilter(classes int, base, baseVar, kappa, kappaVar, noise float64) *filter {
	f := &filter{classes: classes, phi2: phiStart * phiStart, meter: noise * noise}
	f.prior.base, f.prior.kappa = base, kappa
	f.grow(f.iFirst())
	f.x[iBase] = base
	f.set(iBase, baseVar)
	for q := range classes {
		f.x[iKappa+q] = kappa
		for r := range classes {
			f.p[(iKappa+q)*f.stride+iKappa+r] = kappaVar // common to all classes
		}
		if classes > 1 {
			f.p[(iKappa+q)*f.stride+iKappa+q] += sq(0.5 * kappa) // and each one's own
		}
	}
	f.set(f.iActive(), sq(spreadActive*kappa))
	f.set(f.iConcave(), sq(spreadActive*kappa))
	f.set(f.iLag(), sq(lagPrior))
	f.set(f.iSmear(), sq(smearPrior))
	return f
}

func sq(v float64) float64 { return v * v }

func (f *filter) set(i int, variance float64) { f.p[i*f.stride+i] = variance }

func (f *filter) variance(i int) float64 { return f.p[i*f.stride+i] }

// grow makes room for n state variables.
func (f *filter) grow(n int) {
	if n <= f.stride {
		f.n = max(f.n, n)
		return
	}
	stride := max(n, min(2*n, f.iFirst()+maxFull*perPrincipal))
	p := make([]float64, stride*stride)
	for i := range f.n {
		copy(p[i*stride:], f.p[i*f.stride:i*f.stride+f.n])
	}
	x := make([]float64, stride)
	copy(x, f.x)
	f.x, f.p, f.n, f.stride = x, p, n, stride
	f.ph, f.row = make([]float64, stride), make([]float64, stride)
}

// place returns the first state index of the i-th principal with full covariance.
func (f *filter) place(i int) int { return f.iFirst() + i*perPrincipal }

// clear makes the state variables of a place independent of all others, with the variances given.
func (f *filter) clear(at int, mean, variance [perPrincipal]float64) {
	for k := range perPrincipal {
		f.x[at+k] = mean[k]
		f.decouple(at + k)
		f.set(at+k, variance[k])
	}
}

// decouple zeroes row and column of a state variable.
func (f *filter) decouple(i int) {
	for j := range f.n {
		f.p[i*f.stride+j], f.p[j*f.stride+i] = 0, 0
	}
}

// scale multiplies a state variable and its covariances.
func (f *filter) scale(i int, a float64) {
	f.x[i] *= a
	row := f.p[i*f.stride : i*f.stride+f.n]
	for j := range row {
		row[j] *= a
		f.p[j*f.stride+i] *= a
	}
}

// load is what one principal did in a step.
type load struct {
	cpu    [MaxClasses]float64 // weighted CPU-seconds by class
	total  float64             // their sum
	active float64             // request-seconds in flight
	knee   float64             // min(r, 1) Δ
	smear  float64             // J that complete smearing would bring in from the intervals beside the step
}

// predict advances the coefficients by dt seconds.
func (f *filter) predict(dt float64) {
	f.p[0] += sq(baseWalk) * dt
	for q := range f.classes {
		i := iKappa + q
		f.p[i*f.stride+i] += sq(kappaWalk*f.x[i]) * dt
	}
	i := f.iLag()
	f.p[i*f.stride+i] += sq(lagWalk) * dt
	i = f.iSmear()
	f.p[i*f.stride+i] += sq(smearWalk) * dt
}

// revert lets the coefficients of a principal that ran for dt seconds fade towards the prior.
func (f *filter) revert(at int, dt, spread float64) {
	a := math.Exp(-dt / reversion)
	k := f.kappa()
	f.scale(at+offDeviation, a)
	f.p[(at+offDeviation)*f.stride+at+offDeviation] += (1 - a*a) * sq(spread*k)
	if f.variance(at+offActive) > 0 {
		f.scale(at+offActive, a)
		f.p[(at+offActive)*f.stride+at+offActive] += (1 - a*a) * sq(spreadActive*k)
	}
}

// kappa is the node's mean watts per weighted busy core over its classes.
func (f *filter) kappa() float64 {
	sum := 0.0
	for q := range f.classes {
		sum += f.x[iKappa+q]
	}
	return max(sum/float64(f.classes), 1e-3)
}

// common is the energy that the node-wide coefficients give to a load, J.
func (f *filter) common(l *load) float64 {
	e := f.x[f.iActive()]*l.active + f.x[f.iConcave()]*l.knee + f.x[f.iSmear()]*l.smear
	for q := range f.classes {
		e += f.x[iKappa+q] * l.cpu[q]
	}
	return e
}

// expected is the energy of a load with deviations d and a, without its fluctuation; at least 2 % of what the mean core draws.
func (f *filter) expected(l *load, d, a float64) float64 {
	return max(f.common(l)+d*l.total+a*l.active, 0.02*f.kappa()*l.total)
}

// fluctuation is Var w of a load with the expected energy e, J².
func (f *filter) fluctuation(e float64) float64 { return f.phi2 * e * f.kappa() * grain }

// integrate adds a load's energy to the principal's totals; noise is the variance of its fluctuation.
func (f *filter) integrate(at int, l *load, noise float64) {
	n, row := f.n, f.row[:f.n]
	clear(row)
	mean := 0.0
	add := func(i int, h float64) {
		if h == 0 {
			return
		}
		mean += h * f.x[i]
		p := f.p[i*f.stride : i*f.stride+n]
		for j := range row {
			row[j] += h * p[j]
		}
	}
	f.each(at, l, add)
	self := noise
	f.each(at, l, func(i int, h float64) { self += h * row[i] })
	for _, t := range [...]int{at + offTotal, at + offPeriod} {
		own := f.p[t*f.stride+t] + 2*row[t] + self
		p := f.p[t*f.stride : t*f.stride+n]
		for j := range row {
			p[j] += row[j]
			f.p[j*f.stride+t] = p[j]
		}
		p[t] = own
		f.x[t] += mean
		row[t] += self // the energy's covariance with the total that now contains it
	}
}

// each calls do with the coefficients of a load.
func (f *filter) each(at int, l *load, do func(i int, h float64)) {
	for q := range f.classes {
		do(iKappa+q, l.cpu[q])
	}
	do(f.iActive(), l.active)
	do(f.iConcave(), l.knee)
	do(f.iSmear(), l.smear)
	do(at+offDeviation, l.total)
	do(at+offActive, l.active)
}

// observation is a step's linear map from state to measured energy.
type observation struct {
	h      []float64 // coefficients of the node-wide state variables
	loads  []placed  // principals with full covariance that ran
	single float64   // variance of what ran and has no full covariance, J²
	noise  float64   // Σ of the fluctuations and of the meter's noise, J²
	mean   float64   // expected energy, J
}

// placed is the load of a principal with full covariance.
type placed struct {
	at    int
	load  *load
	noise float64
}

// innovation is what an update found.
type innovation struct {
	nu       float64 // measured less expected energy, J
	variance float64 // of nu, J²
	used     float64 // the variance that was used for the update, which is larger for an outlier, J²
	gain     float64 // nu over used, 1/J
}

// project leaves P Hᵀ of an observation in ph, without its noise, and returns H P Hᵀ with it.
func (f *filter) project(o *observation, dt float64) float64 {
	n := f.n
	ph := f.ph[:n]
	clear(ph)
	h := o.h
	h[iBase] = dt
	add := func(i int, c float64) {
		if c == 0 {
			return
		}
		p := f.p[i*f.stride : i*f.stride+n]
		for j := range ph {
			ph[j] += c * p[j]
		}
	}
	for i, c := range h {
		add(i, c)
	}
	for _, l := range o.loads {
		add(l.at+offDeviation, l.load.total)
		add(l.at+offActive, l.load.active)
	}
	s := o.noise + o.single
	for i, c := range h {
		s += c * ph[i]
	}
	for _, l := range o.loads {
		s += l.load.total*ph[l.at+offDeviation] + l.load.active*ph[l.at+offActive]
	}
	return s
}

// mend gives up all covariances, and the variances that cannot be: what is left is positive semi-definite again. Measurements
// beyond all reason make it necessary, since what they leave of a variance is only rounding.
func (f *filter) mend() {
	f.resets++
	k := f.kappa()
	for i := range f.n {
		v := f.variance(i)
		if !(v >= 0) || math.IsInf(v, 0) {
			switch off := (i - f.iFirst()) % perPrincipal; {
			case i == iBase:
				v = sq(0.5*f.x[iBase]) + 1e-4
			case i < f.iActive():
				v = sq(0.8 * k)
			case i == f.iLag():
				v = sq(lagPrior)
			case i == f.iSmear():
				v = sq(smearPrior)
			case i < f.iLag() || off == offActive:
				v = sq(spreadActive * k)
			case off == offDeviation:
				v = sq(spreadFunction * k)
			default:
				v = 0
			}
		}
		f.decouple(i)
		f.set(i, v)
	}
}

// update corrects state and covariance by the measured energy of a step of dt seconds.
func (f *filter) update(o *observation, energy, dt float64) innovation {
	s := f.project(o, dt)
	if !(s >= 0.5*(o.noise+o.single)) || math.IsInf(s, 0) {
		f.mend()
		s = f.project(o, dt)
	}
	n, ph := f.n, f.ph[:f.n]
	for _, l := range o.loads {
		ph[l.at+offTotal] += l.noise
		ph[l.at+offPeriod] += l.noise
	}
	in := innovation{nu: energy - o.mean, variance: s}
	if z := math.Abs(in.nu) / math.Sqrt(s); z > huber {
		s *= z / huber
	}
	in.used, in.gain = s, in.nu/s
	root := 1 / math.Sqrt(s)
	for j := range ph {
		f.x[j] += ph[j] * in.gain
		ph[j] *= root
	}
	for i := range n {
		u := ph[i]
		if u == 0 {
			continue
		}
		p := f.p[i*f.stride : i*f.stride+n]
		for j := range p {
			p[j] -= u * ph[j]
		}
		p[i] = max(0, p[i])
	}
	f.x[iBase] = max(0, f.x[iBase])
	f.x[f.iSmear()] = min(1, max(0, f.x[f.iSmear()]))
	for q := range f.classes {
		f.x[iKappa+q] = max(1e-3, f.x[iKappa+q])
	}
	for i := range f.iActive() {
		f.p[i*f.stride+i] = max(tiny, f.p[i*f.stride+i])
	}
	return in
}

// inflate admits that base and watts per core may have changed, by nu watts or more; not by more than tenfold, since a variance
// beyond all others would leave them to rounding.
func (f *filter) inflate(nu float64) {
	k := f.kappa()
	f.p[0] += sq(max(0.3*f.x[iBase], min(math.Abs(nu), 10*(f.x[iBase]+k))))
	for q := range f.classes {
		for r := range f.classes {
			f.p[(iKappa+q)*f.stride+iKappa+r] += sq(0.7 * k)
		}
	}
	for _, i := range [...]int{f.iActive(), f.iConcave()} {
		f.p[i*f.stride+i] += sq(spreadActive * k)
	}
}

// theta returns the estimate and the variance of a principal's watts per weighted busy core of class q.
func (f *filter) theta(at, q int) (watts, variance float64) {
	d, k := at+offDeviation, iKappa+q
	return f.x[k] + f.x[d], f.variance(k) + f.variance(d) + 2*f.p[k*f.stride+d]
}

// correlation of the deviations of two principals. Of two that only their sum is known of it is near -1.
func (f *filter) correlation(a, b int) float64 {
	a, b = a+offDeviation, b+offDeviation
	return f.p[a*f.stride+b] / math.Sqrt(max(tiny, f.variance(a))*max(tiny, f.variance(b)))
}

// move copies the state variables of one place to another.
func (f *filter) move(to, from int) {
	for k := range perPrincipal {
		f.x[to+k] = f.x[from+k]
		for j := range f.n {
			v := f.p[(from+k)*f.stride+j]
			f.p[(to+k)*f.stride+j], f.p[j*f.stride+to+k] = v, v
		}
	}
	for k := range perPrincipal {
		for l := range perPrincipal {
			f.p[(to+k)*f.stride+to+l] = f.p[(from+k)*f.stride+from+l]
		}
	}
}

// shrink forgets the state variables from n on.
func (f *filter) shrink(n int) {
	for i := n; i < f.n; i++ {
		f.decouple(i)
		f.x[i] = 0
	}
	f.n = n
}
