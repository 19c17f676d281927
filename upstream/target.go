package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/limit"
	"github.com/registrymirror/mirror/upstream/login"
)

// target is one endpoint with all that is kept of it.
type target struct {
	*login.Known
	probes probes
}

// newTargets makes the endpoints of Options whose zero fields are filled in.
func newTargets(o Options) ([]*target, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("no endpoint; give it a URL")
	}
	var common endpoint.Policy
	var err error
	if common.AuthHosts, err = endpoint.ParseNames(o.AuthHosts); err != nil {
		return nil, fmt.Errorf("authHosts: %w", err)
	}
	if common.RedirectHosts, err = endpoint.ParseNames(o.RedirectHosts); err != nil {
		return nil, fmt.Errorf("redirectHosts: %w", err)
	}
	if common.CDNHosts, err = endpoint.ParseNames(o.CDNHosts); err != nil {
		return nil, fmt.Errorf("cdnHosts: %w", err)
	}
	dialer := endpoint.NewDialer(o.Dial, o.Resolver, o.DialTimeout)
	list := make([]*target, len(o.Endpoints))
	itself := false
	for i, e := range o.Endpoints {
		if list[i], err = newTarget(e, o, common, dialer); err != nil {
			return nil, err
		}
		itself = itself || e.Registry
	}
	if !itself {
		list[len(list)-1].IsRegistry = true
	}
	return list, nil
}

func newTarget(e Endpoint, o Options, p endpoint.Policy, d *endpoint.Dialer) (*target, error) {
	if e.AuthHosts != nil && e.URL != nil {
		own, err := endpoint.ParseNames(e.AuthHosts)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: authHosts: %w", e.URL.Redacted(), err)
		}
		p.AuthHosts = own
	}
	proxy := e.Proxy
	if proxy == nil {
		proxy = o.Proxy
	}
	at, err := endpoint.New(endpoint.Options{
		URL: e.URL, Prefix: e.Prefix, Registry: e.Registry, Policy: p,
		RootCAs: e.RootCAs, Certificate: e.Certificate, Proxy: proxy, Dialer: d,
		UserAgent: o.UserAgent, Via: o.Via, StallTimeout: o.StallTimeout, HeaderTimeout: o.HeaderTimeout,
		Observe: o.Observe, Received: o.Received, Handshake: o.handshake,
	})
	if err != nil {
		return nil, err
	}
	t := &target{Known: &login.Known{Endpoint: at, Limits: limit.New(nil), Source: e.Credential}}
	t.probes.calls.Most, t.probes.calls.Lasting = maxRunning, true
	return t, nil
}

// ping asks whether the registry's API answers at all. Most registries answer that a login is needed, which is an answer.
func (c *core) ping(ctx context.Context, ep *target) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.DialTimeout)
	defer cancel()
	p := c.logins.New(ep.Known, &login.Identity{Source: auth.Anonymous}, login.Operation{Trace: &fault.Trace{Endpoint: ep.Name}})
	resp, err := p.Ping(ctx) //nolint:bodyclose // pinged closes it
	if err != nil {
		return err
	}
	return pinged(p, resp)
}

// pinged is what is wrong with the answer to a ping. It closes the answer.
func pinged(p *login.Transport, resp *http.Response) error {
	defer endpoint.Drain(resp.Body)
	switch {
	case resp.StatusCode >= 500:
		return p.Refuse(resp)
	case resp.StatusCode == http.StatusOK && header.IsHTML(resp.Header):
		return fault.NotRegistry("a registry", "a web page")
	}
	return nil
}
