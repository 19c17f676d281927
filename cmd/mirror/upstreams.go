package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newUpstreamsCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "upstreams",
		SuggestFor: []string{"registries", "endpoints", "credentials", "limits", "upstream"},
		Short:      "Show the registries that are mirrored, their endpoints, credentials and limits",
		Long: `Show the registries that are mirrored, the state of their endpoints and credentials, and
what is left of rate limits, as a running mirror knows it. No registry is contacted.

An endpoint is up; degraded (it fails at times or for blobs, or it limits us); down (other
endpoints are tried first; the API calls this state open); or unknown (not used yet).

A credential is ok; expiring (it can't be renewed, and still works); expired; rejected (by
the registry); failing (its source fails: a password file is missing, for example); or
unknown (not used yet). Secrets are never shown.

SINCE is when the state began. LAST ERROR stays after the problem is over. Limits are
those that registries report with their answers; SPENT ON lists the repositories that
used up the limit within its window, and what other clients used.

Exit codes: 0 shown, also where something is not well; 1 the mirror refused the request;
2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror upstreams
  mirror upstreams -o json | jq '.upstreams[].credentials[] | select(.state != "ok")'
  kubectl exec deploy/mirror -- mirror upstreams -o wide`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showPath(cmd, &flags, "upstreams", nil, "a list of upstreams", func(l admin.UpstreamList) string {
				return upstreamsText(l.Upstreams, flags.output.wide(), time.Now())
			})
		},
	}
	flags.add(cmd, true)
	cmd.AddCommand(newResetCmd())
	return cmd
}

func newResetCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:   "reset NAME",
		Short: "Clear the limits, refusals and down states that are remembered of a registry",
		Long: `Have a running mirror forget what it believes of a registry: that it limits us and until
when, that a limit is used up, that an endpoint is down, and recent refusals. The next
pull contacts the registry again. Use it when a registry has sent a wrong Retry-After, or
was repaired and the mirror does not know yet. A reload of the configuration does the same
for all registries.

NAME is a name or alias of the configuration, a pattern (all of its hosts), or a host that
matches a pattern.

Exit codes: 0 done; 1 the mirror refused the request, or has no such upstream; 2 wrong
usage; 4 no mirror answers.`,
		Example: `  mirror upstreams reset docker.io
  kubectl exec deploy/mirror -- mirror upstreams reset '*.azurecr.io'`,
		Args: oneArg("an upstream, as in docker.io"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			body, err := flags.change(ctx, http.MethodPost, "upstreams/reset", nil, admin.ResetRequest{Upstream: args[0]})
			if err != nil {
				return err
			}
			return show(cmd, &flags, body, "a list of upstreams", func(a admin.ResetAnswer) string {
				return "reset: " + strings.Join(a.Upstreams, ", ") + "\n"
			})
		},
	}
	flags.add(cmd, false)
	return cmd
}

// upstreamsText has a line for each endpoint, each credential and each limit.
func upstreamsText(list []admin.Upstream, wide bool, now time.Time) string {
	var endpoints, credentials, limits table
	endpoints.row("UPSTREAM", "ENDPOINT", "STATE", "SINCE", "LAST ERROR")
	for _, u := range list {
		for _, e := range u.Endpoints {
			endpoints.row(u.Name, e.URL, choose(e.State == "open", "down", e.State), since(e.Since, now),
				dated(shorten(e.LastError, wide), e.LastErrorAt, now))
		}
		if len(u.Endpoints) == 0 { // a pattern; the hosts that match it have rows of their own
			endpoints.row(u.Name, "each host that matches", "-", "-")
		}
		for _, c := range u.Credentials {
			cells := []string{
				u.Name, c.Name, c.Kind, c.State, since(c.Since, now), until(c.ExpiresAt, now), since(c.LastRefresh, now),
			}
			if wide {
				cells = append(cells, c.For, choose(len(c.Repositories) > 0, strings.Join(c.Repositories, " "), "all"))
			}
			credentials.row(append(cells, dated(c.LastError, c.LastErrorAt, now))...) // in full: often it stands nowhere else
		}
		for _, l := range u.Limits {
			limits.row(limitRow(u.Name, l, wide, now)...)
		}
	}
	text := endpoints.String()
	if len(credentials.rows) > 0 {
		head := []string{"UPSTREAM", "CREDENTIAL", "KIND", "STATE", "SINCE", "EXPIRES", "REFRESHED"}
		if wide {
			head = append(head, "FOR", "REPOSITORIES")
		}
		text += "\n" + credentials.under(append(head, "LAST ERROR")...)
	}
	if len(limits.rows) > 0 {
		text += "\n" + limits.under("UPSTREAM", "LIMIT OF", "LEFT", "MORE", "REPORTED", "SPENT ON")
	}
	return text
}

func limitRow(upstream string, l admin.Limit, wide bool, now time.Time) []string {
	of := l.Credential
	if of == "" {
		of = "anonymous" + choose(l.Source != "", " at "+l.Source, "")
	}
	left := strconv.FormatInt(l.Remaining, 10)
	if l.Limit > 0 {
		left += " of " + strconv.FormatInt(l.Limit, 10)
	}
	more := until(l.ResetAt, now)
	if l.ResetAt.IsZero() && l.WindowSeconds > 0 {
		more = "within " + (time.Duration(l.WindowSeconds) * time.Second).String()
	}
	return []string{upstream, of, left, more, since(l.SaidAt, now), spentOn(l.Spent, wide)}
}

// spentOn lists what a limit was spent on: repositories of this mirror, and requests of other clients.
func spentOn(s *admin.Spent, wide bool) string {
	if s == nil {
		return ""
	}
	most := 3
	if wide {
		most = len(s.Repositories)
	}
	var parts []string
	rest := s.Requests
	for _, use := range s.Repositories[:min(len(s.Repositories), most)] {
		parts = append(parts, fmt.Sprintf("%s %d", use.Repository, use.Requests))
		rest -= use.Requests
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("others %d", rest))
	}
	if s.Elsewhere != nil && *s.Elsewhere > 0 {
		parts = append(parts, fmt.Sprintf("not by this mirror %d", *s.Elsewhere))
	}
	return strings.Join(parts, ", ")
}

// dated is an error with how long ago it was.
func dated(text string, at, now time.Time) string {
	if text == "" || at.IsZero() {
		return text
	}
	return since(at, now) + ": " + text
}
