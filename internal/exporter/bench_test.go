package exporter

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/energy"
)

// oneNode is a snapshot of an agent with one node on one meter.
func oneNode() *accounting.Snapshot {
	now := time.Now()
	return &accounting.Snapshot{
		Time: now,
		Nodes: []accounting.Node{{
			Name: "pi", Meter: "bench", Channel: 5, Known: true, Fresh: true, At: now, SourceEpoch: 7, SourceAt: time.Hour,
			Energy: 18_000 * energy.Joule, Charge: 3600 * energy.Coulomb, Interval: time.Second, Samples: 1_800_000,
			Power: 5 * energy.Watt, Voltage: 5 * energy.Volt, Current: energy.Ampere,
		}},
		Meters: []accounting.Source{{Name: "bench", Status: energy.Status{
			Kind: "meter", Up: true, LastSuccess: now, Notifications: 36_000, Identity: "bench", Firmware: "1.0",
			Errors: map[string]uint64{"silence": 1, "time": 2},
			Clock:  energy.Clock{Valid: true, Offset: time.Minute, DriftPPM: 12, Bound: time.Millisecond, Exchanges: 60},
		}}},
	}
}

// A snapshot into metrics, as at each scrape.
func BenchmarkCollect(b *testing.B) {
	s := oneNode()
	c := NewCollector(func() *accounting.Snapshot { return s }, "pi")
	ch := make(chan prometheus.Metric, 1000)
	series := 0
	b.ReportAllocs()
	for b.Loop() {
		c.Collect(ch)
		for series = 0; len(ch) > 0; series++ {
			<-ch
		}
	}
	b.ReportMetric(float64(series), "series")
}

// A whole scrape without the network: Collect, build and process information, text.
func BenchmarkScrape(b *testing.B) {
	s := oneNode()
	h, err := NewHandler(Config{
		Snapshot: func() *accounting.Snapshot { return s }, Self: "pi", Version: "1.0", Tick: time.Second, Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", http.NoBody)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, req); w.Code != http.StatusOK {
			b.Fatal(w.Body.String())
		}
	}
}
