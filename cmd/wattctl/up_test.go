package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	"unicode/utf8"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/hub"
)

// bounds are for each board less than it ever draws and more than it can, in watts.
var bounds = map[string][2]float64{
	"raspberrypi": {1.4, 5}, "pynq-z1": {1.8, 3}, "odroid-xu4-1": {1.9, 9}, "odroid-xu4-2": {1.9, 6}, "coral": {2.9, 6}, "jetson-nano": {1, 7},
}

// hubLine is the first that wattctl up prints.
var hubLine = regexp.MustCompile(`^(?:dashboard|hub) at (http://[0-9.:]+).*; the first figures come in some seconds\n`)

// hubOf waits until it says where its hub is.
func hubOf(r *running) (url string) {
	r.t.Helper()
	r.until("it says where the hub is", func() bool { return hubLine.MatchString(r.stdout.String()) })
	return hubLine.FindStringSubmatch(r.stdout.String())[1]
}

// series asks a hub; there are none while it does not answer.
func series(hub, query string) []sample {
	resp, err := (&http.Client{Timeout: testPatience}).Get(queryURL(hub, query))
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []sample `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil
	}
	return answer.Data.Result
}

// value asks a hub for the only value of a query; 0 if there is none.
func value(t *testing.T, hub, query string) float64 {
	t.Helper()
	all := series(hub, query)
	if len(all) > 1 {
		t.Fatalf("%s: %v", query, all)
	}
	if len(all) == 0 {
		return 0
	}
	return all[0].value()
}

// dataInUse returns a working directory whose history a hub uses.
func dataInUse(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	h, err := hub.New(hub.Config{Dir: filepath.Join(dir, "history"), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return dir
}

// agents are those that a wattctl up has started.
type agents struct {
	t    *testing.T
	dir  string         // with their files
	pids map[string]int // by node
	urls map[string]string
}

// agentsOf waits until n agents with files below dir run.
func agentsOf(r *running, dir string, n int) agents {
	r.t.Helper()
	a := agents{t: r.t, pids: map[string]int{}, urls: map[string]string{}}
	cmdline := regexp.MustCompile(`\x00--config\.file=(` + regexp.QuoteMeta(dir) + `.*)/cluster\.yaml\x00--web\.listen-address=([^\x00]*)\x00.*\x00--node=([^\x00]*)\x00`)
	r.until("its agents run", func() bool {
		procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			r.t.Fatal(err)
		}
		for _, p := range procs {
			b, _ := os.ReadFile(p) // it may have ended
			if m := cmdline.FindStringSubmatch(string(b)); m != nil {
				a.dir, a.urls[m[3]] = m[1], "http://"+m[2]
				a.pids[m[3]], _ = strconv.Atoi(strings.Split(p, "/")[2])
			}
		}
		return len(a.pids) == n
	})
	return a
}

// gone says whether the agents have ended: there is no process, or a zombie whose new parent does not care (proc_pid_stat(5)).
func (a agents) gone() bool {
	for _, pid := range a.pids {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
			return false
		}
	}
	return true
}

// get fetches a page of an agent; it is empty while the agent does not answer.
func (a agents) get(node, path string) string {
	client := http.Client{Timeout: testPatience}
	resp, err := client.Get(a.urls[node] + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(b)
}

// node waits until an agent measures and returns what it says of its node.
func (a agents) node(name string) (n exporter.NodeView) {
	a.t.Helper()
	eventually(a.t, "the agent of "+name+" measures", nil, func() bool {
		text := a.get(name, "/api/v1/snapshot")
		if text == "" {
			return false
		}
		var v exporter.SnapshotView
		if err := json.Unmarshal([]byte(text), &v); err != nil || len(v.Nodes) != 1 {
			a.t.Fatalf("%v: %s", err, text)
		}
		n = v.Nodes[0]
		return n.EnergyUJ != nil && n.Attribution != nil
	})
	return n
}

// rows returns the cells of a table under a heading; what two blanks part is two cells.
func rows(t *testing.T, text, heading string) [][]string {
	t.Helper()
	at := regexp.MustCompile(`(?m)^` + strings.Join(strings.Split(regexp.QuoteMeta(heading), "  "), ` {2,}`) + `\n`).FindStringIndex(text)
	if at == nil {
		t.Fatalf("no heading %q in\n%s", heading, text)
	}
	var list [][]string
	for l := range strings.Lines(text[at[1]:]) {
		if l = strings.TrimSpace(l); l == "" {
			break
		}
		list = append(list, regexp.MustCompile(` {2,}`).Split(l, -1))
		if want := 1 + strings.Count(heading, "  "); len(list[len(list)-1]) != want {
			t.Fatalf("a row of %d cells, want %d: %s", len(list[len(list)-1]), want, l)
		}
	}
	return list
}

// figure reads a quantity and leaves its unit.
func figure(t *testing.T, cell string) float64 {
	t.Helper()
	number, _, _ := strings.Cut(cell, " ")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		t.Fatalf("no figure: %q", cell)
	}
	return v
}

// whole says whether each node of a table's first column is one of all, in their order.
func whole(t *testing.T, table [][]string) {
	t.Helper()
	var names, want []string
	for _, row := range table {
		names = append(names, row[0])
	}
	for _, o := range boardsim.Fleet(1) {
		want = append(want, o.Name)
	}
	if names = slices.Compact(names); !slices.Equal(names, want) {
		t.Fatalf("rows of %v, want %v", names, want)
	}
}

// upWith are the arguments of up, with the firmware as the meter if make firmware-test says so.
func upWith(args ...string) []string {
	args = append([]string{"up"}, args...)
	if program := os.Getenv("WATTLET_METER"); program != "" {
		args = append(args, "--meter=firmware", "--meter.program="+program)
	}
	return args
}

func TestUp(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	r := process(t, []string{"TMPDIR=" + tmp}, upWith("--agent="+agent(t), "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0", "--for=30s")...)
	a := agentsOf(r, tmp, 6)
	r.until("it shows figures", func() bool { return strings.Contains(r.stdout.String(), "Ctrl-C ends it.") })
	text := r.stdout.String()

	nodes := rows(t, text, "NODE  POWER  VOLTAGE  ENERGY  IDLE (MODEL)  OPERATING POINT")
	whole(t, nodes)
	for _, c := range nodes {
		b := bounds[c[0]]
		if p, v := figure(t, c[1]), figure(t, c[2]); p < b[0] || p > b[1] || v < 5.1-0.06*b[1]/5 || v > 5.1 { // not of the same interval
			t.Errorf("%v; want %v W of 5.1 V behind 60 mΩ", c, b)
		}
		if figure(t, c[3]) <= 0 || !strings.Contains(c[5], " GHz, ") {
			t.Errorf("energy or operating point: %v", c)
		}
	}
	functions := rows(t, text, "NODE  FUNCTION  ENERGY  J/INVOCATION  ± 95 %  INVOCATIONS  COLD STARTS  EACH  NOTE")
	whole(t, functions)
	busy := map[string]bool{}
	for _, c := range functions {
		busy[c[0]] = busy[c[0]] || figure(t, c[2]) > 0 && figure(t, c[5]) > 0 && c[3] != none && figure(t, c[3]) > 0
	}
	if len(busy) != 6 || slices.Contains(slices.Collect(maps.Values(busy)), false) {
		t.Errorf("nodes with a function that was invoked: %v", busy)
	}
	if !strings.Contains(text, "Σ parts = node: ") || !strings.Contains(text, ", off by 0 µJ\n") || strings.Contains(text, "NaN") {
		t.Error("the parts do not add up")
	}
	for name, url := range a.urls {
		if !strings.Contains(text, "  "+url+"/metrics\n") {
			t.Errorf("it does not say where the pages of %s are", name)
		}
		n := a.node(name)
		sum := n.Attribution.BaseUJ + n.Attribution.DepartedUJ
		for _, w := range n.Attribution.Workloads {
			sum += w.EnergyUJ + w.ColdStartUJ
		}
		if sum != *n.EnergyUJ || n.Attribution.InvariantUJ != 0 || sum == 0 {
			t.Errorf("%s: the parts add up to %d µJ, the node has %d µJ", name, sum, *n.EnergyUJ)
		}
		if !strings.Contains(a.get(name, "/metrics"), `wattlet_node_energy_joules_total{node="`+name+`"}`) {
			t.Errorf("/metrics has no energy of %s", name)
		}
	}

	// The hub has stored the same.
	history := hubOf(r)
	r.until("the hub has all functions' energy", func() bool {
		return value(t, history, "count(count by (node) (wattlet_function_energy_joules_total))") == 6
	})
	for query, want := range map[string]float64{
		`count(up{job="wattlet"} == 1)`: 6, "count(wattlet_node_energy_joules_total > 0)": 6,
		// Four boards whose cores are all alike, and two with big and little ones.
		`count(wattlet_node_cpu_frequency_hertz{class="cpu"} > 1e8)`: 4, `count(wattlet_node_cpu_frequency_hertz{class=~"big|little"} > 1e8)`: 4,
	} {
		if got := value(t, history, query); got != want {
			t.Errorf("%s is %v, want %v", query, got, want)
		}
	}

	if status := r.wait(); status != 0 || r.stderr.String() != "" {
		t.Errorf("status %d", status)
	}
	if _, err := (&http.Client{Timeout: testPatience}).Get(history); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the hub is left: %v", err)
	}
	measured := rows(t, r.stdout.String(), "NODE  MEASURED  DRAWN  ERROR")
	whole(t, measured)
	for _, c := range measured {
		if drawn := figure(t, c[2]); drawn < 25*bounds[c[0]][0] {
			t.Errorf("drawn in 30 s: %v", c)
		}
		if off := figure(t, c[3]); off < -0.5 || off > 0.5 {
			t.Errorf("measured and drawn: %v", c)
		}
	}
	for l := range strings.Lines(r.stdout.String()) {
		if utf8.RuneCountInString(l) > 111 && !strings.Contains(l, "--psk-file=") { // with its line break
			t.Errorf("a long line: %s", l)
		}
	}
	whole(t, rows(t, r.stdout.String(), "NODE  FUNCTION  ATTRIBUTED  ± 95 %  TRUE  ERROR  J/INVOCATION  TRUE"))
	m := regexp.MustCompile(`\nMedian error of the (\d+) functions that used 1 J or more: ([0-9.]+) %\n$`).FindStringSubmatch(r.stdout.String())
	if m == nil {
		t.Fatal("no median error")
	}
	if n := figure(t, m[1]); n < 6 {
		t.Errorf("%v functions used energy", n)
	}
	if median := figure(t, m[2]); median > 25 {
		t.Errorf("median error %v %%", median)
	}
	nothingLeft(t, tmp, a)
}

func nothingLeft(t *testing.T, dir string, a agents) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if !a.gone() {
		t.Errorf("of the agents %v one is left", a.pids)
	}
}

// Interrupted, it compares what there is; the files stay if they have a place, and the next run goes on from there.
func TestUpKeepsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	var key string
	before := int64(0)
	for i := range 2 {
		r := start(t, upWith("--agent="+agent(t), "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0", "--data="+dir, "--boards=coral")...)
		a := agentsOf(r, dir, 1)
		first := a.node("coral")
		if *first.MeasuredUJ < before {
			t.Errorf("%d µJ after %d µJ in the run before", *first.MeasuredUJ, before)
		}
		// The first reading brings all that the meter has measured; what three seconds bring after it was shown.
		begun := int64(0)
		r.until("more energy", func() bool {
			before = *a.node("coral").EnergyUJ
			if begun == 0 && before > *first.MeasuredUJ {
				begun = before
			}
			return begun > 0 && before > begun+9e6
		})
		if status := r.end(); status != 0 || r.stderr.String() != "" {
			t.Errorf("interrupted, it ended with %d", status)
		}
		if len(rows(t, r.stdout.String(), "NODE  MEASURED  DRAWN  ERROR")) != 1 {
			t.Errorf("a summary of another cluster")
		}
		if !a.gone() {
			t.Error("the agent is left")
		}
		if exists(filepath.Join(dir, "boards")) {
			t.Error("the board's files are left")
		}
		for name, mode := range map[string]os.FileMode{"bench-1.psk": 0o600, "cluster.yaml": 0o600, "state/coral/state.json": 0o600} {
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
	status := run(ctx, upWith("--agent="+agent(t), "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0", "--boards=2"), &stdout, &stderr)
	if status != 1 || hubLine.ReplaceAllString(stdout.String(), "") != "" || !strings.HasPrefix(stderr.String(), "wattctl: ended before the agents had two readings to compare") ||
		!isOneLine(stderr.String()) {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout.String(), stderr.String())
	}
}

// The agent is found in PATH, and goes with wattctl, however that ends.
func TestUpKilled(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	r := process(t, []string{"TMPDIR=" + tmp, "PATH=" + filepath.Dir(agent(t))}, upWith("--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0", "--boards=2")...)
	a := agentsOf(r, tmp, 2)
	a.node("pynq-z1")
	if err := r.process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.wait()
	eventually(t, "the agents have ended", nil, a.gone)
}

// If an agent ends, it says which, and ends with all the others.
func TestUpAgentKilled(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	r := process(t, []string{"TMPDIR=" + tmp}, upWith("--agent="+agent(t), "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0", "--boards=pynq-z1,coral")...)
	a := agentsOf(r, tmp, 2)
	a.node("pynq-z1")
	if err := syscall.Kill(a.pids["coral"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	const want = "wattctl: the agent of coral ended with signal: killed: it said nothing\n"
	if status := r.wait(); status != 1 || r.stderr.String() != want {
		t.Errorf("status %d; want 1 and %q", status, want)
	}
	nothingLeft(t, tmp, a)
}

// Interrupted, it leaves neither processes nor files.
func TestUpInterrupted(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	r := process(t, []string{"TMPDIR=" + tmp}, upWith("--agent="+agent(t), "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0", "--boards=coral,jetson-nano")...)
	a := agentsOf(r, tmp, 2)
	a.node("coral")
	a.node("jetson-nano")
	r.until("it shows figures", func() bool { return strings.Contains(r.stdout.String(), "Ctrl-C ends it.") })
	if status := r.end(); status != 0 || r.stderr.String() != "" {
		t.Errorf("interrupted, it ended with %d", status)
	}
	if len(rows(t, r.stdout.String(), "NODE  MEASURED  DRAWN  ERROR")) != 2 {
		t.Error("a summary of another cluster")
	}
	nothingLeft(t, tmp, a)
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

func TestUpUsage(t *testing.T) {
	t.Parallel()
	for boards, want := range map[string]string{
		"0": "--boards=0: there are 1 to 6", "7": "--boards=7: there are 1 to 6",
		"coral,pc":    `--boards=coral,pc: "pc" is none of raspberrypi, pynq-z1, odroid-xu4-1, odroid-xu4-2, coral, jetson-nano`,
		"coral,coral": "--boards=coral,coral: coral is there twice", "": `--boards=: "" is none of raspberrypi`,
	} {
		refused(t, want, 2, "up", "--boards="+boards)
	}
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
		"port taken":      {[]string{"--listen=" + taken.Addr().String(), "--agent=" + agent(t)}, "serve the hub: listen tcp " + taken.Addr().String() + ": bind: address already in use; choose another address"},
		"agent's taken":   {[]string{"--agents.listen=" + taken.Addr().String(), "--agent=" + agent(t)}, "serve the agents' pages: listen tcp " + taken.Addr().String() + ": bind: address already in use; choose another --agents.listen"},
		"no address":      {[]string{"--agents.listen=nowhere", "--agent=" + agent(t)}, "missing port in address"},
		"hub in use":      {[]string{"--data=" + dataInUse(t), "--agent=" + agent(t)}, "is in use by another hub"},
		"agent complains": {[]string{"--boards=1", "--agent=" + script("echo wattlet: the sky falls >&2\necho twice >&2; exit 3")}, "the agent of raspberrypi ended with exit status 3: wattlet: the sky falls; twice"},
		"agents leave":    {[]string{"--agent=" + script("exit 0")}, " ended with exit status 0: it said nothing"},
		"no program":      {[]string{"--agent=" + write(t, "wattlet", "")}, "start the agent: "},
		"no directory":    {[]string{"--agent=" + agent(t), "--data=/proc/nowhere"}, "working directory: mkdir /proc/nowhere"},
		"bad key":         {[]string{"--agent=" + agent(t), "--data=" + filepath.Dir(write(t, "bench-1.psk", "short"))}, "bench-1.psk: 5 bytes of key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			r := process(t, []string{"TMPDIR=" + tmp}, append([]string{"up", "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0"}, tc.args...)...)
			if status := r.wait(); status != 1 || !isOneLine(r.stderr.String()) || !strings.Contains(r.stderr.String(), tc.want) || hubLine.ReplaceAllString(r.stdout.String(), "") != "" {
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
		"another": `{"format": "wattlet-snapshot/1", "nodes": [{"node": "pi", "power_uw": 1}], "meters": [{"meter": "bench-1"}]}`,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		if v, err := new(display).ask(t.Context(), &board{name: "coral", url: "http://" + l.Addr().String()}); err == nil {
			t.Errorf("%s: it took %+v for its agent's", name, v)
		}
	}
}

// oneBoard shows a board whose functions used 4, 1, 3 and 2 J.
func oneBoard() *display {
	a := &exporter.AttributionView{BaseUJ: 5e6}
	for i, e := range []int64{4, 1, 3, 2} {
		name := fmt.Sprintf("f%d", i)
		a.Functions = append(a.Functions, exporter.FunctionView{Function: name, EnergyUJ: e * 1e6})
		a.Workloads = append(a.Workloads, exporter.WorkloadView{Kind: "function", Name: name, EnergyUJ: e * 1e6})
	}
	return &display{boards: []*board{{name: "pi"}}, last: []instant{{NodeView: exporter.NodeView{
		EnergyUJ: new(int64(15e6)), MeasuredUJ: new(int64(16e6)), Attribution: a,
	}}}}
}

// On a low terminal there are those functions that used most, in their order.
func TestUpFunctionsFit(t *testing.T) {
	t.Parallel()
	for height, want := range map[int]string{
		5: "f0 f1 f2 f3", 9: "f0 f1 f2 f3", 4: "f0 f2 and 2 that used less; a higher terminal shows them", 3: "f0 and 3 that used less; a higher terminal shows them",
	} {
		g := oneBoard().functions(height)
		var shown []string
		for _, row := range g.rows[1:] {
			shown = append(shown, row[1])
		}
		if got := strings.TrimSpace(strings.Join(shown, " ") + " " + g.foot); got != want {
			t.Errorf("height %d: %q, want %q", height, got, want)
		}
	}
}

// That the parts add up is computed from the parts.
func TestUpParts(t *testing.T) {
	t.Parallel()
	d := oneBoard()
	for _, want := range []string{
		"idle 5.00 J + functions 10.00 J + other workloads 0.00 J = 15.00 J, off by 0 µJ",
		"idle 4.99 J + functions 10.00 J + other workloads 0.00 J = 15.00 J, off by 10000 µJ",
	} {
		var b strings.Builder
		d.parts(&b)
		if b.String() != "Σ parts = node: "+want+"\n1.00 J more are measured and not split yet\n" {
			t.Errorf("%q, want %q", b.String(), want)
		}
		d.last[0].Attribution.BaseUJ -= 10_000
	}
}

// The truth of an instant lies between the records before and after it.
func TestUpTruth(t *testing.T) {
	t.Parallel()
	b := board{truths: []truth{
		{10, []boardsim.FunctionTruth{{Function: "f", Energy: 1}}}, {20, []boardsim.FunctionTruth{{Function: "f", Energy: 5, ColdStart: 2, Invocations: 1}}},
		{30, []boardsim.FunctionTruth{{Function: "f", Energy: 6, ColdStart: 2, Invocations: 2}}},
	}}
	for drawn, want := range map[float64]boardsim.FunctionTruth{
		12.5: {Function: "f", Energy: 2, ColdStart: 0.5}, 20: {Function: "f", Energy: 5, ColdStart: 2}, 25: {Function: "f", Energy: 5.5, ColdStart: 2, Invocations: 1},
	} {
		if got, ok := b.truthWhen(drawn); !ok || got.functions[0] != want {
			t.Errorf("at %v J: %+v, want %+v", drawn, got, want)
		}
	}
	for _, drawn := range []float64{9, 31} {
		if got, ok := b.truthWhen(drawn); ok {
			t.Errorf("at %v J: %+v, want none", drawn, got)
		}
	}
}
