package identity_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
)

// verifier is a Verifier with a record of the logins that it has checked.
type verifier struct {
	*identity.Verifier

	mu      sync.Mutex
	results []string
}

func newVerifier() *verifier {
	v := new(verifier)
	v.Verifier = identity.New(identity.Options{Observe: func(m identity.Method, r identity.Result) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.results = append(v.results, string(m)+" "+string(r))
	}})
	return v
}

// take returns how often each result came since the last call.
func (v *verifier) take() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := make(map[string]int)
	for _, r := range v.results {
		n[r]++
	}
	v.results = nil
	return n
}

func request(t testing.TB, authorization string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

func basic(user, password string) string {
	r := &http.Request{Header: make(http.Header)}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// ask is the identity that a login has, from an address.
func (v *verifier) ask(t testing.TB, authorization, source string) (client.Identity, identity.Result) {
	t.Helper()
	who, _, err := v.Identify(request(t, authorization), source, false)
	if e, ok := errors.AsType[*identity.RefusedError](err); ok {
		return who, e.Result
	}
	if err != nil {
		t.Fatal(err)
	}
	return who, ""
}

// passwords has users whose password is their name with a 1.
func passwords(t testing.TB, users ...string) *identity.Passwords {
	t.Helper()
	var b strings.Builder
	for _, u := range users {
		fmt.Fprintf(&b, "%s:%s\n", u, hashOf(t, u+"1"))
	}
	p, err := identity.ParsePasswords([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tokens has a token for each name, with an end or without.
func tokens(t testing.TB, names ...string) (*identity.Tokens, map[string]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("tokens:\n")
	all := make(map[string]string)
	for _, name := range names {
		token, hash := identity.NewToken()
		e := identity.TokenEntry{Name: name, SHA256: hash}
		if name == "old" {
			e.Expires = "2020-01-01T00:00:00Z"
		}
		all[name] = token
		b.WriteString(e.Line())
	}
	got, err := identity.ParseTokens("t.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return got, all
}

// Each form of the header Authorization that clients send, and some that they should not.
func TestIdentify(t *testing.T) {
	t.Parallel()
	list, token := tokens(t, "ci", "old")
	v := newVerifier()
	v.Use(identity.Settings{Passwords: passwords(t, "alice", "bob"), Tokens: list})
	for _, tt := range []struct {
		name, header string
		want         client.Identity
		result       identity.Result
	}{
		{"none", "", "", ""},
		{"spaces", "  ", "", ""},
		{"a user", basic("alice", "alice1"), "alice", ""},
		{"the scheme in lower case", "basic" + strings.TrimPrefix(basic("alice", "alice1"), "Basic"), "alice", ""},
		{"a password with a colon", basic("alice", "alice1:"), "", identity.Refused},
		{"another user's password", basic("alice", "bob1"), "", identity.Refused},
		{"an unknown user", basic("carol", "carol1"), "", identity.Refused},
		{"an empty password", basic("alice", ""), "", identity.Refused},
		{"no user", basic("", "alice1"), "", identity.Refused},
		{"Podman without a login", basic("", ""), "", ""},
		{"a token", "Bearer " + token["ci"], "ci", ""},
		{"a token as the password of its name", basic("ci", token["ci"]), "ci", ""},
		{"a token as the password of a user", basic("alice", token["ci"]), "", identity.Refused},
		{"a token that has ended", "Bearer " + token["old"], "", identity.Refused},
		{"a token that has ended, as a password", basic("old", token["old"]), "", identity.Refused},
		{"a token that is cut off", "Bearer " + token["ci"][:40], "", identity.Refused},
		{"a password as a token", "Bearer alice1", "", identity.Refused},
		{"an empty token", "Bearer ", "", identity.Refused},
		{"no base64", "Basic %", "", identity.Refused},
		{"no colon", "Basic YQ==", "", identity.Refused},
		{"another scheme", "Negotiate YQ==", "", identity.Refused},
		{"a huge one", "Bearer " + strings.Repeat("a", 20_000), "", identity.Refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if who, r := v.ask(t, tt.header, tt.name); who != tt.want || r != tt.result {
				t.Errorf("%q %s, want %q %s", who, r, tt.want, tt.result)
			}
			// A request that names a registry may carry a login for that registry.
			who, note, err := v.Identify(request(t, tt.header), tt.name, true)
			if err != nil || who != tt.want || (note != "") != (tt.result != "") {
				t.Errorf("with ns: %q %q %v", who, note, err)
			}
		})
	}
}

// Without settings a login means nothing, and is not a mistake.
// A refusal says what is wrong with a login where the client can see that by itself, and of which user it is unless that may be a
// secret: the same whether the user exists or not.
func TestRefusalsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	list, token := tokens(t, "ci", "old")
	users := identity.Settings{Passwords: passwords(t, "alice"), Tokens: list}
	for _, tt := range []struct {
		name, header, want, user string
		settings                 identity.Settings
	}{
		{"a wrong password", basic("alice", "alice2"), "", "alice", users},
		{"a wrong password of an unknown user", basic("carol", "alice2"), "", "carol", users},
		{"a wrong password, without users", basic("ci", "alice2"), "", "ci", identity.Settings{Tokens: list}},
		{"a line end behind the right one", basic("alice", "alice1\n"), identity.SpaceAtEnd, "alice", users},
		{"a line end, of an unknown user", basic("carol", "carol1\r\n"), identity.SpaceAtEnd, "carol", users},
		{"a line end behind a token", basic("ci", token["ci"]+"\n"), identity.SpaceAtEnd, "ci", users},
		{"a line end behind a token, without users", basic("ci", token["ci"]+"\n"), identity.SpaceAtEnd, "ci", identity.Settings{Tokens: list}},
		{"a token with another name", basic("oauth2", token["ci"]), identity.TokenOfAnother, "oauth2", users},
		{"a token that has ended", basic("oauth2", token["old"]), identity.TokenExpired, "old", users},
		{"an unknown token", "Bearer " + token["ci"][:40], "", "", users},
		{"a token as the user", basic(token["ci"], "x"), "", "", users},
		{"a part of a token as the user", basic(token["ci"][:20], "x"), "", "", users},
		{"a password as the user", basic("correct-horse", ""), "", "", users},
		{"a long text as the user", basic(strings.Repeat("a", 33), "x"), "", "", users},
		{"a text that is not a name", basic("a b\r\n", "x"), "", "", users},
		{"no user", basic("", "x"), "the header Authorization is neither Basic nor Bearer, or is damaged", "", users},
	} {
		v := newVerifier()
		v.Use(tt.settings)
		_, _, err := v.Identify(request(t, tt.header), tt.name, false)
		e, ok := errors.AsType[*identity.RefusedError](err)
		if !ok || e.Result != identity.Refused || e.Detail != tt.want || e.User != tt.user {
			t.Errorf("%s: %v, want %q, of %q", tt.name, err, tt.want, tt.user)
		}
	}
}

func TestNoWayToLogIn(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	if who, r := v.ask(t, basic("a", "b"), "1"); who != "" || r != "" {
		t.Error(who, r)
	}
}

// A right password and a wrong one are computed once, however often and however many at a time they come; a new hash counts at once,
// and a reload that leaves the hash as it was costs nothing.
func TestPasswordsAreComputedOnce(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	p := passwords(t, "alice", "bob")
	v.Use(identity.Settings{Passwords: p})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if who, _ := v.ask(t, basic("alice", "alice1"), "1"); who != "alice" {
				t.Error(who)
			}
			if _, r := v.ask(t, basic("bob", "wrong"), "1"); r != identity.Refused {
				t.Error(r)
			}
		})
	}
	all.Wait()
	if got := v.take(); got["password accepted"] != 1 || got["password refused"] != 1 || len(got) != 2 {
		t.Error(got)
	}
	v.Use(identity.Settings{Passwords: p})
	if who, _ := v.ask(t, basic("alice", "alice1"), "1"); who != "alice" || len(v.take()) != 0 {
		t.Error(who)
	}
	changed, err := identity.ParsePasswords([]byte("alice:" + hashOf(t, "new") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	v.Use(identity.Settings{Passwords: changed})
	if who, r := v.ask(t, basic("alice", "alice1"), "1"); who != "" || r != identity.Refused {
		t.Errorf("the old password after a change: %q %s", who, r)
	}
	if who, _ := v.ask(t, basic("alice", "new"), "1"); who != "alice" {
		t.Errorf("the new one: %q", who)
	}
	v.Use(identity.Settings{Passwords: passwords(t, "bob")})
	if who, r := v.ask(t, basic("alice", "new"), "1"); who != "" || r != identity.Refused {
		t.Errorf("a user that is gone: %q %s", who, r)
	}
}

// Wrong passwords of a user at an address are limited, and come back one in half a minute. They hold up neither another user at the
// same address, nor the same user at another address or with a password that was right before.
func TestLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier()
		v.Use(identity.Settings{Passwords: passwords(t, "alice", "bob", "carol")})
		if who, _ := v.ask(t, basic("alice", "alice1"), "1"); who != "alice" {
			t.Fatal(who)
		}
		guess := func(user, source string, n int) (checked int) {
			for i := range n {
				_, r := v.ask(t, basic(user, fmt.Sprint("guess-", user, source, i, time.Now())), source)
				if r == identity.Refused {
					checked++
				} else if r != identity.Limited {
					t.Fatal(r)
				}
			}
			return checked
		}
		if n := guess("alice", "1", 20); n != 5 {
			t.Errorf("%d of 20 guesses are checked, want 5", n)
		}
		if n := guess("nemo", "1", 20); n != 5 {
			t.Errorf("of an unknown user %d, want 5: else users that exist could be told", n)
		}
		if who, _ := v.ask(t, basic("alice", "alice1"), "1"); who != "alice" {
			t.Error("a password that was right before is refused")
		}
		if who, _ := v.ask(t, basic("bob", "bob1"), "1"); who != "bob" {
			t.Error("another user at the same address is refused")
		}
		if who, _ := v.ask(t, basic("alice", "alice1"), "2"); who != "alice" {
			t.Error("the user is refused at another address")
		}
		// The password is known to be right; where the guesses are used up it is not told from the wrong ones.
		if n := guess("alice", "4", 20); n != 5 {
			t.Errorf("%d of 20 guesses at a further address are checked, want 5", n)
		}
		if who, r := v.ask(t, basic("alice", "alice1"), "4"); who != "" || r != identity.Limited {
			t.Errorf("a right guess after too many wrong ones: %q %s", who, r)
		}
		time.Sleep(time.Minute) // in the bubble
		if n := guess("alice", "1", 5); n != 2 {
			t.Errorf("a minute later %d are checked, want 2", n)
		}
		// An address with many wrong passwords still checks the first one of another user.
		for i := range 100 {
			guess(fmt.Sprint("user-", i), "3", 5)
		}
		if who, _ := v.ask(t, basic("carol", "carol1"), "3"); who != "carol" {
			t.Error("a right login at an address with many wrong ones is refused")
		}
		if n := guess("someone", "3", 5); n != 1 {
			t.Errorf("%d of an unknown user there, want 1", n)
		}
		// Wrong passwords from everywhere: those that have logged in before still can.
		n := 0
		for i := range 100 {
			n += guess("bob", fmt.Sprint("10.0.0.", i), 3)
		}
		if n < 45 || n > 55 {
			t.Errorf("%d guesses from 100 addresses are checked, want about 50", n)
		}
		if who, r := v.ask(t, basic("bob", "bob1"), "1"); who != "bob" {
			t.Errorf("where the user has logged in before: %s", r)
		}
	})
}

// A flood of wrong logins at an address, for made-up users or for users that exist, holds up the first login of another user there by
// a moment, and made-up users cost next to nothing. All of them look alike.
func TestFloodAtOneAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		users int           // that exist, and of which the attacker knows the names
		most  time.Duration // that the login waits
	}{
		{"made-up users", 0, time.Second},
		{"four users that exist", 4, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names := []string{"alice", "bob"}
			for i := range tt.users {
				names = append(names, fmt.Sprint("user-", i))
			}
			synctest.Test(t, func(t *testing.T) {
				list := passwords(t, names...)
				compared := list.Slow(500 * time.Millisecond)
				v := newVerifier()
				v.Use(identity.Settings{Passwords: list})
				if who, _ := v.ask(t, basic("bob", "bob1"), "1"); who != "bob" {
					t.Fatal(who)
				}
				var all sync.WaitGroup
				for i := range 1000 {
					user := fmt.Sprint("made-up-", i)
					if tt.users > 0 {
						user = fmt.Sprint("user-", i%tt.users)
					}
					all.Go(func() {
						if who, r := v.ask(t, basic(user, fmt.Sprint("guess", i)), "1"); who != "" || r == "" {
							t.Errorf("%s is %q", user, who)
						}
					})
				}
				time.Sleep(time.Millisecond) // in the bubble: all of them are checked or wait
				before, began := compared.Load(), time.Now()
				if who, r := v.ask(t, basic("alice", "alice1"), "1"); who != "alice" {
					t.Errorf("the first login of another user: %q %s", who, r)
				}
				if took := time.Since(began); took > tt.most {
					t.Errorf("it waited for %s", took)
				}
				if who, _ := v.ask(t, basic("bob", "bob1"), "1"); who != "bob" {
					t.Error("a login that was right before is refused")
				}
				all.Wait()
				// Each that exists has five tries; of the made-up ones one is compared, to measure the time.
				if n := compared.Load() - before - 1; n > int64(5*tt.users+1) {
					t.Errorf("%d comparisons", n)
				}
			})
		})
	}
}

// An unknown user takes as long as a known one, also where the time is not measured anew.
func TestUnknownUsersTakeAsLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		list := passwords(t, "alice")
		list.Slow(300 * time.Millisecond)
		v := newVerifier()
		v.Use(identity.Settings{Passwords: list})
		for i := range 20 {
			for _, user := range []string{"alice", fmt.Sprint("made-up-", i)} {
				began := time.Now()
				if _, r := v.ask(t, basic(user, fmt.Sprint("wrong", i)), fmt.Sprint("address-", i)); r != identity.Refused {
					t.Fatal(r)
				}
				if took := time.Since(began); took != 300*time.Millisecond {
					t.Errorf("%s took %s", user, took)
				}
			}
		}
	})
}

// One client can try a password with so many users that exist, and no more; made-up names don't use that up.
func TestOneTryForEachUser(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprint("user-", i))
	}
	synctest.Test(t, func(t *testing.T) {
		list := passwords(t, names...)
		v := newVerifier()
		v.Use(identity.Settings{Passwords: list})
		guess := func(prefix string) (checked int) {
			for i := range 200 {
				if _, r := v.ask(t, basic(fmt.Sprint(prefix, i), "Winter2026"), "1"); r == identity.Refused {
					checked++
				}
			}
			return checked
		}
		if n := guess("made-up-"); n != 200 {
			t.Errorf("%d of 200 made-up users are answered as wrong", n)
		}
		if n := guess("user-"); n < 100 || n > 130 {
			t.Errorf("%d of 200 users are tried from one address, want about 100", n)
		}
		if _, r := v.ask(t, basic("made-up-x", "Winter2026"), "1"); r != identity.Limited {
			t.Errorf("a made-up user is told from one that exists: %s", r)
		}
		if who, r := v.ask(t, basic("user-150", "user-1501"), "2"); who == "" {
			t.Errorf("at another address: %s", r)
		}
	})
}

// Made-up users and addresses leave no more than a bounded number of counts, and lock out no user.
func TestMadeUpUsers(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	v.Use(identity.Settings{Passwords: passwords(t, "alice")})
	for i := range 100_000 {
		v.Try(fmt.Sprint("user-", i), fmt.Sprint("10.", i>>16, ".", i>>8&255, ".", i&255))
		v.Try("alice", fmt.Sprint("11.", i>>16, ".", i>>8&255, ".", i&255))
	}
	if n := v.Held(); n > identity.MaxHeld {
		t.Errorf("%d entries", n)
	}
	if !v.Try("bob", "10.0.0.1") {
		t.Error("another user is not checked")
	}
}

// Only a login that is unknown to the mirror, its user too, may be shown to a registry.
func TestIdentifyBeside(t *testing.T) {
	t.Parallel()
	list, token := tokens(t, "ci", "old")
	jwt := "eyJhbGciOiJub25lIn0.e30.c2ln"
	for _, tt := range []struct {
		name, header string
		want         client.Identity
		foreign      bool
		result       identity.Result
	}{
		{"none", "", "", false, ""},
		{"one of the mirror's", basic("alice", "alice1"), "alice", false, ""},
		{"a token of the mirror's", basic("ci", token["ci"]), "ci", false, ""},
		{"one of a registry", basic("robot", "pass"), "", true, ""},
		{"a wrong password for the mirror", basic("alice", "pass"), "", false, identity.Refused},
		{"a token of the mirror's beside another user", basic("robot", token["ci"]), "", false, identity.Refused},
		{"one that has expired", basic("robot", token["old"]), "", false, identity.Refused},
		{"a bearer token of the mirror's", "Bearer " + token["ci"], "ci", false, ""},
		{"another bearer token", "Bearer abc", "", false, ""},
		{"a header that can't be read", "Basic ???", "", false, ""},
		{"a JWT, where there are no service accounts", basic("robot", jwt), "", true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier()
			v.Use(identity.Settings{Passwords: passwords(t, "alice", "bob"), Tokens: list})
			who, foreign, _, err := v.IdentifyBeside(request(t, tt.header), "192.0.2.1")
			result := identity.Result("")
			if e, ok := errors.AsType[*identity.RefusedError](err); ok {
				result = e.Result
			}
			if who != tt.want || foreign != tt.foreign || result != tt.result {
				t.Errorf("%q, foreign %v, %v", who, foreign, err)
			}
		})
	}
	none := newVerifier() // a mirror without logins of its own
	if _, foreign, _, err := none.IdentifyBeside(request(t, basic("robot", "pass")), "192.0.2.1"); !foreign || err != nil {
		t.Errorf("without logins of the mirror: %v, %v", foreign, err)
	}
}
