package validation

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes a result as plain tables: medians over seeds, with the worst seed in brackets.
func WriteText(w io.Writer, r *Result) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Attribution on %s: median over seeds %d to %d (worst seed). Errors are of energy per function over the whole trace.\n",
		r.Data, r.FirstSeed, r.FirstSeed+r.Seeds-1)
	if len(r.Overall) > 0 && plain(r) > 1 {
		fmt.Fprintf(&b, "\nAll %d plain loads together\n", plain(r))
		writeRows(&b, r.Overall)
	}
	for _, c := range r.Cases {
		fmt.Fprintf(&b, "\n%s\n", c.Case)
		writeRows(&b, c.Rows)
	}
	for _, c := range r.Curves {
		what := "mean error"
		if c.Worst {
			what = "worst function"
		}
		fmt.Fprintf(&b, "\n%s by %s\n", strings.ToUpper(what[:1])+what[1:], c.Label)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(t, "  \t")
		for _, x := range c.X {
			fmt.Fprintf(t, "%g\t", x)
		}
		fmt.Fprintln(t)
		for _, l := range c.Lines {
			fmt.Fprintf(t, "  %s\t", l.Estimator)
			for _, s := range c.shown(l) {
				fmt.Fprintf(t, "%s\t", percent(s.Median))
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// shown returns the stats of a line that the curve is about.
func (c CurveResult) shown(l Line) []Stat {
	if c.Worst {
		return l.WorstError
	}
	return l.MeanError
}

func plain(r *Result) (n int) {
	for _, c := range r.Cases {
		if c.Plain {
			n++
		}
	}
	return n
}

func writeRows(b *bytes.Buffer, rows []Row) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "  "+strings.Join([]string{"estimator", "mean error", "worst function", "bias", "after 300 s", "10 s windows", "60 s",
		"95 % covers", "half width", "to 10 %", "after change", "µs/tick", "off by µJ", ""}, "\t"))
	for _, row := range rows {
		u := row.Summary
		fmt.Fprintf(t, "  %s\t%s\t%s\t%+.1f %%\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%d\t\n", row.Estimator, both(&u.MeanError), both(&u.WorstError),
			100*u.Bias.Median, both(u.LateMean), percent(u.WAPE10.Median), percent(u.WAPE60.Median), both(u.P95), both(u.HalfWidthRelative),
			reached(u.Convergence, u), reached(u.AfterChange, u), u.MicrosPerTick.Median, int64(u.Conservation))
	}
	_ = t.Flush() // to memory
}

func percent(x float64) string {
	if x > -0.1 && x < 0.1 {
		return fmt.Sprintf("%.2f %%", 100*x)
	}
	return fmt.Sprintf("%.1f %%", 100*x)
}

func both(s *Stat) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", percent(s.Median), strings.TrimSuffix(percent(s.Worst), " %"))
}

func reached(s *Stat, u Summary) string {
	switch {
	case s == nil && u.Diverged > 0:
		return "never"
	case s == nil:
		return "-"
	}
	return fmt.Sprintf("%.0f s (%.0f)", s.Median, s.Worst)
}
