package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/exporter"
)

// once prints one reading of every node. It fails, after printing what there is, if a node gave none in time.
func (a *agent) once(ctx context.Context, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, a.o.onceTimeout)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.ledger.Run(ctx) })
	for name, m := range a.meters {
		g.Go(func() error { return m.Run(ctx, a.ledger.Sink(name)) })
	}
	var last *accounting.Snapshot
	g.Go(func() error {
		defer cancel()
		poll := time.NewTicker(min(a.o.tick, 100*time.Millisecond))
		defer poll.Stop()
		for {
			if last = a.ledger.Snapshot(); silent(last) == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return nil
			case <-poll.C:
			}
		}
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := printOnce(stdout, last, a.o.json); err != nil {
		return err
	}
	return silent(last)
}

// silent says which node has no reading yet, and why.
func silent(s *accounting.Snapshot) error {
	for _, n := range s.Nodes {
		if n.Fresh {
			continue
		}
		for _, m := range s.Meters {
			if m.Name == n.Meter && m.Err != "" {
				return fmt.Errorf("node %s: no reading: %s", n.Name, m.Err)
			}
		}
		return fmt.Errorf("node %s: no reading: meter %s gives none for channel %d", n.Name, n.Meter, n.Channel)
	}
	return nil
}

func printOnce(w io.Writer, s *accounting.Snapshot, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(exporter.View(s))
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "NODE\tPOWER\tVOLTAGE\tCURRENT\tMETER\tCHANNEL\t")
	for _, n := range s.Nodes {
		if !n.Fresh {
			fmt.Fprintf(tw, "%s\t-\t-\t-\t%s\t%d\t\n", n.Name, n.Meter, n.Channel)
			continue
		}
		voltage, current := n.Voltage.String(), n.Current.String()
		if n.EnergyOnly {
			current = "-"
		}
		if n.EnergyOnly || n.Estimated {
			voltage = "-"
		}
		fmt.Fprintf(tw, "%s\t%v\t%s\t%s\t%s\t%d\t\n", n.Name, n.Power, voltage, current, n.Meter, n.Channel)
	}
	return tw.Flush()
}
