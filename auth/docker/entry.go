package docker

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/glob"
)

// entry is one login of a config.json.
type entry struct {
	username string
	password auth.Secret
	identity auth.Secret
	problem  string // why it has neither password nor identity; empty: it has one
}

// content is the logins of a config.json.
type content struct {
	auths   map[key]entry
	helpers map[key]string // credHelpers: the suffix of the helper's name
	store   string         // credsStore
}

// key is the scope of an entry: a host, in which a label may hold *, and the beginning of repositories.
type key struct{ host, path string }

func (k key) String() string {
	if k.path == "" {
		return k.host
	}
	return k.host + "/" + k.path
}

// parse reads a config.json, a .dockerconfigjson, or an old .dockercfg, which is the auths alone. An error quotes nothing of
// the text.
func parse(b []byte) (content, error) {
	var doc struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredHelpers map[string]string          `json:"credHelpers"`
		CredsStore  string                     `json:"credsStore"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return content{}, jsonError(err)
	}
	if doc.Auths == nil && doc.CredHelpers == nil && doc.CredsStore == "" {
		_ = json.Unmarshal(b, &doc.Auths) // it is an object
		maps.DeleteFunc(doc.Auths, func(_ string, v json.RawMessage) bool {
			var e struct{ Auth, Username *string }
			return json.Unmarshal(v, &e) != nil || e.Auth == nil && e.Username == nil
		})
	}
	c := content{auths: map[key]entry{}, helpers: map[key]string{}, store: doc.CredsStore}
	for k, v := range doc.Auths {
		at := parseKey(k)
		if at.host == "" {
			continue
		}
		e := parseEntry(v)
		if old, twice := c.auths[at]; twice && old.problem == "" && e.problem != "" {
			continue // the same host written in two ways
		}
		c.auths[at] = e
	}
	for k, v := range doc.CredHelpers {
		if at := parseKey(k); at.host != "" && v != "" {
			c.helpers[at] = v
		}
	}
	return c, nil
}

// jsonError says where JSON is wrong without quoting it: it may be a password.
func jsonError(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("is not JSON, at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("has the wrong type of value in %q, at byte %d", e.Field, e.Offset)
	}
	return errors.New("is not a docker config")
}

func parseEntry(b []byte) entry {
	var doc struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return entry{problem: "it is not an object with texts"}
	}
	e := entry{
		username: doc.Username, password: auth.NewSecret(doc.Password), identity: auth.NewSecret(doc.IdentityToken),
	}
	if doc.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(doc.Auth))
		if err != nil {
			raw, err = base64.RawStdEncoding.DecodeString(strings.TrimSpace(doc.Auth))
		}
		name, password, ok := strings.Cut(string(raw), ":")
		if (err != nil || !ok) && e.password.IsZero() && e.identity.IsZero() {
			return entry{problem: "its auth is not the base64 of USER:PASSWORD"}
		}
		if err == nil && ok {
			e.username = name
			if p := strings.Trim(password, "\x00"); p != "" { // as docker does
				e.password = auth.NewSecret(p)
			}
		}
	}
	switch {
	case !e.identity.IsZero():
		e.username, e.password = "", auth.Secret{} // the refresh token is used instead
	case !e.password.IsZero():
	case doc.RegistryToken != "":
		e.problem = "it has a registrytoken alone, which can't be renewed; log in with a user name and password"
	default:
		e.problem = "it has no password; docker login stores it elsewhere (credsStore)"
	}
	return e
}

// hub are the names of Docker Hub in such files.
var hub = map[string]bool{"docker.io": true, "index.docker.io": true, "registry-1.docker.io": true}

// hubKey is the name under which helpers keep the login of Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// parseKey reads the name of an entry: a host, a URL as docker login writes it, or a host and the beginning of
// repositories as kubelets have them.
func parseKey(s string) key {
	s = strings.ToLower(strings.TrimSpace(s))
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	host, path, _ := strings.Cut(s, "/")
	path = strings.Trim(path, "/")
	if path == "v1" || path == "v2" {
		path = ""
	}
	if hub[host] {
		host = "docker.io"
	}
	return key{host: host, path: path}
}

// fits reports whether an entry is for a repository. The host must fit label by label, with * for any letters of one; the path
// must be the repository or a folder above it. The empty repository fits entries without a path.
func (k key) fits(host, repository string) bool {
	if k.path != "" && k.path != repository && !strings.HasPrefix(repository, k.path+"/") {
		return false
	}
	return matchHost(k.host, parseKey(host).host)
}

// matchHost matches a host with its port. Kubelets know no **: it is a * here, which is one label or a part of one.
func matchHost(pattern, host string) bool {
	for strings.Contains(pattern, "**") {
		pattern = strings.ReplaceAll(pattern, "**", "*")
	}
	pattern, wantPort, _ := strings.Cut(pattern, ":")
	host, port, _ := strings.Cut(host, ":")
	return wantPort == port && glob.Host(pattern, host)
}

// better reports whether a is more specific than b: a longer path, then a host with fewer *, then a longer host. Among equals the
// order of letters decides, so that it is always the same one.
func better(a, b key) bool {
	return cmp.Or(
		cmp.Compare(len(b.path), len(a.path)),
		cmp.Compare(strings.Count(a.host, "*"), strings.Count(b.host, "*")),
		cmp.Compare(len(b.host), len(a.host)),
		cmp.Compare(a.String(), b.String()),
	) < 0
}

// best is the entry of a map that fits a repository best.
func best[T any](m map[key]T, host, repository string) (at key, v T, ok bool) {
	for k, e := range m {
		if k.fits(host, repository) && (!ok || better(k, at)) {
			at, v, ok = k, e, true
		}
	}
	return at, v, ok
}
