package energy

import "time"

// Reading is what a source said about one channel at one instant: running totals, so that a reading which never
// arrives costs time resolution and no energy.
//
// Two readings may be subtracted only if their epochs are equal. All totals start at zero at the epoch's zero.
type Reading struct {
	// Epoch names one uninterrupted run of the source's totals and clock, such as a meter's boot id. Never zero.
	Epoch uint64
	// At is the source's monotonic clock at the last conversion the totals contain, since the epoch's zero.
	At time.Duration
	// Host is the best estimate of the host's wall clock at the instant At.
	Host time.Time

	// Energy and Charge are running totals since the epoch's zero.
	Energy Energy
	Charge Charge
	// Unmeasured is the running total of the time since the epoch's zero in which the source ran but did not measure.
	Unmeasured time.Duration

	// Interval is the time the means and extremes below describe; zero if the source gives none.
	Interval                    time.Duration
	Power, MinPower, MaxPower   Power
	Voltage, MinVolts, MaxVolts Voltage
	Current                     Current
	// Samples, Saturated and SensorErrors are running totals since the epoch's zero: conversions used, conversions at the
	// end of the sensor's range (their power is a lower bound), and conversions that failed.
	Samples, Saturated, SensorErrors uint64

	// Estimated is true where Energy was computed from charge and an assumed supply voltage; Voltage is then zero.
	Estimated bool
	// EnergyOnly is true where the source counts nothing else: Charge, Voltage and Current are then zero.
	EnergyOnly bool
}

// Status is the health of one source since the process started. Fields that a kind of source does not have stay zero.
type Status struct {
	// Kind is "meter", "sysfs" or "legacy".
	Kind string
	// Up is true while readings arrive as often as the source promises.
	Up bool
	// LastSuccess is the host's time of the last reading taken in; zero before the first.
	LastSuccess time.Time
	// Err is the present trouble in one line for a person; empty while Up.
	Err string
	// Errors counts failures by what failed, for example "handshake", "decode" or "read".
	Errors map[string]uint64

	// Notifications counts messages with readings that were taken in; Duplicates those dropped because they were already known
	// or older; Lost those that never came; Recovered the part of Lost that was fetched later.
	Notifications, Duplicates, Lost, Recovered uint64
	// Restarts counts new epochs seen after the first; Connects counts sessions opened.
	Restarts, Connects uint64

	// Clock is the map from the source's clock to the host's.
	Clock Clock
	// Firmware and Identity are what the source says of itself.
	Identity, Firmware string
}

// Clock is the quality of the map from a source's clock to the host's.
type Clock struct {
	// Valid is false before the first exchange; the fields below are then zero.
	Valid bool
	// Offset is host time since boot minus source time, at the last exchange.
	Offset time.Duration
	// Drift is the source's rate error relative to the host, in parts per million; positive if the source runs slow.
	DriftPPM float64
	// Bound is half the lowest round trip: the largest offset that a one-sided path could hide.
	Bound time.Duration
	// Exchanges is the number of exchanges in the fit.
	Exchanges int
}
