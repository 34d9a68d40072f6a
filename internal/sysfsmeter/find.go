package sysfsmeter

import (
	"errors"
	"fmt"
	"strings"
)

// Device is something that can measure here.
type Device struct {
	Kind string // for Config.Kind
	Name string // chip, zone or battery
	Addr string // for Config.Device; stays over reboots, unlike hwmon and IIO numbers
	Path string // directory below the sysfs root, today
	Rail string // for Config.Rail; empty where the device has only one
	// Default is true for the one that Open takes for this Kind if neither Device nor Rail is configured.
	Default bool
	// Note is why it cannot measure now, such as "disabled"; else empty.
	Note string
}

// String returns the device in one line, for people.
func (d Device) String() string {
	s := unit{kind: d.Kind, name: d.Name, addr: d.Addr, rail: d.Rail}.String()
	if d.Note != "" {
		s += " (" + d.Note + ")"
	}
	return s
}

// List returns what can measure below the sysfs root: for people, and for the messages of errors.
func List(root string) []Device {
	var all []Device
	t := tree{root: root, open: openAttr}
	for _, k := range kinds {
		units := k.find(t)
		def, err := choose(units, false)
		for _, u := range units {
			all = append(all, Device{
				Kind: u.kind, Name: u.name, Addr: u.addr, Path: u.path, Rail: u.rail, Note: u.note,
				Default: err == nil && u.addr == def.addr && u.number == def.number,
			})
		}
	}
	return all
}

// Ranks of units where none is asked for: the highest rank that is there is taken, if only one unit has it.
const (
	rankAsked    = iota // only if asked for: a part of another unit, or nothing we know to carry the board
	rankRail            // a rail like others
	rankSum             // all packages
	rankPlatform        // by its name the whole board
)

// unit is one rail that can be measured: what Open chooses from.
type unit struct {
	kind, name, addr, path string
	rail, number           string // label, and number within the device; empty where the device has one rail
	rank                   int
	note                   string // why it cannot be measured now
	warning                string // why what it measures may be wrong
	sampler                *samplerSpec
	counter                *counterSpec // one of the two
}

// String names the unit, the same over reboots.
func (u unit) String() string {
	s := u.kind + " " + u.name
	if u.addr != u.name {
		s += " " + u.addr
	}
	if r := u.railName(); r != "" {
		s += " rail " + r
	}
	return s
}

func (u unit) railName() string {
	if u.rail != "" {
		return u.rail
	}
	return u.number
}

type kind struct {
	name, where string // where is what was looked for, for people
	find        func(tree) []unit
}

var kinds = []kind{
	{"hwmon", "class/hwmon/*/name of ina3221, ina2xx", hwmonUnits},
	{"iio", "bus/iio/devices/*/in_power*_input", iioUnits},
	{"powercap", "class/powercap/*/energy_uj", powercapUnits},
	{"battery", "class/power_supply/*/type of Battery", batteryUnits},
}

// find returns the unit to measure.
func find(t tree, kindName, device, rail string) (unit, error) {
	for _, k := range kinds {
		if k.name != kindName {
			continue
		}
		all := k.find(t)
		var match []unit
		for _, u := range all {
			here := device == "" || device == u.addr || device == u.name
			if here && (rail == "" || rail == u.rail || rail == u.number) {
				match = append(match, u)
			}
		}
		u, err := choose(match, device != "" || rail != "")
		if err != nil {
			want := strings.TrimSpace(device + " " + rail)
			if want != "" {
				want = " " + want
			}
			return u, fmt.Errorf("%s%s below %s (looked for %s): %w; there is: %s",
				k.name, want, t.root, k.where, err, t.inventory(all))
		}
		return u, nil
	}
	return unit{}, fmt.Errorf("kind %q: there is hwmon, iio, powercap, battery; below %s there is: %s",
		kindName, t.root, t.inventory(nil))
}

// choose returns the only unit of the highest rank; asked says that somebody named it. A unit that cannot measure now still
// keeps those below it from being taken for the whole board.
func choose(units []unit, asked bool) (unit, error) {
	var best []unit
	var broken *unit
	for _, u := range units {
		switch {
		case u.note != "":
			if broken == nil || u.rank > broken.rank {
				broken = &u
			}
		case len(best) == 0 || u.rank > best[0].rank:
			best = []unit{u}
		case u.rank == best[0].rank:
			best = append(best, u)
		}
	}
	switch {
	case broken != nil && (len(best) == 0 || broken.rank > best[0].rank):
		return unit{}, fmt.Errorf("%s is %s", broken, broken.note)
	case len(best) == 0:
		return unit{}, errors.New("not found")
	case best[0].rank == rankAsked && !asked:
		return unit{}, errors.New("none is known to carry the whole board; choose by device or rail")
	case len(best) > 1:
		return unit{}, fmt.Errorf("%d that could be the whole board; choose by device or rail", len(best))
	}
	return best[0], nil
}

// inventory lists units, or if there are none everything that can measure, or failing that the hwmon chips there are.
func (t tree) inventory(units []unit) string {
	var s []string
	if len(units) == 0 {
		for _, k := range kinds {
			units = append(units, k.find(t)...)
		}
	}
	for _, u := range units {
		d := u.String()
		if u.note != "" {
			d += " (" + u.note + ")"
		}
		s = append(s, d)
	}
	if len(s) == 0 {
		for _, h := range t.list("class/hwmon") {
			if name, err := t.text("class/hwmon/" + h + "/name"); err == nil {
				s = append(s, "hwmon "+name+" without a power sensor we know")
			}
		}
	}
	if len(s) == 0 {
		return "nothing that measures"
	}
	return strings.Join(s, ", ")
}
