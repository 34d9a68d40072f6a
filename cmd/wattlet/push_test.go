package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/hub"
	"github.com/wattlet/wattlet/internal/metersim"
)

// startHub runs a hub that only receives until the test ends, and returns its address.
func startHub(t *testing.T, webConfig string) (address string) {
	t.Helper()
	h, err := hub.New(hub.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Receive: true, WebConfig: webConfig})
	if err != nil {
		t.Fatal(err)
	}
	background(t, h.Run)
	return h.Addr().String()
}

// query evaluates a query of a Prometheus now and returns the values by series, written as in the text format, without the labels
// that are given to all that is pushed.
func query(t *testing.T, address, query string) map[string]float64 {
	t.Helper()
	series := map[string]float64{}
	for _, r := range ask(t, address, query) {
		if len(r.Value) == 2 {
			series[r.name(t)] = parse(t, r.Value[1])
		}
	}
	return series
}

// result is a series of an answer.
type result struct {
	Metric map[string]string
	Value  []any
	Values [][2]any
}

func (r result) name(t *testing.T) string {
	t.Helper()
	for name, want := range map[string]string{"job": "wattlet", "cluster": "munich"} {
		if r.Metric[name] != want {
			t.Errorf("%v: %s is not %s", r.Metric, name, want)
		}
		delete(r.Metric, name)
	}
	delete(r.Metric, "instance")
	name := r.Metric["__name__"]
	delete(r.Metric, "__name__")
	if len(r.Metric) == 0 {
		return name
	}
	labels, err := json.Marshal(r.Metric) // in order
	if err != nil {
		t.Fatal(err)
	}
	return name + regexp.MustCompile(`"([^"]+)":("[^"]*")`).ReplaceAllString(string(labels), "$1=$2")
}

func parse(t *testing.T, v any) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ask is query with the answer as it is. While nobody answers there is none.
func ask(t *testing.T, address, query string) []result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/query?"+url.Values{"query": {query}}.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct{ Data struct{ Result []result } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil
	}
	return answer.Data.Result
}

// standing are the families that stay as they are while the meter is not heard.
var standing = regexp.MustCompile(`^wattlet_(build_info|(node|workload|function)_.*_(joules|coulombs)(_total)?|node_info|meter_info)(\{|$)`)

// withValues leaves out the labels without a value, which are none.
func withValues(series map[string]float64) map[string]float64 {
	named := map[string]float64{}
	for name, v := range series {
		named[regexp.MustCompile(`,?[a-z]+=""`).ReplaceAllString(name, "")] = v
	}
	return named
}

// TestPushToHub compares what a hub has been sent by an agent that splits with the agent's own page.
func TestPushToHub(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"1.0", "2.0"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			to := startHub(t, "")
			x := startBoard(t, boardsim.Options{Board: "raspberrypi-3b", Seed: 3, Scenario: twoFunctions()})
			link, meterURL := startLink(t, metersim.LinkOptions{Target: x.meter.Addr().String()})
			p := x.agent(t, "--meter.url="+meterURL, "--push.url=http://"+to+"/api/v1/write", "--push.interval=1s", "--push.label=cluster=munich",
				"--push.protocol="+protocol, "--push.native-histograms")
			// Their energy comes after their count.
			p.wait("the energy of invocations is known", func() bool {
				for name, n := range p.scrape() {
					if strings.HasPrefix(name, "wattlet_function_invocation_energy_joules_count") && n > 10 {
						return true
					}
				}
				return false
			})
			link.Pause()
			var differ []string
			var counted [2]int
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%d series, %d histograms: %s", counted[0], counted[1], strings.Join(differ, "\n"))
				}
			})
			p.wait("the hub has what the page has", func() bool {
				differ = nil
				page, got := withValues(p.scrape()), query(t, to, `{instance="pi",__name__!="wattlet_function_invocation_energy_joules"}`)
				invocations := query(t, to, `label_replace(histogram_count(wattlet_function_invocation_energy_joules),"__name__","wattlet_function_invocation_energy_joules_count","","")`)
				for name, v := range page {
					switch family, _, _ := strings.Cut(name, "{"); {
					case family == "wattlet_function_invocation_energy_joules_count":
						if n, ok := invocations[name]; !ok || n != v {
							differ = append(differ, fmt.Sprintf("%s %v, the hub has %v", name, v, n))
						}
					case strings.HasPrefix(family, "wattlet_function_invocation_energy_joules_"):
						if _, ok := got[name]; ok {
							differ = append(differ, name+" is there as classic histogram too")
						}
					default:
						if have, ok := got[name]; !ok || standing.MatchString(name) && have != v {
							differ = append(differ, fmt.Sprintf("%s %v, the hub has %v, %v", name, v, have, ok))
						}
					}
				}
				for name := range got {
					if _, ok := page[name]; !ok {
						differ = append(differ, name+" is the hub's alone")
					}
				}
				counted = [2]int{len(page), len(invocations)}
				return len(differ) == 0 && len(page) > 100 && len(invocations) > 0
			})
			p.stop()
			// The mark has the time of the end, and a hub asked at once may be some milliseconds behind.
			p.ended = make(chan struct{}) // wait is not for agents that have ended
			p.wait("all series have ended", func() bool { return len(ask(t, to, `{job="wattlet"}`)) == 0 })
			close(p.ended)
			if log := p.logged(); strings.Count(log, "level=INFO msg=\"samples are pushed\"") != 1 || strings.Contains(log, "are lost") {
				t.Errorf("the log is\n%s", log)
			}
		})
	}
}

// pushing runs an agent with a node that measures itself and pushes each second.
func pushing(t *testing.T, to string, args ...string) *process {
	t.Helper()
	return startAgent(t, append([]string{
		"--sysfs=hwmon", "--node=orin", "--path.sys=" + newSysfs(t).root, "--tick=100ms", "--push.interval=1s", "--push.label=cluster=munich", "--push.url=" + to,
	}, args...)...)
}

// prometheusReceiver returns how to start Debian's Prometheus as a receiver, again and again at the same address.
func prometheusReceiver(t *testing.T) (address string, start func() *process) {
	t.Helper()
	program := debian(t, "prometheus")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, dir := l.Addr().String(), t.TempDir()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return address, func() *process {
		p := launch(t, exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address,
			"--web.enable-remote-write-receiver", "--log.level=error"))
		p.wait("Prometheus answers", func() bool { return len(ask(t, address, "vector(1)")) == 1 })
		return p
	}
}

// TestPushWithoutReceiver kills a Prometheus for some seconds: it has every sample in the end.
func TestPushWithoutReceiver(t *testing.T) {
	t.Parallel()
	to, start := prometheusReceiver(t)
	p := pushing(t, "http://"+to+"/api/v1/write")
	count := func() float64 {
		for _, n := range ask(t, to, "count_over_time(wattlet_node_energy_joules_total[5m])") {
			return parse(t, n.Value[1])
		}
		return 0
	}
	said := func(n int, what string) {
		t.Helper()
		p.wait(what, func() bool { return strings.Count(p.logged(), what) == n })
	}
	said(1, "they wait in memory") // from the start
	prometheus := start()
	said(1, "samples are pushed")
	p.wait("some samples", func() bool { return count() >= 3 })
	prometheus.kill()
	said(2, "they wait in memory")
	away := time.Now()
	p.wait("five seconds", func() bool { return time.Since(away) > 5*time.Second })
	start()
	said(2, "samples are pushed")
	before := count()
	p.wait("more samples", func() bool { return count() > before+2 })
	p.stop()

	all := ask(t, to, "wattlet_node_energy_joules_total[5m]")
	if len(all) != 1 || all[0].Metric["instance"] != "orin" || all[0].Metric["node"] != "orin" {
		t.Fatalf("series %v", all)
	}
	var at []float64
	for i, v := range all[0].Values {
		at = append(at, parse(t, v[0]))
		if i > 0 && parse(t, v[1]) < parse(t, all[0].Values[i-1][1]) {
			t.Errorf("the energy falls: %v", all[0].Values)
		}
	}
	// A ticker of a machine that stalls may leave out a tick; five seconds are five.
	span := at[len(at)-1] - at[0]
	if want := math.Round(span); float64(len(at)) < want || span < 8 {
		t.Errorf("%d samples in %v s: %v", len(at), span, at)
	}
	t.Logf("%d samples in %.1f s", len(at), span)
}

// TestPushUnconfirmed sends 2.0 to a Prometheus that knows 1.0 and takes it for nothing.
func TestPushUnconfirmed(t *testing.T) {
	t.Parallel()
	to, start := prometheusReceiver(t)
	start()
	p := pushing(t, "http://"+to+"/api/v1/write", "--push.protocol=2.0")
	p.wait("it is refused", func() bool { return p.scrape()[`wattlet_push_dropped_samples_total{node="orin",reason="refused"}`] > 0 })
	if log := p.logged(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "only 0 are confirmed; if it does not know 2.0, use protocol 1.0") {
		t.Errorf("the log is\n%s", log)
	}
	if n := p.scrape()[`wattlet_push_samples_total{node="orin"}`]; n != 0 {
		t.Errorf("%v samples are said to be taken", n)
	}
}

// TestPushOverTLS has the wrong password at first.
func TestPushOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeCertificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) (path string) {
		path = filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	web := write("web.yml", "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {pi: '"+string(hash)+"'}\n")
	p := pushing(t, "https://"+startHub(t, web)+"/api/v1/write", "--push.ca="+filepath.Join(dir, "cert.pem"), "--push.user=pi",
		"--push.password-file="+write("password", "wrong\n"))
	p.wait("it is refused", func() bool { return strings.Contains(p.logged(), "status 401") })
	write("password", "right\n")
	p.wait("it is taken", func() bool { return p.scrape()[`wattlet_push_samples_total{node="orin"}`] > 0 })
	if strings.Contains(p.logged(), "right") {
		t.Errorf("the log has the password:\n%s", p.logged())
	}
}

// TestPushAtTheEnd has an agent end between two samples.
func TestPushAtTheEnd(t *testing.T) {
	t.Parallel()
	to := startHub(t, "")
	p := pushing(t, "http://"+to+"/api/v1/write", "--push.interval=2m")
	var before float64
	p.wait("a joule", func() bool { before = p.scrape()[`wattlet_node_energy_joules_total{node="orin"}`]; return before > 1 })
	p.stop()
	if got := query(t, to, `last_over_time(wattlet_node_energy_joules_total[1m])`); got[`wattlet_node_energy_joules_total{node="orin"}`] < before {
		t.Errorf("%v, want at least %v", got, before)
	}
}

func TestPushMetrics(t *testing.T) {
	t.Parallel()
	promtool := debian(t, "promtool")
	quiet, release := nobody(t, "")
	release()
	p := pushing(t, "http://"+quiet+"/api/v1/write")
	_, text := p.get("/metrics")
	for _, want := range []string{
		"\nwattlet_push_samples_total{node=\"orin\"} 0\n", "\nwattlet_push_dropped_samples_total{node=\"orin\",reason=\"refused\"} 0\n",
		"\nwattlet_push_dropped_samples_total{node=\"orin\",reason=\"buffer_full\"} 0\n", "\nwattlet_push_last_success_timestamp_seconds{node=\"orin\"} 0\n",
		"\nwattlet_build_info{", "\nprocess_cpu_seconds_total ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v: %s", err, out)
	}
	// All else is as without pushing.
	plain := startAgent(t, "--sysfs=hwmon", "--node=orin", "--path.sys="+newSysfs(t).root, "--tick=100ms")
	names := func(p *process) (all []string) {
		_, text := p.get("/metrics")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "#") && !strings.Contains(line, " wattlet_push_") {
				all = append(all, line)
			}
		}
		return all
	}
	for _, each := range []*process{p, plain} {
		each.wait("it is measured", func() bool { n := each.node("orin"); return n.PowerUW != nil && *n.PowerUW > 0 })
	}
	if with, without := strings.Join(names(p), ""), strings.Join(names(plain), ""); with != without {
		t.Errorf("with pushing other metrics: %s", difference(without, with))
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // which has nobody to send to
		t.Fatal(err)
	}
	<-p.ended
	if p.err != nil || !strings.Contains(p.logged(), "did not take them before the end") {
		t.Errorf("%v, log\n%s", p.err, p.logged())
	}
}

func TestPushFaults(t *testing.T) {
	t.Parallel()
	base := []string{"--sysfs=hwmon", "--node=orin", "--path.sys=" + newSysfs(t).root, "--state.directory=", "--web.listen-address=127.0.0.1:0"}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no URL":       {[]string{"--push.user=pi"}, "wattlet: --push.user needs --push.url"},
		"bad URL":      {[]string{"--push.url=hub:9779"}, "wattlet: push: URL"},
		"bad interval": {[]string{"--push.url=http://hub", "--push.interval=5m"}, "push: interval 5m0s: it must be from 1s to 2m"},
		"bad protocol": {[]string{"--push.url=http://hub", "--push.protocol=1"}, `push: protocol "1": it must be 1.0 or 2.0`},
		"bad buffer":   {[]string{"--push.url=http://hub", "--push.buffer=1"}, "push: buffer of 1 bytes"},
		"no password":  {[]string{"--push.url=http://hub", "--push.user=pi", "--push.password-file=/none"}, "push: password: open /none"},
		"no CA":        {[]string{"--push.url=http://hub", "--push.ca=/none"}, "push: certificates to trust: open /none"},
		"label":        {[]string{"--push.url=http://hub", "--push.label=cluster"}, "it must be as cluster=munich"},
		"own label":    {[]string{"--push.url=http://hub", "--push.label=__name__=x"}, "it must be as cluster=munich"},
		"empty label":  {[]string{"--push.url=http://hub", "--push.label=cluster="}, "it must be as cluster=munich"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, _, stderr := runAgent(t, append(base, tc.args...)...)
			if status != 2 || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("status %d, %q, want 2, %q", status, stderr, tc.want)
			}
		})
	}
}
