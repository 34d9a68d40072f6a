package exporter

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/energy"
)

// page is the agent's own page: the newest snapshot as a table, and where the rest is. Plain strings, since html/template would
// cost a fifth of the binary (docs/adr/0005-small-agent.md).
func page(s *accounting.Snapshot, version string) string {
	var b strings.Builder
	b.WriteString(pageHead)
	b.WriteString("<table><tr><th>Node<th>Power<th>Voltage<th>Current<th>Energy<th>Unmeasured<th>Meter</tr>\n")
	for _, n := range s.Nodes {
		power, voltage, current, total, unmeasured := "–", "–", "–", "–", "–"
		if n.Fresh {
			power = n.Power.String()
		}
		if n.Fresh && !n.EnergyOnly {
			current = n.Current.String()
		}
		if n.Fresh && !n.EnergyOnly && !n.Estimated {
			voltage = n.Voltage.String()
		}
		if n.Known {
			total, unmeasured = n.Energy.String(), n.Unmeasured.Round(time.Millisecond).String()
		}
		fmt.Fprintf(&b, "<tr><td>%s<td>%s<td>%s<td>%s<td>%s<td>%s<td>%s channel %d</tr>\n", html.EscapeString(n.Name),
			power, voltage, current, total, unmeasured, html.EscapeString(n.Meter), n.Channel)
	}
	b.WriteString("</table>\n")
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Known && n.Attribution != nil {
			writeSplit(&b, n)
		}
	}
	for _, m := range s.Meters {
		if !m.Up {
			fmt.Fprintf(&b, "<p class=down>Meter %s is down: %s</p>\n", html.EscapeString(m.Name), html.EscapeString(m.Err))
		}
	}
	fmt.Fprintf(&b, pageFoot, html.EscapeString(version))
	return b.String()
}

// writeSplit writes how a node's energy was split: functions, then all accounts of energy.
func writeSplit(b *strings.Builder, n *accounting.Node) {
	a := n.Attribution
	if len(a.Functions) > 0 {
		fmt.Fprintf(b, "<h2>Functions on %s</h2>\n<table><tr><th>Function<th>Energy<th>± 95 %%<th>Invocations<th>J per invocation<th>95 %%"+
			"<th>Cold starts<th>Note</tr>\n", html.EscapeString(n.Name))
		for i := range a.Functions {
			f := &a.Functions[i]
			mean, interval, note := "–", "–", ""
			if f.Measured {
				mean = fmt.Sprintf("%.3f", f.Mean)
			}
			if f.Interval {
				interval = fmt.Sprintf("%.3f to %.3f", f.Low, f.High)
			}
			switch {
			case f.Collinear:
				note = "always starts with another"
			case f.PriorDominated:
				note = "little data yet"
			}
			fmt.Fprintf(b, "<tr><td>%s<td>%s<td>%s<td>%.0f<td>%s<td>%s<td>%d, %s<td>%s</tr>\n", html.EscapeString(slashed(f.Namespace, f.Name)),
				joules(f.Energy), joules(energy.Energy(1.96e6*f.StdDev)), f.Invocations, mean, interval, f.ColdStarts, joules(f.ColdStart), note)
		}
		b.WriteString("</table>\n")
	}
	fmt.Fprintf(b, "<h2>Where the energy of %s went</h2>\n<table><tr><th>Account<th>Kind<th>Energy<th>± 95 %%<th>Share</tr>\n", html.EscapeString(n.Name))
	row := func(name, kind string, e energy.Energy, stdDev float64) {
		deviation := "–"
		if stdDev > 0 {
			deviation = joules(energy.Energy(1.96e6 * stdDev))
		}
		fmt.Fprintf(b, "<tr><td>%s<td>%s<td>%s<td>%s<td>%.1f %%</tr>\n", html.EscapeString(name), kind, joules(e), deviation,
			100*e.Joules()/max(n.Energy.Joules(), 1e-6))
	}
	row("base", "idle board", a.Base, 0)
	rows := slices.SortedFunc(slices.Values(a.Workloads), func(x, y accounting.WorkloadEnergy) int {
		return cmp.Compare(y.Energy+y.ColdStart, x.Energy+x.ColdStart)
	})
	var rest energy.Energy
	for i := range rows {
		w := &rows[i]
		if w.Energy+w.ColdStart == 0 {
			continue
		}
		if i >= pageRows {
			rest += w.Energy + w.ColdStart
			continue
		}
		row(slashed(w.Namespace, w.Name), w.Kind.String(), w.Energy+w.ColdStart, w.StdDev)
	}
	if rest > 0 {
		row(fmt.Sprintf("%d others", len(rows)-pageRows), "", rest, 0)
	}
	if a.Departed > 0 {
		row("departed", "workloads that ended", a.Departed, 0)
	}
	row("sum", fmt.Sprintf("%d µJ off", int64(a.Invariant)), n.Energy-a.Invariant, 0)
	fmt.Fprintf(b, "</table>\n<p>Idle board %.2f ± %.2f W, %.2f ± %.2f W per busy core; power %d ms after CPU time; %d changes found; %v on its way.</p>\n",
		a.Model.Base, 1.96*a.Model.BaseStdDev, a.Model.WattsPerCore, 1.96*a.Model.WattsPerCoreStdDev, a.Lag.Lag.Milliseconds(), a.Model.Changes, a.Pending)
}

// pageRows bounds the accounts on the page; /metrics has all.
const pageRows = 30

// joules is in one unit for a whole column, so that rows can be compared.
func joules(e energy.Energy) string { return fmt.Sprintf("%.3f J", e.Joules()) }

func slashed(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

const pageHead = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Wattlet agent</title><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #8886;white-space:nowrap}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
.down{border-left:.3rem solid #c62;padding-left:.8rem}
</style></head><body><h1>Wattlet agent</h1>
`

const pageFoot = `<p><a href="/metrics">/metrics</a> for Prometheus, <a href="/api/v1/snapshot">/api/v1/snapshot</a> the same as JSON,
/api/v1/records for wattctl record, <a href="/healthz">/healthz</a>, <a href="/readyz">/readyz</a>. Version %s.</p></body></html>
`
