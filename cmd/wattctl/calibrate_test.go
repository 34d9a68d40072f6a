package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/calibration"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// calibrate are the arguments that calibrate a channel of this meter.
func (s simulated) calibrate(args ...string) []string {
	return append([]string{"meter", "calibrate", s.url, "--psk-file=" + s.keyFile, "--for=2s"}, args...)
}

// From an uncalibrated meter to what its console is told. An interval of 95 % misses the truth in one of 20 runs (internal/calibration tests that it
// is no more often); here twice as much is allowed.
func TestCalibrate(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--gain-error=9000", "--offset-error=-37.3", "--load=5=constant:5.1W", "--seed=1")
	zero := decode[calibratedJSON](t, succeed(t, sim.calibrate("--channel=1", "--zero", "--json")...))
	if zero.Meter != "metersim" || zero.Channel != 1 || zero.ShuntUohm != 100_000 || zero.Readings != 1000 || zero.Missing != 0 || zero.Seconds != 2 ||
		math.Abs(zero.NoiseCounts-1) > 0.2 || math.Abs(zero.Volts-5.1) > 0.002 {
		t.Errorf("%+v", zero)
	}
	if off := float64(zero.New.OffsetNV) + 37_300; math.Abs(off) > 2*zero.OffsetErrorNV || zero.OffsetErrorNV > 4000 {
		t.Errorf("offset %d ± %.0f nV, true is -37300", zero.New.OffsetNV, zero.OffsetErrorNV)
	}
	offset := []string{fmt.Sprintf("--offset-nv=%d", zero.New.OffsetNV), fmt.Sprintf("--offset-error-nv=%.0f", zero.OffsetErrorNV)}
	const truth = 1e6 * (1/1.009 - 1)
	for _, reference := range [][]string{
		{"--current=1A", "--reference-error=200ppm"},
		{"--load=5.1ohm", "--voltage=5100mV", "--reference-error=0.02%"},
		{"--load=5.1Ω", "--reference-error=0%"},
		{"--power=5.1W", "--reference-error=0.02%"},
	} {
		t.Run(reference[0], func(t *testing.T) {
			t.Parallel()
			g := decode[calibratedJSON](t, succeed(t, sim.calibrate(append(append(reference, offset...), "--channel=5", "--json")...)...))
			if off := float64(g.New.GainPPM) - truth; math.Abs(off) > 2*g.GainErrorPPM || g.GainErrorPPM > 5000 || g.New.OffsetNV != zero.New.OffsetNV {
				t.Errorf("gain %d ± %.0f ppm, true is %.0f; offset %d", g.New.GainPPM, g.GainErrorPPM, truth, g.New.OffsetNV)
			}
			want := []string{
				fmt.Sprintf("channel 5 offset %d", zero.New.OffsetNV), fmt.Sprintf("channel 5 gain %d", g.New.GainPPM), "save", "reboot",
			}
			if strings.Join(g.Commands, "\n") != strings.Join(want, "\n") || len(g.Warnings) > 0 {
				t.Errorf("commands %q, warnings %q", g.Commands, g.Warnings)
			}
		})
	}
	t.Run("as text", func(t *testing.T) {
		t.Parallel()
		out := succeed(t, sim.calibrate("--channel=5", "--current=1A", "--reference-error=0.1%")...)
		for _, want := range []string{
			"Measuring channel 5 of metersim for 2s …\n", "shunt 100 mΩ: 1000 readings in 2 s, 0 missing\n", "reference 1.00000 A, without gain 1.008",
			"± 80 µV are reckoned with: measure it with --zero first", "\n  channel 5 gain -8", "\n  save\n  reboot\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
	})
}

// calibratedJSON is what --json prints.
type calibratedJSON struct {
	Meter     string  `json:"meter"`
	Serial    string  `json:"serial"`
	Channel   int     `json:"channel"`
	Name      string  `json:"name"`
	ShuntUohm int     `json:"shunt_uohm"`
	CountNV   int     `json:"count_nv"`
	Seconds   float64 `json:"seconds"`

	Readings    int     `json:"readings"`
	Missing     int     `json:"missing"`
	MeanCounts  float64 `json:"mean_counts"`
	NoiseCounts float64 `json:"noise_counts"`
	Volts       float64 `json:"voltage_volts"`

	ReferenceAmperes float64 `json:"reference_amperes"`
	MeasuredAmperes  float64 `json:"measured_amperes"`

	Old, New struct {
		GainPPM  int `json:"gain_ppm"`
		OffsetNV int `json:"offset_nv"`
	}
	OffsetErrorNV float64            `json:"offset_error_nv"`
	GainErrorPPM  float64            `json:"gain_error_ppm"`
	Parts         map[string]float64 `json:"gain_parts_ppm"`
	Commands      []string           `json:"commands"`
	Warnings      []string           `json:"warnings"`
}

// Lost datagrams are fetched again, so that none is missing.
func TestCalibrateThroughBadNetwork(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--loss=0.1", "--channels=1", "--seed=3")
	status, stdout, stderr := wattctl(t, sim.calibrate("--channel=1", "--zero", "--json")...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	if zero := decode[calibratedJSON](t, stdout); zero.Missing > 10 || zero.Readings+zero.Missing != 1000 || math.Abs(float64(zero.New.OffsetNV)) > 2*zero.OffsetErrorNV {
		t.Errorf("%+v", zero)
	}
}

func TestCalibrateFaults(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--load=2=square:2W,8W,20ms", "--load=3=constant:9W", "--load=4=constant:5.1W", "--load=5=constant:-2W", "--seed=2")
	broken := simulate(t, "--channels=1", "--sensor-error=0.1")
	ampere := []string{"--current=1A", "--reference-error=0.1%"}
	for name, tc := range map[string]struct {
		sim  simulated
		args []string
		want string
	}{
		"no such channel": {sim, []string{"--channel=9", "--zero"}, "the meter has no channel 9"},
		"connected":       {sim, []string{"--channel=4", "--zero"}, "channel 4: a current flows: 1000 mA, 100 mV over the shunt"},
		"nothing there":   {sim, append(ampere, "--channel=1"), "channel 1: the load is too small"},
		"a board":         {sim, append(ampere, "--channel=2"), "channel 2: the load is not steady"},
		"saturated":       {sim, append(ampere, "--channel=3"), "channel 3: the sensor is saturated in 1000 of 1000 readings, at 163.8 mV"},
		"reversed":        {sim, append(ampere, "--channel=5"), "channel 5: the current is negative, -0.39"},
		"poor reference":  {sim, []string{"--channel=4", "--current=1A", "--reference-error=1%"}, "the gain would be too uncertain: ± 1.2 %, of which most is the reference"},
		"wrong shunt":     {sim, []string{"--channel=4", "--current=2A", "--reference-error=0.1%"}, "make it 50 mΩ, not 100"},
		"sensor errors":   {broken, []string{"--channel=1", "--zero"}, "channel 1: readings are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := wattctl(t, tc.sim.calibrate(append([]string{"--json"}, tc.args...)...)...)
			if status != 1 || stdout != "" || !isOneLine(stderr) || !strings.Contains(stderr, tc.want) {
				t.Errorf("status %d, stdout %q, stderr %q; want %q", status, stdout, stderr, tc.want)
			}
		})
	}
}

func TestCalibrateWrongUsage(t *testing.T) {
	t.Parallel()
	known := "meter calibrate coaps://127.0.0.1 --channel=5 --psk-file=" + write(t, "psk", testKey)
	for _, tc := range []struct{ args, want string }{
		{"meter calibrate", "wattctl meter calibrate --help"},
		{"meter calibrate coaps://127.0.0.1 --zero", "--channel=N"},
		{"meter calibrate coaps://127.0.0.1 --channel=5 --zero", "needs a key: give --psk-file"},
		{known, "what is connected?"},
		{known + " --zero --current=1A", "--zero and --current can't be used together"},
		{known + " --load=5ohm --power=1W", "--load and --power can't be used together"},
		{known + " --zero --reference-error=1%", "--zero needs no"},
		{known + " --current=1A", "--reference-error is missing"},
		{known + " --current=1 --reference-error=1%", "--current"},
		{known + " --current=-1A --reference-error=1%", "--current=-1A: it must be above 0"},
		{known + " --power=0W --reference-error=1%", "--power=0W: it must be above 0"},
		{known + " --load=10 --reference-error=1%", `--load: "10" is no resistance`},
		{known + " --load=xohm --reference-error=1%", `--load: "xohm" is no resistance`},
		{known + " --load=0ohm --reference-error=1%", "--load=0ohm: it must be above 0"},
		{known + " --load=NaNohm --reference-error=1%", "--load=NaNohm: it must be above 0"},
		{known + " --current=1A --voltage=5V --reference-error=1%", "--voltage: only a resistor's"},
		{known + " --load=1ohm --voltage=5 --reference-error=1%", "--voltage"},
		{known + " --current=1A --reference-error=0.001", `"0.001" is no share`},
		{known + " --current=1A --reference-error=-1%", `"-1%" is no share`},
		{known + " --current=1A --reference-error=200%", `"200%" is no share`},
		{known + " --current=1A --reference-error=1% --offset-error-nv=-1", "--offset-error-nv=-1"},
		{known + " --current=1A --reference-error=1% --offset-nv=1.5", "--offset-nv"},
		{known + " --zero --for=100ms", "--for=100ms"},
		{known + " --zero --wait=0s", "--wait=0s"},
	} {
		refused(t, tc.want, 2, strings.Fields(tc.args)...)
	}
}

func TestParseOhms(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]float64{"10ohm": 10, "4.7 Ω": 4.7, "500mohm": 0.5, "1.5kohm": 1500, "250mΩ": 0.25} {
		if v, err := parseOhms(s); err != nil || math.Abs(v-want) > 1e-12 {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
}

// A meter that goes away, or restarts, ends it.
func TestCalibrateMeterFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"goes away": {nil, "no report for 3s: "},
		"restarts":  {[]string{"--reboot-every=8s", "--reboot-takes=10ms"}, "the meter restarted meanwhile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := simulate(t, tc.args...)
			wait := "--wait=3s"
			if tc.args != nil {
				wait = "--wait=30s" // or a busy machine would take the restart for silence
			}
			r := start(t, sim.calibrate("--channel=1", "--zero", "--for=20s", wait)...)
			r.until("it measures", func() bool { return strings.Contains(r.stdout.String(), "Measuring") })
			if tc.args == nil {
				sim.end()
			}
			if status := r.wait(); status != 1 || !strings.HasPrefix(lastLine(r.stderr.String()), "wattctl: "+tc.want) {
				t.Errorf("status %d", status)
			}
		})
	}
}

func TestCalibrateInterrupted(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	r := start(t, sim.calibrate("--channel=1", "--zero", "--for=20s")...)
	r.until("it measures", func() bool { return strings.Contains(r.stdout.String(), "Measuring") })
	if status := r.end(); status != 1 || r.stderr.String() != "wattctl: interrupted before the measurement was over\n" {
		// Or before it had begun, in the words of the connection.
		if status != 1 || !isOneLine(r.stderr.String()) || !strings.Contains(r.stderr.String(), "cancel") {
			t.Errorf("status %d", status)
		}
	}
}

// collected feeds reports of ten sweeps to a collector of 30, those in lost only as recovered batches at the end, if recovered.
func collected(t *testing.T, lost func(seq uint32) bool, recovered bool) (calibration.Readings, error) {
	t.Helper()
	c := newCollector(2, 7, 30)
	batch := func(seq uint32) *meterpb.PastBatch {
		deltas := []int32{int32(seq) * 10, 1, 1, 1, 1, 1, 1, 1, 1} // one of ten is missing
		return &meterpb.PastBatch{Seq: seq, TUs: uint64(seq) * 20_000, Sweeps: uint64(seq) * 10, Batch: &meterpb.Batch{
			SamplePeriodUs: 2000, Sweeps: 10, Channels: []*meterpb.ChannelSamples{{Channel: 2, DeltaCounts: deltas, Missing: []uint32{9}}},
		}}
	}
	for seq := uint32(1); seq < 400 && len(c.done) == 0; seq++ {
		if lost(seq) {
			continue
		}
		b := batch(seq)
		c.report(&meterpb.Report{
			BootId: 7, Seq: seq, TUs: b.TUs, Sweeps: b.Sweeps, Batch: b.Batch, Channels: []*meterpb.ChannelReport{{Channel: 2, VoltageUv: int64(seq) * 1e6}},
		})
		c.batch(7, b)
		if recovered && seq == 10 {
			for s := uint32(1); s < seq; s++ {
				if lost(s) {
					c.batch(7, batch(s))
				}
			}
		}
	}
	select {
	case err := <-c.done:
		return c.readings(), err
	default:
		t.Fatal("it waits for ever")
		return calibration.Readings{}, nil
	}
}

func TestCollector(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lost      func(uint32) bool
		recovered bool
		want      string
	}{
		// The first report, seq 1, is of before; 2 to 4 are wanted.
		"all come":      {func(uint32) bool { return false }, false, "20-28 -- 30-38 -- 40-48 --; volts 2 3 4"},
		"one recovered": {func(s uint32) bool { return s == 3 }, true, "20-28 -- 30-38 -- 40-48 --; volts 2 4"},
		"last is late":  {func(s uint32) bool { return s == 4 }, true, "20-28 -- 30-38 -- 40-48 --; volts 2 3"},
		"one lost":      {func(s uint32) bool { return s == 3 }, false, "20-28 -- -- -- -- -- -- -- -- -- -- -- 40-48 --; volts 2 4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := collected(t, tc.lost, tc.recovered)
			if !errors.Is(err, errCollected) {
				t.Fatal(err)
			}
			var b strings.Builder
			for i := 0; i < len(r.Counts); i++ {
				from := i
				for i+1 < len(r.Counts) && !r.Missing[i] && !r.Missing[i+1] {
					i++
				}
				if r.Missing[i] {
					b.WriteString("-- ")
				} else {
					fmt.Fprintf(&b, "%d-%d ", r.Counts[from], r.Counts[i])
				}
			}
			got := strings.TrimSpace(b.String()) + "; volts " + strings.Trim(fmt.Sprint(r.Volts), "[]")
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// readingsOf makes readings of a mean and noise.
func readingsOf(mean, noise float64) calibration.Readings {
	rng := rand.New(rand.NewPCG(1, 1))
	r := calibration.Readings{Missing: make([]bool, 15_000), Volts: []float64{5.096, 5.098, 5.094}}
	for range r.Missing {
		r.Counts = append(r.Counts, int32(math.Round(mean+noise*rng.NormFloat64())))
	}
	r.Missing[17] = true
	return r
}

// What a person reads, as it is in hardware/calibration.md.
func TestCalibratePrints(t *testing.T) {
	t.Parallel()
	info := &meterpb.ChannelInfo{Channel: 5, Name: "raspberrypi", ShuntUohm: 50_000, CountNv: 40_000, FullScaleCounts: 4095}
	offsetNV, offsetError := int32(7947), 860.0
	for _, tc := range []struct {
		cmd calibrateCmd
		r   calibration.Readings
		ref calibration.Reference
	}{
		{calibrateCmd{Channel: 5, Zero: true}, readingsOf(0.2, 1), calibration.Reference{}},
		{
			calibrateCmd{Channel: 5, Current: "1A", OffsetNV: &offsetNV, OffsetErrorNV: &offsetError}, readingsOf(1264.2, 1.1),
			calibration.Reference{Amperes: 1, Limit: 0.001},
		},
	} {
		res := calibrated{
			Meter: "bench-1", Channel: 5, Name: info.Name, ShuntUohm: info.ShuntUohm, CountNV: info.CountNv, Seconds: (30 * time.Second).Seconds(),
		}
		if err := res.compute(tc.cmd, info, tc.r, tc.ref); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := res.write(&b); err != nil {
			t.Fatal(err)
		}
		page := read(t, "../../hardware/calibration.md")
		if !strings.Contains(page, "\n```\n"+b.String()+"```\n") {
			t.Errorf("hardware/calibration.md does not have this:\n%s", b.String())
		}
	}
	if err := new(calibrated).write(fullDisk{}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	if err := new(calibrated).write(io.Discard); err != nil {
		t.Error(err)
	}
}
