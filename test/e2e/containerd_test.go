package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/metersim"
)

// newUID makes a pod's UID.
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// job is a function and how it is called.
type job struct {
	podSpec
	query string
	pause time.Duration // between an answer and the next call
}

// load calls a function again and again until ctx ends, now and then with a longer pause, and returns how often it answered. A call
// that has begun is waited for.
func load(ctx context.Context, url string, pause time.Duration, shift int) (n int, err error) {
	for ctx.Err() == nil {
		if _, err := call(context.WithoutCancel(ctx), url, nil); err != nil {
			return n, err
		}
		n++
		wait := pause
		if (n+shift)%9 == 0 { // functions that never rest at different times cannot be told apart
			wait += 6 * pause
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return n, nil
}

// loadAll calls all functions for a time, and returns how often each has answered.
func loadAll(t *testing.T, jobs []job, url func(job) string, d time.Duration) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	calls := map[string]int{}
	for i, j := range jobs {
		wg.Go(func() {
			n, err := load(ctx, url(j)+j.query, j.pause, 3*i)
			if err != nil {
				t.Errorf("%s: %v", j.function, err)
			}
			mu.Lock()
			defer mu.Unlock()
			calls[j.function] = n
		})
	}
	wg.Wait()
	return calls
}

// agree holds a function's energy against the truth. What is allowed is what the agent itself says it may be wrong by, and no more
// than a part of the energy.
func agree(t *testing.T, f functionAccount, function string, tr *truth) {
	t.Helper()
	want, cpu := tr.of(function)
	got, dev := f.joules(), float64(f.StdDevUJ)/1e6
	t.Logf("%s: %.2f J ± %.2f, the truth is %.2f J for %v of CPU time: %+.1f %%; %v invocations, %d cold starts with %.2f J",
		function, got, dev, want, cpu.Round(time.Millisecond), 100*(got/want-1), f.Invocations, f.ColdStarts, float64(f.ColdStartUJ)/1e6)
	if off := math.Abs(got - want); off > 3*dev || off > 0.12*want || math.IsNaN(off) {
		t.Errorf("%s: %.2f J ± %.2f, the truth is %.2f J", function, got, dev, want)
	}
}

// whole holds the parts against the whole, and what the whole has grown by since another snapshot against the meter's load.
func whole(t *testing.T, meter *metersim.Sim, since, s snapshot) {
	t.Helper()
	n, was := s.Nodes[0], since.Nodes[0]
	a := n.Attribution
	sum := a.BaseUJ + a.DepartedUJ
	for _, w := range a.Workloads {
		sum += w.EnergyUJ + w.ColdStartUJ
	}
	if sum != *n.EnergyUJ || a.InvariantUJ != 0 {
		t.Errorf("the parts are %d µJ, the whole is %d µJ; the agent says they differ by %d µJ", sum, *n.EnergyUJ, a.InvariantUJ)
	}
	from, okFrom := meter.TruthAt(1, meter.BootID(), uint64(was.SourceAtUs))
	to, okTo := meter.TruthAt(1, meter.BootID(), uint64(n.SourceAtUs))
	if want, got := int64(to-from), *n.MeasuredUJ-*was.MeasuredUJ; !okFrom || !okTo || max(want-got, got-want) > 2 {
		t.Errorf("the measured energy has grown by %d µJ, the load was %d µJ", got, want)
	}
}

// number reads a sample of a page of metrics.
func number(t *testing.T, samples map[string]string, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(samples[name], 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// TestContainerd runs functions in pods that are made through the runtime's own interface, as a kubelet makes them.
func TestContainerd(t *testing.T) {
	n := startNode(t)
	tr := newTruth(t, 2, 3)
	meter := startMeter(t, "127.0.0.1:0", tr)
	startAgent(t, meter, tr, "--kube=cri", "--tick=200ms")
	first := settled(t, agentURL, meter, 2*time.Second)

	jobs := []job{
		{podSpec{function: "cpu-bound", class: "burstable", perCore: 3}, "/?below=1500000", 150 * time.Millisecond},
		{podSpec{function: "memory-bound", class: "besteffort", perCore: 3}, "/?steps=4000000", 300 * time.Millisecond},
		{podSpec{function: "short-forked", class: "guaranteed", perCore: 3}, "/?children=20", 200 * time.Millisecond},
	}
	pods := map[string]*pod{}
	for _, j := range jobs {
		p, err := n.run(t.Context(), tr, newUID(), j.podSpec)
		if err != nil {
			t.Fatal(err)
		}
		p.serving(t)
		pods[j.function] = p
	}
	url := func(j job) string { return "http://" + pods[j.function].address + ":8080" }

	t.Run("functions", func(t *testing.T) {
		calls := loadAll(t, jobs, url, 15*time.Second)
		s := settled(t, agentURL, meter, 5*time.Second)
		whole(t, meter, first, s)
		got := s.functions()
		for _, j := range jobs {
			agree(t, got[j.function], j.function, tr)
			if f := got[j.function]; f.Invocations != float64(calls[j.function]) || f.ColdStarts != 1 {
				t.Errorf("%s: %v invocations and %d cold starts, it has answered %d times and was started once", j.function, f.Invocations, f.ColdStarts, calls[j.function])
			}
		}
	})

	t.Run("a pod that lives for two seconds", func(t *testing.T) {
		j := job{podSpec{function: "gzip", class: "burstable", perCore: 3}, "/", 0}
		p, err := n.run(t.Context(), tr, newUID(), j.podSpec)
		if err != nil {
			t.Fatal(err)
		}
		p.serving(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		body := make([]byte, 1<<20)
		for ctx.Err() == nil {
			if _, err := call(t.Context(), "http://"+p.address+":8080/", body); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.remove(t.Context(), tr); err != nil {
			t.Fatal(err)
		}
		s := settled(t, agentURL, meter, 5*time.Second)
		whole(t, meter, first, s)
		agree(t, s.functions()["gzip"], "gzip", tr)
	})

	all := t
	t.Run("the runtime is away", func(t *testing.T) {
		before := settled(t, agentURL, meter, 0).functions()
		const failures = `wattlet_source_errors_total{node="edge1",source="kube"}`
		n.containerd.kill()
		calls := loadAll(t, jobs, url, 3*time.Second)
		eventually(t, "the agent says that it cannot reach the runtime", func() error {
			m, err := metrics(t.Context(), agentURL+"/metrics")
			if err == nil && number(t, m, failures) == 0 {
				err = errors.New("no failure is counted")
			}
			return err
		})
		s := settled(t, agentURL, meter, 3*time.Second)
		whole(t, meter, first, s)
		got := s.functions()
		for _, j := range jobs {
			if f, was := got[j.function], before[j.function]; calls[j.function] > 0 && f.EnergyUJ <= was.EnergyUJ || f.Invocations < was.Invocations+float64(calls[j.function]) {
				t.Errorf("%s: %d µJ and %v invocations, and %d µJ and %v before %d more", j.function, f.EnergyUJ, f.Invocations, was.EnergyUJ, was.Invocations, calls[j.function])
			}
		}
		n.startContainerd(all)
		n.ready(t)
		// What comes now has its name again.
		p, err := n.run(t.Context(), tr, newUID(), podSpec{function: "io-bound", class: "burstable", perCore: 3})
		if err != nil {
			t.Fatal(err)
		}
		p.serving(t)
		eventually(t, "the agent knows a new pod", func() error {
			s, err := readSnapshot(t.Context(), agentURL)
			if _, ok := s.functions()["io-bound"]; err == nil && !ok {
				err = errors.New("it does not")
			}
			return err
		})
	})
}
