package hub

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
)

// BenchmarkPlacement asks for a function of 100 nodes with a day of samples, 5 s apart.
func BenchmarkPlacement(b *testing.B) {
	s, err := openStore(Config{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)}, prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	defer s.close() //nolint:errcheck // it was only read
	end := placementStart.Add(placementDay)
	for from := placementStart; from.Before(end); from = from.Add(time.Hour) {
		app := s.DB.Appender(b.Context())
		for node := range 100 {
			name := fmt.Sprint("node-", node)
			add := func(late time.Duration, value func(i int) float64, more ...string) {
				set := labels.FromStrings(append(more, "node", name, "instance", name, "cluster", "lab")...)
				for i, at := 0, from; at.Before(from.Add(time.Hour)); i, at = i+1, at.Add(5*time.Second) {
					if at.After(end.Add(-late)) {
						if _, err := app.Append(0, set, at.UnixMilli(), value(i+int(at.Sub(placementStart)/time.Second))); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			add(placementDay, func(i int) float64 { return 3 + float64(i*node%997)/500 }, "__name__", "wattlet_node_power_watts")
			add(placementDay, func(i int) float64 { return float64(i) }, "__name__", "wattlet_function_invocations_total", "function", "f", "namespace", "n")
			for _, metric := range []string{"energy_joules_total", "overhead_joules_total", "energy_stddev_joules", "collinear"} {
				add(time.Hour, func(i int) float64 { return float64(i) * 0.37 }, "__name__", "wattlet_function_"+metric, "function", "f", "namespace", "n")
			}
		}
		if err := app.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	p := newPlacement(s)
	p.now = func() time.Time { return end }
	b.ReportAllocs()
	for b.Loop() {
		if w := askPlacement(b, p, "function=f"); w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}
