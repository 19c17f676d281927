package pull

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
	"unique"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// fetch gets a manifest by digest from the upstream, once for all who want it. A client that can wait no longer leaves
// the trip going.
func (p *Puller) fetch(ctx context.Context, st *site, ref oci.Ref, start time.Time, wait time.Duration) (
	f fetched, led bool, err error,
) {
	k := st.key(oci.KindManifest, ref.Repo, ref.Digest.String())
	if err := p.failures.get(k); err != nil {
		return f, false, err
	}
	got, led, err := p.fetching.do(ctx, k.String(), start.Add(wait), func(ctx context.Context) (*fetched, error) {
		return p.get(ctx, st, k, ref)
	})
	if err != nil {
		return f, led, p.timeout(err, k, ref, start, wait)
	}
	return *got, led, nil
}

// timeout turns errWaited into what a client is told. Who had no copy to wait with is answered the same for a moment:
// a client's next request must not wait all over again.
func (p *Puller) timeout(err error, k key, ref oci.Ref, start time.Time, wait time.Duration) error {
	if !errors.Is(err, errWaited) {
		return err
	}
	t := &TimeoutError{Ref: ref, Waited: time.Since(start)}
	if wait >= p.wait {
		p.failures.put(k, t)
	}
	return t
}

// get is the trip of fetch.
func (p *Puller) get(ctx context.Context, st *site, k key, ref oci.Ref) (*fetched, error) {
	// Between a client's look and its turn here another trip may have ended.
	if f, may := p.local(ctx, st, ref.Repo, ref.Digest); may == mayServe {
		f.here = true
		return &f, nil
	}
	if err := p.failures.get(k); err != nil {
		return nil, err
	}
	ctx, hold := p.memory.Enter(ctx, memory.Work)
	kept := false // by what goes on after this
	defer func() {
		if !kept {
			hold.Release()
		}
	}()
	doc, err := st.Upstream.Manifest(ctx, ref.Name, ref.Digest.String())
	if isMissing(err) {
		doc, err = p.byItsTag(ctx, st, ref, err)
	}
	if err == nil && !oci.VerifyDigest(ref.Digest, doc.Bytes) {
		err = &upstream.Error{
			Op: "manifest", Upstream: ref.Host, Repository: ref.Name, Reference: ref.Digest.String(), Status: 200,
			Err: &upstream.ContentError{
				Kind: upstream.ContentDigest, Want: ref.Digest.String(), Got: ref.Digest.Algorithm().FromBytes(doc.Bytes).String(),
			},
		}
	}
	if err != nil {
		p.failures.put(k, err)
		p.refused(ctx, st, ref.Repo, err)
		return nil, err
	}
	if doc.Digest != ref.Digest { // it is known by a sha512
		renamed := *doc
		renamed.Digest, doc = ref.Digest, &renamed
	}
	kept = true
	f := p.store(ctx, st, ref.Repo, doc, hold.Release)
	return &f, nil
}

// byItsTag gets a manifest by a tag that means it, where the upstream has just said so and knows it by no digest: some
// registries know tags alone. err is what the upstream says by the digest, and the answer where that does not help. Where the mirror has no memory for the document, that is the answer.
func (p *Puller) byItsTag(ctx context.Context, st *site, ref oci.Ref, err error) (*oci.Manifest, error) {
	for at, w := range p.words.meaning(st.generation, ref.Repo, ref.Digest) {
		if last, ok := p.words.get(st.generation, at); !ok || last.desc.Digest != ref.Digest || time.Since(w.at) > st.Tags.MaxAge {
			continue
		}
		doc, terr := st.Upstream.Manifest(ctx, ref.Name, at.Tag)
		if overloaded(terr) {
			return nil, terr
		}
		if terr != nil || !oci.VerifyDigest(ref.Digest, doc.Bytes) {
			return nil, err
		}
		return doc, nil
	}
	return nil, err
}

// learnWait is how long a client waits for the references of its manifest to be recorded. They are still on disk
// before the tag is; for a client that asks for a blob before they are, the mirror asks the upstream.
const learnWait = 2 * time.Second

// store writes what was fetched: bytes, then references, then the tags that wait for it. If one fails the next of kin
// is left out, and the client is served all the same, from memory for as long as that lasts. done is called when all of it
// is over, which may be after the return.
func (p *Puller) store(ctx context.Context, st *site, repo oci.Repo, doc *oci.Manifest, done func()) fetched {
	// Nobody else gets it before its parts are known to belong to the repository: they would be asked for in vain.
	at := oci.Ref{Repo: repo, Digest: doc.Digest}
	first := &soon{}
	p.storing.Store(at, first)
	point.Hit("pull/fetched")
	putErr := p.cache.Put(ctx, doc.Digest, doc.Bytes)
	if putErr != nil {
		p.log.WarnContext(ctx, "manifest can't be cached", "digest", doc.Digest, "err", putErr)
	}
	point.Hit("pull/put")
	m := p.make(doc)
	m.nameIn(repo, p.catalog)
	f := m.in(doc.MediaType).with(doc.Bytes)
	if f.whole != nil && putErr != nil { // it is sent from memory, and keeps its room for that
		var needed atomic.Int32
		needed.Store(2) // by the record of its references, and by its clients
		release := done
		done = func() {
			if needed.Add(-1) == 0 {
				release()
			}
		}
		time.AfterFunc(handOver, p.sending.offer(doc.Bytes, done))
	}
	if !p.work.behind(ctx, p.limit, learnWait, func(ctx context.Context) {
		defer done()
		defer p.storing.Delete(at)
		p.learn(ctx, st, repo, doc, m, putErr == nil)
	}) {
		p.log.DebugContext(ctx, "a manifest is served before its references are recorded", "ref", repo.Name, "digest", doc.Digest)
		p.storing.CompareAndSwap(at, first, &soon{site: st.generation, f: &f})
	}
	return f
}

// soon is a manifest whose parts are about to be known.
type soon struct {
	site uint64   // generation of the site that it came for
	f    *fetched // nil: its clients wait for that
}

// shownTo is the manifest for a client of a site: it does not wait for the parts any longer.
func (s *soon) shownTo(st *site) (fetched, bool) {
	if s.f == nil || s.site != st.generation {
		return fetched{}, false
	}
	return *s.f, true
}

// learn records what a manifest refers to, and if its bytes are stored, the tags that mean it.
func (p *Puller) learn(ctx context.Context, st *site, repo oci.Repo, doc *oci.Manifest, m *manifest, stored bool) {
	// References without bytes do no harm: they say what the upstream has said, that the content belongs there.
	err := p.shown(st, repo)
	if err == nil {
		err = p.public(st, repo)
	}
	if err == nil {
		err = p.catalog.Learn(repo, doc, st.by())
	}
	if err == nil && st.by() == catalog.ShownToAll {
		err = p.catalog.Open(doc.Digest)
	}
	if err != nil {
		p.log.WarnContext(ctx, "references of a manifest can't be recorded", "digest", doc.Digest, "err", err)
	}
	p.keep(m)
	point.Hit("pull/learnt")
	if err != nil {
		return
	}
	p.showParts(st, repo, m)
	if !stored {
		return
	}
	for ref, w := range p.words.meaning(st.generation, repo, doc.Digest) {
		p.record(ctx, ref, w)
		point.Hit("pull/recorded")
	}
}

// mostParts is of how many parts of a manifest its registry is asked ahead of any client.
const mostParts = 64

// showParts asks the registry of a repository, behind the answer, for blobs of a new manifest that are here by another
// repository and that may not be served through this one yet. A client that has a shared layer never asks for it; without
// this the next one, that has not, could not get it here once the registry is down.
func (p *Puller) showParts(st *site, repo oci.Repo, m *manifest) {
	var parts []oci.Digest
	for i, d := range m.parts[1:] {
		if _, here := p.cache.Stat(d); here && !oci.IsManifest(m.named[i].mediaType) && len(parts) < mostParts {
			parts = append(parts, d)
		}
	}
	if len(parts) == 0 {
		return
	}
	p.behind(func(ctx context.Context) {
		for _, d := range parts {
			if _, may := p.member(ctx, st, repo, d); may != mustAsk {
				continue
			}
			b := blob{
				p: p, st: st, ref: oci.Ref{Repo: repo, Digest: d}, key: st.key(oci.KindBlob, repo, d.String()), start: time.Now(),
			}
			if _, _, err := b.size(ctx); err != nil && !isMissing(err) {
				return // nor would it answer for the next one
			}
		}
	})
}

// remember keeps a manifest in memory.
func (p *Puller) remember(doc *oci.Manifest) *manifest {
	m := p.make(doc)
	p.keep(m)
	return m
}

// make is what is worth keeping of a manifest.
func (p *Puller) make(doc *oci.Manifest) *manifest {
	m := &manifest{digest: doc.Digest, size: int64(len(doc.Bytes)), own: oci.OwnMediaType(doc), read: doc.MediaType}
	if m.size <= largeManifest {
		m.bytes = doc.Bytes
	}
	seen := map[oci.Digest]bool{doc.Digest: true}
	m.parts = append(m.parts, doc.Digest)
	for _, c := range doc.Children {
		if !seen[c.Digest] {
			seen[c.Digest] = true
			m.parts = append(m.parts, c.Digest)
			m.named = append(m.named, named{unique.Make(c.MediaType).Value(), c.Size})
		}
	}
	return m
}

// keep puts a manifest into memory, at what it costs there.
func (p *Puller) keep(m *manifest) {
	const object, part = 512, 16 + 80 + 24 // of the manifest and its place in the store; of a digest and what is said of it
	p.hot.put(m.digest, m, int64(object+len(m.bytes)+len(m.parts)*part))
}
