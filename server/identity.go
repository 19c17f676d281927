package server

import (
	"encoding/json"
	"net/http"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/diagnose"
)

// identityPath is where a client asks which identity it has.
const identityPath = "/identity"

// Identity is the answer to GET /identity.
type Identity struct {
	// Identity is the client as rules and records name it, as in node:worker-1; empty: anonymous.
	Identity string `json:"identity"`
	// Refused says why a login or a certificate of the request does not count. Empty: it counts, there is none, or the mirror has no way to
	// log in by what was sent.
	Refused string `json:"refused,omitempty"`
}

// identity answers with the identity that a pull with the same login has that names its registry, as those of nodes do. It needs no right,
// and a pull is neither recorded nor begun. Wrong logins are limited and counted as everywhere.
func (s *Server) identity(w http.ResponseWriter, r *http.Request) {
	if overloaded(r.Context()) {
		w.Header().Set("Retry-After", "10")
		word(w, r, http.StatusServiceUnavailable, "the mirror has as many connections as it may have; ask again in a moment")
		return
	}
	var answer Identity
	if s.o.Clients != nil {
		who, note, err := s.o.Clients.Identify(r, client.Source(r, s.o.Proxies), true)
		if err != nil {
			note = err.Error()
		}
		answer.Identity, answer.Refused = string(who), diagnose.Clean(note)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		word(w, r, http.StatusInternalServerError, "the mirror can't write its answer")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(append(b, '\n'))
}
