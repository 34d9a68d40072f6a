package dnssd

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"
)

const coaps = "_coaps._udp.local."

// announced is an announcement as RFC 6762 section 18.14 lets a small device write it, with pointers in all places: the
// instance "Küche.1" on bench.local, 192.0.2.5 and fe80::1.
const announced = "\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x04" + // answer, authoritative; 1 answer, 4 additional
	"\x06_coaps\x04_udp\x05local\x00\x00\x0c\x00\x01\x00\x00\x11\x94\x00\x0b" + // at 12: PTR, 4500 s
	"\x08K\xc3\xbcche.1\xc0\x0c" + // at 41
	"\xc0\x29\x00\x21\x80\x01\x00\x00\x00\x78\x00\x0e\x00\x00\x00\x00\x16\x34" + // SRV, flush, 120 s, port 5684
	"\x05bench\xc0\x18" + // at 70; "local" is at 24
	"\xc0\x29\x00\x10\x80\x01\x00\x00\x11\x94\x00\x28" + // TXT, flush, 40 bytes
	"\x09txtvers=1\x0fid=a0b1c2d3e4f5\x08fw=1.2.0\x04ch=6" +
	"\xc0\x46\x00\x01\x80\x01\x00\x00\x00\x78\x00\x04\xc0\x00\x02\x05" + // A, flush
	"\xc0\x46\x00\x1c\x80\x01\x00\x00\x00\x78\x00\x10\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"

var eth0 = link{2, "eth0"}

func TestAnnouncementFromWire(t *testing.T) {
	m := parse([]byte(announced))
	if m == nil {
		t.Fatal("not a message")
	}
	got := newBrowser(coaps).take(packet{link: eth0, msg: m}, time.Now())
	want := Service{
		Instance:  "Küche.1",
		Host:      "bench.local",
		Addrs:     []netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("fe80::1%eth0")},
		Port:      5684,
		TXT:       map[string]string{"txtvers": "1", "id": "a0b1c2d3e4f5", "fw": "1.2.0", "ch": "6"},
		Interface: "eth0",
	}
	if len(got) != 1 || !got[0].equal(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseDrops(t *testing.T) {
	for name, b := range map[string]string{
		"nothing":         "",
		"a cut header":    announced[:11],
		"a cut record":    announced[:len(announced)-1],
		"another opcode":  "\x00\x00\xa8" + announced[3:],
		"an error code":   announced[:3] + "\x03" + announced[4:],
		"a pointer to it": announced[:12] + "\xc0\x0c" + announced[31:],
	} {
		if m := parse([]byte(b)); m != nil {
			t.Errorf("%s: got %v", name, m)
		}
	}
}

func TestAcceptOnlyFullParticipantsOnOurLinks(t *testing.T) {
	s := &sockets{links: []link{eth0}}
	from := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.5"), port) }
	if p, ok := s.accept([]byte(announced), 2, from(5353)); !ok || p.link != eth0 || p.from != from(0).Addr() {
		t.Errorf("got %+v, %v", p, ok)
	}
	if _, ok := s.accept([]byte(announced), 3, from(5353)); ok {
		t.Error("took a message from a link that was not asked for")
	}
	if _, ok := s.accept([]byte(announced), 2, from(40000)); ok {
		t.Error("took a message from another port")
	}
}

func TestTypeName(t *testing.T) {
	if got, err := typeName(MeterType); err != nil || got != coaps {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "_coaps", "coaps._udp", "_coaps._sctp", "_coaps._udp.local", "_-a._udp", "_a-._udp",
		"_sixteen-letters1._udp", "_a.b._udp", "_a\x00._udp"} {
		if got, err := typeName(bad); err == nil {
			t.Errorf("%q: got %q", bad, got)
		}
	}
}

func TestInstanceOf(t *testing.T) {
	for name, want := range map[string]string{
		`bench-1._coaps._udp.local.`:                    "bench-1",
		`bench-1._COAPS._udp.Local.`:                    "bench-1",
		`K\195\188che\.1._coaps._udp.local.`:            "Küche.1",
		`a\\._coaps._udp.local.`:                        `a\`,
		`_coaps._udp.local.`:                            "", // the type itself
		`bench-1._coap._udp.local.`:                     "",
		`a.b._coaps._udp.local.`:                        "", // two labels
		`a\027[2J._coaps._udp.local.`:                   "", // control character
		`a\255._coaps._udp.local.`:                      "", // not UTF-8
		`.`:                                             "",
		strings.Repeat("a", 64) + `._coaps._udp.local.`: "",
		`bench-1._coaps._udp.local.example.`:            "",
	} {
		got, ok := instanceOf(name, coaps)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, ok, want)
		}
	}
}

func TestParseTXT(t *testing.T) {
	got, ok := parseTXT([]string{`ID=a\"b`, "id=second", "flag", "=nokey", "", "empty=", `b\195\188=x`, "eq=a=b"})
	if want := map[string]string{"id": `a"b`, "flag": "", "empty": "", "eq": "a=b"}; !ok || !maps.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, ok, want)
	}
	// 1,300 bytes with the length bytes: 5 times 256, and 20.
	full := append(slices.Repeat([]string{"a=" + strings.Repeat("x", 253)}, 5), strings.Repeat("y", 19))
	if _, ok := parseTXT(full); !ok {
		t.Error("refused 1,300 bytes")
	}
	if _, ok := parseTXT(append(full, "")); ok {
		t.Error("took 1,301 bytes")
	}
}

func TestFormatTXT(t *testing.T) {
	got, err := formatTXT(map[string]string{"id": "a.b", "ch": "6", "txtvers": "1"})
	if want := []string{`txtvers\0611`, `ch\0616`, `id\061a\046b`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := formatTXT(nil); err != nil || !slices.Equal(got, []string{""}) {
		t.Errorf("no pairs: got %q, %v, want one empty string", got, err)
	}
	for _, bad := range []map[string]string{
		{"": "x"}, {"a=b": "x"}, {"A": "x"}, {"ü": "x"}, {"a": strings.Repeat("x", 254)},
		{"a": strings.Repeat("x", 253), "b": strings.Repeat("x", 253), "c": strings.Repeat("x", 253),
			"d": strings.Repeat("x", 253), "e": strings.Repeat("x", 253), "f": strings.Repeat("x", 18)},
	} {
		if got, err := formatTXT(bad); err == nil {
			t.Errorf("%v: got %q", bad, got)
		}
	}
}

func TestAddrOf(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.5": "192.0.2.5", "169.254.1.2": "169.254.1.2", "2001:db8::1": "2001:db8::1", "fe80::1": "fe80::1%eth0",
		"0.0.0.0": "", "127.0.0.1": "", "224.0.0.251": "", "255.255.255.255": "",
		"::": "", "::1": "", "ff02::fb": "", "::ffff:192.0.2.5": "",
	} {
		var rr dns.RR
		if a := netip.MustParseAddr(text); a.Is4() {
			rr = &dns.A{A: a.AsSlice()}
		} else {
			rr = &dns.AAAA{AAAA: a.AsSlice()}
		}
		got, ok := addrOf(rr, "eth0")
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: got %v, %v, want %q", text, got, ok, want)
		}
	}
}

func FuzzTake(f *testing.F) {
	f.Add([]byte(announced), []byte(announced))
	a := testAnnouncer(f)
	for _, m := range []*dns.Msg{a.announcement(eth0, false), a.announcement(eth0, true), a.probeMessage(eth0)} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(announced), b)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		b, now := newBrowser(coaps), time.Now()
		for _, raw := range [][]byte{first, second} {
			m := parse(raw)
			if m == nil {
				continue
			}
			p := packet{link: eth0, msg: m}
			a.asked(m)
			_ = a.conflict(p, []link{eth0})
			now = now.Add(2 * time.Second)
			for _, s := range b.take(p, now) {
				if checkInstance(s.Instance) != nil || s.Port == 0 || s.Host == "" || Printable(s.Host) != s.Host ||
					len(s.Addrs) == 0 || len(s.Addrs) > maxAddrs || s.TXT == nil || s.Interface != "eth0" {
					t.Errorf("reported %+v", s)
				}
				if line := s.String(); !utf8.ValidString(line) || strings.ContainsAny(line, "\x1b\r\n") {
					t.Errorf("line %q", line)
				}
			}
			if len(b.instances) > maxInstances {
				t.Errorf("%d instances", len(b.instances))
			}
			for _, q := range []*dns.Msg{b.followUp(eth0), b.query(eth0, now)} {
				if q == nil {
					continue
				}
				if raw, err := q.Pack(); err != nil || len(raw) > 1500 {
					t.Errorf("query of %d bytes: %v", len(raw), err)
				}
			}
		}
	})
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"bench-1", "Küche.1", `a\`, `a\065`, " ", strings.Repeat("ü", 31)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		unescape(label) // any text
		if checkInstance(label) != nil {
			return
		}
		name, err := normal(escape(label) + "." + coaps)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := instanceOf(name, coaps); !ok || got != label {
			t.Errorf("%q became %s and %q, %v", label, name, got, ok)
		}
	})
}
