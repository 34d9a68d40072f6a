package boardsim

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// tape is a Recorder that keeps everything.
type tape struct {
	workloads []workload.Workload
	power     []reading
	samples   []workload.Sample
	activity  []workload.Activity
	events    []workload.Event
	fail      error
}

type reading struct {
	received time.Duration
	epoch    uint64
	at       time.Duration
	e        energy.Energy
}

func (r *tape) Workload(w workload.Workload) error {
	r.workloads = append(r.workloads, w)
	return nil
}

func (r *tape) Power(received time.Duration, epoch uint64, at time.Duration, e energy.Energy) error {
	r.power = append(r.power, reading{received, epoch, at, e})
	return r.fail
}

func (r *tape) Usage(s *workload.Sample) error {
	r.samples = append(r.samples, workload.Sample{
		At: s.At, Usage: slices.Clone(s.Usage), Ended: slices.Clone(s.Ended), Frequency: slices.Clone(s.Frequency),
	})
	return nil
}

func (r *tape) Activity(a workload.Activity) error {
	r.activity = append(r.activity, a)
	return nil
}

func (r *tape) Event(e workload.Event) error {
	r.events = append(r.events, e)
	return nil
}

// What a trace must be to be read again, and what it must agree with.
func TestRecord(t *testing.T) {
	for _, tt := range []struct {
		board, preset string
		tick          time.Duration
	}{
		{"odroid-xu4", "faas-mix", 0},
		{"raspberrypi-3b", "faas-mix", 50 * time.Millisecond},
		{"jetson-nano", "governor-switch", time.Second},
		{"pynq-z1", "short", 70 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			b := preset(t, tt.board, tt.preset, 11)
			b.Advance(time.Minute)
			before := b.Truth()
			var r tape
			var told []time.Duration
			var toldTotal float64
			o := RecordOptions{Tick: tt.tick, TruthEvery: 10 * time.Second, Truth: func(at time.Duration, tr Truth) {
				told, toldTotal = append(told, at), tr.Total
			}}
			if err := b.Record(&r, 11*time.Minute, o); err != nil {
				t.Fatal(err)
			}
			truth := b.Truth()
			if n := len(told); n < 66 || n > 67 || told[0] != 0 || (told[1]-10*time.Second).Abs() > 80*time.Millisecond || toldTotal < 0.97*truth.Total {
				t.Errorf("truth was told %d times, first at %v", n, told[:2])
			}
			known := map[workload.ID]bool{workload.Node: true}
			for _, w := range r.workloads {
				if known[w.ID] {
					t.Errorf("%s told twice", w.ID)
				}
				known[w.ID] = true
			}
			type key struct {
				id    workload.ID
				class string
			}
			last, first := map[key]time.Duration{}, map[key]time.Duration{}
			ended := map[workload.ID]bool{}
			for i, s := range r.samples {
				if i > 0 && s.At <= r.samples[i-1].At {
					t.Fatalf("sample at %v after %v", s.At, r.samples[i-1].At)
				}
				if !slices.IsSortedFunc(s.Usage, func(a, b workload.Usage) int {
					return bytes.Compare([]byte(string(a.ID)+"\x00"+a.Class), []byte(string(b.ID)+"\x00"+b.Class))
				}) {
					t.Fatalf("sample at %v is not sorted", s.At)
				}
				for _, u := range s.Usage {
					k := key{u.ID, u.Class}
					if _, ok := first[k]; !ok {
						first[k] = u.CPU
					}
					if !known[u.ID] || ended[u.ID] || u.CPU < last[k] || u.At != s.At {
						t.Fatalf("%+v: known %t, ended %t, before %v", u, known[u.ID], ended[u.ID], last[k])
					}
					if u.ID == workload.Node && u.CPU%userHZ != 0 {
						t.Fatalf("%+v is not in jiffies", u)
					}
					last[k] = u.CPU
				}
				for _, id := range s.Ended {
					ended[id] = true
				}
				perClass := map[string]time.Duration{}
				for _, f := range s.Frequency {
					perClass[f.Class] += f.Time
				}
				for class, sum := range perClass { // each state loses less than a jiffy
					if d := s.At + time.Minute - sum; d < 0 || d > 20*userHZ {
						t.Fatalf("%q: time in state %v at %v", class, sum, s.At+time.Minute)
					}
				}
			}
			var groups, node time.Duration
			for k, cpu := range last {
				if k.id == workload.Node {
					node += cpu - first[k]
				} else {
					groups += cpu - first[k]
				}
			}
			var cpu time.Duration
			for _, w := range truth.Workloads {
				if w.ID != workload.Kernel {
					cpu += w.CPU
				}
			}
			for _, w := range before.Workloads {
				if w.ID != workload.Kernel {
					cpu -= w.CPU
				}
			}
			if d := cpu - groups; d.Abs() > 100*time.Millisecond {
				t.Errorf("control groups used %v, in truth %v", groups, cpu)
			}
			if node < groups || float64(node) > 1.3*float64(groups) {
				t.Errorf("node used %v, its control groups %v", node, groups)
			}
			end := r.power[len(r.power)-1]
			if want := energy.Energy(1e6 * b.Load().Energy(time.Minute, time.Minute+end.at)); (end.e-want) > 1 || want-end.e > 1 {
				t.Errorf("recorded %v, drew %v", end.e, want)
			}
			if r.power[0].e != 0 || r.power[0].at != 0 || end.at > 11*time.Minute || end.at < 11*time.Minute-time.Second {
				t.Errorf("first %+v, last %+v", r.power[0], end)
			}
			regimes := 0
			for _, e := range r.events {
				if e.ID == workload.Node {
					regimes++
					if e.At != 9*time.Minute {
						t.Errorf("%+v, want it after 9 minutes", e)
					}
				} else if !known[e.ID] {
					t.Errorf("%+v of an unknown workload", e)
				}
			}
			if (regimes > 0) != (tt.preset == "governor-switch") {
				t.Errorf("events %v", r.events)
			}
			for _, a := range r.activity {
				if a.InFlight != a.Started-a.Completed || a.InFlight < 0 {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}

func TestRecordIsDeterministic(t *testing.T) {
	run := func() *tape {
		r := new(tape)
		b := preset(t, "odroid-xu4", "collinear", 2)
		if err := b.Record(r, time.Minute, RecordOptions{Meter: Meter{Noise: 0.02, Jitter: time.Millisecond, Lost: 0.1}}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if a, b := fmt.Sprint(*run()), fmt.Sprint(*run()); a != b {
		t.Error("two recordings differ")
	}
}

// A board that steps once shows what the meter does to its power.
func TestMeter(t *testing.T) {
	step := func(m Meter) (*Board, *tape) {
		b := quiet(t, "raspberrypi-4", nil, stress(4, ""))
		if err := b.SetGovernor("", Performance); err != nil {
			t.Fatal(err)
		}
		b.after(10*time.Second, func() { b.request(b.functions[0]) })
		r := new(tape)
		if err := b.Record(r, 20*time.Second, RecordOptions{Meter: m}); err != nil {
			t.Fatal(err)
		}
		return b, r
	}
	// rise is when a reading's power has come halfway up, and how long it takes from a tenth to nine tenths.
	rise := func(r *tape) (half, slope time.Duration) {
		watts := func(i int) float64 {
			return (r.power[i].e - r.power[i-1].e).Joules() / (r.power[i].at - r.power[i-1].at).Seconds()
		}
		low, high := watts(len(r.power)/2-20), watts(len(r.power)/2+60)
		cross := func(part float64) time.Duration {
			for i := len(r.power)/2 - 10; ; i++ {
				if watts(i) >= low+part*(high-low) {
					return (r.power[i].at + r.power[i-1].at) / 2
				}
			}
		}
		return cross(0.5), cross(0.9) - cross(0.1)
	}
	ms := time.Millisecond
	for _, tt := range []struct {
		m           Meter
		half, slope time.Duration
	}{
		{Meter{Period: 20 * ms}, 10 * time.Second, 0},
		{Meter{Period: 20 * ms, Lag: 300 * ms}, 10300 * ms, 0},
		{Meter{Period: 20 * ms, Lag: 300 * ms, Box: 200 * ms}, 10400 * ms, 160 * ms},
		{Meter{Period: 20 * ms, Box: 340 * ms}, 10170 * ms, 272 * ms},
	} {
		_, r := step(tt.m)
		half, slope := rise(r)
		if (half-tt.half).Abs() > 25*ms || (slope-tt.slope).Abs() > 30*ms {
			t.Errorf("%+v: rises at %v over %v, want %v over %v", tt.m, half, slope, tt.half, tt.slope)
		}
	}

	b, exact := step(Meter{})
	_, gained := step(Meter{Gain: 0.02, Clock: time.Hour, DriftPPM: 100, Delay: 30 * ms, Epoch: 9})
	e, g := exact.power[200], gained.power[200]
	if r := float64(g.e) / float64(e.e); math.Abs(r-1.02) > 1e-6 {
		t.Errorf("gain of 2 %% reads %.6f", r)
	}
	if g.epoch != 9 || g.at != time.Hour+20*time.Second+2*ms || g.received != 20*time.Second+30*ms || e.received != 20*time.Second {
		t.Errorf("exact %+v, with clock %+v", e, g)
	}
	if want := b.Truth().Total; math.Abs(e.e.Joules()-want) > 2e-6 {
		t.Errorf("exact meter reads %v of %.6f J", e.e, want)
	}
	_, lossy := step(Meter{Lost: 0.3})
	if n := len(lossy.power); n < 120 || n > 160 {
		t.Errorf("%d of 201 readings with 30 %% lost", n)
	}
	for _, p := range lossy.power {
		if i := slices.Index(exact.power, p); i < 0 {
			t.Errorf("%+v is not what an exact meter reads", p)
		}
	}
	_, noisy := step(Meter{Noise: 0.02})
	var square float64
	for i := 1; i < len(noisy.power); i++ {
		d := (noisy.power[i].e - noisy.power[i-1].e - exact.power[i].e + exact.power[i-1].e).Joules() / 0.1
		square += d * d
	}
	if rms := math.Sqrt(square / 200); rms < 0.016 || rms > 0.024 {
		t.Errorf("20 mW of noise are %.1f mW rms", rms*1000)
	}
}

func TestRecordRefuses(t *testing.T) {
	b := preset(t, "coral", "idle", 1)
	for _, o := range []RecordOptions{
		{Tick: 10 * time.Millisecond}, {Tick: 2 * time.Second}, {Meter: Meter{Lost: 1}}, {Meter: Meter{Lag: -1}},
		{Meter: Meter{Period: time.Millisecond}}, {Meter: Meter{Box: time.Minute}},
	} {
		if err := b.Record(&tape{}, time.Second, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	full := errors.New("disk full")
	if err := b.Record(&tape{fail: full}, time.Second, RecordOptions{}); !errors.Is(err, full) {
		t.Errorf("recorder's error: %v", err)
	}
}
