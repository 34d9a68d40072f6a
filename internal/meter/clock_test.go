package meter

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// path is a network with queues: 0.8 ms, an exponential tail of 1.5 ms, one in 20 plus 20 ms, one in 100 plus 100 ms.
func path(rng *rand.Rand) time.Duration {
	d := 800*time.Microsecond + time.Duration(rng.ExpFloat64()*1.5e6)
	switch p := rng.IntN(100); {
	case p == 0:
		d += 100 * time.Millisecond
	case p < 6:
		d += 20 * time.Millisecond
	}
	return d
}

// tell exchanges times every 10 s with a meter whose clock runs driftPPM fast and was zero at the host's zero.
func tell(c *clock, rng *rand.Rand, host time.Duration, zero time.Duration, driftPPM float64) {
	meterAt := func(h time.Duration) time.Duration {
		return time.Duration(float64(h-zero) * (1 + driftPPM/1e6))
	}
	sent := host
	there := sent + path(rng)
	left := there + 200*time.Microsecond
	c.add(exchange{hostSent: sent, hostReceived: left + path(rng), meterReceived: meterAt(there), meterSent: meterAt(left)})
}

func TestClockErrsLessThanAMillisecond(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	var errs []time.Duration
	for range 200 {
		var c clock
		const drift = 10
		zero := time.Duration(rng.Int64N(int64(1000 * time.Hour)))
		var now time.Duration
		for i := range 200 {
			now = zero + time.Duration(i+1)*10*time.Second
			tell(&c, rng, now, zero, drift)
		}
		m := time.Duration(float64(now-zero) * (1 + drift/1e6))
		errs = append(errs, max(c.host(m)-now, now-c.host(m)))
		if st := c.status(m); st.DriftPPM > -5 || st.DriftPPM < -15 || st.Bound > 2*time.Millisecond || st.Exchanges != clockWindow {
			t.Errorf("status %+v, want a drift of about -10 ppm", st)
		}
	}
	slices.Sort(errs)
	t.Logf("error: median %v, 95 %% %v, largest %v", errs[len(errs)/2], errs[len(errs)*95/100], errs[len(errs)-1])
	if p50, p95 := errs[len(errs)/2], errs[len(errs)*95/100]; p50 > 250*time.Microsecond || p95 > 700*time.Microsecond {
		t.Errorf("median error %v, 95 %% below %v", p50, p95)
	}
}

func TestClockFromFewExchanges(t *testing.T) {
	var c clock
	if c.status(0).Valid {
		t.Error("valid before the first exchange")
	}
	at := func(sent, there, back time.Duration) exchange {
		const zero = 5 * time.Hour // of the meter, on the host's clock
		return exchange{hostSent: sent, hostReceived: back, meterReceived: there - zero, meterSent: there - zero}
	}
	const s, ms = time.Second, time.Millisecond
	base := 6 * time.Hour
	c.add(at(base, base+30*ms, base+32*ms)) // slow on the way there: 14 ms wrong
	if got, want := c.host(time.Hour)-base, 14*ms; got != -want && got != want {
		t.Errorf("one exchange: %v", got)
	}
	c.add(at(base+s, base+s+ms, base+s+2*ms)) // quick and even
	c.add(at(base+2*s, base+2*s+ms, base+2*s+40*ms))
	if got := c.host(time.Hour); got != base {
		t.Errorf("the quickest of three is not the one that counts: %v off", got-base)
	}
	if st := c.status(time.Hour); st.Bound != ms || st.Offset != 5*time.Hour || st.Exchanges != 3 {
		t.Errorf("status %+v", st)
	}
	c.add(exchange{hostSent: 10, hostReceived: 5}) // before it was sent
	c.add(exchange{hostSent: 0, hostReceived: 10, meterReceived: 0, meterSent: 20})
	if len(c.points) != 3 {
		t.Error("an impossible exchange was taken in")
	}
}

// A host that slept between exchanges with a clock that did not run would look like a huge drift: the line starts again.
func TestClockStartsAgainAfterAJump(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var c clock
	for i := range 30 {
		tell(&c, rng, time.Duration(i+1)*10*time.Second, 0, 0)
	}
	const jump = time.Minute
	for i := range 10 {
		tell(&c, rng, time.Duration(i+31)*10*time.Second, -jump, 0)
	}
	m := 40*10*time.Second + jump
	if err := c.host(m) - 400*time.Second; err > 30*time.Millisecond || err < -30*time.Millisecond {
		t.Errorf("%v off after a jump", err)
	}
}

// At first exchanges are close together, and a line through them is as steep as their paths differ. The quickest counts then, and one
// that was answered after a repetition, a second late, changes nothing.
func TestClockFromManyQuickExchanges(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var c clock
		best := time.Hour
		for i := range 40 {
			sent := 100*time.Millisecond*time.Duration(i) + time.Second
			there := sent + time.Millisecond + time.Duration(rng.Int64N(4e6))
			back := there + time.Millisecond + time.Duration(rng.Int64N(4e6))
			if rng.IntN(4) == 0 {
				there += time.Duration(rng.Int64N(3)) * time.Second
				back = there + 3*time.Millisecond
			}
			e := exchange{hostSent: sent, hostReceived: back, meterReceived: there, meterSent: there}
			best = min(best, e.roundTrip())
			c.add(e)
			m := there + time.Second
			if err := c.host(m) - m; max(err, -err) > best/2+time.Millisecond {
				t.Fatalf("seed %d, exchange %d: %v off, the quickest round trip took %v", seed, i, err, best)
			}
		}
	}
}

// Clocks that run apart faster than crystals do are followed, and told of.
func TestClockOfASteepDrift(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var c clock
	const drift = 400
	var now time.Duration
	for i := range 100 {
		now = time.Duration(i+1) * 10 * time.Second
		tell(&c, rng, now, 0, drift)
	}
	m := time.Duration(float64(now) * (1 + drift/1e6))
	if st := c.status(m); st.DriftPPM > -350 || st.DriftPPM < -450 {
		t.Errorf("%+v, want a drift of about -400 ppm", st)
	}
	if err := c.host(m) - now; max(err, -err) > 5*time.Millisecond {
		t.Errorf("%v off", err)
	}
}
