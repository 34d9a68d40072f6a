package cgroup

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// Class is a kind of cores that a node has.
type Class struct {
	// Name is empty where all cores are alike, else "little", "mid" (or "mid1" …) and "big" in order of capacity. On a node with
	// several, cores of which the kernel says nothing are in a class without a name.
	Name string
	// CPUs are the cores' numbers.
	CPUs []int
	// MaxKHz is the highest frequency of its policies, KHz all that are available, rising; zero and empty without cpufreq.
	MaxKHz int64
	KHz    []int64
}

// cpus is what is kept of the node's processors.
type cpus struct {
	names  []string // of the classes; the first is always ""
	sorted []uint8  // the classes by name
	class  []uint8  // of each CPU
	list   []Class

	stat handle
	busy []int64 // ticks of each CPU as last read
	last []int64 // and as counted in sum
	sum  vector
	at   time.Duration

	policies []policy
}

func (c *cpus) close(f *files) {
	f.close(&c.stat)
	for i := range c.policies {
		f.close(&c.policies[i].file)
	}
}

// policy is one of cpufreq's: CPUs that share a clock.
type policy struct {
	dir   string
	cpus  []int
	max   int64
	avail []int64
	class uint8
	file  handle // stats/time_in_state
	bins  []bin
}

// bin is one frequency of a policy.
type bin struct {
	khz, ticks int64
	sum        time.Duration
	out        int // index into the sample's Frequency
}

// classOf is the class of a CPU, 0 if it is not known.
func classOf(class []uint8, cpu int) uint8 {
	if cpu < len(class) {
		return class[cpu]
	}
	return 0
}

// Classes returns the core classes by rising capacity, as they were found by New: they stay what they are while CPUs come and go.
func (r *Reader) Classes() []Class { return slices.Clone(r.cpus.list) }

// findCPUs finds CPUs, policies and classes.
func (r *Reader) findCPUs() error {
	c := &r.cpus
	r.f.at(r.opt.ProcRoot, "stat")
	b, err := r.f.read(&c.stat, r.keepProc)
	if err == nil {
		c.busy, err = parseStat(b, nil)
	}
	if err != nil {
		return fmt.Errorf("CPUs: read %s: %w; mount the host's /proc and say where", r.f.name(), err)
	}
	root := filepath.Join(r.opt.SysRoot, "devices/system/cpu")
	all := make([]int, len(c.busy))
	for i := range all {
		all[i] = i
	}
	// Before the first CPU went offline, or where sysfs is missing, /proc/stat knows them all.
	if b, err := os.ReadFile(filepath.Join(root, "present")); err == nil {
		if present, err := parseCPUs(b); err == nil && len(present) > 0 {
			all = present
		}
	}
	if c.policies, err = findPolicies(root); err != nil {
		return fmt.Errorf("CPUs: %w", err)
	}
	capacity := map[int]int64{}
	for _, cpu := range all {
		if v, err := readNumber(filepath.Join(root, "cpu"+strconv.Itoa(cpu), "cpu_capacity")); err == nil {
			capacity[cpu] = v
		}
	}
	if len(capacity) == 0 {
		for _, p := range c.policies {
			for _, cpu := range p.cpus {
				capacity[cpu] = p.max
			}
		}
	} else { // a CPU that is offline is as its policy's others
		for _, p := range c.policies {
			for _, cpu := range p.cpus {
				for _, other := range p.cpus {
					if _, ok := capacity[cpu]; !ok && capacity[other] > 0 {
						capacity[cpu] = capacity[other]
					}
				}
			}
		}
	}
	c.classify(all, capacity)
	r.rebuildFrequencies()
	return nil
}

// distinct is how much more capable, in percent, cores are at least than those of the class below. Cores of one kind differ by a
// few percent where the maker sorts them (turbo bins, RK3588); the least that kinds differ by is 17 % of frequency.
const distinct = 115

// classify makes classes of CPUs of similar capacity.
func (c *cpus) classify(all []int, capacity map[int]int64) {
	known := slices.DeleteFunc(slices.Clone(all), func(cpu int) bool { return capacity[cpu] <= 0 })
	slices.SortStableFunc(known, func(a, b int) int { return cmp.Compare(capacity[a], capacity[b]) })
	var classes []Class
	for i, cpu := range known {
		more := i == 0 || float64(capacity[cpu])*100 >= float64(capacity[known[i-1]])*distinct
		if more && len(classes) < maxClasses-1 {
			classes = append(classes, Class{})
		}
		last := &classes[len(classes)-1]
		last.CPUs = append(last.CPUs, cpu)
	}
	c.names, c.list = []string{""}, []Class{{CPUs: slices.Clone(all)}}
	if len(classes) > 1 {
		c.list = classes
		c.class = make([]uint8, slices.Max(all)+1)
		for i := range classes {
			classes[i].Name = className(i, len(classes))
			slices.Sort(classes[i].CPUs)
			c.names = append(c.names, classes[i].Name)
			for _, cpu := range classes[i].CPUs {
				c.class[cpu] = uint8(i + 1)
			}
		}
		if len(known) < len(all) {
			unknown := slices.DeleteFunc(slices.Clone(all), func(cpu int) bool { return c.class[cpu] != 0 })
			c.list = append(c.list, Class{CPUs: unknown})
		}
	} else {
		c.class = make([]uint8, slices.Max(all)+1)
	}
	c.sorted = make([]uint8, len(c.names))
	for i := range c.sorted {
		c.sorted[i] = uint8(i)
	}
	slices.SortFunc(c.sorted, func(a, b uint8) int { return strings.Compare(c.names[a], c.names[b]) })
	for i := range c.policies {
		p := &c.policies[i]
		if len(p.cpus) > 0 {
			p.class = classOf(c.class, p.cpus[0])
		}
		for j := range c.list {
			if cl := &c.list[j]; cl.Name == c.names[p.class] {
				cl.MaxKHz = max(cl.MaxKHz, p.max)
				cl.KHz = append(cl.KHz, p.avail...)
				slices.Sort(cl.KHz)
				cl.KHz = slices.Compact(cl.KHz)
			}
		}
	}
}

func className(i, n int) string {
	switch {
	case i == 0:
		return "little"
	case i == n-1:
		return "big"
	case n == 3:
		return "mid"
	}
	return "mid" + strconv.Itoa(i)
}

func readNumber(path string) (int64, error) {
	b, err := os.ReadFile(path) //nolint:gosec // below the root that the caller gave
	if err != nil {
		return 0, err
	}
	v, rest, ok := cutNumber(b, math.MaxInt64)
	if !ok || !blank(rest) {
		return 0, fmt.Errorf("read %s: %w", path, errFormat)
	}
	return v, nil
}

// findPolicies reads cpufreq's directories (Documentation/admin-guide/pm/cpufreq.rst); there may be none. A policy all of whose
// CPUs are offline has none either.
func findPolicies(root string) ([]policy, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "cpufreq/policy[0-9]*"))
	if err != nil {
		return nil, err
	}
	var all []policy
	for _, dir := range dirs {
		p := policy{dir: dir}
		for _, file := range []string{"related_cpus", "affected_cpus"} {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil && len(p.cpus) == 0 {
				p.cpus, _ = parseCPUs(b)
			}
		}
		p.max, _ = readNumber(filepath.Join(dir, "cpuinfo_max_freq"))
		if b, err := os.ReadFile(filepath.Join(dir, "scaling_available_frequencies")); err == nil {
			p.avail, _ = parseNumbers(b)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "stats/time_in_state")); err == nil {
			if _, err := p.update(b); err != nil {
				return nil, fmt.Errorf("read %s/stats/time_in_state: %w", dir, err)
			}
			for _, b := range p.bins {
				p.avail = append(p.avail, b.khz)
			}
		}
		slices.Sort(p.avail)
		p.avail = slices.Compact(p.avail)
		if len(p.avail) > 0 {
			p.max = max(p.max, p.avail[len(p.avail)-1])
		}
		all = append(all, p)
	}
	return all, nil
}

// update takes over what time_in_state has now. A count that fell began anew with its policy. It returns true if there is a
// frequency that there was not.
func (p *policy) update(b []byte) (more bool, err error) {
	for i := 0; !blank(b); i++ {
		var khz, ticks int64
		if khz, ticks, b, err = cutTimeInState(b); err != nil {
			return more, err
		}
		if i >= len(p.bins) || p.bins[i].khz != khz {
			i = slices.IndexFunc(p.bins, func(b bin) bool { return b.khz == khz })
		}
		if i < 0 {
			if len(p.bins) >= 1024 {
				return more, errFormat
			}
			i, more = len(p.bins), true
			p.bins = append(p.bins, bin{khz: khz})
		}
		bin := &p.bins[i]
		if ticks < bin.ticks {
			bin.ticks = 0
		}
		bin.sum += time.Duration(ticks-bin.ticks) * tick
		bin.ticks = ticks
	}
	return more, nil
}

// rebuildFrequencies lays out the sample's Frequency. Policies of one class share its entries.
func (r *Reader) rebuildFrequencies() {
	c := &r.cpus
	var out []workload.Frequency
	for _, p := range c.policies {
		for _, b := range p.bins {
			out = append(out, workload.Frequency{Class: c.names[p.class], KHz: b.khz})
		}
	}
	order := func(a, b workload.Frequency) int {
		return cmp.Or(strings.Compare(a.Class, b.Class), cmp.Compare(a.KHz, b.KHz))
	}
	slices.SortFunc(out, order)
	out = slices.CompactFunc(out, func(a, b workload.Frequency) bool { return order(a, b) == 0 })
	for _, p := range c.policies {
		for i := range p.bins {
			b := &p.bins[i]
			b.out, _ = slices.BinarySearchFunc(out, workload.Frequency{Class: c.names[p.class], KHz: b.khz}, order)
		}
	}
	r.sample.Frequency = out
}

// readFrequencies reads the time in each state. Where a class has several policies, their times are added up.
func (r *Reader) readFrequencies() error {
	var first error
	more := false
	for i := range r.cpus.policies {
		p := &r.cpus.policies[i]
		if len(p.bins) == 0 { // without CONFIG_CPU_FREQ_STAT
			continue
		}
		r.f.at(p.dir, "stats/time_in_state")
		b, err := r.f.read(&p.file, r.keepSys)
		if isGone(err) { // its CPUs are offline; it may come back as another
			r.f.close(&p.file)
			p.file = handle{}
			continue
		}
		if err == nil {
			var m bool
			m, err = p.update(b)
			more = more || m
		}
		if err != nil && first == nil {
			first = fmt.Errorf("cpufreq: read %s: %w", r.f.name(), err)
		}
	}
	if more {
		r.rebuildFrequencies()
	}
	at := r.opt.Uptime()
	for i := range r.sample.Frequency {
		f := &r.sample.Frequency[i]
		f.At, f.Time = at, 0
	}
	for _, p := range r.cpus.policies {
		for _, b := range p.bins {
			r.sample.Frequency[b.out].Time += b.sum
		}
	}
	return first
}

// restarted is by how much a CPU's ticks must fall to have begun anew; less is the kernel's rounding, and waited for.
const restarted = int64(time.Second / tick)

// readNode reads the busy time of the CPUs. One that is offline keeps what it had.
func (r *Reader) readNode() error {
	c := &r.cpus
	r.f.at(r.opt.ProcRoot, "stat")
	b, err := r.f.read(&c.stat, r.keepProc)
	c.at = r.opt.Uptime()
	if err == nil {
		c.busy, err = parseStat(b, c.busy)
	}
	if err != nil {
		return fmt.Errorf("CPUs: read %s: %w", r.f.name(), err)
	}
	for len(c.last) < len(c.busy) {
		c.last = append(c.last, 0)
	}
	for cpu, now := range c.busy {
		last := &c.last[cpu]
		if now <= *last-restarted {
			*last = 0
		}
		if now > *last {
			c.sum[classOf(c.class, cpu)] += time.Duration(now-*last) * tick
			*last = now
		}
	}
	return nil
}
