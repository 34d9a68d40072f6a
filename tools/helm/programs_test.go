package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
)

// program returns a program of the project: from $WATTLET_BIN, or built.
func program(t *testing.T, name string) string {
	t.Helper()
	if dir := os.Getenv("WATTLET_BIN"); dir != "" {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags=nethttpomithttp2", "-trimpath", "-buildvcs=false", "-o", path, "./cmd/"+name)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=") // the product's own workspace
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return path
}

// inPod are the environment variables of a pod.
var inPod = []string{"KUBERNETES_SERVICE_HOST=127.0.0.1", "KUBERNETES_SERVICE_PORT=1", "NODE_NAME=raspberrypi", "POD_UID=0"}

// changed replaces what a flag says, as far as it is there.
func changed(args []string, with map[string]string) (out []string) {
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		if v, ok := with[name]; ok {
			a = name + "=" + v
		}
		out = append(out, a)
	}
	return out
}

// The agent knows every flag that the chart and its init container give it. --version is looked at once all are read.
func TestAgentKnowsTheFlags(t *testing.T) {
	wattlet := program(t, "wattlet")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), wattlet, append(args, "--version")...)
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.HasPrefix(out, []byte("wattlet ")) {
			t.Errorf("%s: wattlet %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	for _, name := range cases(t) {
		spec := one[apps.DaemonSet](t, render(t, values(t, name, ""), kubeVersion)).Spec.Template.Spec
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			run(name, c.Args...)
		}
	}
	dir := filepath.Join(t.TempDir(), "state")
	init := one[apps.DaemonSet](t, render(t, values(t, "default", ""), kubeVersion)).Spec.Template.Spec.InitContainers[0]
	if os.Getuid() == 0 {
		if out, err := exec.CommandContext(t.Context(), wattlet, changed(init.Args, map[string]string{"--state.directory": dir})...).CombinedOutput(); err != nil {
			t.Errorf("the init container: %v\n%s", err, out)
		}
	}
	if out, err := exec.CommandContext(t.Context(), wattlet, "--no.such.flag", "--version").CombinedOutput(); err == nil {
		t.Errorf("a flag that is not there is taken: %s", out)
	}
}

// The agent takes the cluster file of every case, with keys where the volume has them. There is no meter: status 1 and not 2.
func TestAgentTakesTheClusterFile(t *testing.T) {
	wattlet := program(t, "wattlet")
	for name, nodes := range map[string][]string{"default": {"raspberrypi", "jetson-nano"}, "kubelet": {"raspberrypi"}, "cri": {"pynq"}, "everything": {"raspberrypi", "jetson-nano", "virtual"}} {
		all := render(t, values(t, name, ""), kubeVersion)
		dir := t.TempDir()
		text := ""
		for _, o := range all {
			if m, ok := o.typed.(*core.ConfigMap); ok && m.Data["wattlet.yaml"] != "" {
				text = m.Data["wattlet.yaml"]
			}
		}
		file := filepath.Join(dir, "wattlet.yaml")
		writeFile(t, file, text)
		for _, v := range one[apps.DaemonSet](t, all).Spec.Template.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for _, source := range v.Projected.Sources {
				if source.Secret == nil {
					continue
				}
				for _, item := range source.Secret.Items {
					writeFile(t, filepath.Join(dir, item.Path), "an-example-not-a-secret-0123456789")
				}
			}
		}
		for _, node := range nodes {
			cmd := exec.CommandContext(t.Context(), wattlet, "--config.file="+file, "--node="+node, "--once", "--once.timeout=10ms", "--state.directory=", "--kube=off")
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%s: node %s: %v, want status 1\n%s\n%s", name, node, err, out, text)
			}
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The simulated meter, an agent and the hub run with the arguments they get in the cluster, but for addresses and paths, and each is
// ready in the sense of its probe.
func TestProgramsRun(t *testing.T) {
	dir := t.TempDir()
	wattlet, wattctl := program(t, "wattlet"), program(t, "wattctl")
	key := filepath.Join(dir, "simulated")
	writeFile(t, key, "an-example-not-a-secret-0123456789")
	all := render(t, values(t, "simulated", "hub: {enabled: true}"), kubeVersion)
	args := map[string][]string{}
	probes := map[string]string{}
	for where, pod := range pods(all) {
		c := pod.Spec.Containers[0]
		args[where] = c.Args
		if c.ReadinessProbe != nil {
			probes[where] = c.ReadinessProbe.HTTPGet.Path
		}
	}
	meter := start(t, wattctl, changed(args["Deployment wattlet-simulator"], map[string]string{"--listen": "127.0.0.1:0", "--psk-file": key}))
	url := meter.says(`(coaps://127\.0\.0\.1:[0-9]+)`)
	agent := start(t, wattlet, changed(args["DaemonSet wattlet"], map[string]string{
		"--meter.url": url, "--meter.psk-file": key, "--web.listen-address": "127.0.0.1:0", "--state.directory": filepath.Join(dir, "state"),
		"--path.cgroup": "/sys/fs/cgroup",
	}))
	agent.answers("http://" + agent.says(`address=(127\.0\.0\.1:[1-9][0-9]*)`) + probes["DaemonSet wattlet"])
	hub := start(t, wattctl, append(changed(args["Deployment wattlet-hub"], map[string]string{"--listen": "127.0.0.1:0", "--data": filepath.Join(dir, "data")}),
		"--kubernetes.api=http://127.0.0.1:1"))
	hub.answers(hub.says(`hub at (http://[0-9.:]+),`) + probes["Deployment wattlet-hub"])
}

// process is a program that runs until the test's end.
type process struct {
	t     *testing.T
	name  string
	ended chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func start(t *testing.T, path string, args []string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(path) + " " + strings.Join(args, " "), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), inPod...)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // how it ended is in what it says
	}()
	t.Cleanup(func() {
		cancel()
		<-p.ended
	})
	return p
}

// until waits for a condition, as long as the program runs.
func (p *process) until(what string, met func() bool) {
	p.t.Helper()
	every, patience := time.NewTicker(20*time.Millisecond), time.NewTimer(2*time.Minute)
	defer every.Stop()
	defer patience.Stop()
	for !met() {
		select {
		case <-every.C:
		case <-p.ended:
			p.t.Fatalf("%s ended before %s:\n%s", p.name, what, p.said())
		case <-patience.C:
			p.t.Fatalf("%s: not in time: %s:\n%s", p.name, what, p.said())
		}
	}
}

// says waits until the program has said something, and returns the first group.
func (p *process) says(pattern string) (found string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	p.until("it said "+pattern, func() bool {
		m := re.FindStringSubmatch(p.said())
		if m != nil {
			found = m[1]
		}
		return m != nil
	})
	return found
}

// answers waits until a page of the program answers 200.
func (p *process) answers(url string) {
	p.t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	p.until(url+" answered 200", func() bool {
		req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, url, nil)
		if err != nil {
			p.t.Fatal(err)
		}
		r, err := client.Do(req)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}
