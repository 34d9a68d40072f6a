package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/wattlet/wattlet/deploy/prometheus"
	"github.com/wattlet/wattlet/internal/hub"
	"github.com/wattlet/wattlet/web"
)

type hubCmd struct {
	Data           string        `default:"wattlet-data" type:"path" placeholder:"DIR" help:"Where samples are kept; made if missing. Default ${default}."`
	Listen         string        `default:"127.0.0.1:9779" help:"Address to serve on; default ${default}, :9779 for all addresses."`
	WebConfig      string        `name:"web.config.file" type:"path" placeholder:"FILE" help:"TLS and basic auth of the hub's own pages, as for Prometheus."`
	Target         []string      `sep:"none" placeholder:"URL" help:"An agent, as 10.0.0.7:9780 or jetson=https://10.0.0.8:9780; may be repeated."`
	TargetsFile    string        `name:"targets.file" type:"path" placeholder:"FILE" help:"More agents, as Prometheus's file_sd_configs; re-read on change."`
	Web            string        `type:"existingdir" placeholder:"DIR" help:"Another dashboard than the one inside, as web/dist."`
	ScrapeInterval time.Duration `name:"scrape.interval" default:"5s" help:"Time between two samples; default ${default}."`
	Retention      string        `placeholder:"15d" help:"Samples older than this go; default 15d unless --retention.size is given."`
	RetentionSize  string        `name:"retention.size" placeholder:"2GB" help:"The oldest samples go when all take more than this."`
	User           string        `placeholder:"NAME" help:"Name for the agents' basic auth."`
	PasswordFile   string        `type:"path" placeholder:"FILE" help:"File with the password for it."`
	CA             string        `name:"ca" type:"path" placeholder:"FILE" help:"Certificates to trust for agents on https, PEM; default the system's."`

	Discover discoverFlags `embed:""`

	Rules          []string `sep:"none" placeholder:"FILE" help:"Rules and alerts of your own, as for Prometheus; a file or a pattern; may be repeated."`
	BuiltinRules   bool     `name:"builtin-rules" default:"true" negatable:"" help:"Evaluate Wattlet's own rules and alerts."`
	Alertmanager   []string `sep:"none" placeholder:"URL" help:"Gets the alerts, as http://10.0.0.2:9093; may be repeated."`
	RemoteWrite    []string `name:"remote.write" sep:"none" placeholder:"URL" help:"Gets all samples too, as http://vm:8428/api/v1/write; may be repeated."`
	RemoteProtocol string   `name:"remote.write.protocol" default:"1.0" enum:"1.0,2.0" help:"Protocol of --remote.write, 1.0 or 2.0; default ${default}."`
	RemoteNative   bool     `name:"remote.write.native-histograms" help:"Send native histograms with protocol 1.0 as well; 2.0 always has them."`
	RemoteFile     string   `name:"remote.write.file" type:"path" placeholder:"FILE" help:"More receivers: a list as Prometheus's remote_write section."`
	Receive        bool     `help:"Take samples that agents push, at /api/v1/write: remote write 1.0 and 2.0."`

	OTLP otlpFlags `embed:""`

	ExternalLabel map[string]string `name:"external.label" mapsep:"none" placeholder:"K=V" help:"Added to what other stores get, as cluster=munich."`
}

// Run stores and shows what the agents measure until interrupted.
func (c hubCmd) Run(a *app) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(a.stderr, nil))
	h, err := hub.New(cfg)
	if wrong := (*hub.ConfigError)(nil); errors.As(err, &wrong) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	scheme := "http"
	if c.WebConfig != "" {
		scheme = "https"
	}
	at := h.Addr().String()
	if tcp, ok := h.Addr().(*net.TCPAddr); ok {
		at = here(tcp.AddrPort()).String()
	}
	if _, err := fmt.Fprintf(a.stdout, "hub at %s://%s, samples in %s\n", scheme, at, c.Data); err != nil {
		return errors.Join(err, h.Close())
	}
	return h.Run(a.ctx)
}

// config makes of the flags what the hub wants.
func (c hubCmd) config() (hub.Config, error) {
	cfg := hub.Config{
		Dir: c.Data, Listen: c.Listen, WebConfig: c.WebConfig, TargetsFile: c.TargetsFile, ScrapeInterval: c.ScrapeInterval,
		Version: version, Web: web.Dashboard(), Client: hub.Client{User: c.User, PasswordFile: c.PasswordFile, CA: c.CA},
		Alertmanagers: c.Alertmanager, ExternalLabels: c.ExternalLabel, RemoteWriteFile: c.RemoteFile, Receive: c.Receive,
	}
	if c.Web != "" {
		cfg.Web = os.DirFS(c.Web)
	}
	if c.ScrapeInterval <= 0 {
		return cfg, usagef("--scrape.interval=%v: it must be positive", c.ScrapeInterval)
	}
	if (c.User == "") != (c.PasswordFile == "") {
		return cfg, usagef("--user and --password-file go together")
	}
	if len(c.Target) == 0 && c.TargetsFile == "" && !c.Discover.any() && !c.Receive {
		return cfg, usagef("which agents? Give --target, as --target 10.0.0.7:9780, or one of --targets.…, or --receive for those that push")
	}
	var err error
	if cfg.Discover, err = c.Discover.discoverers(); err != nil {
		return cfg, err
	}
	if cfg.OTLP, err = c.OTLP.config(); err != nil {
		return cfg, err
	}
	if cfg.Rules, err = c.rules(); err != nil {
		return cfg, err
	}
	for _, url := range c.RemoteWrite {
		cfg.RemoteWrite = append(cfg.RemoteWrite, hub.RemoteWrite{URL: url, Protocol: c.RemoteProtocol, NativeHistograms: c.RemoteNative})
	}
	for _, text := range c.Target {
		name, at, ok := strings.Cut(text, "=")
		if !ok {
			name, at = "", text
		}
		cfg.Targets = append(cfg.Targets, hub.Target{Name: name, URL: at})
	}
	if c.Retention != "" {
		d, err := model.ParseDuration(c.Retention)
		if err != nil || d <= 0 {
			return cfg, usagef("--retention=%s is not a time as 12h, 15d or 1y", c.Retention)
		}
		cfg.Retention = time.Duration(d)
	}
	if c.RetentionSize != "" {
		size, ok := parseSize(c.RetentionSize)
		if !ok {
			return cfg, usagef("--retention.size=%s is not a size as 512MB or 2GB", c.RetentionSize)
		}
		cfg.RetentionSize = size
	}
	return cfg, nil
}

// rules returns Wattlet's rules and the site's.
func (c hubCmd) rules() (files []hub.RuleFile, err error) {
	if c.BuiltinRules {
		files = builtinRules()
	}
	for _, pattern := range c.Rules {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, usagef("--rules=%s: %w", pattern, err)
		}
		if len(names) == 0 {
			return nil, usagef("--rules=%s: there is no such file", pattern)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, usagef("--rules=%s: %w", pattern, err)
			}
			files = append(files, hub.RuleFile{Name: name, Text: text})
		}
	}
	return files, nil
}

// builtinRules returns the rules and alerts that come with Wattlet.
func builtinRules() []hub.RuleFile {
	return []hub.RuleFile{{Name: prometheus.RulesName, Text: prometheus.Rules()}}
}

// parseSize reads a size as Prometheus's --storage.tsdb.retention.size takes it: units are powers of 1024.
func parseSize(text string) (bytes int64, ok bool) {
	digits := strings.TrimRight(text, "KMGTB")
	shift, ok := map[string]int{"B": 0, "KB": 10, "MB": 20, "GB": 30, "TB": 40}[text[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return 0, false
	}
	return n << shift, true
}
