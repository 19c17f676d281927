package pull

import (
	"context"
	"net/url"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// Upstream is the part of a registry that a pull needs. *upstream.Registry is the real one. Errors are *fault.Error.
type Upstream interface {
	// Resolve asks by HEAD which digest a tag means. Size and MediaType are set where the upstream gave them.
	Resolve(ctx context.Context, repo, tag string) (oci.Descriptor, error)
	// Manifest gets a manifest by tag or digest, verified against the digest it was asked by, at most 4 MiB.
	Manifest(ctx context.Context, repo, reference string) (*oci.Manifest, error)
	// Stat asks by HEAD for the size of a blob; Size is -1 where the upstream did not give it.
	Stat(ctx context.Context, repo string, d oci.Digest) (oci.Descriptor, error)
	// Blob opens a range of a blob.
	Blob(ctx context.Context, repo string, d oci.Digest, w flight.Want) (*transfer.Body, error)
	// Corrupt reports that the bytes of a blob that Blob brought last do not have its digest.
	Corrupt(repo string, d oci.Digest, err error)
	// Tags and Referrers pass the query on and return the document and the Link header for the next page.
	Tags(ctx context.Context, repo string, query url.Values) (*upstream.Document, error)
	Referrers(ctx context.Context, repo string, d oci.Digest, query url.Values) (*upstream.Document, error)
	// Budget is what background work may still use of the limits that the registry has reported; false: none was.
	Budget() (limit, left int64, resetAt time.Time, known bool)
}

// Site is an upstream with the operator's policy for it.
type Site struct {
	Name     string // canonical
	Upstream Upstream
	Tags     catalog.Policies
	// Ruled says that Setup.Rules decide which repositories clients may read, and that Upstream may use a login for that.
	// Otherwise all clients may read all that it shows.
	Ruled bool
	// Own says that clients' own logins at the registry decide what they may read of it, where it does not show a repository without
	// one, and for how long a right counts. Upstream has no login of ours then. Nil: they are not used.
	Own *access.Lifetime
	// Names bounds which repositories Upstream is asked for. Nil: it may be asked for all.
	Names *access.Names
	// Login says that Upstream may use a login of ours. Its content is then served through another repository only once
	// that repository's registry has shown it there.
	Login bool
	// Open makes the site a pattern, and gives the upstream of a host that fits it; Upstream is nil then. It is called for
	// each request that may read there, and gives the same one for as long as it is in use. Nil: the site is not a pattern.
	Open func(host string) (Upstream, error)
}

// Setup is the part of the configuration that a pull looks up. It is immutable; Puller.Use swaps it, and a request takes one
// snapshot.
type Setup struct {
	Routes *route.Table
	Rules  *access.Rules   // for sites that are Ruled; nil: no client may read them
	Sites  map[string]Site // by canonical name, or pattern
	// Platforms are those of the nodes, OS/ARCH or OS/ARCH/VARIANT: of a pinned index, the manifests for these are kept.
	// Empty: all.
	Platforms []string
}

// Ask is one request of a client.
type Ask struct {
	Request oci.Request
	Client  string // address or node, for records; it gives no right
	// Who: the identity that the client has shown, for Setup.Rules. Empty: it is anonymous.
	Who client.Identity
	// Login is what the client has sent as its own login at the registry, for sites with Own. It is used only if Secure: the request
	// has come over TLS, or from this machine.
	Login  upstream.Login
	Secure bool
	// Unusable says that the request has a header Authorization that is not the mirror's and gives no Login: for the error.
	Unusable bool
	// Peer is the address that the request comes from, where Client is not. Turns and bytes are shared fairly among
	// these: a client may give itself many names. Empty: Client.
	Peer string
	// By is what the request is made for, where that is not a client's pull. Empty: catalog.ByPull.
	By catalog.Source
}

// Status says what the cache did for an answer; it becomes Cache-Status (RFC 9211).
type Status struct {
	Outcome   cache.Outcome
	Collapsed bool          // shared another request's trip to the upstream
	Stale     bool          // older than its policy wants, since the upstream did not answer
	Age       time.Duration // of a tag's last confirmation, where that matters
	// Reason is the upstream's error that made the answer stale. Nil: it is not stale.
	Reason error
	// Choice is, for a tag, the digest that it was answered with, and why it is not what the upstream said last.
	Choice catalog.Choice
}

// Content is an answer: a manifest (Bytes, or Object where it is large), a blob (Object), or a document (Bytes). The
// receiver closes it.
type Content struct {
	Ref       oci.Ref // canonical, with the digest where there is one
	Digest    oci.Digest
	MediaType string
	Size      int64 // bytes; always known
	Bytes     []byte
	// Object is nil for HEAD.
	Object cache.Object
	Link   string // for lists: the rel=next target, relative to our own path; empty: no more
	// Parts are the parts of an image's manifest, not to be changed; nil for others.
	Parts []oci.Digest
	// Filters is the OCI-Filters-Applied header of a referrers answer.
	Filters string
	Status  Status

	blob    *blob  // the request that Object is for; nil: Object is not a blob's
	release func() // releases the memory of Bytes; nil: they take none of their own
}

// Close releases the object, if any, and the memory of the bytes.
func (c *Content) Close() error {
	if c == nil {
		return nil
	}
	if c.release != nil {
		c.release()
	}
	if c.Object == nil {
		return nil
	}
	return c.Object.Close()
}
