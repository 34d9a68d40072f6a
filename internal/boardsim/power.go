package boardsim

import (
	"math"
	"time"
)

// sum adds many small numbers to a large one without losing them (Neumaier's variant of Kahan's summation).
type sum struct{ total, lost float64 }

func (s *sum) add(x float64) {
	t := s.total + x
	if math.Abs(s.total) >= math.Abs(x) {
		s.lost += s.total - t + x
	} else {
		s.lost += x - t + s.total
	}
	s.total = t
}

func (s *sum) value() float64 { return s.total + s.lost }

// share is what a thread did for the dynamic energy of a step, and whose account that is.
type share struct {
	to     *sum
	job    *job
	weight float64
}

const (
	// leakPerKelvin makes leakage rise e-fold per 67 K.
	leakPerKelvin = 0.015
	// stallSaving is the part of a core's dynamic power that it does not draw while it waits for memory.
	stallSaving = 0.3
	// wanderEvery and wanderTime are the step and the correlation time of the board's own fluctuation.
	wanderEvery = 100 * time.Millisecond
	wanderTime  = 5 * time.Second
)

// drawn adds the regulators' losses to a power behind them.
func (s *Spec) drawn(p float64) float64 { return p * (1 + s.Loss + s.LossPerWatt*p) }

// integrate closes a step: it computes the power of the board as it is and as it would be at rest, and accounts for both. See
// Truth for the rule.
func (b *Board) integrate() {
	seconds := b.step.Seconds()
	hot := math.Exp(leakPerKelvin * (b.celsius - 50))
	dynamic := 0.0
	for i := range b.shares {
		dynamic += b.shares[i].weight
	}
	soc, rest := dynamic/seconds, 0.0
	for _, k := range b.clusters {
		idlest := b.step
		for i := range k.count {
			idlest = min(idlest, b.cores[k.first+i].left)
		}
		busy := float64(b.step-idlest) / float64(b.step)
		soc += k.online*(k.leak[k.at]*hot+k.Clock*k.dynamic[k.at]) + k.Cluster*k.dynamic[k.at]*busy
		r := k.rest()
		rest += k.online * (k.leak[r]*hot + k.Clock*k.dynamic[r])
	}
	board := b.spec.Board + b.wander
	if b.fan {
		board += b.spec.Fan.Power
	}
	total, base := (board+b.spec.drawn(soc))*seconds, (board+b.spec.drawn(rest))*seconds

	// What a governor keeps raised after the work is still that work's.
	if dynamic > 0 {
		b.last = append(b.last[:0], b.shares...)
		b.lastWeight = dynamic
	}
	active := total - base
	switch {
	case dynamic > 0:
		for i := range b.shares {
			s := &b.shares[i]
			part := active * s.weight / dynamic
			s.to.add(part)
			if s.job != nil {
				s.job.energy += part
			}
		}
	case b.lastWeight > 0 && active != 0:
		for i := range b.last {
			b.last[i].to.add(active * b.last[i].weight / b.lastWeight)
		}
	default:
		base = total
	}
	b.base.add(base)
	b.total.add(total)
	b.power = total / seconds

	s := b.spec
	resistance := s.Resistance
	if b.fan {
		resistance = s.Fan.Resistance
	}
	b.celsius += (s.Ambient + resistance*soc - b.celsius) * seconds / s.ThermalSeconds
	if s.Fan.Power > 0 {
		if b.celsius >= s.Fan.On {
			b.fan = true
		} else if b.celsius <= s.Fan.Off {
			b.fan = false
		}
	}
}

// fluctuate moves the board's own power on by wanderEvery.
func (b *Board) fluctuate() {
	keep := math.Exp(-wanderEvery.Seconds() / wanderTime.Seconds())
	b.wander = b.wander*keep + b.spec.Wander*math.Sqrt(1-keep*keep)*b.rng.NormFloat64()
}
