package trace

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Reader reads a trace in the order of time. It allocates nothing per row once every workload was seen, and starts no
// goroutine. It is not for concurrent use.
type Reader struct {
	meta      Meta
	workloads []workload.Workload

	index   map[workload.ID]int
	known   []known  // by index; known[0] is Node
	classes []string // classes[0] is "", which is always good in cpu.csv

	files   []*csv    // to be closed
	cursors []*cursor // of the tables that have rows left, by Row
	last    *cursor   // whose row was given last; it moves on with the next call
	group   *grouper  // once NextGrouped was called
	err     error
}

// known is what was last read of a workload.
type known struct {
	id                 workload.ID
	use                []use // by class; nil until there is one
	active             bool  // started and completed were read
	started, completed int64
	sample             int64 // the last of the grouper's samples that it is in, from 1
}

// use is the last counter of a workload on one class, or of a frequency.
type use struct {
	seen    bool
	at, sum int64 // µs

	// The grouper's: the number of the row, or a frequency's place in the sample; the sample it is in; what was last given out.
	seq, sample       int64
	given             bool
	givenAt, givenSum int64 // µs
}

// cursor is a place in one table: the row that comes next.
type cursor struct {
	*csv
	row Row
	rec Record
	at  int64 // µs

	// What the row is about, for the grouper.
	workload, class int
	current         *use
	done            bool

	// Rows mostly come in the order of the sample before: after[i] is the workload that last came after workload i.
	after []int
	prev  int

	power struct {
		boot          uint64
		meter, energy int64
		seen          bool
	}
	frequencies map[frequency]*use
}

type frequency struct {
	class int
	khz   int64
}

// Open opens the trace in dir and reads trace.json, workloads.csv, and the headers and first rows of the others. Faults are
// of type *Error.
func Open(dir string) (*Reader, error) {
	path := filepath.Join(dir, metaFile)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Error{File: path, What: "is missing; a trace must have it", Err: os.ErrNotExist}
	} else if err != nil {
		return nil, &Error{File: path, What: "cannot be opened", Err: err}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMeta+1))
	if err != nil {
		return nil, &Error{File: path, What: "cannot be read", Err: err}
	} else if len(data) > maxMeta {
		return nil, &Error{File: path, What: "is larger than 1 MiB"}
	}
	meta, err := ParseMeta(path, data)
	if err != nil {
		return nil, err
	}
	return newReader(meta, func(t *table) (*csv, error) { return openTable(dir, t) })
}

// newReader reads tables that open opens; it gives nil for one that is not there and need not be.
func newReader(meta Meta, open func(*table) (*csv, error)) (_ *Reader, err error) {
	r := &Reader{
		meta:    meta,
		index:   map[workload.ID]int{workload.Node: 0},
		known:   []known{{id: workload.Node}},
		classes: []string{""},
	}
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	for _, class := range slices.Sorted(maps.Keys(meta.Cores)) {
		if class != "" {
			r.classes = append(r.classes, class)
		}
	}
	c, err := open(&workloadsTable)
	if err != nil {
		return nil, err
	}
	err = r.readWorkloads(c)
	c.closer()
	if err != nil {
		return nil, err
	}
	for row := range tables {
		c, err := open(&tables[row])
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		r.files = append(r.files, c)
		cur := &cursor{csv: c, row: Row(row), rec: Record{Row: Row(row)}, frequencies: map[frequency]*use{}}
		if cur.row != PowerRow && cur.row != FrequencyRow {
			cur.after = make([]int, len(r.known))
		}
		r.cursors = append(r.cursors, cur)
	}
	for _, c := range slices.Clone(r.cursors) {
		if err := r.advance(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Reader) readWorkloads(c *csv) error {
	const id, kind, namespace, name, function = 0, 1, 2, 3, 4
	for c.row() {
		w := workload.Workload{
			ID: workload.ID(c.field[id]), Namespace: string(c.field[namespace]), Name: string(c.field[name]), Function: string(c.field[function]),
		}
		var err error
		if w.Kind, err = workload.ParseKind(string(c.field[kind])); err != nil {
			c.bad(kind, show(c.field[kind])+" is none of function, pod, system, agent")
		}
		for col, s := range c.field[:len(c.order)] {
			if !utf8.Valid(s) {
				c.bad(col, show(s)+" is not UTF-8")
			}
		}
		_, twice := r.index[w.ID]
		switch {
		case w.ID == "":
			c.bad(id, "is empty")
		case w.ID == workload.Node:
			continue // implied: a row for it says nothing
		case twice:
			c.bad(id, show(c.field[id])+" is there twice")
		case w.Function != "" && w.Kind != workload.Function:
			c.bad(function, "a "+w.Kind.String()+" serves no function")
		}
		if c.err != nil {
			break
		}
		r.index[w.ID] = len(r.known)
		r.known = append(r.known, known{id: w.ID})
		r.workloads = append(r.workloads, w)
	}
	if !errors.Is(c.err, io.EOF) {
		return c.err
	}
	return nil
}

// Close closes the files.
func (r *Reader) Close() error {
	for _, c := range r.files {
		c.closer()
	}
	r.files = nil
	if r.err == nil {
		r.err = errors.New("the trace is closed")
	}
	return nil
}

// Meta returns what trace.json says.
func (r *Reader) Meta() Meta { return r.meta }

// Workloads returns all workloads of the trace in the file's order, without Node. The slice is the caller's.
func (r *Reader) Workloads() []workload.Workload { return slices.Clone(r.workloads) }

// Next returns the next row of all files in the order of time: power by Received, all others by their At. Rows of the same time
// come in the order of the Row constants, then of their file. The record is valid until the next call. After the last row the
// error is io.EOF; any other is an *Error and stays. What was read before a fault stands: of a compressed file that was cut
// off, which errors.Is(err, io.ErrUnexpectedEOF) tells, those are all whole rows.
func (r *Reader) Next() (*Record, error) {
	if r.err != nil {
		return nil, r.err
	}
	if c := r.last; c != nil {
		r.last = nil
		if r.err = r.advance(c); r.err != nil {
			return nil, r.err
		}
	}
	var first *cursor
	for _, c := range r.cursors {
		if first == nil || c.at < first.at {
			first = c
		}
	}
	if first == nil {
		r.err = io.EOF
		return nil, io.EOF
	}
	r.last = first
	return &first.rec, nil
}

// leave takes c out of the merge.
func (r *Reader) leave(c *cursor) {
	c.done = true
	r.cursors = slices.DeleteFunc(r.cursors, func(other *cursor) bool { return other == c })
}

// advance moves c to its next row; at the end c leaves.
func (r *Reader) advance(c *cursor) error {
	if c.row == SampleRow {
		return r.nextSample(c)
	}
	if !c.csv.row() {
		if !errors.Is(c.err, io.EOF) {
			return c.err
		}
		r.leave(c)
		return nil
	}
	at := c.micros(0)
	if at < c.at {
		c.bad(0, fmt.Sprintf("%d after %d: time runs backwards", at, c.at))
	}
	c.at = at
	switch c.row {
	case PowerRow:
		c.readPower()
	case FrequencyRow:
		r.readFrequency(c)
	case UsageRow:
		r.readUsage(c)
	case ActivityRow:
		r.readActivity(c)
	case EventRow:
		r.readEvent(c)
	}
	return c.err
}

func (c *cursor) readPower() {
	const meter, boot, joule, charge, volt, ampere = 1, 2, 3, 4, 5, 6
	p := &c.rec.Power
	m, e := c.micros(meter), c.number(joule)
	*p = Power{Received: micros(c.at), Meter: micros(m), Boot: c.unsigned(boot), Energy: energy.Energy(e)}
	if last := &c.power; last.seen && last.boot == p.Boot {
		if m < last.meter {
			c.bad(meter, fmt.Sprintf("%d after %d of the same boot_id: time runs backwards", m, last.meter))
		}
		c.grows(joule, last.energy, e, " without a new boot_id")
	}
	c.power.boot, c.power.meter, c.power.energy, c.power.seen = p.Boot, m, e, true
	if p.HasCharge = len(c.field[charge]) > 0; p.HasCharge {
		p.Charge = energy.Charge(c.number(charge))
	}
	if p.HasVoltage = len(c.field[volt]) > 0; p.HasVoltage {
		p.Voltage = energy.Voltage(c.number(volt))
	}
	if p.HasCurrent = len(c.field[ampere]) > 0; p.HasCurrent {
		p.Current = energy.Current(c.number(ampere))
	}
}

func (r *Reader) readFrequency(c *cursor) {
	const class, khz, total = 1, 2, 3
	key := frequency{r.class(c, class, false), c.count(khz)}
	u := c.frequencies[key]
	if u == nil {
		if len(c.frequencies) == maxFrequencies {
			c.bad(khz, "more than "+strconv.Itoa(maxFrequencies)+" frequencies")
			return
		}
		u = &use{}
		c.frequencies[key] = u
	}
	c.take(u, total, "this frequency")
	c.current = u
	c.rec.Frequency = workload.Frequency{Class: r.classes[key.class], KHz: key.khz, At: micros(c.at), Time: micros(u.sum)}
}

func (r *Reader) readUsage(c *cursor) {
	const id, class, cpu = 1, 2, 3
	w := r.workload(c, id)
	k := &r.known[w]
	if k.use == nil {
		k.use = make([]use, len(r.classes))
	}
	i := r.class(c, class, true)
	c.take(&k.use[i], cpu, "this workload and class")
	c.workload, c.class = w, i
	c.rec.Usage = workload.Usage{ID: k.id, Class: r.classes[i], At: micros(c.at), CPU: micros(k.use[i].sum)}
}

// take reads the counter in a column; it must have grown, and its time too.
func (c *cursor) take(u *use, col int, whose string) {
	v := c.micros(col)
	if u.seen {
		c.grows(col, u.sum, v, "")
		if c.at == u.at {
			c.bad(0, "a second row of "+whose+" at "+strconv.FormatInt(c.at, 10))
		}
	}
	u.seen, u.at, u.sum = true, c.at, v
}

func (r *Reader) readActivity(c *cursor) {
	const id, inFlight, started, completed = 1, 2, 3, 4
	k := &r.known[r.workload(c, id)]
	a := workload.Activity{ID: k.id, At: micros(c.at), InFlight: c.count(inFlight), Started: c.count(started), Completed: c.count(completed)}
	if k.active {
		c.grows(started, k.started, a.Started, "")
		c.grows(completed, k.completed, a.Completed, "")
	}
	k.active, k.started, k.completed = true, a.Started, a.Completed
	c.rec.Activity = a
}

func (r *Reader) readEvent(c *cursor) {
	const id, what = 1, 2
	k := &r.known[r.workload(c, id)]
	e, err := event(k.id, c.field[what])
	if err != nil {
		c.bad(what, err.Error())
	}
	c.rec.Event = workload.Event{ID: k.id, At: micros(c.at), What: e}
}

// workload returns the index of the workload that a column names; c.err is set if there is none.
func (r *Reader) workload(c *cursor, col int) int {
	id := c.field[col]
	if string(id) == string(r.known[c.prev].id) {
		return c.prev // on another class
	}
	if i := c.after[c.prev]; string(id) == string(r.known[i].id) {
		c.prev = i
		return i
	}
	i, ok := r.index[workload.ID(id)]
	if !ok {
		c.bad(col, show(id)+" has no row in "+workloadsTable.name)
		return 0
	}
	c.after[c.prev] = i
	c.prev = i
	return i
}

// class returns the index of the core class that a column names; c.err is set if there is none.
func (r *Reader) class(c *cursor, col int, untold bool) int {
	class := c.field[col]
	for i, name := range r.classes {
		if string(class) != name {
			continue
		}
		if i == 0 && !untold {
			if _, ok := r.meta.Cores[""]; !ok {
				break
			}
		}
		return i
	}
	c.bad(col, show(class)+" is not in cores of "+metaFile)
	return 0
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
