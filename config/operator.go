package config

import (
	"regexp"
	"slices"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// operatorPattern is a glob of the names of operators.
var operatorPattern = regexp.MustCompile(`^[A-Za-z0-9._@+*-]{1,128}$`)

// checkOperators checks the operators and their rights: a right that no operator can have, and operators without a right, are mistakes.
func (c *Config) checkOperators(found *mistakes) {
	const at = "admin.operators"
	a, o := c.Admin, c.Admin.Operators
	if o.CA != "" && !a.TLS.Enabled() && a.TLS.Key == "" {
		found.add(at+".ca", "operators show certificates over TLS alone", "set admin.tls.cert and admin.tls.key")
	}
	if o.CRL != "" && o.CA == "" {
		found.add(at+".crl", "it has no effect without "+at+".ca", "set "+at+".ca, or remove it")
	}
	switch {
	case o.Any() && len(o.Rights) == 0:
		found.add(at, "no operator has a right", `add rights, as in rights: [{who: ["*"], may: read}, {who: [alice], may: operate}]`)
	case !o.Any() && len(o.Rights) > 0:
		found.add(at+".rights", "no operator can identify itself", "set "+at+".tokens or "+at+".ca")
	}
	for i, r := range o.Rights {
		r.check(found, strictyaml.Index(at+".rights", i), c.Upstreams)
	}
}

func (r OperatorRight) check(found *mistakes, at string, us Upstreams) {
	if len(r.Who) == 0 {
		found.add(at+".who", "the rule names no operator", "write names, as in who: [alice]")
	}
	for j, who := range r.Who {
		if !operatorPattern.MatchString(who) || slices.Contains(anyClient[:1], who) {
			found.add(strictyaml.Index(at+".who", j), quoted(who)+" is not the name of an operator", "write the name of a token or certificate, or * for each")
		}
	}
	if r.May == "" {
		found.add(at+".may", "the rule gives no right", "write read or operate")
	}
	if r.Images != nil && len(r.Images) == 0 {
		found.add(at+".images", "the list is empty", "write globs, as in docker.io/acme/**, or leave it out for all images")
	}
	for j, glob := range r.Images {
		if message, hint := us.checkImages(glob); message != "" {
			found.add(strictyaml.Index(at+".images", j), message, hint)
		}
	}
}
