package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// truth is what the node draws: a base, and for each second of CPU time so many joules as belong to who used it. It is the load of
// the simulated meter, whose time it is told in.
type truth struct {
	counters counters
	base     float64 // W
	perCore  float64 // W for each busy core, where nothing else is said
	now      func() time.Duration

	mu     sync.Mutex
	groups map[string]*account
	node   time.Duration // CPU time of the node at the last sample
	points []point
	failed error
}

// account is the CPU time that a group had at the last sample, and what that time has cost.
type account struct {
	function string
	perCore  float64
	cpu      time.Duration
	joules   float64
	over     bool // the last count has been read
}

// point is what had been drawn until an instant.
type point struct {
	at     time.Duration
	joules float64
}

// newTruth begins at zero of the clock, which must run already.
func newTruth(tb testing.TB, base, perCore float64) *truth {
	tb.Helper()
	c, err := counterRoot()
	if err != nil {
		tb.Fatal(err)
	}
	start := time.Now()
	t := &truth{
		counters: c, base: base, perCore: perCore, groups: map[string]*account{}, points: []point{{}},
		now: func() time.Duration { return time.Since(start) },
	}
	if t.node, err = c.node(); err != nil {
		tb.Fatal(err)
	}
	return t
}

// add says that a group serves a function, and what a second of its CPU time costs. All that it ever used counts.
func (t *truth) add(group, function string, perCore float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.groups[group] == nil {
		t.groups[group] = &account{function: function, perCore: perCore}
	}
}

// end reads a group's counter for the last time.
func (t *truth) end(group string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sample()
	t.groups[group].over = true
}

// sample reads all counters. The time of a function is counted before the node's, so that what falls between the two costs what the
// rest of the node costs until the next sample corrects it.
func (t *truth) sample() {
	at := t.now()
	last := t.points[len(t.points)-1]
	joules := last.joules + t.base*(at-last.at).Seconds()
	var own time.Duration
	for name, a := range t.groups {
		if a.over {
			continue
		}
		cpu, err := t.counters.read(name)
		if err != nil {
			// It is not there yet, or not any more.
			if !errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), "no such device") {
				t.failed = errors.Join(t.failed, err)
			}
			continue
		}
		d := cpu - a.cpu
		a.cpu, own = cpu, own+d
		a.joules += a.perCore * d.Seconds()
		joules += a.perCore * d.Seconds()
	}
	node, err := t.counters.node()
	if err != nil {
		t.failed = errors.Join(t.failed, err)
		return
	}
	joules += t.perCore * (node - t.node - own).Seconds()
	t.node = node
	t.points = append(t.points, point{at, max(joules, last.joules)})
}

// joules returns what had been drawn until an instant; it must be called with mu held.
func (t *truth) joules(at time.Duration) float64 {
	if at > t.points[len(t.points)-1].at {
		t.sample()
	}
	i := sort.Search(len(t.points), func(i int) bool { return t.points[i].at >= at })
	switch {
	case i == 0:
		return 0
	case i == len(t.points): // an instant that is yet to come
		last := t.points[i-1]
		return last.joules + t.base*(at-last.at).Seconds()
	}
	a, b := t.points[i-1], t.points[i]
	return a.joules + (b.joules-a.joules)*(at-a.at).Seconds()/(b.at-a.at).Seconds()
}

// Energy is the load's.
func (t *truth) Energy(from, to time.Duration) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.joules(to) // first the later, so that both come from the same points
	return last - t.joules(from)
}

// Power is the load's.
func (t *truth) Power(at time.Duration) float64 {
	const step = time.Millisecond
	return t.Energy(at-step, at) / step.Seconds()
}

// of returns what a function has cost until now, with all groups that ever served it.
func (t *truth) of(function string) (joules float64, cpu time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sample()
	for _, a := range t.groups {
		if a.function == function {
			joules, cpu = joules+a.joules, cpu+a.cpu
		}
	}
	return joules, cpu
}

func (t *truth) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// serveStat keeps a /proc for the agent in a directory, whose stat has what the node has used and nothing of what else the machine
// does, as a container of its own sees it with lxcfs.
func (t *truth) serveStat(tb testing.TB, dir, group string) {
	tb.Helper()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	err = errors.Join(err, os.MkdirAll(filepath.Join(dir, "self"), 0o755), os.MkdirAll(filepath.Join(dir, "sys/kernel/random"), 0o755))
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "sys/kernel/random/boot_id"), id, 0o644),
		os.WriteFile(filepath.Join(dir, "self/cgroup"), fmt.Appendf(nil, "2:cpuacct:/%[1]s\n0::/%[1]s\n", group), 0o644))
	var began time.Duration
	if err == nil {
		began, err = t.counters.node()
	}
	const userHZ = 10 * time.Millisecond
	write := func() error {
		now, err := t.counters.node()
		if err != nil {
			return err
		}
		cpus := int64(runtime.NumCPU())
		busy := int64((now-began)/userHZ) / cpus
		idle := max(int64(t.now()/userHZ)-busy, 0)
		b := fmt.Appendf(nil, "cpu  %d 0 0 %d 0 0 0 0 0 0\n", busy*cpus, idle*cpus)
		for i := range cpus {
			b = fmt.Appendf(b, "cpu%d %d 0 0 %d 0 0 0 0 0 0\n", i, busy, idle)
		}
		next := filepath.Join(dir, "stat.next")
		return errors.Join(os.WriteFile(next, b, 0o644), os.Rename(next, filepath.Join(dir, "stat")))
	}
	if err = errors.Join(err, write()); err != nil {
		tb.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := write(); err != nil {
					done <- err
					return
				}
			case <-stop:
				done <- nil
				return
			}
		}
	}()
	tb.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}
