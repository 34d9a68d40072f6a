package main

import (
	"cmp"
	"context"
	"flag"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/kube"
	"github.com/wattlet/wattlet/internal/workload"
)

// Where Kubernetes puts a pod's service account.
const (
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
	accountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// runtimeSockets are where container runtimes listen: k3s, containerd, CRI-O.
var runtimeSockets = []string{"/run/k3s/containerd/containerd.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock"}

// kubeOptions say who is asked for the names of pods.
type kubeOptions struct {
	mode            string
	api             string
	tokenFile, ca   string
	kubelet         string
	kubeletInsecure bool
	socket          string
	label           string
	watchdogPort    int
}

func (k *kubeOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&k.mode, "kube", "auto", "`SOURCE` of the names of pods: watch (the API server), kubelet, cri (the container runtime), off; "+
		"auto is watch in a pod with a service account")
	fs.StringVar(&k.api, "kube.api", "", "`URL` of the API server; default by KUBERNETES_SERVICE_HOST")
	fs.StringVar(&k.tokenFile, "kube.token-file", "", "`FILE` with the token of the service account; default where Kubernetes puts it")
	fs.StringVar(&k.ca, "kube.ca", "", "`FILE` with the certificates to trust; default that of the service account")
	fs.StringVar(&k.kubelet, "kube.kubelet", "https://127.0.0.1:10250", "`URL` of the node's kubelet")
	fs.BoolVar(&k.kubeletInsecure, "kube.kubelet-insecure", false, "take any certificate of a kubelet, as is done on loopback; it is "+
		"self-signed unless the cluster says otherwise")
	fs.StringVar(&k.socket, "kube.cri-socket", "", "`PATH` of the container runtime's socket; default that of k3s, containerd or CRI-O, which is there")
	fs.StringVar(&k.label, "kube.function-label", "", "`NAME` of a label by which pods say which function they serve, before those of the platforms")
	fs.IntVar(&k.watchdogPort, "kube.watchdog-port", 8081, "`PORT` at which the watchdogs of functions' pods have metrics; 0 asks none")
}

// check settles what the environment decides.
func (k *kubeOptions) check(env func(string) string) error {
	k.tokenFile = cmp.Or(k.tokenFile, accountToken)
	there := isFile(k.tokenFile)
	if k.ca == "" && isFile(accountCA) {
		k.ca = accountCA
	}
	if host := env("KUBERNETES_SERVICE_HOST"); k.api == "" && host != "" {
		k.api = "https://" + net.JoinHostPort(host, cmp.Or(env("KUBERNETES_SERVICE_PORT"), "443"))
	}
	switch k.mode {
	case "auto":
		if k.mode = "off"; there && k.api != "" {
			k.mode = "watch"
		}
	case "watch":
		if k.api == "" {
			return usagef("--kube=watch: give the API server's URL with --kube.api")
		}
	case "kubelet", "off":
	case "cri":
		for i := 0; k.socket == "" && i < len(runtimeSockets); i++ {
			if _, err := os.Stat(runtimeSockets[i]); err == nil {
				k.socket = runtimeSockets[i]
			}
		}
		if k.socket == "" {
			return usagef("--kube=cri: there is no socket of k3s, containerd or CRI-O; give it with --kube.cri-socket")
		}
	default:
		return usagef("--kube=%s: it must be auto, watch, kubelet, cri or off", k.mode)
	}
	if k.watchdogPort < 0 || k.watchdogPort > 65535 {
		return usagef("--kube.watchdog-port=%d: it must be from 1 to 65535, or 0", k.watchdogPort)
	}
	for _, u := range []struct {
		flag, mode string
		value      *string
	}{{"--kube.api", "watch", &k.api}, {"--kube.kubelet", "kubelet", &k.kubelet}} {
		at, err := url.Parse(*u.value)
		if k.mode == u.mode && (err != nil || at.Host == "" || at.Scheme != "https" && (at.Scheme != "http" || !isLoopback(*u.value))) {
			return usagef("%s=%s: it must be as https://10.43.0.1:443; http is for loopback alone, since a token is sent", u.flag, *u.value)
		}
		*u.value = strings.TrimRight(*u.value, "/")
	}
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// podSource tells a directory of the node's pods.
type podSource interface {
	Run(ctx context.Context) error
}

// open gives a directory the pods, and returns what makes their source; nil if there is none.
func (k *kubeOptions) open(node string, log *slog.Logger, d *directory) func(report func(error)) podSource {
	if k.mode == "off" {
		return nil
	}
	d.pods = kube.NewDirectory(time.Now)
	return func(report func(error)) podSource {
		c := kube.Config{Directory: d.pods, Label: k.label, Report: report, Logger: log}
		access := kube.Access{CAFile: k.ca}
		if isFile(k.tokenFile) || k.mode == "watch" {
			access.TokenFile = k.tokenFile
		}
		switch k.mode {
		case "kubelet":
			access.Insecure = k.kubeletInsecure || isLoopback(k.kubelet)
			return kube.NewKubelet(kube.KubeletConfig{Config: c, Access: access, URL: k.kubelet})
		case "cri":
			return kube.NewCRI(kube.CRIConfig{Config: c, Socket: k.socket})
		}
		return kube.NewWatch(kube.WatchConfig{Config: c, Access: access, API: k.api, Node: node})
	}
}

// isLoopback is true for a URL whose server nobody can stand in for but this host.
func isLoopback(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}

// starts knows what was told of the pods' being started and ready. Its zero value knows nothing.
type starts struct {
	begun bool
	pods  map[workload.ID]started
}

type started struct {
	restarts     int
	ready, ended bool
}

// look tells of pods that serve functions what has happened to them since the last look. Those that there are at the first one have
// started before.
func (s *starts) look(seen []workload.Workload, pod func(workload.ID) (kube.Pod, bool), uptime func() time.Duration, event func(workload.Event)) {
	tell := func(id workload.ID, what string) { event(workload.Event{ID: id, At: uptime(), What: what}) }
	now := make(map[workload.ID]started, len(s.pods))
	for _, w := range seen {
		if w.Kind != workload.Function {
			continue
		}
		p, ok := pod(w.ID)
		was, known := s.pods[w.ID]
		if !ok {
			if known {
				now[w.ID] = was
			}
			continue
		}
		now[w.ID] = started{restarts: p.Restarts, ready: p.Ready, ended: p.Ended}
		switch {
		case !known && !s.begun:
		case !known:
			if !p.Ended {
				tell(w.ID, workload.Created)
			}
		case p.Restarts > was.restarts && !p.Ended:
			tell(w.ID, workload.Stopped)
			tell(w.ID, workload.Created)
			was.ready = false
		}
		if p.Ended && !was.ended {
			tell(w.ID, workload.Stopped)
		} else if p.Ready && !was.ready && (known || s.begun) {
			tell(w.ID, workload.Ready)
		}
	}
	s.begun = s.begun || len(seen) > 0
	s.pods = now
}
