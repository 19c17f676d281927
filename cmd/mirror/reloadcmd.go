package main

import (
	"errors"
	"fmt"
	"net/http"
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
changes. The command prints which settings are in use now and which need a restart, or
every mistake in the file. A file with a mistake changes nothing; neither does a file that
looks cut off at its end.

Exit codes: 0 the configuration is in use; 1 it was refused, and the old one stays in use;
2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror reload
  mirror reload -o json | jq .restart`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := flags.change(cmd.Context(), http.MethodPost, "reload", nil, nil)
			if refused, ok := errors.AsType[*client.Refused](err); ok && len(refused.Problems) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), strings.Join(refused.Problems, "\n"))
				return &exitError{exitFailed, errors.New("the configuration was not reloaded, the old one stays in use; correct it, then reload again")}
			}
			if err != nil {
				return err
			}
			return show(cmd, &flags, body, "the result of a reload", reloadText)
		},
	}
	flags.add(cmd, false)
	return cmd
}

func reloadText(r admin.Reloaded) string {
	text := "The configuration was read again; no setting has changed.\n"
	switch {
	case len(r.Changed) > 0:
		text = "The configuration was read again. In use now: " + strings.Join(r.Changed, ", ") + ".\n"
	case len(r.Removed)+len(r.Restart) > 0:
		text = "The configuration was read again.\n"
	}
	if len(r.Removed) > 0 {
		text += "No longer in use: " + strings.Join(r.Removed, ", ") + ".\n"
	}
	if len(r.Restart) > 0 {
		text += "These changes need a restart: " + strings.Join(r.Restart, ", ") + ".\n"
	}
	return text
}
