package auth_test

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/registrymirror/mirror/auth"
)

func TestTokenLife(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	for claims, want := range map[string]time.Duration{
		`{"exp":1003600}`:                     time.Hour,
		`{"iat":500000,"exp":503600}`:         time.Hour, // its clock is not ours
		`{"nbf":500000,"exp":503600}`:         time.Hour,
		`{"iat":500000,"nbf":1,"exp":503600}`: time.Hour,
		`{"iat":-5,"nbf":7,"exp":8.5}`:        1500 * time.Millisecond,
		`{"iat":2000000,"exp":1003600}`:       time.Hour, // made after its end: it does not count
		`{"exp":999000}`:                      0,
		`{"exp":1e300}`:                       24 * time.Hour,
		`{"iat":1e300,"exp":-1e300}`:          0,
		`{}`:                                  0,
		`{"exp":"soon"}`:                      0,
		`[]`:                                  0,
	} {
		for _, encoding := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding} {
			token := "e30." + encoding.EncodeToString([]byte(claims)) + ".c2ln"
			if got := auth.TokenLife(token, now); got != want {
				t.Errorf("%s: %s, want %s", claims, got, want)
			}
		}
	}
	for _, token := range []string{"", "opaque", "a.b.c", "..", "e30.e30"} {
		if got := auth.TokenLife(token, now); got != 0 {
			t.Errorf("%q: %s", token, got)
		}
	}
}
