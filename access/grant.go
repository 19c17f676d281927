package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/oci"
)

const (
	// maxGrants is how many rights are remembered. The one that was used longest ago is forgotten: it is asked for anew.
	maxGrants = 65_536
	// maxDenials is how many refusals, and how many users with wrong logins, are remembered.
	maxDenials = 16_384
	// denialLife is for how long the same question of the same login is answered with the registry's last refusal.
	denialLife = 10 * time.Second
	// wrongLife is for how long a login that the registry has called wrong is shown to it no more.
	wrongLife = time.Minute
	// Of a user, so many wrong logins are shown to a registry in a time: from one address, and from all. More could lock
	// the account.
	wrongHere, wrongEverywhere = 5, 30
	wrongIn                    = 5 * time.Minute
)

// Lifetime says for how long the right of a client's own login counts once its registry has shown it.
type Lifetime struct {
	MaxAge time.Duration // then the registry is asked again
	// StaleIfError is how much longer the right counts where the registry does not answer.
	StaleIfError time.Duration
}

// Standing is what is known of the right of a login.
type Standing int

const (
	// Unproven means that the registry has to show the right first.
	Unproven Standing = iota
	// Stale means that the registry is asked again, and that the right counts where it does not answer.
	Stale
	// Proven means that the registry has shown it lately.
	Proven
)

// Key stands for a login at an upstream, or for its right, in memory: a hash with the process's own key. It tells nothing of the
// login.
type Key [sha256.Size]byte

// Grants remembers which rights registries have shown to clients' own logins, and which logins they have refused. It has no login,
// but keyed hashes of them, and its memory is bounded. It is safe for concurrent use.
type Grants struct {
	key    [sha256.Size]byte
	proven *bounded.LRU[Key, time.Time] // when the registry has shown the right last
	// valid are the logins with a right, by Login, and how often the registry has called each wrong since it has shown the last one.
	// The mutex guards its changes.
	valid  *bounded.LRU[Key, int]
	denied bounded.Expiring[Key, struct{}]
	wrong  bounded.Expiring[Key, struct{}] // by Login

	mu      sync.Mutex                 // guards the changes of users and of valid, and showing
	users   *bounded.LRU[Key, *wrongs] // by upstream and user, and by these and the address
	showing map[Key]*showing           // by upstream and user
}

// showing are the logins of a user that are being shown to a registry, and are not known to be right.
type showing struct {
	logins map[Key]Key   // the key of user and address, by login
	ended  chan struct{} // closed when the next of them has ended
}

// NewGrants makes a memory without any right.
func NewGrants() *Grants {
	g := &Grants{
		proven:  bounded.NewLRU(bounded.Options[Key, time.Time]{Budget: maxGrants}),
		valid:   bounded.NewLRU(bounded.Options[Key, int]{Budget: maxDenials}),
		users:   bounded.NewLRU(bounded.Options[Key, *wrongs]{Budget: maxDenials}),
		showing: make(map[Key]*showing),
	}
	_, _ = rand.Read(g.key[:])
	return g
}

// Login is the key of a login at an upstream. write adds the login to a hash, and site is the upstream, as it is set up.
func (g *Grants) Login(site uint64, write func(hash.Hash)) Key {
	h := hmac.New(sha256.New, g.key[:])
	fmt.Fprintf(h, "login %d ", site)
	write(h)
	return Key(h.Sum(nil))
}

// Right is the key of the right of a login to read a repository, or one blob of it where the digest is not empty.
func (g *Grants) Right(login Key, repo oci.Repo, d oci.Digest) Key {
	return g.about(login, "right", repo.String(), string(d))
}

func (g *Grants) about(login Key, what ...string) Key {
	h := hmac.New(sha256.New, g.key[:])
	_, _ = h.Write(login[:])
	for _, text := range what {
		fmt.Fprintf(h, " %d:%s", len(text), text)
	}
	return Key(h.Sum(nil))
}

// Standing is what is known of a right.
func (g *Grants) Standing(right Key, life Lifetime) Standing {
	at, ok := g.proven.Get(right)
	age := time.Since(at)
	switch {
	case !ok || age < 0 || age >= life.MaxAge+life.StaleIfError: // a clock that was set back must not lengthen it
		return Unproven
	case age >= life.MaxAge:
		return Stale
	}
	return Proven
}

// Prove notes that the registry has just shown a right of a login.
func (g *Grants) Prove(login, right Key) {
	g.proven.Put(right, time.Now(), 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.valid.Put(login, 0, 1)
	g.wrong.Delete(login)
}

// Revoke forgets a right: the registry refuses it.
func (g *Grants) Revoke(right Key) { g.proven.Remove(right) }

// Try is one login at an upstream, of a user, from an address.
type Try struct {
	Login  Key
	Site   uint64
	User   string
	Source string
}

// Deny notes that the registry has refused a question of a login. wrong says that it has called the login itself wrong, as far as
// that can be told.
func (g *Grants) Deny(t Try, question string, wrong bool) {
	g.denied.Put(g.about(t.Login, "question", question), struct{}{}, denialLife, maxDenials)
	if !wrong {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n, ok := g.valid.Get(t.Login); ok && n+1 < wrongHere { // it has read something here: this may be about one repository
		g.valid.Put(t.Login, n+1, 1)
		return
	}
	g.valid.Remove(t.Login)
	known := g.wrong.Has(t.Login)
	g.wrong.Put(t.Login, struct{}{}, wrongLife, maxDenials)
	if known {
		return
	}
	for _, k := range g.counted(t) {
		w, ok := g.users.Get(k)
		if !ok {
			w = &wrongs{since: time.Now()}
		}
		g.users.Put(k, w.more(time.Now()), 1)
	}
}

// counted are the keys under which the wrong logins of a user are counted: at an address, and everywhere. Registries take a name in
// capitals, or with spaces around it, for the same user.
func (g *Grants) counted(t Try) [2]Key {
	all := g.about(Key{}, "user", fmt.Sprint(t.Site), strings.ToLower(strings.TrimSpace(t.User)))
	return [2]Key{g.about(all, "at", t.Source), all}
}

// MayAsk reports whether a login may be shown to its registry with a question. After a refusal it may not for some seconds, a wrong
// one for a minute; and after many wrong logins of a user no other one, unless it was right before.
func (g *Grants) MayAsk(t Try, question string) bool {
	if g.wrong.Has(t.Login) || g.denied.Has(g.about(t.Login, "question", question)) {
		return false
	}
	if g.WasRight(t) {
		return true
	}
	keys := g.counted(t)
	return g.wrongs(keys[0]) < wrongHere && g.wrongs(keys[1]) < wrongEverywhere
}

// WasRight reports whether a login has been right before, and not been called wrong as often since as one user's logins may be.
func (g *Grants) WasRight(t Try) bool {
	_, ok := g.valid.Get(t.Login)
	return ok
}

// wrongs is how many wrong logins there were of late under one of the keys of counted.
func (g *Grants) wrongs(k Key) int {
	if w, ok := g.users.Get(k); ok && time.Since(w.since) < wrongIn {
		return w.n
	}
	return 0
}

// Begin waits until a login may be shown to its registry with a question; end is called, after Deny or Prove, when the registry has
// answered. False: it may not be shown, as by MayAsk, or the context has ended. A login that has not been right lately is shown with
// one question at a time, and no more such logins of a user at once than may turn out to be wrong: requests that come at the same time
// can't exceed what is counted.
func (g *Grants) Begin(ctx context.Context, t Try, question string) (end func(), ok bool) {
	keys := g.counted(t)
	for {
		g.mu.Lock()
		if !g.MayAsk(t, question) {
			g.mu.Unlock()
			return nil, false
		}
		refused, right := g.valid.Get(t.Login)
		if right && refused == 0 {
			g.mu.Unlock()
			return func() {}, true
		}
		s := g.showing[keys[1]]
		if s == nil {
			s = &showing{logins: make(map[Key]Key), ended: make(chan struct{})}
			g.showing[keys[1]] = s
		}
		here := 0
		for _, at := range s.logins {
			if at == keys[0] {
				here++
			}
		}
		_, same := s.logins[t.Login]
		few := g.wrongs(keys[0])+here < wrongHere && g.wrongs(keys[1])+len(s.logins) < wrongEverywhere
		if !same && (right || few) {
			s.logins[t.Login] = keys[0]
			g.mu.Unlock()
			return func() { g.end(t, keys[1]) }, true
		}
		ended := s.ended
		g.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// end notes that a login is no longer being shown.
func (g *Grants) end(t Try, user Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.showing[user]
	delete(s.logins, t.Login)
	close(s.ended)
	s.ended = make(chan struct{})
	if len(s.logins) == 0 {
		delete(g.showing, user)
	}
}

// wrongs are how many wrong logins there were since a time. It is not changed.
type wrongs struct {
	since time.Time
	n     int
}

func (w *wrongs) more(now time.Time) *wrongs {
	if now.Sub(w.since) >= wrongIn {
		return &wrongs{since: now, n: 1}
	}
	return &wrongs{since: w.since, n: w.n + 1}
}

// LoginError says that the registry does not show a repository to a request without a login, and that the client has sent none that
// could be shown to it.
type LoginError struct {
	Repo oci.Repo
	// Mirrored is as in ForbiddenError.
	Mirrored bool
	// Who: the client's identity at the mirror. One of a user or a service account shows that the client has sent a login, which is
	// the mirror's own. Empty: it is anonymous.
	Who client.Identity
	// Insecure says that the connection is neither TLS nor of this machine, so that the client is not asked for its login, and one that
	// it has sent is not used.
	Insecure bool
	// Unusable says that the client's header Authorization has no user and password: it is a Bearer token, or can't be read.
	Unusable bool
	// Background says that the mirror asks by itself, which has no login.
	Background bool
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("%s is not shown without a login, and there is none of the client", e.Repo)
}

// RefusedError says that a registry does not let the login of a client read a repository, or that there is not what it asks for. Which
// of both is not said, so that an image which the client may not read looks like one that does not exist.
type RefusedError struct {
	Repo oci.Repo
	// Mirrored is as in ForbiddenError.
	Mirrored bool
	// Remembered says that the registry was not asked, since it has refused the login, or others of that user, just before.
	Remembered bool
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s does not let the client's login pull %s, or there is no such image", e.Repo.Host, e.Repo)
}
