package baseline

import (
	"math"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
)

// idle learns the power of the board with nothing to do, from the first minute in which no function did anything.
type idle struct {
	board          float64       // W, until something was learnt
	busy           time.Duration // when a function was last seen to run
	seconds        float64       // of quiet time
	p, c, cc, cp   float64       // integrals of power, cores and their products over it
	known          bool
	watts          float64
	everyoneRested bool // no function ran yet, so no time must pass
}

const (
	settle     = 500 * time.Millisecond // after a function ran; a sensor's average trails
	quietFirst = 5.0                    // s, before quiet time says anything
	quietAll   = 60.0                   // s, after which it says no more
)

func newIdle(b attribution.Board) idle {
	return idle{board: b.Idle, watts: b.Idle, everyoneRested: true}
}

// observe takes in an interval. Daemons run in quiet time too, so the power with nothing to do is where the line of power over
// CPU time begins.
func (q *idle) observe(v *view) {
	cpu := 0.0
	for i := range v.Uses {
		u := &v.Uses[i]
		if v.function[i] && (u.Total() > 0 || u.InFlight > 0 || u.Started > 0 || u.Completed > 0) {
			q.busy, q.everyoneRested = v.End, false
		}
		cpu += u.Total()
	}
	if q.seconds >= quietAll || !q.everyoneRested && v.Start < q.busy+settle {
		return
	}
	p, c := v.joules/v.seconds, cpu/v.seconds
	q.seconds += v.seconds
	q.p += p * v.seconds
	q.c += c * v.seconds
	q.cc += c * c * v.seconds
	q.cp += c * p * v.seconds
	if q.seconds < quietFirst {
		return
	}
	p, c = q.p/q.seconds, q.c/q.seconds
	slope := 0.0
	if variance := q.cc/q.seconds - c*c; variance > 1e-6 {
		slope = max(0, (q.cp/q.seconds-c*p)/variance)
	}
	q.known, q.watts = true, max(0, p-slope*c)
}

func (q *idle) base() float64 { return q.watts }

type cpuShare struct{ idle }

func (r *cpuShare) split(v *view, joules []float64) {
	r.observe(v)
	cpu := 0.0
	for i := range v.Uses {
		cpu += v.Uses[i].Total()
	}
	active := max(0, v.joules-r.watts*v.seconds)
	if cpu == 0 {
		return
	}
	for i := range v.Uses {
		joules[i] = active * v.Uses[i].Total() / cpu
	}
}

type utilisation struct{ cores float64 }

func (r utilisation) split(v *view, joules []float64) {
	for i := range v.Uses {
		joules[i] = v.joules * v.Uses[i].Total() / (r.cores * v.seconds)
	}
}

func (r utilisation) base() float64 { return 0 }

// row is one second: how much of each group there was, and the energy above idle.
type row struct {
	seconds, joules float64
	amount          []float64 // per group that had any
	group           []int
}

// rows collects intervals into rows of a second.
type rows struct {
	seconds, joules float64
	amount          []float64 // per group
}

// add takes in an interval whose uses have amounts and returns the row that it completes.
func (r *rows) add(v *view, active float64, amounts []float64) (row, bool) {
	for len(r.amount) < v.groups {
		r.amount = append(r.amount, 0)
	}
	for i, g := range v.group {
		r.amount[g] += amounts[i]
	}
	r.seconds += v.seconds
	r.joules += active
	if r.seconds < 1-1e-9 {
		return row{}, false
	}
	out := row{seconds: r.seconds, joules: r.joules}
	for g, a := range r.amount {
		if a > 0 {
			out.group, out.amount = append(out.group, g), append(out.amount, a)
			r.amount[g] = 0
		}
	}
	r.seconds, r.joules = 0, 0
	return out, true
}

// fit lowers the squared error of Σ amount·x against the rows' energies by coordinate descent, from x on, and keeps every x
// at floor or above. What no row has stays as it is.
func fit(rs []row, x []float64, floor float64, sweeps int) {
	n := len(x)
	gram, h := make([]float64, n*n), make([]float64, n)
	for i := range rs {
		r := &rs[i]
		for a, g := range r.group {
			h[g] += r.amount[a] * r.joules
			for b, k := range r.group {
				gram[g*n+k] += r.amount[a] * r.amount[b]
			}
		}
	}
	for range sweeps {
		for g := range n {
			line := gram[g*n : g*n+n]
			if line[g] <= 1e-12 {
				continue
			}
			rest := h[g]
			for k, a := range line {
				rest -= a * x[k]
			}
			x[g] = max(floor, x[g]+rest/line[g])
		}
	}
}

const fitRows = 300 // of one second each

type nnls struct {
	idle
	prior  float64 // W per core of a group that was not fitted yet
	rows   rows
	last   []row // the last fitRows, in no order
	next   int
	x      []float64
	amount []float64
}

func (r *nnls) split(v *view, joules []float64) {
	r.observe(v)
	for len(r.x) < v.groups {
		r.x = append(r.x, r.prior)
	}
	r.amount = r.amount[:0]
	for i := range v.Uses {
		cpu := v.Uses[i].Total()
		r.amount = append(r.amount, cpu)
		joules[i] = r.x[v.group[i]] * cpu
	}
	done, ok := r.rows.add(v, v.joules-r.watts*v.seconds, r.amount)
	if !ok {
		return
	}
	if len(r.last) < fitRows {
		r.last = append(r.last, done)
	} else {
		r.last[r.next] = done
		r.next = (r.next + 1) % fitRows
	}
	fit(r.last, r.x, 0, 30) // it starts at the last second's solution
}

const (
	faasFirst = 60 // rows of the first fit
	faasStep  = 30 // rows of a step
)

type faasMeter struct {
	idle
	floor     float64
	rows      rows
	collected []row
	fitted    bool
	x         []float64 // W per request in flight
	before    []float64 // seconds in flight per group in the last step
	amount    []float64
}

func (r *faasMeter) split(v *view, joules []float64) {
	r.observe(v)
	for len(r.x) < v.groups {
		r.x = append(r.x, max(r.floor, 1))
	}
	r.amount = r.amount[:0]
	flying, others := 0.0, 0.0
	for i := range v.Uses {
		if v.function[i] {
			flying += max(0, v.Uses[i].InFlight)
		} else if v.Uses[i].Total() > 0 {
			others++
		}
	}
	total := 0.0
	for i := range v.Uses {
		a := 0.0
		if v.function[i] {
			a = max(0, v.Uses[i].InFlight) * v.seconds
		} else if v.Uses[i].Total() > 0 {
			a = v.seconds / (flying + others) // what always runs counts as one of those that run
		}
		r.amount = append(r.amount, a)
		total += a
	}
	active := v.joules - r.watts*v.seconds
	for i := range v.Uses {
		if r.fitted {
			joules[i] = r.x[v.group[i]] * r.amount[i]
		} else if total > 0 {
			joules[i] = max(0, active) * r.amount[i] / total
		}
	}
	done, ok := r.rows.add(v, active, r.amount)
	if !ok {
		return
	}
	r.collected = append(r.collected, done)
	switch {
	case !r.fitted && len(r.collected) == faasFirst:
		fit(r.collected, r.x, r.floor, 400)
		r.fitted, r.collected = true, r.collected[:0]
	case r.fitted && len(r.collected) == faasStep:
		r.step()
		r.collected = r.collected[:0]
	}
}

// step scales all coefficients by one factor, as the artifact's Kalman filter does: its gain is p/(p + r) between 0.1 and 0.9,
// with p = 0.3·(1 + change of the workload) and r = 0.2/√(30 s).
func (r *faasMeter) step() {
	now := make([]float64, len(r.x))
	predicted, missed := 0.0, 0.0
	for _, q := range r.collected {
		missed += q.joules
		for i, g := range q.group {
			now[g] += q.amount[i]
			predicted += q.amount[i] * r.x[g]
		}
	}
	missed -= predicted
	moved, all := 0.0, 0.0
	for g, a := range now {
		old := 0.0
		if g < len(r.before) {
			old = r.before[g]
		}
		moved, all = moved+math.Abs(a-old), all+a+old
	}
	change := 0.0
	if r.before != nil && all > 0 {
		change = moved / all
	}
	r.before = now
	if predicted <= 0 {
		return
	}
	p := 0.3 * (1 + change)
	gain := min(0.9, max(0.1, p/(p+0.2/math.Sqrt(faasStep))))
	for g := range r.x {
		r.x[g] = max(0, r.x[g]+gain*r.x[g]*missed/predicted)
	}
}
