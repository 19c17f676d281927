package admin

import (
	"errors"
	"fmt"
	"net/http"
)

// ResetRequest is the body of POST /api/v1/upstreams/reset.
type ResetRequest struct {
	Upstream string `json:"upstream"` // a name or alias of the configuration, a pattern, or a host that fits one
}

// ResetAnswer is the answer to it.
type ResetAnswer struct {
	Upstreams []string `json:"upstreams"` // those that were reset, sorted
}

// resetUpstream forgets what is believed of an upstream.
func (o Options) resetUpstream(_ http.ResponseWriter, r *http.Request) (any, error) {
	const example = `{"upstream":"NAME"}`
	var q ResetRequest
	if err := readRequest(r, &q, example); err != nil {
		return nil, err
	}
	if q.Upstream == "" {
		return nil, badRequest(errors.New("the body must be " + example))
	}
	names := o.Reset(q.Upstream)
	if len(names) == 0 {
		return nil, &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("%q is not an upstream of this mirror, or no client "+
			"has pulled from it yet; mirror upstreams lists the upstreams", q.Upstream)}
	}
	o.Log.InfoContext(r.Context(), "upstream reset", "upstream", names, "client", r.RemoteAddr)
	return ResetAnswer{Upstreams: names}, nil
}
