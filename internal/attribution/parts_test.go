package attribution

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

func TestApportion(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tt := range []struct {
		name         string
		total        energy.Energy
		parts, carry []float64 // µJ
		want         []energy.Energy
		carried      []float64
	}{
		{name: "largest remainder", total: 10, parts: []float64{2.25, 4.625, 3.125}, want: []energy.Energy{2, 5, 3}, carried: []float64{0.25, -0.375, 0.125}},
		{name: "ties by position", total: 10, parts: []float64{3.5, 3.5, 3}, want: []energy.Energy{4, 3, 3}, carried: []float64{-0.5, 0.5, 0}},
		{name: "carry decides", total: 10, parts: []float64{3.5, 3.5, 3}, carry: []float64{-0.5, 0.5, 0}, want: []energy.Energy{3, 4, 3}, carried: []float64{0, 0, 0}},
		{name: "a debt of rounding", total: 1, parts: []float64{0.25, 0.75}, carry: []float64{-0.5, 0.5}, want: []energy.Energy{0, 1}, carried: []float64{-0.25, 0.25}},
		{name: "nothing", total: 0, parts: []float64{0, 0}, want: []energy.Energy{0, 0}, carried: []float64{0, 0}},
		{name: "not a number", total: 9, parts: []float64{1, nan, 2}, want: []energy.Energy{1, 0, 8}, carried: []float64{0, 0, 0}},
		{name: "all not a number", total: 9, parts: []float64{nan, nan}, want: []energy.Energy{9, 0}, carried: []float64{0, 0}},
		{name: "infinite", total: 9, parts: []float64{1, inf}, want: []energy.Energy{1, 8}, carried: []float64{0, 0}},
		{name: "too much", total: 10, parts: []float64{7, 8, 9}, want: []energy.Energy{7, 3, 0}, carried: []float64{0, 0, 0}},
		{name: "too little", total: 100, parts: []float64{7, 8, 9}, want: []energy.Energy{7, 8, 85}, carried: []float64{0, 0, 0}},
		{name: "negative", total: 4, parts: []float64{-3, 4}, want: []energy.Energy{0, 4}, carried: []float64{-1, 0}},
		{name: "all that fits", total: math.MaxInt64, parts: []float64{inf, 1}, want: []energy.Energy{math.MaxInt64 - 1, 1}, carried: []float64{0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			carry := append(slices.Clone(tt.carry), make([]float64, len(tt.parts)-len(tt.carry))...)
			parts := make([]share, len(tt.parts))
			for i, p := range tt.parts {
				parts[i] = share{part: p * 1e-6, carry: &carry[i]}
			}
			apportion(tt.total, parts, make([]int, len(parts)))
			for i, p := range parts {
				if p.units != tt.want[i] || math.Abs(carry[i]-tt.carried[i]) > 1e-9 {
					t.Errorf("part %d: %d µJ and %v carried, want %d and %v", i, p.units, carry[i], tt.want[i], tt.carried[i])
				}
			}
		})
	}
}

// TestApportionIsExact for whatever parts, and unbiased for small ones.
func TestApportionIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		n := 1 + r.IntN(8)
		parts, carry := make([]share, n), make([]float64, n)
		total := energy.Energy(r.Int64N(1 << (1 + r.IntN(52))))
		for i := range parts {
			carry[i] = 2*r.Float64() - 1
			parts[i] = share{part: r.Float64() * total.Joules() * float64(r.IntN(3)) / float64(n), carry: &carry[i]}
		}
		apportion(total, parts, make([]int, n))
		sum := energy.Energy(0)
		for i, p := range parts {
			if p.units < 0 || math.Abs(carry[i]) > 1 {
				t.Fatalf("%d µJ, %v carried", p.units, carry[i])
			}
			sum += p.units
		}
		if sum != total {
			t.Fatalf("parts sum to %d of %d", sum, total)
		}
	}
	// A hundredth of a microjoule, ten thousand times, is a hundred microjoules.
	parts, carry, sum := make([]share, 3), make([]float64, 3), [3]energy.Energy{}
	for range 10_000 {
		for i, p := range []float64{2.49, 0.5, 0.01} {
			parts[i] = share{part: p * 1e-6, carry: &carry[i]}
		}
		apportion(3, parts, make([]int, 3))
		for i, p := range parts {
			sum[i] += p.units
		}
	}
	for i, want := range []energy.Energy{24_900, 5_000, 100} {
		if d := sum[i] - want; d < -1 || d > 1 {
			t.Errorf("part %d: %d µJ, want %d", i, sum[i], want)
		}
	}
}

func TestPolicies(t *testing.T) {
	var v BaseView
	one := &Charge{Active: true, Energy: 1}
	two := &Charge{Active: true, Energy: 3, Requested: 2}
	three := &Charge{Requested: 6}
	all := []*Charge{one, two, three}
	v.Split(11, all)
	// By halves; by 2.75 and 8.25; by 2.75 and 8.25. Ties go to the first, and what it gained is carried.
	for i, want := range [][policies]energy.Energy{{6, 3, 0}, {5, 8, 3}, {0, 0, 8}} {
		if all[i].Shares != want {
			t.Errorf("function %d: %v, want %v", i, all[i].Shares, want)
		}
	}
	for range 3 {
		v.Split(11, all)
	}
	for i, want := range [][policies]energy.Energy{{22, 11, 0}, {22, 33, 11}, {0, 0, 33}} {
		if all[i].Shares != want {
			t.Errorf("function %d after four ticks: %v, want %v", i, all[i].Shares, want)
		}
	}
	idle := &Charge{Requested: math.NaN()}
	v.Split(10, []*Charge{idle})
	if idle.Shares != [policies]energy.Energy{} {
		t.Errorf("%v, though there is nobody to charge", idle.Shares)
	}
	// Whatever comes, shares sum to what was split.
	r, sum := rand.New(rand.NewPCG(2, 2)), energy.Energy(0)
	all = []*Charge{{}, {}, {}, {}, {}}
	for range 10_000 {
		for _, f := range all {
			f.Active, f.Energy, f.Requested = r.IntN(2) == 0, energy.Energy(r.IntN(1000)), r.Float64()
		}
		all[0].Active, all[0].Energy = true, 1
		base := energy.Energy(r.IntN(100))
		sum += base
		v.Split(base, all)
	}
	for _, p := range Policies {
		got := energy.Energy(0)
		for _, f := range all {
			got += f.Shares[p]
		}
		if got != sum {
			t.Errorf("%v: %d µJ of %d", p, got, sum)
		}
	}
}

// TestStartsAreMoved: beyond its usual watt, what the platform uses goes to the starts, three to one as they use themselves.
func TestStartsAreMoved(t *testing.T) {
	c := New(Board{})
	c.members = []member{{platform: true}, {}, {}}
	set := func(platform, first, second float64) {
		c.parts = []share{{part: 2}, {part: platform}, {part: 0.5}, {part: first}, {part: second}}
		c.owners = []owner{{}, {slot: 0}, {slot: 1}, {slot: 1, cold: true}, {slot: 2, cold: true}}
	}
	for _, w := range []float64{1, 0.5, 1, 7, 1} { // a median of one watt, though a mean of two
		set(2*w, 0, 0)
		c.moveStarts(2)
	}
	for _, tt := range []struct{ platform, first, second, length, left, one, two float64 }{
		{3, 1, 3, 1, 1, 1.5, 4.5},
		{3, 1, 3, 2, 2, 1.25, 3.75},
		{0.5, 1, 3, 1, 0.5, 1, 3}, // less than usual
		{3, 0, 0, 1, 3, 0, 0},     // nothing starts
	} {
		set(tt.platform, tt.first, tt.second)
		c.moveStarts(tt.length)
		for i, want := range []float64{2, tt.left, 0.5, tt.one, tt.two} {
			if got := c.parts[i].part; math.Abs(got-want) > 1e-12 {
				t.Errorf("%+v: part %d is %v J, want %v", tt, i, got, want)
			}
		}
	}
}

func TestInvocations(t *testing.T) {
	type tick struct {
		length                      time.Duration
		joules, completed, inFlight float64
		closes                      bool
	}
	s := time.Second
	for name, tt := range map[string]struct {
		ticks          []tick
		mean, overhead float64
		ok             bool
	}{
		"nothing": {},
		// The last three ticks may yet be of a request that is told of later.
		"only idle": {ticks: []tick{{s, 1, 0, 0, false}, {s, 2, 0, 0, false}, {s, 4, 0, 0, false}, {s, 8, 0, 0, false}, {s, 16, 0, 0, false}}, overhead: 3},
		"told late": {ticks: []tick{{s, 1, 0, 0, false}, {s, 2, 0, 0, false}, {s, 3, 0, 0, false}, {s, 4, 0, 0, false}, {s, 5, 1, 0, false},
			{2 * s, 0, 0, 0, true}}, mean: 14, overhead: 1, ok: true},
		"one": {ticks: []tick{{s, 2, 0, 1, false}, {s, 3, 1, 0, false}, {s, 0.25, 0, 0, false}, {s, 0.25, 0, 0, true}}, mean: 5.5, ok: true},
		// 5 J for one and 4 J for two.
		"two cycles": {ticks: []tick{{s, 2, 0, 1, false}, {s, 3, 1, 0, false}, {2 * s, 0, 0, 0, true}, {s, 4, 2, 0, false}, {2 * s, 0, 0, 0, true}},
			mean: 3, ok: true},
		"no pause": {ticks: []tick{{9 * s, 18, 9, 0, false}, {s, 2, 1, 0, true}}, mean: 2, ok: true},
		// 10 completed and one half done in two minutes; then its other half and no other.
		"no end": {ticks: []tick{{119 * s, 40, 10, 1, false}, {s, 2, 0, 1, true}, {s, 2, 1, 0, false}, {2 * s, 0, 0, 0, true}}, mean: 4, ok: true},
		"never completed": {ticks: []tick{{s, 2, 0, 1, false}, {s, 1, 0, 0, false}, {2 * s, 0, 0, 0, false}, {120 * s, 3, 0, 0, false}},
			overhead: 6},
	} {
		t.Run(name, func(t *testing.T) {
			var v Invocations
			for i, k := range tt.ticks {
				if closed, _, _ := v.Add(k.length, k.joules, k.completed, k.inFlight); closed != k.closes {
					t.Errorf("tick %d closes a cycle: %v", i, closed)
				}
			}
			mean, low, high, interval, ok := v.Mean(0, 0)
			if math.Abs(mean-tt.mean) > 1e-12 || v.Overhead() != tt.overhead || ok != tt.ok || interval || low != mean || high != mean {
				t.Errorf("mean %v (%v to %v, %v, %v), overhead %v; want %v, none, and %v", mean, low, high, interval, ok, v.Overhead(), tt.mean, tt.overhead)
			}
		})
	}
}

// TestInvocationInterval: cycles of one to many invocations, each of an exponential energy, in 4,000 simulated lives.
func TestInvocationInterval(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	const lives = 4000
	inside := 0.0
	for range lives {
		var v Invocations
		for range 80 {
			n, joules := 1+r.IntN(5), 0.0
			for range n {
				joules += 1 + r.ExpFloat64()
			}
			v.Add(time.Second, joules/2, 0, float64(n))
			v.Add(time.Second, joules/2, float64(n), 0)
			v.Add(cycleLingers, 0, 0, 0)
		}
		_, low, high, ok, _ := v.Mean(1, 0)
		if !ok {
			t.Fatal("no interval after 80 cycles")
		}
		if low <= 2 && 2 <= high {
			inside++
		}
	}
	if c := inside / lives; c < 0.93 || c > 0.97 {
		t.Errorf("95 %% intervals cover %.3f", c)
	}
}

// TestStudent compares with the table in Abramowitz and Stegun, 26.10.
func TestStudent(t *testing.T) {
	for n, want := range map[float64]float64{4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980} {
		if got := student95(n); math.Abs(got-want) > 0.005*want {
			t.Errorf("%v degrees: %.4f, want %.3f", n, got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	var u usual
	var scratch [window]float32
	if u.median(&scratch) != 0 {
		t.Error("nothing is usual yet")
	}
	for i := range 1000 {
		u.add(float64(i % 5)) // the last sixty: twelve of each
	}
	if got := u.median(&scratch); got != 2 {
		t.Errorf("median %v, want 2", got)
	}
}

func Example_conservation() {
	c := New(Board{Cores: [MaxClasses]int{4}, Idle: 2, Peak: 6})
	in := Interval{End: time.Second, Energy: 3 * energy.Joule, Weight: [MaxClasses]float64{1, 1, 1, 1}}
	c.Step(&in, nil)
	c.Flush(func(t *Tick) { fmt.Println(t.Energy, t.Energy == t.Base) })
	// Output: 3.000 J true
}
