package access_test

import (
	"fmt"
	"hash"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/oci"
)

// by writes a login for a key.
func by(text string) func(hash.Hash) {
	return func(h hash.Hash) { _, _ = h.Write([]byte(text)) }
}

// A right is for one login at one upstream, as it is set up, and for one repository or one blob; and for a time.
func TestGrants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := access.NewGrants()
		life := access.Lifetime{MaxAge: 10 * time.Minute, StaleIfError: time.Hour}
		login := g.Login(1, by("ann"))
		right := g.Right(login, acme, "")
		if got := g.Standing(right, life); got != access.Unproven {
			t.Errorf("before: %v", got)
		}
		g.Prove(login, right)
		for name, other := range map[string]access.Key{
			"another login":      g.Right(g.Login(1, by("bob")), acme, ""),
			"another upstream":   g.Right(g.Login(2, by("ann")), acme, ""),
			"another repository": g.Right(login, other, ""),
			"a blob":             g.Right(login, acme, "sha256:a"),
			"another process":    access.NewGrants().Right(access.NewGrants().Login(1, by("ann")), acme, ""),
		} {
			if g.Standing(other, life) != access.Unproven {
				t.Errorf("%s has the right", name)
			}
		}
		for _, tt := range []struct {
			sleep time.Duration
			want  access.Standing
		}{
			{0, access.Proven},
			{life.MaxAge - 1, access.Proven},
			{1, access.Stale},
			{life.StaleIfError - 1, access.Stale},
			{1, access.Unproven},
		} {
			time.Sleep(tt.sleep)
			if got := g.Standing(right, life); got != tt.want {
				t.Errorf("%s later: %v, want %v", tt.sleep, got, tt.want)
			}
		}
		g.Prove(login, right)
		g.Revoke(right)
		if g.Standing(right, life) != access.Unproven {
			t.Error("revoked, and it counts")
		}
		g.Prove(login, right)
		if g.Standing(right, access.Lifetime{}) != access.Unproven {
			t.Error("it counts without any lifetime")
		}
	})
}

// What has been refused is not asked for again for a moment; wrong logins are not shown to the registry for longer, and after some of
// a user no other one is, so that an account is not locked by guesses that the mirror passes on. A login that was right stays free.
func TestWrongLogins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := access.NewGrants()
		try := func(user, password, source string) access.Try {
			return access.Try{Login: g.Login(1, by(user+":"+password)), Site: 1, User: user, Source: source}
		}
		may := func(what string, x access.Try, question string, want bool) {
			t.Helper()
			if got := g.MayAsk(x, question); got != want {
				t.Errorf("%s: may be asked: %v", what, got)
			}
		}
		right := try("ann", "right", "a")
		g.Prove(right.Login, g.Right(right.Login, acme, ""))
		g.Deny(right, "other", false)
		may("the same question", right, "other", false)
		may("another question", right, "more", true)
		time.Sleep(10 * time.Second)
		may("the same question, later", right, "other", true)
		g.Deny(right, "other", true) // a registry with passwords says the same of a right that is missing
		may("another question of a login that was right", right, "more", true)

		for i := range 5 {
			x := try("ann", fmt.Sprint(i), "a")
			may("a wrong login", x, "q", true)
			g.Deny(x, "q", true)
			g.Deny(x, "q2", true) // the same one counts once
			may("it again, for something else", x, "other", false)
		}
		may("one more, from there", try("ann", "5", "a"), "q", false)
		may("one more, from elsewhere", try("ann", "5", "b"), "q", true)
		may("another user, from there", try("bob", "5", "a"), "q", true)
		may("the right one", right, "q", true)

		for i := range 3 { // more of what it may not read, at a registry that says 401 of that
			g.Deny(right, fmt.Sprint("repository ", i), true)
			may("the right one, refused for something else", right, "q", true)
		}
		g.Prove(right.Login, g.Right(right.Login, oci.Repo{Host: "a.test", Name: "acme/app"}, ""))
		for i := range 5 {
			may("a login that was right, after a change of its password", right, fmt.Sprint("tag ", i), true)
			g.Deny(right, fmt.Sprint("tag ", i), true)
		}
		may("a login that the registry has called wrong five times", right, "tag 5", false)
		time.Sleep(5 * time.Minute)
		may("later", try("ann", "5", "a"), "q", true)
		may("a wrong one, later", try("ann", "0", "a"), "q", true)

		asked := 0
		for i := range 100 { // from anywhere
			x := try("eve", fmt.Sprint(i), fmt.Sprint("host", i))
			if g.MayAsk(x, "q") {
				asked++
				g.Deny(x, "q", true)
			}
		}
		if asked != 30 {
			t.Errorf("%d guesses for one user were shown to the registry, want 30", asked)
		}
	})
}

// However many logins come, what is remembered of them has its bounds.
func TestGrantsAreBounded(t *testing.T) {
	t.Parallel()
	g := access.NewGrants()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	repo := oci.Repo{Host: "docker.io", Name: "acme/app"}
	const many = 100_000
	life := access.Lifetime{MaxAge: time.Hour}
	for i := range many {
		x := access.Try{Login: g.Login(1, by(fmt.Sprint("user", i))), Site: 1, User: fmt.Sprint("user", i), Source: fmt.Sprint(i)}
		g.Prove(x.Login, g.Right(x.Login, repo, ""))
		g.Deny(access.Try{Login: g.Login(2, by(fmt.Sprint(i))), Site: 2, User: fmt.Sprint(i), Source: fmt.Sprint(i)}, "q", true)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 48<<20 {
		t.Errorf("%d MiB after %d logins", used>>20, many)
	}
	standing := func(i int) access.Standing {
		return g.Standing(g.Right(g.Login(1, by(fmt.Sprint("user", i))), repo, ""), life)
	}
	if standing(0) != access.Unproven || standing(many-1) != access.Proven {
		t.Errorf("the first: %v, the last: %v", standing(0), standing(many-1))
	}
}
