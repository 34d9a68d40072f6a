package hub

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Bounds of queries: a hub shares its machine with others. 10 million samples take about 160 MB.
const (
	queryTimeout  = time.Minute
	querySamples  = 10_000_000
	queriesAtOnce = 4
	lookback      = 5 * time.Minute
)

// newEngine returns what answers queries. People and rules each have one: the former must not keep the latter waiting.
func (h *Hub) newEngine(reg prometheus.Registerer) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger: slog.New(quiet{h.log.Handler()}), Reg: reg, MaxSamples: querySamples, Timeout: queryTimeout,
		ActiveQueryTracker: make(slots, queriesAtOnce), LookbackDelta: lookback, EnableAtModifier: true, EnableNegativeOffset: true,
		Parser:                   h.ruleFiles.parser,
		NoStepSubqueryIntervalFn: func(int64) int64 { return h.cfg.ScrapeInterval.Milliseconds() },
	})
}

// newAPI returns Prometheus's HTTP API, without its prefix /api/v1. What a hub has not, as OTLP, is off.
func (h *Hub) newAPI(reg *prometheus.Registry) http.Handler {
	log := slog.New(quiet{h.log.Handler()})
	api := v1.NewAPI(
		h.newEngine(reg), h.store, nil, h.store,
		func(context.Context) v1.ScrapePoolsRetriever { return h.scraper },
		func(context.Context) v1.TargetRetriever { return h.scraper },
		func(context.Context) v1.AlertmanagerRetriever {
			if h.alerts == nil {
				return nobody{}
			}
			return h.alerts
		},
		func() config.Config { return *h.prom }, // which nobody changes
		map[string]string{},
		v1.GlobalURLOptions{ListenAddress: h.Addr().String(), Host: h.Addr().String(), Scheme: h.base().Scheme},
		func(f http.HandlerFunc) http.HandlerFunc { return f }, // the storage is open before the listener is served
		h.store, h.cfg.Dir, false, false, 0,
		log,
		func(context.Context) v1.RulesRetriever { return h.rules },
		50_000_000, queriesAtOnce, 1<<20, // remote read: samples, at once, bytes of a frame
		false,
		regexp.MustCompile("^$"), // no page of another origin may read
		h.runtimeInfo,
		&v1.PrometheusVersion{Version: h.cfg.Version, GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		reg, reg, nil,
		false, nil, // remote write: newReceiver is that
		false, false, false, // OTLP
		lookback, false, false, nil,
		features.NewRegistry(),
		v1.OpenAPIOptions{ExternalURL: h.base().String(), Version: h.cfg.Version},
		h.ruleFiles.parser, false, queryTimeout,
	)
	router := route.New()
	api.Register(router)
	mux := http.NewServeMux()
	mux.Handle("/", router)
	mux.Handle("POST /write", h.receiver)
	return mux
}

func (h *Hub) runtimeInfo() (v1.RuntimeInfo, error) {
	info := v1.RuntimeInfo{
		StartTime: h.started, ServerTime: time.Now(), ReloadConfigSuccess: true, LastConfigTime: h.started,
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOMEMLIMIT: debug.SetMemoryLimit(-1),
		GOGC: os.Getenv("GOGC"), GODEBUG: os.Getenv("GODEBUG"), StorageRetention: model.Duration(h.cfg.Retention).String(),
	}
	var err error
	if info.Hostname, err = os.Hostname(); err != nil {
		return info, err
	}
	info.CWD, err = os.Getwd()
	return info, err
}

// nobody are the Alertmanagers of a hub that knows none.
type nobody struct{}

func (nobody) Alertmanagers() []*url.URL        { return nil }
func (nobody) DroppedAlertmanagers() []*url.URL { return nil }

// slots bounds how many queries run at once.
type slots chan struct{}

func (s slots) GetMaxConcurrent() int { return cap(s) }
func (s slots) Delete(int)            { <-s }
func (s slots) Close() error          { return nil }
func (s slots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
