package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wattlet/wattlet/internal/dnssd"
	"github.com/wattlet/wattlet/internal/meter"
)

type discoverCmd struct {
	For       time.Duration `default:"3s" help:"How long to listen."`
	Interface []string      `placeholder:"NAME,..." help:"Only on these interfaces."`
	JSON      bool          `name:"json" xor:"form" help:"Print JSON."`
	URL       string        `placeholder:"URL" xor:"form" help:"Ask this meter what it offers (/.well-known/core) instead of listening."`
	Key       keyFlags      `embed:""`
}

// found is a meter as discovery shows it.
type found struct {
	Name      string `json:"name"`
	URL       string `json:"url"`
	Serial    string `json:"serial"`
	Firmware  string `json:"firmware"`
	Channels  int    `json:"channels"`
	Interface string `json:"interface"`
}

// Run lists the meters that answer on the local links.
func (c discoverCmd) Run(a *app) error {
	if c.URL != "" {
		return c.resources(a)
	}
	ctx, cancel := context.WithTimeout(a.ctx, c.For)
	defer cancel()
	meters := map[string]found{}
	err := dnssd.Browse(ctx, dnssd.MeterType, c.Interface, func(s dnssd.Service) {
		m, err := dnssd.ParseMeter(s.TXT)
		if err != nil || len(s.Addrs) == 0 {
			return // another kind of CoAP device
		}
		meters[s.Interface+"/"+s.Instance] = found{
			Name: dnssd.Printable(s.Instance), Serial: m.ID, Firmware: m.Firmware, Channels: m.Channels, Interface: s.Interface,
			URL: meterURL(netip.AddrPortFrom(s.Addrs[0], s.Port)),
		}
	})
	if err != nil {
		return fmt.Errorf("look for meters: %w", err)
	}
	list := make([]found, 0, len(meters))
	for _, m := range meters {
		list = append(list, m)
	}
	slices.SortFunc(list, func(x, y found) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Interface, y.Interface))
	})
	if c.JSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	if len(list) == 0 {
		return fmt.Errorf("no meter answered within %v; are you on its network, and is it on? Ask one by address with --url=coaps://HOST", c.For)
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tURL\tCHANNELS\tFIRMWARE\tSERIAL\tINTERFACE")
	for _, m := range list {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%s\n", m.Name, m.URL, m.Channels, m.Firmware, m.Serial, m.Interface)
	}
	return tw.Flush()
}

// resources asks one meter.
func (c discoverCmd) resources(a *app) error {
	ep, err := c.Key.endpoint(c.URL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, 20*time.Second)
	defer cancel()
	conn, err := meter.Dial(ctx, ep)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	links, err := conn.Resources(ctx)
	if err != nil {
		return err
	}
	// One link a line; they are separated by commas (RFC 6690 section 2).
	for l := range strings.SplitSeq(strings.ReplaceAll(links, ",<", "\n<"), "\n") {
		if _, err := fmt.Fprintln(a.stdout, dnssd.Printable(l)); err != nil {
			return err
		}
	}
	return nil
}
