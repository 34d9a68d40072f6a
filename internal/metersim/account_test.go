package metersim

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

// A shunt of 100 mΩ: one count is 0.4 mA, one count of each is 3.2 µW.
func TestAccount(t *testing.T) {
	const s = 1_000_000
	type reading struct {
		shunt, bus int32
		us         int64
	}
	for name, tc := range map[string]struct {
		c      Channel
		in     []reading
		nJ, nC int64
	}{
		"one count each for a second": {Channel{}, []reading{{1, 1, s}}, 3200, 400_000},
		"40 mA at 5.12 V":             {Channel{}, []reading{{100, 640, s}}, 204_800_000, 40_000_000},
		"backwards":                   {Channel{}, []reading{{-100, 640, s}}, -204_800_000, -40_000_000},
		"there and back":              {Channel{}, []reading{{7, 640, 1999}, {-7, 640, 1999}}, 0, 0},
		"full scale":                  {Channel{}, []reading{{4095, 3250, s}}, 42_588_000_000, 1_638_000_000},
		"30 mΩ, rounded down":         {Channel{ShuntUohm: 30_000}, []reading{{1, 1, s}}, 10_666, 1_333_333},
		"30 mΩ, the rest is kept":     {Channel{ShuntUohm: 30_000}, []reading{{1, 1, s}, {1, 1, s}, {1, 1, s}}, 32_000, 4_000_000},
		"30 mΩ, the rest backwards":   {Channel{ShuntUohm: 30_000}, []reading{{-1, 1, s}, {-1, 1, s}, {-1, 1, s}}, -32_000, -4_000_000},
		"the rest changes sides":      {Channel{ShuntUohm: 30_000}, []reading{{1, 1, s}, {-1, 1, s}, {-1, 1, s}}, -10_667, -1_333_334},
		// 40 mV less 8 µV is 39.992 mV, 399.92 mA; less 1200 ppm 399.440096 mA; times 5 V.
		"calibrated": {Channel{GainPPM: -1200, OffsetNV: 8000}, []reading{{1000, 625, s}}, 1_997_200_480, 399_440_096},
		// Nothing but offset: -80 µV are -0.8 mA, at 5 V -4 mW.
		"offset alone": {Channel{OffsetNV: 80_000}, []reading{{0, 625, s}}, -4_000_000, -800_000},
	} {
		if tc.c.ShuntUohm == 0 {
			tc.c.ShuntUohm = DefaultShuntUohm
		}
		a := newAccount(tc.c)
		for _, r := range tc.in {
			a.add(r.shunt, r.bus, r.us)
			a.carry()
		}
		if a.nJ != tc.nJ || a.nC != tc.nC {
			t.Errorf("%s: %d nJ, %d nC, want %d, %d", name, a.nJ, a.nC, tc.nJ, tc.nC)
		}
	}
}

// A year at the sensor's limits: 1.638 A at 26 V are 42.588 W, times 31,536,000 s. Carried each 4 s, nothing overflows.
func TestAccountOfAYear(t *testing.T) {
	a := newAccount(Channel{ShuntUohm: DefaultShuntUohm})
	for range 31_536_000 / 4 {
		a.add(-4095, 3250, 4_000_000)
		a.carry()
	}
	if a.nJ != -1_343_055_168_000_000_000 || a.nC != -51_655_968_000_000_000 {
		t.Errorf("%d nJ, %d nC", a.nJ, a.nC)
	}
	if r := a.report(); r.EnergyUj != -1_343_055_168_000_000 || r.ChargeUc != -51_655_968_000_000 {
		t.Errorf("on the wire %d uJ, %d uC", r.EnergyUj, r.ChargeUc)
	}
}

// One count each for a second at 30 mΩ is 32,000/3 nJ and 4,000,000/3 nC: a third of a nanojoule is over each time.
func TestRestsAreNotLostInADay(t *testing.T) {
	a := newAccount(Channel{ShuntUohm: 30_000})
	for range 86_400 {
		a.add(1, 1, 1_000_000)
		a.carry()
	}
	if a.nJ != 921_600_000 || a.nC != 115_200_000_000 {
		t.Errorf("%d nJ, %d nC", a.nJ, a.nC)
	}
}

func TestMulDiv(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		n := rng.Int64N(1<<60) - 1<<59
		n >>= rng.IntN(60)
		m, d := rng.Uint64N(12_000_000)+1, rng.Uint64N(1e16-1e11)+1e11
		rem := rng.Int64N(int64(d))
		q, r := mulDiv(n, m, rem, d)
		num := new(big.Int).Mul(big.NewInt(n), new(big.Int).SetUint64(m))
		num.Add(num, big.NewInt(rem))
		wantQ, wantR := new(big.Int).DivMod(num, new(big.Int).SetUint64(d), new(big.Int))
		if wantQ.Int64() != q || wantR.Int64() != r {
			t.Fatalf("(%d·%d + %d) / %d = %d rest %d, want %s rest %s", n, m, rem, d, q, r, wantQ, wantR)
		}
	}
}

func TestWireRounding(t *testing.T) {
	for in, want := range map[int64]int64{0: 0, 499: 0, 500: 1, 1499: 1, 1500: 2, -499: 0, -500: 0, -501: -1, -1500: -1, -1501: -2} {
		if got := thousandth(in); got != want {
			t.Errorf("%d: %d, want %d", in, got, want)
		}
	}
}

// 2^53 nanojoules are 104 days of 1 W: a plain float sum would lose each nanojoule added there.
func TestExactSumKeepsSmallTerms(t *testing.T) {
	var e exact
	e.add(1 << 53)
	for range 1000 {
		e.add(1.0 / 1024)
	}
	e.add(-1 << 53)
	if got := e.sum(); got != 1000.0/1024 {
		t.Errorf("%g, want %g", got, 1000.0/1024)
	}
}
