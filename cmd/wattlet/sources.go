package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/legacymeter"
	"github.com/wattlet/wattlet/internal/meter"
	"github.com/wattlet/wattlet/internal/sysfsmeter"
)

// open makes the source of a node's readings. A remote meter is not contacted; the node's own sensor must be there.
func (a *agent) open(s source) (accounting.Meter, error) {
	resume := func() (energy.Reading, bool) { return a.ledger.Last(s.name, s.channel) }
	switch s.kind {
	case "meter":
		var handshake time.Duration // the default
		if a.o.once {
			handshake = a.o.onceTimeout / 2 // so that a failure comes early enough to be told
		}
		m, err := meter.New(meter.Config{
			Endpoint: meter.Endpoint{URL: s.url, Identity: s.pskIdentity, Key: s.key},
			Logger:   a.o.log, Handshake: handshake,
		})
		if err != nil {
			return nil, usagef("node %s: %w", s.node, err)
		}
		return m, nil
	case "legacy":
		u, err := url.Parse(s.url)
		if err != nil {
			return nil, usagef("node %s: %w", s.node, err)
		}
		m, err := legacymeter.New(legacymeter.Config{
			Address: u.Host, Channel: s.channel, SupplyVoltage: s.supplyVoltage, Resume: resume, Logger: a.o.log,
		})
		if err != nil {
			return nil, usagef("node %s: %w", s.node, err)
		}
		return m, nil
	case "sysfs":
		m, err := sysfsmeter.Open(sysfsmeter.Config{
			Root: a.o.pathSys, ProcRoot: a.o.pathProc, Kind: s.sysfs, Device: s.device, Rail: s.rail,
			Period: a.o.sysfsPeriod, Resume: resume, Logger: a.o.log,
		})
		if err != nil {
			return nil, usagef("node %s: %w", s.node, err)
		}
		a.closers = append(a.closers, m)
		return m, nil
	default:
		return nil, fmt.Errorf("node %s: no source of kind %q", s.node, s.kind)
	}
}
