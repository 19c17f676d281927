package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// Options say what a Registry speaks to, as whom, and how long it waits.
type Options struct {
	Name      string     // canonical name of the upstream, for errors and metrics
	Endpoints []Endpoint // at least one; the first is used
	// AuthHosts may be asked for tokens beside the endpoint itself, with our credential. RedirectHosts may be
	// redirected to wherever they are. Entries are "host", for any port, or "host:port"; a label may be *.
	AuthHosts, RedirectHosts []string
	// CDNHosts may be redirected to behind a proxy, which hides addresses. Elsewhere they are checked like any other: no
	// entry leads to a private address that is dialled from here. Entries as above.
	CDNHosts   []string
	Credential auth.Source // who we are; nil: anonymous
	UserAgent  string      // of every request; empty: "mirror"
	// Via is our name in the Via header of requests to the registry, by which we know a request that comes back to us.
	// Empty: none.
	Via string

	StallTimeout  time.Duration // longest pause between two bytes of a body; 0: 30 s
	HeaderTimeout time.Duration // from a request to its answer's headers; 0: 25 s
	DialTimeout   time.Duration // for DNS and connecting; 0: 10 s

	// Dial replaces the network; nil: the real one. Resolver replaces DNS; nil: the system's.
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	Resolver *net.Resolver
	// Proxy says through which proxy a URL is asked, nil for none. Unset: HTTPS_PROXY, HTTP_PROXY and NO_PROXY as
	// http.ProxyFromEnvironment reads them.
	Proxy func(u *url.URL) (*url.URL, error)

	Observe func(Exchange) // called for every HTTP exchange once it is over, from any goroutine; nil: nobody
	// Received is called for bytes of bodies as they arrive, from any goroutine and often; nil: nobody. In the end they
	// are those of all Exchanges: a large blob's would else come hours later, and all at once.
	Received func(bytes int)
	Log      *slog.Logger // nil: discarded
}

// Endpoint is one address of the upstream.
type Endpoint struct {
	URL *url.URL // scheme, host and port; credentials go over http only where this says http
	// RootCAs are trusted for everything that is reached on behalf of the endpoint: itself, its token services and
	// the hosts that it redirects to. Nil: the system's.
	RootCAs *x509.CertPool
}

// Exchange is one HTTP request and its answer, for metrics.
type Exchange struct {
	Upstream string
	Kind     StepName // what the request was for
	Method   string
	Host     string
	Status   int   // 0: no answer
	From     int64 // offset of the first byte that was asked for
	Bytes    int64 // of the body, as many as were read
	Took     time.Duration
	Err      error // what broke it, an answer of any status is none
}

// Registry speaks to one upstream. It is safe for concurrent use.
type Registry struct {
	*core
	source auth.Source
	places places
	last   atomic.Pointer[lastCredential]
}

// lastCredential is what the source gave when it was last asked.
type lastCredential struct {
	cred auth.Credential
	err  error
}

// core is what a Registry shares with its copies under other credentials.
type core struct {
	o         Options
	endpoints []*endpoint
	policy    policy
	tokens    *tokens
	health    health
}

// endpoint is one address with its connections and what is known of how it lets people in.
type endpoint struct {
	url      *url.URL
	origin   origin
	registry http.RoundTripper // may carry credentials
	blob     http.RoundTripper // refuses to
	idle     func()            // closes idle connections
	known    knowledge
}

// New makes a Registry. It speaks to nobody yet. Call Run, or Close when done with it.
func New(o Options) (*Registry, error) {
	o.StallTimeout = orElse(o.StallTimeout, 30*time.Second)
	o.HeaderTimeout = orElse(o.HeaderTimeout, 25*time.Second)
	o.DialTimeout = orElse(o.DialTimeout, 10*time.Second)
	o.UserAgent = orElse(o.UserAgent, "mirror")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Proxy == nil {
		o.Proxy = func(u *url.URL) (*url.URL, error) { return http.ProxyFromEnvironment(&http.Request{URL: u}) }
	}
	if o.Credential == nil {
		o.Credential = auth.Anonymous
	}
	if o.Received == nil {
		o.Received = func(int) {}
	}
	if len(o.Endpoints) == 0 {
		return nil, fmt.Errorf("upstream %s: no endpoint; give it a URL", o.Name)
	}
	c := &core{o: o, tokens: newTokens(o.Log)}
	var err error
	if c.policy.authHosts, err = parseNames(o.AuthHosts); err != nil {
		return nil, fmt.Errorf("upstream %s: authHosts: %w", o.Name, err)
	}
	if c.policy.redirectHosts, err = parseNames(o.RedirectHosts); err != nil {
		return nil, fmt.Errorf("upstream %s: redirectHosts: %w", o.Name, err)
	}
	if c.policy.cdnHosts, err = parseNames(o.CDNHosts); err != nil {
		return nil, fmt.Errorf("upstream %s: cdnHosts: %w", o.Name, err)
	}
	dialer := newDialer(o)
	for _, e := range o.Endpoints {
		ep, err := newEndpoint(e, o, dialer)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", o.Name, err)
		}
		c.endpoints = append(c.endpoints, ep)
		c.policy.redirectHosts = append(c.policy.redirectHosts, named{host: ep.origin.host})
	}
	return &Registry{core: c, source: o.Credential}, nil
}

func newEndpoint(e Endpoint, o Options, d *dialer) (*endpoint, error) {
	if e.URL == nil {
		return nil, errors.New("an endpoint without URL")
	}
	at, ok := originOf(e.URL)
	if !ok || e.URL.User != nil || e.URL.RawQuery != "" || e.URL.Fragment != "" || e.URL.Path != "" && e.URL.Path != "/" {
		return nil, fmt.Errorf("endpoint %s is not http(s)://HOST[:PORT]", e.URL.Redacted())
	}
	registry, blob := newTransport(e, o, d), newTransport(e, o, d)
	return &endpoint{
		url:      &url.URL{Scheme: at.scheme, Host: e.URL.Host},
		origin:   at,
		registry: registry,
		blob:     bare{blob},
		idle:     func() { registry.CloseIdleConnections(); blob.CloseIdleConnections() },
	}, nil
}

// As is the same registry asked with another credential: connections, tokens and what was learned are shared, each
// token stays with the credential that got it. An auth.Credential is a source of itself.
func (r *Registry) As(s auth.Source) *Registry {
	if s == nil {
		s = auth.Anonymous
	}
	return &Registry{core: r.core, source: s}
}

// Credential is the health of the credential that this Registry asks with, the zero Status for none.
func (r *Registry) Credential() auth.Status {
	if l := r.last.Load(); l != nil {
		return r.health.status(r.source, l.cred, l.err)
	}
	return auth.Describe(r.source) // nobody has asked it yet
}

// Run renews the tokens that are in use until the context ends, then closes. It returns nil.
func (r *Registry) Run(ctx context.Context) error {
	r.tokens.run(ctx)
	r.Close()
	return nil
}

// Close ends what runs in the background and closes idle connections. Requests under way go on.
func (r *Registry) Close() {
	r.tokens.close()
	for _, ep := range r.endpoints {
		ep.idle()
	}
}

func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}
