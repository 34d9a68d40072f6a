package metersim

import (
	"math"
	"math/rand/v2"
	"time"
)

// The INA3221 (TI data sheet SBOS576): one converter goes over three channels, shunt before bus at each.
const (
	// countNV and countUV are the shunt and bus voltage of one count, in nanovolts and microvolts.
	countNV = 40_000
	countUV = 8_000
	// fullScale is the count at either end of the 13-bit range.
	fullScale = 4095
	// perChip is the number of channels of one sensor, perCycle that of the conversions it takes for them.
	perChip  = 3
	perCycle = 2 * perChip
)

// conversions are the conversion times the sensor can be set to, typical values.
var conversions = [...]time.Duration{
	140 * time.Microsecond, 204 * time.Microsecond, 332 * time.Microsecond, 588 * time.Microsecond,
	1100 * time.Microsecond, 2116 * time.Microsecond, 4156 * time.Microsecond, 8244 * time.Microsecond,
}

// conversionFor returns the longest conversion time with which a cycle fits the sweep period.
func conversionFor(sweep time.Duration) time.Duration {
	best := conversions[0]
	for _, c := range conversions {
		if perCycle*c <= sweep {
			best = c
		}
	}
	return best
}

// sensor is one channel of an INA3221 and what is connected to it.
type sensor struct {
	Channel
	rng        *rand.Rand
	conversion time.Duration
	// begin is the time from the start of the cycle to the channel's shunt conversion.
	begin time.Duration
}

func newSensor(c Channel, place int, seed uint64, conversion time.Duration) sensor {
	return sensor{
		Channel: c, conversion: conversion,
		begin: time.Duration(place%perChip) * 2 * conversion,
		// Each channel has a sequence of its own, so that one more channel does not change the others.
		rng: rand.New(rand.NewPCG(seed, uint64(c.Number))),
	}
}

// circuit returns voltage and current at the board when it draws a power in watts: the supply's voltage less the drop over
// the source resistance R, so V solves V² - V0·V + R·P = 0. A board that wants more than the source can give gets the most.
func (s *sensor) circuit(watts float64) (volts, amperes float64) {
	v0, r := s.Supply.Volts(), float64(s.SourceUohm)/1e6
	d := v0*v0 - 4*r*watts
	if d < 0 {
		return v0 / 2, v0 / 2 / r
	}
	volts = (v0 + math.Sqrt(d)) / 2
	return volts, watts / volts
}

// mean returns voltage and current during one conversion. A board is taken to draw its mean power throughout: with a source
// resistance the current's own mean differs from that only where the load jumps within the window, and by less than R·I/V.
func (s *sensor) mean(from time.Duration) (volts, amperes float64) {
	return s.circuit(s.Load.Energy(from, from+s.conversion) / s.conversion.Seconds())
}

// convert returns the counts of the channel's two conversions in the cycle that starts at an instant.
func (s *sensor) convert(cycle time.Duration) (shunt, bus int32) {
	from := cycle + s.begin
	_, amperes := s.mean(from)
	volts, _ := s.mean(from + s.conversion)
	uv := amperes * float64(s.ShuntUohm)
	if s.Ideal {
		return quantise(uv * 1000 / countNV), quantise(volts * 1e6 / countUV)
	}
	uv = uv*(1+s.GainErrorPPM/1e6) + s.OffsetUV
	return quantise(uv*1000/countNV + s.noise()), quantise(volts*1e6/countUV + s.noise())
}

func (s *sensor) noise() float64 {
	if s.Noise == 0 {
		return 0
	}
	return s.Noise * s.rng.NormFloat64()
}

// fails says whether the bus transfer of this sweep went wrong.
func (s *sensor) fails() bool { return s.SensorError > 0 && s.rng.Float64() < s.SensorError }

// quantise rounds to the nearest count within the range. It is symmetric, so that noise around zero cancels.
func quantise(counts float64) int32 {
	return int32(math.Round(max(-fullScale, min(fullScale, counts))))
}
