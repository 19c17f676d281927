package config_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// TestMistakesInSchedules has a schedule's keys, and the messages without the path of the schedule.
func TestMistakesInSchedules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, keys string
		want       []string
	}{
		{"no time", `images: [nginx]`, []string{`: has no time (add cron, as in cron: "0 5 * * *", or onTagMove: true)`}},
		{"two times", `cron: "0 5 * * *", onTagMove: true, images: [nginx]`, []string{`.onTagMove: the schedule has cron as well (write two schedules, or remove one of these)`}},
		{"a zone for moves", `onTagMove: true, timeZone: Europe/Berlin, images: [nginx]`, []string{`.timeZone: has no effect without cron (remove it)`}},
		{"a zone that is not there", `cron: "@daily", timeZone: Europe/Berlln, images: [nginx]`, []string{`.timeZone: "Europe/Berlln" is not a time zone (as in Europe/Berlin or America/New_York)`}},
		{
			"a time that is not one", `cron: "0 25 * * *", images: [nginx]`,
			[]string{`.cron: "0 25 * * *" has no times: hour "25": "25" is not a number from 0 to 23 (as in "0 5 * * *": minute, hour, day of month, month, day of week; a zone goes into timeZone)`},
		},
		{
			"a zone in cron", `cron: "CRON_TZ=Europe/Berlin 0 5 * * *", timeZone: UTC, images: [nginx]`,
			[]string{`.cron: "CRON_TZ=Europe/Berlin 0 5 * * *" has no times: it needs five fields and has 6 (as in "0 5 * * *": minute, hour, day of month, month, day of week)`},
		},
		{"no images", `cron: "@daily"`, []string{`.images: a schedule names no image (add images, as in [docker.io/library/nginx:1.27])`}},
		{"a glob", `cron: "@daily", images: ["docker.io/library/*"]`, []string{`.images[0]: "docker.io/library/*" is not an image (as in docker.io/library/nginx:1.27; no glob)`}},
		{"another registry", `cron: "@daily", images: [nginx, "example.com/app:1"]`, []string{`.images[1]: "example.com" is not among the upstreams (add it under upstreams, or remove the image)`}},
		{"a digest that moves", `onTagMove: true, images: ["nginx@` + digest + `"]`, []string{`.images[0]: an image by digest never moves (name it by its tag, or in a schedule with cron)`}},
		{"a platform", `cron: "@daily", images: [nginx], platforms: [x86_64]`, []string{`.platforms[0]: "x86_64" is not a platform (write OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64)`}},
		{"with", `cron: "@daily", images: [nginx], with: [signature]`, []string{`.with[0]: "signature" is not pulled beside an image (write signatures or referrers)`}},
		{"a name", `name: "a b", cron: "@daily", images: [nginx]`, []string{`.name: "a b" is not a name (write letters, digits, -, . or _, at most 63)`}},
		{"a name of another", `name: other, cron: "@daily", images: [nginx]`, []string{`.name: another schedule is called "other" (give each a name of its own)`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, p := range problems(t, `upstreams: {docker.io: {}, "*.azurecr.io": {}}
warm: {schedules: [{name: other, cron: "@daily", images: [redis]}, {`+tt.keys+`}]}`) {
				_, message, _ := strings.Cut(p, "warm.schedules[1]")
				got = append(got, message)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMistakesInTheFeed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{feed: true, feedNamespaces: []}":        `kubernetes.feedNamespaces: the feed has no namespace (write ["*"] for all, or set kubernetes.feed to false)`,
		"{feed: true, feedNamespaces: [Prod]}":    `kubernetes.feedNamespaces[0]: "Prod" is not a glob of namespaces (as in prod, team-* or *)`,
		"{feed: true, feedExcluded: ['!kube-*']}": `kubernetes.feedExcluded[0]: "!kube-*" is not a glob of namespaces (as in prod, team-* or *)`,
		"{feed: true, feedExcluded: ['a/b', '']}": `kubernetes.feedExcluded[0]`,
	} {
		if got := problems(t, "kubernetes: "+text); !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	c := parse(t, `upstreams: {docker.io: {}, "*.azurecr.io": {}}
warm: {schedules: [{cron: "0 5 * * *", timeZone: Europe/Berlin, images: [nginx, acme.azurecr.io/app@`+digest+`]}, {onTagMove: true, images: [nginx]}]}`)
	spec, zone := c.Warm.Schedules[0].Times()
	if got := spec.Next(time.Date(2026, 7, 1, 12, 0, 0, 0, zone)).UTC(); got.Format(time.RFC3339) != "2026-07-02T03:00:00Z" {
		t.Errorf("the next time is %s", got)
	}
	if spec, _ := c.Warm.Schedules[1].Times(); spec != nil {
		t.Error("a schedule for moves has times")
	}
}
