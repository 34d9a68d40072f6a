package boardsim

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// preset returns a board with a preset scenario.
func preset(t testing.TB, board, name string, seed uint64) *Board {
	t.Helper()
	s, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Options{Board: board, Seed: seed, Scenario: s})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withFunctions returns a board with functions and nothing else.
func withFunctions(t *testing.T, board string, functions ...Function) *Board {
	t.Helper()
	b, err := New(Options{Board: board, Seed: 7, Scenario: Scenario{Functions: functions}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (t Truth) function(name string) FunctionTruth {
	i := slices.IndexFunc(t.Functions, func(f FunctionTruth) bool { return f.Function == name })
	return t.Functions[i]
}

var presets = []string{"idle", "faas-mix", "collinear", "forked", "governor-switch", "short", "many:20"}

// Base and workloads are the whole, and so are functions' workloads and invocations, on every board and in every preset.
func TestConservation(t *testing.T) {
	for board := range Catalog() {
		for _, name := range presets {
			t.Run(board+"/"+name, func(t *testing.T) {
				b := preset(t, board, name, 3)
				b.Advance(4 * time.Minute)
				truth := b.Truth()
				var parts, functions float64
				for _, w := range truth.Workloads {
					if w.Energy < 0 || w.ColdStart < 0 {
						t.Errorf("%s: negative energy %v", w.ID, w)
					}
					parts += w.Energy + w.ColdStart
					if w.Kind == workload.Function {
						functions += w.Energy + w.ColdStart
					}
				}
				if e := math.Abs(truth.Base+parts-truth.Total) / truth.Total; e > 1e-9 {
					t.Errorf("base %.9f + parts %.9f != total %.9f", truth.Base, parts, truth.Total)
				}
				if e := b.Load().Energy(0, truth.At); math.Abs(e-truth.Total)/truth.Total > 1e-12 {
					t.Errorf("load drew %.9f J, total is %.9f J", e, truth.Total)
				}
				byInvocation := map[string]float64{}
				for _, i := range b.TakeInvocations() {
					byInvocation[i.Function] += i.Energy
				}
				for _, f := range truth.Functions {
					functions -= f.Energy + f.ColdStart
					// Requests in progress, and what a governor keeps raised after the last one, are in no invocation.
					if e := byInvocation[f.Function]; e > f.Energy*(1+1e-9) || f.Invocations > 50 && e < 0.75*f.Energy {
						t.Errorf("%s: invocations have %.3f J of %.3f J", f.Function, e, f.Energy)
					}
				}
				if math.Abs(functions) > 1e-6 {
					t.Errorf("functions and their pods differ by %g J", functions)
				}
			})
		}
	}
}

func TestDeterminism(t *testing.T) {
	for _, name := range presets {
		a, b, c := preset(t, "odroid-xu4", name, 5), preset(t, "odroid-xu4", name, 5), preset(t, "odroid-xu4", name, 6)
		a.Advance(3 * time.Minute)
		c.Advance(3 * time.Minute)
		for at := time.Duration(0); at < 3*time.Minute; at += 777 * time.Millisecond { // in other portions
			b.Advance(at)
		}
		b.Advance(3 * time.Minute)
		if !reflect.DeepEqual(a.Truth(), b.Truth()) || !reflect.DeepEqual(a.TakeInvocations(), b.TakeInvocations()) {
			t.Errorf("%s: the same seed gave two results", name)
		}
		if a.Truth().Total == c.Truth().Total {
			t.Errorf("%s: two seeds gave one result", name)
		}
	}
}

// The requests and their sizes are the same whatever the governor; how long they take and what they cost is not.
func TestGovernors(t *testing.T) {
	type result struct {
		joules, seconds, power float64
		n                      int
	}
	all := map[string]result{}
	for _, g := range Governors() {
		f := gzip()
		f.Concurrency, f.Arrival.Rate, f.Class = 0, 0.05, "big"
		b := withFunctions(t, "odroid-xu4", f)
		if err := b.SetGovernor("", g); err != nil {
			t.Fatal(err)
		}
		if g == Userspace {
			if err := b.SetUserspace("big", 1_400_000); err != nil {
				t.Fatal(err)
			}
		}
		b.Advance(30 * time.Minute)
		r := result{n: int(b.Truth().function("gzip").Invocations), power: b.Truth().Total / b.Now().Seconds()}
		for _, i := range b.TakeInvocations() {
			r.joules += i.Energy
			r.seconds += (i.End - i.Start).Seconds()
		}
		all[g] = r
		t.Logf("%-12s %3d jobs, %.2f J and %.2f s each, board %.2f W", g, r.n, r.joules/float64(r.n), r.seconds/float64(r.n), r.power)
	}
	fast, slow, mid := all[Performance], all[Powersave], all[Userspace]
	for g, r := range all {
		if r.n < fast.n-3 || r.n > fast.n {
			t.Errorf("%s: %d jobs, %d under performance", g, r.n, fast.n)
		}
	}
	// 2.8 GHz·s + 0.2 s plus waits: 1.65 s at 2 GHz, 14.25 s at 0.2 GHz.
	if s := fast.seconds / float64(fast.n); s < 1.5 || s > 1.9 {
		t.Errorf("performance takes %.2f s", s)
	}
	if s := slow.seconds / float64(slow.n); s < 13 || s > 25 {
		t.Errorf("powersave takes %.2f s", s)
	}
	if !(slow.power < mid.power && mid.power < fast.power) {
		t.Errorf("powersave %.2f W, 1.4 GHz %.2f W, performance %.2f W", slow.power, mid.power, fast.power)
	}
	for _, g := range []string{Ondemand, Schedutil} { // nearly as fast, and at rest between jobs
		if all[g].seconds > 1.15*fast.seconds || all[g].power > fast.power-0.3 {
			t.Errorf("%s: %.2f s and %.2f W, performance %.2f s and %.2f W", g, all[g].seconds, all[g].power, fast.seconds, fast.power)
		}
	}
}

func TestSettings(t *testing.T) {
	b := preset(t, "odroid-xu4", "idle", 1)
	for _, tt := range []struct {
		what string
		do   func() error
		ok   bool
		want string
	}{
		{"governor", func() error { return b.SetGovernor("big", Performance) }, true, "regime:big governor performance"},
		{"same again", func() error { return b.SetGovernor("big", Performance) }, true, ""},
		{"no governor", func() error { return b.SetGovernor("big", "turbo") }, false, ""},
		{"no class", func() error { return b.SetGovernor("huge", Performance) }, false, ""},
		{"limit between points", func() error { return b.SetLimits("big", 0, 1_450_000) }, true, "regime:big limits 200000-1400000 kHz"},
		{"minimum above maximum", func() error { return b.SetLimits("big", 2_000_000, 100_000) }, false, ""},
		{"minimum", func() error { return b.SetLimits("little", 500_000, 0) }, true, "regime:little limits 500000-1400000 kHz"},
		{"offline", func() error { return b.SetOnline(7, false) }, true, "regime:cpu7 online=false"},
		{"no CPU", func() error { return b.SetOnline(8, false) }, false, ""},
	} {
		err := tt.do()
		events := b.TakeEvents()
		got := ""
		for _, e := range events {
			got += e.What
		}
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%s: %v, events %v, want %q", tt.what, err, events, tt.want)
		}
	}
	if p := b.Snapshot().Policies[1]; p.KHz != 1_400_000 {
		t.Errorf("performance below a limit of 1.4 GHz runs at %d kHz", p.KHz)
	}
	for i := range 7 {
		if err := b.SetOnline(i, false); (err == nil) != (i < 6) {
			t.Errorf("CPU %d offline: %v", i, err)
		}
	}
}

// Time in state adds up to the time there was, under a governor that switches all the time.
func TestTimeInState(t *testing.T) {
	b := preset(t, "odroid-xu4", "faas-mix", 2)
	b.Advance(5 * time.Minute)
	for _, k := range b.clusters {
		var sum time.Duration
		for _, d := range k.inState {
			sum += d
		}
		if sum != b.Now() {
			t.Errorf("%s: states add up to %v in %v", k.Name, sum, b.Now())
		}
		if k.transitions < 100 {
			t.Errorf("%s: %d transitions", k.Name, k.transitions)
		}
	}
}

// Ticks charge jiffies to whom they find, which over time is what ran.
func TestJiffies(t *testing.T) {
	for _, board := range []string{"pynq-z1", "odroid-xu4"} { // 100 and 250 Hz
		b := preset(t, board, "short", 4)
		b.Advance(20 * time.Minute)
		var ran, ticks, kernel time.Duration
		for _, w := range b.works {
			ran += w.total()
		}
		for _, c := range b.cores {
			ticks += c.user + c.kernel
			kernel += c.kernel
			if c.user+c.kernel > b.Now() {
				t.Errorf("%s: a CPU was busy for %v in %v", board, c.user+c.kernel, b.Now())
			}
		}
		t.Logf("%s: ran %v, jiffies %v, of the kernel %v", board, ran, ticks, kernel)
		if r := float64(ticks) / float64(ran); math.Abs(r-1) > 0.03 || ticks == ran {
			t.Errorf("%s: jiffies say %v, ran %v", board, ticks, ran)
		}
		if b.kernel.total() == 0 || kernel == 0 {
			t.Errorf("%s: the kernel did nothing", board)
		}
	}
}

// The CPU time of a running thread advances at ticks, 10 ms apart at 100 Hz, and is complete when it ends.
func TestCountersAdvanceAtTicks(t *testing.T) {
	b := withFunctions(t, "pynq-z1", Function{Name: "f", A: 0.1})
	if err := b.Invoke("f"); err != nil {
		t.Fatal(err)
	}
	var seen []time.Duration
	for at := b.step; at <= 120*time.Millisecond; at += b.step {
		b.Advance(at)
		if c := b.functions[0].replicas[0].total(); len(seen) == 0 || c != seen[len(seen)-1] {
			seen = append(seen, c)
		}
	}
	if seen[0] == 0 {
		seen = seen[1:]
	}
	for i := 1; i < len(seen)-1; i++ {
		if d := seen[i] - seen[i-1]; d != 10*time.Millisecond {
			t.Errorf("advanced by %v from %v", d, seen[i-1])
		}
	}
	if end := seen[len(seen)-1]; end != 100*time.Millisecond || len(seen) < 10 {
		t.Errorf("counter went %v", seen)
	}
}

func TestColdStartAndScaleToZero(t *testing.T) {
	b := withFunctions(t, "raspberrypi-3b", Function{Name: "cold", B: 0.5, Cold: true, IdleTimeout: 5 * time.Second})
	groups := func() (n int) {
		for _, w := range b.Workloads() {
			if w.Function == "cold" {
				n++
			}
		}
		return n
	}
	b.Advance(time.Second)
	if groups() != 0 {
		t.Fatal("a pod without a request")
	}
	if err := b.Invoke("cold"); err != nil {
		t.Fatal(err)
	}
	b.Advance(1100 * time.Millisecond)
	if groups() != 1 {
		t.Fatal("no pod 100 ms after the request")
	}
	runtime := b.runtime.total() + b.kubelet.total()
	if runtime == 0 {
		t.Error("kubelet and runtime had no work")
	}
	b.Advance(20 * time.Second)
	if groups() != 0 {
		t.Error("the pod is still there 5 s after its last request")
	}
	var what []string
	at := map[string]time.Duration{}
	for _, e := range b.TakeEvents() {
		what = append(what, e.What)
		at[e.What] = e.At
	}
	if !slices.Equal(what, []string{workload.Created, workload.Ready, workload.Stopped}) {
		t.Fatalf("events %v", what)
	}
	if d := at[workload.Ready] - at[workload.Created]; d < 500*time.Millisecond || d > 5*time.Second {
		t.Errorf("ready after %v", d)
	}
	inv := b.TakeInvocations()
	if len(inv) != 1 || inv[0].Start != at[workload.Ready] || inv[0].Arrived != at[workload.Created] {
		t.Fatalf("invocations %+v, events %v", inv, at)
	}
	if d := at[workload.Stopped] - inv[0].End; d < 5*time.Second || d > 5010*time.Millisecond {
		t.Errorf("stopped %v after the last request", d)
	}
	truth := b.Truth()
	if len(truth.ColdStarts) != 1 || truth.ColdStarts[0].Energy < 0.05 || truth.ColdStarts[0].Ready != at[workload.Ready] {
		t.Errorf("cold starts %+v", truth.ColdStarts)
	}
	f := truth.function("cold")
	if f.Starts != 1 || f.ColdStart != truth.ColdStarts[0].Energy || f.Energy < inv[0].Energy {
		t.Errorf("function %+v, invocation %+v", f, inv[0])
	}
	for _, w := range truth.Workloads { // what the runtime did for the start is in its account alone
		if w.Name == "containerd.service" && w.Energy > 0.3*f.ColdStart {
			t.Errorf("containerd keeps %.3f J, the cold start has %.3f J", w.Energy, f.ColdStart)
		}
	}
	if err := b.Invoke("cold"); err != nil {
		t.Fatal(err)
	}
	b.Advance(40 * time.Second)
	if got := b.Truth(); len(got.ColdStarts) != 2 || got.function("cold").Invocations != 2 {
		t.Errorf("second start: %+v", got.ColdStarts)
	}
}

// Work in short-lived children costs what other work costs, and no live process shows it.
func TestForkedChildren(t *testing.T) {
	b := preset(t, "raspberrypi-3b", "forked", 9)
	b.Advance(20 * time.Minute)
	truth := b.Truth()
	perCPU := map[string]float64{}
	for _, w := range truth.Workloads {
		if w.Kind != workload.Function {
			continue
		}
		perCPU[w.Function] = w.Energy / w.CPU.Seconds()
		if w.Function == "forked" && w.Live != 0 || w.Function == "live" && w.Live != w.CPU {
			t.Errorf("%s: %v of %v in live processes", w.Function, w.Live, w.CPU)
		}
	}
	if r := perCPU["forked"] / perCPU["live"]; r < 0.9 || r > 1.1 {
		t.Errorf("W per core: %v", perCPU)
	}
}

func TestQuotaAndClass(t *testing.T) {
	limited := stress(2, "")
	limited.Name, limited.Quota = "limited", 0.5
	pinned := stress(2, "little")
	pinned.Name = "pinned"
	b := withFunctions(t, "odroid-xu4", limited, pinned, stress(6, ""))
	for _, name := range []string{"limited", "pinned", "stress"} {
		if err := b.Invoke(name); err != nil {
			t.Fatal(err)
		}
	}
	b.Advance(20 * time.Second)
	cpu := func(name string) []time.Duration {
		for _, w := range b.works {
			if w.info.Function == name {
				return w.cpu
			}
		}
		return nil
	}
	sum := func(list []time.Duration) (s time.Duration) {
		for _, d := range list {
			s += d
		}
		return s
	}
	if d := sum(cpu("limited")); d < 9900*time.Millisecond || d > 10100*time.Millisecond {
		t.Errorf("half a core for 20 s ran %v", d)
	}
	if d := sum(cpu("pinned")[4:]); d != 0 {
		t.Errorf("pinned to little ran %v on big", d)
	}
	if d := sum(cpu("stress")[4:]); d < 70*time.Second {
		t.Errorf("heavy work ran %v on big cores", d)
	}
	var all time.Duration
	for _, w := range b.works {
		all += w.total()
	}
	if all < 158*time.Second || all > 160*time.Second { // eight cores, always enough to do
		t.Errorf("eight cores ran %v in 20 s", all)
	}
}

// Equal threads on too few cores get equal time.
func TestFairness(t *testing.T) {
	var fs []Function
	for i := range 7 {
		f := stress(1, "")
		f.Name = fmt.Sprint("f", i)
		fs = append(fs, f)
	}
	b := withFunctions(t, "raspberrypi-3b", fs...)
	for _, f := range fs {
		if err := b.Invoke(f.Name); err != nil {
			t.Fatal(err)
		}
	}
	b.Advance(time.Minute)
	for _, w := range b.works {
		if w.fn != nil {
			if d := w.total(); d < 33*time.Second || d > 35500*time.Millisecond { // 4/7 of a minute is 34.3 s
				t.Errorf("%s ran %v", w.fn.Name, d)
			}
		}
	}
}

// load is what metersim takes.
var _ interface {
	Energy(from, to time.Duration) float64
	Power(at time.Duration) float64
} = Load{}

func TestLoad(t *testing.T) {
	b := preset(t, "jetson-nano", "faas-mix", 1)
	l := b.Load()
	var sum float64
	for at := time.Duration(0); at < 30*time.Second; at += 1300 * time.Microsecond {
		e := l.Energy(at, at+1300*time.Microsecond)
		if p := e / 0.0013; p < 0.9 || p > 9 {
			t.Fatalf("%.2f W at %v", p, at)
		}
		sum += e
	}
	end := time.Duration(math.Ceil(30.0/0.0013)) * 1300 * time.Microsecond
	if e := l.Energy(0, end); math.Abs(e-sum) > 1e-6*sum {
		t.Errorf("%.6f J in parts, %.6f J in one", sum, e)
	}
	if e := l.Energy(end, 0); math.Abs(e+sum) > 1e-6*sum {
		t.Errorf("backwards %.6f J", e)
	}
	if p, e := l.Power(9*time.Second), l.Energy(9*time.Second, 9004*time.Millisecond); math.Abs(p-e/0.004) > 1e-6 {
		t.Errorf("power %.3f W, energy %.3f W", p, e/0.004)
	}
	// Long after, what is older than the fine history is still there to 100 ms.
	old := l.Energy(0, 20*time.Second)
	b.Advance(5 * time.Minute)
	if e := l.Energy(0, 20*time.Second); math.Abs(e-old) > 1e-9*old {
		t.Errorf("first 20 s were %.9f J and are %.9f J", old, e)
	}
}

func TestPresetsAndFleet(t *testing.T) {
	for _, bad := range []string{"", "many:", "many:0", "many:9999", "many:3x", "faas"} {
		if _, err := Preset(bad); err == nil {
			t.Errorf("preset %q is taken", bad)
		}
	}
	names := map[string]bool{}
	for _, o := range Fleet(1) {
		b, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		b.Advance(10 * time.Minute)
		truth, s := b.Truth(), b.Snapshot()
		names[b.Name()] = true
		busy := 0.0
		for _, w := range truth.Workloads {
			busy += w.CPU.Seconds()
		}
		t.Logf("%-13s mean %.2f W (base %.2f), %.0f °C, %d functions, load %.0f %%, queue %d", s.Name, truth.Total/600, truth.Base/600, s.Celsius,
			len(truth.Functions), 100*busy/600/float64(b.spec.Cores()), s.Runnable)
		for _, f := range truth.Functions {
			t.Logf("    %-18s %5d requests, %d starts, %7.2f J, cold %.2f J", f.Function, f.Invocations, f.Starts, f.Energy, f.ColdStart)
			if f.Invocations == 0 {
				t.Errorf("%s: %s had no request in 10 minutes", s.Name, f.Function)
			}
		}
		if s.Name == "odroid-xu4-2" && s.Policies[1].MaxKHz != 1_400_000 {
			t.Errorf("odroid-xu4-2 has limit %d", s.Policies[1].MaxKHz)
		}
	}
	want := []string{"coral", "jetson-nano", "odroid-xu4-1", "odroid-xu4-2", "pynq-z1", "raspberrypi"}
	if got := slices.Sorted(maps.Keys(names)); !slices.Equal(got, want) {
		t.Errorf("boards %v, want %v", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	for what, o := range map[string]Options{
		"board":    {Board: "pdp-11"},
		"step":     {Board: "coral", Step: 20 * time.Millisecond},
		"name":     {Board: "coral", Scenario: Scenario{Functions: []Function{{A: 1}}}},
		"work":     {Board: "coral", Scenario: Scenario{Functions: []Function{{Name: "f"}}}},
		"class":    {Board: "coral", Scenario: Scenario{Functions: []Function{{Name: "f", A: 1, Class: "big"}}}},
		"with":     {Board: "coral", Scenario: Scenario{Functions: []Function{{Name: "f", A: 1, With: "g"}}}},
		"daemon":   {Board: "coral", Scenario: Scenario{Daemons: []Daemon{{Name: "d"}}}},
		"change":   {Board: "coral", Scenario: Scenario{Changes: []Change{{Class: "big"}}}},
		"version":  {Board: "coral", Hierarchy: Hierarchy{Version: 3}},
		"governor": {Board: "coral", Scenario: Scenario{Changes: []Change{{Governor: "turbo"}}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// BenchmarkAdvance simulates a minute of an XU4 with 20 functions; the metric is how much faster than real time that is.
func BenchmarkAdvance(b *testing.B) {
	board := preset(b, "odroid-xu4", "many:20", 1)
	b.ReportAllocs()
	for b.Loop() {
		board.Advance(board.Now() + time.Minute)
	}
	b.ReportMetric(60*float64(b.N)/b.Elapsed().Seconds(), "x-real-time")
}
