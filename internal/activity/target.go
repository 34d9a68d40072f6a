package activity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

const (
	// maxBody bounds an answer; of-watchdog's has about 10 kB.
	maxBody = 1 << 20
	// keepBuffer is what a worker keeps of its buffer's size after a large answer.
	keepBuffer = 64 << 10
	// maxBackoff is the longest time between two tries.
	maxBackoff = 10 * time.Second
	// maxSeldom is the longest time between two questions to a target that may have no watchdog.
	maxSeldom = 5 * time.Minute
	// leaving is how often a target that is Maybe may fail without the log hearing of it: pods go without saying so here.
	leaving = 3
	// startGrace is how long a target that has not answered yet is tried every period: its start is being timed.
	startGrace = 30 * time.Second
)

// target is one pod's watchdog. What is not said to be a worker's belongs to the goroutine in Run.
type target struct {
	id       workload.ID
	url      string
	request  *http.Request // nil if url is none
	bad      error         // why
	appeared time.Duration

	busy     bool // waits for a worker, or one has it
	gone     bool // has left the list, perhaps while busy
	seen     uint64
	initial  bool          // was there at the first poll, and has not been tried yet
	ready    bool          // has answered once
	failures int           // since the last answer
	silent   bool          // the log was told that it does not answer
	due      time.Duration // not to be asked before
	epoch    epoch
	status   Status

	// The rest is the worker's while busy.
	got counts
	at  time.Duration
	err error
}

// address takes over what the target's URL now is.
func (t *target) address(url string) {
	t.url, t.status.URL = url, url
	t.request, t.bad = http.NewRequest(http.MethodGet, url, nil) //nolint:noctx // each poll has its own, see poll
	if t.bad == nil && (t.request.URL.Scheme != "http" || t.request.URL.Host == "") {
		t.request, t.bad = nil, errors.New("not a URL of the form http://HOST:PORT/metrics")
	}
	if t.bad == nil {
		t.request.Header.Set("Accept", "text/plain;version=0.0.4")
		t.request.Header.Set("User-Agent", "wattlet")
	}
}

// poll asks the target once, with buf to read into, and returns buf for the next time.
func (t *target) poll(ctx context.Context, c *http.Client, cfg *Config, buf []byte) []byte {
	begin := cfg.Uptime()
	t.got, buf, t.err = t.ask(ctx, c, cfg.Timeout, buf)
	t.at = begin + (cfg.Uptime()-begin)/2
	return buf
}

func (t *target) ask(ctx context.Context, c *http.Client, timeout time.Duration, buf []byte) (counts, []byte, error) {
	buf, err := t.fetch(ctx, c, timeout, buf)
	if err != nil {
		return counts{}, buf, err
	}
	got, err := parse(buf)
	if err != nil {
		return counts{}, buf, fmt.Errorf("GET %s: %w", t.url, err)
	}
	return got, buf, nil
}

// fetch reads the target's text into buf.
func (t *target) fetch(ctx context.Context, c *http.Client, timeout time.Duration, buf []byte) ([]byte, error) {
	if t.bad != nil {
		return buf, t.bad
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := c.Do(t.request.WithContext(ctx))
	if err != nil {
		return buf, err // a *url.Error, which names method and URL
	}
	defer resp.Body.Close() //nolint:errcheck // nothing was written
	if resp.StatusCode != http.StatusOK {
		return buf, fmt.Errorf("GET %s: status %d: is this a metrics endpoint?", t.url, resp.StatusCode)
	}
	buf, err = readBody(buf[:0], resp.Body)
	if err != nil {
		return buf, fmt.Errorf("GET %s: %w", t.url, err)
	}
	return buf, nil
}

var errTooLarge = fmt.Errorf("the answer has more than %d bytes", maxBody)

// readBody appends all of r to buf, which grows with what comes and not with what is promised.
func readBody(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(max(16<<10, 2*cap(buf)), maxBody+1))
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > maxBody:
			return buf, errTooLarge
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// epoch carries a workload's counts over restarts of its watchdog.
type epoch struct {
	base     int64 // completed before the watchdog's last restart
	last     counts
	started  int64
	complete int64
}

// maxTotal leaves room above for one watchdog's counts: a target that makes numbers up gets stuck there and does not wrap round.
const maxTotal = math.MaxInt64 - 2*maxCount

// fold adds one answer and tells whether the watchdog has restarted, which shows in a count that fell. Requests that a restart
// killed are over: they count as completed, so that started less completed stays what is in flight. A watchdog that completed
// more since its restart than before it is not found out; then some requests are missing, and none is counted twice.
//
// A watchdog counts a request as completed just before it takes it out of the gauge, and collects both not quite at once. So
// started may be ahead or behind by what ended at that moment; it waits rather than fall.
func (e *epoch) fold(c counts) (restarted bool) {
	if restarted = c.completed < e.last.completed; restarted {
		e.base = min(max(e.started, e.complete), maxTotal)
	}
	e.last = c
	e.complete = max(e.complete, e.base+c.completed)
	e.started = max(e.started, e.base+c.completed+c.inFlight)
	return restarted
}

// seldom returns the time to wait after so many failures of a target that may have no watchdog.
func seldom(every time.Duration, failures int) time.Duration {
	wait := maxBackoff
	for ; failures > 1 && wait < maxSeldom; failures-- {
		wait *= 2
	}
	return min(max(wait, every), max(maxSeldom, every))
}

// backoff returns the time to wait after so many failures in a row.
func backoff(every time.Duration, failures int) time.Duration {
	limit := max(every, maxBackoff)
	for ; failures > 0 && every < limit; failures-- {
		every *= 2
	}
	return min(every, limit)
}
