package metersim_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
)

// startFirmware runs the firmware that make has built until the test ends; without one the test is skipped.
func startFirmware(t *testing.T, o metersim.FirmwareOptions) *metersim.Firmware {
	t.Helper()
	o.Program, o.Identity = os.Getenv("WATTLET_METER"), "wattlet"
	if o.Program == "" {
		t.Skip("needs the firmware's process: make firmware-test sets WATTLET_METER")
	}
	o.Key = func() []byte { return []byte("0123456789abcdef") }
	f, err := metersim.NewFirmware(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // that one ends before cleanups
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

// until waits for a condition, at most a minute.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// last is the newest boot, empty before the first.
func last(f *metersim.Firmware) (b metersim.Boot) {
	if boots := f.Boots(); len(boots) > 0 {
		b = boots[len(boots)-1]
	}
	return b
}

// TestFirmwareMeasures feeds a load to each channel: the firmware's totals are the loads' integrals as far as its sensors see them.
func TestFirmwareMeasures(t *testing.T) {
	t.Parallel()
	f := startFirmware(t, metersim.FirmwareOptions{Options: metersim.Options{Name: "a bench", Seed: 7, Channels: []metersim.Channel{
		{Number: 1, Name: "a board", Load: metersim.Constant(5 * energy.Watt), Noise: 1.5},
		{Number: 2, Load: metersim.Square(2*energy.Watt, 8*energy.Watt, 70*time.Millisecond, 0.4), ShuntUohm: 50_000},
		{Number: 4, Load: metersim.Sine(5*energy.Watt, 3*energy.Watt, time.Second), ShuntUohm: 50_000, SourceUohm: 60_000},
		// Gain and offset of this sensor are wrong, and calibrated away.
		{Number: 6, Load: metersim.Constant(3 * energy.Watt), GainErrorPPM: 20_000, GainPPM: -19_608, OffsetUV: 60, OffsetNV: 60_000},
	}}})
	until(t, "a second", func() bool { b := last(f); return b.LastAt-b.Start > time.Second })
	a := last(f)
	until(t, "ten seconds more", func() bool { b := last(f); return b.LastAt-a.LastAt > 10*time.Second })
	b := last(f)
	for i, bound := range []float64{0.002, 0.01, 0.002, 0.003} {
		measured, drawn := b.Measured[i]-a.Measured[i], b.Truth[i]-a.Truth[i]
		off := measured.Joules()/drawn.Joules() - 1
		t.Logf("load %d: %v measured, %v drawn: %+.3f %%", i, measured, drawn, 100*off)
		if math.Abs(off) > bound {
			t.Errorf("load %d is more than %.1f %% off", i, 100*bound)
		}
	}
	at := uint64((b.LastAt - b.Start) / time.Microsecond)
	if e, ok := f.TotalAt(1, b.ID, at); !ok || e != b.Measured[0] {
		t.Errorf("total %v, %v; want %v", e, ok, b.Measured[0])
	}
	if _, ok := f.TotalAt(1, b.ID, at+1); ok {
		t.Error("a total of no report")
	}
}

// TestFirmwareReboots cuts its power: it comes back at the same address under another id, its clock at zero.
func TestFirmwareReboots(t *testing.T) {
	t.Parallel()
	f := startFirmware(t, metersim.FirmwareOptions{Options: metersim.Options{
		RebootTakes: 200 * time.Millisecond, Channels: []metersim.Channel{{Load: metersim.Constant(5 * energy.Watt)}},
	}})
	address := f.Addr().String()
	for n := 1; n <= 3; n++ {
		until(t, "a boot of a second", func() bool { b := last(f); return len(f.Boots()) == n && b.LastAt-b.Start > time.Second })
		f.Reboot()
	}
	until(t, "the last", func() bool { return len(f.Boots()) == 4 })
	boots := f.Boots()
	for i := 1; i < len(boots); i++ {
		if boots[i].ID == boots[i-1].ID || boots[i].ID == 0 || boots[i].Start < boots[i-1].End+200*time.Millisecond {
			t.Errorf("boot %+v after %+v", boots[i], boots[i-1])
		}
	}
	if got := f.Addr().String(); got != address {
		t.Errorf("it is at %s, was at %s", got, address)
	}
}

func TestFirmwareFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func() []byte { return []byte("0123456789abcdef") }
	for name, tc := range map[string]struct {
		o    metersim.FirmwareOptions
		want string
	}{
		"no program":       {metersim.FirmwareOptions{Program: filepath.Join(dir, "none")}, "make firmware builds it"},
		"too many":         {metersim.FirmwareOptions{Options: metersim.Options{Channels: make([]metersim.Channel, 7)}, Program: "/bin/sh"}, "the firmware has 6"},
		"channel 7":        {metersim.FirmwareOptions{Options: metersim.Options{Channels: []metersim.Channel{{Number: 7}}}, Program: "/bin/sh"}, "channel 7"},
		"it ends at once":  {metersim.FirmwareOptions{Program: script("ends", "echo no sensor >&2; exit 3")}, "ended before it served: exit status 3: no sensor"},
		"it says nonsense": {metersim.FirmwareOptions{Program: script("nonsense", "echo ready boot=x; exec cat >/dev/null")}, `"ready boot=x"`},
		"it ends later":    {metersim.FirmwareOptions{Program: script("later", "echo ready port=1 boot=1 start=$(cut -d' ' -f1 /proc/uptime | tr -d .)0000000; exit 4")}, "the firmware's process ended: exit status 4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.o.Key = key
			f, err := metersim.NewFirmware(tc.o)
			if err == nil {
				err = f.Run(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if strings.Contains(tc.want, "firmware has") != errors.Is(err, metersim.ErrOptions) && name != "channel 7" {
				t.Errorf("%v is not an error of options", err)
			}
		})
	}
}
