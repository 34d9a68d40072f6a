package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

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
	source    func(report func(error)) podSource // of pods' names; nil for none
	starts    starts
	gateway   []string // URLs of its metrics; none for none
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
	d := &directory{
		node: node, file: o.functionsFile, static: o.functions, log: o.log, faasd: o.faasdNamespaces, port: o.kube.watchdogPort, ownPod: o.podUID,
	}
	source := o.kube.open(node, o.log, d)
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
	return &attribution{directory: d, usage: reader, source: source, gateway: o.gateway, config: &accounting.AttributionConfig{
		Node: node, Usage: reader, Uptime: hostclock.Uptime,
		AttributorConfig: accounting.AttributorConfig{
			Board: board, Tick: o.tick, Lag: lag, Hold: hold, Describe: d.describe, Watched: d.watched, Requested: d.requested,
			Expected: d.expected,
		},
	}}
}

// run follows the pods of the node, asks the functions' watchdogs what they were asked, and looks for changes of the functions' file.
func (t *attribution) run(ctx context.Context, l *accounting.Ledger, every time.Duration) error {
	g, ctx := errgroup.WithContext(ctx)
	if t.source != nil {
		s := t.source(func(err error) {
			if err != nil {
				l.Count("kube")
			} else {
				l.Reached("kube")
			}
		})
		g.Go(func() error { return s.Run(ctx) })
	}
	g.Go(func() error { return t.describe(ctx, l, min(every, time.Second)) })
	g.Go(func() error { return t.ask(ctx, l, every) })
	return g.Wait()
}

// ask asks the functions' watchdogs.
func (t *attribution) ask(ctx context.Context, l *accounting.Ledger, every time.Duration) error {
	// Whoever is there before the first question was running before.
	look := time.NewTicker(min(every, time.Second))
	defer look.Stop()
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
	if len(t.gateway) == 0 {
		return p.Run(ctx, l.Activity, l.Event)
	}
	g, err := activity.NewGateway(activity.GatewayConfig{
		URLs: t.gateway, Every: every, Uptime: hostclock.Uptime, Logger: t.directory.log,
		Functions: func() []activity.Served { return t.directory.served(l.Tracked(), p.Status()) },
		Report: func(err error) {
			if err != nil {
				l.Count("gateway")
			} else {
				l.Reached("gateway")
			}
		},
	})
	if err != nil {
		return err
	}
	var s switchover
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return p.Run(ctx, s.from(watchdogs, l.Activity), l.Event) })
	both.Go(func() error { return g.Run(ctx, s.from(gateways, l.Activity)) })
	return both.Wait()
}

// startsWithin is for how long it is asked more often whether a pod has got ready.
const startsWithin = time.Minute

// settled is how long is waited for further changes before workloads are described anew.
const settled = 50 * time.Millisecond

// describe has workloads described anew when the functions' file or the pods are different, and tells of pods that start and stop.
func (t *attribution) describe(ctx context.Context, l *accounting.Ledger, every time.Duration) error {
	look := time.NewTicker(every)
	defer look.Stop()
	var changed <-chan struct{}
	var names uint64
	pods := t.directory.pods
	if pods != nil {
		changed = pods.Changed()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if !wait(ctx, settled) {
				return nil
			}
		case <-look.C:
		}
		anew := t.directory.reload()
		if pods != nil {
			n := pods.Names()
			anew = anew || n != names
			names = n
		}
		if anew {
			l.Redescribe()
		}
		if pods != nil {
			t.starts.look(l.Tracked(), t.directory.pod, hostclock.Uptime, l.Event)
			if t.directory.wanting(time.Now()) || pods.Starting(startsWithin) {
				pods.Want()
			}
		}
	}
}

// wait waits, and returns false if ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

var _ accounting.UsageReader = (*cgroup.Reader)(nil)
