package cgroup

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattlet/wattlet/internal/workload"
)

// maxClasses is one more than the core classes that are told apart; the first is for time whose class is not known.
const maxClasses = 8

// vector is CPU time by core class.
type vector [maxClasses]time.Duration

func (v *vector) total() (sum time.Duration) {
	for _, t := range v {
		sum += t
	}
	return sum
}

// node is a directory of the hierarchy.
type node struct {
	id      workload.ID
	name    string
	place   place
	counted bool  // it has a counter, and is a workload
	up      *node // the nearest counted one above
	gen     uint64

	// Its counter: raw as last read at at, of which base stays with the parent.
	file      handle
	at        time.Duration
	raw, base vector
	fresh     bool // never read
	failed    bool // could not be read this time
	held      bool // not told before the next sample
	advance   time.Duration

	// sum is the time of the counted ones next below it, gone that of those which ended. own is what is left, the workload's
	// CPU; split is the same by core class where only cpusets tell the class.
	sum, gone, own, split vector
	class                 uint8
	moved                 bool // class has changed since the last reading

	// Its directory, and the link count and modification time that it had when kids were listed.
	dir    handle
	links  uint64
	mtime  int64
	stale  bool // kids may be wrong whatever these say
	kids   []*node
	byName map[string]*node
}

// value is the time that n stands for, with all below it.
func (n *node) value() (v vector) {
	for c := range v {
		v[c] = n.raw[c] - n.base[c]
	}
	return v
}

func (v *vector) add(w vector) {
	for c := range v {
		v[c] += w[c]
	}
}

func (n *node) appendTo(all []*node) []*node {
	if n.counted {
		all = append(all, n)
	}
	for _, kid := range n.kids {
		all = kid.appendTo(all)
	}
	return all
}

func (n *node) close(f *files) {
	f.close(&n.file)
	f.close(&n.dir)
	for _, kid := range n.kids {
		kid.close(f)
	}
}

// visit reads n and all below it. It returns true if n is no longer there, or not the same as before.
//
// Parents are read before their children: then what is left to the parent is never more than it used, and as it may only grow it
// comes to the truth from below, however far the readings are apart.
func (r *Reader) visit(n *node, now time.Duration) (gone bool) {
	recovered := n.failed
	n.sum = vector{}
	if n.counted && r.readCounter(n, now) {
		return true
	}
	if n.place != whole && r.visitKids(n, now) {
		return true
	}
	if n.counted && (!n.fresh || n.failed) {
		r.settle(n, n.failed || recovered)
	}
	return false
}

// settle computes what n itself used, and adds all that n stands for to the sum of the one above. After a gap, and while there is
// one, n itself is taken to have used nothing more: what it did use is with the one above, or with the kernel's remainder.
func (r *Reader) settle(n *node, gap bool) {
	value, before := n.value(), n.own.total()
	for c := range n.own {
		if gap {
			n.base[c] = n.raw[c] - n.own[c] - n.gone[c] - n.sum[c]
		} else {
			n.own[c] = max(n.own[c], value[c]-n.gone[c]-n.sum[c])
		}
	}
	if r.byGroup {
		class := n.class
		if n.moved {
			class = 0
		}
		n.split[class] += n.own.total() - before
	}
	n.moved = false
	if n.up != nil {
		n.up.sum.add(n.value())
	}
}

// slack is how far the kernel's accounting of running tasks may lag behind: one scheduler tick at HZ=100, twice.
const slack = 20 * time.Millisecond

// readCounter reads n's counter.
func (r *Reader) readCounter(n *node, now time.Duration) (gone bool) {
	file := "cpu.stat"
	switch {
	case r.perCPU:
		file = "cpuacct.usage_percpu"
	case !r.v2:
		file = "cpuacct.usage"
	}
	r.f.at(r.root, string(n.id), file)
	b, err := r.f.read(&n.file, r.keepGroups)
	at := r.opt.Uptime()
	var raw vector
	switch {
	case err != nil:
	case r.perCPU:
		err = parsePerCPU(b, r.cpus.class, &raw)
	case r.v2:
		raw[0], err = parseCPUStat(b)
	default:
		raw[0], err = parseNanoseconds(b)
	}
	n.advance = 0
	if isGone(err) {
		if n.fresh && n.place != whole { // a directory to look into, without a counter
			n.counted, r.changed = false, true
		}
		return !n.fresh // one that went while it was being found goes with the next listing
	}
	if n.failed = err != nil; n.failed {
		r.fail(err, r.f.name())
		return false
	}
	isNew := n.fresh
	if isNew {
		n.fresh = false
		if !r.first && raw.total() > r.atMost(n, now)+slack {
			n.base = raw
		}
		n.advance = raw.total() - n.base.total()
	} else {
		for c := range raw {
			if raw[c] < n.raw[c] {
				return true // another one of the same name, or it was reset
			}
		}
		n.advance = raw.total() - n.raw.total()
	}
	n.raw, n.at = raw, at
	if r.byGroup && (r.slow || isNew) {
		r.readClass(n)
	}
	return false
}

// atMost is what a workload can have used that was not there at the last reading.
func (r *Reader) atMost(n *node, now time.Duration) time.Duration {
	if n.up != nil && !n.up.failed {
		return n.up.advance
	}
	return (now - r.lastAt) * time.Duration(max(len(r.cpus.class), 1))
}

// readClass finds the core class that n's cpuset confines it to. Where it has none of its own it has its parent's: the file is
// there only where the controller is.
func (r *Reader) readClass(n *node) {
	var class uint8
	if n.up != nil {
		class = n.up.class
	}
	for _, file := range r.cpusetFiles {
		r.f.at(r.cpusets, string(n.id), file)
		b, err := r.f.readOnce()
		if err != nil || blank(b) {
			continue
		}
		if class, err = parseClass(b, r.cpus.class); err != nil {
			r.fail(err, r.f.name())
		}
		break
	}
	n.moved = n.class != class && n.split != vector{}
	n.class = class
}

// visitKids lists n's directory if it may have changed, and visits what is in it. On cgroupfs the link count follows the number of
// directories, but the modification time stands still; a removal and a creation between two readings leave the count as it was,
// and are seen by the removed one's file answering ENODEV.
func (r *Reader) visitKids(n *node, now time.Duration) (gone bool) {
	r.f.at(r.root, string(n.id))
	fd, err := r.f.acquire(&n.dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		defer r.f.release(&n.dir, fd, r.keepGroups)
		if n.dir.fd > 0 {
			err = unix.Fstat(fd, &r.f.stat)
		}
	}
	if isGone(err) {
		return true
	}
	links := uint64(r.f.stat.Nlink) //nolint:unconvert // it is shorter on 32-bit machines
	mtime := r.f.stat.Mtim.Nano()
	switch {
	case err != nil:
		r.fail(err, r.f.name())
	case r.slow || n.stale || links < 2 || links != n.links || mtime != n.mtime:
		if err = r.list(n, fd); err != nil {
			r.fail(err, r.join(n))
		}
	}
	n.links, n.mtime, n.stale = links, mtime, err != nil
	i := 0
	for pass := range 2 {
		again := false
		for i < len(n.kids) {
			if r.visit(n.kids[i], now) {
				r.remove(n, i)
				again = true
			} else {
				i++
			}
		}
		if !again || err != nil {
			break
		}
		if n.stale = pass > 0; !n.stale { // what took their place is read at once
			if err = r.list(n, fd); err != nil {
				r.fail(err, r.join(n))
			}
		}
	}
	return false
}

func (r *Reader) join(n *node) string { return filepath.Join(r.root, string(n.id)) }

// list makes n's kids those that its directory has.
func (r *Reader) list(n *node, fd int) error {
	r.gen++
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return err
	}
	for {
		size, err := unix.Getdents(fd, r.f.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if size <= 0 {
			break
		}
		for e, rest, ok := nextDirent(r.f.buf[:size]); ok; e, rest, ok = nextDirent(rest) {
			if e.kind != unix.DT_DIR || len(e.name) == 0 || e.name[0] == '.' {
				continue
			}
			if kid := n.byName[string(e.name)]; kid != nil {
				kid.gen = r.gen
			} else {
				r.add(n, e.name)
			}
		}
	}
	for i := range slices.Backward(n.kids) { // which remove shortens
		if n.kids[i].gen != r.gen {
			r.remove(n, i)
		}
	}
	return nil
}

// add makes a kid of n, if it is to be read and there is room.
func (r *Reader) add(n *node, name []byte) {
	kid := &node{name: string(name), fresh: true, gen: r.gen, up: n.up}
	kid.id = workload.ID(kid.name)
	if n.id != "" {
		kid.id = n.id + "/" + kid.id
	}
	if kid.place = r.locate(n.place, kid); kid.place == ignored {
		return
	}
	if r.count >= r.opt.MaxWorkloads {
		r.limited = true
		return
	}
	kid.counted = kid.place.counted()
	if n.counted {
		kid.up = n
	}
	for _, e := range r.ended {
		kid.held = kid.held || e.id == kid.id
	}
	if n.byName == nil {
		n.byName = map[string]*node{}
	}
	n.byName[kid.name] = kid
	n.kids = append(n.kids, kid)
	r.count++
	r.changed = true
}

func (r *Reader) locate(parent place, kid *node) place {
	p := locate(parent, kid.name, r.opt.Pods)
	if p == whole || p == service || p == ignored {
		for _, root := range r.opt.Roots {
			if rest, ok := strings.CutPrefix(root, string(kid.id)); ok && (rest == "" || rest[0] == '/') {
				return group
			}
		}
	}
	return p
}

// remove takes the kid at i out of n; it and all below it have ended.
func (r *Reader) remove(n *node, i int) {
	kid := n.kids[i]
	n.kids = slices.Delete(n.kids, i, i+1)
	delete(n.byName, kid.name)
	r.end(kid)
}

func (r *Reader) end(n *node) {
	r.f.close(&n.file)
	r.f.close(&n.dir)
	r.count--
	r.changed = true
	for _, kid := range n.kids {
		r.end(kid)
	}
	if !n.counted || n.fresh {
		return
	}
	if n.up != nil {
		n.up.gone.add(n.value())
	}
	n.at = r.opt.Uptime()
	r.ended = append(r.ended, n)
}
