package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/kubesim"
)

// The kubelet's list gives the same as a watch, but for pods of other nodes, which a kubelet does not have.
func TestKubelet(t *testing.T) {
	t.Parallel()
	c := newCluster(t, kubesim.Options{Token: "secret"})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	static := pod(7, "")
	static.Labels, static.Annotations = nil, map[string]string{"kubernetes.io/config.hash": strings.Repeat("b", 32), "kubernetes.io/config.source": "file"}
	static.HostNetwork = true
	c.Apply(static)
	c.Apply(pod(1, "gzip"))
	k := NewKubelet(KubeletConfig{Config: c.config(), Access: Access{TokenFile: token}, URL: c.http.URL, Every: time.Hour})
	k.first = 10 * time.Millisecond
	c.follow(k.Run)
	c.until("both are known", func() bool { n, _ := c.dir.Len(); return n == 2 })
	if p, ok := c.dir.Pod(strings.Repeat("b", 32)); !ok || p.Name != "-7" || p.IP != "" || p.Function != "" {
		t.Errorf("a static pod is %+v", p)
	}
	if p, ok := c.dir.Pod(uid(1)); !ok || p.Function != "gzip" || p.CPURequest != 0.25 || !p.Ready || p.IP != "10.42.0.1" {
		t.Errorf("%+v", p)
	}
	// The next question is an hour away, unless a pod is wanted.
	c.Apply(pod(2, "resize"))
	c.Delete("openfaas-fn", "gzip-1")
	c.dir.Want()
	c.until("it was asked", func() bool { _, ok := c.dir.Pod(uid(2)); return ok })
	if p, _ := c.dir.Pod(uid(1)); !p.Ended {
		t.Errorf("gone, but %+v", p)
	}
	c.Refuse(403)
	c.dir.Want()
	c.until("it was refused", func() bool {
		_, f := c.reports()
		return len(f) > 0 && strings.Contains(f[0], "code 403") && strings.Contains(f[0], "needs the verb get on nodes/pods")
	})
	if p, _ := c.dir.Pod(uid(2)); p.Ended || p.Function != "resize" {
		t.Errorf("meanwhile became %+v", p)
	}
}

func TestFunctionOf(t *testing.T) {
	for _, tc := range []struct {
		labels map[string]string
		pod    string
		own    string
		want   string
	}{
		{labels: map[string]string{"faas_function": "gzip"}, want: "gzip"},
		{labels: map[string]string{"serving.knative.dev/service": "hello", "app": "x"}, want: "hello"},
		{labels: map[string]string{"functionName": "hello", "functionNamespace": "default"}, want: "hello"},
		{labels: map[string]string{"nuclio.io/function-name": "hello"}, want: "hello"},
		{labels: map[string]string{"app": "x"}},
		{labels: map[string]string{"app": "x", "faas_function": "y"}, own: "app", want: "x"},
		{labels: map[string]string{"faas_function": "y"}, own: "app", want: "y"},
		{labels: map[string]string{"": "y"}},
		{},
		{labels: map[string]string{"user-action-pod": "true"}, pod: "wskowdev-invoker-00-8-guest-hello", want: "guest-hello"},
		{labels: map[string]string{"user-action-pod": "true"}, pod: "wsk0-12-guest-hello-2", want: "guest-hello-2"},
		{labels: map[string]string{"user-action-pod": "true"}, pod: "wsk0-7-prewarm-nodejs10", want: "prewarm-nodejs10"},
		{labels: map[string]string{"user-action-pod": "true"}, pod: "wsk0-7"},
		{labels: map[string]string{"user-action-pod": "true"}, pod: "wsk"},
		{labels: map[string]string{"user-action-pod": "true"}, pod: "mine-7-x"},
		{labels: map[string]string{"user-action-pod": "false"}, pod: "wsk0-7-guest-hello"},
	} {
		if got := functionOf(tc.labels, tc.pod, tc.own); got != tc.want {
			t.Errorf("%v of %s, own %q: %q, want %q", tc.labels, tc.pod, tc.own, got, tc.want)
		}
	}
}

func TestCores(t *testing.T) {
	for text, want := range map[string]float64{
		`"250m"`: 0.25, `"1"`: 1, `2`: 2, `"0.5"`: 0.5, `"1500000n"`: 0.0015, `"10u"`: 1e-5, `"2k"`: 2000, `"1e3"`: 1000, `"100e-3"`: 0.1,
		`""`: 0, `"m"`: 0, `"-1"`: 0, `"x"`: 0, `"1e300"`: 0, `"NaN"`: 0, `"Inf"`: 0, `null`: 0, `"1Gi"`: 0,
	} {
		var c cores
		if err := json.Unmarshal([]byte(text), &c); err != nil || math.Abs(float64(c)-want) > 1e-12 {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
}

// What a pod has reserved is what its containers and sidecars have, or what it has as a whole.
func TestRequests(t *testing.T) {
	for text, want := range map[string]float64{
		`{"containers":[{"resources":{"requests":{"cpu":"100m"}}},{"resources":{}},{}]}`:                                                               0.1,
		`{"containers":[{"resources":{"requests":{"cpu":"1"}}}],"initContainers":[{"restartPolicy":"Always","resources":{"requests":{"cpu":"50m"}}}]}`: 1.05,
		`{"containers":[{"resources":{"requests":{"cpu":"1"}}}],"initContainers":[{"resources":{"requests":{"cpu":"4"}}}]}`:                            1,
		`{"resources":{"requests":{"cpu":"2"}},"containers":[{"resources":{"requests":{"cpu":"1"}}}]}`:                                                 2,
		`{"containers":null}`: 0,
	} {
		var a apiPod
		if err := json.Unmarshal([]byte(`{"spec":`+text+`}`), &a); err != nil || a.pod("").CPURequest != want {
			t.Errorf("%s: %v, %v", text, a.pod("").CPURequest, err)
		}
	}
}

// What is gone stays known for ten minutes, and of much only the latest: no churn fills the memory.
func TestDirectoryForgets(t *testing.T) {
	now := time.Unix(0, 0)
	d := NewDirectory(func() time.Time { return now })
	for i := range 5000 {
		now = now.Add(100 * time.Millisecond)
		d.put(Pod{UID: uid(i), Name: "x", Containers: []string{fmt.Sprintf("%064x", i)}})
		if i > 0 {
			d.remove(uid(i - 1))
		}
		if there, gone := d.Len(); there != 1 || gone > maxGone {
			t.Fatalf("%d there, %d gone", there, gone)
		}
	}
	if _, gone := d.Len(); gone != maxGone || len(d.containers) != maxGone+1 {
		t.Errorf("%d gone, %d containers", gone, len(d.containers))
	}
	if _, ok := d.Pod(uid(4998)); !ok {
		t.Error("the latest is not known")
	}
	now = now.Add(keepGone + time.Second)
	d.remove(uid(4999))
	if there, gone := d.Len(); there != 0 || gone != 1 || len(d.containers) != 1 {
		t.Errorf("%d there, %d gone, %d containers", there, gone, len(d.containers))
	}
	// One that is told again is there again; a container that was started anew has another ID.
	d.put(Pod{UID: uid(4999), Name: "x", Containers: []string{"new"}})
	if p, ok := d.Pod(uid(4999)); !ok || p.Ended {
		t.Errorf("%+v", p)
	}
	if _, ok := d.Container(fmt.Sprintf("%064x", 4999)); ok {
		t.Error("the old container is known")
	}
}

// A function's pod that is not ready is worth asking for, for a while.
func TestDirectoryStarting(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := NewDirectory(func() time.Time { return now })
	pod := Pod{UID: "u", Name: "gzip-1", Function: "gzip"}
	want := func(when string, want bool) {
		t.Helper()
		if got := d.Starting(time.Minute); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	d.put(Pod{UID: "v", Name: "no function"})
	d.put(Pod{UID: "w", Name: "over", Function: "gzip", Ended: true})
	want("nobody starts", false)
	d.put(pod)
	now = now.Add(59 * time.Second)
	d.put(pod)
	want("it starts", true)
	now = now.Add(time.Second)
	want("it does not get ready", false)
	now = now.Add(-time.Second)
	pod.Ready = true
	d.put(pod)
	want("it is ready", false)
	pod.Ready, pod.Leaving = false, true
	d.put(pod)
	want("it leaves", false)
}

// Changed and Names tell of what is different and of nothing else.
func TestDirectoryTells(t *testing.T) {
	d := NewDirectory(time.Now)
	changed := func() bool {
		select {
		case <-d.Changed():
			return true
		default:
			return false
		}
	}
	for i, step := range []struct {
		do      func()
		changed bool
		names   uint64
	}{
		{func() { d.put(Pod{UID: "a", Name: "x"}) }, true, 1},
		{func() { d.put(Pod{UID: "a", Name: "x"}) }, false, 1},
		{func() { d.put(Pod{UID: "a", Name: "x", Ready: true}) }, true, 1},
		{func() { d.put(Pod{UID: "a", Name: "x", Ready: true, Function: "f"}) }, true, 2},
		{func() { d.put(Pod{}) }, false, 2},
		{func() { d.remove("b") }, false, 2},
		{func() { d.remove("a") }, true, 2},
		{func() { d.remove("a") }, false, 2},
		{func() { d.begin(); d.sweep() }, false, 2},
	} {
		step.do()
		if got := changed(); got != step.changed || d.Names() != step.names {
			t.Errorf("step %d: changed %v, names %d", i, got, d.Names())
		}
	}
}

func FuzzEvent(f *testing.F) {
	p := pod(1, "gzip")
	s := kubesim.New(kubesim.Options{})
	s.Apply(p)
	for _, kind := range []string{added, deleted, bookmark, failed, "", "NEW"} {
		f.Add(kind, []byte(`{"metadata":{"uid":"u","name":"n","resourceVersion":"5","annotations":{"kubernetes.io/config.hash":"h"}},"status":{"podIP":"10.0.0.1"}}`))
		f.Add(kind, []byte(`{"kind":"Status","status":"Failure","message":"m","code":410}`))
	}
	f.Fuzz(func(t *testing.T, kind string, object []byte) {
		e := apiEvent{Type: kind, Object: object}
		c, err := e.read("")
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		switch {
		case c.kind == bookmark:
		case c.pod.UID == "" || c.pod.Name == "":
			t.Errorf("%+v", c)
		case !(c.pod.CPURequest >= 0) || math.IsInf(c.pod.CPURequest, 0):
			t.Errorf("%v cores", c.pod.CPURequest)
		}
	})
}

func FuzzList(f *testing.F) {
	for _, s := range []string{
		`{"kind":"PodList","items":[{"metadata":{"uid":"u","name":"n"}},{}],"metadata":{}}`, `{"items":null}`, `{"items":{}}`, `[]`, `{`, `{"a":1}`,
		`{"items":[{"spec":{"containers":[{"resources":{"requests":{"cpu":"1"}}}]}}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		err := readList(bytes.NewReader(b), func(*apiPod) { n++ })
		var list struct{ Items []json.RawMessage }
		if err == nil && json.Unmarshal(b, &list) == nil && n < len(list.Items) {
			t.Errorf("%d of %d", n, len(list.Items))
		}
	})
}

func TestList(t *testing.T) {
	for text, want := range map[string]int{
		`{"kind":"PodList","metadata":{"x":[1,{}]},"items":[{"metadata":{"uid":"u"}},{}]}`: 2,
		`{"items":null}`: 0, `{"items":[]}`: 0, `{}`: -1, `[]`: -1, `{"items":{}}`: -1, `{"items":[{}`: -1, `{"items":[7]}`: -1, ``: -1, `<html>`: -1,
	} {
		n := 0
		err := readList(strings.NewReader(text), func(*apiPod) { n++ })
		if err != nil && want >= 0 || err == nil && n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
}

// What the certificates are read from is said when it is of no use.
func TestAccess(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.crt")
	if err := os.WriteFile(bad, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		Access
		want string
	}{
		{Access{}, ""},
		{Access{Insecure: true, CAFile: bad}, ""},
		{Access{CAFile: bad}, bad + " has none in PEM format"},
		{Access{CAFile: filepath.Join(dir, "no")}, "certificates to trust: open"},
		{Access{TokenFile: filepath.Join(dir, "no")}, "service account: open"},
	} {
		_, _, err := tc.connect()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.Access, err)
		}
	}
}
