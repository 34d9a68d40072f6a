package accounting

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

var t0 = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

// reading is one of a meter that booted at t0+boot, at its clock's at.
func reading(epoch uint64, boot, at time.Duration, e energy.Energy) energy.Reading {
	return energy.Reading{Epoch: epoch, At: at, Host: t0.Add(boot + at), Energy: e, Charge: energy.Charge(e / 5)}
}

// A simulated past of boots and reports is delivered with loss, repetition and disorder. What the account says must be what
// can be worked out from the reports that were delivered, to the microjoule and the nanosecond.
func TestAnyDeliveryOfReadings(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 3000 {
		var (
			all        []energy.Reading
			now        time.Duration
			epochs     = 1 + rng.IntN(4)
			perEpoch   = 1 + rng.IntN(30)
			lastOfBoot = map[uint64]energy.Reading{}
		)
		for ep := range epochs {
			now += time.Duration(rng.Int64N(int64(10 * time.Second)))
			boot := now
			var e energy.Energy
			var un time.Duration
			for range perEpoch {
				step := time.Duration(1 + rng.Int64N(int64(time.Second)))
				now += step
				e += energy.Energy(rng.Int64N(2_000_000) - 200_000)
				un += time.Duration(rng.Int64N(int64(step)))
				r := reading(uint64(ep+1), boot, now-boot, e)
				r.Unmeasured = un
				all = append(all, r)
			}
		}
		var sent []energy.Reading
		for _, r := range all {
			if rng.IntN(10) < 3 {
				continue
			}
			sent = append(sent, r)
			if rng.IntN(10) == 0 {
				sent = append(sent, r)
			}
		}
		if len(sent) == 0 {
			continue
		}
		// Late ones: within a boot, and across the boundary of boots, but never before the first of its boot's successor's
		// successor is known; only such disorder exists on a network.
		for range len(sent) / 5 {
			i := rng.IntN(len(sent))
			r := sent[i]
			seen := slices.IndexFunc(sent, func(x energy.Reading) bool { return x.Epoch == r.Epoch })
			if seen == i {
				continue // moving the first of a boot behind another boot's makes it unheard of, which is loss
			}
			j := min(i+1+rng.IntN(4), len(sent))
			sent = slices.Insert(sent, j, r)
			sent = slices.Delete(sent, i, i+1)
		}

		a := account{start: t0}
		var high energy.Energy
		for _, r := range sent {
			before := a.sum
			news := a.observe(r)
			if !news && a.sum != before {
				t.Fatalf("a reading that told nothing changed the account by %+v", r)
			}
			if a.sum.EnergyMark < before.EnergyMark || a.sum.Unmeasured < before.Unmeasured || a.sum.ChargeMark < before.ChargeMark {
				t.Fatal("a published total fell")
			}
			high = max(high, a.sum.Energy)
			if news {
				lastOfBoot[r.Epoch] = r
			}
		}
		// Energy: growth since the first reading in its boot, everything since their zero in the later ones.
		var want energy.Energy
		var unmeasured time.Duration
		first := sent[0]
		var prev energy.Reading
		for ep := uint64(1); ep <= uint64(epochs); ep++ {
			r, heard := lastOfBoot[ep]
			if !heard {
				continue
			}
			zero := r.Host.Add(-r.At)
			if ep == first.Epoch {
				want += r.Energy - first.Energy
				unmeasured += first.Host.Sub(t0) + r.Unmeasured - first.Unmeasured
			} else {
				want += r.Energy
				unmeasured += zero.Sub(prev.Host) + r.Unmeasured
			}
			prev = r
		}
		if a.sum.Energy != want || a.sum.EnergyMark != high {
			t.Fatalf("energy %v and mark %v, want %v and %v", a.sum.Energy, a.sum.EnergyMark, want, high)
		}
		if a.sum.Unmeasured != unmeasured {
			t.Fatalf("unmeasured %v, want %v", a.sum.Unmeasured, unmeasured)
		}
	}
}

func TestAccountCases(t *testing.T) {
	const s = time.Second
	for name, tc := range map[string]struct {
		in         []energy.Reading
		energy     energy.Energy
		unmeasured time.Duration
	}{
		"the past before the first reading is not ours": {
			[]energy.Reading{reading(1, -100*s, 110*s, 900)}, 0, 10 * s,
		},
		"growth": {
			[]energy.Reading{reading(1, 0, 1*s, 900), reading(1, 0, 3*s, 1000)}, 100, 1 * s,
		},
		"a reboot: growth since its zero, and the time until then": {
			[]energy.Reading{reading(1, 0, 1*s, 900), reading(1, 0, 3*s, 1000), reading(2, 5*s, 2*s, 70)}, 170, 3 * s,
		},
		"a reboot between every two readings": {
			[]energy.Reading{reading(1, 0, 1*s, 900), reading(2, 5*s, 2*s, 70), reading(3, 8*s, 1*s, 30)}, 100, 1*s + 4*s + 1*s,
		},
		"a late datagram of the boot before": {
			[]energy.Reading{reading(1, 0, 1*s, 900), reading(2, 5*s, 2*s, 70), reading(1, 0, 3*s, 1000), reading(2, 5*s, 3*s, 80)}, 80, 5 * s,
		},
		"another meter that has run for long": {
			[]energy.Reading{reading(1, 0, 1*s, 900), reading(1, 0, 2*s, 950), reading(9, -1000*s, 1003*s, 1e9), reading(9, -1000*s, 1004*s, 1e9+7)},
			57, 2 * s,
		},
		"two clocks that disagree a little": {
			[]energy.Reading{reading(1, 0, 10*s, 900), reading(2, 9900*time.Millisecond, 1*s, 40)}, 40, 10 * s,
		},
		"negative power": {
			[]energy.Reading{reading(1, 0, 1*s, 900), reading(1, 0, 2*s, 950), reading(1, 0, 3*s, 940), reading(1, 0, 4*s, 945)}, 50, 1 * s,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := account{start: t0}
			for _, r := range tc.in {
				a.observe(r)
			}
			if a.sum.EnergyMark != tc.energy {
				t.Errorf("energy %d µJ, want %d", a.sum.EnergyMark, tc.energy)
			}
			if a.sum.Unmeasured != tc.unmeasured {
				t.Errorf("unmeasured %v, want %v", a.sum.Unmeasured, tc.unmeasured)
			}
		})
	}
}

// Noise around zero must not become energy: the mark of a signed sum stays within the walk's excursion, where the sum of
// magnitudes grows with time.
func TestNoiseIsNotEnergy(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	a := account{start: t0}
	var sum, magnitudes energy.Energy
	const n = 100_000
	for i := range n {
		d := energy.Energy(rng.NormFloat64() * 100)
		sum += d
		magnitudes += max(d, -d)
		a.observe(reading(1, 0, time.Duration(i+1)*time.Millisecond, sum))
	}
	// The expected maximum of a walk of n steps of deviation 100 is 100·sqrt(2n/π) = 25 mJ; the magnitudes sum to 8 J.
	if a.sum.EnergyMark > magnitudes/50 {
		t.Errorf("noise of %v in all became %v", magnitudes, a.sum.EnergyMark)
	}
}

func TestRestart(t *testing.T) {
	const s = time.Second
	last := reading(1, 0, 100*s, 500*energy.Joule)
	saved := NodeState{Meter: "m", Channel: 1, Last: last, Totals: totals{
		Energy: 300 * energy.Joule, EnergyMark: 300 * energy.Joule, Charge: 60 * energy.Coulomb, ChargeMark: 60 * energy.Coulomb, Unmeasured: 7 * s,
	}}
	for name, tc := range map[string]struct {
		clean      bool
		meter      string
		next       energy.Reading
		known      bool // before the next reading
		energy     energy.Energy
		unmeasured time.Duration
		resets     uint64
	}{
		"in order, same boot of the meter": {
			true, "m", reading(1, 0, 160*s, 800*energy.Joule), true, 600 * energy.Joule, 7 * s, 0,
		},
		"killed, same boot: the gap's energy counts": {
			false, "m", reading(1, 0, 160*s, 800*energy.Joule), false, 600 * energy.Joule, 7 * s, 0,
		},
		"killed, same boot, no load: begin anew rather than fall by a hair": {
			false, "m", reading(1, 0, 160*s, 500*energy.Joule+1), false, 1, 0, 1,
		},
		"in order, no load": {
			true, "m", reading(1, 0, 160*s, 500*energy.Joule-1), true, 300 * energy.Joule, 7 * s, 0,
		},
		"in order, the meter restarted": {
			true, "m", reading(2, 130*s, 10*s, 50*energy.Joule), true, 350 * energy.Joule, 7*s + 30*s, 0,
		},
		"killed, the meter restarted: what was published after the save is unknown": {
			false, "m", reading(2, 130*s, 10*s, 50*energy.Joule), false, 50 * energy.Joule, 30 * s, 1,
		},
		"in order, wired to another meter": {
			true, "other", reading(8, -9000*s, 9130*s, 1e12), true, 300 * energy.Joule, 7*s + 30*s, 0,
		},
		"killed, wired to another meter": {
			false, "other", reading(8, -9000*s, 9130*s, 1e12), true, 0, 30 * s, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := node{NodeConfig: NodeConfig{Name: "n", Meter: tc.meter, Channel: 1}, account: account{start: t0.Add(120 * s)}}
			n.restore(saved, tc.clean)
			if n.known() != tc.known {
				t.Errorf("known before the first reading: %v, want %v", n.known(), tc.known)
			}
			n.observe(tc.next)
			if !n.known() {
				t.Error("not known after the first reading")
			}
			if n.sum.EnergyMark != tc.energy || n.sum.Unmeasured != tc.unmeasured || n.resets != tc.resets {
				t.Errorf("energy %v, unmeasured %v, %d resets; want %v, %v, %d",
					n.sum.EnergyMark, n.sum.Unmeasured, n.resets, tc.energy, tc.unmeasured, tc.resets)
			}
		})
	}
}
