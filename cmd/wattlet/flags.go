package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/hostclock"
	"github.com/wattlet/wattlet/internal/push"
)

// defaultConfig is read if neither a file nor a meter is given.
const defaultConfig = "/etc/wattlet/wattlet.yaml"

// defaultState is where the totals are kept unless systemd or a flag names another place.
const defaultState = "/var/lib/wattlet"

// options is the command line, checked.
type options struct {
	nodes   []string // the agents this process is; the first is itself
	sources []source

	listen        []string
	webConfig     string
	systemdSocket bool

	state         string
	stateInterval time.Duration
	tick          time.Duration
	staleAfter    time.Duration
	sysfsPeriod   time.Duration
	pathSys       string
	pathProc      string
	pathCgroup    string

	attribution      bool
	activityInterval time.Duration
	functions        []rawFunction
	functionsFile    string
	faasdNamespaces  []string
	kube             kubeOptions
	gateway          list
	podUID           string

	metricsLegacy bool
	legacyListen  string

	push push.Config // without URL nothing is pushed

	once        bool
	onceTimeout time.Duration
	json        bool

	log *slog.Logger
}

// list is a flag that may be given several times, or once with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }
func (l *list) Set(s string) error {
	*l = append(*l, strings.Split(s, ",")...)
	return nil
}

// errDone ends the program without a fault: help or version was asked for and given.
var errDone = errors.New("done")

// parseFlags reads the command line and the files it names. env is os.Getenv.
func parseFlags(args []string, env func(string) string, stdout, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("wattlet", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var (
		nodes, listen, faasd                     list
		config, meterURL, pskIdentity, pskFile   string
		supply, sysfs, device, rail, level, form string
		prepare                                  string
		channel                                  int
		version                                  bool
	)
	fs.StringVar(&config, "config.file", "", "the cluster's `FILE`; default "+defaultConfig)
	fs.Var(&nodes, "node", "`NAME` of the node this agent runs on; may be repeated to serve several; default NODE_NAME or the host name")
	fs.StringVar(&meterURL, "meter.url", "", "without a file: `URL` of the node's meter, coaps://HOST or udp://HOST for the earlier firmware")
	fs.StringVar(&pskIdentity, "meter.psk-identity", "wattlet", "without a file: `IDENTITY` of the key")
	fs.StringVar(&pskFile, "meter.psk-file", "", "without a file: `FILE` with the key")
	fs.IntVar(&channel, "meter.channel", 1, "without a file: `NUMBER` of the meter's channel the node is wired to")
	fs.StringVar(&supply, "meter.supply-voltage", "", "without a file: `VOLTAGE` assumed for a meter that measures charge only, as 5.1V")
	fs.StringVar(&sysfs, "sysfs", "", "without a file: `KIND` of the node's own sensor: hwmon, iio, powercap, battery")
	fs.StringVar(&device, "sysfs.device", "", "`DEVICE` if there are several sensors of the kind")
	fs.StringVar(&rail, "sysfs.rail", "", "`RAIL` if the sensor has several and none is the whole board's")
	fs.DurationVar(&o.sysfsPeriod, "sysfs.period", 0, "time between two reads of the node's own sensor; default by its kind")
	fs.Var(&listen, "web.listen-address", "`ADDRESS` to serve on, may be repeated; default 127.0.0.1:9780, :9780 for all addresses")
	fs.StringVar(&o.webConfig, "web.config.file", "", "`FILE` with TLS and basic auth, as for every Prometheus exporter")
	fs.BoolVar(&o.systemdSocket, "web.systemd-socket", false, "serve on the sockets systemd hands over")
	fs.StringVar(&o.state, "state.directory", cmp.Or(env("STATE_DIRECTORY"), defaultState), "`DIRECTORY` that keeps the counters over restarts; empty for none")
	fs.DurationVar(&o.stateInterval, "state.interval", 30*time.Second, "time between two saves")
	fs.StringVar(&prepare, "state.prepare", "", "make the state directory, give it to `UID:GID` and leave; for an init container that is root")
	fs.DurationVar(&o.tick, "tick", time.Second, "time between two snapshots, from 50ms")
	fs.DurationVar(&o.staleAfter, "stale-after", 5*time.Second, "age of a reading at which power, current and voltage are left out")
	fs.StringVar(&o.pathSys, "path.sys", "/sys", "`PATH` where sysfs is mounted")
	fs.StringVar(&o.pathProc, "path.proc", "/proc", "`PATH` where procfs is mounted")
	fs.StringVar(&o.pathCgroup, "path.cgroup", "", "`PATH` where control groups are mounted; default fs/cgroup below --path.sys")
	fs.BoolVar(&o.attribution, "attribution", true, "split the energy of the node this agent runs on among its workloads")
	fs.DurationVar(&o.activityInterval, "activity.interval", time.Second, "time between two questions to a function's watchdog, from 100ms")
	fs.StringVar(&o.functionsFile, "functions.file", "", "`FILE` that says which workloads serve which function; read again when it changes")
	fs.Var(&faasd, "faasd.namespaces", "`NAMES` of containerd's namespaces whose containers are functions of faasd; default openfaas-fn")
	o.kube.flags(fs)
	fs.Var(&o.gateway, "gateway.url", "`URL` of the metrics of OpenFaaS's gateway, for functions without a watchdog, as "+
		"http://gateway-metrics.openfaas:8082/metrics; a name stands for all its addresses, which must be those of the replicas")
	fs.BoolVar(&o.metricsLegacy, "metrics.legacy", false, "also give the two series of the earlier exporter")
	fs.StringVar(&o.legacyListen, "legacy.listen-address", "", "answer the earlier exporter at this UDP `ADDRESS`, as 127.0.0.1:5000")
	fs.StringVar(&o.push.URL, "push.url", "", "send all metrics to this remote write `URL`, as http://hub:9779/api/v1/write")
	fs.DurationVar(&o.push.Interval, "push.interval", 15*time.Second, "time between two samples that are pushed, from 1s to 2m")
	fs.StringVar(&o.push.Protocol, "push.protocol", "1.0", "`VERSION` of remote write, 1.0 or 2.0")
	fs.BoolVar(&o.push.NativeHistograms, "push.native-histograms", false, "send native histograms with 1.0 too")
	fs.IntVar(&o.push.Buffer, "push.buffer", 4<<20, "`BYTES` that wait in memory while the receiver is away")
	fs.StringVar(&o.push.User, "push.user", "", "`USER` for basic auth at the receiver")
	fs.StringVar(&o.push.PasswordFile, "push.password-file", "", "`FILE` with its password; read again when it changes")
	fs.StringVar(&o.push.CA, "push.ca", "", "`FILE` with the certificates to trust instead of the system's")
	fs.Func("push.label", "`NAME=VALUE` for all series that are pushed, as cluster=munich; may be repeated", o.pushLabel)
	fs.BoolVar(&o.once, "once", false, "print one reading of each node and leave")
	fs.DurationVar(&o.onceTimeout, "once.timeout", 30*time.Second, "longest wait of --once")
	fs.BoolVar(&o.json, "json", false, "print JSON with --once")
	fs.StringVar(&level, "log.level", "info", "debug, info, warn or error")
	fs.StringVar(&form, "log.format", "logfmt", "logfmt or json")
	fs.BoolVar(&version, "version", false, "print the version and leave")

	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, "wattlet measures the energy of a node and serves it to Prometheus.\n\n"+
			"  wattlet --config.file=cluster.yaml --node=raspberrypi\n"+
			"  wattlet --meter.url=coaps://10.0.0.5 --meter.psk-file=bench-1.psk --meter.channel=5\n"+
			"  wattlet --sysfs=powercap --once\n\n")
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return nil, errDone
	case err != nil:
		return nil, usagef("%w; wattlet --help lists the flags", err)
	case fs.NArg() > 0:
		return nil, usagef("unexpected argument %q; wattlet --help lists the flags", fs.Arg(0))
	case version:
		fmt.Fprintln(stdout, "wattlet", buildVersion())
		return nil, errDone
	case prepare != "":
		if err := prepareState(o.state, prepare); err != nil {
			return nil, err
		}
		return nil, errDone
	}

	handler, err := logHandler(stderr, level, form)
	if err != nil {
		return nil, err
	}
	o.log = slog.New(handler)
	switch {
	case o.tick < 50*time.Millisecond || o.tick > time.Minute:
		return nil, usagef("--tick=%v: it must be from 50ms to 1m", o.tick)
	case o.staleAfter < o.tick:
		return nil, usagef("--stale-after=%v: it must not be shorter than --tick=%v", o.staleAfter, o.tick)
	case o.activityInterval < 100*time.Millisecond:
		return nil, usagef("--activity.interval=%v: it must be at least 100ms", o.activityInterval)
	case o.stateInterval < time.Second:
		return nil, usagef("--state.interval=%v: it must be at least 1s", o.stateInterval)
	}
	fs.Visit(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "push.") && o.push.URL == "" {
			err = usagef("--%s needs --push.url", f.Name)
		}
	})
	if err != nil {
		return nil, err
	}
	if o.nodes = nodes; len(nodes) == 0 {
		self := env("NODE_NAME")
		if self == "" {
			if self, err = os.Hostname(); err != nil {
				return nil, usagef("the host's name: %w; give --node", err)
			}
		}
		o.nodes = []string{self}
	}
	if o.faasdNamespaces = faasd; len(faasd) == 0 {
		o.faasdNamespaces = []string{"openfaas-fn"}
	}
	o.podUID = env("POD_UID")
	if len(o.gateway) > 0 {
		if _, err := activity.NewGateway(activity.GatewayConfig{
			URLs: o.gateway, Uptime: hostclock.Uptime, Functions: func() []activity.Served { return nil },
		}); err != nil {
			return nil, usagef("--gateway.url: %w", err)
		}
	}
	if err := o.kube.check(env); err != nil {
		return nil, err
	}
	if o.pathCgroup == "" {
		o.pathCgroup = filepath.Join(o.pathSys, "fs", "cgroup")
	}
	if o.listen = listen; len(listen) == 0 {
		o.listen = []string{"127.0.0.1:9780"}
	}
	switch {
	case meterURL == "" && sysfs == "":
		o.sources, o.functions, err = loadConfig(cmp.Or(config, defaultConfig), o.nodes)
	case config != "":
		err = usagef("--config.file and --meter.url or --sysfs exclude each other")
	case len(o.nodes) > 1:
		err = usagef("several --node need --config.file, which says what measures each")
	default:
		c := rawConfig{
			Meters: map[string]rawMeter{},
			Nodes:  map[string]rawNode{o.nodes[0]: {Sysfs: sysfs, Device: device, Rail: rail}},
		}
		if meterURL != "" {
			m := rawMeter{URL: meterURL, PSKFile: pskFile, SupplyVoltage: supply}
			if strings.HasPrefix(meterURL, "coaps:") {
				m.PSKIdentity = pskIdentity
			}
			c.Meters["meter"] = m
			c.Nodes[o.nodes[0]] = rawNode{Meter: "meter", Channel: channel, Sysfs: sysfs, Device: device, Rail: rail}
		}
		o.sources, err = c.sources("flags", o.nodes)
	}
	if err != nil {
		return nil, err
	}
	if (o.metricsLegacy || o.legacyListen != "") && len(o.sources) != 1 {
		return nil, usagef("--metrics.legacy and --legacy.listen-address serve one node, but here are %d", len(o.sources))
	}
	return o, nil
}

// pushLabel takes one --push.label.
func (o *options) pushLabel(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || value == "" || !utf8.ValidString(value) {
		return errors.New("it must be as cluster=munich")
	}
	if o.push.Labels == nil {
		o.push.Labels = map[string]string{}
	}
	o.push.Labels[name] = value
	return nil
}

func logHandler(w io.Writer, level, form string) (slog.Handler, error) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log.level=%s: it must be debug, info, warn or error", level)
	}
	switch ho := (&slog.HandlerOptions{Level: lv}); form {
	case "logfmt":
		return slog.NewTextHandler(w, ho), nil
	case "json":
		return slog.NewJSONHandler(w, ho), nil
	default:
		return nil, usagef("--log.format=%s: it must be logfmt or json", form)
	}
}
