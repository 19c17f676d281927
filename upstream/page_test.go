package upstream_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// googles is a page as gcr.io has it: beside the tags all that it knows of each manifest.
func googles(manifests int) string {
	var b strings.Builder
	b.WriteString(`{"child":[],"manifest":{`)
	for i := range manifests {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"sha256:%064x":{"imageSizeBytes":"%d","layerId":"","mediaType":%q,"tag":["v%d","a\"},]"],"timeCreatedMs":"0"}`,
			i, i, oci.MediaTypeDockerManifest, i)
	}
	b.WriteString("},\n \"name\": \"google/app\" , \"tags\": [ \"v1\", \"v\\u0032\", \"x}]\" ], \"more\": -1.5e3}")
	return b.String()
}

// A page above 4 MiB is the list itself, however much is beside it, up to 64 MiB. Below, it is passed on as it is.
func TestLargePages(t *testing.T) {
	t.Parallel()
	many := `{"name":"google/app","tags":["t` + strings.Repeat(`","t`, 1_200_000) + `"]}`
	for name, tt := range map[string]struct {
		body string
		want string // empty: as it is
	}{
		"small":                 {body: googles(3)},
		"5 MB of manifests":     {body: googles(23_000), want: `{"name":"google/app","tags":["v1","v2","x}]"]}`},
		"30 MB of manifests":    {body: googles(140_000), want: `{"name":"google/app","tags":["v1","v2","x}]"]}`},
		"5 MB of tags":          {body: many},
		"4 MiB and a bit":       {body: `{"name":"a","tags":[],"x":"` + strings.Repeat("x", 4<<20) + `"}`, want: `{"name":"a","tags":[]}`},
		"nothing is a list too": {body: `{"tags":null,"x":"` + strings.Repeat("x", 4<<20) + `"}`, want: `{"tags":null}`},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", name, chunked), func(t *testing.T) {
				t.Parallel()
				s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if chunked {
						w.(http.Flusher).Flush()
					} else {
						w.Header().Set("Content-Length", fmt.Sprint(len(tt.body)))
					}
					_, _ = io.WriteString(w, tt.body)
				})
				b := memory.New(memory.Options{})
				ctx, hold := b.Enter(t.Context(), memory.Answer)
				doc, err := registry(t, s.URL).Tags(ctx, repo, nil)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(s.asked()); n != 1 {
					t.Errorf("asked %d times", n)
				}
				var want, got struct {
					Name string
					Tags []string
				}
				if err := json.Unmarshal([]byte(orElse(tt.want, tt.body)), &want); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(doc.Bytes, &got); err != nil || want.Name != got.Name || !equal(want.Tags, got.Tags) {
					t.Errorf("%s with %d tags, want %s with %d (%v)", got.Name, len(got.Tags), want.Name, len(want.Tags), err)
				}
				if len(tt.body) <= 4<<20 && string(doc.Bytes) != tt.body {
					t.Errorf("a small page was changed: %.200s", doc.Bytes)
				}
				if tt.want != "" && len(doc.Bytes) > 200 {
					t.Errorf("%d bytes are kept", len(doc.Bytes))
				}
				if used := b.Used(); used < int64(len(doc.Bytes)) || tt.want != "" && used > 1<<20 {
					t.Errorf("%d bytes of memory are counted for %d", used, len(doc.Bytes))
				}
				hold.Release()
			})
		}
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// A document that is not a list, or is cut, is refused when it is large, too.
func TestLargePagesThatAreNone(t *testing.T) {
	t.Parallel()
	pad := `"x":"` + strings.Repeat("x", 4<<20) + `"`
	for name, body := range map[string]string{
		"no tags":         `{` + pad + `}`,
		"tags of no kind": `{` + pad + `,"tags":"a"}`,
		"bad tags":        `{` + pad + `,"tags":[a]}`,
		"more after it":   `{` + pad + `,"tags":[]}{}`,
		"comma":           `{` + pad + `,"tags":[],}`,
		"list":            `[{` + pad + `}]`,
		"text":            strings.Repeat("x", 5<<20),
		"brackets":        `{` + pad + `,"tags":[}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, body)
			})
			doc, err := registry(t, s.URL).Tags(t.Context(), repo, nil)
			if err == nil {
				t.Fatalf("%.200s", doc.Bytes)
			}
			if e, ok := errors.AsType[*fault.ContentError](err); !ok || e.Kind != fault.ContentNotRegistry {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Error(err)
				}
			}
		})
	}
}

// A repository that has a name of its own with its registry has ours in the list, whatever else is in it.
func TestNameInAList(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"name":"team/library/app","tags":["1"]}`:           `{"name":"library/app","tags":["1"]}`,
		`{ "tags" : [ "1" , "2" ] , "name" : "x", "y": {} }`: `{"tags":["1","2"],"name":"library/app","y":{}}`,
		`{"tags":["1"]}`: `{"tags":["1"]}`,
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		})
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		r, err := upstream.New(upstream.Options{Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: u, Prefix: "team"}}})
		if err != nil {
			t.Fatal(err)
		}
		doc, err := r.Tags(t.Context(), repo, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := json.Compact(&got, doc.Bytes); err != nil || got.String() != want {
			t.Errorf("%s, want %s (%v)", doc.Bytes, want, err)
		}
	}
}

// A document waits for its memory before its bytes are read. A request that gets none fails with that reason, and the endpoint
// is not blamed for it.
func TestDocumentsWaitForMemory(t *testing.T) {
	t.Parallel()
	body := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIManifest + `","layers":[],"x":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, chunked := range []bool{false, true} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			if chunked {
				w.(http.Flusher).Flush()
			}
			_, _ = io.WriteString(w, body)
		})
		r := registry(t, s.URL)
		b := memory.New(memory.Options{Wait: 10 * time.Millisecond})
		_, all := b.Enter(t.Context(), memory.Work)
		if err := all.Need(t.Context(), 1<<40); err != nil {
			t.Fatal(err)
		}
		ctx, hold := b.Enter(t.Context(), memory.Work)
		for range 5 {
			_, err := r.Manifest(ctx, repo, "1")
			if _, full := errors.AsType[*memory.FullError](err); !full {
				t.Errorf("chunked %v: %v", chunked, err)
			}
		}
		if st := r.State(); st[0].State != endpoint.StateUp && st[0].State != endpoint.StateUnknown {
			t.Errorf("the endpoint is %s: %s", st[0].State, st[0].LastError)
		}
		all.Release()
		if _, err := r.Manifest(ctx, repo, "1"); err != nil {
			t.Error(err)
		}
		if used := b.Used(); used < int64(len(body)) {
			t.Errorf("%d bytes are counted for %d", used, len(body))
		}
		hold.Release()
	}
}
