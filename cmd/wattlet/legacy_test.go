package main

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/legacymeter"
	"github.com/wattlet/wattlet/internal/metersim"
)

// What the earlier exporter's dashboards and scrapers see: 1 A, which is 5.1 W at the simulated meter's 5.1 V.
func TestEarlierExporter(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{Channels: []metersim.Channel{{Load: metersim.Constant(5_100_000), Ideal: true}}})
	link, url := startLink(t, metersim.LinkOptions{Target: sim.Addr().String()})
	link.Pause()
	p := startAgent(t, append(meterFlags(t, url), "--metrics.legacy", "--legacy.listen-address=127.0.0.1:0", "--tick=50ms")...)
	responders := slices.DeleteFunc(sockets(t, p.cmd.Process.Pid, "udp"), func(a string) bool {
		return !netip.MustParseAddrPort(a).Addr().IsLoopback()
	})
	if len(responders) != 1 {
		t.Fatalf("the agent answers at %q, want one port of loopback", responders)
	}
	ask := func(request string) []byte { return exchange(t, responders[0], request) }

	for _, request := range []string{"DATA_REQUEST", ""} {
		if answer := ask(request); len(answer) > 0 {
			t.Errorf("%q is answered with %x before the first reading, want an empty datagram", request, answer)
		}
	}
	if _, there := p.scrape()["powerexporter_current_ampere"]; there {
		t.Error("there is a current before the first reading")
	}

	link.Resume()
	p.wait("the node is measured for a second", func() bool {
		n := p.node("pi")
		return n.CurrentUA != nil && *n.ChargeUC > 1_000_000
	})
	before, series, after := p.node("pi"), p.scrape(), p.node("pi")
	got := map[string]float64{}
	for name, v := range series {
		if strings.Contains(name, "powerexporter") {
			got[name] = v
		}
	}
	charge, amperes := got["powerexporter_power_consumption_ampere_seconds_total"], got["powerexporter_current_ampere"]
	if len(got) != 2 || charge*1e6 < float64(*before.ChargeUC)-1 || charge*1e6 > float64(*after.ChargeUC)+1 || !within(amperes, 1, 0.01) {
		t.Errorf("series %v; want two without labels, with %d to %d µC and 1 A", got, *before.ChargeUC, *after.ChargeUC)
	}

	// The meter's totals reach back to its start, the node's to its first reading: they differ by a constant.
	var past []float64
	var lastAt uint64
	p.wait("three answers of different readings are in a snapshot as well", func() bool {
		n := p.node("pi")
		for _, request := range []string{"DATA_REQUEST", ""} {
			m, err := legacymeter.Parse(ask(request))
			if err != nil {
				t.Fatal(err)
			}
			// The firmware looks at its sensors for 0.2 s before it measures.
			s := float64(m.TimestampUS) / 1e6
			if firmware != "" {
				s -= 0.2
			}
			if !within(m.ChargeMAS, 1000*s, 0.01) || !within(float64(m.CurrentMA), 1000, 0.01) {
				t.Fatalf("%q is answered with %+v; want 1000 mA since the meter's start", request, m)
			}
			if m.TimestampUS == uint64(n.SourceAtUs) && m.TimestampUS > lastAt {
				lastAt, past = m.TimestampUS, append(past, m.ChargeMAS*1e3-float64(*n.ChargeUC))
			}
		}
		return len(past) >= 3
	})
	if slices.Max(past)-slices.Min(past) > 1 || past[0] < 0 {
		t.Errorf("answers exceed the snapshot's charge by %.1f µC; want a constant", past)
	}
}

// exchange sends a datagram and returns the answer. UDP may lose either, so it asks again.
func exchange(t *testing.T, addr, request string) []byte {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2048)
		if n, err := conn.Read(answer); err == nil {
			return answer[:n]
		}
	}
	t.Fatalf("%s does not answer %q", addr, request)
	return nil
}

// board is a board with the earlier firmware that draws a steady current, switched on and off.
type board struct {
	t    *testing.T
	addr string
	off  func() // releases the address of a board that is off
	stop func()
}

func (b *board) switchOn(milliamperes float64) {
	b.t.Helper()
	if b.off != nil {
		b.off()
	}
	conn, err := net.ListenPacket("udp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.addr = conn.LocalAddr().String()
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() {
		done <- legacymeter.ServeBoard(ctx, conn, legacymeter.BoardOptions{
			Interval: 100 * time.Millisecond,
			Measure: func(_ int, uptime time.Duration) legacymeter.Message {
				us := uptime.Microseconds()
				return legacymeter.Message{
					TimestampUS: uint64(us), ChargeMAS: milliamperes * float64(us) / 1e6, CurrentMA: float32(milliamperes),
				}
			},
		})
	}()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
}

func (b *board) switchOff() {
	b.t.Helper()
	b.stop()
	_, b.off = nobody(b.t, b.addr)
}

// A board with the earlier firmware, of which the agent makes energy: 300 mA at an assumed 5.1 V are 1.53 W.
func TestEarlierBoard(t *testing.T) {
	t.Parallel()
	b := &board{t: t, addr: "127.0.0.1:0"}
	b.switchOn(300)
	p := startAgent(t, "--node=pi", "--tick=100ms", "--stale-after=2s", "--config.file="+clusterFile(t, `
meters:
  old: {url: "udp://%s", supply_voltage: 5.1V}
nodes:
  pi: {meter: old, channel: 3}
`, b.addr))
	p.wait("it has measured a joule", func() bool {
		n := p.node("pi")
		return n.PowerUW != nil && *n.EnergyUJ > 1_000_000
	})
	n := p.node("pi")
	if !n.Estimated || n.VoltageUV != nil || !within(float64(*n.PowerUW), 1.53e6, 0.001) || !within(float64(*n.CurrentUA), 300e3, 0.001) {
		t.Errorf("node %+v; want 1.53 W, 300 mA, no voltage, and that it is estimated", n)
	}
	isCharge := func(what string, uj, uc int64) {
		// A microcoulomb is 5.1 µJ; an energy is rounded once for each of the two board's starts.
		if want := float64(uc) * 5.1; float64(uj) < want-3 || float64(uj) > want+3 {
			t.Errorf("%s: %v of %v; want its charge times 5.1 V", what, energy.Energy(uj), energy.Charge(uc))
		}
	}
	isCharge("first start", *n.EnergyUJ, *n.ChargeUC)
	series := p.scrape()
	for name, want := range map[string]float64{
		`wattlet_node_info{channel="3",estimated="true",meter="old/3",node="pi"}`:                                   1,
		`wattlet_meter_info{firmware="",identity="` + b.addr + ` channel 3",kind="legacy",meter="old/3",node="pi"}`: 1,
		`wattlet_meter_up{meter="old/3",node="pi"}`:                                                                 1,
	} {
		if got, there := series[name]; !there || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, there, want)
		}
	}
	for name := range series {
		if strings.HasPrefix(name, "wattlet_node_voltage_volts") {
			t.Errorf("there is %s, but nobody measures the voltage", name)
		}
	}

	// Off for longer than means may be old, then on with another current. The board sends to nobody then, until it is asked
	// again after 10 s of silence.
	b.switchOff()
	since := time.Now()
	p.wait("the means are gone", func() bool { return p.node("pi").PowerUW == nil })
	last := p.node("pi")
	b.switchOn(600)
	off := time.Since(since)
	defer func() { b.stop() }()
	p.wait("the board is heard again", func() bool {
		n = p.node("pi")
		return n.PowerUW != nil && n.SourceEpoch != last.SourceEpoch
	})
	isCharge("both starts", *n.EnergyUJ, *n.ChargeUC)
	// 600 mA at 5.1 V since the board's start, though nobody asked it for most of that time.
	if got, want := *n.EnergyUJ-*last.EnergyUJ, 3.06*float64(n.SourceAtUs); float64(got) < want-3 || float64(got) > want+6 {
		t.Errorf("since its new start %d µs ago the board drew %v, want %.0f µJ", n.SourceAtUs, energy.Energy(got), want)
	}
	unmeasured := time.Duration(*n.UnmeasuredUs-*last.UnmeasuredUs) * time.Microsecond
	// From its last message, which was up to an interval before, to its start as the arrival of messages tells it.
	if unmeasured < off-200*time.Millisecond || unmeasured > off+2*time.Second {
		t.Errorf("the board was off for %v, of which %v are unmeasured", off, unmeasured)
	}
	series = p.scrape()
	if got := series[`wattlet_meter_restarts_total{meter="old/3",node="pi"}`]; got != 1 {
		t.Errorf("%v restarts, want 1", got)
	}
	for _, log := range []string{"legacy meter is heard", "legacy meter has fallen silent", "legacy meter has started anew"} {
		want := 1
		if strings.Contains(log, "heard") {
			want = 2
		}
		if got := strings.Count(p.logged(), log); got != want {
			t.Errorf("the log says %d times %q, want %d", got, log, want)
		}
	}
	if got := p.snapshot().Meters[0].Connects; got != 2 {
		t.Errorf("the board was asked %d times, want 2: each request takes memory of a board", got)
	}
}
