package upstream_test

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/registrymirror/mirror/upstream"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestCredentialsAreBound(t *testing.T) {
	t.Parallel()
	for target, ok := range map[string]bool{
		"https://reg.example/v2/": true, "https://REG.example:443/v2/": true, "http://reg.example/": false,
		"https://reg.example:8443/": false, "https://cdn.reg.example/": false, "http://reg.example:443/": false,
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		err := upstream.Authorize(req, "https://reg.example")
		if (err == nil) != ok || (req.Header.Get("Authorization") != "") != ok {
			t.Errorf("%s: %v, header %q", target, err, req.Header)
		}
	}
}
