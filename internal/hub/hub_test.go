package hub

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// TestQuery asks for what an agent exposed in all the ways Grafana does.
func TestQuery(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	began := time.Now()
	h := start(t, Config{
		Targets: []Target{{Name: "bench", URL: a.URL, Labels: map[string]string{"cluster": "lab", "node": "hub-says"}}}, Version: "9.8.7",
	})
	// The agent's own node label has precedence over the target's.
	const series = `{node="pi", instance="bench", job="wattlet", cluster="lab"}`
	if got := scraped(t, h.base, "wattlet_node_energy_joules_total"+series); got != 1234.5 {
		t.Errorf("energy %v", got)
	}
	if got := scraped(t, h.base, "up"); got != 1 {
		t.Errorf("up %v", got)
	}
	// Only native histograms can be counted without a suffix.
	if got := scraped(t, h.base, "histogram_count(wattlet_function_invocation_energy_joules)"); got != 40 {
		t.Errorf("invocations %v", got)
	}
	if got := scraped(t, h.base, "histogram_sum(wattlet_function_invocation_energy_joules)"); got != 20 {
		t.Errorf("joules %v", got)
	}
	unix := func(at time.Time) string { return fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000) }
	r := api[vector](t, h.base, "query_range", "query", "wattlet_node_power_watts",
		"start", unix(began), "end", unix(time.Now().Add(time.Second)), "step", "0.05")
	if len(r.Result) != 1 || len(r.Result[0].Values) == 0 || r.Result[0].Values[0][1] != "3.25" {
		t.Errorf("range %+v", r)
	}
	if got := api[[]map[string]string](t, h.base, "series", "match[]", "wattlet_node_power_watts"); len(got) != 1 || got[0]["instance"] != "bench" {
		t.Errorf("series %v", got)
	}
	if got := api[[]string](t, h.base, "labels"); !slices.Contains(got, "cluster") {
		t.Errorf("labels %v", got)
	}
	if got := api[[]string](t, h.base, "label/node/values"); !slices.Equal(got, []string{"hub-says", "pi"}) { // the former is of up
		t.Errorf("nodes %v", got)
	}
	meta := api[map[string][]struct{ Type, Help string }](t, h.base, "metadata")
	if m := meta["wattlet_node_energy_joules_total"]; len(m) != 1 || m[0].Type != "counter" || m[0].Help != "Energy of the node." {
		t.Errorf("metadata %v", m)
	}
	got := api[struct {
		ActiveTargets []struct{ Health, ScrapeURL string }
	}](t, h.base, "targets").ActiveTargets
	if len(got) != 1 || got[0].Health != "up" || got[0].ScrapeURL != a.URL+"/metrics" {
		t.Errorf("targets %v", got)
	}
	if got := api[map[string]string](t, h.base, "status/buildinfo"); got["version"] != "9.8.7" {
		t.Errorf("build %v", got)
	}
	// What a hub has not answers too, and does not crash.
	for _, path := range []string{
		"rules", "alerts", "alertmanagers", "notifications", "features", "query_exemplars?query=up&start=1&end=2", "scrape_pools",
		"status/config", "status/flags", "status/runtimeinfo", "status/tsdb", "status/tsdb/blocks", "status/walreplay",
	} {
		if status, body, _ := fetchPage(t, h.base+"/api/v1/"+path); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body, _ := fetchPage(t, h.base+"/metrics"); status != 200 || !strings.Contains(body, "prometheus_tsdb_head_series") {
		t.Errorf("/metrics: %d %s", status, body)
	}
	for _, page := range []string{"/healthz", "/readyz"} {
		if status, body, _ := fetchPage(t, h.base+page); status != 200 || body != "ok\n" {
			t.Errorf("%s: %d %s", page, status, body)
		}
	}
}

// TestPassword reaches an agent with basic auth, for samples and for snapshots.
func TestPassword(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "s3cret")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, Config{Targets: []Target{
		{Name: "with", URL: a.URL, Client: Client{User: "hub", PasswordFile: file}}, {Name: "without", URL: newAgent(t, "other").URL},
	}})
	eventually(t, "up with the password", func() bool { got, ok := value(t, h.base, `up{instance="with"}`); return ok && got == 1 })
	if got := scraped(t, h.base, `up{instance="without"}`); got != 0 {
		t.Errorf("up %v without", got)
	}
	next := listen(t, h.base)
	for e := next(); ; e = next() {
		if e.Targets[0].Error == "" && strings.HasSuffix(e.Targets[1].Error, "/api/v1/snapshot answered 401 Unauthorized") {
			break
		}
	}
	if status, body, _ := fetchPage(t, h.base+"/api/v1/status/config"); status != 200 || strings.Contains(body, "s3cret") {
		t.Errorf("the configuration tells the password: %s", body)
	}
}

// TestRestart stops a hub and starts it again: nothing of it stays but the samples.
func TestRestart(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	cfg := Config{Dir: filepath.Join(t.TempDir(), "new", "data"), Targets: []Target{{URL: a.URL}}}
	h := start(t, cfg)
	scraped(t, h.base, "wattlet_node_energy_joules_total")
	h.stop()
	if _, err := os.Stat(filepath.Join(cfg.Dir, "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock stays: %v", err)
	}
	if _, err := net.Dial("tcp", h.Addr().String()); err == nil {
		t.Error("the hub listens after its end")
	}
	a.Close()
	h = start(t, cfg)
	if got, _ := value(t, h.base, "last_over_time(wattlet_node_energy_joules_total[1m])"); got != 1234.5 {
		t.Errorf("energy %v after the restart", got)
	}
	if log := h.log.String(); log != "" {
		t.Errorf("it complains: %s", log)
	}
}

// TestKill kills a hub in the middle of its work.
func TestKill(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, dir, a.URL)
	cmd.Env = append(os.Environ(), "BE_HUB=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() {
		_ = cmd.Process.Kill() // it may be dead
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	base, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	const count = "count_over_time(wattlet_node_energy_joules_total[1m])"
	base = strings.TrimSpace(base)
	var before float64
	eventually(t, "ten samples", func() bool {
		before, _ = value(t, base, count)
		return before >= 10
	})
	// While it lives, nobody else gets its storage.
	_, err = New(Config{Dir: dir, Listen: "127.0.0.1:0"})
	if want := "storage " + dir + " is in use by another hub; stop that one or choose another directory"; err == nil || err.Error() != want {
		t.Errorf("second hub: %v, want %s", err, want)
	}
	kill()
	a.Close()
	h := start(t, Config{Dir: dir})
	if after, _ := value(t, h.base, count); after < before {
		t.Errorf("%v samples after the kill, %v before", after, before)
	}
}

// TestBroken starts on data that is not what it should be.
func TestBroken(t *testing.T) {
	t.Parallel()
	const block = "01HZXA5T0Q8Z3V0N9M1RWM3C7K"
	write := func(t *testing.T, file, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	const meta = `{"ulid": "` + block + `", "minTime": 0, "maxTime": 7200000, "version": 1}`
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no meta":    {map[string]string{block + "/index": ""}, block + "/meta.json: no such file or directory"},
		"bad meta":   {map[string]string{block + "/meta.json": "{"}, block + "/meta.json: unexpected end of JSON input"},
		"no index":   {map[string]string{block + "/meta.json": meta, block + "/chunks/000001": ""}, block},
		"wal a file": {map[string]string{"wal": ""}, "wal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range tc.files {
				write(t, filepath.Join(dir, file), text)
			}
			h, err := New(Config{Dir: dir, Listen: "127.0.0.1:0"})
			if err == nil {
				t.Fatal("it starts", h.Close())
			}
			if !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant ...%s", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "lock")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the lock stays: %v", err)
			}
		})
	}
}

// TestFull ends the hub when its storage cannot be written: what it would store later could not be read again.
func TestFull(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "")
	dir := t.TempDir()
	h, err := New(Config{Dir: dir, Listen: "127.0.0.1:0", Targets: []Target{{URL: a.URL}}, ScrapeInterval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(t.Context()) }()
	scraped(t, "http://"+h.Addr().String(), "wattlet_node_energy_joules_total")
	full := &os.PathError{Op: "write", Path: filepath.Join(dir, "wal", "00000000"), Err: syscall.ENOSPC}
	h.store.wrote(nil)
	h.store.wrote(full)
	h.store.wrote(full) // nobody waits for a second one
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), full.Path+": no space left on device; make room") {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	again := start(t, Config{Dir: dir})
	if got, _ := value(t, again.base, "last_over_time(wattlet_node_energy_joules_total[1m])"); got != 1234.5 {
		t.Errorf("energy %v afterwards", got)
	}
}

// TestPortTaken tells of an address that another has, and leaves nothing.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "data")
	_, err = New(Config{Dir: dir, Listen: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "address already in use; choose another address") {
		t.Error(err)
	}
	if wrong := (*ConfigError)(nil); errors.As(err, &wrong) {
		t.Error("a taken port is no fault of the configuration")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("it has made", dir)
	}
}

// TestPages serves the dashboard, if there is one.
func TestPages(t *testing.T) {
	t.Parallel()
	app := fstest.MapFS{
		"index.html": {Data: []byte("the app")}, "assets/app-1a2b.js": {Data: []byte("code()")}, "icon.svg": {Data: []byte("<svg/>")},
	}
	with, without, empty := start(t, Config{Web: app}), start(t, Config{}), start(t, Config{Web: fstest.MapFS{}})
	for _, tc := range []struct {
		hub    *running
		path   string
		status int
		body   string // part of it
		cache  string
	}{
		{with, "/", 200, "the app", "no-cache"},
		{with, "/nodes/pi", 200, "the app", "no-cache"},
		{with, "/assets", 200, "the app", "no-cache"},
		{with, "/icon.svg", 200, "<svg/>", "no-cache"},
		{with, "/assets/app-1a2b.js", 200, "code()", "public, max-age=31536000, immutable"},
		{with, "/assets/app-0000.js", 404, "not found", ""},
		{with, "/api/v1/unheard", 404, "not found", ""},
		{with, "/api/v2/query", 404, "not found", ""},
		{without, "/", 200, "make web", ""},
		{without, "/nodes/pi", 404, "not found", ""},
		{empty, "/", 200, "make web", ""},
	} {
		status, body, header := fetchPage(t, tc.hub.base+tc.path)
		if status != tc.status || !strings.Contains(body, tc.body) || header.Get("Cache-Control") != tc.cache {
			t.Errorf("%s: %d %q %q, want %d %q %q", tc.path, status, body, header.Get("Cache-Control"), tc.status, tc.body, tc.cache)
		}
	}
}
