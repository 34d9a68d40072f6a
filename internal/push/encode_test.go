package push

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// sample is one of a request, decoded by Prometheus's own code.
type sample struct {
	series string
	value  float64
	native string // of a histogram, as Prometheus writes it
	ms     int64
	kind   string // 2.0
}

func (s sample) String() string {
	value := fmt.Sprint(s.value) + s.native
	if math.Float64bits(s.value) == math.Float64bits(staleMarker) {
		value = "ended"
	}
	return fmt.Sprintf("%s %s @%d%s", s.series, value, s.ms, s.kind)
}

// decode reads a request of one of the protocols.
func decode(t testing.TB, body []byte, two bool) (all []sample) {
	t.Helper()
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	sorted := func(names []string) {
		for i := 1; i < len(names); i++ {
			if names[i-1] >= names[i] {
				t.Errorf("labels %q are not in order", names)
			}
		}
	}
	if !two {
		var req prompb.WriteRequest
		if err := req.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
		for _, ts := range req.Timeseries {
			var names []string
			for _, l := range ts.Labels {
				names = append(names, l.Name)
			}
			sorted(names)
			l := ts.ToLabels(new(labels.ScratchBuilder), nil)
			for _, s := range ts.Samples {
				all = append(all, sample{series: l.String(), value: s.Value, ms: s.Timestamp})
			}
			for _, h := range ts.Histograms {
				all = append(all, sample{series: l.String(), native: h.ToIntHistogram().String(), ms: h.Timestamp})
			}
		}
		return all
	}
	var req writev2.Request
	if err := req.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	if len(req.Symbols) == 0 || req.Symbols[0] != "" {
		t.Errorf("symbols %q do not begin with an empty one", req.Symbols)
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(req.Symbols))); len(unique) != len(req.Symbols) {
		t.Errorf("symbols %q repeat", req.Symbols)
	}
	for _, ts := range req.Timeseries {
		l, err := ts.ToLabels(new(labels.ScratchBuilder), req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for i := 0; i < len(ts.LabelsRefs); i += 2 {
			names = append(names, req.Symbols[ts.LabelsRefs[i]])
		}
		sorted(names)
		kind := " " + strings.ToLower(strings.TrimPrefix(ts.Metadata.Type.String(), "METRIC_TYPE_"))
		for _, s := range ts.Samples {
			all = append(all, sample{series: l.String(), value: s.Value, ms: s.Timestamp, kind: kind})
		}
		for _, h := range ts.Histograms {
			all = append(all, sample{series: l.String(), native: h.ToIntHistogram().String(), ms: h.Timestamp, kind: kind})
		}
	}
	return all
}

// families gathers a metric of each kind.
func families(t testing.TB) []*dto.MetricFamily {
	t.Helper()
	desc := func(name string, names ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, "Help.", names, nil)
	}
	native, err := prometheus.NewConstNativeHistogram(desc("native", "function"), 6, 13.5, map[int]int64{1: 2, 2: 1, 5: 1}, map[int]int64{0: 1}, 1, 3, 0.25,
		time.Time{}, "gzip")
	if err != nil {
		t.Fatal(err)
	}
	empty, err := prometheus.NewConstNativeHistogram(desc("native_empty"), 0, 0, nil, nil, 0, 0, 0, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var all []*dto.MetricFamily
	reg := prometheus.NewRegistry()
	for _, m := range []prometheus.Metric{
		prometheus.MustNewConstMetric(desc("joules_total", "node", "none"), prometheus.CounterValue, 1234.5, "pi", ""),
		prometheus.MustNewConstMetric(desc("watts", "instance", "Upper"), prometheus.GaugeValue, -0.5, "own", "ä\xff"[:2]),
		prometheus.NewMetricWithTimestamp(time.UnixMilli(77), prometheus.MustNewConstMetric(desc("dated"), prometheus.UntypedValue, 3)),
		prometheus.MustNewConstSummary(desc("seconds"), 3, 4.5, map[float64]float64{0.5: 1.25, 1: 2}),
		prometheus.MustNewConstHistogram(desc("classic"), 7, 9.75, map[float64]uint64{0.1: 1, 1: 5, 1e6: 6}),
		native, empty,
	} {
		if err := reg.Register(one{m}); err != nil {
			t.Fatal(err)
		}
	}
	all, err = reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// one is the collector of one metric.
type one struct{ prometheus.Metric }

func (o one) Describe(ch chan<- *prometheus.Desc) { ch <- o.Desc() }
func (o one) Collect(ch chan<- prometheus.Metric) { ch <- o.Metric }

// TestRequests encodes a metric of each kind; the expected is what Prometheus's text format and documents say of it.
func TestRequests(t *testing.T) {
	extra := []label{{"cluster", "munich"}, {"instance", "pi"}}
	common := []string{
		`{__name__="classic_bucket", cluster="munich", instance="pi", le="+Inf"} 7 @5 histogram`,
		`{__name__="classic_bucket", cluster="munich", instance="pi", le="0.1"} 1 @5 histogram`,
		`{__name__="classic_bucket", cluster="munich", instance="pi", le="1.0"} 5 @5 histogram`,
		`{__name__="classic_bucket", cluster="munich", instance="pi", le="1e+06"} 6 @5 histogram`,
		`{__name__="classic_count", cluster="munich", instance="pi"} 7 @5 histogram`,
		`{__name__="classic_sum", cluster="munich", instance="pi"} 9.75 @5 histogram`,
		`{__name__="dated", cluster="munich", instance="pi"} 3 @77 unspecified`,
		`{__name__="joules_total", cluster="munich", instance="pi", node="pi"} 1234.5 @5 counter`,
		`{__name__="seconds", cluster="munich", instance="pi", quantile="0.5"} 1.25 @5 summary`,
		`{__name__="seconds", cluster="munich", instance="pi", quantile="1.0"} 2 @5 summary`,
		`{__name__="seconds_count", cluster="munich", instance="pi"} 3 @5 summary`,
		`{__name__="seconds_sum", cluster="munich", instance="pi"} 4.5 @5 summary`,
		`{Upper="ä", __name__="watts", cluster="munich", instance="own"} -0.5 @5 gauge`,
	}
	// Bucket i of schema 3 ends at 2^(i/8), and begins at the end of the one before.
	native := []string{
		`{__name__="native", cluster="munich", function="gzip", instance="pi"} 0{count:6, sum:13.5, [-1,-0.9170040432046711):1, [-0.25,0.25]:1, ` +
			`(1,1.0905077326652577]:2, (1.0905077326652577,1.189207115002721]:1, (1.414213562373095,1.5422108254079407]:1} @5 histogram`,
		`{__name__="native_empty", cluster="munich", instance="pi"} 0{count:0, sum:0} @5 histogram`,
	}
	classic := []string{
		`{__name__="native_bucket", cluster="munich", function="gzip", instance="pi", le="+Inf"} 6 @5 histogram`,
		`{__name__="native_count", cluster="munich", function="gzip", instance="pi"} 6 @5 histogram`,
		`{__name__="native_sum", cluster="munich", function="gzip", instance="pi"} 13.5 @5 histogram`,
		`{__name__="native_empty_bucket", cluster="munich", instance="pi", le="+Inf"} 0 @5 histogram`,
		`{__name__="native_empty_count", cluster="munich", instance="pi"} 0 @5 histogram`,
		`{__name__="native_empty_sum", cluster="munich", instance="pi"} 0 @5 histogram`,
	}
	for name, tc := range map[string]struct {
		two, native bool
		want        []string
	}{
		"1.0":        {false, false, slices.Concat(common, classic)},
		"1.0 native": {false, true, slices.Concat(common, native)},
		"2.0":        {true, true, slices.Concat(common, native)},
	} {
		t.Run(name, func(t *testing.T) {
			var messages []message
			e := encoder{two: tc.two, keep: func(m message) { messages = append(messages, m) }}
			flatten(families(t), extra, tc.native, func(p point) { e.add(p, 5) })
			e.flush()
			e.flush() // has nothing left
			if len(messages) != 1 || messages[0].samples != len(tc.want) {
				t.Fatalf("%d requests of %d samples, want 1 of %d", len(messages), messages[0].samples, len(tc.want))
			}
			got := map[string]bool{}
			for _, s := range decode(t, messages[0].body, tc.two) {
				got[s.String()] = true
			}
			for _, want := range tc.want {
				if !tc.two {
					want = want[:strings.LastIndex(want, " ")] // 1.0 has no types with its samples
				}
				if !got[want] {
					t.Errorf("lacks %s", want)
				}
				delete(got, want)
			}
			for _, more := range slices.Sorted(maps.Keys(got)) {
				t.Errorf("has   %s", more)
			}
			// What waits for hours takes no more memory than it must: the allocator rounds up by an eighth at most.
			if b := messages[0].body; cap(b) > len(b)+len(b)/8+16 {
				t.Errorf("a body of %d bytes takes %d", len(b), cap(b))
			}
		})
	}
}

// TestLargeGathering splits what is too much for one request.
func TestLargeGathering(t *testing.T) {
	for _, two := range []bool{false, true} {
		var messages []message
		e := encoder{two: two, keep: func(m message) { messages = append(messages, m) }}
		const series = 20_000
		for i := range series {
			e.add(point{id: id("m", []*dto.LabelPair{{Name: new("i"), Value: new(strings.Repeat("x", 100) + fmt.Sprint(i))}}, nil, nil)}, 1)
		}
		e.flush()
		seen := map[string]bool{}
		for _, m := range messages {
			n, err := snappy.DecodedLen(m.body)
			if err != nil || n > requestBytes+1000 {
				t.Errorf("a request of %d bytes, %v", n, err)
			}
			all := decode(t, m.body, two)
			if len(all) != m.samples {
				t.Errorf("%d samples, %d are said", len(all), m.samples)
			}
			for _, s := range all {
				seen[s.series] = true
			}
		}
		if len(seen) != series || len(messages) < 2 {
			t.Errorf("%d series in %d requests", len(seen), len(messages))
		}
	}
}

func TestBound(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0.0", 1: "1.0", -3: "-3.0", 0.25: "0.25", 1e21: "1e+21", 1e-9: "1e-09", math.Inf(1): "+Inf", math.Inf(-1): "-Inf",
	} {
		if got := bound(f); got != want {
			t.Errorf("%v is %s, want %s", f, got, want)
		}
	}
}

// BenchmarkEncode encodes 160 series, as an agent with five functions has.
func BenchmarkEncode(b *testing.B) {
	for _, two := range []bool{false, true} {
		b.Run(map[bool]string{false: "1.0", true: "2.0"}[two], func(b *testing.B) {
			var ids []string
			for i := range 160 {
				ids = append(ids, id("wattlet_function_energy_joules_total", []*dto.LabelPair{
					{Name: new("node"), Value: new("raspberrypi")}, {Name: new("namespace"), Value: new("openfaas-fn")},
					{Name: new("function"), Value: new(fmt.Sprint("function-", i))},
				}, nil, []label{{"job", "wattlet"}, {"instance", "raspberrypi"}}))
			}
			b.ReportAllocs()
			kept := 0
			defer func() { b.ReportMetric(float64(kept), "B/request") }()
			for b.Loop() {
				e := encoder{two: two, keep: func(m message) { kept = len(m.body) }}
				for i, id := range ids {
					e.add(point{id: id, value: float64(i) * math.Pi}, 1_800_000_000_000)
				}
				e.flush()
			}
		})
	}
}
