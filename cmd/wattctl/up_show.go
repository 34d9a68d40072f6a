package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/exporter"
)

// display shows the agents' snapshots.
type display struct {
	*app
	client  http.Client
	sim     simulatedMeter
	boards  []*board
	keyFile string
	hub     string // its URL
	tty     bool
	drawn   bool
	// first and last are the instants that summary compares; why says why there was none at the last look.
	first, last []instant
	why         error
}

// instant is what an agent said at some time, with the truth of the time up to which its accounts were.
type instant struct {
	*exporter.SnapshotView
	exporter.NodeView
	truth truth
	known bool // whether truth is
}

const (
	// patience is how long the agents may give no figures.
	patience = 20 * time.Second
	// settled is how long a table that is shown once waits for figures of every node's functions.
	settled = 20 * time.Second
)

// run asks the agents, and shows what is new, until it is interrupted, or has shown figures for so long if that is not 0; then a
// last time.
func (d *display) run(ctx context.Context, interrupt <-chan struct{}, long time.Duration) error {
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	var end, enough <-chan time.Time
	for heard := time.Now(); ; {
		now, err := d.fetch(ctx)
		d.why = err
		switch {
		case err == nil:
			heard, d.last = time.Now(), now
			if d.first == nil {
				d.first, enough = now, time.After(settled)
				if long > 0 {
					end = time.After(long)
				}
				poll.Reset(time.Second) // what is newer nobody could read
			}
			for i := range now {
				if !d.first[i].known {
					d.first[i] = now[i]
				}
			}
			if d.tty || !d.drawn && !slices.ContainsFunc(now, func(i instant) bool { return !i.split() }) {
				d.draw()
			}
		case time.Since(heard) > patience:
			return fmt.Errorf("the agents give no figures: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			continue
		case <-enough:
			if !d.drawn {
				d.draw()
			}
			continue
		case <-interrupt:
		case <-end:
		}
		if now, err := d.fetch(ctx); err == nil && d.first != nil { // else the ones before have to do
			d.last = now
		}
		if d.last != nil && (d.tty || !d.drawn) {
			d.draw()
		}
		return nil
	}
}

// split says whether there are figures of every function that was invoked.
func (i *instant) split() bool {
	return i.Attribution != nil && slices.ContainsFunc(i.Attribution.Functions, func(f exporter.FunctionView) bool {
		return f.PerInvocation != nil && f.EnergyUJ > 0
	})
}

// fetch returns snapshots in which every board has a reading.
func (d *display) fetch(ctx context.Context) ([]instant, error) {
	now := make([]instant, 0, len(d.boards))
	for _, b := range d.boards {
		v, err := d.ask(ctx, b)
		if err != nil {
			return nil, err
		}
		i := instant{SnapshotView: v, NodeView: v.Nodes[0]}
		if drawn, ok := d.drawnAt(b, &i); ok && i.Attribution != nil {
			// What was measured and is in no account yet was drawn last.
			i.truth, i.known = b.truthWhen(drawn - joules(*i.MeasuredUJ-*i.EnergyUJ))
		}
		now = append(now, i)
	}
	return now, nil
}

// drawnAt returns what the board had truly drawn, in joules, when the last reading was taken.
func (d *display) drawnAt(b *board, i *instant) (float64, bool) {
	e, ok := d.sim.TruthAt(b.channel, uint32(i.SourceEpoch), uint64(i.SourceAtUs))
	return e.Joules(), ok
}

// ask returns a snapshot in which the board has a reading.
func (d *display) ask(ctx context.Context, b *board) (*exporter.SnapshotView, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/api/v1/snapshot", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	v := new(exporter.SnapshotView)
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL, err)
	}
	if len(v.Nodes) != 1 || v.Nodes[0].Node != b.name || len(v.Meters) != 1 {
		return nil, fmt.Errorf("%s: that is not our agent", req.URL)
	}
	if n := v.Nodes[0]; n.PowerUW == nil || n.VoltageUV == nil || n.EnergyUJ == nil || n.MeasuredUJ == nil {
		return nil, fmt.Errorf("no reading of %s: %s", b.name, cmp.Or(v.Meters[0].Error, "the meter has not answered yet"))
	}
	return v, nil
}

// draw prints the last snapshots, in place on a terminal.
func (d *display) draw() {
	var head, tail strings.Builder
	fmt.Fprintf(&head, "%s on one meter (CoAP over DTLS, 500 sweeps a second), each measured by a real agent.\n%s\n\n",
		plural(len(d.boards), "simulated board"), capital(dashboardAt(d.hub)))
	d.nodes().write(&head)
	d.parts(&tail)
	reports, lost, restarts := uint64(0), uint64(0), uint64(0)
	for _, i := range d.last {
		m := i.Meters[0]
		reports, lost, restarts = reports+m.Notifications, lost+m.Lost, restarts+m.Restarts
	}
	fmt.Fprintf(&tail, "meter %s: %d reports, %d lost, %d restarts\n\n", d.last[0].Meters[0].Identity, reports, lost, restarts)
	pages := &grid{left: "lll"}
	for _, b := range d.boards {
		pages.add("  "+b.name, b.url, b.url+"/metrics")
	}
	pages.write(&tail)
	fmt.Fprintf(&tail, "  wattctl meter read %s --psk-file=%s\n\nCtrl-C ends it.\n", d.sim.URL(), shellWord(d.keyFile))

	height := math.MaxInt
	if _, h, ok := size(d.stdout); d.tty && ok {
		height = h - strings.Count(head.String()+tail.String(), "\n") - 3
	}
	head.WriteByte('\n')
	d.functions(max(height, 3)).write(&head)
	head.WriteByte('\n')
	text := head.String() + tail.String()
	if d.tty {
		text = frame(text, !d.drawn)
	}
	d.drawn = true
	fmt.Fprint(d.stdout, text)
}

// capital begins a sentence.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// nodes is the table of the boards.
func (d *display) nodes() *grid {
	t := &grid{left: "l....l"}
	t.add("NODE", "POWER", "VOLTAGE", "ENERGY", "IDLE (MODEL)", "OPERATING POINT")
	for i, b := range d.boards {
		n := &d.last[i]
		base := none
		if n.Attribution != nil && n.Attribution.Model.BaseW > 0 {
			base = fmt.Sprintf("%.3f ± %.3f W", n.Attribution.Model.BaseW, confidence*n.Attribution.Model.BaseStdDevW)
		}
		t.add(b.name, fmt.Sprintf("%.3f W", joules(*n.PowerUW)), fmt.Sprintf("%.3f V", joules(*n.VoltageUV)),
			fmt.Sprintf("%.2f J", joules(*n.MeasuredUJ)), base, operatingPoint(b.Snapshot().Policies))
	}
	return t
}

// operatingPoint says how fast a board's cores run.
func operatingPoint(policies []boardsim.Policy) string {
	var parts []string
	for _, p := range policies {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %.2f GHz", p.Class, float64(p.KHz)/1e6)))
	}
	return strings.Join(parts, ", ") + ", " + policies[0].Governor
}

// functions is the table of the functions, those that used most if there are more than rows, heading and all.
func (d *display) functions(rows int) *grid {
	type row struct {
		energy int64
		cells  []string
	}
	var list []row
	for i, b := range d.boards {
		if d.last[i].Attribution == nil {
			continue
		}
		for _, f := range d.last[i].Attribution.Functions {
			mean, half := none, none
			if p := f.PerInvocation; p != nil {
				mean = fmt.Sprintf("%.4f J", p.Mean)
				if p.Low95 != nil && p.High95 != nil {
					half = fmt.Sprintf("%.4f J", (*p.High95-*p.Low95)/2)
				}
			}
			each, notes := none, none
			if f.ColdStarts > 0 {
				each = fmt.Sprintf("%.2f J", joules(f.ColdStartUJ)/float64(f.ColdStarts))
			}
			switch {
			case f.Collinear:
				notes = "collinear"
			case f.PriorDominated:
				notes = "mostly assumed"
			}
			list = append(list, row{f.EnergyUJ + f.ColdStartUJ, []string{
				b.name, f.Function, fmt.Sprintf("%.2f J", joules(f.EnergyUJ)), mean, half, fmt.Sprintf("%.0f", f.Invocations),
				fmt.Sprint(f.ColdStarts), each, notes,
			}})
		}
	}
	t := &grid{left: "ll......l"}
	t.add("NODE", "FUNCTION", "ENERGY", "J/INVOCATION", "± 95 %", "INVOCATIONS", "COLD STARTS", "EACH", "NOTE")
	least := int64(-1)
	rows-- // the heading
	if len(list) > rows {
		rows-- // the line that says so
		sorted := slices.SortedFunc(slices.Values(list), func(x, y row) int { return cmp.Compare(y.energy, x.energy) })
		least = sorted[rows].energy
	}
	left := 0
	for _, r := range list {
		if r.energy <= least {
			left++
			continue
		}
		t.add(r.cells...)
	}
	switch {
	case left > 0:
		t.foot = fmt.Sprintf("and %d that used less; a higher terminal shows them\n", left)
	case len(list) == 0:
		t.foot = "not yet\n"
	}
	return t
}

// parts says what the energies add up to.
func (d *display) parts(b *strings.Builder) {
	var base, functions, others, nodes, pending, off int64
	for _, n := range d.last {
		a := n.Attribution
		if a == nil {
			continue
		}
		rest := *n.EnergyUJ - a.BaseUJ - a.DepartedUJ
		base, others = base+a.BaseUJ, others+a.DepartedUJ
		for _, w := range a.Workloads {
			if e := w.EnergyUJ + w.ColdStartUJ; w.Kind == "function" {
				functions += e
			} else {
				others += e
			}
			rest -= w.EnergyUJ + w.ColdStartUJ
		}
		nodes, pending, off = nodes+*n.EnergyUJ, pending+*n.MeasuredUJ-*n.EnergyUJ, max(off, rest, -rest)
	}
	fmt.Fprintf(b, "Σ parts = node: idle %.2f J + functions %.2f J + other workloads %.2f J = %.2f J, off by %d µJ\n"+
		"%.2f J more are measured and not split yet\n",
		joules(base), joules(functions), joules(others), joules(nodes), off, joules(pending))
}

// summary compares what was measured with what was drawn, and how it was split with where it went.
func (d *display) summary() error {
	compared := d.first != nil
	for i := range d.first {
		compared = compared && d.first[i].SourceAtUs != d.last[i].SourceAtUs
	}
	if !compared {
		if d.why != nil {
			return fmt.Errorf("ended before the agents had two readings to compare: %w", d.why)
		}
		return errors.New("ended before the agents had two readings to compare")
	}
	long := d.last[0].Time.Sub(d.first[0].Time).Round(time.Second / 10)
	fmt.Fprintf(d.stdout, "\nIn %v the agents measured, and the boards truly drew, between the same instants of the meter's clock:\n\n", long)
	t := &grid{left: "l"}
	t.add("NODE", "MEASURED", "DRAWN", "ERROR")
	for i, b := range d.boards {
		from, ok1 := d.drawnAt(b, &d.first[i])
		to, ok2 := d.drawnAt(b, &d.last[i])
		if !ok1 || !ok2 || d.first[i].SourceEpoch != d.last[i].SourceEpoch {
			t.add(b.name, none, none, none)
			continue
		}
		measured := joules(*d.last[i].MeasuredUJ - *d.first[i].MeasuredUJ)
		t.add(b.name, fmt.Sprintf("%.3f J", measured), fmt.Sprintf("%.3f J", to-from), percent(measured, to-from))
	}
	var b strings.Builder
	t.write(&b)
	d.compareFunctions(&b)
	_, err := fmt.Fprint(d.stdout, b.String())
	return err
}

// telling is the energy, in joules, from which on an error in percent says something.
const telling = 1.0

// compareFunctions compares what functions were given with what they used.
func (d *display) compareFunctions(b *strings.Builder) {
	t := &grid{left: "ll"}
	t.add("NODE", "FUNCTION", "ATTRIBUTED", "± 95 %", "TRUE", "ERROR", "J/INVOCATION", "TRUE")
	var errs []float64
	within, all := 0, 0
	var cold, trueCold float64
	for i, bd := range d.boards {
		first, last := &d.first[i], &d.last[i]
		if !first.known || !last.known {
			continue
		}
		for j, to := range last.truth.functions {
			same := func(f exporter.FunctionView) bool { return f.Namespace == to.Namespace && f.Function == to.Function }
			var given, half float64
			var starts int64
			mean, trueMean := none, none
			if k := slices.IndexFunc(last.Attribution.Functions, same); k >= 0 {
				f := last.Attribution.Functions[k]
				given, half, starts = joules(f.EnergyUJ), confidence*joules(f.StdDevUJ), f.ColdStartUJ
				if f.PerInvocation != nil {
					mean = fmt.Sprintf("%.4f J", f.PerInvocation.Mean)
				}
			}
			if k := slices.IndexFunc(first.Attribution.Functions, same); k >= 0 {
				f := first.Attribution.Functions[k]
				given -= joules(f.EnergyUJ)
				starts -= f.ColdStartUJ
			}
			from := first.truth.functions[j]
			used := to.Energy - from.Energy
			cold, trueCold = cold+joules(starts), trueCold+to.ColdStart-from.ColdStart
			if n := to.Invocations - from.Invocations; n > 0 {
				trueMean = fmt.Sprintf("%.4f J", used/float64(n))
			}
			off := none
			if used >= telling {
				off = percent(given, used)
				errs = append(errs, math.Abs(given/used-1))
			}
			if used > 0 {
				all++
				if math.Abs(given-used) <= half {
					within++
				}
			}
			t.add(bd.name, to.Function, fmt.Sprintf("%.3f J", given), fmt.Sprintf("%.3f J", half), fmt.Sprintf("%.3f J", used), off, mean, trueMean)
		}
	}
	if len(t.rows) == 1 {
		b.WriteString("\nIt ended before the accounts of functions had anything in them.\n")
		return
	}
	b.WriteString("\nTo functions they attributed, and the functions truly used, up to the instant that the accounts have come to,\n" +
		"which is some seconds ago:\n\n")
	t.write(b)
	fmt.Fprintf(b, "\nTheir cold starts: %.3f J, truly %.3f J.\n", cold, trueCold)
	if all > 0 {
		fmt.Fprintf(b, "The true energy is within the interval of %d of the %s that ran.\n", within, plural(all, "function"))
	}
	if slices.Sort(errs); len(errs) > 0 {
		fmt.Fprintf(b, "Median error of the %s that used %.0f J or more: %.1f %%\n", plural(len(errs), "function"), telling, 100*errs[len(errs)/2])
	}
}

// percent says by how much is differs from what it should be.
func percent(is, should float64) string {
	if should <= 0 {
		return none
	}
	return fmt.Sprintf("%+.2f %%", 100*(is/should-1))
}
