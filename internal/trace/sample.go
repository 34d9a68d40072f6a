package trace

import (
	"cmp"
	"math"
	"slices"

	"github.com/wattlet/wattlet/internal/workload"
)

// grouper puts the rows of cpu.csv and frequency.csv together to samples.
type grouper struct {
	cpu, freq *cursor
	pending   []pending // rows of the sample that is being read, and of the next
	seq       int64     // number of pending's last row
	n         int64     // number of the present sample
	members   []int     // workloads in it
	before    []int     // workloads in the one before
}

// pending is a row of cpu.csv.
type pending struct {
	workload, class int
	at, sum         int64 // µs
}

// NextGrouped is Next, but for the rows of cpu.csv and frequency.csv: those of one reading of the kernel's counters come
// together as one SampleRow, at the time of its last row. A Reader serves either Next or NextGrouped, not both.
//
// Recorders stamp each counter with its own time, or all of a sample with one; both can be told apart without knowing the
// interval. A sample ends, at the latest, before a row whose workload and class it already has. Of the rows since that
// workload's last, the one before which most time passed is then the first of the next sample: workloads that are new need not come
// in any order, as long as a sample takes less time than passes between two. This asks for a counter that is in every
// sample, which Node's is. Frequencies belong to the sample they are nearest to; of several values the last counts.
//
// A workload that is in one sample and not in the next has ended: it is in the next one's Ended, and in its Usage with the last
// row it had.
func (r *Reader) NextGrouped() (*Record, error) {
	if r.err != nil || r.group != nil {
		return r.Next()
	}
	r.group = &grouper{}
	sample := &cursor{row: SampleRow, rec: Record{Row: SampleRow}}
	// The sample's place in the order is that of the rows it is made of.
	var cursors []*cursor
	for _, c := range r.cursors {
		switch c.row {
		case FrequencyRow:
			r.group.freq = c
		case UsageRow:
			r.group.cpu = c
			cursors = append(cursors, sample)
		default:
			cursors = append(cursors, c)
		}
	}
	r.cursors = cursors
	if r.group.cpu != nil {
		if r.err = r.nextSample(sample); r.err != nil {
			return nil, r.err
		}
	}
	return r.Next()
}

// nextSample makes the next sample in c's record.
func (r *Reader) nextSample(c *cursor) error {
	g := r.group
	n, limit, err := r.sampleRows(g)
	if err != nil {
		return err
	}
	if n == 0 {
		r.leave(c)
		return nil
	}
	g.n++
	g.members, g.before = g.before[:0], g.members
	s := &c.rec.Sample
	s.Usage, s.Ended, s.Frequency = s.Usage[:0], s.Ended[:0], s.Frequency[:0]
	for _, p := range g.pending[:n] {
		k := &r.known[p.workload]
		u := &k.use[p.class]
		u.given, u.givenAt, u.givenSum = true, p.at, p.sum
		s.Usage = append(s.Usage, r.usage(k, p.class))
		if k.sample != g.n {
			k.sample = g.n
			g.members = append(g.members, p.workload)
		}
	}
	c.at = g.pending[n-1].at
	g.pending = slices.Delete(g.pending, 0, n)

	for _, i := range g.before {
		k := &r.known[i]
		if k.sample == g.n || i == 0 {
			continue // Node does not end
		}
		s.Ended = append(s.Ended, k.id)
		for class := range k.use {
			if k.use[class].given {
				s.Usage = append(s.Usage, r.usage(k, class))
			}
		}
	}
	slices.Sort(s.Ended)
	if !slices.IsSortedFunc(s.Usage, byWorkload) {
		slices.SortFunc(s.Usage, byWorkload)
	}

	for f := g.freq; f != nil && !f.done && f.at <= limit; {
		u := f.current
		if u.sample != g.n {
			u.sample, u.seq = g.n, int64(len(s.Frequency))
			s.Frequency = append(s.Frequency, workload.Frequency{})
		}
		s.Frequency[u.seq] = f.rec.Frequency
		c.at = max(c.at, f.at)
		if err := r.advance(f); err != nil {
			return err
		}
	}
	if !slices.IsSortedFunc(s.Frequency, byFrequency) {
		slices.SortFunc(s.Frequency, byFrequency)
	}
	s.At = micros(c.at)
	return nil
}

// sampleRows reads until it is known how many of the pending rows are the next sample, and up to when frequencies are its.
func (r *Reader) sampleRows(g *grouper) (n int, limit int64, err error) {
	for !g.cpu.done {
		u := &r.known[g.cpu.workload].use[g.cpu.class]
		if again := len(g.pending) - 1 - int(g.seq-u.seq); u.seq > 0 && again >= 0 {
			at := func(i int) int64 {
				if i < len(g.pending) {
					return g.pending[i].at
				}
				return g.cpu.at
			}
			n = again + 1
			for i := n; i <= len(g.pending); i++ {
				if at(i)-at(i-1) >= at(n)-at(n-1) {
					n = i
				}
			}
			return n, at(n-1) + (at(n)-at(n-1))/2, nil
		}
		g.seq++
		u.seq = g.seq
		g.pending = append(g.pending, pending{g.cpu.workload, g.cpu.class, u.at, u.sum})
		if err := r.advance(g.cpu); err != nil {
			return 0, 0, err
		}
	}
	return len(g.pending), math.MaxInt64, nil
}

// usage returns the last row of a class that was given out.
func (r *Reader) usage(k *known, class int) workload.Usage {
	u := &k.use[class]
	return workload.Usage{ID: k.id, Class: r.classes[class], At: micros(u.givenAt), CPU: micros(u.givenSum)}
}

func byWorkload(a, b workload.Usage) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Class, b.Class))
}

func byFrequency(a, b workload.Frequency) int {
	return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.KHz, b.KHz))
}
