package upstream_test

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

func methods(s *origin.Origin) []string {
	var all []string
	for _, q := range s.Requests() {
		all = append(all, q.Method+" "+string(q.Kind))
	}
	return all
}

func TestResolve(t *testing.T) {
	t.Parallel()
	body := func(status int) origin.Fault {
		return origin.Fault{Status: status, Body: origin.ErrorBody("SOME_CODE", "some reason")}
	}
	const head, get, list = "HEAD manifest", "GET manifest", "GET tags"
	for _, tt := range []struct {
		name     string
		options  origin.Options
		method   string // that goes wrong, empty: all
		fault    *origin.Fault
		status   int // of the error, 0: none
		code     string
		requests []string
	}{
		{name: "fine", requests: []string{head}},
		{name: "no digest", options: origin.Options{NoDigest: true}, requests: []string{head, get}},
		{name: "HEAD refused", method: "HEAD", fault: &origin.Fault{Status: 405}, requests: []string{head, get}},
		{name: "HEAD is a page", method: "HEAD", fault: &origin.Fault{Header: http.Header{
			"Content-Type":          {"text/html"},
			"Docker-Content-Digest": nil,
		}}, requests: []string{head, get}},
		{name: "HEAD is packed", method: "HEAD", fault: &origin.Fault{Header: http.Header{
			"Content-Encoding": {"gzip"},
			"Content-Length":   {"77"},
		}}, requests: []string{head, get}},
		{name: "missing", fault: new(body(404)), status: 404, requests: []string{head, list}},
		{name: "limited", fault: new(body(429)), status: 429, requests: []string{head}},
		{name: "forbidden", fault: new(body(403)), status: 403, code: "SOME_CODE", requests: []string{head, get, list}},
		{name: "down", fault: new(body(503)), status: 503, code: "SOME_CODE", requests: []string{head, get}},
		{name: "unauthorized", fault: new(body(401)), status: 401, code: "SOME_CODE", requests: []string{head, get, list}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, tt.options)
			built := s.AddImage(repo, "1", origin.Image{Index: true})
			if tt.fault != nil {
				s.Script(origin.Rule{Kind: origin.KindManifest, Method: tt.method, Do: *tt.fault})
			}
			desc, err := registry(t, s.URL()).Resolve(t.Context(), repo, "1")
			if diff := cmp.Diff(tt.requests, methods(s)); diff != "" {
				t.Errorf("requests (-want +got)\n%s", diff)
			}
			for _, q := range s.Requests() {
				if got := q.Header.Get("Accept"); got != oci.AcceptManifests && q.Kind == origin.KindManifest {
					t.Errorf("Accept %q", got)
				}
				if got := q.Header.Get("User-Agent"); got != "mirror/test" {
					t.Errorf("User-Agent %q", got)
				}
			}
			if tt.status == 0 {
				want := oci.Descriptor{Digest: built.Root.Digest, Size: built.Root.Size, MediaType: built.Root.MediaType}
				if diff := cmp.Diff(want, desc); diff != "" || err != nil {
					t.Errorf("%v (-want +got)\n%s", err, diff)
				}
				return
			}
			e := upstreamError(t, err)
			if e.Op != "resolve" || e.Reference != "1" || e.Status != tt.status || e.Code != tt.code {
				t.Errorf("%s %s: %d %q, want %d %q", e.Op, e.Reference, e.Status, e.Code, tt.status, tt.code)
			}
			if step := e.Step(); step.Name != fault.StepManifest || step.Status != tt.status || step.Err == nil {
				t.Errorf("last step %+v", step)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	sum512 := func(b []byte) oci.Digest { return oci.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(b))) }
	const typ = oci.MediaTypeOCIManifest
	other := digestOf([]byte("other"))
	for _, tt := range []struct {
		name      string
		reference string
		header    http.Header
		body      string
		kind      fault.ContentKind
		digest    oci.Digest
	}{
		{name: "by tag", reference: "1", body: string(manifest), digest: digestOf(manifest)},
		{name: "by digest", reference: string(digestOf(manifest)), body: string(manifest), digest: digestOf(manifest)},
		{name: "by sha512", reference: string(sum512(manifest)), body: string(manifest), digest: sum512(manifest)},
		{
			name: "by tag, sha512 said", reference: "1",
			header: http.Header{"Docker-Content-Digest": {string(sum512(manifest))}}, body: string(manifest),
			digest: sum512(manifest),
		},
		{
			name: "by digest, another said", reference: string(digestOf(manifest)),
			header: http.Header{"Docker-Content-Digest": {string(other)}}, body: string(manifest), digest: digestOf(manifest),
		},
		{
			name: "digest in another form", reference: "1", header: http.Header{"Docker-Content-Digest": {"md5:00"}},
			body: string(manifest), digest: digestOf(manifest),
		},
		{name: "other bytes", reference: string(other), body: string(manifest), kind: fault.ContentDigest},
		{
			name: "other bytes by sha512", reference: string(sum512([]byte("other"))), body: string(manifest),
			kind: fault.ContentDigest,
		},
		{
			name: "other bytes than said", reference: "1", header: http.Header{"Docker-Content-Digest": {string(other)}},
			body: string(manifest), kind: fault.ContentDigest,
		},
		{
			name: "other bytes than said by sha512", reference: "1",
			header: http.Header{"Docker-Content-Digest": {string(sum512([]byte("other")))}}, body: string(manifest),
			kind: fault.ContentDigest,
		},
		{
			name: "page", reference: "1", header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
			body: "<html><title>Sign in</title>", kind: fault.ContentNotRegistry,
		},
		{name: "page in disguise", reference: "1", body: "<html><title>Sign in</title>", kind: fault.ContentNotRegistry},
		{name: "text", reference: "1", body: "ok", kind: fault.ContentNotRegistry},
		{name: "nothing", reference: "1", body: "", kind: fault.ContentNotRegistry},
		{name: "broken JSON", reference: "1", body: `{"schemaVersion":2,`, kind: fault.ContentNotManifest},
		{
			name: "ambiguous", reference: "1", body: `{"schemaVersion":2,"manifests":[],"layers":[]}`,
			kind: fault.ContentNotManifest,
		},
		{
			name: "packed", reference: "1", header: http.Header{"Content-Encoding": {"gzip"}}, body: "\x1f\x8b",
			kind: fault.ContentEncoding,
		},
		{
			name: "too large", reference: "1", body: `{"a":"` + strings.Repeat("x", oci.MaxManifestSize) + `"}`,
			kind: fault.ContentTooLarge,
		},
		{name: "too large, chunked", reference: "1", header: http.Header{"X-Flush": {"1"}}, body: `{"a":"` +
			strings.Repeat("x", oci.MaxManifestSize) + `"}`, kind: fault.ContentTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", typ)
				maps.Copy(w.Header(), tt.header)
				if tt.header.Get("X-Flush") != "" {
					w.(http.Flusher).Flush()
				} else {
					w.Header().Set("Content-Length", fmt.Sprint(len(tt.body)))
				}
				_, _ = w.Write([]byte(tt.body))
			})
			m, err := registry(t, s.URL).Manifest(t.Context(), repo, tt.reference)
			if tt.kind == "" {
				if err != nil || m.Digest != tt.digest || string(m.Bytes) != tt.body || m.MediaType != typ {
					t.Errorf("%+v, %v", m, err)
				}
				return
			}
			e := upstreamError(t, err)
			got, ok := errors.AsType[*fault.ContentError](err)
			if !ok || got.Kind != tt.kind || e.Op != "manifest" {
				t.Errorf("%v, want %s", err, tt.kind)
			}
			if step := e.Step(); step.Name != fault.StepManifest || step.Status != 200 || step.Err == nil {
				t.Errorf("last step %+v", step)
			}
			if _, ok := errors.AsType[*oci.ManifestError](err); ok != (tt.kind == fault.ContentNotManifest) {
				t.Errorf("%v: says why it is refused: %t", err, ok)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

// A HEAD answered 200 whose GET must fail is worth nothing to a client.
func TestResolveOfWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{})
	s.AddImage(repo, "1", origin.Image{})
	s.Script(origin.Rule{Kind: origin.KindManifest, Method: "HEAD", Do: origin.Fault{Length: "4194305"}})
	_, err := registry(t, s.URL()).Resolve(t.Context(), repo, "1")
	if got, ok := errors.AsType[*fault.ContentError](err); !ok || got.Kind != fault.ContentTooLarge {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff([]string{"HEAD manifest"}, methods(s)); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

// An answer of 2xx is not yet the content.
func TestStatusesThatAreNoContent(t *testing.T) {
	t.Parallel()
	for _, status := range []int{201, 202, 204, 205, 226} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, origin.Options{})
			built := s.AddImage(repo, "1", origin.Image{})
			s.Script(origin.Rule{Role: origin.RoleRegistry, Do: origin.Fault{Status: status}})
			r := registry(t, s.URL())
			layer := built.Layers[0][0].Digest
			_, byDigest := r.Manifest(t.Context(), repo, built.Root.Digest.String())
			_, byTag := r.Manifest(t.Context(), repo, "1")
			_, resolve := r.Resolve(t.Context(), repo, "1")
			_, tags := r.Tags(t.Context(), repo, nil)
			_, stat := r.Stat(t.Context(), repo, layer)
			_, blob := r.Blob(t.Context(), repo, layer, flight.Want{To: -1})
			for what, err := range map[string]error{
				"manifest by digest": byDigest, "manifest by tag": byTag, "resolve": resolve, "tags": tags, "stat": stat,
				"blob": blob,
			} {
				got, ok := errors.AsType[*fault.ContentError](err)
				if !ok || got.Kind != fault.ContentNotRegistry || !strings.Contains(got.Got, strconv.Itoa(status)) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

func TestManifestThatSaysToBeHuge(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1099511627776000")
		w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
		_, _ = w.Write(manifest)
	})
	_, err := registry(t, s.URL).Manifest(t.Context(), repo, "1")
	if got, ok := errors.AsType[*fault.ContentError](err); !ok || got.Kind != fault.ContentTooLarge {
		t.Errorf("%v, want too large", err)
	}
}

func TestManifestThroughBreaks(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]origin.Fault{
		"dropped": {Drop: true}, "reset": {Drop: true, Reset: true}, "cut": {Cut: &origin.Cut{At: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, origin.Options{})
			built := s.AddImage(repo, "1", origin.Image{})
			remove := s.Script(origin.Rule{Kind: origin.KindManifest, Times: 1, Do: fault})
			m, err := registry(t, s.URL()).Manifest(t.Context(), repo, "1")
			if err != nil || m.Digest != built.Root.Digest {
				t.Errorf("%+v, %v", m, err)
			}
			remove()
			s.Script(origin.Rule{Kind: origin.KindManifest, Do: fault})
			_, err = registry(t, s.URL()).Manifest(t.Context(), repo, "1")
			if e := upstreamError(t, err); len(e.Steps) < 2 || e.Step().Err == nil {
				t.Errorf("%v with steps %+v, want both attempts", e, e.Steps)
			}
		})
	}
}

func TestManifestBehindRedirect(t *testing.T) {
	t.Parallel()
	regional := origin.Start(t, origin.Options{})
	built := regional.AddImage("k8s/images/"+repo, "1", origin.Image{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { // as registry.k8s.io
		http.Redirect(w, r, regional.URL()+"/v2/k8s/images/"+strings.TrimPrefix(r.URL.Path, "/v2/"),
			http.StatusTemporaryRedirect)
	})
	r := registry(t, s.URL, as(login("bot", "pw")))
	desc, err := r.Resolve(t.Context(), repo, "1")
	if err != nil || desc.Digest != built.Root.Digest {
		t.Errorf("%+v, %v", desc, err)
	}
	if m, err := r.Manifest(t.Context(), repo, "1"); err != nil || m.Digest != built.Root.Digest {
		t.Errorf("%+v, %v", m, err)
	}
	_, err = r.Manifest(t.Context(), repo, "2")
	e := upstreamError(t, err)
	if e.Status != 404 || e.Code != "MANIFEST_UNKNOWN" || e.Step().Host != regional.Host() ||
		e.Step().Name != fault.StepManifest {
		t.Errorf("%v, last step %+v", e, e.Step())
	}
	for _, q := range regional.Requests() {
		if q.Header.Get("Authorization") != "" || !strings.HasPrefix(q.Header.Get("Accept"), "application/vnd.") {
			t.Errorf("redirected with %v", q.Header)
		}
	}
}

func TestContextOfTheCaller(t *testing.T) {
	t.Parallel()
	gate := origin.NewGate()
	s := origin.Start(t, origin.Options{})
	s.AddImage(repo, "1", origin.Image{})
	s.Script(origin.Rule{Do: origin.Fault{Gate: gate}})
	r := registry(t, s.URL())
	why := errors.New("enough")
	for name, ask := range map[string]func(context.Context) error{
		"resolve":  func(ctx context.Context) error { _, err := r.Resolve(ctx, repo, "1"); return err },
		"manifest": func(ctx context.Context) error { _, err := r.Manifest(ctx, repo, "1"); return err },
		"tags":     func(ctx context.Context) error { _, err := r.Tags(ctx, repo, nil); return err },
		"blob":     func(ctx context.Context) error { _, err := r.Stat(ctx, repo, digestOf(nil)); return err },
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		arrived := s.Arrived(func(origin.Request) bool { return true })
		done := make(chan error, 1)
		go func() { done <- ask(ctx) }()
		<-arrived
		cancel(why)
		if err := <-done; !errors.Is(err, why) || upstreamError(t, err).Op != name {
			t.Errorf("%s: %v, want the cause", name, err)
		}
	}
	gate.Open()
}
