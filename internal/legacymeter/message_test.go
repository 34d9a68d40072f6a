package legacymeter

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// unhex reads hexadecimal digits with blanks between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The first vector was taken from the earlier client, the others from protoc --encode.
var golden = []struct {
	message Message
	bytes   string
}{
	{Message{1234567890, 1234.5, 250.25}, "08 d2 85 d8 cc 04  11 00 00 00 00 00 4a 93 40  1d 00 40 7a 43"},
	{Message{}, ""},
	{Message{TimestampUS: 1}, "08 01"},
	{Message{ChargeMAS: 0.001}, "11 fc a9 f1 d2 4d 62 50 3f"},
	{Message{CurrentMA: 1638.35}, "1d 33 cb cc 44"},
	{Message{TimestampUS: 86_400_000_000, ChargeMAS: 86_400_000.125}, "08 80 c0 dd ee c1 02  11 00 00 80 00 70 99 94 41"},
}

func TestMessageGolden(t *testing.T) {
	for _, g := range golden {
		b := unhex(t, g.bytes)
		if got := g.message.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%+v: encoded % x, want % x", g.message, got, b)
		}
		if got, err := Parse(b); err != nil || got != g.message {
			t.Errorf("% x: decoded %+v, %v; want %+v", b, got, err, g.message)
		}
	}
	// The C library of the earlier system leaves out whatever equals zero.
	minus := Message{ChargeMAS: math.Copysign(0, -1), CurrentMA: float32(math.Copysign(0, -1))}
	if got := minus.Append([]byte("x")); string(got) != "x" {
		t.Errorf("minus zero is encoded: % x", got)
	}
}

func TestParseTolerates(t *testing.T) {
	for name, s := range map[string]string{
		"unknown varint, fixed64, bytes and fixed32": "20 05  08 01  29 01 02 03 04 05 06 07 08  32 02 aa bb  3d 01 02 03 04",
		"the last of a repeated field":               "08 07  08 01",
		"a long varint":                              "08 81 80 00",
	} {
		if m, err := Parse(unhex(t, s)); err != nil || m != (Message{TimestampUS: 1}) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestParseRejects(t *testing.T) {
	for name, s := range map[string]string{
		"cut varint":            "08 d2 85",
		"cut double":            "11 00 00 00",
		"cut float":             "08 01 1d 00",
		"only a tag":            "08",
		"field number 0":        "00 01",
		"timestamp as double":   "09 00 00 00 00 00 4a 93 40",
		"charge as float":       "15 00 40 7a 43",
		"current as double":     "19 00 00 00 00 00 4a 93 40",
		"group":                 "23 24",
		"end of a group":        "24",
		"overlong varint":       "08 ff ff ff ff ff ff ff ff ff ff 01",
		"length beyond the end": "32 7f 00",
		"the exporter's words":  hex.EncodeToString([]byte("DATA_REQUEST")),
		"charge NaN":            "11 00 00 00 00 00 00 f8 7f",
		"charge infinite":       "11 00 00 00 00 00 00 f0 7f",
		"charge negative":       "11 00 00 00 00 00 00 f0 bf",
		"charge 1e14":           "11 00 00 40 e5 9c 30 d6 42",
		"current NaN":           "1d 00 00 c0 7f",
		"current infinite":      "1d 00 00 80 7f",
		"current negative":      "1d 00 00 80 bf",
		"timestamp all ones":    "08 ff ff ff ff ff ff ff ff ff 01",
		"2 KiB of unknown":      "32 fd 07" + strings.Repeat("00", 1021) + "32 fd 07" + strings.Repeat("00", 1021),
	} {
		if m, err := Parse(unhex(t, s)); !errors.Is(err, ErrMessage) || m != (Message{}) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestFromReading(t *testing.T) {
	for _, tc := range []struct {
		reading energy.Reading
		want    Message
	}{
		{energy.Reading{}, Message{}},
		{energy.Reading{At: 1234567890 * time.Microsecond, Charge: 1_234_500, Current: 250_250}, golden[0].message},
		{energy.Reading{At: 999, Charge: -5, Current: -1500}, Message{CurrentMA: 1.5}}, // ns below a microsecond, signs of offsets
	} {
		if got := FromReading(tc.reading); got != tc.want {
			t.Errorf("%+v: %+v, want %+v", tc.reading, got, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.bytes))
	}
	f.Add([]byte("DATA_REQUEST"))
	f.Add(unhex(f, "20 05 29 01 02 03 04 05 06 07 08 32 02 aa bb 3d 01 02 03 04"))
	f.Add(unhex(f, "11 00 00 00 00 00 00 f8 7f 1d 00 00 80 bf"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("error %v is not ErrMessage", err)
			}
			return
		}
		again := m.Append(nil)
		if len(again) > 25 {
			t.Fatalf("%+v takes %d bytes", m, len(again))
		}
		if got, err := Parse(again); err != nil || got != m {
			t.Fatalf("%+v came back as %+v, %v", m, got, err)
		}
		if q := m.charge(); q < 0 || q.Times(maxVoltage) < 0 || m.at() < 0 || m.current() < 0 {
			t.Fatalf("%+v overflows: %v %v %v", m, q, m.at(), m.current())
		}
	})
}
