package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

const (
	benchAgents = 100
	benchSeries = 300
)

// benchTime is a time that the environment may change.
func benchTime(b *testing.B, name string, otherwise time.Duration) time.Duration {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return d
}

// BenchmarkHub lets a hub and Debian's Prometheus, each a process of its own, scrape the same hundred agents of 300 series every five
// seconds or WATTLET_BENCH_EVERY, for a minute or WATTLET_BENCH_FOR, and prints what that costs. docs/hub.md has its table.
// WATTLET_BENCH_ONLY names one of them: the shorter the interval, the more they are in each other's way.
func BenchmarkHub(b *testing.B) {
	long, every := benchTime(b, "WATTLET_BENCH_FOR", time.Minute), benchTime(b, "WATTLET_BENCH_EVERY", 5*time.Second)
	fleet := httptest.NewServer(newFleet())
	b.Cleanup(fleet.Close)
	dir := b.TempDir()
	var targets, static bytes.Buffer
	host := strings.TrimPrefix(fleet.URL, "http://")
	for i := range benchAgents {
		fmt.Fprintf(&targets, "- targets: [%q]\n  labels: {instance: board-%d, __metrics_path__: /%d/metrics}\n", host, i, i)
	}
	fmt.Fprintf(&static, "global: {scrape_interval: %s}\nscrape_configs:\n- job_name: wattlet\n  honor_labels: true\n  file_sd_configs: [{files: [%q]}]\n",
		model.Duration(every), filepath.Join(dir, "targets.yaml"))
	for name, text := range map[string][]byte{"targets.yaml": targets.Bytes(), "prometheus.yaml": static.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	wattctl := filepath.Join(dir, "wattctl")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", wattctl, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	programs := []*measured{
		{name: "wattctl hub", args: []string{
			wattctl, "hub", "--scrape.interval=" + every.String(), "--targets.file=" + filepath.Join(dir, "targets.yaml"), "--data=" + filepath.Join(dir, "hub"), "--listen=",
		}},
		{name: "wattctl hub, no rules", args: []string{
			wattctl, "hub", "--no-builtin-rules", "--scrape.interval=" + every.String(), "--targets.file=" + filepath.Join(dir, "targets.yaml"),
			"--data=" + filepath.Join(dir, "plain"), "--listen=",
		}},
		{name: "prometheus", args: []string{
			"prometheus", "--config.file=" + filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path=" + filepath.Join(dir, "prometheus"), "--web.listen-address=",
		}},
	}
	if only := os.Getenv("WATTLET_BENCH_ONLY"); only != "" {
		programs = slices.DeleteFunc(programs, func(p *measured) bool { return p.name != only })
	}
	for _, p := range programs {
		p.start(b)
	}
	for _, p := range programs {
		p.wait(b)
	}
	timer := time.NewTimer(long)
	for b.Loop() {
		<-timer.C
		timer.Reset(long)
	}
	fmt.Printf("\n%d agents of %d series every %v for %v: %s/%s, %d cores\n%-24s%12s%12s%12s%14s%16s\n", benchAgents, benchSeries, every, long,
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), "", "RSS", "of it anon", "CPU", "samples", "CPU per million")
	for _, p := range programs {
		p.report()
	}
}

// fleet has the pages of agents, made beforehand: the machine is to be busy with those that read them.
type fleet struct {
	pages [benchAgents][8][]byte
	asked atomic.Int64
}

// newFleet makes the pages: counters that grow, and begin again after eight, and gauges that wander.
func newFleet() *fleet {
	f := new(fleet)
	for i := range f.pages {
		for j := range f.pages[i] {
			var b bytes.Buffer
			b.WriteString("# TYPE wattlet_function_energy_joules_total counter\n")
			for k := range benchSeries / 2 {
				fmt.Fprintf(&b, "wattlet_function_energy_joules_total{node=\"%d\",namespace=\"openfaas-fn\",function=\"f%d\"} %.6f\n",
					i, k, float64(j)*(1+float64(k)/7))
			}
			b.WriteString("# TYPE wattlet_function_watts_per_core gauge\n")
			for k := range benchSeries - benchSeries/2 {
				fmt.Fprintf(&b, "wattlet_function_watts_per_core{node=\"%d\",namespace=\"openfaas-fn\",function=\"f%d\"} %.6f\n",
					i, k, 1+0.1*math.Sin(float64(j*k)))
			}
			f.pages[i][j] = b.Bytes()
		}
	}
	return f
}

func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node, _, _ := strings.Cut(r.URL.Path[1:], "/")
	i, err := strconv.Atoi(node)
	if err != nil || i < 0 || i >= benchAgents {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write(f.pages[i][f.asked.Add(1)/benchAgents%8]) // the reader went away
}

// measured is a process that scrapes.
type measured struct {
	name  string
	args  []string // the last is completed by an address
	url   string
	pid   int
	cpu   float64 // s, when the measurement began
	since time.Time
	had   float64 // samples by then
}

func (m *measured) start(b *testing.B) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	m.url = "http://" + address
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	m.args[len(m.args)-1] += address
	cmd := exec.Command(m.args[0], m.args[1:]...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		b.Fatalf("%v; Debian's package prometheus has it", err)
	}
	m.pid = cmd.Process.Pid
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b.Failed() {
			b.Logf("%s: %s", m.name, log.String())
		}
	})
}

// wait waits until all agents have been scraped, and begins.
func (m *measured) wait(b *testing.B) {
	b.Helper()
	deadline := time.Now().Add(time.Minute)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for m.ask("count(up == 1)") < benchAgents {
		if <-poll.C; time.Now().After(deadline) {
			b.Fatalf("%s does not scrape", m.name)
		}
	}
	m.cpu, m.since, m.had = m.used(), time.Now(), m.samples()
}

// samples is how many samples the process has stored, by its own metrics.
func (m *measured) samples() (n float64) {
	resp, err := (&http.Client{Timeout: testPatience}).Get(m.url + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for l := range strings.Lines(string(text)) {
		if strings.HasPrefix(l, "prometheus_tsdb_head_samples_appended_total{") {
			fields := strings.Fields(l)
			v, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
			n += v
		}
	}
	return n
}

func (m *measured) ask(query string) float64 {
	resp, err := (&http.Client{Timeout: testPatience}).Get(queryURL(m.url, query))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []sample `json:"result"`
		} `json:"data"`
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil || len(answer.Data.Result) != 1 {
		return 0
	}
	return answer.Data.Result[0].value()
}

// used is the process's CPU time so far, s.
func (m *measured) used() float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		return math.NaN()
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

func (m *measured) report() {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	memory := func(key string) float64 {
		_, after, _ := strings.Cut(string(status), "\n"+key+":")
		kb, _, _ := strings.Cut(strings.TrimSpace(after), " ")
		v, _ := strconv.ParseFloat(kb, 64)
		return v / 1024
	}
	cpu, samples := m.used()-m.cpu, m.samples()-m.had
	took := time.Since(m.since).Seconds()
	fmt.Printf("%-24s%8.1f MiB%8.1f MiB%10.2f %%%12.0f/s%14.2f s\n", m.name, memory("VmRSS"), memory("RssAnon"), 100*cpu/took, samples/took, cpu/samples*1e6)
}
