package upstream

import (
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// health is what the upstream thinks of our credentials, beyond what their sources know.
type health struct {
	mu   sync.Mutex // guards what follows
	bad  map[identity]ailment
	used []auth.Credential // the last ones
}

type ailment struct {
	state auth.State
	why   string
}

// maxIdentities bounds what is remembered: where clients bring their own credentials there are many.
const maxIdentities = 1024

// maxUsed is how many credentials are kept out of messages, even of answers to others: a server that has seen a
// password can repeat it to anybody.
const maxUsed = 32

// use notes that a credential is about to be used.
func (h *health) use(c auth.Credential) {
	if c.IsAnonymous() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, old := range h.used {
		if identityOf(old) == identityOf(c) {
			return
		}
	}
	if len(h.used) == maxUsed {
		h.used = slices.Delete(h.used, 0, 1)
	}
	h.used = append(h.used, c)
}

// secrets are the credentials to keep out of messages.
func (h *health) secrets() []auth.Credential {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.used)
}

// mark notes that a credential was refused. It reports whether that is news.
func (h *health) mark(c auth.Credential, state auth.State, why string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad == nil || len(h.bad) > maxIdentities {
		h.bad = make(map[identity]ailment)
	}
	old, known := h.bad[identityOf(c)]
	h.bad[identityOf(c)] = ailment{state, why}
	return !known || old.state != state
}

// clear notes that a credential was accepted.
func (h *health) clear(c auth.Credential) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bad, identityOf(c))
}

// status is how a credential of a source is. sourceErr is why there is none.
func (h *health) status(s auth.Source, c auth.Credential, sourceErr error) auth.Status {
	st := auth.Describe(s)
	if sourceErr != nil {
		st.State, st.LastError = auth.StateFailing, sourceErr.Error()
		return st
	}
	if c.IsAnonymous() {
		return auth.Status{}
	}
	st.Name = orElse(st.Name, c.Name)
	st.Expires = orElse(st.Expires, c.Expires)
	h.mu.Lock()
	a, bad := h.bad[identityOf(c)]
	h.mu.Unlock()
	switch {
	case !c.Expires.IsZero() && time.Now().After(c.Expires):
		st.State = auth.StateExpired
	case bad:
		st.State = a.state
	}
	if bad {
		st.LastError = a.why
	}
	return st
}
