// Package boardsim simulates single-board computers that run serverless functions: cores with operating points and
// governors, a scheduler, pods that start cold and vanish, leakage, heat and a fan, and the exact energy of each of them.
//
// A Board is a pure machine: its seed and the calls on it decide everything, and no clock is read. It is seen in three ways:
// as a load for a simulated meter (Load), as the trees of files that a real kernel would show (Tree), and as a trace recorded
// at many times real speed (Record). Truth says what an attribution of the measured energy should have found.
package boardsim

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// DefaultStep is how finely time is simulated: one scheduler tick at 250 Hz.
const DefaultStep = 4 * time.Millisecond

// Options describe a board to simulate.
type Options struct {
	// Name is the node's name; the Board's name if empty.
	Name string
	// Board names one of Catalog; Spec, if not nil, is taken instead.
	Board string
	Spec  *Spec
	// Seed decides all that is random. Requests and their sizes depend on it and on the function's name alone, so that two
	// boards or two governors can be compared under the same load.
	Seed     uint64
	Scenario Scenario
	// Hierarchy is the board's own if zero.
	Hierarchy Hierarchy
	// Step is 1 to 10 ms in whole microseconds; DefaultStep if zero.
	Step time.Duration
}

// Board is a simulated board. It may be used by several goroutines.
type Board struct {
	mu        sync.Mutex
	name      string
	spec      Spec
	hierarchy Hierarchy
	seed      uint64
	rng       *rand.Rand // kernel's and board's own chances; requests have theirs
	step      time.Duration
	now       time.Duration

	clusters  []*cluster
	cores     []core
	utilDecay float64
	timers    timers
	wanderAt  time.Duration

	run       []*thread // runnable, who has waited longest first
	waited    []*thread // scratch of schedule
	ended     []*thread
	switches  int64 // times a thread was put on a core
	forked    int64 // threads ever
	shares    []share
	functions []*function
	daemons   []*daemon
	works     []*work // all that exist, in order of creation
	gone      []*work // all that existed
	kernel    *work
	runtime   *work // the container runtime's
	kubelet   *work

	// Physics.
	celsius, wander, power float64
	fan                    bool
	base, total            sum
	last                   []share // of the last step with work
	lastWeight             float64
	history                history

	events      []workload.Event
	invocations []Invocation
}

// core is one CPU.
type core struct {
	class  int
	online bool
	left   time.Duration // of the present step
	util   float64       // PELT, relative to the top frequency
	window float64       // busy steps since the governor last looked

	// tick is when the scheduler's tick comes next; inStep is its place in the present step, negative if there is none.
	tick, inStep time.Duration
	ticks        int
	system       bool // the last thread's time counted as system time
	// user and kernel are what tick accounting has found.
	user, kernel time.Duration
}

// New returns a board that has just been switched on, warm, with the pods of its scenario ready.
func New(o Options) (*Board, error) {
	spec := o.Spec
	if spec == nil {
		s, err := FindSpec(o.Board)
		if err != nil {
			return nil, err
		}
		spec = &s
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	if err := o.Scenario.check(spec); err != nil {
		return nil, err
	}
	b := &Board{
		name: o.Name, spec: *spec, hierarchy: o.Hierarchy, seed: o.Seed, step: o.Step, rng: rand.New(rand.NewPCG(o.Seed, 0x626f617264)),
	}
	if b.name == "" {
		b.name = o.Board
	}
	if b.hierarchy == (Hierarchy{}) {
		b.hierarchy = spec.Hierarchy
	}
	if err := b.hierarchy.check(); err != nil {
		return nil, err
	}
	if b.step == 0 {
		b.step = DefaultStep
	}
	if b.step < time.Millisecond || b.step > 10*time.Millisecond || b.step%time.Microsecond != 0 {
		return nil, fmt.Errorf("step %v must be 1 to 10 ms in whole microseconds", o.Step)
	}
	b.utilDecay = math.Pow(0.5, b.step.Seconds()/utilHalfLife.Seconds())
	tick := time.Second / time.Duration(spec.HZ)
	for i := range b.spec.Classes {
		k := newCluster(&b.spec.Classes[i], len(b.cores), spec.Governor)
		b.clusters = append(b.clusters, k)
		for range k.count {
			b.cores = append(b.cores, core{class: i, online: true, tick: time.Duration(b.rng.Int64N(int64(tick)))})
		}
	}
	b.history.start(b.step)
	b.celsius = b.restTemperature()
	b.power = b.spec.Board
	b.populate(&o.Scenario)
	return b, nil
}

// restTemperature is that of the idle board in its resting state.
func (b *Board) restTemperature() float64 {
	t := b.spec.Ambient
	for range 50 { // leakage and heat raise each other
		soc := 0.0
		for _, k := range b.clusters {
			r := k.rest()
			soc += k.leak[r]*math.Exp(leakPerKelvin*(t-50)) + k.Clock*k.dynamic[r]
		}
		t = b.spec.Ambient + b.spec.Resistance*soc
	}
	return t
}

// source returns a source of chance that depends on the seed and a name.
func (b *Board) source(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return rand.New(rand.NewPCG(b.seed, h.Sum64()))
}

// Name returns the node's name.
func (b *Board) Name() string { return b.name }

// Spec returns what the board is.
func (b *Board) Spec() Spec { return b.spec }

// Hierarchy returns how its control groups are mounted and named.
func (b *Board) Hierarchy() Hierarchy { return b.hierarchy }

// Now returns the instant up to which the board was simulated.
func (b *Board) Now() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// Advance simulates the board up to an instant since it was switched on, and to the end of the step that this lies in. It
// does nothing if the board is that far already.
func (b *Board) Advance(to time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(to)
}

func (b *Board) advance(to time.Duration) {
	for b.now < to {
		b.oneStep()
	}
}

func (b *Board) oneStep() {
	for len(b.timers.heap) > 0 && b.timers.heap[0].at <= b.now {
		b.timers.pop().do()
	}
	if b.now >= b.wanderAt {
		b.fluctuate()
		b.wanderAt += wanderEvery
	}
	b.schedule()
	b.integrate()
	b.now += b.step
	b.govern()
	b.history.add(b.total.value())
	for i, t := range b.ended {
		t.end(b)
		b.ended[i] = nil
	}
	b.ended = b.ended[:0]
}

// after calls do at the first step that begins no sooner than d from now.
func (b *Board) after(d time.Duration, do func()) { b.timers.push(b.now+d, do) }

// event notes what happened now.
func (b *Board) event(id workload.ID, what string) {
	b.events = keep(b.events, workload.Event{ID: id, At: b.now, What: what})
}

// keepMost bounds what is kept for somebody who may never ask.
const keepMost = 1 << 16

func keep[T any](list []T, x T) []T {
	if len(list) >= keepMost {
		list = list[:copy(list, list[keepMost/2:])]
	}
	return append(list, x)
}

// TakeEvents returns what happened since it was last called; of very many, the latest.
func (b *Board) TakeEvents() []workload.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.events
	b.events = nil
	return e
}

// timers is a heap by time, then by order of creation.
type timers struct {
	heap []timer
	made int64
}

type timer struct {
	at    time.Duration
	order int64
	do    func()
}

func (a *timer) before(b *timer) bool { return a.at < b.at || a.at == b.at && a.order < b.order }

func (t *timers) push(at time.Duration, do func()) {
	t.made++
	t.heap = append(t.heap, timer{at, t.made, do})
	for i := len(t.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !t.heap[i].before(&t.heap[up]) {
			break
		}
		t.heap[i], t.heap[up] = t.heap[up], t.heap[i]
		i = up
	}
}

func (t *timers) pop() timer {
	top, n := t.heap[0], len(t.heap)-1
	t.heap[0], t.heap[n] = t.heap[n], timer{}
	t.heap = t.heap[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return top
		}
		if c+1 < n && t.heap[c+1].before(&t.heap[c]) {
			c++
		}
		if !t.heap[c].before(&t.heap[i]) {
			return top
		}
		t.heap[i], t.heap[c] = t.heap[c], t.heap[i]
		i = c
	}
}
