package auth

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// maxTokenLife bounds what a token may say of its own life.
const maxTokenLife = 24 * time.Hour

// TokenLife is how long a JSON Web Token lives that has just come: by its own clock, which may not be ours, where it says
// when it was made, else by now. 0: it does not say, or is over.
func TokenLife(token string, now time.Time) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var claims struct{ Exp, Iat, Nbf float64 }
	if err != nil || json.Unmarshal(b, &claims) != nil {
		return 0
	}
	begin := float64(now.Unix())
	switch {
	case claims.Iat > 0 && claims.Iat < claims.Exp:
		begin = claims.Iat
	case claims.Nbf > 0 && claims.Nbf < claims.Exp:
		begin = claims.Nbf
	}
	return time.Duration(max(min(claims.Exp-begin, maxTokenLife.Seconds()), 0) * float64(time.Second))
}
