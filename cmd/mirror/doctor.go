package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/app"
)

func newDoctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, step by step",
		Long:  `Look for what is wrong, step by step.`,
		Args: func(cmd *cobra.Command, args []string) error {
			err := subcommand(cmd, args)
			if err != nil && strings.ContainsAny(args[0], "/:.") {
				err = fmt.Errorf("%w; an image goes behind image, as in mirror doctor image %s", err, args[0])
			}
			return err
		},
		RunE: help,
	}
	cmd.AddCommand(newDoctorImageCmd())
	return cmd
}

// examinationPatience is how long the mirror may take: a minute of its own, and the way.
const examinationPatience = 70 * time.Second

var platformFlag = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$`)

func newDoctorImageCmd() *cobra.Command {
	var flags adminFlags
	var platform string
	var straight bool
	cmd := &cobra.Command{
		Use:   "image REF",
		Short: "Walk the pull of an image step by step, and explain the first that breaks",
		Long: `Walk the pull of an image step by step, and explain the first that breaks: name, DNS,
connection, proxy, TLS, ping, token, manifest, platform, config, and each host that the
registry sends clients to for layers, often the only one that is blocked. Certificates,
clocks, credentials and rate limits are looked at on the way. It is the code that pulls,
with nothing cached and nothing remembered; a layer costs one byte. On Docker Hub it
counts as a pull.

It looks from here, with the registries and credentials of --config; without that, at any
registry, as nobody. With --admin or MIRROR_ADMIN the running mirror looks, from where it
stands, and says what it has cached.

The mirror's own rules are asked too, those of --config or of the running mirror.

Exit codes: 0 the image can be pulled; 1 it can't, or not run on this machine (or on any node,
where the configuration says what those are; --platform says what it is for), or an invalid
configuration; 2 usage; 4 no mirror answers.`,
		Example: `  mirror doctor image nginx:1.27
  mirror doctor image --config config.yaml --platform linux/arm64 ghcr.io/acme/app:v2
  mirror doctor image --admin http://127.0.0.1:5001 ghcr.io/acme/app:v2
  mirror doctor image -o json quay.io/acme/app:v2 | jq .failure`,
		Args: oneArg("an image, as in nginx:1.27"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			switch {
			case platform != "" && !platformFlag.MatchString(platform):
				return fmt.Errorf("--platform %s: write OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64", platform)
			case straight && cmd.Flags().Changed("admin"):
				return errors.New("--straight and --admin exclude each other")
			}
			var report *doctor.Report
			var body []byte
			var err error
			if flags.url == "" || straight {
				if report, err = examineHere(cmd, flags.config, args[0], platform); err == nil {
					body, err = json.Marshal(report)
					body = append(body, '\n')
				}
			} else if body, err = flags.examine(cmd.Context(), args[0], platform); err == nil {
				if json.Unmarshal(body, &report) != nil || report == nil || len(report.Steps) == 0 {
					err = &exitError{exitFailed, fmt.Errorf("%s answered with what is no examination; is it a mirror?", flags.url)}
				}
			}
			if err != nil {
				return err
			}
			if !flags.output.encoded() {
				body = []byte(examined(report, flags.output.form == "wide", coloured(cmd.OutOrStdout())))
			}
			if err := flags.print(cmd.OutOrStdout(), body); err != nil {
				return err
			}
			if !report.OK || report.CannotRun != "" {
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "OS/ARCH[/VARIANT] that the image is wanted for (linux on this machine's "+
		"architecture, where the image has it)")
	completes(cmd, "platform", "linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64")
	cmd.Flags().BoolVar(&straight, "straight", false, "look from here, even where MIRROR_ADMIN names a mirror")
	flags.add(cmd, true)
	cmd.Flags().Lookup("admin").Usage = "`URL` or HOST:PORT of the admin listener of a mirror that is to look, instead of this command; variable MIRROR_ADMIN"
	cmd.Flags().Lookup("config").Usage = "configuration `file`, with the registries and credentials to look with; variable MIRROR_CONFIG"
	return cmd
}

// examineHere looks from here.
func examineHere(cmd *cobra.Command, file, image, platform string) (*doctor.Report, error) {
	c, err := loadConfig(cmd.ErrOrStderr(), file, "look again")
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

// examine has the running mirror look.
func (f *adminFlags) examine(ctx context.Context, image, platform string) ([]byte, error) {
	q, err := json.Marshal(admin.DoctorRequest{Image: image, Platform: platform})
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	ctx, cancel := context.WithTimeout(ctx, examinationPatience)
	defer cancel()
	if f.tokenFile == "" && f.config != "" { // --admin says where, --config with which token
		at := *f
		at.url = ""
		if err := at.fromConfig(); err != nil {
			return nil, err
		}
		f.tokenFile = at.tokenFile
	}
	return f.ask(func(c *client.Client) ([]byte, error) { return c.Post(ctx, "doctor", q) })
}

// coloured reports whether out is a terminal of somebody who likes colours.
func coloured(out any) bool {
	f, ok := out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)
}
