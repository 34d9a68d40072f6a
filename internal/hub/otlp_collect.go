package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// otlpSchema is the version of OpenTelemetry's semantic conventions that names are from.
const otlpSchema = "https://opentelemetry.io/schemas/1.44.0"

const (
	// otlpCatchUp is how old a sample may be that the collector did not take in its time. Prometheus refuses those older than an hour.
	otlpCatchUp = 30 * time.Minute
	// otlpRemember is how long a counter may be silent and still be the same: a meter counts on while its node's agent is down.
	otlpRemember = 24 * time.Hour
	// otlpPoints is how many points of a request may be exceeded by one resource.
	otlpPoints = 8000
)

// otlpMetric is a metric of ours under OpenTelemetry's name.
type otlpMetric struct {
	ours, name, unit, about string
	counter                 bool
	attributes              func(at pcommon.Map, l labels.Labels)
}

// otlpMetrics are the metrics a collector gets, in this order. Names, units and attributes of hw, faas and k8s are those of
// https://opentelemetry.io/docs/specs/semconv/hardware/host/, …/hardware/voltage/ and …/faas/faas-metrics/; for the others there is
// no convention. The whole board is hw.host.energy and never hw.energy: "to prevent summing up overlapping values".
func otlpMetrics() []otlpMetric {
	host := func(at pcommon.Map, l labels.Labels) {
		at.PutStr("hw.id", l.Get("node"))
		at.PutStr("hw.name", l.Get("node"))
	}
	supply := func(at pcommon.Map, l labels.Labels) {
		at.PutStr("hw.id", "supply")
		at.PutStr("hw.name", l.Get("node")+" supply")
		at.PutStr("hw.sensor_location", "supply")
	}
	function := func(at pcommon.Map, l labels.Labels) {
		at.PutStr("faas.name", l.Get("function"))
		at.PutStr("k8s.namespace.name", l.Get("namespace"))
	}
	none := func(pcommon.Map, labels.Labels) {}
	return []otlpMetric{
		{"wattlet_node_energy_joules_total", "hw.host.energy", "J", "Energy of the whole node, measured at its supply.", true, host},
		{"wattlet_node_power_watts", "hw.host.power", "W", "Power of the whole node, measured at its supply.", false, host},
		{"wattlet_node_voltage_volts", "hw.voltage", "V", "Voltage of the node's supply.", false, supply},
		{"wattlet_node_base_joules_total", "wattlet.node.base.energy", "J",
			"The part of the node's energy that is the idle board's, or nobody's.", true, none},
		{"wattlet_function_energy_joules_total", "wattlet.function.energy", "J",
			"Active energy of the function, a part of the node's; without cold starts.", true, function},
		{"wattlet_function_energy_stddev_joules", "wattlet.function.energy.stddev", "J",
			"Standard deviation of the function's energy since the agent's start.", false, function},
		{"wattlet_function_coldstart_joules_total", "wattlet.function.coldstart.energy", "J",
			"Energy of the function's cold starts, a part of the node's.", true, function},
		{"wattlet_function_invocations_total", "faas.invocations", "{invocation}", "Completed invocations.", true, function},
		{"wattlet_function_cold_starts_total", "faas.coldstarts", "{coldstart}", "Cold starts.", true, function},
	}
}

// otlpStream is what was read of a series. Times are in ms.
type otlpStream struct {
	start int64 // of a counter: since when it counts
	t     int64 // newest value
	v     float64
	end   int64 // when the series ended, if that is later
}

// otlpPoint is a value, or the end of all.
type otlpPoint struct {
	start, t int64
	v        float64
	end      bool
}

// read returns what a collector does not have of a series of which it knows was, or nothing if was is nil; and what it knows then.
//
// A counter's start is as OpenTelemetry's data model wants it. The first point is as long as nothing, which means a counter that
// was not at zero then; should the collector not take it, the next is the first. A counter that falls began at zero after the
// sample before, so this is its start and its value counts in full; what it had reached before is a point too, or it would be lost.
func (m otlpMetric) read(was *otlpStream, it chunkenc.Iterator) (points []otlpPoint, is otlpStream, err error) {
	if was != nil {
		is = *was
	}
	had := max(is.t, is.end)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if kind != chunkenc.ValFloat {
			continue
		}
		t, v := it.At()
		switch {
		case t <= had:
		case stale.IsStaleNaN(v):
			is.end = t
		case math.IsNaN(v) || math.IsInf(v, 0):
		case was == nil:
			is.start, is.t, is.v = t, t, v
		default:
			if m.counter && v < is.v {
				if is.t > had {
					points = append(points, otlpPoint{start: is.start, t: is.t, v: is.v})
				}
				is.start = is.t
			}
			is.t, is.v = t, v
		}
	}
	ended := is.end > is.t
	if is.t > had && (was != nil || !ended) {
		points = append(points, otlpPoint{start: is.start, t: is.t, v: is.v})
	}
	if ended && is.end > had && was != nil {
		points = append(points, otlpPoint{start: is.start, t: is.end, end: true})
	}
	return points, is, it.Err()
}

// otlpSeries is what is new of a series.
type otlpSeries struct {
	key    string
	labels labels.Labels
	points []otlpPoint
	is     otlpStream
}

// otlpResource is a node as a target tells of it.
type otlpResource struct {
	labels labels.Labels
	series [][]otlpSeries // by metric
}

// otlpBatch is a request.
type otlpBatch struct {
	metrics pmetric.Metrics
	points  int
	streams map[string]otlpStream
}

// taken enters that the collector has a batch.
func (b otlpBatch) taken(known map[string]otlpStream) { maps.Copy(known, b.streams) }

// collect reads what the collector does not have until now, in ms. Series that nobody heard of for long are forgotten.
func (e *otlpExporter) collect(ctx context.Context, store storage.Queryable, now int64) (_ []otlpBatch, err error) {
	maps.DeleteFunc(e.known, func(_ string, s otlpStream) bool { return now-max(s.t, s.end) > otlpRemember.Milliseconds() })
	from := now - lookback.Milliseconds()
	if e.since > 0 {
		from = max(min(from, e.since), now-otlpCatchUp.Milliseconds())
	}
	q, err := store.Querier(from, now)
	if err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()

	all := otlpMetrics()
	resources := map[string]*otlpResource{}
	var buf []byte
	var it chunkenc.Iterator
	for i, m := range all {
		set := q.Select(ctx, false, &storage.SelectHints{Start: from, End: now}, equal(model.MetricNameLabel, m.ours))
		for set.Next() {
			l := set.At().Labels()
			buf = l.Bytes(buf[:0])
			var was *otlpStream
			if s, ok := e.known[string(buf)]; ok {
				was = &s
			}
			it = set.At().Iterator(it)
			points, is, err := m.read(was, it)
			if err != nil {
				return nil, fmt.Errorf("read samples of %s: %w", l, err)
			}
			if len(points) == 0 {
				continue
			}
			s := otlpSeries{string(buf), l.Copy(), points, is}
			rl := e.resourceLabels(s.labels)
			buf = rl.Bytes(buf[:0])
			r := resources[string(buf)]
			if r == nil {
				r = &otlpResource{rl, make([][]otlpSeries, len(all))}
				resources[string(buf)] = r
			}
			r.series[i] = append(r.series[i], s)
		}
		if err := set.Err(); err != nil {
			return nil, fmt.Errorf("read samples: %w", err)
		}
	}
	var batches []otlpBatch
	for _, key := range slices.Sorted(maps.Keys(resources)) {
		if n := len(batches); n == 0 || batches[n-1].points >= otlpPoints {
			batches = append(batches, otlpBatch{metrics: pmetric.NewMetrics(), streams: map[string]otlpStream{}})
		}
		batches[len(batches)-1].add(resources[key], all, e.version)
	}
	return batches, nil
}

// resourceLabels returns the labels of a series that tell of whom it is, with those that this hub's samples get.
func (e *otlpExporter) resourceLabels(l labels.Labels) labels.Labels {
	b := labels.NewBuilder(l).Del(model.MetricNameLabel, model.JobLabel, "function", "namespace")
	e.external.Range(func(x labels.Label) {
		if !l.Has(x.Name) {
			b.Set(x.Name, x.Value)
		}
	})
	return b.Labels()
}

// add writes a resource.
func (b *otlpBatch) add(r *otlpResource, all []otlpMetric, version string) {
	rm := b.metrics.ResourceMetrics().AppendEmpty()
	rm.SetSchemaUrl(otlpSchema)
	at := rm.Resource().Attributes()
	at.PutStr("service.name", "wattlet")
	// Unique among all that a collector sees: Prometheus tells series apart by it alone.
	var id []string
	for _, name := range []string{"cluster", model.InstanceLabel, "node"} {
		if v := r.labels.Get(name); v != "" && !slices.Contains(id, v) {
			id = append(id, v)
		}
	}
	at.PutStr("service.instance.id", strings.Join(id, "/"))
	names := map[string]string{"node": "host.name", "cluster": "k8s.cluster.name", model.InstanceLabel: ""}
	r.labels.Range(func(l labels.Label) {
		name, ok := names[l.Name]
		if !ok {
			name = l.Name
		}
		if name != "" {
			at.PutStr(name, l.Value)
		}
	})
	scope := rm.ScopeMetrics().AppendEmpty()
	scope.SetSchemaUrl(otlpSchema)
	scope.Scope().SetName("github.com/wattlet/wattlet/internal/hub")
	scope.Scope().SetVersion(version)
	for i, m := range all {
		if len(r.series[i]) == 0 {
			continue
		}
		om := scope.Metrics().AppendEmpty()
		om.SetName(m.name)
		om.SetUnit(m.unit)
		om.SetDescription(m.about)
		var to pmetric.NumberDataPointSlice
		if m.counter {
			sum := om.SetEmptySum()
			sum.SetIsMonotonic(true)
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			to = sum.DataPoints()
		} else {
			to = om.SetEmptyGauge().DataPoints()
		}
		for _, s := range r.series[i] {
			b.streams[s.key] = s.is
			b.points += len(s.points)
			for _, p := range s.points {
				point := to.AppendEmpty()
				m.attributes(point.Attributes(), s.labels)
				point.SetTimestamp(otlpTime(p.t))
				if m.counter {
					point.SetStartTimestamp(otlpTime(p.start))
				}
				if p.end {
					point.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
				} else {
					point.SetDoubleValue(p.v)
				}
			}
		}
	}
}

func otlpTime(ms int64) pcommon.Timestamp {
	return pcommon.NewTimestampFromTime(time.UnixMilli(ms))
}
