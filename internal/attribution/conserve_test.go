package attribution

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// auditor checks every tick by itself and all of them together.
type auditor struct {
	t           testing.TB
	end         time.Duration
	given, took energy.Energy
	ticks       int
	reports     int
	left        []Slot
	log         *bytes.Buffer // of all that was emitted, or nil
}

func (a *auditor) emit(t *Tick) {
	sum, last := t.Base, Slot(-1)
	for _, s := range t.Shares {
		if s.Energy < 0 || s.ColdStart < 0 || s.Slot <= last {
			a.t.Fatalf("tick at %v: share %+v after slot %d", t.End, s, last)
		}
		last = s.Slot
		sum += s.Energy + s.ColdStart
	}
	if sum != t.Energy || t.Base < 0 || t.Energy < 0 {
		a.t.Fatalf("tick at %v: energy %d, base %d, sum of all %d", t.End, t.Energy, t.Base, sum)
	}
	if t.Start < a.end || t.End < t.Start {
		a.t.Fatalf("tick %v to %v after one that ended at %v", t.Start, t.End, a.end)
	}
	a.end = t.End
	a.given += t.Energy
	a.ticks++
	a.left = append(a.left, t.Left...)
	if r := t.Report; r != nil {
		a.reports++
		for _, w := range r.Workloads {
			if !(w.Period >= 0 && w.Total >= 0) {
				a.t.Fatalf("report at %v: %+v", t.End, w)
			}
		}
		for _, f := range r.Functions {
			if !(f.Period >= 0 && f.Total >= 0 && f.StdDev >= 0 && f.Energy >= 0) {
				a.t.Fatalf("report at %v: %+v", t.End, f)
			}
		}
	}
	if a.log != nil {
		fmt.Fprintf(a.log, "%v %v %d %d %v %v\n", t.Start, t.End, t.Energy, t.Base, t.Shares, t.Left)
		if t.Report != nil {
			fmt.Fprintf(a.log, "%+v\n", *t.Report)
		}
	}
}

func (a *auditor) finish(c *CHK) {
	c.Flush(a.emit)
	if a.given+c.debt != a.took {
		a.t.Fatalf("%d µJ were measured, %d split and %d kept as debt", a.took, a.given, c.debt)
	}
	if m := c.Model(); math.IsNaN(m.Base+m.WattsPerCore+m.Lag+m.BaseStdDev+m.WattsPerCoreStdDev+m.LagStdDev) || m.Base < 0 {
		a.t.Fatalf("model %+v", m)
	}
}

// chaos makes intervals such as no node should, but some may.
type chaos struct {
	*rand.Rand
	now     time.Duration
	slots   []Slot
	entered int
	// functions is the number of different ones.
	functions int
	in        Interval
}

func (r *chaos) workload() workload.Workload {
	r.entered++
	w := workload.Workload{ID: workload.ID(fmt.Sprint("w", r.entered)), Kind: workload.Kind(r.IntN(4)), Namespace: "n"}
	switch w.Kind {
	case workload.Function:
		w.Function = fmt.Sprint("f", r.IntN(r.functions))
	case workload.System:
		w.Name = []string{"containerd.service", "cron.service"}[r.IntN(2)]
	}
	return w
}

func (r *chaos) odd() float64 {
	return []float64{math.NaN(), math.Inf(1), math.Inf(-1), -0.01, 1e300, 1e5, 0, 5e-324}[r.IntN(8)]
}

func (r *chaos) next() *Interval {
	in := &r.in
	length := time.Duration(50+r.IntN(951)) * time.Millisecond
	switch r.IntN(200) {
	case 0:
		r.now += time.Duration(r.IntN(100)) * time.Second
	case 1:
		length = time.Duration(r.IntN(15)) * time.Second // also none
	}
	in.Start, in.End = r.now, r.now+length
	r.now = in.End
	in.Energy = energy.Energy(r.ExpFloat64() * 3e6 * length.Seconds())
	switch r.IntN(100) {
	case 0:
		in.Energy = 0
	case 1, 2, 3:
		in.Energy = -in.Energy
	case 4:
		in.Energy = energy.Energy(r.Int64N(1 << r.IntN(45))) // up to 35 MJ
	}
	in.Uses = in.Uses[:0]
	for q := range in.Node {
		in.Weight[q], in.Node[q] = 0.2+r.Float64(), r.Float64()
	}
	for _, s := range r.slots {
		if r.IntN(3) > 0 {
			continue
		}
		u := Use{Slot: s, InFlight: float64(r.IntN(4) - 1), Cold: r.IntN(20) == 0}
		if r.IntN(4) > 0 {
			u.CPU[r.IntN(2)] = r.Float64() * length.Seconds()
		}
		if r.IntN(4) == 0 {
			u.Unclassed = r.Float64() * length.Seconds()
		}
		in.Uses = append(in.Uses, u)
	}
	if len(in.Uses) > 0 && r.IntN(100) == 0 {
		u := &in.Uses[r.IntN(len(in.Uses))]
		*[]*float64{&u.CPU[0], &u.CPU[1], &u.CPU[3], &u.Unclassed, &u.InFlight, &in.Node[0], &in.Weight[0]}[r.IntN(7)] = r.odd()
	}
	slices.SortFunc(in.Uses, func(a, b Use) int { return int(a.Slot - b.Slot) })
	return in
}

// drive feeds an estimator with n chaotic intervals.
func drive(c *CHK, r *chaos, a *auditor, n, most int) {
	for range n {
		if len(r.slots) < most && r.IntN(50) == 0 || len(r.slots) == 0 {
			s := c.Enter(r.workload())
			if slices.Contains(r.slots, s) {
				a.t.Fatalf("slot %d was given twice", s)
			}
			r.slots = append(r.slots, s)
		}
		if r.IntN(200) == 0 {
			i := r.IntN(len(r.slots))
			c.Leave(r.slots[i])
			r.slots = slices.Delete(r.slots, i, i+1)
		}
		switch r.IntN(2000) {
		case 0:
			c.Regime(fmt.Sprint(r.IntN(50)))
		case 1:
			c.Flush(a.emit)
		}
		in := r.next()
		a.took += in.Energy
		c.Step(in, a.emit)
	}
}

// TestConservation splits a million random intervals.
func TestConservation(t *testing.T) {
	const runs, each = 50, 20_000
	boards := []Board{{}, {Cores: [MaxClasses]int{4}}, {Cores: [MaxClasses]int{4, 4}, Idle: 2, Peak: 7, Gain: 0.01, Noise: 0.02}}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r, most := &chaos{Rand: rand.New(rand.NewPCG(seed, 7)), functions: 1}, 2
			switch { // a few are large, which takes long with the race detector
			case seed < 2:
				r.functions, most = 20, 50 // beyond the places with full covariance
			case seed < 8:
				r.functions, most = 4, 8
			}
			if seed%2 > 0 {
				r.now = 300 * 24 * time.Hour
			}
			c, a := New(boards[seed%3]), &auditor{t: t}
			drive(c, r, a, each, most)
			a.finish(c)
			if a.ticks < each/4 || a.reports < each/40 || len(a.left) == 0 {
				t.Fatalf("%d ticks, %d reports, %d left", a.ticks, a.reports, len(a.left))
			}
			checkCovariance(t, c.f)
		})
	}
}

// TestDeterminism: the same input gives the same bytes.
func TestDeterminism(t *testing.T) {
	t.Parallel()
	run := func() []byte {
		r := &chaos{Rand: rand.New(rand.NewPCG(1, 2)), functions: 20}
		c, a := New(Board{Cores: [MaxClasses]int{4, 4}}), &auditor{t: t, log: new(bytes.Buffer)}
		drive(c, r, a, 4000, 50)
		a.finish(c)
		fmt.Fprintf(a.log, "%+v", c.Model())
		return a.log.Bytes()
	}
	first := run()
	for range 2 {
		if !bytes.Equal(first, run()) {
			t.Fatal("the same input gave other bytes")
		}
	}
}

// TestSlotsAreNotUsedEarly: a slot is free only when a tick has named it, and that tick is the last with it.
func TestSlotsAreNotUsedEarly(t *testing.T) {
	c := New(Board{Cores: [MaxClasses]int{4}})
	one := c.Enter(workload.Workload{ID: "1", Kind: workload.Function, Function: "f"})
	left := false
	check := func(tick *Tick) {
		for _, s := range tick.Shares {
			if s.Slot == one && left {
				t.Fatalf("share of a slot that has left, at %v", tick.End)
			}
		}
		left = left || slices.Contains(tick.Left, one)
	}
	for k := range 300 {
		in := Interval{Start: time.Duration(k) * 100 * time.Millisecond, Energy: 300_000, Weight: [MaxClasses]float64{1, 1, 1, 1}}
		in.End = in.Start + 100*time.Millisecond
		if k < 50 {
			in.Uses = []Use{{Slot: one, CPU: [MaxClasses]float64{0.1}, InFlight: -1}}
		}
		if k == 50 {
			c.Leave(one)
		}
		c.Step(&in, check)
		if other := c.Enter(workload.Workload{ID: "x", Kind: workload.Pod}); other == one {
			if !left {
				t.Fatal("a slot in use was given away")
			}
			return
		} else {
			c.Leave(other)
		}
	}
	t.Fatal("the slot was never free")
}

// TestLeaveWithoutModel: workloads leave also while no interval was fit to learn from.
func TestLeaveWithoutModel(t *testing.T) {
	c, a := New(Board{}), &auditor{t: t}
	c.Leave(c.Enter(workload.Workload{ID: "1"}))
	for k := range 60 {
		in := Interval{Start: time.Duration(k) * time.Second, End: time.Duration(k+1) * time.Second, Energy: 5} // no weights
		a.took += 5
		c.Step(&in, a.emit)
	}
	a.finish(c)
	if len(a.left) != 1 {
		t.Fatalf("%v left, want slot 0", a.left)
	}
}

// TestEdges are intervals at the borders of what is allowed.
func TestEdges(t *testing.T) {
	s, ones := time.Second, [MaxClasses]float64{1, 1, 1, 1}
	for name, tt := range map[string]struct {
		in      []Interval
		ticks   int
		reports int
	}{
		"no length":                {[]Interval{{Start: s, End: s, Energy: 7}}, 1, 1},
		"backwards is refused":     {[]Interval{{Start: s, End: s, Energy: -7}, {Start: s, End: 2 * s, Energy: 9, Weight: ones}}, 1, 1},
		"debt is kept":             {[]Interval{{End: s, Energy: -7, Weight: ones}, {Start: s, End: 2 * s, Energy: 5, Weight: ones}}, 2, 1},
		"longer than a period":     {[]Interval{{End: 60 * s, Energy: 9e6, Weight: ones}}, 1, 1},
		"ends with the period":     {[]Interval{{End: 10 * s, Energy: 9e6, Weight: ones}, {Start: 10 * s, End: 11 * s, Energy: 3, Weight: ones}}, 2, 2},
		"after a gap":              {[]Interval{{End: s, Energy: 9, Weight: ones}, {Start: 50 * s, End: 51 * s, Energy: 3, Weight: ones}, {Start: 51 * s, End: 52 * s, Weight: ones}}, 3, 2},
		"refused and negative":     {[]Interval{{End: s, Energy: -9e6}, {Start: s, End: 2 * s, Energy: 12e6, Weight: ones}}, 2, 1},
		"microjoules of the range": {[]Interval{{End: s, Energy: math.MaxInt64, Weight: ones}}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c, a := New(Board{Cores: [MaxClasses]int{4}}), &auditor{t: t}
			slot := c.Enter(workload.Workload{ID: "1", Kind: workload.Pod})
			for _, in := range tt.in {
				if in.Weight[0] > 0 {
					in.Uses = []Use{{Slot: slot, CPU: [MaxClasses]float64{0.5}, InFlight: -1}}
				}
				a.took += in.Energy
				c.Step(&in, a.emit)
			}
			a.finish(c)
			if a.ticks != tt.ticks || a.reports != tt.reports {
				t.Errorf("%d ticks with %d reports, want %d with %d", a.ticks, a.reports, tt.ticks, tt.reports)
			}
			before := a.ticks
			if c.Flush(a.emit); a.ticks != before {
				t.Error("Flush emits twice")
			}
		})
	}
}

// TestNothingIsAllocated once all workloads have entered, with ticks and reports.
func TestNothingIsAllocated(t *testing.T) {
	for _, n := range []int{8, 50} {
		step := steady(n)
		for range 2000 {
			step()
		}
		if a := testing.AllocsPerRun(1000, step); a != 0 {
			t.Errorf("%d workloads: %v allocations per interval", n, a)
		}
		// An average is rounded down: a whole minute at once.
		if a := testing.AllocsPerRun(3, func() {
			for range 700 {
				step()
			}
		}); a != 0 {
			t.Errorf("%d workloads: %v allocations in 70 s", n, a)
		}
	}
}

// steady returns a function that makes 100 ms of n workloads of which a third runs.
func steady(n int) func() {
	c := New(Board{Cores: [MaxClasses]int{64}, Idle: 2, Peak: 100})
	var slots []Slot
	for i := range n {
		w := workload.Workload{ID: workload.ID(fmt.Sprint(i)), Kind: workload.Function, Function: fmt.Sprint(i)}
		if i%4 == 0 {
			w.Kind, w.Name = workload.System, "containerd.service"
		}
		slots = append(slots, c.Enter(w))
	}
	r, in, total := rand.New(rand.NewPCG(1, 1)), Interval{Weight: [MaxClasses]float64{1, 1, 1, 1}}, energy.Energy(0)
	emit := func(t *Tick) { total += t.Energy }
	return func() {
		in.Start, in.End, in.Energy = in.End, in.End+100*time.Millisecond, 200_000
		in.Uses = in.Uses[:0]
		for i, s := range slots {
			if r.IntN(3) == 0 {
				u := Use{Slot: s, InFlight: -1, Cold: r.IntN(20) == 0}
				u.CPU[0] = 0.1 * r.Float64()
				in.Energy += energy.Energy(u.CPU[0] * (1 + 0.01*float64(i)) * 1e6)
				in.Uses = append(in.Uses, u)
			}
		}
		c.Step(&in, emit)
	}
}

func BenchmarkStep(b *testing.B) {
	for _, n := range []int{10, 50, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			step := steady(n)
			for range 1000 {
				step()
			}
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

// FuzzStep drives an estimator by bytes.
func FuzzStep(f *testing.F) {
	f.Add([]byte("a workload enters\x00\x01\x02\x03, runs \xff\xfe and leaves"))
	f.Add(bytes.Repeat([]byte{5, 0, 1, 200, 9, 6, 90, 3, 3, 255, 7, 8}, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() byte {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return b
		}
		value := func() float64 {
			switch b := next(); {
			case b < 200:
				return float64(b) / 200
			case b < 250:
				return float64(b-200) * 1e4
			default:
				return [...]float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300, 5e-324}[b-250]
			}
		}
		c, a := New(Board{Cores: [MaxClasses]int{int(next() % 3), int(next() % 3)}}), &auditor{t: t}
		var slots []Slot
		now := time.Duration(next()) * 24 * time.Hour
		a.end = now
		for len(data) > 0 && len(slots) < 60 {
			switch op := next(); op % 10 {
			case 0:
				k := workload.Kind(op / 10 % 4)
				slots = append(slots, c.Enter(workload.Workload{ID: "w", Kind: k, Name: "docker", Function: string(rune('a' + next()%8))}))
			case 1:
				if len(slots) > 0 {
					i := int(next()) % len(slots)
					c.Leave(slots[i])
					slots = slices.Delete(slots, i, i+1)
				}
			case 2:
				c.Regime(string(rune('a' + next()%4)))
			case 3:
				c.Flush(a.emit)
			default:
				if op > 240 {
					now += time.Duration(next()) * time.Second
				}
				in := Interval{Start: now, End: now + time.Duration(next())*20*time.Millisecond}
				now = in.End
				in.Energy = energy.Energy(int8(next())) << (next() % 40)
				for q := range in.Weight {
					in.Weight[q], in.Node[q] = 1, 1
				}
				if op > 230 {
					in.Weight[op%2], in.Node[op%2] = value(), value()
				}
				for _, s := range slots {
					if b := next(); b%2 == 0 {
						u := Use{Slot: s, InFlight: value(), Unclassed: value(), Cold: b > 200}
						u.CPU[b/2%3] = value()
						in.Uses = append(in.Uses, u)
					}
				}
				slices.SortFunc(in.Uses, func(a, b Use) int { return int(a.Slot - b.Slot) })
				a.took += in.Energy
				c.Step(&in, a.emit)
			}
		}
		a.finish(c)
		for range 3 { // what comes in order is still learnt from
			in := Interval{Start: now, End: now + time.Second, Energy: 2e6, Weight: [MaxClasses]float64{1, 1, 1, 1}}
			now = in.End
			a.took += in.Energy
			c.Step(&in, a.emit)
		}
		a.finish(c)
	})
}
