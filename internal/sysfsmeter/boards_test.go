package sysfsmeter

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// TestBoards reads each board as its archive describes it, for one second.
func TestBoards(t *testing.T) {
	for _, tc := range []struct {
		board, kind, identity string
		want                  energy.Reading // of means and totals after a second
	}{
		{"raspberrypi-ina3221", "hwmon", "hwmon ina3221 1-0040 rail 5V_IN", energy.Reading{
			Power: 3_125_690, Energy: 3_125_690, Charge: 612_400, Voltage: 5_104_000, Current: 612_400}},
		{"jetson-orin-ina3221", "hwmon", "hwmon ina3221 1-0040 rail VDD_IN", energy.Reading{
			Power: 5_502_336, Energy: 5_502_336, Charge: 1_104_000, Voltage: 4_984_000, Current: 1_104_000}},
		{"jetson-nano-iio", "iio", "iio ina3221x 6-0040 rail POM_5V_IN", energy.Reading{
			Power: 2_091_000, Energy: 2_091_000, Charge: 403_980, Voltage: 5_176_000, Current: 403_980}}, // 2.091 W / 5.176 V
		{"ina226", "hwmon", "hwmon ina226 1-0041", energy.Reading{
			Power: 3_823_632, Energy: 3_823_632, Charge: 318_000, Voltage: 12_024_000, Current: 318_000}},
		{"laptop-battery", "battery", "battery BAT0", energy.Reading{
			Power: 7_110_000, Energy: 7_110_000, Charge: 600_000, Voltage: 11_850_000, Current: 600_000}},
	} {
		t.Run(tc.board, func(t *testing.T) {
			r := newRig(t, tc.board)
			s := r.mustOpen(r.config(tc.kind))
			got := r.after(time.Second, s)

			want := tc.want
			want.Epoch, want.At, want.Interval = got.Epoch, time.Second, time.Second
			want.Host = bootDate.Add(time.Hour + time.Second)
			want.MinPower, want.MaxPower, want.MinVolts, want.MaxVolts = want.Power, want.Power, want.Voltage, want.Voltage
			want.Samples = 2
			if got != want {
				t.Errorf("read\n%+v, want\n%+v", got, want)
			}
			if got.Epoch == 0 {
				t.Error("epoch is zero")
			}
			if st := s.Status(); !st.Up || st.Err != "" || st.Kind != "sysfs" || st.Identity != tc.identity ||
				st.LastSuccess != want.Host || st.Notifications != 1 || st.Connects != 1 || len(st.Errors) != 0 {
				t.Errorf("status %+v", st)
			}
			s.Status().Errors["read"]++
			if n := s.Status().Errors["read"]; n != 0 {
				t.Error("who asks for the status can change it")
			}
			if again := r.mustOpen(r.config(tc.kind)); r.after(time.Second, again).Epoch == got.Epoch {
				t.Error("opened again, the source has the same epoch, though its totals began at zero")
			}
		})
	}
}

// TestCounters reads the boards with energy counters.
func TestCounters(t *testing.T) {
	for _, tc := range []struct {
		board, kind, identity, attr string
		to                          string
		grown                       energy.Energy
	}{
		{"nuc-rapl", "powercap", "powercap psys intel-rapl:1", "class/powercap/intel-rapl:1/energy_uj", "152375678901\n", 30_000_000},
		{"ina228", "hwmon", "hwmon ina228 1-0045", "class/hwmon/hwmon1/energy1_input", "815609600\n", 3_264_000},
	} {
		t.Run(tc.board, func(t *testing.T) {
			r := newRig(t, tc.board)
			s := r.mustOpen(r.config(tc.kind))
			first := r.after(0, s)
			want := energy.Reading{Epoch: first.Epoch, At: time.Hour, Host: bootDate.Add(time.Hour), Unmeasured: time.Hour, Samples: 1, EnergyOnly: true}
			if first != want {
				t.Errorf("first\n%+v, want\n%+v", first, want)
			}
			r.set(tc.attr, tc.to)
			got := r.after(time.Second, s)
			p := tc.grown.Over(time.Second)
			want = energy.Reading{
				Epoch: first.Epoch, At: time.Hour + time.Second, Host: bootDate.Add(time.Hour + time.Second), Unmeasured: time.Hour,
				Energy: tc.grown, Interval: time.Second, Power: p, MinPower: p, MaxPower: p, Samples: 2, EnergyOnly: true,
			}
			if got != want {
				t.Errorf("read\n%+v, want\n%+v", got, want)
			}
			if st := s.Status(); !st.Up || st.Identity != tc.identity || !st.Clock.Valid || st.Clock.Offset != 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestVariants changes one thing about a board and reads the power.
func TestVariants(t *testing.T) {
	type files map[string]string
	const rpi, ina226, bat = "class/hwmon/hwmon2/", "class/hwmon/hwmon3/", "class/power_supply/BAT0/"
	for name, tc := range map[string]struct {
		board, kind, device, rail string
		set, add                  files
		power                     energy.Power
		current                   energy.Current
		saturated                 uint64
	}{
		"current flows backwards": {board: "raspberrypi-ina3221", kind: "hwmon", set: files{rpi + "in4_input": "-40\n"},
			power: -2042, current: -400}, // 5.104 V · 0.4 mA = 2.0416 mW
		"shunt at the end of its range": {board: "raspberrypi-ina3221", kind: "hwmon", set: files{rpi + "in4_input": "163800\n"},
			power: 8_360_352, current: 1_638_000, saturated: 2},
		"power is not of rounded current": {board: "raspberrypi-ina3221", kind: "hwmon",
			set:   files{rpi + "in4_input": "40\n", rpi + "shunt1_resistor": "7000\n"},
			power: 29_166, current: 5_714}, // 5.104 V · 40 µV / 7 mΩ = 29.1657 mW, but 5.104 V · 5.714 mA = 29.1643 mW
		"no shunt resistor known": {board: "raspberrypi-ina3221", kind: "hwmon", set: files{rpi + "shunt1_resistor": "0\n"},
			power: 3_123_648, current: 612_000}, // 5.104 V · 612 mA
		"rail by label": {board: "jetson-orin-ina3221", kind: "hwmon", rail: "VDD_SOC", power: 1_475_264, current: 296_000},
		"rail by number and device by address": {board: "jetson-orin-ina3221", kind: "hwmon", device: "1-0040", rail: "2",
			power: 996_800, current: 200_000},
		"iio rail": {board: "jetson-nano-iio", kind: "iio", device: "ina3221x", rail: "POM_5V_CPU", power: 404_000, current: 77_932},
		"ina226 backwards": {board: "ina226", kind: "hwmon", set: files{ina226 + "curr1_input": "-318\n"},
			power: -3_823_632, current: -318_000},
		"ina238 has a fine power register": {board: "ina226", kind: "hwmon",
			set: files{ina226 + "name": "ina238\n", ina226 + "power1_input": "3823917\n"}, power: 3_823_917, current: 318_000},
		"ina238 backwards": {board: "ina226", kind: "hwmon",
			set:   files{ina226 + "name": "ina238\n", ina226 + "power1_input": "3823917\n", ina226 + "curr1_input": "-318\n"},
			power: -3_823_917, current: -318_000},
		"a chip we do not know, asked for": {board: "ina226", kind: "hwmon", device: "1-0041",
			set: files{ina226 + "name": "max34417\n"}, power: 3_800_000, current: 318_000},
		"battery that states current": {board: "laptop-battery", kind: "battery",
			set: files{bat + "voltage_now": "12000000\n"}, add: files{bat + "current_now": "-500000\n", bat + "power_now": ""},
			power: 6_000_000, current: 500_000},
		"battery that states discharge negative": {board: "laptop-battery", kind: "battery",
			set: files{bat + "power_now": "-7110000\n"}, power: 7_110_000, current: 600_000},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tc.board)
			for f, v := range tc.set {
				r.set(f, v)
			}
			for f, v := range tc.add {
				if v == "" {
					r.move(f, f+".gone")
				} else {
					r.add(f, v)
				}
			}
			cfg := r.config(tc.kind)
			cfg.Device, cfg.Rail = tc.device, tc.rail
			got := r.after(time.Second, r.mustOpen(cfg))
			if got.Power != tc.power || got.Current != tc.current || got.Saturated != tc.saturated {
				t.Errorf("power %d, current %d, saturated %d; want %d, %d, %d",
					got.Power, got.Current, got.Saturated, tc.power, tc.current, tc.saturated)
			}
			if got.Energy != energy.Energy(tc.power) {
				t.Errorf("energy %d µJ after a second of %d µW", got.Energy, tc.power)
			}
		})
	}
}

// TestChoice has what is taken of several, and the errors where that cannot be said.
func TestChoice(t *testing.T) {
	const rpi, orin, rapl, bat = "class/hwmon/hwmon2/", "class/hwmon/hwmon3/", "class/powercap/", "class/power_supply/"
	second := func(r *rig, limit string) {
		r.add(rapl+"intel-rapl:2/name", "package-1\n")
		r.add(rapl+"intel-rapl:2/energy_uj", "10000000\n")
		r.add(rapl+"intel-rapl:2/max_energy_range_uj", limit)
	}
	for name, tc := range map[string]struct {
		board, kind, device, rail string
		change                    func(r *rig)
		want                      string   // identity
		errs                      []string // parts of the error
	}{
		"psys before package": {board: "nuc-rapl", kind: "powercap", want: "powercap psys intel-rapl:1"},
		"package where psys is not wired": {board: "nuc-rapl", kind: "powercap",
			change: func(r *rig) { r.set(rapl+"intel-rapl:1/energy_uj", "0\n") }, want: "powercap package-0 intel-rapl:0"},
		"all packages where there is no psys": {board: "nuc-rapl", kind: "powercap",
			change: func(r *rig) { r.move(rapl+"intel-rapl:1", "gone"); second(r, "262143328850\n") },
			want:   "powercap packages intel-rapl:0+intel-rapl:2"},
		"packages that cannot be added": {board: "nuc-rapl", kind: "powercap",
			change: func(r *rig) { r.move(rapl+"intel-rapl:1", "gone"); second(r, "65532610987\n") },
			errs:   []string{"packages", "different", "choose"}},
		"zone by directory": {board: "nuc-rapl", kind: "powercap", device: "intel-rapl:0:0", want: "powercap core intel-rapl:0:0"},
		"zone by name":      {board: "nuc-rapl", kind: "powercap", device: "psys", want: "powercap psys intel-rapl:1"},
		"name of two zones": {board: "nuc-rapl", kind: "powercap", device: "package-0",
			want: "powercap package-0 intel-rapl:0"}, // not the second view through MMIO
		"only parts are there": {board: "nuc-rapl", kind: "powercap",
			change: func(r *rig) { r.move(rapl+"intel-rapl:1", "gone"); r.move(rapl+"intel-rapl:0", "gone0") },
			errs:   []string{"whole board", "choose", "powercap core intel-rapl:0:0"}},
		"zone without range": {board: "nuc-rapl", kind: "powercap", change: func(r *rig) { r.set(rapl+"intel-rapl:1/max_energy_range_uj", "") },
			errs: []string{"psys", "max_energy_range_uj"}},

		"rails of which none is the board's": {board: "jetson-orin-ina3221", kind: "hwmon",
			change: func(r *rig) { r.set(orin+"in1_label", "VDD_GPU\n") },
			errs:   []string{"choose", "rail VDD_GPU", "rail VDD_CPU_GPU_CV", "rail VDD_SOC"}},
		"the board's rail is switched off": {board: "jetson-orin-ina3221", kind: "hwmon",
			change: func(r *rig) { r.set(orin+"in1_enable", "0\n"); r.set(orin+"in2_enable", "0\n") },
			errs:   []string{"VDD_IN is disabled"}},
		"no switch, but the kernel says so": {board: "raspberrypi-ina3221", kind: "hwmon",
			change: func(r *rig) {
				for _, n := range []string{"1", "2", "3"} {
					r.move(rpi+"in"+n+"_enable", rpi+"gone"+n)
				}
				r.faults["in2_input"], r.faults["in3_input"] = syscall.ENODATA, syscall.ENODATA
			}, want: "hwmon ina3221 1-0040 rail 5V_IN"},
		"rail without label": {board: "raspberrypi-ina3221", kind: "hwmon", change: func(r *rig) { r.move(rpi+"in1_label", "gone") },
			want: "hwmon ina3221 1-0040 rail 1"},
		"rail that is not there": {board: "jetson-orin-ina3221", kind: "hwmon", rail: "VDD_CPU",
			errs: []string{"hwmon VDD_CPU below", "not found", "rail VDD_CPU_GPU_CV"}},
		"a processor's power sensor": {board: "ina226", kind: "hwmon", change: func(r *rig) { r.set("class/hwmon/hwmon3/name", "amdgpu\n") },
			errs: []string{"none is known to carry the whole board", "hwmon amdgpu 1-0041"}},
		"nothing that measures": {board: "raspberrypi-ina3221", kind: "hwmon", change: func(r *rig) { r.move(rpi[:len(rpi)-1], "gone") },
			errs: []string{"not found", "cpu_thermal", "rpi_volt"}},
		"another kind": {board: "nuc-rapl", kind: "hwmon", errs: []string{"class/hwmon/*/name", "not found", "powercap psys intel-rapl:1"}},
		"kind unknown": {board: "laptop-battery", kind: "rapl", errs: []string{`"rapl"`, "hwmon, iio, powercap, battery", "battery BAT0"}},

		"host's battery, not the mouse's": {board: "laptop-battery", kind: "battery",
			change: func(r *rig) { r.add(bat+"hidpp_battery_0/current_now", "12000\n") }, want: "battery BAT0"},
		"two batteries": {board: "laptop-battery", kind: "battery",
			change: func(r *rig) {
				r.add(bat+"BAT1/type", "Battery\n")
				r.add(bat+"BAT1/status", "Full\n")
				r.add(bat+"BAT1/power_now", "0\n")
			}, errs: []string{"choose", "battery BAT0", "battery BAT1"}},
		"battery taken out": {board: "laptop-battery", kind: "battery", change: func(r *rig) { r.set(bat+"BAT0/present", "0\n") },
			errs: []string{"BAT0 is not present"}},

		"energy_uj is root's": {board: "nuc-rapl", kind: "powercap", change: func(r *rig) { r.faults["energy_uj"] = os.ErrPermission },
			errs: []string{"energy_uj", "permission denied", "root", "5.10", "0400"}},
		"no boot id": {board: "nuc-rapl", kind: "powercap", change: func(r *rig) { r.proc = "" }, errs: []string{"procfs"}},
		"averages for longer than a poll may take": {board: "jetson-orin-ina3221", kind: "hwmon",
			change: func(r *rig) { r.set(orin+"update_interval", "8000\n") }, errs: []string{"16s", "update_interval"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tc.board)
			if tc.change != nil {
				tc.change(r)
			}
			cfg := r.config(tc.kind)
			cfg.Device, cfg.Rail = tc.device, tc.rail
			s, err := Open(cfg)
			if tc.want != "" {
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if got := s.Status().Identity; got != tc.want {
					t.Errorf("opened %q, want %q", got, tc.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("opened %q", s.Status().Identity)
			}
			for _, part := range tc.errs {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error lacks %q: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
		})
	}
}

func TestDefaultShuntIsQuestioned(t *testing.T) {
	r := newRig(t, "raspberrypi-ina3221")
	r.move("class/hwmon/hwmon2/in1_label", "gone")
	r.set("class/hwmon/hwmon2/shunt1_resistor", "10000\n")
	r.mustOpen(r.config("hwmon"))
	if !strings.Contains(r.log.String(), "shunt1_resistor is 10000 µΩ") {
		t.Errorf("no warning about the driver's default shunt: %s", r.log.String())
	}
}

func TestPeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		board, kind, interval string
		period, want          time.Duration
	}{
		"default":                     {"raspberrypi-ina3221", "hwmon", "7", 0, 100 * time.Millisecond},
		"battery":                     {"laptop-battery", "battery", "", 0, time.Second},
		"as asked":                    {"raspberrypi-ina3221", "hwmon", "7", 20 * time.Millisecond, 20 * time.Millisecond},
		"two reads, a cycle each":     {"raspberrypi-ina3221", "hwmon", "430", 0, 860 * time.Millisecond},
		"faster than values change":   {"ina226", "hwmon", "35", time.Millisecond, 35 * time.Millisecond},
		"a counter is never too slow": {"nuc-rapl", "powercap", "", 15 * time.Second, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tc.board)
			if tc.interval != "" {
				dir := map[string]string{"raspberrypi-ina3221": "hwmon2", "ina226": "hwmon3"}[tc.board]
				r.set("class/hwmon/"+dir+"/update_interval", tc.interval+"\n")
			}
			cfg := r.config(tc.kind)
			cfg.Period = tc.period
			if got := r.mustOpen(cfg).period; got != tc.want {
				t.Errorf("period %v, want %v", got, tc.want)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	r := newRig(t, "ina226")
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"root":   {func(c *Config) { c.Root = "" }, "no sysfs root"},
		"period": {func(c *Config) { c.Period = time.Minute }, "poll period 1m0s"},
		"gap":    {func(c *Config) { c.MaxGap = time.Hour }, "largest gap 1h0m0s"},
		"both":   {func(c *Config) { c.MaxGap = time.Millisecond }, "shorter than the poll period"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := r.config("hwmon")
			tc.change(&cfg)
			if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	r := newRig(t, "jetson-orin-ina3221")
	r.set("class/hwmon/hwmon3/in3_enable", "0\n")
	want := []Device{
		{Kind: "hwmon", Name: "ina3221", Addr: "1-0040", Path: "class/hwmon/hwmon3", Rail: "VDD_IN", Default: true},
		{Kind: "hwmon", Name: "ina3221", Addr: "1-0040", Path: "class/hwmon/hwmon3", Rail: "VDD_CPU_GPU_CV"},
		{Kind: "hwmon", Name: "ina3221", Addr: "1-0040", Path: "class/hwmon/hwmon3", Rail: "VDD_SOC", Note: "disabled"},
	}
	got := List(r.root)
	if !slices.Equal(got, want) {
		t.Errorf("listed %+v", got)
	}
	if s := got[2].String(); s != "hwmon ina3221 1-0040 rail VDD_SOC (disabled)" {
		t.Errorf("shown as %q", s)
	}
	if got := List(t.TempDir()); len(got) != 0 {
		t.Errorf("listed %+v in an empty directory", got)
	}
	// Whatever is listed can be opened by its Addr and Rail.
	for _, board := range []string{"nuc-rapl", "jetson-nano-iio", "ina228"} {
		r := newRig(t, board)
		for _, d := range List(r.root) {
			cfg := r.config(d.Kind)
			cfg.Device, cfg.Rail = d.Addr, d.Rail
			if s := r.mustOpen(cfg); s.Status().Identity != d.String() {
				t.Errorf("asked for %q, opened %q", d, s.Status().Identity)
			}
		}
	}
}
