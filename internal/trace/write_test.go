package trace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

func create(t testing.TB, dir string, m Meta, o Options) *Writer {
	t.Helper()
	w, err := Create(dir, m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, dir, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
		t.Errorf("%s: %v\ngot\n%s\nwant\n%s", name, err, got, want)
	}
}

var (
	twoClasses = Meta{Node: "n", Cores: map[string]int{"little": 4, "big": 4}, Recorder: "test"}
	podA       = workload.Workload{ID: "pods/a", Kind: workload.Function, Namespace: "fn", Name: `a, "the" first`, Function: "gzip"}
	cron       = workload.Workload{ID: "cron", Kind: workload.System, Name: "cron"}
)

const ms = time.Millisecond

// What is written is plain: a header, whole numbers, nothing that pandas would take for another type.
func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "trace")
	w := create(t, dir, Meta{Node: "n", Start: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Cores: map[string]int{"big": 4}, Recorder: "test"}, Options{})
	must(t, w.Workload(podA))
	must(t, w.Power(5*ms, 1<<63, 7*time.Second, -40))
	must(t, w.PowerFull(Power{
		Received: 6 * ms, Meter: 8 * time.Second, Boot: 1 << 63, Energy: 5 * energy.Joule,
		Charge: 1, HasCharge: true, Current: -3, HasCurrent: true,
	}))
	// At, not ID, is the order of rows; below a microsecond nothing is written.
	must(t, w.Usage(&workload.Sample{
		At: 10 * ms,
		Usage: []workload.Usage{
			{ID: workload.Node, At: 9*ms + 999, CPU: 2*time.Second + 999},
			{ID: podA.ID, Class: "big", At: 8 * ms, CPU: time.Second},
		},
		Frequency: []workload.Frequency{{Class: "big", KHz: 2_000_000, At: 9 * ms, Time: time.Minute}},
	}))
	must(t, w.Activity(workload.Activity{ID: podA.ID, At: 10 * ms, InFlight: 1, Started: 3, Completed: 2}))
	must(t, w.Event(workload.Event{ID: podA.ID, At: 10 * ms, What: workload.Ready}))
	must(t, w.Event(workload.Event{ID: workload.Node, At: 10 * ms, What: `regime:"a", b`}))
	must(t, w.Close())
	must(t, w.Close())

	wantFile(t, dir, "trace.json", `{
  "format": "wattlet-trace/1",
  "node": "n",
  "start": "2026-11-23T18:00:00Z",
  "cores": {
    "big": 4
  },
  "recorder": "test"
}
`)
	wantFile(t, dir, "power.csv", `received_us,meter_us,boot_id,energy_uj,charge_uc,voltage_uv,current_ua
5000,7000000,9223372036854775808,-40,,,
6000,8000000,9223372036854775808,5000000,1,,-3
`)
	wantFile(t, dir, "cpu.csv", "at_us,workload,class,cpu_us\n8000,pods/a,big,1000000\n9000,@node,,2000000\n")
	wantFile(t, dir, "frequency.csv", "at_us,class,khz,time_us\n9000,big,2000000,60000000\n")
	wantFile(t, dir, "workloads.csv", "workload,kind,namespace,name,function\npods/a,function,fn,\"a, \"\"the\"\" first\",gzip\n")
	wantFile(t, dir, "activity.csv", "at_us,workload,in_flight,started,completed\n10000,pods/a,1,3,2\n")
	wantFile(t, dir, "events.csv", "at_us,workload,event\n10000,pods/a,ready\n10000,@node,\"regime:\"\"a\"\", b\"\n")
	if files, err := os.ReadDir(dir); err != nil || len(files) != 7 {
		t.Errorf("%v, %v; want the seven files", files, err)
	}
	if err := w.Event(workload.Event{ID: workload.Node, At: 11 * ms, What: "regime:x"}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Counters that start anew go on, an ended workload's last value is not written again, a total that decreased waits.
func TestWriterKeepsCountersGrowing(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, twoClasses, Options{})
	must(t, w.Workload(cron))
	usage := func(at time.Duration, ended []workload.ID, cron ...time.Duration) {
		t.Helper()
		s := workload.Sample{At: at, Usage: []workload.Usage{{ID: workload.Node, At: at, CPU: at}}, Ended: ended}
		for _, cpu := range cron {
			s.Usage = append(s.Usage, workload.Usage{ID: "cron", At: at, CPU: cpu})
		}
		must(t, w.Usage(&s))
	}
	usage(1*ms, nil, 50*ms)
	usage(2*ms, nil, 60*ms)
	usage(3*ms, []workload.ID{"cron"}, 60*ms) // as it was: not written
	usage(4*ms, nil)
	usage(5*ms, nil, 7*ms) // restarted
	usage(6*ms, nil, 8*ms)
	usage(7*ms, []workload.ID{"cron"}, 9*ms)                              // used some more before it ended: written
	must(t, w.Usage(&workload.Sample{At: 8 * ms, Usage: []workload.Usage{ // not read anew: not written
		{ID: workload.Node, At: 8 * ms, CPU: 8 * ms}, {ID: "cron", At: 7 * ms, CPU: 9 * ms}}}))
	for i, n := range []int64{5, 6, 2, 4} {
		must(t, w.Activity(workload.Activity{ID: "cron", At: time.Duration(i) * ms, Started: n, Completed: n - 1}))
	}
	for i, e := range []energy.Energy{100, 98, 99, 101} {
		must(t, w.Power(time.Duration(i)*ms, 1, time.Duration(i)*ms, e))
	}
	must(t, w.Power(9*ms, 2, 0, 7))
	must(t, w.Close())
	wantFile(t, dir, "cpu.csv", `at_us,workload,class,cpu_us
1000,@node,,1000
1000,cron,,50000
2000,@node,,2000
2000,cron,,60000
3000,@node,,3000
4000,@node,,4000
5000,@node,,5000
5000,cron,,67000
6000,@node,,6000
6000,cron,,68000
7000,@node,,7000
7000,cron,,69000
8000,@node,,8000
`)
	wantFile(t, dir, "activity.csv", "at_us,workload,in_flight,started,completed\n0,cron,0,5,4\n1000,cron,0,6,5\n2000,cron,0,8,6\n3000,cron,0,10,8\n")
	wantFile(t, dir, "power.csv", base["power.csv"]+"0,0,1,100,,,\n1000,1000,1,100,,,\n2000,2000,1,100,,,\n3000,3000,1,101,,,\n9000,0,2,7,,,\n")
	if _, err := Check(dir); err != nil {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, twoClasses, Options{})
	must(t, w.Workload(cron))
	must(t, w.Power(2*ms, 1, 2*ms, 0))
	must(t, w.Event(workload.Event{ID: "cron", At: 2 * ms, What: workload.Ready}))
	sample := func(u workload.Usage) error { return w.Usage(&workload.Sample{At: u.At, Usage: []workload.Usage{u}}) }
	must(t, sample(workload.Usage{ID: "cron", At: 5 * ms, CPU: 1}))
	frequency := func(f workload.Frequency) error {
		return w.Usage(&workload.Sample{At: f.At, Frequency: []workload.Frequency{f}})
	}
	must(t, frequency(workload.Frequency{Class: "big", KHz: 1, At: 5 * ms}))
	for want, err := range map[string]error{
		`power.csv: a row at 1ms after one at 2ms: rows must come in the order of time`:     w.Power(1*ms, 1, 3*ms, 0),
		`power.csv: a row 1ms before the trace's start`:                                     w.Power(-1*ms, 1, 3*ms, 0),
		`reading at 3ms: the meter's clock ran back from 2ms to 1ms without a new epoch`:    w.Power(3*ms, 1, 1*ms, 0),
		`reading at 3ms: the meter's clock is at -1ns`:                                      w.Power(3*ms, 2, -1, 0),
		`workload "x": not added to the trace before its first row`:                         sample(workload.Usage{ID: "x", At: 6 * ms}),
		`workload "cron" at 6ms: class "a" is not one of the trace's cores`:                 sample(workload.Usage{ID: "cron", Class: "a", At: 6 * ms}),
		`workload "cron" at 6ms: CPU time -1ns is negative`:                                 sample(workload.Usage{ID: "cron", At: 6 * ms, CPU: -1}),
		`workload "cron" at 5ms: has a row at 5ms already`:                                  sample(workload.Usage{ID: "cron", At: 5 * ms, CPU: 7 * ms}),
		`cpu.csv: a row at 4ms after one at 5ms: rows must come in the order of time`:       sample(workload.Usage{ID: workload.Node, At: 4 * ms}),
		`frequency at 6ms: class "" is not one of the trace's cores`:                        frequency(workload.Frequency{KHz: 1, At: 6 * ms}),
		`frequency at 6ms: -1 kHz for 0s is negative`:                                       frequency(workload.Frequency{Class: "big", KHz: -1, At: 6 * ms}),
		`frequency at 5ms: 1 kHz has a row at 5ms already`:                                  frequency(workload.Frequency{Class: "big", KHz: 1, At: 5 * ms}),
		`frequency.csv: a row at 4ms after one at 5ms: rows must come in the order of time`: frequency(workload.Frequency{Class: "big", KHz: 2, At: 4 * ms}),
		`workload "y": not added to the trace before its first row`:                         w.Activity(workload.Activity{ID: "y"}),
		`activity of "cron" at 3ms: a count is negative`:                                    w.Activity(workload.Activity{ID: "cron", At: 3 * ms, Started: -1}),
		`workload "z": not added to the trace before its first row`:                         w.Event(workload.Event{ID: "z", What: workload.Ready}),
		`event at 3ms: "x" is none of created, ready, stopped, regime:TEXT`:                 w.Event(workload.Event{ID: "cron", At: 3 * ms, What: "x"}),
		`event at 3ms: its text is not UTF-8, or longer than 256 KiB`:                       w.Event(workload.Event{ID: workload.Node, At: 3 * ms, What: "regime:\xff"}),
		`events.csv: a row at 1ms after one at 2ms: rows must come in the order of time`:    w.Event(workload.Event{ID: "cron", At: 1 * ms, What: workload.Ready}),
		`workload "@node": not one that a trace names`:                                      w.Workload(workload.Workload{ID: workload.Node}),
		`workload "p": a pod serves no function`:                                            w.Workload(workload.Workload{ID: "p", Function: "f"}),
		`workload "p": a name is not UTF-8`:                                                 w.Workload(workload.Workload{ID: "p", Name: "\xff"}),
		`workload "p": kind "kind(9)" is none of function, pod, system, agent`:              w.Workload(workload.Workload{ID: "p", Kind: 9}),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	must(t, w.Close())
	if s, err := Check(dir); err != nil || s.Power != 1 || s.Usage != 1 || s.Frequency != 1 || s.Events != 1 || s.Activity != 0 {
		t.Errorf("%+v, %v; want what was good only", s, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	full := t.TempDir()
	put(t, full, "notes", "x")
	for want, create := range map[string]func() (*Writer, error){
		"creating trace " + full + ": there is notes in it already; name a new or empty directory": func() (*Writer, error) { return Create(full, twoClasses, Options{}) },
		`creating trace d: compression "xz" is none of gz, zst`:                                    func() (*Writer, error) { return Create("d", twoClasses, Options{"xz"}) },
		`creating trace d: ` + errNoCores.Error():                                                  func() (*Writer, error) { return Create("d", Meta{}, Options{}) },
	} {
		if w, err := create(); err == nil || err.Error() != want || w != nil {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// What is said of a workload later replaces what was said first.
func TestWorkloadReplaced(t *testing.T) {
	for _, suffix := range []string{"", "gz", "zst"} {
		dir := t.TempDir()
		w := create(t, dir, twoClasses, Options{suffix})
		must(t, w.Workload(workload.Workload{ID: podA.ID, Kind: workload.Pod}))
		must(t, w.Workload(cron))
		must(t, w.Flush())
		must(t, w.Workload(podA))
		must(t, w.Close())
		if got := open(t, dir).Workloads(); !slices.Equal(got, []workload.Workload{podA, cron}) {
			t.Errorf("%q: %+v", suffix, got)
		}
	}
}

// A recorder that is killed leaves a plain trace that can be read as it is, up to a second before its last row.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, twoClasses, Options{})
	for tick := range 100 {
		at := time.Duration(tick) * 100 * ms
		id := workload.ID(fmt.Sprintf("pods/%d", tick))
		must(t, w.Workload(workload.Workload{ID: id, Name: strings.Repeat("n", 2000)}))
		must(t, w.Usage(&workload.Sample{At: at, Usage: []workload.Usage{{ID: workload.Node, At: at, CPU: at}, {ID: id, At: at, CPU: at}}}))
		must(t, w.Power(at, 1, at, energy.Energy(tick)))
		s, err := Check(dir) // as if it were killed now
		if err != nil {
			t.Fatalf("at %v: %v", at, err)
		}
		if s.Duration < at-flushEvery {
			t.Fatalf("at %v: the trace ends at %v", at, s.Duration)
		}
	}
}

// A disk that is full leaves whole rows, and an error that stays.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, twoClasses, Options{})
	must(t, w.Power(0, 1, 0, 0))
	w.outs[PowerRow].f.Close() // as good as a disk that fails
	first := w.Flush()
	if first == nil {
		t.Fatal("no error")
	}
	if err := w.Power(ms, 1, ms, 0); !errors.Is(err, first) {
		t.Errorf("%v, want %v to stay", err, first)
	}
	if err := w.Close(); err == nil {
		t.Error("Close says nothing of it")
	}
}

// Whatever is written is read again, to the microsecond, in the order of time.
func TestRoundTrip(t *testing.T) {
	for _, compression := range []string{"", "gz", "zst"} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", compression, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 7))
				dir := t.TempDir()
				meta := Meta{
					Format: Format, Node: "n,\"\n", Start: time.Unix(rng.Int64N(1e9), 5).UTC(), Cores: map[string]int{"": 1, "a,\"b": 2, "big": 3},
					Meter: &Meter{GainStdDev: rng.Float64(), Noise: energy.Power(rng.Int64N(1e6))},
				}
				w := create(t, dir, meta, Options{compression})
				classes := []string{"", "a,\"b", "big"}
				var workloads []workload.Workload
				for i := range 1 + rng.IntN(20) {
					l := workload.Workload{ID: workload.ID(fmt.Sprintf("w\"%d\r\n, é", i)), Kind: workload.Kind(rng.IntN(4)), Namespace: "ns", Name: ` "`}
					if l.Kind == workload.Function {
						l.Function = "f,"
					}
					workloads = append(workloads, l)
					must(t, w.Workload(l))
				}
				var want []string
				cpu, counts := map[string]time.Duration{}, map[workload.ID]int64{}
				p := Power{Boot: rng.Uint64(), Energy: energy.Energy(rng.Int64() - 1<<62)}
				add := func(r Record) { want = append(want, line(&r)) }
				var now time.Duration
				step := func() time.Duration { now += time.Duration(1+rng.Int64N(50_000)) * time.Microsecond; return now }
				for range 50 {
					if rng.IntN(5) == 0 {
						p.Boot, p.Meter = rng.Uint64(), 0
					}
					p.Received, p.Meter, p.Energy = step(), p.Meter+time.Duration(rng.Int64N(1e6))*time.Microsecond, p.Energy+energy.Energy(rng.Int64N(1e9))
					p.HasCharge, p.HasVoltage, p.HasCurrent = rng.IntN(2) == 0, rng.IntN(2) == 0, rng.IntN(2) == 0
					p.Charge, p.Voltage, p.Current = energy.Charge(rng.Int64()), energy.Voltage(-rng.Int64()), energy.Current(rng.Int64())
					must(t, w.PowerFull(p))
					add(Record{Row: PowerRow, Power: p})

					s := workload.Sample{}
					for _, l := range append(workloads, workload.Workload{ID: workload.Node}) {
						for _, class := range classes {
							key := string(l.ID) + "/" + class
							cpu[key] += time.Duration(rng.Int64N(1e6)) * time.Microsecond
							s.Usage = append(s.Usage, workload.Usage{ID: l.ID, Class: class, At: step(), CPU: cpu[key]})
							add(Record{Row: UsageRow, Usage: s.Usage[len(s.Usage)-1]})
						}
					}
					for _, class := range classes {
						s.Frequency = append(s.Frequency, workload.Frequency{Class: class, KHz: 7, At: step(), Time: now})
						add(Record{Row: FrequencyRow, Frequency: s.Frequency[len(s.Frequency)-1]})
					}
					rng.Shuffle(len(s.Usage), func(i, j int) { s.Usage[i], s.Usage[j] = s.Usage[j], s.Usage[i] })
					must(t, w.Usage(&s))

					id := workloads[rng.IntN(len(workloads))].ID
					counts[id] += rng.Int64N(5)
					a := workload.Activity{ID: id, At: step(), InFlight: rng.Int64N(9), Started: counts[id] + 5, Completed: counts[id]}
					must(t, w.Activity(a))
					add(Record{Row: ActivityRow, Activity: a})
					for _, e := range []workload.Event{{ID: id, What: workload.Stopped}, {ID: workload.Node, What: "regime: \n,\"\r\n"}} {
						e.At = step()
						must(t, w.Event(e))
						add(Record{Row: EventRow, Event: e})
					}
				}
				must(t, w.Close())

				r := open(t, dir)
				if !reflect.DeepEqual(r.Meta(), meta) || !slices.Equal(r.Workloads(), workloads) {
					t.Errorf("got %+v %+v\nwant %+v %+v", r.Meta(), r.Workloads(), meta, workloads)
				}
				got, err := lines(r.Next)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					for i := range min(len(got), len(want)) {
						if got[i] != want[i] {
							t.Fatalf("row %d of %d, %d: got\n%s\nwant\n%s", i, len(got), len(want), got[i], want[i])
						}
					}
					t.Fatalf("%d rows, want %d", len(got), len(want))
				}
			})
		}
	}
}

// What a sample says is what a live reader said, whoever ended or came.
func TestSampleRoundTrip(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 8))
		dir := t.TempDir()
		w := create(t, dir, twoClasses, Options{})
		var want []string
		alive := map[workload.ID]workload.Usage{}
		for tick := range 40 {
			now := time.Duration(tick+1) * 100 * ms
			at := func() time.Duration { return now + time.Duration(rng.IntN(5000))*time.Microsecond }
			for range rng.IntN(3) { // new ones
				id := workload.ID(fmt.Sprintf("w%d", rng.IntN(1e9)))
				must(t, w.Workload(workload.Workload{ID: id}))
				alive[id] = workload.Usage{ID: id, Class: "big"}
			}
			s := workload.Sample{Usage: []workload.Usage{{ID: workload.Node, At: at(), CPU: now}}}
			for id, u := range alive {
				if u.At > 0 && rng.IntN(8) == 0 {
					s.Ended = append(s.Ended, id)
					s.Usage = append(s.Usage, u)
					delete(alive, id)
					continue
				}
				u.At, u.CPU = at(), u.CPU+time.Duration(rng.IntN(5))*ms
				alive[id] = u
				s.Usage = append(s.Usage, u)
			}
			slices.Sort(s.Ended)
			slices.SortFunc(s.Usage, byWorkload)
			for _, u := range s.Usage {
				s.At = max(s.At, u.At)
			}
			must(t, w.Usage(&s))
			want = append(want, line(&Record{Row: SampleRow, Sample: s}))
		}
		must(t, w.Close())
		got, err := lines(open(t, dir).NextGrouped)
		wantLines(t, got, err, strings.Join(want, "\n"))
	}
}
