package accounting

import (
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/attribution"
)

// Ticks wait in a queue until the energy of their time is known, are cut or merged as the readings demand, and go to the estimator.

// restart begins anew after a time without samples: its energy cannot be split.
func (a *Attributor) restart(at time.Duration) {
	a.flushQueue()
	for _, w := range a.bySlot { // what was asked for in that time is counted, and has no energy
		if w == nil || !w.active {
			continue
		}
		if w.serves != nil {
			w.serves.before += w.completes
		}
		w.flow, w.starts, w.completes, w.activityAt = 0, 0, 0, max(w.activityAt, at)
	}
	a.lag.Settle()
	edge := a.lag.Edge(at)
	if a.holding {
		if a.holdUntil == 0 {
			a.holdUntil = at + a.cfg.Hold
		}
		return
	}
	a.place(edge)
}

// place makes an edge at which attribution begins; energy before it goes to base.
func (a *Attributor) place(edge time.Duration) {
	s := a.timeline.GiveUp(edge)
	a.accounts.give(s.Energy+s.Late, s.Unmeasured)
	a.edge = edge
}

// flushQueue gives up what is queued.
func (a *Attributor) flushQueue() {
	for len(a.queue) > 0 {
		a.pop(1, true)
	}
	if t := a.partial; t != nil {
		a.partial = nil
		a.split(t, a.timeline.GiveUp(t.edge))
	}
}

// advance splits the ticks whose energy is known.
func (a *Attributor) advance() {
	if a.holding {
		if len(a.queue) == 0 {
			return
		}
		newest := a.queue[len(a.queue)-1]
		if a.lag.State().Accepted == 0 && newest.end < a.holdUntil && len(a.queue) < 1000 {
			return
		}
		a.release()
	}
	have, ok := a.timeline.Newest()
	for len(a.queue) > 0 {
		n := 1
		t := a.queue[0]
		if t.edge > a.gapFrom && t.edge < a.gapTo {
			for n < len(a.queue) && a.queue[n-1].edge < a.gapTo {
				n++
			}
			if a.queue[n-1].edge < a.gapTo {
				return // the tick in which the gap ends is still to come
			}
		}
		switch last := a.queue[n-1]; {
		case ok && have >= last.edge:
			a.pop(n, false)
		case a.last > t.edge+align.MaxLag+waitFor:
			a.pop(1, true)
		default:
			return
		}
	}
}

// release ends the hold: edges are placed with the lag that was found.
func (a *Attributor) release() {
	a.holding = false
	a.lag.Settle()
	a.place(a.lag.Edge(a.queue[0].start))
	for _, t := range a.queue {
		t.from, t.edge = a.edge, a.lag.Edge(t.end)
		a.edge = t.edge
	}
}

// pop takes the n oldest ticks, as one, off the queue, and gives them to the estimator.
func (a *Attributor) pop(n int, giveUp bool) {
	t := a.queue[0]
	for _, m := range a.queue[1:n] {
		merge(t, m)
		a.recycle(m)
	}
	a.queue = append(a.queue[:0], a.queue[n:]...)
	if giveUp {
		t = a.join(t)
		a.split(t, a.timeline.GiveUp(t.edge))
		return
	}
	// Where readings are as far apart as samples, energy between them is less certain than CPU time between samples: then it
	// is the ticks that are cut at readings.
	if a.apart > coarse*(t.end-t.start).Seconds() {
		at, ok := a.timeline.Next(t.from)
		for ; ok && at < t.edge; at, ok = a.timeline.Next(t.from) {
			head := a.join(a.head(t, at))
			span, _ := a.timeline.Advance(at)
			a.split(head, span)
		}
		if at != t.edge && t.end/grid == t.start/grid {
			a.partial = a.join(t)
			return
		}
	}
	t = a.join(t)
	span, _ := a.timeline.Advance(t.edge)
	a.split(t, span)
}

// coarse is the time between readings, in ticks, from which ticks are cut at readings.
const coarse = 0.7

// grid is the time at whose multiples ticks are not cut otherwise, so that periods which are reported end where they should.
const grid = attribution.ReportPeriod

// join adds a tick to what is left of the one before.
func (a *Attributor) join(t *tick) *tick {
	p := a.partial
	if p == nil {
		return t
	}
	a.partial = nil
	merge(p, t)
	a.recycle(t)
	return p
}

// head cuts off the part of a tick whose energy was measured until an edge.
func (a *Attributor) head(t *tick, edge time.Duration) *tick {
	h := a.newTick()
	f := float64(edge-t.from) / float64(t.edge-t.from)
	uses, left := h.uses, h.left
	*h = *t
	h.edge, h.end = edge, t.start+time.Duration(f*float64(t.end-t.start))
	t.from, t.start, t.regime = edge, h.end, ""
	h.uses, h.left = append(uses, t.uses...), left
	for q := range h.node {
		h.node[q] *= f
		t.node[q] -= h.node[q]
	}
	for i := range h.uses {
		h.uses[i].scale(f)
		t.uses[i].scale(1 - f)
	}
	return h
}

// scale leaves a part of a use; the mean number in flight is that of the whole.
func (u *use) scale(f float64) {
	for q := range u.use.CPU {
		u.use.CPU[q] *= f
	}
	u.use.Unclassed *= f
	u.use.Started *= f
	u.use.Completed *= f
	u.started *= f
	u.completed *= f
}

// split gives a tick with its energy to the estimator.
func (a *Attributor) split(t *tick, span align.Span) {
	if t.regime != "" {
		a.est.Regime(t.regime)
	}
	if span.Late != 0 {
		a.accounts.give(span.Late, 0)
	}
	a.accounts.Unmeasured += span.Unmeasured
	// Where part of the tick was not measured, nobody knows to which workloads the rest belongs.
	if length := t.end - t.start; span.Unmeasured > length/10 || span.End-span.Start < length/2 {
		a.accounts.give(span.Energy, 0)
		a.drop(t)
		return
	}
	a.uses = a.uses[:0]
	for i := range t.uses {
		a.uses = append(a.uses, t.uses[i].use)
	}
	a.ahead = append(a.ahead, t)
	a.interval = attribution.Interval{Start: t.start, End: t.end, Energy: span.Energy, Weight: t.weight, Node: t.node, Uses: a.uses}
	a.est.Step(&a.interval, a.emit)
	for _, s := range t.left {
		a.est.Leave(s)
	}
}

// drop counts a tick's requests although its energy is nobody's.
func (a *Attributor) drop(t *tick) {
	for i := range t.uses {
		if u := &t.uses[i]; u.t.serves != nil {
			u.t.serves.before += u.completed
		}
	}
	for _, s := range t.left {
		a.est.Leave(s)
	}
	a.recycle(t)
}

// merge adds the later tick m to t.
func merge(t, m *tick) {
	a, b := (t.end - t.start).Seconds(), (m.end - m.start).Seconds()
	for q := range t.node {
		t.node[q] += m.node[q]
		t.weight[q] = (t.weight[q]*a + m.weight[q]*b) / (a + b)
	}
	n, at := len(t.uses), 0
	for i := range m.uses { // both are sorted
		v := &m.uses[i]
		for at < n && t.uses[at].t.slot < v.t.slot {
			at++
		}
		u := &use{}
		if at < n && t.uses[at].t == v.t {
			u = &t.uses[at]
		} else {
			t.uses = append(t.uses, use{t: v.t, use: attribution.Use{Slot: v.use.Slot, InFlight: -1}})
			u = &t.uses[len(t.uses)-1]
		}
		for q := range u.use.CPU {
			u.use.CPU[q] += v.use.CPU[q]
		}
		u.use.Unclassed += v.use.Unclassed
		if v.use.InFlight >= 0 {
			u.use.InFlight = (max(0, u.use.InFlight)*a + v.use.InFlight*b) / (a + b)
		} else if u.use.InFlight > 0 {
			u.use.InFlight *= a / (a + b)
		}
		u.use.Started += v.use.Started
		u.use.Completed += v.use.Completed
		u.started, u.completed, u.inFlightAt = u.started+v.started, u.completed+v.completed, v.inFlightAt
		u.use.Cold = u.use.Cold || v.use.Cold
	}
	if len(t.uses) > n {
		slices.SortFunc(t.uses, func(x, y use) int { return int(x.t.slot - y.t.slot) })
	}
	t.left = append(t.left, m.left...)
	t.end, t.edge = m.end, m.edge
	if m.regime != "" {
		t.regime = m.regime
	}
}
