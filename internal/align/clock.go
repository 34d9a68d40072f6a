// Package align brings a meter's running totals onto the host's monotonic clock and finds how late measured power is against
// the CPU counters. Totals are interpolated, never samples shifted: a lost message costs resolution, and no energy. It is pure:
// readings and ticks go in with their times, so that live and replayed input take the same path.
package align

import (
	"math"
	"time"
)

const (
	clockWindow = 60                    // seconds of the envelope, one minimum each
	maxDrift    = 100e-6                // crystals keep within ±100 ppm; a steeper line is queueing
	clockJump   = 50 * time.Millisecond // below the envelope by more: what made the envelope was itself late
	clockStale  = time.Second           // above the envelope by more: an old message, or a clock that was reset
	settleTime  = time.Second           // for which a new envelope must hold before anything is mapped by it
	settleCount = 3
	giveUpTime  = 5 * time.Second // of nothing but stale messages: it was a reset
)

// Clock maps a meter's clock to the host's where only the arrival of messages is known. The offset is the lower envelope of
// (received - meter) over 60 s: messages are delayed by queues, never hurried. Its slope is the drift; it is the edge of the
// lower convex hull above the window's middle (Zhang, Liu, Xia: Clock Synchronization Algorithms for Network Measurements,
// INFOCOM 2002). The zero value is ready.
type Clock struct {
	epoch   uint64
	started bool
	count   ClockCount

	bins [clockWindow]arrival // ring of per-second minima, oldest at head
	head int
	n    int

	// The line: offset at meter time origin, and its slope.
	origin, offset time.Duration
	drift          float64

	newest  time.Duration // largest meter time seen
	since   time.Duration // received time at which the envelope was started
	taken   int           // messages since
	stale   bool          // the last message was
	staleAt time.Duration // received time of the first of them
}

type arrival struct{ meter, offset time.Duration }

// ClockCount counts messages by what a Clock made of them.
type ClockCount struct {
	// Mapped were given a host time. Settling, Stale and Duplicates were not: they came before the envelope had held for a
	// second, more than a second above it, or twice.
	Mapped, Settling, Stale, Duplicates uint64
	// Late came after a newer one, and were mapped.
	Late uint64
	// Jumps are messages more than 50 ms below the envelope, Resets clocks that were set back without a new epoch, Epochs the
	// new epochs; each starts a new envelope.
	Jumps, Resets, Epochs uint64
}

// Map takes a message that carries the meter's time, received at a time of the host's monotonic clock, and returns the host's
// time at that meter time. It returns false for a message that must not be used. Messages of one epoch, the meter's boot id,
// share one meter clock.
func (c *Clock) Map(epoch uint64, received, meter time.Duration) (time.Duration, bool) {
	o := received - meter
	if !c.started || epoch != c.epoch {
		if c.started {
			c.count.Epochs++
		}
		c.started, c.epoch = true, epoch
		c.restart(received, meter)
		return 0, false
	}
	above := o - c.at(meter)
	switch {
	case above > clockStale:
		if !c.stale {
			c.stale, c.staleAt = true, received
		}
		if received-c.staleAt < giveUpTime {
			c.count.Stale++
			return 0, false
		}
		c.count.Resets++
		c.restart(received, meter)
		return 0, false
	case above < -clockJump:
		c.count.Jumps++
		c.restart(received, meter)
		return 0, false
	case meter == c.newest:
		c.count.Duplicates++
		return 0, false
	case meter < c.newest:
		c.count.Late++
	}
	c.stale = false
	c.taken++
	c.add(meter, o)
	if received-c.since < settleTime || c.taken < settleCount {
		c.count.Settling++
		return 0, false
	}
	c.count.Mapped++
	return meter + c.at(meter), true
}

// Offset returns host time less meter time at the newest message, and the drift, positive if the meter runs slow, in parts per
// million; false before an envelope has settled.
func (c *Clock) Offset() (offset time.Duration, driftPPM float64, ok bool) {
	return c.at(c.newest), c.drift * 1e6, c.started && c.taken >= settleCount
}

// Count returns what became of the messages so far.
func (c *Clock) Count() ClockCount { return c.count }

func (c *Clock) at(meter time.Duration) time.Duration {
	return c.offset + time.Duration(math.Round(c.drift*float64(meter-c.origin)))
}

// restart begins a new envelope with one message, which is not used: whether it was late shows only later.
func (c *Clock) restart(received, meter time.Duration) {
	c.count.Settling++
	c.head, c.n, c.drift = 0, 0, 0
	c.newest, c.since, c.taken, c.stale = meter, received, 1, false
	c.origin, c.offset = meter, received-meter
	c.bins[0], c.n = arrival{meter, received - meter}, 1
}

// add takes one message into the envelope.
func (c *Clock) add(meter, o time.Duration) {
	last := &c.bins[(c.head+c.n-1)%clockWindow]
	roll := false
	switch {
	case meter < c.newest: // its second may be gone; that it came late says it is not the quickest
		return
	case meter/time.Second == last.meter/time.Second:
		if o < last.offset {
			*last = arrival{meter, o}
		}
	default:
		if c.n == clockWindow {
			c.head = (c.head + 1) % clockWindow
			c.n--
		}
		c.bins[(c.head+c.n)%clockWindow] = arrival{meter, o}
		c.n++
		roll = true
	}
	c.newest = meter
	for c.n > 1 && meter-c.bins[c.head].meter > clockWindow*time.Second { // after a silence
		c.head = (c.head + 1) % clockWindow
		c.n--
	}
	if roll {
		c.fit()
	} else if below := c.at(meter) - o; below > 0 {
		c.offset -= below
	}
}

// fit draws the line: the supporting line of the minima with the least mean distance from them, its slope bounded.
func (c *Clock) fit() {
	p := func(i int) arrival { return c.bins[(c.head+i)%clockWindow] }
	var hull [clockWindow]arrival
	n, mean := 0, 0.0
	first := p(0)
	for i := range c.n {
		q := p(i)
		mean += float64(q.meter-first.meter) / float64(c.n)
		for n >= 2 && slope(hull[n-2], hull[n-1]) >= slope(hull[n-1], q) {
			n--
		}
		hull[n] = q
		n++
	}
	// The hull's edge above the mean abscissa minimizes the sum of distances.
	c.drift = 0
	for i := 1; i < n; i++ {
		if float64(hull[i].meter-first.meter) >= mean {
			c.drift = min(max(slope(hull[i-1], hull[i]), -maxDrift), maxDrift)
			break
		}
	}
	// In the first seconds a slope is nothing but jitter.
	if p(c.n-1).meter-first.meter < clockWindow*time.Second/4 {
		c.drift = 0
	}
	c.origin, c.offset = first.meter, first.offset
	var low time.Duration
	for i := range n {
		low = min(low, hull[i].offset-c.at(hull[i].meter))
	}
	c.offset += low
}

func slope(a, b arrival) float64 { return float64(b.offset-a.offset) / float64(b.meter-a.meter) }
