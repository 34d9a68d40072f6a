package accounting

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/workload"
)

// spent makes counters of one class from pairs of kHz and ms.
func spent(class string, pairs ...int64) (fs []workload.Frequency) {
	for i := 0; i < len(pairs); i += 2 {
		fs = append(fs, workload.Frequency{Class: class, KHz: pairs[i], Time: time.Duration(pairs[i+1]) * time.Millisecond})
	}
	return fs
}

func TestWeights(t *testing.T) {
	// Three of the Exynos 5422's operating points of the A15, out of order, and two of the A7.
	big := Class{Name: "big", Cores: 4, Points: []OperatingPoint{{2_000_000, 1_312_500}, {200_000, 900_000}, {1_000_000, 1_000_000}}}
	little := Class{Name: "little", Cores: 4, Points: []OperatingPoint{{200_000, 900_000}, {1_400_000, 1_275_000}}}
	plain := Class{Cores: 4}
	join := func(a, b []workload.Frequency) []workload.Frequency { return append(a, b...) }
	for name, tc := range map[string]struct {
		classes []Class
		samples [][]workload.Frequency
		want    []float64 // per class, after the last sample
	}{
		"nothing known": {[]Class{plain}, [][]workload.Frequency{nil, nil}, []float64{1}},
		"first sample":  {[]Class{plain}, [][]workload.Frequency{spent("", 600, 10, 1200, 500)}, []float64{1}},
		"highest":       {[]Class{big}, [][]workload.Frequency{spent("big", 2_000_000, 100), spent("big", 2_000_000, 200)}, []float64{1}},
		// 1.0² · 1 / (1.3125² · 2) = 1 / 3.4453
		"half": {[]Class{big}, [][]workload.Frequency{spent("big", 1_000_000, 100), spent("big", 1_000_000, 200)}, []float64{0.290249}},
		// A quarter at 1 GHz, the rest at 2 GHz.
		"mixed": {
			[]Class{big}, [][]workload.Frequency{spent("big", 1_000_000, 100, 2_000_000, 900), spent("big", 1_000_000, 125, 2_000_000, 975)},
			[]float64{0.25*0.290249 + 0.75},
		},
		// 1.5 GHz lies between 1.0 V and 1.3125 V: 1.15625² · 1.5 / 3.4453
		"between points": {[]Class{big}, [][]workload.Frequency{spent("big", 1_500_000, 0), spent("big", 1_500_000, 50)}, []float64{0.582058}},
		// Beyond the table the voltage is that at its end: 0.9² · 0.1 / 3.4453, and 1.3125² · 2.2 / 3.4453
		"below and above": {
			[]Class{big}, [][]workload.Frequency{spent("big", 100_000, 0, 2_200_000, 0), spent("big", 100_000, 10, 2_200_000, 10)},
			[]float64{(0.023511 + 1.1) / 2},
		},
		// No voltages: at half of the highest frequency 0.5 · 0.86².
		"no points": {[]Class{plain}, [][]workload.Frequency{spent("", 600, 0, 1200, 0), spent("", 600, 40, 1200, 0)}, []float64{0.3698}},
		// The little class is a quarter of what it would be; 0.2 GHz are 0.9² · 0.2 / (1.275² · 1.4) of its highest.
		"little": {
			[]Class{big, little},
			[][]workload.Frequency{
				join(spent("big", 2_000_000, 0), spent("little", 200_000, 0)), join(spent("big", 2_000_000, 100), spent("little", 200_000, 100)),
			},
			[]float64{1, 0.25 * 0.071182},
		},
		"little, nothing known": {[]Class{{Name: "big"}, {Name: "little"}}, [][]workload.Frequency{nil}, []float64{1, 0.25}},
		"little is the first":   {[]Class{{Name: "little"}}, [][]workload.Frequency{nil}, []float64{1}},
		"mid":                   {[]Class{{Name: "big"}, {Name: "mid"}, {Name: "little"}}, [][]workload.Frequency{nil}, []float64{1, 0.6, 0.25}},
		"counters stand still": {
			[]Class{big}, [][]workload.Frequency{spent("big", 1_000_000, 100), spent("big", 1_000_000, 200), spent("big", 1_000_000, 200)}, []float64{0.290249},
		},
		"counters begin again": {
			[]Class{big}, [][]workload.Frequency{spent("big", 1_000_000, 100, 2_000_000, 100), spent("big", 1_000_000, 5, 2_000_000, 110)}, []float64{1},
		},
		"more classes than there may be": {
			[]Class{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {Name: "e"}}, [][]workload.Frequency{spent("e", 1, 1), spent("e", 1, 2)}, []float64{1, 1, 1, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeights(tc.classes)
			var got [attribution.MaxClasses]float64
			for _, fs := range tc.samples {
				w.take(fs, &got)
			}
			for q, v := range got {
				want := 1.0
				if q < len(tc.want) {
					want = tc.want[q]
				}
				if math.Abs(v-want) > 1e-6 {
					t.Errorf("class %d: %v, want %v", q, v, want)
				}
			}
		})
	}
	if big.Points[0].KHz != 2_000_000 {
		t.Error("the caller's points were sorted")
	}
}

// A class that stands still keeps what it had; one of which nothing is known is left out.
func TestFrequencies(t *testing.T) {
	w := newWeights([]Class{{Name: "big"}, {Name: "little"}, {Name: "mid"}})
	var weight [attribution.MaxClasses]float64
	take := func(big, little []int64) []ClassFrequency {
		w.take(append(spent("big", big...), spent("little", little...)...), &weight)
		return w.frequencies()
	}
	if got := take([]int64{1_000_000, 500, 2_000_000, 70}, []int64{600_000, 10}); got != nil {
		t.Errorf("%v from one sample", got)
	}
	// Big: 30 ms at 1 GHz and 10 ms at 2 GHz.
	got := take([]int64{1_000_000, 530, 2_000_000, 80}, []int64{600_000, 50})
	if want := []ClassFrequency{{"big", 1.25e9}, {"little", 0.6e9}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got = take([]int64{1_000_000, 530, 2_000_000, 180}, []int64{600_000, 50})
	if want := []ClassFrequency{{"big", 2e9}, {"little", 0.6e9}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
