package accounting

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// usageReader is a UsageReader whose answers are its fields; CPU times are of the clock of the samples.
type usageReader struct {
	uptime func() time.Duration
	ids    []workload.ID // each half a core, if not told
	cpu    map[workload.ID]time.Duration
	err    error
	silent bool
	sample workload.Sample
}

func (u *usageReader) Read() (*workload.Sample, error) {
	if u.silent {
		return nil, u.err
	}
	at := u.uptime()
	u.sample = workload.Sample{At: at, Usage: u.sample.Usage[:0]}
	for _, id := range u.ids {
		cpu, told := u.cpu[id]
		if !told {
			cpu = at / 2
		}
		u.sample.Usage = append(u.sample.Usage, usage(id, at, cpu))
	}
	return &u.sample, u.err
}

// split is a ledger of node pi whose energy a fair estimator splits, on a clock that is set by hand.
type split struct {
	*Ledger
	t     *testing.T
	now   time.Duration
	usage *usageReader
	high  Node // the last published
	sink  func(int, energy.Reading)
}

// split at a time since t0; up is the uptime of the host at t0. Not closing the store is a kill.
func newSplit(t *testing.T, dir string, now time.Duration) *split {
	t.Helper()
	s := &split{t: t, now: now}
	s.usage = &usageReader{uptime: func() time.Duration { return s.now }, ids: []workload.ID{"a", "b"}}
	cfg := config(nil)
	if dir != "" {
		store, err := OpenStore(dir, "boot-1", s.usage.uptime)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		cfg.Store = store
	}
	cfg.Now = func() time.Time { return t0.Add(s.now) }
	cfg.Attribution = &AttributionConfig{Node: "pi", Usage: s.usage, Uptime: s.usage.uptime, AttributorConfig: newRig(t, AttributorConfig{Tick: time.Second}, nil).cfg}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Ledger, s.sink = l, l.Sink("bench")
	s.high = l.Snapshot().Nodes[0]
	return s
}

// run lets seconds pass, with a meter at 2 W, half a second between readings, whose clock and total begin at t0.
func (s *split) run(seconds int) {
	for range seconds {
		for range 2 {
			s.now += 500 * time.Millisecond
			s.sink(5, s.reading(1, 0))
		}
		s.sample()
		s.show()
	}
}

func (s *split) reading(epoch uint64, boot time.Duration) energy.Reading {
	at := s.now - boot
	return energy.Reading{Epoch: epoch, At: at, Host: t0.Add(s.now), Energy: 2 * energy.Energy(at.Microseconds())}
}

// show publishes and says whether the parts make the whole and nothing has fallen.
func (s *split) show() Node {
	s.t.Helper()
	s.publish(t0.Add(s.now))
	n := s.Snapshot().Nodes[0]
	if !n.Known {
		return n
	}
	a := n.Attribution
	sum := a.Base + a.Departed
	for _, w := range a.Workloads {
		sum += w.Energy + w.ColdStart
	}
	if sum != n.Energy || a.Invariant != 0 {
		s.t.Errorf("%v: the parts sum to %v, the node has %v, invariant %v", s.now, sum, n.Energy, a.Invariant)
	}
	if b := s.high.Attribution; s.high.Known && (n.Energy < s.high.Energy || a.Base < b.Base) {
		s.t.Errorf("%v: node %v after %v, base %v after %v", s.now, n.Energy, s.high.Energy, a.Base, b.Base)
	}
	if n.Energy+a.Pending != n.Measured {
		s.t.Errorf("%v: entered %v and pending %v, measured %v", s.now, n.Energy, a.Pending, n.Measured)
	}
	s.high = n
	return n
}

func (n Node) workload(name string) energy.Energy {
	for _, w := range n.Attribution.Workloads {
		if w.Name == name {
			return w.Energy
		}
	}
	return -1
}

// After an end in order every account goes on where it was, at once.
func TestAccountsAfterAnEndInOrder(t *testing.T) {
	dir := t.TempDir()
	s := newSplit(t, dir, time.Hour)
	s.run(100)
	for i := range int64(10) {
		s.Activity(workload.Activity{ID: "a", At: s.now, Started: i * 2, Completed: i * 2})
		s.run(1)
	}
	s.save(true)
	last := s.show()
	if err := s.cfg.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if last.Attribution.Pending != 0 || last.Energy != 2*110*energy.Joule-energy.Joule { // the first reading came after 0.5 s
		t.Errorf("at the end %v of %v", last.Energy, last.Measured)
	}

	for again := range 3 {
		s = newSplit(t, dir, s.now+20*time.Second)
		n := s.show()
		if n.Energy != last.Energy || n.Attribution.Base != last.Attribution.Base || n.workload("pod-a") != last.workload("pod-a") ||
			len(n.Attribution.Functions) != 2 || len(n.Attribution.Workloads) != 2 {
			t.Fatalf("before the first reading: %+v, want %+v", n, last)
		}
		f, was := n.Attribution.Functions[0], last.Attribution.Functions[0]
		if f.Invocations != was.Invocations || again == 0 && f.Invocations != 18 || f.Energy != was.Energy || f.Shares != was.Shares || f.Histogram.Count != was.Histogram.Count ||
			f.Overhead != was.Overhead || f.Overhead <= 0 {
			t.Errorf("function %+v, was %+v", f, was)
		}
		s.high = last
		s.run(10)
		last = s.show()
		// The time in which nobody looked is the base's.
		if last.Energy < n.Energy+2*27*energy.Joule || last.Attribution.Base < n.Attribution.Base+2*20*energy.Joule {
			t.Errorf("%v after %v, base %v after %v", last.Energy, n.Energy, last.Attribution.Base, n.Attribution.Base)
		}
		s.save(true)
		last = s.show()
		if err := s.cfg.Store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// After a kill the node goes on; workloads begin at zero and what they had has departed.
func TestAccountsAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := newSplit(t, dir, time.Hour)
	s.run(50)
	s.save(false)
	saved := s.show()
	s.run(30) // published and not saved
	killed := s.high
	if err := s.cfg.Store.Close(); err != nil {
		t.Fatal(err)
	}

	s = newSplit(t, dir, s.now+20*time.Second)
	if n := s.show(); n.Known {
		t.Error("known before the meter was heard")
	}
	s.high = killed
	s.run(1)
	n := s.show()
	if !n.Known || n.workload("pod-a") > 0 {
		t.Errorf("%+v", n.Attribution)
	}
	// What was saved of the workloads has departed.
	if want := saved.workload("pod-a") + saved.workload("pod-b"); n.Attribution.Departed != want {
		t.Errorf("departed %v, want %v", n.Attribution.Departed, want)
	}
	s.run(10)
	if n = s.show(); n.workload("pod-a") < 7*energy.Joule {
		t.Errorf("a has %v", n.workload("pod-a"))
	}
}

// Where the totals had to begin at zero, so did the accounts; nothing of before is counted again.
func TestAccountsAfterAReset(t *testing.T) {
	for name, first := range map[string]func(s *split) energy.Reading{
		"the meter restarted": func(s *split) energy.Reading { return s.reading(2, s.now-3*time.Second) }, // 6 J
		"no load": func(s *split) energy.Reading {
			r := s.reading(1, 0)
			r.Energy = 2 * energy.Energy((time.Hour + 50*time.Second).Microseconds())
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newSplit(t, dir, time.Hour)
			s.run(50)
			s.save(false)
			if err := s.cfg.Store.Close(); err != nil {
				t.Fatal(err)
			}
			s = newSplit(t, dir, s.now+20*time.Second)
			r := first(s)
			s.sink(5, r)
			n := s.show()
			if s.own.resets != 1 || n.Energy != n.Measured || n.Energy > 6*energy.Joule || n.Attribution.Departed != 0 || n.Attribution.Base != n.Energy {
				t.Errorf("%d resets, %v of %v, base %v, departed %v", s.own.resets, n.Energy, n.Measured, n.Attribution.Base, n.Attribution.Departed)
			}
		})
	}
	t.Run("another channel", func(t *testing.T) {
		dir := t.TempDir()
		s := newSplit(t, dir, time.Hour)
		s.run(50)
		s.save(false)
		if err := s.cfg.Store.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "state.json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(b), `"channel": 5`, `"channel": 1`, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		s = newSplit(t, dir, s.now+20*time.Second)
		if n := s.show(); n.Energy != 0 || n.Attribution.Base != 0 {
			t.Errorf("%v, base %v", n.Energy, n.Attribution.Base)
		}
		s.run(3)
		if n := s.show(); n.Measured != 5*energy.Joule {
			t.Errorf("measured %v", n.Measured)
		}
	})
}

// A state of before anything was split: all is the base's.
func TestAccountsOfAnOlderState(t *testing.T) {
	dir := t.TempDir()
	s := newSplit(t, dir, time.Hour)
	s.run(50)
	s.own.attributor = nil
	s.save(false)
	st := s.state(true)
	if err := s.cfg.Store.Save(st, t0.Add(s.now)); err != nil {
		t.Fatal(err)
	}
	if err := s.cfg.Store.Close(); err != nil {
		t.Fatal(err)
	}
	s = newSplit(t, dir, s.now)
	n := s.show()
	if n.Energy != 99*energy.Joule || n.Attribution.Base != n.Energy || n.Attribution.Unattributed != n.Energy {
		t.Errorf("%v, %+v", n.Energy, n.Attribution)
	}
}

func TestContradictingAccounts(t *testing.T) {
	const good = `{"posted_uj":100,"base_uj":40,"unattributed_uj":10,"departed_uj":5,` +
		`"workloads":[{"kind":"pod","namespace":"n","name":"a","energy_uj":30,"coldstart_uj":0},{"kind":"pod","namespace":"n","name":"b","energy_uj":20,"coldstart_uj":5}],` +
		`"functions":[{"namespace":"n","name":"f","energy_uj":1,"coldstart_uj":2,"coldstarts":3,"invocations":4.5,"overhead_joules":0.5,"base_shares_uj":[1,2,3],` +
		`"histogram":{"count":3,"sum":1.5,"buckets":{"-4":2},"zero":1}}]}`
	for name, change := range map[string][2]string{
		"none":                   {"", ""},
		"sum":                    {`"posted_uj":100`, `"posted_uj":101`},
		"negative workload":      {`"energy_uj":30,"coldstart_uj":0`, `"energy_uj":31,"coldstart_uj":-1`},
		"negative base":          {`"base_uj":40,"unattributed_uj":10,"departed_uj":5`, `"base_uj":-1,"unattributed_uj":-1,"departed_uj":46`},
		"negative departed":      {`"base_uj":40,"unattributed_uj":10,"departed_uj":5`, `"base_uj":46,"unattributed_uj":10,"departed_uj":-1`},
		"unattributed over base": {`"unattributed_uj":10`, `"unattributed_uj":41`},
		"overflow":               {`"base_uj":40,"unattributed_uj":10,"departed_uj":5`, `"base_uj":9223372036854775807,"unattributed_uj":10,"departed_uj":9223372036854775807`},
		"twice":                  {`"name":"b"`, `"name":"a"`},
		"negative function":      {`"energy_uj":1,`, `"energy_uj":-1,`},
		"negative invocations":   {`4.5`, `-4.5`},
		"negative overhead":      {`:0.5,`, `:-0.5,`},
		"negative share":         {`[1,2,3]`, `[1,2,-3]`},
		"histogram":              {`"count":3`, `"count":4`},
		"negative bucket":        {`{"-4":2}`, `{"-4":-2,"3":4}`},
		"negative sum":           {`"sum":1.5`, `"sum":-1.5`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, change[0], change[1], 1)
			if name != "none" && text == good {
				t.Fatal("nothing was changed")
			}
			st, err := parseState(fmt.Appendf(nil, `{"version":1,"clean":true,"nodes":{"pi":{"accounts":%s}}}`, text))
			if bad := name != "none"; bad != (err != nil) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			// What was read is written again as it was.
			c := restoreAccounts(st.Nodes["pi"], true)
			b, err := json.Marshal(c.save())
			if err != nil || string(b) != good {
				t.Errorf("%s, %v, want\n%s", b, err, good)
			}
			// After a kill the workloads' energy has departed; functions begin at zero.
			c = restoreAccounts(st.Nodes["pi"], false)
			if c.Posted != 100 || c.Base != 40 || c.Departed != 60 || len(c.workloads)+len(c.functions) != 0 || !c.save().valid() {
				t.Errorf("%+v", c)
			}
		})
	}
}
