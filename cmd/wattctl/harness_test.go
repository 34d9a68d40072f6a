package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testPatience is what everything in a test may take, on a machine that does much else.
const testPatience = time.Minute

// scratch is the directory of what all tests share.
var scratch string

// TestMain makes the test binary wattctl itself when process starts it.
func TestMain(m *testing.M) {
	if os.Getenv("BE_WATTCTL") != "" {
		main()
	}
	var err error
	if scratch, err = os.MkdirTemp("", "wattctl-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	// The tests wait more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8") // it is a number
	}
	status := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(status)
}

// agentBinary builds the agent once, as it is shipped, and returns its path.
var agentBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "wattlet")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w -X main.version=test", "-o", path, "../wattlet")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func agent(t *testing.T) string {
	t.Helper()
	path, err := agentBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program finds a program that is not the project's.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; make test gets it", name)
	}
	t.Skipf("%s is missing; make test gets it", name)
	return ""
}

// output collects what a command prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// running is a wattctl that runs, in this process or as one of its own.
type running struct {
	t              *testing.T
	stdout, stderr output
	interrupt      func()
	process        *os.Process // nil in this process
	ended          chan struct{}
	status         int // after ended
}

// start runs wattctl in this process. It is interrupted at the test's end if it still runs.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, interrupt: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.status = run(ctx, args, &r.stdout, &r.stderr)
	}()
	r.cleanup(args)
	return r
}

// process starts wattctl as a process, with more in its environment. It is interrupted at the test's end if it still runs.
func process(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), "BE_WATTCTL=1"), env...)
	r := &running{t: t, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &r.stdout, &r.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.process = cmd.Process
	r.interrupt = func() { _ = r.process.Signal(syscall.SIGINT) } // it may have ended
	go func() {
		defer close(r.ended)
		_ = cmd.Wait() // the status tells
		r.status = cmd.ProcessState.ExitCode()
	}()
	r.cleanup(args)
	return r
}

func (r *running) cleanup(args []string) {
	r.t.Cleanup(func() {
		r.end()
		if r.t.Failed() {
			r.t.Logf("wattctl %s\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), r.stdout.String(), r.stderr.String())
		}
	})
}

// end interrupts wattctl, if it still runs, and returns its exit status.
func (r *running) end() int {
	r.t.Helper()
	r.interrupt()
	return r.wait()
}

// wait waits for wattctl's end and returns its exit status.
func (r *running) wait() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(testPatience):
		r.t.Fatal("it does not end")
	}
	return r.status
}

// until waits until the condition holds.
func (r *running) until(what string, condition func() bool) {
	r.t.Helper()
	eventually(r.t, what, r.ended, condition)
}

// eventually waits until the condition holds, and no longer than until ended is closed.
func eventually(t *testing.T, what string, ended <-chan struct{}, condition func() bool) {
	t.Helper()
	deadline := time.After(testPatience)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-ended:
			if condition() {
				return
			}
			t.Fatalf("wattctl ended before %s", what)
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// wattctl runs a command to its end.
func wattctl(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	var out, errs output
	status = run(ctx, args, &out, &errs)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatalf("wattctl %s does not end\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), out.String(), errs.String())
	}
	return status, out.String(), errs.String()
}

// succeed runs a command that must succeed without a word of complaint, and returns what it prints.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	status, stdout, stderr := wattctl(t, args...)
	if status != 0 || stderr != "" {
		t.Fatalf("wattctl %s: status %d, stderr %q, stdout:\n%s", strings.Join(args, " "), status, stderr, stdout)
	}
	return stdout
}

// refused runs a command that must end with a status and one line that has want in it, and print nothing else.
func refused(t *testing.T, want string, wantStatus int, args ...string) {
	t.Helper()
	status, stdout, stderr := wattctl(t, args...)
	if status != wantStatus || stdout != "" || !isOneLine(stderr) || !strings.Contains(stderr, want) {
		t.Errorf("wattctl %s: status %d, stderr %q, stdout %q; want status %d and one line with %q",
			strings.Join(args, " "), status, stderr, stdout, wantStatus, want)
	}
}

// isOneLine says whether s is one line as wattctl complains.
func isOneLine(s string) bool {
	return strings.HasPrefix(s, "wattctl: ") && strings.HasSuffix(s, "\n") && strings.Count(s, "\n") == 1
}

// write writes a file into a directory of the test's own and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const testKey = "0123456789abcdefABCDEFGHIJKLMNOP"

// simulated is a simulated meter that runs.
type simulated struct {
	*running
	url, keyFile string
}

// simulate runs a meter on a free port of loopback until the test ends, and waits until it is up.
func simulate(t *testing.T, args ...string) simulated {
	t.Helper()
	s := simulated{keyFile: write(t, "psk", testKey+"\n")}
	s.running = start(t, append([]string{"meter", "simulate", "--listen=127.0.0.1:0", "--psk-file=" + s.keyFile}, args...)...)
	s.url = s.up()
	return s
}

// up waits until a simulated meter is up and returns its URL.
func (r *running) up() string {
	r.t.Helper()
	r.until("the meter is up", func() bool {
		return strings.Contains(r.stderr.String(), "meter is up") && strings.Contains(r.stdout.String(), "Ctrl-C")
	})
	_, after, _ := strings.Cut(r.stdout.String(), " at ")
	url, _, _ := strings.Cut(after, "\n")
	return url
}

// read are the arguments that read this meter.
func (s simulated) read(args ...string) []string {
	return append([]string{"meter", "read", s.url, "--psk-file=" + s.keyFile}, args...)
}
