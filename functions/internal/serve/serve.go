// Package serve is what all functions share: an HTTP server with limits, health, the three metrics of a watchdog, and an end that
// loses no invocation.
//
// A function is served alone, as in a container without a watchdog, or as the child of OpenFaaS's of-watchdog in HTTP mode, which
// then has health and metrics itself.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// Function is what is served.
type Function struct {
	Name string
	// Prepare makes ready what invocations need; they wait for it. Nil if there is nothing to prepare.
	Prepare func(ctx context.Context) error
	// Serve answers one invocation, or returns an error and has written nothing: a StatusError says what went wrong to the caller,
	// any other is a fault of the function. The request's context ends when the invocation has taken too long or its caller left.
	Serve func(w http.ResponseWriter, r *http.Request) error
	// MaxBody is the largest body in bytes; 0 if the function takes none.
	MaxBody int64
	// InFlight is how many invocations run at a time, unless the environment says otherwise; more are refused.
	InFlight int
}

// Server serves one function.
type Server struct {
	f   Function
	cfg Config
	log *slog.Logger

	slots    chan struct{} // one for each invocation in flight
	prepared chan struct{} // closed when Prepare is through
	draining atomic.Bool
	registry *prometheus.Registry
	handler  http.Handler
}

// New returns a server that does not listen yet.
func New(f Function, cfg Config, log *slog.Logger) *Server {
	s := &Server{
		f: f, cfg: cfg, log: log,
		slots: make(chan struct{}, cfg.InFlight), prepared: make(chan struct{}), registry: prometheus.NewRegistry(),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_/health", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("/_/ready", s.ready)
	mux.HandleFunc("/_/", http.NotFound)
	mux.Handle("/", s.instrument(http.HandlerFunc(s.invoke)))
	s.handler = mux
	return s
}

// Main serves f as the environment says until a signal ends it, and returns the exit code of the process.
func Main(f Function) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // whoever asks twice does not want to wait
	err := errors.New("takes no arguments: it is configured by its environment, see functions/README.md")
	code := 2
	if len(os.Args) == 1 {
		var cfg Config
		if cfg, err = FromEnvironment(f, os.Environ()); err == nil {
			code = 1
			err = New(f, cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))).Run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", f.Name, oneLine(err.Error()))
		return code
	}
	return 0
}

// oneLine is a text without the line breaks that libraries put into theirs.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Run serves until ctx ends, then lets what has begun come to its end, for as long as the configuration allows.
func (s *Server) Run(ctx context.Context) error {
	invocations, err := listen(ctx, s.cfg.Listen)
	if err != nil {
		return err
	}
	defer invocations.Close()
	servers := []*http.Server{s.server(s.Handler())}
	listeners := []net.Listener{invocations}
	where := []any{"function", s.f.Name, "listen", invocations.Addr().String()}
	if s.cfg.Metrics != "" {
		metrics, err := listen(ctx, s.cfg.Metrics)
		if err != nil {
			return fmt.Errorf("metrics: %w; %s=off serves none", err, envMetrics)
		}
		defer metrics.Close()
		servers = append(servers, s.server(s.Metrics()))
		listeners = append(listeners, metrics)
		where = append(where, "metrics", metrics.Addr().String())
	}
	s.log.Info("serving", where...)

	group, ctx := errgroup.WithContext(ctx)
	for i, server := range servers {
		group.Go(func() error {
			if err := server.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving on %s: %w", listeners[i].Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		if err := s.prepare(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("preparing: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return s.end(servers)
	})
	return group.Wait()
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return l, nil
}

func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       s.cfg.Timeout + 10*time.Second,
		WriteTimeout:      s.cfg.Timeout + 30*time.Second, // what has taken its time must still be said
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

func (s *Server) prepare(ctx context.Context) error {
	if s.f.Prepare != nil {
		if err := s.f.Prepare(ctx); err != nil {
			return err
		}
	}
	close(s.prepared)
	return nil
}

// end stops in order: say so, keep serving while that gets about, refuse what is new, wait for what is there; the metrics, which
// are the last server, go last, so that the last counts can be read.
func (s *Server) end(servers []*http.Server) error {
	s.draining.Store(true)
	s.log.Info("ending", "in_flight", len(s.slots), "linger", s.cfg.Linger, "drain", s.cfg.Drain)
	servers[0].SetKeepAlivesEnabled(false)
	linger := time.NewTimer(s.cfg.Linger)
	defer linger.Stop()
	<-linger.C
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain)
	defer cancel()
	var faults []error
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			faults = append(faults, fmt.Errorf("%d invocations did not end within %v: %w", len(s.slots), s.cfg.Drain, err), server.Close())
		}
	}
	return errors.Join(faults...)
}

// Handler answers invocations, on any path, and the questions for health and readiness.
func (s *Server) Handler() http.Handler { return s.handler }

// Metrics answers on /metrics.
func (s *Server) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

// instrument counts as of-watchdog does (https://github.com/openfaas/of-watchdog#metrics): refused invocations too, health not.
func (s *Server) instrument(next http.Handler) http.Handler {
	labels := []string{"code", "method"}
	inFlight := prometheus.NewGauge(prometheus.GaugeOpts{Name: "http_requests_in_flight", Help: "Requests in flight."})
	total := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "Requests completed."}, labels)
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "http_request_duration_seconds", Help: "Time from a request to the end of its answer.", Buckets: prometheus.DefBuckets,
	}, labels)
	s.registry.MustRegister(inFlight, total, seconds)
	return promhttp.InstrumentHandlerInFlight(inFlight, promhttp.InstrumentHandlerDuration(seconds, promhttp.InstrumentHandlerCounter(total, next)))
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.prepared:
	default:
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	if s.draining.Load() {
		http.Error(w, "ending", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

func (s *Server) invoke(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		s.refuse(w, r, &StatusError{http.StatusTooManyRequests, fmt.Sprintf("%d invocations are in flight already, and no more run at a time", s.cfg.InFlight)})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
	defer cancel()
	r = r.WithContext(ctx)
	defer func() {
		if fault := recover(); fault != nil {
			s.log.Error("a fault of the function", "fault", fault, "stack", stack())
			s.refuse(w, r, errors.New("the function failed"))
		}
	}()
	if err := s.serve(w, r); err != nil {
		s.refuse(w, r, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	select {
	case <-s.prepared:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	switch {
	case r.ContentLength > s.f.MaxBody:
		return tooLarge(s.f.MaxBody)
	case s.f.MaxBody == 0 && r.ContentLength != 0: // of unknown length
		if n, _ := io.ReadFull(r.Body, make([]byte, 1)); n > 0 {
			return tooLarge(0)
		}
	default:
		r.Body = http.MaxBytesReader(w, r.Body, s.f.MaxBody)
	}
	return s.f.Serve(w, r)
}

// statusLeft is what nginx logs for a caller who has gone; nobody gets it, but it is counted.
const statusLeft = 499

// refuse tells in one line what went wrong.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := &StatusError{http.StatusInternalServerError, "the function failed"}
	if own, ok := errors.AsType[*StatusError](err); ok {
		status = own
	} else if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		status = tooLarge(large.Limit)
	} else if errors.Is(r.Context().Err(), context.DeadlineExceeded) {
		status = &StatusError{http.StatusGatewayTimeout, fmt.Sprintf("it took longer than %v", s.cfg.Timeout)}
	} else if r.Context().Err() != nil {
		status = &StatusError{statusLeft, "the caller has gone"}
	} else {
		s.log.Error("an invocation failed", "err", err)
		status.Message = oneLine(err.Error())
	}
	http.Error(w, status.Message, status.Status)
}
