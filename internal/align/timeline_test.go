package align_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/energy"
)

// reading is one of a meter whose zero was at host time zero.
func reading(epoch uint64, at, zero time.Duration, uj energy.Energy) align.Reading {
	return align.Reading{Epoch: epoch, At: at, Host: zero + at, Energy: uj}
}

// step is a reading to add, or an edge to advance to or to give up at, and what must come of it.
type step struct {
	add     *align.Reading
	useless bool

	edge, giveUp time.Duration
	not          bool
	want         align.Span
}

func add(r align.Reading) step    { return step{add: &r} }
func drop(r align.Reading) step   { return step{add: &r, useless: true} }
func notYet(e time.Duration) step { return step{edge: e, not: true} }
func edge(start, end time.Duration, e energy.Energy, unmeasured time.Duration) step {
	return step{edge: end, want: align.Span{Start: start, End: end, Energy: e, Unmeasured: unmeasured}}
}
func late(start, end time.Duration, e energy.Energy, unmeasured time.Duration, l energy.Energy) step {
	return step{edge: end, want: align.Span{Start: start, End: end, Energy: e, Unmeasured: unmeasured, Late: l}}
}
func giveUp(start, end time.Duration, e energy.Energy, unmeasured time.Duration) step {
	return step{giveUp: end, want: align.Span{Start: start, End: end, Energy: e, Unmeasured: unmeasured}}
}

func TestTimeline(t *testing.T) {
	const s = time.Second
	unmeasured := func(r align.Reading, d time.Duration) align.Reading { r.Unmeasured = d; return r }
	shifted := func(r align.Reading, d time.Duration) align.Reading { r.Host += d; return r }
	for name, steps := range map[string][]step{
		"between readings": {
			add(reading(7, 0, 10*s, 500)), edge(10*s, 10*s, 0, 0), notYet(10*s + 50*ms),
			add(reading(7, 100*ms, 10*s, 1500)),
			edge(10*s, 10*s+50*ms, 500, 0),
			add(reading(7, 200*ms, 10*s, 4500)),
			edge(10*s+50*ms, 10*s+150*ms, 2000, 0), // 500 and half of 3000
			edge(10*s+150*ms, 10*s+200*ms, 1500, 0), notYet(10*s + 201*ms),
		},
		"rounding does not add up": {
			add(reading(7, 0, 0, 0)), add(reading(7, 3*s, 0, 10)),
			{edge: 0}, edge(0, 1*s, 3, 0), edge(1*s, 2*s, 4, 0), edge(2*s, 3*s, 3, 0), // 3.33, 6.67
		},
		"negative": {
			add(reading(7, 0, 0, 0)), add(reading(7, 4*s, 0, -10)),
			{edge: 0}, edge(0, 1*s, -3, 0), edge(1*s, 2*s, -2, 0), edge(2*s, 4*s, -5, 0), // -2.5 is -3: half away from zero
		},
		"edges before the beginning are unmeasured": {
			add(reading(7, 0, 10*s, 500)), add(reading(7, 2*s, 10*s, 700)),
			edge(8*s, 8*s, 0, 0), edge(8*s, 9*s, 0, 1*s), edge(9*s, 11*s, 100, 1*s),
		},
		"edges before any reading": {
			notYet(1 * s), {giveUp: 1 * s, want: align.Span{Start: 1 * s, End: 1 * s}}, giveUp(1*s, 2*s, 0, 1*s),
			add(reading(7, 3*s, 0, 900)), add(reading(7, 4*s, 0, 1000)), edge(2*s, 4*s, 100, 1*s),
		},
		"an edge that is not later": {
			add(reading(7, 0, 0, 0)), add(reading(7, 4*s, 0, 40)), {edge: 0}, edge(0, 2*s, 20, 0),
			{edge: 1 * s, want: align.Span{Start: 2 * s, End: 2 * s}}, {giveUp: 2 * s, want: align.Span{Start: 2 * s, End: 2 * s}},
			edge(2*s, 4*s, 20, 0),
		},
		"loss costs resolution": {
			add(reading(7, 0, 0, 0)), {edge: 0}, notYet(1 * s), notYet(2 * s),
			add(reading(7, 4*s, 0, 400)), edge(0, 1*s, 100, 0), edge(1*s, 4*s, 300, 0),
		},
		"duplicates and reorder": {
			add(reading(7, 0, 0, 0)), add(reading(7, 4*s, 0, 400)), drop(reading(7, 4*s, 0, 400)),
			add(reading(7, 2*s, 0, 300)), drop(reading(7, 2*s, 0, 300)), drop(reading(7, 0, 0, 0)), drop(reading(7, -1*s, 0, -5)),
			{edge: 0}, edge(0, 1*s, 150, 0), edge(1*s, 3*s, 200, 0), edge(3*s, 4*s, 50, 0),
		},
		"a late reading does not change what was given": {
			add(reading(7, 0, 0, 0)), add(reading(7, 4*s, 0, 400)), {edge: 0}, edge(0, 2*s, 200, 0),
			add(reading(7, 1*s, 0, 300)), add(reading(7, 3*s, 0, 380)), edge(2*s, 3*s, 180, 0), edge(3*s, 4*s, 20, 0),
		},
		"given up, and told after all": {
			add(reading(7, 0, 0, 0)), add(reading(7, 1*s, 0, 100)), {edge: 0},
			giveUp(0, 2*s, 100, 1*s), giveUp(2*s, 3*s, 0, 1*s),
			add(reading(7, 5*s, 0, 500)), late(3*s, 4*s, 100, 0, 200), edge(4*s, 5*s, 100, 0),
		},
		"given up, and never told": {
			add(reading(7, 0, 0, 0)), add(reading(7, 1*s, 0, 100)), {edge: 0}, giveUp(0, 3*s, 100, 2*s),
			add(reading(8, 0, 5*s, 0)), add(reading(8, 1*s, 5*s, 70)), edge(3*s, 6*s, 70, 2*s),
		},
		"a new epoch counts from its zero": {
			add(reading(7, 0, 0, 1000)), add(reading(7, 2*s, 0, 1200)), {edge: 0},
			add(reading(8, 2*s, 4*s, 300)), // the meter came up at 4 s
			edge(0, 3*s, 200, 1*s), edge(3*s, 5*s, 150, 1*s), edge(5*s, 6*s, 150, 0),
			drop(reading(7, 3*s, 0, 1300)), add(reading(8, 1*s, 4*s, 299)), add(reading(8, 3*s, 4*s, 310)), edge(6*s, 7*s, 10, 0),
		},
		"a new epoch whose zero is before the last reading by an error of the clock": {
			add(reading(7, 0, 0, 0)), add(reading(7, 2*s, 0, 200)), {edge: 0},
			add(reading(8, 1*s, 2*s-300*ms, 70)), edge(0, 2*s, 200, 0), edge(2*s, 2*s+700*ms, 70, 0),
		},
		"an epoch that ran before the last reading is another meter": {
			add(reading(7, 0, 100*s, 0)), add(reading(7, 1*s, 100*s, 100)), {edge: 100 * s, want: align.Span{Start: 100 * s, End: 100 * s}},
			add(reading(8, 103*s, 0, 9999)), add(reading(8, 104*s, 0, 10099)), edge(100*s, 104*s, 200, 2*s),
		},
		"set back without a new epoch": {
			add(reading(7, 50*s, 0, 5000)), add(reading(7, 51*s, 0, 5100)), edge(50*s, 50*s, 0, 0),
			add(reading(7, 1*s, 53*s, 90)), edge(50*s, 54*s, 190, 2*s), // up again at 53 s
		},
		"a silence of ten hours, of a meter that runs 100 ppm fast": {
			add(reading(7, 0, 0, 0)), {edge: 0}, add(reading(7, 36000*s, -3600*ms, 36000)), edge(0, 36000*s-3600*ms, 36000, 0),
		},
		"a restart at the start of such a silence": { // its zero seems to be 3 s before the reading that was before it
			add(reading(7, 0, 0, 0)), add(reading(7, 1*s, 0, 10)), {edge: 0},
			add(reading(8, 36000*s, -2*s, 36000)), edge(0, 1*s, 10, 0), edge(1*s, 35998*s, 36000, 0),
		},
		"the meter's clock stood still": {
			add(reading(7, 0, 0, 0)), add(reading(7, 1*s, 0, 100)), {edge: 0},
			add(reading(7, 2*s, 5*s, 200)), edge(0, 7*s, 200, 5*s),
		},
		"mapped too late at first": { // what grew in between is of a time that was over
			add(reading(7, 0, 160*s, 0)), add(reading(7, 1*s, 160*s, 100)), edge(160*s, 160*s, 0, 0),
			add(reading(7, 161*s, 1*s, 16100)), add(reading(7, 162*s, 1*s, 16200)), edge(160*s, 163*s, 200, 1*s),
		},
		"a revised clock moves readings back": {
			add(reading(7, 0, 0, 0)), add(reading(7, 100*ms, 0, 100)), add(reading(7, 200*ms, 0, 200)), {edge: 0}, edge(0, 200*ms, 200, 0),
			add(shifted(reading(7, 250*ms, 0, 250), -100*ms)), notYet(250 * ms), // at 150 ms: behind what was given
			add(shifted(reading(7, 350*ms, 0, 350), -100*ms)), edge(200*ms, 250*ms, 150, 0),
		},
		"a revised clock moves readings back that were not given": { // from 0, 100, 200 to 0, 100, 150 ms
			add(reading(7, 0, 0, 0)), add(reading(7, 100*ms, 0, 100)), add(reading(7, 200*ms, 0, 200)), {edge: 0},
			add(shifted(reading(7, 250*ms, 0, 250), -100*ms)), edge(0, 125*ms, 175, 0), edge(125*ms, 150*ms, 75, 0), notYet(151 * ms),
		},
		"a late reading that was mapped past its successor": {
			add(reading(7, 0, 0, 0)), add(reading(7, 100*ms, 0, 100)), add(reading(7, 300*ms, 0, 300)), {edge: 0},
			drop(shifted(reading(7, 200*ms, 0, 250), 100*ms)), drop(shifted(reading(7, 200*ms, 0, 250), -100*ms)),
			edge(0, 200*ms, 200, 0), add(reading(7, 250*ms, 0, 290)), edge(200*ms, 300*ms, 100, 0),
		},
		"what the meter did not measure": {
			add(unmeasured(reading(7, 0, 0, 0), 1*s)), add(unmeasured(reading(7, 2*s, 0, 100), 2*s)), {edge: 0},
			edge(0, 1*s, 50, 500*ms), edge(1*s, 2*s, 50, 500*ms),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var tl align.Timeline
			for i, st := range steps {
				if st.add != nil {
					if tl.Add(*st.add) == st.useless {
						t.Fatalf("step %d: reading taken is %v", i, st.useless)
					}
					continue
				}
				var got align.Span
				ok := true
				if st.giveUp != 0 {
					got = tl.GiveUp(st.giveUp)
				} else {
					got, ok = tl.Advance(st.edge)
				}
				if ok == st.not || got != st.want {
					t.Fatalf("step %d: %+v, %v; want %+v", i, got, ok, st.want)
				}
			}
		})
	}
}

// drive feeds a timeline with what a meter of several epochs says, as choose has it: loss, duplicates, reorder, restarts, a
// clock whose fit wobbles by as much as wobble, edges that wait and edges that do not. Spans must follow each other without a
// hole, and their energy must sum to the growth of the meter's totals.
func drive(t *testing.T, choose func(n int) int, steps int, wobble time.Duration) {
	t.Helper()
	var tl align.Timeline
	var at, host, edge, last, measured, unmeasured time.Duration
	var total, sum energy.Energy
	var seen, before energy.Energy // the newest total of this epoch, and the growth in those before
	var taken uint64               // readings in this epoch
	epoch := uint64(1)
	var old []align.Reading
	span := func(s align.Span) {
		if s.Start != last || s.End < s.Start || s.Unmeasured < 0 || s.Measured() < 0 {
			t.Fatalf("%+v after %v", s, last)
		}
		last = s.End
		sum += s.Energy + s.Late
		measured += s.Measured()
		unmeasured += s.Unmeasured
	}
	say := func() {
		r := align.Reading{Epoch: epoch, At: at, Host: host + time.Duration(choose(256))*wobble/255, Energy: total}
		if !tl.Add(r) {
			t.Fatalf("%+v was of no use", r)
		}
		if epoch == 1 && taken == 0 {
			before = -total
		}
		seen = total
		taken++
	}
	span(tl.GiveUp(0))
	for range steps {
		d := 20*ms + time.Duration(choose(100))*ms
		at, host, total = at+d, host+d, total+energy.Energy(choose(256)*choose(256)-200)
		r := align.Reading{Epoch: epoch, At: at, Host: host + time.Duration(choose(256))*wobble/255, Energy: total}
		switch choose(16) {
		case 0, 1: // lost
		case 2:
			old = append(old, r)
		case 3:
			if len(old) > 0 && taken > 0 && old[0].At < at {
				say()
				tl.Add(old[0])
				if tl.Add(old[0]) {
					t.Fatalf("%+v was of use twice", old[0])
				}
				old = old[1:]
			}
		case 4:
			if choose(16) == 0 && taken > 0 {
				host += time.Duration(choose(256)) * 20 * ms
				before, seen, taken, old = before+seen, 0, 0, nil
				epoch, at, total = epoch+1, 0, 0
			}
		default:
			say()
		}
		for edge < host {
			next := edge + 50*ms
			if s, ok := tl.Advance(next); ok {
				span(s)
			} else if choose(16) == 0 {
				span(tl.GiveUp(next))
			} else {
				break
			}
			edge = next
		}
	}
	at, host = at+10*time.Second, host+10*time.Second
	say()
	end, _ := tl.Newest()
	s, ok := tl.Advance(end)
	if !ok {
		t.Fatal("no span up to the newest reading")
	}
	span(s)
	if want := before + seen; sum != want {
		t.Errorf("spans sum to %d µJ, the meter's totals to %d", sum, want)
	}
	if measured+unmeasured != end {
		t.Errorf("%v measured, %v not, of %v", measured, unmeasured, end)
	}
}

func TestTimelineConserves(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		// 100 µs is what a fit wobbles; 300 ms throws readings over each other.
		for _, wobble := range []time.Duration{0, 100 * time.Microsecond, 300 * ms} {
			drive(t, rng.IntN, 1500, wobble)
		}
	}
}

func FuzzTimeline(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("a meter that restarts, loses, repeats and wobbles"))
	f.Add([]byte{1, 2, 3, 4, 0, 4, 0, 4, 0, 3, 3, 2, 2, 1, 0, 255, 255, 4, 0, 0, 16, 32})
	f.Fuzz(func(t *testing.T, b []byte) {
		steps := len(b)
		drive(t, func(n int) int {
			if len(b) == 0 {
				return n - 1
			}
			v := int(b[0]) % n
			b = b[1:]
			return v
		}, steps, 250*ms)
	})
}

// Readings and edges at any time whatever: nothing panics, and no span runs backwards.
func FuzzTimelineAnything(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 128, 127, 64})
	f.Fuzz(func(t *testing.T, b []byte) {
		var tl align.Timeline
		l := align.NewLag(50*ms, 0)
		last, begun := time.Duration(0), false
		for ; len(b) >= 6; b = b[6:] {
			v := func(i int) time.Duration { return time.Duration(int8(b[i])) << (b[5] % 40) }
			if b[0]%3 == 0 {
				tl.Add(align.Reading{Epoch: uint64(b[1] % 6), At: v(2), Host: v(3), Energy: energy.Energy(v(4)), Unmeasured: v(1)})
				continue
			}
			s, ok := tl.Advance(v(2))
			if b[0]%3 == 1 {
				s, ok = tl.GiveUp(v(2)), true
			}
			if ok && (begun && s.Start < last || s.End < s.Start || s.Unmeasured < 0 || s.Measured() < 0) {
				t.Fatalf("%+v after %v", s, last)
			}
			if ok {
				last, begun = s.End, true
			}
			l.Tick(&tl, v(3), float64(b[4]))
		}
	})
}

func TestTimelineAt(t *testing.T) {
	var tl align.Timeline
	if _, ok := tl.At(0); ok {
		t.Error("a total without readings")
	}
	for i := range 2000 { // more than it holds
		tl.Add(reading(1, time.Duration(i)*50*ms, time.Second, energy.Energy(i*i)))
	}
	for host, want := range map[time.Duration]energy.Energy{
		time.Second + 1999*50*ms:         3996001,
		time.Second + 1998*50*ms + 1:     3992004,
		time.Second + 1998*50*ms - 1:     3992004,
		time.Second + 1899*50*ms + 25*ms: 3608101, // half way from 3606201 to 3610000, rounded
		time.Second + 1800*50*ms:         3240000, // 10 s back
	} {
		if e, ok := tl.At(host); !ok || e != want {
			t.Errorf("%v: %d, %v; want %d", host, e, ok, want)
		}
	}
	for _, host := range []time.Duration{0, time.Second, time.Second + 1999*50*ms + 1} {
		if e, ok := tl.At(host); ok {
			t.Errorf("%v: %d, of which nothing is known", host, e)
		}
	}
}

// A caller who asks too late finds that readings were forgotten, and still no energy.
func TestTimelineForgets(t *testing.T) {
	var tl align.Timeline
	tl.Add(reading(1, 0, 0, 0))
	tl.Advance(0)
	for i := range 2000 {
		tl.Add(reading(1, time.Duration(i+1)*50*ms, 0, energy.Energy(i+1)*10))
	}
	a, _ := tl.Advance(10 * time.Second)
	b, _ := tl.Advance(100 * time.Second)
	if a.Energy+b.Energy != 20_000 || a.Energy != 2000 || a.Unmeasured != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
}
