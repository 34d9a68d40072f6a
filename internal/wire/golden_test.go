package wire_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

var update = flag.Bool("update", false, "write golden files anew")

const goldenDir = "../../proto/meter/v1/testdata"

// goldenMessages are the messages behind the golden datagrams. Every field is set in one of them; signed values take both
// signs, sizes sit at the edges of varints.
func goldenMessages() map[string]proto.Message {
	w := wire.NewBatchWriter([]uint32{1, 6}, 2000)
	w.Add([]int32{1250, -3}, []bool{true, true})
	w.Add([]int32{1313, -66}, []bool{true, true})
	w.Add([]int32{1250, 0}, []bool{false, true})
	w.Add([]int32{-4096, 4095}, []bool{true, true})
	batch := w.Close()
	return map[string]proto.Message{
		"identity": &meterpb.Identity{
			BootId: 0x12345678, WireRevision: 1, Name: "bench-1", Serial: "24:6f:28:aa:bb:cc", Hardware: "esp32-2xina3221",
			FirmwareVersion: "0.1.0", TUs: 123_456_789,
			Channels: []*meterpb.ChannelInfo{
				{Channel: 1, Name: "raspberrypi", ShuntUohm: 100_000, GainPpm: -1200, OffsetNv: 8000, CountNv: 40_000, FullScaleCounts: 4095},
				{
					Channel: 6, Name: "jetson-nano", ShuntUohm: 20_000, GainPpm: 350, OffsetNv: -40_000, CountNv: 40_000, FullScaleCounts: 4095,
					EarlierEnergyUj: 157_680_000_000_000, EarlierChargeUc: -31_536_000_000_000,
				},
			},
			Sampling: &meterpb.Sampling{
				SweepPeriodUs: 2000, ShuntConversionUs: 332, BusConversionUs: 332, Averaging: 1, ReportIntervalUs: 100_000, RingUs: 10_000_000,
			},
			Capabilities: []meterpb.Capability{meterpb.Capability_CAPABILITY_SAMPLES, meterpb.Capability_CAPABILITY_TIME},
			MaxObservers: 32,
		},
		"report": &meterpb.Report{
			BootId: 0x12345678, Seq: 7, TUs: 700_000, IntervalUs: 100_000, Sweeps: 350, Batch: batch,
			Channels: []*meterpb.ChannelReport{
				{
					Channel: 1, EnergyUj: 3_500_000, ChargeUc: 700_000, SensorErrors: 1, UnmeasuredUs: 2000,
					PowerUw: 5_000_000, VoltageUv: 5_000_000, CurrentUa: 1_000_000,
					PowerDropUw: 127, PowerRiseUw: 128, VoltageDropUv: 8000, VoltageRiseUv: 16_000,
				},
				{Channel: 6, EnergyUj: -64, ChargeUc: -65, Saturated: 3, PowerUw: -1, VoltageUv: -8000, CurrentUa: -2},
			},
		},
		"report-worst": worstReport(),
		"report-idle": &meterpb.Report{
			BootId: 1, Seq: 1, TUs: 100_000, IntervalUs: 100_000, Channels: []*meterpb.ChannelReport{{Channel: 3}},
		},
		"samples":       &meterpb.SampleList{BootId: 0x12345678, Batches: []*meterpb.PastBatch{{Seq: 7, TUs: 700_000, Sweeps: 350, Batch: batch}}, Next: 8},
		"samples-empty": &meterpb.SampleList{BootId: 0x12345678, Next: 9},
		"time":          &meterpb.Time{BootId: 0x12345678, ReceivedUs: 1_000_000, SentUs: 1_000_250},
		"error":         &meterpb.Error{Code: meterpb.Error_CODE_BUSY, Message: "32 observers, no place left", RetryAfterMs: 5000},
	}
}

// worstReport is of six channels after ten years at the end of the range of shunts of 100 mΩ, with every fault there is.
func worstReport() *meterpb.Report {
	r := &meterpb.Report{
		BootId: math.MaxUint32, Seq: math.MaxUint32, TUs: 315_576_000_000_000, IntervalUs: math.MaxUint32, Sweeps: 157_788_000_000,
	}
	for c := range uint32(6) {
		r.Channels = append(r.Channels, &meterpb.ChannelReport{
			Channel: 1 + c, EnergyUj: 16_942_600_000_000_000, ChargeUc: 517_000_000_000_000, UnmeasuredUs: r.TUs - uint64(c),
			Saturated: r.Sweeps, SensorErrors: r.Sweeps - uint64(c), PowerUw: 53_687_091, VoltageUv: 32_768_000, CurrentUa: 1_638_400,
			PowerDropUw: 107_374_182, PowerRiseUw: 107_374_182, VoltageDropUv: 65_536_000, VoltageRiseUv: 65_536_000,
		})
	}
	return r
}

// TestGolden holds the wire still: other implementations, and agents in the field, read these very bytes.
func TestGolden(t *testing.T) {
	for name, m := range goldenMessages() {
		t.Run(name, func(t *testing.T) {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			j, err := wire.BodyJSON(m)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".hex", hexLines(b))
			golden(t, name+".json", string(j)+"\n")
			if _, ok := m.(*meterpb.Report); ok && (len(b) > wire.MaxBody || len(j) > wire.MaxBody) {
				t.Errorf("%d bytes, %d as JSON, more than %d", len(b), len(j), wire.MaxBody)
			}

			// What other implementations wrote must come back as the same message.
			raw, err := os.ReadFile(filepath.Join(goldenDir, name+".hex"))
			if err != nil {
				t.Fatal(err)
			}
			dec, err := hex.DecodeString(strings.Join(strings.Fields(string(raw)), ""))
			if err != nil {
				t.Fatal(err)
			}
			back := m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(dec, back); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(back, m) {
				t.Errorf("read back %v\nwant      %v", back, m)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(goldenDir, name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// hexLines renders bytes as 16 pairs a line, which C and people can read.
func hexLines(b []byte) string {
	var sb strings.Builder
	for i, c := range b {
		switch {
		case i > 0 && i%16 == 0:
			sb.WriteByte('\n')
		case i > 0:
			sb.WriteByte(' ')
		}
		sb.WriteString(hex.EncodeToString([]byte{c}))
	}
	sb.WriteByte('\n')
	return sb.String()
}

// What the firmware's encoders made (firmware/test/unit/test_telemetry.c) passes every check, is byte for byte what Go's
// encoder makes of the same message, and so is its JSON.
func TestFirmwareGolden(t *testing.T) {
	for name, tc := range map[string]struct {
		m         proto.Message
		unmarshal func([]byte, proto.Message) error
		holds     func(proto.Message) bool
	}{
		"firmware-identity": {
			&meterpb.Identity{},
			func(b []byte, m proto.Message) error { return wire.UnmarshalIdentity(b, m.(*meterpb.Identity)) },
			func(m proto.Message) bool {
				id := m.(*meterpb.Identity)
				return id.Name == "bänk <1> & \"2\"\\\t\x01\x7f" && id.Channels[0].Name == "abcdefghijklmnopqrstuvwxyz0123?" &&
					id.Channels[1].EarlierEnergyUj == 157_680_000_000_000
			},
		},
		"firmware-report": {
			&meterpb.Report{},
			func(b []byte, m proto.Message) error { return wire.UnmarshalReport(b, m.(*meterpb.Report)) },
			func(m proto.Message) bool {
				r := m.(*meterpb.Report)
				return r.Batch.GetSweeps() == 100 && len(r.Batch.Channels) == 6 && len(r.Batch.Channels[5].DeltaCounts) == 100 &&
					r.IntervalUs == 100_000
			},
		},
		"firmware-report-wild": {
			&meterpb.Report{},
			func(b []byte, m proto.Message) error { return wire.UnmarshalReport(b, m.(*meterpb.Report)) },
			func(m proto.Message) bool {
				b := m.(*meterpb.Report).Batch
				return b.GetSweeps() > 20 && b.GetSweeps() < 100 && len(b.Channels[0].Missing) > 0
			},
		},
		"firmware-samples": {
			&meterpb.SampleList{},
			func(b []byte, m proto.Message) error { return wire.UnmarshalSampleList(b, m.(*meterpb.SampleList)) },
			func(m proto.Message) bool {
				l := m.(*meterpb.SampleList)
				return len(l.Batches) > 1 && l.Next == l.Batches[0].Seq+uint32(len(l.Batches))
			},
		},
		"firmware-time": {
			&meterpb.Time{},
			func(b []byte, m proto.Message) error { return wire.UnmarshalTime(b, m.(*meterpb.Time)) },
			func(m proto.Message) bool { return m.(*meterpb.Time).SentUs == math.MaxInt64/1000 },
		},
		"firmware-error": {
			&meterpb.Error{},
			func(b []byte, m proto.Message) error { return proto.Unmarshal(b, m) },
			func(m proto.Message) bool {
				e := m.(*meterpb.Error)
				return e.Code == meterpb.Error_CODE_BAD_REQUEST && len(e.Message) == 120 && strings.HasSuffix(e.Message, " may be ?")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join(goldenDir, name+".hex"))
			if err != nil {
				t.Fatal(err)
			}
			made, err := hex.DecodeString(strings.Join(strings.Fields(string(raw)), ""))
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.unmarshal(made, tc.m); err != nil {
				t.Fatal(err)
			}
			if !tc.holds(tc.m) {
				t.Errorf("is not the message that was written: %v", tc.m)
			}
			if _, ok := tc.m.(*meterpb.Identity); !ok && len(made) > wire.MaxBody {
				t.Errorf("%d bytes, more than %d", len(made), wire.MaxBody)
			}
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(tc.m)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(made, again) {
				t.Errorf("the firmware wrote\n%sGo writes\n%s", hexLines(made), hexLines(again))
			}
			j, err := wire.BodyJSON(tc.m)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := os.ReadFile(filepath.Join(goldenDir, name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if string(j)+"\n" != string(theirs) {
				t.Errorf("the firmware wrote\n%sGo writes\n%s", theirs, j)
			}
		})
	}
}
