package upstream_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

func TestTagsPageByPage(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{})
	for _, tag := range []string{"a", "b", "c", "d", "e"} {
		s.AddImage(repo, tag, origin.Image{})
	}
	r := registry(t, s.URL())
	var all []string
	query := url.Values{"n": {"2"}, "ns": {"docker.io"}}
	for pages := 0; ; pages++ {
		doc, err := r.Tags(t.Context(), repo, query)
		if err != nil || pages > 3 {
			t.Fatalf("page %d: %v", pages, err)
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(doc.Bytes, &list); err != nil {
			t.Fatal(err)
		}
		all = append(all, list.Tags...)
		if doc.Next == "" {
			break
		}
		if query, err = url.ParseQuery(doc.Next); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, all); diff != "" {
		t.Errorf("tags (-want +got)\n%s", diff)
	}
	for _, q := range s.Requests() {
		if strings.Contains(q.Query, "ns=") {
			t.Errorf("ns was passed on: %s", q.Query)
		}
	}
	_, err := r.Tags(t.Context(), "no/such", nil)
	if e := upstreamError(t, err); e.Status != 404 || e.Op != "tags" || e.Step().Name != fault.StepList {
		t.Errorf("missing repository: %v", e)
	}
}

func TestListQueryAndLink(t *testing.T) {
	t.Parallel()
	const bad = "an error"
	for _, tt := range []struct {
		name, query, link, asked, next string
	}{
		{"nothing", "", "", "", ""},
		{"clamped", "n=100000&last=x", "", "last=x&n=1000", ""},
		{"clamped beyond numbers", "n=99999999999999999999999", "", "n=1000", ""},
		{"zero is asked for", "n=0", "", "n=0", ""},
		{"own parameters of a registry", "next_page=abc&n=5", "", "n=5&next_page=abc", ""},
		{"relative", "", `</v2/library/app/tags/list?last=b&n=2>; rel="next"`, "", "last=b&n=2"},
		{"absolute", "", `<SELF/v2/library/app/tags/list?last=b>; rel=next`, "", "last=b"},
		{"elsewhere", "", `<https://internal.example/v2/library/app/tags/list?last=b>; rel="next"`, "", "last=b"},
		{"other port", "", `<http://127.0.0.1:1/v2/library/app/tags/list?last=b>; rel="next"`, "", "last=b"},
		{"other scheme", "", `<https://127.0.0.1/v2/library/app/tags/list?last=b>; rel="next"`, "", "last=b"},
		{"other path", "", `</registry/v2/library/app/tags/list?last=b>; rel="next"`, "", "last=b"},
		{"query alone", "", `<?last=b>; rel="next"`, "", "last=b"},
		{"no scheme", "", `<//internal.example/v2/library/app/tags/list?last=b>; rel="next"`, "", "last=b"},
		{"no brackets", "", `/v2/library/app/tags/list?last=b&n=2; rel="next"`, "", "last=b&n=2"},
		{"single quotes", "", `</v2/library/app/tags/list?last=b>; rel='next'`, "", "last=b"},
		{"several", "", `</v2/library/app/tags/list>; rel="first", </v2/library/app/tags/list?last=b>; rel="next"`, "", "last=b"},
		{"ns is not passed on", "", `</v2/library/app/tags/list?last=b&ns=ghcr.io>; rel="next"`, "", "last=b"},
		{"signed", "", `<https://internal.example/x?last=b%2Fc&sig=a+b%3D>; rel="next"`, "", "last=b%2Fc&sig=a+b%3D"},
		{"not next", "", `</v2/library/app/tags/list?last=b>; rel="prev"`, "", ""},
		{"bad query", "", `</v2/x?%zz>; rel="next"`, "", bad},
		{"bad URL", "", `<http://[::1?last=b>; rel="next"`, "", bad},
		{"no query", "", `</v2/library/app/tags/list>; rel="next"`, "", bad},
		{"nothing but ns", "", `</v2/library/app/tags/list?ns=a>; rel="next"`, "", bad},
		{"too long", "", `</v2/library/app/tags/list?last=` + strings.Repeat("b", 5<<10) + `>; rel="next"`, "", bad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s *server
			s = serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.link != "" {
					w.Header().Set("Link", strings.ReplaceAll(tt.link, "SELF", s.URL))
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"name":"library/app","tags":null}`)
			})
			query, _ := url.ParseQuery(tt.query)
			doc, err := registry(t, s.URL).Tags(t.Context(), repo, query)
			if e, ok := errors.AsType[*fault.ContentError](err); tt.next == bad {
				if !ok || e.Kind != fault.ContentNextPage {
					t.Fatalf("%+v, %v: the list would look whole", doc, err)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if doc.Next != tt.next {
				t.Errorf("next %q, want %q", doc.Next, tt.next)
			}
			want := "GET /v2/library/app/tags/list"
			if tt.asked != "" {
				want += "?" + tt.asked
			}
			if got := s.asked(); len(got) != 1 || got[0] != want {
				t.Errorf("asked %q, want %q", got, want)
			}
		})
	}
}

func TestListsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, contentType, body string
		kind                    fault.ContentKind
	}{
		{"page", "text/html", "<html><title>Sign in</title>", fault.ContentNotRegistry},
		{"other JSON", "application/json", `{"a":1}`, fault.ContentNotRegistry},
		{"no JSON", "application/json", `tags: [a]`, fault.ContentNotRegistry},
		{"list of another kind", "application/json", `{"tags":"a"}`, fault.ContentNotRegistry},
		{"two documents", "application/json", `{"tags":[]}{"tags":[]}`, fault.ContentNotRegistry},
		{"too large", "application/json", `{"tags":["` + strings.Repeat("x", 64<<20) + `"]}`, fault.ContentTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				_, _ = io.WriteString(w, tt.body)
			})
			_, err := registry(t, s.URL).Tags(t.Context(), repo, nil)
			if got, ok := errors.AsType[*fault.ContentError](err); !ok || got.Kind != tt.kind {
				t.Errorf("%v, want %s", err, tt.kind)
			}
		})
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	list := func(t *testing.T, doc *upstream.Document) int {
		t.Helper()
		m, err := oci.ParseManifest(doc.MediaType, doc.Bytes)
		if err != nil || !oci.IsIndex(m.MediaType) {
			t.Fatalf("%s: %v", doc.Bytes, err)
		}
		return len(m.Children)
	}
	t.Run("API", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{})
		built := s.AddImage(repo, "1", origin.Image{})
		s.AddReferrer(repo, built.Root, "application/spdx+json")
		s.AddReferrer(repo, built.Root, "application/vnd.dev.sigstore")
		r := registry(t, s.URL())
		doc, err := r.Referrers(t.Context(), repo, built.Root.Digest, nil)
		if err != nil || list(t, doc) != 2 || doc.Filters != "" {
			t.Fatalf("%+v, %v", doc, err)
		}
		doc, err = r.Referrers(t.Context(), repo, built.Root.Digest, url.Values{"artifactType": {"application/spdx+json"}})
		if err != nil || list(t, doc) != 1 || doc.Filters != "artifactType" {
			t.Fatalf("%+v, %v", doc, err)
		}
		if doc, err = r.Referrers(t.Context(), repo, digestOf([]byte("unknown")), nil); err != nil || list(t, doc) != 0 {
			t.Errorf("unknown digest: %+v, %v", doc, err)
		}
	})
	t.Run("tag", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{NoReferrers: true})
		built := s.AddImage(repo, "1", origin.Image{})
		index := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[{"mediaType":"` +
			oci.MediaTypeOCIManifest +
			`","digest":"` + string(digestOf(manifest)) + `","size":1}]}`
		s.AddManifest(repo, oci.ReferrersTag(built.Root.Digest), oci.MediaTypeOCIIndex, []byte(index))
		doc, err := registry(t, s.URL()).Referrers(t.Context(), repo, built.Root.Digest, nil)
		if err != nil || string(doc.Bytes) != index || doc.MediaType != oci.MediaTypeOCIIndex {
			t.Errorf("%+v, %v", doc, err)
		}
	})
	t.Run("neither", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{NoReferrers: true})
		built := s.AddImage(repo, "1", origin.Image{})
		doc, err := registry(t, s.URL()).Referrers(t.Context(), repo, built.Root.Digest, nil)
		if err != nil || list(t, doc) != 0 {
			t.Errorf("%+v, %v", doc, err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{})
		built := s.AddImage(repo, "1", origin.Image{})
		s.Script(origin.Rule{Kind: origin.KindReferrers, Do: origin.Fault{Status: 410}})
		s.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Status: 410}})
		doc, err := registry(t, s.URL()).Referrers(t.Context(), repo, built.Root.Digest, nil)
		if err != nil || list(t, doc) != 0 {
			t.Errorf("%+v, %v", doc, err)
		}
	})
	t.Run("tag of something else", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{NoReferrers: true})
		built := s.AddImage(repo, "1", origin.Image{})
		s.AddManifest(repo, oci.ReferrersTag(built.Root.Digest), oci.MediaTypeOCIManifest, manifest)
		doc, err := registry(t, s.URL()).Referrers(t.Context(), repo, built.Root.Digest, nil)
		if err != nil || list(t, doc) != 0 {
			t.Errorf("%+v, %v", doc, err)
		}
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{})
		built := s.AddImage(repo, "1", origin.Image{})
		s.Script(origin.Rule{Kind: origin.KindReferrers, Do: origin.Fault{Status: 503}})
		_, err := registry(t, s.URL()).Referrers(t.Context(), repo, built.Root.Digest, nil)
		if e := upstreamError(t, err); e.Status != 503 || e.Op != "referrers" {
			t.Errorf("%v", e)
		}
	})
}
