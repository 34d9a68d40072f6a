package exporter

import (
	"math"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/attribution"
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
	SourceEpoch uint64 `json:"source_epoch"`
	SourceAtUs  int64  `json:"source_at_us"`
	Estimated   bool   `json:"estimated"`
	// MeasuredUJ is EnergyUJ with what is not in any account yet.
	MeasuredUJ *int64 `json:"measured_uj"`
	// Attribution is null where the energy is not split.
	Attribution *AttributionView `json:"attribution,omitempty"`

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
			j.MeasuredUJ = new(int64(n.Measured))
			if n.Attribution != nil {
				j.Attribution = attributionView(n.Attribution)
			}
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

// AttributionView is how a node's energy was split, in JSON: base + departed + Σ workloads' energy and cold starts = energy.
type AttributionView struct {
	BaseUJ         int64          `json:"base_uj"`
	UnattributedUJ int64          `json:"unattributed_uj"`
	DepartedUJ     int64          `json:"departed_uj"`
	PendingUJ      int64          `json:"pending_uj"`
	InvariantUJ    int64          `json:"invariant_uj"`
	Workloads      []WorkloadView `json:"workloads"`
	Functions      []FunctionView `json:"functions"`
	Model          ModelView      `json:"model"`
}

// WorkloadView is a workload's account in JSON.
type WorkloadView struct {
	Kind        string `json:"kind"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	EnergyUJ    int64  `json:"energy_uj"`
	ColdStartUJ int64  `json:"coldstart_uj"`
	StdDevUJ    int64  `json:"stddev_uj"`
}

// FunctionView is a function's account in JSON.
type FunctionView struct {
	Namespace      string           `json:"namespace"`
	Function       string           `json:"function"`
	EnergyUJ       int64            `json:"energy_uj"`
	ColdStartUJ    int64            `json:"coldstart_uj"`
	ColdStarts     uint64           `json:"cold_starts"`
	StdDevUJ       int64            `json:"stddev_uj"`
	BaseShareUJ    map[string]int64 `json:"base_share_uj"`
	Invocations    float64          `json:"invocations"`
	OverheadUJ     int64            `json:"overhead_uj"`
	PerInvocation  *IntervalView    `json:"joules_per_invocation"`
	WattsPerCore   float64          `json:"watts_per_core"`
	PriorDominated bool             `json:"prior_dominated"`
	Collinear      bool             `json:"collinear"`
}

// IntervalView is a mean with its 95 % interval, which is null where there is too little data for one.
type IntervalView struct {
	Mean   float64  `json:"mean"`
	Low95  *float64 `json:"low95"`
	High95 *float64 `json:"high95"`
}

// ModelView is what was learnt of the node, in JSON.
type ModelView struct {
	BaseW       float64           `json:"base_w"`
	BaseStdDevW float64           `json:"base_stddev_w"`
	CoreW       float64           `json:"core_w"`
	CoreStdDevW float64           `json:"core_stddev_w"`
	LagUs       int64             `json:"lag_us"`
	LagPeak     float64           `json:"lag_peak"`
	Changes     uint64            `json:"changes"`
	Rejected    map[string]uint64 `json:"rejected"`
}

func attributionView(a *accounting.Attribution) *AttributionView {
	v := &AttributionView{
		BaseUJ: int64(a.Base), UnattributedUJ: int64(a.Unattributed), DepartedUJ: int64(a.Departed), PendingUJ: int64(a.Pending),
		InvariantUJ: int64(a.Invariant), Workloads: []WorkloadView{}, Functions: []FunctionView{},
		Model: ModelView{
			a.Model.Base, a.Model.BaseStdDev, a.Model.WattsPerCore, a.Model.WattsPerCoreStdDev, a.Lag.Lag.Microseconds(), a.Lag.Peak,
			a.Model.Changes, a.Model.Rejected,
		},
	}
	for i := range a.Workloads {
		w := &a.Workloads[i]
		v.Workloads = append(v.Workloads, WorkloadView{
			w.Kind.String(), w.Namespace, w.Name, int64(w.Energy), int64(w.ColdStart), microjoules(w.StdDev),
		})
	}
	for i := range a.Functions {
		f := &a.Functions[i]
		o := FunctionView{
			Namespace: f.Namespace, Function: f.Name, EnergyUJ: int64(f.Energy), ColdStartUJ: int64(f.ColdStart), ColdStarts: f.ColdStarts,
			StdDevUJ: microjoules(f.StdDev), BaseShareUJ: map[string]int64{}, Invocations: f.Invocations, OverheadUJ: microjoules(f.Overhead),
			WattsPerCore: f.WattsPerCore, PriorDominated: f.PriorDominated, Collinear: f.Collinear,
		}
		for _, p := range attribution.Policies {
			if p != attribution.Requested || f.Requested {
				o.BaseShareUJ[p.String()] = int64(f.Shares[p])
			}
		}
		if f.Measured {
			o.PerInvocation = &IntervalView{Mean: f.Mean}
		}
		if f.Interval {
			o.PerInvocation.Low95, o.PerInvocation.High95 = new(f.Low), new(f.High)
		}
		v.Functions = append(v.Functions, o)
	}
	return v
}

func microjoules(j float64) int64 { return int64(math.Round(j * 1e6)) }
