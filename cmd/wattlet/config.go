package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/meter"
)

// usageError is a fault of the command line or the configuration: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// source says how one node is measured; checked, with files read.
type source struct {
	node string
	// name is unique per source of readings; several nodes share one meter.
	name    string
	channel int
	kind    string // "meter", "legacy" or "sysfs"

	url           string // meter, legacy
	pskIdentity   string
	key           []byte
	supplyVoltage energy.Voltage // legacy
	sysfs         string         // sysfs: what to read
	device, rail  string
}

// rawConfig is the cluster's file as it stands.
type rawConfig struct {
	Meters map[string]rawMeter `yaml:"meters"`
	Nodes  map[string]rawNode  `yaml:"nodes"`
	// Functions say which workloads serve which function, where no platform tells.
	Functions []rawFunction `yaml:"functions"`
}

type rawMeter struct {
	URL           string `yaml:"url"`
	PSKIdentity   string `yaml:"psk_identity"`
	PSKFile       string `yaml:"psk_file"`
	SupplyVoltage string `yaml:"supply_voltage"`
	line          int
}

type rawNode struct {
	Meter   string `yaml:"meter"`
	Channel int    `yaml:"channel"`
	Sysfs   string `yaml:"sysfs"`
	Device  string `yaml:"device"`
	Rail    string `yaml:"rail"`
	Agent   string `yaml:"agent"`
	line    int
}

// UnmarshalYAML keeps the line for errors found later. The plain type has no methods, so that decoding it does not recurse;
// strictness is lost on the way, hence knownKeys.
func (m *rawMeter) UnmarshalYAML(n *yaml.Node) error {
	type plain rawMeter
	if err := knownKeys(n, "url", "psk_identity", "psk_file", "supply_voltage"); err != nil {
		return err
	}
	m.line = n.Line
	return n.Decode((*plain)(m))
}

// UnmarshalYAML is as rawMeter's.
func (n *rawNode) UnmarshalYAML(y *yaml.Node) error {
	type plain rawNode
	if err := knownKeys(y, "meter", "channel", "sysfs", "device", "rail", "agent"); err != nil {
		return err
	}
	n.line = y.Line
	return y.Decode((*plain)(n))
}

// lineError is an error at a line of the file being decoded.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.msg) }

func knownKeys(n *yaml.Node, known ...string) error {
	if n.Kind != yaml.MappingNode {
		return &lineError{n.Line, "a mapping is expected here, as {" + known[0] + ": …}"}
	}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains(known, k.Value) {
			return &lineError{k.Line, fmt.Sprintf("unknown key %q; known here: %s", k.Value, strings.Join(known, ", "))}
		}
	}
	return nil
}

// yamlLine is how the library puts a line into its errors.
var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

// parseConfig decodes the cluster's file strictly. name is for errors.
func parseConfig(name string, b []byte) (rawConfig, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	var c rawConfig
	err := dec.Decode(&c)
	var at *lineError
	switch {
	case errors.Is(err, io.EOF):
		return c, usagef("%s: the file is empty; it needs meters and nodes", name)
	case errors.As(err, &at):
		return c, usagef("%s:%d: %s", name, at.line, at.msg)
	case err != nil:
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			return c, usagef("%s:%s: %s", name, m[1], strings.Replace(m[2], " in type main.rawConfig", "; known here: meters, nodes, functions", 1))
		}
		return c, usagef("%s: %s", name, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return c, usagef("%s: a second document follows; there must be one", name)
	}
	return c, nil
}

// loadConfig reads the cluster's file and returns the sources of the nodes that the agents named serve.
func loadConfig(path string, agents []string) ([]source, []rawFunction, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, usagef("configuration: %w; give one with --config.file, or a meter with --meter.url", err)
	}
	c, err := parseConfig(path, b)
	if err != nil {
		return nil, nil, err
	}
	sources, err := c.sources(path, agents)
	return sources, c.Functions, err
}

// sources checks the whole file, then picks: a node is served by the agent of its own name or the one its agent key names.
func (c rawConfig) sources(path string, agents []string) ([]source, error) {
	var out []source
	for _, name := range slices.Sorted(maps.Keys(c.Meters)) {
		if err := c.Meters[name].check(name); err != nil {
			return nil, usagef("%s:%d: %w", path, c.Meters[name].line, err)
		}
	}
	for i := range c.Functions {
		if err := c.Functions[i].check(); err != nil {
			return nil, usagef("%s:%d: %w", path, c.Functions[i].line, err)
		}
	}
	used := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Nodes)) {
		n := c.Nodes[name]
		s, err := n.source(name, c.Meters)
		if err != nil {
			return nil, usagef("%s:%d: %w", path, n.line, err)
		}
		if n.Meter != "" {
			at := fmt.Sprintf("meter %s channel %d", n.Meter, n.Channel)
			if other, taken := used[at]; taken {
				return nil, usagef("%s:%d: node %s: %s measures %s already", path, n.line, name, at, other)
			}
			used[at] = name
		}
		if slices.Contains(agents, cmp.Or(n.Agent, name)) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, usagef("%s: no node %s; there are %s; choose with --node or NODE_NAME", path,
			strings.Join(agents, ", "), strings.Join(slices.Sorted(maps.Keys(c.Nodes)), ", "))
	}
	for i := range out {
		if m, ok := c.Meters[c.Nodes[out[i].node].Meter]; ok && m.PSKFile != "" {
			file := m.PSKFile
			if !filepath.IsAbs(file) {
				file = filepath.Join(filepath.Dir(path), file)
			}
			key, err := meter.ReadKey(file)
			if err != nil {
				return nil, usagef("%s:%d: meter %s: %w", path, m.line, c.Nodes[out[i].node].Meter, err)
			}
			out[i].key = key
		}
	}
	return out, nil
}

// check finds what is wrong with a meter before any node uses it.
func (m rawMeter) check(name string) error {
	u, err := url.Parse(m.URL)
	switch {
	case m.URL == "":
		return fmt.Errorf("meter %s: url is missing, as coaps://10.0.0.5", name)
	case err != nil || u.Host == "":
		return fmt.Errorf("meter %s: url %q is not a URL, as coaps://10.0.0.5", name, m.URL)
	}
	switch u.Scheme {
	case "coaps":
		if m.PSKIdentity == "" || m.PSKFile == "" {
			return fmt.Errorf("meter %s: psk_identity and psk_file are needed; wattctl meter provision makes them", name)
		}
	case "coap":
	case "udp":
		if _, err := energy.ParseVoltage(m.SupplyVoltage); err != nil {
			return fmt.Errorf("meter %s: supply_voltage: %w; a board with the earlier firmware measures charge only", name, err)
		}
		return nil
	default:
		return fmt.Errorf("meter %s: url %q: the scheme must be coaps, or udp for a board with the earlier firmware", name, m.URL)
	}
	if m.SupplyVoltage != "" {
		return fmt.Errorf("meter %s: supply_voltage is for udp meters only; this one measures voltage", name)
	}
	return nil
}

// source turns a checked node into a source, but for its key.
func (n rawNode) source(name string, meters map[string]rawMeter) (source, error) {
	s := source{node: name, channel: n.Channel}
	switch {
	case (n.Meter == "") == (n.Sysfs == ""):
		return s, fmt.Errorf("node %s: give either meter and channel, or sysfs", name)
	case n.Sysfs != "":
		if n.Channel != 0 {
			return s, fmt.Errorf("node %s: channel goes with meter, not with sysfs; choose a sensor with device and rail", name)
		}
		s.kind, s.name, s.sysfs, s.device, s.rail, s.channel = "sysfs", name+"/"+n.Sysfs, n.Sysfs, n.Device, n.Rail, 1
		return s, nil
	case n.Device != "" || n.Rail != "":
		return s, fmt.Errorf("node %s: device and rail go with sysfs, not with meter", name)
	}
	m, ok := meters[n.Meter]
	if !ok {
		return s, fmt.Errorf("node %s: no meter %q; there are %s", name, n.Meter, strings.Join(slices.Sorted(maps.Keys(meters)), ", "))
	}
	if n.Channel < 1 || n.Channel > 255 {
		return s, fmt.Errorf("node %s: channel %d; it must be the number printed beside the meter's terminal, from 1", name, n.Channel)
	}
	s.kind, s.name, s.url, s.pskIdentity = "meter", n.Meter, m.URL, m.PSKIdentity
	if strings.HasPrefix(m.URL, "udp:") {
		// One request, and so one source, per channel.
		s.kind, s.name = "legacy", fmt.Sprintf("%s/%d", n.Meter, n.Channel)
		s.supplyVoltage, _ = energy.ParseVoltage(m.SupplyVoltage) // checked before
	}
	return s, nil
}
