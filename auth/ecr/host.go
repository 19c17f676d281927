package ecr

import (
	"regexp"
	"strings"
)

// private are the names of private registries: account, region and partition. It is anchored at both ends, since what
// it matches is sent our login.
var private = regexp.MustCompile(`^([0-9]{12})\.dkr([.-])ecr(-fips)?\.([a-z0-9][a-z0-9-]*)\.` +
	`(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|` +
	`sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// Is reports whether a host is a registry of Amazon's.
func Is(host string) bool {
	_, ok := placeOf(host)
	return ok
}

// place is where the login of a registry comes from.
type place struct {
	region string
	public bool
	api    string // host
	sts    string // host
}

func placeOf(host string) (place, bool) {
	if host == "public.ecr.aws" || host == "ecr-public.aws.com" {
		return place{
			region: "us-east-1", public: true,
			api: "api.ecr-public.us-east-1.amazonaws.com", sts: "sts.us-east-1.amazonaws.com",
		}, true
	}
	m := private.FindStringSubmatch(host)
	if m == nil {
		return place{}, false
	}
	fips, region, domain := m[3], m[4], m[5]
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
