package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var whole = regexp.MustCompile(`^-?[0-9]+$`)

// A number is what it is in any other program, or an error.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"", "-", "0", "-0", "007", "-9223372036854775808", "9223372036854775807", "9223372036854775808",
		"18446744073709551615", "18446744073709551616", "99999999999999999999", "1e6", "+1", "1_0", "00000000000000000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, ok := new(big.Int), whole.MatchString(s)
		if ok {
			want.SetString(s, 10)
		}
		got, err := parseInt([]byte(s))
		if good := ok && want.IsInt64(); good != (err == nil) || good && want.Int64() != got {
			t.Errorf("%q: %d, %v", s, got, err)
		}
		unsigned, err := parseUint([]byte(s))
		if good := ok && !strings.HasPrefix(s, "-") && want.IsUint64(); good != (err == nil) || good && want.Uint64() != unsigned {
			t.Errorf("%q: %d, %v without a sign", s, unsigned, err)
		}
	})
}

// fuzzReader makes a reader of texts; suffix is the compression of them all.
func fuzzReader(meta Meta, suffix string, texts map[string][]byte) (*Reader, error) {
	return newReader(meta, func(t *table) (*csv, error) {
		text, ok := texts[t.name]
		if !ok {
			return nil, nil
		}
		return newCSV(t, t.name+suffix, bytes.NewReader(text))
	})
}

// drainAll reads to the end. Whatever the bytes, time never runs backwards, and a fault is an Error of one line that says where.
func drainAll(t *testing.T, r *Reader, err error, grouped bool) (rows int) {
	t.Helper()
	var last int64
	for err == nil {
		next := r.Next
		if grouped {
			next = r.NextGrouped
		}
		var rec *Record
		if rec, err = next(); err == nil {
			rows++
			at := rec.At().Microseconds()
			if at < last {
				t.Fatalf("%d after %d", at, last)
			}
			last = at
			if line(rec) == "" || rec.Row == SampleRow && len(rec.Sample.Usage) == 0 {
				t.Fatal("an empty record")
			}
		}
	}
	var fault *Error
	if !errors.Is(err, io.EOF) && (!errors.As(err, &fault) || fault.File == "" || strings.ContainsAny(err.Error(), "\r\n")) {
		t.Fatalf("%#v", err)
	}
	return rows
}

var fuzzMeta = Meta{Cores: map[string]int{"": 4, "big": 2}}

// FuzzTrace reads whole traces, plain and compressed, by rows and by samples.
func FuzzTrace(f *testing.F) {
	f.Add(uint8(0), []byte(base["workloads.csv"]+"\"b,\n\"\"\",function,ns,b,f\r\n"),
		[]byte(base["power.csv"]+"1,1,1,1,,,\n2,2,1,2,1,-1,3\n3,0,2,0,,,"),
		[]byte(base["cpu.csv"]+"1,a,,1\n1,@node,big,1\n2,a,,2\n2,\"b,\n\"\"\",,1\n2,@node,big,3\n3,@node,big,4\n"),
		[]byte("at_us,class,khz,time_us\n1,big,5,6\n2,big,5,7\n2,,5,1\n"),
		[]byte("at_us,workload,in_flight,started,completed\n1,a,1,2,1\n"), []byte("\ufeffevent,workload,at_us\nready,a,1\nregime:x,@node,2\n"))
	gz, zst := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00a\xe9\x8f\x1b\xd4"
	f.Add(uint8(1), []byte(gz), []byte(gz), []byte(gz), []byte(gz), []byte(gz), []byte(gz))
	f.Add(uint8(2), []byte(zst), []byte(zst), []byte(zst), []byte(zst), []byte(zst), []byte(zst))
	f.Fuzz(func(t *testing.T, compression uint8, workloads, power, cpu, frequency, activity, events []byte) {
		texts := map[string][]byte{"workloads.csv": workloads, "power.csv": power, "cpu.csv": cpu,
			"frequency.csv": frequency, "activity.csv": activity, "events.csv": events}
		for _, grouped := range []bool{false, true} {
			r, err := fuzzReader(fuzzMeta, suffixes[int(compression)%len(suffixes)], texts)
			drainAll(t, r, err, grouped)
			if r != nil {
				r.Close()
			}
		}
	})
}

// FuzzRows reads one file alone, so that the fuzzer gets far into it.
func FuzzRows(f *testing.F) {
	f.Add(uint8(PowerRow), []byte("1,1,1,1,,,\n2,2,1,2,1,-1,3\n3,0,2,0,,,"))
	f.Add(uint8(UsageRow), []byte("1,a,,1\n1,\"@node\",big,1\r\n2,a,,2\n2,@node,big,3"))
	f.Add(uint8(FrequencyRow), []byte("1,big,5,6\n2,big,5,7\n2,,5,1\n"))
	f.Add(uint8(ActivityRow), []byte("1,a,1,2,1\n"))
	f.Add(uint8(EventRow), []byte("1,a,ready\n2,@node,\"regime:\"\"x\"\",\ny\"\n"))
	f.Fuzz(func(t *testing.T, row uint8, text []byte) {
		texts := map[string][]byte{"workloads.csv": []byte(base["workloads.csv"])}
		for i, table := range tables {
			texts[table.name] = []byte(strings.Join(table.columns, ",") + "\n")
			if i == int(row) {
				texts[table.name] = append(texts[table.name], text...)
			}
		}
		r, err := fuzzReader(fuzzMeta, "", texts)
		rows := drainAll(t, r, err, false)
		if lines := bytes.Count(text, []byte("\n")) + 1; rows > lines {
			t.Errorf("%d rows of %d lines", rows, lines)
		}
	})
}

// FuzzMeta: what is read is written the same, and only what the format has is read.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(base["trace.json"]))
	f.Add([]byte(`{"format":"wattlet-trace/1","node":"n","start":"2026-11-23T18:00:00.5+01:00","cores":{"a":4},` +
		`"operating_points":{"a":[{"khz":1,"microvolt":2}]},"meter":{"gain_stddev":1e-2,"noise_uw":3},"recorder":"r"}`))
	f.Add([]byte("\ufeff{\"cores\":[{}]}"))
	f.Add([]byte(`{"format":"wattlet-trace/1","cores":{"":1}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMeta("trace.json", data)
		if err != nil {
			var fault *Error
			if !errors.As(err, &fault) || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%#v", err)
			}
			return
		}
		if m.Format != Format || len(m.Cores) == 0 || m.Meter != nil && !(m.Meter.GainStdDev >= 0 && m.Meter.GainStdDev <= math.MaxFloat64) {
			t.Fatalf("%+v", m)
		}
		again, err := json.Marshal(m)
		if err != nil {
			return // RFC 3339 has zones that package time does not write
		}
		m2, err := ParseMeta("trace.json", again)
		if err != nil || !m.Start.Equal(m2.Start) {
			t.Fatalf("%s: %v", again, err)
		}
		m.Start = m2.Start
		if len(m.OperatingPoints) == 0 {
			m.OperatingPoints, m2.OperatingPoints = nil, nil // an empty one is left out
		}
		if !reflect.DeepEqual(m, m2) {
			t.Errorf("%+v, again %+v", m, m2)
		}
	})
}
