package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/journal"
)

// mostJoined bounds how often a mirror is asked for one report.
const mostJoined = 100

func newExplainCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "explain [FILE|-]",
		SuggestFor: []string{"why", "diagnose", "analyze", "analyse"},
		Short:      "Read events and logs of failing pulls, and say why they fail",
		Long: `Read what clients print when a pull fails, and say for each failure why, what to do, and
how often it is there. The input is a file, or what comes by standard input (-, or no
argument): events and pods of kubectl, as text or JSON, and logs of the kubelet, containerd,
CRI-O, Docker, Podman and the mirror. What is no failing pull is left out; what the text
does not say is unknown.

Neither a cluster nor a mirror is needed. Where a text shows a failure's ID of a mirror, and
--admin, MIRROR_ADMIN or --config says where that is, its own evidence is shown beside it.

The last line counts: how many are authentication, and how many missing images.

Exit codes: 0 the input was read, whatever is in it; 1 it can't be read; 2 usage.`,
		Example: `  kubectl get events -A --field-selector reason=Failed -o json | mirror explain
  kubectl describe pod web-1 | mirror explain
  journalctl -u kubelet -u containerd --since -1h | mirror explain -
  mirror explain -o json events.json | jq '.classes'`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			report, err := readSymptoms(cmd.InOrStdin(), args)
			if err != nil {
				return &exitError{exitFailed, err}
			}
			if flags.output.encoded() {
				body, err := json.Marshal(report)
				if err != nil {
					return &exitError{exitFailed, err}
				}
				return flags.print(cmd.OutOrStdout(), append(body, '\n'))
			}
			known, note := flags.join(cmd.Context(), report)
			if note != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "mirror:", note)
			}
			return write(cmd.OutOrStdout(), []byte(explained(report, known, flags.output.form == "wide")))
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
	f, err := os.Open(args[0])
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

// join asks a mirror, if one is named, for what it knows of the failures whose IDs the input shows.
func (f *adminFlags) join(ctx context.Context, r *symptom.Report) (known map[string]journal.Failure, note string) {
	if f.url == "" && f.config == "" {
		return nil, ""
	}
	known = make(map[string]journal.Failure)
	for _, x := range r.Failures {
		if x.ID == "" || len(known) >= mostJoined {
			continue
		}
		body, err := f.get(ctx, "failures", url.Values{"id": {x.ID}, "declined": {"true"}})
		var list admin.FailureList
		if err == nil {
			err = json.Unmarshal(body, &list)
		}
		if err != nil {
			if e, ok := errors.AsType[*exitError](err); ok {
				err = e.err
			}
			return known, fmt.Sprintf("without the mirror's own evidence: %v", err)
		}
		if len(list.Failures) > 0 {
			known[x.ID] = list.Failures[0]
		}
	}
	return known, ""
}

// explained is a report as text. Where a mirror knows more of a failure, what it knows is told instead.
func explained(r *symptom.Report, known map[string]journal.Failure, wide bool) string {
	var b strings.Builder
	classes := make(map[string]int64)
	for i := range r.Failures {
		f := &r.Failures[i]
		k, joined := known[f.ID]
		if joined {
			f.Reason, f.Class, f.Summary, f.Remedy = k.Reason, k.Class, k.Summary, k.Remedy
		}
		classes[string(f.Class)] += f.Count
		fmt.Fprintf(&b, "%dx  %s (%s)  %s", f.Count, f.Reason, f.Class, choose(f.Image == "", "-", f.Image))
		if f.ID != "" {
			fmt.Fprintf(&b, "  [%s]", f.ID)
		}
		fmt.Fprintf(&b, "\n  %s\n  > %s\n", f.Summary, f.Remedy)
		if joined {
			for _, e := range k.Evidence {
				fmt.Fprintf(&b, "  mirror: %s\n", e)
			}
		}
		if wide && f.Text != "" {
			fmt.Fprintf(&b, "  said: %s\n", f.Text)
		}
		b.WriteByte('\n')
	}
	r.Classes = classes
	b.WriteString(r.Line() + "\n")
	return b.String()
}
