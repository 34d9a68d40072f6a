package sysfsmeter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// wholeBoard are the names NVIDIA gives the rail that feeds all others.
var wholeBoard = []string{"POM_5V_IN", "VDD_IN"}

func railRank(label string) int {
	if slices.Contains(wholeBoard, label) {
		return rankPlatform
	}
	return rankRail
}

// powerChips are the single-rail monitors that count as a board's meter without being asked for. Processors, graphics and
// disks have hwmon power sensors too, but those see only themselves. The value is true where the chip's power register is
// finer than current times voltage: those of the INA219 and INA226 have steps of 20 and 25 times the current's, and no sign
// (power_lsb in drivers/hwmon/ina2xx.c).
var powerChips = map[string]bool{
	"ina219": false, "ina220": false, "ina226": false, "ina230": false, "ina231": false, "ina234": false, "ina260": false,
	"ina228": true, "ina237": true, "ina238": true, "ina780": true, "sq52206": true,
}

// hwmonUnits reads class/hwmon (Documentation/hwmon/sysfs-interface.rst). The numbers of hwmonN change between boots, so
// chips go by name and by the address of the device behind them.
func hwmonUnits(t tree) (units []unit) {
	for _, h := range t.list("class/hwmon") {
		dir := "class/hwmon/" + h
		name, err := t.text(dir + "/name")
		if err != nil {
			continue
		}
		u := unit{kind: "hwmon", name: name, addr: t.base(dir+"/device", 0), path: dir}
		if u.addr == "" {
			u.addr = name
		}
		if name == "ina3221" {
			units = append(units, ina3221Units(t, u)...)
		} else if u, ok := powerChip(t, u); ok {
			units = append(units, u)
		}
	}
	return units
}

// ina3221Units returns the three channels of an INA3221 (Documentation/hwmon/ina3221.rst). There is no power attribute, and
// currN_input has whole milliamperes, so current comes from the shunt: in4..6_input in steps of 40 µV.
func ina3221Units(t tree, chip unit) (units []unit) {
	for n := 1; n <= 3; n++ {
		u := chip
		attr := func(prefix string, n int, suffix string) string {
			return u.path + "/" + prefix + strconv.Itoa(n) + suffix
		}
		bus := attr("in", n, "_input")
		if !t.has(bus) {
			continue
		}
		u.number = strconv.Itoa(n)
		u.rail, _ = t.text(attr("in", n, "_label"))
		u.rank = railRank(u.rail)
		on, err := t.text(attr("in", n, "_enable"))
		if err != nil {
			_, err = t.text(bus) // a kernel without the switch
		}
		if on == "0" || errors.Is(err, syscall.ENODATA) {
			u.note = "disabled"
		}
		u.sampler = &samplerSpec{voltage: millivolts(bus)}
		if r, err := t.number(attr("shunt", n, "_resistor")); err == nil && r > 0 {
			u.sampler.shunt, u.sampler.resistance = microvolts(attr("in", n+3, "_input")), r
			if r == 10_000 && u.rail == "" {
				u.warning = attr("shunt", n, "_resistor") + " is 10000 µΩ, the driver's default without a device tree; " +
					"common modules carry R100: write 100000 there if yours does"
			}
		} else {
			u.sampler.current = milliamps(attr("curr", n, "_input"))
		}
		// Each of the two reads waits until a cycle over all channels is done.
		u.sampler.cycle = 2 * t.interval(u.path)
		units = append(units, u)
	}
	return units
}

func powerChip(t tree, u unit) (unit, bool) {
	fine, known := powerChips[u.name]
	if known {
		u.rank = rankRail
	} else {
		fine = true
	}
	has := func(name string) bool { return t.has(u.path + "/" + name) }
	if has("energy1_input") {
		// The INA228's 40-bit register takes years to overflow, so a counter that goes back was reset.
		u.counter = &counterSpec{paths: []string{u.path + "/energy1_input"}}
		return u, true
	}
	s := &samplerSpec{cycle: t.interval(u.path)}
	if has("in1_input") {
		s.voltage = millivolts(u.path + "/in1_input")
	}
	if has("curr1_input") {
		s.current = milliamps(u.path + "/curr1_input")
	}
	product := s.voltage.path != "" && s.current.path != ""
	if has("power1_input") && (fine || !product) {
		s.power = microwatts(u.path + "/power1_input")
	} else if !product {
		return u, false
	}
	u.sampler = s
	return u, true
}

// interval returns a chip's update_interval, zero if it has none.
func (t tree) interval(dir string) time.Duration {
	ms, err := t.number(dir + "/update_interval")
	if err != nil || ms < 0 || ms > 1e6 {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// iioUnits reads NVIDIA's ina3221x driver, on Jetsons up to L4T R32. Every read of an attribute wakes the chip for one
// conversion; in_powerN_input has voltage and current from the same one, so power is taken from there and current from
// power and voltage, which costs two conversions and not three.
func iioUnits(t tree) (units []unit) {
	const devices = "bus/iio/devices"
	for _, d := range t.list(devices) {
		dir := devices + "/" + d
		name, err := t.text(dir + "/name")
		if err != nil {
			name = d
		}
		for n := range 3 {
			num := strconv.Itoa(n)
			power := dir + "/in_power" + num + "_input"
			if !t.has(power) {
				continue
			}
			u := unit{kind: "iio", name: name, addr: t.base(dir, 1), path: dir, number: num}
			u.rail, _ = t.text(dir + "/rail_name_" + num)
			u.rank = railRank(u.rail)
			u.sampler = &samplerSpec{power: milliwatts(power)}
			if v := dir + "/in_voltage" + num + "_input"; t.has(v) {
				u.sampler.voltage = millivolts(v)
			}
			units = append(units, u)
		}
	}
	return units
}

// powercapUnits reads class/powercap (Documentation/power/powercap/powercap.rst). psys covers the platform, package-N one
// processor; a package's subzones are parts of it (except dram, which on servers is beside it), and intel-rapl-mmio shows
// the same package a second time.
func powercapUnits(t tree) (units []unit) {
	const class = "class/powercap"
	var packages []unit
	for _, z := range t.list(class) {
		dir := class + "/" + z
		name, err := t.text(dir + "/name")
		if err != nil || !t.has(dir+"/energy_uj") {
			continue
		}
		u := unit{kind: "powercap", name: name, addr: z, path: dir}
		u.counter = &counterSpec{paths: []string{dir + "/energy_uj"}, bound: t.zoneBound(dir)}
		if r, err := t.number(dir + "/max_energy_range_uj"); err != nil || r <= 0 {
			u.note = "without max_energy_range_uj"
		} else {
			u.counter.modulus = uint64(r)
		}
		control, _, _ := strings.Cut(z, ":")
		top := strings.Count(z, ":") == 1 && !strings.HasSuffix(control, "-mmio")
		switch {
		case top && strings.HasPrefix(name, "package"):
			u.rank = rankRail
			packages = append(packages, u)
		case top && name == "psys":
			// On boards that do not wire the platform's sensor psys exists and stays zero.
			if e, err := t.number(dir + "/energy_uj"); err != nil || e != 0 {
				u.rank = rankPlatform
			}
		}
		units = append(units, u)
	}
	if len(packages) > 1 {
		units = append(units, sumPackages(packages))
	}
	return units
}

func sumPackages(packages []unit) unit {
	sum := unit{kind: "powercap", name: "packages", path: "class/powercap", rank: rankSum, counter: &counterSpec{}}
	var addrs []string
	c := sum.counter
	for _, p := range packages {
		if p.note != "" || (c.modulus != 0 && c.modulus != p.counter.modulus) {
			sum.note = "of different or unknown range: choose one by device"
		}
		addrs = append(addrs, p.addr)
		c.paths = append(c.paths, p.counter.paths...)
		c.modulus = p.counter.modulus
		c.bound += p.counter.bound
	}
	sum.addr = strings.Join(addrs, "+")
	return sum
}

// zoneBound returns more than a zone can draw, from its constraints.
func (t tree) zoneBound(dir string) energy.Power {
	var stated int64
	for n := range 4 {
		for _, what := range []string{"max_power_uw", "power_limit_uw"} {
			if v, err := t.number(fmt.Sprintf("%s/constraint_%d_%s", dir, n, what)); err == nil {
				stated = max(stated, v)
			}
		}
	}
	if stated <= 0 || stated > 1e12 {
		return 1000 * energy.Watt
	}
	return 2 * energy.Power(stated)
}

// batteryUnits reads class/power_supply (Documentation/ABI/testing/sysfs-class-power).
func batteryUnits(t tree) (units []unit) {
	const class = "class/power_supply"
	for _, b := range t.list(class) {
		dir := class + "/" + b
		if typ, err := t.text(dir + "/type"); err != nil || typ != "Battery" {
			continue
		}
		u := unit{kind: "battery", name: b, addr: b, path: dir, rank: rankRail}
		if scope, err := t.text(dir + "/scope"); err == nil && scope == "Device" {
			u.rank = rankAsked // a mouse, not the host
		}
		if present, err := t.text(dir + "/present"); err == nil && present == "0" {
			u.note = "not present"
		}
		s := &samplerSpec{status: input{path: dir + "/status"}}
		if t.has(dir + "/voltage_now") {
			s.voltage = microvolts(dir + "/voltage_now")
		}
		switch {
		case t.has(dir + "/power_now"):
			s.power = microwatts(dir + "/power_now")
		case t.has(dir+"/current_now") && s.voltage.path != "":
			s.current = microamps(dir + "/current_now")
		default:
			u.note = "without power_now or current_now"
		}
		u.sampler = s
		units = append(units, u)
	}
	return units
}
