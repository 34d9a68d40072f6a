package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
)

// pi are the series of an agent that began 20 s before the first sample: gzip is invoked twice in 30 s, with 1.5 J of which 0.3 J
// are of idle times. A line of over, by its first word, replaces one.
func pi(over ...string) string {
	all := []string{
		fmt.Sprintf("process_start_time_seconds %dx240", placementStart.Unix()-20),
		`wattlet_node_info{meter="bench",channel="3",estimated="false"} 1x240`,
		`wattlet_meter_up{meter="bench"} 1x240`,
		`wattlet_node_power_watts 3.5x240`,
		`wattlet_function_energy_joules_total 0+1.5x240`,
		`wattlet_function_overhead_joules_total 0+0.3x240`,
		`wattlet_function_invocations_total 0+2x240`,
		`wattlet_function_energy_stddev_joules 4.5x240`,
		`wattlet_function_coldstart_joules_total 4x200 6x39`,
		`wattlet_function_cold_starts_total 1x200 2x39`,
		`wattlet_function_base_share_joules_total{policy="equal"} 0+1x240`,
		`wattlet_function_base_share_joules_total{policy="proportional"} 0+0.5x240`,
		`wattlet_function_joules_per_invocation{bound="mean"} 0.59x240`,
		`wattlet_function_joules_per_invocation{bound="low"} 0.55x240`,
		`wattlet_function_joules_per_invocation{bound="high"} 0.63x240`,
		`wattlet_function_prior_dominated 0x240`,
		`wattlet_function_collinear 0x240`,
	}
	for _, line := range over {
		name := strings.Fields(line)[0]
		i := slices.IndexFunc(all, func(l string) bool { return strings.Fields(l)[0] == name })
		if i < 0 {
			panic(name)
		}
		all[i] = line
	}
	return labelled(strings.Join(all, "\n"), `cluster="munich",instance="pi:9780",job="wattlet"`, `node="pi"`)
}

// labelled adds labels to series: all have those of the target, an agent's all but its process's those of its node, and its functions'
// those of gzip.
func labelled(text, target, node string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		name, values, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			continue
		}
		name, own, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		set := []string{target}
		if strings.HasPrefix(name, "wattlet_") {
			set = append(set, node)
		}
		if strings.HasPrefix(name, "wattlet_function_") && !strings.Contains(own, "function=") {
			set = append(set, `namespace="openfaas-fn",function="gzip"`)
		}
		if own != "" {
			set = append(set, own)
		}
		fmt.Fprintf(&out, "%s{%s} %s\n", name, strings.Join(set, ","), values)
	}
	return out.String()
}

// placed asks a made-up store.
func placed(t testing.TB, text, query string) Placement {
	t.Helper()
	p := newPlacement(madeUp(t, text))
	p.now = func() time.Time { return placementNow }
	w := askPlacement(t, p, query)
	var answer Placement
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d, %v: %s", w.Code, err, w.Body)
	}
	checkAgainstDescription(t, w.Body.Bytes())
	return answer
}

// near says whether a number is the one that was worked out, or null.
func near(t testing.TB, what string, got *float64, want float64) {
	t.Helper()
	switch {
	case got == nil:
		if !math.IsNaN(want) {
			t.Errorf("%s: null, want %v", what, want)
		}
	case math.IsNaN(want) || math.Abs(*got-want) > 1e-6:
		t.Errorf("%s: %v, want %v", what, *got, want)
	}
}

var null = math.NaN()

// TestPlacementJoules has means and intervals worked out by hand.
func TestPlacementJoules(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text, query                  string
		mean, low, high, invocations float64
		atLeast                      bool
	}{
		// 2 invocations in each of 240 steps.
		"since start": {pi(), "function=gzip", 0.59, 0.55, 0.63, 480, false},
		// Of an hour, and so the agent began an hour before the hub.
		"since before the hub": {
			pi(fmt.Sprintf("process_start_time_seconds %dx240", placementStart.Unix()-3600)), "function=gzip", 0.59, 0.55, 0.63, 480, true,
		},
		// Restarted after 30 min, of which the hub saw the first scrape 15 s later: 180 steps are left, and the one between.
		"since a restart": {
			pi(fmt.Sprintf("process_start_time_seconds %dx59 %dx180", placementStart.Unix()-20, placementStart.Unix()+1785)),
			"function=gzip", 0.59, 0.55, 0.63, 362, false,
		},
		"start not known": {
			strings.ReplaceAll(pi(), "process_start_time_seconds", "other"), "function=gzip", 0.59, 0.55, 0.63, 480, true,
		},
		// Bounds of before a restart are none.
		"too few since start": {
			pi(`wattlet_function_joules_per_invocation{bound="low"} 0.55x238 stale`, `wattlet_function_joules_per_invocation{bound="high"} 0.63x238 stale`),
			"function=gzip", 0.59, null, null, 480, false,
		},
		"not yet since start": {
			pi(`wattlet_function_joules_per_invocation{bound="mean"} 0.59x238 stale`), "function=gzip", null, null, null, 0, false,
		},
		// 60 steps: 90 J less 18 J for 120 invocations. All batches are alike, so that the interval is the model's alone: 4.5 J at both ends are
		// 9 J of 90 J, 0.06 J of 0.6 J; t for 10 batches is 2.2622.
		"window":        {pi(), "function=gzip&window=30m", 0.6, 0.464268, 0.735732, 120, false},
		"window, later": {pi(), "function=gzip&window=10m&time=2026-11-24T11:30:00Z", 0.6, 0.6 - 0.407196, 0.6 + 0.407196, 40, false}, // 9 J of 30 J
		// Each second batch of six steps has 1.2 J less, each other 1.2 J more: 10·1.2²·10/9 / 120² = 1/900 J².
		"window that scatters": {
			pi(`wattlet_function_energy_joules_total 0+1.5x180 271.3+1.3x5 279.5+1.7x5 289.3+1.3x5 297.5+1.7x5 307.3+1.3x5 315.5+1.7x5 `+
				`325.3+1.3x5 333.5+1.7x5 343.3+1.3x5 351.5+1.7x5`, `wattlet_function_energy_stddev_joules 0x240`),
			"function=gzip&window=30m", 0.6, 0.6 - 2.2622/30, 0.6 + 2.2622/30, 120, false,
		},
		"window without a start": {strings.ReplaceAll(pi(), "process_start_time_seconds", "other"), "function=gzip&window=30m", 0.6, null, null, 120, false},
		"short window":           {pi(), "function=gzip&window=4m", 0.6, null, null, 16, false},
		"window without requests": {
			pi(`wattlet_function_invocations_total 5x240`), "function=gzip&window=30m", null, null, null, 0, false,
		},
		"window with few requests": { // 9 of 90 J less 18 J
			pi(`wattlet_function_invocations_total 0x200 3x9 6x9 9x19`), "function=gzip&window=30m", 8, null, null, 9, false,
		},
		"window with a burst": { // 40 invocations in one batch of ten
			pi(`wattlet_function_invocations_total 0x200 40x39`), "function=gzip&window=30m", 1.8, null, null, 40, false,
		},
		// The function came 20 steps ago: 30 J less 6 J for 40 invocations, in the last four batches.
		"window of a new function": {
			pi(`wattlet_function_energy_joules_total _x220 7+1.5x20`, `wattlet_function_overhead_joules_total _x220 3+0.3x20`,
				`wattlet_function_invocations_total _x220 1+2x20`, `wattlet_function_energy_stddev_joules _x220 4.5x20`),
			"function=gzip&window=30m", 0.6, null, null, 40, false,
		},
		// The agent restarts before step 221 and goes on with its counters, but for the one of idle times, which begins at zero, so that one step is not
		// told: 90 J less 17.7 J for 120 invocations, and one batch of 7.5 J among nine of 7.2 J: (9·0.03² + 0.27²)·10/9 / 120² = 6.25e-6 J².
		// Deviations are 4.5 + 4.5 before and 1 + 2 after, of 90 J: (0.6025 · 12/90)² = 6.45344e-3 J².
		"restart in the window": {
			pi(fmt.Sprintf("process_start_time_seconds %dx220 %dx19", placementStart.Unix()-20, placementStart.Unix()+6620),
				`wattlet_function_overhead_joules_total 0+0.3x220 0+0.3x19`, `wattlet_function_energy_stddev_joules 4.5x220 1 2x18`),
			"function=gzip&window=30m", 0.6025, 0.6025 - 0.1818180, 0.6025 + 0.1818180, 120, false,
		},
		// Counters begin anew at step 221, at 3 J and 4 invocations: 40 steps and then 19: 60 + 3 + 28.5 J less 12 + 0.6 + 5.7 J for 80 + 4 + 38. The
		// deviation is 4.5 + 4.5 of 91.5 J. Batch 6, steps 216 to 222, has five steps and the 2.4 J and 4 invocations of the new beginning: 8.4 J for
		// 14; all have 0.6 J each.
		"counters anew": {
			pi(`wattlet_function_energy_joules_total 0+1.5x220 3+1.5x19`, `wattlet_function_overhead_joules_total 0+0.3x220 0.6+0.3x19`,
				`wattlet_function_invocations_total 0+2x220 4+2x19`),
			"function=gzip&window=30m", 0.6, 0.6 - 2.2622*0.6*9/91.5, 0.6 + 2.2622*0.6*9/91.5, 122, false,
		},
		// Nothing was scraped from step 166 to 190: what was counted before 191 is not the window's, as the counters are not known at its begin, step 180.
		// 49 steps, 73.5 J; nine batches have requests, t is 2.3060.
		"gap at the begin": {
			pi(`wattlet_function_energy_joules_total 0+1.5x165 _x25 286.5+1.5x49`, `wattlet_function_overhead_joules_total 0+0.3x165 _x25 57.3+0.3x49`,
				`wattlet_function_invocations_total 0+2x165 _x25 382+2x49`, `wattlet_function_energy_stddev_joules 4.5x165 _x25 4.5x49`),
			"function=gzip&window=30m", 0.6, 0.6 - 2.3060*0.6*9/73.5, 0.6 + 2.3060*0.6*9/73.5, 98, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := placed(t, tc.text, tc.query)
			if len(p.Estimates) != 1 || !p.FunctionKnown {
				t.Fatalf("%+v", p)
			}
			j := p.Estimates[0].JoulesPerInvocation
			if j == nil {
				if !math.IsNaN(tc.mean) {
					t.Errorf("null, want %v", tc.mean)
				}
				return
			}
			near(t, "mean", &j.Mean, tc.mean)
			near(t, "low", j.Low95, tc.low)
			near(t, "high", j.High95, tc.high)
			near(t, "invocations", &j.Invocations, tc.invocations)
			if j.AtLeast != tc.atLeast {
				t.Errorf("at least: %v", j.AtLeast)
			}
		})
	}
}

// TestPlacementIntervals draws windows of a function whose mean is known, 0.5 J: Poisson arrivals, 40 a window in the mean, energies that
// scatter like an exponential distribution, and each third invocation's energy a batch before its completion. The window's intervals
// cover 93 to 98 % of the means.
func TestPlacementIntervals(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	r := &placementRead{q: placementQuery{window: placementWindow}}
	a := &agentRead{started: gauge{ok: true}}
	const windows = 4000
	covered, without := 0, 0
	for range windows {
		f := &functionRead{energy: counter{ok: true}, deviation: deviation{ok: true}}
		var joules, number [batches]float64
		for at := random.ExpFloat64() / 40; at < 1; at += random.ExpFloat64() / 40 {
			batch := int(at * batches)
			number[batch]++
			if random.IntN(3) == 0 && batch > 0 {
				batch--
			}
			joules[batch] += 0.5 * random.ExpFloat64()
		}
		for i := range batches {
			f.energy.at[i+1] = f.energy.at[i] + joules[i]
			f.invocations.at[i+1] = f.invocations.at[i] + number[i]
		}
		j := r.ofWindow(a, f)
		switch {
		case j == nil || j.Low95 == nil:
			without++
		case *j.Low95 <= 0.5 && 0.5 <= *j.High95:
			covered++
		}
	}
	if c := float64(covered) / windows; without > 0 || c < 0.93 || c > 0.98 {
		t.Errorf("%.1f %% covered, %d without", 100*c, without)
	} else {
		t.Logf("%.1f %% covered", 100*c)
	}
}

// TestPlacementNode looks at all that is told of one node, by either basis.
func TestPlacementNode(t *testing.T) {
	t.Parallel()
	text := pi() + `
http_request_duration_seconds_bucket{cluster="munich",node="pi",namespace="openfaas-fn",function="gzip",code="200",le="0.1"} 0+10x240
http_request_duration_seconds_bucket{cluster="munich",node="pi",namespace="openfaas-fn",function="gzip",code="200",le="0.5"} 0+18x240
http_request_duration_seconds_bucket{cluster="munich",node="pi",namespace="openfaas-fn",function="gzip",code="200",le="1"} 0+20x240
http_request_duration_seconds_bucket{cluster="munich",node="pi",namespace="openfaas-fn",function="gzip",code="200",le="+Inf"} 0+20x240`
	p := placed(t, text, "function=gzip&namespace=openfaas-fn")
	e := p.Estimates[0]
	if p.Format != "wattlet-placement/1" || !p.Time.Equal(placementNow) || *p.Namespace != "openfaas-fn" || p.Basis != "agent_start" ||
		p.WindowSeconds != 1800 || e.Cluster != "munich" || e.Node != "pi" || *e.Namespace != "openfaas-fn" || e.Agents != 1 || len(p.Warnings) != 0 {
		t.Errorf("%+v", p)
	}
	if j := e.JoulesPerInvocation; !j.From.Equal(placementStart.Add(-20*time.Second)) || !j.To.Equal(placementNow) {
		t.Errorf("of %v to %v", j.From, j.To)
	}
	// Of 1200 requests 600 took up to 0.1 s; 1140 are the middle of the 120 from 0.5 to 1 s.
	if l := *e.Latency; l.P50 != 0.1 || math.Abs(l.P95-0.75) > 1e-9 || l.BeyondBuckets || l.Requests != 1200 || l.Source != "http_request_duration_seconds" ||
		l.Scope != "node" {
		t.Errorf("latency %+v", l)
	}
	if c := *e.ColdStart; c != (ColdStart{3, 2}) {
		t.Errorf("cold starts %+v", c)
	}
	near(t, "equal", e.BaseShare.Equal, 0.5)
	near(t, "proportional", e.BaseShare.Proportional, 0.25)
	near(t, "requested", e.BaseShare.Requested, null)
	if tr := e.Trust; !tr.Trustworthy || *tr.PriorDominated || *tr.Collinear || !*tr.MeterUp || *tr.Estimated {
		t.Errorf("trust %+v", tr)
	}
	if f := e.Freshness; !f.Newest.Equal(placementNow) || f.Age != 0 || f.Stale {
		t.Errorf("freshness %+v", f)
	}
	p = placed(t, text, "function=gzip&window=30m&time="+fmt.Sprint(placementNow.Unix()+10))
	e = p.Estimates[0]
	if p.Basis != "window" || p.Namespace != nil || e.Freshness.Age != 10 || e.Freshness.Stale {
		t.Errorf("%+v", p)
	}
	if c := *e.ColdStart; c != (ColdStart{2, 1}) {
		t.Errorf("cold starts of the window %+v", c)
	}
	// The window begins 10 s after a sample.
	if j := e.JoulesPerInvocation; !j.From.Equal(placementNow.Add(-30*time.Minute)) || !j.To.Equal(placementNow) || math.Abs(j.Mean-0.6) > 1e-9 {
		t.Errorf("%+v", j)
	}
}

// TestPlacementPower compares what nodes draw with what they may.
func TestPlacementPower(t *testing.T) {
	t.Parallel()
	limit := func(watts string) string {
		return strings.ReplaceAll(pi(), `job="wattlet"`, `job="wattlet",power_limit_watts="`+watts+`"`)
	}
	for name, tc := range map[string]struct {
		text, query          string
		now, limit, headroom float64
		source, warning      string
	}{
		"label":    {limit("12.5"), "", 3.5, 12.5, 9, "label", ""},
		"over it":  {limit("3"), "", 3.5, 3, -0.5, "label", ""},
		"no label": {pi(`wattlet_node_power_watts 3.5x100 8 3.5x138`), "", 3.5, 8, 4.5, "observed_24h", ""},
		"no number": {
			limit("5W"), "", 3.5, 3.5, 0, "observed_24h", `node "pi" of cluster "munich": label power_limit_watts="5W" is no number of watts`,
		},
		"no limit":      {limit("0"), "", 3.5, 3.5, 0, "observed_24h", `node "pi" of cluster "munich": label power_limit_watts="0" is no number of watts`},
		"not now":       {pi(`wattlet_node_power_watts 3.5x100 8 3.5x137 stale`), "", null, 8, null, "observed_24h", ""},
		"in the past":   {pi(`wattlet_node_power_watts 3.5x239 8`), "&time=2026-11-24T11:59:00Z", 3.5, 3.5, 0, "observed_24h", ""},
		"a day ago":     {pi(`wattlet_node_power_watts 8 3.5x239`), "&time=2026-11-25T10:00:00Z", null, 3.5, null, "", ""},
		"no power ever": {pi(`wattlet_node_power_watts _x240`), "", null, null, null, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := placed(t, tc.text, "function=gzip&window=24h"+tc.query)
			if len(p.Estimates) != 1 {
				t.Fatalf("%+v", p)
			}
			e := p.Estimates[0].Power
			near(t, "now", e.Now, tc.now)
			near(t, "limit", e.Limit, tc.limit)
			near(t, "headroom", e.Headroom, tc.headroom)
			if tc.source != "" && (e.LimitSource == nil || *e.LimitSource != tc.source) {
				t.Errorf("limit's source %v", e.LimitSource)
			}
			if got := strings.Join(p.Warnings, "\n"); got != tc.warning {
				t.Errorf("warnings %q", got)
			}
		})
	}
}

// TestPlacementTrust has what speaks against an estimate.
func TestPlacementTrust(t *testing.T) {
	t.Parallel()
	ended := strings.NewReplacer("x240\n", "x238 stale\n", "x39\n", "x37 stale\n").Replace(pi())
	for name, tc := range map[string]struct {
		text, query string
		want        string // trustworthy prior collinear meter estimated, age stale
	}{
		"good":         {pi(), "", "true false false true false, 0 false"},
		"prior":        {pi("wattlet_function_prior_dominated 1x240"), "", "false true false true false, 0 false"},
		"collinear":    {pi("wattlet_function_collinear 0x239 1"), "", "false false true true false, 0 false"},
		"meter":        {pi(`wattlet_meter_up{meter="bench"} 1x239 0`), "", "false false false false false, 0 false"},
		"other meter":  {pi(`wattlet_node_info{meter="bench",channel="3",estimated="false"} _x240`), "", "false false false null null, 0 false"},
		"estimated":    {strings.Replace(pi(), `estimated="false"`, `estimated="true"`, 1), "", "true false false true true, 0 false"},
		"agent gone":   {ended, "", "false false false null false, 60 true"},
		"four minutes": {pi(), "&time=2026-11-24T12:04:00Z", "true false false true false, 240 false"},
		"six minutes":  {pi(), "&time=2026-11-24T12:06:00Z", "false false false null false, 360 true"},
		"no interval":  {pi(`wattlet_function_joules_per_invocation{bound="low"} _x240`), "", "false false false true false, 0 false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := placed(t, tc.text, "function=gzip"+tc.query).Estimates[0]
			is := func(b *bool) string {
				if b == nil {
					return "null"
				}
				return fmt.Sprint(*b)
			}
			got := fmt.Sprintln(e.Trust.Trustworthy, is(e.Trust.PriorDominated), is(e.Trust.Collinear), is(e.Trust.MeterUp), is(e.Trust.Estimated)+",",
				e.Freshness.Age, e.Freshness.Stale)
			if got != tc.want+"\n" {
				t.Errorf("%s want %s", got, tc.want)
			}
			if name == "agent gone" && (e.Power.Now != nil || e.JoulesPerInvocation == nil || e.JoulesPerInvocation.Mean != 0.59 || e.Agents != 0) {
				t.Errorf("of an agent that is gone: %+v", e)
			}
		})
	}
}

// TestPlacementLatency takes the best source there is.
func TestPlacementLatency(t *testing.T) {
	t.Parallel()
	histogram := func(name, own string, counts ...int) string {
		var b strings.Builder
		for i, bound := range []string{"0.1", "1", "+Inf"} {
			fmt.Fprintf(&b, "%s_bucket{cluster=\"munich\",%s,le=%q} 0+%dx240\n", name, own, bound, counts[i])
		}
		return b.String()
	}
	watchdog, gateway := "http_request_duration_seconds", "gateway_functions_seconds"
	for name, tc := range map[string]struct{ text, want string }{
		"none":    {"", "null"},
		"gateway": {histogram(gateway, `function_name="gzip.openfaas-fn",code="200"`, 2, 4, 4), "0.1 0.91 false 240 gateway_functions_seconds cluster"},
		"node before gateway": {
			histogram(gateway, `function_name="gzip.openfaas-fn",code="200"`, 2, 4, 4) +
				histogram(watchdog, `node="pi",namespace="openfaas-fn",function="gzip"`, 4, 4, 4),
			"0.05 0.095 false 240 http_request_duration_seconds node",
		},
		"watchdog of no node": {histogram(watchdog, `function="gzip"`, 4, 4, 4), "0.05 0.095 false 240 http_request_duration_seconds cluster"},
		"of others": {
			histogram(gateway, `function_name="gzip2.openfaas-fn"`, 1, 1, 1) + histogram(gateway, `function_name="gzip.other"`, 1, 1, 1) +
				histogram(watchdog, `node="coral",namespace="openfaas-fn",function="gzip"`, 1, 1, 1), "null",
		},
		"pods and codes together": {
			histogram(watchdog, `node="pi",namespace="openfaas-fn",function="gzip",pod="a",code="200"`, 2, 3, 3) +
				histogram(watchdog, `node="pi",namespace="openfaas-fn",function="gzip",pod="b",code="201"`, 0, 1, 1) +
				histogram(watchdog, `node="pi",namespace="openfaas-fn",function="gzip",pod="b",code="500"`, 9, 9, 9) +
				histogram(watchdog, `node="pi",namespace="openfaas-fn",function="gzip",pod="b",status="404"`, 9, 9, 9),
			"0.1 0.91 false 240 http_request_duration_seconds node",
		},
		"beyond":      {histogram(gateway, `function_name="gzip.openfaas-fn"`, 2, 3, 4), "0.1 1 true 240 gateway_functions_seconds cluster"},
		"no requests": {histogram(gateway, `function_name="gzip.openfaas-fn"`, 0, 0, 0), "null"},
		"no top":      {strings.Replace(histogram(gateway, `function_name="gzip.openfaas-fn"`, 2, 3, 4), "+Inf", "2", 1), "null"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, query := range []string{"function=gzip", "function=gzip&namespace=openfaas-fn"} {
				l, got := placed(t, pi()+tc.text, query).Estimates[0].Latency, "null"
				if l != nil {
					got = fmt.Sprintf("%.4g %.4g %v %v %s %s", l.P50, l.P95, l.BeyondBuckets, l.Requests, l.Source, l.Scope)
				}
				if got != tc.want {
					t.Errorf("%s: %s, want %s", query, got, tc.want)
				}
			}
		})
	}
}

// TestPlacementAll has nodes of all kinds, and an order.
func TestPlacementAll(t *testing.T) {
	t.Parallel()
	other := func(cluster, node string, mean float64) string {
		return labelled(fmt.Sprintf("wattlet_node_power_watts 2x240\nwattlet_function_joules_per_invocation{bound=\"mean\"} %vx240", mean),
			fmt.Sprintf(`cluster=%q,instance="%s:9780"`, cluster, node), fmt.Sprintf(`node=%q`, node))
	}
	idle := labelled("wattlet_node_power_watts 1.25x240\nwattlet_node_info{meter=\"m\"} 1x240\nwattlet_meter_up{meter=\"m\"} 1x240", `instance="c"`, `node="coral"`)
	text := other("b", "x", 0.7) + other("a", "y", 0.7) + other("a", "x", 0.7) + other("c", "z", 0.2) + idle + pi() +
		labelled(`wattlet_function_joules_per_invocation{namespace="dev",function="gzip",bound="mean"} 0.3x240`,
			`cluster="munich",instance="pi:9780",job="wattlet"`, `node="pi"`) +
		labelled(`wattlet_function_joules_per_invocation{namespace="dev",function="resize",bound="mean"} 0.1x240`,
			`cluster="c",instance="z:9780"`, `node="z"`) +
		// It was taken from the targets long ago.
		labelled("wattlet_node_power_watts 1x100 stale", `cluster="d",instance="old"`, `node="old"`)
	list := func(query string) string {
		var got []string
		for _, e := range placed(t, text, query).Estimates {
			mean := "null"
			if j := e.JoulesPerInvocation; j != nil {
				mean = fmt.Sprint(j.Mean)
			}
			got = append(got, fmt.Sprintf("%s/%s/%s %s", e.Cluster, e.Node, deref(e.Namespace), mean))
		}
		return strings.Join(got, ", ")
	}
	for query, want := range map[string]string{
		"function=gzip": "c/z/openfaas-fn 0.2, munich/pi/dev 0.3, munich/pi/openfaas-fn 0.59, a/x/openfaas-fn 0.7, a/y/openfaas-fn 0.7, b/x/openfaas-fn 0.7, " +
			"/coral/ null",
		"function=gzip&namespace=dev": "munich/pi/dev 0.3, /coral/ null, a/x/ null, a/y/ null, b/x/ null, c/z/ null",
		"function=resize":             "c/z/dev 0.1, /coral/ null, a/x/ null, a/y/ null, b/x/ null, munich/pi/ null",
		"function=unheard":            "/coral/ null, a/x/ null, a/y/ null, b/x/ null, c/z/ null, munich/pi/ null",
	} {
		for range 3 {
			if got := list(query); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", query, got, want)
			}
		}
	}
	p := placed(t, text, "function=unheard")
	if e := p.Estimates[0]; p.FunctionKnown || e.Trust.Trustworthy || !*e.Trust.MeterUp || *e.Power.Now != 1.25 || *e.Power.Headroom != 0 ||
		e.Freshness.Age != 0 || e.Freshness.Stale || e.Latency != nil || e.ColdStart != nil || e.BaseShare != nil {
		t.Errorf("a node that does not run it: %+v", e)
	}
	if p := placed(t, "", "function=gzip"); p.Estimates == nil || len(p.Estimates) != 0 || p.FunctionKnown {
		t.Errorf("an empty store: %+v", p)
	}
}

// TestPlacementTwoAgents has one node told of by several targets, of which one is believed, the same each time.
func TestPlacementTwoAgents(t *testing.T) {
	t.Parallel()
	const warning = `2 targets tell of node "pi" of cluster "munich" at the same time; one's figures are used`
	twin := func(instance string, mean float64, values string) string {
		return labelled(fmt.Sprintf("wattlet_node_power_watts %s\nwattlet_function_joules_per_invocation{bound=\"mean\"} %s",
			strings.ReplaceAll(values, "v", "2"), strings.ReplaceAll(values, "v", fmt.Sprint(mean))),
			fmt.Sprintf(`cluster="munich",instance=%q,job="wattlet"`, instance), `node="pi"`)
	}
	for name, tc := range map[string]struct {
		text   string
		mean   float64
		agents int
		warns  string
	}{
		"scraped twice": {twin("b", 0.2, "vx240") + twin("a", 0.3, "vx240"), 0.3, 2, warning},
		// One's newest sample is 30 s older; that alone must not make the choice, which would change with each scrape.
		"not at once": {twin("b", 0.2, "vx240") + twin("a", 0.3, "vx239"), 0.3, 2, warning},
		"moved":       {twin("b", 0.2, "_x200 vx39") + twin("a", 0.3, "vx199 stale"), 0.2, 1, ""},
		"both gone":   {twin("b", 0.2, "vx230 stale") + twin("a", 0.3, "vx220 stale"), 0.2, 0, ""},
		"one knows no function": {
			labelled("wattlet_node_power_watts 3x240", `cluster="munich",instance="a",job="wattlet"`, `node="pi"`) + twin("b", 0.2, "vx240"), 0.2, 2,
			warning,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := placed(t, tc.text, "function=gzip")
			if len(p.Estimates) != 1 || p.Estimates[0].mean() != tc.mean || p.Estimates[0].Agents != tc.agents || strings.Join(p.Warnings, "\n") != tc.warns {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestPlacementParameters(t *testing.T) {
	t.Parallel()
	p := newPlacement(madeUp(t, pi()))
	p.now = func() time.Time { return placementNow }
	for query, want := range map[string]string{
		"":                                `parameter "function" is missing; as ?function=gzip`,
		"namespace=x":                     `parameter "function" is missing; as ?function=gzip`,
		"function=":                       `invalid parameter "function": it is empty`,
		"function=g&namespace=":           `invalid parameter "namespace": it is empty`,
		"function=g&function=h":           `parameter "function" is given 2 times`,
		"function=%ff":                    `invalid parameter "function": a name is at most 253 bytes of UTF-8`,
		"function=g&name_space=x":         `invalid parameter "name_space": there is none of that name; there are function, namespace, time and window`,
		"function=g&time=noon":            `invalid parameter "time": "noon" is no time; as 2006-01-02T15:04:05Z or in seconds since 1970`,
		"function=g&time=1e300":           `invalid parameter "time": "1e300" is no time; as 2006-01-02T15:04:05Z or in seconds since 1970`,
		"function=g&time=NaN":             `invalid parameter "time": "NaN" is no time; as 2006-01-02T15:04:05Z or in seconds since 1970`,
		"function=g&window=30":            `invalid parameter "window": not a valid duration string: "30"`,
		"function=g&window=59s":           `invalid parameter "window": 59s is not between 1m and 24h`,
		"function=g&window=25h":           `invalid parameter "window": 25h is not between 1m and 24h`,
		"function=%zz":                    `invalid URL escape "%zz"`,
		"function=" + longName(maxName+1): `invalid parameter "function": a name is at most 253 bytes of UTF-8`,
	} {
		w := askPlacement(t, p, query)
		var got map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusBadRequest || w.Header().Get("Content-Type") != "application/json" ||
			got["status"] != "error" || got["errorType"] != "bad_data" || got["error"] != want || len(got) != 3 {
			t.Errorf("%.60s: %d %s, %v", query, w.Code, w.Body, err)
		}
	}
	for _, query := range []string{
		"function=" + longName(maxName), "function=a.b*%5B%22%0A", "function=g&time=1790000000.5",
		"function=g&time=2026-11-24T13:00:00%2B01:00", "function=g&window=1h30m",
	} {
		if w := askPlacement(t, p, query); w.Code != http.StatusOK {
			t.Errorf("%.60s: %d %s", query, w.Code, w.Body)
		}
	}
	if q, err := parsePlacement(map[string][]string{"function": {"g"}, "time": {"1790000000.5"}}, time.Time{}); err != nil || q.at.UnixMilli() != 1790000000500 {
		t.Errorf("%+v, %v", q, err)
	}
}

func longName(n int) string { return strings.Repeat("a", n) }

// TestPlacementBounds has queries that would cost too much.
func TestPlacementBounds(t *testing.T) {
	t.Parallel()
	refused := func(p *placement, status int, kind, text string) {
		t.Helper()
		w := askPlacement(t, p, "function=gzip")
		var got map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != status || got["errorType"] != kind || got["error"] != text {
			t.Errorf("%d %s, want %d %s", w.Code, w.Body, status, text)
		}
	}
	store := madeUp(t, pi())
	p := newPlacement(store)
	p.now = func() time.Time { return placementNow }
	p.samples = 1000
	refused(p, http.StatusUnprocessableEntity, "execution", "the query would read too many samples; ask for a shorter window")
	p.samples = placementSamples
	if w := askPlacement(t, p, "function=gzip"); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// The day's highest power, one sample before the window's, is read once a minute. 17 series have 13 samples in the 6 minutes then, and 17 cost 1.
	highest := func(when time.Time) string {
		w := askPlacement(t, p, fmt.Sprintf("function=gzip&window=1m&time=%d", when.Unix()))
		return fmt.Sprint(w.Code, " ", strings.Contains(w.Body.String(), `"limit_watts":9,`))
	}
	p = newPlacement(madeUp(t, pi("wattlet_node_power_watts 9 3.5x239")))
	p.now = func() time.Time { return placementNow.Add(time.Hour) }
	p.samples = 17 * 14
	for i, want := range []string{"422 false", "200 true", "200 true", "200 true", "422 false"} {
		if i == 1 {
			p.samples = placementSamples
		}
		if got := highest(placementNow.Add(time.Duration(max(0, i-1)) * 30 * time.Second)); got != want {
			t.Errorf("question %d: %s, want %s", i, got, want)
		}
		p.samples = 17 * 14
	}
	// What is to come is not what was read.
	p.now = func() time.Time { return placementNow }
	p.samples = placementSamples
	if later := placementNow.Add(90 * time.Second); highest(later) != "200 true" || p.known(later.UnixMilli()) != nil {
		t.Error("what is of the future is kept, or not read")
	}
	// Others are at it.
	p.timeout = time.Millisecond
	for range placementsAtOnce {
		p.slots <- struct{}{}
	}
	refused(p, http.StatusServiceUnavailable, "timeout", "no answer within 1ms; ask for a shorter window, or later")

	p = newPlacement(storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return nil, context.Canceled }))
	refused(p, http.StatusInternalServerError, "internal", "read samples: context canceled")
}

// TestPlacementPage asks a hub that scrapes an agent.
func TestPlacementPage(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	h := start(t, Config{Targets: []Target{{Name: "bench", URL: a.URL, Labels: map[string]string{"cluster": "lab", "power_limit_watts": "15"}}}})
	scraped(t, h.base, "wattlet_node_power_watts")
	status, body, header := fetchPage(t, h.base+"/api/v1/placement?function=gzip")
	var p Placement
	if err := json.Unmarshal([]byte(body), &p); err != nil || status != http.StatusOK || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d, %v: %s", status, err, body)
	}
	if len(p.Estimates) != 1 || p.Estimates[0].Cluster != "lab" || p.Estimates[0].Node != "pi" || p.Estimates[0].Power.Headroom == nil ||
		*p.Estimates[0].Power.Headroom != 11.75 || p.Estimates[0].Freshness.Stale || p.FunctionKnown {
		t.Errorf("%s", body)
	}
	if status, body, _ := fetchPage(t, h.base+"/api/v1/placement"); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ := fetchPage(t, h.base+"/api/v1/placement.openapi.yaml"); status != http.StatusOK || body != string(placementOpenAPI) {
		t.Errorf("%d %s", status, body)
	}
}

// FuzzPlacement finds no query that breaks the page.
func FuzzPlacement(f *testing.F) {
	for _, s := range []string{"function=gzip", "function=a.*%28&namespace=%5c&time=1&window=1h", "function=g&time=2026-11-24T12:00:00Z"} {
		f.Add(s)
	}
	p := newPlacement(madeUp(f, pi()))
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if w := askPlacement(t, p, values.Encode()); w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
