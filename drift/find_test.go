package drift_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/oci"
)

var (
	repo = oci.Repo{Host: "ghcr.io", Name: "acme/app"}
	ref  = oci.Ref{Repo: repo, Tag: "main"}
	at   = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
)

// d is a digest by a name.
func d(name string) oci.Digest { return digest.FromString(name) }

// same has one image of each version: an index, a manifest and a config.
func same(_ oci.Repo, x oci.Digest) []oci.Digest {
	if x == d("index v2 again") { // another attestation
		return []oci.Digest{d("manifest v2"), d("config v2")}
	}
	for _, v := range []string{"v1", "v2"} {
		if x == d("index "+v) {
			return []oci.Digest{d("manifest " + v), d("config " + v)}
		}
	}
	return nil
}

// summary is a tag in one line.
func summary(list []drift.Tag) (lines []string) {
	names := make(map[string]string)
	for _, what := range []string{"index", "manifest", "config"} {
		for _, v := range []string{"v1", "v2", "v3"} {
			names[d(what+" "+v).String()] = what + " " + v
		}
	}
	for _, t := range list {
		s := t.Image + " " + string(t.Kind)
		for _, x := range t.Digests {
			s += fmt.Sprintf("; %s now=%t %v%v", names[x.Digest], x.Current, x.Clients, x.Pods)
		}
		if t.Change != nil {
			s += "; from " + names[t.Change.From] + " to " + names[t.Change.To]
		}
		lines = append(lines, s)
	}
	return lines
}

func TestFind(t *testing.T) {
	t.Parallel()
	client := func(name, got string, ago time.Duration) drift.Client {
		return drift.Client{Name: name, Digest: d(got), LastPull: at.Add(-ago)}
	}
	pod := func(name, runs string) drift.Place {
		return drift.Place{Name: "prod/" + name, Ref: ref, Digest: d(runs)}
	}
	image := func(now string, clients ...drift.Client) drift.Image {
		return drift.Image{Ref: ref, Now: d(now), Clients: clients}
	}
	for _, tt := range []struct {
		name   string
		image  drift.Image
		places []drift.Place
		want   []string
	}{
		{"all is one", image("index v1", client("a", "index v1", 0), client("b", "index v1", 0)), []drift.Place{pod("x", "index v1")}, nil},
		{
			"index, manifest and config are one image", image("index v1", client("a", "index v1", 0), client("b", "manifest v1", 0)),
			[]drift.Place{pod("x", "manifest v1"), pod("y", "config v1")},
			nil,
		},
		{
			"clients differ", image("index v2", client("a", "index v1", time.Hour), client("b", "manifest v2", 0), client("c", "index v1", time.Hour)), nil,
			[]string{"ghcr.io/acme/app:main pulled; manifest v2 now=true [b][]; index v1 now=false [a c][]"},
		},
		{
			"clients differ, and none has the newest", image("index v3", client("a", "index v1", 0), client("b", "index v2", 0)), nil,
			[]string{"ghcr.io/acme/app:main pulled; index v1 now=false [a][]; index v2 now=false [b][]"},
		},
		{
			"a client that is gone does not count", image("index v2", client("a", "index v1", drift.GoneAfter+1), client("b", "index v2", 0)), nil, nil,
		},
		{
			"a client that pulled a month ago", image("index v2", client("a", "index v1", drift.GoneAfter), client("b", "index v2", 0)), nil,
			[]string{"ghcr.io/acme/app:main pulled; index v2 now=true [b][]; index v1 now=false [a][]"},
		},
		{"a pod runs the old one", image("index v2"), []drift.Place{pod("old", "manifest v1"), pod("new", "index v2")}, []string{
			"ghcr.io/acme/app:main running; index v2 now=true [][prod/new]; manifest v1 now=false [][prod/old]",
			"ghcr.io/acme/app:main restart; index v2 now=true [][]; manifest v1 now=false [][prod/old]; from manifest v1 to index v2",
		}},
		{"no pod runs the newest", image("index v2"), []drift.Place{pod("old", "index v1"), pod("old", "index v1")}, []string{
			"ghcr.io/acme/app:main running; index v2 now=true [][]; index v1 now=false [][prod/old]",
			"ghcr.io/acme/app:main restart; index v2 now=true [][]; index v1 now=false [][prod/old]; from index v1 to index v2",
		}},
		{"pinned back", image("index v1"), []drift.Place{pod("new", "index v2")}, []string{
			"ghcr.io/acme/app:main running; index v1 now=true [][]; index v2 now=false [][prod/new]",
			"ghcr.io/acme/app:main restart; index v1 now=true [][]; index v2 now=false [][prod/new]; from index v2 to index v1",
		}},
		{"a pod that never pulls", image("index v2"), []drift.Place{{Name: "prod/x", Ref: ref, Digest: d("index v1"), Fixed: true}}, []string{
			"ghcr.io/acme/app:main running; index v2 now=true [][]; index v1 now=false [][prod/x]",
		}},
		{
			"scaled to zero since the tag moved", image("index v2", client("a", "index v1", time.Hour), client("b", "index v1", 2*time.Hour)),
			[]drift.Place{{Name: "prod/Deployment/x", Ref: ref, Idle: true}},
			[]string{
				"ghcr.io/acme/app:main restart; index v2 now=true [][]; index v1 now=false [][prod/Deployment/x]; from index v1 to index v2",
			},
		},
		{
			"scaled to zero, and the tag did not move", image("index v1", client("a", "index v1", time.Hour)),
			[]drift.Place{{Name: "prod/Deployment/x", Ref: ref, Idle: true}},
			nil,
		},
		{
			"an index with another attestation", image("index v2 again", client("a", "index v2", 0)),
			[]drift.Place{pod("x", "index v2"), pod("y", "manifest v2")},
			nil,
		},
		{"a pod that waits", image("index v2"), []drift.Place{{Name: "prod/x", Ref: ref}}, nil},
		{"another image", image("index v2"), []drift.Place{{Name: "prod/x", Ref: oci.Ref{Repo: repo, Tag: "other"}, Digest: d("index v1")}}, nil},
	} {
		got := drift.Find(drift.Input{
			At: at, Images: []drift.Image{tt.image}, Places: tt.places, Same: same,
			Change: func(_ oci.Repo, from, to oci.Digest) *drift.Change {
				return &drift.Change{From: from.String(), To: to.String()}
			},
		})
		if diff := cmp.Diff(tt.want, summary(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
