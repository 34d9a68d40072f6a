package validation

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// drawing collects the elements of an SVG picture (W3C SVG 1.1).
type drawing struct{ b strings.Builder }

func (d *drawing) line(x1, y1, x2, y2 float64, colour string, width float64, dash string) {
	if dash != "" {
		dash = ` stroke-dasharray="` + dash + `"`
	}
	fmt.Fprintf(&d.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"%s/>`+"\n", x1, y1, x2, y2, colour, width, dash)
}

func (d *drawing) rect(x, y, w, h float64, colour, title string) {
	fmt.Fprintf(&d.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`+"\n",
		x, y, max(0, w), max(0, h), colour, html.EscapeString(title))
}

// text writes at (x, y); anchor is start, middle or end.
func (d *drawing) text(x, y float64, size int, anchor, style, s string) {
	fmt.Fprintf(&d.b, `<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" %s>%s</text>`+"\n", x, y, size, anchor, style, html.EscapeString(s))
}

func (d *drawing) vertical(x, y float64, s string) {
	d.text(x, y, 12, "middle", fmt.Sprintf(`fill="#333" transform="rotate(-90 %.1f %.1f)"`, x, y), s)
}

func (d *drawing) path(xs, ys []float64, colour string, width float64, dots bool) {
	var p strings.Builder
	for i := range xs {
		fmt.Fprintf(&p, "%.1f,%.1f ", xs[i], ys[i])
		if dots {
			fmt.Fprintf(&d.b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", xs[i], ys[i], colour)
		}
	}
	fmt.Fprintf(&d.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`+"\n", strings.TrimSpace(p.String()), colour, width)
}

// axis maps values to a picture.
type axis struct {
	low, high   float64 // values
	from, until float64 // pixels
	log         bool
	ticks       []float64
}

// at returns the pixel of a value; values beyond the ends are drawn at them.
func (a axis) at(v float64) float64 {
	v = min(max(v, a.low), a.high)
	if a.log {
		return a.from + (math.Log(v)-math.Log(a.low))/(math.Log(a.high)-math.Log(a.low))*(a.until-a.from)
	}
	return a.from + (v-a.low)/(a.high-a.low)*(a.until-a.from)
}

// percents is an axis of errors in percent, on a logarithmic scale that has all the values on it, between 0.1 and 300.
func percents(values []float64, from, until float64) axis {
	marks := []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500}
	low, high := math.Inf(1), 0.0
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	a, b := 0, len(marks)-1
	for a < len(marks)-4 && marks[a+1] <= low && marks[a+1] < 1 { // the target of 1 % is always on it
		a++
	}
	for b > a+3 && marks[b-1] >= high {
		b--
	}
	return axis{low: marks[a], high: marks[b], from: from, until: until, log: true, ticks: marks[a : b+1]}
}

// linear is an axis with round numbers on it.
func linear(low, high, from, until float64) axis {
	if high <= low {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (high-low)/(m*step) <= 6 {
			step *= m
			break
		}
	}
	a := axis{low: low, high: high, from: from, until: until}
	for k := math.Ceil(low/step - 1e-9); k*step <= high+1e-9*step; k++ {
		a.ticks = append(a.ticks, k*step)
	}
	return a
}

// frame draws a panel's axes: y to the left with its grid, x below.
func (d *drawing) frame(title, xLabel, yLabel string, x, y axis) {
	left, right, bottom, top := x.from, x.until, y.from, y.until
	d.text(left, top-12, 14, "start", `font-weight="600" fill="#111"`, title)
	for _, v := range y.ticks {
		d.line(left, y.at(v), right, y.at(v), "#e3e3e3", 1, "")
		d.text(left-6, y.at(v)+4, 11, "end", `fill="#444"`, fmt.Sprintf("%g", round(v)))
	}
	for _, v := range x.ticks {
		d.line(x.at(v), bottom, x.at(v), bottom+4, "#444", 1, "")
		d.text(x.at(v), bottom+17, 11, "middle", `fill="#444"`, fmt.Sprintf("%g", round(v)))
	}
	d.line(left, bottom, right, bottom, "#444", 1, "")
	d.line(left, bottom, left, top, "#444", 1, "")
	if xLabel != "" {
		d.text((left+right)/2, bottom+34, 12, "middle", `fill="#333"`, xLabel)
	}
	d.vertical(left-40, (top+bottom)/2, yLabel)
}

// round takes off what floating point added; there is no -0.
func round(v float64) float64 { return math.Round(v*1e6)/1e6 + 0 }
