package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

func newCachePrepareCmd() *cobra.Command {
	var dir string
	var owner int
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Create the folder of the cache for the user that the mirror runs as",
		Long: `Create the folder of the cache, and give it to the user that the mirror runs as. A folder that
is there keeps its content; nothing below it is touched. In a pod with a hostPath, where the
kubelet makes the folder root's, an init container runs this as root, with the capability
CHOWN alone.

Exit codes: 0 the folder belongs to that user; 1 it can't be created or given away; 2 wrong
usage.`,
		Example: `  mirror cache prepare --dir /var/lib/mirror --owner 65532`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case dir == "":
				return errors.New("cache prepare needs --dir FOLDER: the one of cache.dir")
			case owner <= 0:
				return fmt.Errorf("--owner %d: must be the number of a user, and not root's", owner)
			}
			if err := prepare(dir, owner); err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), fmt.Sprintf("%s belongs to user %d\n", dir, owner))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the cache: cache.dir")
	cmd.Flags().IntVar(&owner, "owner", 65532, "`number` of the user, and of its group")
	return cmd
}

// prepare creates a folder in which the owner alone writes.
func prepare(dir string, owner int) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create the folder of the cache: %w", err)
	}
	info, err := os.Lstat(dir)
	var now *syscall.Stat_t
	if err == nil {
		now, _ = info.Sys().(*syscall.Stat_t)
	}
	switch {
	case err != nil:
		return fmt.Errorf("read the folder of the cache: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder; remove the link or file, or name another folder", dir)
	case now != nil && int(now.Uid) == owner:
		return nil
	}
	// In this order: root without the capability FOWNER can't change the mode of another user's folder.
	if err := os.Chmod(dir, fs.FileMode(0o750)); err != nil {
		return fmt.Errorf("set the mode of the folder of the cache: %w", err)
	}
	if err := os.Lchown(dir, owner, owner); err != nil {
		return fmt.Errorf("give the folder of the cache to user %d: %w; run this as root with the capability CHOWN", owner, err)
	}
	return nil
}
