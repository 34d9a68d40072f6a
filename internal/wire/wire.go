// Package wire is the agent's and the simulator's side of proto/meter/v1: it turns datagrams into checked messages and
// readings, and samples into batches. What passes here needs no further checking; what does not is refused with a reason.
package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// Revision is the revision of proto/meter/v1 this package reads and writes.
const Revision = 1

// MaxBody is the largest body of a message but Identity, in bytes: a larger one would start block-wise transfer
// (RFC 7959 section 2.2: the largest block is 1,024 bytes).
const MaxBody = 1024

// Paths of a meter's CoAP resources.
const (
	PathMeter   = "/meter"
	PathPower   = "/power"
	PathSamples = "/samples"
	PathTime    = "/time"
)

const (
	maxChannel = 255
	maxSweeps  = 4096
	// maxMicros is the largest microsecond count whose nanoseconds fit a time.Duration: 292 years.
	maxMicros = math.MaxInt64 / 1000
)

// Errors that tell what is wrong with a message, to be matched with errors.Is.
var (
	// ErrMalformed: the bytes are not the message, or the message contradicts itself.
	ErrMalformed = errors.New("malformed message")
	// ErrRevision: the meter is too new for this reader.
	ErrRevision = errors.New("the meter speaks a newer revision")
	// ErrBatch: the report is good, its batch is not and was removed.
	ErrBatch = errors.New("malformed batch")
)

func malformed(what, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrMalformed, what, fmt.Sprintf(format, args...))
}

// revision refuses messages this reader would misread.
func revision(what string, minReader uint32) error {
	if minReader > Revision {
		return fmt.Errorf("%w: %s needs a reader of revision %d, this one has %d; upgrade wattlet",
			ErrRevision, what, minReader, Revision)
	}
	return nil
}

// UnmarshalReport decodes the payload of /power into r. With ErrBatch the totals in r are good and r.Batch is nil.
func UnmarshalReport(b []byte, r *meterpb.Report) error {
	const what = "report"
	if err := proto.Unmarshal(b, r); err != nil {
		return malformed(what, "%v", err)
	}
	if err := revision(what, r.MinReader); err != nil {
		return err
	}
	switch {
	case r.BootId == 0:
		return malformed(what, "boot_id is missing")
	case r.Seq == 0:
		return malformed(what, "seq is missing")
	case r.TUs > maxMicros:
		return malformed(what, "t_us %d is out of range", r.TUs)
	case len(r.Channels) == 0:
		return malformed(what, "no channels")
	}
	var seen channelSet
	for _, c := range r.Channels {
		if err := seen.add(what, c.GetChannel()); err != nil {
			return err
		}
		switch {
		case c.UnmeasuredUs > r.TUs:
			return malformed(what, "channel %d: unmeasured_us %d is more than t_us %d", c.Channel, c.UnmeasuredUs, r.TUs)
		case c.SensorErrors > r.Sweeps:
			return malformed(what, "channel %d: sensor_errors %d is more than sweeps %d", c.Channel, c.SensorErrors, r.Sweeps)
		}
	}
	if r.Batch != nil {
		if err := checkBatch(r.Seq, r.Sweeps, r.Batch); err != nil {
			r.Batch = nil
			return err
		}
	}
	return nil
}

// channelSet checks that channel numbers are in range and come once.
type channelSet [maxChannel/64 + 1]uint64

func (s *channelSet) add(what string, c uint32) error {
	if c == 0 || c > maxChannel {
		return malformed(what, "channel %d is not within 1 to %d", c, maxChannel)
	}
	if s[c/64]&(1<<(c%64)) != 0 {
		return malformed(what, "channel %d comes twice", c)
	}
	s[c/64] |= 1 << (c % 64)
	return nil
}

func checkBatch(seq uint32, sweeps uint64, b *meterpb.Batch) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: seq %d: %s", ErrBatch, seq, fmt.Sprintf(format, args...))
	}
	if b.Sweeps > maxSweeps || uint64(b.Sweeps) > sweeps {
		return bad("%d sweeps, more than %d", b.Sweeps, min(maxSweeps, sweeps))
	}
	var seen channelSet
	for _, c := range b.Channels {
		if err := seen.add("batch", c.GetChannel()); err != nil {
			return bad("%v", err)
		}
		if len(c.DeltaCounts)+len(c.Missing) != int(b.Sweeps) {
			return bad("channel %d has %d counts and %d missing for %d sweeps", c.Channel, len(c.DeltaCounts), len(c.Missing), b.Sweeps)
		}
		for i, m := range c.Missing {
			if m >= b.Sweeps || i > 0 && m <= c.Missing[i-1] {
				return bad("channel %d: missing sweeps are not ascending below %d", c.Channel, b.Sweeps)
			}
		}
	}
	return nil
}

// UnmarshalIdentity decodes the payload of /meter.
func UnmarshalIdentity(b []byte, m *meterpb.Identity) error {
	const what = "identity"
	if err := proto.Unmarshal(b, m); err != nil {
		return malformed(what, "%v", err)
	}
	if err := revision(what, m.MinReader); err != nil {
		return err
	}
	if m.BootId == 0 {
		return malformed(what, "boot_id is missing")
	}
	var seen channelSet
	for _, c := range m.Channels {
		if err := seen.add(what, c.GetChannel()); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalSampleList decodes the payload of /samples. Bad batches are removed and told in an error that is ErrBatch.
func UnmarshalSampleList(b []byte, l *meterpb.SampleList) error {
	const what = "sample list"
	if err := proto.Unmarshal(b, l); err != nil {
		return malformed(what, "%v", err)
	}
	if err := revision(what, l.MinReader); err != nil {
		return err
	}
	if l.BootId == 0 {
		return malformed(what, "boot_id is missing")
	}
	var errs []error
	l.Batches = slices.DeleteFunc(l.Batches, func(b *meterpb.PastBatch) bool {
		err := checkPast(b)
		if err != nil {
			errs = append(errs, err)
		}
		return err != nil
	})
	return errors.Join(errs...)
}

func checkPast(b *meterpb.PastBatch) error {
	switch {
	case b.Seq == 0:
		return fmt.Errorf("%w: seq is missing", ErrBatch)
	case b.TUs > maxMicros:
		return fmt.Errorf("%w: seq %d: t_us %d is out of range", ErrBatch, b.Seq, b.TUs)
	case b.Batch == nil:
		return fmt.Errorf("%w: seq %d: no batch", ErrBatch, b.Seq)
	}
	return checkBatch(b.Seq, b.Sweeps, b.Batch)
}

// UnmarshalTime decodes the payload of /time.
func UnmarshalTime(b []byte, m *meterpb.Time) error {
	const what = "time"
	if err := proto.Unmarshal(b, m); err != nil {
		return malformed(what, "%v", err)
	}
	switch {
	case m.BootId == 0:
		return malformed(what, "boot_id is missing")
	case m.SentUs > maxMicros || m.ReceivedUs > m.SentUs:
		return malformed(what, "received at %d us, sent at %d us", m.ReceivedUs, m.SentUs)
	}
	return nil
}

// MeterError is what a meter said in a 4.xx or 5.xx answer.
type MeterError struct {
	Code       meterpb.Error_Code
	Message    string
	RetryAfter time.Duration
}

func (e *MeterError) Error() string { return "the meter answers: " + e.Message }

// UnmarshalError decodes the payload of an error answer. A payload that is no Error, such as the bare diagnostic text of
// RFC 7252 section 5.5.2, becomes the message as it is, made fit for one line.
func UnmarshalError(b []byte) *MeterError {
	var m meterpb.Error
	if err := proto.Unmarshal(b, &m); err != nil || m.Message == "" {
		return &MeterError{Message: oneLine(string(b))}
	}
	return &MeterError{
		Code: m.Code, Message: oneLine(m.Message), RetryAfter: time.Duration(m.RetryAfterMs) * time.Millisecond,
	}
}

// oneLine makes text from outside fit for a log line: printable ASCII, at most 120 bytes.
func oneLine(s string) string {
	b := []byte(s[:min(len(s), 120)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	if len(b) == 0 {
		return "no reason given"
	}
	return string(b)
}

// Reading returns what a checked report says of one channel; host is the host's time at the report's t_us.
func Reading(r *meterpb.Report, c *meterpb.ChannelReport, host time.Time) energy.Reading {
	return energy.Reading{
		Epoch:        uint64(r.BootId),
		At:           micros(r.TUs),
		Host:         host,
		Energy:       energy.Energy(c.EnergyUj),
		Charge:       energy.Charge(c.ChargeUc),
		Unmeasured:   micros(c.UnmeasuredUs),
		Interval:     micros(uint64(r.IntervalUs)),
		Power:        energy.Power(c.PowerUw),
		MinPower:     energy.Power(c.PowerUw - saturate(c.PowerDropUw)),
		MaxPower:     energy.Power(c.PowerUw + saturate(c.PowerRiseUw)),
		Voltage:      energy.Voltage(c.VoltageUv),
		MinVolts:     energy.Voltage(c.VoltageUv - saturate(c.VoltageDropUv)),
		MaxVolts:     energy.Voltage(c.VoltageUv + saturate(c.VoltageRiseUv)),
		Current:      energy.Current(c.CurrentUa),
		Samples:      r.Sweeps - c.SensorErrors,
		Saturated:    c.Saturated,
		SensorErrors: c.SensorErrors,
	}
}

func micros(us uint64) time.Duration { return time.Duration(us) * time.Microsecond }

// saturate keeps a distance from overflowing: no sensor spans 4 TW.
func saturate(d uint64) int64 { return int64(min(d, 1<<62)) }
