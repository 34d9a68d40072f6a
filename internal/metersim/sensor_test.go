package metersim

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

func TestCircuit(t *testing.T) {
	for _, tc := range []struct {
		supply energy.Voltage
		uohm   uint32
		watts  float64
		v, i   float64
	}{
		{5_100_000, 0, 5.1, 5.1, 1},
		{5_100_000, 100_000, 0, 5.1, 0},
		// 5.1 V less 1 A through 100 mΩ are 5 V, and 5 V times 1 A are 5 W.
		{5_100_000, 100_000, 5, 5, 1},
		{5_100_000, 100_000, -5.2, 5.2, -1},
		// 10 V over 1 Ω gives 25 W at most.
		{10_000_000, 1_000_000, 25, 5, 5},
		{10_000_000, 1_000_000, 30, 5, 5},
	} {
		s := newSensor(Channel{Supply: tc.supply, SourceUohm: tc.uohm}, 0, 1, conversions[2])
		if v, i := s.circuit(tc.watts); math.Abs(v-tc.v) > 1e-9 || math.Abs(i-tc.i) > 1e-9 {
			t.Errorf("%s over %d µΩ, %g W: %g V, %g A, want %g V, %g A", tc.supply, tc.uohm, tc.watts, v, i, tc.v, tc.i)
		}
	}
}

func TestConvert(t *testing.T) {
	for name, tc := range map[string]struct {
		c          Channel
		shunt, bus int32
	}{
		"nothing":          {Channel{}, 0, 625},
		"1 A over 50 mΩ":   {Channel{Load: Constant(5 * energy.Watt), ShuntUohm: 50_000}, 1250, 625},
		"feeds back":       {Channel{Load: Constant(-1 * energy.Watt)}, -500, 625},
		"full scale":       {Channel{Load: Constant(8190 * energy.Watt / 1000)}, 4095, 625},
		"beyond":           {Channel{Load: Constant(20 * energy.Watt)}, 4095, 625},
		"beyond backwards": {Channel{Load: Constant(-20 * energy.Watt)}, -4095, 625},
		// 1 mW at 5 V is 0.2 mA, over 100 mΩ 20 µV: half a count goes away from zero, on both sides.
		"half a count":           {Channel{Load: Constant(energy.Watt / 1000)}, 1, 625},
		"half a count backwards": {Channel{Load: Constant(-energy.Watt / 1000)}, -1, 625},
		"less than half":         {Channel{Load: Constant(energy.Watt / 1001)}, 0, 625},
		"5.1 V":                  {Channel{Supply: DefaultSupply}, 0, 638}, // 637.5
		"26 V":                   {Channel{Supply: 26 * energy.Volt}, 0, 3250},
		// 40 mV and 1 % are 40.4 mV, 1010 counts; 80 µV are two more.
		"gain and offset": {Channel{Load: Constant(2 * energy.Watt), GainErrorPPM: 10_000, OffsetUV: 80}, 1012, 625},
		"ideal has none":  {Channel{Load: Constant(2 * energy.Watt), GainErrorPPM: 10_000, OffsetUV: 80, Noise: 9, Ideal: true}, 1000, 625},
		// 5 W at 5 V: the supply of 5.1 V sags by 1 A over 100 mΩ.
		"sags": {Channel{Load: Constant(5 * energy.Watt), Supply: 5_100_000, SourceUohm: 100_000, ShuntUohm: 50_000}, 1250, 625},
	} {
		def(&tc.c.Supply, 5*energy.Volt)
		def(&tc.c.ShuntUohm, DefaultShuntUohm)
		if tc.c.Load == nil {
			tc.c.Load = Constant(0)
		}
		s := newSensor(tc.c, 0, 1, conversions[2])
		if shunt, bus := s.convert(time.Second); shunt != tc.shunt || bus != tc.bus {
			t.Errorf("%s: %d, %d counts, want %d, %d", name, shunt, bus, tc.shunt, tc.bus)
		}
	}
}

// recorder is a load that remembers what was asked of it.
type recorder struct{ asked [][2]time.Duration }

func (r *recorder) Power(time.Duration) float64 { return 0 }
func (r *recorder) Energy(from, to time.Duration) float64 {
	r.asked = append(r.asked, [2]time.Duration{from / time.Microsecond, to / time.Microsecond})
	return 0
}

// Two sensors side by side, each with one converter: shunt, bus, shunt, bus, shunt, bus.
func TestConversionsTakeTurns(t *testing.T) {
	for place, want := range [][][2]time.Duration{
		{{0, 332}, {332, 664}}, {{664, 996}, {996, 1328}}, {{1328, 1660}, {1660, 1992}},
		{{0, 332}, {332, 664}}, {{664, 996}, {996, 1328}}, {{1328, 1660}, {1660, 1992}},
	} {
		r := &recorder{}
		s := newSensor(Channel{Load: r, Supply: DefaultSupply, ShuntUohm: DefaultShuntUohm}, place, 1, conversionFor(2*time.Millisecond))
		s.convert(0)
		if !slices.Equal(r.asked, want) {
			t.Errorf("place %d: windows %v µs, want %v", place, r.asked, want)
		}
	}
}

func TestConversionFor(t *testing.T) {
	for sweep, want := range map[time.Duration]time.Duration{
		840 * time.Microsecond:  140 * time.Microsecond,
		time.Millisecond:        140 * time.Microsecond,
		1991 * time.Microsecond: 204 * time.Microsecond,
		2 * time.Millisecond:    332 * time.Microsecond,
		10 * time.Millisecond:   1100 * time.Microsecond,
		time.Second:             8244 * time.Microsecond,
	} {
		if got := conversionFor(sweep); got != want {
			t.Errorf("a sweep each %s: %s, want %s", sweep, got, want)
		}
	}
}

func TestNoiseIsAsLargeAsSaidAndWithoutMean(t *testing.T) {
	const n, rms = 50_000, 4.0
	s := newSensor(Channel{Load: Constant(0), Supply: 5 * energy.Volt, ShuntUohm: DefaultShuntUohm, Noise: rms}, 0, 7, conversions[2])
	var sum, squares float64
	for range n {
		shunt, _ := s.convert(0)
		sum += float64(shunt)
		squares += float64(shunt) * float64(shunt)
	}
	// Five standard deviations of the mean; rounding adds 1/12 to the variance.
	if mean := sum / n; math.Abs(mean) > 5*rms/math.Sqrt(n) {
		t.Errorf("mean is %g counts", mean)
	}
	if got := math.Sqrt(squares/n - 1.0/12); math.Abs(got-rms) > 0.1 {
		t.Errorf("rms is %g counts, want %g", got, rms)
	}
}
