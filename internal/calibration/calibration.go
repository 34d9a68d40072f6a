// Package calibration computes what a meter's channel must be told to measure right, from raw readings of nothing and of a load that
// something better measures too: pure functions, with an uncertainty on every result.
//
// A raw reading in counts is
//
//	count · count_nv = I · shunt · (1 + gain error) + offset error + noise + rounding to a count
//
// and the meter makes of it I = (count · count_nv − offset_nv) · (1 + gain_ppm / 10⁶) / shunt. So the offset is the mean of readings of no
// current, and the gain is what is missing between the reference and the readings less the offset.
package calibration

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Coverage is the factor from a standard uncertainty to the half of an interval that holds the truth in about 95 of 100 cases.
const Coverage = 2

// MaxUncertainty is the largest relative uncertainty, Coverage included, with which a gain is worth having: the shunts that it is to
// correct are good to 1 %.
const MaxUncertainty = 0.005

// The INA3221's limits (SBOS576, electrical characteristics): of the offset of shunt voltage in nanovolts, and of the bus voltage's offset in
// volts, step in volts, and gain.
const (
	OffsetLimitNV  = 80_000
	busOffsetLimit = 16e-3
	busStep        = 8e-3
	busGainLimit   = 0.0025
)

// What is still a measurement of a steady load, or of none.
const (
	blocks      = 30   // whose means tell noise from drift
	minReadings = 300  // of which each block has ten
	maxMissing  = 0.01 // share of readings that may be missing
	maxDrift    = 1e-3 // of the load, from beginning to end
	maxSpread   = 1e-2 // of the load, rms
	noiseCounts = 4    // rms, that a sensor may have beside that
	zeroDrift   = 0.25 // counts
	minCounts   = 10   // below which it is no load

	connectedNV = 5 * OffsetLimitNV // beyond which an offset is a current
	oddGain     = 0.03              // beyond which something else is wrong: a 1 % shunt and the sensor make 1.25 %
	wrongShunt  = 0.10
	wrongVolts  = 0.02
)

// Faults of a measurement. Their messages say what to do.
var (
	ErrMissing   = errors.New("readings are missing")
	ErrSaturated = errors.New("the sensor is saturated")
	ErrUnsteady  = errors.New("the load is not steady")
	ErrConnected = errors.New("a current flows")
	ErrSmall     = errors.New("the load is too small")
	ErrReversed  = errors.New("the current is negative")
	ErrShunt     = errors.New("the shunt is another than the meter is told")
	ErrUncertain = errors.New("the gain would be too uncertain")
)

// Channel is how a channel is set now.
type Channel struct {
	ShuntUohm uint32
	GainPPM   int32
	OffsetNV  int32
	// CountNV is the shunt voltage of a count in nanovolts, FullScale the count at which the sensor saturates.
	CountNV   uint32
	FullScale uint32
}

// Readings are what a channel measured over some time.
type Readings struct {
	// Counts are raw shunt readings in the order of their sweeps. Where Missing is true there is none.
	Counts  []int32
	Missing []bool
	// Volts are means of the bus voltage over parts of that time.
	Volts []float64
}

// Mean is what the readings say, in counts.
type Mean struct {
	Readings, Missing int
	Counts            float64
	// Spread is the standard deviation of one reading.
	Spread float64
	// Noise is the standard error of Counts, from the means of blocks, so that it holds for noise with a memory too.
	Noise float64
	// Rounding is the standard uncertainty that comes of whole counts: next to nothing where noise spreads the readings over several,
	// and 1/√12 where all are the same.
	Rounding float64
	// Drift is how far the readings moved from beginning to end, DriftError its standard error.
	Drift, DriftError float64
	// Volts is the mean bus voltage, VoltsSpread the largest distance of its parts.
	Volts, VoltsSpread float64
}

// Uncertainty is the standard uncertainty of Counts.
func (m Mean) Uncertainty() float64 { return math.Hypot(m.Noise, m.Rounding) }

// Summarise averages readings, or says why that would mean nothing.
func Summarise(ch Channel, r Readings) (Mean, error) {
	var m Mean
	var counts []int32
	sums := make([]struct{ sum, n float64 }, blocks)
	saturated := 0
	for i, c := range r.Counts {
		if r.Missing[i] {
			m.Missing++
			continue
		}
		if c >= int32(ch.FullScale) || c <= -int32(ch.FullScale) {
			saturated++
		}
		counts = append(counts, c)
		b := &sums[i*blocks/len(r.Counts)]
		b.sum += float64(c)
		b.n++
	}
	m.Readings = len(counts)
	switch {
	case m.Readings > 0 && m.Readings+m.Missing < minReadings:
		return m, fmt.Errorf("%w: %d are too few, measure longer", ErrMissing, m.Readings)
	case float64(m.Missing) > maxMissing*float64(len(r.Counts)) || m.Readings == 0:
		return m, fmt.Errorf("%w: %d of %d: look for sensor errors and for loss on the network (wattctl meter read)",
			ErrMissing, m.Missing, len(r.Counts))
	case len(r.Volts) == 0:
		return m, fmt.Errorf("%w: no report told the voltage", ErrMissing)
	case saturated > 0:
		return m, fmt.Errorf("%w in %d of %d readings, at %.4g mV over the shunt: take a smaller load, or a smaller shunt",
			ErrSaturated, saturated, m.Readings, float64(ch.FullScale)*float64(ch.CountNV)/1e6)
	}
	for _, c := range counts {
		m.Counts += float64(c) / float64(m.Readings)
	}
	var squares float64
	for _, c := range counts {
		squares += (float64(c) - m.Counts) * (float64(c) - m.Counts)
	}
	m.Spread = math.Sqrt(squares / float64(m.Readings-1))
	means := make([]float64, blocks)
	for i, b := range sums { // none is empty: it would be more than may be missing
		means[i] = b.sum / b.n
	}
	m.Noise, m.Drift, m.DriftError = trend(means)
	m.Rounding = rounding(counts)
	for _, v := range r.Volts {
		m.Volts += v / float64(len(r.Volts))
	}
	m.VoltsSpread = slices.Max(r.Volts) - slices.Min(r.Volts)
	return m, nil
}

// trend returns the standard error of the mean of values in order, and how far a line through them goes from the beginning of the first to the
// end of the last, with its standard error.
func trend(values []float64) (noise, drift, driftError float64) {
	n := float64(len(values))
	var mean, xx, xy float64
	for _, v := range values {
		mean += v / n
	}
	for i, v := range values {
		x := float64(i) - (n-1)/2
		xx += x * x
		xy += x * (v - mean)
	}
	slope := xy / xx
	var around, along float64
	for i, v := range values {
		x := float64(i) - (n-1)/2
		around += (v - mean) * (v - mean)
		along += (v - mean - slope*x) * (v - mean - slope*x)
	}
	return math.Sqrt(around / (n - 1) / n), slope * n, math.Sqrt(along/(n-2)/xx) * n
}

// rounding is the standard uncertainty of the mean of readings that are whole counts. The mean of rounded values errs by a sine of where the
// truth lies between two counts, and its overtones: for Gaussian noise of σ counts, Σ (−1)^k/(πk) · exp(−2π²k²σ²) · sin(2πkx), whose rms is
// taken. The spread itself tells σ badly: readings that alternate between two counts may have any, depending on x. What lies outside the two
// most frequent neighbours is at most 2Φ(−1/2σ), wherever x is, so it tells the least σ there can be.
func rounding(counts []int32) float64 {
	frequency := map[int32]int{}
	for _, c := range counts {
		frequency[c]++
	}
	two := 0
	for c, n := range frequency {
		two = max(two, n+frequency[c+1])
	}
	outside := 1 - float64(two)/float64(len(counts))
	if outside == 0 {
		return 1 / math.Sqrt(12)
	}
	sigma := 0.5 / (math.Sqrt2 * math.Erfinv(1-outside))
	var sum float64
	for k := 1.0; k <= 1000; k++ {
		term := math.Exp(-4*math.Pi*math.Pi*k*k*sigma*sigma) / (k * k)
		sum += term
		if term < 1e-12 {
			break
		}
	}
	return math.Sqrt(sum/2) / math.Pi
}

// Offset is what a channel without current reads.
type Offset struct {
	Mean
	NV int32
	// UncertaintyNV is the half of its interval, Coverage included.
	UncertaintyNV float64
	Warnings      []string
}

// Zero finds the offset from readings of no current.
func Zero(ch Channel, r Readings) (Offset, error) {
	m, err := Summarise(ch, r)
	o := Offset{Mean: m}
	if err != nil {
		return o, err
	}
	nv := m.Counts * float64(ch.CountNV)
	through := nv / float64(ch.ShuntUohm) // nV over µΩ is mA
	switch {
	case math.Abs(nv) > connectedNV:
		return o, fmt.Errorf("%w: %.4g mA, %.4g mV over the shunt, where the sensor's own offset is at most %.4g mV: disconnect what is behind the shunt",
			ErrConnected, through, nv/1e6, OffsetLimitNV/1e6)
	case m.Spread > 2*noiseCounts:
		return o, fmt.Errorf("%w: readings of nothing spread by %.3g counts rms, a sensor's noise is below %d: disconnect what is behind the shunt",
			ErrUnsteady, m.Spread, 2*noiseCounts)
	case drifts(m, zeroDrift):
		return o, fmt.Errorf("%w: the offset moves, by %.3g µV within the measurement: wait until the meter is warm", ErrUnsteady,
			m.Drift*float64(ch.CountNV)/1e3)
	}
	o.NV = int32(math.Round(nv))
	o.UncertaintyNV = Coverage * m.Uncertainty() * float64(ch.CountNV)
	if math.Abs(nv) > OffsetLimitNV+o.UncertaintyNV {
		o.warn("%.4g µV is more than the sensor's offset may be (%d µV): is something connected that draws %.3g mA?",
			nv/1e3, OffsetLimitNV/1000, through)
	}
	if m.Volts < 1 {
		o.warn("the supply is off (%.3g V): the offset depends a little on the voltage at the shunt, so measure it with the supply on", m.Volts)
	}
	if m.Rounding > 0.2 {
		o.warn("the readings hardly move, so the offset is known to a part of a count only: shorter conversions have more noise")
	}
	return o, nil
}

func (o *Offset) warn(format string, args ...any) {
	o.Warnings = append(o.Warnings, fmt.Sprintf(format, args...))
}

// drifts says whether the readings move by more than so many counts, beyond chance.
func drifts(m Mean, limit float64) bool {
	return math.Abs(m.Drift) > limit && math.Abs(m.Drift) > 4*m.DriftError
}

// Reference is what is known about the load by something better than the meter.
type Reference struct {
	// One of these is above zero: the current; a resistor that is the whole load; or the power of the load.
	Amperes, Ohms, Watts float64
	// Volts is the voltage at the resistor. 0 means the meter's own, which is good for 0.25 % and 16 mV only.
	Volts float64
	// Limit is how wrong the reference may be at most, relatively, all its instruments together.
	Limit float64
}

// Part is one source of a result's uncertainty, as a relative standard uncertainty in parts per million.
type Part struct {
	Name string
	PPM  float64
}

// Gain is what a channel with a known load needs.
type Gain struct {
	Mean
	// Amperes is the reference, Measured what the channel measures without a gain.
	Amperes, Measured float64
	PPM               int32
	// UncertaintyPPM is the half of its interval, Coverage included; Parts are what it is made of, the largest first.
	UncertaintyPPM float64
	Parts          []Part
	Warnings       []string
}

func (g *Gain) warn(format string, args ...any) {
	g.Warnings = append(g.Warnings, fmt.Sprintf(format, args...))
}

// Compare finds the gain from readings of a load that ref knows. offsetErrorNV is the standard uncertainty of the channel's offset.
func Compare(ch Channel, r Readings, ref Reference, offsetErrorNV float64) (Gain, error) {
	m, err := Summarise(ch, r)
	g := Gain{Mean: m}
	if err != nil {
		return g, err
	}
	nv := m.Counts*float64(ch.CountNV) - float64(ch.OffsetNV)
	counts := nv / float64(ch.CountNV)
	g.Measured = nv / float64(ch.ShuntUohm) / 1e3 // nV over µΩ is mA
	switch {
	case counts < -minCounts:
		return g, fmt.Errorf("%w, %.4g A: swap the wires at IN+ and IN−", ErrReversed, g.Measured)
	case counts < minCounts:
		return g, fmt.Errorf("%w: %.3g mA are %.3g counts: connect it behind the shunt and switch it on", ErrSmall, g.Measured*1e3, counts)
	case m.Spread > maxSpread*counts+noiseCounts:
		return g, fmt.Errorf("%w: it spreads by %.2g %% rms around %.4g A: take a resistor or an electronic load, no board", ErrUnsteady,
			100*m.Spread/counts, g.Measured)
	case drifts(m, maxDrift*counts):
		return g, fmt.Errorf("%w: it drifts, by %.2g %% within the measurement: wait until it is warm", ErrUnsteady, 100*m.Drift/counts)
	case m.Volts <= 0 || m.VoltsSpread > wrongVolts*m.Volts:
		return g, fmt.Errorf("%w: its voltage of %.4g V moves by %.2g V", ErrUnsteady, m.Volts, m.VoltsSpread)
	}
	part := func(name string, relative float64) { g.Parts = append(g.Parts, Part{name, 1e6 * relative}) }
	part("noise", m.Noise/counts)
	part("rounding", m.Rounding/counts)
	part("offset", offsetErrorNV/nv)
	// An instrument's limits say nothing about what is likely within: evenly distributed, its standard deviation is a √3rd of the limit.
	part("reference", ref.Limit/math.Sqrt(3))
	switch {
	case ref.Amperes > 0:
		g.Amperes = ref.Amperes
	case ref.Ohms > 0 && ref.Volts > 0:
		g.Amperes = ref.Volts / ref.Ohms
	case ref.Ohms > 0:
		g.Amperes = m.Volts / ref.Ohms
		part("voltage", math.Sqrt((busGainLimit*busGainLimit+(busOffsetLimit/m.Volts)*(busOffsetLimit/m.Volts))/3+busStep*busStep/12/(m.Volts*m.Volts)))
	default:
		// With the meter's own voltage: what that is wrong by goes into the gain, so that power and energy become right.
		g.Amperes = ref.Watts / m.Volts
		part("voltage", busStep/math.Sqrt(12)/m.Volts)
	}
	var squares float64
	for _, p := range g.Parts {
		squares += p.PPM * p.PPM
	}
	slices.SortStableFunc(g.Parts, func(x, y Part) int { return cmp.Compare(y.PPM, x.PPM) })
	ratio := g.Amperes/g.Measured - 1
	g.UncertaintyPPM = Coverage * math.Sqrt(squares) * (1 + ratio)
	switch {
	case math.Abs(ratio) > wrongShunt:
		return g, fmt.Errorf("%w: %.4g A by the reference and %.4g A by the meter make it %.4g mΩ, not %.4g mΩ (or the reference is wrong)", ErrShunt,
			g.Amperes, g.Measured, float64(ch.ShuntUohm)/(1+ratio)/1e3, float64(ch.ShuntUohm)/1e3)
	case g.UncertaintyPPM > 1e6*MaxUncertainty:
		return g, fmt.Errorf("%w: ± %.2g %%, of which most is %s; at most ± %.2g %% is useful", ErrUncertain, g.UncertaintyPPM/1e4,
			remedies[g.Parts[0].Name], 100*MaxUncertainty)
	}
	g.PPM = int32(math.Round(1e6 * ratio))
	if math.Abs(ratio) > oddGain {
		g.warn("%.2g %% is more than a shunt of 1 %% and the sensor make: look at the shunt's value, its solder, and the reference", 100*ratio)
	}
	return g, nil
}

// remedies say where an uncertainty comes from and what makes it less.
var remedies = map[string]string{
	"noise":     "noise: measure longer, or take a larger load",
	"rounding":  "the sensor's resolution: take a larger load",
	"offset":    "the offset: measure it with --zero first, or take a larger load",
	"reference": "the reference: take a better one",
	"voltage":   "the meter's own voltage: measure the voltage at the load, and give --voltage",
}
