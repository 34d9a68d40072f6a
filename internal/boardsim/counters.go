package boardsim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/workload"
)

// userHZ is the unit of /proc/stat and of time_in_state: hundredths of a second whatever HZ is.
const userHZ = 10 * time.Millisecond

// Workloads returns what exists, as the platform would name it, sorted by ID. The kernel's own work is not among it.
func (b *Board) Workloads() []workload.Workload {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]workload.Workload, 0, len(b.works))
	for _, w := range b.works {
		if w != b.kernel {
			list = append(list, w.info)
		}
	}
	slices.SortFunc(list, func(a, b workload.Workload) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// Activity returns what the functions' pods have been asked to do, sorted by ID.
func (b *Board) Activity() []workload.Activity {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.activity(nil)
}

func (b *Board) activity(list []workload.Activity) []workload.Activity {
	for _, w := range b.works {
		if w.fn != nil && w.state == ready {
			list = append(list, workload.Activity{ID: w.info.ID, At: b.now, InFlight: w.inFlight(), Started: w.started, Completed: w.completed})
		}
	}
	slices.SortFunc(list, func(a, b workload.Activity) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// usage appends what the kernel's counters say of a workload: per class where it tells, which is with cgroup v1 (by CPU) or
// where a cpuset leaves one class only.
func (b *Board) usage(list []workload.Usage, w *work, at time.Duration) []workload.Usage {
	switch {
	case w.class >= 0:
		return append(list, workload.Usage{ID: w.info.ID, Class: b.clusters[w.class].Name, At: at, CPU: w.total()})
	case b.hierarchy.Version == 1:
		for _, k := range b.clusters {
			var t time.Duration
			for _, c := range w.cpu[k.first : k.first+k.count] {
				t += c
			}
			list = append(list, workload.Usage{ID: w.info.ID, Class: k.Name, At: at, CPU: t})
		}
		return list
	}
	return append(list, workload.Usage{ID: w.info.ID, At: at, CPU: w.total()})
}

// sample reads the kernel's counters. The slices of s are used again.
func (b *Board) sample(s *workload.Sample, ended []*work) {
	s.At, s.Usage, s.Ended, s.Frequency = b.now, s.Usage[:0], s.Ended[:0], s.Frequency[:0]
	for _, w := range b.works {
		if w != b.kernel {
			s.Usage = b.usage(s.Usage, w, b.now)
		}
	}
	for _, w := range ended {
		s.Usage = b.usage(s.Usage, w, b.now)
		s.Ended = append(s.Ended, w.info.ID)
	}
	for _, k := range b.clusters {
		var busy time.Duration
		for i := range k.count {
			c := &b.cores[k.first+i]
			busy += c.user.Truncate(userHZ) + c.kernel.Truncate(userHZ)
		}
		s.Usage = append(s.Usage, workload.Usage{ID: workload.Node, Class: k.Name, At: b.now, CPU: busy})
		for i, p := range k.Points {
			s.Frequency = append(s.Frequency, workload.Frequency{Class: k.Name, KHz: p.KHz, At: b.now, Time: k.inState[i].Truncate(userHZ)})
		}
	}
	slices.SortFunc(s.Usage, func(a, b workload.Usage) int {
		return cmp.Or(strings.Compare(string(a.ID), string(b.ID)), strings.Compare(a.Class, b.Class))
	})
	slices.SortFunc(s.Frequency, func(a, b workload.Frequency) int {
		return cmp.Or(strings.Compare(a.Class, b.Class), cmp.Compare(a.KHz, b.KHz))
	})
	slices.Sort(s.Ended)
}
