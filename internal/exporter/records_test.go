package exporter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

const boot = 100 * time.Second // what the clock since boot shows when a test begins

// Each kind of record with its line, worked out by hand.
var recordLines = []struct {
	record accounting.Record
	line   string
}{
	{accounting.Received{At: 100_000_001_999, Reading: energy.Reading{
		Epoch: 1<<64 - 1, At: 2 * time.Second, Energy: 10 * energy.Joule, Charge: 2 * energy.Coulomb,
		Interval: time.Second, Voltage: 5 * energy.Volt, Current: energy.Ampere,
	}}, `{"type":"reading","received_us":100000001,"meter_us":2000000,"boot_id":18446744073709551615,"energy_uj":10000000,` +
		`"charge_uc":2000000,"voltage_uv":5000000,"current_ua":1000000}`},
	{accounting.Received{At: 1000, Reading: energy.Reading{Epoch: 1, Energy: -3, Charge: 0, EnergyOnly: true, Interval: 1}},
		`{"type":"reading","received_us":1,"meter_us":0,"boot_id":1,"energy_uj":-3}`},
	{accounting.Received{Reading: energy.Reading{Epoch: 1, Estimated: true, Interval: 1, Current: 7}},
		`{"type":"reading","received_us":0,"meter_us":0,"boot_id":1,"energy_uj":0,"charge_uc":0,"current_ua":7}`},
	{accounting.Received{Reading: energy.Reading{Epoch: 1, Charge: 2, Voltage: 3, Current: 4}}, // no means in it
		`{"type":"reading","received_us":0,"meter_us":0,"boot_id":1,"energy_uj":0,"charge_uc":2}`},
	{&workload.Sample{
		At: boot, Usage: []workload.Usage{{ID: "@node", Class: "big", At: boot - 1000, CPU: time.Minute}, {ID: "a", At: boot}},
		Ended: []workload.ID{"a"}, Frequency: []workload.Frequency{{Class: "big", KHz: 2_000_000, At: boot, Time: time.Second}},
	}, `{"type":"sample","at_us":100000000,"usage":[{"workload":"@node","class":"big","at_us":99999999,"cpu_us":60000000},` +
		`{"workload":"a","at_us":100000000,"cpu_us":0}],"ended":["a"],"frequency":[{"class":"big","at_us":100000000,"khz":2000000,"time_us":1000000}]}`},
	{workload.Workload{ID: "fn/gzip", Kind: workload.Function, Namespace: "fn", Name: "gzip-1", Function: "gzip"},
		`{"type":"workload","workload":"fn/gzip","kind":"function","namespace":"fn","name":"gzip-1","function":"gzip"}`},
	{workload.Activity{ID: "fn/gzip", At: boot, InFlight: 1, Started: 3, Completed: 2},
		`{"type":"activity","workload":"fn/gzip","at_us":100000000,"in_flight":1,"started":3,"completed":2}`},
	{workload.Event{ID: "@node", At: boot, What: "regime:powersave"},
		`{"type":"event","workload":"@node","at_us":100000000,"event":"regime:powersave"}`},
	{accounting.Tick{At: boot}, `{"type":"tick","at_us":100000000}`},
}

func TestRecordLines(t *testing.T) {
	for _, tc := range recordLines {
		got, err := json.Marshal(recordLine(tc.record))
		if err != nil || string(got) != tc.line {
			t.Errorf("%+v is\n%s, %v; want\n%s", tc.record, got, err, tc.line)
		}
		back, err := ParseRecord([]byte(tc.line))
		if err != nil {
			t.Errorf("%s: %v", tc.line, err)
		}
		if _, reading := tc.record.(accounting.Received); reading {
			got, _ = json.Marshal(back) // it is a line, as it stands
			if string(got) != tc.line {
				t.Errorf("%s comes back as %s", tc.line, got)
			}
		} else if !reflect.DeepEqual(back, tc.record) {
			t.Errorf("%s is read as %+v", tc.line, back)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	for line, want := range map[string]string{
		``:                           "unexpected end of JSON input",
		`{"type":"tick"`:             "unexpected end of JSON input",
		`[]`:                         "cannot unmarshal array",
		`{}`:                         "no type",
		`{"type":"tick","at_us":-1}`: "a time of -1 µs",
		`{"type":"tick","at_us":9223372036854776}`:                 "a time of 9223372036854776 µs", // 2^63 ns
		`{"type":"tick","at_us":1.5}`:                              "cannot unmarshal number 1.5",
		`{"type":"header"}`:                                        "no format",
		`{"type":"header","format":"wattlet-records/2"}`:           `the format is "wattlet-records/2", not wattlet-records/1`,
		`{"type":"header","format":"wattlet-records/1"}`:           "a tick of 0 µs",
		`{"type":"workload","workload":"a","kind":"x"}`:            `kind "x"`,
		`{"type":"workload","kind":"pod"}`:                         "no workload",
		`{"type":"event","at_us":1}`:                               "no workload",
		`{"type":"activity","at_us":1}`:                            "no workload",
		`{"type":"reading","received_us":-5}`:                      "a time of -5 µs",
		`{"type":"sample","usage":[{}]}`:                           "no workload",
		`{"type":"sample","usage":[{"workload":"a","cpu_us":-1}]}`: "a time of -1 µs",
		`{"type":"sample","frequency":[{"time_us":-1}]}`:           "a time of -1 µs",
		`{"type":"` + strings.Repeat("x", 100) + `"`:               `xxxxx"…: `,
	} {
		if rec, err := ParseRecord([]byte(line)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v; want %q", line, rec, err, want)
		}
	}
	if rec, err := ParseRecord([]byte(`{"type":"of a later time"}`)); rec != nil || err != nil {
		t.Errorf("a type that is not known: %v, %v", rec, err)
	}
}

// What can be read comes back the same when it is written again.
func FuzzParseRecord(f *testing.F) {
	for _, tc := range recordLines {
		f.Add([]byte(tc.line))
	}
	f.Add([]byte(`{"type":"header","format":"wattlet-records/1","node":"pi","agent":"1.0","start":"2026-11-24T00:00:00Z","start_us":5,"tick_us":1000000,` +
		`"cores":{"":4},"operating_points":{"":[{"khz":1,"microvolt":2}]},"meter":{"name":"bench","channel":5,"gain_stddev":0.01,"noise_uw":20000}}`))
	f.Add([]byte(`{"type":"end","reason":"the agent ended"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		rec, err := ParseRecord(line)
		if err != nil || rec == nil {
			return
		}
		out := rec
		switch rec.(type) {
		case *RecordsHeader, *RecordsReading, *RecordsEnd:
		default:
			out = recordLine(rec)
		}
		again, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseRecord(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if s, ok := rec.(*workload.Sample); ok && len(s.Ended) == 0 {
			s.Ended = nil // an empty list need not be there
		}
		if h, ok := rec.(*RecordsHeader); ok && len(h.OperatingPoints) == 0 {
			h.OperatingPoints = nil
		}
		if h, ok := rec.(*RecordsHeader); ok {
			b := back.(*RecordsHeader)
			if !h.Start.Equal(b.Start) {
				t.Fatalf("%v comes back as %v", h.Start, b.Start)
			}
			h.Start, b.Start = time.Time{}, time.Time{}
		}
		if !reflect.DeepEqual(rec, back) {
			t.Fatalf("%+v comes back as %+v", rec, back)
		}
	})
}

// kernel is a UsageReader of a node that runs so many workloads.
type kernel struct {
	sample workload.Sample
	uptime func() time.Duration
}

func newKernel(workloads int, uptime func() time.Duration) *kernel {
	k := &kernel{uptime: uptime}
	k.sample.Usage = append(k.sample.Usage, workload.Usage{ID: workload.Node})
	for i := range workloads {
		k.sample.Usage = append(k.sample.Usage, workload.Usage{ID: workload.ID(fmt.Sprintf("system.slice/daemon-%06d.service", i))})
	}
	return k
}

func (k *kernel) Read() (*workload.Sample, error) {
	k.sample.At = k.uptime()
	for i := range k.sample.Usage {
		k.sample.Usage[i].At = k.sample.At
		k.sample.Usage[i].CPU += time.Millisecond
	}
	return &k.sample, nil
}

// agent serves a ledger's records until stop is called or the test ends.
func agent(t *testing.T, workloads int, tick time.Duration) (ledger *accounting.Ledger, url string, stop func()) {
	t.Helper()
	start := time.Now()
	uptime := func() time.Duration { return boot + time.Since(start) }
	l, err := accounting.New(accounting.Config{
		Nodes: []accounting.NodeConfig{{Name: "pi", Meter: "bench", Channel: 5}}, Tick: tick, StaleAfter: time.Minute, SaveEvery: time.Hour,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Attribution: &accounting.AttributionConfig{Node: "pi", Usage: newKernel(workloads, uptime), Uptime: uptime,
			AttributorConfig: accounting.AttributorConfig{Tick: tick, Board: accounting.Board{
				Classes: []accounting.Class{{Name: "big", Cores: 4, Points: []accounting.OperatingPoint{{KHz: 2_000_000, Microvolt: 1_312_500}}}, {Name: "little", Cores: 2}},
				Gain:    0.01, Noise: 0.02,
			}, Describe: func(workload.ID) workload.Workload { return workload.Workload{Kind: workload.System, Name: "d"} }},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHandler(Config{Snapshot: l.Snapshot, Record: l.Record, Self: "pi", Version: "1.0", Tick: tick, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(func() {
		stop()
		server.Close()
	})
	return l, server.URL + "/api/v1/records", stop
}

// stream asks for records.
func stream(t *testing.T, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Client).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestRecordsAreStreamed(t *testing.T) {
	l, url, stop := agent(t, 1, 5*time.Millisecond)
	resp := stream(t, url)
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "application/x-ndjson" {
		t.Fatalf("%s, %s", resp.Status, ct)
	}
	lines := bufio.NewScanner(resp.Body)
	read := func() any {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		rec, err := ParseRecord(lines.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	h, ok := read().(*RecordsHeader)
	if !ok || h.StartUs < boot.Microseconds() || time.Since(h.Start) > time.Minute {
		t.Fatalf("first line %s", lines.Bytes())
	}
	want := RecordsHeader{
		Type: "header", Format: "wattlet-records/1", Node: "pi", Agent: "1.0", Start: h.Start, StartUs: h.StartUs, TickUs: 5000,
		Cores: map[string]int{"big": 4, "little": 2}, OperatingPoints: map[string][]OperatingPoint{"big": {{2_000_000, 1_312_500}}},
		Meter: RecordsMeter{"bench", 5, 0.01, 20_000},
	}
	if !reflect.DeepEqual(*h, want) {
		t.Errorf("header %+v, want %+v", *h, want)
	}
	l.Sink("bench")(5, energy.Reading{Epoch: 7, At: time.Second, Host: time.Now(), Energy: 3 * energy.Joule, EnergyOnly: true})
	var reading *RecordsReading
	samples, described := 0, false
	for samples < 3 || reading == nil {
		switch v := read().(type) {
		case *RecordsReading:
			reading = v
		case workload.Workload:
			described = v.ID == "system.slice/daemon-000000.service"
		case *workload.Sample:
			if samples++; !described || len(v.Usage) != 2 || v.Usage[0].At < time.Duration(h.StartUs)*time.Microsecond {
				t.Fatalf("described %t, sample %+v", described, v)
			}
		}
	}
	if reading.EnergyUJ != 3_000_000 || reading.BootID != 7 || reading.ReceivedUs < h.StartUs || reading.ChargeUC != nil {
		t.Errorf("reading %+v", reading)
	}
	stop()
	for {
		if end, ok := read().(*RecordsEnd); ok {
			if end.Reason != "the agent ended" || lines.Scan() {
				t.Errorf("the stream ends with %q, and then %q", end.Reason, lines.Bytes())
			}
			break
		}
	}
	if resp := stream(t, url); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("of an agent that ended: %s", resp.Status)
	}
}

// There are so many streams and no more; one that is left makes room.
func TestRecordsAreFew(t *testing.T) {
	_, url, _ := agent(t, 1, 5*time.Millisecond)
	var first *http.Response
	for range 3 {
		resp := stream(t, url)
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		if first == nil {
			first = resp
		}
	}
	resp := stream(t, url)
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusServiceUnavailable || string(text) != "too many recordings at once; end one\n" {
		t.Errorf("%s: %s", resp.Status, text)
	}
	_ = first.Body.Close() // a stream that has not ended cannot be closed in order
	within(t, "there is room again", func() bool { return stream(t, url).StatusCode == http.StatusOK })
}

// Readers that take nothing are cut off: they get what was kept for them, in whole lines, and the reason.
func TestSlowReadersAreCutOff(t *testing.T) {
	l, url, _ := agent(t, 3000, 2*time.Millisecond)
	var slow []*http.Response
	for range 3 {
		slow = append(slow, stream(t, url))
	}
	within(t, "one is cut off", func() bool {
		r, err := l.Record()
		if err != nil {
			return false
		}
		r.Close()
		return true
	})
	ended := make(chan string, len(slow))
	for _, resp := range slow {
		go func() {
			var last []byte
			for r := bufio.NewReader(resp.Body); ; {
				line, err := r.ReadBytes('\n')
				if err != nil {
					ended <- fmt.Sprintf("%v after %q, %q", err, bytes.TrimSpace(last), line)
					return
				}
				if _, err := ParseRecord(line); err != nil {
					ended <- err.Error()
					return
				}
				if len(line) < 200 {
					last = append(last[:0], line...)
				}
			}
		}()
	}
	want := fmt.Sprintf(`EOF after %q, ""`, `{"type":"end","reason":"cut off: the reader was slower than the records came"}`)
	if got := <-ended; got != want { // the others may have kept up since
		t.Errorf("a slow stream: %s; want %s", got, want)
	}
}

func TestNothingToRecord(t *testing.T) {
	h, err := NewHandler(Config{
		Snapshot: func() *accounting.Snapshot { return oneNode() }, Record: func() (*accounting.Recording, error) { return nil, accounting.ErrNotSplit },
		Self: "pi", Version: "1.0", Tick: time.Second, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/records", http.NoBody))
	if w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "does not split") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// within waits until a condition holds.
func within(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// A sample of 50 workloads into its line, as once a tick for each reader.
func BenchmarkRecordSample(b *testing.B) {
	k := newKernel(50, func() time.Duration { return boot })
	s, _ := k.Read() // it cannot fail
	enc := json.NewEncoder(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		if err := enc.Encode(recordLine(s)); err != nil {
			b.Fatal(err)
		}
	}
}
