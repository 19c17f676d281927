package main

import (
	"cmp"
	"context"
	"errors"
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
	"github.com/registrymirror/mirror/diagnose"
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
		Use:        "failures [ID]",
		SuggestFor: []string{"errors", "events", "failed", "failure", "list"},
		Short:      "Show why pulls failed, and what to do",
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
		Args: mostOneArg("one ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), args)
		},
	}
	f.add(cmd, true)
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "", "count the pulls instead, by class, reason, image or client")
	flags.StringVar(&f.since, "since", "", "only what was seen since: a duration (1h30m, 1d) or a time (RFC 3339)")
	flags.StringVar(&f.reason, "reason", "", "only this `reason`, as in tag-not-found")
	flags.StringVar(&f.class, "class", "", "only this `class`: "+strings.Join(classes(), ", "))
	flags.StringVar(&f.image, "image", "", "only this image or repository; * stands for any characters")
	flags.StringVar(&f.client, "client", "", "only what this node or address met")
	flags.BoolVar(&f.declined, "declined", false, "also what was declined")
	flags.BoolVar(&f.watch, "watch", false, "go on and show what comes, until interrupted")
	flags.IntVar(&f.limit, "limit", 50, "show at most so many, up to 1000; with --watch at most so many that were there before")
	completes(cmd, "by", counted...)
	completes(cmd, "class", classes()...)
	completes(cmd, "reason", reasons()...)
	completes(cmd, "since", "1h", "1d", "7d")
	return cmd
}

func (f *failureFlags) run(ctx context.Context, out io.Writer, args []string) error {
	if err := errors.Join(f.output.check(), oneOf("by", f.by, counted), oneOf("class", f.class, classes()),
		oneOf("reason", f.reason, reasons())); err != nil {
		return err
	}
	since, err := moment(f.since, time.Now())
	if err != nil {
		return fmt.Errorf("--since %s: %w", f.since, err)
	}
	f.since = since
	switch {
	case f.watch && (f.by != "" || f.output.encoded() || len(args) > 0):
		return fmt.Errorf("--watch shows failures as they come; leave out --by, -o json, -o yaml and the ID")
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
	if f.output.encoded() {
		return f.print(out, body)
	}
	if len(list.Failures) == 0 {
		err = write(out, []byte("No pull has failed"+choose(len(q) > 1, " that fits", "")+".\n"))
	} else {
		err = showFailures(out, list.Failures, f.output.form == "wide", time.Now())
	}
	if err == nil && list.Continue != "" {
		err = write(out, []byte("\nThere are more; --limit shows up to 1000, --since, --image and --class choose.\n"))
	}
	if err != nil || f.declined {
		return err
	}
	return write(out, []byte(f.left(ctx, q, time.Now())))
}

// lately is the time for which what was declined is announced.
const lately = time.Hour

// left says how many images were left to the nodes lately: where nodes have nowhere else to go, that is why they fail.
// It is a note below the table, so an error of it is not told.
func (f *failureFlags) left(ctx context.Context, q url.Values, now time.Time) string {
	q = maps.Clone(q)
	q.Set("declined", "true")
	q.Set("limit", "1000")
	since := now.Add(-lately)
	if t, err := time.Parse(time.RFC3339, f.since); err != nil || t.Before(since) {
		q.Set("since", since.UTC().Format(time.RFC3339))
	}
	list, _, err := f.list(ctx, q)
	if err != nil {
		return ""
	}
	images := make(map[string]bool)
	for _, x := range list.Failures {
		if x.Outcome == journal.Declined {
			images[x.Image] = true
		}
	}
	if len(images) == 0 {
		return ""
	}
	return fmt.Sprintf("\nPulls of %d image%s were left to the nodes in the last hour; --declined shows them.\n", len(images),
		choose(len(images) == 1, "", "s"))
}

// counted are the words of --by.
var counted = []string{"class", "reason", "image", "client"}

// classes are the words of --class.
func classes() (words []string) {
	for _, c := range diagnose.Classes() {
		words = append(words, string(c))
	}
	return words
}

// reasons are the words of --reason.
func reasons() (words []string) {
	for _, r := range diagnose.Reasons() {
		words = append(words, string(r))
	}
	slices.Sort(words)
	return words
}

// moment is a time, or how long ago it was, as RFC 3339 has it. Empty stays empty.
func moment(text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := admin.Since(text, now)
	if err != nil {
		return "", err
	}
	return t.Format(time.RFC3339Nano), nil
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
	case f.output.encoded():
		return f.print(out, body)
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
	switch ip, err := netip.ParseAddr(client); {
	case err != nil:
	case ip.IsLoopback():
		return client + ", the mirror's own machine"
	default:
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
	if f.output.encoded() {
		return f.print(out, body)
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
	wide := f.output.form == "wide"
	for first := true; ; first = false {
		list, _, err := f.list(ctx, q)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		now := make(map[string]int64, len(list.Failures))
		for i, x := range slices.Backward(list.Failures) { // the last seen is the first
			k := x.ID + string(x.Outcome)
			now[k] = x.Count
			if seen[k] >= x.Count || first && i >= f.limit {
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
