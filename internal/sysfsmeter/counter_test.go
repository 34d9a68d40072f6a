package sysfsmeter

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	raplRange = 262_143_328_850 // µJ, 61 µJ per unit
	joule     = 1_000_000       // µJ
)

func newUnwrap(modulus uint64, bound energy.Power) *unwrap {
	u := &unwrap{tag: tag("boot", "device")}
	u.setRange(modulus, bound)
	return u
}

func TestUnwrap(t *testing.T) {
	for name, tc := range map[string]struct {
		modulus  uint64
		from, to uint64
		dt       time.Duration
		grown    energy.Energy
		err      error
	}{
		"grows":                     {raplRange, 100 * joule, 130 * joule, time.Second, 30 * joule, nil},
		"stands":                    {raplRange, 100 * joule, 100 * joule, time.Second, 0, nil},
		"wraps":                     {raplRange, raplRange - 10*joule, 20 * joule, time.Second, 30 * joule, nil},
		"wraps to zero":             {raplRange, raplRange - 10*joule, 0, time.Second, 10 * joule, nil},
		"last value before a wrap":  {raplRange, raplRange - 1, 1, time.Second, 2, nil},
		"just short of a second":    {raplRange, 5 * joule, 4 * joule, 1048 * time.Second, raplRange - joule, nil},              // 250 W · 1048 s = 262.0 kJ
		"a second wrap may hide":    {raplRange, 5 * joule, 4 * joule, 1049 * time.Second, 0, errHidden},                        // 262.25 kJ
		"even if it did not go far": {raplRange, 5 * joule, 6 * joule, 1049 * time.Second, 0, errHidden},                        // 1 J or 262 kJ
		"too far for a wrap":        {raplRange, 200_000 * joule, 1 * joule, time.Second, 0, errReset},                          // 62 kJ in a second
		"far, but it had the time":  {raplRange, 200_000 * joule, 1 * joule, 300 * time.Second, raplRange - 199_999*joule, nil}, // 62.1 of 75 kJ
		"does not wrap, grows":      {0, 100 * joule, 130 * joule, 240 * time.Hour, 30 * joule, nil},
		"does not wrap, went back":  {0, 100 * joule, 99 * joule, time.Second, 0, errReset},
		"steps of a joule":          {4_294_967_295 * joule, 60_293_987 * joule, 60_294_100 * joule, time.Second, 113 * joule, nil},
		"steps of a joule, wraps":   {4_294_967_295 * joule, 4_294_967_290 * joule, 7 * joule, time.Second, 12 * joule, nil},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnwrap(tc.modulus, 250*energy.Watt)
			const begin = time.Hour
			u.begin(begin, tc.from)
			epoch := u.epoch
			err := u.add(begin+tc.dt, tc.to)
			var r energy.Reading
			u.fill(&r)
			if !errors.Is(err, tc.err) || err == nil && tc.err != nil {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			want := energy.Reading{Epoch: epoch, At: begin + tc.dt, Energy: tc.grown, Unmeasured: begin, Interval: tc.dt, Power: tc.grown.Over(tc.dt)}
			if tc.err != nil {
				if r.Epoch == epoch {
					t.Error("the totals began anew in the same epoch")
				}
				want = energy.Reading{Epoch: r.Epoch, At: begin + tc.dt, Unmeasured: begin + tc.dt}
			}
			want.MinPower, want.MaxPower = want.Power, want.Power
			if r != want {
				t.Errorf("got  %+v\nwant %+v", r, want)
			}
		})
	}
}

// account is what a reader of readings does: it adds up differences within an epoch.
type account struct {
	last   energy.Reading
	energy energy.Energy
	epochs int
}

func (a *account) take(t *testing.T, r energy.Reading) {
	t.Helper()
	if r.Epoch == a.last.Epoch {
		if d := r.Energy - a.last.Energy; d < 0 || r.At < a.last.At || r.Unmeasured < a.last.Unmeasured ||
			r.Samples < a.last.Samples || r.SensorErrors < a.last.SensorErrors {
			t.Fatalf("went back within an epoch: from %+v to %+v", a.last, r)
		}
		a.energy += r.Energy - a.last.Energy
	} else {
		a.epochs++
	}
	a.last = r
}

// TestUnwrapLoad runs counters of several ranges under a random load, restarting now and then with nothing but the last
// reading. Whatever the counter counted has to be in the account, to its step.
func TestUnwrapLoad(t *testing.T) {
	for name, tc := range map[string]struct{ modulus, unit uint64 }{
		"RAPL":           {raplRange, 61},
		"AMD":            {65_532_610_987, 15},
		"coarse RAPL":    {4_191_888_079_872, 976},
		"psys in joules": {4_294_967_295 * joule, joule},
		"INA228":         {0, 6400},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(len(name))))
			var a account
			var restarts, wraps int
			u := newUnwrap(tc.modulus, 300*energy.Watt)
			truth := rng.Uint64N(1_000_000 * joule)
			show := func() uint64 {
				raw := truth / tc.unit * tc.unit
				if tc.modulus > 0 {
					raw %= tc.modulus
				}
				return raw
			}
			at := time.Hour
			first := truth
			u.begin(at, show())
			for range 20_000 {
				var r energy.Reading
				u.fill(&r)
				a.take(t, r)
				dt := time.Duration(rng.Int64N(int64(100 * time.Second)))
				before := show()
				if rng.IntN(50) == 0 { // another process takes over
					restarts++
					u = newUnwrap(tc.modulus, 300*energy.Watt)
					if err := u.resume(a.last); err != nil {
						t.Fatal(err)
					}
					dt *= 2
				}
				at += dt
				truth += uint64(dt.Seconds() * 200 * rng.Float64() * joule)
				if show() < before {
					wraps++
				}
				if err := u.add(at, show()); err != nil {
					t.Fatal(err)
				}
			}
			var last energy.Reading
			u.fill(&last)
			a.take(t, last)
			// At both ends the counter stood between two steps, and a range that is no multiple of the step is rounded down.
			slack := int64(2*max(tc.unit, u.step)) + int64(wraps)*int64(tc.modulus-u.modulus)
			if off := int64(truth-first) - int64(u.energy); off > slack || off < -slack {
				t.Errorf("counted %d µJ of %d, off by %d", u.energy, truth-first, off)
			}
			if a.energy != u.energy || a.epochs != 1 {
				t.Errorf("account of %d µJ in %d epochs, counted %d", a.energy, a.epochs, u.energy)
			}
			if restarts < 100 || tc.modulus == raplRange && wraps < 100 {
				t.Errorf("only %d restarts, %d wraps: the test shows nothing", restarts, wraps)
			}
		})
	}
}

func TestEpoch(t *testing.T) {
	u := newUnwrap(raplRange, 250*energy.Watt)
	u.begin(time.Hour, 152_345_678_901)
	if got := u.epoch & (1<<40 - 1); got != 152_345_678_901 {
		t.Errorf("phase %d", got)
	}
	if got := u.epoch >> 43; got != tag("boot", "device") {
		t.Errorf("tag %d", got)
	}
	// A counter that is reset again and again to the same value: a reader remembers epochs that ended.
	seen := map[uint64]bool{u.epoch: true}
	for n := range 7 {
		u.begin(time.Hour+time.Duration(n)*time.Second, 152_345_678_901)
		if seen[u.epoch] {
			t.Errorf("epoch %x a second time", u.epoch)
		}
		seen[u.epoch] = true
	}
	for _, boot := range []string{"a", "b"} {
		for _, device := range []string{"psys", "package-0"} {
			id := tag(boot, device)
			if id == 0 || id >= 1<<21 || seen[id] {
				t.Errorf("tag %x of %s, %s", id, boot, device)
			}
			seen[id] = true
		}
	}
}

func TestResumeRefused(t *testing.T) {
	u := newUnwrap(0, 0)
	u.begin(time.Hour, 5*joule)
	good := energy.Reading{Epoch: u.epoch, At: time.Hour, Energy: 3 * joule, Unmeasured: time.Minute}
	if err := newUnwrap(0, 0).resume(good); err != nil {
		t.Fatal(err)
	}
	u.begin(time.Hour, (phaseMask+5)*1000) // 1.1 GJ: its place does not fit
	far := good
	far.Epoch = u.epoch
	negative := good
	negative.Energy = -1
	for name, tc := range map[string]struct {
		tag uint64
		r   energy.Reading
	}{
		"after a reboot":    {tag("another boot", "device"), good},
		"another device":    {tag("boot", "another device"), good},
		"phase not known":   {tag("boot", "device"), far},
		"no such total":     {tag("boot", "device"), negative},
		"no reading at all": {tag("boot", "device"), energy.Reading{}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnwrap(0, 0)
			u.tag = tc.tag
			if err := u.resume(tc.r); err == nil {
				t.Error("resumed")
			}
		})
	}
}

// TestRestart ends the agent after 20 J and starts it again. In the end an account holds those, what the counter counted in
// between if that can be told, and 30 J more.
func TestRestart(t *testing.T) {
	const attr = "class/powercap/intel-rapl:1/energy_uj" // psys, which states no limits: bound 1 kW, a wrap takes 262 s
	for name, tc := range map[string]struct {
		from, stop, start, end string // the counter
		between                func(r *rig)
		down                   time.Duration
		energy                 energy.Energy
		epochs                 int
		lost                   uint64 // times the counter lost track
		unmeasured             time.Duration
	}{
		"counter runs on": {from: "100000000", stop: "120000000", start: "200000000", end: "230000000", down: time.Minute,
			energy: 130 * joule, epochs: 1, unmeasured: time.Hour},
		"counter wraps meanwhile": {from: "262103328850", stop: "262123328850", start: "60000000", end: "90000000", down: time.Minute,
			energy: 130 * joule, epochs: 1, unmeasured: time.Hour},
		"counter wrapped before": {from: "262133328850", stop: "10000000", start: "60000000", end: "90000000", down: time.Minute,
			energy: 100 * joule, epochs: 1, unmeasured: time.Hour},
		"down for too long": {from: "100000000", stop: "120000000", start: "200000000", end: "230000000", down: 263 * time.Second,
			energy: 50 * joule, epochs: 2, lost: 1, unmeasured: time.Hour + time.Second + 263*time.Second},
		"counter was reset": {from: "100000000000", stop: "100020000000", start: "1000000", end: "31000000", down: time.Minute,
			energy: 50 * joule, epochs: 2, lost: 1, unmeasured: time.Hour + time.Second + time.Minute},
		"reboot": {from: "100000000", stop: "120000000", start: "1000000", end: "31000000",
			between: func(r *rig) { r.boot("e9d8c7b6-0000-4000-8000-000000000000"); r.uptime = 40 * time.Second },
			energy:  50 * joule, epochs: 2, unmeasured: 40 * time.Second},
		"uptime went back": {from: "100000000", stop: "120000000", start: "130000000", end: "160000000",
			between: func(r *rig) { r.uptime = 40 * time.Second },
			energy:  50 * joule, epochs: 2, lost: 1, unmeasured: 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "nuc-rapl")
			r.set(attr, tc.from)
			var a account
			s := r.mustOpen(r.config("powercap"))
			a.take(t, r.after(0, s))
			r.set(attr, tc.stop)
			a.take(t, r.after(time.Second, s))
			if a.energy != 20*joule {
				t.Fatalf("%d µJ before the restart", a.energy)
			}
			s.Close()

			r.uptime += tc.down
			if tc.between != nil {
				tc.between(r)
			}
			r.set(attr, tc.start)
			cfg := r.config("powercap")
			asked := 0
			cfg.Resume = func() (energy.Reading, bool) { asked++; return a.last, true }
			s = r.mustOpen(cfg)
			if asked != 0 {
				t.Error("Open asked for the last reading; whoever keeps it may not be there yet")
			}
			a.take(t, r.after(0, s))
			r.set(attr, tc.end)
			a.take(t, r.after(time.Second, s))
			if a.energy != tc.energy || a.epochs != tc.epochs || a.last.Unmeasured != tc.unmeasured {
				t.Errorf("account of %d µJ in %d epochs, unmeasured %v; want %d in %d, %v",
					a.energy, a.epochs, a.last.Unmeasured, tc.energy, tc.epochs, tc.unmeasured)
			}
			if st := s.Status(); asked != 1 || st.Errors["counter"] != tc.lost || st.Restarts != tc.lost {
				t.Errorf("asked %d times for the last reading, errors %v, %d restarts", asked, st.Errors, st.Restarts)
			}
		})
	}
}

// TestNoResume starts anew where nobody knows a last reading.
func TestNoResume(t *testing.T) {
	r := newRig(t, "ina228")
	cfg := r.config("hwmon")
	cfg.Resume = func() (energy.Reading, bool) { return energy.Reading{}, false }
	s := r.mustOpen(cfg)
	if got := r.after(0, s); got.Energy != 0 || got.Unmeasured != time.Hour || got.Interval != 0 {
		t.Errorf("%+v", got)
	}
}

// TestPackages adds two packages, of which one wraps.
func TestPackages(t *testing.T) {
	const rapl = "class/powercap/"
	r := newRig(t, "nuc-rapl")
	r.move(rapl+"intel-rapl:1", "gone")
	r.add(rapl+"intel-rapl:2/name", "package-1\n")
	r.add(rapl+"intel-rapl:2/energy_uj", "262143000000\n") // 328850 µJ before the end
	r.add(rapl+"intel-rapl:2/max_energy_range_uj", "262143328850\n")
	var last energy.Reading
	cfg := r.config("powercap")
	cfg.Resume = func() (energy.Reading, bool) { return last, last.Epoch != 0 }
	last = r.after(0, r.mustOpen(cfg)) // the two together are beyond the range of one
	s := r.mustOpen(cfg)
	if got := r.after(time.Second, s); got.Energy != 0 || got.Epoch != last.Epoch {
		t.Errorf("resumed with %+v", got)
	}
	r.set(rapl+"intel-rapl:0/energy_uj", "61239567890\n") // 5 J more
	r.set(rapl+"intel-rapl:2/energy_uj", "671150\n")      // 1 J more
	last = r.after(time.Second, s)
	if last.Energy != 6*joule || last.Power != 6*energy.Watt {
		t.Errorf("%d µJ, %v; want 6 J", last.Energy, last.Power)
	}
	s = r.mustOpen(cfg)
	r.set(rapl+"intel-rapl:0/energy_uj", "61241567890\n") // 2 J more
	if got := r.after(time.Second, s); got.Energy != 8*joule || got.Epoch != last.Epoch || got.Samples != 4 {
		t.Errorf("after a restart %+v; want 8 J of epoch %d", got, last.Epoch)
	}
}

// TestBound has the power bound, which decides how long a counter may go unread.
func TestBound(t *testing.T) {
	const zone = "class/powercap/intel-rapl:0/"
	for name, tc := range map[string]struct {
		device string
		set    map[string]string
		max    energy.Power
		want   energy.Power
	}{
		"twice the largest that is stated": {"intel-rapl:0", nil, 0, 252 * energy.Watt}, // peak_power's limit, 126 W
		"a stated maximum":                 {"intel-rapl:0", map[string]string{"constraint_1_max_power_uw": "200000000\n"}, 0, 400 * energy.Watt},
		"nothing stated":                   {"psys", nil, 0, 1000 * energy.Watt},
		"nonsense stated":                  {"intel-rapl:0", map[string]string{"constraint_1_max_power_uw": "1000000000001\n"}, 0, 1000 * energy.Watt},
		"configured":                       {"psys", nil, 90 * energy.Watt, 90 * energy.Watt},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "nuc-rapl")
			for f, v := range tc.set {
				r.set(zone+f, v)
			}
			cfg := r.config("powercap")
			cfg.Device, cfg.MaxPower = tc.device, tc.max
			if got := r.mustOpen(cfg).total.bound; got != tc.want {
				t.Errorf("bound %v, want %v", got, tc.want)
			}
		})
	}
}
