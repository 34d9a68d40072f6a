package validation

import (
	"os"
	"testing"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/attribution/baseline"
)

// recordings loads the recorded runs that WATTLET_DATA names.
func recordings(t *testing.T) []*Recording {
	t.Helper()
	dir := os.Getenv("WATTLET_DATA")
	if dir == "" {
		t.Skip("WATTLET_DATA is not set: it names a folder with recorded runs, <run>.power.csv.gz and <run>.invocations.csv")
	}
	r, err := LoadRecordings(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBaselinesOnRecordedRuns: what was published for the development runs with another implementation (six seeds, other random
// numbers): utilisation 17.7, 52.5, 33.0 %; CPU share with known idle power 4.7, 5.3, 4.8 %; the rule of FaasMeter 30.5, 33.5, 26.5 %.
func TestBaselinesOnRecordedRuns(t *testing.T) {
	want := map[string]map[string][2]float64{
		"governors-4l-4b-pp-KJOFVAGF": {"utilisation": {0.15, 0.21}, "cpu-share": {0.035, 0.065}, "faasmeter": {0.12, 0.6}},
		"governors-4l-4b-ii-ztVk9ZtQ": {"utilisation": {0.47, 0.58}, "cpu-share": {0.035, 0.065}, "faasmeter": {0.12, 0.6}},
		"governors-4l-0b-ii-In3RQJtz": {"utilisation": {0.28, 0.38}, "cpu-share": {0.035, 0.065}, "faasmeter": {0.12, 0.6}},
	}
	seen := 0
	for _, r := range recordings(t) {
		l, err := r.Library(Cut{})
		if err != nil {
			t.Fatal(err)
		}
		lag, peak := r.Lag()
		t.Logf("%s: lag %.3f s at %.3f, idle %.3f W, %d functions", r.Name, lag, peak, l.Idle, len(l.Functions))
		scores := map[string][]*Score{}
		for seed := range uint64(6) {
			c, err := Compose(l, Options{Seed: seed + 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, construct := range []func(attribution.Board) attribution.Estimator{
				baseline.CPUShare, baseline.Utilisation, baseline.NNLS, baseline.FaasMeter(0)} {
				o, err := Run(construct(c.Board), c)
				if err != nil {
					t.Fatal(err)
				}
				scores[o.Estimator] = append(scores[o.Estimator], Judge(c, o))
			}
		}
		for name, v := range scores {
			u := Summarise(v)
			t.Logf("  %-12s mean %.2f%% (%.2f) late %.2f%% worst %.2f%% bias %+.2f%% 10s %.1f%% others %+.1f%% cons %d %.1fus base %.3f conv %v",
				name, 100*u.MeanError.Median, 100*u.MeanError.Worst, 100*u.LateMean.Median, 100*u.WorstError.Median, 100*u.Bias.Median,
				100*u.WAPE10.Median, 100*u.OthersError.Median, u.Conservation, u.MicrosPerTick.Median, v[0].Base, u.Convergence)
			if u.Conservation != 0 {
				t.Errorf("%s on %s: off by %d µJ", name, r.Name, u.Conservation)
			}
			if bound, ok := want[r.Name][name]; ok {
				seen++
				if u.MeanError.Median < bound[0] || u.MeanError.Median > bound[1] {
					t.Errorf("%s on %s: mean error %.4f, published is about the middle of %v", name, r.Name, u.MeanError.Median, bound)
				}
			}
		}
	}
	if seen == 0 {
		t.Skip("none of the development runs is in WATTLET_DATA")
	}
}
