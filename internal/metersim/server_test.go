package metersim_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

func TestResources(t *testing.T) {
	sim := run(t, metersim.Options{Name: "bench-1", Serial: "s1", MaxObservers: 9})
	if !strings.HasPrefix(sim.URL(), "coaps://127.0.0.1:") {
		t.Errorf("url %s", sim.URL())
	}
	cc := dial(t, sim.Addr(), identity, key)

	var id meterpb.Identity
	if err := wire.UnmarshalIdentity(get(t, cc, "/meter").body, &id); err != nil {
		t.Fatal(err)
	}
	want := &meterpb.Identity{
		BootId: sim.BootID(), WireRevision: wire.Revision, Name: "bench-1", Serial: "s1", Hardware: "metersim",
		FirmwareVersion: "metersim", TUs: id.TUs, MaxObservers: 9,
		Sampling: &meterpb.Sampling{
			SweepPeriodUs: 2000, ShuntConversionUs: 332, BusConversionUs: 332, Averaging: 1, ReportIntervalUs: 100_000, RingUs: 10_000_000,
		},
		Channels: []*meterpb.ChannelInfo{
			{Channel: 1, ShuntUohm: 50_000, CountNv: 40_000, FullScaleCounts: 4095},
			{Channel: 4, Name: "idle", ShuntUohm: 100_000, CountNv: 40_000, FullScaleCounts: 4095},
		},
		Capabilities: []meterpb.Capability{meterpb.Capability_CAPABILITY_SAMPLES, meterpb.Capability_CAPABILITY_TIME},
	}
	if !proto.Equal(&id, want) {
		t.Errorf("identity\ngot  %v\nwant %v", &id, want)
	}

	var now meterpb.Time
	if err := wire.UnmarshalTime(get(t, cc, "/time").body, &now); err != nil {
		t.Fatal(err)
	}
	if now.BootId != id.BootId || now.ReceivedUs < id.TUs || now.SentUs-now.ReceivedUs > 1_000_000 {
		t.Errorf("time %v after identity at %d", &now, id.TUs)
	}

	var r meterpb.Report
	if err := wire.UnmarshalReport(get(t, cc, "/power", accept(message.AppOctets)).body, &r); err != nil {
		t.Fatal(err)
	}
	if c := r.Channels[0]; r.BootId != id.BootId || c.EnergyUj != int64(r.TUs)*5 {
		t.Errorf("report %v", &r)
	}
	if e, ok := sim.TruthAt(1, r.BootId, r.TUs); !ok || e != energy.Energy(r.Channels[0].EnergyUj) {
		t.Errorf("the truth at %d us is %s", r.TUs, e)
	}

	var l meterpb.SampleList
	if err := wire.UnmarshalSampleList(get(t, cc, "/samples", query("from=1")).body, &l); err != nil {
		t.Fatal(err)
	}
	if l.BootId != id.BootId || len(l.Batches) == 0 || l.Batches[0].Seq != 1 || l.Batches[0].TUs != 2000 {
		t.Errorf("samples %v", &l)
	}

	core := get(t, cc, "/.well-known/core")
	for _, link := range []string{
		`</meter>;rt="wattlet.meter.v1.Identity";ct="42 50"`, `</power>;rt="wattlet.meter.v1.Report";ct="42 50";obs`,
		`</samples>;rt="wattlet.meter.v1.SampleList";ct="42 50"`, `</time>;rt="wattlet.meter.v1.Time";ct="42 50"`,
	} {
		if core.format != message.AppLinkFormat || !strings.Contains(","+string(core.body)+",", ","+link+",") {
			t.Errorf("no %s in %q, format %d", link, core.body, core.format)
		}
	}
	if a := get(t, cc, "/.well-known/core", accept(message.AppLinkFormat)); string(a.body) != string(core.body) {
		t.Errorf("links with Accept: %v %q", a.code, a.body)
	}

	for path, q := range map[string]string{"/meter": "a=b", "/power": "a=b", "/samples": "from=1", "/time": "a=b"} {
		a := get(t, cc, path, query(q), accept(message.AppJSON))
		var v struct {
			BootID uint32 `json:"boot_id"`
		}
		if err := json.Unmarshal(a.body, &v); err != nil || a.code != codes.Content || a.format != message.AppJSON || v.BootID != id.BootId {
			t.Errorf("%s as JSON: %v, format %d, %v: %s", path, a.code, a.format, err, a.body)
		}
	}
}

func TestErrorAnswers(t *testing.T) {
	sim := run(t, metersim.Options{})
	cc := dial(t, sim.Addr(), identity, key)
	const bad = meterpb.Error_CODE_BAD_REQUEST
	for _, tc := range []struct {
		path string
		opts []message.Option
		code codes.Code
		why  meterpb.Error_Code
	}{
		{"/nope", nil, codes.NotFound, meterpb.Error_CODE_NOT_FOUND},
		{"/", nil, codes.NotFound, meterpb.Error_CODE_NOT_FOUND},
		{"/power/1", nil, codes.NotFound, meterpb.Error_CODE_NOT_FOUND},
		{"/power", []message.Option{accept(message.TextPlain)}, codes.NotAcceptable, meterpb.Error_CODE_NOT_ACCEPTABLE},
		{"/meter", []message.Option{accept(message.AppCBOR)}, codes.NotAcceptable, meterpb.Error_CODE_NOT_ACCEPTABLE},
		{"/.well-known/core", []message.Option{accept(message.AppJSON)}, codes.NotAcceptable, meterpb.Error_CODE_NOT_ACCEPTABLE},
		{"/samples", nil, codes.BadRequest, bad},
		{"/samples", []message.Option{query("from=")}, codes.BadRequest, bad},
		{"/samples", []message.Option{query("from=-1")}, codes.BadRequest, bad},
		{"/samples", []message.Option{query("from=4294967296")}, codes.BadRequest, bad},
		{"/samples", []message.Option{query("from=1x")}, codes.BadRequest, bad},
		{"/samples", []message.Option{query("till=1")}, codes.BadRequest, bad},
	} {
		a := get(t, cc, tc.path, tc.opts...)
		if a.format == message.AppJSON {
			var v struct{ Code, Message string }
			if err := json.Unmarshal(a.body, &v); err != nil || v.Code != tc.why.String() || v.Message == "" {
				t.Errorf("%s: %q, %v", tc.path, a.body, err)
			}
		} else if e := wire.UnmarshalError(a.body); e.Code != tc.why || e.Message == "no reason given" {
			t.Errorf("%s: %v", tc.path, e)
		}
		if a.code != tc.code {
			t.Errorf("%s %v: %v, want %v", tc.path, tc.opts, a.code, tc.code)
		}
	}
	if a := get(t, cc, "/nope", accept(message.AppJSON)); a.format != message.AppJSON {
		t.Errorf("an error asked for in JSON comes in %d", a.format)
	}
	for path := range map[string]bool{"/power": true, "/meter": true, "/time": true, "/samples": true, "/.well-known/core": true} {
		for name, do := range map[string]func(context.Context) (*pool.Message, error){
			"POST": func(ctx context.Context) (*pool.Message, error) { return cc.Post(ctx, path, message.AppOctets, nil) },
			"PUT": func(ctx context.Context) (*pool.Message, error) {
				return cc.Put(ctx, path, message.AppOctets, strings.NewReader("x"))
			},
			"DELETE": func(ctx context.Context) (*pool.Message, error) { return cc.Delete(ctx, path) },
		} {
			m, err := do(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if a := read(t, m); a.code != codes.MethodNotAllowed || wire.UnmarshalError(a.body).Code != bad {
				t.Errorf("%s %s: %v %q", name, path, a.code, a.body)
			}
		}
	}
	if n := sim.Observers(); n != 0 {
		t.Errorf("%d observers from nothing", n)
	}
}

// What is lost on the way is asked for again, and nothing differs.
func TestSamplesOverTheNetwork(t *testing.T) {
	sim := run(t, metersim.Options{Channels: []metersim.Channel{{Noise: 3}}})
	cc := dial(t, sim.Addr(), identity, key)
	notes := observe(t, cc)
	for range 5 {
		var r meterpb.Report
		if err := wire.UnmarshalReport(next(t, notes).body, &r); err != nil {
			t.Fatal(err)
		}
		a := get(t, cc, "/samples", query("from="+strconv.Itoa(int(r.Seq))))
		var l meterpb.SampleList
		if err := wire.UnmarshalSampleList(a.body, &l); err != nil || len(l.Batches) == 0 || len(a.body) > wire.MaxBody {
			t.Fatalf("from %d: %v, %d bytes, %v", r.Seq, &l, len(a.body), err)
		}
		if !proto.Equal(l.Batches[0], wire.Past(&r)) {
			t.Errorf("batch %d\ngot  %v\nwant %v", r.Seq, l.Batches[0], wire.Past(&r))
		}
	}
	if a := get(t, cc, "/samples", query("from="+strconv.FormatUint(math.MaxUint32, 10))); a.code != codes.Content {
		t.Errorf("from a seq not yet made: %v", a.code)
	}
}

// People's JSON may be longer than a block; then block-wise transfer carries it.
func TestLongJSONComesInBlocks(t *testing.T) {
	sim := run(t, metersim.Options{Channels: make([]metersim.Channel, 12)})
	cc := dial(t, sim.Addr(), identity, key)
	for _, path := range []string{"/meter", "/power"} {
		a := get(t, cc, path, accept(message.AppJSON))
		var v struct {
			Channels []struct {
				Channel int `json:"channel"`
			} `json:"channels"`
		}
		if err := json.Unmarshal(a.body, &v); err != nil || len(v.Channels) != 12 || v.Channels[11].Channel != 12 {
			t.Errorf("%s: %v: %s", path, err, a.body)
		}
		if len(a.body) <= wire.MaxBody {
			t.Errorf("%s: %d bytes need no blocks", path, len(a.body))
		}
	}
}

func TestWrongKeysGetNothing(t *testing.T) {
	sim := run(t, metersim.Options{})
	for name, tc := range map[string]struct {
		identity string
		key      []byte
	}{
		"wrong key":        {identity, []byte("another sixteen!")},
		"empty key":        {identity, nil},
		"unknown identity": {"nobody", key},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := tryDial(t, sim.Addr(), tc.identity, tc.key, 1500*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("not silence, but %v", err)
			}
		})
	}
}

func TestKeysOfSeveralAgents(t *testing.T) {
	keys := map[string][]byte{"a": []byte("key of a"), "b": []byte("key of b")}
	sim := run(t, metersim.Options{PSK: func(id string) ([]byte, bool) {
		if id == "forgotten" {
			return nil, true
		}
		k, ok := keys[id]
		return k, ok
	}})
	if _, err := tryDial(t, sim.Addr(), "forgotten", nil, time.Second); err == nil {
		t.Error("a key of no bytes opens the meter")
	}
	for id, k := range keys {
		if a := get(t, dial(t, sim.Addr(), id, k), "/time"); a.code != codes.Content {
			t.Errorf("%s: %v", id, a.code)
		}
	}
}

func TestListenErrors(t *testing.T) {
	psk := metersim.OneKey(identity, key)
	taken := run(t, metersim.Options{})
	for name, tc := range map[string]struct {
		o    metersim.Options
		want string
	}{
		"no key":           {metersim.Options{}, "no key; give PSK"},
		"key and insecure": {metersim.Options{PSK: psk, Insecure: true}, "both PSK and Insecure"},
		"insecure to all":  {metersim.Options{Insecure: true, Addr: ":0"}, "only loopback is served"},
		"insecure to some": {metersim.Options{Insecure: true, Addr: "192.0.2.1:0"}, "only loopback is served"},
		"no address":       {metersim.Options{PSK: psk, Addr: "here"}, `listen on "here"`},
		"taken":            {metersim.Options{PSK: psk, Addr: taken.Addr().String()}, "take another address"},
		"bad options":      {metersim.Options{PSK: psk, SweepPeriod: 1}, "sweep period 1ns"},
	} {
		s, err := metersim.Listen(tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if s != nil {
			_ = s.Close()
		}
	}
	s, err := metersim.Listen(metersim.Options{PSK: psk, Addr: "[::1]:0"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.URL(), "coaps://[::1]:") {
		t.Errorf("url %s", s.URL())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestPowerCut(t *testing.T) {
	const takes = 800 * time.Millisecond
	sim := run(t, metersim.Options{RebootTakes: takes})
	cc := dial(t, sim.Addr(), identity, key)
	notes := observe(t, cc)
	var last meterpb.Report
	for range 3 {
		if err := wire.UnmarshalReport(next(t, notes).body, &last); err != nil {
			t.Fatal(err)
		}
	}
	first := sim.BootID()
	sim.Reboot()
	eventually(t, "the power is gone", func() bool { return sim.Observers() == 0 })
	if _, err := tryDial(t, sim.Addr(), identity, key, 300*time.Millisecond); err == nil && sim.BootID() == first {
		t.Error("it answers without power")
	}
	eventually(t, "the power is back", func() bool { return sim.BootID() != first })
	boots := sim.Boots()
	if len(boots) != 2 || boots[0].ID != first || boots[1].Start-boots[0].End != takes {
		t.Fatalf("boots %+v", boots)
	}

	// The same port, a new session: another boot, from zero.
	again := dial(t, sim.Addr(), identity, key)
	var r meterpb.Report
	if err := wire.UnmarshalReport(get(t, again, "/power").body, &r); err != nil {
		t.Fatal(err)
	}
	if r.BootId != boots[1].ID || r.BootId == first {
		t.Errorf("boot id %x, then %x", first, r.BootId)
	}
	// The old session knows nothing: no close_notify came, and it draws no answer.
	select {
	case <-cc.Done():
		t.Error("the power cut was announced")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if m, err := cc.Get(ctx, "/time"); err == nil {
		t.Errorf("the old session lives on: %v", m)
	}
	if n := sim.Observers(); n != 0 {
		t.Errorf("%d observers after the cut", n)
	}
	// What was told before the cut is in the log, with the truth.
	if b := boots[0]; b.Last.Seq < last.Seq || b.Measured[0] != b.Truth[0] || b.Truth[0] != energy.Energy(b.Last.TUs*5) {
		t.Errorf("first boot %+v", b)
	}
	if total := sim.Truth(1); total < boots[0].Truth[0] {
		t.Errorf("true energy since power-on is %s, less than in the first boot", total)
	}
}

func TestRebootEvery(t *testing.T) {
	sim := run(t, metersim.Options{RebootEvery: 150 * time.Millisecond, RebootTakes: 20 * time.Millisecond})
	eventually(t, "four boots", func() bool { return len(sim.Boots()) >= 4 })
	for i, b := range sim.Boots()[:3] {
		if d := b.End - b.Start; d < 130*time.Millisecond || b.Last == nil {
			t.Errorf("boot %d took %s, last report %v", i, d, b.Last)
		}
	}
}

func TestShutdownIsAnnounced(t *testing.T) {
	sim, stop := runUntil(t, metersim.Options{})
	cc := dial(t, sim.Addr(), identity, key)
	next(t, observe(t, cc))
	stop()
	select {
	case <-cc.Done():
	case <-time.After(patience):
		t.Error("the session was not closed")
	}
	if err := sim.Close(); err == nil {
		t.Error("the socket was still open")
	}
}

// A simulator that was stopped for ten minutes has measured them when it goes on.
func TestCatchesUp(t *testing.T) {
	start := time.Now()
	var jump durationValue
	sim := run(t, metersim.Options{Now: func() time.Time { return time.Now().Add(jump.load()) }})
	cc := dial(t, sim.Addr(), identity, key)
	notes := observe(t, cc)
	next(t, notes)
	jump.store(10 * time.Minute)
	var r meterpb.Report
	for r.TUs < 600_000_000 {
		if err := wire.UnmarshalReport(next(t, notes).body, &r); err != nil {
			t.Fatal(err)
		}
	}
	if r.Channels[0].EnergyUj != int64(r.TUs)*5 || r.Channels[0].UnmeasuredUs != 0 {
		t.Errorf("after the stop: %v", &r)
	}
	if limit := uint64((time.Since(start) + 10*time.Minute).Microseconds()); r.TUs > limit {
		t.Errorf("t_us %d is ahead of true time %d", r.TUs, limit)
	}
	// The clock going back must not matter.
	jump.store(-time.Hour)
	var now meterpb.Time
	if err := wire.UnmarshalTime(get(t, cc, "/time").body, &now); err != nil || now.SentUs < r.TUs {
		t.Errorf("%v, %v", &now, err)
	}
}

func TestIdleSessionsEnd(t *testing.T) {
	sim := run(t, metersim.Options{IdleTimeout: 200 * time.Millisecond, AckTimeout: 40 * time.Millisecond})
	cc := dial(t, sim.Addr(), identity, key)
	get(t, cc, "/time")
	select {
	case <-cc.Done():
	case <-time.After(patience):
		t.Error("an idle session is kept")
	}
}

func TestPlacesForPeersAreLimited(t *testing.T) {
	sim := run(t, metersim.Options{MaxPeers: 2})
	first, second := dial(t, sim.Addr(), identity, key), dial(t, sim.Addr(), identity, key)
	get(t, first, "/time")
	get(t, second, "/time")
	if _, err := tryDial(t, sim.Addr(), identity, key, 500*time.Millisecond); err == nil {
		t.Error("a third peer found a place")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a place is free", func() bool {
		_, err := tryDial(t, sim.Addr(), identity, key, 500*time.Millisecond)
		return err == nil
	})
	get(t, second, "/time")
}
