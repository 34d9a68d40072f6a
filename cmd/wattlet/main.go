// Command wattlet is the node agent: it takes the node's energy from its meter, keeps its account, and serves it to
// Prometheus.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/hostclock"
	"github.com/wattlet/wattlet/internal/legacymeter"
	"github.com/wattlet/wattlet/internal/push"
)

// version is set by the linker.
var version = "dev"

func buildVersion() string { return version }

func main() {
	smallFootprint()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "wattlet:", oneLine(err))
		if usage := (usageError{}); errors.As(err, &usage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// oneLine is an error's text without the line breaks that libraries put into theirs.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// memoryLimit is what the runtime may use, in bytes, before it collects with all its might. It is for what nobody has thought of, and below
// what the Helm chart allows a pod: with 200 watchdogs the runtime uses 12 MiB, and a limit near that had most of the CPU time
// go into collecting.
const memoryLimit = 40 << 20

// smallFootprint suits the runtime to a small board, unless the environment says otherwise. The live heap is about 2 MB, so
// that collecting more often costs little and the limit is a bound that is never near; one processor is enough for ten
// thousands of reports a second and has one set of caches and stacks.
func smallFootprint() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

// run is the program: parse, make, serve until ctx ends.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	o, err := parseFlags(args, env, stdout, stderr)
	if errors.Is(err, errDone) {
		return nil
	} else if err != nil {
		return err
	}
	a, err := newAgent(o)
	if err != nil {
		return err
	}
	defer a.close()
	if o.once {
		return a.once(ctx, stdout)
	}
	return a.run(ctx)
}

// agent is the whole program as a value:
//
//	meters ─────Run──► ledger ──Snapshot──► handler ──► listeners
//	cgroups ───Read────► │ │ │        └─────► pusher ───► a hub or another receiver
//	                     │ │ └───────Last───► responder (earlier exporter)
//	watchdogs ─Run──────►│ store
//	functions' file ────►┘
//
// newAgent binds sockets and opens files, so that a bad configuration fails before anything runs.
type agent struct {
	o           *options
	meters      map[string]accounting.Meter
	store       *accounting.Store
	ledger      *accounting.Ledger
	listeners   []net.Listener
	responder   *legacymeter.Responder
	attribution *attribution
	unsplit     error // why there is none
	server      *http.Server
	pusher      *push.Pusher // nil if nothing is pushed
	closers     []io.Closer
}

func newAgent(o *options) (_ *agent, err error) {
	a := &agent{o: o, meters: map[string]accounting.Meter{}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	now := time.Now
	if o.state != "" && !o.once {
		boot, err := hostclock.BootID(o.pathProc)
		if err != nil {
			return nil, usagef("%w; is procfs mounted at --path.proc?", err)
		}
		if a.store, err = accounting.OpenStore(o.state, boot, hostclock.Uptime); err != nil {
			return nil, err
		}
		a.closers = append(a.closers, a.store)
	}
	nodes := make([]accounting.NodeConfig, 0, len(o.sources))
	for _, s := range o.sources {
		nodes = append(nodes, accounting.NodeConfig{Name: s.node, Meter: s.name, Channel: s.channel})
	}
	if !o.once {
		a.attribution = a.openAttribution()
	}
	var splitting *accounting.AttributionConfig
	if a.attribution != nil {
		splitting = a.attribution.config
	}
	if a.ledger, err = accounting.New(accounting.Config{
		Attribution: splitting,
		Nodes:       nodes, Tick: o.tick, StaleAfter: o.staleAfter, Store: a.store, SaveEvery: o.stateInterval, Logger: o.log, Now: now,
	}); err != nil {
		return nil, err
	}
	for _, s := range o.sources {
		if _, there := a.meters[s.name]; there {
			continue
		}
		m, err := a.open(s)
		if err != nil {
			return nil, err
		}
		a.meters[s.name] = m
		a.ledger.AddMeter(s.name, m)
	}
	if o.once {
		return a, nil
	}
	if err := a.listen(); err != nil {
		return nil, err
	}
	handler, err := exporter.NewHandler(exporter.Config{
		Snapshot: a.ledger.Snapshot, Record: a.ledger.Record, Self: o.nodes[0], Version: buildVersion(), Legacy: o.metricsLegacy,
		Tick: o.tick, Now: now,
	})
	if err != nil {
		return nil, err
	}
	if o.push.URL != "" {
		if handler, err = a.openPush(handler); err != nil {
			return nil, err
		}
	}
	a.server = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	return a, nil
}

// openPush makes what pushes all that /metrics has, and returns a handler that shows there how that goes.
func (a *agent) openPush(handler http.Handler) (http.Handler, error) {
	self, reg := a.o.nodes[0], prometheus.NewRegistry()
	cfg := a.o.push
	cfg.Labels = map[string]string{"job": "wattlet", "instance": self}
	maps.Copy(cfg.Labels, a.o.push.Labels)
	cfg.Gatherer, cfg.UserAgent, cfg.Logger = reg, "wattlet/"+buildVersion(), a.o.log
	var err error
	if a.pusher, err = push.New(cfg); err != nil {
		return nil, usagef("push: %w", err)
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wattlet_build_info", Help: "1; what runs.",
		ConstLabels: prometheus.Labels{"node": self, "version": buildVersion(), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	err = errors.Join(reg.Register(exporter.NewCollector(a.ledger.Snapshot, self)), reg.Register(build), reg.Register(process),
		prometheus.WrapRegistererWith(prometheus.Labels{"node": self}, reg).Register(a.pusher))
	if a.o.metricsLegacy {
		err = errors.Join(err, reg.Register(exporter.NewLegacyCollector(a.ledger.Snapshot)))
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit + int64(cfg.Buffer)) // or a full buffer would have the collector run without end
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, DisableCompression: true}))
	mux.Handle("/", handler)
	return mux, nil
}

// listen binds everything that others connect to.
func (a *agent) listen() error {
	if a.o.webConfig != "" {
		if err := web.Validate(a.o.webConfig); err != nil {
			return usagef("--web.config.file: %w", err)
		}
	}
	if a.o.systemdSocket {
		ls, err := activation.Listeners()
		if err != nil || len(ls) == 0 {
			return usagef("--web.systemd-socket: systemd handed over no socket; start wattlet by its socket unit (%v)", err)
		}
		a.listeners = ls
	} else {
		for _, addr := range a.o.listen {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("serve metrics: %w; choose another --web.listen-address", err)
			}
			a.listeners = append(a.listeners, l)
		}
	}
	for _, l := range a.listeners {
		a.closers = append(a.closers, l)
	}
	if a.o.legacyListen == "" {
		return nil
	}
	s := a.o.sources[0]
	var err error
	a.responder, err = legacymeter.NewResponder(legacymeter.ResponderConfig{
		Address: a.o.legacyListen, Logger: a.o.log,
		Last: func() (legacymeter.Message, bool) {
			r, ok := a.ledger.Last(s.name, s.channel)
			return legacymeter.FromReading(r), ok
		},
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, a.responder)
	return nil
}

// run serves until ctx ends or a part fails; then all end.
func (a *agent) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.ledger.Run(ctx) })
	for name, m := range a.meters {
		g.Go(func() error { return m.Run(ctx, a.ledger.Sink(name)) })
	}
	if a.attribution != nil {
		g.Go(func() error { return a.attribution.run(ctx, a.ledger, a.o.activityInterval) })
	}
	if a.responder != nil {
		g.Go(func() error { return a.responder.Run(ctx) })
	}
	if a.pusher != nil {
		g.Go(func() error { return a.pusher.Run(ctx) })
	}
	g.Go(func() error {
		systemd := false // the listeners are bound already
		err := web.ServeMultiple(a.listeners, a.server, &web.FlagConfig{
			WebListenAddresses: &a.o.listen, WebSystemdSocket: &systemd, WebConfigFile: &a.o.webConfig,
		}, a.o.log)
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve metrics: %w", err)
	})
	g.Go(func() error {
		<-ctx.Done()
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) // no systemd is no fault
		// A scrape that runs may end; a connection that somebody holds open may not hold us, and is no fault.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := a.server.Shutdown(grace); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return a.server.Close()
	})
	g.Go(func() error { return a.keepAlive(ctx) })
	if a.unsplit != nil {
		a.o.log.Warn("energy is measured and not split", "err", a.unsplit)
	}
	for _, l := range a.listeners {
		a.o.log.Info("serving", "address", l.Addr(), "nodes", len(a.o.sources), "version", buildVersion())
	}
	return g.Wait()
}

// keepAlive tells systemd that the agent is up, and goes on telling while snapshots are made, if its watchdog wants it.
func (a *agent) keepAlive(ctx context.Context) error {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if now.Sub(a.ledger.Snapshot().Time) < every/2+a.o.tick {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}
}

func (a *agent) close() {
	for _, c := range a.closers {
		_ = c.Close() // what the server closed already says so again
	}
}
