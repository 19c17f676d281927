package pull

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// How images are brought into the cache ahead of the pulls of clients.

const (
	// maxSideBySide is how many blobs of one image are fetched at once, as containerd does.
	maxSideBySide = 3
	// maxAttached is how many signatures and referrers of an image are listed.
	maxAttached = 1000
)

// FetchOptions are those of the fetch of an image, or of a part of it.
type FetchOptions struct {
	Platforms []string // as for Survey
	// As names the work among clients: turns and bytes are shared fairly among these. Empty: "mirror".
	As string
	// By is what the image is fetched for, as the ledger of the tag says it. Empty: catalog.ByWarm.
	By catalog.Source
	// Background says that the work can wait: its downloads have a turn only while no client needs one, and lose it to a client at
	// once, until a client joins them. They wait for as long as the context lasts. What is left of a rate limit is left to clients
	// down to upstream.Options.Reserve; a request that is not made for that fails with a *fault.ReserveError. A copy of a tag that
	// may be old is not taken, and content that can't be stored is not fetched.
	Background bool
	// Fresh says that the registry is asked what a tag means, also where the tags.maxAge of the last answer has not passed. A tag
	// that is pinned, held or immutable is not asked for, and the last answer counts where the registry gives none.
	Fresh bool
	// Progress is called as the bytes of a part arrive: with the part, and how many of its bytes are here. It is called by
	// several goroutines at once. Nil: it is not.
	Progress func(part Part, done int64)
}

// during is the context of work at an upstream, and end gives its error. Background work makes no further request once the upstream was
// removed from the setup: it ends as one that begins now.
func (p *Puller) during(ctx context.Context, st *site, ref oci.Ref, o FetchOptions) (_ context.Context, end func(error) error) {
	ctx = memory.By(ctx, o.name())
	if !o.Background {
		return ctx, func(err error) error { return st.forMirror(ref.Repo, err) }
	}
	ctx, cancel := context.WithCancel(upstream.Spare(ctx))
	stop := context.AfterFunc(st.gone, cancel)
	return ctx, func(err error) error {
		stop()
		cancel()
		if err == nil || st.gone.Err() == nil {
			return st.forMirror(ref.Repo, err)
		}
		if _, _, err := p.allowed(ref); err != nil {
			return err
		}
		return fmt.Errorf("the setup of %s has changed: %w", ref.Host, flight.ErrClosed) // it has been added again
	}
}

func (o FetchOptions) name() string { return cmp.Or(o.As, "mirror") }

// Fetch brings an image into the cache, as the pull of a client would: parts that are there cost no request, and downloads are
// shared with clients. ref has a tag, a digest, or both. It returns the image as far as it is known, also beside an error, which
// is that of the first part that failed. The caller tries again: what has come stays.
func (p *Puller) Fetch(ctx context.Context, ref oci.Ref, o FetchOptions) (*Image, error) {
	m, err := p.Manifests(ctx, ref, o)
	if err != nil {
		return m, err
	}
	var mu sync.Mutex // guards Here of the parts
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxSideBySide)
	for i := range m.Parts {
		part := &m.Parts[i]
		if part.Manifest {
			continue
		}
		group.Go(func() error {
			err := p.Part(ctx, m.Ref.Repo, *part, o)
			mu.Lock()
			defer mu.Unlock()
			part.Here = err == nil
			return err
		})
	}
	return m, group.Wait()
}

// Manifests is the first half of Fetch: it resolves the tag, brings the manifests for the platforms into the cache, and returns the
// image with all of its parts. It works for artifacts as well: without platforms, and whatever their media types are.
func (p *Puller) Manifests(ctx context.Context, ref oci.Ref, o FetchOptions) (*Image, error) {
	st, ref, err := p.allowed(ref)
	if err != nil {
		return nil, err
	}
	ctx, end := p.during(ctx, st, ref, o)
	m, err := p.manifestsOf(ctx, st, ref, o)
	return m, end(err)
}

// manifestsOf is Manifests at an upstream.
func (p *Puller) manifestsOf(ctx context.Context, st *site, ref oci.Ref, o FetchOptions) (*Image, error) {
	fetched := false // the image's own manifest, for its tag
	if ref.Digest == "" {
		q := p.tagPull(st, ref, cmp.Or(o.By, catalog.ByWarm))
		q.fresh = o.Fresh
		c, err := q.answer(ctx)
		if err != nil {
			return nil, err
		}
		_ = c.Close()
		if o.Background && c.Status.Stale {
			return nil, c.Status.Reason
		}
		ref.Digest = c.Digest
		fetched = c.Status.Outcome == cache.Miss || c.Status.Outcome == cache.Joined
	}
	m, err := survey(ref, o.Platforms, func(d oci.Descriptor) (*oci.Manifest, error) {
		return p.manifestBytes(ctx, st, oci.Ref{Repo: ref.Repo, Digest: d.Digest}, d.MediaType)
	}, p.cached)
	m.Parts[0].Fetched = m.Parts[0].Fetched || fetched
	return m, err
}

// Part brings one part of an image into the cache. It returns when that is stored.
func (p *Puller) Part(ctx context.Context, repo oci.Repo, part Part, o FetchOptions) error {
	st, ref, err := p.allowed(oci.Ref{Repo: repo, Digest: part.Digest})
	if err != nil {
		return err
	}
	ctx, end := p.during(ctx, st, ref, o)
	if part.Manifest {
		_, err := p.manifestBytes(ctx, st, ref, part.MediaType)
		return end(err)
	}
	for {
		err := p.fetchBlob(ctx, st, ref, part, o)
		// A client that joined the download has waited as long as it can, and its failure is remembered for a moment.
		if !o.Background || !fault.Is[*fault.QueueError](err) || !backoff.Wait(ctx, memoryBroken) {
			return end(err)
		}
	}
}

// cosignTags end the tags by which cosign keeps what belongs to a digest, as sha256-<hex>.sig.
var cosignTags = [...]string{".sig", ".att", ".sbom"}

// Attached lists what a registry has about an image, which has a digest: the tags of its signatures, attestations and bills of
// materials as cosign writes them, then its referrers, by digest. Each can be fetched as an image.
func (p *Puller) Attached(ctx context.Context, ref oci.Ref, o FetchOptions) ([]oci.Ref, error) {
	st, ref, err := p.allowed(ref)
	if err != nil {
		return nil, err
	}
	ctx, end := p.during(ctx, st, ref, o)
	list, err := p.attachedTo(ctx, st, ref, o)
	return list, end(err)
}

// attachedTo is Attached at an upstream.
func (p *Puller) attachedTo(ctx context.Context, st *site, ref oci.Ref, o FetchOptions) (list []oci.Ref, err error) {
	for _, end := range cosignTags {
		tag := oci.Ref{Repo: ref.Repo, Tag: oci.ReferrersTag(ref.Digest) + end}
		q := p.tagPull(st, tag, cmp.Or(o.By, catalog.ByWarm))
		if t := p.tagState(ctx, st, tag); t.Judge(q.policy, q.start) != catalog.Serve {
			if _, _, err = q.resolve(ctx, t, p.wait); isMissing(err) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		list = append(list, tag)
	}
	referrers, err := p.referrersOf(ctx, ref, o)
	return append(list, referrers...), err
}

// referrersOf lists the referrers of an image.
func (p *Puller) referrersOf(ctx context.Context, ref oci.Ref, o FetchOptions) (list []oci.Ref, err error) {
	seen := make(map[oci.Digest]bool)
	request := oci.Request{Kind: oci.KindReferrers, Namespace: ref.Host, Name: ref.Name, Digest: ref.Digest}
	for len(list) < maxAttached {
		c, err := p.Referrers(ctx, Ask{Request: request, Client: o.name()})
		if isMissing(err) {
			return list, nil
		}
		if err == nil && o.Background {
			err = c.Status.Reason
		}
		if err != nil {
			return nil, err
		}
		var page struct {
			Manifests []oci.Descriptor `json:"manifests"`
		}
		err = json.Unmarshal(c.Bytes, &page)
		_ = c.Close()
		if err != nil {
			return nil, &ImageError{ref, fmt.Sprintf("the list of its referrers is not valid: %v", err)}
		}
		before := len(list)
		for _, d := range page.Manifests {
			if d.Digest.Validate() == nil && !seen[d.Digest] && len(list) < maxAttached {
				seen[d.Digest] = true
				list = append(list, oci.Ref{Repo: ref.Repo, Digest: d.Digest})
			}
		}
		if c.Link == "" || len(list) == before {
			break
		}
		if request.Query, err = url.ParseQuery(strings.TrimPrefix(c.Link, "?")); err != nil {
			return nil, fmt.Errorf("read the referrers of %s: the next page: %w", ref, err)
		}
	}
	return list, nil
}

// Budget is what background work may still use of the rate limits that an upstream has reported: of all of them together, what is left
// without the reserve of clients, and when the last of them has more. False: the upstream has reported none, or is not known.
func (p *Puller) Budget(host string) (limit, left int64, resetAt time.Time, known bool) {
	st, _, err := p.own(oci.Ref{Repo: oci.Repo{Host: host, Name: "any"}})
	if err != nil {
		return 0, 0, time.Time{}, false
	}
	return st.Upstream.Budget()
}

// manifestBytes gets a manifest by digest, as a client would, and reads it.
func (p *Puller) manifestBytes(ctx context.Context, st *site, ref oci.Ref, mediaType string) (*oci.Manifest, error) {
	c, err := p.byDigest(ctx, st, ref, false, time.Now(), p.wait)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	b := c.Bytes
	if c.Object != nil {
		b = make([]byte, c.Size) // at most MaxManifestSize
		if _, err := io.ReadFull(c.Object, b); err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", ref, err)
		}
	}
	return parse(ref.Digest, cmp.Or(c.MediaType, mediaType), b)
}

// errUncached says that the cache had no room for content.
var errUncached = errors.New("the cache has no room for it: make cache.size larger, or look for the disk's own error in the log")

// arriving is an object on its way into the cache.
type arriving interface {
	Stored(ctx context.Context, report func(bytes int64)) error
}

// fetchBlob brings one blob into the cache.
func (p *Puller) fetchBlob(ctx context.Context, st *site, ref oci.Ref, part Part, o FetchOptions) error {
	c, err := p.blob(ctx, st, ref, false, o.name(), time.Now())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	report := func(bytes int64) {
		if o.Progress != nil {
			o.Progress(part, bytes)
		}
	}
	if c.Status.Outcome == cache.Uncached {
		return fmt.Errorf("blob %s of %s: %w", part.Digest, ref.Repo, errUncached)
	}
	if a, ok := c.Object.(arriving); ok {
		if err := a.Stored(ctx, report); err != nil {
			c.Failed(err)
			return fmt.Errorf("blob %s of %s: %w", part.Digest, ref.Repo, err)
		}
	} else {
		report(c.Size)
	}
	return c.Shown(ctx) // the bytes may have come from another source
}
