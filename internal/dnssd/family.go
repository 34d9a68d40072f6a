package dnssd

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// RFC 6762 section 3; section 17 for the largest packet; section 11 for the hop limit.
const (
	port      = 5353
	maxPacket = 9000
	hopLimit  = 255
)

var (
	group4 = net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	group6 = net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port}
)

// family is the socket of multicast DNS over IPv4 or over IPv6.
type family interface {
	join(*net.Interface) error
	write(b []byte, ifIndex int) error
	// read returns the next datagram that was sent to the group; unicast to port 5353 may come from anywhere.
	read(b []byte) (n, ifIndex int, from netip.AddrPort, err error)
	close()
}

type familyIPv4 struct{ *ipv4.PacketConn }

// net.ListenUDP with a multicast address shares the port with the host's own responder (SO_REUSEADDR).
func openIPv4() (family, error) {
	c, err := net.ListenUDP("udp4", &group4)
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(c)
	if err := errors.Join(p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true), p.SetMulticastTTL(hopLimit),
		p.SetMulticastLoopback(true)); err != nil {
		c.Close()
		return nil, err
	}
	return familyIPv4{p}, nil
}

func (f familyIPv4) join(ifi *net.Interface) error { return f.JoinGroup(ifi, &group4) }
func (f familyIPv4) close()                        { f.Close() }

func (f familyIPv4) write(b []byte, ifIndex int) error {
	_, err := f.WriteTo(b, &ipv4.ControlMessage{IfIndex: ifIndex}, &group4)
	return err
}

func (f familyIPv4) read(b []byte) (int, int, netip.AddrPort, error) {
	for {
		n, cm, from, err := f.ReadFrom(b)
		if err != nil {
			return 0, 0, netip.AddrPort{}, err
		}
		if cm != nil && cm.Dst.Equal(group4.IP) {
			return n, cm.IfIndex, from.(*net.UDPAddr).AddrPort(), nil
		}
	}
}

type familyIPv6 struct{ *ipv6.PacketConn }

func openIPv6() (family, error) {
	c, err := net.ListenUDP("udp6", &group6)
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(c)
	if err := errors.Join(p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true), p.SetMulticastHopLimit(hopLimit),
		p.SetMulticastLoopback(true)); err != nil {
		c.Close()
		return nil, err
	}
	return familyIPv6{p}, nil
}

func (f familyIPv6) join(ifi *net.Interface) error { return f.JoinGroup(ifi, &group6) }
func (f familyIPv6) close()                        { f.Close() }

func (f familyIPv6) write(b []byte, ifIndex int) error {
	_, err := f.WriteTo(b, &ipv6.ControlMessage{IfIndex: ifIndex}, &group6)
	return err
}

func (f familyIPv6) read(b []byte) (int, int, netip.AddrPort, error) {
	for {
		n, cm, from, err := f.ReadFrom(b)
		if err != nil {
			return 0, 0, netip.AddrPort{}, err
		}
		if cm != nil && cm.Dst.Equal(group6.IP) {
			return n, cm.IfIndex, from.(*net.UDPAddr).AddrPort(), nil
		}
	}
}
