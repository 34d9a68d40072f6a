package align

import (
	"math"
	"time"
)

// The range and the grid on which lags are tried.
const (
	// MinLag and MaxLag bound the lag. Whoever attributes must be able to wait MaxLag for readings.
	MinLag = -1 * time.Second
	MaxLag = 2 * time.Second

	lagStep = 100 * time.Millisecond
	lags    = int((MaxLag-MinLag)/lagStep) + 1
)

const (
	// difference is how far means that are subtracted from each other lie apart, and how long they are: short against drift and
	// background, long against what averaging in the sensor and jiffies blur.
	difference = 400 * time.Millisecond

	blockTime  = 10 * time.Second
	blocks     = 12 // the window is 120 s
	minBlocks  = 3  // for a first decision
	decideTime = 30 * time.Second

	minPeak = 0.4
	// unlikely is how often the spread of noise's correlation, 1/√n, the peak must be: there are some ten lags to be wrong at.
	unlikely = 4
	minRatio = 1.1
	// apart is how far a maximum must be from the peak to be another.
	apart = 200 * time.Millisecond

	smoothing  = 0.2
	sure       = 3                      // standard deviations
	maxChange  = 100 * time.Millisecond // per decision
	slewing    = 10                     // ticks in which Edge follows a change by at most one tick
	nominalStd = 0.25                   // s, of a lag that is only assumed
	floorStd   = 0.005                  // s, what the parabola is wrong by
	// wander is how far a lag may move unseen in an hour, s: the governor alone moved it by 0.05 s on an Odroid-XU3.
	wander = 0.05

	waiting = 128 // edges that wait for readings
	rows    = 17  // edges that differences reach back over, two times 0.4 s at 50 ms
)

// Lag finds the time by which measured power is late against the CPU counters, from sensor averaging, logging and the
// counters' update, by the normalized correlation of differences of power and of weighted busy CPU over the last 120 s.
// Differences, so that base power and drift drop out. Energy is read from a Timeline at each edge plus each lag: lags are finer
// than ticks.
type Lag struct {
	tick    time.Duration
	d       int // difference in ticks
	state   LagState
	std     float64 // s, when accepted
	decided bool    // since the start or the last change of regime
	next    time.Duration
	shift   time.Duration

	queue       [waiting]busyEdge
	queueHead   int
	queued      int
	hist        [rows]row
	filled, now int

	block            [blocks]products
	cur, used        int
	blockEnd, newest time.Duration
}

type busyEdge struct {
	at   time.Duration
	busy float64
}

// row has the totals at one edge: busy CPU at the edge, energy at the edge plus each lag.
type row struct {
	busyEdge
	energy [lags]float64
}

type products struct {
	n, xx  float64
	xy, yy [lags]float64
}

// LagState is what is known of the lag.
type LagState struct {
	// Lag is positive if power is late. It is the nominal one while Accepted is zero.
	Lag time.Duration
	// StdDev is its standard deviation: from the spread over the window's parts when it was accepted, and growing since.
	StdDev time.Duration
	// Peak is the correlation at the last decision's peak, -1 to 1; Ratio that over the next best maximum, +Inf without one.
	Peak, Ratio float64
	// AcceptedAt is the host's time of the last acceptance.
	AcceptedAt time.Duration
	// Accepted and Refused count decisions. A refused one, as under constant or periodic load, leaves the lag as it is.
	Accepted, Refused uint64
}

// NewLag returns an estimator for ticks of the given length, 50 ms or more, that assumes a lag until it has found one.
func NewLag(tick, nominal time.Duration) *Lag {
	tick = max(tick, 50*time.Millisecond)
	nominal = min(max(nominal, MinLag), MaxLag)
	return &Lag{
		tick: tick, d: max(1, int((difference+tick/2)/tick)),
		state: LagState{Lag: nominal}, std: nominalStd, shift: nominal, newest: math.MinInt64,
	}
}

// Tick takes the sum of busy CPU-seconds of the node since any origin, weighted by what they cost if that is known, at the edge
// of a tick. Edges ascend. It looks energy up as far as readings have come, so it may be called before or after they have.
func (l *Lag) Tick(t *Timeline, edge time.Duration, busy float64) {
	if edge <= l.newest {
		return
	}
	l.newest = edge
	most := l.tick / slewing
	l.shift += min(max(l.state.Lag-l.shift, -most), most)
	if l.queued == waiting { // readings have stopped: what waits would be of little use
		l.queued, l.filled = 0, 0
	}
	l.queue[(l.queueHead+l.queued)%waiting] = busyEdge{edge, busy}
	l.queued++
	have, ok := t.Newest()
	for ok && l.queued > 0 && l.queue[l.queueHead].at+MaxLag <= have {
		e := l.queue[l.queueHead]
		l.queueHead = (l.queueHead + 1) % waiting
		l.queued--
		l.take(t, e)
	}
}

// Edge returns where on a Timeline the energy of what ran until edge has been measured: the edge plus the lag. It follows a
// changed lag by at most a tenth of a tick per tick, so that edges ascend and a span is never distorted by more. Ask once per
// tick, right after Tick, and keep the answer: the tick's energy can be told when readings have reached it, at most MaxLag later.
func (l *Lag) Edge(edge time.Duration) time.Duration { return edge + l.shift }

// Settle takes the lag that was found whole, for a caller who has asked for no Edge yet.
func (l *Lag) Settle() { l.shift = l.state.Lag }

// Regime says that a governor or a limit was changed: what was seen before is forgotten, the lag may take one whole step.
func (l *Lag) Regime() {
	l.filled, l.used, l.cur, l.blockEnd = 0, 0, 0, 0
	l.queued = 0
	l.decided = false
	l.std = math.Hypot(l.std, wander)
}

// State returns the lag and what is known of it.
func (l *Lag) State() LagState {
	s := l.state
	std := l.std
	if s.Accepted > 0 {
		age := (l.newest - s.AcceptedAt).Hours()
		std = math.Sqrt(std*std + wander*wander*age)
	}
	s.StdDev = time.Duration(min(std, nominalStd) * float64(time.Second))
	return s
}

func (l *Lag) take(t *Timeline, e busyEdge) {
	if e.at-l.hist[l.now].at > 2*l.tick { // a mean over the time that was missed would be no difference of neighbours
		l.filled = 0
	}
	l.now = (l.now + 1) % rows
	r := &l.hist[l.now]
	r.busyEdge = e
	// Means and differences of an interval that was not measured would be an artefact at every lag.
	if gap, ok := t.sample(e.at+MinLag, lagStep, r.energy[:]); !ok || gap > (MaxLag-MinLag)/50 {
		l.filled = 0
		return
	}
	if l.filled++; l.filled <= 2*l.d {
		return
	}
	l.filled = 2*l.d + 1
	if e.at >= l.blockEnd {
		if l.blockEnd != 0 {
			l.endBlock(e.at)
		}
		l.used = min(l.used+1, blocks)
		l.cur = (l.cur + 1) % blocks
		l.block[l.cur] = products{}
		l.blockEnd = e.at + blockTime
	}
	mid, old := &l.hist[(l.now-l.d+rows)%rows], &l.hist[(l.now-2*l.d+rows)%rows]
	f, g := 1/(r.at-mid.at).Seconds(), 1/(mid.at-old.at).Seconds()
	p := &l.block[l.cur]
	x := (r.busy-mid.busy)*f - (mid.busy-old.busy)*g
	p.n++
	p.xx += x * x
	for i := range r.energy {
		y := (r.energy[i]-mid.energy[i])*f - (mid.energy[i]-old.energy[i])*g
		p.xy[i] += x * y
		p.yy[i] += y * y
	}
}

// endBlock decides whenever 30 s have passed, or a first decision is possible.
func (l *Lag) endBlock(at time.Duration) {
	if l.used < minBlocks || l.decided && at < l.next {
		return
	}
	var all products
	for i := range l.used {
		all.add(&l.block[l.index(i)], 1)
	}
	est, peak, ratio := all.peak()
	l.state.Peak, l.state.Ratio = peak, ratio
	independent := all.n / float64(l.d)
	if math.IsNaN(est) || peak <= max(minPeak, unlikely/math.Sqrt(independent)) || ratio <= minRatio {
		l.state.Refused++
		return
	}
	std := l.jackknife(&all)
	if !l.decided && std > maxChange.Seconds() {
		l.state.Refused++
		return
	}
	change := time.Duration(est*float64(time.Second)) - l.state.Lag
	if l.decided {
		// While the window fills, an estimate contains all before it and replaces them; later it is smoothed, unless the change is
		// more than its own noise.
		if l.used == blocks && math.Abs(change.Seconds()) < sure*math.Hypot(std, floorStd) {
			change = time.Duration(smoothing * float64(change))
		}
		change = min(max(change, -maxChange), maxChange)
	}
	l.state.Lag += change
	l.std = math.Hypot(math.Hypot(std, floorStd), (time.Duration(est*float64(time.Second)) - l.state.Lag).Seconds())
	l.state.Accepted++
	l.state.AcceptedAt = at
	l.decided = true
	l.next = at + decideTime - blockTime/2 // decisions fall on the ends of blocks, give or take a tick
}

func (l *Lag) index(i int) int { return (l.cur - i + blocks) % blocks }

// jackknife returns the standard deviation of the estimate from how it changes when each block is left out (Tukey 1958).
func (l *Lag) jackknife(all *products) float64 {
	var s, ss float64
	for i := range l.used {
		part := *all
		part.add(&l.block[l.index(i)], -1)
		est, _, _ := part.peak()
		if math.IsNaN(est) {
			return nominalStd
		}
		s += est
		ss += est * est
	}
	n := float64(l.used)
	return math.Sqrt(max(0, ss-s*s/n) * (n - 1) / n)
}

func (p *products) add(q *products, sign float64) {
	p.n += sign * q.n
	p.xx += sign * q.xx
	for i := range p.xy {
		p.xy[i] += sign * q.xy[i]
		p.yy[i] += sign * q.yy[i]
	}
}

// peak returns the lag of the highest correlation in seconds, NaN if that is at an end of the range, the correlation, and its
// ratio to the next best local maximum.
func (p *products) peak() (lag, peak, ratio float64) {
	var c [lags]float64
	best := 0
	for i := range c {
		if n := p.xx * p.yy[i]; n > 0 {
			c[i] = p.xy[i] / math.Sqrt(n)
		}
		if c[i] > c[best] {
			best = i
		}
	}
	second := 0.0
	for i := range c { // an end that is higher than its neighbour is the flank of another peak
		//nolint:gosec // the neighbours are looked at only where there are some
		if (i == 0 || c[i] >= c[i-1]) && (i == lags-1 || c[i] > c[i+1]) && time.Duration(max(i-best, best-i))*lagStep > apart {
			second = max(second, c[i])
		}
	}
	lag, peak, ratio = math.NaN(), c[best], math.Inf(1)
	if second > 0 {
		ratio = peak / second
	}
	if best == 0 || best == lags-1 {
		return lag, peak, ratio
	}
	// The parabola through the peak and its neighbours.
	a, b := c[best-1], c[best+1] //nolint:gosec // the ends were dealt with above
	shift := 0.5 * (a - b) / (a - 2*peak + b)
	return MinLag.Seconds() + (float64(best)+shift)*lagStep.Seconds(), peak, ratio
}
