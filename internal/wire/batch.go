package wire

import (
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// Sizes in bytes that a batch takes at most beside its samples: its tag and length, period and sweeps; and for each channel
// the tags and lengths of itself, its counts and its missing sweeps, and its number.
const (
	batchHeader   = 10
	channelHeader = 12
)

// BatchWriter collects the samples of one report. Make one with NewBatchWriter.
type BatchWriter struct {
	batch    meterpb.Batch
	last     []int32
	size     int
	reserved int
}

// NewBatchWriter returns a writer for these channel numbers; periodUs is the sample period in microseconds.
func NewBatchWriter(channels []uint32, periodUs uint32) *BatchWriter {
	w := &BatchWriter{last: make([]int32, len(channels))}
	w.batch.SamplePeriodUs = periodUs
	for _, c := range channels {
		w.batch.Channels = append(w.batch.Channels, &meterpb.ChannelSamples{Channel: c})
	}
	w.Reserve(64 * len(channels))
	return w
}

// Reserve says how many bytes the report can take at most without its batch. What the report before took is no such bound:
// means and extremes that were zero took none, and all of them may come at once.
func (w *BatchWriter) Reserve(totals int) {
	w.reserved = totals + batchHeader + len(w.last)*channelHeader
}

// Sweeps returns the number of sweeps collected.
func (w *BatchWriter) Sweeps() int { return int(w.batch.Sweeps) }

// Fits says whether this sweep can join the batch with the body staying within MaxBody; if not, close the report first.
// One sweep always fits an empty batch.
func (w *BatchWriter) Fits(counts []int32, ok []bool) bool {
	if w.batch.Sweeps == 0 {
		return true
	}
	size := w.size
	for i := range counts {
		size += w.sampleSize(i, counts[i], ok[i])
	}
	return size+w.reserved <= MaxBody && w.batch.Sweeps < maxSweeps
}

// sampleSize is what a reading of the channel with index i adds to the batch.
func (w *BatchWriter) sampleSize(i int, count int32, ok bool) int {
	if !ok {
		return varintSize(uint64(w.batch.Sweeps))
	}
	d := count - w.last[i]
	return varintSize(uint64(uint32(d<<1) ^ uint32(d>>31)))
}

// Add appends one sweep: a raw count for each channel; ok[i] is false where the conversion failed.
func (w *BatchWriter) Add(counts []int32, ok []bool) {
	for i, c := range w.batch.Channels {
		w.size += w.sampleSize(i, counts[i], ok[i])
		if !ok[i] {
			c.Missing = append(c.Missing, w.batch.Sweeps)
			continue
		}
		c.DeltaCounts = append(c.DeltaCounts, counts[i]-w.last[i])
		w.last[i] = counts[i]
	}
	w.batch.Sweeps++
}

// Close returns the batch and starts the next.
func (w *BatchWriter) Close() *meterpb.Batch {
	out := proto.CloneOf(&w.batch)
	w.batch.Sweeps, w.size = 0, 0
	for i, c := range w.batch.Channels {
		c.DeltaCounts, c.Missing, w.last[i] = c.DeltaCounts[:0], c.Missing[:0], 0
	}
	return out
}

// varintSize is the length of v as a varint (protobuf encoding, "Base 128 Varints").
func varintSize(v uint64) int { return (max(bits.Len64(v), 1) + 6) / 7 }

// Sample is one raw shunt reading of a batch.
type Sample struct {
	// AtUs is the meter's monotonic clock in microseconds.
	AtUs uint64
	// Number counts sweeps since boot, from 0.
	Number uint64
	Count  int32
}

// Samples appends the readings of one channel of a checked batch to dst.
func Samples(dst []Sample, b *meterpb.PastBatch, channel uint32) ([]Sample, error) {
	sweeps := b.Batch.GetSweeps()
	for _, c := range b.Batch.GetChannels() {
		if c.Channel != channel {
			continue
		}
		missing, deltas, count := c.Missing, c.DeltaCounts, int32(0)
		for i := range sweeps {
			if len(missing) > 0 && missing[0] == i {
				missing = missing[1:]
				continue
			}
			count += deltas[0]
			deltas = deltas[1:]
			back := uint64(sweeps-1-i) * uint64(b.Batch.SamplePeriodUs)
			dst = append(dst, Sample{AtUs: b.TUs - min(back, b.TUs), Number: b.Sweeps - uint64(sweeps-i), Count: count})
		}
		return dst, nil
	}
	return dst, fmt.Errorf("batch %d has no channel %d", b.Seq, channel)
}

// Past returns the batch of a report as /samples would give it, or nil if it has none.
func Past(r *meterpb.Report) *meterpb.PastBatch {
	if r.Batch == nil {
		return nil
	}
	return &meterpb.PastBatch{Seq: r.Seq, TUs: r.TUs, Sweeps: r.Sweeps, Batch: r.Batch}
}
