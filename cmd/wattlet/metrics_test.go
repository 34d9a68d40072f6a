package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
)

// startGallery runs an agent of which every family can be seen: two nodes on one meter, one that measures itself, and one
// whose meter never answers. It returns when each of the others has all its series.
func startGallery(t *testing.T) *process {
	t.Helper()
	// One report a second, so that a stall of a busy machine does not pass for silence.
	sim := startMeter(t, metersim.Options{Name: "bench-1", ReportInterval: time.Second, Channels: []metersim.Channel{
		{Number: 5, Load: metersim.Constant(5 * energy.Watt), Ideal: true},
		{Number: 6, Load: metersim.Constant(2 * energy.Watt), Ideal: true},
	}})
	dead, _ := nobody(t, "")
	p := startAgent(t, "--node=orin,raspberrypi,jetson-nano,pynq", "--path.sys="+newSysfs(t).root, "--stale-after=1m",
		"--tick=100ms", "--config.file="+clusterFile(t, `
meters:
  bench-1: {url: "%s", psk_identity: wattlet, psk_file: psk}
  bench-2: {url: "coaps://%s", psk_identity: wattlet, psk_file: psk}
nodes:
  raspberrypi: {meter: bench-1, channel: 5}
  jetson-nano: {meter: bench-1, channel: 6}
  pynq: {meter: bench-2, channel: 1}
  orin: {sysfs: hwmon}
`, sim.URL(), dead))
	p.wait("all series are there", func() bool {
		s := p.snapshot()
		return !slices.ContainsFunc(s.Nodes, func(n exporter.NodeView) bool {
			return n.Node != "pynq" && (n.PowerUW == nil || *n.PowerUW == 0 || n.VoltageUV == nil || *n.VoltageUV == 0)
		}) && !slices.ContainsFunc(s.Meters, func(m exporter.MeterView) bool {
			return m.Meter == "bench-2" && len(m.Errors) == 0 || m.Meter != "bench-2" && (m.Clock == nil || !m.Up)
		})
	})
	return p
}

// startSplit runs an agent that splits the energy of a simulated board, and returns when every family of that is there.
func startSplit(t *testing.T) *process {
	t.Helper()
	p := startBoard(t, boardsim.Options{Board: "raspberrypi-3b", Seed: 3, Scenario: twoFunctions()}).agent(t)
	p.wait("functions have invocations and cold starts", func() bool {
		a := parts(t, p.snapshot())
		steady, rare := functionOf(a, "steady"), functionOf(a, "rare")
		return steady != nil && steady.PerInvocation != nil && rare != nil && rare.ColdStartUJ > 0
	})
	return p
}

// startEarlier runs an agent that also gives the series of the earlier exporter.
func startEarlier(t *testing.T) *process {
	t.Helper()
	p := startAgent(t, "--sysfs=hwmon", "--node=orin", "--path.sys="+newSysfs(t).root, "--metrics.legacy", "--tick=100ms", "--stale-after=1m")
	p.wait("the node is measured", func() bool { return p.node("orin").CurrentUA != nil })
	return p
}

// steady are the families whose values do not depend on when somebody looks.
var steady = regexp.MustCompile(`^wattlet_(build_info|node_(info|voltage_volts)|` +
	`meter_(info|up|connects_total|restarts_total|duplicates_total|lost_total|recovered_total|saturated_samples_total|sensor_errors_total))[{ ]`)

// normal returns a scrape without what differs from run to run.
func normal(scrape string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(scrape, runtime.Version(), "…")) {
		if name, _, ok := cutLast(line, " "); ok && !strings.HasPrefix(line, "#") && !steady.MatchString(line) {
			line = name + " …\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestGoldenMetrics(t *testing.T) {
	t.Parallel()
	if firmware != "" {
		t.Skip("its golden file has the simulator's exact figures and names")
	}
	p := startGallery(t)
	resp, text := p.request("GET", "/metrics", "Accept-Encoding", "gzip")
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("content type %q, want the text format", got)
	}
	// See docs/adr/0005-small-agent.md.
	if got := resp.Header.Get("Content-Encoding"); got != "" {
		t.Fatalf("content encoding %q, want none", got)
	}
	golden(t, "metrics.golden", normal(text))

	resp, text = p.request("GET", "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text; version=1.0.0") {
		t.Errorf("content type %q, want OpenMetrics", got)
	}
	golden(t, "openmetrics.golden", normal(text))
	if !strings.HasSuffix(text, "\n# EOF\n") {
		t.Errorf("OpenMetrics ends with %q, want # EOF", text[max(0, len(text)-40):])
	}
	for _, want := range []string{
		"\n# TYPE wattlet_node_energy_joules counter\n", "\nwattlet_node_energy_joules_total{node=\"raspberrypi\"} ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("OpenMetrics lacks %q", want)
		}
	}
	if regexp.MustCompile(`(?m)^# TYPE \S+_total `).MatchString(text) {
		t.Error("OpenMetrics has a family named _total; that is for its samples")
	}
}

// attributed are the families of attribution.
var attributed = regexp.MustCompile(`^(# (HELP|TYPE) )?wattlet_(function|workload|model|node_(base|unattributed|departed|pending|invariant))_`)

func TestGoldenAttribution(t *testing.T) {
	t.Parallel()
	_, text := startSplit(t).get("/metrics")
	var b strings.Builder
	for line := range strings.Lines(normal(text)) {
		if attributed.MatchString(line) {
			b.WriteString(line)
		}
	}
	// Which workloads, buckets and bounds there are depends on when one looks: each kind of series stands once.
	named := regexp.MustCompile(`(name|function|namespace)="[^"]*"`).ReplaceAllString(b.String(), `$1="…"`)
	seen := map[string]bool{}
	var once strings.Builder
	for line := range strings.Lines(named) {
		depends := strings.Contains(line, "_bucket{") || strings.Contains(line, `kind="pod"`) || strings.Contains(line, `bound="`)
		if !seen[line] && !depends {
			once.WriteString(line)
		}
		seen[line] = true
	}
	golden(t, "attribution.golden", once.String())
}

// golden compares text with a file in testdata, or with -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := string(b); got != want {
		t.Errorf("%s differs; if that is meant, make golden and read the diff:\n%s", path, difference(want, got))
	}
}

// difference is the lines that only one of two texts has.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for _, line := range w {
		if !slices.Contains(g, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	if b.Len() == 0 {
		return "the same lines in another order or number"
	}
	return b.String()
}

// Prometheus's own linter has nothing to say about any of our scrapes.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool := debian(t, "promtool")
	for name, start := range map[string]func(*testing.T) *process{"all families": startGallery, "earlier exporter": startEarlier, "split": startSplit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, text := start(t).get("/metrics")
			cmd := exec.Command(promtool, "check", "metrics")
			cmd.Stdin = strings.NewReader(text)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil || out.Len() > 0 {
				t.Errorf("promtool check metrics: %v: %s", err, out.String())
			}
		})
	}
}

// debian finds a program of Debian's prometheus package.
func debian(t *testing.T, program string) (path string) {
	t.Helper()
	path, err := exec.LookPath(program)
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v; make test gets it", err)
	case err != nil:
		t.Skipf("%v, which is in Debian's package prometheus; make test gets it", err)
	}
	return path
}

// docs/metrics.md says what the code says, and of every family that there is.
func TestMetricsDoc(t *testing.T) {
	t.Parallel()
	const path = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(exporter.Docs()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; make docs writes it", err)
	}
	doc := string(b)
	if doc != exporter.Docs() {
		t.Errorf("%s is not what the code says; make docs writes it anew:\n%s", path, difference(doc, exporter.Docs()))
	}
	_, gallery := startGallery(t).get("/metrics")
	_, earlier := startEarlier(t).get("/metrics")
	_, split := startSplit(t).get("/metrics")
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(gallery+earlier+split, -1) {
		name, kind := m[1], m[2]
		if strings.HasPrefix(name, "process_") {
			continue
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		if kind == "histogram" {
			kind = "native histogram" // the text format knows no other
		}
		if row := "\n| `" + name + "` | " + kind + " | "; !strings.Contains(doc, row) {
			t.Errorf("%s has no row %q", path, row)
		}
	}
	if rows := strings.Count(doc, "\n| `wattlet_"); len(seen) < rows {
		t.Errorf("%d families seen, but %s has %d", len(seen), path, rows)
	}
}
