package boardsim

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// tree returns an updated tree of a board.
func tree(t *testing.T, b *Board) *Tree {
	t.Helper()
	tr := &Tree{Board: b, Dir: t.TempDir()}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	update(t, tr)
	return tr
}

func update(t *testing.T, tr *Tree) {
	t.Helper()
	if err := tr.Update(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, tr *Tree, name ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{tr.Dir}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// groupCPU returns a group's CPU time as its files have it.
func groupCPU(t *testing.T, tr *Tree, id string) time.Duration {
	t.Helper()
	if tr.Board.hierarchy.Version == 1 {
		var sum int64
		for f := range strings.FieldsSeq(read(t, tr, "sys/fs/cgroup/cpuacct", id, "cpuacct.usage_percpu")) {
			sum += number(t, f)
		}
		if n := number(t, read(t, tr, "sys/fs/cgroup/cpuacct", id, "cpuacct.usage")); n != sum {
			t.Errorf("%s: usage %d, by CPU %d", id, n, sum)
		}
		return time.Duration(sum)
	}
	m := regexp.MustCompile(`^usage_usec (\d+)\nuser_usec (\d+)\nsystem_usec (\d+)\n$`).FindStringSubmatch(read(t, tr, "sys/fs/cgroup", id, "cpu.stat"))
	if m == nil {
		t.Fatalf("%s: cpu.stat %q", id, read(t, tr, "sys/fs/cgroup", id, "cpu.stat"))
	}
	if number(t, m[1]) != number(t, m[2])+number(t, m[3]) {
		t.Errorf("%s: %q", id, m)
	}
	return time.Duration(number(t, m[1])) * time.Microsecond
}

// The four ways control groups look, each with the counters the board has.
func TestTreeGroups(t *testing.T) {
	for _, h := range []Hierarchy{{1, Cgroupfs}, {1, Systemd}, {2, Cgroupfs}, {2, Systemd}} {
		t.Run(fmt.Sprint(h), func(t *testing.T) {
			f := gzip()
			f.Arrival.Rate, f.Class = 1, "big"
			b, err := New(Options{Board: "odroid-xu4", Seed: 1, Hierarchy: h, Scenario: Scenario{Functions: []Function{f}, Daemons: System()}})
			if err != nil {
				t.Fatal(err)
			}
			tr := tree(t, b)
			b.Advance(20 * time.Second)
			update(t, tr)
			var pods, all time.Duration
			for _, w := range b.Truth().Workloads {
				all += w.CPU
				if w.ID == workload.Kernel {
					continue
				}
				got := groupCPU(t, tr, string(w.ID))
				if d := w.CPU - got; d < 0 || d >= time.Microsecond {
					t.Errorf("%s: %v, the board says %v", w.ID, got, w.CPU)
				}
				if w.Kind == workload.System {
					if !strings.HasPrefix(string(w.ID), "system.slice/") {
						t.Errorf("service at %s", w.ID)
					}
					continue
				}
				pods += got
				shape := `^kubepods/besteffort/pod[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
				child := `^[0-9a-f]{64}$`
				if h.Driver == Systemd {
					shape = `^kubepods\.slice/kubepods-besteffort\.slice/kubepods-besteffort-pod[0-9a-f]{8}(_[0-9a-f]{4}){3}_[0-9a-f]{12}\.slice$`
					child = `^cri-containerd-[0-9a-f]{64}\.scope$`
				}
				if !regexp.MustCompile(shape).MatchString(string(w.ID)) {
					t.Errorf("pod at %s", w.ID)
				}
				mount := "sys/fs/cgroup"
				if h.Version == 1 {
					mount = "sys/fs/cgroup/cpu,cpuacct"
				}
				entries, err := os.ReadDir(filepath.Join(tr.Dir, mount, string(w.ID)))
				if err != nil {
					t.Fatal(err)
				}
				var sum time.Duration
				n := 0
				for _, e := range entries {
					if e.IsDir() {
						n++
						if !regexp.MustCompile(child).MatchString(e.Name()) {
							t.Errorf("container at %s", e.Name())
						}
						sum += groupCPU(t, tr, string(w.ID)+"/"+e.Name())
					}
				}
				if n != 2 || (got-sum).Abs() > 2*time.Microsecond {
					t.Errorf("%s: %v in %d containers, itself %v", w.ID, sum, n, got)
				}
				if w.Function != "" {
					name := []string{"sys/fs/cgroup", string(w.ID), "cpuset.cpus.effective"}
					if h.Version == 1 {
						name = []string{"sys/fs/cgroup/cpuset", string(w.ID), "cpuset.cpus"}
					}
					if s := read(t, tr, name...); s != "4-7\n" {
						t.Errorf("cpuset of a pod on the big cores is %q", s)
					}
				}
			}
			top := "kubepods"
			if h.Driver == Systemd {
				top = "kubepods.slice"
			}
			if got := groupCPU(t, tr, top); (got-pods).Abs() > 10*time.Microsecond || pods == 0 {
				t.Errorf("%s has %v, its pods %v", top, got, pods)
			}
			if got := groupCPU(t, tr, ""); (got-all).Abs() > 10*time.Microsecond || b.kernel.total() == 0 {
				t.Errorf("the root has %v, all together %v", got, all)
			}
			mounts := read(t, tr, "proc/self/mountinfo")
			if strings.Contains(mounts, " cgroup2 ") != (h.Version == 2) || strings.Contains(mounts, "cpuacct") != (h.Version == 1) {
				t.Errorf("mounts %q", mounts)
			}
		})
	}
}

func TestTreeKernelFiles(t *testing.T) {
	b := preset(t, "odroid-xu4", "faas-mix", 3)
	tr := tree(t, b)
	b.Advance(time.Minute)
	update(t, tr)
	stat := strings.Split(read(t, tr, "proc/stat"), "\n")
	var busy, idle [9]int64
	for i, line := range stat[:9] {
		f := strings.Fields(line)
		if want := map[bool]string{true: "cpu", false: fmt.Sprint("cpu", i-1)}[i == 0]; f[0] != want || len(f) != 11 {
			t.Fatalf("line %q", line)
		}
		busy[i], idle[i] = number(t, f[1])+number(t, f[3]), number(t, f[4])
		if i > 0 && (busy[i]+idle[i] < 5998 || busy[i]+idle[i] > 6000) {
			t.Errorf("%q does not add up to a minute of jiffies", line)
		}
	}
	if busy[0] == 0 || idle[0]+busy[0] < 47990 || idle[0]+busy[0] > 48000 {
		t.Errorf("%q does not add up to eight minutes of jiffies", stat[0])
	}
	const cpu = "sys/devices/system/cpu/"
	var states int64
	for line := range strings.SplitSeq(strings.TrimSpace(read(t, tr, cpu+"cpu5/cpufreq/stats/time_in_state")), "\n") {
		f := strings.Fields(line)
		if k := number(t, f[0]); k < 200_000 || k > 2_000_000 {
			t.Errorf("state %q", line)
		}
		states += number(t, f[1])
	}
	if states < 6000-19 || states > 6000 {
		t.Errorf("time in state adds up to %d jiffies in a minute", states)
	}
	for name, want := range map[string]string{
		"online": "0-7\n", "cpufreq/policy4/related_cpus": "4 5 6 7\n", "cpu7/cpu_capacity": "1024\n", "cpu0/cpu_capacity": "301\n",
		"cpu4/cpufreq/scaling_governor": "ondemand\n", "cpufreq/policy0/scaling_max_freq": "1400000\n",
		"cpufreq/policy4/scaling_setspeed": "<unsupported>\n",
	} {
		if got := read(t, tr, cpu+name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	var list []struct {
		Function  string `json:"function"`
		Completed int64  `json:"completed"`
	}
	if err := json.Unmarshal([]byte(read(t, tr, "activity.json")), &list); err != nil || len(list) < 5 {
		t.Errorf("activity %v, %v", list, err)
	}
}

// What is written into the files of cpufreq is obeyed or put back.
func TestTreeObeys(t *testing.T) {
	b := preset(t, "odroid-xu4", "idle", 3)
	tr := tree(t, b)
	const dir = "sys/devices/system/cpu/cpufreq/policy4/"
	b.TakeEvents()
	for _, tt := range []struct {
		file, text, want, event string
	}{
		{dir + "scaling_governor", "performance\n", "performance\n", "regime:big governor performance"},
		{dir + "scaling_governor", "powersave", "powersave\n", "regime:big governor powersave"},
		{dir + "scaling_governor", "turbo\n", "powersave\n", ""},
		{dir + "scaling_governor", "", "", ""}, // a shell has emptied it and will write
		{dir + "scaling_governor", "userspace\n", "userspace\n", "regime:big governor userspace"},
		{dir + "scaling_setspeed", "1400000\n", "1400000\n", "regime:big speed 1400000 kHz"},
		{dir + "scaling_max_freq", "1250000\n", "1200000\n", "regime:big limits 200000-1200000 kHz"},
		{dir + "scaling_min_freq", "nonsense\n", "200000\n", ""},
		{dir + "scaling_min_freq", "500000\n", "500000\n", "regime:big limits 500000-1200000 kHz"},
		{"sys/devices/system/cpu/cpu6/online", "0\n", "0\n", "regime:cpu6 online=false"},
	} {
		if err := os.WriteFile(filepath.Join(tr.Dir, tt.file), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		update(t, tr)
		update(t, tr)
		got := ""
		for _, e := range b.TakeEvents() {
			got += e.What
		}
		if text := read(t, tr, tt.file); text != tt.want || got != tt.event {
			t.Errorf("%q into %s: it holds %q, events %q; want %q and %q", tt.text, tt.file, text, got, tt.want, tt.event)
		}
	}
	if s := read(t, tr, dir, "scaling_cur_freq"); strings.TrimSpace(s) != "1200000" {
		t.Errorf("runs at %q", s)
	}
	if s := read(t, tr, "sys/devices/system/cpu/online"); strings.TrimSpace(s) != "0-5,7" {
		t.Errorf("online %q", s)
	}
	if err := b.SetGovernor("big", Performance); err != nil { // and the other way
		t.Fatal(err)
	}
	update(t, tr)
	if s := read(t, tr, dir, "scaling_governor"); s != "performance\n" {
		t.Errorf("governor %q", s)
	}
}

// A pod's containers go first, then the pod; its parents keep what it used.
func TestTreePodVanishes(t *testing.T) {
	for _, board := range []string{"raspberrypi-3b", "jetson-nano"} { // v2 and v1
		b := withFunctions(t, board, Function{Name: "cold", B: 0.5, Cold: true, IdleTimeout: time.Second})
		tr := tree(t, b)
		if err := b.Invoke("cold"); err != nil {
			t.Fatal(err)
		}
		mount, top := "sys/fs/cgroup", "kubepods.slice"
		if b.hierarchy.Version == 1 {
			mount, top = "sys/fs/cgroup/cpu,cpuacct", "kubepods"
		}
		children := func(pod string) int {
			n := 0
			entries, err := os.ReadDir(filepath.Join(tr.Dir, mount, pod))
			if err != nil {
				return -1
			}
			for _, e := range entries {
				if e.IsDir() {
					n++
				}
			}
			return n
		}
		var course []int
		var pod string
		var before time.Duration
		for b.Now() < 15*time.Second {
			b.Advance(b.Now() + 20*time.Millisecond)
			update(t, tr)
			for _, w := range b.Workloads() {
				if w.Function != "" {
					pod = string(w.ID)
				}
			}
			if pod == "" {
				continue
			}
			if n := children(pod); len(course) == 0 || course[len(course)-1] != n {
				course = append(course, n)
			}
			now := groupCPU(t, tr, top)
			if now < before {
				t.Fatalf("%s: %s fell from %v to %v", board, top, before, now)
			}
			before = now
		}
		if fmt.Sprint(course) != "[2 0 -1]" {
			t.Errorf("%s: containers of the pod: %v", board, course)
		}
		if before < 500*time.Millisecond {
			t.Errorf("%s: %s has %v", board, top, before)
		}
		left, err := os.ReadDir(filepath.Join(tr.Dir, ".gone"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: remains %v, %v", board, left, err)
		}
	}
}

// Readers that keep files open see whole, growing numbers while they are written.
func TestTreeReadersSeeWholeFiles(t *testing.T) {
	b := preset(t, "raspberrypi-3b", "many:10", 1)
	tr := tree(t, b)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	reads := make([]int, 3)
	for i, name := range []string{"sys/fs/cgroup/cpu.stat", "proc/stat", "sys/fs/cgroup/system.slice/k3s.service/cpu.stat"} {
		f, err := os.Open(filepath.Join(tr.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer f.Close()
			buf := make([]byte, 4096)
			last := int64(-1)
			for {
				select {
				case <-stop:
					return
				default:
				}
				n, _ := f.ReadAt(buf, 0)
				fields := strings.Fields(string(buf[:n]))
				if len(fields) < 6 || buf[n-1] != '\n' {
					t.Errorf("%s: short read %q", name, buf[:n])
					return
				}
				v, err := strconv.ParseInt(fields[1], 10, 64)
				if err != nil || v < last {
					t.Errorf("%s: %d after %d, %v", name, v, last, err)
					return
				}
				last = v
				reads[i]++
			}
		})
	}
	for range 400 {
		b.Advance(b.Now() + 50*time.Millisecond)
		update(t, tr)
	}
	close(stop)
	wg.Wait()
	if min(reads[0], reads[1], reads[2]) < 100 {
		t.Errorf("reads %v", reads)
	}
}

// A meter, a tree and a person use one board at once (for the race detector), and nothing is lost.
func TestConcurrentUse(t *testing.T) {
	b := preset(t, "odroid-xu4", "faas-mix", 1)
	tr := &Tree{Board: b, Dir: t.TempDir()}
	var wg sync.WaitGroup
	var drawn float64
	wg.Go(func() {
		l := b.Load()
		for at := time.Duration(0); at < 20*time.Second; at += time.Millisecond {
			drawn += l.Energy(at, at+time.Millisecond)
		}
	})
	wg.Go(func() {
		for i := range 100 {
			b.Advance(time.Duration(i) * 200 * time.Millisecond)
			if err := tr.Update(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for i := range 100 {
			if err := b.SetGovernor("", Governors()[i%5]); err != nil {
				t.Error(err)
			}
			_, _, _, _ = b.Truth(), b.Snapshot(), b.Activity(), b.Workloads()
			_, _ = b.TakeInvocations(), b.TakeEvents()
		}
	})
	wg.Wait()
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if e := b.Load().Energy(0, 20*time.Second); math.Abs(e-drawn) > 1e-6*e {
		t.Errorf("drew %.6f J, the meter saw %.6f J", e, drawn)
	}
}

// Run follows the clock it is given, in steps of its own, and ends with its context.
func TestTreeRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := preset(t, "coral", "faas-mix", 1)
		b.Advance(time.Second)
		tr := &Tree{Board: b, Dir: dir, Every: 20 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := tr.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if now := b.Now(); now < 10980*time.Millisecond || now > 11004*time.Millisecond {
			t.Errorf("the board is at %v after 10 s", now)
		}
	})
	files := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
		}
		return err
	})
	if err != nil || files < 60 {
		t.Errorf("%d files, %v", files, err)
	}
}

// BenchmarkTreeUpdate is one update of a tree with 20 functions.
func BenchmarkTreeUpdate(b *testing.B) {
	board := preset(b, "odroid-xu4", "many:20", 1)
	tr := &Tree{Board: board, Dir: b.TempDir()}
	defer tr.Close()
	for b.Loop() {
		board.Advance(board.Now() + 50*time.Millisecond)
		if err := tr.Update(); err != nil {
			b.Fatal(err)
		}
	}
}
