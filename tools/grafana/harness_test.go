package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is what everything in a test may take, on a machine that does much else.
const patience = 3 * time.Minute

// The simulated boards: one has cold starts, the other cores of two classes.
const board1, board2 = "raspberrypi", "odroid-xu4-1"

// cluster2 runs two clusters and returns the URLs of a Prometheus and a hub that scrape them. In Prometheus,
// board1 is in a cluster called edge, with what is silent or down; the others have no label cluster.
func cluster2(t *testing.T) (prometheusURL, hubURL string) {
	t.Helper()
	bin, dir := programs(t), t.TempDir()
	up := start(t, filepath.Join(bin, "wattctl"), "up", "--boards="+board1+","+board2, "--listen=127.0.0.1:0", "--agents.listen=127.0.0.1:0",
		"--agent="+filepath.Join(bin, "wattlet"), "--data="+filepath.Join(dir, "up"))
	upHub := up.says(`at (http://[0-9.:]+)[;,]`)
	agents := map[string]string{}
	eventually(t, "the boards' agents are known", up.ended, func() bool {
		var answer struct {
			Data struct {
				ActiveTargets []struct {
					Labels    struct{ Instance string }
					ScrapeURL string
				}
			}
		}
		fetch(t, http.MethodGet, upHub+"/api/v1/targets", nil, &answer)
		for _, target := range answer.Data.ActiveTargets {
			agents[target.Labels.Instance] = strings.TrimSuffix(target.ScrapeURL, "/metrics")
		}
		return len(agents) == 2
	}, nil)

	config := writeFile(t, dir, "cluster.yaml", fmt.Sprintf(`
meters:
  bench-1: {url: "%s", psk_identity: wattlet, psk_file: up/bench-1.psk}
  nowhere: {url: "coaps://127.0.0.1:1", psk_identity: wattlet, psk_file: up/bench-1.psk}
nodes:
  earlier: {meter: bench-1, channel: 1}
  silent: {meter: nowhere, channel: 1}
`, regexp.MustCompile(`coaps://[0-9.:]+`).FindString(readFile(t, filepath.Join(dir, "up", "cluster.yaml")))))
	for node, flag := range map[string]string{"earlier": "--metrics.legacy", "silent": "--log.level=info"} {
		agent := start(t, filepath.Join(bin, "wattlet"), "--config.file="+config, "--node="+node, "--web.listen-address=127.0.0.1:0",
			"--state.directory=", "--attribution=false", flag)
		agents[node] = "http://" + agent.says(`address=(127\.0\.0\.1:[1-9][0-9]*)`)
	}

	hub := start(t, filepath.Join(bin, "wattctl"), "hub", "--listen=127.0.0.1:0", "--data="+filepath.Join(dir, "hub"), "--scrape.interval=1s",
		"--no-builtin-rules", "--target=down=127.0.0.1:1", "--target="+board1+"="+agents[board1], "--target="+board2+"="+agents[board2],
		"--target=earlier="+agents["earlier"], "--target=silent="+agents["silent"])
	hubURL = hub.says(`hub at (http://[0-9.:]+),`)

	// Alerts wait for minutes; these do not.
	rules := readFile(t, "../../deploy/prometheus/wattlet.rules.yaml")
	writeFile(t, dir, "rules.yaml", regexp.MustCompile(`(?m)^ +for: .*\n`).ReplaceAllString(rules, ""))
	scrape := `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: wattlet
    honor_labels: true
    static_configs:
`
	for node, labels := range map[string]string{board1: "cluster: edge", board2: "", "earlier": "instance: earlier", "silent": "cluster: edge"} {
		scrape += fmt.Sprintf("      - {targets: ['%s'], labels: {%s}}\n", strings.TrimPrefix(agents[node], "http://"), labels)
	}
	scrape += "      - {targets: ['127.0.0.1:1'], labels: {cluster: edge}}\n"
	server := start(t, debian(t, "prometheus"), "--config.file="+writeFile(t, dir, "prometheus.yml", scrape), "--storage.tsdb.path="+filepath.Join(dir, "prometheus"),
		"--web.listen-address=127.0.0.1:0", "--enable-feature=native-histograms")
	prometheusURL = "http://" + server.says(`address=(127\.0\.0\.1:[1-9][0-9]*)`)
	for _, store := range []string{prometheusURL, hubURL} { // as Grafana does when a data source is saved
		eventually(t, store+" says what it is", server.ended, func() bool {
			return fetch(t, http.MethodGet, store+"/api/v1/status/buildinfo", nil, new(any)) == http.StatusOK
		}, nil)
	}
	return prometheusURL, hubURL
}

// programs returns the directory of wattctl and wattlet: $WATTLET_BIN, or where it builds them.
func programs(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("WATTLET_BIN"); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := t.TempDir()
	for _, args := range [][]string{{"-tags=nethttpomithttp2", "./cmd/wattlet"}, {"./cmd/wattctl"}} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", dir + "/"}, args...)...)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=") // the product's own workspace
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	return dir
}

// debian finds a program of Debian's.
func debian(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v; make test gets it", err)
	case err != nil:
		t.Skipf("%v; make test gets it", err)
	}
	return path
}

// process is a program that runs until the test's end.
type process struct {
	t      *testing.T
	name   string
	output output
	ended  chan struct{}
}

func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(program) + " " + args[0], ended: make(chan struct{})}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // it is interrupted
	}()
	t.Cleanup(func() {
		<-p.ended // the test's context has ended
		if t.Failed() {
			t.Logf("%s:\n%s", p.name, p.output.end())
		}
	})
	return p
}

// says waits until the program has written what matches, and returns the first group.
func (p *process) says(pattern string) (group string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	eventually(p.t, p.name+" says "+pattern, p.ended, func() bool {
		m := re.FindSubmatch(p.output.all())
		if m != nil {
			group = string(m[1])
		}
		return m != nil
	}, nil)
	return group
}

// output is what a program has written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) all() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.b.Bytes())
}

func (o *output) end() []byte {
	b := o.all()
	return b[max(0, len(b)-3000):]
}

// eventually waits until something is so. If it never is, or a program that it needs ends, why may tell more.
func eventually(t *testing.T, what string, ended <-chan struct{}, is func() bool, why func()) {
	t.Helper()
	tick, late := time.NewTicker(200*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer late.Stop()
	for !is() {
		select {
		case <-tick.C:
			continue
		case <-ended:
			t.Fatalf("it ended before %s", what)
		case <-late.C:
		}
		if why != nil {
			why()
		}
		t.Fatalf("not so after %v: %s", patience, what)
	}
}

func writeFile(t *testing.T, dir, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
