package dnssd

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
)

func TestServiceStringIsSafeForTerminal(t *testing.T) {
	s := Service{
		Instance:  "Küche\x1b[2J \u202e1",
		Host:      "bench-1.local",
		Addrs:     []netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("fe80::1%eth0")},
		Port:      5684,
		TXT:       map[string]string{"id": "a0\nb1\xff", "ch": "6"},
		Interface: "eth0",
	}
	want := "Küche\ufffd[2J \ufffd1 (bench-1.local port 5684) on eth0: 192.0.2.5 fe80::1%eth0 ch=6 id=a0\ufffdb1\ufffd"
	if got := s.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMeterTXT(t *testing.T) {
	m := Meter{ID: "a0b1c2d3e4f5", Firmware: "1.2.0", Channels: 6}
	txt := map[string]string{"txtvers": "1", "id": "a0b1c2d3e4f5", "fw": "1.2.0", "ch": "6"}
	if got := m.TXT(); !maps.Equal(got, txt) {
		t.Errorf("TXT %v, want %v", got, txt)
	}
	if got, err := ParseMeter(txt); err != nil || got != m {
		t.Errorf("ParseMeter %+v, %v, want %+v", got, err, m)
	}
	for name, change := range map[string][2]string{
		"a later version":            {"txtvers", "2"},
		"another device":             {"txtvers", ""},
		"no identity":                {"id", ""},
		"identity with escape":       {"id", "a\x1b[2J"},
		"long identity":              {"id", strings.Repeat("a", 65)},
		"firmware with line feed":    {"fw", "1.2\n"},
		"long firmware":              {"fw", strings.Repeat("1", 65)},
		"no channels":                {"ch", "0"},
		"too many channels":          {"ch", "256"},
		"channels that are no count": {"ch", "1,2,3"},
	} {
		bad := maps.Clone(txt)
		bad[change[0]] = change[1]
		if got, err := ParseMeter(bad); !errors.Is(err, ErrNotMeter) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	delete(txt, "fw")
	if _, err := ParseMeter(txt); err != nil {
		t.Errorf("a meter need not tell its firmware: %v", err)
	}
}
