package hub

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// receiver is a real server that takes remote write.
type receiver struct {
	t    *testing.T
	base string
	args []string // of its command
	end  syscall.Signal
	cmd  *exec.Cmd
}

// newReceiver returns a receiver that does not run yet. Of its arguments DIR becomes a directory and ADDRESS its address.
func newReceiver(t *testing.T, end syscall.Signal, command string, args ...string) *receiver {
	t.Helper()
	path, err := exec.LookPath(command)
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v; make test gets it", err)
	case err != nil:
		t.Skipf("%v, which is in Debian's package of that name; make test gets it", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, dir := l.Addr().String(), t.TempDir()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, base: "http://" + address, end: end, args: []string{path}}
	for _, arg := range args {
		r.args = append(r.args, strings.NewReplacer("DIR", dir, "ADDRESS", address).Replace(arg))
	}
	t.Cleanup(r.stop)
	return r
}

// start starts the server and waits until it answers.
func (r *receiver) start() {
	r.t.Helper()
	r.cmd = exec.Command(r.args[0], r.args[1:]...)
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, r.args[0]+" serves", func() bool {
		resp, err := (&http.Client{Timeout: time.Second}).Get(r.base + "/api/v1/query?query=1")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
}

// stop ends the server in its own way.
func (r *receiver) stop() {
	if r.cmd != nil {
		_ = r.cmd.Process.Signal(r.end) // it may be dead
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

func debianPrometheus(t *testing.T, more ...string) *receiver {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(empty, []byte("global: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return newReceiver(t, syscall.SIGKILL, "prometheus", append([]string{
		"--config.file=" + empty, "--storage.tsdb.path=DIR", "--web.listen-address=ADDRESS", "--web.enable-remote-write-receiver", "--log.level=error",
	}, more...)...)
}

// debianVictoriaMetrics ends in order: killed, it would itself lose what it has confirmed in its last second.
func debianVictoriaMetrics(t *testing.T, more ...string) *receiver {
	t.Helper()
	return newReceiver(t, syscall.SIGTERM, "victoria-metrics", append([]string{
		"-storageDataPath=DIR", "-httpListenAddr=ADDRESS", "-search.latencyOffset=0s", "-search.disableCache", "-loggerLevel=ERROR",
		"-http.maxGracefulShutdownDuration=100ms",
	}, more...)...)
}

// sample is a value, or count and sum of a native histogram.
type sample struct {
	ms         int64
	value, sum float64
}

// samplesOf returns all samples of the last five minutes by the series' labels, external label cluster left out.
func samplesOf(t *testing.T, base string) map[string][]sample {
	t.Helper()
	got := api[struct {
		Result []struct {
			Metric     map[string]string
			Values     [][2]any
			Histograms [][2]any
		}
	}](t, base, "query", "query", `{__name__!=""}[5m]`)
	all := map[string][]sample{}
	number := func(v any) float64 {
		f, err := strconv.ParseFloat(fmt.Sprint(v), 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, series := range got.Result {
		delete(series.Metric, "cluster")
		key, err := json.Marshal(series.Metric) // sorts
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range series.Values {
			if v[1] == "NaN" {
				continue // VictoriaMetrics shows what says that a series ended, Prometheus does not
			}
			all[string(key)] = append(all[string(key)], sample{ms: int64(math.Round(v[0].(float64) * 1000)), value: number(v[1])})
		}
		for _, v := range series.Histograms {
			h := v[1].(map[string]any)
			all[string(key)] = append(all[string(key)],
				sample{ms: int64(math.Round(v[0].(float64) * 1000)), value: number(h["count"]), sum: number(h["sum"])})
		}
	}
	return all
}

// missing returns what of want is not in got; how many series and samples want has.
func missing(want, got map[string][]sample) (missing []string, samples int) {
	for series, all := range want {
		have := map[int64]sample{}
		for _, s := range got[series] {
			have[s.ms] = s
		}
		for _, s := range all {
			samples++
			// VictoriaMetrics keeps decimals, and a few digits less.
			if h, ok := have[s.ms]; !ok || math.Abs(h.value-s.value) > 1e-9*math.Abs(s.value) || math.Abs(h.sum-s.sum) > 1e-9*math.Abs(s.sum) {
				missing = append(missing, fmt.Sprintf("%s: %+v, got %+v", series, s, h))
			}
		}
	}
	return missing, samples
}

// TestRemoteWrite sends what a hub scrapes and records to real servers that are away for a while, and ends the hub: they have every
// sample then, and no other.
func TestRemoteWrite(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		receiver func(t *testing.T, args ...string) *receiver
		args     []string
		native   bool
		lacks    []string // parts of series that it cannot keep
	}{
		"prometheus": {debianPrometheus, []string{"--enable-feature=native-histograms"}, true, nil},
		// Those would arrive, and be dropped without a word.
		"victoria-metrics": {debianVictoriaMetrics, nil, false, []string{`"wattlet_function_invocation_energy_joules"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := tc.receiver(t, tc.args...)
			to.start()
			a := newAgent(t, "")
			cfg := Config{
				Dir: t.TempDir(), Targets: []Target{{Name: "bench", URL: a.URL}}, ExternalLabels: map[string]string{"cluster": "lab"},
				RemoteWriteFile: writeFile(t, "remote.yaml", fmt.Sprintf(`
- url: %s/api/v1/write
  send_native_histograms: %v
  queue_config: {batch_send_deadline: 200ms, max_backoff: 500ms}
`, to.base, tc.native)),
				Rules: []RuleFile{{Name: "site.yaml", Text: []byte(`
groups:
  - name: fast
    interval: 200ms
    rules: [{record: twice, expr: 2 * wattlet_node_energy_joules_total}]
`)}},
			}
			h := start(t, cfg)
			counted := func(n float64) func() bool {
				return func() bool {
					a.joule.Add(0.1)
					got, _ := value(t, h.base, "count_over_time(wattlet_node_energy_joules_total[1m])")
					return got >= n
				}
			}
			says := func(what string) {
				t.Helper()
				eventually(t, "the log says: "+what, func() bool { return strings.Contains(h.log.String(), what) })
			}
			up := func() string {
				_, page, _ := fetchPage(t, h.base+"/metrics")
				_, line, _ := strings.Cut(page, "\nwattlet_hub_remote_write_up{")
				line, _, _ = strings.Cut(line, "\n")
				return line[max(0, len(line)-2):]
			}
			eventually(t, "the first samples arrive", func() bool {
				a.joule.Add(0.1)
				return up() == " 1"
			})
			to.stop()
			says("the receiver does not take samples, they wait in the write-ahead log")
			if got := up(); got != " 0" {
				t.Errorf("up is%s while the receiver is away", got)
			}
			before, _ := value(t, h.base, "count_over_time(wattlet_node_energy_joules_total[1m])")
			eventually(t, "three seconds of samples while nobody takes them", counted(before+60))
			to.start()
			says("the receiver takes samples again")
			if got := up(); got != " 1" {
				t.Errorf("up is%s afterwards", got)
			}
			before, _ = value(t, h.base, "count_over_time(wattlet_node_energy_joules_total[1m])")
			eventually(t, "more samples", counted(before+20))
			h.stop()
			if got := strings.Count(h.log.String(), "\n"); got != 2 {
				t.Errorf("%d lines of log, want 2", got)
			}

			// What the hub has, a hub that scrapes nothing tells.
			h = start(t, Config{Dir: cfg.Dir})
			want := samplesOf(t, h.base)
			for series := range want {
				for _, part := range tc.lacks {
					if strings.Contains(series, part) {
						delete(want, series)
					}
				}
			}
			for _, name := range []string{"up", "twice", "wattlet_node_energy_joules_total", "scrape_duration_seconds"} {
				if !strings.Contains(fmt.Sprint(want), fmt.Sprintf(`"__name__":%q`, name)) {
					t.Errorf("the hub itself has no %s", name)
				}
			}
			var lost []string
			var n int
			eventually(t, "all samples are there", func() bool {
				lost, n = missing(want, samplesOf(t, to.base))
				return len(lost) == 0
			})
			more, m := missing(samplesOf(t, to.base), want)
			if len(more) > 0 {
				t.Errorf("%d of %d samples are the receiver's alone: %s", len(more), m, more[0])
			}
			t.Logf("%d series, %d samples", len(want), n)
			for _, series := range api[[]map[string]string](t, to.base, "series", "match[]", `{__name__!=""}`) {
				if series["cluster"] != "lab" {
					t.Errorf("%v has not the external label", series)
				}
			}
		})
	}
}

// writeFile writes a file of a test's own.
func writeFile(t testing.TB, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
