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
	// How many credentials, and how many tokens, are kept out of messages, even out of those that are for other clients.
	maxRecent = 32
	maxShown  = 64
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
	refusals       bounded.Expiring[purpose, struct{}] // by a repository, of one of several credentials
	failedRenewals bounded.Expiring[purpose, struct{}] // where the renewed credential was refused, too

	mu       sync.Mutex // guards the following fields; taken before the locks of the fields above
	problems map[identity]problem
	inUse    map[string]identity // by name: what was used last
	renewals map[string]identity // by name: what the latest renewal gave
}

// secrets are the credentials that were shown last: a server that has seen one can repeat it in any answer.
type secrets struct {
	mu   sync.Mutex        // guards list; a leaf
	list []auth.Credential // the oldest first
}

func (s *secrets) add(c auth.Credential, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.list, func(old auth.Credential) bool { return identityOf(old) == identityOf(c) }) {
		return
	}
	if len(s.list) == most {
		s.list = slices.Delete(s.list, 0, 1)
	}
	s.list = append(s.list, c)
}

func (s *secrets) all() []auth.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// uses records that a credential is about to be used.
func (u *Upstream) uses(c auth.Credential) {
	if c.IsAnonymous() {
		return
	}
	u.credentials.add(c, maxRecent)
	if c.Name == "" { // those of clients have none
		return
	}
	u.standing.mu.Lock()
	defer u.standing.mu.Unlock()
	bounded.Put(&u.standing.inUse, c.Name, identityOf(c), maxRemembered)
}

func (s *standing) accepted(c auth.Credential, repository string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.problems, identityOf(c))
	s.failedRenewals.Delete(purpose{c.Name, repository})
	s.refusals.Delete(purpose{c.Name, repository})
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

// Judge adds what the upstream has said of a credential, by its name, to what its source says of it.
func (u *Upstream) Judge(st auth.Status) auth.Status {
	u.standing.mu.Lock()
	p, bad := u.standing.problems[u.standing.inUse[st.Name]]
	u.standing.mu.Unlock()
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
