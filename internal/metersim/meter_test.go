package metersim_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// exactly is a channel that a real sensor measures without rounding: 5 V are 625 counts, and with 50 mΩ each ampere 1250.
func exactly(l metersim.Load) metersim.Channel {
	return metersim.Channel{Load: l, Supply: 5 * energy.Volt, ShuntUohm: 50_000}
}

func newMeter(tb testing.TB, o metersim.Options) *metersim.Meter {
	tb.Helper()
	m, err := metersim.NewMeter(o)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// reports advances a meter and returns what it reported, each checked as a client checks it.
func reports(tb testing.TB, m *metersim.Meter, to time.Duration) []*meterpb.Report {
	tb.Helper()
	var out []*meterpb.Report
	m.Advance(to, func(r *meterpb.Report) {
		b, err := proto.Marshal(r)
		if err != nil {
			tb.Fatal(err)
		}
		if len(b) > wire.MaxBody {
			tb.Fatalf("report %d has %d bytes", r.Seq, len(b))
		}
		if err := wire.UnmarshalReport(b, new(meterpb.Report)); err != nil {
			tb.Fatalf("report %d: %v", r.Seq, err)
		}
		out = append(out, r)
	})
	return out
}

func TestReportsOfAConstantLoad(t *testing.T) {
	m := newMeter(t, metersim.Options{Channels: []metersim.Channel{exactly(metersim.Constant(5 * energy.Watt)), {Number: 7}}})
	rs := reports(t, m, 10*time.Second)
	// One with the first sweep, then one each 100 ms.
	if len(rs) != 101 {
		t.Fatalf("%d reports, want 101", len(rs))
	}
	for i, r := range rs {
		us, sweeps, interval := uint64(i)*100_000, uint64(i)*50, uint32(100_000)
		switch i {
		case 0:
			us, sweeps, interval = 2000, 1, 2000
		case 1:
			interval = 98_000
		}
		want := &meterpb.Report{
			BootId: m.BootID(), Seq: uint32(i + 1), TUs: us, IntervalUs: interval, Sweeps: sweeps,
			Channels: []*meterpb.ChannelReport{
				{
					Channel: 1, EnergyUj: int64(us) * 5, ChargeUc: int64(us),
					PowerUw: 5_000_000, VoltageUv: 5_000_000, CurrentUa: 1_000_000,
				},
				{Channel: 7, VoltageUv: 5_104_000}, // 5.1 V are 637.5 counts of 8 mV
			},
		}
		if got := len(r.Batch.Channels[0].DeltaCounts); got != int(interval/2000) || r.Batch.Sweeps != interval/2000 {
			t.Fatalf("report %d: batch of %d sweeps, %d counts", r.Seq, r.Batch.Sweeps, got)
		}
		got := proto.CloneOf(r)
		got.Batch = nil
		if !proto.Equal(got, want) {
			t.Fatalf("report %d\ngot  %v\nwant %v", i+1, got, want)
		}
	}
	samples, err := wire.Samples(nil, wire.Past(rs[1]), 1)
	if err != nil || len(samples) != 49 || samples[0] != (wire.Sample{AtUs: 4000, Number: 1, Count: 1250}) {
		t.Errorf("samples of the second report: %v, %v", samples, err)
	}
}

// With ideal sensors energy is the truth, and no rounding adds up: after five minutes as after one sweep.
func TestIdealEnergyIsTheTruth(t *testing.T) {
	programs := []string{
		"constant:5W", "square:2W,8W,50ms", "square:0W,7W,1.9997ms,31%", "sine:3W,2W,77ms", "ramp:-1W,5W,3s",
		"trace:steps.csv,linear+square:0W,3W,5ms",
	}
	for drift, span := range map[float64]time.Duration{0: 5 * time.Minute, 87.654: time.Minute, -10_000: time.Minute} {
		o := metersim.Options{ClockDriftPPM: drift, SweepJitter: time.Millisecond}
		for i, p := range programs {
			o.Channels = append(o.Channels, metersim.Channel{
				Load: load(t, p), Ideal: true, SourceUohm: uint32(i) * 20_000, Noise: 5, GainErrorPPM: 1000,
			})
		}
		m := newMeter(t, o)
		for _, r := range reports(t, m, span) {
			for i, c := range r.Channels {
				truth, ok := m.TruthAt(c.Channel, r.BootId, r.TUs)
				if d := energy.Energy(c.EnergyUj) - truth; !ok || d < -1 || d > 1 {
					t.Fatalf("drift %g: %s: report %d has %d uJ, the truth is %d", drift, programs[i], r.Seq, c.EnergyUj, truth)
				}
			}
		}
		b := m.Boots()[0]
		for i := range programs {
			if d := b.Measured[i] - b.Truth[i]; d < -1 || d > 1 {
				t.Errorf("drift %g: %s: the boot's log has %d uJ and %d", drift, programs[i], b.Measured[i], b.Truth[i])
			}
		}
	}
}

// 4 counts of noise are 8 mW, which an absolute value would turn into 6.5 mW for ever. Signed, what stays after 30,000 sweeps
// is 8 mW · 2 ms · √30,000 = 2.8 mJ rms.
func TestNoiseIsNoEnergy(t *testing.T) {
	m := newMeter(t, metersim.Options{Seed: 3, Channels: []metersim.Channel{{Noise: 4}, {Number: 9, Noise: 4}}})
	rs := reports(t, m, time.Minute)
	var negative int
	for _, r := range rs {
		if r.Channels[0].PowerUw < 0 {
			negative++
		}
	}
	for _, c := range rs[len(rs)-1].Channels {
		if e := energy.Energy(c.EnergyUj); e.Joules() < -0.014 || e.Joules() > 0.014 {
			t.Errorf("channel %d: noise has made %s", c.Channel, e)
		}
	}
	if negative < 200 || negative > 400 {
		t.Errorf("%d of 601 reports have negative power, want about half", negative)
	}
}

func TestSaturationIsCountedAndALowerBound(t *testing.T) {
	m := newMeter(t, metersim.Options{Channels: []metersim.Channel{
		{Load: metersim.Constant(20 * energy.Watt), Supply: 5 * energy.Volt},
		{Load: metersim.Square(2*energy.Watt, 20*energy.Watt, 100*time.Millisecond, 0.5), Supply: 5 * energy.Volt},
		{Load: metersim.Constant(8 * energy.Watt), Supply: 5 * energy.Volt},
		{Load: metersim.Constant(-20 * energy.Watt), Supply: 5 * energy.Volt},
	}})
	rs := reports(t, m, 10*time.Second)
	last := rs[len(rs)-1]
	// 1.638 A at 5 V.
	if c := last.Channels[0]; c.Saturated != 5000 || c.PowerUw != 8_190_000 || c.EnergyUj != 81_900_000 {
		t.Errorf("always beyond: %v", c)
	}
	if c := last.Channels[1]; c.Saturated != 2500 || c.EnergyUj != 50_950_000 || c.PowerRiseUw != 8_190_000-5_095_000 {
		t.Errorf("half of the time beyond: %v", c)
	}
	if c := last.Channels[2]; c.Saturated != 0 {
		t.Errorf("not beyond: %v", c)
	}
	if c := last.Channels[3]; c.Saturated != 5000 || c.EnergyUj != -81_900_000 {
		t.Errorf("beyond backwards: %v", c)
	}
}

// Bursts of 5 ms in 25 ms, in windows of 1 s: below 0.7 % where the load is not in step with the sweep.
func TestBurstsAreMeasured(t *testing.T) {
	var o metersim.Options
	periods := []string{"24.9ms", "24.937ms", "25.013ms", "25.07ms", "25.111ms"}
	for _, p := range periods {
		o.Channels = append(o.Channels, exactly(load(t, "square:2W,6W,"+p+",20%")))
	}
	m := newMeter(t, o)
	worst := make([]float64, len(periods))
	before := make([]energy.Energy, len(periods))
	truthBefore := make([]energy.Energy, len(periods))
	for _, r := range reports(t, m, time.Minute) {
		if r.TUs%1_000_000 != 0 {
			continue
		}
		for i, c := range r.Channels {
			truth, _ := m.TruthAt(c.Channel, r.BootId, r.TUs)
			got, want := energy.Energy(c.EnergyUj)-before[i], truth-truthBefore[i]
			before[i], truthBefore[i] = energy.Energy(c.EnergyUj), truth
			worst[i] = max(worst[i], math.Abs(float64(got-want)/float64(want)))
		}
	}
	for i, w := range worst {
		if w > 0.007 || w == 0 {
			t.Errorf("period %s: the worst second is off by %.2f %%", periods[i], w*100)
		}
	}
}

// A load in step with the sweep is always seen in the same phase; jitter of a whole period sees all of it, and without bias:
// 30,000 readings of 2 or 6 W have a mean within 0.3 % rms.
func TestJitterUnlocksAPeriodicLoad(t *testing.T) {
	for _, tc := range []struct {
		jitter    time.Duration
		low, high float64
	}{{0, 0.3, 1}, {2 * time.Millisecond, 0, 0.015}} {
		o := metersim.Options{Seed: 5, SweepJitter: tc.jitter}
		for range 3 {
			o.Channels = append(o.Channels, exactly(metersim.Square(2*energy.Watt, 6*energy.Watt, 2*time.Millisecond, 0.5)))
		}
		m := newMeter(t, o)
		rs := reports(t, m, time.Minute)
		for _, c := range rs[len(rs)-1].Channels {
			// The third channel, at 1328 to 1660 µs, and the first, at 8 to 340, see one half each; the second sees both.
			if c.Channel == 2 {
				continue
			}
			off := math.Abs(float64(c.EnergyUj)/240e6 - 1)
			if off < tc.low || off > tc.high {
				t.Errorf("jitter %s, channel %d: off by %.2f %%", tc.jitter, c.Channel, off*100)
			}
		}
	}
}

func TestClockDrift(t *testing.T) {
	for _, tc := range []struct {
		ppm    float64
		us     uint64 // after 10 s of true time
		sweeps uint64
	}{{0, 10_000_000, 5000}, {1000, 10_010_000, 5005}, {-1000, 9_990_000, 4995}, {2.5, 10_000_025, 5000}} {
		m := newMeter(t, metersim.Options{
			ClockDriftPPM: tc.ppm, ReportInterval: 2 * time.Millisecond,
			Channels: []metersim.Channel{exactly(metersim.Constant(5 * energy.Watt))},
		})
		rs := reports(t, m, 10*time.Second)
		if got := m.ClockUs(10 * time.Second); got != tc.us {
			t.Errorf("%g ppm: the clock reads %d us, want %d", tc.ppm, got, tc.us)
		}
		// A fast clock makes more of the same power: 10 mJ more for each sweep too many.
		last := rs[len(rs)-1]
		if last.Sweeps != tc.sweeps || last.TUs != tc.sweeps*2000 || last.Channels[0].EnergyUj != int64(tc.sweeps)*10_000 {
			t.Errorf("%g ppm: last report %v", tc.ppm, last)
		}
		// The log's instant of t_us is the first at which the clock reads that.
		if at := m.Boots()[0].LastAt; m.ClockUs(at) != last.TUs || m.ClockUs(at-1) != last.TUs-1 {
			t.Errorf("%g ppm: t_us %d is told to be at %s, when the clock reads %d", tc.ppm, last.TUs, at, m.ClockUs(at))
		}
	}
}

func TestReboot(t *testing.T) {
	m := newMeter(t, metersim.Options{Channels: []metersim.Channel{exactly(metersim.Constant(5 * energy.Watt))}})
	first := m.BootID()
	before := reports(t, m, 1250*time.Millisecond)
	m.Reboot(3 * time.Second)
	if m.On() || m.NextReport() != 4250*time.Millisecond {
		t.Errorf("on %t, next report at %s", m.On(), m.NextReport())
	}
	if rs := reports(t, m, 4249*time.Millisecond); len(rs) != 0 || m.Report() != nil {
		t.Fatalf("%d reports without power", len(rs))
	}
	after := reports(t, m, 6*time.Second)
	r := after[0]
	if !m.On() || r.BootId == first || r.BootId == 0 || r.BootId != m.BootID() {
		t.Errorf("boot id %x after %x", r.BootId, first)
	}
	if r.Seq != 1 || r.TUs != 2000 || r.Sweeps != 1 || r.Channels[0].EnergyUj != 10_000 {
		t.Errorf("first report after the reboot: %v", r)
	}
	// 1.75 s after power-on at 4.25 s.
	if r := after[len(after)-1]; r.TUs != 1_700_000 || r.Channels[0].EnergyUj != 8_500_000 {
		t.Errorf("last report: %v", r)
	}
	if got := m.ClockUs(6 * time.Second); got != 1_750_000 {
		t.Errorf("clock reads %d us", got)
	}
	var l meterpb.SampleList
	if err := wire.UnmarshalSampleList(m.Samples(1), &l); err != nil || l.BootId != r.BootId || l.Batches[0].TUs != 2000 {
		t.Errorf("the ring has %v, %v", &l, err)
	}

	boots := m.Boots()
	if len(boots) != 2 {
		t.Fatalf("%d boots", len(boots))
	}
	want := []metersim.Boot{
		{
			ID: first, Start: 0, End: 1250 * time.Millisecond, Last: before[len(before)-1], LastAt: 1200 * time.Millisecond,
			Measured: []energy.Energy{6_000_000}, Truth: []energy.Energy{6_000_000},
		},
		{
			ID: r.BootId, Start: 4250 * time.Millisecond, End: 6 * time.Second, Last: after[len(after)-1],
			LastAt:   5950 * time.Millisecond,
			Measured: []energy.Energy{8_500_000}, Truth: []energy.Energy{8_500_000},
		},
	}
	for i, b := range boots {
		w := want[i]
		if b.ID != w.ID || b.Start != w.Start || b.End != w.End || b.Last != w.Last || b.LastAt != w.LastAt ||
			b.Measured[0] != w.Measured[0] || b.Truth[0] != w.Truth[0] {
			t.Errorf("boot %d\ngot  %+v\nwant %+v", i, b, w)
		}
	}
	if e, ok := m.TruthAt(1, first, 1_000_000); !ok || e != 5*energy.Joule {
		t.Errorf("truth of the first boot: %s, %t", e, ok)
	}
	if _, ok := m.TruthAt(1, 0, 0); ok {
		t.Error("a boot that never was has a truth")
	}
	if _, ok := m.TruthAt(2, first, 0); ok {
		t.Error("a channel that is not there has a truth")
	}
	if e := m.Truth(1, 0, 6*time.Second); e != 30*energy.Joule {
		t.Errorf("the load drew %s", e)
	}
	// Even the shortest cut is one, and at once after another.
	m.Reboot(0)
	m.Advance(6*time.Second+1, nil)
	third := m.BootID()
	m.Reboot(0)
	reports(t, m, 7*time.Second)
	if id := m.BootID(); third == r.BootId || third == first || id == third || id == 0 || m.Report() == nil {
		t.Errorf("boot ids %x, %x, %x, %x", first, r.BootId, third, id)
	}
}

func TestSamplesFromTheRing(t *testing.T) {
	m := newMeter(t, metersim.Options{Seed: 9, Channels: []metersim.Channel{{Noise: 3}, {Noise: 3}, {Noise: 100, SensorError: 0.1}}})
	made := map[uint32]*meterpb.Report{}
	for _, r := range reports(t, m, time.Minute) {
		made[r.Seq] = r
	}
	last := m.Report().Seq
	list := func(from uint32) *meterpb.SampleList {
		b := m.Samples(from)
		if len(b) > wire.MaxBody {
			t.Fatalf("from %d: %d bytes", from, len(b))
		}
		if !bytes.Equal(b, m.Samples(from)) {
			t.Fatalf("from %d: read again it differs", from)
		}
		var l meterpb.SampleList
		if err := wire.UnmarshalSampleList(b, &l); err != nil {
			t.Fatal(err)
		}
		if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(&l); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("from %d: not what protobuf writes, %v", from, err)
		}
		return &l
	}

	oldest := list(0).Batches[0]
	if span := m.Report().TUs - oldest.TUs; span < 9_900_000 || span > 10_000_000 {
		t.Errorf("the ring reaches back %d us", span)
	}
	if l := list(1); l.Batches[0].Seq != oldest.Seq {
		t.Errorf("from 1: starts with %d, want the oldest, %d", l.Batches[0].Seq, oldest.Seq)
	}
	for _, from := range []uint32{last + 1, last + 2, math.MaxUint32} {
		if l := list(from); len(l.Batches) != 0 || l.Next != last+1 {
			t.Errorf("from %d, not yet made: %d batches, next %d", from, len(l.Batches), l.Next)
		}
	}
	if l := list(last); len(l.Batches) != 1 || l.Next != last+1 {
		t.Errorf("from the last: %v", l)
	}
	// A walk along next meets each batch once, as its report had it.
	seq := oldest.Seq
	for from := uint32(1); from <= last; {
		l := list(from)
		if len(l.Batches) == 0 {
			t.Fatalf("from %d: nothing, next %d", from, l.Next)
		}
		for _, b := range l.Batches {
			if b.Seq != seq || !proto.Equal(b, wire.Past(made[seq])) {
				t.Fatalf("batch %d is not as its report had it", b.Seq)
			}
			seq++
		}
		if l.Next != seq {
			t.Fatalf("next is %d after %d", l.Next, seq-1)
		}
		from = l.Next
	}
	if empty := newMeter(t, metersim.Options{}).Samples(1); len(empty) == 0 || len(empty) > 12 {
		t.Errorf("before the first report: % x", empty)
	}
}

// Six channels with the noise of a real board must not need more reports than the interval asks for.
func TestATenthOfASecondFits(t *testing.T) {
	o := metersim.Options{Seed: 1}
	for range 6 {
		o.Channels = append(o.Channels, metersim.Channel{
			Load: load(t, "square:2W,5W,1700ms+sine:0W,200mW,10ms"), Noise: 3, ShuntUohm: 50_000, SensorError: 0.001,
		})
	}
	if n := len(reports(t, newMeter(t, o), time.Minute)); n != 601 {
		t.Errorf("%d reports in a minute, want 601", n)
	}
}

// Whatever the sensors do, a body stays within one block, no report waits longer than the interval, and no sweep is missing
// or told twice.
func TestBodiesStaySmall(t *testing.T) {
	for _, n := range []int{1, 3, 6, 12} {
		for _, noise := range []float64{0, 3, 1000} {
			o := metersim.Options{Seed: 1, SweepPeriod: 840 * time.Microsecond}
			for range n {
				o.Channels = append(o.Channels, metersim.Channel{Noise: noise, SensorError: 0.2})
			}
			m := newMeter(t, o)
			var before meterpb.Report
			rs := reports(t, m, 5*time.Second)
			for _, r := range rs {
				switch {
				case r.Seq != before.Seq+1 || uint64(r.Batch.Sweeps) != r.Sweeps-before.Sweeps:
					t.Fatalf("%d channels, noise %g: report %d with %d sweeps of %d after %d with %d",
						n, noise, r.Seq, r.Batch.Sweeps, r.Sweeps, before.Seq, before.Sweeps)
				case r.TUs != r.Sweeps*840 || r.IntervalUs != r.Batch.Sweeps*840 || r.IntervalUs > 100_000:
					t.Fatalf("%d channels, noise %g: report %d at %d us, interval %d us", n, noise, r.Seq, r.TUs, r.IntervalUs)
				}
				if b := m.Samples(r.Seq); len(b) > wire.MaxBody {
					t.Fatalf("%d channels, noise %g: /samples has %d bytes", n, noise, len(b))
				}
				before.Seq, before.Sweeps = r.Seq, r.Sweeps
			}
			t.Logf("%d channels, noise %g: %d reports", n, noise, len(rs))
		}
	}
}

func TestSensorErrorsAreUnmeasuredTime(t *testing.T) {
	m := newMeter(t, metersim.Options{Seed: 2, Channels: []metersim.Channel{
		{Load: metersim.Constant(5 * energy.Watt), Supply: 5 * energy.Volt, ShuntUohm: 50_000, SensorError: 0.25},
		{Load: metersim.Constant(5 * energy.Watt), Supply: 5 * energy.Volt, ShuntUohm: 50_000, SensorError: 1},
		{Load: metersim.Constant(5 * energy.Watt), Ideal: true, SensorError: 0.25},
	}})
	rs := reports(t, m, 20*time.Second)
	last := rs[len(rs)-1]
	for _, i := range []int{0, 2} {
		c := last.Channels[i]
		// 10,000 sweeps: 2500 errors, 43 rms.
		if c.SensorErrors < 2300 || c.SensorErrors > 2700 || c.UnmeasuredUs != c.SensorErrors*2000 {
			t.Errorf("channel %d: %d errors, %d us unmeasured", c.Channel, c.SensorErrors, c.UnmeasuredUs)
		}
		if want := int64(10_000-c.SensorErrors) * 10_000; c.EnergyUj != want || c.PowerUw != 5_000_000 {
			t.Errorf("channel %d: %d uJ, %d uW; want %d uJ, 5 W where measured", c.Channel, c.EnergyUj, c.PowerUw, want)
		}
	}
	want := &meterpb.ChannelReport{Channel: 2, SensorErrors: 10_000, UnmeasuredUs: 20_000_000}
	if !proto.Equal(last.Channels[1], want) {
		t.Errorf("a dead sensor reports %v, want %v", last.Channels[1], want)
	}
	for _, r := range rs {
		if s, err := wire.Samples(nil, wire.Past(r), 2); err != nil || len(s) != 0 {
			t.Fatalf("a dead sensor has samples %v, %v", s, err)
		}
	}
}

// 1 % too much gain and 80 µV of offset make 8.2 mW·s out of each second of 2 W; calibrated, a tenth of a percent stays.
func TestCalibrationCancelsErrors(t *testing.T) {
	bad := exactly(metersim.Constant(2 * energy.Watt))
	bad.GainErrorPPM, bad.OffsetUV = 10_000, 80
	good := bad
	good.Number, good.GainPPM, good.OffsetNV = 2, -9901, 80_000 // 1/1.01
	m := newMeter(t, metersim.Options{Channels: []metersim.Channel{bad, good}})
	rs := reports(t, m, 10*time.Second)
	c := rs[len(rs)-1].Channels
	// 20 mV and 1 % and 80 µV are 20.28 mV, 507 counts: 405.6 mA at 5 V.
	if c[0].EnergyUj != 20_280_000 {
		t.Errorf("uncalibrated: %d uJ", c[0].EnergyUj)
	}
	if off := float64(c[1].EnergyUj)/20e6 - 1; math.Abs(off) > 0.001 || c[1].EnergyUj == c[0].EnergyUj {
		t.Errorf("calibrated: %d uJ", c[1].EnergyUj)
	}
	id := m.Identity(0)
	if i := id.Channels[1]; i.GainPpm != -9901 || i.OffsetNv != 80_000 || i.ShuntUohm != 50_000 || i.CountNv != 40_000 {
		t.Errorf("the identity says %v", i)
	}
}

func TestExtremes(t *testing.T) {
	m := newMeter(t, metersim.Options{Channels: []metersim.Channel{{
		Load: metersim.Square(2500*energy.Watt/1000, 5*energy.Watt, 100*time.Millisecond, 0.5), Supply: 5_100_000,
		SourceUohm: 100_000, ShuntUohm: 50_000,
	}}})
	rs := reports(t, m, time.Second)
	c := rs[len(rs)-1].Channels[0]
	// 5 W: 1 A at 5 V, 1250 and 625 counts. 2.5 W: (5.1+√25.01)/2 = 5.0505 V and 0.4950 A, 631 and 619 counts.
	const low = 619 * 0.8e-3 * 631 * 8e-3 * 1e6 // µW
	if got := c.PowerUw - int64(c.PowerDropUw); math.Abs(float64(got)-low) > 2 {
		t.Errorf("lowest power %d uW, want %.0f", got, low)
	}
	if got := c.PowerUw + int64(c.PowerRiseUw); got < 4_999_999 || got > 5_000_001 {
		t.Errorf("highest power %d uW", got)
	}
	if lo, hi := c.VoltageUv-int64(c.VoltageDropUv), c.VoltageUv+int64(c.VoltageRiseUv); lo != 5_000_000 || hi != 5_048_000 {
		t.Errorf("voltage %d to %d uV", lo, hi)
	}
	if c.CurrentUa < 740_000 || c.CurrentUa > 760_000 {
		t.Errorf("mean current %d uA", c.CurrentUa)
	}
}

// A seed makes a run repeatable however it is cut into steps, and boots are told apart all the same.
func TestSeedRepeats(t *testing.T) {
	o := metersim.Options{
		Seed: 42, SweepJitter: 50 * time.Microsecond, ClockDriftPPM: 20,
		Channels: []metersim.Channel{{Load: load(t, "sine:3W,2W,77ms"), Noise: 2, SensorError: 0.01}, {Noise: 2}},
	}
	a, b := newMeter(t, o), newMeter(t, o)
	o.Seed = 43
	c := newMeter(t, o)
	whole, other := reports(t, a, 10*time.Second), reports(t, c, 10*time.Second)
	var parts []*meterpb.Report
	rng := rand.New(rand.NewPCG(1, 1))
	for at := time.Duration(0); at < 10*time.Second; {
		at = min(at+time.Duration(rng.Int64N(int64(7*time.Millisecond))), 10*time.Second)
		parts = append(parts, reports(t, b, at)...)
		parts = append(parts, reports(t, b, at-time.Second)...) // The past is no news.
	}
	if a.BootID() == b.BootID() {
		t.Error("two runs have one boot id")
	}
	if len(parts) != len(whole) {
		t.Fatalf("%d reports, %d in one go", len(parts), len(whole))
	}
	same := 0
	for i := range whole {
		whole[i].BootId, parts[i].BootId, other[i].BootId = 1, 1, 1
		if !proto.Equal(whole[i], parts[i]) {
			t.Fatalf("report %d differs:\n%v\n%v", i+1, whole[i], parts[i])
		}
		if proto.Equal(whole[i], other[i]) {
			same++
		}
	}
	if same > 1 {
		t.Errorf("%d of %d reports are the same with another seed", same, len(whole))
	}
}

func TestOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		o    metersim.Options
		want string
	}{
		"fast sweep":     {metersim.Options{SweepPeriod: 500 * time.Microsecond}, "sweep period 500µs is not within 840µs to 1s"},
		"odd sweep":      {metersim.Options{SweepPeriod: 2*time.Millisecond + 1}, "not whole microseconds"},
		"jitter":         {metersim.Options{SweepJitter: 3 * time.Millisecond}, "sweep jitter 3ms"},
		"short report":   {metersim.Options{ReportInterval: time.Millisecond}, "report interval 1ms is not within 2ms to 10s"},
		"drift":          {metersim.Options{ClockDriftPPM: math.NaN()}, "clock drift NaN ppm"},
		"no channels":    {metersim.Options{Channels: []metersim.Channel{}}, "0 channels"},
		"many channels":  {metersim.Options{Channels: make([]metersim.Channel, 13)}, "13 channels"},
		"channel twice":  {metersim.Options{Channels: []metersim.Channel{{Number: 2}, {}}}, "channel 2 comes twice"},
		"channel 256":    {metersim.Options{Channels: []metersim.Channel{{Number: 256}}}, "channel 256: the number"},
		"supply":         {metersim.Options{Channels: []metersim.Channel{{Supply: 27 * energy.Volt}}}, "channel 1: supply 27.000 V"},
		"shunt":          {metersim.Options{Channels: []metersim.Channel{{ShuntUohm: 50}}}, "shunt 50 µΩ"},
		"noise":          {metersim.Options{Channels: []metersim.Channel{{Noise: -1}}}, "noise -1"},
		"probability":    {metersim.Options{Channels: []metersim.Channel{{SensorError: 1.5}}}, "sensor error 1.5 is not a probability"},
		"gain":           {metersim.Options{Channels: []metersim.Channel{{GainPPM: -600_000}}}, "calibrated gain -600000"},
		"gain error NaN": {metersim.Options{Channels: []metersim.Channel{{GainErrorPPM: math.NaN()}}}, "gain error NaN"},
		"long name":      {metersim.Options{Name: strings.Repeat("x", 65)}, "at most 64 bytes"},
		"binary name":    {metersim.Options{Name: "\xff"}, "UTF-8"},
		"observers":      {metersim.Options{MaxObservers: -1}, "max observers -1"},
	} {
		if err := tc.o.Validate(); !errors.Is(err, metersim.ErrOptions) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if _, err := metersim.NewMeter(tc.o); err == nil {
			t.Errorf("%s: there is a meter", name)
		}
	}
	if err := (metersim.Options{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	two := metersim.Options{SweepPeriod: 2 * time.Second, ReportInterval: time.Hour}
	if err := two.Validate(); strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not all problems are told: %v", err)
	}
}
