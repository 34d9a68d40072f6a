package accounting

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/workload"
)

// ratios are what a CPU-second of a class costs against one of the reference class, before anything is measured.
var ratios = map[string]float64{"little": 0.25, "mid": 0.6}

// weights turns the time that classes spent at frequencies into what a CPU-second costs: dynamic power goes with V²f.
type weights struct {
	classes []Class
	highest []float64 // V²f at the highest point, per class
	times   map[frequencyKey]time.Duration
	last    [attribution.MaxClasses]float64 // without ratios; 0 for none
	khz     [attribution.MaxClasses]float64 // mean of the time since the call before; 0 for none
}

type frequencyKey struct {
	class string
	khz   int64
}

func newWeights(classes []Class) weights {
	w := weights{classes: slices.Clone(classes), times: map[frequencyKey]time.Duration{}}
	w.highest = make([]float64, len(classes))
	for q := range w.classes {
		c := &w.classes[q]
		c.Points = slices.Clone(c.Points)
		slices.SortFunc(c.Points, func(a, b OperatingPoint) int { return int(a.KHz - b.KHz) })
		if n := len(c.Points); n > 0 {
			w.highest[q] = cost(c.Points[n-1].KHz, float64(c.Points[n-1].Microvolt))
		}
	}
	return w
}

func cost(khz int64, microvolt float64) float64 { return float64(khz) * microvolt * microvolt }

// take sets the weights of the time since the last call. Counters that stand still, as of cores that are switched off or for less
// than the 10 ms they count in, leave them as they were.
func (w *weights) take(fs []workload.Frequency, to *[attribution.MaxClasses]float64) {
	for q := range to {
		to[q] = 1
	}
	for q, c := range w.classes[:min(len(w.classes), len(to))] {
		var spent time.Duration
		sum, cycles, top := 0.0, 0.0, int64(0)
		for _, f := range fs {
			if f.Class == c.Name {
				top = max(top, f.KHz)
			}
		}
		for _, f := range fs {
			if f.Class != c.Name {
				continue
			}
			k := frequencyKey{f.Class, f.KHz}
			before, ok := w.times[k]
			w.times[k] = f.Time
			if !ok || f.Time <= before {
				continue
			}
			spent += f.Time - before
			sum += (f.Time - before).Seconds() * w.relative(q, f.KHz, top)
			cycles += (f.Time - before).Seconds() * float64(f.KHz)
		}
		if spent > 0 {
			w.last[q], w.khz[q] = sum/spent.Seconds(), cycles/spent.Seconds()
		}
		to[q] = cmp.Or(w.last[q], 1)
		if r, ok := ratios[c.Name]; ok && q > 0 {
			to[q] *= r
		}
	}
}

// frequencies returns how fast the classes ran, of those of which it is known.
func (w *weights) frequencies() (all []ClassFrequency) {
	for q, c := range w.classes[:min(len(w.classes), len(w.khz))] {
		if w.khz[q] > 0 {
			all = append(all, ClassFrequency{c.Name, w.khz[q] * 1e3})
		}
	}
	return all
}

// relative is the cost at a frequency against that at the highest. Where no voltage is known it is taken to rise linearly from
// 72 % at standstill, which is between the boards whose tables are public.
func (w *weights) relative(q int, khz, top int64) float64 {
	if w.highest[q] > 0 {
		return cost(khz, w.voltage(q, khz)) / w.highest[q]
	}
	x := float64(khz) / float64(max(top, 1))
	return x * math.Pow(0.72+0.28*x, 2)
}

// voltage interpolates between operating points, µV.
func (w *weights) voltage(q int, khz int64) float64 {
	ps := w.classes[q].Points
	i, _ := slices.BinarySearchFunc(ps, khz, func(p OperatingPoint, k int64) int { return int(p.KHz - k) })
	switch {
	case i == 0:
		return float64(ps[0].Microvolt)
	case i == len(ps):
		return float64(ps[i-1].Microvolt)
	}
	a, b := ps[i-1], ps[i]
	return float64(a.Microvolt) + float64(b.Microvolt-a.Microvolt)*float64(khz-a.KHz)/float64(b.KHz-a.KHz)
}
