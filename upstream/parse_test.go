package upstream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/upstream"
)

func TestTokenLife(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	jwt := func(claims string) string { return "e30." + strings.TrimRight(b64(claims), "=") + ".c2ln" }
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
		{"nobody says", "opaque", "", time.Minute},
		{"nonsense", "a.b.c", "null", time.Minute},
		{"negative", "opaque", "-5", time.Minute},
		{"for ever", "opaque", "1e300", 24 * time.Hour},
		{"JWT for ever", jwt(`{"exp":1e18}`), "", 24 * time.Hour},
	} {
		if got := upstream.LifeOf(tt.value, tt.expiresIn, now); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
