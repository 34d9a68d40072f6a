package activity

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const idle = "http_requests_in_flight 0\n"

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want counts
	}{
		"of-watchdog 0.9, over a million":  {string(read(t, "of-watchdog-0.9.prom")), counts{3, 1234600}},
		"of-watchdog 0.11, several labels": {string(read(t, "of-watchdog-0.11.prom")), counts{0, 43}},
		"classic, nothing served yet":      {string(read(t, "classic-watchdog.prom")), counts{1, 0}},
		"a round million":                  {idle + "http_requests_total{code=\"200\"} 1e+06\n", counts{0, 1e6}},
		"no labels, timestamp, blanks":     {" http_requests_total\t7 -1395066363000 \r\n" + idle, counts{0, 7}},
		"blanks around labels":             {idle + "http_requests_total {code=\"200\" , } 7\n", counts{0, 7}},
		"brace and quote in a label":       {idle + `http_requests_total{method="} 9 \"x\\"} 4` + "\n", counts{0, 4}},
		"longer and other names": {idle + "http_requests_total_created 5\nhttp_requests_totals 5\nhttp_requests_ 5\n" +
			"xhttp_requests_total 5\nhttp_requests_in_flight_max 5\n", counts{}},
		"2^53": {idle + "http_requests_total 9007199254740992\n", counts{0, 1 << 53}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parse([]byte(tc.text)); err != nil || got != tc.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"nothing":           {"", "it is empty: "},
		"cut off":           {idle + "http_requests_total 12", "ends within a line"},
		"a web page":        {"<html><body>figlet</body></html>\n", "no http_requests_in_flight"},
		"another exporter":  {"http_requests_total{path=\"/\"} 5\n", "no http_requests_in_flight"},
		"NaN":               {"http_requests_in_flight NaN\n", `sample "http_requests_in_flight NaN"`},
		"infinite":          {"http_requests_in_flight +Inf\n", "sample"},
		"negative":          {"http_requests_in_flight -1\n", "sample"},
		"a fraction":        {"http_requests_in_flight 0.5\n", "sample"},
		"no value":          {"http_requests_in_flight \n", "sample"},
		"no value, labels":  {idle + "http_requests_total{code=\"200\"}\n", "sample"},
		"open label":        {idle + "http_requests_total{code=\"200} 5\n", "sample"},
		"above 2^53":        {idle + "http_requests_total 9007199254740994\n", "sample"},
		"sum above 2^53":    {idle + "http_requests_total 9007199254740992\nhttp_requests_total{a=\"\"} 1\n", "sample"},
		"no timestamp":      {"http_requests_in_flight 1 soon\n", "sample"},
		"a lone minus":      {"http_requests_in_flight 1 -\n", "sample"},
		"one field more":    {"http_requests_in_flight 1 2 3\n", "sample"},
		"too long a number": {"http_requests_in_flight 0" + strings.Repeat("0", maxNumber) + "\n", "sample"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse([]byte(tc.text))
			if !errors.Is(err, errFormat) || !strings.Contains(err.Error(), tc.want) || got != (counts{}) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tc.want)
			}
		})
	}
}

// TestParseClientLibrary reads what the Go client writes of a handler that is counted as the watchdogs count theirs.
func TestParseClientLibrary(t *testing.T) {
	reg := prometheus.NewRegistry()
	total := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "x"}, []string{"code", "method"})
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "http_requests_in_flight", Help: "y"})
	reg.MustRegister(total, gauge)
	metrics := promhttp.InstrumentMetricHandler(reg, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	scrape := func() counts {
		w := httptest.NewRecorder()
		metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		c, err := parse(w.Body.Bytes())
		if err != nil {
			t.Fatalf("%v in\n%s", err, w.Body)
		}
		return c
	}
	if got := scrape(); got != (counts{}) {
		t.Errorf("at first %+v", got)
	}
	var within counts
	function := promhttp.InstrumentHandlerInFlight(gauge, promhttp.InstrumentHandlerCounter(total,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			within = scrape()
			w.WriteHeader(map[string]int{http.MethodGet: 200, http.MethodPost: 500}[r.Method])
		})))
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodGet} {
		function.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/", nil))
	}
	if want := (counts{inFlight: 1, completed: 2}); within != want {
		t.Errorf("while the third is served: %+v, want %+v", within, want)
	}
	total.WithLabelValues("200", "get").Add(2e6)
	if got, want := scrape(), (counts{completed: 2000003}); got != want {
		t.Errorf("in the end %+v, want %+v", got, want)
	}
}

func TestExposer(t *testing.T) {
	w := httptest.NewRecorder()
	Exposer(func() (int64, map[Series]int64) {
		return 2, map[Series]int64{{500, "POST"}: 1, {200, "POST"}: 1000000, {200, `a"\`}: 4}
	}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	const want = `# HELP http_requests_in_flight total HTTP requests in-flight
# TYPE http_requests_in_flight gauge
http_requests_in_flight 2
# HELP http_requests_total total HTTP requests processed
# TYPE http_requests_total counter
http_requests_total{code="200",method="post"} 1e+06
http_requests_total{code="200",method="a\"\\"} 4
http_requests_total{code="500",method="post"} 1
`
	if got := w.Body.String(); got != want {
		t.Errorf("got\n%s", got)
	}
	if c, err := parse(w.Body.Bytes()); err != nil || c != (counts{2, 1000005}) {
		t.Errorf("read back: %+v, %v", c, err)
	}
	if c, err := parse(AppendText(nil, 0, nil)); err != nil || c != (counts{}) {
		t.Errorf("nothing served, read back: %+v, %v", c, err)
	}
}

func TestEpoch(t *testing.T) {
	var e epoch
	for i, tc := range []struct {
		in                counts
		started, complete int64
		restarted         bool
	}{
		{counts{2, 10}, 12, 10, false},
		{counts{0, 12}, 12, 12, false},
		{counts{3, 12}, 15, 12, false},
		{counts{1, 13}, 15, 13, false}, // between counter and gauge one ended: started waits
		{counts{2, 14}, 16, 14, false},
		{counts{0, 0}, 16, 16, true}, // killed 2
		{counts{1, 4}, 21, 20, false},
		{counts{0, 3}, 24, 24, true},
		{counts{0, maxCount}, 21 + maxCount, 21 + maxCount, false},
	} {
		if got := e.fold(tc.in); got != tc.restarted || e.started != tc.started || e.complete != tc.complete {
			t.Errorf("%d: %+v: started %d, completed %d, restarted %v; want %+v", i, tc.in, e.started, e.complete, got, tc)
		}
	}
	for range 5000 { // 2500 times 2^53 are more than 2^63
		before := e
		e.fold(counts{maxCount, maxCount})
		e.fold(counts{})
		if e.started < before.started || e.complete < before.complete || e.complete > e.started {
			t.Fatalf("fell from %+v to %+v", before, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"of-watchdog-0.9.prom", "of-watchdog-0.11.prom", "classic-watchdog.prom"} {
		f.Add(read(f, name))
	}
	f.Add([]byte(idle + `http_requests_total{method="} 9 \"x\\"} 4` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b)
		if err != nil {
			if !errors.Is(err, errFormat) || c != (counts{}) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v, %v", c, err)
			}
			return
		}
		if min(c.inFlight, c.completed) < 0 || max(c.inFlight, c.completed) > maxCount {
			t.Errorf("%+v", c)
		}
		// One request more of another kind is one more; what it follows does not matter.
		more, err := parse(append(slices.Clip(b), "http_requests_total{code=\"200\"} 1\n"...))
		if want := (counts{c.inFlight, c.completed + 1}); c.completed < maxCount && (err != nil || more != want) {
			t.Errorf("%+v, %v; want %+v", more, err, want)
		}
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	b := read(t, "of-watchdog-0.9.prom")
	if n := testing.AllocsPerRun(100, func() { _, _ = parse(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	text := read(b, "of-watchdog-0.9.prom")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
