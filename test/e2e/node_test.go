package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	cniPlugins = "/usr/lib/cni"
	nodeName   = "edge1"
	nodeIP     = "10.99.0.1"
	criSocket  = "/run/k3s/containerd/containerd.sock" // as on k3s

	// patience is how long is waited for what must come; a machine that is busy with other things takes its time.
	patience = 60 * time.Second
)

// work is the tests' own directory.
func work(elems ...string) string {
	return filepath.Join(append([]string{os.Getenv(workEnv)}, elems...)...)
}

// repository is the checkout.
func repository(elems ...string) string {
	wd, err := os.Getwd() // go test starts in the package's directory
	if err != nil {
		panic(err)
	}
	return filepath.Join(append([]string{filepath.Dir(filepath.Dir(wd))}, elems...)...)
}

// setting is an environment variable, or its default.
func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, holds func() error) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// process is a program that runs until the test ends.
type process struct {
	name, log string
	cmd       *exec.Cmd
	done      chan error
}

// start runs a program in a control group of its own until the test ends or it is stopped. What it says is in a file, whose end is
// shown if the test fails.
func start(tb testing.TB, name, program string, args ...string) *process {
	tb.Helper()
	p := &process{name: name, log: work(name + ".log"), done: make(chan error, 1)}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	procs, err := makeGroup(name)
	if err != nil {
		tb.Fatal(err)
	}
	// A shell enters the group, so that nothing of the program is counted elsewhere.
	enter := `for p in $E2E_PROCS; do echo $$ > "$p"; done; exec "$0" "$@"`
	p.cmd = exec.Command("sh", append([]string{"-c", enter, program}, args...)...) //nolint:noctx // it is stopped by stop, which gives it time
	p.cmd.Env = append(os.Environ(), "E2E_PROCS="+strings.Join(procs, " "))
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", name, err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	tb.Cleanup(func() {
		p.stop(tb)
		if tb.Failed() {
			showEnd(tb, name, p.log)
		}
	})
	return p
}

// showEnd shows the last lines of a log.
func showEnd(tb testing.TB, name, path string) {
	tb.Helper()
	b, _ := os.ReadFile(path) // there is nothing to show
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, l := range lines {
		lines[i] = l[:min(len(l), 300)]
	}
	tb.Logf("%s: the last lines of its log:\n%s", name, strings.Join(lines[max(0, len(lines)-8):], "\n"))
}

// stop ends a program, by force if it takes longer than a node has patience for.
func (p *process) stop(tb testing.TB) {
	tb.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.kill()
	}
	p.cmd = nil
}

// kill ends a program at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
	p.cmd = nil
}

// node is a container runtime with its network; with a cluster it is the kubelet's.
type node struct {
	containerd *process
	conn       *grpc.ClientConn
	cri        cri.RuntimeServiceClient
	images     map[string]string // references by name
}

const conflist = `{"cniVersion":"0.4.0","name":"podnet","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.42.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}`

// containerdConfig runs where root may not do all that root can (CAP_SYS_RESOURCE), and where no registry is.
const containerdConfig = `version = 2
root = "%[1]s/containerd"
state = "/run/k3s/containerd/state"
[grpc]
  address = "%[2]s"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[3]s"
  restrict_oom_score_adj = true
  disable_apparmor = true
  max_container_log_line_size = 4096
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[4]s"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

// startNode starts containerd with our images.
func startNode(tb testing.TB) *node {
	tb.Helper()
	n := &node{images: map[string]string{}}
	dir := setting("WATTLET_IMAGES", repository("bin", "images"))
	files, _ := filepath.Glob(filepath.Join(dir, "*.tar")) // the only error is a bad pattern
	for _, f := range files {
		ref, err := reference(f)
		if err != nil {
			tb.Fatal(err)
		}
		n.images[strings.TrimSuffix(filepath.Base(f), ".tar")] = ref
	}
	if n.images["pause"] == "" {
		tb.Fatalf("%s has no images: make image", dir)
	}
	config := fmt.Sprintf(containerdConfig, work(), criSocket, n.images["pause"], cniPlugins)
	if err := errors.Join(os.MkdirAll(work("cni"), 0o700), os.WriteFile(work("cni", "10-bridge.conflist"), []byte(conflist), 0o600),
		os.WriteFile(work("containerd.toml"), []byte(config), 0o600)); err != nil {
		tb.Fatal(err)
	}
	n.startContainerd(tb)
	var err error
	if n.conn, err = grpc.NewClient("unix://"+criSocket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.conn.Close() })
	n.cri = cri.NewRuntimeServiceClient(n.conn)
	n.ready(tb)
	for _, f := range files {
		if out, err := n.ctr(tb.Context(), "image", "import", f); err != nil {
			tb.Fatalf("import %s: %v: %s", f, err, out)
		}
	}
	return n
}

func (n *node) startContainerd(tb testing.TB) {
	tb.Helper()
	n.containerd = start(tb, "containerd", "containerd", "-c", work("containerd.toml"))
}

// ready waits until containerd answers.
func (n *node) ready(tb testing.TB) {
	tb.Helper()
	eventually(tb, "containerd", func() error {
		_, err := n.cri.Version(tb.Context(), &cri.VersionRequest{})
		return err
	})
}

func (n *node) ctr(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"-a", criSocket, "-n", "k8s.io"}, args...)...).CombinedOutput()
	return string(out), err
}

// reference returns the name of the image in a tar.
func reference(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return "", fmt.Errorf("%s: no image in it: %w", file, err)
		}
		if h.Name != "index.json" {
			continue
		}
		var index struct {
			Manifests []struct{ Annotations map[string]string }
		}
		if err := json.NewDecoder(r).Decode(&index); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		for _, m := range index.Manifests {
			if name := m.Annotations["io.containerd.image.name"]; name != "" {
				return name, nil
			}
		}
	}
}

// podSpec is what a pod is to be.
type podSpec struct {
	function string
	// class is the pod's: burstable, besteffort or guaranteed.
	class   string
	labels  map[string]string
	env     map[string]string
	perCore float64 // what a second of its CPU time costs, J
}

// pod is one that runs, made as a kubelet makes it.
type pod struct {
	podSpec
	node          *node
	uid, group    string
	sandbox, id   string
	address, name string
	gone          bool
}

// run makes a pod and starts its container. A truth, if one is given, knows it from its first moment.
func (n *node) run(ctx context.Context, t *truth, uid string, s podSpec) (*pod, error) {
	p := &pod{podSpec: s, node: n, uid: uid, name: s.function + "-" + uid[:8]}
	p.group = "/kubepods/" + s.class + "/pod" + uid
	if s.class == "guaranteed" {
		p.group = "/kubepods/pod" + uid
	}
	if t != nil {
		t.add(p.group, s.function, s.perCore)
	}
	image := n.images[s.function]
	if image == "" {
		return nil, fmt.Errorf("there is no image of %s", s.function)
	}
	labels := map[string]string{
		"io.kubernetes.pod.name": p.name, "io.kubernetes.pod.namespace": "openfaas-fn", "io.kubernetes.pod.uid": uid,
	}
	inside := map[string]string{"io.kubernetes.container.name": s.function}
	outside := map[string]string{"faas_function": s.function}
	for k, v := range labels {
		inside[k], outside[k] = v, v
	}
	maps.Copy(outside, s.labels)
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: p.name, Uid: uid, Namespace: "openfaas-fn"}, Labels: outside,
		LogDirectory: "/var/log/pods/" + p.name,
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: p.group},
	}
	sandbox, err := n.cri.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, fmt.Errorf("sandbox of %s: %w", p.name, err)
	}
	p.sandbox = sandbox.PodSandboxId
	container := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: s.function}, Image: &cri.ImageSpec{Image: image}, Labels: inside,
		LogPath: s.function + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources:       &cri.LinuxContainerResources{CpuShares: 51},
			SecurityContext: &cri.LinuxContainerSecurityContext{RunAsUser: &cri.Int64Value{Value: 65532}, RunAsGroup: &cri.Int64Value{Value: 65532}},
		},
	}
	for k, v := range s.env {
		container.Envs = append(container.Envs, &cri.KeyValue{Key: k, Value: []byte(v)})
	}
	created, err := n.cri.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.sandbox, SandboxConfig: config, Config: container})
	if err != nil {
		return nil, fmt.Errorf("container of %s: %w", p.name, err)
	}
	p.id = created.ContainerId
	if _, err := n.cri.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: p.id}); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	status, err := n.cri.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.sandbox})
	if err != nil {
		return nil, err
	}
	p.address = status.Status.Network.Ip
	return p, nil
}

// remove ends a pod as a kubelet does: the containers' groups go with them, the pod's own a moment later.
func (p *pod) remove(ctx context.Context, t *truth) error {
	if p.gone {
		return nil
	}
	p.gone = true
	if _, err := p.node.cri.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		return err
	}
	if _, err := p.node.cri.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		return err
	}
	// A kubelet's took 0.3 to 1.0 s.
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if t != nil {
		t.end(p.group)
	}
	for _, pattern := range []string{"", "*"} {
		groups, _ := filepath.Glob(filepath.Join(groupRoot, pattern, p.group)) // the only error is a bad pattern
		for _, g := range groups {
			removeTree(g)
			if exists(g) {
				return fmt.Errorf("%s: %w", g, unix.EBUSY)
			}
		}
	}
	return nil
}

// client asks functions; each request has a time of its own.
var client = &http.Client{Timeout: patience}

// call asks for a page and returns it.
func call(ctx context.Context, url string, body []byte) ([]byte, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, bytes.TrimSpace(b))
	}
	return b, err
}

// serving waits until a pod answers.
func (p *pod) serving(tb testing.TB) {
	tb.Helper()
	eventually(tb, p.name+" answers", func() error {
		_, err := call(tb.Context(), "http://"+p.address+":8080/_/health", nil)
		return err
	})
}
