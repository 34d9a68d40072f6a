package validation

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
)

// Library has the shapes of jobs to compose a load from.
type Library struct {
	Name string
	// Step is the time between two values of a profile.
	Step    time.Duration
	Idle    float64 // W
	Classes []string
	Cores   [attribution.MaxClasses]int
	// Weight is the prior of what a CPU-second costs per class; zero counts as one.
	Weight    [attribution.MaxClasses]float64
	Functions []Shapes
	// DaemonClass is where the background daemon runs.
	DaemonClass int
	// Lag is the lag that was taken out of the recording.
	Lag time.Duration
}

// Shapes are what runs of one function looked like.
type Shapes struct {
	Function string
	Profiles []Profile
	// Rate is how often it is called, 1/s. Zero lets the composition decide.
	Rate float64
}

// Profile is one run of one function above what the board used anyway.
type Profile struct {
	Energy []float64                         // J per step
	CPU    [][attribution.MaxClasses]float64 // s per step
	// Length is how long the request was in flight.
	Length time.Duration
}

// Cut says which part of a recording a library takes.
type Cut struct {
	Step time.Duration // zero is 100 ms
	// Class is the class of each core; nil puts all into one. Cores with a negative class are left out.
	Class   []int
	Classes []string
	Rails   []string // none: all
}

// Library cuts a recording into profiles of its warm jobs, each from its start to 0.1 s after its end. The power is moved back by
// the recording's own lag; what is taken off is the idle power, which is the lower quartile of that between jobs, and the
// CPU time at the mean rate between jobs.
func (r *Recording) Library(c Cut) (*Library, error) {
	if c.Step == 0 {
		c.Step = 100 * time.Millisecond
	}
	if c.Class == nil {
		c.Class, c.Classes = make([]int, len(r.Busy)), []string{""}
	}
	l := &Library{Name: r.Name, Step: c.Step, Classes: c.Classes}
	if len(c.Class) != len(r.Busy) || len(c.Classes) == 0 || len(c.Classes) > attribution.MaxClasses || slices.Max(c.Class) >= len(c.Classes) {
		return nil, fmt.Errorf("cut %s: %d cores in classes %v of %q", r.Name, len(r.Busy), c.Class, c.Classes)
	}
	lag, _ := r.Lag()
	l.Lag = seconds(lag)
	late := make([]float64, len(r.Times))
	for k, t := range r.Times {
		late[k] = t - lag
	}
	watts, joules := r.power(c.Rails...)
	quiet := r.quiet()
	var gaps []float64
	for k, q := range quiet {
		if q {
			gaps = append(gaps, watts[k])
		}
	}
	if len(gaps) == 0 {
		return nil, fmt.Errorf("cut %s: no sample between jobs", r.Name)
	}
	slices.Sort(gaps)
	l.Idle = gaps[len(gaps)/4]
	cpu, rate := make([][]float64, len(c.Classes)), make([]float64, len(c.Classes))
	for q := range cpu {
		cpu[q] = r.busy(func(core int) bool { return c.Class[core] == q })
		var used, time float64
		for k := 1; k < len(quiet); k++ {
			if quiet[k] && quiet[k-1] {
				used, time = used+cpu[q][k]-cpu[q][k-1], time+r.Times[k]-r.Times[k-1]
			}
		}
		rate[q] = used / max(time, 1e-9)
		for _, class := range c.Class {
			if class == q {
				l.Cores[q]++
			}
		}
	}
	step := c.Step.Seconds()
	index := map[string]int{}
	for _, j := range r.Jobs {
		if j.Iteration == 0 {
			continue
		}
		i, ok := index[j.Function]
		if !ok {
			i = len(l.Functions)
			index[j.Function] = i
			l.Functions = append(l.Functions, Shapes{Function: j.Function})
		}
		n := max(1, int(math.RoundToEven((j.End+0.1-j.Start)/step)))
		p := Profile{Length: time.Duration(n) * c.Step}
		for k := range n {
			x, y := j.Start+float64(k)*step, j.Start+float64(k+1)*step
			p.Energy = append(p.Energy, interpolate(y, late, joules)-interpolate(x, late, joules)-l.Idle*step)
			var used [attribution.MaxClasses]float64
			for q := range cpu {
				used[q] = max(0, interpolate(y, r.Times, cpu[q])-interpolate(x, r.Times, cpu[q])-rate[q]*step)
			}
			p.CPU = append(p.CPU, used)
		}
		l.Functions[i].Profiles = append(l.Functions[i].Profiles, p)
	}
	if len(l.Functions) == 0 {
		return nil, fmt.Errorf("cut %s: no warm job", r.Name)
	}
	slices.SortFunc(l.Functions, func(a, b Shapes) int { return strings.Compare(a.Function, b.Function) })
	return l, nil
}

// quiet says of each sample whether it is between two jobs, well away from both.
func (r *Recording) quiet() []bool {
	out := make([]bool, len(r.Times))
	first, last := math.Inf(1), math.Inf(-1)
	for _, j := range r.Jobs {
		first, last = min(first, j.Start), max(last, j.End)
	}
	for k, t := range r.Times {
		out[k] = t > first && t < last
		for _, j := range r.Jobs {
			if t >= j.Start-0.1 && t <= j.End+0.6 {
				out[k] = false
				break
			}
		}
	}
	return out
}

// Variants returns a library with n functions for each of l's, which differ in energy by factors from 0.6 to 1.6.
func (l *Library) Variants(n int, seed uint64) *Library {
	out := *l
	out.Functions = nil
	r := rand.New(rand.NewPCG(seed, streamVariants))
	for _, f := range l.Functions {
		for i := range n {
			factor := math.Exp(r.Float64() - 0.5)
			v := Shapes{Function: fmt.Sprintf("%s-%d", f.Function, i+1), Rate: f.Rate}
			for _, p := range f.Profiles {
				joules := slices.Clone(p.Energy)
				for k := range joules {
					joules[k] *= factor
				}
				v.Profiles = append(v.Profiles, Profile{joules, p.CPU, p.Length})
			}
			out.Functions = append(out.Functions, v)
		}
	}
	return &out
}

// Subset returns a library with the named functions, in their order; missing ones are replaced by others. Without names it has
// the first three.
func (l *Library) Subset(names ...string) *Library {
	out := *l
	out.Functions = nil
	taken := map[string]bool{}
	pick := func(ok func(f Shapes) bool) bool {
		for _, f := range l.Functions {
			if !taken[f.Function] && ok(f) {
				taken[f.Function] = true
				out.Functions = append(out.Functions, f)
				return true
			}
		}
		return false
	}
	if len(names) == 0 {
		names = make([]string, min(3, len(l.Functions)))
	}
	for _, name := range names {
		if !pick(func(f Shapes) bool { return f.Function == name }) {
			pick(func(f Shapes) bool { return !slices.Contains(names, f.Function) })
		}
	}
	return &out
}

// Mixed returns a library whose functions run on different classes of cores: every second one as in little, the others as in
// big, which must have the same functions. Class 0 is big's. Unless known, all CPU time is in one class.
func Mixed(little, big *Library, known bool) (*Library, error) {
	if len(little.Functions) != len(big.Functions) || little.Step != big.Step {
		return nil, fmt.Errorf("mix %s and %s: they have different functions", little.Name, big.Name)
	}
	out := *little
	out.Name, out.Functions, out.Classes = "mixed classes", nil, []string{""}
	total := 0
	for q := range out.Cores {
		total += little.Cores[q] // all of the board's
	}
	out.Cores = [attribution.MaxClasses]int{total}
	if known {
		out.Name, out.Classes, out.DaemonClass = "mixed classes, known", []string{"big", "little"}, 1
		out.Weight = [attribution.MaxClasses]float64{1, 0.25, 1, 1}
		out.Cores = [attribution.MaxClasses]int{total / 2, total - total/2}
	}
	for i := range little.Functions {
		from, class := big, 0
		if i%2 == 1 {
			from, class = little, out.DaemonClass
		}
		f := Shapes{Function: little.Functions[i].Function, Rate: little.Functions[i].Rate}
		if f.Function != from.Functions[i].Function {
			return nil, fmt.Errorf("mix %s and %s: they have different functions", little.Name, big.Name)
		}
		for _, p := range from.Functions[i].Profiles {
			q := Profile{Energy: p.Energy, Length: p.Length}
			for _, used := range p.CPU {
				var cpu [attribution.MaxClasses]float64
				for _, s := range used {
					cpu[class] += s
				}
				q.CPU = append(q.CPU, cpu)
			}
			f.Profiles = append(f.Profiles, q)
		}
		out.Functions = append(out.Functions, f)
	}
	return &out, nil
}

// Synthetic returns a library of made-up functions that need no recorded data: 4 cores, 1.5 W idle, functions of 0.3 to 1.4 W per
// core-second. Like real ones each keeps the shape of its power inside a job, differs by 8 % from job to job, and draws power
// for a while after its CPU time.
func Synthetic(functions int, seed uint64) *Library {
	r := rand.New(rand.NewPCG(seed, streamShapes))
	l := &Library{Name: "synthetic", Step: 100 * time.Millisecond, Idle: 1.5, Classes: []string{""}, Cores: [attribution.MaxClasses]int{4}}
	step := l.Step.Seconds()
	for i := range functions {
		f := Shapes{Function: fmt.Sprintf("f%02d", i+1)}
		// Spread evenly with some noise, so that few functions differ too.
		perCore := 0.3 + 1.1*math.Mod(float64(i)*0.618+0.1*r.Float64(), 1)
		cores, tilt, wave := 0.4+1.4*r.Float64(), 0.4*(r.Float64()-0.5), 1+3*r.Float64()
		length := 1 + 3*r.Float64()
		for range 4 {
			n := max(3, int(length*(0.9+0.2*r.Float64())/step))
			p := Profile{Length: time.Duration(n) * l.Step, Energy: make([]float64, n), CPU: make([][attribution.MaxClasses]float64, n)}
			level := perCore * math.Exp(0.08*r.NormFloat64())
			for k := range n - 2 {
				x := float64(k) / float64(n)
				used := max(0, cores*(0.8+0.3*math.Sin(2*math.Pi*wave*x)+0.15*r.NormFloat64())) * step
				p.CPU[k][0] = used
				joules := level * used * (1 + tilt*(2*x-1) + 0.15*math.Cos(2*math.Pi*wave*x))
				p.Energy[k], p.Energy[k+1], p.Energy[k+2] = p.Energy[k]+0.5*joules, p.Energy[k+1]+0.3*joules, p.Energy[k+2]+0.2*joules
			}
			f.Profiles = append(f.Profiles, p)
		}
		l.Functions = append(l.Functions, f)
	}
	return l
}

// Forked returns a library of two functions that use the same CPU time and energy in the long run: one in requests of 300 ms, one
// in children that live for 20 ms, so that whoever looks at processes once in a while misses nearly all of them.
func Forked() *Library {
	l := &Library{Name: "forked children", Step: 100 * time.Millisecond, Idle: 1.5, Classes: []string{""}, Cores: [attribution.MaxClasses]int{4}}
	const watts = 1.0
	profile := func(length time.Duration, factor float64) Profile {
		p := Profile{Length: length}
		for left := length; left > 0; left -= l.Step {
			s := min(left, l.Step).Seconds()
			p.CPU = append(p.CPU, [attribution.MaxClasses]float64{s})
			p.Energy = append(p.Energy, watts*factor*s)
		}
		return p
	}
	short := Shapes{Function: "forked-20ms", Rate: 9}
	long := Shapes{Function: "steady-300ms", Rate: 0.6}
	for _, factor := range []float64{0.92, 1, 1.08} {
		short.Profiles = append(short.Profiles, profile(20*time.Millisecond, factor))
		long.Profiles = append(long.Profiles, profile(300*time.Millisecond, factor))
	}
	l.Functions = []Shapes{short, long}
	return l
}
