package login

import (
	"context"
	"log/slog"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/limit"
)

// Options are what the logins of one upstream have in common.
type Options struct {
	Public       bool          // as in upstream.Options
	Reserve      float64       // part of each limit, 0 to 1, that requests under Spare leave to others
	TokenTimeout time.Duration // how long a request for a token may take
	Log          *slog.Logger
	// Start runs a function in the background, until its context ends. It reports whether it did.
	Start func(func(context.Context)) bool
}

// Upstream is what the logins of one upstream share: tokens, how its credentials fare, and what is kept out of messages. It
// is safe for concurrent use.
type Upstream struct {
	o        Options
	tokens   *tokens
	standing standing

	credentials secrets
	shown       secrets // tokens
}

// NewUpstream makes an Upstream.
func NewUpstream(o Options) *Upstream { return &Upstream{o: o, tokens: newTokens(o.Log, o.Start)} }

// Run renews the tokens that are in use until the context ends.
func (u *Upstream) Run(ctx context.Context) { u.tokens.run(ctx) }

// Secrets are the credentials and tokens that must be in no message.
func (u *Upstream) Secrets() []auth.Credential { return append(u.credentials.all(), u.shown.all()...) }

// Known is one endpoint with what is known of how it lets requests in. It is safe for concurrent use.
type Known struct {
	*endpoint.Endpoint
	Limits  *limit.Limits
	Source  auth.Source // of its own; nil: that of the Identity where it is the registry itself, else none
	schemes schemes
	public  public
}

// givesTokens reports whether a repository is known to ask for tokens: a 401 to one is about rights, not about passwords.
func (e *Known) givesTokens(repository string) bool {
	sc, _, known := e.schemes.of(repository)
	return known && sc.realm != ""
}
