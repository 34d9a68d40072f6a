package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/workload"
)

// rig is a node in a temporary directory, with a clock that moves a microsecond each time it is read.
type rig struct {
	t    testing.TB
	root string
	now  time.Duration
	r    *cgroup.Reader
}

// hex returns what stands for a container's ID in the archives.
func hex(digit string) string { return strings.Repeat(digit, 64) }

func expand(s string) string {
	for _, d := range []string{"a", "b", "c", "d"} {
		s = strings.ReplaceAll(s, "{"+d+"}", hex(d))
	}
	return s
}

func newRig(t testing.TB, archive string) *rig {
	t.Helper()
	g := &rig{t: t, root: t.TempDir(), now: time.Hour}
	for _, dir := range []string{"proc", "sys", "cgroup"} {
		if err := os.Mkdir(filepath.Join(g.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if archive == "" {
		return g
	}
	a, err := txtar.ParseFile(filepath.Join("testdata", archive+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		g.set(f.Name, string(f.Data))
	}
	return g
}

// set writes a file, and makes its directory.
func (g *rig) set(path, text string) {
	g.t.Helper()
	path = filepath.Join(g.root, expand(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// use sets a counter of version 2, in microseconds.
func (g *rig) use(group string, us int64) {
	g.t.Helper()
	g.set("cgroup/"+group+"/cpu.stat", fmt.Sprintf("usage_usec %d\nuser_usec 0\nsystem_usec %d\n", us, us))
}

func (g *rig) remove(path string) {
	g.t.Helper()
	if err := os.RemoveAll(filepath.Join(g.root, expand(path))); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) options() cgroup.Options {
	return cgroup.Options{
		CgroupRoot: filepath.Join(g.root, "cgroup"), ProcRoot: filepath.Join(g.root, "proc"), SysRoot: filepath.Join(g.root, "sys"),
		Uptime: func() time.Duration { g.now += time.Microsecond; return g.now },
	}
}

func (g *rig) open(change func(*cgroup.Options)) *rig {
	g.t.Helper()
	opt := g.options()
	if change != nil {
		change(&opt)
	}
	r, err := cgroup.New(opt)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			g.t.Error(err)
		}
	})
	g.r = r
	return g
}

// read takes a reading after 100 ms and returns it as text: ID, class and CPU time of each usage but the node's, then the ended.
func (g *rig) read() string {
	g.t.Helper()
	text, err := g.tryRead()
	if err != nil {
		g.t.Fatal(err)
	}
	return text
}

func (g *rig) tryRead() (string, error) {
	g.t.Helper()
	g.now += 100 * time.Millisecond
	before := g.now
	s, err := g.r.Read()
	var b strings.Builder
	prev := workload.Usage{}
	var node, last time.Duration
	for i, u := range s.Usage {
		if i > 0 && (u.ID < prev.ID || u.ID == prev.ID && u.Class <= prev.Class) {
			g.t.Errorf("%s %q after %s %q", u.ID, u.Class, prev.ID, prev.Class)
		}
		if u.At <= before || u.At >= s.At {
			g.t.Errorf("%s dated %v, outside of %v to %v", u.ID, u.At, before, s.At)
		}
		prev = u
		if u.ID == workload.Node {
			node = u.At
			continue
		}
		last = max(last, u.At)
		fmt.Fprintf(&b, "%s %v\n", strings.TrimRight(string(u.ID)+" "+u.Class, " "), u.CPU)
	}
	if node != 0 && node <= last {
		g.t.Errorf("node read at %v, a group at %v", node, last)
	}
	for _, id := range s.Ended {
		fmt.Fprintf(&b, "ended %s\n", id)
	}
	return b.String(), err
}

func (g *rig) want(what, want string) {
	g.t.Helper()
	if got := g.read(); got != lines(want) {
		g.t.Errorf("%s:\n%s\nwant:\n%s", what, short(got), short(lines(want)))
	}
}

// lines expands a wanted text that is indented in the source.
func lines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(expand(s)) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func short(s string) string {
	for _, d := range []string{"a", "b", "c", "d"} {
		s = strings.ReplaceAll(s, hex(d), "{"+d+"}")
	}
	return s
}

func TestTrees(t *testing.T) {
	const pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice"
	const crio = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod11111111_2222_3333_4444_555555555555.slice"
	for _, c := range []struct {
		archive, name string
		pods          bool
		roots         []string
		want          string
	}{
		// k3s.service is whole; system.slice has 500 - (30 + 400 + 5 + 1) = 64 ms of its own, kubepods.slice 900 - 580 - 290 = 30,
		// the pod 580 - 530 = 50.
		{"v2-systemd-k3s", "cgroup v2 at ", false, nil, `
			init.scope 40ms
			kubepods.slice 30ms
			` + pod + ` 50ms
			` + pod + `/cri-containerd-{a}.scope 30ms
			` + pod + `/cri-containerd-{b}.scope 500ms
			kubepods.slice/kubepods-pod9999.slice 0s
			kubepods.slice/kubepods-pod9999.slice/cri-containerd-{c}.scope 290ms
			system.slice 64ms
			system.slice/boot.mount 1ms
			system.slice/k3s.service 400ms
			system.slice/ssh.service 30ms
			system.slice/system-getty.slice/getty@tty1.service 5ms
			user.slice 70ms`},
		{"v2-systemd-k3s", "cgroup v2 at ", true, []string{"user.slice"}, `
			init.scope 40ms
			kubepods.slice 30ms
			` + pod + ` 580ms
			kubepods.slice/kubepods-pod9999.slice 290ms
			system.slice 64ms
			system.slice/boot.mount 1ms
			system.slice/k3s.service 400ms
			system.slice/ssh.service 30ms
			system.slice/system-getty.slice/getty@tty1.service 5ms
			user.slice 1ms
			user.slice/user-1000.slice 69ms`},
		{"v2-cgroupfs", "cgroup v2 at ", false, nil, `
			kubelet 100µs
			kubelet/kubepods 100µs
			kubelet/kubepods/pod0123456789abcdef0123456789abcdef 0s
			kubelet/kubepods/pod0123456789abcdef0123456789abcdef/{c} 600µs
			kubepods 100µs
			kubepods/besteffort/pod11111111-2222-3333-4444-555555555555 100µs
			kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/{a} 300µs
			kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/{b} 500µs
			system.slice 1ms
			system.slice/k3s.service 1.5ms
			system.slice/k3s.service/kubepods 500µs
			system.slice/k3s.service/kubepods/podx1 0s
			system.slice/k3s.service/kubepods/podx1/{d} 2ms`},
		{"v1-jetson-nano", "cgroup v1 at ", false, nil, `
			docker 50ns
			docker/{a} 650ns
			kubepods 100ns
			kubepods/burstable/pod11111111-2222-3333-4444-555555555555 20ns
			kubepods/burstable/pod11111111-2222-3333-4444-555555555555/{b} 880ns
			system.slice 10ns
			system.slice/k3s.service 50ns
			user.slice 7ns`},
		// Little is CPUs 0 to 3: 10 - 4 - 6 = 0; big 260 - 200.
		{"v1-odroid-xu4", "cgroup v1 at ", false, nil, `
			openfaas-fn big 60ns
			openfaas-fn/figlet big 200ns
			openfaas-fn/figlet little 4ns
			openfaas-fn/pinned little 6ns`},
		{"v2-crio", "cgroup v2 at ", false, nil, `
			kubepods.slice 10µs
			` + crio + ` 40µs
			` + crio + `/crio-{a}.scope 200µs
			` + crio + `/crio-conmon-{a}.scope 50µs
			machine.slice 0s
			machine.slice/libpod-{b}.scope 60µs
			machine.slice/machine-debian.scope 40µs
			system.slice 0s
			system.slice/crio.service 10µs
			system.slice/docker-{c}.scope 80µs`},
		{"v2-faasd", "cgroup v2 at ", false, nil, `
			openfaas 0s
			openfaas-fn 100µs
			openfaas-fn/env 300µs
			openfaas-fn/figlet 600µs
			openfaas/gateway 70µs
			openfaas/nats 30µs
			system.slice 0s
			system.slice/faasd-provider.service 10µs
			system.slice/faasd.service 30µs`},
		{"hybrid", "cgroup v1 at ", false, nil, `
			docker 1µs
			docker/{a} 3µs`},
		{"v2-big-little", "cgroup v2 at ", false, nil, `
			openfaas-fn 100µs
			openfaas-fn/free 300µs
			openfaas-fn/pinned little 600µs`},
	} {
		t.Run(fmt.Sprintf("%s pods=%v", c.archive, c.pods), func(t *testing.T) {
			g := newRig(t, c.archive).open(func(o *cgroup.Options) { o.Pods, o.Roots = c.pods, c.roots })
			g.want("first", c.want)
			g.want("second", c.want)
			if !strings.HasPrefix(g.r.String(), c.name) {
				t.Errorf("%s, want %s", g.r, c.name)
			}
		})
	}
}

func TestNewFails(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*rig, *cgroup.Options)
		want   string
	}{
		"clock":        {func(_ *rig, o *cgroup.Options) { o.Uptime = nil }, "no clock"},
		"no root":      {func(_ *rig, o *cgroup.Options) { o.CgroupRoot += "/none" }, "no such file"},
		"no hierarchy": {func(g *rig, _ *cgroup.Options) { g.remove("cgroup/cgroup.controllers") }, "neither cgroup.controllers"},
		"old kernel": {func(g *rig, _ *cgroup.Options) {
			for _, dir := range []string{"openfaas", "openfaas-fn", "system.slice"} {
				g.set("cgroup/"+dir+"/cpu.stat", "nr_periods 0\n")
			}
		}, "4.15"},
		"no stat":    {func(g *rig, _ *cgroup.Options) { g.remove("proc/stat") }, "proc/stat"},
		"wrong stat": {func(g *rig, _ *cgroup.Options) { g.set("proc/stat", "cpu0 1 2\n") }, "proc/stat"},
	} {
		g := newRig(t, "v2-faasd")
		opt := g.options()
		c.change(g, &opt)
		if _, err := cgroup.New(opt); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// faasd is what is left of the tree of that name for tests of changes.
func faasd(t *testing.T, change func(*cgroup.Options)) *rig {
	t.Helper()
	g := newRig(t, "v2-faasd")
	g.remove("cgroup/openfaas")
	g.remove("cgroup/system.slice")
	g.open(change)
	g.want("first", `
		openfaas-fn 100µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 600µs`)
	return g
}

func TestVanished(t *testing.T) {
	g := faasd(t, nil)
	g.use("openfaas-fn/figlet", 700)
	g.use("openfaas-fn", 1100)
	g.read()
	g.remove("cgroup/openfaas-fn/figlet")
	g.use("openfaas-fn", 1150) // 50 µs more than anybody saw of figlet
	g.want("vanished", `
		openfaas-fn 150µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 700µs
		ended openfaas-fn/figlet`)
	g.want("after it", `
		openfaas-fn 150µs
		openfaas-fn/env 300µs`)
	g.use("openfaas-fn/new", 20)
	g.use("openfaas-fn", 1175)
	g.want("another", `
		openfaas-fn 155µs
		openfaas-fn/env 300µs
		openfaas-fn/new 20µs`)
	g.remove("cgroup/openfaas-fn")
	g.want("all", `
		openfaas-fn 155µs
		openfaas-fn/env 300µs
		openfaas-fn/new 20µs
		ended openfaas-fn
		ended openfaas-fn/env
		ended openfaas-fn/new`)
	g.want("none", ``)
}

// One that takes the place of another between two readings ends it first, and is told of in the sample after.
func TestCreatedAnew(t *testing.T) {
	g := faasd(t, nil)
	g.remove("cgroup/openfaas-fn/figlet")
	g.use("openfaas-fn/figlet", 40)
	g.use("openfaas-fn", 1050) // 10 µs of the old one's were not seen
	g.want("anew", `
		openfaas-fn 110µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 600µs
		ended openfaas-fn/figlet`)
	g.use("openfaas-fn/figlet", 90)
	g.use("openfaas-fn", 1100)
	g.want("and on", `
		openfaas-fn 110µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 90µs`)

	// A whole subtree whose counter falls: what is in it ends with it. Env's counter is older than the new parent's, so its past
	// is not counted again.
	g.use("openfaas-fn", 5)
	g.use("openfaas-fn/env", 50_000)
	g.want("subtree", `
		openfaas-fn 110µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 90µs
		ended openfaas-fn
		ended openfaas-fn/env
		ended openfaas-fn/figlet`)
	g.use("openfaas-fn", 1005)
	g.use("openfaas-fn/env", 50_600)
	g.want("and on", `
		openfaas-fn 315µs
		openfaas-fn/env 600µs
		openfaas-fn/figlet 90µs`)
}

func TestUnreadable(t *testing.T) {
	g := faasd(t, nil)
	g.set("cgroup/openfaas-fn/figlet/cpu.stat", "usage_usec many\n")
	g.use("openfaas-fn/env", 400)
	g.use("openfaas-fn", 1300)
	got, err := g.tryRead()
	if err == nil || strings.Count(err.Error(), "\n") != 0 || !strings.Contains(err.Error(), "openfaas-fn/figlet/cpu.stat") {
		t.Errorf("error %v", err)
	}
	// 200 µs of figlet's are in the parent, which cannot tell.
	if want := "openfaas-fn 300µs\nopenfaas-fn/env 400µs\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	g.use("openfaas-fn/figlet", 800)
	g.want("readable again, the time between stays where it was counted", `
		openfaas-fn 300µs
		openfaas-fn/env 400µs
		openfaas-fn/figlet 600µs`)
	g.use("openfaas-fn/figlet", 810)
	g.use("openfaas-fn", 1310)
	g.want("and on", `
		openfaas-fn 300µs
		openfaas-fn/env 400µs
		openfaas-fn/figlet 610µs`)

	g.set("cgroup/openfaas-fn/figlet/cpu.stat", "")
	g.set("cgroup/openfaas-fn/env/cpu.stat", "")
	g.set("proc/stat", "")
	got, err = g.tryRead()
	if want := "openfaas-fn 300µs\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "and 1 more") {
		t.Errorf("one line a source: %v", err)
	}
}

// A pod's counter that cannot be read costs what the pod has of its own; its containers count on, and only with themselves.
func TestUnreadableParent(t *testing.T) {
	g := newRig(t, "")
	g.set("proc/stat", "cpu0 1 0 0 0 0 0 0\n")
	g.set("cgroup/cgroup.controllers", "cpu\n")
	set := func(kube, pod, container int64) {
		g.use("kubepods", kube)
		g.use("kubepods/pod1/x", container)
		if pod < 0 {
			g.set("cgroup/kubepods/pod1/cpu.stat", "")
		} else {
			g.use("kubepods/pod1", pod)
		}
	}
	step := func(what string, kube, pod, container int64, want string) {
		t.Helper()
		set(kube, pod, container)
		if got, err := g.tryRead(); got != lines(want) || (err == nil) != (pod >= 0) {
			t.Errorf("%s: %v\n%s\nwant\n%s", what, err, got, lines(want))
		}
	}
	set(10, -1, 7)
	g.open(nil)
	step("at first", 10, -1, 7, "kubepods 3µs\nkubepods/pod1/x 7µs")
	step("still", 110, -1, 97, "kubepods 13µs\nkubepods/pod1/x 97µs")
	step("readable", 115, 102, 99, "kubepods 16µs\nkubepods/pod1 0s\nkubepods/pod1/x 99µs")
	step("and on", 125, 110, 104, "kubepods 18µs\nkubepods/pod1 3µs\nkubepods/pod1/x 104µs")
	step("again", 225, -1, 194, "kubepods 28µs\nkubepods/pod1/x 194µs")
	step("readable", 235, 215, 199, "kubepods 33µs\nkubepods/pod1 3µs\nkubepods/pod1/x 199µs")
}

func TestLimit(t *testing.T) {
	g := faasd(t, func(o *cgroup.Options) { o.MaxWorkloads = 3 })
	g.use("openfaas-fn/late", 70)
	g.use("openfaas-fn", 1070)
	for range 2 {
		got, err := g.tryRead()
		if !errors.Is(err, cgroup.ErrLimit) {
			t.Errorf("error %v", err)
		}
		if want := "openfaas-fn 170µs\nopenfaas-fn/env 300µs\nopenfaas-fn/figlet 600µs\n"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// Once there is room, what it used by then stays with its parent if it is more than the parent had since.
	g.use("openfaas-fn/late", 80_000)
	g.use("openfaas-fn", 81_000)
	if _, err := g.tryRead(); err == nil {
		t.Error("no error")
	}
	g.remove("cgroup/openfaas-fn/env")
	if got, err := g.tryRead(); !errors.Is(err, cgroup.ErrLimit) || !strings.Contains(got, "ended openfaas-fn/env") {
		t.Errorf("%s, %v", got, err)
	}
	g.now += 5 * time.Second
	g.want("room", `
		openfaas-fn 80.1ms
		openfaas-fn/figlet 600µs
		openfaas-fn/late 0s`)
	g.use("openfaas-fn/late", 80_500)
	g.use("openfaas-fn", 81_500)
	g.want("and on", `
		openfaas-fn 80.1ms
		openfaas-fn/figlet 600µs
		openfaas-fn/late 500µs`)
}

// A parent's counter is read before its children's, which may be ahead of it: what is left to it stands still then.
func TestParentNeverFalls(t *testing.T) {
	g := faasd(t, nil)
	g.use("openfaas-fn/figlet", 640)
	g.want("ahead", `
		openfaas-fn 100µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 640µs`)
	g.use("openfaas-fn", 1050)
	g.want("caught up", `
		openfaas-fn 110µs
		openfaas-fn/env 300µs
		openfaas-fn/figlet 640µs`)
}

func TestCpusetChanges(t *testing.T) {
	g := newRig(t, "v2-big-little").open(nil)
	g.read()
	g.use("openfaas-fn/pinned", 700)
	g.use("openfaas-fn", 1100)
	g.set("cgroup/openfaas-fn/pinned/cpuset.cpus.effective", "3\n")
	g.want("not looked at", `
		openfaas-fn 100µs
		openfaas-fn/free 300µs
		openfaas-fn/pinned little 700µs`)
	g.now += 5 * time.Second
	g.use("openfaas-fn/pinned", 800)
	g.use("openfaas-fn", 1200)
	g.want("moved in between: no class", `
		openfaas-fn 100µs
		openfaas-fn/free 300µs
		openfaas-fn/pinned 100µs
		openfaas-fn/pinned little 700µs`)
	g.use("openfaas-fn/pinned", 950)
	g.use("openfaas-fn", 1350)
	g.want("moved", `
		openfaas-fn 100µs
		openfaas-fn/free 300µs
		openfaas-fn/pinned 100µs
		openfaas-fn/pinned big 150µs
		openfaas-fn/pinned little 700µs`)
	g.use("openfaas-fn/new", 10)
	g.set("cgroup/openfaas-fn/new/cpuset.cpus.effective", "2-3\n")
	g.use("openfaas-fn/mid", 20)
	g.set("cgroup/openfaas-fn/mid/cpuset.cpus.effective", "2\n")
	g.use("openfaas-fn", 1380)
	g.want("looked at when new", `
		openfaas-fn 100µs
		openfaas-fn/free 300µs
		openfaas-fn/mid mid 20µs
		openfaas-fn/new 10µs
		openfaas-fn/pinned 100µs
		openfaas-fn/pinned big 150µs
		openfaas-fn/pinned little 700µs`)
}

// Nothing may be allocated by a reading that finds the workloads of the last, with descriptors kept or not, also when it is one
// that looks at everything.
func TestReadAllocatesNothing(t *testing.T) {
	for _, archive := range []string{"v2-systemd-k3s", "v1-odroid-xu4", "v2-big-little"} {
		g := newRig(t, archive).open(nil)
		read := func() {
			g.now += time.Second
			if _, err := g.r.Read(); err != nil {
				t.Fatal(err)
			}
		}
		read()
		if n := testing.AllocsPerRun(20, read); n != 0 {
			t.Errorf("%s: %v allocations a reading", archive, n)
		}
	}
}

func TestEndedIsSorted(t *testing.T) {
	g := newRig(t, "v2-systemd-k3s").open(nil)
	g.read()
	g.remove("cgroup/user.slice")
	g.remove("cgroup/kubepods.slice")
	g.remove("cgroup/init.scope")
	s, err := g.r.Read()
	if err != nil || len(s.Ended) != 8 || !slices.IsSorted(s.Ended) {
		t.Errorf("%v, %v", s.Ended, err)
	}
}
