package validation

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Each kind of chance has its own stream, so that a change of one thing changes nothing else.
const (
	streamArrivals = iota + 1
	streamDaemon
	streamNoise
	streamLoss
	streamShapes
	streamVariants
)

// Options says how a load is composed of a library's jobs. The zero value of a field is the default in brackets.
type Options struct {
	Seed     uint64
	Duration time.Duration // [30 min]
	// Tick is a multiple of the library's step [which it is].
	Tick time.Duration
	// Rate is the mean number of calls of each function, 1/s [0.05]; each has a factor of 0.4 to 1.6 of its own.
	Rate float64
	// Noise is the meter's, W rms in 100 ms [0.02]. Negative is none.
	Noise float64
	// Gain is the meter's relative error of gain; the truth does not have it.
	Gain float64
	// Lag is by how much the measured power is late.
	Lag time.Duration
	// Loss is the share of readings that do not arrive.
	Loss float64
	// IdleError is that of the idle power which estimators are told, relative [0.2]. Negative is none.
	IdleError float64
	// Pair makes the library's first two functions start together, and the third alone, at 0.06 and 0.04 1/s, instead of all
	// on their own. Together is the part of the first two's calls that they have in common.
	Pair     bool
	Together float64
}

// The background daemon.
const (
	daemonCores = 0.15
	daemonWatts = 0.6 // per core
)

// call is one run of a function.
type call struct {
	function int
	at       float64 // s
	profile  *Profile
}

// cell is what a workload does in a step.
type cell struct {
	attribution.Use
	joules float64
}

// composition is a load on the library's steps.
type composition struct {
	l     *Library
	o     Options
	steps [][]cell
	cpu   []float64 // s of all workloads per step
}

// Compose makes a case of a library: real jobs overlap as Poisson processes let them, so that the sum of their energies is known
// and that of each of them too. Calls that would ask for more than 13/16 of all cores are left out.
func Compose(l *Library, o Options) (*Case, error) {
	o.Duration = cmp.Or(o.Duration, 30*time.Minute)
	o.Tick = cmp.Or(o.Tick, l.Step)
	o.Rate = cmp.Or(o.Rate, 0.05)
	o.Noise, o.IdleError = max(0, cmp.Or(o.Noise, 0.02)), max(0, cmp.Or(o.IdleError, 0.2))
	if o.Tick < l.Step || o.Tick%l.Step != 0 || o.Duration < o.Tick || o.Loss < 0 || o.Loss >= 1 || o.Rate < 0 || o.Lag < 0 {
		return nil, fmt.Errorf("compose %s: tick %v of %v in %v, rate %g, loss %g, lag %v: give a multiple of the step, none below zero",
			l.Name, o.Tick, l.Step, o.Duration, o.Rate, o.Loss, o.Lag)
	}
	if o.Pair && len(l.Functions) < 3 {
		return nil, fmt.Errorf("compose %s: a pair and one more need three functions", l.Name)
	}
	n := int(o.Duration/o.Tick) * int(o.Tick/l.Step)
	c := &composition{l: l, o: o, steps: make([][]cell, n), cpu: make([]float64, n)}
	for _, call := range c.calls() {
		c.add(call)
	}
	c.daemon()
	return c.finish(), nil
}

// calls returns when which function is called, function after function.
func (c *composition) calls() (out []call) {
	end := float64(len(c.steps)) * c.l.Step.Seconds()
	r := rand.New(rand.NewPCG(c.o.Seed, streamArrivals))
	pick := func(f int) *Profile {
		p := c.l.Functions[f].Profiles
		return &p[r.IntN(len(p))]
	}
	if c.o.Pair {
		for t := r.ExpFloat64() / 0.1; t < end-10; t += r.ExpFloat64() / 0.1 {
			switch {
			case r.Float64() >= 0.6:
				out = append(out, call{2, t, pick(2)})
			case r.Float64() < c.o.Together:
				out = append(out, call{0, t, pick(0)}, call{1, t, pick(1)})
			default: // the same number of each, apart
				for f := range 2 {
					out = append(out, call{f, r.Float64() * (end - 10), pick(f)})
				}
			}
		}
		return out
	}
	for f := range c.l.Functions {
		rate := cmp.Or(c.l.Functions[f].Rate, c.o.Rate*(0.4+1.2*r.Float64()))
		for t := r.ExpFloat64() / rate; t < end; t += r.ExpFloat64() / rate {
			out = append(out, call{f, t, pick(f)})
		}
	}
	return out
}

func (c *composition) add(job call) {
	step := c.l.Step.Seconds()
	first := int(job.at / step)
	last := min(len(c.steps), first+len(job.profile.Energy))
	cores := 0
	for _, n := range c.l.Cores {
		cores += n
	}
	for k := first; k < last; k++ {
		if c.cpu[k] > 13./16*float64(cores)*step && !c.o.Pair { // one of a pair without the other is no pair
			return
		}
	}
	for k := first; k < last; k++ {
		u := c.cell(k, job.function)
		for q, s := range job.profile.CPU[k-first] {
			u.CPU[q] += s
			c.cpu[k] += s
		}
		u.joules += job.profile.Energy[k-first]
		left := job.profile.Length - time.Duration(k-first)*c.l.Step
		u.InFlight += min(1, max(0, left.Seconds()/step))
		if k == first {
			u.Started++
		}
		if left > 0 && (left <= c.l.Step || k == len(c.steps)-1) { // what the end cuts off ends there
			u.Completed++
		}
	}
}

// cell returns the cell of a workload in a step.
func (c *composition) cell(k, w int) *cell {
	for i := range c.steps[k] {
		if int(c.steps[k][i].Slot) == w {
			return &c.steps[k][i]
		}
	}
	c.steps[k] = append(c.steps[k], cell{Use: attribution.Use{Slot: attribution.Slot(w)}})
	return &c.steps[k][len(c.steps[k])-1]
}

// daemon adds what always runs; beside a pair it is steady.
func (c *composition) daemon() {
	r := rand.New(rand.NewPCG(c.o.Seed, streamDaemon))
	step := c.l.Step.Seconds()
	for k := range c.steps {
		s := daemonCores * step
		if !c.o.Pair {
			s *= max(0, 1+0.5*math.Sin(float64(k)*step/7)+0.3*r.NormFloat64())
		}
		u := c.cell(k, len(c.l.Functions))
		u.CPU[c.l.DaemonClass] = s
		u.joules = s * daemonWatts
	}
}

// finish measures the load and cuts it into ticks.
func (c *composition) finish() *Case {
	l, o := c.l, c.o
	out := &Case{Name: l.Name, Seed: o.Seed, Classes: l.Classes}
	cores := 0
	for _, n := range l.Cores {
		cores += n
	}
	idle := l.Idle * (1 + o.IdleError)
	out.Board = attribution.Board{Cores: l.Cores, Idle: idle, Peak: idle + float64(cores), // 1 W per core, whatever is true
		Gain: math.Abs(o.Gain), Noise: o.Noise * math.Sqrt(0.1)}
	for _, f := range l.Functions {
		out.Workloads = append(out.Workloads, workload.Workload{ID: workload.ID("kubepods.slice/" + f.Function), Kind: workload.Function,
			Namespace: "openfaas-fn", Name: f.Function, Function: f.Function})
	}
	out.Workloads = append(out.Workloads, workload.Workload{ID: "system.slice/daemon.service", Kind: workload.System, Name: "daemon.service"})

	total := c.measure()
	weight := l.Weight
	for q, w := range weight {
		weight[q] = cmp.Or(w, 1)
	}
	per := int(o.Tick / l.Step)
	out.Ticks = make([]Tick, len(c.steps)/per)
	lost := rand.New(rand.NewPCG(o.Seed, streamLoss))
	edge := make([]float64, len(out.Ticks)+1) // running total, µJ
	known := 0
	for k := range out.Ticks {
		edge[k+1] = total[(k+1)*per] * 1e6
		out.Ticks[k].Lost = lost.Float64() < o.Loss && k+1 < len(out.Ticks)
		if out.Ticks[k].Lost {
			continue
		}
		for m := known + 1; m <= k; m++ { // what lies between two readings is a line
			edge[m] = edge[known] + (edge[k+1]-edge[known])*float64(m-known)/float64(k+1-known)
		}
		known = k + 1
	}
	for k := range out.Ticks {
		t := &out.Ticks[k]
		t.Start, t.End, t.Weight = time.Duration(k)*o.Tick, time.Duration(k+1)*o.Tick, weight
		t.Energy = energy.Energy(math.Round(edge[k+1])) - energy.Energy(math.Round(edge[k]))
		c.uses(t, c.steps[k*per:(k+1)*per])
	}
	return out
}

// measure returns what the meter's running total is at each step's edge, J.
func (c *composition) measure() []float64 {
	o, step := c.o, c.l.Step.Seconds()
	r := rand.New(rand.NewPCG(o.Seed, streamNoise))
	joules := make([]float64, len(c.steps))
	for k, cells := range c.steps {
		e := c.l.Idle * step
		for i := range cells {
			e += cells[i].joules
		}
		joules[k] = e * (1 + o.Gain)
	}
	lag := o.Lag.Seconds() / step
	whole := int(lag)
	part := lag - float64(whole)
	total := make([]float64, len(c.steps)+1)
	for k := range joules {
		late := joules[max(0, k-whole)]*(1-part) + joules[max(0, k-whole-1)]*part
		total[k+1] = total[k] + late + r.NormFloat64()*o.Noise*math.Sqrt(0.1*step)
	}
	return total
}

// uses sums up steps into a tick.
func (c *composition) uses(t *Tick, steps [][]cell) {
	var sum []cell
	for _, cells := range steps {
		for _, u := range cells {
			i := slices.IndexFunc(sum, func(s cell) bool { return s.Slot == u.Slot })
			if i < 0 {
				u.InFlight /= float64(len(steps))
				sum = append(sum, u)
				continue
			}
			s := &sum[i]
			for q := range u.CPU {
				s.CPU[q] += u.CPU[q]
			}
			s.joules += u.joules
			s.InFlight += u.InFlight / float64(len(steps))
			s.Started, s.Completed = s.Started+u.Started, s.Completed+u.Completed
		}
	}
	slices.SortFunc(sum, func(a, b cell) int { return cmp.Compare(a.Slot, b.Slot) })
	for _, u := range sum {
		t.Uses, t.Truth = append(t.Uses, u.Use), append(t.Truth, u.joules)
		for q, s := range u.CPU {
			t.Node[q] += s
		}
	}
}
