package upstream

import (
	"net/url"
	"strings"

	"github.com/registrymirror/mirror/internal/guard"
)

// policy is whom the operator named. It is pure.
type policy struct {
	authHosts     names // may be asked for tokens
	redirectHosts names // may be redirected to, wherever they are
	cdnHosts      names // may be redirected to behind a proxy, and where they are public
}

// realm says where a token is to be had, or with a *RealmError that it must not be asked there: the endpoint itself,
// or a host of authHosts; over http only where the endpoint is http.
func (p policy) realm(endpoint origin, at *url.URL, realm string) (*url.URL, error) {
	u, err := at.Parse(strings.TrimSpace(realm))
	if err != nil {
		return nil, malformed(realm, origin{})
	}
	to, ok := originOf(u)
	if guard.Realm && (!ok || u.User != nil) {
		return nil, malformed(realm, to)
	}
	named := ok && (to.host == endpoint.host && to.port == endpoint.port || p.authHosts.has(to))
	secure := to.scheme == "https" || endpoint.scheme == "http"
	if guard.Realm && (!named || !secure) {
		plain := !secure && (named || to.host == endpoint.host)
		return nil, &RealmError{Host: oneLine(to.String(), 100), Scheme: oneLine(to.scheme, 20), Plain: plain}
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// malformed is the error for the address of a token service that can't be asked.
func malformed(realm string, to origin) *RealmError {
	shown := strings.TrimSpace(realm)
	if i := strings.IndexAny(shown, "?#"); i >= 0 {
		shown = shown[:i]
	}
	scheme := ""
	if i := strings.Index(shown, "//"); i >= 0 {
		scheme, shown = shown[:i+2], shown[i+2:]
	}
	if at := strings.LastIndexByte(shown, '@'); at >= 0 { // what is before it may be a login, whatever it looks like
		shown = "***" + shown[at:]
	}
	return &RealmError{
		Host: oneLine(to.String(), 100), Scheme: oneLine(to.scheme, 20), Malformed: orElse(tidy(scheme+shown, 100), "nothing"),
	}
}

// maxRedirects is how many redirects of one request are followed.
const maxRedirects = 5

// redirect says where a Location leads and what may be dialled there, or with a *RedirectError that it is not
// followed. from is the URL that answered, near what its address may redirect to, proxied whether a URL is asked
// through a proxy: it then is the proxy that dials, and for names only the lists decide.
func (p policy) redirect(endpoint origin, from *url.URL, location string, near reach, proxied func(*url.URL) bool) (
	*url.URL, reach, error,
) {
	here, _ := originOf(from)
	if location == "" {
		return nil, 0, &RedirectError{Host: here.String(), Why: "no Location", Final: true}
	}
	u, err := from.Parse(location)
	if err != nil {
		return nil, 0, &RedirectError{Host: here.String(), Why: "malformed Location", Final: true}
	}
	to, ok := originOf(u)
	host := oneLine(to.String(), 100)
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	literal, isLiteral := to.literal()
	switch {
	case !ok:
		return nil, 0, &RedirectError{Host: host, Why: "malformed Location", Final: true}
	case here.scheme == "https" && to.scheme == "http":
		return nil, 0, &RedirectError{Host: host, Why: "to http from https", Final: true}
	case to == endpoint, p.redirectHosts.has(to):
		return u, reachAny, nil
	case isLiteral && needs(literal) > near:
		return nil, 0, &RedirectError{Host: host, Why: "to a private address"}
	case !isLiteral && proxied(u) && !p.cdnHosts.has(to):
		return nil, 0, &RedirectError{Host: host, Why: "behind a proxy, and not in redirectHosts"}
	}
	return u, near, nil
}
