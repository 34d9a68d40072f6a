package accounting

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

const (
	// maxRecordings and recordingLimit bound the memory of recordings. The limit is in values, of about 60 to 100 bytes each: a
	// minute of 50 workloads at ticks of 1 s, some seconds at 100 ms.
	maxRecordings  = 3
	recordingLimit = 8192
)

// What keeps a recording from beginning, and what ends one.
var (
	ErrNotSplit        = errors.New("nothing to record: this agent does not split the energy of its own node")
	ErrRecordings      = errors.New("too many recordings at once; end one")
	ErrSlowReader      = errors.New("cut off: the reader was slower than the records came")
	ErrEnded           = errors.New("the agent ended")
	ErrRecordingClosed = errors.New("the recording was closed")
)

// Record is something that the own node's attributor was fed with, or a Tick: a Received, *workload.Sample, workload.Activity,
// workload.Event, workload.Workload or Tick. All times are on the clock of the samples. A workload comes before the first
// record that names it, and again when something else is known of it; Node and Kernel are not described.
type Record any

// Received is a reading, without those that were known already or older.
type Received struct {
	// At is when the agent got it.
	At time.Duration
	energy.Reading
}

// Tick ends the records of one tick.
type Tick struct{ At time.Duration }

// Recording is what one reader gets of the records. Memory is bounded: a reader that is too slow gets what was kept for it,
// whole and in order, and then ErrSlowReader.
type Recording struct {
	// Node is whose energy it is and what measures it; Board and Interval, the time between samples, are as configured.
	Node     NodeConfig
	Board    Board
	Interval time.Duration
	// Start and Wall are the same instant, on the clock of the samples and the wall clock; no record is older.
	Start time.Duration
	Wall  time.Time

	l    *Ledger
	wake chan struct{} // capacity 1: a tick is over, or the recording is

	// Below, the ledger's lock.
	described   map[workload.ID]workload.Workload
	sampled     bool
	queue, read []Record
	values      int // in queue
	err         error
}

// Record begins a recording of the own node. The caller closes it. The error is ErrNotSplit, ErrRecordings or ErrEnded.
func (l *Ledger) Record() (*Recording, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.own == nil:
		return nil, ErrNotSplit
	case l.ended:
		return nil, ErrEnded
	case len(l.recordings) >= maxRecordings:
		return nil, ErrRecordings
	}
	r := &Recording{
		Node: l.own.NodeConfig, Board: l.cfg.Attribution.Board, Interval: l.cfg.Tick,
		Start: l.cfg.Attribution.Uptime(), Wall: l.cfg.Now(),
		l: l, wake: make(chan struct{}, 1), described: map[workload.ID]workload.Workload{},
	}
	l.recordings = append(l.recordings, r)
	for _, w := range l.own.attributor.Tracked() {
		r.describe(w.ID)
	}
	return r, nil
}

// Next waits for the end of a tick and returns the records since the last call, which are valid until the next. After the
// last ones the error says why there are no more.
func (r *Recording) Next(ctx context.Context) ([]Record, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.wake:
	}
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if r.err != nil {
		r.signal() // to whoever asks again
		if len(r.queue) == 0 {
			return nil, r.err
		}
	}
	clear(r.read)
	r.queue, r.read, r.values = r.read[:0], r.queue, 0
	return r.read, nil
}

// Close ends the recording. It may be called several times.
func (r *Recording) Close() {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.end(ErrRecordingClosed)
}

// end keeps what is queued and takes nothing more.
func (r *Recording) end(err error) {
	if r.err == nil {
		r.err = err
		r.l.recordings = slices.DeleteFunc(slices.Clone(r.l.recordings), func(o *Recording) bool { return o == r })
		r.signal()
	}
}

func (r *Recording) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// put queues a record of so many values.
func (r *Recording) put(rec Record, values int) {
	switch {
	case r.err != nil:
	case r.values >= recordingLimit:
		r.end(ErrSlowReader)
	default:
		r.queue = append(r.queue, rec)
		r.values += values
	}
}

// describe queues what is known of a workload, unless the reader knows it.
func (r *Recording) describe(id workload.ID) {
	if id == workload.Node || id == workload.Kernel {
		return
	}
	var w workload.Workload
	if t := r.l.own.attributor.byID[id]; t != nil {
		w = t.Workload
	} else {
		w = r.l.cfg.Attribution.Describe(id)
		w.ID = id
	}
	if known, ok := r.described[id]; !ok || known != w {
		r.described[id] = w
		r.put(w, 1)
	}
}

// recordReading, and the others below, queue a record for every reader. They are called with the lock, after the attributor was.
func (l *Ledger) recordReading(reading energy.Reading) {
	if len(l.recordings) == 0 {
		return
	}
	rec := Received{l.cfg.Attribution.Uptime(), reading}
	for _, r := range l.recordings {
		r.put(rec, 2)
	}
}

func (l *Ledger) recordActivity(a workload.Activity) {
	for _, r := range l.recordings {
		if a.At >= r.Start && l.own.attributor.byID[a.ID] != nil {
			r.describe(a.ID)
			r.put(a, 1)
		}
	}
}

func (l *Ledger) recordEvent(e workload.Event) {
	for _, r := range l.recordings {
		if e.At >= r.Start && (e.ID == workload.Node || l.own.attributor.byID[e.ID] != nil) {
			r.describe(e.ID)
			r.put(e, 1)
		}
	}
}

func (l *Ledger) recordSample(s *workload.Sample) {
	if len(l.recordings) == 0 {
		return
	}
	c := &workload.Sample{At: s.At, Usage: slices.Clone(s.Usage), Ended: slices.Clone(s.Ended), Frequency: slices.Clone(s.Frequency)}
	for _, r := range l.recordings {
		if !r.sampled && readBefore(c, r.Start) {
			continue
		}
		r.sampled = true
		for i := range c.Usage {
			if id := c.Usage[i].ID; i == 0 || id != c.Usage[i-1].ID {
				r.describe(id)
			}
		}
		for _, id := range c.Ended {
			delete(r.described, id)
		}
		// The largest leave room for the rest of their tick.
		r.put(c, min(1+len(c.Usage)+len(c.Frequency)+len(c.Ended), recordingLimit/2))
	}
}

// readBefore says whether part of a sample was read before a time. What ended has the time at which it was last seen.
func readBefore(s *workload.Sample, start time.Duration) bool {
	return slices.ContainsFunc(s.Usage, func(u workload.Usage) bool {
		_, ended := slices.BinarySearch(s.Ended, u.ID)
		return u.At < start && !ended
	}) || slices.ContainsFunc(s.Frequency, func(f workload.Frequency) bool { return f.At < start })
}

func (l *Ledger) recordTick() {
	if len(l.recordings) == 0 {
		return
	}
	at := Tick{l.cfg.Attribution.Uptime()}
	for _, r := range l.recordings {
		r.put(at, 1)
		r.signal()
	}
}

// endRecordings ends them all, because nothing will follow.
func (l *Ledger) endRecordings() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, r := range l.recordings {
		r.end(ErrEnded)
	}
}
