package admin_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
)

func TestReset(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var asked []string
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Log:  slog.New(slog.NewTextHandler(&log, nil)),
		Keys: func() admin.Keys { return admin.Keys{Token: "open sesame"} },
		Reset: func(name string) []string {
			asked = append(asked, name)
			if name == "unknown.example" {
				return nil
			}
			return []string{name}
		},
	})
	for _, tt := range []struct {
		name, token, contentType, body, want string
		status                               int
	}{
		{"known", "open sesame", "application/json", `{"upstream":"docker.io"}`, `{"upstreams":["docker.io"]}`, 200},
		{"unknown", "open sesame", "application/json", `{"upstream":"unknown.example"}`, "mirror upstreams", 404},
		{"no name", "open sesame", "application/json", `{"upstream":""}`, "NAME", 400},
		{"another field", "open sesame", "application/json", `{"upstream":"docker.io","all":true}`, "NAME", 400},
		{"no JSON", "open sesame", "application/json", `docker.io`, "NAME", 400},
		{"a form", "open sesame", "text/plain", `{"upstream":"docker.io"}`, "application/json", 415},
		{"no token", "", "application/json", `{"upstream":"docker.io"}`, "token", 401},
	} {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/upstreams/reset", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.contentType)
		r.Header.Set("Authorization", "Bearer "+tt.token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: %d %s", tt.name, w.Code, w.Body)
		}
	}
	if len(asked) != 2 || strings.Count(log.String(), "upstream reset") != 1 || !strings.Contains(log.String(), "upstream=[docker.io]") {
		t.Errorf("asked %q, log %s", asked, log.String())
	}
}
