package upstream

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
)

// health is what the upstream thinks of our credentials, beyond what their sources know.
type health struct {
	mu   sync.Mutex // guards what follows
	bad  map[identity]ailment
	used []auth.Credential   // the last ones
	now  map[string]identity // of each name, what was used last
	vain map[errand]time.Time
	no   map[errand]time.Time // refusals of one of several credentials
	came map[string]identity  // of each name, what came last after a refusal
}

// errand is what a credential was renewed for.
type errand struct{ name, repository string }

// vainFor is how long a credential is not renewed again for a repository that has refused the renewed one too.
const vainFor = 30 * time.Second

// inVain notes that a renewed credential was refused, too.
func (h *health) inVain(e errand) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.vain == nil || len(h.vain) >= maxIdentities {
		h.vain = make(map[errand]time.Time)
	}
	h.vain[e] = time.Now()
}

// wasInVain reports whether that was lately.
func (h *health) wasInVain(e errand) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.vain[e]
	return ok && time.Since(at) < vainFor
}

// declinedFor is how long a credential that a repository has refused is tried after the others that fit.
const declinedFor = 10 * time.Minute

// declined notes that a repository has refused a credential.
func (h *health) declined(e errand) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.no == nil || len(h.no) >= maxIdentities {
		h.no = make(map[errand]time.Time)
	}
	h.no[e] = time.Now()
}

// wasDeclined reports whether that was lately.
func (h *health) wasDeclined(e errand) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.no[e]
	return ok && time.Since(at) < declinedFor
}

type ailment struct {
	state auth.State
	why   string
	since time.Time // of the state
	at    time.Time // when why came
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
	if c.Name != "" { // those of clients have none
		if h.now == nil {
			h.now = make(map[string]identity)
		}
		h.now[c.Name] = identityOf(c)
	}
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
	now := time.Now()
	old, known := h.bad[identityOf(c)]
	next := ailment{state: state, why: why, since: now, at: now}
	if known && old.state == state {
		next.since = old.since
	}
	h.bad[identityOf(c)] = next
	return !known || old.state != state
}

// renewed notes what came after a refusal, and reports whether that is news: many may have waited for it.
func (h *health) renewed(c auth.Credential) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.came[c.Name] == identityOf(c) {
		return false
	}
	if h.came == nil || len(h.came) >= maxIdentities {
		h.came = make(map[string]identity)
	}
	h.came[c.Name] = identityOf(c)
	return true
}

// clear notes that a credential was accepted for a repository.
func (h *health) clear(c auth.Credential, repository string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bad, identityOf(c))
	delete(h.vain, errand{c.Name, repository})
	delete(h.no, errand{c.Name, repository})
}

// judge adds what the upstream thinks of a credential, by its name, to what its source says.
func (h *health) judge(st auth.Status) auth.Status {
	h.mu.Lock()
	a, bad := h.bad[h.now[st.Name]]
	h.mu.Unlock()
	switch {
	case !bad:
		return st
	case st.State == auth.StateExpired:
	default:
		st.State, st.Since = a.state, a.since
	}
	if st.LastError == "" {
		st.LastError, st.LastErrorAt = a.why, a.at
	}
	return st
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
	st.Name = cmp.Or(st.Name, c.Name)
	st.Expires = cmp.Or(st.Expires, c.Expires)
	h.mu.Lock()
	a, bad := h.bad[identityOf(c)]
	h.mu.Unlock()
	switch {
	case !c.Expires.IsZero() && time.Now().After(c.Expires):
		st.State = auth.StateExpired
	case bad:
		st.State = a.state
	}
	if bad && st.LastError == "" { // a source that fails is why a refused credential is still in use
		st.LastError, st.LastErrorAt = a.why, a.at
	}
	return st
}
