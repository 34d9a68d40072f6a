package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wattlet/wattlet/internal/dnssd"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
)

// loadHelp explains the load programs.
const loadHelp = "What a channel's board draws, else nothing: constant:5W, square:LOW,HIGH,PERIOD[,DUTY], sine:MEAN,AMPLITUDE,PERIOD, " +
	"ramp:LOW,HIGH,PERIOD, trace:FILE,hold (or linear; rows of seconds,watts), or several joined by +. May be repeated; * is every channel without one."

type simulateCmd struct {
	Listen string   `default:"127.0.0.1:5684" help:"UDP address to serve on."`
	Name   string   `default:"metersim" help:"The meter's name."`
	Key    keyFlags `embed:""`

	Meter    meterFlags        `embed:""`
	Channels int               `default:"6" help:"Number of channels, up to 12."`
	Load     map[string]string `mapsep:"none" placeholder:"CH=PROGRAM" help:"${load_help}"`

	Ideal       bool           `group:"Sensor" help:"A perfect sensor: energy is the load's exact integral."`
	Supply      string         `group:"Sensor" default:"5.1V" help:"Voltage of the boards' supply."`
	Shunt       float64        `group:"Sensor" default:"0.1" help:"Shunt in ohm. 0.1 saturates at 1.64 A."`
	GainError   float64        `group:"Sensor" default:"0" help:"Gain error of the shunt reading in ppm."`
	OffsetError float64        `group:"Sensor" default:"0" help:"Offset error of the shunt reading in µV."`
	Noise       float64        `group:"Sensor" default:"1" help:"Noise of a conversion in counts, rms."`
	SensorError float64        `group:"Sensor" default:"0" help:"Probability that a conversion cannot be read."`
	ClockDrift  float64        `group:"Sensor" default:"0" help:"Rate error of the meter's clock in ppm."`
	SweepPeriod time.Duration  `group:"Sensor" default:"2ms" help:"Time between two sweeps over all channels."`
	SweepJitter *time.Duration `group:"Sensor" placeholder:"DURATION" help:"Random shift of a sweep, against loads in step with it; default a whole period."`
	ReportEvery time.Duration  `group:"Sensor" default:"100ms" help:"Time between two reports."`
	Seed        uint64         `group:"Sensor" placeholder:"N" help:"Makes noise and faults repeatable."`

	Loss        float64       `group:"Faults" default:"0" help:"Probability that a datagram is lost, each way."`
	Duplicate   float64       `group:"Faults" default:"0" help:"Probability that a datagram arrives twice."`
	Reorder     float64       `group:"Faults" default:"0" help:"Probability that a datagram is overtaken."`
	Delay       time.Duration `group:"Faults" default:"0s" help:"Delay of each datagram."`
	Jitter      time.Duration `group:"Faults" default:"0s" help:"Random further delay of each datagram."`
	RebootEvery time.Duration `group:"Faults" help:"Cut the meter's power that often."`
	RebootTakes time.Duration `group:"Faults" default:"1s" help:"How long the meter is away then."`

	Announce  bool   `help:"Announce the meter on the local network (DNS-SD), so that wattctl meter discover finds it."`
	Interface string `placeholder:"NAME" help:"Announce on this interface only."`
}

// options turns the flags into the simulator's.
func (c simulateCmd) options(log *slog.Logger) (metersim.Options, error) {
	var o metersim.Options
	supply, err := energy.ParseVoltage(c.Supply)
	switch {
	case err != nil:
		return o, usagef("--supply: %w", err)
	case net.ParseIP(c.Listen) != nil || !strings.Contains(c.Listen, ":"):
		return o, usagef("--listen=%s: write HOST:PORT, or :PORT for all addresses of this host", c.Listen)
	case c.Channels < 1 || c.Channels > 12:
		return o, usagef("--channels=%d: a meter has 1 to 12", c.Channels)
	case !(c.Shunt >= 100e-6 && c.Shunt <= 10):
		return o, usagef("--shunt=%v: it must be within 0.0001 and 10 ohm", c.Shunt)
	case min(c.SweepPeriod, c.ReportEvery, c.RebootTakes) <= 0:
		return o, usagef("--sweep-period=%v, --report-every=%v, --reboot-takes=%v: each must be above 0",
			c.SweepPeriod, c.ReportEvery, c.RebootTakes)
	}
	o = metersim.Options{
		Addr: c.Listen, Name: c.Name, SweepPeriod: c.SweepPeriod, SweepJitter: c.SweepPeriod, ReportInterval: c.ReportEvery,
		ClockDriftPPM: c.ClockDrift, Seed: c.Seed, RebootEvery: c.RebootEvery, RebootTakes: c.RebootTakes, Log: log,
		Channels: make([]metersim.Channel, c.Channels),
	}
	if c.SweepJitter != nil {
		o.SweepJitter = *c.SweepJitter
	}
	for i := range o.Channels {
		o.Channels[i] = metersim.Channel{
			Number: uint32(i + 1), Name: "channel " + strconv.Itoa(i+1), Supply: supply, ShuntUohm: uint32(c.Shunt*1e6 + 0.5),
			Ideal: c.Ideal, GainErrorPPM: c.GainError, OffsetUV: c.OffsetError, Noise: c.Noise, SensorError: c.SensorError,
		}
	}
	one := o
	one.Channels = o.Channels[:1] // all are alike
	if err := one.Validate(); err != nil {
		return o, usageError{err}
	}
	for _, ch := range slices.Sorted(maps.Keys(c.Load)) {
		load, err := metersim.ParseLoad(c.Load[ch], func(name string) (io.ReadCloser, error) { return os.Open(name) })
		if err != nil {
			return o, usagef("--load %s: %w", ch, err)
		}
		n, err := strconv.Atoi(ch)
		switch {
		case ch == "*":
			for i := range o.Channels {
				if o.Channels[i].Load == nil {
					o.Channels[i].Load = load
				}
			}
		case err != nil || n < 1 || n > c.Channels:
			return o, usagef("--load %s=…: no channel %s; there are 1 to %d", ch, ch, c.Channels)
		default:
			o.Channels[n-1].Load = load
		}
	}
	return o, nil
}

// faults says whether the network is to be bad.
func (c simulateCmd) faults() bool {
	return c.Loss != 0 || c.Duplicate != 0 || c.Reorder != 0 || c.Delay != 0 || c.Jitter != 0
}

// Run serves a simulated meter until interrupted.
func (c simulateCmd) Run(a *app) error {
	// Without the meter's own URL, which with a bad network in front is not the one to use.
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == "url" {
			return slog.Attr{}
		}
		return attr
	}}))
	o, err := c.options(log)
	if err != nil {
		return err
	}
	key, err := c.Key.key()
	if err != nil {
		return err
	}
	if key == nil {
		if key, err = newKey(); err != nil {
			return err
		}
	}
	if c.faults() {
		o.Addr = "127.0.0.1:0" // the bad network is in front
	}
	if c.Meter.Meter == "firmware" && (c.Ideal || c.SensorError != 0) {
		return usagef("--meter=firmware has sensors that are neither ideal nor fail at random: leave out --ideal and --sensor-error")
	}
	sim, err := c.Meter.listen(o, c.Key.PSKIdentity, key)
	if err != nil {
		return c.listenError(err)
	}
	defer sim.Close() //nolint:errcheck // Run has closed it
	g, ctx := errgroup.WithContext(a.ctx)
	addr := sim.Addr()
	var link *metersim.Link
	if c.faults() {
		link, err = metersim.ListenLink(metersim.LinkOptions{
			Addr: c.Listen, Target: addr.String(), Loss: c.Loss, Duplicate: c.Duplicate, Reorder: c.Reorder, Delay: c.Delay,
			Jitter: c.Jitter, Seed: c.Seed,
		})
		if err != nil {
			return c.listenError(err)
		}
		defer link.Close() //nolint:errcheck // Run has closed it
		addr = link.Addr()
	}
	if c.Announce && addr.IP.IsLoopback() {
		return usagef("--announce: nobody else reaches %s; listen where others do, as with --listen=:5684", addr)
	}
	if link != nil {
		g.Go(func() error { return link.Run(ctx) })
	}
	g.Go(func() error { return sim.Run(ctx) })
	if c.Announce {
		g.Go(func() error { return c.announce(ctx, addr) })
	}
	c.tell(a, addr.AddrPort(), key)
	if err := g.Wait(); err != nil {
		return err
	}
	for _, ch := range o.Channels {
		fmt.Fprintf(a.stdout, "channel %d drew %v\n", ch.Number, sim.Truth(ch.Number))
	}
	if link != nil {
		s := link.Stats()
		fmt.Fprintf(a.stdout, "network: %d datagrams passed, %d lost, %d doubled, %d overtaken\n", s.Forwarded, s.Dropped, s.Duplicated, s.Reordered)
	}
	return nil
}

// tell says where the meter is and how to read it.
func (c simulateCmd) tell(a *app, at netip.AddrPort, key []byte) {
	url := meterURL(here(at))
	fmt.Fprintf(a.stdout, "Simulated meter %s with %d channels at %s\n", c.Name, c.Channels, url)
	how, file := "To read it", shellWord(c.Key.PSKFile)
	if c.Key.PSKFile == "" {
		fmt.Fprintf(a.stdout, "No --psk-file was given: for this run the key is %s\n", key)
		how, file = "To read it, in bash", fmt.Sprintf("<(echo %s)", key)
	}
	fmt.Fprintf(a.stdout, "%s:\n\n  wattctl meter read %s --psk-identity=%s --psk-file=%s\n\nCtrl-C ends it.\n",
		how, shellWord(url), shellWord(c.Key.PSKIdentity), file)
}

// listenError tells faults of the command line from addresses that cannot be had now.
func (c simulateCmd) listenError(err error) error {
	if errors.Is(err, metersim.ErrOptions) {
		return usageError{err}
	}
	return fmt.Errorf("--listen: %w", err)
}

// announce makes the meter known to wattctl meter discover.
func (c simulateCmd) announce(ctx context.Context, addr *net.UDPAddr) error {
	s := dnssd.Service{
		Instance: c.Name, Port: uint16(addr.Port), Interface: c.Interface,
		TXT: dnssd.Meter{ID: "sim:" + c.Name, Firmware: "simulator " + version, Channels: c.Channels}.TXT(),
	}
	if ip, ok := netip.AddrFromSlice(addr.IP); ok && !ip.IsUnspecified() {
		s.Addrs = []netip.Addr{ip.Unmap()}
	}
	return dnssd.Announce(ctx, dnssd.MeterType, s)
}
