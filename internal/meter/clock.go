package meter

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	// clockWindow exchanges are kept; the lowest quarter of them by round trip makes the fit.
	clockWindow = 60
	// clockEnough exchanges make a line; below, the one with the lowest round trip stands alone.
	clockEnough = 8
	// clockSettled exchanges end the quick start.
	clockSettled = 16
	// maxDriftPPM: crystals are within ±100 ppm, so what is steeper is the noise of exchanges that are close together, or a fault.
	maxDriftPPM = 100
	// jumpPPM is more than any clock drifts: what is steeper is a jump, as of a host that was suspended.
	jumpPPM = 1000
)

// exchange is one round trip to /time: the instants of sending and receiving on the host's clock, of receiving and
// sending on the meter's.
type exchange struct {
	hostSent, hostReceived   time.Duration
	meterReceived, meterSent time.Duration
}

// roundTrip is the time on the path alone.
func (e exchange) roundTrip() time.Duration {
	return (e.hostReceived - e.hostSent) - (e.meterSent - e.meterReceived)
}

// offset is host time less meter time, right if both ways take equally long (RFC 5905 section 8, with the sign of a
// client that asks for its own time).
func (e exchange) offset() time.Duration {
	return ((e.hostSent - e.meterReceived) + (e.hostReceived - e.meterSent)) / 2
}

// clock maps the meter's clock to the host's: a least-squares line of offset over meter time through the exchanges with
// the lowest round trips. Queueing only ever lengthens a path, so the quickest exchanges are the truest; the line takes
// out the skew of the two crystals that a single exchange would age by. It is valid for one boot of the meter.
type clock struct {
	boot   uint32
	points []exchange

	valid  bool
	offset time.Duration // at meter time origin
	origin time.Duration
	drift  float64 // change of offset per meter time
	bound  time.Duration
}

// of makes the clock that of a boot: exchanges with another one are forgotten.
func (c *clock) of(boot uint32) *clock {
	if c.boot != boot {
		*c = clock{boot: boot, points: c.points[:0]}
	}
	return c
}

// settled says that the quick start is over.
func (c *clock) settled() bool { return len(c.points) >= clockSettled }

// add takes in an exchange. It refuses those that cannot be. After a jump of a clock those before count no more.
func (c *clock) add(e exchange) {
	if e.roundTrip() < 0 || e.hostReceived < e.hostSent {
		return
	}
	if c.contradicts(e) {
		c.points = c.points[:0]
	}
	if len(c.points) == clockWindow {
		c.points = slices.Delete(c.points, 0, 1)
	}
	c.points = append(c.points, e)
	c.fit()
}

// contradicts says whether an exchange's offset and that of another differ by more than half their round trips, which is the most that each
// can err by, and what clocks may drift in between.
func (c *clock) contradicts(e exchange) bool {
	return slices.ContainsFunc(c.points, func(p exchange) bool {
		drift := jumpPPM / 1e6 * math.Abs(float64(e.meterSent-p.meterSent))
		return math.Abs(float64(e.offset()-p.offset())) > float64(e.roundTrip()+p.roundTrip())/2+drift
	})
}

func byRoundTrip(a, b exchange) int { return cmp.Compare(a.roundTrip(), b.roundTrip()) }

func (c *clock) fit() {
	byTrip := slices.Clone(c.points)
	slices.SortFunc(byTrip, byRoundTrip)
	c.valid, c.bound = true, byTrip[0].roundTrip()/2
	c.origin, c.offset, c.drift = byTrip[0].meterSent, byTrip[0].offset(), 0
	if len(byTrip) < clockEnough {
		return
	}
	best := byTrip[:max(len(byTrip)/4, 2)]
	var mx, my float64
	for _, e := range best {
		mx += float64(e.meterSent-c.origin) / float64(len(best))
		my += float64(e.offset()-c.offset) / float64(len(best))
	}
	var sxx, sxy float64
	first, last := best[0].meterSent, best[0].meterSent
	for _, e := range best {
		dx := float64(e.meterSent-c.origin) - mx
		sxx += dx * dx
		sxy += dx * (float64(e.offset()-c.offset) - my)
		first, last = min(first, e.meterSent), max(last, e.meterSent)
	}
	if sxx == 0 {
		return
	}
	drift := sxy / sxx
	// Steeper than crystals are, and no more than what paths alone can make it: the quickest stands alone.
	if math.Abs(drift)*1e6 > maxDriftPPM && math.Abs(drift)*float64(last-first) <= float64(best[len(best)-1].roundTrip()) {
		return
	}
	c.drift = drift
	c.offset += time.Duration(math.Round(my - c.drift*mx))
}

// host returns the host's time at the meter's time m; only if the clock is valid.
func (c *clock) host(m time.Duration) time.Duration {
	return m + c.offset + time.Duration(math.Round(c.drift*float64(m-c.origin)))
}

// status describes the fit at the meter's time m.
func (c *clock) status(m time.Duration) energy.Clock {
	if !c.valid {
		return energy.Clock{}
	}
	return energy.Clock{
		Valid: true, Offset: c.host(m) - m, DriftPPM: c.drift * 1e6, Bound: c.bound, Exchanges: len(c.points),
	}
}
