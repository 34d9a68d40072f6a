package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/wattlet/wattlet/internal/exporter"
)

var topStart = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// busy is what an agent of one node says after so many seconds: gzip uses 1.5 W and is invoked 4 times a second, resize uses
// 0.25 W, half of it for cold starts, and is invoked every other second; a pod uses 0.5 W.
func busy(node string, seconds int64) exporter.SnapshotView {
	return exporter.SnapshotView{
		Format: "wattlet-snapshot/1", Time: topStart.Add(time.Duration(seconds) * time.Second),
		Nodes: []exporter.NodeView{{
			Node: node, Meter: "bench-1", PowerUW: new(int64(4_250_000)), MeasuredUJ: new(1_000_000 + 4_250_000*seconds),
			EnergyUJ: new(500_000 + 4_250_000*seconds),
			Attribution: &exporter.AttributionView{
				BaseUJ: 500_000 + 2_000_000*seconds, PendingUJ: 500_000,
				Workloads: []exporter.WorkloadView{
					{Kind: "function", Namespace: "fn", Name: "gzip-1", EnergyUJ: 1_500_000 * seconds, StdDevUJ: 1_000_000},
					{Kind: "pod", Namespace: "kube-system", Name: "dns", EnergyUJ: 500_000 * seconds, StdDevUJ: 250_000},
				},
				Functions: []exporter.FunctionView{
					{
						Namespace: "fn", Function: "resize", EnergyUJ: 125_000 * seconds, ColdStartUJ: 125_000 * seconds, ColdStarts: 3,
						Invocations: float64(seconds) / 2, PerInvocation: &exporter.IntervalView{Mean: 0.25}, PriorDominated: true,
					},
					{
						Namespace: "fn", Function: "gzip", EnergyUJ: 1_500_000 * seconds, Invocations: float64(4 * seconds),
						PerInvocation: &exporter.IntervalView{Mean: 0.375, Low95: new(0.36), High95: new(0.39)},
					},
				},
				Model: exporter.ModelView{BaseW: 2, BaseStdDevW: 0.01, CoreW: 0.5, CoreStdDevW: 0.1},
			},
		}},
		Meters: []exporter.MeterView{{Meter: "bench-1", Up: true}},
	}
}

// topAgentOf is an agent whose next snapshot is two seconds later each time it is asked, while it is alive.
func topAgentOf(t *testing.T, node string, alive *atomic.Bool) (address string) {
	t.Helper()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path != "/api/v1/snapshot":
			http.NotFound(w, req)
		case alive != nil && !alive.Load():
			http.Error(w, "taken\nill", http.StatusServiceUnavailable)
		default:
			_ = json.NewEncoder(w).Encode(busy(node, 100+2*asked.Add(1))) // the test's end tells
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// parseTop parses a command line of top.
func parseTop(t *testing.T, args ...string) (topCmd, error) {
	t.Helper()
	var cli struct {
		Top topCmd `cmd:""`
	}
	parser, err := kong.New(&cli)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(append([]string{"top"}, args...))
	return cli.Top, err
}

// doTop runs it.
func doTop(ctx context.Context, t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	c, err := parseTop(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs output
	ctx, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	err = c.Run(&app{ctx: ctx, stdout: &out, stderr: &errs})
	if s := errs.String(); s != "" {
		t.Errorf("stderr: %q", s)
	}
	return out.String(), err
}

const (
	topNodes     = "NODE  POWER  ENERGY  BASE  W/CORE  PENDING  INVARIANT  METER"
	topFunctions = "NODE  FUNCTION  POWER  ENERGY  J/INVOCATION  ± 95 %  INVOCATIONS  PER MIN  COLD STARTS  NOTE"
	topWorkloads = "NODE  KIND  WORKLOAD  POWER  ENERGY  ± 95 %  COLD STARTS"
)

// cells are a table's cells, as rows reads them.
func cells(t *testing.T, text, heading string) string {
	t.Helper()
	var lines []string
	for _, r := range rows(t, text, heading) {
		lines = append(lines, strings.Join(r, "|"))
	}
	return strings.Join(lines, "\n")
}

// Nobody looks: it prints once, as soon as there are watts. An agent that is not there is a line.
func TestTopOnce(t *testing.T) {
	t.Parallel()
	dead, release := freeAddress(t)
	release()
	a, b := topAgentOf(t, "pi", nil), topAgentOf(t, "coral", nil)
	text, err := doTop(t.Context(), t, a, b, dead, "--every=20ms", "--workloads", "--sort=name")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\d\d:\d\d:\d\d: 2 of 3 agents up, sorted by name\n\n`).MatchString(text) {
		t.Errorf("%s", text)
	}
	nodes := cells(t, text, topNodes)
	if !regexp.MustCompile(`^coral\|4\.250 W\|\d+\.\d\d J\|2\.000 ± 0\.020 W\|0\.500 ± 0\.196 W\|0\.50 J\|0 µJ\|bench-1 up\n` +
		`pi\|4\.250 W\|.*\n` +
		`–\|–\|–\|–\|–\|–\|–\|no figures from ` + regexp.QuoteMeta(dead) + ` since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: .*connection refused$`).MatchString(nodes) {
		t.Errorf("nodes:\n%s", nodes)
	}
	functions := cells(t, text, topFunctions)
	if !regexp.MustCompile(`^coral\|fn/gzip\|1\.500 W\|\d+\.00 J\|0\.3750 J\|0\.0150 J\|\d+\|240\.0\|0\|–\n` +
		`coral\|fn/resize\|0\.250 W\|\d+\.\d\d J\|0\.2500 J\|–\|\d+\|30\.0\|3\|mostly assumed\n` +
		`pi\|fn/gzip\|.*\npi\|fn/resize\|.*$`).MatchString(functions) {
		t.Errorf("functions:\n%s", functions)
	}
	workloads := cells(t, text, topWorkloads)
	if !regexp.MustCompile(`^coral\|pod\|kube-system/dns\|0\.500 W\|\d+\.00 J\|0\.49 J\|0\.00 J\n`).MatchString(
		workloads[strings.Index(workloads, "coral|pod"):]) {
		t.Errorf("workloads:\n%s", workloads)
	}
}

// With --for the table is that of the end, and its watts the mean of all that time.
func TestTopOnceAtTheEnd(t *testing.T) {
	t.Parallel()
	began := time.Now()
	text, err := doTop(t.Context(), t, topAgentOf(t, "pi", nil), "--every=20ms", "--for=1s", "--filter=^pi$|resize")
	if took := time.Since(began); err != nil || took < time.Second || strings.Count(text, "NODE") != 2 {
		t.Errorf("after %v: %v, %s", took, err, text)
	}
	if functions := cells(t, text, topFunctions); !strings.HasPrefix(functions, "pi|fn/resize|0.250 W|") || strings.Contains(functions, "gzip") {
		t.Errorf("%s", functions)
	}
}

func TestTopJSON(t *testing.T) {
	t.Parallel()
	var alive atomic.Bool
	alive.Store(true)
	address := topAgentOf(t, "pi", &alive)
	c, err := parseTop(t, "http://"+address, "--every=20ms", "--json", "--filter=/gzip$", "--sort=energy")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	r.interrupt = cancel
	go func() {
		defer close(r.ended)
		if err := c.Run(&app{ctx: ctx, stdout: &r.stdout, stderr: &r.stderr}); err != nil {
			r.status = 1
		}
	}()
	r.cleanup([]string{"top"})
	objects := func() (list []topView) {
		all := r.stdout.String()
		for l := range strings.Lines(all[:strings.LastIndexByte(all, '\n')+1]) {
			var v topView
			if err := json.Unmarshal([]byte(l), &v); err != nil || v.Format != "wattlet-top/1" {
				t.Fatalf("%v: %q", err, l)
			}
			list = append(list, v)
		}
		return list
	}
	r.until("it prints twice", func() bool { return len(objects()) >= 2 })
	v := objects()[0]
	if len(v.Functions) != 1 || v.Functions[0].Function != "gzip" || v.Functions[0].PowerW == nil || *v.Functions[0].PowerW != 1.5 ||
		*v.Functions[0].PerMinute != 240 || len(v.Nodes) != 1 || *v.Nodes[0].PowerW != 4.25 || !v.Agents[0].Up || v.Workloads != nil {
		t.Errorf("%+v", v)
	}
	alive.Store(false)
	r.until("the agent's end is told", func() bool {
		list := objects()
		v = list[len(list)-1]
		return !v.Agents[0].Up
	})
	// What it said last stays but for what is present.
	if a := v.Agents[0]; a.Error != "503 Service Unavailable: taken ill" || time.Since(*a.Since) > testPatience ||
		v.Nodes[0].PowerW != nil || v.Nodes[0].EnergyUJ == nil || v.Functions[0].PowerW != nil || v.Functions[0].EnergyUJ == 0 {
		t.Errorf("%+v", v)
	}
	alive.Store(true)
	r.until("the agent is back, and its functions' watts", func() bool {
		list := objects()
		v = list[len(list)-1]
		return v.Agents[0].Up && v.Functions[0].PowerW != nil
	})
	if *v.Functions[0].PowerW != 1.5 {
		t.Errorf("%+v", v.Functions[0])
	}
	if r.end() != 0 {
		t.Error("it fails when it is interrupted")
	}
}

// Watts are the mean of the window, whatever happens to time, and none over what is no difference of one account.
func TestWatchedWatts(t *testing.T) {
	t.Parallel()
	restarted := busy("pi", 200)
	restarted.Nodes[0].Attribution.Functions[1].EnergyUJ = 5
	restarted.Nodes[0].Attribution.Functions[1].Invocations = 1
	burst := busy("pi", 104)
	burst.Nodes[0].Attribution.Functions[1].EnergyUJ += 3_000_000
	for name, tc := range map[string]struct {
		views []exporter.SnapshotView
		fails int // after so many, an answer that is none; 0 is never
		want  float64
	}{
		"one":               {[]exporter.SnapshotView{busy("pi", 100)}, 0, math.NaN()},
		"two":               {[]exporter.SnapshotView{busy("pi", 100), busy("pi", 102)}, 0, 1.5},
		"same twice":        {[]exporter.SnapshotView{busy("pi", 100), busy("pi", 100)}, 0, math.NaN()},
		"far apart":         {[]exporter.SnapshotView{busy("pi", 100), busy("pi", 160)}, 0, 1.5},
		"burst":             {[]exporter.SnapshotView{busy("pi", 100), busy("pi", 102), burst}, 0, 2.25},
		"burst long ago":    {[]exporter.SnapshotView{burst, busy("pi", 106), busy("pi", 110), busy("pi", 116)}, 0, 1.5},
		"clock set back":    {[]exporter.SnapshotView{busy("pi", 100), busy("pi", 90)}, 0, math.NaN()},
		"counters anew":     {[]exporter.SnapshotView{busy("pi", 100), restarted}, 0, math.NaN()},
		"silence between":   {[]exporter.SnapshotView{busy("pi", 100), busy("pi", 160)}, 1, math.NaN()},
		"another's account": {[]exporter.SnapshotView{busy("coral", 100), busy("pi", 102)}, 0, math.NaN()},
	} {
		t.Run(name, func(t *testing.T) {
			w := &watched{name: "x"}
			now := time.Now()
			for i, v := range tc.views {
				w.take(answer{of: w, view: &v, at: now})
				if i+1 == tc.fails {
					w.take(answer{of: w, err: errors.New("gone"), at: now})
				}
			}
			c, err := parseTop(t)
			if err != nil {
				t.Fatal(err)
			}
			top := &top{topCmd: c, filter: regexp.MustCompile("gzip"), agents: []*watched{w}}
			v := top.view(now)
			if len(v.Functions) != 1 {
				t.Fatalf("%+v", v)
			}
			got := math.NaN()
			if p := v.Functions[0].PowerW; p != nil {
				got = *p
			}
			if got != tc.want && !(math.IsNaN(got) && math.IsNaN(tc.want)) {
				t.Errorf("%v W, want %v W", got, tc.want)
			}
		})
	}
}

func TestTopSorts(t *testing.T) {
	t.Parallel()
	w := &watched{name: "x"}
	var views [2]exporter.SnapshotView
	for i := range views {
		views[i] = busy("pi", int64(100+2*i))
		views[i].Nodes = append(views[i].Nodes, busy("coral", 10).Nodes...) // stands still
		views[i].Nodes[1].PowerUW = nil
		views[i].Nodes[1].Attribution.Functions[0].PerInvocation = nil
		w.take(answer{of: w, view: &views[i], at: time.Now()})
	}
	for key, want := range map[string]string{
		"watts":  "pi coral: pi/gzip pi/resize coral/gzip coral/resize",
		"energy": "pi coral: pi/gzip coral/gzip pi/resize coral/resize",
		"joules": "coral pi: coral/gzip pi/gzip pi/resize coral/resize",
		"name":   "coral pi: coral/gzip coral/resize pi/gzip pi/resize",
	} {
		top := &top{topCmd: topCmd{Sort: key}, filter: regexp.MustCompile(""), agents: []*watched{w}}
		v := top.view(time.Now())
		var nodes, functions []string
		for _, n := range v.Nodes {
			nodes = append(nodes, n.Node)
		}
		for _, f := range v.Functions {
			functions = append(functions, f.Node+"/"+f.Function)
		}
		if got := strings.Join(nodes, " ") + ": " + strings.Join(functions, " "); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// A terminal's lines are neither wider nor more than it has, and what an agent says cannot steer it.
func TestTopFits(t *testing.T) {
	t.Parallel()
	if got, want := clip("a\x1b[2Jb\u009bc\td", 20), "a?[2Jb?c?d"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := clip("± 95 %", 3), "± 9"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	g := &grid{}
	for i := range 6 {
		g.add(fmt.Sprint(i))
	}
	for room, want := range map[int]string{
		6: "0\n1\n2\n3\n4\n5\n",
		5: "0\n1\n2\n3\nand 2 more; a higher terminal shows them\n",
		0: "0\n1\nand 4 more; a higher terminal shows them\n",
	} {
		var b strings.Builder
		(&grid{rows: g.rows}).most(room).write(&b)
		if b.String() != want {
			t.Errorf("%d rows: %q, want %q", room, b.String(), want)
		}
	}
}

func TestTopTroubles(t *testing.T) {
	t.Parallel()
	w := &watched{name: "x", since: topStart, changed: topStart}
	for _, step := range []struct {
		seconds int64 // after the start
		view    int64 // the snapshot's; -1 is a failure, -2 nothing
		want    string
		since   int64
	}{
		{1, -2, "it has not answered yet", 0},
		{2, -1, "no route", 0},
		{4, -1, "no route", 0},
		{5, 100, "", 0},
		{14, 100, "", 0},
		{16, 100, "it answers, and has nothing new", 5},
		{17, 117, "", 0},
		{18, -1, "no route", 18},
		{40, -1, "no route", 18},
	} {
		now := topStart.Add(time.Duration(step.seconds) * time.Second)
		switch v := busy("pi", step.view); step.view {
		case -2:
		case -1:
			w.take(answer{of: w, err: errors.New("no\nroute"), at: now})
		default:
			w.take(answer{of: w, view: &v, at: now})
		}
		why, since := w.trouble(now)
		if strings.ReplaceAll(why, ";", "") != step.want || why != "" && !since.Equal(topStart.Add(time.Duration(step.since)*time.Second)) {
			t.Errorf("at %d s: %q since %v, want %q since %d s", step.seconds, why, since.Sub(topStart), step.want, step.since)
		}
	}
}

func TestTopFails(t *testing.T) {
	t.Parallel()
	answers := func(status int, text string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text)) // the test's end tells
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	for name, tc := range map[string]struct {
		args  string
		usage bool
		want  string
	}{
		"password":  {answers(401, ""), false, "401 Unauthorized; give --user and --password-file"},
		"no agent":  {answers(404, ""), false, "404 Not Found; is this an agent"},
		"no JSON":   {answers(200, "<html>"), false, "not a snapshot: invalid character"},
		"format":    {answers(200, `{"format":"wattlet-snapshot/2"}`), false, `format "wattlet-snapshot/2"`},
		"every":     {"x --every=0s", true, "--every=0s"},
		"for":       {"x --for=-1s", true, "--for=-1s"},
		"filter":    {"x --filter=(", true, "--filter: error parsing regexp"},
		"address":   {"coaps://x", true, "is not an agent's address"},
		"authority": {"x --ca=f", true, "--ca is for https://x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := doTop(t.Context(), t, strings.Fields(tc.args)...)
			usage := usageError{}
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &usage) != tc.usage {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	if _, err := parseTop(t, "--sort=colour"); err == nil || !strings.Contains(err.Error(), "--sort must be one of") {
		t.Errorf("%v", err)
	}
	if c, err := parseTop(t); err != nil || len(c.Agents) != 1 || c.Agents[0] != "127.0.0.1:9780" {
		t.Errorf("%+v, %v", c, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doTop(ctx, t, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "interrupted before") {
		t.Errorf("%v", err)
	}
}
