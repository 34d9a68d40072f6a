package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const (
	apiServer = "https://" + nodeIP + ":6443"
	// podNetwork is where pods have their addresses, serviceNetwork where services have theirs.
	podNetwork, serviceNetwork = "10.42.0.0/16", "10.43.0.0/16"
	// apiService is the API server's first service.
	apiService = "10.43.0.1:443"
)

// cluster is a Kubernetes of one node.
type cluster struct {
	*node
	program string // that is all of them
	tokens  map[string]string
	http    *http.Client
	// Those that are killed and come back.
	apiserver, kubelet *process
}

// users have a token each; names and groups are those that Kubernetes gives its own parts rights by.
var users = []struct{ name, user, group string }{
	{"admin", "admin", "system:masters"},
	{"controllers", "system:kube-controller-manager", "system:masters"},
	{"scheduler", "system:kube-scheduler", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
	{"proxy", "system:kube-proxy", ""},
}

// startCluster starts a cluster, and returns when its node is ready.
func startCluster(tb testing.TB) *cluster {
	tb.Helper()
	program := os.Getenv("WATTLET_HYPER")
	if program == "" {
		tb.Fatal("WATTLET_HYPER does not say where Kubernetes is: make e2e-cluster builds it")
	}
	begin := time.Now()
	c := &cluster{node: startNode(tb), program: program}
	if err := c.keys(); err != nil {
		tb.Fatal(err)
	}
	start(tb, "etcd", program, "etcd", "--data-dir", work("etcd"), "--listen-client-urls", "http://127.0.0.1:2379",
		"--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "warn")
	c.startAPIServer(tb)
	start(tb, "controllers", program, "kube-controller-manager", "--kubeconfig", work("controllers.kubeconfig"), "--leader-elect=false",
		"--bind-address", "127.0.0.1", "--service-account-private-key-file", work("sa.key"), "--root-ca-file", work("api/apiserver.crt"))
	start(tb, "scheduler", program, "kube-scheduler", "--kubeconfig", work("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address", "127.0.0.1")
	err := errors.Join(
		os.WriteFile(work("resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o600),
		os.WriteFile(work("kubelet.yaml"), fmt.Appendf(nil, kubeletConfig, criSocket, nodeIP, work("ca.crt"), work("resolv.conf")), 0o600),
		os.WriteFile(work("proxy.yaml"), fmt.Appendf(nil, proxyConfig, work("proxy.kubeconfig"), nodeIP, podNetwork, nodeName), 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	c.startKubelet(tb)
	start(tb, "proxy", program, "kube-proxy", "--config", work("proxy.yaml"))
	eventually(tb, "the node is ready", func() error {
		out, err := c.kubectl(tb.Context(), "", "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("ready is %q", out)
		}
		return err
	})
	eventually(tb, "the default service account", func() error {
		_, err := c.kubectl(tb.Context(), "", "get", "serviceaccount", "default")
		return err
	})
	// A connection that begins before kube-proxy has its rules never gets through.
	eventually(tb, "the service of the API server", func() error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(tb.Context(), "tcp", apiService)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	tb.Logf("the cluster is ready after %v", time.Since(begin).Round(100*time.Millisecond))
	return c
}

func (c *cluster) startAPIServer(tb testing.TB) {
	tb.Helper()
	c.apiserver = start(tb, "apiserver", c.program, "kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379", "--service-cluster-ip-range", serviceNetwork,
		"--token-auth-file", work("tokens.csv"), "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", work("sa.pub"),
		"--service-account-signing-key-file", work("sa.key"), "--client-ca-file", work("ca.crt"), "--cert-dir", work("api"),
		"--bind-address", nodeIP, "--advertise-address", nodeIP, "--kubelet-client-certificate", work("client.crt"),
		"--kubelet-client-key", work("client.key"), "--kubelet-preferred-address-types", "InternalIP", "--profiling=false")
	eventually(tb, "the API server is ready", func() error {
		if c.http == nil {
			ca, err := os.ReadFile(work("api/apiserver.crt")) // it makes its own
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(ca)
			c.http = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
		}
		_, err := c.api(tb.Context(), http.MethodGet, "/readyz", "", nil)
		return err
	})
}

func (c *cluster) startKubelet(tb testing.TB) {
	tb.Helper()
	c.kubelet = start(tb, "kubelet", c.program, "kubelet", "--config", work("kubelet.yaml"), "--kubeconfig", work("kubelet.kubeconfig"),
		"--root-dir", work("kubelet"), "--cert-dir", work("kubelet-pki"), "--node-ip", nodeIP, "--hostname-override", nodeName)
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix://%s
address: %s
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
clusterDNS: [10.43.0.10]
resolvConf: %s
podLogsDir: /var/log/pods
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
`

// proxyConfig has zeros where the proxy would otherwise write sysctls of the machine.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: %s}
bindAddress: %s
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
clusterCIDR: %s
hostnameOverride: %s
`

// keys makes what the parts know each other by.
func (c *cluster) keys() error {
	c.tokens = map[string]string{}
	var csv strings.Builder
	errs := []error{os.MkdirAll(work("api"), 0o700)}
	for _, u := range users {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		c.tokens[u.name] = hex.EncodeToString(b[:])
		fmt.Fprintf(&csv, "%s,%s,%s,%q\n", c.tokens[u.name], u.user, u.name, u.group)
		errs = append(errs, os.WriteFile(work(u.name+".kubeconfig"), fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "x",
 "clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority": %q}}], "users": [{"name": "u", "user": {"token": %q}}],
 "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}`, apiServer, work("api/apiserver.crt"), c.tokens[u.name]), 0o600))
	}
	errs = append(errs, os.WriteFile(work("tokens.csv"), []byte(csv.String()), 0o600))
	write := func(name, kind string, der []byte, err error) {
		errs = append(errs, err, os.WriteFile(work(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	key := func(name string) *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		write(name, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k), nil)
		return k
	}
	accounts, authority, client := key("sa.key"), key("ca.key"), key("client.key")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&accounts.PublicKey)
	write("sa.pub", "PUBLIC KEY", der, err)
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err = x509.CreateCertificate(rand.Reader, ca, ca, &authority.PublicKey, authority)
	write("ca.crt", "CERTIFICATE", der, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "apiserver-kubelet-client", Organization: []string{"system:masters"}},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, &client.PublicKey, authority)
	write("client.crt", "CERTIFICATE", der, err)
	return errors.Join(errs...)
}

// api asks the API server as admin.
func (c *cluster) api(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, apiServer+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.tokens["admin"])
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, b)
	}
	return b, err
}

// kubectl runs it as admin, with what it reads from standard input.
func (c *cluster) kubectl(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.program, append([]string{"kubectl", "--kubeconfig", work("admin.kubeconfig")}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "HOME="+work())
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// apiPod is what is read of a pod.
type apiPod struct {
	Metadata struct {
		Name, Namespace, UID string
		Labels               map[string]string
		DeletionTimestamp    *string
	}
	Status struct {
		PodIP, QOSClass   string
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct {
			ContainerID  string
			RestartCount int
		}
	}
}

func (p *apiPod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == nil
		}
	}
	return false
}

// group is the pod's control group.
func (p *apiPod) group() string {
	class := strings.ToLower(p.Status.QOSClass) + "/"
	if class == "guaranteed/" {
		class = ""
	}
	return "/kubepods/" + class + "pod" + p.Metadata.UID
}

// pods returns those with a label.
func (c *cluster) pods(ctx context.Context, selector string) ([]apiPod, error) {
	b, err := c.api(ctx, http.MethodGet, "/api/v1/pods?labelSelector="+selector, "", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []apiPod }
	err = json.Unmarshal(b, &list)
	return list.Items, err
}

// follow tells a truth which groups serve which function, until the test ends, and reads the counters often enough to see the last
// count of a group that a kubelet removes.
func (c *cluster) follow(tb testing.TB, t *truth, perCore float64) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // that one ends before what cleanups end
	done := make(chan struct{})
	go func() {
		defer close(done)
		look, read := time.NewTicker(200*time.Millisecond), time.NewTicker(20*time.Millisecond)
		defer look.Stop()
		defer read.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-read.C:
				t.Energy(0, t.now())
			case <-look.C:
				// While the API server is away, nothing new comes.
				pods, err := c.pods(ctx, "faas_function")
				for _, p := range pods {
					if err == nil && p.Status.QOSClass != "" {
						t.add(p.group(), p.Metadata.Labels["faas_function"], perCore)
					}
				}
			}
		}
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
	})
}
