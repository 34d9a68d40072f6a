// Package hardware_test makes the tables of these pages from the numbers of data sheets, and holds the wiring diagram against the firmware.
package hardware_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables anew")

// The INA3221 by its data sheet (SBOS576, electrical characteristics), typical and largest.
const (
	fullScale = 0.1638 // V over the shunt
	shuntStep = 40e-6
	busStep   = 8e-3

	specifiedAt = 12 // V at the shunt, at which the offset is specified
)

// limit is an error as a data sheet gives it.
type limit struct{ typical, largest float64 }

var (
	shuntOffset      = limit{40e-6, 80e-6}
	shuntOffsetDrift = limit{0.1e-6, 0.5e-6}                                 // V/K
	commonMode       = limit{math.Pow(10, -120./20), math.Pow(10, -110./20)} // V/V
	busOffset        = limit{8e-3, 16e-3}
	busOffsetDrift   = limit{80e-6, 80e-6} // V/K
	gain             = limit{0.1e-2, 0.25e-2}
	gainDrift        = limit{10e-6, 50e-6} // 1/K

	// The shunt: what is bought. Where only a limit is known, values are taken to be distributed evenly within it.
	shuntTolerance = even(1e-2)
	shuntDrift     = even(100e-6) // 1/K
	// What calibrates: a power meter good to 0.1 %, and 20 µV (half a count) of offset at most.
	reference       = even(0.1e-2)
	calibratedShunt = even(20e-6)
)

// even is a limit within which nothing is more likely than anything else.
func even(largest float64) limit { return limit{largest / math.Sqrt(3), largest} }

// times scales a limit.
func (l limit) times(f float64) limit { return limit{l.typical * f, l.largest * f} }

const (
	volts   = 5.0
	warming = 20.0 // K, of shunt and sensor, since they were calibrated or specified
)

// errorOf returns the relative error of a power, as root sum of squares of what is typical, and as the sum of all that can be.
func errorOf(watts, ohms float64, calibrated bool) (typical, largest float64) {
	shunt := watts / volts * ohms // V
	errs := []limit{
		shuntDrift.times(warming),
		shuntOffsetDrift.times(warming / shunt), gainDrift.times(warming),
		busOffsetDrift.times(warming / volts), gainDrift.times(warming),
		// Half a step, if no noise spreads readings over several.
		{shuntStep / math.Sqrt(12) / shunt, shuntStep / 2 / shunt}, {busStep / math.Sqrt(12) / volts, busStep / 2 / volts},
	}
	if calibrated {
		errs = append(errs, reference, calibratedShunt.times(1/shunt))
	} else {
		errs = append(errs, shuntTolerance, shuntOffset.times(1/shunt), commonMode.times((specifiedAt-volts)/shunt), gain,
			busOffset.times(1/volts), gain)
	}
	var squares float64
	for _, e := range errs {
		squares += e.typical * e.typical
		largest += e.largest
	}
	return math.Sqrt(squares), largest
}

var shunts = []float64{0.1, 0.05, 0.02, 0.01}

// table writes Markdown.
func table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}

// significant writes a number with two significant digits and without an exponent.
func significant(v float64) string {
	digits := max(0, 1-int(math.Floor(math.Log10(v)+1e-9)))
	return fmt.Sprintf("%.*f", digits, v)
}

func rangeTable() string {
	rows := [][]string{{"shunt", "largest current", "at 5 V", "at 12 V", "one count", "largest offset", "drop at 1 A", "heat at largest current"}}
	for _, r := range shunts {
		amperes := fullScale / r
		rows = append(rows, []string{
			fmt.Sprintf("%g Ω", r), fmt.Sprintf("%.3g A", amperes), fmt.Sprintf("%.3g W", 5*amperes), fmt.Sprintf("%.3g W", 12*amperes),
			significant(1e3*shuntStep/r) + " mA", significant(1e3*shuntOffset.largest/r) + " mA", significant(1e3*r) + " mV",
			significant(fullScale*amperes) + " W",
		})
	}
	return table(rows)
}

func errorTable(calibrated bool) string {
	powers := []float64{0.5, 1, 2.5, 5, 10, 15, 25, 40}
	head := []string{"shunt"}
	for _, p := range powers {
		head = append(head, fmt.Sprintf("%g W", p))
	}
	rows := [][]string{head}
	for _, r := range shunts {
		row := []string{fmt.Sprintf("%g Ω", r)}
		for _, p := range powers {
			if p/volts*r >= fullScale {
				row = append(row, "clips")
				continue
			}
			typical, largest := errorOf(p, r, calibrated)
			row = append(row, significant(100*typical)+" / "+significant(100*largest))
		}
		rows = append(rows, row)
	}
	return table(rows)
}

func heatTable() string {
	amperes := []float64{0.5, 1, 1.5, 2, 3, 5, 8}
	head := []string{"shunt"}
	for _, i := range amperes {
		head = append(head, fmt.Sprintf("%g A", i))
	}
	rows := [][]string{head}
	for _, r := range shunts {
		row := []string{fmt.Sprintf("%g Ω", r)}
		for _, i := range amperes {
			cell := significant(i*i*r) + " W"
			if i*r >= fullScale {
				cell = "(" + cell + ")"
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return table(rows)
}

func wireTable() string {
	const resistivity = 17.24 // mΩ·mm²/m, annealed copper at 20 °C (IEC 60028)
	rows := [][]string{{"copper", "AWG, about", "1 m there and back", "drop at 1 A", "at 3 A", "at 5 A", "heat at 3 A"}}
	for _, w := range []struct {
		area float64
		awg  int
	}{{0.25, 24}, {0.5, 20}, {0.75, 18}, {1, 17}, {1.5, 16}} {
		milliohm := 2 * resistivity / w.area
		rows = append(rows, []string{
			fmt.Sprintf("%g mm²", w.area), fmt.Sprint(w.awg), fmt.Sprintf("%.0f mΩ", milliohm), fmt.Sprintf("%.0f mV", milliohm),
			fmt.Sprintf("%.0f mV", 3*milliohm), fmt.Sprintf("%.0f mV", 5*milliohm), significant(9*milliohm/1e3) + " W",
		})
	}
	return table(rows)
}

// TestGoldenTables keeps what stands between the marks of a table equal to what is computed.
func TestGoldenTables(t *testing.T) {
	for _, tc := range []struct{ page, name, want string }{
		{"shunts.md", "range", rangeTable()},
		{"shunts.md", "uncalibrated", errorTable(false)},
		{"shunts.md", "calibrated", errorTable(true)},
		{"safety.md", "heat", heatTable()},
		{"safety.md", "wire", wireTable()},
	} {
		t.Run(tc.page+" "+tc.name, func(t *testing.T) {
			page := read(t, tc.page)
			begin, end := "<!-- "+tc.name+": computed by hardware_test.go -->\n\n", "\n<!-- end of "+tc.name+" -->"
			before, rest, ok := strings.Cut(page, begin)
			got, after, ok2 := strings.Cut(rest, end)
			if !ok || !ok2 {
				t.Fatalf("%s has no %q and %q", tc.page, begin, end)
			}
			if got == tc.want {
				return
			}
			if !*update {
				t.Errorf("%s: computed is\n%s\nwrite it with go test ./hardware -update", tc.page, tc.want)
				return
			}
			if err := os.WriteFile(tc.page, []byte(before+begin+tc.want+end+after), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The figures of the text, which nobody would look at again.
func TestErrorsAreAsTold(t *testing.T) {
	for _, tc := range []struct {
		watts, ohms      float64
		calibrated       bool
		typical, largest float64 // in percent, within a tenth
	}{
		// By hand: 5 W through 0.05 Ω at 5 V is 1 A and 50 mV. Largest: shunt 1 + 0.2, its offset 0.16 + 0.02 + 0.04, its step 0.04, gains
		// 2 · (0.25 + 0.1), bus 0.32 + 0.03 + 0.08.
		{5, 0.05, false, 0.65, 2.60},
		// Largest: reference 0.1, offset 0.04 + 0.02, step 0.04, shunt 0.2, gains 2 · 0.1, bus 0.03 + 0.08.
		{5, 0.05, true, 0.16, 0.72},
	} {
		typical, largest := errorOf(tc.watts, tc.ohms, tc.calibrated)
		if math.Abs(100*typical/tc.typical-1) > 0.1 || math.Abs(100*largest/tc.largest-1) > 0.02 {
			t.Errorf("%+v: %.3f / %.3f %%", tc, 100*typical, 100*largest)
		}
	}
}

// The budget of calibration.md: 1 A, 5 V, 0.05 Ω, 30 s.
func TestBudgetIsAsTold(t *testing.T) {
	const shunt = 0.05
	ppm := func(relative float64) string {
		v := strconv.Itoa(int(math.Round(1e6 * relative)))
		if len(v) > 3 {
			v = v[:len(v)-3] + "," + v[len(v)-3:]
		}
		return v
	}
	volts1 := busStep / math.Sqrt(12) / volts
	alone := math.Sqrt((gain.largest*gain.largest+busOffset.largest/volts*busOffset.largest/volts)/3 + volts1*volts1)
	noise, offset := shuntStep/math.Sqrt(15_000)/shunt, 430e-9/shunt
	all := func(voltage float64) string {
		u := math.Sqrt(reference.typical*reference.typical + voltage*voltage + noise*noise + offset*offset)
		return fmt.Sprintf("**± %.2f %%**", 200*u)
	}
	page := read(t, "calibration.md")
	for _, want := range []string{
		"of its limit | " + ppm(reference.typical) + " ppm |", "√12 of 5 V | " + ppm(volts1) + " ppm |", "and the step | " + ppm(alone)[:4] + "0 ppm |",
		"√15,000 of 50 mV | " + ppm(noise) + " ppm |", "√12 of 50 mV | " + ppm(shuntStep/math.Sqrt(12)/shunt) + " ppm |",
		"| " + ppm(offset) + " / " + ppm(shuntOffset.typical/shunt) + " ppm |", "with `--current` | | " + all(0) + " |", "with `--power` | | " + all(volts1) + " |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("calibration.md has no %q", want)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The diagram and the parts list name the pins and addresses that the firmware has by default.
func TestWiringIsTheFirmwares(t *testing.T) {
	kconfig := read(t, "../firmware/components/board/Kconfig")
	diagram := read(t, "wiring.svg")
	for name, says := range map[string]string{
		"BOARD_SENSORS_SDA": "GPIO %s", "BOARD_SENSORS_SCL": "GPIO %s", "BOARD_OLED_SDA": "GPIO %s", "BOARD_OLED_SCL": "GPIO %s",
		"BOARD_SENSOR_1_ADDRESS": "%s", "BOARD_SENSOR_2_ADDRESS": "%s", "BOARD_OLED_ADDRESS": "%s",
	} {
		m := regexp.MustCompile(`config ` + name + `\n(?:[^\n]+\n)*? +default (\S+)\n`).FindStringSubmatch(kconfig)
		if m == nil {
			t.Errorf("the firmware has no %s with a default", name)
			continue
		}
		if want := fmt.Sprintf(says, m[1]); !regexp.MustCompile(regexp.QuoteMeta(want) + `\b`).MatchString(diagram) {
			t.Errorf("wiring.svg has no %q, which is the firmware's %s", want, name)
		}
	}
}

// The diagram is XML, and carries no script and nothing from elsewhere.
func TestWiringIsWellFormed(t *testing.T) {
	dec := xml.NewDecoder(strings.NewReader(read(t, "wiring.svg")))
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			if e.Name.Local == "script" || e.Name.Local == "image" {
				t.Errorf("<%s>", e.Name.Local)
			}
		}
	}
}

// Links between these pages, and out of them into the project, lead somewhere.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) < 5 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
