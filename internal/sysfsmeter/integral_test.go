package sysfsmeter

import (
	"math"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// integrate samples power every 100 ms from 0 to d.
func integrate(power func(seconds float64) float64, d time.Duration) *integral {
	g := &integral{maxGap: 400 * time.Millisecond}
	for at := time.Duration(0); at <= d; at += 100 * time.Millisecond {
		p := math.Round(power(at.Seconds()))
		g.add(at, sample{power: energy.Power(p), current: energy.Current(p / 5)})
	}
	return g
}

// TestIntegral compares with integrals known from calculus.
func TestIntegral(t *testing.T) {
	for name, tc := range map[string]struct {
		power func(s float64) float64 // µW
		d     time.Duration
		want  energy.Energy
		off   energy.Energy // largest error
	}{
		"constant 3 W for 10 s":                {func(float64) float64 { return 3e6 }, 10 * time.Second, 30_000_000, 0},
		"ramp from 0 to 10 W in 10 s, ½·10·10": {func(s float64) float64 { return s * 1e6 }, 10 * time.Second, 50_000_000, 0},
		"ramp through zero cancels":            {func(s float64) float64 { return (s - 5) * 1e6 }, 10 * time.Second, 0, 0},
		// Rounding of samples: half a µW for 10 s.
		"whole sine, 5 W mean": {func(s float64) float64 { return 5e6 + 3e6*math.Sin(2*math.Pi*s/10) }, 10 * time.Second, 50_000_000, 5},
		// 25 J + 3·10/π J = 34.549297 J; the rule's error is h²/12·(f'(b)-f'(a)) = 0.01/12 · 2·3·2π/10 J = 3.1416 mJ.
		"half a sine": {func(s float64) float64 { return 5e6 + 3e6*math.Sin(2*math.Pi*s/10) }, 5 * time.Second, 34_549_297, 3_150},
		// A step between two samples is off by half of it times the period, 1 W · 50 ms, whichever place it has between them.
		"step from 1 W to 2 W after 5.0 s": {func(s float64) float64 {
			if s > 5.01 {
				return 2e6
			}
			return 1e6
		}, 10 * time.Second, 15_000_000, 50_000},
	} {
		t.Run(name, func(t *testing.T) {
			g := integrate(tc.power, tc.d)
			if off := g.energy - tc.want; off > tc.off || off < -tc.off {
				t.Errorf("%d µJ, off by %d, allowed %d", g.energy, off, tc.off)
			}
			if q := energy.Charge(tc.want / 5); math.Abs(float64(g.charge-q)) > float64(tc.off)/5+101 { // p/5 cut per sample
				t.Errorf("charge %d µC, want %d", g.charge, q)
			}
			if g.unmeasured != 0 {
				t.Errorf("unmeasured %v", g.unmeasured)
			}
		})
	}
}

// TestRampHeld shows what the trapezoid is for: holding each value until the next is off by half a period on the same ramp.
func TestRampHeld(t *testing.T) {
	var held energy.Energy
	for n := range 100 {
		held += (energy.Power(n) * 100_000).Mul(100 * time.Millisecond)
	}
	if held != 49_500_000 {
		t.Errorf("held %d µJ", held)
	}
}

// TestNoDrift adds intervals whose energy is far below a microjoule.
func TestNoDrift(t *testing.T) {
	g := &integral{maxGap: time.Second}
	for us := range 3_000_001 {
		g.add(time.Duration(us)*time.Microsecond, sample{power: 7, current: -7})
	}
	if g.energy != 21 || g.charge != -21 { // 7 µW for 3 s
		t.Errorf("%d µJ, %d µC; want 21 and -21", g.energy, g.charge)
	}
}

func TestHoles(t *testing.T) {
	const ms = time.Millisecond
	w := func(p energy.Power) sample { return sample{power: p * energy.Watt} }
	type step struct {
		at   time.Duration
		x    sample
		fail bool // a poll before this one failed
	}
	for name, tc := range map[string]struct {
		steps      []step
		energy     energy.Energy
		unmeasured time.Duration
		interval   time.Duration // of the last reading
	}{
		"largest gap that is bridged":      {[]step{{0, w(2), false}, {400 * ms, w(4), false}}, 1_200_000, 0, 400 * ms},
		"one microsecond more":             {[]step{{0, w(2), false}, {400*ms + 1000, w(4), false}}, 0, 400*ms + 1000, 0},
		"goes on after a hole":             {[]step{{0, w(2), false}, {time.Hour, w(4), false}, {time.Hour + 100*ms, w(4), false}}, 400_000, time.Hour, 100 * ms},
		"a failed poll breaks the line":    {[]step{{0, w(2), false}, {200 * ms, w(2), true}, {300 * ms, w(2), false}}, 200_000, 200 * ms, 100 * ms},
		"not the node's, then the node's":  {[]step{{0, sample{off: true}, false}, {100 * ms, w(2), false}, {200 * ms, w(2), false}}, 200_000, 100 * ms, 100 * ms},
		"the node's, then not":             {[]step{{0, w(2), false}, {100 * ms, w(2), false}, {200 * ms, sample{off: true}, false}}, 200_000, 100 * ms, 0},
		"twice the same time":              {[]step{{0, w(2), false}, {100 * ms, w(2), false}, {100 * ms, w(9), false}}, 200_000, 0, 0},
		"a clock that goes back stands":    {[]step{{100 * ms, w(2), false}, {50 * ms, w(2), false}, {200 * ms, w(2), false}}, 200_000, 100 * ms, 100 * ms},
		"below a microsecond nothing lost": {[]step{{0, w(1), false}, {1500, w(1), false}, {3000, w(1), false}}, 3, 0, 2 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			g := &integral{maxGap: 400 * ms}
			for _, s := range tc.steps {
				if s.fail {
					g.ok = false
				}
				g.add(s.at, s.x)
			}
			var r energy.Reading
			g.fill(&r)
			if r.Energy != tc.energy || r.Unmeasured != tc.unmeasured || r.Interval != tc.interval {
				t.Errorf("energy %d, unmeasured %v, interval %v; want %d, %v, %v",
					r.Energy, r.Unmeasured, r.Interval, tc.energy, tc.unmeasured, tc.interval)
			}
			if r.Interval == 0 && (r.Power != 0 || r.MaxPower != 0 || r.Voltage != 0) {
				t.Errorf("means without an interval: %+v", r)
			}
		})
	}
}

// TestMeans has the means and extremes of one line.
func TestMeans(t *testing.T) {
	g := &integral{maxGap: time.Second}
	g.add(0, sample{power: 4_000_000, voltage: 5_100_000, current: 800_000})
	g.add(time.Second, sample{power: 2_000_000, voltage: 5_200_000, current: 400_000, saturated: true})
	var r energy.Reading
	g.fill(&r)
	want := energy.Reading{
		Energy: 3_000_000, Charge: 600_000, Interval: time.Second, Power: 3_000_000, MinPower: 2_000_000, MaxPower: 4_000_000,
		Voltage: 5_150_000, MinVolts: 5_100_000, MaxVolts: 5_200_000, Current: 600_000, Samples: 2, Saturated: 1,
	}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
}

// TestLargest takes the largest values there may be over the longest gap there may be.
func TestLargest(t *testing.T) {
	g := &integral{maxGap: maxGap}
	x := sample{power: maxWatts, current: maxMicro}
	for n := range 100 {
		g.add(time.Duration(n)*maxGap, x)
	}
	if want := energy.Energy(99 * 60 * 10_000 * 1_000_000); g.energy != want { // 99 minutes of 10 kW
		t.Errorf("%d µJ, want %d", g.energy, want)
	}
}
