package config

import (
	"net/url"
	"slices"
	"strings"
)

// defaultUpstream is the registry of an image name without one.
const defaultUpstream = "docker.io"

// googleStorage is where Google's registries, and others that keep their content there, may send a download.
const googleStorage = "storage.googleapis.com"

// wellKnown are the registries that need no configuration, in the order in which they are listed. AuthHosts are the
// hosts of token services that are not the registry's own; a token request to any other host is refused. CDNHosts are
// where they redirect downloads, by their own lists for firewalls. One that is missing here matters behind a proxy alone,
// and is named in the error.
var wellKnown = Upstreams{
	// Image names say docker.io, the registry is registry-1.docker.io, tokens come from auth.docker.io. Old clients
	// and config files say index.docker.io. Which of its CDNs a download comes from varies from one to the next.
	{
		Name: "docker.io", Library: true,
		Endpoints: []Endpoint{{URL: "https://registry-1.docker.io"}},
		AuthHosts: []string{"auth.docker.io"},
		CDNHosts: []string{
			"production.cloudfront.docker.com", "production.cloudflare.docker.com",
			"docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
		},
		Aliases: []string{"index.docker.io", "registry-1.docker.io"},
	},
	{Name: "ghcr.io", CDNHosts: []string{"pkg-containers.githubusercontent.com"}}, // tokens: ghcr.io/token
	// Tokens: quay.io/v2/auth. Its CDNs are cdn.quay.io and cdn01 to cdn06; new ones come up now and then.
	{Name: "quay.io", CDNHosts: []string{"*.quay.io", "quayio-production-s3.s3.amazonaws.com"}},
	// It redirects manifests to the Google registry, and blobs to the bucket or CDN near the client: there is one bucket
	// for each region of AWS.
	{Name: "registry.k8s.io", CDNHosts: []string{
		"*.pkg.dev", googleStorage, "*.s3.dualstack.*.amazonaws.com", "d39mqg4b1dx9z1.cloudfront.net",
		"d1be1w964nk82h.cloudfront.net",
	}},
	{Name: "gcr.io", CDNHosts: []string{googleStorage}},                         // tokens: gcr.io/v2/token
	{Name: "mcr.microsoft.com", CDNHosts: []string{"*.data.mcr.microsoft.com"}}, // no authentication
	// Tokens: public.ecr.aws/token/.
	{Name: "public.ecr.aws", CDNHosts: []string{"d5l0dvt14r5h8.cloudfront.net", "d2glxqk2uabbnd.cloudfront.net"}},
	// Tokens come from the GitLab instance itself: gitlab.com/jwt/auth.
	{
		Name: "registry.gitlab.com", AuthHosts: []string{"gitlab.com"},
		CDNHosts: []string{"cdn.registry.gitlab-static.net", googleStorage},
	},
	{Name: "nvcr.io", CDNHosts: []string{"layers.nvcr.io"}}, // tokens: nvcr.io/proxy_auth
	// Its challenge names its own host today; sso.redhat.com is what it named for years and what Red Hat documents.
	{Name: "registry.redhat.io", AuthHosts: []string{"sso.redhat.com"}, CDNHosts: []string{"*.quay.io"}},
	{Name: "registry.access.redhat.com", CDNHosts: []string{"*.quay.io"}}, // the part of it that needs no login
	{
		Name: "docker.elastic.co", AuthHosts: []string{"docker-auth.elastic.co"},
		CDNHosts: []string{"docker-registry-production.d24a988e385e0074d717b6bdaea58f0d.r2.cloudflarestorage.com"},
	},
	// Tokens: cgr.dev/token.
	{Name: "cgr.dev", CDNHosts: []string{"9236a389bd48b984df91adc1bc924620.r2.cloudflarestorage.com"}},
}

// known returns the entry of wellKnown with that name in lower case.
func known(name string) (Upstream, bool) { return wellKnown.Get(name) }

// canonical returns the well-known name of which name is an alias, or "".
func canonical(name string) string {
	if u := wellKnown.Named(name); u != nil && u.Name != name {
		return u.Name
	}
	return ""
}

// Itself reports, by the host, whether an endpoint is the registry that images are named after, and not a copy or a mirror of
// it: only the registry itself decides that an image does not exist.
func (u Upstream) Itself(e Endpoint) bool {
	at, err := url.Parse(e.URL)
	if err != nil || e.Prefix != "" {
		return false
	}
	k, _ := known(u.Name)
	if at.Host == u.Name || slices.Contains(k.Aliases, at.Host) {
		return true
	}
	return slices.ContainsFunc(endpointsOf(u.Name), func(own Endpoint) bool {
		_, host, _ := strings.Cut(own.URL, "://")
		return host == at.Host
	})
}
