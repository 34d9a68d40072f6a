package kube

import (
	"context"
	"fmt"
	"net"
	"time"
)

// CRIConfig is what a CRI is made of.
type CRIConfig struct {
	Config
	// Socket is the path of the runtime's socket, such as /run/containerd/containerd.sock. It is root's.
	Socket string
	// Every is the time between two questions; default 5 s. A pod that is not known is asked for within a second.
	Every time.Duration
}

const (
	defaultCRIEvery = 5 * time.Second
	criTimeout      = 5 * time.Second
	criService      = "/runtime.v1.RuntimeService/"
)

// CRI asks the container runtime for its pods (https://github.com/kubernetes/cri-api, runtime.v1). It needs neither API server nor
// kubelet nor rights, but a socket that root alone may use. It does not tell what CPU a pod has reserved, and takes a pod for ready when
// all its containers run.
type CRI struct {
	source
	cfg CRIConfig
	ips map[string]string // of sandboxes that serve functions, by ID
}

// NewCRI returns a CRI that asks nothing yet.
func NewCRI(c CRIConfig) *CRI {
	if c.Every <= 0 {
		c.Every = defaultCRIEvery
	}
	return &CRI{source: newSource(c.Config, c.Socket), cfg: c, ips: map[string]string{}}
}

// Run asks until ctx ends, then returns nil. It may be called once.
func (c *CRI) Run(ctx context.Context) error {
	return c.poll(ctx, c.cfg.Every, c.ask)
}

func (c *CRI) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.cfg.Socket)
	if err != nil {
		return fmt.Errorf("container runtime: %w", err)
	}
	defer conn.Close()
	if err := c.list(ctx, conn); err != nil {
		return fmt.Errorf("container runtime at %s: %w", c.cfg.Socket, err)
	}
	return nil
}

// list asks for all sandboxes, which are pods, and all containers.
func (c *CRI) list(ctx context.Context, conn net.Conn) error {
	g, err := newGRPC(ctx, conn)
	if err != nil {
		return err
	}
	b, err := g.call(criService+"ListPodSandbox", nil)
	if err != nil {
		return err
	}
	sandboxes, err := readSandboxes(b)
	if err != nil {
		return fmt.Errorf("ListPodSandbox: %w", err)
	}
	if b, err = g.call(criService+"ListContainers", nil); err != nil {
		return err
	}
	containers, err := readContainers(b)
	if err != nil {
		return fmt.Errorf("ListContainers: %w", err)
	}
	pods := podsOf(sandboxes, containers, c.cfg.Label)
	ips := map[string]string{}
	for i := range pods {
		p := &pods[i]
		if p.Function != "" && !p.Ended {
			ip, known := c.ips[p.sandbox]
			if !known {
				b, err := g.call(criService+"PodSandboxStatus", statusRequest(p.sandbox))
				if err == nil {
					ip, err = readStatusIP(b)
				}
				if err != nil {
					continue // it went meanwhile, or has none yet
				}
			}
			if p.IP = ip; ip != "" {
				ips[p.sandbox] = ip
			}
		}
	}
	c.ips = ips
	c.Directory.begin()
	for i := range pods {
		c.Directory.put(pods[i].Pod)
	}
	c.Directory.sweep()
	return nil
}

// sandbox and container are what is read of the runtime's.
type sandbox struct {
	id, uid, name, namespace string
	attempt                  uint64
	ready                    bool
	created                  uint64
	labels                   map[string]string
	hash                     string
}

type container struct {
	id, sandbox, name string
	attempt           uint64
	running           bool
}

type criPod struct {
	Pod
	sandbox string
}

// podsOf puts sandboxes and containers together. Of a pod's sandboxes the latest counts.
func podsOf(sandboxes []sandbox, containers []container, label string) []criPod {
	latest := map[string]*sandbox{}
	for i := range sandboxes {
		s := &sandboxes[i]
		if before := latest[s.uid]; before == nil || s.created > before.created {
			latest[s.uid] = s
		}
	}
	type sum struct {
		ids  []string
		last map[string]*container
	}
	sums := map[string]*sum{}
	for i := range containers {
		k := &containers[i]
		s := sums[k.sandbox]
		if s == nil {
			s = &sum{last: map[string]*container{}}
			sums[k.sandbox] = s
		}
		s.ids = append(s.ids, k.id)
		if before := s.last[k.name]; before == nil || k.attempt > before.attempt {
			s.last[k.name] = k
		}
	}
	var pods []criPod
	for i := range sandboxes { // in the order in which they were told
		s := &sandboxes[i]
		if latest[s.uid] != s {
			continue
		}
		p := criPod{sandbox: s.id, Pod: Pod{UID: s.uid, Namespace: s.namespace, Name: s.name, Function: functionOf(s.labels, s.name, label)}}
		if s.hash != "" {
			p.UID = s.hash
		}
		p.Ended, p.Leaving = !s.ready, !s.ready
		if of := sums[s.id]; of != nil {
			running := true
			for _, k := range of.last {
				running = running && k.running
				p.Restarts += int(min(k.attempt, 1<<20))
			}
			p.Containers, p.Ready = of.ids, s.ready && running
		}
		pods = append(pods, p)
	}
	return pods
}
