package meter

// maxMissing bounds the memory of missing reports: more than a meter's ring can hold.
const maxMissing = 1024

// verdict is what the order of a report says of it.
type verdict int

const (
	fresh   verdict = iota // newer than all before
	late                   // missing until now
	stale                  // known, or of a boot that ended
	newBoot                // the first of another boot of the meter
)

// tracker keeps the order of reports: which are new, which are missing. Energy does not depend on it, only the counts of
// lost reports and the recovery of their samples do.
type tracker struct {
	boot, past uint32
	last       uint32
	missing    map[uint32]struct{}

	lost, recovered uint64
}

// see takes note of a report.
func (t *tracker) see(boot, seq uint32) verdict {
	switch {
	case boot == t.past && boot != 0:
		return stale
	case boot != t.boot:
		first := t.boot == 0
		t.past, t.boot, t.last = t.boot, boot, seq
		t.missing = map[uint32]struct{}{}
		if first {
			return fresh
		}
		return newBoot
	case seq > t.last:
		gap := seq - t.last - 1
		t.lost += uint64(gap)
		for s := seq - min(gap, maxMissing); s < seq; s++ {
			t.missing[s] = struct{}{}
		}
		t.last = seq
		t.trim()
		return fresh
	case t.take(seq):
		return late
	default:
		return stale
	}
}

// trim drops the oldest of too many missing reports.
func (t *tracker) trim() {
	if len(t.missing) <= maxMissing {
		return
	}
	for s := range t.missing {
		if s+maxMissing < t.last {
			delete(t.missing, s)
		}
	}
}

// take notes that a missing report came after all.
func (t *tracker) take(seq uint32) bool {
	if _, ok := t.missing[seq]; !ok {
		return false
	}
	delete(t.missing, seq)
	t.recovered++
	return true
}

// first returns the oldest missing report.
func (t *tracker) first() (uint32, bool) {
	lowest, any := uint32(0), false
	for s := range t.missing {
		if !any || s < lowest {
			lowest, any = s, true
		}
	}
	return lowest, any
}

// forget gives up all missing reports before seq: the meter no longer has them.
func (t *tracker) forget(seq uint32) {
	for s := range t.missing {
		if s < seq {
			delete(t.missing, s)
		}
	}
}
