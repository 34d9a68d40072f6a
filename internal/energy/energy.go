// Package energy holds the quantities every other package speaks in: energy, charge, power, voltage and current as
// integers in one base unit each, and the reading, which is what a meter of any kind says about one channel.
//
// Integers because the parts of an account must add up to the whole to the microjoule; floating point appears only
// where a number leaves the program.
package energy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Energy is an amount of energy in microjoules. It is signed: a sensor's offset and noise around zero must cancel.
type Energy int64

// Charge is an amount of electric charge in microcoulombs (1 C = 1 A·s).
type Charge int64

// Power is a rate of energy in microwatts.
type Power int64

// Voltage is an electric potential in microvolts.
type Voltage int64

// Current is an electric current in microamperes.
type Current int64

// One of each unit.
const (
	Joule   Energy  = 1_000_000
	Coulomb Charge  = 1_000_000
	Watt    Power   = 1_000_000
	Volt    Voltage = 1_000_000
	Ampere  Current = 1_000_000
)

// Joules returns e in joules.
func (e Energy) Joules() float64 { return float64(e) / float64(Joule) }

// Coulombs returns q in coulombs.
func (q Charge) Coulombs() float64 { return float64(q) / float64(Coulomb) }

// Watts returns p in watts.
func (p Power) Watts() float64 { return float64(p) / float64(Watt) }

// Volts returns v in volts.
func (v Voltage) Volts() float64 { return float64(v) / float64(Volt) }

// Amperes returns i in amperes.
func (i Current) Amperes() float64 { return float64(i) / float64(Ampere) }

func (e Energy) String() string  { return format(int64(e), "J") }
func (q Charge) String() string  { return format(int64(q), "C") }
func (p Power) String() string   { return format(int64(p), "W") }
func (v Voltage) String() string { return format(int64(v), "V") }
func (i Current) String() string { return format(int64(i), "A") }

// format renders micro units for people, with three digits after the point and the prefix that keeps them telling.
func format(micro int64, unit string) string {
	v := float64(micro) / 1e6
	switch a := math.Abs(v); {
	case micro == 0:
		return "0 " + unit
	case a < 1e-3:
		return strconv.FormatInt(micro, 10) + " µ" + unit
	case a < 1:
		return strconv.FormatFloat(v*1e3, 'f', 3, 64) + " m" + unit
	case a < 1e4:
		return strconv.FormatFloat(v, 'f', 3, 64) + " " + unit
	default:
		return strconv.FormatFloat(v/1e3, 'f', 3, 64) + " k" + unit
	}
}

// Mul returns the energy of power p held for d, rounded towards zero to a microjoule.
func (p Power) Mul(d time.Duration) Energy {
	// Split d so that the product of microwatts and nanoseconds cannot overflow below 9 TW.
	s, ns := int64(d/time.Second), int64(d%time.Second)
	return Energy(int64(p)*s + mulDiv(int64(p), ns, int64(time.Second)))
}

// Over returns the mean power of energy e spread over d; zero for an empty interval.
func (e Energy) Over(d time.Duration) Power {
	if d <= 0 {
		return 0
	}
	return Power(math.Round(float64(e) / d.Seconds()))
}

// Over returns the mean current of charge q spread over d; zero for an empty interval.
func (q Charge) Over(d time.Duration) Current {
	if d <= 0 {
		return 0
	}
	return Current(math.Round(float64(q) / d.Seconds()))
}

// Times returns the energy of charge q moved through potential v, rounded towards zero to a microjoule.
func (q Charge) Times(v Voltage) Energy {
	c, uc := int64(q)/1e6, int64(q)%1e6
	return Energy(c*int64(v) + mulDiv(uc, int64(v), 1e6))
}

// mulDiv returns a·b/c for products that fit 63 bits after splitting a, rounded towards zero.
func mulDiv(a, b, c int64) int64 {
	q, r := a/c, a%c
	return q*b + r*b/c
}

// ErrUnit is wrapped by the errors of the Parse functions.
var ErrUnit = errors.New("not a quantity")

// ParsePower reads a power such as "5W", "250 mW", "1.5kW" or "-40uW".
func ParsePower(s string) (Power, error) {
	v, err := parse(s, "W")
	return Power(v), err
}

// ParseVoltage reads a voltage such as "5.1V" or "5100mV".
func ParseVoltage(s string) (Voltage, error) {
	v, err := parse(s, "V")
	return Voltage(v), err
}

// ParseCurrent reads a current such as "1.2A" or "350mA".
func ParseCurrent(s string) (Current, error) {
	v, err := parse(s, "A")
	return Current(v), err
}

// parse reads a decimal number with an SI prefix and the unit, to micro units.
func parse(s, unit string) (int64, error) {
	bad := func(why string) (int64, error) {
		return 0, fmt.Errorf("%w: %q: %s; write a number and a unit, as 5%s or 250m%s", ErrUnit, s, why, unit, unit)
	}
	num, ok := strings.CutSuffix(strings.TrimSpace(s), unit)
	if !ok {
		return bad("no unit " + unit)
	}
	scale := 1e6
	for _, p := range []struct {
		prefix string
		scale  float64
	}{{"k", 1e9}, {"m", 1e3}, {"u", 1}, {"µ", 1}} {
		if n, ok := strings.CutSuffix(num, p.prefix); ok {
			num, scale = n, p.scale
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	if err != nil {
		return bad("no number before the unit")
	}
	v = math.Round(v * scale)
	if math.IsNaN(v) || math.Abs(v) > 1e18 {
		return bad("out of range")
	}
	return int64(v), nil
}
