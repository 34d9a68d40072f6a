package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/trace"
	"github.com/wattlet/wattlet/internal/validation"
)

// composed writes a trace of a load with known truth and returns its directory and each function's true energy, J.
func composed(tb testing.TB, functions int, o validation.Options, t trace.Options) (dir string, truth map[string]float64) {
	tb.Helper()
	c, err := validation.Compose(validation.Synthetic(functions, 7), o)
	if err != nil {
		tb.Fatal(err)
	}
	dir = filepath.Join(tb.TempDir(), "trace")
	w, err := trace.Create(dir, trace.Meta{
		Node: "synthetic", Start: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Cores: map[string]int{"": 4}, Recorder: "test",
		Meter: &trace.Meter{GainStdDev: 0.01, Noise: 10_000},
	}, t)
	if err != nil {
		tb.Fatal(err)
	}
	if err := validation.Record(c, w); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	truth = map[string]float64{}
	for i := range c.Ticks {
		for j, u := range c.Ticks[i].Uses {
			if f := c.Workloads[u.Slot].Function; f != "" {
				truth[f] += c.Ticks[i].Truth[j]
			}
		}
	}
	return dir, truth
}

var _ validation.Recorder = (*trace.Writer)(nil)

// replayTrace runs the command and returns what it prints.
func replayTrace(t *testing.T, args ...string) (out replayed, text string) {
	t.Helper()
	var stdout, stderr output
	if status := run(t.Context(), append([]string{"replay", "--json"}, args...), &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	text = stdout.String()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out, text
}

// From a trace with an unknown lag: the parts make the whole in every window, energies are near the truth, and the same
// trace gives the same bytes.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{0, 430 * time.Millisecond, 800 * time.Millisecond} {
		t.Run(lag.String(), func(t *testing.T) {
			t.Parallel()
			dir, truth := composed(t, 6, validation.Options{Seed: 11, Duration: 20 * time.Minute, Lag: lag}, trace.Options{Compression: "zst"})
			r, text := replayTrace(t, dir, "--window=10s")
			if r.Format != "wattlet-replay/1" || r.Node != "synthetic" || r.Estimator != "chk" {
				t.Errorf("it says %s, %s, %s", r.Format, r.Node, r.Estimator)
			}
			sum := r.BaseUJ
			for _, w := range r.Workloads {
				sum += w.EnergyUJ + w.ColdStartUJ
			}
			summary, err := trace.Check(dir)
			if err != nil {
				t.Fatal(err)
			}
			if sum != r.MeasuredUJ || r.MeasuredUJ != int64(summary.Measured) {
				t.Errorf("parts %d, measured %d, in the trace %d µJ", sum, r.MeasuredUJ, summary.Measured)
			}
			windows := int64(0)
			for _, w := range r.Windows {
				parts := w.BaseUJ
				for _, p := range w.Workloads {
					parts += p.EnergyUJ
				}
				if parts != w.MeasuredUJ || w.EndUs-w.StartUs != 10_000_000 {
					t.Errorf("window %d to %d: parts %d, measured %d µJ", w.StartUs, w.EndUs, parts, w.MeasuredUJ)
				}
				windows += w.MeasuredUJ
			}
			if windows != r.MeasuredUJ {
				t.Errorf("windows make %d, measured are %d µJ", windows, r.MeasuredUJ)
			}
			if d := time.Duration(r.LagUs)*time.Microsecond - lag; d.Abs() > 50*time.Millisecond {
				t.Errorf("lag %v is %v off", lag, d)
			}
			if len(r.Functions) != len(truth) {
				t.Fatalf("%d functions, want %d", len(r.Functions), len(truth))
			}
			for _, f := range r.Functions {
				e := float64(f.EnergyUJ)/1e6/truth[f.Function] - 1
				if math.Abs(e) > 0.08 {
					t.Errorf("%s: %.1f J, truly %.1f, %+.1f %%", f.Function, float64(f.EnergyUJ)/1e6, truth[f.Function], 100*e)
				}
				if f.Invocations == 0 || f.PerInvoke == nil || f.PerInvoke.High95 == nil || f.StdDevUJ == 0 {
					t.Errorf("%s: %+v", f.Function, f)
				}
			}
			if _, again := replayTrace(t, dir, "--window=10s"); again != text {
				t.Error("the same trace gave other bytes")
			}
		})
	}
}

// Every estimator replays, and none loses a microjoule.
func TestReplayByOthers(t *testing.T) {
	t.Parallel()
	dir, _ := composed(t, 4, validation.Options{Seed: 2, Duration: 5 * time.Minute}, trace.Options{})
	for name := range estimators {
		r, _ := replayTrace(t, dir, "--estimator="+name)
		sum := r.BaseUJ
		for _, w := range r.Workloads {
			sum += w.EnergyUJ + w.ColdStartUJ
		}
		if sum != r.MeasuredUJ || r.MeasuredUJ == 0 || r.Windows != nil {
			t.Errorf("%s: parts %d, measured %d µJ, %d windows", name, sum, r.MeasuredUJ, len(r.Windows))
		}
	}
}

func TestReplayForPeople(t *testing.T) {
	t.Parallel()
	dir, _ := composed(t, 3, validation.Options{Seed: 2, Duration: 5 * time.Minute}, trace.Options{})
	var stdout, stderr output
	if status := run(t.Context(), []string{"replay", dir}, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	for _, want := range []string{"node synthetic, estimator chk\nmeasured ", " of which base ", "FUNCTION", "J/INVOCATION", "/f01 ", "WORKLOAD", "daemon"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("it does not print %q:\n%s", want, stdout.String())
		}
	}
}

func TestReplayOfFaults(t *testing.T) {
	t.Parallel()
	dir, _ := composed(t, 3, validation.Options{Seed: 2, Duration: time.Minute}, trace.Options{})
	text := read(t, filepath.Join(dir, "cpu.csv"))
	lines := slices.Collect(strings.Lines(text))
	lines[5] = strings.Replace(lines[5], ",", ",,", 1)
	if err := os.WriteFile(filepath.Join(dir, "cpu.csv"), []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"ragged row":     {[]string{dir}, 1, "cpu.csv:6:"},
		"no trace":       {[]string{t.TempDir()}, 1, "trace.json"},
		"estimator":      {[]string{dir, "--estimator=kepler"}, 2, "no estimator \"kepler\"; known: chk, cpu-share"},
		"half a second":  {[]string{dir, "--window=1500ms"}, 2, "windows are whole seconds"},
		"no directory":   {[]string{filepath.Join(dir, "none")}, 2, "none"},
		"two of a trace": {[]string{dir, dir}, 2, "unexpected argument"},
	} {
		var stdout, stderr output
		status := run(t.Context(), append([]string{"replay"}, tc.args...), &stdout, &stderr)
		if status != tc.status || !strings.Contains(stderr.String(), tc.want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: status %d, %q; want %d and one line with %q", name, status, stderr.String(), tc.status, tc.want)
		}
	}
}

// BenchmarkReplay says how much faster than it was recorded a trace of 20 workloads at ticks of 100 ms is replayed.
func BenchmarkReplay(b *testing.B) {
	const long = 30 * time.Minute
	for _, compression := range []string{"", "gz", "zst"} {
		b.Run("csv"+compression, func(b *testing.B) {
			dir, _ := composed(b, 19, validation.Options{Seed: 1, Duration: long}, trace.Options{Compression: compression})
			for b.Loop() {
				tr, err := trace.Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				r := newReplay(tr, replayCmd{Hold: 45 * time.Second, Window: 10 * time.Second}, 100*time.Millisecond, estimators["chk"])
				if err := r.run(); err != nil {
					b.Fatal(err)
				}
				if err := tr.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(long.Seconds()*float64(b.N)/b.Elapsed().Seconds(), "x-real-time")
		})
	}
}
