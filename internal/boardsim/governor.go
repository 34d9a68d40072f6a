package boardsim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// The governors of cpufreq that are simulated (kernel Documentation/admin-guide/pm/cpufreq.rst).
const (
	Performance = "performance"
	Powersave   = "powersave"
	Userspace   = "userspace"
	Ondemand    = "ondemand"
	Schedutil   = "schedutil"
)

// Governors returns the names that SetGovernor takes.
func Governors() []string { return []string{Ondemand, Performance, Powersave, Schedutil, Userspace} }

const (
	ondemandPeriod    = 40 * time.Millisecond
	ondemandThreshold = 0.8
	// schedutilPeriod is the rate limit that cpufreq derives for drivers with a slow switch.
	schedutilPeriod = 10 * time.Millisecond
	// utilHalfLife is that of the scheduler's load tracking (PELT).
	utilHalfLife = 32 * time.Millisecond
)

// cluster is a class at work: the policy of cpufreq and the physics of its operating points.
type cluster struct {
	*Class
	first, count int // CPU numbers first to first+count-1

	governor       string
	min, max, user int // indexes of operating points
	at             int
	inState        []time.Duration
	transitions    int64
	decide         time.Duration // when the governor looks again
	windowSteps    int           // since the governor last looked
	online         float64       // share of cores online

	// By operating point: dynamic power relative to the top, leakage at 50 °C, clock in GHz.
	dynamic, leak, ghz []float64
}

func newCluster(c *Class, first int, governor string) *cluster {
	top := c.Points[len(c.Points)-1]
	k := &cluster{
		Class: c, first: first, count: c.Cores, governor: governor, max: len(c.Points) - 1, inState: make([]time.Duration, len(c.Points)),
		online: 1,
	}
	for _, p := range c.Points {
		v := float64(p.Microvolt) / float64(top.Microvolt)
		k.dynamic = append(k.dynamic, v*v*float64(p.KHz)/float64(top.KHz))
		k.leak = append(k.leak, c.Leak*v*math.Exp(4*float64(p.Microvolt-top.Microvolt)/1e6))
		k.ghz = append(k.ghz, float64(p.KHz)/1e6)
	}
	k.user = k.max
	k.at = k.rest()
	return k
}

// rest is the operating point of the idle class under its present governor and limits.
func (k *cluster) rest() int {
	switch k.governor {
	case Performance:
		return k.max
	case Userspace:
		return min(max(k.user, k.min), k.max)
	default:
		return k.min
	}
}

// atLeast returns the lowest point within the limits that is not slower.
func (k *cluster) atLeast(ghz float64) int {
	for i := k.min; i < k.max; i++ {
		if k.ghz[i] >= ghz-1e-9 {
			return i
		}
	}
	return k.max
}

// set changes the operating point.
func (k *cluster) set(point int) {
	if point != k.at {
		k.at = point
		k.transitions++
	}
}

// govern lets the governors act on a step that has ended. It must run after the step's time was counted.
func (b *Board) govern() {
	for _, k := range b.clusters {
		k.inState[k.at] += b.step
		util, busy := 0.0, 0.0
		for i := range k.count {
			c := &b.cores[k.first+i]
			used := float64(b.step-c.left) / float64(b.step)
			c.util = c.util*b.utilDecay + (1-b.utilDecay)*used*k.ghz[k.at]/k.ghz[len(k.ghz)-1]
			c.window += used
			util, busy = max(util, c.util), max(busy, c.window)
		}
		k.windowSteps++
		if b.now < k.decide {
			continue
		}
		switch k.governor {
		case Ondemand:
			load := busy / float64(k.windowSteps)
			lo, hi := k.ghz[k.min], k.ghz[k.max]
			if load > ondemandThreshold {
				k.set(k.max)
			} else {
				k.set(k.atLeast(lo + load*(hi-lo)))
			}
			k.decide = b.now + ondemandPeriod
		case Schedutil:
			k.set(k.atLeast(1.25 * util * k.ghz[len(k.ghz)-1]))
			k.decide = b.now + schedutilPeriod
		default:
			k.set(k.rest())
			k.decide = b.now + ondemandPeriod
		}
		k.windowSteps = 0
		for i := range k.count {
			b.cores[k.first+i].window = 0
		}
	}
}

// classes returns the clusters of a class; all if the name is empty.
func (b *Board) classes(name string) ([]*cluster, error) {
	if name == "" {
		return b.clusters, nil
	}
	for i, k := range b.clusters {
		if k.Name == name {
			return b.clusters[i : i+1], nil
		}
	}
	return nil, fmt.Errorf("board %s has no core class %q", b.name, name)
}

// SetGovernor switches the governor of a class, or of all if class is empty.
func (b *Board) SetGovernor(class, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setGovernor(class, name)
}

func (b *Board) setGovernor(class, name string) error {
	ks, err := b.classes(class)
	if err != nil {
		return err
	}
	if !slices.Contains(Governors(), name) {
		return fmt.Errorf("governor %q is none of %s", name, strings.Join(Governors(), ", "))
	}
	for _, k := range ks {
		if k.governor == name {
			continue
		}
		if name == Userspace { // the kernel goes on at the present speed
			k.user = k.at
		}
		k.governor = name
		b.applied(k, "governor "+name)
	}
	return nil
}

// SetLimits sets the lowest and highest frequency of a class, or of all if class is empty; zero leaves one as it is. As in the
// kernel, what lies between operating points or beyond them is moved to one that is within.
func (b *Board) SetLimits(class string, minKHz, maxKHz int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setLimits(class, minKHz, maxKHz)
}

func (b *Board) setLimits(class string, minKHz, maxKHz int64) error {
	ks, err := b.classes(class)
	if err != nil {
		return err
	}
	if minKHz < 0 || maxKHz < 0 || minKHz > 0 && maxKHz > 0 && minKHz > maxKHz {
		return fmt.Errorf("frequency limits %d to %d kHz: the lower must not be above the upper", minKHz, maxKHz)
	}
	for _, k := range ks {
		lo, hi, last := k.min, k.max, len(k.Points)-1
		if maxKHz > 0 {
			for hi = last; hi > 0 && k.Points[hi].KHz > maxKHz; hi-- {
			}
		}
		if minKHz > 0 {
			for lo = 0; lo < last && k.Points[lo].KHz < minKHz; lo++ {
			}
		}
		if lo > hi {
			if maxKHz > 0 {
				lo = hi
			} else {
				hi = lo
			}
		}
		if lo != k.min || hi != k.max {
			k.min, k.max = lo, hi
			b.applied(k, fmt.Sprintf("limits %d-%d kHz", k.Points[lo].KHz, k.Points[hi].KHz))
		}
	}
	return nil
}

// SetUserspace sets the frequency that governor userspace holds, for a class or for all if class is empty.
func (b *Board) SetUserspace(class string, khz int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setUserspace(class, khz)
}

func (b *Board) setUserspace(class string, khz int64) error {
	ks, err := b.classes(class)
	if err != nil {
		return err
	}
	for _, k := range ks {
		point := 0
		for i, p := range k.Points {
			if p.KHz <= khz {
				point = i
			}
		}
		if point != k.user || k.governor != Userspace {
			k.user = point
			b.applied(k, fmt.Sprintf("speed %d kHz", k.Points[point].KHz))
		}
	}
	return nil
}

// SetOnline plugs a CPU in or out. The last one of the board stays.
func (b *Board) SetOnline(cpu int, online bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setOnline(cpu, online)
}

func (b *Board) setOnline(cpu int, online bool) error {
	if cpu < 0 || cpu >= len(b.cores) {
		return fmt.Errorf("board %s has no CPU %d", b.name, cpu)
	}
	n := 0
	for i := range b.cores {
		if b.cores[i].online {
			n++
		}
	}
	c := &b.cores[cpu]
	if c.online == online {
		return nil
	}
	if !online && n == 1 {
		return fmt.Errorf("CPU %d is the last one of board %s", cpu, b.name)
	}
	c.online, c.util = online, 0
	k := b.clusters[c.class]
	k.online += map[bool]float64{true: 1, false: -1}[online] / float64(k.count)
	b.event(workload.Node, fmt.Sprintf("%scpu%d online=%t", workload.RegimePrefix, cpu, online))
	return nil
}

// applied brings the operating point of a policy that was changed on purpose within its new bounds and says so.
func (b *Board) applied(k *cluster, what string) {
	k.set(min(max(k.at, k.min), k.max))
	if k.governor != Ondemand && k.governor != Schedutil {
		k.set(k.rest())
	}
	k.decide = b.now
	text := what
	if k.Name != "" {
		text = k.Name + " " + what
	}
	b.event(workload.Node, workload.RegimePrefix+text)
}
