package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

// startingConfig is what config init writes.
//
//go:embed init.yaml
var startingConfig []byte

func newConfigInitCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE|-]",
		Short: "Write a configuration to start with",
		Long: `Write a configuration to start with: a few registries and the settings that most mirrors
change, with comments. FILE is config.yaml by default; - is standard output. An existing
file is not overwritten.

Exit codes: 0 written; 1 the file exists already, or can't be written; 2 wrong usage.`,
		Example: `  mirror config init
  mirror config init /etc/mirror/config.yaml
  mirror config init - | less`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "config.yaml"
			if len(args) > 0 {
				file = args[0]
			}
			if file == "-" {
				return write(cmd.OutOrStdout(), string(startingConfig))
			}
			if err := createFile(file, startingConfig); err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), fmt.Sprintf("%s was written. Change it, then:\n\n  mirror config check %s\n  mirror serve --config %s\n",
				file, file, file))
		},
	}
}

// createFile writes a file that must not exist yet.
func createFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // it holds no secret: the service's user reads it
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s exists already and was not changed; name another file, or remove it", path)
	case err != nil:
		return fmt.Errorf("write the configuration: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the configuration: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}
