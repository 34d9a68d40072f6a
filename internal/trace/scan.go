package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// bom is what some spreadsheets begin UTF-8 files with.
var bom = []byte("\ufeff")

// csv splits a file of one table into rows of fields, as RFC 4180 encodes them, and reads their numbers. It takes LF for CRLF
// and columns in any order. After the first fault, err stays set.
type csv struct {
	table  *table
	path   string
	r      io.Reader
	closer func()

	buf        []byte
	start, end int // what is not yet taken of buf
	more       bool

	line, lines int    // line is the present row's first, lines how many it has
	raw         []byte // the present row, without its line's end; the fields are slices of it, or of unquoted
	unquoted    []byte
	field       [maxColumns][]byte // by the table's columns
	pos         [maxColumns]int    // where in raw they begin
	order       []int              // the table's column at each place of the file

	err error // an *Error, or io.EOF
}

// openTable opens a table in dir in whatever compression it is there, and reads its header. It returns nil if the file may be
// missing and is.
func openTable(dir string, t *table) (*csv, error) {
	var path string
	for _, suffix := range suffixes {
		p := filepath.Join(dir, t.name+suffix)
		if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, &Error{File: p, What: "cannot be opened", Err: err}
		}
		if path != "" {
			return nil, &Error{File: p, What: "there is " + filepath.Base(path) + " too: keep the one that is meant"}
		}
		path = p
	}
	if path == "" && !t.must {
		return nil, nil
	} else if path == "" {
		p := filepath.Join(dir, t.name)
		return nil, &Error{File: p, What: "is missing, also as .gz and .zst; a trace must have it", Err: os.ErrNotExist}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{File: path, What: "cannot be opened", Err: err}
	}
	c, err := newCSV(t, path, f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	release := c.closer
	c.closer = func() {
		release()
		_ = f.Close() // nothing was written
	}
	return c, nil
}

// newCSV reads a table's header from r, which is compressed as path's ending says.
func newCSV(t *table, path string, r io.Reader) (*csv, error) {
	c := &csv{table: t, path: path, r: r, closer: func() {}, buf: make([]byte, 64<<10), more: true}
	switch filepath.Ext(path) {
	case ".gz":
		z, err := gzip.NewReader(r)
		if errors.Is(err, io.EOF) {
			z, err = nil, nil // no byte at all: an empty file as any other
			c.r = strings.NewReader("")
		}
		if err != nil {
			return nil, c.readFault(err)
		}
		if z != nil {
			c.r = z
		}
	case ".zst":
		// One goroutine, the caller's. The largest window is that of zstd --ultra --long, which nobody gets by accident.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, c.readFault(err)
		}
		c.r, c.closer = z, z.Close
	}
	if err := c.header(); err != nil {
		c.closer()
		return nil, err
	}
	return c, nil
}

// readFault is the error for what reading, or decompressing, gave.
func (c *csv) readFault(err error) error {
	e := &Error{File: c.path, Line: c.line + c.lines, Column: 1, What: "cannot be read", Err: err}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.What = "the compressed file is cut off here"
	}
	if e.Line == 0 {
		e.Column = 0
	}
	return e
}

// fault sets err, unless it is already, to one at an offset into raw.
func (c *csv) fault(offset int, field, what string) {
	if c.err == nil {
		line, column := position(c.raw, offset)
		c.err = &Error{File: c.path, Line: c.line + line - 1, Column: column, Field: field, What: what}
	}
}

// bad is a fault of one of the table's columns.
func (c *csv) bad(col int, what string) {
	c.fault(c.pos[col], c.table.columns[col], what)
}

// header reads the first row and learns the order of the columns from it.
func (c *csv) header() error {
	columns := c.table.columns
	if !c.takeRow() {
		if errors.Is(c.err, io.EOF) {
			c.err = &Error{File: c.path, What: "is empty; it must begin with " + strings.Join(columns, ",")}
		}
		return c.err
	}
	c.raw = bytes.TrimPrefix(c.raw, bom)
	// A header may have any number of names, so it is not split as rows are.
	rest, at := string(c.raw), 0
	for more := true; more; {
		var name string
		name, rest, more = strings.Cut(rest, ",")
		plain := name
		if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
			plain = name[1 : len(name)-1]
		}
		col := slices.Index(columns, plain)
		switch {
		case col < 0:
			c.fault(at, "", "unknown column "+show(plain)+"; there are "+strings.Join(columns, ","))
		case slices.Contains(c.order, col):
			c.fault(at, "", "column "+plain+" is there twice")
		}
		c.order = append(c.order, col)
		at += len(name) + 1
		if c.err != nil {
			return c.err
		}
	}
	for col, name := range columns {
		if !slices.Contains(c.order, col) {
			c.fault(len(c.raw), "", "column "+name+" is missing; there must be "+strings.Join(columns, ","))
		}
	}
	return c.err
}

// row takes the next row and splits it; false at the end, and at a fault.
func (c *csv) row() bool {
	if c.err != nil || !c.takeRow() {
		return false
	}
	if bytes.IndexByte(c.raw, '"') >= 0 {
		return c.splitQuoted()
	}
	rest, at := c.raw, 0
	last := len(c.order) - 1
	for _, col := range c.order[:last] {
		i := bytes.IndexByte(rest, ',')
		if i < 0 {
			return c.ragged(bytes.Count(c.raw, []byte{','}) + 1)
		}
		c.field[col], c.pos[col] = rest[:i], at
		rest, at = rest[i+1:], at+i+1
	}
	if bytes.IndexByte(rest, ',') >= 0 {
		return c.ragged(bytes.Count(c.raw, []byte{','}) + 1)
	}
	col := c.order[last]
	c.field[col], c.pos[col] = rest, at
	return true
}

func (c *csv) ragged(fields int) bool {
	c.fault(0, "", "the row has "+strconv.Itoa(fields)+" fields, the header "+strconv.Itoa(len(c.order)))
	return false
}

// splitQuoted is the rest of row for rows with a quote.
func (c *csv) splitQuoted() bool {
	c.unquoted = c.unquoted[:0]
	if cap(c.unquoted) < len(c.raw) {
		c.unquoted = make([]byte, 0, 2*len(c.raw)) // never grown below: fields are slices of it
	}
	n, at := 0, 0
	for more := true; more; n++ {
		begin := at
		var field []byte
		if at < len(c.raw) && c.raw[at] == '"' {
			at++
			from := len(c.unquoted)
			for {
				i := bytes.IndexByte(c.raw[at:], '"')
				if i < 0 {
					c.fault(begin, "", "the quoted field does not end")
					return false
				}
				c.unquoted = append(c.unquoted, c.raw[at:at+i]...)
				at += i + 1
				if at == len(c.raw) || c.raw[at] != '"' {
					break
				}
				c.unquoted = append(c.unquoted, '"')
				at++
			}
			field = c.unquoted[from:]
			if at < len(c.raw) && c.raw[at] != ',' {
				c.fault(at, "", "text after the closing quote")
				return false
			}
		} else {
			i := bytes.IndexByte(c.raw[at:], ',')
			if i < 0 {
				i = len(c.raw) - at
			}
			field = c.raw[at : at+i]
			if q := bytes.IndexByte(field, '"'); q >= 0 {
				c.fault(at+q, "", "a quote within a field that does not begin with one")
				return false
			}
			at += i
		}
		if n < len(c.order) {
			c.field[c.order[n]], c.pos[c.order[n]] = field, begin
		}
		more = at < len(c.raw)
		at++ // the comma
	}
	if n != len(c.order) {
		return c.ragged(n)
	}
	return true
}

// takeRow sets raw to the next row: a line, or more if a line's end is within quotes. False at the end, and at a fault.
func (c *csv) takeRow() bool {
	c.line += c.lines
	c.lines = 0
	if c.line == 0 {
		c.line = 1
	}
	for from, quoted := 0, false; ; {
		i := bytes.IndexByte(c.buf[c.start+from:c.end], '\n')
		if i < 0 && c.more {
			if !c.fill() {
				return false
			}
			continue
		}
		end, next := c.end, c.end
		if i >= 0 {
			end = c.start + from + i
			next = end + 1
		} else if c.start == c.end {
			c.err = io.EOF
			return false
		}
		c.lines++
		// Quotes are paired, also a doubled one within a field, so that an odd number is still open.
		if bytes.Count(c.buf[c.start+from:end], []byte{'"'})%2 != 0 {
			quoted = !quoted
		}
		if quoted && next < c.end || quoted && c.more {
			from = next - c.start
			continue
		}
		if end > c.start && c.buf[end-1] == '\r' {
			end--
		}
		c.raw = c.buf[c.start:end]
		c.start = next
		return true
	}
}

// fill reads more into buf; false at a fault.
func (c *csv) fill() bool {
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.buf) {
		if len(c.buf) >= maxRow {
			c.raw = nil
			c.fault(0, "", "the row is longer than 1 MiB; is a quote left open?")
			return false
		}
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.r.Read(c.buf[c.end:])
	c.end += n
	if errors.Is(err, io.EOF) {
		c.more = false
	} else if err != nil {
		c.err = c.readFault(err)
		return false
	}
	return true
}

// number reads a column as a whole number; c.err has the fault.
func (c *csv) number(col int) int64 {
	v, err := parseInt(c.field[col])
	if err != nil {
		c.bad(col, show(c.field[col])+" "+err.Error())
	}
	return v
}

// count reads a column as a whole number that cannot be negative.
func (c *csv) count(col int) int64 {
	v := c.number(col)
	if v < 0 {
		c.bad(col, strconv.FormatInt(v, 10)+" is negative")
	}
	return v
}

// micros reads a column as a time in µs.
func (c *csv) micros(col int) int64 {
	v := c.count(col)
	if v > maxMicros {
		c.bad(col, strconv.FormatInt(v, 10)+" is beyond 292 years")
	}
	return v
}

// unsigned reads a column as a whole number of 64 bits without a sign.
func (c *csv) unsigned(col int) uint64 {
	v, err := parseUint(c.field[col])
	if err != nil {
		c.bad(col, show(c.field[col])+" "+err.Error())
	}
	return v
}

// grows checks that a counter has not decreased from old to v; unless says what it may start anew with, or is empty.
func (c *csv) grows(col int, old, v int64, unless string) {
	if v < old {
		c.bad(col, strconv.FormatInt(v, 10)+" after "+strconv.FormatInt(old, 10)+": a counter never decreases"+unless)
	}
}

var (
	errNotWhole = errors.New("is not a whole number")
	errTooLarge = errors.New("is beyond 64 bits")
)

// parseInt reads digits with or without a minus, in base 10.
func parseInt(b []byte) (int64, error) {
	digits, negative := b, false
	if len(b) > 0 && b[0] == '-' {
		digits, negative = b[1:], true
	}
	u, err := parseUint(digits)
	switch {
	case err == nil && negative && u <= 1<<63:
		return -int64(u), nil
	case err == nil && u > math.MaxInt64:
		return 0, errTooLarge
	}
	return int64(u), err
}

// parseUint reads digits in base 10.
func parseUint(b []byte) (uint64, error) {
	if len(b) == 0 {
		return 0, errNotWhole
	}
	var v uint64
	if len(b) < 20 { // cannot overflow
		for _, d := range b {
			if d -= '0'; d > 9 {
				return 0, errNotWhole
			}
			v = v*10 + uint64(d)
		}
		return v, nil
	}
	overflow := false
	for _, d := range b {
		if d -= '0'; d > 9 {
			return 0, errNotWhole
		}
		next := v*10 + uint64(d)
		overflow = overflow || v > math.MaxUint64/10 || next < v*10
		v = next
	}
	if overflow {
		return 0, errTooLarge
	}
	return v, nil
}
