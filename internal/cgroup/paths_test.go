package cgroup_test

import (
	"testing"

	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/workload"
)

func TestDescribe(t *testing.T) {
	const uid = "11111111-2222-3333-4444-555555555555"
	const uid_ = "11111111_2222_3333_4444_555555555555"
	const static = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		id              string
		kind            workload.Kind
		namespace, name string
		container, pod  string
	}{
		{"kubepods.slice/kubepods-pod" + uid_ + ".slice/cri-containerd-{a}.scope", workload.Pod, "", "{a}", "{a}", uid},
		{"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice", workload.Pod, "", uid, "", uid},
		{"kubepods/besteffort/pod" + uid + "/{b}", workload.Pod, "", "{b}", "{b}", uid},
		{"kubepods/pod" + static, workload.Pod, "", static, "", static},
		{"kubelet/kubepods/pod" + uid + "/{b}", workload.Pod, "", "{b}", "{b}", uid},
		{"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uid_ + ".slice/crio-{b}.scope", workload.Pod, "", "{b}", "{b}", uid},
		{"x.slice/kubepods-pod" + uid_ + ".slice:cri-containerd:{b}", workload.Pod, "", "{b}", "{b}", uid},
		{"kubepods.slice/kubepods-pod1.slice/crio-conmon-{a}.scope", workload.Pod, "", "{a}", "{a}", "1"},
		{"kubepods.slice", workload.Pod, "", "kubepods.slice", "", ""},
		{"kubelet/kubepods", workload.Pod, "", "kubepods", "", ""},
		{"kubelet/kubepods/burstable", workload.Pod, "", "burstable", "", ""},
		{"system.slice/k3s.service/kubepods/podx1/{d}", workload.Pod, "", "{d}", "{d}", "x1"},
		{"docker/{c}", workload.Pod, "", "{c}", "{c}", ""},
		{"system.slice/docker-{c}.scope", workload.Pod, "", "{c}", "{c}", ""},
		{"machine.slice/libpod-{c}.scope", workload.Pod, "", "{c}", "{c}", ""},
		{"machine.slice/machine-debian.scope", workload.Pod, "", "machine-debian.scope", "", ""},
		{"openfaas-fn/figlet", workload.Pod, "openfaas-fn", "figlet", "", ""},
		{"openfaas-fn", workload.System, "", "openfaas-fn", "", ""},
		{"openfaas-fn/pod-info", workload.Pod, "openfaas-fn", "pod-info", "", ""},
		{"system.slice/sshd.service", workload.System, "", "sshd.service", "", ""},
		{"system.slice/docker-aaaa.scope", workload.System, "", "docker-aaaa.scope", "", ""},
		{"machine.slice", workload.System, "", "machine.slice", "", ""},
		{"user.slice", workload.System, "", "user.slice", "", ""},
		{"lxc.payload.web", workload.Pod, "", "lxc.payload.web", "", ""},
		{"init.scope", workload.System, "", "init.scope", "", ""},
		{"@node", workload.System, "", "@node", "", ""},
		{"@kernel", workload.System, "", "@kernel", "", ""},
	} {
		id := workload.ID(expand(c.id))
		want := workload.Workload{ID: id, Kind: c.kind, Namespace: c.namespace, Name: expand(c.name)}
		if got := cgroup.Describe(id); got != want {
			t.Errorf("%s: %+v", c.id, got)
		}
		if got := cgroup.ContainerID(id); got != expand(c.container) {
			t.Errorf("%s: container %q", c.id, got)
		}
		if got := cgroup.PodUID(id); got != c.pod {
			t.Errorf("%s: pod %q", c.id, got)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{"", "/", "kubepods/pod1/" + hex("a"), "a-kubepods.slice/a-kubepods-pod1_2.slice", "x.slice:y:z", "@node", "pod.slice"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id := workload.ID(s)
		w := cgroup.Describe(id)
		if w.ID != id || w.Kind != workload.Pod && w.Kind != workload.System || w.Function != "" || w.Namespace != "" && w.Kind != workload.Pod {
			t.Errorf("%+v", w)
		}
		if c := cgroup.ContainerID(id); c != "" && (len(c) != 64 || w.Name != c || w.Kind != workload.Pod) {
			t.Errorf("%+v has container %q", w, c)
		}
		if u := cgroup.PodUID(id); u != "" && w.Kind != workload.Pod {
			t.Errorf("%+v has pod %q", w, u)
		}
	})
}
