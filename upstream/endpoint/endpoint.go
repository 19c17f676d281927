package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// Options say where an endpoint is and how it is reached.
type Options struct {
	URL      *url.URL // scheme, host and port
	Prefix   string   // before the repository of each request; slashes at its ends do not count
	Registry bool     // it is the registry itself, not a mirror of it
	Policy   Policy

	RootCAs     *x509.CertPool   // nil: the system's
	Certificate *tls.Certificate // shown to the endpoint and its token services alone; nil: none
	// Proxy says through which proxy a URL is reached, nil for none.
	Proxy  func(*url.URL) (*url.URL, error)
	Dialer *Dialer

	UserAgent     string
	Via           string        // our name in the Via header; empty: no such header
	StallTimeout  time.Duration // longest pause between two bytes of a body
	HeaderTimeout time.Duration // from a request to its answer's headers

	Observe  func(Exchange)  // called for every exchange once it is over; nil: it is not observed
	Received func(bytes int) // called for bytes of bodies as they arrive
	// Handshake is called for each TLS handshake with a host, from any goroutine; nil: it is not observed.
	Handshake func(host string, s tls.ConnectionState)
}

// Endpoint is one address of an upstream with its connections and its health. It is safe for concurrent use.
type Endpoint struct {
	Name       string // URL and prefix, as operators know it
	URL        *url.URL
	Origin     Origin
	Prefix     string // of repositories, with a slash at its end; empty: none
	IsRegistry bool   // it is the registry, not a mirror of it
	Policy     Policy
	o          Options
	Registry   *http.Transport // may carry credentials
	// Blobs refuse credentials. There is one for each reach: a connection that was dialled with a wide one must not serve a
	// request with a narrow one.
	Blobs [ReachAny + 1]http.RoundTripper
	// Elsewhere, by reach like Blobs and over the same connections, may carry a token of another registry that the endpoint
	// redirects to. It shows no certificate.
	Elsewhere [ReachAny + 1]*http.Transport
	Health    *Health // set before the first request
}

// New makes an endpoint. It connects to nothing yet.
func New(o Options) (*Endpoint, error) {
	if o.URL == nil {
		return nil, errors.New("an endpoint without URL")
	}
	at, ok := OriginOf(o.URL)
	if !ok || o.URL.User != nil || o.URL.RawQuery != "" || o.URL.Fragment != "" || o.URL.Path != "" && o.URL.Path != "/" {
		return nil, fmt.Errorf("endpoint %s is not http(s)://HOST[:PORT]", o.URL.Redacted())
	}
	e := &Endpoint{URL: &url.URL{Scheme: at.Scheme, Host: o.URL.Host}, Origin: at, IsRegistry: o.Registry, Policy: o.Policy, o: o}
	e.Name = e.URL.String()
	if prefix := strings.Trim(o.Prefix, "/"); prefix != "" {
		if !oci.IsRepository(prefix) {
			return nil, fmt.Errorf("endpoint %s: prefix %q is not what a repository can begin with", e.Name, o.Prefix)
		}
		e.Prefix = prefix + "/"
		e.Name += "/" + prefix
	}
	// It may redirect to itself, at any address.
	e.Policy.RedirectHosts = append(slices.Clip(e.Policy.RedirectHosts), named{host: at.Host})
	e.Registry = newTransport(e)
	if o.Certificate != nil { // a host that it redirects to is not shown the certificate
		e.Registry.TLSClientConfig.Certificates = []tls.Certificate{*o.Certificate}
	}
	for i := range e.Blobs {
		e.Elsewhere[i] = newTransport(e)
		e.Blobs[i] = bare{e.Elsewhere[i]}
	}
	return e, nil
}

// CloseIdle closes idle connections.
func (e *Endpoint) CloseIdle() {
	e.Registry.CloseIdleConnections()
	for _, t := range e.Elsewhere {
		t.CloseIdleConnections()
	}
}

// At is a path of the registry's API as a URL.
func (e *Endpoint) At(path, query string) *url.URL {
	u := *e.URL
	u.Path, u.RawQuery = path, query
	return &u
}

// Certified reports whether the endpoint is shown a certificate, which is a login.
func (e *Endpoint) Certified() bool { return e.o.Certificate != nil }

// Proxy is the proxy through which a URL is reached; nil: none.
func (e *Endpoint) Proxy(u *url.URL) (*url.URL, error) { return e.o.Proxy(u) }

// Proxied reports whether a URL is reached through a proxy, which then dials.
func (e *Endpoint) Proxied(u *url.URL) bool {
	p, err := e.Proxy(u)
	return p != nil || err != nil
}

// Ready reports whether the endpoint is to be asked in its place, and not after the others.
func (e *Endpoint) Ready(k Kind, now time.Time) bool { return e.Health.Ready(k, now) }

// Order is the order in which endpoints are asked: as they were given, those that are down or limit us after the others.
// The first ready ones are not.
func Order[E interface{ Ready(Kind, time.Time) bool }](endpoints []E, k Kind) (order []E, ready int) {
	now := time.Now()
	var later []E
	for _, e := range endpoints {
		if e.Ready(k, now) {
			order = append(order, e)
		} else {
			later = append(later, e)
		}
	}
	return append(order, later...), len(order)
}

// Share is how long an endpoint may take to answer while there are others to ask after it: they share the time that a client
// waits. 0: no limit.
func Share(patience time.Duration, others int) time.Duration {
	if others <= 0 {
		return 0
	}
	return patience / time.Duration(others+1)
}

// WithPatience ends a context after d with a *fault.PatienceError, unless answered is called before; a d of 0 never does. Call
// end when done with the context.
func WithPatience(ctx context.Context, d time.Duration) (_ context.Context, answered func(), end context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end = func() { cancel(nil) }
	if d == 0 {
		return ctx, func() {}, end
	}
	timer := time.AfterFunc(d, func() { cancel(&fault.PatienceError{After: d}) })
	return ctx, func() { timer.Stop() }, end
}

// newTransport makes connections of one kind. They speak HTTP/1.1: registries that keep their blobs send them over
// the same connections as manifests, and one stream of Go's HTTP/2 is slower and stops at its window of 4 MiB per
// round trip.
func newTransport(e *Endpoint) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return e.Proxy(r.URL) },
		OnProxyConnectResponse: refusedByProxy,
		DialContext:            e.o.Dialer.Dial,
		TLSClientConfig:        &tls.Config{RootCAs: e.o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  e.o.HeaderTimeout,
		// The digest of a blob is of the bytes as they are stored: the transport must not decompress them.
		DisableCompression:     true,
		Protocols:              protocols,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 128 << 10,
		ReadBufferSize:         64 << 10,
	}
}

func refusedByProxy(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &fault.ProxyError{Proxy: proxy.Host, Target: req.Host, Status: resp.StatusCode}
}

// bare refuses requests with credentials. Requests to where a registry redirects go over it.
type bare struct{ http.RoundTripper }

var errNotBare = errors.New("a request with credentials for a host that gets none")

func (b bare) RoundTrip(r *http.Request) (*http.Response, error) {
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		if len(r.Header.Values(name)) > 0 {
			return nil, errNotBare
		}
	}
	return b.RoundTripper.RoundTrip(r)
}
