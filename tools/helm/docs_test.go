package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// pages are those that tell of the chart.
var pages = []string{"../../docs/kubernetes.md", "../../docs/openfaas.md", chart + "/README.md"}

// blocks returns the code of a page in one language.
func blocks(t *testing.T, page, language string) (list []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(readFile(t, page)), -1) {
		list = append(list, m[1])
	}
	return list
}

// What the page tells people to type does what it says: each helm command renders with the page's own cluster.yaml, and manifests
// decode strictly.
func TestCommandsOfThePage(t *testing.T) {
	page := pages[0]
	yamls := blocks(t, page, "yaml")
	var cluster string
	for _, text := range yamls {
		switch {
		case strings.HasPrefix(text, "# cluster.yaml\n"):
			cluster = text
		case strings.HasPrefix(text, "# function.yaml\n"):
			for _, o := range strings.Split(text, "---\n")[1:] { // the first is the namespace
				if _, err := decode(o); err != nil {
					t.Error(err)
				}
			}
		default:
			if err := yaml.UnmarshalStrict([]byte(text), new(any)); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		}
	}
	if cluster == "" || len(yamls) != 3 {
		t.Fatalf("%s has %d blocks of YAML, cluster.yaml is %q", page, len(yamls), cluster)
	}
	commands := 0
	for _, text := range blocks(t, page, "sh") {
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
			if !strings.HasPrefix(line, "helm install") && !strings.HasPrefix(line, "helm upgrade") {
				continue
			}
			commands++
			if !strings.Contains(line, " wattlet deploy/helm/wattlet -n wattlet ") {
				t.Errorf("%s: another release, chart or namespace", line)
			}
			vals := map[string]any{}
			if strings.Contains(line, "-f cluster.yaml") || strings.Contains(line, "reuse-values") {
				v, err := loader.LoadValues(strings.NewReader(cluster + "keys: {values: {bench-1: an-example-not-a-secret-0123456789}}\n"))
				if err != nil {
					t.Fatal(err)
				}
				vals = v
			}
			for _, m := range regexp.MustCompile(`--set ([^ \n]+)`).FindAllStringSubmatch(line, -1) {
				if err := strvals.ParseInto(m[1], vals); err != nil {
					t.Errorf("%s: %v", m[1], err)
				}
			}
			if got := render(t, vals, kubeVersion); count(got, "DaemonSet") != 1 {
				t.Errorf("%s: no DaemonSet", line)
			}
		}
	}
	if commands != 5 {
		t.Errorf("%d helm commands, want 5: has the page another way to write them?", commands)
	}
}

// The Service that leads to the gateway's metrics has the name and the port of the URL that the values have, and that URL reaches the agent.
func TestGatewayOfThePage(t *testing.T) {
	_, text, ok := strings.Cut(blocks(t, pages[1], "sh")[0], "<<'EOF'\n")
	text, _, end := strings.Cut(text, "\nEOF")
	o, err := decode(text)
	if err != nil || !ok || !end {
		t.Fatalf("%v: %s", err, text)
	}
	s, isService := o.typed.(*core.Service)
	if !isService || s.Spec.ClusterIP != core.ClusterIPNone || len(s.Spec.Ports) != 1 {
		t.Fatalf("%s is no headless Service with one port", text)
	}
	url := fmt.Sprintf("http://%s.%s:%d/metrics", s.Name, s.Namespace, s.Spec.Ports[0].Port)
	args := one[apps.DaemonSet](t, render(t, values(t, "default", blocks(t, pages[1], "yaml")[0]), kubeVersion)).Spec.Template.Spec.Containers[0].Args
	if !slices.Contains(args, "--gateway.url="+url) {
		t.Errorf("the agent has %q, the Service is %s", args, url)
	}
}

// paths returns the names of all values, those with parts included.
func (v value) paths(prefix string) (list []string) {
	for _, p := range v.parts {
		list = append(list, prefix+p.name)
		list = append(list, p.paths(prefix+p.name+".")...)
	}
	return list
}

// Values that pages, notes and comments name are there.
func TestValuesNamedInText(t *testing.T) {
	root, err := parse(readFile(t, filepath.Join(chart, schemaFile)))
	if err != nil {
		t.Fatal(err)
	}
	there := root.paths("")
	var tops []string
	for _, p := range root.parts {
		if len(p.parts) > 0 {
			tops = append(tops, p.name)
		}
	}
	named := regexp.MustCompile(`\b(` + strings.Join(tops, "|") + `)\.[A-Za-z]+(\.[A-Za-z]+)*`)
	// Names of files and of labels, and what a value that is a mapping has in it.
	other := regexp.MustCompile(`\.(md|yaml)$|^keys\.values\.|^monitoring\.labels\.|^cluster\.(nodes|meters)\.|^monitoring\.coreos\.com`)
	texts := []string{string(readFile(t, chart+"/templates/NOTES.txt")), string(readFile(t, chart+"/templates/_helpers.tpl"))}
	for _, page := range pages {
		texts = append(texts, string(readFile(t, page)))
	}
	checked := 0
	for _, text := range texts {
		for _, name := range named.FindAllString(text, -1) {
			if other.MatchString(name) {
				continue
			}
			checked++
			if !slices.Contains(there, name) {
				t.Errorf("%s is named and is no value", name)
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d names were found", checked)
	}
}

// Queries on the pages are PromQL, and their recorded series are those of the rules.
func TestQueriesOfThePages(t *testing.T) {
	queries := map[string]bool{}
	rules := string(readFile(t, rulesFile))
	for _, page := range pages {
		for _, text := range blocks(t, page, "promql") {
			queries[text] = true
		}
		for _, m := range regexp.MustCompile("(?m)^\\| [^|]+ \\| `([a-z_:]*(?:wattlet|rate|increase)[^`]*)` \\|$").FindAllStringSubmatch(string(readFile(t, page)), -1) {
			queries[m[1]] = true
			if strings.Contains(m[1], ":") && !strings.Contains(rules, "record: "+m[1]+"\n") {
				t.Errorf("%s is not recorded", m[1])
			}
		}
	}
	if len(queries) != 6 {
		t.Errorf("%d queries, want 6: %q", len(queries), slices.Collect(maps.Keys(queries)))
	}
	promtool, err := exec.LookPath("promtool")
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v; make helm-test gets it", err)
	case err != nil:
		t.Skipf("%v, which is in Debian's package prometheus; make helm-test gets it", err)
	}
	file := "groups:\n  - name: pages\n    rules:\n"
	i := 0
	for q := range queries {
		file += fmt.Sprintf("      - record: query%d\n        expr: %q\n", i, q)
		i++
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	writeFile(t, path, file)
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Links of the pages lead to files and sections that there are.
func TestLinks(t *testing.T) {
	anchor := func(title string) string {
		return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(title), ""), " ", "-")
	}
	found := 0
	for _, page := range append(slices.Clone(pages), library+"/README.md") {
		for _, m := range regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]+))?\)`).FindAllStringSubmatch(string(readFile(t, page)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if m[2] == "" {
				continue
			}
			sections := regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(readFile(t, target)), -1)
			if !slices.ContainsFunc(sections, func(s []string) bool { return anchor(s[1]) == m[2] }) {
				t.Errorf("%s: %s has no section %s", page, target, m[2])
			}
		}
	}
	if found < 25 {
		t.Errorf("only %d links were found", found)
	}
}
