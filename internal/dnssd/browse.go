package dnssd

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxInstances bounds what is remembered of a link full of answers.
	maxInstances = 256
	// maxQuery is the size, in bytes, up to which known answers and further questions are put into a query.
	maxQuery = 1200
	// maxInterval is RFC 6762 section 5.2's.
	maxInterval = time.Hour
)

// Browse looks for instances of serviceType, such as [MeterType], until ctx ends, then returns nil. It calls found, never
// from two goroutines at once, when an instance is known with its port, its TXT record and an address, and again when one
// of these changes or when it comes back after a goodbye; what else is of the type is found too, see [ParseMeter]. ifaces are
// the names of the interfaces to look on, or none for all that are up and can multicast, less loopback and point-to-point ones.
//
// The first answers are here within 200 ms; what a lost packet hid comes 1, 3, 7 ... seconds later.
func Browse(ctx context.Context, serviceType string, ifaces []string, found func(Service)) error {
	name, err := typeName(serviceType)
	if err != nil {
		return err
	}
	s, err := join(ifaces)
	if err != nil {
		return err
	}
	b := newBrowser(name)
	return s.run(func(in <-chan packet) error { return b.run(ctx, s.links, in, s.send, found) })
}

// browser is what is known of the instances of one service type on all links.
type browser struct {
	service   string
	instances map[instanceKey]*instance
}

// instanceKey is a name on a link: names are unique on one link only.
type instanceKey struct {
	link int
	name string // folded
}

func newBrowser(service string) *browser {
	return &browser{service: service, instances: map[instanceKey]*instance{}}
}

// run asks and listens until ctx ends.
func (b *browser) run(ctx context.Context, links []link, in <-chan packet, send sendFunc, found func(Service)) error {
	// 20 to 120 ms for the first, then at least doubled: RFC 6762 section 5.2.
	timer := time.NewTimer(jitter())
	defer timer.Stop()
	for interval := time.Second; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			err := sendAll(links, send, func(l link) *dns.Msg { return b.query(l, time.Now()) })
			if err != nil && interval == time.Second {
				return err
			}
			timer.Reset(interval)
			interval = min(2*interval, maxInterval)
		case p := <-in:
			if p.err != nil {
				return p.err
			}
			for _, s := range b.take(p, time.Now()) {
				found(s)
			}
			if m := b.followUp(p.link); m != nil {
				_ = send(p.link, m) // the next query repeats it
			}
		}
	}
}

// jitter is RFC 6762's 20 to 120 ms that keep a link's hosts from speaking at once.
func jitter() time.Duration { return 20*time.Millisecond + rand.N(100*time.Millisecond) }

// query asks a link for instances, with those known already (RFC 6762 section 7.1), and for what is missing of them.
func (b *browser) query(l link, now time.Time) *dns.Msg {
	m := &dns.Msg{Compress: true, Question: []dns.Question{{Name: b.service, Qtype: dns.TypePTR, Qclass: dns.ClassINET}}}
	for k, i := range b.instances {
		if left := i.until.Sub(now); k.link == l.index && left > i.ttl/2 && m.Len() < maxQuery {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: header(b.service, dns.TypePTR, dns.ClassINET, left), Ptr: i.name})
		}
	}
	b.askMissing(m, l, true)
	return m
}

// followUp asks at once for what an announcement left out, once for each instance; nil if there is nothing to ask.
func (b *browser) followUp(l link) *dns.Msg {
	m := &dns.Msg{Compress: true}
	if b.askMissing(m, l, false); len(m.Question) == 0 {
		return nil
	}
	return m
}

func (b *browser) askMissing(m *dns.Msg, l link, again bool) {
	ask := func(name string, types ...uint16) {
		for _, t := range types {
			m.Question = append(m.Question, dns.Question{Name: name, Qtype: t, Qclass: dns.ClassINET})
		}
	}
	for k, i := range b.instances {
		if k.link != l.index || i.complete() || i.asked && !again || m.Len() > maxQuery {
			continue
		}
		i.asked = true
		if i.srv == nil {
			ask(i.name, dns.TypeSRV)
		} else if len(i.addrs) == 0 {
			ask(i.srv.Target, dns.TypeA, dns.TypeAAAA)
		}
		if i.txt == nil {
			ask(i.name, dns.TypeTXT)
		}
	}
}

// take takes in a message and returns what is to be reported, by name.
func (b *browser) take(p packet, now time.Time) []Service {
	if !p.msg.Response {
		return nil
	}
	records := slices.DeleteFunc(slices.Concat(p.msg.Answer, p.msg.Extra), func(rr dns.RR) bool { return !inet(rr) })
	// Each kind needs those before it: a name its type, a service its name, an address its service.
	for _, rr := range records {
		if rr, ok := rr.(*dns.PTR); ok {
			b.takePTR(p.link, rr, now)
		}
	}
	for _, rr := range records {
		switch rr := rr.(type) {
		case *dns.SRV:
			b.takeSRV(p.link, rr)
		case *dns.TXT:
			if i := b.instances[keyOf(p.link, rr.Hdr.Name)]; i != nil && rr.Hdr.Ttl > 0 {
				if txt, ok := parseTXT(rr.Txt); ok {
					i.txt, i.dirty = txt, true
				}
			}
		}
	}
	for _, rr := range records {
		if a, ok := addrOf(rr, p.link.name); ok {
			for k, i := range b.instances {
				if k.link == p.link.index && i.srv != nil && strings.EqualFold(i.srv.Target, rr.Header().Name) {
					i.takeAddr(a, rr.Header(), now)
				}
			}
		}
	}
	var out []Service
	for _, i := range b.instances {
		if !i.dirty {
			continue
		}
		i.dirty = false
		if !i.complete() {
			continue
		}
		// The receiver may keep and change what it gets; told is ours.
		if s := i.service(p.link); i.told == nil || !i.told.equal(s) {
			told := i.service(p.link)
			i.told = &told
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Service) int { return strings.Compare(a.Instance, b.Instance) })
	return out
}

func keyOf(l link, name string) instanceKey { return instanceKey{l.index, fold(name)} }

func (b *browser) takePTR(l link, rr *dns.PTR, now time.Time) {
	if !strings.EqualFold(rr.Hdr.Name, b.service) {
		return
	}
	label, ok := instanceOf(rr.Ptr, b.service)
	if !ok {
		return
	}
	k := keyOf(l, rr.Ptr)
	if rr.Hdr.Ttl == 0 { // goodbye, RFC 6762 section 10.1
		delete(b.instances, k)
		return
	}
	i := b.instances[k]
	if i == nil {
		if len(b.instances) >= maxInstances {
			b.makeRoom(now)
		}
		if len(b.instances) >= maxInstances {
			return
		}
		i = &instance{label: label, name: rr.Ptr}
		b.instances[k] = i
	}
	i.ttl = time.Duration(rr.Hdr.Ttl) * time.Second
	i.until = now.Add(i.ttl)
}

// makeRoom forgets what has expired and what nobody told more of. While there is room these are kept, so that an instance that
// comes back unchanged is not reported again.
func (b *browser) makeRoom(now time.Time) {
	maps.DeleteFunc(b.instances, func(_ instanceKey, i *instance) bool { return i.until.Before(now) || !i.complete() })
}

func (b *browser) takeSRV(l link, rr *dns.SRV) {
	k := keyOf(l, rr.Hdr.Name)
	i := b.instances[k]
	switch {
	case i == nil:
	case rr.Hdr.Ttl == 0:
		delete(b.instances, k)
	case rr.Port == 0 || rr.Target == ".": // RFC 2782: no such service here
	default:
		if i.srv != nil && !strings.EqualFold(i.srv.Target, rr.Target) {
			i.addrs = nil
		}
		i.srv, i.dirty = rr, true
	}
}
