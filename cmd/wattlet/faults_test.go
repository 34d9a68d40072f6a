package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
)

const staleAfter = time.Second

// witness looks at an agent's snapshots and checks what must be true of each and from one to the next.
type witness struct {
	*process
	watts  map[string]float64 // of the loads, which are steady
	energy map[string]int64   // last seen
}

func (w *witness) look() exporter.SnapshotView {
	w.t.Helper()
	s := w.snapshot()
	for _, n := range s.Nodes {
		if before, known := w.energy[n.Node]; known && (n.EnergyUJ == nil || *n.EnergyUJ < before) {
			w.t.Fatalf("node %s: energy was %d µJ and is %v", n.Node, before, n.EnergyUJ)
		}
		if n.EnergyUJ != nil {
			w.energy[n.Node] = *n.EnergyUJ
		}
		if n.At == nil {
			continue
		}
		// Means are true, and there as long as the reading is recent; rounding aside. A sensor's first value after a hole makes no
		// mean yet.
		switch age := s.Time.Sub(*n.At); {
		case n.PowerUW != nil && !within(float64(*n.PowerUW), w.watts[n.Node]*1e6, 0.05):
			w.t.Fatalf("node %s: a power of %d µW, but the load is steadily %v W", n.Node, *n.PowerUW, w.watts[n.Node])
		case n.PowerUW == nil && n.Node != "orin" && age < staleAfter-time.Millisecond:
			w.t.Fatalf("node %s: no power, but the reading is only %v old", n.Node, age)
		case n.PowerUW != nil && age > staleAfter+time.Millisecond:
			w.t.Fatalf("node %s: a power of %d µW, but the reading is %v old", n.Node, *n.PowerUW, age)
		}
	}
	return s
}

// until looks until the condition holds for a node.
func (w *witness) until(what, node string, holds func(n exporter.NodeView) bool) {
	w.t.Helper()
	w.wait(node+": "+what, func() bool { return holds(find(w.t, w.look(), node)) })
}

// othersGoOn waits until every node that is not broken has drawn another joule, and checks that the energy of those that are
// stood still.
func (w *witness) othersGoOn(broken ...string) {
	w.t.Helper()
	first := w.look()
	var last exporter.SnapshotView
	w.wait(fmt.Sprintf("all but %q go on", broken), func() bool {
		last = w.look()
		return !slices.ContainsFunc(last.Nodes, func(n exporter.NodeView) bool {
			return !slices.Contains(broken, n.Node) && *n.EnergyUJ < *find(w.t, first, n.Node).EnergyUJ+1_000_000
		})
	})
	for _, node := range broken {
		if a, b := *find(w.t, first, node).EnergyUJ, *find(w.t, last, node).EnergyUJ; a != b {
			w.t.Errorf("node %s: energy went from %d to %d µJ while nobody could know", node, a, b)
		}
	}
}

// silent checks that a scrape has the node's totals but none of its means.
func (w *witness) silent(node string) {
	w.t.Helper()
	series := w.scrape()
	for name, want := range map[string]bool{
		"wattlet_node_energy_joules_total": true, "wattlet_node_charge_coulombs_total": true, "wattlet_node_unmeasured_seconds_total": true,
		"wattlet_node_power_watts": false, "wattlet_node_current_amperes": false, "wattlet_node_voltage_volts": false,
	} {
		if _, there := series[name+`{node="`+node+`"}`]; there != want {
			w.t.Errorf("%s of node %s: in the scrape %v, want %v", name, node, there, want)
		}
	}
}

// errors returns how often a meter failed: by kind, and all together.
func (w *witness) errors(meter, kind string) (ofKind, all float64) {
	w.t.Helper()
	series := w.scrape()
	return series[`wattlet_meter_errors_total{kind="`+kind+`",meter="`+meter+`",node="good"}`],
		series[`wattlet_source_errors_total{node="good",source="`+meter+`"}`]
}

// counted waits for errors of a kind.
func (w *witness) counted(meter, kind string) {
	w.t.Helper()
	w.wait(meter+": errors of kind "+kind, func() bool {
		w.look()
		ofKind, all := w.errors(meter, kind)
		return ofKind > 0 && all >= ofKind
	})
}

// said waits until the log has so many lines with all the words, and checks that it has no more.
func (w *witness) said(least, most int, words ...string) {
	w.t.Helper()
	n := 0
	w.wait(fmt.Sprintf("the log has %d lines with %q", least, words), func() bool { // what is shown may be ahead of what is logged
		n = 0
		for line := range strings.Lines(w.logged()) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				n++
			}
		}
		return n >= least
	})
	if n > most {
		w.t.Errorf("the log has %d lines with %q, want %d to %d", n, words, least, most)
	}
}

func measured(n exporter.NodeView) bool   { return n.PowerUW != nil }
func unmeasured(n exporter.NodeView) bool { return n.PowerUW == nil }

// TestFaultMatrix breaks one source after the other of one agent. Whatever is broken costs its own series only.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	five := []metersim.Channel{{Load: metersim.Constant(5 * energy.Watt), Ideal: true}}
	good := startMeter(t, metersim.Options{Channels: five})

	// dead is behind a cable that can be cut.
	dead := startMeter(t, metersim.Options{Channels: five})
	cable, deadURL := startLink(t, metersim.LinkOptions{Target: dead.Addr().String()})

	// gone is a program that ends: the host says that nobody listens there.
	gone := newMeter(t, metersim.Options{Channels: five})
	goneAt := gone.Addr().String()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := gone.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer ended.Wait()
	defer end()

	// locked gets another key.
	var key atomic.Value
	key.Store(testKey)
	locked := startMeter(t, metersim.Options{Channels: five, RebootTakes: 50 * time.Millisecond, PSK: func(id string) ([]byte, bool) {
		k, _ := key.Load().([]byte)
		return k, id == "wattlet"
	}})

	tree, state := newSysfs(t), t.TempDir()
	p := startAgent(t, "--node=good,dead,gone,locked,orin", "--tick=50ms", "--stale-after="+staleAfter.String(), "--path.sys="+tree.root,
		"--state.directory="+state, "--state.interval=1s", "--config.file="+clusterFile(t, `
meters:
  good: {url: "%s", psk_identity: wattlet, psk_file: psk}
  dead: {url: "%s", psk_identity: wattlet, psk_file: psk}
  gone: {url: "%s", psk_identity: wattlet, psk_file: psk}
  locked: {url: "%s", psk_identity: wattlet, psk_file: psk}
nodes:
  good: {meter: good, channel: 1}
  dead: {meter: dead, channel: 1}
  gone: {meter: gone, channel: 1}
  locked: {meter: locked, channel: 1}
  orin: {sysfs: hwmon}
`, good.URL(), deadURL, gone.URL(), locked.URL()))
	w := &witness{p, map[string]float64{"good": 5, "dead": 5, "gone": 5, "locked": 5, "orin": 3}, map[string]int64{}}
	for node := range w.watts {
		w.until("is measured", node, measured)
	}

	// The meter gets another key. A peer with a wrong key looks dead until the handshake's time, 20 s, is over; all else happens
	// meanwhile.
	key.Store([]byte("another key for this one meter.."))
	locked.Reboot()
	w.until("means are gone", "locked", unmeasured)
	w.counted("locked", "silence")
	w.silent("locked")
	w.othersGoOn("locked")

	// The meter's cable is cut.
	cable.Pause()
	w.until("means are gone", "dead", unmeasured)
	w.counted("dead", "silence")
	w.silent("dead")
	w.othersGoOn("dead", "locked")
	w.said(1, 1, "meter lost", deadURL)
	cable.Resume()
	w.until("is measured again", "dead", measured)
	w.said(1, 1, "meter lost", deadURL)
	w.said(2, 2, "meter up", deadURL)

	// The meter's program ends, and another one, which has just begun to count, takes its place.
	end()
	ended.Wait()
	_, release := nobody(t, goneAt)
	w.until("means are gone", "gone", unmeasured)
	w.counted("gone", "connect")
	w.silent("gone")
	w.othersGoOn("gone", "locked")
	release()
	startMeter(t, metersim.Options{Addr: goneAt, Channels: five})
	w.until("is measured again", "gone", measured)
	w.said(1, 2, "meter lost", goneAt) // it ended; nobody listens there
	w.said(2, 2, "meter up", goneAt)

	// The sensor's driver tells garbage, then the sensor goes, then it is there again under another number, as after a driver was
	// loaded anew.
	tree.write("in4_input", "garbage")
	w.until("means are gone", "orin", unmeasured)
	w.counted("orin/hwmon", "parse")
	w.silent("orin")
	w.othersGoOn("orin", "locked")
	tree.move("hwmon0")
	w.counted("orin/hwmon", "read")
	w.silent("orin")
	w.othersGoOn("orin", "locked")
	before := find(t, w.look(), "orin")
	tree.write("in4_input", "6000")
	tree.move("class/hwmon/hwmon3")
	w.until("is measured again", "orin", measured)
	if n := find(t, w.look(), "orin"); *n.UnmeasuredUs < *before.UnmeasuredUs+staleAfter.Microseconds() {
		t.Errorf("node orin: unmeasured time went from %d to %d µs; want the outage in it", *before.UnmeasuredUs, *n.UnmeasuredUs)
	}
	w.said(1, 1, "sysfs meter failing")
	w.said(1, 1, "sysfs meter recovered")

	// The totals cannot be saved: something is in the way of the new file.
	block := filepath.Join(state, "state.json.new")
	failed := func() float64 { return p.scrape()[`wattlet_source_errors_total{node="good",source="state"}`] }
	w.wait("the totals are saved", func() bool {
		b, err := os.ReadFile(filepath.Join(state, "state.json"))
		return err == nil && strings.Contains(string(b), "orin") && os.Mkdir(block, 0o750) == nil
	})
	w.wait("two saves have failed", func() bool { return failed() >= 2 })
	w.othersGoOn("locked")
	w.said(1, 1, "totals cannot be saved")
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	w.wait("the totals are saved again", func() bool { return strings.Contains(p.logged(), "the totals are saved again") })
	w.said(1, 1, "totals cannot be saved")

	// The key is put right as soon as the agent says that it may be wrong.
	w.wait("the log speaks of the key", func() bool {
		w.look()
		return slices.ContainsFunc(strings.Split(p.logged(), "\n"), func(line string) bool {
			// A meter may be mute when a peer has a wrong key, or end the handshake.
			return strings.Contains(line, locked.URL()) && (strings.Contains(line, "has another key") || strings.Contains(line, "no cipher suite or key"))
		})
	})
	key.Store(testKey)
	if firmware == "" {
		w.counted("locked", "connect")
	} else {
		locked.Reboot() // it asks for its key when it starts
		w.counted("locked", "key")
	}
	w.until("is measured again", "locked", measured)
	// Silence; no answer, or a refusal each time it tries; the reboot of one that reads its key at the start.
	w.said(1, map[bool]int{true: 2, false: 8}[firmware == ""], "meter lost", locked.URL())
	w.said(2, 2, "meter up", locked.URL())

	w.othersGoOn()
	p.stop()
}
