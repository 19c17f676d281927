package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/logging"
)

// within does work that asks a mirror: the running one, or with --standalone one in this process.
func (f *warmFlags) within(cmd *cobra.Command, work func() error) error {
	if !f.standalone {
		return work()
	}
	c, _, err := loadConfig(cmd.ErrOrStderr(), f.config, "run the command again")
	if err != nil {
		return err
	}
	log, _ := logging.New(cmd.ErrOrStderr(), c.Log.Format, "warn")
	err = app.Standalone(cmd.Context(), app.Options{Config: c, Version: versionText(), Log: log, File: f.config},
		func(dial func(context.Context) (net.Conn, error)) error {
			f.dial = dial
			return work()
		})
	locked, _ := errors.AsType[*disk.LockedError](err)
	_, said := errors.AsType[*exitError](err)
	switch {
	case locked != nil:
		return &exitError{exitLocked, fmt.Errorf("%s; run the command without --standalone, and that mirror does the work through its admin API", locked.InUse())}
	case err != nil && !said:
		return &exitError{exitFailed, err}
	}
	return err
}
