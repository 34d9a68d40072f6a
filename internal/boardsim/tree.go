package boardsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// Tree shows a board as the files that a Linux kernel would: below Dir, proc/stat, sys/devices/system/cpu with cpufreq,
// sys/fs/cgroup as the board's Hierarchy says, sys/class/thermal, and activity.json with what the functions' pods were asked.
//
// What others write into scaling_governor, scaling_min_freq, scaling_max_freq, scaling_setspeed and cpuN/online is obeyed at
// the next update; what the kernel would refuse is put back.
//
// Files are changed in place by a single write, because readers of kernel files keep them open. Counters only grow, so no
// content ever gets shorter and no reader finds a file short or empty; what can get shorter ends with empty lines instead.
// Folders appear and vanish with all their files at once.
type Tree struct {
	Board *Board
	Dir   string
	// Every is the time between updates; 50 ms if zero.
	Every time.Duration
	// Now is the time since the board was switched on. If nil, it begins at the board's present instant when Run does.
	Now func() time.Duration

	files   map[string]*kernelFile
	folders map[string]bool
	set     map[string]string        // what control files hold, as far as we know
	final   map[string]time.Duration // CPU time of vanished pods by the path of each parent
	finalBy map[string][]time.Duration
	pods    map[string]group
	made    int
}

// kernelFile is an open file and what stands in it.
type kernelFile struct {
	f    *os.File
	text []byte
}

// group is a control group to be shown.
type group struct {
	path   string
	cpu    []time.Duration
	system time.Duration
	cpus   string // cpuset, empty if not limited
	quota  float64
	pod    bool
	hidden bool // counts in the root alone
}

// Run updates the tree until the context ends, then closes its files and leaves them.
func (t *Tree) Run(ctx context.Context) error {
	defer t.Close() //nolint:errcheck // nothing is buffered
	now := t.Now
	if now == nil {
		began, zero := time.Now(), t.Board.Now()
		now = func() time.Duration { return zero + time.Since(began) }
	}
	every := t.Every
	if every <= 0 {
		every = 50 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		t.Board.Advance(now())
		if err := t.Update(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Close closes the tree's files.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range t.files {
		errs = append(errs, f.f.Close())
	}
	t.files = nil
	return errors.Join(errs...)
}

// Update obeys the control files and shows the board's present state. It must not be called by two goroutines at once, nor
// while Run runs.
func (t *Tree) Update() error {
	if t.files == nil {
		if err := t.begin(); err != nil {
			return fmt.Errorf("tree of board %s: %w", t.Board.name, err)
		}
	}
	t.obey()
	b := t.Board
	b.mu.Lock()
	groups, files, activity := b.groups(), b.kernelFiles(), b.activityFile()
	b.mu.Unlock()
	err := t.showGroups(groups)
	for _, f := range files {
		err = errors.Join(err, t.put(f.path, f.text, f.control))
	}
	err = errors.Join(err, t.replace("activity.json", activity))
	if err != nil {
		return fmt.Errorf("tree of board %s: %w", b.name, err)
	}
	return nil
}

// begin makes what never changes.
func (t *Tree) begin() error {
	t.files, t.folders, t.set = map[string]*kernelFile{}, map[string]bool{}, map[string]string{}
	t.final, t.finalBy, t.pods = map[string]time.Duration{}, map[string][]time.Duration{}, map[string]group{}
	for _, d := range []string{"proc/self", "proc/1", "sys/devices/system/cpu/cpufreq", "sys/fs/cgroup", ".gone"} {
		if err := mkdir(filepath.Join(t.Dir, d)); err != nil {
			return err
		}
	}
	v1 := t.Board.hierarchy.Version == 1
	mounts := "25 1 0:22 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	if v1 {
		mounts = "25 1 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:4 - tmpfs tmpfs ro,mode=755\n" +
			"26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct\n" +
			"27 25 0:24 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:6 - cgroup cgroup rw,cpuset\n"
	}
	err := errors.Join(t.replace("proc/self/mountinfo", []byte(mounts)), t.replace("proc/1/mountinfo", []byte(mounts)))
	if v1 {
		for _, link := range []string{"cpu", "cpuacct"} {
			err = errors.Join(err, t.link("cpu,cpuacct", "sys/fs/cgroup/"+link))
		}
	} else {
		err = errors.Join(err, t.replace("sys/fs/cgroup/cgroup.controllers", []byte("cpuset cpu io memory pids\n")))
	}
	for i := range t.Board.cores { // its class never changes; the rest of a core would need the lock
		class := t.Board.cores[i].class
		cpu := fmt.Sprintf("sys/devices/system/cpu/cpu%d", i)
		err = errors.Join(err, mkdir(filepath.Join(t.Dir, cpu)))
		err = errors.Join(err, t.link(fmt.Sprintf("../cpufreq/policy%d", t.Board.clusters[class].first), cpu+"/cpufreq"))
	}
	return err
}

// mkdir makes a folder that all may read, as the kernel's are.
func mkdir(dir string) error { return os.MkdirAll(dir, 0o755) } //nolint:gosec // see above

func (t *Tree) link(to, from string) error {
	from = filepath.Join(t.Dir, from)
	if err := os.Symlink(to, from); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// replace writes a file that nobody keeps open.
func (t *Tree) replace(name string, text []byte) error {
	name = filepath.Join(t.Dir, name)
	part := filepath.Join(t.Dir, ".part")
	if err := os.WriteFile(part, text, 0o644); err != nil { //nolint:gosec // the kernel's files are for all to read
		return err
	}
	return os.Rename(part, name)
}

// put makes a file hold text. A new file appears with its content.
func (t *Tree) put(name, text string, control bool) error {
	f := t.files[name]
	if f == nil {
		full := filepath.Join(t.Dir, name)
		if !t.folders[path.Dir(name)] {
			if err := mkdir(filepath.Dir(full)); err != nil {
				return err
			}
			t.folders[path.Dir(name)] = true
		}
		opened, err := create(filepath.Join(t.Dir, ".part"), text)
		if err != nil {
			return err
		}
		t.files[name], t.set[name] = opened, text
		return os.Rename(filepath.Join(t.Dir, ".part"), full)
	}
	if control {
		if t.set[name] == text {
			return nil
		}
		t.set[name] = text
		_, err := f.f.WriteAt([]byte(text), 0)
		return errors.Join(err, f.f.Truncate(int64(len(text))))
	}
	return f.write(text)
}

func create(name, text string) (*kernelFile, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	k := &kernelFile{f: f}
	if err := k.write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return k, nil
}

func (f *kernelFile) write(text string) error {
	if string(f.text) == text {
		return nil
	}
	b := append(f.text[:0], text...)
	for len(b) < len(f.text) {
		b = append(b, '\n')
	}
	f.text = b
	_, err := f.f.WriteAt(b, 0)
	return err
}

// obey reads back what others may have written.
func (t *Tree) obey() {
	b := t.Board
	for _, k := range b.clusters {
		dir := fmt.Sprintf("sys/devices/system/cpu/cpufreq/policy%d/", k.first)
		if s, ok := t.written(dir + "scaling_governor"); ok {
			_ = b.SetGovernor(k.Name, s)
		}
		for _, limit := range []string{"scaling_max_freq", "scaling_min_freq", "scaling_setspeed"} {
			s, ok := t.written(dir + limit)
			if !ok {
				continue
			}
			khz, err := strconv.ParseInt(s, 10, 64)
			if err != nil || khz <= 0 {
				continue
			}
			switch limit {
			case "scaling_max_freq":
				_ = b.SetLimits(k.Name, 0, khz)
			case "scaling_min_freq":
				_ = b.SetLimits(k.Name, khz, 0)
			default:
				b.mu.Lock()
				if k.governor == Userspace {
					_ = b.setUserspace(k.Name, khz)
				}
				b.mu.Unlock()
			}
		}
	}
	for i := range b.cores {
		if s, ok := t.written(fmt.Sprintf("sys/devices/system/cpu/cpu%d/online", i)); ok && (s == "0" || s == "1") {
			_ = b.SetOnline(i, s == "1")
		}
	}
}

// written returns what another has written into a control file since we last looked. Afterwards the file is taken to hold
// something unknown, so that put brings it in line with the board.
func (t *Tree) written(name string) (string, bool) {
	f := t.files[name]
	if f == nil {
		return "", false
	}
	var buf [64]byte
	n, _ := f.f.ReadAt(buf[:], 0) // the end comes before 64 bytes
	text := strings.TrimSpace(string(buf[:n]))
	if text == "" || string(buf[:n]) == t.set[name] { // empty between a shell's truncation and its write
		return "", false
	}
	t.set[name] = ""
	return text, true
}

// showGroups brings the cgroup tree in line with the groups there are.
func (t *Tree) showGroups(groups []group) error {
	present := map[string]bool{}
	type total struct {
		cpu    []time.Duration
		system time.Duration
	}
	parents := map[string]*total{}
	add := func(of string, cpu []time.Duration, system time.Duration) {
		for dir := path.Dir(of); ; dir = path.Dir(dir) {
			p := parents[dir]
			if p == nil {
				p = &total{cpu: make([]time.Duration, len(cpu))}
				copy(p.cpu, t.finalBy[dir])
				p.system = t.final[dir]
				parents[dir] = p
			}
			for i, c := range cpu {
				p.cpu[i] += c
			}
			p.system += system
			if dir == "." {
				return
			}
		}
	}
	var err error
	for _, g := range groups {
		present[g.path] = true
	}
	for name, g := range t.pods {
		if present[name] {
			continue
		}
		delete(t.pods, name)
		err = errors.Join(err, t.vanish(name))
		if !g.pod {
			continue
		}
		for dir := path.Dir(name); ; dir = path.Dir(dir) { // what a pod used stays in its parents' counters
			if t.finalBy[dir] == nil {
				t.finalBy[dir] = make([]time.Duration, len(g.cpu))
			}
			for i, c := range g.cpu {
				t.finalBy[dir][i] += c
			}
			t.final[dir] += g.system
			if dir == "." {
				break
			}
		}
	}
	for _, g := range groups {
		top := g.pod || !strings.Contains(g.path, "kubepods")
		if top {
			add(g.path, g.cpu, g.system)
		}
	}
	names := make([]string, 0, len(parents))
	for name := range parents {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		err = errors.Join(err, t.showGroup(group{path: name, cpu: parents[name].cpu, system: parents[name].system}))
	}
	for _, g := range groups { // parents stand before their children
		if g.hidden {
			continue
		}
		t.pods[g.path] = g
		err = errors.Join(err, t.showGroup(g))
	}
	return err
}

// showGroup writes the files of one group.
func (t *Tree) showGroup(g group) error {
	var sum time.Duration
	for _, c := range g.cpu {
		sum += c
	}
	if t.Board.hierarchy.Version == 2 {
		text := fmt.Sprintf("usage_usec %d\nuser_usec %d\nsystem_usec %d\n", sum.Microseconds(), sum.Microseconds()-g.system.Microseconds(),
			g.system.Microseconds())
		files := []shown{{"cpu.stat", text, false}}
		if g.path != "." {
			files = append(files, shown{"cgroup.type", "domain\n", false})
		}
		if g.cpus != "" {
			files = append(files, shown{"cpuset.cpus", g.cpus + "\n", false}, shown{"cpuset.cpus.effective", g.cpus + "\n", false})
		}
		if g.quota > 0 {
			files = append(files, shown{"cpu.max", fmt.Sprintf("%.0f 100000\n", g.quota*1e5), false})
		}
		return t.putFolder(path.Join("sys/fs/cgroup", g.path), files)
	}
	var percpu strings.Builder
	for _, c := range g.cpu {
		fmt.Fprintf(&percpu, "%d ", c.Nanoseconds())
	}
	user := sum - g.system
	files := []shown{
		{"cpuacct.usage", fmt.Sprintf("%d\n", sum.Nanoseconds()), false}, {"cpuacct.usage_percpu", percpu.String() + "\n", false},
		{"cpuacct.stat", fmt.Sprintf("user %d\nsystem %d\n", user/userHZ, g.system/userHZ), false},
	}
	if g.quota > 0 {
		files = append(files, shown{"cpu.cfs_quota_us", fmt.Sprintf("%.0f\n", g.quota*1e5), false}, shown{"cpu.cfs_period_us", "100000\n", false})
	}
	err := t.putFolder(path.Join("sys/fs/cgroup/cpu,cpuacct", g.path), files)
	cpus := g.cpus
	if cpus == "" {
		cpus = fmt.Sprintf("0-%d", len(g.cpu)-1)
	}
	return errors.Join(err, t.putFolder(path.Join("sys/fs/cgroup/cpuset", g.path), []shown{{"cpuset.cpus", cpus + "\n", false}}))
}

// shown is a file to be shown.
type shown struct {
	path, text string
	control    bool
}

// putFolder shows a folder's files; a new folder appears with all of them.
func (t *Tree) putFolder(dir string, files []shown) error {
	if t.folders[dir] {
		var err error
		for _, f := range files {
			err = errors.Join(err, t.put(dir+"/"+f.path, f.text, f.control))
		}
		return err
	}
	full := filepath.Join(t.Dir, dir)
	if _, err := os.Stat(full); err == nil { // of an earlier run, or the root
		t.folders[dir] = true
		return t.putFolder(dir, files)
	}
	t.made++
	staging := filepath.Join(t.Dir, ".gone", fmt.Sprintf("new%d", t.made))
	if err := mkdir(staging); err != nil {
		return err
	}
	for _, f := range files {
		k, err := create(filepath.Join(staging, f.path), f.text)
		if err != nil {
			return err
		}
		t.files[dir+"/"+f.path] = k
	}
	if err := mkdir(filepath.Dir(full)); err != nil {
		return err
	}
	t.folders[dir] = true
	return os.Rename(staging, full)
}

// vanish takes a group's folders away in one step each.
func (t *Tree) vanish(name string) error {
	mounts := []string{"sys/fs/cgroup"}
	if t.Board.hierarchy.Version == 1 {
		mounts = []string{"sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuset"}
	}
	var errs []error
	for _, m := range mounts {
		dir := path.Join(m, name)
		for n, f := range t.files {
			if strings.HasPrefix(n, dir+"/") {
				errs = append(errs, f.f.Close())
				delete(t.files, n)
				delete(t.set, n)
			}
		}
		delete(t.folders, dir)
		t.made++
		trash := filepath.Join(t.Dir, ".gone", fmt.Sprintf("old%d", t.made))
		if err := os.Rename(filepath.Join(t.Dir, dir), trash); err != nil {
			if !errors.Is(err, fs.ErrNotExist) { // its parent went first
				errs = append(errs, err)
			}
			continue
		}
		errs = append(errs, os.RemoveAll(trash))
	}
	return errors.Join(errs...)
}

// functionActivity is an entry of activity.json.
type functionActivity struct {
	Workload  workload.ID `json:"workload"`
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	Function  string      `json:"function"`
	AtUs      int64       `json:"at_us"`
	InFlight  int64       `json:"in_flight"`
	Started   int64       `json:"started"`
	Completed int64       `json:"completed"`
}

func (b *Board) activityFile() []byte {
	list := []functionActivity{}
	for _, a := range b.activity(nil) {
		i := slices.IndexFunc(b.works, func(w *work) bool { return w.info.ID == a.ID })
		w := b.works[i].info
		list = append(list, functionActivity{w.ID, w.Namespace, w.Name, w.Function, a.At.Microseconds(), a.InFlight, a.Started, a.Completed})
	}
	text, _ := json.Marshal(list) // strings and integers always can
	return append(text, '\n')
}
