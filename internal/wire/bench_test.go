package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// Decoding and checking a report of six channels, without and with the samples of 100 ms.
func BenchmarkUnmarshalReport(b *testing.B) {
	for name, sweeps := range map[string]int{"bare": 0, "6x50 samples": 50} {
		b.Run(name, func(b *testing.B) {
			r := report(6)
			w := wire.NewBatchWriter([]uint32{1, 2, 3, 4, 5, 6}, 2000)
			for i := range sweeps {
				n := int32(1230 + i%7)
				w.Add([]int32{n, n + 1, n, -n, n, n}, []bool{true, true, true, true, true, true})
			}
			if sweeps > 0 {
				r.Batch = w.Close()
			}
			body, err := proto.Marshal(r)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				var r meterpb.Report
				if err := wire.UnmarshalReport(body, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
