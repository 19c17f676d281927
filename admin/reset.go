package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
)

// ResetRequest is the body of POST /api/v1/upstreams/reset.
type ResetRequest struct {
	Upstream string `json:"upstream"` // a name or alias of the configuration, a pattern, or a host that fits one
}

// ResetAnswer is the answer to it.
type ResetAnswer struct {
	Upstreams []string `json:"upstreams"` // that were reset, sorted
}

// maxResetBody bounds the body of a ResetRequest.
const maxResetBody = 16 << 10

// reset ends what is believed of an upstream. It returns the names of the registries, none for a name that is not known.
func reset(do func(upstream string) []string, log *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// A browser asks a site (by OPTIONS) before a page of another site may send it this type, and we never permit it.
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
			Problem(w, http.StatusUnsupportedMediaType, "send application/json, as in {\"upstream\":\"docker.io\"}")
			return
		}
		var q ResetRequest
		body := json.NewDecoder(io.LimitReader(r.Body, maxResetBody))
		body.DisallowUnknownFields()
		if err := body.Decode(&q); err != nil || q.Upstream == "" {
			Problem(w, http.StatusBadRequest, "the body must be {\"upstream\":\"NAME\"}")
			return
		}
		names := do(q.Upstream)
		if len(names) == 0 {
			Problem(w, http.StatusNotFound, fmt.Sprintf("%q is not an upstream of this mirror, or no client has asked for it yet; "+
				"mirror upstreams shows those that there are", q.Upstream))
			return
		}
		log.InfoContext(r.Context(), "upstream reset", "upstreams", names, "client", r.RemoteAddr)
		writeJSON(w, ResetAnswer{Upstreams: names})
	}
}
