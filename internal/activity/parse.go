package activity

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// counts are what one answer of a watchdog says.
type counts struct {
	inFlight  int64
	completed int64 // since the watchdog started
}

var errFormat = errors.New("not the text of a watchdog's metrics")

const (
	familyPrefix   = "http_requests_"
	familyInFlight = "in_flight"
	familyTotal    = "total"
)

// maxCount is the largest number up to which a float64, in which watchdogs count, has every integer.
const maxCount = 1 << 53

// maxNumber bounds a sample's value in bytes: strconv's shortest form of a float64 has 24 at most.
const maxNumber = 32

// parse reads the Prometheus text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/) and takes from it
//
//	http_requests_in_flight 1
//	http_requests_total{code="200",method="get"} 1.234567e+06
//
// summing over labels; from a million on, the Go client writes round counts with an exponent. A watchdog that has completed no
// request has no http_requests_total, but always the gauge, so text without it is some other server's. Each line ends with a
// newline: text that does not was cut off, and counts missing in it would look like a restart.
func parse(b []byte) (counts, error) {
	var c counts
	if len(b) == 0 {
		return c, fmt.Errorf("it is empty: %w", errFormat)
	}
	if b[len(b)-1] != '\n' {
		return c, fmt.Errorf("it ends within a line: %w", errFormat)
	}
	seen := false
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		line := trimBlank(b[:end])
		b = b[end+1:]
		if len(line) <= len(familyPrefix) || string(line[:len(familyPrefix)]) != familyPrefix {
			continue
		}
		name, rest := cutName(line[len(familyPrefix):])
		var sum *int64
		switch string(name) {
		case familyInFlight:
			sum, seen = &c.inFlight, true
		case familyTotal:
			sum = &c.completed
		default:
			continue
		}
		v, ok := parseSample(rest)
		if !ok || v > maxCount-*sum {
			return counts{}, fmt.Errorf("sample %.80q: %w", line, errFormat)
		}
		*sum += v
	}
	if !seen {
		return counts{}, fmt.Errorf("no %s%s: %w", familyPrefix, familyInFlight, errFormat)
	}
	return c, nil
}

// parseSample reads what follows a metric's name: labels if any, the value, and a timestamp if any, which says nothing here.
func parseSample(b []byte) (int64, bool) {
	b = trimBlank(b)
	if len(b) > 0 && b[0] == '{' {
		var ok bool
		if b, ok = skipLabels(b[1:]); !ok {
			return 0, false
		}
		b = trimBlank(b)
	}
	value, b := cutField(b)
	if stamp, rest := cutField(b); len(rest) > 0 || len(stamp) > 0 && !isInteger(stamp) {
		return 0, false
	}
	return parseCount(value)
}

// parseCount reads a number of requests: not negative, whole, and finite.
func parseCount(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > maxNumber {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64) // does not allocate: it is short and does not escape
	if err != nil || !(v >= 0 && v <= maxCount) || v != math.Trunc(v) {
		return 0, false
	}
	return int64(v), true
}

// skipLabels returns what follows the closing brace, which within a quoted value is a character like others.
func skipLabels(b []byte) ([]byte, bool) {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && c == '}':
			return b[i+1:], true
		}
	}
	return nil, false
}

func cutName(b []byte) (name, rest []byte) {
	i := 0
	for i < len(b) && b[i] != '{' && !isBlank(b[i]) {
		i++
	}
	return b[:i], b[i:]
}

// cutField returns the first field of b, which begins with none of the blanks, and what follows it and its blanks.
func cutField(b []byte) (field, rest []byte) {
	i := 0
	for i < len(b) && !isBlank(b[i]) {
		i++
	}
	return b[:i], trimBlank(b[i:])
}

func isInteger(b []byte) bool {
	if b[0] == '-' {
		b = b[1:]
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// trimBlank drops leading and trailing blanks.
func trimBlank(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}
