package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// none stands where there is nothing to say yet.
const none = "–"

// confidence is the half of a normal distribution's 95 % interval, in standard deviations.
const confidence = 1.96

// joules are microjoules, and so on, in units.
func joules(micro int64) float64 { return float64(micro) / 1e6 }

// size returns how many columns and rows a terminal has.
func size(w io.Writer) (width, height int, ok bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return width, height, err == nil
}

// frame is text as it is drawn over what a terminal shows, the first time over all that was there before.
func frame(text string, first bool) string {
	// Line by line, which does not flicker; the rest of the screen is of before.
	text = strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	if first {
		text = "\x1b[2J" + text
	}
	return "\x1b[H" + text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// grid is a table. Columns are aligned to the right but those with an l in left.
type grid struct {
	left string
	rows [][]string
	foot string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) write(b *strings.Builder) {
	var width []int
	for _, row := range g.rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, row := range g.rows {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i > 0 {
				line.WriteString("  ")
			}
			if i < len(g.left) && g.left[i] == 'l' {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	b.WriteString(g.foot)
}
