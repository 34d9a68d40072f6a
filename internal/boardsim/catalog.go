package boardsim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// OperatingPoint is a frequency and the voltage that goes with it.
type OperatingPoint struct {
	KHz, Microvolt int64
}

// Class is a cluster of equal cores with one clock and one voltage. Powers are in watts behind the regulators, at the highest
// operating point and 50 °C.
type Class struct {
	// Name is empty on boards with one class, otherwise "little" or "big".
	Name  string
	Cores int
	// Points rise by frequency.
	Points []OperatingPoint
	// Speed is the work done per clock cycle, relative to a Cortex-A15.
	Speed float64
	// Core is drawn by one busy core with intensity 1, Cluster once while any core is busy (shared cache, interconnect), Clock
	// by the idle clock tree. All three go with V²f.
	Core, Cluster, Clock float64
	// Leak is the leakage, which rises e-fold per 0.25 V and per 67 K.
	Leak float64
}

// Fan is switched by temperature with hysteresis. A zero Power is no fan.
type Fan struct {
	// Power is at the supply, in watts.
	Power float64
	// On and Off are in °C.
	On, Off float64
	// Resistance replaces the thermal resistance while the fan turns, in K/W.
	Resistance float64
}

// Version of the control group hierarchy and driver of the kubelet, which decide the paths.
const (
	Systemd  = "systemd"
	Cgroupfs = "cgroupfs"
)

// Hierarchy says how control groups are mounted and named.
type Hierarchy struct {
	// Version is 1 or 2.
	Version int
	// Driver is Systemd or Cgroupfs.
	Driver string
}

// Published are measurements of a real board at its supply, in watts, which the model is checked against.
type Published struct {
	// Idle is with the default governor and the fan off, Peak with a stress process on every core of the fastest class.
	Idle, Peak float64
	Source     string
}

// Spec is what makes a board: its processors and its physics.
type Spec struct {
	Model   string
	Classes []Class
	// Board is drawn whatever happens, in watts at the supply: regulators, wired LAN, memory that refreshes.
	Board float64
	// Memory is drawn behind the regulators while one core does nothing but wait for memory.
	Memory float64
	// The regulators lose Loss + LossPerWatt·P of a power P behind them.
	Loss, LossPerWatt float64
	// Ambient is in °C, Resistance in K/W of power behind the regulators, ThermalSeconds the time constant.
	Ambient, Resistance, ThermalSeconds float64
	Fan                                 Fan
	// Wander is the standard deviation of the board's own power, in watts, with a correlation time of 5 s.
	Wander float64
	// HZ is the scheduler's tick rate.
	HZ int
	// Governor is what the vendor's system begins with.
	Governor  string
	Hierarchy Hierarchy
	Published Published
}

// Cores is the number of all cores.
func (s *Spec) Cores() (n int) {
	for _, c := range s.Classes {
		n += c.Cores
	}
	return n
}

func mhz(f, microvolt int64) OperatingPoint { return OperatingPoint{f * 1000, microvolt} }

// ramp returns operating points from one frequency to another in steps of 100 MHz whose voltage is low up to a knee and then
// rises to high: evenly if bend is 1, later if it is more.
func ramp(fromMHz, kneeMHz, toMHz, low, high int64, bend float64) (points []OperatingPoint) {
	for f := fromMHz; f <= toMHz; f += 100 {
		x := float64(max(0, f-kneeMHz)) / float64(toMHz-kneeMHz)
		points = append(points, mhz(f, low+int64(float64(high-low)*math.Pow(x, bend))))
	}
	return points
}

// Catalog returns the boards that can be simulated, by the name to give New.
//
// Operating points are those of the kernel's device trees (bcm2837, bcm2711, tegra210, imx8mq, zynq-7000), for the Pis with
// the voltages that sbc-bench's result lists show (github.com/ThomasKaiser/sbc-bench), for the Tegra X1 those that
// Power_Modeling_ARM_A57 measured on its rail. The Exynos 5422 runs lower and smoother than its device tree says: XU3 sensors
// read 0.911-1.319 V (A15) and 0.921-1.258 V (A7). How the watts divide between core, cluster, clock and leakage follows, for
// the XU4, from its idle power at five frequencies and its load with one to four workers, and is assumed in proportion for the
// others; thermal values are assumed throughout, and so is all of PYNQ-Z1's power. The XU4's fan switches at temperatures of a
// model with one mass, chosen so that it runs as much as in E0240_ModSim-PowerMon's energies against frequency; they are not the
// hot spot's that the real one follows.
func Catalog() map[string]Spec {
	v1 := Hierarchy{1, Cgroupfs}
	v2 := Hierarchy{2, Systemd}
	xu4 := Spec{
		Model: "Hardkernel Odroid-XU4",
		Classes: []Class{
			{
				Name: "little", Cores: 4, Points: ramp(200, 300, 1400, 921_000, 1_258_000, 1), Speed: 0.42,
				Core: 0.14, Cluster: 0.06, Clock: 0.08, Leak: 0.05,
			},
			{
				Name: "big", Cores: 4, Points: ramp(200, 1200, 2000, 900_000, 1_310_000, 1.4), Speed: 1,
				Core: 0.83, Cluster: 0.52, Clock: 0.35, Leak: 0.37,
			},
		},
		Board: 2.03, Memory: 0.6, Loss: 0.05, LossPerWatt: 0.012,
		Ambient: 28, Resistance: 18, ThermalSeconds: 25,
		Fan:    Fan{Power: 0.45, On: 40, Off: 37.5, Resistance: 7},
		Wander: 0.006, HZ: 250, Governor: Ondemand, Hierarchy: v1,
		Published: Published{2.10, 7.62, "E0240_ModSim-PowerMon, fan off, A15 at 0.2 GHz; stress with 4 workers at 2.0 GHz"},
	}
	return map[string]Spec{
		"raspberrypi-3b": {
			Model: "Raspberry Pi 3 Model B Rev 1.2",
			Classes: []Class{{
				Cores: 4, Points: []OperatingPoint{
					mhz(600, 1_200_000), mhz(700, 1_318_800), mhz(800, 1_318_800), mhz(900, 1_318_800), mhz(1000, 1_318_800),
					mhz(1100, 1_318_800), mhz(1200, 1_318_800),
				},
				Speed: 0.5, Core: 0.63, Cluster: 0.15, Clock: 0.12, Leak: 0.10,
			}},
			Board: 1.425, Memory: 0.15, Loss: 0.06, LossPerWatt: 0.015,
			Ambient: 26, Resistance: 12, ThermalSeconds: 60, Wander: 0.008, HZ: 250, Governor: Ondemand, Hierarchy: v2,
			Published: Published{1.52, 4.61, "PowerJoular, 3B rev 1.2"},
		},
		"raspberrypi-4": {
			Model: "Raspberry Pi 4 Model B Rev 1.1",
			Classes: []Class{{
				Cores: 4, Points: []OperatingPoint{
					mhz(600, 843_800), mhz(700, 843_800), mhz(800, 843_800), mhz(900, 843_800), mhz(1000, 843_800), mhz(1100, 843_800),
					mhz(1200, 843_800), mhz(1300, 843_800), mhz(1400, 843_800), mhz(1500, 843_800),
				},
				Speed: 0.95, Core: 0.52, Cluster: 0.22, Clock: 0.15, Leak: 0.20,
			}},
			Board: 2.435, Memory: 0.3, Loss: 0.06, LossPerWatt: 0.015,
			Ambient: 26, Resistance: 10, ThermalSeconds: 60, Wander: 0.003, HZ: 250, Governor: Ondemand, Hierarchy: v2,
			Published: Published{2.65, 5.38, "deepedgebench, with LAN; the highest seen"},
		},
		"jetson-nano": {
			Model: "NVIDIA Jetson Nano Developer Kit",
			Classes: []Class{{
				Cores: 4, Points: []OperatingPoint{
					mhz(102, 842_000), mhz(204, 842_000), mhz(307, 842_000), mhz(403, 842_000), mhz(518, 880_000), mhz(614, 919_000),
					mhz(710, 919_000), mhz(825, 976_000), mhz(921, 1_015_000), mhz(1036, 1_053_000), mhz(1132, 1_072_000),
					mhz(1224, 1_072_000), mhz(1326, 1_111_000), mhz(1428, 1_130_000), mhz(1479, 1_130_000),
				},
				Speed: 0.88, Core: 0.65, Cluster: 0.95, Clock: 0.10, Leak: 0.08,
			}},
			Board: 1.08, Memory: 0.4, Loss: 0.06, LossPerWatt: 0.018,
			Ambient: 28, Resistance: 6, ThermalSeconds: 120, Wander: 0.02, HZ: 250, Governor: Schedutil, Hierarchy: v1,
			Published: Published{1.10, 5.3, "deepedgebench, with LAN, median; TensorFlow on the CPU, median"},
		},
		"coral": {
			Model: "Google Coral Dev Board",
			Classes: []Class{{
				Cores: 4, Points: []OperatingPoint{mhz(500, 900_000), mhz(1000, 900_000), mhz(1500, 1_000_000)},
				Speed: 0.5, Core: 0.33, Cluster: 0.20, Clock: 0.10, Leak: 0.12,
			}},
			Board: 2.985, Memory: 0.2, Loss: 0.06, LossPerWatt: 0.02,
			Ambient: 28, Resistance: 10, ThermalSeconds: 60, Wander: 0.015, HZ: 250, Governor: Schedutil, Hierarchy: v2,
			Published: Published{3.07, 4.91, "deepedgebench, with LAN; TensorFlow on the CPU, median"},
		},
		"pynq-z1": {
			Model: "Digilent PYNQ-Z1",
			Classes: []Class{{
				Cores: 2, Points: []OperatingPoint{mhz(325, 1_000_000), mhz(650, 1_000_000)},
				Speed: 0.55, Core: 0.29, Cluster: 0.06, Clock: 0.05, Leak: 0.06,
			}},
			Board: 1.80, Memory: 0.1, Loss: 0.06, LossPerWatt: 0.02,
			Ambient: 28, Resistance: 8, ThermalSeconds: 60, Wander: 0.005, HZ: 100, Governor: Performance, Hierarchy: v2,
			Published: Published{1.9, 2.6, "assumed, with LAN"},
		},
		"odroid-xu4": xu4,
	}
}

// FindSpec returns a board of the catalog; its error lists the names.
func FindSpec(name string) (Spec, error) {
	all := Catalog()
	if s, ok := all[name]; ok {
		return s, nil
	}
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	return Spec{}, fmt.Errorf("board %q is none of %v", name, names)
}

// check refuses what the simulation cannot run on.
func (s *Spec) check() error {
	if len(s.Classes) == 0 || s.HZ < 1 || s.HZ > 1000 || s.ThermalSeconds <= 0 {
		return fmt.Errorf("board %q: needs classes, a tick rate of 1 to 1000 Hz and a thermal time constant", s.Model)
	}
	for _, c := range s.Classes {
		byFrequency := func(a, b OperatingPoint) int { return cmp.Compare(a.KHz, b.KHz) }
		if c.Cores < 1 || c.Speed <= 0 || len(c.Points) == 0 || !slices.IsSortedFunc(c.Points, byFrequency) || c.Points[0].KHz <= 0 {
			return fmt.Errorf("board %q, class %q: needs cores, a speed and rising operating points", s.Model, c.Name)
		}
	}
	return s.Hierarchy.check()
}

func (h Hierarchy) check() error {
	if h.Version < 1 || h.Version > 2 || h.Driver != Systemd && h.Driver != Cgroupfs {
		return fmt.Errorf("hierarchy must be version 1 or 2 with driver systemd or cgroupfs, not %+v", h)
	}
	return nil
}
