package accounting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// counters are a UsageReader whose next sample is its field, read now.
type counters struct {
	uptime func() time.Duration
	mu     sync.Mutex
	sample workload.Sample
}

func (c *counters) show(ended []workload.ID, usage ...workload.Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sample.Usage, c.sample.Ended = usage, ended
}

func (c *counters) Read() (*workload.Sample, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &workload.Sample{At: c.uptime(), Usage: slices.Clone(c.sample.Usage), Ended: slices.Clone(c.sample.Ended)}
	for i := range s.Usage {
		if !slices.Contains(s.Ended, s.Usage[i].ID) {
			s.Usage[i].At = s.At
		}
	}
	return s, nil
}

// splitting returns a ledger with node pi, whose energy is split, and its counters. The clock of the samples began an hour ago.
func splitting(t *testing.T) (*Ledger, *counters) {
	t.Helper()
	cfg := config(nil)
	start := time.Now()
	c := &counters{uptime: func() time.Duration { return time.Hour + time.Since(start) }}
	cfg.Attribution = &AttributionConfig{Node: "pi", Usage: c, Uptime: c.uptime, AttributorConfig: AttributorConfig{
		Board: Board{Classes: []Class{{Cores: 4}}}, Tick: cfg.Tick,
		Describe: func(id workload.ID) workload.Workload {
			return workload.Workload{Kind: workload.Pod, Name: "name of " + string(id)}
		},
	}}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

func record(t *testing.T, l *Ledger) *Recording {
	t.Helper()
	r, err := l.Record()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func used(id workload.ID, cpu time.Duration) workload.Usage { return workload.Usage{ID: id, CPU: cpu} }

// next returns a batch as text, times in seconds since the ledger began.
func next(t *testing.T, r *Recording) (lines []string) {
	t.Helper()
	batch, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := func(d time.Duration) float64 { return (d - time.Hour).Seconds() }
	for _, rec := range batch {
		switch v := rec.(type) {
		case Received:
			lines = append(lines, fmt.Sprintf("reading %.1f: %d %v %v", s(v.At), v.Epoch, v.Reading.At, v.Energy))
		case *workload.Sample:
			line := fmt.Sprintf("sample %.1f:", s(v.At))
			for _, u := range v.Usage {
				line += fmt.Sprintf(" %s=%v", u.ID, u.CPU)
			}
			lines = append(lines, fmt.Sprint(line, v.Ended))
		case workload.Workload:
			lines = append(lines, fmt.Sprintf("workload %s: %s", v.ID, v.Name))
		case workload.Activity:
			lines = append(lines, fmt.Sprintf("activity %.1f: %s %d", s(v.At), v.ID, v.Completed))
		case workload.Event:
			lines = append(lines, fmt.Sprintf("event %.1f: %s %s", s(v.At), v.ID, v.What))
		case Tick:
			lines = append(lines, fmt.Sprintf("tick %.1f", s(v.At)))
		default:
			t.Fatalf("a %T", rec)
		}
	}
	return lines
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("recorded\n%q\nwant\n%q", got, want)
	}
}

// What the attributor is fed with is what a recording has, and nothing of other nodes.
func TestRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := splitting(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		c.show(nil, used(workload.Node, 9*time.Second), used("a", time.Second))
		<-time.After(1500 * time.Millisecond)

		r := record(t, l)
		if r.Node.Name != "pi" || r.Start != time.Hour+1500*time.Millisecond || r.Interval != time.Second || r.Board.Classes[0].Cores != 4 {
			t.Errorf("recording %+v", r)
		}
		sink := l.Sink("bench")
		read := func(channel int, at time.Duration, e energy.Energy) {
			sink(channel, energy.Reading{Epoch: 7, At: at, Host: time.Now(), Energy: e})
		}
		read(5, 2*time.Second, 10*energy.Joule)
		read(5, time.Second, 9*energy.Joule)    // known already
		read(6, 2*time.Second, 99*energy.Joule) // another node's
		now := c.uptime()
		l.Activity(workload.Activity{ID: "a", At: now, Completed: 3})
		l.Activity(workload.Activity{ID: "stranger", At: now})
		l.Activity(workload.Activity{ID: "a", At: now - time.Second}) // of the time before
		l.Event(workload.Event{ID: "new", At: now, What: workload.Created})
		l.Event(workload.Event{ID: "stranger", At: now, What: workload.Ready})
		l.Event(workload.Event{ID: workload.Node, At: now, What: "regime:powersave"})
		c.show(nil, used(workload.Node, 11*time.Second), used("a", 2*time.Second), used("b", 0), used("new", 0))
		wantLines(t, next(t, r),
			"workload a: name of a", "reading 1.5: 7 2s 10.000 J", "activity 1.5: a 3", "workload new: name of new", "event 1.5: new created",
			"event 1.5: @node regime:powersave", "workload b: name of b", "sample 2.0: @node=11s a=2s b=0s new=0s[]", "tick 2.0")

		// What ended is forgotten; what is known by another name is told again. A sample stays as it was.
		c.show([]workload.ID{"b"}, used(workload.Node, 12*time.Second), used("a", 2*time.Second), used("b", time.Second))
		l.mu.Lock()
		l.own.attributor.cfg.Describe = func(workload.ID) workload.Workload { return workload.Workload{Kind: workload.Pod, Name: "x"} }
		l.mu.Unlock()
		l.Redescribe()
		got := next(t, r)
		wantLines(t, got, "workload a: x", "workload b: x", "sample 3.0: @node=12s a=2s b=1s[b]", "tick 3.0")
		c.show(nil, used(workload.Node, 13*time.Second), used("b", 0))
		wantLines(t, next(t, r), "workload b: x", "sample 4.0: @node=13s b=0s[]", "tick 4.0")

		// Where nothing can be read, time goes on.
		c.show(nil)
		wantLines(t, next(t, r), "tick 5.0")

		read(5, 3*time.Second, 12*energy.Joule)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		wantLines(t, next(t, r), "reading 5.0: 7 3s 12.000 J")
		for range 2 {
			if batch, err := r.Next(t.Context()); !errors.Is(err, ErrEnded) {
				t.Errorf("after the end: %v, %v", batch, err)
			}
		}
		if _, err := l.Record(); !errors.Is(err, ErrEnded) {
			t.Errorf("a recording after the end: %v", err)
		}
	})
}

// A sample that was being read when the recording began is not in it: its rows are older.
func TestRecordingBeginsWithAWholeSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := splitting(t)
		old := &workload.Sample{At: c.uptime(), Usage: []workload.Usage{{ID: workload.Node, At: c.uptime(), CPU: 1}}}
		<-time.After(time.Millisecond)
		r := record(t, l)
		defer r.Close()
		l.mu.Lock()
		l.recordSample(old)
		l.mu.Unlock()
		<-time.After(time.Millisecond)
		gone := workload.Usage{ID: "gone", At: old.At, CPU: 5}
		c.sample = workload.Sample{Usage: []workload.Usage{used(workload.Node, 2), gone}, Ended: []workload.ID{"gone"}}
		l.sample()
		wantLines(t, next(t, r), "workload gone: name of gone", "sample 0.0: @node=2ns gone=5ns[gone]", "tick 0.0")
	})
}

// A slow reader gets the oldest records whole and in order, then the error; others and the ledger go on.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := splitting(t)
		slow, quick := record(t, l), record(t, l)
		for i := range 99 {
			c.sample.Usage = append(c.sample.Usage, used(workload.ID(fmt.Sprintf("w%02d", i)), time.Second))
		}
		c.sample.Usage = append([]workload.Usage{used(workload.Node, time.Minute)}, c.sample.Usage...)
		ticks := 0
		for range 200 { // of 102 values
			<-time.After(time.Second)
			l.sample()
			ticks += len(next(t, quick))
		}
		if want := 200*2 + 99; ticks != want {
			t.Errorf("the quick one has %d records, want %d", ticks, want)
		}
		got := next(t, slow)
		// 99 descriptions and 79 times a sample of 101 values and a tick are 8,157 values; one more sample reaches 8,192.
		if len(got) != 99+79*2+1 || !strings.HasPrefix(got[99], "sample 1.0:") || !strings.HasPrefix(got[257], "sample 80.0:") {
			t.Errorf("the slow one has %d records, first sample %.20q, last %.20q", len(got), got[99], got[len(got)-1])
		}
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlowReader) {
			t.Errorf("after what was kept: %v", err)
		}
		if len(l.recordings) != 1 {
			t.Errorf("%d recordings go on, want the quick one", len(l.recordings))
		}
	})
}

// A sample that is larger than the limit alone can be recorded all the same.
func TestLargeSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := splitting(t)
		c.sample.Usage = []workload.Usage{used(workload.Node, time.Minute)}
		for i := range recordingLimit + 1 {
			c.sample.Usage = append(c.sample.Usage, workload.Usage{ID: workload.Node, Class: fmt.Sprint(i)})
		}
		r := record(t, l)
		l.sample()
		if batch, err := r.Next(t.Context()); err != nil || len(batch) != 2 || len(batch[0].(*workload.Sample).Usage) != recordingLimit+2 {
			t.Errorf("%d records, %v; want the sample and a tick", len(batch), err)
		}
		for range 4 {
			l.sample()
		}
		if len(r.queue) != 3 || !errors.Is(r.err, ErrSlowReader) {
			t.Errorf("%d records, %v; want a sample, its tick, one more sample, and the end", len(r.queue), r.err)
		}
	})
}

func TestRecordingsAreFew(t *testing.T) {
	l, _ := splitting(t)
	var rs []*Recording
	for range maxRecordings {
		rs = append(rs, record(t, l))
	}
	if _, err := l.Record(); !errors.Is(err, ErrRecordings) {
		t.Errorf("one more: %v", err)
	}
	rs[1].Close()
	rs[1].Close()
	record(t, l)
	if _, err := rs[1].Next(t.Context()); !errors.Is(err, ErrRecordingClosed) {
		t.Errorf("of one that was closed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rs[0].Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("of a reader that left: %v", err)
	}

	plain, err := New(config(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Record(); !errors.Is(err, ErrNotSplit) {
		t.Errorf("where nothing is split: %v", err)
	}
}

// Nobody records: nothing is allocated.
func TestNoRecordingCostsNothing(t *testing.T) {
	l, c := splitting(t)
	c.sample.Usage = []workload.Usage{used(workload.Node, time.Minute)}
	if n := testing.AllocsPerRun(100, func() {
		l.recordReading(energy.Reading{})
		l.recordActivity(workload.Activity{})
		l.recordEvent(workload.Event{})
		l.recordSample(&c.sample)
		l.recordTick()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
