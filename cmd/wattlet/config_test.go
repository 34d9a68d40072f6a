package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wattlet/wattlet/internal/energy"
)

// cluster writes a cluster file with its key and returns its path.
func cluster(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "cluster.yaml")
	for name, content := range map[string]string{
		path: text, filepath.Join(dir, "bench-1"): "0123456789abcdef0123456789abcdef\n", filepath.Join(dir, "short"): "tooshort",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

const sample = `meters:
  bench-1: {url: coaps://10.0.0.5, psk_identity: wattlet, psk_file: bench-1}
  old: {url: "udp://10.0.0.7:10000", supply_voltage: 5.1V}
nodes:
  raspberrypi: {meter: bench-1, channel: 5}
  jetson-nano: {meter: bench-1, channel: 6}
  pynq: {meter: old, channel: 2, agent: raspberrypi}
  nas: {sysfs: powercap}
  orin: {sysfs: hwmon, device: 1-0040, rail: VDD_IN}
`

func TestTheNodePicksItself(t *testing.T) {
	path := cluster(t, sample)
	for _, tc := range []struct {
		agents string
		want   []source
	}{
		{"jetson-nano", []source{{
			node: "jetson-nano", name: "bench-1", channel: 6, kind: "meter", url: "coaps://10.0.0.5", pskIdentity: "wattlet",
		}}},
		{"raspberrypi", []source{
			{node: "pynq", name: "old/2", channel: 2, kind: "legacy", url: "udp://10.0.0.7:10000", supplyVoltage: 5_100_000},
			{node: "raspberrypi", name: "bench-1", channel: 5, kind: "meter", url: "coaps://10.0.0.5", pskIdentity: "wattlet"},
		}},
		{"nas", []source{{node: "nas", name: "nas/powercap", channel: 1, kind: "sysfs", sysfs: "powercap"}}},
		{"orin", []source{{node: "orin", name: "orin/hwmon", channel: 1, kind: "sysfs", sysfs: "hwmon", device: "1-0040", rail: "VDD_IN"}}},
	} {
		got, _, err := loadConfig(path, strings.Split(tc.agents, ","))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(tc.want) {
			t.Fatalf("%s serves %d nodes, want %d", tc.agents, len(got), len(tc.want))
		}
		for i := range got {
			if got[i].kind == "meter" && string(got[i].key) != "0123456789abcdef0123456789abcdef" {
				t.Errorf("key %q", got[i].key)
			}
			got[i].key = nil
			if g, w := got[i], tc.want[i]; g.node != w.node || g.name != w.name || g.channel != w.channel || g.kind != w.kind || g.url != w.url ||
				g.pskIdentity != w.pskIdentity || g.supplyVoltage != w.supplyVoltage || g.sysfs != w.sysfs || g.device != w.device || g.rail != w.rail {
				t.Errorf("%s: %+v, want %+v", tc.agents, g, w)
			}
		}
	}
	if energy.Voltage(5_100_000) != 5100*energy.Volt/1000 {
		t.Error("5.1 V is not 5,100,000 µV")
	}
}

// The sample that ships is one that works.
func TestSampleFile(t *testing.T) {
	const path = "../../deploy/systemd/wattlet.yaml"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(path, b)
	if err != nil {
		t.Fatal(err)
	}
	for agent, nodes := range map[string]int{"nas": 1, "orin": 1, "pynq": 1} {
		if got, err := c.sources(path, []string{agent}); err != nil || len(got) != nodes {
			t.Errorf("%s serves %v, %v", agent, got, err)
		}
	}
	// Its key is not there, which must be the only fault.
	if _, err := c.sources(path, []string{"raspberrypi"}); err == nil || !strings.Contains(err.Error(), "wattlet.yaml:6: meter bench-1: psk_file: open ../../deploy/systemd/psk/bench-1") {
		t.Errorf("error %v", err)
	}
}

// Every fault is one line with the file and the line, and exit status 2.
func TestFaultsOfTheClusterFile(t *testing.T) {
	for name, tc := range map[string]struct{ old, new, line, want string }{
		"unknown key at the top": {"nodes:", "node:", "4", "field node not found"},
		"unknown key of a meter": {"psk_identity", "psk_identiti", "2", `unknown key "psk_identiti"; known here: url, psk_identity, psk_file`},
		"unknown key of a node":  {"rail:", "rale:", "9", `unknown key "rale"`},
		"not a mapping":          {"{sysfs: powercap}", "powercap", "8", "a mapping is expected"},
		"tab":                    {"  nas:", "\tnas:", "8", "character that cannot start any token"},
		"wrong type":             {"channel: 5", "channel: five", "5", "cannot unmarshal"},
		"channel out of range":   {"channel: 5", "channel: 0", "5", "node raspberrypi: channel 0"},
		"channel used twice":     {"channel: 6", "channel: 5", "5", "node raspberrypi: meter bench-1 channel 5 measures jetson-nano already"},
		"node twice":             {"jetson-nano:", "raspberrypi:", "6", "already defined at line 5"},
		"unknown meter":          {"meter: old", "meter: older", "7", `no meter "older"; there are bench-1, old`},
		"both sources":           {"{sysfs: powercap}", "{sysfs: powercap, meter: old, channel: 1}", "8", "either meter and channel, or sysfs"},
		"no source":              {"{sysfs: powercap}", "{}", "8", "either meter and channel, or sysfs"},
		"scheme":                 {"coaps://10.0.0.5", "http://10.0.0.5", "2", "the scheme must be coaps"},
		"no URL":                 {"url: coaps://10.0.0.5, ", "", "2", "url is missing"},
		"no key":                 {", psk_file: bench-1", "", "2", "psk_identity and psk_file are needed"},
		"no such key file":       {"psk_file: bench-1", "psk_file: bench-9", "2", "no such file"},
		"short key":              {"psk_file: bench-1", "psk_file: short", "2", "8 bytes of key"},
		"no supply voltage":      {", supply_voltage: 5.1V", "", "3", "supply_voltage"},
		"bad supply voltage":     {"5.1V", "5.1", "3", "no unit V"},
		"voltage of a meter":     {"psk_file: bench-1", "psk_file: bench-1, supply_voltage: 5V", "2", "for udp meters only"},
		"channel of sysfs":       {"{sysfs: powercap}", "{sysfs: powercap, channel: 1}", "8", "channel goes with meter"},
		"function of nothing":    {"nodes:", "functions: [{workload: a}]\nnodes:", "4", "needs workload and function"},
		"pattern of a function":  {"nodes:", "functions: [{workload: \"a[\", function: b}]\nnodes:", "4", "is not a pattern"},
		"request of a function":  {"nodes:", "functions: [{workload: a, function: b, cpu_request: -1}]\nnodes:", "4", "cpu_request -1"},
		"key of a function":      {"nodes:", "functions: [{workload: a, function: b, watchdogs: c}]\nnodes:", "4", "unknown key \"watchdogs\""},
		"rail of a meter":        {"channel: 5", "channel: 5, rail: x", "5", "device and rail go with sysfs"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(sample, tc.old) {
				t.Fatalf("the sample has no %q", tc.old)
			}
			path := cluster(t, strings.Replace(sample, tc.old, tc.new, 1))
			_, _, err := loadConfig(path, []string{"jetson-nano", "raspberrypi", "nas", "orin"})
			if usage := (usageError{}); !errors.As(err, &usage) {
				t.Fatalf("error %v is not one of usage", err)
			}
			if got := err.Error(); !strings.HasPrefix(got, path+":"+tc.line+": ") || !strings.Contains(got, tc.want) || strings.Contains(got, "\n") {
				t.Errorf("got %q, want %s:%s: …%s…", got, path, tc.line, tc.want)
			}
		})
	}
}

func TestFaultsOfTheCommandLine(t *testing.T) {
	path := cluster(t, sample)
	env := func(string) string { return "" }
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":    {[]string{"--frequency=1"}, "not defined"},
		"argument":        {[]string{"now"}, `unexpected argument "now"`},
		"unknown node":    {[]string{"--config.file=" + path, "--node=pi"}, "no node pi; there are jetson-nano, nas, orin, pynq, raspberrypi"},
		"no file":         {[]string{"--config.file=/nowhere.yaml"}, "no such file"},
		"both":            {[]string{"--config.file=" + path, "--sysfs=powercap"}, "exclude each other"},
		"tick":            {[]string{"--config.file=" + path, "--node=nas", "--tick=1ms"}, "--tick=1ms"},
		"stale":           {[]string{"--config.file=" + path, "--node=nas", "--stale-after=1ms"}, "--stale-after=1ms"},
		"level":           {[]string{"--log.level=loud"}, "--log.level=loud"},
		"format":          {[]string{"--log.format=xml"}, "--log.format=xml"},
		"legacy, several": {[]string{"--config.file=" + path, "--node=raspberrypi", "--metrics.legacy"}, "serve one node, but here are 2"},
		"url, no key":     {[]string{"--node=a", "--meter.url=coaps://10.0.0.5"}, "psk_file are needed"},
		"url and sysfs":   {[]string{"--node=a", "--meter.url=udp://10.0.0.5", "--meter.supply-voltage=5V", "--sysfs=hwmon"}, "either meter and channel, or sysfs"},
		"empty file":      {[]string{"--config.file=" + os.DevNull}, "the file is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseFlags(tc.args, env, io.Discard, io.Discard)
			usage := usageError{}
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one of usage with %q on one line", err, tc.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	path := cluster(t, sample)
	env := func(k string) string { return map[string]string{"NODE_NAME": "nas", "STATE_DIRECTORY": "/run/x"}[k] }
	o, err := parseFlags([]string{"--config.file=" + path}, env, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.nodes[0] != "nas" || o.state != "/run/x" || o.listen[0] != "127.0.0.1:9780" {
		t.Errorf("options %+v", o)
	}
	o, err = parseFlags([]string{"--node=pi", "--meter.url=udp://10.0.0.7", "--meter.channel=3", "--meter.supply-voltage=5V"}, env, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s := o.sources[0]; s.node != "pi" || s.kind != "legacy" || s.channel != 3 || s.supplyVoltage != 5*energy.Volt {
		t.Errorf("source %+v", s)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("meters: {a: {url: 'coap://127.0.0.1'}}\nnodes: {b: {meter: a, channel: 1}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig("f", b)
		if err == nil {
			_, err = c.sources("f", []string{"raspberrypi", "b"})
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}
