package accounting

import (
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

const (
	// bootTolerance is how far before the last reading a new epoch may seem to have begun, by errors of two clocks, and
	// still be a restart of the same source. An earlier zero means another source, whose past totals are not this node's.
	bootTolerance = 5 * time.Second
	// plainLoad is a power that no sensor's offset reaches and every running board passes: 80 µV over 20 mΩ at 5 V are 20 mW.
	plainLoad = 50 * energy.Power(1000)
	// rememberedEpochs bounds the memory of epochs that ended, whose late readings are dropped.
	rememberedEpochs = 8
)

// account folds one node's readings into totals that only grow and outlive restarts of meter and agent.
//
// Energy and charge are exact sums of differences of running totals, so that lost, doubled, late and reordered readings
// change nothing. They are signed; what is published is their high-water mark, since a counter must not fall: noise around
// zero cancels in the sum and moves the mark by its excursion once, not by its rectified sum.
type account struct {
	sum   totals
	last  energy.Reading // zero Epoch: none yet
	past  []uint64       // epochs that ended
	start time.Time      // when this account was opened

	// restored is true between a start from saved state and the first reading; clean if the state was the last word of a
	// process that ended in order.
	restored, clean bool
	// resets counts how often the published totals had to begin at zero again.
	resets uint64
}

// totals is what an account has summed up.
type totals struct {
	Energy     energy.Energy `json:"energy_uj"`
	Charge     energy.Charge `json:"charge_uc"`
	EnergyMark energy.Energy `json:"energy_mark_uj"`
	ChargeMark energy.Charge `json:"charge_mark_uc"`
	// Unmeasured is the time in which nobody measured this node.
	Unmeasured time.Duration `json:"unmeasured_ns"`

	Samples      uint64 `json:"samples"`
	Saturated    uint64 `json:"saturated"`
	SensorErrors uint64 `json:"sensor_errors"`
}

// known says whether the totals may be published: after a restart that was not in order, they might be below what was
// published before, until the meter has said what happened since.
func (a *account) known() bool { return !a.restored || a.clean }

// observe takes in a reading and says whether it told anything new.
func (a *account) observe(r energy.Reading) bool {
	switch {
	case r.Epoch == 0:
		return false
	case a.last.Epoch == 0:
		// The totals before the first reading are somebody else's past.
		a.sum.Unmeasured += max(r.Host.Sub(a.start), 0)
	case r.Epoch == a.last.Epoch:
		if r.At <= a.last.At {
			return false
		}
		a.continueEpoch(r)
	case slices.Contains(a.past, r.Epoch):
		return false
	default:
		a.newEpoch(r)
	}
	a.last, a.restored = r, false
	a.sum.EnergyMark = max(a.sum.EnergyMark, a.sum.Energy)
	a.sum.ChargeMark = max(a.sum.ChargeMark, a.sum.Charge)
	return true
}

func (a *account) continueEpoch(r energy.Reading) {
	grown := r.Energy - a.last.Energy
	if !a.known() && grown.Over(r.At-a.last.At) < plainLoad {
		// So little that the sum may have fallen since it was last published: a fall by a hair would be taken for a reset
		// by Prometheus, and the whole total be counted again.
		a.reset()
	}
	a.sum.Energy += grown
	a.sum.Charge += r.Charge - a.last.Charge
	a.sum.Unmeasured += max(r.Unmeasured-a.last.Unmeasured, 0)
	a.sum.Samples += grew(r.Samples, a.last.Samples)
	a.sum.Saturated += grew(r.Saturated, a.last.Saturated)
	a.sum.SensorErrors += grew(r.SensorErrors, a.last.SensorErrors)
}

func (a *account) newEpoch(r energy.Reading) {
	a.past = append(a.past, a.last.Epoch)
	if len(a.past) > rememberedEpochs {
		a.past = slices.Delete(a.past, 0, 1)
	}
	if !a.known() {
		// What the old epoch measured between saving and its end was published and is not in the sum.
		a.reset()
	}
	zero := r.Host.Add(-r.At)
	if zero.Before(a.last.Host.Add(-bootTolerance)) {
		a.sum.Unmeasured += max(r.Host.Sub(a.last.Host), 0)
		return
	}
	a.sum.Unmeasured += max(zero.Sub(a.last.Host), 0) + r.Unmeasured
	a.sum.Energy += r.Energy
	a.sum.Charge += r.Charge
	a.sum.Samples += r.Samples
	a.sum.Saturated += r.Saturated
	a.sum.SensorErrors += r.SensorErrors
}

// reset begins the published totals at zero again, which every reader of counters understands.
func (a *account) reset() {
	a.sum = totals{}
	a.resets++
}

// grew is the growth of a running count; zero if it fell, which only a faulty source does.
func grew(now, before uint64) uint64 {
	if now < before {
		return 0
	}
	return now - before
}
