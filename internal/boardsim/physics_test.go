package boardsim

import (
	"math"
	"testing"
	"time"
)

// quiet returns a board on which nothing runs but what the test starts, and whose power does not wander.
func quiet(t *testing.T, name string, edit func(*Spec), functions ...Function) *Board {
	t.Helper()
	spec, err := FindSpec(name)
	if err != nil {
		t.Fatal(err)
	}
	spec.Wander = 0
	if edit != nil {
		edit(&spec)
	}
	b, err := New(Options{Name: name, Spec: &spec, Seed: 1, Scenario: Scenario{Functions: functions}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mean is the mean power over d from now on, in watts.
func mean(b *Board, d time.Duration) float64 {
	from := b.Now()
	return b.Load().Energy(from, from+d) / d.Seconds()
}

// stress is a process that keeps cores busy for ever.
func stress(threads int, class string) Function {
	return Function{Name: "stress", B: 1e9 * float64(threads), Threads: threads, Class: class}
}

func within(t *testing.T, what string, got, want, part float64) {
	t.Helper()
	t.Logf("%-44s %8.3f, published %8.3f (%+.1f %%)", what, got, want, 100*(got/want-1))
	if math.Abs(got/want-1) > part {
		t.Errorf("%s: %.3f, want %.3f within %.0f %%", what, got, want, 100*part)
	}
}

// Every board of the catalog against the measurements it is made from.
func TestIdleAndPeak(t *testing.T) {
	for name, spec := range Catalog() {
		t.Run(name, func(t *testing.T) {
			fast := spec.Classes[len(spec.Classes)-1]
			b := quiet(t, name, nil, stress(fast.Cores, fast.Name))
			b.Advance(time.Minute)
			within(t, "idle", mean(b, time.Minute), spec.Published.Idle, 0.02)
			if err := b.Invoke("stress"); err != nil {
				t.Fatal(err)
			}
			b.Advance(4 * time.Minute)
			within(t, "peak", mean(b, time.Minute), spec.Published.Peak, 0.03)
		})
	}
}

// E0240_ModSim-PowerMon: the idle XU4 without fan with the A15 cluster at one speed, then with the A7 at one speed while the
// A15 runs at 2.0 GHz; then stress with one to four workers at 2.0 GHz.
func TestXU4Levels(t *testing.T) {
	noFan := func(s *Spec) { s.Fan.Power = 0 }
	hold := func(b *Board, class string, khz int64) {
		t.Helper()
		if err := b.SetGovernor(class, Userspace); err != nil {
			t.Fatal(err)
		}
		if err := b.SetUserspace(class, khz); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		big, little int64
		watts       float64
	}{{200, 0, 2.10}, {1000, 0, 2.18}, {1500, 0, 2.31}, {1800, 0, 2.50}, {2000, 0, 2.75}, {2000, 200, 2.65}, {2000, 1400, 2.80}} {
		b := quiet(t, "odroid-xu4", noFan)
		hold(b, "big", tt.big*1000)
		if tt.little > 0 {
			hold(b, "little", tt.little*1000)
		}
		b.Advance(3 * time.Minute)
		within(t, "idle, A15 at "+time.Duration(tt.big*1e6).String(), mean(b, 10*time.Second), tt.watts, 0.04)
	}
	for i, watts := range []float64{4.72, 5.58, 6.58, 7.62} {
		b := quiet(t, "odroid-xu4", nil, stress(i+1, "big"))
		hold(b, "big", 2_000_000)
		if err := b.Invoke("stress"); err != nil {
			t.Fatal(err)
		}
		b.Advance(3 * time.Minute)
		within(t, "stress, workers: "+string(rune('1'+i)), mean(b, 10*time.Second), watts, 0.03)
	}
}

// The energy of compression jobs on one A15 at fixed frequencies, with the fan (E0240_ModSim-PowerMon): J and s per job.
func TestXU4EnergyAgainstFrequency(t *testing.T) {
	jobs := []struct {
		name            string
		a, b, intensity float64
		published       [9][2]float64
	}{
		{"gzip enwik8", 2.2, 31.2, 1.35, [9][2]float64{
			{91.3, 17.8}, {85.8, 18.6}, {81.4, 19.5}, {79.1, 20.6}, {78.1, 21.7}, {79.0, 23.0}, {80.0, 24.5}, {78.6, 26.2}, {85.0, 28.2},
		}},
		{"bzip2 enwik8", 4.7, 43.8, 1.55, [9][2]float64{
			{143.9, 26.4}, {137.0, 27.7}, {132.2, 29.2}, {128.8, 30.8}, {126.1, 32.2}, {125.5, 33.9}, {128.7, 36.2}, {128.4, 38.3}, {134.5, 41.2},
		}},
		{"xz webster", 21.1, 116.4, 1.55, [9][2]float64{
			{428.6, 79.9}, {404.7, 82.8}, {384.9, 85.8}, {373.0, 89.0}, {367.1, 92.7}, {366.2, 98.0}, {373.2, 105.2}, {367.2, 111.1}, {379.5, 118.0},
		}},
	}
	for _, j := range jobs {
		t.Run(j.name, func(t *testing.T) {
			var e, s [9]float64
			best := 0
			for i := range 9 {
				b := quiet(t, "odroid-xu4", nil, Function{Name: "job", A: j.a, B: j.b, Class: "big", Intensity: j.intensity, Concurrency: 1})
				if err := b.SetGovernor("", Userspace); err != nil {
					t.Fatal(err)
				}
				if err := b.SetUserspace("big", 2_000_000-int64(i)*100_000); err != nil {
					t.Fatal(err)
				}
				if err := b.SetUserspace("little", 1_400_000); err != nil {
					t.Fatal(err)
				}
				for range 10 {
					if err := b.Invoke("job"); err != nil {
						t.Fatal(err)
					}
				}
				var all []Invocation
				for len(all) < 10 {
					b.Advance(b.Now() + 10*time.Second)
					all = append(all, b.TakeInvocations()...)
				}
				from, to := all[0].Start, all[9].End
				e[i], s[i] = b.history.at(to)/10-b.history.at(from)/10, (to-from).Seconds()/10
				p := j.published[i]
				t.Logf("%.1f GHz  %6.1f J (published %6.1f, %+5.1f %%)  %6.2f s (%6.2f, %+.1f %%)  %.2f W  %.0f °C", 2-float64(i)/10, e[i], p[0],
					100*(e[i]/p[0]-1), s[i], p[1], 100*(s[i]/p[1]-1), e[i]/s[i], b.celsius)
				if math.Abs(e[i]/p[0]-1) > 0.06 || math.Abs(s[i]/p[1]-1) > 0.02 {
					t.Errorf("%d00 MHz: %.1f J and %.2f s, published %.1f J and %.2f s", 20-i, e[i], s[i], p[0], p[1])
				}
				if e[i] < e[best] {
					best = i
				}
			}
			saved, longer := 1-e[best]/e[0], s[best]/s[0]-1
			t.Logf("optimum %.1f GHz: %.1f %% less energy, %.1f %% more time", 2-float64(best)/10, 100*saved, 100*longer)
			if best < 3 || best > 7 || saved < 0.11 || saved > 0.19 {
				t.Errorf("optimum at %.1f GHz saves %.1f %%; published 1.3 to 1.7 GHz and 13 to 17 %%", 2-float64(best)/10, 100*saved)
			}
		})
	}
}
