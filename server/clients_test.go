package server_test

import (
	"cmp"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/server"
)

// clients is a fake: each request has the same identity, or error.
type clients struct {
	who       client.Identity
	err       error
	foreign   bool // the login is not one of the mirror's
	challenge identity.Challenge
}

func (c clients) Identify(_ *http.Request, _ string, named bool) (client.Identity, string, error) {
	if c.err != nil && named {
		return "", "a note", nil
	}
	return c.who, "", c.err
}

func (c clients) Ways() (login, certificate bool) { return true, false }

func (c clients) IdentifyBeside(*http.Request, string) (client.Identity, bool, string, error) {
	return c.who, c.foreign, "", c.err
}

func (c clients) Challenge() identity.Challenge { return c.challenge }

// A login that is not accepted is refused before the puller is called, with a challenge; but never where the request names a registry.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	const own, ns = "/v2/docker.io/acme/app/manifests/v1", "/v2/acme/app/manifests/v1?ns=docker.io"
	for _, tt := range []struct {
		name, path string
		c          clients
		status     int
		asked      bool
		challenge  bool
	}{
		{"wrong", own, clients{err: &identity.RefusedError{Method: identity.ByPassword, Result: identity.Refused}}, 401, false, true},
		{"limited", own, clients{err: &identity.RefusedError{Method: identity.ByPassword, Result: identity.Limited}}, 401, false, true},
		{"not checked", own, clients{err: &identity.RefusedError{Method: identity.ByAccount, Result: identity.Unavailable}}, 503, false, false},
		{"wrong, with ns", ns, clients{err: &identity.RefusedError{Method: identity.ByPassword, Result: identity.Refused}}, 502, true, false},
		{"right", own, clients{who: "alice"}, 502, true, false},
		{"wrong at /v2/", "/v2/", clients{err: &identity.RefusedError{Method: identity.ByToken, Result: identity.Refused}}, 401, false, true},
		{"right at /v2/", "/v2/", clients{who: "alice", challenge: identity.Required}, 200, false, false},
		{"none at /v2/", "/v2/", clients{challenge: identity.Required}, 401, false, true},
		{"none at /v2/, some may", "/v2/", clients{challenge: identity.Offered}, 200, false, true},
		{"none at /v2/, all may", "/v2/", clients{}, 200, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &puller{err: upstreamError(503, nil)}
			o := options(p)
			o.Clients = tt.c
			w := httptest.NewRecorder()
			server.New(o).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, nil))
			if w.Code != tt.status || (w.Header().Get("Www-Authenticate") != "") != tt.challenge || (len(p.asks) > 0) != tt.asked {
				t.Errorf("%d, challenge %q, asked %v", w.Code, w.Header().Get("Www-Authenticate"), len(p.asks) > 0)
			}
			if tt.asked && p.asks[0].Who != tt.c.who {
				t.Errorf("asked for %q", p.asks[0].Who)
			}
			if tt.c.who != "" && tt.asked && p.asks[0].Client != "user:alice" {
				t.Errorf("the client is called %q", p.asks[0].Client)
			}
		})
	}
}

// Where clients have logins of their own, one that is not the mirror's goes to the puller, with whether it can have been read on the way;
// and a client is asked for one only where it can't.
func TestClientsOwnLogin(t *testing.T) {
	t.Parallel()
	const path = "/v2/acme/app/manifests/v1?ns=docker.io"
	missing := func(insecure bool) error {
		return &access.LoginError{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Insecure: insecure}
	}
	for _, tt := range []struct {
		name, from, path string
		auth             string // header; empty: a user and password, "-": none
		tls              bool
		header           http.Header
		proxies          string
		clients          server.Clients
		err              error
		login            bool // it reaches the puller
		unusable         bool // the puller learns that there is another one
		secure           bool
		status           int
		challenge        bool
	}{
		{name: "TLS", from: "192.0.2.1:9", tls: true, err: missing(false), login: true, secure: true, status: 401, challenge: true},
		{name: "the same machine", from: "127.0.0.1:9", err: missing(false), login: true, secure: true, status: 401, challenge: true},
		{name: "the same machine, IPv6", from: "[::1]:9", err: missing(false), login: true, secure: true, status: 401, challenge: true},
		{name: "in clear", from: "192.0.2.1:9", err: missing(true), login: true, status: 403},
		{
			name: "a proxy here", from: "127.0.0.1:9", header: http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"https"}},
			err: missing(true), login: true, status: 403,
		},
		{name: "a proxy here that says little", from: "127.0.0.1:9", header: http.Header{"X-Forwarded-For": {""}}, err: missing(true), login: true, status: 403},
		{name: "a proxy here, nginx", from: "127.0.0.1:9", header: http.Header{"X-Real-Ip": {"192.0.2.1"}}, err: missing(true), login: true, status: 403},
		{name: "a proxy here, squid", from: "127.0.0.1:9", header: http.Header{"Via": {"1.1 squid"}}, err: missing(true), login: true, status: 403},
		{
			name: "a trusted proxy here", from: "127.0.0.1:9", proxies: "127.0.0.0/8",
			header: http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"https"}},
			err:    missing(false), login: true, secure: true, status: 401, challenge: true,
		},
		{
			name: "a trusted proxy here, in clear", from: "127.0.0.1:9", proxies: "127.0.0.0/8",
			header: http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"http"}}, err: missing(true), login: true, status: 403,
		},
		{name: "a login that is not the mirror's", from: "127.0.0.1:9", clients: clients{foreign: true}, err: missing(false), login: true, secure: true, status: 401, challenge: true},
		{name: "one that is the mirror's", from: "127.0.0.1:9", clients: clients{who: "alice"}, err: missing(false), secure: true, status: 401, challenge: true},
		{
			name: "one that is not checked", from: "127.0.0.1:9", status: 503,
			clients: clients{err: &identity.RefusedError{Method: identity.ByPassword, Result: identity.Unavailable}, foreign: true},
		},
		{name: "refused by the registry", from: "127.0.0.1:9", err: &access.RefusedError{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}}, login: true, secure: true, status: 403},
		{name: "no login", from: "127.0.0.1:9", auth: "-", err: missing(false), secure: true, status: 401, challenge: true},
		{name: "Podman's of none", from: "127.0.0.1:9", auth: "Basic Og==", err: missing(false), secure: true, status: 401, challenge: true},
		{
			name: "without a password", from: "127.0.0.1:9", auth: "Basic cm9ib3Q6", err: missing(false), secure: true, unusable: true, status: 401,
			challenge: true,
		},
		{name: "a token", from: "127.0.0.1:9", auth: "Bearer ghp_x", err: missing(false), secure: true, unusable: true, status: 401, challenge: true},
		{
			name: "a token, of a node", from: "127.0.0.1:9", auth: "Bearer ghp_x", clients: clients{who: "node:worker-1"}, err: missing(false),
			secure: true, unusable: true, status: 401, challenge: true,
		},
		{
			name: "a token of the mirror", from: "127.0.0.1:9", auth: "Bearer mirror_x", clients: clients{who: "alice"}, err: missing(false),
			secure: true, status: 401, challenge: true,
		},
		{name: "damaged", from: "127.0.0.1:9", auth: "robot:pass", err: missing(false), secure: true, unusable: true, status: 401, challenge: true},
		{name: "GET /v2/", from: "127.0.0.1:9", path: "/v2/", status: 200, challenge: true},
		{name: "GET /v2/ in clear", from: "192.0.2.1:9", path: "/v2/", status: 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &puller{err: tt.err, takesLogins: true}
			o := options(p)
			o.Clients = tt.clients
			if tt.proxies != "" {
				o.Proxies = client.Proxies{netip.MustParsePrefix(tt.proxies)}
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, cmp.Or(tt.path, path), nil)
			r.RemoteAddr = tt.from
			if tt.header != nil {
				r.Header = tt.header.Clone()
			}
			if tt.tls {
				r.TLS = &tls.ConnectionState{}
			}
			switch tt.auth {
			case "":
				r.SetBasicAuth("robot", "pass")
			case "-":
			default:
				r.Header.Set("Authorization", tt.auth)
			}
			w := httptest.NewRecorder()
			server.New(o).ServeHTTP(w, r)
			if got := w.Header().Get("Www-Authenticate") != ""; w.Code != tt.status || got != tt.challenge {
				t.Errorf("%d, challenge %v: %s", w.Code, got, w.Body)
			}
			if len(p.asks) == 0 {
				if tt.login || tt.secure {
					t.Error("the puller was not asked")
				}
				return
			}
			if a := p.asks[0]; a.Login.IsZero() == tt.login || a.Unusable != tt.unusable || a.Secure != tt.secure {
				t.Errorf("the puller got a login: %v, unusable: %v, secure: %v", !a.Login.IsZero(), a.Unusable, a.Secure)
			}
		})
	}
}
