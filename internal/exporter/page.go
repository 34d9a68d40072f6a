package exporter

import (
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
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
	for _, m := range s.Meters {
		if !m.Up {
			fmt.Fprintf(&b, "<p class=down>Meter %s is down: %s</p>\n", html.EscapeString(m.Name), html.EscapeString(m.Err))
		}
	}
	fmt.Fprintf(&b, pageFoot, html.EscapeString(version))
	return b.String()
}

const pageHead = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Wattlet agent</title><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #8886;white-space:nowrap}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
.down{border-left:.3rem solid #c62;padding-left:.8rem}
</style></head><body><h1>Wattlet agent</h1>
`

const pageFoot = `<p><a href="/metrics">/metrics</a> for Prometheus, <a href="/api/v1/snapshot">/api/v1/snapshot</a> the same as JSON,
<a href="/healthz">/healthz</a>, <a href="/readyz">/readyz</a>. Version %s.</p></body></html>
`
