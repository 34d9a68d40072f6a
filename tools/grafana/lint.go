package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// linter collects what is wrong with a dashboard.
type linter struct {
	d      model
	panels []dashboard.Panel // also those of collapsed rows
	used   map[string]bool   // variables
	faults []string
}

// register makes the kinds of panels and queries known to the SDK, which keeps them for the whole process.
var register = sync.OnceFunc(plugins.RegisterDefaultPlugins)

// decode reads a dashboard as strictly as can be: an unknown field is an error, also in the options of panels.
func decode(text []byte) (d model, err error) {
	register()
	// The SDK's strict decoder tells all errors and leaves the panels out, since it takes an empty list of errors for one.
	if err := new(model).UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
		return d, fmt.Errorf("strict decoding: %w", err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("decoding: %w", err)
	}
	if err := d.Validate(); err != nil {
		return d, fmt.Errorf("validation: %w", err)
	}
	return d, nil
}

// lint returns what is wrong with a dashboard's JSON. Links may lead to the boards with these UIDs.
func lint(text []byte, uids []string) []string {
	d, err := decode(text)
	if err != nil {
		return []string{err.Error()}
	}
	l := &linter{d: d, panels: panelsOf(d), used: map[string]bool{}}
	if len(l.panels) == 0 {
		l.fault("there are no panels")
	}
	l.sources(text)
	l.places()
	titles, ids := map[string]bool{}, map[uint32]bool{}
	for _, p := range l.panels {
		if titles[orEmpty(p.Title)] {
			l.fault("two panels are called %q", orEmpty(p.Title))
		}
		titles[orEmpty(p.Title)] = true
		if p.Id == nil || ids[*p.Id] {
			l.fault("panel %q has no id of its own", orEmpty(p.Title))
		} else {
			ids[*p.Id] = true
		}
		l.panel(p)
	}
	l.annotations()
	l.variables(text)
	l.links(text, uids)
	return l.faults
}

func (l *linter) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// panelsOf returns all panels that are no rows.
func panelsOf(d model) (panels []dashboard.Panel) {
	for _, p := range d.Panels {
		if p.Panel != nil {
			panels = append(panels, *p.Panel)
		} else {
			panels = append(panels, p.RowPanel.Panels...)
		}
	}
	return panels
}

// sources asks for one data source, the one that is chosen, wherever there is one.
func (l *linter) sources(text []byte) {
	var all any
	if err := json.Unmarshal(text, &all); err != nil {
		l.fault("%v", err)
	}
	count := 0
	var walk func(where string, v any)
	walk = func(where string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if title, ok := v["title"].(string); ok {
				where = title
			}
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if key == "datasource" {
					count++
					if s, ok := v[key].(map[string]any); !ok || s["uid"] != "${datasource}" || s["type"] != "prometheus" {
						l.fault("%s: data source %v is not the one that is chosen", where, v[key])
					}
				}
				walk(where, v[key])
			}
		case []any:
			for _, e := range v {
				walk(where, e)
			}
		}
	}
	walk("", all)
	targets := 0
	for _, p := range l.panels {
		if p.Datasource == nil {
			l.fault("panel %q has no data source", orEmpty(p.Title))
		}
		targets += len(p.Targets)
	}
	if count < targets+len(l.panels) {
		l.fault("a query has no data source")
	}
	l.used["datasource"] = count > 0
}

// places asks that nothing overlaps or is outside of the grid, and no row is empty.
func (l *linter) places() {
	type place struct {
		title string
		at    dashboard.GridPos
	}
	var all []place
	empty := ""
	for _, p := range l.d.Panels {
		if p.Panel != nil {
			empty = ""
			continue
		}
		if empty != "" {
			l.fault("row %q is empty", empty)
		}
		if empty = ""; len(p.RowPanel.Panels) == 0 {
			empty = orEmpty(p.RowPanel.Title)
		}
		if p.RowPanel.GridPos != nil {
			all = append(all, place{"row " + orEmpty(p.RowPanel.Title), *p.RowPanel.GridPos})
		}
	}
	if empty != "" {
		l.fault("row %q is empty", empty)
	}
	for _, p := range l.panels {
		if p.GridPos == nil {
			l.fault("panel %q has no place", orEmpty(p.Title))
			continue
		}
		all = append(all, place{orEmpty(p.Title), *p.GridPos})
	}
	for i, a := range all {
		if a.at.X+a.at.W > gridWidth {
			l.fault("%q is outside of the grid of %d columns: %+v", a.title, gridWidth, a.at)
		}
		for _, b := range all[:i] {
			if a.at.X < b.at.X+b.at.W && b.at.X < a.at.X+a.at.W && a.at.Y < b.at.Y+b.at.H && b.at.Y < a.at.Y+a.at.H {
				l.fault("%q and %q overlap", b.title, a.title)
			}
		}
	}
}

// sentence is one: a capital letter, a full stop at its end, none before.
var sentence = regexp.MustCompile(`^[A-Z](?:[^.]|\.[^ ])*\.$`)

func (l *linter) panel(p dashboard.Panel) {
	title := orEmpty(p.Title)
	if title == "" {
		l.fault("a panel has no title")
	}
	if !sentence.MatchString(orEmpty(p.Description)) {
		l.fault("panel %q does not explain itself in one sentence: %q", title, orEmpty(p.Description))
	}
	l.units(p)
	if len(p.Targets) == 0 {
		l.fault("panel %q asks for nothing", title)
	}
	refs := map[string]bool{}
	for _, t := range p.Targets {
		q, ok := t.(*prometheus.Dataquery)
		if !ok {
			l.fault("panel %q: a query is not of Prometheus: %T", title, t)
			continue
		}
		ref := orEmpty(q.RefId)
		if ref == "" || refs[ref] {
			l.fault("panel %q: query %q has no name of its own", title, ref)
		}
		refs[ref] = true
		if orEmpty(q.LegendFormat) == "" {
			l.fault("panel %q: query %s has no legend", title, ref)
		}
		if (q.Instant != nil && *q.Instant) == (q.Range != nil && *q.Range) {
			l.fault("panel %q: query %s is neither or both of instant and range", title, ref)
		}
		l.expr(fmt.Sprintf("panel %q: query %s", title, ref), q.Expr)
	}
}

// units asks for a unit of every value.
func (l *linter) units(p dashboard.Panel) {
	title := orEmpty(p.Title)
	unit := p.FieldConfig != nil && orEmpty(p.FieldConfig.Defaults.Unit) != ""
	if h, ok := p.Options.(*heatmap.Options); ok {
		unit = unit && orEmpty(h.YAxis.Unit) != ""
	}
	if p.Type != "table" {
		if !unit {
			l.fault("panel %q has no unit", title)
		}
		return
	}
	withUnit := map[any]bool{}
	for _, o := range p.FieldConfig.Overrides {
		withUnit[o.Matcher.Options] = slices.ContainsFunc(o.Properties, func(v dashboard.DynamicConfigValue) bool { return v.Id == "unit" })
	}
	for i := range p.Targets {
		field := "Value #" + refID(i)
		if len(p.Targets) == 1 {
			field = "Value" // as Grafana names the only one
		}
		var column any
		for _, t := range p.Transformations {
			options, _ := t.Options.(map[string]any)
			if names, _ := options["renameByName"].(map[string]any); names[field] != nil {
				column = names[field]
			}
		}
		if column == nil || !withUnit[column] {
			l.fault("panel %q: column %q of %q has no unit", title, column, field)
		}
	}
}

// variable is how an expression or a link names one; those with two underscores are Grafana's own.
var variable = regexp.MustCompile(`\$(\w+)|\$\{(\w+)[^}]*\}`)

// expand puts values in for variables, as Grafana does. It calls unknown with the name of each that has none.
func expand(expr string, values map[string]string, unknown func(name string)) string {
	return variable.ReplaceAllStringFunc(expr, func(s string) string {
		m := variable.FindStringSubmatch(s)
		name := m[1] + m[2]
		v, ok := values[name]
		if !ok {
			unknown(name)
		}
		return v
	})
}

// own are the values of Grafana's own variables for an hour's range at a scrape interval of 15 s.
var own = map[string]string{"__range": "3600s", "__interval": "15s", "__rate_interval": "60s"}

// expr asks that an expression is PromQL and sums over no policies.
func (l *linter) expr(where, expr string) {
	values := maps.Clone(own)
	for _, v := range l.d.Templating.List {
		values[v.Name] = "1" // good as number, text and regular expression
	}
	text := expand(expr, values, func(name string) { l.fault("%s: there is no variable %s", where, name) })
	for _, m := range variable.FindAllStringSubmatch(expr, -1) {
		l.used[m[1]+m[2]] = true
	}
	tree, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		l.fault("%s: %v", where, err)
		return
	}
	parser.Inspect(tree, func(n parser.Node, path []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok && strings.Contains(s.Name, "base_share") && !onePolicy(s, path) {
			l.fault("%s sums over policies, which are views of the same energy: %s", where, expr)
		}
		return nil
	})
}

// onePolicy says whether a selector is of one policy, or all that is above it keeps policies apart.
func onePolicy(s *parser.VectorSelector, path []parser.Node) bool {
	for _, m := range s.LabelMatchers {
		if m.Name == "policy" && m.Type == labels.MatchEqual {
			return true
		}
	}
	for _, n := range path {
		a, ok := n.(*parser.AggregateExpr)
		if ok && a.Op != parser.TOPK && a.Op != parser.BOTTOMK && slices.Contains(a.Grouping, "policy") == a.Without {
			return false
		}
	}
	return true
}

func (l *linter) annotations() {
	for _, a := range l.d.Annotations.List {
		q, ok := a.Target.(*prometheus.Dataquery)
		if !ok || a.Expr == nil || q.Expr != *a.Expr { // older and newer Grafanas look at one each
			l.fault("annotation %q has not one expression", a.Name)
			continue
		}
		l.expr("annotation "+a.Name, q.Expr)
	}
}

// variables asks that each is explained, of use, and chosen as its labels need it.
func (l *linter) variables(text []byte) {
	for _, v := range l.d.Templating.List {
		if orEmpty(v.Label) == "" || !sentence.MatchString(orEmpty(v.Description)) {
			l.fault("variable %s has no label, or does not explain itself in one sentence", v.Name)
		}
		multi, all := v.Multi != nil && *v.Multi, v.IncludeAll != nil && *v.IncludeAll
		switch {
		case v.Name == "policy" && (multi || all):
			l.fault("more than one policy can be chosen")
		case all && orEmpty(v.AllValue) != ".*":
			l.fault("variable %s: all is not .*, which matches series without the label also", v.Name)
		}
		if v.Query == nil || v.Query.Map == nil {
			continue
		}
		query, _ := v.Query.Map["query"].(string)
		metric, _, err := labelValues(query)
		if err != nil {
			l.fault("variable %s: %v", v.Name, err)
			continue
		}
		l.expr("variable "+v.Name, metric)
	}
	for _, m := range variable.FindAllSubmatch(text, -1) {
		l.used[string(m[1])+string(m[2])] = true
	}
	for _, v := range l.d.Templating.List {
		if !l.used[v.Name] {
			l.fault("variable %s is not used", v.Name)
		}
	}
}

// labelValuesCall is Grafana's way to ask for the values of a label.
var labelValuesCall = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// labelValues takes a variable's query apart.
func labelValues(query string) (metric, label string, err error) {
	m := labelValuesCall.FindStringSubmatch(query)
	if m == nil {
		return "", "", fmt.Errorf("%q is not label_values(METRIC, LABEL)", query)
	}
	return m[1], m[2], nil
}

// boardURL is a link to a dashboard.
var boardURL = regexp.MustCompile(`"url": "/d/([^?"]+)`)

// links asks that they lead to boards there are, and that there is one to all of ours.
func (l *linter) links(text []byte, uids []string) {
	for _, m := range boardURL.FindAllSubmatch(text, -1) {
		if !slices.Contains(uids, string(m[1])) {
			l.fault("a link leads to %s, which is no dashboard", m[1])
		}
	}
	if !slices.ContainsFunc(l.d.Links, func(k dashboard.DashboardLink) bool {
		return k.Type == dashboard.DashboardLinkTypeDashboards && slices.Contains(k.Tags, tag) && k.IncludeVars && k.KeepTime
	}) || !slices.Contains(l.d.Tags, tag) {
		l.fault("it is not linked with the other dashboards")
	}
}

// orEmpty returns a text that may be missing.
func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
