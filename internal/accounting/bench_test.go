package accounting

import (
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// One reading into the ledger of a node with two, as the agent that serves a whole bench has.
func BenchmarkSink(b *testing.B) {
	l, err := New(config(nil))
	if err != nil {
		b.Fatal(err)
	}
	sink := l.Sink("bench")
	r := energy.Reading{Epoch: 1, Host: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		r.At += 100 * time.Millisecond
		r.Energy += energy.Joule / 2
		r.Samples += 50
		sink(6, r)
	}
	if got := l.nodes[1].sum.Energy; got != r.Energy-energy.Joule/2 {
		b.Errorf("%d µJ, want %d", got, r.Energy-energy.Joule/2)
	}
}

// A snapshot of two nodes and their meter, one each tick.
func BenchmarkPublish(b *testing.B) {
	l, err := New(config(nil))
	if err != nil {
		b.Fatal(err)
	}
	l.AddMeter("bench", &fakeMeter{energy.Status{Kind: "meter", Up: true}})
	l.Sink("bench")(6, energy.Reading{Epoch: 1, At: time.Second, Host: time.Now(), Energy: energy.Joule})
	b.ReportAllocs()
	for b.Loop() {
		l.publish(time.Now())
	}
}
