package main

import (
	"net"
	"net/netip"
	"net/url"
)

// here is an address at which this host reaches what listens on at: for all addresses, loopback.
func here(at netip.AddrPort) netip.AddrPort {
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// reach is here for the address of a listener, as text.
func reach(at net.Addr) string {
	if tcp, ok := at.(*net.TCPAddr); ok {
		return here(tcp.AddrPort()).String()
	}
	return at.String()
}

// meterURL is where a meter is, by url.URL because that escapes the zone of a link-local address (RFC 6874).
func meterURL(at netip.AddrPort) string {
	return (&url.URL{Scheme: "coaps", Host: at.String()}).String()
}
