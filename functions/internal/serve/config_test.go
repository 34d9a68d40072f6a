package serve

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestFromEnvironment(t *testing.T) {
	f := Function{Name: "f", InFlight: 3}
	alone := Config{Listen: ":8080", Metrics: ":8081", InFlight: 3, Timeout: time.Minute, Linger: 2 * time.Second, Drain: 25 * time.Second}
	with := func(change func(*Config)) Config {
		cfg := alone
		change(&cfg)
		return cfg
	}
	for name, tc := range map[string]struct {
		environ string
		want    Config
		fault   string
	}{
		"nothing":           {"HOME=/ PATH=/bin", alone, ""},
		"all":               {"FUNCTION_LISTEN=127.0.0.1:1 FUNCTION_METRICS_LISTEN=2 FUNCTION_MAX_INFLIGHT=4 FUNCTION_TIMEOUT=5s FUNCTION_LINGER=0s FUNCTION_DRAIN=6s", Config{"127.0.0.1:1", ":2", 4, 5 * time.Second, 0, 6 * time.Second}, ""},
		"no metrics":        {"FUNCTION_METRICS_LISTEN=off", with(func(c *Config) { c.Metrics = "" }), ""},
		"IPv6":              {"FUNCTION_LISTEN=[::1]:80", with(func(c *Config) { c.Listen = "[::1]:80" }), ""},
		"watchdog":          {"mode=http fprocess=/f upstream_url=http://127.0.0.1:8082", with(func(c *Config) { c.Listen, c.Metrics, c.Linger = "127.0.0.1:8082", "", 0 }), ""},
		"watchdog, but":     {"fprocess=/f upstream_url=http://127.0.0.1:8082 FUNCTION_LISTEN=127.0.0.1:9", with(func(c *Config) { c.Listen, c.Metrics, c.Linger = "127.0.0.1:9", "", 0 }), ""},
		"classic watchdog":  {"fprocess=/f", alone, ""},
		"watchdog's fault":  {"fprocess=/f upstream_url=8082", Config{}, "upstream_url="},
		"unknown":           {"FUNCTION_LISTENS=1", Config{}, `FUNCTION_LISTENS="1": there is no such setting`},
		"no port":           {"FUNCTION_LISTEN=http", Config{}, "want a port"},
		"no port for it":    {"FUNCTION_METRICS_LISTEN=70000", Config{}, "want a port"},
		"nobody":            {"FUNCTION_MAX_INFLIGHT=0", Config{}, "want how many"},
		"no unit":           {"FUNCTION_TIMEOUT=30", Config{}, "want a time from 1ms to 1h"},
		"never":             {"FUNCTION_TIMEOUT=0s", Config{}, "want a time from 1ms to 1h"},
		"into the past":     {"FUNCTION_DRAIN=-1s", Config{}, "want a time from 0s to 1h"},
		"longer than a day": {"FUNCTION_LINGER=25h", Config{}, "want a time"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromEnvironment(f, strings.Fields(tc.environ))
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) {
					t.Errorf("%v, want %s", err, tc.fault)
				}
			} else if err != nil || got != tc.want {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func TestQuery(t *testing.T) {
	for query, want := range map[string]string{
		"":               "5 a",
		"n=1&word=b":     "1 b",
		"n=10":           "10 a",
		"n=11":           `parameter n="11": want a whole number from 1 to 10`,
		"n=0":            `parameter n="0": want`,
		"n=":             `parameter n="": want`,
		"n=1e0":          `parameter n="1e0": want`,
		"n=1&n=1":        "parameter n is there 2 times",
		"word=c":         `parameter word="c": want one of a, b`,
		"m=1":            `parameter "m" is unknown: this function has n, word`,
		"n=1;word=b":     "query: invalid semicolon",
		"n=%zz":          "query: invalid URL escape",
		"word=%0a&n=1":   `parameter word="\n": want one of`,
		"n=999999999999": "want a whole number",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		q := NewQuery(r)
		n, word := q.Int("n", 5, 1, 10), q.Choice("word", "a", "b")
		got := strings.Join([]string{map[int]string{1: "1", 5: "5", 10: "10"}[n], word}, " ")
		if err := q.Err(); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) && !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

// Whatever is in a query, what comes of it is within bounds, and an error is one line.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "n=3", "n=11&word=b", "n=%zz", "a=1&n=2", "n=1\n;x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		q := NewQuery(r)
		if n := q.Int("n", 5, 1, 10); n < 1 || n > 10 {
			t.Errorf("n=%d", n)
		}
		if w := q.Choice("word", "a", "b"); w != "a" && w != "b" {
			t.Errorf("word=%s", w)
		}
		if err := q.Err(); err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 5000+len(query)) {
			t.Errorf("%q", err)
		}
	})
}
