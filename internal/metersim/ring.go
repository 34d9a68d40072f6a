package metersim

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// nextSize is the largest size of next in a SampleList.
const nextSize = 6

// ring keeps the batches of a boot's reports as they go on the wire, so that reading one again gives the same bytes.
type ring struct {
	bootID  uint32
	span    uint64 // microseconds
	batches []pastBatch
}

type pastBatch struct {
	seq     uint32
	tUs     uint64
	encoded []byte // as a field of SampleList
}

// add puts in a report's batch and lets go of those older than the span.
func (r *ring) add(report *meterpb.Report) {
	body, err := proto.Marshal(wire.Past(report))
	if err != nil {
		// Only invalid UTF-8 fails to marshal, and there is no string in a batch.
		panic(err)
	}
	b := protowire.AppendTag(nil, fieldBatches, protowire.BytesType)
	r.batches = append(r.batches, pastBatch{report.Seq, report.TUs, protowire.AppendBytes(b, body)})
	for len(r.batches) > 0 && r.batches[0].tUs+r.span < report.TUs {
		r.batches[0] = pastBatch{}
		r.batches = r.batches[1:]
	}
}

// Fields of SampleList in meter.proto.
const (
	fieldBootID  = 1
	fieldBatches = 2
	fieldNext    = 3
)

// list encodes a SampleList from a seq on, with as many batches as fit; end is the seq not yet made. One batch always fits: a
// list takes 50 bytes beside it, fewer than the totals that were beside it in its report (Meter.largest).
func (r *ring) list(from, end uint32) []byte {
	out := protowire.AppendTag(nil, fieldBootID, protowire.Fixed32Type)
	out = protowire.AppendFixed32(out, r.bootID)
	next := end
	for _, b := range r.batches {
		if b.seq < from {
			continue
		}
		if len(out)+len(b.encoded) > wire.MaxBody-nextSize {
			next = b.seq
			break
		}
		out = append(out, b.encoded...)
	}
	out = protowire.AppendTag(out, fieldNext, protowire.VarintType)
	return protowire.AppendVarint(out, uint64(next))
}
