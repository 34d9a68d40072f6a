package energy_test

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

func TestProducts(t *testing.T) {
	for name, tc := range map[string]struct{ got, want int64 }{
		"5 W for 2 s":                 {int64((5 * energy.Watt).Mul(2 * time.Second)), 10_000_000},
		"1 W for 1 ns":                {int64(energy.Watt.Mul(time.Nanosecond)), 0},
		"-1 W for 1.5 µs":             {int64((-energy.Watt).Mul(1500 * time.Nanosecond)), -1},
		"8.2 W for ten years":         {int64((8_200_000 * energy.Power(1)).Mul(10 * 365 * 24 * time.Hour)), 8_200_000 * 315_360_000},
		"10 J over 4 s":               {int64((10 * energy.Joule).Over(4 * time.Second)), 2_500_000},
		"over nothing":                {int64(energy.Joule.Over(0)), 0},
		"-3 µJ over 2 s":              {int64(energy.Energy(-3).Over(2 * time.Second)), -2}, // half away from zero
		"3 C over 2 s":                {int64((3 * energy.Coulomb).Over(2 * time.Second)), 1_500_000},
		"2 C at 5.1 V":                {int64((2 * energy.Coulomb).Times(5_100_000)), 10_200_000},
		"31 MC (1 A, a year) at 26 V": {int64((31_536_000 * energy.Coulomb).Times(26 * energy.Volt)), 31_536_000 * 26_000_000},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %d, want %d", name, tc.got, tc.want)
		}
	}
}

// Mul is the product in whole microjoules, rounded towards zero, for any power and time there is.
func TestMulIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		p, d := rng.Int64N(2e12)-1e12, rng.Int64N(int64(1e6*time.Second))
		want := new(big.Int).Mul(big.NewInt(p), big.NewInt(d))
		want.Quo(want, big.NewInt(int64(time.Second)))
		got := int64(energy.Power(p).Mul(time.Duration(d)))
		// Two roundings towards zero, of the seconds' part and the rest, may differ from one by nothing: the first is exact.
		if got != want.Int64() {
			t.Fatalf("%d µW for %d ns: %d µJ, want %v", p, d, got, want)
		}
	}
}

func TestStrings(t *testing.T) {
	for want, got := range map[string]string{
		"0 J":        energy.Energy(0).String(),
		"-7 µJ":      energy.Energy(-7).String(),
		"12.345 mW":  energy.Power(12_345).String(),
		"5.104 V":    energy.Voltage(5_104_000).String(),
		"-1.250 A":   energy.Current(-1_250_000).String(),
		"123.457 kC": energy.Charge(123_456_789_000).String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]energy.Power{
		"5W": 5_000_000, " 250 mW ": 250_000, "1.5kW": 1_500_000_000, "-40uW": -40, "3µW": 3, "0W": 0, "1e-3W": 1000,
	} {
		if got, err := energy.ParsePower(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "5", "W", "five W", "5 V", "NaNW", "+InfW", "1e30W", "5WW", "kW"} {
		if got, err := energy.ParsePower(in); !errors.Is(err, energy.ErrUnit) {
			t.Errorf("%q: %d, %v; want an error", in, got, err)
		}
	}
	if v, err := energy.ParseVoltage("5100mV"); err != nil || v != 5_100_000 {
		t.Errorf("%d, %v", v, err)
	}
	if i, err := energy.ParseCurrent("1.2A"); err != nil || i != 1_200_000 {
		t.Errorf("%d, %v", i, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("5W")
	f.Add("-1.5e3 mW")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := energy.ParsePower(s)
		if err == nil && math.Abs(float64(p)) > 1e18 {
			t.Errorf("%q became %d", s, p)
		}
	})
}
