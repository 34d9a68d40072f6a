package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// host is a network namespace made by a test; it goes with the last reference to it.
type host struct{ ns *os.File }

func newHost(t *testing.T) host {
	t.Helper()
	type made struct {
		ns  *os.File
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- made{nil, err}
			return
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		done <- made{ns, err}
	}()
	m := <-done
	if errors.Is(m.err, unix.EPERM) {
		t.Skipf("make a network namespace: %v; run as root, or with CAP_SYS_ADMIN", m.err)
	}
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.ns.Close() })
	return host{m.ns}
}

// do runs f on the host: sockets that its goroutine opens, and processes that it starts, are there.
func (h host) do(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	if <-done; t.Failed() {
		t.FailNow()
	}
}

func (h host) ip(t *testing.T, args string) {
	t.Helper()
	h.do(t, func() {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", args, err, out)
		}
	})
}

// twoHosts are joined by a cable: va with the first address, vb with the second.
func twoHosts(t *testing.T, first, second string) (a, b host) {
	t.Helper()
	program(t, "ip")
	a, b = newHost(t), newHost(t)
	a.ip(t, fmt.Sprintf("link add va type veth peer name vb netns /proc/%d/fd/%d", os.Getpid(), b.ns.Fd()))
	for _, end := range []struct {
		host
		name, addr string
	}{{a, "va", first}, {b, "vb", second}} {
		end.ip(t, "link set "+end.name+" addrgenmode none up")
		if strings.Contains(end.addr, ":") {
			end.addr += " nodad" // duplicate address detection would keep it from use for a second
		}
		end.ip(t, "addr add "+end.addr+" dev "+end.name)
	}
	return a, b
}

// wattctl runs a command on the host.
func (h host) wattctl(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	h.do(t, func() { status = run(t.Context(), args, &out, &errs) })
	return status, out.String(), errs.String()
}

// A meter that is announced on one host is found on another, with a URL that reads it.
func TestDiscover(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ first, second, url string }{
		"IPv4":            {"192.0.2.1/24", "192.0.2.2/24", "coaps://192.0.2.1:5684"},
		"link-local IPv6": {"fe80::1/64", "fe80::2/64", "coaps://[fe80::1%25vb]:5684"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := twoHosts(t, tc.first, tc.second)
			key := "--psk-file=" + write(t, "psk", testKey)
			var sim *running
			a.do(t, func() {
				sim = process(t, nil, "meter", "simulate", "--listen=:5684", "--name=bench 1", "--channels=3", "--announce", "--interface=va", key)
			})
			if url := sim.up(); url != "coaps://127.0.0.1:5684" {
				t.Errorf("on its own host it is at %s", url)
			}
			want := found{Name: "bench 1", URL: tc.url, Serial: "sim:bench 1", Firmware: "simulator dev", Channels: 3, Interface: "vb"}
			sim.until("it is found", func() bool { // its name is taken a second after its start
				status, stdout, stderr := b.wattctl(t, "meter", "discover", "--for=500ms", "--json")
				var got []found
				if err := json.Unmarshal([]byte(stdout), &got); status != 0 || stderr != "" || err != nil || len(got) > 1 || len(got) == 1 && got[0] != want {
					t.Fatalf("status %d, stderr %q, %v; found\n%swant %+v", status, stderr, err, stdout, want)
				}
				return len(got) == 1
			})
			status, stdout, stderr := b.wattctl(t, "meter", "discover", "--for=2s", "--interface=vb")
			lines := strings.Split(stdout, "\n")
			if status != 0 || stderr != "" || len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "NAME URL CHANNELS FIRMWARE SERIAL INTERFACE" ||
				strings.Join(strings.Fields(lines[1]), " ") != "bench 1 "+tc.url+" 3 simulator dev sim:bench 1 vb" {
				t.Errorf("status %d, stderr %q, found\n%s", status, stderr, stdout)
			}
			if status, stdout, stderr := b.wattctl(t, "meter", "read", tc.url, key, "--count=1"); status != 0 || stderr != "" || !strings.Contains(stdout, "METER TIME") {
				t.Errorf("status %d, stderr %q, read\n%s", status, stderr, stdout)
			}
			if status := sim.end(); status != 0 || !strings.Contains(sim.stdout.String(), "\nchannel 3 drew 0 J\n") {
				t.Errorf("interrupted, it ended with %d", status)
			}
		})
	}
}

func TestDiscoverNobody(t *testing.T) {
	t.Parallel()
	_, b := twoHosts(t, "192.0.2.1/24", "192.0.2.2/24")
	for _, tc := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"--for=300ms", 1, "", "wattctl: no meter answered within 300ms; are you on its network, and is it on? Ask one by address with --url=coaps://HOST\n"},
		{"--for=300ms --json", 0, "[]\n", ""},
		{"--interface=eth9", 1, "", `wattctl: look for meters: join multicast DNS: "eth9" is no interface that is up and can multicast`},
	} {
		status, stdout, stderr := b.wattctl(t, append([]string{"meter", "discover"}, strings.Fields(tc.args)...)...)
		if status != tc.status || stdout != tc.stdout || !strings.HasPrefix(stderr, tc.stderr) || tc.stderr == "" && stderr != "" || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%s: status %d, stdout %q, stderr %q", tc.args, status, stdout, stderr)
		}
	}
	if status, _, stderr := newHost(t).wattctl(t, "meter", "discover"); status != 1 || !isOneLine(stderr) || !strings.Contains(stderr, "no interface is up") {
		t.Errorf("without a network: status %d, stderr %q", status, stderr)
	}
}

func TestDiscoverByURL(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	want := map[string]string{"</meter>": "Identity", "</power>": "Report", "</samples>": "SampleList", "</time>": "Time"}
	for l := range strings.Lines(succeed(t, "meter", "discover", "--url="+sim.url, "--psk-file="+sim.keyFile)) {
		path, attributes, _ := strings.Cut(strings.TrimSuffix(l, "\n"), ";")
		if !strings.Contains(attributes, `rt="wattlet.meter.v1.`+want[path]+`"`) {
			t.Errorf("link %q", l)
		}
		delete(want, path)
	}
	if len(want) > 0 {
		t.Errorf("no link to %v", want)
	}
}
