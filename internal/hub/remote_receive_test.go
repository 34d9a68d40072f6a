package hub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// TestReceive writes from one hub to another: all samples of the one are the other's.
func TestReceive(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]RemoteWrite{
		"1.0": {NativeHistograms: true}, "2.0": {Protocol: "2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := start(t, Config{Receive: true})
			w.URL = to.base + "/api/v1/write"
			cfg := Config{Dir: t.TempDir(), Targets: []Target{{URL: newAgent(t, "").URL}}, RemoteWrite: []RemoteWrite{w}, ExternalLabels: map[string]string{"cluster": "lab"}}
			h := start(t, cfg)
			eventually(t, "samples", func() bool {
				n, _ := value(t, h.base, "count_over_time(wattlet_node_energy_joules_total[1m])")
				return n >= 20
			})
			h.stop() // sends what waits
			if log := h.log.String(); log != "" {
				t.Errorf("the sender says %s", log)
			}
			h = start(t, Config{Dir: cfg.Dir})
			want, got := samplesOf(t, h.base), samplesOf(t, to.base)
			lost, n := missing(want, got)
			more, _ := missing(got, want)
			if len(lost)+len(more) > 0 || n < 100 {
				t.Errorf("of %d samples %d are lost, %d are new: %s", n, len(lost), len(more), append(lost, more...)[:1])
			}
			if got, ok := value(t, to.base, `histogram_count(last_over_time(wattlet_function_invocation_energy_joules{cluster="lab"}[5m]))`); !ok || got != 40 {
				t.Errorf("%v invocations, %v", got, ok)
			}
			if _, page, _ := fetchPage(t, to.base+"/metrics"); !strings.Contains(page, `wattlet_hub_receive_requests_total{code="204"}`) {
				t.Error("no count of requests")
			}
		})
	}
}

// push posts a body and returns the answer.
func push(t testing.TB, base string, header map[string]string, body []byte) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// request returns a remote write 1.0 of one sample, as old as said.
func request(t testing.TB, name string, age time.Duration) []byte {
	t.Helper()
	req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}},
		Samples: []prompb.Sample{{Value: 7, Timestamp: time.Now().Add(-age).UnixMilli()}},
	}}}
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, b)
}

// TestReceiveAnswers pushes what is good, late, too much or no samples at all.
func TestReceiveAnswers(t *testing.T) {
	t.Parallel()
	on, off := start(t, Config{Receive: true}), start(t, Config{})
	good := map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
	with := func(name, value string) map[string]string {
		h := maps.Clone(good)
		h[name] = value
		return h
	}
	// The length of what a block has unpacked is at its head.
	bomb := append(binary.AppendUvarint(nil, receiveUnpacked+1), 0)
	for _, tc := range []struct {
		name   string
		hub    *running
		header map[string]string
		body   []byte
		status int
		answer string
	}{
		{"now", on, good, request(t, "a", 0), 204, ""},
		{"late", on, good, request(t, "a", 2*time.Hour), 204, ""},
		{"too late", on, good, request(t, "a", 4*time.Hour), 400, "too old sample"},
		{"from the future", on, good, request(t, "a", -time.Hour), 400, "too far in the future"},
		{"2.0 that is none", on, with("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"), snappy.Encode(nil, []byte("x")), 400, ""},
		{"no protobuf", on, good, snappy.Encode(nil, []byte("hello")), 400, ""},
		{"not packed", on, good, []byte{0xff}, 400, ""},
		{"JSON", on, with("Content-Type", "application/json"), request(t, "a", 0), 415, ""},
		{"gzip", on, with("Content-Encoding", "gzip"), request(t, "a", 0), 415, ""},
		{"much", on, good, make([]byte, receiveBytes+1), 413, "more than 2 MiB at once"},
		{"much, unpacked", on, good, bomb, 413, "more than 8 MiB at once, unpacked"},
		{"off", off, good, request(t, "a", 0), 404, "start it with --receive"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if status, answer := push(t, tc.hub.base, tc.header, tc.body); status != tc.status || !strings.Contains(answer, tc.answer) {
				t.Errorf("%d %s, want %d %s", status, answer, tc.status, tc.answer)
			}
		})
	}
	if got, _ := value(t, on.base, "count_over_time(a[3h])"); got != 2 {
		t.Errorf("%v samples, want 2", got)
	}
	if log := on.log.String(); log != "" {
		t.Errorf("strangers fill the log: %s", log)
	}
}

// TestReceiveAtOnce turns away who comes when all places are taken.
func TestReceiveAtOnce(t *testing.T) {
	t.Parallel()
	in, out := make(chan bool), make(chan bool)
	h := bounded(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { in <- true; <-out }))
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("")))
		return w
	}
	done := make(chan int)
	for range receiveAtOnce {
		go func() { done <- ask().Code }()
		<-in
	}
	if w := ask(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for range receiveAtOnce {
		out <- true
		if code := <-done; code != http.StatusOK {
			t.Errorf("%d", code)
		}
	}
	go func() { done <- ask().Code }()
	<-in
	out <- true
	if code := <-done; code != http.StatusOK {
		t.Errorf("%d when there are places again", code)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(request(f, "a", 0), false)
	f.Add(snappy.Encode(nil, []byte("\n\x01\x00")), true)
	h, err := New(Config{Dir: f.TempDir(), Listen: "127.0.0.1:0", Receive: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := h.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, body []byte, two bool) {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/write", bytes.NewReader(body))
		if two {
			r.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		}
		h.receiver.ServeHTTP(w, r)
		if w.Code != 204 && w.Code/100 != 4 {
			t.Errorf("%d: %s", w.Code, fmt.Sprint(w.Body))
		}
	})
}
