// Package accounting keeps each node's account: it folds readings of meters into totals that only grow, and publishes one
// immutable snapshot a tick, which exporter, API and trace all read.
package accounting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Meter is a source of readings: a Wattlet meter, a sensor of the board itself, or a board with the earlier firmware.
type Meter interface {
	// Run delivers readings of all channels to sink until ctx ends. It reconnects by itself.
	Run(ctx context.Context, sink func(channel int, r energy.Reading)) error
	// Status may be called at any time.
	Status() energy.Status
}

// UsageReader reads the CPU time of the workloads of the node that the agent runs on.
type UsageReader interface {
	// Read returns what the kernel's counters say now; with an error, what could be read. The sample is valid until the next call.
	Read() (*workload.Sample, error)
}

// AttributionConfig says whose energy is split among workloads, and by what.
type AttributionConfig struct {
	// Node is the node the agent runs on.
	Node string
	AttributorConfig
	Usage UsageReader
	// Uptime is the monotonic clock of the samples.
	Uptime func() time.Duration
}

// NodeConfig says which channel of which meter measures a node.
type NodeConfig struct {
	Name    string
	Meter   string
	Channel int
}

// Config is what a Ledger is made of.
type Config struct {
	Nodes []NodeConfig
	// Tick is the time between two snapshots.
	Tick time.Duration
	// StaleAfter is the age at which a reading's means are no longer published. Totals stay.
	StaleAfter time.Duration
	// Store keeps the totals over restarts; nil for none.
	Store *Store
	// SaveEvery is the time between two saves; a save also ends Run.
	SaveEvery time.Duration
	Logger    *slog.Logger
	// Now is the wall clock with a monotonic reading.
	Now func() time.Time
	// Attribution is nil where no node's energy is split.
	Attribution *AttributionConfig
}

// Ledger holds the accounts of all nodes of this agent.
type Ledger struct {
	cfg      Config
	snapshot atomic.Pointer[Snapshot]

	// reading is held while CPU times are read and entered; it is taken before mu.
	reading sync.Mutex

	mu     sync.Mutex
	meters map[string]Meter
	nodes  []*node
	errors map[string]uint64
	// failing keeps the log to changes of state; unread does for the samples.
	failing bool
	unread  string
	sampled time.Time
	reached map[string]time.Time // when sources that are not meters last answered
	own     *node                // the node with an attributor; nil for none

	recordings []*Recording
	ended      bool // no record will follow
}

// node is an account with what a snapshot needs beside it.
type node struct {
	NodeConfig
	account
	// tick is the reading at the last tick, to which the means of the snapshot reach back.
	tick energy.Reading

	attributor *Attributor   // nil where nothing is split
	fed        energy.Energy // of the account's sum, at the last reading
	feed       energy.Energy // what the attributor was told
}

// New returns a ledger with the accounts restored from the store and the first snapshot published.
func New(cfg Config) (*Ledger, error) {
	l := &Ledger{cfg: cfg, meters: map[string]Meter{}, errors: map[string]uint64{}, reached: map[string]time.Time{}}
	now := cfg.Now()
	var state State
	if cfg.Store != nil {
		var err error
		state, err = cfg.Store.Load(now)
		if aside := (*SetAsideError)(nil); errors.As(err, &aside) {
			cfg.Logger.Warn("counters begin at zero", "err", aside)
			l.errors["state"]++
		} else if err != nil {
			return nil, err
		}
	}
	for _, nc := range cfg.Nodes {
		n := &node{NodeConfig: nc, account: account{start: now}}
		if s, ok := state.Nodes[nc.Name]; ok {
			n.restore(s, state.Clean)
		}
		if a := cfg.Attribution; a != nil && a.Node == nc.Name {
			saved := state.Nodes[nc.Name]
			if n.resets > 0 {
				saved = NodeState{}
			}
			n.attributor = NewAttributor(a.AttributorConfig, restoreAccounts(saved, state.Clean))
			n.fed, n.feed = n.sum.Energy, n.sum.Energy
			l.own = n
		}
		l.nodes = append(l.nodes, n)
	}
	if cfg.Store != nil {
		// From here on more may be published than is saved, so the saved words are no longer the last ones.
		if err := cfg.Store.Save(l.state(false), now); err != nil {
			return nil, fmt.Errorf("%w; choose another place with --state.directory, or none with --state.directory=", err)
		}
	}
	l.publish(now)
	return l, nil
}

// AddMeter makes a meter's health part of the snapshots. It is apart from New because some meters need the last reading of
// their own past run to be made.
func (l *Ledger) AddMeter(name string, m Meter) {
	l.mu.Lock()
	l.meters[name] = m
	l.mu.Unlock()
	l.publish(l.cfg.Now())
}

// restore continues a saved account. One that another channel measured goes on from its totals alone.
func (n *node) restore(s NodeState, clean bool) {
	n.sum, n.past, n.restored, n.clean = s.Totals, s.PastEpochs, true, clean
	n.last, n.start = s.Last, s.Last.Host
	if s.Meter != n.Meter || s.Channel != n.Channel {
		n.last = energy.Reading{}
		if !clean {
			n.reset()
		}
		n.restored = false
	}
}

// Last returns the last reading known of a meter's channel, from this run or the saved state; for sources whose own restart
// depends on it.
func (l *Ledger) Last(meter string, channel int) (energy.Reading, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		if n.Meter == meter && n.Channel == channel && n.last.Epoch != 0 {
			return n.last, true
		}
	}
	return energy.Reading{}, false
}

// Sink returns the function that takes in the readings of a meter.
func (l *Ledger) Sink(meter string) func(channel int, r energy.Reading) {
	return func(channel int, r energy.Reading) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, n := range l.nodes {
			if n.Meter == meter && n.Channel == channel {
				before := n.resets
				if n.observe(r) && n.attributor != nil {
					n.tell(n.resets != before, l.uptime(r.Host))
					l.recordReading(r)
				}
				if n.resets != before {
					l.cfg.Logger.Warn("counters begin at zero again: the agent did not end in order and its saved totals are too old",
						"node", n.Name)
				}
			}
		}
	}
}

// uptime returns a time of the wall clock on the clock of the samples. None is to come: a single reading that seems so would
// hold up all that are after it.
func (l *Ledger) uptime(t time.Time) time.Duration {
	return l.cfg.Attribution.Uptime() - max(0, l.cfg.Now().Sub(t))
}

// tell feeds the attributor with the account's growth.
func (n *node) tell(reset bool, at time.Duration) {
	if reset { // with the first reading of a run or not at all
		n.fed, n.feed = 0, 0
		n.attributor.Accounts().reset()
	}
	n.feed += n.sum.Energy - n.fed
	n.fed = n.sum.Energy
	n.attributor.Energy(at, n.feed, n.sum.Unmeasured)
}

// Activity takes in what a workload was asked to do.
func (l *Ledger) Activity(a workload.Activity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own != nil {
		l.own.attributor.Activity(a)
		l.recordActivity(a)
	}
}

// apart is the shortest time between two readings of the CPU times.
const apart = 50 * time.Millisecond

// Event takes in something that happened to a workload or to the node.
func (l *Ledger) Event(e workload.Event) {
	if e.What == workload.Ready && l.starting(e) {
		// A tick is of the start or of the work, as a whole, and often longer than a start: it ends here.
		e.At = max(e.At, l.read()+1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own != nil {
		l.own.attributor.Event(e)
		l.recordEvent(e)
	}
}

// Redescribe asks again what is known of the workloads.
func (l *Ledger) Redescribe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own != nil {
		l.own.attributor.Redescribe()
	}
}

// Tracked returns the workloads that are seen, sorted by ID.
func (l *Ledger) Tracked() []workload.Workload {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own == nil {
		return nil
	}
	return l.own.attributor.Tracked()
}

// starting says whether an event is of a workload that starts, and the last reading was not just before.
func (l *Ledger) starting(e workload.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own == nil {
		return false
	}
	w := l.own.attributor.byID[e.ID]
	return w != nil && w.cold && l.cfg.Attribution.Uptime()-l.own.attributor.last >= apart
}

// sample is what is done at each tick: to read the CPU time of all workloads, and to see whether that cannot be done for long.
func (l *Ledger) sample() {
	if l.own == nil {
		return
	}
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.attributor.Idle(l.cfg.Attribution.Uptime())
	l.recordTick()
}

// read reads the CPU time of all workloads, and returns when; 0 if there are none.
func (l *Ledger) read() (at time.Duration) {
	l.reading.Lock()
	defer l.reading.Unlock()
	s, err := l.cfg.Attribution.Usage.Read()
	if err != nil {
		l.Count("cgroup")
		text := err.Error()
		if text != l.unread {
			l.cfg.Logger.Warn("not all CPU times can be read", "err", err)
		}
		l.unread = text
	} else {
		l.unread = ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != nil && len(s.Usage) > 0 {
		l.own.attributor.Sample(s)
		l.recordSample(s)
		l.sampled = l.cfg.Now()
		at = s.At
	}
	return at
}

// Count counts an error of a source that is not a meter.
func (l *Ledger) Count(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[source]++
}

// Reached says that a source that is not a meter has answered.
func (l *Ledger) Reached(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached[source] = l.cfg.Now()
}

// Run publishes a snapshot each tick and saves the totals now and then, and once more at the end.
func (l *Ledger) Run(ctx context.Context) error {
	tick := time.NewTicker(l.cfg.Tick)
	defer tick.Stop()
	lastSave := l.cfg.Now()
	for {
		select {
		case <-ctx.Done():
			l.endRecordings()
			l.save(true)
			return nil
		case <-tick.C:
			l.sample()
			now := l.cfg.Now()
			l.publish(now)
			if now.Sub(lastSave) >= l.cfg.SaveEvery {
				lastSave = now
				l.save(false)
			}
		}
	}
}

// save writes the totals; clean says that nothing newer will be published by this process.
func (l *Ledger) save(clean bool) {
	if l.cfg.Store == nil {
		return
	}
	if clean {
		l.settle()
		l.publish(l.cfg.Now())
	}
	err := l.cfg.Store.Save(l.state(clean), l.cfg.Now())
	switch {
	case err != nil:
		l.Count("state")
		if !l.failing {
			l.cfg.Logger.Error("the totals cannot be saved; after a restart they would begin at the last save", "err", err)
		}
	case l.failing:
		l.cfg.Logger.Info("the totals are saved again")
	}
	l.failing = err != nil
}

// settle splits what is still waiting, before the end.
func (l *Ledger) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own != nil {
		l.own.attributor.Flush()
	}
}

// state returns what is to be saved.
func (l *Ledger) state(clean bool) State {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := State{Clean: clean, Nodes: map[string]NodeState{}}
	for _, n := range l.nodes {
		if n.restored { // nothing came since the start: the saved words stand, and so does their being clean or not
			state.Clean = state.Clean && n.clean
		}
		last := n.last
		if last.Epoch == 0 {
			last.Host = n.start // from here on nobody measured
		}
		s := NodeState{
			Meter: n.Meter, Channel: n.Channel, Totals: n.sum, Last: last, PastEpochs: slices.Clone(n.past),
		}
		if n.attributor != nil {
			s.Accounts = n.attributor.Accounts().save()
		}
		state.Nodes[n.Name] = s
	}
	return state
}

// Snapshot returns the newest snapshot; never nil.
func (l *Ledger) Snapshot() *Snapshot { return l.snapshot.Load() }

func (l *Ledger) publish(now time.Time) {
	s := &Snapshot{Time: now}
	l.mu.Lock()
	meters := maps.Clone(l.meters)
	l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(meters)) { // without the lock: a meter may wait for its sink
		s.Meters = append(s.Meters, Source{Name: name, Status: meters[name].Status()})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		s.Nodes = append(s.Nodes, n.publish(now, l.cfg.StaleAfter))
	}
	s.Errors = maps.Clone(l.errors)
	s.Sampled = l.sampled
	s.Reached = maps.Clone(l.reached)
	l.snapshot.Store(s)
}

// publish returns the node's part of a snapshot and moves the start of the next means.
func (n *node) publish(now time.Time, staleAfter time.Duration) Node {
	out := Node{
		Name: n.Name, Meter: n.Meter, Channel: n.Channel, Known: n.known(),
		Energy: n.sum.EnergyMark, Charge: n.sum.ChargeMark, Unmeasured: n.sum.Unmeasured,
		Samples: n.sum.Samples, Saturated: n.sum.Saturated, SensorErrors: n.sum.SensorErrors,
	}
	out.Measured = out.Energy
	if n.attributor != nil {
		// What is published as the node's energy is what has been entered into accounts, so that at any time the parts make the
		// whole; the rest is on its way.
		out.Attribution = n.attributor.snapshot()
		out.Energy = n.attributor.Accounts().Posted - n.attributor.Accounts().Held()
		out.Attribution.Pending = max(0, n.feed-out.Energy)
	}
	r := n.last
	if r.Epoch == 0 || n.restored {
		return out
	}
	out.At, out.SourceEpoch, out.SourceAt, out.Estimated, out.EnergyOnly = r.Host, r.Epoch, r.At, r.Estimated, r.EnergyOnly
	if now.Sub(r.Host) > staleAfter {
		n.tick = r
		return out
	}
	// Over the whole tick where it can be had, since one report of 100 ms stands for little, and over the time in it that was
	// measured: energy of the rest is not there.
	before := n.tick
	n.tick = r
	switch measured := (r.At - before.At) - (r.Unmeasured - before.Unmeasured); {
	case before.Epoch == r.Epoch && measured > 0:
		out.Power = (r.Energy - before.Energy).Over(measured)
		out.Current = (r.Charge - before.Charge).Over(measured)
		out.Interval = measured
	case r.Interval > 0:
		out.Power, out.Current, out.Interval = r.Power, r.Current, r.Interval
	default:
		return out // totals only
	}
	out.Fresh, out.Voltage = true, r.Voltage
	return out
}
