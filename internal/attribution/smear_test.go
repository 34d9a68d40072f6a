package attribution

import (
	"math"
	"testing"
)

// What smearing brings into an interval has gone from the one beside it, and nothing leaves the time in which a function is active.
func TestSmearIsExchanged(t *testing.T) {
	t.Parallel()
	var p principal
	cpu := []float64{0.1, 0.4, 0.1, 0, 0.2, 0.2}
	active := []bool{true, true, true, false, true, true}
	for i, c := range cpu {
		l := load{total: c}
		if active[i] {
			l.active = 0.1
		}
		p.note(uint32(i+1), &l, 0.1)
	}
	for i, want := range []float64{0.1, -0.1, 0, 0, 0} { // from interval i+2 into i+1: a third of what they differ by
		if got := p.beside(uint32(i+2), uint32(i+1)); math.Abs(got-want) > 1e-12 {
			t.Errorf("from %d into %d: %v, want %v", i+2, i+1, got, want)
		}
		if in, out := p.beside(uint32(i+2), uint32(i+1)), p.beside(uint32(i+1), uint32(i+2)); in != -out {
			t.Errorf("between %d and %d: %v in, %v out", i+1, i+2, in, out)
		}
	}
	if got := p.beside(7, 6); got != 0 {
		t.Errorf("from an interval that was not: %v", got)
	}
	for i := range 8 {
		p.note(uint32(7+i), &load{total: 1, active: 1}, 1)
	}
	if got := p.beside(1, 2); got != 0 {
		t.Errorf("from intervals long ago: %v", got)
	}
	// The last part of a run takes part in nothing.
	p.note(20, &load{total: 0.1, active: 0.1}, 0.1)
	p.note(21, &load{total: 0.03, active: 0.03}, 0.1)
	if got := p.beside(20, 21); got != 0 {
		t.Errorf("into a run's last part: %v", got)
	}
}
