package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/wattlet/wattlet/deploy/prometheus"
	"github.com/wattlet/wattlet/internal/hub"
)

func TestHubFlags(t *testing.T) {
	good := hubCmd{ScrapeInterval: time.Second, Target: []string{"pi:1", "jetson=https://10.0.0.8:9780"}}
	cfg, err := good.config()
	if err != nil || len(cfg.Targets) != 2 || cfg.Targets[0].Name != "" || cfg.Targets[0].URL != "pi:1" ||
		cfg.Targets[1].Name != "jetson" || cfg.Targets[1].URL != "https://10.0.0.8:9780" {
		t.Errorf("%+v, %v", cfg, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("groups:\n- name: g\n  rules:\n  - {record: r, expr: sum(}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*hubCmd)
		want   string
	}{
		"no targets":     {func(c *hubCmd) { c.Target = nil }, "which agents? Give --target"},
		"interval":       {func(c *hubCmd) { c.ScrapeInterval = 0 }, "--scrape.interval=0s"},
		"half a user":    {func(c *hubCmd) { c.User = "u" }, "--user and --password-file go together"},
		"retention":      {func(c *hubCmd) { c.Retention = "soon" }, "--retention=soon"},
		"retention size": {func(c *hubCmd) { c.RetentionSize = "2" }, "--retention.size=2 "},
		"target":         {func(c *hubCmd) { c.Target = []string{"ftp://pi"} }, `"ftp://pi" is not an agent's address`},
		"no rules":       {func(c *hubCmd) { c.Rules = []string{dir + "/none*"} }, "--rules=" + dir + "/none*: there is no such file"},
		"pattern":        {func(c *hubCmd) { c.Rules = []string{"["} }, "--rules=[: syntax error in pattern"},
		"rules a folder": {func(c *hubCmd) { c.Rules = []string{dir} }, "--rules=" + dir + ": read " + dir + ": is a directory"},
		"broken rules":   {func(c *hubCmd) { c.Rules = []string{dir + "/*.yaml"} }, "rules " + dir + `/bad.yaml:4:23: group "g", rule 1, "r": could not parse expression`},
		"remote write":   {func(c *hubCmd) { c.RemoteWrite = []string{"http://u:s3cret@vm"} }, "a password only in the file for remote write"},
		"protocol":       {func(c *hubCmd) { c.RemoteWrite, c.RemoteProtocol = []string{"http://vm"}, "9" }, `no protocol "9"`},
		"remote file":    {func(c *hubCmd) { c.RemoteFile = dir + "/none" }, dir + "/none: no such file"},
		"external label": {func(c *hubCmd) { c.ExternalLabel = map[string]string{"a b": "c"} }, "cannot be an external label"},
		"alertmanager":   {func(c *hubCmd) { c.Alertmanager = []string{"am"} }, `"am" is not an http URL`},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			c.Data, c.Listen = t.TempDir(), "127.0.0.1:0"
			tc.change(&c)
			err := c.Run(&app{t.Context(), new(output), new(output)})
			if usage := (usageError{}); !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

// TestHubRules evaluates Wattlet's rules and a site's, or the latter alone; --receive needs no agents.
func TestHubRules(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(site, []byte("groups: [{name: site, rules: [{record: one, expr: vector(1)}]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want []string // names of groups
	}{
		"all":  {nil, []string{"site", "wattlet-alerts", "wattlet-records"}},
		"site": {[]string{"--no-builtin-rules"}, []string{"site"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			stdout, stderr := new(output), new(output)
			args := append([]string{"hub", "--receive", "--listen=127.0.0.1:0", "--data=" + t.TempDir(), "--rules=" + filepath.Dir(site) + "/*.yaml"}, tc.args...)
			ended := make(chan struct{})
			status := -1
			go func() {
				defer close(ended)
				status = run(ctx, args, stdout, stderr)
			}()
			eventually(t, "its address", ended, func() bool { return strings.Contains(stdout.String(), "\n") })
			at, _, _ := strings.Cut(strings.TrimPrefix(stdout.String(), "hub at "), ",")
			var groups []string
			eventually(t, "rules", ended, func() bool {
				groups = ruleGroups(t, at)
				return len(groups) > 0
			})
			if slices.Sort(groups); !slices.Equal(groups, tc.want) {
				t.Errorf("groups %q, want %q", groups, tc.want)
			}
			interrupt()
			<-ended
			if status != 0 || stderr.String() != "" {
				t.Errorf("status %d, %s", status, stderr)
			}
		})
	}
}

// TestHubDoc tries what docs/hub.md says: each command line and each file.
func TestHubDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/hub.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"password": "s3cret\n", "wattlet.rules.yaml": string(prometheus.Rules())} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	commands, files := 0, 0
	for i, block := range strings.Split(string(text), "\n```") {
		if i%2 == 0 {
			continue // between two blocks
		}
		kind, block, _ := strings.Cut(block, "\n")
		switch kind {
		case "sh":
			for line := range strings.Lines(block) {
				args := strings.Fields(line)
				commands++
				parser, err := kong.New(new(struct {
					Hub hubCmd `cmd:""`
				}))
				if err == nil {
					_, err = parser.Parse(args[1:])
				}
				if err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		case "yaml":
			files++
			first, _, _ := strings.Cut(strings.TrimPrefix(block, "# "), "\n")
			name, _, _ := strings.Cut(first, ":")
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(block), 0o600); err != nil {
				t.Fatal(err)
			}
			c := hubCmd{Receive: true, ScrapeInterval: time.Second, Data: filepath.Join(dir, "data"), Listen: "127.0.0.1:0"}
			switch {
			case name == "site.yaml":
				c.Rules = []string{file}
			case name == "remote.yaml":
				c.RemoteFile = file
			case strings.HasPrefix(name, "prometheus"):
				args := []string{"check", "config", file}
				if strings.Contains(name, "agent") {
					args = append(args, "--agent")
				}
				if out, err := exec.CommandContext(t.Context(), program(t, "promtool"), args...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
				continue
			default:
				t.Errorf("what is %s?", name)
			}
			cfg, err := c.config()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if h, err := hub.New(cfg); err != nil || h.Close() != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if commands < 5 || files < 5 {
		t.Errorf("the test sees %d command lines and %d files", commands, files)
	}
}

// ruleGroups returns the names of the groups of rules that a hub evaluates, or nothing if it does not answer.
func ruleGroups(t *testing.T, hub string) (names []string) {
	t.Helper()
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(hub + "/api/v1/rules")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct{ Groups []struct{ Name string } }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	for _, g := range answer.Data.Groups {
		names = append(names, g.Name)
	}
	return names
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1B": 1, "3KB": 3072, "512MB": 536870912, "2GB": 2147483648, "1TB": 1099511627776,
		"": 0, "GB": 0, "2": 0, "2G": 0, "-1GB": 0, "1.5GB": 0, "0MB": 0, "9999999TB": 0, "1BB": 0,
	} {
		if got, ok := parseSize(text); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
}

// TestHub runs a hub until it is interrupted; a second one on its storage, and one on its port, fail and say why.
func TestHub(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stdout := new(output)
	c := hubCmd{Data: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", Target: []string{"127.0.0.1:1"}, ScrapeInterval: time.Second}
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = c.Run(&app{ctx, stdout, new(output)})
	}()
	eventually(t, "its address", ended, func() bool { return strings.Contains(stdout.String(), "\n") })
	at, _, _ := strings.Cut(strings.TrimPrefix(stdout.String(), "hub at http://"), ",")
	eventually(t, "somebody at "+at, ended, func() bool {
		conn, err := net.Dial("tcp", at)
		return err == nil && conn.Close() == nil
	})
	for want, second := range map[string]hubCmd{
		"is in use by another hub": c,
		"choose another address":   {Data: t.TempDir(), Listen: at, Target: c.Target, ScrapeInterval: time.Second},
	} {
		err := second.Run(&app{t.Context(), new(output), new(output)})
		if usage := (usageError{}); err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	interrupt()
	<-ended
	if err != nil {
		t.Error(err)
	}
}
