package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/trace"
	"github.com/wattlet/wattlet/internal/workload"
)

type replayCmd struct {
	Dir       string        `arg:"" type:"existingdir" help:"Directory of the trace."`
	JSON      bool          `help:"Print one JSON object, wattlet-replay/1."`
	Estimator string        `default:"chk" help:"How energy is split: ${estimators}."`
	Window    time.Duration `placeholder:"10s" help:"Also print the energy of windows of this length, whole seconds."`
	Lag       time.Duration `help:"Time by which power is late against CPU time, until it is found from the trace."`
	Hold      time.Duration `default:"45s" help:"How long to wait for that before anything is split."`
}

// replayed is what a replay prints: wattlet-replay/1.
type replayed struct {
	Format       string             `json:"format"`
	Estimator    string             `json:"estimator"`
	Node         string             `json:"node"`
	MeasuredUJ   int64              `json:"measured_uj"`
	BaseUJ       int64              `json:"base_uj"`
	UnmeasuredUs int64              `json:"unmeasured_us"`
	LagUs        int64              `json:"lag_us"`
	Changes      []replayedChange   `json:"changes"`
	Workloads    []replayedWorkload `json:"workloads"`
	Functions    []replayedFunction `json:"functions"`
	Windows      []replayedWindow   `json:"windows,omitempty"`
}

type replayedChange struct {
	AtUs int64  `json:"at_us"`
	What string `json:"what"`
}

type replayedWorkload struct {
	Workload    string `json:"workload"`
	Kind        string `json:"kind"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	Function    string `json:"function"`
	EnergyUJ    int64  `json:"energy_uj"`
	ColdStartUJ int64  `json:"coldstart_uj"`
	StdDevUJ    int64  `json:"stddev_uj"`
}

type replayedFunction struct {
	Namespace   string             `json:"namespace"`
	Function    string             `json:"function"`
	EnergyUJ    int64              `json:"energy_uj"`
	ColdStartUJ int64              `json:"coldstart_uj"`
	StdDevUJ    int64              `json:"stddev_uj"`
	Invocations int64              `json:"invocations"`
	PerInvoke   *joulesPerInvoking `json:"joules_per_invocation,omitempty"`
	PriorDom    bool               `json:"prior_dominated"`
	Collinear   bool               `json:"collinear"`
	WattsPer    float64            `json:"watts_per_core"`
}

// joulesPerInvoking has its interval only where there is enough data for one.
type joulesPerInvoking struct {
	Mean   float64  `json:"mean"`
	Low95  *float64 `json:"low95,omitempty"`
	High95 *float64 `json:"high95,omitempty"`
}

type replayedWindow struct {
	StartUs    int64             `json:"start_us"`
	EndUs      int64             `json:"end_us"`
	MeasuredUJ int64             `json:"measured_uj"`
	BaseUJ     int64             `json:"base_uj"`
	Workloads  []replayedPortion `json:"workloads"`
}

type replayedPortion struct {
	Workload string `json:"workload"`
	EnergyUJ int64  `json:"energy_uj"`
	StdDevUJ int64  `json:"stddev_uj"`
}

// Run replays a trace through the agent's own code.
func (c replayCmd) Run(a *app) error {
	make, ok := estimators[c.Estimator]
	if !ok {
		return usagef("no estimator %q; known: %s", c.Estimator, strings.Join(slices.Sorted(maps.Keys(estimators)), ", "))
	}
	if c.Window%time.Second != 0 || c.Window < 0 {
		return usagef("--window=%v: windows are whole seconds", c.Window)
	}
	tick, err := tickOf(c.Dir)
	if err != nil {
		return err
	}
	tr, err := trace.Open(c.Dir)
	if err != nil {
		return err
	}
	defer tr.Close() //nolint:errcheck // only read
	r := newReplay(tr, c, tick, make)
	if err := r.run(); err != nil {
		return err
	}
	out := r.result()
	if c.JSON {
		w := bufio.NewWriter(a.stdout)
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(out); err != nil {
			return err
		}
		return w.Flush()
	}
	return out.print(a.stdout)
}

// tickOf returns the usual time between two samples of a trace, by the first ones of it.
func tickOf(dir string) (time.Duration, error) {
	const enough = 100
	tr, err := trace.Open(dir)
	if err != nil {
		return 0, err
	}
	defer tr.Close() //nolint:errcheck // only read
	var gaps []time.Duration
	for last, n := time.Duration(0), 0; len(gaps) < enough; {
		rec, err := tr.NextGrouped()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		if rec.Row != trace.SampleRow {
			continue
		}
		if n++; n > 1 {
			gaps = append(gaps, rec.Sample.At-last)
		}
		last = rec.Sample.At
	}
	if len(gaps) == 0 {
		return 100 * time.Millisecond, nil
	}
	slices.Sort(gaps)
	return gaps[len(gaps)/2], nil
}

// replay is a trace on its way through an Attributor.
type replay struct {
	tr  *trace.Reader
	cmd replayCmd
	att *accounting.Attributor

	clock     align.Clock
	waiting   []trace.Power // readings that came before the clock was known
	total     energy.Energy
	last      trace.Power
	host      time.Duration
	gaps      time.Duration
	readings  int
	workloads map[workload.ID]*replayedWorkload
	variances map[workload.ID]*deviation
	describe  map[workload.ID]workload.Workload
	windows   []replayedWindow
	window    map[workload.ID]*replayedPortion
	posted    energy.Energy
	changes   []replayedChange
	seen      uint64
}

// deviation is what was reported of a workload.
type deviation struct{ total float64 }

func newReplay(tr *trace.Reader, c replayCmd, tick time.Duration, make func(attribution.Board) attribution.Estimator) *replay {
	r := &replay{
		tr: tr, cmd: c, workloads: map[workload.ID]*replayedWorkload{}, variances: map[workload.ID]*deviation{},
		describe: map[workload.ID]workload.Workload{}, window: map[workload.ID]*replayedPortion{}, changes: []replayedChange{},
	}
	for _, w := range tr.Workloads() {
		r.describe[w.ID] = w
	}
	r.att = accounting.NewAttributor(accounting.AttributorConfig{
		Board: boardOf(tr.Meta()),
		Estimator: func(b attribution.Board) attribution.Estimator {
			e := make(b)
			if chk, ok := e.(*attribution.CHK); ok && c.Window > 0 {
				chk.Period = c.Window
			}
			return e
		},
		Tick: tick, Lag: c.Lag, Hold: c.Hold,
		Describe: func(id workload.ID) workload.Workload { return r.describe[id] },
		Observe:  r.observe,
	}, nil)
	return r
}

// boardOf returns what a trace tells of its board. The reference class is the one with the highest frequency, or by its name.
func boardOf(m trace.Meta) accounting.Board {
	b := accounting.Board{Sharing: accounting.Sharing}
	rank := map[string]int{"big": -2, "mid": -1, "little": 1}
	top := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(m.Cores)) {
		c := accounting.Class{Name: name, Cores: m.Cores[name]}
		for _, p := range m.OperatingPoints[name] {
			c.Points = append(c.Points, accounting.OperatingPoint{KHz: p.KHz, Microvolt: int64(p.Microvolt)})
			top[name] = max(top[name], p.KHz)
		}
		b.Classes = append(b.Classes, c)
	}
	slices.SortStableFunc(b.Classes, func(x, y accounting.Class) int {
		return cmp.Or(cmp.Compare(rank[x.Name], rank[y.Name]), cmp.Compare(top[y.Name], top[x.Name]))
	})
	if m.Meter != nil {
		b.Gain, b.Noise = m.Meter.GainStdDev, m.Meter.Noise.Watts()
	}
	return b
}

func (r *replay) run() error {
	for {
		rec, err := r.tr.NextGrouped()
		switch {
		case errors.Is(err, io.EOF):
			r.drain()
			r.att.Flush()
			r.close()
			return nil
		case err != nil:
			return err
		}
		switch rec.Row {
		case trace.PowerRow:
			r.power(&rec.Power)
		case trace.SampleRow:
			r.att.Sample(&rec.Sample)
		case trace.ActivityRow:
			r.att.Activity(rec.Activity)
		case trace.EventRow:
			if rec.Event.ID == workload.Node {
				r.changes = append(r.changes, replayedChange{rec.Event.At.Microseconds(), rec.Event.What})
			}
			r.att.Event(rec.Event)
		}
	}
}

// power maps a reading to the host's clock. Those that came before the offset of the clocks was known wait for it.
func (r *replay) power(p *trace.Power) {
	if len(r.waiting) > 0 && r.waiting[0].Boot != p.Boot {
		r.drain()
	}
	host, ok := r.clock.Map(p.Boot, p.Received, p.Meter)
	if !ok {
		if len(r.waiting) < 1000 {
			r.waiting = append(r.waiting, *p)
		}
		return
	}
	offset := host - p.Meter
	for i := range r.waiting {
		if w := &r.waiting[i]; w.Boot == p.Boot && w.Meter < p.Meter {
			r.feed(w, w.Meter+offset)
		}
	}
	r.waiting = r.waiting[:0]
	r.feed(p, host)
}

// drain feeds what waits for a clock that will not be known any more, as if nothing had been under way for long.
func (r *replay) drain() {
	if len(r.waiting) == 0 {
		return
	}
	offset := r.waiting[0].Received - r.waiting[0].Meter
	for _, w := range r.waiting {
		offset = min(offset, w.Received-w.Meter)
	}
	for i := range r.waiting {
		r.feed(&r.waiting[i], r.waiting[i].Meter+offset)
	}
	r.waiting = r.waiting[:0]
}

// feed adds a reading's growth to the total. Between two boots of the meter nothing is known.
func (r *replay) feed(p *trace.Power, host time.Duration) {
	switch {
	case r.readings == 0:
	case p.Boot == r.last.Boot:
		if p.Meter <= r.last.Meter {
			return
		}
		r.total += p.Energy - r.last.Energy
	default:
		r.gaps += max(0, host-r.host)
	}
	r.readings++
	r.last, r.host = *p, host
	r.att.Energy(host, r.total, r.gaps)
}

// observe adds a tick to the workloads and to its window.
func (r *replay) observe(t *attribution.Tick) {
	given := r.att.Accounts().Posted - r.posted - t.Energy // to base, since the last tick
	r.posted = r.att.Accounts().Posted
	for _, s := range t.Shares {
		w := r.att.Workload(s.Slot)
		out := r.workloads[w.ID]
		if out == nil {
			out = &replayedWorkload{
				Workload: string(w.ID), Kind: w.Kind.String(), Namespace: w.Namespace, Name: w.Name, Function: w.Function,
			}
			r.workloads[w.ID] = out
		}
		out.EnergyUJ += int64(s.Energy)
		out.ColdStartUJ += int64(s.ColdStart)
	}
	if m := r.att.Model(); m.Changes > r.seen {
		r.seen = m.Changes
		r.changes = append(r.changes, replayedChange{m.LastChange.Microseconds(), "base and scale reset"})
	}
	if rep := t.Report; rep != nil {
		for _, d := range rep.Workloads {
			r.variances[r.att.Workload(d.Slot).ID] = &deviation{d.Total}
		}
	}
	if r.cmd.Window == 0 {
		return
	}
	w := r.at(int64((t.Start + (t.End-t.Start)/2) / r.cmd.Window))
	w.MeasuredUJ += int64(t.Energy + given)
	w.BaseUJ += int64(t.Base + given)
	for _, s := range t.Shares {
		r.portion(r.att.Workload(s.Slot).ID).EnergyUJ += int64(s.Energy + s.ColdStart)
	}
	if rep := t.Report; rep != nil {
		for _, d := range rep.Workloads {
			if d.Period > 0 {
				r.portion(r.att.Workload(d.Slot).ID).StdDevUJ = int64(math.Round(d.Period * 1e6))
			}
		}
	}
}

func (r *replay) portion(id workload.ID) *replayedPortion {
	p := r.window[id]
	if p == nil {
		p = &replayedPortion{Workload: string(id)}
		r.window[id] = p
	}
	return p
}

// at returns the n-th window, which is the newest or a later one.
func (r *replay) at(n int64) *replayedWindow {
	start := n * r.cmd.Window.Microseconds()
	if k := len(r.windows); k == 0 || r.windows[k-1].StartUs < start {
		r.closeWindow()
		r.windows = append(r.windows, replayedWindow{StartUs: start, EndUs: start + r.cmd.Window.Microseconds()})
	}
	return &r.windows[len(r.windows)-1]
}

func (r *replay) closeWindow() {
	if k := len(r.windows); k > 0 {
		r.windows[k-1].Workloads = []replayedPortion{}
		for _, id := range slices.Sorted(maps.Keys(r.window)) {
			r.windows[k-1].Workloads = append(r.windows[k-1].Workloads, *r.window[id])
		}
	}
	clear(r.window)
}

// close ends the last window with the energy that was posted after the last tick.
func (r *replay) close() {
	if k := len(r.windows); k > 0 {
		given := int64(r.att.Accounts().Posted - r.posted)
		r.windows[k-1].MeasuredUJ += given
		r.windows[k-1].BaseUJ += given
	}
	r.closeWindow()
}

func (r *replay) result() *replayed {
	c := r.att.Accounts()
	out := &replayed{
		Format: "wattlet-replay/1", Estimator: r.cmd.Estimator, Node: r.tr.Meta().Node, MeasuredUJ: int64(c.Posted), BaseUJ: int64(c.Base),
		UnmeasuredUs: c.Unmeasured.Microseconds(), LagUs: r.att.Lag().Lag.Microseconds(), Changes: r.changes,
		Workloads: []replayedWorkload{}, Functions: []replayedFunction{}, Windows: r.windows,
	}
	for _, id := range slices.Sorted(maps.Keys(r.workloads)) {
		w := *r.workloads[id]
		if v := r.variances[id]; v != nil {
			w.StdDevUJ = int64(math.Round(v.total * 1e6))
		}
		out.Workloads = append(out.Workloads, w)
	}
	for _, f := range c.Functions() {
		o := replayedFunction{
			Namespace: f.Namespace, Function: f.Name, EnergyUJ: int64(f.Energy), ColdStartUJ: int64(f.ColdStart),
			StdDevUJ: int64(math.Round(f.Deviation.Total * 1e6)), Invocations: int64(f.Invocations.Count()),
			PriorDom: f.Deviation.PriorDominated, Collinear: f.Deviation.Collinear, WattsPer: f.Deviation.WattsPerCore,
		}
		if mean, low, high, interval, ok := f.Invocations.Mean(f.Energy.Joules(), f.Deviation.Total); ok {
			o.PerInvoke = &joulesPerInvoking{Mean: mean}
			if interval {
				o.PerInvoke.Low95, o.PerInvoke.High95 = &low, &high
			}
		}
		out.Functions = append(out.Functions, o)
	}
	return out
}

// print shows a replay to a person.
func (o *replayed) print(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "node %s, estimator %s\n", o.Node, o.Estimator)
	fmt.Fprintf(b, "measured %v, of which base %v; %v not measured; power %v after CPU time\n", energy.Energy(o.MeasuredUJ), energy.Energy(o.BaseUJ),
		time.Duration(o.UnmeasuredUs)*time.Microsecond, (time.Duration(o.LagUs) * time.Microsecond).Round(time.Millisecond))
	for _, c := range o.Changes {
		fmt.Fprintf(b, "change at %v: %s\n", (time.Duration(c.AtUs) * time.Microsecond).Round(time.Second/10), c.What)
	}
	fmt.Fprintln(b)
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "FUNCTION\tENERGY\t± 95 %\tCOLD STARTS\tINVOCATIONS\tJ/INVOCATION\t95 %\tNOTE\t")
	for _, f := range o.Functions {
		mean, interval := "-", "-"
		if p := f.PerInvoke; p != nil {
			mean = fmt.Sprintf("%.3f", p.Mean)
			if p.Low95 != nil {
				interval = fmt.Sprintf("%.3f to %.3f", *p.Low95, *p.High95)
			}
		}
		var notes []string
		if f.Collinear {
			notes = append(notes, "always with another")
		}
		if f.PriorDom {
			notes = append(notes, "mostly assumed")
		}
		fmt.Fprintf(tw, "%s/%s\t%v\t%v\t%v\t%d\t%s\t%s\t%s\t\n", f.Namespace, f.Function, energy.Energy(f.EnergyUJ), energy.Energy(1.96*float64(f.StdDevUJ)),
			energy.Energy(f.ColdStartUJ), f.Invocations, mean, interval, strings.Join(notes, ", "))
	}
	_ = tw.Flush() // into memory
	fmt.Fprintln(b)
	fmt.Fprintln(tw, "WORKLOAD\tKIND\tENERGY\t± 95 %\tCOLD STARTS\t")
	for _, v := range o.Workloads {
		fmt.Fprintf(tw, "%s\t%s\t%v\t%v\t%v\t\n", cmp.Or(v.Name, v.Workload), v.Kind, energy.Energy(v.EnergyUJ), energy.Energy(1.96*float64(v.StdDevUJ)),
			energy.Energy(v.ColdStartUJ))
	}
	_ = tw.Flush()
	return b.Flush()
}
