package server

import (
	"net/http"
	"strings"
)

// loops reports, by the Via header, whether a request has been through this process already.
func loops(r *http.Request, via string) bool {
	if via == "" {
		return false
	}
	for _, line := range r.Header.Values("Via") {
		for hop := range strings.SplitSeq(line, ",") {
			// RFC 9110, 7.6.3: received-protocol received-by [comment].
			if f := strings.Fields(hop); len(f) >= 2 && strings.EqualFold(f[1], via) {
				return true
			}
		}
	}
	return false
}
