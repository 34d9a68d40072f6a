// Package attribution splits the measured energy of a node among its workloads, exactly and with an uncertainty. It is pure:
// the same intervals give the same shares, live and in replay.
package attribution

import (
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// MaxClasses bounds the core classes of a node.
const MaxClasses = 4

// ReportPeriod is the usual time between two reports. Periods end at multiples of it on the clock of the intervals, or at the first
// end of an interval thereafter.
const ReportPeriod = 10 * time.Second

// Slot is a workload's place in an estimator, from Enter until a tick names it as left. Slots are small and are used again.
type Slot int32

// Board is what is known of a node before anything is measured.
type Board struct {
	// Cores is the number of cores per class; classes beyond the last are 0.
	Cores [MaxClasses]int
	// Idle and Peak are the board's power with nothing and with all cores busy, W. Zero where unknown.
	Idle, Peak float64
	// Gain is the relative standard deviation of the meter's gain; it does not shrink with time. Noise is that of its power
	// over one second, W. Zero where unknown.
	Gain, Noise float64
	// Sharing is the relative standard deviation of a total that comes of the board not being a sum of its parts: cores share
	// clocks, supplies and heat, and whose that is, is a convention that no data decide. It does not shrink with time, and is
	// part of totals only. Zero for a board that is a sum.
	Sharing float64
}

// Interval is one tick of a node: what was measured and what ran, over the same time.
type Interval struct {
	// Start and End are on the host's monotonic clock. An interval starts where the last one ended, or later.
	Start, End time.Duration
	// Energy is what the meter measured; it may be negative by an offset of the sensor.
	Energy energy.Energy
	// Weight is what a CPU-second of each class costs relative to one of the reference class at its highest frequency, by prior
	// knowledge of frequencies and voltages; 1 where nothing is known.
	Weight [MaxClasses]float64
	// Node is the busy time of all cores per class, CPU-seconds. Where classes are unknown all is in class 0.
	Node [MaxClasses]float64
	// Uses are the workloads that used CPU time or had requests in flight, by ascending slot. The slice belongs to the caller.
	Uses []Use
}

// Use is what one workload used in an interval.
type Use struct {
	Slot Slot
	// CPU is per class, CPU-seconds; Unclassed is the time of which the kernel did not tell the class.
	CPU       [MaxClasses]float64
	Unclassed float64
	// InFlight is the mean number of requests in flight, negative where nobody knows; Started and Completed are counts of
	// this interval.
	InFlight, Started, Completed float64
	// Cold is true while the workload is being started: its share goes to the cold-start account.
	Cold bool
}

// Total returns the CPU-seconds of all classes.
func (u *Use) Total() float64 {
	t := u.Unclassed
	for _, c := range u.CPU {
		t += c
	}
	return t
}

// Tick is one interval, or several consecutive ones, whose energy has been split. Energy == Base + Σ (Shares.Energy +
// Shares.ColdStart), always.
type Tick struct {
	Start, End time.Duration
	// Energy is the interval's; where it was negative it is zero, and later ticks have less until it is made up for.
	Energy energy.Energy
	// Base is the energy of the idle board, and what could not be given to anyone.
	Base energy.Energy
	// Shares are by ascending slot. The slice belongs to the estimator and is valid until emit returns.
	Shares []Share
	// Left are the slots that are in no later tick and may be given to other workloads from now on.
	Left []Slot
	// Report is set on the last tick of a report period.
	Report *Report
}

// Share is a workload's part of a tick's energy; never negative.
type Share struct {
	Slot      Slot
	Energy    energy.Energy
	ColdStart energy.Energy
}

// Report has the uncertainty of what was attributed since the last report. It is valid until emit returns.
type Report struct {
	Start, End time.Duration
	// Workloads and Functions have standard deviations, J, random and systematic parts together: of the energy of the period
	// and of that since the start. Workloads is by slot, Functions in the order in which they were first seen.
	Workloads []Deviation
	Functions []FunctionDeviation
}

// Deviation is the uncertainty of one workload's energy, J.
type Deviation struct {
	Slot          Slot
	Period, Total float64
}

// FunctionDeviation is that of all workloads of one function together, with what can be said of the estimate.
type FunctionDeviation struct {
	Namespace, Function string
	Period, Total       float64
	// Energy is what was attributed to the function since the start, J.
	Energy float64
	// WattsPerCore is the estimate of the function's power per weighted busy core, W, and StdDev its standard deviation.
	WattsPerCore, StdDev float64
	// PriorDominated is true while the data say less about this function than was assumed at first. Collinear is true if it
	// cannot be told from another that runs whenever it runs.
	PriorDominated, Collinear bool
}

// Model is what an estimator has learnt of the node; fields it has no notion of are zero.
type Model struct {
	// Base and its standard deviation, W.
	Base, BaseStdDev float64
	// WattsPerCore is the mean power per weighted busy core, W.
	WattsPerCore, WattsPerCoreStdDev float64
	// Lag is how much later than the CPU time the energy is still seen to come, s, and LagStdDev its standard deviation.
	Lag, LagStdDev float64
	// Smear is the part of what an interval and the one beside it differ by that the sensor mixes: 0 for one that integrates.
	Smear float64
	// Innovation is the last window's error of prediction over its standard deviation.
	Innovation float64
	// Changes counts detected changes of the board's behaviour; LastChange is when.
	Changes    uint64
	LastChange time.Duration
	// Rejected counts intervals that were not fit to learn from, by reason.
	Rejected map[string]uint64
}

// Estimator splits intervals. Ticks are emitted in order, each once, at the latest when a few more intervals are in; what
// Flush has not emitted is never emitted.
type Estimator interface {
	Name() string
	// Enter makes room for a workload. All workloads of one function (namespace and name) share what is learnt of it.
	Enter(w workload.Workload) Slot
	// Leave says that no later interval uses the slot.
	Leave(s Slot)
	// Regime says that the board is expected to behave differently from the next interval on: a governor or limit changed.
	Regime(what string)
	// Step takes in the next interval.
	Step(in *Interval, emit func(*Tick))
	// Flush decides what is still undecided.
	Flush(emit func(*Tick))
	// Model may be called between steps.
	Model() Model
}
