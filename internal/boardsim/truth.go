package boardsim

import (
	"cmp"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// state is how far a pod is in its life.
type state uint8

const (
	ready state = iota // and everything that is no pod
	starting
	stopping
	vanished
)

// work is a workload at work: its counters as the kernel keeps them, and the truth about its energy.
type work struct {
	info  workload.Workload
	fn    *function
	state state
	// created and ready are zero for pods that were there from the start.
	created, ready time.Duration
	uid            string
	// container and pause are the IDs of the pod's two containers.
	container, pause string

	class  int // pinned to this class; negative if not
	quota  float64
	budget time.Duration
	period int64

	cpu                []time.Duration // by core, as the kernel shows it
	sandbox            []time.Duration // the part of it in the sandbox
	system, live       time.Duration   // other parts
	started, completed int64
	active, cold       sum
}

func (b *Board) create(w *work) *work {
	w.cpu, w.sandbox, w.period = make([]time.Duration, len(b.cores)), make([]time.Duration, len(b.cores)), -1
	b.works = append(b.works, w)
	return w
}

func (w *work) inFlight() int64 { return w.started - w.completed }

func (w *work) total() (t time.Duration) {
	for _, c := range w.cpu {
		t += c
	}
	return t
}

// Truth is where a board's energy went since it was switched on, in joules: Base and the energies of all workloads add up to
// Total. The rule, since the power of a board is not a sum of powers:
//
// Base is what the board would have drawn in the same step at the same temperature, with the same fan and the same limits,
// had nothing run and its governors been at rest: at the highest frequency within the limits under performance, the one that
// was set under userspace, otherwise at the lowest. So what heat adds to the leakage, and the fan, stay with the board.
//
// All that it drew beyond that, in a step of a few milliseconds, is shared by those that ran, in proportion to the dynamic
// energy of their own cores and memory accesses. So they share what a cluster needs to be awake, what the regulators lose
// more, and what a frequency costs that a governor raised for any of them; while it stays raised after the last has ended,
// those of the last step pay.
//
// A pod's energy until it is ready, and what kubelet and container runtime did for its start, is in ColdStart and nowhere
// else.
type Truth struct {
	At          time.Duration
	Total, Base float64
	// Workloads are all that ever were, those that exist first, in order of creation.
	Workloads []WorkloadTruth
	// Functions are sorted by namespace and name.
	Functions []FunctionTruth
	// ColdStarts are in order of the pods in Workloads.
	ColdStarts []ColdStartTruth
}

// WorkloadTruth is the energy of one workload, in joules, and its CPU time.
type WorkloadTruth struct {
	workload.Workload
	Energy, ColdStart float64
	CPU               time.Duration
	// Live is the part of CPU that a reader of live processes would have found.
	Live time.Duration
}

// FunctionTruth is the energy of all pods of a function, in joules.
type FunctionTruth struct {
	Namespace, Function string
	Energy, ColdStart   float64
	Invocations, Starts int64
}

// ColdStartTruth is the energy of one start of a pod, in joules; Ready is zero if it was not yet.
type ColdStartTruth struct {
	Function       string
	Workload       workload.ID
	Created, Ready time.Duration
	Energy         float64
}

// Invocation is a request that was answered.
type Invocation struct {
	Namespace, Function string
	// Workload is the pod that answered.
	Workload workload.ID
	// Arrived is when the request came, Start when a pod began with it.
	Arrived, Start, End time.Duration
	// Energy is that of its own threads, in joules.
	Energy float64
}

// Truth returns where the energy went.
func (b *Board) Truth() Truth {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.truth()
}

func (b *Board) truth() Truth {
	t := Truth{At: b.now, Total: b.total.value(), Base: b.base.value()}
	for _, f := range b.functions {
		t.Functions = append(t.Functions, FunctionTruth{Namespace: f.Namespace, Function: f.Name, Invocations: f.completed, Starts: f.starts})
	}
	for _, list := range [][]*work{b.works, b.gone} {
		for _, w := range list {
			e, c := w.active.value(), w.cold.value()
			t.Workloads = append(t.Workloads, WorkloadTruth{Workload: w.info, Energy: e, ColdStart: c, CPU: w.total(), Live: w.live})
			if w.fn == nil {
				continue
			}
			i := slices.Index(b.functions, w.fn)
			t.Functions[i].Energy += e
			t.Functions[i].ColdStart += c
			if w.created > 0 {
				t.ColdStarts = append(t.ColdStarts, ColdStartTruth{w.fn.Name, w.info.ID, w.created, w.ready, c})
			}
		}
	}
	slices.SortFunc(t.Functions, func(a, b FunctionTruth) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function))
	})
	return t
}

// TakeInvocations returns the requests answered since it was last called; of very many, the latest.
func (b *Board) TakeInvocations() []Invocation {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.invocations
	b.invocations = nil
	return i
}

// Snapshot is what a board shows to people.
type Snapshot struct {
	Name, Model string
	At          time.Duration
	// Power is in watts, Energy in joules since the start, Celsius the temperature of the processor.
	Power, Energy, Celsius float64
	Fan                    bool
	Policies               []Policy
	// Runnable is the number of threads that want a core.
	Runnable int
}

// Policy is the state of a core class.
type Policy struct {
	Class, Governor     string
	CPUs                int
	KHz, MinKHz, MaxKHz int64
	Microvolt           int64
	Transitions         int64
}

// Snapshot returns the present state.
func (b *Board) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Snapshot{
		Name: b.name, Model: b.spec.Model, At: b.now, Power: b.power, Energy: b.total.value(), Celsius: b.celsius, Fan: b.fan,
		Runnable: len(b.run),
	}
	for _, k := range b.clusters {
		p := k.Points[k.at]
		s.Policies = append(s.Policies, Policy{
			Class: k.Name, Governor: k.governor, CPUs: k.count, KHz: p.KHz, Microvolt: p.Microvolt, MinKHz: k.Points[k.min].KHz,
			MaxKHz: k.Points[k.max].KHz, Transitions: k.transitions,
		})
	}
	return s
}
