// Package exporter shows a snapshot to others: as Prometheus metrics, as JSON, and as health. Showing changes nothing, so
// any number of readers see the same.
package exporter

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wattlet/wattlet/internal/accounting"
)

// metric is one family: what docs/metrics.md says of it and how it is read off a snapshot.
type metric struct {
	name   string
	kind   prometheus.ValueType
	help   string
	labels []string
	// each calls add for every series there is in s.
	each func(s *accounting.Snapshot, self string, add func(value float64, labels ...string))
	desc *prometheus.Desc
}

// adder adds one series.
type adder = func(value float64, labels ...string)

// optional makes the reader of a value that the nodes for which there is one have.
func optional(there func(n *accounting.Node) bool, value func(n *accounting.Node) float64) func(*accounting.Snapshot, string, adder) {
	return func(s *accounting.Snapshot, _ string, add adder) {
		for i := range s.Nodes {
			if n := &s.Nodes[i]; there(n) {
				add(value(n), n.Name)
			}
		}
	}
}

// node is optional for totals, which every node has once they are known.
func node(value func(n *accounting.Node) float64) func(*accounting.Snapshot, string, adder) {
	return optional(func(n *accounting.Node) bool { return n.Known }, value)
}

// fresh is optional for values that only a recent reading gives: an old one is left out, never repeated.
func fresh(value func(n *accounting.Node) float64) func(*accounting.Snapshot, string, adder) {
	return optional(func(n *accounting.Node) bool { return n.Fresh }, value)
}

// channel is node for values of the meter's channel.
func channel(value func(n *accounting.Node) float64) func(*accounting.Snapshot, string, adder) {
	return func(s *accounting.Snapshot, _ string, add adder) {
		for i := range s.Nodes {
			if n := &s.Nodes[i]; n.Known {
				add(value(n), n.Name, n.Meter, strconv.Itoa(n.Channel))
			}
		}
	}
}

// meter makes the reader of a value that every meter has.
func meter(value func(m *accounting.Source) float64) func(*accounting.Snapshot, string, adder) {
	return func(s *accounting.Snapshot, self string, add adder) {
		for i := range s.Meters {
			add(value(&s.Meters[i]), self, s.Meters[i].Name)
		}
	}
}

// timed is meter for values that exist only once the clocks were compared.
func timed(value func(m *accounting.Source) float64) func(*accounting.Snapshot, string, adder) {
	return func(s *accounting.Snapshot, self string, add adder) {
		for i := range s.Meters {
			if s.Meters[i].Clock.Valid {
				add(value(&s.Meters[i]), self, s.Meters[i].Name)
			}
		}
	}
}

var (
	nodeLabels    = []string{"node"}
	meterLabels   = []string{"node", "meter"}
	channelLabels = []string{"node", "meter", "channel"}
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// metrics is every family of the agent but build and process information, in the order of docs/metrics.md.
func metrics() []metric {
	return []metric{
		{
			name: "wattlet_node_energy_joules_total", kind: counter, labels: nodeLabels,
			help: "Energy of the node measured at its supply. It is the high-water mark of the signed sum. " +
				"rate() of it is the node's power in watts.",
			each: node(func(n *accounting.Node) float64 { return n.Energy.Joules() }),
		},
		{
			name: "wattlet_node_charge_coulombs_total", kind: counter, labels: nodeLabels,
			help: "Charge that flowed into the node (1 C = 1 A·s), counted as the energy is. Missing where nobody measures it.",
			each: optional(func(n *accounting.Node) bool { return n.Known && !n.EnergyOnly },
				func(n *accounting.Node) float64 { return n.Charge.Coulombs() }),
		},
		{
			name: "wattlet_node_power_watts", kind: gauge, labels: nodeLabels,
			help: "Mean power of the last tick. Missing while no recent reading is there.",
			each: fresh(func(n *accounting.Node) float64 { return n.Power.Watts() }),
		},
		{
			name: "wattlet_node_current_amperes", kind: gauge, labels: nodeLabels,
			help: "Mean current of the last tick. Missing while no recent reading is there, and where nobody measures it.",
			each: optional(func(n *accounting.Node) bool { return n.Fresh && !n.EnergyOnly },
				func(n *accounting.Node) float64 { return n.Current.Amperes() }),
		},
		{
			name: "wattlet_node_voltage_volts", kind: gauge, labels: nodeLabels,
			help: "Mean supply voltage of the meter's last report. Missing while no recent reading is there, and where nobody " +
				"measures it.",
			each: optional(func(n *accounting.Node) bool { return n.Fresh && !n.Estimated && !n.EnergyOnly },
				func(n *accounting.Node) float64 { return n.Voltage.Volts() }),
		},
		{
			name: "wattlet_node_unmeasured_seconds_total", kind: counter, labels: nodeLabels,
			help: "Time in which nobody measured the node: before the first reading, while a meter restarted, and conversions " +
				"that failed. Its energy is in no other metric. A silence is settled when the meter is heard again.",
			each: node(func(n *accounting.Node) float64 { return n.Unmeasured.Seconds() }),
		},
		{
			name: "wattlet_node_info", kind: gauge, labels: []string{"node", "meter", "channel", "estimated"},
			help: "1 for each node; the meter and channel that measure it, and whether energy is estimated from charge and an " +
				"assumed supply voltage.",
			each: func(s *accounting.Snapshot, _ string, add adder) {
				for i := range s.Nodes {
					n := &s.Nodes[i]
					add(1, n.Name, n.Meter, strconv.Itoa(n.Channel), strconv.FormatBool(n.Estimated))
				}
			},
		},
		{
			name: "wattlet_meter_up", kind: gauge, labels: meterLabels,
			help: "1 while reports arrive as often as the meter promises, else 0.",
			each: meter(func(m *accounting.Source) float64 { return boolean(m.Up) }),
		},
		{
			name: "wattlet_meter_age_seconds", kind: gauge, labels: meterLabels,
			help: "Age of the meter's newest reading. Missing before the first.",
			each: func(s *accounting.Snapshot, self string, add adder) {
				for i := range s.Meters {
					if m := &s.Meters[i]; !m.LastSuccess.IsZero() {
						add(max(s.Time.Sub(m.LastSuccess).Seconds(), 0), self, m.Name)
					}
				}
			},
		},
		{
			name: "wattlet_meter_notifications_total", kind: counter, labels: meterLabels,
			help: "Messages with new readings taken in.",
			each: meter(func(m *accounting.Source) float64 { return float64(m.Notifications) }),
		},
		{
			name: "wattlet_meter_duplicates_total", kind: counter, labels: meterLabels,
			help: "Messages dropped because they were known or older than what was known.",
			each: meter(func(m *accounting.Source) float64 { return float64(m.Duplicates) }),
		},
		{
			name: "wattlet_meter_lost_total", kind: counter, labels: meterLabels,
			help: "Reports that did not arrive in their turn. They cost time resolution, no energy.",
			each: meter(func(m *accounting.Source) float64 { return float64(m.Lost) }),
		},
		{
			name: "wattlet_meter_recovered_total", kind: counter, labels: meterLabels,
			help: "Lost reports whose samples arrived late or were fetched again.",
			each: meter(func(m *accounting.Source) float64 { return float64(m.Recovered) }),
		},
		{
			name: "wattlet_meter_restarts_total", kind: counter, labels: meterLabels,
			help: "Restarts of the meter seen by this agent.",
			each: meter(func(m *accounting.Source) float64 { return float64(m.Restarts) }),
		},
		{
			name: "wattlet_meter_connects_total", kind: counter, labels: meterLabels,
			help: "Sessions opened with the meter.",
			each: meter(func(m *accounting.Source) float64 { return float64(m.Connects) }),
		},
		{
			name: "wattlet_meter_errors_total", kind: counter, labels: append(slices.Clone(meterLabels), "kind"),
			help: "Failures by what failed: connect, key, refused, silence, decode, revision, time, samples; of sysfs read, parse, " +
				"counter; of boards with the earlier firmware resolve, request, read, decode, foreign, strange.",
			each: func(s *accounting.Snapshot, self string, add adder) {
				for i := range s.Meters {
					m := &s.Meters[i]
					for _, k := range slices.Sorted(maps.Keys(m.Errors)) {
						add(float64(m.Errors[k]), self, m.Name, k)
					}
				}
			},
		},
		{
			name: "wattlet_meter_clock_offset_seconds", kind: gauge, labels: meterLabels,
			help: "Host's time since boot less the meter's, by the lowest-round-trip line fit.",
			each: timed(func(m *accounting.Source) float64 { return m.Clock.Offset.Seconds() }),
		},
		{
			name: "wattlet_meter_clock_offset_bound_seconds", kind: gauge, labels: meterLabels,
			help: "Half of the lowest round trip: the largest error of the offset that a one-sided path could hide.",
			each: timed(func(m *accounting.Source) float64 { return m.Clock.Bound.Seconds() }),
		},
		{
			name: "wattlet_meter_clock_drift_ratio", kind: gauge, labels: meterLabels,
			help: "Seconds the meter's clock falls behind the host's per second; within 0.0001 for crystals.",
			each: timed(func(m *accounting.Source) float64 { return m.Clock.DriftPPM / 1e6 }),
		},
		{
			name: "wattlet_meter_samples_total", kind: counter, labels: channelLabels,
			help: "Conversions of the node's channel.",
			each: channel(func(n *accounting.Node) float64 { return float64(n.Samples) }),
		},
		{
			name: "wattlet_meter_saturated_samples_total", kind: counter, labels: channelLabels,
			help: "Conversions at the end of the sensor's range: their power is a lower bound, the shunt is too large.",
			each: channel(func(n *accounting.Node) float64 { return float64(n.Saturated) }),
		},
		{
			name: "wattlet_meter_sensor_errors_total", kind: counter, labels: channelLabels,
			help: "Conversions that the meter could not read from its sensor.",
			each: channel(func(n *accounting.Node) float64 { return float64(n.SensorErrors) }),
		},
		{
			name: "wattlet_meter_info", kind: gauge, labels: []string{"node", "meter", "kind", "identity", "firmware"},
			help: "1 for each meter; its kind (meter, sysfs, legacy) and what it says of itself.",
			each: func(s *accounting.Snapshot, self string, add adder) {
				for i := range s.Meters {
					m := &s.Meters[i]
					add(1, self, m.Name, m.Kind, valid(m.Identity), valid(m.Firmware))
				}
			},
		},
		{
			name: "wattlet_source_errors_total", kind: counter, labels: []string{"node", "source"},
			help: "Failures of a source, all kinds together; a source is a meter or the state directory.",
			each: func(s *accounting.Snapshot, self string, add adder) {
				for i := range s.Meters {
					sum := uint64(0)
					for _, n := range s.Meters[i].Errors {
						sum += n
					}
					add(float64(sum), self, s.Meters[i].Name)
				}
				for _, k := range slices.Sorted(maps.Keys(s.Errors)) {
					add(float64(s.Errors[k]), self, k)
				}
			},
		},
		{
			name: "wattlet_source_last_success_timestamp_seconds", kind: gauge, labels: []string{"node", "source"},
			help: "Unix time of the source's newest reading.",
			each: func(s *accounting.Snapshot, self string, add adder) {
				for i := range s.Meters {
					if m := &s.Meters[i]; !m.LastSuccess.IsZero() {
						add(float64(m.LastSuccess.UnixMilli())/1000, self, m.Name)
					}
				}
			},
		},
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// valid makes text from a meter fit for a label value, which must be UTF-8.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Collector turns the newest snapshot into metrics at each scrape.
type Collector struct {
	snapshot func() *accounting.Snapshot
	self     string
	metrics  []metric
}

// NewCollector returns a collector of the snapshots that snapshot gives; self is the node the agent runs on.
func NewCollector(snapshot func() *accounting.Snapshot, self string) *Collector {
	c := &Collector{snapshot: snapshot, self: self, metrics: metrics()}
	for i := range c.metrics {
		m := &c.metrics[i]
		m.desc = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	for _, m := range c.metrics {
		m.each(s, c.self, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		})
	}
}

// Docs is the text of docs/metrics.md.
func Docs() string {
	var b strings.Builder
	b.WriteString("# Metrics\n\nGenerated from `internal/exporter`; `make docs` writes it anew and `make test` fails if it differs.\n\n" +
		"Base units, one name per thing measured: `sum()` over any label is meaningful. `node` is a label of every series: the node\n" +
		"measured, or for series about a meter or source the node the agent runs on. Counters of a node go on over restarts of\n" +
		"agent and meter; where they cannot, they begin at zero again, which every reader of counters understands.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range metrics() {
		kind := "gauge"
		if m.kind == counter {
			kind = "counter"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", m.name, kind, strings.Join(m.labels, "`, `"), m.help)
	}
	b.WriteString("| `wattlet_build_info` | gauge | `node`, `version`, `goversion` | 1; what runs. |\n" +
		"| `process_*` | | | CPU, memory and file descriptors of the agent, as of every Prometheus client. |\n\n" +
		"With `--metrics.legacy` (one node only), under the names of the earlier exporter and without labels of their own:\n\n" +
		"| metric | type | meaning |\n|---|---|---|\n")
	for _, m := range legacyMetrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, map[bool]string{true: "counter", false: "gauge"}[m.kind == counter], m.help)
	}
	return b.String()
}
