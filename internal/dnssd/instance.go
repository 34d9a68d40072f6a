package dnssd

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// instance is what was heard of one instance on one link.
type instance struct {
	label string        // its own label, raw
	name  string        // its whole name
	ttl   time.Duration // of the PTR record
	until time.Time     // when that record expires
	srv   *dns.SRV      // nil until heard
	txt   map[string]string
	addrs []heardAddr

	asked bool     // for what its announcement left out
	dirty bool     // something was heard since it was compared with told
	told  *Service // as it was reported last
}

type heardAddr struct {
	netip.Addr
	at time.Time
}

func (i *instance) complete() bool { return i.srv != nil && i.txt != nil && len(i.addrs) > 0 }

// takeAddr takes in an address of the instance's host.
func (i *instance) takeAddr(a netip.Addr, h *dns.RR_Header, now time.Time) {
	i.dirty = true
	i.addrs = slices.DeleteFunc(i.addrs, func(old heardAddr) bool {
		// A flush replaces the addresses of the family, but not those of the same announcement's other records and packets
		// (RFC 6762 section 10.2). Announcements are a second apart at least.
		flush := h.Class&topBit != 0 && old.Is4() == a.Is4() && now.Sub(old.at) > time.Second/2
		return old.Addr == a || flush
	})
	if h.Ttl > 0 && len(i.addrs) < maxAddrs {
		i.addrs = append(i.addrs, heardAddr{a, now})
	}
}

// service returns a complete instance as it is reported.
func (i *instance) service(l link) Service {
	s := Service{
		Instance:  i.label,
		Host:      strings.TrimSuffix(i.srv.Target, "."),
		Port:      i.srv.Port,
		TXT:       maps.Clone(i.txt),
		Interface: l.name,
	}
	for _, a := range i.addrs {
		s.Addrs = append(s.Addrs, a.Addr)
	}
	slices.SortFunc(s.Addrs, func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(linkLocal(a), linkLocal(b)), a.Compare(b))
	})
	return s
}

func linkLocal(a netip.Addr) int {
	if a.IsLinkLocalUnicast() {
		return 1
	}
	return 0
}
