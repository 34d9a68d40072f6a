// Package kube knows which pod a control group belongs to and which function it serves. It is told by the API server (Watch), by the
// node's kubelet (Kubelet) or by its container runtime (CRI), one of them, with nothing but HTTP and own structs; of each pod only what
// is needed is kept.
//
// Whoever is asked may be away: what was known stays known, and a pod that was deleted stays known for a while, since its last energy
// comes after it.
package kube

import (
	"slices"
	"sync"
	"time"
)

// Pod is what is kept of a pod.
type Pod struct {
	// UID is the one that control groups have: that of a static pod is the annotation kubernetes.io/config.hash of its API object.
	UID             string
	Namespace, Name string
	// Function is the function that the pod serves; empty if none.
	Function string
	// IP is empty until the pod has one, and where it has the node's.
	IP string
	// CPURequest is the number of cores that the pod has reserved, as far as is known.
	CPURequest float64
	// Ready says that the pod may be asked; Leaving that it was told to end, Ended that it has. Restarts counts those of its containers.
	Ready, Leaving, Ended bool
	// Starting says that the pod was known before it was Ready: then its start was seen.
	Starting bool
	Restarts int
	// Containers are the IDs of its containers, without the runtime's name.
	Containers []string
}

// same says whether nothing is different.
func (p *Pod) same(q *Pod) bool {
	return p.named(q) && p.IP == q.IP && p.CPURequest == q.CPURequest && p.Ready == q.Ready && p.Leaving == q.Leaving && p.Ended == q.Ended &&
		p.Restarts == q.Restarts && slices.Equal(p.Containers, q.Containers)
}

// named says whether the names are the same.
func (p *Pod) named(q *Pod) bool {
	return p.UID == q.UID && p.Namespace == q.Namespace && p.Name == q.Name && p.Function == q.Function
}

const (
	// keepGone is how long a pod that is gone stays known: longer than its account is shown.
	keepGone = 10 * time.Minute
	// maxGone bounds how many stay known, the latest; of 1 kB each at most.
	maxGone = 1000
)

// Directory holds the pods that are known. Its methods may be called from any goroutine.
type Directory struct {
	now     func() time.Time
	changed chan struct{}
	wanted  chan struct{}

	mu         sync.Mutex
	pods       map[string]*entry // by UID
	containers map[string]*entry
	round      uint64 // of tellings from the beginning
	names      uint64
}

// entry is a pod that is known.
type entry struct {
	Pod
	round uint64
	since time.Time // of being known
	gone  time.Time // zero while it is there
}

// NewDirectory returns an empty directory. now is a clock for what is gone.
func NewDirectory(now func() time.Time) *Directory {
	return &Directory{
		now: now, changed: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
		pods: map[string]*entry{}, containers: map[string]*entry{},
	}
}

// Pod returns the pod with a UID as control groups have it.
func (d *Directory) Pod(uid string) (Pod, bool) { return d.find(d.pods, uid) }

// Container returns the pod of a container.
func (d *Directory) Container(id string) (Pod, bool) { return d.find(d.containers, id) }

func (d *Directory) find(in map[string]*entry, key string) (Pod, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := in[key]; e != nil {
		return e.Pod, true
	}
	return Pod{}, false
}

// Starting says whether there is a pod of a function that is known for less than a time and not ready yet.
func (d *Directory) Starting(within time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, e := range d.pods {
		if e.Function != "" && !e.Ready && !e.Leaving && !e.Ended && now.Sub(e.since) < within {
			return true
		}
	}
	return false
}

// Want says that something is not known that should be soon: sources that are asked now and then are asked within a second.
func (d *Directory) Want() { signal(d.wanted) }

// Changed has a value when something is different than it was.
func (d *Directory) Changed() <-chan struct{} { return d.changed }

// Names changes whenever a name becomes known or another one.
func (d *Directory) Names() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names
}

// Len is the number of pods that are there, and of those that are gone and still known.
func (d *Directory) Len() (there, gone int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.pods {
		if !e.gone.IsZero() {
			gone++
		}
	}
	return len(d.pods) - gone, gone
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// begin says that all pods will be told from the beginning; sweep that they have been: others are gone.
func (d *Directory) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.round++
}

func (d *Directory) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.pods {
		if e.round != d.round {
			d.leave(e)
		}
	}
	d.forget()
}

// put enters what is told of a pod.
func (d *Directory) put(p Pod) {
	if p.UID == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.pods[p.UID]
	if e == nil {
		e = &entry{since: d.now()}
		d.pods[p.UID] = e
	}
	e.round = d.round
	p.Starting = e.Starting || !p.Ready
	if e.gone.IsZero() && e.same(&p) {
		return
	}
	if !e.named(&p) {
		d.names++
	}
	for _, id := range e.Containers { // of containers that were started anew the old ID goes
		delete(d.containers, id)
	}
	e.Pod, e.gone = p, time.Time{}
	for _, id := range e.Containers {
		d.containers[id] = e
	}
	signal(d.changed)
}

// remove says that a pod is gone.
func (d *Directory) remove(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.pods[uid]; e != nil {
		d.leave(e)
	}
	d.forget()
}

func (d *Directory) leave(e *entry) {
	if e.gone.IsZero() {
		e.gone, e.Ended, e.Leaving, e.Ready = d.now(), true, true, false
		signal(d.changed)
	}
}

// forget drops pods that have been gone for long, and the oldest of too many.
func (d *Directory) forget() {
	now := d.now()
	var left []*entry
	for _, e := range d.pods {
		switch {
		case e.gone.IsZero():
		case now.Sub(e.gone) > keepGone:
			d.drop(e)
		default:
			left = append(left, e)
		}
	}
	if n := len(left) - maxGone; n > 0 {
		slices.SortFunc(left, func(a, b *entry) int { return a.gone.Compare(b.gone) })
		for _, e := range left[:n] {
			d.drop(e)
		}
	}
}

func (d *Directory) drop(e *entry) {
	delete(d.pods, e.UID)
	for _, id := range e.Containers {
		if d.containers[id] == e {
			delete(d.containers, id)
		}
	}
}
