package validation

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Recording is a real run of jobs on a board with a meter and per-core CPU time: <run>.power.csv.gz with t_ms, *_W of each power
// rail and cpuN_busy_jiffies (1/100 s), and <run>.invocations.csv with iteration, function, start_ms and end_ms by the same
// clock.
type Recording struct {
	Name  string
	Rails map[string][]float64 // W per sample, by column, such as a15_W
	Busy  [][]float64          // s of busy time per core and sample
	Times []float64            // s since the first sample
	Jobs  []Job
}

// Job is one run of one function. Iteration 0 is a cold one.
type Job struct {
	Iteration  int
	Function   string
	Start, End float64 // s since the first sample
}

const powerSuffix, jobsSuffix = ".power.csv.gz", ".invocations.csv"

// LoadRecordings reads all runs of a folder, by name.
func LoadRecordings(folder fs.FS) ([]*Recording, error) {
	names, err := fs.Glob(folder, "*"+powerSuffix)
	if err != nil {
		return nil, fmt.Errorf("look for recorded runs: %w", err)
	}
	if len(names) == 0 {
		return nil, errors.New("look for recorded runs: there is no file named *" + powerSuffix)
	}
	slices.Sort(names)
	var out []*Recording
	for _, name := range names {
		r, err := loadRecording(folder, strings.TrimSuffix(name, powerSuffix))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func loadRecording(folder fs.FS, name string) (_ *Recording, err error) {
	fault := func(suffix string, err error) error { return fmt.Errorf("read %s%s: %w", name, suffix, err) }
	power, err := folder.Open(name + powerSuffix)
	if err != nil {
		return nil, fault(powerSuffix, err)
	}
	defer power.Close()
	plain, err := gzip.NewReader(power)
	if err != nil {
		return nil, fault(powerSuffix, err)
	}
	r, first, err := parsePower(plain)
	if err != nil {
		return nil, fault(powerSuffix, err)
	}
	jobs, err := folder.Open(name + jobsSuffix)
	if err != nil {
		return nil, fault(jobsSuffix, err)
	}
	defer jobs.Close()
	if r.Jobs, err = parseJobs(jobs, first); err != nil {
		return nil, fault(jobsSuffix, err)
	}
	r.Name = name
	return r, nil
}

// parsePower also returns the time of the first sample, ms.
func parsePower(in io.Reader) (*Recording, float64, error) {
	rows := csv.NewReader(in)
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	r := &Recording{Rails: map[string][]float64{}}
	header = slices.Clone(header)
	core := make([]int, len(header))
	at := -1
	for i, name := range header {
		core[i] = -1
		if name == "t_ms" {
			at = i
		}
		if strings.HasSuffix(name, "_W") {
			r.Rails[name] = nil
		}
		if n, ok := strings.CutSuffix(name, "_busy_jiffies"); ok {
			if name != fmt.Sprintf("cpu%d_busy_jiffies", len(r.Busy)) {
				return nil, 0, fmt.Errorf("column %s_busy_jiffies: expected cpu%d", n, len(r.Busy))
			}
			core[i] = len(r.Busy)
			r.Busy = append(r.Busy, nil)
		}
	}
	if at < 0 || len(r.Rails) == 0 || len(r.Busy) == 0 {
		return nil, 0, errors.New("header: needs t_ms, at least one *_W and one cpuN_busy_jiffies")
	}
	first := 0.0
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		line, _ := rows.FieldPos(0)
		for i, name := range header {
			if _, rail := r.Rails[name]; i != at && core[i] < 0 && !rail {
				continue
			}
			x, err := strconv.ParseFloat(row[i], 64)
			if err != nil || math.IsNaN(x) || math.Abs(x) > 1e15 {
				return nil, 0, fmt.Errorf("line %d, column %s: %q is not a number", line, name, row[i])
			}
			switch {
			case i == at:
				if len(r.Times) == 0 {
					first = x
				}
				t := (x - first) / 1000
				if n := len(r.Times); n > 0 && t <= r.Times[n-1] {
					return nil, 0, fmt.Errorf("line %d: time does not advance", line)
				}
				r.Times = append(r.Times, t)
			case core[i] >= 0:
				b := x / 100
				if n := len(r.Busy[core[i]]); n > 0 && b < r.Busy[core[i]][n-1] {
					return nil, 0, fmt.Errorf("line %d, column %s: the counter decreases", line, name)
				}
				r.Busy[core[i]] = append(r.Busy[core[i]], b)
			default:
				r.Rails[name] = append(r.Rails[name], x)
			}
		}
	}
	if len(r.Times) < 2 {
		return nil, 0, errors.New("fewer than two samples")
	}
	return r, first, nil
}

func parseJobs(in io.Reader, first float64) ([]Job, error) {
	rows := csv.NewReader(in)
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	column := map[string]int{}
	for i, name := range header {
		column[name] = i
	}
	for _, name := range []string{"iteration", "function", "start_ms", "end_ms"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("header: no column %s", name)
		}
	}
	var jobs []Job
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		it, err1 := strconv.Atoi(row[column["iteration"]])
		start, err2 := strconv.ParseInt(row[column["start_ms"]], 10, 64)
		end, err3 := strconv.ParseInt(row[column["end_ms"]], 10, 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		j := Job{it, row[column["function"]], (float64(start) - first) / 1000, (float64(end) - first) / 1000}
		if j.Function == "" || j.End <= j.Start || j.End-j.Start > 3600 {
			return nil, fmt.Errorf("line %d: a job of %q of %g s", line, j.Function, j.End-j.Start)
		}
		jobs = append(jobs, j)
	}
	if len(jobs) == 0 {
		return nil, errors.New("no jobs")
	}
	return jobs, nil
}

// interpolate returns the value at x of the polygon through (xs, ys); beyond the ends that of the end.
func interpolate(x float64, xs, ys []float64) float64 {
	i := sort.Search(len(xs), func(i int) bool { return xs[i] > x })
	switch {
	case i == 0:
		return ys[0]
	case i == len(xs):
		return ys[i-1]
	}
	return ys[i-1] + (x-xs[i-1])/(xs[i]-xs[i-1])*(ys[i]-ys[i-1])
}

// power returns the sum of some rails, W, and its integral since the first sample, J; of all rails if none is named.
func (r *Recording) power(rails ...string) (watts, joules []float64) {
	if len(rails) == 0 {
		for name := range r.Rails {
			rails = append(rails, name)
		}
		slices.Sort(rails) // sums depend on the order
	}
	watts, joules = make([]float64, len(r.Times)), make([]float64, len(r.Times))
	for k := range watts {
		for _, name := range rails {
			if w := r.Rails[name]; k < len(w) {
				watts[k] += w[k]
			}
		}
		if k > 0 {
			joules[k] = joules[k-1] + (watts[k]+watts[k-1])/2*(r.Times[k]-r.Times[k-1])
		}
	}
	return watts, joules
}

// busy returns the CPU time of all cores that want accepts, s.
func (r *Recording) busy(want func(core int) bool) []float64 {
	out := make([]float64, len(r.Times))
	for core, b := range r.Busy {
		if want(core) {
			for k := range out {
				out[k] += b[k]
			}
		}
	}
	return out
}

// Lag returns by how much the power is late against CPU time, s, and the correlation there: that of 0.4 s differences of both
// over 0.2 s, largest between -0.6 and 1.2 s, refined by a parabola. Differences, since both drift.
func (r *Recording) Lag() (lag, correlation float64) {
	const width, grid, difference, step = 0.2, 0.05, 8, 0.04
	_, joules := r.power()
	cpu := r.busy(func(int) bool { return true })
	n := int((r.Times[len(r.Times)-1] - 6) / grid)
	if n <= difference+1 {
		return 0, 0
	}
	rate := func(offset float64, total []float64) []float64 {
		out := make([]float64, n)
		for k := range out {
			x := 3 + float64(k)*grid + offset
			out[k] = (interpolate(x+width, r.Times, total) - interpolate(x, r.Times, total)) / width
		}
		for k := range n - difference {
			out[k] = out[k+difference] - out[k]
		}
		return out[:n-difference]
	}
	c := rate(0, cpu)
	var at []float64
	best := 0
	for i := range 46 {
		at = append(at, correlate(c, rate(-0.6+step*float64(i), joules)))
		if at[i] > at[best] {
			best = i
		}
	}
	lag = -0.6 + step*float64(best)
	if best > 0 && best < len(at)-1 {
		if bend := at[best-1] - 2*at[best] + at[best+1]; bend < 0 {
			lag += step * 0.5 * (at[best-1] - at[best+1]) / bend
		}
	}
	return lag, at[best]
}

func correlate(a, b []float64) float64 {
	ma, mb := mean(a), mean(b)
	var ab, aa, bb float64
	for k := range a {
		x, y := a[k]-ma, b[k]-mb
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(max(1, len(v)))
}
