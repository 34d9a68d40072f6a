package accounting

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

const (
	// waitFor is how long a tick waits for readings of its time beyond the largest lag, before that time counts as unmeasured.
	waitFor = 30 * time.Second
	// gapOf is the time without readings from which the ticks inside it are split as one: nobody knows its course.
	gapOf = 1500 * time.Millisecond
	// startLimit bounds a cold start.
	startLimit = 10 * time.Minute
	// maxEnded bounds the accounts of workloads that ended and are still shown.
	maxEnded = 500
	// leaveAfter is the time after which an ended workload's account is no longer shown on its own.
	leaveAfter = 5 * time.Minute
	// deaf is the time without CPU readings after which energy is no longer kept back for them.
	deaf = 15 * time.Second
	// longest is the longest time between two samples that is taken for one tick.
	longest = 10 * time.Second
	// nameWithin is how long energy is kept back of a workload of which more is expected to be known. Then it is shown under the name
	// that it has, and what was shown stays there.
	nameWithin = 15 * time.Second
	// kernelDebt bounds how far the node's CPU time may fall behind that of the groups and have to catch up before any is the
	// kernel's, s. /proc/stat may count by looking at each scheduler tick who runs: that error is a walk, by some 0.05 s·√s, and
	// always to one side for tasks that sleep over the ticks.
	kernelDebt = 10
	// spares bounds the records of ticks that are kept for later ones.
	spares = 32
)

// Board is what an Attributor is told of its node.
type Board struct {
	// Classes are the names of the core classes with their numbers of cores, the reference class first; one with an empty name
	// where all cores are alike.
	Classes []Class
	// Idle and Peak power, W; zero where unknown.
	Idle, Peak float64
	// Gain and Noise of the meter, as in attribution.Board.
	Gain, Noise float64
	// Sharing is as in attribution.Board; see the constant of that name.
	Sharing float64
}

// Sharing is attribution.Board's for boards as they are. With it 95 % intervals of functions' totals cover the truth of simulated
// boards, which are no sums of their parts, in 99 % of cases after five minutes and 93 % after thirty.
const Sharing = 0.05

// Class is a core class.
type Class struct {
	Name  string
	Cores int
	// Points are the operating points that are known, by frequency; without, voltages are assumed.
	Points []OperatingPoint
}

// OperatingPoint is a frequency with the voltage it needs.
type OperatingPoint struct {
	KHz       int64
	Microvolt int64
}

// AttributorConfig is what an Attributor is made of.
type AttributorConfig struct {
	Board Board
	// Estimator makes the estimator; nil for CHK.
	Estimator func(attribution.Board) attribution.Estimator
	// Tick is the nominal time between two samples.
	Tick time.Duration
	// Lag is the assumed time by which power is late against CPU time; Hold is the time to wait at the start for a better
	// estimate, during which nothing is attributed.
	Lag, Hold time.Duration
	// Describe says what is known of a workload.
	Describe func(workload.ID) workload.Workload
	// Expected says whether more will soon be known of a workload. Its energy is kept back for a while, and Redescribe gives it to the
	// account that it belongs to, even if the workload has ended. Nil where Describe knows all there is to know.
	Expected func(workload.ID) bool
	// Requested says how many cores a workload has reserved; nil where nobody knows.
	Requested func(workload.ID) float64
	// Watched says whether a workload's activity will be told; one that appears is cold until then. Nil where events tell.
	Watched func(workload.ID) bool
	// Observe is told every tick, after it was entered into the accounts; may be nil.
	Observe func(*attribution.Tick)
}

// Attributor keeps the accounts of one node's workloads. It is fed with totals of measured energy, samples of CPU time,
// activity and events, each in order of time, aligns them, has an estimator split the energy of each tick, and posts the shares.
// It has no clock: live and replayed input take the same path. Times are on the host's monotonic clock.
type Attributor struct {
	cfg      AttributorConfig
	est      attribution.Estimator
	timeline align.Timeline
	lag      *align.Lag
	weights  weights

	lastFeed  time.Duration
	apart     float64 // time between totals, exponential mean, s
	partial   *tick   // the rest of a tick after the last reading in it
	feeds     uint64
	edge      time.Duration // of the newest tick
	holding   bool
	holdUntil time.Duration
	gapFrom   time.Duration // the last gap in the readings
	gapTo     time.Duration

	byID       map[workload.ID]*tracked
	bySlot     []*tracked
	kernel     *tracked
	kernelSum  float64
	kernelHigh float64
	last       time.Duration // of the last sample
	now        time.Duration // of the sample that is being taken in, or the last
	sampled    bool
	ending     []*tracked // whose last CPU time is in the newest tick
	regime     string     // begins in the next tick
	busy       float64    // weighted CPU-seconds so far
	node       map[string]time.Duration

	open  *tick   // the newest, whose activity is still coming in
	queue []*tick // waiting for energy, oldest first
	spare []*tick
	uses  []attribution.Use
	ahead []*tick // given to the estimator, not yet split

	interval attribution.Interval
	emit     func(*attribution.Tick) // enter

	accounts *Accounts
	base     attribution.BaseView
	charges  []*attribution.Charge

	functionKeys []functionKey
}

// tracked is a workload that is seen.
type tracked struct {
	workload.Workload
	slot    attribution.Slot
	cpu     [attribution.MaxClasses + 1]time.Duration // the last counters; the last one without class
	seen    [attribution.MaxClasses + 1]bool
	account *WorkloadAccount
	serves  *FunctionAccount
	ended   bool
	in      *tick // the tick in which its entry is at index
	index   int
	// variance is that of its energy, as it is in the account's, J².
	variance float64

	requested float64       // cores
	since     time.Duration // when it appeared; 0 if it was there at first
	cold      bool
	coldSince time.Duration
	begun     bool // its start has been counted
	stopped   bool // it was said to have stopped
	start     bool // all its energy is that of a start: it goes on under another description

	active     bool // activity is known
	dense      bool // at least every other tick, so that what is in flight can be told for each
	inFlight   float64
	activityAt time.Duration // until when flow is summed
	told       time.Duration // of the last activity
	flow       float64       // request-seconds since the tick's start
	started    int64
	completed  int64
	starts     float64 // since the tick's start
	completes  float64
}

// tick is an interval with what ran in it.
type tick struct {
	start, end time.Duration // of the CPU time
	from, edge time.Duration // of its energy
	node       [attribution.MaxClasses]float64
	weight     [attribution.MaxClasses]float64
	uses       []use
	left       []attribution.Slot // of which this is the last tick
	regime     string
}

// use is what one workload did in a tick.
type use struct {
	t                  *tracked
	use                attribution.Use
	inFlightAt         float64 // at the end
	started, completed float64
}

// NewAttributor returns an Attributor with the accounts given, to which it adds; nil for new ones.
func NewAttributor(cfg AttributorConfig, accounts *Accounts) *Attributor {
	if accounts == nil {
		accounts = NewAccounts()
	}
	b := attribution.Board{Idle: cfg.Board.Idle, Peak: cfg.Board.Peak, Gain: cfg.Board.Gain, Noise: cfg.Board.Noise, Sharing: cfg.Board.Sharing}
	for q, c := range cfg.Board.Classes[:min(len(cfg.Board.Classes), attribution.MaxClasses)] {
		b.Cores[q] = c.Cores
	}
	a := &Attributor{
		cfg: cfg, lag: align.NewLag(cfg.Tick, cfg.Lag), byID: map[workload.ID]*tracked{}, accounts: accounts,
		node: map[string]time.Duration{}, weights: newWeights(cfg.Board.Classes), holding: cfg.Hold > 0,
	}
	a.emit = a.enter
	if cfg.Estimator != nil {
		a.est = cfg.Estimator(b)
	} else {
		a.est = attribution.New(b)
	}
	return a
}

// Energy takes in a total of measured energy and of unmeasured time, at a time of the host's clock. Totals may begin anywhere;
// times that do not ascend are taken for a little later than the last.
func (a *Attributor) Energy(at time.Duration, total energy.Energy, unmeasured time.Duration) {
	if a.feeds == 0 {
		a.accounts.begin(total)
	} else if at <= a.lastFeed {
		at = a.lastFeed + time.Microsecond
	}
	if a.feeds > 0 && at-a.lastFeed > gapOf {
		a.gapFrom, a.gapTo = a.lastFeed, at
	}
	if d := (at - a.lastFeed).Seconds(); a.feeds == 1 {
		a.apart = d
	} else if a.feeds > 1 {
		a.apart += (min(d, 2*a.apart) - a.apart) / 16
	}
	a.feeds++
	a.lastFeed = at
	a.timeline.Add(align.Reading{Epoch: 1, At: at, Host: at, Energy: total, Unmeasured: unmeasured})
	if a.feeds == 1 {
		a.timeline.GiveUp(at)
	}
	a.advance()
}

// Sample takes in a reading of the kernel's counters and forms a tick from it and the one before.
func (a *Attributor) Sample(s *workload.Sample) {
	if a.sampled && s.At <= a.last {
		return
	}
	a.closeTick()
	a.now = s.At
	a.showLate(s.At)
	t := a.newTick()
	t.start, t.end = a.last, s.At
	elapsed := (s.At - a.last).Seconds()
	sum := 0.0 // of all workloads, to tell what is the kernel's own
	nodeSum := 0.0
	for i := range s.Usage {
		u := &s.Usage[i]
		q := a.class(u.Class)
		if u.ID == workload.Node {
			before, ok := a.node[u.Class]
			a.node[u.Class] = u.CPU
			if ok && a.sampled && u.CPU > before {
				d := (u.CPU - before).Seconds()
				nodeSum += d
				t.node[q%attribution.MaxClasses] += d // where the class is not known, all is in the first
			}
			continue
		}
		w := a.track(u.ID)
		before := w.cpu[q]
		fresh := !w.seen[q]
		w.cpu[q], w.seen[q] = u.CPU, true
		switch {
		case !a.sampled:
			continue
		case fresh && u.CPU.Seconds() > elapsed*float64(a.cores()+1):
			continue // it has run before we looked
		case u.CPU <= before:
			continue
		}
		d := (u.CPU - before).Seconds()
		sum += d
		at := a.entry(t, w)
		if q == attribution.MaxClasses {
			at.use.Unclassed += d
		} else {
			at.use.CPU[q] += d
		}
	}
	if a.sampled && len(a.node) > 0 {
		// The node's counters tick 100 times a second and the groups' every microsecond, so the difference is noisy: only what
		// it grows beyond its highest value so far is the kernel's.
		a.kernelSum += nodeSum - sum
		a.kernelHigh = min(a.kernelHigh, a.kernelSum+kernelDebt)
		if d := a.kernelSum - a.kernelHigh; d > 0 {
			a.kernelHigh = a.kernelSum
			if a.kernel == nil {
				a.kernel = a.track(workload.Kernel)
			}
			a.entry(t, a.kernel).use.Unclassed += d
		}
	}
	a.weights.take(s.Frequency, &t.weight)
	for _, id := range s.Ended {
		if w := a.byID[id]; w != nil {
			a.end(w)
		}
	}
	first := !a.sampled
	a.sampled, a.last = true, s.At
	if first || elapsed > longest.Seconds() {
		for i := range t.uses {
			t.uses[i].t.in = nil
		}
		a.restart(s.At)
		a.recycle(t)
		a.dropEnded()
		return
	}
	t.regime, a.regime = a.regime, ""
	for i := range t.uses {
		u := &t.uses[i].use
		for q := range t.weight {
			a.busy += t.weight[q] * u.CPU[q]
		}
		a.busy += u.Unclassed
	}
	a.open = t
}

// cores is the number of cores.
func (a *Attributor) cores() int {
	n := 0
	for _, c := range a.cfg.Board.Classes {
		n += c.Cores
	}
	return n
}

// class returns the index of a class; MaxClasses for one that is not known, unless there is only one.
func (a *Attributor) class(name string) int {
	for q, c := range a.cfg.Board.Classes {
		if c.Name == name && q < attribution.MaxClasses {
			return q
		}
	}
	if len(a.cfg.Board.Classes) <= 1 {
		return 0
	}
	return attribution.MaxClasses
}

// track returns the record of a workload, made at its first sight.
func (a *Attributor) track(id workload.ID) *tracked {
	w := a.byID[id]
	if w != nil {
		return w
	}
	var d workload.Workload
	if id == workload.Kernel {
		d = workload.Workload{Kind: workload.System, Name: "kernel"}
	} else {
		d = a.cfg.Describe(id)
	}
	d.ID = id
	w = &tracked{Workload: d, inFlight: -1}
	w.slot = a.est.Enter(d)
	for int(w.slot) >= len(a.bySlot) {
		a.bySlot = append(a.bySlot, nil)
	}
	a.bySlot[w.slot] = w
	a.byID[id] = w
	if a.cfg.Expected != nil && id != workload.Kernel && a.cfg.Expected(id) {
		w.account = a.accounts.hold(d, a.now)
	} else {
		w.account = a.accounts.workload(d)
	}
	w.account.users++
	if d.Kind == workload.Function {
		w.serves = a.accounts.function(d.Namespace, d.Function)
		w.serves.users++
		a.reserve(w)
	}
	if a.sampled {
		w.since = a.last
	}
	a.starting(w)
	return w
}

// reserve asks what cores a workload has reserved and puts them down in its function's account.
func (a *Attributor) reserve(w *tracked) {
	if w.serves == nil || a.cfg.Requested == nil {
		return
	}
	now := max(0, a.cfg.Requested(w.ID))
	w.serves.reserve(now - w.requested)
	w.requested = now
}

// unreserve takes back what reserve put down.
func (w *tracked) unreserve() {
	if w.serves != nil {
		w.serves.reserve(-w.requested)
		w.requested = 0
	}
}

// starting opens the cold-start account of a workload that has just appeared and will tell when it is ready.
func (a *Attributor) starting(w *tracked) {
	if w.serves == nil || w.since == 0 || w.cold || w.active || a.cfg.Watched == nil || !a.cfg.Watched(w.ID) {
		return
	}
	w.begin(w.since)
}

// begin says that a start has begun. It is counted once, whoever tells of it.
func (w *tracked) begin(at time.Duration) {
	if w.begun || w.cold {
		return
	}
	w.cold, w.coldSince, w.begun = true, at, true
	w.serves.ColdStarts++
}

// entry returns the workload's entry in a tick that is still open.
func (a *Attributor) entry(t *tick, w *tracked) *use {
	if w.in != t {
		w.in, w.index = t, len(t.uses)
		t.uses = append(t.uses, use{t: w, use: attribution.Use{Slot: w.slot, InFlight: -1}})
	}
	return &t.uses[w.index]
}

func (a *Attributor) newTick() *tick {
	if n := len(a.spare); n > 0 {
		t := a.spare[n-1]
		a.spare = a.spare[:n-1]
		*t = tick{uses: t.uses[:0], left: t.left[:0]}
		return t
	}
	return &tick{}
}

func (a *Attributor) recycle(t *tick) {
	if len(a.spare) < spares {
		a.spare = append(a.spare, t)
	}
}

// until closes the newest tick once something is told of a time after it.
func (a *Attributor) until(at time.Duration) {
	if a.open != nil && at > a.open.end {
		a.closeTick()
	}
}

// densest is the longest tick in which what is in flight at its ends says how much was in flight between them.
const densest = 250 * time.Millisecond

// Activity takes in what a function's workload was asked to do.
func (a *Attributor) Activity(v workload.Activity) {
	a.until(v.At)
	w := a.byID[v.ID]
	if w == nil {
		return
	}
	if !w.active {
		w.active, w.inFlight, w.started, w.completed = true, float64(v.InFlight), v.Started, v.Completed
		w.activityAt, w.told = v.At, v.At
		if w.since > 0 { // its counts began at zero while we looked
			w.starts, w.completes = float64(max(0, v.Started)), float64(max(0, v.Completed))
		}
		return
	}
	now := float64(v.InFlight)
	held := max(0, (v.At - w.activityAt).Seconds())
	w.dense = a.cfg.Tick <= densest && v.At-w.told <= 2*a.cfg.Tick
	if w.dense {
		w.flow += held * (w.inFlight + now) / 2
	} else {
		w.flow += held * w.inFlight // told at changes only
	}
	w.inFlight, w.activityAt, w.told = now, max(w.activityAt, v.At), v.At
	w.starts += float64(max(0, v.Started-w.started))
	w.completes += float64(max(0, v.Completed-w.completed))
	w.started, w.completed = v.Started, v.Completed
}

// Event takes in something that happened.
func (a *Attributor) Event(e workload.Event) {
	a.until(e.At)
	if e.ID == workload.Node {
		if what, ok := strings.CutPrefix(e.What, workload.RegimePrefix); ok && what != "" {
			a.lag.Regime()
			if a.open != nil {
				a.open.regime = what
			} else {
				a.regime = what
			}
		}
		return
	}
	switch w := a.byID[e.ID]; {
	case e.What == workload.Created:
		w = a.track(e.ID)
		// Whoever was there at first has started before we looked, unless it has stopped since.
		if old := w.since == 0 && w.everSeen() && !w.stopped; w.serves != nil && !old {
			w.begin(e.At)
		}
	case w == nil:
	case e.What == workload.Ready:
		w.cold = false
	case e.What == workload.Stopped:
		w.cold, w.begun, w.stopped = false, false, true
		if !w.everSeen() {
			a.end(w)
		}
	}
}

// everSeen is false for a workload of which there was an event and no CPU time.
func (w *tracked) everSeen() bool { return w.seen != [len(w.seen)]bool{} }

// end lets a workload go with the newest tick.
func (a *Attributor) end(w *tracked) {
	if !w.ended {
		w.ended = true
		a.ending = append(a.ending, w)
	}
}

// closeTick ends the newest tick, whose activity is complete, and puts it into the queue.
func (a *Attributor) closeTick() {
	t := a.open
	if t == nil {
		return
	}
	a.open = nil
	length := (t.end - t.start).Seconds()
	for _, w := range a.bySlot {
		if w == nil {
			continue
		}
		if w.cold && t.end-w.coldSince > startLimit {
			w.cold = false
			if !w.everSeen() {
				a.end(w)
			}
		}
		if !w.active {
			continue
		}
		if t.end > w.activityAt { // held since
			w.flow += (t.end - w.activityAt).Seconds() * w.inFlight
			w.activityAt = t.end
		}
		if w.flow > 0 || w.starts > 0 || w.completes > 0 || w.inFlight > 0 {
			a.entry(t, w)
		}
	}
	for i := range t.uses {
		u := &t.uses[i]
		w := u.t
		u.use.Cold = w.cold
		if !w.active {
			continue
		}
		if w.dense {
			u.use.InFlight = max(0, w.flow) / length
		}
		u.use.Started, u.use.Completed = w.starts, w.completes
		u.started, u.completed, u.inFlightAt = w.starts, w.completes, w.inFlight
		w.flow, w.starts, w.completes = 0, 0, 0
	}
	for i := range t.uses {
		t.uses[i].t.in = nil // the record of a tick is used again
	}
	slices.SortFunc(t.uses, func(x, y use) int { return int(x.t.slot - y.t.slot) })
	a.queue = append(a.queue, t)
	a.dropEnded()
	a.lag.Tick(&a.timeline, t.end, a.busy)
	t.edge = a.lag.Edge(t.end)
	t.from = a.edge
	a.edge = t.edge
	a.advance()
}

// dropEnded lets go of workloads whose last CPU time is counted.
func (a *Attributor) dropEnded() {
	for _, w := range a.ending {
		if a.byID[w.ID] == w {
			delete(a.byID, w.ID)
			a.leave(w)
		}
	}
	a.ending = a.ending[:0]
}

// leave tells the estimator that a workload is in no later tick, as soon as it has the newest.
func (a *Attributor) leave(w *tracked) {
	w.active, w.cold = false, false
	t := a.open
	if n := len(a.queue); t == nil && n > 0 {
		t = a.queue[n-1]
	}
	if t == nil {
		t = a.partial
	}
	if t == nil {
		a.est.Leave(w.slot)
		return
	}
	t.left = append(t.left, w.slot)
}

// Idle says that it is now, although no sample has come for a while: energy is kept back for one no longer than needed.
func (a *Attributor) Idle(now time.Duration) {
	if a.feeds == 0 || a.sampled && now-a.last < deaf {
		return
	}
	a.showLate(now)
	a.closeTick()
	a.flushQueue()
	a.est.Flush(a.emit)
	a.sampled = false
	clear(a.node)
	if have, ok := a.timeline.Newest(); ok {
		a.place(have)
	}
}

// Flush splits all that can be split, and gives the rest to base. Nothing may be fed after it.
func (a *Attributor) Flush() {
	defer a.showAll()
	a.closeTick()
	if a.holding && len(a.queue) > 0 {
		a.release()
	}
	a.advance()
	have, ok := a.timeline.Newest()
	if !ok {
		return
	}
	if t := a.partial; t != nil && t.edge <= have {
		a.partial = nil
		a.split(t, a.timeline.GiveUp(t.edge))
	}
	a.est.Flush(a.emit)
	if a.partial != nil {
		a.drop(a.partial)
		a.partial = nil
	}
	for _, t := range a.queue {
		a.drop(t)
	}
	a.queue = nil
	a.place(have)
}

// Redescribe asks again what is known of every workload. One of which something else is known now goes on as another.
func (a *Attributor) Redescribe() {
	for _, id := range slices.Sorted(maps.Keys(a.byID)) {
		old := a.byID[id]
		d := a.cfg.Describe(id)
		if id == workload.Kernel || old.ended {
			continue
		}
		if d.ID = id; d == old.Workload {
			a.reserve(old)
			continue
		}
		old.unreserve()
		delete(a.byID, id)
		held := a.accounts.held[id]
		w := a.track(id)
		w.cpu, w.seen = old.cpu, old.seen
		w.active, w.dense, w.inFlight, w.started, w.completed = old.active, old.dense, old.inFlight, old.started, old.completed
		w.activityAt, w.told, w.flow, w.starts, w.completes = old.activityAt, old.told, old.flow, old.starts, old.completes
		if w.since = old.since; w.serves != nil && old.cold {
			w.cold, w.coldSince = true, old.coldSince
		}
		w.begun, w.stopped = old.begun, old.stopped
		a.starting(w)
		if held != nil && w.account != &held.WorkloadAccount {
			a.show(id, w.Workload, w.cold)
		}
		a.leave(old)
	}
	for _, id := range slices.Sorted(maps.Keys(a.accounts.held)) { // those that ended
		if a.cfg.Expected == nil || !a.cfg.Expected(id) {
			d := a.cfg.Describe(id)
			d.ID = id
			a.show(id, d, false)
		}
	}
}

// show gives the energy of a workload that was kept back to the account that it belongs to, and what is still to come of the slots
// it had; start says that all of that is of its start.
func (a *Attributor) show(id workload.ID, as workload.Workload, start bool) {
	h := a.accounts.held[id]
	delete(a.accounts.held, id)
	to := a.accounts.workload(as)
	var serves *FunctionAccount
	if as.Kind == workload.Function {
		serves = a.accounts.function(as.Namespace, as.Function)
	}
	for _, w := range a.bySlot {
		if w == nil || w.account != &h.WorkloadAccount {
			continue
		}
		w.account, w.serves, w.start = to, serves, start
		to.users++
		if serves != nil {
			serves.users++
		}
	}
	e, cold := h.Energy, h.ColdStart
	if start {
		e, cold = 0, e+cold
	}
	to.Energy += e
	to.ColdStart += cold
	if serves != nil {
		serves.Energy += e
		serves.ColdStart += cold
		serves.fresh += e
		serves.tick += e // the requests that it has served are told from now on
	}
	to.variance += h.variance
	to.StdDev = math.Sqrt(max(0, to.variance))
	to.fresh += h.fresh
}

// showLate shows what has been kept back for long under the name that it has.
func (a *Attributor) showLate(now time.Duration) {
	for id, h := range a.accounts.held {
		if now-h.since > nameWithin {
			a.show(id, h.workload, false)
		}
	}
}

// showAll shows all that is kept back.
func (a *Attributor) showAll() {
	for id, h := range a.accounts.held {
		a.show(id, h.workload, false)
	}
}

// Tracked returns the workloads that are seen, sorted by ID.
func (a *Attributor) Tracked() []workload.Workload {
	out := make([]workload.Workload, 0, len(a.byID))
	for _, id := range slices.Sorted(maps.Keys(a.byID)) {
		out = append(out, a.byID[id].Workload)
	}
	return out
}

// Accounts returns the accounts, which go on changing.
func (a *Attributor) Accounts() *Accounts { return a.accounts }

// Workload returns what a slot of an observed tick stands for.
func (a *Attributor) Workload(s attribution.Slot) workload.Workload { return a.bySlot[s].Workload }

// Lag returns the state of alignment.
func (a *Attributor) Lag() align.LagState { return a.lag.State() }

// Model returns what the estimator has learnt.
func (a *Attributor) Model() attribution.Model { return a.est.Model() }
