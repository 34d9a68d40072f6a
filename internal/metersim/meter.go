package metersim

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// Meter is the meter without network and clock: it measures up to the instant it is told. It is not safe for use by several
// goroutines; Sim is. Instants are true time since the simulator's power-on.
type Meter struct {
	o          Options
	numbers    []uint32
	sensors    []sensor
	conversion time.Duration
	jitter     *rand.Rand
	ppb        int64 // clock drift in parts per billion
	seed       uint64

	now time.Duration
	// up is when the power comes back; it is off until then.
	up    time.Duration
	boots []*Boot
	run
}

// run is what a meter forgets when its power is cut.
type run struct {
	boot     *Boot
	accounts []account
	writer   *wire.BatchWriter
	counts   []int32
	ok       []bool
	// Numbers of sweeps: taken, in the last report, at which the next report closes, carried into the totals.
	sweeps, reported, due, carried uint64
	// last is the instant of the last sweep, or of the boot.
	last   time.Duration
	report *meterpb.Report
	ring   ring
}

// Boot is one run of the meter from power-on to power loss, with the truth beside what it had measured.
type Boot struct {
	// ID is the boot id on the wire.
	ID uint32
	// Start is when the meter's clock was zero, End when its power was cut, or the instant it has advanced to if it runs.
	Start, End time.Duration
	// Last is its last report, nil if it made none; LastAt is the true time of that report's t_us.
	Last   *meterpb.Report
	LastAt time.Duration
	// Measured and Truth are, for each channel in the order of Options.Channels, the energy in Last and what the load drew
	// from Start to LastAt.
	Measured, Truth []energy.Energy
}

// NewMeter returns a meter that is switched on at instant 0. Of the options it uses those of sensors and sampling; its
// errors are Validate's.
func NewMeter(o Options) (*Meter, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	m := &Meter{
		o: o, conversion: conversionFor(o.SweepPeriod), ppb: int64(math.Round(o.ClockDriftPPM * 1000)), seed: o.Seed,
	}
	if m.seed == 0 {
		m.seed = rand.Uint64()
	}
	m.jitter = rand.New(rand.NewPCG(m.seed, 0))
	for i, c := range o.Channels {
		m.sensors = append(m.sensors, newSensor(c, i, m.seed, m.conversion))
		m.numbers = append(m.numbers, c.Number)
	}
	m.start(0)
	return m, nil
}

// start begins a boot at an instant.
func (m *Meter) start(at time.Duration) {
	id := rand.Uint32()
	for id == 0 || slices.ContainsFunc(m.boots, func(b *Boot) bool { return b.ID == id }) {
		id = rand.Uint32()
	}
	b := &Boot{ID: id, Start: at, End: at, LastAt: at}
	m.boots = append(m.boots, b)
	m.run = run{
		boot:   b,
		writer: wire.NewBatchWriter(m.numbers, m.periodUs()),
		counts: make([]int32, len(m.sensors)),
		ok:     make([]bool, len(m.sensors)),
		// The first report comes with the first sweep, so that a meter that is up has something to say.
		due:  1,
		last: at,
		ring: ring{bootID: id, span: uint64(m.o.Ring.Microseconds())},
	}
	for _, c := range m.o.Channels {
		m.accounts = append(m.accounts, newAccount(c))
	}
	m.writer.Reserve(m.largest(new(meterpb.Report)))
}

// largest returns the most bytes the report after r can take without its batch. The size of r itself would be no bound: means
// and extremes that are zero take no byte, and all of them may come with the next interval.
func (m *Meter) largest(r *meterpb.Report) int {
	next := &meterpb.Report{
		BootId: m.boot.ID, Seq: r.Seq + 1, IntervalUs: uint32(m.o.ReportInterval.Microseconds()),
		TUs: r.TUs + uint64(m.o.ReportInterval.Microseconds()), Sweeps: r.Sweeps + uint64(m.o.ReportInterval/m.o.SweepPeriod),
	}
	seconds := int64(m.o.ReportInterval/time.Second) + 1
	for i, s := range m.sensors {
		c := &meterpb.ChannelReport{}
		if len(r.Channels) > 0 {
			c = r.Channels[i]
		}
		// Full scale in microvolts, microamperes and microwatts; extremes may lie at both ends.
		const volts = fullScale * countUV
		nv := fullScale*countNV + int64(max(s.OffsetNV, -s.OffsetNV))
		amps := nv / 1000 * (1_000_000 + int64(s.GainPPM)) / int64(s.ShuntUohm)
		watts := amps * (volts/1_000_000 + 1)
		next.Channels = append(next.Channels, &meterpb.ChannelReport{
			Channel: m.numbers[i], EnergyUj: magnify(c.EnergyUj, watts*seconds), ChargeUc: magnify(c.ChargeUc, amps*seconds),
			UnmeasuredUs: c.UnmeasuredUs + uint64(next.IntervalUs),
			Saturated:    c.Saturated + next.Sweeps - r.Sweeps, SensorErrors: c.SensorErrors + next.Sweeps - r.Sweeps,
			PowerUw: watts, PowerDropUw: uint64(2 * watts), PowerRiseUw: uint64(2 * watts),
			VoltageUv: volts, VoltageDropUv: 2 * volts, VoltageRiseUv: 2 * volts, CurrentUa: amps,
		})
	}
	return proto.Size(next)
}

// magnify moves n away from zero by d.
func magnify(n, d int64) int64 {
	if n < 0 {
		return n - d
	}
	return n + d
}

func (m *Meter) periodUs() uint32 { return uint32(m.o.SweepPeriod / time.Microsecond) }

// trueAt returns the first instant at which the clock of a boot has reached t.
func (m *Meter) trueAt(b *Boot, t time.Duration) time.Duration {
	hi, lo := bits.Mul64(uint64(t), 1e9)
	q, rem := bits.Div64(hi, lo, uint64(1e9+m.ppb))
	if rem > 0 {
		q++
	}
	return b.Start + time.Duration(q)
}

// ClockUs returns the meter's monotonic clock, in microseconds, at an instant of the present boot.
func (m *Meter) ClockUs(at time.Duration) uint64 {
	hi, lo := bits.Mul64(uint64(max(at-m.boot.Start, 0)), uint64(1e9+m.ppb))
	ns, _ := bits.Div64(hi, lo, 1e9)
	return ns / 1000
}

// Advance measures up to an instant and calls report, if it is not nil, with each report that is closed on the way; reports
// are not changed afterwards. An instant in the past changes nothing.
func (m *Meter) Advance(to time.Duration, report func(*meterpb.Report)) {
	to = max(to, m.now)
	if !m.On() && to >= m.up {
		m.now = m.up
		m.start(m.up)
	}
	if m.On() {
		for end := m.nextSweep(); end <= to; end = m.nextSweep() {
			m.sweep(end, report)
		}
		m.boot.End = to
	}
	m.now = to
}

// On says whether the meter has power.
func (m *Meter) On() bool { return m.boot.Start >= m.up }

func (m *Meter) nextSweep() time.Duration {
	return m.trueAt(m.boot, time.Duration(m.sweeps+1)*m.o.SweepPeriod)
}

// NextReport returns the instant at which the next report is due, if its batch does not fill up before; without power, when
// that comes back.
func (m *Meter) NextReport() time.Duration {
	if !m.On() {
		return m.up
	}
	return m.trueAt(m.boot, time.Duration(m.due)*m.o.SweepPeriod)
}

// sweep takes the sweep that ends at an instant. It stands for the time since the sweep before.
func (m *Meter) sweep(end time.Duration, report func(*meterpb.Report)) {
	dt := int64(m.periodUs())
	cycle := end - perCycle*m.conversion
	if m.o.SweepJitter > 0 {
		cycle -= time.Duration(m.jitter.Int64N(int64(m.o.SweepJitter) + 1))
	}
	buses := make([]int32, 0, maxChannels)
	for i := range m.sensors {
		s := &m.sensors[i]
		m.ok[i] = !s.fails()
		var bus int32
		m.counts[i], bus = s.convert(cycle)
		buses = append(buses, bus)
	}
	if !m.writer.Fits(m.counts, m.ok) {
		m.closeReport(report)
	}
	for i := range m.sensors {
		s, a := &m.sensors[i], &m.accounts[i]
		switch {
		case !m.ok[i]:
			a.miss(dt)
		case s.Ideal:
			e, span := s.Load.Energy(m.last, end), (end - m.last).Seconds()
			volts, amperes := s.circuit(e / span)
			a.addExact(e, amperes*span, e/span, volts, dt)
		default:
			a.add(m.counts[i], buses[i], dt)
		}
	}
	m.writer.Add(m.counts, m.ok)
	m.sweeps++
	m.last = end
	if (m.sweeps-m.carried)*uint64(dt) >= 1e6 {
		m.carry()
	}
	if m.sweeps >= m.due {
		m.closeReport(report)
	}
}

func (m *Meter) carry() {
	for i := range m.accounts {
		m.accounts[i].carry()
	}
	m.carried = m.sweeps
}

// closeReport makes a report of all sweeps taken.
func (m *Meter) closeReport(report func(*meterpb.Report)) {
	m.carry()
	r := &meterpb.Report{
		BootId: m.boot.ID, Seq: m.report.GetSeq() + 1, TUs: m.sweeps * uint64(m.periodUs()), Sweeps: m.sweeps,
		IntervalUs: uint32((m.sweeps - m.reported) * uint64(m.periodUs())),
	}
	m.boot.Measured, m.boot.Truth = nil, nil
	for i := range m.accounts {
		c := m.accounts[i].report()
		c.Channel = m.numbers[i]
		r.Channels = append(r.Channels, c)
		m.boot.Measured = append(m.boot.Measured, energy.Energy(c.EnergyUj))
		m.boot.Truth = append(m.boot.Truth, m.Truth(m.numbers[i], m.boot.Start, m.last))
	}
	r.Batch = m.writer.Close()
	m.writer.Reserve(m.largest(r))
	m.ring.add(r)
	m.report, m.reported = r, m.sweeps
	every := uint64(m.o.ReportInterval / m.o.SweepPeriod)
	m.due = (m.sweeps/every + 1) * every
	m.boot.Last, m.boot.LastAt = r, m.last
	if report != nil {
		report(r)
	}
}

// Reboot cuts the power at the instant the meter has advanced to and restores it after downFor: totals, clock and ring then
// start from zero under a new boot id.
func (m *Meter) Reboot(downFor time.Duration) {
	m.up = m.now + max(downFor, 1)
	m.run = run{boot: m.boot}
}

// BootID returns the id of the present boot, or of the last one without power.
func (m *Meter) BootID() uint32 { return m.boot.ID }

// Report returns the last report of the present boot, nil before the first.
func (m *Meter) Report() *meterpb.Report { return m.report }

// Samples returns the encoded SampleList that answers /samples?from=N: whole batches from that seq on, as many as fit
// wire.MaxBody.
func (m *Meter) Samples(from uint32) []byte { return m.ring.list(from, m.report.GetSeq()+1) }

// Identity returns what /meter says at an instant.
func (m *Meter) Identity(at time.Duration) *meterpb.Identity {
	id := &meterpb.Identity{
		BootId: m.boot.ID, WireRevision: wire.Revision, Name: m.o.Name, Serial: m.o.Serial, Hardware: "metersim",
		FirmwareVersion: "metersim", TUs: m.ClockUs(at),
		Sampling: &meterpb.Sampling{
			SweepPeriodUs:     m.periodUs(),
			ShuntConversionUs: uint32(m.conversion.Microseconds()), BusConversionUs: uint32(m.conversion.Microseconds()),
			Averaging:        1,
			ReportIntervalUs: uint32(m.o.ReportInterval.Microseconds()), RingUs: uint32(m.o.Ring.Microseconds()),
		},
		Capabilities: []meterpb.Capability{meterpb.Capability_CAPABILITY_SAMPLES, meterpb.Capability_CAPABILITY_TIME},
		MaxObservers: uint32(m.o.MaxObservers),
	}
	for _, c := range m.o.Channels {
		id.Channels = append(id.Channels, &meterpb.ChannelInfo{
			Channel: c.Number, Name: c.Name, ShuntUohm: c.ShuntUohm, GainPpm: c.GainPPM, OffsetNv: c.OffsetNV,
			CountNv: countNV, FullScaleCounts: fullScale,
		})
	}
	return id
}

// Boots returns all boots, the last or present one at the end.
func (m *Meter) Boots() []Boot {
	out := make([]Boot, 0, len(m.boots))
	for _, b := range m.boots {
		out = append(out, *b)
	}
	return out
}

// Now returns the instant the meter has advanced to.
func (m *Meter) Now() time.Duration { return m.now }

// Truth returns what the load of a channel drew between two instants; zero for a channel there is not.
func (m *Meter) Truth(channel uint32, from, to time.Duration) energy.Energy {
	i := slices.Index(m.numbers, channel)
	if i < 0 {
		return 0
	}
	return energy.Energy(math.Round(m.sensors[i].Load.Energy(from, to) * 1e6))
}

// TruthAt returns what the load of a channel drew from the start of a boot until that boot's clock read tUs: what a perfect
// meter's total would be at that t_us. ok is false for a boot or channel there is not.
func (m *Meter) TruthAt(channel, bootID uint32, tUs uint64) (e energy.Energy, ok bool) {
	i := slices.IndexFunc(m.boots, func(b *Boot) bool { return b.ID == bootID })
	if i < 0 || !slices.Contains(m.numbers, channel) {
		return 0, false
	}
	b := m.boots[i]
	return m.Truth(channel, b.Start, m.trueAt(b, time.Duration(tUs)*time.Microsecond)), true
}
