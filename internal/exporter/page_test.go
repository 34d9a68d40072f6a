package exporter

import (
	"strings"
	"testing"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/energy"
)

func TestPage(t *testing.T) {
	s := &accounting.Snapshot{
		Nodes: []accounting.Node{
			{Name: "pi", Meter: "bench", Channel: 5, Known: true, Energy: 12 * energy.Joule, Fresh: true, Power: 5 * energy.Watt, Voltage: 5 * energy.Volt},
			{Name: "<nas>", Meter: "nas/powercap", Channel: 1, Fresh: true, EnergyOnly: true, Power: energy.Watt},
		},
		Meters: []accounting.Source{{Name: "bench", Status: energy.Status{Err: "<script>alert(1)</script>"}}},
	}
	got := page(s, "1.0")
	for _, want := range []string{
		"<td>pi<td>5.000 W<td>5.000 V<td>0 A<td>12.000 J<td>0s<td>bench channel 5",
		"<td>&lt;nas&gt;<td>1.000 W<td>–<td>–<td>–<td>–<td>",
		"Meter bench is down: &lt;script&gt;",
		"Version 1.0.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
