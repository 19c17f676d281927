package login

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Options are what the logins of one upstream have in common.
type Options struct {
	// Public says that the configured credentials are used for public repositories alone: a repository is asked for with
	// them once it has shown a manifest without a login, and for a day after.
	Public bool
	// Reserve is the part of each limit, 0 to 1, that requests under Spare leave to others.
	Reserve float64
	// TokenTimeout is how long a request for a token may take.
	TokenTimeout time.Duration
	Log          *slog.Logger
}

// Upstream is what the logins of one upstream share: tokens, how its credentials fare, and what is kept out of messages. It
// is safe for concurrent use.
type Upstream struct {
	o        Options
	tokens   *tokens
	standing standing
	shown    shown
}

// NewUpstream makes an Upstream. Close it when done with it.
func NewUpstream(o Options) *Upstream { return &Upstream{o: o, tokens: newTokens(o.Log)} }

// Run renews the tokens that are in use until the context ends.
func (u *Upstream) Run(ctx context.Context) { u.tokens.run(ctx) }

// Close ends renewals and waits for them.
func (u *Upstream) Close() { u.tokens.close() }

// Judge adds what the upstream has said of a credential, by its name, to what its source says of it.
func (u *Upstream) Judge(st auth.Status) auth.Status { return u.standing.judge(st) }

// Secrets are the credentials and tokens that must be in no message.
func (u *Upstream) Secrets() []auth.Credential { return append(u.standing.secrets(), u.shown.all()...) }

// Known is one endpoint with what is known of how it lets requests in. It is safe for concurrent use.
type Known struct {
	*endpoint.Endpoint
	Limits  *limit.Limits
	source  auth.Source // of its own; nil: that of the Identity where it is the registry itself, else none
	schemes schemes
	public  public
}

// NewKnown makes a Known of which nothing is known yet. Source is the endpoint's own credential; nil: it has none.
func NewKnown(e *endpoint.Endpoint, source auth.Source) *Known {
	return &Known{Endpoint: e, Limits: limit.New(nil), source: source}
}

// givesTokens reports whether a repository is known to ask for tokens: a 401 to one is about rights, not about passwords.
func (e *Known) givesTokens(repository string) bool {
	sc, _, known := e.schemes.of(repository)
	return known && sc.realm != ""
}

// maxShown is how many tokens are kept out of messages.
const maxShown = 64

// shown are the tokens that were shown last: a server that has seen one can repeat it in any answer.
type shown struct {
	mu    sync.Mutex // guards the following fields; a leaf
	known map[auth.Secret]bool
	order []auth.Secret // the oldest first
}

func (s *shown) add(token auth.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.known[token]:
		return
	case s.known == nil:
		s.known = make(map[auth.Secret]bool)
	case len(s.order) == maxShown:
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
	s.known[token] = true
	s.order = append(s.order, token)
}

func (s *shown) all() (list []auth.Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range s.order {
		list = append(list, auth.Credential{Identity: token})
	}
	return list
}
