package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v3"
)

// Target is an agent.
type Target struct {
	// Name tells it from others and is the instance label of its scrapes; default host:port.
	Name string
	// URL is where its pages begin, as http://10.0.0.7:9780; without a scheme it is http.
	URL string
	// Labels are added to its series; what the agent says itself has precedence.
	Labels map[string]string
	// Client is how it is reached; the zero value means as Config.Client says.
	Client Client
}

// Client is how an agent is reached. Its files are read anew when they change.
type Client struct {
	// User and PasswordFile are for basic auth.
	User, PasswordFile string
	// CA has the certificates to trust for https, PEM; empty means the system's.
	CA string
}

// target is a Target that was checked.
type target struct {
	name, url string
	labels    map[string]string
	job       int // index into targets.jobs
	metrics   *url.URL
	snapshot  string
	client    *http.Client
}

// job is what targets reached alike have in common, as Prometheus wants it.
type job struct {
	name   string
	client Client
	http   *http.Client
}

// targets are the agents there are at present.
type targets struct {
	fixed []target
	file  string
	jobs  []job // the first is for those of the file

	changed chan struct{} // a Discoverer has found others

	mu         sync.Mutex
	text       []byte     // the file's, as it was used last
	listed     []target   // in the file
	discovered [][]target // by Discoverer
	all        []target   // fixed, listed and discovered
}

// newTargets checks the agents that are named in cfg and reads its file.
func newTargets(cfg Config) (*targets, error) {
	t := &targets{file: cfg.TargetsFile, changed: make(chan struct{}, 1), discovered: make([][]target, len(cfg.Discover))}
	if _, err := t.job(cfg.Client); err != nil {
		return nil, err
	}
	for _, c := range cfg.Targets {
		index := 0
		if c.Client != (Client{}) {
			var err error
			if index, err = t.job(c.Client); err != nil {
				return nil, fmt.Errorf("target %s: %w", c.URL, err)
			}
		}
		one, err := t.check(c, index)
		if err != nil {
			return nil, err
		}
		t.fixed = append(t.fixed, one)
	}
	t.all = t.fixed
	if t.file == "" {
		return t, unique(t.fixed)
	}
	_, err := t.reload()
	return t, err
}

// job returns the index of the job with that client and makes it if needed.
func (t *targets) job(c Client) (int, error) {
	if i := slices.IndexFunc(t.jobs, func(j job) bool { return j.client == c }); i >= 0 {
		return i, nil
	}
	j := job{name: fmt.Sprintf("wattlet-%d", len(t.jobs)), client: c}
	if (c.User == "") != (c.PasswordFile == "") {
		return 0, errors.New("basic auth needs a user and a password file")
	}
	conf := commonconfig.DefaultHTTPClientConfig
	if c.User != "" {
		if _, err := os.ReadFile(c.PasswordFile); err != nil {
			return 0, fmt.Errorf("password file: %w", err)
		}
		conf.BasicAuth = &commonconfig.BasicAuth{Username: c.User, PasswordFile: c.PasswordFile}
	}
	conf.TLSConfig.CAFile = c.CA
	var err error
	if j.http, err = commonconfig.NewClientFromConfig(conf, j.name, commonconfig.WithUserAgent("wattlet-hub")); err != nil {
		return 0, fmt.Errorf("certificates to trust: %w", err)
	}
	t.jobs = append(t.jobs, j)
	return len(t.jobs) - 1, nil
}

// disconnect closes connections that nobody uses any more.
func (t *targets) disconnect() {
	for _, j := range t.jobs {
		j.http.CloseIdleConnections()
	}
}

// check makes a target of what is said of one.
func (t *targets) check(c Target, job int) (target, error) {
	at := c.URL
	if !strings.Contains(at, "://") {
		at = "http://" + at
	}
	u, err := url.Parse(at)
	if err != nil {
		return target{}, fmt.Errorf("%q is not an agent's address: %w; as http://10.0.0.7:9780", c.URL, errors.Unwrap(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return target{}, fmt.Errorf("%q is not an agent's address; as http://10.0.0.7:9780, a user apart from it", u.Redacted())
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return target{}, fmt.Errorf("%q is not an agent's address: there is no port %s", c.URL, port)
		}
	}
	for name := range c.Labels {
		if !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || name == model.JobLabel || name == model.InstanceLabel {
			return target{}, fmt.Errorf("target %s: %q cannot be a label here", c.URL, name)
		}
	}
	one := target{name: c.Name, url: u.String(), labels: c.Labels, job: job, client: t.jobs[job].http, metrics: u.JoinPath("metrics")}
	one.snapshot = u.JoinPath("api/v1/snapshot").String()
	if one.name == "" {
		one.name = u.Host
	}
	return one, nil
}

// unique returns an error if two targets cannot be told apart.
func unique(all []target) error {
	names, urls := map[string]bool{}, map[string]bool{}
	for _, one := range all {
		if u := one.metrics.String(); names[one.name] || urls[u] {
			return fmt.Errorf("target %s at %s: name or address is there twice", one.name, one.url)
		}
		names[one.name], urls[one.metrics.String()] = true, true
	}
	return nil
}

// list returns the targets there are now; nobody changes them.
func (t *targets) list() []target {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}

// reload reads the file, if there is one, and returns whether the targets are others now.
func (t *targets) reload() (changed bool, err error) {
	if t.file == "" {
		return false, nil
	}
	text, err := os.ReadFile(t.file)
	if err != nil {
		return false, fmt.Errorf("targets file: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text != nil && bytes.Equal(text, t.text) {
		return false, nil
	}
	listed, err := parseTargets(text)
	if err != nil {
		return false, fmt.Errorf("targets file %s: %w", t.file, err)
	}
	var all []target
	for _, c := range listed {
		one, err := t.check(c, 0)
		if err != nil {
			return false, fmt.Errorf("targets file %s: %w", t.file, err)
		}
		all = append(all, one)
	}
	if err := unique(slices.Concat(t.fixed, all)); err != nil {
		return false, fmt.Errorf("targets file %s: %w", t.file, err)
	}
	t.text, t.listed = append([]byte{}, text...), all
	t.merge()
	return true, nil
}

// parseTargets reads the format of Prometheus's file_sd_configs, of which JSON is a part as YAML has it:
//
//   - targets: ["10.0.0.7:9780"]
//     labels: {instance: jetson, rack: a, __scheme__: https}
//
// Of the labels with a meaning, __scheme__, __metrics_path__ (which ends with /metrics) and instance, the agent's name, are
// understood.
func parseTargets(text []byte) ([]Target, error) {
	var groups []struct {
		Targets []string          `yaml:"targets"`
		Labels  map[string]string `yaml:"labels"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&groups); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(strings.Join(strings.Fields(err.Error()), " ")) // its lines on one
	}
	var all []Target
	for _, g := range groups {
		labels := maps.Clone(g.Labels)
		take := func(name, otherwise string) string {
			defer delete(labels, name)
			if v, ok := labels[name]; ok {
				return v
			}
			return otherwise
		}
		scheme, path, name := take(model.SchemeLabel, "http"), take(model.MetricsPathLabel, "/metrics"), take(model.InstanceLabel, "")
		base, ok := strings.CutSuffix(path, "/metrics")
		if !ok || base != "" && base[0] != '/' {
			return nil, fmt.Errorf("%s %q does not begin with / and end with /metrics", model.MetricsPathLabel, path)
		}
		for _, address := range g.Targets {
			if strings.ContainsAny(address, "/?#@") {
				return nil, fmt.Errorf("target %q is not host:port", address)
			}
			all = append(all, Target{Name: name, URL: scheme + "://" + address + base, Labels: labels})
		}
	}
	return all, nil
}

// groups returns the targets as the scraper takes them.
func (t *targets) groups() map[string][]*targetgroup.Group {
	sets := map[string][]*targetgroup.Group{}
	for _, j := range t.jobs {
		sets[j.name] = []*targetgroup.Group{{Source: j.name}}
	}
	for _, one := range t.list() {
		set := model.LabelSet{
			model.AddressLabel: model.LabelValue(one.metrics.Host), model.SchemeLabel: model.LabelValue(one.metrics.Scheme),
			model.MetricsPathLabel: model.LabelValue(one.metrics.EscapedPath()),
			model.InstanceLabel:    model.LabelValue(one.name), model.JobLabel: "wattlet",
		}
		if one.metrics.Port() == "" {
			port := map[string]string{"http": "80", "https": "443"}[one.metrics.Scheme]
			set[model.AddressLabel] = model.LabelValue(net.JoinHostPort(one.metrics.Hostname(), port))
		}
		for name, value := range one.labels {
			set[model.LabelName(name)] = model.LabelValue(value)
		}
		g := sets[t.jobs[one.job].name][0]
		g.Targets = append(g.Targets, set)
	}
	return sets
}

// scrapeConfig returns what the scraper is told. It goes through YAML because only what Prometheus has parsed has its defaults.
func scrapeConfig(cfg Config, jobs []job) (*config.Config, error) {
	var confs []map[string]any
	for _, j := range jobs {
		conf := map[string]any{
			"job_name": j.name,
			// An agent may speak for several nodes, and knows their names.
			"honor_labels": true,
			// The protocol of native histograms comes first.
			"scrape_native_histograms": true,
			"scrape_protocols":         []string{"PrometheusProto", "OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText0.0.4"},
			// Ten times what an agent has at its bounds.
			"body_size_limit": "64MB", "sample_limit": 100_000,
		}
		if j.client.User != "" {
			file, err := filepath.Abs(j.client.PasswordFile)
			if err != nil {
				return nil, err
			}
			conf["basic_auth"] = map[string]any{"username": j.client.User, "password_file": file}
		}
		if j.client.CA != "" {
			file, err := filepath.Abs(j.client.CA)
			if err != nil {
				return nil, err
			}
			conf["tls_config"] = map[string]any{"ca_file": file}
		}
		confs = append(confs, conf)
	}
	text, err := yaml.Marshal(map[string]any{
		"global": map[string]any{
			"scrape_interval": model.Duration(cfg.ScrapeInterval).String(),
			"scrape_timeout":  model.Duration(min(cfg.ScrapeInterval, 10*time.Second)).String(),
		},
		"scrape_configs": confs,
	})
	if err != nil {
		return nil, err
	}
	prom, err := config.Load(string(text), promslog.NewNopLogger())
	if err != nil {
		return nil, fmt.Errorf("scrape configuration: %w", err)
	}
	return prom, nil
}
