package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/share"
)

// ClientLimits are limits of requests and bandwidth for each client: its identity, or else its address.
type ClientLimits struct {
	*share.Limits
	// ByAddress says that a client without an identity is its address. Without it only the total limits such clients, all together
	// as one: an address may be a whole cluster's.
	ByAddress bool
}

// Limit puts limits of clients into use, for requests from now on. Nil Limits: there are none.
func (s *Server) Limit(l ClientLimits) { s.limits.Store(&l) }

// limit waits until the client may have one more request.
func (x *exchange) limit() error {
	l := x.s.limits.Load()
	if l == nil || l.Limits == nil {
		return nil
	}
	c := share.Client{Identity: string(x.who)}
	if x.who == "" && l.ByAddress {
		c.Address = client.Source(x.r, x.s.o.Proxies)
	}
	var err error
	x.w.share, err = l.Begin(x.r.Context(), c)
	full, ok := errors.AsType[*share.FullError](err)
	if !ok {
		return err
	}
	text := fmt.Sprintf("the client has as many requests at once as it may have, %d, and as many wait as may", full.Most)
	if full.Waited > 0 {
		text = fmt.Sprintf("the client has as many requests at once as it may have, %d, and this one waited %s", full.Most, full.Waited.Round(time.Second))
	}
	return diagnose.New(diagnose.ClientLimited, text, "pull fewer images at once, or raise clients.limits.maxRequests of the mirror")
}
