// Package exporter shows a snapshot to others: as Prometheus metrics, as JSON, and as health. Showing changes nothing, so
// any number of readers see the same.
package exporter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/attribution"
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

// split makes the reader of a value of the nodes whose energy is split.
func split(value func(a *accounting.Attribution) float64) func(*accounting.Snapshot, string, adder) {
	return optional(func(n *accounting.Node) bool { return n.Known && n.Attribution != nil },
		func(n *accounting.Node) float64 { return value(n.Attribution) })
}

// eachFrequency reads the clocks of the core classes.
func eachFrequency(s *accounting.Snapshot, _ string, add adder) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Attribution == nil {
			continue
		}
		for _, f := range n.Attribution.Frequencies {
			add(f.Hertz, n.Name, cmp.Or(f.Class, "cpu"))
		}
	}
}

// eachWorkload makes the reader of a value of the workloads for which there is one.
func eachWorkload(value func(w *accounting.WorkloadEnergy) float64, there func(w *accounting.WorkloadEnergy) bool) func(*accounting.Snapshot, string, adder) {
	return func(s *accounting.Snapshot, _ string, add adder) {
		for i := range s.Nodes {
			n := &s.Nodes[i]
			if n.Attribution == nil || !n.Known {
				continue
			}
			for j := range n.Attribution.Workloads {
				if w := &n.Attribution.Workloads[j]; there(w) {
					add(value(w), n.Name, w.Kind.String(), valid(w.Namespace), valid(w.Name))
				}
			}
		}
	}
}

// eachFunction makes the reader of a value that every function has.
func eachFunction(value func(f *accounting.FunctionEnergy) float64) func(*accounting.Snapshot, string, adder) {
	return func(s *accounting.Snapshot, _ string, add adder) {
		for i := range s.Nodes {
			n := &s.Nodes[i]
			if n.Attribution == nil || !n.Known {
				continue
			}
			for j := range n.Attribution.Functions {
				f := &n.Attribution.Functions[j]
				add(value(f), n.Name, valid(f.Namespace), valid(f.Name))
			}
		}
	}
}

var (
	workloadLabels = []string{"node", "kind", "namespace", "name"}
	functionLabels = []string{"node", "namespace", "function"}
	nodeLabels     = []string{"node"}
	meterLabels    = []string{"node", "meter"}
	channelLabels  = []string{"node", "meter", "channel"}
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
			name: "wattlet_node_base_joules_total", kind: counter, labels: nodeLabels,
			help: "Energy of the idle board, and what could not be given to anyone. Base, departed and all workloads' energy and cold " +
				"starts sum to wattlet_node_energy_joules_total, to the microjoule.",
			each: split(func(a *accounting.Attribution) float64 { return a.Base.Joules() }),
		},
		{
			name: "wattlet_node_unattributed_joules_total", kind: counter, labels: nodeLabels,
			help: "The part of the base that is no idle board's: energy of times for which CPU time or readings are not known.",
			each: split(func(a *accounting.Attribution) float64 { return a.Unattributed.Joules() }),
		},
		{
			name: "wattlet_node_departed_joules", kind: gauge, labels: nodeLabels,
			help: "Energy of workloads that ended more than five minutes ago and have no series of their own any more. A gauge, since " +
				"it was counted as theirs before.",
			each: split(func(a *accounting.Attribution) float64 { return a.Departed.Joules() }),
		},
		{
			name: "wattlet_node_pending_joules", kind: gauge, labels: nodeLabels,
			help: "Energy measured and not shown in any account yet, because it waits for its time to be complete, or for its workload's " +
				"name, for 15 s at most.",
			each: split(func(a *accounting.Attribution) float64 { return a.Pending.Joules() }),
		},
		{
			name: "wattlet_node_invariant_joules", kind: gauge, labels: nodeLabels,
			help: "The node's energy less base, departed and all workloads: 0, or there is a bug.",
			each: split(func(a *accounting.Attribution) float64 { return a.Invariant.Joules() }),
		},
		{
			name: "wattlet_workload_energy_joules_total", kind: counter, labels: workloadLabels,
			help: "Active energy of a workload: what the node drew more because it ran. Kind is function, pod, system or agent.",
			each: eachWorkload(func(w *accounting.WorkloadEnergy) float64 { return w.Energy.Joules() }, func(*accounting.WorkloadEnergy) bool { return true }),
		},
		{
			name: "wattlet_workload_coldstart_joules_total", kind: counter, labels: workloadLabels,
			help: "Energy of the workload's cold starts, with what container runtime and kubelet used for them beyond their usual. " +
				"Not contained in its active energy; only for workloads that were seen to start.",
			each: eachWorkload(func(w *accounting.WorkloadEnergy) float64 { return w.ColdStart.Joules() },
				func(w *accounting.WorkloadEnergy) bool { return w.ColdStart > 0 }),
		},
		{
			name: "wattlet_workload_energy_stddev_joules", kind: gauge, labels: workloadLabels,
			help: "Standard deviation of the workload's energy since the agent's start, random and systematic parts together.",
			each: eachWorkload(func(w *accounting.WorkloadEnergy) float64 { return w.StdDev }, func(*accounting.WorkloadEnergy) bool { return true }),
		},
		{
			name: "wattlet_function_energy_joules_total", kind: counter, labels: functionLabels,
			help: "Active energy of all workloads that serve the function.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return f.Energy.Joules() }),
		},
		{
			name: "wattlet_function_energy_stddev_joules", kind: gauge, labels: functionLabels,
			help: "Standard deviation of the function's energy since the agent's start, random and systematic parts together.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return f.StdDev }),
		},
		{
			name: "wattlet_function_coldstart_joules_total", kind: counter, labels: functionLabels,
			help: "Energy of the function's cold starts; not contained in its active energy.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return f.ColdStart.Joules() }),
		},
		{
			name: "wattlet_function_cold_starts_total", kind: counter, labels: functionLabels,
			help: "Cold starts seen.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return float64(f.ColdStarts) }),
		},
		{
			name: "wattlet_function_base_share_joules_total", kind: counter, labels: append(slices.Clone(functionLabels), "policy"),
			help: "Share of the base under a policy: equal among active functions, proportional to active energy, or by requested " +
				"CPU. Views of the same base, never to be added up over policies.",
			each: func(s *accounting.Snapshot, _ string, add adder) {
				for i := range s.Nodes {
					n := &s.Nodes[i]
					if n.Attribution == nil || !n.Known {
						continue
					}
					for j := range n.Attribution.Functions {
						f := &n.Attribution.Functions[j]
						for _, p := range attribution.Policies {
							if p != attribution.Requested || f.Requested {
								add(f.Shares[p].Joules(), n.Name, valid(f.Namespace), valid(f.Name), p.String())
							}
						}
					}
				}
			},
		},
		{
			name: "wattlet_function_invocations_total", kind: counter, labels: functionLabels,
			help: "Completed invocations, as the function's watchdogs count them, or the gateway for functions without one.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return f.Invocations }),
		},
		{
			name: "wattlet_function_joules_per_invocation", kind: gauge, labels: append(slices.Clone(functionLabels), "bound"),
			help: "Mean active energy of an invocation since the agent's start, and the bounds of its 95 % interval: mean, low, high. " +
				"Bounds are missing while there are too few invocations to tell.",
			each: func(s *accounting.Snapshot, _ string, add adder) {
				for i := range s.Nodes {
					n := &s.Nodes[i]
					if n.Attribution == nil || !n.Known {
						continue
					}
					for j := range n.Attribution.Functions {
						f := &n.Attribution.Functions[j]
						if f.Measured {
							add(f.Mean, n.Name, valid(f.Namespace), valid(f.Name), "mean")
						}
						if f.Interval {
							add(f.Low, n.Name, valid(f.Namespace), valid(f.Name), "low")
							add(f.High, n.Name, valid(f.Namespace), valid(f.Name), "high")
						}
					}
				}
			},
		},
		{
			name: "wattlet_function_overhead_joules_total", kind: counter, labels: functionLabels,
			help: "The part of the function's active energy that was used while no request was served: polling, garbage collection.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return f.Overhead }),
		},
		{
			name: "wattlet_function_watts_per_core", kind: gauge, labels: functionLabels,
			help: "The model's power per weighted busy core of the function.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return f.WattsPerCore }),
		},
		{
			name: "wattlet_function_prior_dominated", kind: gauge, labels: functionLabels,
			help: "1 while the data say less about the function than was assumed at first.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return boolean(f.PriorDominated) }),
		},
		{
			name: "wattlet_function_collinear", kind: gauge, labels: functionLabels,
			help: "1 while the function cannot be told from another that runs whenever it runs; their sum is known better than each.",
			each: eachFunction(func(f *accounting.FunctionEnergy) float64 { return boolean(f.Collinear) }),
		},
		{
			name: "wattlet_node_cpu_frequency_hertz", kind: gauge, labels: []string{"node", "class"},
			help: "Mean clock of the cores of a class in the last tick, idle time included; class is cpu where all cores are alike. " +
				"Missing where the kernel does not tell (cpufreq statistics).",
			each: eachFrequency,
		},
		{
			name: "wattlet_model_base_watts", kind: gauge, labels: nodeLabels,
			help: "Power of the idle board, as learnt.",
			each: split(func(a *accounting.Attribution) float64 { return a.Model.Base }),
		},
		{
			name: "wattlet_model_base_stddev_watts", kind: gauge, labels: nodeLabels,
			help: "Standard deviation of the base power.",
			each: split(func(a *accounting.Attribution) float64 { return a.Model.BaseStdDev }),
		},
		{
			name: "wattlet_model_core_watts", kind: gauge, labels: nodeLabels,
			help: "Mean power per weighted busy core, as learnt.",
			each: split(func(a *accounting.Attribution) float64 { return a.Model.WattsPerCore }),
		},
		{
			name: "wattlet_model_core_stddev_watts", kind: gauge, labels: nodeLabels,
			help: "Standard deviation of the power per weighted busy core.",
			each: split(func(a *accounting.Attribution) float64 { return a.Model.WattsPerCoreStdDev }),
		},
		{
			name: "wattlet_model_innovation_sigmas", kind: gauge, labels: nodeLabels,
			help: "Error of the last prediction over its standard deviation; beyond 4 it counts as an outlier.",
			each: split(func(a *accounting.Attribution) float64 { return a.Model.Innovation }),
		},
		{
			name: "wattlet_model_changes_total", kind: counter, labels: nodeLabels,
			help: "Changes of the board that were found without being announced.",
			each: split(func(a *accounting.Attribution) float64 { return float64(a.Model.Changes) }),
		},
		{
			name: "wattlet_model_rejected_intervals_total", kind: counter, labels: []string{"node", "reason"},
			help: "Intervals from which nothing could be learnt, and whose energy went to the base: cpu, length, weight.",
			each: func(s *accounting.Snapshot, _ string, add adder) {
				for i := range s.Nodes {
					if a := s.Nodes[i].Attribution; a != nil {
						for _, reason := range slices.Sorted(maps.Keys(a.Model.Rejected)) {
							add(float64(a.Model.Rejected[reason]), s.Nodes[i].Name, reason)
						}
					}
				}
			},
		},
		{
			name: "wattlet_model_lag_seconds", kind: gauge, labels: nodeLabels,
			help: "Time by which measured power is late against CPU time.",
			each: split(func(a *accounting.Attribution) float64 { return a.Lag.Lag.Seconds() }),
		},
		{
			name: "wattlet_model_lag_confidence_ratio", kind: gauge, labels: nodeLabels,
			help: "Correlation of power and CPU time at that lag; 0 until it was found.",
			each: split(func(a *accounting.Attribution) float64 { return a.Lag.Peak }),
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
			help: "Failures of a source, all kinds together; a source is a meter, the control groups (cgroup), " +
				"the names of pods (kube), the gateway (gateway) or the state directory (state).",
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
				if !s.Sampled.IsZero() {
					add(float64(s.Sampled.UnixMilli())/1000, self, "cgroup")
				}
				for _, k := range slices.Sorted(maps.Keys(s.Reached)) {
					add(float64(s.Reached[k].UnixMilli())/1000, self, k)
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
	// histogram describes the only family that is not one value per series; nil where it is not given.
	histogram *prometheus.Desc
}

// NewCollector returns a collector of the snapshots that snapshot gives; self is the node the agent runs on.
func NewCollector(snapshot func() *accounting.Snapshot, self string) *Collector {
	c := &Collector{snapshot: snapshot, self: self, metrics: metrics()}
	for i := range c.metrics {
		m := &c.metrics[i]
		m.desc = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	c.histogram = prometheus.NewDesc(histogramName, histogramHelp, functionLabels, nil)
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
	if c.histogram != nil {
		ch <- c.histogram
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
	if c.histogram != nil {
		c.histograms(s, ch)
	}
}

const (
	histogramName = "wattlet_function_invocation_energy_joules"
	histogramHelp = "Energy of invocations: each counts with the mean of the time from one instant without requests to the next. A native " +
		"histogram, whose buckets grow by 9 %."
)

// histograms adds the energies of invocations.
func (c *Collector) histograms(s *accounting.Snapshot, ch chan<- prometheus.Metric) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Attribution == nil || !n.Known {
			continue
		}
		for j := range n.Attribution.Functions {
			f := &n.Attribution.Functions[j]
			if f.Histogram.Count == 0 {
				continue
			}
			h, err := prometheus.NewConstNativeHistogram(c.histogram, f.Histogram.Count, f.Histogram.Sum, f.Histogram.Buckets, nil, f.Histogram.Zero,
				accounting.HistogramSchema, 0, s.Time, n.Name, valid(f.Namespace), valid(f.Name))
			if err != nil {
				h = prometheus.NewInvalidMetric(c.histogram, err)
			}
			ch <- h
		}
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
	fmt.Fprintf(&b, "| `%s` | native histogram | `%s` | %s |\n", histogramName, strings.Join(functionLabels, "`, `"), histogramHelp)
	b.WriteString("| `wattlet_build_info` | gauge | `node`, `version`, `goversion` | 1; what runs. |\n" +
		"| `process_*` | | | CPU, memory and file descriptors of the agent, as of every Prometheus client. |\n\n" +
		"With `--metrics.legacy` (one node only), under the names of the earlier exporter and without labels of their own:\n\n" +
		"| metric | type | meaning |\n|---|---|---|\n")
	for _, m := range legacyMetrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, map[bool]string{true: "counter", false: "gauge"}[m.kind == counter], m.help)
	}
	b.WriteString("\nWith `--push.url` also `wattlet_push_…`: [agent.md](agent.md#pushing).\n")
	return b.String()
}
