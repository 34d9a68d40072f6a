package legacymeter

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const sampleConfig = `# one section per node
node raspberrypi {
	powermeter_server = "10.0.0.5"
	powermeter_port = 10000
	channel = 5
}
// the same board
node jetson-nano {
	powermeter_server = "10.0.0.5"
	powermeter_port = 10000	/* in the
	manifest too */
	channel = 6
}
`

func at(addrPort string) netip.AddrPort { return netip.MustParseAddrPort(addrPort) }

func TestParseConfig(t *testing.T) {
	const server = " powermeter_server = 1.2.3.4 "
	sample := []Node{{"raspberrypi", at("10.0.0.5:10000"), 5, 2}, {"jetson-nano", at("10.0.0.5:10000"), 6, 8}}
	plain := []Node{{"a", at("1.2.3.4:1"), 1, 1}}
	for name, tc := range map[string]struct {
		text string
		want []Node
	}{
		"sample":           {sampleConfig, sample},
		"carriage returns": {strings.ReplaceAll(sampleConfig, "\n", "\r\n"), sample},
		"nothing":          {"", nil},
		"comment only":     {"# nothing", nil},
		"defaults":         {"node a {" + server + "}", plain},
		"a later section replaces the first whole, in its place": {
			"node a {" + server + "channel = 3 powermeter_port = 9}\nnode b {" + server + "}\nnode a { powermeter_server = 5.6.7.8 }",
			[]Node{{"a", at("5.6.7.8:1"), 1, 3}, {"b", at("1.2.3.4:1"), 1, 2}},
		},
		"what is replaced need not be right": {
			"node a { channel = 300 }\nnode a {" + server + "}",
			[]Node{{"a", at("1.2.3.4:1"), 1, 2}},
		},
		"the later of two options": {
			"node a {" + server + "channel = 3 channel = 4}",
			[]Node{{"a", at("1.2.3.4:1"), 4, 1}},
		},
		"the first of a list": {"node a { powermeter_server = {1.2.3.4, 'x' , \"y\",} }", plain},
		"the first of an appended list": {
			"node a {" + server + "powermeter_server += 5.6.7.8 powermeter_server += {}}",
			plain,
		},
		"appended to nothing":             {"node a { powermeter_server += {1.2.3.4} }", plain},
		"set again":                       {"node a { powermeter_server = {9.9.9.9, 8.8.8.8}" + server + "}", plain},
		"no blanks":                       {"node'a'{powermeter_server=\"1.2.3.4\"channel=0x1}", plain},
		"comments between all":            {"node /**/ a#\n{//}\n" + server + "channel /* = 9 */ = # 8\n 1 /***/ }", plain},
		"lone plus and star mean nothing": {"node * a {" + server + "channel = + 1 }", plain},
		"bases": {
			"node a {" + server + "powermeter_port = 0x2710 channel = 06 }",
			[]Node{{"a", at("1.2.3.4:10000"), 6, 1}},
		},
		"upper case base": {
			"node a {" + server + "powermeter_port = 0X2AfF channel = '+5' }",
			[]Node{{"a", at("1.2.3.4:11007"), 5, 1}},
		},
		"quoted everything": {
			`"node" "a b" { 'powermeter_server' = '1.2.3.4' "channel" = " 2" }`,
			[]Node{{"a b", at("1.2.3.4:1"), 2, 1}},
		},
		"escapes in double quotes": {
			`node "\x41\102\q\"\\\t` + "\\\n" + `z" {` + server + `}`,
			[]Node{{`ABq"\` + "\tz", at("1.2.3.4:1"), 1, 1}},
		},
		"escapes in single quotes": {
			`node 'a\'\\\n${b}` + "\\\n" + `z' {` + server + `}`,
			[]Node{{`a'\\n${b}z`, at("1.2.3.4:1"), 1, 1}},
		},
		"slashes in a word": {"node a//b/c {" + server + "}", []Node{{"a//b/c", at("1.2.3.4:1"), 1, 1}}},
		"an empty title":    {"node '' {" + server + "}", []Node{{"", at("1.2.3.4:1"), 1, 1}}},
		"titles are exact": {"node a {" + server + "} node A {" + server + "}",
			[]Node{{"a", at("1.2.3.4:1"), 1, 1}, {"A", at("1.2.3.4:1"), 1, 1}}},
	} {
		got, err := ParseConfig("p.conf", []byte(tc.text))
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tc.want)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	const server = "powermeter_server = 1.2.3.4"
	for _, tc := range []struct{ text, want string }{
		{"node a {\n" + server + "\nspeed = 3 }", `3: no such option "speed"`},
		{"\nchannel = 3", `2: "channel" where a node section should begin`},
		{"}", `1: "}" where a node section should begin`},
		{"include('x')", `1: "include" where`},
		{"node {", `1: "{" where the title of a node should be`},
		{"node a\nb", `2: "b" after the title of a node, where "{" should be`},
		{"node", `1: the end of the file where the title`},
		{"\n\nnode a {\n", `3: node "a" has no closing brace`},
		{"node a {\n = 3", `2: "=" where an option should be`},
		{"node a {\n channel\n3", `3: "3" after channel, where "=" should be`},
		{"node a {\n channel += 3", `2: "+=" after channel, where "=" should be`},
		{"node a {\n channel = {3}", `2: "{" where a number for channel should be`},
		{"node a {\n channel = 3x", `2: channel: "3x" is not a decimal, 0x or octal number`},
		{"node a {\n channel = 08", `2: channel: "08" is not`},
		{"node a {\n channel = 0x", `2: channel: "0x" is not`},
		{"node a {\n channel = 1_0", `2: channel: "1_0" is not`},
		{"node a {\n channel = '3 '", `2: channel: "3 " is not`},
		{"node a {\n channel = '+-3'", `2: channel: "+-3" is not`},
		{"node a {\n channel = ''", `2: channel: "" is not`},
		{"node a {\n channel = 99999999999999999999", `2: channel: "99999999999999999999" is not`},
		{"node a {\n powermeter_server = {1.2.3.4 5.6.7.8}", `2: "5.6.7.8" between servers, where "," should be`},
		{"node a {\n powermeter_server = {,}", `2: "," where a server should be`},
		{"node a {\n powermeter_server = =", `2: "=" where a server should be`},
		// What it crashed on or cut to fewer bits.
		{"\nnode a { }", `2: node "a" has no powermeter_server`},
		{"node a { " + server + " powermeter_server = {} }", `1: node "a" has no powermeter_server`},
		{"node a {" + server + "\nchannel = 300 }", `2: node "a": channel 300 is not 1 to 6`},
		{"node a {" + server + "\nchannel = 0 }", `2: node "a": channel 0 is not 1 to 6`},
		{"node a {" + server + "\nchannel = -1 }", `2: node "a": channel -1 is not 1 to 6`},
		{"node a {" + server + "\npowermeter_port = 65536 }", `2: node "a": powermeter_port 65536 is not 1 to 65535`},
		{"node a { powermeter_server = meter.lan }", `1: node "a": powermeter_server "meter.lan" is not an IPv4 address`},
		{"node a { powermeter_server = ::1 }", `1: node "a": powermeter_server "::1" is not an IPv4 address`},
		{"node a { powermeter_server = 10.0.0.05 }", `1: node "a": powermeter_server "10.0.0.05" is not`},
		{"node a { powermeter_server = " + strings.Repeat("1", 4096) + " }", `1: node "a": powermeter_server "1111`},
		// What it read by halves.
		{"\nnode \"a {\n", `2: a string has no end`},
		{"\nnode 'a\\'", `2: a string has no end`},
		{"\n/* node {\n *", `2: a comment has no end`},
		{"\nnode ${NODENAME} {", `2: an environment variable`},
		{"\nnode \"x${NODENAME:-y}\" {", `2: an environment variable`},
		{"\nnode a\xff {", `2: this is not UTF-8 text`},
		{"\n\nnode a\x00 {", `3: this is not UTF-8 text`},
		{`node "\xff" {`, `1: the string "\xff" is not UTF-8 text`},
		{`node "\0" {`, `1: the string "\x00" is not UTF-8 text`},
		{`node "\400" {`, `1: bad escape \400`},
		{`node "\1011" {`, `1: bad escape \1011`},
		{`node "\9" {`, `1: bad escape \9`},
	} {
		line, why, _ := strings.Cut(tc.want, ": ")
		want := "p.conf:" + line + ": earlier client's configuration: " + why
		got, err := ParseConfig("p.conf", []byte(tc.text))
		if got != nil || !errors.Is(err, ErrConfig) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: %v, error %v; want %s", tc.text, got, err, want)
		} else if len(err.Error()) > 250 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60q: the error is not one line: %v", tc.text, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(sampleConfig))
	f.Add([]byte("node 'a\\'' { powermeter_server = {1.2.3.4, \"\\x41\\102\\\n\",} channel = 0x2 } node b { powermeter_server += 1.2.3.4 }"))
	f.Add([]byte("node a { powermeter_server = 1.2.3.4 /* x */ powermeter_port = 010 } # y\n// z\nnode a { powermeter_server = 5.6.7.8 }"))
	f.Add([]byte("node ${X:-a} { \"\\400"))
	place := regexp.MustCompile(`^p\.conf:(\d+): `)
	f.Fuzz(func(t *testing.T, b []byte) {
		nodes, err := ParseConfig("p.conf", b)
		lines := strings.Count(string(b), "\n") + 1
		if err != nil {
			m := place.FindStringSubmatch(err.Error())
			if m == nil || !errors.Is(err, ErrConfig) || nodes != nil {
				t.Fatalf("%v, %v", nodes, err)
			}
			if n, err := strconv.Atoi(m[1]); err != nil || n < 1 || n > lines {
				t.Fatalf("line %s of %d", m[1], lines)
			}
			return
		}
		titles := map[string]bool{}
		for _, n := range nodes {
			if titles[n.Title] || !n.Server.Addr().Is4() || n.Server.Port() == 0 || n.Channel < 1 || n.Channel > 6 ||
				n.Line < 1 || n.Line > lines {
				t.Fatalf("%+v", n)
			}
			titles[n.Title] = true
		}
	})
}
