package upstream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// guarded is a registry that lets some logins in and notes whom it was asked by: "HEAD app as bot". Repositories that
// begin with public let in everybody.
type guarded struct {
	tokens bool // it works with tokens, else with passwords
	closed bool // without a token every request is refused, as at Docker Hub

	mu    sync.Mutex
	good  []string // USER:PASSWORD
	asked []string
	given map[string]string // by token, whose
}

func (g *guarded) serve(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	login, basic := "", false
	if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic "); ok {
		b, _ := base64.StdEncoding.DecodeString(text)
		login, basic = string(b), true
	}
	known := basic && slices.Contains(g.good, login)
	user, _, _ := strings.Cut(login, ":")
	if r.URL.Path == "/token" {
		g.note("token", user)
		if basic && !known {
			http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
			return
		}
		if g.given == nil {
			g.given = map[string]string{}
		}
		value := fmt.Sprintf("t%d", len(g.given)+1)
		g.given[value] = login
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, value)
		return
	}
	repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		login, ok = g.given[text]
		user, _, _ = strings.Cut(login, ":")
		known = ok && slices.Contains(g.good, login)
		if ok && !known { // rights follow the login at once
			known = login == "" && strings.HasPrefix(repo, "public")
		}
	}
	g.note(r.Method+" "+repo, user)
	open := strings.HasPrefix(repo, "public") && !g.closed && (!g.tokens && !basic || known)
	if !known && !open {
		challenge := `Basic realm="reg"`
		if g.tokens {
			challenge = `Bearer realm="/token",service="reg"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return
	}
	w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
	w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
	w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(manifest)
	}
}

func (g *guarded) note(what, user string) {
	if user == "" {
		user = "anonymous"
	}
	g.asked = append(g.asked, what+" as "+user)
}

// requests are those since it was last asked for them.
func (g *guarded) requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.asked
	g.asked = nil
	return list
}

func (g *guarded) lets(logins ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.good = logins
}

// fetched is a source whose credential is fetched: each fetch gives the next user, u1:pw1, u2:pw2, ...
func fetched(t *testing.T, o auth.Refresh) (*auth.Refreshed, func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	o.Name, o.Kind, o.For = "rotating", "test", "reg.example"
	life := o.Lifetime
	o.Fetch = func(context.Context) (auth.Grant, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		g := auth.Grant{Credential: auth.Credential{
			Username: fmt.Sprintf("u%d", n), Password: auth.NewSecret(fmt.Sprintf("pw%d", n)),
		}}
		if life > 0 {
			g.Expires = time.Now().Add(life)
		}
		return g, nil
	}
	return auth.NewRefreshed(o), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// A credential that is refused is renewed once, and the pull works; each request and its login are counted.
func TestRefusedCredentialIsRenewedOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		tokens      bool
		first, next []string
	}{
		{
			"basic", false,
			[]string{"HEAD app as anonymous", "HEAD app as u1"},
			[]string{"HEAD app as u1", "HEAD app as u2"},
		},
		{
			"bearer", true,
			[]string{"HEAD app as anonymous", "token as u1", "HEAD app as u1"},
			// The token of u1 is refused; a new one isn't to be had as u1. Is that the right token service? It is. So as u2.
			[]string{"HEAD app as u1", "token as u1", "HEAD app as anonymous", "token as u2", "HEAD app as u2"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := &guarded{tokens: tt.tokens, good: []string{"u1:pw1"}}
			synctest.Test(t, func(t *testing.T) {
				p := newPipes(t, http.HandlerFunc(g.serve))
				src, fetches := fetched(t, auth.Refresh{})
				var out bytes.Buffer
				r := registry(t, "http://reg.example", as(src), func(o *upstream.Options) { o.Dial, o.Log = p.Dial, textLog(&out) })
				resolve := func() {
					t.Helper()
					if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
						t.Fatal(err)
					}
				}
				resolve()
				if diff := cmp.Diff(tt.first, g.requests()); diff != "" {
					t.Errorf("the first pull:\n%s", diff)
				}
				g.lets("u2:pw2") // rotated at the registry
				time.Sleep(2 * time.Second)
				resolve()
				if diff := cmp.Diff(tt.next, g.requests()); diff != "" {
					t.Errorf("the pull after the rotation:\n%s", diff)
				}
				if n := fetches(); n != 2 {
					t.Errorf("%d credentials were fetched, want 2", n)
				}
				if st := r.Judge(src.Status()); st.State != auth.StateOK {
					t.Errorf("status %+v", st)
				}
				if strings.Contains(out.String(), "level=WARN") {
					t.Errorf("it went well, and the log warns:\n%s", &out)
				}
				resolve()
				if diff := cmp.Diff([]string{"HEAD app as u2"}, g.requests()); diff != "" {
					t.Errorf("the next pull:\n%s", diff)
				}
			})
		})
	}
}

// Where the renewed credential is refused too, public images are pulled anonymously, with a warning until it works again.
func TestRefusedForGood(t *testing.T) {
	t.Parallel()
	for _, tokens := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens %v", tokens), func(t *testing.T) {
			t.Parallel()
			g := &guarded{tokens: tokens}
			synctest.Test(t, func(t *testing.T) {
				p := newPipes(t, http.HandlerFunc(g.serve))
				src, fetches := fetched(t, auth.Refresh{})
				var out bytes.Buffer
				r := registry(t, "http://reg.example", as(src), func(o *upstream.Options) { o.Dial, o.Log = p.Dial, textLog(&out) })
				for range 3 {
					if _, err := r.Resolve(t.Context(), "public/app", "1"); err != nil {
						t.Errorf("public image: %v", err)
					}
				}
				// A registry of passwords has shown no challenge so far: it never saw the credential.
				if n := fetches(); tokens && n != 2 || !tokens && n != 1 {
					t.Errorf("%d credentials were fetched, want one and its renewal", n)
				}
				for range 100 { // in 20 s
					time.Sleep(200 * time.Millisecond)
					if _, err := r.Resolve(t.Context(), "public/app", "1"); err != nil {
						t.Errorf("public image: %v", err)
					}
				}
				if n := fetches(); n > 2 {
					t.Errorf("%d credentials were fetched while all are refused, want no more", n)
				}
				_, err := r.Resolve(t.Context(), "app", "1")
				if e := upstreamError(t, err); e.Status != 401 || e.Credential.Name != "rotating" ||
					e.Credential.State != auth.StateRejected && tokens {
					t.Errorf("private image: %v, credential %+v", err, e.Credential)
				}
				if tokens {
					if st := r.Judge(src.Status()); st.State != auth.StateRejected || st.LastError == "" {
						t.Errorf("status %+v, want rejected and why", st)
					}
					// Warned of once for each credential that was refused, not with each pull.
					if n := strings.Count(out.String(), "credential refused"); n == 0 || n > fetches() {
						t.Errorf("%d warnings of %d credentials:\n%s", n, fetches(), &out)
					}
				}
				if strings.Contains(out.String(), "pw") {
					t.Errorf("a password in the log:\n%s", &out)
				}
				// It is let in again: the warning goes.
				g.lets("u1:pw1", "u2:pw2", "u3:pw3", "u4:pw4", "u5:pw5")
				time.Sleep(time.Minute)
				if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
					t.Error(err)
				}
				if st := r.Judge(src.Status()); st.State != auth.StateOK || st.LastError != "" {
					t.Errorf("status %+v, want ok", st)
				}
			})
		})
	}
}

// A source that hangs holds a public image up for seconds, not for ever.
func TestSourceThatHangs(t *testing.T) {
	t.Parallel()
	g := &guarded{tokens: true}
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t, http.HandlerFunc(g.serve))
		hang := auth.NewRefreshed(auth.Refresh{Name: "slow", Kind: "test", Fetch: func(ctx context.Context) (auth.Grant, error) {
			<-ctx.Done()
			return auth.Grant{}, context.Cause(ctx)
		}})
		r := registry(t, "http://reg.example", as(hang), func(o *upstream.Options) { o.Dial = p.Dial })
		for i, most := range []time.Duration{8 * time.Second, 8 * time.Second, 8 * time.Second, 8 * time.Second, 2 * time.Second} {
			begun := time.Now()
			if _, err := r.Resolve(t.Context(), "public/app", "1"); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > most {
				t.Errorf("pull %d took %s", i, took)
			}
		}
		_, err := r.Resolve(t.Context(), "app", "1")
		if e := upstreamError(t, err); e.Credential.Name != "slow" || e.Credential.State != auth.StateFailing {
			t.Errorf("credential %+v", e.Credential)
		}
		time.Sleep(time.Minute) // its fetch ends
	})
}

// Fifty that hold what has been rotated away cost one renewal, and one line in the log.
func TestRotationIsOneRenewalForAll(t *testing.T) {
	t.Parallel()
	for _, tokens := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens %v", tokens), func(t *testing.T) {
			t.Parallel()
			g := &guarded{tokens: tokens, good: []string{"u1:pw1"}}
			synctest.Test(t, func(t *testing.T) {
				p := newPipes(t, http.HandlerFunc(g.serve))
				src, fetches := fetched(t, auth.Refresh{})
				var out bytes.Buffer
				r := registry(t, "http://reg.example", as(src), func(o *upstream.Options) { o.Dial, o.Log = p.Dial, textLog(&out) })
				if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
					t.Fatal(err)
				}
				g.lets("u2:pw2")
				g.requests()
				time.Sleep(2 * time.Second)
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if n := fetches(); n != 2 {
					t.Errorf("%d credentials were fetched, want 2", n)
				}
				if n := strings.Count(out.String(), "renewed a refused credential"); n != 1 || strings.Contains(out.String(), "level=WARN") {
					t.Errorf("%d lines about it:\n%s", n, &out)
				}
				count := map[string]int{}
				for _, line := range g.requests() {
					count[line]++
				}
				if tokens && (count["token as u1"] != 1 || count["token as u2"] != 1) || count["HEAD app as u2"] != 50 {
					t.Errorf("requests: %v", count)
				}
			})
		})
	}
}

// Credentials of a pool go to their repositories alone.
func TestCredentialsByRepository(t *testing.T) {
	t.Parallel()
	g := &guarded{good: []string{"team:pw", "rest:pw"}}
	s := serve(t, g.serve)
	r := registry(t, s.URL, as(auth.Pool{
		{Source: auth.Credential{Name: "rest", Username: "rest", Password: auth.NewSecret("pw")}},
		{Source: auth.Credential{Name: "team", Username: "team", Password: auth.NewSecret("pw")}, Repositories: []string{"team/**"}},
	}))
	for _, repo := range []string{"team/app", "app", "team/app", "app"} {
		if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"HEAD team/app as anonymous", "HEAD team/app as team", "HEAD app as rest", "HEAD team/app as team", "HEAD app as rest",
	}
	if diff := cmp.Diff(want, g.requests()); diff != "" {
		t.Error(diff)
	}
}

// Where credentials are for quota alone, none is shown for a repository before it has shown a manifest without one, however
// often it is asked, and none again a day later.
func TestPublicAlone(t *testing.T) {
	t.Parallel()
	for _, tokens := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens %v", tokens), func(t *testing.T) {
			t.Parallel()
			g := &guarded{tokens: tokens, good: []string{"bot:pw"}}
			synctest.Test(t, func(t *testing.T) {
				p := newPipes(t, http.HandlerFunc(g.serve))
				r := registry(t, "http://reg.example", as(login("bot", "pw")), func(o *upstream.Options) {
					o.Dial, o.Public = p.Dial, true
				})
				as := func() string {
					var users []string
					for _, line := range g.requests() {
						_, user, _ := strings.Cut(line, " as ")
						if !slices.Contains(users, user) {
							users = append(users, user)
						}
					}
					return strings.Join(users, " ")
				}
				for range 3 {
					if _, err := r.Manifest(t.Context(), "private", string(digestOf(manifest))); err == nil {
						t.Error("a private repository was read")
					} else if e := upstreamError(t, err); e.Credential != (auth.Status{}) || !e.PublicOnly {
						t.Errorf("credential in the error %+v, public alone %v", e.Credential, e.PublicOnly)
					}
					if got := as(); got != "anonymous" {
						t.Errorf("a private repository was asked as %s", got)
					}
				}
				get := func(want string) {
					t.Helper()
					if _, err := r.Manifest(t.Context(), "public/app", string(digestOf(manifest))); err != nil {
						t.Error(err)
					}
					if got := as(); got != want {
						t.Errorf("asked as %s, want %s", got, want)
					}
				}
				get("anonymous")
				want := "bot"
				if !tokens {
					want = "anonymous" // it has never asked for a login
					if _, err := r.Resolve(t.Context(), "private", "1"); err == nil {
						t.Error("a private repository was read")
					}
					as()
				}
				if tokens {
					get(want)
				}
				time.Sleep(24*time.Hour - time.Minute)
				if tokens {
					get("bot")
				}
				time.Sleep(2 * time.Minute)
				get("anonymous")
				if _, err := r.Resolve(t.Context(), "private", "1"); err == nil {
					t.Error("a private repository was read")
				}
				if got := as(); got != "anonymous" {
					t.Errorf("a private repository was asked as %s", got)
				}
			})
		})
	}
}

// The first manifest of a repository is asked for without a login, since its bytes are what shows that the repository is
// public; what follows is spent on our credential's limits.
func TestPublicIsShownByAManifest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, repo string
		source     auth.Source
		want       []string
	}{
		{
			"public", "public/app", login("bot", "pw"),
			[]string{
				"GET public/app as anonymous", "token as anonymous", "GET public/app as anonymous",
				"token as bot", "GET public/app as bot",
			},
		},
		{
			"private", "app", login("bot", "pw"),
			[]string{
				"GET app as anonymous", "token as anonymous", "GET app as anonymous",
				"GET app as anonymous", "token as anonymous", "GET app as anonymous",
			},
		},
		{
			"without a login", "public/app", auth.Anonymous,
			[]string{
				"GET public/app as anonymous", "token as anonymous",
				"GET public/app as anonymous", "GET public/app as anonymous",
			},
		},
		{
			"a login for other repositories", "public/app",
			auth.Pool{{Source: login("bot", "pw"), Repositories: []string{"other/**"}}},
			[]string{
				"GET public/app as anonymous", "token as anonymous",
				"GET public/app as anonymous", "GET public/app as anonymous",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := &guarded{tokens: true, good: []string{"bot:pw"}, closed: true}
			s := serve(t, g.serve)
			r := registry(t, s.URL, as(tt.source), func(o *upstream.Options) { o.Public = true })
			for range 2 {
				_, err := r.Manifest(t.Context(), tt.repo, string(digestOf(manifest)))
				if (err == nil) != (tt.repo == "public/app") {
					t.Error(err)
				}
			}
			if diff := cmp.Diff(tt.want, g.requests()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
