package ecr

import (
	"strings"

	"github.com/registrymirror/mirror/internal/clouds"
)

// place is the region and the services that a registry's login comes from.
type place struct {
	region string
	public bool
	api    string // host
	sts    string // host
}

func placeOf(host string) (place, bool) {
	if clouds.PublicECR(host) {
		return place{
			region: "us-east-1", public: true,
			api: "api.ecr-public.us-east-1.amazonaws.com", sts: "sts.us-east-1.amazonaws.com",
		}, true
	}
	fips, region, domain, ok := clouds.PrivateECR(host)
	if !ok {
		return place{}, false
	}
	p := place{region: region, api: "api.ecr." + region + "." + domain, sts: "sts." + region + "." + domain}
	if fips != "" {
		p.api = "ecr-fips." + region + "." + domain
	}
	// The names with IPv6 have a domain of their own for their services.
	if rest, dual := strings.CutPrefix(domain, "on."); dual {
		p.sts = "sts." + region + ".amazonaws.com"
		if rest != "aws" {
			p.sts += ".cn"
		}
		p.api = "ecr" + fips + "." + region + ".api." + rest
	}
	return p, true
}
