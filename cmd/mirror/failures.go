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
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/journal"
)

// watchEvery is how often --watch asks the mirror.
const watchEvery = 2 * time.Second

type failureFlags struct {
	adminFlags
	by, since, image, client, reason, class string
	declined, watch                         bool
	limit                                   limit
}

func newFailuresCmd() *cobra.Command {
	var f failureFlags
	cmd := &cobra.Command{
		Use:        "failures [ID]",
		SuggestFor: []string{"errors", "events", "failed", "failure", "list"},
		Short:      "Show why pulls failed, and what to do",
		Long: `Show why pulls failed, and what to do. A running mirror has recorded each failure with its
cause and remedy; the failure seen last comes first. The same reason for the same image at
the same host is one failure, with a count of pulls. With an ID, the eight digits in
brackets in the node's event, the command shows everything that is known of that failure.

A pull that succeeded in the end is not a failure, nor are look-ups and probes. A declined
pull is one that the mirror refused because it has no credential or no such upstream; the
node then went on to the registry with its own credential. --declined shows these, too.

The mirror keeps 1,000 failures for a week, over restarts.

Exit codes: 0 shown, however many there are; 1 the mirror refused the request, or knows no
such ID; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror failures
  mirror failures 7f3a9c2e
  mirror failures --by class --since 1h
  mirror failures --image 'docker.io/acme/*' --watch
  mirror failures -o json | jq -r '.failures[].remedy'`,
		Args: mostOneArg("one ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, args)
		},
	}
	f.add(cmd, true)
	flags := cmd.Flags()
	addChoice(cmd, &f.by, "by", "", []string{"class", "reason", "image", "client"},
		"count the pulls instead, by class, reason, image or client")
	flags.StringVar(&f.since, "since", "", "only failures seen since: a duration (1h30m, 1d) or a time (RFC 3339)")
	addChoice(cmd, &f.reason, "reason", "", sortedWords(diagnose.Reasons()), "only this `reason`, for example tag-not-found")
	classes := sortedWords(diagnose.Classes())
	addChoice(cmd, &f.class, "class", "", classes, "only this `class`: "+strings.Join(classes, ", "))
	flags.StringVar(&f.image, "image", "", "only this image or repository; * stands for any characters")
	flags.StringVar(&f.client, "client", "", "only failures that this node or address met")
	flags.BoolVar(&f.declined, "declined", false, "list declined pulls, which were left to the node, beside those that failed")
	flags.BoolVar(&f.watch, "watch", false, "keep showing new failures, until interrupted")
	addLimit(cmd, &f.limit, "show at most so many failures, up to 1000; with --watch at most so many earlier ones")
	completes(cmd, "since", "1h", "1d", "7d")
	return cmd
}

func (f *failureFlags) run(cmd *cobra.Command, args []string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	since, err := moment(f.since, time.Now())
	if err != nil {
		return fmt.Errorf("--since %s: %w", f.since, err)
	}
	f.since = since
	if f.watch && (f.by != "" || f.output.encoded() || len(args) > 0) {
		return errors.New("--watch can't be combined with --by, -o json, -o yaml or an ID")
	}
	q := f.query()
	switch {
	case f.by != "":
		return f.counts(cmd, q)
	case len(args) == 1:
		return f.one(cmd, strings.Trim(args[0], "[]"))
	case f.watch:
		return f.follow(ctx, out, q)
	}
	filtered := len(q) > 0
	q.Set("limit", f.limit.String())
	list, body, err := f.failures(ctx, q)
	if err != nil {
		return err
	}
	if f.output.encoded() {
		return f.output.print(out, body)
	}
	text := "No pull has failed" + choose(filtered, " that matches", "") + ".\n"
	if len(list.Failures) > 0 {
		text = failuresText(list.Failures, f.output.wide(), time.Now())
	}
	if list.Continue != "" {
		text += "\nThere are more: --limit shows up to 1000; --since, --image and --class select.\n"
	}
	if !f.declined {
		text += f.left(ctx, q, time.Now())
	}
	return write(out, text)
}

// query is the flags as parameters of the API.
func (f *failureFlags) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{
		"since": f.since, "reason": f.reason, "class": f.class, "image": f.image, "client": f.client,
		"declined": choose(f.declined, "true", ""),
	} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return q
}

// lately is the time for which declined pulls are announced.
const lately = time.Hour

// left is a note about how many images were left to the nodes lately: where nodes have nowhere else to go, that is why
// their pulls fail. It stands below the table, so its own error is not reported.
func (f *failureFlags) left(ctx context.Context, q url.Values, now time.Time) string {
	q = maps.Clone(q)
	q.Set("declined", "true")
	q.Set("limit", "1000")
	since := now.Add(-lately)
	if t, err := time.Parse(time.RFC3339, f.since); err != nil || t.Before(since) {
		q.Set("since", since.UTC().Format(time.RFC3339))
	}
	list, _, err := f.failures(ctx, q)
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
	return fmt.Sprintf("\nPulls of %s were left to the nodes in the last hour; --declined shows them.\n", plural(len(images), "image", "images"))
}

// sortedWords are the words of a flag.
func sortedWords[W ~string](list []W) (words []string) {
	for _, w := range list {
		words = append(words, string(w))
	}
	slices.Sort(words)
	return words
}

// moment is a time, given as such or as how long ago it was, in the form of RFC 3339. Empty stays empty.
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

// failures requests failures.
func (f *adminFlags) failures(ctx context.Context, q url.Values) (list admin.FailureList, body []byte, err error) {
	if body, err = f.get(ctx, "failures", q); err != nil {
		return list, nil, err
	}
	return list, body, f.decode(body, &list, "a list of failures")
}

// one shows everything that is known of a failure.
func (f *failureFlags) one(cmd *cobra.Command, id string) error {
	list, body, err := f.failures(cmd.Context(), url.Values{"id": {id}, "declined": {"true"}})
	switch {
	case err != nil:
		return err
	case len(list.Failures) == 0:
		return &exitError{exitFailed, fmt.Errorf("the mirror knows no failure %s; it keeps them for a week, and "+
			"another mirror may have met it", id)}
	case f.output.encoded():
		return f.output.print(cmd.OutOrStdout(), body)
	}
	now := time.Now()
	var texts []string
	for _, x := range list.Failures {
		texts = append(texts, detail(x, now))
	}
	return write(cmd.OutOrStdout(), strings.Join(texts, "\n"))
}

// detail is everything that is known of a failure.
func detail(x admin.Failure, now time.Time) string {
	var t table
	row := func(name, value string) {
		if value != "" {
			t.row(name, value)
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
		row("status", strconv.Itoa(x.Status))
	}
	row("pulls", strconv.FormatInt(x.Count, 10))
	row("first", x.FirstSeen.Format(time.RFC3339)+", "+since(x.FirstSeen, now))
	row("last", x.LastSeen.Format(time.RFC3339)+", "+since(x.LastSeen, now))
	for _, c := range ranked(x.Clients) {
		row("client", fmt.Sprintf("%s (%d)", clientText(c), x.Clients[c]))
	}
	row("agent", x.UserAgent)
	for _, e := range x.Evidence {
		row("evidence", e)
	}
	return fmt.Sprintf("%s\n%s\n\n%s", sentence(x.Summary), sentence(x.Remedy), &t)
}

// clientText is a client. An address may stand for many of them: behind a NAT, for a whole cluster.
func clientText(client string) string {
	ip, err := netip.ParseAddr(client)
	if err != nil {
		return client
	}
	return client + choose(ip.IsLoopback(), ", the mirror's own machine", ", perhaps shared")
}

// sentence is text with a full stop at its end.
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
func (f *failureFlags) counts(cmd *cobra.Command, q url.Values) error {
	return showPath(cmd, &f.adminFlags, "failures/summary", q, "a summary of failures", func(s admin.FailureSummary) string {
		counts := map[string]map[string]int64{"class": s.Classes, "reason": s.Reasons, "image": s.Images, "client": s.Clients}[f.by]
		var t table
		t.row(strings.ToUpper(f.by), "PULLS")
		var total int64
		for _, k := range ranked(counts) {
			t.field(choose(f.by == "client", clientText(orDash(k)), orDash(k)), "%d", counts[k])
			total += counts[k]
		}
		t.field("total", "%d", total)
		return t.String()
	})
}

// follow shows new failures as they come.
func (f *failureFlags) follow(ctx context.Context, out io.Writer, q url.Values) error {
	q.Set("limit", "1000")
	seen := make(map[string]int64)
	wide := f.output.wide()
	for first := true; ; first = false {
		list, _, err := f.failures(ctx, q)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		now := make(map[string]int64, len(list.Failures))
		for i, x := range slices.Backward(list.Failures) { // the one seen last is the first
			k := x.ID + string(x.Outcome)
			now[k] = x.Count
			if seen[k] >= x.Count || first && i >= int(f.limit) {
				continue
			}
			line := fmt.Sprintf("%s  %s  %s  %s  (%s%s)\n  %s; %s\n", x.LastSeen.Format(time.RFC3339), x.ID, x.Reason,
				orDash(x.Image), x.Client, choose(x.Count > 1, fmt.Sprintf(", %d pulls so far", x.Count), ""),
				shorten(x.Summary, wide), shorten(x.Remedy, wide))
			if err := write(out, line); err != nil {
				return err
			}
		}
		seen = now
		if !backoff.Wait(ctx, watchEvery) {
			return nil
		}
	}
}

// failuresText has for each failure a row of the table, and below it why the pulls failed and what to do: a table with
// sentences in it fits no terminal.
func failuresText(list []admin.Failure, wide bool, now time.Time) string {
	var t table
	head := []string{"ID", "REASON", "IMAGE", "PULLS", "LAST SEEN", "CLIENT"}
	if wide {
		head = append(head, "HOST", "OUTCOME", "FIRST SEEN")
	}
	t.row(head...)
	for _, x := range list {
		client := x.Client
		if n := len(x.Clients); n > 1 {
			client += fmt.Sprintf(" and %d more", n-1)
		}
		cells := []string{
			x.ID, string(x.Reason), orDash(x.Image), strconv.FormatInt(x.Count, 10), since(x.LastSeen, now), orDash(client),
		}
		if wide {
			cells = append(cells, orDash(x.Host), string(x.Outcome), since(x.FirstSeen, now))
		}
		t.row(cells...)
	}
	lines := t.lines()
	for i, x := range list {
		lines[i+1] += fmt.Sprintf("\n  %s\n  > %s", x.Summary, x.Remedy)
	}
	return strings.Join(lines, "\n") + "\n"
}
