package wire_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// report is a report of n channels as a meter sends it after a year of uptime under a load of some watts.
func report(n int) *meterpb.Report {
	r := &meterpb.Report{BootId: 0xdeadbeef, Seq: 315_360_000, TUs: 31_536_000_000_000, IntervalUs: 100_000, Sweeps: 31_536_000_000}
	for c := range uint32(n) {
		r.Channels = append(r.Channels, &meterpb.ChannelReport{
			Channel: c + 1, EnergyUj: 157_680_000_000_000 + int64(c), ChargeUc: 31_536_000_000_000,
			PowerUw: 5_012_345, PowerDropUw: 81_000, PowerRiseUw: 93_000,
			VoltageUv: 5_104_000, VoltageDropUv: 8_000, VoltageRiseUv: 16_000, CurrentUa: 982_000,
		})
	}
	return r
}

func TestOneHundredMillisecondsFitOneDatagram(t *testing.T) {
	const channels, sweeps = 6, 100
	// DTLS 1.2 record with AES-128-CCM-8: 13 header, 8 nonce, 8 tag (RFC 6347, RFC 6655). CoAP: 4 header, 8 token,
	// 4 Observe, 2 Content-Format, 1 marker (RFC 7252 section 3).
	const around = 29 + 19
	rng := rand.New(rand.NewPCG(1, 2))
	r := report(channels)
	w := wire.NewBatchWriter([]uint32{1, 2, 3, 4, 5, 6}, 1000)
	w.Reserve(proto.Size(r))
	counts, ok := make([]int32, channels), []bool{true, true, true, true, true, true}
	for i := range sweeps {
		for c := range counts {
			counts[c] = int32(math.Round(1230 + 4*rng.NormFloat64()))
		}
		if !w.Fits(counts, ok) {
			t.Fatalf("full after %d of %d sweeps", i, sweeps)
		}
		w.Add(counts, ok)
	}
	r.Batch = w.Close()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("body %d bytes, datagram %d bytes", len(b), len(b)+around)
	if len(b) > wire.MaxBody {
		t.Errorf("body is %d bytes, more than %d", len(b), wire.MaxBody)
	}
	if len(b)+around > 1200 {
		t.Errorf("datagram is %d bytes, more than 1200", len(b)+around)
	}
}

// A batch of the wildest samples closes itself before the body passes the limit, whatever the totals are.
func TestBatchNeverPassesTheLimit(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		n := 1 + rng.IntN(6)
		r := report(n)
		for _, c := range r.Channels {
			c.EnergyUj = rng.Int64N(1<<50) - 1<<49
			c.UnmeasuredUs = uint64(rng.Int64N(1 << 40))
			c.SensorErrors = uint64(rng.Int64N(1 << 20))
		}
		chans := make([]uint32, n)
		for i := range chans {
			chans[i] = uint32(i + 1)
		}
		w := wire.NewBatchWriter(chans, 840)
		w.Reserve(proto.Size(r))
		counts, ok := make([]int32, n), make([]bool, n)
		for {
			for c := range counts {
				counts[c], ok[c] = int32(rng.IntN(8191)-4095), rng.IntN(10) > 0
			}
			if !w.Fits(counts, ok) {
				break
			}
			w.Add(counts, ok)
		}
		r.Batch = w.Close()
		if size := proto.Size(r); size > wire.MaxBody {
			t.Fatalf("%d channels, %d sweeps: body is %d bytes", n, r.Batch.Sweeps, size)
		}
	}
}

func TestSamplesComeBackAsTheyWentIn(t *testing.T) {
	w := wire.NewBatchWriter([]uint32{2, 5}, 2000)
	in := [][]int32{{10, -5}, {4095, -4096}, {0, 0}, {7, 3}}
	ok := [][]bool{{true, true}, {true, false}, {false, true}, {true, true}}
	for i := range in {
		w.Add(in[i], ok[i])
	}
	if got := w.Sweeps(); got != 4 {
		t.Fatalf("%d sweeps, want 4", got)
	}
	first := &meterpb.PastBatch{Seq: 1, TUs: 100_000, Sweeps: 4, Batch: w.Close()}
	w.Add([]int32{1, 2}, []bool{true, true})
	second := &meterpb.PastBatch{Seq: 2, TUs: 102_000, Sweeps: 5, Batch: w.Close()}

	got, err := wire.Samples(nil, first, 5)
	if err != nil {
		t.Fatal(err)
	}
	want := []wire.Sample{{94_000, 0, -5}, {98_000, 2, 0}, {100_000, 3, 3}}
	if !slices.Equal(got, want) {
		t.Errorf("channel 5: %v, want %v", got, want)
	}
	got, err = wire.Samples(nil, second, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := []wire.Sample{{102_000, 4, 1}}; !slices.Equal(got, want) {
		t.Errorf("second batch: %v, want %v", got, want)
	}
	if _, err := wire.Samples(nil, first, 3); err == nil {
		t.Error("a channel that is not there gave no error")
	}
}

func TestReading(t *testing.T) {
	host := time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	r := report(1)
	r.Channels[0].UnmeasuredUs = 2_000_000
	got := wire.Reading(r, r.Channels[0], host)
	want := energy.Reading{
		Epoch: 0xdeadbeef, At: 365 * 24 * time.Hour, Host: host,
		Energy: 157_680_000 * energy.Joule, Charge: 31_536_000 * energy.Coulomb, Unmeasured: 2 * time.Second,
		Interval: 100 * time.Millisecond,
		Power:    5_012_345, MinPower: 4_931_345, MaxPower: 5_105_345,
		Voltage: 5_104_000, MinVolts: 5_096_000, MaxVolts: 5_120_000, Current: 982_000, Samples: 31_536_000_000,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestMalformedReports(t *testing.T) {
	edit := func(f func(*meterpb.Report)) []byte {
		r := report(2)
		w := wire.NewBatchWriter([]uint32{1, 2}, 2000)
		w.Add([]int32{1, 2}, []bool{true, false})
		w.Add([]int32{3, 4}, []bool{true, true})
		r.Batch = w.Close()
		f(r)
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		in   []byte
		want error
		text string
	}{
		"empty":          {nil, wire.ErrMalformed, "boot_id is missing"},
		"noise":          {[]byte("GET / HTTP/1.1\r\n"), wire.ErrMalformed, "report"},
		"truncated":      {edit(func(*meterpb.Report) {})[:40], wire.ErrMalformed, "report"},
		"no boot id":     {edit(func(r *meterpb.Report) { r.BootId = 0 }), wire.ErrMalformed, "boot_id is missing"},
		"no seq":         {edit(func(r *meterpb.Report) { r.Seq = 0 }), wire.ErrMalformed, "seq is missing"},
		"far clock":      {edit(func(r *meterpb.Report) { r.TUs = math.MaxUint64 }), wire.ErrMalformed, "t_us"},
		"no channels":    {edit(func(r *meterpb.Report) { r.Channels = nil }), wire.ErrMalformed, "no channels"},
		"channel 0":      {edit(func(r *meterpb.Report) { r.Channels[0].Channel = 0 }), wire.ErrMalformed, "channel 0 is not within"},
		"channel 256":    {edit(func(r *meterpb.Report) { r.Channels[0].Channel = 256 }), wire.ErrMalformed, "channel 256 is not"},
		"channel twice":  {edit(func(r *meterpb.Report) { r.Channels[0].Channel = 2 }), wire.ErrMalformed, "channel 2 comes twice"},
		"all unmeasured": {edit(func(r *meterpb.Report) { r.Channels[0].UnmeasuredUs = r.TUs + 1 }), wire.ErrMalformed, "unmeasured_us"},
		"all errors":     {edit(func(r *meterpb.Report) { r.Channels[0].SensorErrors = r.Sweeps + 1 }), wire.ErrMalformed, "sensor_errors"},
		"newer":          {edit(func(r *meterpb.Report) { r.MinReader = 2 }), wire.ErrRevision, "needs a reader of revision 2"},
		"batch count":    {edit(func(r *meterpb.Report) { r.Batch.Sweeps = 3 }), wire.ErrBatch, "3 sweeps"},
		"batch early":    {edit(func(r *meterpb.Report) { r.Sweeps = 1 }), wire.ErrBatch, "more than 1"},
		"batch huge":     {edit(func(r *meterpb.Report) { r.Batch.Sweeps = 1 << 30 }), wire.ErrBatch, "sweeps, more than"},
		"batch missing":  {edit(func(r *meterpb.Report) { r.Batch.Channels[1].Missing[0] = 9 }), wire.ErrBatch, "ascending"},
		"batch channel":  {edit(func(r *meterpb.Report) { r.Batch.Channels[1].Channel = 1 }), wire.ErrBatch, "comes twice"},
	} {
		t.Run(name, func(t *testing.T) {
			var r meterpb.Report
			err := wire.UnmarshalReport(tc.in, &r)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %v with %q", err, tc.want, tc.text)
			}
			if errors.Is(tc.want, wire.ErrBatch) && (r.Batch != nil || len(r.Channels) != 2 || r.Channels[0].EnergyUj == 0) {
				t.Error("a bad batch took the totals with it")
			}
		})
	}
}

// A newer meter adds fields at every level; an older reader must read what it knows and nothing else.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	extra := protowire.AppendTag(nil, 900, protowire.BytesType)
	extra = protowire.AppendBytes(extra, []byte("from the future"))
	extra = protowire.AppendTag(extra, 901, protowire.VarintType)
	extra = protowire.AppendVarint(extra, 42)

	r := report(2)
	r.ProtoReflect().SetUnknown(extra)
	r.Channels[1].ProtoReflect().SetUnknown(extra)
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got meterpb.Report
	if err := wire.UnmarshalReport(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Channels[1].EnergyUj != r.Channels[1].EnergyUj || got.TUs != r.TUs {
		t.Errorf("read %v", &got)
	}
}

func TestErrorAnswers(t *testing.T) {
	b, err := proto.Marshal(&meterpb.Error{Code: meterpb.Error_CODE_BUSY, Message: "32 observers, no place left", RetryAfterMs: 5000})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		in   []byte
		want wire.MeterError
	}{
		"message":    {b, wire.MeterError{meterpb.Error_CODE_BUSY, "32 observers, no place left", 5 * time.Second}},
		"diagnostic": {[]byte("no such\x1b[2Jresource\n"), wire.MeterError{Message: "no such.[2Jresource."}},
		"nothing":    {nil, wire.MeterError{Message: "no reason given"}},
	} {
		if got := wire.UnmarshalError(tc.in); *got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, *got, tc.want)
		}
	}
}

func FuzzReport(f *testing.F) {
	r := report(6)
	w := wire.NewBatchWriter([]uint32{1, 2, 3, 4, 5, 6}, 2000)
	w.Add([]int32{1, 2, 3, 4, 5, 6}, []bool{true, true, false, true, true, true})
	r.Batch = w.Close()
	b, err := proto.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r meterpb.Report
		err := wire.UnmarshalReport(b, &r)
		if err != nil && !errors.Is(err, wire.ErrBatch) {
			if !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrRevision) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		for _, c := range r.Channels {
			if rd := wire.Reading(&r, c, time.Time{}); rd.At < 0 || rd.Unmeasured > rd.At {
				t.Fatalf("impossible reading %+v", rd)
			}
		}
		if r.Batch != nil {
			for _, c := range r.Batch.Channels {
				s, err := wire.Samples(nil, wire.Past(&r), c.Channel)
				if err != nil || len(s) != len(c.DeltaCounts) {
					t.Fatalf("%d samples of %d, %v", len(s), len(c.DeltaCounts), err)
				}
			}
		}
		if _, err := wire.JSON(&r); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzOtherMessages(f *testing.F) {
	for _, m := range goldenMessages() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var id meterpb.Identity
		if wire.UnmarshalIdentity(b, &id) == nil && id.BootId == 0 {
			t.Fatal("an identity without boot id passed")
		}
		var l meterpb.SampleList
		if err := wire.UnmarshalSampleList(b, &l); err != nil && !errors.Is(err, wire.ErrBatch) {
			l.Batches = nil
		}
		for _, batch := range l.Batches {
			for _, c := range batch.Batch.Channels {
				if len(c.DeltaCounts)+len(c.Missing) > 1<<20 {
					t.Fatal("a huge batch passed")
				}
			}
		}
		var tm meterpb.Time
		if wire.UnmarshalTime(b, &tm) == nil && tm.SentUs < tm.ReceivedUs {
			t.Fatal("an answer before its request passed")
		}
		if e := wire.UnmarshalError(b); strings.ContainsAny(e.Message, "\n\x1b") || e.Message == "" {
			t.Fatalf("message %q is not fit for a line", e.Message)
		}
	})
}
