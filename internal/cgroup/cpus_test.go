package cgroup_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/workload"
)

// node takes a reading and returns the node's classes and times, and the frequencies'.
func (g *rig) node() (usage, freq string) {
	g.t.Helper()
	g.now += 100 * time.Millisecond
	s, err := g.r.Read()
	if err != nil {
		g.t.Fatal(err)
	}
	var u, f []string
	for _, x := range s.Usage {
		if x.ID == workload.Node {
			u = append(u, strings.TrimSpace(fmt.Sprintf("%s %v", x.Class, x.CPU)))
		}
	}
	for _, x := range s.Frequency {
		f = append(f, strings.TrimSpace(fmt.Sprintf("%s %d %v", x.Class, x.KHz, x.Time)))
	}
	return strings.Join(u, ", "), strings.Join(f, ", ")
}

func TestNode(t *testing.T) {
	for archive, want := range map[string][2]string{
		// CPU 0: 100 + 20 + 30 + 6 + 7 = 163 ticks, CPU 1: 10 + 5 + 1 = 16; neither idle, iowait, steal nor guest.
		"v2-systemd-k3s": {"1.79s", "600000 10s, 1500000 2.5s"},
		"v1-jetson-nano": {"50ms", ""},
		"v1-odroid-xu4":  {"big 2.6s, little 1s", "big 200000 400ms, big 2000000 700ms, little 200000 500ms, little 1400000 600ms"},
		"v2-big-little":  {"big 40ms, little 30ms, mid 30ms", ""},
	} {
		g := newRig(t, archive).open(nil)
		if usage, freq := g.node(); usage != want[0] || freq != want[1] {
			t.Errorf("%s: %s; %s", archive, usage, freq)
		}
	}
}

func TestClasses(t *testing.T) {
	for archive, want := range map[string][]cgroup.Class{
		"v2-faasd":       {{CPUs: []int{0, 1}}}, // no sysfs
		"v1-jetson-nano": {{CPUs: []int{0, 1, 2, 3}, MaxKHz: 1479000, KHz: []int64{102000, 1479000}}},
		"v1-odroid-xu4": {
			{Name: "little", CPUs: []int{0, 1, 2, 3}, MaxKHz: 1400000, KHz: []int64{200000, 1400000}},
			{Name: "big", CPUs: []int{4, 5, 6, 7}, MaxKHz: 2000000, KHz: []int64{200000, 2000000}}},
		"v2-big-little": {{Name: "little", CPUs: []int{0, 1}}, {Name: "mid", CPUs: []int{2}}, {Name: "big", CPUs: []int{3}}},
	} {
		if got := newRig(t, archive).open(nil).r.Classes(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", archive, got, want)
		}
	}
}

// Capacity decides against frequency where both are there: the A73 of an Odroid-N2 are clocked lower than its A53. Small
// differences make no class.
func TestClassesByCapacity(t *testing.T) {
	g := newRig(t, "v1-odroid-xu4")
	for cpu := range 8 {
		capacity := 1024 - cpu/4*432
		g.set(fmt.Sprintf("sys/devices/system/cpu/cpu%d/cpu_capacity", cpu), fmt.Sprintln(capacity))
	}
	c := g.open(nil).r.Classes()
	if len(c) != 2 || c[0].Name != "little" || c[0].CPUs[0] != 4 || c[0].MaxKHz != 2000000 || c[1].Name != "big" {
		t.Errorf("%+v", c)
	}
	g.set("sys/devices/system/cpu/cpu7/cpu_capacity", "1010\n")
	for cpu := 4; cpu < 7; cpu++ {
		g.set(fmt.Sprintf("sys/devices/system/cpu/cpu%d/cpu_capacity", cpu), "900\n")
	}
	if c := g.open(nil).r.Classes(); len(c) != 1 || c[0].Name != "" || len(c[0].CPUs) != 8 {
		t.Errorf("%+v", c)
	}
}

// CPUs that go offline are missing in /proc/stat, and their policy in sysfs; both keep what they had, and may begin anew.
func TestHotplug(t *testing.T) {
	g := newRig(t, "v1-odroid-xu4").open(nil)
	g.node()
	g.set("proc/stat", "cpu  0\ncpu0 11 0 0 0 0 0 0\ncpu1 20 0 0 0 0 0 0\ncpu2 30 0 0 0 0 0 0\ncpu3 40 0 0 0 0 0 0\nintr 0\n")
	g.remove("sys/devices/system/cpu/cpufreq/policy4/stats")
	const freq = "big 200000 400ms, big 2000000 700ms, little 200000 500ms, little 1400000 600ms"
	if u, f := g.node(); u != "big 2.6s, little 1.01s" || f != freq {
		t.Errorf("offline: %s; %s", u, f)
	}
	stat := "cpu  0\ncpu0 11 0 0 0 0 0 0\ncpu4 55 0 0 0 0 0 0\ncpu7 79 0 0 0 0 0 0\nintr 0\n" // CPU 7 had 80: rounding
	g.set("proc/stat", stat)
	g.set("sys/devices/system/cpu/cpufreq/policy4/stats/time_in_state", "200000 3\n1000000 2\n2000000 71\n")
	const after = "big 200000 430ms, big 1000000 20ms, big 2000000 710ms, little 200000 500ms, little 1400000 600ms"
	if u, f := g.node(); u != "big 2.65s, little 1.01s" || f != after {
		t.Errorf("online: %s; %s", u, f)
	}
	g.set("proc/stat", "cpu0 1011 0 0 0 0 0 0\n")
	g.node()
	g.set("proc/stat", "cpu0 7 0 0 0 0 0 0\n") // began anew
	if u, _ := g.node(); u != "big 2.65s, little 11.08s" {
		t.Errorf("anew: %s", u)
	}
}
