package trace

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

const (
	// flushEvery and flushCompressedEvery are how much of a trace a killed recorder may lose. A compressor that is flushed less
	// often compresses better.
	flushEvery           = time.Second
	flushCompressedEvery = 10 * time.Second
)

// Options are how a trace is written.
type Options struct {
	// Compression of the CSV files: "", "gz" or "zst".
	Compression string
}

// Writer writes a trace. All times it is given are since the trace's start. It writes nothing that a Reader refuses: rows of
// a file must come in the order of time, of workloads that it was told of; a row that cannot be is an error and left out, and
// the trace may go on. What fails on the disk is an error that stays. It is not for concurrent use.
//
// Rows are appended to the files themselves, in whole rows, at the latest with the first row that is a second (compressed: ten
// seconds) later than the last that was flushed. A recorder that is killed thus leaves a trace which can be read as it is; if
// compressed, up to where it was cut off (see Reader.Next). Close ends compressed files properly.
type Writer struct {
	dir, suffix string
	every       time.Duration
	flushed     time.Duration
	outs        [SampleRow]*out
	classes     map[string]bool
	err         error
	closed      bool

	workloads []workload.Workload
	index     map[workload.ID]int
	unsaved   bool // workloads has more than the file
	uses      map[useKey]*counter
	times     map[frequencyKey]*counter
	counts    map[workload.ID]*[2]counter
	power     struct {
		last Power
		seen bool
	}

	usage     []workload.Usage // for sorting
	frequency []workload.Frequency
}

type useKey struct {
	id    workload.ID
	class string
}

type frequencyKey struct {
	class string
	khz   int64
}

// counter goes on where a counter in the kernel or a watchdog started anew, as that of a service which was restarted.
type counter struct {
	at, raw, base int64
}

// next returns what to write for a counter's value.
func (c *counter) next(raw int64) int64 {
	if raw < c.raw {
		c.base += c.raw
	}
	c.raw = raw
	return c.base + raw
}

// Create makes dir, which must be empty if it is there, and writes what is known before the first row: trace.json, and the
// mandatory tables' headers. The caller closes the Writer.
func Create(dir string, m Meta, o Options) (_ *Writer, err error) {
	m.Format = Format
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("creating trace %s: %w", dir, err)
	}
	w := &Writer{
		dir: dir, every: flushEvery, classes: map[string]bool{},
		index: map[workload.ID]int{}, uses: map[useKey]*counter{}, times: map[frequencyKey]*counter{}, counts: map[workload.ID]*[2]counter{},
	}
	switch o.Compression {
	case "":
	case "gz", "zst":
		w.suffix, w.every = "."+o.Compression, flushCompressedEvery
	default:
		return nil, fmt.Errorf("creating trace %s: compression %q is none of gz, zst", dir, o.Compression)
	}
	for class := range m.Cores {
		w.classes[class] = true
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // traces are for others to read
		return nil, fmt.Errorf("creating trace: %w", err)
	}
	if files, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("creating trace: %w", err)
	} else if len(files) > 0 {
		return nil, fmt.Errorf("creating trace %s: there is %s in it already; name a new or empty directory", dir, files[0].Name())
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("creating trace %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			_ = w.Close()
		}
	}()
	if err := replace(filepath.Join(dir, metaFile), append(data, '\n')); err != nil {
		return nil, err
	}
	w.unsaved = true
	if err := w.saveWorkloads(); err != nil {
		return nil, err
	}
	for row, t := range tables {
		if t.must {
			if _, err := w.out(Row(row)); err != nil {
				return nil, err
			}
		}
	}
	return w, w.Flush()
}

// Workload adds a workload, or replaces what is known of it. It must come before the workload's first row.
func (w *Writer) Workload(l workload.Workload) error {
	switch {
	case w.err != nil:
		return w.err
	case l.ID == "" || l.ID == workload.Node:
		return fmt.Errorf("workload %q: not one that a trace names", l.ID)
	case l.Function != "" && l.Kind != workload.Function:
		return fmt.Errorf("workload %q: a %v serves no function", l.ID, l.Kind)
	case !utf8.ValidString(string(l.ID) + l.Namespace + l.Name + l.Function):
		return fmt.Errorf("workload %q: a name is not UTF-8", l.ID)
	case len(l.ID)+len(l.Namespace)+len(l.Name)+len(l.Function) > maxRow/4:
		return fmt.Errorf("workload %.60q…: names of more than 256 KiB", l.ID)
	}
	if _, err := workload.ParseKind(l.Kind.String()); err != nil {
		return fmt.Errorf("workload %q: %w", l.ID, err)
	}
	if i, ok := w.index[l.ID]; !ok {
		w.index[l.ID] = len(w.workloads)
		w.workloads = append(w.workloads, l)
		w.unsaved = true
	} else if w.workloads[i] != l {
		w.workloads[i] = l
		w.unsaved = true
	}
	return nil
}

// known returns an error if the reader would not know a row's workload.
func (w *Writer) known(id workload.ID) error {
	if _, ok := w.index[id]; !ok && id != workload.Node {
		return fmt.Errorf("workload %q: not added to the trace before its first row", id)
	}
	return nil
}

// Power writes a reading of energy alone: the running total at the instant at on the meter's clock, which runs since the boot that
// epoch names, received at received.
//
// A total that has decreased within an epoch, by an offset of the sensor, is written as what it was until it is that again:
// totals in traces do not decrease.
func (w *Writer) Power(received time.Duration, epoch uint64, at time.Duration, e energy.Energy) error {
	return w.PowerFull(Power{Received: received, Boot: epoch, Meter: at, Energy: e})
}

// PowerFull is Power with charge, voltage and current, as far as p has them.
func (w *Writer) PowerFull(p Power) error {
	last := w.power.last
	same := w.power.seen && last.Boot == p.Boot
	switch {
	case p.Meter < 0:
		return fmt.Errorf("reading at %v: the meter's clock is at %v", p.Received, p.Meter)
	case same && p.Meter < last.Meter:
		return fmt.Errorf("reading at %v: the meter's clock ran back from %v to %v without a new epoch", p.Received, last.Meter, p.Meter)
	case same:
		p.Energy = max(p.Energy, last.Energy)
	}
	o, err := w.begin(PowerRow, p.Received)
	if err != nil {
		return err
	}
	w.power.last, w.power.seen = p, true
	o.buf = append(strconv.AppendInt(o.buf, p.Meter.Microseconds(), 10), ',')
	o.buf = append(strconv.AppendUint(o.buf, p.Boot, 10), ',')
	o.buf = append(strconv.AppendInt(o.buf, int64(p.Energy), 10), ',')
	if p.HasCharge {
		o.buf = strconv.AppendInt(o.buf, int64(p.Charge), 10)
	}
	o.buf = append(o.buf, ',')
	if p.HasVoltage {
		o.buf = strconv.AppendInt(o.buf, int64(p.Voltage), 10)
	}
	o.buf = append(o.buf, ',')
	if p.HasCurrent {
		o.buf = strconv.AppendInt(o.buf, int64(p.Current), 10)
	}
	return w.end(o, p.Received)
}

// Usage writes a sample: its CPU times and frequencies, each at its own time. None may be before the last of the sample before.
//
// The format has no row for the end of a workload: it ended where its rows do. So the last value of one of s.Ended is left
// out where it was written before. A counter that decreased started anew, and goes on from where it was.
func (w *Writer) Usage(s *workload.Sample) error {
	if w.err != nil {
		return w.err
	}
	w.usage = append(w.usage[:0], s.Usage...)
	slices.SortStableFunc(w.usage, func(a, b workload.Usage) int { return cmp.Compare(a.At, b.At) })
	w.frequency = append(w.frequency[:0], s.Frequency...)
	slices.SortStableFunc(w.frequency, func(a, b workload.Frequency) int { return cmp.Compare(a.At, b.At) })
	rows := w.usage[:0]
	for _, u := range w.usage {
		c := w.uses[useKey{u.ID, u.Class}]
		if c != nil && c.raw == u.CPU.Microseconds() {
			if _, ended := slices.BinarySearch(s.Ended, u.ID); ended || u.At.Microseconds() <= c.at {
				continue // it was written before
			}
		}
		if err := w.known(u.ID); err != nil {
			return err
		}
		switch {
		case u.Class != "" && !w.classes[u.Class]:
			return fmt.Errorf("workload %q at %v: class %q is not one of the trace's cores", u.ID, u.At, u.Class)
		case u.CPU < 0:
			return fmt.Errorf("workload %q at %v: CPU time %v is negative", u.ID, u.At, u.CPU)
		case c != nil && u.At.Microseconds() <= c.at:
			return fmt.Errorf("workload %q at %v: has a row at %v already", u.ID, u.At, micros(c.at))
		}
		rows = append(rows, u)
	}
	if len(rows) > 0 {
		if err := w.after(UsageRow, rows[0].At); err != nil {
			return err
		}
	}
	for _, f := range w.frequency {
		c := w.times[frequencyKey{f.Class, f.KHz}]
		switch {
		case !w.classes[f.Class]:
			return fmt.Errorf("frequency at %v: class %q is not one of the trace's cores", f.At, f.Class)
		case f.KHz < 0 || f.Time < 0:
			return fmt.Errorf("frequency at %v: %d kHz for %v is negative", f.At, f.KHz, f.Time)
		case c != nil && f.At.Microseconds() <= c.at:
			return fmt.Errorf("frequency at %v: %d kHz has a row at %v already", f.At, f.KHz, micros(c.at))
		case c == nil && len(w.times) == maxFrequencies:
			return fmt.Errorf("frequency at %v: more than %d frequencies", f.At, maxFrequencies)
		}
	}
	if len(w.frequency) > 0 {
		if err := w.after(FrequencyRow, w.frequency[0].At); err != nil {
			return err
		}
	}

	for _, u := range rows {
		if c := w.uses[useKey{u.ID, u.Class}]; c != nil && u.At.Microseconds() <= c.at {
			continue // twice in this sample
		}
		o, err := w.begin(UsageRow, u.At)
		if err != nil {
			return err
		}
		c := at(w.uses, useKey{u.ID, u.Class}, u.At)
		o.text(string(u.ID), ',')
		o.text(u.Class, ',')
		o.buf = strconv.AppendInt(o.buf, c.next(u.CPU.Microseconds()), 10)
		if err := w.end(o, u.At); err != nil {
			return err
		}
	}
	for _, f := range w.frequency {
		if c := w.times[frequencyKey{f.Class, f.KHz}]; c != nil && f.At.Microseconds() <= c.at {
			continue
		}
		o, err := w.begin(FrequencyRow, f.At)
		if err != nil {
			return err
		}
		c := at(w.times, frequencyKey{f.Class, f.KHz}, f.At)
		o.text(f.Class, ',')
		o.buf = append(strconv.AppendInt(o.buf, f.KHz, 10), ',')
		o.buf = strconv.AppendInt(o.buf, c.next(f.Time.Microseconds()), 10)
		if err := w.end(o, f.At); err != nil {
			return err
		}
	}
	return nil
}

// at returns the counter of a key, which has a row now.
func at[K comparable](counters map[K]*counter, key K, now time.Duration) *counter {
	c := counters[key]
	if c == nil {
		c = &counter{}
		counters[key] = c
	}
	c.at = now.Microseconds()
	return c
}

// Activity writes what a workload was asked to do. Counts that decreased started anew, and go on from where they were.
func (w *Writer) Activity(a workload.Activity) error {
	if err := w.known(a.ID); err != nil {
		return err
	}
	if min(a.InFlight, a.Started, a.Completed) < 0 {
		return fmt.Errorf("activity of %q at %v: a count is negative", a.ID, a.At)
	}
	o, err := w.begin(ActivityRow, a.At)
	if err != nil {
		return err
	}
	c := w.counts[a.ID]
	if c == nil {
		c = &[2]counter{}
		w.counts[a.ID] = c
	}
	o.text(string(a.ID), ',')
	o.buf = append(strconv.AppendInt(o.buf, a.InFlight, 10), ',')
	o.buf = append(strconv.AppendInt(o.buf, c[0].next(a.Started), 10), ',')
	o.buf = strconv.AppendInt(o.buf, c[1].next(a.Completed), 10)
	return w.end(o, a.At)
}

// Event writes what happened to a workload or to Node.
func (w *Writer) Event(e workload.Event) error {
	if err := w.known(e.ID); err != nil {
		return err
	}
	if _, err := event(e.ID, e.What); err != nil {
		return fmt.Errorf("event at %v: %w", e.At, err)
	}
	if len(e.What) > maxRow/4 || !utf8.ValidString(e.What) {
		return fmt.Errorf("event at %v: its text is not UTF-8, or longer than 256 KiB", e.At)
	}
	o, err := w.begin(EventRow, e.At)
	if err != nil {
		return err
	}
	o.text(string(e.ID), ',')
	o.text(e.What)
	return w.end(o, e.At)
}

// Flush makes sure that a reader sees all rows so far, even if the program is killed now.
func (w *Writer) Flush() error {
	for _, o := range w.outs {
		if err := w.drain(o); err != nil {
			return err
		}
		if o != nil {
			if err := o.flush(); err != nil {
				return w.fail(err)
			}
		}
	}
	if w.err != nil {
		return w.err
	}
	return w.fail(w.saveWorkloads())
}

// Close flushes, ends and closes all files. A Writer whose disk failed closes what it can.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.Flush()
	for i, o := range w.outs {
		if o != nil {
			err = errors.Join(err, o.close(true))
			w.outs[i] = nil
		}
	}
	w.err = fmt.Errorf("trace %s: %w", w.dir, os.ErrClosed)
	return err
}

// fail makes an error stay.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// after checks that a row of a file may come at a time.
func (w *Writer) after(row Row, at time.Duration) error {
	if at < 0 {
		return fmt.Errorf("%s: a row %v before the trace's start", tables[row].name, -at)
	}
	if o := w.outs[row]; o != nil && at.Microseconds() < o.at {
		return fmt.Errorf("%s: a row at %v after one at %v: rows must come in the order of time", tables[row].name, at, micros(o.at))
	}
	return nil
}

// begin starts a row with its time.
func (w *Writer) begin(row Row, at time.Duration) (*out, error) {
	if w.err != nil {
		return nil, w.err
	}
	if err := w.after(row, at); err != nil {
		return nil, err
	}
	o, err := w.out(row)
	if err != nil {
		return nil, err
	}
	o.at = at.Microseconds()
	o.buf = append(strconv.AppendInt(o.buf, o.at, 10), ',')
	return o, nil
}

// end ends a row, and writes what is due.
func (w *Writer) end(o *out, at time.Duration) error {
	o.buf = append(o.buf, '\n')
	if at-w.flushed >= w.every {
		w.flushed = at
		return w.Flush()
	}
	if len(o.buf) >= flushSize {
		return w.drain(o)
	}
	return nil
}

// out returns a table's file, made if it is not there yet.
func (w *Writer) out(row Row) (*out, error) {
	if w.outs[row] == nil {
		o, err := createOut(filepath.Join(w.dir, tables[row].name), w.suffix, tables[row].columns)
		if err != nil {
			return nil, w.fail(err)
		}
		w.outs[row] = o
	}
	return w.outs[row], nil
}

// drain writes the rows of a file, but those of workloads that they name first.
func (w *Writer) drain(o *out) error {
	if w.err == nil {
		_ = w.fail(w.saveWorkloads())
	}
	if w.err == nil && o != nil {
		_ = w.fail(o.drain())
	}
	return w.err
}

// saveWorkloads writes workloads.csv anew if need be. It is small, and what is known of a workload may change.
func (w *Writer) saveWorkloads() error {
	if !w.unsaved {
		return nil
	}
	path := filepath.Join(w.dir, workloadsTable.name)
	temporary := path + ".tmp"
	o, err := createOut(temporary, w.suffix, workloadsTable.columns)
	if err != nil {
		return err
	}
	for _, l := range w.workloads {
		o.text(string(l.ID), ',')
		o.text(l.Kind.String(), ',')
		o.text(l.Namespace, ',')
		o.text(l.Name, ',')
		o.text(l.Function, '\n')
	}
	if err := cmp.Or(o.drain(), o.close(false)); err != nil {
		return err
	}
	if err := os.Rename(temporary+w.suffix, path+w.suffix); err != nil {
		return fmt.Errorf("writing trace: %w", err)
	}
	w.unsaved = false
	return nil
}
