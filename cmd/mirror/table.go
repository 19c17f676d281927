package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/registrymirror/mirror/internal/text"
)

// table is rows of cells, aligned in columns. A row of one cell is a line of its own.
type table struct {
	rows  [][]string
	paint func(row, column int, cell string) string // colours a cell; nil: no colours
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// field adds a name and its value.
func (t *table) field(name, format string, args ...any) { t.row(name, fmt.Sprintf(format, args...)) }

// lines are the rows as text, without spaces at their ends.
func (t *table) lines() []string {
	var widths []int
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if len(r) > 1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	lines := make([]string, len(t.rows))
	for n, r := range t.rows {
		var b strings.Builder
		for i, cell := range r {
			pad := widths[i] - utf8.RuneCountInString(cell) + 2
			if t.paint != nil {
				cell = t.paint(n, i, cell)
			}
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", pad))
			}
		}
		lines[n] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// under is the table below a row of headings.
func (t *table) under(headings ...string) string {
	t.rows = slices.Insert(t.rows, 0, headings)
	return t.String()
}

func (t *table) String() string {
	if len(t.rows) == 0 {
		return ""
	}
	return strings.Join(t.lines(), "\n") + "\n"
}

// orDash is a cell that is never empty.
func orDash(cell string) string { return choose(cell == "", "-", cell) }

func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return max(now.Sub(t), 0).Round(time.Second).String() + " ago"
}

func until(t, now time.Time) string {
	switch d := t.Sub(now).Round(time.Second); {
	case t.IsZero():
		return "-"
	case d <= 0:
		return (-d).String() + " ago"
	default:
		return "in " + d.String()
	}
}

// shorten cuts an error to a length that fits a terminal, unless the output is wide.
func shorten(s string, wide bool) string {
	if wide {
		return s
	}
	return text.Cut(s, 100)
}

// amount is text.Size, in functions that have a variable of that name.
func amount(n int64) string { return text.Size(n) }

// plural is a number with its noun.
func plural(n int, one, many string) string {
	return fmt.Sprintf("%d %s", n, choose(n == 1, one, many))
}

// list joins words for a sentence, with and or or before the last.
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

func choose(yes bool, this, that string) string {
	if yes {
		return this
	}
	return that
}
