package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/wattlet/wattlet/internal/hub"
)

type hubCmd struct {
	Data           string        `default:"wattlet-data" type:"path" placeholder:"DIR" help:"Where samples are kept; made if missing. Default ${default}."`
	Listen         string        `default:"127.0.0.1:9779" help:"Address to serve on; default ${default}, :9779 for all addresses."`
	WebConfig      string        `name:"web.config.file" type:"path" placeholder:"FILE" help:"TLS and basic auth of the hub's own pages, as for Prometheus."`
	Target         []string      `sep:"none" placeholder:"URL" help:"An agent, as 10.0.0.7:9780 or jetson=https://10.0.0.8:9780; may be repeated."`
	TargetsFile    string        `name:"targets.file" type:"path" placeholder:"FILE" help:"More agents, as Prometheus's file_sd_configs; re-read on change."`
	Web            string        `type:"existingdir" placeholder:"DIR" help:"The dashboard, as make web builds it: web/dist."`
	ScrapeInterval time.Duration `name:"scrape.interval" default:"5s" help:"Time between two samples; default ${default}."`
	Retention      string        `placeholder:"15d" help:"Samples older than this go; default 15d unless --retention.size is given."`
	RetentionSize  string        `name:"retention.size" placeholder:"2GB" help:"The oldest samples go when all take more than this."`
	User           string        `placeholder:"NAME" help:"Name for the agents' basic auth."`
	PasswordFile   string        `type:"path" placeholder:"FILE" help:"File with the password for it."`
	CA             string        `name:"ca" type:"path" placeholder:"FILE" help:"Certificates to trust for agents on https, PEM; default the system's."`
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
		Version: version, Client: hub.Client{User: c.User, PasswordFile: c.PasswordFile, CA: c.CA},
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
	if len(c.Target) == 0 && c.TargetsFile == "" {
		return cfg, usagef("which agents? Give --target, as --target 10.0.0.7:9780, or --targets.file")
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
