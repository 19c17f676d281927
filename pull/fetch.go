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
	"github.com/registrymirror/mirror/upstream/fault"
)

// fetch gets a manifest by digest from the upstream, once for all clients that want it. A client that can wait no longer
// leaves the trip going.
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

// timeout turns errWaited into the error for the client. A client that waited the full time, since there is no copy, is
// answered the same for a moment: its next request must not wait all over again.
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
	kept := false // the memory is released by store
	defer func() {
		if !kept {
			hold.Release()
		}
	}()
	doc, err := st.Upstream.Manifest(ctx, ref.Name, ref.Digest.String())
	if isMissing(err) {
		doc, err = p.byTagOf(ctx, st, ref, err)
	}
	if err == nil && !oci.VerifyDigest(ref.Digest, doc.Bytes) {
		err = &fault.Error{
			Op: "manifest", Upstream: ref.Host, Repository: ref.Name, Reference: ref.Digest.String(), Status: 200,
			Err: &fault.ContentError{
				Kind: fault.ContentDigest, Want: ref.Digest.String(), Got: ref.Digest.Algorithm().FromBytes(doc.Bytes).String(),
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

// byTagOf gets a manifest by a tag that means it, where the upstream has just said so and knows no digest: some registries
// know tags alone. err is the upstream's answer by the digest, and the result where that does not help, unless the mirror
// has no memory for the document.
func (p *Puller) byTagOf(ctx context.Context, st *site, ref oci.Ref, err error) (*oci.Manifest, error) {
	for at, r := range p.reports.of(st.generation, ref.Repo, ref.Digest) {
		last, ok := p.reports.get(st.generation, at)
		if !ok || last.desc.Digest != ref.Digest || time.Since(r.at) > st.Tags.For(at.Name, at.Tag).MaxAge {
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

// store writes a fetched manifest: its bytes, then its references, then the tags that wait for it. If one of these fails, those
// after it are left out, and the client is served all the same, from memory for as long as that lasts. done is called when
// all of it is over, which may be after the return.
func (p *Puller) store(ctx context.Context, st *site, repo oci.Repo, doc *oci.Manifest, done func()) fetched {
	// No other client gets it before its parts are known to belong to the repository: they would be refused.
	at := oci.Ref{Repo: repo, Digest: doc.Digest}
	first := &unrecorded{}
	p.storing.Store(at, first)
	point.Hit("pull/fetched")
	putErr := p.cache.Put(ctx, doc.Digest, doc.Bytes)
	if putErr != nil {
		p.log.WarnContext(ctx, "cannot cache a manifest; it is served from memory", "digest", doc.Digest, "error", putErr)
	}
	point.Hit("pull/put")
	m := newManifest(doc)
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
	if !p.work.doWithin(ctx, p.limit, learnWait, func(ctx context.Context) {
		defer done()
		defer p.storing.Delete(at)
		p.learn(ctx, st, repo, doc, m, putErr == nil)
	}) {
		p.log.DebugContext(ctx, "manifest served before its references are recorded", "repository", repo.String(),
			"digest", doc.Digest)
		p.storing.CompareAndSwap(at, first, &unrecorded{site: st.generation, f: &f})
	}
	return f
}

// unrecorded is a manifest whose references are being recorded.
type unrecorded struct {
	site uint64   // generation of the site that it was fetched for
	f    *fetched // nil: clients wait until its references are recorded
}

// shownTo is the manifest for a client of a site, which does not wait for the references any longer.
func (u *unrecorded) shownTo(st *site) (fetched, bool) {
	if u.f == nil || u.site != st.generation {
		return fetched{}, false
	}
	return *u.f, true
}

// learn records the references of a manifest, and if its bytes are stored, the tags that mean it.
func (p *Puller) learn(ctx context.Context, st *site, repo oci.Repo, doc *oci.Manifest, m *manifest, stored bool) {
	// References without bytes do no harm: by the upstream's own word the content belongs there.
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
		p.log.WarnContext(ctx, "cannot record the references of a manifest; its registry is asked again for each", "digest", doc.Digest,
			"error", err)
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
	for ref, r := range p.reports.of(st.generation, repo, doc.Digest) {
		p.record(ctx, ref, r)
		point.Hit("pull/recorded")
	}
}

// maxShownParts is for how many parts of a manifest its registry is asked before any client needs them.
const maxShownParts = 64

// showParts asks the registry of a repository, in the background, for blobs of a new manifest that are cached by way of
// another repository and may not be served through this one yet. A client that has a shared layer never asks for it; without
// this the next client, which lacks it, could not get it here once the registry is down.
func (p *Puller) showParts(st *site, repo oci.Repo, m *manifest) {
	var parts []oci.Digest
	for i, d := range m.parts[1:] {
		if _, here := p.cache.Stat(d); here && !oci.IsManifest(m.named[i].mediaType) && len(parts) < maxShownParts {
			parts = append(parts, d)
		}
	}
	if len(parts) == 0 {
		return
	}
	p.inBackground(func(ctx context.Context) {
		for _, d := range parts {
			if _, may := p.member(ctx, st, repo, d); may != mustAsk {
				continue
			}
			b := blob{
				p: p, st: st, ref: oci.Ref{Repo: repo, Digest: d}, key: st.key(oci.KindBlob, repo, d.String()), start: time.Now(),
			}
			if _, _, err := b.size(ctx); err != nil && !isMissing(err) {
				return // the registry would not answer for the next one either
			}
		}
	})
}

// remember keeps a manifest in memory.
func (p *Puller) remember(doc *oci.Manifest) *manifest {
	m := newManifest(doc)
	p.keep(m)
	return m
}

// newManifest is the part of a document that is kept in memory.
func newManifest(doc *oci.Manifest) *manifest {
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
	const object, part = 512, 16 + 80 + 24 // bytes: a manifest and its entry; a digest with its type and size
	p.hot.Put(m.digest, m, int64(object+len(m.bytes)+len(m.parts)*part))
}
