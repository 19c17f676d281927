package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/drift"
)

const (
	sumA = "sha256:8d3f30fecb15daccf30ce8cdb80a567420db3337d838eb2f9732b8f3fa6ffb1a"
	sumB = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestTagsText(t *testing.T) {
	t.Parallel()
	list := admin.TagList{Continue: "x", Tags: []admin.TagSummary{
		{Image: "docker.io/library/nginx:1.27", Digest: sumA, CheckedAt: noon.Add(-time.Minute), LastPull: noon.Add(-time.Hour), Clients: 3, Changes: 2, Floating: true, Pinned: true},
		{Image: "ghcr.io/acme/app:v1.2.3", Digest: sumB, CheckedAt: noon.Add(-time.Hour), LastPull: noon.Add(-time.Hour), Clients: 1},
		{Image: "quay.io/acme/job:1", Digest: sumB, CheckedAt: noon.Add(-time.Hour), Uses: 2, UsedBy: []string{"prod/CronJob/job", "prod/job-1"}},
	}, Notes: []string{"no Deployments"}}
	if diff := cmp.Diff(`IMAGE                         DIGEST               CHECKED     PULLED      CLIENTS  NOTES
docker.io/library/nginx:1.27  sha256:8d3f30fecb15  1m0s ago    1h0m0s ago  3        pinned, floating, moved 2 times
ghcr.io/acme/app:v1.2.3       sha256:111111111111  1h0m0s ago  1h0m0s ago  1
quay.io/acme/job:1            sha256:111111111111  1h0m0s ago  -           0        used by 2 pods and workloads

There are more; --limit shows up to 1000.
Note: no Deployments
`, tagsText(list, false, noon)); diff != "" {
		t.Error(diff)
	}
	if got := tagsText(list, true, noon); !strings.Contains(got, "used by prod/CronJob/job prod/job-1\n") {
		t.Error(got)
	}
}

func TestTagText(t *testing.T) {
	t.Parallel()
	x := admin.Tag{
		Image: "docker.io/acme/app:main", Digest: sumA, CheckedAt: noon.Add(-time.Minute),
		Pin: &admin.Pin{Digest: sumB, Operator: "alice", Until: noon.Add(time.Hour), Reason: "INC-1"},
		History: []admin.TagPeriod{
			{Digest: sumA, FirstSeen: noon.Add(-time.Hour), LastSeen: noon, Source: "webhook", Size: 5 << 20, Platforms: []string{"linux/amd64", "linux/arm64"}, Complete: true, Reversion: true},
			{Digest: sumB, FirstSeen: noon.Add(-2 * time.Hour), LastSeen: noon.Add(-time.Hour)},
		},
		Clients: []admin.TagClient{{Client: "node-1", Digest: sumB, LastPull: noon.Add(-time.Hour)}},
	}
	if diff := cmp.Diff(`image    docker.io/acme/app:main
means    `+sumA+`
checked  1m0s ago
pinned   to `+sumB+` by alice, until 2026-11-30T13:00:00Z: INC-1

DIGEST               FIRST SEEN            LAST SEEN             SOURCE   SIZE   PLATFORMS                HERE
sha256:8d3f30fecb15  2026-11-30T11:00:00Z  2026-11-30T12:00:00Z  webhook  5 MiB  linux/amd64 linux/arm64  all      reversion
sha256:111111111111  2026-11-30T10:00:00Z  2026-11-30T11:00:00Z  -        -      -                        not all

CLIENT  GOT LAST             PULLED
node-1  sha256:111111111111  1h0m0s ago
`, tagText(x, false, noon)); diff != "" {
		t.Error(diff)
	}
	x.At, x.Digest, x.Pin, x.Clients = noon.Add(-90*time.Minute), sumB, nil, nil
	if got := tagText(x, false, noon); !strings.Contains(got, "at     2026-11-30T10:30:00Z\nmeant  "+sumB+"\n") || strings.Contains(got, "not seen") {
		t.Error(got)
	}
	x.NotSeen = &admin.TagGap{From: noon.Add(-2 * time.Hour), To: noon.Add(-time.Hour)}
	if got, want := tagText(x, false, noon), "       not seen between 2026-11-30T10:00:00Z and 2026-11-30T11:00:00Z; this is the last image known before\n"; !strings.Contains(got, want) {
		t.Error(got)
	}
}

func TestDriftText(t *testing.T) {
	t.Parallel()
	got := driftText(admin.DriftList{Report: drift.Report{Drift: []drift.Tag{
		{Image: "docker.io/acme/app:main", Kind: drift.Pulled, Digests: []drift.Digest{
			{Digest: sumA, Current: true, Clients: []string{"n1"}}, {Digest: sumB, Clients: []string{"n2", "n3", "n4", "n5", "n6", "n7"}},
		}},
		{Image: "docker.io/acme/app:main", Kind: drift.Restart, Digests: []drift.Digest{
			{Digest: sumA, Current: true}, {Digest: sumB, Pods: []string{"prod/web"}},
		}, Change: &drift.Change{FromCreated: noon.Add(-24 * time.Hour), ToCreated: noon, FromSize: 10 << 20, ToSize: 12 << 20, Layers: 7, LayersCommon: 6}},
	}, Notes: []string{"pods were not compared"}}}, false)
	if diff := cmp.Diff(`docker.io/acme/app:main  clients got different images
  sha256:8d3f30fecb15  now  n1
  sha256:111111111111       n2, n3, n4, n5, n6, and 1 more

docker.io/acme/app:main  pods would get another image if they restarted
  sha256:8d3f30fecb15  now
  sha256:111111111111       prod/web
  built 2026-11-30 12:00 instead of 2026-11-29 12:00; 6 of 7 layers the same; 12 MiB instead of 10 MiB

Note: pods were not compared
`, got); diff != "" {
		t.Error(diff)
	}
	if got := driftText(admin.DriftList{}, false); got != "No drift was found.\n" {
		t.Errorf("%q", got)
	}
}

func TestStatusOfTags(t *testing.T) {
	t.Parallel()
	got := statusText(admin.Status{
		Pins:      &admin.StatusPins{Count: 12, Ending: []admin.Pin{{Image: "docker.io/acme/app:1", Until: noon.Add(90 * time.Minute)}}},
		Held:      &admin.StatusHeld{Count: 7, Newest: []string{"docker.io/acme/a:1", "docker.io/acme/b:1"}},
		Immutable: &admin.StatusHeld{Count: 1, Newest: []string{"docker.io/acme/c:1"}},
		Warm: &admin.StatusWarm{
			Running: 1, Failed: 2, Newest: []string{"3f9c2a7b", "11111111"},
			Schedules: []admin.Schedule{{Name: "night", Next: noon.Add(5 * time.Hour)}, {Name: "main"}},
		},
	}, noon)
	want := `pins         12 tags are pinned; these end soon:
             docker.io/acme/app:1 ends in 1h30m0s
immutable    1 tag has moved at the registry: docker.io/acme/c:1
minAge       7 tags are held back: docker.io/acme/a:1, docker.io/acme/b:1, and 5 more
warm-up      1 job runs or waits, 2 failed in the last day: see mirror warm show 3f9c2a7b
             schedule night: the next job begins in 5h0m0s
             schedule main: the next job begins when a tag moves
`
	if !strings.HasSuffix(got, want) {
		t.Errorf("got %s", got)
	}
	if got := statusText(admin.Status{Pins: &admin.StatusPins{Count: 1}}, noon); !strings.Contains(got, "pins         1 tag is pinned\n") {
		t.Error(got)
	}
}

// A pin says which operator has set it. One without a name says how it was set, and one of a mirror of an earlier version as well.
func TestPinsText(t *testing.T) {
	t.Parallel()
	pins := []admin.Pin{
		{Image: "docker.io/acme/app:1", Digest: sumA, Since: noon.Add(-time.Hour), By: "api", Operator: "alice", Reason: "INC-1"},
		{Image: "docker.io/acme/app:2", Digest: sumA, Since: noon.Add(-time.Hour), By: "api"},
		{Image: "docker.io/acme/app:3", Digest: sumA, Since: noon.Add(-time.Hour), By: "config"},
	}
	want := `IMAGE                 DIGEST               SINCE       ENDS   SET BY  REASON
docker.io/acme/app:1  sha256:8d3f30fecb15  1h0m0s ago  never  alice   INC-1
docker.io/acme/app:2  sha256:8d3f30fecb15  1h0m0s ago  never  api
docker.io/acme/app:3  sha256:8d3f30fecb15  1h0m0s ago  never  config
`
	if diff := cmp.Diff(want, pinsText(pins, false, noon)); diff != "" {
		t.Error(diff)
	}
}

// The forms of pins for other files are what these programs read.
func TestPinsFor(t *testing.T) {
	t.Parallel()
	pins := []admin.Pin{
		{Image: "docker.io/library/nginx:1.27", Digest: sumA}, {Image: "ghcr.io/acme/app:main", Digest: sumB}, {Image: "ghcr.io/acme/app:1.0", Digest: sumB},
	}
	for form, want := range map[string]string{
		pinsKustomize: `# name: as the manifests write it; kustomize goes by the name alone, whatever the tag is
images:
  - name: docker.io/library/nginx # tag 1.27
    digest: ` + sumA + `
  # 2 tags of ghcr.io/acme/app are pinned: use one entry, or write the digests into the manifests
  # - name: ghcr.io/acme/app # tag main
  #   digest: ` + sumB + `
  # - name: ghcr.io/acme/app # tag 1.0
  #   digest: ` + sumB + `
`,
		pinsHelm: `images:
  - repository: docker.io/library/nginx
    tag: "1.27"
    digest: ` + sumA + `
  - repository: ghcr.io/acme/app
    tag: "main"
    digest: ` + sumB + `
  - repository: ghcr.io/acme/app
    tag: "1.0"
    digest: ` + sumB + `
`,
		pinsConfig: `upstreams:
  "docker.io":
    pins:
      library/nginx:1.27: ` + sumA + `
  "ghcr.io":
    pins:
      acme/app:main: ` + sumB + `
      acme/app:1.0: ` + sumB + `
`,
	} {
		got, err := pinsFor(form, pins)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", form, diff)
		}
	}
}

// The commands send what their arguments say, and refuse what can't be meant.
func TestTagCommands(t *testing.T) {
	t.Parallel()
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(b)))
		switch {
		case r.Method == http.MethodDelete || r.URL.Path == "/api/v1/purge":
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Path == "/api/v1/tags/drift":
			_ = json.NewEncoder(w).Encode(admin.DriftList{Report: drift.Report{Drift: []drift.Tag{{Image: "a", Kind: drift.Pulled}}}})
		case r.URL.Path == "/api/v1/tags/refresh":
			_ = json.NewEncoder(w).Encode(admin.Refreshed{Image: "docker.io/acme/app:v1", Digest: sumA, Changed: true})
		default:
			_, _ = io.WriteString(w, `{"image":"docker.io/acme/app:v1","digest":"`+sumA+`"}`)
		}
	}))
	t.Cleanup(s.Close)
	for _, tt := range []struct {
		args      string
		code      int
		sent, out string
	}{
		{"tags refresh acme/app:v1", 0, `POST /api/v1/tags/refresh {"image":"acme/app:v1"}`, "docker.io/acme/app:v1 means now " + sumA + " at its registry"},
		{"tags pin acme/app:v1@" + sumA + " --reason INC-1", 0, `PUT /api/v1/pins {"image":"acme/app:v1","digest":"` + sumA + `","reason":"INC-1"}`, "is pinned to " + sumA + "; mirror tags unpin ends it"},
		{"tags pin acme/app:v1 --at 2026-11-01T10:00:00Z --until 2099-01-01T00:00:00Z", 0, `PUT /api/v1/pins {"image":"acme/app:v1","at":"2026-11-01T10:00:00Z","until":"2099-01-01T00:00:00Z"}`, "is pinned"},
		{"tags pin acme/app:v1", 2, "", "--at"},
		{"tags pin acme/app:v1@" + sumA + " --at 2h", 2, "", "--at"},
		{"tags pin acme/app:v1@" + sumA + " --until 2020-01-01T00:00:00Z", 2, "", "is over"},
		{"tags pin acme/app@" + sumA, 2, "", "write the tag that is to be pinned: acme/app:TAG@" + sumA},
		{"tags pin", 2, "", "needs an image"},
		{"tags unpin acme/app:v1", 0, "DELETE /api/v1/pins?image=acme%2Fapp%3Av1", "no longer pinned"},
		{"tags show acme/app:v1 --at 2026-11-01T10:00:00Z", 0, "GET /api/v1/tags?at=2026-11-01T10%3A00%3A00Z&image=acme%2Fapp%3Av1", sumA},
		{"tags show acme/app:v1 --at soon", 2, "", "--at soon"},
		{"tags drift", 0, "GET /api/v1/tags/drift", "clients got different images"},
		{"tags drift --fail --kind pulled", 1, "GET /api/v1/tags/drift?kind=pulled", "1 case of drift"},
		{"tags drift --kind other", 2, "", "restart"},
		{"tags list --floating", 0, "GET /api/v1/tags?floating=true&limit=50", "No tag"},
		{"cache purge acme/app:v1", 0, `POST /api/v1/purge {"image":"acme/app:v1"}`, "was purged"},
		{"cache purge " + sumA, 0, `POST /api/v1/purge {"digest":"` + sumA + `"}`, "was purged"},
		{"cache purge", 2, "", "needs an image or a digest"},
	} {
		asked = nil
		code, out, errs := commandLine(t, append(strings.Fields(tt.args), "--admin", s.URL)...)
		if code != tt.code || !strings.Contains(out+errs, tt.out) {
			t.Errorf("%s: %d %s%s", tt.args, code, out, errs)
		}
		if got := strings.Join(asked, "; "); got != tt.sent {
			t.Errorf("%s: sent %q, want %q", tt.args, got, tt.sent)
		}
	}
}
