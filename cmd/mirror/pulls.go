package main

import (
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newPullsCmd() *cobra.Command {
	var flags adminFlags
	var over bool
	var most limit
	cmd := &cobra.Command{
		Use:        "pulls",
		SuggestFor: []string{"ps", "pull", "active", "images"},
		Short:      "Show the running pulls, or the finished ones",
		Long: `Show the running pulls of a mirror, the one that began last first. With --over, show the
last 1,000 finished ones instead. A pull is one client fetching one image. It is finished
when the client has everything, or a minute after its last request.

The outcomes are served; stale (from the cache, while the registry did not answer);
declined (left to the node); failed; and looked (nothing was downloaded). A running pull
is shown with the outcome that it would have if it ended now.

Exit codes: 0 shown; 1 the mirror refused the request; 2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror pulls
  mirror pulls --over --limit 20
  mirror pulls -o json | jq '.pulls[].image'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"active": {choose(over, "false", "true")}, "limit": {most.String()}}
			return showPath(cmd, &flags, "pulls", q, "a list of pulls", func(l admin.PullList) string {
				return pullsText(l, over, time.Now())
			})
		},
	}
	flags.add(cmd, false)
	cmd.Flags().BoolVar(&over, "over", false, "show the finished pulls instead of the running ones")
	addLimit(cmd, &most, "show at most so many pulls, up to 1000")
	return cmd
}

func pullsText(list admin.PullList, over bool, now time.Time) string {
	if len(list.Pulls) == 0 {
		return choose(over, "No pull is finished yet.\n", "No pull is running; --over shows the finished ones.\n")
	}
	var t table
	head := []string{"IMAGE", "CLIENT", "OUTCOME", "BYTES", "FROM CACHE", "BEGAN", "TOOK", "FAILURE"}
	if !over {
		head = slices.Delete(head, 6, 7)
	}
	t.row(head...)
	for _, p := range list.Pulls {
		cells := []string{p.Image, p.Client, string(p.Outcome), amount(p.Bytes), amount(p.FromCache), since(p.StartedAt, now)}
		if over {
			cells = append(cells, p.Took)
		}
		t.row(append(cells, orDash(p.FailureID))...)
	}
	return t.String() + moreText(list.Continue)
}
