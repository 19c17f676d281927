package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
)

func newStatusCmd() *cobra.Command {
	var flags adminFlags
	cmd := &cobra.Command{
		Use:        "status",
		SuggestFor: []string{"info", "health", "ping", "state"},
		Short:      "Show on one screen what is not well",
		Long: `Show the state of a running mirror on one screen: its version and uptime, the endpoints
and credentials that are not well, the number of running pulls, the cache, pins and those
that end within a day, tags that are held back, jobs of warm-up and schedules, and the failures of the last hour.

Exit codes: 0 shown, also where something is not well; 1 the mirror refused the request;
2 wrong usage; 4 no mirror answers.`,
		Example: `  mirror status
  mirror status -o json | jq '.credentials[].name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showPath(cmd, &flags, "status", nil, "a status", func(s admin.Status) string { return statusText(s, time.Now()) })
		},
	}
	flags.add(cmd, false)
	return cmd
}

func statusText(s admin.Status, now time.Time) string {
	var t table
	t.field("mirror", "%s, up for %s, %s", s.Version, s.Uptime, choose(s.Ready, "ready", "stopping"))
	t.field("config", "%s, read %s", choose(s.Config.File == "", "built-in defaults", s.Config.File), since(s.Config.TakenAt, now))
	if s.Config.LastError != "" {
		t.field("", "the last reload was refused: %s", s.Config.LastError)
	}
	if len(s.Config.Restart) > 0 {
		t.field("", "needs a restart: %s", strings.Join(s.Config.Restart, ", "))
	}
	t.field("upstreams", "%d, %s", s.Upstreams, choose(len(s.Endpoints) == 0, "none is known to be down",
		fmt.Sprintf("%s not well:", plural(len(s.Endpoints), "endpoint is", "endpoints are"))))
	for _, e := range s.Endpoints {
		t.field("", "%s %s is %s%s%s", e.Upstream, e.URL, choose(e.State == "open", "down", e.State), sinceWhen(e.Since, now), because(e.LastError))
	}
	t.field("credentials", "%s", choose(len(s.Credentials) == 0, "none fails",
		fmt.Sprintf("%s not well:", plural(len(s.Credentials), "is", "are"))))
	for _, c := range s.Credentials {
		t.field("", "%s %s is %s%s%s", c.Upstream, c.Name, c.State, sinceWhen(c.Since, now), because(c.LastError))
	}
	if s.Pulls != nil {
		t.field("pulls", "%d running", *s.Pulls)
	}
	if c := s.Cache; c != nil {
		t.field("cache", "%s%s", stored(*c), choose(c.Degraded, "; the disk fails: new content is served and not kept", ""))
	}
	if p := s.Pins; p != nil {
		t.field("pins", "%s%s", plural(p.Count, "tag is pinned", "tags are pinned"), choose(len(p.Ending) == 0, "", "; these end soon:"))
		for _, x := range p.Ending {
			t.field("", "%s ends %s", x.Image, until(x.Until, now))
		}
	}
	if h := s.Immutable; h != nil {
		t.field("immutable", "%s moved at the registry: %s", plural(h.Count, "tag has", "tags have"), someOf(h))
	}
	if h := s.Held; h != nil {
		t.field("minAge", "%s back: %s", plural(h.Count, "tag is held", "tags are held"), someOf(h))
	}
	if w := s.Warm; w != nil {
		addWarm(&t, w, now)
	}
	if f := s.Failures; f != nil {
		t.field("failures", "%s", lastHour(f))
	}
	return t.String()
}

// addWarm adds the jobs of warm-up, and when schedules begin the next ones.
func addWarm(t *table, w *admin.StatusWarm, now time.Time) {
	text := plural(w.Running, "job runs or waits", "jobs run or wait")
	if w.Failed > 0 {
		text += fmt.Sprintf(", %d failed in the last day: see mirror warm show %s", w.Failed, w.Newest[0])
	}
	t.field("warm-up", "%s", text)
	for _, x := range w.Schedules {
		t.field("", "schedule %s: %s", x.Name, choose(x.Next.IsZero(), "the next job begins when a tag moves",
			fmt.Sprintf("the next job begins %s", until(x.Next, now))))
	}
}

// someOf names some of the tags that are counted.
func someOf(h *admin.StatusHeld) string {
	return strings.Join(h.Newest, ", ") + choose(h.Count > len(h.Newest), fmt.Sprintf(", and %d more", h.Count-len(h.Newest)), "")
}

// lastHour is how many pulls failed lately, and the command that lists them.
func lastHour(f *admin.StatusFailures) string {
	var total int64
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(f.Classes)) {
		total += f.Classes[class]
		parts = append(parts, fmt.Sprintf("%s %d", class, f.Classes[class]))
	}
	text := "none in the last hour"
	if total > 0 {
		text = fmt.Sprintf("%d in the last hour: %s; see mirror failures --since 1h", total, strings.Join(parts, ", "))
	}
	if f.Declined > 0 {
		text += fmt.Sprintf("; pulls of %s were left to the nodes (mirror failures --declined)", plural(f.Declined, "image", "images"))
	}
	return text
}

func sinceWhen(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " for " + max(now.Sub(t), 0).Round(time.Second).String()
}

func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
