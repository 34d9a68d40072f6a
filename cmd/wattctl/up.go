package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/meter"
	"github.com/wattlet/wattlet/internal/metersim"
)

type upCmd struct {
	Listen string        `default:"127.0.0.1:9780" help:"Address of the agent's pages."`
	Data   string        `type:"path" placeholder:"DIR" help:"Keep key, configuration and counters here; default a directory that is removed at the end."`
	For    time.Duration `help:"End when it has shown figures for so long; default when interrupted."`
	Seed   uint64        `default:"1" help:"Makes the sensors' noise repeatable."`
	Agent  string        `type:"existingfile" placeholder:"FILE" help:"The wattlet binary; default beside wattctl, then in PATH."`
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
	listen, err := freePort(c.Listen)
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
	keyFile := filepath.Join(dir, "bench-1.psk")
	key, err := keepKey(keyFile)
	if err != nil {
		return err
	}
	sim, err := c.meter(key)
	if err != nil {
		return err
	}
	defer sim.Close() //nolint:errcheck // Run has closed it
	config, err := writeCluster(dir, sim.URL())
	if err != nil {
		return err
	}

	// Meter and agent outlive the interrupt, so that the last figures can be asked for.
	running, stop := context.WithCancel(context.WithoutCancel(a.ctx))
	defer stop()
	g, ctx := errgroup.WithContext(running)
	var log strings.Builder
	cmd := exec.CommandContext(ctx, agent, "--config.file="+config, "--node=raspberrypi", "--web.listen-address="+listen.String(),
		"--state.directory="+filepath.Join(dir, "state"), "--log.level=warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	// A terminal's Ctrl-C is for us alone; if we are killed, the agent goes too. The kernel takes the death of the thread that
	// started it for ours.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	g.Go(func() error { return sim.Run(ctx) })
	g.Go(func() error {
		_ = cmd.Wait() // the state tells more
		if ctx.Err() == nil || cmd.ProcessState.ExitCode() > 0 {
			return fmt.Errorf("the agent ended with %v: %s", cmd.ProcessState, cmp.Or(strings.TrimSpace(log.String()), "it said nothing"))
		}
		return nil
	})
	show := &display{
		app: a, url: "http://" + here(listen.AddrPort()).String(), client: http.Client{Timeout: 5 * time.Second},
		sim: sim, keyFile: keyFile, tty: isTerminal(a.stdout),
	}
	g.Go(func() error {
		defer stop()
		return show.run(ctx, a.ctx.Done(), c.For)
	})
	if err := g.Wait(); err != nil {
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

// freePort returns an address as the agent is to be given it, with a port of its own for port 0, or says who cannot have it
// sooner than the agent could. Somebody may still take it in between.
func freePort(address string) (*net.TCPAddr, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve the agent's pages: %w; choose another --listen", err)
	}
	addr, _ := l.Addr().(*net.TCPAddr)
	return addr, l.Close()
}

// keepKey returns the key of an earlier run or makes one.
func keepKey(path string) ([]byte, error) {
	key, err := meter.ReadKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if key, err = newKey(); err != nil {
		return nil, err
	}
	if err := writeKey(path, key); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return key, nil
}

// meter makes the meter that all boards are connected to.
func (c upCmd) meter(key []byte) (*metersim.Sim, error) {
	o := metersim.Options{Name: "bench-1", PSK: metersim.OneKey("wattlet", key), Seed: c.Seed, SweepJitter: metersim.DefaultSweepPeriod}
	for i, b := range boards {
		load, err := metersim.ParseLoad(b.load, nil)
		if err != nil {
			return nil, err
		}
		o.Channels = append(o.Channels, metersim.Channel{
			Number: uint32(i + 1), Name: b.name, Load: load, Supply: 5100 * 1000, ShuntUohm: 50_000, SourceUohm: 60_000, Noise: 1.5,
		})
	}
	return metersim.Listen(o)
}

// writeCluster writes the cluster's file; all boards are served by one agent, since none of them is real.
func writeCluster(dir, url string) (string, error) {
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
	if err := os.WriteFile(path, slices.Concat([]byte("# Written anew by each wattctl up.\n"), text), 0o600); err != nil {
		return "", fmt.Errorf("cluster file: %w", err)
	}
	return path, nil
}

// display shows the agent's snapshots.
type display struct {
	*app
	url     string
	client  http.Client
	sim     *metersim.Sim
	keyFile string
	tty     bool
	// first and last are the snapshots that summary compares.
	first, last *exporter.SnapshotView
}

// patience is how long the agent may give no figures.
const patience = 20 * time.Second

// run asks the agent, and shows what is new, until it is interrupted, or has shown figures for so long if that is not 0; then a
// last time.
func (d *display) run(ctx context.Context, interrupt <-chan struct{}, long time.Duration) error {
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	var end <-chan time.Time
	for heard := time.Now(); ; {
		v, err := d.fetch(ctx)
		switch {
		case err == nil:
			heard = time.Now()
			if d.first == nil {
				d.first = v
				if long > 0 {
					end = time.After(long)
				}
			}
			if d.last == nil || d.tty && !v.Time.Equal(d.last.Time) {
				d.draw(v)
			}
			d.last = v
		case time.Since(heard) > patience:
			return fmt.Errorf("the agent gives no figures: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			continue
		case <-interrupt:
		case <-end:
		}
		if v, err := d.fetch(ctx); err == nil && d.first != nil { // else the one before has to do
			d.last = v
		}
		return nil
	}
}

// fetch returns a snapshot in which every board has a reading.
func (d *display) fetch(ctx context.Context) (*exporter.SnapshotView, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/api/v1/snapshot", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	v := new(exporter.SnapshotView)
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL, err)
	}
	if len(v.Nodes) != len(boards) || len(v.Meters) != 1 {
		return nil, fmt.Errorf("%s: that is not our agent", req.URL)
	}
	for _, n := range v.Nodes {
		if n.PowerUW == nil {
			return nil, fmt.Errorf("no reading of %s: %s", n.Node, v.Meters[0].Error)
		}
	}
	return v, nil
}

// draw prints a snapshot, in place on a terminal.
func (d *display) draw(v *exporter.SnapshotView) {
	var b strings.Builder
	if d.tty {
		b.WriteString("\x1b[H\x1b[2J")
	}
	fmt.Fprintf(&b, "Six simulated boards on one meter (CoAP over DTLS, 500 sweeps a second), measured by a real agent.\n\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "NODE\tPOWER\tVOLTAGE\tCURRENT\tENERGY\t")
	for _, n := range v.Nodes {
		fmt.Fprintf(tw, "%s\t%.3f W\t%.3f V\t%.3f A\t%v\t\n", n.Node, micro(n.PowerUW), micro(n.VoltageUV), micro(n.CurrentUA),
			energy.Energy(*n.EnergyUJ))
	}
	_ = tw.Flush() // into memory
	m := v.Meters[0]
	fmt.Fprintf(&b, "\nmeter %s: %d reports, %d lost, %d restarts\n\n", m.Identity, m.Notifications, m.Lost, m.Restarts)
	tw = tabwriter.NewWriter(&b, 0, 0, 4, ' ', 0)
	fmt.Fprintf(tw, "  %s/metrics\tfor Prometheus\n  %s/api/v1/snapshot\tthe same as JSON\n", d.url, d.url)
	_ = tw.Flush()
	fmt.Fprintf(&b, "  wattctl meter read %s --psk-file=%s\n\nCtrl-C ends it.\n", d.sim.URL(), shellWord(d.keyFile))
	fmt.Fprint(d.stdout, b.String())
}

func micro(v *int64) float64 { return float64(*v) / 1e6 }

// summary compares what was measured with what was drawn, between the same two instants of the meter's clock.
func (d *display) summary() error {
	if d.first == nil || d.last.Time.Equal(d.first.Time) {
		return errors.New("ended before the agent had two readings to compare")
	}
	fmt.Fprintf(d.stdout, "\nIn %v the agent measured, and the boards truly drew:\n\n", d.last.Time.Sub(d.first.Time).Round(time.Second/10))
	tw := tabwriter.NewWriter(d.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "NODE\tMEASURED\tDRAWN\tERROR\t")
	for i, n := range d.last.Nodes {
		f := d.first.Nodes[i]
		from, ok1 := d.sim.TruthAt(uint32(n.Channel), uint32(f.SourceEpoch), uint64(f.SourceAtUs))
		to, ok2 := d.sim.TruthAt(uint32(n.Channel), uint32(n.SourceEpoch), uint64(n.SourceAtUs))
		if !ok1 || !ok2 || f.SourceEpoch != n.SourceEpoch || to == from {
			fmt.Fprintf(tw, "%s\t-\t-\t-\t\n", n.Node)
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
