package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/hub"
	"github.com/wattlet/wattlet/internal/meter"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/web"
)

type upCmd struct {
	Boards string        `default:"6" placeholder:"N" help:"How many boards, or which, as coral,pynq-z1."`
	Listen string        `default:"127.0.0.1:9779" help:"Address of the dashboard and of all the hub serves; default ${default}."`
	Agents string        `name:"agents.listen" default:"127.0.0.1:9780" help:"Address of the first board's agent; the others take ports that are free."`
	Data   string        `type:"path" placeholder:"DIR" help:"Keep history, key, configuration and counters here; default a directory that goes at the end."`
	For    time.Duration `help:"End when it has shown figures for so long; default when interrupted."`
	Seed   uint64        `default:"1" help:"Makes the boards' loads and the sensors' noise repeatable."`
	Meter  meterFlags    `embed:""`
	Agent  string        `type:"existingfile" placeholder:"FILE" help:"The wattlet binary; default beside wattctl, then in PATH."`
}

// tickOfAgents is the time between two of an agent's snapshots. The shorter, the better can short invocations be told apart.
const tickOfAgents = 200 * time.Millisecond

// scrapeOfUp is the time between two samples of the hub: a chart is to move before somebody goes away.
const scrapeOfUp = time.Second

// Run makes simulated boards, a meter they are connected to, a real agent for each, and a hub that keeps their history, and shows
// what the agents measure until interrupted.
func (c upCmd) Run(a *app) (err error) {
	fleet, err := c.fleet()
	if err != nil {
		return err
	}
	agent, err := c.findAgent()
	if err != nil {
		return err
	}
	listen, err := freePorts(c.Agents, len(fleet))
	if err != nil {
		return err
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "wattlet-up-"); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.MkdirAll(filepath.Join(dir, "state"), 0o750); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	keyFile := filepath.Join(dir, "bench-1.psk")
	key, err := keepKey(keyFile)
	if err != nil {
		return err
	}
	boards := make([]*board, len(fleet))
	dogs, err := newWatchdogs(boards)
	if err != nil {
		return err
	}
	defer dogs.Close()
	// A board has just been switched on; what is there of an earlier one would be of another boot.
	trees := filepath.Join(dir, "boards")
	if err := os.RemoveAll(trees); err != nil {
		return fmt.Errorf("boards' files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(trees)) }()
	for i, o := range fleet {
		if boards[i], err = newBoard(o, uint32(i+1), filepath.Join(trees, o.Name), dogs); err != nil {
			return err
		}
		defer boards[i].tree.Close() //nolint:errcheck // nothing is buffered
		boards[i].url = "http://" + here(listen[i].AddrPort()).String()
	}
	sim, err := c.meter(key, boards)
	if err != nil {
		return err
	}
	defer sim.Close() //nolint:errcheck // Run has closed it
	config, err := writeCluster(dir, sim.URL(), boards)
	if err != nil {
		return err
	}
	for _, b := range boards { // the agents are to find the files of a board that runs
		if err := b.update(sim.Now()); err != nil {
			return err
		}
	}
	history, err := c.hub(filepath.Join(dir, "history"), boards, a.stderr)
	if err != nil {
		return err
	}
	address := "http://" + reach(history.Addr())
	if _, err := fmt.Fprintf(a.stdout, "%s; the first figures come in some seconds\n", dashboardAt(address)); err != nil {
		return errors.Join(err, history.Close())
	}

	// All of it outlives the interrupt, so that the last figures can be asked for.
	running, stop := context.WithCancel(context.WithoutCancel(a.ctx))
	defer stop()
	g, ctx := errgroup.WithContext(running)
	g.Go(func() error { return sim.Run(ctx) })
	g.Go(func() error { return dogs.run(ctx) })
	g.Go(func() error { return history.Run(ctx) })
	for _, b := range boards {
		g.Go(func() error { return b.run(ctx, sim.Now) })
	}
	// The kernel takes the death of the thread that started the agents for ours, see start.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, b := range boards {
		wait, err := b.start(ctx, agent, "--config.file="+config, "--web.listen-address="+listen[i].String(),
			"--state.directory="+filepath.Join(dir, "state", b.name), "--tick="+tickOfAgents.String(),
			"--activity.interval="+tickOfAgents.String(), "--log.level=warn")
		if err != nil {
			stop()
			return errors.Join(err, g.Wait())
		}
		g.Go(wait)
	}
	show := &display{
		app: a, client: http.Client{Timeout: 5 * time.Second}, sim: sim, boards: boards, keyFile: keyFile, tty: isTerminal(a.stdout),
		hub: address,
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

// hub makes the hub of the boards' agents.
func (c upCmd) hub(dir string, boards []*board, stderr io.Writer) (*hub.Hub, error) {
	cfg := hub.Config{
		Dir: dir, Listen: c.Listen, ScrapeInterval: scrapeOfUp, Version: version, Web: web.Dashboard(), Rules: builtinRules(),
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, b := range boards {
		cfg.Targets = append(cfg.Targets, hub.Target{Name: b.name, URL: b.url})
	}
	h, err := hub.New(cfg)
	if wrong := (*hub.ConfigError)(nil); errors.As(err, &wrong) {
		return nil, usageError{err}
	}
	return h, err
}

// dashboardAt says where the dashboard is, or how to have one.
func dashboardAt(address string) string {
	if _, err := fs.Stat(web.Dashboard(), "index.html"); err != nil {
		return "hub at " + address + ", built without its dashboard (make web)"
	}
	return "dashboard at " + address
}

// fleet returns the boards that are wanted.
func (c upCmd) fleet() ([]boardsim.Options, error) {
	all := boardsim.Fleet(c.Seed)
	if n, err := strconv.Atoi(c.Boards); err == nil {
		if n < 1 || n > len(all) {
			return nil, usagef("--boards=%d: there are 1 to %d", n, len(all))
		}
		return all[:n], nil
	}
	var some []boardsim.Options
	for name := range strings.SplitSeq(c.Boards, ",") {
		named := func(o boardsim.Options) bool { return o.Name == name }
		i := slices.IndexFunc(all, named)
		if i < 0 {
			var names []string
			for _, o := range all {
				names = append(names, o.Name)
			}
			return nil, usagef("--boards=%s: %q is none of %s", c.Boards, name, strings.Join(names, ", "))
		}
		if slices.ContainsFunc(some, named) {
			return nil, usagef("--boards=%s: %s is there twice", c.Boards, name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// findAgent returns the path of the wattlet binary.
func (c upCmd) findAgent() (string, error) {
	if c.Agent != "" {
		return c.Agent, nil
	}
	path, err := findProgram("wattlet")
	if err != nil {
		return "", usagef("no wattlet beside wattctl or in PATH; make build makes both, or give --agent")
	}
	return path, nil
}

// freePorts returns n addresses as the agents are to be given them: the one that is asked for, and for the others the ports
// after it or, where those are taken, any. It says who cannot have theirs sooner than an agent could. Somebody may still take
// one in between.
func freePorts(address string, n int) ([]*net.TCPAddr, error) {
	var addrs []*net.TCPAddr
	var errs []error
	for i := range n {
		l, err := net.Listen("tcp", address)
		if err != nil && i > 0 {
			host, _, _ := net.SplitHostPort(address) // it was good for the first
			l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		}
		if err != nil {
			return nil, fmt.Errorf("serve the agents' pages: %w; choose another --agents.listen", err)
		}
		defer func() { errs = append(errs, l.Close()) }() // all are held until each has its own
		addr, _ := l.Addr().(*net.TCPAddr)
		addrs = append(addrs, addr)
		if host, port, _ := net.SplitHostPort(address); port != "0" {
			address = net.JoinHostPort(host, strconv.Itoa(addr.Port+1))
		}
	}
	return addrs, errors.Join(errs...)
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
func (c upCmd) meter(key []byte, boards []*board) (simulatedMeter, error) {
	o := metersim.Options{Name: "bench-1", Seed: c.Seed, SweepJitter: metersim.DefaultSweepPeriod}
	for _, b := range boards {
		o.Channels = append(o.Channels, metersim.Channel{
			Number: b.channel, Name: b.name, Load: b.Load(), Supply: 5100 * 1000, ShuntUohm: 30_000, SourceUohm: 60_000, Noise: 1.5,
		})
	}
	return c.Meter.listen(o, "wattlet", key)
}

// writeCluster writes the cluster's file.
func writeCluster(dir, url string, boards []*board) (string, error) {
	nodes := map[string]any{}
	for _, b := range boards {
		nodes[b.name] = map[string]any{"meter": "bench-1", "channel": b.channel}
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

// start starts the board's agent and returns a function that waits for its end. The calling goroutine must be locked to a thread
// that lives on.
func (b *board) start(ctx context.Context, agent string, args ...string) (wait func() error, err error) {
	args = append(args, "--node="+b.name, "--path.proc="+filepath.Join(b.dir, "proc"), "--path.sys="+filepath.Join(b.dir, "sys"),
		"--functions.file="+b.functionsFile())
	cmd := exec.CommandContext(ctx, agent, args...)
	log := new(tail)
	cmd.Stdout, cmd.Stderr = log, log
	// A terminal's Ctrl-C is for us alone; if we are killed, the agent goes too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	return func() error {
		_ = cmd.Wait() // the state tells more
		if ctx.Err() == nil || cmd.ProcessState.ExitCode() > 0 {
			return fmt.Errorf("the agent of %s ended with %v: %s", b.name, cmd.ProcessState, cmp.Or(strings.TrimSpace(string(*log)), "it said nothing"))
		}
		return nil
	}, nil
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	const enough = 2000
	*t = append(*t, b...)
	if n := len(*t) - enough; n > 0 {
		*t = append((*t)[:0], (*t)[n:]...)
	}
	return len(b), nil
}

// isTerminal says whether w is a terminal that can be redrawn.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}
