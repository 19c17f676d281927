package main

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newWarmVerifyCmd() *cobra.Command {
	var f warmFlags
	cmd := &cobra.Command{
		Use:        "verify IMAGE... [-f FILE]",
		SuggestFor: []string{"check", "test"},
		Short:      "Check that all that nodes pull of images is in the cache",
		Long: `Check that all that nodes of the platforms pull of the images is in the cache: the images
would pull if their registry were down now. No registry is asked; a tag means what it meant
when it was pulled or checked last.

Exit codes: 0 everything is there; 1 something is missing, or the mirror refused the
request; 2 wrong usage; 3 with --standalone: another mirror uses the data folder; 4 no
mirror answers.`,
		Example: `  mirror warm verify nginx:1.27 ghcr.io/acme/app:v2
  helm template ./chart | mirror warm verify -f - --platform linux/arm64`,
		Args: f.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.request(cmd, args)
			if err != nil {
				return err
			}
			return f.within(cmd, func() error { return f.verify(cmd, r) })
		},
	}
	f.add(cmd)
	return cmd
}

func (f *warmFlags) verify(cmd *cobra.Command, r admin.WarmRequest) error {
	body, err := f.change(cmd.Context(), http.MethodPost, "warm/verify", nil, r)
	if err != nil {
		return err
	}
	var v admin.WarmVerified
	if err := f.decode(body, &v, "a verification"); err != nil {
		return err
	}
	if err := printAnswer(cmd.OutOrStdout(), f.output, body, v.Images, verifiedText(v, f.output.wide())); err != nil {
		return err
	}
	var missing []string
	for _, x := range v.Images {
		if !x.Complete {
			missing = append(missing, x.Image)
		}
	}
	if len(missing) > 0 {
		return &exitError{exitFailed, fmt.Errorf("%d of %s would not pull without the registry; mirror warm %s fetches what is missing",
			len(missing), plural(len(v.Images), "image", "images"), choose(len(missing) == 1, missing[0], "with the same arguments"))}
	}
	return f.unread()
}

func newWarmListCmd() *cobra.Command {
	var flags adminFlags
	var most limit
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list", "jobs"},
		Short:   "List the jobs, the latest first",
		Long: `List the jobs, the latest first: those that run, and those that ended lately. A job has failed
if one of its images has; the others are in the cache.

Exit codes: 0 shown; 1 the mirror refused the request; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror warm ls
  mirror warm ls -o json | jq -r '.jobs[] | select(.state == "failed").id'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showPath(cmd, &flags, "warm", url.Values{"limit": {most.String()}}, "a list of jobs", func(l admin.WarmJobList) string {
				return jobsText(l, time.Now())
			})
		},
	}
	flags.add(cmd, false)
	addLimit(cmd, &most, "show at most so many jobs, up to 1000")
	return cmd
}

func newWarmShowCmd() *cobra.Command {
	var f warmFlags
	var wait bool
	cmd := &cobra.Command{
		Use:        "show JOB",
		Aliases:    []string{"status", "get"},
		SuggestFor: []string{"inspect", "describe", "wait", "watch"},
		Short:      "Show a job and its images",
		Long: `Show a job and its images: how far each is, what the job waits for, and why an image failed.
With --wait, wait until the job has ended, as mirror warm does.

Exit codes: 0 shown, or with --wait: every image is in the cache; 1 the mirror knows no such
job or refused the request, or with --wait: an image failed; 2 wrong usage; 4 no mirror
answers.`,
		Example: `  mirror warm show 3f9c2a7b
  mirror warm show 3f9c2a7b --wait`,
		Args: oneArg("the id of a job, which mirror warm ls shows"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := f.get(cmd.Context(), "warm/"+url.PathEscape(args[0]), nil)
			if err != nil {
				return err
			}
			if !wait {
				return show(cmd, &f.adminFlags, body, "a job", func(j admin.WarmJob) string { return jobText(j, f.output.wide(), time.Now()) })
			}
			var job admin.WarmJob
			if err := f.decode(body, &job, "a job"); err != nil {
				return err
			}
			return f.follow(cmd, job)
		},
	}
	f.adminFlags.add(cmd, true, ndjson)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the job has ended")
	return cmd
}

func newWarmCancelCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "cancel JOB",
		SuggestFor: []string{"stop", "delete", "rm", "remove", "kill", "abort"},
		Short:      "End a job, and the keep of what it has fetched",
		Long: `End a job, and the keep of what it has fetched: that content stays in the cache until it is
evicted as other content is. To end a job that has ended already is not an error.

Exit codes: 0 done; 1 the mirror knows no such job, or refused the request; 2 wrong usage; 4
no mirror answers.`,
		Example: `  mirror warm cancel 3f9c2a7b`,
		Args:    oneArg("the id of a job, which mirror warm ls shows"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := flags.change(cmd.Context(), http.MethodDelete, "warm/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), "Job "+args[0]+" has ended; what it has fetched is no longer kept from eviction.\n")
		},
	}
	flags.add(cmd, false)
	return cmd
}
