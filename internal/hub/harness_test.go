package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// patience is what everything in a test may take, on a machine that does much else.
const patience = 30 * time.Second

// TestMain makes the test binary a hub, with the directory and the agent of its arguments, when a test starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv("BE_HUB") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := New(Config{
		Dir: os.Args[1], Listen: "127.0.0.1:0", Targets: []Target{{Name: "pi", URL: os.Args[2]}}, ScrapeInterval: 50 * time.Millisecond,
	})
	if err == nil {
		fmt.Fprintln(os.Stdout, "http://"+h.Addr().String())
		err = h.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fakeAgent has the pages of an agent.
type fakeAgent struct {
	*httptest.Server

	asked atomic.Int64 // for snapshots
	joule prometheus.Counter
	mux   *http.ServeMux
}

// newAgent starts an agent of node pi that has counted 1234.5 J. It demands basic auth if a password is given.
func newAgent(t testing.TB, password string) *fakeAgent {
	t.Helper()
	reg := prometheus.NewRegistry()
	label := prometheus.Labels{"node": "pi"}
	a := &fakeAgent{mux: http.NewServeMux()}
	a.joule = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wattlet_node_energy_joules_total", Help: "Energy of the node.", ConstLabels: label,
	})
	watt := prometheus.NewGauge(prometheus.GaugeOpts{Name: "wattlet_node_power_watts", Help: "Power.", ConstLabels: label})
	each := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "wattlet_function_invocation_energy_joules", Help: "Energy of an invocation.", ConstLabels: label,
		NativeHistogramBucketFactor: 1.1,
	})
	for _, c := range []prometheus.Collector{a.joule, watt, each} {
		if err := reg.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	a.joule.Add(1234.5)
	watt.Set(3.25)
	for range 40 {
		each.Observe(0.5)
	}
	a.mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	a.mux.HandleFunc("GET /api/v1/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		// An agent ends its answer with a line end; one within must not break an event either.
		fmt.Fprintf(w, "{\"format\": \"wattlet-snapshot/1\",\n\"nodes\": [{\"node\": \"pi\", \"energy_uj\": %d}]}\n", a.asked.Add(1))
	})
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != password {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		a.mux.ServeHTTP(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// syncBuffer is a log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// running is a hub that runs in this process.
type running struct {
	*Hub

	t    testing.TB
	base string
	log  *syncBuffer
	stop func() // and waits; the hub must end well
}

// start runs a hub with a short interval.
func start(t testing.TB, cfg Config) *running {
	t.Helper()
	r := &running{t: t, log: &syncBuffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	cfg.Listen = "127.0.0.1:0"
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.ScrapeInterval == 0 {
		cfg.ScrapeInterval = 50 * time.Millisecond
	}
	var err error
	if r.Hub, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.base = "http://" + r.Addr().String()
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it outlives the test's body
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the hub does not end")
		}
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// fetchPage returns status, body and header of a page.
func fetchPage(t testing.TB, address string) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// api asks a hub's Prometheus API and decodes the data of its answer.
func api[T any](t testing.TB, base, path string, query ...string) T {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Add(query[i], query[i+1])
	}
	status, body, _ := fetchPage(t, base+"/api/v1/"+path+"?"+values.Encode())
	var answer struct {
		Status string
		Data   T
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %q: status %d, %v: %s", path, query, status, err, body)
	}
	return answer.Data
}

type vector struct {
	Result []struct {
		Metric map[string]string
		Value  [2]any
		Values [][2]any
	}
}

// value returns the one value of an instant query, or NaN's absence: false.
func value(t testing.TB, base, query string) (float64, bool) {
	t.Helper()
	v := api[vector](t, base, "query", "query", query)
	if len(v.Result) == 0 {
		return 0, false
	}
	if len(v.Result) > 1 {
		t.Fatalf("%s has %d results", query, len(v.Result))
	}
	text, _ := v.Result[0].Value[1].(string)
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f, true
}

// scraped waits until a query has a value, and returns the first.
func scraped(t testing.TB, base, query string) (got float64) {
	t.Helper()
	eventually(t, query+" has a value", func() (ok bool) {
		got, ok = value(t, base, query)
		return ok
	})
	return got
}
