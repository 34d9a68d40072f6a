package activity

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// Served is a function with the workloads that serve it on this node.
type Served struct {
	Namespace, Name string
	// Workloads are those that are not about to go, in the order in which they are to stand for the function.
	Workloads []workload.ID
	// Watched says that a watchdog of them counts, so that the gateway's counts are not to be taken; Undecided that nobody knows yet.
	Watched, Undecided bool
}

// GatewayConfig says which gateways to ask for what. URLs, Functions and Uptime are needed.
type GatewayConfig struct {
	// URLs are those of the metrics of all replicas of the gateway, such as http://gateway-metrics.openfaas:8082/metrics. Each replica
	// counts its own calls; a name stands for all its addresses.
	URLs []string
	// Resolve returns the addresses of a name, one for each replica; nil for the system's resolver.
	Resolve func(ctx context.Context, host string) ([]string, error)
	// Functions returns the functions that are served on this node; it is called once a period and must not wait.
	Functions func() []Served
	// Every is the period: default 1 s, at least 100 ms. Timeout is for one answer; default 1 s.
	Every, Timeout time.Duration
	// Client is as in Config.
	Client *http.Client
	Uptime func() time.Duration
	// Report is told of every round, with nil if all gateways have answered. May be nil.
	Report func(error)
	Logger *slog.Logger
}

// Gateway counts requests by what OpenFaaS's gateway says of them, for functions that have no watchdog.
//
// A gateway counts by function, for all nodes together, and not by pod. So its counts are taken only while all replicas of the function
// that it knows of (gateway_service_count) are on this node, and one workload stands for all of them. It has no calls that do not pass
// through it. Calls that reached no function, which it answers with 502, 503 or 504, are none.
type Gateway struct {
	cfg       GatewayConfig
	urls      []*url.URL
	replicas  map[string]*replica // by URL with the address
	asked     []*replica          // in the last round
	resolved  time.Duration       // when asked was found; 0 for it has to be found anew
	gone      map[string]int64    // completed at replicas that are forgotten, by function_name
	functions map[string]*gated   // by NAME.NAMESPACE
	failing   bool
	rounds    int
}

// replica is one process of the gateway.
type replica struct {
	target
	epochs map[string]*epoch // by function_name
	asked  int               // the last round in which it was one of those to ask
}

// resolveEvery is how often names are looked up while all replicas answer.
const resolveEvery = 10 * time.Second

// tolerated is how long the number of replicas may be another than that of the pods here: the gateway asks each five seconds.
const tolerated = 10 * time.Second

// gated is a function at the gateway.
type gated struct {
	told     int64 // completed, as far as it has been told
	standing workload.ID
	base     int64         // completed when standing began
	since    time.Duration // of there being pods elsewhere; 0 for none
	rounds   int
}

// calls are counts of one function over all gateways.
type calls struct {
	inFlight, completed int64
	replicas            int64 // -1 if none says
}

// NewGateway returns a Gateway that asks nobody yet.
func NewGateway(cfg GatewayConfig) (*Gateway, error) {
	cfg.Every = max(cmp.Or(cfg.Every, defaultEvery), minEvery)
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Functions == nil || cfg.Uptime == nil || len(cfg.URLs) == 0 {
		return nil, errors.New("gateway: no URL, no functions or no clock is configured")
	}
	if cfg.Resolve == nil {
		cfg.Resolve = lookup
	}
	g := &Gateway{cfg: cfg, replicas: map[string]*replica{}, gone: map[string]int64{}, functions: map[string]*gated{}}
	for i, s := range cfg.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" || u.Hostname() == "" {
			return nil, fmt.Errorf("gateway: %q is not a URL of the form http://HOST:8082/metrics", s)
		}
		if slices.Contains(cfg.URLs[:i], s) {
			return nil, fmt.Errorf("gateway: %s is given twice", s)
		}
		g.urls = append(g.urls, u)
	}
	return g, nil
}

// lookup returns the addresses of a name, of one family: a pod may have one of each.
func lookup(ctx context.Context, host string) ([]string, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var four, six []string
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a.String())
		} else {
			six = append(six, a.String())
		}
	}
	if len(four) > 0 {
		return four, err
	}
	return six, err
}

// find says whom to ask. While names cannot be looked up it is those who were asked before.
func (g *Gateway) find(ctx context.Context) error {
	now := g.cfg.Uptime()
	if g.resolved != 0 && now-g.resolved < resolveEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	var asked []*replica
	for _, u := range g.urls {
		addresses := []string{u.Hostname()}
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			if addresses, err = g.cfg.Resolve(ctx, u.Hostname()); err == nil && len(addresses) == 0 {
				err = fmt.Errorf("%s has no address", u.Hostname())
			}
			if err != nil && len(g.asked) > 0 {
				g.resolved = now
				return nil
			} else if err != nil {
				return err
			}
		}
		for _, a := range addresses {
			at := *u
			at.Host = a
			if strings.Contains(a, ":") {
				at.Host = "[" + a + "]"
			}
			if u.Port() != "" {
				at.Host += ":" + u.Port()
			}
			r := g.replicas[at.String()]
			if r == nil {
				r = &replica{epochs: map[string]*epoch{}}
				r.address(at.String())
				if r.request != nil {
					r.request.Host = u.Host
				}
				g.replicas[at.String()] = r
			}
			if !slices.Contains(asked, r) { // two names may be one
				asked = append(asked, r)
			}
		}
	}
	g.asked, g.resolved = asked, now
	return nil
}

// forget adds what replicas have counted that are gone for long. One that is gone for less may only have been out of its name's addresses.
func (g *Gateway) forget() {
	for _, r := range g.asked {
		r.asked = g.rounds
	}
	for at, r := range g.replicas {
		if r.asked+forgotten >= g.rounds {
			continue
		}
		delete(g.replicas, at)
		for name, e := range r.epochs {
			if _, known := g.gone[name]; known || len(g.gone) < maxFunctions {
				g.gone[name] += e.complete
			}
		}
	}
}

// Run asks until ctx ends, then returns nil. It may be called once. sink is as in Poller.Run.
func (g *Gateway) Run(ctx context.Context, sink func(workload.Activity)) error {
	client := g.cfg.Client
	if client == nil {
		client = newClient(g.cfg.Timeout)
		defer client.CloseIdleConnections()
	}
	ticker := time.NewTicker(g.cfg.Every)
	defer ticker.Stop()
	var buf []byte
	for {
		var err error
		if buf, err = g.round(ctx, client, buf, sink); ctx.Err() != nil {
			return nil
		}
		g.report(err)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (g *Gateway) report(err error) {
	if g.cfg.Report != nil {
		g.cfg.Report(err)
	}
	switch {
	case err != nil && !g.failing:
		g.cfg.Logger.Warn("the gateway does not tell its calls: functions without a watchdog have no invocations", "err", err)
	case err == nil && g.failing:
		g.cfg.Logger.Info("the gateway tells its calls again")
	}
	g.failing = err != nil
}

// round asks all gateways once. With one of them missing nothing is told: its calls come with the next round in which all answer.
func (g *Gateway) round(ctx context.Context, client *http.Client, buf []byte, sink func(workload.Activity)) ([]byte, error) {
	if err := g.find(ctx); err != nil {
		return buf, fmt.Errorf("gateway: %w", err)
	}
	begin := g.cfg.Uptime()
	sum := map[string]calls{}
	for name, n := range g.gone {
		sum[name] = calls{completed: n, replicas: -1}
	}
	for _, r := range g.asked {
		var told map[string]gatewayCalls
		var err error
		if buf, err = r.fetch(ctx, client, g.cfg.Timeout, buf); err == nil {
			if told, err = parseGateway(buf); err != nil {
				err = fmt.Errorf("GET %s: %w", r.url, err)
			}
		}
		if err != nil {
			g.resolved = 0 // it may be gone
			return buf, err
		}
		for name, c := range told {
			e := r.epochs[name]
			if e == nil {
				if len(r.epochs) >= maxFunctions {
					continue
				}
				e = &epoch{}
				r.epochs[name] = e
			}
			// What is in flight is what has been started less what has ended, with any code; completed are those that reached the function.
			e.fold(counts{inFlight: max(0, c.started-c.ended), completed: c.completed})
			s, there := sum[name]
			if !there {
				s.replicas = -1
			}
			s.inFlight += e.last.inFlight
			s.replicas = max(s.replicas, c.replicas)
			sum[name] = s
		}
	}
	for _, r := range g.replicas { // also those that are gone
		for name, e := range r.epochs { // also of functions that it does not name since it has started anew
			s, there := sum[name]
			if !there {
				s.replicas = -1
			}
			s.completed += e.complete
			sum[name] = s
		}
	}
	at := begin + (g.cfg.Uptime()-begin)/2
	g.rounds++
	g.forget()
	for _, f := range g.cfg.Functions() {
		g.tell(&f, sum, at, sink)
	}
	for name, f := range g.functions {
		if f.rounds != g.rounds {
			if c, there := sum[name]; there { // nobody is there: what comes next is the next one's
				f.told, f.standing, f.since = c.completed, "", 0
			}
			if f.rounds+forgotten < g.rounds {
				delete(g.functions, name)
			}
		}
	}
	return buf, nil
}

const (
	// maxFunctions bounds the functions of a gateway: calls to functions that do not exist make series too.
	maxFunctions = 2000
	// forgotten is after how many rounds a function without pods is forgotten.
	forgotten = 3600
)

// tell tells of one function, if its counts are those of the pods here.
func (g *Gateway) tell(served *Served, sum map[string]calls, at time.Duration, sink func(workload.Activity)) {
	name := served.Name + "." + served.Namespace
	c, there := sum[name]
	if !there {
		name = served.Name // gateways of before had no namespaces
		if c, there = sum[name]; !there {
			// It has never been called; its first call will be seen from its beginning.
			name = served.Name + "." + served.Namespace
		}
	}
	f := g.functions[name]
	if f == nil {
		f = &gated{told: c.completed} // what was before we looked is not ours
		g.functions[name] = f
	}
	f.rounds = g.rounds
	elsewhere := there && (c.replicas < 0 || c.replicas > int64(len(served.Workloads)))
	switch {
	case len(served.Workloads) == 0, served.Undecided:
		return
	case served.Watched:
		f.told, f.standing, f.since = c.completed, "", 0
		return
	case elsewhere:
		if f.since == 0 {
			f.since = at
		}
		return
	case f.since != 0:
		if at-f.since > tolerated {
			f.told, f.standing = c.completed, "" // in that time nobody knows whose they were
		}
		f.since = 0
	}
	if !there {
		return
	}
	if !slices.Contains(served.Workloads, f.standing) {
		f.standing, f.base = served.Workloads[0], f.told
		sink(workload.Activity{ID: f.standing, At: at})
		at++
	}
	f.told = max(f.told, c.completed)
	done := f.told - f.base
	sink(workload.Activity{ID: f.standing, At: at, InFlight: c.inFlight, Started: done + c.inFlight, Completed: done})
}

// gatewayCalls are what one gateway says of one function.
type gatewayCalls struct {
	started, ended, completed int64
	replicas                  int64 // -1 if it does not say
}

const gatewayPrefix = "gateway_"

// parseGateway reads the text of a gateway's metrics:
//
//	gateway_function_invocation_started{function_name="gzip.openfaas-fn"} 7
//	gateway_function_invocation_total{code="200",function_name="gzip.openfaas-fn"} 6
//	gateway_service_count{function_name="gzip.openfaas-fn"} 1
func parseGateway(b []byte) (map[string]gatewayCalls, error) {
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, fmt.Errorf("it is empty or ends within a line: %w", errGateway)
	}
	all := map[string]gatewayCalls{}
	seen := false
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		line := trimBlank(b[:end])
		b = b[end+1:]
		seen = seen || bytes.Contains(line, []byte(gatewayPrefix))
		if !bytes.HasPrefix(line, []byte(gatewayPrefix)) {
			continue
		}
		family, rest := cutName(line)
		switch string(family) {
		case "gateway_function_invocation_started", "gateway_function_invocation_total", "gateway_service_count":
		default:
			continue
		}
		name, code, ok := gatewayLabels(rest)
		v, fine := parseSample(rest)
		if !ok || !fine {
			return nil, fmt.Errorf("sample %.80q: %w", line, errGateway)
		}
		if name == "" || len(all) >= maxFunctions && all[name] == (gatewayCalls{}) {
			continue
		}
		c, known := all[name]
		if !known {
			c.replicas = -1
		}
		switch string(family) {
		case "gateway_function_invocation_started":
			c.started += v
		case "gateway_function_invocation_total":
			c.ended += v
			if code != "502" && code != "503" && code != "504" {
				c.completed += v
			}
		case "gateway_service_count":
			c.replicas = max(0, c.replicas) + v
		}
		if max(c.started, c.ended, c.replicas) > maxCount {
			return nil, fmt.Errorf("sample %.80q: %w", line, errGateway)
		}
		all[name] = c
	}
	if !seen { // one that was never called has the families' names at least
		return nil, fmt.Errorf("no %s…: %w", gatewayPrefix, errGateway)
	}
	return all, nil
}

var errGateway = errors.New("not the text of a gateway's metrics")

// gatewayLabels returns the function's name and the code from what follows a metric's name. Neither has escapes where it means
// something.
func gatewayLabels(b []byte) (function, code string, ok bool) {
	b = trimBlank(b)
	if len(b) == 0 || b[0] != '{' {
		return "", "", false
	}
	b = b[1:]
	for {
		b = trimBlank(b)
		if len(b) > 0 && b[0] == '}' {
			return function, code, true
		}
		i := bytes.IndexByte(b, '=')
		if i < 0 || i+1 >= len(b) || b[i+1] != '"' {
			return "", "", false
		}
		label := trimBlank(b[:i])
		b = b[i+2:]
		n := 0
		for n < len(b) && b[n] != '"' {
			if b[n] == '\\' {
				n++
			}
			n++
		}
		if n >= len(b) {
			return "", "", false
		}
		switch string(label) {
		case "function_name":
			function = string(b[:n])
		case "code":
			code = string(b[:n])
		}
		if b = trimBlank(b[n+1:]); len(b) > 0 && b[0] == ',' {
			b = b[1:]
		}
	}
}
