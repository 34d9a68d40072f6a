package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/metersim"
)

// benchmarkAttribution measures what splitting costs the agent with more and more pods at ticks of 100 ms, beside one on the same
// meter that does not split.
func benchmarkAttribution(b *testing.B, table io.Writer) {
	b.Helper()
	const settle, rest = 5 * time.Second, 15 * time.Second
	row(table, "\nsplitting, ticks of 100 ms", "10 pods", "50 pods", "200 pods")
	var cpu, plain, rss, series []string
	for b.Loop() {
		for _, pods := range []int{10, 50, 200} {
			b.Run(fmt.Sprintf("%d_pods", pods), func(b *testing.B) {
				on, off := startSplitting(b, pods)
				<-time.After(settle)
				programs := []*program{on, off}
				for _, p := range programs {
					p.rest = ms(p.cpu(b))
				}
				<-time.After(rest)
				for _, p := range programs {
					p.rest = (ms(p.cpu(b)) - p.rest) / ms(rest) * 100
					p.series = len(samples(p.get(b, "/metrics", "identity")))
					p.memory(b)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(on.rest, "%-of-a-core")
				b.ReportMetric(on.rss, "RSS-MiB")
				cpu = append(cpu, fmt.Sprintf("%.2f %%", on.rest))
				plain = append(plain, fmt.Sprintf("%.2f %%", off.rest))
				rss = append(rss, fmt.Sprintf("%.1f MiB", on.rss))
				series = append(series, fmt.Sprint(on.series))
			})
		}
	}
	row(table, "CPU, of one core", cpu...)
	row(table, "  without splitting", plain...)
	row(table, "memory (RSS)", rss...)
	row(table, "series in a scrape", series...)
}

// startSplitting runs a board with pods, and two agents on its meter, the second without splitting.
func startSplitting(b *testing.B, pods int) (on, off *program) {
	b.Helper()
	scenario, err := boardsim.Preset(fmt.Sprintf("many:%d", pods))
	if err != nil {
		b.Fatal(err)
	}
	board, err := boardsim.New(boardsim.Options{Board: "jetson-nano", Seed: 1, Scenario: scenario})
	if err != nil {
		b.Fatal(err)
	}
	sim, err := metersim.Listen(metersim.Options{
		PSK: metersim.OneKey("wattlet", testKey), Channels: []metersim.Channel{{Number: 1, Load: board.Load()}},
	})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	tree := &boardsim.Tree{Board: board, Dir: dir, Every: 50 * time.Millisecond, Now: sim.Now}
	if err := tree.Update(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 2)
	go func() { ended <- sim.Run(ctx) }()
	go func() { ended <- tree.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				b.Error(err)
			}
		}
	})
	file := filepath.Join(dir, "functions.yaml")
	text := ""
	for _, w := range board.Workloads() {
		if w.Function != "" {
			text += fmt.Sprintf("- {workload: %q, namespace: %q, function: %q}\n", w.ID, w.Namespace, w.Function)
		}
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	args := []string{
		"--tick=100ms", "--path.proc=" + filepath.Join(dir, "proc"), "--path.sys=" + filepath.Join(dir, "sys"), "--functions.file=" + file,
	}
	return startMeasured(b, sim.URL(), args...), startMeasured(b, sim.URL(), append(args, "--attribution=false")...)
}
