package legacymeter

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Node is one section of the earlier client's configuration file: where a node's meter is.
type Node struct {
	// Title is the node's name, which the earlier client compared with NODENAME.
	Title string
	// Server is the board's address; the earlier client took IPv4 literals only.
	Server netip.AddrPort
	// Channel is 1 to Channels.
	Channel int
	// Line is where the section begins, from 1.
	Line int
}

// ErrConfig is wrapped by all errors of ParseConfig.
var ErrConfig = errors.New("earlier client's configuration")

// ParseConfig reads the earlier client's configuration file, in the syntax of libConfuse 3.3, and returns its nodes in the
// order in which their titles first appear. name is the file's name for errors, which begin with it and a line.
//
//	node jetson-nano {
//	    powermeter_server = "10.0.0.5"   # or a list, of which the first counts
//	    powermeter_port = 10000          # 1 if missing
//	    channel = 6                      # 1 if missing
//	}
//
// A later section replaces an earlier one of the same title whole. What the earlier client accepted means the same here, save
// what it crashed on or misread, which is an error: no server or one that is not an IPv4 address, a port or channel out of
// range, which it cut to 16 and 8 bits; and, since a half-read file helps nobody, a section, string or comment without an end,
// and environment variables, which only the earlier client's own environment could resolve.
func ParseConfig(name string, b []byte) ([]Node, error) {
	p := parser{file: name, b: b, line: 1}
	return p.parse()
}

// section is a node section as it is read.
type section struct {
	title   string
	line    int
	servers []string
	port    number
	channel number
}

// number is an integer option and where it was set.
type number struct {
	value int64
	line  int
}

// token is a word, or a mark: one of { } ( ) = , and + for +=; a mark of zero without a word is the end.
type token struct {
	mark byte
	word bool
	text string
	line int
}

func (t token) String() string {
	switch {
	case t.word:
		return strconv.Quote(t.text)
	case t.mark == '+':
		return `"+="`
	case t.mark != 0:
		return strconv.Quote(string(t.mark))
	}
	return "the end of the file"
}

type parser struct {
	file string
	b    []byte // what is left
	line int
}

func (p *parser) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w: %s", p.file, line, ErrConfig, fmt.Sprintf(format, args...))
}

func (p *parser) parse() ([]Node, error) {
	for line := range bytes.Lines(p.b) {
		if !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0 {
			return nil, p.errorf(p.line, "this is not UTF-8 text")
		}
		p.line++
	}
	p.line = 1
	var sections []section
	for {
		t, err := p.next()
		switch {
		case err != nil:
			return nil, err
		case !t.word && t.mark == 0:
			return p.nodes(sections)
		case !t.word || t.text != "node":
			return nil, p.errorf(t.line, "%v where a node section should begin", t)
		}
		s, err := p.section()
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(sections, func(o section) bool { return o.title == s.title }); i >= 0 {
			sections[i] = s
		} else {
			sections = append(sections, s)
		}
	}
}

// nodes checks the sections that are left when all are read.
func (p *parser) nodes(sections []section) ([]Node, error) {
	var nodes []Node
	for _, s := range sections {
		if len(s.servers) == 0 {
			return nil, p.errorf(s.line, "node %q has no powermeter_server", s.title)
		}
		addr, err := netip.ParseAddr(s.servers[0])
		switch {
		case err != nil || !addr.Is4():
			return nil, p.errorf(s.line, "node %q: powermeter_server %.100q is not an IPv4 address", s.title, s.servers[0])
		case s.port.value < 1 || s.port.value > 65535:
			return nil, p.errorf(s.port.line, "node %q: powermeter_port %d is not 1 to 65535", s.title, s.port.value)
		case s.channel.value < 1 || s.channel.value > Channels:
			return nil, p.errorf(s.channel.line, "node %q: channel %d is not 1 to %d", s.title, s.channel.value, Channels)
		}
		nodes = append(nodes, Node{
			Title: s.title, Server: netip.AddrPortFrom(addr, uint16(s.port.value)), Channel: int(s.channel.value), Line: s.line,
		})
	}
	return nodes, nil
}

// section reads what follows the word node.
func (p *parser) section() (section, error) {
	title, err := p.word("the title of a node")
	if err != nil {
		return section{}, err
	}
	s := section{title: title.text, line: title.line, port: number{1, title.line}, channel: number{1, title.line}}
	if _, err := p.want("after the title of a node", '{'); err != nil {
		return section{}, err
	}
	for {
		t, err := p.next()
		switch {
		case err != nil:
			return section{}, err
		case t.mark == '}':
			return s, nil
		case !t.word && t.mark == 0:
			return section{}, p.errorf(s.line, "node %q has no closing brace", s.title)
		case !t.word:
			return section{}, p.errorf(t.line, "%v where an option should be", t)
		}
		switch t.text {
		case "powermeter_server":
			err = p.list(&s.servers)
		case "powermeter_port":
			err = p.integer(t.text, &s.port)
		case "channel":
			err = p.integer(t.text, &s.channel)
		default:
			err = p.errorf(t.line, "no such option %q; there are powermeter_server, powermeter_port and channel", t.text)
		}
		if err != nil {
			return section{}, err
		}
	}
}

// list reads = or +=, then one word or words in braces, with commas between them and perhaps after the last.
func (p *parser) list(values *[]string) error {
	t, err := p.want("after powermeter_server", '=', '+')
	if err != nil {
		return err
	}
	if t.mark == '=' {
		*values = nil
	}
	t, err = p.next()
	switch {
	case err != nil:
		return err
	case t.word:
		*values = append(*values, t.text)
		return nil
	case t.mark != '{':
		return p.errorf(t.line, "%v where a server should be", t)
	}
	for {
		t, err := p.next()
		switch {
		case err != nil:
			return err
		case t.mark == '}':
			return nil
		case !t.word:
			return p.errorf(t.line, "%v where a server should be", t)
		}
		*values = append(*values, t.text)
		if t, err = p.want("between servers", ',', '}'); err != nil || t.mark == '}' {
			return err
		}
	}
}

// integer reads = and a number, as C's strtol does with base 0.
func (p *parser) integer(option string, n *number) error {
	if _, err := p.want("after "+option, '='); err != nil {
		return err
	}
	t, err := p.word("a number for " + option)
	if err != nil {
		return err
	}
	digits := strings.TrimLeft(t.text, " \t\n\v\f\r")
	sign := ""
	if len(digits) > 0 && (digits[0] == '+' || digits[0] == '-') {
		sign, digits = digits[:1], digits[1:]
	}
	base := 10
	switch {
	case len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'x':
		base, digits = 16, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base = 8
	}
	if strings.HasPrefix(digits, "+") || strings.HasPrefix(digits, "-") {
		digits = "" // a second sign, which ParseInt would take for the first
	}
	n.line = t.line
	if n.value, err = strconv.ParseInt(sign+digits, base, 64); err != nil {
		return p.errorf(t.line, "%s: %.100q is not a decimal, 0x or octal number", option, t.text)
	}
	return nil
}

// word reads a word.
func (p *parser) word(what string) (token, error) {
	t, err := p.next()
	if err == nil && !t.word {
		err = p.errorf(t.line, "%v where %s should be", t, what)
	}
	return t, err
}

// want reads one of the marks.
func (p *parser) want(where string, marks ...byte) (token, error) {
	t, err := p.next()
	if err == nil && (t.mark == 0 || !slices.Contains(marks, t.mark)) {
		err = p.errorf(t.line, "%v %s, where %q should be", t, where, string(marks[0]))
	}
	return t, err
}

// notBare ends a bare word. A slash does not: // and /* begin comments only where a word could begin.
const notBare = " #\"'\t\n\r={}()+,*"

// next reads a token, past blanks and comments. A + or * that means nothing is skipped, as libConfuse does.
func (p *parser) next() (token, error) {
	for len(p.b) > 0 {
		switch c := p.b[0]; {
		case c == '\n':
			p.line++
			p.b = p.b[1:]
		case c == '#', bytes.HasPrefix(p.b, []byte("//")):
			end := bytes.IndexByte(p.b, '\n')
			if end < 0 {
				end = len(p.b)
			}
			p.b = p.b[end:]
		case bytes.HasPrefix(p.b, []byte("/*")):
			body, rest, ok := bytes.Cut(p.b[2:], []byte("*/"))
			if !ok {
				return token{}, p.errorf(p.line, "a comment has no end")
			}
			p.line += bytes.Count(body, []byte("\n"))
			p.b = rest
		case bytes.HasPrefix(p.b, []byte("+=")):
			p.b = p.b[2:]
			return token{mark: '+', line: p.line}, nil
		case bytes.IndexByte([]byte("{}()=,"), c) >= 0:
			p.b = p.b[1:]
			return token{mark: c, line: p.line}, nil
		case c == '"' || c == '\'':
			return p.quoted(c)
		case bytes.HasPrefix(p.b, []byte("${")):
			return token{}, p.variable()
		case strings.IndexByte(notBare, c) >= 0: // blanks, +, *, and the return before a newline
			p.b = p.b[1:]
		default:
			n := bytes.IndexAny(p.b, notBare)
			if n < 0 {
				n = len(p.b)
			}
			t := token{word: true, text: string(p.b[:n]), line: p.line}
			p.b = p.b[n:]
			return t, nil
		}
	}
	return token{line: p.line}, nil
}

func (p *parser) variable() error {
	return p.errorf(p.line, "an environment variable; write its value instead")
}

// escapes are those of C that libConfuse knows, and \e. Any other escaped character stands for itself.
var escapes = map[byte]byte{'a': '\a', 'b': '\b', 'e': 0x1b, 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v'}

// quoted reads a string. In single quotes only the quote, the backslash and the end of the line can be escaped.
func (p *parser) quoted(quote byte) (token, error) {
	t := token{word: true, line: p.line}
	var text []byte
	p.b = p.b[1:]
	for len(p.b) > 0 {
		c := p.b[0]
		switch {
		case c == quote:
			p.b = p.b[1:]
			t.text = string(text)
			if !utf8.ValidString(t.text) || strings.IndexByte(t.text, 0) >= 0 {
				return token{}, p.errorf(t.line, "the string %q is not UTF-8 text", t.text)
			}
			return t, nil
		case quote == '"' && bytes.HasPrefix(p.b, []byte("${")):
			return token{}, p.variable()
		case c == '\\' && len(p.b) > 1:
			var err error
			if text, err = p.escaped(text, quote); err != nil {
				return token{}, err
			}
			continue
		case c == '\n':
			p.line++
		}
		text = append(text, c)
		p.b = p.b[1:]
	}
	return token{}, p.errorf(t.line, "a string has no end")
}

// escaped reads a backslash and what belongs to it.
func (p *parser) escaped(text []byte, quote byte) ([]byte, error) {
	c := p.b[1]
	if c == '\n' {
		p.line++
		p.b = p.b[2:]
		return text, nil
	}
	if quote == '\'' {
		if c != '\'' && c != '\\' {
			text = append(text, '\\')
		}
		p.b = p.b[2:]
		return append(text, c), nil
	}
	digits := func(b []byte, set string) string {
		return string(b[:len(b)-len(bytes.TrimLeft(b, set))])
	}
	if octal := digits(p.b[1:], "0123456789"); octal != "" {
		v, err := strconv.ParseUint(octal, 8, 8)
		if err != nil || len(octal) > 3 {
			return nil, p.errorf(p.line, `bad escape \%.20s`, octal)
		}
		p.b = p.b[1+len(octal):]
		return append(text, byte(v)), nil
	}
	if hex := digits(p.b[2:min(4, len(p.b))], "0123456789abcdefABCDEF"); c == 'x' && hex != "" {
		v, err := strconv.ParseUint(hex, 16, 8)
		p.b = p.b[2+len(hex):]
		return append(text, byte(v)), err
	}
	if e, ok := escapes[c]; ok {
		c = e
	}
	p.b = p.b[2:]
	return append(text, c), nil
}
