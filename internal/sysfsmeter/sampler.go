package sysfsmeter

import (
	"bytes"
	"fmt"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// Limits of what a board can draw: beyond them a value is taken for garbage, and within them no product below overflows.
const (
	maxMicro = 1_000_000_000  // µV, µA
	maxWatts = 10_000_000_000 // µW
	// inaFullScale is the shunt voltage, in µV, at which an INA3221 saturates: 4095 steps of 40 µV (TI SBOS576).
	inaFullScale = 4095 * 40
)

func millivolts(path string) input { return input{path: path, scale: 1000, limit: maxMicro} }
func milliamps(path string) input  { return input{path: path, scale: 1000, limit: maxMicro} }
func milliwatts(path string) input { return input{path: path, scale: 1000, limit: maxWatts} }
func microvolts(path string) input { return input{path: path, scale: 1, limit: maxMicro} }
func microamps(path string) input  { return input{path: path, scale: 1, limit: maxMicro} }
func microwatts(path string) input { return input{path: path, scale: 1, limit: maxWatts} }

// samplerSpec says where a power sampler's values are. Power is taken from power where there is one, else from voltage and
// current; current from shunt and resistance where there are, else from current, else from power and voltage.
type samplerSpec struct {
	voltage, current, power, shunt input
	resistance                     int64         // of the shunt, µΩ
	status                         input         // a battery's; its values count only while it says Discharging
	cycle                          time.Duration // what one sample takes, or how often the chip has a new one
}

// sample is one poll of a power sampler.
type sample struct {
	power     energy.Power
	voltage   energy.Voltage
	current   energy.Current
	saturated bool
	off       bool // a true answer that is not the node's consumption
}

// sampler is a samplerSpec with its files open.
type sampler struct {
	samplerSpec
	buf [64]byte
}

func (spec samplerSpec) open(t tree) (*sampler, error) {
	s := &sampler{samplerSpec: spec}
	for _, in := range []*input{&s.voltage, &s.current, &s.power, &s.shunt, &s.status} {
		if err := in.open(t); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *sampler) close() {
	for _, in := range []*input{&s.voltage, &s.current, &s.power, &s.shunt, &s.status} {
		in.close()
	}
}

var discharging = []byte("Discharging")

// read takes one sample. A battery's sign is the driver's habit: the ABI wants discharge negative, ACPI drivers give it
// positive (Documentation/ABI/testing/sysfs-class-power). Its direction is in the status, so only the magnitude is used.
// Everywhere else the sign is the sensor's.
func (s *sampler) read() (x sample, err error) {
	if s.status.f != nil {
		b, err := s.status.bytes(s.buf[:])
		if err != nil {
			return x, err
		}
		if !bytes.Equal(bytes.TrimSpace(b), discharging) {
			return sample{off: true}, nil
		}
	}
	var v, u, i, p int64 // µV, µV across the shunt, µA, µW
	if s.voltage.f != nil {
		if v, err = s.voltage.read(s.buf[:]); err != nil {
			return x, err
		}
	}
	switch {
	case s.shunt.f != nil:
		if u, err = s.shunt.read(s.buf[:]); err != nil {
			return x, err
		}
		x.saturated = u >= inaFullScale || u <= -inaFullScale
		i = roundDiv(u*1_000_000, s.resistance)
	case s.current.f != nil:
		if i, err = s.current.read(s.buf[:]); err != nil {
			return x, err
		}
	}
	switch {
	case s.power.f != nil:
		if p, err = s.power.read(s.buf[:]); err != nil {
			return x, err
		}
		switch {
		case s.current.f == nil && v > 0:
			i = roundDiv(p*1_000_000, v)
		case i < 0 && p > 0:
			p = -p // the power register has no sign, the current register has one
		}
	case s.shunt.f != nil:
		p = roundDiv(v*u, s.resistance) // not from the current, which is rounded already
	default:
		p = roundDiv(v*i, 1_000_000)
	}
	if max(p, -p) > maxWatts || max(i, -i) > maxMicro {
		return x, fmt.Errorf("%v, %v, %v: %w", energy.Voltage(v), energy.Current(i), energy.Power(p), errFormat)
	}
	if s.status.f != nil {
		p, i = max(p, -p), max(i, -i)
	}
	x.power, x.voltage, x.current = energy.Power(p), energy.Voltage(v), energy.Current(i)
	return x, nil
}

// roundDiv returns a/b to the nearest, halves away from zero; b is positive.
func roundDiv(a, b int64) int64 {
	if a < 0 {
		return -((-a + b/2) / b)
	}
	return (a + b/2) / b
}
