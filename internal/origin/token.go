package origin

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Auth says for what the registry asks for a login. The zero value asks for none.
type Auth struct {
	Kind     string // "", "basic" or "bearer"
	Username string
	Password string
	Identity string // an identity token that the token service takes, as a refresh token
	// Users are further users by name: see SetUser.
	Users     map[string]User
	Anonymous bool // requests without a credential may read what is not private
	// Private says which repositories need the credential. nil: all, or none with Anonymous.
	Private func(repo string) bool

	TokenLife    time.Duration // 0: 300 s
	SeparateHost bool          // the token service has a port of its own
	Realm        string        // the URL in challenges, empty: the true one
	Service      string        // empty: "origin"
	Scope        string        // one scope for all repositories, as public.ecr.aws has with "aws"

	NoExpiresIn     bool // the answer does not say how long the token lives
	AccessTokenOnly bool // access_token, and no token
	JWT             bool // the token is a JWT with its end in exp
	NoScope         bool // challenges have no scope
	// NoAccess is the status with which the token service refuses a token for what the client may not read. 0: it
	// gives a token of no use, as Docker Hub does.
	NoAccess int
	// Rejected is the status with which it answers a wrong credential. 0: 401.
	Rejected int
}

// User is a user with rights of its own.
type User struct {
	Password string
	// Reads says which private repositories it may read. Nil: none.
	Reads func(repo string) bool
}

// grant is what a token is good for.
type grant struct {
	repos map[string]bool
	all   bool // what is not private, and the private ones too where user is set
	user  bool
	ends  time.Time
}

// private reports whether a repository needs the credential.
func (a Auth) private(repo string) bool {
	if a.Private != nil {
		return a.Private(repo)
	}
	return !a.Anonymous
}

// SetCredentials changes the user name and password that are right. Tokens that were given out stay good.
func (g *Origin) SetCredentials(username, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.username, g.password = username, password
}

// SetUser adds a user, or changes it. A user without a password is removed. Tokens that were given out stay good.
func (g *Origin) SetUser(name string, u User) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == nil {
		g.users = make(map[string]User)
	}
	g.users[name] = u
}

// reads reports whether a user may read a private repository.
func (g *Origin) reads(name, repo string) bool {
	g.mu.Lock()
	u, other := g.users[name]
	g.mu.Unlock()
	return !other || u.Reads != nil && u.Reads(repo)
}

// RevokeTokens ends all tokens that were given out.
func (g *Origin) RevokeTokens() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.tokens)
}

func (g *Origin) rightPassword(username, password string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u, other := g.users[username]; other {
		return password == u.Password && password != ""
	}
	return username == g.username && password == g.password && username != ""
}

// authorize returns the answer to a request that may not, nil to one that may.
func (g *Origin) authorize(role Role, w *wanted, r *http.Request) *answer {
	if w.role == RoleCDN && role == RoleCDN && r.Header.Get("Authorization") != "" {
		return say(http.StatusBadRequest, "application/xml",
			[]byte(XMLBody("InvalidArgument", "Only one auth mechanism allowed")))
	}
	if w.role != RoleRegistry || g.o.Auth.Kind == "" || w.kind == KindOther {
		return nil
	}
	var flaw string
	var ok bool
	if g.o.Auth.Kind == "basic" {
		ok = g.basic(w, r)
	} else {
		flaw, ok = g.bearer(w, r)
	}
	if ok {
		return nil
	}
	a := refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	a.header.Set("WWW-Authenticate", g.challenge(w, flaw))
	return a
}

func (g *Origin) basic(w *wanted, r *http.Request) bool {
	username, password, given := r.BasicAuth()
	if given || r.Header.Get("Authorization") != "" {
		return g.rightPassword(username, password) && // a wrong one is refused for what is public too
			(w.kind == KindPing || !g.o.Auth.private(w.repo) || g.reads(username, w.repo))
	}
	if w.kind == KindPing {
		return g.o.Auth.Anonymous
	}
	return !g.o.Auth.private(w.repo)
}

func (g *Origin) bearer(w *wanted, r *http.Request) (flaw string, ok bool) {
	token := bearerOf(r)
	if token == "" {
		return "", false
	}
	g.mu.Lock()
	t, known := g.tokens[token]
	g.mu.Unlock()
	switch {
	case !known || !time.Now().Before(t.ends):
		return "invalid_token", false
	case w.kind == KindPing, t.repos[w.repo], t.all && (t.user || !g.o.Auth.private(w.repo)):
		return "", true
	}
	return "insufficient_scope", false
}

func bearerOf(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	return ""
}

func (g *Origin) realm() string {
	if g.o.Auth.Realm != "" {
		return g.o.Auth.Realm
	}
	return g.scheme() + "://" + g.TokenHost() + tokenPath
}

func (g *Origin) service() string {
	if g.o.Auth.Service != "" {
		return g.o.Auth.Service
	}
	return "origin"
}

func (g *Origin) challenge(w *wanted, flaw string) string {
	a := g.o.Auth
	if a.Kind == "basic" {
		realm := a.Realm
		if realm == "" {
			realm = g.URL() + "/"
		}
		return fmt.Sprintf("Basic realm=%q,service=%q", realm, g.service())
	}
	s := fmt.Sprintf("Bearer realm=%q,service=%q", g.realm(), g.service())
	switch {
	case a.NoScope:
	case a.Scope != "":
		s += fmt.Sprintf(",scope=%q", a.Scope)
	case w.repo != "":
		s += fmt.Sprintf(",scope=%q", "repository:"+w.repo+":pull")
	}
	if flaw != "" {
		s += fmt.Sprintf(",error=%q", flaw)
	}
	return s
}

// giveToken is the token service.
func (g *Origin) giveToken(r *http.Request) *answer {
	a := g.o.Auth
	if a.Kind != "bearer" {
		return say(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
	}
	name, user, ok := g.identity(r)
	switch {
	case !ok:
		status := http.StatusUnauthorized
		if a.Rejected != 0 {
			status = a.Rejected
		}
		return say(status, "application/json", []byte(DetailsBody("incorrect username or password")))
	case !user && !a.Anonymous:
		return refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	}
	t := grant{repos: make(map[string]bool), user: user}
	denied := false
	for scope := range strings.FieldsSeq(strings.Join(r.Form["scope"], " ")) {
		if a.Scope != "" && scope == a.Scope {
			t.all = true
			continue
		}
		repo, actions, ok := scopeRepo(scope)
		if !ok || !strings.Contains(actions, "pull") && actions != "*" {
			continue
		}
		if user && g.reads(name, repo) || !a.private(repo) {
			t.repos[repo] = true
		} else {
			denied = true
		}
	}
	if denied && a.NoAccess != 0 {
		return refuse(a.NoAccess, "DENIED", "requested access to the resource is denied")
	}
	return g.issue(t)
}

// identity reads the credential, and whose it is. user is set where there is one, ok where it is right or where there is none.
func (g *Origin) identity(r *http.Request) (name string, user, ok bool) {
	if username, password, given := r.BasicAuth(); given {
		return username, true, g.rightPassword(username, password)
	}
	if r.Header.Get("Authorization") != "" {
		return "", true, false
	}
	if r.Method != http.MethodPost {
		return "", false, true
	}
	switch r.Form.Get("grant_type") {
	case "refresh_token":
		return "", true, g.o.Auth.Identity != "" && r.Form.Get("refresh_token") == g.o.Auth.Identity
	case "password":
		return r.Form.Get("username"), true, g.rightPassword(r.Form.Get("username"), r.Form.Get("password"))
	}
	return "", false, true
}

func (g *Origin) issue(t grant) *answer {
	a := g.o.Auth
	life := a.TokenLife
	if life == 0 {
		life = 300 * time.Second
	}
	now := time.Now()
	t.ends = now.Add(life)
	token := "token-" + rand.Text()
	if a.JWT {
		claims := map[string]any{"iss": "origin", "jti": rand.Text(), "iat": now.Unix(), "exp": t.ends.Unix()}
		token = unsignedJWT(claims)
	}
	g.mu.Lock()
	g.tokens[token] = t
	g.mu.Unlock()
	body := map[string]any{"access_token": token, "issued_at": now.UTC().Format(time.RFC3339)}
	if !a.AccessTokenOnly {
		body["token"] = token
	}
	if !a.NoExpiresIn && !a.JWT {
		body["expires_in"] = int(life / time.Second)
	}
	return say(http.StatusOK, "application/json", marshal(body))
}

// unsignedJWT is an unsigned JSON Web Token.
func unsignedJWT(claims map[string]any) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + enc(marshal(claims)) + "." + enc([]byte("unsigned"))
}
