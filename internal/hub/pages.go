package hub

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newHandler returns all pages of the hub.
func (h *Hub) newHandler(reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", h.newAPI(reg)))
	mux.Handle("GET /api/v1/live", h.live)
	newPlacement(h.store).register(mux)
	mux.Handle("/api/", http.NotFoundHandler())
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	mux.HandleFunc("GET /healthz", ok)
	// Who answers has its storage open, and ends when it cannot write.
	mux.HandleFunc("GET /readyz", ok)
	pages := dashboard(h.cfg.Web)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only to be read", http.StatusMethodNotAllowed)
			return
		}
		pages(w, r)
	})
	return mux
}

// dashboard serves a single-page application: what is no file is a place within it.
func dashboard(web fs.FS) http.HandlerFunc {
	if web == nil {
		return noDashboard
	}
	if _, err := fs.Stat(web, "index.html"); err != nil {
		return noDashboard
	}
	files := http.FileServerFS(web)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		info, err := fs.Stat(web, name)
		switch found := err == nil && !info.IsDir() && name != "index.html"; {
		case found && strings.HasPrefix(name, "assets/"):
			// The build puts a hash of the content into these names.
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			files.ServeHTTP(w, r)
		case found:
			w.Header().Set("Cache-Control", "no-cache")
			files.ServeHTTP(w, r)
		case strings.HasPrefix(name, "assets/"):
			http.NotFound(w, r) // a page that was open before an update; HTML would not help it
		default:
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, web, "index.html")
		}
	}
}

func noDashboard(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, plainPage) // the reader went away
}

const plainPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>wattlet hub</title>
<h1>wattlet hub</h1>
<p>This hub was built without its dashboard: <code>make web</code> builds the dashboard, <code>make build</code> then the hub with it.
<ul>
<li><a href="api/v1/targets">/api/v1/targets</a> the agents and how their last scrape went
<li><a href="api/v1/query?query=wattlet_node_power_watts">/api/v1/query</a> and all of Prometheus's HTTP API: give Grafana this
address as a Prometheus data source
<li><a href="api/v1/live">/api/v1/live</a> every second the newest snapshot of every agent, as server-sent events
<li><a href="metrics">/metrics</a> of the hub itself, <a href="healthz">/healthz</a>, <a href="readyz">/readyz</a>
</ul>
`
