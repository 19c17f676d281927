package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin/client"
)

const exitUnreachable = 4 // the mirror that was to be asked

const defaultAdmin = "http://127.0.0.1:5001"

// adminFlags are those of commands that ask a running mirror.
type adminFlags struct {
	url, tokenFile, output string
}

// add adds the flags. wide says that there is more to show than fits a narrow terminal.
func (f *adminFlags) add(cmd *cobra.Command, wide bool) {
	where := os.Getenv("MIRROR_ADMIN")
	if where == "" {
		where = defaultAdmin
	}
	cmd.Flags().StringVar(&f.url, "admin", where, "the mirror's admin listener")
	cmd.Flags().StringVar(&f.tokenFile, "admin-token-file", os.Getenv("MIRROR_ADMIN_TOKEN_FILE"),
		"file with the token that it wants")
	formats := "json"
	if wide {
		formats = "json or wide"
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "another form of output: "+formats)
}

// get asks for /api/v1/PATH.
func (f *adminFlags) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	token, err := f.token()
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	c, err := client.New(client.Options{URL: f.url, Token: token})
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--admin: %w", err)}
	}
	body, err := c.Get(ctx, path, query)
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return nil, &exitError{exitUnreachable, err}
	case err != nil:
		return nil, &exitError{exitFailed, err}
	}
	return body, nil
}

func (f *adminFlags) token() (string, error) {
	if f.tokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--admin-token-file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("--admin-token-file: %s is empty", f.tokenFile)
	}
	return token, nil
}
