package dnssd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is a network namespace made by a test; it goes with the test's last reference to it.
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

// start runs f on h; a socket stays in the namespace it was opened in.
func (h host) start(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return done
}

func (h host) ip(t *testing.T, args string) {
	t.Helper()
	err := <-h.start(func() error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// connect makes a cable from h's interface to g's, with no addresses.
func (h host) connect(t *testing.T, name string, g host, peer string) {
	t.Helper()
	h.ip(t, fmt.Sprintf("link add %s type veth peer name %s netns /proc/%d/fd/%d",
		name, peer, os.Getpid(), g.ns.Fd()))
	h.ip(t, "link set "+name+" addrgenmode none up")
	g.ip(t, "link set "+peer+" addrgenmode none up")
}

func (h host) address(t *testing.T, name string, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		if strings.Contains(a, ":") {
			a += " nodad" // duplicate address detection would keep it from use for a second
		}
		h.ip(t, "addr add "+a+" dev "+name)
	}
}

// twoHosts are joined by a cable: va with .1 on the first, vb with .2 on the second.
func twoHosts(t *testing.T) (a, b host) {
	t.Helper()
	t.Parallel() // each test has its own network, and mostly waits
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip is missing; install iproute2")
	}
	a, b = newHost(t), newHost(t)
	a.connect(t, "va", b, "vb")
	a.address(t, "va", "192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")
	b.address(t, "vb", "192.0.2.2/24", "2001:db8::2/64", "fe80::2/64")
	return a, b
}

// browsing is a Browse that runs on a host.
type browsing struct {
	found chan Service
	seen  []Service
	done  <-chan error
	stop  func()
}

func (h host) browse(t *testing.T, ifaces ...string) *browsing {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	w := &browsing{found: make(chan Service, 100), stop: stop}
	w.done = h.start(func() error {
		defer close(w.found)
		return Browse(ctx, MeterType, ifaces, func(s Service) { w.found <- s })
	})
	return w
}

// wait returns once every one of want was found.
func (w *browsing) wait(t *testing.T, want ...Service) {
	t.Helper()
	for {
		if !slices.ContainsFunc(want, func(s Service) bool { return !slices.ContainsFunc(w.seen, s.equal) }) {
			return
		}
		s, ok := <-w.found
		if !ok {
			t.Fatalf("Browse ended with %v; it found\n%v\nwithout all of\n%v", <-w.done, w.seen, want)
		}
		w.seen = append(w.seen, s)
	}
}

// end stops the browsing and returns all it found.
func (w *browsing) end(t *testing.T) []Service {
	t.Helper()
	w.stop()
	for s := range w.found {
		w.seen = append(w.seen, s)
	}
	if err := <-w.done; err != nil {
		t.Errorf("Browse: %v", err)
	}
	return w.seen
}

// announce starts an announcement; what it returns says goodbye.
func (h host) announce(t *testing.T, s Service) (goodbye func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := h.start(func() error { return Announce(ctx, MeterType, s) })
	goodbye = func() {
		if stop(); done != nil {
			if err := <-done; err != nil {
				t.Errorf("Announce: %v", err)
			}
			done = nil
		}
	}
	t.Cleanup(goodbye)
	return goodbye
}

var kitchen = Service{
	Instance: "Küche 1.2 ()",
	Port:     5684,
	TXT:      Meter{ID: "a0b1c2d3e4f5", Firmware: "1.2.0", Channels: 6}.TXT(),
}

// heard is s as it is found on an interface.
func heard(s Service, iface, host string, addrs ...string) Service {
	s.Interface, s.Host, s.Addrs = iface, host, nil
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
	}
	return s
}

func kitchenOn(iface string) Service {
	return heard(kitchen, iface, "k-che-1-2.local", "192.0.2.1", "2001:db8::1", "fe80::1%"+iface)
}

func TestFindOverCable(t *testing.T) {
	a, b := twoHosts(t)
	early := b.browse(t)
	a.announce(t, kitchen)
	early.wait(t, kitchenOn("vb")) // by the announcement

	late, named, same := b.browse(t), b.browse(t, "vb"), a.browse(t)
	late.wait(t, kitchenOn("vb")) // by asking, with three more on port 5353 of these hosts
	named.wait(t, kitchenOn("vb"))
	same.wait(t, kitchenOn("va"))
	for _, w := range []*browsing{early, late, named, same} {
		if got := w.end(t); len(got) != 1 {
			t.Errorf("found %v, want it once", got)
		}
	}
	if m, err := ParseMeter(late.seen[0].TXT); err != nil || m != (Meter{"a0b1c2d3e4f5", "1.2.0", 6}) {
		t.Errorf("meter %+v, %v", m, err)
	}
}

func TestTwoInstancesAndGoodbye(t *testing.T) {
	a, b := twoHosts(t)
	one := Service{Instance: "bench-1", Port: 5684, TXT: map[string]string{"ch": "6"}}
	two := Service{Instance: "bench-2", Port: 5685, TXT: map[string]string{"ch": "12"}}
	addrs := []string{"192.0.2.1", "2001:db8::1", "fe80::1%vb"}
	oneHeard, twoHeard := heard(one, "vb", "bench-1.local", addrs...), heard(two, "vb", "bench-2.local", addrs...)

	watch := b.browse(t)
	goodbye := a.announce(t, one)
	a.announce(t, two)
	watch.wait(t, oneHeard, twoHeard)

	goodbye()
	after := b.browse(t)
	after.wait(t, twoHeard)
	// The one is back unchanged: whoever heard the goodbye hears of it anew.
	watch.seen = nil
	a.announce(t, one)
	watch.wait(t, oneHeard)
	if got := watch.end(t); !slices.EqualFunc(got, []Service{oneHeard}, Service.equal) {
		t.Errorf("found %v, want only bench-1 again", got)
	}
	// Until bench-1 was announced again, a second after its goodbye and more, the second browse had not found it.
	after.wait(t, oneHeard)
	if got := after.end(t); !slices.EqualFunc(got, []Service{twoHeard, oneHeard}, Service.equal) {
		t.Errorf("found %v, want bench-2 and then bench-1", got)
	}
}

func TestGoodbyeIsFinal(t *testing.T) {
	a, b := twoHosts(t)
	watch := b.browse(t)
	goodbye := a.announce(t, kitchen)
	watch.wait(t, kitchenOn("vb"))
	watch.end(t)
	goodbye()

	after := b.browse(t)
	// Another instance, which takes a second to announce itself, shows that the browse asked and heard meanwhile.
	other := Service{Instance: "bench-2", Port: 5684}
	a.announce(t, other)
	other.TXT = map[string]string{}
	after.wait(t, heard(other, "vb", "bench-2.local", "192.0.2.1", "2001:db8::1", "fe80::1%vb"))
	if got := after.end(t); len(got) != 1 {
		t.Errorf("found %v after the goodbye, want bench-2 only", got)
	}
}

func TestNameTakenOverCable(t *testing.T) {
	a, b := twoHosts(t)
	watch := b.browse(t)
	a.announce(t, kitchen)
	watch.wait(t, kitchenOn("vb"))

	other := kitchen
	other.Port = 5685
	err := <-b.start(func() error { return Announce(t.Context(), MeterType, other) })
	if !errors.Is(err, ErrTaken) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want ErrTaken on one line", err)
	}
	if got := watch.end(t); len(got) != 1 {
		t.Errorf("found %v, want the first only", got)
	}
}

func TestSimultaneousNames(t *testing.T) {
	a, b := twoHosts(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	first := a.start(func() error { return Announce(ctx, MeterType, kitchen) })
	second := b.start(func() error { return Announce(ctx, MeterType, kitchen) })
	var loser error
	winner := first
	select {
	case loser = <-first:
		winner = second
	case loser = <-second:
	}
	if !errors.Is(loser, ErrTaken) {
		t.Errorf("one of two: got %v, want ErrTaken", loser)
	}
	stop()
	if err := <-winner; err != nil {
		t.Errorf("the other of two: got %v", err)
	}
}

func TestIPv6Only(t *testing.T) {
	a, b := newHostsWithoutAddresses(t)
	a.address(t, "va", "fe80::1/64")
	b.address(t, "vb", "fe80::2/64")
	a.announce(t, kitchen)
	w := b.browse(t)
	w.wait(t, heard(kitchen, "vb", "k-che-1-2.local", "fe80::1%vb"))
	w.end(t)
}

func TestIPv4Only(t *testing.T) {
	a, b := newHostsWithoutAddresses(t)
	a.address(t, "va", "192.0.2.1/24")
	b.address(t, "vb", "192.0.2.2/24")
	a.announce(t, kitchen)
	w := b.browse(t)
	w.wait(t, heard(kitchen, "vb", "k-che-1-2.local", "192.0.2.1"))
	w.end(t)
}

func newHostsWithoutAddresses(t *testing.T) (a, b host) {
	t.Helper()
	a, b = twoHosts(t)
	a.ip(t, "addr flush dev va")
	b.ip(t, "addr flush dev vb")
	return a, b
}

func TestInterfaceChoice(t *testing.T) {
	a, b := twoHosts(t)
	a.connect(t, "wa", b, "wb")
	a.address(t, "wa", "198.51.100.1/24")
	b.address(t, "wb", "198.51.100.2/24")
	one, everywhere := kitchen, Service{Instance: "bench-2", Port: 5684, TXT: map[string]string{"ch": "6"}}
	one.Interface = "va"
	a.announce(t, one)
	a.announce(t, everywhere)
	onV := heard(everywhere, "vb", "bench-2.local", "192.0.2.1", "2001:db8::1", "fe80::1%vb")
	onW := heard(everywhere, "wb", "bench-2.local", "198.51.100.1")

	w := b.browse(t)
	w.wait(t, kitchenOn("vb"), onV, onW)
	late := b.browse(t, "wb")
	late.wait(t, onW)
	if got := w.end(t); len(got) != 3 {
		t.Errorf("found %v, want nothing of %q on wb", got, kitchen.Instance)
	}
	if got := late.end(t); len(got) != 1 {
		t.Errorf("found %v, want nothing from vb", got)
	}

	for _, ifaces := range [][]string{{"nowhere"}, {"vb", "nowhere"}, {"lo"}} {
		err := <-b.start(func() error { return Browse(t.Context(), MeterType, ifaces, nil) })
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("interfaces %v: got %v, want an error on one line", ifaces, err)
		}
	}
	lonely := newHost(t)
	if err := <-lonely.start(func() error { return Browse(t.Context(), MeterType, nil, nil) }); err == nil {
		t.Error("no interface: got no error")
	}
}

// What did not come by multicast came from anywhere.
func TestUnicastIsNoAnnouncement(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		write    func(f family, b []byte, to net.Addr) (int, error)
	}{
		"IPv4": {"192.0.2.1/24", "192.0.2.2/24",
			func(f family, b []byte, to net.Addr) (int, error) { return f.(familyIPv4).WriteTo(b, nil, to) }},
		"IPv6": {"2001:db8::1/64", "2001:db8::2/64",
			func(f family, b []byte, to net.Addr) (int, error) { return f.(familyIPv6).WriteTo(b, nil, to) }},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newHostsWithoutAddresses(t)
			a.address(t, "va", c.from)
			b.address(t, "vb", c.to)
			target := netip.MustParsePrefix(c.to).Addr()
			// Known neighbours, or the unicast datagram would be sent after the multicast one.
			b.ip(t, "link set vb address 02:00:00:00:00:02")
			a.ip(t, "neigh replace "+target.String()+" lladdr 02:00:00:00:00:02 dev va nud permanent")
			w := b.browse(t)
			good := testAnnouncer(t).announcement(link{}, false)
			err := <-a.start(func() error {
				s, err := join(nil)
				if err != nil {
					return err
				}
				defer s.close()
				f := s.families[slices.Index([]string{"IPv4", "IPv6"}, name)]
				if _, _, _, err := f.read(make([]byte, maxPacket)); err != nil { // the browse is there, it asked
					return err
				}
				if _, err := c.write(f, []byte(announced), net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, port))); err != nil {
					return err
				}
				return s.send(s.links[0], good)
			})
			if err != nil {
				t.Fatal(err)
			}
			want := bench1("192.0.2.5")
			want.Interface = "vb"
			w.wait(t, want)
			if got := w.end(t); len(got) != 1 {
				t.Errorf("found %v", got)
			}
		})
	}
}

// A change of address is told with the next answer, and found again.
func TestAddressChange(t *testing.T) {
	a, b := newHostsWithoutAddresses(t)
	a.address(t, "va", "192.0.2.1/24")
	b.address(t, "vb", "192.0.2.2/24")
	a.announce(t, kitchen)
	w := b.browse(t)
	w.wait(t, heard(kitchen, "vb", "k-che-1-2.local", "192.0.2.1"))
	a.ip(t, "addr flush dev va")
	a.address(t, "va", "192.0.2.7/24")
	fresh := b.browse(t) // its question makes the announcer speak
	fresh.wait(t, heard(kitchen, "vb", "k-che-1-2.local", "192.0.2.7"))
	w.wait(t, heard(kitchen, "vb", "k-che-1-2.local", "192.0.2.7"))
	fresh.end(t)
	w.end(t)
}
