package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newPullsCmd() *cobra.Command {
	var flags adminFlags
	var over bool
	var limit int
	cmd := &cobra.Command{
		Use:        "pulls",
		SuggestFor: []string{"ps", "pull", "active", "images"},
		Short:      "Show the pulls that go on, or those that are over",
		Long: `Show the pulls that go on at a running mirror, the one that began last first. With --over,
the last 1,000 that are over. A pull is what one client asks of one image; it is over a
minute after its last request. Its outcome is served, stale (from the cache, while the
registry did not answer), declined (left to the node), failed or looked (nothing was
downloaded); of one that goes on, what it would be if it ended now.

Exit codes: 0 they were shown; 1 the mirror refuses; 2 usage; 4 no mirror answers.`,
		Example: `  mirror pulls
  mirror pulls --over --limit 20
  mirror pulls -o json | jq '.pulls[].image'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.output.check(); err != nil {
				return err
			}
			if limit < 1 || limit > 1000 {
				return fmt.Errorf("--limit %d: it is from 1 to 1000", limit)
			}
			q := url.Values{"active": {choose(over, "false", "true")}, "limit": {fmt.Sprint(limit)}}
			body, err := flags.get(cmd.Context(), "pulls", q)
			if err != nil {
				return err
			}
			if flags.output.encoded() {
				return flags.print(cmd.OutOrStdout(), body)
			}
			var list admin.PullList
			if err := flags.read(body, &list, "not a list of pulls"); err != nil {
				return err
			}
			return showPulls(cmd.OutOrStdout(), list, over, time.Now())
		},
	}
	flags.add(cmd, false)
	cmd.Flags().BoolVar(&over, "over", false, "those that are over, instead of those that go on")
	cmd.Flags().IntVar(&limit, "limit", 50, "show at most so many, up to 1000")
	return cmd
}

func showPulls(out io.Writer, list admin.PullList, over bool, now time.Time) error {
	if len(list.Pulls) == 0 {
		return write(out, []byte(choose(over, "No pull is over yet.\n", "No pull goes on; --over shows those that are over.\n")))
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tCLIENT\tOUTCOME\tBYTES\tFROM CACHE\tBEGAN\t"+choose(over, "TOOK\t", "")+"FAILURE")
	for _, p := range list.Pulls {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t", p.Image, p.Client, p.Outcome, amount(p.Bytes), amount(p.FromCache),
			since(p.StartedAt, now))
		if over {
			fmt.Fprintf(w, "%s\t", p.Took)
		}
		fmt.Fprintln(w, choose(p.FailureID == "", "-", p.FailureID))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if list.Continue != "" {
		b.WriteString("\nThere are more; --limit shows up to 1000.\n")
	}
	return write(out, []byte(b.String()))
}
