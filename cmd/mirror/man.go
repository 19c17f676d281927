package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "man",
		Short: "Print the manual page of all commands",
		Long: `Print the manual page of all commands, in the format of man(1). The deb and the rpm install
it as mirror(1).

Exit codes: 0 printed; 2 wrong usage.`,
		Example: `  mirror man | man -l -
  mirror man > /usr/local/share/man/man1/mirror.1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return write(cmd.OutOrStdout(), manPage(cmd.Root()))
		},
	}
}

// manPage is the page of a command and of those below it. It has no date, so that a release comes out the same twice.
func manPage(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH MIRROR 1 \"\" %s \"User Commands\"\n", roffWord("mirror "+versionText()))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", root.Name(), roff(strings.ToLower(root.Short[:1])+root.Short[1:]))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I command\n[\\fIflags\\fR]\n", root.Name())
	b.WriteString(".SH DESCRIPTION\n" + verbatim(root.Long))
	b.WriteString(".SH COMMANDS\n")
	manCommands(&b, root)
	b.WriteString(".SH FILES\n" + verbatim("/etc/mirror/config.yaml  the configuration of the service that the deb and the rpm install\n"+
		"/var/lib/mirror          its cache and records"))
	b.WriteString(".SH SEE ALSO\n" + verbatim("https://github.com/registrymirror/mirror/blob/main/README.md\nmirror explain REASON prints the page about a reason why pulls fail"))
	return b.String()
}

// manCommands writes the commands below one, in the order of the help.
func manCommands(b *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		fmt.Fprintf(b, ".SS %s\n", roffWord(manLine(c)))
		text := c.Long
		if text == "" {
			text = c.Short
		}
		b.WriteString(verbatim(text))
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			kind, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR", roff(name))
			if kind != "" {
				fmt.Fprintf(b, " \\fI%s\\fR", roff(kind))
			}
			b.WriteString("\n" + roffLine(usage))
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
				b.WriteString(" (default " + roff(f.DefValue) + ")")
			}
			b.WriteString("\n")
		})
		if c.Example != "" {
			b.WriteString(".PP\nExamples:\n" + verbatim(c.Example))
		}
		manCommands(b, c)
	}
}

// manLine is how a command is called. Cobra adds [flags] where a command has some, and that of the help comes late.
func manLine(c *cobra.Command) string { return strings.TrimSuffix(c.UseLine(), " [flags]") }

// verbatim is a text whose lines are kept as they are.
func verbatim(text string) string {
	var b strings.Builder
	b.WriteString(".PP\n.nf\n")
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		b.WriteString(roffLine(strings.TrimRight(line, "\n")) + "\n")
	}
	b.WriteString(".fi\n")
	return b.String()
}

// roffWord is a text as one argument of a request.
func roffWord(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }

// roffLine is a text as a line of its own, which is not taken for a request.
func roffLine(text string) string {
	text = roff(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}

// roff is a text without the characters that have a meaning in roff. A hyphen is one that can be copied into a shell.
func roff(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
}
