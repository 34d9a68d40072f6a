package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/hostclock"
)

// attribution is what the agent needs to split its own node's energy; nil where it cannot or is not to.
type attribution struct {
	directory *directory
	usage     *cgroup.Reader
	config    *accounting.AttributionConfig
}

// openAttribution opens the kernel's counters. Without them the agent measures all the same.
func (a *agent) openAttribution() *attribution {
	o := a.o
	node := o.nodes[0]
	i := -1
	for j := range o.sources {
		if o.sources[j].node == node {
			i = j
		}
	}
	if !o.attribution || i < 0 {
		return nil
	}
	reader, err := cgroup.New(cgroup.Options{
		CgroupRoot: o.pathCgroup, ProcRoot: o.pathProc, SysRoot: o.pathSys, Uptime: hostclock.Uptime, Pods: true,
	})
	if err != nil {
		a.unsplit = err
		return nil
	}
	a.closers = append(a.closers, reader)
	d := &directory{node: node, file: o.functionsFile, static: o.functions, log: o.log}
	if text, err := os.ReadFile(filepath.Join(o.pathProc, "self", "cgroup")); err == nil {
		d.own = ownGroup(string(text))
	}
	d.reload()
	board := accounting.Board{Sharing: accounting.Sharing}
	for _, c := range reader.Classes() {
		board.Classes = append(board.Classes, accounting.Class{Name: c.Name, Cores: len(c.CPUs)})
	}
	// The reference class is the fastest, which comes last by the kernel's numbers.
	for x, y := 0, len(board.Classes)-1; x < y; x, y = x+1, y-1 {
		board.Classes[x], board.Classes[y] = board.Classes[y], board.Classes[x]
	}
	var lag, hold time.Duration
	if o.sources[i].kind != "meter" {
		// A sensor of the board averages for who knows how long; a meter of ours integrates and has no lag to speak of.
		lag, hold = 100*time.Millisecond, 45*time.Second
	}
	return &attribution{directory: d, usage: reader, config: &accounting.AttributionConfig{
		Node: node, Usage: reader, Uptime: hostclock.Uptime,
		AttributorConfig: accounting.AttributorConfig{
			Board: board, Tick: o.tick, Lag: lag, Hold: hold, Describe: d.describe, Watched: d.watched, Requested: d.requested,
		},
	}}
}

// run asks the functions' watchdogs what they were asked, and looks for changes of the functions' file.
func (t *attribution) run(ctx context.Context, l *accounting.Ledger, every time.Duration) error {
	look := time.NewTicker(min(every, time.Second))
	defer look.Stop()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Whoever is there before the first question was running before.
	for len(l.Tracked()) == 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
	p := activity.New(activity.Config{
		Targets: func() []activity.Target { return t.directory.targets(l.Tracked()) },
		Every:   every, Uptime: hostclock.Uptime, Logger: t.directory.log,
	})
	go func() { done <- p.Run(ctx, l.Activity, l.Event) }()
	for {
		select {
		case err := <-done:
			return err
		case <-look.C:
			if t.directory.reload() {
				l.Redescribe()
			}
		}
	}
}

var _ accounting.UsageReader = (*cgroup.Reader)(nil)
