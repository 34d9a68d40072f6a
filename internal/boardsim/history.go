package boardsim

import "time"

// history is the energy drawn up to each instant: step by step for the last 16 s and more, every 100 ms for a day.
type history struct {
	step   time.Duration
	steps  int64
	fine   [1 << 14]float64 // after n steps, at n modulo its size
	every  int64            // steps from one coarse entry to the next
	coarse []float64        // from coarse entry number first on
	first  int64
}

// day bounds the coarse history.
const day = 24 * time.Hour

func (h *history) start(step time.Duration) {
	h.step = step
	h.every = max(1, int64(100*time.Millisecond/step))
	h.coarse = append(h.coarse, 0)
}

// add notes the energy after one more step.
func (h *history) add(joules float64) {
	h.steps++
	h.fine[h.steps%int64(len(h.fine))] = joules
	if h.steps%h.every == 0 {
		if most := int(day / h.step / time.Duration(h.every)); len(h.coarse) > most+most/8 {
			cut := len(h.coarse) - most
			h.coarse = h.coarse[:copy(h.coarse, h.coarse[cut:])]
			h.first += int64(cut)
		}
		h.coarse = append(h.coarse, joules)
	}
}

// oldest is the first step that the fine history has.
func (h *history) oldest() int64 { return max(0, h.steps-int64(len(h.fine))+1) }

// at returns the energy drawn up to an instant: evenly within a step, or within 100 ms of what is older than the fine
// history. Before the start and before the coarse history it is that of their first entry.
func (h *history) at(t time.Duration) float64 {
	n := int64(t / h.step)
	switch {
	case t <= 0:
		return h.entry(0)
	case n >= h.steps:
		return h.entry(h.steps)
	case n >= h.oldest():
		a, b := h.entry(n), h.entry(n+1)
		return a + (b-a)*float64(t-time.Duration(n)*h.step)/float64(h.step)
	}
	span := h.step * time.Duration(h.every)
	n = int64(t / span)
	i := n - h.first
	if i < 0 {
		return h.coarse[0]
	}
	a := h.coarse[i]
	next := a
	if i+1 < int64(len(h.coarse)) {
		next = h.coarse[i+1]
	}
	return a + (next-a)*float64(t-time.Duration(n)*span)/float64(span)
}

// entry returns the energy after a number of steps.
func (h *history) entry(n int64) float64 {
	if n == 0 && h.first == 0 {
		return 0
	}
	if n >= h.oldest() {
		return h.fine[n%int64(len(h.fine))]
	}
	return h.coarse[max(0, n/h.every-h.first)]
}

// Load is the board as something that draws power. It simulates the board as far as it is asked for, and remembers every step
// of the last 16 s (at the least) and every 100 ms of the last day.
type Load struct{ b *Board }

// Load returns the board as a load, for a meter whose zero of time is the board's.
func (b *Board) Load() Load { return Load{b} }

// Energy is what the board drew from one instant to another, in joules; its sign turns if to is before from.
func (l Load) Energy(from, to time.Duration) float64 {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.b.advance(max(from, to))
	return l.b.history.at(to) - l.b.history.at(from)
}

// Power is what the board draws at an instant, in watts: the mean of the step that the instant lies in.
func (l Load) Power(at time.Duration) float64 {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	h := &l.b.history
	l.b.advance(at + h.step)
	from := max(0, at).Truncate(h.step)
	return (h.at(from+h.step) - h.at(from)) / h.step.Seconds()
}
