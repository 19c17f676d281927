package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/docs/failures"
	"github.com/registrymirror/mirror/journal"
)

// maxLookups is how many failures of one text are looked up at a mirror.
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
			if len(args) == 1 && !exists(args[0]) {
				if page, ok := failures.Page(args[0]); ok {
					return write(cmd.OutOrStdout(), page)
				}
			}
			report, err := readSymptoms(cmd.InOrStdin(), args)
			if err != nil {
				return &exitError{exitFailed, err}
			}
			list, note := flags.join(cmd.Context(), report)
			if note != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "mirror:", note)
			}
			if flags.output.encoded() {
				body, err := json.Marshal(admin.Explanation{Failures: list, Classes: report.Classes})
				if err != nil {
					return &exitError{exitFailed, err}
				}
				return flags.print(cmd.OutOrStdout(), append(body, '\n'))
			}
			return write(cmd.OutOrStdout(), explainedText(report, list, flags.output.wide()))
		},
	}
	flags.add(cmd, true)
	return cmd
}

// exists reports whether a file has that name. It takes precedence over a reason of the same name.
func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// readSymptoms reads the file that is named, or standard input.
func readSymptoms(stdin io.Reader, args []string) (*symptom.Report, error) {
	if len(args) == 0 || args[0] == "-" {
		return symptom.Read(stdin)
	}
	f, err := os.Open(args[0])
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

// join looks up the failures of a report at a mirror, if one is named, and counts their classes anew.
func (f *adminFlags) join(ctx context.Context, r *symptom.Report) (list []admin.Explained, note string) {
	list = make([]admin.Explained, 0, len(r.Failures))
	lookups := 0
	for _, x := range r.Failures {
		e := admin.Explained{Failure: x}
		for _, q := range admin.Lookups(x) {
			if note != "" || f.url == "" && f.config == "" || lookups >= maxLookups {
				break
			}
			lookups++
			k, ok, err := f.recorded(ctx, x, q)
			if err != nil {
				note = fmt.Sprintf("without the mirror's own evidence: %v", err)
			}
			if ok {
				e.Join(k)
				break
			}
		}
		list = append(list, e)
	}
	r.Classes = make(map[string]int64)
	for i, e := range list {
		r.Failures[i].Reason, r.Failures[i].Class = e.Reason, e.Class
		r.Classes[string(e.Class)] += e.Count
	}
	return list, note
}

// recorded looks up a failure at the mirror.
func (f *adminFlags) recorded(ctx context.Context, x symptom.Failure, q journal.Filter) (k journal.Failure, ok bool, err error) {
	query := url.Values{"declined": {"true"}}
	if q.ID != "" {
		query.Set("id", q.ID)
	} else {
		query.Set("image", q.Image)
	}
	body, err := f.get(ctx, "failures", query)
	var list admin.FailureList
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		err = e.err
	}
	if err == nil {
		k, ok = admin.Same(x, list.Failures, time.Now())
	}
	return k, ok, err
}

// subjectOf is the image of a failure, else the host at which it broke.
func subjectOf(f admin.Explained) string {
	switch {
	case f.Image != "":
		return f.Image
	case f.Host != "":
		return "at " + f.Host
	}
	return "-"
}

// explainedText is a report. Where a mirror knows more of a failure, its record is shown instead.
func explainedText(r *symptom.Report, list []admin.Explained, wide bool) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%dx  %s (%s)  %s", f.Count, f.Reason, f.Class, subjectOf(f))
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
