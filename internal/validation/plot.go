package validation

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"strings"
)

const (
	pageWidth  = 1120.0
	marginLeft = 64.0
	barsHeight = 230.0
	curveWide  = 290.0
	curveHigh  = 190.0
)

// colours can be told apart by the colour-blind (Okabe and Ito, Color Universal Design, 2008).
var colours = []string{"#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#000000"}

func colour(i int) string { return colours[i%len(colours)] }

// WriteSVG draws a result as one picture: bars of errors, coverage, convergence, curves of robustness.
func WriteSVG(w io.Writer, r *Result) error {
	svg := plots(r)
	_, err := io.WriteString(w, svg)
	return err
}

// WriteHTML writes a page that needs nothing else: the picture, and the tables below it.
func WriteHTML(w io.Writer, r *Result) error {
	var text bytes.Buffer
	if err := WriteText(&text, r); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Attribution benchmark</title>
<style>body{background:#fff;color:#111;font-family:system-ui,sans-serif;max-width:1160px;margin:24px auto;padding:0 16px}
svg{max-width:100%%;height:auto}pre{overflow-x:auto;font-size:12px;line-height:1.4}</style></head><body>
<h1>Who used the energy: estimators against known truth</h1>
%s<h2>Tables</h2>
<pre>%s</pre>
</body></html>
`, plots(r), html.EscapeString(text.String()))
	return err
}

func plots(r *Result) string {
	d := &drawing{}
	d.text(marginLeft, 30, 18, "start", `font-weight="600" fill="#111"`, "Attribution on "+r.Data)
	d.text(marginLeft, 50, 12, "start", `fill="#444"`,
		fmt.Sprintf("Median of %d seeds, curves of %d; thin lines reach to the worst seed. The truth is known, since jobs were composed.",
			r.Seeds, r.CurveSeeds))
	x := marginLeft
	for i, name := range r.Estimators {
		d.rect(x, 62, 12, 12, colour(i), name)
		d.text(x+17, 72, 12, "start", `fill="#111"`, name)
		x += 34 + 7.2*float64(len([]rune(name)))
	}
	y := 120.0
	stat := func(get func(*Summary) *Stat) [][]*Stat {
		var out [][]*Stat
		for i := range r.Cases {
			var row []*Stat
			for k := range r.Cases[i].Rows {
				row = append(row, get(&r.Cases[i].Rows[k].Summary))
			}
			out = append(out, row)
		}
		return out
	}
	y = d.bars(r, y, "Mean error over functions", "error of energy, %", stat(func(u *Summary) *Stat { return &u.MeanError }), 1)
	y = d.bars(r, y, "Worst function", "error of energy, %", stat(func(u *Summary) *Stat { return &u.WorstError }), 2.5)
	y = d.coverage(r, y, stat(func(u *Summary) *Stat { return u.P95 }))
	y = d.convergence(r, y)
	y = d.curves(r, y)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="system-ui,sans-serif">
<rect width="100%%" height="100%%" fill="#fff"/>
%s</svg>
`, pageWidth, y, pageWidth, y, d.b.String())
}

// groups returns the x axis of panels with a group of bars for each case, and names the cases below it.
func (d *drawing) groups(r *Result, bottom float64) (x axis, wide float64) {
	x = axis{low: 0, high: float64(max(1, len(r.Cases))), from: marginLeft, until: pageWidth - 20}
	wide = (x.until - x.from) / x.high
	for i, c := range r.Cases {
		for n, l := range wrap(c.Case, int(wide/6.2)) {
			d.text(x.at(float64(i)+0.5), bottom+16+13*float64(n), 11, "middle", `fill="#333"`, l)
		}
	}
	return x, wide
}

func wrap(s string, width int) (lines []string) {
	for word := range strings.FieldsSeq(s) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(word) <= width {
			lines[n-1] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// bars draws errors, with a line at the target, %, and returns where the next panel goes.
func (d *drawing) bars(r *Result, top float64, title, label string, stats [][]*Stat, target float64) float64 {
	bottom := top + barsHeight
	var values []float64
	for _, row := range stats {
		for _, s := range row {
			values = append(values, 100*s.Median, 100*abs(s.Worst))
		}
	}
	y := percents(values, bottom, top)
	x, wide := d.groups(r, bottom)
	d.frame(fmt.Sprintf("%s (logarithmic; dashed: target of %g %%)", title, target), "", label, x, y)
	for i, row := range stats {
		w := wide * 0.8 / float64(max(1, len(row)))
		for k, s := range row {
			left := x.at(float64(i)) + wide*0.1 + w*float64(k)
			at := y.at(100 * s.Median)
			d.rect(left, at, w-1.5, bottom-at, colour(k),
				fmt.Sprintf("%s, %s: %s, worst seed %s", r.Cases[i].Case, r.Estimators[k], percent(s.Median), percent(s.Worst)))
			d.line(left+w/2-0.75, at, left+w/2-0.75, y.at(100*abs(s.Worst)), "#333", 1, "")
			if w > 15 {
				d.text(left+w/2-0.75, min(at, y.at(100*abs(s.Worst)))-3, 9, "middle", `fill="#333"`, digits(100*s.Median))
			}
		}
	}
	d.line(x.from, y.at(target), x.until, y.at(target), "#c00", 1, "5 4")
	return bottom + 84
}

// digits writes a value with two digits, and more if it has more before the point.
func digits(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

func abs(x float64) float64 { return max(x, -x) }

// coverage draws how often intervals of 95 % had the truth in them.
func (d *drawing) coverage(r *Result, top float64, stats [][]*Stat) float64 {
	bottom := top + barsHeight*0.7
	y := linear(0.5, 1, bottom, top)
	x, wide := d.groups(r, bottom)
	fmt.Fprintf(&d.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#dff0df"/>`+"\n", x.from, y.at(0.97), x.until-x.from, y.at(0.93)-y.at(0.97))
	d.frame("Coverage: intervals of 95 % that have the truth in them, after the first 300 s (green: 0.93 to 0.97)", "", "part of intervals", x, y)
	told := false
	for i, row := range stats {
		w := wide * 0.8 / float64(max(1, len(row)))
		for k, s := range row {
			if s == nil {
				continue
			}
			told = true
			at := x.at(float64(i)) + wide*0.1 + w*(float64(k)+0.5)
			d.line(at, y.at(s.Median), at, y.at(s.Worst), "#333", 1, "")
			fmt.Fprintf(&d.b, `<circle cx="%.1f" cy="%.1f" r="5" fill="%s"><title>%s, %s: %.3f, worst seed %.3f</title></circle>`+"\n",
				at, y.at(s.Median), colour(k), html.EscapeString(r.Cases[i].Case), html.EscapeString(r.Estimators[k]), s.Median, s.Worst)
			d.text(at+8, y.at(s.Median)+4, 10, "start", `fill="#333"`, fmt.Sprintf("%.3f", s.Median))
		}
	}
	if !told {
		d.text((x.from+x.until)/2, (top+bottom)/2, 13, "middle", `fill="#777"`, "no estimator here states an uncertainty")
	}
	return bottom + 84
}

// convergence draws the error of windows of 60 s as time goes on, for the first plain case and those in which something changes.
func (d *drawing) convergence(r *Result, top float64) float64 {
	bottom := top + barsHeight
	var shown []CaseResult
	for _, c := range r.Cases {
		if c.Plain && len(shown) == 0 || strings.Contains(c.Case, "change") && len(shown) < 3 {
			shown = append(shown, c)
		}
	}
	wide := (pageWidth - 20 - marginLeft) / float64(max(1, len(shown)))
	for i, c := range shown {
		var values []float64
		last := 0.0
		for _, row := range c.Rows {
			for _, v := range row.Summary.Curve {
				values = append(values, 100*v)
			}
			last = max(last, float64(len(row.Summary.Curve)-1)*curvePoint.Seconds()+long.Seconds())
		}
		left := marginLeft + wide*float64(i)
		x, y := linear(0, last, left, left+wide-70), percents(values, bottom, top)
		d.frame("Convergence: "+c.Case, "end of a window of 60 s, s", "error in the window, %", x, y)
		d.line(x.from, y.at(10), x.until, y.at(10), "#c00", 1, "5 4")
		for k, row := range c.Rows {
			var xs, ys []float64
			for n, v := range row.Summary.Curve {
				xs, ys = append(xs, x.at(float64(n)*curvePoint.Seconds()+long.Seconds())), append(ys, y.at(100*v))
			}
			d.path(xs, ys, colour(k), 1.6, false)
		}
	}
	return bottom + 84
}

// curves draws each disturbance in a panel of its own.
func (d *drawing) curves(r *Result, top float64) float64 {
	across := 3
	for i, c := range r.Curves {
		left := marginLeft + float64(i%across)*(curveWide+68)
		upper := top + float64(i/across)*(curveHigh+96)
		bottom := upper + curveHigh
		var values []float64
		for _, l := range c.Lines {
			for _, s := range c.shown(l) {
				values = append(values, 100*s.Median)
			}
		}
		y := percents(values, bottom, upper)
		x := linear(c.X[0], c.X[len(c.X)-1], left, left+curveWide)
		x.log = c.X[0] > 0 && c.X[len(c.X)-1]/c.X[0] >= 10
		x.ticks = c.X
		title, label := "Mean error by "+c.Curve, "mean error, %"
		if c.Worst {
			title, label = "Worst function by "+c.Curve, "error, %"
		}
		d.frame(title, c.Label, label, x, y)
		for k, l := range c.Lines {
			var xs, ys []float64
			for n, s := range c.shown(l) {
				xs, ys = append(xs, x.at(c.X[n])), append(ys, y.at(100*s.Median))
			}
			d.path(xs, ys, colour(k), 1.8, true)
		}
	}
	rows := (len(r.Curves) + across - 1) / across
	return top + float64(rows)*(curveHigh+96)
}
