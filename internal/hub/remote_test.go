package hub

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
)

// TestRemoteConfig says what is wrong with a receiver before anything runs.
func TestRemoteConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(text string) Config { return Config{RemoteWriteFile: writeFile(t, "remote.yaml", text)} }
	direct := func(w ...RemoteWrite) Config { return Config{RemoteWrite: w} }
	for name, tc := range map[string]struct {
		cfg  Config
		want string // part of the error
	}{
		"a password in a URL": {direct(RemoteWrite{URL: "http://u:s3cret@vm:8428/api/v1/write"}), `"http://u:xxxxx@vm:8428/api/v1/write" is not an http URL of a host without a user; as http`},
		"a broken password":   {direct(RemoteWrite{URL: "http://u:s3cret%@vm"}), "remote write: not a URL: "},
		"no scheme":           {direct(RemoteWrite{URL: "vm:8428"}), `"vm:8428" is not an http URL of a host`},
		"no host":             {direct(RemoteWrite{URL: "http:///write"}), "is not an http URL of a host"},
		"protocol":            {direct(RemoteWrite{URL: "http://vm", Protocol: "3.0"}), `no protocol "3.0", only 1.0 and 2.0`},
		"twice":               {direct(RemoteWrite{URL: "http://vm"}, RemoteWrite{URL: "http://vm"}), "remote write to http://vm: it is there twice"},
		"file missing":        {Config{RemoteWriteFile: filepath.Join(dir, "none")}, filepath.Join(dir, "none") + ": no such file"},
		"file empty":          {file("# later\n"), "remote.yaml: it has no list of receivers"},
		"not a list":          {file("remote_write:\n- url: http://vm\n"), "remote.yaml: yaml: unmarshal errors: line 1: cannot unmarshal !!map"},
		"unknown key":         {file("- url: http://vm\n  sent_exemplars: true\n"), "remote.yaml: yaml: unmarshal errors: line 2: field sent_exemplars not found"},
		"no URL":              {file("- name: vm\n"), "url for remote_write is empty"},
		"null":                {file("- url: http://vm\n-\n"), "receiver 2 is empty"},
		"user in the file":    {file("- url: http://u:s3cret@vm\n"), "receiver 1: \"http://u:xxxxx@vm\" is not an http URL of a host without a user; the user goes into basic_auth"},
		"two authorizations":  {file("- url: http://vm\n  basic_auth: {username: u}\n  authorization: {credentials: c}\n"), "at most one of basic_auth"},
		"password file":       {file("- url: http://vm\n  basic_auth: {username: u, password_file: none}\n"), "remote.yaml/../none: no such file"},
		"certificates":        {file("- url: https://vm\n  tls_config: {ca_file: none}\n"), "none: no such file"},
		"relabelling":         {file("- url: http://vm\n  write_relabel_configs: [{action: hashmod}]\n"), "remote.yaml: receiver 1: relabel configuration for hashmod requires non-zero modulus"},
		"two of a name":       {file("- {url: http://a, name: n}\n- {url: http://b, name: n}\n"), "remote write to http://b: it is there twice, or its name is"},
		"external label":      {Config{ExternalLabels: map[string]string{"a-b": "c"}}, `a-b="c" cannot be an external label`},
		"no external label":   {Config{ExternalLabels: map[string]string{"cluster": ""}}, `cluster="" cannot be an external label`},
		"reserved label":      {Config{ExternalLabels: map[string]string{"__name__": "x"}}, `__name__="x" cannot be an external label`},
		"alertmanager":        {Config{Alertmanagers: []string{"am:9093"}}, `alertmanager: "am:9093" is not an http URL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.want = strings.ReplaceAll(tc.want, "remote.yaml/../", filepath.Dir(tc.cfg.RemoteWriteFile)+"/")
			tc.cfg.Dir, tc.cfg.Listen = dir, "127.0.0.1:0"
			h, err := New(tc.cfg)
			if err == nil {
				t.Fatal("it starts", h.Close())
			}
			if _, wrong := err.(*ConfigError); !wrong || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n") { //nolint:errorlint // New says that it is of this type
				t.Errorf("%v\nwant ...%s", err, tc.want)
			}
		})
	}
}

// TestQueueState follows a queue by its counters.
func TestQueueState(t *testing.T) {
	t.Parallel()
	const fresh, well, away, refused = queueNew, queueWell, queueAway, queueRefused
	type look struct {
		after   int // seconds since the first look
		counts  queueCounts
		want    queueHow
		comment string
	}
	for name, looks := range map[string][]look{
		"good": {
			{0, queueCounts{}, fresh, "nothing was sent"},
			{1, queueCounts{sent: 100}, fresh, "it might still be refused"},
			{2, queueCounts{sent: 101}, well, ""},
			{3, queueCounts{sent: 101}, well, "nothing new to send"},
		},
		"away": {
			{0, queueCounts{retried: 10}, away, ""},
			{1, queueCounts{retried: 10}, away, "it waits before it tries again"},
			{40, queueCounts{retried: 20}, away, ""},
			{41, queueCounts{retried: 20, sent: 100}, away, ""},
			{42, queueCounts{retried: 20, sent: 101}, well, ""},
			{43, queueCounts{retried: 30, sent: 101}, away, "and away"},
			{44, queueCounts{retried: 30, sent: 102}, away, ""},
			{45, queueCounts{retried: 40, sent: 103}, away, "sent and retried: two shards"},
			{46, queueCounts{retried: 40, sent: 104}, away, "so it counts anew"},
			{47, queueCounts{retried: 40, sent: 105}, well, ""},
		},
		"refused": {
			{0, queueCounts{refused: 10, sent: 100}, refused, ""},
			{1, queueCounts{refused: 10, sent: 101}, refused, ""},
			{2, queueCounts{refused: 10, sent: 102}, refused, "one batch was good"},
			{50, queueCounts{refused: 20, sent: 150}, refused, "the next was not"},
			{60, queueCounts{refused: 20, retried: 5, sent: 150}, refused, "away is the lesser evil"},
			{109, queueCounts{refused: 20, retried: 5, sent: 209}, refused, ""},
			{110, queueCounts{refused: 20, retried: 5, sent: 210}, well, "a minute without"},
		},
		"refused, then away": {
			{0, queueCounts{refused: 10}, refused, ""},
			{61, queueCounts{refused: 10, retried: 1}, away, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var q queueState
			began := time.Unix(1_700_000_000, 0)
			for _, l := range looks {
				if q.see(l.counts, began.Add(time.Duration(l.after)*time.Second)); q.how != l.want {
					t.Fatalf("after %d s, %+v: %d, want %d: %s", l.after, l.counts, q.how, l.want, l.comment)
				}
			}
		})
	}
}

// TestProtocol2 writes to receivers that confirm what they took, or only a part, or nothing since they do not know the protocol.
func TestProtocol2(t *testing.T) {
	t.Parallel()
	const header = "X-Prometheus-Remote-Write-"
	for name, tc := range map[string]struct {
		confirm func(w http.ResponseWriter)
		want    string // of the log; empty for nothing
	}{
		"new": {func(w http.ResponseWriter) {
			w.Header().Set(header+"Samples-Written", "1000000")
			w.Header().Set(header+"Histograms-Written", "1000000")
			w.Header().Set(header+"Exemplars-Written", "0")
		}, ""},
		"partial": {func(w http.ResponseWriter) {
			w.Header().Set(header+"Samples-Written", "1")
			w.Header().Set(header+"Histograms-Written", "0")
			w.Header().Set(header+"Exemplars-Written", "0")
		}, "we got 2xx status code from the Receiver yet statistics indicate some data was not written"},
		"old": {func(http.ResponseWriter) {}, "the target only supports PRW 1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests, strange atomic.Int64
			var told atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil {
					body, err = snappy.Decode(nil, body)
				}
				if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf;proto=io.prometheus.write.v2.Request" {
					strange.Add(1)
				}
				if bytes.Contains(body, []byte("Energy of the node.")) {
					told.Store(true)
				}
				tc.confirm(w)
				w.WriteHeader(http.StatusNoContent)
				requests.Add(1)
			}))
			defer server.Close()
			h := start(t, Config{Targets: []Target{{URL: newAgent(t, "").URL}}, RemoteWriteFile: writeFile(t, "remote.yaml", fmt.Sprintf(
				"- {url: %s/write, protobuf_message: io.prometheus.write.v2.Request, send_native_histograms: true, queue_config: {batch_send_deadline: 100ms}}", server.URL))})
			const up = "\nwattlet_hub_remote_write_up{"
			eventually(t, "a word on how it goes", func() bool {
				_, page, _ := fetchPage(t, h.base+"/metrics")
				return strings.Contains(page, up)
			})
			n := requests.Load()
			eventually(t, "more requests", func() bool { return requests.Load() > n+10 })
			if strange.Load() > 0 || !told.Load() {
				t.Errorf("%d requests are not what they should be; help was sent: %v", strange.Load(), told.Load())
			}
			_, page, _ := fetchPage(t, h.base+"/metrics")
			_, line, _ := strings.Cut(page, up)
			line, _, _ = strings.Cut(line, "\n")
			if want := map[bool]string{true: " 1", false: " 0"}[tc.want == ""]; !strings.HasSuffix(line, want) {
				t.Errorf("up %s, want%s", line, want)
			}
			log := h.log.String()
			switch {
			case tc.want == "" && log != "":
				t.Errorf("it says %s", log)
			case tc.want != "" && (strings.Count(log, "\n") != 1 || !strings.Contains(log, "the receiver refuses samples, those are lost to it") || !strings.Contains(log, tc.want)):
				t.Errorf("it says %s, want once %s", log, tc.want)
			}
		})
	}
}

// TestEndWithoutReceiver ends a hub whose receiver is away: it does not wait for ever, and says what is lost.
func TestEndWithoutReceiver(t *testing.T) {
	t.Parallel()
	h := start(t, Config{Targets: []Target{{URL: newAgent(t, "").URL}}, RemoteWrite: []RemoteWrite{{URL: "http://127.0.0.1:1/write"}}})
	scraped(t, h.base, "wattlet_node_energy_joules_total")
	h.stop()
	if log := h.log.String(); !strings.Contains(log, "the hub ends before the receiver took these samples, which it will never get") || !strings.Contains(log, "at_least=") {
		t.Errorf("it says %q", log)
	}
}

func FuzzParseRemoteWrite(f *testing.F) {
	f.Add([]byte("- url: http://vm:8428/api/v1/write\n  name: vm\n"))
	f.Add([]byte("- {url: https://u@vm, tls_config: {ca_file: ca.pem}, queue_config: {max_shards: 2}}\n-\n"))
	f.Add([]byte("- url: http://vm\n  write_relabel_configs:\n  - {source_labels: [__name__], regex: 'wattlet_.*', action: keep}\n"))
	f.Add([]byte("remote_write:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseRemoteWrite(text)
		if err == nil && len(all) == 0 || err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%d receivers, %v", len(all), err)
		}
		for _, one := range all {
			if one.URL.Hostname() == "" || one.URL.User != nil {
				t.Errorf("accepted %s", one.URL)
			}
		}
	})
}
