package accounting

import (
	"fmt"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
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

// A tick of 100 ms with a reading and the CPU times of so many workloads, of which one in four ran, half of them functions with
// requests, through the estimator into the accounts.
func BenchmarkTick(b *testing.B) {
	for _, n := range []int{10, 50, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := NewAttributor(AttributorConfig{
				Board: Board{Classes: []Class{{Cores: 4}}, Idle: 2, Peak: 6}, Tick: 100 * time.Millisecond,
				Describe: func(id workload.ID) workload.Workload {
					if id[len(id)-1]%2 == 0 {
						return workload.Workload{Kind: workload.Pod, Name: string(id)}
					}
					return workload.Workload{Kind: workload.Function, Namespace: "openfaas-fn", Name: string(id), Function: string(id)}
				},
			}, nil)
			s := &workload.Sample{Usage: []workload.Usage{{ID: workload.Node}}}
			for i := range n {
				s.Usage = append(s.Usage, workload.Usage{ID: workload.ID(fmt.Sprintf("kubepods.slice/kubepods-burstable.slice/cri-containerd-%04d", i))})
			}
			at, total, tick := time.Duration(0), energy.Energy(0), 0
			step := func() {
				at += 100 * time.Millisecond
				total += energy.Joule / 3
				tick++
				s.At = at
				for i := range s.Usage[1:] {
					if (i+tick/20)%4 == 0 {
						s.Usage[i+1].CPU += 400 * time.Millisecond / time.Duration(n)
					}
				}
				s.Usage[0].CPU += 110 * time.Millisecond
				a.Energy(at-30*time.Millisecond, total, 0)
				a.Sample(s)
				for i := 1; i < len(s.Usage); i += 2 {
					a.Activity(workload.Activity{ID: s.Usage[i].ID, At: at, InFlight: int64(tick / 7 % 2), Started: int64(tick), Completed: int64(tick)})
				}
				a.Idle(at)
			}
			for range 3000 { // until all coefficients have their places
				step()
			}
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			if p := a.Accounts().Posted; p < total*9/10 && total > 100*energy.Joule {
				b.Errorf("posted %v of %v", p, total)
			}
		})
	}
}
