package pull_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
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
	case isTimeout(err), errors.As(err, &e) && e.Status == 0: // clients wait as long as for the headers of a registry
		return "unanswered"
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
		a.Secure, a.Who = true, "ci"
		_, err = c.Manifest(t.Context(), a)
		if e, ok := errors.AsType[*access.LoginError](err); !ok || e.Who != "ci" {
			t.Errorf("with one of the mirror's: %v", err)
		}
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

// A blob that is known by its manifest is downloaded for a login whose right does not count by a token that is newer than the request,
// which is also that of its HEAD: a login that the registry has revoked meanwhile has it send nothing.
func TestRevokedLoginDownloadsNothing(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		c.ownLogins(access.Lifetime{})
		im := c.hub.AddImage(bothRepo, "1", origin.Image{Layers: []int64{1 << 20}})
		for _, user := range []string{"ann", "bob"} {
			want(t, user, c.manifest(t, user, bothRepo, im.Root.Digest.String()), "served")
		}
		time.Sleep(time.Second)
		config, layer := im.Blobs()[0], im.Blobs()[1]
		c.hub.ClearRequests()
		want(t, "before", c.blobOutcome(t, "bob", bothRepo, config.Digest), "served")
		if asked, tokens := c.hub.Count(origin.KindBlob), c.hub.Count(origin.KindToken); asked != 2 || tokens > 1 {
			t.Errorf("%d requests and %d tokens for a blob, want a GET, a HEAD and a token", asked, tokens)
		}
		time.Sleep(time.Second)
		c.hub.SetUser("bob", origin.User{})
		want(t, "revoked", c.blobOutcome(t, "bob", bothRepo, layer.Digest), "refused")
		if n := c.hub.Bytes(layer.Digest); n != 0 {
			t.Errorf("the registry has sent %d bytes for a login that it has revoked", n)
		}
		want(t, "another login", c.blobOutcome(t, "ann", bothRepo, layer.Digest), "served")
	})
}

// A refusal looks and takes as long alike, whether the image is cached, is at the registry alone, or is nowhere: the cache is not
// looked at before the registry has answered.
func TestForbiddenLooksLikeAbsent(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		cached := c.hub.AddImage(annRepo, "1", origin.Image{Layers: []int64{1 << 20}})
		away := c.hub.AddImage("acme/away", "1", origin.Image{Layers: []int64{1 << 20}, Seed: 2})
		c.pullAs(t, "ann", annRepo, cached)
		var seen []string
		for _, tt := range []struct {
			repo string
			im   origin.Built
		}{{annRepo, cached}, {"acme/away", away}, {"acme/none", away}} {
			for i, a := range []pull.Ask{
				ask(tt.repo, "1"), head(ask(tt.repo, "1")), ask(tt.repo, tt.im.Root.Digest.String()), askBlob(tt.repo, tt.im.Blobs()[0].Digest),
				head(askBlob(tt.repo, tt.im.Blobs()[0].Digest)), askTags(tt.repo, nil),
			} {
				time.Sleep(time.Hour) // each of them as the first one
				c.hub.ClearRequests()
				var err error
				get := func() {
					switch a.Request.Kind {
					case oci.KindManifest:
						_, err = c.Manifest(t.Context(), as("bob", a))
					case oci.KindBlob:
						_, err = c.Blob(t.Context(), as("bob", a))
					default:
						_, err = c.Tags(t.Context(), as("bob", a))
					}
				}
				took := since(get)
				text := strings.ReplaceAll(outcome(err), tt.repo, "REPO")
				text += strings.ReplaceAll(err.Error(), tt.repo, "REPO") + " after " + took.String()
				if n := len(c.hub.Requests()); n == 0 {
					t.Errorf("%s, request %d: the registry was not asked", tt.repo, i)
				}
				if tt.repo == annRepo {
					seen = append(seen, text)
				} else if text != seen[i] {
					t.Errorf("%s, request %d: %s\nwhere it is cached: %s", tt.repo, i, text, seen[i])
				}
			}
		}
	})
}

// pullAs pulls an image by a login.
func (c *chain) pullAs(t *testing.T, user, repo string, im origin.Built) {
	t.Helper()
	want(t, "the tag of "+repo, c.manifest(t, user, repo, "1"), "served")
	for _, d := range append([]oci.Descriptor{im.Root}, im.Manifests...) {
		want(t, "a manifest of "+repo, c.manifest(t, user, repo, d.Digest.String()), "served")
	}
	for _, d := range im.Blobs() {
		want(t, "a blob of "+repo, c.blobOutcome(t, user, repo, d.Digest), "served")
	}
}

// A client joins a download that runs for another one only with a right of its own.
func TestOwnLoginBeforeARunningDownload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newChainOf(t, origin.Options{
			Network: &origin.Network{Buffer: 4 << 10}, Rate: 100 << 10, Auth: origin.Auth{Kind: "bearer", Users: users},
		}, func(*chain) {})
		c.ownLogins(ownLife)
		im := c.hub.AddImage(bothRepo, "1", origin.Image{Layers: []int64{1000 << 10}})
		other := c.hub.AddImage(annRepo, "1", origin.Image{Layers: []int64{1000 << 10}})
		layer := im.Blobs()[len(im.Blobs())-1]
		if other.Blobs()[len(other.Blobs())-1].Digest != layer.Digest {
			t.Fatal("the images have other layers")
		}
		want(t, "the manifest", c.manifest(t, "ann", annRepo, other.Root.Digest.String()), "served")
		done := make(chan string)
		go func() { done <- c.blobOutcome(t, "ann", annRepo, layer.Digest) }()
		time.Sleep(time.Second)
		for _, tt := range []struct{ user, repo, want string }{
			{"bob", annRepo, "refused"}, {"eve", annRepo, "refused"}, {"", annRepo, "login"}, {"eve", bothRepo, "refused"}, {"", bothRepo, "login"},
		} {
			took := since(func() {
				want(t, tt.user+" of "+tt.repo, c.blobOutcome(t, tt.user, tt.repo, layer.Digest), tt.want)
			})
			if took > 5*time.Second { // the download takes ten
				t.Errorf("%s of %s is refused after %s", tt.user, tt.repo, took)
			}
		}
		before := c.hub.Bytes(layer.Digest)
		want(t, "bob, by a repository that he may read", c.blobOutcome(t, "bob", bothRepo, layer.Digest), "served")
		want(t, "the download", <-done, "served")
		if n := c.hub.Bytes(layer.Digest); before == 0 || n > layer.Size+128<<10 {
			t.Errorf("%d bytes were sent before, %d in all, of %d", before, n, layer.Size)
		}
	})
}

// After a restart no right is remembered, and repositories that needed a login still do: with the registry silent a client without a login
// is asked for one in a moment, and one with a login gets nothing until the registry answers.
func TestOwnLoginAfterARestart(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		im := c.hub.AddImage(annRepo, "1", origin.Image{})
		c.pullAs(t, "ann", annRepo, im)
		synctest.Wait()
		c.start(t)
		c.ownLogins(ownLife)
		c.hub.Silent()
		digest := im.Root.Digest.String()
		var err error
		if took := since(func() { _, err = c.Manifest(t.Context(), as("", ask(annRepo, digest))) }); outcome(err) != "login" || took > time.Second {
			t.Errorf("without a login: %v after %s", err, took)
		}
		for _, user := range []string{"ann", "bob"} {
			if _, err = c.Manifest(t.Context(), as(user, ask(annRepo, digest))); outcome(err) != "unanswered" {
				t.Errorf("%s: %v", user, err)
			}
		}
		c.hub.Up()
		time.Sleep(time.Minute)
		want(t, "up again", c.manifest(t, "ann", annRepo, digest), "served")
		want(t, "up again, bob", c.manifest(t, "bob", annRepo, digest), "refused")
		want(t, "its blob", c.blobOutcome(t, "ann", annRepo, im.Blobs()[0].Digest), "served")
	})
}

// A repository that is closed at the registry is closed here within ten minutes; one that is opened, too.
func TestRepositoryIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Bool
		c := newChainOf(t, origin.Options{
			Network: new(origin.Network),
			Auth:    origin.Auth{Kind: "bearer", Users: users, Anonymous: true, Private: func(string) bool { return closed.Load() }},
		}, func(*chain) {})
		c.ownLogins(ownLife)
		im := c.hub.AddImage(annRepo, "1", origin.Image{})
		c.pullAs(t, "", annRepo, im)
		closed.Store(true)
		c.hub.RevokeTokens()
		time.Sleep(10*time.Minute + time.Second)
		for _, d := range im.Blobs() {
			want(t, "a blob", c.blobOutcome(t, "", annRepo, d.Digest), "login")
		}
		want(t, "by digest", c.manifest(t, "", annRepo, im.Root.Digest.String()), "login")
		want(t, "by tag", c.manifest(t, "", annRepo, "1"), "login")
		want(t, "with a login", c.manifest(t, "ann", annRepo, "1"), "served")
		want(t, "with another", c.manifest(t, "bob", annRepo, "1"), "refused")
		closed.Store(false)
		time.Sleep(10*time.Minute + time.Second)
		c.pullAs(t, "", annRepo, im)
	})
}

// What the mirror does by itself has no login: it is for what is open, and says so of the rest.
func TestOwnWorkHasNoLogin(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		im := c.hub.AddImage(annRepo, "1", origin.Image{})
		c.hub.AddImage(openRepo, "1", origin.Image{})
		c.pullAs(t, "ann", annRepo, im)
		for _, o := range []pull.FetchOptions{{}, inBackground} {
			_, err := c.Fetch(t.Context(), oci.Ref{Repo: oci.Repo{Host: hub, Name: annRepo}, Tag: "1"}, o)
			if e, ok := errors.AsType[*access.LoginError](err); !ok || !e.Background {
				t.Errorf("a closed image: %v", err)
			}
			if _, err = c.Fetch(t.Context(), oci.Ref{Repo: oci.Repo{Host: hub, Name: openRepo}, Tag: "1"}, o); err != nil {
				t.Errorf("an open one: %v", err)
			}
		}
		_, _, err := c.Refresh(t.Context(), oci.Ref{Repo: oci.Repo{Host: hub, Name: annRepo}, Tag: "1"})
		if e, ok := errors.AsType[*access.LoginError](err); !ok || !e.Background {
			t.Errorf("a refresh: %v", err)
		}
	})
}

// A registry that answers a HEAD for all content, and refuses to send it: a HEAD proves no right there.
func TestHeadsThatProveNothing(t *testing.T) {
	t.Parallel()
	c := newChainOf(t, origin.Options{Auth: origin.Auth{Kind: "basic", Users: users}}, func(c *chain) {
		c.options = func(o *upstream.Options) {
			if o.Name != hub {
				return
			}
			proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: c.hub.Host()})
			open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					r.SetBasicAuth("ann", "ann-pass")
				}
				proxy.ServeHTTP(w, r)
			}))
			t.Cleanup(open.Close)
			o.Endpoints[0].URL, _ = url.Parse(open.URL)
		}
	})
	c.ownLogins(ownLife)
	im := c.hub.AddImage(annRepo, "1", origin.Image{})
	want(t, "ann", outcome(c.getAs(t, "ann", ask(annRepo, "1"))), "served")
	for range 2 {
		for _, user := range []string{"eve", "bob"} {
			want(t, user+" by tag", outcome(c.getAs(t, user, ask(annRepo, "1"))), "refused")
			want(t, user+" by digest", outcome(c.getAs(t, user, ask(annRepo, im.Root.Digest.String()))), "refused")
			_ = c.getAs(t, user, head(ask(annRepo, im.Root.Digest.String())))
		}
		want(t, "without a login", outcome(c.getAs(t, "", ask(annRepo, im.Root.Digest.String()))), "login")
	}
	want(t, "ann by digest", outcome(c.getAs(t, "ann", ask(annRepo, im.Root.Digest.String()))), "served")
}

func (c *chain) getAs(t *testing.T, user string, a pull.Ask) error {
	t.Helper()
	m, err := c.Manifest(t.Context(), as(user, a))
	_ = m.Close()
	return err
}

// A mirror of the registry proves no right, and gets no login: the registry itself is asked.
func TestOwnLoginIsForTheRegistry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := new(origin.Network)
		c := newChainOf(t, origin.Options{Network: network, Auth: origin.Auth{Kind: "basic", Users: users}}, func(c *chain) {
			c.options = func(o *upstream.Options) {
				o.Dial = network.Dial
				if o.Name == hub {
					o.Endpoints[0].Registry = true
					o.Endpoints = append([]upstream.Endpoint{{URL: &url.URL{Scheme: "http", Host: c.ghcr.Host()}}}, o.Endpoints...)
				}
			}
		})
		c.ownLogins(ownLife)
		im := c.hub.AddImage(annRepo, "1", origin.Image{})
		c.ghcr.AddImage(annRepo, "1", origin.Image{})
		c.ghcr.SetUser("bob", origin.User{Password: "bob-pass", Reads: func(string) bool { return true }}) // there he may
		c.pullAs(t, "ann", annRepo, im)
		want(t, "bob", c.manifest(t, "bob", annRepo, "1"), "refused")
		want(t, "his blob", c.blobOutcome(t, "bob", annRepo, im.Blobs()[0].Digest), "refused")
		for _, r := range c.ghcr.Requests() {
			if r.Header.Get("Authorization") != "" {
				t.Errorf("the mirror of the registry got a login with %s %s", r.Method, r.Path)
			}
		}
	})
}

// withMembership runs a test in a bubble for both logins to which a registry shows content: the mirror's own, under rules, for which the
// user is empty, and that of a client. The options are made in the bubble.
func withMembership(t *testing.T, options func() origin.Options, test func(t *testing.T, c *chain, user string)) {
	t.Helper()
	for name, user := range map[string]string{"rules with a login": "", "clients' own logins": "ann"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options()
				o.Auth = origin.Auth{Kind: "basic", Users: users, Anonymous: user == "", Private: func(string) bool { return user != "" }}
				c := newChainOf(t, o, func(*chain) {})
				if user != "" {
					c.ownLogins(ownLife)
				} else {
					site := c.setup.Sites[hub]
					site.Login = true
					c.setup.Sites[hub] = site
					c.goBy(forAll("**"))
				}
				test(t, c, user)
			})
		})
	}
}

// Content counts as a repository's for a day after its registry has shown it to a login. Then the registry is asked again, once; that
// another repository has got the same content does not count.
func TestMembershipExpires(t *testing.T) {
	t.Parallel()
	withMembership(t, func() origin.Options { return origin.Options{Network: new(origin.Network)} }, func(t *testing.T, c *chain, user string) {
		im := c.hub.AddImage(annRepo, "1", origin.Image{Layers: []int64{1000}})
		layer := im.Blobs()[len(im.Blobs())-1]
		c.pullAs(t, user, annRepo, im)
		time.Sleep(12 * time.Hour)
		want(t, "the manifest", c.manifest(t, user, annRepo, im.Root.Digest.String()), "served")
		asked := func() int { return c.hub.CountRef(origin.KindBlob, layer.Digest.String()) }
		before := asked()
		want(t, "within a day", c.blobOutcome(t, user, annRepo, layer.Digest), "served")
		if n := asked() - before; n != 0 {
			t.Errorf("asked %d times within a day", n)
		}
		time.Sleep(13 * time.Hour)
		want(t, "the manifest", c.manifest(t, user, annRepo, im.Root.Digest.String()), "served")
		before = asked()
		for range 2 {
			want(t, "after a day", c.blobOutcome(t, user, annRepo, layer.Digest), "served")
		}
		if n := asked() - before; n != 1 {
			t.Errorf("asked %d times after a day, want 1", n)
		}

		// It is deleted from one repository, and another one, which has the same, brings it anew.
		c.hub.Delete(annRepo, layer.Digest)
		time.Sleep(25 * time.Hour)
		c.hub.AddImage(bothRepo, "1", origin.Image{Layers: []int64{1000}})
		c.pullAs(t, user, bothRepo, im)
		want(t, "the manifest", c.manifest(t, user, annRepo, im.Root.Digest.String()), "served")
		if got := c.blobOutcome(t, user, annRepo, layer.Digest); got == "served" {
			t.Error("served, and the repository no longer has it")
		}
		want(t, "by the repository that has it", c.blobOutcome(t, user, bothRepo, layer.Digest), "served")

		c.hub.Silent()
		time.Sleep(25 * time.Hour)
		if user == "" { // no right ends meanwhile
			want(t, "the registry is silent", c.blobOutcome(t, user, bothRepo, layer.Digest), "served")
		}
	})
}

// Content that is gone from the cache counts as a repository's for a day, too: after it, neither a record nor the running download of
// another repository stands for the registry's word.
func TestMembershipExpiresForWhatIsNotHere(t *testing.T) {
	t.Parallel()
	slow := func() origin.Options {
		return origin.Options{Network: &origin.Network{Buffer: 4 << 10}, Rate: 100 << 10}
	}
	withMembership(t, slow, func(t *testing.T, c *chain, user string) {
		spec := origin.Image{Layers: []int64{1000 << 10}}
		im := c.hub.AddImage(annRepo, "1", spec)
		c.hub.AddImage(bothRepo, "1", spec)
		config, layer := im.Blobs()[0].Digest, im.Blobs()[1].Digest
		c.pullAs(t, user, annRepo, im)
		c.pullAs(t, user, bothRepo, im)
		lose := func() (heads int, wait func()) { // it is gone, and the other repository brings it anew
			t.Helper()
			time.Sleep(25 * time.Hour)
			for _, repo := range []string{annRepo, bothRepo} {
				want(t, "the manifest", c.manifest(t, user, repo, im.Root.Digest.String()), "served")
			}
			if err := errors.Join(c.PurgeContent(config), c.PurgeContent(layer)); err != nil {
				t.Fatal(err)
			}
			done := make(chan string)
			go func() { done <- c.blobOutcome(t, user, bothRepo, layer) }()
			time.Sleep(time.Second)
			return c.hub.Count(origin.KindBlob, http.MethodHead), func() { want(t, "the download", <-done, "served") }
		}
		before, wait := lose()
		for range 2 {
			want(t, "joined", c.blobOutcome(t, user, annRepo, layer), "served")
		}
		if n := c.hub.Count(origin.KindBlob, http.MethodHead) - before; n != 1 {
			t.Errorf("%d HEADs by those that have joined, want one", n)
		}
		wait()

		c.hub.Delete(annRepo, config)
		c.hub.Delete(annRepo, layer)
		_, wait = lose()
		if got := c.blobOutcome(t, user, annRepo, layer); got == "served" {
			t.Error("served by the download of another repository, and its own no longer has it")
		}
		if _, err := c.Blob(t.Context(), as(user, head(askBlob(annRepo, config)))); err == nil {
			t.Error("a HEAD is answered by the record")
		}
		wait()
	})
}
