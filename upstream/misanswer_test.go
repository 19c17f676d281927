package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// JSON that came with status 200 and is not a manifest is believed as little as a web page: the next endpoint is asked, and
// where there is none the registry's words are in the error.
func TestJSONThatIsNotAManifest(t *testing.T) {
	t.Parallel()
	const limit = `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`
	for _, tt := range []struct {
		name, typ, body string
		reason          diagnose.Reason // empty: it is passed on
		words           string
	}{
		{"nothing in it", "application/json", `{}`, diagnose.NotARegistry, "JSON that is not a manifest"},
		{"nothing in it, as a manifest", oci.MediaTypeOCIManifest, ` {} `, diagnose.NotARegistry, "JSON that is not a manifest"},
		{"no type", "", `{"status":"ok"}`, diagnose.NotARegistry, `status`},
		{"a version alone", oci.MediaTypeDockerManifest, `{"schemaVersion":2}`, diagnose.NotARegistry, "not a manifest"},
		{
			"a type alone", "application/json", `{"mediaType":"` + oci.MediaTypeOCIIndex + `"}`, diagnose.NotARegistry,
			"not a manifest",
		},
		{"a limit", "application/json", limit, diagnose.RateLimited, "TOOMANYREQUESTS"},
		{"a limit, as a manifest", oci.MediaTypeOCIManifest, limit, diagnose.RateLimited, "slow down"},
		{"a limit, as an index", oci.MediaTypeOCIIndex, limit, diagnose.RateLimited, "slow down"},
		{"a limit by number", "application/json", `{"code":429,"message":"slow down"}`, diagnose.RateLimited, "slow down"},
		{"a limit by name", "text/plain", `{"code":"too_many_requests","message":"x"}`, diagnose.RateLimited, "too_many_requests"},
		{"a limit in words", "application/json", `{"message":"toomanyrequests: later"}`, diagnose.RateLimited, "later"},
		{
			"another error", oci.MediaTypeOCIManifest, `{"errors":[{"code":"UNKNOWN","message":"backend is away"}]}`,
			diagnose.NotARegistry, `UNKNOWN "backend is away"`,
		},
		{"a message", "application/json", `{"code":500,"message":"oops"}`, diagnose.NotARegistry, `500 "oops"`},
		{"a problem", "application/problem+json", `{"title":"x","status":503}`, diagnose.NotARegistry, "not a manifest"},
		{"errors of an API", "application/vnd.api+json", `{"errors":[{"title":"x"}]}`, diagnose.NotARegistry, "error"},
		{"an empty index", oci.MediaTypeOCIIndex, `{"schemaVersion":2,"manifests":[]}`, "", ""},
		{"an artifact of its own", "application/vnd.example.v1+json", `{"a":1}`, "", ""},
		{"an artifact that says so", "application/json", `{"mediaType":"application/vnd.example.v1+json","errors":[1]}`, "", ""},
		{"an image", "application/json", string(manifest), "", ""},
		{"with errors beside it", oci.MediaTypeOCIIndex, `{"manifests":[],"errors":[{"code":"X"}]}`, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			send := func(typ, body string) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Content-Type"] = []string{typ}
					_, _ = io.WriteString(w, body)
				}
			}
			bad, good := serve(t, send(tt.typ, tt.body)), serve(t, send(oci.MediaTypeOCIManifest, string(manifest)))
			for what, ask := range map[string]func(context.Context, *upstream.Registry) (oci.Digest, error){
				"manifest": func(ctx context.Context, r *upstream.Registry) (oci.Digest, error) {
					m, err := r.Manifest(ctx, repo, "1")
					if err != nil {
						return "", err
					}
					return m.Digest, nil
				},
				"resolve": func(ctx context.Context, r *upstream.Registry) (oci.Digest, error) {
					d, err := r.Resolve(ctx, repo, "1")
					return d.Digest, err
				},
			} {
				d, err := ask(t.Context(), registry(t, bad.URL))
				if tt.reason == "" {
					if err != nil || d != digestOf([]byte(tt.body)) {
						t.Errorf("%s: %s, %v", what, d, err)
					}
					continue
				}
				if f := diagnose.Explain(err); f.Reason != tt.reason || !strings.Contains(err.Error(), tt.words) {
					t.Errorf("%s: %s, %v; want %s and %q", what, f.Reason, err, tt.reason, tt.words)
				}
				if d, err := ask(t.Context(), several(t, []string{bad.URL, good.URL})); err != nil || d != digestOf(manifest) {
					t.Errorf("%s with another endpoint: %s, %v", what, d, err)
				}
			}
			if tt.reason == "" {
				return
			}
			// By digest, where the bytes are other ones: not "corrupt data", but what they are.
			_, err := registry(t, bad.URL).Manifest(t.Context(), repo, string(digestOf(manifest)))
			if f := diagnose.Explain(err); f.Reason != tt.reason {
				t.Errorf("by digest: %s, %v", f.Reason, err)
			}
		})
	}
}

// What has the digest that it was asked by is what it is, whatever is in it.
func TestADigestIsBelieved(t *testing.T) {
	t.Parallel()
	const body = `{"schemaVersion":2}`
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
		_, _ = io.WriteString(w, body)
	})
	m, err := registry(t, s.URL).Manifest(t.Context(), repo, string(digestOf([]byte(body))))
	if err != nil || string(m.Bytes) != body {
		t.Error(err)
	}
	// A HEAD that names the digest is believed as before.
	head := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
	})
	d, err := registry(t, head.URL).Resolve(t.Context(), repo, "1")
	if err != nil || d.Digest != digestOf(manifest) || len(head.asked()) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		t.Error(err)
	}
}

// A registry that shows a manifest to everybody and keeps a blob of it back has a reason of its own, in its own words.
func TestBlobKeptBack(t *testing.T) {
	t.Parallel()
	const xray = `{"errors":[{"code":"FORBIDDEN","message":"Artifact is blocked by policy high-severity"}]}`
	const expired = `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`
	for _, tt := range []struct {
		name, body, challenge string
		shown                 bool
		reason                diagnose.Reason
		words                 string
	}{
		{"policy", xray, "", true, diagnose.UpstreamBlocked, "blocked by policy high-severity"},
		{"policy, manifest not seen", xray, "", false, diagnose.NotFoundOrNoAccess, "no credentials"},
		{"object store", expired, "", true, diagnose.UpstreamBlocked, "Request has expired"},
		{"object store, manifest not seen", expired, "", false, diagnose.UpstreamBlocked, "Request has expired"},
		{"without words", "", "", true, diagnose.NotFoundOrNoAccess, "no credentials"},
		{"wants a login", xray, `Basic realm="x"`, true, diagnose.NotFoundOrNoAccess, "no credentials"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/manifests/") {
					w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
					w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
					_, _ = w.Write(manifest)
					return
				}
				if tt.challenge != "" {
					w.Header().Set("WWW-Authenticate", tt.challenge)
				}
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, tt.body)
			})
			r := registry(t, s.URL)
			if tt.shown {
				if _, err := r.Manifest(t.Context(), repo, string(digestOf(manifest))); err != nil {
					t.Fatal(err)
				}
			}
			_, err := r.Blob(t.Context(), repo, digestOf([]byte("{}")), flight.Want{To: -1})
			if f := diagnose.Explain(err); f.Reason != tt.reason || !strings.Contains(f.Summary, tt.words) {
				t.Errorf("%s: %s; want %s and %q", f.Reason, f.Summary, tt.reason, tt.words)
			}
		})
	}
}
