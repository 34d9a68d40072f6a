package hub

import (
	"cmp"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// fakeCollector writes down what it takes.
type fakeCollector struct {
	*httptest.Server

	t      testing.TB
	answer func(w http.ResponseWriter) bool // true if it was an answer; nil takes all

	mu     sync.Mutex
	header http.Header // of the last request
	points []int       // of each request
	lines  []string    // a point each
}

func newCollector(t testing.TB) *fakeCollector {
	t.Helper()
	c := &fakeCollector{t: t}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *fakeCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/metrics" || r.Header.Get("Content-Type") != "application/x-protobuf" ||
		r.Header.Get("Content-Encoding") != "gzip" {
		c.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	req := pmetricotlp.NewExportRequest()
	z, err := gzip.NewReader(r.Body)
	if err == nil {
		var message []byte
		if message, err = io.ReadAll(z); err == nil {
			err = req.UnmarshalProto(message)
		}
	}
	if err != nil {
		c.t.Errorf("request: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = r.Header
	c.points = append(c.points, req.Metrics().DataPointCount())
	if c.answer != nil && c.answer(w) {
		return
	}
	c.lines = append(c.lines, pointLines(req.Metrics())...)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// take returns what came since it was called last, sorted.
func (c *fakeCollector) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.lines, c.points = nil, nil }()
	return slices.Sorted(slices.Values(c.lines))
}

// reply changes how requests are answered.
func (c *fakeCollector) reply(answer func(w http.ResponseWriter) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// asked returns how many points each request had, and the header of the last.
func (c *fakeCollector) asked() ([]int, http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.points), c.header
}

// pointLines has a line for each point: instance, name, kind, attributes, seconds since placementStart from and to, value.
func pointLines(m pmetric.Metrics) (lines []string) {
	seconds := func(t pcommon.Timestamp) string {
		return strconv.FormatFloat(t.AsTime().Sub(placementStart).Seconds(), 'f', -1, 64)
	}
	for _, rm := range m.ResourceMetrics().All() {
		id, _ := rm.Resource().Attributes().Get("service.instance.id")
		for _, sm := range rm.ScopeMetrics().All() {
			for _, one := range sm.Metrics().All() {
				kind, points := "gauge", pmetric.NewNumberDataPointSlice()
				switch one.Type() {
				case pmetric.MetricTypeGauge:
					points = one.Gauge().DataPoints()
				case pmetric.MetricTypeSum:
					kind, points = "sum", one.Sum().DataPoints()
					if one.Sum().IsMonotonic() && one.Sum().AggregationTemporality() == pmetric.AggregationTemporalityCumulative {
						kind = "counter"
					}
				default:
					kind = one.Type().String()
				}
				for _, p := range points.All() {
					from, v := seconds(p.StartTimestamp()), strconv.FormatFloat(p.DoubleValue(), 'f', -1, 64)
					if p.StartTimestamp() == 0 {
						from = "-"
					}
					if p.Flags().NoRecordedValue() {
						v = "ended"
					}
					lines = append(lines, fmt.Sprintf("%s %s %s %s %s %s..%s %s",
						id.Str(), one.Name(), one.Unit(), kind, attributes(p.Attributes()), from, seconds(p.Timestamp()), v))
				}
			}
		}
	}
	return lines
}

func attributes(m pcommon.Map) string {
	var all []string
	for k, v := range m.All() {
		all = append(all, k+"="+v.AsString())
	}
	return "{" + strings.Join(slices.Sorted(slices.Values(all)), ",") + "}"
}

// exporterTo returns an exporter and its log.
func exporterTo(t testing.TB, url string, change ...func(*Config)) (*otlpExporter, *syncBuffer) {
	t.Helper()
	log := &syncBuffer{}
	cfg := Config{OTLP: OTLP{URL: url}, Version: "1.2.3", Logger: slog.New(slog.NewTextHandler(log, nil))}
	for _, f := range change {
		f(&cfg)
	}
	e, err := newOTLP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.client.CloseIdleConnections)
	return e, log
}

func exportAt(t testing.TB, e *otlpExporter, s *store, step int) time.Duration {
	t.Helper()
	return e.export(t.Context(), s, placementStart.Add(time.Duration(step)*placementStep))
}

// TestOTLPNames shows all metrics of two clusters that have a node of the same name, and of a node without a cluster.
func TestOTLPNames(t *testing.T) {
	t.Parallel()
	s := madeUp(t, `
wattlet_node_energy_joules_total{job="wattlet",instance="10.0.0.7:9780",cluster="munich",rack="a",node="pi"} 1000
wattlet_node_energy_joules_total{job="wattlet",instance="pi",node="pi"} 2000
wattlet_node_power_watts{job="wattlet",instance="pi",node="pi"} 3.25
wattlet_node_voltage_volts{job="wattlet",instance="pi",node="pi"} 5.125
wattlet_node_base_joules_total{job="wattlet",instance="pi",node="pi"} 1500
wattlet_function_energy_joules_total{job="wattlet",instance="pi",node="pi",namespace="fn",function="resize"} 12.5
wattlet_function_energy_stddev_joules{job="wattlet",instance="pi",node="pi",namespace="fn",function="resize"} 0.5
wattlet_function_coldstart_joules_total{job="wattlet",instance="pi",node="pi",namespace="fn",function="resize"} 7
wattlet_function_invocations_total{job="wattlet",instance="pi",node="pi",namespace="fn",function="resize"} 40
wattlet_function_invocations_total{job="wattlet",instance="pi",node="pi",namespace="fn",function="thumb"} 41
wattlet_function_cold_starts_total{job="wattlet",instance="pi",node="pi",namespace="fn",function="resize"} 2
wattlet_function_base_share_joules_total{job="wattlet",instance="pi",node="pi",namespace="fn",function="resize",policy="equal"} 9
up{job="wattlet",instance="pi"} 1
`)
	c := newCollector(t)
	e, log := exporterTo(t, c.URL, func(cfg *Config) { cfg.ExternalLabels = map[string]string{"cluster": "garching", "site": "mi"} })
	exportAt(t, e, s, 1)
	const function = "{faas.name=resize,k8s.namespace.name=fn}"
	want := []string{
		"garching/pi faas.coldstarts {coldstart} counter " + function + " 0..0 2",
		"garching/pi faas.invocations {invocation} counter " + function + " 0..0 40",
		"garching/pi faas.invocations {invocation} counter {faas.name=thumb,k8s.namespace.name=fn} 0..0 41",
		"garching/pi hw.host.energy J counter {hw.id=pi,hw.name=pi} 0..0 2000",
		"garching/pi hw.host.power W gauge {hw.id=pi,hw.name=pi} -..0 3.25",
		"garching/pi hw.voltage V gauge {hw.id=supply,hw.name=pi supply,hw.sensor_location=supply} -..0 5.125",
		"garching/pi wattlet.function.coldstart.energy J counter " + function + " 0..0 7",
		"garching/pi wattlet.function.energy J counter " + function + " 0..0 12.5",
		"garching/pi wattlet.function.energy.stddev J gauge " + function + " -..0 0.5",
		"garching/pi wattlet.node.base.energy J counter {} 0..0 1500",
		"munich/10.0.0.7:9780/pi hw.host.energy J counter {hw.id=pi,hw.name=pi} 0..0 1000",
	}
	if got := c.take(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if log.String() != "" {
		t.Error(log)
	}

	e, _ = exporterTo(t, c.URL, func(cfg *Config) { cfg.ExternalLabels = map[string]string{"cluster": "garching", "site": "mi"} })
	batches, err := e.collect(t.Context(), s, placementStart.UnixMilli())
	if err != nil || len(batches) != 1 {
		t.Fatal(batches, err)
	}
	var resources []string
	for _, rm := range batches[0].metrics.ResourceMetrics().All() {
		scope := rm.ScopeMetrics().At(0)
		resources = append(resources, attributes(rm.Resource().Attributes()))
		if scope.Scope().Name() != "github.com/wattlet/wattlet/internal/hub" || scope.Scope().Version() != "1.2.3" ||
			scope.SchemaUrl() != "https://opentelemetry.io/schemas/1.44.0" || rm.SchemaUrl() != scope.SchemaUrl() ||
			scope.Metrics().At(0).Description() != "Energy of the whole node, measured at its supply." {
			t.Errorf("scope %s %s, schema %s", scope.Scope().Name(), scope.Scope().Version(), scope.SchemaUrl())
		}
	}
	slices.Sort(resources)
	want = []string{
		"{host.name=pi,k8s.cluster.name=garching,service.instance.id=garching/pi,service.name=wattlet,site=mi}",
		"{host.name=pi,k8s.cluster.name=munich,rack=a,service.instance.id=munich/10.0.0.7:9780/pi,service.name=wattlet,site=mi}",
	}
	if !slices.Equal(resources, want) {
		t.Errorf("resources %q", resources)
	}
}

// TestOTLPStreams exports at some of a series' samples, which are 30 s apart. A step that fails has a minus.
func TestOTLPStreams(t *testing.T) {
	t.Parallel()
	const counter, gauge = `wattlet_node_base_joules_total{node="pi"} `, `wattlet_node_power_watts{node="pi"} `
	for name, tc := range map[string]struct {
		series string
		at     []int
		want   string // of each step, points with from..to in seconds; steps are divided by |
	}{
		"goes on":                   {counter + "10 20 30 40", []int{0, 1, 3}, "0..0 10|0..30 20|0..90 40"},
		"only the newest is sent":   {counter + "10 20 30 40", []int{3}, "90..90 40"},
		"nothing is sent twice":     {counter + "10 _ _ 40", []int{0, 1, 2, 3}, "0..0 10|||0..90 40"},
		"falls":                     {counter + "10 20 5 9", []int{0, 1, 2, 3}, "0..0 10|0..30 20|30..60 5|30..90 9"},
		"falls between exports":     {counter + "10 20 30 5 9 2", []int{0, 4, 5}, "0..0 10|0..60 30, 60..120 9|120..150 2"},
		"falls twice between":       {counter + "10 20 3 4 1", []int{0, 4}, "0..0 10|0..30 20, 30..90 4, 90..120 1"},
		"falls at the first after":  {counter + "10 4", []int{0, 1}, "0..0 10|0..30 4"},
		"fell before the first":     {counter + "10 20 3 4", []int{3}, "90..90 4"},
		"ends":                      {counter + "10 20 stale _", []int{0, 1, 2, 3}, "0..0 10|0..30 20|0..60 ended|"},
		"ends between exports":      {counter + "10 20 stale _", []int{0, 3}, "0..0 10|0..30 20, 0..60 ended"},
		"ends and goes on":          {counter + "10 stale _ 20", []int{0, 1, 3}, "0..0 10|0..30 ended|0..90 20"},
		"ends and begins anew":      {counter + "10 20 stale 4", []int{0, 3}, "0..0 10|0..30 20, 30..90 4"},
		"has ended before":          {counter + "10 stale _", []int{2}, ""},
		"has been silent before":    {counter + "10" + strings.Repeat(" _", 12), []int{10, 11, 12}, "0..0 10||"},
		"has been silent too long":  {counter + "10" + strings.Repeat(" _", 12), []int{11}, ""},
		"was lost on the way":       {counter + "10 20 30", []int{-1, 2}, "|60..60 30"},
		"collector was away":        {counter + "10 20 30 40", []int{0, -1, -2, 3}, "0..0 10|||0..90 40"},
		"fell meanwhile":            {counter + "10 20 30 5 9", []int{0, -2, -3, 4}, "0..0 10|||0..60 30, 60..120 9"},
		"fell long ago":             {counter + "10 20 5+1x20", []int{0, -5, -15, 20}, "0..0 10|||0..30 20, 30..600 23"},
		"silent for long, the same": {counter + "10" + strings.Repeat(" _", 119) + " 70", []int{0, 60, 120}, "0..0 10||0..3600 70"},
		"gauge":                     {gauge + "3 2 -1 4", []int{0, 1, 3}, "-..0 3|-..30 2|-..90 4"},
		"gauge ends":                {gauge + "3 2 stale", []int{0, 2}, "-..0 3|-..30 2, -..60 ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := madeUp(t, tc.series), newCollector(t)
			var failing atomic.Bool
			c.reply(func(w http.ResponseWriter) bool {
				if failing.Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return failing.Load()
			})
			e, _ := exporterTo(t, c.URL)
			var got []string
			for _, step := range tc.at {
				failing.Store(step < 0)
				exportAt(t, e, s, max(step, -step))
				lines := c.take()
				for i, line := range lines {
					_, lines[i], _ = strings.Cut(line, "} ")
				}
				slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(endOf(t, a), endOf(t, b)) })
				got = append(got, strings.Join(lines, ", "))
			}
			if got := strings.Join(got, "|"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// endOf returns the end of "0..30 20".
func endOf(t *testing.T, line string) float64 {
	t.Helper()
	_, end, _ := strings.Cut(strings.Fields(line)[0], "..")
	v, err := strconv.ParseFloat(end, 64)
	if err != nil {
		t.Fatal(line, err)
	}
	return v
}

// TestOTLPForgets shows that what nobody hears of for a day takes no memory.
func TestOTLPForgets(t *testing.T) {
	t.Parallel()
	s, c := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10`), newCollector(t)
	e, _ := exporterTo(t, c.URL)
	for step, want := range map[int]int{0: 1, 24 * 120: 1, 24*120 + 1: 0} {
		clear(e.known)
		exportAt(t, e, s, 0)
		exportAt(t, e, s, step)
		if len(e.known) != want {
			t.Errorf("after %d half minutes it knows %d series, want %d", step, len(e.known), want)
		}
	}
}

// TestOTLPBatches divides 9000 nodes over two requests; when the second fails, only what was in it is sent again.
func TestOTLPBatches(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&text, "wattlet_node_base_joules_total{node=\"n%04d\"} 10\n", i)
	}
	s, c := madeUp(t, text.String()), newCollector(t)
	c.reply(func(w http.ResponseWriter) bool {
		if len(c.points) == 2 {
			w.WriteHeader(http.StatusBadGateway)
		}
		return len(c.points) == 2
	})
	e, _ := exporterTo(t, c.URL)
	exportAt(t, e, s, 0)
	exportAt(t, e, s, 1)
	exportAt(t, e, s, 2)
	points, _ := c.asked()
	if n := len(c.take()); !slices.Equal(points, []int{8000, 1000, 1000}) || n != 9000 {
		t.Errorf("requests with %d points, %d were taken", points, n)
	}
}

// TestOTLPFaults lets a collector fail in each way: the next export is when it should be, the log has a line when it begins and
// one when it ends, and nothing is lost.
func TestOTLPFaults(t *testing.T) {
	t.Parallel()
	protobuf := func(w http.ResponseWriter, code int, m []byte) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(code)
		_, _ = w.Write(m)
	}
	for name, tc := range map[string]struct {
		answer      func(w http.ResponseWriter)
		want        string        // in the log
		code        string        // counted
		first, next time.Duration // waits without jitter
	}{
		"busy": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "240")
			http.Error(w, "too much\nto do", http.StatusServiceUnavailable)
		}, `err="status 503 Service Unavailable: too much to do"`, "503", 4 * time.Minute, 4 * time.Minute},
		"too busy to say when": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
			`err="status 429 Too Many Requests: it does not say why"`, "429", 15 * time.Second, 30 * time.Second},
		"no key": {func(w http.ResponseWriter) {
			m, err := proto.Marshal(&status.Status{Code: 16, Message: "no such key"})
			if err != nil {
				t.Error(err)
			}
			protobuf(w, http.StatusUnauthorized, m)
		}, `err="status 401 Unauthorized: no such key"`, "401", 15 * time.Second, 30 * time.Second},
		"garbled status": {func(w http.ResponseWriter) { protobuf(w, http.StatusBadRequest, []byte{0xff}) },
			`err="status 400 Bad Request: it does not say why"`, "400", 15 * time.Second, 30 * time.Second},
		"elsewhere": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "/v1/metrics")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, `err="status 307 Temporary Redirect: it does not say why"`, "307", 15 * time.Second, 30 * time.Second},
		"web page": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
		}, `err="a web page answers there, and no collector"`, "200", 15 * time.Second, 30 * time.Second},
		"not OTLP": {func(w http.ResponseWriter) { protobuf(w, http.StatusOK, []byte{0xff}) }, "its answer is not OTLP", "200", 15 * time.Second, 30 * time.Second},
		"hangs up": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "EOF", "none", 15 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10 20 30 40`), newCollector(t)
			e, log := exporterTo(t, c.URL)
			exportAt(t, e, s, 0)
			c.reply(func(w http.ResponseWriter) bool {
				tc.answer(w)
				return true
			})
			for i, want := range []time.Duration{tc.first, tc.next} {
				if got := exportAt(t, e, s, 1+i); got < want || got > want+want/10 {
					t.Errorf("wait %d is %v, want %v and up to a tenth more", i, got, want)
				}
			}
			const fails = "level=ERROR msg=\"OTLP: the collector does not get the newest values"
			if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, fails) || !strings.Contains(text, tc.want) {
				t.Errorf("log: %s", text)
			}
			if n := testutil.ToFloat64(e.requests.WithLabelValues(tc.code)); tc.code != "200" && n != 2 || tc.code == "200" && n != 3 {
				t.Errorf("%v requests with code %s", n, tc.code)
			}
			c.reply(nil)
			if got := exportAt(t, e, s, 3); got != 15*time.Second {
				t.Errorf("afterwards it waits %v", got)
			}
			if got, want := c.take(), []string{
				"pi wattlet.node.base.energy J counter {} 0..0 10", "pi wattlet.node.base.energy J counter {} 0..90 40",
			}; !slices.Equal(got, want) {
				t.Errorf("got %q", got)
			}
			if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, `level=INFO msg="OTLP: the collector takes all"`) {
				t.Errorf("log: %s", text)
			}
		})
	}
}

// TestOTLPBackoff: waits double up to a minute, an interval that is longer stays.
func TestOTLPBackoff(t *testing.T) {
	t.Parallel()
	s := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10`)
	for interval, want := range map[time.Duration][]time.Duration{
		15 * time.Second: {15 * time.Second, 30 * time.Second, time.Minute, time.Minute},
		5 * time.Minute:  {5 * time.Minute, 5 * time.Minute},
	} {
		e, _ := exporterTo(t, "http://127.0.0.1:1", func(cfg *Config) { cfg.OTLP.Interval = interval })
		for i, want := range want {
			if got := exportAt(t, e, s, 0); got < want || got > want+want/10 {
				t.Errorf("interval %v, failure %d: %v, want %v", interval, i, got, want)
			}
		}
	}
}

// TestOTLPRefused: what is old is not offered for ever to a collector that finds a request bad.
func TestOTLPRefused(t *testing.T) {
	t.Parallel()
	for code, want := range map[int][]int{http.StatusBadRequest: {1, 2, 2, 1}, http.StatusUnauthorized: {1, 2, 2, 2}} {
		s, c := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10 20 5+1x40`), newCollector(t)
		e, _ := exporterTo(t, c.URL)
		exportAt(t, e, s, 0)
		c.reply(func(w http.ResponseWriter) bool {
			w.WriteHeader(code)
			return true
		})
		for _, step := range []int{2, 3, 14} { // ten steps are five minutes
			exportAt(t, e, s, step)
		}
		if points, _ := c.asked(); !slices.Equal(points, want) {
			t.Errorf("status %d: %d points, want %d", code, points, want)
		}
	}
}

// TestOTLPPartly: a collector that rejects some has the others.
func TestOTLPPartly(t *testing.T) {
	t.Parallel()
	s, c := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10 20 30 40`), newCollector(t)
	e, log := exporterTo(t, c.URL)
	c.reply(func(w http.ResponseWriter) bool {
		answer := pmetricotlp.NewExportResponse()
		answer.PartialSuccess().SetRejectedDataPoints(1)
		answer.PartialSuccess().SetErrorMessage("no room")
		m, err := answer.MarshalProto()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(m)
		return true
	})
	exportAt(t, e, s, 0)
	wait := exportAt(t, e, s, 0)
	if points, _ := c.asked(); wait != 15*time.Second || len(points) != 1 {
		t.Errorf("it is sent again: %d, wait %v", points, wait)
	}
	exportAt(t, e, s, 1)
	exportAt(t, e, s, 2)
	if n := testutil.ToFloat64(e.rejected); n != 3 {
		t.Errorf("%v points rejected", n)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `level=ERROR msg="OTLP: the collector rejects a part"`) || !strings.Contains(text, `err="1 of 1 points: no room"`) {
		t.Errorf("log: %s", text)
	}
}

// TestOTLPHeaders: headers are of the file as it is; without it nothing is sent.
func TestOTLPHeaders(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "headers")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# of the lab\nauthorization: Bearer one\nX-Scope-OrgID:lab\n")
	s, c := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10 20 30 40`), newCollector(t)
	e, log := exporterTo(t, c.URL, func(cfg *Config) { cfg.OTLP.HeadersFile = file })
	exportAt(t, e, s, 0)
	if _, got := c.asked(); got.Get("Authorization") != "Bearer one" || got.Get("X-Scope-Orgid") != "lab" || !strings.HasPrefix(got.Get("User-Agent"), "wattlet-hub") {
		t.Errorf("headers %v", got)
	}
	write("authorization: Bearer two\ncontent-type: text/plain\n") // which it is not
	exportAt(t, e, s, 1)
	if _, got := c.asked(); got.Get("Authorization") != "Bearer two" || got.Get("X-Scope-Orgid") != "" {
		t.Errorf("headers %v", got)
	}
	write("s3cret")
	exportAt(t, e, s, 2)
	points, _ := c.asked()
	if text := log.String(); len(points) != 2 || !strings.Contains(text, "headers:1: not a header") || strings.Contains(text, "s3cret") {
		t.Errorf("%d requests, log %s", len(points), text)
	}
}

// TestOTLPTLS: a collector is trusted by its CA's file.
func TestOTLPTLS(t *testing.T) {
	t.Parallel()
	c := &fakeCollector{t: t}
	c.Server = httptest.NewUnstartedServer(c)
	c.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	c.StartTLS()
	t.Cleanup(c.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := madeUp(t, `wattlet_node_base_joules_total{node="pi"} 10`)
	e, log := exporterTo(t, c.URL)
	exportAt(t, e, s, 0)
	if points, _ := c.asked(); !strings.Contains(log.String(), "certificate") || len(points) != 0 {
		t.Errorf("unknown certificate: %s", log)
	}
	e, log = exporterTo(t, c.URL, func(cfg *Config) { cfg.OTLP.CA = ca })
	exportAt(t, e, s, 0)
	if points, _ := c.asked(); log.String() != "" || len(points) != 1 {
		t.Errorf("%d requests, log %s", len(points), log)
	}
}

func TestOTLPConfig(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(bad, []byte("a: b\n\nc d: e\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		cfg  OTLP
		want string
	}{
		{OTLP{URL: "collector:4318"}, `OTLP: "collector:4318" is not an http URL of a host without a user; as http://10.0.0.4:4318`},
		{OTLP{URL: "http://u:s3cret@collector"}, "keys only in the file of headers"},
		{OTLP{URL: "http://c", Interval: -time.Second}, "OTLP: an interval of -1s"},
		{OTLP{URL: "http://c", HeadersFile: "/nowhere/headers"}, "OTLP: headers: open /nowhere/headers: no such file"},
		{OTLP{URL: "http://c", HeadersFile: bad}, "headers:3: not a header; write NAME: VALUE"},
		{OTLP{URL: "https://c", CA: "/nowhere/ca.pem"}, "OTLP: certificates to trust: "},
		{OTLP{URL: "https://c", CA: bad}, "OTLP: certificates to trust: "},
	} {
		if _, err := newOTLP(Config{OTLP: tc.cfg}); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v, want %s", tc.cfg, err, tc.want)
		}
	}
	for given, want := range map[string]string{
		"http://c:4318": "http://c:4318/v1/metrics", "http://c/": "http://c/v1/metrics", "http://c/v1/metrics": "http://c/v1/metrics",
		"https://c:9090/api/v1/otlp": "https://c:9090/api/v1/otlp/v1/metrics", "http://c/x?tenant=1": "http://c/x/v1/metrics?tenant=1",
	} {
		if e, _ := exporterTo(t, given); e.url != want {
			t.Errorf("%s becomes %s, want %s", given, e.url, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "1e3": 0, "soon": 0, "86400": time.Hour, "4294967295": time.Hour, "99999999999999999999": 0,
		"Tue, 24 Nov 2026 10:01:30 GMT": 90 * time.Second, "Tue, 24 Nov 2026 09:00:00 GMT": 0, "Wed, 24 Nov 2027 10:00:00 GMT": time.Hour,
	} {
		if got := retryAfter(text, placementStart); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "it does not say why", " a\r\n\tb ": "a b", "\xff": "?", strings.Repeat("x", 299) + "ü": strings.Repeat("x", 299) + " …",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func FuzzOTLPHeaders(f *testing.F) {
	f.Add("a: b\n# c\n\nAuthorization: Basic Zm9v\n")
	f.Add("a b: c")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseHeaders(text)
		if err != nil {
			return
		}
		req := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		req.Header = all
		if err := req.Write(io.Discard); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
