package trace

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// benchTicks of 50 workloads on two classes, with eight frequencies, every tick.
const benchTicks = 2000

func benchSamples(b *testing.B, w *Writer) (rows int, write func(tick int)) {
	b.Helper()
	s := &workload.Sample{Usage: []workload.Usage{{ID: workload.Node}}}
	for i := range 50 {
		id := workload.ID(fmt.Sprintf("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%08d_1c2d_4e3f.slice/cri-containerd-%064d.scope", i, i))
		must(b, w.Workload(workload.Workload{ID: id}))
		for _, class := range []string{"big", "little"} {
			s.Usage = append(s.Usage, workload.Usage{ID: id, Class: class})
		}
	}
	for i := range 8 {
		s.Frequency = append(s.Frequency, workload.Frequency{Class: "big", KHz: int64(i) * 200_000})
	}
	return len(s.Usage) + len(s.Frequency) + 1, func(tick int) {
		now := time.Duration(tick) * 100 * ms
		s.At = now
		for i := range s.Usage {
			s.Usage[i].At = now + time.Duration(i)*20*time.Microsecond
			s.Usage[i].CPU = now + time.Duration(tick*i%977)
		}
		for i := range s.Frequency {
			s.Frequency[i].At, s.Frequency[i].Time = now, now
		}
		must(b, w.Power(now, 1, now, energy.Energy(tick)*500_000))
		must(b, w.Usage(s))
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, compression := range []string{"", "gz", "zst"} {
		b.Run("csv"+compression, func(b *testing.B) {
			w := create(b, b.TempDir(), twoClasses, Options{compression})
			rows, write := benchSamples(b, w)
			write(0)
			b.ReportAllocs()
			tick := 1
			for b.Loop() {
				write(tick)
				tick++
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, compression := range []string{"", "gz", "zst"} {
		dir := b.TempDir()
		w := create(b, dir, twoClasses, Options{compression})
		rows, write := benchSamples(b, w)
		for tick := range benchTicks {
			write(tick)
		}
		must(b, w.Close())
		for _, grouped := range []bool{false, true} {
			b.Run(fmt.Sprintf("csv%s/grouped=%v", compression, grouped), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r, err := Open(dir)
					must(b, err)
					next := r.Next
					if grouped {
						next = r.NextGrouped
					}
					for err == nil {
						_, err = next()
					}
					if !errors.Is(err, io.EOF) {
						b.Fatal(err)
					}
					r.Close()
				}
				b.ReportMetric(float64(benchTicks*rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
