package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/warm/images"
)

// warmFlags are the flags of the commands that name images to warm up or to verify.
type warmFlags struct {
	adminFlags
	files, platforms, with []string
	keep                   string
	maxSize                config.Size
	dryRun, detach         bool
	standalone             bool

	places   map[string]images.Place // where an image was found first, by its canonical name
	problems []images.Problem        // parts of the files that could not be read
}

func newWarmCmd() *cobra.Command {
	var f warmFlags
	cmd := &cobra.Command{
		Use:        "warm IMAGE... [-f FILE]",
		SuggestFor: []string{"prefetch", "preload", "prepull", "pre-pull", "preheat", "warmup", "warm-up", "fetch", "pull", "cache"},
		Short:      "Fetch images into the cache before they are needed",
		Long: `Fetch images into the cache of a running mirror before they are needed, and wait until they
are there. Run it before a rollout: the exit code is 0 only if every image is in the cache.

Images are arguments, or are found in files: Kubernetes manifests of any kind, the output
of helm template, kustomize build and kubectl get pods -o json, Compose files, Helm values,
and lists of names. -f takes a file, a folder, or - for the standard input.

Only the platforms that are asked for are fetched, by default those of the setting
platforms. The download is slower than pulls on purpose: it takes no connection and no part
of a registry's rate limit that pulls need. What was fetched is kept from eviction for the
time of --keep.

On a terminal there is a bar for each image that is being fetched. Elsewhere there is a
line when an image is done, and a line about the progress every 30 seconds on the standard
error. When the command is interrupted, the job goes on in the mirror.

Exit codes: 0 every image is in the cache, or the plan is whole; 1 an image could not be
fetched or read, or the mirror refused the request; 2 wrong usage; 3 with --standalone:
another mirror uses the data folder; 4 no mirror answers.`,
		Example: `  mirror warm nginx:1.27 ghcr.io/acme/app:v2
  helm template ./chart | mirror warm -f -
  kubectl get pods -A -o json | mirror warm -f - --dry-run
  mirror warm -f deploy/ --platform linux/arm64 --keep 7d
  mirror warm nginx:1.27 -o ndjson | jq -r 'select(.failure).failure.remedy'`,
		Args: f.args,
		RunE: func(cmd *cobra.Command, args []string) error { return f.warm(cmd, args) },
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.keep, "keep", "", "how `long` the content is kept from eviction, as in 72h or 7d (default: the setting warm.keep)")
	cmd.Flags().Var(sizeFlag{&f.maxSize}, "max-size", "refuse the job if it is larger, as in 20GiB")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "fetch nothing; show what would be fetched, and what it costs")
	cmd.Flags().BoolVar(&f.detach, "detach", false, "do not wait; the job goes on in the mirror")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "detach")
	cmd.MarkFlagsMutuallyExclusive("standalone", "detach")
	completes(cmd, "keep", "24h", "72h", "7d")
	cmd.AddCommand(newWarmVerifyCmd(), newWarmListCmd(), newWarmShowCmd(), newWarmCancelCmd())
	return cmd
}

// add adds the flags that warm and verify have.
func (f *warmFlags) add(cmd *cobra.Command) {
	f.adminFlags.add(cmd, true, ndjson)
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "`file`, folder or - (standard input) with images; may be repeated")
	flags.StringSliceVar(&f.platforms, "platform", nil, "only this `platform`, as in linux/arm64; may be repeated (default: the setting platforms)")
	flags.StringSliceVar(&f.with, "with", nil, "also signatures, referrers, or both: signatures,referrers")
	flags.BoolVar(&f.standalone, "standalone", false, "use the cache folder of --config without a running mirror")
	completesFiles(cmd, "file", "yaml", "yml", "json", "txt")
	completes(cmd, "platform", "linux/amd64", "linux/arm64")
	completes(cmd, "with", "signatures", "referrers", "signatures,referrers")
}

// sizeFlag is a flag whose value is a size.
type sizeFlag struct{ size *config.Size }

// Set takes a value.
func (f sizeFlag) Set(v string) error {
	if err := f.size.UnmarshalText([]byte(v)); err != nil {
		return &flagValueError{fmt.Sprintf("--max-size %s: must be a size, as in 20GiB", v)}
	}
	if *f.size == 0 {
		return &flagValueError{fmt.Sprintf("--max-size %s: must be more than 0; leave it out for the setting warm.maxBytes", v)}
	}
	return nil
}

func (f sizeFlag) String() string {
	if f.size == nil || *f.size == 0 {
		return ""
	}
	return f.size.String()
}

// Type is what the help calls the value.
func (f sizeFlag) Type() string { return "size" }

// args is the Args of a command that takes images. A word that is nearly a subcommand is not taken for an image.
func (f *warmFlags) args(cmd *cobra.Command, args []string) error {
	if len(args) == 0 && len(f.files) == 0 {
		return fmt.Errorf("%s needs images, or files with -f", called(cmd))
	}
	if len(args) > 0 && !strings.ContainsAny(args[0], "./:@") {
		cmd.SuggestionsMinimumDistance = 1
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%q is not a command of %s; did you mean %q? The image is docker.io/library/%s", args[0], called(cmd), near[0], args[0])
		}
	}
	return nil
}

// request is what the command line asks for. What can't be read of the files is printed, and the rest is used.
func (f *warmFlags) request(cmd *cobra.Command, args []string) (admin.WarmRequest, error) {
	r := admin.WarmRequest{Images: args, Platforms: f.platforms, Keep: f.keep, With: f.with, MaxSize: int64(f.maxSize)}
	for _, name := range []string{"keep", "platform", "with"} {
		if flag := cmd.Flag(name); flag != nil && flag.Changed && strings.Trim(flag.Value.String(), "[]") == "" {
			return r, fmt.Errorf("--%s is empty; leave it out for the default", name)
		}
	}
	if f.keep != "" {
		if _, err := admin.KeepTime(f.keep); err != nil {
			return r, fmt.Errorf("--keep %s: %w", f.keep, err)
		}
	}
	if len(f.files) == 0 {
		return r, nil
	}
	found, err := awaited(cmd.Context(), func() (images.Result, error) { return images.ReadAll(f.files, cmd.InOrStdin(), images.Options{}) })
	if err != nil {
		return r, &exitError{exitFailed, err}
	}
	f.problems = found.Problems
	for _, p := range found.Problems {
		p.Place = shownPlace(p.Place)
		fmt.Fprintln(cmd.ErrOrStderr(), p)
	}
	f.places = make(map[string]images.Place, len(found.Images))
	for _, x := range found.Images {
		if len(x.Places) > 0 {
			f.places[x.Ref.String()] = shownPlace(x.Places[0])
		}
		if !slices.Contains(args, x.Image) {
			r.Images = append(r.Images, x.Image)
		}
	}
	if len(r.Images) == 0 {
		return r, &exitError{exitFailed, f.nothing()}
	}
	return r, nil
}

// nothing is the error for files without an image.
func (f *warmFlags) nothing() error {
	if slices.Equal(f.files, []string{"-"}) {
		return errors.New("no image was found in the standard input; run the program in front of the pipe alone to see what it prints")
	}
	return fmt.Errorf("no image was found in %s; give manifests, or lists with one image a line", list(f.files, "and"))
}

// shownPlace is a place as people read it.
func shownPlace(p images.Place) images.Place {
	if p.File == "-" {
		p.File = "standard input"
	}
	return p
}

// unread is the error for files that were not read in full. Nil: they were.
func (f *warmFlags) unread() error {
	if len(f.problems) == 0 {
		return nil
	}
	return &exitError{exitFailed, fmt.Errorf("%s of the files could not be read; they are named above", plural(len(f.problems), "part", "parts"))}
}

func (f *warmFlags) warm(cmd *cobra.Command, args []string) error {
	r, err := f.request(cmd, args)
	if err != nil {
		return err
	}
	return f.within(cmd, func() error {
		if f.dryRun {
			return f.plan(cmd, r)
		}
		body, err := f.change(cmd.Context(), http.MethodPost, "warm", nil, r)
		if err != nil {
			return err
		}
		var job admin.WarmJob
		if err := f.decode(body, &job, "a job"); err != nil {
			return err
		}
		if f.detach {
			if err := show(cmd, &f.adminFlags, body, "a job", startedText); err != nil {
				return err
			}
			return f.unread()
		}
		return f.follow(cmd, job)
	})
}

// startedText is a job that goes on by itself.
func startedText(j admin.WarmJob) string {
	return fmt.Sprintf("Job %s fetches %s.\nmirror warm show %s shows it, with --wait until it has ended; mirror warm cancel %s ends it.\n",
		j.ID, plural(len(j.Images), "image", "images"), j.ID, j.ID)
}

func (f *warmFlags) plan(cmd *cobra.Command, r admin.WarmRequest) error {
	body, err := f.change(cmd.Context(), http.MethodPost, "warm", url.Values{"dryRun": {"true"}}, r)
	if err != nil {
		return err
	}
	var p admin.WarmPlan
	if err := f.decode(body, &p, "a plan"); err != nil {
		return err
	}
	if err := printAnswer(cmd.OutOrStdout(), f.output, body, p.Images, planText(p, f.output.wide(), time.Now())); err != nil {
		return err
	}
	failed, unknown := 0, 0
	for _, x := range p.Images {
		switch {
		case x.Failure != nil:
			failed++
		case x.WaitingFor != nil:
			unknown++
		}
	}
	switch {
	case failed > 0:
		return &exitError{exitFailed, fmt.Errorf("%d of %s can't be fetched", failed, plural(len(p.Images), "image", "images"))}
	case unknown > 0:
		return &exitError{exitFailed, fmt.Errorf("%d of %s could not be looked up, so the plan is not complete", unknown, plural(len(p.Images), "image", "images"))}
	case !p.Fits:
		return &exitError{exitFailed, errors.New("the job does not fit into the cache")}
	}
	return f.unread()
}
