package admin

import (
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/guard"
)

// A browser is the one client that acts for parties other than its user: any web page can have it send requests to
// 127.0.0.1, and after DNS rebinding read the answers, too. So a listener on loopback answers to its own names alone, and
// no listener answers a request from another site's page. Clients that are not browsers send neither Origin nor
// Sec-Fetch-Site.

// gate refuses requests that a browser sends for another site, on every route.
func (o Options) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !guard.Site {
			next.ServeHTTP(w, r)
			return
		}
		if o.Loopback && !o.mine(r.Host) {
			Problem(w, http.StatusMisdirectedRequest, fmt.Sprintf("this listener is not called %s; use localhost or 127.0.0.1, "+
				"or add the name to admin.hosts", quote(r.Host)))
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			Problem(w, http.StatusForbidden, "a page of another site has sent this request; open the address itself")
			return
		}
		for _, origin := range r.Header.Values("Origin") {
			if !o.same(origin, r.Host) {
				Problem(w, http.StatusForbidden, fmt.Sprintf("a page of another site, %s, has sent this request; open the address itself, "+
					"or add the name of a proxy in front to admin.hosts", quote(origin)))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// mine reports whether the Host of a request is a name of a listener on loopback.
func (o Options) mine(host string) bool {
	name := strings.ToLower(strings.TrimSuffix(hostname(host), "."))
	return onLoopback(name) || slices.ContainsFunc(o.Hosts, func(h string) bool { return strings.EqualFold(h, name) })
}

// onLoopback reports whether a name, in lower case, is this machine's own.
func onLoopback(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") { // RFC 6761: loopback, without DNS
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

// same reports whether an Origin is the listener's own: the host of the request, or a name that the operator has
// configured. On loopback another port is another site: any user of the machine may serve it.
func (o Options) same(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false
	}
	if strings.EqualFold(u.Host, host) {
		return true
	}
	return !onLoopback(strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))) &&
		slices.ContainsFunc(o.Hosts, func(h string) bool { return strings.EqualFold(h, u.Hostname()) })
}

// hostname is a Host without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// quote quotes what a client sent, cut to a length that fits a message.
func quote(text string) string {
	const most = 100
	if len(text) > most {
		text = text[:most] + "..."
	}
	return fmt.Sprintf("%q", text)
}

// manifestTypes are those of YAML. The form of a web page can't send them either.
var manifestTypes = []string{"application/yaml", "application/x-yaml", "text/yaml"}

// otherTypes are the routes that take more than JSON.
var otherTypes = map[string][]string{
	"/api/v1/warm":        manifestTypes,
	"/api/v1/warm/verify": manifestTypes,
	"/api/v1/explain":     {"text/plain", "application/yaml", "application/x-yaml", "application/x-ndjson", "application/octet-stream", ""},
}

// typed refuses a body whose Content-Type is neither JSON nor another type that the route takes. The form of a web page
// can't send these types, and before its script may, the browser sends OPTIONS, which no route answers.
func typed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Get("Content-Type")
		t, _, err := mime.ParseMediaType(header)
		bare := header == "" && r.ContentLength == 0 // not by Body: HTTP/2 gives each request one
		if r.Method == http.MethodGet || r.Method == http.MethodHead || bare || err == nil && t == "application/json" ||
			slices.Contains(otherTypes[r.URL.Path], t) && (err == nil || header == "") {
			next.ServeHTTP(w, r)
			return
		}
		also := ""
		switch types := otherTypes[r.URL.Path]; {
		case slices.Contains(types, "text/plain"):
			also = ", or text as text/plain"
		case len(types) > 0:
			also = ", or manifests as application/yaml"
		}
		Problem(w, http.StatusUnsupportedMediaType, fmt.Sprintf("the body is %s; send JSON with Content-Type: application/json%s",
			quote(header), also))
	})
}
