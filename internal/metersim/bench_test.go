package metersim_test

import (
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/pool"

	"github.com/wattlet/wattlet/internal/metersim"
)

// A sweep of six channels, reports included.
func BenchmarkSweep(b *testing.B) {
	var o metersim.Options
	for _, p := range []string{
		"constant:5W", "square:2W,8W,50ms", "sine:5W,2W,1s", "ramp:1W,5W,10s", "trace:steps.csv,linear",
		"constant:1W+square:0W,2W,50ms",
	} {
		o.Channels = append(o.Channels, metersim.Channel{Load: load(b, p), Noise: 2, ShuntUohm: 50_000})
	}
	m := newMeter(b, o)
	b.ReportAllocs()
	at := time.Duration(0)
	for b.Loop() {
		at += metersim.DefaultSweepPeriod
		m.Advance(at, nil)
	}
}

// Notifications with batches to eight observers over DTLS, clients in the same process, as fast as reports can be: one with
// each sweep of the shortest period.
func BenchmarkNotifications(b *testing.B) {
	sim := run(b, metersim.Options{
		Channels:    []metersim.Channel{{Noise: 2}, {Noise: 2}, {Noise: 2}, {Noise: 2}, {Noise: 2}, {Noise: 2}},
		SweepPeriod: 840 * time.Microsecond, ReportInterval: 840 * time.Microsecond,
	})
	got := make(chan struct{}, 1<<16)
	for range 8 {
		cc := dial(b, sim.Addr(), identity, key)
		if _, err := cc.Observe(b.Context(), "/power", func(*pool.Message) { got <- struct{}{} }); err != nil {
			b.Fatal(err)
		}
	}
	start := time.Now()
	n := 0
	for b.Loop() {
		<-got
		n++
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "notifications/s")
}
