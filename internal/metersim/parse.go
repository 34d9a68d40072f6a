package metersim

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// ErrLoad is wrapped by the errors of ParseLoad.
var ErrLoad = errors.New("not a load program")

// ParseLoad reads a load program, which is one of these or a sum of them joined by plus signs:
//
//	constant:5W            always the same
//	square:2W,8W,50ms      low, high, period; begins high for half of the period, or for a fourth value as 20%
//	sine:5W,2W,1s          mean, amplitude, period
//	ramp:1W,5W,10s         from, to, period
//	trace:FILE,hold        rows of seconds,watts as ParseTrace reads them; hold or linear between the rows
//
// open opens the file of a trace, whose name can have neither comma nor plus sign; with nil a trace is an error.
func ParseLoad(program string, open func(name string) (io.ReadCloser, error)) (Load, error) {
	var loads sum
	for at, rest, more := 0, program, true; more; {
		var term string
		term, rest, more = strings.Cut(rest, "+")
		p := &parser{program: program, at: at, open: open}
		l, err := p.term(term)
		if err != nil {
			return nil, err
		}
		loads = append(loads, l)
		at += len(term) + 1
	}
	if len(loads) == 1 {
		return loads[0], nil
	}
	return loads, nil
}

// parser reads one term of a program; at is the position of what it reads, from 0.
type parser struct {
	program string
	at      int
	open    func(name string) (io.ReadCloser, error)

	kind string
	args []string
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %q, at %d: %w", ErrLoad, p.program, p.at+1, fmt.Errorf(format, args...))
	}
}

func (p *parser) term(term string) (Load, error) {
	kind, args, ok := strings.Cut(term, ":")
	p.kind = strings.TrimSpace(kind)
	form, known := map[string]string{
		"constant": "constant:5W", "square": "square:2W,8W,50ms", "sine": "sine:5W,2W,1s", "ramp": "ramp:1W,5W,10s",
		"trace": "trace:FILE,hold",
	}[p.kind]
	switch {
	case !known:
		p.fail("no program %q; there are constant, square, sine, ramp and trace, as constant:5W", p.kind)
	case !ok:
		p.fail("no values; write %s", form)
	default:
		p.at += len(kind) + 1
		p.args = strings.Split(args, ",")
		if want := strings.Count(form, ",") + 1; len(p.args) < want || len(p.args) > want && (p.kind != "square" || len(p.args) > 4) {
			p.fail("%d values; write %s", len(p.args), form)
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	var l Load
	switch p.kind {
	case "constant":
		l = Constant(p.power())
	case "square":
		low, high, period, duty := p.power(), p.power(), p.period(), 0.5
		if len(p.args) > 0 {
			duty = p.share()
		}
		l = Square(low, high, period, duty)
	case "sine":
		l = Sine(p.power(), p.power(), p.period())
	case "ramp":
		l = Ramp(p.power(), p.power(), p.period())
	case "trace":
		l = p.trace()
	}
	if p.err != nil {
		return nil, p.err
	}
	return l, nil
}

// use takes the next value, reads it with f, and moves on.
func use[T any](p *parser, f func(string) (T, error)) T {
	arg := p.args[0]
	v, err := f(strings.TrimSpace(arg))
	if err != nil {
		p.fail("%w", err)
	}
	p.at += len(arg) + 1
	p.args = p.args[1:]
	return v
}

func (p *parser) power() energy.Power { return use(p, energy.ParsePower) }

func (p *parser) period() time.Duration {
	return use(p, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return 0, fmt.Errorf("%q is no period; write one as 50ms or 1.5s", s)
		}
		return d, nil
	})
}

func (p *parser) share() float64 {
	return use(p, func(s string) (float64, error) {
		num, ok := strings.CutSuffix(s, "%")
		v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if !ok || err != nil || !(v >= 0 && v <= 100) {
			return 0, fmt.Errorf("%q is no share of the period; write one from 0%% to 100%%", s)
		}
		return v / 100, nil
	})
}

func (p *parser) trace() Load {
	at := p.at
	name := use(p, func(s string) (string, error) {
		if s == "" {
			return "", errors.New("no file name")
		}
		if p.open == nil {
			return "", errors.New("traces cannot be read here")
		}
		return s, nil
	})
	linear := use(p, func(s string) (bool, error) {
		if s != "hold" && s != "linear" {
			return false, fmt.Errorf("%q says not how to go between rows; write hold or linear", s)
		}
		return s == "linear", nil
	})
	p.at = at
	if p.err != nil {
		return nil
	}
	f, err := p.open(name)
	if err != nil {
		p.fail("%w", err)
		return nil
	}
	defer f.Close()
	l, err := ParseTrace(f, linear)
	if err != nil {
		p.fail("%s: %w", name, err)
	}
	return l
}
