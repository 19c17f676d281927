package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/oci"
)

// Right is what a route requires of a caller. The zero Right is a mistake: such a route answers no request.
type Right int

// The rights of routes.
const (
	Open       Right = iota + 1 // nothing: health, and pages that are public
	Read                        // to see some image; the answer has nothing of other images
	ReadAll                     // to see all images
	Operate                     // to change something of some image; the handler checks which
	OperateAll                  // to change everything
)

// TokenRemedy is what to do about the file of the listener's token where CheckToken refuses what is in it.
const TokenRemedy = "write the token alone to it, as openssl rand -hex 32 prints one"

// CheckToken says why a text can't be a token of the listener: a header has to carry it. The message goes behind the name of its file.
func CheckToken(token string) error {
	if strings.ContainsFunc(token, unicode.IsControl) {
		return errors.New("is not one line of text, so no request can show it")
	}
	return nil
}

// String is the right as openapi.yaml has it.
func (r Right) String() string {
	return map[Right]string{Open: "open", Read: "read", ReadAll: "read-all", Operate: "operate", OperateAll: "operate-all"}[r]
}

// of is the right of an operator that the right of a route stands for, and whether it has to be there for all images.
func (r Right) of() (right access.Right, all bool) {
	switch r {
	case Read, ReadAll:
		return access.Read, r == ReadAll
	case Operate, OperateAll:
		return access.Operate, r == OperateAll
	}
	return 0, true // which no scope allows
}

// Keys are the ways in which callers show which operator they are, and what each may do. They are immutable.
type Keys struct {
	Token        string                 // the one that may do everything; empty: there is none
	Tokens       *identity.Tokens       // of operators, by name; nil: there are none
	Certificates *identity.Certificates // of operators; nil: none are accepted
	Rights       *access.Operators      // of the operators that Tokens and Certificates name
}

// Any reports whether there is a way at all.
func (k Keys) Any() bool { return k.Token != "" || k.Tokens != nil || k.Certificates != nil }

// The names of callers that are not operators with a name: no operator is called so.
const (
	// byToken has shown Keys.Token.
	byToken = "(admin.tokenFile)"
	// byLoopback has shown nothing, on loopback, where there are no keys.
	byLoopback = "(loopback)"
)

// caller is the operator that sends a request.
type caller struct {
	name  string
	scope *access.Scope
}

// operator is the name of the caller in the configuration; empty: it has none.
func (c caller) operator() string {
	if c.name == byToken || c.name == byLoopback {
		return ""
	}
	return c.name
}

// identify returns the caller of a request. The error says, without a secret, why there is none. A token counts before a
// certificate: a wrong one is refused beside a certificate, too.
func (k Keys) identify(r *http.Request, loopback bool, now time.Time) (caller, error) {
	if !k.Any() {
		if loopback {
			return caller{byLoopback, access.Everything()}, nil
		}
		return caller{}, errors.New("no operator can identify itself here; set admin.tokenFile, or admin.operators")
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
			return caller{}, errors.New("the header Authorization is not Bearer TOKEN; send the token of admin.tokenFile or of an operator so")
		}
		if k.Token != "" && equal(token, k.Token) {
			return caller{byToken, access.Everything()}, nil
		}
		switch name, expired := k.Tokens.Name(token, now); {
		case expired:
			return caller{}, errors.New("the token has expired; make another one with mirror token new")
		case name == "":
			return caller{}, errors.New("the token is not one of admin.tokenFile or admin.operators.tokens; give one of these")
		default:
			return caller{name, k.Rights.Scope(name)}, nil
		}
	}
	if k.Certificates != nil && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		who, err := k.Certificates.Identify(r.TLS.PeerCertificates, now)
		if err != nil {
			return caller{}, err
		}
		return caller{string(who), k.Rights.Scope(string(who))}, nil
	}
	return caller{}, fmt.Errorf("this listener requires the token of admin.tokenFile or of an operator, as Authorization: Bearer TOKEN%s",
		map[bool]string{true: ", or an operator's certificate"}[k.Certificates != nil])
}

// equal compares hashes, so that the time taken shows nothing of the token, its length included.
func equal(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// handler is a route's: it lets a request pass whose caller has the right. All routes have one, see router.
type handler struct {
	right Right
	o     *Options
	next  http.Handler
}

// Right is the right that the route requires.
func (h handler) Right() Right { return h.right }

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.right == Open {
		h.next.ServeHTTP(w, r)
		return
	}
	var keys Keys
	if h.o.Keys != nil {
		keys = h.o.Keys()
	}
	c, err := keys.identify(r, h.o.Loopback, time.Now())
	keys.Certificates.Warn(r.Context(), h.o.Log)
	if err != nil {
		h.o.Log.InfoContext(r.Context(), "admin request refused", "path", r.URL.Path, "client", r.RemoteAddr, "reason", err.Error())
		w.Header().Set("WWW-Authenticate", `Bearer realm="mirror admin"`)
		Problem(w, http.StatusUnauthorized, err.Error())
		return
	}
	if err := c.lacks(h.right); err != "" {
		h.o.Log.InfoContext(r.Context(), "admin request refused", "path", r.URL.Path, "client", r.RemoteAddr, "operator", c.name, "reason", err)
		Problem(w, http.StatusForbidden, err)
		return
	}
	h.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
}

// lacks says which right is missing for a route; empty: none.
func (c caller) lacks(route Right) string {
	right, all := route.of()
	switch {
	case all && c.scope.AllowsAll(right), !all && c.scope.AllowsSome(right):
		return ""
	case c.scope.AllowsSome(right):
		return fmt.Sprintf("%s has the right to %s for some images alone, and this is about all of them; add a rule without images to "+
			"admin.operators.rights", c.name, right)
	}
	return fmt.Sprintf("%s has no right to %s; add a rule with may: %s to admin.operators.rights", c.name, right, right)
}

type callerKey struct{}

// callerOf is the operator that sends a request. The zero caller has no right.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// seesAll reports whether a caller sees what is recorded of all images.
func (c caller) seesAll() bool { return c.scope.AllowsAll(access.Read) }

// sees reports whether a caller sees what is recorded of a repository.
func (c caller) sees(repo oci.Repo) bool { return c.scope.Allows(access.Read, repo) }

// seesImage reports whether a caller sees what is recorded of an image, which has the names of the configuration:
// HOST/REPOSITORY, with a tag, a digest or both. What is not of an image is for callers that see all.
func (c caller) seesImage(image string) bool {
	if c.seesAll() {
		return true
	}
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	host, name, ok := strings.Cut(image, "/")
	return ok && c.sees(oci.Repo{Host: host, Name: name})
}

// seen chooses the images of a record that the caller of a request sees. Nil: all.
func seen(r *http.Request) func(image string) bool {
	if c := callerOf(r); !c.seesAll() {
		return c.seesImage
	}
	return nil
}

// canonical is an image of a request with the names of the configuration. False: it can't be read, or its registry is not an
// upstream.
func (o *Options) canonical(image string) (oci.Ref, bool) {
	ref, err := oci.ParseRef(image)
	if err != nil || o.Tags == nil {
		return oci.Ref{}, false
	}
	ref, err = o.Tags.Canonical(ref)
	return ref, err == nil
}

// allowed is an error where the caller of a request lacks a right for one of the images of the request. It is the same whether there
// is such an image or not.
func (o *Options) allowed(r *http.Request, right access.Right, images ...string) error {
	c := callerOf(r)
	if c.scope.AllowsAll(right) {
		return nil
	}
	for _, image := range images {
		if ref, ok := o.canonical(image); !ok || !c.scope.Allows(right, ref.Repo) {
			return c.lacksFor(right, quote(image))
		}
	}
	return nil
}

// lacksFor is the error where a caller lacks a right for an image or repository.
func (c caller) lacksFor(right access.Right, image string) error {
	return &refusal{status: http.StatusForbidden, detail: fmt.Sprintf("%s has no right to %s %s; add a rule with may: %s for it to "+
		"admin.operators.rights", c.name, right, image, right)}
}

// mayChangeAll is an error where the caller of a request may not change what is not of one image.
func mayChangeAll(r *http.Request) error {
	if lack := callerOf(r).lacks(OperateAll); lack != "" {
		return &refusal{status: http.StatusForbidden, detail: lack}
	}
	return nil
}

// audit logs a change that an operator has made.
func audit(r *http.Request, log *slog.Logger, event string, attrs ...any) {
	log.InfoContext(r.Context(), event, append([]any{"operator", callerOf(r).name, "client", r.RemoteAddr}, attrs...)...)
}

// router adds routes with their rights. There is no other way to add one: a route without a right answers no request.
type router struct {
	chi.Router
	o *Options
}

// add adds a route.
func (r router) add(method, path string, right Right, h http.Handler) {
	r.Method(method, path, handler{right, r.o, h})
}
