// Package workload names what uses a node's processors, and holds what the kernel and the platform say of it.
package workload

import (
	"fmt"
	"time"
)

// ID names a workload on its node: the path of its control group below the hierarchy's root, without a leading slash, such
// as "kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope" or "system.slice/sshd.service". IDs that begin with "@" are
// not control groups.
type ID string

const (
	// Node stands for all busy time of the node's processors.
	Node ID = "@node"
	// Kernel stands for the busy time that belongs to no control group that is read: interrupts, kernel threads, and
	// processes in the root group.
	Kernel ID = "@kernel"
)

// Kind says what a workload is to the people who run it.
type Kind uint8

// The kinds, as they stand in traces and metrics.
const (
	// Pod is a container that serves no function.
	Pod Kind = iota
	// Function is a container that serves a function.
	Function
	// System is the operating system's and the platform's own.
	System
	// Agent is this agent.
	Agent
)

var kinds = [...]string{Pod: "pod", Function: "function", System: "system", Agent: "agent"}

// String returns the kind's word in traces and metrics.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind is the inverse of String.
func ParseKind(s string) (Kind, error) {
	for k, word := range kinds {
		if word == s {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("kind %q is none of function, pod, system, agent", s)
}

// Workload is what is known of one ID.
type Workload struct {
	ID   ID
	Kind Kind
	// Namespace and Name are the platform's names; for a plain control group the namespace is empty and the name its last
	// path element.
	Namespace, Name string
	// Function is the function it serves; empty unless Kind is Function. Several workloads may serve one.
	Function string
}

// All times below are on one monotonic clock of the host.

// Usage is the CPU time that a workload has used up to an instant.
type Usage struct {
	ID ID
	// Class is the core class, such as "little" or "big"; empty where all cores are alike or the kernel does not tell.
	Class string
	At    time.Duration
	// CPU only grows over the life of a workload.
	CPU time.Duration
}

// Frequency is the time that a core class has spent at a frequency up to an instant.
type Frequency struct {
	Class string
	KHz   int64
	At    time.Duration
	Time  time.Duration
}

// Sample is one reading of the kernel's counters.
type Sample struct {
	// At is the instant at which the sample was complete; each value has its own.
	At time.Duration
	// Usage is sorted by ID, then class, and includes Node. A workload that vanished is in one more sample, with the last value
	// seen, so that nothing it used is forgotten.
	Usage []Usage
	// Ended are the workloads that vanished since the last sample, sorted.
	Ended []ID
	// Frequency is sorted by class, then frequency; empty where the kernel does not tell.
	Frequency []Frequency
}

// Activity is what a function's pod has been asked to do up to an instant.
type Activity struct {
	ID ID
	At time.Duration
	// InFlight is the number of requests being served; Started and Completed are running counts.
	InFlight, Started, Completed int64
}

// Event is something that happened to a workload, or to Node.
type Event struct {
	ID ID
	At time.Duration
	// What is Created, Ready, Stopped or, for Node, RegimePrefix followed by a text.
	What string
}

// What may happen.
const (
	Created      = "created"
	Ready        = "ready"
	Stopped      = "stopped"
	RegimePrefix = "regime:" // a governor or a limit was changed on purpose
)
