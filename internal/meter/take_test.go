package meter

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// A broken message costs itself: the session, the other reports and the other channels live on.
func TestBrokenMessages(t *testing.T) {
	c, err := New(Config{
		Endpoint: Endpoint{URL: "coap://127.0.0.1"}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Uptime: func() time.Duration { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []energy.Reading
	take := func(b []byte) error {
		return c.take(b, func(_ int, r energy.Reading) { got = append(got, r) }, make(chan struct{}, 1), make(chan struct{}, 1))
	}
	encode := func(seq uint32, edit func(*meterpb.Report)) []byte {
		r := &meterpb.Report{
			BootId: 7, Seq: seq, TUs: uint64(seq) * 100_000, Sweeps: uint64(seq) * 50,
			Channels: []*meterpb.ChannelReport{{Channel: 1, EnergyUj: int64(seq) * 500_000}, {Channel: 2, EnergyUj: int64(seq)}},
		}
		if edit != nil {
			edit(r)
		}
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, b := range [][]byte{
		encode(1, nil),
		[]byte("not protobuf at all"),
		nil,
		encode(2, nil)[:20],
		encode(2, func(r *meterpb.Report) { r.Channels[1].Channel = 1 }),
		encode(2, func(r *meterpb.Report) { r.Channels[1].UnmeasuredUs = 1 << 60 }),
		encode(2, func(r *meterpb.Report) {
			r.Batch = &meterpb.Batch{Sweeps: 9, Channels: []*meterpb.ChannelSamples{{Channel: 1}}}
		}), // its totals are good
		encode(3, nil),
	} {
		if err := take(b); err != nil {
			t.Errorf("message %d ended the session: %v", i, err)
		}
	}
	if len(got) != 6 || got[4].Energy != 1_500_000 || got[2].Energy != 1_000_000 {
		t.Errorf("readings %+v", got)
	}
	s := c.Status()
	if s.Errors["decode"] != 6 || s.Notifications != 3 || s.Lost != 0 || s.Duplicates != 0 {
		t.Errorf("status %+v", s)
	}

	err = take(encode(4, func(r *meterpb.Report) { r.MinReader = wire.Revision + 1 }))
	if !errors.Is(err, wire.ErrRevision) || kind(err) != "revision" {
		t.Errorf("a meter that is too new: %v", err)
	}
	if len(got) != 6 {
		t.Error("a message this reader would misread was taken in")
	}
}
