package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Inspect gives the endpoints of the registry, to be asked one by one by the code that pulls: over connections of their own,
// with nothing remembered, whatever a breaker says, and with the credential of r. Handshake is called for each TLS handshake
// with a host, from any goroutine. Call end when done with them.
func (r *Registry) Inspect(handshake func(host string, s tls.ConnectionState)) (list []*Inspected, end func(), err error) {
	o := r.o
	o.handshake = handshake
	fresh, err := New(o)
	if err != nil {
		return nil, nil, &fault.Error{Op: "examine", Upstream: r.o.Name, Err: err}
	}
	as := fresh
	if !r.identity.Configured {
		as = fresh.As(r.identity.Source)
	}
	for i, ep := range fresh.endpoints {
		ep.Limits = limit.New(r.endpoints[i].Limits.Spending())
		list = append(list, &Inspected{as, ep})
	}
	return list, fresh.Close, nil
}

// Inspected is an endpoint that is examined.
type Inspected struct {
	r  *Registry
	ep *target
}

// Name is that of the endpoint, as State names it.
func (i *Inspected) Name() string { return i.ep.Name }

// Host is host[:port] of the endpoint.
func (i *Inspected) Host() string { return i.ep.Origin.String() }

// Proxy is the host of the proxy through which a host is reached; empty: none.
func (i *Inspected) Proxy(host string) string {
	p, err := i.ep.Proxy(&url.URL{Scheme: i.ep.Origin.Scheme, Host: host})
	if err != nil || p == nil {
		return ""
	}
	return p.Host
}

// Budgets are what the endpoint has said is left of its limits.
func (i *Inspected) Budgets() []limit.Budget { return i.ep.Limits.All() }

// Attempt begins an operation. Op and reference are those of its errors.
func (i *Inspected) Attempt(op, repository, reference string) *Attempt {
	c := i.r.call(op, repository, reference)
	c.at(i.ep)
	return &Attempt{c}
}

// Attempt is one operation at an endpoint that is examined. Its errors are *fault.Error. It is for one goroutine.
type Attempt struct{ c *call }

// Steps are those that were taken since the last Take.
func (a *Attempt) Steps() []fault.Step { return a.c.trace.Steps }

// Take is Steps, and forgets them.
func (a *Attempt) Take() []fault.Step {
	steps := a.c.trace.Steps
	a.c.trace.Steps = nil
	return steps
}

// Credential is the one that was shown, as it stands; zero: none.
func (a *Attempt) Credential() CredentialStatus { return a.c.login.Status() }

// Ping asks whether the registry's API answers, without a login, and gives the headers of the answer. Notice is what is wrong
// with an answer that keeps no pull from going on.
func (a *Attempt) Ping(ctx context.Context) (h http.Header, notice, err error) {
	c := a.c
	resp, err := c.login.Ping(ctx) //nolint:bodyclose // pinged or Refuse closes it
	switch {
	case err != nil:
		return nil, nil, c.Wrap(err)
	case resp.StatusCode == http.StatusForbidden:
		notice = c.login.Refuse(resp)
	default:
		notice = pinged(c.login, resp)
	}
	return resp.Header, c.Wrap(notice), nil
}

// Manifest gets the manifest as a pull does: of a tag it asks by HEAD first what that means.
func (a *Attempt) Manifest(ctx context.Context) (m *oci.Manifest, err error) {
	c := a.c
	if !isDigest(c.reference) {
		c.op = "resolve"
		var desc oci.Descriptor
		if desc, err = c.resolve(ctx); err == nil {
			c.op, c.reference = "manifest", desc.Digest.String()
		}
	}
	if err == nil {
		m, err = c.manifest(ctx)
	}
	return m, c.addProbe(ctx, c.Wrap(err))
}

// Resolve asks by HEAD what a tag means.
func (a *Attempt) Resolve(ctx context.Context) error {
	_, err := a.c.resolve(ctx)
	return a.c.Wrap(err)
}

// Peek asks for one byte of a blob, and compares the size that the answer says with that of the manifest. It does not follow a
// redirect to a host that is known.
func (a *Attempt) Peek(ctx context.Context, d oci.Descriptor, known func(host string) bool) error {
	c := a.c
	c.reference = d.Digest.String()
	r := c.blobAsk(d.Digest)
	r.Header = http.Header{"Range": {"bytes=0-0"}}
	c.known = known
	size, h, err := c.size(ctx, d.Digest, r)
	refusal, refused := fault.RefusalIn(err)
	switch {
	case errors.Is(err, errKnownHost), refused && refusal.Size == 0: // an empty blob has no first byte
		return nil
	case err != nil:
		return c.Wrap(err)
	case header.IsHTML(h):
		return c.Wrap(fault.NotRegistry("a blob", "a web page"))
	}
	return c.Wrap(checkClaim(d, size))
}

// Config reads the config of an image, and compares its size with that of the manifest.
func (a *Attempt) Config(ctx context.Context, d oci.Descriptor) ([]byte, error) {
	c := a.c
	c.reference = d.Digest.String()
	var b []byte
	resp, err := c.follow(ctx, c.blobAsk(d.Digest))
	if err == nil {
		b, err = c.document(ctx, resp, paper{what: "the config of an image", limit: oci.MaxManifestSize})
	}
	if err == nil && !oci.VerifyDigest(d.Digest, b) {
		err = wrongDigest(d.Digest, b)
	}
	if err == nil {
		err = checkClaim(d, int64(len(b)))
	}
	if err != nil {
		return nil, c.Wrap(err)
	}
	return b, nil
}

// checkClaim is the error for a blob whose size is another than its manifest says. -1: the size is not known.
func checkClaim(d oci.Descriptor, size int64) error {
	if size < 0 || d.Size <= 0 || size == d.Size {
		return nil
	}
	return fault.WrongClaim(d.Size, size)
}

func isDigest(reference string) bool { return strings.Contains(reference, ":") }
