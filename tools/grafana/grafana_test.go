package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"go.yaml.in/yaml/v3"
)

// golden is where the dashboards are for who uses them.
const golden = "../../deploy/grafana"

// uids are those of all boards.
func uids() (list []string) {
	for _, b := range boards() {
		list = append(list, b.uid)
	}
	return list
}

func TestJSONIsCurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	names := func(dir string) (list []string) {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			list = append(list, filepath.Base(f))
		}
		return list
	}
	made := names(dir)
	if there := names(golden); !slices.Equal(made, there) || len(made) != 5 {
		t.Fatalf("%s has %v, want %v: run make dashboards, remove others", golden, there, made)
	}
	for _, name := range made {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(golden, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code makes, %v: run make dashboards", name, err)
		}
		// A panel that is drawn by chance must not depend on the order of a map.
		for range 5 {
			if again := renderOf(t, strings.TrimSuffix(name, ".json")); !bytes.Equal(again, want) {
				t.Fatalf("%s is different each time", name)
			}
		}
	}
}

func renderOf(t *testing.T, uid string) []byte {
	t.Helper()
	for _, b := range boards() {
		if b.uid == uid {
			text, err := render(b)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
	}
	t.Fatalf("no board %s", uid)
	return nil
}

func TestLint(t *testing.T) {
	t.Parallel()
	for _, uid := range uids() {
		for _, fault := range lint(renderOf(t, uid), uids()) {
			t.Errorf("%s: %s", uid, fault)
		}
	}
}

// Each rule finds the fault that it is for. Faults are planted in the functions' board, which has all there is.
func TestLintFindsFaults(t *testing.T) {
	t.Parallel()
	at := func(title string) func(d *model) *dashboard.Panel {
		return func(d *model) *dashboard.Panel {
			for _, p := range d.Panels {
				if p.Panel != nil && *p.Panel.Title == title {
					return p.Panel
				}
			}
			t.Fatalf("no panel %q", title)
			return nil
		}
	}
	power, table, heat, lately := at("Power"), at("Functions beside each other"), at("Energy of invocations"), at("Joules per invocation, lately")
	query := func(d *model, change func(*prometheus.Dataquery)) {
		change(power(d).Targets[0].(*prometheus.Dataquery))
	}
	expr := func(text string) func(*model) {
		return func(d *model) { query(d, func(q *prometheus.Dataquery) { q.Expr = text }) }
	}
	named := func(d *model, name string) *dashboard.VariableModel {
		i := slices.IndexFunc(d.Templating.List, func(v dashboard.VariableModel) bool { return v.Name == name })
		return &d.Templating.List[i]
	}
	const good = `sum by (node) (wattlet_node_power_watts)`
	for name, tc := range map[string]struct {
		plant func(*model)
		want  string
	}{
		"no unit":            {func(d *model) { power(d).FieldConfig.Defaults.Unit = nil }, `panel "Power" has no unit`},
		"column without one": {func(d *model) { o := table(d).FieldConfig; o.Overrides = o.Overrides[:2] }, `"Value #C" has no unit`},
		"column not named":   {func(d *model) { table(d).Transformations = nil }, `"Value #A" has no unit`},
		"heatmap without":    {func(d *model) { heat(d).FieldConfig.Defaults.Unit = nil }, "has no unit"},
		"no explanation":     {func(d *model) { power(d).Description = nil }, "explain itself in one sentence"},
		"two sentences":      {func(d *model) { power(d).Description = new("It is. It is not.") }, "explain itself in one sentence"},
		"no title":           {func(d *model) { power(d).Title = nil }, "a panel has no title"},
		"same title":         {func(d *model) { power(d).Title = new("Invocations") }, `two panels are called "Invocations"`},
		"same id":            {func(d *model) { power(d).Id = lately(d).Id }, `"Power" has no id of its own`},
		"no id":              {func(d *model) { power(d).Id = nil }, "has no id of its own"},
		"no panels":          {func(d *model) { d.Panels = nil }, "there are no panels"},
		"no queries":         {func(d *model) { power(d).Targets = nil }, "asks for nothing"},
		"fixed data source": {func(d *model) {
			query(d, func(q *prometheus.Dataquery) { q.Datasource.Uid = new("abc123") })
		}, "Power: data source map[type:prometheus uid:abc123] is not the one that is chosen"},
		"fixed source of a variable": {func(d *model) { named(d, "node").Datasource.Uid = new("abc123") }, "is not the one that is chosen"},
		"fixed source of alerts":     {func(d *model) { d.Annotations.List[0].Datasource.Uid = new("abc123") }, "is not the one that is chosen"},
		"panel without source":       {func(d *model) { power(d).Datasource = nil }, `panel "Power" has no data source`},
		"query without source": {func(d *model) {
			for _, v := range []string{"cluster", "node", "namespace", "function", "policy"} {
				named(d, v).Datasource = nil
			}
			d.Annotations.List = nil
			query(d, func(q *prometheus.Dataquery) { q.Datasource = nil })
		}, "a query has no data source"},
		"no legend":          {func(d *model) { query(d, func(q *prometheus.Dataquery) { q.LegendFormat = nil }) }, "query A has no legend"},
		"no name":            {func(d *model) { query(d, func(q *prometheus.Dataquery) { q.RefId = nil }) }, "has no name of its own"},
		"instant and range":  {func(d *model) { query(d, func(q *prometheus.Dataquery) { q.Instant = new(true) }) }, "neither or both"},
		"overlap":            {func(d *model) { power(d).GridPos.W++ }, `"Power" and "Invocations" overlap`},
		"overlap with a row": {func(d *model) { power(d).GridPos.Y-- }, `"row What they draw" and "Power" overlap`},
		"outside":            {func(d *model) { at("Invocations")(d).GridPos.X++ }, "outside of the grid"},
		"no extent":          {func(d *model) { power(d).GridPos.H = 0 }, "gridPos.h: must be > 0"},
		"no place":           {func(d *model) { power(d).GridPos = nil }, "has no place"},
		"empty row": {func(d *model) {
			d.Panels = append(d.Panels, dashboard.PanelOrRowPanel{RowPanel: &dashboard.RowPanel{
				Type: "row", Title: new("nothing"), Id: 99, Panels: []dashboard.Panel{}, GridPos: &dashboard.GridPos{Y: 999, W: 24, H: 1},
			}})
		}, `row "nothing" is empty`},
		"empty row before another": {func(d *model) {
			d.Panels = slices.Insert(d.Panels, 0, dashboard.PanelOrRowPanel{RowPanel: &dashboard.RowPanel{Type: "row", Title: new("nothing"), Id: 99, Panels: []dashboard.Panel{}}})
		}, `row "nothing" is empty`},
		"no PromQL":          {expr("sum by node (up)"), `panel "Power": query A: 1:8: parse error`},
		"unknown variable":   {expr(`up{node=~"$host"}`), "there is no variable host"},
		"sum over policies":  {expr(`sum by (node) (rate(wattlet_function_base_share_joules_total[5m]))`), "sums over policies"},
		"sum of all":         {expr(`sum(node_namespace_function_policy:wattlet_function_base_share_watts:rate5m)`), "sums over policies"},
		"sum without policy": {expr(`sum without (policy) (wattlet_function_base_share_joules_total)`), "sums over policies"},
		"sum of two policies": {
			expr(`sum by (node) (wattlet_function_base_share_joules_total{policy=~"equal|requested"})`), "sums over policies",
		},
		"outer sum":        {expr(`sum(sum by (node, policy) (wattlet_function_base_share_joules_total))`), "sums over policies"},
		"several policies": {func(d *model) { named(d, "policy").Multi = new(true) }, "more than one policy"},
		"all policies":     {func(d *model) { named(d, "policy").IncludeAll = new(true) }, "more than one policy"},
		"all with a label": {func(d *model) { named(d, "cluster").AllValue = new(".+") }, "variable cluster: all is not .*"},
		"variable unexplained": {
			func(d *model) { named(d, "node").Description = nil }, "variable node has no label, or does not explain itself",
		},
		"variable's call":  {func(d *model) { named(d, "node").Query.Map["query"] = "values(up, node)" }, "is not label_values(METRIC, LABEL)"},
		"variable's query": {func(d *model) { named(d, "node").Query.Map["query"] = "label_values(up{, node)" }, "variable node: 1:4"},
		"variable of no use": {func(d *model) {
			v := *named(d, "node")
			v.Name = "host"
			d.Templating.List = append(d.Templating.List, v)
		}, "variable host is not used"},
		"alerts' two expressions": {func(d *model) { d.Annotations.List[0].Expr = new(good) }, `annotation "Alerts" has not one expression`},
		"alerts' query": {func(d *model) {
			a := &d.Annotations.List[0]
			q := a.Target.(*prometheus.Dataquery)
			q.Expr, a.Expr = "ALERTS{", new("ALERTS{")
		}, "annotation Alerts: 1:8"},
		"a link to nowhere": {func(d *model) {
			power(d).Links = []dashboard.DashboardLink{{Title: "x", Type: dashboard.DashboardLinkTypeLink, Url: new("/d/nowhere?var-node=a"), Tags: []string{}}}
		}, "leads to nowhere"},
		"not linked":      {func(d *model) { d.Links = nil }, "not linked"},
		"not tagged":      {func(d *model) { d.Tags = nil }, "not linked"},
		"wrong value":     {func(d *model) { d.FiscalYearStartMonth = new(uint8(13)) }, "validation: fiscalYearStartMonth"},
		"control":         {expr(good), ""},
		"largest of all":  {expr(`topk(3, sum by (policy) (wattlet_function_base_share_joules_total))`), ""},
		"largest of sums": {expr(`topk(3, sum by (node) (wattlet_function_base_share_joules_total))`), "sums over policies"},
		"max per policy":  {expr(`max by (policy) (wattlet_function_base_share_joules_total)`), ""},
		"without others":  {expr(`sum without (node) (wattlet_function_base_share_joules_total)`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := decode(renderOf(t, functionsUID))
			if err != nil {
				t.Fatal(err)
			}
			tc.plant(&d)
			text, err := encode(d)
			if err != nil {
				t.Fatal(err)
			}
			faults := lint(text, uids())
			if tc.want == "" {
				if len(faults) > 0 {
					t.Errorf("it finds %q where there is no fault", faults)
				}
				return
			}
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, tc.want) }) {
				t.Errorf("it finds %q, want %q", faults, tc.want)
			}
		})
	}
}

// What Grafana would drop in silence is an error here.
func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	text := string(renderOf(t, functionsUID))
	for change, want := range map[[2]string]string{
		{`"uid": "wattlet-functions"`, `"uid": "wattlet-functions", "colour": "red"`}: "colour",
		{`"legendFormat": "A"`, `"legendFormat": "A", "legend": "B"`}:                 "legend",
		{`"refresh": "30s"`, `"refresh": 30`}:                                         "refresh",
		{`"cellHeight": "sm"`, `"cellHeight": "sm", "cellWidth": 3`}:                  "cellWidth",
	} {
		broken := strings.Replace(text, change[0], change[1], 1)
		if broken == text {
			t.Fatalf("there is no %s", change[0])
		}
		if _, err := decode([]byte(broken)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change[1], err)
		}
	}
}

// The samples for provisioning have no key that Grafana does not know, and fit what there is.
func TestProvisioning(t *testing.T) {
	t.Parallel()
	read := func(name string, into any) {
		t.Helper()
		d := yaml.NewDecoder(strings.NewReader(readFile(t, filepath.Join(golden, "provisioning", name, "wattlet.yaml"))))
		d.KnownFields(true)
		if err := d.Decode(into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	// https://grafana.com/docs/grafana/latest/administration/provisioning/
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, Access, URL string
			JSONData                struct {
				HTTPMethod   string `yaml:"httpMethod"`
				TimeInterval string `yaml:"timeInterval"`
			} `yaml:"jsonData"`
		}
	}
	read("datasources", &sources)
	if s := sources.Datasources; sources.APIVersion != 1 || len(s) != 1 || s[0].Type != *source().Type || s[0].Access != "proxy" {
		t.Errorf("data sources %+v", sources)
	}
	var dashboards struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type, Folder    string
			AllowUIUpdates        bool `yaml:"allowUiUpdates"`
			UpdateIntervalSeconds int  `yaml:"updateIntervalSeconds"`
			Options               struct{ Path string }
		}
	}
	read("dashboards", &dashboards)
	if p := dashboards.Providers; dashboards.APIVersion != 1 || len(p) != 1 || p[0].Type != "file" || p[0].AllowUIUpdates || p[0].UpdateIntervalSeconds != 60 {
		t.Fatalf("dashboards %+v", dashboards)
	}
	readme := readFile(t, filepath.Join(golden, "README.md"))
	for _, want := range append(uids(), dashboards.Providers[0].Options.Path, sources.Datasources[0].URL, sources.Datasources[0].JSONData.TimeInterval[:1]+" s for a hub") {
		if !strings.Contains(readme, want) {
			t.Errorf("README.md does not tell of %s", want)
		}
	}
}
