package main

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/node"
)

func newDoctorNodeCmd() *cobra.Command {
	var flags adminFlags
	var root, image string
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Check whether this node really pulls through the mirror",
		Long: `Check whether this node really pulls through the mirror. The command reads the files of the
container runtimes on this node: config.toml of containerd with its imports, the hosts.toml
files, settings of the snapshotters SOCI, stargz and nydus, registries.yaml of k3s and RKE2,
daemon.json of Docker, registries.conf of Podman and CRI-O, and the environment of their
systemd units, for a proxy. It explains what keeps images from going through the mirror, with
file and line. Then it asks each mirror that the files
name, for some seconds at most: whether it answers this node, whether it is this program,
its certificate, its clock.

With --image it also asks for the manifest of an image, as containerd would, at the mirror
that the files have for that registry. With --admin or MIRROR_ADMIN it looks for that pull in
the record of the running mirror. Nothing is written.

In a pod, run it with hostNetwork, and with the node's root mounted read-only: --root /host.

Exit codes: 0 the node pulls through the mirror (there may be warnings); 1 it does not, or not
for all images; 2 wrong usage; 4 no mirror answers at --admin.`,
		Example: `  mirror doctor node
  mirror doctor node --image ghcr.io/acme/app:v2 --admin http://127.0.0.1:5001
  mirror doctor node --root /host -o json | jq '.findings[].rule'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := regular.OpenRoot(root)
			if err != nil {
				return &exitError{exitFailed, fmt.Errorf("open the node's root: %w", err)}
			}
			defer func() { _ = dir.Close() }()
			r, err := examineNode(cmd.Context(), regular.Below(dir), image, &flags)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if err := flags.output.document(out, r, func() string { return nodeText(r, coloured(out)) }); err != nil {
				return err
			}
			if !r.OK {
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "`folder` at which the node's root is mounted")
	cmd.Flags().StringVar(&image, "image", "", "ask the mirror for the manifest of this `image` too")
	flags.add(cmd, false)
	cmd.Flags().Lookup("admin").Usage = "`URL` or HOST:PORT of the admin listener of the mirror, to look for --image in its record; variable MIRROR_ADMIN"
	return cmd
}

// nodeReport is what mirror doctor node has found, as -o json prints it.
type nodeReport struct {
	OK       bool           `json:"ok"`
	Findings []node.Finding `json:"findings"`
	Mirrors  []nodeMirror   `json:"mirrors"`
	Image    *nodeImage     `json:"image,omitempty"`
}

type nodeMirror struct {
	URL        string   `json:"url"`
	Client     string   `json:"client"`
	Registries []string `json:"registries"` // "*": all that have no other entry
	File       string   `json:"file"`
	Line       int      `json:"line"`
	Ours       bool     `json:"ours"` // this program answers there
	Took       string   `json:"took"`
}

type nodeImage struct {
	node.Tried
	Took     string `json:"took"`
	Recorded *bool  `json:"recorded,omitempty"` // nil: no record was asked
}

// examineNode checks the files below root, then the mirrors that they name, then the pull of an image; empty: of none.
func examineNode(ctx context.Context, root fs.FS, image string, flags *adminFlags) (*nodeReport, error) {
	found := node.Check(root)
	answers := found.AskAll(ctx, root)
	r := &nodeReport{Mirrors: make([]nodeMirror, len(answers))}
	for i, a := range answers {
		m := a.Mirror
		r.Mirrors[i] = nodeMirror{m.URL, m.Client, m.Registries, m.File, m.Line, a.Ours, a.Took.Round(time.Millisecond).String()}
	}
	if image != "" {
		tried, err := found.Try(ctx, root, answers, image)
		if err != nil {
			return nil, fmt.Errorf("--image: %w", err)
		}
		if tried != nil {
			r.Image = &nodeImage{Tried: *tried, Took: tried.Took.Round(time.Millisecond).String()}
		}
	}
	if r.Image != nil && r.Image.Status != "" && flags.url != "" {
		recorded, err := flags.inRecord(ctx, r.Image.Tried)
		if err != nil {
			return nil, err
		}
		r.Image.Recorded = &recorded
		if !recorded {
			found.Add(node.Finding{
				Rule: "not-recorded", Level: node.Broken, Cause: "the mirror at " + flags.url + " has no record of this request for " + r.Image.Image +
					": another one has answered at " + r.Image.Mirror, Remedy: "check which mirror --admin and the node's files mean; each replica has " +
					"a record of its own",
			})
		}
	}
	r.Findings, r.OK = found.Findings, !found.Broken()
	if r.Findings == nil {
		r.Findings = []node.Finding{}
	}
	return r, nil
}

// inRecord reports whether the running mirror has a record of the request of an image. It may be some moments late.
func (f *adminFlags) inRecord(ctx context.Context, tried node.Tried) (bool, error) {
	for attempt := range 3 {
		if attempt > 0 && !backoff.Wait(ctx, time.Second) {
			return false, &exitError{exitFailed, ctx.Err()}
		}
		for _, active := range []string{"true", "false"} {
			body, err := f.get(ctx, "pulls", url.Values{"active": {active}, "limit": {fmt.Sprint(maxLimit)}})
			if err != nil {
				return false, err
			}
			var list admin.PullList
			if err := f.decode(body, &list, "a list of pulls"); err != nil {
				return false, err
			}
			for _, p := range list.Pulls {
				if p.Image == tried.Image && (tried.Node == "" || p.Client == tried.Node) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// levelWords are the levels as they are shown, with their colours.
var levelWords = map[node.Level]struct{ word, colour string }{
	node.Broken:  {"BROKEN", "31"},
	node.Warning: {"warning", "33"},
	node.Note:    {"note", "90"},
}

// nodeText is a report for people: the mirrors, then each finding with its place and its remedy, then the result.
func nodeText(r *nodeReport, colour bool) string {
	var b strings.Builder
	if len(r.Mirrors) > 0 {
		var t table
		for _, m := range r.Mirrors {
			t.row(text.Line(m.URL, 300), choose(m.Ours, "yes", "NO"), m.Took, m.Client, text.Line(strings.Join(m.Registries, ", "), 1000))
		}
		b.WriteString(t.under("ADDRESS", "MIRROR", "TOOK", "OF", "FOR") + "\n")
	}
	for _, f := range r.Findings {
		w := levelWords[f.Level]
		word := w.word
		if colour {
			word = "\x1b[" + w.colour + "m" + word + "\x1b[0m"
		}
		place := text.Line(f.File, 300) // other programs name files
		if f.Line > 0 {
			place += fmt.Sprint(":", f.Line)
		}
		fmt.Fprintf(&b, "%s\n  %s\n  > %s\n\n", strings.TrimRight(word+"  "+f.Rule+"  "+place, " "), text.Line(f.Cause, 1000), text.Line(f.Remedy, 1000))
	}
	if i := r.Image; i != nil {
		// Why it was refused stands among the findings.
		fmt.Fprintf(&b, "%s: %s%s at %s, %s%s\n", i.Image, choose(strings.HasPrefix(i.Status, "200 "), i.Status, "refused"), choose(i.Digest == "", "", ", "+i.Digest),
			i.Mirror, i.Took, choose(i.Recorded != nil && *i.Recorded, ", and the mirror has recorded it", ""))
	}
	b.WriteString(choose(r.OK, "This node pulls through the mirror.\n", "This node does not pull all images through the mirror.\n"))
	return b.String()
}
