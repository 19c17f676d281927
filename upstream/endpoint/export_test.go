package endpoint

import (
	"net/http"
	"net/netip"
	"net/url"
)

// Class names the reach that an address requires.
func Class(a netip.Addr) string {
	return [...]string{reachPublic: "public", reachPrivate: "private", reachLoopback: "loopback", ReachAny: "never"}[requiredReach(a)]
}

// Judge is a Policy as tables and fuzzing use it.
type Judge struct{ p Policy }

func NewPolicy(authHosts, redirectHosts []string) (Judge, error) {
	var j Judge
	var err error
	if j.p.AuthHosts, err = ParseNames(authHosts); err != nil {
		return j, err
	}
	j.p.RedirectHosts, err = ParseNames(redirectHosts)
	return j, err
}

func (j Judge) Realm(endpoint *url.URL, realm string) (*url.URL, error) {
	o, _ := OriginOf(endpoint)
	return j.p.Realm(o, endpoint, realm)
}

// Redirect judges a redirect of a host at an address.
func (j Judge) Redirect(endpoint, from *url.URL, location, addr string, proxied bool) (to *url.URL, anywhere bool, err error) {
	o, _ := OriginOf(endpoint)
	u, r, err := j.p.Redirect(o, from, location, reachFrom(addr), func(*url.URL) bool { return proxied })
	return u, r == ReachAny, err
}

// BareTransport is the transport of hosts that redirects lead to, over another one.
func BareTransport(rt http.RoundTripper) http.RoundTripper { return bare{rt} }
