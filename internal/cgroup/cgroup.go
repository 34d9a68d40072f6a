// Package cgroup reads the CPU time of each workload of one node from the kernel's files: control groups of version 1 and 2,
// /proc/stat and cpufreq.
//
// The workloads of a Sample partition the CPU time of the control groups: nothing is in two of them, and a directory that holds
// others has what its own counter has more than theirs, which is what its own processes and its children that are gone have used.
// Which directories are workloads:
//
//   - below a kubelet's root (kubepods, kubepods.slice, …-kubepods.slice, at the top or below another directory) each pod and each
//     container in it, the sandbox too since no path tells which it is; with Options.Pods each pod as a whole
//   - each service, scope and other unit in a slice, slices below slices being passed through; a service in which a runtime has put
//     pods or containers (k3s.service/kubepods) is reduced by these
//   - the directories below any other one at the top: docker/ID, openfaas-fn/figlet, machine.slice/…
//   - user.slice, init.scope and lxc.* as wholes, and the directories above, kubepods.slice, system.slice, docker, themselves: they
//     have what their children used after their last reading or between two readings
//
// What is deeper belongs to these. Time of processes in the hierarchy's root, of interrupts and of kernel threads is in
// workload.Node only: Node less all others is workload.Kernel.
//
// Counters begin at what the kernel has at the first reading. A workload that shows up later has used its CPU since the reading
// before; if its counter is older than that (the limit kept it out, or it was unreadable) its past stays with its parent, where it
// was counted. So differences of samples always partition the same time.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattlet/wattlet/internal/workload"
)

// Options says what to read. The roots and Uptime are needed.
type Options struct {
	// CgroupRoot, ProcRoot and SysRoot are where cgroups, procfs and sysfs are mounted, such as /sys/fs/cgroup, /proc, /sys.
	// CgroupRoot is a cgroup2 mount, a version 1 hierarchy with cpuacct, or a directory with such mounts in it.
	CgroupRoot, ProcRoot, SysRoot string
	// Uptime is the host's monotonic clock, on which all values are dated.
	Uptime func() time.Duration
	// Pods makes one workload of each pod. Its counter has all that its containers ever used, a third of the files is read, and
	// nothing is lost when a container restarts, but a sidecar cannot be told from what it serves.
	Pods bool
	// Roots are further directories, paths below the hierarchy's root, whose children are workloads each.
	Roots []string
	// MaxWorkloads bounds the directories that are read; default 2000. Those beyond it stay with their parents, and Read says so.
	MaxWorkloads int
	// MaxOpen bounds the descriptors that stay open; others are opened for each reading. Default half of RLIMIT_NOFILE.
	MaxOpen int
}

const (
	defaultWorkloads = 2000
	// refresh is how often what seldom changes is read again: cpusets, and directories whose link count stayed the same.
	refresh = 5 * time.Second
)

// ErrLimit is in Read's error while MaxWorkloads keeps directories out.
var ErrLimit = errors.New("cgroups: there are more than are read, the rest counts with its parents: raise the limit of workloads")

// Reader reads one node's counters. It is for one goroutine at a time.
type Reader struct {
	opt  Options
	f    files
	root string // of the hierarchy
	v2   bool
	// cpusets is the root of the hierarchy with cpusets, cpusetFiles the names of its attribute, best first.
	cpusets     string
	cpusetFiles []string
	keepGroups  bool // the kernel's own file systems: descriptors stay valid, and those of what is removed say so
	keepProc    bool
	keepSys     bool

	cpus    cpus
	perCPU  bool // version 1 tells the time on each CPU
	byGroup bool // the class of a workload's time comes from its cpuset

	tree     node // the hierarchy's root
	nodes    []*node
	ended    []*node
	changed  bool // nodes have to be collected anew
	first    bool // nothing was read before
	slow     bool // this reading is one that looks at everything
	limited  bool
	count    int
	gen      uint64
	lastAt   time.Duration
	lastSlow time.Duration

	failed   int // control groups in this reading
	firstErr error
	sample   workload.Sample
}

// New finds out what the node has. It fails where no hierarchy with CPU time or no /proc/stat is found.
func New(opt Options) (*Reader, error) {
	if opt.Uptime == nil {
		return nil, errors.New("cgroups: no clock to date readings with")
	}
	if opt.MaxWorkloads <= 0 {
		opt.MaxWorkloads = defaultWorkloads
	}
	if opt.MaxOpen <= 0 {
		var lim unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			return nil, fmt.Errorf("cgroups: the limit of open files: %w", err)
		}
		opt.MaxOpen = int(min(lim.Cur/2, 1<<20))
	}
	r := &Reader{opt: opt, first: true, tree: node{place: top}}
	r.f.max, r.f.buf = opt.MaxOpen, make([]byte, 16<<10)
	r.opt.Roots = slices.Clone(opt.Roots)
	for i, root := range opt.Roots {
		r.opt.Roots[i] = strings.Trim(root, "/")
	}
	if err := r.detect(); err != nil {
		return nil, err
	}
	r.keepGroups = isKernels(r.root, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC)
	r.keepProc = isKernels(opt.ProcRoot, unix.PROC_SUPER_MAGIC)
	r.keepSys = isKernels(opt.SysRoot, unix.SYSFS_MAGIC)
	if err := r.findCPUs(); err != nil {
		return nil, err
	}
	if len(r.cpus.names) > 1 {
		r.perCPU = !r.v2 && exists(r.root, "cpuacct.usage_percpu")
		r.byGroup = !r.perCPU
	}
	return r, nil
}

// isKernels is true if dir is on one of the kernel's file systems with these magic numbers, and not on a copy of its files.
func isKernels(dir string, magic ...int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && slices.Contains(magic, int64(uint32(st.Type)))
}

func exists(elems ...string) bool {
	_, err := os.Stat(filepath.Join(elems...))
	return err == nil
}

// detect finds the hierarchy to read. Where both versions are mounted it is the first, if that accounts CPU time: runtimes put
// containers into both, only the first splits time by CPU, and the second lacks cpu.stat before Linux 4.15.
func (r *Reader) detect() error {
	root := r.opt.CgroupRoot
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("cgroups: %w; mount the host's /sys/fs/cgroup and say where", err)
	}
	find := func(file string) string {
		if exists(root, file) {
			return root
		}
		for _, e := range entries {
			if dir := filepath.Join(root, e.Name()); exists(dir, file) {
				return dir
			}
		}
		return ""
	}
	v1, v2 := find("cpuacct.usage"), find("cgroup.controllers")
	switch {
	case v2 == root || v1 == "" && v2 != "":
		r.root, r.v2, r.cpusets, r.cpusetFiles = v2, true, v2, []string{"cpuset.cpus.effective"}
		return r.checkV2()
	case v1 != "":
		r.root, r.cpusetFiles = v1, []string{"cpuset.effective_cpus", "cpuset.cpus"}
		if r.cpusets = find("cpuset.cpus"); r.cpusets == "" {
			r.cpusets = filepath.Join(filepath.Dir(v1), "cpuset")
		}
		return nil
	}
	return fmt.Errorf("cgroups: %s has neither cgroup.controllers (version 2) nor cpuacct.usage (version 1), and no mount in it has; "+
		"mount the host's /sys/fs/cgroup and say where", root)
}

// checkV2 makes sure that CPU time is there at all: Linux before 4.15 has it only where the cpu controller is enabled.
func (r *Reader) checkV2() error {
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	groups := 0
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		groups++
		b, err := os.ReadFile(filepath.Join(r.root, e.Name(), "cpu.stat"))
		if err != nil {
			continue
		}
		if _, err := parseCPUStat(b); err == nil {
			return nil
		}
	}
	if groups == 0 {
		return nil
	}
	return fmt.Errorf("cgroups: no directory in %s has usage_usec in cpu.stat; Linux before 4.15 needs the cpu controller enabled", r.root)
}

// String names what is read, such as "cgroup v1 at /sys/fs/cgroup/cpuacct".
func (r *Reader) String() string {
	version := "v1"
	if r.v2 {
		version = "v2"
	}
	return fmt.Sprintf("cgroup %s at %s", version, r.root)
}

// Read takes one reading. The sample and its slices belong to the reader until the next Read. With an error, one line for each of
// control groups, /proc/stat and cpufreq, the sample has what could be read; what could not is missing, and is not in Ended.
// What a workload used while it could not be read stays with its parent, or with workload.Kernel.
//
// The class of CPU time is exact where version 1 tells the time on each CPU, and otherwise that of the workload's cpuset, which is
// looked at when the workload is found and every five seconds; time before a change is seen has the class from before, or none.
// Classes in which a workload has no time are left out.
//
// A control group that takes the place of one of the same name is told of in the sample after that in which the old one ended.
func (r *Reader) Read() (*workload.Sample, error) {
	now := r.opt.Uptime()
	r.slow = r.first || now-r.lastSlow >= refresh
	if r.slow {
		r.lastSlow, r.limited = now, false
	}
	r.failed, r.firstErr = 0, nil
	clear(r.ended)
	r.ended = r.ended[:0]
	r.sample.Usage, r.sample.Ended = r.sample.Usage[:0], r.sample.Ended[:0]

	if r.visit(&r.tree, now) {
		r.fail(errors.New("the hierarchy's root is gone"), r.root)
		for _, n := range r.nodes {
			n.failed = true
		}
	}
	r.lastAt, r.first = now, false
	if r.changed {
		r.collect()
	}
	freqErr := r.readFrequencies()
	nodeErr := r.readNode()
	r.emit(nodeErr == nil)
	r.sample.At = r.opt.Uptime()
	if r.failed > 0 || r.limited || freqErr != nil || nodeErr != nil {
		return &r.sample, errors.Join(r.groupErr(), freqErr, nodeErr)
	}
	return &r.sample, nil
}

// fail counts a control group that could not be read.
func (r *Reader) fail(err error, path string) {
	if r.failed++; r.failed == 1 {
		r.firstErr = fmt.Errorf("read %s: %w", path, err)
	}
}

func (r *Reader) groupErr() error {
	var err error
	switch {
	case r.failed > 1:
		err = fmt.Errorf("cgroups: %w, and %d more", r.firstErr, r.failed-1)
	case r.failed == 1:
		err = fmt.Errorf("cgroups: %w", r.firstErr)
	}
	if r.limited {
		err = errors.Join(err, ErrLimit)
	}
	return err
}

// collect lists the tree's workloads, sorted.
func (r *Reader) collect() {
	r.nodes = r.tree.appendTo(r.nodes[:0])
	slices.SortFunc(r.nodes, func(a, b *node) int { return strings.Compare(string(a.id), string(b.id)) })
	clear(r.nodes[len(r.nodes):cap(r.nodes)])
	r.changed = false
}

// emit writes the sample's usage.
func (r *Reader) emit(node bool) {
	s := &r.sample
	for _, n := range r.nodes {
		if node && n.id > workload.Node {
			r.emitNode()
			node = false
		}
		if n.fresh || n.failed {
			continue
		}
		if n.held { // its name still belongs to the one that ended
			n.held = false
			continue
		}
		r.emitGroup(n)
	}
	if node {
		r.emitNode()
	}
	if len(r.ended) == 0 {
		return
	}
	for _, n := range r.ended {
		r.emitGroup(n)
		s.Ended = append(s.Ended, n.id)
	}
	slices.Sort(s.Ended)
	slices.SortFunc(s.Usage, func(a, b workload.Usage) int {
		if c := strings.Compare(string(a.ID), string(b.ID)); c != 0 {
			return c
		}
		return strings.Compare(a.Class, b.Class)
	})
}

func (r *Reader) emitGroup(n *node) {
	v := &n.own
	if r.byGroup {
		v = &n.split
	}
	r.emitVector(n.id, n.at, v, n.class)
}

func (r *Reader) emitNode() { r.emitVector(workload.Node, r.cpus.at, &r.cpus.sum, 0) }

// emitVector writes the classes in which there is time, sorted by name, and the present one if there is none in any.
func (r *Reader) emitVector(id workload.ID, at time.Duration, v *vector, class uint8) {
	none := *v == vector{}
	for _, c := range r.cpus.sorted {
		if v[c] > 0 || none && c == class {
			r.sample.Usage = append(r.sample.Usage, workload.Usage{ID: id, Class: r.cpus.names[c], At: at, CPU: v[c]})
		}
	}
}

// Close closes what is open. The reader cannot be used afterwards.
func (r *Reader) Close() error {
	r.tree.close(&r.f)
	r.cpus.close(&r.f)
	return nil
}
