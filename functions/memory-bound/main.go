// Command memory-bound is a function that waits for memory: it follows pointers through a buffer larger than the caches, in an order
// that no prefetcher guesses, or reads the buffer from end to end.
package main

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"

	"golang.org/x/sync/semaphore"

	"github.com/wattlet/wattlet/functions/internal/serve"
)

func main() { os.Exit(serve.Main(function())) }

const (
	defaultMiB    = 32 // the last caches of small boards have 0.5 to 4 MiB
	maxMiB        = 256
	defaultSteps  = 1_000_000
	maxSteps      = 200_000_000
	defaultPasses = 8
	maxPasses     = 2_000
	inFlight      = 16
)

func function() serve.Function {
	m := &memory{users: semaphore.NewWeighted(everyone)}
	return serve.Function{Name: "memory-bound", Serve: m.invoke, InFlight: inFlight}
}

type answer struct {
	Mode   string `json:"mode"`
	MiB    int    `json:"mib"`
	Steps  int    `json:"steps,omitempty"`
	Passes int    `json:"passes,omitempty"`
	Sum    uint32 `json:"sum"`
}

// everyone is more than there can be users of the buffer.
const everyone = 1 << 30

// memory is the one buffer that there is. Invocations share it, so that many of them need no more memory than one; one that needs
// another size waits until all others have left, and makes it anew.
type memory struct {
	users *semaphore.Weighted
	lines []line
}

func (m *memory) invoke(w http.ResponseWriter, r *http.Request) error {
	q := serve.NewQuery(r)
	a := answer{Mode: q.Choice("mode", "chase", "stream"), MiB: q.Int("mib", defaultMiB, 1, maxMiB)}
	if a.Mode == "chase" {
		a.Steps = q.Int("steps", defaultSteps, 0, maxSteps)
	} else {
		a.Passes = q.Int("passes", defaultPasses, 0, maxPasses)
	}
	if err := q.Err(); err != nil {
		return err
	}
	lines, leave, err := m.use(r.Context(), a.MiB)
	if err != nil {
		return err
	}
	defer leave()
	if a.Mode == "chase" {
		a.Sum, err = chase(r.Context(), lines, a.Steps)
	} else {
		a.Sum, err = stream(r.Context(), lines, a.Passes)
	}
	if err != nil {
		return err
	}
	return serve.JSON(w, a)
}

// use returns a buffer of mib that stays until leave is called.
func (m *memory) use(ctx context.Context, mib int) (lines []line, leave func(), err error) {
	want := mib << 20 / lineSize
	if err := m.users.Acquire(ctx, 1); err != nil {
		return nil, nil, err
	}
	if len(m.lines) == want {
		return m.lines, func() { m.users.Release(1) }, nil
	}
	m.users.Release(1)
	if err := m.users.Acquire(ctx, everyone); err != nil {
		return nil, nil, err
	}
	if len(m.lines) != want {
		m.lines = nil
		debug.FreeOSMemory() // never two of them
		m.lines = ring(want)
	}
	m.users.Release(everyone - 1)
	return m.lines, func() { m.users.Release(1) }, nil
}

const lineSize = 64

// line is as large as a cache line of nearly all boards.
type line struct {
	next  uint32
	value [lineSize/4 - 1]uint32
}

// ring returns n lines that form one ring in an order of chance, always the same for n: Sattolo's shuffle.
func ring(n int) []line {
	lines := make([]line, n)
	for i := range lines {
		lines[i].next = uint32(i)
		lines[i].value[0] = uint32(i) * 2654435761 // Knuth's multiplier, 2^32 by the golden ratio
	}
	state := uint64(n)
	for i := n - 1; i > 0; i-- {
		state = state*6364136223846793005 + 1442695040888963407 // Knuth's MMIX
		j := int(state >> 33 * uint64(i) >> 31)
		lines[i].next, lines[j].next = lines[j].next, lines[i].next
	}
	return lines
}

// chase follows the ring for some steps; each waits for the one before.
func chase(ctx context.Context, lines []line, steps int) (sum uint32, err error) {
	at := uint32(0)
	for step := range steps {
		if step&0xffff == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		l := &lines[at]
		sum += l.value[0]
		at = l.next
	}
	return sum, nil
}

// stream reads all of the buffer in order, several times.
func stream(ctx context.Context, lines []line, passes int) (sum uint32, err error) {
	for range passes {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		for i := range lines {
			for _, v := range lines[i].value {
				sum += v
			}
		}
	}
	return sum, nil
}
