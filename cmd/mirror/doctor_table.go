package main

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/text"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// inWords are the states as they are shown, and in which colour.
var inWords = map[doctor.State]struct{ word, colour string }{
	doctor.OK:       {"ok", "32"},
	doctor.Warning:  {"warning", "33"},
	doctor.Broken:   {"BROKEN", "31"},
	doctor.NotTried: {"not tried", "90"},
}

// examined is a report as text: a line for each step, then what is wrong.
func examined(r *doctor.Report, wide, colour bool) string {
	var b strings.Builder
	from := "from here"
	if r.At == "mirror" {
		from = "from the mirror"
	}
	fmt.Fprintf(&b, "%s %s%s\n\n", text.Cut(r.Image, 300), choose(r.Platform == "", "", "for "+r.Platform+" "), from)
	rows := [][]string{{"STEP", "STATE", "TOOK", "HOST", "WHAT IT SHOWS"}}
	states := []doctor.State{""}
	endpoint := ""
	for _, s := range r.Steps {
		if s.Endpoint != endpoint && s.Endpoint != "" && several(r) {
			rows, states = append(rows, []string{"at " + s.Endpoint}), append(states, "")
		}
		endpoint = s.Endpoint
		took, host, shows := "", s.Host, s.Detail
		if s.Took > 0 {
			took = s.Took.String()
		}
		if s.State == doctor.Broken && r.Failure != nil {
			shows = s.Reason // the sentence is below
		}
		if s.Addr != "" && (wide || s.Stage == "dial") && s.Addr != s.Host && s.State != doctor.Broken {
			shows = strings.TrimSpace(s.Addr + " " + shows)
		}
		if wide && s.Status != 0 {
			shows = strings.TrimSpace(fmt.Sprintf("status %d, %s", s.Status, shows))
		}
		rows, states = append(rows, []string{s.Stage, inWords[s.State].word, took, host, shows}), append(states, s.State)
	}
	align(&b, rows, func(row, column int, cell string) string {
		if c := inWords[states[row]].colour; colour && column == 1 && c != "" {
			return "\x1b[" + c + "m" + cell + "\x1b[0m"
		}
		return cell
	})
	for _, s := range r.Steps {
		if s.State == doctor.Warning || s.State == doctor.Broken && r.Failure == nil {
			fmt.Fprintf(&b, "\n%s  %s\n  > %s\n", s.Reason, s.Detail, s.Remedy)
		}
	}
	if c := r.Cache; c != nil {
		b.WriteString("\n" + cachedText(c) + "\n")
	}
	if f := r.Failure; f != nil {
		fmt.Fprintf(&b, "\n%s (%s)  %s\n  > %s\n", f.Reason, f.Class, f.Summary, f.Remedy)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "  %s\n", e)
		}
		return trimLines(b.String())
	}
	fmt.Fprintf(&b, "\nIt can be pulled%s%s, %s.\n", choose(r.CannotRun == "", "", ", but not run on "+r.CannotRun),
		choose(r.Digest == "", "", ", "+r.Digest), r.Took)
	return trimLines(b.String())
}

// several reports whether more than one endpoint was looked at.
func several(r *doctor.Report) bool {
	first := ""
	for _, s := range r.Steps {
		if first == "" {
			first = s.Endpoint
		}
		if s.Endpoint != "" && s.Endpoint != first {
			return true
		}
	}
	return false
}

func cachedText(c *doctor.Cache) string {
	text := "cached: nothing of it"
	if c.Manifest || c.Blobs > 0 {
		text = "cached: " + choose(c.Manifest, "the manifest", "no manifest")
		if c.Of > 0 {
			text += fmt.Sprintf(", %d of %d other parts", c.Blobs, c.Of)
		}
	}
	if c.Digest != "" {
		text += "; the tag was " + c.Digest
		if !c.CheckedAt.IsZero() {
			text += " at " + c.CheckedAt.Format("2006-01-02 15:04:05 UTC")
		}
	}
	return text
}

// align writes rows in columns. A row of one cell is a line of its own.
func align(b *strings.Builder, rows [][]string, paint func(row, column int, cell string) string) {
	var widths []int
	for _, r := range rows {
		if len(r) == 1 {
			continue
		}
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, r := range rows {
		for i, cell := range r {
			if i == len(r)-1 {
				b.WriteString(cell)
				break
			}
			b.WriteString(paint(n, i, cell))
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteByte('\n')
	}
}
