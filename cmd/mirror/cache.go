package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/registrymirror/mirror/cache/disk"
)

func newCacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "cache",
		SuggestFor: []string{"stats", "verify", "du", "disk"},
		Short:      "Show how full the cache is, and check what is in it",
		Long:       `Show how full the cache of a running mirror is, and check what is in the folder of cache.dir.`,
		Args:       subcommand,
		RunE:       help,
	}
	cmd.AddCommand(newCacheStatsCmd(), newCacheVerifyCmd())
	return cmd
}

func newCacheVerifyCmd() *cobra.Command {
	var (
		file   string
		remove bool
	)
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read all that is cached, and name what is damaged",
		Long: `Read all that is cached and compare it with its digests. What is damaged is named, a
line each: the digest, the size of its file, what is wrong. With --remove it is removed,
and fetched again when it is next pulled; clients that are reading it are not cut off.

The folder is found as mirror serve finds it: by the file of --config, or without it
./mirror-data, and by MIRROR_CACHE_DIR, which wins. A mirror may be running meanwhile.

It reads as fast as the disk can, and a running mirror may be slower meanwhile. That
mirror also does so by itself, slowly. Ctrl-C ends it with what was found so far.

Exit codes: 0 all is right; 1 something is damaged, or not all could be read; 2 usage.`,
		Example: `  mirror cache verify
  mirror cache verify --config /etc/mirror/config.yaml --remove`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(cmd.ErrOrStderr(), file, "verify again")
			if err != nil {
				return err
			}
			v := verifier{dir: c.Cache.Dir, remove: remove, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
			return v.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", os.Getenv("MIRROR_CONFIG"), "configuration `file` (YAML); variable MIRROR_CONFIG")
	completesFiles(cmd, "config", "yaml", "yml")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove what is damaged")
	return cmd
}

// verifier is one run of "cache verify".
type verifier struct {
	dir      string
	remove   bool
	out, err io.Writer

	tty   bool // err is a terminal: progress is shown on it
	began time.Time
	shown time.Time // when the progress was last
}

func (v *verifier) run(ctx context.Context) error {
	if f, ok := v.err.(*os.File); ok {
		v.tty = term.IsTerminal(int(f.Fd()))
	}
	v.began = time.Now()
	var broken error // of the output
	got, err := disk.Verify(ctx, v.dir, disk.VerifyOptions{
		Remove: v.remove, Progress: v.progress,
		Damaged: func(d disk.Damage) {
			v.clear()
			removed := ""
			if d.Removed {
				removed = "; removed"
			}
			if _, err := fmt.Fprintf(v.out, "%s  %d bytes  %s%s\n", d.Digest, d.Size, d.Why, removed); err != nil {
				broken = err
			}
		},
	})
	v.clear()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("stopped before all was read; so far %s", v.found(got))
	case err != nil:
		err = fmt.Errorf("%w; so far %s; check cache.dir, and that this user may read and write there", err, v.found(got))
	case got.Damaged > 0:
		err = fmt.Errorf("%s. %s", v.found(got), v.next())
	case broken == nil:
		_, broken = fmt.Fprintf(v.out, "%s: all is right\n", v.read(got))
	}
	if broken != nil && err == nil {
		err = fmt.Errorf("write the output: %w", broken)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// found says what was found.
func (v *verifier) found(got disk.Verified) string {
	if got.Damaged == 0 {
		return v.read(got) + ", nothing damaged"
	}
	s := fmt.Sprintf("%s, %d damaged", v.read(got), got.Damaged)
	if v.remove {
		s += fmt.Sprintf(", %d removed", got.Removed)
	}
	return s
}

func (v *verifier) read(got disk.Verified) string {
	return fmt.Sprintf("%s: read %d blobs, %s", v.dir, got.Blobs, amount(got.Bytes))
}

// next says what to do about damage.
func (v *verifier) next() string {
	if v.remove {
		return "What was removed is fetched again when it is next pulled; check the disk of cache.dir"
	}
	return "Run it again with --remove, then it is fetched again when it is next pulled; and check the disk of cache.dir"
}

// progressEvery is the time between two lines of progress.
const progressEvery = 200 * time.Millisecond

func (v *verifier) progress(done, all disk.Amount) {
	now := time.Now()
	if !v.tty || now.Sub(v.shown) < progressEvery {
		return
	}
	v.shown = now
	line := fmt.Sprintf("%d of %d blobs, %s of %s", done.Blobs, all.Blobs, amount(done.Bytes), amount(all.Bytes))
	if took := now.Sub(v.began); took > time.Second && done.Bytes < all.Bytes {
		left := time.Duration(float64(took) * float64(all.Bytes-done.Bytes) / float64(done.Bytes))
		line += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	fmt.Fprintf(v.err, "\r\x1b[K%s", line)
}

// clear takes the progress away, for a line to take its place.
func (v *verifier) clear() {
	if v.tty && !v.shown.IsZero() {
		fmt.Fprint(v.err, "\r\x1b[K")
	}
}

// amount is a number of bytes for people.
func amount(n int64) string {
	f, unit := float64(n), 0
	for ; f >= 1024 && unit < 4; unit++ {
		f /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[unit-1])
}
