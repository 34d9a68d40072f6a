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

// Accounts are the accounts of one node's energy. Base + Departed + Σ workloads (energy and cold starts) + what is kept back of
// workloads that have no name yet == Posted, always.
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
	held      map[workload.ID]*heldAccount
	begun     bool
	// debt is negative energy that was given to nobody, which accounts must not fall by: the base has less until it is paid.
	debt energy.Energy
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

	users    int  // that are tracked
	idle     bool // it has none, since endedAt
	endedAt  time.Duration
	variance float64       // J², of those that are tracked and those that were
	fresh    energy.Energy // since the estimator last said how sure it is
}

// heldAccount is the energy of a workload of which more is expected to be known, since a time. It is in nothing that is published:
// what was counted under one name and then under another would be counted twice by whoever reads counters.
type heldAccount struct {
	WorkloadAccount
	workload workload.Workload
	since    time.Duration
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

	users  int
	before float64 // invocations before this process, and those of which no energy is known
	// beforeOverhead is the overhead before this process, J.
	beforeOverhead float64
	halves         float64 // invocations that the histogram's whole numbers are short of
	pending        requests
	tick           energy.Energy // of the tick being entered
	fresh          energy.Energy // since the estimator last said how sure it is
}

// unreported is the standard deviation, relative, of the energy of who the estimator has said nothing of yet: what it assumes of a
// function at first, and as much for what it does not know of the node.
const unreported = 0.5

// between is the standard deviation of a sum of which the part that came since the estimator's last word, fresh, is as unsure as what
// came before: what a coefficient is wrong by stays. Joules.
func between(reported, deviation float64, fresh energy.Energy) float64 {
	relative := unreported
	if reported > 0 {
		relative = min(deviation/reported, 1)
	}
	return deviation + relative*max(0, fresh.Joules())
}

// requests are counts that wait for the energy of their time: those completed in it, and those in flight at its end.
type requests struct{ completed, inFlight float64 }

// NewAccounts returns empty accounts.
func NewAccounts() *Accounts {
	return &Accounts{
		workloads: map[workloadKey]*WorkloadAccount{}, functions: map[functionKey]*FunctionAccount{}, held: map[workload.ID]*heldAccount{},
	}
}

// hold returns the account of a workload that is kept back, since a time if it is new.
func (c *Accounts) hold(w workload.Workload, since time.Duration) *WorkloadAccount {
	h := c.held[w.ID]
	if h == nil {
		h = &heldAccount{workload: w, since: since}
		c.held[w.ID] = h
	}
	return &h.WorkloadAccount
}

// Held is the energy that is kept back of workloads of which more is expected to be known.
func (c *Accounts) Held() (sum energy.Energy) {
	for _, h := range c.held {
		sum += h.Energy + h.ColdStart
	}
	return sum
}

// begin takes the first total of this process: what it holds beyond what was posted before was used while nobody looked.
func (c *Accounts) begin(total energy.Energy) {
	if !c.begun {
		c.begun = true
		c.give(total-c.Posted, 0)
	}
}

// give posts energy that belongs to nobody.
func (c *Accounts) give(e energy.Energy, unmeasured time.Duration) {
	c.Unmeasured += unmeasured
	e += c.debt
	c.debt = min(0, e)
	e -= c.debt
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
	base := t.Base + max(c.debt, -t.Base)
	c.debt += t.Base - base
	c.Posted += t.Energy - t.Base + base
	c.Base += base
	for _, s := range t.Shares {
		w := a.bySlot[s.Slot]
		e, cold := s.Energy, s.ColdStart
		if w.start {
			e, cold = 0, e+cold
		}
		w.account.Energy += e
		w.account.ColdStart += cold
		w.account.fresh += e + cold
		if f := w.serves; f != nil {
			f.Energy += e
			f.ColdStart += cold
			f.tick += e
			f.fresh += e
		}
	}
	n := 0
	for n < len(a.ahead) && a.ahead[n].end <= t.End {
		n++
	}
	for i, part := range a.ahead[:n] {
		for j := range part.uses {
			u := &part.uses[j]
			f := u.t.serves
			if f == nil {
				continue
			}
			f.pending.completed += u.completed
			if i == n-1 {
				f.pending.inFlight += u.inFlightAt
			}
			if u.use.Total() > 0 || u.use.InFlight > 0 {
				f.Charge.Active = true
			}
		}
		a.recycle(part)
	}
	a.ahead = append(a.ahead[:0], a.ahead[n:]...)
	a.charge(t.End-t.Start, base)
	if r := t.Report; r != nil {
		for _, d := range r.Workloads {
			w := a.bySlot[d.Slot]
			w.account.variance += d.Total*d.Total - w.variance
			w.variance = d.Total * d.Total
			w.account.StdDev = math.Sqrt(max(0, w.account.variance))
			w.account.fresh = 0
		}
		for _, d := range r.Functions {
			f := c.function(d.Namespace, d.Function)
			f.Deviation, f.fresh = d, 0
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
			w.unreserve()
		}
		a.bySlot[s] = nil
	}
	c.depart(a.last)
}

// reserve adds to the cores that the function's workloads have reserved, in whole nanocores: what is taken back leaves nothing.
func (f *FunctionAccount) reserve(cores float64) {
	f.Charge.Requested = max(0, math.Round((f.Charge.Requested+cores)*1e9)/1e9)
}

// charge closes a tick in the functions' accounts: shares of the base, and requests.
func (a *Attributor) charge(length time.Duration, base energy.Energy) {
	a.charges = a.charges[:0]
	for _, k := range a.accounts.functionOrder(&a.functionKeys) {
		f := a.accounts.functions[k]
		f.Charge.Energy = f.tick
		f.Charge.Active = f.Charge.Active || f.tick > 0
		a.charges = append(a.charges, &f.Charge)
	}
	a.base.Split(base, a.charges)
	for _, k := range a.functionKeys {
		f := a.accounts.functions[k]
		if closed, joules, n := f.Invocations.Add(length, f.tick.Joules(), f.pending.completed, f.pending.inFlight); closed {
			whole := math.Round(n + f.halves)
			f.halves += n - whole
			f.Histogram.Add(joules/n, uint64(whole))
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

// depart closes the accounts of workloads that ended long ago, and where too many have ended those of the oldest.
func (c *Accounts) depart(now time.Duration) {
	ended := 0
	for k, w := range c.workloads {
		switch {
		case w.users > 0:
			w.idle = false
		case !w.idle || w.endedAt == 0:
			w.idle, w.endedAt = true, now
		case now-w.endedAt > leaveAfter:
			c.close(k)
		default:
			ended++
		}
	}
	for ; ended > maxEnded; ended-- {
		rows := c.list() // sorted, so that of equals always the same one goes
		rows = slices.DeleteFunc(rows, func(r workloadRow) bool { return r.users > 0 || !r.idle })
		c.close(slices.MinFunc(rows, func(x, y workloadRow) int { return cmp.Compare(x.endedAt, y.endedAt) }).workloadKey)
	}
}

// close ends an account.
func (c *Accounts) close(k workloadKey) {
	w := c.workloads[k]
	c.Departed += w.Energy + w.ColdStart
	delete(c.workloads, k)
}

// reset begins all accounts at zero.
func (c *Accounts) reset() {
	for _, w := range c.workloads {
		w.Energy, w.ColdStart, w.StdDev, w.fresh = 0, 0, 0, 0
	}
	for _, h := range c.held {
		h.Energy, h.ColdStart, h.StdDev, h.fresh = 0, 0, 0, 0
	}
	for _, f := range c.functions {
		*f = FunctionAccount{users: f.users, pending: f.pending}
	}
	c.Posted, c.Base, c.Unattributed, c.Departed, c.Unmeasured, c.debt = 0, 0, 0, 0, 0, 0
}

// workloadRow is a workload's account with its key.
type workloadRow struct {
	workloadKey
	*WorkloadAccount
}

// list returns the workloads' accounts, sorted by kind, namespace and name.
func (c *Accounts) list() []workloadRow {
	rows := make([]workloadRow, 0, len(c.workloads))
	for k, w := range c.workloads {
		rows = append(rows, workloadRow{k, w})
	}
	slices.SortFunc(rows, func(a, b workloadRow) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	return rows
}

// invocations returns how many were completed.
func (f *FunctionAccount) invocations() float64 { return f.before + f.Invocations.Count() }

// overhead returns the energy of times without any request, J.
func (f *FunctionAccount) overhead() float64 { return f.beforeOverhead + f.Invocations.Overhead() }

// snapshot returns the accounts as they are now.
func (a *Attributor) snapshot() *Attribution {
	c := a.accounts
	out := &Attribution{
		Base: c.Base, Unattributed: c.Unattributed, Departed: c.Departed, Model: a.est.Model(), Lag: a.lag.State(),
		Invariant: c.Posted - c.Held() - c.Base - c.Departed,
	}
	out.Model.Rejected = maps.Clone(out.Model.Rejected)
	out.Frequencies = a.weights.frequencies()
	for _, w := range c.list() {
		deviation := between((w.Energy + w.ColdStart - w.fresh).Joules(), w.StdDev, w.fresh)
		out.Workloads = append(out.Workloads, WorkloadEnergy{w.kind, w.namespace, w.name, w.Energy, w.ColdStart, deviation})
		out.Invariant -= w.Energy + w.ColdStart
	}
	for _, k := range c.functionOrder(&a.functionKeys) {
		f := c.functions[k]
		o := FunctionEnergy{
			Namespace: k.namespace, Name: k.name, Energy: f.Energy, ColdStart: f.ColdStart, ColdStarts: f.ColdStarts,
			StdDev: between(f.Deviation.Energy, f.Deviation.Total, f.fresh), WattsPerCore: f.Deviation.WattsPerCore, WattsPerCoreStdDev: f.Deviation.StdDev,
			PriorDominated: f.Deviation.PriorDominated, Collinear: f.Deviation.Collinear, Shares: f.Charge.Shares,
			Requested: f.Charge.Requested > 0, Invocations: f.invocations(), Overhead: f.overhead(),
			Histogram: f.Histogram.clone(),
		}
		o.Mean, o.Low, o.High, o.Interval, o.Measured = f.Invocations.Mean(f.Deviation.Energy, f.Deviation.Total)
		out.Functions = append(out.Functions, o)
	}
	return out
}

// HistogramSchema makes buckets that grow by 2^(1/8), 9 %, as Prometheus counts them.
const HistogramSchema = 3

// Histogram is a native histogram of joules. The zero value is empty.
type Histogram struct {
	Count uint64  `json:"count"`
	Sum   float64 `json:"sum"`
	// Buckets counts by index: bucket i holds values in (2^((i-1)/8), 2^(i/8)]. Zero counts values that are not positive.
	Buckets map[int]int64 `json:"buckets,omitempty"`
	Zero    uint64        `json:"zero"`
}

func (h *Histogram) clone() Histogram {
	c := *h
	c.Buckets = maps.Clone(h.Buckets)
	return c
}

// Add counts n values.
func (h *Histogram) Add(v float64, n uint64) {
	if n == 0 {
		return
	}
	h.Count += n
	h.Sum += v * float64(n)
	if !(v > 0) {
		h.Zero += n
		return
	}
	if h.Buckets == nil {
		h.Buckets = map[int]int64{}
	}
	h.Buckets[int(math.Ceil(math.Log2(v)*(1<<HistogramSchema)))] += int64(n)
}

// valid says whether the buckets make the count.
func (h *Histogram) valid() bool {
	left := h.Count
	for _, n := range h.Buckets {
		if n < 0 || uint64(n) > left {
			return false
		}
		left -= uint64(n)
	}
	return left == h.Zero && h.Sum >= 0
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
