package align_test

import (
	"compress/gzip"
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/energy"
)

// Runs of a browser benchmark on an Odroid-XU3, whose lags were found by correlation over the whole run on a 40 ms grid.
func TestLagOfRealRuns(t *testing.T) {
	dir := os.Getenv("WATTLET_DATA")
	if dir == "" {
		t.Skip("needs WATTLET_DATA, a folder with RUN.power.csv.gz of the Odroid-XU3 runs")
	}
	for name, want := range map[string]time.Duration{
		"governors-4l-4b-pp-KJOFVAGF": 424 * ms,
		"governors-4l-4b-ii-ztVk9ZtQ": 476 * ms,
		"governors-4l-0b-ii-In3RQJtz": 527 * ms,
	} {
		for _, tick := range []time.Duration{100 * ms, time.Second} {
			f, err := os.Open(filepath.Join(dir, name+".power.csv.gz"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := csv.NewReader(z).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			column := map[string]int{}
			for i, h := range rows[0] {
				column[h] = i
			}
			sum := func(row []string, names ...string) (s float64) {
				for _, n := range names {
					v, err := strconv.ParseFloat(row[column[n]], 64)
					if err != nil {
						t.Fatal(err)
					}
					s += v
				}
				return s
			}
			var tl align.Timeline
			l := align.NewLag(tick, 300*ms)
			var joules, watts, busy float64
			var last, start, edge time.Duration
			var seen uint64
			var worst time.Duration
			for i, row := range rows[1:] {
				now := time.Duration(sum(row, "t_ms")) * ms
				w := sum(row, "a7_W", "a15_W", "mem_W", "gpu_W")
				b := sum(row, "cpu0_busy_jiffies", "cpu1_busy_jiffies", "cpu2_busy_jiffies", "cpu3_busy_jiffies",
					"cpu4_busy_jiffies", "cpu5_busy_jiffies", "cpu6_busy_jiffies", "cpu7_busy_jiffies") / 100
				if i == 0 {
					start, edge = now, tick
				} else {
					joules += (w + watts) / 2 * (now - last).Seconds()
				}
				tl.Add(align.Reading{Epoch: 1, At: now - start, Host: now - start, Energy: energy.Energy(joules * 1e6)})
				for ; i > 0 && edge <= now-start; edge += tick {
					x := float64(edge-(last-start)) / float64(now-last)
					l.Tick(&tl, edge, busy+x*(b-busy))
					if s := l.State(); s.Accepted != seen {
						seen = s.Accepted
						worst = max(worst, (s.Lag - want).Abs())
						t.Logf("%s tick %v: after %v lag %v ± %v, peak %.2f, ratio %.2f", name, tick, edge, s.Lag.Round(ms), s.StdDev.Round(ms),
							s.Peak, s.Ratio)
					}
				}
				last, watts, busy = now, w, b
			}
			s := l.State()
			t.Logf("%s tick %v: accepted %d, refused %d, worst %v", name, tick, s.Accepted, s.Refused, worst.Round(ms))
			if d := (s.Lag - want).Abs(); d > 30*ms && tick < time.Second || math.IsNaN(s.Peak) {
				t.Errorf("%s tick %v: lag %v, want %v", name, tick, s.Lag, want)
			}
		}
	}
}
