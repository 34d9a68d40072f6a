package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/kube"
	"github.com/wattlet/wattlet/internal/workload"
)

// rawFunction says which workloads serve a function.
type rawFunction struct {
	// Workload is the path of a control group, or a pattern for it (as of a shell); the groups below it are meant too.
	Workload string `yaml:"workload"`
	// Node confines the entry to one node.
	Node      string `yaml:"node"`
	Namespace string `yaml:"namespace"`
	Function  string `yaml:"function"`
	// Name is the workload's; default the last element of its path.
	Name string `yaml:"name"`
	// CPURequest is the number of cores that the workload has reserved.
	CPURequest float64 `yaml:"cpu_request"`
	// Watchdog is the URL of the metrics of the function's watchdog.
	Watchdog string `yaml:"watchdog"`
	line     int
}

// UnmarshalYAML is as rawMeter's.
func (f *rawFunction) UnmarshalYAML(n *yaml.Node) error {
	type plain rawFunction
	if err := knownKeys(n, "workload", "node", "namespace", "function", "name", "watchdog", "cpu_request"); err != nil {
		return err
	}
	f.line = n.Line
	return n.Decode((*plain)(f))
}

// check finds what is wrong with an entry.
func (f *rawFunction) check() error {
	if f.Workload == "" || f.Function == "" {
		return errors.New("a function needs workload and function, as {workload: openfaas-fn/gzip, namespace: openfaas-fn, function: gzip}")
	}
	if _, err := path.Match(f.Workload, ""); err != nil {
		return fmt.Errorf("workload %q is not a pattern: %w", f.Workload, err)
	}
	if !(f.CPURequest >= 0) {
		return fmt.Errorf("cpu_request %v: give the reserved cores, as 0.25", f.CPURequest)
	}
	return nil
}

// parseFunctions reads a file that holds nothing but functions. name is for errors.
func parseFunctions(name string, b []byte) ([]rawFunction, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var fs []rawFunction
	err := dec.Decode(&fs)
	var at *lineError
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case errors.As(err, &at):
		return nil, usagef("%s:%d: %s", name, at.line, at.msg)
	case err != nil:
		return nil, usagef("%s: %s", name, strings.Join(strings.Fields(err.Error()), " "))
	}
	for i := range fs {
		if err := fs[i].check(); err != nil {
			return nil, usagef("%s:%d: %w", name, fs[i].line, err)
		}
	}
	return fs, nil
}

// directory knows which workload serves which function: from the configuration, from a file that others may change, from Kubernetes,
// and from the paths of control groups, in this order.
type directory struct {
	node   string
	own    workload.ID // the agent itself
	ownPod string      // the UID of its pod, where the kernel does not tell its group
	file   string      // empty for none
	log    *slog.Logger
	pods   *kube.Directory // nil for none
	port   int             // of the watchdogs of pods; 0 for none
	faasd  []string        // namespaces of containerd whose containers are functions

	mu      sync.Mutex
	static  []rawFunction
	current []rawFunction
	stamp   fileStamp
	failing string
	unknown map[string]time.Time // pods that nobody knows, since when
}

// fileStamp tells whether a file has changed.
type fileStamp struct {
	modified time.Time
	size     int64
}

// describe says what is known of a workload.
func (d *directory) describe(id workload.ID) workload.Workload {
	w := cgroup.Describe(id)
	w.ID = id
	uid := cgroup.PodUID(id)
	pod, known := d.pod(id)
	if known {
		w.Namespace, w.Name = pod.Namespace, pod.Name
	}
	if id == d.own || uid != "" && (uid == d.ownPod || strings.HasPrefix(string(d.own), string(id)+"/")) {
		w.Kind = workload.Agent
		return w
	}
	f := d.find(id)
	switch {
	case f == nil && known && pod.Function != "":
		w.Kind, w.Function = workload.Function, pod.Function
		return w
	case f == nil:
		if w.Kind == workload.Pod && w.Namespace != "" && uid == "" && slices.Contains(d.faasd, w.Namespace) {
			w.Kind, w.Function = workload.Function, w.Name
		}
		return w
	}
	w.Kind, w.Namespace, w.Function = workload.Function, f.Namespace, f.Function
	if f.Name != "" {
		w.Name = f.Name
	} else if w.Name == "" {
		w.Name = path.Base(string(id))
	}
	return w
}

// find returns the first entry that means a workload or a group above it.
func (d *directory) find(id workload.ID) *rawFunction {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, list := range [...][]rawFunction{d.static, d.current} {
		for i := range list {
			f := &list[i]
			if f.Node != "" && f.Node != d.node {
				continue
			}
			for p := string(id); p != "." && p != "/"; p = path.Dir(p) {
				if ok, _ := path.Match(f.Workload, p); ok {
					return f
				}
			}
		}
	}
	return nil
}

// pod returns what Kubernetes says of a workload.
func (d *directory) pod(id workload.ID) (kube.Pod, bool) {
	if d.pods == nil {
		return kube.Pod{}, false
	}
	uid := cgroup.PodUID(id)
	if uid == "" {
		container := cgroup.ContainerID(id)
		if container == "" {
			return kube.Pod{}, false
		}
		return d.pods.Container(container)
	}
	p, ok := d.pods.Pod(uid)
	d.mu.Lock()
	defer d.mu.Unlock()
	if ok {
		delete(d.unknown, uid)
	} else if _, there := d.unknown[uid]; !there {
		if d.unknown == nil || len(d.unknown) > maxUnknown {
			d.unknown = map[string]time.Time{}
		}
		d.unknown[uid] = time.Now()
	}
	return p, ok
}

const (
	// maxUnknown bounds the pods whose being unknown is remembered.
	maxUnknown = 1000
	// wantFor is how long is asked for a pod that nobody knows.
	wantFor = 20 * time.Second
)

// wanting says whether there is a pod that nobody knows and that should become known soon.
func (d *directory) wanting(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, since := range d.unknown {
		if now.Sub(since) < wantFor {
			return true
		}
	}
	return false
}

// expected says whether more will soon be known of a workload: of a pod that Kubernetes has not told of.
func (d *directory) expected(id workload.ID) bool {
	if d.pods == nil || cgroup.PodUID(id) == "" || d.find(id) != nil {
		return false
	}
	_, known := d.pod(id)
	return !known
}

// watched says whether it will be told when a workload that appears is ready. A pod that was known before it was ready, and is ready by the
// time its control group is first seen, has started since the reading before: its start is in that tick, and its being ready is told
// next. One that was ready when it became known (a runtime tells no more) may have worked since; nobody knows how much was its start.
func (d *directory) watched(id workload.ID) bool {
	if f := d.find(id); f != nil {
		return f.Watchdog != ""
	}
	p, ok := d.pod(id)
	return ok && p.Function != "" && p.Starting && !p.Ended
}

// requested returns the cores that a workload has reserved, as far as is known.
func (d *directory) requested(id workload.ID) float64 {
	if f := d.find(id); f != nil {
		return f.CPURequest
	}
	p, _ := d.pod(id)
	return p.CPURequest
}

// targets returns the watchdogs of the workloads that are seen. A workload without a control group of its own is not asked.
func (d *directory) targets(seen []workload.Workload) []activity.Target {
	var out []activity.Target
	taken := map[string]bool{}
	for _, w := range seen {
		if w.Kind != workload.Function {
			continue
		}
		if f := d.find(w.ID); f != nil {
			if f.Watchdog != "" && !taken[f.Watchdog] {
				taken[f.Watchdog] = true
				out = append(out, activity.Target{ID: w.ID, URL: f.Watchdog})
			}
			continue
		}
		if p, ok := d.pod(w.ID); ok && p.IP != "" && !p.Ended && d.port != 0 {
			t := activity.Target{ID: w.ID, URL: "http://" + net.JoinHostPort(p.IP, strconv.Itoa(d.port)) + "/metrics", Maybe: true, Turn: 2 * p.Restarts}
			if p.Ready {
				t.Turn++
			}
			out = append(out, t)
		}
	}
	return out
}

// reload reads the file if it has changed, and says whether anything is different.
func (d *directory) reload() bool {
	if d.file == "" {
		return false
	}
	info, err := os.Stat(d.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.fail(err)
		}
		return false
	}
	stamp := fileStamp{info.ModTime(), info.Size()}
	if stamp == d.stamp {
		return false
	}
	b, err := os.ReadFile(d.file)
	if err != nil {
		d.fail(err)
		return false
	}
	list, err := parseFunctions(d.file, b)
	if err != nil {
		d.fail(err)
		return false
	}
	d.stamp, d.failing = stamp, ""
	d.mu.Lock()
	d.current = list
	d.mu.Unlock()
	return true
}

// fail logs a new fault; what was known stays.
func (d *directory) fail(err error) {
	if err.Error() != d.failing {
		d.log.Warn("the functions' file cannot be used, what it said before goes on to hold", "err", err)
		d.failing = err.Error()
	}
}

// ownGroup returns the control group that the text of /proc/self/cgroup names: of CPU accounting, or the unified one.
func ownGroup(text string) workload.ID {
	var unified string
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		p := strings.TrimPrefix(parts[2], "/")
		for controller := range strings.SplitSeq(parts[1], ",") {
			if controller == "cpuacct" && p != "" {
				return workload.ID(p)
			}
		}
		if parts[1] == "" {
			unified = p
		}
	}
	return workload.ID(unified)
}
