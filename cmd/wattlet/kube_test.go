package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/cgroup"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/kube"
	"github.com/wattlet/wattlet/internal/kubesim"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/workload"
)

// simCluster is an API server over HTTPS with a token.
type simCluster struct {
	*kubesim.Server
	http *httptest.Server
	args []string
}

const clusterToken = "eyJ.a.token"

func startCluster(tb testing.TB, o kubesim.Options) *simCluster {
	tb.Helper()
	o.Token = clusterToken
	if o.Bookmarks == 0 {
		o.Bookmarks = 200 * time.Millisecond
	}
	c := &simCluster{Server: kubesim.New(o)}
	c.http = httptest.NewTLSServer(c.Server)
	tb.Cleanup(c.http.Close)
	tb.Cleanup(c.Break)
	dir := tb.TempDir()
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	if err := errors.Join(os.WriteFile(token, []byte(clusterToken), 0o600), os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.http.Certificate().Raw}), 0o600)); err != nil {
		tb.Fatal(err)
	}
	c.args = []string{"--kube.api=" + c.http.URL, "--kube.token-file=" + token, "--kube.ca=" + ca}
	return c
}

// follow tells a cluster of a board's pods, and answers for their watchdogs, each at an address of its own.
func (x *simBoard) follow(t *testing.T, c *simCluster) (port int) {
	t.Helper()
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = first.Addr().(*net.TCPAddr).Port
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	type told struct {
		pod    kubesim.Pod
		server *http.Server
	}
	pods := map[workload.ID]*told{}
	var mu sync.Mutex
	last := map[workload.ID]workload.Activity{}
	number := 0
	tell := func() {
		mu.Lock()
		for _, a := range x.Activity() {
			last[a.ID] = a
		}
		mu.Unlock()
		seen := map[workload.ID]bool{}
		for _, w := range x.Workloads() {
			if w.Kind != workload.Function {
				continue
			}
			seen[w.ID] = true
			mu.Lock()
			_, ready := last[w.ID]
			mu.Unlock()
			p := pods[w.ID]
			if p == nil {
				number++
				p = &told{pod: kubesim.Pod{
					UID: cgroup.PodUID(w.ID), Namespace: w.Namespace, Name: w.Name, Node: "pi", CPU: "100m", IP: fmt.Sprintf("127.0.1.%d", 1+number%250),
					Labels: map[string]string{"faas_function": w.Function},
				}}
				pods[w.ID] = p
				l, err := net.Listen("tcp", net.JoinHostPort(p.pod.IP, strconv.Itoa(port)))
				if err != nil {
					t.Error(err)
					continue
				}
				p.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					mu.Lock()
					a, ready := last[w.ID]
					mu.Unlock()
					if !ready {
						http.Error(rw, "not ready", http.StatusServiceUnavailable)
						return
					}
					_, _ = rw.Write(activity.AppendText(nil, a.InFlight, map[activity.Series]int64{{Code: 200, Method: "post"}: a.Completed}))
				})}
				go p.server.Serve(l) //nolint:errcheck // until it is closed
				c.Apply(p.pod)
			}
			if p.pod.Ready != ready {
				p.pod.Ready = ready
				c.Apply(p.pod)
			}
		}
		for id, p := range pods {
			if !seen[id] {
				c.Delete(p.pod.Namespace, p.pod.Name)
				if p.server != nil {
					_ = p.server.Close()
				}
				delete(pods, id)
			}
		}
	}
	tell()
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				for _, p := range pods {
					if p.server != nil {
						_ = p.server.Close()
					}
				}
				return
			case <-tick.C:
				tell()
			}
		}
	}()
	return port
}

// Functions appear with names, requests, invocations and cold starts, by the API server alone; without it, all goes on.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	x := startBoard(t, boardsim.Options{Board: "raspberrypi-3b", Seed: 6, Scenario: twoFunctions()})
	c := startCluster(t, kubesim.Options{})
	port := x.follow(t, c)
	p := x.agent(t, append(c.args, "--functions.file=", "--kube=watch", "--kube.watchdog-port="+strconv.Itoa(port))...)
	var a *exporter.AttributionView
	p.wait("functions have names, invocations and cold starts", func() bool {
		a = parts(t, p.snapshot())
		steady, rare := functionOf(a, "steady"), functionOf(a, "rare")
		return steady != nil && steady.PerInvocation != nil && steady.Invocations > 20 && rare != nil && rare.ColdStarts >= 2 && rare.ColdStartUJ > 0
	})
	for _, w := range a.Workloads {
		if w.Kind == "pod" && strings.Count(w.Name, "-") == 4 && len(w.Name) == 36 {
			t.Errorf("a pod is shown by its UID: %+v", w)
		}
	}
	series := p.scrape()
	if got := series[`wattlet_function_base_share_joules_total{function="steady",namespace="openfaas-fn",node="pi",policy="requested"}`]; got <= 0 {
		t.Error("what the pods have reserved is not known")
	}
	reached := series[`wattlet_source_last_success_timestamp_seconds{node="pi",source="kube"}`]
	if age := time.Since(time.UnixMilli(int64(reached * 1000))); age < -time.Second || age > 5*time.Second {
		t.Errorf("the API server answered %v ago", age)
	}

	// Without the API server.
	c.Refuse(http.StatusServiceUnavailable)
	c.Break()
	p.wait("its failures count", func() bool {
		return p.scrape()[`wattlet_source_errors_total{node="pi",source="kube"}`] >= 2
	})
	before := functionOf(parts(t, p.snapshot()), "steady")
	p.wait("the function goes on", func() bool {
		now := functionOf(parts(t, p.snapshot()), "steady")
		return now.Invocations > before.Invocations+5 && now.EnergyUJ > before.EnergyUJ
	})
	if after := p.scrape()[`wattlet_source_last_success_timestamp_seconds{node="pi",source="kube"}`]; after < reached || after > float64(time.Now().Unix()+1) {
		t.Errorf("last success went from %v to %v", reached, after)
	}
	c.Refuse(0)
	starts := functionOf(parts(t, p.snapshot()), "rare").ColdStarts
	p.wait("it is reached again, and starts are seen", func() bool {
		return strings.Contains(p.logged(), "answers again") && functionOf(parts(t, p.snapshot()), "rare").ColdStarts > starts
	})
	if n := strings.Count(p.logged(), "pods are not told"); n != 1 {
		t.Errorf("the log has %d warnings", n)
	}
	if strings.Contains(p.logged(), "watchdog does not answer") {
		t.Error("the log has pods that went")
	}
}

// groups is a cgroup tree made by hand, of version 2, on a node that draws 2 W and 2 J for a second of CPU, all at once.
type groups struct {
	t     testing.TB
	dir   string
	meter aMeter

	mu   sync.Mutex
	cpu  map[string]time.Duration
	used []burst
}

// burst is what was drawn up to an instant, J.
type burst struct {
	at     time.Duration
	joules float64
}

// Energy implements metersim.Load.
func (g *groups) Energy(from, to time.Duration) float64 { return g.until(to) - g.until(from) }

// Power implements metersim.Load.
func (g *groups) Power(time.Duration) float64 { return 2 }

func (g *groups) until(at time.Duration) float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, _ := slices.BinarySearchFunc(g.used, at, func(b burst, at time.Duration) int { return int(b.at - at) })
	joules := 2 * at.Seconds()
	if n > 0 {
		joules += g.used[n-1].joules
	}
	return joules
}

func podPath(uid string) string {
	return "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
}

// add makes a pod's group, or lets it use more CPU.
func (g *groups) add(uid string, cpu time.Duration) {
	g.t.Helper()
	now := g.meter.Now() // before the lock: the meter asks for energy while its clock stands
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cpu[uid] += cpu
	if cpu > 0 {
		b := burst{at: now + 20*time.Millisecond, joules: 2 * cpu.Seconds()}
		if n := len(g.used); n > 0 {
			b.at, b.joules = max(b.at, g.used[n-1].at), b.joules+g.used[n-1].joules
		}
		g.used = append(g.used, b)
	}
	dir := filepath.Join(g.dir, podPath(uid))
	text := fmt.Appendf(nil, "usage_usec %d\nuser_usec 0\nsystem_usec 0\n", g.cpu[uid].Microseconds())
	if err := errors.Join(os.MkdirAll(dir, 0o755), write(filepath.Join(dir, "cpu.stat"), text)); err != nil {
		g.t.Error(err)
	}
}

// write replaces a file as a whole, so that no reader finds half of it.
func write(path string, text []byte) error {
	return errors.Join(os.WriteFile(path+".new", text, 0o644), os.Rename(path+".new", path))
}

func (g *groups) remove(uid string) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.cpu, uid)
	if err := os.RemoveAll(filepath.Join(g.dir, podPath(uid))); err != nil {
		g.t.Error(err)
	}
}

// startGroups makes a node with 4 cores and no pods, and an agent's arguments.
func startGroups(t testing.TB) (g *groups, args []string) {
	t.Helper()
	root := t.TempDir()
	g = &groups{t: t, dir: filepath.Join(root, "cgroup"), cpu: map[string]time.Duration{}}
	// Its energy comes all at once, more than a sensor could take.
	g.meter = newSimulator(t, metersim.Options{Channels: []metersim.Channel{{Number: 1, Load: g, Ideal: true}}})
	background(t, g.meter.Run)
	proc, sys := filepath.Join(root, "proc"), filepath.Join(root, "sys")
	stat := "cpu  100 0 100 1000 0 0 0 0 0 0\n"
	for i := range 4 {
		stat += fmt.Sprintf("cpu%d 25 0 25 250 0 0 0 0 0 0\n", i)
	}
	files := map[string]string{
		filepath.Join(proc, "stat"):                                   stat,
		filepath.Join(proc, "self/cgroup"):                            "0::/\n",
		filepath.Join(proc, "sys/kernel/random/boot_id"):              "11111111-2222-3333-4444-555555555555\n",
		filepath.Join(sys, "devices/system/cpu/online"):               "0-3\n",
		filepath.Join(sys, "devices/system/cpu/present"):              "0-3\n",
		filepath.Join(g.dir, "cgroup.controllers"):                    "cpu\n",
		filepath.Join(g.dir, "cpu.stat"):                              "usage_usec 0\n",
		filepath.Join(g.dir, "kubepods.slice/cpu.stat"):               "usage_usec 0\n",
		filepath.Join(g.dir, "system.slice/kubelet.service/cpu.stat"): "usage_usec 0\n",
	}
	for path, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return g, []string{
		"--attribution", "--node=pi", "--meter.url=" + g.meter.URL(), "--meter.psk-file=" + keyFile(t),
		"--path.proc=" + proc, "--path.sys=" + sys, "--path.cgroup=" + g.dir, "--tick=100ms", "--activity.interval=200ms",
	}
}

func testUID(i int) string { return fmt.Sprintf("11111111-0000-4000-8000-%012d", i) }

func testPod(i int, function string) kubesim.Pod {
	return kubesim.Pod{
		UID: testUID(i), Namespace: "openfaas-fn", Name: fmt.Sprintf("%s-%d", function, i), Node: "pi", Ready: true,
		Labels: map[string]string{"faas_function": function}, Container: fmt.Sprintf("%064x", i),
	}
}

// workloadOf returns a workload's account; nil if there is none.
func workloadOf(a *exporter.AttributionView, name string) *exporter.WorkloadView {
	if a == nil {
		return nil
	}
	for i := range a.Workloads {
		if a.Workloads[i].Name == name {
			return &a.Workloads[i]
		}
	}
	return nil
}

// A pod that lives for two seconds has its energy under its name, although the API server tells of it only after its end; one of
// which it never tells is shown by its UID, and ordinary pods have their names as well. The kubelet tells the same, when it is asked.
func TestShortPods(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"watch", "kubelet"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			g, args := startGroups(t)
			c := startCluster(t, kubesim.Options{})
			ordinary := testPod(1, "web")
			ordinary.Labels = nil
			c.Apply(ordinary)
			g.add(testUID(1), 0)
			p := startAgent(t, slices.Concat(args, c.args, []string{
				"--kube=" + mode, "--kube.kubelet=" + c.http.URL,
			})...)
			p.wait("an ordinary pod has its name", func() bool {
				w := workloadOf(parts(t, p.snapshot()), "web-1")
				return w != nil && w.Kind == "pod" && w.Namespace == "openfaas-fn"
			})
			p.wait("energy is split", func() bool { return *p.node("pi").EnergyUJ > 0 })

			// It lives for two seconds, and nobody tells of it.
			c.Refuse(http.StatusServiceUnavailable)
			c.Break()
			for range 20 {
				g.add(testUID(2), 80*time.Millisecond)
				g.add(testUID(3), 40*time.Millisecond)
				p.passes(100 * time.Millisecond)
			}
			g.remove(testUID(2))
			p.wait("its energy is kept back", func() bool {
				n := p.node("pi")
				a := parts(t, p.snapshot())
				for _, w := range a.Workloads {
					if w.Name == testUID(2) || w.Name == testUID(3) {
						t.Fatalf("it is shown without its name: %+v", w)
					}
				}
				return n.Attribution.PendingUJ > 1_500_000
			})
			c.Apply(testPod(2, "burn"))
			c.Refuse(0)
			var a *exporter.AttributionView
			p.wait("its energy is its function's", func() bool {
				a = parts(t, p.snapshot())
				f, w := functionOf(a, "burn"), workloadOf(a, "burn-2")
				return f != nil && w != nil && w.EnergyUJ > 500_000 && f.EnergyUJ == w.EnergyUJ && w.Kind == "function"
			})
			p.wait("the nameless one is shown by its UID", func() bool {
				w := workloadOf(parts(t, p.snapshot()), testUID(3))
				return w != nil && w.Kind == "pod" && w.EnergyUJ > 200_000
			})
			if workloadOf(parts(t, p.snapshot()), testUID(2)) != nil {
				t.Error("what was named is shown by its UID too")
			}
		})
	}
}

// passes lets time pass while the agent runs.
func (p *process) passes(d time.Duration) {
	p.t.Helper()
	select {
	case <-time.After(d):
	case <-p.ended:
		p.t.Fatal("the agent ended")
	}
}

// Pods that come and go all the time leave nothing behind: neither series nor memory.
func TestChurn(t *testing.T) {
	t.Parallel()
	g, args := startGroups(t)
	c := startCluster(t, kubesim.Options{})
	p := startAgent(t, slices.Concat(args, c.args, []string{"--kube=watch", "--kube.watchdog-port=1"})...)
	const pods, rounds = 200, 9
	next := 0
	var rss []int
	var series []int
	last := int64(0)
	for round := range rounds {
		first := next
		for ; next < first+pods; next++ {
			c.Apply(testPod(next, fmt.Sprint("f", next%20)))
			g.add(testUID(next), 0)
		}
		for range 5 {
			for i := first; i < next; i++ {
				g.add(testUID(i), 2*time.Millisecond)
			}
			p.passes(100 * time.Millisecond)
		}
		for i := first; i < next; i++ {
			g.remove(testUID(i))
			c.Delete("openfaas-fn", fmt.Sprintf("f%d-%d", i%20, i))
		}
		v := p.snapshot()
		parts(t, v)
		if v.Nodes[0].EnergyUJ != nil {
			if *v.Nodes[0].EnergyUJ < last {
				t.Fatalf("round %d: energy fell from %d to %d", round, last, *v.Nodes[0].EnergyUJ)
			}
			last = *v.Nodes[0].EnergyUJ
		}
		rss, series = append(rss, p.rss()), append(series, len(p.scrape()))
	}
	t.Logf("RSS kB %v, series %v", rss, series)
	// Of 1800 pods 500 at most are shown after their end, each by two series, once the model has let go of them; and their twenty functions.
	p.wait("what has ended is let go", func() bool { return len(p.scrape()) < 2*500+20*20+150 })
	parts(t, p.snapshot())
	if a, b := slices.Max(rss[rounds/2-2:rounds/2+1]), slices.Max(rss[rounds-3:]); b > a+a/5 {
		t.Errorf("memory grew from %d to %d kB", a, b)
	}
}

// rss is the process's resident memory, kB.
func (p *process) rss() int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func TestKubeFlags(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	inPod := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
	for _, tc := range []struct {
		kubeOptions
		env        map[string]string
		mode, api  string
		complaints string
	}{
		{kubeOptions{mode: "auto", tokenFile: token}, inPod, "watch", "https://[fd00::1]:6443", ""},
		{kubeOptions{mode: "auto", tokenFile: token}, nil, "off", "", ""},
		{kubeOptions{mode: "auto", tokenFile: token + ".none"}, inPod, "off", "https://[fd00::1]:6443", ""},
		{kubeOptions{mode: "auto", tokenFile: token, api: "https://10.0.0.1:6443/"}, inPod, "watch", "https://10.0.0.1:6443", ""},
		{kubeOptions{mode: "watch"}, nil, "", "", "--kube.api"},
		{kubeOptions{mode: "watch", api: "10.0.0.1"}, nil, "", "", "it must be as https"},
		{kubeOptions{mode: "watch", api: "http://10.0.0.1"}, nil, "", "", "http is for loopback alone"},
		{kubeOptions{mode: "watch", api: "http://127.0.0.1:8001"}, nil, "watch", "http://127.0.0.1:8001", ""},
		{kubeOptions{mode: "kubelet", kubelet: "10.0.0.1:10250"}, nil, "", "", "--kube.kubelet"},
		{kubeOptions{mode: "kubelet", kubelet: "https://10.0.0.1:10250"}, nil, "kubelet", "", ""},
		{kubeOptions{mode: "cri", socket: "/x"}, nil, "cri", "", ""},
		{kubeOptions{mode: "informer"}, nil, "", "", "it must be auto, watch, kubelet, cri or off"},
		{kubeOptions{mode: "off", watchdogPort: 70000}, nil, "", "", "--kube.watchdog-port"},
	} {
		k := tc.kubeOptions
		err := k.check(func(name string) string { return tc.env[name] })
		if tc.complaints != "" {
			if err == nil || !strings.Contains(err.Error(), tc.complaints) {
				t.Errorf("%+v: %v", tc.kubeOptions, err)
			}
			continue
		}
		if err != nil || k.mode != tc.mode || k.api != tc.api {
			t.Errorf("%+v: %v, %s %s", tc.kubeOptions, err, k.mode, k.api)
		}
	}
}

// Entries of the configuration come before Kubernetes, Kubernetes before paths.
func TestDirectoryOfPods(t *testing.T) {
	t.Parallel()
	c := kubesim.New(kubesim.Options{})
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	t.Cleanup(c.Break)
	pods := kube.NewDirectory(time.Now)
	gzip, web, own := testPod(1, "gzip"), testPod(2, "web"), testPod(3, "wattlet")
	gzip.IP, gzip.Ready, gzip.CPU = "fd00::7", false, "250m"
	web.Labels, own.Labels = nil, nil
	for _, p := range []kubesim.Pod{gzip, web, own, testPod(4, "mine")} {
		c.Apply(p)
	}
	w := kube.NewWatch(kube.WatchConfig{Config: kube.Config{Directory: pods}, API: server.URL, Node: "pi"})
	background(t, w.Run)
	for n := 0; n < 4; n, _ = pods.Len() {
		<-pods.Changed()
	}
	id := func(i int) workload.ID { return workload.ID(podPath(testUID(i))) }
	d := &directory{
		node: "pi", pods: pods, port: 8081, faasd: []string{"openfaas-fn"}, ownPod: testUID(3),
		static: []rawFunction{{Workload: string(id(4)), Namespace: "edge", Function: "theirs", Name: "x"}},
	}
	container := workload.ID("docker/" + fmt.Sprintf("%064x", 1))
	for id, want := range map[workload.ID]workload.Workload{
		id(1):                {Kind: workload.Function, Namespace: "openfaas-fn", Name: "gzip-1", Function: "gzip"},
		id(2):                {Kind: workload.Pod, Namespace: "openfaas-fn", Name: "web-2"},
		id(3):                {Kind: workload.Agent, Namespace: "openfaas-fn", Name: "wattlet-3"},
		id(4):                {Kind: workload.Function, Namespace: "edge", Name: "x", Function: "theirs"},
		id(5):                {Kind: workload.Pod, Name: testUID(5)},
		container:            {Kind: workload.Function, Namespace: "openfaas-fn", Name: "gzip-1", Function: "gzip"},
		"openfaas-fn/figlet": {Kind: workload.Function, Namespace: "openfaas-fn", Name: "figlet", Function: "figlet"},
		"openfaas/gateway":   {Kind: workload.Pod, Namespace: "openfaas", Name: "gateway"},
		"openfaas-fn":        {Kind: workload.System, Name: "openfaas-fn"},
	} {
		want.ID = id
		if got := d.describe(id); got != want {
			t.Errorf("%s is %+v, want %+v", id, got, want)
		}
	}
	if !d.expected(id(5)) || d.expected(id(1)) || d.expected(id(4)) || d.expected("system.slice") {
		t.Error("of whom more is expected")
	}
	if !d.watched(id(1)) || d.watched(id(2)) || d.watched(id(4)) || d.watched(id(5)) {
		t.Error("who is starting")
	}
	if d.requested(id(1)) != 0.25 || d.requested(id(4)) != 0 {
		t.Error("requests")
	}
	if !d.wanting(time.Now()) || d.wanting(time.Now().Add(time.Minute)) {
		t.Error("what is wanted")
	}
	seen := []workload.Workload{}
	for i := range 6 {
		seen = append(seen, d.describe(id(i)))
	}
	targets := d.targets(seen)
	if len(targets) != 1 || targets[0].URL != "http://[fd00::7]:8081/metrics" || !targets[0].Maybe || targets[0].Turn != 0 {
		t.Errorf("%+v", targets)
	}
	if d.port = 0; len(d.targets(seen)) != 0 {
		t.Error("somebody is asked")
	}
	// One that is ready before its control group is seen has started; one that was when it became known has not.
	gzip.Ready = true
	c.Apply(gzip)
	c.Apply(testPod(6, "figlet"))
	for n := 0; n < 5 || func() bool { p, _ := pods.Pod(testUID(1)); return !p.Ready }(); n, _ = pods.Len() {
		<-pods.Changed()
	}
	if !d.watched(id(1)) || d.watched(id(6)) {
		t.Error("who has started")
	}
}

// Starts are told as they are seen, and none of pods that were there before.
func TestStarts(t *testing.T) {
	t.Parallel()
	pods := map[workload.ID]kube.Pod{}
	var told []string
	var s starts
	look := func(want ...string) {
		t.Helper()
		told = nil
		seen := []workload.Workload{{ID: "other", Kind: workload.System}}
		for _, id := range []workload.ID{"a", "b", "c"} {
			seen = append(seen, workload.Workload{ID: id, Kind: workload.Function})
		}
		s.look(seen, func(id workload.ID) (kube.Pod, bool) { p, ok := pods[id]; return p, ok }, func() time.Duration { return 0 },
			func(e workload.Event) { told = append(told, string(e.ID)+" "+e.What) })
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	}
	pods["a"] = kube.Pod{Ready: true}
	look()
	pods["b"] = kube.Pod{}
	look("b created")
	look()
	pods["b"] = kube.Pod{Ready: true}
	look("b ready")
	pods["b"] = kube.Pod{Restarts: 1}
	look("b stopped", "b created")
	pods["b"] = kube.Pod{Restarts: 2, Ready: true}
	look("b stopped", "b created", "b ready")
	pods["b"] = kube.Pod{Restarts: 2, Ended: true}
	look("b stopped")
	pods["c"] = kube.Pod{Ready: true}
	look("c created", "c ready")
	delete(pods, "c")
	look()
	pods["c"] = kube.Pod{Ready: true}
	look()
}
