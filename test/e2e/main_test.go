// Package e2e tests Wattlet on a node as it is: with containerd, runc and CNI, or with a whole Kubernetes, and with functions in
// real control groups. A simulated meter draws what the node's processors did, so that the truth is known.
//
// The test binary runs itself three times. The outermost process checks what is needed, and makes namespaces for mounts, processes
// and network. The first process in them prepares files and then only waits for orphans; when the tests end, or are killed, it ends,
// and the kernel ends all other processes in there and removes mounts and interfaces with them. What is left are control groups,
// which the outermost process removes.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stageEnv = "WATTLET_E2E_STAGE"
	// workEnv names the directory that is the tests' own; it is a file system in memory and of these namespaces alone.
	workEnv = "WATTLET_E2E_WORK"
)

func TestMain(m *testing.M) {
	var status int
	var err error
	switch stage := os.Getenv(stageEnv); {
	case slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.list") }), stage == "test":
		status = m.Run()
	case stage == "init":
		status, err = inside()
	default:
		status, err = outside()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		status = 1
	}
	os.Exit(status)
}

// outside checks what is needed, runs the tests in namespaces of their own, and removes what those leave.
func outside() (status int, err error) {
	if err := check(); err != nil {
		return 0, err
	}
	// Two kubelets or two such tests on one kernel would remove each other's control groups.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "wattlet-e2e.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		fmt.Fprintln(os.Stderr, "e2e: waiting for another run on this machine")
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			return 0, fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
	}
	// Of a run before, if that was ended by force.
	if err := removeGroups(time.Second); err != nil {
		return 0, fmt.Errorf("%w; is there a kubelet on this machine?", err)
	}
	empty, _ := filepath.Glob(filepath.Join(os.TempDir(), "wattlet-e2e-*")) // the only error is a bad pattern
	for _, d := range empty {
		_ = os.Remove(d) // only if it is empty
	}
	work, err := os.MkdirTemp("", "wattlet-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeGroups(20*time.Second), os.Remove(work)) }()

	// The thread that starts it must live as long as it does, or it would be taken for an orphan.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"=init", workEnv+"="+work)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("namespaces for mounts, network and processes (CAP_SYS_ADMIN): %w", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case s := <-signals:
			fmt.Fprintln(os.Stderr, "e2e:", s)
			_ = cmd.Process.Kill() // and with it all that are in its namespace
		case <-ended:
		}
	}()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// check says in one line what is missing.
func check() error {
	if os.Getuid() != 0 {
		return errors.New("root is needed for control groups and namespaces")
	}
	var missing []string
	for _, p := range []struct{ program, pkg string }{
		{"containerd", "containerd"}, {"ctr", "containerd"}, {"runc", "runc"}, {"ip", "iproute2"}, {"iptables", "iptables"},
		{filepath.Join(cniPlugins, "bridge"), "containernetworking-plugins"},
	} {
		if _, err := exec.LookPath(p.program); err != nil && !slices.Contains(missing, p.pkg) {
			missing = append(missing, p.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("packages are missing: scripts/debian install %s", strings.Join(missing, " "))
	}
	if _, err := counterRoot(); err != nil {
		return err
	}
	return nil
}

// inside is the first process of the namespaces.
func inside() (status int, err error) {
	if err := prepare(os.Getenv(workEnv)); err != nil {
		return 0, fmt.Errorf("prepare the node: %w", err)
	}
	procs, err := makeGroup("tests")
	for _, p := range procs {
		err = errors.Join(err, os.WriteFile(p, []byte("0"), 0o600)) // this process
	}
	if err != nil {
		return 0, fmt.Errorf("a control group for the tests: %w", err)
	}
	self, err := os.Executable()
	if err = errors.Join(err, os.Setenv(stageEnv, "test")); err != nil {
		return 0, err
	}
	child, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the tests: %w", err)
		case pid == child.Pid && ws.Signaled():
			return 0, fmt.Errorf("the tests were ended by %s", ws.Signal())
		case pid == child.Pid:
			return ws.ExitStatus(), nil
		}
	}
}

// sysctls of the whole machine are written by a kubelet. It gets files of its own, which already hold what it wants.
var sysctls = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// prepare makes the node's private files and its network.
func prepare(work string) error {
	mount := func(source, target, kind string, flags uintptr, data string) error {
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, target, err)
		}
		return nil
	}
	// Nothing that is mounted here is seen outside; what is mounted on it is seen by the containers that ask for it.
	err := errors.Join(
		mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""),
		mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""),
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount("tmpfs", work, "tmpfs", 0, "mode=755"),
		mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		mount("tmpfs", "/var/log", "tmpfs", 0, "mode=755"),
	)
	if err != nil {
		return err
	}
	for _, d := range []string{"run/netns", "run/lock", "run/k3s/containerd", "var/log/pods", "var/log/containers", work + "/varlib/up", work + "/varlib/work"} {
		if err := os.MkdirAll("/"+d, 0o755); err != nil {
			return err
		}
	}
	// Programs leave files in directories of their own below /var/lib.
	data := fmt.Sprintf("lowerdir=/var/lib,upperdir=%[1]s/varlib/up,workdir=%[1]s/varlib/work", work)
	if err := mount("overlay", "/var/lib", "overlay", 0, data); err != nil {
		return err
	}
	for name, value := range sysctls {
		target := "/proc/sys/" + name
		if !exists(target) {
			continue
		}
		file := filepath.Join(work, strings.ReplaceAll(name, "/", "."))
		if err := errors.Join(os.WriteFile(file, []byte(value+"\n"), 0o600), mount(file, target, "", unix.MS_BIND, "")); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return err
	}
	// A node's address may not be of loopback, and a kubelet looks for a default route.
	for _, args := range []string{
		"link set lo up", "link add eth9 type veth peer name eth9p", "link set eth9p up", "addr add " + nodeIP + "/24 dev eth9",
		"link set eth9 up", "route add default dev eth9",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}
