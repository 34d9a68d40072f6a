package exporter

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/workload"
)

// RecordsFormat is the format of /api/v1/records: one JSON object a line, of which "type" says what it is. Fields are named as
// the columns of wattlet-trace/1, with their units; integers are exact, and beyond 53 bits for boot_id. All times but start are
// microseconds of the host's clock since boot, and none but those of what ended is before start_us.
//
//	header    format, node, agent, start, start_us, tick_us, cores, operating_points, meter: the first line, see RecordsHeader
//	workload  workload, kind, namespace, name, function: before the first line that names it, and again when it changes
//	reading   received_us, meter_us, boot_id, energy_uj, charge_uc, voltage_uv, current_ua; the last three where measured
//	sample    at_us, usage: [{workload, class, at_us, cpu_us}], ended: [workload], frequency: [{class, at_us, khz, time_us}]
//	activity  workload, at_us, in_flight, started, completed
//	event     workload, at_us, event
//	tick      at_us: all of a tick was told. Comes each tick_us, whatever else there is to tell
//	end       reason: the last line. A stream without it was broken
//
// Readers skip types and fields that they do not know: those may come without a new version.
const RecordsFormat = "wattlet-records/1"

// writePatience is how long a reader may take nothing of what is written to it.
const writePatience = 30 * time.Second

// RecordsHeader is the first line of the records.
type RecordsHeader struct {
	Type   string `json:"type"`
	Format string `json:"format"`
	Node   string `json:"node"`
	// Agent is the version of the agent.
	Agent string `json:"agent"`
	// Start and StartUs are the same instant, of the wall clock and since boot.
	Start   time.Time `json:"start"`
	StartUs int64     `json:"start_us"`
	TickUs  int64     `json:"tick_us"`
	// Cores is the number of cores by class; the class is empty where all are alike.
	Cores           map[string]int              `json:"cores"`
	OperatingPoints map[string][]OperatingPoint `json:"operating_points,omitempty"`
	Meter           RecordsMeter                `json:"meter"`
}

// OperatingPoint is a frequency with the voltage it needs.
type OperatingPoint struct {
	KHz       int64 `json:"khz"`
	Microvolt int64 `json:"microvolt"`
}

// RecordsMeter is what measures the node, and its errors as in the trace's; zero where unknown.
type RecordsMeter struct {
	Name       string  `json:"name"`
	Channel    int     `json:"channel"`
	GainStdDev float64 `json:"gain_stddev,omitempty"`
	NoiseUW    int64   `json:"noise_uw,omitempty"`
}

// RecordsReading is a reading of the node's meter.
type RecordsReading struct {
	Type       string `json:"type"`
	ReceivedUs int64  `json:"received_us"`
	MeterUs    int64  `json:"meter_us"`
	BootID     uint64 `json:"boot_id"`
	EnergyUJ   int64  `json:"energy_uj"`
	ChargeUC   *int64 `json:"charge_uc,omitempty"`
	VoltageUV  *int64 `json:"voltage_uv,omitempty"`
	CurrentUA  *int64 `json:"current_ua,omitempty"`
}

// RecordsEnd is the last line of the records.
type RecordsEnd struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

type sampleLine struct {
	Type      string          `json:"type"`
	AtUs      int64           `json:"at_us"`
	Usage     []usageLine     `json:"usage"`
	Ended     []workload.ID   `json:"ended,omitempty"`
	Frequency []frequencyLine `json:"frequency,omitempty"`
}

type usageLine struct {
	Workload workload.ID `json:"workload"`
	Class    string      `json:"class,omitempty"`
	AtUs     int64       `json:"at_us"`
	CPUUs    int64       `json:"cpu_us"`
}

type frequencyLine struct {
	Class  string `json:"class,omitempty"`
	AtUs   int64  `json:"at_us"`
	KHz    int64  `json:"khz"`
	TimeUs int64  `json:"time_us"`
}

type workloadLine struct {
	Type      string      `json:"type"`
	Workload  workload.ID `json:"workload"`
	Kind      string      `json:"kind"`
	Namespace string      `json:"namespace,omitempty"`
	Name      string      `json:"name,omitempty"`
	Function  string      `json:"function,omitempty"`
}

type activityLine struct {
	Type      string      `json:"type"`
	Workload  workload.ID `json:"workload"`
	AtUs      int64       `json:"at_us"`
	InFlight  int64       `json:"in_flight"`
	Started   int64       `json:"started"`
	Completed int64       `json:"completed"`
}

type eventLine struct {
	Type     string      `json:"type"`
	Workload workload.ID `json:"workload"`
	AtUs     int64       `json:"at_us"`
	Event    string      `json:"event"`
}

type tickLine struct {
	Type string `json:"type"`
	AtUs int64  `json:"at_us"`
}

// records streams the own node's records until the reader leaves, or is too slow, or the agent ends.
func records(cfg Config) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		rec, err := cfg.Record()
		switch {
		case errors.Is(err, accounting.ErrNotSplit):
			http.Error(w, err.Error(), http.StatusNotImplemented)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer rec.Close()
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Cache-Control", "no-store")
		ctl := http.NewResponseController(w)
		enc := json.NewEncoder(w)
		// What the server cannot do for this connection (deadlines, in a test) is no reason not to serve it.
		_ = ctl.SetWriteDeadline(time.Now().Add(writePatience))
		if enc.Encode(recordsHeader(rec, cfg.Version)) != nil || ctl.Flush() != nil {
			return // the reader went away, here and below
		}
		for {
			batch, err := rec.Next(req.Context())
			_ = ctl.SetWriteDeadline(time.Now().Add(writePatience))
			if err != nil {
				_ = enc.Encode(RecordsEnd{"end", err.Error()})
				return
			}
			for _, r := range batch {
				if err := enc.Encode(recordLine(r)); err != nil {
					return
				}
			}
			if err := ctl.Flush(); err != nil {
				return
			}
		}
	}
}

func recordsHeader(r *accounting.Recording, version string) RecordsHeader {
	h := RecordsHeader{
		Type: "header", Format: RecordsFormat, Node: r.Node.Name, Agent: version,
		Start: r.Wall.UTC(), StartUs: r.Start.Microseconds(), TickUs: r.Interval.Microseconds(), Cores: map[string]int{},
		Meter: RecordsMeter{r.Node.Meter, r.Node.Channel, r.Board.Gain, int64(math.Round(r.Board.Noise * 1e6))},
	}
	for _, c := range r.Board.Classes {
		h.Cores[c.Name] = c.Cores
		for _, p := range c.Points {
			if h.OperatingPoints == nil {
				h.OperatingPoints = map[string][]OperatingPoint{}
			}
			h.OperatingPoints[c.Name] = append(h.OperatingPoints[c.Name], OperatingPoint(p))
		}
	}
	return h
}

// recordLine returns a record as JSON has it.
func recordLine(rec accounting.Record) any {
	switch r := rec.(type) {
	case accounting.Received:
		l := RecordsReading{"reading", r.At.Microseconds(), r.Reading.At.Microseconds(), r.Epoch, int64(r.Energy), nil, nil, nil}
		if !r.EnergyOnly {
			l.ChargeUC = new(int64(r.Charge))
			if r.Interval > 0 {
				l.CurrentUA = new(int64(r.Current))
				if !r.Estimated {
					l.VoltageUV = new(int64(r.Voltage))
				}
			}
		}
		return l
	case *workload.Sample:
		l := sampleLine{Type: "sample", AtUs: r.At.Microseconds(), Usage: make([]usageLine, 0, len(r.Usage)), Ended: r.Ended}
		for _, u := range r.Usage {
			l.Usage = append(l.Usage, usageLine{u.ID, u.Class, u.At.Microseconds(), u.CPU.Microseconds()})
		}
		for _, f := range r.Frequency {
			l.Frequency = append(l.Frequency, frequencyLine{f.Class, f.At.Microseconds(), f.KHz, f.Time.Microseconds()})
		}
		return l
	case workload.Workload:
		return workloadLine{"workload", r.ID, r.Kind.String(), r.Namespace, r.Name, r.Function}
	case workload.Activity:
		return activityLine{"activity", r.ID, r.At.Microseconds(), r.InFlight, r.Started, r.Completed}
	case workload.Event:
		return eventLine{"event", r.ID, r.At.Microseconds(), r.What}
	case accounting.Tick:
		return tickLine{"tick", r.At.Microseconds()}
	}
	panic(fmt.Sprintf("no line for a %T", rec)) // Record has no others
}

// ParseRecord reads a line of RecordsFormat. It returns a *RecordsHeader, *RecordsReading, *RecordsEnd, workload.Workload,
// *workload.Sample, workload.Activity, workload.Event or accounting.Tick; nil for a type that it does not know.
func ParseRecord(line []byte) (any, error) {
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(line, &kind); err != nil {
		return nil, fmt.Errorf("record %s: %w", shorten(line), err)
	}
	rec, err := parseAs(kind.Type, line)
	if err != nil {
		return nil, fmt.Errorf("%s record %s: %w", kind.Type, shorten(line), err)
	}
	return rec, nil
}

// shorten quotes so much of a line as a message bears.
func shorten(line []byte) string {
	const limit = 60
	if line = bytes.TrimSpace(line); len(line) > limit {
		return fmt.Sprintf("%q…", line[:limit])
	}
	return fmt.Sprintf("%q", line)
}

func parseAs(kind string, line []byte) (any, error) {
	switch kind {
	case "header":
		h := &RecordsHeader{}
		err := json.Unmarshal(line, h)
		switch {
		case h.Format != "" && h.Format != RecordsFormat:
			return nil, fmt.Errorf("the format is %q, not %s; agent and wattctl are of different times", h.Format, RecordsFormat)
		case err != nil:
			return nil, err
		case h.Format == "":
			return nil, errors.New("no format")
		case h.TickUs <= 0:
			return nil, fmt.Errorf("a tick of %d µs", h.TickUs)
		}
		return h, times(h.StartUs, h.TickUs)
	case "reading":
		r := &RecordsReading{}
		if err := json.Unmarshal(line, r); err != nil {
			return nil, err
		}
		return r, times(r.ReceivedUs, r.MeterUs)
	case "sample":
		return parseSample(line)
	case "workload":
		var l workloadLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, err
		}
		k, err := workload.ParseKind(l.Kind)
		w := workload.Workload{ID: l.Workload, Kind: k, Namespace: l.Namespace, Name: l.Name, Function: l.Function}
		return w, cmp.Or(err, named(l.Workload))
	case "activity":
		var l activityLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, err
		}
		a := workload.Activity{ID: l.Workload, At: micros(l.AtUs), InFlight: l.InFlight, Started: l.Started, Completed: l.Completed}
		return a, cmp.Or(times(l.AtUs), named(l.Workload))
	case "event":
		var l eventLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, err
		}
		return workload.Event{ID: l.Workload, At: micros(l.AtUs), What: l.Event}, cmp.Or(times(l.AtUs), named(l.Workload))
	case "tick":
		var l tickLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, err
		}
		return accounting.Tick{At: micros(l.AtUs)}, times(l.AtUs)
	case "end":
		e := &RecordsEnd{}
		return e, json.Unmarshal(line, e)
	case "":
		return nil, errors.New("no type")
	}
	return nil, nil //nolint:nilnil // see ParseRecord
}

func parseSample(line []byte) (any, error) {
	var l sampleLine
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, err
	}
	s := &workload.Sample{At: micros(l.AtUs), Ended: l.Ended}
	for _, u := range l.Usage {
		if err := cmp.Or(named(u.Workload), times(u.AtUs, u.CPUUs)); err != nil {
			return nil, err
		}
		s.Usage = append(s.Usage, workload.Usage{ID: u.Workload, Class: u.Class, At: micros(u.AtUs), CPU: micros(u.CPUUs)})
	}
	for _, f := range l.Frequency {
		if err := times(f.AtUs, f.TimeUs); err != nil {
			return nil, err
		}
		s.Frequency = append(s.Frequency, workload.Frequency{Class: f.Class, KHz: f.KHz, At: micros(f.AtUs), Time: micros(f.TimeUs)})
	}
	return s, times(l.AtUs)
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

// times checks times in microseconds: a time.Duration has to hold them.
func times(us ...int64) error {
	for _, v := range us {
		if v < 0 || v > math.MaxInt64/int64(time.Microsecond) {
			return fmt.Errorf("a time of %d µs", v)
		}
	}
	return nil
}

// named checks the name of a workload.
func named(id workload.ID) error {
	if id == "" {
		return errors.New("no workload")
	}
	return nil
}
