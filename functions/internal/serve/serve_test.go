package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/workload"
)

// quick is a configuration for tests.
func quick(f Function) Config {
	cfg := Defaults(f)
	cfg.Listen, cfg.Metrics, cfg.Linger = "127.0.0.1:0", "127.0.0.1:0", 0
	return cfg
}

// ask answers one request without a network.
func ask(h http.Handler, r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func get(target string) *http.Request { return httptest.NewRequest(http.MethodGet, target, nil) }

func prepared(f Function, cfg Config) (*Server, *strings.Builder) {
	var log strings.Builder
	s := New(f, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	close(s.prepared)
	return s, &log
}

func TestAnswers(t *testing.T) {
	f := Function{Name: "f", InFlight: 1, MaxBody: 10, Serve: func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Path {
		case "/bad":
			return BadRequest("parameter x:\nno such thing")
		case "/fails":
			return fmt.Errorf("opening: %w", errors.New("two\nlines"))
		case "/unread":
			return JSON(w, "served")
		case "/panics":
			panic("a fault")
		case "/waits":
			<-r.Context().Done()
			return fmt.Errorf("waiting: %w", r.Context().Err())
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		Bytes(w, "text/plain", append(b, " read"...))
		return nil
	}}
	unknownLength := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	for name, tc := range map[string]struct {
		request *http.Request
		code    int
		body    string
		logged  string
	}{
		"good":                  {httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789")), 200, "0123456789 read", ""},
		"any path":              {httptest.NewRequest(http.MethodPut, "/a/b", unknownLength("01")), 200, "01 read", ""},
		"announced as large":    {httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789a")), 413, "the body is larger than 10 bytes\n", ""},
		"large and not read":    {httptest.NewRequest(http.MethodPost, "/unread", strings.NewReader("0123456789a")), 413, "the body is larger than 10 bytes\n", ""},
		"large":                 {httptest.NewRequest(http.MethodPost, "/", unknownLength("0123456789a")), 413, "the body is larger than 10 bytes\n", ""},
		"caller's fault":        {get("/bad"), 400, "parameter x: no such thing\n", ""},
		"function's fault":      {get("/fails"), 500, "opening: two lines\n", "an invocation failed"},
		"panic":                 {get("/panics"), 500, "the function failed\n", "a fault of the function"},
		"takes too long":        {get("/waits"), 504, "it took longer than 20ms\n", ""},
		"health":                {get("/_/health"), 200, "ok\n", ""},
		"ready":                 {get("/_/ready"), 200, "ready\n", ""},
		"other of the watchdog": {get("/_/other"), 404, "404 page not found\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := quick(f)
			cfg.Timeout = 20 * time.Millisecond
			s, log := prepared(f, cfg)
			if code, body := ask(s.Handler(), tc.request); code != tc.code || body != tc.body {
				t.Errorf("%d %q, want %d %q", code, body, tc.code, tc.body)
			}
			if len(s.slots) != 0 {
				t.Error("the invocation still has its slot")
			}
			if (log.Len() > 0) != (tc.logged != "") || !strings.Contains(log.String(), tc.logged) {
				t.Errorf("logged %q, want %q", log, tc.logged)
			}
		})
	}
}

func TestNoBody(t *testing.T) {
	f := Function{Name: "f", InFlight: 1, Serve: func(w http.ResponseWriter, _ *http.Request) error { return JSON(w, 1) }}
	s, _ := prepared(f, quick(f))
	for body, want := range map[io.Reader]int{
		nil: 200, strings.NewReader("x"): 413, io.MultiReader(strings.NewReader("x")): 413, io.MultiReader(strings.NewReader("")): 200,
	} {
		if code, text := ask(s.Handler(), httptest.NewRequest(http.MethodPost, "/", body)); code != want {
			t.Errorf("%v: %d %s, want %d", body, code, text, want)
		}
	}
}

// A caller who goes away costs no slot and is no fault of the function.
func TestCallerLeaves(t *testing.T) {
	f := Function{Name: "f", InFlight: 1, Serve: func(_ http.ResponseWriter, r *http.Request) error {
		<-r.Context().Done()
		return r.Context().Err()
	}}
	s, log := prepared(f, quick(f))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _ := ask(s.Handler(), get("/").WithContext(ctx)); code != statusLeft || log.Len() > 0 {
		t.Errorf("%d, logged %q", code, log)
	}
}

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := Function{Name: "f", InFlight: 2, Serve: func(w http.ResponseWriter, _ *http.Request) error {
			<-release
			return JSON(w, "done")
		}}
		s, _ := prepared(f, quick(f))
		h := s.Handler()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if code, _ := ask(h, get("/")); code != http.StatusOK {
					t.Error(code)
				}
			})
		}
		synctest.Wait()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/"))
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
			t.Errorf("the third: %d %v %s", w.Code, w.Header(), w.Body)
		}
		if code, _ := ask(h, get("/_/health")); code != http.StatusOK {
			t.Errorf("health of a busy function: %d", code)
		}
		if _, text := ask(s.Metrics(), get("/metrics")); !strings.Contains(text, "\nhttp_requests_in_flight 2\n") {
			t.Error(text)
		}
		close(release)
		wg.Wait()
		if code, _ := ask(h, get("/")); code != http.StatusOK {
			t.Errorf("with free slots: %d", code)
		}
	})
}

// Invocations wait for a function that prepares itself; the probe does not.
func TestPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := Function{Name: "f", InFlight: 2, Serve: func(w http.ResponseWriter, _ *http.Request) error { return JSON(w, "done") }}
		f.Prepare = func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s := New(f, quick(f), slog.New(slog.DiscardHandler))
		h := s.Handler()
		if code, body := ask(h, get("/_/ready")); code != http.StatusServiceUnavailable || body != "starting\n" {
			t.Error(code, body)
		}
		begun := time.Now()
		go func() {
			if err := s.prepare(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		if code, _ := ask(h, get("/")); code != http.StatusOK || time.Since(begun) != 5*time.Second {
			t.Error(code, time.Since(begun))
		}
		if code, _ := ask(h, get("/_/ready")); code != http.StatusOK {
			t.Error(code)
		}
	})
}

// The names, types and labels are of-watchdog's.
func TestMetrics(t *testing.T) {
	f := Function{Name: "f", InFlight: 1, Serve: func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost {
			return BadRequest("no")
		}
		return JSON(w, 1)
	}}
	s, _ := prepared(f, quick(f))
	h := s.Handler()
	for _, r := range []*http.Request{get("/"), get("/"), httptest.NewRequest(http.MethodPost, "/", nil), get("/_/health"), get("/_/ready")} {
		ask(h, r)
	}
	_, text := ask(s.Metrics(), get("/metrics"))
	text = regexp.MustCompile(`(?m)^# HELP .*\n|.*_(sum|bucket)\{.*\n`).ReplaceAllString(text, "")
	want := `# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_count{code="200",method="get"} 2
http_request_duration_seconds_count{code="400",method="post"} 1
# TYPE http_requests_in_flight gauge
http_requests_in_flight 0
# TYPE http_requests_total counter
http_requests_total{code="200",method="get"} 2
http_requests_total{code="400",method="post"} 1
`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// lines takes what is logged, a line at a time.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// running is a server that runs on real sockets.
type running struct {
	url, metrics string
	end          context.CancelFunc
	result       chan error
	log          lines
}

func run(t *testing.T, f Function, cfg Config) running {
	t.Helper()
	log := make(lines, 100)
	ctx, cancel := context.WithCancel(t.Context())
	r := running{end: cancel, result: make(chan error, 1), log: log}
	go func() { r.result <- New(f, cfg, slog.New(slog.NewTextHandler(log, nil))).Run(ctx) }()
	t.Cleanup(cancel)
	line := <-log
	m := regexp.MustCompile(`listen=(\S+)( metrics=(\S+))?`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("it said %q", line)
	}
	r.url = "http://" + m[1]
	r.metrics = "http://" + m[3] + "/metrics"
	return r
}

func fetch(t *testing.T, url string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A connection of its own, so that it shows whether new ones are taken.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// An end in order: not ready, but serving while it lingers; what has begun is finished; nothing is lost.
func TestEnd(t *testing.T) {
	begun, release := make(chan struct{}, 10), make(chan struct{})
	f := Function{Name: "f", InFlight: 5, Serve: func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-release
		}
		return JSON(w, "done")
	}}
	cfg := quick(f)
	cfg.Linger = 300 * time.Millisecond
	r := run(t, f, cfg)
	slow := make(chan error, 1)
	go func() {
		code, _, err := fetch(t, r.url+"/slow")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("code %d", code)
		}
		slow <- err
	}()
	<-begun
	r.end()
	if line := <-r.log; !strings.Contains(line, "ending") {
		t.Error(line)
	}
	if code, body, err := fetch(t, r.url+"/_/ready"); code != http.StatusServiceUnavailable || body != "ending\n" {
		t.Error(code, body, err)
	}
	if code, _, err := fetch(t, r.url); code != http.StatusOK {
		t.Errorf("an invocation while it lingers: %d, %v", code, err)
	}
	// After that it listens no more, while the metrics can still be read.
	for {
		if _, _, err := fetch(t, r.url); err != nil {
			break
		}
	}
	if code, text, err := fetch(t, r.metrics); code != http.StatusOK || !strings.Contains(text, "http_requests_in_flight 1\n") {
		t.Error(code, text, err)
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("the invocation that was in flight: %v", err)
	}
	if err := <-r.result; err != nil {
		t.Error(err)
	}
}

// Who does not end in time is left behind, and that is said.
func TestDrainEnds(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	f := Function{Name: "f", InFlight: 1, Serve: func(http.ResponseWriter, *http.Request) error {
		close(begun)
		<-release
		return nil
	}}
	cfg := quick(f)
	cfg.Drain = time.Millisecond
	r := run(t, f, cfg)
	go func() { _, _, _ = fetch(t, r.url) }()
	<-begun
	r.end()
	if err := <-r.result; err == nil || !strings.Contains(err.Error(), "1 invocations did not end within 1ms") {
		t.Error(err)
	}
}

func TestRunFails(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f := Function{Name: "f", InFlight: 1}
	occupied, metrics := quick(f), quick(f)
	occupied.Listen, metrics.Metrics = taken.Addr().String(), taken.Addr().String()
	unprepared := Function{Name: "f", InFlight: 1, Prepare: func(context.Context) error { return errors.New("no model") }}
	for want, server := range map[string]*Server{
		"listening on " + occupied.Listen:          New(f, occupied, slog.New(slog.DiscardHandler)),
		"metrics: listening on " + occupied.Listen: New(f, metrics, slog.New(slog.DiscardHandler)),
		"preparing: no model":                      New(unprepared, quick(unprepared), slog.New(slog.DiscardHandler)),
	} {
		if err := server.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// What the agent reads is what was invoked: its own poller against this server.
func TestAgentCounts(t *testing.T) {
	f := Function{Name: "f", InFlight: 1, Serve: func(w http.ResponseWriter, _ *http.Request) error { return JSON(w, 1) }}
	r := run(t, f, quick(f))
	for range 3 {
		if code, _, err := fetch(t, r.url); code != http.StatusOK {
			t.Fatal(code, err)
		}
	}
	zero := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	poller := activity.New(activity.Config{
		Targets: func() []activity.Target { return []activity.Target{{ID: "pod", URL: r.metrics}} },
		Uptime:  func() time.Duration { return time.Since(zero) },
	})
	got := make(chan workload.Activity, 10)
	go func() {
		if err := poller.Run(ctx, func(a workload.Activity) { got <- a }, func(workload.Event) {}); err != nil {
			t.Error(err)
		}
	}()
	if a := <-got; a.Completed != 3 || a.Started != 3 || a.InFlight != 0 {
		t.Errorf("%+v", a)
	}
}
