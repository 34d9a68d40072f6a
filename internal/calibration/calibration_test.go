package calibration_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/calibration"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// measure lets a simulated meter of one channel measure for some time.
func measure(t *testing.T, c metersim.Channel, seed uint64, d time.Duration) (calibration.Channel, calibration.Readings) {
	t.Helper()
	m, err := metersim.NewMeter(metersim.Options{Channels: []metersim.Channel{c}, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	info := m.Identity(0).Channels[0]
	ch := calibration.Channel{
		ShuntUohm: info.ShuntUohm, GainPPM: info.GainPpm, OffsetNV: info.OffsetNv, CountNV: info.CountNv, FullScale: info.FullScaleCounts,
	}
	var r calibration.Readings
	m.Advance(d, func(rep *meterpb.Report) {
		past := wire.Past(rep)
		samples, err := wire.Samples(nil, past, info.Channel)
		if err != nil {
			t.Fatal(err)
		}
		first := past.Sweeps - uint64(past.Batch.Sweeps)
		at := len(r.Counts)
		for range past.Batch.Sweeps {
			r.Counts, r.Missing = append(r.Counts, 0), append(r.Missing, true)
		}
		for _, s := range samples {
			i := at + int(s.Number-first)
			r.Counts[i], r.Missing[i] = s.Count, false
		}
		r.Volts = append(r.Volts, float64(rep.Channels[0].VoltageUv)/1e6)
	})
	return ch, r
}

// Of results with an interval of 95 %, as many of n must hold the truth: one in a thousand right programs fails.
func wantCovered(t *testing.T, covered, n int) {
	t.Helper()
	if least := 0.95*float64(n) - 3.1*math.Sqrt(0.95*0.05*float64(n)); float64(covered) < least {
		t.Errorf("%d of %d intervals hold the truth, want at least %.0f", covered, n, least)
	}
}

func TestZero(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ offsetUV, noise float64 }{{8, 1}, {-63.3, 1}, {31.7, 0.5}, {20, 0.3}, {27, 0.2}, {17, 0}, {0, 2}, {-68, 3}} {
		covered, n := 0, 40
		for seed := range n {
			c := metersim.Channel{OffsetUV: tc.offsetUV, GainErrorPPM: 2000, Noise: tc.noise}
			ch, r := measure(t, c, uint64(seed+1), 6*time.Second)
			o, err := calibration.Zero(ch, r)
			if err != nil {
				t.Fatalf("%+v: %v", tc, err)
			}
			if math.Abs(float64(o.NV)-1000*tc.offsetUV) <= o.UncertaintyNV+0.5 {
				covered++
			}
			if limit := offsetLimit(tc.noise); o.UncertaintyNV > limit {
				t.Errorf("%+v: ± %.0f nV, want at most %.0f", tc, o.UncertaintyNV, limit)
			}
			said := len(o.Warnings) == 1 && strings.Contains(o.Warnings[0], "hardly move")
			if tc.noise == 0 && !said || tc.noise >= 0.5 && len(o.Warnings) > 0 {
				t.Errorf("%+v: warnings %q", tc, o.Warnings)
			}
		}
		wantCovered(t, covered, n)
	}
}

// offsetLimit is what the offset may be uncertain by in nV: twice the noise's standard error of 3000 readings and a half more, and where there is little
// noise, two thirds of a count.
func offsetLimit(noise float64) float64 {
	if noise < 0.4 {
		return 40_000 * 2 / math.Sqrt(12) * 1.01
	}
	return 40_000*2*1.5*math.Hypot(noise, 0.3)/math.Sqrt(3000) + 40_000*0.25*math.Exp(-4*noise*noise)
}

// What whole counts do to the mean is within what is said, wherever the truth lies between two of them and however little noise there is.
func TestRoundingCovered(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	ch := calibration.Channel{ShuntUohm: 100_000, CountNV: 40_000, FullScale: 4095}
	for _, noise := range []float64{0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1} {
		covered, n := 0, 400
		for range n {
			x := 2 * rng.Float64()
			r := calibration.Readings{Missing: make([]bool, 3000), Volts: []float64{5}}
			for range r.Missing {
				r.Counts = append(r.Counts, int32(math.Round(x+noise*rng.NormFloat64())))
			}
			m, err := calibration.Summarise(ch, r)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(m.Counts-x) <= calibration.Coverage*m.Uncertainty() {
				covered++
			}
			if noise >= 0.7 && m.Rounding > 0.03 {
				t.Errorf("noise of %g counts: rounding ± %g", noise, m.Rounding)
			}
		}
		t.Logf("noise %g: %d of %d", noise, covered, n)
		wantCovered(t, covered, n)
	}
}

// Noise with a memory, as of mains hum or a regulator, is no independent noise: means of blocks know it.
func TestNoiseWithMemory(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	ch := calibration.Channel{ShuntUohm: 100_000, CountNV: 40_000, FullScale: 4095}
	covered, n := 0, 400
	for range n {
		r := calibration.Readings{Missing: make([]bool, 15_000), Volts: []float64{5}}
		v := 0.0
		for range r.Missing {
			v = 0.95*v + 0.3*rng.NormFloat64() // a time constant of 40 ms
			r.Counts = append(r.Counts, int32(math.Round(1000.3+v+0.5*rng.NormFloat64())))
		}
		m, err := calibration.Summarise(ch, r)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(m.Counts-1000.3) <= calibration.Coverage*m.Uncertainty() {
			covered++
		}
	}
	wantCovered(t, covered, n)
}

// gain of a channel with errors, by a reference that is itself wrong by up to its limit.
func TestGain(t *testing.T) {
	t.Parallel()
	const limit, watts = 0.001, 5.1 // 1 A at 5.1 V
	for name, reference := range map[string]func(wrong float64) calibration.Reference{
		"current": func(wrong float64) calibration.Reference { return calibration.Reference{Amperes: 1 + wrong} },
		"resistor": func(wrong float64) calibration.Reference {
			return calibration.Reference{Ohms: 5.1 * (1 + wrong), Volts: 5.1}
		},
		"own volts": func(wrong float64) calibration.Reference { return calibration.Reference{Ohms: 5.1 * (1 + wrong)} },
		"power":     func(wrong float64) calibration.Reference { return calibration.Reference{Watts: watts * (1 + wrong)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(5, 6))
			covered, n := 0, 60
			for seed := range n {
				gainError, offset := 12_000*(2*rng.Float64()-1), 80*(2*rng.Float64()-1)
				c := metersim.Channel{
					GainErrorPPM: gainError, OffsetUV: offset, OffsetNV: int32(math.Round(1000 * offset)), Noise: 1,
					Load: metersim.Constant(5_100_000 * energy.Power(1)), GainPPM: 777,
				}
				ch, r := measure(t, c, uint64(seed+1), 3*time.Second)
				ref := reference(limit * (2*rng.Float64() - 1))
				ref.Limit = limit
				g, err := calibration.Compare(ch, r, ref, 500)
				if err != nil {
					t.Fatal(err)
				}
				truth := 1e6 * (1/(1+gainError/1e6) - 1)
				if math.Abs(float64(g.PPM)-truth) <= g.UncertaintyPPM {
					covered++
				}
				if g.UncertaintyPPM > 1e6*calibration.MaxUncertainty || g.UncertaintyPPM < 2e6*limit/math.Sqrt(3)*0.98 {
					t.Errorf("± %.0f ppm is less than the reference alone makes, or more than useful", g.UncertaintyPPM)
				}
				if len(g.Warnings) > 0 {
					t.Errorf("warnings %q", g.Warnings)
				}
			}
			wantCovered(t, covered, n)
		})
	}
}

// Without an error of the reference the noise alone decides, and the stated uncertainty is neither too small nor far too large.
func TestGainByNoise(t *testing.T) {
	t.Parallel()
	covered, n := 0, 200
	var squares float64
	for seed := range n {
		c := metersim.Channel{GainErrorPPM: -4000, Noise: 2, Load: metersim.Constant(1_020_000 * energy.Power(1)), OffsetUV: 12, OffsetNV: 12_000}
		ch, r := measure(t, c, uint64(seed+1), 3*time.Second)
		g, err := calibration.Compare(ch, r, calibration.Reference{Amperes: 0.2}, 0)
		if err != nil {
			t.Fatal(err)
		}
		off := float64(g.PPM) - 1e6*(1/0.996-1)
		if math.Abs(off) <= g.UncertaintyPPM {
			covered++
		}
		squares += (off * calibration.Coverage / g.UncertaintyPPM) * (off * calibration.Coverage / g.UncertaintyPPM)
	}
	wantCovered(t, covered, n)
	if z := math.Sqrt(squares / float64(n)); z < 0.8 || z > 1.2 {
		t.Errorf("errors are %.2f of what is stated, rms", z)
	}
}

// A meter that is told the results measures energy and charge within their uncertainty, at other loads too.
func TestAppliedCalibrationRemovesErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []metersim.Channel{
		{GainErrorPPM: 9000, OffsetUV: 55, Noise: 1},
		{GainErrorPPM: -11_500, OffsetUV: -71, Noise: 0.7, ShuntUohm: 50_000},
		{GainErrorPPM: 1200, OffsetUV: 8, Noise: 2, ShuntUohm: 20_000},
	} {
		c := tc
		ch, r := measure(t, c, 1, 10*time.Second)
		o, err := calibration.Zero(ch, r)
		if err != nil {
			t.Fatal(err)
		}
		c.OffsetNV = o.NV
		c.Load = metersim.Constant(5_100_000 * energy.Power(1))
		ch, r = measure(t, c, 2, 10*time.Second)
		g, err := calibration.Compare(ch, r, calibration.Reference{Amperes: 1, Limit: 1e-4}, o.UncertaintyNV/calibration.Coverage)
		if err != nil {
			t.Fatal(err)
		}
		c.GainPPM = g.PPM
		for _, load := range []energy.Power{5_100_000, 2_000_000, 500_000} {
			c.Load = metersim.Constant(load)
			before, after := tc, c
			before.Load = c.Load
			was, is := wrong(t, before), wrong(t, after)
			// The offset weighs more with less load; the voltage is rounded to 8 mV of 5.1 V, here by 0.2 of a step at most.
			amperes := load.Watts() / 5.1
			allowed := g.UncertaintyPPM/1e6 + o.UncertaintyNV/1e9/(amperes*float64(ch.ShuntUohm)/1e6) + 2e-4
			t.Logf("shunt %d µΩ, %v: energy was wrong by %.3f %%, is by %.4f %%, allowed %.4f %%", ch.ShuntUohm, load, 100*was, 100*is, 100*allowed)
			if math.Abs(is) > allowed || math.Abs(is) > math.Abs(was)/4 {
				t.Errorf("shunt %d µΩ, %v: energy was wrong by %.3f %%, is by %.4f %%, allowed %.4f %%", ch.ShuntUohm, load, 100*was, 100*is, 100*allowed)
			}
		}
	}
}

// wrong is the relative error of the energy that a meter measures within a minute.
func wrong(t *testing.T, c metersim.Channel) float64 {
	t.Helper()
	m, err := metersim.NewMeter(metersim.Options{Channels: []metersim.Channel{c}, Seed: 9})
	if err != nil {
		t.Fatal(err)
	}
	m.Advance(time.Minute, func(*meterpb.Report) {})
	b := m.Boots()[0]
	return float64(b.Measured[0])/float64(b.Truth[0]) - 1
}

func TestFaults(t *testing.T) {
	t.Parallel()
	ampere := calibration.Reference{Amperes: 1, Limit: 1e-3}
	constant := func(watts float64) metersim.Load { return metersim.Constant(energy.Power(watts * 1e6)) }
	for name, tc := range map[string]struct {
		c         metersim.Channel
		d         time.Duration
		ref       *calibration.Reference // nil: zero
		offsetErr float64
		change    func(*calibration.Readings)
		want      error
		says      string
	}{
		"zero with a board":    {c: metersim.Channel{Load: constant(2), Noise: 1}, want: calibration.ErrConnected, says: "disconnect what is behind the shunt"},
		"zero with a fidget":   {c: metersim.Channel{Noise: 12}, want: calibration.ErrUnsteady, says: "spread by 12 counts"},
		"zero that drifts":     {c: metersim.Channel{Noise: 1}, change: ramp(0, 1), want: calibration.ErrUnsteady, says: "until the meter is warm"},
		"zero, too short":      {c: metersim.Channel{Noise: 1}, d: 500 * time.Millisecond, want: calibration.ErrMissing, says: "measure longer"},
		"zero, sensor errors":  {c: metersim.Channel{Noise: 1, SensorError: 0.05}, want: calibration.ErrMissing, says: "look for sensor errors"},
		"zero, nothing":        {c: metersim.Channel{Noise: 1, SensorError: 1}, want: calibration.ErrMissing, says: "2500 of 2500"},
		"zero, no voltage":     {c: metersim.Channel{Noise: 1}, change: func(r *calibration.Readings) { r.Volts = nil }, want: calibration.ErrMissing, says: "no report"},
		"clipped":              {c: metersim.Channel{Load: constant(12), Noise: 1}, ref: &ampere, want: calibration.ErrSaturated, says: "163.8 mV over the shunt: take a smaller load"},
		"no load":              {c: metersim.Channel{Noise: 1}, ref: &ampere, want: calibration.ErrSmall, says: "switch it on"},
		"small load":           {c: metersim.Channel{Load: constant(0.1), Noise: 1}, ref: &calibration.Reference{Amperes: 0.1 / 5.1, Limit: 1e-3}, offsetErr: 11_500, want: calibration.ErrUncertain, says: "the offset: measure it with --zero first"},
		"noisy load":           {c: metersim.Channel{Load: constant(0.15), Noise: 4.3}, d: 700 * time.Millisecond, ref: &calibration.Reference{Amperes: 0.15 / 5.1, Limit: 1e-3}, want: calibration.ErrUncertain, says: "noise: measure longer"},
		"quiet load":           {c: metersim.Channel{Load: constant(0.2)}, ref: &calibration.Reference{Amperes: 0.2 / 5.1, Limit: 1e-3}, want: calibration.ErrUncertain, says: "the sensor's resolution: take a larger load"},
		"reversed":             {c: metersim.Channel{Load: constant(-5), Noise: 1}, ref: &ampere, want: calibration.ErrReversed, says: "swap the wires"},
		"a board":              {c: metersim.Channel{Load: metersim.Square(energy.Watt*3, energy.Watt*6, 50*time.Millisecond, 0.5), Noise: 1}, ref: &ampere, want: calibration.ErrUnsteady, says: "take a resistor"},
		"warming up":           {c: metersim.Channel{Load: constant(5.1), Noise: 1}, ref: &ampere, change: ramp(0, 12), want: calibration.ErrUnsteady, says: "until it is warm"},
		"supply moves":         {c: metersim.Channel{Load: constant(5.1), Noise: 1}, ref: &ampere, change: func(r *calibration.Readings) { r.Volts[3] = 4.9 }, want: calibration.ErrUnsteady, says: "its voltage"},
		"other shunt":          {c: metersim.Channel{Load: constant(5.1), Noise: 1, GainErrorPPM: -500_000}, ref: &ampere, want: calibration.ErrShunt, says: "make it 50"},
		"bad reference":        {c: metersim.Channel{Load: constant(5.1), Noise: 1}, ref: &calibration.Reference{Amperes: 1, Limit: 0.01}, want: calibration.ErrUncertain, says: "the reference: take a better one"},
		"resistor at 2.5 V":    {c: metersim.Channel{Load: constant(2.5), Supply: 2_500_000, Noise: 1}, ref: &calibration.Reference{Ohms: 2.5, Limit: 1e-3}, want: calibration.ErrUncertain, says: "give --voltage"},
		"few errors are borne": {c: metersim.Channel{Load: constant(5.1), Noise: 1, SensorError: 0.004}, ref: &ampere},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := tc.d
			if d == 0 {
				d = 5 * time.Second
			}
			ch, r := measure(t, tc.c, 1, d)
			if tc.change != nil {
				tc.change(&r)
			}
			var err error
			if tc.ref == nil {
				_, err = calibration.Zero(ch, r)
			} else {
				_, err = calibration.Compare(ch, r, *tc.ref, tc.offsetErr)
			}
			if !errors.Is(err, tc.want) || tc.want != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v; want %v with %q", err, tc.want, tc.says)
			}
		})
	}
}

// ramp adds a drift from one count to another.
func ramp(from, to float64) func(*calibration.Readings) {
	return func(r *calibration.Readings) {
		for i := range r.Counts {
			r.Counts[i] += int32(math.Round(from + (to-from)*float64(i)/float64(len(r.Counts))))
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	ch, r := measure(t, metersim.Channel{OffsetUV: 150, Noise: 1}, 1, 5*time.Second)
	for i := range r.Volts {
		r.Volts[i] = 0
	}
	o, err := calibration.Zero(ch, r)
	if err != nil || len(o.Warnings) != 2 || !strings.Contains(o.Warnings[0], "draws 1.5 mA") || !strings.Contains(o.Warnings[1], "supply is off") {
		t.Errorf("%q, %v", o.Warnings, err)
	}
	ch, r = measure(t, metersim.Channel{Load: metersim.Constant(5_100_000), GainErrorPPM: 50_000, Noise: 1}, 1, 5*time.Second)
	g, err := calibration.Compare(ch, r, calibration.Reference{Amperes: 1, Limit: 1e-3}, 0)
	if err != nil || len(g.Warnings) != 1 || !strings.Contains(g.Warnings[0], "-4.8 % is more than") {
		t.Errorf("%q, %v", g.Warnings, err)
	}
}
