// Package kubesim stands for what Kubernetes tells of pods: the API server's watch and the kubelet's list, with their semantics and
// their oddities, over HTTP. It shares nothing with the agent but that.
package kubesim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Pod is what is told of a pod.
type Pod struct {
	UID, Namespace, Name, Node string
	Labels                     map[string]string
	Annotations                map[string]string
	IP                         string
	HostNetwork                bool
	CPU                        string // requested
	Phase                      string // Running if empty
	Ready                      bool
	Container                  string // its ID
	Restarts                   int
}

// Options say how a Server behaves.
type Options struct {
	// Token is the one that is taken; empty takes any.
	Token string
	// Bookmarks is the time between two bookmarks; 0 sends none.
	Bookmarks time.Duration
	// Pieces cuts what is sent into pieces of so many bytes; 0 sends whole events.
	Pieces int
	// GoneAsEvent tells that a version is too old in an event; else it is the answer's status. Servers do both.
	GoneAsEvent bool
	// NoNewest refuses a watch that begins at the newest version, by an event after the first pods, as servers on an old etcd do.
	NoNewest bool
}

// Server answers as the API server of a cluster, and at /pods as the kubelet of any node. Its methods may be called from any goroutine.
type Server struct {
	o Options

	mu       sync.Mutex
	version  int64
	oldest   int64 // from which a watch may go on
	pods     map[string]Pod
	log      []event
	changed  chan struct{} // closed at the next change
	breaks   int           // connections of before are cut
	ends     int           // those of before end in order
	refusing int
	mute     bool
	watches  []string // the versions from which watches began
	open     int
}

type event struct {
	version int64
	node    string
	text    []byte
}

// New returns a server without pods.
func New(o Options) *Server {
	return &Server{o: o, version: 100, pods: map[string]Pod{}, changed: make(chan struct{})}
}

// Apply makes or changes a pod.
func (s *Server) Apply(p Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := p.Namespace + "/" + p.Name
	kind := "MODIFIED"
	if _, there := s.pods[key]; !there {
		kind = "ADDED"
	}
	s.version++
	s.pods[key] = p
	s.tell(event{s.version, p.Node, encode(kind, object(&p, s.version))})
}

// Delete removes a pod.
func (s *Server) Delete(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := namespace + "/" + name
	if p, there := s.pods[key]; there {
		delete(s.pods, key)
		s.version++
		s.tell(event{s.version, p.Node, encode("DELETED", object(&p, s.version))})
	}
}

// Emit sends all watches something else.
func (s *Server) Emit(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(event{s.version, "", []byte(text)})
}

func (s *Server) tell(e event) {
	s.log = append(s.log, e)
	s.wake()
}

func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Compact forgets what was: no watch may go on from a version of before.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.oldest, s.log = s.version, nil
}

// Break cuts all connections; End ends all watches in order.
func (s *Server) Break() { s.do(func() { s.breaks++ }) }

// End ends all watches in order.
func (s *Server) End() { s.do(func() { s.ends++ }) }

// Refuse answers requests with a status, or as usual if it is 0.
func (s *Server) Refuse(code int) { s.do(func() { s.refusing = code }) }

// Mute lets connections stand and sends nothing, not even bookmarks.
func (s *Server) Mute(mute bool) { s.do(func() { s.mute = mute }) }

func (s *Server) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.wake()
}

// Watches returns the versions from which watches have begun so far, and how many stand.
func (s *Server) Watches() (from []string, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.watches), s.open
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refusing := s.refusing
	s.mu.Unlock()
	switch {
	case s.o.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.o.Token:
		refuse(w, http.StatusUnauthorized, "Unauthorized")
	case refusing != 0:
		refuse(w, refusing, "the server is not able to handle the request")
	case r.Method == http.MethodGet && r.URL.Path == "/pods":
		s.list(w)
	case r.Method != http.MethodGet || r.URL.Path != "/api/v1/pods":
		refuse(w, http.StatusNotFound, "the server could not find the requested resource")
	case r.URL.Query().Get("watch") != "1" && r.URL.Query().Get("watch") != "true":
		refuse(w, http.StatusForbidden, `pods is forbidden: User "system:serviceaccount:wattlet:wattlet" cannot list resource "pods"`)
	default:
		s.watch(w, r)
	}
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(status(code, text)) // who has gone does not mind
}

func status(code int, text string) []byte {
	b, _ := json.Marshal(map[string]any{ // of strings and numbers
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": text,
		"reason": strings.ReplaceAll(http.StatusText(code), " ", ""), "code": code,
	})
	return b
}

func (s *Server) list(w http.ResponseWriter) {
	s.mu.Lock()
	var items []json.RawMessage
	for _, key := range sortedKeys(s.pods) {
		p := s.pods[key]
		items = append(items, object(&p, 0))
	}
	s.mu.Unlock()
	b, _ := json.Marshal(map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": map[string]any{}, "items": items})
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

func sortedKeys(m map[string]Pod) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// watch streams events until the client goes or it is told to end.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	node, _ := strings.CutPrefix(q.Get("fieldSelector"), "spec.nodeName=")
	from := q.Get("resourceVersion")
	s.mu.Lock()
	s.watches = append(s.watches, from)
	s.open++
	breaks, ends := s.breaks, s.ends
	var first [][]byte
	at := len(s.log)
	version, err := strconv.ParseInt(from, 10, 64)
	gone := false
	switch {
	case from == "" || from == "0":
		for _, key := range sortedKeys(s.pods) {
			if p := s.pods[key]; p.Node == node {
				first = append(first, encode("ADDED", object(&p, s.version)))
			}
		}
		if from == "" && s.o.NoNewest {
			first = append(first, encode("ERROR", status(500, "storage is (re)initializing: RequestWatchProgress is disabled")))
		}
	case err != nil || version < s.oldest:
		gone = true
	default:
		at = 0
		for at < len(s.log) && s.log[at].version <= version {
			at++
		}
	}
	s.mu.Unlock()
	defer s.do(func() { s.open-- })
	const old = "too old resource version"
	if gone && !s.o.GoneAsEvent {
		refuse(w, http.StatusGone, old)
		return
	}
	if gone {
		first = append(first, encode("ERROR", status(http.StatusGone, old)))
	}
	w.Header().Set("Content-Type", "application/json")
	send := s.sender(w)
	send(nil)
	for _, b := range first {
		send(b)
	}
	if gone || from == "" && s.o.NoNewest {
		return
	}
	s.stream(r, q.Get("allowWatchBookmarks") == "true", node, at, breaks, ends, send)
}

// sender writes to a client, in pieces if so asked.
func (s *Server) sender(w http.ResponseWriter) func([]byte) {
	flush, _ := w.(http.Flusher)
	return func(b []byte) {
		for first := true; first || len(b) > 0; first = false {
			n := len(b)
			if s.o.Pieces > 0 {
				n = min(n, s.o.Pieces)
			}
			_, _ = w.Write(b[:n])
			if flush != nil {
				flush.Flush()
			}
			b = b[n:]
		}
	}
}

func (s *Server) stream(r *http.Request, bookmarks bool, node string, at, breaks, ends int, send func([]byte)) {
	var mark <-chan time.Time
	if bookmarks && s.o.Bookmarks > 0 {
		t := time.NewTicker(s.o.Bookmarks)
		defer t.Stop()
		mark = t.C
	}
	marked := false
	for {
		s.mu.Lock()
		changed := s.changed
		if s.breaks != breaks {
			s.mu.Unlock()
			panic(http.ErrAbortHandler) // the way to cut a connection
		}
		over := s.ends != ends
		var news [][]byte
		if !s.mute {
			at = min(at, len(s.log))
			for ; at < len(s.log); at++ {
				if e := &s.log[at]; e.node == "" || e.node == node {
					news = append(news, e.text)
				}
			}
			if marked {
				const text = `{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"spec":{"containers":null},"status":{}}`
				news = append(news, encode("BOOKMARK", fmt.Appendf(nil, text, s.version)))
			}
		}
		marked = false
		s.mu.Unlock()
		for _, b := range news {
			send(b)
		}
		if over {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-mark:
			marked = true
		}
	}
}

func encode(kind string, object []byte) []byte {
	return fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", kind, object)
}

// object is a pod as the API has it, with as much that nobody here reads as a real one.
func object(p *Pod, version int64) []byte {
	phase := p.Phase
	if phase == "" {
		phase = "Running"
	}
	requests := map[string]string{"memory": "64Mi"}
	if p.CPU != "" {
		requests["cpu"] = p.CPU
	}
	ready := "False"
	if p.Ready {
		ready = "True"
	}
	var managed []any
	for i := range 3 {
		fields := map[string]any{}
		for j := range 41 {
			fields[fmt.Sprintf(`f:field-%d-%d`, i, j)] = map[string]any{".": map[string]any{}, "f:value": map[string]any{}}
		}
		managed = append(managed, map[string]any{"manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields})
	}
	statuses := []any{}
	if p.Container != "" {
		statuses = append(statuses, map[string]any{
			"name": "main", "containerID": "containerd://" + p.Container, "restartCount": p.Restarts, "ready": p.Ready, "started": p.Ready,
			"image": "localhost/burn:1", "imageID": "localhost/burn@sha256:0",
			"state": map[string]any{"running": map[string]any{"startedAt": "2026-08-21T10:00:00Z"}},
		})
	}
	meta := map[string]any{
		"uid": p.UID, "name": p.Name, "namespace": p.Namespace, "labels": p.Labels, "annotations": p.Annotations, "managedFields": managed,
		"creationTimestamp": "2026-08-21T10:00:00Z", "ownerReferences": []any{map[string]any{"kind": "ReplicaSet", "name": "rs", "uid": p.UID}},
	}
	if version != 0 {
		meta["resourceVersion"] = strconv.FormatInt(version, 10)
	}
	b, _ := json.Marshal(map[string]any{ // of strings, numbers and truths
		"kind": "Pod", "apiVersion": "v1", "metadata": meta,
		"spec": map[string]any{
			"nodeName": p.Node, "hostNetwork": p.HostNetwork, "serviceAccountName": "default", "restartPolicy": "Always",
			"containers": []any{map[string]any{"name": "main", "image": "localhost/burn:1", "resources": map[string]any{"requests": requests}}},
		},
		"status": map[string]any{
			"phase": phase, "podIP": p.IP, "hostIP": "10.0.0.1", "qosClass": "Burstable", "containerStatuses": statuses,
			"conditions": []any{
				map[string]any{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-08-21T10:00:00Z"},
				map[string]any{"type": "Ready", "status": ready, "lastTransitionTime": "2026-08-21T10:00:00Z"},
			},
		},
	})
	return b
}
