package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newStatusCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "status",
		SuggestFor: []string{"info", "health", "ping", "state"},
		Short:      "Show on one screen whether all is well, and what is not",
		Long: `Show on one screen how a running mirror is: its version and uptime, the registries and
credentials that are not well, the pulls that go on, the cache, and the failures of the
last hour. What is well is counted, what is not is named.

Exit codes: 0 it was shown, however it is; 1 the mirror refuses; 2 usage; 4 no mirror
answers.`,
		Example: `  mirror status
  mirror status -o json | jq '.credentials[].name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			body, err := flags.get(cmd.Context(), "status", nil)
			if err != nil {
				return err
			}
			if flags.output.encoded() {
				return flags.print(cmd.OutOrStdout(), body)
			}
			var s admin.Status
			if err := flags.read(body, &s, "not a status"); err != nil {
				return err
			}
			return showStatus(cmd.OutOrStdout(), s, time.Now())
		},
	}
	flags.add(cmd, false)
	return cmd
}

func showStatus(out io.Writer, s admin.Status, now time.Time) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("mirror", "%s, up for %s, %s", s.Version, s.Uptime, choose(s.Ready, "ready", "stopping"))
	row("config", "%s, taken %s", choose(s.Config.File == "", "built-in defaults", s.Config.File), since(s.Config.TakenAt, now))
	if s.Config.LastError != "" {
		row("", "the last reload was refused: %s", s.Config.LastError)
	}
	if len(s.Config.Restart) > 0 {
		row("", "waits for a restart: %s", strings.Join(s.Config.Restart, ", "))
	}
	row("upstreams", "%d, %s", s.Upstreams, choose(len(s.Endpoints) == 0, "none is down",
		fmt.Sprintf("%s not well:", plural(len(s.Endpoints), "endpoint is", "endpoints are"))))
	for _, e := range s.Endpoints {
		row("", "%s %s is %s%s%s", e.Upstream, e.URL, choose(e.State == "open", "down", e.State), sinceWhen(e.Since, now), because(e.LastError))
	}
	row("credentials", "%s", choose(len(s.Credentials) == 0, "none fails",
		fmt.Sprintf("%s not well:", plural(len(s.Credentials), "is", "are"))))
	for _, c := range s.Credentials {
		row("", "%s %s is %s%s%s", c.Upstream, c.Name, c.State, sinceWhen(c.Since, now), because(c.LastError))
	}
	if s.Pulls != nil {
		row("pulls", "%d running", *s.Pulls)
	}
	if c := s.Cache; c != nil {
		full := ""
		if c.Size > 0 {
			full = fmt.Sprintf(" (%d%%)", c.Bytes*100/c.Size)
		}
		row("cache", "%s of %s%s%s", amount(c.Bytes), amount(c.Size), full,
			choose(c.Degraded, "; the disk fails: new content is served and not kept", ""))
	}
	if f := s.Failures; f != nil {
		row("failures", "%s", lastHour(f))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return write(out, []byte(trimLines(b.String())))
}

// lastHour says how many pulls failed lately, and where they are listed.
func lastHour(f *admin.StatusFailures) string {
	var total int64
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(f.Classes)) {
		total += f.Classes[class]
		parts = append(parts, fmt.Sprintf("%s %d", class, f.Classes[class]))
	}
	text := "none in the last hour"
	if total > 0 {
		text = fmt.Sprintf("%d in the last hour: %s; see mirror failures --since 1h", total, strings.Join(parts, ", "))
	}
	if f.Declined > 0 {
		text += fmt.Sprintf("; pulls of %s were left to the nodes (mirror failures --declined)", plural(f.Declined, "image", "images"))
	}
	return text
}

// plural is a number with its noun.
func plural(n int, one, many string) string {
	return fmt.Sprintf("%d %s", n, choose(n == 1, one, many))
}

func sinceWhen(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " for " + max(now.Sub(t), 0).Round(time.Second).String()
}

func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
