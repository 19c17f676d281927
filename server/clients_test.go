package server_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/server"
)

// clients is a fake: each request has the same identity, or error.
type clients struct {
	who       client.Identity
	err       error
	challenge identity.Challenge
}

func (c clients) Identify(_ *http.Request, _ string, named bool) (client.Identity, string, error) {
	if c.err != nil && named {
		return "", "a note", nil
	}
	return c.who, "", c.err
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
