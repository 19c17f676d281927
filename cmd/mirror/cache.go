package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache/disk"
)

func newCacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "cache",
		SuggestFor: []string{"stats", "verify", "du", "disk"},
		Short:      "Show how full the cache is, check its content, and remove images",
		Long:       `Show how full the cache of a running mirror is, check the content of cache.dir, and remove images.`,
		Args:       subcommand,
		RunE:       help,
	}
	cmd.AddCommand(newCacheStatsCmd(), newCachePurgeCmd(), newCacheVerifyCmd(), newCachePrepareCmd())
	return cmd
}

func newCacheStatsCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how full the cache is, and how much it has saved",
		Long: `Show how full the cache of a running mirror is. Show also, counted from the start of the
mirror, how many blobs came from the cache and how many bytes it saved.

Exit codes: 0 shown; 1 the mirror refused the request; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror cache stats
  mirror cache stats -o json | jq '.bytes / .size'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showPath(cmd, &flags, "cache", nil, "the state of a cache", cacheText)
		},
	}
	flags.add(cmd, false)
	return cmd
}

// stored is how full the cache is.
func stored(c admin.Cache) string {
	text := amount(c.Bytes) + " of " + amount(c.Size)
	if c.Size > 0 {
		text += fmt.Sprintf(" (%d%%)", c.Bytes*100/c.Size)
	}
	return text
}

func cacheText(c admin.Cache) string {
	var t table
	t.field("stored", "%s in %d blobs and manifests", stored(c), c.Objects)
	if c.Reserved > 0 {
		t.field("reserved", "%s for downloads that run or are paused; %d are paused", amount(c.Reserved), c.Parked)
	}
	switch {
	case c.Disk != nil && c.Degraded:
		t.field("disk", "%s: new content is served and not kept; %s", strings.ToUpper(c.Disk.State), c.Disk.Text)
	case c.Disk != nil && c.Disk.Total > 0:
		t.field("disk", "%s of %s free", amount(c.Disk.Free), amount(c.Disk.Total))
	case c.Degraded:
		t.field("disk", "fails: new content is served and not kept; read the mirror's log")
	}
	t.field("blobs", "%d from the cache, %d downloaded, %d shared a running download, %d streamed without caching", c.Hits, c.Misses, c.Joined, c.Uncached)
	if c.Evicted > 0 {
		t.field("evicted", "%d, %s", c.Evicted, amount(c.EvictedBytes))
	} else {
		t.field("evicted", "nothing")
	}
	sent := amount(c.ClientBytes) + " to clients"
	if c.Hits > 0 && c.ClientBytes > c.UpstreamBytes {
		sent += fmt.Sprintf(", %d%% of it from the cache", (c.ClientBytes-c.UpstreamBytes)*100/c.ClientBytes)
	}
	t.field("received", "%s from upstreams", amount(c.UpstreamBytes))
	t.field("sent", "%s", sent)
	return t.String()
}

func newCacheVerifyCmd() *cobra.Command {
	var (
		file   string
		remove bool
	)
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read all cached content, and list what is damaged",
		Long: `Read all cached content and compare it with its digests. Damaged content is listed, one
line each: the digest, the size of its file, and what is wrong. With --remove it is also
removed; the mirror downloads it again at the next pull. Clients that are reading it are
not interrupted.

The folder is the one that mirror serve would use: cache.dir of --config, else
./mirror-data; MIRROR_CACHE_DIR wins over both. A mirror may be running in it.

The command reads as fast as the disk allows, and may slow down a running mirror, which
also does the same check by itself, slowly. Ctrl-C ends it with the result so far.

Exit codes: 0 nothing is damaged; 1 something is damaged, or not everything could be read;
2 wrong usage.`,
		Example: `  mirror cache verify
  mirror cache verify --config /etc/mirror/config.yaml --remove`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := loadConfig(cmd.ErrOrStderr(), file, "verify again")
			if err != nil {
				return err
			}
			v := verifier{dir: c.Cache.Dir, remove: remove, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), tty: isTerminal(cmd.ErrOrStderr())}
			return v.run(cmd.Context())
		},
	}
	addConfig(cmd, &file, "(YAML)")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove damaged content")
	return cmd
}

// verifier is one run of "cache verify".
type verifier struct {
	dir      string
	remove   bool
	out, err io.Writer

	tty   bool // err is a terminal: it shows the progress
	began time.Time
	shown time.Time // when the progress was shown last
}

func (v *verifier) run(ctx context.Context) error {
	v.began = time.Now()
	var broken error // of the output
	got, err := disk.Verify(ctx, v.dir, disk.VerifyOptions{
		Remove: v.remove, Progress: v.progress,
		Damaged: func(d disk.Damage) {
			v.clear()
			if _, err := fmt.Fprintf(v.out, "%s  %d bytes  %s%s\n", d.Digest, d.Size, d.Why, choose(d.Removed, "; removed", "")); err != nil {
				broken = err
			}
		},
	})
	v.clear()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("stopped before everything was read; so far %s", v.found(got))
	case err != nil:
		err = fmt.Errorf("%w; so far %s; check cache.dir, and that this user may read and write there", err, v.found(got))
	case got.Damaged > 0:
		err = fmt.Errorf("%s. %s", v.found(got), v.next())
	case broken == nil:
		_, broken = fmt.Fprintf(v.out, "%s: nothing is damaged\n", v.read(got))
	}
	if broken != nil && err == nil {
		err = fmt.Errorf("write the output: %w", broken)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// found is the result in words.
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

// next is what to do about damage.
func (v *verifier) next() string {
	return choose(v.remove, "The mirror downloads the removed content again at the next pull. Check the disk of cache.dir",
		"Run it again with --remove: the mirror downloads the content again at the next pull. Check the disk of cache.dir")
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

// clear removes the progress, to make room for a line.
func (v *verifier) clear() {
	if v.tty && !v.shown.IsZero() {
		fmt.Fprint(v.err, "\r\x1b[K")
	}
}
