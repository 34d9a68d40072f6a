package boardsim

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// function is a Function at work.
type function struct {
	Function
	chance, pods *rand.Rand // of requests; of pods, which may be made at other times under another governor
	shape        [shapes]float64
	replicas     []*work
	queue        []*job
	running      int
	next, burst  time.Duration // next request; end of the present burst
	followers    []*function
	used         int64 // requests ever, to see whether one came since
	completed    int64
	starts       int64
}

// job is the work of one request.
type job struct {
	fn              *function
	pod             *work
	size, intensity float64
	threads         int
	arrived, start  time.Duration
	energy          float64
}

// daemon is a Daemon at work.
type daemon struct {
	Daemon
	w      *work
	chance *rand.Rand
}

// logNormal draws a factor with mean 1 and the given coefficient of variation.
func logNormal(r *rand.Rand, cv float64) float64 {
	z := r.NormFloat64()
	if cv <= 0 {
		return 1
	}
	v := math.Log(1 + cv*cv)
	return math.Exp(math.Sqrt(v)*z - v/2)
}

func exponential(r *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(r.ExpFloat64() * float64(mean))
}

// populate makes what the scenario has.
func (b *Board) populate(s *Scenario) {
	service := func(name string) *work {
		id := workload.ID("system.slice/" + name + ".service")
		for _, w := range b.works {
			if w.info.ID == id {
				return w
			}
		}
		return b.create(&work{class: -1, info: workload.Workload{ID: id, Kind: workload.System, Name: name + ".service"}})
	}
	b.kernel = b.create(&work{class: -1, info: workload.Workload{ID: workload.Kernel, Kind: workload.System, Name: "kernel"}})
	b.runtime, b.kubelet = service("containerd"), service("k3s")
	for _, d := range s.Daemons {
		x := &daemon{Daemon: d, chance: b.source("daemon " + d.Name)}
		if x.Intensity == 0 {
			x.Intensity = 1
		}
		switch {
		case d.Kernel:
			x.w = b.kernel
		case d.Pod || d.Agent:
			x.w = b.newPod("openfaas", d.Name, "", 0, b.pinned(d.Class), b.source("pod "+d.Name))
			if d.Agent {
				x.w.info.Kind = workload.Agent
			}
		default:
			x.w = service(d.Name)
		}
		b.daemons = append(b.daemons, x)
		if d.Every > 0 {
			b.after(time.Duration(x.chance.Float64()*float64(d.Every)), func() { b.wake(x) })
		}
	}
	for _, f := range s.Functions {
		x := &function{Function: f, chance: b.source("function " + f.Name), pods: b.source("pods " + f.Name)}
		x.Namespace = cmp.Or(f.Namespace, "openfaas-fn")
		x.Intensity = cmp.Or(f.Intensity, 1)
		x.Threads, x.Replicas = max(1, f.Threads), max(1, f.Replicas)
		if x.ColdStart.A+x.ColdStart.B == 0 {
			x.ColdStart.A, x.ColdStart.B, x.ColdStart.Wait = 0.1, 0.6, 500*time.Millisecond
		}
		x.ColdStart.Runtime = cmp.Or(f.ColdStart.Runtime, 0.12)
		x.draw()
		for _, leader := range b.functions {
			if leader.Name == f.With {
				leader.followers = append(leader.followers, x)
			}
		}
		b.functions = append(b.functions, x)
		if !f.Cold {
			for range x.Replicas {
				b.podOf(x).state = ready
			}
		}
		if f.Arrival.Rate > 0 {
			if f.Arrival.Off > 0 { // begin anywhere in a burst or between two
				x.burst = exponential(x.chance, f.Arrival.On)
				if x.chance.Float64()*float64(f.Arrival.On+f.Arrival.Off) > float64(f.Arrival.On) {
					x.next = exponential(x.chance, f.Arrival.Off)
					x.burst += x.next
				}
			}
			b.await(x)
		}
	}
	for _, c := range s.Changes {
		change := func() { b.change(&c) }
		if c.At <= 0 {
			change()
		} else {
			b.after(c.At, change)
		}
	}
	b.events = nil // what was set before the start is no change
}

// change applies what a scenario has planned. Names were checked by New; what the board then cannot do is left as it is.
func (b *Board) change(c *Change) {
	if c.Governor != "" {
		_ = b.setGovernor(c.Class, c.Governor)
	}
	if c.MinKHz > 0 || c.MaxKHz > 0 {
		_ = b.setLimits(c.Class, c.MinKHz, c.MaxKHz)
	}
	if c.UserspaceKHz > 0 {
		_ = b.setUserspace(c.Class, c.UserspaceKHz)
	}
	for _, n := range c.Offline {
		_ = b.setOnline(n, false)
	}
	for _, n := range c.Online {
		_ = b.setOnline(n, true)
	}
}

func (b *Board) pinned(class string) int {
	for i, k := range b.clusters {
		if class != "" && k.Name == class {
			return i
		}
	}
	return -1
}

// draw makes the fixed course of intensity within the function's jobs: a random walk around 1 with mean 1.
func (f *function) draw() {
	x, mean := 0.0, 0.0
	for i := range f.shape {
		x = 0.6*x + 0.8*f.chance.NormFloat64()
		f.shape[i] = min(max(1+f.Shape*x, 0.2), 2.5)
		mean += f.shape[i] / shapes
	}
	for i := range f.shape {
		f.shape[i] /= mean
	}
}

// wake lets a daemon work once and plans the next time.
func (b *Board) wake(d *daemon) {
	b.daemonWork(d, d.Work)
	pause := d.Every
	if !d.Regular {
		pause = exponential(d.chance, d.Every)
	}
	b.after(pause, func() { b.wake(d) })
}

func (b *Board) daemonWork(d *daemon, work float64) {
	if work > 0 {
		b.start(&thread{
			w: d.w, to: &d.w.active, b: work * logNormal(d.chance, 0.5), intensity: d.Intensity, light: true, system: d.Kernel,
			core: d.chance.IntN(len(b.cores)),
		})
	}
}

// await plans the function's next request.
func (b *Board) await(f *function) {
	a := &f.Arrival
	f.next += time.Duration(f.chance.ExpFloat64() / a.Rate * 1e9)
	for a.Off > 0 && f.next > f.burst { // what is left of the wait is spent in the next burst
		off := exponential(f.chance, a.Off)
		f.next += off
		f.burst += off + exponential(f.chance, a.On)
	}
	b.timers.push(f.next, func() {
		b.request(f)
		b.await(f)
	})
}

// Invoke sends a request to a function now.
func (b *Board) Invoke(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.functions {
		if f.Name == name {
			b.request(f)
			return nil
		}
	}
	return fmt.Errorf("board %s has no function %q", b.name, name)
}

// request puts a job into the function's queue. Its size is drawn here, so that it does not depend on what else happens.
func (b *Board) request(f *function) {
	f.used++
	f.queue = append(f.queue, &job{
		fn: f, arrived: b.now, size: logNormal(f.chance, f.Spread), intensity: f.Intensity * logNormal(f.chance, f.IntensityCV),
	})
	for _, d := range b.daemons {
		if d.PerRequest > 0 {
			b.daemonWork(d, d.PerRequest)
		}
	}
	b.dispatch(f)
	for _, other := range f.followers {
		b.request(other)
	}
}

// dispatch gives waiting jobs to ready pods, and makes pods if there are none.
func (b *Board) dispatch(f *function) {
	for len(f.queue) > 0 {
		var pod *work
		for _, p := range f.replicas {
			free := p.state == ready && (f.Concurrency == 0 || p.inFlight() < int64(f.Concurrency))
			if free && (pod == nil || p.inFlight() < pod.inFlight()) {
				pod = p
			}
		}
		if pod == nil {
			break
		}
		j := f.queue[0]
		f.queue = slices.Delete(f.queue, 0, 1)
		b.serve(j, pod)
	}
	if len(f.queue) > 0 && len(f.replicas) == 0 {
		for range f.Replicas {
			b.coldStart(f)
		}
	}
}

func (b *Board) serve(j *job, pod *work) {
	f := j.fn
	j.pod, j.start, j.threads = pod, b.now, f.Threads
	pod.started++
	f.running++
	for i := range f.Threads {
		part := j.size / float64(f.Threads)
		if f.Threads > 1 { // never quite even
			part *= 1 + 0.1*(2*float64(i)/float64(f.Threads-1)-1)
		}
		b.start(&thread{
			w: pod, job: j, to: &pod.active, a: f.A * part, b: f.B * part, intensity: j.intensity, shape: &f.shape, waits: f.Waits,
			wait: f.Wait, forked: f.Forks, core: f.pods.IntN(len(b.cores)),
		})
	}
}

// finish ends a job whose threads have all ended.
func (b *Board) finish(j *job, at time.Duration) {
	f := j.fn
	j.pod.completed++
	f.completed++
	f.running--
	b.invocations = keep(b.invocations, Invocation{
		Namespace: f.Namespace, Function: f.Name, Workload: j.pod.info.ID, Arrived: j.arrived, Start: j.start, End: at, Energy: j.energy,
	})
	b.dispatch(f)
	b.retire(f)
}

// retire takes the function's pods away once it has been idle for long enough.
func (b *Board) retire(f *function) {
	if f.IdleTimeout <= 0 || f.running > 0 || len(f.queue) > 0 {
		return
	}
	used := f.used
	b.after(f.IdleTimeout, func() {
		if f.used == used && f.running == 0 {
			for _, p := range f.replicas {
				b.stop(p)
			}
			f.replicas = nil
		}
	})
}

// newPod makes a pod and its control group.
func (b *Board) newPod(namespace, name, fn string, quota float64, class int, chance *rand.Rand) *work {
	hex := func(n int) string {
		var s strings.Builder
		for s.Len() < n {
			fmt.Fprintf(&s, "%016x", chance.Uint64())
		}
		return s.String()[:n]
	}
	u := hex(32)
	w := &work{
		quota: quota, class: class, uid: fmt.Sprintf("%s-%s-4%s-8%s-%s", u[:8], u[8:12], u[13:16], u[17:20], u[20:]),
		container: hex(64), pause: hex(64),
		info: workload.Workload{Kind: workload.Pod, Namespace: namespace, Name: fmt.Sprintf("%s-%s-%s", name, hex(9), hex(5))},
	}
	if fn != "" {
		w.info.Kind, w.info.Function = workload.Function, fn
	}
	qos := "besteffort"
	if quota > 0 {
		qos = "burstable"
	}
	w.info.ID = b.hierarchy.pod(qos, w.uid)
	return b.create(w)
}

// pod returns a pod's control group as a kubelet names it.
func (h Hierarchy) pod(qos, uid string) workload.ID {
	if h.Driver == Systemd {
		return workload.ID(fmt.Sprintf("kubepods.slice/kubepods-%s.slice/kubepods-%s-pod%s.slice", qos, qos, strings.ReplaceAll(uid, "-", "_")))
	}
	return workload.ID(fmt.Sprintf("kubepods/%s/pod%s", qos, uid))
}

// child returns the path element of one of a pod's containers.
func (h Hierarchy) child(id string) string {
	if h.Driver == Systemd {
		return "cri-containerd-" + id + ".scope"
	}
	return id
}

func (b *Board) podOf(f *function) *work {
	w := b.newPod(f.Namespace, f.Name, f.Name, f.Quota, b.pinned(f.Class), f.pods)
	w.fn = f
	f.replicas = append(f.replicas, w)
	return w
}

// coldStart makes a pod: kubelet and runtime work, the sandbox is set up, the function begins and reads what it needs, and a
// probe finds it ready.
func (b *Board) coldStart(f *function) {
	w := b.podOf(f)
	w.state, w.created = starting, b.now
	f.starts++
	b.event(w.info.ID, workload.Created)
	r := f.ColdStart.Runtime
	work := func(on *work, share float64, sandbox bool, then func(time.Duration)) {
		b.start(&thread{
			w: on, to: &w.cold, b: r * share * logNormal(f.pods, 0.2), intensity: 1, sandbox: sandbox, waits: 2, wait: 20 * time.Millisecond,
			core: f.pods.IntN(len(b.cores)), done: then,
		})
	}
	work(b.kubelet, 0.35, false, nil)
	work(b.runtime, 0.45, false, func(time.Duration) {
		work(w, 0.2, true, func(time.Duration) {
			const waits = 10
			b.start(&thread{
				w: w, to: &w.cold, a: f.ColdStart.A, b: f.ColdStart.B * logNormal(f.pods, 0.1), intensity: 1, waits: waits,
				wait: f.ColdStart.Wait / waits, core: f.pods.IntN(len(b.cores)),
				done: func(time.Duration) {
					b.after(time.Duration(f.pods.Float64()*float64(300*time.Millisecond)), func() {
						w.state, w.ready = ready, b.now
						b.event(w.info.ID, workload.Ready)
						b.dispatch(f)
						b.retire(f)
					})
				},
			})
		})
	})
}

// stop ends an idle pod. Its containers vanish at once, its own control group 0.3 to 1 s later.
func (b *Board) stop(w *work) {
	w.state = stopping
	b.event(w.info.ID, workload.Stopped)
	for _, on := range []*work{b.kubelet, b.runtime} {
		b.start(&thread{w: on, to: &on.active, b: 0.015, intensity: 1})
	}
	linger := 300*time.Millisecond + time.Duration(w.fn.pods.Float64()*float64(700*time.Millisecond))
	b.after(linger, func() {
		w.state = vanished
		b.works = slices.DeleteFunc(b.works, func(x *work) bool { return x == w })
		b.gone = append(b.gone, w)
	})
}
