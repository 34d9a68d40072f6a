// Package dnssd announces and finds meters on the local links, by DNS-SD (RFC 6763) over multicast DNS (RFC 6762).
//
// What comes in is taken from multicast on port 5353 only and is bounded in count and size; what goes out is multicast
// only, so no spoofed datagram makes this package send anything to a third party. The wire format is github.com/miekg/dns.
package dnssd

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MeterType is the service type of a meter: CoAP over DTLS (RFC 7252 section 12.8 registers "coaps" for UDP port 5684).
const MeterType = "_coaps._udp"

const (
	// maxTXT is the largest TXT record, in bytes, made or taken (RFC 6763 section 6.2: up to 1,300 fits one packet).
	maxTXT = 1300
	// maxAddrs bounds the addresses kept of one instance.
	maxAddrs = 16
)

// Service is one instance of a service as it is announced on one link.
type Service struct {
	// Instance is the name for people: UTF-8, 1 to 63 bytes, no ASCII control characters (RFC 6763 section 4.1.1). One
	// that was found may hold other unprintable characters; pass it through [Printable] before a terminal sees it.
	Instance string
	// Host is the host's name, as "bench-1.local". [Announce] takes it with or without ".local" and makes it from Instance
	// if it is empty.
	Host string
	// Addrs are the host's addresses, those of the whole network first; link-local IPv6 addresses that were found have
	// the zone. Announce takes the addresses of each interface if there are none here.
	Addrs []netip.Addr
	// Port is a UDP port, not 0.
	Port uint16
	// TXT has the keys in lower case. The values of one that was found are any bytes; see [Printable].
	TXT map[string]string
	// Interface is where the instance was found. An instance on two links is found twice: names are unique on a link only.
	// Announce uses this interface alone, and every suitable one if it is empty.
	Interface string
}

// String is s on one line, safe for a terminal.
func (s Service) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s port %d) on %s:", s.Instance, s.Host, s.Port, s.Interface)
	for _, a := range s.Addrs {
		b.WriteString(" " + a.String())
	}
	for _, k := range slices.Sorted(maps.Keys(s.TXT)) {
		b.WriteString(" " + k + "=" + s.TXT[k])
	}
	return Printable(b.String())
}

// Printable returns s with U+FFFD in place of everything that is not a letter, mark, number, punctuation, symbol or space:
// control characters, escape sequences, changes of writing direction, bytes that are no UTF-8.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func (s Service) equal(t Service) bool {
	return s.Instance == t.Instance && s.Host == t.Host && s.Port == t.Port && s.Interface == t.Interface &&
		slices.Equal(s.Addrs, t.Addrs) && maps.Equal(s.TXT, t.TXT)
}

// checkInstance refuses what RFC 6763 section 4.1.1 does not allow as an instance name.
func checkInstance(name string) error {
	switch {
	case name == "" || len(name) > 63:
		return fmt.Errorf("instance name %q has %d bytes; use 1 to 63", name, len(name))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("instance name %q has control characters or is not UTF-8", name)
	}
	return nil
}

// ErrNotMeter is wrapped by the errors of [ParseMeter].
var ErrNotMeter = errors.New("not a Wattlet meter")

// Meter is what a meter says of itself in its TXT record.
type Meter struct {
	// ID is the device's serial, the same over restarts and unique: 1 to 64 printable bytes.
	ID string
	// Firmware is the firmware's version, up to 64 printable bytes.
	Firmware string
	// Channels is the number of channels, 1 to 255.
	Channels int
}

// TXT returns the keys of a meter's TXT record: txtvers (RFC 6763 section 6.7), id, fw and ch.
func (m Meter) TXT() map[string]string {
	return map[string]string{"txtvers": "1", "id": m.ID, "fw": m.Firmware, "ch": strconv.Itoa(m.Channels)}
}

// ParseMeter reads the TXT record of a service of [MeterType]. It fails for other devices of that type, with ErrNotMeter.
// The strings it returns are safe for a terminal.
func ParseMeter(txt map[string]string) (Meter, error) {
	if v := txt["txtvers"]; v != "1" {
		return Meter{}, fmt.Errorf("%w: TXT key txtvers is %q, not 1", ErrNotMeter, v)
	}
	m := Meter{ID: txt["id"], Firmware: txt["fw"]}
	n, err := strconv.ParseUint(txt["ch"], 10, 8)
	m.Channels = int(n)
	switch {
	case m.ID == "" || len(m.ID) > 64 || Printable(m.ID) != m.ID:
		return Meter{}, fmt.Errorf("%w: TXT key id is %q", ErrNotMeter, m.ID)
	case len(m.Firmware) > 64 || Printable(m.Firmware) != m.Firmware:
		return Meter{}, fmt.Errorf("%w: TXT key fw is %q", ErrNotMeter, m.Firmware)
	case err != nil || n == 0:
		return Meter{}, fmt.Errorf("%w: TXT key ch is %q, not 1 to 255", ErrNotMeter, txt["ch"])
	}
	return m, nil
}
