package validation

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
)

const madeUpLag = 0.45

// madeUp returns the files of a run of 8 cores: functions a, 1 s on core 0, and b, 2 s on cores 4 and 5, each 6 times, 3 s apart,
// the first ones cold. A busy little core takes 0.5 W of rail little_W, a big one 2 W of big_W, each of which has 0.25 W idle;
// the meter is late.
func madeUp(name string) fstest.MapFS {
	const samples = 900
	type span struct {
		start, end float64
		f          string
		it         int
	}
	var jobs []span
	at := 5.0
	r := rand.New(rand.NewPCG(1, 1))
	for it := range 6 {
		for _, f := range []string{"b", "a"} {
			length := map[string]float64{"a": 1, "b": 2}[f]
			jobs = append(jobs, span{at, at + length, f, it})
			at += length + 3 + r.Float64()
		}
	}
	cores := map[string][]int{"a": {0}, "b": {4, 5}}
	running := func(t float64, core int) bool {
		for _, j := range jobs {
			for _, c := range cores[j.f] {
				if c == core && t >= j.start && t < j.end {
					return true
				}
			}
		}
		return false
	}
	var power, csv bytes.Buffer
	power.WriteString("t_ms,little_W,big_W,big_V")
	for c := range 8 {
		fmt.Fprintf(&power, ",cpu%d_busy_jiffies", c)
	}
	power.WriteString(",temp\n")
	var busy [8]float64
	for k := range samples {
		t := float64(k) * 0.1
		little, big := 0.25, 0.25
		for c := range 8 {
			if running(t-madeUpLag, c) {
				if c < 4 {
					little += 0.5
				} else {
					big += 2
				}
			}
			if k > 0 {
				for s := range 10 { // jiffies are exact here
					if running(t-0.1+float64(s)*0.01+0.005, c) {
						busy[c]++
					}
				}
			}
		}
		fmt.Fprintf(&power, "%d,%g,%g,1.2", 1563896791415+int64(k)*100, little, big)
		for c := range 8 {
			fmt.Fprintf(&power, ",%d", 118471+int64(busy[c]))
		}
		power.WriteString(",\n") // an empty column that nobody reads
	}
	csv.WriteString("iteration,function,start_ms,end_ms,duration_ms\n")
	for _, j := range jobs {
		ms := func(t float64) int64 { return 1563896791415 + int64(math.Round(t*1000)) }
		fmt.Fprintf(&csv, "%d,%s,%d,%d,%d\n", j.it, j.f, ms(j.start), ms(j.end), ms(j.end)-ms(j.start))
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(power.Bytes()) // to memory
	_ = z.Close()
	return fstest.MapFS{name + ".power.csv.gz": {Data: zipped.Bytes()}, name + ".invocations.csv": {Data: csv.Bytes()}}
}

func TestRecording(t *testing.T) {
	files := madeUp("run")
	files["README.md"] = &fstest.MapFile{}
	all, err := LoadRecordings(files)
	if err != nil {
		t.Fatal(err)
	}
	r := all[0]
	if len(all) != 1 || r.Name != "run" || len(r.Times) != 900 || len(r.Busy) != 8 || len(r.Rails) != 2 || len(r.Jobs) != 12 {
		t.Fatalf("%d runs; %s: %d samples, %d cores, %d rails, %d jobs", len(all), r.Name, len(r.Times), len(r.Busy), len(r.Rails), len(r.Jobs))
	}
	if lag, peak := r.Lag(); math.Abs(lag-madeUpLag) > 0.06 || peak < 0.9 { // samples are 0.1 s apart
		t.Errorf("lag %.3f s with correlation %.2f", lag, peak)
	}
	l, err := r.Library(Cut{})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(l.Idle-0.5) > 1e-9 || l.Cores != [attribution.MaxClasses]int{8} || len(l.Functions) != 2 || l.Functions[0].Function != "a" {
		t.Errorf("%+v", l)
	}
	// Warm jobs: a takes 1 s and 0.5 J, b 4 s of CPU time and 8 J.
	for i, want := range []struct{ cpu, joules float64 }{{1, 0.5}, {4, 8}} {
		f := l.Functions[i]
		if len(f.Profiles) != 5 {
			t.Errorf("%s: %d profiles", f.Function, len(f.Profiles))
		}
		for _, p := range f.Profiles {
			cpu, joules := 0.0, 0.0
			for k := range p.Energy {
				cpu, joules = cpu+p.CPU[k][0], joules+p.Energy[k]
			}
			if math.Abs(cpu-want.cpu) > 0.05*want.cpu || math.Abs(joules-want.joules) > 0.06*want.joules || len(p.CPU) != len(p.Energy) {
				t.Errorf("%s: %.3f s, %.3f J; want %v", f.Function, cpu, joules, want)
			}
		}
	}
	// Only what the big cores do, at half the step.
	big, err := r.Library(Cut{Step: 50 * time.Millisecond, Class: []int{-1, -1, -1, -1, 1, 1, 1, 1}, Classes: []string{"little", "big"}, Rails: []string{"big_W"}})
	if err != nil {
		t.Fatal(err)
	}
	if p := big.Functions[0].Profiles[0]; math.Abs(big.Idle-0.25) > 1e-9 || len(p.Energy) != 22 || p.CPU[5] != [attribution.MaxClasses]float64{} || big.Cores[1] != 4 {
		t.Errorf("a on big cores: idle %v, cores %v, %+v", big.Idle, big.Cores, p)
	}
	if p := big.Functions[1].Profiles[0]; math.Abs(p.CPU[5][1]-0.1) > 1e-3 || p.CPU[5][0] != 0 {
		t.Errorf("b on big cores: %v", p.CPU)
	}
	for _, c := range []Cut{{Class: []int{0}, Classes: []string{""}}, {Class: make([]int, 8)}, {Class: []int{0, 0, 0, 0, 0, 0, 0, 1}, Classes: []string{""}}} {
		if _, err := r.Library(c); err == nil {
			t.Errorf("%+v was cut", c)
		}
	}
}

func TestLoadRecordingsFaults(t *testing.T) {
	empty := fstest.MapFS{}
	if _, err := LoadRecordings(empty); err == nil || !strings.Contains(err.Error(), "there is no file named *.power.csv.gz") {
		t.Errorf("an empty folder: %v", err)
	}
	files := madeUp("run")
	delete(files, "run.invocations.csv")
	if _, err := LoadRecordings(files); err == nil || !strings.Contains(err.Error(), "read run.invocations.csv: ") {
		t.Errorf("no jobs: %v", err)
	}
	files = madeUp("run")
	files["run.power.csv.gz"].Data = []byte("t_ms")
	if _, err := LoadRecordings(files); err == nil || !strings.Contains(err.Error(), "read run.power.csv.gz: ") {
		t.Errorf("not compressed: %v", err)
	}
}

func TestParsePowerFaults(t *testing.T) {
	const header = "t_ms,a_W,cpu0_busy_jiffies\n"
	for in, want := range map[string]string{
		"":                                   "header: EOF",
		"t_ms,a_W\n":                         "header: needs t_ms",
		"t_ms,a_W,cpu1_busy_jiffies\n":       "column cpu1_busy_jiffies: expected cpu0",
		header + "0,1,2\n":                   "fewer than two samples",
		header + "0,1,2\n1,x,2\n":            `line 3, column a_W: "x" is not a number`,
		header + "0,1,2\n1,NaN,2\n":          "is not a number",
		header + "0,1,2\n0,1,2\n":            "line 3: time does not advance",
		header + "0,1,2\n1,1,1\n":            "line 3, column cpu0_busy_jiffies: the counter decreases",
		header + "0,1,2\n1,1\n":              "wrong number of fields",
		header + "0,1,2\n1,1e300,2\n2,1,3\n": "is not a number",
	} {
		if _, _, err := parsePower(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

func TestParseJobsFaults(t *testing.T) {
	const header = "iteration,function,start_ms,end_ms\n"
	for in, want := range map[string]string{
		"":                       "header: EOF",
		"iteration\n":            "no column function",
		header:                   "no jobs",
		header + "x,a,1,2\n":     "line 2: ",
		header + "0,a,2,2\n":     `line 2: a job of "a" of 0 s`,
		header + "0,,1,2\n":      `a job of ""`,
		header + "0,a,1,9e9\n":   "line 2: ",
		header + "0,a,1,9999999": "of 9999.998 s",
	} {
		if _, err := parseJobs(strings.NewReader(in), 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// FuzzRecording: whatever the files say, a run is refused, or all of it can be used without a panic or a value that is no number.
func FuzzRecording(f *testing.F) {
	f.Add("t_ms,a_W,cpu0_busy_jiffies\n0,1,2\n100,1,3\n7000,2,4\n9000,1,9\n", "iteration,function,start_ms,end_ms\n0,a,100,200\n1,a,2000,2500\n1,b,8000,8100\n")
	f.Add("t_ms,a_W,cpu0_busy_jiffies\n0,1,2\n1,1,2\n", "iteration,function,start_ms,end_ms\n1,a,-100,200\n")
	f.Fuzz(func(t *testing.T, power, jobs string) {
		r, first, err := parsePower(strings.NewReader(power))
		if err != nil {
			return
		}
		if r.Jobs, err = parseJobs(strings.NewReader(jobs), first); err != nil {
			return
		}
		if r.Times[len(r.Times)-1] > 1e4 || len(r.Jobs) > 100 {
			return // nothing wrong, only slow
		}
		l, err := r.Library(Cut{})
		if err != nil {
			return
		}
		for _, f := range l.Functions {
			for _, p := range f.Profiles {
				for k, e := range p.Energy {
					if math.IsNaN(e) || math.IsNaN(p.CPU[k][0]) || p.CPU[k][0] < 0 {
						t.Fatalf("%s, step %d: %v J, %v s", f.Function, k, e, p.CPU[k])
					}
				}
			}
		}
	})
}
