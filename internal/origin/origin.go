package origin

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Options of an Origin. The zero value is an anonymous registry on plain HTTP that serves blobs itself.
type Options struct {
	TLS         bool
	Certificate Certificate // quirks of the certificate, with TLS
	HTTP2       bool        // offer h2, with TLS. Faults of the connection are then resets of the stream
	Auth        Auth        // zero: no login is asked for
	Rate        int         // bytes per second of a body, 0: unlimited
	Header      http.Header // added to each answer of the registry under /v2/, such as ratelimit-remaining
	Limit       Limit       // zero: none
	Network     *Network    // where its hosts are; nil: on the machine's own loopback

	Redirect         bool          // a blob answers 307 to the blob host
	RedirectRelative bool          // and with a path on the registry's own host, as Artifact Registry does
	RedirectLife     time.Duration // how long such an address is good, 0: until ExpireRedirects

	NoReferrers  bool // 404 to the referrers API
	NoFilter     bool // referrers are not filtered by artifactType
	NoHeadBlob   bool // 405 to HEAD of a blob
	NoRange      bool // 200 with all of it to a Range
	NoDigest     bool // no Docker-Content-Digest
	NoLength     bool // no Content-Length on blobs: chunked
	PageSize     int  // most tags in one answer, 0: all
	StrictAccept bool // 404 to a manifest whose type the Accept header does not have
}

// Origin is a running upstream. All methods are safe for concurrent use.
type Origin struct {
	o        Options
	registry *endpoint
	token    *endpoint // nil: on the registry's host
	cdn      *endpoint
	ca       *authority // nil: plain HTTP
	closed   chan struct{}
	once     sync.Once
	running  sync.WaitGroup // handlers

	mu       sync.Mutex // guards all below
	content  map[oci.Digest]content
	repos    map[string]*repository
	rules    []*rule
	log      []*entry
	watchers []*watcher
	tokens   map[string]grant
	spent    map[string]int // of a limit, by account or address
	username string
	users    map[string]User
	password string
	epoch    int // of addresses on the blob host
}

// Start runs an Origin until the test ends.
func Start(t testing.TB, o Options) *Origin {
	t.Helper()
	origin, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(origin.Close)
	return origin
}

// New runs an Origin. The caller closes it.
func New(o Options) (*Origin, error) {
	g := &Origin{
		o: o, closed: make(chan struct{}), content: make(map[oci.Digest]content),
		repos: make(map[string]*repository), tokens: make(map[string]grant),
		spent:    make(map[string]int),
		username: o.Auth.Username, password: o.Auth.Password, users: maps.Clone(o.Auth.Users),
	}
	if o.TLS {
		ca, err := newAuthority(o.Certificate)
		if err != nil {
			return nil, fmt.Errorf("start origin: %w", err)
		}
		g.ca = ca
	}
	var err error
	for _, e := range []struct {
		to   **endpoint
		role Role
		want bool
	}{{&g.registry, RoleRegistry, true}, {&g.cdn, RoleCDN, true}, {&g.token, RoleToken, o.Auth.SeparateHost}} {
		if !e.want {
			continue
		}
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(e.role, w, r) })
		if *e.to, err = listen(o.Network, h, g.ca, o.HTTP2); err != nil {
			g.Close()
			return nil, fmt.Errorf("start origin: %w", err)
		}
	}
	return g, nil
}

func (g *Origin) endpoints() []*endpoint {
	var list []*endpoint
	for _, e := range []*endpoint{g.registry, g.cdn, g.token} {
		if e != nil {
			list = append(list, e)
		}
	}
	return list
}

// Close ends all connections and returns when no handler runs any more.
func (g *Origin) Close() {
	g.mu.Lock() // a handler that begins looks at closed under it
	g.once.Do(func() { close(g.closed) })
	g.mu.Unlock()
	for _, e := range g.endpoints() {
		e.close()
	}
	g.running.Wait()
}

// Down refuses connections at all of its hosts and resets those that are open. The ports stay its own.
func (g *Origin) Down() {
	for _, e := range g.endpoints() {
		e.down()
	}
}

// Silent accepts connections and never says a word on them, not even a TLS one. Those that are open are reset.
func (g *Origin) Silent() {
	for _, e := range g.endpoints() {
		e.silent()
	}
}

// Up ends Down and Silent.
func (g *Origin) Up() {
	for _, e := range g.endpoints() {
		e.up()
	}
}

// DownCDN refuses connections at the blob host alone, as firewalls do. Up ends it.
func (g *Origin) DownCDN() { g.cdn.down() }

func (g *Origin) scheme() string {
	if g.ca != nil {
		return "https"
	}
	return "http"
}

// URL is the registry's base, without a slash at its end.
func (g *Origin) URL() string { return g.scheme() + "://" + g.registry.host }

// Host is the registry's host:port.
func (g *Origin) Host() string { return g.registry.host }

// CDNHost is the blob host's host:port.
func (g *Origin) CDNHost() string { return g.cdn.host }

// TokenHost is the token service's host:port.
func (g *Origin) TokenHost() string {
	if g.token != nil {
		return g.token.host
	}
	return g.registry.host
}

// CA is a pool with the authority that signed its certificates, nil on plain HTTP.
func (g *Origin) CA() *x509.CertPool {
	if g.ca == nil {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(g.ca.pem)
	return pool
}

// CAPEM is that authority's certificate, nil on plain HTTP.
func (g *Origin) CAPEM() []byte {
	if g.ca == nil {
		return nil
	}
	return g.ca.pem
}

// wait is until the gate is open, the client has left or the origin is closed, and reports whether to go on.
func (g *Origin) wait(ctx context.Context, gate *Gate) bool {
	if gate == nil {
		return true
	}
	gate.arrive()
	select {
	case <-gate.open:
		return true
	case <-ctx.Done():
		return false
	case <-g.closed:
		return false
	}
}

// sleep is wait for a time.
func (g *Origin) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-g.closed:
		return false
	}
}
