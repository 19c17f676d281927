package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/origin"
)

// Every page can be reached by the Link of the one before it, whichever way the client names the upstream.
func TestTagsPageByPage(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{hub: origin.Options{PageSize: 3}})
	im := w.hub.AddImage("library/app", "", origin.Image{})
	want := []string{"a", "b", "c", "d", "e", "f", "g"}
	for _, tag := range want {
		w.hub.SetTag("library/app", tag, im.Root.Digest)
	}
	for _, first := range []string{
		"/v2/app/tags/list?n=2", "/v2/app/tags/list?n=2&ns=docker.io", "/v2/library/app/tags/list?ns=index.docker.io",
		"/v2/docker.io/app/tags/list?n=5", "/v2/docker.io/library/app/tags/list", "/v2/app/tags/list?ns=DOCKER.io&n=0002",
	} {
		var got []string
		pages := 0
		for next := first; next != ""; pages++ {
			res, body := w.do(t, "GET", next)
			var doc struct{ Tags []string }
			if err := json.Unmarshal(body, &doc); err != nil || res.StatusCode != 200 {
				t.Fatalf("GET %s: %s %s", next, res.Status, body)
			}
			got = append(got, doc.Tags...)
			next = nextOf(t, res.Header)
		}
		if diff := cmp.Diff(want, got); diff != "" || pages < 3 {
			t.Errorf("%s: %d pages (-want +got)\n%s", first, pages, diff)
		}
	}
}

func nextOf(t *testing.T, h http.Header) string {
	t.Helper()
	link := h.Get("Link")
	if link == "" {
		return ""
	}
	target, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if !ok || !strings.HasPrefix(target, "/v2/") {
		t.Fatalf("Link %q", link)
	}
	return target
}

// An upstream's link to the next page becomes a request that the mirror accepts.
func TestLinksOfUpstreams(t *testing.T) {
	t.Parallel()
	const here = "/v2/app/tags/list"
	for name, c := range map[string]struct{ link, with, without string }{
		"plain":           {`</v2/library/app/tags/list?last=b&n=2>; rel="next"`, "?last=b&n=2&ns=docker.io", "?last=b&n=2"},
		"with our word":   {`</v2/x/tags/list?ns=evil.example&last=b>; rel="next"`, "?last=b&ns=docker.io", "?last=b"},
		"our word last":   {`</v2/x/tags/list?last=b&ns=evil.example>; rel="next"`, "?last=b&ns=docker.io", "?last=b"},
		"our word, twice": {`</v2/x?ns=a&ns=b&last=b&ns>; rel="next"`, "?last=b&ns=docker.io", "?last=b"},
		"escaped":         {`</v2/x?n%73=a&last=b>; rel="next"`, "?last=b&ns=docker.io", "?last=b"},
		"our word only":   {`</v2/x?ns=a>; rel="next"`, "", ""},
		"opaque":          {`</v2/x?next_page=gAAAAA%3D%3D>; rel="next"`, "?next_page=gAAAAA%3D%3D&ns=docker.io", "?next_page=gAAAAA%3D%3D"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, wired{})
			w.hub.AddImage("library/app", "1", origin.Image{})
			w.hub.Script(origin.Rule{Kind: origin.KindTags, Do: origin.Fault{Header: http.Header{"Link": {c.link}}}})
			for query, want := range map[string]string{"?ns=docker.io": c.with, "": c.without} {
				res, _ := w.do(t, "GET", here+query)
				got := nextOf(t, res.Header)
				if strings.TrimPrefix(got, here) != want {
					t.Errorf("%q: next is %q, want %q", query, got, want)
				}
				if got == "" {
					continue
				}
				if res, body := w.do(t, "GET", got); res.StatusCode != 200 {
					t.Errorf("GET %s: %s\n%s", got, res.Status, body)
				}
			}
		})
	}
}

func TestNumberOfTags(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	w.hub.AddImage("library/app", "1", origin.Image{})
	for n, status := range map[string]int{
		"0": 200, "1": 200, "5000": 200, "99999999999999999999": 200, "": 200, "x": 400, "-1": 400, "1.5": 400, "1&n=2": 400,
	} {
		res, body := w.do(t, "GET", "/v2/app/tags/list?n="+n)
		if res.StatusCode != status || status == 400 && !strings.Contains(string(body), "PAGINATION_NUMBER_INVALID") {
			t.Errorf("n=%s: %s %s", n, res.Status, body)
		}
	}
	for _, q := range w.hub.Requests() {
		if !slices.Contains([]string{"n=", "n=0", "n=1", "n=1000"}, q.Query) {
			t.Errorf("the upstream was asked for %q", q.Query)
		}
	}
}

func TestReferrersByType(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{hub: origin.Options{PageSize: 1}, ghcr: origin.Options{NoReferrers: true}})
	im := w.hub.AddImage("library/app", "1", origin.Image{})
	w.hub.AddReferrer("library/app", im.Root, "application/spdx+json")
	w.hub.AddReferrer("library/app", im.Root, "application/vnd.x")
	w.ghcr.AddImage("acme/app", "1", origin.Image{})
	of := "/referrers/" + im.Root.Digest.String()
	for _, c := range []struct {
		path, filters string
		types         []string
	}{
		{"/v2/app" + of + "?artifactType=application/vnd.x", "artifactType", []string{"application/vnd.x"}},
		{"/v2/app" + of + "?ns=docker.io&artifactType=application%2Fspdx%2Bjson", "artifactType", []string{"application/spdx+json"}},
		{"/v2/ghcr.io/acme/app" + of + "?artifactType=application/vnd.x", "", nil},
		{"/v2/ghcr.io/acme/none" + of, "", nil},
	} {
		res, body := w.do(t, "GET", c.path)
		var doc struct {
			SchemaVersion int
			MediaType     string
			Manifests     []struct{ ArtifactType string }
		}
		if err := json.Unmarshal(body, &doc); err != nil || res.StatusCode != 200 || doc.SchemaVersion != 2 ||
			res.Header.Get("Content-Type") != doc.MediaType {
			t.Errorf("GET %s: %s %s", c.path, res.Status, body)
		}
		var types []string
		for _, m := range doc.Manifests {
			types = append(types, m.ArtifactType)
		}
		if diff := cmp.Diff(c.types, types); diff != "" || res.Header.Get("OCI-Filters-Applied") != c.filters {
			t.Errorf("GET %s: filters %q (-want +got)\n%s", c.path, res.Header.Get("OCI-Filters-Applied"), diff)
		}
		head, _ := w.do(t, "HEAD", c.path)
		for _, name := range []string{"Content-Type", "Content-Length", "Link", "Oci-Filters-Applied"} {
			if diff := cmp.Diff(res.Header[name], head.Header[name]); diff != "" || head.StatusCode != 200 {
				t.Errorf("HEAD %s: %s, %s (-GET +HEAD)\n%s", c.path, head.Status, name, diff)
			}
		}
	}
}
