package boardsim

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// groups returns the control groups that exist: services, pods and their containers, and what is in
// the root group. It must be called with mu held.
func (b *Board) groups() []group {
	var list []group
	for _, w := range b.works {
		g := group{
			path: string(w.info.ID), cpu: slices.Clone(w.cpu), system: w.system, quota: w.quota, pod: w.uid != "", hidden: w == b.kernel,
		}
		if w.class >= 0 {
			k := b.clusters[w.class]
			g.cpus = span(k.first, k.count)
		}
		list = append(list, g)
		if !g.pod || w.state == stopping {
			continue
		}
		pause, main := g, g
		pause.pod, main.pod = false, false
		pause.path = path.Join(g.path, b.hierarchy.child(w.pause))
		main.path = path.Join(g.path, b.hierarchy.child(w.container))
		pause.cpu, pause.system, pause.quota = slices.Clone(w.sandbox), 0, 0
		main.cpu = slices.Clone(w.cpu)
		for i, c := range w.sandbox {
			main.cpu[i] -= c
		}
		list = append(list, pause, main)
	}
	return list
}

// span writes CPU numbers as the kernel does.
func span(first, count int) string {
	if count == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, first+count-1)
}

// kernelFiles returns the files of proc and sys other than control groups. It must be called with mu held.
func (b *Board) kernelFiles() []shown {
	const cpus = "sys/devices/system/cpu/"
	list := []shown{
		{"proc/stat", b.procStat(), false},
		{"proc/device-tree/model", b.spec.Model + "\x00", false},
		{cpus + "possible", span(0, len(b.cores)) + "\n", false},
		{cpus + "present", span(0, len(b.cores)) + "\n", false},
		{cpus + "online", b.onlineCPUs() + "\n", false},
		{"sys/class/thermal/thermal_zone0/type", "cpu-thermal\n", false},
		{"sys/class/thermal/thermal_zone0/temp", fmt.Sprintf("%d\n", int64(b.celsius*1000)), false},
	}
	fastest := 0.0
	for _, k := range b.clusters {
		fastest = max(fastest, k.ghz[len(k.ghz)-1]*k.Speed)
	}
	for n, k := range b.clusters {
		dir := fmt.Sprintf("%scpufreq/policy%d/", cpus, k.first)
		add := func(name string, text any, control bool) {
			list = append(list, shown{dir + name, fmt.Sprintln(text), control})
		}
		var all []string
		for i := range k.count {
			all = append(all, fmt.Sprint(k.first+i))
		}
		var points, inState []string
		for i, p := range k.Points {
			points = append(points, fmt.Sprint(p.KHz))
			inState = append(inState, fmt.Sprintf("%d %d", p.KHz, k.inState[i]/userHZ))
		}
		speed := "<unsupported>"
		if k.governor == Userspace {
			speed = fmt.Sprint(k.Points[k.rest()].KHz)
		}
		add("affected_cpus", strings.Join(all, " "), false)
		add("related_cpus", strings.Join(all, " "), false)
		add("cpuinfo_min_freq", k.Points[0].KHz, false)
		add("cpuinfo_max_freq", k.Points[len(k.Points)-1].KHz, false)
		add("cpuinfo_transition_latency", 150_000, false)
		add("scaling_driver", "cpufreq-dt", false)
		add("scaling_available_governors", strings.Join(Governors(), " "), false)
		add("scaling_available_frequencies", strings.Join(points, " ")+" ", false)
		add("scaling_governor", k.governor, true)
		add("scaling_min_freq", k.Points[k.min].KHz, true)
		add("scaling_max_freq", k.Points[k.max].KHz, true)
		add("scaling_setspeed", speed, true)
		add("scaling_cur_freq", k.Points[k.at].KHz, false)
		add("stats/time_in_state", strings.Join(inState, "\n"), false)
		add("stats/total_trans", k.transitions, false)
		for i := range k.count {
			cpu := fmt.Sprintf("%scpu%d/", cpus, k.first+i)
			capacity := int(1024*k.ghz[len(k.ghz)-1]*k.Speed/fastest + 0.5)
			list = append(list,
				shown{cpu + "cpu_capacity", fmt.Sprintln(capacity), false},
				shown{cpu + "topology/physical_package_id", fmt.Sprintln(n), false},
				shown{cpu + "topology/core_id", fmt.Sprintln(i), false},
				shown{cpu + "topology/core_siblings_list", span(k.first, k.count) + "\n", false},
			)
			if k.first+i > 0 {
				online := 0
				if b.cores[k.first+i].online {
					online = 1
				}
				list = append(list, shown{cpu + "online", fmt.Sprintln(online), true})
			}
		}
	}
	return list
}

func (b *Board) onlineCPUs() string {
	var parts []string
	for i := 0; i < len(b.cores); i++ {
		n := 0
		for i+n < len(b.cores) && b.cores[i+n].online {
			n++
		}
		if n > 0 {
			parts = append(parts, span(i, n))
			i += n
		}
	}
	return strings.Join(parts, ",")
}

// procStat is /proc/stat with the lines that matter (proc(5)).
func (b *Board) procStat() string {
	var s strings.Builder
	line := func(name string, user, system, idle time.Duration) {
		fmt.Fprintf(&s, "%s %d 0 %d %d 0 0 0 0 0 0\n", name, user/userHZ, system/userHZ, max(0, idle)/userHZ)
	}
	var user, system, idle time.Duration
	for _, c := range b.cores {
		user, system, idle = user+c.user, system+c.kernel, idle+max(0, b.now-c.user-c.kernel)
	}
	line("cpu ", user, system, idle)
	for i, c := range b.cores {
		if c.online {
			line(fmt.Sprintf("cpu%d", i), c.user, c.kernel, b.now-c.user-c.kernel)
		}
	}
	fmt.Fprintf(&s, "ctxt %d\nbtime 1763942400\nprocesses %d\nprocs_running %d\nprocs_blocked 0\n", b.switches, 1000+b.forked,
		min(9, max(1, len(b.run))))
	return s.String()
}
