package main

import (
	"slices"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// interval is a mean with two standard deviations to either side.
func interval(mean, deviation string) []query {
	return []query{
		{expr: "max(" + mean + ")", legend: "mean"},
		{expr: "max(" + mean + ") - 2 * max(" + deviation + ")", legend: "low"},
		{expr: "max(" + mean + ") + 2 * max(" + deviation + ")", legend: "high"},
	}
}

// node shows one node in all detail.
func node() board {
	perInvocation := panel{
		title: "$function", width: 8, height: 7, unit: units.Joule,
		about: "Mean active energy of an invocation since the agent's start, within its 95 % interval.",
		draw:  band().Min(0).Repeat("function").RepeatDirection(dashboard.PanelRepeatDirectionH).MaxPerRow(3),
	}
	for _, bound := range []string{"mean", "low", "high"} {
		perInvocation.queries = append(perInvocation.queries, query{
			expr: `max by FUNCTION (wattlet_function_joules_per_invocation{FUNCTION, bound="` + bound + `"})`, legend: bound,
		})
	}
	return board{
		uid: nodeUID, title: "Wattlet / Node",
		about: "Where the energy of one node goes, what the model has learnt of it, and what measuring costs.",
		variables: slices.Concat([]dashboard.VariableModel{dataSource(), clusterChoice(), nodeChoice(true)}, functionChoices(),
			[]dashboard.VariableModel{policyChoice()}),
		rows: []row{
			{title: "Now", panels: []panel{
				{
					title: "Power", width: 4, height: 4, unit: units.Watt, about: "Mean power by the meter's newest report.",
					queries: []query{{expr: "sum(wattlet_node_power_watts{NODE})", legend: "power"}},
					draw:    number().GraphMode(common.BigValueGraphModeArea),
				},
				{
					title: "Current", width: 4, height: 4, unit: units.Ampere, about: "Mean current by the meter's newest report.",
					queries: []query{{expr: "sum(wattlet_node_current_amperes{NODE})", legend: "current"}},
					draw:    number().GraphMode(common.BigValueGraphModeArea),
				},
				{
					title: "Voltage", width: 4, height: 4, unit: units.Volt, about: "Mean supply voltage by the meter's newest report.",
					queries: []query{{expr: "avg(wattlet_node_voltage_volts{NODE})", legend: "voltage"}},
					draw:    number().Decimals(3).GraphMode(common.BigValueGraphModeArea),
				},
				{
					title: "Energy", width: 4, height: 4, unit: units.Joule, about: "What the node drew in the time range shown.",
					queries: []query{{expr: "sum(increase(wattlet_node_energy_joules_total{NODE}[$__range]))", legend: "energy", instant: true}},
					draw:    number(),
				},
				{
					title: "Share of the base", width: 4, height: 4, unit: percent,
					about: "Share of the energy in the time range that the idle board would have used, or that nobody can be given.",
					queries: []query{{
						expr: `sum(increase(wattlet_node_base_joules_total{NODE}[$__range])) /
							(sum(increase(wattlet_node_energy_joules_total{NODE}[$__range])) > 0)`,
						legend: "base", instant: true,
					}},
					draw: number().Decimals(1),
				},
				{
					title: "Unmeasured", width: 4, height: 4, unit: percent, about: "Share of the time range in which nobody measured the node.",
					queries: []query{{expr: "max(rate(wattlet_node_unmeasured_seconds_total{NODE}[$__range]))", legend: "unmeasured", instant: true}},
					draw:    number().Decimals(2).Thresholds(steps("green", from(0.001, "orange"), from(0.01, "red"))),
				},
			}},
			{title: "Where the joules go", panels: []panel{
				{
					title: "Power by workload", width: 16, height: 11, unit: units.Watt,
					about: "The idle board's base, what functions, pods, system and agent add, and cold starts; together they are the " +
						"measured energy, the line.",
					queries: []query{
						{expr: "sum(rate(wattlet_node_base_joules_total{NODE}[$__rate_interval]))", legend: "base"},
						{
							expr:   "sum by (namespace, function) (rate(wattlet_function_energy_joules_total{NODE}[$__rate_interval]))",
							legend: "{{function}}.{{namespace}}",
						},
						{
							expr:   `sum by (kind, namespace, name) (rate(wattlet_workload_energy_joules_total{NODE, kind!="function"}[$__rate_interval]))`,
							legend: "{{kind}} {{name}}",
						},
						{expr: "sum(rate(wattlet_workload_coldstart_joules_total{NODE}[$__rate_interval]))", legend: "cold starts"},
						{expr: "sum(rate(wattlet_node_energy_joules_total{NODE}[$__rate_interval]))", legend: "measured"},
					},
					draw: legendTable(stacked()).OverrideByName("measured", []dashboard.DynamicConfigValue{
						{Id: "custom.stacking", Value: map[string]any{"mode": "none", "group": "B"}}, {Id: "custom.fillOpacity", Value: 0},
						{Id: "color", Value: map[string]any{"mode": "fixed", "fixedColor": "text"}}, {Id: "custom.lineWidth", Value: 2},
					}),
				},
				{
					title: "Energy by workload", width: 8, height: 11, unit: units.Joule,
					about: "The same over the time range, the fifteen that used most.",
					queries: []query{{
						expr: `topk(15, sum by (kind, namespace, name) (increase(wattlet_workload_energy_joules_total{NODE, kind!="function"}[$__range])) or
							sum by (namespace, function) (increase(wattlet_function_energy_joules_total{NODE}[$__range])))`,
						legend: "{{function}}{{kind}} {{name}}{{namespace}}", instant: true,
					}},
					draw: ranking(),
				},
				{
					title: "Share of the base: $policy", width: 12, height: 8, unit: units.Watt,
					about:   "The idle board's power, shared among functions under the policy chosen.",
					queries: []query{{expr: baseShare, legend: "{{function}}.{{namespace}}"}},
					draw:    legendTable(stacked()),
				},
				{
					title: "Clock of the cores", width: 12, height: 8, unit: units.Hertz,
					about:   "Mean frequency of the cores of each class, idle time included; empty where the kernel does not tell.",
					queries: []query{{expr: "avg by (class) (wattlet_node_cpu_frequency_hertz{NODE})", legend: "{{class}}"}},
					draw:    legendTable(lines().Min(0)),
				},
			}},
			{title: "What the model has learnt", panels: []panel{
				{
					title: "Base power", width: 8, height: 7, unit: units.Watt,
					about:   "Power of the idle board as learnt, with two standard deviations to either side.",
					queries: interval("wattlet_model_base_watts{NODE}", "wattlet_model_base_stddev_watts{NODE}"),
					draw:    band(),
				},
				{
					title: "Watts per core", width: 8, height: 7, unit: units.Watt,
					about:   "Mean power per weighted busy core as learnt, with two standard deviations to either side.",
					queries: interval("wattlet_model_core_watts{NODE}", "wattlet_model_core_stddev_watts{NODE}"),
					draw:    band(),
				},
				{
					title: "Error of prediction", width: 8, height: 7, unit: "suffix: σ",
					about:   "Error of the model's last prediction over its standard deviation; beyond 4 it counts as an outlier.",
					queries: []query{{expr: "avg by NODE (wattlet_model_innovation_sigmas{NODE})", legend: "innovation"}},
					draw: lines().AxisSoftMin(-4).AxisSoftMax(4).Thresholds(steps("red", from(-4, "transparent"), from(4, "red"))).
						ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeArea)),
				},
				{
					title: "Lag", width: 8, height: 7, unit: units.Seconds,
					about:   "Time by which measured power is late against CPU time; 0 until it was found.",
					queries: []query{{expr: "avg by NODE (wattlet_model_lag_seconds{NODE})", legend: "lag"}},
					draw:    lines(),
				},
				{
					title: "Confidence in the lag", width: 8, height: 7, unit: percent,
					about:   "Correlation of power and CPU time at that lag; 0 until it was found.",
					queries: []query{{expr: "avg by NODE (wattlet_model_lag_confidence_ratio{NODE})", legend: "confidence"}},
					draw:    lines().Min(0).Max(1),
				},
				{
					title: "Changes and what was not learnt from", width: 8, height: 7, unit: units.CountsPerMinute,
					about: "A minute, changes of the board that were found without being announced, and intervals whose energy went to the base " +
						"because CPU time, length or weight did not fit.",
					queries: []query{
						{expr: perMinute("wattlet_model_changes_total{NODE}", "cluster, node"), legend: "changes"},
						{expr: perMinute("wattlet_model_rejected_intervals_total{NODE}", "reason"), legend: "rejected: {{reason}}"},
					},
					draw: bars(),
				},
			}},
			{title: "Are the accounts complete?", panels: []panel{
				{
					title: "Energy that waits", width: 8, height: 7, unit: units.Joule,
					about:   "Measured and not yet in any account, because its time is not complete: about two to three seconds of power.",
					queries: []query{{expr: "sum by NODE (wattlet_node_pending_joules{NODE})", legend: "pending"}},
					draw:    lines().Min(0),
				},
				{
					title: "Energy nobody can be given", width: 8, height: 7, unit: percent,
					about:   "Share of the measured energy that is booked with the base because CPU time or readings of its time are missing.",
					queries: []query{{expr: unattributed, legend: "unattributed"}},
					draw:    lines().Min(0),
				},
				{
					title: "Whole less parts", width: 8, height: 7, unit: units.Joule,
					about:   "The node's energy less base, departed and all workloads: 0, or there is a bug.",
					queries: []query{{expr: "sum by NODE (wattlet_node_invariant_joules{NODE})", legend: "invariant"}},
					draw:    lines().AxisSoftMin(-1).AxisSoftMax(1),
				},
			}},
			{title: "What measuring costs", panels: agentPanels("agent")},
			{title: "Joules per invocation of each function", collapsed: true, panels: []panel{perInvocation}},
		},
	}
}
