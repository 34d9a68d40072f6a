package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

const (
	meterLegend   = "{{node}} {{meter}} {{cluster}}"
	channelLegend = "{{node}} {{meter}}/{{channel}} {{cluster}}"
)

// meters shows how well meters and other sources do their work.
func meters() board {
	// total is a counter's increase over the time range, all meters together.
	total := func(metric string) string { return "sum(increase(" + metric + "{METER}[$__range]))" }
	byMeter := func(metric string) string { return perMinute(metric+"{METER}", "cluster, node, meter") }
	ofSamples := func(metric, window string) string {
		return "sum by (cluster, node, meter, channel) (rate(" + metric + "{METER}[" + window + "])) / " +
			"(sum by (cluster, node, meter, channel) (rate(wattlet_meter_samples_total{METER}[" + window + "])) > 0)"
	}
	return board{
		uid: metersUID, title: "Wattlet / Meters",
		about: "How well meters and other sources do their work, each as the agent of a node sees it.",
		variables: []dashboard.VariableModel{dataSource(), clusterChoice(), nodeChoice(false), choice{
			name: "meter", label: "Meter", metric: "wattlet_meter_info{NODE}", of: "meter", about: "Meters, and boards' own sensors.",
		}.build()},
		rows: []row{
			{title: "In the time range", panels: []panel{
				{
					title: "Silent", width: 4, height: 4, unit: units.NoUnit,
					about:   "Meters whose reports do not arrive as often as promised, counted for each agent that asks them.",
					queries: []query{{expr: "count(wattlet_meter_up{METER} == 0) or vector(0)", legend: "silent", instant: true}},
					draw:    number().Thresholds(redAboveZero),
				},
				{
					title: "Restarts", width: 4, height: 4, unit: units.NoUnit,
					about:   "Restarts of meters; what was drawn meanwhile is unmeasured.",
					queries: []query{{expr: total("wattlet_meter_restarts_total"), legend: "restarts", instant: true}},
					draw:    number().Decimals(0).Thresholds(steps("green", from(0.5, "orange"))),
				},
				{
					title: "Reports lost", width: 4, height: 4, unit: units.NoUnit,
					about:   "Reports that did not arrive in their turn; they cost time resolution, no energy.",
					queries: []query{{expr: total("wattlet_meter_lost_total"), legend: "lost", instant: true}},
					draw:    number().Decimals(0),
				},
				{
					title: "Recovered", width: 4, height: 4, unit: units.NoUnit,
					about:   "Lost reports whose samples arrived late or were fetched again.",
					queries: []query{{expr: total("wattlet_meter_recovered_total"), legend: "recovered", instant: true}},
					draw:    number().Decimals(0),
				},
				{
					title: "Worst channel's saturation", width: 4, height: 4, unit: percent,
					about: "Share of conversions at the end of the sensor's range on the channel with most; their power is a lower bound.",
					queries: []query{{
						expr:   "max(" + ofSamples("wattlet_meter_saturated_samples_total", "$__range") + ")",
						legend: "saturated", instant: true,
					}},
					draw: number().Decimals(2).Thresholds(steps("green", from(0.001, "red"))),
				},
				{
					title: "Sensor errors", width: 4, height: 4, unit: units.NoUnit,
					about:   "Conversions that meters could not read from their sensors; their time is unmeasured.",
					queries: []query{{expr: total("wattlet_meter_sensor_errors_total"), legend: "errors", instant: true}},
					draw:    number().Decimals(0).Thresholds(steps("green", from(0.5, "orange"))),
				},
			}},
			{title: "Reports", panels: []panel{
				{
					title: "Meters", width: 12, height: 8, unit: units.NoUnit,
					about:   "When reports came as often as the meter promises.",
					queries: []query{{expr: "min by (cluster, node, meter) (wattlet_meter_up{METER})", legend: meterLegend}},
					draw:    states(upOrSilent...),
				},
				{
					title: "Age of the newest reading", width: 12, height: 8, unit: units.Seconds,
					about:   "How old a meter's newest reading was when the agent was asked; power is missing once it is older than 5 s.",
					queries: []query{{expr: "max by (cluster, node, meter) (wattlet_meter_age_seconds{METER})", legend: meterLegend}},
					draw:    lines().Min(0),
				},
				{
					title: "Reports taken in", width: 8, height: 8, unit: units.CountsPerSecond,
					about: "Messages with new readings, a second.",
					queries: []query{{
						expr: "sum by (cluster, node, meter) (rate(wattlet_meter_notifications_total{METER}[$__rate_interval]))", legend: meterLegend,
					}},
					draw: lines().Min(0),
				},
				{
					title: "Lost, recovered, double", width: 8, height: 8, unit: units.CountsPerMinute,
					about: "A minute, reports that did not arrive in their turn, those of them that came late or were fetched again, and " +
						"messages dropped because they were known.",
					queries: []query{
						{expr: byMeter("wattlet_meter_lost_total"), legend: "lost " + meterLegend},
						{expr: byMeter("wattlet_meter_recovered_total"), legend: "recovered " + meterLegend},
						{expr: byMeter("wattlet_meter_duplicates_total"), legend: "double " + meterLegend},
					},
					draw: lines().DrawStyle(common.GraphDrawStyleBars).FillOpacity(60).Min(0),
				},
				{
					title: "Restarts and sessions", width: 8, height: 8, unit: units.CountsPerMinute,
					about: "Restarts of the meter that its agent saw, and sessions opened with it, a minute.",
					queries: []query{
						{expr: byMeter("wattlet_meter_restarts_total"), legend: "restarts " + meterLegend},
						{expr: byMeter("wattlet_meter_connects_total"), legend: "sessions " + meterLegend},
					},
					draw: lines().DrawStyle(common.GraphDrawStyleBars).FillOpacity(60).Min(0),
				},
			}},
			{title: "Failures", panels: []panel{
				{
					title: "Failures by kind", width: 8, height: 8, unit: units.CountsPerMinute,
					about: "What failed a minute of the way to a meter, such as its connection, key or messages; empty as long as nothing has.",
					queries: []query{{
						expr: perMinute("wattlet_meter_errors_total{METER}", "cluster, node, meter, kind"), legend: "{{kind}} " + meterLegend,
					}},
					draw: bars(),
				},
				{
					title: "Failures of sources", width: 8, height: 8, unit: units.CountsPerMinute,
					about: "Failures a minute of meters, control groups and state directory, all kinds together.",
					queries: []query{{
						expr: perMinute("wattlet_source_errors_total{NODE}", "cluster, node, source"), legend: "{{node}} {{source}} {{cluster}}",
					}},
					draw: bars(),
				},
				{
					title: "Age of the sources", width: 8, height: 8, unit: units.Seconds,
					about: "Time since a source's newest reading; an alert fires beyond 300 s.",
					queries: []query{{
						expr:   "time() - max by (cluster, node, source) (wattlet_source_last_success_timestamp_seconds{NODE})",
						legend: "{{node}} {{source}} {{cluster}}",
					}},
					draw: lines().Min(0),
				},
			}},
			{title: "Clock", panels: []panel{
				{
					title: "Drift", width: 8, height: 8, unit: units.PartsPerMillion,
					about:   "Microseconds by which a meter's clock falls behind the host's each second; crystals stay within 100.",
					queries: []query{{expr: "1e6 * avg by (cluster, node, meter) (wattlet_meter_clock_drift_ratio{METER})", legend: meterLegend}},
					draw:    lines().AxisSoftMin(-100).AxisSoftMax(100),
				},
				{
					title: "Bound of the offset's error", width: 8, height: 8, unit: units.Seconds,
					about:   "Half of the lowest round trip: the largest error of the clock's offset that a one-sided path could hide.",
					queries: []query{{expr: "max by (cluster, node, meter) (wattlet_meter_clock_offset_bound_seconds{METER})", legend: meterLegend}},
					draw:    lines().Min(0),
				},
				{
					title: "Offset", width: 8, height: 8, unit: units.Seconds,
					about:   "Host's time since boot less the meter's; a step is a restart of one of them.",
					queries: []query{{expr: "max by (cluster, node, meter) (wattlet_meter_clock_offset_seconds{METER})", legend: meterLegend}},
					draw:    lines(),
				},
			}},
			{title: "Sensors", panels: []panel{
				{
					title: "Conversions", width: 8, height: 8, unit: units.CountsPerSecond,
					about: "Conversions of each channel, a second.",
					queries: []query{{
						expr:   "sum by (cluster, node, meter, channel) (rate(wattlet_meter_samples_total{METER}[$__rate_interval]))",
						legend: channelLegend,
					}},
					draw: lines().Min(0),
				},
				{
					title: "Saturated", width: 8, height: 8, unit: percent,
					about:   "Share of conversions at the end of the sensor's range: their power is a lower bound, the shunt is too large.",
					queries: []query{{expr: ofSamples("wattlet_meter_saturated_samples_total", "$__rate_interval"), legend: channelLegend}},
					draw:    lines().Min(0),
				},
				{
					title: "Failed", width: 8, height: 8, unit: percent,
					about:   "Conversions that the meter could not read from its sensor, for each that it could.",
					queries: []query{{expr: ofSamples("wattlet_meter_sensor_errors_total", "$__rate_interval"), legend: channelLegend}},
					draw:    lines().Min(0),
				},
			}},
			{title: "What measures what", panels: []panel{
				{
					title: "Nodes and their meters", width: 24, height: 8,
					about: "Which meter and channel measure each node, whether its energy is estimated from charge, and what the meter " +
						"says of itself.",
					queries: tables(`max by (cluster, node, meter, channel, estimated, kind, identity, firmware) (
						wattlet_node_info{METER} * on (cluster, node, meter) group_left (kind, identity, firmware) wattlet_meter_info{METER})`),
					draw: grid("Node",
						column{field: "cluster", title: "Cluster"},
						nodeColumn(),
						column{field: "meter", title: "Meter"}, column{field: "channel", title: "Channel"}, column{field: "estimated", title: "Estimated"},
						column{field: "kind", title: "Kind"}, column{field: "identity", title: "Identity"}, column{field: "firmware", title: "Firmware"},
						column{field: "Value", title: "There", unit: units.NoUnit, more: []dashboard.DynamicConfigValue{{Id: "custom.hidden", Value: true}}},
					),
				},
			}},
		},
	}
}
