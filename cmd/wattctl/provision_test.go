package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestProvision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "bench-1.psk")
	out := succeed(t, "meter", "provision", "bench-1", "--dir="+dir, "--host=10.0.0.5")

	key := read(t, file)
	if !regexp.MustCompile(`^[A-Za-z0-9]{32}\n$`).MatchString(key) {
		t.Errorf("the key file has %q", key)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key file has mode %v, %v", info.Mode(), err)
	}
	key = strings.TrimSpace(key)
	for _, want := range []string{
		"Key written to " + file + ".",
		"\n  psk set wattlet " + key + "\n",
		"--from-file=bench-1=" + file + "\n",
		"\n  wattctl meter read coaps://10.0.0.5 --psk-identity=wattlet --psk-file=" + file + "\n",
		"\n  coap-client-openssl -m get -A 50 -u wattlet -k \"$(cat " + file + ")\" coaps://10.0.0.5/power\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if n := strings.Count(out, key); n != 1 {
		t.Errorf("the key is printed %d times, want once, for the console", n)
	}

	refused(t, file+" is there already; a new key would lock out the agents", 2, "meter", "provision", "bench-1", "--dir="+dir)
	if again := strings.TrimSpace(read(t, file)); again != key {
		t.Errorf("the key was %s and is %s", key, again)
	}
	succeed(t, "meter", "provision", "bench-2", "--dir="+dir)
	if other := strings.TrimSpace(read(t, filepath.Join(dir, "bench-2.psk"))); other == key {
		t.Error("two meters have one key")
	}
}

// The snippet for the cluster's file means what it says, whatever the names are.
func TestProvisionSnippet(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, identity, host, url string }{
		{"bench-1", "wattlet", "10.0.0.5", "coaps://10.0.0.5"},
		{"1e3", "null", "meter.lan:5685", "coaps://meter.lan:5685"},
		{"yes", "0x10", "2001:db8::1", "coaps://[2001:db8::1]"},
	} {
		out := succeed(t, "meter", "provision", tc.name, "--dir="+t.TempDir(), "--host="+tc.host, "--psk-identity="+tc.identity)
		_, snippet, _ := strings.Cut(out, "in the cluster's file:\n\n")
		snippet, _, _ = strings.Cut(snippet, "\n\n")
		type entry struct {
			URL      string `yaml:"url"`
			Identity string `yaml:"psk_identity"`
			File     string `yaml:"psk_file"`
			Meter    any    `yaml:"meter"`
			Channel  int    `yaml:"channel"`
		}
		var v struct {
			Meters, Nodes map[any]entry
		}
		if err := yaml.Unmarshal([]byte(snippet), &v); err != nil {
			t.Fatalf("%v in\n%s", err, snippet)
		}
		want := entry{URL: tc.url, Identity: tc.identity, File: "/etc/wattlet/psk/" + tc.name}
		if len(v.Meters) != 1 || v.Meters[tc.name] != want || len(v.Nodes) != 1 || v.Nodes["NODE"] != (entry{Meter: tc.name, Channel: 1}) {
			t.Errorf("%+v is in\n%s", v, snippet)
		}
	}
}

func TestProvisionRefuses(t *testing.T) {
	t.Parallel()
	dir := "--dir=" + t.TempDir()
	for _, name := range []string{"../bench", "a/b", ".hidden", "a b", "a'b", "-a", "Küche", "", strings.Repeat("a", 64)} {
		refused(t, "use letters, digits, dot, dash and underscore", 2, "meter", "provision", dir, "--", name)
	}
	refused(t, "--psk-identity \"a b\": use letters", 2, "meter", "provision", "a", dir, "--psk-identity=a b")
	refused(t, "--host: meter URL \"coaps://a/b\": write coaps://HOST", 2, "meter", "provision", "a", dir, "--host=a/b")
	refused(t, "no such file or directory", 1, "meter", "provision", "a", "--dir=/nowhere")
	if left, err := os.ReadDir(strings.TrimPrefix(dir, "--dir=")); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// What is printed can be pasted into a shell, from a directory of any name.
func TestProvisionCommands(t *testing.T) {
	t.Parallel()
	bash := program(t, "bash")
	program(t, "coap-client-openssl")
	dir := filepath.Join(t.TempDir(), "Bob's keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out := succeed(t, "meter", "provision", "bench-1", "--dir="+dir)
	sim := start(t, "meter", "simulate", "--listen=127.0.0.1:0", "--psk-file="+filepath.Join(dir, "bench-1.psk"))
	out = strings.ReplaceAll(out, "coaps://METER", sim.up())
	for command, want := range map[string]string{"wattctl meter read": "METER TIME", "coap-client-openssl": "boot_id"} {
		m := regexp.MustCompile(`(?m)^  (` + command + ` .*)$`).FindString(out)
		if strings.HasPrefix(command, "wattctl") {
			m += " --count=1"
		}
		if got := shell(t, bash, m); !strings.Contains(got, want) {
			t.Errorf("%s\nprints %q", m, got)
		}
	}
	// As the simulator prints it.
	m := regexp.MustCompile(`(?m)^  wattctl meter read .*$`).FindString(sim.stdout.String())
	if got := shell(t, bash, m+" --count=1"); !strings.Contains(got, "METER TIME") {
		t.Errorf("%s\nprints %q", m, got)
	}
}
