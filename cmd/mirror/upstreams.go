package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newUpstreamsCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "upstreams",
		SuggestFor: []string{"registries", "endpoints", "credentials", "limits", "upstream"},
		Short:      "Show the registries that are mirrored, their endpoints, credentials and limits",
		Long: `Show the registries that are mirrored, their endpoints and credentials, how each of them
is, and what is left of rate limits, as a running mirror knows it. Nobody is asked for it.

Endpoints are up, degraded (not always, not for blobs, or limiting), down (others are
asked first; the API calls it open) or unknown (not asked yet). Credentials are ok,
expiring (can't be renewed and still works), expired, rejected (by the registry), failing
(their source, as a password file that is missing) or unknown (not asked yet). SINCE is
when the state became what it is, and the last error stays after it is over. Secrets are
never shown. Limits are those that registries tell
with their answers; SPENT ON says for which repositories this mirror spent them in the
time that the limit is for, and how much others spent of them.

Exit codes: 0 it was shown, however they are; 1 the mirror refuses; 2 usage; 4 no mirror
answers.`,
		Example: `  mirror upstreams
  mirror upstreams -o json | jq '.upstreams[].credentials[] | select(.state != "ok")'
  kubectl exec deploy/mirror -- mirror upstreams -o wide`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			body, err := flags.get(cmd.Context(), "upstreams", nil)
			if err != nil {
				return err
			}
			if flags.output.encoded() {
				return flags.print(cmd.OutOrStdout(), body)
			}
			var list admin.UpstreamList
			if err := flags.read(body, &list, "not a list of upstreams"); err != nil {
				return err
			}
			return showUpstreams(cmd.OutOrStdout(), list.Upstreams, flags.output.form == "wide", time.Now())
		},
	}
	flags.add(cmd, true)
	return cmd
}

// showUpstreams prints a line for each endpoint and each credential.
func showUpstreams(out io.Writer, list []admin.Upstream, wide bool, now time.Time) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "UPSTREAM\tENDPOINT\tSTATE\tSINCE\tLAST ERROR")
	credentials := false
	for _, u := range list {
		for _, e := range u.Endpoints {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", u.Name, e.URL, choose(e.State == "open", "down", e.State), since(e.Since, now),
				dated(shorten(e.LastError, wide), e.LastErrorAt, now))
		}
		if len(u.Endpoints) == 0 { // a pattern; its hosts have rows of their own
			fmt.Fprintf(w, "%s\t%s\t-\t-\t\n", u.Name, "each host that fits")
		}
		credentials = credentials || len(u.Credentials) > 0
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if credentials {
		b.WriteByte('\n')
		fmt.Fprintln(w, "UPSTREAM\tCREDENTIAL\tKIND\tSTATE\tSINCE\tEXPIRES\tREFRESHED\t"+choose(wide, "FOR\tREPOSITORIES\t", "")+"LAST ERROR")
		for _, u := range list {
			for _, c := range u.Credentials {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t", u.Name, c.Name, c.Kind, c.State, since(c.Since, now),
					until(c.ExpiresAt, now), since(c.LastRefresh, now))
				if wide {
					fmt.Fprintf(w, "%s\t%s\t", c.For, choose(len(c.Repositories) > 0, strings.Join(c.Repositories, " "), "all"))
				}
				fmt.Fprintln(w, dated(c.LastError, c.LastErrorAt, now)) // in full: often it stands nowhere else
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err := showLimits(&b, list, wide, now); err != nil {
		return err
	}
	return write(out, []byte(trimLines(b.String())))
}

// showLimits prints a line for each limit that is known.
func showLimits(b *strings.Builder, list []admin.Upstream, wide bool, now time.Time) error {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	head := "\nUPSTREAM\tLIMIT OF\tLEFT\tMORE\tSAID\tSPENT ON"
	for _, u := range list {
		for _, l := range u.Limits {
			whose := l.Credential
			if whose == "" {
				whose = "anonymous"
				if l.Source != "" {
					whose += " at " + l.Source
				}
			}
			left := strconv.FormatInt(l.Remaining, 10)
			if l.Limit > 0 {
				left += " of " + strconv.FormatInt(l.Limit, 10)
			}
			more := until(l.ResetAt, now)
			if l.ResetAt.IsZero() && l.WindowSeconds > 0 {
				more = "within " + (time.Duration(l.WindowSeconds) * time.Second).String()
			}
			if head != "" {
				fmt.Fprintln(w, head)
				head = ""
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", u.Name, whose, left, more, since(l.SaidAt, now), spentOn(l.Spent, wide))
		}
	}
	return w.Flush()
}

// spentOn lists what a limit was spent on: repositories, the others, and what others than this mirror spent.
func spentOn(s *admin.Spent, wide bool) string {
	if s == nil {
		return ""
	}
	most := 3
	if wide {
		most = len(s.Repositories)
	}
	var parts []string
	rest := s.Requests
	for _, use := range s.Repositories[:min(len(s.Repositories), most)] {
		parts = append(parts, fmt.Sprintf("%s %d", use.Repository, use.Requests))
		rest -= use.Requests
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("others %d", rest))
	}
	if s.Elsewhere != nil && *s.Elsewhere > 0 {
		parts = append(parts, fmt.Sprintf("not by this mirror %d", *s.Elsewhere))
	}
	return strings.Join(parts, ", ")
}

// shorten cuts an error to what fits, unless there is room.
func shorten(text string, wide bool) string {
	const most = 100
	if r := []rune(text); !wide && len(r) > most {
		return string(r[:most]) + "..."
	}
	return text
}

// dated is an error with how long ago it was.
func dated(text string, at, now time.Time) string {
	if text == "" || at.IsZero() {
		return text
	}
	return since(at, now) + ": " + text
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

func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return max(now.Sub(t), 0).Round(time.Second).String() + " ago"
}

// trimLines removes the spaces at the ends of lines, where a table has nothing in its last column.
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
