package main

import (
	"slices"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

const (
	functionLegend = "{{function}}.{{namespace}} {{node}} {{cluster}}"
	byFunction     = "node, namespace, function"
)

var (
	joulesLately = recorded("node_namespace_function:wattlet_function_joules_per_invocation:ratio_rate15m{FUNCTION}", byFunction, `(
		sum by FUNCTION (rate(wattlet_function_energy_joules_total{FUNCTION}[15m])) /
		(sum by FUNCTION (rate(wattlet_function_invocations_total{FUNCTION}[15m])) > 0))`)
	baseShare = `sum by FUNCTION (rate(wattlet_function_base_share_joules_total{FUNCTION, policy="$policy"}[$__rate_interval]))`
	// 0 to 3: 1 for what is assumed more than measured, 2 for what cannot be told from another.
	doubt       = "sum by FUNCTION (wattlet_function_prior_dominated{FUNCTION} + 2 * wattlet_function_collinear{FUNCTION})"
	doubtStates = []state{
		{"0", "measured", "green"}, {"1", "mostly assumed", "orange"}, {"2", "not told from another", "yellow"},
		{"3", "assumed, not told from another", "red"},
	}
)

// functions shows functions beside each other, on all nodes.
func functions() board {
	return board{
		uid: functionsUID, title: "Wattlet / Functions",
		about: "What serverless functions cost: joules per invocation with their uncertainty, cold starts, and shares of the idle board.",
		variables: slices.Concat([]dashboard.VariableModel{dataSource(), clusterChoice(), nodeChoice(false)}, functionChoices(),
			[]dashboard.VariableModel{policyChoice()}),
		rows: []row{
			{title: "What an invocation costs", panels: []panel{
				{
					title: "Functions beside each other", width: 24, height: 10,
					about: "Joules per invocation since the agent's start with their 95 % interval, and of the time range invocations, active energy, " +
						"cold starts and the share of the base under the policy chosen.",
					queries: tables(
						`max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="mean"})`,
						`max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="low"})`,
						`max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="high"})`,
						"sum by FUNCTION (increase(wattlet_function_invocations_total{FUNCTION}[$__range]))",
						"sum by FUNCTION (increase(wattlet_function_energy_joules_total{FUNCTION}[$__range]))",
						"sum by FUNCTION (increase(wattlet_function_cold_starts_total{FUNCTION}[$__range]))",
						"sum by FUNCTION (increase(wattlet_function_coldstart_joules_total{FUNCTION}[$__range]))",
						`sum by FUNCTION (increase(wattlet_function_base_share_joules_total{FUNCTION, policy="$policy"}[$__range]))`,
						doubt,
					),
					draw: grid("J/invocation",
						column{field: "cluster", title: "Cluster"},
						nodeColumn(),
						column{field: "namespace", title: "Namespace"}, column{field: "function", title: "Function"},
						column{field: "Value #A", title: "J/invocation", unit: units.Joule}, column{field: "Value #B", title: "95 % from", unit: units.Joule},
						column{field: "Value #C", title: "95 % to", unit: units.Joule},
						column{field: "Value #D", title: "Invocations", unit: units.NoUnit, more: decimals(0)},
						column{field: "Value #E", title: "Active energy", unit: units.Joule},
						column{field: "Value #F", title: "Cold starts", unit: units.NoUnit, more: decimals(0)},
						column{field: "Value #G", title: "Cold-start energy", unit: units.Joule},
						column{field: "Value #H", title: "Base share", unit: units.Joule},
						column{field: "Value #I", title: "Known", unit: units.NoUnit, more: []dashboard.DynamicConfigValue{
							{Id: "mappings", Value: mappings(doubtStates)}, {Id: "custom.cellOptions", Value: map[string]any{"type": "color-text"}},
						}},
					),
				},
				{
					title: "Joules per invocation, lately", width: 12, height: 9, unit: units.Joule,
					about:   "Active energy over invocations, both of the 15 minutes before.",
					queries: []query{{expr: joulesLately, legend: functionLegend}},
					draw:    legendTable(lines().Min(0)),
				},
				{
					title: "How well that is known", width: 12, height: 9, unit: percent,
					about: "Half the width of the 95 % interval of joules per invocation, as a share of the mean; missing while there are " +
						"too few invocations.",
					queries: []query{{
						expr: `(max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="high"}) -
							max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="low"})) / 2 /
							(max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="mean"}) > 0)`,
						legend: functionLegend,
					}},
					draw: legendTable(lines().Min(0)),
				},
			}},
			{title: "How invocations differ", panels: []panel{
				{
					title: "Energy of invocations", width: 12, height: 10, unit: units.Joule,
					about: "How many invocations a second had which energy, of all functions chosen; needs native histograms.",
					queries: []query{{
						expr: "sum(rate(wattlet_function_invocation_energy_joules{FUNCTION}[$__rate_interval]))", legend: "invocations a second",
						format: prometheus.PromQueryFormatHeatmap,
					}},
					draw: distribution(units.Joule),
				},
				{
					title: "Median and 95th percentile", width: 12, height: 10, unit: units.Joule,
					about: "Half of a function's invocations had less energy than the one, and one in twenty more than the other; needs " +
						"native histograms.",
					queries: []query{
						{
							expr:   "histogram_quantile(0.5, sum by FUNCTION (rate(wattlet_function_invocation_energy_joules{FUNCTION}[$__rate_interval])))",
							legend: "median " + functionLegend,
						},
						{
							expr:   "histogram_quantile(0.95, sum by FUNCTION (rate(wattlet_function_invocation_energy_joules{FUNCTION}[$__rate_interval])))",
							legend: "95 % " + functionLegend,
						},
					},
					draw: legendTable(lines().Min(0)).OverrideByQuery("B", []dashboard.DynamicConfigValue{
						{Id: "custom.lineStyle", Value: map[string]any{"fill": "dash", "dash": []int{6, 4}}},
					}),
				},
			}},
			{title: "What they draw", panels: []panel{
				{
					title: "Power", width: 12, height: 9, unit: units.Watt,
					about: "Active energy and cold starts per time; the whole is what the nodes draw more because " +
						"of functions.",
					queries: []query{{
						expr: `sum by FUNCTION (rate(wattlet_function_energy_joules_total{FUNCTION}[$__rate_interval]) +
							rate(wattlet_function_coldstart_joules_total{FUNCTION}[$__rate_interval]))`,
						legend: functionLegend,
					}},
					draw: legendTable(stacked()),
				},
				{
					title: "Invocations", width: 12, height: 9, unit: units.RequestsPerSecond,
					about: "Completed invocations a second, as the functions' watchdogs count them.",
					queries: []query{{
						expr:   "sum by FUNCTION (rate(wattlet_function_invocations_total{FUNCTION}[$__rate_interval]))",
						legend: functionLegend,
					}},
					draw: legendTable(lines().Min(0)),
				},
				{
					title: "Share of the base: $policy", width: 12, height: 9, unit: units.Watt,
					about:   "The idle board's power, shared among functions under the policy chosen.",
					queries: []query{{expr: baseShare, legend: functionLegend}},
					draw:    legendTable(stacked()),
				},
				{
					title: "The base under each policy", width: 6, height: 9, unit: units.Joule,
					about: "What functions would bear of the idle board's energy in the time range under each policy, the fifteen largest " +
						"shares; they are views of the same energy.",
					queries: []query{{
						expr:   "topk(15, sum by (namespace, function, policy) (increase(wattlet_function_base_share_joules_total{FUNCTION}[$__range])))",
						legend: "{{function}}.{{namespace}} {{policy}}", instant: true,
					}},
					draw: ranking(),
				},
				{
					title: "Energy without a request", width: 6, height: 9, unit: percent,
					about: "Share of a function's active energy in the time range that was used while it served nobody, such as polling, " +
						"the fifteen largest.",
					queries: []query{{
						expr: `topk(15, sum by FUNCTION (increase(wattlet_function_overhead_joules_total{FUNCTION}[$__range])) /
							(sum by FUNCTION (increase(wattlet_function_energy_joules_total{FUNCTION}[$__range])) > 0))`,
						legend: "{{function}}.{{namespace}} {{node}} {{cluster}}", instant: true,
					}},
					draw: ranking().Max(1),
				},
			}},
			{title: "Cold starts", panels: []panel{
				{
					title: "How often", width: 12, height: 8, unit: units.CountsPerMinute,
					about: "Cold starts a minute.",
					queries: []query{{
						expr:   perMinute("wattlet_function_cold_starts_total{FUNCTION}", "cluster, "+byFunction),
						legend: functionLegend,
					}},
					draw: legendTable(bars()),
				},
				{
					title: "Joules per cold start", width: 12, height: 8, unit: units.Joule,
					about: "Energy over number of cold starts since counting began, with what the container runtime used for them, the fifteen dearest.",
					queries: []query{{
						expr: `topk(15, sum by FUNCTION (wattlet_function_coldstart_joules_total{FUNCTION}) /
							(sum by FUNCTION (wattlet_function_cold_starts_total{FUNCTION}) > 0))`,
						legend: functionLegend, instant: true,
					}},
					draw: ranking(),
				},
			}},
			{title: "What is uncertain", panels: []panel{
				{
					title: "What is known of a function", width: 12, height: 9, unit: units.NoUnit,
					about: "Whether a function's power is measured, mostly assumed for lack of data, or not to be told from that of one " +
						"that always runs with it.",
					queries: []query{{expr: doubt, legend: functionLegend}},
					draw:    states(doubtStates...).ShowValue(common.VisibilityModeNever),
				},
				{
					title: "Watts per core", width: 12, height: 9, unit: units.Watt,
					about:   "The model's power per weighted busy core of each function.",
					queries: []query{{expr: "avg by FUNCTION (wattlet_function_watts_per_core{FUNCTION})", legend: functionLegend}},
					draw:    legendTable(lines()),
				},
			}},
		},
	}
}

func decimals(n int) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "decimals", Value: n}}
}
