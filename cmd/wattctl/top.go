package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/wattlet/wattlet/internal/exporter"
)

type topCmd struct {
	Agents    []string      `arg:"" name:"agent" default:"127.0.0.1:9780" help:"Agents, as 10.0.0.7:9780, or hubs, for all of theirs; default ${default}."`
	Sort      string        `enum:"watts,energy,joules,name" default:"watts" help:"What comes first: watts, energy, joules (an invocation's) or name."`
	Every     time.Duration `default:"2s" help:"Time between two questions to an agent."`
	For       time.Duration `help:"End after so long; default by q or when interrupted, or as soon as there are watts if nobody looks."`
	Filter    string        `placeholder:"REGEXP" help:"Only what matches, as NODE/NAMESPACE/NAME."`
	Workloads bool          `help:"Show workloads too: pods, system services, the agent itself."`
	JSON      bool          `name:"json" help:"One JSON object a line, each time."`
	Access    agentFlags    `embed:""`
}

const (
	// topWindow is the time of which watts are the mean: agents split energy by ticks, and some in bursts.
	topWindow = 10 * time.Second
	// answerWithin is what an agent's answer may take. It is ready, and has some hundred kilobytes at most.
	answerWithin = 5 * time.Second
	// topStale is the time after which an agent that answers and has nothing new is said to stand still.
	topStale = 10 * time.Second
	// maxSnapshot bounds an answer.
	maxSnapshot = 32 << 20
)

// topSorts are the keys to sort by in the order in which s goes through them.
var topSorts = []string{"watts", "energy", "joules", "name"}

// Run shows what agents say until q is typed, it is interrupted or --for is over. Where nobody looks it prints once, as soon as
// there are watts, or when --for is over.
func (c topCmd) Run(a *app) error { return c.run(a, os.Stdin) }

func (c topCmd) run(a *app, stdin *os.File) error {
	if c.Every <= 0 || c.For < 0 {
		return usagef("--every=%v, --for=%v: neither can be negative, nor --every 0", c.Every, c.For)
	}
	filter, err := regexp.Compile(c.Filter)
	if err != nil {
		return usagef("--filter: %w", err)
	}
	t := &top{topCmd: c, out: a.stdout, tty: isTerminal(a.stdout) && !c.JSON, filter: filter}
	for _, name := range c.Agents {
		req, client, err := c.Access.request(name, "api/v1/snapshot")
		if err != nil {
			return err
		}
		defer client.CloseIdleConnections()
		client.Timeout = answerWithin
		live := req.Clone(a.ctx)
		live.URL = req.URL.JoinPath("../live")
		w := &watched{name: name, req: req, live: live, client: client, silence: hubSilence, since: time.Now(), changed: time.Now()}
		if len(c.Agents) > 1 {
			w.prefix = name + "/" // two hubs may have agents of one name
		}
		t.agents = append(t.agents, w)
	}
	var keys chan byte
	if t.tty && term.IsTerminal(int(stdin.Fd())) {
		before, err := term.MakeRaw(int(stdin.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer term.Restore(int(stdin.Fd()), before) //nolint:errcheck // nothing is left to do about it
		keys, t.raw = make(chan byte), true
		go typed(a.ctx, stdin, keys) // ends with the program, for nothing ends a read of a terminal
	}

	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	heard := make(chan answer)
	for _, w := range t.agents {
		asking.Go(func() { w.follow(ctx, c.Every, heard) })
	}
	return t.loop(a.ctx, heard, keys)
}

// typed sends what is typed until there is no more.
func typed(ctx context.Context, stdin io.Reader, keys chan<- byte) {
	for b := make([]byte, 1); ; {
		if n, err := stdin.Read(b); n == 0 || err != nil {
			return
		}
		select {
		case keys <- b[0]:
		case <-ctx.Done():
			return
		}
	}
}

// watched is an agent or a hub: how it is asked, and what it said. What it said is the loop's alone.
type watched struct {
	name    string
	req     *http.Request // for an agent's snapshot
	live    *http.Request // for a hub's stream
	client  *http.Client
	silence time.Duration // that breaks a stream

	agents []*watched // of a hub; not nil once it is known for one
	prefix string     // of their names

	history []*exporter.SnapshotView // the newest last, none older than topWindow but the one before
	last    *exporter.SnapshotView   // stays when it falls silent
	answers bool                     // its last answer was one
	err     error                    // why not
	since   time.Time                // of answers, by this host's clock
	changed time.Time                // when it last had something new
}

// answer is what came of asking at some time: a snapshot, an event of a hub, or an error.
type answer struct {
	of    *watched
	view  *exporter.SnapshotView
	err   error
	at    time.Time
	event *liveEvent
}

// follow asks an agent again and again. Who has no snapshot may be a hub, and is listened to as long as its stream lasts.
func (w *watched) follow(ctx context.Context, every time.Duration, heard chan<- answer) {
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		view, err := w.ask(ctx)
		if missing := (missingError{}); errors.As(err, &missing) {
			if broke := w.listen(ctx, heard); !errors.As(broke, &missing) {
				err = broke
			}
		}
		select {
		case heard <- answer{of: w, view: view, err: err, at: time.Now()}:
		case <-ctx.Done():
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watched) ask(ctx context.Context) (*exporter.SnapshotView, error) {
	resp, err := w.client.Do(w.req.WithContext(ctx))
	if err != nil {
		return nil, errors.Unwrap(err) // without method and URL, which its line has
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, missingError{refusal(resp)}
	default:
		return nil, refusal(resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxSnapshot))
	if err != nil {
		return nil, fmt.Errorf("not a snapshot: %w", err)
	}
	return parseSnapshot(text)
}

// take notes an answer.
func (w *watched) take(x answer) {
	if ok := x.err == nil; ok != w.answers {
		w.answers, w.since = ok, x.at
	}
	w.err = x.err
	if x.err != nil {
		w.history = nil // a mean over a silence is no present one
		return
	}
	if w.last == nil || !x.view.Time.Equal(w.last.Time) {
		w.changed = x.at
	}
	if n := len(w.history); n > 0 {
		if newest := w.history[n-1]; x.view.Time.Equal(newest.Time) {
			w.history = w.history[:n-1]
		} else if x.view.Time.Before(newest.Time) {
			w.history = nil // the clock was set
		}
	}
	w.last, w.history = x.view, append(w.history, x.view)
	for len(w.history) > 2 && x.view.Time.Sub(w.history[0].Time) > topWindow {
		w.history = w.history[1:]
	}
}

// trouble says why there are no figures, and since when.
func (w *watched) trouble(now time.Time) (string, time.Time) {
	switch {
	case w.err != nil:
		return line(w.err), w.since
	case w.last == nil && w.agents != nil:
		return "the hub has no agents", w.since
	case w.last == nil:
		return "it has not answered yet", w.since
	case now.Sub(w.changed) > topStale:
		return "it answers, and has nothing new", w.changed
	}
	return "", time.Time{}
}

// top is what runs.
type top struct {
	topCmd
	out      io.Writer
	tty, raw bool
	filter   *regexp.Regexp
	agents   []*watched
	drawn    bool
}

func (t *top) loop(ctx context.Context, heard <-chan answer, keys <-chan byte) error {
	redraw := time.NewTicker(t.Every)
	defer redraw.Stop()
	var end <-chan time.Time
	if t.For > 0 {
		end = time.After(t.For)
	}
	once := !t.tty && !t.JSON
	atEnd := once && t.For > 0 // watts are means of so long
	for {
		show := false
		select {
		case <-ctx.Done():
			if once {
				return errors.New("interrupted before the agents had given two readings")
			}
			return nil
		case <-end:
			if err := t.show(); err != nil {
				return err
			}
			return t.verdict()
		case x := <-heard:
			t.take(x)
			show = !t.drawn && !atEnd && t.ready()
		case <-redraw.C:
			show = t.tty || t.drawn || !atEnd && t.ready()
		case k := <-keys:
			switch k {
			case 'q', 'Q', 3, 4: // Ctrl-C and Ctrl-D, which mean nothing else to a raw terminal
				return nil
			case 's', 'S':
				t.Sort = topSorts[(slices.Index(topSorts, t.Sort)+1)%len(topSorts)]
				show = true
			}
		}
		if !show {
			continue
		}
		if err := t.show(); err != nil {
			return err
		}
		if once {
			return t.verdict()
		}
	}
}

// ready says whether there is as much to show of each agent as there will be soon: on a terminal what it has, else watts.
func (t *top) ready() bool {
	now := time.Now()
	return !slices.ContainsFunc(t.all(), func(w *watched) bool {
		why, _ := w.trouble(now)
		waits := w.err == nil && w.last == nil && w.agents == nil && now.Sub(w.since) < answerWithin+time.Second
		return waits || why == "" && !t.tty && len(w.history) < 2
	})
}

// verdict is an error if no agent answered.
func (t *top) verdict() error {
	all := t.all()
	if slices.ContainsFunc(all, func(w *watched) bool { return w.last != nil }) {
		return nil
	}
	why, _ := all[0].trouble(time.Now())
	return fmt.Errorf("no agent answers, %s: %s", all[0].name, why)
}

// show prints what there is.
func (t *top) show() error {
	v := t.view(time.Now())
	if t.JSON {
		t.drawn = true
		if err := json.NewEncoder(t.out).Encode(v); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	}
	text := t.text(&v)
	if t.tty {
		text = frame(text, !t.drawn)
		if t.raw {
			text = carriage.Replace(text)
		}
	}
	t.drawn = true
	if _, err := io.WriteString(t.out, text); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
