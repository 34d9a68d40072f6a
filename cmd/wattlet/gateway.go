package main

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/workload"
)

// decided is how often a pod's watchdog is asked before it is taken for one without.
const decided = 3

// served returns the functions that are served here, for the gateway's counts: those of a watchdog come first.
func (d *directory) served(seen []workload.Workload, asked []activity.Status) []activity.Served {
	status := make(map[workload.ID]*activity.Status, len(asked))
	for i := range asked {
		status[asked[i].ID] = &asked[i]
	}
	var out []activity.Served
	at := map[[2]string]int{}
	for _, w := range seen {
		if w.Kind != workload.Function {
			continue
		}
		p, known := d.pod(w.ID)
		if known && (p.Leaving || p.Ended) {
			continue
		}
		key := [2]string{w.Namespace, w.Function}
		i, there := at[key]
		if !there {
			i = len(out)
			at[key] = i
			out = append(out, activity.Served{Namespace: w.Namespace, Name: w.Function})
		}
		f := &out[i]
		f.Workloads = append(f.Workloads, w.ID)
		s := status[w.ID]
		switch {
		case s != nil && (!s.Maybe || s.LastSuccess > 0):
			f.Watched = true
		case s == nil && known && d.port != 0 && d.find(w.ID) == nil, s != nil && s.Polls < decided:
			f.Undecided = f.Undecided || p.IP != "" || !p.Ready
		}
	}
	slices.SortFunc(out, func(a, b activity.Served) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// The sources of what workloads are asked to do.
const (
	watchdogs = 1 + iota
	gateways
)

// switchover carries a workload's counts on from one source to another, so that no request is counted by both. Its zero value has
// seen nothing.
type switchover struct {
	mu   sync.Mutex
	last map[workload.ID]*carried
}

type carried struct {
	source                   int
	started, completed       int64 // as told
	offStarted, offCompleted int64
}

// maxCarried bounds the workloads whose source is remembered.
const maxCarried = 5000

// from returns what a source tells its counts.
func (s *switchover) from(source int, to func(workload.Activity)) func(workload.Activity) {
	return func(a workload.Activity) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.last == nil {
			s.last = map[workload.ID]*carried{}
		} else if len(s.last) > maxCarried { // those that have one source so far are not missed
			maps.DeleteFunc(s.last, func(_ workload.ID, c *carried) bool { return c.offStarted == 0 && c.offCompleted == 0 })
		}
		c := s.last[a.ID]
		switch {
		case c == nil:
			c = &carried{source: source}
			s.last[a.ID] = c
		case c.source != source:
			c.source, c.offStarted, c.offCompleted = source, c.started-a.Started, c.completed-a.Completed
		}
		a.Started += c.offStarted
		a.Completed += c.offCompleted
		c.started, c.completed = a.Started, a.Completed
		to(a)
	}
}
