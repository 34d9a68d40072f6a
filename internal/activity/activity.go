// Package activity reads how many requests function pods serve and have served from their OpenFaaS watchdogs.
//
// of-watchdog and the classic watchdog count the calls of their function (https://github.com/openfaas/of-watchdog#metrics) and
// serve the counts on http://POD:8081/metrics; calls that a watchdog refuses for having too many in flight are among them, health
// checks are not. A watchdog closes a connection that was idle for half a second, so only faster polls find theirs still open.
package activity

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// Target is a workload whose watchdog is to be asked.
type Target struct {
	ID workload.ID
	// URL is that of the watchdog's metrics, such as http://10.42.0.7:8081/metrics.
	URL string
	// Maybe says that nobody knows whether there is a watchdog: one that does not answer while it may be starting is asked seldom, is no
	// error, and is not heard of in the log. Others tell when such a workload is created and stops.
	Maybe bool
	// Turn is another number when a target that does not answer is worth being asked again, as one that has got ready.
	Turn int
}

// Config says whom to ask. Targets and Uptime are needed.
type Config struct {
	// Targets returns the workloads there are now; it is called once a period and must not wait. Of two with one ID the first
	// counts. Whoever cannot tell just now returns what it told last: a target that is missing has stopped.
	Targets func() []Target
	// Every is the period: default 1 s, at least 100 ms.
	Every time.Duration
	// Timeout is for one target's answer; default 1 s.
	Timeout time.Duration
	// Client is used as it is; nil for one that keeps one connection per target, uses no proxy and follows no redirect.
	Client *http.Client
	// Uptime is the host's monotonic clock, on which all values are dated.
	Uptime func() time.Duration
	// Logger is told when a target falls silent or answers again; nil for none.
	Logger *slog.Logger
}

const (
	minEvery       = 100 * time.Millisecond
	defaultEvery   = time.Second
	defaultTimeout = time.Second
)

// workers is how many targets of a lane are asked at a time. Those that answered last time and all others have a lane each, so
// that a node full of dead pods costs the living nothing.
const workers = 8

// The lanes.
const (
	answering = iota
	silent
	lanes
)

// Status is what became of the polls of a target.
type Status struct {
	Target
	// Up is true if the last poll was answered.
	Up bool
	// LastSuccess is the middle of the last poll that was answered, on the clock of Config.Uptime; 0 before the first.
	LastSuccess time.Duration
	// Error says in one line why the last poll failed; empty if it did not.
	Error string
	// Polls, Errors and Restarts count since the target appeared: polls, those of them that failed, and restarts of the watchdog.
	Polls, Errors, Restarts uint64
}

// Poller asks watchdogs.
type Poller struct {
	cfg Config

	mu     sync.Mutex
	status []Status // replaced as a whole

	// The rest belongs to Run.
	targets map[workload.ID]*target
	round   uint64
	queue   [lanes][]*target
	started bool
}

// New returns a poller that asks nobody yet.
func New(cfg Config) *Poller {
	cfg.Every = max(cmp.Or(cfg.Every, defaultEvery), minEvery)
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Poller{cfg: cfg, targets: map[workload.ID]*target{}}
}

// newClient returns the client that is used unless the configuration has one.
func newClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // pods are on this node
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			MaxIdleConnsPerHost:    lanes * workers, // a target has one connection at most, but targets may share an address
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true, // costs both sides more than the loopback would
			MaxResponseHeaderBytes: 16 << 10,
		},
		// A pod must not send the agent, which may reach what others may not, to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Status returns what had become of the polls of each target when the last period began, sorted by ID. Nobody may change it.
func (p *Poller) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Run polls until ctx ends, then returns nil; it fails only where the configuration lacks something. It may be called once only.
//
// sink gets what each answer says, as soon as it is there: in order of time, which is the middle of the request, for one ID, but
// not across IDs. Started and Completed never fall; in the first Activity they are the watchdog's own, which begin at 0 with its
// process. Failed polls say nothing: the counts of the next good one include what they missed.
//
// event gets Created when a target appears, Ready at its first answer, before the Activity, and Stopped when it has left, after
// which nothing comes of this ID unless it appears anew. A target that is there at the first poll and answers at once was running
// before and has neither Created nor Ready; if it does not answer at once, Created comes late with the time of the first poll. Of a
// target that is Maybe there is Ready alone.
//
// Both are called from one goroutine at a time, and polling waits for them.
func (p *Poller) Run(ctx context.Context, sink func(workload.Activity), event func(workload.Event)) error {
	if p.cfg.Targets == nil || p.cfg.Uptime == nil {
		return errors.New("activity of functions: no list of targets or no clock is configured")
	}
	client := p.cfg.Client
	if client == nil {
		client = newClient(p.cfg.Timeout)
		defer client.CloseIdleConnections()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait
	var jobs [lanes]chan *target
	done := make(chan *target)
	for lane := range jobs {
		jobs[lane] = make(chan *target)
		for range workers {
			wg.Go(func() { p.work(ctx, client, jobs[lane], done) })
		}
	}

	ticker := time.NewTicker(p.cfg.Every)
	defer ticker.Stop()
	p.tick(event)
	for {
		send, first := jobs, [lanes]*target{}
		for lane, q := range p.queue {
			if len(q) == 0 {
				send[lane] = nil // blocks
			} else {
				first[lane] = q[0]
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case send[answering] <- first[answering]:
			p.queue[answering] = p.queue[answering][1:]
		case send[silent] <- first[silent]:
			p.queue[silent] = p.queue[silent][1:]
		case t := <-done:
			if ctx.Err() != nil {
				return nil // it may have failed only for that
			}
			p.take(t, sink, event)
		case <-ticker.C:
			p.tick(event)
		}
	}
}

// work polls one target after the other.
func (p *Poller) work(ctx context.Context, client *http.Client, jobs <-chan *target, done chan<- *target) {
	var buf []byte
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-jobs:
			if buf = t.poll(ctx, client, &p.cfg, buf); cap(buf) > keepBuffer {
				buf = nil
			}
			select {
			case <-ctx.Done():
				return
			case done <- t:
			}
		}
	}
}

// tick compares the targets with those there were, and queues who is due.
func (p *Poller) tick(event func(workload.Event)) {
	now := p.cfg.Uptime()
	p.round++
	first := !p.started
	p.started = true
	for _, n := range p.cfg.Targets() {
		t := p.targets[n.ID]
		switch {
		case t == nil:
			t = &target{id: n.ID, appeared: now, initial: first, status: Status{Target: n}}
			t.address(n.URL)
			p.targets[n.ID] = t
			if !first && !n.Maybe {
				event(workload.Event{ID: n.ID, At: now, What: workload.Created})
			}
		case t.seen == p.round:
			continue // the second of this ID
		case t.url != n.URL && !t.busy:
			t.address(n.URL)
			t.due = 0
		}
		if t.status.Turn != n.Turn {
			t.failures, t.due, t.appeared = 0, 0, now
		}
		t.status.Maybe, t.status.Turn = n.Maybe, n.Turn
		t.seen = p.round
		if !t.busy && t.due <= now {
			t.busy = true
			lane := silent
			if t.status.Up {
				lane = answering
			}
			p.queue[lane] = append(p.queue[lane], t)
		}
	}
	for _, id := range p.leavers() {
		t := p.targets[id]
		t.gone = true
		delete(p.targets, id)
		if !t.status.Maybe {
			event(workload.Event{ID: id, At: max(now, t.status.LastSuccess), What: workload.Stopped})
		}
	}
	for lane := range p.queue {
		p.queue[lane] = slices.DeleteFunc(p.queue[lane], func(t *target) bool { return t.gone })
	}
	p.publish()
}

// leavers returns the targets that the list no longer has, sorted.
func (p *Poller) leavers() []workload.ID {
	var ids []workload.ID
	for id, t := range p.targets {
		if t.seen != p.round {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// take enters what a poll brought.
func (p *Poller) take(t *target, sink func(workload.Activity), event func(workload.Event)) {
	t.busy = false
	if t.gone {
		return
	}
	s := &t.status
	s.Polls++
	initial := t.initial
	t.initial = false
	if t.err != nil {
		if initial && !s.Maybe {
			event(workload.Event{ID: t.id, At: t.appeared, What: workload.Created})
		}
		p.fail(t)
		return
	}
	if t.silent {
		t.silent = false
		p.cfg.Logger.Info("watchdog answers", "workload", t.id, "url", t.url)
	}
	t.failures, t.due = 0, 0
	s.Up, s.Error, s.LastSuccess = true, "", t.at
	if !t.ready {
		t.ready = true
		if !initial {
			event(workload.Event{ID: t.id, At: t.at, What: workload.Ready})
		}
	}
	if t.epoch.fold(t.got) {
		s.Restarts++
	}
	sink(workload.Activity{ID: t.id, At: t.at, InFlight: t.got.inFlight, Started: t.epoch.started, Completed: t.epoch.complete})
}

// fail enters that a poll failed, and says when to try again.
func (p *Poller) fail(t *target) {
	s := &t.status
	s.Up, s.Error = false, t.err.Error()
	starting := !t.ready && t.at-t.appeared < startGrace
	if s.Maybe && !t.ready {
		if !starting {
			t.failures++
			t.due = p.cfg.Uptime() + seldom(p.cfg.Every, t.failures) - p.cfg.Every/2
		}
		return
	}
	s.Errors++
	if !starting {
		t.failures++
		// Half a period less, since ticks do not come on the dot.
		t.due = p.cfg.Uptime() + backoff(p.cfg.Every, t.failures) - p.cfg.Every/2
		if !t.silent && (!s.Maybe || t.failures > leaving) {
			t.silent = true
			p.cfg.Logger.Warn("watchdog does not answer: requests of this workload are not counted", "workload", t.id, "err", t.err)
		}
	}
}

// publish replaces the statuses.
func (p *Poller) publish() {
	list := make([]Status, 0, len(p.targets))
	for _, t := range p.targets {
		list = append(list, t.status)
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(string(a.ID), string(b.ID)) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = list
}
