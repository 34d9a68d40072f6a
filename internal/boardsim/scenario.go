package boardsim

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Arrival is how requests come: open loop, so that a slow board gets no fewer.
type Arrival struct {
	// Rate is requests per second as a Poisson process; zero means that only Invoke and With start any.
	Rate float64
	// On and Off are the mean lengths of bursts, exponentially distributed, in which Rate holds, and of the silence between.
	// Off zero is no bursts.
	On, Off time.Duration
}

// ColdStart is what a pod does before it is ready. The zero value takes the defaults in brackets.
type ColdStart struct {
	// CPU is the function's own work, as in Function.A and B; half of Wait lies within it, as reads of image and libraries.
	// (0.1 s + 0.6 GHz·s, 500 ms)
	A, B float64
	Wait time.Duration
	// Runtime is the work of kubelet and container runtime together, in GHz·s. (0.12)
	Runtime float64
}

// Function is a serverless function and the load on it.
type Function struct {
	Name string
	// Namespace is openfaas-fn if empty.
	Namespace string
	Arrival   Arrival
	// With names a function: each of its requests starts one of this function too.
	With string
	// A job takes A + B/(f·Speed) seconds of CPU time with f in GHz: A waits for memory and does not scale with the clock.
	A, B float64
	// Spread is the coefficient of variation of the job's size (log-normal).
	Spread float64
	// Intensity scales the dynamic power of a core; 1 if zero.
	Intensity float64
	// IntensityCV is the coefficient of variation of intensity from job to job (real ones have 0.08 to 0.10), Shape the depth
	// of its course within a job, which is the same in every job of a function.
	IntensityCV, Shape float64
	// Waits is how often a job sleeps for Wait, as for disk or network.
	Waits int
	Wait  time.Duration
	// Threads share a job's work; 1 if zero.
	Threads int
	// Forks says that all work is done by short-lived children, so that no live process ever shows it.
	Forks bool
	// Class pins the pods to a core class by cpuset; empty lets the scheduler choose.
	Class string
	// Quota limits a pod's CPU, in cores, by CFS bandwidth control with periods of 100 ms; zero is no limit.
	Quota float64
	// Replicas is the number of pods while there is load; 1 if zero. Concurrency is the number of requests a pod serves at a
	// time; more wait. Zero is no limit.
	Replicas, Concurrency int
	// IdleTimeout is the time without requests after which no pod remains; zero keeps them for ever. Cold starts without pods.
	IdleTimeout time.Duration
	Cold        bool
	ColdStart   ColdStart
}

// Daemon is a process that wakes for short work again and again: a service of the system, a pod that serves no function,
// or work of the kernel outside of any control group.
type Daemon struct {
	Name string
	// Pod and Agent make it a pod of that kind, Kernel puts the work into workload.Kernel; otherwise it is NAME.service.
	Pod, Agent, Kernel bool
	// Every is the mean time between wakes; Regular makes it exact, as for cron, otherwise it is exponentially distributed.
	Every   time.Duration
	Regular bool
	// Work is per wake, in GHz·s; PerRequest is per request to any function, as in a gateway.
	Work, PerRequest float64
	// Intensity is as in Function.
	Intensity float64
	Class     string
}

// Change is a setting made on purpose at an instant; it appears as a regime event.
type Change struct {
	At time.Duration
	// Class is the class it is for; empty for all.
	Class string
	// Governor, if not empty, is set first; then limits and speed in kHz where not zero.
	Governor       string
	MinKHz, MaxKHz int64
	UserspaceKHz   int64
	// Offline and Online are CPU numbers.
	Offline, Online []int
}

// Scenario is all that happens on a board.
type Scenario struct {
	Functions []Function
	Daemons   []Daemon
	Changes   []Change
}

// check names the first thing that cannot be run.
func (s *Scenario) check(spec *Spec) error {
	known := map[string]bool{}
	class := func(name string) bool {
		for _, c := range spec.Classes {
			if name == "" || c.Name == name {
				return true
			}
		}
		return false
	}
	for i := range s.Functions {
		f := &s.Functions[i]
		if f.Name == "" || known[f.Name] {
			return fmt.Errorf("function %q: names must be there and differ", f.Name)
		}
		if f.With != "" && !known[f.With] {
			return fmt.Errorf("function %q: starts with %q, which must stand before it", f.Name, f.With)
		}
		if f.A < 0 || f.B < 0 || !(f.A+f.B > 0) || math.IsInf(f.A+f.B, 0) {
			return fmt.Errorf("function %q: its work must be positive", f.Name)
		}
		if f.Arrival.Rate < 0 || f.Quota < 0 || f.Threads < 0 || f.Replicas < 0 || f.Concurrency < 0 || f.Shape < 0 || f.Shape >= 1 {
			return fmt.Errorf("function %q: a number is out of range", f.Name)
		}
		if f.Arrival.Off > 0 && f.Arrival.On <= 0 {
			return fmt.Errorf("function %q: bursts need a length", f.Name)
		}
		if !class(f.Class) {
			return fmt.Errorf("function %q: the board has no class %q", f.Name, f.Class)
		}
		known[f.Name] = true
	}
	for _, d := range s.Daemons {
		if d.Every <= 0 && d.PerRequest <= 0 || d.Work < 0 || !class(d.Class) {
			return fmt.Errorf("daemon %q: needs a period, work and a class of the board", d.Name)
		}
	}
	for _, c := range s.Changes {
		if !class(c.Class) {
			return fmt.Errorf("change at %v: the board has no class %q", c.At, c.Class)
		}
		if c.Governor != "" && !slices.Contains(Governors(), c.Governor) {
			return fmt.Errorf("change at %v: there is no governor %q", c.At, c.Governor)
		}
	}
	return nil
}

// System returns the daemons of an ordinary node.
func System() []Daemon {
	ms := time.Millisecond
	return []Daemon{
		{Name: "k3s", Every: 110 * ms, Work: 0.004},
		{Name: "containerd", Every: 250 * ms, Work: 0.002},
		{Name: "sshd", Every: 20 * time.Second, Work: 0.004},
		{Name: "systemd-journald", Every: 700 * ms, Work: 0.0015},
		{Name: "cron", Every: time.Minute, Regular: true, Work: 0.15},
		{Name: "kernel", Kernel: true, Every: 45 * ms, Work: 0.0006},
		{Name: "gateway", Pod: true, Every: 500 * ms, Work: 0.002, PerRequest: 0.0025},
	}
}

// The functions that presets are made of. Work is in GHz·s of a Cortex-A15.
func analyzeSentence() Function {
	return Function{
		Name: "analyze-sentence", Arrival: Arrival{Rate: 0.25}, A: 0.05, B: 0.55, Spread: 0.3, Intensity: 0.9, IntensityCV: 0.09,
		Shape: 0.3,
	}
}

func resizeImage() Function {
	return Function{
		Name: "resize-image", Arrival: Arrival{Rate: 0.6, On: 20 * time.Second, Off: 40 * time.Second}, A: 0.12, B: 0.6, Spread: 0.4,
		Intensity: 1.1, IntensityCV: 0.09, Shape: 0.35, Waits: 3, Wait: 15 * time.Millisecond, Threads: 2,
	}
}

func gzip() Function {
	return Function{
		Name: "gzip", Arrival: Arrival{Rate: 0.07}, A: 0.2, B: 2.8, Spread: 0.2, Intensity: 1, IntensityCV: 0.08, Shape: 0.25,
		Waits: 5, Wait: 10 * time.Millisecond, Concurrency: 2,
	}
}

func matrix() Function {
	return Function{
		Name: "matrix", Arrival: Arrival{Rate: 0.04}, A: 0.05, B: 4, Spread: 0.1, Intensity: 1.35, IntensityCV: 0.1, Shape: 0.3,
		Threads: 4, Concurrency: 1,
	}
}

func forkShort() Function {
	return Function{
		Name: "fork-short", Arrival: Arrival{Rate: 4, On: 15 * time.Second, Off: 25 * time.Second}, A: 0.001, B: 0.018, Spread: 0.2,
		Intensity: 0.8, IntensityCV: 0.1, Shape: 0.3, Forks: true, Concurrency: 8,
	}
}

func coldRare() Function {
	return Function{
		Name: "cold-rare", Arrival: Arrival{Rate: 0.02}, A: 0.05, B: 0.8, Spread: 0.3, Intensity: 1, IntensityCV: 0.1, Shape: 0.35,
		IdleTimeout: 20 * time.Second, Cold: true,
	}
}

// Preset returns a scenario by name: "idle", "faas-mix", "collinear" (two functions that always start together, and one
// alone), "forked", "governor-switch" (after ten minutes), "short", or "many:N" with N functions.
func Preset(name string) (Scenario, error) {
	s := Scenario{Daemons: System()}
	var n int
	switch {
	case name == "idle":
	case name == "faas-mix":
		s.Functions = []Function{analyzeSentence(), resizeImage(), gzip(), matrix(), forkShort(), coldRare()}
	case name == "collinear":
		lead, twin, alone := gzip(), resizeImage(), analyzeSentence()
		lead.Name, twin.Name, alone.Name = "lead", "twin", "alone"
		lead.Arrival = Arrival{Rate: 0.08}
		twin.Arrival, twin.With, twin.Intensity = Arrival{}, "lead", 0.6
		s.Functions = []Function{lead, twin, alone}
	case name == "forked":
		live, forked := forkShort(), forkShort()
		live.Name, live.Forks, live.Arrival = "live", false, Arrival{Rate: 4}
		forked.Name, forked.Arrival = "forked", Arrival{Rate: 4}
		s.Functions = []Function{live, forked}
	case name == "governor-switch":
		s.Functions = []Function{analyzeSentence(), resizeImage(), gzip(), matrix()}
		s.Changes = []Change{{Governor: Powersave}, {At: 10 * time.Minute, Governor: Performance}}
	case name == "short":
		for i, rate := range []float64{2, 5, 10} {
			f := forkShort()
			f.Name, f.Forks, f.Arrival.Rate = fmt.Sprintf("short-%d", i+1), i == 1, rate
			f.B *= float64(3-i) / 2
			s.Functions = append(s.Functions, f)
		}
	case len(name) < 10 && scan(name, &n) && n > 0 && n <= 1000:
		makers := []func() Function{analyzeSentence, resizeImage, gzip, matrix, forkShort}
		for i := range n {
			f := makers[i%len(makers)]()
			f.Name = fmt.Sprintf("%s-%d", f.Name, i/len(makers)+1)
			f.Arrival.Rate *= min(1, 6/float64(n))
			f.Intensity *= 0.8 + 0.4*float64(i%7)/6
			s.Functions = append(s.Functions, f)
		}
	default:
		return Scenario{}, fmt.Errorf("scenario %q is none of idle, faas-mix, collinear, forked, governor-switch, short, many:N", name)
	}
	return s, nil
}

func scan(name string, n *int) bool {
	_, err := fmt.Sscanf(name, "many:%d", n)
	return err == nil && name == fmt.Sprintf("many:%d", *n)
}

// Fleet returns the six boards of a small cluster, each with a mix of functions it can bear and its own seed; the second XU4
// is held at a low frequency.
func Fleet(seed uint64) []Options {
	mix := func(rate float64, functions ...Function) Scenario {
		for i := range functions {
			functions[i].Arrival.Rate *= rate
		}
		return Scenario{Functions: functions, Daemons: System()}
	}
	limited := mix(0.7, analyzeSentence(), resizeImage(), gzip(), forkShort(), coldRare())
	limited.Changes = []Change{{Class: "big", MaxKHz: 1_400_000}}
	fleet := []Options{
		{Name: "raspberrypi", Board: "raspberrypi-3b", Scenario: mix(0.8, analyzeSentence(), resizeImage(), forkShort(), coldRare())},
		{Name: "pynq-z1", Board: "pynq-z1", Scenario: mix(0.4, analyzeSentence(), forkShort(), coldRare())},
		{Name: "odroid-xu4-1", Board: "odroid-xu4", Scenario: mix(1.5, analyzeSentence(), resizeImage(), gzip(), matrix(), forkShort(), coldRare())},
		{Name: "odroid-xu4-2", Board: "odroid-xu4", Scenario: limited},
		{Name: "coral", Board: "coral", Scenario: mix(0.8, analyzeSentence(), resizeImage(), matrix(), forkShort())},
		{Name: "jetson-nano", Board: "jetson-nano", Scenario: mix(1.2, analyzeSentence(), resizeImage(), gzip(), matrix(), coldRare())},
	}
	for i := range fleet {
		fleet[i].Seed = seed*1_000_003 + uint64(i)
	}
	return fleet
}
