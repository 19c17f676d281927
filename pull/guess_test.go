package pull_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// guesses are the wrong passwords of a user that the registry or its token service has been shown, and how often in all.
func (c *chain) guesses(user string) (different, all int) {
	seen := make(map[string]bool)
	for _, r := range c.hub.Requests() {
		if name, password, ok := basicOf(r); ok && name == user && password != user+"-pass" {
			seen[password] = true
			all++
		}
	}
	return len(seen), all
}

// A registry locks an account after some wrong passwords. So however a client sends them, at once or one after the other, and whatever
// it asks for, five of a user at an address are shown to it, each once.
func TestGuessesAreBounded(t *testing.T) {
	t.Parallel()
	d := digest.FromString("any")
	ways := map[string]func(*chain, *testing.T, string) string{
		"tag": func(c *chain, t *testing.T, login string) string { return c.manifest(t, login, annRepo, "1") },
		"digest": func(c *chain, t *testing.T, login string) string {
			return c.manifest(t, login, annRepo, d.String())
		},
		"blob": func(c *chain, t *testing.T, login string) string { return c.blobOutcome(t, login, annRepo, d) },
		"blob that is cached": func(c *chain, t *testing.T, login string) string {
			return c.blobOutcome(t, login, annRepo, c.hub.AddImage(annRepo, "1", origin.Image{}).Blobs()[0].Digest)
		},
		"list of tags": func(c *chain, t *testing.T, login string) string {
			_, err := c.Tags(t.Context(), as(login, askTags(annRepo, nil)))
			return outcome(err)
		},
		"referrers": func(c *chain, t *testing.T, login string) string {
			_, err := c.Referrers(t.Context(), as(login, pull.Ask{Request: oci.Request{Kind: oci.KindReferrers, Name: annRepo, Digest: d}}))
			return outcome(err)
		},
	}
	for name, guess := range ways {
		for _, parallel := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, at once %v", name, parallel), func(t *testing.T) {
				t.Parallel()
				withOwn(t, func(t *testing.T, c *chain) {
					c.hub.AddImage(annRepo, "1", origin.Image{})
					want(t, "ann", c.manifest(t, "ann", annRepo, "1"), "served")
					var all sync.WaitGroup
					for i := range 40 {
						one := func() {
							if got := guess(c, t, fmt.Sprintf("ann:guess-%d", i)); got != "refused" {
								t.Errorf("guess %d: %s", i, got)
							}
						}
						if parallel {
							all.Go(one)
						} else {
							one()
						}
					}
					all.Wait()
					if n, shown := c.guesses("ann"); n != 5 || shown != 5 {
						t.Errorf("the registry was shown %d wrong passwords, %d times in all; want 5, each once", n, shown)
					}
					want(t, "ann after it", c.manifest(t, "ann", annRepo, "1"), "served")
				})
			})
		}
	}
}

// One wrong login is shown once, however many questions come with it at once; and a right one that comes among them is not refused.
func TestOneGuessIsShownOnce(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		c.hub.AddImage(annRepo, "1", origin.Image{})
		want(t, "without a login", c.manifest(t, "", annRepo, "1"), "login")
		var all sync.WaitGroup
		for i := range 30 {
			all.Go(func() {
				want(t, "a wrong login", c.manifest(t, "ann:wrong", annRepo, fmt.Sprint("none", i)), "refused")
			})
		}
		for range 5 {
			all.Go(func() { want(t, "the right login", c.manifest(t, "ann", annRepo, "1"), "served") })
		}
		all.Wait()
		if _, shown := c.guesses("ann"); shown != 1 {
			t.Errorf("the wrong login was shown %d times", shown)
		}
		time.Sleep(time.Minute + time.Second)
		want(t, "the wrong login, later", c.manifest(t, "ann:wrong", annRepo, "1"), "refused")
		if _, shown := c.guesses("ann"); shown != 2 {
			t.Errorf("a minute later it was shown %d times in all", shown)
		}
	})
}

// Registries take a name in capitals for the same user. So guesses for it count together.
func TestGuessesInCapitals(t *testing.T) {
	t.Parallel()
	withOwn(t, func(t *testing.T, c *chain) {
		c.hub.AddImage(annRepo, "1", origin.Image{})
		want(t, "without a login", c.manifest(t, "", annRepo, "1"), "login")
		n := 0
		for _, user := range []string{"ann", "Ann", "aNn", "ANN", " ann"} {
			for i := range 4 {
				_ = c.manifest(t, fmt.Sprintf("%s:guess-%d", user, i), annRepo, "1")
			}
			different, _ := c.guesses(user)
			n += different
		}
		if n != 5 {
			t.Errorf("the registry was shown %d wrong passwords for one user", n)
		}
	})
}
