package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// groupRoot is where control groups are mounted.
	groupRoot = "/sys/fs/cgroup"
	// ownGroup has all that the tests start outside of pods, podGroup has the pods. Together they are the node: what else runs on the
	// machine uses nothing that the meter sees, and is not in the node's /proc/stat.
	ownGroup = "e2e"
	podGroup = "kubepods"
)

// hierarchies are the mounts that account CPU time or give it out.
func hierarchies() (dirs []string) {
	candidates, _ := filepath.Glob(groupRoot + "/*") // the only error is a bad pattern
	for _, d := range append(candidates, groupRoot) {
		if exists(filepath.Join(d, "cgroup.procs")) && (exists(filepath.Join(d, "cpuacct.usage")) || exists(filepath.Join(d, "cpu.shares")) ||
			exists(filepath.Join(d, "cgroup.controllers"))) && !isLink(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// makeGroup makes a group below ownGroup in all hierarchies and lists the files to which a process writes itself.
func makeGroup(name string) (procs []string, err error) {
	for _, h := range hierarchies() {
		dir := filepath.Join(h, ownGroup, name)
		err = errors.Join(err, os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(h, podGroup), 0o755))
		// The tests do not wait for what else the machine does.
		for _, g := range []string{ownGroup, podGroup} {
			if shares := filepath.Join(h, g, "cpu.shares"); exists(shares) {
				err = errors.Join(err, os.WriteFile(shares, []byte("65536"), 0o600))
			} else if weight := filepath.Join(h, g, "cpu.weight"); exists(weight) {
				err = errors.Join(err, os.WriteFile(weight, []byte("10000"), 0o600))
			}
		}
		procs = append(procs, filepath.Join(dir, "cgroup.procs"))
	}
	return procs, err
}

// removeGroups removes the control groups of all pods and those of the tests, in all hierarchies, once their processes are gone.
func removeGroups(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		left := ""
		for _, pattern := range []string{podGroup, "*/" + podGroup, ownGroup, "*/" + ownGroup} {
			roots, _ := filepath.Glob(filepath.Join(groupRoot, pattern)) // the only error is a bad pattern
			for _, root := range roots {
				if removeTree(root); exists(root) {
					left = root
				}
			}
		}
		if left == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("control groups with processes in them: %s", left)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// removeTree removes a control group and those in it, as far as they have no processes.
func removeTree(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error { // what vanishes meanwhile needs no removing
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		_ = unix.Rmdir(d) // the caller looks whether it is gone
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// counters are the file with the CPU time of each control group, and where the groups are.
type counters struct {
	root, file string
	// of says how to read the file.
	of func([]byte) (time.Duration, error)
}

// counterRoot finds the hierarchy that accounts CPU time.
func counterRoot() (counters, error) {
	for _, dir := range []string{"", "cpuacct", "cpu,cpuacct", "cpuacct,cpu"} {
		if root := filepath.Join(groupRoot, dir); exists(filepath.Join(root, "cpuacct.usage")) {
			return counters{root, "cpuacct.usage", nanoseconds}, nil
		}
	}
	if exists(filepath.Join(groupRoot, "cgroup.controllers")) {
		return counters{groupRoot, "cpu.stat", usage}, nil
	}
	return counters{}, fmt.Errorf("%s has no control groups that count CPU time", groupRoot)
}

func nanoseconds(b []byte) (time.Duration, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return time.Duration(n), err
}

func usage(b []byte) (time.Duration, error) {
	for line := range strings.Lines(string(b)) {
		if us, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(us), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("no usage_usec")
}

func (c counters) read(group string) (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(c.root, group, c.file))
	if err != nil {
		return 0, err
	}
	return c.of(b)
}

// node reads what the node has used.
func (c counters) node() (time.Duration, error) {
	own, errOwn := c.read(ownGroup)
	pods, errPods := c.read(podGroup)
	return own + pods, errors.Join(errOwn, errPods)
}
