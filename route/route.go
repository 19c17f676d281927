// Package route finds the upstream and repository of a request in the operator's closed list.
//
// Promise: an answer is always an upstream of the list; for a name that is not in the list it is an *UnknownError. Names are
// lookup keys only: nothing here resolves, dials or allocates in proportion to the request.
package route

import "github.com/registrymirror/mirror/oci"

// Upstream is one entry of the operator's list.
type Upstream struct {
	Name    string   // canonical: "docker.io", "ghcr.io", "registry.corp:5000"
	Aliases []string // other keys that mean the same upstream: "index.docker.io"
	Library bool     // a repository of one component gets "library/" before it, as on docker.io
	// Fits makes the name a pattern: it reports whether a host, in lower case, is one of its upstreams. It must be quick,
	// without I/O. A name or alias that is written out goes before patterns.
	Fits func(host string) bool
}

// Via is the part of the request that named the upstream.
type Via string

// The parts that name an upstream, in order of precedence.
const (
	ViaNamespace Via = "ns"
	ViaPrefix    Via = "prefix"
	ViaDefault   Via = "default"
)

// Target is the repository that a request means.
type Target struct {
	oci.Repo
	Via     Via
	Pattern string // name of the entry that the host fits; empty where it is written out
}

// UnknownError reports a name that is not in the operator's list.
type UnknownError struct {
	Key  string // as the client sent it, at most 255 bytes
	Via  Via
	Have []string // the canonical names of the list, sorted
}
