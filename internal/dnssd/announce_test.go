package dnssd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func testAnnouncer(t testing.TB) *announcer {
	t.Helper()
	a, err := newAnnouncer(MeterType, Service{Instance: "bench-1", Port: 5684, TXT: map[string]string{"txtvers": "1", "ch": "6"}},
		func(link) []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.5")} })
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func noAddrs(link) []netip.Addr { return nil }

func TestNewAnnouncerRefuses(t *testing.T) {
	good := Service{Instance: "bench-1", Host: "bench-1.local", Port: 5684}
	for name, change := range map[string]func(*Service){
		"no name":           func(s *Service) { s.Instance = "" },
		"long name":         func(s *Service) { s.Instance = strings.Repeat("a", 64) },
		"name with control": func(s *Service) { s.Instance = "a\tb" },
		"name not UTF-8":    func(s *Service) { s.Instance = "a\xff" },
		"host of two parts": func(s *Service) { s.Host = "a.b.local" },
		"host with space":   func(s *Service) { s.Host = "a b" },
		"host with hyphen":  func(s *Service) { s.Host = "-a" },
		"long host":         func(s *Service) { s.Host = strings.Repeat("a", 64) },
		"port 0":            func(s *Service) { s.Port = 0 },
		"TXT key":           func(s *Service) { s.TXT = map[string]string{"a=b": ""} },
		"large TXT": func(s *Service) {
			s.TXT = map[string]string{}
			for n := range 5 {
				s.TXT[fmt.Sprint(n)] = strings.Repeat("x", 250)
			}
		},
		"loopback": func(s *Service) { s.Addrs = []netip.Addr{netip.IPv6Loopback()} },
		"many addresses": func(s *Service) {
			s.Addrs = slices.Repeat([]netip.Addr{netip.MustParseAddr("192.0.2.5")}, maxAddrs+1)
		},
	} {
		s := good
		change(&s)
		if _, err := newAnnouncer(MeterType, s, noAddrs); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := newAnnouncer("_coaps", good, noAddrs); err == nil {
		t.Error("bad type: taken")
	}
	if err := Announce(t.Context(), MeterType, Service{}); err == nil {
		t.Error("nothing: announced")
	}
}

func TestHostFromInstance(t *testing.T) {
	for instance, want := range map[string]string{
		"Bench 1": "bench-1.local.", "Küche.1": "k-che-1.local.", "电表": "meter.local.", "-a-": "a.local.",
		strings.Repeat("a", 63): strings.Repeat("a", 63) + ".local.",
	} {
		a, err := newAnnouncer(MeterType, Service{Instance: instance, Port: 1}, noAddrs)
		if err != nil || a.host != want {
			t.Errorf("%q: got %+v, %v, want host %q", instance, a, err, want)
		}
	}
}

// times returns when messages were sent that keep holds for.
func (r *recorder) times(keep func(*dns.Msg) bool) (out []time.Duration) {
	for _, s := range r.sent {
		if keep(s.msg) {
			out = append(out, s.at)
		}
	}
	return out
}

func isProbe(m *dns.Msg) bool    { return !m.Response && len(m.Ns) > 0 }
func isAnswer(m *dns.Msg) bool   { return m.Response && m.Answer[0].Header().Ttl > 0 }
func isFarewell(m *dns.Msg) bool { return m.Response && m.Answer[0].Header().Ttl == 0 }

// announceFor runs an announcer for d, with play as the network, and returns what it sent.
func announceFor(t *testing.T, d time.Duration, play func(in chan<- packet)) (*recorder, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	net, in := &recorder{start: time.Now()}, make(chan packet)
	go play(in)
	return net, testAnnouncer(t).run(ctx, []link{eth0}, in, net.send)
}

func quiet(chan<- packet) {}

func TestAnnounceSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, err := announceFor(t, 5*time.Second, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if len(net.sent) != 6 {
			t.Fatalf("%d messages: probes %v, announcements %v, goodbyes %v", len(net.sent), net.times(isProbe), net.times(isAnswer),
				net.times(isFarewell))
		}
		probed, told := net.times(isProbe), net.times(isAnswer)
		if len(probed) != 3 || probed[0] > 250*time.Millisecond || probed[1]-probed[0] != 250*time.Millisecond ||
			probed[2]-probed[1] != 250*time.Millisecond {
			t.Errorf("probes at %v", probed)
		}
		if len(told) != 2 || told[0]-probed[2] != 250*time.Millisecond || told[1]-told[0] != time.Second {
			t.Errorf("announcements at %v after probes at %v", told, probed)
		}
		if last := net.times(isFarewell); !slices.Equal(last, []time.Duration{5 * time.Second}) {
			t.Errorf("goodbye at %v", last)
		}

		// What was said, as a browser takes it.
		b := newBrowser(coaps)
		got := b.take(packet{link: eth0, msg: net.sent[3].msg}, time.Now())
		if !slices.EqualFunc(got, []Service{bench1("192.0.2.5")}, Service.equal) {
			t.Errorf("announced %v", got)
		}
		for _, rr := range net.sent[3].msg.Answer {
			_, shared := rr.(*dns.PTR)
			if flush := rr.Header().Class&topBit != 0; flush == shared {
				t.Errorf("cache flush %v: %v", flush, rr)
			}
		}
		b.take(packet{link: eth0, msg: net.sent[5].msg}, time.Now())
		if len(b.instances) != 0 {
			t.Error("goodbye did not remove the instance")
		}
	})
}

func TestAnnounceNameTaken(t *testing.T) {
	for name, record := range map[string]string{
		"other port":    `bench-1._coaps._udp.local. 120 IN SRV 0 0 1 bench-1.local.`,
		"other host":    `Bench-1._coaps._udp.local. 120 IN SRV 0 0 5684 b.local.`,
		"other address": `bench-1.local. 120 IN A 192.0.2.6`,
	} {
		synctest.Test(t, func(t *testing.T) {
			net, err := announceFor(t, time.Minute, func(in chan<- packet) {
				<-time.After(600 * time.Millisecond)
				p := answer(t, record)
				p.from = netip.MustParseAddr("192.0.2.6")
				in <- p
			})
			if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "192.0.2.6") {
				t.Errorf("%s: got %v", name, err)
			}
			if told := net.times(isAnswer); told != nil {
				t.Errorf("%s: announced at %v", name, told)
			}
		})
	}
}

func TestAnnounceIgnoresItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := announceFor(t, time.Minute, func(in chan<- packet) {
			in <- answer(t, ptr, srv, txt, addr) // during the probes, from this host
			in <- answer(t, `bench-1.local. 0 IN A 192.0.2.6`)
			<-time.After(2 * time.Second)
			in <- answer(t, ptr, srv, txt, addr)
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A conflict after the name was ours: probe again, and give up only if the other holds on.
func TestAnnounceLaterConflict(t *testing.T) {
	other := `bench-1._coaps._udp.local. 120 IN SRV 0 0 1 bench-1.local.`
	synctest.Test(t, func(t *testing.T) {
		net, err := announceFor(t, 10*time.Second, func(in chan<- packet) {
			<-time.After(5 * time.Second)
			in <- answer(t, other)
		})
		if err != nil || len(net.times(isProbe)) != 6 || len(net.times(isAnswer)) != 4 {
			t.Errorf("got %v, probes at %v, announcements at %v", err, net.times(isProbe), net.times(isAnswer))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, err := announceFor(t, 10*time.Second, func(in chan<- packet) {
			<-time.After(5 * time.Second)
			in <- answer(t, other)
			in <- answer(t, other)
		})
		if !errors.Is(err, ErrTaken) {
			t.Errorf("the other holds on: got %v", err)
		}
	})
}

func question(name string, qtype uint16) packet {
	return packet{link: eth0, msg: &dns.Msg{Question: []dns.Question{{Name: name, Qtype: qtype, Qclass: dns.ClassINET | topBit}}}}
}

func TestAnswers(t *testing.T) {
	known := func(ttl string) packet {
		p := question(coaps, dns.TypePTR)
		p.msg.Answer = message(t, false, strings.Replace(ptr, "4500", ttl, 1)).Answer
		return p
	}
	both := known("4500")
	both.msg.Question = append(both.msg.Question, question("bench-1.local.", dns.TypeA).msg.Question...)
	for _, c := range []struct {
		name string
		p    packet
		want bool
	}{
		{"type", question("_COAPS._udp.local.", dns.TypePTR), true},
		{"type, any record", question(coaps, dns.TypeANY), true},
		{"all types", question(metaName, dns.TypePTR), true},
		{"service", question("bench-1._coaps._udp.local.", dns.TypeSRV), true},
		{"text", question("Bench-1._coaps._udp.local.", dns.TypeTXT), true},
		{"address", question("bench-1.local.", dns.TypeAAAA), true},
		{"known", known("2250"), false},
		{"known, but half expired", known("2249"), true},
		{"known, and one more question", both, true},
		{"another type", question("_coap._udp.local.", dns.TypePTR), false},
		{"another host", question("bench-2.local.", dns.TypeA), false},
		{"no address of the type", question(coaps, dns.TypeA), false},
		{"an answer", answer(t, ptr), false},
	} {
		if got := testAnnouncer(t).asked(c.p.msg); got != c.want {
			t.Errorf("%s: asked %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAnswersAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := question("bench-1._coaps._udp.local.", dns.TypeANY)
		probe.msg.Ns = message(t, false, srv).Answer
		net, err := announceFor(t, 20*time.Second, func(in chan<- packet) {
			<-time.After(10 * time.Second)
			for range 100 { // a flood within one second
				in <- question(coaps, dns.TypePTR)
				<-time.After(10 * time.Millisecond)
			}
			<-time.After(5 * time.Second)
			for range 4 { // at 16 s
				in <- probe
				<-time.After(250 * time.Millisecond)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		told := net.times(isAnswer)[2:]
		if len(told) < 5 || told[0] < 10020*time.Millisecond || told[0] > 10120*time.Millisecond || told[1]-told[0] != time.Second {
			t.Fatalf("answers at %v", told)
		}
		defence := told[2:]
		if defence[0] < 16*time.Second || defence[0] > 16120*time.Millisecond {
			t.Errorf("first defence at %v", defence[0])
		}
		for n := 1; n < len(defence); n++ {
			if gap := defence[n] - defence[n-1]; gap < 250*time.Millisecond || gap > 400*time.Millisecond {
				t.Errorf("defences at %v", defence)
			}
		}
	})
}

func TestAnnounceFixedAddresses(t *testing.T) {
	a, err := newAnnouncer(MeterType, Service{Instance: "a", Port: 1, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.9"),
		netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fe80::2%wlan0")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rr := range a.hostRecords(eth0, dns.ClassINET) {
		ip, _ := addrOf(rr, "x")
		got = append(got, ip.String())
	}
	if want := []string{"192.0.2.9", "fe80::1%x"}; !slices.Equal(got, want) {
		t.Errorf("announced %v, want %v", got, want)
	}
}

func TestAnnounceCannotSend(t *testing.T) {
	down := errors.New("network is down")
	synctest.Test(t, func(t *testing.T) {
		if err := testAnnouncer(t).run(t.Context(), []link{eth0}, nil, (&recorder{err: down}).send); !errors.Is(err, down) {
			t.Errorf("got %v", err)
		}
	})
}
