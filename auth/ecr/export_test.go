package ecr

import (
	"net/http"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// Sign signs a request.
func Sign(req *http.Request, body []byte, id, secret, token, region, service string, now time.Time) {
	sign(req, body, keys{id: id, secret: auth.NewSecret(secret), token: auth.NewSecret(token)}, region, service, now)
}
