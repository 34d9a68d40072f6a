package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/exporter"
)

const (
	// hubSilence is the time without a word after which a hub's stream is broken: a hub says something every 15 s at least.
	hubSilence = 40 * time.Second
	// maxEvent bounds an event, which has the snapshots of all agents.
	maxEvent = 128 << 20
)

// missingError is the error of an agent or a hub that has no such page.
type missingError struct{ error }

// liveEvent is an event of a hub's stream, /api/v1/live, as far as top needs it.
type liveEvent struct {
	Format  string       `json:"format"` // "wattlet-live/1"
	Targets []liveTarget `json:"targets"`
}

type liveTarget struct {
	Target   string          `json:"target"`
	Error    string          `json:"error"`
	AgeMs    *int64          `json:"age_ms"`
	Snapshot json.RawMessage `json:"snapshot"`

	view *exporter.SnapshotView
}

// parseLive reads the data of an event. A snapshot that is none is its agent's error.
func parseLive(data []byte) (*liveEvent, error) {
	e := new(liveEvent)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("not an event of a hub: %w", err)
	}
	if e.Format != "wattlet-live/1" {
		return nil, fmt.Errorf("not an event this program knows: format %q", e.Format)
	}
	for i := range e.Targets {
		t := &e.Targets[i]
		if len(t.Snapshot) == 0 || string(t.Snapshot) == "null" {
			continue
		}
		var err error
		if t.view, err = parseSnapshot(t.Snapshot); err != nil && t.Error == "" {
			t.Error = err.Error()
		}
		t.Snapshot = nil
	}
	return e, nil
}

// parseSnapshot reads an agent's snapshot.
func parseSnapshot(text []byte) (*exporter.SnapshotView, error) {
	v := new(exporter.SnapshotView)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("not a snapshot: %w", err)
	}
	if v.Format != "wattlet-snapshot/1" {
		return nil, fmt.Errorf("not a snapshot this program knows: format %q", v.Format)
	}
	return v, nil
}

// events hands the data of each event of a stream to each, until the stream ends or each returns an error. heard is called for every
// line (https://html.spec.whatwg.org/multipage/server-sent-events.html).
func events(stream io.Reader, heard func(), each func(data []byte) error) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 64<<10), maxEvent)
	var data []byte
	for lines.Scan() {
		heard()
		line := lines.Bytes()
		if text, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if len(data)+len(text) > maxEvent {
				return bufio.ErrTooLong
			}
			data = append(append(data, bytes.TrimPrefix(text, []byte(" "))...), '\n')
		}
		if len(line) > 0 || len(data) == 0 {
			continue
		}
		if err := each(data); err != nil {
			return err
		}
		data = data[:0]
	}
	return lines.Err()
}

// listen follows a hub's stream until it breaks, and says why.
func (w *watched) listen(ctx context.Context, heard chan<- answer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(answerWithin, func() { cancel(fmt.Errorf("no answer within %v", answerWithin)) })
	defer silence.Stop()
	because := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	// No timeout of the client's: it would be one of the whole stream.
	resp, err := (&http.Client{Transport: w.client.Transport}).Do(w.live.WithContext(ctx))
	if err != nil {
		return because(errors.Unwrap(err)) // without method and URL
	}
	defer resp.Body.Close()
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // none is another
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusOK && kind != "text/event-stream":
		return missingError{errors.New("no stream of events")}
	case resp.StatusCode != http.StatusOK:
		return refusal(resp)
	}
	silence.Stop()
	silence = time.AfterFunc(w.silence, func() { cancel(fmt.Errorf("its stream fell silent for %v", w.silence)) })
	defer silence.Stop()
	err = events(resp.Body, func() { silence.Reset(w.silence) }, func(data []byte) error {
		event, err := parseLive(data)
		if err != nil {
			return err
		}
		select {
		case heard <- answer{of: w, event: event, at: time.Now()}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err == nil {
		err = errors.New("its stream ended")
	}
	return because(err)
}

// hear notes an event of a hub: what each of its agents said, or why it did not.
func (w *watched) hear(x answer) {
	if !w.answers {
		w.answers, w.since = true, x.at
	}
	w.err = nil
	agents := []*watched{}
	for i := range x.event.Targets {
		t := &x.event.Targets[i]
		name := w.prefix + t.Target
		at := slices.IndexFunc(w.agents, func(c *watched) bool { return c.name == name })
		var c *watched
		if at >= 0 {
			c = w.agents[at]
		} else {
			c = &watched{name: name, since: x.at, changed: x.at}
			if t.Error != "" && t.AgeMs != nil { // it fell silent before anyone asked here
				c.since = x.at.Add(-time.Duration(*t.AgeMs) * time.Millisecond)
			}
		}
		switch {
		case t.Error != "":
			c.take(answer{of: c, err: errors.New(t.Error), at: x.at})
			if c.last == nil {
				c.last = t.view
			}
		case t.view != nil:
			c.take(answer{of: c, view: t.view, at: x.at})
		}
		agents = append(agents, c)
	}
	w.agents = agents
}

// take notes what was heard of what was named: an agent's answer, a hub's event, or an error of either, which for a hub is one of all
// its agents.
func (t *top) take(x answer) {
	w := x.of
	if x.event != nil {
		w.hear(x)
		return
	}
	w.take(x)
	if x.err == nil {
		w.agents = nil // an agent now, whatever it was
	}
	for _, c := range w.agents {
		c.take(answer{of: c, err: fmt.Errorf("hub %s: %w", w.name, x.err), at: x.at})
	}
}

// all returns the agents, those of hubs in the place of the hub. A hub that has none stands for itself.
func (t *top) all() (list []*watched) {
	for _, w := range t.agents {
		if len(w.agents) == 0 {
			list = append(list, w)
		}
		list = append(list, w.agents...)
	}
	return list
}
