package attribution

import "slices"

// window is the number of ticks whose median is a platform workload's usual power.
const window = 60

// usual is the recent power of a platform workload, W.
type usual struct {
	ring  [window]float32
	n, at int
}

func (u *usual) add(watts float64) {
	u.ring[u.at] = float32(watts)
	u.at = (u.at + 1) % window
	u.n = min(window, u.n+1)
}

// median returns the usual power; scratch is for sorting.
func (u *usual) median(scratch *[window]float32) float64 {
	if u.n == 0 {
		return 0
	}
	v := scratch[:copy(scratch[:], u.ring[:u.n])]
	slices.Sort(v)
	return float64(v[(u.n-1)/2])
}

// runsContainers says whether a system workload starts containers and pulls images for them.
func runsContainers(name string) bool {
	switch name {
	case "containerd", "containerd.service", "kubelet", "kubelet.service", "k3s", "k3s.service", "k3s-agent", "k3s-agent.service",
		"crio", "crio.service", "cri-docker.service", "docker", "docker.service", "dockerd", "faasd.service", "faasd-provider.service":
		return true
	}
	return false
}

// moveStarts moves, while containers are being started, what the platform uses beyond its usual to the cold starts, in
// proportion to what these use themselves.
func (c *CHK) moveStarts(length float64) {
	if length <= 0 {
		return
	}
	cold := 0.0
	for i := range c.parts[1:] {
		if c.owners[i+1].cold {
			cold += c.parts[i+1].part
		}
	}
	var scratch [window]float32
	moved := 0.0
	for i := range c.parts[1:] {
		o := c.owners[i+1]
		m := &c.members[o.slot]
		if !m.platform || o.cold {
			continue
		}
		p := &c.parts[i+1]
		if cold > 0 {
			excess := max(0, p.part-m.usual.median(&scratch)*length)
			p.part -= excess
			moved += excess
			continue // a start is not usual
		}
		m.usual.add(p.part / length)
	}
	if moved == 0 {
		return
	}
	for i := range c.parts[1:] {
		if c.owners[i+1].cold {
			c.parts[i+1].part *= 1 + moved/cold
		}
	}
}
