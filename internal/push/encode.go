package push

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/snappy"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protowire"
)

// staleMarker is the not-a-number that says that a series has ended, as Prometheus has it.
var staleMarker = math.Float64frombits(0x7ff0000000000002)

// label is one label of a series.
type label struct{ name, value string }

// separator is between the names and values of an id; UTF-8 does not have it.
const separator = "\xff"

// id returns what tells a series from others, and from which its labels can be read: names and values in order of the names. Labels
// without a value are none, and of extra only those count whose names the series does not have.
func id(name string, own []*dto.LabelPair, more, extra []label) string {
	all := append([]label{{"__name__", name}}, more...)
	for _, l := range own {
		if l.GetValue() != "" {
			all = append(all, label{l.GetName(), l.GetValue()})
		}
	}
	for _, l := range extra {
		if !slices.ContainsFunc(all, func(have label) bool { return have.name == l.name }) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b label) int { return cmp.Compare(a.name, b.name) })
	var b strings.Builder
	for i, l := range all {
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(l.name + separator + l.value)
	}
	return b.String()
}

// point is one series of a family at one time.
type point struct {
	id        string
	kind      dto.MetricType
	value     float64
	histogram *dto.Histogram // native, instead of a value; nil for none
	ms        int64          // when, if the metric says so itself, else 0
}

// flatten calls each for every series that a scrape of the families would store. What is both a native and a classic histogram is
// native only.
func flatten(families []*dto.MetricFamily, extra []label, native bool, each func(point)) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			add := func(suffix string, value float64, more ...label) {
				each(point{id: id(f.GetName()+suffix, m.GetLabel(), more, extra), kind: f.GetType(), value: value, ms: m.GetTimestampMs()})
			}
			switch {
			case m.Counter != nil:
				add("", m.Counter.GetValue())
			case m.Gauge != nil:
				add("", m.Gauge.GetValue())
			case m.Untyped != nil:
				add("", m.Untyped.GetValue())
			case m.Summary != nil:
				for _, q := range m.Summary.GetQuantile() {
					add("", q.GetValue(), label{"quantile", bound(q.GetQuantile())})
				}
				add("_sum", m.Summary.GetSampleSum())
				add("_count", float64(m.Summary.GetSampleCount()))
			case m.Histogram != nil && native && isNative(m.Histogram):
				each(point{
					id: id(f.GetName(), m.GetLabel(), nil, extra), kind: f.GetType(), histogram: m.Histogram, ms: m.GetTimestampMs(),
				})
			case m.Histogram != nil:
				h := m.Histogram
				count := cmp.Or(h.GetSampleCountFloat(), float64(h.GetSampleCount()))
				for _, b := range h.GetBucket() {
					if !math.IsInf(b.GetUpperBound(), 1) {
						add("_bucket", cmp.Or(b.GetCumulativeCountFloat(), float64(b.GetCumulativeCount())), label{"le", bound(b.GetUpperBound())})
					}
				}
				add("_bucket", count, label{"le", "+Inf"})
				add("_sum", h.GetSampleSum())
				add("_count", count)
			}
		}
	}
}

// isNative returns whether a histogram has exponential buckets of integer counts. One without observations has a span of no length.
func isNative(h *dto.Histogram) bool {
	return h.SampleCountFloat == nil && (len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0 || h.GetZeroThreshold() > 0)
}

// bound writes the value of a label le or quantile as OpenMetrics and Prometheus 3 do: 1 is 1.0.
func bound(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if math.IsNaN(f) || math.IsInf(f, 0) || strings.ContainsAny(s, "e.") {
		return s
	}
	return s + ".0"
}

// message is a write request as it is kept and sent.
type message struct {
	body    []byte // snappy
	samples int
}

// requestBytes is about how large a request may be before it is compressed: a fraction of what receivers take.
const requestBytes = 1 << 20

// encoder makes write requests of points. The messages of the two protocols have the same parts in nearly the same places; written
// by hand they need neither generated code in the agent nor a copy of all series in between.
//
//	1.0: https://prometheus.io/docs/specs/prw/remote_write_spec/
//	2.0: https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/
type encoder struct {
	two     bool          // protocol 2.0, else 1.0
	keep    func(message) // takes a request that is complete
	list    []byte        // the request's series
	strings []byte        // 2.0: its strings
	refs    map[string]uint64
	samples int
	series  []byte // scratch
	part    []byte // scratch within series
}

// add adds a point of time ms, unless its metric has its own time.
func (e *encoder) add(p point, ms int64) {
	ms = cmp.Or(p.ms, ms)
	e.series = e.series[:0]
	names := strings.Split(p.id, separator)
	if e.two {
		e.part = e.part[:0]
		for _, s := range names {
			e.part = protowire.AppendVarint(e.part, e.ref(s))
		}
		e.series = appendBytes(e.series, 1, e.part)
	} else {
		for i := 0; i+1 < len(names); i += 2 {
			e.part = appendBytes(e.part[:0], 1, []byte(names[i]))
			e.part = appendBytes(e.part, 2, []byte(names[i+1]))
			e.series = appendBytes(e.series, 1, e.part)
		}
	}
	if p.histogram == nil {
		e.part = appendDouble(e.part[:0], 1, p.value)
		e.part = appendUint(e.part, 2, uint64(ms))
		e.series = appendBytes(e.series, 2, e.part)
	} else {
		e.part = appendHistogram(e.part[:0], p.histogram, ms)
		e.series = appendBytes(e.series, map[bool]protowire.Number{false: 4, true: 3}[e.two], e.part)
	}
	if kind := kinds[p.kind]; e.two && kind != 0 {
		e.series = appendBytes(e.series, 5, appendUint(e.part[:0], 1, kind))
	}
	e.list = appendBytes(e.list, map[bool]protowire.Number{false: 1, true: 5}[e.two], e.series)
	if e.samples++; len(e.list)+len(e.strings) >= requestBytes {
		e.flush()
	}
}

// kinds are the metric types of 2.0.
var kinds = map[dto.MetricType]uint64{
	dto.MetricType_COUNTER: 1, dto.MetricType_GAUGE: 2, dto.MetricType_HISTOGRAM: 3, dto.MetricType_GAUGE_HISTOGRAM: 4, dto.MetricType_SUMMARY: 5,
}

// ref returns the place of s among the request's strings. The first is the empty one.
func (e *encoder) ref(s string) uint64 {
	if e.refs == nil {
		e.refs = map[string]uint64{"": 0}
		e.strings = appendBytes(e.strings[:0], 4, nil)
	}
	n, there := e.refs[s]
	if !there {
		n = uint64(len(e.refs))
		e.refs[s] = n
		e.strings = appendBytes(e.strings, 4, []byte(s))
	}
	return n
}

// flush ends a request and hands it on.
func (e *encoder) flush() {
	if e.samples == 0 {
		return
	}
	// The copy is as long as it needs to be, for it may be kept for hours.
	e.keep(message{bytes.Clone(snappy.Encode(nil, append(e.strings, e.list...))), e.samples})
	e.list, e.strings, e.refs, e.samples = e.list[:0], e.strings[:0], nil, 0
}

// appendHistogram appends the fields of a native histogram, which both protocols number alike.
func appendHistogram(b []byte, h *dto.Histogram, ms int64) []byte {
	b = appendUint(b, 1, h.GetSampleCount())
	b = appendDouble(b, 3, h.GetSampleSum())
	b = appendUint(b, 4, protowire.EncodeZigZag(int64(h.GetSchema())))
	b = appendDouble(b, 5, h.GetZeroThreshold())
	b = appendUint(b, 6, h.GetZeroCount())
	b = appendBuckets(b, 8, h.GetNegativeSpan(), h.GetNegativeDelta())
	b = appendBuckets(b, 11, h.GetPositiveSpan(), h.GetPositiveDelta())
	return appendUint(b, 15, uint64(ms))
}

// appendBuckets appends spans as field n and deltas as the field after it.
func appendBuckets(b []byte, n protowire.Number, spans []*dto.BucketSpan, deltas []int64) []byte {
	for _, s := range spans {
		part := appendUint(nil, 1, protowire.EncodeZigZag(int64(s.GetOffset())))
		b = appendBytes(b, n, appendUint(part, 2, uint64(s.GetLength())))
	}
	var packed []byte
	for _, d := range deltas {
		packed = protowire.AppendVarint(packed, protowire.EncodeZigZag(d))
	}
	return appendBytes(b, n+1, packed)
}

func appendUint(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendDouble(b []byte, n protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), math.Float64bits(v))
}

func appendBytes(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}
