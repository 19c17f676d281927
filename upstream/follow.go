package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// follow makes a request to the registry and follows its redirects by hand. Credentials stay with the endpoint, the Range and
// Accept headers go along. Any status but 200 and 206 is an error.
func (c *call) follow(ctx context.Context, a endpoint.Request) (_ *endpoint.Answer, err error) {
	near := endpoint.ReachAny
	var here endpoint.Origin
	defer func() {
		if f, ok := errors.AsType[*fault.Failure](err); ok && here != c.ep.Origin {
			f.Redirected = true
		}
	}()
	for hop := 0; ; hop++ {
		here, _ = endpoint.OriginOf(a.URL)
		var resp *http.Response
		var err error
		if here == c.ep.Origin {
			a.Reach = endpoint.ReachAny
			resp, err = c.login.RoundTrip(ctx, a) //nolint:bodyclose // the answer's; or Refuse or Drain closes it
		} else {
			resp, err = c.login.Bare(ctx, c.ep.Blobs[a.Reach], a) //nolint:bodyclose // as above
			if err == nil && resp.StatusCode == http.StatusUnauthorized {
				resp, err = c.login.Elsewhere(ctx, c.ep.Elsewhere[a.Reach], a, resp) //nolint:bodyclose // as above
			}
		}
		if err != nil {
			return nil, err
		}
		step := *c.trace.Last()
		switch {
		case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent:
			return &endpoint.Answer{Response: resp, URL: a.URL, Host: here.String(), Reach: a.Reach, Step: step}, nil
		case resp.StatusCode/100 == 2: // accepted, or without content: not an answer of a registry to a GET
			endpoint.Drain(resp.Body)
			err := fault.NotRegistry("status 200", fmt.Sprintf("status %d", resp.StatusCode))
			return nil, &fault.Failure{Err: err, Step: step}
		case !endpoint.IsRedirect(resp.StatusCode):
			return nil, c.login.Refuse(resp)
		}
		location := resp.Header.Get("Location")
		endpoint.Drain(resp.Body)
		near = min(near, c.ep.ReachOf(a.URL, step.Addr))
		if hop == endpoint.MaxRedirects {
			err := &fault.RedirectError{Host: here.String(), Why: "more than 5 redirects", Final: true}
			return nil, &fault.Failure{Err: err, Step: step}
		}
		next, reach, err := c.ep.Policy.Redirect(c.ep.Origin, a.URL, location, near, c.ep.Proxied)
		if err != nil {
			return nil, &fault.Failure{Err: err, Step: step}
		}
		if to, _ := endpoint.OriginOf(next); c.known != nil && c.known(to.String()) {
			return nil, errKnownHost
		}
		a = a.Redirected(next, reach, c.ep.Origin)
	}
}

// errKnownHost is of a redirect to a host that is known, which is not followed.
var errKnownHost = errors.New("a redirect to a host that need not be asked")
