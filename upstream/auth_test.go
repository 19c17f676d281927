package upstream_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

func login(user, password string) auth.Source {
	return auth.Static("hub", user, auth.NewSecret(password))
}

func as(s auth.Source) func(*upstream.Options) {
	return func(o *upstream.Options) { o.Credential = s }
}

// upstreamError is the *Error in err, which must be one.
func upstreamError(t *testing.T, err error) *upstream.Error {
	t.Helper()
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want an *upstream.Error", err, err)
	}
	return e
}

func TestManyPullsOneToken(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}})
	built := o.AddImage("library/app", "1", origin.Image{})
	r := registry(t, o.URL())
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := r.Manifest(t.Context(), "library/app", built.Root.Digest.String()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := o.Count(origin.KindToken); got != 1 {
		t.Errorf("%d token requests, want 1", got)
	}
	o.ClearRequests()
	for range 10 {
		if _, err := r.Resolve(t.Context(), "library/app", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if all := len(o.Requests()); all != 10 {
		t.Errorf("%d requests for 10 resolves, want 10", all)
	}
}

func TestChallenges(t *testing.T) {
	t.Parallel()
	const repo = "library/app"
	for _, tt := range []struct {
		name   string
		auth   origin.Auth
		source auth.Source
		hosts  bool // the token service is in authHosts
		tokens int
		scope  string
	}{
		{name: "nobody asks"},
		{name: "basic", auth: origin.Auth{Kind: "basic", Username: "bot", Password: "pw"}, source: login("bot", "pw")},
		{name: "anonymous bearer", auth: origin.Auth{Kind: "bearer", Anonymous: true}, tokens: 1, scope: "repository:library/app:pull"},
		{name: "bearer", auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}, source: login("bot", "pw"), tokens: 1, scope: "repository:library/app:pull"},
		{name: "other host", auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw", SeparateHost: true}, source: login("bot", "pw"), hosts: true, tokens: 1, scope: "repository:library/app:pull"},
		{name: "identity", auth: origin.Auth{Kind: "bearer", Identity: "refresh", SeparateHost: true}, source: auth.Credential{Name: "acr", Identity: auth.NewSecret("refresh")}, hosts: true, tokens: 1},
		{name: "one scope", auth: origin.Auth{Kind: "bearer", Anonymous: true, Scope: "aws"}, tokens: 1, scope: "aws"},
		{name: "no scope in the challenge", auth: origin.Auth{Kind: "bearer", Anonymous: true, NoScope: true}, tokens: 1, scope: "repository:library/app:pull"},
		{name: "relative realm", auth: origin.Auth{Kind: "bearer", Anonymous: true, Realm: "/token"}, tokens: 1},
		{name: "access_token", auth: origin.Auth{Kind: "bearer", Anonymous: true, AccessTokenOnly: true}, tokens: 1},
		{name: "JWT", auth: origin.Auth{Kind: "bearer", Anonymous: true, JWT: true, NoExpiresIn: true}, tokens: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, origin.Options{Auth: tt.auth})
			built := o.AddImage(repo, "1", origin.Image{})
			r := registry(t, o.URL(), as(tt.source), func(u *upstream.Options) {
				if tt.hosts {
					u.AuthHosts = []string{o.TokenHost()}
				}
			})
			for range 3 {
				desc, err := r.Resolve(t.Context(), repo, "1")
				if err != nil || desc.Digest != built.Root.Digest {
					t.Fatalf("%v, %v", desc, err)
				}
			}
			if got := o.Count(origin.KindToken); got != tt.tokens {
				t.Errorf("%d token requests, want %d", got, tt.tokens)
			}
			heads, want := o.Count(origin.KindManifest), 3
			if tt.auth.Kind != "" {
				want++ // the first learns the challenge
			}
			if heads != want {
				t.Errorf("%d requests for manifests, want %d", heads, want)
			}
			for _, q := range o.Requests() {
				if tt.scope != "" && q.Kind == origin.KindToken && !strings.Contains(q.Query, "scope="+urlEscape(tt.scope)) {
					t.Errorf("token request %q, want scope %s", q.Query, tt.scope)
				}
			}
			if st := r.Credential(); tt.source != nil && st.State != auth.StateOK {
				t.Errorf("credential %+v, want ok", st)
			}
		})
	}
}

func urlEscape(s string) string { return strings.NewReplacer(":", "%3A", "/", "%2F").Replace(s) }

func TestRevokedTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}})
	o.AddImage("app", "1", origin.Image{})
	r := registry(t, o.URL(), as(login("bot", "pw")))
	resolve := func() error {
		_, err := r.Resolve(t.Context(), "app", "1")
		return err
	}
	if err := resolve(); err != nil {
		t.Fatal(err)
	}
	o.RevokeTokens()
	o.ClearRequests()
	if err := resolve(); err != nil {
		t.Fatal(err)
	}
	if tokens, heads := o.Count(origin.KindToken), o.Count(origin.KindManifest); tokens != 1 || heads != 2 {
		t.Errorf("%d token requests, %d for the manifest, want 1 and 2", tokens, heads)
	}

	// A hundred at once that all hold the revoked token.
	o.RevokeTokens()
	o.ClearRequests()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := resolve(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if tokens := o.Count(origin.KindToken); tokens != 1 {
		t.Errorf("%d token requests for a hundred, want 1", tokens)
	}
}

func TestRejectedCredentialFallsBackToAnonymous(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		auth  origin.Auth
		state auth.State
	}{
		{"token service says 401", origin.Auth{Kind: "bearer", Username: "bot", Password: "new", Anonymous: true}, auth.StateRejected},
		{"token service says 403, as ghcr", origin.Auth{Kind: "bearer", Username: "bot", Password: "new", Anonymous: true, Rejected: 403}, auth.StateRejected},
		{"basic", origin.Auth{Kind: "basic", Username: "bot", Password: "new", Anonymous: true, Private: func(repo string) bool { return repo == "private" }}, auth.StateRejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			private := tt.auth
			if private.Private == nil {
				private.Private = func(repo string) bool { return repo == "private" }
			}
			o := origin.Start(t, origin.Options{Auth: private})
			public := o.AddImage("public", "1", origin.Image{})
			o.AddImage("private", "1", origin.Image{})
			r := registry(t, o.URL(), as(login("bot", "old")))

			_, err := r.Resolve(t.Context(), "private", "1")
			e := upstreamError(t, err)
			if e.Credential.Name != "hub" || e.Credential.State != tt.state && tt.auth.Rejected == 0 {
				t.Errorf("credential in the error %+v, want hub %s", e.Credential, tt.state)
			}
			if e.Status != 401 && e.Status != 403 {
				t.Errorf("status %d", e.Status)
			}
			desc, err := r.Resolve(t.Context(), "public", "1")
			if err != nil || desc.Digest != public.Root.Digest {
				t.Fatalf("public image: %v, %v", desc, err)
			}
			if tt.auth.Kind == "bearer" {
				if got := r.Credential(); got.State != tt.state || got.LastError == "" {
					t.Errorf("credential %+v, want %s and why", got, tt.state)
				}
			}
			for _, text := range []string{err2s(e), r.Credential().LastError} {
				if strings.Contains(text, "old") {
					t.Errorf("the password shows in %q", text)
				}
			}
		})
	}
}

func err2s(err error) string { return fmt.Sprintf("%v %+v %#v", err, err, err) }

func TestErrorIsWhatOurCredentialMet(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}})
	o.AddImage("app", "1", origin.Image{})
	o.Script(origin.Rule{Kind: origin.KindToken, Match: func(r *http.Request) bool { return r.Header.Get("Authorization") != "" },
		Early: true, Do: origin.Fault{Status: 401, Body: origin.DetailsBody("incorrect username or password")}})
	_, err := registry(t, o.URL(), as(login("bot", "bad"))).Manifest(t.Context(), "app", "1")
	e := upstreamError(t, err)
	if e.Status != 401 || e.BodyKind != upstream.BodyDetails || e.Message != "incorrect username or password" {
		t.Errorf("%d %s %q", e.Status, e.BodyKind, e.Message)
	}
	if step := e.Step(); step.Name != upstream.StepToken || step.Status != 401 || step.Err == nil {
		t.Errorf("last step %+v, want the token request that was refused", step)
	}
	if e.Credential.State != auth.StateRejected {
		t.Errorf("credential %+v", e.Credential)
	}
}

func TestFailingSourceMeansNobody(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{
		Kind: "bearer", Username: "bot", Password: "pw", Anonymous: true,
		Private: func(repo string) bool { return repo == "private" },
	}})
	o.AddImage("public", "1", origin.Image{})
	o.AddImage("private", "1", origin.Image{})
	r := registry(t, o.URL(), as(&auth.File{Name: "hub", Username: "bot", Path: t.TempDir() + "/missing"}))
	if _, err := r.Resolve(t.Context(), "public", "1"); err != nil {
		t.Errorf("public image: %v", err)
	}
	_, err := r.Resolve(t.Context(), "private", "1")
	if e := upstreamError(t, err); e.Credential.State != auth.StateFailing || e.Credential.Name != "hub" ||
		!strings.Contains(e.Credential.LastError, "missing") {
		t.Errorf("credential %+v, want failing, and why", e.Credential)
	}
}

// rotating is a source whose password changes.
type rotating struct {
	mu   sync.Mutex
	pass []string // of each time that it is asked, the last one for good
}

func (r *rotating) Credential(context.Context) (auth.Credential, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pass[0]
	if len(r.pass) > 1 {
		r.pass = r.pass[1:]
	}
	return auth.Credential{Name: "aws", Username: "AWS", Password: auth.NewSecret(p)}, nil
}

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

// TestECR is a registry that takes Basic on every request, and says 403 to a password that has expired.
func TestECR(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "":
			w.Header().Set("WWW-Authenticate", `Basic realm="https://1.dkr.ecr.example/",service="ecr.amazonaws.com"`)
			http.Error(w, "Not Authorized", http.StatusUnauthorized)
		case basic("AWS", "new"):
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, origin.ErrorBody("DENIED", "Your authorization token has expired. Reauthenticate and try again."))
		}
	})
	// The source has a new password when it is asked again: that is all that a refusal needs.
	r := registry(t, s.URL, as(&rotating{pass: []string{"old", "new"}}))
	if _, err := r.Manifest(t.Context(), "app", "1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		"GET /v2/app/manifests/1", "GET /v2/app/manifests/1 [" + basic("AWS", "old") + "]",
		"GET /v2/app/manifests/1 [" + basic("AWS", "new") + "]",
	}, s.asked()); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}

	r = registry(t, s.URL, as(login("AWS", "old")))
	_, err := r.Resolve(t.Context(), "app", "1") // whose HEAD says 403 and nothing else
	e := upstreamError(t, err)
	if e.Status != 403 || e.Code != "DENIED" || e.Credential.State != auth.StateExpired {
		t.Errorf("%d %s, credential %+v, want 403 DENIED, expired", e.Status, e.Code, e.Credential)
	}
}

// TestPublicECR is a registry whose 400 means 401.
func TestPublicECR(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good := "one"
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/token/":
			_, _ = io.WriteString(w, `{"token":"`+good+`"}`)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token/",service="public.ecr.aws",scope="aws"`)
			http.Error(w, origin.ErrorBody("DENIED", "Not Authorized"), http.StatusUnauthorized)
		case r.Header.Get("Authorization") != "Bearer "+good:
			http.Error(w, origin.ErrorBody("DENIED", "Your Authorization Token is invalid."), http.StatusBadRequest)
		default:
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		}
	})
	r := registry(t, s.URL)
	get := func(repo string) {
		t.Helper()
		if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
			t.Error(err)
		}
	}
	get("a/one")
	get("b/two")
	if n := s.count("/token/"); n != 1 {
		t.Errorf("%d token requests for two repositories, want 1: the scope is aws", n)
	}
	mu.Lock()
	good = "two"
	mu.Unlock()
	get("a/one")
	if n := s.count("/token/"); n != 2 {
		t.Errorf("%d token requests after it expired, want 2", n)
	}
	if _, err := r.Resolve(t.Context(), "a/one", "1"); err != nil { // by HEAD, without a body to read
		t.Error(err)
	}
}

// TestHarbor is a registry that offers Bearer to whom it doesn't know and Basic to whom it refuses.
func TestHarbor(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good := 1
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch a := r.Header.Get("Authorization"); {
		case r.URL.Path == "/service/token":
			_, _ = fmt.Fprintf(w, `{"token":"t%d"}`, good)
		case a == fmt.Sprintf("Bearer t%d", good):
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		default:
			if a == "" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/service/token",service="harbor-registry",scope="repository:p/r:pull"`)
			} else {
				w.Header().Set("WWW-Authenticate", `Basic realm="harbor"`)
			}
			http.Error(w, origin.ErrorBody("UNAUTHORIZED", "unauthorized to access repository"), http.StatusUnauthorized)
		}
	})
	r := registry(t, s.URL, as(login("bot", "pw")))
	for range 2 {
		if _, err := r.Manifest(t.Context(), "p/r", "1"); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		good++
		mu.Unlock()
	}
	if n := s.count("/service/token"); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
	if n := s.count("/manifests/1 [Basic"); n != 0 {
		t.Errorf("%d requests to the registry with the password, want none: it works with tokens", n)
	}
}

// TestArtifactory is a registry with a token service for each of its repositories.
func TestArtifactory(t *testing.T) {
	t.Parallel()
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		key := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")[0]
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/"):
			key := strings.Split(r.URL.Path, "/")[2]
			if !strings.Contains(r.URL.RawQuery, "repository%3A"+key+"%2F") {
				http.Error(w, `{"errors":[{"status":403,"message":"not of this repository"}]}`, http.StatusForbidden)
				return
			}
			_, _ = io.WriteString(w, `{"token":"`+key+`"}`)
		case r.Header.Get("Authorization") == "Bearer "+key:
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/api/`+key+`/token",service="art"`)
			http.Error(w, origin.ErrorBody("UNAUTHORIZED", "authentication required"), http.StatusUnauthorized)
		}
	})
	r := registry(t, s.URL)
	for range 3 {
		for _, repo := range []string{"local/app", "remote/app", "local/other"} {
			if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
				t.Fatalf("%s: %v", repo, err)
			}
		}
	}
	asked := s.asked()
	tokens := slices.DeleteFunc(slices.Clone(asked), func(l string) bool { return !strings.Contains(l, "/api/") })
	if len(tokens) != 4 { // one of them to learn that remote has its own
		t.Errorf("token requests %q, want 4", tokens)
	}
}

func TestHostileRealms(t *testing.T) {
	t.Parallel()
	sniffer := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	for _, realm := range []string{
		sniffer.URL + "/token", "http://0.0.0.0:" + portOf(sniffer) + "/token", "http://localhost:" + portOf(sniffer) + "/token",
		"http://[::1]:" + portOf(sniffer) + "/token", "//" + sniffer.host() + "/token", "https://evil.example/token",
		"http://169.254.169.254/latest", "http://bot:pw@" + sniffer.host() + "/token",
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("WWW-Authenticate", `Bearer realm="`+realm+`",service="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		r := registry(t, s.URL, as(login("bot", "pw")))
		_, err := r.Manifest(t.Context(), "app", "1")
		e, ok := errors.AsType[*upstream.RealmError](err)
		if !ok {
			t.Errorf("realm %s: %v, want a RealmError", realm, err)
			continue
		}
		if step := upstreamError(t, err).Step(); step.Name != upstream.StepToken || step.Host != e.Host {
			t.Errorf("realm %s: last step %+v", realm, step)
		}
		for _, line := range s.asked() {
			if strings.Contains(line, "[") {
				t.Errorf("realm %s: credentials went out: %s", realm, line)
			}
		}
	}
	if got := sniffer.asked(); len(got) > 0 {
		t.Errorf("the sniffer was asked: %q", got)
	}
}

func portOf(s *server) string { return s.host()[strings.LastIndex(s.host(), ":")+1:] }

func TestSharedTokenServiceGivesOurScopeOnly(t *testing.T) {
	t.Parallel()
	tokens := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+tokens.URL+`",service="reg",scope="repository:acme/secret:pull,push"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
		_, _ = w.Write(manifest)
	})
	r := registry(t, s.URL, as(login("bot", "pw")), func(o *upstream.Options) { o.AuthHosts = []string{tokens.host()} })
	if _, err := r.Manifest(t.Context(), "library/app", "1"); err != nil {
		t.Fatal(err)
	}
	if got := tokens.asked(); len(got) != 1 || strings.Contains(got[0], "secret") || !strings.Contains(got[0], "library%2Fapp%3Apull&") {
		t.Errorf("token requests %q, want one for library/app and pull", got)
	}
}

func TestTokenService(t *testing.T) {
	t.Parallel()
	sniffer := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		check  func(*testing.T, *upstream.Error)
	}{
		{"redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, sniffer.URL+"/token?a=secret", 307) },
			func(t *testing.T, e *upstream.Error) {
				if got, ok := errors.AsType[*upstream.RedirectError](e); !ok || got.Host != sniffer.host() {
					t.Errorf("%v, want a RedirectError to the sniffer", e)
				}
			}},
		{"is too long", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"`+strings.Repeat("x", 1<<20)+`"}`)
		}, wantContent(upstream.ContentTooLarge)},
		{"sends a page", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `<html><title>Sign in</title></html>`)
		}, wantContent(upstream.ContentNotRegistry)},
		{"sends no token", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) },
			wantContent(upstream.ContentNotRegistry)},
		{"injects a header", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"x\r\nX-Evil: 1"}`)
		}, wantContent(upstream.ContentNotRegistry)},
		{"is down", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) },
			func(t *testing.T, e *upstream.Error) {
				if e.Status != 503 || e.Message != "busy" {
					t.Errorf("%d %q", e.Status, e.Message)
				}
			}},
		{"limits", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "slow down", http.StatusTooManyRequests)
		}, func(t *testing.T, e *upstream.Error) {
			if e.Status != 429 || e.RetryAfter.Seconds() != 7 {
				t.Errorf("%d after %s", e.Status, e.RetryAfter)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s *server
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					tt.answer(w, r)
					return
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			_, err := registry(t, s.URL, as(login("bot", "pw"))).Manifest(t.Context(), "app", "1")
			e := upstreamError(t, err)
			if step := e.Step(); step.Name != upstream.StepToken || step.Host != s.host() || step.Err == nil {
				t.Errorf("last step %+v, want the token request", step)
			}
			tt.check(t, e)
		})
	}
	t.Cleanup(func() {
		if got := sniffer.asked(); len(got) > 0 {
			t.Errorf("a redirect was followed with %q", got)
		}
	})
}

func wantContent(kind upstream.ContentKind) func(*testing.T, *upstream.Error) {
	return func(t *testing.T, e *upstream.Error) {
		t.Helper()
		if got, ok := errors.AsType[*upstream.ContentError](e); !ok || got.Kind != kind {
			t.Errorf("%v, want %s", e, kind)
		}
	}
}

func TestAsAnotherCredential(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}})
	o.AddImage("app", "1", origin.Image{})
	r := registry(t, o.URL())
	if _, err := r.Resolve(t.Context(), "app", "1"); err == nil {
		t.Fatal("nobody may read a private image")
	} else if e := upstreamError(t, err); e.Credential != (auth.Status{}) {
		t.Errorf("credential of nobody %+v", e.Credential)
	}
	bot := r.As(auth.Credential{Name: "client", Username: "bot", Password: auth.NewSecret("pw")})
	if _, err := bot.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("bot: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); err == nil {
		t.Error("nobody got in with the token of bot")
	}
	if got := r.Credential(); got != (auth.Status{}) {
		t.Errorf("credential of nobody %+v", got)
	}
}
