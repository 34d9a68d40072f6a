// Package sysfsmeter reads boards that measure themselves, through the kernel's hwmon, IIO, powercap and power_supply
// classes below a given sysfs root.
//
// There are two kinds of source and two types for them. An energy counter (powercap's energy_uj, an INA228's energy1_input)
// adds up in hardware: what happens between two polls is in the total, and a poll that fails costs nothing. A power sampler
// (everything else) says what flows now and is integrated here, so time between two good polls counts as measured only if
// they are close together; the rest is booked as unmeasured.
//
// A source measures one rail: the one that carries the whole board (psys, POM_5V_IN, VDD_IN, the only connected channel)
// or the one that was asked for. Where that is not clear Open fails and says what there is; rails are never added up, since
// one often feeds another. Powercap packages, which are disjoint, are the exception.
package sysfsmeter

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/hostclock"
)

// Config says what to read and how. Kind and Root are needed; the rest has defaults.
type Config struct {
	// Root is where sysfs is mounted, such as /sys. ProcRoot is where procfs is mounted, such as /proc: energy counters
	// take the kernel's boot id from it.
	Root, ProcRoot string
	// Kind is "hwmon", "iio", "powercap" or "battery".
	Kind string
	// Device picks one of several: the chip's name (ina226), its place on the bus (1-0040), a powercap zone's directory or
	// name (intel-rapl:0, package-0, psys), a battery (BAT0). Rail picks one by label (VDD_IN) or number.
	Device, Rail string
	// Period is the poll period, up to 15 s. The default is 100 ms, for a battery 1 s. An ina3221 makes every read wait for
	// a conversion cycle (6.6 ms as the driver sets it) and a sample takes two, so below 20 ms nothing is gained; an
	// ina226 renews its values every 35 ms, RAPL every millisecond, a battery's controller every few seconds. Where
	// update_interval says that the chip is slower than Period, the period is raised to what the chip can give.
	Period time.Duration
	// MaxGap is the longest time between two power samples that still counts as measured, up to a minute; default four
	// periods. Energy counters do not use it.
	MaxGap time.Duration
	// MaxPower is more than the source can draw; it decides how long a powercap counter may go unread before a second
	// wrap could hide. Default: twice the largest limit or maximum that the zone's constraints state (the stated maximum
	// is the thermal design power, which turbo exceeds), 1 kW where they state none.
	MaxPower energy.Power
	// Resume returns the last reading that an earlier process had of this source, or false; nil for none. It is called at
	// the first Read. An energy counter continues its totals if the host has run on since; a power sampler cannot.
	Resume func() (energy.Reading, bool)
	// Now is the wall clock, default time.Now. Uptime is the host's time since boot, suspend included, default
	// CLOCK_BOOTTIME; all intervals are taken on it, so that a suspend shows as a hole.
	Now    func() time.Time
	Uptime func() time.Duration
	// Logger gets changes of state; nil for none.
	Logger *slog.Logger

	open opener // replaced by tests that need the errors which files cannot make
}

const (
	defaultPeriod = 100 * time.Millisecond
	batteryPeriod = time.Second
	maxPeriod     = 15 * time.Second
	gapPeriods    = 4
	maxGap        = time.Minute // keeps the integral's products within 63 bits, see integral
	retryOpen     = time.Second // between two searches for a device that is gone
)

// Source is one rail being read. Its methods may be called from several goroutines.
type Source struct {
	cfg    Config
	tree   tree
	unit   unit   // as found by Open; reopening looks for the same one
	id     string // unit in words
	period time.Duration

	// poll makes reads exclusive. It is held while the kernel waits for a conversion, so Status does not take it.
	poll    sync.Mutex
	sampler *sampler // files of a power sampler, nil while closed
	counter *counter // files of an energy counter, nil while closed
	zero    time.Duration
	epoch   uint64 // of a power sampler
	sum     integral
	total   unwrap
	samples uint64 // of an energy counter
	failed  uint64
	began   bool // the energy counter's totals
	retryAt time.Duration
	off     bool // the source answers, but not with the node's consumption

	mu     sync.Mutex // guards what follows
	status energy.Status
	err    error
	lastAt time.Duration
}

// Open finds the source that cfg asks for and reads it once. Its error is one line that says what was looked for and what is
// there.
func Open(cfg Config) (*Source, error) {
	if cfg.Root == "" {
		return nil, errors.New("sysfsmeter: no sysfs root; give the place where sysfs is mounted, such as /sys")
	}
	if cfg.Period < 0 || cfg.Period > maxPeriod {
		return nil, fmt.Errorf("sysfsmeter: poll period %v; give one from 1ms to %v", cfg.Period, maxPeriod)
	}
	if cfg.MaxGap < 0 || cfg.MaxGap > maxGap {
		return nil, fmt.Errorf("sysfsmeter: largest gap %v; give one up to %v", cfg.MaxGap, maxGap)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Uptime == nil {
		cfg.Uptime = hostclock.Uptime
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.open == nil {
		cfg.open = openAttr
	}
	s := &Source{cfg: cfg, tree: tree{root: cfg.Root, open: cfg.open}}
	u, err := find(s.tree, cfg.Kind, cfg.Device, cfg.Rail)
	if err != nil {
		return nil, fmt.Errorf("sysfsmeter: %w", err)
	}
	s.unit, s.id = u, u.String()
	s.status = energy.Status{Kind: "sysfs", Errors: map[string]uint64{}, Identity: s.id}
	if err := s.setPeriod(); err != nil {
		return nil, fmt.Errorf("sysfsmeter: %s: %w", s.id, err)
	}
	if err := s.openFiles(u); err != nil {
		return nil, fmt.Errorf("sysfsmeter: %s: %w", s.id, err)
	}
	if err := s.begin(); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("sysfsmeter: %s: %w", s.id, err)
	}
	if u.warning != "" {
		cfg.Logger.Warn("sysfs meter may be wrong", "source", s.id, "why", u.warning)
	}
	return s, nil
}

// setPeriod settles the poll period and the largest gap.
func (s *Source) setPeriod() error {
	s.period = s.cfg.Period
	if s.period == 0 {
		s.period = defaultPeriod
		if s.unit.kind == "battery" {
			s.period = batteryPeriod
		}
	}
	if p := s.unit.sampler; p != nil && p.cycle > s.period {
		if p.cycle > maxPeriod {
			return fmt.Errorf("one sample takes %v, more than %v; write smaller numbers to samples or update_interval",
				p.cycle, maxPeriod)
		}
		s.period = p.cycle
	}
	s.sum.maxGap = s.cfg.MaxGap
	if s.sum.maxGap == 0 {
		s.sum.maxGap = min(gapPeriods*s.period, maxGap)
	}
	if s.unit.sampler != nil && s.sum.maxGap < s.period {
		return fmt.Errorf("largest gap %v is shorter than the poll period %v: nothing would count as measured",
			s.sum.maxGap, s.period)
	}
	return nil
}

// begin reads the source once: a power sampler's totals start with it, an energy counter's when Resume may be asked.
func (s *Source) begin() error {
	s.status.Connects = 1
	s.status.Clock.Valid = true // the host's own clock
	if s.counter != nil {
		if _, err := s.counter.read(); err != nil {
			return err
		}
		boot, err := s.bootID()
		s.total.tag = tag(boot, s.id)
		return err
	}
	x, err := s.sampler.read()
	if err != nil {
		return err
	}
	s.zero = s.cfg.Uptime()
	s.status.Clock.Offset = s.zero
	s.sum.add(0, x)
	s.off = x.off
	var id [8]byte
	for s.epoch == 0 {
		_, _ = rand.Read(id[:]) // never fails
		s.epoch = binary.NativeEndian.Uint64(id[:])
	}
	return nil
}

// bootID returns the kernel's random id of this boot (random(4)).
func (s *Source) bootID() (string, error) {
	if s.cfg.ProcRoot == "" {
		return "", errors.New("no procfs root; give the place where procfs is mounted, such as /proc: " +
			"an energy counter's totals are told apart by the kernel's boot id")
	}
	proc := tree{root: s.cfg.ProcRoot, open: s.cfg.open}
	id, err := proc.text("sys/kernel/random/boot_id")
	if err == nil && id == "" {
		err = fmt.Errorf("%s is empty", filepath.Join(s.cfg.ProcRoot, "sys/kernel/random/boot_id"))
	}
	return id, err
}

// Run polls until ctx ends, giving every reading to sink with channel 1; it then closes the files and returns nil. A poll
// that fails is counted, and the next one tries again.
func (s *Source) Run(ctx context.Context, sink func(channel int, r energy.Reading)) error {
	defer s.Close()
	t := time.NewTicker(s.period)
	defer t.Stop()
	for ctx.Err() == nil {
		if r, err := s.Read(); err == nil {
			sink(1, r)
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return nil
}

// Read polls once. It blocks as long as the driver waits for a conversion. After an error the source goes on: later calls
// look for the device again, once a second while it is gone.
func (s *Source) Read() (energy.Reading, error) {
	s.poll.Lock()
	defer s.poll.Unlock()
	if s.sampler == nil && s.counter == nil {
		now := s.cfg.Uptime()
		if err := s.standing(); err != nil && now < s.retryAt {
			return energy.Reading{}, err
		}
		s.retryAt = now + retryOpen
		if err := s.reopen(); err != nil {
			s.sum.ok = false
			return energy.Reading{}, s.fail(err)
		}
	}
	var r energy.Reading
	if s.sampler != nil {
		x, err := s.sampler.read()
		if err != nil {
			s.sum.ok = false
			return r, s.fail(err)
		}
		r.At = s.sum.add(s.cfg.Uptime()-s.zero, x)
		s.noteOff(x.off)
		s.sum.fill(&r)
		r.Epoch = s.epoch
	} else {
		r.EnergyOnly = true
		raw, err := s.counter.read()
		if err != nil {
			return r, s.fail(err)
		}
		s.count(s.cfg.Uptime(), raw)
		s.total.fill(&r)
		r.Samples = s.samples
	}
	r.SensorErrors, r.Host = s.failed, s.cfg.Now()
	s.succeed(&r)
	return r, nil
}

// count takes in the raw value that an energy counter had at the time at.
func (s *Source) count(at time.Duration, raw uint64) {
	s.samples++
	if !s.began {
		s.began = true
		last, ok := energy.Reading{}, false
		if s.cfg.Resume != nil {
			last, ok = s.cfg.Resume()
		}
		if !ok {
			s.total.begin(at, raw)
			return
		}
		if err := s.total.resume(last); err != nil {
			s.cfg.Logger.Info("energy counter's totals begin anew", "source", s.id, "err", err)
			s.total.begin(at, raw)
			return
		}
		s.samples += last.Samples
		s.failed += last.SensorErrors
	}
	if err := s.total.add(at, raw); err != nil {
		s.restarted(err)
	}
}

// openFiles opens the attributes of u.
func (s *Source) openFiles(u unit) (err error) {
	if u.counter != nil {
		if s.counter, err = u.counter.open(s.tree); err != nil {
			return err
		}
		bound := u.counter.bound
		if s.cfg.MaxPower > 0 {
			bound = s.cfg.MaxPower
		}
		s.total.setRange(u.counter.modulus, bound)
		return nil
	}
	s.sampler, err = u.sampler.open(s.tree)
	return err
}

// reopen looks for the same device and rail again, wherever its directory is by now.
func (s *Source) reopen() error {
	u, err := find(s.tree, s.unit.kind, s.unit.addr, s.unit.number)
	if err != nil {
		return err
	}
	if u.String() != s.id || (u.counter == nil) != (s.unit.counter == nil) {
		return fmt.Errorf("found %s in its place; restart to measure that", u)
	}
	if err := s.openFiles(u); err != nil {
		return err
	}
	s.mu.Lock()
	s.status.Connects++
	s.mu.Unlock()
	return nil
}

// Close closes the files. A later Read opens them again.
func (s *Source) Close() error {
	s.poll.Lock()
	defer s.poll.Unlock()
	s.closeFiles()
	return nil
}

func (s *Source) closeFiles() {
	if s.sampler != nil {
		s.sampler.close()
	}
	if s.counter != nil {
		s.counter.close()
	}
	s.sampler, s.counter = nil, nil
}

// fail counts a failed poll and lets go of the files, unless the error is one that the same file recovers from.
func (s *Source) fail(err error) error {
	s.failed++
	if !errors.Is(err, syscall.ENODATA) && !errors.Is(err, syscall.EAGAIN) {
		s.closeFiles()
	}
	what := "read"
	if errors.Is(err, errFormat) {
		what = "parse"
	}
	err = fmt.Errorf("sysfsmeter: %s: %w", s.id, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors[what]++
	if s.err == nil {
		s.cfg.Logger.Warn("sysfs meter failing", "source", s.id, "err", err)
	}
	s.err = err
	return err
}

func (s *Source) standing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Source) succeed(r *energy.Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		s.cfg.Logger.Info("sysfs meter recovered", "source", s.id)
	}
	s.err = nil
	s.lastAt = s.zero + r.At
	s.status.LastSuccess = r.Host
	s.status.Notifications++
}

// restarted records that an energy counter's totals had to begin anew.
func (s *Source) restarted(cause error) {
	s.samples, s.failed = 1, 0
	s.cfg.Logger.Warn("energy counter's totals begin anew, the time since its last reading is unmeasured",
		"source", s.id, "err", cause)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors["counter"]++
	s.status.Restarts++
}

func (s *Source) noteOff(off bool) {
	if off == s.off {
		return
	}
	s.off = off
	if off {
		s.cfg.Logger.Info("battery is not discharging; time is unmeasured", "source", s.id)
	} else {
		s.cfg.Logger.Info("battery is discharging; measuring", "source", s.id)
	}
}

// Status returns the source's health. Errors counts "read" (the file is gone or the driver failed), "parse" (it holds no
// number, or one that cannot be) and "counter" (an energy counter was reset, or may have wrapped more than once).
func (s *Source) Status() energy.Status {
	now := s.cfg.Uptime()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Errors = maps.Clone(s.status.Errors)
	switch age := now - s.lastAt; {
	case s.err != nil:
		st.Err = s.err.Error()
	case st.Notifications == 0:
		st.Err = fmt.Sprintf("sysfsmeter: %s: not read yet", s.id)
	case age > gapPeriods*s.period:
		st.Err = fmt.Sprintf("sysfsmeter: %s: no answer for %v", s.id, age.Round(time.Millisecond))
	default:
		st.Up = true
	}
	return st
}

// hint adds to a permission error what is known about its cause.
func hint(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) && filepath.Base(path) == "energy_uj" {
		return fmt.Errorf("%w: only root may read energy_uj since Linux 5.10 (mode 0400); "+
			"run as root or with CAP_DAC_READ_SEARCH", err)
	}
	return err
}
