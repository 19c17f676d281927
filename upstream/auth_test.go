package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

func login(user, password string) auth.Source {
	return auth.Credential{Name: "hub", Username: user, Password: auth.NewSecret(password)}
}

func as(s auth.Source) func(*upstream.Options) {
	return func(o *upstream.Options) { o.Credential = s }
}

// upstreamError is the *fault.Error in err, which must be one.
func upstreamError(t *testing.T, err error) *fault.Error {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want an *fault.Error", err, err)
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
		{name: "no login"},
		{name: "basic", auth: origin.Auth{Kind: "basic", Username: "bot", Password: "pw"}, source: login("bot", "pw")},
		{
			name: "anonymous bearer", auth: origin.Auth{Kind: "bearer", Anonymous: true}, tokens: 1,
			scope: "repository:library/app:pull",
		},
		{
			name: "bearer", auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}, source: login("bot", "pw"),
			tokens: 1, scope: "repository:library/app:pull",
		},
		{
			name: "other host", auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw", SeparateHost: true},
			source: login("bot", "pw"), hosts: true, tokens: 1, scope: "repository:library/app:pull",
		},
		{
			name: "identity", auth: origin.Auth{Kind: "bearer", Identity: "refresh", SeparateHost: true},
			source: auth.Credential{Name: "acr", Identity: auth.NewSecret("refresh")}, hosts: true, tokens: 1,
		},
		{name: "one scope", auth: origin.Auth{Kind: "bearer", Anonymous: true, Scope: "aws"}, tokens: 1, scope: "aws"},
		{
			name: "no scope in the challenge", auth: origin.Auth{Kind: "bearer", Anonymous: true, NoScope: true}, tokens: 1,
			scope: "repository:library/app:pull",
		},
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
		{
			"token service says 401",
			origin.Auth{Kind: "bearer", Username: "bot", Password: "new", Anonymous: true},
			auth.StateRejected,
		},
		{"token service says 403, as ghcr", origin.Auth{
			Kind: "bearer", Username: "bot", Password: "new", Anonymous: true,
			Rejected: 403,
		}, auth.StateRejected},
		{"basic", origin.Auth{
			Kind: "basic", Username: "bot", Password: "new", Anonymous: true,
			Private: func(repo string) bool { return repo == "private" },
		}, auth.StateRejected},
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
	o.Script(origin.Rule{
		Kind:  origin.KindToken,
		Match: func(r *http.Request) bool { return r.Header.Get("Authorization") != "" },
		Early: true, Do: origin.Fault{Status: 401, Body: origin.DetailsBody("incorrect username or password")},
	})
	_, err := registry(t, o.URL(), as(login("bot", "bad"))).Manifest(t.Context(), "app", "1")
	e := upstreamError(t, err)
	if e.Status != 401 || e.BodyKind != fault.BodyDetails || e.Message != "incorrect username or password" {
		t.Errorf("%d %s %q", e.Status, e.BodyKind, e.Message)
	}
	if step := e.Step(); step.Name != fault.StepToken || step.Status != 401 || step.Err == nil {
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

func TestAsAnotherCredential(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}})
	o.AddImage("app", "1", origin.Image{})
	r := registry(t, o.URL())
	if _, err := r.Resolve(t.Context(), "app", "1"); err == nil {
		t.Fatal("an anonymous client got a private image")
	} else if e := upstreamError(t, err); e.Credential != (auth.Status{}) {
		t.Errorf("credential of an anonymous request: %+v", e.Credential)
	}
	bot := r.As(auth.Credential{Name: "client", Username: "bot", Password: auth.NewSecret("pw")})
	if _, err := bot.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("bot: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); err == nil {
		t.Error("an anonymous request got in with the token of bot")
	}
	if got := r.Credential(); got != (auth.Status{}) {
		t.Errorf("credential of an anonymous request: %+v", got)
	}
}
