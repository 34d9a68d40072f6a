package main

import (
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	all := succeed(t)
	if again := succeed(t, "--help"); again != all {
		t.Errorf("without arguments it says\n%s\nwith --help\n%s", all, again)
	}
	for command, want := range map[string]string{
		"up":                "--for=DURATION",
		"meter read":        "--samples",
		"meter discover":    "--interface=NAME",
		"meter calibrate":   "--reference-error",
		"meter provision":   "--psk-identity",
		"meter simulate":    "square:LOW,HIGH,PERIOD[,DUTY]",
		"config import":     "--supply-voltage",
		"top":               "--workloads",
		"hub":               "--retention",
		"record":            "--compression",
		"replay":            "--estimator=\"chk\"",
		"bench attribution": "--first-seed=1",
		"version":           "Print the version.",
	} {
		if !strings.Contains(all, "\n  "+command+" ") {
			t.Errorf("the help has no %s:\n%s", command, all)
		}
		help := succeed(t, append(strings.Fields(command), "--help")...)
		if !strings.HasPrefix(help, "Usage: wattctl "+command) || !strings.Contains(help, want) {
			t.Errorf("%s --help has no %q:\n%s", command, want, help)
		}
		for l := range strings.Lines(all + help) {
			if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > 110 {
				t.Errorf("%s --help: a line of %d characters: %s", command, n, l)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if got := succeed(t, "version"); got != "wattctl dev\n" {
		t.Errorf("%q", got)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	key := "--psk-file=" + write(t, "psk", testKey)
	for _, tc := range []struct{ args, want string }{
		{"bogus", "unexpected argument bogus; see wattctl --help"},
		{"--bogus", "unknown flag --bogus; see wattctl --help"},
		{"meter", `expected one of "read", "discover", "calibrate", "provision", "simulate"; see wattctl meter --help`},
		{"meter bogus", "unexpected argument bogus; see wattctl meter --help"},
		{"config", `expected "import"; see wattctl config --help`},
		{"version 1", "unexpected argument 1"},
		{"meter read", `expected "<url>"; see wattctl meter read --help`},
		{"meter read --bogus", "unknown flag --bogus; see wattctl meter read --help"},
		{"meter read coaps://127.0.0.1 --channel=one", "--channel"},
		{"meter read coaps://127.0.0.1 --count=-1 " + key, "--count"},
		{"meter read coaps://127.0.0.1 --every=-1s " + key, "--every=-1s"},
		{"meter read coaps://127.0.0.1 --wait=0s " + key, "--wait=0s"},
		{"meter read 127.0.0.1 " + key, "write coaps://HOST"},
		{"meter read http://127.0.0.1 " + key, "the scheme must be coaps"},
		{"meter read coap://192.0.2.1 " + key, "use coaps"},
		{"meter read coaps://127.0.0.1", "needs a key: give --psk-file"},
		{"meter discover --url=coaps://127.0.0.1", "needs a key: give --psk-file"},
		{"meter discover --url=http://127.0.0.1", "the scheme must be coaps"},
		{"meter discover --url=coaps://127.0.0.1 --json", "--json and --url can't be used together"},
		{"meter discover --for=3", `--for: expected duration but got "3"`},
		{"up --for=soon", `--for: expected duration but got "soon"`},
		{"up --agent=/nowhere/wattlet", "--agent: stat /nowhere/wattlet: no such file or directory"},
	} {
		refused(t, tc.want, 2, strings.Fields(tc.args)...)
	}
}

func TestKeyFileFaults(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"meter read coaps://127.0.0.1", "meter discover --url=coaps://127.0.0.1", "meter simulate --listen=127.0.0.1:0"} {
		for _, tc := range []struct{ file, want string }{
			{"/nowhere/bench-1.psk", "/nowhere/bench-1.psk: no such file or directory; wattctl meter provision makes one"},
			{t.TempDir(), "is a directory"},
			{write(t, "short", "fifteen letters\n"), "short: 15 bytes of key; it must have 16 to 64"},
			{write(t, "long", strings.Repeat("x", 65)), "long: 65 bytes of key"},
			{write(t, "empty", ""), "empty: 0 bytes of key"},
		} {
			refused(t, tc.want, 2, append(strings.Fields(command), "--psk-file="+tc.file)...)
		}
	}
}
