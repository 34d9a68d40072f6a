package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	yamlv3 "go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// Where things are.
const (
	chart      = "../../deploy/helm/wattlet"
	rulesFile  = "../../deploy/prometheus/wattlet.rules.yaml"
	dashboards = "../../deploy/grafana"
)

// kubeVersion is what charts are rendered for, unless a test says otherwise.
const kubeVersion = "v1.34.4"

var update = flag.Bool("update", false, "rewrite golden files")

// Helm's engine logs what it has done.
func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	os.Exit(m.Run())
}

// cases are the values that the chart is tried with: the files in ci.
func cases(t *testing.T) (list []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart, "ci", "*-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		list = append(list, strings.TrimSuffix(filepath.Base(f), "-values.yaml"))
	}
	if want := []string{"cri", "default", "everything", "kubelet", "minimal", "simulated"}; !slices.Equal(list, want) {
		t.Fatalf("ci has %v, want %v", list, want)
	}
	return list
}

// values reads a case's values, with more over them.
func values(t *testing.T, name, more string) map[string]any {
	t.Helper()
	read := func(text []byte) map[string]any {
		v, err := loader.LoadValues(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := map[string]any{}
	if name != "" {
		v = read(readFile(t, filepath.Join(chart, "ci", name+"-values.yaml")))
	}
	return loader.MergeMaps(v, read([]byte(more)))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// template is helm template wattlet CHART -n energy: what each of the chart's templates becomes.
func template(vals map[string]any, version string) (map[string]string, error) {
	c, err := loader.LoadDir(chart)
	if err != nil {
		return nil, err
	}
	v, err := common.ParseKubeVersion(version)
	if err != nil {
		return nil, err
	}
	caps := common.DefaultCapabilities.Copy()
	caps.KubeVersion = *v
	all, err := util.ToRenderValues(c, vals, common.ReleaseOptions{Name: "wattlet", Namespace: "energy", Revision: 1, IsInstall: true}, caps)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// object is one of Kubernetes, decoded strictly into its own type.
type object struct {
	kind, name, namespace string
	labels                map[string]string
	text                  string
	typed                 any
}

// kinds are all that the chart makes.
var kinds = map[string]func() any{
	"v1 ConfigMap":             func() any { return new(core.ConfigMap) },
	"v1 Secret":                func() any { return new(core.Secret) },
	"v1 Service":               func() any { return new(core.Service) },
	"v1 ServiceAccount":        func() any { return new(core.ServiceAccount) },
	"v1 PersistentVolumeClaim": func() any { return new(core.PersistentVolumeClaim) },
	"apps/v1 DaemonSet":        func() any { return new(apps.DaemonSet) },
	"apps/v1 Deployment":       func() any { return new(apps.Deployment) },
	"rbac.authorization.k8s.io/v1 ClusterRole":        func() any { return new(rbac.ClusterRole) },
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding": func() any { return new(rbac.ClusterRoleBinding) },
	"rbac.authorization.k8s.io/v1 Role":               func() any { return new(rbac.Role) },
	"rbac.authorization.k8s.io/v1 RoleBinding":        func() any { return new(rbac.RoleBinding) },
	"networking.k8s.io/v1 NetworkPolicy":              func() any { return new(networking.NetworkPolicy) },
	"monitoring.coreos.com/v1 PodMonitor":             func() any { return new(monitoring.PodMonitor) },
	"monitoring.coreos.com/v1 ServiceMonitor":         func() any { return new(monitoring.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule":         func() any { return new(monitoring.PrometheusRule) },
}

// decode decodes one document strictly: an unknown field, a field twice, or a kind that is not known is an error.
func decode(text string) (object, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string
		Metadata   struct {
			Name, Namespace string
			Labels          map[string]string
		}
	}
	if err := yaml.Unmarshal([]byte(text), &head); err != nil {
		return object{}, err
	}
	o := object{kind: head.Kind, name: head.Metadata.Name, namespace: head.Metadata.Namespace, labels: head.Metadata.Labels, text: text}
	make, ok := kinds[head.APIVersion+" "+head.Kind]
	if !ok {
		return o, fmt.Errorf("%s %s is no kind that the test knows", head.APIVersion, head.Kind)
	}
	o.typed = make()
	if err := yaml.UnmarshalStrict([]byte(text), o.typed); err != nil {
		return o, fmt.Errorf("%s %s: %w", o.kind, o.name, err)
	}
	return o, nil
}

// render returns all objects of a case.
func render(t *testing.T, vals map[string]any, version string) (all []object) {
	t.Helper()
	texts, err := template(vals, version)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(texts)) {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		for text := range strings.SplitSeq("\n"+texts[path], "\n---") {
			if strings.TrimSpace(text) == "" {
				continue
			}
			o, err := decode(text)
			if err != nil {
				t.Fatalf("%s: %v\n%s", path, err, text)
			}
			all = append(all, o)
		}
	}
	return all
}

// one returns the only object of a type.
func one[T any](t *testing.T, all []object) *T {
	t.Helper()
	var found []*T
	for _, o := range all {
		if typed, ok := o.typed.(*T); ok {
			found = append(found, typed)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want one", len(found), *new(T))
	}
	return found[0]
}

// count returns how many objects of a kind there are.
func count(all []object, kind string) (n int) {
	for _, o := range all {
		if o.kind == kind {
			n++
		}
	}
	return n
}

// Helm's own lint, as with --strict: it has nothing to say but that there is no icon.
func TestLint(t *testing.T) {
	for _, name := range append(cases(t), "") {
		vals := values(t, name, "")
		result := lint.RunAll(chart, vals, "energy")
		for _, m := range result.Messages {
			if m.Severity > support.InfoSev || !strings.Contains(m.Error(), "icon is recommended") {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// Every object of every case decodes strictly, for old and new versions of Kubernetes, and has the labels and names it must have.
func TestObjects(t *testing.T) {
	for _, name := range cases(t) {
		for _, version := range []string{"v1.25.0", "v1.30.0+k3s1", kubeVersion, "v1.37.0"} {
			seen := map[string]bool{}
			for _, o := range render(t, values(t, name, ""), version) {
				id := o.kind + " " + o.namespace + "/" + o.name
				if seen[id] {
					t.Errorf("%s: %s is there twice", name, id)
				}
				seen[id] = true
				if clusterWide := strings.HasPrefix(o.kind, "ClusterRole"); (o.namespace == "") != clusterWide {
					t.Errorf("%s: %s has namespace %q", name, id, o.namespace)
				}
				for label, want := range map[string]string{
					"app.kubernetes.io/instance": "wattlet", "app.kubernetes.io/part-of": "wattlet", "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/version": "0.1.0",
				} {
					if o.labels[label] != want {
						t.Errorf("%s: %s: label %s is %q, want %q", name, id, label, o.labels[label], want)
					}
				}
				if o.labels["app.kubernetes.io/name"] == "" || o.labels["app.kubernetes.io/component"] == "" {
					t.Errorf("%s: %s: labels %v", name, id, o.labels)
				}
				if name == "everything" && o.labels["team"] != "edge" {
					t.Errorf("%s: %s lacks the common label", name, id)
				}
			}
		}
	}
}

// What each case has.
func TestKinds(t *testing.T) {
	want := map[string]map[string]int{
		"default":   {"ConfigMap": 1, "Secret": 1, "ServiceAccount": 1, "ClusterRole": 1, "ClusterRoleBinding": 1, "DaemonSet": 1},
		"simulated": {"Secret": 1, "ServiceAccount": 1, "ClusterRole": 1, "ClusterRoleBinding": 1, "DaemonSet": 1, "Deployment": 1, "Service": 1},
		"minimal":   {"ConfigMap": 1, "DaemonSet": 1},
		"kubelet":   {"ConfigMap": 1, "ServiceAccount": 1, "ClusterRole": 1, "ClusterRoleBinding": 1, "DaemonSet": 1, "Service": 1, "ServiceMonitor": 1},
		"cri":       {"ConfigMap": 1, "ServiceAccount": 1, "DaemonSet": 1},
		"everything": {
			"ConfigMap": 6, "Secret": 1, "ServiceAccount": 2, "ClusterRole": 1, "ClusterRoleBinding": 1, "Role": 1, "RoleBinding": 1, "DaemonSet": 1, "Deployment": 2,
			"Service": 2, "PersistentVolumeClaim": 1, "PodMonitor": 1, "PrometheusRule": 1, "NetworkPolicy": 3,
		},
	}
	for _, name := range cases(t) {
		got := map[string]int{}
		for _, o := range render(t, values(t, name, ""), kubeVersion) {
			got[o.kind]++
		}
		if !maps.Equal(got, want[name]) {
			t.Errorf("%s has %v, want %v", name, got, want[name])
		}
	}
}

// The manifests of the default values, and what is said to who installs them.
func TestGoldenManifests(t *testing.T) {
	for _, name := range []string{"default", "simulated"} {
		texts, err := template(values(t, name, ""), kubeVersion)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, path := range slices.Sorted(maps.Keys(texts)) {
			text := strings.Trim(texts[path], "\n")
			if text == "" || strings.HasSuffix(path, ".tpl") {
				continue
			}
			fmt.Fprintf(&all, "# Source: %s\n", path)
			if strings.HasSuffix(path, ".txt") {
				text = "# " + strings.ReplaceAll(text, "\n", "\n# ")
			}
			for line := range strings.Lines(text) {
				all.WriteString(strings.TrimRight(line, " \n") + "\n")
			}
			all.WriteString("---\n")
		}
		golden := filepath.Join("testdata", name+".golden.yaml")
		if *update {
			if err := os.WriteFile(golden, []byte(all.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if want := string(readFile(t, golden)); all.String() != want {
			t.Errorf("%s is not what the chart becomes: run make chart and read the difference\n%s", golden, all.String())
		}
	}
}

// values.yaml and the table are what the schema says; -update makes them so.
func TestGoldenValues(t *testing.T) {
	if *update {
		if err := write(chart); err != nil {
			t.Fatal(err)
		}
	}
	files, err := generate(chart)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got := readFile(t, filepath.Join(chart, name)); !bytes.Equal(got, want) {
			t.Errorf("%s is not current: run make chart", name)
		}
	}
}

// A default is written as people write YAML, and comes back as what it is.
func TestFlow(t *testing.T) {
	for text, want := range map[string]string{
		`""`: `""`, `"off"`: `"off"`, `"1s"`: "1s", "1": "1", "false": "false", "[]": "[]", "{}": "{}", `{"a": {"b": "1", "c": ["*"]}}`: `{a: {b: "1", c: ['*']}}`,
	} {
		var n yamlv3.Node
		if err := yamlv3.Unmarshal([]byte(text), &n); err != nil {
			t.Fatal(err)
		}
		got, err := flow(n.Content[0])
		if err != nil || got != want {
			t.Errorf("%s is written as %s, %v, want %s", text, got, err, want)
		}
		var before, after any
		if err := yaml.Unmarshal([]byte(text), &before); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(got), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%s becomes %v, %v", text, after, err)
		}
	}
}

// The generator refuses a schema that leaves something open.
func TestSchemaMustBeStrict(t *testing.T) {
	for text, want := range map[string]string{
		`{"properties": {"a": {"default": 1}}, "additionalProperties": false}`:                                            "a has a default and no description",
		`{"properties": {"a": {"description": "x"}}, "additionalProperties": false}`:                                      "a has neither a default nor parts",
		`{"properties": {"a": {"description": "x", "default": 1}}}`:                                                       "nothing may be",
		`{"properties": {"a": {"properties": {"b": {"description": "x", "default": 1}}}}, "additionalProperties": false}`: "a has neither",
		``: "it is empty",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := between([]byte("no table"), "x"); err == nil {
		t.Error("a README without a place for the table is taken")
	}
}

// Wrong values are refused with what is wrong and where.
func TestWrongValues(t *testing.T) {
	for name, tc := range map[string]struct{ base, more, want string }{
		"nothing":             {"", "", "nothing says what measures your nodes"},
		"unknown key":         {"default", "hubb: {enabled: true}", "'hubb' not allowed"},
		"deeper":              {"default", "agent: {image: {tagg: x}}", "'tagg' not allowed"},
		"mode":                {"default", "kube: {mode: auto}", "at '/kube/mode': value must be one of 'watch', 'kubelet', 'cri', 'none'"},
		"type":                {"default", "agent: {web: {port: high}}", "at '/agent/web/port': got string, want integer"},
		"key in the file":     {"default", "cluster: {meters: {bench-1: {psk_file: x}}}", "'psk_file' not allowed"},
		"URL":                 {"default", "cluster: {meters: {bench-1: {url: 'http://10.0.0.5'}}}", "at '/cluster/meters/bench-1/url'"},
		"channel":             {"default", "cluster: {nodes: {raspberrypi: {channel: 0}}}", "at '/cluster/nodes/raspberrypi/channel'"},
		"short key":           {"default", "keys: {values: {bench-1: short}}", "at '/keys/values/bench-1': minLength: got 5, want 16"},
		"tolerations":         {"default", "agent: {tolerations: [{kee: x}]}", "'kee' not allowed"},
		"no key":              {"default", "cluster: {meters: {bench-2: {url: 'coaps://10.0.0.6'}}}", "no key for meter bench-2: --set-file keys.values.bench-2="},
		"unknown meter":       {"default", "cluster: {nodes: {pi: {meter: bench-3, channel: 1}}}", "cluster.nodes.pi: no meter bench-3"},
		"no channel":          {"default", "cluster: {nodes: {pi: {meter: bench-1}}}", "cluster.nodes.pi: say which channel"},
		"measured twice":      {"default", "cluster: {nodes: {raspberrypi: {sysfs: hwmon}}}", "cluster.nodes.raspberrypi: give either"},
		"not measured":        {"default", "cluster: {nodes: {pi: {agent: raspberrypi}}}", "cluster.nodes.pi: nothing measures it"},
		"name is taken":       {"default", "simulator: {enabled: true, name: bench-1}", "cluster.meters.bench-1: the simulated meter has that name"},
		"scraped twice":       {"default", "monitoring: {podMonitor: true, serviceMonitor: true}", "all would be scraped twice"},
		"flag without --":     {"default", "agent: {extraArgs: [tick=1s]}", "at '/agent/extraArgs/0'"},
		"digest":              {"default", "agent: {image: {digest: 'sha256:abc'}}", "at '/agent/image/digest'"},
		"boolean as a string": {"default", "hub: {enabled: 'yes'}", "at '/hub/enabled': got string, want boolean"},
	} {
		if _, err := template(values(t, tc.base, tc.more), kubeVersion); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// The rules and dashboards that are rendered are those of their one source.
func TestRulesAndDashboards(t *testing.T) {
	all := render(t, values(t, "everything", ""), kubeVersion)
	var want, got any
	if err := yaml.Unmarshal(readFile(t, rulesFile), &want); err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.kind == "PrometheusRule" {
			var rule struct{ Spec any }
			if err := yaml.Unmarshal([]byte(o.text), &rule); err != nil {
				t.Fatal(err)
			}
			got = rule.Spec
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the PrometheusRule has not the rules of %s", rulesFile)
	}
	files, err := filepath.Glob(filepath.Join(dashboards, "*.json"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%v, %v", files, err)
	}
	there := map[string]string{}
	for _, o := range all {
		m, ok := o.typed.(*core.ConfigMap)
		if !ok || o.labels["grafana_dashboard"] != "1" {
			continue
		}
		if m.Namespace != "monitoring" || m.Annotations["grafana_folder"] != "Wattlet" {
			t.Errorf("%s: namespace %s, annotations %v", m.Name, m.Namespace, m.Annotations)
		}
		if size := len(o.text); size > 200_000 { // kubectl apply keeps a copy in an annotation, which may have 256 KiB
			t.Errorf("%s has %d bytes", m.Name, size)
		}
		maps.Copy(there, m.Data)
	}
	for _, f := range files {
		if there[filepath.Base(f)] != string(readFile(t, f)) {
			t.Errorf("no ConfigMap has %s as it is", f)
		}
	}
	if len(there) != len(files) {
		t.Errorf("%d dashboards, want %d", len(there), len(files))
	}
	// Files of the chart are links: there is nothing to keep equal.
	for _, link := range []string{"wattlet.rules.yaml", "grafana"} {
		if info, err := os.Lstat(filepath.Join(chart, "files", link)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("files/%s is no link, %v", link, err)
		}
	}
}
