package config

import (
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/strictyaml"
	"github.com/registrymirror/mirror/internal/text"
)

// Upstreams is the list of registries, in the order in which they are written.
type Upstreams []Upstream

// Upstream is one registry.
type Upstream struct {
	// Name is the key: the host, with a port where it has one, as it stands in image names; or a pattern of hosts. Lower
	// case.
	Name string `yaml:"-"`
	// Library puts library/ before a repository of one component, as on docker.io.
	Library bool `yaml:"-"`

	// Endpoints are where the registry is asked, in this order: the next one is used while one can't be reached, fails, or
	// limits the mirror. Each is a URL, or a mapping with url and more. The default is that of a well-known name, else
	// https://NAME. Plain HTTP is used only where the URL says http.
	Endpoints []Endpoint `yaml:"endpoints,omitzero"`
	// AuthHosts are the hosts, HOST or HOST:PORT, besides the endpoint's own to which a token request, and so a
	// credential, may go. They replace those of a well-known name.
	AuthHosts []string `yaml:"authHosts"`
	// RedirectHosts are the hosts, HOST or HOST:PORT, with private addresses to which a download may be redirected.
	// Public ones need no entry.
	RedirectHosts []string `yaml:"redirectHosts"`
	// CDNHosts are the public hosts, HOST or HOST:PORT, to which the registry redirects downloads; a label may be *, but
	// for the last two. They matter behind HTTPS_PROXY alone: it hides addresses, so no other host is asked there. An
	// entry never leads to a private address. They replace those of a well-known name.
	CDNHosts []string `yaml:"cdnHosts"`
	// Aliases are other keys that mean this registry, as index.docker.io does: hosts, or a word that stands for a
	// name with a port. They come on top of those of a well-known name.
	Aliases []string `yaml:"aliases"`
	// Access says what clients may pull: public (images that need no login), rules (images that the rules name), or client
	// (images that the client's own credentials may read).
	Access string `yaml:"access" enum:"public,rules,client"`
	// ClientLogins says, for access: client, how long the registry's word counts that a client's own login may read a repository.
	ClientLogins ClientLogins `yaml:"clientLogins"`
	// Deny are globs of repositories for which the registry is never asked, as in acme-internal/**: * is one segment of the path, ** any
	// number. A pull of one is refused before anything is asked or looked up.
	Deny []string `yaml:"deny,omitzero"`
	// Only are globs of the repositories for which the registry is asked. Empty: all. A pull of any other is refused, as by deny.
	Only []string `yaml:"only,omitzero"`
	// Credentials are the mirror's logins at the registry, each with one source, for all of its repositories or for some.
	// Under access: public they are used for public images alone, for the sake of the registry's rate limits.
	Credentials []Credential `yaml:"credentials"`
	// MaxTransfers is how many blobs each endpoint sends at once, at least 1. Further ones wait for their turn.
	MaxTransfers int `yaml:"maxTransfers"`
	// Tags says how fresh a tag must be, and which digest it is served with.
	Tags Tags `yaml:"tags"`
	// Pins fix a tag, REPOSITORY:TAG, to a digest: it is served as that, whatever the registry says, until the pin is removed.
	Pins map[string]string `yaml:"pins"`
	// RateLimitReserve is the part of each of the registry's rate limits that background work, as the content of pins, leaves to pulls
	// of clients.
	RateLimitReserve Percent `yaml:"rateLimitReserve"`
}

// ClientLogins is how long a registry's word counts on the logins of clients.
type ClientLogins struct {
	// MaxAge is how long the right of a login is used without asking the registry again. So a login that is revoked there ends after
	// that at the latest, while the registry answers.
	MaxAge time.Duration `yaml:"maxAge"`
	// StaleIfError is how much longer it is used where the registry does not answer. 0s: not at all.
	StaleIfError time.Duration `yaml:"staleIfError"`
}

// maxClientLogins is the longest time for which a right may be used: that of a revoked login lasts as long.
const maxClientLogins = 24 * time.Hour

// checkClientLogins checks what goes with access: client. A login of the mirror's own would read more than the client may.
func (u *Upstream) checkClientLogins(found *mistakes, path string) {
	for key, d := range map[string]time.Duration{"maxAge": u.ClientLogins.MaxAge, "staleIfError": u.ClientLogins.StaleIfError} {
		if d > maxClientLogins {
			found.add(path+".clientLogins."+key, text.Duration(d)+" is too long: a login that is revoked would count as long",
				"write at most "+text.Duration(maxClientLogins))
		}
	}
	if u.Access != "client" {
		return
	}
	if len(u.Credentials) > 0 {
		found.add(path+".credentials", "under access: client the mirror has no login of its own: those of the clients decide",
			"remove them; or set access: rules, and a rule that lets clients pull, as in "+ruleFor(u.Name))
	}
	for i, e := range u.Endpoints {
		if e.ClientCert != "" {
			found.add(strictyaml.Index(path+".endpoints", i)+".clientCert", "a certificate is a login of the mirror's own, and under access: client "+
				"those of the clients decide", "remove it; or set access: rules, and a rule that lets clients pull, as in "+ruleFor(u.Name))
		}
	}
}

// Endpoint is a place where a registry is asked: the registry itself, another one like it, or a mirror of it.
type Endpoint struct {
	// URL is http:// or https:// with a host and, where needed, a port.
	URL string `yaml:"url,short"`
	// Prefix goes before the repository of each request: the project of a Harbor, the repository of an Artifactory or an
	// Artifact Registry, the prefix of an ECR pull-through rule.
	Prefix string `yaml:"prefix,omitzero"`
	// CA is a file of certificates, PEM, that are trusted for this endpoint besides the system's. It is read again
	// when it changes.
	CA string `yaml:"ca,omitzero" path:"file"`
	// ClientCert is a file with the certificate, PEM, that is shown to this endpoint and its token services. It is read
	// again when it changes.
	ClientCert string `yaml:"clientCert,omitzero" path:"file"`
	// ClientKey is a file with the key, PEM, of clientCert.
	ClientKey string `yaml:"clientKey,omitzero" path:"file"`
	// Proxy is the URL of a proxy for this endpoint and its redirects, or none for no proxy. Without it HTTPS_PROXY,
	// HTTP_PROXY and NO_PROXY decide.
	Proxy string `yaml:"proxy,omitzero"`
	// AuthHosts are those of this endpoint, instead of the upstream's.
	AuthHosts []string `yaml:"authHosts,omitzero"`
}

// newUpstream is an upstream with the defaults that do not depend on its name.
func newUpstream(name string) Upstream {
	return Upstream{
		Name:             name,
		Access:           "public",
		ClientLogins:     ClientLogins{MaxAge: 10 * time.Minute, StaleIfError: time.Hour},
		Tags:             newTags(),
		MaxTransfers:     32,
		RateLimitReserve: 20,
	}
}

// SetKey begins an upstream with the defaults that do not depend on its name. It is for decoding.
func (u *Upstream) SetKey(written string) { *u = newUpstream(strings.ToLower(written)) } // hosts have no case

// Key is its name. It is for decoding.
func (u *Upstream) Key() string { return u.Name }

// Get returns the upstream of that canonical name.
func (us Upstreams) Get(name string) (Upstream, bool) {
	for _, u := range us {
		if u.Name == name {
			return u, true
		}
	}
	return Upstream{}, false
}
