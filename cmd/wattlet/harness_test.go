package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
)

var update = flag.Bool("update", false, "write golden files anew")

// built is where binary has put the agent; empty if no test needed it.
var built string

// binary builds the agent once, as it is shipped, and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wattlet-test-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "wattlet")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w -X main.version=test", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests wait for agents much longer than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	status := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(status)
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// aMeter is what stands for the meter: the simulator, or the firmware as a process.
type aMeter interface {
	Run(ctx context.Context) error
	URL() string
	Addr() *net.UDPAddr
	Now() time.Duration
	Reboot()
	BootID() uint32
	// TruthAt is what a load drew from a boot's start until its clock read tUs, TotalAt what the meter itself had counted then. That of
	// an ideal sensor is the same.
	TruthAt(channel, bootID uint32, tUs uint64) (energy.Energy, bool)
	TotalAt(channel, bootID uint32, tUs uint64) (energy.Energy, bool)
}

// firmware is the program to test with instead of the simulator, if any. make test runs all tests once with each.
var firmware = os.Getenv("WATTLET_METER")

// simulated is a simulator with sensors that are ideal.
type simulated struct{ *metersim.Sim }

func (s simulated) TotalAt(channel, bootID uint32, tUs uint64) (energy.Energy, bool) {
	return s.TruthAt(channel, bootID, tUs)
}

// newSimulator makes a simulator, which is yet to run.
func newSimulator(t testing.TB, o metersim.Options) aMeter {
	t.Helper()
	if o.PSK == nil {
		o.PSK = metersim.OneKey("wattlet", testKey)
	}
	sim, err := metersim.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	return simulated{sim}
}

// newMeter makes a meter, which is yet to run.
func newMeter(t testing.TB, o metersim.Options) aMeter {
	t.Helper()
	if o.PSK == nil {
		o.PSK = metersim.OneKey("wattlet", testKey)
	}
	if firmware == "" {
		return newSimulator(t, o)
	}
	f, err := metersim.NewFirmware(metersim.FirmwareOptions{Options: o, Program: firmware, Identity: "wattlet", Key: func() []byte {
		key, _ := o.PSK("wattlet")
		return key
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// startMeter runs a meter until the test ends.
func startMeter(t *testing.T, o metersim.Options) aMeter {
	t.Helper()
	m := newMeter(t, o)
	background(t, m.Run)
	return m
}

// startLink runs a network with faults in front of a meter and returns the URL behind which the meter is now.
func startLink(t *testing.T, o metersim.LinkOptions) (*metersim.Link, string) {
	t.Helper()
	link, err := metersim.ListenLink(o)
	if err != nil {
		t.Fatal(err)
	}
	background(t, link.Run)
	return link, "coaps://" + link.Addr().String()
}

// background runs a part of the test's world until the test ends, and waits for its end.
func background(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // that one ends before what cleanups end
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// keyFile writes the test's key.
func keyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "psk")
	if err := os.WriteFile(path, append(testKey, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a running agent.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	// url is where it serves, with scheme.
	url    string
	client *http.Client
	ended  chan struct{}
	err    error // of Wait, after ended

	mu  sync.Mutex
	log bytes.Buffer
}

// Write collects the log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// startAgent runs the real binary on a free port of loopback, without state unless args give a directory, and waits until
// it serves. It is killed at the test's end if it still runs.
func startAgent(t *testing.T, args ...string) *process {
	t.Helper()
	p := launch(t, command(t, append([]string{"--web.listen-address=127.0.0.1:0", "--state.directory=", "--attribution=false"}, args...)...))
	p.serving()
	return p
}

// command returns the agent with exactly these arguments, not yet running.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "NODE_NAME=")
	return cmd
}

// launch starts a command and collects what it prints. It is killed at the test's end if it still runs.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, ended: make(chan struct{}), client: &http.Client{Timeout: 10 * time.Second}}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %v:\n%s", cmd.Args, p.logged())
		}
	})
	return p
}

// serving waits until the agent serves and notes where.
func (p *process) serving() {
	p.t.Helper()
	p.wait("it serves", func() bool {
		_, after, ok := strings.Cut(p.logged(), "msg=serving address=")
		if ok {
			addr, _, _ := strings.Cut(after, " ")
			p.url = "http://" + addr
		}
		return ok
	})
}

// runAgent runs the real binary with exactly these arguments to its end, which must come within a minute.
func runAgent(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := command(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	if err := cmd.Wait(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// kill ends the agent as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// stop ends the agent in order.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	<-p.ended
	if p.err != nil {
		p.t.Errorf("the agent did not end in order: %v", p.err)
	}
}

// wait waits until the condition holds, the agent ends, or a minute has passed.
func (p *process) wait(what string, condition func() bool) {
	p.t.Helper()
	p.waitFor(time.Minute, what, condition)
}

// waitFor is wait with another patience.
func (p *process) waitFor(patience time.Duration, what string, condition func() bool) {
	p.t.Helper()
	deadline := time.After(patience)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-p.ended:
			if condition() {
				return
			}
			p.t.Fatalf("the agent ended before %s: %v\n%s", what, p.err, p.logged())
		case <-deadline:
			p.t.Fatalf("not within %v: %s\n%s", patience, what, p.logged())
		}
	}
}

// get fetches a page.
func (p *process) get(path string, header ...string) (status int, body string) {
	p.t.Helper()
	resp, body := p.request(http.MethodGet, path, header...)
	return resp.StatusCode, body
}

// request sends a request and returns the answer, its body read and closed.
func (p *process) request(method, path string, header ...string) (resp *http.Response, body string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err = p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		p.t.Fatal(err)
	}
	return resp, string(b)
}

// snapshot fetches the newest snapshot.
func (p *process) snapshot() exporter.SnapshotView {
	p.t.Helper()
	_, body := p.get("/api/v1/snapshot")
	var v exporter.SnapshotView
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		p.t.Fatalf("%v in %q", err, body)
	}
	return v
}

// node returns one node of the newest snapshot.
func (p *process) node(name string) exporter.NodeView {
	p.t.Helper()
	return find(p.t, p.snapshot(), name)
}

func find(t *testing.T, v exporter.SnapshotView, name string) exporter.NodeView {
	t.Helper()
	for _, n := range v.Nodes {
		if n.Node == name {
			return n
		}
	}
	t.Fatalf("no node %s in %+v", name, v)
	return exporter.NodeView{}
}

// scrape returns every series of /metrics, named as it stands there, with its value.
func (p *process) scrape() map[string]float64 {
	p.t.Helper()
	_, text := p.get("/metrics")
	series := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := cutLast(strings.TrimSpace(line), " ")
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			p.t.Fatalf("sample %q: %v", line, err)
		}
		series[name] = v
	}
	return series
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// within says whether got is within tolerance, a ratio, of want.
func within(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance*math.Abs(want) }

// clusterFile writes a cluster file with the test's key beside it as psk, and returns its path.
func clusterFile(t *testing.T, format string, args ...any) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(keyFile(t)), "cluster.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sysfs is a tree with an INA3221 on which one rail is the whole board's, as on a Jetson Orin: 5 V, and 0.6 A through 10 mΩ.
type sysfs struct {
	t    *testing.T
	root string
	chip string // its directory
}

func newSysfs(t *testing.T) sysfs {
	t.Helper()
	root := t.TempDir()
	s := sysfs{t, root, filepath.Join(root, "class/hwmon/hwmon0")}
	if err := errors.Join(
		os.MkdirAll(s.chip, 0o750), os.MkdirAll(filepath.Join(s.root, "devices/1-0040"), 0o750),
		os.Symlink("../../../devices/1-0040", filepath.Join(s.chip, "device")),
	); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"name": "ina3221", "in1_label": "VDD_IN", "in1_enable": "1", "in1_input": "5000", "shunt1_resistor": "10000",
	} {
		s.write(name, content)
	}
	s.write("in4_input", "6000")
	return s
}

// move gives the chip another directory, below the root.
func (s *sysfs) move(dir string) {
	s.t.Helper()
	to := filepath.Join(s.root, dir)
	if err := os.Rename(s.chip, to); err != nil {
		s.t.Fatal(err)
	}
	s.chip = to
}

// write changes an attribute in place, as the kernel does: who has it open sees it.
func (s sysfs) write(attr, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.chip, attr), []byte(content+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// nobody takes a UDP address of loopback, any if addr is empty, that refuses datagrams until release is called: a socket has
// the port, but hears one peer only.
func nobody(t *testing.T, addr string) (at string, release func()) {
	t.Helper()
	local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if addr != "" {
		local = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	}
	conn, err := net.DialUDP("udp", local, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { conn.Close() })
	t.Cleanup(release)
	return conn.LocalAddr().String(), release
}
