package endpoint

import (
	"cmp"
	"net/netip"
	"net/url"
	"strings"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Policy is the hosts that the operator named, and what follows for token services and redirects. It is pure.
type Policy struct {
	AuthHosts     names // may be asked for tokens
	RedirectHosts names // may be redirected to, wherever they are
	CDNHosts      names // may be redirected to behind a proxy, and where they are public
}

// Realm is the URL of a token service that a challenge names. It has to be at the endpoint's own host or one of AuthHosts, and
// over http only where the endpoint is http; else the error is a *fault.RealmError.
func (p Policy) Realm(endpoint Origin, at *url.URL, realm string) (*url.URL, error) {
	u, err := at.Parse(strings.TrimSpace(realm))
	if err != nil {
		return nil, Malformed(realm, Origin{})
	}
	to, ok := OriginOf(u)
	if guard.Realm && (!ok || u.User != nil) {
		return nil, Malformed(realm, to)
	}
	named := ok && (to.Host == endpoint.Host && to.port == endpoint.port || p.AuthHosts.Has(to))
	secure := to.Scheme == "https" || endpoint.Scheme == "http"
	if guard.Realm && (!named || !secure) {
		plain := !secure && (named || to.Host == endpoint.Host)
		return nil, &fault.RealmError{Host: text.Line(to.String(), 100), Scheme: text.Line(to.Scheme, 20), Plain: plain}
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// Malformed is the error for a token service whose address is not valid.
func Malformed(realm string, to Origin) *fault.RealmError {
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
	return &fault.RealmError{
		Host: text.Line(to.String(), 100), Scheme: text.Line(to.Scheme, 20), Malformed: cmp.Or(fault.Tidy(scheme+shown, 100), "nothing"),
	}
}

// MaxRedirects is how many redirects of one request are followed.
const MaxRedirects = 5

// Redirect is where a Location leads and what may be dialled there; the error of one that is not followed is a
// *fault.RedirectError. From is the URL that answered, near the reach of its redirects, proxied whether a URL is reached
// through a proxy: then the proxy dials, and for names the lists alone decide.
func (p Policy) Redirect(endpoint Origin, from *url.URL, location string, near Reach, proxied func(*url.URL) bool) (
	*url.URL, Reach, error,
) {
	here, _ := OriginOf(from)
	if location == "" {
		return nil, 0, &fault.RedirectError{Host: here.String(), Why: "no Location", Final: true}
	}
	u, err := from.Parse(location)
	if err != nil {
		return nil, 0, &fault.RedirectError{Host: here.String(), Why: "malformed Location", Final: true}
	}
	to, ok := OriginOf(u)
	host := text.Line(to.String(), 100)
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	literal, nameErr := netip.ParseAddr(to.Host)
	switch {
	case !ok:
		return nil, 0, &fault.RedirectError{Host: host, Why: "malformed Location", Final: true}
	case here.Scheme == "https" && to.Scheme == "http":
		return nil, 0, &fault.RedirectError{Host: host, Why: "to http from https", Final: true}
	case to == endpoint, p.RedirectHosts.Has(to):
		return u, ReachAny, nil
	case nameErr == nil && requiredReach(literal) > near:
		return nil, 0, &fault.RedirectError{Host: host, Why: "to a private address"}
	case nameErr != nil && proxied(u) && !p.CDNHosts.Has(to):
		return nil, 0, &fault.RedirectError{Host: host, Why: "behind a proxy, and not in redirectHosts"}
	}
	return u, near, nil
}
