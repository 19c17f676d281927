package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

// keyRing signs tokens as API servers do.
type keyRing struct {
	signer jose.Signer
	public jose.JSONWebKey
}

func newKey(t testing.TB, id string, alg jose.SignatureAlgorithm) keyRing {
	t.Helper()
	var private, public any
	switch alg {
	case jose.RS256:
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, public = k, &k.PublicKey
	case jose.HS256:
		private = []byte("0123456789abcdef0123456789abcdef")
		public = private
	default:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, public = k, &k.PublicKey
	}
	return keyRing{signerOf(t, id, alg, private), jose.JSONWebKey{Key: public, KeyID: id, Use: "sig", Algorithm: string(alg)}}
}

func signerOf(t testing.TB, id string, alg jose.SignatureAlgorithm, key any) jose.Signer {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// projected are the claims of a projected token of Kubernetes 1.34, with changes; nil removes one.
func projected(change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"aud": []string{"mirror"}, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "nbf": now.Unix(), "iss": issuer,
		"jti": "b2a9c0de-3f0c-4d26-9f2e-0a3a3bde2c6e", "sub": "system:serviceaccount:builds:kaniko",
		"kubernetes.io": map[string]any{
			"namespace": "builds", "node": map[string]any{"name": "worker-1", "uid": "4d9e1f8a"},
			"pod":            map[string]any{"name": "kaniko-7k2lp", "uid": "0f3b6a11"},
			"serviceaccount": map[string]any{"name": "kaniko", "uid": "c1d2"},
		},
	}
	maps.Copy(c, change)
	for k, v := range change {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func (k keyRing) token(t testing.TB, change map[string]any) string {
	t.Helper()
	b, err := json.Marshal(projected(change))
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func jwks(t testing.TB, keys ...keyRing) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, k.public)
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bearer(token string) string { return "Bearer " + token }

// By the keys of a cluster: signature, audience, issuer, times, and the name of the account.
func TestAccountsByKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, accountsByKeys) // the times of the tokens are compared with a clock that does not go on meanwhile
}

func accountsByKeys(t *testing.T) {
	rsa256, ec256, other := newKey(t, "a", jose.RS256), newKey(t, "b", jose.ES256), newKey(t, "a", jose.RS256)
	hmac := newKey(t, "c", jose.HS256)
	set, err := identity.ParseKeys(jwks(t, rsa256, ec256))
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier()
	v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{Audience: "mirror", Issuer: issuer, Keys: set})})
	good := rsa256.token(t, nil)
	parts := strings.Split(good, ".")
	// With the public key as the secret of an HMAC.
	confused := keyRing{signer: signerOf(t, "a", jose.HS256, jwks(t, rsa256))}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for _, tt := range []struct {
		name, header string
		want         client.Identity
	}{
		{"a projected token", bearer(good), "sa:builds/kaniko"},
		{"as a password", basic("kaniko", good), "sa:builds/kaniko"},
		{"by an elliptic curve", bearer(ec256.token(t, nil)), "sa:builds/kaniko"},
		{"one audience as text", bearer(rsa256.token(t, map[string]any{"aud": "mirror"})), "sa:builds/kaniko"},
		{"several audiences", bearer(rsa256.token(t, map[string]any{"aud": []string{"vault", "mirror"}})), "sa:builds/kaniko"},
		{"a clock that is behind", bearer(rsa256.token(t, map[string]any{"nbf": at(20 * time.Second), "iat": at(20 * time.Second)})), "sa:builds/kaniko"},
		{"just over", bearer(rsa256.token(t, map[string]any{"exp": at(-time.Second)})), "sa:builds/kaniko"},
		{"a dot in the name", bearer(rsa256.token(t, map[string]any{"sub": "system:serviceaccount:builds:a.b"})), "sa:builds/a.b"},

		{"another audience", bearer(rsa256.token(t, map[string]any{"aud": []string{"https://kubernetes.default.svc"}})), ""},
		{"no audience", bearer(rsa256.token(t, map[string]any{"aud": nil})), ""},
		{"another issuer", bearer(rsa256.token(t, map[string]any{"iss": "https://oidc.example"})), ""},
		{"expired", bearer(rsa256.token(t, map[string]any{"exp": at(-time.Minute)})), ""},
		{"without an end", bearer(rsa256.token(t, map[string]any{"exp": nil})), ""},
		{"not valid yet", bearer(rsa256.token(t, map[string]any{"nbf": at(time.Minute)})), ""},
		{"of a user", bearer(rsa256.token(t, map[string]any{"sub": "alice"})), ""},
		{"of a node", bearer(rsa256.token(t, map[string]any{"sub": "system:node:worker-1"})), ""},
		{"a namespace that is two", bearer(rsa256.token(t, map[string]any{"sub": "system:serviceaccount:a:b:c"})), ""},
		{"a pattern", bearer(rsa256.token(t, map[string]any{"sub": "system:serviceaccount:*:*"})), ""},
		{"a slash", bearer(rsa256.token(t, map[string]any{"sub": "system:serviceaccount:a/b:c"})), ""},
		{"another key of the same id", bearer(other.token(t, nil)), ""},
		{"no algorithm", bearer("eyJhbGciOiJub25lIn0." + parts[1] + "."), ""},
		{"a secret key", bearer(hmac.token(t, nil)), ""},
		{"the public key as a secret", bearer(confused.token(t, nil)), ""},
		{"claims of another token", bearer(parts[0] + "." + strings.Split(rsa256.token(t, map[string]any{"sub": "system:serviceaccount:a:b"}), ".")[1] + "." + parts[2]), ""},
		{"without a signature", bearer(parts[0] + "." + parts[1] + "."), ""},
		{"a huge one", bearer("eyJ" + strings.Repeat("a", 9000) + ".a.b"), ""},
	} {
		who, r := v.ask(t, tt.header, tt.name)
		if who != tt.want || (r == identity.Refused) != (tt.want == "") {
			t.Errorf("%s: %q %s, want %q", tt.name, who, r, tt.want)
		}
	}
}

// reviewer is an API server.
type reviewer struct {
	asked atomic.Int64

	mu    sync.Mutex
	users map[string]string // by token
	err   error
	wait  time.Duration
}

func (r *reviewer) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *reviewer) ReviewToken(_ context.Context, token, audience string) (user, why string, err error) {
	r.asked.Add(1)
	r.mu.Lock()
	user, err, wait := r.users[token], r.err, r.wait
	r.mu.Unlock()
	time.Sleep(wait) // in the bubble
	if audience != "mirror" || user == "" {
		return "", "[invalid bearer token]", err
	}
	return user, "", err
}

// In the cluster: an answer is remembered for 60 s, a refusal for 10 s, never past the end of the token; of requests at the same time
// one asks; a token that is not for the mirror is shown to no API server.
func TestAccountsByReview(t *testing.T) {
	t.Parallel()
	key := newKey(t, "a", jose.ES256)
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{users: make(map[string]string), wait: time.Second}
		v := newVerifier()
		v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{Audience: "mirror", Reviewer: r})})
		good, bad := key.token(t, nil), key.token(t, map[string]any{"jti": "x"})
		r.users[good] = "system:serviceaccount:builds:kaniko"
		check := func(token string, want client.Identity, result identity.Result, asked int64) {
			t.Helper()
			before := r.asked.Load()
			if who, got := v.ask(t, bearer(token), "1"); who != want || got != result {
				t.Errorf("%q %s, want %q %s", who, got, want, result)
			}
			if n := r.asked.Load() - before; n != asked {
				t.Errorf("asked %d times, want %d", n, asked)
			}
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if who, _ := v.ask(t, bearer(good), "1"); who != "sa:builds/kaniko" {
					t.Error(who)
				}
			})
		}
		all.Wait()
		if n := r.asked.Load(); n != 1 {
			t.Errorf("50 requests asked %d times", n)
		}
		time.Sleep(58 * time.Second)
		check(good, "sa:builds/kaniko", "", 0)
		r.set(func() { delete(r.users, good) }) // its pod was deleted
		time.Sleep(3 * time.Second)
		check(good, "", identity.Refused, 1)
		check(bad, "", identity.Refused, 1)
		time.Sleep(8 * time.Second)
		check(bad, "", identity.Refused, 0)
		r.set(func() { r.users[bad] = "system:serviceaccount:builds:kaniko" })
		time.Sleep(3 * time.Second)
		check(bad, "sa:builds/kaniko", "", 1)

		short := key.token(t, map[string]any{"exp": time.Now().Add(5 * time.Second).Unix()})
		r.set(func() { r.users[short] = "system:serviceaccount:builds:kaniko" })
		check(short, "sa:builds/kaniko", "", 1)
		time.Sleep(36 * time.Second) // 5 s and the leeway of 30 s
		check(short, "", identity.Refused, 0)

		for _, change := range []map[string]any{{"aud": []string{"vault"}}, {"sub": "alice"}, {"exp": 1}} {
			check(key.token(t, change), "", identity.Refused, 0)
		}
		other := key.token(t, map[string]any{"jti": "other"})
		r.set(func() { r.users[other] = "system:serviceaccount:builds:someone" })
		check(other, "", identity.Refused, 1) // the API server means another user than the token says

		r.set(func() { r.err = errors.New("connection refused") })
		down := key.token(t, map[string]any{"jti": "down"})
		check(down, "", identity.Unavailable, 1)
		check(down, "", identity.Unavailable, 1) // not remembered
		if who, note, err := v.Identify(request(t, bearer(down)), "1", true); who != "" || note == "" || err != nil {
			t.Errorf("with ns: %q %q %v", who, note, err)
		}
		r.set(func() { r.err = nil })
		// Without the keys of the cluster made-up tokens from one address cost the API server 30 questions, then one in 2 s.
		before := r.asked.Load()
		for i := range 100 {
			v.ask(t, bearer(key.token(t, map[string]any{"sub": "system:serviceaccount:a:b", "n": i})), "2")
		}
		if n := r.asked.Load() - before; n < 30 || n > 70 {
			t.Errorf("100 made-up tokens in 100 s asked %d times", n)
		}
	})
}

// forged are tokens for an account, each another one, that another key than the cluster's has signed.
func forged(t testing.TB, id string, n int) (list []string) {
	t.Helper()
	key := newKey(t, id, jose.ES256)
	for i := range n {
		list = append(list, key.token(t, map[string]any{"n": i}))
	}
	return list
}

// flood sends tokens at once, each from the address that from gives, and returns how often each result came once all have ended.
func (v *verifier) flood(t testing.TB, tokens []string, from func(i int) string) (results map[identity.Result]int, wait func()) {
	var all sync.WaitGroup
	var mu sync.Mutex
	results = make(map[identity.Result]int)
	for i, token := range tokens {
		all.Go(func() {
			who, r := v.ask(t, bearer(token), from(i))
			if who != "" {
				t.Errorf("a forged token is %s", who)
			}
			mu.Lock()
			defer mu.Unlock()
			results[r]++
		})
	}
	return results, all.Wait
}

// Forged tokens for an account, as many as one likes and from anywhere, lock out neither that account nor another one, at their own
// address neither. Where the keys of the cluster are known they cost its API server nothing.
func TestForgedTokensLockOutNoAccount(t *testing.T) {
	t.Parallel()
	key := newKey(t, "a", jose.ES256)
	for _, tt := range []struct {
		name string
		id   string // of the key that the forged tokens name
		keys bool   // the keys of the cluster can be had
		same bool   // forged tokens come from the address of the account
		most int64  // questions for forged tokens
	}{
		{"with the name of its key", "a", true, true, 0},
		{"with a made-up key", "b", true, true, 30},
		{"from everywhere", "b", true, false, 500},
		{"the keys can't be had", "a", false, false, 500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fakes := forged(t, tt.id, 500)
				r := &reviewer{users: make(map[string]string), wait: time.Second}
				v := newVerifier()
				w := &web{status: 403}
				if tt.keys {
					w.set(200, jwks(t, key))
				}
				v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{
					Audience: "mirror", Reviewer: r, Keys: identity.NewRemoteKeys(identity.KeysAt("https://api/openid/v1/jwks", w), nil),
				})})
				token := func(n string) string {
					good := key.token(t, map[string]any{"jti": n})
					r.set(func() { r.users[good] = "system:serviceaccount:builds:kaniko" })
					return good
				}
				check := func(when, good string) {
					t.Helper()
					began := time.Now()
					if who, result := v.ask(t, bearer(good), "10.0.0.1"); who != "sa:builds/kaniko" {
						t.Errorf("%s: %q %s", when, who, result)
					}
					if took := time.Since(began); took > 3*time.Second {
						t.Errorf("%s: after %s", when, took)
					}
				}
				before := token("before")
				check("before the flood", before)
				from := func(i int) string {
					if tt.same {
						return "10.0.0.1"
					}
					return fmt.Sprint("10.1.", i%5, ".1") // five clients
				}
				asked := r.asked.Load()
				results, wait := v.flood(t, fakes, from)
				time.Sleep(100 * time.Millisecond) // in the bubble: all of them ask or wait
				check("the first login of a token in the flood", token("first"))
				check("in the flood again", before)
				wait()
				if n := r.asked.Load() - asked - 1; n > tt.most {
					t.Errorf("%d questions for forged tokens, want at most %d; %v", n, tt.most, results)
				}
				check("after it", token("after"))
				time.Sleep(61 * time.Second) // the answer is no longer remembered
				_, wait = v.flood(t, fakes, func(int) string { return "10.0.0.1" })
				time.Sleep(100 * time.Millisecond)
				check("a token that was good, checked again", before)
				wait()
			})
		})
	}
}

// web answers with keys.
type web struct {
	asked atomic.Int64

	mu     sync.Mutex
	body   []byte
	status int
}

func (w *web) RoundTrip(*http.Request) (*http.Response, error) {
	w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Header: make(http.Header), Body: io.NopCloser(strings.NewReader(string(w.body)))}, nil
}

func (w *web) set(status int, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.body = status, body
}

// The keys at a URL are asked for once for all, for an unknown key at most once a minute, and anew after ten minutes; while no answer
// comes the old ones count.
func TestRemoteKeys(t *testing.T) {
	t.Parallel()
	one, two, three := newKey(t, "1", jose.ES256), newKey(t, "2", jose.ES256), newKey(t, "3", jose.ES256)
	synctest.Test(t, func(t *testing.T) {
		w := &web{status: 500}
		v := newVerifier()
		v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{
			Audience: "mirror", Issuer: issuer, Keys: identity.NewRemoteKeys(identity.KeysAt("https://oidc.example/keys", w), nil),
		})})
		n := 0
		check := func(k keyRing, result identity.Result, asked int64) {
			t.Helper()
			n++
			before := w.asked.Load()
			if _, got := v.ask(t, bearer(k.token(t, map[string]any{"n": n})), "1"); got != result {
				t.Errorf("%s, want %s", got, result)
			}
			if n := w.asked.Load() - before; n != asked {
				t.Errorf("asked %d times, want %d", n, asked)
			}
		}
		check(one, identity.Unavailable, 1)
		check(one, identity.Unavailable, 0) // not again within a minute
		w.set(200, jwks(t, one))
		time.Sleep(time.Minute)
		check(one, "", 1)
		check(one, "", 0)
		for range 20 {
			check(two, identity.Refused, 0)
		}
		w.set(200, jwks(t, one, two))
		time.Sleep(time.Minute)
		check(two, "", 1)
		for range 20 {
			check(three, identity.Refused, 0)
		}
		w.set(200, jwks(t, two))
		time.Sleep(10 * time.Minute)
		check(one, identity.Refused, 1) // its key is gone
		check(two, "", 0)
		w.set(503, nil)
		time.Sleep(time.Hour)
		check(two, "", 1)
		check(two, "", 0)
		w.set(200, []byte("<html>"))
		time.Sleep(30 * time.Hour)
		check(two, identity.Unavailable, 1)
	})
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	ec := newKey(t, "a", jose.ES256)
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it has to be refused
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		text []byte
		want bool
	}{
		"one":             {jwks(t, ec), true},
		"one of two":      {jwks(t, newKey(t, "c", jose.HS256), ec), true},
		"a secret alone":  {jwks(t, newKey(t, "c", jose.HS256)), false},
		"a short RSA key": {jwks(t, keyRing{public: jose.JSONWebKey{Key: &weak.PublicKey, KeyID: "w"}}), false},
		"for encryption":  {jwks(t, keyRing{public: jose.JSONWebKey{Key: ec.public.Key, KeyID: "e", Use: "enc"}}), false},
		"nothing":         {nil, false},
		"no keys":         {[]byte(`{"keys":[]}`), false},
		"HTML":            {[]byte("<html>"), false},
		"very many":       {[]byte(`{"keys":[` + strings.Repeat("{},", 200) + "{}]}"), false},
		"huge":            {[]byte(strings.Repeat(" ", 2<<20)), false},
	} {
		if set, err := identity.ParseKeys(tt.text); (err == nil) != tt.want || (len(set) > 0) != tt.want {
			t.Errorf("%s: %d keys, %v", name, len(set), err)
		}
	}
}

// No text brings the reading of a login down, and none of them is a service account without a signature.
func FuzzLogin(f *testing.F) {
	key := newKey(f, "a", jose.ES256)
	good := key.token(f, nil)
	for _, s := range []string{bearer(good), basic("a", good), "Bearer eyJ.a.b", "Basic Og==", "Basic %", "", "Bearer ", bearer(good[:100] + ".." + good[100:])} {
		f.Add(s)
	}
	set, err := identity.ParseKeys(jwks(f, newKey(f, "a", jose.ES256)))
	if err != nil {
		f.Fatal(err)
	}
	v := identity.New(identity.Options{})
	v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{Audience: "mirror", Issuer: issuer, Keys: set})})
	f.Fuzz(func(t *testing.T, header string) {
		r := request(t, "")
		r.Header["Authorization"] = []string{header}
		if who, _, err := v.Identify(r, "1", false); who != "" {
			t.Errorf("%q is %q, %v", header, who, err)
		}
	})
}

// Whatever claims a cluster has signed, an identity is that of one service account, written in one way, and in a token for the mirror.
func FuzzAccount(f *testing.F) {
	for _, s := range []string{
		"system:serviceaccount:builds:kaniko", "system:serviceaccount:a:b:c", "system:serviceaccount:*:*", "system:serviceaccount:a/b:c", "alice",
		"system:node:a", "system:serviceaccount:A:b", "system:serviceaccount:a:", " system:serviceaccount:a:b", "system:serviceaccount:a:b\n",
	} {
		f.Add(s, "mirror", issuer, int64(3600))
	}
	f.Add("system:serviceaccount:a:b", "vault", "https://evil.example", int64(-60))
	key := newKey(f, "a", jose.ES256)
	set, err := identity.ParseKeys(jwks(f, key))
	if err != nil {
		f.Fatal(err)
	}
	v := identity.New(identity.Options{})
	v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{Audience: "mirror", Issuer: issuer, Keys: set})})
	name := regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9.-]+$`)
	f.Fuzz(func(t *testing.T, sub, aud, iss string, life int64) {
		end := time.Now().Unix() + life%100_000
		who, _, err := v.Identify(request(t, bearer(key.token(t, map[string]any{"sub": sub, "aud": aud, "iss": iss, "exp": end}))), "1", false)
		if err != nil {
			if who != "" {
				t.Errorf("%q is %q, and refused: %v", sub, who, err)
			}
			return
		}
		kind, account := who.Kind()
		if kind != "sa" || !name.MatchString(account) || sub != "system:serviceaccount:"+strings.Replace(account, "/", ":", 1) ||
			aud != "mirror" || iss != issuer || end < time.Now().Add(-time.Minute).Unix() {
			t.Errorf("%q for %q of %q until %d is %q", sub, aud, iss, end, who)
		}
	})
}

// No set of keys brings the reader down.
func FuzzParseKeys(f *testing.F) {
	f.Add(jwks(f, newKey(f, "a", jose.ES256)))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"","e":""}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if set, err := identity.ParseKeys(text); (len(set) == 0) == (err == nil) {
			t.Errorf("%d keys, %v", len(set), err)
		}
	})
}
