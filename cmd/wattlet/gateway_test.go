package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/kubesim"
	"github.com/wattlet/wattlet/internal/workload"
)

// A function without a watchdog has its invocations from the gateway, once, over a restart of the gateway; a function with pods on
// other nodes has none.
func TestGatewayCounts(t *testing.T) {
	t.Parallel()
	g, args := startGroups(t)
	c := startCluster(t, kubesim.Options{})
	for i, f := range []string{"", "burn", "wide"} {
		if f != "" {
			p := testPod(i, f)
			p.IP = fmt.Sprintf("127.0.2.%d", i)
			c.Apply(p)
			g.add(testUID(i), 0)
		}
	}
	var calls atomic.Int64
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for f, replicas := range map[string]int{"burn": 1, "wide": 2} {
			n := calls.Load()
			fmt.Fprintf(w, "gateway_function_invocation_started{function_name=\"%s.openfaas-fn\"} %d\n", f, n)
			fmt.Fprintf(w, "gateway_function_invocation_total{code=\"200\",function_name=\"%s.openfaas-fn\"} %d\n", f, n)
			fmt.Fprintf(w, "gateway_service_count{function_name=\"%s.openfaas-fn\"} %d\n", f, replicas)
		}
	}))
	t.Cleanup(gateway.Close)
	calls.Store(1000)
	// Nobody is at port 1 of loopback.
	p := startAgent(t, slices.Concat(args, c.args, []string{"--kube=watch", "--kube.watchdog-port=1", "--gateway.url=" + gateway.URL + "/metrics"})...)
	p.wait("functions have names, and the gateway is asked", func() bool {
		a := parts(t, p.snapshot())
		return functionOf(a, "burn") != nil && functionOf(a, "wide") != nil && p.scrape()[`wattlet_source_last_success_timestamp_seconds{node="pi",source="gateway"}`] > 0
	})
	p.passes(2 * time.Second) // its pods' watchdogs are asked three times
	count := func(want float64) {
		t.Helper()
		p.wait(fmt.Sprintf("burn has %v invocations", want), func() bool {
			g.add(testUID(1), 5*time.Millisecond)
			f := functionOf(parts(t, p.snapshot()), "burn")
			if f.Invocations > want {
				t.Fatalf("%v invocations, want %v", f.Invocations, want)
			}
			return f.Invocations == want
		})
	}
	calls.Add(30)
	count(30)
	calls.Store(7) // it has started anew
	count(37)
	if f := functionOf(parts(t, p.snapshot()), "wide"); f.Invocations != 0 {
		t.Errorf("a function with pods elsewhere has %v invocations", f.Invocations)
	}
	gateway.CloseClientConnections()
	gateway.Close()
	p.wait("its failures count", func() bool { return p.scrape()[`wattlet_source_errors_total{node="pi",source="gateway"}`] > 1 })
	count(37)
}

// What one source has counted another does not count again.
func TestSwitchover(t *testing.T) {
	t.Parallel()
	var s switchover
	var got workload.Activity
	from := map[int]func(workload.Activity){}
	for _, source := range []int{watchdogs, gateways} {
		from[source] = s.from(source, func(a workload.Activity) { got = a })
	}
	for i, step := range []struct {
		source               int
		id                   workload.ID
		started, completed   int64
		wantStart, wantCompl int64
	}{
		{gateways, "a", 0, 0, 0, 0},
		{gateways, "a", 6, 5, 6, 5},
		{watchdogs, "a", 1000, 999, 6, 5}, // since the pod's start
		{watchdogs, "a", 1003, 1003, 9, 9},
		{watchdogs, "b", 40, 40, 40, 40},
		{gateways, "a", 2, 2, 9, 9},
		{gateways, "a", 4, 3, 11, 10},
	} {
		from[step.source](workload.Activity{ID: step.id, Started: step.started, Completed: step.completed})
		if got.Started != step.wantStart || got.Completed != step.wantCompl {
			t.Errorf("step %d: %+v", i, got)
		}
	}
	for i := range 2 * maxCarried {
		from[watchdogs](workload.Activity{ID: workload.ID(fmt.Sprint(i))})
	}
	if n := len(s.last); n > maxCarried+1 {
		t.Errorf("%d are remembered", n)
	}
	from[gateways](workload.Activity{ID: "a", Started: 5, Completed: 4})
	if got.Started != 12 || got.Completed != 11 {
		t.Errorf("a carried one was forgotten: %+v", got)
	}
}

// Watchdogs that are configured or have answered come first; while a pod has not been asked nobody knows.
func TestServed(t *testing.T) {
	t.Parallel()
	d := &directory{port: 8081, static: []rawFunction{
		{Workload: "x/watched", Namespace: "n", Function: "watched", Watchdog: "http://127.0.0.1:1/metrics"},
		{Workload: "x/without*", Namespace: "n", Function: "without"},
	}}
	var seen []workload.Workload
	for _, id := range []workload.ID{"x/watched", "x/without1", "x/without2", "system.slice"} {
		seen = append(seen, d.describe(id))
	}
	got := d.served(seen, []activity.Status{{Target: activity.Target{ID: "x/watched"}}})
	if len(got) != 2 || !got[0].Watched || got[0].Name != "watched" || got[1].Watched || got[1].Undecided || len(got[1].Workloads) != 2 {
		t.Errorf("%+v", got)
	}
	maybe := func(polls uint64, last time.Duration) activity.Served {
		s := d.served(seen[1:2], []activity.Status{{Target: activity.Target{ID: "x/without1", Maybe: true}, Polls: polls, LastSuccess: last}})
		return s[0]
	}
	if s := maybe(decided-1, 0); !s.Undecided || s.Watched {
		t.Errorf("%+v", s)
	}
	if s := maybe(decided, 0); s.Undecided || s.Watched {
		t.Errorf("%+v", s)
	}
	if s := maybe(1, time.Second); !s.Watched {
		t.Errorf("%+v", s)
	}
}
