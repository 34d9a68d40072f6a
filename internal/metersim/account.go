package metersim

import (
	"math"
	"math/bits"

	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// account is what the meter holds of one channel. Energy and charge are kept as the firmware keeps them: sums of products of
// counts and microseconds, carried into nanojoules and nanocoulombs before they can overflow, with the remainder of the
// division kept, so that no rounding adds up however long the meter runs.
type account struct {
	// The channel's constants: shunt in micro-ohm, gain as parts per million of 1, offset in nanovolts.
	shunt  int64
	gain   uint64
	offset int64

	// Since the last carry: sums of shunt·bus·Δt, shunt·Δt, bus·Δt in counts and microseconds, and of Δt.
	shuntBus, shuntT, busT, t int64
	// Since boot; the remainders are in the units that carry divides.
	nJ, nC       int64
	remE, remQ   int64
	unmeasuredUs uint64
	saturated    uint64
	errors       uint64

	// ideal replaces the sums of counts by exact ones, in joules and coulombs.
	ideal          bool
	exactE, exactQ exact

	// The interval since the last report, and the totals at its start.
	interval         interval
	startNJ, startNC int64
}

// interval is what a report says beside totals: sums and extremes since the report before.
type interval struct {
	us                     int64
	uvT                    float64 // voltage times time, µV·µs
	minP, maxP, minV, maxV float64 // µW, µV
}

func newAccount(c Channel) account {
	return account{
		shunt: int64(c.ShuntUohm), gain: uint64(1_000_000 + int64(c.GainPPM)), offset: int64(c.OffsetNV), ideal: c.Ideal,
		interval: newInterval(),
	}
}

func newInterval() interval {
	return interval{minP: math.Inf(1), maxP: math.Inf(-1), minV: math.Inf(1), maxV: math.Inf(-1)}
}

// add takes in a reading that stands for dt microseconds.
func (a *account) add(shunt, bus int32, dt int64) {
	s, b := int64(shunt), int64(bus)
	if s >= fullScale || s <= -fullScale {
		a.saturated++
	}
	a.shuntBus += s * b * dt
	a.shuntT += s * dt
	a.busT += b * dt
	a.t += dt
	uv := float64(b * countUV)
	nA := float64(s*countNV-a.offset) * float64(a.gain) / float64(a.shunt)
	a.interval.add(nA*uv/1e9, uv, dt)
}

// addExact takes in what a perfect sensor saw in dt microseconds of the meter's clock.
func (a *account) addExact(joules, coulombs, watts, volts float64, dt int64) {
	a.exactE.add(joules)
	a.exactQ.add(coulombs)
	a.interval.add(watts*1e6, volts*1e6, dt)
}

// miss books a sweep that could not be read.
func (a *account) miss(dt int64) {
	a.errors++
	a.unmeasuredUs += uint64(dt)
}

// carry moves the sums into the totals. It must be called before 5 s of sums have gathered: at full scale shuntBus·countNV
// is 6.7e17 for each second.
func (a *account) carry() {
	if a.ideal {
		a.nJ, a.nC = int64(math.Round(a.exactE.sum()*1e9)), int64(math.Round(a.exactQ.sum()*1e9))
		return
	}
	var q int64
	// nV·counts·µs, times countUV µV, over µΩ, is 1e-9·1e-6·1e-6/1e-6 J = countUV·1e-6 nJ; gain adds another 1e-6. One
	// factor of 1000 is left out above and below.
	q, a.remE = mulDiv(a.shuntBus*countNV-a.offset*a.busT, countUV/1000*a.gain, a.remE, uint64(a.shunt)*1e9)
	a.nJ += q
	// nV·µs over µΩ is nC; gain adds 1e-6.
	q, a.remQ = mulDiv(a.shuntT*countNV-a.offset*a.t, a.gain, a.remQ, uint64(a.shunt)*1e6)
	a.nC += q
	a.shuntBus, a.shuntT, a.busT, a.t = 0, 0, 0, 0
}

// report returns the totals, which carry has brought up to date, and the interval's means and extremes, and starts the next
// interval. Means are over the time that was measured.
func (a *account) report() *meterpb.ChannelReport {
	iv, e, q := a.interval, a.nJ-a.startNJ, a.nC-a.startNC
	a.startNJ, a.startNC, a.interval = a.nJ, a.nC, newInterval()
	r := &meterpb.ChannelReport{
		EnergyUj: thousandth(a.nJ), ChargeUc: thousandth(a.nC),
		UnmeasuredUs: a.unmeasuredUs, Saturated: a.saturated, SensorErrors: a.errors,
	}
	if iv.us == 0 {
		return r
	}
	us := float64(iv.us)
	power, volts := math.Round(float64(e)/us*1e3), math.Round(iv.uvT/us)
	r.PowerUw, r.VoltageUv, r.CurrentUa = int64(power), int64(volts), int64(math.Round(float64(q)/us*1e3))
	// A constant power's mean may come out beside its extremes by a rounding.
	r.PowerDropUw, r.PowerRiseUw = distance(iv.minP, power), distance(power, iv.maxP)
	r.VoltageDropUv, r.VoltageRiseUv = distance(iv.minV, volts), distance(volts, iv.maxV)
	return r
}

// distance is how far b lies above a.
func distance(a, b float64) uint64 { return uint64(max(0, math.Round(b-a))) }

// thousandth rounds to the nearest, halves away from zero.
func thousandth(n int64) int64 {
	if n < 0 {
		return (n - 500) / 1000
	}
	return (n + 500) / 1000
}

func (iv *interval) add(uw, uv float64, dt int64) {
	iv.us += dt
	iv.uvT += uv * float64(dt)
	iv.minP, iv.maxP = min(iv.minP, uw), max(iv.maxP, uw)
	iv.minV, iv.maxV = min(iv.minV, uv), max(iv.maxV, uv)
}

// mulDiv returns (n·m + rem) / d, rounded towards zero, and the new remainder; the quotient must fit 63 bits and d be less
// than 2^63.
func mulDiv(n int64, m uint64, rem int64, d uint64) (q, r int64) {
	neg := n < 0
	hi, lo := bits.Mul64(magnitude(n), m)
	// Add the remainder in the direction of n; it may turn the sign, as it is less than d but n·m may be less than it.
	if (rem < 0) == neg {
		var c uint64
		lo, c = bits.Add64(lo, magnitude(rem), 0)
		hi += c
	} else {
		var b uint64
		lo, b = bits.Sub64(lo, magnitude(rem), 0)
		if hi, b = bits.Sub64(hi, 0, b); b != 0 {
			neg, hi, lo = !neg, 0, -lo
		}
	}
	uq, ur := bits.Div64(hi, lo, d)
	if neg {
		return -int64(uq), -int64(ur)
	}
	return int64(uq), int64(ur)
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// exact is a sum that does not lose small terms beside a large total (Neumaier 1974).
type exact struct{ total, lost float64 }

func (e *exact) add(v float64) {
	t := e.total + v
	if math.Abs(e.total) >= math.Abs(v) {
		e.lost += e.total - t + v
	} else {
		e.lost += v - t + e.total
	}
	e.total = t
}

func (e *exact) sum() float64 { return e.total + e.lost }
