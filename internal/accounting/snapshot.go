package accounting

import (
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// Snapshot is the state of all accounts at one instant. It is never changed after it was published.
type Snapshot struct {
	Time   time.Time
	Nodes  []Node
	Meters []Source
	// Errors counts failures of sources that are not meters, by source.
	Errors map[string]uint64
}

// Node is the account of one node. Totals only grow, but for a reset to zero.
type Node struct {
	Name    string
	Meter   string
	Channel int

	// Known is false while the totals must not be published yet.
	Known      bool
	Energy     energy.Energy
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
}

// Source is the health of one meter.
type Source struct {
	Name string
	energy.Status
}
