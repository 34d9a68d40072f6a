package exporter

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wattlet/wattlet/internal/accounting"
)

// Config is what a Handler is made of.
type Config struct {
	// Snapshot returns the newest snapshot, never nil.
	Snapshot func() *accounting.Snapshot
	// Record begins a recording of the agent's own node.
	Record func() (*accounting.Recording, error)
	// Self is the node the agent runs on.
	Self    string
	Version string
	// Legacy adds the series of the earlier exporter; there must be exactly one node.
	Legacy bool
	// Tick is the time between snapshots: a newest one that is much older means the agent hangs.
	Tick time.Duration
	Now  func() time.Time
}

// NewHandler returns the agent's pages: /metrics, /api/v1/snapshot, /api/v1/records, /healthz, /readyz, and / which names them.
func NewHandler(cfg Config) (http.Handler, error) {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wattlet_build_info", Help: "1; what runs.",
		ConstLabels: prometheus.Labels{"node": cfg.Self, "version": cfg.Version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	all := []prometheus.Collector{
		NewCollector(cfg.Snapshot, cfg.Self), build, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	if cfg.Legacy {
		if n := len(cfg.Snapshot().Nodes); n != 1 {
			return nil, fmt.Errorf("the earlier exporter's metrics have no node label, but %d nodes are served here; serve one", n)
		}
		all = append(all, NewLegacyCollector(cfg.Snapshot))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	// Uncompressed: gzip would be half of a scrape's CPU time and a megabyte of buffers, for some kilobytes on a local network.
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, DisableCompression: true}))
	mux.HandleFunc("GET /api/v1/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(View(cfg.Snapshot())) // the reader went away
	})
	mux.HandleFunc("GET /api/v1/records", records(cfg))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if age := cfg.Now().Sub(cfg.Snapshot().Time); age > 10*cfg.Tick+5*time.Second {
			http.Error(w, fmt.Sprintf("no snapshot for %v: the agent hangs", age.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if missing := notReady(cfg.Snapshot()); missing != "" {
			http.Error(w, missing, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, page(cfg.Snapshot(), cfg.Version)) // the reader went away
	})
	return mux, nil
}

// notReady names the nodes of which nothing was ever heard and why. A meter that falls silent later does not take the agent
// out of service: that is what wattlet_meter_up tells.
func notReady(s *accounting.Snapshot) string {
	trouble := map[string]string{}
	for _, m := range s.Meters {
		trouble[m.Name] = m.Err
	}
	var lines []string
	for _, n := range s.Nodes {
		if n.At.IsZero() {
			lines = append(lines, fmt.Sprintf("node %s: no reading yet from meter %s: %s", n.Name, n.Meter, trouble[n.Meter]))
		}
	}
	return strings.Join(lines, "\n")
}
