package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-jsonnet"
	"sigs.k8s.io/yaml"
)

const library = "../../deploy/jsonnet"

// machine finds the library.
func machine() *jsonnet.VM {
	vm := jsonnet.MakeVM()
	vm.Importer(&jsonnet.FileImporter{JPaths: []string{library}})
	return vm
}

// evaluate returns what a snippet beside the library becomes.
func evaluate(t *testing.T, snippet string) map[string]any {
	t.Helper()
	text, err := machine().EvaluateAnonymousSnippet("test", snippet)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func asAny(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The mixin has the rules of deploy/prometheus, all of them in their order, and the dashboards of deploy/grafana.
func TestMixin(t *testing.T) {
	m := evaluate(t, `local m = import 'mixin.libsonnet';
		{rules: {groups: m.prometheusRules.groups + m.prometheusAlerts.groups}, alerts: m.prometheusAlerts, dashboards: m.grafanaDashboards}`)
	if !reflect.DeepEqual(m["rules"], asAny(t, readFile(t, rulesFile))) {
		t.Errorf("the mixin's rules are not those of %s", rulesFile)
	}
	if text, err := yaml.Marshal(m["alerts"]); err != nil || strings.Contains(string(text), "record:") || !strings.Contains(string(text), "WattletAgentDown") {
		t.Errorf("alerts: %v\n%s", err, text)
	}
	files, err := filepath.Glob(filepath.Join(dashboards, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	made := m["dashboards"].(map[string]any)
	if len(made) != len(files) || len(files) != 5 {
		t.Errorf("%d dashboards, there are %d", len(made), len(files))
	}
	for _, f := range files {
		if !reflect.DeepEqual(made[filepath.Base(f)], asAny(t, readFile(t, f))) {
			t.Errorf("%s is another in the mixin", f)
		}
	}
	promtool, err := exec.LookPath("promtool")
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v; make helm-test gets it", err)
	case err != nil:
		t.Skipf("%v, which is in Debian's package prometheus; make helm-test gets it", err)
	}
	text, err := yaml.Marshal(m["rules"])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// generic takes an object apart, without what is Helm's.
func generic(t *testing.T, text []byte) map[string]any {
	t.Helper()
	o := asAny(t, text).(map[string]any)
	clean := func(meta any) {
		m, _ := meta.(map[string]any)
		for _, key := range []string{"labels", "annotations"} {
			some, _ := m[key].(map[string]any)
			for _, name := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "checksum/cluster", "checksum/keys"} {
				delete(some, name)
			}
		}
	}
	clean(o["metadata"])
	if spec, ok := o["spec"].(map[string]any); ok {
		if template, ok := spec["template"].(map[string]any); ok {
			clean(template["metadata"])
		}
	}
	if data, ok := o["data"].(map[string]any); ok { // one is YAML, one JSON
		data["wattlet.yaml"] = asAny(t, []byte(data["wattlet.yaml"].(string)))
	}
	return o
}

// The library makes what the chart makes, object by object and field by field.
func TestLibraryIsTheChart(t *testing.T) {
	for name, tc := range map[string]struct{ jsonnet, helm string }{
		"meters": {
			`meters: {'bench-1': {url: 'coaps://10.0.0.5'}, 'old-board': {url: 'udp://10.0.0.7:10000', supply_voltage: '5.1V'}},
			 nodes: {raspberrypi: {meter: 'bench-1', channel: 5}, pynq: {meter: 'old-board', channel: 2}, switch: {meter: 'bench-1', channel: 4, agent: 'raspberrypi'}},
			 functions: [{workload: 'a/b', namespace: 'edge', 'function': 'resize'}], keysSecret: 'my-keys',
			 monitoringNamespace: 'monitoring', monitoringLabels: {release: 'x'}, commonLabels: {team: 'edge'},`,
			`{cluster: {meters: {bench-1: {url: 'coaps://10.0.0.5'}, old-board: {url: 'udp://10.0.0.7:10000', supply_voltage: 5.1V}},
			 nodes: {raspberrypi: {meter: bench-1, channel: 5}, pynq: {meter: old-board, channel: 2}, switch: {meter: bench-1, channel: 4, agent: raspberrypi}},
			 functions: [{workload: a/b, namespace: edge, function: resize}]}, keys: {existingSecret: my-keys},
			 monitoring: {podMonitor: true, rules: true, namespace: monitoring, labels: {release: x}}, commonLabels: {team: edge}}`,
		},
		"sensors of the board": {
			`nodes: {nas: {sysfs: 'powercap'}}, user: 0, interval: '5s', watchdogPort: 9091, gatewayUrls: ['http://gateway-metrics.openfaas:8082/metrics'], stateDirectory: '/srv/wattlet', version: '0.1.0', image: 'example.org/wattlet:7',`,
			`{cluster: {nodes: {nas: {sysfs: powercap}}}, kube: {watchdogPort: 9091}, gateway: {urls: ["http://gateway-metrics.openfaas:8082/metrics"]}, monitoring: {podMonitor: true, rules: true, interval: 5s},
			 agent: {runAsUser: 0, state: {hostPath: /srv/wattlet}, image: {repository: example.org/wattlet, tag: "7"}}}`,
		},
	} {
		made := evaluate(t, `(import 'wattlet.libsonnet')({namespace: 'energy', `+tc.jsonnet+`})`)
		charts := map[string]object{}
		for _, o := range render(t, values(t, "", tc.helm), kubeVersion) {
			charts[o.kind] = o
		}
		if len(made) != len(charts) || len(made) != 7 {
			t.Errorf("%s: the library makes %d objects, the chart %d", name, len(made), len(charts))
		}
		for field, o := range made {
			text, err := yaml.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			d, err := decode(string(text))
			if err != nil {
				t.Errorf("%s: %s: %v", name, field, err)
				continue
			}
			got, want := generic(t, text), generic(t, []byte(charts[d.kind].text))
			if !reflect.DeepEqual(got, want) {
				a, _ := yaml.Marshal(got)
				b, _ := yaml.Marshal(want)
				t.Errorf("%s: %s is\n%s\nin the chart\n%s", name, field, a, b)
			}
		}
	}
}

// The example of the README, beside a stand-in for kube-prometheus that has the fields it adds to.
func TestKubePrometheus(t *testing.T) {
	readme := string(readFile(t, filepath.Join(library, "README.md")))
	_, example, ok := strings.Cut(readme, "```jsonnet\n")
	example, _, ok2 := strings.Cut(example, "```")
	if !ok || !ok2 {
		t.Fatal("README.md has no example")
	}
	imports := regexp.MustCompile(`import '([^']+)'`).FindAllStringSubmatch(example, -1)
	if len(imports) != 2 || imports[1][1] != "github.com/wattlet/wattlet/deploy/jsonnet/kube-prometheus.libsonnet" {
		t.Fatalf("README.md imports %v", imports)
	}
	standin := `{
		values:: {
			common: {namespace: 'default'},
			prometheus: {namespace: $.values.common.namespace, namespaces: ['default', 'kube-system', $.values.common.namespace]},
			grafana: {dashboards: {'own.json': {}}},
		},
		prometheus: {namespaces: $.values.prometheus.namespaces},
		grafana: {dashboards: $.values.grafana.dashboards},
	}`
	example = strings.ReplaceAll(example, imports[0][0], standin)
	example = strings.ReplaceAll(example, imports[1][1], "kube-prometheus.libsonnet")
	made := evaluate(t, example)
	if got := made["prometheus-namespaces"].([]any); !slices.Contains(got, any("wattlet")) || len(got) != 4 {
		t.Errorf("Prometheus may look into %v", got)
	}
	if got := made["grafana-dashboards"].(map[string]any); len(got) != 6 {
		t.Errorf("%d dashboards, want the five and one's own", len(got))
	}
	for name, namespace := range map[string]string{"wattlet-daemonSet": "wattlet", "wattlet-podMonitor": "monitoring", "wattlet-prometheusRule": "monitoring"} {
		o, _ := made[name].(map[string]any)
		meta, _ := o["metadata"].(map[string]any)
		if meta["namespace"] != namespace {
			t.Errorf("%s: %v", name, meta)
		}
	}
	for _, missing := range []string{"namespace", "nodes"} {
		params := map[string]string{"namespace": "namespace: 'x',", "nodes": "nodes: {a: {sysfs: 'hwmon'}},"}
		delete(params, missing)
		var rest string
		for _, p := range params {
			rest += p
		}
		_, err := machine().EvaluateAnonymousSnippet("test", "(import 'wattlet.libsonnet')({"+rest+"})")
		if err == nil || !strings.Contains(err.Error(), ": "+missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}
