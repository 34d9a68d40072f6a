package cgroup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/workload"
)

const (
	cgroups = "/sys/fs/cgroup"
	burnEnv = "WATTLET_CGROUP_TEST_BURN"
)

// TestMain lets the test's own binary be the process that burns CPU time in a control group.
func TestMain(m *testing.M) {
	if d, err := time.ParseDuration(os.Getenv(burnEnv)); err == nil {
		for begin := cpuTime(); cpuTime()-begin < d; { // of its own, however long others keep it from that
		}
		return
	}
	os.Exit(m.Run())
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// hierarchies returns the mounts of this machine by version: where a group may be made, the files to move a process with and to
// read its CPU time from.
func hierarchies(t testing.TB) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{cgroups, cgroups + "/cpuacct", cgroups + "/cpu,cpuacct", cgroups + "/unified"} {
		if _, err := os.Stat(dir + "/cpuacct.usage"); err == nil {
			found["v1"] = dir
		}
		if _, err := os.Stat(dir + "/cgroup.controllers"); err == nil {
			found["v2"] = dir
		}
	}
	if len(found) == 0 {
		t.Skipf("no cgroup hierarchy with CPU time is mounted below %s", cgroups)
	}
	return found
}

func makeGroup(t testing.TB, root string, elems ...string) string {
	t.Helper()
	dir := filepath.Join(append([]string{root}, elems...)...)
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrPermission) || err != nil && strings.Contains(err.Error(), "read-only") {
		t.Skipf("a control group cannot be made: %v (needs root and a writable %s)", err, root)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	return dir
}

var start = time.Now()

func openKernel(t testing.TB, root string, change func(*cgroup.Options)) *cgroup.Reader {
	t.Helper()
	opt := cgroup.Options{
		CgroupRoot: root, ProcRoot: "/proc", SysRoot: "/sys", Uptime: func() time.Duration { return time.Hour + time.Since(start) },
	}
	if change != nil {
		change(&opt)
	}
	r, err := cgroup.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// cpu reads, and returns what is said of an ID, and whether it has ended.
func cpu(t testing.TB, r *cgroup.Reader, id workload.ID) (used time.Duration, found, ended bool) {
	t.Helper()
	s, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range s.Usage {
		if u.ID == id {
			used, found = used+u.CPU, true
		}
	}
	for _, e := range s.Ended {
		ended = ended || e == id
	}
	return used, found, ended
}

// burn uses CPU time in a process that starts in the group.
func burn(t testing.TB, group string, d time.Duration) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `echo $$ > "$1/cgroup.procs" && exec "$0"`, os.Args[0], group)
	cmd.Env = append(os.Environ(), burnEnv+"="+d.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestThisMachine(t *testing.T) {
	for version, root := range hierarchies(t) {
		for _, maxOpen := range []int{0, 1} { // all descriptors kept, and none but one
			t.Run(fmt.Sprintf("%s open %d", version, maxOpen), func(t *testing.T) {
				top := fmt.Sprintf("wattlet-test-%d", os.Getpid())
				makeGroup(t, root, top)
				leaf := makeGroup(t, root, top, "leaf")
				other := makeGroup(t, root, top, "other")
				id := workload.ID(top + "/leaf")
				r := openKernel(t, root, func(o *cgroup.Options) { o.MaxOpen = maxOpen })

				node0, _, _ := cpu(t, r, workload.Node)
				if used, found, _ := cpu(t, r, id); !found || used != 0 {
					t.Fatalf("new group: %v, %v", used, found)
				}
				burn(t, leaf, 300*time.Millisecond)
				used, _, _ := cpu(t, r, id)
				node1, _, _ := cpu(t, r, workload.Node)
				// What it burns, and the start of the process, which takes longer with the race detector.
				if used < 300*time.Millisecond || used > 800*time.Millisecond {
					t.Errorf("%v used", used)
				}
				if node1-node0 < used-50*time.Millisecond {
					t.Errorf("the node used %v, the group in it %v", node1-node0, used)
				}

				// Another one of the same name: the link count of the parent is as before.
				if err := os.Remove(leaf); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(leaf, 0o755); err != nil {
					t.Fatal(err)
				}
				if last, found, ended := cpu(t, r, id); !found || !ended || last != used {
					t.Errorf("anew: %v of %v, found %v, ended %v", last, used, found, ended)
				}
				if used, found, ended := cpu(t, r, id); !found || ended || used != 0 {
					t.Errorf("after it: %v, found %v, ended %v", used, found, ended)
				}
				// One goes and another comes, of another name.
				if err := os.Remove(other); err != nil {
					t.Fatal(err)
				}
				makeGroup(t, root, top, "third")
				if _, found, _ := cpu(t, r, workload.ID(top+"/third")); !found {
					t.Error("third is not there")
				}
				// More than one reading deep: found at once.
				makeGroup(t, root, top, "kubepods")
				makeGroup(t, root, top, "kubepods", "pod1")
				makeGroup(t, root, top, "kubepods", "pod1", "x")
				if _, found, _ := cpu(t, r, workload.ID(top+"/kubepods/pod1/x")); !found {
					t.Error("the container is not there")
				}
				if n := testing.AllocsPerRun(20, func() { _, _ = r.Read() }); n != 0 {
					t.Errorf("%v allocations a reading", n)
				}
			})
		}
	}
}

// BenchmarkRead has N containers in N pods, so 2 N directories and 3 N files, or N of them with Pods.
func BenchmarkRead(b *testing.B) {
	for version, root := range hierarchies(b) {
		for _, n := range []int{10, 50, 200} {
			for _, pods := range []bool{true, false} {
				b.Run(fmt.Sprintf("%s/n=%d/pods=%v", version, n, pods), func(b *testing.B) {
					top := fmt.Sprintf("wattlet-bench-%d", os.Getpid())
					makeGroup(b, root, top)
					makeGroup(b, root, top, "kubepods")
					for i := range n {
						pod := fmt.Sprintf("pod%d", i)
						makeGroup(b, root, top, "kubepods", pod)
						makeGroup(b, root, top, "kubepods", pod, hex("a"))
					}
					r := openKernel(b, root, func(o *cgroup.Options) { o.Pods = pods })
					s, err := r.Read()
					if err != nil {
						b.Fatal(err)
					}
					groups := len(s.Usage) - 1
					b.ReportAllocs()
					for b.Loop() {
						if _, err := r.Read(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(groups), "ns/workload")
				})
			}
		}
	}
}
