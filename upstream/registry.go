package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/login"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// Options say which registry a Registry speaks to, with which credentials, and how long it waits. They have many fields, since
// each is one setting or one service of the caller.
type Options struct {
	Name      string     // canonical name of the upstream, for errors and metrics
	Endpoints []Endpoint // at least one, in the order in which they are asked
	// AuthHosts may be asked for tokens beside the endpoint itself, with our credential. RedirectHosts may be
	// redirected to wherever they are. Entries are "host", for any port, or "host:port"; a label may be *.
	AuthHosts, RedirectHosts []string
	// CDNHosts may be redirected to behind a proxy, which hides addresses. Elsewhere they are checked like any other: no
	// entry leads to a private address that is dialled from here. Entries as above.
	CDNHosts []string
	// Credential is shown to the endpoints that are the registry itself. Others are shown Endpoint.Credential. Nil: requests
	// are anonymous.
	Credential auth.Source
	// Public says that Credential, and those of endpoints, are used for public repositories alone: a repository is asked for
	// with them once it has answered an anonymous request, and for a day after. So they never read private content.
	Public    bool
	UserAgent string // of every request; empty: "mirror"
	// Via is our name in the Via header of requests to the registry: it marks a request that comes back to us. Empty: no such
	// header.
	Via string

	// Reserve is the part of each limit, 0 to 1, that requests under Spare leave to others.
	Reserve float64

	// MaxTransfers is how many blobs each endpoint sends at once; further ones wait for their turn. 0: 32, negative: any
	// number.
	MaxTransfers int

	StallTimeout  time.Duration // longest pause between two bytes of a body; 0: 30 s
	HeaderTimeout time.Duration // from a request to its answer's headers; 0: 25 s
	DialTimeout   time.Duration // for DNS and connecting; 0: 10 s

	// Dial replaces the network; nil: the real one. Resolver replaces DNS; nil: the system's.
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	Resolver *net.Resolver
	// Proxy says through which proxy a URL is asked, nil for none, where the endpoint has no Proxy of its own. Unset:
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY as http.ProxyFromEnvironment reads them.
	Proxy func(u *url.URL) (*url.URL, error)

	Observe func(endpoint.Exchange) // called for every HTTP exchange once it is over, from any goroutine; nil: exchanges are not observed
	// Received is called for bytes of bodies as they arrive, from any goroutine and often; nil: they are not observed. The
	// Exchange of a large blob comes hours later, with all its bytes at once; the sums are equal.
	Received func(bytes int)
	Log      *slog.Logger // nil: discarded

	handshake func(host string, s tls.ConnectionState) // of examinations; nil: handshakes are not observed
}

// Endpoint is one address of the upstream.
type Endpoint struct {
	URL *url.URL // scheme, host and port; credentials go over http only where this says http
	// RootCAs are trusted for everything that is reached on behalf of the endpoint: itself, its token services and
	// the hosts that it redirects to. Nil: the system's.
	RootCAs *x509.CertPool
	// Prefix goes before the repository of each request, as in a project of Harbor, a repository of Artifactory, or an
	// ECR pull-through rule. Slashes at its ends do not count.
	Prefix string
	// Registry says that this is the registry itself, not a mirror of it: when it answers that content does not exist, or that
	// we have no right to it, no other endpoint is asked. If no endpoint has Registry set, the last one counts as the registry.
	Registry bool
	// Certificate is shown to the endpoint and its token services, never to where it redirects. Nil: none.
	Certificate *tls.Certificate
	// Proxy is as in Options. Nil: that of Options.
	Proxy func(u *url.URL) (*url.URL, error)
	// AuthHosts are as in Options, and instead of those. Nil: those of Options.
	AuthHosts []string
	// Credential is shown to this endpoint and to no other one. Nil: Options.Credential where this is the registry itself, else
	// requests are anonymous. A Registry made by As does not use it.
	Credential auth.Source
}

// Registry speaks to one upstream. It is safe for concurrent use.
type Registry struct {
	*core
	identity  *login.Identity
	redirects bounded.Expiring[redirectKey, redirect]
}

// core is what a Registry shares with its copies under other credentials.
type core struct {
	o          Options
	endpoints  []*target
	logins     *login.Upstream
	transfers  *transfer.Pool
	background *background
}

// New makes a Registry. It makes no request yet. Call Run, or Close when done with it.
func New(o Options) (*Registry, error) {
	o.StallTimeout = cmp.Or(o.StallTimeout, 30*time.Second)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 25*time.Second)
	o.DialTimeout = cmp.Or(o.DialTimeout, 10*time.Second)
	o.UserAgent = cmp.Or(o.UserAgent, "mirror")
	o.MaxTransfers = cmp.Or(o.MaxTransfers, 32)
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
	endpoints, err := newTargets(o)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", o.Name, err)
	}
	c := &core{o: o, endpoints: endpoints, background: newBackground()}
	c.logins = login.NewUpstream(login.Options{
		Public: o.Public, Reserve: o.Reserve, TokenTimeout: o.DialTimeout + o.HeaderTimeout, Log: o.Log, Start: c.background.start,
	})
	for _, ep := range endpoints {
		ep.Health = &endpoint.Health{
			Endpoint: ep.Name, Only: len(endpoints) == 1, Log: o.Log, Start: c.background.start,
			Ping: func(ctx context.Context) error { return c.ping(ctx, ep) },
		}
	}
	list := make([]*endpoint.Endpoint, len(endpoints))
	for i, ep := range endpoints {
		list[i] = ep.Endpoint
	}
	c.transfers = transfer.NewPool(list, transfer.Options{
		MaxTransfers: o.MaxTransfers, StallTimeout: o.StallTimeout, HeaderTimeout: o.HeaderTimeout,
	})
	return &Registry{core: c, identity: &login.Identity{Source: o.Credential, Configured: true}}, nil
}

// As is the same registry asked with another credential: connections, tokens and what was learned are shared, each
// token stays with the credential that got it. Endpoints that are mirrors of the registry are not shown it: they
// are asked anonymously. An auth.Credential is a source of itself.
func (r *Registry) As(s auth.Source) *Registry {
	if s == nil {
		s = auth.Anonymous
	}
	return &Registry{core: r.core, identity: &login.Identity{Source: s}}
}

// CredentialStatus describes a credential without its secret, for packages that must not import auth.
type CredentialStatus = auth.Status

// CredentialStates are the states that a credential can be in, the worst last.
var CredentialStates = []auth.State{
	auth.StateUnknown, auth.StateOK, auth.StateExpiring, auth.StateExpired, auth.StateRejected, auth.StateFailing,
}

// Spare returns a context for work that can wait: see login.Spare.
func Spare(ctx context.Context) context.Context { return login.Spare(ctx) }

// IsSpare reports whether a context is one of Spare.
func IsSpare(ctx context.Context) bool { return login.IsSpare(ctx) }

// Afresh returns a context for requests that prove the right of a login: see login.Afresh.
func Afresh(ctx context.Context, since time.Time) context.Context { return login.Afresh(ctx, since) }

// Budget is what requests under Spare may still use of the limits that the registry has reported: the sum for all credentials. It is
// that of the first endpoint that reports any. False: none has.
func (r *Registry) Budget() (limit, left int64, resetAt time.Time, known bool) {
	for _, ep := range r.endpoints {
		if limit, left, resetAt, known = ep.Limits.Spare(r.o.Reserve); known {
			break
		}
	}
	return limit, left, resetAt, known
}

// Credential is the health of the credential that this Registry asks with, the zero Status for none.
func (r *Registry) Credential() auth.Status {
	return r.logins.Status(r.identity)
}

// Judge adds what the upstream has said of a credential, by its name, to what its source says of it.
func (r *Registry) Judge(st auth.Status) auth.Status { return r.logins.Judge(st) }

// Run renews the tokens that are in use until the context ends, then closes. It returns nil.
func (r *Registry) Run(ctx context.Context) error {
	r.logins.Run(ctx)
	r.Close()
	return nil
}

// Close ends what runs in the background and closes idle connections. Requests under way go on.
func (r *Registry) Close() {
	r.background.close()
	for _, ep := range r.endpoints {
		ep.CloseIdle()
	}
}

// State is the health of the endpoints, in their order. It makes no request.
func (r *Registry) State() []endpoint.Status {
	list := make([]endpoint.Status, len(r.endpoints))
	for i, ep := range r.endpoints {
		list[i] = ep.Health.Status(time.Now())
		list[i].URL = ep.Name
		list[i].Running, list[i].Waiting = r.transfers.Load(ep.Endpoint)
		list[i].Budgets = ep.Limits.All()
	}
	return list
}

// Served reports whether an endpoint has ever given something that it was asked for, so that the upstream is known to exist.
func (r *Registry) Served() bool {
	return slices.ContainsFunc(r.endpoints, func(ep *target) bool { return ep.Health.Served() })
}

// Reset makes the endpoints be asked again, whatever they have said or done before: that they limit us, that nothing is left
// of a limit, that they are down. Tokens and what was learned of logins stay, and State still shows what an endpoint has said.
func (r *Registry) Reset() {
	for _, ep := range r.endpoints {
		ep.Limits.Reset()
		ep.Health.Reset()
	}
	r.transfers.Reset()
}
