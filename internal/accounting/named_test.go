package accounting

import (
	"fmt"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// nameless is a rig whose workloads are pods by their UIDs until they are named, and then serve functions.
type nameless struct {
	*rig
	names map[workload.ID]string
	ready map[workload.ID]bool
}

func newNameless(t *testing.T) *nameless {
	t.Helper()
	n := &nameless{names: map[workload.ID]string{}, ready: map[workload.ID]bool{}}
	n.rig = newRig(t, AttributorConfig{
		Tick: time.Second,
		Describe: func(id workload.ID) workload.Workload {
			if f := n.names[id]; f != "" {
				return workload.Workload{Kind: workload.Function, Namespace: "fn", Name: f + "-" + string(id), Function: f}
			}
			return workload.Workload{Kind: workload.Pod, Name: "uid-" + string(id)}
		},
		Expected: func(id workload.ID) bool { return n.names[id] == "" },
		Watched:  func(id workload.ID) bool { return n.names[id] != "" && !n.ready[id] },
	}, nil)
	n.Energy(0, 0, 0)
	return n
}

// name tells what function a workload serves.
func (n *nameless) name(id workload.ID, function string) {
	n.names[id] = function
	n.Redescribe()
	n.check()
}

// shown is the sum of all that a snapshot has, which is the node's energy, and which accounts there are.
func (n *nameless) shown() (sum energy.Energy, accounts map[string]energy.Energy) {
	n.t.Helper()
	s := n.snapshot()
	if s.Invariant != 0 {
		n.t.Fatalf("the parts are %v off", s.Invariant)
	}
	accounts = map[string]energy.Energy{}
	sum = s.Base + s.Departed
	for _, w := range s.Workloads {
		accounts[w.Name] = w.Energy + w.ColdStart
		sum += w.Energy + w.ColdStart
	}
	if want := n.Accounts().Posted - n.Accounts().Held(); sum != want {
		n.t.Fatalf("a snapshot has %v, shown are %v", sum, want)
	}
	return sum, accounts
}

// A pod that lived for two seconds and was named after its end has all its energy under its name, and none under another.
func TestNamedAfterItsEnd(t *testing.T) {
	for _, after := range []time.Duration{4 * time.Second, 5 * time.Second, 8 * time.Second, 12 * time.Second} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			r := newNameless(t)
			for at := time.Second; at <= 20*time.Second; at += time.Second {
				r.power(2, at-time.Second, at, 500*ms)
				s := workload.Sample{At: at}
				switch at {
				case 2 * time.Second:
					s.Usage = []workload.Usage{usage("a", at, 500*ms)}
				case 3 * time.Second:
					s.Usage, s.Ended = []workload.Usage{usage("a", at, 1500*ms)}, []workload.ID{"a"}
				}
				r.Sample(&s)
				r.check()
				if _, accounts := r.shown(); accounts["uid-a"] != 0 {
					t.Fatalf("%v: it is shown without its name: %v", at, accounts)
				}
				if at == after {
					r.name("a", "f")
				}
			}
			r.Flush()
			r.check()
			f := r.Accounts().function("fn", "f")
			if got := r.account("f-a").Energy; got != 4*energy.Joule || f.Energy != got || f.ColdStart != 0 {
				t.Errorf("it used 4 J; its account has %v, its function's %v and %v", got, f.Energy, f.ColdStart)
			}
			if n := len(r.Accounts().held); n != 0 {
				t.Errorf("%d are kept back", n)
			}
			for _, u := range r.est.used {
				if u {
					t.Error("a slot is kept")
				}
			}
			if f.users != 0 || r.account("f-a").users != 0 {
				t.Errorf("%d and %d users", f.users, r.account("f-a").users)
			}
		})
	}
}

// One that is named while it runs goes on under its name, with what it used before; that was its start if it is not ready.
func TestNamedWhileItRuns(t *testing.T) {
	for _, ready := range []bool{false, true} {
		t.Run(fmt.Sprint(ready), func(t *testing.T) {
			r := newNameless(t)
			r.ready["a"] = ready
			for at := time.Second; at <= 12*time.Second; at += time.Second {
				r.power(2, at-time.Second, at, 500*ms)
				var us []workload.Usage
				if at >= 3*time.Second {
					us = append(us, usage("a", at, (at-2*time.Second)/2))
				}
				r.sample(at, us...)
				switch at {
				case 6 * time.Second:
					r.name("a", "f")
				case 8 * time.Second:
					r.Event(workload.Event{ID: "a", At: at, What: workload.Ready})
				}
				r.shown()
			}
			r.Flush()
			r.check()
			f := r.Accounts().function("fn", "f")
			// 2 W from 2 to 12 s; a start until 8 s, if any.
			var cold energy.Energy
			starts := uint64(0)
			if !ready {
				// The tick to 8 s is not over when it gets ready, and the fair estimator takes a use as a whole.
				cold, starts = 10*energy.Joule, 1
			}
			if f.Energy+f.ColdStart != 20*energy.Joule || f.ColdStart != cold || f.ColdStarts != starts {
				t.Errorf("energy %v, starts %v in %d", f.Energy, f.ColdStart, f.ColdStarts)
			}
			if a := r.account("f-a"); a.Energy != f.Energy || a.ColdStart != f.ColdStart {
				t.Errorf("the workload has %v and %v", a.Energy, a.ColdStart)
			}
		})
	}
}

// One that nobody names is shown as it is called, and what was shown once stays where it was.
func TestNeverNamed(t *testing.T) {
	r := newNameless(t)
	var sum, before energy.Energy
	var accounts map[string]energy.Energy
	for at := time.Second; at <= 60*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		r.sample(at, usage("a", at, at/2), usage("b", at, at/2)) // the first at 1 s
		if sum, accounts = r.shown(); sum < before {
			t.Fatalf("%v: %v after %v", at, sum, before)
		}
		before = sum
		if shown := accounts["uid-a"] > 0; shown != (at > 16*time.Second) {
			t.Fatalf("%v: %v", at, accounts)
		}
		if at == 40*time.Second {
			r.name("a", "f")
		}
	}
	r.Flush()
	r.check()
	_, accounts = r.shown()
	// Together they used 2 W from 1 s on. The tick to 40 s was of the old name.
	if accounts["uid-a"] != 39*energy.Joule || accounts["f-a"] != 20*energy.Joule || accounts["uid-b"] != 59*energy.Joule {
		t.Errorf("%v", accounts)
	}
}

// At an end in order all is shown, and the saved accounts are those that were published; after a crash nothing is missing either.
func TestNamelessIsSaved(t *testing.T) {
	r := newNameless(t)
	for at := time.Second; at <= 8*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		r.sample(at, usage("a", at, at/2))
	}
	s := r.Accounts().save()
	if !s.valid() || s.Departed == 0 || len(s.Workloads) != 0 {
		t.Errorf("%+v", s)
	}
	r.Flush()
	if s = r.Accounts().save(); !s.valid() || s.Departed != 0 || len(s.Workloads) != 1 || s.Workloads[0].Name != "uid-a" {
		t.Errorf("%+v", s)
	}
}

// A start is counted once, whoever tells of it; who was there at first has started before.
func TestStartsAreCountedOnce(t *testing.T) {
	watched := true
	r := newRig(t, AttributorConfig{Tick: time.Second, Watched: func(workload.ID) bool { return watched }}, nil)
	r.Energy(0, 0, 0)
	starts := func(function string) uint64 { return r.Accounts().function("fn", function).ColdStarts }
	tell := func(id workload.ID, at time.Duration, what ...string) {
		for _, w := range what {
			r.Event(workload.Event{ID: id, At: at, What: w})
		}
	}
	for at := time.Second; at <= 9*time.Second; at += time.Second {
		us := []workload.Usage{usage("old", at, at)}
		if at >= 3*time.Second {
			us = append(us, usage("new", at, at-2*time.Second))
		}
		r.sample(at, us...)
		switch at {
		case 2 * time.Second:
			tell("old", at, workload.Created)
		case 4 * time.Second:
			tell("new", at, workload.Created, workload.Ready, workload.Created)
		case 6 * time.Second:
			tell("new", at, workload.Stopped, workload.Created, workload.Ready)
			tell("old", at, workload.Stopped, workload.Created)
		}
	}
	if starts("old") != 1 || starts("new") != 2 {
		t.Errorf("old has %d starts, new %d", starts("old"), starts("new"))
	}
}

// Where more pods end than can be shown for five minutes, the oldest go first.
func TestManyEnded(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	const pods = 3 * maxEnded
	for i := range pods + 20 {
		at := time.Duration(i+1) * 100 * ms
		r.fed += 2 * energy.Joule / 10
		r.Energy(at, r.fed, 0)
		id := workload.ID(fmt.Sprint(i))
		s := workload.Sample{At: at, Usage: []workload.Usage{usage(id, at, 10*ms)}, Ended: []workload.ID{id}}
		if i >= pods {
			s.Usage, s.Ended = nil, nil
		}
		r.Sample(&s)
		r.check()
		if n := len(r.Accounts().workloads); n > maxEnded+10 {
			t.Fatalf("%d accounts after %d pods", n, i)
		}
	}
	last := r.account(fmt.Sprint("pod-", pods-1))
	if n := len(r.Accounts().workloads); n < maxEnded || last.Energy == 0 {
		t.Errorf("%d accounts, the newest has %v", n, last.Energy)
	}
}
