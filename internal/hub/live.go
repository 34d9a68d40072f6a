package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	liveInterval  = time.Second            // between two events
	liveWait      = 800 * time.Millisecond // an event waits so long for answers
	liveTimeout   = 5 * time.Second        // of a request to an agent
	liveHeartbeat = 15 * time.Second       // of a stream without events
	liveStall     = 10 * time.Second       // a listener that takes nothing for so long is dropped
	maxListeners  = 64
	maxSnapshot   = 8 << 20
)

// liveEvent is one event of /api/v1/live.
type liveEvent struct {
	Format  string       `json:"format"` // "wattlet-live/1"
	Time    time.Time    `json:"time"`
	Targets []liveTarget `json:"targets"`
}

// liveTarget is what is known of one agent: its newest snapshot, however old, and why there is none newer.
type liveTarget struct {
	Target string            `json:"target"`
	URL    string            `json:"url"`
	Labels map[string]string `json:"labels,omitempty"`
	// Error is empty while the agent answers.
	Error string `json:"error,omitempty"`
	// AgeMs is since the snapshot came, by the hub's clock; null where none ever came.
	AgeMs    *int64          `json:"age_ms"`
	Snapshot json.RawMessage `json:"snapshot"`
}

// live asks each agent for its snapshot once a second while somebody listens, however many listen.
type live struct {
	targets func() []target
	wake    chan struct{} // a first listener came

	mu        sync.Mutex
	listeners map[chan []byte]bool
	last      []byte             // event, while somebody listens
	agents    map[string]*answer // by URL of the snapshot
}

// answer is what an agent said last.
type answer struct {
	snapshot json.RawMessage
	at       time.Time // of the snapshot
	err      error     // of the last request that ended
	asked    time.Time // when the request that runs began; zero if none does
}

func newLive(targets func() []target) *live {
	return &live{targets: targets, wake: make(chan struct{}, 1), listeners: map[chan []byte]bool{}, agents: map[string]*answer{}}
}

// run asks while somebody listens, until ctx ends.
func (l *live) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			l.ask(ctx)
		}
	}
}

// ask asks until nobody listens any more.
func (l *live) ask(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var requests sync.WaitGroup
	defer requests.Wait()
	defer cancel()
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()
	for {
		var round sync.WaitGroup
		for _, t := range l.begin() {
			round.Add(1)
			requests.Go(func() {
				defer round.Done()
				snapshot, err := fetch(ctx, t)
				l.answered(t, snapshot, err)
			})
		}
		done := make(chan struct{})
		requests.Go(func() { round.Wait(); close(done) })
		wait := time.NewTimer(liveWait)
		select {
		case <-done:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
		if !l.publish() {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// begin returns the targets that are to be asked now, without those that still owe an answer, and forgets those that are gone.
func (l *live) begin() []target {
	all := l.targets()
	l.mu.Lock()
	defer l.mu.Unlock()
	there := map[string]*answer{}
	var idle []target
	for _, t := range all {
		a := l.agents[t.snapshot]
		if a == nil {
			a = &answer{}
		}
		if a.asked.IsZero() {
			a.asked = time.Now()
			idle = append(idle, t)
		}
		there[t.snapshot] = a
	}
	l.agents = there
	return idle
}

func (l *live) answered(t target, snapshot json.RawMessage, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.agents[t.snapshot]
	if a == nil {
		return // it is no target any more
	}
	a.asked = time.Time{}
	if errors.Is(err, context.Canceled) {
		return // nobody listens any more; the agent is not to blame
	}
	a.err = err
	if err == nil {
		a.snapshot, a.at = snapshot, time.Now()
	}
}

// publish hands an event to all listeners and returns whether there are any. One that is slow misses events, never the newest.
func (l *live) publish() bool {
	all := l.targets()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.listeners) == 0 {
		l.last = nil
		return false
	}
	now := time.Now()
	event := liveEvent{Format: "wattlet-live/1", Time: now.UTC(), Targets: []liveTarget{}}
	for _, t := range all {
		event.Targets = append(event.Targets, l.agents[t.snapshot].view(t, now))
	}
	l.last, _ = json.Marshal(event) // raw messages were checked when they came
	for c := range l.listeners {
		select {
		case <-c:
		default:
		}
		c <- l.last
	}
	return true
}

// view is what an event says of t; a may be nil.
func (a *answer) view(t target, now time.Time) liveTarget {
	v := liveTarget{Target: t.name, URL: t.url, Labels: t.labels}
	if a == nil {
		v.Error = "not asked yet"
		return v
	}
	if !a.at.IsZero() {
		v.Snapshot, v.AgeMs = a.snapshot, new(now.Sub(a.at).Milliseconds())
	}
	switch waited := now.Sub(a.asked); {
	case a.err != nil:
		v.Error = a.err.Error()
	case !a.asked.IsZero() && (a.at.IsZero() || waited > liveInterval):
		v.Error = fmt.Sprintf("no answer for %v", waited.Round(100*time.Millisecond))
	}
	return v
}

// fetch asks one agent.
func fetch(ctx context.Context, t target) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, liveTimeout, fmt.Errorf("no answer for %v", liveTimeout))
	defer cancel()
	snapshot, err := get(ctx, t)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause
	}
	return snapshot, err
}

func get(ctx context.Context, t target) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.snapshot, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		discard(resp.Body)
		return nil, fmt.Errorf("%s answered %s", t.snapshot, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSnapshot+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.snapshot, err)
	}
	snapshot, err := parseSnapshot(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.snapshot, err)
	}
	return snapshot, nil
}

// parseSnapshot checks that an agent sent body and returns it without line ends, which separate events.
func parseSnapshot(body []byte) (json.RawMessage, error) {
	if len(body) > maxSnapshot {
		return nil, fmt.Errorf("the snapshot is larger than %d bytes", maxSnapshot)
	}
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return nil, fmt.Errorf("not a snapshot: %w", err)
	}
	if head.Format != "wattlet-snapshot/1" {
		return nil, fmt.Errorf("not a snapshot this hub understands: its format is %q", head.Format)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, body); err != nil {
		return nil, fmt.Errorf("not a snapshot: %w", err)
	}
	return line.Bytes(), nil
}

var errListeners = errors.New("too many listen already; close some, or try again")

// join returns a channel of events and how to leave.
func (l *live) join() (events <-chan []byte, leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.listeners) >= maxListeners {
		return nil, nil, errListeners
	}
	c := make(chan []byte, 1)
	if l.last != nil {
		c <- l.last
	}
	l.listeners[c] = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.listeners, c)
	}, nil
}

// ServeHTTP is the stream of events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events, leave, err := l.join()
	if err != nil {
		w.Header().Set("Retry-After", "5")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy may not wait for more
	stream := http.NewResponseController(w)
	send := func(parts ...[]byte) bool {
		if err := stream.SetWriteDeadline(time.Now().Add(liveStall)); err != nil {
			return false
		}
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return false
			}
		}
		return stream.Flush() == nil
	}
	heartbeat := time.NewTicker(liveHeartbeat)
	defer heartbeat.Stop()
	for ok := send([]byte("retry: 2000\n\n")); ok; { // after that many milliseconds a browser comes again
		select {
		case event := <-events:
			ok = send([]byte("data: "), event, []byte("\n\n"))
			heartbeat.Reset(liveHeartbeat)
		case <-heartbeat.C:
			ok = send([]byte(": still here\n\n"))
		case <-r.Context().Done():
			return
		}
	}
}
