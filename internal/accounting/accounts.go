package accounting

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/workload"
)

// Accounts are the accounts of one node's energy. Base + Departed + Σ workloads (energy and cold starts) == Posted, always.
type Accounts struct {
	// Posted is the energy that has been entered into the accounts.
	Posted energy.Energy
	// Base is the energy of the idle board and what could not be given to anyone, which is Unattributed.
	Base, Unattributed energy.Energy
	// Unmeasured is time of which no energy is known.
	Unmeasured time.Duration
	// Departed is the energy of workloads that ended and are no longer shown on their own.
	Departed energy.Energy

	workloads map[workloadKey]*WorkloadAccount
	functions map[functionKey]*FunctionAccount
	begun     bool
}

type workloadKey struct {
	kind            workload.Kind
	namespace, name string
}

type functionKey struct{ namespace, name string }

// WorkloadAccount is the energy of all workloads of one kind, namespace and name.
type WorkloadAccount struct {
	Energy, ColdStart energy.Energy
	// StdDev is the standard deviation of the sum since the start of this process, J.
	StdDev float64

	users   int // that are tracked
	endedAt time.Duration
}

// FunctionAccount is the energy of one function.
type FunctionAccount struct {
	Energy, ColdStart energy.Energy
	ColdStarts        uint64
	// Deviation is what the estimator said last; its Period and Total are J.
	Deviation   attribution.FunctionDeviation
	Charge      attribution.Charge
	Invocations attribution.Invocations
	// Histogram counts invocations by the mean energy of their cycle.
	Histogram Histogram

	users   int
	pending requests
	tick    energy.Energy // of the tick being entered
}

// requests are counts that wait for the energy of their time.
type requests struct{ started, completed, inFlight float64 }

func (r *requests) add(u *use) {
	r.started += u.started
	r.completed += u.completed
}

// NewAccounts returns empty accounts.
func NewAccounts() *Accounts {
	return &Accounts{workloads: map[workloadKey]*WorkloadAccount{}, functions: map[functionKey]*FunctionAccount{}}
}

// begin takes the first total of this process: what it holds beyond what was posted before was used while nobody looked.
func (c *Accounts) begin(total energy.Energy) {
	if !c.begun {
		c.begun = true
		c.give(max(0, total-c.Posted), 0)
	}
}

// give posts energy that belongs to nobody.
func (c *Accounts) give(e energy.Energy, unmeasured time.Duration) {
	c.Unmeasured += unmeasured
	c.Posted += e
	c.Base += e
	c.Unattributed += e
}

func (c *Accounts) workload(w workload.Workload) *WorkloadAccount {
	k := workloadKey{w.Kind, w.Namespace, cmp.Or(w.Name, string(w.ID))}
	acct := c.workloads[k]
	if acct == nil {
		acct = &WorkloadAccount{}
		c.workloads[k] = acct
	}
	return acct
}

func (c *Accounts) function(namespace, name string) *FunctionAccount {
	k := functionKey{namespace, name}
	f := c.functions[k]
	if f == nil {
		f = &FunctionAccount{}
		c.functions[k] = f
	}
	return f
}

// enter posts a tick's shares.
func (a *Attributor) enter(t *attribution.Tick) {
	c := a.accounts
	c.Posted += t.Energy
	c.Base += t.Base
	for _, s := range t.Shares {
		w := a.bySlot[s.Slot]
		w.account.Energy += s.Energy
		w.account.ColdStart += s.ColdStart
		if f := w.serves; f != nil {
			f.Energy += s.Energy
			f.ColdStart += s.ColdStart
			f.tick += s.Energy
		}
	}
	for len(a.ahead) > 0 && a.ahead[0].end <= t.End {
		for i := range a.ahead[0].uses {
			u := &a.ahead[0].uses[i]
			f := u.t.serves
			if f == nil {
				continue
			}
			f.pending.add(u)
			if u.use.Total() > 0 || u.use.InFlight > 0 {
				f.Charge.Active = true
			}
		}
		a.recycle(a.ahead[0])
		a.ahead = append(a.ahead[:0], a.ahead[1:]...)
	}
	a.charge(t)
	if r := t.Report; r != nil {
		for _, d := range r.Workloads {
			a.bySlot[d.Slot].account.StdDev = d.Total
		}
		for _, d := range r.Functions {
			c.function(d.Namespace, d.Function).Deviation = d
		}
	}
	if a.cfg.Observe != nil {
		a.cfg.Observe(t)
	}
	for _, s := range t.Left {
		w := a.bySlot[s]
		w.account.users--
		if w.serves != nil {
			w.serves.users--
		}
		a.bySlot[s] = nil
	}
	c.depart(a.last)
}

// charge closes the tick in the functions' accounts: shares of the base, and requests.
func (a *Attributor) charge(t *attribution.Tick) {
	a.charges = a.charges[:0]
	for _, k := range a.accounts.functionOrder(&a.functionKeys) {
		f := a.accounts.functions[k]
		f.Charge.Energy = f.tick
		f.Charge.Active = f.Charge.Active || f.tick > 0
		a.charges = append(a.charges, &f.Charge)
	}
	a.base.Split(t.Base, a.charges)
	for _, w := range a.bySlot {
		if w != nil && w.serves != nil && w.active {
			w.serves.pending.inFlight += w.inFlight
		}
	}
	for _, k := range a.functionKeys {
		f := a.accounts.functions[k]
		if closed, joules, n := f.Invocations.Add(t.End-t.Start, f.tick.Joules(), f.pending.completed, f.pending.inFlight); closed {
			f.Histogram.Add(joules/n, uint64(math.Round(n)))
		}
		f.tick, f.pending, f.Charge.Active = 0, requests{}, false
	}
}

// functionOrder returns the functions in an order that does not depend on chance; keys is kept between calls.
func (c *Accounts) functionOrder(keys *[]functionKey) []functionKey {
	if len(*keys) != len(c.functions) {
		*keys = slices.SortedFunc(maps.Keys(c.functions), func(x, y functionKey) int {
			return cmp.Or(cmp.Compare(x.namespace, y.namespace), cmp.Compare(x.name, y.name))
		})
	}
	return *keys
}

// depart closes the accounts of workloads that ended long ago.
func (c *Accounts) depart(now time.Duration) {
	for k, w := range c.workloads {
		if w.users == 0 && now-w.endedAt > leaveAfter {
			c.Departed += w.Energy + w.ColdStart
			delete(c.workloads, k)
		}
	}
}

// histogramSchema makes buckets that grow by 2^(1/8), 9 %, as Prometheus counts them.
const histogramSchema = 3

// Histogram is a native histogram of joules. The zero value is empty.
type Histogram struct {
	Count uint64
	Sum   float64
	// Buckets counts by index: bucket i holds values in (2^((i-1)/8), 2^(i/8)]. Zero counts values that are not positive.
	Buckets map[int]int64
	Zero    uint64
}

// Add counts n values.
func (h *Histogram) Add(v float64, n uint64) {
	h.Count += n
	h.Sum += v * float64(n)
	if !(v > 0) {
		h.Zero += n
		return
	}
	if h.Buckets == nil {
		h.Buckets = map[int]int64{}
	}
	h.Buckets[int(math.Ceil(math.Log2(v)*(1<<histogramSchema)))] += int64(n)
}

// FunctionRow is a function with its account.
type FunctionRow struct {
	Namespace, Name string
	*FunctionAccount
}

// Functions returns the functions' accounts, sorted by namespace and name. They go on changing.
func (c *Accounts) Functions() []FunctionRow {
	var keys []functionKey
	var rows []FunctionRow
	for _, k := range c.functionOrder(&keys) {
		rows = append(rows, FunctionRow{k.namespace, k.name, c.functions[k]})
	}
	return rows
}
