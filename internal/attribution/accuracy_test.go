package attribution

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// job is a kind of load in a world whose truth is known.
type job struct {
	name  string
	kind  workload.Kind
	theta float64 // W per core
	rate  float64 // starts a second; 0 for an always-on 0.1 core
	class int
	pods  int // 0 for one
	with  int // starts whenever the job of this index, less 1, does; 0 for none
	from  int // seconds of its life; to is 0 for all
	to    int
	// unclassed is true where the kernel does not tell the class.
	unclassed bool
}

// world is a board: 100 ms ticks, Poisson arrivals of runs of 0.5 to 3 s whose power has a shape that every run repeats, and white
// fluctuation.
type world struct {
	seed    uint64
	board   Board
	base    func(second int) float64 // W; nil for 2
	scale   func(second int) float64 // of all θ; nil for 1
	jobs    []job
	minutes int
	lag     float64 // s, of the energy behind the CPU time, within ±0.1
	flat    bool    // runs have no shape: power that falls in each looks like energy that comes early
	during  func(c *CHK, second int)
}

// outcome is what became of a world.
type outcome struct {
	c           *CHK
	given, true []float64 // J after five minutes, by job
	report      map[string]FunctionDeviation
	inside, all float64 // function periods after five minutes whose truth was within 1.96 standard deviations
	width       []float64
	trace       []Model // by second
	changes     uint64
}

func (w world) run(t *testing.T) *outcome {
	t.Helper()
	const tick = 0.1
	r := rand.New(rand.NewPCG(w.seed, 11))
	n := w.minutes * 600
	cpu, joules := make([][]float64, len(w.jobs)), make([][]float64, len(w.jobs))
	pod := make([][]int, len(w.jobs))
	for i := range w.jobs {
		cpu[i], joules[i], pod[i] = make([]float64, n+40), make([]float64, n+40), make([]int, n+40)
	}
	at := func(f func(int) float64, k int, otherwise float64) float64 {
		if f == nil {
			return otherwise
		}
		return f(k / 10)
	}
	start := func(i, k int) {
		long := 5 + r.IntN(26)
		level := 0.6 + 0.4*r.Float64()
		which := r.IntN(max(1, w.jobs[i].pods))
		for j := range long {
			c := level * tick
			shape := 1.15
			switch {
			case w.flat:
				shape = 1
			case 2*j >= long:
				shape = 0.85
			}
			cpu[i][k+j] += c
			joules[i][k+j] += c * w.jobs[i].theta * shape
			pod[i][k+j] = which
		}
	}
	for k := range n {
		started := make([]bool, len(w.jobs))
		for i, j := range w.jobs {
			switch {
			case k/10 < j.from || j.to > 0 && k/10 >= j.to:
			case j.with > 0:
				if started[j.with-1] {
					start(i, k)
				}
			case j.rate == 0:
				c := 0.1 * tick * (0.5 + r.Float64())
				cpu[i][k] += c
				joules[i][k] += c * j.theta
			case r.Float64() < j.rate*tick:
				started[i] = true
				start(i, k)
			}
		}
	}
	sum := make([]float64, n+1)
	for k := range n {
		for i, j := range w.jobs {
			e := joules[i][k] * at(w.scale, k, 1)
			e = max(0, e+0.3*math.Sqrt(e*tick*tick*j.theta)*r.NormFloat64())
			joules[i][k] = e
			sum[k] += e
		}
		sum[k] += at(w.base, k, 2) * tick
	}

	c := New(w.board)
	slots := make([][]Slot, len(w.jobs))
	enter := func(i int) {
		j := w.jobs[i]
		for range max(1, j.pods) {
			s := c.Enter(workload.Workload{ID: workload.ID(j.name), Kind: j.kind, Name: j.name, Function: j.name})
			slots[i] = append(slots[i], s)
		}
	}
	out := &outcome{c: c, given: make([]float64, len(w.jobs)), true: make([]float64, len(w.jobs)), width: make([]float64, len(w.jobs))}
	given, audit := make([]float64, len(w.jobs)), &auditor{t: t}
	owner := map[Slot]int{}
	emit := func(tk *Tick) {
		audit.emit(tk)
		for _, s := range tk.Shares {
			given[owner[s.Slot]] += (s.Energy + s.ColdStart).Joules()
		}
		rep := tk.Report
		if rep == nil {
			return
		}
		sd := map[string]FunctionDeviation{}
		for _, f := range rep.Functions {
			sd[f.Function] = f
		}
		out.report = sd
		for i, j := range w.jobs {
			truth := 0.0
			for k := int(rep.Start.Seconds()*10 + 0.5); k < int(rep.End.Seconds()*10+0.5); k++ {
				truth += joules[i][k]
			}
			if rep.Start >= 5*time.Minute {
				out.given[i] += given[i]
				out.true[i] += truth
				if f, ok := sd[j.name]; ok && truth > 0.1 {
					out.all++
					if math.Abs(given[i]-truth) <= 1.96*f.Period {
						out.inside++
					}
					out.width[i] += 1.96 * f.Period / truth
				}
			}
			given[i] = 0
		}
	}
	var in Interval
	for k := range n {
		if k%10 == 0 && w.during != nil {
			w.during(c, k/10)
		}
		in.Start, in.End = time.Duration(k)*100*time.Millisecond, time.Duration(k+1)*100*time.Millisecond
		e := sum[k]
		switch {
		case w.lag < 0:
			e += w.lag / tick * (sum[k] - sum[k+1])
		case k > 0:
			e += w.lag / tick * (sum[k-1] - sum[k])
		}
		if k+1 == n {
			e = sum[k]
		}
		in.Energy = energy.Energy(math.Round((e + 0.001*r.NormFloat64()) * 1e6))
		in.Weight, in.Node, in.Uses = [MaxClasses]float64{1, 1, 1, 1}, [MaxClasses]float64{}, in.Uses[:0]
		for i, j := range w.jobs {
			if k == j.from*10 {
				enter(i)
				for _, s := range slots[i] {
					owner[s] = i
				}
			}
			if j.to > 0 && k == (j.to+5)*10 {
				for _, s := range slots[i] {
					c.Leave(s)
				}
			}
			if cpu[i][k] == 0 {
				continue
			}
			in.Node[j.class] += cpu[i][k]
			u := Use{Slot: slots[i][pod[i][k]], InFlight: -1}
			if j.unclassed {
				u.Unclassed = cpu[i][k]
			} else {
				u.CPU[j.class] = cpu[i][k]
			}
			in.Uses = append(in.Uses, u)
		}
		audit.took += in.Energy
		c.Step(&in, emit)
		if k%10 == 9 {
			out.trace = append(out.trace, c.Model())
		}
	}
	c.Flush(emit)
	audit.finish(c)
	checkCovariance(t, c.f)
	out.changes = c.Model().Changes
	return out
}

// errors returns the mean and the largest relative error of the functions.
func (o *outcome) errors(jobs []job) (mean, worst float64) {
	n := 0.0
	for i, j := range jobs {
		if j.kind != workload.Function {
			continue
		}
		e := math.Abs(o.given[i]-o.true[i]) / o.true[i]
		n++
		mean += e
		worst = max(worst, e)
	}
	return mean / n, worst
}

var (
	fourCores = Board{Cores: [MaxClasses]int{4}, Idle: 2, Peak: 6}
	daemon    = job{name: "cron.service", kind: workload.System, theta: 1}
)

func someJobs(n int, rate float64) []job {
	jobs := []job{daemon}
	for i := range n {
		jobs = append(jobs, job{name: fmt.Sprint("f", i), kind: workload.Function, theta: 0.6 + 1.2*float64(i)/float64(max(1, n-1)), rate: rate})
	}
	return jobs
}

// TestAccuracy states the error of each function's energy and how often the truth is inside the 95 % interval of a report.
func TestAccuracy(t *testing.T) {
	split := someJobs(5, 0.06)
	split[2].pods = 2
	big := Board{Cores: [MaxClasses]int{4, 4}, Idle: 2, Peak: 8}
	classes := someJobs(6, 0.06)
	for i := range classes {
		if classes[i].class = i % 2; classes[i].class == 0 {
			classes[i].theta *= 0.3
		}
	}
	unclassed := slices.Clone(classes)
	for i := range unclassed {
		unclassed[i].unclassed = i > 4
	}
	wrong := fourCores
	wrong.Idle *= 1.2
	for _, tt := range []struct {
		name        string
		w           world
		mean, worst float64
	}{
		{"five functions", world{board: fourCores, jobs: someJobs(5, 0.06)}, 0.03, 0.08},
		{"nothing known of the board", world{jobs: someJobs(5, 0.06)}, 0.03, 0.08},
		{"two pods", world{board: fourCores, jobs: split}, 0.03, 0.08},
		{"two classes", world{board: big, jobs: classes}, 0.05, 0.15},
		{"some unclassed", world{board: big, jobs: unclassed}, 0.05, 0.15},
		{"idle wrong by a fifth", world{board: wrong, jobs: someJobs(5, 0.06)}, 0.03, 0.08},
		{"fifty-five functions", world{board: fourCores, jobs: someJobs(55, 0.012)}, 0.08, 0.35},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inside, all, mean, worst := 0.0, 0.0, 0.0, 0.0
			const seeds = 3
			for seed := range uint64(seeds) {
				tt.w.seed, tt.w.minutes = seed, 20
				o := tt.w.run(t)
				m, most := o.errors(tt.w.jobs)
				mean += m / seeds
				worst = max(worst, most)
				inside, all = inside+o.inside, all+o.all
			}
			t.Logf("mean error %.1f %%, worst function %.1f %%, coverage %.3f of %.0f", 100*mean, 100*worst, inside/all, all)
			if mean > tt.mean || worst > tt.worst {
				t.Errorf("mean error %.1f %%, worst function %.1f %%", 100*mean, 100*worst)
			}
			if c := inside / all; c < 0.90 || c > 0.99 {
				t.Errorf("95 %% intervals cover %.3f of %.0f periods", c, all)
			}
		})
	}
}

// TestLag: energy that comes 50 ms before or after the CPU time is seen to, also where nothing at all runs between jobs. The mean
// over seeds, since what runs by chance at each edge moves one estimate by 10 ms.
func TestLag(t *testing.T) {
	t.Parallel()
	const seeds = 6
	for _, jobs := range [][]job{someJobs(5, 0.06), someJobs(3, 0.06)[1:]} {
		for _, lag := range []float64{-0.05, 0, 0.05} {
			sum := 0.0
			for seed := range uint64(seeds) {
				m := world{seed: seed, minutes: 15, board: fourCores, jobs: jobs, lag: lag, flat: true}.run(t).c.Model()
				if sum += m.Lag; !(m.LagStdDev > 0 && m.LagStdDev < 0.01) {
					t.Errorf("lag %v ± %v s", m.Lag, m.LagStdDev)
				}
			}
			if mean := sum / seeds; math.Abs(mean-lag) > 0.012 {
				t.Errorf("%d jobs: mean lag %.4f s, want %v", len(jobs), mean, lag)
			}
		}
	}
}

// TestChange: a governor that nobody announced is found once, within half a minute; a steady board has none.
func TestChange(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		w := world{seed: seed, minutes: 20, board: fourCores, jobs: someJobs(5, 0.06)}
		if o := w.run(t); o.changes != 0 {
			t.Errorf("seed %d: %d changes of a steady board", seed, o.changes)
		}
		w.base = func(s int) float64 {
			if s < 600 {
				return 2
			}
			return 0.6
		}
		w.scale = func(s int) float64 {
			if s < 600 {
				return 1
			}
			return 1.6
		}
		o := w.run(t)
		m := o.trace[len(o.trace)-1]
		if m.Changes != 1 || m.LastChange < 600*time.Second || m.LastChange > 630*time.Second {
			t.Errorf("seed %d: %d changes, the last at %v, want one soon after 10 min", seed, m.Changes, m.LastChange)
		}
		if math.Abs(m.Base-0.6) > 0.1 {
			t.Errorf("seed %d: base %.2f W after the change, want 0.6", seed, m.Base)
		}
	}
}

// TestRegime: a setting that returns is known again at once, and the first is as well if it was named before any interval.
func TestRegime(t *testing.T) {
	low := func(s int) bool { return s/300%2 == 1 }
	w := world{seed: 2, minutes: 21, board: fourCores, jobs: someJobs(5, 0.06),
		base: func(s int) float64 {
			if low(s) {
				return 0.6
			}
			return 2
		},
		during: func(c *CHK, s int) {
			if s%300 == 0 {
				c.Regime(map[bool]string{false: "performance", true: "powersave"}[low(s)])
			}
			if s%7 == 0 {
				c.Regime(map[bool]string{false: "performance", true: "powersave"}[low(s)]) // says nothing new
			}
		}}
	o := w.run(t)
	for _, back := range []int{600, 900, 1200} {
		want := w.base(back)
		if m := o.trace[back+1]; math.Abs(m.Base-want) > 0.1 || m.BaseStdDev > 0.1 {
			t.Errorf("base %.2f ± %.2f W one second after the return at %d s, want %.1f", m.Base, m.BaseStdDev, back, want)
		}
	}
	if o.changes != 0 {
		t.Errorf("%d changes found, all were announced", o.changes)
	}
}

// TestReturn: a function that comes back is known by its coefficient.
func TestReturn(t *testing.T) {
	jobs := someJobs(4, 0.06)
	jobs[4].to = 600
	again := jobs[4] // at 1.8 W per core the farthest from the mean
	again.from, again.to = 1000, 0
	w := world{seed: 3, minutes: 17, board: fourCores, jobs: append(jobs, again)}
	var before, after float64
	w.during = func(c *CHK, s int) {
		i, ok := c.byFunction[function{"", jobs[4].name}]
		switch {
		case ok && s == 599:
			before = c.f.kappa() + c.deviation(c.principals[i])
		case ok && s == 1001:
			after = c.f.kappa() + c.deviation(c.principals[i])
		}
	}
	w.run(t)
	if math.Abs(before-1.8) > 0.15 || math.Abs(after-before) > 0.1 {
		t.Errorf("%.2f W per core before it left, %.2f on return, 1.80 in truth", before, after)
	}
}

// TestDaemonsGiveWay: small always-on workloads, however many and early, do not keep functions from full covariance.
func TestDaemonsGiveWay(t *testing.T) {
	t.Parallel()
	var jobs []job
	for i := range 40 {
		jobs = append(jobs, job{name: fmt.Sprintf("d%d.service", i), kind: workload.System, theta: 1})
	}
	for _, f := range someJobs(5, 0.06)[1:] {
		f.from = 30
		jobs = append(jobs, f)
	}
	board := fourCores
	board.Cores[0] = 16
	o := world{seed: 4, minutes: 20, board: board, jobs: jobs}.run(t)
	for _, p := range o.c.principals {
		if p.name != "" && p.place < 0 {
			t.Errorf("%s has no place", p.name)
		}
	}
	if mean, worst := o.errors(jobs); mean > 0.05 || worst > 0.12 {
		t.Errorf("mean error %.1f %%, worst function %.1f %%", 100*mean, 100*worst)
	}
}

// TestCoincidence: two functions that always start together are said to be one, and their intervals hold the truth all the same.
func TestCoincidence(t *testing.T) {
	jobs := someJobs(4, 0.05)
	jobs = append(jobs, job{name: "shadow", kind: workload.Function, theta: 0.5, with: 5})
	alone := world{seed: 5, minutes: 20, board: fourCores, jobs: jobs}
	o := alone.run(t)
	free := o.report["f1"]
	if free.Collinear {
		t.Error("f1 is independent, but flagged")
	}
	for _, i := range []int{4, 5} {
		f := o.report[jobs[i].name]
		if !f.Collinear {
			t.Errorf("%s is not flagged", jobs[i].name)
		}
		if o.width[i] < 1.5*o.width[2] {
			t.Errorf("%s: intervals are not wider than those of f1: %.1f and %.1f", jobs[i].name, o.width[i], o.width[2])
		}
	}
	if c := o.inside / o.all; c < 0.9 {
		t.Errorf("95 %% intervals cover %.3f", c)
	}
}

// TestGlitch: a meter's one senseless value, in the first interval or later, does no harm that lasts.
func TestGlitch(t *testing.T) {
	for _, when := range []int{0, 500} {
		c, a := New(Board{}), &auditor{t: t}
		s := c.Enter(workload.Workload{ID: "f", Kind: workload.Function, Function: "f"})
		r := rand.New(rand.NewPCG(8, 8))
		for k := range 6000 {
			in := Interval{Start: time.Duration(k) * 100 * time.Millisecond, End: time.Duration(k+1) * 100 * time.Millisecond,
				Energy: 200_000, Weight: [MaxClasses]float64{1, 1, 1, 1}}
			if k/20%3 == 0 {
				in.Uses = []Use{{Slot: s, CPU: [MaxClasses]float64{0.1}, InFlight: -1}}
				in.Energy += 150_000
			}
			in.Energy += energy.Energy(2000 * r.NormFloat64())
			if k == when {
				in.Energy = 1e12
			}
			a.took += in.Energy
			c.Step(&in, a.emit)
		}
		a.finish(c)
		if m := c.Model(); math.Abs(m.Base-2) > 0.15 {
			t.Errorf("glitch in interval %d: base %v W after ten minutes, want 2", when, m.Base)
		}
	}
}
