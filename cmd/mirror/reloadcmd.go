package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
)

func newReloadCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a running mirror read its configuration again",
		Long: `Have a running mirror read its configuration again, as it does by itself when the file
changes, and say what came of it: which settings are in use now, which need a restart, or
all that is wrong with the file. A file with a mistake changes nothing, nor does one that
looks cut off at its end.

Exit codes: 0 it is in use; 1 it was refused, and the old one stays in use; 2 usage; 4 no
mirror answers.`,
		Example: `  mirror reload
  mirror reload -o json | jq .restart`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			body, err := flags.ask(func(c *client.Client) ([]byte, error) { return c.Post(ctx, "reload", nil) })
			if refused, ok := errors.AsType[*client.Refused](err); ok && len(refused.Problems) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), strings.Join(refused.Problems, "\n"))
				return &exitError{exitFailed, errors.New("the configuration was not reloaded, the old one stays in use; correct it, then reload again")}
			}
			if err != nil {
				return err
			}
			if flags.output.encoded() {
				return flags.print(cmd.OutOrStdout(), body)
			}
			var r admin.Reloaded
			if err := flags.read(body, &r, "not an account of a reload"); err != nil {
				return err
			}
			text := "The configuration was read again; no setting has changed.\n"
			switch {
			case len(r.Changed) > 0:
				text = "The configuration was read again. In use now: " + strings.Join(r.Changed, ", ") + ".\n"
			case len(r.Restart) > 0:
				text = "The configuration was read again.\n"
			}
			if len(r.Restart) > 0 {
				text += "These changes wait for a restart: " + strings.Join(r.Restart, ", ") + ".\n"
			}
			return write(cmd.OutOrStdout(), []byte(text))
		},
	}
	flags.add(cmd, false)
	return cmd
}
