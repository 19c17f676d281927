package admin_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/authority"
)

// keyring has tokens and certificates of operators, by their names.
type keyring struct {
	admin.Keys
	tokens map[string]string
	chains map[string]*tls.ConnectionState
}

// theShared is the token of admin.tokenFile.
const theShared = "s3cret"

// newKeyring makes the keys of operators with rights.
func newKeyring(t *testing.T, rights ...access.OperatorRule) keyring {
	t.Helper()
	k := keyring{
		Keys:   admin.Keys{Token: theShared, Rights: access.NewOperators(rights...)},
		tokens: make(map[string]string), chains: make(map[string]*tls.ConnectionState),
	}
	now := time.Now()
	a, ca, err := authority.New("operators", now)
	if err != nil {
		t.Fatal(err)
	}
	if k.Certificates, err = identity.ParseOperatorCertificates(ca.Cert, nil); err != nil {
		t.Fatal(err)
	}
	file := "tokens:\n"
	for _, name := range []string{"reader", "operator", "unnamed", "expired", "acme-reader", "acme-operator"} {
		token, hash := identity.NewToken()
		k.tokens[name] = token
		entry := identity.TokenEntry{Name: name, SHA256: hash}
		if name == "expired" {
			entry.Name, entry.Expires = "operator", "2020-01-01T00:00:00Z"
		}
		file += entry.Line()
		pair, err := a.Operator(name, now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		k.chains[name] = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
	}
	if k.Tokens, err = identity.ParseTokens("operators.yaml", []byte(file)); err != nil {
		t.Fatal(err)
	}
	return k
}

// someRights are those of the operators of a keyring. One is named by none.
var someRights = []access.OperatorRule{
	{Who: []string{"read*"}, May: access.Read}, {Who: []string{"operator"}, May: access.Operate},
}

// as sends a request with the key of an operator: "" none, "wrong" an unknown token, "shared" that of tokenFile, NAME its token,
// NAME with a certificate its certificate.
func (k keyring) as(t *testing.T, h http.Handler, operator, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Host = "localhost"
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	name, byCertificate := strings.CutSuffix(operator, " with a certificate")
	token := k.tokens[name]
	switch {
	case byCertificate:
		r.TLS, token = k.chains[name], ""
	case operator == "wrong":
		token = theShared + "x"
	case operator == "shared":
		token = theShared
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// rightOf are the rights of all routes, by METHOD PATH. A route without one fails the test.
func rightOf(t *testing.T, h http.Handler) map[string]admin.Right {
	t.Helper()
	all := make(map[string]admin.Right)
	err := chi.Walk(h.(chi.Routes), func(method, route string, endpoint http.Handler, _ ...func(http.Handler) http.Handler) error {
		named, ok := endpoint.(interface{ Right() admin.Right })
		if !ok || named.Right().String() == "" {
			t.Errorf("%s %s names no right: add it with router.add, and a right", method, route)
			return nil
		}
		all[method+" "+route] = named.Right()
		return nil
	})
	if err != nil || len(all) < 3 {
		t.Fatalf("%d routes, %v", len(all), err)
	}
	return all
}

// Each route names its right, and the document says the same one.
func TestEveryRouteNamesItsRight(t *testing.T) {
	t.Parallel()
	h := everything()
	doc, _ := described(t, h)
	told := make(map[string]string)
	for path, methods := range doc.Paths {
		for method, op := range methods {
			right := ""
			switch s := op.Security; {
			case s == nil:
			case len(s) == 0:
				right = "open"
			case len(s) == 2 && len(s[0]["token"]) == 1 && slices.Equal(s[0]["token"], s[1]["certificate"]):
				right = s[0]["token"][0]
			}
			told[strings.ToUpper(method)+" "+path] = right
		}
	}
	for route, right := range rightOf(t, h) {
		want := told[route]
		if strings.HasPrefix(route, "GET /debug/pprof/") {
			want = "operate-all"
		}
		if right.String() != want {
			t.Errorf("%s requires %s, and the document says %q", route, right, want)
		}
	}
	for route, right := range rightOf(t, admin.NewMetrics(admin.Options{Metrics: http.NotFoundHandler()})) {
		if right != admin.Open {
			t.Errorf("metrics alone: %s requires %s", route, right)
		}
	}
}

// Each route, on loopback and off it, answers the callers that have its right, and no other.
func TestRights(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, someRights...)
	for _, loopback := range []bool{true, false} {
		o := everythingOptions()
		o.Loopback, o.Keys = loopback, func() admin.Keys { return k.Keys }
		h := admin.New(o)
		for route, right := range rightOf(t, h) {
			method, path, _ := strings.Cut(route, " ")
			path = strings.ReplaceAll(path, "*", "goroutine")
			reads := right == admin.Read || right == admin.ReadAll
			for operator, want := range map[string]int{
				"": 401, "wrong": 401, "expired": 401, "unnamed": 403, "unnamed with a certificate": 403,
				"reader": 403, "reader with a certificate": 403, "operator": 0, "operator with a certificate": 0, "shared": 0,
			} {
				if right == admin.Open || reads && strings.HasPrefix(operator, "reader") {
					want = 0
				}
				w := k.as(t, gone(h), operator, method, path, "{}")
				refused := w.Code == 401 || w.Code == 403
				if refused != (want != 0) || refused && w.Code != want {
					t.Errorf("%s as %q, loopback %v: %d, want %d: %s", route, operator, loopback, w.Code, want, w.Body)
				}
				if refused && (w.Header().Get("Content-Type") != "application/problem+json" || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "")) {
					t.Errorf("%s as %q: %v", route, operator, w.Header())
				}
			}
		}
	}
}

// Without keys everything is open on loopback, and off it nothing but health and pages.
func TestWithoutKeys(t *testing.T) {
	t.Parallel()
	for _, loopback := range []bool{true, false} {
		o := everythingOptions()
		o.Loopback = loopback
		for name, keys := range map[string]func() admin.Keys{"nil": nil, "none": func() admin.Keys { return admin.Keys{} }} {
			o.Keys = keys
			h := admin.New(o)
			for route, right := range rightOf(t, h) {
				method, path, _ := strings.Cut(route, " ")
				for _, operator := range []string{"", "wrong"} {
					w := keyring{}.as(t, gone(h), operator, method, strings.ReplaceAll(path, "*", "goroutine"), "{}")
					if open := right == admin.Open || loopback; (w.Code == 401) == open || w.Code == 403 {
						t.Errorf("%s, loopback %v, keys %s: %d", route, loopback, name, w.Code)
					}
				}
			}
		}
	}
}

// A wrong token is refused beside a certificate that would do.
func TestATokenCountsBeforeACertificate(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, someRights...)
	o := everythingOptions()
	o.Keys = func() admin.Keys { return k.Keys }
	for header, want := range map[string]int{
		"": 200, "Bearer " + k.tokens["operator"]: 200, "bearer " + theShared: 200, "Bearer " + k.tokens["unnamed"]: 403, "Bearer nonsense": 401,
		"Bearer": 401, "Bearer ": 401, "Basic czNjcmV0OnMzY3JldA==": 401, theShared: 401,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/pulls", nil)
		r.TLS = k.chains["operator"]
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		admin.New(o).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d: %s", header, w.Code, want, w.Body)
		}
	}
}

// Each change leaves one line with the operator's name and address, and what was changed; reading leaves none. A request without the
// right leaves a line, too.
func TestEveryChangeIsLogged(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, someRights...)
	changes := map[string]struct{ path, body, event string }{
		"POST /api/v1/upstreams/reset": {"", `{"upstream":"docker.io"}`, `"upstream reset"`},
		"POST /api/v1/tags/refresh":    {"", `{"image":"acme/app:v1"}`, `"tag refreshed"`},
		"PUT /api/v1/pins":             {"", `{"image":"acme/app:v1","digest":"` + sum2 + `"}`, `"tag pinned"`},
		"DELETE /api/v1/pins":          {"/api/v1/pins?image=acme/app:v1", "", `"tag unpinned"`},
		"POST /api/v1/purge":           {"", `{"image":"acme/app:v1"}`, `"image purged"`},
		"POST /api/v1/warm":            {"", `{"images":["acme/app:v1"]}`, `"warm-up requested"`},
		"DELETE /api/v1/warm/{id}":     {"/api/v1/warm/3f9c2a7b", "", `"warm-up cancelled"`},
		"POST /api/v1/reload":          {"", "", `"configuration reloaded by an operator"`},
	}
	for route, right := range rightOf(t, everything()) {
		method, path, _ := strings.Cut(route, " ")
		if strings.HasPrefix(path, "/debug/") {
			continue
		}
		var log bytes.Buffer
		o := everythingOptions()
		o.Log, o.Keys = slog.New(slog.NewTextHandler(&log, nil)), func() admin.Keys { return k.Keys }
		c, changing := changes[route]
		if operates := right == admin.Operate || right == admin.OperateAll; operates != changing {
			t.Errorf("%s requires %s: add it to the changes of this test", route, right)
			continue
		}
		if c.path != "" {
			path = c.path
		}
		for operator, name := range map[string]string{"operator": "operator", "shared": "(admin.tokenFile)", "operator with a certificate": "operator"} {
			log.Reset()
			o.Warm = newWarmer() // whose first job is new
			w := k.as(t, ended(admin.New(o), !changing), operator, method, path, c.body)
			want := ""
			if changing {
				want = fmt.Sprintf("level=INFO msg=%s operator=%s client=192.0.2.1:1234", c.event, name)
			}
			got := log.String()
			if changing && w.Code/100 != 2 || strings.Count(got, "\n") != strings.Count(want, "msg=") || !strings.Contains(got, want) {
				t.Errorf("%s as %s: %d, log %q, want %q", route, operator, w.Code, got, want)
			}
		}
		log.Reset()
		k.as(t, ended(admin.New(o), true), "unnamed", method, path, c.body)
		if right != admin.Open && !strings.Contains(log.String(), `msg="admin request refused" path=`+strings.Split(path, "?")[0]+` client=192.0.2.1:1234 operator=unnamed`) {
			t.Errorf("%s refused: log %q", route, log.String())
		}
	}
}

// The log says once in an hour that the list of the operators' revoked certificates has ended, whatever callers show.
func TestOutdatedListOfOperators(t *testing.T) {
	t.Parallel()
	k, now := newKeyring(t, someRights...), time.Now()
	_, ca, err := authority.New("operators", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: now.Add(-time.Hour),
	}, pair.Leaf, pair.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	if k.Certificates, err = identity.ParseOperatorCertificates(ca.Cert, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl})); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := everythingOptions()
	o.Log, o.Keys = slog.New(slog.NewTextHandler(&log, nil)), func() admin.Keys { return k.Keys }
	h := admin.New(o)
	for _, operator := range []string{"reader", "operator", ""} {
		k.as(t, h, operator, http.MethodGet, "/api/v1/upstreams", "")
	}
	if n := strings.Count(log.String(), "list of revoked certificates is outdated"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

// A pin has the name of the operator that set it. A caller without a name leaves none.
func TestPinNamesItsOperator(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, someRights...)
	for operator, want := range map[string]string{
		"operator": `"by":"api","operator":"operator"}`, "operator with a certificate": `"by":"api","operator":"operator"}`, "shared": `"by":"api"}`,
	} {
		l := newLedger()
		h := admin.New(admin.Options{Tags: l, Keys: func() admin.Keys { return k.Keys }})
		set := k.as(t, h, operator, "PUT", "/api/v1/pins", `{"image":"acme/app:v1","digest":"`+sum2+`"}`)
		l.pins = l.set // as they are listed then
		listed := k.as(t, h, "reader", "GET", "/api/v1/pins", "")
		for _, w := range []*httptest.ResponseRecorder{set, listed} {
			if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("as %s: %d %s, want %s", operator, w.Code, w.Body, want)
			}
		}
	}
	h := admin.New(admin.Options{Tags: newLedger(), Loopback: true})
	if w := (keyring{}).as(t, h, "", "PUT", "/api/v1/pins", `{"image":"acme/app:v1","digest":"`+sum2+`"}`); !strings.Contains(w.Body.String(), `"by":"api"}`) {
		t.Errorf("on loopback: %s", w.Body)
	}
}

// ended serves requests whose clients have left, where that is wanted.
func ended(h http.Handler, left bool) http.Handler {
	if left {
		return gone(h)
	}
	return h
}

// GHSA-78cx-cfhm-rgmx, of another registry: a login was enough to list and revoke others' tokens, and to make one with more rights.
// Here each route asks for a right beyond the login, no route makes or shows tokens, and for a caller without the right an id that
// there is and one that there is not look alike.
func TestGHSA78cxCfhmRgmxALoginIsNotARight(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, someRights...)
	o := everythingOptions()
	o.Keys = func() admin.Keys { return k.Keys }
	h := admin.New(o)
	for route, right := range rightOf(t, h) {
		if right == admin.Open {
			continue
		}
		method, path, _ := strings.Cut(route, " ")
		for _, word := range []string{"token", "operator", "user", "login", "key"} {
			if strings.Contains(path, word) {
				t.Errorf("%s: rights are given by the configuration alone", route)
			}
		}
		if w := k.as(t, gone(h), "unnamed", method, path, "{}"); w.Code != 403 {
			t.Errorf("%s by a login without a right: %d", route, w.Code)
		}
		body := k.as(t, gone(h), "operator", method, path, "{}").Body.String()
		for name, token := range k.tokens {
			if strings.Contains(body, token) {
				t.Errorf("%s shows the token of %s", route, name)
			}
		}
	}
	for _, operator := range []string{"", "wrong", "unnamed", "reader"} {
		there, absent := k.as(t, h, operator, "DELETE", "/api/v1/warm/3f9c2a7b", ""), k.as(t, h, operator, "DELETE", "/api/v1/warm/00000000", "")
		if there.Code != absent.Code || there.Body.String() != absent.Body.String() || there.Code/100 != 4 {
			t.Errorf("as %q a job that is there: %d %s; one that is not: %d %s", operator, there.Code, there.Body, absent.Code, absent.Body)
		}
	}
}

// The keys are those of the time of the request: a token that was removed is refused on the next one.
func TestKeysOfTheMoment(t *testing.T) {
	t.Parallel()
	before, after := newKeyring(t, someRights...), newKeyring(t, someRights...)
	keys := before.Keys
	o := everythingOptions()
	o.Keys = func() admin.Keys { return keys }
	h := admin.New(o)
	if w := before.as(t, h, "reader", "GET", "/api/v1/pulls", ""); w.Code != 200 {
		t.Errorf("before: %d", w.Code)
	}
	keys = after.Keys
	if w := before.as(t, h, "reader", "GET", "/api/v1/pulls", ""); w.Code != 401 {
		t.Errorf("removed: %d", w.Code)
	}
	keys.Tokens, keys.Rights = before.Tokens, access.NewOperators()
	if w := before.as(t, h, "operator", "GET", "/api/v1/pulls", ""); w.Code != 403 {
		t.Errorf("without its right: %d", w.Code)
	}
}
