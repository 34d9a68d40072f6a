package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// Expressions that several boards use.
var (
	unattributed = recorded("node:wattlet_node_unattributed:ratio_rate5m{NODE}", "node", `(
		sum by NODE (rate(wattlet_node_unattributed_joules_total{NODE}[5m])) /
		(sum by NODE (rate(wattlet_node_energy_joules_total{NODE}[5m])) > 0))`)
	// process_* are of every process that is scraped; wattlet_build_info says which are agents, and of which node.
	cpuOfAgents    = `rate(process_cpu_seconds_total[$__rate_interval]) * on (cluster, job, instance) group_left (node) wattlet_build_info{NODE}`
	memoryOfAgents = `process_resident_memory_bytes * on (cluster, job, instance) group_left (node) wattlet_build_info{NODE}`
	energyOfAgents = `sum by NODE (rate(wattlet_workload_energy_joules_total{NODE, kind="agent"}[$__rate_interval])) /
		(sum by NODE (rate(wattlet_node_energy_joules_total{NODE}[$__rate_interval])) > 0)`
)

// agentPanels show what measuring costs.
func agentPanels(legend string) []panel {
	return []panel{
		{
			title: "Agent: CPU", width: 8, height: 7, unit: percent,
			about:   "Processor time of the agent, in percent of one core; an alert fires beyond 1 %.",
			queries: []query{{expr: cpuOfAgents, legend: legend}},
			draw:    lines().Min(0),
		},
		{
			title: "Agent: memory", width: 8, height: 7, unit: units.BytesIEC,
			about:   "Resident memory of the agent; an alert fires beyond 32 MiB.",
			queries: []query{{expr: memoryOfAgents, legend: legend}},
			draw:    lines().Min(0),
		},
		{
			title: "Agent: share of energy", width: 8, height: 7, unit: percent,
			about:   "What the agent's own work costs, as a share of its node's energy; empty where the agent runs outside of what it measures.",
			queries: []query{{expr: energyOfAgents, legend: legend}},
			draw:    lines().Min(0).NoValue("no agent among the workloads"),
		},
	}
}

var (
	upOrSilent   = []state{{"1", "up", "green"}, {"0", "silent", "red"}}
	redAboveZero = steps("green", from(1e-9, "red"))
)

// cluster shows all nodes beside each other.
func cluster() board {
	return board{
		uid: clusterUID, title: "Wattlet / Cluster",
		about:     "Where the energy of a cluster goes, node by node.",
		variables: []dashboard.VariableModel{dataSource(), clusterChoice(), nodeChoice(false)},
		rows: []row{
			{title: "Now", panels: []panel{
				{
					title: "Power", width: 4, height: 4, unit: units.Watt,
					about:   "What the nodes draw together at their supplies, by their meters' newest reports.",
					queries: []query{{expr: "sum(wattlet_node_power_watts{NODE})", legend: "power"}},
					draw:    number().GraphMode(common.BigValueGraphModeArea),
				},
				{
					title: "Energy", width: 4, height: 4, unit: units.Joule,
					about:   "What the nodes drew together in the time range shown.",
					queries: []query{{expr: "sum(increase(wattlet_node_energy_joules_total{NODE}[$__range]))", legend: "energy", instant: true}},
					draw:    number(),
				},
				{
					title: "Nodes", width: 4, height: 4, unit: units.NoUnit,
					about: "Nodes with a recent reading, and those whose meter is silent.",
					queries: []query{
						{expr: "count(wattlet_node_power_watts{NODE})", legend: "measured", instant: true},
						{
							expr:   "count(wattlet_node_info{NODE} unless on (cluster, node) wattlet_node_power_watts{NODE}) or vector(0)",
							legend: "silent", instant: true,
						},
					},
					draw: number().NoValue("0").OverrideByName("silent", thresholds(redAboveZero)),
				},
				{
					title: "Functions", width: 4, height: 4, unit: units.NoUnit,
					about: "Functions on nodes, and how many of them have little behind their figures: the data say less than what was assumed, or " +
						"they cannot be told from another.",
					queries: []query{
						{expr: "count(count by FUNCTION (wattlet_function_energy_joules_total{NODE}))", legend: "functions", instant: true},
						{
							expr:   "count((wattlet_function_prior_dominated{NODE} == 1) or (wattlet_function_collinear{NODE} == 1)) or vector(0)",
							legend: "uncertain", instant: true,
						},
					},
					draw: number().NoValue("0").OverrideByName("uncertain", thresholds(steps("green", from(1, "orange")))),
				},
				{
					title: "Worst node's unmeasured time", width: 4, height: 4, unit: percent,
					about:   "Share of the time range in which nobody measured the node for which that was longest.",
					queries: []query{{expr: "max(rate(wattlet_node_unmeasured_seconds_total{NODE}[$__range]))", legend: "unmeasured", instant: true}},
					draw:    number().Decimals(2).Thresholds(steps("green", from(0.001, "orange"), from(0.01, "red"))),
				},
				{
					title: "Alerts", width: 4, height: 4, unit: units.NoUnit,
					about:   "Alerts of Wattlet that fire now; always 0 where Wattlet's rules are not loaded.",
					queries: []query{{expr: "count(ALERTS{ALERT}) or vector(0)", legend: "firing", instant: true}},
					draw:    number().Thresholds(redAboveZero),
				},
			}},
			{title: "Energy and current of each node", panels: []panel{
				{
					title: "Energy of each node", width: 8, height: 9, unit: units.Joule,
					about: "What each node drew in the time range shown, measured at its supply.",
					queries: []query{{
						expr:   "sort_desc(sum by NODE (increase(wattlet_node_energy_joules_total{NODE}[$__range])))",
						legend: "{{node}} {{cluster}}", instant: true,
					}},
					draw: ranking().DataLinks(links(toNode("${__field.labels.node}"))),
				},
				{
					title: "Energy of the last 15 s", width: 8, height: 9, unit: units.Joule,
					about: "At each moment, what each node drew in the 15 s before; scrape at least that often.",
					queries: []query{{
						expr:   "sum by NODE (wattlet_node_energy_joules_total{NODE} - (wattlet_node_energy_joules_total{NODE} offset 15s) >= 0)",
						legend: "{{node}} {{cluster}}",
					}},
					draw: lines().Min(0),
				},
				{
					title: "Current", width: 8, height: 9, unit: units.Ampere,
					about:   "Mean current into each node, by its meter's newest report.",
					queries: []query{{expr: "sum by NODE (wattlet_node_current_amperes{NODE})", legend: "{{node}} {{cluster}}"}},
					draw:    lines(),
				},
			}},
			{title: "Where it goes", panels: []panel{
				{
					title: "Power by node", width: 12, height: 9, unit: units.Watt,
					about:   "Energy per time of each node; the whole is what the cluster draws.",
					queries: []query{{expr: "sum by NODE (rate(wattlet_node_energy_joules_total{NODE}[$__rate_interval]))", legend: "{{node}} {{cluster}}"}},
					draw:    legendTable(stacked()),
				},
				{
					title: "Power by use", width: 12, height: 9, unit: units.Watt,
					about: "The same power, split into the idle boards' base, what workloads of each kind add, and cold starts.",
					queries: []query{
						{expr: "sum(rate(wattlet_node_base_joules_total{NODE}[$__rate_interval]))", legend: "base"},
						{expr: "sum by (kind) (rate(wattlet_workload_energy_joules_total{NODE}[$__rate_interval]))", legend: "{{kind}}"},
						{expr: "sum(rate(wattlet_workload_coldstart_joules_total{NODE}[$__rate_interval]))", legend: "cold starts"},
					},
					draw: legendTable(stacked()),
				},
				{
					title: "Functions that use most", width: 10, height: 10, unit: units.Joule,
					about: "Active energy and cold starts of the ten functions that used most in the time range, all nodes together.",
					queries: []query{{
						expr: `topk(10, sum by (cluster, namespace, function) (increase(wattlet_function_energy_joules_total{NODE}[$__range]) +
							increase(wattlet_function_coldstart_joules_total{NODE}[$__range])))`,
						legend: "{{function}}.{{namespace}} {{cluster}}", instant: true,
					}},
					draw: ranking().DataLinks(links(dashboard.DashboardLink{
						Title: "This function", Type: dashboard.DashboardLinkTypeLink, Tags: []string{},
						Url: new("/d/" + functionsUID + "?var-function=${__field.labels.function}&var-namespace=${__field.labels.namespace}" +
							"&${datasource:queryparam}&${cluster:queryparam}&${node:queryparam}&${__url_time_range}"),
					})),
				},
				{
					title: "Nodes beside each other", width: 14, height: 10,
					about: "Each node's power and voltage now, the idle board's power as learnt, and energy and time over the time range; " +
						"a node leads to its board.",
					queries: tables(
						"sum by NODE (wattlet_node_power_watts{NODE})", "avg by NODE (wattlet_node_voltage_volts{NODE})",
						"sum by NODE (wattlet_model_base_watts{NODE})", "sum by NODE (increase(wattlet_node_energy_joules_total{NODE}[$__range]))",
						"max by NODE (rate(wattlet_node_unmeasured_seconds_total{NODE}[$__range]))",
						`sum by NODE (increase(wattlet_node_unattributed_joules_total{NODE}[$__range])) /
							(sum by NODE (increase(wattlet_node_energy_joules_total{NODE}[$__range])) > 0)`,
					),
					draw: grid("Energy",
						column{field: "cluster", title: "Cluster"},
						nodeColumn(),
						column{field: "Value #A", title: "Power", unit: units.Watt}, column{field: "Value #B", title: "Voltage", unit: units.Volt},
						column{field: "Value #C", title: "Base", unit: units.Watt}, column{field: "Value #D", title: "Energy", unit: units.Joule},
						column{field: "Value #E", title: "Unmeasured", unit: percent}, column{field: "Value #F", title: "Unattributed", unit: percent},
					),
				},
			}},
			{title: "Is it well measured?", panels: []panel{
				{
					title: "Meters", width: 8, height: 7, unit: units.NoUnit,
					about:   "When the reports of each node's meter came as often as promised.",
					queries: []query{{expr: "min by (cluster, node, meter) (wattlet_meter_up{NODE})", legend: "{{node}} {{meter}} {{cluster}}"}},
					draw:    states(upOrSilent...),
				},
				{
					title: "Time nobody measured", width: 8, height: 7, unit: percent,
					about: "Share of the time in which nobody measured a node, whose energy is in no other figure.",
					queries: []query{{
						expr:   "max by NODE (rate(wattlet_node_unmeasured_seconds_total{NODE}[$__rate_interval]))",
						legend: "{{node}} {{cluster}}",
					}},
					draw: lines().Min(0),
				},
				{
					title: "Energy nobody can be given", width: 8, height: 7, unit: percent,
					about:   "Share of the measured energy that is booked with the base because CPU time or readings of its time are missing.",
					queries: []query{{expr: unattributed, legend: "{{node}} {{cluster}}"}},
					draw:    lines().Min(0),
				},
			}},
			{title: "What measuring costs", panels: agentPanels("{{node}} {{cluster}}")},
		},
	}
}

// UIDs of the boards, by which they link to each other.
const (
	clusterUID   = "wattlet-cluster"
	functionsUID = "wattlet-functions"
	nodeUID      = "wattlet-node"
	metersUID    = "wattlet-meters"
	earlierUID   = "wattlet-earlier-system"
)

// tables are the queries of a table.
func tables(exprs ...string) []query {
	var list []query
	for i, e := range exprs {
		list = append(list, query{expr: e, legend: refID(i), instant: true, format: prometheus.PromQueryFormatTable})
	}
	return list
}
