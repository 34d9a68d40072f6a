package main

import (
	"encoding/json"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// emptyByRight are queries that find nothing here, and why; by store, board and place. One that finds something is an error.
var emptyByRight = map[string]string{
	"Prometheus, wattlet-cluster, Agent: share of energy A": notOnBoard, "hub, wattlet-cluster, Agent: share of energy A": notOnBoard,
	"Prometheus, wattlet-node, Agent: share of energy A": notOnBoard, "hub, wattlet-node, Agent: share of energy A": notOnBoard,
	"chosen, wattlet-cluster, Agent: share of energy A": notOnBoard, "chosen, wattlet-node, Agent: share of energy A": notOnBoard,
	"hub, wattlet-cluster, annotation Alerts": noRules, "hub, wattlet-functions, annotation Alerts": noRules,
	"hub, wattlet-node, annotation Alerts": noRules, "hub, wattlet-meters, annotation Alerts": noRules,
	"hub, wattlet-cluster, variable cluster": oneCluster, "hub, wattlet-functions, variable cluster": oneCluster,
	"hub, wattlet-node, variable cluster": oneCluster, "hub, wattlet-meters, variable cluster": oneCluster,
}

const (
	notOnBoard = "an agent of a simulated board runs beside it, and is no workload of it"
	noRules    = "this hub has no rules, so that what is computed where nothing is recorded is asked for too"
	oneCluster = "this hub's agents have no label cluster, which the default of the variable must match"
)

// Each query of each panel, variable and annotation finds series: in Prometheus, which has the rules of deploy/prometheus and two
// clusters, and in a hub, which has neither. What they store comes from agents of two simulated boards, one that serves the
// earlier system's metrics, one whose meter is silent, and one that is down. A third pass asks Prometheus with everything chosen.
func TestQueriesFindSeries(t *testing.T) {
	t.Parallel()
	began := time.Now()
	prometheusURL, hubURL := cluster2(t)
	chosen := map[string]string{
		"cluster": "edge", "node": "(" + board1 + "|silent)", "namespace": "openfaas-fn", "function": "(analyze-sentence|fork-short|cold-rare)", "policy": "equal",
		"meter": "(bench-1|nowhere)", "instance": "earlier", "voltage": "5.2",
	}
	var open []ask
	for _, uid := range uids() {
		text, err := os.ReadFile(filepath.Join(golden, uid+".json"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, asks(t, "Prometheus", prometheusURL, d, nil)...)
		open = append(open, asks(t, "hub", hubURL, d, nil)...)
		open = append(open, asks(t, "chosen", prometheusURL, d, chosen)...)
	}
	t.Logf("%d queries", len(open))
	if len(open) < 300 {
		t.Fatal("where are the queries?")
	}
	for name := range missing(open) {
		t.Errorf("there is no query %s, which may be empty", name)
	}
	eventually(t, "all queries find series", nil, func() bool {
		open = slices.DeleteFunc(open, func(a ask) bool { return emptyByRight[a.String()] == "" && a.finds(t) })
		return len(open) == len(emptyByRight)
	}, func() {
		for _, a := range open {
			if emptyByRight[a.String()] == "" {
				t.Errorf("%s finds nothing: %s", a, a.query.Encode())
			}
		}
	})
	for _, a := range open {
		if a.finds(t) {
			t.Errorf("%s finds series, and is among those that do not because %s", a, emptyByRight[a.String()])
		}
	}
	t.Logf("all found after %v", time.Since(began).Round(time.Second))
	oncePerNode(t, prometheusURL)
}

// missing returns the names in emptyByRight that no query has.
func missing(list []ask) map[string]string {
	left := maps.Clone(emptyByRight)
	for _, a := range list {
		delete(left, a.String())
	}
	return left
}

// oncePerNode checks that where one node's series are recorded and another's cluster has a label, each is shown once.
func oncePerNode(t *testing.T, store string) {
	t.Helper()
	d, err := decode(renderOf(t, clusterUID))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range asks(t, "Prometheus", store, d, nil) {
		if a.where != "Energy nobody can be given A" {
			continue
		}
		seen := map[string]int{}
		for _, s := range a.series(t) {
			seen[s.Metric["node"]]++
		}
		if want := map[string]int{board1: 1, board2: 1}; !maps.Equal(seen, want) {
			t.Errorf("%s shows series of %v, want %v", a, seen, want)
		}
		return
	}
	t.Error("there is no such panel")
}

// ask is a query as Grafana sends it.
type ask struct {
	store, board, where string
	url                 string
	query               url.Values
	chosen              map[string]string // of the labels that the query chooses by, nothing else may be found
}

// String names the query as emptyByRight does.
func (a ask) String() string { return a.store + ", " + a.board + ", " + a.where }

// asks returns all queries of a board, with values put in for variables.
func asks(t *testing.T, name, store string, d model, choice map[string]string) (list []ask) {
	t.Helper()
	values := maps.Clone(own)
	for _, v := range d.Templating.List {
		switch {
		case v.Name == "node" && *d.Uid == nodeUID:
			values[v.Name] = board1 // this board shows one; Grafana would take the first
		case choice[v.Name] != "":
			values[v.Name] = choice[v.Name]
		case v.IncludeAll != nil && *v.IncludeAll:
			values[v.Name] = orEmpty(v.AllValue)
		case v.Current != nil && v.Current.Value.String != nil:
			values[v.Name] = *v.Current.Value.String
		}
	}
	put := func(where, expr string) string {
		return expand(expr, values, func(name string) { t.Errorf("%s, %s: no value for %s", *d.Uid, where, name) })
	}
	add := func(where, expr, path, parameter string) {
		a := ask{store: name, board: *d.Uid, where: where, url: store + path, query: url.Values{parameter: {put(where, expr)}}, chosen: map[string]string{}}
		for _, m := range variable.FindAllStringSubmatch(expr, -1) {
			if v := choice[m[1]]; v != "" && name == "chosen" {
				a.chosen[m[1]] = v
			}
		}
		list = append(list, a)
	}
	for _, p := range panelsOf(d) {
		for _, target := range p.Targets {
			q := target.(*prometheus.Dataquery)
			where := *p.Title + " " + *q.RefId
			if *q.Instant {
				add(where, q.Expr, "/api/v1/query", "query")
			} else {
				add(where, q.Expr, "/api/v1/query_range", "query")
			}
		}
	}
	for _, a := range d.Annotations.List {
		add("annotation "+a.Name, *a.Expr, "/api/v1/query_range", "query")
	}
	for _, v := range d.Templating.List {
		if v.Query == nil || v.Query.Map == nil {
			continue
		}
		where := "variable " + v.Name
		metric, label, err := labelValues(v.Query.Map["query"].(string))
		if err != nil {
			t.Fatal(err)
		}
		add(where, metric, "/api/v1/label/"+label+"/values", "match[]")
	}
	return list
}

// sample is a series of an answer.
type sample struct {
	Metric     map[string]string
	Value      []any
	Values     [][]any
	Histogram  []any
	Histograms [][]any
}

// get asks and decodes the answer's data.
func (a ask) get(t *testing.T, data any) {
	t.Helper()
	query := maps.Clone(a.query)
	now := time.Now()
	query.Set("end", strconv.FormatInt(now.Unix(), 10))
	query.Set("start", strconv.FormatInt(now.Add(-time.Hour).Unix(), 10))
	query.Set("time", query.Get("end"))
	query.Set("step", "15")
	how := http.MethodPost // as the data source of deploy/grafana; of labels' values Prometheus knows GET only
	if strings.HasSuffix(a.url, "/values") {
		how = http.MethodGet
	}
	if status := fetch(t, how, a.url, query, &struct{ Data any }{data}); status != http.StatusOK {
		t.Fatalf("%s: status %d: %s", a, status, query.Encode())
	}
}

// series returns what a query finds.
func (a ask) series(t *testing.T) []sample {
	t.Helper()
	var data struct{ Result []sample }
	a.get(t, &data)
	return data.Result
}

// finds says whether there is something to be drawn, and complains of what was not asked for.
func (a ask) finds(t *testing.T) bool {
	t.Helper()
	if strings.HasSuffix(a.url, "/values") {
		var values []string
		a.get(t, &values)
		return len(values) > 0
	}
	found := false
	for _, s := range a.series(t) {
		for label, value := range s.Metric {
			if want, ok := a.chosen[label]; ok && !slices.Contains(strings.Split(strings.Trim(want, "()"), "|"), value) {
				t.Fatalf("%s finds %v, with %v chosen", a, s.Metric, a.chosen)
			}
		}
		values := s.Values
		if s.Value != nil {
			values = append(values, s.Value)
		}
		for _, v := range values {
			text, _ := v[1].(string)
			f, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			found = found || !math.IsNaN(f) && !math.IsInf(f, 0)
		}
		found = found || s.Histogram != nil || s.Histograms != nil
	}
	return found
}

// fetch fetches JSON and returns the status; 0 if nobody answers.
func fetch(t *testing.T, how, address string, query url.Values, into any) (status int) {
	t.Helper()
	body := io.Reader(http.NoBody)
	if how == http.MethodPost {
		body = strings.NewReader(query.Encode())
	} else if query != nil {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), how, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if how == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Logf("%s: %s", address, text)
	} else if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v: %s", address, err, text)
	}
	return resp.StatusCode
}
