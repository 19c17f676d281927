package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/oci"
)

func newTagsPinCmd() *cobra.Command {
	var flags adminFlags
	var at, until, reason string
	cmd := &cobra.Command{
		Use:   "pin IMAGE@DIGEST | IMAGE --at TIME",
		Short: "Fix a tag to one image, until it is unpinned or until a time",
		Long: `Fix a tag to one image: every pull of the tag gets it, whatever the registry says. The
image may be any that the tag has meant, or another one of the repository. What is missing
of it is fetched first; if that can't be done nothing changes. Its content is kept from
eviction while the pin lasts, so a pin works while the registry is down. Take the digest
from mirror tags show -o wide: the one that a node reports may be that of one platform.

A pin is a way out of an incident, not a way of life: give it an end and a reason, and put
the digest into your manifests (mirror tags pins -o kustomize).

Exit codes: 0 pinned; 1 the image could not be fetched, or the mirror refused the request;
2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror tags pin ghcr.io/acme/app:main@sha256:8d3f... --until 24h --reason "INC-12"
  mirror tags pin ghcr.io/acme/app:main --at 2026-11-01T10:00:00Z`,
		Args: oneArg("an image with its tag, as in ghcr.io/acme/app:main@sha256:8d3f..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			image, digest, _ := strings.Cut(args[0], "@")
			request := admin.PinRequest{Image: image, Digest: digest, Reason: reason}
			if (digest == "") == (at == "") {
				return fmt.Errorf("%s needs either a digest, IMAGE@sha256:..., or --at with the time at which the tag meant the image", called(cmd))
			}
			if !strings.Contains(path.Base(image), ":") {
				return fmt.Errorf("write the tag that is to be pinned: %s:TAG@%s", image, choose(digest == "", "sha256:...", digest))
			}
			var err error
			if at != "" {
				if request.At, err = admin.Since(at, now); err != nil {
					return fmt.Errorf("--at %s: %w", at, err)
				}
			}
			if until != "" {
				end, err := ahead(until, now)
				if err != nil {
					return fmt.Errorf("--until %s: %w", until, err)
				}
				request.Until = &end
			}
			body, err := flags.change(cmd.Context(), http.MethodPut, "pins", nil, request)
			if err != nil {
				return err
			}
			return show(cmd, &flags, body, "a pin", func(p admin.Pin) string {
				text := fmt.Sprintf("%s is pinned to %s%s\n", p.Image, p.Digest, choose(p.Until.IsZero(), "; mirror tags unpin ends it", " until "+p.Until.Format(time.RFC3339)))
				if p.NotSeen != nil {
					text += "The tag was " + gapText(p.NotSeen) + "\n"
				}
				return text
			})
		},
	}
	flags.add(cmd, false)
	cmd.Flags().StringVar(&at, "at", "", "pin what the tag meant at a `time`: RFC 3339, or how long ago (2h, 7d)")
	cmd.Flags().StringVar(&until, "until", "", "when the pin ends: RFC 3339, or in how long (24h, 7d); without it it has no end")
	cmd.Flags().StringVar(&reason, "reason", "", "why, in one line; it is shown with the pin")
	return cmd
}

// ahead is a time in the future: RFC 3339, or in how long.
func ahead(text string, now time.Time) (time.Time, error) {
	t, err := admin.Since(text, now)
	if err != nil {
		return now, err
	}
	if t.Before(now) { // it was how long ago
		if _, err := time.Parse(time.RFC3339, text); err == nil {
			return now, errors.New("that time is over")
		}
		t = now.Add(now.Sub(t))
	}
	return t, nil
}

func newTagsUnpinCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "unpin IMAGE",
		Short: "End a pin: the tag means again what the registry says",
		Long: `End a pin: the tag means again what the registry says. A pin of the configuration is
removed there.

Exit codes: 0 done; 1 the tag is not pinned, or the mirror refused the request; 2 wrong
usage; 4 no mirror answers.`,
		Example: `  mirror tags unpin ghcr.io/acme/app:main`,
		Args:    oneArg("an image with its tag, as in ghcr.io/acme/app:main"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := flags.change(cmd.Context(), http.MethodDelete, "pins", url.Values{"image": {args[0]}}, nil); err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), args[0]+" is no longer pinned: it means again what its registry and the policy of tags say\n")
		},
	}
	flags.add(cmd, false)
	return cmd
}

func newTagsPinsCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "pins",
		Short: "List the pins, also in the form in which they go into Git",
		Long: `List the pins. -o also prints them in the form in which they go into Git, so that an
emergency pin becomes a commit: kustomize (images of a kustomization), helm (repository,
tag and digest, to be copied into values), config (pins of the mirror's configuration).

Exit codes: 0 shown; 1 the mirror refused the request; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror tags pins
  mirror tags pins -o kustomize`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := flags.get(cmd.Context(), "pins", nil)
			if err != nil {
				return err
			}
			form := string(flags.output)
			if !slices.Contains([]string{pinsKustomize, pinsHelm, pinsConfig}, form) {
				return show(cmd, &flags, body, "a list of pins", func(l admin.PinList) string { return pinsText(l.Pins, flags.output.wide(), time.Now()) })
			}
			var l admin.PinList
			if err := flags.decode(body, &l, "a list of pins"); err != nil {
				return err
			}
			text, err := pinsFor(form, l.Pins)
			if err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), text)
		},
	}
	flags.add(cmd, true, pinsKustomize, pinsHelm, pinsConfig)
	return cmd
}

func pinsText(pins []admin.Pin, wide bool, now time.Time) string {
	if len(pins) == 0 {
		return "No tag is pinned.\n"
	}
	var t table
	for _, p := range pins {
		t.row(p.Image, shortDigest(p.Digest, wide), since(p.Since, now), choose(p.Until.IsZero(), "never", until(p.Until, now)), orDash(cmp.Or(p.Operator, p.By)), p.Reason)
	}
	return t.under("IMAGE", "DIGEST", "SINCE", "ENDS", "SET BY", "REASON")
}

// The forms in which pins go into Git.
const (
	pinsKustomize = "kustomize"
	pinsHelm      = "helm"
	pinsConfig    = "config"
)

// pinsFor is the pins as a part of another file. Names and digests need no quotes in YAML.
func pinsFor(form string, pins []admin.Pin) (string, error) {
	var b strings.Builder
	switch form {
	case pinsKustomize:
		b.WriteString("# name: as the manifests write it; kustomize goes by the name alone, whatever the tag is\nimages:\n")
	case pinsHelm:
		b.WriteString("images:\n")
	case pinsConfig:
		b.WriteString("upstreams:\n")
	}
	refs := make([]oci.Ref, len(pins))
	tags := make(map[oci.Repo]int) // that are pinned
	for i, p := range pins {
		ref, err := oci.ParseRef(p.Image)
		if err != nil {
			return "", fmt.Errorf("pin %s: %w", p.Image, err)
		}
		refs[i] = ref
		tags[ref.Repo]++
	}
	host := ""
	for i, p := range pins {
		ref := refs[i]
		switch form {
		case pinsKustomize:
			off := "" // an entry would set the digest of the other tags as well
			if tags[ref.Repo] > 1 {
				off = "# "
				if i == 0 || refs[i-1].Repo != ref.Repo { // sorted by image
					fmt.Fprintf(&b, "  # %d tags of %s are pinned: use one entry, or write the digests into the manifests\n", tags[ref.Repo], ref.Repo)
				}
			}
			fmt.Fprintf(&b, "  %s- name: %s # tag %s\n  %s  digest: %s\n", off, ref.Repo, ref.Tag, off, p.Digest)
		case pinsHelm:
			fmt.Fprintf(&b, "  - repository: %s\n    tag: %q\n    digest: %s\n", ref.Repo, ref.Tag, p.Digest)
		case pinsConfig:
			if ref.Host != host { // sorted by image
				host = ref.Host
				fmt.Fprintf(&b, "  %q:\n    pins:\n", host)
			}
			fmt.Fprintf(&b, "      %s:%s: %s\n", ref.Name, ref.Tag, p.Digest)
		}
	}
	return b.String(), nil
}
