package activity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// pods are watchdogs without a network: for each host, what answers.
type pods struct {
	mu   sync.Mutex
	host map[string]func(*http.Request) (string, error)
}

func (p *pods) set(host string, f func(*http.Request) (string, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host == nil {
		p.host = map[string]func(*http.Request) (string, error){}
	}
	p.host[host] = f
}

func (p *pods) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	f := p.host[r.URL.Host]
	p.mu.Unlock()
	text, err := f(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func says(inFlight, completed int) func(*http.Request) (string, error) {
	return func(*http.Request) (string, error) {
		return fmt.Sprintf("http_requests_in_flight %d\nhttp_requests_total %d\n", inFlight, completed), nil
	}
}

func refuses(*http.Request) (string, error) { return "", errors.New("connection refused") }

func hangs(r *http.Request) (string, error) {
	<-r.Context().Done()
	return "", r.Context().Err()
}

// rig runs a poller in a synctest bubble and writes down what it tells.
type rig struct {
	*Poller
	pods
	mu      sync.Mutex
	targets []Target
	told    []string
	log     strings.Builder
}

// Write takes a line of the log.
func (r *rig) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *rig) list(hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = nil
	for _, h := range hosts {
		r.targets = append(r.targets, Target{ID: workload.ID(h), URL: "http://" + h + "/metrics"})
	}
}

// take returns what was told since the last call.
func (r *rig) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

func (r *rig) want(t *testing.T, want ...string) {
	t.Helper()
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (r *rig) tell(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, s)
}

// run starts the poller; after(d) lets time pass.
func (r *rig) run(t *testing.T) (after func(time.Duration)) {
	t.Helper()
	zero := time.Now()
	r.Poller = New(Config{
		Targets: func() []Target {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.targets
		},
		Timeout: 3 * time.Second,
		Client:  &http.Client{Transport: &r.pods},
		Uptime:  func() time.Duration { return time.Since(zero) },
		Logger:  slog.New(slog.NewTextHandler(r, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- r.Run(ctx, func(a workload.Activity) {
			r.tell(fmt.Sprintf("%v %s %d %d %d", a.At, a.ID, a.InFlight, a.Started, a.Completed))
		}, func(e workload.Event) { r.tell(fmt.Sprintf("%v %s %s", e.At, e.ID, e.What)) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(d time.Duration) {
		<-time.After(d)
		synctest.Wait()
	}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		r.set("old", says(1, 40))
		r.set("late", refuses)
		r.set("new", refuses)
		r.list("old", "late", "old")
		after := r.run(t)
		got := r.take()
		slices.Sort(got) // two pods at one instant
		if want := []string{"0s late created", "0s old 1 41 40"}; !slices.Equal(got, want) {
			t.Errorf("first poll: %q, want %q", got, want)
		}

		r.list("old", "new")
		r.set("old", says(0, 41))
		after(time.Second)
		r.want(t, "1s new created", "1s late stopped", "1s old 0 41 41")

		r.list("new")
		r.set("new", says(1, 0))
		after(time.Second)
		r.want(t, "2s old stopped", "2s new ready", "2s new 1 1 0")

		r.set("new", says(0, 5))
		after(time.Second)
		r.want(t, "3s new 0 5 5")

		r.set("new", says(1, 2)) // restarted
		after(time.Second)
		r.want(t, "4s new 1 8 7")
		after(time.Second)
		r.want(t, "5s new 1 8 7")
		if s := r.Status(); len(s) != 1 || s[0].Restarts != 1 || !s[0].Up || s[0].LastSuccess != 4*time.Second || s[0].Errors != 1 {
			t.Errorf("%+v", s)
		}
		r.mu.Lock()
		r.targets = []Target{{ID: "new", URL: "http://old/metrics"}} // has another address now
		r.mu.Unlock()
		r.set("old", says(2, 3))
		after(time.Second)
		r.want(t, "6s new 2 10 8")
		r.list()
		after(time.Second)
		r.want(t, "7s new stopped")
		if s := r.Status(); len(s) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAtIsMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		r.set("slow", func(*http.Request) (string, error) {
			<-time.After(300 * time.Millisecond)
			return idle, nil
		})
		r.list("slow")
		after := r.run(t)
		after(500 * time.Millisecond)
		r.want(t, "150ms slow 0 0 0")

		// It is gone while its answer is under way.
		r.set("slow", func(*http.Request) (string, error) {
			<-time.After(1500 * time.Millisecond)
			return idle, nil
		})
		after(time.Second) // asked at 1 s
		r.list()
		after(5 * time.Second)
		r.want(t, "2s slow stopped")
	})
}

// TestHanging has far more pods that hang than workers, and one that does not.
func TestHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		names := []string{"good"}
		r.set("good", says(0, 7))
		for i := range 10 * workers {
			names = append(names, fmt.Sprint("dead", i))
			r.set(names[i+1], hangs)
		}
		r.list(names...)
		after := r.run(t)
		after(59500 * time.Millisecond)
		n := 0
		for _, s := range r.take() {
			if strings.Contains(s, "good") {
				if want := fmt.Sprintf("%ds good 0 7 7", n); s != want {
					t.Fatalf("%q, want %q", s, want)
				}
				n++
			}
		}
		if n != 60 {
			t.Errorf("%d answers in 60 periods", n)
		}

		// One that answered falls silent, and leaves while it is asked: nothing of it comes after.
		r.set("good", hangs)
		after(time.Second) // 60.5 s: asked since 60 s
		r.list()
		after(10 * time.Second)
		told := r.take()
		for _, s := range told {
			if !strings.HasPrefix(s, "1m1s ") || !strings.HasSuffix(s, " stopped") {
				t.Error(s)
			}
		}
		if len(told) != len(names) {
			t.Errorf("%d have stopped, want %d", len(told), len(names))
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		var at []time.Duration
		zero := time.Now()
		r.set("pod", says(0, 1))
		r.list("pod")
		after := r.run(t)
		r.take()
		r.set("pod", func(r *http.Request) (string, error) {
			at = append(at, time.Since(zero))
			<-time.After(10 * time.Millisecond) // less than a tick may be off
			return refuses(r)
		})
		after(45500 * time.Millisecond)
		r.want(t)
		if want := "[1s 3s 7s 15s 25s 35s 45s]"; fmt.Sprint(at) != want {
			t.Errorf("asked at %v, want %s", at, want)
		}
		if s := r.Status()[0]; s.Up || s.LastSuccess != 0 || !strings.Contains(s.Error, "http://pod/metrics") || s.Errors == 0 {
			t.Errorf("%+v", s)
		}
		r.set("pod", says(0, 9))
		after(12 * time.Second)
		r.want(t, "55s pod 0 9 9", "56s pod 0 9 9", "57s pod 0 9 9")
		if n := strings.Count(r.logged(), "\n"); n != 2 || !strings.Contains(r.logged(), "watchdog answers") {
			t.Errorf("the log has %d lines:\n%s", n, r.logged())
		}
	})
}

// TestStarting asks a pod every period while it starts, and not for ever.
func TestStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		var asked atomic.Int64
		r.set("pod", func(r *http.Request) (string, error) {
			asked.Add(1)
			return refuses(r)
		})
		after := r.run(t)
		r.take()
		r.list("pod")
		after(29500 * time.Millisecond)
		if n := asked.Load(); n != 29 || r.logged() != "" {
			t.Errorf("asked %d times in 29 s, the log has %q", n, r.logged())
		}
		after(100 * time.Second)
		if n := asked.Load(); n < 40 || n > 48 {
			t.Errorf("asked %d times in 129 s", n)
		}
	})
}

func TestNoTargets(t *testing.T) {
	if err := New(Config{}).Run(t.Context(), nil, nil); err == nil {
		t.Error("ran without targets and clock")
	}
	p := New(Config{Every: time.Millisecond})
	if p.cfg.Every != 100*time.Millisecond || p.cfg.Timeout != time.Second {
		t.Errorf("%+v", p.cfg)
	}
}

// TestOverTCP asks servers on loopback with the poller's own client, and leaves no goroutine behind.
func TestOverTCP(t *testing.T) {
	before := runtime.NumGoroutine()
	func() {
		var addresses sync.Map
		good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			addresses.Store(r.RemoteAddr, true)
			if r.Header.Get("Accept-Encoding") != "" {
				t.Error("asked for compression")
			}
			Exposer(func() (int64, map[Series]int64) { return 1, map[Series]int64{{200, "POST"}: 3} }).ServeHTTP(w, r)
		}))
		defer good.Close()
		release := make(chan struct{})
		var strayed atomic.Int64
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
		defer elsewhere.Close()
		mux := http.NewServeMux()
		mux.HandleFunc("/blocked", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		})
		mux.HandleFunc("/garbage", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\xff{}\n")) })
		mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
			chunk := bytes.Repeat([]byte("http_requests_in_flight 0\n"), 1000)
			for range 1000 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "500")
			_, _ = w.Write([]byte(idle))
		})
		mux.Handle("/moved", http.RedirectHandler(elsewhere.URL, http.StatusFound))
		bad := httptest.NewServer(mux)
		defer bad.Close()
		defer close(release)

		targets := []Target{{ID: "good", URL: good.URL + "/metrics"}, {ID: "url", URL: "https://127.0.0.1/metrics"}}
		want := map[workload.ID]string{
			"blocked": "deadline exceeded", "cut": "unexpected EOF", "garbage": "no http_requests_in_flight",
			"huge": "more than 1048576 bytes", "missing": "status 404", "moved": "status 302", "url": "not a URL of the form",
		}
		for id := range want {
			if id != "url" {
				targets = append(targets, Target{ID: id, URL: bad.URL + "/" + string(id)})
			}
		}
		zero := time.Now()
		p := New(Config{
			Targets: func() []Target { return targets }, Every: 100 * time.Millisecond, Timeout: 250 * time.Millisecond,
			Uptime: func() time.Duration { return time.Since(zero) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		answers := 0
		err := p.Run(ctx, func(a workload.Activity) {
			if a.ID != "good" || a.InFlight != 1 || a.Started != 4 || a.Completed != 3 {
				t.Errorf("%+v", a)
			}
			tried := 0
			for _, s := range p.Status() {
				if s.Polls > 0 {
					tried++
				}
			}
			if answers++; answers >= 8 && tried == len(targets) || answers == 300 {
				cancel()
			}
		}, func(e workload.Event) {
			if e.What != workload.Created || want[e.ID] == "" {
				t.Errorf("%+v", e)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Status() {
			if s.ID == "good" {
				if !s.Up || s.Errors != 0 || s.Error != "" {
					t.Errorf("%+v", s)
				}
			} else if s.Up || s.Errors != s.Polls || s.Errors == 0 || !strings.Contains(s.Error, want[s.ID]) {
				t.Errorf("%+v, want %q", s, want[s.ID])
			}
		}
		connections := 0
		addresses.Range(func(any, any) bool { connections++; return true })
		if connections != 1 {
			t.Errorf("%d connections to one target", connections)
		}
		if strayed.Load() != 0 {
			t.Error("followed a redirect to another host")
		}
	}()
	// Connections' goroutines end soon after their sockets are closed.
	for deadline := time.After(10 * time.Second); runtime.NumGoroutine() > before; {
		select {
		case <-deadline:
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		default:
			runtime.Gosched()
		}
	}
}

// TestChurn has ten thousand pods come and go, and keeps none.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		for i := range 100 {
			r.set(fmt.Sprint(i), says(0, i))
		}
		after := r.run(t)
		heap := func() uint64 {
			r.take()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		var early uint64
		for i := range 1000 {
			hosts := make([]string, 10)
			for k := range hosts {
				hosts[k] = fmt.Sprint((10*i + k) % 100)
			}
			r.list(hosts...)
			after(time.Second)
			if i == 200 {
				early = heap()
			}
			r.take()
		}
		if late := heap(); late > early+256<<10 {
			t.Errorf("the heap grew from %d to %d bytes", early, late)
		}
		if n := len(r.Status()); n != 10 {
			t.Errorf("%d targets", n)
		}
	})
}
