package hub

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// listen listens to a hub's live events and returns a function that waits for the next.
func listen(t testing.TB, base string) func() liveEvent {
	t.Helper()
	next, _ := listenUntil(t, base)
	return next
}

// listenUntil is as listen and returns also how to stop.
func listenUntil(t testing.TB, base string) (next func() liveEvent, stop func()) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/live", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	stop = func() { resp.Body.Close() }
	t.Cleanup(stop)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("live: %s %v", resp.Status, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return func() (e liveEvent) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatalf("%v: %s", err, data)
				}
				return e
			}
		}
		t.Fatalf("the stream ends: %v", lines.Err())
		return e
	}, stop
}

// TestLive listens while an agent dies: what was known of it stays, with its age and what is wrong.
func TestLive(t *testing.T) {
	t.Parallel()
	dying, other := newAgent(t, ""), newAgent(t, "")
	h := start(t, Config{Targets: []Target{
		{Name: "dying", URL: dying.URL}, {Name: "other", URL: other.URL, Labels: map[string]string{"rack": "a"}}, {URL: "127.0.0.1:1"},
	}})
	if n := other.asked.Load(); n != 0 {
		t.Fatalf("agent asked %d times while nobody listens", n)
	}
	next, stop := listenUntil(t, h.base)
	e := next()
	if e.Format != "wattlet-live/1" || len(e.Targets) != 3 {
		t.Fatalf("event %+v", e)
	}
	if d := e.Targets[0]; d.Target != "dying" || d.Error != "" || d.AgeMs == nil || string(d.Snapshot) !=
		`{"format":"wattlet-snapshot/1","nodes":[{"node":"pi","energy_uj":1}]}` {
		t.Errorf("dying, alive: %+v %s", d, d.Snapshot)
	}
	if never := e.Targets[2]; never.Target != "127.0.0.1:1" || !strings.Contains(never.Error, "connection refused") ||
		never.AgeMs != nil || string(never.Snapshot) != "null" {
		t.Errorf("never there: %+v %s", never, never.Snapshot)
	}
	dying.Close()
	for e = next(); e.Targets[0].Error == ""; e = next() {
	}
	first := *e.Targets[0].AgeMs
	e = next()
	d := e.Targets[0]
	if !strings.Contains(d.Error, "connection refused") || !strings.Contains(string(d.Snapshot), `"node":"pi"`) || *d.AgeMs < first+500 {
		t.Errorf("dying, dead: %+v %s, age before %d", d, d.Snapshot, first)
	}
	if o := e.Targets[1]; o.Error != "" || o.Labels["rack"] != "a" || o.URL != other.URL {
		t.Errorf("the other: %+v", o)
	}

	// Four more listeners, and no agent is asked more often than the events come.
	for range 4 {
		listen(t, h.base)()
	}
	before := other.asked.Load()
	next()
	next()
	if n := other.asked.Load() - before; n > 4 {
		t.Errorf("asked %d times during two events", n)
	}
	stop()
}

// TestLiveIdle asks nobody when the last listener has gone.
func TestLiveIdle(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	h := start(t, Config{Targets: []Target{{URL: a.URL}}})
	next, stop := listenUntil(t, h.base)
	next()
	stop()
	eventually(t, "nobody is asked", func() bool {
		h.live.mu.Lock()
		defer h.live.mu.Unlock()
		return len(h.live.listeners) == 0 && h.live.last == nil
	})
	asked := a.asked.Load()
	if e := listen(t, h.base)(); e.Targets[0].Error != "" {
		t.Errorf("later: %+v", e)
	}
	if n := a.asked.Load(); n <= asked {
		t.Errorf("later nobody was asked: %d, before %d", n, asked)
	}
}

// TestLiveBounded refuses a listener too many, and one that reads nothing holds up nobody.
func TestLiveBounded(t *testing.T) {
	t.Parallel()
	l := newLive(func() []target { return nil })
	var leave func()
	for range maxListeners {
		var err error
		if _, leave, err = l.join(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := l.join(); err == nil {
		t.Error("one too many may listen")
	}
	leave()
	events, _, err := l.join()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.publish()
	}
	if newest := <-events; string(newest) != string(l.last) {
		t.Errorf("%s, not the newest, %s", newest, l.last)
	}
}

// TestHanging has an agent that takes a request and says nothing: the events come all the same.
func TestHanging(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	release := make(chan struct{})
	hang := newAgent(t, "")
	hang.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	h := start(t, Config{Targets: []Target{{Name: "hang", URL: hang.URL}, {Name: "good", URL: a.URL}}})
	next := listen(t, h.base)
	for range 2 {
		if e := next(); !strings.HasPrefix(e.Targets[0].Error, "no answer for ") || e.Targets[1].Error != "" {
			t.Errorf("%+v", e)
		}
	}
	h.stop() // and it holds up no end
}

func TestParseSnapshot(t *testing.T) {
	for text, want := range map[string]string{
		"{\n \"format\": \"wattlet-snapshot/1\"}\n": `{"format":"wattlet-snapshot/1"}`,
		`{"format": "wattlet-snapshot/2"}`:          `error: not a snapshot this hub understands: its format is "wattlet-snapshot/2"`,
		`{}`:                                        `error: not a snapshot this hub understands: its format is ""`,
		`<!doctype`:                                 "error: not a snapshot: invalid character '<' looking for beginning of value",
		`[]`:                                        "error: not a snapshot: json: cannot unmarshal array into Go value of type struct { Format string \"json:\\\"format\\\"\" }",
	} {
		got, err := parseSnapshot([]byte(text))
		if err != nil {
			got = []byte("error: " + err.Error())
		}
		if string(got) != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzParseSnapshot(f *testing.F) {
	f.Add([]byte("{\"format\": \"wattlet-snapshot/1\",\r\n\"nodes\": [\"a\\nb\"]}"))
	f.Add([]byte(`{"format": 1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseSnapshot(text)
		if err == nil && (!json.Valid(got) || strings.ContainsAny(string(got), "\r\n")) {
			t.Errorf("%q is no line of JSON", got)
		}
	})
}
