package e2e

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// cost is what the agent has used at an instant.
type cost struct {
	at     time.Time
	cpu    float64 // seconds
	rss    float64 // bytes
	series int
}

func agentCost(t *testing.T) cost {
	t.Helper()
	m, err := metrics(t.Context(), agentURL+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	series := 0
	for name := range m {
		if strings.HasPrefix(name, "wattlet_") {
			series++
		}
	}
	return cost{time.Now(), number(t, m, "process_cpu_seconds_total"), number(t, m, "process_resident_memory_bytes"), series}
}

// podTime is the CPU time of all pods. They do nothing but answer the agent, which asks each once a second.
func podTime(t *testing.T, tr *truth) time.Duration {
	t.Helper()
	d, err := tr.counters.read(podGroup)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestChurn has 200 pods, of which one goes and another comes every two seconds, for as long as WATTLET_E2E_CHURN says.
func TestChurn(t *testing.T) {
	if os.Getenv("WATTLET_E2E_CHURN") == "" {
		t.Skip("takes long: make e2e-churn")
	}
	long, err := time.ParseDuration(os.Getenv("WATTLET_E2E_CHURN"))
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t)
	tr := newTruth(t, 2, 3)
	meter := startMeter(t, "127.0.0.1:0", tr)
	startAgent(t, meter, tr, "--kube=cri") // with ticks of 1 s, as is the default
	names := []string{"cpu-bound", "memory-bound", "io-bound", "gzip"}
	var mu sync.Mutex
	var pods []*pod
	add := func(i int) error {
		p, err := n.run(t.Context(), nil, newUID(), podSpec{function: names[i%len(names)], class: "burstable", env: map[string]string{"FUNCTION_LINGER": "0s"}})
		if err == nil {
			mu.Lock()
			pods = append(pods, p)
			mu.Unlock()
		}
		return err
	}
	// What a tick costs, with more and more pods.
	perTick := map[int]float64{}
	for _, want := range []int{50, 100, 200} {
		for len(pods) < want {
			if err := add(len(pods)); err != nil {
				t.Fatal(err)
			}
		}
		settled(t, agentURL, meter, 10*time.Second)
		from, asked := agentCost(t), podTime(t, tr)
		<-time.After(30 * time.Second) // in which nobody asks it anything
		to := agentCost(t)
		each := (podTime(t, tr) - asked).Seconds() / to.at.Sub(from.at).Seconds() / float64(want)
		perTick[want] = (to.cpu - from.cpu) / to.at.Sub(from.at).Seconds()
		t.Logf("%d pods: %.2f ms of CPU time for a tick, %.1f MB, %d series; each pod answers its watchdog's question with %.2f ms",
			want, 1000*perTick[want], to.rss/1e6, to.series, 1000*each)
	}
	if perTick[200] > 1.5*4*perTick[50] {
		t.Errorf("a tick with 200 pods costs %.2f ms, with 50 %.2f ms: more than in proportion", 1000*perTick[200], 1000*perTick[50])
	}

	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	replaced := 0
	begin := agentCost(t)
	var seen []cost
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		first := pods[0]
		pods = slices.Delete(pods, 0, 1)
		if err := first.remove(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := add(replaced); err != nil {
			t.Fatal(err)
		}
		if replaced++; replaced%30 == 0 {
			c := agentCost(t)
			seen = append(seen, c)
			t.Logf("%d pods replaced: %.1f MB, %d series", replaced, c.rss/1e6, c.series)
		}
	}
	end := agentCost(t)
	t.Logf("%d pods replaced in %v: %.1f MB before, %.1f MB after; %.2f ms of CPU time a tick; %d series before, %d after",
		replaced, long, begin.rss/1e6, end.rss/1e6, 1000*(end.cpu-begin.cpu)/end.at.Sub(begin.at).Seconds(), begin.series, end.series)
	// Pods that are gone stay known for ten minutes, 1 kB each, and in the accounts for a while: growth has to come to an end.
	if half := len(seen) / 2; half > 0 && end.rss > seen[half].rss+2e6 {
		t.Errorf("memory has grown by %.1f MB in the second half", (end.rss-seen[half].rss)/1e6)
	}
	s := settled(t, agentURL, meter, 5*time.Second)
	if a := s.Nodes[0].Attribution; a.InvariantUJ != 0 {
		t.Errorf("the parts and the whole differ by %d µJ", a.InvariantUJ)
	}
}
