package config

import "slices"

// defaultUpstream is where a name without a registry leads, as everywhere in the world of images.
const defaultUpstream = "docker.io"

// wellKnown are the registries that need no configuration, in the order in which they are listed. AuthHosts are the
// hosts of token services that are not the registry's own; a token request to any other host is refused.
var wellKnown = []Upstream{
	// Image names say docker.io, the registry is registry-1.docker.io, tokens come from auth.docker.io. Old clients
	// and config files say index.docker.io.
	{
		Name: "docker.io", Library: true,
		Endpoints: []Endpoint{{URL: "https://registry-1.docker.io"}},
		AuthHosts: []string{"auth.docker.io"},
		Aliases:   []string{"index.docker.io", "registry-1.docker.io"},
	},
	{Name: "ghcr.io"}, // tokens: ghcr.io/token
	{Name: "quay.io"}, // tokens: quay.io/v2/auth
	// No authentication at all. It redirects manifests to regional hosts of pkg.dev and blobs to S3, both public.
	{Name: "registry.k8s.io"},
	{Name: "gcr.io"},            // tokens: gcr.io/v2/token
	{Name: "mcr.microsoft.com"}, // no authentication; blobs from *.data.mcr.microsoft.com
	{Name: "public.ecr.aws"},    // tokens: public.ecr.aws/token/
	// Tokens come from the GitLab instance itself: gitlab.com/jwt/auth.
	{Name: "registry.gitlab.com", AuthHosts: []string{"gitlab.com"}},
	{Name: "nvcr.io"}, // tokens: nvcr.io/proxy_auth
	// Its challenge names its own host today; sso.redhat.com is what it named for years and what Red Hat documents.
	{Name: "registry.redhat.io", AuthHosts: []string{"sso.redhat.com"}},
	{Name: "registry.access.redhat.com"}, // the part of it that needs no login
	{Name: "docker.elastic.co", AuthHosts: []string{"docker-auth.elastic.co"}},
	{Name: "cgr.dev"}, // tokens: cgr.dev/token
}

// known returns the entry of wellKnown with that name in lower case.
func known(name string) (Upstream, bool) { return Upstreams(wellKnown).Get(name) }

// canonical returns the well-known name of which name is an alias, or "".
func canonical(name string) string {
	for _, u := range wellKnown {
		if slices.Contains(u.Aliases, name) {
			return u.Name
		}
	}
	return ""
}
