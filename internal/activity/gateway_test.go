package activity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// gatewayRig is a Gateway with replicas that are texts, and a node that is a list.
type gatewayRig struct {
	*Gateway
	t       *testing.T
	pods    pods
	now     time.Duration
	here    []Served
	counted map[workload.ID]int64 // what an account would have counted, as accounting does
	last    map[workload.ID]workload.Activity
	errors  []error
	names   map[string][]string // the addresses of names; others are addresses
}

func newGatewayRig(t *testing.T, hosts ...string) *gatewayRig {
	t.Helper()
	r := &gatewayRig{t: t, counted: map[workload.ID]int64{}, last: map[workload.ID]workload.Activity{}}
	cfg := GatewayConfig{
		Functions: func() []Served { return r.here }, Uptime: func() time.Duration { return r.now },
		Report: func(err error) { r.errors = append(r.errors, err) },
		Resolve: func(_ context.Context, host string) ([]string, error) {
			switch addresses, known := r.names[host]; {
			case !known:
				return []string{host}, nil
			case addresses == nil:
				return nil, errors.New("no such host")
			default:
				return addresses, nil
			}
		},
	}
	for _, h := range hosts {
		cfg.URLs = append(cfg.URLs, "http://"+h+"/metrics")
	}
	g, err := NewGateway(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Gateway = g
	return r
}

// fn is what a gateway says of a function.
type fn struct {
	name     string
	started  int
	codes    map[string]int
	replicas int // negative: does not say
}

func (r *gatewayRig) say(host string, fs ...fn) {
	var b strings.Builder
	b.WriteString("# HELP gateway_functions_seconds Function time taken\n# TYPE gateway_functions_seconds histogram\n" +
		"# TYPE gateway_function_invocation_total counter\ngo_goroutines 12\nprocess_open_fds 3\n")
	for _, f := range fs {
		for _, code := range slices.Sorted(maps.Keys(f.codes)) {
			fmt.Fprintf(&b, "gateway_functions_seconds_bucket{code=%q,function_name=%q,le=\"0.005\"} 1\n", code, f.name)
			fmt.Fprintf(&b, "gateway_function_invocation_total{code=%q,function_name=%q} %d\n", code, f.name, f.codes[code])
		}
		fmt.Fprintf(&b, "gateway_function_invocation_started{function_name=%q} %d\n", f.name, f.started)
		if f.replicas >= 0 {
			fmt.Fprintf(&b, "gateway_service_count{function_name=%q} %d\n", f.name, f.replicas)
		}
	}
	r.pods.set(host, func(*http.Request) (string, error) { return b.String(), nil })
}

// round asks once, a second later.
func (r *gatewayRig) round() {
	r.t.Helper()
	r.now += time.Second
	_, err := r.Gateway.round(r.t.Context(), &http.Client{Transport: &r.pods}, nil, func(a workload.Activity) {
		before, known := r.last[a.ID]
		if known && a.At <= before.At {
			r.t.Errorf("%+v after %+v", a, before)
		}
		if known {
			r.counted[a.ID] += max(0, a.Completed-before.Completed)
		} else {
			r.counted[a.ID] += a.Completed
		}
		if a.InFlight < 0 || a.Started-a.Completed != a.InFlight {
			r.t.Errorf("%+v", a)
		}
		r.last[a.ID] = a
	})
	r.Gateway.report(err)
}

func (r *gatewayRig) want(want map[workload.ID]int64) {
	r.t.Helper()
	for id, n := range r.counted {
		if n != want[id] {
			r.t.Errorf("%v: %s has %d, want %d", r.now, id, n, want[id])
		}
	}
	for id := range want {
		if _, ok := r.counted[id]; !ok {
			r.t.Errorf("%v: %s has none, want %d", r.now, id, want[id])
		}
	}
}

func ok(n int) map[string]int { return map[string]int{"200": n} }

// Calls of a function that has all its replicas here are counted once, whichever pod stands for it; failed ones and those of others not.
func TestGateway(t *testing.T) {
	r := newGatewayRig(t, "gw")
	r.here = []Served{{Namespace: "openfaas-fn", Name: "gzip", Workloads: []workload.ID{"a"}}}
	r.say("gw", fn{"gzip.openfaas-fn", 102, ok(100), 1}, fn{"gzip.other", 50, ok(50), 1}, fn{"nobody.openfaas-fn", 9, map[string]int{"404": 9}, -1})
	r.round()
	if a := r.last["a"]; a.InFlight != 2 || a.Completed != 0 {
		t.Errorf("%+v", a)
	}
	r.say("gw", fn{"gzip.openfaas-fn", 115, map[string]int{"200": 107, "500": 2, "503": 3, "502": 1, "504": 1}, 1}, fn{"gzip.other", 60, ok(60), 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 9})
	if a := r.last["a"]; a.InFlight != 1 {
		t.Errorf("%+v", a)
	}
	// Another pod comes, and the first goes.
	r.here[0].Workloads = []workload.ID{"a", "b"}
	r.say("gw", fn{"gzip.openfaas-fn", 119, map[string]int{"200": 112, "500": 2, "503": 5}, 2})
	r.round()
	r.here[0].Workloads = []workload.ID{"b"}
	r.say("gw", fn{"gzip.openfaas-fn", 123, map[string]int{"200": 116, "500": 2, "503": 5}, 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 14, "b": 4})
	// It goes to sleep, and is woken by a call that it serves between two rounds.
	r.here = nil
	r.round()
	r.here = []Served{{Namespace: "openfaas-fn", Name: "gzip", Workloads: []workload.ID{"c"}}}
	r.say("gw", fn{"gzip.openfaas-fn", 124, map[string]int{"200": 117, "500": 2, "503": 5}, 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 14, "b": 4, "c": 1})
	if n := len(r.functions); n != 1 {
		t.Errorf("%d functions", n)
	}
}

// With pods on other nodes nobody knows whose the calls are, and none is taken; a number that is late does no harm.
func TestGatewayOfSeveralNodes(t *testing.T) {
	r := newGatewayRig(t, "gw")
	r.here = []Served{{Namespace: "n", Name: "f", Workloads: []workload.ID{"a"}}}
	calls := 0
	rounds := func(n, replicas int) {
		for range n {
			calls++
			r.say("gw", fn{"f.n", calls, ok(calls), replicas})
			r.round()
		}
	}
	rounds(5, 1)
	r.want(map[workload.ID]int64{"a": 4})
	rounds(5, 2) // late: its calls are ours
	rounds(1, 1)
	r.want(map[workload.ID]int64{"a": 10})
	rounds(20, 2) // really
	r.want(map[workload.ID]int64{"a": 10})
	rounds(3, 1)
	r.want(map[workload.ID]int64{"a": 12}) // those in between are nobody's
	rounds(20, -1)
	rounds(1, 1)
	rounds(1, 1)
	r.want(map[workload.ID]int64{"a": 13})
}

// A function whose watchdog answers is the watchdog's; while nobody knows, calls wait.
func TestGatewayAndWatchdogs(t *testing.T) {
	r := newGatewayRig(t, "gw")
	r.here = []Served{{Namespace: "n", Name: "f", Workloads: []workload.ID{"a"}, Undecided: true}}
	say := func(n int) { r.say("gw", fn{"f.n", n, ok(n), 1}); r.round() }
	say(10)
	say(13)
	r.want(nil)
	r.here[0].Undecided = false
	say(15)
	r.want(map[workload.ID]int64{"a": 5})
	r.here[0].Watched = true
	say(20)
	r.want(map[workload.ID]int64{"a": 5})
	r.here[0].Watched = false
	say(22)
	r.want(map[workload.ID]int64{"a": 7})
}

// Replicas of the gateway count apart and start anew on their own; with one of them away the calls of all come later.
func TestGatewayReplicas(t *testing.T) {
	r := newGatewayRig(t, "one", "two")
	r.here = []Served{{Namespace: "n", Name: "f", Workloads: []workload.ID{"a"}}}
	r.say("one", fn{"f.n", 10, ok(10), 1})
	r.say("two", fn{"f.n", 20, ok(20), 1})
	r.round()
	r.say("one", fn{"f.n", 13, ok(13), 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 3})
	r.pods.set("one", refuses)
	r.say("two", fn{"f.n", 25, ok(25), 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 3})
	r.say("one") // has started anew, and was not called yet
	r.round()
	r.want(map[workload.ID]int64{"a": 8})
	r.say("one", fn{"f.n", 2, ok(2), 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 10})
	r.say("two", fn{"f.n", 1, ok(1), 1})
	r.round()
	r.want(map[workload.ID]int64{"a": 11})
	if len(r.errors) != 6 || r.errors[2] == nil || r.errors[3] != nil || !strings.Contains(r.errors[2].Error(), "http://one/metrics") {
		t.Errorf("%v", r.errors)
	}
}

// A name stands for all its addresses, which change; what those have counted that are gone is not lost, however long ago, and counts
// once if they come back.
func TestGatewayName(t *testing.T) {
	r := newGatewayRig(t, "gateway-metrics.openfaas:8082", "alias:8082")
	r.here = []Served{{Namespace: "n", Name: "f", Workloads: []workload.ID{"a"}}}
	all := func(addresses ...string) {
		r.names = map[string][]string{"gateway-metrics.openfaas": addresses, "alias": addresses}
	}
	rounds := func(d time.Duration) {
		for end := r.now + d; r.now < end; {
			r.round()
		}
	}
	var hosts []string
	say := func(address string, n int) {
		r.say(address+":8082", fn{"f.n", n, ok(n), 1})
		answer := r.pods.host[address+":8082"]
		r.pods.set(address+":8082", func(req *http.Request) (string, error) { hosts = append(hosts, req.Host); return answer(req) })
	}
	all()
	rounds(2 * time.Second)
	if err := r.errors[0]; err == nil || !strings.Contains(err.Error(), "gateway: no such host") {
		t.Errorf("%v", err)
	}
	all("10.0.0.1", "10.0.0.2")
	say("10.0.0.1", 10)
	say("10.0.0.2", 20)
	rounds(time.Second)
	say("10.0.0.1", 13)
	say("10.0.0.2", 21)
	rounds(time.Second)
	r.want(map[workload.ID]int64{"a": 4})
	if len(hosts) != 4 || hosts[0] != "gateway-metrics.openfaas:8082" {
		t.Errorf("asked %q: both once a round, by the name", hosts)
	}
	// One is replaced by another, which is found as soon as it does not answer.
	all("10.0.0.1", "fd00::3")
	r.pods.set("10.0.0.2:8082", refuses)
	r.say("[fd00::3]:8082", fn{"f.n", 2, ok(2), 1})
	say("10.0.0.1", 14)
	rounds(2 * time.Second)
	r.want(map[workload.ID]int64{"a": 7})
	// The first is out for a while, and comes back with what it had.
	all("fd00::3")
	rounds(30 * time.Second)
	all("10.0.0.1", "fd00::3")
	say("10.0.0.1", 15)
	rounds(15 * time.Second)
	r.want(map[workload.ID]int64{"a": 8})
	// Names cannot be looked up, which is no matter.
	errs := len(r.errors)
	all()
	say("10.0.0.1", 16)
	rounds(30 * time.Second)
	r.want(map[workload.ID]int64{"a": 9})
	for _, err := range r.errors[errs:] {
		if err != nil {
			t.Errorf("%v", err)
		}
	}
	all("fd00::3")
	rounds(2 * time.Hour)
	r.say("[fd00::3]:8082", fn{"f.n", 3, ok(3), 1})
	rounds(time.Second)
	r.want(map[workload.ID]int64{"a": 10})
	if len(r.replicas) != 1 || len(r.gone) != 1 {
		t.Errorf("%d replicas and %d functions of gone ones are kept", len(r.replicas), len(r.gone))
	}
}

// Calls to functions that do not exist make series at the gateway, and do not fill our memory.
func TestGatewayIsBounded(t *testing.T) {
	r := newGatewayRig(t, "gw")
	for round := range 5 {
		var all []fn
		for i := range 3000 {
			all = append(all, fn{fmt.Sprintf("f%d-%d.n", round, i), 1, map[string]int{"404": 1}, -1})
		}
		r.say("gw", all...)
		r.round()
	}
	if n := len(r.replicas["http://gw/metrics"].epochs); n > maxFunctions {
		t.Errorf("%d functions", n)
	}
	r.here = []Served{{Namespace: "n", Name: "f", Workloads: []workload.ID{"a"}}}
	r.say("gw")
	for range forgotten + 3 {
		r.round()
		r.here = nil
	}
	if len(r.functions) != 0 {
		t.Errorf("%v", r.functions)
	}
}

func TestParseGateway(t *testing.T) {
	for text, want := range map[string]string{
		"gateway_function_invocation_started{function_name=\"f.n\"} 7\ngateway_service_count{function_name=\"f.n\"} 2\n": "map[f.n:{7 0 0 2}]",
		"gateway_function_invocation_total{ code = \"200\" , function_name = \"f.n\", } 7e+06 1700000000\n":              "",
		"gateway_function_invocation_total{code=\"200\",function_name=\"f.n\",} 7e+06 1700000000\n":                      "map[f.n:{0 7000000 7000000 -1}]",
		"gateway_function_invocation_total{code=\"200\",x=\"}\\\"{,\",function_name=\"f.n\"} 1\n":                        "map[f.n:{0 1 1 -1}]",
		"# TYPE gateway_functions_seconds histogram\n":                                                                   "map[]",
		"gateway_functions_seconds_sum{code=\"200\",function_name=\"f.n\"} 0.5\n":                                        "map[]",
		"gateway_function_invocation_total{code=\"200\"} 1\n":                                                            "map[]",
		"gateway_function_invocation_started{function_name=\"f.n\"} 7":                                                   "",
		"gateway_function_invocation_started 7\n":                                                                        "",
		"gateway_function_invocation_started{function_name=\"f.n} 7\n":                                                   "",
		"gateway_function_invocation_started{function_name=\"f.n\"} -7\n":                                                "",
		"gateway_function_invocation_started{function_name=\"f.n\"} 7.5\n":                                               "",
		"http_requests_in_flight 1\n":                                                                                    "",
		"":                                                                                                               "",
		"gateway_function_invocation_started{function_name=\"f\"} 9e15\ngateway_function_invocation_started{function_name=\"f\",x=\"\"} 9e15\n":          "",
		"gateway_function_invocation_total{code=\"200\",function_name=\"a\"} 1\ngateway_function_invocation_total{code=\"503\",function_name=\"a\"} 2\n": "map[a:{0 3 1 -1}]",
	} {
		got, err := parseGateway([]byte(text))
		switch {
		case want == "" && err == nil:
			t.Errorf("%q: %v", text, got)
		case want == "" && !errors.Is(err, errGateway), want != "" && (err != nil || fmt.Sprint(got) != want):
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseGateway(f *testing.F) {
	f.Add([]byte("gateway_function_invocation_total{code=\"200\",function_name=\"f.n\"} 7e+06 1700000000\n"))
	f.Add([]byte("gateway_function_invocation_started{function_name=\"f.n\"} 7\ngateway_service_count{function_name=\"f.n\"} 2\n"))
	f.Add([]byte("gateway_service_count{a=\"\\\\\",function_name=\"f\"} 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseGateway(b)
		if err != nil {
			if all != nil {
				t.Error("counts with an error")
			}
			return
		}
		for name, c := range all {
			if name == "" || len(name) > len(b) || c.completed > c.ended || min(c.started, c.completed) < 0 || c.replicas < -1 || max(c.started, c.ended, c.replicas) > maxCount {
				t.Errorf("%q: %+v", name, c)
			}
		}
	})
}

func TestNewGateway(t *testing.T) {
	good := GatewayConfig{URLs: []string{"http://a/metrics"}, Functions: func() []Served { return nil }, Uptime: func() time.Duration { return 0 }}
	if _, err := NewGateway(good); err != nil {
		t.Error(err)
	}
	for _, urls := range [][]string{nil, {"a:8082"}, {"https://a/metrics"}, {"http:///metrics"}, {"http://:8082/metrics"}, {"http://a/m", "http://a/m"}} {
		bad := good
		bad.URLs = urls
		if _, err := NewGateway(bad); err == nil {
			t.Errorf("%q is taken", urls)
		}
	}
}

// A target that may have no watchdog is asked seldom after a while, is no error and no event; it is asked anew at another turn.
func TestMaybe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rig
		var asked atomic.Int32
		r.set("a", func(*http.Request) (string, error) { asked.Add(1); return "", errors.New("connection refused") })
		r.targets = []Target{{ID: "a", URL: "http://a/metrics", Maybe: true}}
		after := r.run(t)
		after(20 * time.Minute)
		// Each second for half a minute, then after 10, 20, 40, 80, 160, 300 s and so on.
		if n := asked.Load(); n < 35 || n > 42 {
			t.Errorf("asked %d times in 20 minutes", n)
		}
		r.want(t)
		if s := r.Status(); len(s) != 1 || s[0].Errors != 0 || s[0].Polls < 35 || s[0].Up || r.logged() != "" {
			t.Errorf("%+v, log %q", s, r.logged())
		}
		asked.Store(0)
		r.mu.Lock()
		r.targets = []Target{{ID: "a", URL: "http://a/metrics", Maybe: true, Turn: 1}}
		r.mu.Unlock()
		after(3 * time.Second)
		if n := asked.Load(); n < 2 {
			t.Errorf("asked %d times at another turn", n)
		}
		// It has one after all.
		r.set("a", says(1, 4))
		after(time.Second)
		if told := r.take(); len(told) != 2 || !strings.HasSuffix(told[0], "a ready") || !strings.HasSuffix(told[1], "a 1 5 4") {
			t.Errorf("%q", told)
		}
		// A pod that goes fails now and then before it is no target any more, which is not worth a line.
		r.set("a", refuses)
		after(2 * time.Second)
		r.list()
		after(2 * time.Second)
		r.want(t)
		if r.logged() != "" {
			t.Errorf("log %q", r.logged())
		}
	})
}
