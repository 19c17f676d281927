// Package clouds knows which hosts are registries of Amazon, Google and Azure.
//
// Promise: a host is one of a cloud only if it lies, label by label, below a domain that the cloud owns: what matches is
// sent a login of the cloud's.
package clouds

import (
	"regexp"
	"slices"
	"strings"
)

// Cloud is the registries of one provider.
type Cloud struct {
	Key     string // names its source of credentials in the configuration: "ecr"
	Owner   string // the provider: "Amazon"
	Example string // its hosts, for people
	// Domains are those below which its registries are.
	Domains []string

	hosts *regexp.Regexp // anchored at both ends
}

// Is reports whether a host, in lower case and without a port, is a registry of the cloud.
func (c *Cloud) Is(host string) bool { return c.hosts.MatchString(host) }

// ECR is Amazon's Elastic Container Registry, private and public.
var ECR = newCloud(Cloud{
	Key: "ecr", Owner: "Amazon", Example: "public.ecr.aws and ACCOUNT.dkr.ecr.REGION.amazonaws.com",
	Domains: []string{
		"amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "on.aws", "on.amazonwebservices.com.cn", "sc2s.sgov.gov",
		"c2s.ic.gov", "cloud.adc-e.uk", "csp.hci.ic.gov",
	},
}, `public\.ecr\.aws|ecr-public\.aws\.com|[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9][a-z0-9-]*)\.DOMAIN`)

// GAR is Google's Artifact Registry and Container Registry.
var GAR = newCloud(Cloud{
	Key: "gar", Owner: "Google", Example: "gcr.io, *.gcr.io and *-docker.pkg.dev", Domains: []string{"gcr.io", "pkg.dev"},
}, `([a-z0-9-]+\.)?gcr\.io|[a-z0-9-]+-docker\.pkg\.dev`)

// ACR is Azure's Container Registry.
var ACR = newCloud(Cloud{
	Key: "acr", Owner: "Azure", Example: "NAME.azurecr.io", Domains: []string{"azurecr.io", "azurecr.cn", "azurecr.us"},
}, `[a-z0-9]+(-[a-z0-9]+)?\.DOMAIN`)

// All are the clouds, in the order of the alphabet.
var All = []*Cloud{ACR, ECR, GAR}

// Named is the cloud of a key, or nil.
func Named(key string) *Cloud {
	for _, c := range All {
		if c.Key == key {
			return c
		}
	}
	return nil
}

// newCloud makes a cloud of an expression for its hosts, in which DOMAIN is any of its domains.
func newCloud(c Cloud, hosts string) *Cloud {
	var domains []string
	for _, d := range c.Domains {
		domains = append(domains, regexp.QuoteMeta(d))
	}
	hosts = strings.ReplaceAll(hosts, "DOMAIN", "("+strings.Join(domains, "|")+")")
	c.hosts = regexp.MustCompile("^(?:" + hosts + ")$")
	return &c
}

// Owns reports whether a name ends in one of the cloud's domains.
func (c *Cloud) Owns(name string) bool {
	return slices.ContainsFunc(c.Domains, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) })
}

// PublicECR reports whether a registry of Amazon's has images for everybody.
func PublicECR(host string) bool { return host == "public.ecr.aws" || host == "ecr-public.aws.com" }

// PrivateECR is what the name of a private registry of Amazon's says: where it is, and whether by an endpoint of the
// FIPS kind ("-fips"; else empty). False: it is not one.
func PrivateECR(host string) (fips, region, domain string, ok bool) {
	m := ECR.hosts.FindStringSubmatch(host)
	if m == nil || PublicECR(host) {
		return "", "", "", false
	}
	return m[1], m[2], m[3], true
}
