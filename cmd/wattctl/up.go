package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
)

type upCmd struct {
	Listen string        `default:"127.0.0.1:9780" help:"Address of the agent's pages."`
	Data   string        `type:"path" placeholder:"DIR" help:"Keep key, configuration and counters here; default a directory that is removed at the end."`
	For    time.Duration `help:"End after this time; default when interrupted."`
	Seed   uint64        `default:"1" help:"Makes the sensors' noise repeatable."`
	Agent  string        `type:"path" placeholder:"FILE" help:"The wattlet binary; default beside wattctl, then in PATH."`
}

// board is a simulated board: its name and what it draws. Idle and full-load power are those measured at the supplies of the
// real boards; the pattern of use is made up.
type board struct{ name, load string }

var boards = []board{
	{"raspberrypi", "constant:1.52W+square:0W,0.77W,3s,40%+square:0W,1.54W,20s,25%"},
	{"pynq-z1", "constant:1.9W+square:0W,0.35W,800ms,50%"},
	{"odroid-xu4-1", "constant:2.75W+square:0W,1.97W,5s,60%+square:0W,2.9W,47s,30%"},
	{"odroid-xu4-2", "constant:2.31W+sine:0.6W,0.6W,30s"},
	{"coral", "constant:3.2W+square:0W,1.7W,250ms,35%"},
	{"jetson-nano", "constant:1.25W+square:0W,4.1W,12s,50%"},
}

// Run makes a meter with six boards and a real agent that reads it, and shows what the agent measures until interrupted.
func (c upCmd) Run(a *app) (err error) {
	agent, err := c.findAgent()
	if err != nil {
		return err
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "wattlet-up-"); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	ctx := a.ctx
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}

	key, err := newKey()
	if err != nil {
		return err
	}
	o := metersim.Options{Name: "bench-1", PSK: metersim.OneKey("wattlet", key), Seed: c.Seed, SweepJitter: metersim.DefaultSweepPeriod}
	for i, b := range boards {
		load, err := metersim.ParseLoad(b.load, nil)
		if err != nil {
			return err
		}
		o.Channels = append(o.Channels, metersim.Channel{
			Number: uint32(i + 1), Name: b.name, Load: load, Supply: 5100 * 1000, ShuntUohm: 50_000, SourceUohm: 60_000, Noise: 1.5,
		})
	}
	sim, err := metersim.Listen(o)
	if err != nil {
		return err
	}
	defer sim.Close() //nolint:errcheck // Run has closed it
	config, err := writeCluster(dir, sim.URL(), key)
	if err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return sim.Run(ctx) })
	var log strings.Builder
	cmd := exec.CommandContext(ctx, agent, "--config.file="+config, "--node=raspberrypi", "--web.listen-address="+c.Listen,
		"--state.directory="+filepath.Join(dir, "state"), "--log.level=warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	g.Go(func() error {
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("the agent ended: %w: %s", err, strings.TrimSpace(log.String()))
		}
		return nil
	})
	show := &display{app: a, url: "http://" + c.Listen, client: http.Client{Timeout: 5 * time.Second}, sim: sim, tty: isTerminal(a.stdout)}
	g.Go(func() error { return show.run(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return show.summary()
}

// findAgent returns the path of the wattlet binary.
func (c upCmd) findAgent() (string, error) {
	if c.Agent != "" {
		return c.Agent, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "wattlet")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("wattlet")
	if err != nil {
		return "", usagef("no wattlet beside wattctl or in PATH; make build makes both, or give --agent")
	}
	return path, nil
}

// writeCluster writes the key and the cluster's file; all boards are served by one agent, since none of them is real.
func writeCluster(dir, url string, key []byte) (string, error) {
	psk := filepath.Join(dir, "bench-1.psk")
	if err := os.WriteFile(psk, append(key, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	nodes := map[string]any{}
	for i, b := range boards {
		nodes[b.name] = map[string]any{"meter": "bench-1", "channel": i + 1, "agent": "raspberrypi"}
	}
	text, err := yaml.Marshal(map[string]any{
		"meters": map[string]any{"bench-1": map[string]any{"url": url, "psk_identity": "wattlet", "psk_file": "bench-1.psk"}},
		"nodes":  nodes,
	})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "cluster.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("cluster file: %w", err)
	}
	return path, nil
}

// display shows the agent's snapshots.
type display struct {
	*app
	url    string
	client http.Client
	sim    *metersim.Sim
	tty    bool
	// first and last are the snapshots that summary compares.
	first, last *exporter.SnapshotView
	seen        bool
}

// run asks the agent once a second until ctx ends.
func (d *display) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; {
		if err := d.fetch(ctx); err != nil {
			if n++; n == 20 {
				return fmt.Errorf("the agent does not answer: %w", err)
			}
		} else if n = 0; d.tty || !d.seen {
			d.draw()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *display) fetch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/api/v1/snapshot", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	var v exporter.SnapshotView
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return err
	}
	for _, n := range v.Nodes {
		if n.PowerUW == nil {
			return fmt.Errorf("node %s has no reading yet", n.Node)
		}
	}
	if d.last = &v; d.first == nil {
		d.first = &v
	}
	return nil
}

// draw prints the newest snapshot, in place on a terminal.
func (d *display) draw() {
	var b strings.Builder
	if d.tty {
		b.WriteString("\x1b[H\x1b[2J")
	}
	fmt.Fprintf(&b, "Six simulated boards on one meter (CoAP over DTLS, 500 sweeps a second), measured by a real agent.\n\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "NODE\tPOWER\tVOLTAGE\tCURRENT\tENERGY\t")
	for _, n := range d.last.Nodes {
		fmt.Fprintf(tw, "%s\t%.3f W\t%.3f V\t%.3f A\t%v\t\n", n.Node, micro(n.PowerUW), micro(n.VoltageUV), micro(n.CurrentUA),
			energy.Energy(*n.EnergyUJ))
	}
	_ = tw.Flush() // into memory
	m := d.last.Meters[0]
	fmt.Fprintf(&b, "\nmeter %s: %d reports, %d lost, %d restarts\n\n", m.Identity, m.Notifications, m.Lost, m.Restarts)
	fmt.Fprintf(&b, "  %s/metrics            for Prometheus\n  %s/api/v1/snapshot    the same as JSON\n\nCtrl-C ends it.\n", d.url, d.url)
	fmt.Fprint(d.stdout, b.String())
	d.seen = true
}

func micro(v *int64) float64 { return float64(*v) / 1e6 }

// summary compares what was measured with what was drawn, between the same two instants of the meter's clock.
func (d *display) summary() error {
	if d.first == nil {
		return errors.New("ended before the agent had a reading")
	}
	fmt.Fprintf(d.stdout, "\nMeasured by the agent, and truly drawn by the boards meanwhile:\n\n")
	tw := tabwriter.NewWriter(d.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "NODE\tMEASURED\tDRAWN\tERROR\t")
	for i, n := range d.last.Nodes {
		f := d.first.Nodes[i]
		from, ok1 := d.sim.TruthAt(uint32(n.Channel), uint32(f.SourceEpoch), uint64(f.SourceAtUs))
		to, ok2 := d.sim.TruthAt(uint32(n.Channel), uint32(n.SourceEpoch), uint64(n.SourceAtUs))
		if !ok1 || !ok2 || f.SourceEpoch != n.SourceEpoch || to == from {
			fmt.Fprintf(tw, "%s\t%v\t-\t-\t\n", n.Node, energy.Energy(*n.EnergyUJ))
			continue
		}
		measured := energy.Energy(*n.EnergyUJ - *f.EnergyUJ)
		fmt.Fprintf(tw, "%s\t%v\t%v\t%+.2f %%\t\n", n.Node, measured, to-from, 100*(measured.Joules()/(to-from).Joules()-1))
	}
	return tw.Flush()
}

// isTerminal says whether w is a terminal that can be redrawn.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}
