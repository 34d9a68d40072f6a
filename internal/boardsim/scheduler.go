package boardsim

import (
	"math"
	"time"
)

// thread is a runnable piece of work.
type thread struct {
	w *work
	// job is nil for daemons, the runtime and starting containers.
	job *job
	// to is the account its energy goes to.
	to *sum
	// a and b are its whole work: a + b/(f·Speed) seconds.
	a, b      float64
	intensity float64
	shape     *[shapes]float64
	// waits is how often it still sleeps for wait; it began with allWaits.
	waits, allWaits int
	wait            time.Duration
	// sandbox says that it runs in the pod's sandbox, forked that no live process shows it, system that it is in the kernel.
	sandbox, forked, system, light bool
	done                           func(at time.Duration)

	progress float64
	ran      time.Duration
	core     int
	pending  time.Duration // on core, not yet in the counters
	at       time.Duration // when it ended
}

// shapes is in how many pieces intensity varies within a job.
const shapes = 16

// upMigration is how long a thread must have run before the scheduler takes it for a heavy one and moves it to a big core.
const upMigration = 24 * time.Millisecond

// start makes a thread runnable.
func (b *Board) start(t *thread) {
	if t.core < 0 || t.core >= len(b.cores) {
		t.core = 0
	}
	t.allWaits = t.waits
	b.forked++
	b.run = append(b.run, t)
}

// schedule shares the present step among the runnable threads: one each to as many as there are cores, those first that have
// waited longest; what a thread leaves of a core's step goes to the next.
func (b *Board) schedule() {
	length := time.Second / time.Duration(b.spec.HZ)
	for i := range b.cores {
		c := &b.cores[i]
		c.left, c.inStep, c.ticks = b.step, -1, 0
		for c.tick < b.now+b.step {
			c.inStep = c.tick - b.now
			c.tick += length
			c.ticks++
		}
	}
	b.shares = b.shares[:0]
	if len(b.run) == 0 {
		return
	}
	waited, ran := b.waited[:0], b.run[:0]
	for _, t := range b.run {
		n := b.place(t)
		if n < 0 {
			t.flush()
			waited = append(waited, t)
			continue
		}
		got, runs := b.runOn(t, n)
		switch {
		case !runs:
		case got < b.step/2:
			waited = append(waited, t)
		default:
			ran = append(ran, t)
		}
	}
	n := len(ran)
	if len(waited) > 0 { // they come first
		ran = append(ran, waited...)
		copy(ran[len(waited):], ran[:n])
		copy(ran, waited)
	}
	for i := len(ran); i < len(b.run); i++ {
		b.run[i] = nil
	}
	b.run, b.waited = ran, waited
	for i := range b.cores {
		c := &b.cores[i]
		busy := b.step - c.left
		// The tick charges a whole tick to whom it finds. Over many ticks that is right on average.
		for range c.ticks {
			if busy == b.step || busy > 0 && b.rng.Float64() < float64(busy)/float64(b.step) {
				if c.system {
					c.kernel += length
				} else {
					c.user += length
				}
			}
		}
	}
}

// place returns the CPU that a thread gets; negative if there is none.
func (b *Board) place(t *thread) int {
	if t.w.quota > 0 {
		t.w.refill(b.now)
		if t.w.budget <= 0 {
			return -1
		}
	}
	if t.w.class >= 0 {
		return b.freest(t, b.clusters[t.w.class], false)
	}
	if len(b.clusters) == 1 {
		return b.freest(t, b.clusters[0], false)
	}
	// Slower classes stand first: small work begins there, heavy work at the other end.
	light := t.light || t.ran < upMigration
	best := -1
	for i := range b.clusters {
		k := b.clusters[i]
		if !light {
			k = b.clusters[len(b.clusters)-1-i]
		}
		if n := b.freest(t, k, true); n >= 0 {
			return n
		}
		if n := b.freest(t, k, false); n >= 0 && (best < 0 || b.cores[n].left > b.cores[best].left) {
			best = n
		}
	}
	return best
}

// freest returns the core of a class that has most of the step left, the thread's last one if it is as good; only whole ones
// if whole.
func (b *Board) freest(t *thread, k *cluster, whole bool) int {
	best := -1
	if t.core >= k.first && t.core < k.first+k.count && b.cores[t.core].online {
		best = t.core
		if b.cores[best].left == b.step {
			return best
		}
	}
	for n := k.first; n < k.first+k.count; n++ {
		if c := &b.cores[n]; c.online && (best < 0 || c.left > b.cores[best].left) {
			best = n
		}
	}
	if best < 0 || b.cores[best].left <= 0 || whole && b.cores[best].left < b.step {
		return -1
	}
	return best
}

// runOn runs a thread on what is left of a core's step. It returns for how long, and whether it is still runnable.
func (b *Board) runOn(t *thread, n int) (got time.Duration, runs bool) {
	b.switches++
	c := &b.cores[n]
	k := b.clusters[c.class]
	stall := t.a
	whole := stall + t.b/(k.ghz[k.at]*k.Speed)
	until := 1.0
	if t.waits > 0 {
		until = float64(t.allWaits-t.waits+1) / float64(t.allWaits+1)
	}
	need := time.Duration(min(math.Ceil((until-t.progress)*whole*1e9), math.MaxInt64/2))
	got = max(0, min(c.left, need))
	if t.w.quota > 0 {
		got = min(got, t.w.budget)
		t.w.budget -= got
	}
	waiting := stall / whole
	intensity := t.intensity * (1 - stallSaving*waiting)
	if t.shape != nil {
		intensity *= t.shape[min(shapes-1, int(t.progress*shapes))]
	}
	weight := got.Seconds() * (k.Core*k.dynamic[k.at]*intensity + b.spec.Memory*waiting)
	b.shares = append(b.shares, share{to: t.to, job: t.job, weight: weight})

	from := b.step - c.left
	c.left -= got
	c.system = t.system
	t.progress += got.Seconds() / whole
	t.ran += got
	t.charge(n, from, got, c.inStep)
	if got < need {
		return got, true
	}
	t.flush()
	t.progress = until
	if t.waits > 0 {
		t.waits--
		b.timers.push(b.now+from+got+t.wait, func() { b.run = append(b.run, t) })
		return got, false
	}
	t.at = b.now + from + got
	b.ended = append(b.ended, t)
	return got, false
}

// charge adds CPU time to the counters as the kernel does: at a tick, or when the thread leaves its core.
func (t *thread) charge(core int, from, got, tick time.Duration) {
	if core != t.core {
		t.flush()
		t.core = core
	}
	t.pending += got
	if tick >= from {
		after := max(0, from+got-tick)
		t.pending -= after
		t.flush()
		t.pending = after
	}
}

func (t *thread) flush() {
	if t.pending == 0 {
		return
	}
	t.w.cpu[t.core] += t.pending
	if t.sandbox {
		t.w.sandbox[t.core] += t.pending
	}
	if t.system {
		t.w.system += t.pending
	}
	if !t.forked {
		t.w.live += t.pending
	}
	t.pending = 0
}

// end tells whoever waits for the thread.
func (t *thread) end(b *Board) {
	if t.job != nil {
		t.job.threads--
		if t.job.threads == 0 {
			b.finish(t.job, t.at)
		}
	} else if t.done != nil {
		t.done(t.at)
	}
}

// cfsPeriod is the period of CFS bandwidth control.
const cfsPeriod = 100 * time.Millisecond

// refill gives a workload with a quota its budget at the start of a period.
func (w *work) refill(now time.Duration) {
	if p := int64(now / cfsPeriod); p != w.period {
		w.period = p
		w.budget = time.Duration(w.quota * float64(cfsPeriod))
	}
}
