package attribution

import (
	"cmp"
	"math"
	"slices"
)

// close splits the span's energy and emits it, with a report if one is due or it is the last.
func (c *CHK) close(emit func(*Tick), last bool) {
	t := &c.tick
	t.Start, t.End, t.Energy = c.span.start, c.span.end, c.span.energy+c.debt
	c.debt = 0
	if t.Energy < 0 {
		c.debt, t.Energy = t.Energy, 0
	}
	length := c.span.length
	if c.f != nil {
		c.divide(t.Energy.Joules(), length)
	} else {
		c.parts, c.owners = append(c.parts[:0], share{part: t.Energy.Joules(), carry: &c.base}), append(c.owners[:0], owner{})
	}
	c.order = slices.Grow(c.order[:0], len(c.parts))
	apportion(t.Energy, c.parts, c.order[:len(c.parts)])
	t.Base, t.Shares, t.Left = c.parts[0].units, t.Shares[:0], t.Left[:0]
	for i, p := range c.parts[1:] {
		o := c.owners[i+1]
		if p.units == 0 {
			continue
		}
		n := len(t.Shares)
		if n == 0 || t.Shares[n-1].Slot != o.slot {
			t.Shares = append(t.Shares, Share{Slot: o.slot})
			n++
		}
		m := &c.members[o.slot]
		if o.cold {
			t.Shares[n-1].ColdStart += p.units
			m.coldPeriod += p.units.Joules()
		} else {
			t.Shares[n-1].Energy += p.units
		}
		m.period += p.units.Joules()
	}
	c.period.length += length
	c.span.length, c.span.energy, c.span.rejected, c.span.started = 0, 0, 0, false
	t.Report = nil
	due := last || t.End/c.Period != c.period.start/c.Period
	if due {
		t.Report = c.makeReport()
	}
	c.leave(length, due)
	if c.f != nil {
		if c.review -= length; c.review <= 0 {
			c.review = reviewing
			c.pairs.fade()
			c.choose()
		}
	}
	emit(t)
}

// divide fills parts and owners: what the filter says of the span, so corrected that nothing is negative and the sum is right.
func (c *CHK) divide(measured, length float64) {
	f := c.f
	settle := -math.Expm1(-length / settling)
	rejected := max(0, c.span.rejected)
	available := measured - rejected
	base, sum := available, 0.0
	negative := 0.0
	for _, p := range c.principals {
		if p == nil {
			continue
		}
		post := p.tick
		if p.place >= 0 {
			at := f.place(p.place)
			fresh := f.x[at+offPeriod] - p.posted
			post = fresh + settle*(f.x[at+offTotal]-fresh)
			p.posted = f.x[at+offPeriod]
		} else if p.owed != 0 {
			post += settle * p.owed
			p.owed -= settle * p.owed
		}
		if p.weight <= 0 && p.recent <= 0 {
			if p.place < 0 {
				p.owed += post // nobody is there to take it
			}
			post = 0
		}
		p.tick = post
		base -= post
		if post < 0 {
			negative -= post
		} else {
			sum += post
		}
	}
	// All that is posted to principals is base's loss; when a part is negative the others bear it in proportion.
	if base < 0 {
		negative -= base
		base = 0
	} else {
		sum += base
	}
	scale := 1.0
	if sum > 0 {
		scale = max(0, sum-negative) / sum
	}
	if available < 0 {
		scale, base = 0, 0
	}
	c.parts = append(c.parts[:0], share{part: base*scale + rejected, carry: &c.base})
	c.owners = append(c.owners[:0], owner{})
	for _, p := range c.principals {
		if p == nil {
			continue
		}
		post := max(0, p.tick) * scale
		switch {
		case p.place >= 0:
			at := f.place(p.place)
			f.x[at+offTotal] -= post
		case p.weight > 0 || p.recent > 0:
			p.owed += p.tick - post
		}
		p.tick = post
		p.given.period += post
		fade := math.Exp(-length / 2000) // 0.9995 a second
		p.mean = p.mean*fade + post*(1-fade)
	}
	for s := range c.members {
		m := &c.members[s]
		if !m.used {
			continue
		}
		if hot := c.principals[m.principal]; hot.tick > 0 {
			if part := hot.portion(m.weight, m.recent); part > 0 {
				c.parts = append(c.parts, share{part: hot.tick * part, carry: &m.carry})
				c.owners = append(c.owners, owner{slot: Slot(s)})
			}
		}
		if m.coldOne >= 0 {
			if cold := c.principals[m.coldOne]; cold.tick > 0 {
				if part := cold.portion(m.coldWeight, m.coldRecent); part > 0 {
					c.parts = append(c.parts, share{part: cold.tick * part, carry: &m.coldCarry})
					c.owners = append(c.owners, owner{slot: Slot(s), cold: true})
				}
			}
		}
	}
	c.moveStarts(length)
	for s := range c.members {
		m := &c.members[s]
		if !m.used {
			continue
		}
		hot := c.principals[m.principal]
		if hot.weight > 0 {
			m.recent = m.weight
		}
		if m.coldOne >= 0 && c.principals[m.coldOne].weight > 0 {
			m.coldRecent = m.coldWeight
		}
		if m.weight > 0 || m.coldWeight > 0 {
			m.idle = 0
		}
		m.weight, m.coldWeight = 0, 0
	}
	for _, p := range c.principals {
		if p == nil {
			continue
		}
		if p.weight > 0 {
			p.recent = p.weight
		}
		p.weight = 0
		p.tick = 0
	}
}

// portion is a member's part of the tick, or, where nobody of the principal ran in it, of the last one in which somebody did.
func (p *principal) portion(weight, recent float64) float64 {
	if p.weight > 0 {
		return weight / p.weight
	}
	if p.recent > 0 {
		return recent / p.recent
	}
	return 0
}

// leave frees slots: of workloads that have left, once the period in which they were active is over, so that what is learnt
// of them late still finds them.
func (c *CHK) leave(length float64, due bool) {
	for s := range c.members {
		m := &c.members[s]
		m.idle += length
		if !due || !m.used || !m.leaving || m.idle <= 2*length {
			continue
		}
		hot, cold := m.principal, m.coldOne
		*m = member{coldOne: -1}
		c.abandon(hot)
		if cold >= 0 {
			c.abandon(cold)
		}
		c.free = append(c.free, Slot(s))
		c.tick.Left = append(c.tick.Left, Slot(s))
	}
}

// abandon takes a member away from its principal, which is remembered if it is a function's.
func (c *CHK) abandon(i int) {
	p := c.principals[i]
	p.members--
	p.recent = 0 // anew, since the rest of a subtraction would be nobody's
	for s := range c.members {
		m := &c.members[s]
		switch {
		case m.used && m.principal == i:
			p.recent += m.recent
		case m.used && m.coldOne == i:
			p.recent += m.coldRecent
		}
	}
	if p.members > 0 {
		return
	}
	if p.name == "" {
		c.drop(i)
		return
	}
	kept, oldest := 0, -1
	for j, q := range c.principals {
		if q == nil || q.members > 0 {
			continue
		}
		kept++
		if oldest < 0 || q.seen < c.principals[oldest].seen {
			oldest = j
		}
	}
	if kept > remembered {
		c.drop(oldest)
	}
}

// drop forgets a principal. Its place goes to the one that needs it most.
func (c *CHK) drop(i int) {
	p := c.principals[i]
	for key, j := range c.byFunction {
		if j == i {
			delete(c.byFunction, key)
		}
	}
	c.principals[i] = nil
	if p.place < 0 {
		return
	}
	need := -1
	for j, q := range c.principals {
		if q != nil && q.place < 0 && (need < 0 || q.needs(c.principals[need]) > 0) {
			need = j
		}
	}
	if need >= 0 {
		c.enterPlace(need, p.place)
		return
	}
	// The last place moves into the hole.
	last := len(c.places) - 1
	if p.place != last {
		c.f.move(c.f.place(p.place), c.f.place(last))
		c.pairs.move(p.place, last)
		c.places[p.place] = c.places[last]
		c.principals[c.places[last]].place = p.place
	}
	c.places = c.places[:last]
	c.f.shrink(c.f.place(last))
}

// present says whether a principal comes before those that are not in the choice of places: what runs now and then is worth
// more of them than daemons, which nearly coincide with the base, and functions that are gone.
func (p *principal) present() bool { return !p.daemon && p.members > 0 }

// needs compares how much two principals need a place.
func (p *principal) needs(q *principal) int {
	if a := p.present(); a != q.present() {
		if a {
			return 1
		}
		return -1
	}
	return cmp.Compare(p.mean, q.mean)
}

// choose gives the places to the principals that need them most: by their energy.
func (c *CHK) choose() {
	for {
		small, big := -1, -1
		for i, p := range c.principals {
			switch {
			case p == nil:
			case p.place >= 0 && (small < 0 || p.needs(c.principals[small]) < 0):
				small = i
			case p.place < 0 && (big < 0 || p.needs(c.principals[big]) > 0):
				big = i
			}
		}
		if big < 0 || small < 0 {
			return
		}
		p, q := c.principals[big], c.principals[small]
		// A place changes hands only for a clear gain, since covariances are lost by it.
		if p.needs(q) <= 0 || p.present() == q.present() && p.mean <= 1.2*q.mean {
			return
		}
		place := q.place
		c.leavePlace(small)
		c.enterPlace(big, place)
	}
}

// makeReport states uncertainties and begins the next period.
func (c *CHK) makeReport() *Report {
	r := &c.report
	r.Start, r.End = c.period.start, c.tick.End
	r.Workloads, r.Functions = r.Workloads[:0], r.Functions[:0]
	if c.f == nil {
		c.period.start, c.period.length = c.tick.End, 0
		return r
	}
	f := c.f
	for i, p := range c.principals {
		if p == nil {
			continue
		}
		g := &p.given
		if p.place >= 0 {
			at := f.place(p.place)
			// What was posted may differ from what the period's data say by old corrections that fell due in it.
			g.variance = max(0, f.variance(at+offPeriod)) + sq(g.period-f.x[at+offPeriod])
			f.x[at+offPeriod], p.posted = 0, 0
			f.decouple(at + offPeriod)
			p.total = max(0, f.variance(at+offTotal)) + sq(f.x[at+offTotal])
			// A coincident pair is told apart by the shape of its load alone, which is not what coefficients mean.
			g.confused = 0
			if twin := c.twin(p); twin != nil && g.cpu > 0 && twin.given.cpu > 0 {
				g.confused = p.spread * f.kappa() * g.cpu * twin.given.cpu / math.Hypot(g.cpu, twin.given.cpu)
			}
			g.confusedTotal += g.confused
		} else {
			g.variance += sq(g.cpu) * (p.variance + f.variance(iKappa))
			p.total += g.variance
		}
		g.total += g.period
		if p.name != "" && !p.cold && (p.members > 0 || g.total > 0) {
			r.Functions = append(r.Functions, c.describe(i, p))
		}
	}
	for s := range c.members {
		m := &c.members[s]
		if !m.used {
			continue
		}
		v := c.variance(c.principals[m.principal], m.period-m.coldPeriod)
		if m.coldOne >= 0 {
			v += c.variance(c.principals[m.coldOne], m.coldPeriod)
		}
		m.variance += v
		m.total += m.period
		gain, sharing := c.board.Gain, c.board.Sharing
		r.Workloads = append(r.Workloads, Deviation{
			Slot: Slot(s), Period: math.Sqrt(v + sq(gain*m.period)), Total: math.Sqrt(m.variance + sq(gain*m.total) + sq(sharing*m.total)),
		})
		m.period, m.coldPeriod = 0, 0
	}
	for _, p := range c.principals {
		if p != nil {
			p.given.period, p.given.variance, p.given.fluctuation, p.given.cpu = 0, 0, 0, 0
		}
	}
	c.period.start, c.period.length = c.tick.End, 0
	return r
}

// variance is that of a member's part of its principal's energy of the period: that of the whole, and of the division.
func (c *CHK) variance(p *principal, joules float64) float64 {
	if p.given.period <= 0 {
		return p.given.variance
	}
	part := min(1, joules/p.given.period)
	return part*part*(p.given.variance+sq(p.given.confused)) + part*(1-part)*p.given.fluctuation
}

// twin returns a function that starts whenever p starts, and only then; nil if there is none.
func (c *CHK) twin(p *principal) *principal {
	if p.place < 0 || p.name == "" {
		return nil
	}
	if at := c.pairs.twin(p.place, len(c.places)); at >= 0 {
		return c.principals[c.places[at]]
	}
	return nil
}

// describe states what is known of a function.
func (c *CHK) describe(i int, p *principal) FunctionDeviation {
	gain, sharing := c.board.Gain, c.board.Sharing
	d := FunctionDeviation{
		Namespace: p.namespace, Function: p.name, Energy: p.given.total,
		Period: math.Sqrt(p.given.variance + sq(p.given.confused) + sq(gain*p.given.period)),
		Total:  math.Sqrt(p.total + sq(p.given.confusedTotal) + sq(gain*p.given.total) + sq(sharing*p.given.total)),
	}
	if p.place < 0 {
		d.WattsPerCore, d.StdDev = c.f.kappa()+p.d, math.Sqrt(p.variance+c.f.variance(iKappa))
		d.PriorDominated = p.variance > 0.5*sq(p.spread*c.f.kappa()) || p.seconds < leastSeconds
		return d
	}
	at := c.f.place(p.place)
	watts, v := c.f.theta(at, 0)
	d.WattsPerCore, d.StdDev = watts, math.Sqrt(max(0, v))
	d.PriorDominated = c.f.variance(at+offDeviation) > 0.5*sq(p.spread*c.f.kappa()) || p.seconds < leastSeconds
	d.Collinear = c.twin(p) != nil
	for _, j := range c.places {
		q := c.principals[j]
		if j != i && q.name != "" && !q.cold && c.f.correlation(at, c.f.place(q.place)) < -collinear {
			d.Collinear = true
		}
	}
	return d
}

const (
	// leastSeconds is the time that a function must have run before the data can be said to know it, s.
	leastSeconds = 20
	// collinear is the negative correlation of two functions' deviations from which they count as one.
	collinear = 0.8
)

var _ Estimator = (*CHK)(nil)
