package dnssd

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// metaName is asked for to list all service types on a link (RFC 6763 section 9).
const metaName = "_services._dns-sd._udp.local."

// topBit of a class: cache flush in a record, unicast answer wanted in a question (RFC 6762 sections 10.2 and 5.4).
const topBit = 1 << 15

// serviceType is RFC 6335 section 5.1 and RFC 6763 section 7; a doubled hyphen is let through.
var serviceType = regexp.MustCompile(`^_[A-Za-z0-9]([A-Za-z0-9-]{0,13}[A-Za-z0-9])?\._(udp|tcp)$`)

// typeName returns the domain name of a service type.
func typeName(typ string) (string, error) {
	if !serviceType.MatchString(typ) {
		return "", fmt.Errorf("service type %q: write it as %s", typ, MeterType)
	}
	return typ + ".local.", nil
}

// Names inside this package are in the presentation form that dns.Msg.Unpack makes (bytes that are special or not
// printable as \. or \195), so that they compare as strings; fold makes them compare without case.
func fold(name string) string { return strings.ToLower(name) }

// escape writes any bytes as one label, or as one string of a TXT record, in presentation form.
func escape(raw string) string {
	var b strings.Builder
	for _, c := range []byte(raw) {
		if c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03d`, c)
		}
	}
	return b.String()
}

// unescape undoes the presentation form of one label or string.
func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		if rest := s[i:]; len(rest) >= 3 && isDigit(rest[0]) && isDigit(rest[1]) && isDigit(rest[2]) {
			out = append(out, (rest[0]-'0')*100+(rest[1]-'0')*10+rest[2]-'0')
			i += 2
		} else {
			out = append(out, s[i])
		}
	}
	return string(out)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// normal returns name as dns.Msg.Unpack would.
func normal(name string) (string, error) {
	var wire [255]byte
	n, err := dns.PackDomainName(name, wire[:], 0, nil, false)
	if err != nil {
		return "", err
	}
	name, _, err = dns.UnpackDomainName(wire[:n], 0)
	return name, err
}

// instanceOf returns the instance's own label of name, if name is an instance of service.
func instanceOf(name, service string) (string, bool) {
	i, end := dns.NextLabel(name, 0)
	if end || !strings.EqualFold(name[i:], service) {
		return "", false
	}
	label := unescape(name[:i-1])
	return label, checkInstance(label) == nil
}

// parseTXT returns the pairs of a TXT record (RFC 6763 section 6.4: the first of equal keys counts, a key may lack a
// value, what has no key is nothing); false if it is too large.
func parseTXT(strs []string) (map[string]string, bool) {
	txt, size := map[string]string{}, 0
	for _, s := range strs {
		raw := unescape(s)
		if size += 1 + len(raw); size > maxTXT {
			return nil, false
		}
		key, value, _ := strings.Cut(raw, "=")
		key = strings.ToLower(key)
		if _, dup := txt[key]; !dup && validKey(key) {
			txt[key] = value
		}
	}
	return txt, true
}

// formatTXT returns the strings of a TXT record: the version first (RFC 6763 section 6.7), then sorted.
func formatTXT(txt map[string]string) ([]string, error) {
	keys := slices.SortedFunc(maps.Keys(txt), func(a, b string) int {
		if (a == "txtvers") != (b == "txtvers") {
			return map[bool]int{true: -1, false: 1}[a == "txtvers"]
		}
		return strings.Compare(a, b)
	})
	out, size := []string{}, 0
	for _, k := range keys {
		s := k + "=" + txt[k]
		size += 1 + len(s)
		if !validKey(k) || k != strings.ToLower(k) || len(s) > 255 || size > maxTXT {
			return nil, fmt.Errorf("TXT key %q: use printable lower-case ASCII without \"=\", up to 255 bytes a pair and %d for all",
				k, maxTXT)
		}
		out = append(out, escape(s))
	}
	if len(out) == 0 {
		out = append(out, "") // a TXT record has at least one string (RFC 6763 section 6.1)
	}
	return out, nil
}

func validKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '=' })
}

// addrOf returns the address of an A or AAAA record heard on a link; false if it is none of a single host.
func addrOf(rr dns.RR, zone string) (netip.Addr, bool) {
	var a netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		a, _ = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		a, _ = netip.AddrFromSlice(rr.AAAA)
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		a = a.WithZone(zone)
	}
	return a, usable(a)
}

// usable tells whether a can be the address of a host for others.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// inet tells whether rr is of the Internet class, the only one of multicast DNS.
func inet(rr dns.RR) bool { return rr.Header().Class&^topBit == dns.ClassINET }

func header(name string, rrtype, class uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: class, Ttl: uint32(ttl / time.Second)}
}
