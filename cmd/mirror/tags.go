package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/drift"
)

func newTagsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "tags",
		Aliases:    []string{"tag"},
		SuggestFor: []string{"history", "drift", "pin", "pins", "rollback", "versions", "latest"},
		Short:      "Show what tags mean and meant, find drift, pin and refresh tags",
		Long: `Show what the tags that go through a running mirror mean and meant, which clients got
which image, and where one tag means different images; pin a tag to an image, and have the
mirror ask a registry again.`,
		Args: subcommand,
		RunE: help,
	}
	cmd.AddCommand(newTagsListCmd(), newTagsShowCmd(), newTagsDriftCmd(), newTagsPinCmd(), newTagsUnpinCmd(), newTagsPinsCmd(), newTagsRefreshCmd())
	return cmd
}

func newTagsListCmd() *cobra.Command {
	var flags adminFlags
	var floating bool
	var most limit
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tags in use",
		Long: `List the tags that clients pulled in the last 30 days, those that are pinned, and, where the
mirror may read the cluster (kubernetes.events), those that pods and workloads name, scaled
to zero or not. -o wide shows which. A tag is floating where it has moved, or where its name
is not that of one version (latest, main, 1.27): such a tag can mean another image tomorrow.

Exit codes: 0 shown; 1 the mirror refused the request; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror tags list
  mirror tags list --floating
  mirror tags list -o json | jq -r '.tags[] | select(.changes > 0).image'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"limit": {most.String()}}
			if floating {
				q.Set("floating", "true")
			}
			return showPath(cmd, &flags, "tags", q, "a list of tags", func(l admin.TagList) string {
				return tagsText(l, flags.output.wide(), time.Now())
			})
		},
	}
	flags.add(cmd, true)
	cmd.Flags().BoolVar(&floating, "floating", false, "only floating tags")
	addLimit(cmd, &most, "show at most so many tags, up to 1000")
	return cmd
}

func tagsText(list admin.TagList, wide bool, now time.Time) string {
	if len(list.Tags) == 0 {
		return "No tag was pulled in the last 30 days.\n" + notesText(list.Notes)
	}
	var t table
	t.row("IMAGE", "DIGEST", "CHECKED", "PULLED", "CLIENTS", "NOTES")
	for _, x := range list.Tags {
		var notes []string
		if x.Pinned {
			notes = append(notes, "pinned")
		}
		if x.Floating {
			notes = append(notes, "floating")
		}
		if x.Changes > 0 {
			notes = append(notes, "moved "+plural(x.Changes, "time", "times"))
		}
		if x.Uses > 0 {
			notes = append(notes, "used by "+choose(wide, strings.Join(x.UsedBy, " "), plural(x.Uses, "pod or workload", "pods and workloads")))
		}
		t.row(x.Image, shortDigest(x.Digest, wide), since(x.CheckedAt, now), since(x.LastPull, now), strconv.Itoa(x.Clients),
			strings.Join(notes, ", "))
	}
	return t.String() + moreText(list.Continue) + notesText(list.Notes)
}

// notesText says what could not be read.
func notesText(notes []string) (text string) {
	for _, n := range notes {
		text += "Note: " + n + "\n"
	}
	return text
}

// shortDigest is a digest that fits a table: sha256: and twelve digits tell images apart.
func shortDigest(d string, wide bool) string {
	const most = len("sha256:") + 12
	if wide || len(d) <= most {
		return d
	}
	return d[:most]
}

func newTagsShowCmd() *cobra.Command {
	var flags adminFlags
	var at string
	cmd := &cobra.Command{
		Use:        "show IMAGE",
		SuggestFor: []string{"history", "inspect", "get"},
		Short:      "Show what a tag means and meant, and which client got which image",
		Long: `Show what a tag means, when that was last checked, its pin, its history as the mirror has
seen it, and which client last got which image. With --at, show what the tag meant at that
time.

SOURCE says how the mirror learnt the digest: pull (a client), check (of an older copy),
webhook, warm or schedule. HERE says whether all that nodes pull of the image is in the
cache, so that a pin needs no registry. A tag that went back to an earlier image is marked
as a reversion.

Exit codes: 0 shown; 1 the mirror refused the request, or does not know the tag; 2 wrong
usage; 4 no mirror answers.`,
		Example: `  mirror tags show nginx:1.27
  mirror tags show ghcr.io/acme/app:main --at 2026-11-01T10:00:00Z
  mirror tags show ghcr.io/acme/app:main --at 2d -o json | jq -r .digest`,
		Args: oneArg("an image with its tag, as in docker.io/library/nginx:1.27"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"image": {args[0]}}
			when, err := moment(at, time.Now())
			if err != nil {
				return fmt.Errorf("--at %s: %w", at, err)
			}
			if when != "" {
				q.Set("at", when)
			}
			return showPath(cmd, &flags, "tags", q, "a tag", func(x admin.Tag) string { return tagText(x, flags.output.wide(), time.Now()) })
		},
	}
	flags.add(cmd, true)
	cmd.Flags().StringVar(&at, "at", "", "what the tag meant at a `time`: RFC 3339, or how long ago (2h, 7d)")
	return cmd
}

func tagText(x admin.Tag, wide bool, now time.Time) string {
	var t table
	t.field("image", "%s", x.Image)
	switch {
	case !x.At.IsZero():
		t.field("at", "%s", x.At.Format(time.RFC3339))
		t.field("meant", "%s", x.Digest)
		if x.NotSeen != nil {
			t.field("", "%s", gapText(x.NotSeen))
		}
	default:
		t.field("means", "%s", x.Digest)
		t.field("checked", "%s", since(x.CheckedAt, now))
		if x.Served != "" {
			t.field("pulls get", "%s (%s%s)", x.Served, heldBy[x.HeldBy], choose(x.HeldUntil.IsZero(), "", ", until "+x.HeldUntil.Format(time.RFC3339)))
		}
	}
	if p := x.Pin; p != nil {
		t.field("pinned", "to %s%s%s%s", p.Digest, choose(p.Operator == "", "", " by "+p.Operator),
			choose(p.Until.IsZero(), "", ", until "+p.Until.Format(time.RFC3339)), choose(p.Reason == "", "", ": "+p.Reason))
	}
	text := t.String()
	var h table
	for _, s := range x.History {
		h.row(shortDigest(s.Digest, wide), s.FirstSeen.Format(time.RFC3339), s.LastSeen.Format(time.RFC3339), orDash(string(s.Source)),
			choose(s.Size > 0, amount(s.Size), "-"), orDash(strings.Join(s.Platforms, " ")), choose(s.Complete, "all", "not all"), choose(s.Reversion, "reversion", ""))
	}
	text += "\n" + h.under("DIGEST", "FIRST SEEN", "LAST SEEN", "SOURCE", "SIZE", "PLATFORMS", "HERE", "")
	if len(x.Clients) == 0 {
		return text
	}
	var c table
	for _, k := range x.Clients {
		c.row(k.Client, shortDigest(k.Digest, wide), since(k.LastPull, now))
	}
	return text + "\n" + c.under("CLIENT", "GOT LAST", "PULLED")
}

// gapText says that a time lies in a gap of the history.
func gapText(g *admin.TagGap) string {
	return "not seen between " + g.From.Format(time.RFC3339) + " and " + g.To.Format(time.RFC3339) + "; this is the last image known before"
}

func newTagsDriftCmd() *cobra.Command {
	var flags adminFlags
	var fail bool
	var kind string
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Find tags that mean different images in different places",
		Long: `Find tags that mean different images in different places. There are three kinds:

pulled    clients got different images of one tag, as the mirror has seen it
running   pods run another image than their tag means now
restart   pods, and workloads without pods, that would get another image when they start

The last two need kubernetes.events: then the mirror may read the cluster's pods. An index
and the image of a platform in it are one image. Pinned and signature tags do not count.

Exit codes: 0 shown; 1 the mirror refused the request, or with --fail there is drift; 2
wrong usage; 4 no mirror answers.`,
		Example: `  mirror tags drift
  mirror tags drift --kind restart   # before a node is drained
  mirror tags drift --fail`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if kind != "" {
				q.Set("kind", kind)
			}
			body, err := flags.get(cmd.Context(), "tags/drift", q)
			if err != nil {
				return err
			}
			var d admin.DriftList
			if err := flags.decode(body, &d, "a list of drifting tags"); err != nil {
				return err
			}
			if err := printAnswer(cmd.OutOrStdout(), flags.output, body, d.Drift, driftText(d, flags.output.wide())); err != nil {
				return err
			}
			if fail && len(d.Drift) > 0 {
				return &exitError{exitFailed, fmt.Errorf("%s", plural(len(d.Drift), "case of drift", "cases of drift"))}
			}
			return nil
		},
	}
	flags.add(cmd, true)
	cmd.Flags().BoolVar(&fail, "fail", false, "exit with 1 if there is drift")
	addChoice(cmd, &kind, "kind", "", []string{string(drift.Pulled), string(drift.Running), string(drift.Restart)}, "only this `kind`: pulled, running, restart")
	return cmd
}

func driftText(d admin.DriftList, wide bool) string {
	var b strings.Builder
	for _, x := range d.Drift {
		fmt.Fprintf(&b, "%s  %s\n", x.Image, map[drift.Kind]string{
			drift.Pulled:  "clients got different images",
			drift.Running: "pods run another image than the tag means now",
			drift.Restart: "pods would get another image if they restarted",
		}[x.Kind])
		var t table
		for _, g := range x.Digests {
			places := append(append([]string{}, g.Clients...), g.Pods...)
			const most = 5
			if !wide && len(places) > most {
				places = append(places[:most:most], fmt.Sprintf("and %d more", len(places)-most))
			}
			t.row("  "+shortDigest(g.Digest, wide), choose(g.Current, "now", ""), strings.Join(places, ", "))
		}
		b.WriteString(t.String())
		if text := changeText(x.Change); text != "" {
			b.WriteString("  " + text + "\n")
		}
		b.WriteString("\n")
	}
	if len(d.Drift) == 0 {
		b.WriteString("No drift was found.\n")
	}
	return b.String() + notesText(d.Notes)
}

// changeText says what a restart would change, as far as it is known.
func changeText(c *drift.Change) string {
	if c == nil {
		return ""
	}
	var parts []string
	if !c.FromCreated.IsZero() && !c.ToCreated.IsZero() {
		parts = append(parts, fmt.Sprintf("built %s instead of %s", c.ToCreated.UTC().Format("2006-01-02 15:04"), c.FromCreated.UTC().Format("2006-01-02 15:04")))
	}
	if c.Layers > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s the same", c.LayersCommon, plural(c.Layers, "layer", "layers")))
	}
	if c.FromSize > 0 && c.ToSize > 0 {
		parts = append(parts, fmt.Sprintf("%s instead of %s", amount(c.ToSize), amount(c.FromSize)))
	}
	return strings.Join(parts, "; ")
}

func newTagsRefreshCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "refresh IMAGE",
		SuggestFor: []string{"check", "update", "sync"},
		Short:      "Have the mirror ask the registry now what a tag means",
		Long: `Have the mirror ask the registry now what a tag means, whatever the age of its copy: the
next pull gets what the registry answers, unless the tag is pinned, immutable, or held back
by minAge: then the command says what pulls get.

Exit codes: 0 done; 1 the registry did not answer, or the mirror refused the request; 2
wrong usage; 4 no mirror answers.`,
		Example: `  mirror tags refresh ghcr.io/acme/app:main`,
		Args:    oneArg("an image with its tag, as in ghcr.io/acme/app:main"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := flags.change(cmd.Context(), http.MethodPost, "tags/refresh", nil, admin.ImageRequest{Image: args[0]})
			if err != nil {
				return err
			}
			return show(cmd, &flags, body, "the result of a check", func(r admin.Refreshed) string {
				text := r.Image + choose(r.Changed, " means now ", " still means ") + r.Digest + " at its registry\n"
				if r.Served != "" {
					text += "Pulls get " + r.Served + " (" + heldBy[r.HeldBy] + ")\n"
				}
				return text
			})
		},
	}
	flags.add(cmd, false)
	return cmd
}

// heldBy says why pulls get another image than the registry has.
var heldBy = map[string]string{
	"pin": "the tag is pinned", "immutable": "the tag is immutable", "minAge": "the new image is held back by minAge",
}

// change sends a request that changes something; in is its body, or nil.
func (f *adminFlags) change(ctx context.Context, method, path string, query url.Values, in any) ([]byte, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, err
		}
	}
	got, err := f.ask(func(c *client.Client) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, changeTime)
		defer cancel()
		return c.Do(ctx, method, path, query, body)
	})
	if refused, ok := errors.AsType[*client.Refused](err); ok && len(refused.Problems) > 0 {
		return nil, &exitError{exitFailed, fmt.Errorf("%w\n  %s", err, strings.Join(refused.Problems, "\n  "))}
	}
	return got, err
}

// changeTime is how long a change may take: a pin fetches what is missing of an image.
const changeTime = time.Hour
