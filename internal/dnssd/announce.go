package dnssd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// hostTTL is of records with a host's name or address in them, serviceTTL of the others (RFC 6762 section 10).
	hostTTL    = 120 * time.Second
	serviceTTL = 4500 * time.Second

	// RFC 6762 sections 8.1, 8.3 and 6: three probes, two announcements, one answer a second, four to probes.
	probes        = 3
	probeInterval = 250 * time.Millisecond
	repeatAfter   = time.Second
	answerGap     = time.Second
	defenceGap    = 250 * time.Millisecond

	// maxMessage, in bytes, leaves room for an interface's addresses in an Ethernet frame (RFC 6762 section 17).
	maxMessage = 1200
)

// ErrTaken is wrapped by the error of [Announce] if another host has the instance's or the host's name.
var ErrTaken = errors.New("name taken")

// Announce makes s known as an instance of serviceType, such as [MeterType], until ctx ends; then it says goodbye and
// returns nil. It first asks whether the name is free, which takes 0.75 to 1 s, and fails with [ErrTaken] if it is not. If
// another host comes up with the name later, it asks again. Interfaces that come up later are not taken in.
//
// Addresses that the host gets while it announces are told from the next answer on. Resolvers that do not speak from port
// 5353 get no answer, since that would have to go to whatever address they give.
func Announce(ctx context.Context, serviceType string, s Service) error {
	if err := announce(ctx, serviceType, s); err != nil {
		return fmt.Errorf("announce %q: %w", s.Instance, err)
	}
	return nil
}

func announce(ctx context.Context, serviceType string, s Service) error {
	a, err := newAnnouncer(serviceType, s, interfaceAddrs)
	if err != nil {
		return err
	}
	var names []string
	if s.Interface != "" {
		names = []string{s.Interface}
	}
	socks, err := join(names)
	if err != nil {
		return err
	}
	return socks.run(func(in <-chan packet) error { return a.run(ctx, socks.links, in, socks.send) })
}

// announcer is one service instance and its host's name.
type announcer struct {
	service  string // type, instance and host are domain names
	instance string
	host     string
	port     uint16
	txt      []string
	fixed    []netip.Addr // nil to take each link's addresses
	addrs    func(link) []netip.Addr
}

func newAnnouncer(serviceType string, s Service, addrs func(link) []netip.Addr) (*announcer, error) {
	a := &announcer{port: s.Port, fixed: s.Addrs, addrs: addrs}
	var err error
	if a.service, err = typeName(serviceType); err != nil {
		return nil, err
	}
	if err := checkInstance(s.Instance); err != nil {
		return nil, err
	}
	if a.instance, err = normal(escape(s.Instance) + "." + a.service); err != nil {
		return nil, err
	}
	host := strings.TrimSuffix(strings.TrimSuffix(s.Host, "."), ".local")
	if host == "" {
		host = hostLabel(s.Instance)
	} else if hostLabel(host) != strings.ToLower(host) {
		return nil, fmt.Errorf("host name %q: use letters, digits and inner hyphens, up to 63", s.Host)
	}
	a.host = host + ".local."
	if s.Port == 0 {
		return nil, errors.New("port 0: use the port the service listens on")
	}
	if a.txt, err = formatTXT(s.TXT); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(s.Addrs, func(a netip.Addr) bool { return !usable(a) }); i >= 0 || len(s.Addrs) > maxAddrs {
		return nil, fmt.Errorf("addresses %v: use up to %d that other hosts can reach", s.Addrs, maxAddrs)
	}
	b, err := a.announcement(link{}, false).Pack()
	if err != nil {
		return nil, err
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("announcement has %d bytes, %d fit: use a shorter TXT record", len(b), maxMessage)
	}
	return a, nil
}

// hostLabel makes a host's label of any name (RFC 952, RFC 1123 section 2.1).
func hostLabel(name string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name)
	label = strings.Trim(label[:min(len(label), 63)], "-")
	if label == "" {
		return "meter"
	}
	return label
}

// conflictError: another host has announced other data than ours under a name of ours.
type conflictError struct {
	name string
	by   netip.Addr
}

func (e conflictError) Error() string { return fmt.Sprintf("%s has this %s", e.by, e.name) }

// run probes and then answers, again and again if a conflict comes up after the name was ours (RFC 6762 section 9). Two
// hosts that lose a name to each other probe with different delays, and the first one done keeps it.
func (a *announcer) run(ctx context.Context, links []link, in <-chan packet, send sendFunc) error {
	for {
		if err := a.probe(ctx, links, in, send); err != nil || ctx.Err() != nil {
			return err
		}
		err := a.answer(ctx, links, in, send)
		if conflict := (conflictError{}); !errors.As(err, &conflict) {
			return err
		}
	}
}

// probe asks for our names and returns nil if nobody has them or ctx ended (RFC 6762 section 8.1).
func (a *announcer) probe(ctx context.Context, links []link, in <-chan packet, send sendFunc) error {
	timer := time.NewTimer(rand.N(probeInterval))
	defer timer.Stop()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case p := <-in:
			if p.err != nil {
				return p.err
			}
			if err := a.conflict(p, links); err != nil {
				return fmt.Errorf("%w: %w; choose another one", ErrTaken, err)
			}
		case <-timer.C:
			if sent == probes {
				return nil
			}
			if err := sendAll(links, send, a.probeMessage); err != nil {
				return err
			}
			sent++
			timer.Reset(probeInterval)
		}
	}
}

// turn is when a link is to hear from us.
type turn struct {
	due    time.Time // zero if it is not
	last   time.Time
	repeat bool // the first announcement is to be sent again
}

// answer announces, answers until ctx ends, and says goodbye. It returns early with conflictError.
//
// Every answer is the whole announcement: it is one packet, and whoever asks for one record needs the others next.
func (a *announcer) answer(ctx context.Context, links []link, in <-chan packet, send sendFunc) error {
	turns := map[link]*turn{}
	for _, l := range links {
		turns[l] = &turn{due: time.Now(), repeat: true}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = sendAll(links, send, func(l link) *dns.Msg { return a.announcement(l, true) })
			return nil
		case p := <-in:
			if p.err != nil {
				return p.err
			}
			if err := a.conflict(p, links); err != nil {
				return err
			}
			if !a.asked(p.msg) {
				continue
			}
			gap := answerGap
			if len(p.msg.Ns) > 0 { // a probe, to be answered before the next one
				gap = defenceGap
			}
			t, due := turns[p.link], time.Now().Add(jitter())
			if next := t.last.Add(gap); due.Before(next) {
				due = next
			}
			if t.due.IsZero() || due.Before(t.due) {
				t.due = due
			}
		case <-timer.C:
			now := time.Now()
			for l, t := range turns {
				if t.due.IsZero() || t.due.After(now) {
					continue
				}
				_ = send(l, a.announcement(l, false)) // a link that is down now may be up at the next question
				t.due, t.last = time.Time{}, now
				if t.repeat {
					t.due, t.repeat = now.Add(repeatAfter), false
				}
			}
		}
		if next := earliest(turns); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

func earliest(turns map[link]*turn) (next time.Time) {
	for _, t := range turns {
		if !t.due.IsZero() && (next.IsZero() || t.due.Before(next)) {
			next = t.due
		}
	}
	return next
}

// asked tells whether a query is for something of ours that the asker does not know already (RFC 6762 section 7.1).
func (a *announcer) asked(m *dns.Msg) bool {
	return !m.Response && slices.ContainsFunc(m.Question, func(q dns.Question) bool {
		switch name := fold(q.Name); {
		case q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY:
			return name == fold(a.instance) || name == fold(a.host)
		case name == fold(a.service):
			return !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
				ptr, ok := rr.(*dns.PTR)
				return ok && strings.EqualFold(ptr.Ptr, a.instance) && ptr.Hdr.Ttl >= uint32(serviceTTL/time.Second/2)
			})
		default:
			return name == metaName || name == fold(a.instance) || name == fold(a.host)
		}
	})
}

// conflict returns conflictError if p has other data than ours under our names. Data equal to ours is ours, heard back, or that
// of another responder on this host.
func (a *announcer) conflict(p packet, links []link) error {
	if !p.msg.Response {
		return nil
	}
	for _, rr := range slices.Concat(p.msg.Answer, p.msg.Extra) {
		if !inet(rr) || rr.Header().Ttl == 0 {
			continue
		}
		name := rr.Header().Name
		if srv, ok := rr.(*dns.SRV); ok && strings.EqualFold(name, a.instance) &&
			(srv.Port != a.port || !strings.EqualFold(srv.Target, a.host)) {
			return conflictError{"instance name", p.from}
		}
		addr, ok := addrOf(rr, "")
		if ok && strings.EqualFold(name, a.host) && !slices.ContainsFunc(links, func(l link) bool {
			return slices.ContainsFunc(a.linkAddrs(l), func(ours netip.Addr) bool { return ours.WithZone("") == addr })
		}) {
			return conflictError{"host name", p.from}
		}
	}
	return nil
}

// linkAddrs returns the addresses to announce on a link.
func (a *announcer) linkAddrs(l link) []netip.Addr {
	if len(a.fixed) == 0 {
		addrs := a.addrs(l)
		return addrs[:min(len(addrs), maxAddrs)]
	}
	return slices.DeleteFunc(slices.Clone(a.fixed), func(a netip.Addr) bool { return a.Zone() != "" && a.Zone() != l.name })
}

// announcement has all records of ours for a link; at goodbye those of the service only, since other responders of this host
// may announce the same host name.
func (a *announcer) announcement(l link, goodbye bool) *dns.Msg {
	short, long := hostTTL, serviceTTL
	if goodbye {
		short, long = 0, 0
	}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true}
	m.Answer = []dns.RR{
		&dns.PTR{Hdr: header(a.service, dns.TypePTR, dns.ClassINET, long), Ptr: a.instance},
		a.srv(dns.ClassINET|topBit, short),
		&dns.TXT{Hdr: header(a.instance, dns.TypeTXT, dns.ClassINET|topBit, long), Txt: a.txt},
	}
	if !goodbye {
		m.Answer = append(m.Answer, &dns.PTR{Hdr: header(metaName, dns.TypePTR, dns.ClassINET, long), Ptr: a.service})
		m.Answer = append(m.Answer, a.hostRecords(l, dns.ClassINET|topBit)...)
	}
	return m
}

// probeMessage asks for our names and says what we would announce (RFC 6762 section 8.2).
func (a *announcer) probeMessage(l link) *dns.Msg {
	return &dns.Msg{
		Compress: true,
		Question: []dns.Question{
			{Name: a.instance, Qtype: dns.TypeANY, Qclass: dns.ClassINET},
			{Name: a.host, Qtype: dns.TypeANY, Qclass: dns.ClassINET},
		},
		Ns: append(a.hostRecords(l, dns.ClassINET), a.srv(dns.ClassINET, hostTTL)),
	}
}

func (a *announcer) srv(class uint16, ttl time.Duration) dns.RR {
	return &dns.SRV{Hdr: header(a.instance, dns.TypeSRV, class, ttl), Port: a.port, Target: a.host}
}

func (a *announcer) hostRecords(l link, class uint16) (out []dns.RR) {
	for _, addr := range a.linkAddrs(l) {
		if addr.Is4() {
			out = append(out, &dns.A{Hdr: header(a.host, dns.TypeA, class, hostTTL), A: addr.AsSlice()})
		} else {
			out = append(out, &dns.AAAA{Hdr: header(a.host, dns.TypeAAAA, class, hostTTL), AAAA: addr.AsSlice()})
		}
	}
	return out
}

// interfaceAddrs returns the addresses that a link's interface has now, without zones.
func interfaceAddrs(l link) []netip.Addr {
	ifi, err := net.InterfaceByIndex(l.index)
	if err != nil {
		return nil
	}
	nets, err := ifi.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil && usable(p.Addr()) {
			out = append(out, p.Addr())
		}
	}
	return out
}
