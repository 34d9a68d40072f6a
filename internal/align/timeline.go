package align

import (
	"math/bits"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	// points is the length of a timeline's memory in readings: 51 s at 20 readings per second.
	points = 1024
	// maxStep is how far host time less meter time may move between two readings while it is the same pair of clocks, and
	// maxRate (1/5000, 200 ppm, two crystals at their worst) by how much more over the time between them.
	maxStep = time.Second
	maxRate = 5000
)

// Reading is a meter's running totals at one instant, on both clocks.
type Reading struct {
	// Epoch names one uninterrupted run of the meter's totals and clock, such as its boot id.
	Epoch uint64
	// At is the meter's clock, since the epoch's zero; Host is the host's monotonic clock at that instant.
	At, Host time.Duration
	// Energy and Unmeasured are totals since the epoch's zero: energy, and time in which the meter did not measure.
	Energy     energy.Energy
	Unmeasured time.Duration
}

// Span is what was measured between two edges.
type Span struct {
	// Start is the end of the span before.
	Start, End time.Duration
	Energy     energy.Energy
	// Unmeasured is the part of the span that no reading covers; Energy says nothing of it.
	Unmeasured time.Duration
	// Late is energy of time before Start that was given up as unmeasured, of which a reading told afterwards.
	Late energy.Energy
}

// Measured returns the part of the span that readings cover.
func (s Span) Measured() time.Duration { return s.End - s.Start - s.Unmeasured }

// Timeline puts the running totals of one node's meter onto the host's clock, over restarts of the meter, and cuts them at
// edges. What it has given for an edge never changes: each span starts at the total at which the last one ended, so that
// Energy and Late of all spans sum to the difference of the totals, to the microjoule, whatever the readings do in between.
// The zero value is ready.
type Timeline struct {
	ring [points]point // ascending in host time, oldest at head
	head int
	n    int
	// forgot is true once a point has been overwritten: the oldest is no longer the beginning.
	forgot bool

	epoch  uint64
	former [4]uint64 // epochs before, so that their late readings do not look like restarts
	run    uint32    // counts the stretches in which totals may be subtracted
	base   point     // what to add to the raw totals of this run

	edge  point // the last edge
	begun bool
	// open is true while the readings at the last edge had not come when it was given up.
	open bool

	count TimelineCount
}

// point is the total of energy and of unmeasured time since the timeline began.
type point struct {
	host, at time.Duration
	energy   energy.Energy
	gap      time.Duration
	run      uint32
}

// TimelineCount counts readings by what became of them.
type TimelineCount struct {
	// Taken includes Reordered, which came after a newer one; Duplicates and Late were of no use: already known, or of a time
	// that cannot be told any more.
	Taken, Reordered, Duplicates, Late uint64
	// Epochs are restarts of the meter after the first reading; Breaks are steps of its clock against the host's by more than a
	// second.
	Epochs, Breaks uint64
}

// Add takes in a reading, in any order, and returns false if it was of no use. The first reading is the timeline's beginning. A
// new epoch continues the total with what has grown since its zero; the time between is unmeasured.
func (t *Timeline) Add(r Reading) bool {
	if t.n == 0 {
		t.epoch = r.Epoch
		t.base = point{energy: -r.Energy, gap: -r.Unmeasured}
		t.push(t.point(r))
		if t.begun && t.edge.host < r.Host {
			t.edge, t.open = t.before(t.edge.host), false
		}
		t.count.Taken++
		return true
	}
	last := *t.newest()
	if r.Epoch != t.epoch {
		for i := range min(t.count.Epochs, uint64(len(t.former))) {
			if t.former[i] == r.Epoch {
				t.count.Late++
				return false
			}
		}
		t.former[t.count.Epochs%uint64(len(t.former))] = t.epoch
		t.count.Epochs++
		t.epoch = r.Epoch
		t.restart(r, last)
		t.count.Taken++
		return true
	}
	// How far the offset between the clocks has moved. A revised fit moves it by a fraction of a millisecond.
	step := (r.Host - last.host) - (r.At - last.at)
	most := maxStep + (r.At-last.at).Abs()/maxRate
	switch {
	case r.At < last.at && step > most: // set back to zero
		t.count.Breaks++
		t.restart(r, last)
	case r.At == last.at:
		t.count.Duplicates++
		return false
	case r.At < last.at:
		return t.insert(r)
	case step < -most: // earlier readings were mapped too late: this growth is of time already past
		t.count.Breaks++
		t.rebase(r, last)
	case step > most: // the meter's clock stood still, or earlier readings were mapped too early
		t.count.Breaks++
		t.run++
		t.base.gap += step
		t.push(t.point(r))
	default:
		t.push(t.point(r))
	}
	t.count.Taken++
	return true
}

// restart begins an epoch. It counts from its zero, unless that was well before the last reading of the epoch before: then
// it is another meter, and what it counted before was not this node's to count.
func (t *Timeline) restart(r Reading, last point) {
	zero := r.Host - r.At
	if r.At < 0 || zero < last.host-maxStep-r.At/maxRate {
		t.rebase(r, last)
		return
	}
	zero = max(zero, last.host)
	t.run++
	t.base = point{energy: last.energy, gap: last.gap + zero - last.host}
	if last.host < zero && zero < r.Host {
		t.push(point{host: zero, energy: t.base.energy, gap: t.base.gap, run: t.run})
	}
	t.push(t.point(r))
}

// rebase continues the total from a reading without the growth before it.
func (t *Timeline) rebase(r Reading, last point) {
	t.run++
	t.base = point{energy: last.energy - r.Energy, gap: last.gap + max(0, r.Host-last.host) - r.Unmeasured}
	t.push(t.point(r))
}

func (t *Timeline) point(r Reading) point {
	return point{r.Host, r.At, t.base.energy + r.Energy, t.base.gap + r.Unmeasured, t.run}
}

// push appends a point. Points that a revised clock has put before are removed, which costs resolution: the totals go on.
func (t *Timeline) push(p point) {
	for t.n > 0 && t.newest().host >= p.host {
		t.n--
	}
	t.makeRoom()
	t.n++
	*t.newest() = p
}

// insert sorts in a reading that came late, if it still tells anything.
func (t *Timeline) insert(r Reading) bool {
	p := t.point(r)
	i := t.n
	for i > 0 && t.get(i-1).run == t.run && t.get(i-1).at > p.at {
		i--
	}
	switch {
	case i > 0 && t.get(i-1).run == t.run && t.get(i-1).at == p.at:
		t.count.Duplicates++
		return false
	case i == 0, t.get(i-1).run != t.run, t.get(i-1).host >= p.host, t.get(i).host <= p.host:
		t.count.Late++
		return false
	}
	if t.n == points {
		i--
	}
	t.makeRoom()
	t.n++
	for j := t.n - 1; j > i; j-- {
		*t.get(j) = *t.get(j - 1)
	}
	*t.get(i) = p
	t.count.Taken++
	t.count.Reordered++
	return true
}

func (t *Timeline) makeRoom() {
	if t.n == points {
		t.head, t.n, t.forgot = (t.head+1)%points, t.n-1, true
	}
}

// Advance cuts at an edge on the host's clock and returns what was measured since the last edge; false, and nothing has changed,
// while no reading at or after the edge has come. The first edge gives an empty span. An edge that is not after the last one
// gives an empty span at the last one.
func (t *Timeline) Advance(edge time.Duration) (Span, bool) {
	if t.begun && edge <= t.edge.host {
		return Span{Start: t.edge.host, End: t.edge.host}, true
	}
	if t.n == 0 || t.newest().host < edge {
		return Span{}, false
	}
	return t.cut(edge), true
}

// GiveUp cuts at an edge without waiting for readings: what they have not covered yet is unmeasured, and stays so. If they
// come after all, their energy of that time is Late in the next span.
func (t *Timeline) GiveUp(edge time.Duration) Span {
	if t.begun && edge <= t.edge.host {
		return Span{Start: t.edge.host, End: t.edge.host}
	}
	return t.cut(edge)
}

func (t *Timeline) cut(edge time.Duration) Span {
	if !t.begun {
		t.begun = true
		switch {
		case t.n == 0:
			t.edge, t.open = point{host: edge}, true
		case edge <= t.newest().host:
			t.edge = t.at(edge)
		default:
			t.edge, t.open = *t.newest(), true
			t.edge.host = edge
		}
		return Span{Start: edge, End: edge}
	}
	s := Span{Start: t.edge.host, End: edge}
	if t.open && t.n > 0 && t.newest().host >= t.edge.host {
		known := t.at(t.edge.host)
		s.Late = known.energy - t.edge.energy
		t.edge, t.open = known, false
	}
	end, uncovered := t.edge, edge-t.edge.host
	if t.n > 0 && t.newest().host > t.edge.host {
		end, uncovered = *t.newest(), edge-t.newest().host
		if uncovered <= 0 {
			end, uncovered = t.after(t.edge, edge), 0
		}
	}
	s.Energy = end.energy - t.edge.energy
	s.Unmeasured = min(max(end.gap-t.edge.gap, 0), edge-uncovered-s.Start) + uncovered
	t.open = t.open || uncovered > 0
	end.host = edge
	t.edge = end
	return s
}

// At returns the total since the timeline began, interpolated at a time of the host's clock; false where no readings remain on
// both sides. It may change while readings are late or the clock's fit is revised, so accounts are kept by Advance.
func (t *Timeline) At(host time.Duration) (energy.Energy, bool) {
	if t.n == 0 || host < t.get(0).host || host > t.newest().host {
		return 0, false
	}
	return t.at(host).energy, true
}

// Newest returns the host's time of the newest reading; false before the first.
func (t *Timeline) Newest() (time.Duration, bool) {
	if t.n == 0 {
		return 0, false
	}
	return t.newest().host, true
}

// Next returns the time of the first reading after a time of the host's clock.
func (t *Timeline) Next(host time.Duration) (time.Duration, bool) {
	i := t.search(host)
	for i < t.n && t.get(i).host <= host {
		i++
	}
	if i >= t.n {
		return 0, false
	}
	return t.get(i).host, true
}

// Count returns what became of the readings so far.
func (t *Timeline) Count() TimelineCount { return t.count }

// sample fills dst with totals in µJ at from, from+step and so on, and returns the unmeasured time between first and last.
func (t *Timeline) sample(from, step time.Duration, dst []float64) (gap time.Duration, ok bool) {
	to := from + step*time.Duration(len(dst)-1)
	if t.n < 2 || from < t.get(0).host || to > t.newest().host {
		return 0, false
	}
	i := max(1, t.search(from))
	a, b := t.get(i-1), t.get(i)
	for k := range dst {
		at := from + step*time.Duration(k)
		for b.host < at {
			i++
			a, b = b, t.get(i)
		}
		dst[k] = float64(a.energy) + float64(b.energy-a.energy)*(float64(at-a.host)/float64(b.host-a.host))
	}
	return t.at(to).gap - t.at(from).gap, true
}

// at returns the totals at a time that is not after the newest point.
func (t *Timeline) at(host time.Duration) point {
	i := t.search(host)
	if i == 0 {
		return t.before(host)
	}
	return between(*t.get(i - 1), *t.get(i), host)
}

// before returns the totals at a time not after the oldest point: before the beginning nothing was measured; of time that was
// forgotten, it is only known where it ended up at the last edge.
func (t *Timeline) before(host time.Duration) point {
	p := *t.get(0)
	if t.forgot && host < p.host && t.begun && t.edge.host == host {
		return t.edge
	}
	p.gap -= p.host - host
	p.host = host
	return p
}

// after returns the totals at a time after a point that has been given, and not after the newest.
func (t *Timeline) after(given point, host time.Duration) point {
	i := t.search(host)
	if i > 0 && t.get(i-1).host > given.host {
		given = *t.get(i - 1)
	}
	return between(given, *t.get(i), host)
}

// search returns the index of the first point at or after a time.
func (t *Timeline) search(host time.Duration) int {
	lo, hi := 0, t.n
	for lo < hi {
		if m := (lo + hi) / 2; t.get(m).host < host {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

func (t *Timeline) get(i int) *point { return &t.ring[(t.head+i)%points] }
func (t *Timeline) newest() *point   { return t.get(t.n - 1) }

// between interpolates from a to b, of which b is later.
func between(a, b point, host time.Duration) point {
	num, den := uint64(host-a.host), uint64(b.host-a.host)
	a.energy += energy.Energy(scale(int64(b.energy-a.energy), num, den))
	a.gap += time.Duration(scale(int64(b.gap-a.gap), num, den))
	a.host = host
	return a
}

// scale returns v·num/den, rounded, for 0 ≤ num ≤ den: growth over days times nanoseconds needs more than 64 bits.
func scale(v int64, num, den uint64) int64 {
	if num >= den {
		return v
	}
	u := uint64(v)
	if v < 0 {
		u = -u
	}
	hi, lo := bits.Mul64(u, num)
	lo, carry := bits.Add64(lo, den/2, 0)
	q, _ := bits.Div64(hi+carry, lo, den)
	if v < 0 {
		q = -q
	}
	return int64(q)
}
