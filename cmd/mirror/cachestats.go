package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newCacheStatsCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how full the cache is, and what it did",
		Long: `Show how full the cache of a running mirror is, and what it did since the mirror was
started: how many blobs came from it, and how many bytes of upstreams it saved.

Exit codes: 0 it was shown; 1 the mirror refuses; 2 usage; 4 no mirror answers.`,
		Example: `  mirror cache stats
  mirror cache stats -o json | jq '.bytes / .size'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			body, err := flags.get(cmd.Context(), "cache", nil)
			if err != nil {
				return err
			}
			if flags.output.encoded() {
				return flags.print(cmd.OutOrStdout(), body)
			}
			var c admin.Cache
			if err := flags.read(body, &c, "no account of a cache"); err != nil {
				return err
			}
			return showCache(cmd.OutOrStdout(), c)
		},
	}
	flags.add(cmd, false)
	return cmd
}

func showCache(out io.Writer, c admin.Cache) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	stored := amount(c.Bytes) + " of " + amount(c.Size)
	if c.Size > 0 {
		stored += fmt.Sprintf(" (%d%%)", c.Bytes*100/c.Size)
	}
	line("stored", "%s in %d blobs and manifests", stored, c.Objects)
	if c.Reserved > 0 {
		line("reserved", "%s for downloads that run or are paused; %d are paused", amount(c.Reserved), c.Parked)
	}
	switch {
	case c.Disk != nil && c.Degraded:
		line("disk", "%s: new content is served and not kept; %s", strings.ToUpper(c.Disk.State), c.Disk.Text)
	case c.Disk != nil && c.Disk.Total > 0:
		line("disk", "%s of %s free", amount(c.Disk.Free), amount(c.Disk.Total))
	case c.Degraded:
		line("disk", "fails: new content is served and not kept; look at the mirror's log")
	}
	line("blobs", "%d from the cache, %d downloaded, %d shared a running download, %d streamed without caching", c.Hits, c.Misses, c.Joined, c.Uncached)
	if c.Evicted > 0 {
		line("evicted", "%d, %s", c.Evicted, amount(c.EvictedBytes))
	} else {
		line("evicted", "nothing")
	}
	sent := amount(c.ClientBytes) + " to clients"
	if c.Hits > 0 && c.ClientBytes > c.UpstreamBytes {
		sent += fmt.Sprintf(", %d%% of it from the cache", (c.ClientBytes-c.UpstreamBytes)*100/c.ClientBytes)
	}
	line("received", "%s from upstreams", amount(c.UpstreamBytes))
	line("sent", "%s", sent)
	if err := w.Flush(); err != nil {
		return err
	}
	return write(out, []byte(b.String()))
}
