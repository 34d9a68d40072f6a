package main

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/workload"
)

// The records of a real agent are what it accounts for; they are behind the password like all pages, and end with the agent.
func TestRecords(t *testing.T) {
	t.Parallel()
	scenario, err := boardsim.Preset("short")
	if err != nil {
		t.Fatal(err)
	}
	board, err := boardsim.New(boardsim.Options{Board: "odroid-xu4", Seed: 3, Scenario: scenario})
	if err != nil {
		t.Fatal(err)
	}
	board.Advance(10 * time.Second)
	tree := &boardsim.Tree{Board: board, Dir: t.TempDir()}
	if err := tree.Update(); err != nil {
		t.Fatal(err)
	}
	background(t, tree.Run)
	sim := startMeter(t, metersim.Options{Channels: []metersim.Channel{{Load: board.Load(), Ideal: true}}})
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(web, []byte("basic_auth_users: {me: '"+string(hash)+"'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startAgent(t, "--attribution=true", "--web.config.file="+web, "--tick=100ms", "--node=n1", "--config.file="+clusterFile(t, `
meters: {bench: {url: "%s", psk_identity: wattlet, psk_file: psk}}
nodes: {n1: {meter: bench, channel: 1}}
`, sim.URL()), "--path.proc="+filepath.Join(tree.Dir, "proc"), "--path.sys="+filepath.Join(tree.Dir, "sys"))
	if status, _ := p.get("/api/v1/records"); status != http.StatusUnauthorized {
		t.Errorf("without a password: status %d", status)
	}
	p.url = strings.Replace(p.url, "http://", "http://me:correct%20horse@", 1)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/api/v1/records", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	lines := bufio.NewReader(resp.Body)
	next := func() any {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		rec, err := exporter.ParseRecord(line)
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	header, ok := next().(*exporter.RecordsHeader)
	if !ok || header.Node != "n1" || header.Agent != "test" || header.Cores["little"] != 4 || header.Cores["big"] != 4 || header.TickUs != 100_000 {
		t.Fatalf("header %+v", header)
	}

	readings := map[int64]exporter.RecordsReading{} // by the meter's time
	described := map[workload.ID]bool{workload.Node: true}
	var before, after exporter.NodeView
	samples, rows, last := 0, 0, time.Duration(header.StartUs)*time.Microsecond
	for before.MeasuredUJ == nil || after.MeasuredUJ == nil || readings[after.SourceAtUs].EnergyUJ == 0 {
		switch r := next().(type) {
		case *exporter.RecordsReading:
			readings[r.MeterUs] = *r
			if r.ChargeUC == nil || r.VoltageUV == nil || r.CurrentUA == nil {
				t.Fatalf("a Wattlet meter's reading without charge, voltage or current: %+v", r)
			}
		case workload.Workload:
			described[r.ID] = true
		case *workload.Sample:
			samples++
			rows += len(r.Usage)
			if r.At <= last || len(r.Frequency) == 0 {
				t.Fatalf("sample at %v after %v, %d frequencies", r.At, last, len(r.Frequency))
			}
			last = r.At
			for _, u := range r.Usage {
				if !described[u.ID] {
					t.Fatalf("%s was not described", u.ID)
				}
			}
		case accounting.Tick:
			switch n := p.node("n1"); {
			case before.MeasuredUJ == nil && len(readings) > 0 && n.MeasuredUJ != nil && readings[n.SourceAtUs].EnergyUJ > 0:
				before = n
			case before.MeasuredUJ != nil && after.MeasuredUJ == nil && n.SourceAtUs-before.SourceAtUs > 5_000_000:
				after = n
			}
		case *exporter.RecordsEnd:
			t.Fatalf("the stream ended: %s", r.Reason)
		}
	}
	grown := *after.MeasuredUJ - *before.MeasuredUJ
	if got := readings[after.SourceAtUs].EnergyUJ - readings[before.SourceAtUs].EnergyUJ; got != grown || grown <= 0 {
		t.Errorf("the records have %d µJ, the agent %d µJ", got, grown)
	}
	if samples < 40 || rows < samples*5 {
		t.Errorf("%d samples with %d rows", samples, rows)
	}

	p.stop()
	for {
		end, ok := next().(*exporter.RecordsEnd)
		if !ok {
			continue
		}
		if _, err := lines.ReadByte(); end.Reason != "the agent ended" || err == nil {
			t.Errorf("the stream ends with %q, and then %v", end.Reason, err)
		}
		break
	}
}

// An agent that splits nothing has nothing to record.
func TestNoRecords(t *testing.T) {
	t.Parallel()
	sim := startMeter(t, metersim.Options{})
	p := startAgent(t, append(meterFlags(t, sim.URL()), "--attribution=false")...)
	if status, body := p.get("/api/v1/records"); status != http.StatusNotImplemented || !strings.Contains(body, "does not split") {
		t.Errorf("%d %s", status, body)
	}
}
