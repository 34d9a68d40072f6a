package metersim

import (
	"math"
	"math/bits"

	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// account is what the meter holds of one channel. Energy and charge are kept as the firmware keeps them: sums of products of
// counts and microseconds, carried into nanojoules and nanocoulombs before they can overflow, with the remainder of the
// division kept, so that no rounding adds up however long the meter runs. Divisions round down, so that a total depends on the
// readings alone and not on when they were carried; the wire has the nearest, halves up. TestAccountGolden holds both to one
// file.
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
	us int64
	// Bus voltage times time in counts and microseconds; extremes of power in nV·counts before the gain, of voltage in counts.
	busT                   int64
	minP, maxP, minV, maxV int64
	// The same of an ideal sensor, in µV·µs, µW and µV.
	ideal struct{ uvT, minP, maxP, minV, maxV float64 }
}

func newAccount(c Channel) account {
	return account{
		shunt: int64(c.ShuntUohm), gain: uint64(1_000_000 + int64(c.GainPPM)), offset: int64(c.OffsetNV), ideal: c.Ideal,
		interval: newInterval(),
	}
}

func newInterval() interval {
	iv := interval{minP: math.MaxInt64, maxP: math.MinInt64, minV: math.MaxInt64, maxV: math.MinInt64}
	iv.ideal.minP, iv.ideal.maxP, iv.ideal.minV, iv.ideal.maxV = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	return iv
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
	iv, p := &a.interval, (s*countNV-a.offset)*b
	iv.us += dt
	iv.busT += b * dt
	iv.minP, iv.maxP = min(iv.minP, p), max(iv.maxP, p)
	iv.minV, iv.maxV = min(iv.minV, b), max(iv.maxV, b)
}

// addExact takes in what a perfect sensor saw in dt microseconds of the meter's clock.
func (a *account) addExact(joules, coulombs, watts, volts float64, dt int64) {
	a.exactE.add(joules)
	a.exactQ.add(coulombs)
	a.interval.us += dt
	iv, uw, uv := &a.interval.ideal, watts*1e6, volts*1e6
	iv.uvT += uv * float64(dt)
	iv.minP, iv.maxP = min(iv.minP, uw), max(iv.maxP, uw)
	iv.minV, iv.maxV = min(iv.minV, uv), max(iv.maxV, uv)
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
	// nJ over µs are mW, nC over µs mA. A constant power's mean may come out beside its extremes by a rounding.
	us := uint64(iv.us)
	r.PowerUw, r.CurrentUa = nearest(e, 1000, us), nearest(q, 1000, us)
	var minP, maxP, minV, maxV int64
	if a.ideal {
		i := iv.ideal
		r.VoltageUv = int64(math.Round(i.uvT / float64(iv.us)))
		minP, maxP = int64(math.Round(i.minP)), int64(math.Round(i.maxP))
		minV, maxV = int64(math.Round(i.minV)), int64(math.Round(i.maxV))
	} else {
		r.VoltageUv = nearest(iv.busT, countUV, us)
		// nV·counts, times countUV µV, over µΩ.
		d := uint64(a.shunt) * 1e6
		minP, maxP = nearest(iv.minP, countUV/1000*a.gain, d), nearest(iv.maxP, countUV/1000*a.gain, d)
		minV, maxV = iv.minV*countUV, iv.maxV*countUV
	}
	r.PowerDropUw, r.PowerRiseUw = distance(minP, r.PowerUw), distance(r.PowerUw, maxP)
	r.VoltageDropUv, r.VoltageRiseUv = distance(minV, r.VoltageUv), distance(r.VoltageUv, maxV)
	return r
}

// distance is how far b lies above a.
func distance(a, b int64) uint64 { return uint64(max(0, b-a)) }

// thousandth rounds to the nearest, halves up.
func thousandth(n int64) int64 { return nearest(n, 1, 1000) }

// nearest returns n·m / d to the nearest, halves up.
func nearest(n int64, m, d uint64) int64 {
	q, _ := mulDiv(n, m, int64(d/2), d)
	return q
}

// mulDiv returns (n·m + rem) / d, rounded down, and the new remainder; rem is within [0, d), d less than 2^63, and the quotient
// must fit 63 bits.
func mulDiv(n int64, m uint64, rem int64, d uint64) (q, r int64) {
	hi, lo := bits.Mul64(magnitude(n), m)
	if n >= 0 {
		lo, c := bits.Add64(lo, uint64(rem), 0)
		uq, ur := bits.Div64(hi+c, lo, d)
		return int64(uq), int64(ur)
	}
	lo, b := bits.Sub64(lo, uint64(rem), 0)
	if hi, b = bits.Sub64(hi, 0, b); b != 0 {
		return 0, int64(-lo) // the remainder was more than n·m took away
	}
	uq, ur := bits.Div64(hi, lo, d)
	if ur == 0 {
		return -int64(uq), 0
	}
	return -int64(uq) - 1, int64(d - ur)
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
