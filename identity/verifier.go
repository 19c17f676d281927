package identity

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/coalesce"
)

// Challenge says when a client is told that it may log in.
type Challenge int

const (
	// Never means that there is no way to log in.
	Never Challenge = iota
	// Offered means that a client without a login may read something.
	Offered
	// Required means that it may read nothing.
	Required
)

// Settings are the ways in which clients identify themselves; nil is a way that is not open. They are immutable.
type Settings struct {
	Passwords    *Passwords
	Tokens       *Tokens
	Certificates *Certificates
	Accounts     *Accounts
	// Challenge is what an answer to GET /v2/ says.
	Challenge Challenge
}

// Logins reports whether there is a way to log in by a header.
func (s *Settings) Logins() bool { return s.Passwords != nil || s.Tokens != nil || s.Accounts != nil }

// Result is how a login ended.
type Result string

// These are all.
const (
	Accepted    Result = "accepted"
	Refused     Result = "refused"
	Limited     Result = "limited"     // not checked, after many wrong ones
	Unavailable Result = "unavailable" // not checked in time
)

// Method is how a client identifies itself.
type Method string

// These are all.
const (
	ByPassword    Method = "password"
	ByToken       Method = "token"
	ByCertificate Method = "certificate"
	ByAccount     Method = "serviceaccount"
)

// These are the details of a RefusedError that have a remedy of their own. None tells a client more than what it has sent, and a token that it
// knows the whole of.
const (
	TokenExpired   = "the token has expired"
	TokenOfAnother = "the token belongs to another user"
	SpaceAtEnd     = "the password ends in a line end or another space"
)

// RefusedError says that a login is not one of the mirror's.
type RefusedError struct {
	Method Method
	Result Result // Refused, Limited or Unavailable
	// User is the user name in the login, or the name of the token if that has expired. Empty: it has none, or one that may be a secret
	// in the wrong place.
	User   string
	Detail string // what is wrong, without a secret; empty: it is unknown to the mirror
	Err    error  // why it could not be checked; nil: it was
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("login by %s: %s", e.Method, e.Result)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *RefusedError) Unwrap() error { return e.Err }

// Options for a Verifier.
type Options struct {
	// Observe is called for each login that was checked, and not for those that are remembered. It must not block. Nil: not called.
	Observe func(Method, Result)
	Log     *slog.Logger // nil: discard
}

// Verifier tells which client sends a request. It is safe for concurrent use.
type Verifier struct {
	o        Options
	settings atomic.Pointer[Settings]
	key      [sha256.Size]byte // of the hashes of what is remembered

	limits *limits
	turns  *turns
	// right and wrong are passwords that were compared, apart: wrong ones displace no right one.
	right, wrong *bounded.LRU[[sha256.Size]byte, compared]
	comparing    coalesce.Group[[sha256.Size]byte, compared]
	warned       bounded.Expiring[pair, struct{}] // of what the log has spoken lately: users at addresses, and addresses
}

// compared is the result for a password.
type compared struct {
	hash   string // of the user then; empty: the user was unknown
	right  bool
	result Result // of a password that was not compared; empty: it was
}

// maxChecked is how many passwords are remembered as right, and how many as wrong.
const maxChecked = 16_384

// New makes a Verifier that knows no client before the first Use.
func New(o Options) *Verifier {
	if o.Observe == nil {
		o.Observe = func(Method, Result) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{
		o: o, limits: newLimits(), turns: newTurns(1, max(1, runtime.GOMAXPROCS(0)/2)),
		right: bounded.NewLRU(bounded.Options[[sha256.Size]byte, compared]{Budget: maxChecked}),
		wrong: bounded.NewLRU(bounded.Options[[sha256.Size]byte, compared]{Budget: maxChecked}),
	}
	_, _ = rand.Read(v.key[:])
	v.settings.Store(&Settings{})
	return v
}

// Ways reports how clients may identify themselves: by a login in a header, by a certificate.
func (v *Verifier) Ways() (login, certificate bool) {
	s := v.settings.Load()
	return s.Logins(), s.Certificates != nil
}

// Use makes s the settings of all requests from now on.
func (v *Verifier) Use(s Settings) { v.settings.Store(&s) }

// Challenge is what an answer to GET /v2/ says.
func (v *Verifier) Challenge() Challenge { return v.settings.Load().Challenge }

// Identify returns the identity of the client that sends a request, empty for one that is anonymous. source is its address. named
// says that the request names a registry: then a login that is not one of the mirror's is taken for one of that registry. It is not
// an error, and note says so. Otherwise the error is a *RefusedError. A login counts before a certificate: that of a pod's service
// account says more than its node's. A certificate that is not valid is like none, and note says why: other ways stay open.
func (v *Verifier) Identify(r *http.Request, source string, named bool) (who client.Identity, note string, err error) {
	s := v.settings.Load()
	if l, sent := loginOf(r); sent && s.Logins() {
		who, err = v.login(r.Context(), s, l, source)
		if err == nil || !named {
			return who, "", err
		}
		note = "the request has a login that the mirror does not accept: " + err.Error()
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || s.Certificates == nil {
		return "", note, nil
	}
	who, checked, err := s.Certificates.identify(r.TLS.PeerCertificates, time.Now())
	if checked {
		s.Certificates.Warn(r.Context(), v.o.Log)
	}
	if err != nil {
		note, err = strings.TrimPrefix(note+"; "+err.Error(), "; "), nil
		if checked {
			v.o.Observe(ByCertificate, Refused)
		}
	} else if checked {
		v.o.Observe(ByCertificate, Accepted)
	}
	return who, note, err
}

// login is what a header Authorization says.
type login struct {
	user   string // empty: it is a bearer token
	secret string
	bad    bool // the header can't be read
}

// loginOf reads the header of a request. False: it has no login. Podman sends an empty user and password where it has none.
func loginOf(r *http.Request) (l login, sent bool) {
	text := r.Header.Get("Authorization")
	scheme, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.TrimSpace(text) == "":
		return login{}, false
	case len(text) > maxPassword:
		return login{bad: true}, true
	case strings.EqualFold(scheme, "Bearer") && rest != "":
		return login{secret: rest}, true
	case strings.EqualFold(scheme, "Basic"):
		b, err := base64.StdEncoding.DecodeString(rest)
		user, secret, found := strings.Cut(string(b), ":")
		if err != nil || !found {
			return login{bad: true}, true
		}
		if user == "" && secret == "" {
			return login{}, false
		}
		return login{user: user, secret: secret, bad: user == ""}, true
	}
	return login{bad: true}, true
}

// maxShown is how many characters the name of a user has that is shown before it is known: longer ones may be secrets.
const maxShown = 32

// shownUser is the user name in a login, where it looks like one. It is the same for users that exist and others.
func (l login) shownUser() string {
	if l.secret == "" || len(l.user) > maxShown || CheckName(l.user) != nil || strings.HasPrefix(l.user, tokenPrefix) {
		return ""
	}
	return l.user
}

// login checks a login.
func (v *Verifier) login(ctx context.Context, s *Settings, l login, source string) (client.Identity, error) {
	who, err := v.check(ctx, s, l, source)
	if e, ok := errors.AsType[*RefusedError](err); ok {
		e.User = cmp.Or(e.User, l.shownUser())
	}
	return who, err
}

// check is login, without the user's name in its error.
func (v *Verifier) check(ctx context.Context, s *Settings, l login, source string) (client.Identity, error) {
	if l.bad {
		return "", v.refuse(ByPassword, Refused, "the header Authorization is neither Basic nor Bearer, or is damaged", nil)
	}
	name, expired := s.Tokens.Name(l.secret, time.Now())
	switch {
	case expired:
		err := v.refuse(ByToken, Refused, TokenExpired, nil)
		err.User = name
		return "", err
	case name != "" && l.user != "" && l.user != name:
		return "", v.refuse(ByToken, Refused, TokenOfAnother, nil)
	case name != "":
		v.o.Observe(ByToken, Accepted)
		return client.Identity(name), nil
	case s.Accounts != nil && isJWT(l.secret):
		return v.account(ctx, s.Accounts, l.secret, source)
	case l.user == "" || s.Passwords == nil:
		return "", v.refuse(ByToken, Refused, spaceAtEnd(l.secret), nil)
	}
	return v.password(ctx, s.Passwords, l, source)
}

func (v *Verifier) refuse(m Method, r Result, detail string, err error) *RefusedError {
	v.o.Observe(m, r)
	return &RefusedError{Method: m, Result: r, Detail: detail, Err: err}
}

// password checks a user's password.
func (v *Verifier) password(ctx context.Context, p *Passwords, l login, source string) (client.Identity, error) {
	hash := p.hash(l.user)
	key := v.sum(l.user, l.secret)
	c, known := v.remembered(key, hash)
	if !known {
		var err error
		c, _, err = v.comparing.Do(ctx, key, func(ctx context.Context) (compared, error) {
			return v.compare(ctx, p, hash, key, l, source), nil
		})
		if err != nil {
			return "", &RefusedError{Method: ByPassword, Result: Unavailable, Err: err}
		}
	} else if c.right && !v.limits.known(l.user, source, time.Now()) {
		v.o.Observe(ByPassword, Limited)
		v.warn(ctx, tooManyPasswords, l.user, source)
		c = compared{hash: hash, result: Limited}
	}
	switch {
	case c.right && c.hash == hash:
		return client.Identity(l.user), nil
	case c.result == Limited:
		return "", &RefusedError{Method: ByPassword, Result: Limited, Detail: "there were too many wrong passwords"}
	case c.result == Unavailable:
		return "", &RefusedError{Method: ByPassword, Result: Unavailable, Detail: "too many passwords wait to be checked"}
	}
	return "", &RefusedError{Method: ByPassword, Result: Refused, Detail: spaceAtEnd(l.secret)}
}

// spaceAtEnd is SpaceAtEnd for a secret that ends so, as echo and files write it; empty: it does not.
func spaceAtEnd(secret string) string {
	if strings.TrimRight(secret, " \t\r\n") != secret {
		return SpaceAtEnd
	}
	return ""
}

// remembered is the result for a password, if the user has the same hash as then.
func (v *Verifier) remembered(key [sha256.Size]byte, hash string) (compared, bool) {
	for _, of := range []*bounded.LRU[[sha256.Size]byte, compared]{v.right, v.wrong} {
		if c, ok := of.Get(key); ok && c.hash == hash {
			return c, true
		}
	}
	return compared{}, false
}

// compare computes whether a password is right, within the limits, and remembers it.
func (v *Verifier) compare(ctx context.Context, p *Passwords, hash string, key [sha256.Size]byte, l login, source string) compared {
	if c, ok := v.remembered(key, hash); ok { // since the caller has looked
		return c
	}
	c := compared{hash: hash}
	t := v.limits.begin(l.user, source, hash != "", time.Now())
	if t == nil {
		c.result = Limited
		v.o.Observe(ByPassword, Limited)
		v.warn(ctx, tooManyPasswords, l.user, source)
		return c
	}
	var inTime bool
	if at := (pair{l.user, source}); hash == "" {
		inTime = v.turns.alone(ctx, at, func() { p.pretend(ctx, l.secret) })
	} else {
		inTime = v.turns.do(ctx, at, func() { c.right = p.compare(hash, l.secret) })
	}
	if !inTime {
		t.undo()
		c.result = Unavailable
		v.o.Observe(ByPassword, Unavailable)
		return c
	}
	if !c.right {
		v.wrong.Put(key, c, 1)
		v.o.Observe(ByPassword, Refused)
		return c
	}
	v.right.Put(key, c, 1)
	t.succeeded()
	v.o.Observe(ByPassword, Accepted)
	return c
}

// These are the events of logins that are not checked.
const (
	tooManyPasswords = "too many wrong passwords; further ones are not checked for a time"
	tooManyTokens    = "too many wrong service-account tokens; further ones from this address are not checked for a time"
)

// warn logs that logins are not checked, of a user at an address at most once in ten minutes.
func (v *Verifier) warn(ctx context.Context, event, user, source string) {
	at := pair{user, source}
	if v.warned.Has(at) {
		return
	}
	v.warned.Put(at, struct{}{}, 10*time.Minute, 1000)
	if user == "" {
		v.o.Log.WarnContext(ctx, event, "source", source)
		return
	}
	v.o.Log.WarnContext(ctx, event, "client", client.Identity(user).Label(), "source", source)
}

// sum is the keyed hash of some texts, which stands for them in memory.
func (v *Verifier) sum(texts ...string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, v.key[:])
	for _, text := range texts {
		fmt.Fprintf(h, "%d:", len(text))
		_, _ = h.Write([]byte(text))
	}
	h.Sum(sum[:0])
	return sum
}
