package exporter

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wattlet/wattlet/internal/accounting"
)

// legacyMetrics are the two series of the earlier exporter, so that its dashboards and rules live on. They have no label of
// their own: the scrape's instance names the node.
func legacyMetrics() []metric {
	return []metric{
		{
			name: "powerexporter_power_consumption_ampere_seconds_total", kind: counter,
			help: "Charge that flowed into the node, in ampere-seconds.",
			each: func(s *accounting.Snapshot, _ string, add adder) {
				if n := s.Nodes[0]; n.Known && !n.EnergyOnly {
					add(n.Charge.Coulombs())
				}
			},
		},
		{
			name: "powerexporter_current_ampere", kind: gauge,
			help: "Mean current of the last tick. Missing while no recent reading is there.",
			each: func(s *accounting.Snapshot, _ string, add adder) {
				if n := s.Nodes[0]; n.Fresh && !n.EnergyOnly {
					add(n.Current.Amperes())
				}
			},
		},
	}
}

// NewLegacyCollector returns a collector of the earlier exporter's series for the one node of the snapshots.
func NewLegacyCollector(snapshot func() *accounting.Snapshot) *Collector {
	c := &Collector{snapshot: snapshot, metrics: legacyMetrics()}
	for i := range c.metrics {
		m := &c.metrics[i]
		m.desc = prometheus.NewDesc(m.name, m.help, nil, nil)
	}
	return c
}
