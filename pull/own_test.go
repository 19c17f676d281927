package pull_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Repositories of the registry at which clients have logins of their own: one that is open, and two that are not. Ann may read both of
// these, and bob the second.
const (
	openRepo = "acme/open"
	annRepo  = "acme/ann"
	bothRepo = "acme/both"
)

func isOpen(repo string) bool { return strings.HasPrefix(repo, "acme/open") }

var users = map[string]origin.User{
	"ann": {Password: "ann-pass", Reads: func(repo string) bool { return repo == annRepo || repo == bothRepo }},
	"bob": {Password: "bob-pass", Reads: func(repo string) bool { return repo == bothRepo }},
}

// ownLife is short of nothing: the right of a login counts for ten minutes, and an hour more while its registry is down.
var ownLife = access.Lifetime{MaxAge: 10 * time.Minute, StaleIfError: time.Hour}

// withOwn runs a test against a mirror of a registry with logins of its clients' own, in a bubble, for each way in which registries
// ask for them.
func withOwn(t *testing.T, test func(t *testing.T, c *chain)) {
	t.Helper()
	for _, kind := range []string{"bearer", "basic"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newChainOf(t, origin.Options{
					Network: new(origin.Network),
					Auth: origin.Auth{
						Kind: kind, Users: users, Anonymous: true, Private: func(repo string) bool { return !isOpen(repo) },
					},
				}, func(c *chain) {})
				c.ownLogins(ownLife)
				test(t, c)
			})
		})
	}
}

// ownLogins has clients' own logins decide at the hub.
func (c *chain) ownLogins(life access.Lifetime) {
	s := c.setup
	site := s.Sites[hub]
	site.Own = &life
	s.Sites[hub] = site
	c.setup = s
	c.Use(s)
}

// as is a request with a login, over a connection that can't be listened to.
func as(user string, a pull.Ask) pull.Ask {
	a.Secure = true
	if user != "" {
		name, password, found := strings.Cut(user, ":")
		if !found {
			password = name + "-pass"
		}
		a.Login = upstream.NewLogin(name, password)
	}
	return a
}

// outcome is how a request ends: "served", or why not.
func outcome(err error) string {
	var login *access.LoginError
	var refused *access.RefusedError
	var e *fault.Error
	switch {
	case err == nil:
		return "served"
	case errors.As(err, &login) && login.Insecure:
		return "insecure"
	case errors.As(err, &login):
		return "login"
	case errors.As(err, &refused):
		return "refused"
	case errors.As(err, &e) && e.Status == 404:
		return "missing"
	}
	return err.Error()
}

// manifest is the outcome of a pull of a manifest, by GET and by HEAD.
func (c *chain) manifest(t *testing.T, user, repo, ref string) string {
	t.Helper()
	m, err := c.Manifest(t.Context(), as(user, head(ask(repo, ref))))
	_ = m.Close()
	first := outcome(err)
	m, err = c.Manifest(t.Context(), as(user, ask(repo, ref)))
	_ = m.Close()
	if second := outcome(err); second != first {
		return first + " by HEAD, " + second + " by GET"
	}
	return first
}

// blobOutcome is the outcome of a pull of a blob, to its last byte.
func (c *chain) blobOutcome(t *testing.T, user, repo string, d oci.Digest) string {
	t.Helper()
	b, err := c.Blob(t.Context(), as(user, askBlob(repo, d)))
	if err == nil {
		defer func() { _ = b.Close() }()
		if err = b.Ready(t.Context(), 0, b.Size); err == nil {
			_, err = io.Copy(io.Discard, b.Object)
		}
	}
	return outcome(err)
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// Each client gets what its own login may read, whatever is cached for others; one without a login gets what is open.
func TestOwnLogins(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		spec := origin.Image{Platforms: []string{"linux/amd64"}, Layers: []int64{64 << 10}}
		images := map[string]origin.Built{
			openRepo: c.hub.AddImage(openRepo, "1", spec), annRepo: c.hub.AddImage(annRepo, "1", spec), bothRepo: c.hub.AddImage(bothRepo, "1", spec),
		}
		for range 2 { // the second time all is cached
			for _, tt := range []struct{ user, repo, want string }{
				{"", openRepo, "served"},
				{"ann", openRepo, "served"},
				{"ann:wrong", openRepo, "served"},
				{"", annRepo, "login"},
				{"ann", annRepo, "served"},
				{"bob", annRepo, "refused"},
				{"bob:wrong", annRepo, "refused"},
				{"eve", annRepo, "refused"},
				{"ann", bothRepo, "served"},
				{"bob", bothRepo, "served"},
				{"eve", bothRepo, "refused"},
				{"", bothRepo, "login"},
				{"", "acme/none", "login"},
				{"ann", "acme/none", "refused"},
				{"eve", "acme/none", "refused"},
			} {
				what := tt.user + " of " + tt.repo
				want(t, "tag for "+what, c.manifest(t, tt.user, tt.repo, "1"), tt.want)
				im, ok := images[tt.repo]
				if !ok {
					im = images[annRepo]
				}
				want(t, "digest for "+what, c.manifest(t, tt.user, tt.repo, im.Root.Digest.String()), tt.want)
				for _, d := range im.Blobs() {
					want(t, "blob for "+what, c.blobOutcome(t, tt.user, tt.repo, d.Digest), tt.want)
				}
				_, err := c.Tags(t.Context(), as(tt.user, askTags(tt.repo, nil)))
				want(t, "tags for "+what, outcome(err), tt.want)
				time.Sleep(time.Minute + time.Second) // what was refused is asked anew
			}
		}
		if got := c.manifest(t, "ann", annRepo, "none"); got != "missing" {
			t.Errorf("a missing tag for a login with a right: %s", got)
		}
	})
}

// A connection that can be listened to is asked for no login, and one that came over it is not used.
func TestOwnLoginInClear(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		c.hub.AddImage(annRepo, "1", origin.Image{})
		c.hub.AddImage(openRepo, "1", origin.Image{})
		a := as("ann", ask(annRepo, "1"))
		a.Secure = false
		_, err := c.Manifest(t.Context(), a)
		want(t, "with a login", outcome(err), "insecure")
		a.Login = upstream.Login{}
		_, err = c.Manifest(t.Context(), a)
		want(t, "without one", outcome(err), "insecure")
		a = ask(openRepo, "1")
		_, err = c.Manifest(t.Context(), a)
		want(t, "what is open", outcome(err), "served")
		for _, r := range c.hub.Requests() {
			if user, _, ok := basicOf(r); ok {
				t.Errorf("%s of %s was asked as %s", r.Kind, r.Path, user)
			}
		}
	})
}

// basicOf is the login of a request.
func basicOf(r origin.Request) (user, password string, ok bool) {
	q := http.Request{Header: r.Header}
	return q.BasicAuth()
}

// A right counts for a time. Then the registry is asked again, and its refusal counts at once; while it does not answer, the right
// counts for a further time, and a pull waits for it for a second.
func TestOwnLoginRevoked(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		im := c.hub.AddImage(annRepo, "1", origin.Image{})
		digest := im.Root.Digest.String()
		want(t, "at first", c.manifest(t, "ann", annRepo, "1"), "served")
		c.hub.SetUser("ann", origin.User{})
		want(t, "revoked, within maxAge", c.manifest(t, "ann", annRepo, digest), "served")
		time.Sleep(ownLife.MaxAge)
		want(t, "after maxAge", c.manifest(t, "ann", annRepo, digest), "refused")
		want(t, "its blob", c.blobOutcome(t, "ann", annRepo, im.Blobs()[0].Digest), "refused")

		c.hub.SetUser("ann", users["ann"])
		time.Sleep(2 * time.Minute)
		want(t, "given back", c.manifest(t, "ann", annRepo, digest), "served")
		c.hub.Silent()
		time.Sleep(ownLife.MaxAge + time.Second)
		var got string
		if took := since(func() { got = c.manifest(t, "ann", annRepo, digest) }); got != "served" || took > 2*time.Second {
			t.Errorf("with the registry silent: %s after %s", got, took) // two requests
		}
		time.Sleep(ownLife.StaleIfError)
		if got := c.manifest(t, "ann", annRepo, digest); got == "served" {
			t.Error("served after staleIfError with the registry silent")
		}
		c.hub.Up()
		time.Sleep(time.Minute)
		want(t, "up again", c.manifest(t, "ann", annRepo, digest), "served")
	})
}
