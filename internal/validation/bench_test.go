package validation

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution/baseline"
)

var two = []Named{{"cpu-share", baseline.CPUShare}, {"utilisation", baseline.Utilisation}}

// small cuts a plan down to a minute or two each.
func small() Plan {
	make := func(rate float64, seed uint64) (*Case, error) {
		return Compose(Synthetic(4, 1), Options{Seed: seed, Rate: rate, Duration: 2 * time.Minute})
	}
	setup := func(rate float64) func(uint64) (*Case, error) {
		return func(seed uint64) (*Case, error) { return make(rate, seed) }
	}
	return Plan{Data: "a <test>", First: 11, Seeds: 3, Curved: 2,
		Cases:  []Setup{{"first & plain", true, setup(0.05)}, {"second", true, setup(0.1)}, {"a change of nothing", false, setup(0.2)}},
		Curves: []Curve{{"rate", "calls, 1/s", []float64{0.02, 0.2}, make, false}, {"worst", "x", []float64{0.1}, make, true}}}
}

func runSmall(t *testing.T) *Result {
	t.Helper()
	var progress []int
	r, err := small().Run(t.Context(), two, func(done, all int, _ string) {
		if all != 15 { // 3·3 and 2·(2 + 1)
			t.Errorf("%d of %d", done, all)
		}
		progress = append(progress, done)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(progress) != 16 || !slices.IsSorted(progress) || progress[15] != 15 {
		t.Errorf("progress %v", progress)
	}
	return r
}

func TestPlan(t *testing.T) {
	r := runSmall(t)
	if len(r.Cases) != 3 || len(r.Curves) != 2 || len(r.Overall) != 2 || !slices.Equal(r.Estimators, []string{"cpu-share", "utilisation"}) {
		t.Fatalf("%+v", r)
	}
	for _, c := range r.Cases {
		for i, row := range c.Rows {
			if row.Estimator != two[i].Name || len(row.Scores) != 3 || row.Scores[2].Seed != 13 || row.Summary.MeanError.Median <= 0 || row.Summary.Conservation != 0 {
				t.Errorf("%s: %+v", c.Case, row)
			}
		}
	}
	// The overall median is that of the six scores of the two plain cases.
	var v []float64
	for _, c := range r.Cases[:2] {
		for _, s := range c.Rows[0].Scores {
			v = append(v, s.MeanError)
		}
	}
	slices.Sort(v)
	near(t, "overall", r.Overall[0].Summary.MeanError.Median, (v[2]+v[3])/2)
	near(t, "overall, worst", r.Overall[0].Summary.MeanError.Worst, v[5])
	if l := r.Curves[0].Lines[1]; l.Estimator != "utilisation" || len(l.MeanError) != 2 || l.MeanError[0] == l.MeanError[1] {
		t.Errorf("%+v", l)
	}
}

func TestPlanEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, err := small().Run(ctx, two, func(done, _ int, _ string) {
		if done == 4 {
			cancel()
		}
	})
	if r != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", r, err)
	}
}

func TestResultsAreReproducible(t *testing.T) {
	text := func() string {
		r := runSmall(t)
		for i := range r.Cases {
			for k := range r.Cases[i].Rows {
				row := &r.Cases[i].Rows[k]
				row.Summary.MicrosPerTick = Stat{}
				for _, s := range row.Scores {
					s.MicrosPerTick = 0
				}
			}
		}
		for i := range r.Overall {
			r.Overall[i].Summary.MicrosPerTick = Stat{}
		}
		b, err := json.Marshal(r) // fails for what is no number
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := text()
	if text() != first {
		t.Error("two runs differ")
	}
	var back map[string]any
	if err := json.Unmarshal([]byte(first), &back); err != nil || back["format"] != "wattlet-bench-attribution/1" {
		t.Errorf("%v: %s", err, first)
	}
}

func TestReports(t *testing.T) {
	r := runSmall(t)
	r.Cases[1].Rows[0].Summary.P95 = &Stat{0.951, 0.93}
	for name, write := range map[string]func(io.Writer, *Result) error{"svg": WriteSVG, "html": WriteHTML} {
		var b bytes.Buffer
		if err := write(&b, r); err != nil {
			t.Fatal(err)
		}
		doc := strings.TrimPrefix(b.String(), "<!DOCTYPE html>")
		doc = strings.Replace(doc, `<meta charset="utf-8">`, "", 1)
		for d := xml.NewDecoder(strings.NewReader(doc)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for _, want := range []string{"Attribution on a &lt;test&gt;", ">utilisation<", "error of energy, %", "calls, 1/s", "end of a window of 60 s, s", "0.951"} {
			if !strings.Contains(doc, want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
		for _, bad := range []string{"NaN", "Inf", "%!"} {
			if strings.Contains(doc, bad) {
				t.Errorf("%s has %s", name, bad)
			}
		}
	}
	var b bytes.Buffer
	if err := WriteText(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Attribution on a <test>: median over seeds 11 to 13 (worst seed)", "All 2 plain loads together", "first & plain\n", "Mean error by calls, 1/s", "Worst function by x", "95.1 % (93.0)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text has no %q:\n%s", want, b.String())
		}
	}
}

func TestAxes(t *testing.T) {
	a := percents([]float64{3, 40, 0}, 100, 0)
	if a.low != 0.1 || a.high != 50 || a.at(0) != 100 || a.at(50) != 0 || a.at(1000) != 0 {
		t.Errorf("%+v", a)
	}
	if a = percents([]float64{3, 4}, 100, 0); a.low != 0.5 || a.high != 5 || math.Abs(a.at(math.Sqrt(2.5))-50) > 1e-9 {
		t.Errorf("%+v", a)
	}
	if l := linear(0, 1800, 0, 180); !slices.Equal(l.ticks, []float64{0, 500, 1000, 1500}) || l.at(900) != 90 {
		t.Errorf("%+v", l)
	}
	if l := linear(0.5, 1, 0, 1); len(l.ticks) != 6 || round(l.ticks[5]) != 1 {
		t.Errorf("%+v", l)
	}
	if l := linear(3, 3, 0, 1); l.at(3) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestPlansAreComplete(t *testing.T) {
	runs := []*Recording{}
	for _, name := range []string{"governors-4l-4b-ii-1", "governors-4l-0b-ii-1"} {
		all, err := LoadRecordings(madeUp(name))
		if err != nil {
			t.Fatal(err)
		}
		r := all[0]
		r.Rails["a15_W"] = r.Rails["big_W"]
		delete(r.Rails, "big_W")
		runs = append(runs, r)
	}
	recorded, err := RecordedPlan(runs, "made up", 9, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		plan  Plan
		plain []string
		also  string
		// Two functions are too few for some curves.
		curves int
	}{
		{SyntheticPlan(9, true), []string{"synthetic", "synthetic-few"}, "governor change, told", 8},
		{recorded, []string{"4l-4b-ii", "4l-0b-ii"}, "mixed classes, known", 6},
	} {
		var plain []string
		also := false
		for _, s := range tc.plan.Cases {
			if s.Plain {
				plain = append(plain, s.Name)
			}
			also = also || s.Name == tc.also
		}
		if !slices.Equal(plain, tc.plain) || !also || tc.plan.Seeds != 9 || len(tc.plan.Curves) != tc.curves {
			t.Errorf("%s: plain %q, %s %v, %d curves", tc.plan.Data, plain, tc.also, also, len(tc.plan.Curves))
		}
		for _, c := range tc.plan.Curves { // the ends of the curves can be made
			for _, x := range []float64{c.X[0], c.X[len(c.X)-1]} {
				if made, err := c.Make(x, 1); err != nil || made.Check() != nil {
					t.Errorf("%s, %s of %g: %v", tc.plan.Data, c.Name, x, err)
				}
			}
		}
	}
	if _, err := RecordedPlan(nil, "nothing", 1, true); err == nil {
		t.Error("a plan of nothing")
	}
	if got := brief("governors-4l-4b-ii-1", append(runs, &Recording{Name: "governors-4l-4b-ii-2"})); got != "4l-4b-ii-1" {
		t.Errorf("a name that is not unique when short: %s", got)
	}
}
