// Package hub stores what the agents of a cluster expose and shows it: Prometheus's own storage, query engine and scraper as
// libraries, its HTTP API, a stream of live snapshots, and a dashboard. Prometheus's Go API is not stable: this package is the
// only one that uses it, and pins one version.
package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// Config is what a Hub is made of.
type Config struct {
	// Dir keeps the samples; it is made if it is missing. Only one hub may use it.
	Dir string
	// Listen is the address to serve on; default 127.0.0.1:9779.
	Listen string
	// WebConfig is an exporter-toolkit file with TLS and basic auth of the hub's own pages, or empty.
	WebConfig string
	// Targets are the agents. Names and URLs are unique, also with those of TargetsFile.
	Targets []Target
	// TargetsFile lists more agents in the format of Prometheus's file_sd_configs, YAML or JSON. It is read anew each
	// ScrapeInterval; while it cannot be read or is wrong, the agents it listed last are kept.
	TargetsFile string
	// Discover finds more agents.
	Discover []Discoverer
	// Client is how the agents of TargetsFile are reached, those that Discover finds, and those of Targets that do not say.
	Client Client
	// ScrapeInterval is the time between two samples of a series; default 5 s.
	ScrapeInterval time.Duration
	// Retention is the age and RetentionSize the sum of blocks in bytes at which old samples go; zero of both means 15 days,
	// zero of one that the other alone decides. The last two to three hours are in no block and always kept.
	Retention     time.Duration
	RetentionSize int64
	// Rules are evaluated every RuleInterval, default 15 s, where their group says nothing else; results are stored as samples.
	Rules        []RuleFile
	RuleInterval time.Duration
	// Alertmanagers get the alerts, as http://10.0.0.2:9093.
	Alertmanagers []string
	// ExternalLabels are added to what goes to other stores and to Alertmanagers, as cluster=munich.
	ExternalLabels map[string]string
	// RemoteWrite gets all samples too, and so do the receivers of RemoteWriteFile, which is a list as Prometheus's remote_write
	// section; its relative paths are from its own directory.
	RemoteWrite     []RemoteWrite
	RemoteWriteFile string
	// OTLP is a collector that gets the newest values, or nothing.
	OTLP OTLP
	// Receive takes samples that others push, at /api/v1/write.
	Receive bool
	// Version is the hub's own, for /api/v1/status/buildinfo.
	Version string
	Logger  *slog.Logger
	// Web has the dashboard, with an index.html; nil for none.
	Web fs.FS
}

// ConfigError is a fault of the Config or of a file it names, not of the machine.
type ConfigError struct{ err error }

func (e *ConfigError) Error() string { return e.err.Error() }
func (e *ConfigError) Unwrap() error { return e.err }

// Hub scrapes, stores and serves. It is made by New and lives as long as its Run.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	store    *store
	remote   *remoteWriter   // nil if nobody else gets samples
	samples  storage.Storage // store and remote; what is written goes here
	scraper  *scrape.Manager
	prom     *config.Config
	alerts   *alerting // nil if nobody gets alerts
	otlp     *otlpExporter
	receiver http.Handler
	targets  *targets
	live     *live
	handler  http.Handler
	started  time.Time

	ruleFiles *ruleFiles
	rules     *rules.Manager
	endRules  context.CancelFunc // ends an evaluation that is under way
	managers  map[string][]*targetgroup.Group
}

// New opens the storage and binds the listener. Who does not call Run calls Close. Errors are of type *ConfigError where
// another Config would help; others name the file or the address.
func New(cfg Config) (_ *Hub, err error) {
	cfg.Listen = cmp.Or(cfg.Listen, "127.0.0.1:9779")
	cfg.ScrapeInterval = cmp.Or(cfg.ScrapeInterval, 5*time.Second)
	cfg.RuleInterval = cmp.Or(cfg.RuleInterval, 15*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Retention == 0 && cfg.RetentionSize == 0 {
		cfg.Retention = 15 * 24 * time.Hour
	}
	h := &Hub{cfg: cfg, log: cfg.Logger, started: time.Now()}
	if err := h.configure(); err != nil {
		return nil, &ConfigError{err}
	}
	if h.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("serve the hub: %w; choose another address", err)
	}
	reg := prometheus.NewRegistry()
	if h.store, err = openStore(cfg, reg); err != nil {
		return nil, errors.Join(err, h.listener.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	h.samples = h.store
	if len(h.prom.RemoteWriteConfigs) > 0 {
		if h.remote, err = newRemoteWriter(cfg, reg, scraperOf{h}); err != nil {
			return nil, err
		}
		h.samples = storage.NewFanout(slog.New(slog.DiscardHandler), h.store, h.remote)
		h.store.SetWriteNotified(h.remote)
	}
	// The scraper's own words are about each scrape; /api/v1/targets tells the same.
	h.scraper, err = scrape.NewManager(&scrape.Options{
		DiscoveryReloadOnStartup: true, DiscoveryReloadInterval: model.Duration(min(time.Second, cfg.ScrapeInterval)),
		AppendMetadata: slices.ContainsFunc(h.prom.RemoteWriteConfigs, isProtocol2),
	}, slog.New(slog.DiscardHandler), nil, nil, h.samples, reg)
	if err != nil {
		return nil, fmt.Errorf("scraper: %w", err)
	}
	if h.alerts, err = newAlerting(cfg, h.prom, h.managers, reg); err != nil {
		return nil, err
	}
	if h.receiver, err = h.newReceiver(reg); err != nil {
		return nil, fmt.Errorf("receiver of samples: %w", err)
	}
	if err := h.otlp.register(reg); err != nil {
		return nil, fmt.Errorf("OTLP: %w", err)
	}
	h.rules, h.endRules = h.newRules(reg)
	h.live = newLive(h.targets.list)
	h.handler = h.newHandler(reg)
	return h, nil
}

// configure checks the configuration and makes of it what is not a file or a socket of ours.
func (h *Hub) configure() (err error) {
	switch {
	case h.cfg.Dir == "":
		return errors.New("the hub has no data directory")
	case h.cfg.ScrapeInterval < time.Millisecond || h.cfg.Retention < 0 || h.cfg.RetentionSize < 0:
		return fmt.Errorf("scrape interval %v, retention %v, %d bytes: none may be negative, and the interval not below 1ms",
			h.cfg.ScrapeInterval, h.cfg.Retention, h.cfg.RetentionSize)
	}
	if h.cfg.WebConfig != "" {
		if err := web.Validate(h.cfg.WebConfig); err != nil {
			return fmt.Errorf("web configuration %s: %w", h.cfg.WebConfig, err)
		}
	}
	if h.targets, err = newTargets(h.cfg); err != nil {
		return err
	}
	if h.ruleFiles, err = parseRules(h.cfg.Rules); err != nil {
		return err
	}
	if h.prom, err = scrapeConfig(h.cfg, h.targets.jobs); err != nil {
		return err
	}
	if h.prom.GlobalConfig.ExternalLabels, err = externalLabels(h.cfg.ExternalLabels); err != nil {
		return err
	}
	if h.prom.RemoteWriteConfigs, err = remoteConfigs(h.cfg); err != nil {
		return err
	}
	if h.otlp, err = newOTLP(h.cfg); err != nil {
		return err
	}
	h.prom.AlertingConfig.AlertmanagerConfigs, h.managers, err = alertmanagers(h.cfg)
	return err
}

// Addr returns the address the hub serves on.
func (h *Hub) Addr() net.Addr { return h.listener.Addr() }

// Close releases a Hub that does not run.
func (h *Hub) Close() error {
	err := h.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if h.endRules != nil {
		h.endRules()
	}
	if h.remote != nil {
		err = errors.Join(err, h.remote.Close())
	}
	return errors.Join(err, h.store.close())
}

// Run scrapes and serves until ctx ends or a part fails, and closes the storage. A disk that is full is such a failure.
func (h *Hub) Run(ctx context.Context) (err error) {
	defer func() {
		h.targets.disconnect()
		err = errors.Join(err, h.Close())
	}()
	if h.remote != nil {
		// Before anything is written: the queues begin with what is written from now on.
		if err := h.remote.ApplyConfig(h.prom); err != nil {
			return fmt.Errorf("remote write: %w", err)
		}
	}
	if err := h.scraper.ApplyConfig(h.prom); err != nil {
		return fmt.Errorf("scraper: %w", err)
	}
	health := &ruleHealth{log: h.log, bad: map[string]bool{}}
	err = h.rules.Update(h.cfg.RuleInterval, h.ruleFiles.names, h.prom.GlobalConfig.ExternalLabels, h.base().String(), health.evaluate)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { h.rules.Run(); return nil })
	g.Go(func() error {
		<-ctx.Done()
		h.endRules()
		h.rules.Stop()
		return nil
	})
	if h.remote != nil {
		g.Go(func() error { return h.remote.run(ctx) })
	}
	if h.alerts != nil {
		g.Go(func() error { return h.alerts.run(ctx) })
	}
	sets := make(chan map[string][]*targetgroup.Group)
	g.Go(func() error { return h.scraper.Run(sets) })
	g.Go(func() error {
		defer h.scraper.Stop()
		h.follow(ctx, sets)
		sets <- nil // else a set the scraper has not got round to could start it again after Stop
		return nil
	})
	for i := range h.cfg.Discover {
		g.Go(func() error { h.discover(ctx, i); return nil })
	}
	g.Go(func() error { return h.live.run(ctx) })
	g.Go(func() error { return h.store.watch(ctx) })
	g.Go(func() error { return h.otlp.run(ctx, h.store) })
	// Requests end with ctx: the live stream would not by itself.
	server := &http.Server{
		Handler: h.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	g.Go(func() error {
		err := web.Serve(netutil.LimitListener(h.listener, maxConnections), server,
			&web.FlagConfig{WebConfigFile: &h.cfg.WebConfig}, slog.New(slog.DiscardHandler))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve the hub: %w", err)
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := server.Shutdown(grace); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return server.Close()
	})
	return g.Wait()
}

// maxConnections bounds what strangers can make the hub hold.
const maxConnections = 256

// follow hands the targets to the scraper, now and whenever the file changes.
func (h *Hub) follow(ctx context.Context, sets chan<- map[string][]*targetgroup.Group) {
	tick := time.NewTicker(h.cfg.ScrapeInterval)
	defer tick.Stop()
	var broken string
	for send := true; ; {
		if send {
			select {
			case sets <- h.targets.groups():
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-tick.C:
		case <-h.targets.changed:
			send = true
			continue
		case <-ctx.Done():
			return
		}
		var err error
		send, err = h.targets.reload()
		switch {
		case err != nil && err.Error() != broken:
			broken = err.Error()
			h.log.Error("targets file is not used; the agents it listed before are kept", "err", err)
		case err == nil && broken != "":
			broken = ""
			h.log.Info("targets file is good again", "file", h.cfg.TargetsFile)
		}
	}
}

// base returns the hub's own URL.
func (h *Hub) base() *url.URL {
	scheme := "http"
	if h.cfg.WebConfig != "" {
		scheme = "https" // as far as one can know
	}
	return &url.URL{Scheme: scheme, Host: h.Addr().String()}
}

// discard reads what is left, so that a connection can be used again, but not for ever.
func discard(r io.Reader) { _, _ = io.CopyN(io.Discard, r, 64<<10) }
