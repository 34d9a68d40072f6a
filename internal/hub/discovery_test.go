package hub

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestParsePods(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []Target
		next string
		err  string
	}{
		"empty": {`{"kind": "PodList", "items": []}`, nil, "", ""},
		"pods": {`{"kind": "PodList", "metadata": {"continue": "abc"}, "items": [
			{"metadata": {"name": "wattlet-x"}, "spec": {"nodeName": "pi", "containers": [
				{"ports": [{"name": "http", "containerPort": 80}]}, {"ports": [{"name": "metrics", "containerPort": 9999}]}]},
				"status": {"phase": "Running", "podIP": "10.0.0.7"}},
			{"metadata": {"name": "wattlet-y"}, "status": {"phase": "Running", "podIP": "fd00::7"}},
			{"metadata": {"name": "waits"}, "status": {"phase": "Pending", "podIP": "10.0.0.8"}},
			{"metadata": {"name": "no address"}, "status": {"phase": "Running"}},
			{"metadata": {"name": "ends", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running", "podIP": "10.0.0.9"}}]}`,
			[]Target{{Name: "pi", URL: "http://10.0.0.7:9999"}, {Name: "wattlet-y", URL: "http://[fd00::7]:9780"}}, "abc", ""},
		"an error":   {`{"kind": "Status", "message": "no"}`, nil, "", `not a list of pods, but "Status"`},
		"not JSON":   {"<html>", nil, "", "not a list of pods: invalid character"},
		"wrong port": {`{"kind": "PodList", "items": [{"spec": {"containers": [{"ports": [{"containerPort": 70000}]}]}}]}`, nil, "", "not a list of pods"},
	} {
		t.Run(name, func(t *testing.T) {
			got, next, err := parsePods([]byte(tc.text), false)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, want %s", err, tc.err)
				}
			} else if err != nil || next != tc.next || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%+v, %q, %v, want %+v", got, next, err, tc.want)
			}
		})
	}
}

func FuzzParsePods(f *testing.F) {
	f.Add([]byte(`{"kind": "PodList", "items": [{"spec": {"nodeName": "pi"}, "status": {"phase": "Running", "podIP": "10.0.0.7"}}]}`))
	f.Add([]byte(`{"kind": "PodList", "items": [{"status": {"phase": "Running", "podIP": "%:/@"}}, null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, _, err := parsePods(text, true)
		if err != nil {
			return
		}
		ts := &targets{jobs: []job{{}}}
		for _, c := range all {
			if one, err := ts.check(c, 0); err == nil && (one.name == "" || one.metrics.Scheme != "https" || one.metrics.Port() == "") {
				t.Errorf("%+v from %+v", one, c)
			}
		}
	})
}

// An API server that wants a token, and lists in two parts.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	renew := func(text string) {
		if err := os.WriteFile(token, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	renew("first")
	var good atomic.Value
	good.Store("first")
	var asked []string
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+good.Load().(string) {
			http.Error(w, `{"kind": "Status"}`, http.StatusForbidden)
			return
		}
		q := r.URL.Query()
		asked = append(asked, fmt.Sprint(r.URL.Path, " ", q.Get("labelSelector"), " ", q.Get("fieldSelector"), " ", q.Get("continue")))
		if q.Get("continue") == "" {
			fmt.Fprint(w, `{"kind": "PodList", "metadata": {"continue": "more"}, "items": [{"spec": {"nodeName": "a"}, "status": {"phase": "Running", "podIP": "10.0.0.1"}}]}`)
		} else {
			fmt.Fprint(w, `{"kind": "PodList", "items": [{"spec": {"nodeName": "b"}, "status": {"phase": "Running", "podIP": "10.0.0.2"}}]}`)
		}
	}))
	t.Cleanup(api.Close)
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Kubernetes{API: api.URL, Namespace: "monitoring", Selector: "app=wattlet", TokenFile: token, CA: ca}.Pods()
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Find(t.Context())
	if want := []Target{{Name: "a", URL: "http://10.0.0.1:9780"}, {Name: "b", URL: "http://10.0.0.2:9780"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	const path = "/api/v1/namespaces/monitoring/pods app=wattlet status.phase=Running "
	if want := []string{path, path + "more"}; !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	good.Store("second")
	if _, err := d.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "needs a role that may list pods") {
		t.Errorf("%v with an old token", err)
	}
	renew("second")
	if got, err := d.Find(t.Context()); err != nil || len(got) != 2 {
		t.Errorf("%v, %v with the new token", got, err)
	}
}

func TestKubernetesErrors(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		k    Kubernetes
		want string
	}{
		"nowhere":        {Kubernetes{}, "this is no pod of a cluster"},
		"not a URL":      {Kubernetes{API: "10.0.0.1:6443"}, "is not a URL as https://"},
		"password":       {Kubernetes{API: "https://u:geheim@10.0.0.1"}, "without a user"},
		"no TLS":         {Kubernetes{API: "http://10.0.0.1", TokenFile: file}, "a token is not sent"},
		"CA is none":     {Kubernetes{API: "https://10.0.0.1", CA: file}, file + " has none"},
		"there is no CA": {Kubernetes{API: "https://10.0.0.1", CA: file + "x"}, "open " + file + "x"},
	} {
		if _, err := tc.k.Pods(); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := (Kubernetes{CA: file}).Pods(); err == nil || !strings.Contains(err.Error(), file+" has none") {
		t.Errorf("within a cluster: %v", err)
	}
}

// A name server that knows one service, then fails.
func TestDNS(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	started := make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		switch {
		case broken.Load():
			m.Rcode = dns.RcodeServerFailure
		case q.Question[0].Name != "_wattlet._tcp.example.org.":
			m.Rcode = dns.RcodeNameError
		default:
			for _, rr := range []string{"10 0 9780 pi.example.org.", "20 0 9781 jetson.example.org."} {
				r, err := dns.NewRR(q.Question[0].Name + " 60 IN SRV " + rr)
				if err != nil {
					panic(err)
				}
				m.Answer = append(m.Answer, r)
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	got, err := DNS("_wattlet._tcp.example.org", true, resolver).Find(t.Context())
	if want := []Target{{URL: "https://pi.example.org:9780"}, {URL: "https://jetson.example.org:9781"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, err := DNS("_other._tcp.example.org.", false, resolver).Find(t.Context()); err != nil || got != nil {
		t.Errorf("%+v, %v of a service of which nothing runs", got, err)
	}
	broken.Store(true)
	if _, err := DNS("_wattlet._tcp.example.org", false, resolver).Find(t.Context()); err == nil || !strings.Contains(err.Error(), "_wattlet._tcp.example.org") {
		t.Errorf("%v of a broken name server", err)
	}
}

// Agents are found, found elsewhere too, cannot be looked for, and go.
func TestDiscover(t *testing.T) {
	t.Parallel()
	one, two, three := newAgent(t, ""), newAgent(t, ""), newAgent(t, "")
	type answer struct {
		all []Target
		err error
	}
	var now atomic.Value
	now.Store(answer{})
	h := start(t, Config{
		Targets: []Target{{Name: "one", URL: one.URL}},
		Discover: []Discoverer{
			{Name: "here", Every: 20 * time.Millisecond, Find: func(context.Context) ([]Target, error) {
				a := now.Load().(answer)
				return a.all, a.err
			}},
			{Name: "there", Every: time.Hour, Find: func(context.Context) ([]Target, error) {
				return []Target{{Name: "two", URL: three.URL}, {Name: "one again", URL: one.URL + "/"}}, nil
			}},
		},
	})
	names := func() string {
		var all []string
		for _, one := range h.targets.list() {
			all = append(all, one.name)
		}
		return strings.Join(all, ", ")
	}
	has := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return names() == want })
	}
	has("one, two") // three has the name two
	now.Store(answer{[]Target{{Name: "two", URL: two.URL}, {Name: "bad", URL: "coaps://x"}}, nil})
	has("one, two, two " + three.Listener.Addr().String())
	scraped(t, h.base, `wattlet_node_power_watts{instance="two"}`)
	eventually(t, "a complaint about what is no agent", func() bool { return strings.Contains(h.log.String(), "coaps://x") })
	now.Store(answer{nil, errors.New("the sky falls")})
	eventually(t, "a complaint", func() bool { return strings.Contains(h.log.String(), "the sky falls") })
	has("one, two, two " + three.Listener.Addr().String())
	now.Store(answer{})
	has("one, two")
	eventually(t, "a good word", func() bool { return strings.Contains(h.log.String(), "looking for agents works again") })
	if n := strings.Count(h.log.String(), "the sky falls"); n != 1 {
		t.Errorf("%d complaints", n)
	}
}
