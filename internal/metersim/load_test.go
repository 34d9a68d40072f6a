package metersim_test

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
)

const year = 365 * 24 * time.Hour

// files holds the traces of the tests; open opens one.
var files = fstest.MapFS{
	"steps.csv":  {Data: []byte("seconds,watts\n0,1\n2,4\n3,2\n10,0\n")},
	"unix.csv":   {Data: []byte("1700000000.000000001,1\r\n1700000002.000000001,3\r\n\r\n1700000004.000000001,1\r\n")},
	"bad.csv":    {Data: []byte("seconds,watts\n0,1\n2,x\n")},
	"back.csv":   {Data: []byte("0,1\n2,1\n2,1\n")},
	"header.csv": {Data: []byte("seconds,watts\n")},
	"one.csv":    {Data: []byte("0,1\n")},
	"comma.csv":  {Data: []byte("0;1\n2;2\n")},
	"nan.csv":    {Data: []byte("0,1\n2,NaN\n")},
	"time.csv":   {Data: []byte("0,1\n1m3,2\n")},
}

func open(name string) (io.ReadCloser, error) { return files.Open(name) }

func load(tb testing.TB, program string) metersim.Load {
	tb.Helper()
	l, err := metersim.ParseLoad(program, open)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func TestLoadIntegrals(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		program  string
		from, to time.Duration
		joules   float64
	}{
		{"constant:5W", 0, 10 * s, 50},
		{"constant:5W", 7 * s, 5 * s, -10},
		{"constant:-250mW", 0, 4 * s, -1},
		{"constant:0W", 0, year, 0},
		{"constant:5W", 0, year, 157_680_000},

		// 8 W for 25 ms, then 2 W for 25 ms: 0.2 J and 0.05 J.
		{"square:2W,8W,50ms", 0, 50 * time.Millisecond, 0.25},
		{"square:2W,8W,50ms", 0, 25 * time.Millisecond, 0.2},
		{"square:2W,8W,50ms", 25 * time.Millisecond, 50 * time.Millisecond, 0.05},
		{"square:2W,8W,50ms", 20 * time.Millisecond, 60 * time.Millisecond, 0.04 + 0.05 + 0.08},
		{"square:2W,8W,50ms", 60 * time.Millisecond, 20 * time.Millisecond, -0.17},
		{"square:2W,8W,50ms", -25 * time.Millisecond, 0, 0.05},
		{"square:2W,8W,50ms,20%", 0, 50 * time.Millisecond, 0.08 + 0.08},
		{"square:2W,8W,50ms,0%", 0, s, 2},
		{"square:2W,8W,50ms,100%", 0, s, 8},
		// 630,720,000 periods of 0.25 J, and to the microjoule after them.
		{"square:2W,8W,50ms", 0, year, 157_680_000},
		{"square:2W,8W,50ms", 0, year + 25*time.Millisecond, 157_680_000.2},
		{"square:2W,8W,50ms", year + 20*time.Millisecond, year + 60*time.Millisecond, 0.17},
		// The period does not divide the year: 31,536,000 s hold 10,512,000,000 periods of 3 ms and nothing is left.
		{"square:0W,3W,3ms,33.3333333333%", 0, year, 31_536_000},

		{"sine:5W,2W,1s", 0, s, 5},
		// Half a period above the mean: 2.5 + 2/pi.
		{"sine:5W,2W,1s", 0, s / 2, 2.5 + 2/math.Pi},
		{"sine:5W,2W,1s", s / 2, s, 2.5 - 2/math.Pi},
		{"sine:5W,2W,1s", 3 * s / 4, 5 * s / 4, 2.5}, // symmetric around a period's start
		{"sine:5W,2W,1s", year + s/2, year, -(2.5 + 2/math.Pi)},

		// From 1 W to 5 W in 10 s: mean 3 W; 2 W after 2.5 s.
		{"ramp:1W,5W,10s", 0, 10 * s, 30},
		{"ramp:1W,5W,10s", 0, 2500 * time.Millisecond, 3.75},
		{"ramp:1W,5W,10s", 7500 * time.Millisecond, 12500 * time.Millisecond, 11.25 + 3.75},
		{"ramp:1W,5W,10s", year, year + 2500*time.Millisecond, 3.75},

		// 1 W for 2 s, 4 W for 1 s, 2 W for 7 s: 20 J in 10 s.
		{"trace:steps.csv,hold", 0, 10 * s, 20},
		{"trace:steps.csv,hold", 0, 2 * s, 2},
		{"trace:steps.csv,hold", s, 4 * s, 1 + 4 + 2},
		{"trace:steps.csv,hold", 9 * s, 11 * s, 3},
		{"trace:steps.csv,hold", 11 * s, 9 * s, -3},
		{"trace:steps.csv,hold", 0, year, 63_072_000},
		// 1..4 in 2 s, 4..2 in 1 s, 2..0 in 7 s: 5 + 3 + 7.
		{"trace:steps.csv,linear", 0, 10 * s, 15},
		{"trace:steps.csv,linear", s, 2 * s, 3.25},
		{"trace:unix.csv,linear", 0, 4 * s, 8},
		{"trace:unix.csv,linear", s, 3 * s, 5},
		{"trace:unix.csv,hold", 0, 4 * s, 8},

		{"constant:1W+square:0W,2W,50ms", 0, s, 2},
		{" constant: 1W + square: 0 W , 2 W , 50ms ", 0, 25 * time.Millisecond, 0.025 + 0.05},
	} {
		if got := load(t, tc.program).Energy(tc.from, tc.to); math.Abs(got-tc.joules) > 1e-6 {
			t.Errorf("%s from %s to %s: %.9f J, want %.9f J", tc.program, tc.from, tc.to, got, tc.joules)
		}
	}
}

var programs = []string{
	"constant:5W", "square:2W,8W,50ms", "square:2W,8W,7ms,20%", "sine:5W,2W,1s", "sine:0W,3W,11ms", "ramp:1W,5W,300ms",
	"trace:steps.csv,hold", "trace:steps.csv,linear", "trace:unix.csv,linear",
	"constant:1W+square:0W,2W,50ms+sine:1W,1W,20ms+trace:steps.csv,linear",
}

// The closed forms must agree with adding up the power, which knows nothing of them.
func TestEnergyIsTheIntegralOfPower(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, program := range programs {
		l := load(t, program)
		for range 20 {
			const steps = 20_000
			from := time.Duration(rng.Int64N(int64(15 * time.Second)))
			step := time.Duration(1 + rng.Int64N(int64(50*time.Microsecond)))
			var sum float64
			for i := range steps {
				sum += l.Power(from+time.Duration(i)*step+step/2) * step.Seconds()
			}
			// A jump of 6 W falls somewhere in a step; there are at most as many as 3.5 ms half periods.
			span := steps * step
			bound := 1e-9 + float64(1+span/(3500*time.Microsecond))*6*step.Seconds()
			if got := l.Energy(from, from+span); math.Abs(got-sum) > bound {
				t.Errorf("%s from %s over %s: %g J, adding up gives %g J", program, from, span, got, sum)
			}
		}
	}
}

func TestEnergyAddsUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, program := range programs {
		l := load(t, program)
		for range 1000 {
			a := time.Duration(rng.Int64N(int64(10 * year)))
			b := a + time.Duration(rng.Int64N(int64(time.Second)))
			c := b + time.Duration(rng.Int64N(int64(time.Second)))
			parts, whole := l.Energy(a, b)+l.Energy(b, c), l.Energy(a, c)
			if math.Abs(parts-whole) > 1e-12 || l.Energy(b, a) != -l.Energy(a, b) {
				t.Fatalf("%s: from %s: %g + %g is not %g", program, a, l.Energy(a, b), l.Energy(b, c), whole)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for _, tc := range []struct {
		program string
		want    string
	}{
		{"", `"", at 1: no program ""`},
		{"sqare:1W", `at 1: no program "sqare"; there are constant, square`},
		{"constant", `at 1: no values; write constant:5W`},
		{"constant:", `at 10: not a quantity: "": no unit W`},
		{"constant:5", `"constant:5", at 10: not a quantity: "5": no unit W`},
		{"constant:5W,6W", `at 10: 2 values; write constant:5W`},
		{"square:2W,8W", `at 8: 2 values; write square:2W,8W,50ms`},
		{"square:2W,8V,50ms", `at 11: not a quantity: "8V"`},
		{"square:2W,8W,50", `at 14: "50" is no period`},
		{"square:2W,8W,0s", `at 14: "0s" is no period`},
		{"square:2W,8W,-50ms", `at 14: "-50ms" is no period`},
		{"square:2W,8W,50ms,20", `at 19: "20" is no share`},
		{"square:2W,8W,50ms,101%", `at 19: "101%" is no share`},
		{"square:2W,8W,50ms,NaN%", `at 19: "NaN%" is no share`},
		{"constant:1W+ramp:1W", `at 18: 1 values; write ramp:1W,5W,10s`},
		{"constant:1W+", `at 13: no program ""`},
		{"constant:1e+3W", `at 10: not a quantity: "1e"`},
		{"trace:steps.csv", `at 7: 1 values; write trace:FILE,hold`},
		{"trace:steps.csv,cubic", `at 17: "cubic" says not how to go`},
		{"trace:,hold", `at 7: no file name`},
		{"constant:1W+trace:none.csv,hold", `at 19: open none.csv: file does not exist`},
		{"trace:bad.csv,hold", `at 7: bad.csv: not a trace of seconds,watts: line 3: "2,x": the second column`},
		{"trace:back.csv,hold", `line 3: "2,1": seconds do not ascend`},
		{"trace:header.csv,hold", `0 rows`},
		{"trace:one.csv,hold", `1 rows`},
		{"trace:comma.csv,hold", `line 1: "0;1": no comma`},
		{"trace:nan.csv,hold", `line 2: "2,NaN": the second column`},
		{"trace:time.csv,hold", `line 2: "1m3,2": the first column`},
	} {
		l, err := metersim.ParseLoad(tc.program, open)
		if !errors.Is(err, metersim.ErrLoad) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v; want %q", tc.program, l, err, tc.want)
		}
	}
	if _, err := metersim.ParseLoad("trace:none.csv,hold", open); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is not told as one: %v", err)
	}
	if _, err := metersim.ParseLoad("trace:steps.csv,hold", nil); err == nil || !strings.Contains(err.Error(), "traces cannot be read here") {
		t.Errorf("a trace without files: %v", err)
	}
	if _, err := metersim.ParseLoad("constant:"+energy.Power(5e6).String(), nil); err != nil {
		t.Errorf("what energy prints is not read: %v", err)
	}
}

func FuzzParseLoad(f *testing.F) {
	for _, p := range programs {
		f.Add(p)
	}
	f.Add("square:2W,8W,50ms,20%+")
	f.Add("trace:bad.csv,hold")
	f.Fuzz(func(t *testing.T, program string) {
		l, err := metersim.ParseLoad(program, open)
		if err != nil {
			if !errors.Is(err, metersim.ErrLoad) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		// Any program that is read must be a load: finite, with parts that make the whole.
		const a, b = 123456789, 10 * time.Second
		part, rest, whole := l.Energy(0, a), l.Energy(a, b), l.Energy(0, b)
		if math.IsNaN(whole) || math.IsInf(whole, 0) || math.IsNaN(l.Power(a)) {
			t.Fatalf("%q: %g J", program, whole)
		}
		if scale := math.Abs(part) + math.Abs(rest) + math.Abs(whole); math.Abs(part+rest-whole) > 1e-6+1e-3*scale {
			t.Fatalf("%q: %g + %g is not %g", program, part, rest, whole)
		}
	})
}

func FuzzParseTrace(f *testing.F) {
	for _, file := range files {
		f.Add(file.Data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, linear bool) {
		l, err := metersim.ParseTrace(strings.NewReader(string(data)), linear)
		if err != nil {
			if !errors.Is(err, metersim.ErrTrace) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if e := l.Energy(-time.Second, time.Minute); math.IsNaN(e) || math.IsInf(e, 0) || math.IsNaN(l.Power(time.Second)) {
			t.Fatalf("%q: %g J", data, e)
		}
	})
}
