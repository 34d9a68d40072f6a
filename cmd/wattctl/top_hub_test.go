package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/wattlet/wattlet/internal/hub"
)

// runHub runs a real hub of agents, NAME=ADDRESS, and returns its address.
func runHub(t *testing.T, webConfig string, agents ...string) string {
	t.Helper()
	cfg := hub.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", WebConfig: webConfig, ScrapeInterval: time.Minute}
	for _, a := range agents {
		name, address, _ := strings.Cut(a, "=")
		cfg.Targets = append(cfg.Targets, hub.Target{Name: name, URL: address})
	}
	h, err := hub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it ends when others have left it
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	return h.Addr().String()
}

// watchTop runs top with --json until the test ends, and returns what it printed last.
func watchTop(t *testing.T, args ...string) (r *running, last func() topView) {
	t.Helper()
	c, err := parseTop(t, append(args, "--json", "--every=20ms")...)
	if err != nil {
		t.Fatal(err)
	}
	r = &running{t: t, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	r.interrupt = cancel
	go func() {
		defer close(r.ended)
		if err := c.Run(&app{ctx: ctx, stdout: &r.stdout, stderr: &r.stderr}); err != nil {
			r.status = 1
		}
	}()
	r.cleanup([]string{"top"})
	return r, func() (v topView) {
		lines := strings.Split(strings.TrimSpace(r.stdout.String()), "\n")
		for _, l := range slices.Backward(lines) { // of the last one may be there in part
			if json.Unmarshal([]byte(l), &v) == nil {
				return v
			}
		}
		return topView{}
	}
}

// states are the agents of a view, with why they are down.
func states(v *topView) string {
	var all []string
	for _, a := range v.Agents {
		text := a.Agent + " up"
		if !a.Up {
			text = a.Agent + ": " + a.Error
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// A hub shows all its agents as if each had been named, once and as they go on; one that dies is down with the hub's reason.
func TestTopHub(t *testing.T) {
	t.Parallel()
	dead, release := freeAddress(t)
	release()
	var alive atomic.Bool
	alive.Store(true)
	address := runHub(t, "", "bench="+topAgentOf(t, "pi", nil), "edge="+topAgentOf(t, "coral", &alive), "gone="+dead)

	text, err := doTop(t.Context(), t, address, "--sort=name")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\d\d:\d\d:\d\d: 2 of 3 agents up, sorted by name\n\n`).MatchString(text) {
		t.Errorf("%s", text)
	}
	if nodes := cells(t, text, topNodes); !regexp.MustCompile(`^coral\|4\.250 W\|.*bench-1 up\npi\|4\.250 W\|.*\n` +
		`–\|–\|–\|–\|–\|–\|–\|no figures from gone since .*: Get "http://` + regexp.QuoteMeta(dead) + `/api/v1/snapshot": .*connection refused$`).MatchString(nodes) {
		t.Errorf("nodes:\n%s", nodes)
	}
	if functions := cells(t, text, topFunctions); !regexp.MustCompile(`^coral\|fn/gzip\|1\.500 W\|.*\ncoral\|fn/resize\|0\.250 W\|.*\n` +
		`pi\|fn/gzip\|1\.500 W\|\d+\.00 J\|0\.3750 J\|0\.0150 J\|\d+\|240\.0\|0\|–\npi\|fn/resize\|`).MatchString(functions) {
		t.Errorf("functions:\n%s", functions)
	}

	// Beside an agent that is named itself, names have the hub's address.
	r, last := watchTop(t, "http://"+address, topAgentOf(t, "jetson", nil))
	r.until("all are up", func() bool {
		v := last()
		return len(v.Agents) == 4 && v.Agents[0].Up && v.Agents[1].Up && v.Agents[3].Up && len(v.Nodes) == 3 && len(v.Functions) == 6
	})
	if v := last(); v.Agents[0].Agent != "http://"+address+"/bench" || v.Agents[2].Up {
		t.Errorf("%+v", v.Agents)
	}
	alive.Store(false)
	r.until("one's end is told", func() bool { return !last().Agents[1].Up })
	v := last()
	if e := v.Agents[1].Error; !strings.HasSuffix(e, "/api/v1/snapshot answered 503 Service Unavailable") || !v.Agents[0].Up || len(v.Nodes) != 3 {
		t.Errorf("%s", states(&v))
	}
	for _, n := range v.Nodes {
		if down := n.Node == "coral"; down != (n.PowerW == nil) || n.EnergyUJ == nil {
			t.Errorf("%+v", n)
		}
	}
	alive.Store(true)
	r.until("it is back", func() bool { v := last(); return v.Agents[1].Up && v.Functions[0].PowerW != nil })
	if r.end() != 0 {
		t.Error("it fails when it is interrupted")
	}
}

// A hub's password is given as an agent's.
func TestTopHubPassword(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"web.yml": "basic_auth_users: {me: \"" + string(hash) + "\"}\n", "password": "s3cret\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := runHub(t, filepath.Join(dir, "web.yml"), "bench="+topAgentOf(t, "pi", nil))
	if _, err := doTop(t.Context(), t, address); err == nil || !strings.Contains(err.Error(), "401 Unauthorized; give --user and --password-file") {
		t.Errorf("without: %v", err)
	}
	text, err := doTop(t.Context(), t, address, "--user=me", "--password-file="+filepath.Join(dir, "password"))
	if err != nil || !strings.Contains(text, "1 of 1 agent up") {
		t.Errorf("with: %v, %s", err, text)
	}
}

// fakeHub is a hub whose streams a test writes and breaks.
type fakeHub struct {
	*httptest.Server

	refuses atomic.Bool
	opened  chan *fakeStream
}

// fakeStream is an open stream: what is sent into it is written, until it is broken.
type fakeStream struct {
	lines  chan string
	broken chan struct{}
	once   sync.Once
}

func (s *fakeStream) cut() { s.once.Do(func() { close(s.broken) }) }

func newFakeHub(t *testing.T) *fakeHub {
	t.Helper()
	h := &fakeHub{opened: make(chan *fakeStream)}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case h.refuses.Load():
			http.Error(w, "too many listen already", http.StatusServiceUnavailable)
			return
		case req.URL.Path != "/api/v1/live":
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		stream := http.NewResponseController(w)
		_ = stream.Flush() // the test's end tells
		s := &fakeStream{lines: make(chan string), broken: make(chan struct{})}
		select {
		case h.opened <- s:
		case <-req.Context().Done():
			return
		}
		for {
			select {
			case l := <-s.lines:
				_, _ = io.WriteString(w, l) // the same
				_ = stream.Flush()
			case <-s.broken:
				panic(http.ErrAbortHandler)
			case <-req.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// event is an event with agents, as NAME SECONDS or NAME ERROR.
func event(t *testing.T, agents ...string) string {
	t.Helper()
	var list []string
	for _, a := range agents {
		name, what, _ := strings.Cut(a, " ")
		var seconds int64
		if _, err := fmt.Sscan(what, &seconds); err != nil {
			list = append(list, fmt.Sprintf(`{"target":%q,"error":%q,"age_ms":null,"snapshot":null}`, name, what))
			continue
		}
		snapshot, err := json.Marshal(busy(name, seconds))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf(`{"target":%q,"age_ms":5,"snapshot":%s}`, name, snapshot))
	}
	return fmt.Sprintf("data: {\"format\":\"wattlet-live/1\",\"targets\":[%s]}\n\n", strings.Join(list, ","))
}

// A stream that breaks is opened again; until then all agents are down with the hub.
func TestTopHubBreaks(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	address := strings.TrimPrefix(h.URL, "http://")
	r, last := watchTop(t, address)
	is := func(want string) {
		t.Helper()
		var v topView
		r.until("it shows "+want, func() bool { v = last(); return regexp.MustCompile("^" + want + "$").MatchString(states(&v)) })
	}
	s := <-h.opened
	t.Cleanup(s.cut)
	s.lines <- "retry: 2000\n\n: still here\n\n" + event(t)
	is(regexp.QuoteMeta(address) + ": the hub has no agents")
	s.lines <- event(t, "a 100", "b 100", "c not asked yet")
	s.lines <- event(t, "a 102", "b 102", "c no route")
	is("a up, b up, c: no route")
	s.lines <- event(t, "b 104", "a 104")
	is("b up, a up")
	s.cut()
	down := "hub " + regexp.QuoteMeta(address) + ": "
	// It comes back at once, and says nothing yet.
	is("b: " + down + "unexpected EOF, a: " + down + "unexpected EOF")
	s = <-h.opened
	t.Cleanup(s.cut)
	s.lines <- event(t, "a 120", "b gone")
	is("a up, b: gone")
	h.refuses.Store(true)
	s.cut()
	is("a: " + down + "503 Service Unavailable: too many listen already, b: .*503.*")
	if v := last(); len(v.Nodes) != 2 || v.Nodes[0].PowerW != nil || v.Nodes[0].EnergyUJ == nil {
		t.Errorf("%+v", v.Nodes)
	}
	h.refuses.Store(false)
	s = <-h.opened
	t.Cleanup(s.cut)
	s.lines <- event(t, "a 130")
	s.lines <- event(t, "a 132")
	r.until("watts are back", func() bool { v := last(); return len(v.Functions) == 2 && v.Functions[0].PowerW != nil })
	if v := last(); *v.Functions[0].PowerW != 1.5 || states(&v) != "a up" {
		t.Errorf("%+v", v)
	}
	s.lines <- "data: {\"format\":\"wattlet-live/2\"}\n\n"
	is("a: " + down + `not an event this program knows: format "wattlet-live/2"`)
	h.CloseClientConnections()
}

// A stream in which nothing comes is broken too.
func TestTopHubSilent(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	req, client, err := agentFlags{}.request(h.URL, "api/v1/live")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	w := &watched{live: req, client: client, silence: 50 * time.Millisecond}
	broke := make(chan error)
	go func() { broke <- w.listen(t.Context(), nil) }()
	s := <-h.opened
	defer s.cut()
	for range 4 { // longer than the silence, all together
		s.lines <- ": still here\n\n"
	}
	if err := <-broke; err == nil || err.Error() != "its stream fell silent for 50ms" {
		t.Errorf("%v", err)
	}
}

// What is known of an agent that was down before anyone looked is shown, and since when.
func TestTopHubKnew(t *testing.T) {
	t.Parallel()
	snapshot, err := json.Marshal(busy("pi", 100))
	if err != nil {
		t.Fatal(err)
	}
	e, err := parseLive(fmt.Appendf(nil, `{"format":"wattlet-live/1","targets":[{"target":"a","error":"no route","age_ms":90000,"snapshot":%s},`+
		`{"target":"b","age_ms":1,"snapshot":{"format":"wattlet-snapshot/9"}}]}`, snapshot))
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseTop(t)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{name: "hub"}
	top := &top{topCmd: c, filter: regexp.MustCompile(""), agents: []*watched{w}}
	top.take(answer{of: w, event: e, at: topStart})
	v := top.view(topStart)
	if got := states(&v); got != `a: no route, b: not a snapshot this program knows: format "wattlet-snapshot/9"` {
		t.Errorf("%s", got)
	}
	if !v.Agents[0].Since.Equal(topStart.Add(-90*time.Second)) || len(v.Nodes) != 1 || v.Nodes[0].PowerW != nil || *v.Nodes[0].EnergyUJ != 426_000_000 {
		t.Errorf("%+v", v)
	}
	// An agent at the address of what was a hub.
	one := busy("pi", 100)
	top.take(answer{of: w, view: &one, at: topStart})
	if v := top.view(topStart); states(&v) != "hub up" || len(v.Nodes) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	for name, tc := range map[string]struct {
		stream, want string
		heard        int
		err          error
	}{
		"nothing":       {"", "", 0, nil},
		"one":           {"data: a\n\n", "a\n", 2, nil},
		"no space":      {"data:a\n\n", "a\n", 2, nil},
		"two lines":     {"data: a\ndata:  b\n\n", "a\n b\n", 3, nil},
		"other fields":  {"retry: 1\nid: 2\n: c\ndata: a\nevent: x\n\n\n\ndata: b\n\n", "a\nb\n", 10, nil},
		"carriage":      {"data: a\r\n\r\n", "a\n", 2, nil},
		"cut off":       {"data: a\n\ndata: b\n", "a\n", 3, nil},
		"not taken":     {"data: stop\n\ndata: b\n\n", "", 2, stop},
		"after another": {"data: a\n\ndata: bcd\n\n", "a\nbcd\n", 4, nil},
	} {
		var got bytes.Buffer
		heard := 0
		err := events(strings.NewReader(tc.stream), func() { heard++ }, func(data []byte) error {
			if string(data) == "stop\n" {
				return stop
			}
			got.Write(data)
			return nil
		})
		if got.String() != tc.want || heard != tc.heard || !errors.Is(err, tc.err) {
			t.Errorf("%s: %q, %d lines, %v", name, got.String(), heard, err)
		}
	}
}

// FuzzEvents finds no stream that breaks it, and none of which an event is lost.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: {\"format\":\"wattlet-live/1\",\"targets\":[{\"target\":\"a\",\"snapshot\":{\"format\":\"wattlet-snapshot/1\"}}]}\n\n"))
	f.Add([]byte(": x\ndata:1\r\ndata: 2\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		n := 0
		err := events(bytes.NewReader(stream), func() {}, func(data []byte) error {
			n++
			e, err := parseLive(data)
			if err != nil {
				return nil
			}
			w := &watched{name: "hub"}
			w.hear(answer{of: w, event: e, at: topStart})
			if len(w.agents) != len(e.Targets) {
				t.Errorf("%d agents of %d", len(w.agents), len(e.Targets))
			}
			return nil
		})
		if all := bytes.Count(stream, []byte("data:")); err != nil || n > all {
			t.Errorf("%d events of %d lines, %v", n, all, err)
		}
	})
}
