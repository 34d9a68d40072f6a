// Command wattctl is the operator's tool: it reads, finds, calibrates, provisions and simulates meters, and brings up a whole simulated
// cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "dev"

// commands is the whole of the command line. Each command is a struct with its flags and a Run method.
type commands struct {
	Up upCmd `cmd:"" help:"Bring up a simulated cluster: six boards, a meter over DTLS, real agents, live figures."`

	Meter struct {
		Read      readCmd      `cmd:"" help:"Print what a meter measures, live."`
		Discover  discoverCmd  `cmd:"" help:"Find meters on the local network (DNS-SD)."`
		Calibrate calibrateCmd `cmd:"" help:"Find a channel's offset and gain with a known load."`
		Provision provisionCmd `cmd:"" help:"Make a key for a meter and say where it goes."`
		Simulate  simulateCmd  `cmd:"" help:"Be a meter: known loads, a real sensor's errors, a bad network's faults."`
	} `cmd:"" help:"Read, find, calibrate, provision and simulate meters."`

	Config struct {
		Import importCmd `cmd:"" help:"Turn the earlier client's configuration file into a cluster file."`
	} `cmd:"" help:"Configuration files of clusters."`

	Hub hubCmd `cmd:"" help:"Keep the history of agents, and answer PromQL: a data source for Grafana."`
	Top topCmd `cmd:"" help:"Show what agents measure, live."`

	Record recordCmd `cmd:"" help:"Record what a live agent sees, as a trace."`
	Replay replayCmd `cmd:"" help:"Split the energy of a recorded trace, by the agent's own code."`

	Bench struct {
		Attribution benchAttributionCmd `cmd:"" help:"Judge estimators by loads whose true energies are known."`
	} `cmd:"" help:"Benchmarks."`

	Version versionCmd `cmd:"" help:"Print the version."`
}

// app is what every command gets: where to write, when to stop.
type app struct {
	ctx            context.Context
	stdout, stderr io.Writer
}

// usageError is a fault of the command line: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run parses and executes; it returns the exit status: 0 good, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cmd commands
	left := -1 // status if kong ended the program, after help
	parser, err := kong.New(&cmd,
		kong.Name("wattctl"), kong.Description("Where the joules of an edge cluster go."),
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { left = code }),
		kong.Vars{"load_help": loadHelp, "estimators": strings.Join(slices.Sorted(maps.Keys(estimators)), ", ")},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "wattctl:", err)
		return 1
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if left >= 0 {
		return left
	}
	if err != nil {
		command := "wattctl"
		if parse := (*kong.ParseError)(nil); errors.As(err, &parse) && parse.Context.Selected() != nil {
			command = parse.Context.Selected().FullPath()
		}
		fmt.Fprintf(stderr, "wattctl: %s; see %s --help\n", line(err), command)
		return 2
	}
	err = k.Run(&app{ctx, stdout, stderr})
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "wattctl:", line(err))
	if usage := (usageError{}); errors.As(err, &usage) {
		return 2
	}
	return 1
}

// line puts joined errors on one line.
func line(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	_, err := fmt.Fprintln(a.stdout, "wattctl", version)
	return err
}
