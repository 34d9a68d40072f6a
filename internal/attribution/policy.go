package attribution

import "github.com/wattlet/wattlet/internal/energy"

// Policy says who is charged for the energy of the idle board. Base energy is an account of its own; policies are views of
// it that change nothing.
type Policy uint8

// The policies.
const (
	// Equal charges all functions that are active alike: the Shapley value of a fixed cost.
	Equal Policy = iota
	// Proportional charges by active energy, as most tools do in effect.
	Proportional
	// Requested charges by the CPU that a function's pods have reserved, whether they use it or not.
	Requested
	policies
)

// Policies are all policies, in order.
var Policies = [...]Policy{Equal, Proportional, Requested}

// String returns the policy's word in metrics.
func (p Policy) String() string { return [...]string{"equal", "proportional", "requested"}[p] }

// BaseView keeps, for one node, each function's share of the base energy under every policy. Shares of one policy sum to the
// base energy of the ticks in which anyone was to be charged, to the microjoule.
type BaseView struct {
	parts []share
	order []int
}

// Charge is what one function is charged by.
type Charge struct {
	// Active is true while the function runs or has requests in flight; Energy is its active energy; Requested its reserved
	// cores.
	Active    bool
	Energy    energy.Energy
	Requested float64
	// Shares is the function's running account per policy, to which Split adds; carry belongs to Split.
	Shares [policies]energy.Energy
	carry  [policies]float64
}

// Split adds a tick's base energy to the shares of the functions, whose order must not depend on chance.
func (v *BaseView) Split(base energy.Energy, functions []*Charge) {
	for _, p := range Policies {
		sum := 0.0
		for _, f := range functions {
			sum += f.weight(p)
		}
		if !(sum > 0) {
			continue
		}
		v.parts = v.parts[:0]
		for _, f := range functions {
			v.parts = append(v.parts, share{part: base.Joules() * f.weight(p) / sum, carry: &f.carry[p]})
		}
		for len(v.order) < len(functions) {
			v.order = append(v.order, 0)
		}
		apportion(base, v.parts, v.order)
		for i, f := range functions {
			f.Shares[p] += v.parts[i].units
		}
	}
}

func (f *Charge) weight(p Policy) float64 {
	switch {
	case p == Equal && f.Active:
		return 1
	case p == Proportional:
		return max(0, f.Energy.Joules())
	case p == Requested:
		return max(0, f.Requested)
	}
	return 0
}
