package boardsim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Recorder takes a trace. All instants are since the recording began; Power's at is on the meter's own clock.
type Recorder interface {
	// Workload comes before the first sample that has the workload.
	Workload(workload.Workload) error
	Power(received time.Duration, epoch uint64, at time.Duration, e energy.Energy) error
	// Usage may keep nothing of the sample.
	Usage(*workload.Sample) error
	Activity(workload.Activity) error
	Event(workload.Event) error
}

// Meter is how the recorded meter sees the board. The zero value is a perfect one that reports every tick.
type Meter struct {
	// Period is the time between readings; the tick if zero.
	Period time.Duration
	// Lag is by how much the sensor's power trails the true one, Box the length of the sensor's running mean: together the
	// power is late by Lag + Box/2.
	Lag, Box time.Duration
	// Noise is white, in watts rms of a reading's mean power; Gain 0.01 reads one percent too much.
	Noise, Gain float64
	// Lost is the share of readings that never arrive. Running totals lose no energy by it.
	Lost float64
	// Delay is the least time from reading to arrival, Jitter the mean of an exponential addition.
	Delay, Jitter time.Duration
	// Clock is what the meter's clock shows when the recording begins, DriftPPM how much faster it is.
	Clock    time.Duration
	DriftPPM float64
	// Epoch is the meter's boot; 1 if zero.
	Epoch uint64
}

// RecordOptions say how a trace is recorded.
type RecordOptions struct {
	// Tick is the time between samples of the kernel's counters, 50 ms to 1 s; 100 ms if zero.
	Tick  time.Duration
	Meter Meter
	// Truth, if not nil, is told the truth at the beginning, after the first tick that ends TruthEvery later, and so on, with
	// the instant in the recording. TruthEvery is every tick if zero.
	Truth      func(at time.Duration, t Truth)
	TruthEvery time.Duration
}

// Record simulates the board for d, from where it is, and records what an agent on it would have seen. It blocks all other
// use of the board meanwhile, and ends at the recorder's first error. A sensor that lags has seen nothing from before the board
// was switched on: advance the board first for a recording from the middle of its life.
func (b *Board) Record(rec Recorder, d time.Duration, o RecordOptions) error {
	if o.Tick == 0 {
		o.Tick = 100 * time.Millisecond
	}
	m := &o.Meter
	if m.Period == 0 {
		m.Period = o.Tick
	}
	if o.Tick < 50*time.Millisecond || o.Tick > time.Second || m.Period < b.step {
		return fmt.Errorf("record board %s: tick %v must be 50 ms to 1 s, and the meter's period %v at least %v", b.name, o.Tick, m.Period, b.step)
	}
	if m.Lag < 0 || m.Box < 0 || m.Lag+m.Box > 10*time.Second || m.Lost < 0 || m.Lost >= 1 {
		return fmt.Errorf("record board %s: lag and box must be 0 to 10 s together, losses 0 to less than 1", b.name)
	}
	m.Epoch = max(1, m.Epoch)
	b.mu.Lock()
	defer b.mu.Unlock()
	r := recording{
		b: b, rec: rec, o: o, zero: b.now, known: map[workload.ID]bool{}, told: map[workload.ID]workload.Activity{},
		chance: b.source("meter"), gone: len(b.gone),
	}
	b.events = nil
	r.began = r.seen(0)
	if err := r.power(0); err != nil {
		return err
	}
	if err := r.tick(); err != nil {
		return err
	}
	reading := m.Period
	for t := o.Tick; t <= d; t += o.Tick {
		for ; reading <= t; reading += m.Period {
			b.advance(r.zero + reading)
			if err := r.power(reading); err != nil {
				return err
			}
		}
		b.advance(r.zero + t)
		if err := r.tick(); err != nil {
			return err
		}
	}
	return nil
}

// recording is the state of a Record.
type recording struct {
	b             *Board
	rec           Recorder
	o             RecordOptions
	zero          time.Duration
	known         map[workload.ID]bool
	told          map[workload.ID]workload.Activity
	chance        *rand.Rand
	gone          int
	began         float64 // what the sensor had seen at zero
	noise, before float64
	arrived       time.Duration
	truth         time.Duration // when it is told next
	sample        workload.Sample
	activity      []workload.Activity
}

// seen is the energy that the sensor has seen at an instant of the recording: the integral of its lagging running mean.
func (r *recording) seen(at time.Duration) float64 {
	m := &r.o.Meter
	h, t := &r.b.history, r.zero+at-m.Lag
	if m.Box == 0 {
		return h.at(t)
	}
	const parts = 20 // trapezoids: the integral of a power that stepped once within the box errs by less than 0.1 % of the box
	e := (h.at(t) + h.at(t-m.Box)) / 2
	for i := 1; i < parts; i++ {
		e += h.at(t - m.Box*time.Duration(i)/parts)
	}
	return e / parts
}

// power records a reading.
func (r *recording) power(at time.Duration) error {
	m := &r.o.Meter
	if at > 0 {
		r.noise += m.Noise * m.Period.Seconds() * r.chance.NormFloat64()
	}
	total := max((1+m.Gain)*(r.seen(at)-r.began)+r.noise, r.before) // a meter's total in a trace never falls
	r.before = total
	jitter := time.Duration(r.chance.ExpFloat64() * float64(m.Jitter))
	if r.chance.Float64() < m.Lost {
		return nil
	}
	r.arrived = max(r.arrived, at+m.Delay+jitter)
	clock := m.Clock + at + time.Duration(float64(at)*m.DriftPPM*1e-6)
	return r.rec.Power(r.arrived, m.Epoch, clock, energy.Energy(math.Round(total*float64(energy.Joule))))
}

// tick records events, the kernel's counters, and the activity that has changed, or was last told a second ago.
func (r *recording) tick() error {
	b := r.b
	ended := b.gone[r.gone:]
	r.gone = len(b.gone)
	for _, list := range [][]*work{b.works, ended} {
		for _, w := range list {
			if w == b.kernel || r.known[w.info.ID] {
				continue
			}
			r.known[w.info.ID] = true
			if err := r.rec.Workload(w.info); err != nil {
				return err
			}
		}
	}
	for _, e := range b.events {
		e.At -= r.zero
		if err := r.rec.Event(e); err != nil {
			return err
		}
	}
	b.events = b.events[:0]
	if at := b.now - r.zero; r.o.Truth != nil && at >= r.truth {
		r.o.Truth(at, b.truth())
		r.truth += max(r.o.TruthEvery, 1)
	}
	b.sample(&r.sample, ended)
	r.sample.At -= r.zero
	for i := range r.sample.Usage {
		r.sample.Usage[i].At -= r.zero
	}
	for i := range r.sample.Frequency {
		r.sample.Frequency[i].At -= r.zero
	}
	if err := r.rec.Usage(&r.sample); err != nil {
		return err
	}
	r.activity = b.activity(r.activity[:0])
	for _, a := range r.activity {
		a.At -= r.zero
		last, ok := r.told[a.ID]
		if ok && last.InFlight == a.InFlight && last.Started == a.Started && last.Completed == a.Completed && a.At-last.At < time.Second {
			continue
		}
		r.told[a.ID] = a
		if err := r.rec.Activity(a); err != nil {
			return err
		}
	}
	for _, w := range ended {
		delete(r.told, w.info.ID)
	}
	return nil
}
