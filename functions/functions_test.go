// Package functions_test runs the functions as the programs that they are: alone, behind a watchdog, and on other processors.
package functions_test

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wattlet/wattlet/functions/internal/serve"
)

// calls has for each function a small invocation, and how its answer begins.
var calls = map[string]struct{ query, body, want string }{
	"analyze-sentence": {"", `{"sentence": "It works."}`, `{"sentence":"It works.","tokens":[{"text":"It","tag":"PRP","start":0,"end":2},`},
	"cpu-bound":        {"below=10000", "", `{"below":10000,"primes":1229}`},
	"memory-bound":     {"mib=4&steps=10000", "", `{"mode":"chase","mib":4,"steps":10000,"sum":594223453}`},
	"short-forked":     {"below=1000&children=3&parallel=2", "", `{"children":3,"below":1000,"primes":168}`},
	"io-bound":         {"kib=100", "", `{"kib":100,"block_kib":64,"syncs":2,"crc32":"11a5b51e"}`},
	"resize-image":     {"source=40&width=20&format=png", "", "\x89PNG\r\n"},
	"gzip":             {"", "energy energy energy", `{"level":6,"bytes_in":20,"bytes_out":`},
}

// names returns the functions there are: the folders with a stack.yaml.
func names(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("*/stack.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Dir(f))
	}
	commands, err := filepath.Glob("*/main.go")
	if err != nil || len(commands) != len(names) || len(names) != len(calls) {
		t.Fatalf("%d programs, %d stack.yaml, %d calls here, %v", len(commands), len(names), len(calls), err)
	}
	return names
}

// bin has the functions for each processor that one of the tests needs.
var bin string

func TestMain(m *testing.M) {
	code := 1
	if dir, err := os.MkdirTemp("", "functions"); err == nil {
		bin = dir
		code = m.Run()
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// build makes all functions, static, for one processor.
func build(t testing.TB, goarch string) string {
	t.Helper()
	dir := filepath.Join(bin, goarch)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir+"/", "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+goarch, "GOARM=7")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range names(t) {
		f, err := elf.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if f.Section(".interp") != nil {
			t.Errorf("%s is not static", name)
		}
		f.Close()
	}
	return dir
}

// program is a function that runs.
type program struct {
	cmd          *exec.Cmd
	url, metrics string
	rest         *sync.WaitGroup // reads what else it says
	log          *bytes.Buffer
}

// start runs a command with an environment and nothing else, as in an empty container, and waits until it listens.
func start(t testing.TB, environ []string, command ...string) *program {
	t.Helper()
	p := &program{cmd: exec.CommandContext(t.Context(), command[0], command[1:]...), rest: &sync.WaitGroup{}, log: &bytes.Buffer{}}
	p.cmd.Env = append([]string{"TMPDIR=" + t.TempDir()}, environ...)
	p.cmd.Dir = t.TempDir()
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stderr)
	for p.url == "" {
		line, err := lines.ReadString('\n')
		p.log.WriteString(line)
		if err != nil {
			t.Fatalf("it ended and said %q", p.log)
		}
		if m := regexp.MustCompile(`msg=serving .*listen=(\S+)(?: metrics=(\S+))?`).FindStringSubmatch(line); m != nil {
			p.url, p.metrics = "http://"+m[1], m[2]
		}
	}
	p.rest.Go(func() { _, _ = io.Copy(p.log, lines) })
	return p
}

// stop ends it in order.
func (p *program) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	p.rest.Wait()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v: it said %s", err, p.log)
	}
}

func ask(t testing.TB, address, body string) (int, string) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// invoke calls a function twice: both answers are right and the same.
func invoke(t *testing.T, name, address string) {
	t.Helper()
	call := calls[name]
	code, once := ask(t, address+"/?"+call.query, call.body)
	_, twice := ask(t, address+"/?"+call.query, call.body)
	if code != http.StatusOK || !strings.HasPrefix(once, call.want) || once != twice {
		t.Errorf("%d %q and %q, want %q", code, once, twice, call.want)
	}
}

// TestPrograms has each function serve alone, with its own metrics, and as the child of a watchdog.
func TestPrograms(t *testing.T) {
	dir := build(t, runtime.GOARCH)
	for _, name := range names(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alone := start(t, []string{"FUNCTION_LISTEN=127.0.0.1:0", "FUNCTION_METRICS_LISTEN=127.0.0.1:0", "FUNCTION_LINGER=0s"}, filepath.Join(dir, name))
			if code, body := ask(t, alone.url+"/_/health", ""); code != http.StatusOK {
				t.Error(code, body)
			}
			invoke(t, name, alone.url)
			if code, body := ask(t, alone.url+"/_/ready", ""); code != http.StatusOK { // now that it has served
				t.Error(code, body)
			}
			if code, body := ask(t, alone.url+"/?no-such-parameter=1", calls[name].body); code != http.StatusBadRequest || strings.Count(body, "\n") != 1 {
				t.Error(code, body)
			}
			method := map[bool]string{true: "get", false: "post"}[calls[name].body == ""]
			_, text := ask(t, "http://"+alone.metrics+"/metrics", "")
			for _, want := range []string{
				fmt.Sprintf("\nhttp_requests_total{code=\"200\",method=%q} 2\n", method),
				fmt.Sprintf("\nhttp_requests_total{code=\"400\",method=%q} 1\n", method),
				fmt.Sprintf("\nhttp_request_duration_seconds_count{code=\"200\",method=%q} 2\n", method),
				"\nhttp_requests_in_flight 0\n",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			alone.stop(t)

			// A watchdog in HTTP mode is a proxy to its child, which has its environment.
			upstream := "http://127.0.0.1:" + freePort(t)
			child := start(t, []string{"mode=http", "port=8080", "fprocess=/function", "upstream_url=" + upstream}, filepath.Join(dir, name))
			if child.url != upstream || child.metrics != "" {
				t.Errorf("it listens on %s, metrics on %q, want %s and none", child.url, child.metrics, upstream)
			}
			target, err := url.Parse(upstream)
			if err != nil {
				t.Fatal(err)
			}
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			watchdog := &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}, ReadHeaderTimeout: time.Minute}
			go func() { _ = watchdog.Serve(l) }()
			invoke(t, name, "http://"+l.Addr().String())
			watchdog.Close()
			child.stop(t)
		})
	}
}

// freePort returns a port that is free now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// What is wrong with the way a function is started is one line and code 2; what goes wrong later is code 1.
func TestStartFails(t *testing.T) {
	dir := build(t, runtime.GOARCH)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tc := range map[string]struct {
		environ, arg, want string
		code               int
	}{
		"setting":  {"FUNCTION_TIMEOUT=soon", "", `cpu-bound: FUNCTION_TIMEOUT="soon": want a time`, 2},
		"argument": {"", "--help", "cpu-bound: takes no arguments", 2},
		"port":     {"FUNCTION_LISTEN=" + taken.Addr().String(), "", "cpu-bound: listening on " + taken.Addr().String(), 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(dir, "cpu-bound"), strings.Fields(tc.arg)...)
			cmd.Env = []string{tc.environ}
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.HasPrefix(string(out), tc.want) || strings.Count(string(out), "\n") != 1 {
				t.Errorf("code %d, %q, want %d, %q", code, out, tc.code, tc.want)
			}
		})
	}
}

// TestARM runs the functions as a board would, by emulation.
func TestARM(t *testing.T) {
	if os.Getenv("WATTLET_EMULATED") == "" {
		t.Skip("takes minutes of compiling: make functions-test runs it")
	}
	for goarch, emulator := range map[string]string{"arm64": "qemu-aarch64-static", "arm": "qemu-arm-static"} {
		t.Run(goarch, func(t *testing.T) {
			dir := build(t, goarch)
			for _, name := range names(t) {
				if name == "short-forked" {
					continue // its children would need an emulator of their own
				}
				p := start(t, []string{"FUNCTION_LISTEN=127.0.0.1:0", "FUNCTION_METRICS_LISTEN=127.0.0.1:0", "FUNCTION_LINGER=0s"}, emulator, filepath.Join(dir, name))
				invoke(t, name, p.url)
				p.stop(t)
			}
		})
	}
}

// stack is what a stack.yaml may hold here.
type stack struct {
	Version  string
	Provider struct{ Name, Gateway string }
	// By name.
	Functions map[string]struct {
		SkipBuild    bool `yaml:"skip_build"`
		Image        string
		ReadOnlyRoot bool `yaml:"readonly_root_filesystem"`
		Environment  map[string]string
		Labels       map[string]string
		Requests     map[string]string
		Limits       map[string]string
	}
}

// Each function's stack.yaml is about that function, and its environment is one that the function takes.
func TestStacks(t *testing.T) {
	for _, name := range names(t) {
		b, err := os.ReadFile(filepath.Join(name, "stack.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var s stack
		dec := yaml.NewDecoder(bytes.NewReader(b))
		dec.KnownFields(true)
		if err := dec.Decode(&s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f, ok := s.Functions[name]
		if !ok || len(s.Functions) != 1 || s.Provider.Name != "openfaas" || s.Version != "1.0" {
			t.Errorf("%s: %+v", name, s)
		}
		if f.Image != "${IMAGE_REPOSITORY:-localhost}/"+name+":${VERSION:-latest}" || !f.SkipBuild || f.ReadOnlyRoot == (name == "io-bound") {
			t.Errorf("%s: %+v", name, f)
		}
		var environ []string
		for k, v := range f.Environment {
			environ = append(environ, k+"="+v)
		}
		if _, err := serve.FromEnvironment(serve.Function{Name: name, InFlight: 1}, environ); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if f.Requests["cpu"] == "" || f.Requests["memory"] == "" || f.Limits["memory"] == "" || f.Limits["cpu"] != "" {
			t.Errorf("%s: requests %v, limits %v", name, f.Requests, f.Limits)
		}
	}
}

// README.md has each function, parameter and setting, and its examples are answered as it says.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	for _, name := range names(t) {
		if !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("README.md does not tell of %s", name)
		}
		main, err := os.ReadFile(filepath.Join(name, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`q\.(?:Int|Choice)\("(\w+)"`).FindAllSubmatch(main, -1) {
			if !strings.Contains(readme, "`"+string(m[1])+"`") {
				t.Errorf("README.md does not tell of %s's parameter %s", name, m[1])
			}
		}
	}
	config, err := os.ReadFile("internal/serve/config.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`envPrefix \+ "(\w+)"`).FindAllSubmatch(config, -1) {
		if !strings.Contains(readme, "`FUNCTION_"+string(m[1])+"`") {
			t.Errorf("README.md does not tell of FUNCTION_%s", m[1])
		}
	}

	// Examples: a block of $ curl ... 127.0.0.1:8080... and what comes, under a heading that names the function. A shell runs
	// them against the function on another port.
	dir := build(t, runtime.GOARCH)
	examples := regexp.MustCompile("(?s)\n### `([a-z-]+)`\n(.*?)(?:\n###? |$)")
	block := regexp.MustCompile("(?s)```console\n(.*?)```")
	ran := map[string]bool{}
	for at := 0; at < len(readme); {
		m := examples.FindStringSubmatchIndex(readme[at:])
		if m == nil {
			break
		}
		name, text := readme[at+m[2]:at+m[3]], readme[at+m[4]:at+m[5]]
		at += m[5]
		p := start(t, []string{"FUNCTION_LISTEN=127.0.0.1:0", "FUNCTION_METRICS_LISTEN=off", "FUNCTION_LINGER=0s"}, filepath.Join(dir, name))
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			for example := range strings.SplitSeq(strings.TrimPrefix(b[1], "$ "), "\n$ ") {
				command, want, _ := strings.Cut(example, "\n")
				got := shell(t, strings.ReplaceAll(command, "http://127.0.0.1:8080", p.url))
				if strings.TrimSpace(got) != strings.TrimSpace(want) {
					t.Errorf("%s\ngot  %s\nwant %s", command, got, want)
				}
				ran[name] = true
			}
		}
		p.stop(t)
	}
	for _, name := range names(t) {
		if !ran[name] {
			t.Errorf("README.md has no example of %s", name)
		}
	}
}

func shell(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	return string(out)
}

// BenchmarkCost measures what README.md states: processor time of an invocation as in the README's table, children included, the
// processor time of a start with one invocation, and the most memory that was resident.
func BenchmarkCost(b *testing.B) {
	dir := build(b, runtime.GOARCH)
	for _, name := range names(b) {
		query, body := "", ""
		if name == "analyze-sentence" {
			body = `{"sentence": "The quick brown fox can't jump over Kim's 5.2 million lazy dogs."}`
		}
		run := func(invocations int) (seconds, mib float64) {
			p := start(b, []string{"FUNCTION_LISTEN=127.0.0.1:0", "FUNCTION_METRICS_LISTEN=off", "FUNCTION_LINGER=0s"}, filepath.Join(dir, name))
			for range invocations {
				if code, text := ask(b, p.url+"/?"+query, body); code != http.StatusOK {
					b.Fatal(code, text)
				}
			}
			p.stop(b)
			usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok {
				b.Fatal("no resource usage")
			}
			return (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds(), float64(usage.Maxrss) / 1024
		}
		b.Run(name, func(b *testing.B) {
			once, _ := run(1)
			all, mib := run(1 + b.N)
			b.ReportMetric((all-once)*1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(once*1000, "cpu-ms/start")
			b.ReportMetric(mib, "MiB")
		})
	}
}
