// Package trace writes and reads wattlet-trace/1, what an agent saw on one node, as a directory of plain CSV files: what was
// recorded replays through the same code as it was measured by. Files are streamed, so a trace may be larger than memory, and
// every fault of a file is an Error that says where it is.
package trace

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Format is the name and version of the format.
const Format = "wattlet-trace/1"

const (
	metaFile = "trace.json"
	// maxMicros is the longest time in µs that a time.Duration holds: 292 years.
	maxMicros = int64((1<<63 - 1) / time.Microsecond)
	// maxClasses, maxFrequencies and maxRow bound what a hostile trace can make a reader keep.
	maxClasses     = 64
	maxFrequencies = 4096
	maxRow         = 1 << 20
	maxMeta        = 1 << 20
)

// Row says what a Record is.
type Row uint8

// The rows of a trace. Rows of the same time come in this order: what looks back (energy and time used so far) comes before
// what holds from then on.
const (
	PowerRow Row = iota
	FrequencyRow
	UsageRow
	ActivityRow
	EventRow
	// SampleRow stands for the rows of one reading of the kernel's counters, see Reader.NextGrouped.
	SampleRow
)

// table is a CSV file of the format.
type table struct {
	name    string
	must    bool
	columns []string
}

// The tables by Row, as the format has them.
var tables = [...]table{
	PowerRow:     {"power.csv", true, []string{"received_us", "meter_us", "boot_id", "energy_uj", "charge_uc", "voltage_uv", "current_ua"}},
	FrequencyRow: {"frequency.csv", false, []string{"at_us", "class", "khz", "time_us"}},
	UsageRow:     {"cpu.csv", true, []string{"at_us", "workload", "class", "cpu_us"}},
	ActivityRow:  {"activity.csv", false, []string{"at_us", "workload", "in_flight", "started", "completed"}},
	EventRow:     {"events.csv", false, []string{"at_us", "workload", "event"}},
}

var workloadsTable = table{"workloads.csv", true, []string{"workload", "kind", "namespace", "name", "function"}}

// maxColumns is the width of the widest table.
const maxColumns = 7

// suffixes are what may follow a table's name, by compression.
var suffixes = []string{"", ".gz", ".zst"}

// Record is one row of a trace. Row says which field is set; the others are zero or stale.
type Record struct {
	Row       Row
	Power     Power
	Frequency workload.Frequency
	Usage     workload.Usage
	Activity  workload.Activity
	Event     workload.Event
	// Sample's slices are valid until the next call, like the Record.
	Sample workload.Sample
}

// At returns the time since the trace's start that the record is sorted by.
func (r *Record) At() time.Duration {
	switch r.Row {
	case PowerRow:
		return r.Power.Received
	case FrequencyRow:
		return r.Frequency.At
	case UsageRow:
		return r.Usage.At
	case ActivityRow:
		return r.Activity.At
	case EventRow:
		return r.Event.At
	default:
		return r.Sample.At
	}
}

// Power is a meter's reading.
type Power struct {
	// Received is when the host got it, on the host's monotonic clock since the trace's start.
	Received time.Duration
	// Meter is the meter's own monotonic clock, and Energy its running total at that instant. Both start anew with a Boot.
	Meter  time.Duration
	Boot   uint64
	Energy energy.Energy
	// Charge, Voltage and Current are zero where their flag is not set: the meter does not tell.
	Charge                            energy.Charge
	Voltage                           energy.Voltage
	Current                           energy.Current
	HasCharge, HasVoltage, HasCurrent bool
}

// Error is a fault of a trace's file.
type Error struct {
	// File is the path of the file. Line and Column are where in its (uncompressed) text the fault is, from 1, the column in
	// bytes; 0 if it is the file as a whole.
	File         string
	Line, Column int
	// Field is the name of the CSV column; empty if the fault is not one field's.
	Field string
	// What is the fault. Err is its cause, if that is another error.
	What string
	Err  error
}

// Error returns one line, beginning as compilers do.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		b.WriteString(":" + strconv.Itoa(e.Line) + ":" + strconv.Itoa(e.Column))
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	b.WriteString(": " + e.What)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause: io.ErrUnexpectedEOF for a file that was cut off, fs.ErrNotExist for one that is missing.
func (e *Error) Unwrap() error { return e.Err }

// position returns line and column, from 1, of data[offset].
func position(data []byte, offset int) (line, column int) {
	line, column = 1, 1
	for _, b := range data[:min(offset, len(data))] {
		column++
		if b == '\n' {
			line, column = line+1, 1
		}
	}
	return line, column
}

// show quotes what a file has for a message, cut to a readable length.
func show[T []byte | string](s T) string {
	const limit = 60
	if len(s) <= limit {
		return strconv.Quote(string(s))
	}
	return strconv.Quote(string(s[:limit])) + "…"
}

// Events that any workload but Node may have.
var events = []string{workload.Created, workload.Ready, workload.Stopped}

// event returns the event's word, one string for equal words, or says why there is no such event of this workload.
func event[T []byte | string](id workload.ID, what T) (string, error) {
	i := slices.IndexFunc(events, func(e string) bool { return e == string(what) })
	regime := len(what) >= len(workload.RegimePrefix) && string(what[:len(workload.RegimePrefix)]) == workload.RegimePrefix
	switch {
	case regime && id == workload.Node:
		return string(what), nil
	case regime:
		return "", fmt.Errorf("%s is an event of %s only, not of %s", show(what), workload.Node, show(string(id)))
	case i < 0:
		return "", fmt.Errorf("%s is none of created, ready, stopped, regime:TEXT", show(what))
	case id == workload.Node:
		return "", fmt.Errorf("%s may have regime:TEXT only, not %s", workload.Node, events[i])
	}
	return events[i], nil
}

// errNoCores is what is said of a trace.json without cores.
var errNoCores = errors.New(`"cores" is missing: name the core classes, as {"little": 4, "big": 4}, or {"": 4} where all are alike`)
