package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// WatchConfig is what a Watch is made of.
type WatchConfig struct {
	Config
	Access
	// API is the API server's URL, such as https://10.43.0.1:443.
	API string
	// Node is the node whose pods are followed.
	Node string
	// Silence is how long the server may say nothing before the connection is taken for dead; default 3 min. Servers send a bookmark
	// about once a minute.
	Silence time.Duration
}

const (
	defaultSilence = 3 * time.Minute
	// steady is how long a watch must stand to be taken for well, if no bookmark says so before: one may end after the first pods.
	steady = 10 * time.Second
	// maxEvent bounds an event: an object has 1.5 MB at most in the server's store.
	maxEvent = 4 << 20
	// keepEvent is what is kept of the memory for one.
	keepEvent = 64 << 10
)

// Watch follows the pods of a node at the API server: a raw watch, selected by the node's name, which needs the verb watch on pods and
// no other (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
//
// Without a version the server begins with an ADDED event for each pod that there is, so nothing has to be listed. Bookmarks tell the
// version from which to go on after the connection ended; servers end it after half an hour or so, which is no failure. Where that
// version is too old (410) it begins anew.
type Watch struct {
	source
	cfg WatchConfig

	version string // from which to go on; empty to begin anew
	anew    bool   // the last watch has begun anew
	any     bool   // begin from whatever the server has at hand
	synced  bool   // all that was there at the beginning has been told
	began   time.Time
}

// NewWatch returns a Watch that has not begun.
func NewWatch(c WatchConfig) *Watch {
	if c.Silence <= 0 {
		c.Silence = defaultSilence
	}
	return &Watch{source: newSource(c.Config, c.API), cfg: c}
}

// Run follows the pods until ctx ends, then returns nil. It may be called once.
func (w *Watch) Run(ctx context.Context) error {
	for {
		err := w.follow(ctx)
		var s statusError
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil: // ended by the server
			if !pause(ctx, w.first/10+rand.N(w.first)) {
				return nil
			}
			continue
		case errors.As(err, &s) && s.Code == http.StatusGone && w.version != "":
			w.version = ""
			if !pause(ctx, rand.N(w.first)) {
				return nil
			}
			continue
		case errors.As(err, &s):
			// A server whose store cannot tell the newest version refuses to begin with it; some can from what they have at hand.
			w.any = w.anew && !w.any
			w.version = ""
		}
		w.fail(fmt.Errorf("watch pods of %s at %s: %w", w.cfg.Node, w.cfg.API, err))
		if !pause(ctx, w.wait()) {
			return nil
		}
	}
}

// errSilent ends a connection on which nothing came.
var errSilent = errors.New("the connection is silent")

// follow opens one watch and takes in its events until it ends, which is nil if the server ended it in order.
func (w *Watch) follow(ctx context.Context) error {
	transport, header, err := w.cfg.connect()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	w.anew = w.version == ""
	query := url.Values{"watch": {"1"}, "allowWatchBookmarks": {"true"}, "fieldSelector": {"spec.nodeName=" + w.cfg.Node}}
	switch {
	case w.version != "":
		query.Set("resourceVersion", w.version)
	case w.any:
		query.Set("resourceVersion", "0")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(w.cfg.Silence, func() { cancel(errSilent) })
	defer silence.Stop()
	req, err := request(ctx, w.cfg.API+"/api/v1/pods?"+query.Encode(), header)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return w.why(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing was written
	if resp.StatusCode != http.StatusOK {
		return hint(readEnd(resp.StatusCode, resp.Body), "the verb watch on pods")
	}
	if w.anew {
		w.synced = false
		w.Directory.begin()
	}
	body := &patient{r: resp.Body, heard: func() { silence.Reset(w.cfg.Silence) }}
	w.began = time.Now()
	w.ok()
	return w.why(ctx, w.take(body))
}

// why returns what ended a connection, in place of what came of that.
func (w *Watch) why(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return fmt.Errorf("%w for %v", errSilent, w.cfg.Silence)
	}
	return err
}

// take takes in events until the stream ends.
func (w *Watch) take(body *patient) error {
	events := json.NewDecoder(body)
	var e apiEvent
	for {
		body.left = maxEvent
		if cap(e.Object) > keepEvent {
			e.Object = nil
		}
		e.Type, e.Object = "", e.Object[:0]
		switch err := events.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		c, err := e.read(w.cfg.Label)
		var s statusError
		switch {
		case errors.As(err, &s):
			return err
		case err != nil: // one that nobody understands costs itself alone
			w.fail(fmt.Errorf("watch pods of %s at %s: %w", w.cfg.Node, w.cfg.API, err))
			continue
		}
		w.enter(c)
	}
}

// enter enters one change.
func (w *Watch) enter(c change) {
	switch c.kind {
	case bookmark:
		if !w.synced {
			w.synced = true
			w.Directory.sweep()
		}
	case deleted:
		w.Directory.put(c.pod)
		w.Directory.remove(c.pod.UID)
	default:
		w.Directory.put(c.pod)
	}
	if c.version != "" {
		w.version = c.version
	}
	w.ok()
	if c.kind == bookmark || time.Since(w.began) > steady {
		w.well()
	}
}

// patient reads a stream that may be slow, and bounds what comes between two events.
type patient struct {
	r     io.Reader
	left  int
	heard func()
}

var errTooLarge = fmt.Errorf("an event has more than %d bytes", maxEvent)

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, errTooLarge
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	if n > 0 {
		p.heard()
	}
	return n, err
}
