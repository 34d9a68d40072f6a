package attribution

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// dense is the same filter as a textbook writes it: whole matrices, one gain, Joseph's form.
type dense struct {
	x []float64
	p [][]float64
}

func (d *dense) dot(h []float64, i int) (s float64) {
	for j, v := range h {
		s += d.p[i][j] * v
	}
	return s
}

// transform is x ← F x, P ← F P Fᵀ + Q.
func (d *dense) transform(f, q [][]float64) {
	n := len(d.x)
	x, fp, p := make([]float64, n), matrix(n), matrix(n)
	for i := range n {
		for j := range n {
			x[i] += f[i][j] * d.x[j]
			for k := range n {
				fp[i][j] += f[i][k] * d.p[k][j]
			}
		}
	}
	for i := range n {
		for j := range n {
			p[i][j] = q[i][j]
			for k := range n {
				p[i][j] += fp[i][k] * f[j][k]
			}
		}
	}
	d.x, d.p = x, p
}

// update is Joseph's form for z = h x with exact observation; the noise is part of the state's totals.
func (d *dense) update(h []float64, z, r float64) {
	n := len(d.x)
	s, nu := r, z
	gain := make([]float64, n)
	for i, v := range h {
		gain[i] = d.dot(h, i)
		s += v * gain[i]
		nu -= v * d.x[i]
	}
	a := matrix(n)
	for i := range n {
		gain[i] /= s
		d.x[i] += gain[i] * nu
		for j := range n {
			a[i][j] = -gain[i] * h[j]
		}
		a[i][i]++
	}
	q := matrix(n)
	for i := range n {
		for j := range n {
			q[i][j] = gain[i] * r * gain[j]
		}
	}
	x := d.x
	d.transform(a, q)
	d.x = x
}

func matrix(n int) [][]float64 {
	m := make([][]float64, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	return m
}

// random returns a load of a third to all of a step.
func random(r *rand.Rand, classes int, dt float64) (l load) {
	for q := range classes {
		l.cpu[q] = dt * (0.2 + r.Float64())
		l.total += l.cpu[q]
	}
	l.active, l.knee, l.smear = dt*float64(1+r.IntN(3)), min(l.total, dt), 0.3*dt*(r.Float64()-0.5)
	return l
}

// step makes the filter see loads by place, and returns what it found.
func (f *filter) step(o *observation, loads map[int]*load, measured, dt float64) innovation {
	o.h = make([]float64, f.iFirst())
	o.loads, o.single, o.noise, o.mean = nil, 0, f.meter*dt, f.x[iBase]*dt
	for _, at := range sorted(loads) {
		l := loads[at]
		for q := range f.classes {
			o.h[iKappa+q] += l.cpu[q]
		}
		o.h[f.iActive()] += l.active
		o.h[f.iConcave()] += l.knee
		o.h[f.iSmear()] += l.smear
		noise := f.fluctuation(f.expected(l, f.x[at+offDeviation], f.x[at+offActive]))
		o.loads = append(o.loads, placed{at, l, noise})
		o.noise += noise
		o.mean += f.common(l) + f.x[at+offDeviation]*l.total + f.x[at+offActive]*l.active
	}
	for _, p := range o.loads {
		f.integrate(p.at, p.load, p.noise)
	}
	return f.update(o, measured, dt)
}

func sorted(m map[int]*load) (keys []int) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestFilterIsKalmans: on small random systems the filter's state and covariance are those of a dense filter.
func TestFilterIsKalmans(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			classes, principals := 1+r.IntN(3), 1+r.IntN(4)
			f := newFilter(classes, 2, 0.36, 1, 0.64, 0.02)
			f.x[f.iSmear()] = 0.5 // far from its bounds
			f.grow(f.place(principals))
			for i := range principals {
				f.clear(f.place(i), [perPrincipal]float64{}, [perPrincipal]float64{0.25, 0.0625, 0, 0})
			}
			d := &dense{slices.Clone(f.x[:f.n]), matrix(f.n)}
			for i := range f.n {
				copy(d.p[i], f.p[i*f.stride:i*f.stride+f.n])
			}
			n, o := f.n, new(observation)
			for k := range 60 {
				dt := 0.2 + r.Float64()
				loads, truth := map[int]*load{}, 2*dt
				for i := range principals {
					if r.IntN(2) == 0 {
						l := random(r, classes, dt)
						loads[f.place(i)] = &l
						truth += l.total * (0.7 + 0.3*float64(i))
					}
				}
				measured := truth + 0.05*r.NormFloat64()

				// Dense: the walk, the reversion, then the integration as a transition with its noise, then the measurement, of which
				// the fluctuation is in the totals: z = h·x + Σ (increase of the totals) - what the coefficients make of it.
				a, q := matrix(n), matrix(n)
				for i := range n {
					a[i][i] = 1
				}
				q[0][0] = 1e-6 * dt
				for c := range classes {
					q[1+c][1+c] = 25e-8 * d.x[1+c] * d.x[1+c] * dt
				}
				q[classes+3][classes+3], q[classes+4][classes+4] = 9e-8*dt, 9e-8*dt
				d.transform(a, q)
				f.predict(dt)
				for _, at := range sorted(loads) {
					a, q := matrix(n), matrix(n)
					for i := range n {
						a[i][i] = 1
					}
					e := math.Exp(-dt / 1800)
					mean := 0.0
					for c := range classes {
						mean += d.x[1+c] / float64(classes)
					}
					a[at][at], a[at+1][at+1] = e, e
					q[at][at], q[at+1][at+1] = (1-e*e)*sq(0.5*mean), (1-e*e)*sq(0.25*mean)
					d.transform(a, q)
					f.revert(at, dt, spreadFunction)
				}
				// w of each principal becomes a state variable of this step, so that Joseph's form applies as it stands.
				wide := &dense{make([]float64, n+principals), matrix(n + principals)}
				copy(wide.x, d.x)
				for i := range n {
					copy(wide.p[i], d.p[i])
				}
				h := make([]float64, n+principals)
				h[0] = dt
				g := matrix(n + principals)
				for i := range g {
					g[i][i] = 1
				}
				for i := range principals {
					at := f.place(i)
					l := loads[at]
					if l == nil {
						continue
					}
					row := make([]float64, n+principals)
					copy(row[1:], l.cpu[:classes])
					row[1+classes], row[2+classes], row[4+classes] = l.active, l.knee, l.smear
					row[at], row[at+1], row[n+i] = l.total, l.active, 1
					e, kappa := 0.0, 0.0
					for j := range n {
						e += row[j] * d.x[j]
						h[j] += row[j]
						g[at+2][j] += row[j]
						g[at+3][j] += row[j]
					}
					h[n+i], g[at+2][n+i], g[at+3][n+i] = 1, 1, 1
					for c := range classes {
						kappa += d.x[1+c] / float64(classes)
					}
					wide.p[n+i][n+i] = 0.64 * max(e, 0.02*kappa*l.total) * kappa * 0.1
				}
				// The measurement is of the coefficients and w; the totals follow by the same map.
				nu, s := measured, 0.0004*dt
				for i, v := range h {
					nu -= v * wide.x[i]
					s += v * wide.dot(h, i)
				}
				noise := 0.0004 * dt
				if z := math.Abs(nu) / math.Sqrt(s); z > huber {
					noise += s * (z/huber - 1)
				}
				wide.update(h, measured, noise)
				wide.transform(g, matrix(n+principals))
				d.x = slices.Clone(wide.x[:n])
				for i := range n {
					copy(d.p[i], wide.p[i][:n])
				}

				f.step(o, loads, measured, dt)
				for i := range n {
					if math.Abs(f.x[i]-d.x[i]) > 1e-9*(1+math.Abs(d.x[i])) {
						t.Fatalf("step %d: x[%d] is %.12g, want %.12g", k, i, f.x[i], d.x[i])
					}
					for j := range n {
						if got := f.p[i*f.stride+j]; math.Abs(got-d.p[i][j]) > 1e-9*(1+math.Abs(d.p[i][j])) {
							t.Fatalf("step %d: P[%d,%d] is %.12g, want %.12g", k, i, j, got, d.p[i][j])
						}
					}
				}
			}
		})
	}
}

// TestTotalsAreSmoothed works out in one piece what the augmented state claims: the energy of each of two functions in the light of all data,
// by conditioning the joint Gaussian of (b, κ, d₁, d₂, w of each step and function) on all measurements at once.
func TestTotalsAreSmoothed(t *testing.T) {
	const steps, dt, meter = 12, 1.0, 0.02
	r := rand.New(rand.NewPCG(3, 4))
	f := newFilter(1, 2, 0.25, 1, 0.64, meter)
	f.set(f.iActive(), 0)
	f.set(f.iConcave(), 0)
	f.set(f.iLag(), 0)
	f.grow(f.place(2))
	one, two := f.place(0), f.place(1)
	for _, at := range [...]int{one, two} {
		f.clear(at, [perPrincipal]float64{}, [perPrincipal]float64{0.25, 0, 0, 0})
	}
	// The batch: variables b, κ, d₁, d₂, then w₁, w₂ of each step; mean and diagonal prior.
	const n = 4 + 2*steps
	mean, prior := make([]float64, n), make([]float64, n)
	mean[0], mean[1] = 2, 1
	prior[0], prior[1], prior[2], prior[3] = 0.25, 0.64, 0.25, 0.25
	cov := matrix(n)
	for i := range 4 {
		cov[i][i] = prior[i]
	}
	h, z := matrix(steps), make([]float64, steps)
	var sum [2][]float64 // what maps the variables to each function's energy
	sum[0], sum[1] = make([]float64, n), make([]float64, n)
	o := new(observation)
	for k := range steps {
		c1, c2 := 0.9*r.Float64(), 0.9*r.Float64()
		if k%3 == 0 {
			c2 = 0
		}
		z[k] = 2.1*dt + 1.4*c1 + 0.6*c2 + 0.03*r.NormFloat64()
		loads := map[int]*load{one: {cpu: [MaxClasses]float64{c1}, total: c1}}
		if c2 > 0 {
			loads[two] = &load{cpu: [MaxClasses]float64{c2}, total: c2}
		}
		in := f.step(o, loads, z[k], dt)
		if math.Abs(in.nu) > huber*math.Sqrt(in.variance) {
			t.Fatal("an outlier, which no batch knows")
		}
		h[k] = make([]float64, n)
		h[k][0], h[k][1], h[k][2], h[k][3] = dt, c1+c2, c1, c2
		for i, l := range o.loads {
			w := 4 + 2*k + i // of the first and, where it ran, the second
			cov[w][w], h[k][w] = l.noise, 1
			sum[i][1] += l.load.total
			sum[i][2+i] += l.load.total
			sum[i][w] = 1
		}
	}
	// Condition: G = C Hᵀ (H C Hᵀ + R)⁻¹, solved by Gauss and Jordan.
	s := make([][]float64, steps)
	for i := range s {
		s[i] = make([]float64, 2*steps)
		for j := range steps {
			for v := range n {
				s[i][j] += h[i][v] * cov[v][v] * h[j][v]
			}
		}
		s[i][i] += meter * meter * dt
		s[i][steps+i] = 1
	}
	for i := range s {
		pivot := s[i][i]
		for j := range s[i] {
			s[i][j] /= pivot
		}
		for k := range s {
			if factor := s[k][i]; k != i {
				for j := range s[k] {
					s[k][j] -= factor * s[i][j]
				}
			}
		}
	}
	gain := func(a []float64, k int) (g float64) { // a C Hᵀ S⁻¹
		for j := range steps {
			for v := range n {
				g += a[v] * cov[v][v] * h[j][v] * s[j][steps+k]
			}
		}
		return g
	}
	for i, at := range [...]int{one, two} {
		energy, variance := 0.0, 0.0
		for v := range n {
			energy += sum[i][v] * mean[v]
			variance += sum[i][v] * sum[i][v] * cov[v][v]
		}
		for k := range steps {
			nu, c := z[k], 0.0
			for v := range n {
				nu -= h[k][v] * mean[v]
				c += sum[i][v] * cov[v][v] * h[k][v]
			}
			energy += gain(sum[i], k) * nu
			variance -= gain(sum[i], k) * c
		}
		if got := f.x[at+offTotal]; math.Abs(got-energy) > 1e-9 {
			t.Errorf("energy %d is %.12g J, all data at once say %.12g", i, got, energy)
		}
		if got := f.variance(at + offTotal); math.Abs(got-variance) > 1e-9 {
			t.Errorf("its variance is %.12g J², all data at once say %.12g", got, variance)
		}
	}
}

// checkCovariance fails unless P is finite, symmetric and, but for rounding, positive semi-definite.
func checkCovariance(t testing.TB, f *filter) {
	t.Helper()
	n := f.n
	scale := make([]float64, n)
	for i := range n {
		v := f.variance(i)
		if !(v > -1e-9) || math.IsInf(v, 0) {
			t.Fatalf("variance %d is %v", i, v)
		}
		scale[i] = 1 / math.Sqrt(max(v, 1e-9))
	}
	// Cholesky of the correlations, with 1e-6 on the diagonal for singular directions.
	l := matrix(n)
	for i := range n {
		for j := range i + 1 {
			if a, b := f.p[i*f.stride+j], f.p[j*f.stride+i]; math.Abs(a-b)*scale[i]*scale[j] > 1e-9 {
				t.Fatalf("P[%d,%d] is %v and P[%d,%d] %v", i, j, a, j, i, b)
			}
			v := f.p[i*f.stride+j] * scale[i] * scale[j]
			if i == j {
				v += 1e-6
			}
			for k := range j {
				v -= l[i][k] * l[j][k]
			}
			if i > j {
				l[i][j] = v / l[j][j]
				continue
			}
			if !(v > 0) {
				t.Fatalf("P is not positive semi-definite: pivot %d of %d is %v", i, n, v)
			}
			l[i][i] = math.Sqrt(v)
		}
	}
}

// TestCovarianceStaysOne through 100,000 steps of what moves it: learning, reports, posts, outliers, changes and regimes.
func TestCovarianceStaysOne(t *testing.T) {
	t.Parallel()
	const principals = 8
	r := rand.New(rand.NewPCG(5, 6))
	f := newFilter(2, 2, 0.36, 1, 0.64, 0.01)
	f.grow(f.place(principals))
	for i := range principals {
		f.clear(f.place(i), [perPrincipal]float64{}, [perPrincipal]float64{0.25, 0.0625, 0, 0})
	}
	o, set := new(observation), regimes{known: map[string]regime{}}
	for k := range 100_000 {
		dt := 0.2
		loads, truth := map[int]*load{}, 2*dt
		for i := range principals {
			if r.IntN(4) == 0 {
				l := random(r, 2, dt)
				loads[f.place(i)] = &l
				truth += l.total * (0.7 + 0.1*float64(i))
			}
		}
		if r.IntN(1000) == 0 {
			truth *= 1000 * r.NormFloat64()
		}
		f.predict(dt)
		for _, at := range sorted(loads) {
			f.revert(at, dt, spreadFunction)
		}
		f.step(o, loads, truth*(1+0.05*r.NormFloat64()), dt)
		if k%50 == 0 {
			for i := range principals {
				f.x[f.place(i)+offPeriod] = 0
				f.decouple(f.place(i) + offPeriod)
			}
		}
		switch r.IntN(5000) {
		case 0:
			f.inflate(10 * r.NormFloat64())
		case 1:
			set.enter(f, string(rune('a'+r.IntN(3))))
		}
		if k%1000 == 0 {
			checkCovariance(t, f)
		}
	}
	checkCovariance(t, f)
}
