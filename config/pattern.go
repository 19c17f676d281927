package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/clouds"
	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/internal/strictyaml"
)

// hostPattern is what a pattern of names may be: labels, in which * stands for any letters of one.
var hostPattern = regexp.MustCompile(`^[a-z0-9*-]+(\.[a-z0-9*-]+)+$`)

// IsPattern reports whether the name stands for the hosts that fit it.
func (u Upstream) IsPattern() bool { return strings.Contains(u.Name, "*") }

// Fits reports whether a host, in lower case, is one of a pattern's: each label fits, and it is a registry by the cloud's own
// grammar, so that a short pattern leads nowhere else.
func (u Upstream) Fits(host string) bool {
	cloud := clouds.Named(cloudOf(u.Name))
	return cloud != nil && len(host) <= 253 && cloud.Is(host) && glob.Host(u.Name, host)
}

// At is the upstream that a host of a pattern is.
func (u Upstream) At(host string) Upstream {
	u.Name, u.Endpoints = host, endpointsOf(host)
	return u
}

// cloudOf is the source of the cloud in whose domain a pattern ends; empty: there is none.
func cloudOf(pattern string) string {
	_, tail, _ := strings.Cut(pattern[strings.LastIndexByte(pattern, '*')+1:], ".") // the labels that have no *
	for _, cloud := range clouds.All {
		if cloud.Owns(tail) {
			return cloud.Key
		}
	}
	return ""
}

// checkPattern checks a name with a *, and its settings. Each host is asked at its own name, with a login that is made for
// it alone: a client that names a host can send no credential of the mirror's elsewhere.
func (u *Upstream) checkPattern(found *mistakes, path string) {
	const of = "*.azurecr.io, *-docker.pkg.dev or *.dkr.ecr.eu-west-1.amazonaws.com"
	switch {
	case strings.Contains(u.Name, "**") || !hostPattern.MatchString(u.Name):
		found.add(path, quoted(u.Name)+" is not a pattern of hosts", "a * stands for letters of one label, as in "+of)
		return
	case cloudOf(u.Name) == "":
		found.add(path, quoted(u.Name)+" does not end in a domain of Amazon's, Google's or Azure's registries",
			"name each registry in full; patterns are for theirs, as in "+of)
		return
	}
	if u.Endpoints != nil {
		found.add(path+".endpoints", "a pattern has none: each host is asked at its own name", "remove it")
	}
	if len(u.Aliases) > 0 {
		found.add(path+".aliases", "a pattern has none", "remove it")
	}
	for i, c := range u.Credentials {
		at := strictyaml.Index(path+".credentials", i)
		if sources := c.Sources(); len(sources) == 1 && !slices.Contains([]string{"ecr", "gar", "acr"}, sources[0]) {
			found.add(at+"."+sources[0], "the same login would go to every host that fits the pattern",
				"use "+cloudOf(u.Name)+", which gives each its own, or name the registry in full")
		}
	}
}
