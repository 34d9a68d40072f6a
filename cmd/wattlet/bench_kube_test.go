package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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

// benchmarkWatchdogs measures what it costs the agent to ask the watchdogs of more and more pods each second, beside one that asks
// none. Pods have an address of the loopback network each.
func benchmarkWatchdogs(b *testing.B, table io.Writer) {
	b.Helper()
	const settle, rest = 5 * time.Second, 10 * time.Second
	counts := []int{50, 100, 200}
	var heads, asking, silent, rss, quiet []string
	for b.Loop() {
		for _, pods := range counts {
			b.Run(fmt.Sprintf("%d_pods", pods), func(b *testing.B) {
				g, args := startGroups(b)
				c := startCluster(b, kubesim.Options{Bookmarks: 5 * time.Second})
				port := startWatchdogs(b, pods)
				for i := range pods {
					g.add(testUID(i), 0)
					p := testPod(i, fmt.Sprint("f", i%20))
					p.IP = watchdogIP(i)
					c.Apply(p)
				}
				path, err := binary()
				if err != nil {
					b.Fatal(err)
				}
				args = append(append([]string{"--state.directory=", "--kube=watch"}, args...), c.args...)
				args = append(args, "--tick=1s", "--activity.interval=1s")
				programs := []*program{
					start(b, "asking", path, append(args, "--kube.watchdog-port="+port)...), start(b, "silent", path, append(args, "--kube.watchdog-port=0")...),
				}
				<-time.After(settle)
				for _, p := range programs {
					p.rest = ms(p.cpu(b))
				}
				tick, end := time.NewTicker(100*time.Millisecond), time.After(rest)
				defer tick.Stop()
				for n, over := 0, false; !over; n++ {
					select {
					case <-tick.C:
						g.add(testUID(n%pods), 10*time.Millisecond)
					case <-end:
						over = true
					}
				}
				for _, p := range programs {
					p.rest = (ms(p.cpu(b)) - p.rest) / ms(rest) * 100
					p.memory(b)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(programs[0].rest, "%-of-a-core")
				b.ReportMetric(programs[0].rss, "RSS-MiB")
				heads = append(heads, fmt.Sprint(pods, " pods"))
				for i, to := range []*[]string{&asking, &silent} {
					*to = append(*to, fmt.Sprintf("%.2f %%", programs[i].rest))
				}
				for i, to := range []*[]string{&rss, &quiet} {
					*to = append(*to, fmt.Sprintf("%.1f MiB", programs[i].rss))
				}
			})
		}
	}
	row(table, "\nwatchdogs, asked each second", heads...)
	row(table, "CPU, of one core", asking...)
	row(table, "  without asking", silent...)
	row(table, "memory (RSS)", rss...)
	row(table, "  without asking", quiet...)
}

func watchdogIP(i int) string { return fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250) }

// startWatchdogs serves what an of-watchdog serves, at one port of so many addresses, and as it does closes connections that are idle for
// half a second.
func startWatchdogs(b *testing.B, n int) (port string) {
	b.Helper()
	text, err := os.ReadFile("../../internal/activity/testdata/of-watchdog-0.11.prom")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{
		IdleTimeout: 500 * time.Millisecond, ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			_, _ = io.Copy(w, bytes.NewReader(text)) // the agent sees what is missing
		}),
	}
	b.Cleanup(func() { _ = s.Close() })
	port = "0"
	for i := range n {
		l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", net.JoinHostPort(watchdogIP(i), port))
		if err != nil {
			b.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String()) // which has a port
		go func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				b.Error(err)
			}
		}()
	}
	return port
}
