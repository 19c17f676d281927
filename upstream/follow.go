package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
)

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

// answer is a successful one, and where it came from.
type answer struct {
	*http.Response
	host  string
	url   *url.URL
	reach reach // of that host
}

// follow makes a request to the registry and follows its redirects by hand. Credentials stay with the endpoint, the
// Range and Accept headers go along. What is neither 200 nor 206 is an error.
func (c *call) follow(ctx context.Context, a ask) (*answer, error) {
	near := reachAny
	for hop := 0; ; hop++ {
		here, _ := originOf(a.url)
		var resp *http.Response
		var err error
		if here == c.ep.origin {
			a.reach = reachAny
			resp, err = c.send(ctx, a) //nolint:bodyclose // the answer's; or refuse or spill closes it
		} else {
			resp, err = c.exchange(ctx, c.ep.blobs[a.reach], a, grant{}) //nolint:bodyclose // as above
		}
		if err != nil {
			return nil, err
		}
		step := c.steps[len(c.steps)-1]
		switch {
		case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent:
			return &answer{Response: resp, host: here.String(), url: a.url, reach: a.reach}, nil
		case resp.StatusCode/100 == 2: // accepted, or without content: nothing that a registry says to a GET
			spill(resp.Body)
			err := &ContentError{
				Kind: ContentNotRegistry, Want: "status 200", Got: fmt.Sprintf("status %d", resp.StatusCode),
			}
			return nil, &fault{err: err, step: step}
		case !isRedirect(resp.StatusCode):
			return nil, c.refuse(resp)
		}
		location := resp.Header.Get("Location")
		spill(resp.Body)
		near = min(near, c.reachOf(a.url, step.Addr))
		if hop == maxRedirects {
			err := &RedirectError{Host: here.String(), Why: "more than 5 redirects", Final: true}
			return nil, &fault{err: err, step: step}
		}
		next, reach, err := c.ep.policy.redirect(c.ep.origin, a.url, location, near, c.ep.proxied)
		if err != nil {
			return nil, &fault{err: err, step: step}
		}
		if to, _ := originOf(next); a.known != nil && a.known(to.String()) {
			return nil, errKnownHost
		}
		a = a.redirected(next, reach, c.ep.origin)
	}
}

var errKnownHost = errors.New("a redirect to a host that need not be asked")

// redirected is the request to where a redirect leads.
func (a ask) redirected(to *url.URL, r reach, endpoint origin) ask {
	a.url, a.reach = to, r
	if o, _ := originOf(to); o != endpoint && a.step == StepBlobRegistry {
		a.step = StepBlobHost
	}
	if a.method == http.MethodHead && (a.step == StepBlobRegistry || a.step == StepBlobHost) {
		// Signed URLs of object stores are good for one method, and that is GET.
		a.method, a.header = http.MethodGet, http.Header{"Range": {"bytes=0-0"}}
	}
	return a
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return true
	}
	return false
}

// reachOf is what the host of a URL, which answered from addr, may redirect to. A proxy hides where it is.
func (c *call) reachOf(u *url.URL, addr string) reach {
	if c.ep.proxied(u) {
		return reachPublic
	}
	return reachFrom(addr)
}
