package hub

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote"
)

// TestOTLPPrometheus sends to Prometheus's own receiver of OTLP while an agent counts on: the node's energy arrives under the name
// that Prometheus gives it, with the value and time of the hub's own sample.
func TestOTLPPrometheus(t *testing.T) {
	t.Parallel()
	to := start(t, Config{})
	receiver := httptest.NewServer(http.StripPrefix("/api/v1/otlp", remote.NewOTLPWriteHandler(slog.New(slog.NewTextHandler(to.log, nil)),
		prometheus.NewRegistry(), to.store, func() config.Config { return config.DefaultConfig }, remote.OTLPOptions{LookbackDelta: lookback})))
	t.Cleanup(receiver.Close)
	agent := newAgent(t, "")
	h := start(t, Config{
		Targets: []Target{{Name: "pi", URL: agent.URL}}, ExternalLabels: map[string]string{"cluster": "munich"},
		OTLP: OTLP{URL: receiver.URL + "/api/v1/otlp", Interval: 50 * time.Millisecond},
	})
	const theirs = `hw_host_energy_joules_total{job="wattlet",instance="munich/pi",hw_id="pi",hw_name="pi"}`
	if got := scraped(t, to.base, theirs); got != 1234.5 {
		t.Errorf("at first %v J", got)
	}
	agent.joule.Add(0.25)
	eventually(t, "more energy", func() bool {
		got, ok := value(t, to.base, theirs)
		return ok && got == 1234.75
	})
	if got := scraped(t, to.base, `hw_host_power_watts{instance="munich/pi"}`); got != 3.25 {
		t.Errorf("%v W", got)
	}
	if got := scraped(t, to.base, `target_info{instance="munich/pi",host_name="pi",k8s_cluster_name="munich"}`); got != 1 {
		t.Errorf("target_info %v", got)
	}
	if _, page, _ := fetchPage(t, h.base+"/metrics"); !strings.Contains(page, `wattlet_hub_otlp_requests_total{code="200"}`) {
		t.Error("no count of requests")
	}
	h.stop() // sends what is left
	ours := start(t, Config{Dir: h.cfg.Dir})
	want := samplesIn(t, ours.base, `wattlet_node_energy_joules_total[1h]`)
	got := samplesIn(t, to.base, theirs+"[1h]")
	if len(got) < 2 || len(want) < len(got) { // before and after it counted on
		t.Fatalf("%d samples of %d", len(got), len(want))
	}
	for at, v := range got {
		if want[at] != v {
			t.Errorf("at %v %s J arrived, stored are %q", at, v, want[at])
		}
	}
	last := want[slices.Max(slices.Collect(maps.Keys(want)))]
	if at := slices.Max(slices.Collect(maps.Keys(got))); got[at] != last {
		t.Errorf("the last that arrived is %s J, stored is %s", got[at], last)
	}
	if strings.Contains(h.log.String(), "OTLP") {
		t.Error(h.log)
	}
}

// samplesIn returns the samples of the one series of a selector with a range, by time.
func samplesIn(t *testing.T, base, query string) map[float64]string {
	t.Helper()
	v := api[vector](t, base, "query", "query", query)
	all := map[float64]string{}
	for _, one := range v.Result {
		for _, sample := range one.Values {
			at, ok := sample[0].(float64)
			text, good := sample[1].(string)
			if !ok || !good {
				t.Fatalf("sample %v", sample)
			}
			all[at] = text
		}
	}
	if len(v.Result) != 1 {
		t.Fatalf("%s has %d series", query, len(v.Result))
	}
	return all
}

// TestOTLPNobodyWaits: a collector that never answers stops neither the hub's work nor its end.
func TestOTLPNobodyWaits(t *testing.T) {
	t.Parallel()
	asked, leave := make(chan struct{}, 8), make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-leave
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(leave) })
	h := start(t, Config{Targets: []Target{{Name: "pi", URL: newAgent(t, "").URL}}, OTLP: OTLP{URL: silent.URL, Interval: 10 * time.Millisecond}})
	<-asked
	before := scraped(t, h.base, "count_over_time(wattlet_node_energy_joules_total[1m])")
	eventually(t, "more samples", func() bool {
		n, _ := value(t, h.base, "count_over_time(wattlet_node_energy_joules_total[1m])")
		return n >= before+3
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.stop()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Error("the hub does not end")
	}
}
