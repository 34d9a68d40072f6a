package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
)

// A Prometheus that knows nothing of us gets the right watts, over TLS and with a password.
func TestPrometheusOverTLS(t *testing.T) {
	t.Parallel()
	program := debian(t, "prometheus")
	const password = "correct horse"
	dir := t.TempDir()
	roots := writeCertificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) (path string) {
		path = filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	web := write("web-config.yml", "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"+
		"basic_auth_users: {prometheus: '"+string(hash)+"'}\n")

	// Short intervals: what a scrape sees is old by at most a report and a tick, in sum 70 ms, which moves the rate over the 9 s
	// between the first and the last of ten scrapes by 0.8 % at most.
	sim := startMeter(t, metersim.Options{ReportInterval: 20 * time.Millisecond, Channels: []metersim.Channel{
		{Load: metersim.Constant(5 * energy.Watt), Ideal: true},
		{Load: metersim.Square(2*energy.Watt, 8*energy.Watt, time.Second, 0.5), Ideal: true},
	}})
	agent := startAgent(t, "--web.config.file="+web, "--tick=50ms", "--node=steady,square", "--config.file="+clusterFile(t, `
meters:
  bench: {url: "%s", psk_identity: wattlet, psk_file: psk}
nodes:
  steady: {meter: bench, channel: 1}
  square: {meter: bench, channel: 2}
`, sim.URL()))

	if status, body := agent.get("/metrics"); status != http.StatusBadRequest || strings.Contains(body, "wattlet_") {
		t.Errorf("plain HTTP is answered with %d %q, want 400 and no metrics", status, body)
	}
	addr := strings.TrimPrefix(agent.url, "http://")
	agent.url = "https://" + addr
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	agent.client.Transport = transport
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, agent.url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		user, password string
		status         int
	}{
		"nobody": {"", "", 401}, "wrong password": {"prometheus", "wrong", 401}, "wrong user": {"root", password, 401},
		"right": {"prometheus", password, 200},
	} {
		var header []string
		if tc.user != "" {
			req.SetBasicAuth(tc.user, tc.password)
			header = []string{"Authorization", req.Header.Get("Authorization")}
		}
		for _, path := range []string{"/metrics", "/api/v1/snapshot", "/"} {
			if status, _ := agent.get(path, header...); status != tc.status {
				t.Errorf("%s: %s is answered with %d, want %d", name, path, status, tc.status)
			}
		}
	}

	config := write("prometheus.yml", `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: wattlet
  scheme: https
  tls_config: {ca_file: cert.pem}
  basic_auth: {username: prometheus, password: '`+password+`'}
  static_configs: [{targets: ['`+addr+`']}]
`)
	prometheus := launch(t, exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0"))
	prometheus.wait("Prometheus listens", func() bool {
		at := sockets(t, prometheus.cmd.Process.Pid, "tcp")
		if len(at) == 1 {
			prometheus.url = "http://" + at[0]
		}
		return len(at) == 1
	})
	// The range is ten periods of the square; with ten scrapes in it, the increase is over nine.
	const query = "rate(wattlet_node_energy_joules_total[10s]) and count_over_time(wattlet_node_energy_joules_total[10s]) >= 10"
	var last string
	prometheus.wait("four evaluations in a row, a second apart, agree with the loads", func() bool {
		now := time.Now().Unix()
		got := queryRange(prometheus, query, now-3, now)
		last = ""
		for node, tolerance := range map[string]float64{"steady": 0.01, "square": 0.03} {
			if len(got[node]) != 4 {
				return false
			}
			for _, watts := range got[node] {
				last += node + " " + strconv.FormatFloat(watts, 'f', 4, 64) + " W, "
				if !within(watts, 5, tolerance) {
					return false
				}
			}
		}
		return true
	})
	t.Log(last)
	prometheus.stop()
}

// queryRange evaluates a query each second from start to end and returns the values by node. Before Prometheus is ready there
// are none.
func queryRange(p *process, query string, start, end int64) map[string][]float64 {
	p.t.Helper()
	v := url.Values{"query": {query}, "start": {strconv.FormatInt(start, 10)}, "end": {strconv.FormatInt(end, 10)}, "step": {"1"}}
	status, body := p.get("/api/v1/query_range?" + v.Encode())
	if status != http.StatusOK {
		return nil
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric struct{ Node string }
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		p.t.Fatalf("%v in %q", err, body)
	}
	values := map[string][]float64{}
	for _, r := range answer.Data.Result {
		for _, sample := range r.Values {
			text, _ := sample[1].(string)
			f, err := strconv.ParseFloat(text, 64)
			if err != nil {
				p.t.Fatalf("%v in %q", err, body)
			}
			values[r.Metric.Node] = append(values[r.Metric.Node], f)
		}
	}
	return values
}

// writeCertificate writes cert.pem and key.pem for 127.0.0.1 and returns who trusts it.
func writeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "wattlet test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		text := pem.EncodeToMemory(block)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "cert.pem" {
			roots.AppendCertsFromPEM(text)
		}
	}
	return roots
}
