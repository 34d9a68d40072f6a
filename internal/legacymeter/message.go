package legacymeter

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wattlet/wattlet/internal/energy"
)

// Message is one datagram of the earlier firmware about one channel. On the wire it is a proto3 message without a package:
//
//	message power_measurement {
//	  uint64 timestamp          = 1; // microseconds since the board's boot
//	  double energy_consumption = 2; // in truth a charge, in mA·s since boot
//	  float  current            = 3; // mA
//	}
//
// The charge is the sum of |I|·Δt, so that it never falls and noise around zero makes it grow.
type Message struct {
	// TimestampUS is the board's time since boot in microseconds; zero from a board that has not measured yet and from the
	// earlier system's mock server.
	TimestampUS uint64
	// ChargeMAS is the charge since boot in mA·s.
	ChargeMAS float64
	// CurrentMA is the last conversion's current in mA.
	CurrentMA float32
}

// What a Message may hold. The bounds are far beyond any board and keep every sum below in 63 bits.
const (
	maxTimestampUS = 100 * 365 * 24 * 3600 * 1e6 // 100 years
	maxChargeMAS   = 1e13                        // 10 A for 31 years
	maxCurrentMA   = 1e6
	// maxMessage is the receive buffer of the earlier client, in bytes; a message proper has at most 25.
	maxMessage = 1024
)

// ErrMessage is wrapped by all errors of Parse.
var ErrMessage = errors.New("not a message of the earlier firmware")

// Parse decodes a datagram. An empty one is legal: all fields zero. Unknown fields are ignored, and of a field given twice
// the last counts, as proto3 has it. Rejected are a known field of another wire type and groups, as the earlier client does,
// and values that no board means: not a number, infinite, negative, or out of any range.
func Parse(b []byte) (Message, error) {
	var m Message
	bad := func(why string) (Message, error) { return Message{}, fmt.Errorf("%w: %s", ErrMessage, why) }
	if len(b) > maxMessage {
		return bad("too long")
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return bad("broken field tag")
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.VarintType:
			m.TimestampUS, n = protowire.ConsumeVarint(b)
		case num == 2 && typ == protowire.Fixed64Type:
			var bits uint64
			bits, n = protowire.ConsumeFixed64(b)
			m.ChargeMAS = math.Float64frombits(bits)
		case num == 3 && typ == protowire.Fixed32Type:
			var bits uint32
			bits, n = protowire.ConsumeFixed32(b)
			m.CurrentMA = math.Float32frombits(bits)
		case num <= 3:
			return bad(fmt.Sprintf("field %d has wire type %d", num, typ))
		case typ == protowire.StartGroupType || typ == protowire.EndGroupType:
			return bad("it has a group")
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return bad(fmt.Sprintf("field %d is cut short or broken", num))
		}
		b = b[n:]
	}
	// Written so that NaN fails.
	switch {
	case m.TimestampUS > maxTimestampUS:
		return bad(fmt.Sprintf("timestamp %d us", m.TimestampUS))
	case !(m.ChargeMAS >= 0 && m.ChargeMAS <= maxChargeMAS):
		return bad(fmt.Sprintf("charge %g mAs", m.ChargeMAS))
	case !(m.CurrentMA >= 0 && m.CurrentMA <= maxCurrentMA):
		return bad(fmt.Sprintf("current %g mA", m.CurrentMA))
	}
	return m, nil
}

// Append appends the encoding of m to b, byte for byte as the earlier firmware and client write it: fields in order of
// number, those equal to zero left out, minus zero being zero.
func (m Message) Append(b []byte) []byte {
	if m.TimestampUS != 0 {
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, m.TimestampUS)
	}
	if m.ChargeMAS != 0 {
		b = protowire.AppendTag(b, 2, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, math.Float64bits(m.ChargeMAS))
	}
	if m.CurrentMA != 0 {
		b = protowire.AppendTag(b, 3, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, math.Float32bits(m.CurrentMA))
	}
	return b
}

// FromReading returns r as the earlier firmware would have said it, so that a Responder can speak for any meter. The protocol
// has no sign: a total below zero becomes zero, a current its absolute value.
func FromReading(r energy.Reading) Message {
	return Message{
		TimestampUS: uint64(max(r.At, 0) / time.Microsecond),
		ChargeMAS:   float64(max(r.Charge, 0)) / 1e3,
		CurrentMA:   float32(math.Abs(float64(r.Current)) / 1e3),
	}
}

// at is the board's time since boot.
func (m Message) at() time.Duration { return time.Duration(m.TimestampUS) * time.Microsecond }

// charge is the total in our unit; 1 mA·s = 1000 uC.
func (m Message) charge() energy.Charge { return energy.Charge(math.Round(m.ChargeMAS * 1e3)) }

// current is the momentary current in our unit.
func (m Message) current() energy.Current {
	return energy.Current(math.Round(float64(m.CurrentMA) * 1e3))
}
