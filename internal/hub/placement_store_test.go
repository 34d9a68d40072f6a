package hub

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Made-up stores begin at placementStart, have a sample each placementStep, and are asked two hours later.
const placementStep = 30 * time.Second

var (
	placementStart = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	placementNow   = placementStart.Add(2 * time.Hour)
)

// madeUp is a store with the series of text, one a line, as Prometheus's rule tests have them: name{label="value"} 0+2x240. A value
// that is stale ends a series.
func madeUp(t testing.TB, text string) *store {
	t.Helper()
	s, err := openStore(Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	var all []struct {
		labels labels.Labels
		values []parser.SequenceValue
	}
	most := 0
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		l, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, struct {
			labels labels.Labels
			values []parser.SequenceValue
		}{l, values})
		most = max(most, len(values))
	}
	app := s.DB.Appender(t.Context())
	for i := range most { // as time goes: what is first in a storage decides what is too old for it
		at := placementStart.Add(time.Duration(i) * placementStep).UnixMilli()
		for _, one := range all {
			if i < len(one.values) && !one.values[i].Omitted {
				if _, err := app.Append(0, one.labels, at, one.values[i].Value); err != nil {
					t.Fatalf("%s: %v", one.labels, err)
				}
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return s
}

// askPlacement asks for ?query at placementNow and returns the page's answer.
func askPlacement(t testing.TB, p *placement, query string) *httptest.ResponseRecorder {
	t.Helper()
	mux := http.NewServeMux()
	p.register(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/placement?"+query, http.NoBody))
	return w
}
