package align_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/align"
	"github.com/wattlet/wattlet/internal/energy"
)

const (
	ms   = time.Millisecond
	fine = 10 * ms
)

// load is a node's truth on a grid of 10 ms: cumulative busy CPU-seconds and joules.
type load struct{ cpu, joules []float64 }

func (l load) length() time.Duration { return time.Duration(len(l.cpu)-1) * fine }

func at(total []float64, t time.Duration) float64 {
	x := min(max(float64(t)/float64(fine), 0), float64(len(total)-1))
	i := min(int(x), len(total)-2)
	return total[i] + (x-float64(i))*(total[i+1]-total[i])
}

// accumulate turns cores busy into a load of 1 W plus watts per core.
func accumulate(cores, watts []float64) load {
	l := load{make([]float64, len(cores)+1), make([]float64, len(cores)+1)}
	for i := range cores {
		l.cpu[i+1] = l.cpu[i] + cores[i]*fine.Seconds()
		l.joules[i+1] = l.joules[i] + (1+watts[i])*fine.Seconds()
	}
	return l
}

// compose draws jobs of eight functions as a Poisson process of the given rate (1/s) over all. A function has a power per core,
// a length and a shape of steps; each job varies them. A daemon of 0.15 core runs besides.
func compose(rng *rand.Rand, length time.Duration, rate float64) load {
	n := int(length / fine)
	cores, watts := make([]float64, n), make([]float64, n)
	type function struct {
		perCore float64
		steps   []float64
		stepLen float64
	}
	functions := make([]function, 8)
	for i := range functions {
		f := function{perCore: 0.4 + rng.Float64(), stepLen: 0.15 + 0.6*rng.Float64()}
		for range 2 + rng.IntN(8) {
			f.steps = append(f.steps, 0.2+2.3*rng.Float64())
		}
		functions[i] = f
	}
	for t := rng.ExpFloat64() / rate; t < length.Seconds(); t += rng.ExpFloat64() / rate {
		f := functions[rng.IntN(len(functions))]
		per, x := f.perCore*(1+0.09*rng.NormFloat64()), t
		for _, c := range f.steps {
			c *= 0.8 + 0.4*rng.Float64()
			end := x + f.stepLen*(0.8+0.4*rng.Float64())
			for i := int(x / fine.Seconds()); i < min(n, int(end/fine.Seconds())); i++ {
				if cores[i]+c <= 6.5 {
					cores[i] += c
					watts[i] += per * c
				}
			}
			x = end
		}
	}
	for i := range n {
		b := 0.15 * max(0, 1+0.5*math.Sin(float64(i)/70)+0.3*rng.NormFloat64())
		cores[i] += b
		watts[i] += 0.6 * b
	}
	return accumulate(cores, watts)
}

// run meters a load with a sensor that gives means over box, late by lag(t), with 20 mW of noise in each 100 ms, read every
// period give or take; CPU time is read at ticks, of which the kernel counts whole jiffies of 10 ms per core. After each tick it
// calls see.
func run(rng *rand.Rand, l *align.Lag, ld load, tick, period, box time.Duration,
	lag func(time.Duration) time.Duration, see func(time.Duration)) {
	var t align.Timeline
	var noise float64
	next := 2 * time.Second
	for edge := 2 * time.Second; edge < ld.length(); edge += tick {
		for ; next <= edge; next += period + time.Duration(rng.Int64N(int64(period/5))) - period/10 {
			noise += 0.002 * rng.NormFloat64() * math.Sqrt(period.Seconds()/0.1)
			// Joules of whole boxes, and a straight line within one: a held mean.
			back := lag(next)
			start := (next - back).Truncate(box)
			e0, e1 := at(ld.joules, start), at(ld.joules, start+box)
			j := e0 + (e1-e0)*float64(next-back-start)/float64(box) + noise
			t.Add(align.Reading{Epoch: 1, At: next, Host: next, Energy: energy.Energy(j * 1e6)})
		}
		rate := (at(ld.cpu, edge) - at(ld.cpu, edge-tick)) / tick.Seconds()
		jiffies := 0.01 * (rng.Float64() - 0.5) * math.Sqrt(max(1, rate))
		l.Tick(&t, edge, at(ld.cpu, edge)+jiffies)
		see(edge)
	}
}

func constant(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// quantile of sorted values.
func quantile(v []time.Duration, q float64) time.Duration { return v[int(q*float64(len(v)-1))] }

// The published lag, after the first and after every later acceptance, against lags that are known.
func TestLagAccuracy(t *testing.T) {
	for _, tc := range []struct {
		tick, period time.Duration
		rate         float64
		first, p95   time.Duration // largest allowed
	}{
		{50 * ms, 50 * ms, 0.5, 60 * ms, 30 * ms},
		{100 * ms, 100 * ms, 0.5, 60 * ms, 30 * ms},
		{100 * ms, 200 * ms, 0.5, 60 * ms, 30 * ms},
		{100 * ms, 100 * ms, 0.1, 100 * ms, 45 * ms},
		{250 * ms, 100 * ms, 0.5, 100 * ms, 45 * ms},
		{time.Second, 100 * ms, 0.5, 150 * ms, 60 * ms},
		{time.Second, 200 * ms, 0.1, 200 * ms, 100 * ms},
	} {
		t.Run(fmt.Sprintf("tick %v readings %v jobs %v per s", tc.tick, tc.period, tc.rate), func(t *testing.T) {
			var first, later, when []time.Duration
			var refused, accepted uint64
			var inside, biasN int
			var bias time.Duration
			for seed := range uint64(8) {
				for _, lag := range []time.Duration{0, 130 * ms, 400 * ms, 450 * ms, 800 * ms} {
					rng := rand.New(rand.NewPCG(seed, uint64(lag)))
					box := 200*ms + time.Duration(rng.IntN(15))*10*ms
					l := align.NewLag(tc.tick, 300*ms)
					var seen uint64
					run(rng, l, compose(rng, 5*time.Minute, tc.rate), tc.tick, tc.period, box, constant(lag), func(edge time.Duration) {
						s := l.State()
						if s.Accepted == seen {
							return
						}
						seen = s.Accepted
						d := (s.Lag - lag).Abs()
						if seen == 1 {
							first, when = append(first, d), append(when, edge)
						} else if edge > 2*time.Minute {
							later = append(later, d)
						}
						bias += s.Lag - lag
						biasN++
						if d <= 2*s.StdDev {
							inside++
						}
					})
					s := l.State()
					refused += s.Refused
					accepted += s.Accepted
				}
			}
			slices.Sort(first)
			slices.Sort(later)
			slices.Sort(when)
			t.Logf("first acceptance after median %v, max %v: error median %v, 95 %% %v; later: median %v, 95 %% %v, max %v; "+
				"accepted %d, refused %d; %.0f %% within 2 standard deviations; bias %v", quantile(when, 0.5), quantile(when, 1),
				quantile(first, 0.5).Round(ms), quantile(first, 0.95).Round(ms), quantile(later, 0.5).Round(ms),
				quantile(later, 0.95).Round(ms), quantile(later, 1).Round(ms), accepted, refused,
				100*float64(inside)/float64(biasN), (bias / time.Duration(biasN)).Round(ms))
			if e := quantile(first, 0.95); e > tc.first {
				t.Errorf("95 %% of first estimates within %v, want %v", e, tc.first)
			}
			if e := quantile(later, 0.95); e > tc.p95 {
				t.Errorf("95 %% of later estimates within %v, want %v", e, tc.p95)
			}
		})
	}
}

// square is a load of one core and two watts more in the first half of each period.
func square(length, period time.Duration) load {
	var cores, watts []float64
	for t := time.Duration(0); t < length; t += fine {
		on := 0.0
		if t%period < period/2 {
			on = 1
		}
		cores, watts = append(cores, 0.2+on), append(watts, 0.1+2*on)
	}
	return accumulate(cores, watts)
}

// A load that repeats fits one period later as well; a steady one fits anywhere. Neither may move the lag.
func TestLagRefuses(t *testing.T) {
	for name, ld := range map[string]load{
		"period 0.4 s": square(5*time.Minute, 400*ms),
		"period 0.5 s": square(5*time.Minute, 500*ms),
		"period 0.8 s": square(5*time.Minute, 800*ms),
		"period 1 s":   square(5*time.Minute, time.Second),
		"period 1.5 s": square(5*time.Minute, 1500*ms),
		"steady":       square(5*time.Minute, time.Hour),
	} {
		for _, tick := range []time.Duration{50 * ms, 100 * ms, time.Second} {
			rng := rand.New(rand.NewPCG(1, 1))
			l := align.NewLag(tick, 300*ms)
			run(rng, l, ld, tick, 100*ms, 200*ms, constant(400*ms), func(time.Duration) {})
			s := l.State()
			if s.Accepted != 0 || s.Refused < 20 || s.Lag != 300*ms || s.StdDev != 250*ms {
				t.Errorf("%s, tick %v: %+v", name, tick, s)
			}
		}
	}
}

// Under a steady load the lag stays what it was, and less and less sure.
func TestLagKeepsUnderSteadyLoad(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	ld := compose(rng, 3*time.Minute, 0.5)
	n := len(ld.cpu) - 1
	for range 30 * 60 * 100 { // half an hour of one core at 2 W
		ld.cpu = append(ld.cpu, ld.cpu[len(ld.cpu)-1]+0.01)
		ld.joules = append(ld.joules, ld.joules[len(ld.joules)-1]+0.02)
	}
	l := align.NewLag(100*ms, 300*ms)
	var before align.LagState
	run(rng, l, ld, 100*ms, 100*ms, 200*ms, constant(450*ms), func(edge time.Duration) {
		if edge < time.Duration(n)*fine+2*time.Minute {
			before = l.State()
		}
	})
	s := l.State()
	if s.Lag != before.Lag || (s.Lag-450*ms).Abs() > 20*ms || s.Accepted != before.Accepted || s.Refused < before.Refused+30 {
		t.Errorf("before %+v, after %+v", before, s)
	}
	if s.StdDev < before.StdDev+20*ms || s.StdDev > 100*ms || s.Peak > 0.4 {
		t.Errorf("before %+v, after %+v", before, s)
	}
}

func TestLagStep(t *testing.T) {
	for _, tc := range []struct {
		tick   time.Duration
		regime bool
		within time.Duration // of the step
	}{
		{100 * ms, true, 45 * time.Second}, {100 * ms, false, 200 * time.Second},
		{time.Second, true, 75 * time.Second}, {time.Second, false, 220 * time.Second},
	} {
		var slowest time.Duration
		for seed := range uint64(10) {
			rng := rand.New(rand.NewPCG(seed, 3))
			l := align.NewLag(tc.tick, 300*ms)
			const change = 200 * time.Second
			reached := time.Duration(0)
			told := false
			var before align.LagState
			whole := 1 // steps that may be of any size: the first, and one per change of regime
			lag := func(at time.Duration) time.Duration {
				if at < change {
					return 400 * ms
				}
				return 800 * ms
			}
			run(rng, l, compose(rng, 500*time.Second, 0.5), tc.tick, 100*ms, 200*ms, lag, func(edge time.Duration) {
				if edge >= change && !told {
					told = true
					if tc.regime {
						l.Regime()
						whole++
					}
				}
				s := l.State()
				if (s.Lag-before.Lag).Abs() > 100*ms && s.Accepted > 0 && edge > 2*time.Second {
					whole--
				}
				before = s
				if whole < 0 {
					t.Fatalf("tick %v: a step too far, at %v: %+v", tc.tick, edge, s)
				}
				if (l.State().Lag - 800*ms).Abs() > 100*ms {
					reached = 0
				} else if reached == 0 {
					reached = edge - change
				}
			})
			if reached == 0 || reached > tc.within {
				t.Errorf("tick %v, regime told %v, seed %d: reached after %v: %+v", tc.tick, tc.regime, seed, reached, l.State())
			}
			slowest = max(slowest, reached)
		}
		t.Logf("tick %v, regime told %v: within 100 ms of the new lag after at most %v", tc.tick, tc.regime, slowest)
	}
}

// Edges ascend whatever the lag does, and arrive at it.
func TestLagEdge(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	l := align.NewLag(100*ms, 2*time.Second)
	var last time.Duration
	run(rng, l, compose(rng, 2*time.Minute, 0.5), 100*ms, 100*ms, 200*ms, constant(0), func(edge time.Duration) {
		e := l.Edge(edge)
		if d := e - last; last != 0 && (d < 90*ms || d > 110*ms) {
			t.Fatalf("edges %v and %v", last, e)
		}
		last = e
		if l.State().Accepted == 0 && e != edge+2*time.Second {
			t.Fatalf("%v became %v by a lag that is not yet known", edge, e)
		}
		if edge > 90*time.Second && e-edge > 20*ms {
			t.Fatalf("%v became %v", edge, e)
		}
	})
}

// What is not measured is not correlated: a restart of the meter every 20 s moves nothing.
func TestLagOverGaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 1))
	ld := compose(rng, 5*time.Minute, 0.5)
	l := align.NewLag(100*ms, 300*ms)
	var tl align.Timeline
	for edge := 2 * time.Second; edge < ld.length(); edge += 100 * ms {
		up := edge % (20 * time.Second)
		if up >= 3*time.Second { // three seconds down
			zero := edge - up + 3*time.Second
			j := at(ld.joules, edge-400*ms) - at(ld.joules, zero-400*ms)
			tl.Add(align.Reading{Epoch: uint64(1 + edge/(20*time.Second)), At: edge - zero, Host: edge, Energy: energy.Energy(j * 1e6)})
		}
		l.Tick(&tl, edge, at(ld.cpu, edge))
	}
	s := l.State()
	if (s.Lag-400*ms).Abs() > 10*ms || s.Accepted < 5 || s.Peak < 0.9 {
		t.Errorf("%+v, %+v", s, tl.Count())
	}
}

func BenchmarkTick(b *testing.B) {
	for _, tick := range []time.Duration{50 * ms, 100 * ms, time.Second} {
		b.Run(tick.String(), func(b *testing.B) {
			var tl align.Timeline
			l := align.NewLag(tick, 400*ms)
			var now, next time.Duration
			var e energy.Energy
			step := func(i int) {
				now += tick
				for ; next <= now; next += 100 * ms {
					e += energy.Energy(200_000 + i*7919%100_000)
					tl.Add(align.Reading{Epoch: 1, At: next, Host: next, Energy: e})
				}
				l.Tick(&tl, now, e.Joules())
				tl.Advance(l.Edge(now - 2*time.Second))
			}
			for i := range 200 {
				step(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				step(i)
			}
		})
	}
}

func BenchmarkClock(b *testing.B) {
	var c align.Clock
	rng := rand.New(rand.NewPCG(1, 1))
	var now time.Duration
	b.ReportAllocs()
	for b.Loop() {
		now += 100 * ms
		c.Map(1, now+wifi(rng), now)
	}
}
