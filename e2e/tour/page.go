package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// columns is how wide a line may be.
const columns = 100

// page writes what is shown: plain text that can be pasted, in colour on a terminal alone.
type page struct {
	w      io.Writer
	colour bool
}

func newPage(f *os.File) *page {
	info, err := f.Stat()
	return &page{w: f, colour: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""}
}

// Colours of a terminal.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	blue  = "34"
)

func (p *page) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) line(s string) { fmt.Fprintln(p.w, strings.TrimRight(s, " ")) }

func (p *page) intro(s string) {
	for _, l := range wrap(s, columns) {
		p.line(l)
	}
}

func (p *page) title(number int, s string) {
	p.line("")
	p.line(p.paint(bold, fmt.Sprintf("%d  %s", number, s)))
}

func (p *page) text(s string) {
	for _, l := range wrap(s, columns-4) {
		p.line("    " + p.paint(dim, l))
	}
	p.line("")
}

const label = 10

// part is a labelled paragraph.
func (p *page) part(name, code, s string) {
	for i, l := range wrap(s, columns-4-label) {
		head := strings.Repeat(" ", label)
		if i == 0 {
			head = fmt.Sprintf("%-*s", label, name)
		}
		p.line("    " + p.paint(dim, head) + p.paint(code, l))
	}
}

func (p *page) outro(lines ...string) {
	p.line("")
	for _, s := range lines {
		for _, l := range wrap(s, columns) {
			p.line(l)
		}
	}
}

// wrap breaks a text into lines. What has no space stays whole, unless it is longer than a line.
func wrap(s string, width int) (lines []string) {
	for para := range strings.SplitSeq(s, "\n") {
		line := ""
		for word := range strings.FieldsSeq(para) {
			for len(word) > width {
				if line != "" {
					lines, line = append(lines, line), ""
				}
				lines, word = append(lines, word[:width]), word[width:]
			}
			switch {
			case line == "":
				line = word
			case len(line)+1+len(word) <= width:
				line += " " + word
			default:
				lines, line = append(lines, line), word
			}
		}
		lines = append(lines, line)
	}
	return lines
}
