package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
)

// manifest is a manifest in memory. Its bytes have been verified.
type manifest struct {
	digest oci.Digest
	size   int64
	bytes  []byte       // nil: it is large, and sent from the cache
	own    string       // the document's own media type, which goes first; empty: it has none, and the repository's counts
	read   string       // the media type it was read as, for a repository that has none either
	parts  []oci.Digest // the content that it takes to pull it: itself and its children
	named  []named      // type and size of each part but itself

	mu    sync.Mutex // guards where; a leaf
	where []oci.Repo // repositories in which its parts were named lately
	// When its lease is to be renewed, and when the cache is to be told again that it is used; nanoseconds since epoch.
	renew, touch atomic.Int64
}

// fetched is a manifest with the media type that counts in the repository it was asked for in.
type fetched struct {
	*manifest
	as    string
	here  bool   // another trip had brought it: no upstream was asked
	whole []byte // the bytes of a large one that has just been read; nil: it is in the cache
}

// Manifest answers a GET or HEAD of a manifest by tag or by digest. Bytes may be nil for HEAD. The error is a
// *route.UnknownError, an error of package access, a *HeldError, an *fault.Error, a *TimeoutError, or the context's; that of a
// tag that may be served with one digest alone is in a *FixedError.
func (p *Puller) Manifest(ctx context.Context, a Ask) (*Content, error) {
	ctx = memory.By(ctx, cmp.Or(a.Peer, a.Client))
	return p.as(ctx, a, func(ctx context.Context, st *site, ref oci.Ref) (*Content, error) {
		if ref.Digest == "" {
			return p.byTag(ctx, st, ref, a)
		}
		return p.byDigest(ctx, st, ref, a.Request.Head, time.Now(), p.wait)
	})
}

// byDigest answers from memory, from the cache, or from the upstream within wait of start. The upstream is asked where the
// bytes are not here, and where the repository is not known to have them.
func (p *Puller) byDigest(ctx context.Context, st *site, ref oci.Ref, head bool, start time.Time, wait time.Duration) (
	*Content, error,
) {
	if f, ok, err := p.served(ctx, st, ref, start); err != nil {
		return nil, err
	} else if ok {
		if c, err := p.answer(ctx, ref, f, head, Status{Outcome: cache.Hit}, start); !errors.Is(err, errGone) {
			return c, err
		}
	}
	f, led, err := p.fetch(ctx, st, ref, start, wait)
	if err != nil {
		return nil, err
	}
	s := fetchStatus(led)
	if f.here {
		s = Status{Outcome: cache.Hit}
	}
	return p.answer(ctx, ref, f, head, s, time.Now())
}

// fetchStatus is the status of an answer for which the upstream was asked: by this request, or by one that it joined.
func fetchStatus(led bool) Status {
	if led {
		return Status{Outcome: cache.Miss}
	}
	return Status{Outcome: cache.Joined, Collapsed: true}
}

// served finds a manifest that is here and may be served, after its upstream was asked if that is due. The error is the
// upstream's refusal.
func (p *Puller) served(ctx context.Context, st *site, ref oci.Ref, start time.Time) (fetched, bool, error) {
	f, may := p.local(ctx, st, ref.Repo, ref.Digest)
	if may == shouldAsk {
		if err := p.ask(ctx, st, oci.KindManifest, ref, start); err != nil {
			return fetched{}, false, err
		}
	}
	return f, may != mustAsk, nil
}

// local finds a manifest that is here, and whether it may be served through the repository: mustAsk also stands for one
// that is not here.
func (p *Puller) local(ctx context.Context, st *site, repo oci.Repo, d oci.Digest) (fetched, right) {
	desc, may := p.member(ctx, st, repo, d)
	if v, wait := p.storing.Load(oci.Ref{Repo: repo, Digest: d}); wait && may == mustAsk {
		if f, ok := v.(*unrecorded).shownTo(st); ok {
			return f, mayServe
		}
		return fetched{}, mustAsk
	}
	// Content that the registry has shown as a blob, or that a manifest names as one, is not known to be a manifest here:
	// its type is for the registry to say.
	if may == mustAsk || guard.Membership && !desc.Manifest && !oci.IsManifest(desc.MediaType) {
		return fetched{}, mustAsk
	}
	f, ok := p.find(ctx, st, repo, desc.Descriptor)
	if !ok {
		return fetched{}, mustAsk
	}
	return f, may
}

// find reads a manifest that is here from memory or from the cache, and names what it refers to.
func (p *Puller) find(ctx context.Context, st *site, repo oci.Repo, desc oci.Descriptor) (fetched, bool) {
	d := desc.Digest
	if m, ok := p.remembered(d); ok {
		m.nameIn(repo, p.catalog)
		return m.in(desc.MediaType), true
	}
	if v, wait := p.storing.Load(oci.Ref{Repo: repo, Digest: d}); wait {
		return v.(*unrecorded).shownTo(st)
	}
	// A layer can be asked for as a manifest; it must not be read into memory to find out.
	n, ok := p.cache.Stat(d)
	if !ok || n > oci.MaxManifestSize {
		return fetched{}, false
	}
	ctx, hold := p.memory.Enter(ctx, memory.Work)
	defer hold.Release()
	if err := p.roomToRead(ctx, hold, n); err != nil {
		p.log.DebugContext(ctx, "no memory to read a cached manifest; the upstream is asked", "digest", d, "error", err)
		return fetched{}, false
	}
	if m, ok := p.remembered(d); ok { // another request has read it meanwhile
		m.nameIn(repo, p.catalog)
		return m.in(desc.MediaType), true
	}
	b, err := p.cache.Get(ctx, d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			p.log.WarnContext(ctx, "cannot read a cached manifest; the upstream is asked", "digest", d, "error", err)
		}
		return fetched{}, false
	}
	doc, err := parse(d, desc.MediaType, b)
	if err != nil {
		p.log.WarnContext(ctx, "cached manifest is damaged; the upstream is asked", "digest", d, "error", err)
		return fetched{}, false
	}
	m := p.remember(doc)
	m.nameIn(repo, p.catalog)
	return m.in(desc.MediaType).with(doc.Bytes), true
}

// parse reads and verifies a manifest.
func parse(d oci.Digest, mediaType string, b []byte) (*oci.Manifest, error) {
	if !oci.VerifyDigest(d, b) {
		return nil, fmt.Errorf("manifest %s: its bytes have another digest", d)
	}
	doc, err := oci.ParseManifest(mediaType, b)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d, err)
	}
	doc.Digest = d // it may be known by its sha512
	return doc, nil
}

// in gives the manifest the media type it has in a repository.
func (m *manifest) in(mediaType string) fetched {
	switch {
	case m.own != "":
		mediaType = m.own
	case mediaType == "" || mediaType == blobType:
		mediaType = m.read
	}
	return fetched{manifest: m, as: mediaType}
}

// with adds the bytes of a large one.
func (f fetched) with(b []byte) fetched {
	if f.bytes == nil {
		f.whole = b
	}
	return f
}

// named is a manifest's description of one of its parts.
type named struct {
	mediaType string
	size      int64
}

// maxWhere bounds the repositories of a manifest's where. With more of them its parts are named more often.
const maxWhere = 8

// nameIn makes the parts of the manifest known by name in a repository that serves it.
func (m *manifest) nameIn(repo oci.Repo, c Catalog) {
	m.mu.Lock()
	known := slices.Contains(m.where, repo)
	if !known {
		if len(m.where) >= maxWhere {
			m.where = m.where[:0]
		}
		m.where = append(m.where, repo)
	}
	m.mu.Unlock()
	if known {
		return
	}
	list := make([]oci.Descriptor, len(m.named))
	for i, n := range m.named {
		list[i] = oci.Descriptor{MediaType: n.mediaType, Digest: m.parts[i+1], Size: n.size}
	}
	c.Name(repo, list)
}
