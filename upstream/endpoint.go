package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/limit"
)

// repositoryPrefix is what repositories can begin with, by the grammar of the distribution spec.
var repositoryPrefix = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// endpoint is one address with its connections, what is known of how it lets people in, and how it is.
type endpoint struct {
	name       string // as people know it: URL and prefix
	url        *url.URL
	origin     origin
	prefix     string // of repositories, with a slash at its end; empty: none
	itself     bool   // it is the registry, not a mirror of it: its no is believed
	policy     policy
	proxy      func(*url.URL) (*url.URL, error)
	credential auth.Source       // of its own; nil: the Registry's where it is the registry itself, else none
	registry   http.RoundTripper // may carry credentials
	certified  bool              // it shows our certificate, which is a login
	// blobs refuse to. One for each reach: a connection that was dialled with a wide one must not serve a request with a
	// narrow one.
	blobs [reachAny + 1]http.RoundTripper
	// away, by reach like blobs and over the same connections, may carry a token of another registry that the endpoint sends
	// on to, and no certificate.
	away      [reachAny + 1]http.RoundTripper
	idle      func() // closes idle connections
	known     knowledge
	public    public
	inquiries inquiries
	condition condition
	said      said
	limits    *limit.Limits
	queue     *queue
	small     *queue // of small blobs that find no turn in the other one
}

// newEndpoints makes the endpoints of Options whose zero fields are filled in.
func newEndpoints(o Options) ([]*endpoint, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("no endpoint; give it a URL")
	}
	var common policy
	var err error
	if common.authHosts, err = parseNames(o.AuthHosts); err != nil {
		return nil, fmt.Errorf("authHosts: %w", err)
	}
	if common.redirectHosts, err = parseNames(o.RedirectHosts); err != nil {
		return nil, fmt.Errorf("redirectHosts: %w", err)
	}
	if common.cdnHosts, err = parseNames(o.CDNHosts); err != nil {
		return nil, fmt.Errorf("cdnHosts: %w", err)
	}
	dialer := newDialer(o)
	list := make([]*endpoint, len(o.Endpoints))
	itself := false
	for i, e := range o.Endpoints {
		if list[i], err = newEndpoint(e, o, common, dialer); err != nil {
			return nil, err
		}
		itself = itself || e.Registry
	}
	if !itself {
		list[len(list)-1].itself = true
	}
	return list, nil
}

func newEndpoint(e Endpoint, o Options, common policy, d *dialer) (*endpoint, error) {
	if e.URL == nil {
		return nil, errors.New("an endpoint without URL")
	}
	at, ok := originOf(e.URL)
	if !ok || e.URL.User != nil || e.URL.RawQuery != "" || e.URL.Fragment != "" || e.URL.Path != "" && e.URL.Path != "/" {
		return nil, fmt.Errorf("endpoint %s is not http(s)://HOST[:PORT]", e.URL.Redacted())
	}
	ep := &endpoint{
		url: &url.URL{Scheme: at.scheme, Host: e.URL.Host}, origin: at, itself: e.Registry, policy: common,
		proxy: e.Proxy, credential: e.Credential, queue: newQueue(o.MaxTransfers),
		small:  newQueue(max(1, o.MaxTransfers/4)),
		limits: limit.New(nil),
	}
	ep.name = ep.url.String()
	if prefix := strings.Trim(e.Prefix, "/"); prefix != "" {
		if !repositoryPrefix.MatchString(prefix) {
			return nil, fmt.Errorf("endpoint %s: prefix %q is not what a repository can begin with", ep.name, e.Prefix)
		}
		ep.prefix = prefix + "/"
		ep.name += "/" + prefix
	}
	if ep.proxy == nil {
		ep.proxy = o.Proxy
	}
	if e.AuthHosts != nil {
		own, err := parseNames(e.AuthHosts)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: authHosts: %w", ep.name, err)
		}
		ep.policy.authHosts = own
	}
	ep.policy.redirectHosts = append(ep.policy.redirectHosts[:len(common.redirectHosts):len(common.redirectHosts)],
		named{host: at.host})
	registry := newTransport(ep, e, o, d)
	if e.Certificate != nil { // what leads away from the endpoint does not see who we are
		registry.TLSClientConfig.Certificates = append(registry.TLSClientConfig.Certificates, *e.Certificate)
		ep.certified = true
	}
	ep.registry = registry
	transports := []*http.Transport{registry}
	for i := range ep.blobs {
		blob := newTransport(ep, e, o, d)
		ep.blobs[i], ep.away[i] = bare{blob}, blob
		transports = append(transports, blob)
	}
	ep.idle = func() {
		for _, t := range transports {
			t.CloseIdleConnections()
		}
	}
	return ep, nil
}

// at is a path of the registry's API as a URL.
func (e *endpoint) at(path, query string) *url.URL {
	u := *e.url
	u.Path, u.RawQuery = path, query
	return &u
}

func (e *endpoint) proxied(u *url.URL) bool {
	p, err := e.proxy(u)
	return p != nil || err != nil
}

// ping asks whether the registry's API answers at all. What it answers matters little: most want a login.
func (c *core) ping(ctx context.Context, ep *endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.DialTimeout)
	defer cancel()
	p := &call{core: c, ep: ep, as: &Registry{core: c, source: auth.Anonymous}}
	a := ask{step: StepPing, method: http.MethodGet, url: ep.at("/v2/", ""), reach: reachAny}
	resp, err := p.exchange(ctx, ep.registry, a, grant{})
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= 500:
		return p.refuse(resp)
	case resp.StatusCode == http.StatusOK && isHTML(resp.Header):
		err = &ContentError{Kind: ContentNotRegistry, Want: "a registry", Got: "a web page"}
	}
	spill(resp.Body)
	return err
}
