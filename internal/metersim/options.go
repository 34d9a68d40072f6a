package metersim

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
	"unicode/utf8"

	"github.com/wattlet/wattlet/internal/energy"
)

// Options say what a simulated meter is and how it behaves. The zero value of every field but PSK is a good meter: six
// channels that measure nothing connected, 500 sweeps a second, ten reports a second, on any free port of loopback.
type Options struct {
	// Addr is the UDP address to listen on; empty means 127.0.0.1:0, which takes any free port.
	Addr string
	// PSK returns the pre-shared key of an identity; ok is false for an identity nobody has. OneKey makes one.
	PSK func(identity string) (key []byte, ok bool)
	// Insecure serves CoAP without DTLS, for tests; Listen then refuses addresses that are not loopback.
	Insecure bool

	// Name is what people call the meter; empty means "metersim".
	Name string
	// Serial is unique for the device and stays over boots; empty means one made of Name.
	Serial string
	// Channels are what is measured; nil means six channels with nothing connected.
	Channels []Channel

	// SweepPeriod is the time between two sweeps on the meter's clock, in whole microseconds; 0 means 2 ms.
	SweepPeriod time.Duration
	// SweepJitter shifts each sweep's conversions back by a random time up to this, so that a periodic load cannot lock to
	// the sweep. It moves what a sweep sees, not the time it stands for: weighing a reading with a gap that depends on
	// where it was taken would bias the energy of exactly those loads. 0 means none.
	SweepJitter time.Duration
	// ReportInterval is the longest time between two reports; 0 means 100 ms.
	ReportInterval time.Duration
	// Ring is how far /samples reaches back; 0 means 10 s.
	Ring time.Duration
	// ClockDriftPPM is the rate error of the meter's clock in parts per million; positive if it runs fast.
	ClockDriftPPM float64
	// Seed makes noise, sensor errors and jitter repeatable; 0 means another sequence each time. Boot ids are random always:
	// a simulator started anew with the same seed must not pass for the run before.
	Seed uint64

	// RebootEvery cuts the power that often while Run serves; 0 means never.
	RebootEvery time.Duration
	// RebootTakes is how long the meter is away at each reboot; 0 means 1 s.
	RebootTakes time.Duration

	// MaxObservers is how many observations there may be at once; 0 means 32.
	MaxObservers int
	// MaxPeers is how many addresses may hold or try a session at once; 0 means 128. Datagrams of more are dropped.
	MaxPeers int
	// ConfirmEvery is how often an observer's notification is a CON, which finds out whether it still lives; 0 means 5 s.
	ConfirmEvery time.Duration
	// AckTimeout and MaxRetransmit are ACK_TIMEOUT and MAX_RETRANSMIT of RFC 7252 section 4.8; 0 means 2 s and 4.
	// A negative MaxRetransmit means none.
	AckTimeout    time.Duration
	MaxRetransmit int
	// IdleTimeout ends sessions from which nothing came for that long; 0 means 5 min.
	IdleTimeout time.Duration
	// HandshakeTimeout ends handshakes that do not finish; 0 means 30 s.
	HandshakeTimeout time.Duration

	// Now is the true clock; nil means time.Now. The simulator's power-on is its first call.
	Now func() time.Time
	// Log hears of boots, observers and failed handshakes; nil means nobody does.
	Log *slog.Logger
}

// Channel is one channel: what is connected to it, what is wrong with its sensor, and what the meter makes of that.
type Channel struct {
	// Number is 1 to 255; 0 means the place in the list, from 1.
	Number uint32
	Name   string
	// Load is what the board behind the channel draws; nil means nothing is connected.
	Load Load

	// Supply is the voltage of the supply without load; 0 means 5.1 V.
	Supply energy.Voltage
	// SourceUohm is the resistance of supply, cable and shunt ahead of the point where voltage is measured, in micro-ohm: the
	// voltage sags by it times the current.
	SourceUohm uint32
	// ShuntUohm is the shunt in micro-ohm; 0 means 100,000, which modules commonly carry and which saturates at 1.64 A.
	ShuntUohm uint32

	// Ideal makes the sensor perfect: energy is the exact integral of the load over true time and the errors below are
	// ignored, but for SensorError. Counts of a batch are still whole numbers.
	Ideal bool
	// GainErrorPPM and OffsetUV are errors of the shunt reading, in parts per million and microvolts.
	GainErrorPPM float64
	OffsetUV     float64
	// Noise is the rms of the noise on each conversion, in counts.
	Noise float64
	// SensorError is the probability that a sweep cannot read this channel.
	SensorError float64

	// GainPPM and OffsetNV are the calibration as the meter applies it: offset subtracted from the shunt voltage, gain then
	// corrected. They cancel the errors above if GainPPM is about -GainErrorPPM and OffsetNV is 1000 times OffsetUV.
	GainPPM  int32
	OffsetNV int32
}

// Defaults of Options and Channel.
const (
	DefaultSupply         = 5_100_000 * energy.Voltage(1)
	DefaultShuntUohm      = 100_000
	DefaultSweepPeriod    = 2 * time.Millisecond
	DefaultReportInterval = 100 * time.Millisecond
	DefaultRing           = 10 * time.Second
	DefaultRebootTakes    = time.Second
	DefaultMaxObservers   = 32
	DefaultMaxPeers       = 128
	DefaultConfirmEvery   = 5 * time.Second
	DefaultAckTimeout     = 2 * time.Second
	DefaultMaxRetransmit  = 4
	DefaultIdle           = 5 * time.Minute
	DefaultHandshake      = 30 * time.Second
)

// maxChannels is what four INA3221 measure, one at each of its addresses.
const maxChannels = 12

// ErrOptions is wrapped by the errors of Validate.
var ErrOptions = errors.New("cannot simulate this meter")

// OneKey returns a PSK function for one identity.
func OneKey(identity string, key []byte) func(string) ([]byte, bool) {
	return func(id string) ([]byte, bool) { return key, id == identity }
}

// withDefaults returns o with every zero field filled in.
func (o Options) withDefaults() Options {
	def(&o.Addr, "127.0.0.1:0")
	def(&o.Name, "metersim")
	def(&o.Serial, "sim:"+o.Name)
	def(&o.SweepPeriod, DefaultSweepPeriod)
	def(&o.ReportInterval, DefaultReportInterval)
	def(&o.Ring, DefaultRing)
	def(&o.RebootTakes, DefaultRebootTakes)
	def(&o.MaxObservers, DefaultMaxObservers)
	def(&o.MaxPeers, DefaultMaxPeers)
	def(&o.ConfirmEvery, DefaultConfirmEvery)
	def(&o.AckTimeout, DefaultAckTimeout)
	def(&o.MaxRetransmit, DefaultMaxRetransmit)
	o.MaxRetransmit = max(o.MaxRetransmit, 0)
	def(&o.IdleTimeout, DefaultIdle)
	def(&o.HandshakeTimeout, DefaultHandshake)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	chans := make([]Channel, len(o.Channels))
	copy(chans, o.Channels)
	if o.Channels == nil {
		chans = make([]Channel, 6)
	}
	for i := range chans {
		c := &chans[i]
		def(&c.Number, uint32(i+1))
		def(&c.Supply, DefaultSupply)
		def(&c.ShuntUohm, DefaultShuntUohm)
		if c.Load == nil {
			c.Load = Constant(0)
		}
	}
	o.Channels = chans
	return o
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate says what cannot be simulated in o, all of it.
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...))
	}
	between := func(what string, v, low, high time.Duration) {
		if v < low || v > high {
			bad("%s %s is not within %s to %s", what, v, low, high)
		}
	}
	// The shortest cycle is three channels' shunt and bus at the sensor's shortest conversion.
	between("sweep period", o.SweepPeriod, perCycle*conversions[0], time.Second)
	between("sweep jitter", o.SweepJitter, 0, o.SweepPeriod)
	between("report interval", o.ReportInterval, o.SweepPeriod, 10*time.Second)
	between("ring", o.Ring, time.Second, time.Hour)
	between("reboot takes", o.RebootTakes, time.Millisecond, time.Hour)
	between("reboot every", o.RebootEvery, 0, math.MaxInt64)
	between("confirm every", o.ConfirmEvery, time.Millisecond, 24*time.Hour)
	between("ack timeout", o.AckTimeout, time.Millisecond, time.Minute)
	between("idle timeout", o.IdleTimeout, time.Millisecond, 24*time.Hour)
	between("handshake timeout", o.HandshakeTimeout, time.Millisecond, time.Hour)
	if o.SweepPeriod%time.Microsecond != 0 {
		bad("sweep period %s is not whole microseconds", o.SweepPeriod)
	}
	if o.MaxObservers < 1 || o.MaxPeers < 1 || o.MaxRetransmit > 20 {
		bad("max observers %d, max peers %d, max retransmit %d: at least 1, at least 1, at most 20",
			o.MaxObservers, o.MaxPeers, o.MaxRetransmit)
	}
	if !(math.Abs(o.ClockDriftPPM) <= 10_000) {
		bad("clock drift %g ppm is not within 10,000 ppm", o.ClockDriftPPM)
	}
	if !isName(o.Name) || !isName(o.Serial) {
		bad("name and serial take at most 64 bytes of UTF-8 each")
	}
	if n := len(o.Channels); n < 1 || n > maxChannels {
		bad("%d channels, but four sensors measure 1 to %d", n, maxChannels)
	}
	seen := map[uint32]bool{}
	for _, c := range o.Channels {
		if seen[c.Number] {
			bad("channel %d comes twice", c.Number)
		}
		seen[c.Number] = true
		for _, err := range c.problems() {
			bad("channel %d: %s", c.Number, err)
		}
	}
	return errors.Join(errs...)
}

// validateServing adds what only a meter on the network needs.
func (o Options) validateServing() error {
	err := o.Validate()
	if o.PSK == nil && !o.Insecure {
		err = errors.Join(err, fmt.Errorf("%w: no key; give PSK, or Insecure for a test on loopback", ErrOptions))
	}
	if o.PSK != nil && o.Insecure {
		err = errors.Join(err, fmt.Errorf("%w: both PSK and Insecure; leave one out", ErrOptions))
	}
	return err
}

func (c *Channel) problems() []string {
	var out []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	check(c.Number <= 255, "the number is not within 1 to 255")
	check(isName(c.Name), "the name takes at most 64 bytes of UTF-8")
	check(c.Supply > 0 && c.Supply <= 26*energy.Volt, "supply %s is not within the sensor's 0 to 26 V", c.Supply)
	check(c.SourceUohm <= 10_000_000, "source resistance %d µΩ is more than 10 Ω", c.SourceUohm)
	check(c.ShuntUohm >= 100 && c.ShuntUohm <= 10_000_000, "shunt %d µΩ is not within 100 µΩ to 10 Ω", c.ShuntUohm)
	check(math.Abs(c.GainErrorPPM) <= 500_000, "gain error %g ppm is not within 500,000 ppm", c.GainErrorPPM)
	check(math.Abs(c.OffsetUV) <= 100_000, "offset error %g µV is not within 100 mV", c.OffsetUV)
	check(c.Noise >= 0 && c.Noise <= 1000, "noise %g is not within 0 to 1000 counts", c.Noise)
	check(c.SensorError >= 0 && c.SensorError <= 1, "sensor error %g is not a probability", c.SensorError)
	check(c.GainPPM >= -500_000 && c.GainPPM <= 500_000, "calibrated gain %d ppm is not within 500,000 ppm", c.GainPPM)
	check(c.OffsetNV >= -100_000_000 && c.OffsetNV <= 100_000_000, "calibrated offset %d nV is not within 100 mV", c.OffsetNV)
	return out
}

// isName says whether protobuf takes s and a person can read it.
func isName(s string) bool { return len(s) <= 64 && utf8.ValidString(s) }
