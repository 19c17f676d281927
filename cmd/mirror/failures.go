package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/journal"
)

// watchEvery is how often a mirror is asked under --watch.
const watchEvery = 2 * time.Second

type failureFlags struct {
	adminFlags
	by, since, image, client, reason, class string
	declined, watch                         bool
	limit                                   int
}

func newFailuresCmd() *cobra.Command {
	var f failureFlags
	cmd := &cobra.Command{
		Use:   "failures [ID]",
		Short: "Show why pulls failed, and what to do",
		Long: `Show why pulls failed, and what to do, as a running mirror has recorded it: each failure
with its cause and remedy, the one seen last first. The same reason for the same image at
the same host is one failure, with a count of the pulls that met it. With an ID, the eight
digits that the node's event shows in brackets, everything that is known of that failure.

What went well in the end is not here, nor are look-ups and probes. Declined is what the
mirror refused since it has no credential or no such upstream, so that the node went on to
the registry with its own: it is left out unless --declined asks for it.

The mirror keeps 1,000 failures for a week, over restarts.

Exit codes: 0 it was shown, however many there are; 1 the mirror refuses, or knows no such
ID; 2 usage; 4 no mirror answers.`,
		Example: `  mirror failures
  mirror failures 7f3a9c2e
  mirror failures --by class --since 1h
  mirror failures --image 'docker.io/acme/*' --watch
  mirror failures -o json | jq -r '.failures[].remedy'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), args)
		},
	}
	f.add(cmd, true)
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "", "count the pulls instead, by class, reason, image or client")
	flags.StringVar(&f.since, "since", "", "only what was seen since: a duration (1h30m) or a time (RFC 3339)")
	flags.StringVar(&f.reason, "reason", "", "only this reason")
	flags.StringVar(&f.class, "class", "", "only this class: network, tls, auth, missing, ...")
	flags.StringVar(&f.image, "image", "", "only this image or repository; * stands for any characters")
	flags.StringVar(&f.client, "client", "", "only what this node or address met")
	flags.BoolVar(&f.declined, "declined", false, "also what was declined")
	flags.BoolVar(&f.watch, "watch", false, "go on and show what comes, until interrupted")
	flags.IntVar(&f.limit, "limit", 50, "show at most so many, up to 1000")
	return cmd
}

func (f *failureFlags) run(ctx context.Context, out io.Writer, args []string) error {
	switch {
	case f.output != "" && f.output != "json" && f.output != "wide":
		return fmt.Errorf("-o %s: there are json and wide", f.output)
	case !slices.Contains([]string{"", "class", "reason", "image", "client"}, f.by):
		return fmt.Errorf("--by %s: there are class, reason, image and client", f.by)
	case f.watch && (f.by != "" || f.output == "json" || len(args) > 0):
		return fmt.Errorf("--watch shows failures as they come; leave out --by, -o json and the ID")
	case f.limit < 1 || f.limit > 1000:
		return fmt.Errorf("--limit %d: it is from 1 to 1000", f.limit)
	}
	q := url.Values{}
	for name, v := range map[string]string{
		"since": f.since, "reason": f.reason, "class": f.class, "image": f.image, "client": f.client,
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if f.declined {
		q.Set("declined", "true")
	}
	switch {
	case f.by != "":
		return f.counts(ctx, out, q)
	case len(args) == 1:
		return f.one(ctx, out, strings.Trim(args[0], "[]"))
	case f.watch:
		return f.follow(ctx, out, q)
	}
	q.Set("limit", fmt.Sprint(f.limit))
	list, body, err := f.list(ctx, q)
	if err != nil {
		return err
	}
	if f.output == "json" {
		return write(out, body)
	}
	if len(list.Failures) == 0 {
		return write(out, []byte("No pull has failed"+choose(len(q) > 1, " that fits", "")+".\n"))
	}
	if err := showFailures(out, list.Failures, f.output == "wide", time.Now()); err != nil {
		return err
	}
	if list.Continue != "" {
		return write(out, fmt.Appendf(nil, "\nThere are more; --limit shows up to 1000, --since, --image and --class choose.\n"))
	}
	return nil
}

// list asks for failures.
func (f *failureFlags) list(ctx context.Context, q url.Values) (list admin.FailureList, body []byte, err error) {
	if body, err = f.get(ctx, "failures", q); err != nil {
		return list, nil, err
	}
	return list, body, f.read(body, &list, "no record of failures")
}

// one shows all that is known of a failure.
func (f *failureFlags) one(ctx context.Context, out io.Writer, id string) error {
	list, body, err := f.list(ctx, url.Values{"id": {id}, "declined": {"true"}})
	switch {
	case err != nil:
		return err
	case len(list.Failures) == 0:
		return &exitError{exitFailed, fmt.Errorf("the mirror knows no failure %s; it keeps them for a week, and "+
			"another mirror may have met it", id)}
	case f.output == "json":
		return write(out, body)
	}
	now := time.Now()
	for i, x := range list.Failures {
		if i > 0 {
			if err := write(out, []byte("\n")); err != nil {
				return err
			}
		}
		if err := write(out, []byte(detail(x, now))); err != nil {
			return err
		}
	}
	return nil
}

// detail is all that is known of a failure, as text.
func detail(x journal.Failure, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\n", sentence(x.Summary), sentence(x.Remedy))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("id", x.ID)
	row("reason", string(x.Reason)+" ("+string(x.Class)+")")
	row("outcome", string(x.Outcome))
	row("image", x.Image)
	row("platform", x.Platform)
	row("upstream", x.Upstream)
	row("host", x.Host)
	row("step", x.Stage)
	if x.Status != 0 {
		row("status", fmt.Sprint(x.Status))
	}
	row("pulls", fmt.Sprint(x.Count))
	row("first", x.FirstSeen.Format(time.RFC3339)+", "+since(x.FirstSeen, now))
	row("last", x.LastSeen.Format(time.RFC3339)+", "+since(x.LastSeen, now))
	for _, c := range ranked(x.Clients) {
		row("client", fmt.Sprintf("%s (%d)", whose(c), x.Clients[c]))
	}
	row("agent", x.UserAgent)
	for _, e := range x.Evidence {
		row("evidence", e)
	}
	_ = w.Flush() // to a strings.Builder
	return trimLines(b.String())
}

// whose is a client. An address may stand for many, behind a NAT for all of a cluster.
func whose(client string) string {
	if _, err := netip.ParseAddr(client); err == nil {
		return client + ", perhaps shared"
	}
	return client
}

// sentence ends with a full stop.
func sentence(s string) string {
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// ranked are the keys of counts, the highest count first.
func ranked(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

// counts shows how many pulls failed of each class, reason, image or client.
func (f *failureFlags) counts(ctx context.Context, out io.Writer, q url.Values) error {
	body, err := f.get(ctx, "failures/summary", q)
	if err != nil {
		return err
	}
	if f.output == "json" {
		return write(out, body)
	}
	var s journal.Summary
	if err := f.read(body, &s, "no record of failures"); err != nil {
		return err
	}
	by := map[string]map[string]int64{"class": s.Classes, "reason": s.Reasons, "image": s.Images, "client": s.Clients}[f.by]
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tPULLS\n", strings.ToUpper(f.by))
	var total int64
	for _, k := range ranked(by) {
		name := choose(k == "", "-", k)
		if f.by == "client" {
			name = whose(name)
		}
		fmt.Fprintf(w, "%s\t%d\n", name, by[k])
		total += by[k]
	}
	fmt.Fprintf(w, "total\t%d\n", total)
	if err := w.Flush(); err != nil {
		return err
	}
	return write(out, []byte(b.String()))
}

// follow shows failures as they come.
func (f *failureFlags) follow(ctx context.Context, out io.Writer, q url.Values) error {
	q.Set("limit", "1000")
	seen := make(map[string]int64)
	wide := f.output == "wide"
	for {
		list, _, err := f.list(ctx, q)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		now := make(map[string]int64, len(list.Failures))
		for _, x := range slices.Backward(list.Failures) {
			k := x.ID + string(x.Outcome)
			now[k] = x.Count
			if seen[k] >= x.Count {
				continue
			}
			line := fmt.Sprintf("%s  %s  %s  %s  (%s%s)\n  %s; %s\n", x.LastSeen.Format(time.RFC3339), x.ID, x.Reason,
				choose(x.Image == "", "-", x.Image), x.Client, choose(x.Count > 1, fmt.Sprintf(", %d pulls so far", x.Count), ""),
				shorten(x.Summary, wide), shorten(x.Remedy, wide))
			if err := write(out, []byte(line)); err != nil {
				return err
			}
		}
		seen = now
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// showFailures prints two lines for each failure: what failed how often, and why.
func showFailures(out io.Writer, list []journal.Failure, wide bool, now time.Time) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tREASON\tIMAGE\tPULLS\tLAST SEEN\tCLIENT"+choose(wide, "\tHOST\tOUTCOME\tFIRST SEEN", ""))
	for _, x := range list {
		who := x.Client
		if n := len(x.Clients); n > 1 {
			who += fmt.Sprintf(" and %d more", n-1)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s", x.ID, x.Reason, choose(x.Image == "", "-", x.Image), x.Count,
			since(x.LastSeen, now), choose(who == "", "-", who))
		if wide {
			fmt.Fprintf(w, "\t%s\t%s\t%s", choose(x.Host == "", "-", x.Host), x.Outcome, since(x.FirstSeen, now))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// Below each row, what it means: a table of sentences fits no terminal.
	lines := strings.Split(trimLines(b.String()), "\n")
	var all strings.Builder
	fmt.Fprintln(&all, lines[0])
	for i, x := range list {
		fmt.Fprintf(&all, "%s\n  %s\n  > %s\n", lines[i+1], x.Summary, x.Remedy)
	}
	return write(out, []byte(all.String()))
}
