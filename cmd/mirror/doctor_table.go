package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/text"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// stateWords are the states as they are shown, with their colours.
var stateWords = map[doctor.State]struct{ word, colour string }{
	doctor.OK:       {"ok", "32"},
	doctor.Warning:  {"warning", "33"},
	doctor.Broken:   {"BROKEN", "31"},
	doctor.NotTried: {"not tried", "90"},
}

// reportText is a report: a line for each step, then the problem and the remedy.
func reportText(r *doctor.Report, wide, colour bool) string {
	var b strings.Builder
	from := "from here"
	if r.At == "mirror" {
		from = "from the mirror"
	}
	fmt.Fprintf(&b, "%s %s%s\n\n", text.Cut(r.Image, 300), choose(r.Platform == "", "", "for "+r.Platform+" "), from)
	var t table
	t.row("STEP", "STATE", "TOOK", "HOST", "RESULT")
	states := []doctor.State{""} // of the rows
	endpoint := ""
	for _, s := range r.Steps {
		if s.Endpoint != endpoint && s.Endpoint != "" && manyEndpoints(r) {
			t.row("at " + s.Endpoint)
			states = append(states, "")
		}
		endpoint = s.Endpoint
		took, result := "", s.Detail
		if s.Took > 0 {
			took = s.Took.String()
		}
		if s.State == doctor.Broken && r.Failure != nil {
			result = s.Reason // the sentence stands below
		}
		if s.Addr != "" && (wide || s.Stage == "dial") && s.Addr != s.Host && s.State != doctor.Broken {
			result = strings.TrimSpace(s.Addr + " " + result)
		}
		if wide && s.Status != 0 {
			result = strings.TrimSpace(fmt.Sprintf("status %d, %s", s.Status, result))
		}
		t.row(s.Stage, stateWords[s.State].word, took, s.Host, result)
		states = append(states, s.State)
	}
	if colour {
		t.paint = func(row, column int, cell string) string {
			if c := stateWords[states[row]].colour; column == 1 && c != "" {
				return "\x1b[" + c + "m" + cell + "\x1b[0m"
			}
			return cell
		}
	}
	b.WriteString(t.String())
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
		return b.String()
	}
	fmt.Fprintf(&b, "\nIt can be pulled%s%s, %s.\n", choose(r.CannotRun == "", "", ", but not run on "+r.CannotRun),
		choose(r.Digest == "", "", ", "+r.Digest), r.Took)
	return b.String()
}

// manyEndpoints reports whether more than one endpoint was checked.
func manyEndpoints(r *doctor.Report) bool {
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
	text := "cached: nothing"
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
