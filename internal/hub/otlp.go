package hub

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// OTLP is a collector that gets the newest values by the OpenTelemetry protocol: OTLP over HTTP, protobuf.
type OTLP struct {
	// URL is where the collector's paths begin, as http://10.0.0.4:4318; v1/metrics is added. Empty means none.
	URL string
	// HeadersFile has headers that every request gets, one a line, as "authorization: Bearer …", or is empty. Lines that are empty
	// or begin with # mean nothing. It is read anew for each export.
	HeadersFile string
	// CA has the certificates to trust for https, PEM; empty means the system's. It is read anew when it changes.
	CA string
	// Interval is the time between two exports; default 15 s.
	Interval time.Duration
}

const (
	otlpTimeout = 10 * time.Second // of a request, as OpenTelemetry's own exporters have it
	otlpFlush   = 5 * time.Second  // what the collector gets at the end of a hub
	otlpBackoff = time.Minute      // between two tries of a collector that fails, at most
	// otlpPatience is the longest Retry-After that is heeded.
	otlpPatience = time.Hour
	otlpAnswer   = 64 << 10 // bytes of an answer that are read
)

// otlpHow is how it goes with the collector.
type otlpHow int

const (
	otlpWell   otlpHow = iota // it takes all, or was not asked yet
	otlpPartly                // it rejects some
	otlpAway                  // it does not answer, or does not take anything
)

// otlpExporter sends what is new in the storage to a collector. Nothing waits for it: what was not taken is read again.
type otlpExporter struct {
	cfg      OTLP
	url      string
	version  string
	external labels.Labels
	client   *http.Client
	log      *slog.Logger
	requests *prometheus.CounterVec
	rejected prometheus.Counter

	how      otlpHow
	failures int                   // exports in sequence that failed
	known    map[string]otlpStream // what the collector has, by all labels of a series
	since    int64                 // ms; until then it has all
}

// newOTLP returns nil if cfg names no collector.
func newOTLP(cfg Config) (*otlpExporter, error) {
	o := cfg.OTLP
	if o.URL == "" {
		return nil, nil //nolint:nilnil // an exporter that is not wanted does nothing
	}
	u, err := plainURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("OTLP: %w; as http://10.0.0.4:4318, keys only in the file of headers", err)
	}
	if !strings.HasSuffix(u.Path, "/v1/metrics") {
		u = u.JoinPath("v1/metrics")
	}
	if o.Interval = cmp.Or(o.Interval, 15*time.Second); o.Interval < time.Millisecond {
		return nil, fmt.Errorf("OTLP: an interval of %v; it must be positive", o.Interval)
	}
	e := &otlpExporter{
		cfg: o, url: u.String(), version: cfg.Version, external: labels.FromMap(cfg.ExternalLabels), log: cfg.Logger,
		known: map[string]otlpStream{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wattlet_hub_otlp_requests_total", Help: "Requests to the OTLP collector by the status of its answer; none if it gave none.",
		}, []string{"code"}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wattlet_hub_otlp_rejected_points_total", Help: "Points that the OTLP collector rejected of requests that it took.",
		}),
	}
	if _, err := e.headers(); err != nil {
		return nil, fmt.Errorf("OTLP: %w", err)
	}
	conf := commonconfig.DefaultHTTPClientConfig
	conf.TLSConfig.CAFile = o.CA
	conf.FollowRedirects = false // the headers are for nobody else
	if e.client, err = commonconfig.NewClientFromConfig(conf, "otlp", commonconfig.WithUserAgent("wattlet-hub")); err != nil {
		return nil, fmt.Errorf("OTLP: certificates to trust: %w", err)
	}
	return e, nil
}

// register makes the exporter's counts known.
func (e *otlpExporter) register(reg prometheus.Registerer) error {
	if e == nil {
		return nil
	}
	return errors.Join(reg.Register(e.requests), reg.Register(e.rejected))
}

// run exports until ctx ends, and what is left then.
func (e *otlpExporter) run(ctx context.Context, store storage.Queryable) error {
	if e == nil {
		return nil
	}
	defer e.client.CloseIdleConnections()
	timer := time.NewTimer(e.cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case now := <-timer.C:
			timer.Reset(e.export(ctx, store, now))
		case <-ctx.Done():
			if e.how != otlpAway {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), otlpFlush)
				defer cancel()
				e.export(last, store, time.Now())
			}
			return nil
		}
	}
}

// export sends what the collector does not have and returns how long to wait before the next time.
func (e *otlpExporter) export(ctx context.Context, store storage.Queryable, now time.Time) time.Duration {
	how, err := e.sendNew(ctx, store, now)
	if ctx.Err() != nil { // the hub ends, which is no fault of the collector
		return e.cfg.Interval
	}
	if how != e.how {
		switch e.how = how; how {
		case otlpAway:
			e.log.Error("OTLP: the collector does not get the newest values; it is tried again, and counters catch up", "url", e.url, "err", err)
		case otlpPartly:
			e.log.Error("OTLP: the collector rejects a part", "url", e.url, "err", err)
		case otlpWell:
			e.log.Info("OTLP: the collector takes all", "url", e.url)
		}
	}
	if how != otlpAway {
		e.failures, e.since = 0, now.UnixMilli()
		return e.cfg.Interval
	}
	// OTLP wants waits that double, with jitter. They are no attempts to send the same again: each sends what is newest then.
	wait := min(e.cfg.Interval<<min(e.failures, 6), max(e.cfg.Interval, otlpBackoff))
	e.failures++
	if refused, ok := errors.AsType[*otlpError](err); ok {
		wait = max(wait, refused.retryAfter)
		if refused.code == http.StatusBadRequest {
			e.since = now.UnixMilli() // it would not like what is old a second time either
		}
	}
	return wait + rand.N(wait/10+1)
}

// sendNew sends what the collector does not have.
func (e *otlpExporter) sendNew(ctx context.Context, store storage.Queryable, now time.Time) (otlpHow, error) {
	header, err := e.headers()
	if err != nil {
		return otlpAway, err
	}
	batches, err := e.collect(ctx, store, now.UnixMilli())
	if err != nil {
		return otlpAway, err
	}
	if len(batches) == 0 {
		return e.how, nil // nobody was asked
	}
	var partly error
	for _, b := range batches {
		code, answer, err := e.send(ctx, header, b)
		e.requests.WithLabelValues(code).Inc()
		if err != nil {
			return otlpAway, err
		}
		b.taken(e.known)
		if part := answer.PartialSuccess(); part.RejectedDataPoints() > 0 {
			e.rejected.Add(float64(part.RejectedDataPoints()))
			partly = fmt.Errorf("%d of %d points: %s", part.RejectedDataPoints(), b.points, oneLine(part.ErrorMessage()))
		}
	}
	if partly != nil {
		return otlpPartly, partly
	}
	return otlpWell, nil
}

// otlpError is an answer that says no.
type otlpError struct {
	code       int
	retryAfter time.Duration
	why        string
}

func (e *otlpError) Error() string {
	return fmt.Sprintf("status %d %s: %s", e.code, http.StatusText(e.code), e.why)
}

// send returns an error unless the collector has taken the batch, be it in part; code is for the count of requests.
func (e *otlpExporter) send(ctx context.Context, header http.Header, b otlpBatch) (code string, _ pmetricotlp.ExportResponse, err error) {
	code, answer := "none", pmetricotlp.NewExportResponse()
	message, err := pmetricotlp.NewExportRequestFromMetrics(b.metrics).MarshalProto()
	if err != nil {
		return code, answer, fmt.Errorf("encode metrics: %w", err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(message); err != nil {
		return code, answer, fmt.Errorf("compress metrics: %w", err)
	}
	if err := z.Close(); err != nil {
		return code, answer, fmt.Errorf("compress metrics: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, otlpTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, &packed)
	if err != nil {
		return code, answer, fmt.Errorf("request: %w", err)
	}
	req.Header = header.Clone()
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := e.client.Do(req)
	if err != nil {
		return code, answer, err
	}
	defer resp.Body.Close()
	code = strconv.Itoa(resp.StatusCode)
	body, err := io.ReadAll(io.LimitReader(resp.Body, otlpAnswer))
	if err != nil {
		return code, answer, fmt.Errorf("read its answer: %w", err)
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch {
	case resp.StatusCode/100 != 2:
		return code, answer, &otlpError{resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), time.Now()), reason(kind, body)}
	case kind == "text/html":
		return code, answer, errors.New("a web page answers there, and no collector")
	case kind == "application/x-protobuf":
		if err := answer.UnmarshalProto(body); err != nil {
			return code, answer, fmt.Errorf("its answer is not OTLP: %w", err)
		}
	}
	return code, answer, nil // Prometheus, for one, answers with nothing
}

// reason is why a collector says no, as far as its answer tells.
func reason(kind string, body []byte) string {
	if kind == "application/x-protobuf" {
		var s status.Status
		if proto.Unmarshal(body, &s) != nil {
			return "it does not say why"
		}
		return oneLine(s.GetMessage())
	}
	return oneLine(string(body))
}

// oneLine makes of what a stranger says something for a log.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " …"
	}
	return cmp.Or(text, "it does not say why")
}

// retryAfter reads the header of that name: seconds, or a date. 0 if it is something else, or nothing.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, otlpPatience)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), otlpPatience)
}

// headers returns what the headers' file has now.
func (e *otlpExporter) headers() (http.Header, error) {
	if e.cfg.HeadersFile == "" {
		return http.Header{}, nil
	}
	text, err := os.ReadFile(e.cfg.HeadersFile)
	if err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	all, err := parseHeaders(string(text))
	if err != nil {
		return nil, fmt.Errorf("headers: %s:%w", e.cfg.HeadersFile, err)
	}
	return all, nil
}

// parseHeaders reads headers, one a line. An error begins with the line's number and has nothing of the value, which may be a key.
func parseHeaders(text string) (http.Header, error) {
	all := http.Header{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || value == "" || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("%d: not a header; write NAME: VALUE", n)
		}
		all.Add(name, value)
	}
	return all, nil
}
