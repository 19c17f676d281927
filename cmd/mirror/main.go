// Command mirror is a pull-through caching mirror for container registries.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. They are part of the command line's contract.
const (
	exitOK          = 0
	exitFailed      = 1 // the check or the request failed: an invalid config, a port in use
	exitUsage       = 2 // the command line is wrong
	exitLocked      = 3 // another mirror uses the data folder
	exitUnreachable = 4 // no mirror answers
)

// exitError carries an exit code past cobra. The wrapped error is printed once, unless it is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Stdout, os.Stderr, os.Args[1:]...))
}

// run executes a command line and returns its exit code.
func run(ctx context.Context, stdout, stderr io.Writer, args ...string) int {
	root := newRoot()
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(stderr, "mirror:", printable(exit.err.Error()))
		}
		return exit.code
	default: // of the command line: an unknown command or flag, too many arguments
		misused(stderr, cmd, err)
		return exitUsage
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "mirror",
		Short: "A pull-through caching mirror for container registries",
		Long: `mirror stands between a cluster and docker.io, ghcr.io, quay.io and any other OCI
registry. It downloads each image once, however many nodes pull it. It serves cached
images when the upstream is down or rate limited. It explains why a pull fails and what
to do.

Try it, with no configuration at all:

  mirror demo
  mirror serve
  crane pull 127.0.0.1:5000/docker.io/library/alpine:3.22 alpine.tar

Exit codes of all commands: 0 success; 1 the check or the request failed; 2 wrong usage;
3 another mirror uses the data folder; 4 no mirror answers.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          subcommand,
		RunE:          help,
		Version:       versionText(),
	}
	root.SetVersionTemplate(versionLine())
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServeCmd(), newConfigCmd(), newStatusCmd(), newReloadCmd(), newCacheCmd(), newTagsCmd(), newCoverageCmd(), newTokenCmd(), newWarmCmd(), newUpstreamsCmd(), newFailuresCmd(),
		newPullsCmd(), newExplainCmd(), newDoctorCmd(), newSetupCmd(), newNodeCmd(), newCredentialProviderCmd(), newDemoCmd(), newManCmd(), newVersionCmd())
	setHelpCmd(root)
	return root
}

// subcommand is the Args of a command that only has subcommands. Without it, cobra takes a mistyped one for a request for
// help, and the exit code is 0.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = max(cmd.SuggestionsMinimumDistance, 2)
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %q?", err, near[0])
	}
	return err
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }
