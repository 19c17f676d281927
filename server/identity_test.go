package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/server"
)

// A client learns which identity its pulls have, and why its login does not count. No puller is asked, and nothing is recorded.
func TestIdentity(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method string
		c            server.Clients
		status       int
		body         string
	}{
		{"a node", "GET", clients{who: "node:worker-1"}, 200, `{"identity":"node:worker-1"}`},
		{"a user", "GET", clients{who: "ci"}, 200, `{"identity":"ci"}`},
		{"anonymous", "GET", clients{challenge: identity.Required}, 200, `{"identity":""}`},
		{"a wrong login", "GET", clients{err: &identity.RefusedError{Method: identity.ByToken, Result: identity.Refused}}, 200, `{"identity":"","refused":"a note"}`},
		{"no logins", "GET", nil, 200, `{"identity":""}`},
		{"HEAD", "HEAD", clients{who: "ci"}, 200, ""},
		{"POST", "POST", clients{who: "ci"}, 405, "only GET and HEAD are allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &puller{}
			o := options(p)
			o.Clients = tt.c
			o.Observe = func(q journal.Request) { t.Errorf("a record: %+v", q) }
			w := httptest.NewRecorder()
			server.New(o).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, "/identity?ns=docker.io", nil))
			if w.Code != tt.status || strings.TrimSpace(w.Body.String()) != tt.body || len(p.asks) > 0 {
				t.Errorf("%d %q, asked %v", w.Code, w.Body, p.asks)
			}
			if w.Code == http.StatusOK && w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("header: %v", w.Header())
			}
		})
	}
}
