package upstream_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// answers are of manifests, lists of tags and tokens as a test wants, and anything else with 200.
type answers struct {
	manifest, list, token, nothing func(http.ResponseWriter, *http.Request) // nil: 200
}

func says(status int, code, message string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, origin.ErrorBody(code, message))
	}
}

func tagList(tags ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"name":"app","tags":["%s"]}`, strings.Join(tags, `","`))
	}
}

// play serves the answers. With a token service a manifest wants a token first.
func (a answers) play(t *testing.T) *server {
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		h := a.manifest
		switch {
		case r.URL.Path == "/token" && r.URL.Query().Get("scope") == "":
			h = a.nothing
		case r.URL.Path == "/token":
			h = a.token
		case a.token != nil && r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="here"`)
			h = says(401, "UNAUTHORIZED", "authentication required")
		case strings.HasSuffix(r.URL.Path, "/tags/list"):
			h = a.list
		}
		if h != nil {
			h(w, r)
		}
	})
	return s
}

func token(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"token":"t","expires_in":300}`)
}

// TestMissingOrPrivate is what a further question shows, and what it costs: one request, after a failure.
func TestMissingOrPrivate(t *testing.T) {
	t.Parallel()
	const (
		list   = "GET /v2/app/tags/list"
		none   = "GET /token?service=here"
		please = "authentication required"
	)
	unknown := says(404, "MANIFEST_UNKNOWN", "manifest unknown")
	denied := says(403, "DENIED", "denied")
	for _, tt := range []struct {
		name      string
		reference string // empty: a tag
		answers   answers
		options   func(*upstream.Options)
		want      fault.Verdict // empty: nothing was asked, or nothing came of it
		asked     string        // further; empty: nothing
	}{
		{
			name: "404, and no such repository", want: fault.VerdictRepositoryMissing, asked: list,
			answers: answers{manifest: unknown, list: says(404, "NAME_UNKNOWN", "repository name not known")},
		},
		{
			name: "404, and other tags", want: fault.VerdictTagMissing, asked: list,
			answers: answers{manifest: unknown, list: tagList("2", "3")},
		},
		{
			name: "404, and the list is refused", want: fault.VerdictUnknown, asked: list,
			answers: answers{manifest: unknown, list: denied},
		},
		{
			name: "404, and the list is a 404 of something else", want: fault.VerdictUnknown, asked: list,
			answers: answers{manifest: unknown, list: says(404, "PAGE_UNKNOWN", "no")},
		},
		{
			name: "404, and the list is broken", asked: list,
			answers: answers{manifest: unknown, list: says(502, "", "")},
		},
		{
			name: "404, and the list is not a list", asked: list,
			answers: answers{manifest: unknown, list: func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "<html>hello</html>")
			}},
		},
		{name: "404 of the name", answers: answers{manifest: says(404, "NAME_UNKNOWN", "no")}},
		{name: "404 of an expired tag", answers: answers{manifest: says(404, "TAG_EXPIRED", "no")}},
		{name: "404 of a digest", reference: string(digestOf(manifest)), answers: answers{manifest: unknown}},
		{
			name: "403, and no such repository", want: fault.VerdictRepositoryMissing, asked: list,
			answers: answers{manifest: denied, list: says(404, "NAME_UNKNOWN", "no")},
		},
		{
			name: "403, and other tags", want: fault.VerdictTagMissing, asked: list,
			answers: answers{manifest: denied, list: tagList("2")},
		},
		{
			name: "403, and the tag is there", want: fault.VerdictUnknown, asked: list,
			answers: answers{manifest: denied, list: tagList("2", "1")},
		},
		{
			name: "403, and a list that goes on", want: fault.VerdictUnknown, asked: list,
			answers: answers{manifest: denied, list: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", `</v2/app/tags/list?last=2>; rel="next"`)
				tagList("2")(w, r)
			}},
		},
		{
			name: "403 with a token, and the same again", want: fault.VerdictUnknown, asked: list,
			answers: answers{token: token, manifest: denied, list: denied},
		},
		{
			name: "no token, and none for nothing", want: fault.VerdictLoginNeeded, asked: none,
			answers: answers{token: says(401, "UNAUTHORIZED", please), nothing: says(401, "UNAUTHORIZED", please)},
		},
		{
			name: "no token, and one without a scope", want: fault.VerdictUnknown, asked: none,
			answers: answers{token: says(401, "UNAUTHORIZED", please), nothing: token},
		},
		{
			name: "no token, and without a scope another refusal", want: fault.VerdictUnknown, asked: none,
			answers: answers{token: says(401, "UNAUTHORIZED", please), nothing: denied},
		},
		{name: "a token denied is not one for which to log in", answers: answers{token: denied}},
		{
			name: "a login that is refused is what is wrong", options: as(login("bot", "pw")),
			answers: answers{token: says(401, "UNAUTHORIZED", please)},
		},
		{name: "down", answers: answers{manifest: says(503, "UNAVAILABLE", "no")}},
		{name: "limited", answers: answers{manifest: says(429, "TOOMANYREQUESTS", "no")}},
		{name: "nothing left of a limit", answers: answers{manifest: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Ratelimit-Limit", "100;w=21600")
			w.Header().Set("Ratelimit-Remaining", "0;w=21600")
			unknown(w, r)
		}}},
		{name: "fine", answers: answers{manifest: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		}}},
		{name: "another mirror has said why", answers: answers{manifest: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Mirror-Reason", "not-found-or-no-access; id=12345678")
			denied(w, r)
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.answers.play(t)
			var change []func(*upstream.Options)
			if tt.options != nil {
				change = append(change, tt.options)
			}
			r := registry(t, s.URL, change...)
			reference := tt.reference
			if reference == "" {
				reference = "1"
			}
			_, err := r.Manifest(t.Context(), "app", reference)
			var got fault.Verdict
			if err != nil {
				if p := upstreamError(t, err).Probe; p != nil {
					got = p.Verdict
				}
			}
			if got != tt.want {
				t.Errorf("%q, want %q: %v", got, tt.want, err)
			}
			further := s.count("/tags/list") + s.count(none)
			if want := min(len(tt.asked), 1); further != want || tt.asked != "" && s.count(tt.asked) != 1 {
				t.Errorf("asked further %d times, want %d %q: %q", further, want, tt.asked, s.asked())
			}
		})
	}
}

// TestMissingIsAskedOnce has many wait for one further question, and the next ones for none.
func TestMissingIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := answers{
		manifest: says(404, "MANIFEST_UNKNOWN", "no"), list: says(404, "NAME_UNKNOWN", "no"),
	}.play(t)
	r := registry(t, s.URL)
	for range 2 {
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				_, err := r.Resolve(t.Context(), "app", fmt.Sprint(i))
				if p := upstreamError(t, err).Probe; p == nil || p.Verdict != fault.VerdictRepositoryMissing {
					t.Errorf("%v: %+v", err, p)
				}
			})
		}
		wg.Wait()
	}
	if n := s.count("/tags/list"); n != 1 {
		t.Errorf("%d lists of tags were asked for 100 missing tags, want 1", n)
	}
}

// TestMissingTagOfWhatIsThere is a scanner that looks for signatures of an image that it has: no further question.
func TestMissingTagOfWhatIsThere(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{})
	s.AddImage(repo, "1", origin.Image{})
	r := registry(t, s.URL())
	if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), repo, "sha256-1.sig"); upstreamError(t, err).Status != 404 {
		t.Fatal(err)
	}
	if n := s.Count(origin.KindTags); n != 0 {
		t.Errorf("%d lists of tags", n)
	}
}

// TestLoginIsNotNeeded has a registry with a private repository and a public one: the error does not mention logins.
func TestLoginIsNotNeeded(t *testing.T) {
	t.Parallel()
	no := says(401, "UNAUTHORIZED", "authentication required")
	s := answers{nothing: no, token: func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Query().Get("scope"), "open") {
			token(w, r)
			return
		}
		no(w, r)
	}, manifest: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
		_, _ = w.Write(manifest)
	}}.play(t)
	r := registry(t, s.URL)
	if _, err := r.Manifest(t.Context(), "open", "1"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Manifest(t.Context(), "app", "1")
	if e := upstreamError(t, err); e.Status != 401 || e.Probe != nil {
		t.Errorf("%v: %+v", err, e.Probe)
	}
	if n := s.count("GET /token?service=here"); n != 0 {
		t.Errorf("a token for nothing was asked for %d times", n)
	}
}

// TestRegistryThatNeverTells is asked three times, and then not for a while.
func TestRegistryThatNeverTells(t *testing.T) {
	t.Parallel()
	denied := says(403, "DENIED", "denied")
	s := answers{manifest: denied, list: denied}.play(t)
	r := registry(t, s.URL)
	for i := range 20 {
		if _, err := r.Manifest(t.Context(), fmt.Sprintf("app%d", i), "1"); upstreamError(t, err).Status != 403 {
			t.Fatal(err)
		}
	}
	if n := s.count("/tags/list"); n != 3 {
		t.Errorf("%d lists of tags in vain, want 3", n)
	}
}

// TestFurtherQuestionHangs has a client wait no longer than two seconds more.
func TestFurtherQuestionHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tags/list") {
			<-r.Context().Done()
			return
		}
		says(404, "MANIFEST_UNKNOWN", "no")(w, r)
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		begun := time.Now()
		_, err := r.Resolve(t.Context(), "app", "1")
		if e := upstreamError(t, err); e.Status != 404 || e.Probe != nil {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("the error came after %s, want 2s", took)
		}
	})
}

// TestFurtherQuestionsAreFew has fifty repositories missing at once: eight are probed, and no call waits for a turn.
func TestFurtherQuestionsAreFew(t *testing.T) {
	t.Parallel()
	var lists atomic.Int32
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tags/list") {
			lists.Add(1)
			<-r.Context().Done()
			return
		}
		says(404, "MANIFEST_UNKNOWN", "no")(w, r)
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		var atOnce atomic.Int32
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				begun := time.Now()
				if _, err := r.Resolve(t.Context(), fmt.Sprintf("app%d", i), "1"); upstreamError(t, err).Status != 404 {
					t.Error(err)
				}
				if time.Since(begun) == 0 {
					atOnce.Add(1)
				}
			})
		}
		wg.Wait()
		if n, m := lists.Load(), atOnce.Load(); n != 8 || m != 42 {
			t.Errorf("%d further questions, and %d without, want 8 and 42", n, m)
		}
	})
}
