package accounting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// State is what outlives the process.
type State struct {
	// Version is stateVersion.
	Version int `json:"version"`
	// Clean is true if the process that wrote it published nothing afterwards.
	Clean bool `json:"clean"`
	// HostBoot is the boot id of the host that wrote it.
	HostBoot string               `json:"host_boot"`
	Nodes    map[string]NodeState `json:"nodes"`
}

// NodeState is one saved account.
type NodeState struct {
	Meter   string         `json:"meter"`
	Channel int            `json:"channel"`
	Totals  totals         `json:"totals"`
	Last    energy.Reading `json:"last"`
	// LastUptime dates the last reading on the host's boot clock, which no time server steps.
	LastUptime time.Duration `json:"last_uptime_ns"`
	PastEpochs []uint64      `json:"past_epochs,omitempty"`
	// Accounts are nil where the node's energy is not split.
	Accounts *savedAccounts `json:"accounts,omitempty"`
}

// savedAccounts are Accounts as they are saved.
type savedAccounts struct {
	Posted       energy.Energy   `json:"posted_uj"`
	Base         energy.Energy   `json:"base_uj"`
	Unattributed energy.Energy   `json:"unattributed_uj"`
	Departed     energy.Energy   `json:"departed_uj"`
	Workloads    []savedWorkload `json:"workloads"`
	Functions    []savedFunction `json:"functions"`
}

type savedWorkload struct {
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Energy    energy.Energy `json:"energy_uj"`
	ColdStart energy.Energy `json:"coldstart_uj"`
}

type savedFunction struct {
	Namespace  string                                   `json:"namespace"`
	Name       string                                   `json:"name"`
	Energy     energy.Energy                            `json:"energy_uj"`
	ColdStart  energy.Energy                            `json:"coldstart_uj"`
	ColdStarts uint64                                   `json:"coldstarts"`
	Completed  float64                                  `json:"invocations"`
	Overhead   float64                                  `json:"overhead_joules"`
	Shares     [len(attribution.Policies)]energy.Energy `json:"base_shares_uj"`
	Histogram  Histogram                                `json:"histogram"`
}

const stateVersion = 1

// Store keeps the state in a directory that one agent at a time may use.
type Store struct {
	dir    string
	lock   *os.File
	boot   string
	uptime func() time.Duration
}

// OpenStore takes the directory, making it if need be. boot is the host's boot id, uptime its time since boot.
func OpenStore(dir, boot string, uptime func() time.Duration) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("state directory: %w; choose another with --state.directory, or none with --state.directory=", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w; choose another with --state.directory, or none with --state.directory=", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(
			fmt.Errorf("state directory %s: another wattlet uses it (%w); give each its own --state.directory", dir, err), lock.Close())
	}
	return &Store{dir: dir, lock: lock, boot: boot, uptime: uptime}, nil
}

// Close gives the directory free.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) path() string { return filepath.Join(s.dir, "state.json") }

// Load reads the state; none is an empty one. What cannot be read is set aside, never overwritten.
func (s *Store) Load(now time.Time) (State, error) {
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	} else if err != nil {
		return State{}, fmt.Errorf("saved totals: %w", err)
	}
	st, err := parseState(b)
	if err != nil {
		aside := s.path() + now.UTC().Format(".20060102T150405Z.bad")
		if rerr := os.Rename(s.path(), aside); rerr != nil {
			return State{}, fmt.Errorf("saved totals %s: %w, and it cannot be set aside: %w", s.path(), err, rerr)
		}
		return State{}, &SetAsideError{Path: aside, Err: err}
	}
	if st.HostBoot == s.boot {
		for name, n := range st.Nodes {
			n.Last.Host = now.Add(n.LastUptime - s.uptime())
			st.Nodes[name] = n
		}
	}
	return st, nil
}

// parseState reads a state file.
func parseState(b []byte) (State, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var st State
	if err := dec.Decode(&st); err != nil {
		return State{}, err
	}
	if st.Version != stateVersion {
		return State{}, fmt.Errorf("version %d, this wattlet knows %d", st.Version, stateVersion)
	}
	for name, n := range st.Nodes {
		if n.Totals.EnergyMark < n.Totals.Energy || n.Totals.ChargeMark < n.Totals.Charge || n.Totals.Unmeasured < 0 {
			return State{}, fmt.Errorf("node %s: totals contradict each other", name)
		}
		if !n.Accounts.valid() {
			return State{}, fmt.Errorf("node %s: accounts contradict each other", name)
		}
	}
	return st, nil
}

// Save writes the state so that after a crash at any instant either the old or the new one is there.
func (s *Store) Save(st State, now time.Time) error {
	st.Version, st.HostBoot = stateVersion, s.boot
	for name, n := range st.Nodes {
		n.LastUptime = s.uptime() - now.Sub(n.Last.Host)
		st.Nodes[name] = n
	}
	b, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return fmt.Errorf("save totals: %w", err)
	}
	tmp := s.path() + ".new"
	if err := writeSynced(tmp, b); err != nil {
		return fmt.Errorf("save totals: %w", err)
	}
	if err := os.Rename(tmp, s.path()); err != nil {
		return fmt.Errorf("save totals: %w", err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// SetAsideError says that the saved totals could not be used and where they are now.
type SetAsideError struct {
	Path string
	Err  error
}

func (e *SetAsideError) Error() string {
	return fmt.Sprintf("saved totals cannot be used (%v) and were set aside as %s", e.Err, e.Path)
}

func (e *SetAsideError) Unwrap() error { return e.Err }

// valid says whether the parts make the whole and nothing is negative, which also bounds the sums.
func (s *savedAccounts) valid() bool {
	if s == nil {
		return true
	}
	left := s.Posted
	take := func(e energy.Energy) bool {
		left -= e
		return e >= 0 && left >= 0
	}
	ok := s.Unattributed >= 0 && s.Unattributed <= s.Base && take(s.Base) && take(s.Departed)
	type name struct{ kind, namespace, name string }
	workloads, functions := map[name]bool{}, map[name]bool{}
	for _, w := range s.Workloads {
		n := name{w.Kind, w.Namespace, w.Name}
		ok = ok && !workloads[n] && take(w.Energy) && take(w.ColdStart)
		workloads[n] = true
	}
	for _, f := range s.Functions {
		n := name{"", f.Namespace, f.Name}
		ok = ok && !functions[n] && f.Energy >= 0 && f.ColdStart >= 0 && min(f.Completed, f.Overhead) >= 0 &&
			slices.Min(f.Shares[:]) >= 0 && f.Histogram.valid()
		functions[n] = true
	}
	return ok && left == 0
}

func (c *Accounts) save() *savedAccounts {
	s := &savedAccounts{ // what is kept back is shown before an end in order; after another one nobody will ask for it
		Posted: c.Posted, Base: c.Base, Unattributed: c.Unattributed, Departed: c.Departed + c.Held(),
		Workloads: []savedWorkload{}, Functions: []savedFunction{},
	}
	for _, w := range c.list() {
		s.Workloads = append(s.Workloads, savedWorkload{w.kind.String(), w.namespace, w.name, w.Energy, w.ColdStart})
	}
	for _, f := range c.Functions() {
		s.Functions = append(s.Functions, savedFunction{
			f.Namespace, f.Name, f.Energy, f.ColdStart, f.ColdStarts, f.invocations(), f.overhead(), f.Charge.Shares, f.Histogram.clone(),
		})
	}
	return s
}

// restoreAccounts continues saved accounts; nil if there are none. After an end that was not in order more may have been
// published of a workload than was saved, and a counter that falls by a hair would be counted whole again: then workloads
// begin at zero, which every reader of counters understands, and what they had is with those that departed.
func restoreAccounts(s NodeState, clean bool) *Accounts {
	c := NewAccounts()
	if s.Accounts == nil {
		// Saved before anything was split: all of it is the base's.
		c.give(s.Totals.EnergyMark, 0)
		return c
	}
	c.Posted, c.Base, c.Unattributed, c.Departed = s.Accounts.Posted, s.Accounts.Base, s.Accounts.Unattributed, s.Accounts.Departed
	for _, w := range s.Accounts.Workloads {
		kind, err := workload.ParseKind(w.Kind)
		if !clean || err != nil {
			c.Departed += w.Energy + w.ColdStart
			continue
		}
		c.workloads[workloadKey{kind, w.Namespace, w.Name}] = &WorkloadAccount{Energy: w.Energy, ColdStart: w.ColdStart, idle: true}
	}
	if clean {
		for _, f := range s.Accounts.Functions {
			a := c.function(f.Namespace, f.Name)
			a.Energy, a.ColdStart, a.ColdStarts, a.Charge.Shares = f.Energy, f.ColdStart, f.ColdStarts, f.Shares
			a.Histogram = f.Histogram
			a.before, a.beforeOverhead = f.Completed, f.Overhead
		}
	}
	return c
}
