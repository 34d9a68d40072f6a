package align_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/energy"
)

// delays are of a Wi-Fi link: a floor of 2 ms, a tail, and now and then a sleeping radio.
func wifi(rng *rand.Rand) time.Duration {
	d := 2*ms + time.Duration(rng.ExpFloat64()*float64(4*ms))
	if rng.IntN(20) == 0 {
		d += time.Duration(rng.Int64N(int64(300 * ms)))
	}
	return d
}

// Against a meter that drifts, mapped times are late by the least delay and little else.
func TestClockFollowsDrift(t *testing.T) {
	for _, ppm := range []float64{-80, 0, 30, 80} {
		rng := rand.New(rand.NewPCG(uint64(ppm+100), 1))
		var c align.Clock
		var worst, first time.Duration
		for host := time.Hour; host < time.Hour+10*time.Minute; host += 100 * ms {
			meter := time.Duration(float64(host-time.Hour) * (1 - ppm/1e6))
			got, ok := c.Map(1, host+wifi(rng), meter)
			if !ok {
				continue
			}
			if e := got - host; host > time.Hour+2*time.Minute {
				worst = max(worst, (e - 2*ms).Abs())
			} else {
				first = max(first, (e - 2*ms).Abs())
			}
		}
		offset, drift, ok := c.Offset()
		t.Logf("%v ppm: found %.1f, offset %v; worst error over the least delay %v, "+
			"%v in the first two minutes", ppm, drift, offset, worst, first)
		if !ok || drift < ppm-20 || drift > ppm+20 {
			t.Errorf("%v ppm: found %.1f, %v", ppm, drift, ok)
		}
		if worst > 2*ms || first > 10*ms {
			t.Errorf("%v ppm: off by %v, at first %v", ppm, worst, first)
		}
	}
}

// message is one of a meter that was zero at host time 1000 s; after is by how much it is late.
type message struct {
	epoch        uint64
	meter, after time.Duration
}

// every returns n messages at 100 ms from meter time from, all late by after.
func every(n int, epoch uint64, from, after time.Duration) (m []message) {
	for i := range n {
		m = append(m, message{epoch, from + time.Duration(i)*100*ms, after})
	}
	return m
}

func TestClockFailures(t *testing.T) {
	const (
		s    = time.Second
		zero = 1000 * s
	)
	steady := every(20, 1, 0, 3*ms) // settled after 1 s: 10 settling, 10 mapped
	for name, tc := range map[string]struct {
		messages []message
		want     align.ClockCount
		// late is by how much the last mapped time is, and not by how much its message was.
		late time.Duration
	}{
		"steady": {steady, align.ClockCount{Mapped: 10, Settling: 10}, 3 * ms},
		"a burst after a stall": { // 5 messages kept back, then read at once
			append(steady[:20:20], message{1, 2000 * ms, 403 * ms}, message{1, 2100 * ms, 303 * ms}, message{1, 2200 * ms, 203 * ms},
				message{1, 2300 * ms, 103 * ms}, message{1, 2400 * ms, 3 * ms}),
			align.ClockCount{Mapped: 15, Settling: 10}, 3 * ms},
		"duplicate and reorder": {
			append(steady[:20:20], message{1, 1900 * ms, 20 * ms}, message{1, 2100 * ms, 3 * ms}, message{1, 2000 * ms, 110 * ms}),
			align.ClockCount{Mapped: 12, Settling: 10, Duplicates: 1, Late: 1}, 3 * ms},
		"old messages in between": {
			append(append(steady[:20:20], every(10, 1, 2*s, 1500*ms)...), every(10, 1, 3*s, 3*ms)...),
			align.ClockCount{Mapped: 20, Settling: 10, Stale: 10}, 3 * ms},
		"a receive buffer read at once at the start": { // 50 old ones within no time, then live
			append(func() (m []message) {
				for i := range 50 {
					m = append(m, message{1, time.Duration(i) * s, time.Duration(60-i) * s})
				}
				return m
			}(), every(20, 1, 60*s, 3*ms)...),
			align.ClockCount{Mapped: 10, Settling: 60, Jumps: 50}, 3 * ms},
		"a receive buffer that stays 159.5 s behind, then does not": {
			append(every(167, 1, 0, 159500*ms), every(20, 1, 176200*ms, 3*ms)...),
			align.ClockCount{Mapped: 157 + 10, Settling: 20, Jumps: 1}, 3 * ms},
		"a new boot": {
			append(steady[:20:20], every(20, 2, 50*ms, 9*s)...), // whose zero is 9 s later
			align.ClockCount{Mapped: 20, Settling: 20, Epochs: 1}, 9 * s},
		"set back without a new boot": { // 5 s of nothing but stale messages, and one that begins the new envelope
			append(steady[:20:20], every(100, 1, 0, 9*s)...),
			align.ClockCount{Mapped: 10 + 40, Settling: 10 + 10, Stale: 50, Resets: 1}, 9 * s},
		"one message from the future": { // lost are 1 s of settling and 5 s until it is disbelieved
			append(append(steady[:20:20], message{1, 100 * s, -98 * s}), every(100, 1, 2100*ms, 3*ms)...),
			align.ClockCount{Mapped: 10 + 40, Settling: 10 + 1 + 10, Stale: 50, Jumps: 1, Resets: 1}, 3 * ms},
		"a path that became a little shorter": { // believed at once
			append(every(20, 1, 0, 23*ms), message{1, 1950 * ms, 3 * ms}), align.ClockCount{Mapped: 11, Settling: 10}, 3 * ms},
		"a path that became shorter": {
			append(every(20, 1, 0, 83*ms), every(20, 1, 2*s, 3*ms)...),
			align.ClockCount{Mapped: 20, Settling: 20, Jumps: 1}, 3 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			var c align.Clock
			var late time.Duration
			for _, m := range tc.messages {
				if host, ok := c.Map(m.epoch, zero+m.meter+m.after, m.meter); ok {
					late = host - zero - m.meter
				}
			}
			if got := c.Count(); got != tc.want {
				t.Errorf("%+v\nwant %+v", got, tc.want)
			}
			if late != tc.late {
				t.Errorf("late by %v, want %v", late, tc.late)
			}
		})
	}
}

// joules returns the energy of 1 W over d.
func joules(d time.Duration) energy.Energy { return energy.Energy(d / time.Microsecond) }

// What a stale buffer has put on the timeline is not counted again once the clock knows better.
func TestClockAndTimeline(t *testing.T) {
	var c align.Clock
	var tl align.Timeline
	take := func(meter, received time.Duration) {
		if host, ok := c.Map(1, received, meter); ok {
			tl.Add(align.Reading{Epoch: 1, At: meter, Host: host, Energy: 2 * joules(meter)})
		}
	}
	for _, m := range every(167, 1, 0, 159500*ms) {
		take(m.meter, 1000*time.Second+m.meter+m.after)
	}
	for _, m := range every(100, 1, 176200*ms, 3*ms) {
		take(m.meter, 1000*time.Second+m.meter+m.after)
	}
	end, ok := tl.Newest()
	e, _ := tl.At(end)
	// 15.6 s mapped late, then 8.9 s mapped right, at 2 W.
	if want := 2 * (joules(15600*ms) + joules(8900*ms)); !ok || e != want || tl.Count().Breaks != 1 {
		t.Errorf("%d µJ, %+v; want %d", e, tl.Count(), want)
	}
}

func FuzzClock(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 1, 200, 255, 3, 7, 0, 30})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c align.Clock
		var n uint64
		for ; len(b) >= 4; b = b[4:] {
			received, meter := time.Duration(b[0])<<(b[3]%56), time.Duration(int8(b[1]))<<(b[2]%56)
			host, ok := c.Map(uint64(b[3]>>6), received, meter)
			if ok && host > received+50*ms { // messages are late, never early; one that came out of order may be by the tolerance
				t.Fatalf("received at %v, mapped to %v", received, host)
			}
			n++
		}
		if got := c.Count(); got.Mapped+got.Settling+got.Stale+got.Duplicates != n {
			t.Errorf("%+v of %d", got, n)
		}
	})
}
