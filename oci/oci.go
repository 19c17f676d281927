// Package oci has the terms of the OCI distribution spec as the mirror uses them: references, /v2/ requests, descriptors, and
// manifests with their children. It is pure: no I/O, no state, no import of the mirror.
//
// Promise: a value that this package returned without an error is well formed by the spec's grammar, so that no other
// package checks a name, a tag or a digest again. It refuses the text of a client with an errcode.Error whose message is one
// line of at most 300 bytes that names the offending part and the way out; the document of an upstream, with a *ManifestError.
package oci

import (
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest is a parsed content digest, sha256 or sha512 only.
type Digest = digest.Digest

// Descriptor is the image-spec's descriptor: media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

// MaxManifestSize is the largest manifest in bytes that is read, cached or served. It is containerd's limit.
const MaxManifestSize = 4 << 20

// Repo names a repository of an upstream. Host is the canonical name of the upstream ("docker.io"), Name the
// repository on it ("library/nginx").
type Repo struct {
	Host string
	Name string
}

// Ref names content in a repository: by tag, by digest, or both (then the digest decides).
type Ref struct {
	Repo
	Tag    string
	Digest Digest
}

// Kind is the kind of a /v2/ request.
type Kind int

// The kinds of request that the mirror answers.
const (
	KindPing Kind = iota + 1
	KindManifest
	KindBlob
	KindTags
	KindReferrers
)

// Request is a parsed GET or HEAD under /v2/.
type Request struct {
	Kind      Kind
	Name      string // repository as written in the path, a host prefix included; valid by the spec's grammar
	Namespace string // the ns parameter as sent: containerd and BuildKit name the upstream with it; may be empty
	Tag       string // KindManifest by tag
	Digest    Digest // KindManifest by digest, KindBlob, KindReferrers
	Head      bool
	Query     url.Values // n, last (tags), artifactType (referrers); ns removed
}

// Manifest is a manifest or index with its children, and its bytes exactly as received.
type Manifest struct {
	Digest    Digest
	MediaType string // the document's own mediaType, else the Content-Type it came with
	Bytes     []byte
	Children  []Child     // in document order: config, layers, blobs; or manifests. Empty for unknown types and schema 1
	Subject   *Descriptor // of a referrer; nil: it has none
	Artifact  string      // artifactType, else the config's media type; empty for an index without one
}

// Child is one descriptor that a manifest refers to. Its Size is -1 where the document does not give it: it left the size
// out, or wrote 0 for content that is not empty. Of its URLs the first is kept, and never followed; annotations, data and
// features of the platform are not kept.
type Child struct {
	Descriptor
	Manifest bool // it is fetched from /manifests/, not /blobs/
}
