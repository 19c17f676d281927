package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/oci"
)

func newCachePurgeCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "purge IMAGE | DIGEST",
		SuggestFor: []string{"rm", "remove", "delete", "clear", "evict", "flush"},
		Short:      "Remove an image, or one piece of content, from the cache",
		Long: `Remove an image from the cache of a running mirror: its manifests and all of its blobs, for
every platform. The next pull asks the registry and downloads it again, so a purge does not
keep a bad image out: pin the tag for that (mirror tags pin). The history of the tag stays.
Blobs that other images share go, too, and are downloaded again when they are needed; those
of a pinned image stay. With a digest alone, one manifest or blob is removed.

Clients that are downloading it are not interrupted. A pinned image is not removed: end
the pin first.

Exit codes: 0 done, also if nothing of it was there; 1 it is pinned, or the mirror refused
the request; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror cache purge ghcr.io/acme/app:main
  mirror cache purge sha256:8d3f30fecb15daccf30ce8cdb80a567420db3337d838eb2f9732b8f3fa6ffb1a`,
		Args: oneArg("an image or a digest, as in ghcr.io/acme/app:main"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := admin.PurgeRequest{Image: args[0]}
			if oci.Digest(args[0]).Validate() == nil {
				request = admin.PurgeRequest{Digest: args[0]}
			}
			if _, err := flags.change(cmd.Context(), http.MethodPost, "purge", nil, request); err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), args[0]+" was purged: its next pull asks the registry\n")
		},
	}
	flags.add(cmd, false)
	return cmd
}
