package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/legacymeter"
)

type importCmd struct {
	File          string `arg:"" type:"existingfile" help:"The earlier client's file, as power-monitoring.conf."`
	SupplyVoltage string `default:"5V" help:"Voltage assumed for the boards' supply: the earlier firmware measures charge only."`
}

// Run prints the cluster's file for the same boards and nodes.
func (c importCmd) Run(a *app) error {
	supply, err := energy.ParseVoltage(c.SupplyVoltage)
	if err != nil {
		return usagef("--supply-voltage: %w", err)
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return usageError{err}
	}
	nodes, err := legacymeter.ParseConfig(c.File, b)
	if err != nil {
		return usageError{err}
	}
	type meterEntry struct {
		URL           string `yaml:"url"`
		SupplyVoltage string `yaml:"supply_voltage"`
	}
	type nodeEntry struct {
		Meter   string `yaml:"meter"`
		Channel int    `yaml:"channel"`
	}
	out := struct {
		Meters map[string]meterEntry `yaml:"meters"`
		Nodes  map[string]nodeEntry  `yaml:"nodes"`
	}{map[string]meterEntry{}, map[string]nodeEntry{}}
	if len(nodes) == 0 {
		return usagef("%s: there is no node in it", c.File)
	}
	names := map[netip.AddrPort]string{}
	type terminal struct {
		server  netip.AddrPort
		channel int
	}
	wired := map[terminal]string{}
	for _, n := range nodes {
		at := terminal{n.Server, n.Channel}
		if other, taken := wired[at]; taken {
			return usagef("%s:%d: node %q: channel %d of %v measures node %q already", c.File, n.Line, n.Title, n.Channel, n.Server, other)
		}
		wired[at] = n.Title
		if _, err := legacymeter.New(legacymeter.Config{Address: n.Server.String(), Channel: n.Channel, SupplyVoltage: supply}); err != nil {
			return usageError{err} // the voltage's: the file's own are checked
		}
		name, known := names[n.Server]
		if !known {
			name = fmt.Sprintf("board-%d", len(names)+1)
			names[n.Server] = name
			out.Meters[name] = meterEntry{"udp://" + n.Server.String(), c.SupplyVoltage}
		}
		out.Nodes[n.Title] = nodeEntry{name, n.Channel}
	}
	var text strings.Builder
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("cluster file: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, "# From %s. Energy of these boards is charge times supply_voltage: measure it and correct it.\n%s", c.File, text.String())
	return err
}
