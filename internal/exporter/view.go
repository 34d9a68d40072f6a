package exporter

import (
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
)

// SnapshotView is a snapshot as JSON. Units are in the names; totals are integers and exact.
type SnapshotView struct {
	Format string      `json:"format"` // "wattlet-snapshot/1"
	Time   time.Time   `json:"time"`
	Nodes  []NodeView  `json:"nodes"`
	Meters []MeterView `json:"meters"`
}

// NodeView is a node in JSON. Totals are null until they are known, means while no recent reading is there, and each where
// nobody measures it.
type NodeView struct {
	Node         string     `json:"node"`
	Meter        string     `json:"meter"`
	Channel      int        `json:"channel"`
	EnergyUJ     *int64     `json:"energy_uj"`
	ChargeUC     *int64     `json:"charge_uc"`
	UnmeasuredUs *int64     `json:"unmeasured_us"`
	PowerUW      *int64     `json:"power_uw"`
	VoltageUV    *int64     `json:"voltage_uv"`
	CurrentUA    *int64     `json:"current_ua"`
	IntervalUs   *int64     `json:"interval_us"`
	At           *time.Time `json:"at"`
	// SourceEpoch and SourceAtUs are the instant of the totals on the source's own clock.
	SourceEpoch  uint64 `json:"source_epoch"`
	SourceAtUs   int64  `json:"source_at_us"`
	Estimated    bool   `json:"estimated"`
	Samples      uint64 `json:"samples"`
	Saturated    uint64 `json:"saturated"`
	SensorErrors uint64 `json:"sensor_errors"`
}

// MeterView is a meter in JSON.
type MeterView struct {
	Meter         string            `json:"meter"`
	Kind          string            `json:"kind"`
	Identity      string            `json:"identity"`
	Firmware      string            `json:"firmware"`
	Up            bool              `json:"up"`
	Error         string            `json:"error,omitempty"`
	LastSuccess   *time.Time        `json:"last_success"`
	Notifications uint64            `json:"notifications"`
	Duplicates    uint64            `json:"duplicates"`
	Lost          uint64            `json:"lost"`
	Recovered     uint64            `json:"recovered"`
	Restarts      uint64            `json:"restarts"`
	Connects      uint64            `json:"connects"`
	Errors        map[string]uint64 `json:"errors"`
	Clock         *ClockView        `json:"clock"`
}

// ClockView is the map of clocks in JSON.
type ClockView struct {
	OffsetUs int64   `json:"offset_us"`
	BoundUs  int64   `json:"bound_us"`
	DriftPPM float64 `json:"drift_ppm"`
}

// View returns the JSON form of a snapshot.
func View(s *accounting.Snapshot) SnapshotView {
	v := SnapshotView{Format: "wattlet-snapshot/1", Time: s.Time.UTC(), Nodes: []NodeView{}, Meters: []MeterView{}}
	for _, n := range s.Nodes {
		j := NodeView{
			Node: n.Name, Meter: n.Meter, Channel: n.Channel, At: instant(n.At), Estimated: n.Estimated,
			SourceEpoch: n.SourceEpoch, SourceAtUs: n.SourceAt.Microseconds(),
			Samples: n.Samples, Saturated: n.Saturated, SensorErrors: n.SensorErrors,
		}
		if n.Known {
			j.EnergyUJ, j.UnmeasuredUs = new(int64(n.Energy)), new(n.Unmeasured.Microseconds())
			if !n.EnergyOnly {
				j.ChargeUC = new(int64(n.Charge))
			}
		}
		if n.Fresh {
			j.PowerUW, j.IntervalUs = new(int64(n.Power)), new(n.Interval.Microseconds())
			if !n.EnergyOnly {
				j.CurrentUA = new(int64(n.Current))
			}
			if !n.EnergyOnly && !n.Estimated {
				j.VoltageUV = new(int64(n.Voltage))
			}
		}
		v.Nodes = append(v.Nodes, j)
	}
	for _, m := range s.Meters {
		j := MeterView{
			Meter: m.Name, Kind: m.Kind, Identity: m.Identity, Firmware: m.Firmware, Up: m.Up, Error: m.Err,
			LastSuccess: instant(m.LastSuccess), Notifications: m.Notifications, Duplicates: m.Duplicates, Lost: m.Lost,
			Recovered: m.Recovered, Restarts: m.Restarts, Connects: m.Connects, Errors: m.Errors,
		}
		if m.Clock.Valid {
			j.Clock = &ClockView{m.Clock.Offset.Microseconds(), m.Clock.Bound.Microseconds(), m.Clock.DriftPPM}
		}
		v.Meters = append(v.Meters, j)
	}
	return v
}

// instant is t in UTC, or null if it never was.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}
