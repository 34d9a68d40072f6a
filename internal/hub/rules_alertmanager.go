package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/notifier"
)

// alerting sends alerts to Alertmanagers.
type alerting struct {
	*notifier.Manager

	sets map[string][]*targetgroup.Group // where they are, as discovery would tell
}

// alertmanagers returns the Alertmanagers of cfg as Prometheus wants them, and where they are.
func alertmanagers(cfg Config) (config.AlertmanagerConfigs, map[string][]*targetgroup.Group, error) {
	var all config.AlertmanagerConfigs
	sets := map[string][]*targetgroup.Group{}
	for _, text := range cfg.Alertmanagers {
		u, err := plainURL(text)
		if err != nil {
			return nil, nil, fmt.Errorf("alertmanager: %w; as http://10.0.0.2:9093", err)
		}
		one := config.DefaultAlertmanagerConfig
		one.Scheme, one.PathPrefix = u.Scheme, strings.TrimSuffix(u.Path, "/")
		// The name is notifier's own, by place in the list.
		sets[fmt.Sprintf("config-%d", len(all))] = []*targetgroup.Group{{
			Source: text, Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(hostPort(u))}},
		}}
		all = append(all, &one)
	}
	return all, sets, nil
}

// newAlerting returns what sends alerts, or nil if nobody wants them.
func newAlerting(cfg Config, prom *config.Config, sets map[string][]*targetgroup.Group, reg prometheus.Registerer) (*alerting, error) {
	if len(sets) == 0 {
		return nil, nil
	}
	health := &alertmanagerHealth{log: cfg.Logger, bad: map[string]bool{}}
	a := &alerting{sets: sets, Manager: notifier.NewManager(&notifier.Options{
		QueueCapacity: 1000, DrainOnShutdown: false, Registerer: reg, Do: health.do,
	}, model.UTF8Validation, slog.New(slog.DiscardHandler))}
	if err := a.ApplyConfig(prom); err != nil {
		return nil, fmt.Errorf("alertmanager: %w", err)
	}
	return a, nil
}

// run sends until ctx ends.
func (a *alerting) run(ctx context.Context) error {
	sets := make(chan map[string][]*targetgroup.Group, 1)
	sets <- a.sets
	stop := context.AfterFunc(ctx, a.Stop)
	defer stop()
	a.Run(sets)
	return nil
}

// alertmanagerHealth tells when an Alertmanager begins or ceases to take alerts.
type alertmanagerHealth struct {
	log *slog.Logger

	mu  sync.Mutex
	bad map[string]bool // by host
}

// do sends one request.
func (a *alertmanagerHealth) do(ctx context.Context, client *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := client.Do(req.WithContext(ctx)) //nolint:gosec // who starts the hub says where its Alertmanagers are
	if ctx.Err() != nil {
		return resp, err
	}
	why := err
	if err == nil && resp.StatusCode/100 != 2 {
		why = fmt.Errorf("it answered %s", resp.Status)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch bad := why != nil; {
	case bad && !a.bad[req.URL.Host]:
		a.log.Error("an Alertmanager does not take alerts", "url", req.URL.Redacted(), "err", why)
	case !bad && a.bad[req.URL.Host]:
		a.log.Info("the Alertmanager takes alerts again", "url", req.URL.Redacted())
	}
	a.bad[req.URL.Host] = why != nil
	return resp, err
}

// hostPort returns the host of u with its port, also where that is the scheme's usual one.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
}
