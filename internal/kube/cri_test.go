package kube

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/wattlet/wattlet/internal/kubesim"
)

// runtime is a container runtime: real HTTP/2 from the standard library, and messages by another encoder than ours.
type runtime struct {
	t *testing.T

	mu         sync.Mutex
	sandboxes  []sandbox
	containers []container
	ips        map[string]string
	answer     func(w http.ResponseWriter, method string, message []byte) bool // comes first
	calls      map[string]int
}

func text(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func number(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func encodeSandbox(s *sandbox) []byte {
	b := text(nil, 1, s.id)
	meta := text(text(text(nil, 1, s.name), 2, s.uid), 3, s.namespace)
	b = message(b, 2, number(meta, 4, s.attempt))
	if !s.ready {
		b = number(b, 3, 1)
	}
	b = number(b, 4, s.created)
	for k, v := range s.labels {
		b = message(b, 5, text(text(nil, 1, k), 2, v))
	}
	b = message(b, 6, text(text(nil, 1, "kubernetes.io/config.seen"), 2, "2026"))
	if s.hash != "" {
		b = message(b, 6, text(text(nil, 1, "kubernetes.io/config.hash"), 2, s.hash))
	}
	b = text(b, 7, "runc")
	b = protowire.AppendFixed32(protowire.AppendTag(b, 90, protowire.Fixed32Type), 7) // what comes in later versions
	return protowire.AppendFixed64(protowire.AppendTag(b, 91, protowire.Fixed64Type), 7)
}

func encodeContainer(c *container) []byte {
	b := text(text(nil, 1, c.id), 2, c.sandbox)
	b = message(b, 3, number(text(nil, 1, c.name), 2, c.attempt))
	b = message(b, 4, text(nil, 1, "localhost/burn:1"))
	if c.running {
		return number(b, 6, 1)
	}
	return number(b, 6, 2)
}

// ServeHTTP answers a unary call.
func (r *runtime) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	method, ok := strings.CutPrefix(q.URL.Path, criService)
	body, err := io.ReadAll(q.Body)
	if err != nil || !ok || q.ProtoMajor != 2 || q.Method != http.MethodPost || q.Header.Get("Content-Type") != "application/grpc" || q.Header.Get("Te") != "trailers" ||
		len(body) < 5 || binary.BigEndian.Uint32(body[1:]) != uint32(len(body)-5) {
		r.t.Errorf("%v %v %v: %v, %q", q.Proto, q.Method, q.URL, q.Header, body)
		return
	}
	r.calls[method]++
	if r.answer != nil && r.answer(w, method, body[5:]) {
		return
	}
	var b []byte
	switch method {
	case "ListPodSandbox":
		for i := range r.sandboxes {
			b = message(b, 1, encodeSandbox(&r.sandboxes[i]))
		}
	case "ListContainers":
		for i := range r.containers {
			b = message(b, 1, encodeContainer(&r.containers[i]))
		}
	case "PodSandboxStatus":
		_, _, n := protowire.ConsumeTag(body[5:])
		id, _ := protowire.ConsumeString(body[5+n:])
		ip, there := r.ips[id]
		if !there {
			reply(w, nil, "5", "an error occurred%3A not found")
			return
		}
		b = message(nil, 1, message(text(nil, 1, id), 5, text(nil, 1, ip)))
	}
	reply(w, b, "0", "")
}

func reply(w http.ResponseWriter, b []byte, status, text string) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	if b != nil || status == "0" {
		h.Set("Trailer", "grpc-status, grpc-message")
		_, _ = w.Write(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))))
		_, _ = w.Write(b)
	}
	h.Set("grpc-status", status)
	h.Set("grpc-message", text)
}

// newRuntime serves on a socket.
func newRuntime(t *testing.T) (r *runtime, socket string) {
	t.Helper()
	r = &runtime{t: t, ips: map[string]string{}, calls: map[string]int{}}
	socket = filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: r, Protocols: &http.Protocols{}, ReadHeaderTimeout: time.Minute}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return r, socket
}

func (r *runtime) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// Pods are sandboxes with labels, and containers by their sandbox.
func TestCRI(t *testing.T) {
	t.Parallel()
	r, socket := newRuntime(t)
	id := func(i int) string { return fmt.Sprintf("%064x", i) }
	r.sandboxes = []sandbox{
		{id: id(1), uid: uid(1), name: "gzip-1", namespace: "openfaas-fn", ready: true, created: 5, labels: map[string]string{"faas_function": "gzip", "app": "x"}},
		{id: id(2), uid: uid(2), name: "other", namespace: "default", created: 3, labels: map[string]string{}}, // a sandbox of before
		{id: id(3), uid: uid(2), name: "other", namespace: "default", ready: true, attempt: 1, created: 8, labels: map[string]string{}},
		{id: id(4), uid: uid(4), name: "etcd-node", namespace: "kube-system", ready: true, hash: strings.Repeat("a", 32)},
	}
	r.containers = []container{
		{id: id(11), sandbox: id(1), name: "gzip", attempt: 0},
		{id: id(12), sandbox: id(1), name: "gzip", attempt: 2, running: true},
		{id: id(13), sandbox: id(3), name: "main"},
	}
	r.ips[id(1)] = "10.42.0.1"
	c := newCluster(t, kubesim.Options{})
	cri := NewCRI(CRIConfig{Config: c.config(), Socket: socket, Every: 30 * time.Millisecond})
	cri.first = 10 * time.Millisecond
	c.follow(cri.Run)
	c.until("all are known", func() bool { n, _ := c.dir.Len(); return n == 3 })
	for uid, want := range map[string]Pod{
		uid(1): {
			UID: uid(1), Namespace: "openfaas-fn", Name: "gzip-1", Function: "gzip", IP: "10.42.0.1", Ready: true, Restarts: 2, Containers: []string{id(11), id(12)},
		},
		uid(2):                  {UID: uid(2), Namespace: "default", Name: "other", Containers: []string{id(13)}},
		strings.Repeat("a", 32): {UID: strings.Repeat("a", 32), Namespace: "kube-system", Name: "etcd-node"},
	} {
		if got, ok := c.dir.Pod(uid); !ok || !got.same(&want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if p, ok := c.dir.Container(id(12)); !ok || p.Name != "gzip-1" {
		t.Errorf("by its container %+v", p)
	}
	n, _ := c.reports()
	c.until("it was asked more often", func() bool { m, _ := c.reports(); return m > n+3 })
	r.set(func() {
		if n := r.calls["PodSandboxStatus"]; n != 1 {
			t.Errorf("an address was asked for %d times", n)
		}
		r.sandboxes, r.containers = r.sandboxes[1:], r.containers[2:]
	})
	c.until("one is gone", func() bool { p, _ := c.dir.Pod(uid(1)); return p.Ended })
	if p, ok := c.dir.Pod(uid(1)); !ok || p.Function != "gzip" {
		t.Errorf("what is gone is %+v", p)
	}

	// A runtime that cannot: in words of its own.
	for text, answer := range map[string]func(w http.ResponseWriter){
		`ListPodSandbox: status "12": "unknown service runtime.v1"`:           func(w http.ResponseWriter) { reply(w, nil, "12", "unknown service runtime%2Ev1") },
		`ListPodSandbox: status "8": "100% busy"`:                             func(w http.ResponseWriter) { reply(w, nil, "8", "100% busy") },
		`ListPodSandbox: the answer is not gRPC: HTTP status "503"`:           func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"ListPodSandbox: not the message that was asked for":                  func(w http.ResponseWriter) { reply(w, []byte{1}, "0", "") },
		"ListPodSandbox: the answer is not gRPC":                              func(w http.ResponseWriter) { h := w.Header(); h.Set("grpc-status", "0") },
		"ListPodSandbox: the server ends the call":                            func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		fmt.Sprintf("ListPodSandbox: the answer has more than %d", maxAnswer): func(w http.ResponseWriter) { reply(w, make([]byte, maxAnswer+1), "0", "") },
	} {
		r.set(func() {
			r.answer = func(w http.ResponseWriter, _ string, _ []byte) bool { answer(w); return true }
		})
		c.until(text, func() bool {
			_, f := c.reports()
			return len(f) > 0 && strings.Contains(f[len(f)-1], text)
		})
	}
	r.set(func() { r.answer = nil })
	n, _ = c.reports()
	c.until("it answers again", func() bool { m, _ := c.reports(); return m > n })
	if p, _ := c.dir.Pod(uid(2)); p.Name != "other" || p.Ended {
		t.Errorf("meanwhile became %+v", p)
	}
}

// A large answer comes in many frames.
func TestManySandboxes(t *testing.T) {
	t.Parallel()
	r, socket := newRuntime(t)
	for i := range 3000 {
		r.sandboxes = append(r.sandboxes, sandbox{
			id: fmt.Sprintf("%064x", i), uid: uid(i), name: fmt.Sprint("pod-", i), namespace: "n", ready: true, labels: map[string]string{"x": strings.Repeat("y", 300)},
		})
	}
	c := newCluster(t, kubesim.Options{})
	cri := NewCRI(CRIConfig{Config: c.config(), Socket: socket})
	if err := cri.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _ := c.dir.Len(); n != 3000 {
		t.Errorf("%d pods", n)
	}
}

func TestNoRuntime(t *testing.T) {
	c := newCluster(t, kubesim.Options{})
	cri := NewCRI(CRIConfig{Config: c.config(), Socket: filepath.Join(t.TempDir(), "none")})
	if err := cri.ask(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "container runtime: dial unix") {
		t.Error(err)
	}
}

// feed is a connection that has been answered already.
type feed struct {
	net.Conn
	r io.Reader
}

func (f *feed) Read(b []byte) (int, error)  { return f.r.Read(b) }
func (f *feed) Write(b []byte) (int, error) { return len(b), nil }

func answerOf(b []byte) ([]byte, error) {
	g, err := newGRPC(context.Background(), &feed{r: strings.NewReader(string(b))})
	if err != nil {
		return nil, err
	}
	return g.call(criService+"ListPodSandbox", nil)
}

// frames are an answer in the frames of a server that uses what it may: settings, pings, padding, priorities, split headers.
func frames(body []byte) []byte {
	h := appendField(appendField(nil, ":status", "200"), "content-type", "application/grpc")
	b := appendFrame(nil, frameSettings, 0, 0, make([]byte, 6))
	b = appendFrame(b, framePing, 0, 0, make([]byte, 8))
	b = appendFrame(b, frameHeaders, flagPriority, 1, append(make([]byte, 5), h[:7]...))
	b = appendFrame(b, frameContinuation, flagEndHeaders, 1, h[7:])
	b = appendFrame(b, frameWindow, 0, 1, []byte{0, 0, 0, 9})
	b = appendFrame(b, frameData, flagPadded, 1, slices.Concat([]byte{3}, body[:2], make([]byte, 3)))
	b = appendFrame(b, frameData, 0, 1, body[2:])
	b = appendFrame(b, 77, 0, 1, []byte("of a later version"))
	return appendFrame(b, frameHeaders, flagEnd|flagEndHeaders, 1, appendField(nil, "grpc-status", "0"))
}

func TestFrames(t *testing.T) {
	b, err := answerOf(frames([]byte{0, 0, 0, 0, 3, 'a', 'b', 'c'}))
	if err != nil || string(b) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
	for what, bad := range map[string][]byte{
		"compressed":      frames([]byte{1, 0, 0, 0, 3, 'a', 'b', 'c'}),
		"short":           frames([]byte{0, 0, 0, 0, 4, 'a', 'b', 'c'}),
		"cut":             frames([]byte{0, 0, 0, 0, 3, 'a', 'b', 'c'})[:60],
		"large frame":     {0, 0x40, 1, 0, 0, 0, 0, 0, 1},
		"other stream":    appendFrame(nil, frameData, flagEnd, 3, nil),
		"goes away":       appendFrame(nil, frameGoAway, 0, 0, make([]byte, 8)),
		"padding":         appendFrame(nil, frameData, flagPadded, 1, []byte{9, 1}),
		"no padding":      appendFrame(nil, frameData, flagPadded, 1, nil),
		"no priority":     appendFrame(nil, frameHeaders, flagPriority, 1, []byte{1}),
		"lone rest":       appendFrame(nil, frameContinuation, flagEndHeaders, 1, nil),
		"within headers":  appendFrame(appendFrame(nil, frameHeaders, 0, 1, nil), frameData, 0, 1, nil),
		"headers":         appendFrame(nil, frameHeaders, flagEndHeaders, 1, []byte{0xff}),
		"half a header":   appendFrame(nil, frameHeaders, flagEndHeaders, 1, []byte{0, 9, 'x'}),
		"ping":            appendFrame(nil, framePing, 0, 0, nil),
		"nothing at all":  nil,
		"without headers": appendFrame(nil, frameData, flagEnd, 1, []byte{0, 0, 0, 0, 0}),
	} {
		if b, err := answerOf(bad); err == nil {
			t.Errorf("%s: %q", what, b)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frames([]byte{0, 0, 0, 0, 3, 'a', 'b', 'c'}))
	f.Add(appendFrame(nil, frameGoAway, 0, 0, make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := answerOf(b); err == nil && len(m) > len(b) {
			t.Errorf("%d bytes of %d", len(m), len(b))
		}
	})
}

// Whatever a runtime says, what is read of it is no more than it said.
func FuzzCRI(f *testing.F) {
	f.Add(message(nil, 1, encodeSandbox(&sandbox{id: "a", uid: "u", name: "n", namespace: "s", hash: "h", labels: map[string]string{"k": "v"}})))
	f.Add(message(nil, 1, encodeContainer(&container{id: "a", sandbox: "b", name: "c", attempt: 3, running: true})))
	f.Add(message(nil, 1, message(nil, 5, text(nil, 1, "10.0.0.1"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		sandboxes, err := readSandboxes(b)
		if err == nil {
			n := 0
			for i := range sandboxes {
				n += len(sandboxes[i].id) + len(sandboxes[i].uid) + len(sandboxes[i].name)
			}
			if n > len(b) {
				t.Errorf("%d bytes of %d", n, len(b))
			}
			// What we read we read again.
			var again []byte
			for i := range sandboxes {
				again = message(again, 1, encodeSandbox(&sandboxes[i]))
			}
			if back, err := readSandboxes(again); err != nil || len(back) != len(sandboxes) {
				t.Errorf("%v: %d of %d", err, len(back), len(sandboxes))
			}
		}
		containers, err := readContainers(b)
		if err == nil {
			pods := podsOf(sandboxes, containers, "")
			if len(pods) > len(sandboxes) {
				t.Errorf("%d pods of %d sandboxes", len(pods), len(sandboxes))
			}
		}
		if ip, err := readStatusIP(b); err == nil && len(ip) > len(b) {
			t.Error(ip)
		}
	})
}
