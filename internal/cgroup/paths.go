package cgroup

import (
	"strings"

	"github.com/wattlet/wattlet/internal/workload"
)

// Describe returns what the path alone tells of a workload. What is below a kubelet's root, in a container, in machine.slice or of
// LXC is a Pod, named by its pod's UID or its container's ID; a path of two plain elements is a container of containerd's namespace and
// name, as faasd makes them (openfaas-fn/figlet); all else is System and bears its last element's name.
func Describe(id workload.ID) workload.Workload {
	path := string(id)
	w := workload.Workload{ID: id, Kind: workload.System, Name: path[strings.LastIndexByte(path, '/')+1:]}
	if container, pod := ContainerID(id), PodUID(id); container != "" || pod != "" {
		w.Kind = workload.Pod
		if w.Name = container; container == "" {
			w.Name = pod
		}
		return w
	}
	first, rest, nested := strings.Cut(path, "/")
	switch {
	case first == "machine.slice" && nested, strings.HasPrefix(first, "lxc.payload."):
		w.Kind = workload.Pod
	case nested && !strings.Contains(rest, "/") && !isUnit(first) && !isUnit(rest) && !isKubeRoot(first) && !isKubeRoot(rest):
		w.Kind, w.Namespace = workload.Pod, first
	default:
		for elem := range strings.SplitSeq(path, "/") {
			if isKubeRoot(elem) {
				w.Kind = workload.Pod
			}
		}
	}
	return w
}

// ContainerID returns the ID, 64 hexadecimal digits, that ends a container's path, be it alone (cgroupfs), in a scope
// (cri-containerd-ID.scope, crio-ID.scope, docker-ID.scope, libpod-ID.scope; crio-conmon-ID.scope, its monitor) or after colons
// (kubepods-podUID.slice:cri-containerd:ID, where kubelet and runtime disagree about the driver). Empty if there is none.
func ContainerID(id workload.ID) string {
	return containerID(string(id[strings.LastIndexByte(string(id), '/')+1:]))
}

func containerID(elem string) string {
	elem = strings.TrimSuffix(elem, ".scope")
	elem = elem[strings.LastIndexAny(elem, "-:")+1:]
	if len(elem) != 64 {
		return ""
	}
	for _, c := range []byte(elem) {
		if (c < '0' || '9' < c) && (c < 'a' || 'f' < c) {
			return ""
		}
	}
	return elem
}

// PodUID returns the UID of the pod in whose directory the path ends or passes, as the API writes it. A static pod's is 32 digits
// without dashes, the annotation kubernetes.io/config.hash of its API object. Empty if there is none.
func PodUID(id workload.ID) string {
	kube := false
	for elem := range strings.SplitSeq(string(id), "/") {
		if kube || strings.Contains(elem, "kubepods") {
			if uid := podUID(elem); uid != "" {
				return uid
			}
		}
		kube = kube || isKubeRoot(elem)
	}
	return ""
}

// podUID reads podUID and anything-podUID.slice, with what may follow a colon.
func podUID(elem string) string {
	elem, _, _ = strings.Cut(elem, ":")
	uid, ok := strings.CutPrefix(elem, "pod")
	if name, slice := strings.CutSuffix(elem, ".slice"); slice {
		i := strings.LastIndex(name, "-pod")
		if ok = i >= 0; ok {
			uid = name[i+len("-pod"):]
		}
	}
	if !ok {
		return ""
	}
	for _, c := range []byte(uid) {
		if (c < '0' || '9' < c) && (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && c != '-' && c != '_' {
			return ""
		}
	}
	return strings.ReplaceAll(uid, "_", "-")
}

// isKubeRoot is true for the directory that holds all pods of a kubelet; a --cgroup-root puts a prefix before a slice's name.
func isKubeRoot(elem string) bool {
	return elem == "kubepods" || elem == "kubepods.slice" || strings.HasSuffix(elem, "-kubepods.slice")
}

// isUnit is true for the names that systemd gives to control groups.
func isUnit(elem string) bool {
	i := strings.LastIndexByte(elem, '.')
	switch elem[max(i, 0):] {
	case ".slice", ".scope", ".service", ".mount", ".swap", ".socket":
		return true
	}
	return false
}

// place says what a directory is to the partition, and by that what its children are.
type place uint8

const (
	ignored place = iota // not read: part of its parent
	whole                // one workload with all below it
	top                  // the hierarchy's root: not read
	slice                // a systemd slice: units below it are workloads
	inner                // a slice below a slice: the same, but not itself read
	group                // any other directory with workloads as children
	service              // a unit, where a runtime may have put containers
	kube                 // the root of a kubelet
	qos                  // a quality-of-service class below it: not itself read
	pod
)

// counted is true for places that are workloads themselves.
func (p place) counted() bool { return p != ignored && p != top && p != inner && p != qos }

// locate decides what the directory name is to its parent's place; see the package comment for the rule.
func locate(parent place, name string, pods bool) place {
	switch parent {
	case kube, qos:
		switch {
		case podUID(name) != "" && pods:
			return whole
		case podUID(name) != "":
			return pod
		case name == "burstable", name == "besteffort", name == "guaranteed", strings.HasSuffix(name, ".slice"):
			return qos
		}
		return whole
	case pod:
		return whole
	}
	switch {
	case isKubeRoot(name):
		return kube
	case containerID(name) != "":
		return whole
	case parent == service:
		return ignored
	case strings.HasSuffix(name, ".service"):
		return service
	case parent == group, isUnit(name) && !strings.HasSuffix(name, ".slice"):
		return whole
	case parent == slice || parent == inner:
		if strings.HasSuffix(name, ".slice") {
			return inner
		}
		return whole
	case name == "user.slice", strings.HasPrefix(name, "lxc."):
		return whole
	case strings.HasPrefix(name, "@"): // the names that are not control groups
		return ignored
	case strings.HasSuffix(name, ".slice"):
		return slice
	}
	return group
}
