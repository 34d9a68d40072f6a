package attribution

import "math"

// pairs counts how often two functions started together, to find those that cannot be told apart: where one never runs without
// the other, only the shapes of their loads divide them, and coefficients know nothing of shapes.
type pairs struct {
	now      float64                   // s
	step     float64                   // s
	together [maxFull][maxFull]float32 // starts within startWindow; the diagonal counts all of a function's
	started  [maxFull]float64          // when each started last, s
	ran      [maxFull]float64          // when each was last seen running, s
}

const (
	// startWindow is the time within which starts are together, and startPause the time without load after which load is a
	// new start, s.
	startWindow, startPause = 0.3, 1
	// coincident is the part of both functions' starts from which two count as coincident, after coincidentLeast starts.
	coincident, coincidentLeast = 0.6, 5
)

// advance moves the clock by a step.
func (p *pairs) advance(dt float64) { p.now, p.step = p.now+dt, dt }

// run notes that the first n places' i-th has a load in this step.
func (p *pairs) run(i, n int) {
	if p.now-p.ran[i] > startPause {
		p.started[i] = p.now
		p.together[i][i]++
		for j := range n {
			if j != i && p.started[j] > 0 && p.now-p.started[j] <= max(startWindow, p.step) {
				p.together[i][j]++
				p.together[j][i]++
			}
		}
	}
	p.ran[i] = p.now
}

// fade forgets as the coefficients do.
func (p *pairs) fade() {
	a := float32(math.Exp(-reviewing / reversion))
	for i := range p.together {
		for j := range p.together[i] {
			p.together[i][j] *= a
		}
	}
}

func (p *pairs) forget(i int) {
	for j := range p.together {
		p.together[i][j], p.together[j][i] = 0, 0
	}
	p.started[i], p.ran[i] = 0, 0
}

func (p *pairs) move(to, from int) {
	own := p.together[from][from]
	for j := range p.together {
		v := p.together[from][j]
		p.together[to][j], p.together[j][to] = v, v
	}
	p.together[to][to] = own
	p.started[to], p.ran[to] = p.started[from], p.ran[from]
	p.forget(from)
}

// twin returns the place among the first n with which the i-th coincides most; -1 if with none.
func (p *pairs) twin(i, n int) int {
	best := -1
	for j := range n {
		if j == i || p.together[i][i] < coincidentLeast || p.together[j][j] < coincidentLeast {
			continue
		}
		both := p.together[i][j]
		if both > coincident*p.together[i][i] && both > coincident*p.together[j][j] &&
			(best < 0 || both > p.together[i][best]) {
			best = j
		}
	}
	return best
}
