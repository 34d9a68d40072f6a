package accounting

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// board is a simulated node for the property below: what it does is random, what its counters say is not.
type board struct {
	rng     *rand.Rand
	now     time.Duration
	joules  energy.Energy // of this boot of the meter
	boot    time.Duration
	epoch   uint64
	unheard []energy.Reading // on their way
	cpu     map[workload.Usage]time.Duration
	alive   []workload.ID
	ended   []workload.ID // whose last values are still to be read
	node    time.Duration
	started map[workload.ID]int64
}

var boardClasses = []string{"big", "little", ""}

func (b *board) chance(n int) bool { return b.rng.IntN(n) == 0 }

func (b *board) id() workload.ID { return workload.ID(fmt.Sprint("w", b.rng.IntN(12))) }

// run lets time pass.
func (b *board) run(d time.Duration) {
	b.now += d
	for _, id := range b.alive {
		if b.chance(2) {
			used := time.Duration(b.rng.Int64N(int64(d) + 1))
			b.cpu[workload.Usage{ID: id, Class: boardClasses[b.rng.IntN(3)]}] += used
			b.node += used
		}
	}
	b.node += time.Duration(b.rng.Int64N(int64(d)/10 + 1))
	watts := b.rng.IntN(12)
	if d < time.Second {
		watts-- // now and then below zero
	}
	b.joules += energy.Energy(d.Microseconds()) * energy.Energy(watts)
}

func (b *board) reading() energy.Reading {
	return energy.Reading{Epoch: b.epoch, At: b.now - b.boot, Host: t0.Add(b.now), Energy: b.joules}
}

func (b *board) sample() *workload.Sample {
	s := &workload.Sample{At: b.now}
	if !b.chance(20) {
		s.Usage = append(s.Usage, usage(workload.Node, b.now, b.node.Truncate(10*ms)))
	}
	var keys []workload.Usage
	for k := range b.cpu {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y workload.Usage) int {
		if x.ID != y.ID {
			return int(x.ID[1]) - int(y.ID[1]) + 100*(len(x.ID)-len(y.ID))
		}
		return len(x.Class) - len(y.Class)
	})
	for _, k := range keys {
		k.At, k.CPU = b.now, b.cpu[k]
		if b.chance(300) {
			k.CPU /= 2 // a counter that falls
		}
		s.Usage = append(s.Usage, k)
	}
	slices.Sort(b.ended)
	s.Ended = b.ended
	for _, id := range b.ended {
		for _, c := range boardClasses {
			delete(b.cpu, workload.Usage{ID: id, Class: c})
		}
	}
	b.ended = nil
	for i, khz := range []int64{200_000, 1_400_000, 2_000_000} {
		s.Frequency = append(s.Frequency, workload.Frequency{Class: "big", KHz: khz, At: b.now, Time: b.now / time.Duration(i+2)})
	}
	return s
}

// turn starts or ends a workload.
func (b *board) turn() {
	id := b.id()
	if i := slices.Index(b.alive, id); i >= 0 {
		b.alive = slices.Delete(b.alive, i, i+1)
		b.ended = append(b.ended, id)
	} else if !slices.Contains(b.ended, id) {
		b.alive = append(b.alive, id)
		b.cpu[workload.Usage{ID: id}] = 0
	}
}

// Whatever comes, in whatever order: after every call the parts make the whole to the microjoule and no account has fallen;
// at the end everything is posted that was measured.
func TestPartsMakeTheWhole(t *testing.T) {
	const steps = 5000
	for seed := range uint64(8) {
		for _, name := range []string{"fair", "chk"} {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				b := &board{rng: rand.New(rand.NewPCG(seed, 77)), epoch: 1, cpu: map[workload.Usage]time.Duration{}, started: map[workload.ID]int64{}}
				version, nameless := map[workload.ID]int{}, map[workload.ID]bool{}
				cfg := AttributorConfig{
					Expected: func(id workload.ID) bool { return nameless[id] },
					Watched:  func(id workload.ID) bool { return seed%2 == 1 && id[1]%2 == 0 },
					Board:    Board{Classes: []Class{{Name: "big", Cores: 4}, {Name: "little", Cores: 4}}},
					Tick:     100 * ms, Lag: time.Duration(b.rng.IntN(5)) * 100 * ms, Hold: time.Duration(seed%2) * 20 * time.Second,
					Describe: func(id workload.ID) workload.Workload {
						w := workload.Workload{Kind: workload.Kind(int(id[1]+id[len(id)-1]) % 4), Name: string(id)}
						if version[id]%3 == 1 || w.Kind == workload.Function {
							w = workload.Workload{Kind: workload.Function, Namespace: "fn", Name: "pod-" + string(id), Function: fmt.Sprint("f", id[1]%3)}
						}
						return w
					},
				}
				if name == "chk" {
					cfg.Estimator = func(b attribution.Board) attribution.Estimator { return attribution.New(b) }
				}
				r := newRig(t, cfg, nil)
				if r.est != nil {
					r.est.keep = false
				}
				acct := account{start: t0}
				tell := func(e energy.Reading) {
					if acct.observe(e) {
						r.Energy(e.Host.Sub(t0), acct.sum.Energy, acct.sum.Unmeasured)
						r.check()
					}
				}
				var silent, deaf time.Duration // until then
				for range steps {
					switch {
					case b.chance(2000):
						b.run(time.Duration(b.rng.IntN(200)) * time.Second)
					case b.chance(300):
						b.run(time.Duration(b.rng.IntN(15_000)) * ms)
					default:
						b.run(100*ms + time.Duration(b.rng.IntN(20)-10)*ms)
					}
					if b.chance(40) {
						b.turn()
					}
					if b.chance(800) { // the meter restarts
						b.epoch++
						b.boot, b.joules = b.now, 0
						b.run(50 * ms)
					}
					if b.chance(1500) {
						silent = b.now + time.Duration(b.rng.IntN(90))*time.Second
					}
					if b.chance(1500) {
						deaf = b.now + time.Duration(b.rng.IntN(90))*time.Second
					}
					if b.now >= silent && !b.chance(8) {
						b.unheard = append(b.unheard, b.reading())
					}
					if !b.chance(3) { // late, and now and then in another order or twice
						if b.chance(20) {
							b.rng.Shuffle(len(b.unheard), func(i, j int) { b.unheard[i], b.unheard[j] = b.unheard[j], b.unheard[i] })
						}
						for _, e := range b.unheard {
							tell(e)
						}
						if !b.chance(10) {
							b.unheard = b.unheard[:0]
						}
					}
					if b.now >= deaf && !b.chance(20) {
						r.Sample(b.sample())
						r.check()
					}
					if !b.chance(10) {
						r.Idle(b.now)
						r.check()
					}
					id := b.id()
					switch b.rng.IntN(12) {
					case 0, 1, 2, 3:
						b.started[id] += b.rng.Int64N(3)
						r.Activity(workload.Activity{
							ID: id, At: b.now - time.Duration(b.rng.IntN(300)-50)*ms, InFlight: b.rng.Int64N(3), Started: b.started[id], Completed: b.started[id] - b.rng.Int64N(2),
						})
					case 4:
						r.Event(workload.Event{ID: id, At: b.now - time.Duration(b.rng.IntN(300))*ms, What: []string{workload.Created, workload.Ready, workload.Stopped}[b.rng.IntN(3)]})
					case 5:
						if b.chance(20) {
							r.Event(workload.Event{ID: workload.Node, At: b.now, What: workload.RegimePrefix + "x"})
						}
					case 6:
						if b.chance(10) {
							version[id]++
							nameless[id] = b.chance(2)
							r.Redescribe()
						}
					case 7:
						nameless[id] = b.chance(2) // of the next that has this ID
					}
					r.check()
					// Bounded memory.
					if len(r.queue) > 1100 || len(r.spare) > spares || len(r.byID) > 14 || len(r.bySlot) > 200 || len(r.ahead) > 400 {
						t.Fatalf("%d ticks wait, %d spare, %d ahead, %d workloads, %d slots", len(r.queue), len(r.spare), len(r.ahead), len(r.byID), len(r.bySlot))
					}
				}
				r.Flush()
				r.check()
				c := r.Accounts()
				// What is posted is what was measured, but for negative energy at the end that has not been made up for.
				if len(c.held) > 0 {
					t.Errorf("kept back at the end: %v", c.held)
				}
				owed := c.Posted - acct.sum.Energy
				if name == "fair" && owed != -c.debt-r.est.debt {
					t.Errorf("posted %d, measured %d, debts %d and %d", c.Posted, acct.sum.Energy, c.debt, r.est.debt)
				}
				if owed < 0 || owed > 2*energy.Joule {
					t.Errorf("posted %v, measured %v", c.Posted, acct.sum.Energy)
				}
				if r.est != nil {
					n := 0
					for _, used := range r.est.used {
						if used {
							n++
						}
					}
					if n != len(r.byID) {
						t.Errorf("%d slots for %d workloads", n, len(r.byID))
					}
				}
				given := energy.Energy(0)
				for _, w := range c.workloads {
					given += w.Energy + w.ColdStart
				}
				if given+c.Departed < c.Posted/20 {
					t.Errorf("of %v only %v were given to workloads", c.Posted, given+c.Departed)
				}
				for _, f := range c.Functions() {
					if n := f.invocations(); n < 0 || math.IsNaN(n) || !f.Histogram.valid() || f.Energy < 0 {
						t.Errorf("%+v", f)
					}
				}
				if s := c.save(); !s.valid() {
					t.Errorf("saved accounts are not valid: %+v", s)
				}
				for _, w := range c.list() {
					if w.users < 0 || math.IsNaN(w.StdDev) || w.StdDev < 0 {
						t.Errorf("%+v", w)
					}
				}
			})
		}
	}
}

// Shares of the base by each policy sum to the base of the ticks in which anyone was there to be charged.
func TestBaseShares(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.Energy(0, 0, 0)
	for at := time.Second; at <= 10*time.Second; at += time.Second {
		r.power(2, at-time.Second, at, 500*ms)
		us := []workload.Usage{usage("b", at, 0)}
		if at < 6*time.Second {
			us = append(us, usage("a", at, at/2))
		} else {
			us = append(us, usage("a", at, 5*time.Second/2))
		}
		r.sample(at, us...)
	}
	r.Flush()
	r.check()
	sum := [len(attribution.Policies)]energy.Energy{}
	for _, f := range r.Accounts().Functions() {
		for p := range sum {
			sum[p] += f.Charge.Shares[p]
		}
	}
	// While a runs it gets all, and nothing is the base's; afterwards nobody is there.
	if sum != [len(attribution.Policies)]energy.Energy{} {
		t.Errorf("%v", sum)
	}
}

// The histogram's buckets are (2^((i-1)/8), 2^(i/8)].
func TestHistogram(t *testing.T) {
	var h Histogram
	h.Add(1, 2)
	h.Add(2, 1)
	h.Add(2.0001, 1)
	h.Add(0.5, 3)
	h.Add(0, 4)
	h.Add(7, 0)
	if h.Count != 11 || h.Zero != 4 || math.Abs(h.Sum-(2+2+2.0001+1.5)) > 1e-12 {
		t.Errorf("%+v", h)
	}
	for i, want := range map[int]int64{0: 2, 8: 1, 9: 1, -8: 3} {
		if h.Buckets[i] != want {
			t.Errorf("bucket %d: %d, want %d", i, h.Buckets[i], want)
		}
	}
	if len(h.Buckets) != 4 || !h.valid() {
		t.Errorf("%+v", h)
	}
	c := h.clone()
	h.Add(1, 1)
	if c.Buckets[0] != 2 || c.Count != 11 {
		t.Error("a clone changed")
	}
}

// Several workloads of one name, one after the other, have one account; so has its uncertainty.
func TestDeviationOfAnAccount(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.sample(time.Second, usage("a", time.Second, 0))
	report := func(total float64) {
		s := r.byID["a"].slot
		r.enter(&attribution.Tick{Report: &attribution.Report{Workloads: []attribution.Deviation{{Slot: s, Total: total}}}})
	}
	report(1)
	report(3)
	if got := r.account("pod-a").StdDev; got != 3 {
		t.Errorf("%v", got)
	}
	r.Sample(&workload.Sample{At: 2 * time.Second, Ended: []workload.ID{"a"}})
	r.sample(3*time.Second, usage("a", 3*time.Second, 0))
	report(4)
	if got := r.account("pod-a").StdDev; got != 5 {
		t.Errorf("%v, want 5", got)
	}
}

// What was entered since the estimator last said how sure it is has a deviation too, in proportion; before its first word, half.
func TestDeviationBetweenReports(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	r.sample(time.Second, usage("a", time.Second, 0))
	w := r.byID["a"]
	enter := func(joules energy.Energy, report *attribution.Report) {
		r.enter(&attribution.Tick{Shares: []attribution.Share{{Slot: w.slot, Energy: joules * energy.Joule}}, Report: report})
	}
	deviations := func(want float64) {
		t.Helper()
		s := r.Attributor.snapshot()
		for _, w := range s.Workloads {
			if w.Name == "pod-a" && w.StdDev != want {
				t.Errorf("the workload's %v, want %v", w.StdDev, want)
			}
		}
		if f := s.Functions[0]; f.StdDev != want {
			t.Errorf("the function's %v, want %v", f.StdDev, want)
		}
	}
	deviations(0)
	enter(4, nil)
	deviations(2)
	report := func(joules, total float64) *attribution.Report {
		return &attribution.Report{
			Workloads: []attribution.Deviation{{Slot: w.slot, Total: total}},
			Functions: []attribution.FunctionDeviation{{Namespace: "fn", Function: "a", Energy: joules, Total: total}},
		}
	}
	enter(6, report(10, 1))
	deviations(1)
	enter(20, nil)
	deviations(3)
	enter(10, report(40, 2))
	deviations(2)
}

// Accounts that hold more than was measured, by a debt that was lost, wait until it is made up for.
func TestBeginAboveTheTotal(t *testing.T) {
	c := NewAccounts()
	c.give(100, 0)
	c.begin(80)
	if c.Posted != 100 || c.debt != -20 {
		t.Errorf("%+v", c)
	}
	c.begin(1000) // only the first counts
	c.give(15, 0)
	c.give(10, 0)
	if c.Posted != 105 || c.Base != 105 || c.debt != 0 {
		t.Errorf("%+v", c)
	}
}

// Halves of invocations, of those in flight at the ends of long cycles, come to whole ones in the histogram.
func TestHistogramOfHalves(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	f := r.Accounts().function("fn", "f")
	for _, in := range []requests{{1, 1}, {2, 0}, {1, 1}, {2, 0}} { // each closes a cycle of 1 + 1/2 or 2 - 1/2
		f.pending, f.tick = in, 3*energy.Joule
		r.charge(3*time.Minute, 0)
	}
	if f.Histogram.Count != 6 || f.Invocations.Count() != 6 || f.Histogram.Buckets[8] != 6 {
		t.Errorf("%+v", f.Histogram)
	}
}

// An estimator may give out several ticks as one: its requests are all theirs, in flight are those at its end.
func TestSeveralTicksAsOne(t *testing.T) {
	r := newRig(t, AttributorConfig{Tick: time.Second}, nil)
	w := r.track("a")
	for i, u := range []use{{t: w, inFlightAt: 1, completed: 2}, {t: w, completed: 1}, {t: w, inFlightAt: 5}} {
		r.ahead = append(r.ahead, &tick{end: time.Duration(i+1) * time.Second, uses: []use{u}})
	}
	r.enter(&attribution.Tick{Start: -time.Minute, End: 2 * time.Second, Energy: 6, Shares: []attribution.Share{{Slot: w.slot, Energy: 6}}})
	r.check()
	if f := w.serves; f.Invocations.Count() != 3 || f.Histogram.Count != 3 || len(r.ahead) != 1 {
		t.Errorf("%+v, %d ahead", f, len(r.ahead))
	}
}
