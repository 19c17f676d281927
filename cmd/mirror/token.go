package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/regular"
)

func newTokenCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make tokens by which clients identify themselves to the mirror",
		Args:  subcommand,
		RunE:  help,
	}
	cmd.AddCommand(newTokenNewCmd())
	return cmd
}

func newTokenNewCmd() *cobra.Command {
	var file string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a token, and the line that stands for it in the file of tokens",
		Long: `Make a token for a client, by which rules can name it, or for an operator. The token is
printed once, on standard output. With --file its hash is added to a file of tokens
(clients.tokens or admin.operators.tokens in the mirror's configuration), which is made if
it is not there; a running mirror reads the file again by itself. Without --file the lines
for that file are printed on standard error.

A client sends it as a bearer token, or as the password of NAME: docker login, podman
login, and pull secrets of Kubernetes work. An operator gives a file with it to commands,
with --admin-token-file.

Exit codes: 0 made; 1 the file can't be written; 2 wrong usage.`,
		Example: `  mirror token new ci --file tokens.yaml
  mirror token new alice --expires 90d
  mirror token new alice --file operators.yaml > alice.token`,
		Args: oneArg("the name of the client, as in ci"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := identity.CheckName(args[0]); err != nil {
				return err
			}
			token, hash := identity.NewToken()
			entry := identity.TokenEntry{Name: args[0], SHA256: hash}
			if life > 0 {
				entry.Expires = time.Now().Add(life).UTC().Format(time.RFC3339)
			}
			if file != "" {
				if err := addToken(file, entry); err != nil {
					return &exitError{exitFailed, err}
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "added to %s: the token below is shown only now\n", file)
			} else {
				fmt.Fprintf(cmd.ErrOrStderr(), "add to the file of clients.tokens or admin.operators.tokens, below tokens:\n%sthe token, which is shown only now:\n", entry.Line())
			}
			return write(cmd.OutOrStdout(), token+"\n")
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "`file` of tokens to which the hash is added")
	cmd.Flags().Var(lengthFlag{"--expires", &life}, "expires", "after how long the token ends, as in 90d or 12h; 0: it does not")
	return cmd
}

// addToken adds an entry to a file of tokens. A file that the mirror would refuse is left as it is.
func addToken(path string, entry identity.TokenEntry) error {
	text, err := regular.Read(path, config.MaxFile)
	mode := fs.FileMode(0o600)
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		text = []byte("tokens:\n")
	case err != nil:
		return fmt.Errorf("read the file of tokens: %w", err)
	case statErr == nil:
		mode = info.Mode().Perm()
	}
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("tokens:\n")
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	text = append(text, entry.Line()...)
	if _, err := identity.ParseTokens(path, text); err != nil {
		return fmt.Errorf("the entry does not fit at the end of the file: %w; correct the file, and write its entries as lines that begin "+
			"with \"  - \"", err)
	}
	return replaceFile(path, text, mode)
}

// replaceFile writes a file so that it is there as a whole, or as it was.
func replaceFile(path string, text []byte, mode fs.FileMode) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		target = path // it is not there yet
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".mirror-*")
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // its path is that of a file with another name
		}
		return fmt.Errorf("write %s: folder %s: %w", path, filepath.Dir(target), err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
