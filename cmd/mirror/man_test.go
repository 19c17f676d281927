package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The manual page has each command and each flag, and no line of a text is taken for a request.
func TestManPage(t *testing.T) {
	t.Parallel()
	code, page, errs := commandLine(t, "man")
	if code != exitOK || errs != "" {
		t.Fatalf("%d %s", code, errs)
	}
	for line := range strings.Lines(page) {
		request, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if (line[0] == '.' || line[0] == '\'') && !strings.Contains(" .TH .SH .SS .PP .TP .B .I .nf .fi ", " "+request+" ") {
			t.Errorf("not a request of this page: %q", line)
		}
	}
	if strings.Count(page, "\n.nf\n") != strings.Count(page, "\n.fi\n") {
		t.Error(".nf and .fi are not pairs")
	}
	commands := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if !sub.IsAvailableCommand() {
				continue
			}
			commands++
			_, part, found := strings.Cut(page, "\n.SS "+roffWord(manLine(sub))+"\n")
			if !found {
				t.Errorf("no %s", sub.CommandPath())
			}
			part, _, _ = strings.Cut(part, "\n.SS ")
			sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if !f.Hidden && f.Name != "help" && !strings.Contains(part, roff("--"+f.Name)+`\fR`) {
					t.Errorf("%s: no --%s", sub.CommandPath(), f.Name)
				}
			})
			walk(sub)
		}
	}
	walk(newRoot())
	if commands < 40 {
		t.Errorf("%d commands", commands)
	}
	if got := roffLine(`.a\b - "c"`); got != `\&.a\eb \- "c"` {
		t.Errorf("%q", got)
	}
}
