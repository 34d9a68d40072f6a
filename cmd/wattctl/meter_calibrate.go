package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wattlet/wattlet/internal/calibration"
	"github.com/wattlet/wattlet/internal/dnssd"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/meter"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

type calibrateCmd struct {
	URL     string   `arg:"" help:"The meter, as coaps://10.0.0.5."`
	Key     keyFlags `embed:""`
	Channel uint32   `required:"" placeholder:"N" help:"The channel to calibrate."`

	Zero    bool   `xor:"what" group:"What is connected" help:"Nothing, with the supply on: find the offset."`
	Current string `xor:"what" group:"What is connected" placeholder:"1.000A" help:"A steady load with this current, by an ammeter."`
	Load    string `xor:"what" group:"What is connected" placeholder:"10ohm" help:"A resistor of this value."`
	Power   string `xor:"what" group:"What is connected" placeholder:"5W" help:"A steady load with this power, by a power meter between shunt and load."`

	Voltage        string `group:"Reference" placeholder:"5.08V" help:"Voltage at --load, by a voltmeter; default the meter's own, less exact one."`
	ReferenceError string `group:"Reference" placeholder:"0.1%" help:"How wrong the reference may be at most, all its instruments together."`

	OffsetNV      *int32   `name:"offset-nv" group:"Offset" placeholder:"N" help:"Its offset in nV by --zero, if the meter has not been told yet."`
	OffsetErrorNV *float64 `name:"offset-error-nv" group:"Offset" placeholder:"N" help:"How wrong the offset may be, by --zero; else half a count or more."`

	For  time.Duration `default:"30s" help:"How long to measure."`
	JSON bool          `name:"json" help:"Print JSON."`
	Wait time.Duration `default:"30s" help:"Fail if the meter is silent for so long."`
}

// reference reads the flags that say what is known about the load.
func (c calibrateCmd) reference() (ref calibration.Reference, err error) {
	if !c.Zero && c.Current == "" && c.Load == "" && c.Power == "" {
		return ref, usagef("what is connected? Nothing, with --zero, or a known load, with --current, --load or --power")
	}
	if c.Zero {
		if c.Voltage != "" || c.ReferenceError != "" || c.OffsetNV != nil || c.OffsetErrorNV != nil {
			return ref, usagef("--zero needs no --voltage, --reference-error, --offset-nv or --offset-error-nv: nothing is connected")
		}
		return ref, nil
	}
	positive := func(flag, value string, v float64, err error) error {
		switch {
		case err != nil:
			return usagef("--%s: %w", flag, err)
		case !(v > 0):
			return usagef("--%s=%s: it must be above 0", flag, value)
		}
		return nil
	}
	switch {
	case c.Current != "":
		v, e := energy.ParseCurrent(c.Current)
		ref.Amperes = float64(v) / 1e6
		err = positive("current", c.Current, ref.Amperes, e)
	case c.Power != "":
		v, e := energy.ParsePower(c.Power)
		ref.Watts = v.Watts()
		err = positive("power", c.Power, ref.Watts, e)
	default:
		ref.Ohms, err = parseOhms(c.Load)
		err = positive("load", c.Load, ref.Ohms, err)
	}
	switch {
	case err != nil:
		return ref, err
	case c.Voltage != "" && c.Load == "":
		return ref, usagef("--voltage: only a resistor's current (--load) depends on it")
	case c.Voltage != "":
		v, e := energy.ParseVoltage(c.Voltage)
		ref.Volts = v.Volts()
		if err := positive("voltage", c.Voltage, ref.Volts, e); err != nil {
			return ref, err
		}
	}
	switch {
	case c.ReferenceError == "":
		return ref, usagef("--reference-error is missing: a gain is no better than its reference; look at the instrument's specification, and write 0.1%%")
	case c.OffsetErrorNV != nil && !(*c.OffsetErrorNV >= 0 && *c.OffsetErrorNV <= 1e6):
		return ref, usagef("--offset-error-nv=%v: it must be within 0 and 1,000,000", *c.OffsetErrorNV)
	}
	if ref.Limit, err = parseShare(c.ReferenceError); err != nil {
		return ref, usagef("--reference-error: %w", err)
	}
	return ref, nil
}

// parseOhms reads a resistance such as "10ohm", "4.7Ω" or "500mohm".
func parseOhms(s string) (float64, error) {
	num, scale := strings.TrimSpace(s), 1.0
	for _, unit := range []struct {
		name  string
		scale float64
	}{{"mohm", 1e-3}, {"mΩ", 1e-3}, {"kohm", 1e3}, {"kΩ", 1e3}, {"ohm", 1}, {"Ω", 1}} {
		n, ok := strings.CutSuffix(num, unit.name)
		if !ok {
			continue
		}
		scale *= unit.scale
		v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
		if err != nil || math.IsInf(v*scale, 0) {
			break
		}
		return v * scale, nil
	}
	return 0, fmt.Errorf("%q is no resistance; write one as 10ohm or 4.7ohm", s)
}

// parseShare reads a share such as "0.1%" or "500ppm".
func parseShare(s string) (float64, error) {
	for _, unit := range []struct {
		name  string
		scale float64
	}{{"%", 1e-2}, {"ppm", 1e-6}} {
		num, ok := strings.CutSuffix(strings.TrimSpace(s), unit.name)
		if !ok {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(num), 64); err == nil && v*unit.scale >= 0 && v*unit.scale <= 1 {
			return v * unit.scale, nil
		}
		break
	}
	return 0, fmt.Errorf("%q is no share; write one as 0.1%% or 500ppm", s)
}

// Run measures, computes and tells what to type.
func (c calibrateCmd) Run(a *app) error {
	ep, err := c.Key.endpoint(c.URL)
	if err != nil {
		return err
	}
	ref, err := c.reference()
	if err != nil {
		return err
	}
	if c.For < time.Second || c.For > time.Hour || c.Wait <= 0 {
		return usagef("--for=%v, --wait=%v: measure for one second to one hour; nor can --wait be 0", c.For, c.Wait)
	}
	id, err := c.identity(a.ctx, ep)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(id.Channels, func(ch *meterpb.ChannelInfo) bool { return ch.Channel == c.Channel })
	switch {
	case i < 0:
		return fmt.Errorf("the meter has no channel %d", c.Channel)
	case !slices.Contains(id.Capabilities, meterpb.Capability_CAPABILITY_SAMPLES):
		return errors.New("the meter sends no samples, and its totals are calibrated already; this needs raw ones")
	}
	info := id.Channels[i]
	period := time.Duration(id.Sampling.GetSweepPeriodUs()) * time.Microsecond
	if period <= 0 || info.ShuntUohm == 0 || info.CountNv == 0 || info.FullScaleCounts == 0 {
		return fmt.Errorf("the meter does not say how channel %d is wired: no shunt, count or sweep period in its identity", c.Channel)
	}
	if !c.JSON {
		fmt.Fprintf(a.stdout, "Measuring channel %d of %s for %v …\n", c.Channel, dnssd.Printable(id.Name), c.For)
	}
	r, err := c.collect(a, ep, id.BootId, int(c.For/period))
	if err != nil {
		return err
	}
	res := calibrated{
		Meter: id.Name, Serial: id.Serial, Channel: c.Channel, Name: info.Name, ShuntUohm: info.ShuntUohm, CountNV: info.CountNv,
		Seconds: (time.Duration(len(r.Counts)) * period).Seconds(),
		Old:     setting{GainPPM: info.GainPpm, OffsetNV: info.OffsetNv}, Warnings: []string{},
	}
	if err := res.compute(c, info, r, ref); err != nil {
		return fmt.Errorf("channel %d: %w", c.Channel, err)
	}
	if c.JSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(res)
	}
	return res.write(a.stdout)
}

// identity asks the meter how it is wired and set.
func (c calibrateCmd) identity(ctx context.Context, ep meter.Endpoint) (*meterpb.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, min(c.Wait, 20*time.Second))
	defer cancel()
	conn, err := meter.Dial(ctx, ep)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	return conn.Identity(ctx)
}

// collect gathers so many sweeps of the channel.
func (c calibrateCmd) collect(a *app, ep meter.Endpoint, boot uint32, sweeps int) (calibration.Readings, error) {
	ctx, stop := context.WithCancelCause(a.ctx)
	defer stop(nil)
	col := newCollector(c.Channel, boot, sweeps)
	client, err := meter.New(meter.Config{
		Endpoint: ep, Logger: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		OnReport: col.report, OnBatch: col.batch, Handshake: min(c.Wait/2, 20*time.Second),
	})
	if err != nil {
		return calibration.Readings{}, usageError{err}
	}
	go watchMeter(ctx, stop, client, c.Wait, col.heard, col.done)
	if err := client.Run(ctx, func(int, energy.Reading) {}); err != nil {
		return calibration.Readings{}, err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCollected):
		return col.readings(), nil
	case errors.Is(cause, context.Canceled):
		return calibration.Readings{}, errors.New("interrupted before the measurement was over")
	default:
		return calibration.Readings{}, cause
	}
}

// errCollected ends the collecting of readings.
var errCollected = errors.New("all readings are there")

// collector gathers raw readings of one channel, which come in batches that may be late, and voltages of reports.
type collector struct {
	channel uint32
	boot    uint32
	heard   chan struct{}
	done    chan error // one error, errCollected in the good case

	mu    sync.Mutex
	over  bool
	begun bool
	first uint64 // number of the first sweep to gather
	endUs uint64 // meter's clock in the first report after the last sweep to gather
	left  int    // sweeps that no batch has brought yet
	r     calibration.Readings
	buf   []wire.Sample
}

// lostPatience is how long, on the meter's clock, lost batches are waited for at the end: half as long as a meter keeps them.
const lostPatience = 5 * time.Second

func newCollector(channel, boot uint32, sweeps int) *collector {
	c := &collector{
		channel: channel, boot: boot, heard: make(chan struct{}, 1), done: make(chan error, 1), left: sweeps,
		r: calibration.Readings{Counts: make([]int32, sweeps), Missing: make([]bool, sweeps)},
	}
	for i := range c.r.Missing {
		c.r.Missing[i] = true
	}
	return c
}

// finish ends the gathering. It must be called with mu held.
func (c *collector) finish(err error) {
	if !c.over {
		c.over = true
		c.done <- err
	}
}

func (c *collector) report(r *meterpb.Report) {
	select {
	case c.heard <- struct{}{}:
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if r.BootId != c.boot {
		c.finish(errors.New("the meter restarted meanwhile; look at its supply, and begin again"))
		return
	}
	n := uint64(len(c.r.Counts))
	switch {
	case !c.begun:
		// What was measured before is not asked for: the load may have been connected just now.
		c.begun, c.first = true, r.Sweeps
		return
	case c.endUs > 0 && r.TUs > c.endUs+uint64(lostPatience.Microseconds()):
		c.finish(errCollected) // what is missing now stays missing
		return
	case c.endUs == 0 && r.Sweeps-c.first >= n:
		c.endUs = r.TUs
	}
	// A channel of which nothing was measured reports 0 V too.
	measured := slices.ContainsFunc(r.Batch.GetChannels(), func(s *meterpb.ChannelSamples) bool {
		return s.Channel == c.channel && len(s.DeltaCounts) > 0
	})
	i := slices.IndexFunc(r.Channels, func(ch *meterpb.ChannelReport) bool { return ch.Channel == c.channel })
	if i >= 0 && measured && r.Sweeps-uint64(r.Batch.Sweeps)-c.first < n {
		c.r.Volts = append(c.r.Volts, float64(r.Channels[i].VoltageUv)/1e6)
	}
}

func (c *collector) batch(boot uint32, b *meterpb.PastBatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := b.Sweeps - uint64(b.Batch.Sweeps)
	if c.over || boot != c.boot || !c.begun || from < c.first {
		return
	}
	samples, err := wire.Samples(c.buf[:0], b, c.channel)
	if err != nil {
		c.finish(err)
		return
	}
	c.buf = samples
	n := uint64(len(c.r.Counts))
	for _, s := range samples {
		if i := s.Number - c.first; i < n {
			c.r.Counts[i], c.r.Missing[i] = s.Count, false
		}
	}
	// Each batch comes once.
	if c.left -= int(min(b.Sweeps-c.first, n) - min(from-c.first, n)); c.left == 0 {
		c.finish(errCollected)
	}
}

// readings are what was gathered, once done has told so.
func (c *collector) readings() calibration.Readings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r
}

// sixDigits rounds to six digits after the point, which is more than is known.
func sixDigits(v float64) float64 { return math.Round(v*1e6) / 1e6 }

// setting is the calibration of a channel.
type setting struct {
	GainPPM  int32 `json:"gain_ppm"`
	OffsetNV int32 `json:"offset_nv"`
}

// calibrated is what came out, as it is printed.
type calibrated struct {
	Meter     string  `json:"meter"`
	Serial    string  `json:"serial"`
	Channel   uint32  `json:"channel"`
	Name      string  `json:"name"`
	ShuntUohm uint32  `json:"shunt_uohm"`
	CountNV   uint32  `json:"count_nv"`
	Seconds   float64 `json:"seconds"`

	Readings    int     `json:"readings"`
	Missing     int     `json:"missing"`
	MeanCounts  float64 `json:"mean_counts"`
	NoiseCounts float64 `json:"noise_counts"`
	Volts       float64 `json:"voltage_volts"`

	// Of a gain: what the reference and the uncalibrated channel, less its offset, say.
	ReferenceAmperes float64 `json:"reference_amperes,omitempty"`
	MeasuredAmperes  float64 `json:"measured_amperes,omitempty"`

	Old setting `json:"old"`
	New setting `json:"new"`
	// Half of the 95 % interval of what is new.
	OffsetErrorNV float64            `json:"offset_error_nv,omitempty"`
	GainErrorPPM  float64            `json:"gain_error_ppm,omitempty"`
	Parts         map[string]float64 `json:"gain_parts_ppm,omitempty"` // standard uncertainties
	Commands      []string           `json:"commands"`
	Warnings      []string           `json:"warnings"`

	parts []calibration.Part
}

// compute estimates what is asked for.
func (res *calibrated) compute(c calibrateCmd, info *meterpb.ChannelInfo, r calibration.Readings, ref calibration.Reference) error {
	ch := calibration.Channel{
		ShuntUohm: info.ShuntUohm, GainPPM: info.GainPpm, OffsetNV: info.OffsetNv, CountNV: info.CountNv, FullScale: info.FullScaleCounts,
	}
	res.New = res.Old
	mean := func(m calibration.Mean) {
		res.Readings, res.Missing = m.Readings, m.Missing
		res.MeanCounts, res.NoiseCounts, res.Volts = sixDigits(m.Counts), sixDigits(m.Spread), sixDigits(m.Volts)
	}
	if c.Zero {
		o, err := calibration.Zero(ch, r)
		if err != nil {
			return err
		}
		mean(o.Mean)
		res.New.OffsetNV, res.OffsetErrorNV = o.NV, sixDigits(o.UncertaintyNV)
		res.Warnings = append(res.Warnings, o.Warnings...)
		res.Commands = []string{fmt.Sprintf("channel %d offset %d", c.Channel, o.NV), "save", "reboot"}
		return nil
	}
	// Half of an interval of 95 %, as --zero says it: by default a resolution's, half a count, or what the sensor may have.
	offsetError := float64(info.CountNv) / 2
	if c.OffsetNV != nil {
		ch.OffsetNV, res.New.OffsetNV = *c.OffsetNV, *c.OffsetNV
	}
	if ch.OffsetNV == 0 {
		offsetError = calibration.OffsetLimitNV
		if c.OffsetErrorNV == nil {
			res.Warnings = append(res.Warnings, fmt.Sprintf("the channel has no offset, so ± %d µV are reckoned with: measure it with --zero first",
				calibration.OffsetLimitNV/1000))
		}
	}
	if c.OffsetErrorNV != nil {
		offsetError = *c.OffsetErrorNV
	}
	g, err := calibration.Compare(ch, r, ref, offsetError/calibration.Coverage)
	if err != nil {
		return err
	}
	mean(g.Mean)
	res.ReferenceAmperes, res.MeasuredAmperes = sixDigits(g.Amperes), sixDigits(g.Measured)
	res.New.GainPPM, res.GainErrorPPM = g.PPM, sixDigits(g.UncertaintyPPM)
	res.parts, res.Parts = g.Parts, map[string]float64{}
	for _, p := range g.Parts {
		res.Parts[p.Name] = sixDigits(p.PPM)
	}
	res.Warnings = append(res.Warnings, g.Warnings...)
	if c.OffsetNV != nil {
		res.Commands = append(res.Commands, fmt.Sprintf("channel %d offset %d", c.Channel, *c.OffsetNV))
	}
	res.Commands = append(res.Commands, fmt.Sprintf("channel %d gain %d", c.Channel, g.PPM), "save", "reboot")
	return nil
}

// write tells a person.
func (res *calibrated) write(w io.Writer) error {
	var b strings.Builder
	title := fmt.Sprintf("channel %d of %s", res.Channel, dnssd.Printable(res.Meter))
	if res.Name != "" {
		title += " (" + dnssd.Printable(res.Name) + ")"
	}
	fmt.Fprintf(&b, "%s, shunt %.4g mΩ: %d readings in %.4g s, %d missing\n\n", title, float64(res.ShuntUohm)/1e3, res.Readings, res.Seconds, res.Missing)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s"+format+"\n", append([]any{name}, args...)...)
	}
	row("readings", "mean %.3f counts of %.4g µV, noise %.2f counts rms, bus %.3f V", res.MeanCounts, float64(res.CountNV)/1e3, res.NoiseCounts, res.Volts)
	if res.parts == nil {
		row("offset", "old %d nV, new %d nV ± %.0f nV", res.Old.OffsetNV, res.New.OffsetNV, res.OffsetErrorNV)
		row("", "a current of %.4g mA ± %.2g mA", float64(res.New.OffsetNV)/float64(res.ShuntUohm), res.OffsetErrorNV/float64(res.ShuntUohm))
		row("gain", "%d ppm stays", res.Old.GainPPM)
	} else {
		row("current", "reference %.5f A, without gain %.5f A", res.ReferenceAmperes, res.MeasuredAmperes)
		if res.Old.OffsetNV == res.New.OffsetNV {
			row("offset", "%d nV stays", res.Old.OffsetNV)
		} else {
			row("offset", "old %d nV, new %d nV as given", res.Old.OffsetNV, res.New.OffsetNV)
		}
		row("gain", "old %d ppm, new %d ppm ± %.0f ppm (%.2g %%)", res.Old.GainPPM, res.New.GainPPM, res.GainErrorPPM, res.GainErrorPPM/1e4)
		for _, p := range res.parts {
			row("", "%6.0f ppm  %s", p.PPM, p.Name)
		}
	}
	for _, text := range res.Warnings {
		row("warning", "%s", text)
	}
	b.WriteString("\n± is half of an interval of 95 %")
	if res.parts != nil {
		b.WriteString("; its parts are standard uncertainties, and it is twice their root sum of squares")
	}
	b.WriteString(".\nOn the meter's serial console:\n\n")
	for _, line := range res.Commands {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if res.parts == nil {
		fmt.Fprintf(&b, "\nWith a known load, --offset-error-nv=%.0f then tells how exact this is; before the reboot --offset-nv=%d is needed too.\n",
			math.Ceil(res.OffsetErrorNV), res.New.OffsetNV)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
