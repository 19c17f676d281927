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

// mostJoined bounds how often a mirror is asked for one report.
const mostJoined = 100

func newExplainCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "explain [FILE|-|REASON]",
		SuggestFor: []string{"why", "diagnose", "analyze", "analyse"},
		Short:      "Read events and logs of failing pulls, and say why they fail",
		Long: `Read what clients print when a pull fails, and say for each failure why, what to do, and
how often it is there. The input is a file, or what comes by standard input (-, or no
argument): events and pods of kubectl, as text, YAML or JSON, and logs and errors of the
kubelet, containerd, CRI-O, Docker, Podman, builders, CI systems, Helm, Flux, Argo CD,
Tekton, clouds and the mirror. Text that is not about a failing pull is left out. A failure
whose cause the text does not say is unknown, and shown.

Neither a cluster nor a mirror is needed. Where --admin, MIRROR_ADMIN or --config says where
a mirror is, its own evidence is shown beside each failure that it has recorded: by the ID
that the text shows, else by image and time.

With the name of a reason, as in mirror explain tag-not-found, its page is printed: what
happened, why, and what to do. The pages are those of this version and need no network.

The last line counts: how many are authentication, and how many missing images.

Exit codes: 0 the input was read, whatever is in it; 1 it can't be read; 2 usage.`,
		Example: `  kubectl get events -A --field-selector reason=Failed -o json | mirror explain
  kubectl describe pod web-1 | mirror explain
  journalctl -u kubelet -u containerd --since -1h | mirror explain -
  mirror explain -o json events.json | jq '.classes'
  mirror explain credentials-missing`,
		Args: mostOneArg("one file or reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			if len(args) == 1 && !there(args[0]) {
				if page, ok := failures.Page(args[0]); ok {
					return write(cmd.OutOrStdout(), []byte(page))
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
			return write(cmd.OutOrStdout(), []byte(explained(report, list, flags.output.form == "wide")))
		},
	}
	flags.add(cmd, true)
	return cmd
}

// there reports whether a file has that name, which goes before a reason of that name.
func there(name string) bool {
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
		return nil, fmt.Errorf("%s: there is no such file, and no reason of that name; the reasons are %s", args[0],
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

// join asks a mirror, if one is named, for what it knows of the failures of a report, and counts their classes anew.
func (f *adminFlags) join(ctx context.Context, r *symptom.Report) (list []admin.Explained, note string) {
	list = make([]admin.Explained, 0, len(r.Failures))
	asked := 0
	for _, x := range r.Failures {
		e := admin.Explained{Failure: x}
		for _, q := range admin.Lookups(x) {
			if note != "" || f.url == "" && f.config == "" || asked >= mostJoined {
				break
			}
			asked++
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

// recorded asks a mirror one question about a failure.
func (f *adminFlags) recorded(ctx context.Context, x symptom.Failure, q journal.Filter) (journal.Failure, bool, error) {
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
	if err != nil {
		return journal.Failure{}, false, err
	}
	k, ok := admin.Same(x, list.Failures, time.Now())
	return k, ok, nil
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

// explained is a report as text. Where a mirror knows more of a failure, what it knows is told instead.
func explained(r *symptom.Report, list []admin.Explained, wide bool) string {
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
			fmt.Fprintf(&b, "  the text alone would be %s\n", f.TextReason)
		}
		if f.Text != "" && (wide || f.Reason == diagnose.Unknown) {
			fmt.Fprintf(&b, "  said: %s\n", f.Text)
		}
		fmt.Fprintf(&b, "  page: %s (mirror explain %s)\n\n", f.Page, f.Reason)
	}
	b.WriteString(r.Line() + "\n")
	return b.String()
}
