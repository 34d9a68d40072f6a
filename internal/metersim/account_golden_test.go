package metersim

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files anew")

// accountGolden is read by firmware/test/unit/test_metering.c as well: both keep the same accounts, to the last digit.
const accountGolden = "../../firmware/test/golden/metering.inc"

// TestAccountGolden lets random readings of random calibrations into accounts, carries them at random instants, and holds what
// they report. The file is made of calls of macros, so that C reads it without a parser.
func TestAccountGolden(t *testing.T) {
	got := goldenAccounts()
	if *update {
		if err := os.WriteFile(accountGolden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(accountGolden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal([]byte(got), want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("line %d: %s, want %s", i+1, g[i], w[i])
			}
		}
		t.Fatalf("%d lines, want %d", len(g), len(w))
	}
}

func goldenAccounts() string {
	var out strings.Builder
	out.WriteString(`// Accounts as the simulator keeps them, made by TestAccountGolden of internal/metersim with -update:
// ACCOUNT(shunt uOhm, gain ppm, offset nV), ADD(shunt, bus, us), MISS(us), GAP(us), and what is reported then,
// CLOSE(energy, charge, unmeasured, saturated, errors, power, voltage, current, power drop and rise, voltage drop and rise).
`)
	rng := rand.New(rand.NewPCG(5, 6))
	calibrations := []Channel{
		{ShuntUohm: 100_000},
		{ShuntUohm: 30_000, GainPPM: -1200, OffsetNV: 8000},
		{ShuntUohm: 100, GainPPM: 500_000, OffsetNV: 100_000_000},
		{ShuntUohm: 100, GainPPM: -500_000, OffsetNV: -100_000_000},
		{ShuntUohm: 10_000_000, GainPPM: 500_000, OffsetNV: -100_000_000},
		{ShuntUohm: 10_000_000, GainPPM: -500_000, OffsetNV: 100_000_000},
	}
	for range 6 {
		calibrations = append(calibrations, Channel{
			ShuntUohm: uint32(100 + rng.IntN(200_000)), GainPPM: int32(rng.IntN(20_001) - 10_000), OffsetNV: int32(rng.IntN(160_001) - 80_000),
		})
	}
	for _, c := range calibrations {
		fmt.Fprintf(&out, "ACCOUNT(%d, %d, %d)\n", c.ShuntUohm, c.GainPPM, c.OffsetNV)
		a := newAccount(c)
		for interval := range 8 {
			shunt, bus := rng.IntN(8192)-4096, rng.IntN(3251)
			wild := rng.IntN(3) == 0
			for range rng.IntN(20) {
				s, b := shunt+rng.IntN(9)-4, bus+rng.IntN(3)-1
				if wild {
					s, b = rng.IntN(8192)-4096, rng.IntN(8192)-4096
				}
				s, b = max(-4096, min(s, 4095)), max(-4096, min(b, 4095))
				dt := int64([]int{2000, 1992 + rng.IntN(17), rng.IntN(20_000), rng.IntN(1_000_001)}[min(3, interval/2)])
				switch rng.IntN(12) {
				case 0:
					fmt.Fprintf(&out, "MISS(%d)\n", dt)
					a.miss(dt)
				case 1:
					fmt.Fprintf(&out, "GAP(%d)\n", dt)
					a.unmeasuredUs += uint64(dt)
				default:
					fmt.Fprintf(&out, "ADD(%d, %d, %d)\n", s, b, dt)
					if a.t+dt > 1e6 || rng.IntN(4) == 0 {
						a.carry()
					}
					a.add(int32(s), int32(b), dt)
				}
			}
			a.carry()
			r := a.report()
			fmt.Fprintf(&out, "CLOSE(%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d)\n", r.EnergyUj, r.ChargeUc, r.UnmeasuredUs, r.Saturated,
				r.SensorErrors, r.PowerUw, r.VoltageUv, r.CurrentUa, r.PowerDropUw, r.PowerRiseUw, r.VoltageDropUv, r.VoltageRiseUv)
		}
	}
	return out.String()
}
