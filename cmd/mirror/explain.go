package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/docs/failures"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/journal"
)

// maxLookups is how many look-ups at a mirror there are for the failures of one text.
const maxLookups = 100

func newExplainCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "explain [FILE|-|REASON]",
		SuggestFor: []string{"why", "diagnose", "analyze", "analyse"},
		Short:      "Read events and logs of failing pulls, and explain why they fail",
		Long: `Read the text that clients print when a pull fails, and explain each failure: why it
happened, what to do, and how often it is in the text. The input is a file, or standard
input (-, or no argument): events and pods of kubectl, as text, YAML or JSON, and logs and
errors of the kubelet, containerd, CRI-O, Docker, Podman, builders, CI systems, Helm, Flux,
Argo CD, Tekton, clouds and the mirror. Text that is not about a failing pull is left out.
A failure without a cause in the text is shown as unknown.

The command needs neither a cluster nor a mirror. Where --admin, MIRROR_ADMIN or --config
names a mirror, its own evidence is shown with each failure that it has recorded, which is
found by the ID in the text, or by image and time.

With the name of a reason, for example mirror explain tag-not-found, the page about it is
printed: what happened, why, and what to do. The pages belong to this version and need no
network.

The last line counts the failures by class.

Exit codes: 0 the input was read, whatever is in it; 1 it can't be read; 2 wrong usage.`,
		Example: `  kubectl get events -A --field-selector reason=Failed -o json | mirror explain
  kubectl describe pod web-1 | mirror explain
  journalctl -u kubelet -u containerd --since -1h | mirror explain -
  mirror explain -o json events.json | jq '.classes'
  mirror explain credentials-missing`,
		Args: mostOneArg("one file or reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				page, ok := failures.Page(args[0])
				if _, err := os.Stat(args[0]); ok && err != nil { // a file takes precedence over a reason of the same name
					return write(cmd.OutOrStdout(), page)
				}
			}
			report, err := awaited(cmd.Context(), func() (*symptom.Report, error) { return readSymptoms(cmd.InOrStdin(), args) })
			if err != nil {
				return &exitError{exitFailed, err}
			}
			explained, err := admin.Explain(report, flags.recorded(cmd.Context()))
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "mirror: without the mirror's own evidence:", err)
			}
			return flags.output.document(cmd.OutOrStdout(), explained, func() string {
				report.Classes = explained.Classes
				return explainedText(report, explained.Failures, flags.output.wide())
			})
		},
	}
	flags.add(cmd, true)
	return cmd
}

// readSymptoms reads the file that is named, or standard input.
func readSymptoms(stdin io.Reader, args []string) (*symptom.Report, error) {
	if len(args) == 0 || args[0] == "-" {
		return symptom.Read(stdin)
	}
	f, err := regular.Input(args[0])
	if errors.Is(err, fs.ErrNotExist) && reasonLike.MatchString(args[0]) {
		return nil, fmt.Errorf("%s is neither a file nor a reason; the reasons are %s", args[0],
			strings.Join(failures.Reasons(), ", "))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := symptom.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return r, nil
}

var reasonLike = regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)

// recorded returns a function that looks up failures at the mirror, if one is named.
func (f *adminFlags) recorded(ctx context.Context) func(journal.Filter) ([]admin.Failure, error) {
	lookups := 0
	return func(q journal.Filter) ([]admin.Failure, error) {
		if lookups++; f.url == "" && f.config == "" || lookups > maxLookups {
			return nil, nil
		}
		query := url.Values{"declined": {"true"}, "id": {q.ID}}
		if q.ID == "" {
			query = url.Values{"declined": {"true"}, "image": {q.Image}}
		}
		list, _, err := f.failures(ctx, query)
		if e, ok := errors.AsType[*exitError](err); ok {
			err = e.err
		}
		return list.Failures, err
	}
}

// explainedText is a report. Where a mirror knows more of a failure, its record is shown instead.
func explainedText(r *symptom.Report, list []admin.Explained, wide bool) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%dx  %s (%s)  %s", f.Count, f.Reason, f.Class,
			cmp.Or(f.Image, choose(f.Host != "", "at "+f.Host, "-")))
		if f.ID != "" {
			fmt.Fprintf(&b, "  [%s]", f.ID)
		}
		fmt.Fprintf(&b, "\n  %s\n  > %s\n", f.Summary, f.Remedy)
		if f.Command != "" {
			fmt.Fprintf(&b, "  $ %s\n", f.Command)
		}
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "  mirror: %s\n", e)
		}
		if f.TextReason != "" {
			fmt.Fprintf(&b, "  according to the text alone: %s\n", f.TextReason)
		}
		if f.Text != "" && (wide || f.Reason == diagnose.Unknown) {
			fmt.Fprintf(&b, "  text: %s\n", f.Text)
		}
		fmt.Fprintf(&b, "  page: %s (mirror explain %s)\n\n", f.Page, f.Reason)
	}
	b.WriteString(r.Line() + "\n")
	return b.String()
}
