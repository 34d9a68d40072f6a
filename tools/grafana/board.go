package main

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// model is a dashboard as Grafanas of all ages read it; its successor, dashboardv2, is for the newest alone.
type model = dashboard.Dashboard //nolint:staticcheck // see above

// tag is on all dashboards; by it they link to each other.
const tag = "wattlet"

// gridWidth is how many columns Grafana's grid has.
const gridWidth = 24

// board is a dashboard.
type board struct {
	uid, title, about string
	variables         []dashboard.VariableModel
	rows              []row
}

// row is a heading and the panels under it, from left to right, as many beside each other as there is place for.
type row struct {
	title     string
	collapsed bool
	panels    []panel
}

// panel is what a board shows in one place.
type panel struct {
	title, about  string // about is one sentence
	width, height uint32
	unit          string
	queries       []query
	draw          cog.Builder[dashboard.Panel] // how; what all panels have comes from the fields above
}

// query is what a panel asks of the data source.
type query struct {
	// expr is PromQL; selectors and by stand in for braces with a word in them.
	expr, legend string
	// instant asks for the values at the end of the range, not for their course.
	instant bool
	// format is of what Grafana makes of the answer; default time series.
	format prometheus.PromQueryFormat
}

// selectors are what the variables choose, and by what keeps nodes, functions and meters apart. A cluster's default is .*, which
// matches series without the label also: a single cluster has none.
var selectors = strings.NewReplacer(
	"{NODE}", `{cluster=~"$cluster", node=~"$node"}`,
	"{NODE,", `{cluster=~"$cluster", node=~"$node",`,
	"{FUNCTION}", `{cluster=~"$cluster", node=~"$node", namespace=~"$namespace", function=~"$function"}`,
	"{FUNCTION,", `{cluster=~"$cluster", node=~"$node", namespace=~"$namespace", function=~"$function",`,
	"{METER}", `{cluster=~"$cluster", node=~"$node", meter=~"$meter"}`,
	"{ALERT}", `{alertname=~"Wattlet.*", alertstate="firing", cluster=~"$cluster", node=~"$node|"}`,
	"by NODE", "by (cluster, node)",
	"by FUNCTION", "by (cluster, node, namespace, function)",
)

// recorded asks for a recorded series of deploy/prometheus and, where there is none, computes the same. Good for ratios: a power that is
// recorded over five minutes would grow for as long when an agent is new, beside others that do not.
func recorded(name, labels, computed string) string {
	return "sum by (cluster, " + labels + ") (" + name + ") or on (cluster, " + labels + ") " + computed
}

// perMinute asks how often something happened that is rare. Not for the increase in each interval of the chart: the windows that a
// rate needs are longer than those, and would count a thing several times.
func perMinute(counter, labels string) string {
	return "60 * sum by (" + labels + ") (rate(" + counter + "[$__rate_interval]))"
}

// build makes the dashboard.
func (b board) build() (model, error) {
	d := dashboard.NewDashboardBuilder(b.title) //nolint:staticcheck // see model
	d.Uid(b.uid).Description(b.about).Tags([]string{tag}).
		Time("now-1h", "now").Refresh("30s").Timezone(common.TimeZoneBrowser).Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("Wattlet").Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{tag}).
			Tooltip("Other dashboards of Wattlet, with what is chosen here.").KeepTime(true).IncludeVars(true))
	if b.alerts() {
		d.Annotation(alerts())
	}
	for _, v := range b.variables {
		d.WithVariable(built[dashboard.VariableModel]{v})
	}
	var y, id uint32
	for _, r := range b.rows {
		id++
		head := dashboard.NewRowBuilder(r.title).Id(id).Collapsed(r.collapsed).
			GridPos(dashboard.GridPos{X: 0, Y: y, W: gridWidth, H: 1})
		y++
		var x, tallest uint32
		var panels []built[dashboard.Panel]
		for _, p := range r.panels {
			if x+p.width > gridWidth {
				x, y, tallest = 0, y+tallest, 0
			}
			id++
			made, err := p.build()
			if err != nil {
				return model{}, err
			}
			made.Id = new(id)
			made.GridPos = &dashboard.GridPos{X: x, Y: y, W: p.width, H: p.height}
			panels = append(panels, built[dashboard.Panel]{made})
			x, tallest = x+p.width, max(tallest, p.height)
		}
		y += tallest
		if r.collapsed { // Grafana keeps the panels of such a row inside of it
			for _, p := range panels {
				head.WithPanel(p)
			}
			d.WithRow(head)
			continue
		}
		d.WithRow(head)
		for _, p := range panels {
			d.WithPanel(p)
		}
	}
	return d.Build()
}

// alerts says whether the board can choose alerts: those carry the labels that cluster and node choose from.
func (b board) alerts() bool {
	for _, v := range b.variables {
		if v.Name == "node" {
			return true
		}
	}
	return false
}

// build makes the panel, without its place.
func (p panel) build() (dashboard.Panel, error) {
	made, err := p.draw.Build()
	if err != nil {
		return made, err
	}
	made.Title, made.Description, made.Datasource = &p.title, &p.about, source()
	if made.FieldConfig == nil {
		made.FieldConfig = dashboard.NewFieldConfigSource()
	}
	if p.unit != "" {
		made.FieldConfig.Defaults.Unit = &p.unit
	}
	for i, q := range p.queries {
		b := prometheus.NewDataqueryBuilder().Expr(oneLine(selectors.Replace(q.expr))).LegendFormat(q.legend).RefId(refID(i)).
			Datasource(*source()).EditorMode(prometheus.QueryEditorModeCode)
		if q.instant {
			b.Instant()
		} else {
			b.Range()
		}
		if q.format != "" {
			b.Format(q.format)
		}
		target, err := b.Build()
		if err != nil {
			return made, err
		}
		made.Targets = append(made.Targets, target)
	}
	return made, nil
}

// refID is how the i-th query of a panel is called.
func refID(i int) string { return string(rune('A' + i)) }

// oneLine joins the lines an expression is written in here.
func oneLine(expr string) string { return strings.Join(strings.Fields(expr), " ") }

// source is the data source that is chosen.
func source() *common.DataSourceRef {
	return &common.DataSourceRef{Type: new("prometheus"), Uid: new("${datasource}")}
}

// alerts marks the times at which an alert fired.
func alerts() cog.Builder[dashboard.AnnotationQuery] {
	b := dashboard.NewAnnotationQueryBuilder().Name("Alerts").Datasource(*source()).Enable(true).IconColor("red").
		Target(built[variants.Dataquery]{prometheus.Dataquery{
			Expr: selectors.Replace("ALERTS{ALERT}"), RefId: new("Alerts"), Datasource: source(), Range: new(true),
			LegendFormat: new("{{alertname}}"),
		}}).
		Expr(selectors.Replace("ALERTS{ALERT}")).Step("60s").
		TitleFormat("{{alertname}}").TextFormat("{{node}} {{meter}} {{instance}}").TagKeys("severity")
	made, err := b.Build()
	if err != nil {
		panic(err) // nothing in it comes from outside
	}
	made.Placement = nil // to be switched off above the panels, not in a menu
	return built[dashboard.AnnotationQuery]{made}
}

// built is a Builder of what is there already.
type built[T any] struct{ it T }

// Build implements cog.Builder.
func (b built[T]) Build() (T, error) { return b.it, nil }

// choice is a variable whose values are those of a label.
type choice struct {
	name, label, about string
	metric, of         string // the label is of this metric
	// one means that exactly one is chosen, at first current if there is such a value.
	one     bool
	current string
}

func (c choice) build() dashboard.VariableModel {
	text := selectors.Replace("label_values(" + c.metric + ", " + c.of + ")")
	b := dashboard.NewQueryVariableBuilder(c.name).Label(c.label).Description(c.about).Datasource(*source()).
		Query(dashboard.StringOrMap{Map: map[string]any{"qryType": 1, "query": text, "refId": "PrometheusVariableQueryEditor-VariableQuery"}}).
		Definition(text).Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortNaturalAsc)
	switch {
	case !c.one:
		b.Multi(true).IncludeAll(true).AllValue(".*").
			Current(dashboard.VariableOption{Selected: new(true), Text: textList("All"), Value: textList("$__all")})
	case c.current != "":
		b.Current(dashboard.VariableOption{Selected: new(true), Text: oneText(c.current), Value: oneText(c.current)})
	}
	v, err := b.Build()
	if err != nil {
		panic(err) // nothing in it comes from outside
	}
	return v
}

func textList(s string) dashboard.StringOrArrayOfString {
	return dashboard.StringOrArrayOfString{ArrayOfString: []string{s}}
}

func oneText(s string) dashboard.StringOrArrayOfString {
	return dashboard.StringOrArrayOfString{String: &s}
}

// dataSource is the variable that chooses among Prometheus, hub and whatever else speaks PromQL.
func dataSource() dashboard.VariableModel {
	v, err := dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus").
		Description("A Prometheus that scrapes Wattlet's agents, or a hub of Wattlet.").Build()
	if err != nil {
		panic(err) // nothing in it comes from outside
	}
	return v
}

func clusterChoice() dashboard.VariableModel {
	return choice{
		name: "cluster", label: "Cluster", metric: "wattlet_node_info", of: "cluster",
		about: "Values of the label cluster, for who stores more than one; All includes series without it.",
	}.build()
}

func nodeChoice(one bool) dashboard.VariableModel {
	return choice{
		name: "node", label: "Node", metric: `wattlet_node_info{cluster=~"$cluster"}`, of: "node", one: one,
		about: "Boards that are measured.",
	}.build()
}

func functionChoices() []dashboard.VariableModel {
	return []dashboard.VariableModel{
		choice{
			name: "namespace", label: "Namespace", metric: "wattlet_function_energy_joules_total{NODE}", of: "namespace",
			about: "Namespaces of functions.",
		}.build(),
		choice{
			name: "function", label: "Function", metric: `wattlet_function_energy_joules_total{NODE, namespace=~"$namespace"}`, of: "function",
			about: "Functions that the nodes serve.",
		}.build(),
	}
}

func policyChoice() dashboard.VariableModel {
	return choice{
		name: "policy", label: "Base by", metric: "wattlet_function_base_share_joules_total{FUNCTION}", of: "policy", one: true, current: "proportional",
		about: "How the energy of the idle board is shared among functions; the policies are views of the same energy, so one is shown at a time.",
	}.build()
}
