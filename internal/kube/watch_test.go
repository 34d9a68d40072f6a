package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/kubesim"
)

// cluster is a fake API server with a watch on node a.
type cluster struct {
	*kubesim.Server
	t     *testing.T
	http  *httptest.Server
	dir   *Directory
	watch *Watch

	mu       sync.Mutex
	answers  int
	failures []string
	log      strings.Builder
}

// Write takes a line of the log.
func (c *cluster) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(b)
}

func (c *cluster) logged(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Count(c.log.String(), what)
}

func (c *cluster) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.answers++
	} else {
		c.failures = append(c.failures, err.Error())
	}
}

func (c *cluster) reports() (answers int, failures []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers, slices.Clone(c.failures)
}

func newCluster(t *testing.T, o kubesim.Options) *cluster {
	t.Helper()
	c := &cluster{Server: kubesim.New(o), t: t, dir: NewDirectory(time.Now)}
	c.http = httptest.NewServer(c.Server)
	t.Cleanup(c.http.Close)
	t.Cleanup(c.Break)
	c.watch = NewWatch(WatchConfig{Config: c.config(), API: c.http.URL, Node: "a", Silence: 10 * time.Second})
	c.watch.first = 10 * time.Millisecond
	return c
}

func (c *cluster) config() Config {
	return Config{Directory: c.dir, Report: c.report, Logger: slog.New(slog.NewTextHandler(c, nil))}
}

// follow runs a source until the test ends.
func (c *cluster) follow(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
}

// until waits for a condition.
func (c *cluster) until(what string, condition func() bool) {
	c.t.Helper()
	deadline, look := time.After(20*time.Second), time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !condition() {
		select {
		case <-look.C:
		case <-deadline:
			_, failures := c.reports()
			c.t.Fatalf("not within 20 s: %s; %d failures, %q", what, len(failures), failures[max(0, len(failures)-3):])
		}
	}
}

// known waits until the directory has exactly these functions of pods that are there, by the UIDs' numbers.
func (c *cluster) known(want map[int]string) {
	c.t.Helper()
	c.until(fmt.Sprint("known are ", want), func() bool {
		there, _ := c.dir.Len()
		for i, f := range want {
			p, ok := c.dir.Pod(uid(i))
			if !ok || p.Function != f || p.Ended {
				return false
			}
		}
		return there == len(want)
	})
}

func uid(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func pod(i int, function string) kubesim.Pod {
	return kubesim.Pod{
		UID: uid(i), Namespace: "openfaas-fn", Name: fmt.Sprintf("%s-%d", function, i), Node: "a", IP: fmt.Sprintf("10.42.0.%d", i), CPU: "250m", Ready: true,
		Labels: map[string]string{"faas_function": function}, Container: fmt.Sprintf("%064x", i),
	}
}

// One test body, whatever the server's habits are: pods come, change and go; the watch is ended, cut and too old; nothing is missed
// and nothing stays that is gone.
func TestWatch(t *testing.T) {
	for name, o := range map[string]kubesim.Options{
		"plain":         {Bookmarks: 20 * time.Millisecond},
		"few bookmarks": {Bookmarks: time.Second},
		"in pieces":     {Bookmarks: 20 * time.Millisecond, Pieces: 7},
		"gone as event": {Bookmarks: 20 * time.Millisecond, GoneAsEvent: true},
		"an old etcd":   {Bookmarks: 20 * time.Millisecond, NoNewest: true},
		"with a token":  {Bookmarks: 20 * time.Millisecond, Token: "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, o)
			if o.Token != "" {
				c.watch.cfg.TokenFile = filepath.Join(t.TempDir(), "token")
				if err := os.WriteFile(c.watch.cfg.TokenFile, []byte(o.Token+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.Apply(pod(1, "gzip"))
			other := pod(9, "elsewhere")
			other.Node = "b"
			c.Apply(other)
			c.follow(c.watch.Run)
			c.known(map[int]string{1: "gzip"})
			p, _ := c.dir.Pod(uid(1))
			want := Pod{
				UID: uid(1), Namespace: "openfaas-fn", Name: "gzip-1", Function: "gzip", IP: "10.42.0.1", CPURequest: 0.25, Ready: true,
				Containers: []string{fmt.Sprintf("%064x", 1)},
			}
			if !p.same(&want) {
				t.Errorf("%+v, want %+v", p, want)
			}
			if p, ok := c.dir.Container(fmt.Sprintf("%064x", 1)); !ok || p.UID != uid(1) {
				t.Errorf("by its container: %+v", p)
			}

			c.Apply(pod(2, "resize"))
			c.known(map[int]string{1: "gzip", 2: "resize"})
			c.Delete("openfaas-fn", "gzip-1")
			c.known(map[int]string{2: "resize"})
			if p, ok := c.dir.Pod(uid(1)); !ok || p.Function != "gzip" || !p.Ended || p.Ready {
				t.Errorf("a deleted pod is %+v", p)
			}

			c.End() // as servers do every half an hour
			c.Apply(pod(3, "gzip"))
			c.known(map[int]string{2: "resize", 3: "gzip"})
			c.Break()
			c.Delete("openfaas-fn", "resize-2")
			c.Apply(pod(4, "gzip"))
			c.known(map[int]string{3: "gzip", 4: "gzip"})

			// While nobody listens a pod comes and one goes, and the version is too old afterwards: what is gone shows in its absence.
			c.Refuse(503)
			c.Break()
			c.until("the watch is cut", func() bool { _, open := c.Watches(); return open == 0 })
			c.Delete("openfaas-fn", "gzip-3")
			c.Apply(pod(5, "late"))
			c.Compact()
			c.Refuse(0)
			c.known(map[int]string{4: "gzip", 5: "late"})

			from, _ := c.Watches()
			anew := 0
			for _, v := range from {
				if v == "" || v == "0" {
					anew++
				}
			}
			if anew > 2 && !o.NoNewest { // the first time and after the compaction
				t.Errorf("watches began at %q", from)
			}
		})
	}
}

// Without its server the last names stay, the failure is counted, and the log has one line for each change.
func TestServerAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, kubesim.Options{Bookmarks: 10 * time.Millisecond})
	c.Apply(pod(1, "gzip"))
	c.follow(c.watch.Run)
	c.known(map[int]string{1: "gzip"})
	c.Refuse(500)
	c.Break()
	c.until("ten failures", func() bool { _, f := c.reports(); return len(f) >= 10 })
	c.known(map[int]string{1: "gzip"})
	before, _ := c.reports()
	c.Refuse(0)
	c.until("it answers again", func() bool { n, _ := c.reports(); return n > before+3 })
	if n, m := c.logged("level=WARN"), c.logged("answers again"); n != 1 || m != 1 {
		t.Errorf("%d warnings, %d times well again", n, m)
	}
	if _, f := c.reports(); !strings.Contains(f[1], "code 500: the server is not able") || !strings.Contains(f[1], "watch pods of a at http") {
		t.Errorf("%q", f[1])
	}
}

// A wrong token is said to be one; the right one is read when it is there.
func TestToken(t *testing.T) {
	t.Parallel()
	c := newCluster(t, kubesim.Options{Bookmarks: 10 * time.Millisecond, Token: "new"})
	c.Apply(pod(1, "gzip"))
	c.watch.cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	c.follow(c.watch.Run)
	failed := func(text string) func() bool {
		return func() bool {
			_, f := c.reports()
			return len(f) > 0 && strings.Contains(f[len(f)-1], text)
		}
	}
	c.until("there is no token", failed("service account: open"))
	if err := os.WriteFile(c.watch.cfg.TokenFile, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.until("it is refused", failed("code 401: Unauthorized; is the service account's token the cluster's?"))
	if err := os.WriteFile(c.watch.cfg.TokenFile, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.known(map[int]string{1: "gzip"})
}

// A connection on which nothing comes is given up; bookmarks are enough to keep one.
func TestSilence(t *testing.T) {
	t.Parallel()
	c := newCluster(t, kubesim.Options{Bookmarks: 20 * time.Millisecond})
	c.Apply(pod(1, "gzip"))
	c.watch.cfg.Silence = 500 * time.Millisecond
	c.follow(c.watch.Run)
	c.known(map[int]string{1: "gzip"})
	n, _ := c.reports()
	c.until("bookmarks have come for longer than a silence lasts", func() bool { m, _ := c.reports(); return m > n+40 })
	if from, _ := c.Watches(); len(from) != 1 {
		t.Fatalf("watches began at %q although it was not silent", from)
	}
	c.Mute(true)
	c.until("it is found silent", func() bool {
		_, f := c.reports()
		return len(f) > 0 && strings.Contains(f[0], "the connection is silent for 500ms")
	})
	c.Apply(pod(2, "resize"))
	c.Mute(false)
	c.known(map[int]string{1: "gzip", 2: "resize"})
}

// Events that make no sense cost themselves alone; one that is an error ends the watch, with its own words.
func TestStrangeEvents(t *testing.T) {
	t.Parallel()
	c := newCluster(t, kubesim.Options{Bookmarks: 10 * time.Millisecond})
	c.follow(c.watch.Run)
	c.until("it watches", func() bool { _, open := c.Watches(); return open == 1 })
	c.Emit(`{"type":"ADDED","object":{"metadata":{"uid":7}}}`)
	c.Emit(`{"type":"ADDED","object":{"metadata":{"name":"x"}}}`)
	c.Emit(`{"type":"SINGING","object":{}}`)
	c.Apply(pod(1, "gzip"))
	c.known(map[int]string{1: "gzip"})
	from, _ := c.Watches()
	_, f := c.reports()
	if len(from) != 1 || len(f) != 3 {
		t.Errorf("watches began at %q; failures %q", from, f)
	}
	c.Emit(`{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"etcd is\nasleep","code":500}}`)
	c.Apply(pod(2, "resize"))
	c.known(map[int]string{1: "gzip", 2: "resize"})
	if _, f = c.reports(); len(f) != 4 || !strings.HasSuffix(f[3], "code 500: etcd is asleep") {
		t.Errorf("failures %q", f)
	}
	c.Emit(`{"type":"MODIFIED","object":{"x":"` + strings.Repeat("x", maxEvent) + `"}}`)
	c.until("too large an event is one", func() bool { _, f := c.reports(); return strings.Contains(f[len(f)-1], errTooLarge.Error()) })
	c.Compact() // drops it
	c.Apply(pod(3, "late"))
	c.known(map[int]string{1: "gzip", 2: "resize", 3: "late"})
}

// A server that is down is not asked more and more often, nor by all agents at once.
func TestWaits(t *testing.T) {
	s := newSource(Config{}, "x")
	var last time.Duration
	for n := range 20 {
		s.failures = n + 1
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			d := s.wait()
			least, most = min(least, d), max(most, d)
		}
		want := min(firstWait<<n, longestWait)
		if n > 10 {
			want = longestWait
		}
		if least < want/2 || most > want*3/2 || least > want*6/10 || most < want*14/10 {
			t.Errorf("after %d failures %v to %v, want about %v", n+1, least, most, want)
		}
		if want < last {
			t.Errorf("it waits shorter after %d", n)
		}
		last = want
	}
}
