package pull_test

import (
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
)

// A kubelet that checks pull secrets (KEP-2535) sends one request for a manifest for each secret that it has not seen with an image, and
// takes a 200 for the registry's word on that secret. Each row is a node with the image and the requests for further pods.
func TestKubeletProvesPullSecrets(t *testing.T) {
	t.Parallel()
	type pod struct {
		secret string // user, or user:password; empty: it has none
		want   string
		shown  int // how often its login was shown to the registry
	}
	for _, tt := range []struct {
		name, repo string
		change     func(c *chain)
		first      pod
		then       []pod
	}{
		{"the same secret again", annRepo, nil, pod{"ann", "served", 1}, []pod{{"ann", "served", 0}, {"ann", "served", 0}}},
		{"another secret with the right", bothRepo, nil, pod{"ann", "served", 1}, []pod{{"bob", "served", 1}, {"bob", "served", 0}}},
		{"another secret without it", annRepo, nil, pod{"ann", "served", 1}, []pod{{"bob", "refused", 1}, {"bob", "refused", 0}}},
		{"a wrong secret", annRepo, nil, pod{"ann", "served", 1}, []pod{{"ann:wrong", "refused", 1}}},
		{"a secret of a user that does not exist", annRepo, nil, pod{"ann", "served", 1}, []pod{{"eve", "refused", 1}}},
		{"no secret", annRepo, nil, pod{"ann", "served", 1}, []pod{{"", "login", 0}}},
		{"several secrets, the last has the right", bothRepo, nil, pod{"ann", "served", 1}, []pod{{"eve", "refused", 1}, {"ann:old", "refused", 1}, {"bob", "served", 1}}},
		{"the secret was wrong before, and another is right", annRepo, nil, pod{"ann:wrong", "refused", 1}, []pod{{"ann", "served", 1}}},
		{"an image that needs no login", openRepo, nil, pod{"", "served", 0}, []pod{{"ann", "served", 0}, {"eve", "served", 0}, {"", "served", 0}}},
		{
			"a secret that was revoked a moment ago", annRepo, func(c *chain) { c.hub.SetUser("ann", origin.User{}) },
			pod{"ann", "served", 1},
			[]pod{{"ann", "served", 0}},
		},
		{
			"a secret that was revoked before maxAge", annRepo, func(c *chain) {
				c.hub.SetUser("ann", origin.User{})
				time.Sleep(ownLife.MaxAge)
			}, pod{"ann", "served", 1}, []pod{{"ann", "refused", 1}},
		},
		{
			"a secret that lost this right before maxAge", annRepo, func(c *chain) {
				c.hub.SetUser("ann", origin.User{Password: "ann-pass"})
				time.Sleep(ownLife.MaxAge)
			}, pod{"ann", "served", 1}, []pod{{"ann", "refused", 1}, {"bob", "refused", 1}},
		},
		{
			"the registry is silent: a secret that was proven", annRepo, func(c *chain) { c.hub.Silent() },
			pod{"ann", "served", 1},
			[]pod{{"ann", "served", 0}},
		},
		{
			"the registry is silent: a secret proven before maxAge", annRepo, func(c *chain) {
				c.hub.Silent()
				time.Sleep(ownLife.MaxAge)
			}, pod{"ann", "served", 1}, []pod{{"ann", "served", -1}},
		},
		{
			"the registry is silent: a new secret", bothRepo, func(c *chain) { c.hub.Silent() },
			pod{"ann", "served", 1},
			[]pod{{"bob", "unanswered", -1}, {"ann", "served", -1}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			withOwn(t, func(t *testing.T, c *chain) {
				im := c.hub.AddImage(tt.repo, "1", origin.Image{})
				ask := func(p pod) {
					t.Helper()
					c.hub.ClearRequests()
					var err error
					took := since(func() { _, err = c.Manifest(t.Context(), as(p.secret, head(ask(tt.repo, "1")))) })
					got := outcome(err)
					if got == "served" && took > time.Second {
						t.Errorf("%s: served after %s", p.secret, took)
					}
					want(t, "with the secret "+p.secret, got, p.want)
					if n := c.shownLogins(p.secret); p.shown >= 0 && (n > 0) != (p.shown > 0) {
						t.Errorf("the login %s was shown to the registry %d times", p.secret, n)
					}
				}
				ask(tt.first)
				if tt.first.want == "served" {
					c.pullAs(t, tt.first.secret, tt.repo, im)
				}
				time.Sleep(time.Second)
				if tt.change != nil {
					tt.change(c)
				}
				for _, p := range tt.then {
					ask(p)
				}
			})
		})
	}
}

// shownLogins is how many requests to the registry and its token service have had a user's login.
func (c *chain) shownLogins(user string) (n int) {
	name, password, found := strings.Cut(user, ":")
	if !found {
		password = name + "-pass"
	}
	for _, r := range c.hub.Requests() {
		if u, p, ok := basicOf(r); ok && u == name && p == password {
			n++
		}
	}
	return n
}
