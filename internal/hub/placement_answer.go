package hub

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
)

const (
	// leastWindow is the shortest window whose mean has an interval: the agent pays corrections of older energy off with a time
	// constant of a minute, and batches must be long against an invocation.
	leastWindow = 5 * time.Minute
	// leastBatches and leastInvocations are what an interval needs, as an agent's own.
	leastBatches, leastInvocations = 5, 10
)

// student are the 97.5 % quantiles of Student's t with leastBatches-1 to batches-1 degrees of freedom.
var student = [...]float64{2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622}

// answer makes the answer of what was read.
func (r *placementRead) answer() *Placement {
	p := &Placement{
		Format: "wattlet-placement/1", Time: instant(r.end), Function: r.q.function, Basis: "agent_start",
		WindowSeconds: r.q.window.Seconds(), Estimates: []Estimate{}, Warnings: []string{},
	}
	if !r.q.any {
		p.Namespace = &r.q.namespace
	}
	if r.q.windowed {
		p.Basis = "window"
	}
	telling := map[nodeKey][]*agentRead{}
	for _, a := range r.agents {
		for name, n := range a.nodes {
			if n.seen.ok {
				k := nodeKey{a.cluster, name}
				telling[k] = append(telling[k], a)
			}
		}
	}
	warned := map[string]bool{}
	warn := func(text string) {
		if !warned[text] {
			warned[text] = true
			p.Warnings = append(p.Warnings, text)
		}
	}
	for k, agents := range telling {
		a, alive := r.choose(agents, k.node)
		if alive > 1 {
			warn(fmt.Sprintf("%d targets tell of node %q of cluster %q at the same time; one's figures are used", alive, k.node, k.cluster))
		}
		n := a.nodes[k.node]
		e := Estimate{Cluster: k.cluster, Node: k.node, Agents: alive, Freshness: r.freshness(n.seen)}
		var err error
		if e.Power, err = r.power(k, a, n); err != nil {
			warn(err.Error())
		}
		if up := a.meters[n.meter]; up != nil && up.current(r.end) {
			e.Trust.MeterUp = new(up.v == 1)
		}
		if n.info.ok {
			e.Trust.Estimated = &n.estimated
		}
		runs := false
		for namespace, f := range n.functions {
			if f.seen.ok {
				runs, p.FunctionKnown = true, true
				p.Estimates = append(p.Estimates, r.estimate(e, namespace, a, f))
			}
		}
		if !runs {
			p.Estimates = append(p.Estimates, e)
		}
	}
	slices.Sort(p.Warnings)
	slices.SortFunc(p.Estimates, func(x, y Estimate) int {
		return cmp.Or(cmp.Compare(x.mean(), y.mean()), cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Node, y.Node),
			cmp.Compare(deref(x.Namespace), deref(y.Namespace)))
	})
	return p
}

// choose returns whose figures of a node are used, and how many targets tell of it at present: one that does, before one that has
// fallen silent; who knows the function, before who does not; then always the same one, or of the silent the last.
func (r *placementRead) choose(agents []*agentRead, node string) (_ *agentRead, alive int) {
	rank := func(a *agentRead) (current, knows bool, last int64) {
		n := a.nodes[node]
		if current = n.seen.current(r.end); !current {
			last = n.seen.t
		}
		return current, len(n.functions) > 0, last
	}
	slices.SortFunc(agents, func(x, y *agentRead) int {
		xc, xk, xl := rank(x)
		yc, yk, yl := rank(y)
		return cmp.Or(compareBool(yc, xc), cmp.Compare(yl, xl), compareBool(yk, xk), cmp.Compare(x.key, y.key))
	})
	for _, a := range agents {
		if a.nodes[node].seen.current(r.end) {
			alive++
		}
	}
	return agents[0], alive
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// mean is what estimates are sorted by; those without one are last.
func (e *Estimate) mean() float64 {
	if e.JoulesPerInvocation == nil {
		return math.Inf(1)
	}
	return e.JoulesPerInvocation.Mean
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func instant(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func (r *placementRead) freshness(g gauge) EstimateOfTime {
	return EstimateOfTime{Newest: instant(g.t), Age: float64(r.end-g.t) / 1e3, Stale: !g.current(r.end)}
}

// power is what a node draws and may draw. The error is a limit that is none.
func (r *placementRead) power(k nodeKey, a *agentRead, n *nodeRead) (p NodePower, err error) {
	if n.power.current(r.end) {
		p.Now = &n.power.v
	}
	if a.limit != "" {
		limit, bad := strconv.ParseFloat(a.limit, 64)
		if bad == nil && limit > 0 && !math.IsInf(limit, 0) {
			p.Limit, p.LimitSource = &limit, new("label")
		} else {
			err = fmt.Errorf("node %q of cluster %q: label power_limit_watts=%q is no number of watts", k.node, k.cluster, a.limit)
		}
	}
	if highest, ok := r.highest[k]; p.Limit == nil && ok {
		p.Limit, p.LimitSource = &highest, new("observed_24h")
	}
	if p.Now != nil && p.Limit != nil {
		p.Headroom = new(*p.Limit - *p.Now)
	}
	return p, err
}

// estimate adds what is known of the function to what is known of its node.
func (r *placementRead) estimate(e Estimate, namespace string, a *agentRead, f *functionRead) Estimate {
	e.Namespace = &namespace
	e.Freshness = r.freshness(f.seen)
	for _, c := range []*counter{&f.energy, &f.overhead, &f.coldJoules, &f.coldNum, &f.invocations} {
		c.close()
	}
	if r.q.windowed {
		e.JoulesPerInvocation = r.ofWindow(a, f)
		if n := f.coldNum.grown(); n > 0 {
			e.ColdStart = &ColdStart{f.coldJoules.grown() / n, n}
		}
	} else {
		e.JoulesPerInvocation = ofAgent(a, f)
		if n := f.coldNum.last; n > 0 && f.coldJoules.ok {
			e.ColdStart = &ColdStart{f.coldJoules.last / n, n}
		}
	}
	if n := f.invocations.grown(); n > 0 {
		share := func(policy string) *float64 {
			c := f.shares[policy]
			if c == nil {
				return nil
			}
			c.close()
			return new(c.grown() / n)
		}
		if len(f.shares) > 0 {
			e.BaseShare = &BaseShare{share("equal"), share("proportional"), share("requested")}
		}
	}
	e.Latency = r.latency(e.Cluster, e.Node, namespace)
	flag := func(g gauge) *bool {
		if !g.ok {
			return nil
		}
		return new(g.v == 1)
	}
	t := &e.Trust
	t.PriorDominated, t.Collinear = flag(f.prior), flag(f.collinear)
	is := func(b *bool, v bool) bool { return b != nil && *b == v }
	t.Trustworthy = e.JoulesPerInvocation != nil && e.JoulesPerInvocation.Low95 != nil && !e.Freshness.Stale &&
		is(t.PriorDominated, false) && is(t.Collinear, false) && is(t.MeterUp, true)
	return e
}

// ofAgent is the agent's own estimate, of the time since its start. What was not told with the newest is of before that start.
func ofAgent(a *agentRead, f *functionRead) *InvocationJ {
	if !f.mean.ok || f.mean.t != f.seen.t {
		return nil
	}
	j := &InvocationJ{Mean: f.mean.v, To: instant(f.mean.t), Invocations: f.sinceStart, AtLeast: !f.fromStart}
	if f.low.ok && f.high.ok && f.low.t == f.mean.t && f.high.t == f.mean.t {
		j.Low95, j.High95 = &f.low.v, &f.high.v
	}
	if a.started.ok {
		j.From = new(instant(int64(math.Round(a.started.v * 1e3))))
	}
	return j
}

// ofWindow is the mean of a window: growth of energy while requests were served, over invocations. Two things make its interval, as
// they make the agent's. How much invocations scatter is told by batches of the window (a ratio estimate by batch means). How well
// the model knows the energy is told by its standard deviation of the total, of which that of a difference is not more than the sum
// at both ends. Where the agent's start is not known there is no such bound.
func (r *placementRead) ofWindow(a *agentRead, f *functionRead) *InvocationJ {
	n := f.invocations.grown()
	if !f.energy.ok || n <= 0 {
		return nil
	}
	active := func(i int) float64 { return f.energy.at[i] - f.overhead.at[i] }
	total := active(batches) - active(0)
	mean := total / n
	j := &InvocationJ{Mean: mean, From: new(instant(f.invocations.first)), To: instant(f.invocations.t), Invocations: n}
	if r.q.window < leastWindow || n < leastInvocations || !f.deviation.ok || !a.started.ok || f.energy.grown() <= 0 {
		return j
	}
	filled, squares := 0, 0.0
	for i := range batches {
		y, z := active(i+1)-active(i), f.invocations.at[i+1]-f.invocations.at[i]
		if z > 0 {
			filled++
		}
		squares += (y - mean*z) * (y - mean*z)
	}
	if filled < leastBatches {
		return j
	}
	k := float64(filled)
	variance := squares * k / (k - 1) / (n * n)
	model := mean * f.deviation.bound() / f.energy.grown()
	half := student[filled-leastBatches] * math.Sqrt(variance+model*model)
	j.Low95, j.High95 = new(max(0, mean-half)), new(mean+half)
	return j
}

// latency returns quantiles of the best source there is for a function on a node.
func (r *placementRead) latency(cluster, node, namespace string) *Latency {
	for _, k := range []latencyKey{
		{watchdogLatency, cluster, node, namespace}, {watchdogLatency, cluster, node, ""},
		{watchdogLatency, cluster, "", namespace}, {watchdogLatency, cluster, "", ""},
		{gatewayLatency, cluster, "", namespace},
	} {
		histogram := r.latencies[k]
		bounds := slices.Sorted(maps.Keys(histogram))
		if len(bounds) < 2 || !math.IsInf(bounds[len(bounds)-1], 1) || histogram[math.Inf(1)] <= 0 {
			continue
		}
		quantile := func(q float64) float64 {
			buckets := make(promql.Buckets, 0, len(bounds))
			for _, b := range bounds {
				buckets = append(buckets, promql.Bucket{UpperBound: b, Count: histogram[b]})
			}
			v, _, _, _, _, _ := promql.BucketQuantile(q, buckets)
			return v
		}
		requests := histogram[math.Inf(1)]
		l := &Latency{
			P50: quantile(0.5), P95: quantile(0.95), Requests: requests, Source: k.source, Scope: "node",
			BeyondBuckets: histogram[bounds[len(bounds)-2]] < 0.95*requests,
		}
		if k.node == "" {
			l.Scope = "cluster"
		}
		return l
	}
	return nil
}
