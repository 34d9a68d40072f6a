package hub

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// TestRules evaluates rules of a site's own: what they record is stored, and kept over a restart; alerts fire, and an Alertmanager
// gets them; a rule that fails is told of once.
func TestRules(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	var told atomic.Value
	manager := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && r.URL.Path == "/am/api/v2/alerts" {
			told.Store(body)
		}
	}))
	defer manager.Close()
	cfg := Config{
		Dir: t.TempDir(), Targets: []Target{{Name: "bench", URL: a.URL}}, ExternalLabels: map[string]string{"cluster": "lab"},
		Alertmanagers: []string{manager.URL + "/am/"},
		Rules: []RuleFile{{Name: "site.yaml", Text: []byte(`
groups:
  - name: site
    interval: 100ms
    rules:
      - {record: "node:joules:twice", expr: 2 * wattlet_node_energy_joules_total}
      - alert: TooWarm
        expr: wattlet_node_power_watts > 3
        labels: {severity: page}
        annotations: {summary: "{{ $labels.node }} draws {{ $value }} W in {{ $externalLabels.cluster }}"}
      - {alert: TooCold, expr: wattlet_node_power_watts < 3}
      - {record: broken, expr: '{__name__=~"wattlet_node_.*"} * on () {__name__=~"wattlet_node_.*"}'}
`)}, {Name: "slow.yaml", Text: []byte("groups: [{name: slow, rules: [{record: slow, expr: vector(1)}]}]")}},
	}
	h := start(t, cfg)
	if got := scraped(t, h.base, "node:joules:twice"); got != 2469 {
		t.Errorf("recorded %v, want 2469", got)
	}
	eventually(t, "an alert at the Alertmanager", func() bool { return told.Load() != nil })
	type alert struct {
		Labels, Annotations map[string]string
		State               string
	}
	var sent []alert
	if err := json.Unmarshal(told.Load().([]byte), &sent); err != nil {
		t.Fatal(err)
	}
	const summary = "pi draws 3.25 W in lab"
	if len(sent) != 1 || sent[0].Labels["alertname"] != "TooWarm" || sent[0].Labels["cluster"] != "lab" || sent[0].Annotations["summary"] != summary {
		t.Errorf("the Alertmanager got %v", sent)
	}
	alerts := api[struct{ Alerts []alert }](t, h.base, "alerts").Alerts
	if len(alerts) != 1 || alerts[0].Labels["alertname"] != "TooWarm" || alerts[0].Labels["severity"] != "page" ||
		alerts[0].Labels["node"] != "pi" || alerts[0].State != "firing" || alerts[0].Annotations["summary"] != summary {
		t.Errorf("alerts %v", alerts)
	}
	if got := scraped(t, h.base, `ALERTS{alertname="TooWarm", alertstate="firing"}`); got != 1 {
		t.Errorf("ALERTS is %v", got)
	}
	if got := api[struct{ ActiveAlertmanagers []struct{ URL string } }](t, h.base, "alertmanagers").ActiveAlertmanagers; len(got) != 1 || got[0].URL != manager.URL+"/am/api/v2/alerts" {
		t.Errorf("Alertmanagers %v", got)
	}
	eventually(t, "the rule that fails", func() bool { return strings.Contains(h.log.String(), "cannot be evaluated") })
	groups := api[struct {
		Groups []struct {
			Name, File string
			Interval   float64
			Rules      []struct{ Name, Health, LastError string }
		}
	}](t, h.base, "rules").Groups
	if len(groups) != 2 || groups[0].Name != "site" || groups[0].File != "site.yaml" || groups[0].Interval != 0.1 || len(groups[0].Rules) != 4 || groups[1].Interval != 15 {
		t.Fatalf("groups %+v", groups)
	}
	for _, r := range groups[0].Rules {
		if want := map[bool]string{true: "err", false: "ok"}[r.Name == "broken"]; r.Health != want || (r.LastError != "") != (want == "err") {
			t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
	h.stop()
	// Once, and once more each time that a scrape came too late for the rule to fail.
	log := h.log.String()
	if n := strings.Count(log, "\n"); n != strings.Count(log, "file=site.yaml") || n != strings.Count(log, "rule=broken") ||
		n != 2*strings.Count(log, "cannot be evaluated")-1 && n != 2*strings.Count(log, "cannot be evaluated") {
		t.Errorf("log:\n%s", log)
	}
	h = start(t, Config{Dir: cfg.Dir})
	if got, _ := value(t, h.base, "last_over_time(node:joules:twice[1m])"); got != 2469 {
		t.Errorf("recorded %v after a restart", got)
	}
}

// TestParseRules says in which file and line a rule is wrong.
func TestParseRules(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"good":       {"groups: [{name: g, rules: [{record: r, expr: up}]}]", ""},
		"empty":      {"", ""},
		"expression": {"groups:\n- name: g\n  rules:\n  - record: r\n    expr: sum(\n", `rules f:5:11: group "g", rule 1, "r": could not parse expression: 1:5: parse error: unclosed left parenthesis`},
		"field":      {"groups:\n- name: g\n  rule:\n  - record: r\n", "rules f: yaml: unmarshal errors: line 3: field rule not found in type rulefmt.RuleGroup"},
		"no YAML":    {"groups:\n- name: g\n rules: x\n", "rules f: yaml: line 2: did not find expected key"},
		"no name":    {"groups:\n- rules: []\n", "rules f: Groupname must not be empty"},
		"both":       {"groups:\n- name: g\n  rules:\n  - {record: r, alert: a, expr: up}\n", `rules f:4:14: 4:24: group "g", rule 1, "a": only one of 'record' and 'alert' must be set`},
		"template":   {"groups:\n- name: g\n  rules:\n  - {record: r, expr: up}\n  - alert: a\n    expr: up\n    annotations: {summary: '{{ $nothing }}'}\n", `rules f:5: group "g", rule 2, "a": annotation "summary": template: `},
		"second":     {"groups: []\n---\ngroups: []\n", "rules f: a second document begins within"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseRules([]RuleFile{{Name: "f", Text: []byte(tc.text)}})
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)) {
				t.Errorf("%v\nwant %s", err, tc.want)
			}
		})
	}
	if _, err := parseRules([]RuleFile{{Name: "f"}, {Name: "f"}}); err == nil || err.Error() != "rules f: the file is there twice" {
		t.Error(err)
	}
}

// transport answers requests.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestAlertmanagerHealth tells once that an Alertmanager fails, and once that it is well again.
func TestAlertmanagerHealth(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	a := &alertmanagerHealth{log: slog.New(slog.NewTextHandler(&log, nil)), bad: map[string]bool{}}
	lines := 0
	for i, tc := range []struct {
		status int // 0 for no answer
		want   string
	}{
		{200, ""},
		{500, `msg="an Alertmanager does not take alerts" url=http://am:9093/api/v2/alerts err="it answered Internal Server Error"`},
		{0, ""},
		{200, "takes alerts again"},
		{200, ""},
		{0, "broken wire"},
	} {
		client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			if tc.status == 0 {
				return nil, errors.New("broken wire")
			}
			return &http.Response{StatusCode: tc.status, Status: http.StatusText(tc.status), Body: http.NoBody}, nil
		})}
		req := httptest.NewRequest(http.MethodPost, "http://am:9093/api/v2/alerts", http.NoBody)
		req.RequestURI = ""
		resp, err := a.do(t.Context(), client, req)
		if (err != nil) != (tc.status == 0) || err == nil && resp.StatusCode != tc.status {
			t.Errorf("%d: %v, %v", i, resp, err)
		}
		all := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
		if tc.want != "" {
			lines++
		}
		if n := strings.Count(log.String(), "\n"); n != lines || tc.want != "" && !strings.Contains(all[len(all)-1], tc.want) {
			t.Errorf("%d: %d lines, want %d, the last of them with %s: %s", i, n, lines, tc.want, all[len(all)-1])
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	req := httptest.NewRequest(http.MethodPost, "http://other:9093/", http.NoBody)
	req.RequestURI = ""
	if _, err := a.do(ended, &http.Client{}, req); err == nil || strings.Count(log.String(), "\n") != lines {
		t.Errorf("at the end of the hub: %v, %s", err, log.String())
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte("groups:\n- name: g\n  rules:\n  - record: r\n    expr: sum(up)\n  - alert: a\n    expr: up == 0\n    annotations: {summary: '{{ $labels.x }}'}\n"))
	f.Add([]byte("groups: [{name: g, rules: [{record: r, alert: a}]}]\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		groups, err := parseRuleFile(text, parser.NewParser(parser.Options{}))
		if err == nil && groups == nil || err != nil && (err.Error() == "" || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%v, %v", groups, err)
		}
	})
}
