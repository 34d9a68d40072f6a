package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// line renders a record as the rows below are written.
func line(r *Record) string {
	at := r.At().Microseconds()
	switch r.Row {
	case PowerRow:
		p := r.Power
		s := fmt.Sprintf("%d power meter=%d boot=%d energy=%d", at, p.Meter.Microseconds(), p.Boot, p.Energy)
		if p.HasCharge {
			s += fmt.Sprintf(" charge=%d", p.Charge)
		}
		if p.HasVoltage {
			s += fmt.Sprintf(" voltage=%d", p.Voltage)
		}
		if p.HasCurrent {
			s += fmt.Sprintf(" current=%d", p.Current)
		}
		return s
	case FrequencyRow:
		return fmt.Sprintf("%d frequency %s", at, frequencyText(r.Frequency))
	case UsageRow:
		return fmt.Sprintf("%d cpu %s", at, usageText(r.Usage))
	case ActivityRow:
		return fmt.Sprintf("%d activity %s %d %d %d", at, r.Activity.ID, r.Activity.InFlight, r.Activity.Started, r.Activity.Completed)
	case EventRow:
		return fmt.Sprintf("%d event %s %s", at, r.Event.ID, r.Event.What)
	}
	s := fmt.Sprintf("%d sample", at)
	for _, u := range r.Sample.Usage {
		s += fmt.Sprintf(" %s@%d", usageText(u), u.At.Microseconds())
	}
	for _, id := range r.Sample.Ended {
		s += fmt.Sprintf(" ended=%s", id)
	}
	for _, f := range r.Sample.Frequency {
		s += fmt.Sprintf(" %s@%d", frequencyText(f), f.At.Microseconds())
	}
	return s
}

func usageText(u workload.Usage) string {
	return fmt.Sprintf("%s/%s=%d", u.ID, u.Class, u.CPU.Microseconds())
}

func frequencyText(f workload.Frequency) string {
	return fmt.Sprintf("%s/%d=%d", f.Class, f.KHz, f.Time.Microseconds())
}

// lines reads a trace to its end or a fault.
func lines(next func() (*Record, error)) (all []string, err error) {
	for {
		rec, err := next()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, line(rec))
	}
}

func open(t *testing.T, dir string) *Reader {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func wantLines(t *testing.T, got []string, err error, want string) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	if g, w := strings.Join(got, "\n"), strings.TrimSpace(want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestSmall(t *testing.T) {
	r := open(t, "testdata/small")
	meta := Meta{
		Format: Format, Node: "odroid-xu4-1", Start: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC),
		Cores:           map[string]int{"little": 4, "big": 4},
		OperatingPoints: map[string][]OperatingPoint{"big": {{KHz: 2_000_000, Microvolt: 1_312_500}}},
		Meter:           &Meter{GainStdDev: 0.01, Noise: 20 * energy.Watt / 1000},
		Recorder:        "wattlet 0.1.0",
	}
	if !reflect.DeepEqual(r.Meta(), meta) {
		t.Errorf("meta %+v, want %+v", r.Meta(), meta)
	}
	workloads := []workload.Workload{
		{ID: `kubepods/pod "1", first`, Kind: workload.Function, Namespace: "openfaas-fn", Name: "gzip-7d9", Function: "gzip"},
		{ID: "system.slice/cron.service", Kind: workload.System, Name: "cron.service"},
		{ID: "kubepods/pod2", Kind: workload.Pod, Namespace: "monitoring", Name: "prometheus\n0"},
		{ID: "system.slice/wattlet.service", Kind: workload.Agent, Name: "wattlet.service"},
	}
	if !reflect.DeepEqual(r.Workloads(), workloads) {
		t.Errorf("workloads %+v, want %+v", r.Workloads(), workloads)
	}
	got, err := lines(r.Next)
	wantLines(t, got, err, `
0 event @node regime:governor performance, 2 GHz
100000 power meter=5000000 boot=18446744073709551615 energy=-40 charge=7 voltage=5100000 current=-1
1000010 cpu kubepods/pod "1", first/little=1000
1000020 cpu system.slice/cron.service/=500
1000030 cpu @node/=10000
1000030 activity kubepods/pod "1", first 1 6 5
1000040 frequency little/600000=900000
1000040 frequency little/1400000=100000
1100000 power meter=6000000 boot=18446744073709551615 energy=4000000
1100000 power meter=6100000 boot=18446744073709551615 energy=4400000 charge=800000
1500000 event kubepods/pod2 created
1900000 event kubepods/pod2 ready
1999990 frequency little/600000=1800000
1999990 frequency little/1400000=200000
2000000 cpu kubepods/pod2/big=40
2000010 cpu kubepods/pod "1", first/little=1500
2000030 cpu @node/=12000
2000030 activity kubepods/pod "1", first 0 6 6
2100000 power meter=50000 boot=7 energy=100 voltage=5000000
3000000 cpu @node/=15000
3000000 cpu kubepods/pod2/big=90
3000000 cpu kubepods/pod "1", first/big=300
3000000 cpu kubepods/pod "1", first/little=1500
3000000 event kubepods/pod "1", first stopped
3100000 power meter=1050000 boot=7 energy=5000100 current=1000000`)
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF again", err)
	}

	got, err = lines(open(t, "testdata/small").NextGrouped)
	wantLines(t, got, err, `
0 event @node regime:governor performance, 2 GHz
100000 power meter=5000000 boot=18446744073709551615 energy=-40 charge=7 voltage=5100000 current=-1
1000030 activity kubepods/pod "1", first 1 6 5
1000040 sample @node/=10000@1000030 kubepods/pod "1", first/little=1000@1000010 system.slice/cron.service/=500@1000020`+
		` little/600000=900000@1000040 little/1400000=100000@1000040
1100000 power meter=6000000 boot=18446744073709551615 energy=4000000
1100000 power meter=6100000 boot=18446744073709551615 energy=4400000 charge=800000
1500000 event kubepods/pod2 created
1900000 event kubepods/pod2 ready
2000030 sample @node/=12000@2000030 kubepods/pod "1", first/little=1500@2000010 kubepods/pod2/big=40@2000000`+
		` system.slice/cron.service/=500@1000020 ended=system.slice/cron.service`+
		` little/600000=1800000@1999990 little/1400000=200000@1999990
2000030 activity kubepods/pod "1", first 0 6 6
2100000 power meter=50000 boot=7 energy=100 voltage=5000000
3000000 sample @node/=15000@3000000 kubepods/pod "1", first/big=300@3000000 kubepods/pod "1", first/little=1500@3000000`+
		` kubepods/pod2/big=90@3000000
3000000 event kubepods/pod "1", first stopped
3100000 power meter=1050000 boot=7 energy=5000100 current=1000000`)
}

func TestCheck(t *testing.T) {
	s, err := Check("testdata/small")
	if err != nil {
		t.Fatal(err)
	}
	s.Meta = Meta{}
	// 4400000 − (−40) of the first boot, 5000100 − 100 of the second.
	want := Summary{
		Workloads: 4, Power: 5, Usage: 10, Frequency: 4, Activity: 2, Events: 4, Boots: 2,
		Duration: 3100 * time.Millisecond, Measured: 9_400_040,
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, want %+v", s, want)
	}
}

// base is the smallest trace; tests replace files of it.
var base = map[string]string{
	"trace.json":    `{"format":"wattlet-trace/1","cores":{"":4,"big":2}}`,
	"power.csv":     "received_us,meter_us,boot_id,energy_uj,charge_uc,voltage_uv,current_ua\n",
	"cpu.csv":       "at_us,workload,class,cpu_us\n",
	"workloads.csv": "workload,kind,namespace,name,function\na,pod,,a,\n",
}

// write makes a directory of base with other files; an empty text takes one away.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range base {
		if _, other := files[name]; !other {
			put(t, dir, name, text)
		}
	}
	for name, text := range files {
		if text != "" {
			put(t, dir, name, text)
		}
	}
	return dir
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFaults(t *testing.T) {
	power, cpu, workloads := base["power.csv"], base["cpu.csv"], base["workloads.csv"]
	const frequency, activity, events = "at_us,class,khz,time_us\n", "at_us,workload,in_flight,started,completed\n", "at_us,workload,event\n"
	for _, tc := range []struct{ name, file, text, want string }{
		{"no trace.json", "trace.json", "", "trace.json: is missing; a trace must have it: file does not exist"},
		{"no power", "power.csv", "", "power.csv: is missing, also as .gz and .zst; a trace must have it: file does not exist"},
		{"no cpu", "cpu.csv", "", "cpu.csv: is missing, also as .gz and .zst; a trace must have it: file does not exist"},
		{"no workloads", "workloads.csv", "", "workloads.csv: is missing, also as .gz and .zst; a trace must have it: file does not exist"},
		{"two of one", "cpu.csv.gz", "x", "cpu.csv.gz: there is cpu.csv too: keep the one that is meant"},
		{"empty", "events.csv", "\n", "events.csv:1:1: unknown column \"\"; there are at_us,workload,event"},
		{"unknown column", "cpu.csv", "at_us,workload,class,cpu_us,cgroup\n", "cpu.csv:1:29: unknown column \"cgroup\"; there are at_us,workload,class,cpu_us"},
		{"column twice", "events.csv", "at_us,event,at_us\n", "events.csv:1:13: column at_us is there twice"},
		{"missing column", "cpu.csv", "at_us,workload,cpu_us\n", "cpu.csv:1:22: column class is missing; there must be at_us,workload,class,cpu_us"},
		{"no number", "cpu.csv", cpu + "1,a,,2\n2,a,,12x\n", `cpu.csv:3:6: cpu_us: "12x" is not a whole number`},
		{"no number at all", "cpu.csv", cpu + "1,a,,\n", `cpu.csv:2:6: cpu_us: "" is not a whole number`},
		{"a sign alone", "power.csv", power + "1,1,1,-,,,\n", `power.csv:2:7: energy_uj: "-" is not a whole number`},
		{"a plus", "cpu.csv", cpu + "+1,a,,1\n", `cpu.csv:2:1: at_us: "+1" is not a whole number`},
		{"a point", "cpu.csv", cpu + "1.0,a,,1\n", `cpu.csv:2:1: at_us: "1.0" is not a whole number`},
		{"a space", "cpu.csv", cpu + "1, a,, 1\n", `cpu.csv:2:3: workload: " a" has no row in workloads.csv`},
		{"overflow", "power.csv", power + "1,1,1,9223372036854775808,,,\n", `power.csv:2:7: energy_uj: "9223372036854775808" is beyond 64 bits`},
		{"underflow", "power.csv", power + "1,1,1,-9223372036854775809,,,\n", `power.csv:2:7: energy_uj: "-9223372036854775809" is beyond 64 bits`},
		{"boot overflow", "power.csv", power + "1,1,18446744073709551616,1,,,\n", `power.csv:2:5: boot_id: "18446744073709551616" is beyond 64 bits`},
		{"30 digits", "power.csv", power + "1,1,1,111111111111111111111111111111,,,\n", `power.csv:2:7: energy_uj: "111111111111111111111111111111" is beyond 64 bits`},
		{"negative boot", "power.csv", power + "1,1,-1,1,,,\n", `power.csv:2:5: boot_id: "-1" is not a whole number`},
		{"too long", "cpu.csv", cpu + "9223372036854776,a,,1\n", `cpu.csv:2:1: at_us: 9223372036854776 is beyond 292 years`},
		{"negative time", "cpu.csv", cpu + "-1,a,,1\n", `cpu.csv:2:1: at_us: -1 is negative`},
		{"negative counter", "cpu.csv", cpu + "1,a,,-1\n", `cpu.csv:2:6: cpu_us: -1 is negative`},
		{"charge", "power.csv", power + "1,1,1,1,x,,\n", `power.csv:2:9: charge_uc: "x" is not a whole number`},
		{"voltage", "power.csv", power + "1,1,1,1,,x,\n", `power.csv:2:10: voltage_uv: "x" is not a whole number`},
		{"current", "power.csv", power + "1,1,1,1,,,x\n", `power.csv:2:11: current_ua: "x" is not a whole number`},
		{"time backwards", "cpu.csv", cpu + "2,a,,1\n1,@node,,1\n", `cpu.csv:3:1: at_us: 1 after 2: time runs backwards`},
		{"received backwards", "power.csv", power + "2,1,1,1,,,\n1,2,1,1,,,\n", `power.csv:3:1: received_us: 1 after 2: time runs backwards`},
		{"meter backwards", "power.csv", power + "1,9,1,1,,,\n1,8,1,1,,,\n", `power.csv:3:3: meter_us: 8 after 9 of the same boot_id: time runs backwards`},
		{"energy decreases", "power.csv", power + "1,1,1,5,,,\n2,2,1,4,,,\n", `power.csv:3:7: energy_uj: 4 after 5: a counter never decreases without a new boot_id`},
		{"cpu decreases", "cpu.csv", cpu + "1,a,,5\n2,a,big,1\n3,a,,4\n", `cpu.csv:4:6: cpu_us: 4 after 5: a counter never decreases`},
		{"twice at a time", "cpu.csv", cpu + "1,a,,5\n1,@node,,1\n1,a,,5\n", `cpu.csv:4:1: at_us: a second row of this workload and class at 1`},
		{"frequency decreases", "frequency.csv", frequency + "1,big,7,5\n2,big,8,1\n3,big,7,4\n", `frequency.csv:4:9: time_us: 4 after 5: a counter never decreases`},
		{"frequency's class", "frequency.csv", frequency + "1,little,7,5\n", `frequency.csv:2:3: class: "little" is not in cores of trace.json`},
		{"started decreases", "activity.csv", activity + "1,a,1,5,4\n2,a,1,4,4\n", `activity.csv:3:7: started: 4 after 5: a counter never decreases`},
		{"completed decreases", "activity.csv", activity + "1,a,1,5,4\n2,a,1,5,3\n", `activity.csv:3:9: completed: 3 after 4: a counter never decreases`},
		{"in flight", "activity.csv", activity + "1,a,-1,5,4\n", `activity.csv:2:5: in_flight: -1 is negative`},
		{"unknown workload", "cpu.csv", cpu + "1,a,,5\n1,b,,5\n", `cpu.csv:3:3: workload: "b" has no row in workloads.csv`},
		{"active unknown", "activity.csv", activity + "1,b,1,5,4\n", `activity.csv:2:3: workload: "b" has no row in workloads.csv`},
		{"unknown class", "cpu.csv", cpu + "1,a,little,5\n", `cpu.csv:2:5: class: "little" is not in cores of trace.json`},
		{"unknown event", "events.csv", events + "1,a,killed\n", `events.csv:2:5: event: "killed" is none of created, ready, stopped, regime:TEXT`},
		{"regime of a workload", "events.csv", events + "1,a,regime:x\n", `events.csv:2:5: event: "regime:x" is an event of @node only, not of "a"`},
		{"node is ready", "events.csv", events + "1,@node,ready\n", `events.csv:2:9: event: @node may have regime:TEXT only, not ready`},
		{"unknown kind", "workloads.csv", workloads + "b,cron,,b,\n", `workloads.csv:3:3: kind: "cron" is none of function, pod, system, agent`},
		{"workload twice", "workloads.csv", workloads + "b,pod,,b,\na,pod,,a,\n", `workloads.csv:4:1: workload: "a" is there twice`},
		{"workload empty", "workloads.csv", workloads + ",pod,,b,\n", `workloads.csv:3:1: workload: is empty`},
		{"no function", "workloads.csv", workloads + "b,pod,,b,f\n", `workloads.csv:3:10: function: a pod serves no function`},
		{"not UTF-8", "workloads.csv", workloads + "b,pod,,\xff,\n", `workloads.csv:3:8: name: "\xff" is not UTF-8`},
		{"short row", "cpu.csv", cpu + "1,a,\n", `cpu.csv:2:1: the row has 3 fields, the header 4`},
		{"long row", "cpu.csv", cpu + "1,a,,1,\n", `cpu.csv:2:1: the row has 5 fields, the header 4`},
		{"long quoted row", "cpu.csv", cpu + "1,\"a\",,1,\n", `cpu.csv:2:1: the row has 5 fields, the header 4`},
		{"blank line", "cpu.csv", cpu + "1,a,,1\n\n2,a,,1\n", `cpu.csv:3:1: the row has 1 fields, the header 4`},
		{"after a quote", "cpu.csv", cpu + "1,\"a\"b,,1\n", `cpu.csv:2:6: text after the closing quote`},
		{"quote within", "cpu.csv", cpu + "1,a\"b\",,1\n", `cpu.csv:2:4: a quote within a field that does not begin with one`},
		{"open quote", "cpu.csv", cpu + "1,\"a,,1\n2,a,,1\n", `cpu.csv:2:3: the quoted field does not end`},
		{"after a row of two lines", "workloads.csv", workloads + "b,pod,,\"b\n\",\nc,x,,,\n", `workloads.csv:5:3: kind: "x" is none of function, pod, system, agent`},
		{"second line of a row", "workloads.csv", workloads + "b,pod,\"\n\",c,f\n", `workloads.csv:4:5: function: a pod serves no function`},
		{"huge row", "cpu.csv", cpu + "1,\"" + strings.Repeat("a\n", maxRow/2), `cpu.csv:2:1: the row is longer than 1 MiB; is a quote left open?`},
		{"not gzip", "events.csv.gz", "at_us,workload,event\n", `events.csv.gz: cannot be read: gzip: invalid header`},
		{"not zstd", "events.csv.zst", "at_us,workload,event\n", `events.csv.zst:1:1: cannot be read: invalid input: magic number mismatch`},
		{"too much energy", "power.csv", power + "1,1,1,-9223372036854775808,,,\n2,2,1,9223372036854775807,,,\n",
			`power.csv:3:7: energy_uj: the energy measured is beyond 64 bits of µJ`},

		{"json empty", "trace.json", " ", `trace.json: is empty`},
		{"json syntax", "trace.json", "{\n \"node\" \"x\"}", `trace.json:2:9: not JSON: invalid character '"' after object key`},
		{"json ends", "trace.json", "{\n \"node\": ", `trace.json:2:10: not JSON: the text ends within a value`},
		{"json format", "trace.json", `{"format": "wattlet-trace/2"}`, `trace.json:1:12: this program reads wattlet-trace/1, not "wattlet-trace/2"`},
		{"json no format", "trace.json", `{"cores": {"": 1}}`, `trace.json:1:1: trace has no "format"`},
		{"json no cores", "trace.json", `{"format": "wattlet-trace/1"}`,
			`trace.json: "cores" is missing: name the core classes, as {"little": 4, "big": 4}, or {"": 4} where all are alike`},
		{"json unknown key", "trace.json", "{\n  \"format\": \"wattlet-trace/1\",\n  \"Node\": 1}", `trace.json:3:3: unknown key "Node"`},
		{"json unknown key within", "trace.json", `{"meter": {"gain": 1}}`, `trace.json:1:12: unknown key "gain"`},
		{"json key twice", "trace.json", `{"node": "a", "node": "b"}`, `trace.json:1:15: key "node" is there twice`},
		{"json no text", "trace.json", `{"node": null}`, `trace.json:1:10: node must be a text in quotes`},
		{"json no object", "trace.json", `[]`, `trace.json:1:1: trace must begin with {`},
		{"json cores", "trace.json", `{"cores": {"big": 0}}`, `trace.json:1:19: the number of cores must be a whole number from 1 to 2147483647`},
		{"json fraction", "trace.json", `{"meter": {"noise_uw": 1.5}}`, `trace.json:1:24: noise_uw must be a whole number from 0 to 9223372036854775807`},
		{"json gain", "trace.json", `{"meter": {"gain_stddev": -1}}`, `trace.json:1:27: gain_stddev must be a number, not below 0`},
		{"json start", "trace.json", `{"start": "today"}`, `trace.json:1:11: "start" is not a time such as "2026-11-23T18:00:00Z"`},
		{"json point", "trace.json", `{"operating_points": {"a": [{"khz": 1}]}}`, `trace.json:1:29: operating point has no "microvolt"`},
		{"json class", "trace.json", `{"format":"wattlet-trace/1","cores":{"":1},"operating_points": {"a": []}}`,
			`trace.json: operating_points has class "a", which cores has not`},
		{"json more", "trace.json", `{"format":"wattlet-trace/1","cores":{"":1}} x`, `trace.json:1:45: there is more text after the object`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := write(t, map[string]string{tc.file: tc.text})
			_, err := Check(dir)
			if err == nil {
				t.Fatalf("no error, want %s", tc.want)
			}
			if got := strings.ReplaceAll(err.Error(), dir+"/", ""); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if fault := (*Error)(nil); !errors.As(err, &fault) || filepath.Base(fault.File) != tc.file {
				t.Errorf("%#v: not an Error of %s", err, tc.file)
			}
		})
	}
}

func TestEmptyFiles(t *testing.T) {
	const want = "is empty; it must begin with at_us,workload,class,cpu_us"
	for _, suffix := range suffixes {
		dir := write(t, map[string]string{"cpu.csv": ""})
		put(t, dir, "cpu.csv"+suffix, "")
		if _, err := Open(dir); err == nil || err.Error() != filepath.Join(dir, "cpu.csv"+suffix)+": "+want {
			t.Errorf("cpu.csv%s: %v", suffix, err)
		}
	}
}

// What is lenient: any order of columns, CRLF, a byte order mark, no last line end, quotes where none are needed, no rows,
// other files in the directory.
func TestLenient(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"column order":   {"cpu.csv": "cpu_us,class,workload,at_us\n5,,a,1\n7,big,a,2\n"},
		"CRLF":           {"cpu.csv": "at_us,workload,class,cpu_us\r\n1,a,,5\r\n2,a,big,7\r\n", "workloads.csv": "workload,kind,namespace,name,function\r\na,pod,,a,\r\n"},
		"BOM":            {"cpu.csv": "\ufeffat_us,workload,class,cpu_us\n1,a,,5\n2,a,big,7\n", "trace.json": "\ufeff" + base["trace.json"]},
		"no last end":    {"cpu.csv": "at_us,workload,class,cpu_us\n1,a,,5\n2,a,big,7"},
		"quotes":         {"cpu.csv": "\"at_us\",\"workload\",\"class\",\"cpu_us\"\n\"1\",\"a\",\"\",\"5\"\n2,\"a\",big,\"7\"\r\n"},
		"node has a row": {"cpu.csv": "at_us,workload,class,cpu_us\n1,a,,5\n2,a,big,7\n", "workloads.csv": base["workloads.csv"] + "@node,system,,,\n"},
		"other files":    {"cpu.csv": "at_us,workload,class,cpu_us\n1,a,,5\n2,a,big,7\n", "README.md": "x", "cpu.csv.bz2": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := lines(open(t, write(t, files)).Next)
			wantLines(t, got, err, "1 cpu a/=5\n2 cpu a/big=7")
		})
	}
}

// Samples are told apart whoever stamped their rows.
func TestGrouping(t *testing.T) {
	workloads := base["workloads.csv"] + "b,pod,,b,\nc,pod,,c,\n"
	for _, tc := range []struct{ name, cpu, frequency, want string }{
		{"none", "", "", ""},
		{"one", "5,@node,,1\n6,a,,1\n", "", "6 sample @node/=1@5 a/=1@6"},
		{"own times, node first", "10,@node,,1\n12,a,,1\n110,@node,,2\n113,a,,2\n", "", "12 sample @node/=1@10 a/=1@12\n113 sample @node/=2@110 a/=2@113"},
		{"one time, node within", "10,a,,1\n10,@node,,1\n10,b,,1\n20,b,,2\n20,@node,,2\n20,a,,2\n", "",
			"10 sample @node/=1@10 a/=1@10 b/=1@10\n20 sample @node/=2@20 a/=2@20 b/=2@20"},
		{"new ones come first", "10,a,,1\n11,@node,,1\n20,c,,1\n21,b,,1\n22,a,,2\n23,@node,,2\n", "",
			"11 sample @node/=1@11 a/=1@10\n23 sample @node/=2@23 a/=2@22 b/=1@21 c/=1@20"},
		{"one ends, one begins", "10,a,,1\n10,@node,,1\n20,b,,1\n20,@node,,2\n30,b,,1\n30,@node,,2\n", "",
			"10 sample @node/=1@10 a/=1@10\n20 sample @node/=2@20 a/=1@10 b/=1@20 ended=a\n30 sample @node/=2@30 b/=1@30"},
		{"one comes back", "10,a,,1\n10,@node,,1\n20,@node,,2\n30,a,,4\n30,@node,,3\n", "",
			"10 sample @node/=1@10 a/=1@10\n20 sample @node/=2@20 a/=1@10 ended=a\n30 sample @node/=3@30 a/=4@30"},
		{"node alone", "10,@node,,1\n20,@node,,2\n30,@node,,3\n", "", "10 sample @node/=1@10\n20 sample @node/=2@20\n30 sample @node/=3@30"},
		{"frequencies go to the nearest, the last counts", "10,@node,,1\n20,@node,,2\n30,@node,,3\n", "8,big,7,1\n9,big,7,2\n14,big,6,1\n16,big,7,3\n90,big,7,4\n",
			"14 sample @node/=1@10 big/6=1@14 big/7=2@9\n20 sample @node/=2@20 big/7=3@16\n90 sample @node/=3@30 big/7=4@90"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := open(t, write(t, map[string]string{
				"workloads.csv": workloads, "cpu.csv": base["cpu.csv"] + tc.cpu, "frequency.csv": "at_us,class,khz,time_us\n" + tc.frequency,
			}))
			got, err := lines(r.NextGrouped)
			wantLines(t, got, err, tc.want)
		})
	}
}

// A compressed file that was cut off gives all whole rows, then says so.
func TestCutOff(t *testing.T) {
	for _, compression := range []string{"gz", "zst"} {
		t.Run(compression, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "trace")
			w, err := Create(dir, Meta{Cores: map[string]int{"": 4}}, Options{compression})
			if err != nil {
				t.Fatal(err)
			}
			for s := range 3 {
				if err := w.Event(workload.Event{ID: workload.Node, At: time.Duration(s), What: "regime:x"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "events.csv."+compression)
			flushed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if whole, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(whole, flushed) || len(whole) == len(flushed) {
				t.Fatalf("closing did not go on where the flush ended: %v", err)
			}
			put(t, dir, "events.csv."+compression, string(flushed))
			got, err := lines(open(t, dir).Next)
			if len(got) != 3 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d rows, %v; want 3 and an unexpected EOF", len(got), err)
			}
			if want := path + ":5:1: the compressed file is cut off here: unexpected EOF"; err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

// Files that were compressed in parts, as by appending, are read to their end.
func TestCompressedInParts(t *testing.T) {
	parts := []string{base["cpu.csv"], "1,a,,5\n", "", "2,a,big,7\n"}
	for suffix, compress := range map[string]func(io.Writer) io.WriteCloser{
		".gz": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		".zst": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		var file bytes.Buffer
		for _, part := range parts {
			z := compress(&file)
			_, err := io.WriteString(z, part)
			if err := errors.Join(err, z.Close()); err != nil {
				t.Fatal(err)
			}
		}
		got, err := lines(open(t, write(t, map[string]string{"cpu.csv": "", "cpu.csv" + suffix: file.String()})).Next)
		wantLines(t, got, err, "1 cpu a/=5\n2 cpu a/big=7")
	}
}

// A row costs no memory, whatever the length of the trace.
func TestReadAllocatesNothing(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, twoClasses, Options{})
	must(t, w.Workload(podA))
	must(t, w.Workload(cron))
	for tick := range 3000 {
		at := time.Duration(tick) * ms
		must(t, w.Power(at, 1, at, energy.Energy(tick)))
		must(t, w.Usage(&workload.Sample{
			Usage: []workload.Usage{
				{ID: workload.Node, At: at, CPU: at}, {ID: cron.ID, At: at, CPU: at}, {ID: podA.ID, Class: "big", At: at, CPU: at},
			},
			Frequency: []workload.Frequency{{Class: "big", KHz: 1, At: at, Time: at}},
		}))
		must(t, w.Activity(workload.Activity{ID: podA.ID, At: at}))
		must(t, w.Event(workload.Event{ID: podA.ID, At: at, What: workload.Ready}))
	}
	must(t, w.Close())
	for name, method := range map[string]func(*Reader) (*Record, error){"Next": (*Reader).Next, "NextGrouped": (*Reader).NextGrouped} {
		r := open(t, dir)
		next := func() {
			if _, err := method(r); err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 {
			next()
		}
		if n := testing.AllocsPerRun(5000, next); n != 0 {
			t.Errorf("%s: %v allocations per row", name, n)
		}
	}
}
