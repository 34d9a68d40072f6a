package baseline

import (
	"cmp"
	"math"
	"slices"

	"github.com/wattlet/wattlet/internal/energy"
)

// apportioner makes whole microjoules of shares.
type apportioner struct {
	whole    []energy.Energy
	fraction []float64
	order    []int
}

// apportion returns shares whose sum with base is total exactly, by largest remainders; ties go to the first. What is no number
// or negative counts as zero; shares that exceed the total together are scaled down to it. Total is not negative. The slice is
// valid until the next call.
func (a *apportioner) apportion(total energy.Energy, joules []float64) (shares []energy.Energy, base energy.Energy) {
	a.whole, a.fraction, a.order = a.whole[:0], a.fraction[:0], a.order[:0]
	sum := 0.0
	for _, j := range joules {
		sum += amount(j)
	}
	// Microjoules per joule of a share; a sum that overflows leaves nothing to scale by.
	scale := float64(energy.Joule)
	if sum*scale > float64(total) {
		scale = float64(total) / sum
	}
	left, exact := total, float64(total)
	for i, j := range joules {
		x := amount(j) * scale
		w := energy.Energy(x)
		w = min(w, left) // rounding of huge numbers
		a.whole, a.fraction, a.order = append(a.whole, w), append(a.fraction, x-math.Floor(x)), append(a.order, i)
		left -= w
		exact -= x
	}
	// The base is a share like the others, and the last one.
	exact = max(0, exact)
	base = min(energy.Energy(exact), left)
	a.fraction, a.order = append(a.fraction, exact-math.Floor(exact)), append(a.order, len(joules))
	left -= base
	slices.SortStableFunc(a.order, func(i, k int) int { return cmp.Compare(a.fraction[k], a.fraction[i]) })
	for _, i := range a.order {
		if left == 0 {
			break
		}
		if i < len(a.whole) {
			a.whole[i]++
		} else {
			base++
		}
		left--
	}
	return a.whole, base + left // what is left now is more than one each, which is an error of rounding
}

func amount(j float64) float64 {
	if j > 0 && !math.IsInf(j, 1) { // false for NaN
		return min(j, math.MaxFloat64/1e9) // so that a few do not overflow
	}
	return 0
}
