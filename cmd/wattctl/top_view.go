package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/wattlet/wattlet/internal/exporter"
)

// topView is what top shows, as JSON: figures with units in their names, null for what is not known.
type topView struct {
	Format    string        `json:"format"` // "wattlet-top/1"
	Time      time.Time     `json:"time"`   // by this host's clock
	Agents    []topAgent    `json:"agents"`
	Nodes     []topNode     `json:"nodes"`
	Functions []topFunction `json:"functions"`
	Workloads []topWorkload `json:"workloads,omitempty"`
}

// topAgent says whether an agent has figures, and since when not.
type topAgent struct {
	Agent string     `json:"agent"`
	Up    bool       `json:"up"`
	Error string     `json:"error,omitempty"`
	Since *time.Time `json:"since,omitempty"`
}

// topNode is a node. Energy is what was measured, in an account or not.
type topNode struct {
	Agent       string   `json:"agent"`
	Node        string   `json:"node"`
	PowerW      *float64 `json:"power_w"`
	EnergyUJ    *int64   `json:"energy_uj"`
	BaseW       *float64 `json:"base_w"`
	BaseStdDevW *float64 `json:"base_stddev_w"`
	CoreW       *float64 `json:"core_w"`
	CoreStdDevW *float64 `json:"core_stddev_w"`
	PendingUJ   *int64   `json:"pending_uj"`
	InvariantUJ *int64   `json:"invariant_uj"`
	Meter       string   `json:"meter"`
	MeterState  string   `json:"meter_state"` // "up", or why not
}

// topFunction is a function. Power and rates are means of the last topWindow; power has cold starts in it, energy has not.
type topFunction struct {
	Node        string                 `json:"node"`
	Namespace   string                 `json:"namespace"`
	Function    string                 `json:"function"`
	PowerW      *float64               `json:"power_w"`
	EnergyUJ    int64                  `json:"energy_uj"`
	Joules      *exporter.IntervalView `json:"joules_per_invocation"`
	Invocations float64                `json:"invocations"`
	PerMinute   *float64               `json:"invocations_per_minute"`
	ColdStarts  uint64                 `json:"cold_starts"`
	ColdStartUJ int64                  `json:"coldstart_uj"`
	Note        string                 `json:"note,omitempty"`
}

// topWorkload is a workload; figures are as a function's.
type topWorkload struct {
	Node        string   `json:"node"`
	Kind        string   `json:"kind"`
	Namespace   string   `json:"namespace"`
	Name        string   `json:"name"`
	PowerW      *float64 `json:"power_w"`
	EnergyUJ    int64    `json:"energy_uj"`
	ColdStartUJ int64    `json:"coldstart_uj"`
	StdDevUJ    int64    `json:"stddev_uj"`
}

// view puts together what the agents said last.
func (t *top) view(now time.Time) topView {
	v := topView{Format: "wattlet-top/1", Time: now.UTC(), Agents: []topAgent{}, Nodes: []topNode{}, Functions: []topFunction{}}
	for _, w := range t.all() {
		a := topAgent{Agent: w.name, Up: true}
		if why, since := w.trouble(now); why != "" {
			a = topAgent{Agent: w.name, Error: why, Since: new(since.UTC())}
		}
		v.Agents = append(v.Agents, a)
		if w.last == nil {
			continue
		}
		for i := range w.last.Nodes {
			t.add(&v, w, &w.last.Nodes[i], a.Up)
		}
	}
	t.sort(&v)
	return v
}

// add puts a node, and what used its energy, into a view, as far as they are asked for.
func (t *top) add(v *topView, w *watched, n *exporter.NodeView, up bool) {
	o := topNode{Agent: w.name, Node: n.Node, EnergyUJ: n.MeasuredUJ, Meter: n.Meter, MeterState: meterState(w.last.Meters, n.Meter)}
	if up && n.PowerUW != nil {
		o.PowerW = new(joules(*n.PowerUW))
	}
	wanted := t.filter.MatchString(n.Node)
	if a := n.Attribution; a != nil {
		o.PendingUJ, o.InvariantUJ = new(a.PendingUJ), new(a.InvariantUJ)
		if m := a.Model; m.BaseW > 0 {
			o.BaseW, o.BaseStdDevW = &m.BaseW, &m.BaseStdDevW
			o.CoreW, o.CoreStdDevW = &m.CoreW, &m.CoreStdDevW
		}
		before, over := w.before(n)
		if !up {
			before = nil
		}
		for _, f := range a.Functions {
			if t.filter.MatchString(n.Node + "/" + f.Namespace + "/" + f.Function) {
				wanted = true
				v.Functions = append(v.Functions, function(n.Node, &f, before, over))
			}
		}
		for _, l := range a.Workloads {
			if t.Workloads && t.filter.MatchString(n.Node+"/"+l.Namespace+"/"+l.Name) {
				wanted = true
				v.Workloads = append(v.Workloads, workloadOf(n.Node, &l, before, over))
			}
		}
	}
	if wanted {
		v.Nodes = append(v.Nodes, o)
	}
}

// before returns the accounts with which those of a node are compared, and how long ago they were; nil if there are none.
func (w *watched) before(n *exporter.NodeView) (*exporter.AttributionView, time.Duration) {
	if len(w.history) < 2 {
		return nil, 0
	}
	old := w.history[0]
	i := slices.IndexFunc(old.Nodes, func(o exporter.NodeView) bool { return o.Node == n.Node })
	if i < 0 {
		return nil, 0
	}
	return old.Nodes[i].Attribution, w.last.Time.Sub(old.Time)
}

// function is a function's account, compared with one of before.
func function(node string, f *exporter.FunctionView, before *exporter.AttributionView, over time.Duration) topFunction {
	o := topFunction{
		Node: node, Namespace: f.Namespace, Function: f.Function, EnergyUJ: f.EnergyUJ, Joules: f.PerInvocation, Invocations: f.Invocations,
		ColdStarts: f.ColdStarts, ColdStartUJ: f.ColdStartUJ, Note: note(f),
	}
	if before == nil {
		return o
	}
	for _, b := range before.Functions {
		if b.Namespace == f.Namespace && b.Function == f.Function {
			o.PowerW = rate(joules(f.EnergyUJ+f.ColdStartUJ-b.EnergyUJ-b.ColdStartUJ), over.Seconds())
			o.PerMinute = rate(f.Invocations-b.Invocations, over.Minutes())
		}
	}
	return o
}

// workloadOf is a workload's account, compared with one of before.
func workloadOf(node string, l *exporter.WorkloadView, before *exporter.AttributionView, over time.Duration) topWorkload {
	o := topWorkload{node, l.Kind, l.Namespace, l.Name, nil, l.EnergyUJ, l.ColdStartUJ, l.StdDevUJ}
	if before == nil {
		return o
	}
	for _, b := range before.Workloads {
		if b.Kind == l.Kind && b.Namespace == l.Namespace && b.Name == l.Name {
			o.PowerW = rate(joules(l.EnergyUJ+l.ColdStartUJ-b.EnergyUJ-b.ColdStartUJ), over.Seconds())
		}
	}
	return o
}

// rate is nil where a counter began anew.
func rate(delta, over float64) *float64 {
	if delta < 0 || over <= 0 {
		return nil
	}
	return new(delta / over)
}

// note says what is to be known about a function's figures.
func note(f *exporter.FunctionView) string {
	switch {
	case f.Collinear:
		return "collinear"
	case f.PriorDominated:
		return "mostly assumed"
	}
	return ""
}

// meterState says how a node's meter is.
func meterState(meters []exporter.MeterView, name string) string {
	i := slices.IndexFunc(meters, func(m exporter.MeterView) bool { return m.Meter == name })
	switch {
	case i < 0:
		return "unknown"
	case meters[i].Up:
		return "up"
	}
	return "down: " + cmp.Or(meters[i].Error, "it has not answered yet")
}

// sort puts what is most first and what is not known last; what is equal is sorted by name.
func (t *top) sort(v *topView) {
	most := func(x, y *float64) int {
		least := math.Inf(-1)
		return cmp.Compare(*cmp.Or(y, &least), *cmp.Or(x, &least))
	}
	by := func(watts, energy, joules func() int) int {
		switch t.Sort {
		case "watts":
			return watts()
		case "energy":
			return energy()
		case "joules":
			return joules()
		}
		return 0
	}
	same := func() int { return 0 }
	known := func(uj *int64) *float64 {
		if uj == nil {
			return nil
		}
		return new(joules(*uj))
	}
	slices.SortStableFunc(v.Nodes, func(x, y topNode) int {
		return cmp.Or(by(
			func() int { return most(x.PowerW, y.PowerW) },
			func() int { return most(known(x.EnergyUJ), known(y.EnergyUJ)) },
			same,
		), cmp.Compare(x.Node, y.Node))
	})
	mean := func(i *exporter.IntervalView) *float64 {
		if i == nil {
			return nil
		}
		return &i.Mean
	}
	slices.SortStableFunc(v.Functions, func(x, y topFunction) int {
		return cmp.Or(by(
			func() int { return most(x.PowerW, y.PowerW) },
			func() int { return cmp.Compare(y.EnergyUJ, x.EnergyUJ) },
			func() int { return most(mean(x.Joules), mean(y.Joules)) },
		), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Function, y.Function))
	})
	slices.SortStableFunc(v.Workloads, func(x, y topWorkload) int {
		return cmp.Or(by(
			func() int { return most(x.PowerW, y.PowerW) },
			func() int { return cmp.Compare(y.EnergyUJ, x.EnergyUJ) },
			same,
		), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
}

// carriage ends lines as a raw terminal needs it.
var carriage = strings.NewReplacer("\n", "\r\n")

// text is a view as tables, cut to the terminal's size.
func (t *top) text(v *topView) string {
	width, height := math.MaxInt, math.MaxInt
	if w, h, ok := size(t.out); t.tty && ok && w > 0 && h > 0 {
		width, height = w, h
	}
	var b strings.Builder
	up := 0
	for _, a := range v.Agents {
		if a.Up {
			up++
		}
	}
	fmt.Fprintf(&b, "%s: %d of %s up, sorted by %s", v.Time.Local().Format(time.TimeOnly), up, plural(len(v.Agents), "agent"), t.Sort)
	if t.raw {
		b.WriteString("; s sorts otherwise, q quits")
	}
	b.WriteString("\n\n")
	nodeTable(v).write(&b)
	b.WriteByte('\n')
	left := height - strings.Count(b.String(), "\n") - 1
	functions, workloads := functionTable(v), workloadTable(v)
	if !t.Workloads {
		functions.most(left).write(&b)
	} else {
		functions.most(max(left/2, left-2-len(workloads.rows))).write(&b)
		b.WriteByte('\n')
		workloads.most(height - strings.Count(b.String(), "\n") - 1).write(&b)
	}
	var out strings.Builder
	rows := 0
	for l := range strings.Lines(b.String()) {
		if rows++; rows == height { // the cursor's row is below the text
			break
		}
		out.WriteString(clip(strings.TrimSuffix(l, "\n"), width) + "\n")
	}
	return out.String()
}

// clip is text that neither moves the cursor nor is wider than a terminal.
func clip(s string, width int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s))
	return string(runes[:min(len(runes), width)])
}

// most leaves no more rows, heading and foot included, than there is room for, and at least one.
func (g *grid) most(room int) *grid {
	if room = max(room, 3); len(g.rows) <= room {
		return g
	}
	g.foot = fmt.Sprintf("and %d more; a higher terminal shows them\n", len(g.rows)-(room-1))
	g.rows = g.rows[:room-1]
	return g
}

func nodeTable(v *topView) *grid {
	t := &grid{left: "l......l"}
	t.add("NODE", "POWER", "ENERGY", "BASE", "W/CORE", "PENDING", "INVARIANT", "METER")
	trouble := map[string]string{}
	for _, a := range v.Agents {
		if !a.Up {
			trouble[a.Agent] = fmt.Sprintf("no figures from %s since %s: %s", a.Agent, a.Since.Local().Format(time.DateTime), a.Error)
		}
	}
	shown := map[string]bool{}
	for _, n := range v.Nodes {
		shown[n.Agent] = true
		t.add(n.Node, quantity("%.3f W", n.PowerW), micro("%.2f J", n.EnergyUJ), deviating(n.BaseW, n.BaseStdDevW),
			deviating(n.CoreW, n.CoreStdDevW), micro("%.2f J", n.PendingUJ), integer("%d µJ", n.InvariantUJ),
			cmp.Or(trouble[n.Agent], cmp.Or(n.Meter, none)+" "+n.MeterState))
	}
	for _, a := range v.Agents {
		if !a.Up && !shown[a.Agent] {
			t.add(none, none, none, none, none, none, none, trouble[a.Agent])
		}
	}
	if len(t.rows) == 1 {
		t.foot = "none\n"
	}
	return t
}

func functionTable(v *topView) *grid {
	t := &grid{left: "ll.......l"}
	t.add("NODE", "FUNCTION", "POWER", "ENERGY", "J/INVOCATION", "± 95 %", "INVOCATIONS", "PER MIN", "COLD STARTS", "NOTE")
	for _, f := range v.Functions {
		mean, half := none, none
		if p := f.Joules; p != nil {
			mean = fmt.Sprintf("%.4f J", p.Mean)
			if p.Low95 != nil && p.High95 != nil {
				half = fmt.Sprintf("%.4f J", (*p.High95-*p.Low95)/2)
			}
		}
		t.add(f.Node, named(f.Namespace, f.Function), quantity("%.3f W", f.PowerW), micro("%.2f J", &f.EnergyUJ), mean, half,
			fmt.Sprintf("%.0f", f.Invocations), quantity("%.1f", f.PerMinute), fmt.Sprint(f.ColdStarts), cmp.Or(f.Note, none))
	}
	if len(v.Functions) == 0 {
		t.foot = "none\n"
	}
	return t
}

func workloadTable(v *topView) *grid {
	t := &grid{left: "lll"}
	t.add("NODE", "KIND", "WORKLOAD", "POWER", "ENERGY", "± 95 %", "COLD STARTS")
	for _, l := range v.Workloads {
		t.add(l.Node, l.Kind, named(l.Namespace, l.Name), quantity("%.3f W", l.PowerW), micro("%.2f J", &l.EnergyUJ),
			fmt.Sprintf("%.2f J", confidence*joules(l.StdDevUJ)), micro("%.2f J", &l.ColdStartUJ))
	}
	if len(v.Workloads) == 0 {
		t.foot = "none\n"
	}
	return t
}

// named is a name with its namespace.
func named(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

func quantity(format string, v *float64) string {
	if v == nil {
		return none
	}
	return fmt.Sprintf(format, *v)
}

func micro(format string, v *int64) string {
	if v == nil {
		return none
	}
	return fmt.Sprintf(format, joules(*v))
}

func integer(format string, v *int64) string {
	if v == nil {
		return none
	}
	return fmt.Sprintf(format, *v)
}

// deviating is a mean with its 95 % interval.
func deviating(mean, stdDev *float64) string {
	if mean == nil || stdDev == nil {
		return none
	}
	return fmt.Sprintf("%.3f ± %.3f W", *mean, confidence**stdDev)
}
