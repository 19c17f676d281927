package login

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/bounded"
)

const (
	// maxRemembered bounds each map: where clients bring their own credentials there are many.
	maxRemembered = 1024
	// maxRecent is how many credentials are kept out of messages, even out of those that are for other clients: a server
	// that has seen a password can repeat it in any answer.
	maxRecent = 32
	// refusedFor is how long a credential that a repository has refused is tried after the others that fit.
	refusedFor = 10 * time.Minute
	// noRenewalFor is how long a credential is not renewed again for a repository that has refused the renewed one, too.
	noRenewalFor = 30 * time.Second
)

// identity is what of a credential a token depends on.
type identity struct {
	username           string
	password, identity auth.Secret
}

func identityOf(c auth.Credential) identity { return identity{c.Username, c.Password, c.Identity} }

// purpose is what a credential is used for.
type purpose struct{ credential, repository string }

// problem is why a credential was refused.
type problem struct {
	state  auth.State
	reason string
	since  time.Time // of the state
	at     time.Time // of the reason
}

// standing is what the upstream has said of our credentials, beyond what their sources know.
type standing struct {
	mu             sync.Mutex // guards the following fields; a leaf
	problems       map[identity]problem
	recent         []auth.Credential     // the oldest first
	inUse          map[string]identity   // by name: what was used last
	refusals       map[purpose]time.Time // the latest
	failedRenewals map[purpose]time.Time // the latest
	renewals       map[string]identity   // by name: what the latest renewal gave
}

// uses records that a credential is about to be used.
func (s *standing) uses(c auth.Credential) {
	if c.IsAnonymous() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Name != "" { // those of clients have none
		bounded.Put(&s.inUse, c.Name, identityOf(c), maxRemembered)
	}
	for _, old := range s.recent {
		if identityOf(old) == identityOf(c) {
			return
		}
	}
	if len(s.recent) == maxRecent {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.recent = append(s.recent, c)
}

// secrets are the credentials to keep out of messages.
func (s *standing) secrets() []auth.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.recent)
}

// accepted records that a credential was accepted for a repository.
func (s *standing) accepted(c auth.Credential, repository string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.problems, identityOf(c))
	delete(s.failedRenewals, purpose{c.Name, repository})
	delete(s.refusals, purpose{c.Name, repository})
}

// rejected records that a credential is not valid, and reports whether that is news.
func (s *standing) rejected(c auth.Credential, state auth.State, reason string) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	old, known := s.problems[identityOf(c)]
	p := problem{state: state, reason: reason, since: now, at: now}
	if known && old.state == state {
		p.since = old.since
	}
	bounded.Put(&s.problems, identityOf(c), p, maxRemembered)
	return !known || old.state != state
}

// refused records that a repository has refused one of several credentials.
func (s *standing) refused(p purpose) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bounded.Put(&s.refusals, p, time.Now(), maxRemembered)
}

// wasRefused reports whether that was lately.
func (s *standing) wasRefused(p purpose) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.refusals[p]
	return ok && time.Since(at) < refusedFor
}

// renewed records what a renewal gave, and reports whether that is news: many requests may have waited for it.
func (s *standing) renewed(c auth.Credential) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.renewals[c.Name] == identityOf(c) {
		return false
	}
	bounded.Put(&s.renewals, c.Name, identityOf(c), maxRemembered)
	return true
}

// renewalFailed records that a renewed credential was refused, too.
func (s *standing) renewalFailed(p purpose) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bounded.Put(&s.failedRenewals, p, time.Now(), maxRemembered)
}

// hasFailedRenewal reports whether that was lately.
func (s *standing) hasFailedRenewal(p purpose) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.failedRenewals[p]
	return ok && time.Since(at) < noRenewalFor
}

// judge adds what the upstream has said of a credential, by its name, to what its source says.
func (s *standing) judge(st auth.Status) auth.Status {
	s.mu.Lock()
	p, bad := s.problems[s.inUse[st.Name]]
	s.mu.Unlock()
	if !bad {
		return st
	}
	if st.State != auth.StateExpired {
		st.State, st.Since = p.state, p.since
	}
	if st.LastError == "" {
		st.LastError, st.LastErrorAt = p.reason, p.at
	}
	return st
}

// status is the state of a credential of a source. sourceErr is why there is none.
func (s *standing) status(source auth.Source, c auth.Credential, sourceErr error) auth.Status {
	st := auth.Describe(source)
	if sourceErr != nil {
		st.State, st.LastError = auth.StateFailing, sourceErr.Error()
		return st
	}
	if c.IsAnonymous() {
		return auth.Status{}
	}
	st.Name = cmp.Or(st.Name, c.Name)
	st.Expires = cmp.Or(st.Expires, c.Expires)
	s.mu.Lock()
	p, bad := s.problems[identityOf(c)]
	s.mu.Unlock()
	switch {
	case !c.Expires.IsZero() && time.Now().After(c.Expires):
		st.State = auth.StateExpired
	case bad:
		st.State = p.state
	}
	if bad && st.LastError == "" { // a source that fails is why a refused credential is still in use
		st.LastError, st.LastErrorAt = p.reason, p.at
	}
	return st
}
