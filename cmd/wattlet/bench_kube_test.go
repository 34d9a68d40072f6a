package main

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/kubesim"
)

// benchmarkKube measures what names of pods cost the agent: side by side, one that follows 110 pods at an API server over TLS, one that
// asks a kubelet for them, and one that does not ask; on one meter and one set of control groups with 110 pods. Two pods change each
// second.
func benchmarkKube(b *testing.B, table io.Writer) {
	b.Helper()
	const pods, settle, rest, rounds = 110, 5 * time.Second, 10 * time.Second, 5
	modes := []string{"off", "watch", "kubelet"}
	rss, anon, cpu := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for range rounds {
			b.Run("round", func(b *testing.B) {
				g, args := startGroups(b)
				c := startCluster(b, kubesim.Options{Bookmarks: 5 * time.Second})
				for i := range pods {
					g.add(testUID(i), 0)
					c.Apply(testPod(i, fmt.Sprint("f", i%20)))
				}
				var programs []*program
				for _, m := range modes {
					path, err := binary()
					if err != nil {
						b.Fatal(err)
					}
					all := append([]string{"--state.directory=", "--kube=" + m, "--kube.kubelet=" + c.http.URL, "--kube.watchdog-port=0"}, append(args, c.args...)...)
					programs = append(programs, start(b, m, path, append(all, "--tick=1s")...))
				}
				<-time.After(settle)
				for _, p := range programs {
					p.rest = ms(p.cpu(b))
				}
				tick := time.NewTicker(500 * time.Millisecond)
				defer tick.Stop()
				n := 0
				for end := time.After(rest); ; {
					select {
					case <-tick.C:
						p := testPod(n%pods, fmt.Sprint("f", n%pods%20))
						p.Ready = n/pods%2 == 1
						c.Apply(p)
						g.add(testUID(n%pods), 10*time.Millisecond)
						n++
						continue
					case <-end:
					}
					break
				}
				for _, p := range programs {
					cpu[p.name] = append(cpu[p.name], (ms(p.cpu(b))-p.rest)/ms(rest)*100)
					p.memory(b)
					rss[p.name] = append(rss[p.name], p.rss)
					anon[p.name] = append(anon[p.name], p.anon)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
	row(table, "\nnames of 110 pods", modes...)
	line := func(what, unit string, of map[string][]float64) {
		var values []string
		for _, m := range modes {
			values = append(values, fmt.Sprintf("%.2f %s", median(of[m]), unit))
		}
		row(table, what, values...)
	}
	line("memory (RSS), median of rounds", "MiB", rss)
	line("  of that anonymous", "MiB", anon)
	line("CPU, of one core", "%", cpu)
}
