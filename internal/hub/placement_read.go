package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// batches is into how many parts a window is cut to see how much its mean scatters. Ten to thirty are usual (B. Schmeiser, Batch
// size effects in the analysis of simulation output, Operations Research 30, 1982); few leave each long against an invocation.
const batches = 10

var errTooMany = errors.New("the query would read too many samples; ask for a shorter window")

// nodeKey names a node among all clusters.
type nodeKey struct{ cluster, node string }

// placementRead is what was read for a query.
type placementRead struct {
	q placementQuery
	// Times in ms: the window begins and ends; before it, values of counters at its begin are looked for.
	begin, end, early int64
	agents            map[string]*agentRead // by all labels that are not a metric's own
	highest           map[nodeKey]float64   // W, in a day
	latencies         map[latencyKey]map[float64]float64

	ctx     context.Context //nolint:containedctx // it lives as long as the query
	querier storage.Querier
	left    int // samples that may be read
}

// agentRead is one target that tells of nodes.
type agentRead struct {
	key      string
	cluster  string
	limit    string  // label power_limit_watts
	started  gauge   // Unix seconds
	restarts []int64 // ms, when another start was seen first
	meters   map[string]*gauge
	nodes    map[string]*nodeRead
}

// nodeRead is a node as one agent tells.
type nodeRead struct {
	seen      gauge // the newest sample of any series
	power     gauge // W
	info      gauge
	meter     string
	estimated bool
	functions map[string]*functionRead // by namespace
}

// functionRead is the function on a node.
type functionRead struct {
	seen                                  gauge
	mean, low, high, prior, collinear     gauge
	energy, overhead, coldJoules, coldNum counter
	invocations                           counter
	shares                                map[string]*counter
	deviation                             deviation
	// sinceStart is the number of invocations since the agent's start, as far as one sees; fromStart is true if that is all.
	sinceStart float64
	fromStart  bool
}

// latencyKey is whose latencies a histogram has; what it does not tell is empty.
type latencyKey struct{ source, cluster, node, namespace string }

// Sources of latencies, the better first: a watchdog sees one node's requests, a gateway those of all and the way there.
const (
	watchdogLatency = "http_request_duration_seconds"
	gatewayLatency  = "gateway_functions_seconds"
)

// readPlacement reads from a storage what a query needs, in a fixed number of selections. The highest power of nodes may be known.
func readPlacement(ctx context.Context, store storage.Queryable, q placementQuery, highest map[nodeKey]float64, samples int) (_ *placementRead, err error) {
	end := q.at.UnixMilli()
	r := &placementRead{
		q: q, begin: end - q.window.Milliseconds(), end: end, agents: map[string]*agentRead{}, highest: highest,
		latencies: map[latencyKey]map[float64]float64{}, ctx: ctx, left: samples,
	}
	r.early = r.begin - lookback.Milliseconds()
	day := min(end-placementDay.Milliseconds(), r.early)
	power, invocations := day, day
	if highest != nil {
		power = r.early
	} else {
		r.highest = map[nodeKey]float64{}
	}
	if q.windowed {
		invocations = r.early
	}
	if r.querier, err = store.Querier(min(power, invocations), end); err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	defer func() { err = errors.Join(err, r.querier.Close()) }()

	own := []*labels.Matcher{equal("function", q.function)}
	if !q.any {
		own = append(own, equal("namespace", q.namespace))
	}
	gateway := matcher(labels.MatchRegexp, "function_name", regexp.QuoteMeta(q.function)+`\..+`)
	if !q.any {
		gateway = equal("function_name", q.function+"."+q.namespace)
	}
	for _, s := range []struct {
		from     int64
		each     func(labels.Labels, chunkenc.Iterator) error
		matchers []*labels.Matcher
	}{
		{r.early, r.addProcess, []*labels.Matcher{equal(model.MetricNameLabel, "process_start_time_seconds")}},
		{r.early, r.addNode, []*labels.Matcher{matcher(labels.MatchRegexp, model.MetricNameLabel, "wattlet_node_info|wattlet_meter_up")}},
		{power, r.addPower, []*labels.Matcher{equal(model.MetricNameLabel, "wattlet_node_power_watts")}},
		{r.early, r.addFunction, append([]*labels.Matcher{matcher(labels.MatchRegexp, model.MetricNameLabel,
			"wattlet_function_(energy_joules_total|energy_stddev_joules|coldstart_joules_total|cold_starts_total|base_share_joules_total|"+
				"overhead_joules_total|joules_per_invocation|prior_dominated|collinear)")}, own...)},
		{invocations, r.addInvocations, append([]*labels.Matcher{equal(model.MetricNameLabel, "wattlet_function_invocations_total")}, own...)},
		{r.early, r.addLatency, []*labels.Matcher{equal(model.MetricNameLabel, gatewayLatency+"_bucket"), gateway}},
		{r.early, r.addLatency, append([]*labels.Matcher{equal(model.MetricNameLabel, watchdogLatency+"_bucket")}, own[0])},
	} {
		if err := r.read(s.from, s.each, s.matchers...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func equal(name, v string) *labels.Matcher { return matcher(labels.MatchEqual, name, v) }

func matcher(t labels.MatchType, name, v string) *labels.Matcher {
	m, err := labels.NewMatcher(t, name, v)
	if err != nil {
		panic(err) // an expression of ours, or a quoted one
	}
	return m
}

// read hands all series that match to each.
func (r *placementRead) read(from int64, each func(labels.Labels, chunkenc.Iterator) error, matchers ...*labels.Matcher) error {
	set := r.querier.Select(r.ctx, false, &storage.SelectHints{Start: from, End: r.end}, matchers...)
	var it chunkenc.Iterator
	for set.Next() {
		if err := r.spend(); err != nil { // also a series without samples costs
			return err
		}
		it = set.At().Iterator(it)
		if err := each(set.At().Labels(), it); err != nil {
			return err
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read samples of %s: %w", set.At().Labels(), err)
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	return r.ctx.Err()
}

// spend counts a sample that is read.
func (r *placementRead) spend() error {
	if r.left--; r.left < 0 {
		return errTooMany
	}
	if r.left%4096 == 0 {
		return r.ctx.Err()
	}
	return nil
}

// samples hands a series' finite samples to each; the end of a series is a NaN. What is later than the query is not read.
func (r *placementRead) samples(it chunkenc.Iterator, each func(t int64, v float64)) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if err := r.spend(); err != nil {
			return err
		}
		if kind != chunkenc.ValFloat {
			continue
		}
		t, v := it.At()
		if t > r.end {
			return nil
		}
		if stale.IsStaleNaN(v) || !math.IsNaN(v) && !math.IsInf(v, 0) {
			each(t, v)
		}
	}
	return nil
}

// gauge is the newest sample of a series.
type gauge struct {
	t     int64 // ms
	v     float64
	ok    bool // there is one
	ended int64
}

func (g *gauge) add(t int64, v float64) {
	switch {
	case math.IsNaN(v):
		g.ended = max(g.ended, t)
	case !g.ok || t >= g.t:
		g.t, g.v, g.ok = t, v, true
	}
}

// merge makes g the newest sample of both.
func (g *gauge) merge(o gauge) {
	g.ended = max(g.ended, o.ended)
	if o.ok && (!g.ok || o.t > g.t) {
		g.t, g.v, g.ok = o.t, o.v, true
	}
}

// current says whether the series goes on at a time.
func (g *gauge) current(at int64) bool {
	return g.ok && g.ended <= g.t && at-g.t <= lookback.Milliseconds()
}

// counter is how much a counter grew, at the edges of the window's batches. One that falls began at zero again.
type counter struct {
	at          [batches + 1]float64
	n           int // edges passed
	total, last float64
	first, t    int64 // ms, of the samples that the growth is between
	ok          bool
}

func (c *counter) add(r *placementRead, t int64, v float64) {
	if math.IsNaN(v) {
		return
	}
	for ; c.n <= batches && r.edge(c.n) < t; c.n++ {
		c.at[c.n] = c.total
	}
	switch {
	case !c.ok:
		c.first, c.ok = t, true
	case v >= c.last:
		c.total += v - c.last
	default:
		c.total += v
	}
	if t <= r.begin {
		c.first = t
	}
	c.last, c.t = v, t
}

// close passes the edges that are left.
func (c *counter) close() {
	for ; c.n <= batches; c.n++ {
		c.at[c.n] = c.total
	}
}

// grown is by how much it grew in the window.
func (c *counter) grown() float64 { return c.at[batches] - c.at[0] }

// edge is when batch i begins.
func (r *placementRead) edge(i int) int64 { return r.begin + (r.end-r.begin)*int64(i)/batches }

// deviation bounds the standard deviation of the growth of a sum from those of the sum: that of a difference is at most the sum of
// both, however they depend on each other. Over a restart of the agent the bounds of both parts add up.
type deviation struct {
	sum, start, last float64
	run              int
	t                int64
	ok               bool
}

func (d *deviation) add(r *placementRead, t int64, v float64, run int) {
	switch {
	case math.IsNaN(v):
		return
	case t <= r.begin || !d.ok:
		*d = deviation{start: v, run: run, ok: true}
	case run != d.run:
		if d.t > r.begin {
			d.sum += d.start + d.last
		}
		// What another run says first is added too: a host's clock that was set looks like a restart.
		d.start, d.run = v, run
	}
	d.last, d.t = v, t
}

func (d *deviation) bound() float64 { return d.sum + d.start + d.last }

// ownLabels are those that a metric of ours may have of its own, sorted; by the others one tells agents apart.
var ownLabels = []string{model.MetricNameLabel, "bound", "channel", "estimated", "function", "meter", "namespace", "node", "policy"}

func (r *placementRead) agent(l labels.Labels) *agentRead {
	key := string(l.BytesWithoutLabels(nil, ownLabels...))
	a := r.agents[key]
	if a == nil {
		a = &agentRead{key: key, cluster: labelOf(l, "cluster"), limit: labelOf(l, "power_limit_watts")}
		a.meters, a.nodes = map[string]*gauge{}, map[string]*nodeRead{}
		r.agents[key] = a
	}
	return a
}

// labelOf is a label's value that outlives the query.
func labelOf(l labels.Labels, name string) string { return strings.Clone(l.Get(name)) }

func (r *placementRead) node(a *agentRead, l labels.Labels) *nodeRead {
	name := labelOf(l, "node")
	n := a.nodes[name]
	if n == nil {
		n = &nodeRead{functions: map[string]*functionRead{}}
		a.nodes[name] = n
	}
	return n
}

func (r *placementRead) function(n *nodeRead, l labels.Labels) *functionRead {
	namespace := labelOf(l, "namespace")
	f := n.functions[namespace]
	if f == nil {
		f = &functionRead{shares: map[string]*counter{}}
		n.functions[namespace] = f
	}
	return f
}

func (r *placementRead) addProcess(l labels.Labels, it chunkenc.Iterator) error {
	a := r.agent(l)
	return r.samples(it, func(t int64, v float64) {
		if !math.IsNaN(v) && a.started.ok && math.Abs(v-a.started.v) > 2 { // less is how exactly a kernel knows its own start
			a.restarts = append(a.restarts, t)
		}
		a.started.add(t, v)
	})
}

func (r *placementRead) addNode(l labels.Labels, it chunkenc.Iterator) error {
	var g gauge
	if err := r.samples(it, g.add); err != nil || !g.ok {
		return err
	}
	a := r.agent(l)
	if l.Get(model.MetricNameLabel) == "wattlet_meter_up" { // its node is the agent's, whoever is measured
		name := labelOf(l, "meter")
		if a.meters[name] == nil {
			a.meters[name] = &gauge{}
		}
		a.meters[name].merge(g)
		return nil
	}
	n := r.node(a, l)
	n.seen.merge(g)
	if !n.info.ok || g.t > n.info.t {
		n.meter, n.estimated = labelOf(l, "meter"), l.Get("estimated") == "true"
	}
	n.info.merge(g)
	return nil
}

func (r *placementRead) addPower(l labels.Labels, it chunkenc.Iterator) error {
	var g gauge
	day, highest := r.end-placementDay.Milliseconds(), math.Inf(-1)
	err := r.samples(it, func(t int64, v float64) {
		g.add(t, v)
		if t > day && v > highest {
			highest = v
		}
	})
	if err != nil || !g.ok {
		return err
	}
	a := r.agent(l)
	k := nodeKey{a.cluster, labelOf(l, "node")}
	if was, ok := r.highest[k]; !math.IsInf(highest, -1) && (!ok || highest > was) {
		r.highest[k] = highest
	}
	if g.t < r.early {
		return nil
	}
	n := r.node(a, l)
	n.seen.merge(g)
	n.power = g
	return nil
}

func (r *placementRead) addFunction(l labels.Labels, it chunkenc.Iterator) error {
	a := r.agent(l)
	n := r.node(a, l)
	f := r.function(n, l)
	var g gauge
	add := func(int64, float64) {}
	count := func(c *counter) { add = func(t int64, v float64) { c.add(r, t, v) } }
	switch l.Get(model.MetricNameLabel) {
	case "wattlet_function_energy_joules_total":
		count(&f.energy)
	case "wattlet_function_overhead_joules_total":
		count(&f.overhead)
	case "wattlet_function_coldstart_joules_total":
		count(&f.coldJoules)
	case "wattlet_function_cold_starts_total":
		count(&f.coldNum)
	case "wattlet_function_base_share_joules_total":
		c := &counter{}
		f.shares[labelOf(l, "policy")] = c
		count(c)
	case "wattlet_function_energy_stddev_joules":
		run := 0
		add = func(t int64, v float64) {
			for run < len(a.restarts) && a.restarts[run] <= t {
				run++
			}
			f.deviation.add(r, t, v, run)
		}
	case "wattlet_function_prior_dominated":
		add = f.prior.add
	case "wattlet_function_collinear":
		add = f.collinear.add
	case "wattlet_function_joules_per_invocation":
		switch l.Get("bound") {
		case "mean":
			add = f.mean.add
		case "low":
			add = f.low.add
		case "high":
			add = f.high.add
		}
	}
	err := r.samples(it, func(t int64, v float64) {
		g.add(t, v)
		add(t, v)
	})
	f.seen.merge(g)
	n.seen.merge(g)
	return err
}

func (r *placementRead) addInvocations(l labels.Labels, it chunkenc.Iterator) error {
	a := r.agent(l)
	var window counter
	var g gauge
	started, last, since, whole := int64(a.started.v*1e3), 0.0, 0.0, false
	err := r.samples(it, func(t int64, v float64) {
		if t >= r.early {
			window.add(r, t, v)
		}
		switch {
		case math.IsNaN(v):
		case !g.ok:
			// What it counted before its first sample may be of another run, but what is lost of a minute is not much.
			whole = t < started+time.Minute.Milliseconds()
		case t < started:
		case v >= last:
			since += v - last
		default:
			since += v
		}
		g.add(t, v)
		if !math.IsNaN(v) {
			last = v
		}
	})
	if err != nil || !g.ok || g.t < r.early {
		return err
	}
	n := r.node(a, l)
	f := r.function(n, l)
	f.invocations, f.sinceStart, f.fromStart = window, since, whole && a.started.ok
	f.seen.merge(g)
	n.seen.merge(g)
	return nil
}

func (r *placementRead) addLatency(l labels.Labels, it chunkenc.Iterator) error {
	if code := cmp.Or(l.Get("code"), l.Get("status")); code != "" && code[0] != '2' { // a refusal is quick, and no service
		return nil
	}
	bound, err := strconv.ParseFloat(l.Get("le"), 64)
	if err != nil || math.IsNaN(bound) {
		return nil //nolint:nilerr // not a bucket
	}
	k := latencyKey{source: watchdogLatency, cluster: labelOf(l, "cluster"), node: labelOf(l, "node"), namespace: labelOf(l, "namespace")}
	if l.Get(model.MetricNameLabel) == gatewayLatency+"_bucket" {
		k.source, k.node = gatewayLatency, ""
		k.namespace = strings.TrimPrefix(labelOf(l, "function_name"), r.q.function+".")
	} else if !r.q.any && k.namespace != "" && k.namespace != r.q.namespace {
		return nil
	}
	var c counter
	if err := r.samples(it, func(t int64, v float64) { c.add(r, t, v) }); err != nil || !c.ok {
		return err
	}
	c.close()
	if r.latencies[k] == nil {
		r.latencies[k] = map[float64]float64{}
	}
	r.latencies[k][bound] += c.grown()
	return nil
}
