package attribution

import (
	"math"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

const (
	// shortestStep is the shortest time whose energy is learnt from, s: CPU time comes in scheduler ticks of up to 10 ms.
	shortestStep = 0.2
	// tickGrid is what ticks end at multiples of, or at the first end of an interval thereafter.
	tickGrid = time.Second
	// longestInterval is the longest time that is taken for one interval, s.
	longestInterval = 10
	// settling is the time in which an account is brought to what later data say of its past, s.
	settling = 60
	// slack is what the length of a step may miss by, s.
	slack = 1e-3
	// runs is the CPU use from which a workload counts as running where nobody knows its requests, cores, and lingers the time
	// for which it goes on to count, s.
	runs, lingers = 0.05, 0.2
	// mostCores, mostWeight and mostInFlight bound what is believed of an interval where the board says nothing: beyond them the
	// arithmetic would suffer before anyone noticed.
	mostCores, mostWeight, mostInFlight = 4096, 100, 1e5
	// reviewing is the time between two choices of the principals with full covariance, s.
	reviewing = 60
	// remembered is the number of principals without workloads that are kept for their return.
	remembered = 256
)

// CHK is the Conserving Hierarchical Kalman estimator. It learns base power, watts per busy core of each class and each
// function's deviation from them by a Kalman filter on short steps, and carries every function's energy in the filter's
// state (see filter), so that splits are corrected as the coefficients become known; what is left over of the measured
// energy is the base's. It allocates nothing per interval once all workloads have entered.
type CHK struct {
	// Period is the time between two reports, a multiple of a second; it may be set before the first interval.
	Period time.Duration

	board   Board
	classes int
	f       *filter // nil before the first interval

	principals []*principal
	byFunction map[function]int
	members    []member
	free       []Slot
	places     []int // principal of each place of the filter

	step struct {
		length, energy float64
		active         []int   // principals with a load
		from           float64 // W, expected at the step's start
		follows        bool    // another step, so that from is known
		last           float64 // W, expected in its last interval
		begin, end     uint32  // numbers of its first and last intervals
	}
	number uint32 // of the newest interval
	obs    observation

	span struct {
		start, end time.Duration
		length     float64
		energy     energy.Energy // measured, with debts
		rejected   float64       // J, to the base
		started    bool
	}
	last time.Duration // end of the last interval
	debt energy.Energy // of negative energy
	base float64       // carry of the base's share

	period struct {
		start  time.Duration
		length float64
	}
	review  float64 // s until the next
	adapt   adaptation
	change  change
	pairs   pairs
	regimes regimes
	model   Model

	// Scratch of close.
	parts  []share
	owners []owner
	order  []int
	tick   Tick
	report Report
}

// function names a function.
type function struct{ namespace, name string }

// principal is what has one coefficient: all workloads of a function, their cold starts, or one other workload.
type principal struct {
	function
	cold, daemon bool
	spread       float64 // prior standard deviation of the deviation, relative
	place        int     // of the filter; -1 for none

	d, variance float64 // deviation, where there is no place
	load        load    // of the step
	running     bool    // has a load
	noise       float64 // J², variance of its fluctuation in the step, where there is no place
	recently    [8]seconds

	members int     // workloads that may still have a share
	mean    float64 // exponential mean of its energy, J
	seconds float64 // in which it ran with more than runs
	seen    time.Duration

	tick   float64 // J, of the tick; with a place, from the filter when the tick closes
	posted float64 // J, the part of the period's energy that is posted
	owed   float64 // J, left from a place it had
	weight float64 // Σ of its members' in this tick
	recent float64 // and in the last one in which it ran

	given struct{ period, total, fluctuation, variance, cpu, confused, confusedTotal float64 } // J, J²; core-seconds
	total float64                                                                              // J², where there is no place
}

// seconds is what a principal used in one interval.
type seconds struct {
	number uint32
	cpu    float64 // weighted CPU-seconds
	active float64 // part of the interval in which requests were in flight
}

// note adds to what the principal used in an interval.
func (p *principal) note(number uint32, l *load, length float64) {
	s := &p.recently[number%uint32(len(p.recently))]
	if s.number != number {
		*s = seconds{number: number}
	}
	s.cpu += l.total
	s.active = min(1, s.active+l.active/length)
}

// within is the part of an interval from which a principal counts as active in all of it. Smearing beyond the ends of runs is left to
// the base: where exactly they are, activity does not tell.
const within = 0.9

// beside returns the CPU-seconds that complete smearing brings from an interval into the one beside it: a third of what they differ
// by, if the principal was active in both.
func (p *principal) beside(from, to uint32) float64 {
	a, b := &p.recently[from%uint32(len(p.recently))], &p.recently[to%uint32(len(p.recently))]
	if a.number != from || b.number != to || a.active < within || b.active < within {
		return 0
	}
	return (a.cpu - b.cpu) / 3
}

// smeared returns the energy that complete smearing would bring a principal into the step, J. What it brings in on one side has
// gone from the step beside, so that it changes no sum.
func (c *CHK) smeared(p *principal) float64 {
	if p.daemon || p.place < 0 {
		return 0
	}
	cpu := p.beside(c.step.begin-1, c.step.begin) + p.beside(c.step.end+1, c.step.end)
	return cpu * max(c.f.kappa()+c.deviation(p), 0)
}

// member is a workload's slot.
type member struct {
	used, leaving, platform bool
	id                      workload.ID
	principal, coldOne      int // coldOne is -1 until there was a cold start
	weight, coldWeight      float64
	recent, coldRecent      float64
	carry, coldCarry        float64
	lingering               float64 // s
	idle                    float64 // s since it last ran
	period, total           float64 // J posted, with cold starts
	coldPeriod              float64 // and that of cold starts alone
	variance                float64 // J², of the total
	usual                   usual
}

// owner says whose a part of a tick is.
type owner struct {
	slot Slot
	cold bool
}

// New returns the estimator that Wattlet uses.
func New(b Board) *CHK {
	c := &CHK{Period: ReportPeriod, board: b, byFunction: map[function]int{}, review: reviewing, regimes: regimes{known: map[string]regime{}}}
	for q, n := range b.Cores {
		if n > 0 {
			c.classes = q + 1
		}
	}
	c.classes = max(1, c.classes)
	c.model.Rejected = map[string]uint64{"cpu": 0, "length": 0, "weight": 0}
	return c
}

// Name implements Estimator.
func (*CHK) Name() string { return "chk" }

// Enter implements Estimator.
func (c *CHK) Enter(w workload.Workload) Slot {
	var s Slot
	if n := len(c.free); n > 0 {
		s, c.free = c.free[n-1], c.free[:n-1]
	} else {
		s = Slot(len(c.members))
		c.members = append(c.members, member{})
	}
	m := &c.members[s]
	*m = member{used: true, id: w.ID, coldOne: -1, platform: w.Kind == workload.System && runsContainers(w.Name)}
	if w.Kind == workload.Function {
		m.principal = c.ofFunction(function{w.Namespace, w.Function}, false)
	} else {
		p := &principal{daemon: w.Kind == workload.System || w.Kind == workload.Agent, place: -1, spread: spreadFunction}
		if p.daemon {
			p.spread = spreadDaemon
		}
		m.principal = c.addPrincipal(p)
	}
	c.principals[m.principal].members++
	c.parts = slices.Grow(c.parts, 2*len(c.members)+1-len(c.parts))
	c.owners = slices.Grow(c.owners, 2*len(c.members)+1-len(c.owners))
	c.order = slices.Grow(c.order, 2*len(c.members)+1-len(c.order))[:0]
	c.tick.Shares = slices.Grow(c.tick.Shares, len(c.members)-len(c.tick.Shares))
	return s
}

func (c *CHK) ofFunction(name function, cold bool) int {
	key := name
	if cold {
		key.name += "\x00cold"
	}
	i, ok := c.byFunction[key]
	if !ok {
		i = c.addPrincipal(&principal{function: name, cold: cold, place: -1, spread: spreadFunction})
		c.byFunction[key] = i
	}
	return i
}

// addPrincipal puts p where there is room.
func (c *CHK) addPrincipal(p *principal) int {
	i := slices.Index(c.principals, nil)
	if i < 0 {
		i = len(c.principals)
		c.principals = append(c.principals, p)
	} else {
		c.principals[i] = p
	}
	if c.f != nil {
		c.settle(i)
	}
	return i
}

// settle gives a new principal its prior and, if one can be had, a place with full covariance.
func (c *CHK) settle(i int) {
	p := c.principals[i]
	p.variance = sq(p.spread * c.f.kappa())
	switch {
	case len(c.places) < maxFull:
		c.places = append(c.places, i)
		c.f.grow(c.f.place(len(c.places)))
		c.enterPlace(i, len(c.places)-1)
	case !p.daemon:
		// A function is worth a daemon's place, of which the smallest is given up.
		small := -1
		for at, j := range c.places {
			if q := c.principals[j]; q.daemon && (small < 0 || q.mean < c.principals[c.places[small]].mean) {
				small = at
			}
		}
		if small >= 0 {
			c.leavePlace(c.places[small])
			c.enterPlace(i, small)
		}
	}
}

func (c *CHK) enterPlace(i, place int) {
	p := c.principals[i]
	c.places[place], p.place = i, place
	active := 0.0
	if !p.daemon {
		active = sq(spreadActive * c.f.kappa())
	}
	c.f.clear(c.f.place(place), [perPrincipal]float64{p.d, 0, p.owed, p.given.period},
		[perPrincipal]float64{p.variance, active, p.total, p.given.variance})
	p.posted, p.owed = p.given.period, 0
	c.pairs.forget(place)
}

// leavePlace keeps what is known of a principal outside the filter.
func (c *CHK) leavePlace(i int) {
	p := c.principals[i]
	at := c.f.place(p.place)
	p.d, p.variance = c.f.x[at+offDeviation], c.f.variance(at+offDeviation)
	p.owed, p.total = c.f.x[at+offTotal], max(0, c.f.variance(at+offTotal))
	p.given.variance = max(0, c.f.variance(at+offPeriod))
	p.place = -1
}

// Leave implements Estimator.
func (c *CHK) Leave(s Slot) { c.members[s].leaving = true }

// start makes the filter from the first interval, whose power stands for the base where the board is not known.
func (c *CHK) start(power, busy float64) {
	cores := 0
	for _, n := range c.board.Cores {
		cores += n
	}
	kappa := 1.0
	if c.board.Peak > c.board.Idle && c.board.Idle > 0 && cores > 0 {
		kappa = (c.board.Peak - c.board.Idle) / float64(cores)
	}
	base, sd := c.board.Idle, 0.3*c.board.Idle
	if base <= 0 {
		base = max(power-kappa*busy, 0.3*power, 0.01)
		sd = 0.5 * base
	}
	noise := c.board.Noise
	if noise <= 0 {
		noise = noiseUnknown
	}
	c.f = newFilter(c.classes, base, sq(sd)+1e-4, kappa, sq(0.8*kappa), noise)
	c.obs.h = make([]float64, c.f.iFirst())
	for i, p := range c.principals {
		if p != nil {
			c.settle(i)
		}
	}
}

// noiseUnknown is the noise of a meter that does not tell, W over one second.
const noiseUnknown = 0.01

// Step implements Estimator.
func (c *CHK) Step(in *Interval, emit func(*Tick)) {
	length := (in.End - in.Start).Seconds()
	why := c.unfit(in, length)
	if c.span.started && (in.Start != c.span.end || why != "") {
		c.learn(c.step.last)
		c.close(emit, false) // what lies between was not measured
		c.step.follows = false
		c.number++ // so that nothing is beside it
	}
	c.number++
	next := 0.0
	if why == "" {
		if c.f == nil {
			busy := 0.0
			for i := range in.Uses {
				busy += in.Uses[i].Total()
			}
			c.start(in.Energy.Joules()/length, busy/length)
		}
		next = c.expect(in) / length
		if c.step.length >= shortestStep-slack || c.full() {
			c.learn((c.step.last + next) / 2)
		}
	}
	if c.full() {
		c.close(emit, false)
	}
	if !c.span.started {
		c.span.start, c.span.started = in.Start, true
		if c.last == 0 && c.period.length == 0 {
			c.period.start = in.Start
		}
	}
	if why != "" {
		c.model.Rejected[why]++
		c.span.rejected += in.Energy.Joules()
	} else {
		if c.step.length == 0 {
			c.step.begin = c.number
		}
		c.step.end = c.number
		c.take(in, length)
		c.step.last = next
		if !c.step.follows {
			c.step.from, c.step.follows = next, true
		}
	}
	c.span.energy += in.Energy
	c.span.end, c.last = in.End, in.End
	c.span.length += max(0, length)
}

// full says whether the span has reached the grid on which ticks end.
func (c *CHK) full() bool {
	return c.span.started && c.span.end/tickGrid != c.span.start/tickGrid
}

// unfit says why nothing can be learnt from an interval; empty if it can.
func (c *CHK) unfit(in *Interval, length float64) string {
	switch {
	case length <= 0 || length > longestInterval:
		return "length"
	}
	busy := 0.0
	for i := range in.Uses {
		u := &in.Uses[i]
		if !(u.Unclassed >= 0 && slices.Min(u.CPU[:]) >= 0) { // also NaN
			return "cpu"
		}
		busy += u.Total()
	}
	cores := 0
	for _, n := range c.board.Cores {
		cores += n
	}
	if cores == 0 {
		cores = mostCores
	}
	// A scheduler tick per core may be counted late.
	if busy > (1.2*length+0.02)*float64(cores) {
		return "cpu"
	}
	for q := range c.classes {
		if w := in.Weight[q]; !(w > 0 && w <= mostWeight) {
			return "weight"
		}
	}
	return ""
}

// mix returns the weighted time by class of an unclassed second: as that of the whole node.
func (c *CHK) mix(in *Interval) (mix [MaxClasses]float64) {
	node := 0.0
	for q := range c.classes {
		node += in.Node[q]
	}
	if !(slices.Min(in.Node[:]) >= 0) || math.IsInf(node, 0) {
		node = 0 // it says nothing
	}
	for q := range c.classes {
		switch {
		case node > 0:
			mix[q] = in.Weight[q] * in.Node[q] / node
		default:
			mix[q] = in.Weight[q] / float64(c.classes)
		}
	}
	return mix
}

// weigh returns a use's CPU time by class.
func (c *CHK) weigh(in *Interval, u *Use, mix *[MaxClasses]float64) (l load) {
	for q := range c.classes {
		l.cpu[q] = in.Weight[q]*u.CPU[q] + mix[q]*u.Unclassed
		l.total += l.cpu[q]
	}
	return l
}

// expect returns the energy above base that the model expects, J.
func (c *CHK) expect(in *Interval) float64 {
	mix := c.mix(in)
	sum := 0.0
	for i := range in.Uses {
		u := &in.Uses[i]
		m := &c.members[u.Slot]
		p := c.principals[m.principal]
		l := c.weigh(in, u, &mix)
		if !p.daemon {
			l.active, _ = m.activity(u, (in.End - in.Start).Seconds())
			l.knee = min(l.total, (in.End - in.Start).Seconds())
		}
		if l.total > 0 || l.active > 0 {
			p.note(c.number, &l, (in.End - in.Start).Seconds())
			sum += c.f.expected(&l, c.deviation(p), c.activeDeviation(p))
		}
	}
	return sum
}

// take adds an interval's loads to the step.
func (c *CHK) take(in *Interval, length float64) {
	mix := c.mix(in)
	for i := range in.Uses {
		u := &in.Uses[i]
		m := &c.members[u.Slot]
		at := m.principal
		if u.Cold {
			if m.coldOne < 0 && c.principals[at].name != "" {
				m.coldOne = c.ofFunction(c.principals[at].function, true)
				c.principals[m.coldOne].members++
			}
			if m.coldOne >= 0 {
				at = m.coldOne
			}
		}
		p := c.principals[at]
		l := c.weigh(in, u, &mix)
		if !p.daemon {
			l.active, m.lingering = m.activity(u, length)
			l.knee = min(l.total, length)
		}
		if l.total == 0 && l.active == 0 {
			continue
		}
		m.idle = 0
		w := c.f.expected(&l, c.deviation(p), c.activeDeviation(p))
		if at == m.coldOne {
			m.coldWeight += w
		} else {
			m.weight += w
		}
		p.weight += w
		if !p.running {
			p.running, p.load = true, load{}
			c.step.active = append(c.step.active, at)
		}
		for q := range c.classes {
			p.load.cpu[q] += l.cpu[q]
		}
		p.load.total += l.total
		p.load.active += l.active
		p.seen = in.End
		p.given.cpu += l.total
		if l.total > runs*length {
			p.seconds += length
		}
	}
	c.step.length += length
	c.step.energy += in.Energy.Joules()
}

// activity returns the request-seconds in flight and how long the workload goes on to count as running after the interval; where
// nobody knows, one request is in flight while it runs.
func (m *member) activity(u *Use, length float64) (active, lingering float64) {
	if u.InFlight >= 0 && u.InFlight <= mostInFlight {
		return u.InFlight * length, m.lingering
	}
	if u.Total() > runs*length {
		return length, lingers
	}
	on := min(m.lingering, length)
	return on, m.lingering - on
}

func (c *CHK) deviation(p *principal) float64 {
	if p.place < 0 {
		return p.d
	}
	return c.f.x[c.f.place(p.place)+offDeviation]
}

func (c *CHK) activeDeviation(p *principal) float64 {
	if p.place < 0 {
		return 0
	}
	return c.f.x[c.f.place(p.place)+offActive]
}

// learn updates the filter with the step, at whose end the power to is expected.
func (c *CHK) learn(to float64) {
	dt := c.step.length
	if dt == 0 {
		return
	}
	f, o := c.f, &c.obs
	slices.Sort(c.step.active)
	f.predict(dt)
	c.pairs.advance(dt)
	clear(o.h)
	o.loads, o.single, o.noise, o.mean = o.loads[:0], 0, f.meter*dt, f.x[iBase]*dt
	for _, i := range c.step.active {
		p := c.principals[i]
		l := &p.load
		if !p.daemon {
			l.knee = min(l.total, dt)
		}
		for q := range c.classes {
			o.h[iKappa+q] += l.cpu[q]
		}
		o.h[f.iActive()] += l.active
		o.h[f.iConcave()] += l.knee
		l.smear = c.smeared(p)
		o.h[f.iSmear()] += l.smear
		if p.place >= 0 {
			at := f.place(p.place)
			f.revert(at, dt, p.spread)
			d, a := f.x[at+offDeviation], f.x[at+offActive]
			noise := f.fluctuation(f.expected(l, d, a))
			o.loads = append(o.loads, placed{at, l, noise})
			o.noise += noise
			o.mean += f.common(l) + d*l.total + a*l.active
			p.given.fluctuation += noise
			f.integrate(at, l, noise)
			if l.active > 0 {
				c.pairs.run(p.place, len(c.places))
			}
		} else {
			fade := math.Exp(-dt / reversion)
			p.d *= fade
			p.variance = fade*fade*p.variance + (1-fade*fade)*sq(p.spread*f.kappa())
			e := f.common(l) + p.d*l.total
			p.noise = f.fluctuation(f.expected(l, p.d, 0))
			o.single += p.noise + sq(l.total)*p.variance
			o.mean += e
			p.tick += e
			p.given.fluctuation += p.noise
		}
	}
	o.h[f.iLag()] = c.step.from - to
	o.mean += o.h[f.iLag()] * f.x[f.iLag()]
	c.step.from = to
	in := f.update(o, c.step.energy, dt)
	for _, i := range c.step.active {
		p := c.principals[i]
		p.running = false
		if p.place >= 0 {
			continue
		}
		v := sq(p.load.total)*p.variance + p.noise
		p.tick += v * in.gain
		p.given.variance += p.noise * (1 - p.noise/in.used)
		p.d += p.load.total * p.variance * in.gain
		p.variance = max(tiny, p.variance-sq(p.load.total*p.variance)/in.used)
	}
	c.step.active = c.step.active[:0]
	c.step.length, c.step.energy = 0, 0
	c.model.Innovation = in.nu / math.Sqrt(in.variance)
	c.adapt.add(f, in, dt)
	if c.change.add(in, dt) {
		f.inflate(in.nu / dt)
		c.model.Changes++
		c.model.LastChange = c.last
		c.regimes.forget()
	}
}

// Regime implements Estimator.
func (c *CHK) Regime(what string) {
	switch {
	case what == c.regimes.now:
		return
	case c.f == nil:
		c.regimes.now = what
		return
	}
	c.learn(c.step.last)
	c.regimes.enter(c.f, what)
	c.change = change{}
}

// Flush implements Estimator.
func (c *CHK) Flush(emit func(*Tick)) {
	if c.span.started {
		c.learn(c.step.last)
		c.close(emit, true)
	}
}

// Model implements Estimator.
func (c *CHK) Model() Model {
	m := c.model
	if f := c.f; f != nil {
		m.Base, m.BaseStdDev = f.x[iBase], math.Sqrt(f.variance(iBase))
		m.Smear = f.x[f.iSmear()]
		m.Lag, m.LagStdDev = f.x[f.iLag()], math.Sqrt(f.variance(f.iLag()))
		m.WattsPerCore, m.WattsPerCoreStdDev = f.kappa(), math.Sqrt(f.variance(iKappa))
	}
	return m
}
