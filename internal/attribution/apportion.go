package attribution

import (
	"cmp"
	"math"
	"slices"

	"github.com/wattlet/wattlet/internal/energy"
)

// share is a part that is to become integer. carry is what rounding has kept from the same account before, in microjoules,
// between -1 and 1.
type share struct {
	part  float64 // J
	carry *float64
	units energy.Energy
	rest  float64
}

// apportion rounds the parts so that they sum to total exactly, by largest remainder (Hamilton's method): each part is rounded
// down and the missing units go, one each, to the largest remainders; ties by position. What a part loses or gains by that
// is carried to its next one, so that small parts are not biased. Parts must not be negative and should sum to total, which
// must not be negative.
func apportion(total energy.Energy, parts []share, order []int) {
	left := total
	for i := range parts {
		p := &parts[i]
		exact := p.part*1e6 + *p.carry
		if !(exact > 0) { // also NaN
			p.units, p.rest = 0, exact
			if math.IsNaN(exact) {
				p.rest = 0
			}
			continue
		}
		p.units = total
		if exact < float64(total) { // which may be more than total, and than fits
			p.units = energy.Energy(exact)
		}
		if p.rest = exact - float64(p.units); p.rest > 1 {
			p.rest = 0 // too much is not from rounding
		}
		left -= p.units
	}
	if left < 0 || left > energy.Energy(len(parts)) {
		// The parts did not sum to the total; the largest one bears the difference, and more than it has goes to the next.
		for left != 0 {
			big := 0
			for i := range parts {
				if parts[i].units > parts[big].units {
					big = i
				}
			}
			d := max(left, -parts[big].units)
			parts[big].units += d
			left -= d
		}
	}
	order = order[:len(parts)]
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(parts[b].rest, parts[a].rest), a-b) })
	for _, i := range order[:left] {
		parts[i].units++
		parts[i].rest--
	}
	for i := range parts {
		*parts[i].carry = min(1, max(-1, parts[i].rest))
	}
}
