package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/cgroup"
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

// directory knows which workload serves which function, from the configuration and from a file that others may change.
type directory struct {
	node string
	own  workload.ID // the agent itself
	file string      // empty for none
	log  *slog.Logger

	mu      sync.Mutex
	static  []rawFunction
	current []rawFunction
	stamp   fileStamp
	failing string
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
	if id == d.own || cgroup.PodUID(id) != "" && strings.HasPrefix(string(d.own), string(id)+"/") {
		w.Kind = workload.Agent
		return w
	}
	f := d.find(id)
	if f == nil {
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

// watched says whether a workload's watchdog can be asked.
func (d *directory) watched(id workload.ID) bool {
	f := d.find(id)
	return f != nil && f.Watchdog != ""
}

// requested returns the cores that a workload has reserved, as far as is known.
func (d *directory) requested(id workload.ID) float64 {
	if f := d.find(id); f != nil {
		return f.CPURequest
	}
	return 0
}

// targets returns the watchdogs of the workloads that are seen. A workload without a control group of its own is not asked.
func (d *directory) targets(seen []workload.Workload) []activity.Target {
	var out []activity.Target
	taken := map[string]bool{}
	for _, w := range seen {
		if w.Kind != workload.Function {
			continue
		}
		if f := d.find(w.ID); f != nil && f.Watchdog != "" && !taken[f.Watchdog] {
			taken[f.Watchdog] = true
			out = append(out, activity.Target{ID: w.ID, URL: f.Watchdog})
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
