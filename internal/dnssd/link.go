package dnssd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

// link is a network interface that multicast DNS is spoken on.
type link struct {
	index int
	name  string
}

// packet is a message that came in by multicast, or the end of receiving.
type packet struct {
	link link
	from netip.Addr
	msg  *dns.Msg
	err  error
}

// sendFunc sends a message to everyone on a link.
type sendFunc func(link, *dns.Msg) error

// sockets are members of the multicast groups on some links.
type sockets struct {
	families []family // one or two
	links    []link
}

// join opens the sockets and joins the groups on the named interfaces, or on all that are up, can multicast and are neither
// loopback nor point-to-point. Interfaces that come up later are not taken in.
func join(names []string) (*sockets, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	s := &sockets{}
	var errs []error
	for _, open := range []func() (family, error){openIPv4, openIPv6} {
		if f, err := open(); err != nil {
			errs = append(errs, err)
		} else {
			s.families = append(s.families, f)
		}
	}
	if len(s.families) == 0 {
		return nil, failed("open multicast DNS port 5353", errs)
	}
	for _, ifi := range interfaces {
		if !suitable(ifi, names) {
			continue
		}
		joined := false
		for _, f := range s.families {
			if err := f.join(&ifi); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", ifi.Name, err))
			} else {
				joined = true
			}
		}
		if joined {
			s.links = append(s.links, link{ifi.Index, ifi.Name})
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(s.links, func(l link) bool { return l.name == name }) {
			s.close()
			return nil, failed(fmt.Sprintf("join multicast DNS: %q is no interface that is up and can multicast, see `ip link`",
				name), errs)
		}
	}
	if len(s.links) == 0 {
		s.close()
		return nil, failed("join multicast DNS: no interface is up and can multicast, see `ip link`", errs)
	}
	return s, nil
}

func suitable(ifi net.Interface, names []string) bool {
	if ifi.Flags&net.FlagUp == 0 || ifi.Flags&net.FlagMulticast == 0 {
		return false
	}
	if len(names) > 0 {
		return slices.Contains(names, ifi.Name)
	}
	return ifi.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0
}

func (s *sockets) close() {
	for _, f := range s.families {
		f.close()
	}
}

// send sends m over IPv4 and IPv6; it fails if neither took it.
func (s *sockets) send(l link, m *dns.Msg) error {
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		return fmt.Errorf("pack multicast DNS message: %w", err)
	}
	var errs []error
	for _, f := range s.families {
		if err := f.write(b, l.index); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(s.families) {
		return failed("send multicast DNS on "+l.name, errs)
	}
	return nil
}

// run calls loop with what comes in until loop returns, then closes the sockets and waits for the readers.
func (s *sockets) run(loop func(in <-chan packet) error) error {
	in, done := make(chan packet), make(chan struct{})
	var readers sync.WaitGroup
	for _, f := range s.families {
		readers.Go(func() { s.receive(f, in, done) })
	}
	err := loop(in)
	close(done)
	s.close()
	readers.Wait()
	return err
}

// receive passes on the messages that one socket gets, until it fails or is closed.
func (s *sockets) receive(f family, in chan<- packet, done <-chan struct{}) {
	buf := make([]byte, maxPacket)
	for {
		p, ok := packet{}, true
		n, ifIndex, from, err := f.read(buf)
		if err != nil {
			p.err = fmt.Errorf("receive multicast DNS: %w", err)
		} else {
			p, ok = s.accept(buf[:n], ifIndex, from)
		}
		if !ok {
			continue
		}
		select {
		case in <- p:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// accept drops what is not for us: the kernel hands over also what other sockets of this host joined on other links.
//
// Full participants send from port 5353; a simple resolver on another port expects a unicast answer (RFC 6762 section 6.7),
// which it does not get from us.
func (s *sockets) accept(b []byte, ifIndex int, from netip.AddrPort) (packet, bool) {
	i := slices.IndexFunc(s.links, func(l link) bool { return l.index == ifIndex })
	if i < 0 || from.Port() != port {
		return packet{}, false
	}
	m := parse(b)
	return packet{link: s.links[i], from: from.Addr(), msg: m}, m != nil
}

// parse returns the message of a datagram, or nil if it is none that counts (RFC 6762 sections 18.3 and 18.11).
func parse(b []byte) *dns.Msg {
	m := new(dns.Msg)
	if m.Unpack(b) != nil || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess {
		return nil
	}
	return m
}

// sendAll sends each link its message; it fails if no link took one.
func sendAll(links []link, send sendFunc, message func(link) *dns.Msg) error {
	var errs []error
	for _, l := range links {
		if err := send(l, message(l)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) < len(links) {
		return nil
	}
	return failed("send multicast DNS on any interface", errs)
}

// failed joins what failed and why on one line.
func failed(what string, errs []error) error {
	err := errors.New(what)
	for _, why := range errs {
		err = fmt.Errorf("%w; %w", err, why)
	}
	return err
}
