package legacymeter

import (
	"math/rand/v2"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	// reorderWindow is how late a datagram may be overtaken. It is also the least silence before asking again, which is
	// why a board that was asked again and is behind has started anew: a board forgets its streams when it starts, so one
	// that started is heard again only after a request, and nothing older than the window is still on its way then.
	reorderWindow = 10 * time.Second
	// bootSlack absorbs transport delays where a board's uptime is compared with the time since it was last heard.
	bootSlack = 2 * time.Second
	// rivals is how many messages in a row must contradict the present epoch, for a reorderWindow, to begin a new one
	// without a request in between. One such message is a torn read in the firmware, which copies its measurements between
	// two tasks without a lock, or comes from a stranger; a steady stream of them is the truth.
	rivals = 3
	// plausibleCurrent bounds the growth of the charge; the shunts of these boards measure 1.6 A.
	plausibleCurrent = 100 * energy.Ampere
	// resumeSlack and driftRate bound how far a board's clock may be from the host's wall clock over a restart of this
	// process: delays, and 100 parts per million of drift on both sides together.
	resumeSlack = 3 * time.Second
	driftRate   = 10_000
)

// verdict is what became of a message.
type verdict int

const (
	took    verdict = iota // it continues the epoch: a reading
	began                  // the first one: a reading
	renewed                // the board has started anew: a reading in a new epoch
	known                  // doubled, or overtaken by a newer one
	strange                // it contradicts the epoch
	blank                  // neither time nor charge: the board has not measured yet
)

// instant is a moment on both clocks of the host: the one that may stand still while the host is suspended, and the one
// that may be set.
type instant struct {
	mono time.Duration
	wall time.Time
}

// point is a message as a track remembers it.
type point struct {
	timed   bool          // it had a timestamp
	at      time.Duration // since the epoch's zero
	charge  energy.Charge
	arrived instant
}

// track turns the messages of one channel into readings. It has no clock and does no input or output.
type track struct {
	volts energy.Voltage
	// resume returns the last reading of an earlier process, or false.
	resume func() (energy.Reading, bool)

	// asked is when the board was last asked; again, if that was after the last message taken in.
	asked instant
	again bool

	epoch uint64 // zero before the first message
	last  point
	rival struct {
		point
		n     int
		since time.Duration
	}
	// Energy counts from here, so that another supply voltage after a restart values only what comes.
	baseEnergy energy.Energy
	baseCharge energy.Charge

	// zero is the arrival from which delays are counted and, without timestamps, the epoch's zero.
	zero instant
	// least is the smallest delay of an arrival behind its timestamp, up to a constant. Delays only ever make arrivals later,
	// so it shows the offset of the clocks; it rises by driftRate to follow them apart.
	least time.Duration
}

// request notes that the board was asked.
func (t *track) request(now instant) { t.asked, t.again = now, true }

// take judges a message that arrived at now and returns the reading it makes, if any.
func (t *track) take(m Message, now instant) (energy.Reading, verdict) {
	if m.TimestampUS == 0 && m.ChargeMAS == 0 {
		return energy.Reading{}, blank
	}
	p := point{timed: m.TimestampUS != 0, at: m.at(), charge: m.charge(), arrived: now}
	v := began
	if t.epoch != 0 {
		v = t.judge(&p)
	}
	if (v == known && p.at != t.last.at || v == strange) && t.confirms(p) {
		v = renewed
	}
	var before point
	switch v {
	case known, strange:
		return energy.Reading{}, v
	case began, renewed:
		t.begin(&p, v == began)
		t.least = t.delay(p)
	case took:
		before = t.last
		t.least = min(t.delay(p), t.least+(p.arrived.mono-before.arrived.mono)/driftRate)
	}
	p.charge = max(p.charge, t.last.charge) // within a torn read's error
	t.last, t.again, t.rival.n = p, false, 0
	return t.reading(m, before), v
}

// judge compares p with the last message; without timestamps it also sets p's time.
func (t *track) judge(p *point) verdict {
	silence := p.arrived.mono - t.last.arrived.mono
	// Let the later of the two clocks excuse a leap.
	delay := max(t.delay(*p), p.arrived.wall.Sub(t.zero.wall)-p.at)
	if p.timed != t.last.timed {
		if t.again {
			return renewed
		}
		return strange
	}
	if !p.timed {
		p.at = max(p.arrived.mono-t.zero.mono, t.last.at+time.Microsecond)
	}
	grown := p.at - t.last.at
	fell := p.charge < t.last.charge-torn(t.last.charge)
	leapt := p.charge-t.last.charge > energy.Charge((grown+time.Second).Seconds()*float64(plausibleCurrent))
	switch {
	case grown == 0:
		return known
	case grown < 0 && t.again, fell && t.again:
		return renewed
	case grown < 0:
		return known
	case fell, leapt:
		return strange
	case !p.timed:
		return took
	case t.again && p.at < silence+min(t.last.at/2, bootSlack):
		// Up for less time than it was silent: it has caught up with its former totals unheard.
		return renewed
	case delay < t.least-reorderWindow-silence/driftRate:
		return strange // said before its time
	}
	return took
}

// torn is the largest error of a double of about q whose halves are from before and after an update: the low half is worth
// less than 2^-20 of the whole.
func torn(q energy.Charge) energy.Charge { return q>>20 + 1 }

// confirms notes a message that contradicts the epoch and says whether there have been enough of them.
func (t *track) confirms(p point) bool {
	r := &t.rival
	waited := p.arrived.mono - r.arrived.mono
	follows := r.n > 0 && p.timed == r.timed && p.charge >= r.charge-torn(r.charge) &&
		(!p.timed || p.at >= r.at && p.at-r.at <= waited+reorderWindow)
	switch {
	case !follows:
		r.n, r.since = 1, p.arrived.mono
	case !p.timed || p.at > r.at:
		r.n++
	}
	r.point = p
	return r.n >= rivals && p.arrived.mono-r.since >= reorderWindow
}

// begin starts an epoch with p; the first of this process may continue that of an earlier one.
func (t *track) begin(p *point, first bool) {
	t.zero, t.last = p.arrived, point{}
	t.baseEnergy, t.baseCharge = 0, 0
	if !p.timed {
		// The mock server's totals begin at its answer to the request.
		t.zero = t.asked
		p.at = max(p.arrived.mono-t.asked.mono, time.Microsecond)
	}
	if first && t.resume != nil {
		if r, ok := t.resume(); ok && continues(*p, r) {
			t.epoch, t.last.charge = r.Epoch, r.Charge
			t.baseEnergy, t.baseCharge = r.Energy, r.Charge
			return
		}
	}
	for old := t.epoch; t.epoch == old || t.epoch == 0; {
		t.epoch = rand.Uint64()
	}
}

// continues says whether p is from the same run of the board as r, a reading of an earlier process: its clock advanced as
// the host's wall clock did, and its charge has not fallen.
func continues(p point, r energy.Reading) bool {
	elapsed := p.arrived.wall.Sub(r.Host.Round(0))
	grown := p.at - r.At
	return p.timed && r.Epoch != 0 && grown >= 0 && p.charge >= r.Charge-torn(r.Charge) &&
		(grown-elapsed).Abs() <= resumeSlack+elapsed.Abs()/driftRate
}

// reading is the last message as a reading; before is the one it follows, if any. The earlier firmware never reads the
// voltage, so Voltage stays zero, and its current is a single conversion's: means are taken from the totals instead, and
// only the first reading of an epoch, without an Interval, tells of the moment.
func (t *track) reading(m Message, before point) energy.Reading {
	p := t.last
	r := energy.Reading{
		Epoch: t.epoch, At: p.at, Host: p.arrived.wall.Add(t.least - t.delay(p)),
		Energy: t.baseEnergy + (p.charge - t.baseCharge).Times(t.volts), Charge: p.charge, Estimated: true,
		Current: m.current(), Power: energy.Power(energy.Charge(m.current()).Times(t.volts)), // µA·V = µW
	}
	if d := p.at - before.at; before.at != 0 {
		r.Interval = d
		r.Current = (p.charge - before.charge).Over(d)
		r.Power = (p.charge - before.charge).Times(t.volts).Over(d)
	}
	return r
}

// delay is how late p arrived, up to a constant.
func (t *track) delay(p point) time.Duration { return p.arrived.mono - t.zero.mono - p.at }
