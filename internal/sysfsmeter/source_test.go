package sysfsmeter

import (
	"context"
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const piRail = "class/hwmon/hwmon2/"

// TestFaults breaks a power sampler for two polls, mends it, and polls twice more. What failed is counted, the time is
// unmeasured, and energy is that of the seconds with a good poll at both ends.
func TestFaults(t *testing.T) {
	const dir = "devices/platform/soc/fe804000.i2c/i2c-1/1-0040/hwmon/hwmon2"
	for name, tc := range map[string]struct {
		fail, mend func(r *rig)
		errors     map[string]uint64
		says       string
		connects   uint64
	}{
		"empty file": {
			func(r *rig) { r.set(piRail+"in4_input", "") }, func(r *rig) { r.set(piRail+"in4_input", "61240\n") },
			map[string]uint64{"parse": 2}, "in4_input", 3},
		"garbage": {
			func(r *rig) { r.set(piRail+"in1_input", "5,104 V\n") }, func(r *rig) { r.set(piRail+"in1_input", "5104\n") },
			map[string]uint64{"parse": 2}, `"5,104 V\n"`, 3},
		"a number that cannot be": {
			func(r *rig) { r.set(piRail+"in1_input", "99999999\n") }, func(r *rig) { r.set(piRail+"in1_input", "5104\n") },
			map[string]uint64{"parse": 2}, "99999999", 3},
		"a negative number that cannot be": {
			func(r *rig) { r.set(piRail+"in4_input", "-1000000001\n") }, func(r *rig) { r.set(piRail+"in4_input", "61240\n") },
			map[string]uint64{"parse": 2}, "-1000000001", 3},
		"a product that cannot be": { // 900 V and 163.8 A
			func(r *rig) { r.set(piRail+"in1_input", "900000\n"); r.set(piRail+"in4_input", "16380000\n") },
			func(r *rig) { r.set(piRail+"in1_input", "5104\n"); r.set(piRail+"in4_input", "61240\n") },
			map[string]uint64{"parse": 2}, "147.420 kW", 3},
		"driver unbound": {
			func(r *rig) { r.faults["in1_input"] = syscall.ENODEV; r.move(dir, dir+".gone") },
			func(r *rig) { delete(r.faults, "in1_input"); r.move(dir+".gone", dir) },
			map[string]uint64{"read": 2}, "not found", 2},
		"bus hangs up": {
			func(r *rig) { r.faults["in4_input"] = syscall.EREMOTEIO }, func(r *rig) { delete(r.faults, "in4_input") },
			map[string]uint64{"read": 2}, "remote I/O error", 3},
		"channel switched off": { // the file stays good, so it is not opened again
			func(r *rig) { r.faults["in1_input"] = syscall.ENODATA }, func(r *rig) { delete(r.faults, "in1_input") },
			map[string]uint64{"read": 2}, "no data available", 1},
		"driver busy": {
			func(r *rig) { r.faults["in1_input"] = syscall.EAGAIN }, func(r *rig) { delete(r.faults, "in1_input") },
			map[string]uint64{"read": 2}, "temporarily unavailable", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "raspberrypi-ina3221")
			cfg := r.config("hwmon")
			cfg.Period = 2 * time.Second // longer than the wait between two searches
			s := r.mustOpen(cfg)
			good := r.after(2*time.Second, s)
			if good.Energy != 2*3_125_690 {
				t.Fatalf("%d µJ in two seconds", good.Energy)
			}

			tc.fail(r)
			for range 2 {
				r.uptime += 2 * time.Second
				got, err := s.Read()
				if err == nil {
					t.Fatalf("read %+v", got)
				}
				st := s.Status()
				if st.Up || st.Err != err.Error() {
					t.Errorf("after error %q the status is %+v", err, st)
				}
			}
			if err := s.Status().Err; !strings.Contains(err, tc.says) || !strings.HasPrefix(err, "sysfsmeter: hwmon ina3221 1-0040 rail 5V_IN: ") {
				t.Errorf("error %q lacks %q", err, tc.says)
			}
			tc.mend(r)

			got := r.after(2*time.Second, s)
			if got.Energy != good.Energy || got.Unmeasured != 6*time.Second || got.Interval != 0 {
				t.Errorf("after the fault %+v; want no energy more and 6 s unmeasured", got)
			}
			got = r.after(2*time.Second, s)
			if got.Energy != 4*3_125_690 || got.Unmeasured != 6*time.Second || got.Epoch != good.Epoch || got.SensorErrors != 2 {
				t.Errorf("in the end %+v; want %d µJ and 6 s unmeasured", got, 4*3_125_690)
			}
			st := s.Status()
			if !st.Up || st.Err != "" || !maps.Equal(st.Errors, tc.errors) || st.Connects != tc.connects || st.Notifications != 3 {
				t.Errorf("status %+v; want errors %v and %d connects", st, tc.errors, tc.connects)
			}
			if n := strings.Count(r.log.String(), "\n"); n != 2 { // failing, recovered
				t.Errorf("%d lines logged:\n%s", n, r.log.String())
			}
		})
	}
}

// TestRenumbered takes the driver away and brings it back as another hwmonN, with another chip at the old one.
func TestRenumbered(t *testing.T) {
	const dev = "devices/platform/soc/fe804000.i2c/i2c-1/1-0040/hwmon/"
	r := newRig(t, "raspberrypi-ina3221")
	s := r.mustOpen(r.config("hwmon"))
	r.after(time.Second, s)
	r.faults["hwmon2/in1_input"] = syscall.ENODEV
	r.uptime += time.Second
	if got, err := s.Read(); err == nil {
		t.Fatalf("read %+v", got)
	}
	r.move(dev+"hwmon2", dev+"hwmon7")
	r.move("class/hwmon/hwmon2", "class/hwmon/hwmon7")
	if err := relink(r.root+"/class/hwmon/hwmon7", "../../"+dev+"hwmon7"); err != nil {
		t.Fatal(err)
	}
	r.add("class/hwmon/hwmon2/name", "ina226\n")
	r.add("class/hwmon/hwmon2/in1_input", "12000\n")
	r.add("class/hwmon/hwmon2/curr1_input", "1000\n")
	r.after(time.Second, s)
	if got := r.after(time.Second, s); got.Power != 3_125_690 {
		t.Errorf("read %v of %s", got.Power, s.Status().Identity)
	}
}

// TestGoneForLong polls often, and counts searches.
func TestGoneForLong(t *testing.T) {
	r := newRig(t, "raspberrypi-ina3221")
	cfg := r.config("hwmon")
	cfg.Period = 100 * time.Millisecond
	s := r.mustOpen(cfg)
	r.faults["in1_input"] = syscall.ENODEV
	r.faults["hwmon2/name"] = syscall.ENODEV
	for range 51 { // 5 s
		r.uptime += 100 * time.Millisecond
		if got, err := s.Read(); err == nil {
			t.Fatalf("read %+v", got)
		}
	}
	if n := s.Status().Errors["read"]; n != 6 { // the poll that failed, then one search a second
		t.Errorf("%d errors in 51 polls", n)
	}
	clear(r.faults)
	r.uptime += time.Second
	if _, err := s.Read(); err != nil {
		t.Error(err)
	}
}

// TestCounterFaults breaks an energy counter, which goes on counting.
func TestCounterFaults(t *testing.T) {
	const attr = "class/powercap/intel-rapl:1/energy_uj"
	for name, tc := range map[string]struct {
		fail func(r *rig)
		what string
	}{
		"read":     {func(r *rig) { r.faults["intel-rapl:1/energy_uj"] = syscall.EIO }, "read"},
		"garbage":  {func(r *rig) { r.set(attr, "?\n") }, "parse"},
		"negative": {func(r *rig) { r.set(attr, "-5\n") }, "parse"},
		"empty":    {func(r *rig) { r.set(attr, "") }, "parse"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "nuc-rapl")
			r.set(attr, "1000000\n")
			s := r.mustOpen(r.config("powercap"))
			first := r.after(0, s)
			tc.fail(r)
			for range 2 {
				r.uptime += 2 * time.Second
				if got, err := s.Read(); err == nil {
					t.Fatalf("read %+v", got)
				}
			}
			clear(r.faults)
			r.set(attr, "61000000\n")
			got := r.after(2*time.Second, s)
			if got.Epoch != first.Epoch || got.Energy != 60*joule || got.Unmeasured != first.Unmeasured ||
				got.Interval != 6*time.Second || got.Power != 10*energy.Watt || got.SensorErrors != 2 {
				t.Errorf("%+v; want 60 J in 6 s", got)
			}
			if st := s.Status(); !maps.Equal(st.Errors, map[string]uint64{tc.what: 2}) {
				t.Errorf("errors %v", st.Errors)
			}

			// The counts are the epoch's, so they go on over a restart and not over a reset.
			cfg := r.config("powercap")
			cfg.Resume = func() (energy.Reading, bool) { return got, true }
			s = r.mustOpen(cfg)
			if got := r.after(time.Second, s); got.SensorErrors != 2 || got.Samples != 3 {
				t.Errorf("after a restart %+v", got)
			}
			r.set(attr, "0\n")
			if got := r.after(time.Second, s); got.SensorErrors != 0 || got.Samples != 1 {
				t.Errorf("after a reset %+v", got)
			}
		})
	}
}

// TestNotFoundAgain closes the source and finds nothing when it is read again, for less than the largest gap.
func TestNotFoundAgain(t *testing.T) {
	r := newRig(t, "ina226")
	s := r.mustOpen(r.config("hwmon"))
	s.Close()
	r.faults["hwmon3/name"] = syscall.ENODEV
	r.uptime += time.Second
	if got, err := s.Read(); err == nil {
		t.Fatalf("read %+v", got)
	}
	clear(r.faults)
	if got := r.after(2*time.Second, s); got.Energy != 0 || got.Unmeasured != 3*time.Second {
		t.Errorf("%+v; want no energy and 3 s unmeasured", got)
	}
}

// TestAnotherInItsPlace does not go on with totals of another device.
func TestAnotherInItsPlace(t *testing.T) {
	r := newRig(t, "raspberrypi-ina3221")
	s := r.mustOpen(r.config("hwmon"))
	r.set(piRail+"in1_label", "12V_IN\n")
	s.Close()
	r.uptime += time.Second
	if got, err := s.Read(); err == nil || !strings.Contains(err.Error(), "rail 12V_IN") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBatteryCharges is on mains for a while.
func TestBatteryCharges(t *testing.T) {
	const bat = "class/power_supply/BAT0/"
	r := newRig(t, "laptop-battery")
	s := r.mustOpen(r.config("battery"))
	if got := r.after(time.Second, s); got.Energy != 7_110_000 {
		t.Fatalf("%d µJ", got.Energy)
	}
	for _, status := range []string{"Charging\n", "Full\n", "Not charging\n", "Unknown\n"} {
		r.set(bat+"status", status)
		if got := r.after(time.Second, s); got.Energy != 7_110_000 || got.Interval != 0 || got.Power != 0 {
			t.Errorf("%q: %+v", status, got)
		}
		if st := s.Status(); !st.Up {
			t.Errorf("%q: %+v", status, st)
		}
	}
	r.set(bat+"status", "Discharging\n")
	r.after(time.Second, s)
	if got := r.after(time.Second, s); got.Energy != 2*7_110_000 || got.Unmeasured != 5*time.Second || got.Samples != 4 {
		t.Errorf("%+v; want two seconds measured and five not", got)
	}
	if n := strings.Count(r.log.String(), "\n"); n != 2 {
		t.Errorf("%d lines logged:\n%s", n, r.log.String())
	}
}

// TestSuspend has a hole on the clock of the time since boot, which a suspended host's monotonic clock would not show.
func TestSuspend(t *testing.T) {
	r := newRig(t, "ina226")
	s := r.mustOpen(r.config("hwmon"))
	r.after(time.Second, s)
	got := r.after(8*time.Hour, s)
	if got.Energy != 3_823_632 || got.Unmeasured != 8*time.Hour {
		t.Errorf("%+v", got)
	}
}

// TestRun polls for ten seconds at ten a second.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "raspberrypi-ina3221")
		begin := time.Now()
		cfg := r.config("hwmon")
		cfg.Period = 100 * time.Millisecond
		cfg.Now, cfg.Uptime = time.Now, func() time.Duration { return time.Hour + time.Since(begin) }
		s := r.mustOpen(cfg)
		if st := s.Status(); st.Up || !strings.Contains(st.Err, "not read yet") {
			t.Errorf("before the first reading %+v", st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		var got []energy.Reading
		if err := s.Run(ctx, func(channel int, r energy.Reading) {
			if channel != 1 {
				t.Errorf("channel %d", channel)
			}
			got = append(got, r)
			if st := s.Status(); !st.Up {
				t.Errorf("reading %d: %+v", len(got), st)
			}
		}); err != nil {
			t.Error(err)
		}
		if len(got) != 101 {
			t.Fatalf("%d readings", len(got))
		}
		last := got[100]
		if last.Energy != 31_256_900 || last.At != 10*time.Second || last.Unmeasured != 0 || last.Samples != 102 {
			t.Errorf("last %+v", last)
		}
		if s.sampler != nil {
			t.Error("the files are still open")
		}
		<-time.After(2 * time.Second)
		if st := s.Status(); st.Up || !strings.Contains(st.Err, "no answer for 2.001s") {
			t.Errorf("two seconds after the end %+v", st)
		}
	})
}

// failing is an attribute that fails while bad says so.
type failing struct {
	attr
	bad func() bool
}

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if f.bad() {
		return 0, errors.New("broken")
	}
	return f.attr.ReadAt(b, off)
}

// TestRunRecovers has the sensor fail for a second while Run polls.
func TestRunRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "ina226")
		begin := time.Now()
		uptime := func() time.Duration { return time.Since(begin) }
		cfg := r.config("hwmon")
		cfg.Period = 100 * time.Millisecond
		cfg.Now, cfg.Uptime = time.Now, uptime
		cfg.open = func(path string) (attr, error) {
			f, err := openAttr(path)
			return failing{f, func() bool {
				return strings.HasSuffix(path, "curr1_input") && uptime() > time.Second && uptime() < 2*time.Second
			}}, err
		}
		s := r.mustOpen(cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var last energy.Reading
		if err := s.Run(ctx, func(_ int, got energy.Reading) {
			if last = got; got.At == 4*time.Second {
				cancel()
			}
		}); err != nil {
			t.Error(err)
		}
		// Good to 1.0 s. Polls fail at 1.1 s and, opened anew, at 1.2 s; the next search is at 2.2 s, which is good.
		want := energy.Energy(3_823_632 * 28 / 10)
		if off := last.Energy - want; off < -1 || off > 1 || last.Unmeasured != 1200*time.Millisecond || last.SensorErrors != 2 {
			t.Errorf("%d µJ, unmeasured %v, %d errors; want %d, 1.2s, 2", last.Energy, last.Unmeasured, last.SensorErrors, want)
		}
	})
}

// slow is an attribute whose driver waits until it is let go.
type slow struct {
	attr
	entered, release chan struct{}
}

func (s slow) ReadAt(b []byte, off int64) (int, error) {
	s.entered <- struct{}{}
	<-s.release
	return s.attr.ReadAt(b, off)
}

// TestStatusWhileReading asks for the status while the driver keeps a read waiting.
func TestStatusWhileReading(t *testing.T) {
	r := newRig(t, "ina226")
	cfg := r.config("hwmon")
	entered, release := make(chan struct{}), make(chan struct{})
	armed := false
	cfg.open = func(path string) (attr, error) {
		f, err := openAttr(path)
		if err == nil && armed && strings.HasSuffix(path, "curr1_input") {
			return slow{f, entered, release}, nil
		}
		return f, err
	}
	s := r.mustOpen(cfg)
	armed = true
	s.Close() // the next read opens the slow one

	done := make(chan error)
	go func() { _, err := s.Read(); done <- err }()
	<-entered
	if st := s.Status(); st.Kind != "sysfs" {
		t.Errorf("%+v", st)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestConcurrent uses everything at once, for the race detector.
func TestConcurrent(t *testing.T) {
	r := newRig(t, "raspberrypi-ina3221")
	cfg := r.config("hwmon")
	cfg.Uptime, cfg.Now, cfg.open = nil, nil, nil
	s := r.mustOpen(cfg)
	done := make(chan struct{})
	for _, use := range []func(){
		func() { _, _ = s.Read() }, func() { _, _ = s.Read() }, func() { s.Status().Errors["x"]++ }, func() { s.Close() },
	} {
		go func() {
			for range 200 {
				use()
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		<-done
	}
	if got, err := s.Read(); err != nil || got.SensorErrors != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestAllocs has no memory taken per poll, with the clocks and files that an agent has.
func TestAllocs(t *testing.T) {
	for board, kind := range map[string]string{
		"raspberrypi-ina3221": "hwmon", "jetson-nano-iio": "iio", "nuc-rapl": "powercap", "laptop-battery": "battery", "ina228": "hwmon",
	} {
		r := newRig(t, board)
		cfg := r.config(kind)
		cfg.Uptime, cfg.Now, cfg.open = nil, nil, nil
		s := r.mustOpen(cfg)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := s.Read(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per poll", board, n)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, tc := range []struct{ board, kind string }{{"raspberrypi-ina3221", "hwmon"}, {"nuc-rapl", "powercap"}} {
		b.Run(tc.board, func(b *testing.B) {
			root := b.TempDir()
			unpack(b, root, tc.board)
			s, err := Open(Config{Root: root, ProcRoot: "/proc", Kind: tc.kind})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for b.Loop() {
				if _, err := s.Read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
