package sysfsmeter

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

// counterSpec says where an energy counter is. More than one path are zones to be added, which share their range.
type counterSpec struct {
	paths   []string
	modulus uint64       // where the counter wraps, µJ; zero if it does not
	bound   energy.Power // what the source cannot exceed
}

// counter is a counterSpec with its files open.
type counter struct {
	inputs  []input
	modulus uint64
	buf     [64]byte
}

func (spec counterSpec) open(t tree) (*counter, error) {
	c := &counter{modulus: spec.modulus}
	for _, p := range spec.paths {
		in := input{path: p, scale: 1, limit: 1 << 62}
		if err := in.open(t); err != nil {
			c.close()
			return nil, err
		}
		c.inputs = append(c.inputs, in)
	}
	return c, nil
}

func (c *counter) close() {
	for i := range c.inputs {
		c.inputs[i].close()
	}
}

// read returns the counter in µJ. Several zones of one range are one counter of that range: modulo it, the sum grows by the
// sum of what they grow.
func (c *counter) read() (uint64, error) {
	var sum uint64
	for i := range c.inputs {
		v, err := c.inputs[i].read(c.buf[:])
		if err != nil {
			return 0, err
		}
		if v < 0 {
			return 0, fmt.Errorf("%s holds %d, an energy counter is not negative: %w", c.inputs[i].path, v, errFormat)
		}
		sum += uint64(v)
		if c.modulus > 0 {
			sum %= c.modulus
		}
	}
	return sum, nil
}

// unwrap turns an energy counter into running totals that a restart of the process continues.
//
// A counter runs from a zero nobody knows (RAPL's is cleared by a reset but not by kexec, an INA228's when its own supply
// comes up), and RAPL's wraps: after 262 kJ, every 44 minutes at 100 W. So its raw value is no total, and cannot stand for
// the energy since boot. Totals begin at zero when the counter is first read; the time from boot until then is unmeasured.
// From there every increase is added, wraps unrolled.
//
// Over a restart the kernel's counter runs on, and so do the totals, if the new process knows the raw value that belongs to
// the last total. It follows from the last reading, because the epoch says where in the counter's range the totals began:
//
//	63     43 42  40 39                    0
//	[  tag  ][ run ][        phase         ]     total = raw value - phase, modulo the range
//
// tag is a hash of the kernel's boot id and the device, phase the raw value at the beginning in steps. So the growth while
// no process ran is one more interval, with a wrap in it if need be. What cannot be continued begins anew with a new
// epoch: after a reboot; where there is no last reading; and, also while the process runs, after an interval whose energy
// cannot be told, because it was long enough to hide a second wrap or the counter was reset. For whoever reads, a new epoch
// makes the time back to the reading before unmeasured, which it is. run counts such beginnings, so that two with the
// same phase differ.
type unwrap struct {
	modulus uint64 // where the counter wraps, µJ; zero if it does not
	step    uint64 // what the counter is rounded down to, µJ, so that its range has at most 2^40 steps
	bound   energy.Power
	tag     uint64

	epoch    uint64
	last     uint64        // raw value
	at       time.Duration // of last
	energy   energy.Energy
	since    time.Duration // when the totals began
	interval time.Duration // from the value before; zero if there is none
	power    energy.Power  // mean of the interval
}

const (
	phaseBits = 40
	phaseMask = 1<<phaseBits - 1 // as a phase: beyond what can be said, so not to be resumed
	runMask   = 7
	tagShift  = 43
)

var (
	errReset  = errors.New("the counter was reset")
	errHidden = errors.New("unread for so long that it may have wrapped more than once")
)

// tag is what all epochs of a device have in common within one boot.
func tag(boot, device string) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, boot, device)
	return max(h.Sum64()>>tagShift, 1)
}

// setRange takes the counter's range and power bound, which may change when it is opened again.
func (u *unwrap) setRange(modulus uint64, bound energy.Power) {
	switch {
	case modulus == 0: // 1e9 J fit, years of a board
		u.step = 1e3
	case modulus <= phaseMask:
		u.step = 1
	case modulus <= phaseMask*1e3:
		u.step = 1e3
	default: // a counter of whole joules, as psys on servers
		u.step = 1e6
	}
	u.modulus, u.bound = modulus-modulus%u.step, bound
}

// begin starts new totals.
func (u *unwrap) begin(at time.Duration, raw uint64) {
	raw -= raw % u.step
	run := (u.epoch>>phaseBits + 1) & runMask
	u.epoch = u.tag<<tagShift | run<<phaseBits | min(raw/u.step, phaseMask)
	*u = unwrap{
		modulus: u.modulus, step: u.step, bound: u.bound, tag: u.tag, epoch: u.epoch,
		last: raw, at: at, since: at,
	}
}

// resume puts the totals to where the reading r left them. The caller goes on with add.
func (u *unwrap) resume(r energy.Reading) error {
	phase := r.Epoch & phaseMask
	switch {
	case r.Epoch>>tagShift != u.tag:
		return errors.New("the host was rebooted, or another device measured")
	case phase == phaseMask || r.Energy < 0:
		return errors.New("its place in the counter's range is not known")
	}
	u.epoch, u.at, u.energy, u.since = r.Epoch, r.At, r.Energy, r.Unmeasured
	u.last = uint64(r.Energy) + phase*u.step
	if u.modulus > 0 {
		u.last %= u.modulus
	}
	return nil
}

// add takes in the raw value read at the time at. On an error, which says why the energy since the value before is not
// known, it has begun new totals.
func (u *unwrap) add(at time.Duration, raw uint64) error {
	raw -= raw % u.step
	dt := at - u.at
	grown, err := u.grown(raw, dt)
	if err != nil {
		u.begin(at, raw)
		return err
	}
	u.last, u.at = raw, at
	u.energy += energy.Energy(grown)
	u.interval, u.power = dt, energy.Energy(grown).Over(dt)
	return nil
}

// grown returns by how much the counter grew within dt. The range is max_energy_range_uj, as the kernel states it; the
// register wraps one unit later. That, and rounding a range to steps, makes an error of 61 µJ to 2 mJ in each wrap.
func (u *unwrap) grown(raw uint64, dt time.Duration) (uint64, error) {
	can := func(dt time.Duration) float64 { return float64(u.bound) * dt.Seconds() }
	switch {
	case dt < 0:
		return 0, errors.New("the clock of the time since boot went back")
	case u.modulus > 0 && can(dt) >= float64(u.modulus):
		return 0, errHidden
	case raw >= u.last:
		return raw - u.last, nil
	case u.modulus == 0:
		return 0, errReset
	}
	d := u.modulus - u.last + raw
	// One second more, as the counter moves when it likes.
	if float64(d) > can(dt+time.Second) {
		return 0, errReset
	}
	return d, nil
}

// fill writes the totals and the mean of the last interval to r.
func (u *unwrap) fill(r *energy.Reading) {
	r.Epoch, r.At, r.Energy, r.Unmeasured = u.epoch, u.at, u.energy, u.since
	r.Interval, r.Power, r.MinPower, r.MaxPower = u.interval, u.power, u.power, u.power
}
