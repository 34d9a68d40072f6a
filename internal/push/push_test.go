package push

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// receiver answers requests as it is told and keeps what it has taken.
type receiver struct {
	t   *testing.T
	two bool

	mu     sync.Mutex
	answer func(r *http.Request, samples []sample) (*http.Response, error) // nil: takes all
	asked  []time.Time
	got    []sample
	last   *http.Request
}

// status answers with no body.
func status(code int, header ...string) func(*http.Request, []sample) (*http.Response, error) {
	return func(*http.Request, []sample) (*http.Response, error) {
		resp := &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("because\nof that"))}
		for i := 0; i < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
		return resp, nil
	}
}

func unreachable(*http.Request, []sample) (*http.Response, error) {
	return nil, errors.New("nobody there")
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	samples := decode(r.t, body, r.two)
	r.mu.Lock()
	r.asked, r.last = append(r.asked, time.Now()), req
	answer := r.answer
	if answer == nil {
		r.got = append(r.got, samples...)
	}
	r.mu.Unlock()
	if answer != nil {
		return answer(req, samples) // without the lock: it may wait
	}
	return status(204, "X-Prometheus-Remote-Write-Samples-Written", fmt.Sprint(len(samples)))(nil, nil)
}

// be changes how the receiver answers.
func (r *receiver) be(answer func(*http.Request, []sample) (*http.Response, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// seen returns when requests came, the last of them, and what was taken.
func (r *receiver) seen() (asked []time.Time, last *http.Request, got []sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked), r.last, slices.Clone(r.got)
}

// values returns what was taken of a series, in the order of its coming; NaN for an end.
func (r *receiver) values(series string) (values []float64, at []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.got {
		if s.series == `{__name__="`+series+`"}` {
			values, at = append(values, s.value), append(at, s.ms)
		}
	}
	return values, at
}

// source has a gauge n, which grows by one each time it is gathered, and whatever more there is.
type source struct {
	mu    sync.Mutex
	n     int
	names []string
	err   error
}

func (s *source) Gather() (all []*dto.MetricFamily, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	for _, name := range append([]string{"n"}, s.names...) {
		v := float64(s.n)
		all = append(all, &dto.MetricFamily{Name: &name, Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &v}}}})
	}
	return all, s.err
}

func (s *source) set(err error, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.names = err, names
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// setup is a pusher that runs in a bubble, its source and its receiver.
type setup struct {
	*Pusher

	t    *testing.T
	to   *receiver
	of   *source
	log  *lines
	stop func() time.Duration
}

// start runs a pusher until stop, which returns how long its end took.
func start(t *testing.T, change func(*Config)) *setup {
	t.Helper()
	s := &setup{t: t, to: &receiver{t: t}, of: &source{}, log: &lines{}}
	cfg := Config{
		URL: "http://hub:9779/api/v1/write", Protocol: "1.0", Interval: 15 * time.Second, Buffer: 1 << 20, Gatherer: s.of, Transport: s.to,
		Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})),
	}
	if change != nil {
		change(&cfg)
	}
	s.to.two = cfg.Protocol == "2.0"
	var err error
	if s.Pusher, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	s.stop = func() time.Duration {
		from := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return time.Since(from)
	}
	return s
}

// after lets d pass and returns when nothing more happens at once.
func (s *setup) after(d time.Duration) {
	s.t.Helper()
	<-time.After(d)
	synctest.Wait()
}

// logged checks what was logged.
func (s *setup) logged(want ...string) {
	s.t.Helper()
	got := strings.Split(strings.TrimSpace(s.log.String()), "\n")
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = strings.Contains(got[i], want[i])
	}
	if !same {
		s.t.Errorf("the log is\n%s\nwant %q", s.log, want)
	}
}

// counts checks the metrics: samples taken, refused, and lost for want of room.
func (s *setup) counts(want string) {
	s.t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(s.Pusher); err != nil {
		s.t.Fatal(err)
	}
	all, err := reg.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "wattlet_push_")
			if len(m.GetLabel()) == 1 {
				name = m.GetLabel()[0].GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	delete(got, "last_success_timestamp_seconds")
	if text := fmt.Sprint(got); text != "map["+want+"]" {
		s.t.Errorf("counts %s, want %s", text, want)
	}
}

// rising checks that values are from, from+1, … to, taken at intervals of 15 s.
func rising(t *testing.T, values []float64, at []int64, from, to int) {
	t.Helper()
	for i, v := range values {
		if v != float64(from+i) || i > 0 && at[i]-at[i-1] != 15_000 {
			t.Errorf("values %v at %v, want %d to %d, 15 s apart", values, at, from, to)
			return
		}
	}
	if len(values) != to-from+1 {
		t.Errorf("values %v, want %d to %d", values, from, to)
	}
}

func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(c *Config) { c.UserAgent = "wattlet/1" })
		begun := time.Now()
		s.after(10 * 15 * time.Second)
		values, at := s.to.values("n")
		rising(t, values, at, 1, 10)
		if first := at[0] - begun.UnixMilli(); first < 0 || first > 15_000 {
			t.Errorf("the first is %d ms late", first)
		}
		s.counts("buffer_full:0 refused:0 samples_total:10")
		s.logged(`level=INFO msg="samples are pushed" url=http://hub:9779/api/v1/write`)
		_, last, _ := s.to.seen()
		for name, want := range map[string]string{
			"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0", "User-Agent": "wattlet/1",
			"Authorization": "",
		} {
			if got := last.Header.Get(name); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if took := s.stop(); took != 0 {
			t.Errorf("the end took %v", took)
		}
		// The newest value, and the end of the series after it.
		values, at = s.to.values("n")
		if len(values) != 12 || values[10] != 11 || !math.IsNaN(values[11]) || at[10] >= at[11] {
			t.Errorf("values %v at %v at the end", values, at)
		}
		if last := time.UnixMilli(at[10]); !last.Equal(time.Now().Truncate(time.Millisecond)) {
			t.Errorf("the last sample is of %v, now it is %v", last, time.Now())
		}
	})
}

// TestAway has a receiver that is not there for ten minutes, in each way of not being there.
func TestAway(t *testing.T) {
	for name, away := range map[string]func(*http.Request, []sample) (*http.Response, error){
		"unreachable": unreachable, "500": status(500), "503": status(503), "429": status(429),
		"silent": func(r *http.Request, _ []sample) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"torn": func(*http.Request, []sample) (*http.Response, error) {
			resp, _ := status(204)(nil, nil)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("x"), torn{}))
			return resp, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, nil)
				s.after(15 * time.Second)
				s.to.be(away)
				s.after(10 * time.Minute)
				s.counts("buffer_full:0 refused:0 samples_total:1")
				asked, _, _ := s.to.seen()
				for i := 2; i < len(asked); i++ {
					if gap := asked[i].Sub(asked[i-1]); gap < leastWait/2 || gap > attempt+longestOwn {
						t.Errorf("%v between two requests", gap)
					}
				}
				if len(asked) < 10 || len(asked) > 60 {
					t.Errorf("%d requests in ten minutes", len(asked))
				}
				s.to.be(nil)
				s.after(65 * time.Second)
				values, at := s.to.values("n")
				rising(t, values, at, 1, len(values))
				if len(values) < 45 {
					t.Errorf("only %d values have come", len(values))
				}
				s.logged("samples are pushed", "does not take samples, they wait", "samples are pushed")
				s.stop()
			})
		})
	}
}

// torn is a connection that breaks.
type torn struct{}

func (torn) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestRefused loses what the receiver refuses and goes on with the next.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		protocol string
		answer   func(*http.Request, []sample) (*http.Response, error)
		refused  int // of three requests of a sample
		says     string
	}{
		"400":               {"1.0", status(400), 3, "POST http://hub:9779/api/v1/write: status 400: because of that"},
		"401":               {"1.0", status(401), 3, "status 401"},
		"413":               {"1.0", status(413), 3, "status 413"},
		"elsewhere":         {"1.0", status(302, "Location", "http://hub/login"), 3, "status 302"},
		"elsewhere, a POST": {"1.0", status(307, "Location", "http://hub/2"), 3, "status 307"},
		"415 of 2.0":        {"2.0", status(415), 3, "status 415"},
		"400, but written":  {"2.0", status(400, "X-Prometheus-Remote-Write-Samples-Written", "1"), 0, "status 400"},
		"more than sent":    {"2.0", status(400, "X-Prometheus-Remote-Write-Samples-Written", "2000000000"), 0, "status 400"},
		// As Prometheus 2.42 does, which knows 1.0 only.
		"not confirmed": {"2.0", status(204), 3, "status 204, but of 1 samples only 0 are confirmed; if it does not know 2.0, use protocol 1.0"},
		"confirms rubbish": {"2.0", status(200, "X-Prometheus-Remote-Write-Samples-Written", "-1", "X-Prometheus-Remote-Write-Histograms-Written", "many"),
			3, "only 0 are confirmed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, func(c *Config) { c.Protocol = tc.protocol })
				s.after(15 * time.Second)
				s.to.be(tc.answer)
				s.after(45 * time.Second)
				s.to.be(nil)
				s.after(15 * time.Second)
				if asked, _, _ := s.to.seen(); len(asked) != 5 {
					t.Errorf("%d requests, want one each time", len(asked))
				}
				s.counts(fmt.Sprintf("buffer_full:0 refused:%d samples_total:%d", tc.refused, 5-tc.refused))
				s.logged("samples are pushed", tc.says, "samples are pushed")
				s.stop()
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(*http.Request, []sample) (*http.Response, error)
		wait   time.Duration
	}{
		"seconds": {status(429, "Retry-After", "90"), 90 * time.Second},
		"date": {func(*http.Request, []sample) (*http.Response, error) {
			return status(503, "Retry-After", time.Now().Add(2*time.Minute).UTC().Format(http.TimeFormat))(nil, nil)
		}, 119 * time.Second}, // dates have whole seconds
		"a year": {status(503, "Retry-After", "31536000"), 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, nil)
				s.to.be(tc.answer)
				s.after(12 * time.Minute)
				asked, _, _ := s.to.seen()
				if gap := asked[1].Sub(asked[0]); gap < tc.wait || gap > tc.wait+time.Second {
					t.Errorf("%v between two requests, want %v", gap, tc.wait)
				}
				s.to.be(nil)
				s.after(11 * time.Minute)
				values, at := s.to.values("n")
				rising(t, values, at, 1, len(values))
				if len(values) < 80 {
					t.Errorf("only %d values", len(values))
				}
				s.stop()
			})
		})
	}
}

// TestFull has a buffer that is too small for the time without a receiver.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(c *Config) { c.Buffer = 64 << 10 })
		var names []string
		for i := range 199 {
			names = append(names, fmt.Sprintf("%x", i*i*i*i*7919))
		}
		s.of.set(nil, names...)
		s.to.be(unreachable)
		s.after(100 * 15 * time.Second)
		// 200 samples, of which a name of some 8 bytes is all that differs: 1.6 to 3.2 kB, so that 20 to 40 messages have room.
		s.buffer.mu.Lock()
		kept := len(s.buffer.list)
		if kept < 20 || kept > 40 {
			t.Errorf("%d messages are kept", kept)
		}
		var size, most int
		for _, m := range s.buffer.list {
			size, most = size+len(m.body), max(most, len(m.body))
		}
		if size != s.buffer.size || size > 64<<10 || size < 64<<10-most {
			t.Errorf("%d bytes, said to be %d", size, s.buffer.size)
		}
		s.buffer.mu.Unlock()
		s.counts(fmt.Sprintf("buffer_full:%d refused:0 samples_total:0", (100-kept)*200))
		s.to.be(nil)
		s.after(60 * time.Second)
		values, at := s.to.values("n")
		rising(t, values, at, 104-len(values)+1, 104)
		s.logged("does not take samples, they wait", "the oldest samples are lost", "samples are pushed")
		// And again: the log says so again.
		s.to.be(unreachable)
		s.after(100 * 15 * time.Second)
		s.logged("they wait", "the oldest samples are lost", "samples are pushed", "they wait", "the oldest samples are lost")
		s.stop()
	})
}

// TestMeanwhile drops nothing that is being sent just then.
func TestMeanwhile(t *testing.T) {
	b := buffer{limit: 10, more: make(chan struct{}, 1)}
	put := func(samples, lost int, first bool) {
		t.Helper()
		if n, f := b.put(message{make([]byte, 4), samples}); n != lost || f != first {
			t.Errorf("%d lost, %v; want %d, %v", n, f, lost, first)
		}
	}
	put(1, 0, false)
	put(2, 0, false)
	m, ok := b.take()
	if !ok || m.samples != 1 {
		t.Fatalf("%v %v", m, ok)
	}
	put(3, 2, true) // the second goes: 8 bytes are left, of which 4 are on their way
	put(4, 3, false)
	if n, f := b.back(m); n != 0 || f || b.waiting() != 5 {
		t.Errorf("%d lost, %v, %d wait", n, f, b.waiting())
	}
	m, _ = b.take()
	b.done(m)
	put(5, 0, false)
	put(6, 4, false)
	for _, want := range []int{5, 6} {
		if m, _ = b.take(); m.samples != want {
			t.Errorf("%d, want %d", m.samples, want)
		}
		b.done(m)
	}
	if _, ok := b.take(); ok || b.size != 0 {
		t.Errorf("something is left: %d bytes", b.size)
	}
	if n, first := b.put(message{make([]byte, 11), 7}); n != 7 || !first {
		t.Errorf("what never has room: %d lost, %v", n, first)
	}
}

// TestEnds marks series that are gone, once and when they are.
func TestEnds(t *testing.T) {
	for _, protocol := range []string{"1.0", "2.0"} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, func(c *Config) { c.Protocol = protocol })
			s.of.set(nil, "a", "b")
			s.after(30 * time.Second) // 1, 2
			s.of.set(nil, "b")
			s.after(30 * time.Second) // 3, 4
			s.of.set(nil, "a", "b")
			s.after(15 * time.Second) // 5
			s.stop()                  // 6
			n, at := s.to.values("n")
			for name, want := range map[string][]float64{"a": {1, 2, math.NaN(), 5, 6, math.NaN()}, "b": {1, 2, 3, 4, 5, 6, math.NaN()}} {
				values, ats := s.to.values(name)
				if fmt.Sprint(values) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", name, values, want)
				}
				if name == "a" && ats[2] != at[2] {
					t.Errorf("a ended at %d, the next values are of %d", ats[2], at[2])
				}
			}
			_, _, got := s.to.seen()
			for _, sample := range got {
				if math.IsNaN(sample.value) && math.Float64bits(sample.value) != 0x7ff0000000000002 {
					t.Errorf("%x is no mark", math.Float64bits(sample.value))
				}
			}
			if len(n) != 7 {
				t.Errorf("n: %v", n)
			}
		})
	}
}

// TestEndWithoutReceiver tries for five seconds.
func TestEndWithoutReceiver(t *testing.T) {
	for name, tc := range map[string]struct {
		last func(*http.Request, []sample) (*http.Response, error)
		took time.Duration
		log  []string
		n    int
	}{
		"back":       {nil, 0, []string{"they wait", "samples are pushed"}, 22},
		"still away": {unreachable, grace, []string{"they wait", `are lost: the receiver did not take them before the end" samples=22`}, 0},
		"silent": {func(r *http.Request, _ []sample) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
			grace, []string{"they wait", "samples=22"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, nil)
				s.to.be(status(503, "Retry-After", "600"))
				s.after(20 * 15 * time.Second)
				s.to.be(tc.last)
				if took := s.stop(); took != tc.took {
					t.Errorf("the end took %v, want %v", took, tc.took)
				}
				s.logged(tc.log...)
				if values, _ := s.to.values("n"); len(values) != tc.n {
					t.Errorf("%d values have come, want %d", len(values), tc.n)
				}
			})
		})
	}
}

// TestGatherer pushes what there is when not all can be gathered.
func TestGatherer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil)
		s.of.set(errors.New("collected before"))
		s.after(30 * time.Second)
		s.of.set(nil)
		s.after(30 * time.Second)
		values, at := s.to.values("n")
		rising(t, values, at, 1, 4)
		s.logged("not all metrics can be pushed", "samples are pushed", "all metrics are pushed again")
		s.stop()
	})
}

// TestPassword is read anew.
func TestPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(c *Config) { c.User, c.PasswordFile = "pi", file })
		want := func(password string) {
			t.Helper()
			_, last, _ := s.to.seen()
			if user, got, _ := last.BasicAuth(); user != "pi" || got != password {
				t.Errorf("%s:%s, want %s", user, got, password)
			}
		}
		s.after(15 * time.Second)
		want("first")
		write("second")
		s.after(15 * time.Second)
		want("second")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		s.after(15 * time.Second)
		write("third")
		s.after(30 * time.Second)
		want("third")
		values, at := s.to.values("n")
		rising(t, values, at, 1, len(values))
		s.logged("samples are pushed", "no such file", "samples are pushed")
		s.stop()
	})
}

// TestTLS trusts whom it is told to.
func TestTLS(t *testing.T) {
	to := &receiver{t: t}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := to.RoundTrip(r)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(resp.StatusCode)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		ca    string
		taken int
	}{{ca, 2}, {"", 0}} { // the last value and the end
		to.got = nil
		p, err := New(Config{URL: server.URL, Protocol: "1.0", Interval: time.Second, Buffer: 1 << 20, Gatherer: &source{}, CA: tc.ca, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = p.Run(ended)
		}
		if err != nil || len(to.got) != tc.taken {
			t.Errorf("CA %q: %v, %v, want %d samples", tc.ca, err, to.got, tc.taken)
		}
	}
}

func TestNew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"good":             {func(*Config) {}, ""},
		"no scheme":        {func(c *Config) { c.URL = "hub:9779/api/v1/write" }, "it must be as https://hub:9779/api/v1/write"},
		"no host":          {func(c *Config) { c.URL = "http:///api" }, "it must be as https://"},
		"no URL":           {func(c *Config) { c.URL = "http://[::1" }, "missing ']' in host"},
		"a user in it":     {func(c *Config) { c.URL = "http://me:secret@hub/" }, `"http://me:xxxxx@hub/": the user and its password go elsewhere`},
		"protocol":         {func(c *Config) { c.Protocol = "3" }, `protocol "3": it must be 1.0 or 2.0`},
		"short interval":   {func(c *Config) { c.Interval = 999 * time.Millisecond }, "from 1s to 2m"},
		"long interval":    {func(c *Config) { c.Interval = 121 * time.Second }, "from 1s to 2m"},
		"small buffer":     {func(c *Config) { c.Buffer = 65535 }, "at least 65536"},
		"user alone":       {func(c *Config) { c.User = "pi" }, "a user needs a password file"},
		"password alone":   {func(c *Config) { c.PasswordFile = file }, "a user needs a password file"},
		"password missing": {func(c *Config) { c.User, c.PasswordFile = "pi", dir+"/none" }, "no such file"},
		"CA missing":       {func(c *Config) { c.CA = dir + "/none" }, "certificates to trust: open"},
		"CA is none":       {func(c *Config) { c.CA = file }, "has none in PEM format"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{URL: "https://hub:9779/api/v1/write", Protocol: "1.0", Interval: time.Second, Buffer: 65536}
			tc.change(&cfg)
			_, err := New(cfg)
			if text := fmt.Sprint(err); (err == nil) != (tc.want == "") || !strings.Contains(text, tc.want) || strings.Contains(text, "secret") {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// FuzzAnswer reads what a receiver says.
func FuzzAnswer(f *testing.F) {
	f.Add(204, "", "10", "", []byte(""), 10, true)
	f.Add(429, "30", "", "", []byte("slow\ndown"), 1, false)
	f.Add(503, "Wed, 21 Oct 2015 07:28:00 GMT", "-1", "4294967296", []byte("\xff"), 3, true)
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, after, samples, histograms string, text []byte, sent int, two bool) {
		if sent < 1 {
			return
		}
		header := http.Header{}
		header.Set("Retry-After", after)
		header.Set("X-Prometheus-Remote-Write-Samples-Written", samples)
		header.Set("X-Prometheus-Remote-Write-Histograms-Written", histograms)
		p := &Pusher{two: two}
		a := p.read(status, header, text, sent, now)
		switch {
		case a.taken < 0 || a.taken > sent || a.after < 0:
			t.Errorf("%+v of %d", a, sent)
		case a.again && (a.err == nil || a.taken != 0):
			t.Errorf("%+v is to be repeated", a)
		case !a.again && a.err == nil && a.taken != sent:
			t.Errorf("%+v is well, of %d", a, sent)
		case a.err != nil && (strings.ContainsAny(a.err.Error(), "\r\n") || !utf8.ValidString(a.err.Error())):
			t.Errorf("not one line: %q", a.err)
		}
	})
}
