package origin

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// Limit is how many manifests a limited account or address may GET, as Docker Hub has it: neither HEAD nor blobs are counted, the good answers
// say what is left, and nothing says when there is more.
type Limit struct {
	Manifests int           // 0: as many as they like
	Window    time.Duration // as it is said; nothing comes back by itself
}

// limited counts a request for a manifest and says with its answer what is left. What is over the limit is refused.
func (g *Origin) limited(w *wanted, r *http.Request, a *answer) *answer {
	most := g.o.Limit.Manifests
	if most == 0 || w.kind != KindManifest || a.status != http.StatusOK {
		return a
	}
	who, _, _ := net.SplitHostPort(r.RemoteAddr)
	user := false
	g.mu.Lock()
	defer g.mu.Unlock()
	if t, ok := g.tokens[bearerOf(r)]; ok && t.user {
		who, user = g.username, true
	}
	if r.Method == http.MethodGet {
		if g.spent[who] >= most {
			if user {
				return refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", fmt.Sprintf("You have reached your pull rate limit "+
					"as '%s'. You may increase the limit by upgrading. https://www.docker.com/increase-rate-limit", who))
			}
			return refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "You have reached your unauthenticated pull rate "+
				"limit. https://www.docker.com/increase-rate-limit")
		}
		g.spent[who]++
	}
	a.header.Set("Docker-Ratelimit-Source", who)
	window := int(g.o.Limit.Window.Seconds())
	a.header.Set("Ratelimit-Limit", fmt.Sprintf("%d;w=%d", most, window))
	a.header.Set("Ratelimit-Remaining", fmt.Sprintf("%d;w=%d", most-g.spent[who], window))
	return a
}

// Spent is how many manifests were given within limits.
func (g *Origin) Spent() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, m := range g.spent {
		n += m
	}
	return n
}
