package accounting

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// A cold start lasts from created to ready, 10 min at most.
func TestColdStart(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	for at := time.Second; at <= 620*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		switch at {
		case 3 * time.Second:
			r.Event(workload.Event{ID: "a", At: 2500 * ms, What: workload.Created})
			r.Event(workload.Event{ID: "a", At: 2600 * ms, What: workload.Created})
			r.Event(workload.Event{ID: "b", At: 2600 * ms, What: workload.Created})
			r.Event(workload.Event{ID: "nobody", At: 2600 * ms, What: workload.Ready})
		case 6 * time.Second:
			r.Event(workload.Event{ID: "a", At: 5500 * ms, What: workload.Ready})
		}
		var us []workload.Usage
		if at >= 3*time.Second {
			us = append(us, usage("a", at, at-2*time.Second), usage("b", at, at-2*time.Second))
		}
		r.sample(at, us...)
	}
	r.Flush()
	r.check()
	a, b := r.account("pod-a"), r.account("pod-b")
	// a is cold from 2 to 5 s, 1 W each; it is ready in the tick to 6 s.
	if a.ColdStart != 3*energy.Joule || a.Energy != (620-5)*energy.Joule {
		t.Errorf("a %+v", a)
	}
	// b never is; the limit is over in the tick to 603 s.
	if b.ColdStart != 600*energy.Joule || b.Energy != 18*energy.Joule {
		t.Errorf("b %+v", b)
	}
	for _, f := range r.Accounts().Functions() {
		if f.ColdStarts != 1 || f.Energy+f.ColdStart != 618*energy.Joule {
			t.Errorf("%s: %d cold starts, %v", f.Name, f.ColdStarts, f.Energy)
		}
	}
}

// Of a workload that was created and never seen nothing remains.
func TestCreatedAndNeverSeen(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	for at := time.Second; at <= 610*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		r.sample(at, usage("a", at, at))
		if at == 2*time.Second {
			r.Event(workload.Event{ID: "x", At: at, What: workload.Created})
			r.Event(workload.Event{ID: "y", At: at, What: workload.Created})
			r.Event(workload.Event{ID: "y", At: at, What: workload.Stopped})
		}
	}
	if got := r.Tracked(); len(got) != 1 || got[0].ID != "a" {
		t.Errorf("tracked: %v", got)
	}
}

// A regime begins with the tick in which it was announced.
func TestRegime(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	r.power(2, 0, 10*time.Second, 500*ms)
	r.Event(workload.Event{ID: workload.Node, At: 500 * ms, What: "regime:first"})
	for at := time.Second; at <= 8*time.Second; at += time.Second {
		if at == 4*time.Second {
			r.Event(workload.Event{ID: workload.Node, At: 3500 * ms, What: "regime:powersave"})
			r.Event(workload.Event{ID: workload.Node, At: 3500 * ms, What: "nothing"})
		}
		r.sample(at, usage("a", at, at))
		if at == 6*time.Second {
			r.Event(workload.Event{ID: workload.Node, At: at, What: "regime:at its end"})
		}
	}
	r.Flush()
	// Intervals begin with that from 1 to 2 s.
	if want := map[string]int{"first": 0, "powersave": 2, "at its end": 4}; !maps.Equal(r.est.regimes, want) {
		t.Errorf("%v, want %v", r.est.regimes, want)
	}
}

// A workload that ended is shown for five minutes more.
func TestDeparted(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	gone := time.Duration(0)
	for at := time.Second; at <= 400*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		s := workload.Sample{At: at, Usage: []workload.Usage{usage("a", at, at/2)}}
		if at <= 11*time.Second {
			s.Usage = append(s.Usage, usage("b", at, at/2))
		}
		if at == 11*time.Second {
			s.Ended = []workload.ID{"b"}
		}
		r.Sample(&s)
		r.check()
		if gone == 0 && r.Accounts().Departed > 0 {
			gone = at
		}
	}
	// b had half of 2 W from 1 to 11 s. The tick to 12 s, closed at 13 s, is the first without it.
	if got := r.Accounts().Departed; got != 10*energy.Joule || r.account("pod-b").users != 0 {
		t.Errorf("departed %v", got)
	}
	if gone < 311*time.Second || gone > 316*time.Second {
		t.Errorf("departed at %v", gone)
	}
}

// A workload that is described anew goes on as another; nothing of it is lost or counted twice.
func TestRedescribe(t *testing.T) {
	known := false
	r := newRig(t, AttributorConfig{Tick: time.Second, Describe: func(id workload.ID) workload.Workload {
		if known && id == "a" {
			return workload.Workload{Kind: workload.Function, Namespace: "fn", Name: "pod", Function: "f"}
		}
		return workload.Workload{Kind: workload.Pod, Name: string(id)}
	}}, nil)
	r.Energy(0, 0, 0)
	r.power(2, 0, 10*time.Second, 500*ms)
	done := int64(0)
	for at := time.Second; at <= 9*time.Second; at += time.Second {
		r.sample(at, usage("a", at, at/4), usage("b", at, at/4))
		r.Activity(workload.Activity{ID: "a", At: at, InFlight: 0, Started: done, Completed: done})
		done++
		if at == 4*time.Second {
			known = true
			r.Redescribe()
			r.Redescribe()
			r.check()
		}
	}
	r.Flush()
	r.check()
	// The tick to 4 s was open: it is still of the old one.
	if o, n := r.account("a").Energy, r.account("pod").Energy; o != 3*energy.Joule || n != 5*energy.Joule || r.account("b").Energy != 8*energy.Joule {
		t.Errorf("%v as before and %v anew", o, n)
	}
	for _, in := range r.est.intervals {
		if sum := in.Uses[0].Total() + in.Uses[1].Total(); len(in.Uses) > 3 || math.Abs(sum-0.5) > 1e-9 {
			t.Errorf("%v: %+v", in.Start, in.Uses)
		}
	}
	if f := r.Accounts().Functions(); len(f) != 1 || f[0].invocations() != 6 { // those from 3 s on
		t.Errorf("%+v", f)
	}
}

// Cores reserved are asked for again too, and are those of one function at a time.
func TestRedescribeRequested(t *testing.T) {
	serves, cores := "f", map[workload.ID]float64{"a": 1, "b": 1}
	r := newRig(t, AttributorConfig{Tick: time.Second, Describe: func(id workload.ID) workload.Workload {
		return workload.Workload{Kind: workload.Function, Namespace: "fn", Name: string(id), Function: serves}
	}, Requested: func(id workload.ID) float64 { return cores[id] }}, nil)
	r.Energy(0, 0, 0)
	r.power(2, 0, 10*time.Second, 500*ms)
	check := func(want map[string]float64) {
		t.Helper()
		got := map[string]float64{}
		for _, f := range r.Accounts().Functions() {
			if f.Charge.Requested != 0 {
				got[f.Name] = f.Charge.Requested
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	for at := time.Second; at <= 6*time.Second; at += time.Second {
		r.sample(at, usage("a", at, at/4), usage("b", at, at/4))
		switch at {
		case 2 * time.Second:
			check(map[string]float64{"f": 2})
			cores["a"], cores["b"] = 0.1, 0.2
			r.Redescribe()
			check(map[string]float64{"f": 0.3})
		case 4 * time.Second:
			serves = "g"
			r.Redescribe()
			check(map[string]float64{"g": 0.3})
		}
	}
	r.Flush()
	r.check()
	check(map[string]float64{"g": 0.3})
}

// Energy may be negative by an offset of the sensor. No account falls; later ones have less.
func TestNegativeEnergy(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	for i, e := range []energy.Energy{0, 100, 50, 80, 30, 130} { // without samples all is base's
		at := time.Duration(i) * time.Second
		r.Energy(at, e, 0)
		r.Idle(at)
		r.check()
		if got, want := r.Accounts().Posted, []energy.Energy{0, 100, 100, 100, 100, 130}[i]; got != want {
			t.Errorf("%d: posted %d, want %d", i, got, want)
		}
	}
	// A debt is paid from the base of ticks too.
	r.Energy(6*time.Second, 100, 0)
	r.sample(6 * time.Second)
	r.sample(7*time.Second, usage("a", 7*time.Second, 100*ms))
	r.Energy(7*time.Second, 121, 0)
	r.sample(8 * time.Second)
	r.Energy(8*time.Second, 300, 0)
	r.Flush()
	r.check()
	// The tick to 7 s has 21 µJ for a, that to 8 s 179 for the base, less 30.
	if c := r.Accounts(); c.Posted != 300 || r.account("pod-a").Energy != 21 || c.debt != 0 {
		t.Errorf("%+v, a %v", *c, r.account("pod-a").Energy)
	}
}

// Energy is not kept back for samples that do not come.
func TestIdle(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second, Hold: 45 * time.Second}, nil)
	r.Energy(0, 0, 0)
	for at := time.Second; at < 3*time.Hour; at += time.Minute {
		r.fed += energy.Joule
		r.Energy(at, r.fed, 0)
		r.Idle(at)
		r.check()
		if c := r.Accounts(); c.Posted != r.fed || c.Unattributed != r.fed {
			t.Fatalf("%v: posted %v of %v", at, c.Posted, r.fed)
		}
	}
	from := 3 * time.Hour
	r.Energy(from, r.fed, 0)
	for at := from; at <= from+100*time.Second; at += time.Second {
		if at > from {
			r.power(2, at-time.Second, at, 500*ms)
		}
		if at <= from+60*time.Second {
			r.sample(at, usage("a", at, at-from))
		}
		r.Idle(at)
		r.check()
		if pending := r.fed - r.Accounts().Posted; at > from+50*time.Second && pending > 2*17*energy.Joule || at >= from+75*time.Second && pending != 0 {
			t.Errorf("%v: pending %v", at-from, pending)
		}
	}
	// From 1 s on; the last tick was closed by Idle.
	if got := r.account("pod-a").Energy; got != 2*60*energy.Joule {
		t.Errorf("a has %v", got)
	}
}

// A pod that is killed with a request in flight has none thereafter.
func TestEndsWithRequests(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	for at := time.Second; at <= 30*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		s := workload.Sample{At: at}
		if at <= 5*time.Second {
			s.Usage = append(s.Usage, usage("a", at, at/2))
		}
		if at == 5*time.Second {
			s.Ended = []workload.ID{"a"}
		}
		r.Sample(&s)
		r.Activity(workload.Activity{ID: "a", At: at, InFlight: 1, Started: 1})
	}
	r.Flush()
	r.check()
	for _, in := range r.est.intervals {
		if len(in.Uses) != 0 && in.End > 5*time.Second {
			t.Errorf("%v to %v: %+v", in.Start, in.End, in.Uses)
		}
	}
	if slices.Contains(r.est.used, true) {
		t.Error("a slot is kept")
	}
}

// Readings that come seconds late must find the slots of workloads that ended meanwhile.
func TestLateReadingsOfEnded(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	for at := time.Second; at <= 20*time.Second; at += time.Second {
		id := workload.ID(fmt.Sprint("job-", int(at/(2*time.Second))))
		s := workload.Sample{At: at, Usage: []workload.Usage{usage(id, at, at%(2*time.Second)/2+500*ms)}}
		if at%(2*time.Second) != 0 {
			s.Ended = []workload.ID{id}
		}
		r.Sample(&s)
		if at > 5*time.Second {
			r.power(2, at-6*time.Second, at-5*time.Second, 500*ms)
		}
	}
	r.power(2, 15*time.Second, 20*time.Second, 500*ms)
	r.Flush()
	r.check()
	for i := 1; i < 10; i++ { // each used CPU in two ticks, 2 J each
		if got := r.account(fmt.Sprint("pod-job-", i)).Energy; got != 4*energy.Joule {
			t.Errorf("job-%d: %v", i, got)
		}
	}
}

// So must the merged tick of a gap, whether cut at readings or not; and one that is described anew while it ends is gone all the same.
func TestEndsInAGap(t *testing.T) {
	for _, every := range []time.Duration{100 * ms, time.Second} {
		version := ""
		r := newRig(t, AttributorConfig{Tick: 100 * ms, Describe: func(id workload.ID) workload.Workload {
			return workload.Workload{Kind: workload.Pod, Name: string(id) + version}
		}}, nil)
		r.Energy(0, 0, 0)
		heard := time.Duration(0)
		for at := 100 * ms; at <= 20*time.Second; at += 100 * ms {
			if silent := at > 5*time.Second && at < 9*time.Second; !silent && at%every == 0 {
				r.power(2, heard, at, at-heard)
				heard = at
			}
			s := workload.Sample{At: at, Usage: []workload.Usage{usage("a", at, at/2)}}
			if at <= 7*time.Second {
				s.Usage = append(s.Usage, usage("b", at, at/2), usage("c", at, at/2))
			}
			if at == 7*time.Second {
				s.Ended = []workload.ID{"b", "c"}
			}
			r.Sample(&s)
			if at == 7*time.Second {
				version = "'"
				r.Redescribe()
			}
			r.check()
		}
		r.Flush()
		r.check()
		used := 0
		for _, u := range r.est.used {
			if u {
				used++
			}
		}
		if got := r.Tracked(); len(got) != 1 || got[0].Name != "a'" || used != 1 {
			t.Errorf("readings each %v: %d slots are used, by %v", every, used, got)
		}
		b, c := r.account("b").Energy, r.account("c").Energy
		if b != c || b < 9*energy.Joule/2 || r.Accounts().Posted != r.fed {
			t.Errorf("readings each %v: b has %v, c %v, posted %v of %v", every, b, c, r.Accounts().Posted, r.fed)
		}
	}
}

// Counts of invocations and the histogram are those of the activity, and cycles are closed when nothing is in flight at the
// end of the tick that is accounted for, not when its energy is known. The last cycle may be open.
func TestInvocations(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	var started, completed int64
	for i := 1; i <= 400; i++ {
		at := time.Duration(i) * time.Second
		// Of every 4 s a request is in flight from the first to the third and uses the CPU between.
		cpu := time.Duration((i/4)*2+max(0, i%4-1)) * time.Second
		r.sample(at, usage("a", at, cpu), usage("b", at, at))
		switch i % 4 {
		case 1:
			started++
		case 3:
			completed++
		}
		r.Activity(workload.Activity{ID: "a", At: at, InFlight: started - completed, Started: started, Completed: completed})
		if i > 3 { // energy comes 3 s late, when other requests are in flight
			r.power(2, at-4*time.Second, at-3*time.Second, 500*ms)
		}
	}
	r.power(2, 397*time.Second, 400*time.Second, 500*ms)
	r.Flush()
	r.check()
	f := r.Accounts().Functions()[0]
	if f.Name != "a" || f.invocations() != float64(completed) || f.Histogram.Count > uint64(completed) || f.Histogram.Count+5 < uint64(completed) {
		t.Errorf("%d completed; %v counted, %d in the histogram", completed, f.invocations(), f.Histogram.Count)
	}
	mean, _, _, interval, ok := f.Invocations.Mean(0, 0)
	// Two ticks of half of 2 J.
	if !ok || !interval || math.Abs(mean-2) > 1e-9 || math.Abs(f.Histogram.Sum-2*float64(f.Histogram.Count)) > 1e-6 || len(f.Histogram.Buckets) != 1 {
		t.Errorf("mean %v, sum %v, %v", mean, f.Histogram.Sum, f.Histogram.Buckets)
	}
}

// Requests of a time whose energy is nobody's are counted, and are in no mean.
func TestInvocationsWithoutEnergy(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	r.power(2, 0, 4*time.Second, 500*ms)
	for at := time.Second; at <= 6*time.Second; at += time.Second {
		r.sample(at, usage("a", at, at/2))
		n := int64(at / time.Second)
		r.Activity(workload.Activity{ID: "a", At: at, Started: n, Completed: n})
	}
	r.Flush()
	r.check()
	f := r.Accounts().Functions()[0]
	// One in each tick from 1 to 6 s, of which those from 4 s on were not measured.
	if f.invocations() != 5 || f.Invocations.Count() != 3 {
		t.Errorf("%v invocations, %v of them with their energy", f.invocations(), f.Invocations.Count())
	}
}
