package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// earlier shows boards by the names of the earlier system's exporter, which an agent also serves with --metrics.legacy. The first
// three panels are those that its users know, with the same queries.
func earlier() board {
	const charge, current = `powerexporter_power_consumption_ampere_seconds_total{instance=~"$instance"}`, `powerexporter_current_ampere{instance=~"$instance"}`
	voltage, err := dashboard.NewTextBoxVariableBuilder("voltage").Label("Supply voltage").
		Description("What the boards are supplied with, in volts: the earlier system measures charge, and energy is charge times this.").
		DefaultValue(dashboard.StringOrMap{String: new("5.1")}).
		Current(dashboard.VariableOption{Selected: new(true), Text: oneText("5.1"), Value: oneText("5.1")}).Build()
	if err != nil {
		panic(err) // nothing in it comes from outside
	}
	return board{
		uid: earlierUID, title: "Wattlet / Earlier system",
		about: "Boards by the metrics of the earlier system's exporter, or of an agent with --metrics.legacy.",
		variables: []dashboard.VariableModel{dataSource(), choice{
			name: "instance", label: "Device", metric: "powerexporter_current_ampere", of: "instance",
			about: "Devices, as Prometheus's label instance names them.",
		}.build(), voltage},
		rows: []row{
			{title: "As measured: charge and current", panels: []panel{
				{
					title: "Charge of each device", width: 8, height: 9, unit: ampereSeconds,
					about:   "Charge that flowed into each device since its total began.",
					queries: []query{{expr: "avg by (instance) (" + charge + ")", legend: "{{instance}}", instant: true}},
					draw:    ranking(),
				},
				{
					title: "Charge of the last 15 s", width: 8, height: 9, unit: ampereSeconds,
					about:   "At each moment, the charge that flowed into each device in the 15 s before.",
					queries: []query{{expr: "idelta(sum by (instance) (" + charge + ")[30m:15s]) >= 0", legend: "{{instance}}"}},
					draw:    lines().Min(0),
				},
				{
					title: "Current", width: 8, height: 9, unit: units.Ampere,
					about:   "Current into each device.",
					queries: []query{{expr: "avg by (instance) (" + current + ")", legend: "{{instance}}"}},
					draw:    lines(),
				},
			}},
			{title: "Estimated: charge times the supply voltage", panels: []panel{
				{
					title: "Energy of each device", width: 8, height: 9, unit: units.Joule,
					about: "Charge of the time range shown times the supply voltage: an estimate, for nobody measured the voltage.",
					queries: []query{{
						expr:   "sort_desc($voltage * sum by (instance) (increase(" + charge + "[$__range])))",
						legend: "{{instance}}", instant: true,
					}},
					draw: ranking(),
				},
				{
					title: "Power of each device", width: 16, height: 9, unit: units.Watt,
					about:   "Charge per time times the supply voltage: an estimate.",
					queries: []query{{expr: "$voltage * sum by (instance) (rate(" + charge + "[$__rate_interval]))", legend: "{{instance}}"}},
					draw:    legendTable(stacked()),
				},
			}},
		},
	}
}
