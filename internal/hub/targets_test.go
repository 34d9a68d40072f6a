package hub

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseTargets(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []Target
		err  string
	}{
		"empty": {"", nil, ""},
		"YAML": {"- targets: [10.0.0.7:9780, '[fe80::1]:9780']\n  labels: {rack: a}\n- targets: [pi:80]", []Target{
			{URL: "http://10.0.0.7:9780", Labels: map[string]string{"rack": "a"}},
			{URL: "http://[fe80::1]:9780", Labels: map[string]string{"rack": "a"}}, {URL: "http://pi:80"},
		}, ""},
		"JSON": {`[{"targets": ["pi:1"], "labels": {"instance": "x", "__scheme__": "https", "__metrics_path__": "/a/metrics"}}]`, []Target{
			{Name: "x", URL: "https://pi:1/a", Labels: map[string]string{}},
		}, ""},
		"typing error": {"- target: [pi:1]", nil, "line 1: field target not found"},
		"no list":      {"targets: [pi:1]", nil, "cannot unmarshal"},
		"a URL":        {"- targets: [http://pi:1]", nil, `target "http://pi:1" is not host:port`},
		"other path":   {"- targets: [pi:1]\n  labels: {__metrics_path__: /probe}", nil, `__metrics_path__ "/probe" does not`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseTargets([]byte(tc.text))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %s", err, tc.err)
				}
			} else if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add([]byte("- targets: [10.0.0.7:9780]\n  labels: {instance: pi, __scheme__: https}"))
	f.Add([]byte(`[{"targets": ["%zz", ":", "[::1"]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseTargets(text)
		if err != nil {
			return
		}
		ts := &targets{jobs: []job{{}}}
		for _, c := range all {
			if one, err := ts.check(c, 0); err == nil && (one.name == "" || one.metrics.Host == "" || one.snapshot == "") {
				t.Errorf("%+v from %+v", one, c)
			}
		}
	})
}

func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("- targets: [pi:1]\n  labels: {__param_x: y}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"no directory":     {Config{}, "no data directory"},
		"interval":         {Config{Dir: dir, ScrapeInterval: -1}, "scrape interval -1ns"},
		"scheme":           {Config{Dir: dir, Targets: []Target{{URL: "coaps://pi:1"}}}, `"coaps://pi:1" is not an agent's address`},
		"no host":          {Config{Dir: dir, Targets: []Target{{URL: ":9780"}}}, `"http://:9780" is not an agent's address`},
		"port":             {Config{Dir: dir, Targets: []Target{{URL: "pi:99999"}}}, "there is no port 99999"},
		"password in URL":  {Config{Dir: dir, Targets: []Target{{URL: "http://u:geheim@pi:1"}}}, `"http://u:xxxxx@pi:1" is not`},
		"not a URL":        {Config{Dir: dir, Targets: []Target{{URL: "http://pi:x"}}}, `invalid port ":x"`},
		"twice":            {Config{Dir: dir, Targets: []Target{{URL: "pi:1"}, {Name: "b", URL: "http://pi:1/"}}}, "name or address is there twice"},
		"name twice":       {Config{Dir: dir, Targets: []Target{{Name: "b", URL: "pi:1"}, {Name: "b", URL: "pi:2"}}}, "target b at http://pi:2"},
		"label":            {Config{Dir: dir, Targets: []Target{{URL: "pi:1", Labels: map[string]string{"job": "x"}}}}, `"job" cannot be a label`},
		"label in a file":  {Config{Dir: dir, TargetsFile: file}, file + `: target http://pi:1: "__param_x" cannot`},
		"no targets file":  {Config{Dir: dir, TargetsFile: file + "x"}, "open " + file + "x: no such file"},
		"no password file": {Config{Dir: dir, Client: Client{User: "u", PasswordFile: file + "x"}}, "password file: open " + file + "x"},
		"half a password":  {Config{Dir: dir, Client: Client{User: "u"}}, "a user and a password file"},
		"no CA":            {Config{Dir: dir, Client: Client{CA: file + "x"}}, file + "x: no such file"},
		"CA is none":       {Config{Dir: dir, Client: Client{CA: file}}, file},
		"web":              {Config{Dir: dir, WebConfig: file + "x"}, "web configuration " + file + "x"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cfg.Listen = "127.0.0.1:0"
			h, err := New(tc.cfg)
			if err == nil {
				t.Fatal("it starts", h.Close())
			}
			if wrong := (*ConfigError)(nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), tc.want) ||
				strings.Contains(err.Error(), "geheim") {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

// TestFileChanges changes the targets file while the hub runs: for the better, for the worse, and away.
func TestFileChanges(t *testing.T) {
	t.Parallel()
	one, two := newAgent(t, ""), newAgent(t, "")
	file := filepath.Join(t.TempDir(), "targets.yaml")
	write := func(text string) { // as a careful editor does, so that nobody reads half
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	list := func(a *fakeAgent, name string) string {
		return "- targets: [" + a.Listener.Addr().String() + "]\n  labels: {instance: " + name + "}\n"
	}
	write(list(one, "one"))
	h := start(t, Config{TargetsFile: file})
	scraped(t, h.base, `wattlet_node_power_watts{instance="one"}`)
	write(list(one, "one") + list(two, "two"))
	scraped(t, h.base, `wattlet_node_power_watts{instance="two"}`)
	write("- targets: [")
	eventually(t, "a complaint", func() bool { return strings.Contains(h.log.String(), "targets file is not used") })
	if n := len(h.targets.list()); n != 2 {
		t.Errorf("%d targets left of a broken file", n)
	}
	write(list(two, "two"))
	eventually(t, "a good word", func() bool { return strings.Contains(h.log.String(), "targets file is good again") })
	// A series of an agent that was taken away ends at once, not in five minutes.
	eventually(t, "the end of a series", func() bool {
		_, ok := value(t, h.base, `wattlet_node_power_watts{instance="one"}`)
		return !ok
	})
	if n := strings.Count(h.log.String(), "targets file is not used"); n != 1 {
		t.Errorf("%d complaints", n)
	}
}
