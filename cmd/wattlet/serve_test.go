package main

import (
	endian "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
)

// meterFlags name a meter without a cluster file.
func meterFlags(t *testing.T, url string) []string {
	t.Helper()
	return []string{"--node=pi", "--meter.url=" + url, "--meter.psk-file=" + keyFile(t), "--state.directory="}
}

func TestPages(t *testing.T) {
	t.Parallel()
	addr, release := nobody(t, "")
	p := startAgent(t, meterFlags(t, "coaps://"+addr)...)

	var reason string
	p.wait("it is not ready, and says why", func() bool {
		status, body := p.get("/readyz")
		reason = body
		return status == http.StatusServiceUnavailable && strings.Contains(body, "nothing listens there")
	})
	if !strings.HasPrefix(reason, "node pi: ") || !strings.Contains(reason, addr) {
		t.Errorf("not ready because %q; want the node and the meter's address", reason)
	}
	for _, tc := range []struct {
		method, path string
		status       int
		kind, body   string
	}{
		{"GET", "/healthz", 200, "text/plain", "ok\n"},
		{"HEAD", "/healthz", 200, "text/plain", ""},
		{"GET", "/", 200, "text/html", `<a href="/metrics">`},
		{"GET", "/", 200, "text/html", "Version test."},
		{"GET", "/", 200, "text/html", "<td>pi<td>–<td>–<td>–<td>"},
		{"GET", "/", 200, "text/html", "Meter meter is down: coaps://" + addr},
		{"GET", "/api/v1/snapshot", 200, "application/json", `{"format":"wattlet-snapshot/1"`},
		{"POST", "/", 405, "text/plain", "Method Not Allowed"},
		{"POST", "/metrics", 405, "text/plain", "Method Not Allowed"},
		{"DELETE", "/api/v1/snapshot", 405, "text/plain", "Method Not Allowed"},
		{"GET", "/metric", 404, "text/plain", "not found"},
		{"GET", "/metrics/", 404, "text/plain", "not found"},
		{"GET", "/debug/pprof/", 404, "text/plain", "not found"},
	} {
		resp, body := p.request(tc.method, tc.path)
		if resp.StatusCode != tc.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), tc.kind) || !strings.Contains(body, tc.body) {
			t.Errorf("%s %s: %d, %s, %q; want %d, %s, %q", tc.method, tc.path,
				resp.StatusCode, resp.Header.Get("Content-Type"), body, tc.status, tc.kind, tc.body)
		}
	}

	release()
	startMeter(t, metersim.Options{Addr: addr})
	p.wait("it is ready", func() bool {
		status, body := p.get("/readyz")
		return status == http.StatusOK && body == "ok\n"
	})
}

// TestDefaultAddress runs in a network of its own, where the port is free.
func TestDefaultAddress(t *testing.T) {
	t.Parallel()
	cmd := command(t, "--node=orin", "--sysfs=hwmon", "--path.sys="+newSysfs(t).root, "--state.directory=")
	wrap(cmd, `ip link set lo up && exec "$@"`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	try := exec.Command("ip", "link", "set", "lo", "up")
	try.SysProcAttr = cmd.SysProcAttr
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("make a network namespace and bring its loopback up: %v %s; have ip, and run as root or allow user namespaces", err, out)
	}
	p := launch(t, cmd)
	p.serving()
	if got := sockets(t, cmd.Process.Pid, "tcp"); !slices.Equal(got, []string{"127.0.0.1:9780"}) {
		t.Errorf("the agent listens on %q, want on 127.0.0.1:9780 alone", got)
	}
	if got := sockets(t, cmd.Process.Pid, "udp"); len(got) > 0 {
		t.Errorf("the agent has open UDP ports: %q", got)
	}
}

// wrap makes a shell run script with the command as "$@". Its process id stays that of the command if the script ends in exec.
func wrap(cmd *exec.Cmd, script string) {
	cmd.Args = append([]string{"sh", "-c", script, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

// sockets returns where a process takes in what anybody sends: its listening TCP sockets, or the UDP sockets that are not
// connected (proc_pid_net(5), proc_pid_fd(5)).
func sockets(t *testing.T, pid int, protocol string) (addresses []string) {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid)
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil { // it may be closed by now
			own[to] = true
		}
	}
	state := map[string]string{"tcp": "0A", "udp": "07"}[protocol] // TCP_LISTEN, TCP_CLOSE
	for _, version := range []string{"", "6"} {
		b, err := os.ReadFile(dir + "/net/" + protocol + version)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != state || !own["socket:["+f[9]+"]"] {
				continue
			}
			host, port, _ := strings.Cut(f[1], ":")
			addr, err := hex.DecodeString(host)
			if err != nil {
				t.Fatal(err)
			}
			for word := range slices.Chunk(addr, 4) { // words in the host's order
				endian.BigEndian.PutUint32(word, endian.NativeEndian.Uint32(word))
			}
			ip, _ := netip.AddrFromSlice(addr)
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			addresses = append(addresses, netip.AddrPortFrom(ip, uint16(n)).String())
		}
	}
	return addresses
}

func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	p := startAgent(t, "--node=orin", "--sysfs=hwmon", "--path.sys="+newSysfs(t).root, "--web.listen-address=127.0.0.1:0,[::1]:0")
	got := sockets(t, p.cmd.Process.Pid, "tcp")
	if len(got) != 3 || slices.ContainsFunc(got, func(a string) bool { return !netip.MustParseAddrPort(a).Addr().IsLoopback() }) {
		t.Errorf("the agent listens on %q, want on three ports of loopback", got)
	}
	for _, addr := range got {
		p.url = "http://" + addr
		if status, _ := p.get("/healthz"); status != http.StatusOK {
			t.Errorf("%s answers %d", addr, status)
		}
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := []string{"--node=orin", "--sysfs=hwmon", "--path.sys=" + newSysfs(t).root, "--state.directory=", "--web.listen-address=127.0.0.1:0"}
	with := func(more ...string) []string { return append(slices.Clone(good), more...) }
	file := clusterFile(t, "meters: {m: {url: coaps://127.0.0.1, psk_identity: wattlet, psk_file: psk}}\n"+
		"nodes: {a: {meter: m, channel: 1}, b: {meter: m, channel: 2}}\n")
	busy := filepath.Join(dir, "busy")
	p := startAgent(t, with("--state.directory="+busy)...)

	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string // begins and contains
	}{
		"unknown flag":      {with("--frequency=1"), 2, "-frequency; wattlet --help lists the flags"},
		"flag's value":      {with("--tick=fast"), 2, "invalid value \"fast\" for flag -tick"},
		"flag out of range": {with("--tick=1ms"), 2, "--tick=1ms: it must be from 50ms to 1m"},
		"unknown node":      {[]string{"--config.file=" + file, "--node=c"}, 2, "no node c; there are a, b"},
		"no such file":      {[]string{"--config.file=" + dir + "/none"}, 2, "no such file or directory; give one with --config.file"},
		"bad YAML":          {[]string{"--config.file=" + write("bad.yaml", "meters: {\n\tx: y")}, 2, "bad.yaml:2: "},
		"two faults":        {[]string{"--config.file=" + write("two.yaml", "meters: 1\nnodes: 2\n")}, 2, "two.yaml:1: "},
		"two nodes":         {[]string{"--config.file=" + file, "--node=a,b", "--metrics.legacy"}, 2, "serve one node, but here are 2"},
		"no sensor":         {with("--path.sys=" + t.TempDir()), 2, "node orin: sysfsmeter: hwmon below"},
		"no procfs":         {with("--path.proc="+t.TempDir(), "--state.directory="+t.TempDir()), 2, "is procfs mounted at --path.proc?"},
		"no web config":     {with("--web.config.file=" + dir + "/none"), 2, "--web.config.file: open"},
		"bad web config":    {with("--web.config.file=" + write("web.yaml", "tls_server_config: 1\nbasic_auth_users: 2\n")), 2, "--web.config.file: "},
		"no socket":         {with("--web.systemd-socket"), 2, "--web.systemd-socket: systemd handed over no socket"},
		"taken port":        {with("--web.listen-address=" + tcp.Addr().String()), 1, tcp.Addr().String() + ": bind: address already in use"},
		"not our address":   {with("--web.listen-address=192.0.2.1:0"), 1, "192.0.2.1:0: bind: cannot assign requested address"},
		"taken UDP port":    {with("--legacy.listen-address=" + udp.LocalAddr().String()), 1, udp.LocalAddr().String()},
		"taken state":       {with("--state.directory=" + busy), 1, "another wattlet uses it"},
		"state is a file":   {with("--state.directory=" + file), 1, "choose another with --state.directory"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := runAgent(t, tc.args...)
			if status != tc.status || stdout != "" {
				t.Errorf("exit status %d, stdout %q; want %d and nothing", status, stdout, tc.status)
			}
			if !strings.HasPrefix(stderr, "wattlet: ") || strings.Index(stderr, "\n") != len(stderr)-1 || !strings.Contains(stderr, tc.want) {
				t.Errorf("stderr %q; want one line with wattlet: and %q", stderr, tc.want)
			}
		})
	}
	if status, _ := p.get("/healthz"); status != http.StatusOK {
		t.Errorf("the agent whose directory others tried answers %d", status)
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string][]string{
		"--version": {"wattlet test\n"},
		"--help":    {"wattlet measures the energy of a node", "-config.file FILE", "-legacy.listen-address ADDRESS", "-web.config.file FILE"},
		"-h":        {"-once.timeout"},
	} {
		status, stdout, stderr := runAgent(t, flag)
		if status != 0 || stderr != "" {
			t.Errorf("%s: exit status %d, stderr %q; want 0 and nothing", flag, status, stderr)
		}
		for _, want := range want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: %q lacks %q", flag, stdout, want)
			}
		}
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	// 0.8 A at 5.104 V are whole counts of any sensor.
	sim := startMeter(t, metersim.Options{Channels: []metersim.Channel{{Load: metersim.Constant(4_083_200), Supply: 5_104_000, Ideal: true}}})
	// The link is cut: datagrams vanish, so that only time tells.
	link, silent := startLink(t, metersim.LinkOptions{Target: sim.Addr().String()})
	link.Pause()
	file := clusterFile(t, `
meters:
  bench: {url: "%s", psk_identity: wattlet, psk_file: psk}
  attic: {url: "%s", psk_identity: wattlet, psk_file: psk}
nodes:
  pi: {meter: bench, channel: 1}
  nano: {meter: bench, channel: 9}
  coral: {meter: attic, channel: 1}
  orin: {sysfs: hwmon}
`, sim.URL(), silent)
	args := []string{"--config.file=" + file, "--path.sys=" + newSysfs(t).root, "--state.directory=/nonexistent/unused", "--once"}

	status, stdout, stderr := runAgent(t, append(args, "--node=pi,orin")...)
	lines := strings.Split(stdout, "\n")
	if status != 0 || strings.Contains(stderr, "wattlet: ") || len(lines) != 4 || lines[3] != "" {
		t.Fatalf("exit status %d, stdout %q, stderr %q; want 0 and three lines", status, stdout, stderr)
	}
	for i, want := range []string{
		`NODE POWER VOLTAGE CURRENT METER CHANNEL`,
		`orin 3\.000 W 5\.000 V (600\.0|599\.9)\d\d mA orin/hwmon 1`, // means are of whole microcoulombs
		`pi 4\.083 W 5\.104 V (800\.0|799\.9)\d\d mA bench 1`,
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}

	status, stdout, _ = runAgent(t, append(args, "--node=pi", "--json")...)
	var v exporter.SnapshotView
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || status != 0 {
		t.Fatalf("exit status %d, %v in %q", status, err, stdout)
	}
	if n := find(t, v, "pi"); v.Format != "wattlet-snapshot/1" || n.PowerUW == nil || !within(float64(*n.PowerUW), 4.0832e6, 1e-3) {
		t.Errorf("got %s, want 4.083 W", stdout)
	}

	for name, tc := range map[string]struct{ node, want string }{
		"silent meter":       {"coral", "wattlet: node coral: no reading: " + silent + ": no answer: it is off, out of reach"},
		"unconnected number": {"nano", "wattlet: node nano: no reading: meter bench gives none for channel 9\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const timeout = 3 * time.Second
			begin := time.Now()
			status, stdout, stderr := runAgent(t, append(args, "--node="+tc.node+",orin", fmt.Sprintf("--once.timeout=%v", timeout))...)
			if took := time.Since(begin); status != 1 || took < timeout || took > timeout+5*time.Second {
				t.Errorf("exit status %d after %v, want 1 after %v", status, took, timeout)
			}
			if !strings.Contains(stderr, tc.want) {
				t.Errorf("stderr %q, want %q", stderr, tc.want)
			}
			if !strings.Contains(stdout, "3.000 W") || !strings.Contains(stdout, tc.node) {
				t.Errorf("stdout %q; want what there is of orin, and a row for %s", stdout, tc.node)
			}
		})
	}
}

func TestSystemdNotify(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	hear := func() string {
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("nothing from the agent: %v", err)
		}
		return string(b[:n])
	}

	cmd := command(t, "--web.listen-address=127.0.0.1:0", "--node=orin", "--sysfs=hwmon", "--path.sys="+newSysfs(t).root, "--state.directory=")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000")
	wrap(cmd, `WATCHDOG_PID=$$ exec "$@"`)
	p := launch(t, cmd)
	p.serving()
	if got := hear(); got != "READY=1" {
		t.Errorf("first heard %q, want READY=1", got)
	}
	for range 3 {
		if got := hear(); got != "WATCHDOG=1" {
			t.Errorf("heard %q, want WATCHDOG=1", got)
		}
	}
	p.stop()
	last := hear()
	for last == "WATCHDOG=1" {
		last = hear()
	}
	if last != "STOPPING=1" {
		t.Errorf("heard %q at the end, want STOPPING=1", last)
	}
}

// A watchdog that is not meant for this process is not fed.
func TestSystemdWatchdogOfAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	cmd := command(t, "--web.listen-address=127.0.0.1:0", "--node=orin", "--sysfs=hwmon", "--path.sys="+newSysfs(t).root,
		"--state.directory=", "--tick=50ms")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=20000", "WATCHDOG_PID=1")
	p := launch(t, cmd)
	p.serving()
	p.wait("25 periods of the watchdog have passed", func() bool {
		n := p.node("orin")
		return n.SourceAtUs > 500_000
	})
	p.stop()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var heard []string
	for !slices.Contains(heard, "STOPPING=1") {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, string(b[:n]))
	}
	if want := []string{"READY=1", "STOPPING=1"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

func TestSystemdSocket(t *testing.T) {
	t.Parallel()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := command(t, "--web.systemd-socket", "--node=orin", "--sysfs=hwmon", "--path.sys="+newSysfs(t).root, "--state.directory=")
	cmd.ExtraFiles = []*os.File{f} // number 3
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	wrap(cmd, `LISTEN_PID=$$ exec "$@"`)
	p := launch(t, cmd)
	p.serving()
	if want := "http://" + l.Addr().String(); p.url != want {
		t.Errorf("the agent serves at %s, want the socket handed over, %s", p.url, want)
	}
	if got := sockets(t, cmd.Process.Pid, "tcp"); !slices.Equal(got, []string{l.Addr().String()}) {
		t.Errorf("the agent listens on %q, want on %v alone", got, l.Addr())
	}
	if status, body := p.get("/healthz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	p.stop()
}

// Connections that others keep open, whatever they sent, do not hold the agent.
func TestEndsInOrder(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]string{
		"kept alive":     "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
		"nothing sent":   "",
		"half a request": "GET /metrics HTTP/1.1\r\nHost:",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := startMeter(t, metersim.Options{})
			p := startAgent(t, meterFlags(t, sim.URL())...)
			p.wait("it is ready", func() bool {
				status, _ := p.get("/readyz")
				return status == http.StatusOK
			})
			conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			if _, err := conn.Write([]byte(sent)); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(sent, "\r\n\r\n") {
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			// The connection is accepted once a later one is answered.
			p.client.CloseIdleConnections()
			if status, _ := p.get("/healthz"); status != http.StatusOK {
				t.Fatal(status)
			}
			begin := time.Now()
			p.stop()
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("it took %v to end, want 5s at most", took)
			}
		})
	}
}
