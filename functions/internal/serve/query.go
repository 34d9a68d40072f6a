package serve

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Query is the parameters of one invocation, which are in the query of its URL. What is wrong with them is told by Err.
type Query struct {
	values url.Values
	known  []string
	err    error
}

// NewQuery reads the query of r.
func NewQuery(r *http.Request) *Query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &Query{values: values}
	if err != nil {
		q.err = BadRequest("query: %v", err)
	}
	return q
}

// Int returns a parameter that is a whole number from lo to hi, or otherwise if it is not there.
func (q *Query) Int(name string, otherwise, lo, hi int) int {
	s, ok := q.value(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		q.fail(BadRequest("parameter %s=%.40q: want a whole number from %d to %d", name, s, lo, hi))
		return otherwise
	}
	return n
}

// Choice returns a parameter that is one of several words; the first is meant if it is not there.
func (q *Query) Choice(name string, words ...string) string {
	s, ok := q.value(name)
	if !ok {
		return words[0]
	}
	if !slices.Contains(words, s) {
		q.fail(BadRequest("parameter %s=%.40q: want one of %s", name, s, strings.Join(words, ", ")))
		return words[0]
	}
	return s
}

// Err returns what is wrong with the parameters that were asked for, or that there are others.
func (q *Query) Err() error {
	if q.err != nil {
		return q.err
	}
	var unknown []string
	for name := range q.values {
		if !slices.Contains(q.known, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return BadRequest("parameter %.40q is unknown: this function has %s", slices.Min(unknown), strings.Join(q.known, ", "))
	}
	return nil
}

func (q *Query) value(name string) (string, bool) {
	q.known = append(q.known, name)
	values := q.values[name]
	switch len(values) {
	case 0:
		return "", false
	case 1:
		return values[0], true
	}
	q.fail(BadRequest("parameter %s is there %d times", name, len(values)))
	return "", false
}

func (q *Query) fail(err error) {
	if q.err == nil {
		q.err = err
	}
}
