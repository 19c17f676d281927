package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/demo"
)

func newDemoCmd() *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:        "demo",
		SuggestFor: []string{"tour", "example", "try", "quickstart"},
		Short:      "Show in a few seconds how the mirror explains failing pulls",
		Long: `Show in a few seconds what a node prints when pulls fail, without the mirror and with it,
and what the mirror has recorded. Registries, mirror and client run in this process, on
ports of 127.0.0.1. The demo needs no network, Docker or root, and leaves nothing behind.
The client pulls as containerd does and prints what containerd prints; addresses are shown
as the names of the registries.

With --stay the mirror keeps running until Ctrl-C, so that you can try other commands.

Exit codes: 0 shown; 1 it failed; 2 wrong usage.`,
		Example: `  mirror demo
  mirror demo --stay`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := showDemo(cmd.Context(), cmd.OutOrStdout(), stay); err != nil {
				return &exitError{exitFailed, fmt.Errorf("demo: %w", err)}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&stay, "stay", false, "keep the mirror running until Ctrl-C")
	return cmd
}

// act is a part of the demo: a pull without the mirror, and with it.
type act struct {
	host, title, about string
	kind               demo.Kind
	settings           string // of the upstream besides its endpoint
	down               bool   // the registry goes down after the first pull through the mirror
}

var acts = []act{
	{
		host: "shop.example", kind: demo.Private, title: "The password has expired",
		about:    "The registry of a private image rejects the password, in the pod's secret and in the mirror.",
		settings: ", access: rules, credentials: [{name: shop-pull, username: ci-bot, passwordFile: shop.pass}]",
	},
	{
		host: "hub.example", kind: demo.Limiting, title: "The rate limit is reached",
		about: "The registry has a limit of pulls for each address.",
	},
	{
		host: "lab.example", kind: demo.Portal, title: "It is not a registry",
		about: "The network requires a login, and answers for the registry with a page of its own.",
	},
	{
		host: "team.example", kind: demo.Healthy, down: true, title: "The registry is down",
		about: "The image was pulled once through the mirror. Now the registry does not answer any more.",
		// The tag is checked at each pull, so that the failing check shows.
		settings: ", tags: {maxAge: 0s}",
	},
}

// stage has the registries and the mirror of the demo.
type stage struct {
	out        io.Writer
	registries []*demo.Registry
	names      *strings.Replacer // addresses to names
	app        *app.App
}

func showDemo(ctx context.Context, out io.Writer, stay bool) (err error) {
	dir, err := os.MkdirTemp("", "mirror-demo-")
	if err != nil {
		return fmt.Errorf("%w; set TMPDIR to a folder that this user can write to", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &stage{out: out}
	defer func() {
		for _, r := range s.registries {
			_ = r.Close()
		}
	}()
	if err := s.open(ctx, dir); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.app.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	for i, a := range acts {
		if err := s.play(ctx, i, a); err != nil {
			return err
		}
	}
	if err := s.record(ctx); err != nil {
		return err
	}
	if stay {
		return s.stay(ctx)
	}
	return write(s.out, "This was a demo. To run a mirror: mirror serve; README.md says how to point clients at it.\n")
}

// open starts the registries and makes the mirror.
func (s *stage) open(ctx context.Context, dir string) error {
	var names []string
	var text strings.Builder
	text.WriteString("listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ndrain: 1s\ncache: {dir: data, size: 1GiB, minFree: 0}\n" +
		"rules: [{who: [anonymous], pull: ['shop.example/**']}]\nupstreams:\n")
	for _, a := range acts {
		r, err := demo.Start(ctx, a.kind)
		if err != nil {
			return err
		}
		s.registries = append(s.registries, r)
		names = append(names, "http://"+r.Addr(), "https://"+a.host, r.Addr(), a.host)
		fmt.Fprintf(&text, "  %s: {endpoints: ['http://%s']%s}\n", a.host, r.Addr(), a.settings)
	}
	if err := os.WriteFile(filepath.Join(dir, "shop.pass"), []byte("last year's password\n"), 0o600); err != nil {
		return err
	}
	c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte(text.String()), nil)
	if err != nil {
		return err
	}
	s.app, err = app.New(ctx, app.Options{Config: c, Version: versionText(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	s.names = strings.NewReplacer(append(names, s.app.Addr().String(), "127.0.0.1:5000")...)
	return nil
}

// play plays one act.
func (s *stage) play(ctx context.Context, i int, a act) error {
	mirror, registry := "http://"+s.app.Addr().String(), s.registries[i]
	if a.down {
		if _, err := demo.Pull(ctx, mirror, a.host, a.host); err != nil {
			return err
		}
		if err := registry.Close(); err != nil {
			return err
		}
	}
	_, without := demo.Pull(ctx, "http://"+registry.Addr(), a.host, "")
	got, with := demo.Pull(ctx, mirror, a.host, a.host)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := fmt.Sprintf("%d  %s\n   %s\n\n", i+1, a.title, a.about)
	text += s.printed("without", without, got)
	text += s.printed("with", with, got)
	return write(s.out, text+"\n")
}

// printed is what the node prints about a pull, in lines that fit a terminal.
func (s *stage) printed(name string, err error, got demo.Pulled) string {
	text := fmt.Sprintf("pulled %s, %s of it from the mirror's cache", amount(got.Bytes), choose(got.Stale, "all", "some"))
	if err != nil {
		text = s.names.Replace(err.Error())
	}
	const width = 86
	var b strings.Builder
	line := fmt.Sprintf("   %-9s", name)
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && len(strings.TrimSpace(line)) > 0 {
			b.WriteString(line + "\n")
			line = strings.Repeat(" ", 12)
		}
		line += choose(strings.HasSuffix(line, " "), "", " ") + word
	}
	return b.String() + line + "\n"
}

// record shows the output of mirror failures.
func (s *stage) record(ctx context.Context) error {
	mirror := adminFlags{url: "http://" + s.app.AdminAddr().String()}
	list, _, err := mirror.failures(ctx, nil)
	if err != nil {
		return err
	}
	text := failuresText(list.Failures, false, time.Now())
	return write(s.out, "mirror failures then shows:\n\n"+s.names.Replace(text)+"\n")
}

// stay keeps the mirror running.
func (s *stage) stay(ctx context.Context) error {
	if err := write(s.out, fmt.Sprintf("The mirror runs until Ctrl-C. Try, in another terminal:\n\n  export MIRROR_ADMIN=http://%s\n"+
		"  mirror status\n  mirror upstreams\n  mirror failures --by class\n  curl -i http://%s/v2/%s/%s/manifests/%s\n",
		s.app.AdminAddr(), s.app.Addr(), acts[2].host, demo.Repository, demo.Tag)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
