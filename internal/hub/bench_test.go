package hub

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// What a cluster of some size leaves in the storage: six boards, forty functions on each, six hours of a sample every five seconds.
const (
	benchBoards    = 6
	benchFunctions = 40
	benchHistory   = 6 * time.Hour
	benchInterval  = 5 * time.Second
)

// fill stores the series that the dashboard reads, and returns how many samples these are. They end at end.
func fill(b *testing.B, s storage.Appendable, end time.Time) (samples int) {
	b.Helper()
	type counter struct {
		ref   storage.SeriesRef
		ls    labels.Labels
		value float64
		per   float64 // mean growth a step; 0 for a gauge
	}
	var all []*counter
	add := func(per float64, pairs ...string) {
		all = append(all, &counter{ls: labels.FromStrings(pairs...), per: per, value: 1})
	}
	for i := range benchBoards {
		node := fmt.Sprintf("board-%d", i)
		for name, per := range map[string]float64{
			"wattlet_node_energy_joules_total": 15, "wattlet_node_base_joules_total": 10, "wattlet_node_unattributed_joules_total": 0.1,
			"wattlet_node_current_amperes": 0, "wattlet_model_base_watts": 0, "wattlet_model_core_watts": 0,
		} {
			add(per, model.MetricNameLabel, name, "node", node, "instance", node, "job", "wattlet")
		}
		for j := range benchFunctions {
			function := fmt.Sprintf("function-%d", j)
			of := []string{"node", node, "instance", node, "job", "wattlet", "namespace", "openfaas-fn"}
			for name, per := range map[string]float64{
				"wattlet_function_energy_joules_total": 0.1, "wattlet_function_invocations_total": 0.3,
				"wattlet_function_coldstart_joules_total": 0.01, "wattlet_function_cold_starts_total": 0.001,
			} {
				add(per, append([]string{model.MetricNameLabel, name, "function", function}, of...)...)
			}
			for _, policy := range []string{"equal", "proportional", "requested"} {
				add(0.2, append([]string{model.MetricNameLabel, "wattlet_function_base_share_joules_total", "function", function, "policy", policy}, of...)...)
			}
			for _, bound := range []string{"mean", "low", "high"} {
				add(0, append([]string{model.MetricNameLabel, "wattlet_function_joules_per_invocation", "function", function, "bound", bound}, of...)...)
			}
			for _, name := range []string{"wattlet_workload_energy_joules_total", "wattlet_workload_coldstart_joules_total"} {
				add(0.1, append([]string{model.MetricNameLabel, name, "kind", "function", "name", function + "-0"}, of...)...)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for at := end.Add(-benchHistory); !at.After(end); at = at.Add(benchInterval) {
		app := s.Appender(b.Context())
		for _, c := range all {
			if c.value += c.per * rng.ExpFloat64(); c.per == 0 {
				c.value = 2 + 0.1*rng.NormFloat64()
			}
			var err error
			if c.ref, err = app.Append(c.ref, c.ls, at.UnixMilli(), c.value); err != nil {
				b.Fatal(err)
			}
			samples++
		}
		if err := app.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	return samples
}

// BenchmarkRangeQuery asks what the dashboard's pages ask for, over all the history: the median of a query over the whole HTTP path.
func BenchmarkRangeQuery(b *testing.B) {
	cfg := Config{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler), Retention: 24 * time.Hour}
	s, err := openStore(cfg, prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	end := time.Now().Truncate(time.Minute)
	began := time.Now()
	samples := fill(b, s, end)
	b.Logf("%d samples stored in %v", samples, time.Since(began).Round(time.Millisecond))
	if err := s.close(); err != nil {
		b.Fatal(err)
	}
	h := start(b, cfg)
	const step = "60"
	for _, q := range []struct{ name, query string }{
		{"power by node", `sum by (node) (rate(wattlet_node_energy_joules_total[60s]))`},
		{"energy of 15 s", `sum by (node) (increase(wattlet_node_energy_joules_total[15s]))`},
		{"power of a node's functions", `sum by (namespace, function) (rate(wattlet_function_energy_joules_total{node="board-1"}[60s]))`},
		{"power of all functions", `sum by (node, namespace, function) (rate(wattlet_function_energy_joules_total[60s]))`},
		{"joules per invocation", `sum by (node, namespace, function) (increase(wattlet_function_energy_joules_total[120s])) / ` +
			`sum by (node, namespace, function) (increase(wattlet_function_invocations_total[120s]))`},
		{"joules per invocation of a node", `sum by (node, namespace, function) (increase(wattlet_function_energy_joules_total{node="board-1"}[120s])) / ` +
			`sum by (node, namespace, function) (increase(wattlet_function_invocations_total{node="board-1"}[120s]))`},
		{"energy in 6 h, one instant", `sum by (node, namespace, function) (increase(wattlet_function_energy_joules_total[6h]))`},
	} {
		b.Run(q.name, func(b *testing.B) {
			values := url.Values{"query": {q.query}, "step": {step}}
			values.Set("start", strconv.FormatInt(end.Add(-benchHistory).Unix(), 10))
			values.Set("end", strconv.FormatInt(end.Unix(), 10))
			address := h.base + "/api/v1/query_range?" + values.Encode()
			if q.name == "energy in 6 h, one instant" {
				address = h.base + "/api/v1/query?" + url.Values{"query": {q.query}, "time": values["end"]}.Encode()
			}
			var took []time.Duration
			size := 0
			for b.Loop() {
				began := time.Now()
				status, body, _ := fetchPage(b, address)
				took = append(took, time.Since(began))
				if size = len(body); status != 200 || size < 500 {
					b.Fatalf("%d: %s", status, body)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e6, "median-ms")
			b.ReportMetric(float64(size)/1024, "KiB")
		})
	}
}
