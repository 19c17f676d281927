package webhook

import (
	"slices"
	"strings"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
)

// Names find the repositories of this mirror that a report means. A registry reports the name that the image has there: a
// Harbor whose project hub-proxy is an endpoint of docker.io reports hub-proxy/library/nginx.
type Names struct {
	Routes    *route.Table
	Endpoints []Endpoint
}

// Endpoint is one of the places where an upstream is asked.
type Endpoint struct {
	Upstream string // name in the operator's list; not a pattern
	Host     string // as in its URL
	Prefix   string // before the name of each repository; empty: none
}

// Known reports whether a host is an upstream of the list, by name, alias or pattern.
func (n Names) Known(host string) bool {
	return host != "" && n.Routes.Entry(host) != ""
}

// repos are the repositories that a report of a change means, in order; none: it is about another registry. Where only names an
// upstream, they are of that one alone, and it is taken for the registry that reports under a host which is not known.
func (n Names) repos(c change, only string) []oci.Repo {
	host := strings.ToLower(c.host)
	found := n.at(host, c.repository)
	if short := withoutPort(host); len(found) == 0 && short != host {
		found = n.at(short, c.repository)
	}
	if only == "" {
		return found
	}
	if len(found) == 0 && !n.Known(host) {
		return n.below(only, c.repository)
	}
	return slices.DeleteFunc(found, func(r oci.Repo) bool { return n.Routes.Entry(r.Host) != only })
}

// at are the repositories that a name at a host means: by the list of upstreams, and by their endpoints.
func (n Names) at(host, name string) (found []oci.Repo) {
	if host == "" {
		return nil
	}
	found = n.add(found, host, name)
	for _, e := range n.Endpoints {
		if at := strings.ToLower(e.Host); at == host || withoutPort(at) == host {
			found = n.addBelow(found, e, name)
		}
	}
	return found
}

// below are the repositories of an upstream that a name means at one of its endpoints.
func (n Names) below(upstream, name string) (found []oci.Repo) {
	for _, e := range n.Endpoints {
		if e.Upstream == upstream {
			found = n.addBelow(found, e, name)
		}
	}
	return found
}

// addBelow adds the repository that a name means at an endpoint.
func (n Names) addBelow(found []oci.Repo, e Endpoint, name string) []oci.Repo {
	if e.Prefix != "" {
		rest, ok := strings.CutPrefix(name, e.Prefix+"/")
		if !ok {
			return found
		}
		name = rest
	}
	return n.add(found, e.Upstream, name)
}

// add adds a repository of an upstream, in the form in which tags are recorded, once.
func (n Names) add(found []oci.Repo, host, name string) []oci.Repo {
	if !oci.IsRepository(name) {
		return found
	}
	t, err := n.Routes.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: host, Name: name})
	if err != nil || slices.Contains(found, t.Repo) {
		return found
	}
	return append(found, t.Repo)
}

// withoutPort is a host without the port that its scheme has anyway.
func withoutPort(host string) string {
	return strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80")
}
