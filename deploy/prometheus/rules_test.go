// Package prometheus_test holds the rules for Prometheus against their own tests, the metrics there are, and the runbook.
package prometheus_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	metricsDoc = "../../docs/metrics.md"
	runbook    = "../../docs/runbook.md"
	runbookURL = "https://github.com/wattlet/wattlet/blob/main/docs/runbook.md#"
)

// rule is a recording rule or an alert.
type rule struct {
	Record, Alert, Expr string
	Labels              map[string]string
	Annotations         map[string]string
}

// rules reads the rules.
func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal([]byte(read(t, "wattlet.rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no rules in wattlet.rules.yaml")
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v; make test gets it", err)
	case err != nil:
		t.Skipf("%v, which is in Debian's package prometheus; make test gets it", err)
	}
	for _, args := range [][]string{
		{"check", "rules", "wattlet.rules.yaml"},
		{"test", "rules", "rules_test.yaml"},
		{"check", "config", "prometheus.yaml"},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Every alert is tested: there is a case in which it fires, and one in which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
			PromqlExprTest []struct{ Expr string } `yaml:"promql_expr_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "rules_test.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	fires, silent, recorded := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, a := range test.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				silent[a.Alertname] = true
			}
		}
		for _, e := range test.PromqlExprTest {
			recorded[e.Expr] = true
		}
	}
	for _, r := range rules(t) {
		switch {
		case r.Alert != "" && (!fires[r.Alert] || !silent[r.Alert]):
			t.Errorf("%s: rules_test.yaml has a case where it fires: %v, where it does not: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		case r.Record != "" && !recorded[r.Record]:
			t.Errorf("%s: rules_test.yaml does not ask for it", r.Record)
		}
	}
}

// Rules use metrics that there are: the agent's, which docs/metrics.md lists, and those that the rules themselves record.
func TestRulesUseMetricsThereAre(t *testing.T) {
	t.Parallel()
	// What scraping itself and every client of Prometheus give.
	there := []string{"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
	for _, m := range regexp.MustCompile("(?m)^\\| `(wattlet_[a-z_]+)` \\|").FindAllStringSubmatch(read(t, metricsDoc), -1) {
		there = append(there, m[1])
	}
	all := rules(t)
	for _, r := range all {
		if r.Record != "" {
			there = append(there, r.Record)
		}
	}
	used := map[string]bool{}
	for _, r := range all {
		for _, name := range names(r.Expr) {
			used[name] = true
			if !slices.Contains(there, name) {
				t.Errorf("%s uses %s, which is in %s as little as in the rules", r.Record+r.Alert, name, metricsDoc)
			}
		}
	}
	if !used["wattlet_meter_up"] || !used["process_cpu_seconds_total"] || !used["up"] {
		t.Errorf("the test sees no names: %v", used)
	}
}

var (
	// Of an expression, what is no name of a metric: selectors, ranges, lists of labels, functions, words of the language, numbers.
	noMetric = regexp.MustCompile(`\{[^}]*\}|\[[^]]*\]|\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)|\b[a-z_]+\s*\(|\b(and|or|unless|sum|by)\b|\b[0-9.]+\b`)
	word     = regexp.MustCompile(`[a-z][a-zA-Z0-9_:]*`)
)

// names returns the names of metrics in an expression.
func names(expr string) []string { return word.FindAllString(noMetric.ReplaceAllString(expr, " "), -1) }

func TestNames(t *testing.T) {
	t.Parallel()
	const expr = `sum by (node) (rate(a_total{x="y"}[5m])) / on (job) group_left (node) a:b:rate5m > 0.5 or abs(c) unless d == 3`
	if got, want := names(expr), []string{"a_total", "a:b:rate5m", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The runbook has a section for every alert, and no others; the alert leads there.
func TestRunbook(t *testing.T) {
	t.Parallel()
	sections := map[string]string{}
	for _, s := range strings.Split(read(t, runbook), "\n## ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		sections[name] = text
	}
	alerts := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		if got, want := r.Annotations["runbook_url"], runbookURL+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s leads to %q, want %q", r.Alert, got, want)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s has no summary, description or severity", r.Alert)
		}
		for _, part := range []string{"**Means.** ", "**Look at.** ", "**Do.** "} {
			if !strings.Contains(sections[r.Alert], "\n"+part) {
				t.Errorf("%s: %s has no %q in a section of that name", r.Alert, runbook, part)
			}
		}
	}
	for name := range sections {
		if !alerts[name] {
			t.Errorf("%s has a section %q and there is no such alert", runbook, name)
		}
	}
}
