package dnssd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// sent is a message that was sent, and when.
type sent struct {
	at   time.Duration
	link link
	msg  *dns.Msg
}

// recorder is the network of a test in a bubble: what is sent is kept as receivers would read it.
type recorder struct {
	start time.Time
	sent  []sent
	err   error
}

func (r *recorder) send(l link, m *dns.Msg) error {
	if r.err != nil {
		return r.err
	}
	b, err := m.Pack()
	if err != nil {
		return err
	}
	r.sent = append(r.sent, sent{time.Since(r.start), l, parse(b)})
	return nil
}

func message(t *testing.T, response bool, records ...string) *dns.Msg {
	t.Helper()
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: response}}
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

// answer is a message of an instance with the given records more.
func answer(t *testing.T, records ...string) packet {
	t.Helper()
	return packet{link: eth0, msg: message(t, true, records...)}
}

const (
	ptr  = `_coaps._udp.local. 4500 IN PTR bench-1._coaps._udp.local.`
	srv  = `bench-1._coaps._udp.local. 120 IN SRV 0 0 5684 bench-1.local.`
	txt  = `bench-1._coaps._udp.local. 4500 IN TXT "txtvers=1" "ch=6"`
	addr = `bench-1.local. 120 IN A 192.0.2.5`
)

func bench1(addrs ...string) Service {
	s := Service{Instance: "bench-1", Host: "bench-1.local", Port: 5684, TXT: map[string]string{"txtvers": "1", "ch": "6"},
		Interface: "eth0"}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
	}
	return s
}

func TestTake(t *testing.T) {
	b, now := newBrowser(coaps), time.Now()
	flush := func(s string) packet { // the record with the cache-flush bit
		p := answer(t, s)
		p.msg.Answer[0].Header().Class |= topBit
		return p
	}
	other := bench1("192.0.2.5")
	other.Interface = "wlan0"
	onOther := answer(t, ptr, srv, txt, addr)
	onOther.link = link{3, "wlan0"}
	query := answer(t, ptr, srv, txt, addr)
	query.msg.Response = false
	chaos := answer(t, ptr, srv, txt, addr)
	for _, rr := range chaos.msg.Answer {
		rr.Header().Class = dns.ClassCHAOS
	}
	moved := bench1("192.0.2.9")
	moved.Host, moved.Port = "bench-9.local", 5685

	for _, step := range []struct {
		name  string
		after time.Duration
		p     packet
		want  []Service
	}{
		{"a question is no answer", 0, query, nil},
		{"another class", 0, chaos, nil},
		{"records of a name nobody announced", 0, answer(t, srv, txt, addr), nil},
		{"another type", 0, answer(t, `_coap._udp.local. 4500 IN PTR bench-1._coap._udp.local.`), nil},
		{"half of it", 0, answer(t, ptr, srv), nil},
		{"the rest, in any case", 0, answer(t, `BENCH-1._coaps._UDP.local. 4500 IN TXT "txtvers=1" "ch=6"`, addr),
			[]Service{bench1("192.0.2.5")}},
		{"the same again", 0, answer(t, addr, txt, srv, ptr), nil},
		{"on another link", 0, onOther, []Service{other}},
		{"one more address", 0, answer(t, `bench-1.local. 120 IN AAAA fe80::1`), []Service{bench1("192.0.2.5", "fe80::1%eth0")}},
		{"of the same announcement: flushes nothing", 500 * time.Millisecond, flush(`bench-1.local. 120 IN A 192.0.2.6`),
			[]Service{bench1("192.0.2.5", "192.0.2.6", "fe80::1%eth0")}},
		{"later: flushes its family", 2 * time.Second, flush(`bench-1.local. 120 IN A 192.0.2.7`),
			[]Service{bench1("192.0.2.7", "fe80::1%eth0")}},
		{"an address withdrawn", 0, answer(t, `bench-1.local. 0 IN AAAA fe80::1`), []Service{bench1("192.0.2.7")}},
		{"no service on port 0", 0, answer(t, `bench-1._coaps._udp.local. 120 IN SRV 0 0 0 bench-1.local.`), nil},
		{"no service here", 0, answer(t, `bench-1._coaps._udp.local. 120 IN SRV 0 0 5684 .`), nil},
		{"another host", 0, answer(t, `bench-1._coaps._udp.local. 120 IN SRV 0 0 5685 bench-9.local.`), nil},
		{"and its address", 0, answer(t, `bench-9.local. 120 IN A 192.0.2.9`), []Service{moved}},
		{"goodbye", 0, answer(t, `_coaps._udp.local. 0 IN PTR bench-1._coaps._udp.local.`), nil},
		{"back", 0, answer(t, ptr, srv, txt, addr), []Service{bench1("192.0.2.5")}},
		{"goodbye by its service record", 0, answer(t, `bench-1._coaps._udp.local. 0 IN SRV 0 0 5684 bench-1.local.`), nil},
		{"back again", 0, answer(t, ptr, srv, txt, addr), []Service{bench1("192.0.2.5")}},
	} {
		now = now.Add(step.after)
		if got := b.take(step.p, now); !slices.EqualFunc(got, step.want, Service.equal) {
			t.Errorf("%s:\ngot  %v\nwant %v", step.name, got, step.want)
		}
	}
}

func TestTakeIsBounded(t *testing.T) {
	b, now := newBrowser(coaps), time.Now()
	for n := range 2 * maxInstances {
		name := fmt.Sprintf("i%d._coaps._udp.local.", n)
		b.take(answer(t, coaps+" 10 IN PTR "+name, name+" 120 IN SRV 0 0 1 h.local.", name+" 120 IN TXT a",
			"h.local. 120 IN A 192.0.2.1"), now)
	}
	if n := len(b.instances); n != maxInstances {
		t.Errorf("%d instances kept, want %d", n, maxInstances)
	}
	full := []string{ptr, srv, txt}
	for n := range 2 * maxAddrs {
		full = append(full, fmt.Sprintf("bench-1.local. 120 IN A 192.0.2.%d", n+1))
	}
	if got := b.take(answer(t, full...), now.Add(9*time.Second)); got != nil {
		t.Errorf("there was no room, got %v", got)
	}
	got := b.take(answer(t, full...), now.Add(11*time.Second)) // the others have expired
	if len(got) != 1 || len(got[0].Addrs) != maxAddrs {
		t.Errorf("got %v, want one with %d addresses", got, maxAddrs)
	}
	for n := range maxInstances { // names without a service do not stay in the way
		b.take(answer(t, fmt.Sprintf("%s 4500 IN PTR x%d.%s", coaps, n, coaps)), now.Add(12*time.Second))
	}
	second := []string{`_coaps._udp.local. 4500 IN PTR bench-2._coaps._udp.local.`,
		`bench-2._coaps._udp.local. 120 IN SRV 0 0 5684 bench-1.local.`, `bench-2._coaps._udp.local. 120 IN TXT ""`, addr}
	if got := b.take(answer(t, second...), now.Add(12*time.Second)); len(got) != 1 {
		t.Errorf("got %v, want bench-2", got)
	}
}

func TestTakeGivesAwayCopies(t *testing.T) {
	b := newBrowser(coaps)
	got := b.take(answer(t, ptr, srv, txt, addr), time.Now())
	got[0].TXT["ch"], got[0].Addrs[0] = "7", netip.IPv6Loopback()
	if again := b.take(answer(t, ptr, srv, txt, addr), time.Now()); again != nil {
		t.Errorf("a change by the receiver was reported: %v", again)
	}
}

func TestBrowseAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		net, in := &recorder{start: time.Now()}, make(chan packet)
		var found []Service
		go func() {
			<-time.After(500 * time.Millisecond)
			in <- answer(t, ptr, srv) // lacks two records
			in <- answer(t, srv)      // and still does: no reason to ask again
			<-time.After(4 * time.Second)
			in <- answer(t, txt, addr)
		}()
		b := newBrowser(coaps)
		if err := b.run(ctx, []link{eth0}, in, net.send, func(s Service) { found = append(found, s) }); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(found, []Service{bench1("192.0.2.5")}, Service.equal) {
			t.Errorf("found %v", found)
		}
		missing := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT}
		for n, want := range []struct {
			from, to time.Duration
			types    []uint16
			known    int
		}{
			{20 * time.Millisecond, 120 * time.Millisecond, []uint16{dns.TypePTR}, 0},
			{500 * time.Millisecond, 500 * time.Millisecond, missing, 0}, // at once
			{1020 * time.Millisecond, 1120 * time.Millisecond, append([]uint16{dns.TypePTR}, missing...), 1},
			{3020 * time.Millisecond, 3120 * time.Millisecond, append([]uint16{dns.TypePTR}, missing...), 1},
			{7020 * time.Millisecond, 7120 * time.Millisecond, []uint16{dns.TypePTR}, 1},
		} {
			if n >= len(net.sent) {
				t.Fatalf("%d messages sent", len(net.sent))
			}
			s := net.sent[n]
			var types []uint16
			for _, q := range s.msg.Question {
				types = append(types, q.Qtype)
			}
			if s.at < want.from || s.at > want.to || !slices.Equal(types, want.types) || len(s.msg.Answer) != want.known ||
				s.msg.Response {
				t.Errorf("message %d: at %v types %v known %v, want %+v", n, s.at, types, s.msg.Answer, want)
			}
		}
		if len(net.sent) != 5 {
			t.Errorf("%d messages sent, want 5", len(net.sent))
		}
	})
}

func TestKnownAnswers(t *testing.T) {
	b, now := newBrowser(coaps), time.Now()
	b.take(answer(t, ptr, srv, txt, addr), now)
	m := b.query(eth0, now.Add(1000*time.Second))
	if len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 3500 {
		t.Errorf("known answers %v, want one for 3500 s", m.Answer)
	}
	if m := b.query(eth0, now.Add(2251*time.Second)); len(m.Answer) != 0 { // past half of 4500 s, it is to be told again
		t.Errorf("known answers %v", m.Answer)
	}
	if m := b.query(link{3, "wlan0"}, now); len(m.Answer) != 0 {
		t.Errorf("known answers of another link: %v", m.Answer)
	}
}

func TestQueryFitsPacket(t *testing.T) {
	b, now := newBrowser(coaps), time.Now()
	for n := range maxInstances {
		b.take(answer(t, fmt.Sprintf("%s 4500 IN PTR a-rather-long-name-of-an-instance-%d.%s", coaps, n, coaps)), now)
	}
	for _, m := range []*dns.Msg{b.query(eth0, now), b.followUp(eth0)} {
		if raw, err := m.Pack(); err != nil || len(raw) > 1400 {
			t.Errorf("%d bytes, %v", len(raw), err)
		}
	}
}

func TestBrowseEnds(t *testing.T) {
	down := errors.New("network is down")
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(coaps)
		err := b.run(t.Context(), []link{eth0}, nil, (&recorder{err: down}).send, nil)
		if !errors.Is(err, down) {
			t.Errorf("nothing could be sent: got %v", err)
		}
		in := make(chan packet, 1)
		in <- packet{err: down}
		if err := b.run(t.Context(), []link{eth0}, in, (&recorder{}).send, nil); !errors.Is(err, down) {
			t.Errorf("nothing can be received: got %v", err)
		}
	})
	if err := Browse(t.Context(), "coaps", nil, nil); err == nil {
		t.Error("took a bad service type")
	}
}

func TestPartialFailureToSendIsNone(t *testing.T) {
	down := errors.New("network is down")
	got := map[string]int{}
	send := func(l link, _ *dns.Msg) error {
		got[l.name]++
		if l == eth0 {
			return down
		}
		return nil
	}
	err := sendAll([]link{eth0, {3, "wlan0"}}, send, func(link) *dns.Msg { return &dns.Msg{} })
	if err != nil || !maps.Equal(got, map[string]int{"eth0": 1, "wlan0": 1}) {
		t.Errorf("got %v, %v", got, err)
	}
}
