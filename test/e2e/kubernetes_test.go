package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// functionManifest is what OpenFaaS makes of a function: the container has the function's name, so has the label. The arguments are
// the name, the image, and the environment.
const functionManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: openfaas-fn, labels: {faas_function: %[1]s}}
spec:
  replicas: 1
  selector: {matchLabels: {faas_function: %[1]s}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata:
      labels: {faas_function: %[1]s}
      annotations: {prometheus.io.scrape: "false"}
    spec:
      containers:
      - name: %[1]s
        image: %[2]s
        imagePullPolicy: Never
        ports: [{name: http, containerPort: 8080}]
        env: %[3]s
        resources: {requests: {cpu: 50m, memory: 20Mi}}
        readinessProbe: {httpGet: {path: /_/health, port: 8080}, periodSeconds: 2, timeoutSeconds: 1}
---
`

// chartValues are those of a person with one meter and one node. What is the test's own is where images are, and the node's /proc.
const chartValues = `
cluster:
  meters: {bench-1: {url: %q}}
  nodes: {edge1: {meter: bench-1, channel: 1}}
agent:
  image: {repository: localhost/wattlet, tag: e2e, pullPolicy: Never}
  state: {hostPath: %q}
  extraArgs: [--path.proc=/var/lib/wattlet/proc]
gateway: {urls: [%q]}
wattctl: {image: {repository: localhost/wattctl, tag: e2e, pullPolicy: Never}}
hub: {scrapeInterval: 1s, persistence: {enabled: false}}
`

// TestCluster installs the chart on a cluster as docs/kubernetes.md says, and runs functions behind a gateway.
func TestCluster(t *testing.T) {
	c := startCluster(t)
	tr := newTruth(t, 2, 3)
	meter := startMeter(t, nodeIP+":0", tr)
	c.follow(t, tr, 3)
	state := work("agent")
	tr.serveStat(t, filepath.Join(state, "proc"), "none")
	startGateway(t, c)
	t.Cleanup(func() {
		logs, _ := filepath.Glob("/var/log/pods/wattlet_*/*/*.log") // the only error is a bad pattern
		for _, l := range logs {
			if t.Failed() {
				showEnd(t, l, l)
			}
		}
	})

	// From nothing to joules.
	begin := time.Now()
	sh := c.shell(t, map[string][]byte{
		"bench-1.psk": meterKey, "cluster.yaml": fmt.Appendf(nil, chartValues, meter.URL(), state, gatewayMetrics),
	})
	sh.must(t, written(t, "kubernetes.md", "**3. Install.**", "sh"))
	sh.must(t, "kubectl -n wattlet rollout status deployment/wattlet-hub")
	t.Logf("the chart is installed, its pods are ready, after %v", time.Since(begin).Round(100*time.Millisecond))
	address := func(component, port string) string {
		t.Helper()
		pods, err := c.pods(t.Context(), "app.kubernetes.io/component="+component)
		if err != nil || len(pods) != 1 {
			t.Fatalf("%d pods of %s, %v", len(pods), component, err)
		}
		return "http://" + pods[0].Status.PodIP + ":" + port
	}
	agent, hub := address("agent", "9780"), address("hub", "9779")
	first := settled(t, agent, meter, 0)

	jobs := []job{
		{podSpec{function: "cpu-bound"}, "?below=1500000", 150 * time.Millisecond},
		{podSpec{function: "memory-bound"}, "?steps=4000000", 300 * time.Millisecond},
		{podSpec{function: "short-forked"}, "?children=20", 200 * time.Millisecond},
		{podSpec{function: "io-bound", env: map[string]string{"FUNCTION_METRICS_LISTEN": "off"}}, "", 400 * time.Millisecond}, // without a watchdog
	}
	manifest := "apiVersion: v1\nkind: Namespace\nmetadata: {name: openfaas-fn}\n---\n"
	for _, j := range jobs {
		env := []map[string]string{{"name": "FUNCTION_LINGER", "value": "0s"}}
		for k, v := range j.env {
			env = append(env, map[string]string{"name": k, "value": v})
		}
		b, err := json.Marshal(env)
		if err != nil {
			t.Fatal(err)
		}
		manifest += fmt.Sprintf(functionManifest, j.function, c.images[j.function], b)
	}
	if _, err := c.kubectl(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if _, err := c.kubectl(t.Context(), "", "-n", functionNamespace, "rollout", "status", "deployment/"+j.function, "--timeout=90s"); err != nil {
			t.Fatal(err)
		}
	}
	// The page's own function has an image that is not here; the API server takes it.
	sh.must(t, "kubectl apply --dry-run=server -f - <<'EOF'\n"+written(t, "kubernetes.md", "**4. A function.**", "yaml")+"\nEOF")
	sh.must(t, "kubectl create namespace openfaas\n"+written(t, "openfaas.md", "## Functions without a watchdog", "sh"))
	route := func(j job) string { return gatewayURL + "/function/" + j.function + "/" }
	counted := map[string]float64{}
	// Of a function without a watchdog the agent counts from when it has found that there is none; what came before nobody told it.
	eventually(t, "calls at the gateway are counted", func() error {
		if _, err := call(t.Context(), gatewayURL+"/function/io-bound", nil); err != nil {
			return err
		}
		if counted["io-bound"] = readFunction(t, agent, "io-bound").Invocations; counted["io-bound"] == 0 {
			return errors.New("they are not")
		}
		return nil
	})
	settled(t, agent, meter, 4*time.Second)
	counted["io-bound"] = readFunction(t, agent, "io-bound").Invocations

	ok := t.Run("functions behind the gateway", func(t *testing.T) {
		spent := map[string]float64{}
		for _, j := range jobs {
			spent[j.function], _ = tr.of(j.function)
		}
		calls := loadAll(t, jobs, route, 20*time.Second)
		for _, j := range jobs {
			now, _ := tr.of(j.function)
			spent[j.function] = now - spent[j.function]
		}
		s := settled(t, agent, meter, 5*time.Second)
		whole(t, meter, first, s)
		got := s.functions()
		for _, j := range jobs {
			f := got[j.function]
			if j.env == nil { // a function that waits uses next to nothing
				agree(t, f, j.function, tr)
			}
			counted[j.function] += float64(calls[j.function])
			if f.Invocations != counted[j.function] {
				t.Errorf("%s: %v invocations, it has answered %v times", j.function, f.Invocations, counted[j.function])
			}
			if f.ColdStarts != 1 || f.ColdStartUJ == 0 {
				t.Errorf("%s: %d cold starts with %d µJ, it was started once", j.function, f.ColdStarts, f.ColdStartUJ)
			}
		}
		for _, j := range jobs {
			query := fmt.Sprintf(`wattlet_function_energy_joules_total{namespace="openfaas-fn",function=%q}`, j.function)
			eventually(t, "the hub has the joules of "+j.function, func() error {
				joules, err := promQL(t.Context(), hub, query)
				if err == nil && joules == 0 {
					err = errors.New("they are 0")
				}
				return err
			})
			if j.env != nil {
				continue
			}
			// The last of them count when the function has rested for a while.
			count := fmt.Sprintf(`wattlet_function_invocation_energy_joules_count{function=%q,namespace="openfaas-fn",node="edge1"}`, j.function)
			eventually(t, "the energy of all invocations of "+j.function, func() error {
				m, err := metrics(t.Context(), agent+"/metrics")
				if n := number(t, m, count); err == nil && n != counted[j.function] {
					err = fmt.Errorf("it is known of %v, there were %v", n, counted[j.function])
				}
				return err
			})
			query = fmt.Sprintf(`wattlet_function_joules_per_invocation{bound="mean",namespace="openfaas-fn",function=%q}`, j.function)
			want := spent[j.function] / float64(calls[j.function])
			eventually(t, "the hub has the joules per invocation of "+j.function, func() error {
				got, err := promQL(t.Context(), hub, query)
				if err == nil && math.Abs(got-want) > 0.12*want {
					err = fmt.Errorf("%.3f J, the truth is %.3f J", got, want)
				}
				if err == nil {
					t.Logf("%s: %.3f J per invocation, the truth is %.3f J", j.function, got, want)
				}
				return err
			})
		}
		forward, ask, _ := strings.Cut(written(t, "kubernetes.md", "**5. Joules.**", "sh"), "\n")
		start(t, "port-forward", "bash", "-c", sh.setup+"exec "+strings.TrimSuffix(forward, " &"))
		eventually(t, "the page's query has all functions", func() error {
			out, err := sh.run(t, ask)
			for _, j := range jobs {
				if err == nil && !strings.Contains(out, strconv.Quote(j.function)) {
					err = fmt.Errorf("%s is not in %s", j.function, out)
				}
			}
			return err
		})
		t.Logf("joules per function by PromQL, %v after helm install began", time.Since(begin).Round(time.Second))
	})
	if !ok {
		return
	}

	t.Run("a pod that lives for two seconds", func(t *testing.T) {
		manifest := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "short", "namespace": "openfaas-fn", "labels": {"faas_function": "gzip"}},
 "spec": {"terminationGracePeriodSeconds": 2, "containers": [{"name": "gzip", "image": %q, "imagePullPolicy": "Never",
 "env": [{"name": "FUNCTION_LINGER", "value": "0s"}]}]}}`, c.images["gzip"])
		if _, err := c.kubectl(t.Context(), manifest, "apply", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		p := &pod{name: "short"}
		eventually(t, "the pod has an address", func() error {
			pods, err := c.pods(t.Context(), "faas_function=gzip")
			if err == nil && (len(pods) == 0 || pods[0].Status.PodIP == "") {
				err = errors.New("it has none")
			}
			if err == nil {
				p.address = pods[0].Status.PodIP
			}
			return err
		})
		p.serving(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		body := make([]byte, 1<<20)
		for ctx.Err() == nil {
			if _, err := call(t.Context(), "http://"+p.address+":8080/", body); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.kubectl(t.Context(), "", "-n", functionNamespace, "delete", "pod", "short", "--wait"); err != nil {
			t.Fatal(err)
		}
		s := settled(t, agent, meter, 5*time.Second)
		whole(t, meter, first, s)
		agree(t, s.functions()["gzip"], "gzip", tr)
	})

	t.Run("to zero and back", func(t *testing.T) {
		const name = "cpu-bound"
		if _, err := call(t.Context(), gatewayURL+"/system/scale-function/"+name, []byte(`{"replicas": 0}`)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "no pod is left", func() error {
			pods, err := c.pods(t.Context(), "faas_function="+name)
			if err == nil && len(pods) > 0 {
				err = fmt.Errorf("%d are", len(pods))
			}
			return err
		})
		before := settled(t, agent, meter, 4*time.Second).functions()[name]
		spent, _ := tr.of(name)
		started := time.Now()
		if _, err := call(t.Context(), gatewayURL+"/function/"+name+"?below=1000", nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("the gateway has waked it in %v", time.Since(started).Round(100*time.Millisecond))
		s := settled(t, agent, meter, 5*time.Second)
		after, now := s.functions()[name], 0.0
		now, _ = tr.of(name)
		joules := float64(after.ColdStartUJ-before.ColdStartUJ) / 1e6
		t.Logf("its start cost %.3f J; the truth is %.3f J for the pod until now", joules, now-spent)
		if after.ColdStarts != before.ColdStarts+1 || joules <= 0 {
			t.Errorf("%d cold starts with %d µJ, before %d with %d µJ", after.ColdStarts, after.ColdStartUJ, before.ColdStarts, before.ColdStartUJ)
		}
		if after.EnergyUJ < before.EnergyUJ {
			t.Errorf("its energy was %d µJ and is %d µJ", before.EnergyUJ, after.EnergyUJ)
		}
	})

	// What is away and comes back, to stay until the end. The other functions are called meanwhile.
	busy, all := jobs[1:3], t
	t.Run("the API server is away", func(t *testing.T) {
		unharmed(t, agent, "kube", c.apiserver.kill, func() { loadAll(t, busy, route, 4*time.Second) }, func() { c.startAPIServer(all) })
	})
	t.Run("the runtime is away", func(t *testing.T) {
		unharmed(t, agent, "", c.containerd.kill, func() { loadAll(t, busy, route, 4*time.Second) }, func() { c.startContainerd(all); c.ready(t) })
	})
	t.Run("the kubelet is away", func(t *testing.T) {
		second := c.kubeletAgent(t, meter.URL())
		eventually(t, "an agent that asks the kubelet knows the functions", func() error {
			s, err := readSnapshot(t.Context(), second)
			if f := s.functions(); err == nil && (f["memory-bound"].Function == "" || f["short-forked"].Function == "") {
				err = fmt.Errorf("it knows %v", f)
			}
			return err
		})
		unharmed(t, second, "kube", c.kubelet.kill, func() { loadAll(t, busy, route, 4*time.Second) }, func() { c.startKubelet(all) })
	})
	t.Run("a watchdog is away", func(t *testing.T) {
		const name = "memory-bound"
		settled(t, agent, meter, 4*time.Second)
		pods, err := c.pods(t.Context(), "faas_function="+name)
		if err != nil || len(pods) != 1 || len(pods[0].Status.ContainerStatuses) != 1 {
			t.Fatalf("%+v, %v", pods, err)
		}
		_, id, _ := strings.Cut(pods[0].Status.ContainerStatuses[0].ContainerID, "://")
		before := readFunction(t, agent, name)
		unharmed(t, agent, "", func() {
			procs, err := os.ReadFile(filepath.Join(tr.counters.root, pods[0].group(), id, "cgroup.procs"))
			if err != nil {
				t.Fatal(err)
			}
			for p := range strings.FieldsSeq(string(procs)) {
				pid, err := strconv.Atoi(p)
				if err := errors.Join(err, syscall.Kill(pid, syscall.SIGKILL)); err != nil {
					t.Fatal(err)
				}
			}
		}, func() {
			eventually(t, "the function is started anew", func() error {
				now, err := c.pods(t.Context(), "faas_function="+name)
				if err == nil && (len(now) != 1 || len(now[0].Status.ContainerStatuses) != 1 || now[0].Status.ContainerStatuses[0].RestartCount == 0 || !now[0].ready()) {
					err = errors.New("it is not")
				}
				return err
			})
			for range 3 {
				if _, err := call(t.Context(), gatewayURL+"/function/"+name+"?steps=1000", nil); err != nil {
					t.Error(err)
				}
			}
		}, func() {})
		settled(t, agent, meter, 4*time.Second)
		if after := readFunction(t, agent, name); after.Invocations != before.Invocations+3 {
			t.Errorf("%v invocations before, %v after three more", before.Invocations, after.Invocations)
		}
	})
	m, err := metrics(t.Context(), agent+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the agent has %.1f MB", number(t, m, "process_resident_memory_bytes")/1e6)
	whole(t, meter, first, settled(t, agent, meter, 4*time.Second))

	t.Run("upgrade", func(t *testing.T) {
		before := accounts(t, agent)
		commands := written(t, "kubernetes.md", "## Upgrade", "sh")
		sh.must(t, strings.Replace(commands, "--reset-then-reuse-values", "--reset-then-reuse-values --set agent.tick=500ms", 1))
		agent = address("agent", "9780")
		// Counters that the agent keeps go on, and what was used meanwhile is there.
		whole(t, meter, first, settled(t, agent, meter, 4*time.Second))
		after := accounts(t, agent)
		for name, was := range before {
			if now, ok := after[name]; !strings.HasPrefix(name, "wattlet_source_") && (!ok || now < was) {
				t.Errorf("%s was %v and is %v (there: %v)", name, was, now, ok)
			}
		}
	})

	t.Run("uninstall", func(t *testing.T) {
		sh.must(t, written(t, "kubernetes.md", "## Uninstall", "sh"))
		eventually(t, "nothing is left of it", func() error {
			left, err := c.kubectl(t.Context(), "", "get", "all,configmaps,secrets,serviceaccounts,clusterroles,clusterrolebindings,networkpolicies,persistentvolumeclaims",
				"--all-namespaces", "--selector", "app.kubernetes.io/instance=wattlet", "--output", "name")
			if err == nil && left != "" {
				err = errors.New(left)
			}
			return err
		})
	})
}

// readFunction returns a function's account.
func readFunction(t *testing.T, agent, name string) functionAccount {
	t.Helper()
	s, err := readSnapshot(t.Context(), agent)
	if err != nil {
		t.Fatal(err)
	}
	return s.functions()[name]
}

// promQL returns the one value of a query.
func promQL(ctx context.Context, base, query string) (float64, error) {
	b, err := call(ctx, base+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]json.RawMessage }
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return 0, err
	}
	if len(answer.Data.Result) != 1 {
		return 0, fmt.Errorf("%s: %d series", query, len(answer.Data.Result))
	}
	return strconv.ParseFloat(string(bytes.Trim(answer.Data.Result[0].Value[1], `"`)), 64)
}

// accounts are the agent's counters that must neither fall nor go while their function is there.
func accounts(t *testing.T, agent string) map[string]float64 {
	t.Helper()
	m, err := metrics(t.Context(), agent+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for name := range m {
		family, _, _ := strings.Cut(name, "{")
		if strings.HasSuffix(family, "_total") && (strings.HasPrefix(family, "wattlet_function_") || strings.HasPrefix(family, "wattlet_node_") ||
			strings.HasPrefix(family, "wattlet_source_")) {
			out[name] = number(t, m, name)
		}
	}
	return out
}

// unharmed breaks something, does what is done meanwhile, and mends it; all that the agent counts stays and rises, and where it has to
// do with a source of the agent's, its failures are counted and its last success is dated before, until it is back.
func unharmed(t *testing.T, agent, source string, breakIt, meanwhile, mend func()) {
	t.Helper()
	failures := fmt.Sprintf(`wattlet_source_errors_total{node="edge1",source=%q}`, source)
	success := fmt.Sprintf(`wattlet_source_last_success_timestamp_seconds{node="edge1",source=%q}`, source)
	before := accounts(t, agent)
	compare := func(when string) {
		t.Helper()
		after := accounts(t, agent)
		for name, was := range before {
			if now, ok := after[name]; !ok || now < was {
				t.Errorf("%s: %s was %v and is %v (there: %v)", when, name, was, now, ok)
			}
		}
		for _, f := range []string{"memory-bound", "short-forked"} {
			name := fmt.Sprintf(`wattlet_function_energy_joules_total{function=%q,namespace="openfaas-fn",node="edge1"}`, f)
			if _, ok := after[name]; !ok {
				t.Errorf("%s: there is no %s", when, name)
			}
		}
	}
	breakIt()
	broken := float64(time.Now().UnixMilli()) / 1000
	meanwhile()
	if source != "" {
		eventually(t, "failures are counted", func() error {
			if now := accounts(t, agent)[failures]; now <= before[failures] {
				return fmt.Errorf("they were %v and are %v", before[failures], now)
			}
			return nil
		})
		m, err := metrics(t.Context(), agent+"/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if last := number(t, m, success); last > broken+0.5 {
			t.Errorf("the source's last success was %v after it had ended", time.Duration((last-broken)*1e9))
		}
	}
	compare("while it is away")
	mend()
	if source != "" {
		eventually(t, "the source is asked again", func() error {
			m, err := metrics(t.Context(), agent+"/metrics")
			if err == nil && number(t, m, success) <= broken+0.5 {
				err = errors.New("its last success is of before")
			}
			return err
		})
	}
	compare("when it is back")
}

// kubeletAgent runs a second agent, which asks the kubelet and may do nothing else, and returns its address.
func (c *cluster) kubeletAgent(t *testing.T, meter string) string {
	t.Helper()
	const rights = `{"apiVersion": "v1", "kind": "List", "items": [
 {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}},
 {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"},
  "rules": [{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}]},
 {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
  "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]}]}`
	if _, err := c.kubectl(t.Context(), rights, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	token, err := c.kubectl(t.Context(), "", "create", "token", "reader")
	if err := errors.Join(err, os.WriteFile(work("reader.token"), []byte(token), 0o600), os.MkdirAll(work("second"), 0o700)); err != nil {
		t.Fatal(err)
	}
	const address = "127.0.0.1:9781"
	start(t, "second", setting("WATTLET_BIN", repository("bin", "wattlet")), "--node="+nodeName, "--meter.url="+meter, "--meter.psk-identity=wattlet",
		"--meter.psk-file="+work("clone", "bench-1.psk"), "--meter.channel=1", "--state.directory="+work("second"), "--path.proc="+work("agent", "proc"),
		"--web.listen-address="+address, "--kube=kubelet", "--kube.kubelet=https://"+nodeIP+":10250", "--kube.kubelet-insecure", "--kube.token-file="+work("reader.token"))
	eventually(t, "the second agent is ready", func() error {
		_, err := call(t.Context(), "http://"+address+"/readyz", nil)
		return err
	})
	return "http://" + address
}
