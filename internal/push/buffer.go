package push

import (
	"slices"
	"sync"
)

// buffer keeps messages, oldest first, of so many bytes at most. One of them at a time may be taken to be sent.
type buffer struct {
	limit int
	more  chan struct{} // has something when messages were put

	mu   sync.Mutex
	list []message
	size int  // bytes of list and of what is taken
	full bool // and something was lost, since the list was last empty
}

// put adds the newest message. It returns how many samples had to go for it, and whether they are the first since long.
func (b *buffer) put(m message) (lost int, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, m)
	b.size += len(m.body)
	select {
	case b.more <- struct{}{}:
	default:
	}
	return b.shrink()
}

// take takes the oldest message out, until done or back.
func (b *buffer) take() (m message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.list) == 0 {
		b.full = false
		return m, false
	}
	m = b.list[0]
	b.list = slices.Delete(b.list, 0, 1)
	return m, true
}

// done says that a message that was taken is of no more use.
func (b *buffer) done(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size -= len(m.body)
}

// back puts a message back that was taken. It returns as put does.
func (b *buffer) back(m message) (lost int, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.Insert(b.list, 0, m)
	return b.shrink()
}

// shrink drops the oldest messages while there are too many bytes.
func (b *buffer) shrink() (lost int, first bool) {
	n := 0
	for ; b.size > b.limit && n < len(b.list); n++ {
		b.size -= len(b.list[n].body)
		lost += b.list[n].samples
	}
	b.list = slices.Delete(b.list, 0, n)
	first = lost > 0 && !b.full
	b.full = b.full || lost > 0
	return lost, first
}

// waiting returns how many samples there are.
func (b *buffer) waiting() (samples int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.list {
		samples += m.samples
	}
	return samples
}
