package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/wattlet/wattlet/internal/energy"
)

var nodes = []string{"coral", "jetson-nano", "odroid-xu4-1", "odroid-xu4-2", "pynq-z1", "raspberrypi"}

// cluster is a wattctl up that shows figures.
type cluster struct {
	*running
	pages string // the agent's address
	dir   string // with its files
	agent int    // its process
}

// showing waits until a wattctl up shows figures.
func showing(r *running) cluster {
	r.t.Helper()
	r.until("it shows figures", func() bool { return strings.Contains(r.stdout.String(), "Ctrl-C") })
	m := regexp.MustCompile(`\n  http://(.*)/metrics .*\n(?:.*\n)  wattctl meter read coaps://.* --psk-file=(.*)/bench-1\.psk\n`).FindStringSubmatch(r.stdout.String())
	if m == nil {
		r.t.Fatalf("it does not say where it is:\n%s", r.stdout.String())
	}
	c := cluster{running: r, pages: m[1], dir: m[2]}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), "--config.file="+c.dir+"/cluster.yaml\x00") {
			c.agent, _ = strconv.Atoi(strings.Split(p, "/")[2])
		}
	}
	if c.agent == 0 {
		r.t.Fatalf("no agent runs with %s", c.dir)
	}
	return c
}

// gone says whether the agent has ended: there is no process, or a zombie whose new parent does not care (proc_pid_stat(5)).
func (c cluster) gone() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.agent))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// get fetches a page of the agent.
func (c cluster) get(path string) string {
	c.t.Helper()
	client := http.Client{Timeout: testPatience}
	resp, err := client.Get("http://" + c.pages + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(b)
}

// table returns the rows under a heading, by node.
func table(t *testing.T, text, heading string) map[string][]string {
	t.Helper()
	_, after, ok := strings.Cut(text, heading+"\n")
	if !ok {
		t.Fatalf("no heading %q in\n%s", heading, text)
	}
	rows := map[string][]string{}
	var names []string
	for l := range strings.Lines(after) {
		f := strings.Fields(l)
		if len(f) == 0 {
			break
		}
		names = append(names, f[0])
		rows[f[0]] = f[1:]
	}
	if !slices.Equal(names, nodes) {
		t.Fatalf("rows of %v, want %v, in\n%s", names, nodes, text)
	}
	return rows
}

// figure reads a quantity with its unit in joules, watts, volts or amperes.
func figure(t *testing.T, number, unit string) float64 {
	t.Helper()
	// All units of this kind have the same prefixes.
	p, err := energy.ParsePower(number + strings.TrimRight(unit, "JWVA") + "W")
	if err != nil {
		t.Fatal(err)
	}
	return p.Watts()
}

const (
	headingFigures = "          NODE    POWER  VOLTAGE  CURRENT   ENERGY"
	headingSummary = "NODE  MEASURED     DRAWN    ERROR"
)

func TestUp(t *testing.T) {
	t.Parallel()
	r := start(t, "up", "--agent="+agent(t), "--listen=127.0.0.1:0", "--for=5s")
	c := showing(r)

	// Bounds of the loads, and what the supply of 5.1 V has left behind 60 mΩ.
	bounds := map[string][2]float64{
		"coral": {3.2, 4.9}, "jetson-nano": {1.25, 5.35}, "odroid-xu4-1": {2.75, 7.62}, "odroid-xu4-2": {1.71, 2.91 + 0.6},
		"pynq-z1": {1.9, 2.25}, "raspberrypi": {1.52, 3.83},
	}
	for node, f := range table(t, squeeze(r.stdout.String()), squeeze(headingFigures)) {
		if len(f) != 8 {
			t.Fatalf("node %s: %v", node, f)
		}
		power, voltage, current := figure(t, f[0], f[1]), figure(t, f[2], f[3]), figure(t, f[4], f[5])
		if b := bounds[node]; power < 0.98*b[0] || power > 1.02*b[1] || voltage < 4.9 || voltage > 5.1 || current < 0.98*power/5.1 || current > 1.02*power/4.9 {
			t.Errorf("node %s: %v; want %v W", node, f, b)
		}
		if figure(t, f[6], f[7]) < 0 { // 0 of the first reading
			t.Errorf("node %s: energy in %v", node, f)
		}
	}
	metrics := c.get("/metrics")
	for _, node := range nodes {
		if !strings.Contains(metrics, `wattlet_node_energy_joules_total{node="`+node+`"}`) {
			t.Errorf("/metrics has no energy of %s", node)
		}
	}

	if status := r.wait(); status != 0 || r.stderr.String() != "" {
		t.Errorf("status %d", status)
	}
	for node, f := range table(t, squeeze(r.stdout.String()), squeeze(headingSummary)) {
		if len(f) != 6 || f[5] != "%" {
			t.Fatalf("node %s: %v", node, f)
		}
		measured, drawn := figure(t, f[0], f[1]), figure(t, f[2], f[3])
		// Snapshots are made every second.
		if drawn < 2*bounds[node][0] || measured < 0.98*drawn || measured > 1.02*drawn {
			t.Errorf("node %s: measured and drawn: %v", node, f)
		}
		if off, err := strconv.ParseFloat(f[4], 64); err != nil || off < -2 || off > 2 {
			t.Errorf("node %s: error %v, %v", node, f[4], err)
		}
	}
	if exists(c.dir) {
		t.Errorf("%s is left", c.dir)
	}
	if !c.gone() {
		t.Errorf("the agent, process %d, is left", c.agent)
	}
}

// squeeze makes one blank of many, for tables whose columns are as wide as their figures.
func squeeze(s string) string {
	return regexp.MustCompile(`(?m)^ +`).ReplaceAllString(regexp.MustCompile(` +`).ReplaceAllString(s, " "), "")
}

// Interrupted, it compares what there is; the files stay if they have a place, and the next run goes on from there.
func TestUpKeepsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	var key string
	before := map[string]float64{}
	for i := range 2 {
		r := start(t, "up", "--agent="+agent(t), "--listen=127.0.0.1:0", "--data="+dir)
		c := showing(r)
		if c.dir != dir {
			t.Errorf("its files are in %s, want %s", c.dir, dir)
		}
		_, first, _ := strings.Cut(c.get("/api/v1/snapshot"), `"time":"`)
		r.until("the next snapshot", func() bool {
			_, next, _ := strings.Cut(c.get("/api/v1/snapshot"), `"time":"`)
			return next[:25] != first[:25]
		})
		if status := r.end(); status != 0 || r.stderr.String() != "" {
			t.Errorf("interrupted, it ended with %d", status)
		}
		summary := table(t, squeeze(r.stdout.String()), squeeze(headingSummary))
		if !c.gone() {
			t.Errorf("the agent, process %d, is left", c.agent)
		}

		for node, f := range table(t, squeeze(r.stdout.String()), squeeze(headingFigures)) {
			joules := figure(t, f[6], f[7])
			if joules < before[node] {
				t.Errorf("node %s: %v J after %v J in the run before", node, joules, before[node])
			}
			before[node] = joules + figure(t, summary[node][0], summary[node][1]) - 0.01 // rounded when shown
		}
		for name, mode := range map[string]os.FileMode{"bench-1.psk": 0o600, "cluster.yaml": 0o600, "state/state.json": 0o600} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			} else if info.Mode() != mode {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		if now := read(t, filepath.Join(dir, "bench-1.psk")); i > 0 && now != key {
			t.Error("the key of the first run is lost")
		} else {
			key = now
		}
	}
}

func TestUpInterruptedEarly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	status := run(ctx, []string{"up", "--agent=" + agent(t), "--listen=127.0.0.1:0"}, &stdout, &stderr)
	if status != 1 || stdout.String() != "" || stderr.String() != "wattctl: ended before the agent had two readings to compare\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout.String(), stderr.String())
	}
}

// The agent is found in PATH, and goes with wattctl, however that ends.
func TestUpKilled(t *testing.T) {
	t.Parallel()
	r := process(t, []string{"TMPDIR=" + t.TempDir(), "PATH=" + filepath.Dir(agent(t))}, "up", "--listen=127.0.0.1:0")
	c := showing(r)
	if err := r.process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.wait()
	eventually(t, "the agent has ended", nil, c.gone)
}

func TestUpWithoutAgent(t *testing.T) {
	t.Parallel()
	if self, err := os.Executable(); err != nil {
		t.Fatal(err)
	} else if beside := filepath.Join(filepath.Dir(self), "wattlet"); exists(beside) {
		t.Skipf("%s is there", beside)
	}
	r := process(t, []string{"PATH=/nowhere"}, "up")
	const want = "wattctl: no wattlet beside wattctl or in PATH; make build makes both, or give --agent\n"
	if status := r.wait(); status != 2 || r.stdout.String() != "" || r.stderr.String() != want {
		t.Errorf("status %d; want 2 and %q", status, want)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// What cannot be started is said on one line, and nothing is left behind.
func TestUpFails(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	script := func(text string) string {
		// A process that is forked meanwhile would hold the file open for writing, and then it cannot be run.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		path := write(t, "wattlet", "#!/bin/sh\n"+text+"\n")
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"port taken":      {[]string{"--listen=" + taken.Addr().String(), "--agent=" + agent(t)}, "serve the agent's pages: listen tcp " + taken.Addr().String() + ": bind: address already in use; choose another --listen"},
		"no address":      {[]string{"--listen=nowhere", "--agent=" + agent(t)}, "missing port in address"},
		"agent complains": {[]string{"--agent=" + script("echo wattlet: the sky falls >&2\necho twice >&2; exit 3")}, "the agent ended with exit status 3: wattlet: the sky falls; twice"},
		"agent leaves":    {[]string{"--agent=" + script("exit 0")}, "the agent ended with exit status 0: it said nothing"},
		"no program":      {[]string{"--agent=" + write(t, "wattlet", "")}, "start the agent: "},
		"no directory":    {[]string{"--agent=" + agent(t), "--data=/proc/nowhere"}, "working directory: mkdir /proc/nowhere"},
		"bad key":         {[]string{"--agent=" + agent(t), "--data=" + filepath.Dir(write(t, "bench-1.psk", "short"))}, "bench-1.psk: 5 bytes of key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			r := process(t, []string{"TMPDIR=" + tmp}, append([]string{"up", "--listen=127.0.0.1:0"}, tc.args...)...)
			if status := r.wait(); status != 1 || !isOneLine(r.stderr.String()) || !strings.Contains(r.stderr.String(), tc.want) || r.stdout.String() != "" {
				t.Errorf("status %d; want 1 and %q", status, tc.want)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}

// Whoever answers there, if it is not our agent it is not shown.
func TestUpForeignAgent(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"empty":   `{}`,
		"no JSON": `<html>`,
		"another": `{"format": "wattlet-snapshot/1", "nodes": [{"node": "pi", "power_uw": 1}], "meters": []}`,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		d := &display{url: "http://" + l.Addr().String()}
		if v, err := d.fetch(t.Context()); err == nil {
			t.Errorf("%s: it took %+v for its agent's", name, v)
		}
	}
}
