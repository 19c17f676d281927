package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/text"
)

func newDoctorCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the mirror itself; or an image, or a node, step by step",
		Long: `Check a running mirror: its configuration and whether that of the file is in use, listeners
and certificates, the data folder and its room, state.db, the limit on open files, proxies,
webhooks, rights in the cluster, and each upstream from where the mirror runs: name,
connection, TLS, clock, /v2/, and, with a tag that was pulled before, token, credential and
limits. That tag is asked for by one HEAD, which counts as no pull. With --config the file and
the files that it names are checked from here, too.

The mirror asks its upstreams at most twice a minute for this. Where no mirror answers, the
command says what it could not look at.

doctor image goes through the pull of one image, doctor node checks the configuration of a
node.

Exit codes: 0 nothing is broken (there may be warnings); 1 something is; 2 wrong usage; 4 no
mirror answers.`,
		Example: `  mirror doctor
  mirror doctor --config config.yaml -o wide
  kubectl exec mirror-0 -- mirror doctor -o json | jq '.checks[] | select(.state == "broken")'`,
		Args: func(cmd *cobra.Command, args []string) error {
			err := subcommand(cmd, args)
			if err != nil && strings.ContainsAny(args[0], "/:.") {
				err = fmt.Errorf("%w; to check an image, run mirror doctor image %s", err, args[0])
			}
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd, &flags) },
	}
	flags.add(cmd, true)
	cmd.AddCommand(newDoctorImageCmd(), newDoctorNodeCmd())
	return cmd
}

// examinationPatience is how long the mirror may take: its own limit of a minute, and some time for the network.
const examinationPatience = 70 * time.Second

var platformFlag = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$`)

func newDoctorImageCmd() *cobra.Command {
	var flags adminFlags
	var platform string
	var straight bool
	cmd := &cobra.Command{
		Use:   "image REF",
		Short: "Go through the pull of an image step by step, and explain the first step that fails",
		Long: `Go through the pull of an image step by step, and explain the first step that fails: name,
DNS, connection, proxy, TLS, ping, token, manifest, platform, config, and each host that
the registry redirects layers to, which is often the only one that is blocked. On the way
the command checks certificates, clocks, credentials and rate limits. It uses the same
code as a pull, without anything cached or remembered, and reads one byte of a layer. On
Docker Hub it counts as a pull.

The checks run from this machine, with the registries and credentials of --config;
without --config, against any registry, anonymously. With --admin or MIRROR_ADMIN the
running mirror does the checks from where it runs, and also shows what it has cached.

The mirror's own rules are checked too: those of --config, or of the running mirror.

Exit codes: 0 the image can be pulled; 1 it can't, or it can't run on this machine (or on
any node, where the configuration names their platforms; --platform names one), or the
configuration is invalid; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror doctor image nginx:1.27
  mirror doctor image --config config.yaml --platform linux/arm64 ghcr.io/acme/app:v2
  mirror doctor image --admin http://127.0.0.1:5001 ghcr.io/acme/app:v2
  mirror doctor image -o json quay.io/acme/app:v2 | jq .failure`,
		Args: oneArg("an image, as in nginx:1.27"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case platform != "" && !platformFlag.MatchString(platform):
				return fmt.Errorf("--platform %s: must be OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64", platform)
			case straight && cmd.Flags().Changed("admin"):
				return errors.New("--straight can't be combined with --admin")
			}
			report, doc, err := flags.examined(cmd, args[0], platform, straight)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			err = flags.output.document(out, doc, func() string { return reportText(report, flags.output.wide(), coloured(out)) })
			if err != nil {
				return err
			}
			if !report.OK || report.CannotRun != "" {
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "check the image for OS/ARCH[/VARIANT] (default: linux on this machine's "+
		"architecture, if the image has it)")
	completes(cmd, "platform", "linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64")
	cmd.Flags().BoolVar(&straight, "straight", false, "run the checks from this machine, even if MIRROR_ADMIN is set")
	flags.add(cmd, true)
	cmd.Flags().Lookup("admin").Usage = "`URL` or HOST:PORT of the admin listener of a mirror, which then runs the checks; variable MIRROR_ADMIN"
	cmd.Flags().Lookup("config").Usage = "configuration `file` with the registries and credentials to use; variable MIRROR_CONFIG"
	return cmd
}

// examined is the report of the checks, which run in the running mirror, if one is named, and else here. The document is the report as
// it came.
func (f *adminFlags) examined(cmd *cobra.Command, image, platform string, straight bool) (report *doctor.Report, doc any, err error) {
	if f.url == "" || straight {
		report, err = examineHere(cmd, f.config, image, platform)
		return report, report, err
	}
	body, err := f.examine(cmd.Context(), image, platform)
	if err == nil && (json.Unmarshal(body, &report) != nil || report == nil || len(report.Steps) == 0) {
		err = f.isNot("a doctor report")
	}
	return report, json.RawMessage(body), err
}

// examineHere runs the checks from this machine.
func examineHere(cmd *cobra.Command, file, image, platform string) (*doctor.Report, error) {
	c, _, err := loadConfig(cmd.ErrOrStderr(), file, "run it again")
	if err != nil {
		return nil, err
	}
	report, err := app.Examine(cmd.Context(), c, versionText(), slog.New(slog.DiscardHandler), image, platform, file == "")
	switch {
	case cmd.Context().Err() != nil:
		return nil, &exitError{exitFailed, errors.New("interrupted")}
	case err != nil:
		return nil, &exitError{exitFailed, err}
	}
	return report, nil
}

// examine has the running mirror do the checks.
func (f *adminFlags) examine(ctx context.Context, image, platform string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, examinationPatience)
	defer cancel()
	if f.tokenFile == "" && f.config != "" { // --admin gives the address, --config the token
		at := *f
		at.url = ""
		if err := at.fromConfig(); err != nil {
			return nil, err
		}
		f.tokenFile = at.tokenFile
	}
	return f.change(ctx, http.MethodPost, "doctor", nil, admin.DoctorRequest{Image: image, Platform: platform})
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// coloured reports whether out is a terminal that is to have colours.
func coloured(out any) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(out)
}

// stateWords are the states as they are shown, with their colours.
var stateWords = map[doctor.State]struct{ word, colour string }{
	doctor.OK:       {"ok", "32"},
	doctor.Warning:  {"warning", "33"},
	doctor.Broken:   {"BROKEN", "31"},
	doctor.NotTried: {"not tried", "90"},
}

// stateTable is a table whose rows have states, in the second column.
type stateTable struct {
	table
	states []doctor.State // of the rows; empty: it has none
}

func (t *stateTable) add(s doctor.State, cells ...string) {
	t.row(cells...)
	t.states = append(t.states, s)
}

// text is the table, in colours if that is wanted.
func (t *stateTable) text(colour bool) string {
	if colour {
		t.paint = func(row, column int, cell string) string {
			if c := stateWords[t.states[row]].colour; column == 1 && c != "" {
				return "\x1b[" + c + "m" + cell + "\x1b[0m"
			}
			return cell
		}
	}
	return t.String()
}

// reportText is a report: a line for each step, then the problem and the remedy.
func reportText(r *doctor.Report, wide, colour bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %sfrom %s\n\n", text.Cut(r.Image, 300), choose(r.Platform == "", "", "for "+r.Platform+" "),
		choose(r.At == "mirror", "the mirror", "here"))
	var t stateTable
	t.add("", "STEP", "STATE", "TOOK", "HOST", "RESULT")
	endpoints := make(map[string]bool)
	for _, s := range r.Steps {
		endpoints[s.Endpoint] = true
	}
	delete(endpoints, "") // that of steps before the first endpoint
	endpoint := ""
	for _, s := range r.Steps {
		if s.Endpoint != endpoint && s.Endpoint != "" && len(endpoints) > 1 {
			t.add("", "at "+s.Endpoint)
		}
		endpoint = s.Endpoint
		took, result := "", s.Detail
		if s.Took > 0 {
			took = s.Took.String()
		}
		if s.State == doctor.Broken && r.Failure != nil {
			result = s.Reason // the sentence stands below
		}
		if s.Addr != "" && (wide || s.Stage == "dial") && s.Addr != s.Host && s.State != doctor.Broken {
			result = strings.TrimSpace(s.Addr + " " + result)
		}
		if wide && s.Status != 0 {
			result = strings.TrimSpace(fmt.Sprintf("status %d, %s", s.Status, result))
		}
		t.add(s.State, s.Stage, stateWords[s.State].word, took, s.Host, result)
	}
	b.WriteString(t.text(colour))
	for _, s := range r.Steps {
		if s.State == doctor.Warning || s.State == doctor.Broken && r.Failure == nil {
			fmt.Fprintf(&b, "\n%s  %s\n  > %s\n", s.Reason, s.Detail, s.Remedy)
		}
	}
	if c := r.Cache; c != nil {
		b.WriteString("\n" + cachedText(c) + "\n")
	}
	if f := r.Failure; f != nil {
		fmt.Fprintf(&b, "\n%s (%s)  %s\n  > %s\n", f.Reason, f.Class, f.Summary, f.Remedy)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "  %s\n", e)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "\nIt can be pulled%s%s, %s.\n", choose(r.CannotRun == "", "", ", but not run on "+r.CannotRun),
		choose(r.Digest == "", "", ", "+r.Digest), r.Took)
	return b.String()
}

func cachedText(c *doctor.Cache) string {
	text := "cached: nothing"
	if c.Manifest || c.Blobs > 0 {
		text = "cached: " + choose(c.Manifest, "the manifest", "no manifest")
		if c.Of > 0 {
			text += fmt.Sprintf(", %d of %d other parts", c.Blobs, c.Of)
		}
	}
	if c.Digest != "" {
		text += "; the tag was " + c.Digest
		if !c.CheckedAt.IsZero() {
			text += " at " + c.CheckedAt.Format("2006-01-02 15:04:05 UTC")
		}
	}
	return text
}
