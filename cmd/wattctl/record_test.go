package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/trace"
	"github.com/wattlet/wattlet/internal/workload"
)

const recordedHeader = `{"type":"header","format":"wattlet-records/1","node":"pi","agent":"1.0","start":"2026-11-24T00:00:00Z",` +
	`"start_us":100000000,"tick_us":1000000,"cores":{"big":4},"operating_points":{"big":[{"khz":2000000,"microvolt":1312500}]},` +
	`"meter":{"name":"bench","channel":5,"gain_stddev":0.01,"noise_uw":20000}}`

// recorded is what an agent sends in two ticks, the second of which is too early for --for=2s.
var recorded = []string{
	recordedHeader,
	`{"type":"workload","workload":"fn/gzip","kind":"function","namespace":"fn","name":"gzip-1","function":"gzip"}`,
	`{"type":"reading","received_us":100500000,"meter_us":7000000,"boot_id":9,"energy_uj":1000000,"charge_uc":5,"voltage_uv":5000000,"current_ua":6}`,
	`{"type":"activity","workload":"fn/gzip","at_us":100900000,"in_flight":1,"started":5,"completed":4}`,
	`{"type":"activity","workload":"fn/gzip","at_us":100800000,"in_flight":0,"started":4,"completed":4}`, // asked at once, answered in another order
	`{"type":"event","workload":"fn/gzip","at_us":100700000,"event":"ready"}`,
	`{"type":"sample","at_us":101000000,"usage":[{"workload":"@node","class":"big","at_us":101000000,"cpu_us":10000000},` +
		`{"workload":"fn/gone","class":"big","at_us":99000000,"cpu_us":7},{"workload":"fn/gzip","class":"big","at_us":101000000,"cpu_us":3000000}],` +
		`"ended":["fn/gone"],"frequency":[{"class":"big","at_us":101000000,"khz":2000000,"time_us":40000000}]}`,
	`{"type":"tick","at_us":101000000}`,
	`{"type":"of a later time","at_us":1}`,
	`{"type":"activity","workload":"fn/gzip","at_us":100850000,"in_flight":2,"started":6,"completed":4}`, // later than its tick
	`{"type":"reading","received_us":101500000,"meter_us":8000000,"boot_id":9,"energy_uj":3000000}`,
	`{"type":"reading","received_us":101500000,"meter_us":1000000,"boot_id":9,"energy_uj":3000000}`, // cannot be
	`{"type":"sample","at_us":102000000,"usage":[{"workload":"@node","class":"big","at_us":101900000,"cpu_us":12000000},` +
		`{"workload":"fn/gzip","class":"big","at_us":101900000,"cpu_us":4500000}]}`,
	`{"type":"tick","at_us":102000000}`,
}

// answering is an agent that sends these lines, and then holds the line if it is to.
func answering(t *testing.T, hold bool, lines ...string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/api/v1/records" {
			http.NotFound(w, req)
			return
		}
		_, _ = io.WriteString(w, strings.Join(lines, "\n"))
		if hold {
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// doRecord runs the command.
func doRecord(ctx context.Context, c recordCmd) (stdout, stderr string, err error) {
	var out, errs output
	c.Wait = cmp.Or(c.Wait, testPatience)
	err = c.Run(&app{ctx: ctx, stdout: &out, stderr: &errs})
	return out.String(), errs.String(), err
}

func TestRecordWritesATrace(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lines       []string
		hold        bool
		limit, wait time.Duration
		compression string
		want        string // in the error
	}{
		"for a while":          {lines: recorded, hold: true, limit: 2 * time.Second},
		"compressed":           {lines: recorded, hold: true, limit: 2 * time.Second, compression: "zst"},
		"until the agent ends": {lines: append(slices.Clip(recorded), `{"type":"end","reason":"the agent ended"}`, "")},
		"cut off": {
			lines: append(slices.Clip(recorded), `{"type":"end","reason":"cut off: too slow"}`, ""),
			want:  "the agent ended the stream: cut off: too slow",
		},
		"broken": {lines: append(slices.Clip(recorded), ""), want: "the stream broke: unexpected EOF"},
		"broken in a line": {
			lines: append(slices.Clip(recorded), `{"type":"tick","at_us":103000000`), want: "the stream broke: unexpected EOF",
		},
		"silent":       {lines: recorded, hold: true, wait: time.Second, want: "the agent was silent for more than 1s"},
		"not a record": {lines: append(slices.Clip(recorded), `{"type":"tick","at_us":-1}`, ""), want: `tick record "{\"type\":`},
		"two agents":   {lines: append(slices.Clip(recorded), recordedHeader, ""), want: "not a stream of records"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := answering(t, tc.hold, append(tc.lines, "")...)
			if strings.Contains(name, "in a line") {
				url = answering(t, false, tc.lines...)
			}
			dir := filepath.Join(t.TempDir(), "trace")
			stdout, stderr, err := doRecord(t.Context(), recordCmd{Agent: url, Dir: dir, For: tc.limit, Wait: tc.wait, Compression: tc.compression})
			switch {
			case tc.want == "" && err != nil:
				t.Fatal(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasSuffix(err.Error(), dir+" has what came before")):
				t.Fatalf("%v; want %q", err, tc.want)
			}
			if stderr != "" || !strings.Contains(stdout, "node pi, 1.9s, 2.000 J measured\n") ||
				!strings.Contains(stdout, "readings 2, boots of the meter 1, samples 2, workloads 1, rows of activity 3, events 1\n") ||
				!strings.Contains(stdout, "1 left out, the first because of: reading at 1.5s: the meter's clock ran back") {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
			if tc.compression != "" {
				if _, err := os.Stat(filepath.Join(dir, "cpu.csv.zst")); err != nil {
					t.Error(err)
				}
				return
			}
			for file, want := range map[string]string{
				"power.csv": "received_us,meter_us,boot_id,energy_uj,charge_uc,voltage_uv,current_ua\n500000,7000000,9,1000000,5,5000000,6\n" +
					"1500000,8000000,9,3000000,,,\n",
				"cpu.csv": "at_us,workload,class,cpu_us\n1000000,@node,big,10000000\n1000000,fn/gzip,big,3000000\n" +
					"1900000,@node,big,12000000\n1900000,fn/gzip,big,4500000\n",
				"workloads.csv": "workload,kind,namespace,name,function\nfn/gzip,function,fn,gzip-1,gzip\n",
				"frequency.csv": "at_us,class,khz,time_us\n1000000,big,2000000,40000000\n",
				"activity.csv":  "at_us,workload,in_flight,started,completed\n800000,fn/gzip,0,4,4\n900000,fn/gzip,1,5,4\n900000,fn/gzip,2,6,4\n",
				"events.csv":    "at_us,workload,event\n700000,fn/gzip,ready\n",
			} {
				if got := read(t, filepath.Join(dir, file)); got != want {
					t.Errorf("%s is\n%s\nwant\n%s", file, got, want)
				}
			}
			sum, err := trace.Check(dir)
			m := sum.Meta
			if err != nil || m.Node != "pi" || m.Cores["big"] != 4 || m.OperatingPoints["big"][0].Microvolt != 1_312_500 ||
				*m.Meter != (trace.Meter{GainStdDev: 0.01, Noise: 20_000}) || m.Recorder != "wattctl dev" ||
				!m.Start.Equal(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("%+v, %v", sum, err)
			}
		})
	}
}

func TestRecordFails(t *testing.T) {
	t.Parallel()
	refusing := func(status int, text string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, status) }))
		t.Cleanup(server.Close)
		return server.URL
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	address, release := freeAddress(t)
	release()
	for name, tc := range map[string]struct {
		cmd   recordCmd
		usage bool
		want  string
	}{
		"nobody there":     {recordCmd{Agent: address}, false, "connection refused"},
		"no agent":         {recordCmd{Agent: answering(t, false) + "/elsewhere"}, false, "404 Not Found; is this an agent"},
		"no password":      {recordCmd{Agent: refusing(401, "")}, false, "401 Unauthorized; give --user and --password-file"},
		"not split":        {recordCmd{Agent: refusing(501, "it does\nnot split")}, false, "501 Not Implemented: it does not split"},
		"no line":          {recordCmd{Agent: answering(t, false)}, false, "the stream broke: unexpected EOF"},
		"silence":          {recordCmd{Agent: answering(t, true), Wait: 50 * time.Millisecond}, false, "the agent was silent for more than 50ms"},
		"wait":             {recordCmd{Agent: "x", Wait: -1}, true, "--wait=-1ns"},
		"no header":        {recordCmd{Agent: answering(t, false, recorded[1:]...)}, false, "not a stream of records"},
		"another format":   {recordCmd{Agent: answering(t, false, `{"type":"header","format":"wattlet-records/2"}`, "")}, false, `"wattlet-records/2", not`},
		"no cores":         {recordCmd{Agent: answering(t, false, strings.Replace(recordedHeader, `{"big":4}`, "{}", 1), "")}, false, "cores"},
		"a full directory": {recordCmd{Agent: answering(t, false, recorded...), Dir: full}, false, "there is x in it already"},
		"scheme":           {recordCmd{Agent: "coaps://10.0.0.5"}, true, "coaps://10.0.0.5 is not an agent's address"},
		"secret in it":     {recordCmd{Agent: "http://me:secret@10.0.0.5"}, true, "http://me:xxxxx@10.0.0.5 is not"},
		"no address":       {recordCmd{Agent: "http://"}, true, "is not an agent's address"},
		"user alone":       {recordCmd{Agent: "x", User: "me"}, true, "--user and --password-file go together"},
		"password alone":   {recordCmd{Agent: "x", PasswordFile: "f"}, true, "--user and --password-file go together"},
		"no such password": {recordCmd{Agent: "x", User: "me", PasswordFile: "/nowhere"}, true, "--password-file: open /nowhere"},
		"authority":        {recordCmd{Agent: "x", CA: "f"}, true, "--ca is for https://x"},
		"no authority":     {recordCmd{Agent: "https://x", CA: "/nowhere"}, true, "--ca: open /nowhere"},
		"bad authority":    {recordCmd{Agent: "https://x", CA: filepath.Join(full, "x")}, true, "has no certificate in PEM"},
		"compression":      {recordCmd{Agent: "x", Compression: "xz"}, true, "--compression=xz: it must be gz or zst"},
		"for":              {recordCmd{Agent: "x", For: -1}, true, "--for=-1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.cmd.Dir == "" {
				tc.cmd.Dir = filepath.Join(t.TempDir(), "trace")
			}
			stdout, _, err := doRecord(t.Context(), tc.cmd)
			if usage := (usageError{}); err == nil || stdout != "" || !strings.Contains(err.Error(), tc.want) || errors.As(err, &usage) != tc.usage {
				t.Errorf("%q, %v; want %q, usage %t", stdout, err, tc.want, tc.usage)
			}
			if _, err := os.Stat(filepath.Join(tc.cmd.Dir, "trace.json")); err == nil {
				t.Error("there is a trace")
			}
		})
	}
}

// freeAddress returns an address at which nobody answers once release was called.
func freeAddress(t *testing.T) (address string, release func()) {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	return strings.TrimPrefix(server.URL, "http://"), server.Close
}

// Interrupted, it leaves a whole trace and has not failed; over TLS, with a password.
func TestRecordInterrupted(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "me" || password != "correct horse" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, strings.Join(recorded, "\n")+"\n"+`{"type":"ti`)
		_ = http.NewResponseController(w).Flush()
		close(sent)
		<-req.Context().Done()
	}))
	t.Cleanup(server.Close)
	var ca bytes.Buffer
	ca.WriteString("-----BEGIN CERTIFICATE-----\n")
	ca.WriteString(base64Lines(server.Certificate().Raw))
	ca.WriteString("-----END CERTIFICATE-----\n")
	dir := filepath.Join(t.TempDir(), "trace")
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var stdout string
	go func() {
		var err error
		stdout, _, err = doRecord(ctx, recordCmd{
			Agent: server.URL, Dir: dir, User: "me", PasswordFile: write(t, "password", "correct horse\n"), CA: write(t, "ca.pem", ca.String()),
		})
		done <- err
	}()
	<-sent
	eventually(t, "the first rows", nil, func() bool { // those of the last second come with the end
		b, err := os.ReadFile(filepath.Join(dir, "cpu.csv"))
		return err == nil && bytes.Contains(b, []byte("@node"))
	})
	interrupt()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if sum, err := trace.Check(dir); err != nil || sum.Power == 0 || !strings.Contains(stdout, "node pi, ") {
		t.Errorf("%+v, %v; %q", sum, err, stdout)
	}

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := doRecord(gone, recordCmd{Agent: server.URL, Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "interrupted before") {
		t.Errorf("interrupted at once: %v", err)
	}
}

func base64Lines(der []byte) string {
	b, _ := json.Marshal(der) // bytes are base64 in JSON
	return strings.Trim(string(b), `"`) + "\n"
}

// What a real agent sees of a simulated board and meter, recorded, is what it accounts for itself; and replayed, the trace is
// split by the same code.
func TestRecordARealAgent(t *testing.T) {
	t.Parallel()
	scenario, err := boardsim.Preset("short")
	if err != nil {
		t.Fatal(err)
	}
	board, err := boardsim.New(boardsim.Options{Board: "raspberrypi-3b", Seed: 5, Scenario: scenario})
	if err != nil {
		t.Fatal(err)
	}
	board.Advance(10 * time.Second)
	tree := &boardsim.Tree{Board: board, Dir: t.TempDir()}
	if err := tree.Update(); err != nil {
		t.Fatal(err)
	}
	key := write(t, "psk", testKey+"\n")
	sim, err := metersim.Listen(metersim.Options{
		PSK: metersim.OneKey("wattlet", []byte(testKey)), Channels: []metersim.Channel{{Load: board.Load(), Ideal: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it ends after the agent
	ran := make(chan error, 2)
	go func() { ran <- sim.Run(ctx) }()
	go func() { ran <- tree.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ran, <-ran); err != nil {
			t.Error(err)
		}
	})
	var log output
	cmd := exec.Command(agent(t), "--meter.url="+sim.URL(), "--meter.psk-file="+key, "--meter.channel=1", "--node=pi", "--tick=100ms",
		"--web.listen-address=127.0.0.1:0", "--state.directory=",
		"--path.proc="+filepath.Join(tree.Dir, "proc"), "--path.sys="+filepath.Join(tree.Dir, "sys"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed below
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("the agent's log:\n%s", log.String())
		}
	})
	address := ""
	eventually(t, "the agent serves", ended, func() bool {
		_, after, ok := strings.Cut(log.String(), "msg=serving address=")
		address, _, _ = strings.Cut(after, " ")
		return ok
	})
	node := func() exporter.NodeView {
		resp, err := (&http.Client{Timeout: testPatience}).Get("http://" + address + "/api/v1/snapshot")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var v exporter.SnapshotView
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v.Nodes[0]
	}
	eventually(t, "the agent splits energy", ended, func() bool {
		n := node()
		return n.Attribution != nil && len(n.Attribution.Workloads) > 3 && n.MeasuredUJ != nil && *n.MeasuredUJ > 0
	})

	dir := filepath.Join(t.TempDir(), "trace")
	recording, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	stdout := ""
	go func() {
		var err error
		stdout, _, err = doRecord(recording, recordCmd{Agent: address, Dir: dir})
		done <- err
	}()
	rows := func() string { b, _ := os.ReadFile(filepath.Join(dir, "power.csv")); return string(b) } // none before it is made
	eventually(t, "recording has begun", ended, func() bool { return strings.Count(rows(), "\n") > 3 })
	before := node()
	cpuBefore := board.Truth()
	var after exporter.NodeView
	eventually(t, "six seconds more", ended, func() bool {
		after = node()
		return after.SourceAtUs-before.SourceAtUs > 6_000_000
	})
	cpuAfter := board.Truth()
	eventually(t, "the last of them is recorded", ended, func() bool {
		return strings.Contains(rows(), fmt.Sprintf(",%d,%d,", after.SourceAtUs, after.SourceEpoch))
	})
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Log(stdout)

	sum, err := trace.Check(dir)
	// Six seconds and more at ten readings each, of which a busy machine may take several in one.
	if err != nil || sum.Boots != 1 || sum.Power < 30 || sum.Usage < 30*4 || sum.Frequency == 0 || strings.Contains(stdout, "left out") {
		t.Fatalf("%+v, %v\n%s", sum, err, stdout)
	}
	if sum.Meta.Node != "pi" || sum.Meta.Cores[""] != 4 {
		t.Errorf("meta %+v", sum.Meta)
	}
	// Between the same two instants of the meter's clock, the same energy to the microjoule.
	tr, err := trace.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	at := map[int64]energy.Energy{}
	type span struct{ first, last time.Duration }
	cpu := map[workload.ID]span{}
	for {
		rec, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch {
		case rec.Row == trace.PowerRow:
			at[rec.Power.Meter.Microseconds()] = rec.Power.Energy
		case rec.Row == trace.UsageRow:
			s, ok := cpu[rec.Usage.ID]
			if !ok {
				s.first = rec.Usage.CPU
			}
			s.last = rec.Usage.CPU
			cpu[rec.Usage.ID] = s
		}
	}
	from, ok1 := at[before.SourceAtUs]
	to, ok2 := at[after.SourceAtUs]
	if grown := energy.Energy(*after.MeasuredUJ - *before.MeasuredUJ); !ok1 || !ok2 || to-from != grown {
		t.Errorf("between %d and %d µs the trace has %v (%t, %t), the agent %v", before.SourceAtUs, after.SourceAtUs, to-from, ok1, ok2, grown)
	}
	// The counters are those of the board: the first row's are older than what we saw when recording had begun, and the last
	// row's not older than the middle of the time, nor later than now.
	now, busy := board.Truth(), 0
	for i, w := range cpuBefore.Workloads {
		s, ok := cpu[w.ID]
		if !ok || w.CPU == 0 {
			continue // the kernel's own, or a group that did nothing
		}
		if s.first > w.CPU || s.last < ((w.CPU+cpuAfter.Workloads[i].CPU)/2).Truncate(time.Microsecond) || s.last > now.Workloads[i].CPU {
			t.Errorf("%s: the trace has %v to %v of CPU time; the board %v, %v, %v", w.ID, s.first, s.last, w.CPU,
				cpuAfter.Workloads[i].CPU, now.Workloads[i].CPU)
		}
		if s.last > s.first {
			busy++
		}
	}
	if busy < 3 {
		t.Errorf("%d workloads used CPU time, want those of the three functions", busy)
	}

	var split replayed
	if err := json.Unmarshal([]byte(succeed(t, "replay", dir, "--json", "--hold=0s")), &split); err != nil {
		t.Fatal(err)
	}
	given := split.BaseUJ
	for _, w := range split.Workloads {
		given += w.EnergyUJ + w.ColdStartUJ
	}
	if given != split.MeasuredUJ || split.MeasuredUJ == 0 || energy.Energy(split.MeasuredUJ) > sum.Measured || len(split.Workloads) < 3 {
		t.Errorf("replayed %v of %v, of which %v is given", energy.Energy(split.MeasuredUJ), sum.Measured, energy.Energy(given))
	}
}
