package accounting

import (
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Snapshot is the state of all accounts at one instant. It is never changed after it was published.
type Snapshot struct {
	Time   time.Time
	Nodes  []Node
	Meters []Source
	// Errors counts failures of sources that are not meters, by source.
	Errors map[string]uint64
	// Sampled is when CPU times were last read; zero before the first time and where nothing is split.
	Sampled time.Time
	// Reached is when other sources last answered, by source.
	Reached map[string]time.Time
}

// Node is the account of one node. Totals only grow, but for a reset to zero.
type Node struct {
	Name    string
	Meter   string
	Channel int

	// Known is false while the totals must not be published yet.
	Known bool
	// Energy is what has been entered into the accounts: where the node's energy is split, that lags behind Measured by what is
	// still on its way.
	Energy     energy.Energy
	Measured   energy.Energy
	Charge     energy.Charge
	Unmeasured time.Duration
	// Samples, Saturated and SensorErrors count the channel's conversions since the account was opened.
	Samples, Saturated, SensorErrors uint64

	// At is the instant of the last reading; zero before the first of this run. SourceEpoch and SourceAt are the same on the
	// source's clock.
	At          time.Time
	SourceEpoch uint64
	SourceAt    time.Duration

	// Fresh is true while the last reading is recent enough for the means below, which are over Interval.
	Fresh    bool
	Interval time.Duration
	Power    energy.Power
	Voltage  energy.Voltage
	Current  energy.Current
	// Estimated and EnergyOnly are as in the last reading.
	Estimated, EnergyOnly bool

	// Attribution is nil where the energy is not split.
	Attribution *Attribution
}

// Attribution is how a node's energy was split.
type Attribution struct {
	// Base is the energy of the idle board and what could not be given to anyone, which is Unattributed; Departed is that of
	// workloads that have left; Pending is measured and not yet in any account.
	Base, Unattributed, Departed, Pending energy.Energy
	// Invariant is the node's energy less Base, Departed, and all workloads: zero.
	Invariant energy.Energy
	Workloads []WorkloadEnergy
	Functions []FunctionEnergy
	Model     attribution.Model
	Lag       align.LagState
	// Frequencies are those of the core classes, the reference class first; none where the kernel does not tell.
	Frequencies []ClassFrequency
}

// ClassFrequency is how fast the cores of a class ran, in the mean of the newest sample of CPU times.
type ClassFrequency struct {
	Class string // empty where all cores are alike
	Hertz float64
}

// WorkloadEnergy is the account of a workload.
type WorkloadEnergy struct {
	Kind              workload.Kind
	Namespace, Name   string
	Energy, ColdStart energy.Energy
	StdDev            float64 // J, since the start of this process
}

// FunctionEnergy is the account of a function.
type FunctionEnergy struct {
	Namespace, Name    string
	Energy, ColdStart  energy.Energy
	ColdStarts         uint64
	StdDev             float64 // J, since the start of this process
	WattsPerCore       float64
	WattsPerCoreStdDev float64
	PriorDominated     bool
	Collinear          bool
	Shares             [len(attribution.Policies)]energy.Energy // of the base, by policy
	Requested          bool                                     // the CPU it has reserved is known
	Invocations        float64
	// Mean energy of an invocation with its 95 % interval, J; Measured and Interval say whether there are such.
	Mean, Low, High    float64
	Measured, Interval bool
	Overhead           float64 // J, of times without any request
	Histogram          Histogram
}

// Source is the health of one meter.
type Source struct {
	Name string
	energy.Status
}
