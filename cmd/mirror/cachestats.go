package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

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
			body, err := flags.get(cmd.Context(), "cache", nil)
			if err != nil {
				return err
			}
			return show(cmd, &flags, body, "the state of a cache", cacheText)
		},
	}
	flags.add(cmd, false)
	return cmd
}

func cacheText(c admin.Cache) string {
	var t table
	stored := amount(c.Bytes) + " of " + amount(c.Size)
	if c.Size > 0 {
		stored += fmt.Sprintf(" (%d%%)", c.Bytes*100/c.Size)
	}
	t.field("stored", "%s in %d blobs and manifests", stored, c.Objects)
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
