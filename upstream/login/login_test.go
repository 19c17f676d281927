package login_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/upstream/login"
)

func TestTokenLife(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	jwt := func(claims string) string {
		return "e30." + strings.TrimRight(base64.RawURLEncoding.EncodeToString([]byte(claims)), "=") + ".c2ln"
	}
	for _, tt := range []struct {
		name, value, expiresIn string
		want                   time.Duration
	}{
		{"said", "opaque", "300", 5 * time.Minute},
		{"said as text", "opaque", `"300"`, 5 * time.Minute},
		{"said wins over the token", jwt(`{"exp":1003600}`), "300", 5 * time.Minute},
		{"JWT", jwt(`{"exp":1003600}`), "", time.Hour},
		{"JWT of another clock", jwt(`{"iat":500000,"exp":503600}`), "", time.Hour},
		{"JWT that is over", jwt(`{"exp":999000}`), "", time.Minute},
		{"not said", "opaque", "", time.Minute},
		{"nonsense", "a.b.c", "null", time.Minute},
		{"negative", "opaque", "-5", time.Minute},
		{"forever", "opaque", "1e300", 24 * time.Hour},
		{"JWT for ever", jwt(`{"exp":1e18}`), "", 24 * time.Hour},
	} {
		if got := login.TokenLife(tt.value, tt.expiresIn, now); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestCredentialsAreBound(t *testing.T) {
	t.Parallel()
	for target, ok := range map[string]bool{
		"https://reg.example/v2/": true, "https://REG.example:443/v2/": true, "http://reg.example/": false,
		"https://reg.example:8443/": false, "https://cdn.reg.example/": false, "http://reg.example:443/": false,
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		err := login.Authorize(req, "https://reg.example")
		if (err == nil) != ok || (req.Header.Get("Authorization") != "") != ok {
			t.Errorf("%s: %v, header %q", target, err, req.Header)
		}
	}
}
