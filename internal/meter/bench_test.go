package meter

import (
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// One notification of six channels from the payload to the sink: what is ours of its way through the agent.
func BenchmarkTake(b *testing.B) {
	c, err := New(Config{
		Endpoint: Endpoint{URL: "coap://127.0.0.1"}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Uptime: func() time.Duration { return time.Hour },
	})
	if err != nil {
		b.Fatal(err)
	}
	bodies := make([][]byte, 1000)
	for i := range bodies {
		r := &meterpb.Report{BootId: 7, Seq: uint32(i + 1), TUs: uint64(i+1) * 100_000, IntervalUs: 100_000, Sweeps: uint64(i+1) * 50}
		for ch := range uint32(6) {
			r.Channels = append(r.Channels, &meterpb.ChannelReport{
				Channel: ch + 1, EnergyUj: int64(i) * 500_000, ChargeUc: int64(i) * 100_000, PowerUw: 5_012_345, PowerDropUw: 81_000,
				PowerRiseUw: 93_000, VoltageUv: 5_104_000, VoltageDropUv: 8_000, VoltageRiseUv: 16_000, CurrentUa: 982_000,
			})
		}
		if bodies[i], err = proto.Marshal(r); err != nil {
			b.Fatal(err)
		}
	}
	alive, gap := make(chan struct{}, 1), make(chan struct{}, 1)
	taken := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i %= len(bodies); i == 0 {
			c.tracker = tracker{} // so that the first is new again
		}
		if err := c.take(bodies[i], func(int, energy.Reading) { taken++ }, alive, gap); err != nil {
			b.Fatal(err)
		}
	}
	if uint64(taken) != 6*c.Status().Notifications || c.Status().Duplicates > 0 {
		b.Errorf("%d readings of %+v", taken, c.Status())
	}
}
