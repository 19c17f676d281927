package pull

import (
	"context"
	"encoding/json"
	"errors"
	"time"
	"unique"

	"github.com/registrymirror/mirror/catalog"
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
	doc, err := st.Upstream.Manifest(ctx, ref.Name, ref.Digest.String())
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
	f := p.store(ctx, st, ref.Repo, doc)
	return &f, nil
}

// store writes what was fetched: bytes, then references, then the tags that wait for it. If one fails the next of kin
// is left out, and the client is served all the same, from memory for as long as that lasts.
func (p *Puller) store(ctx context.Context, st *site, repo oci.Repo, doc *oci.Manifest) fetched {
	// Nobody else gets it before its parts are known to belong to the repository: they would be asked for in vain.
	at := oci.Ref{Repo: repo, Digest: doc.Digest}
	p.storing.Store(at, nil)
	defer p.storing.Delete(at)
	point.Hit("pull/fetched")
	putErr := p.cache.Put(ctx, doc.Digest, doc.Bytes)
	if putErr != nil {
		p.log.WarnContext(ctx, "manifest can't be cached", "digest", doc.Digest, "err", putErr)
	}
	point.Hit("pull/put")
	// References without bytes do no harm: they say what the upstream has said, that the content belongs there.
	learnErr := p.shown(st, repo)
	if learnErr == nil {
		learnErr = p.public(st, repo)
	}
	if learnErr == nil {
		learnErr = p.catalog.Learn(repo, doc, st.by())
	}
	if learnErr == nil && st.by() == catalog.ShownToAll {
		learnErr = p.catalog.Open(doc.Digest)
	}
	if learnErr != nil {
		p.log.WarnContext(ctx, "references of a manifest can't be recorded", "digest", doc.Digest, "err", learnErr)
	}
	f := p.remember(doc).in(doc.MediaType)
	point.Hit("pull/learnt")
	if putErr == nil && learnErr == nil {
		for _, ref := range p.words.meaning(st.generation, repo, doc.Digest) {
			if w, ok := p.words.get(st.generation, ref); ok && w.desc.Digest == doc.Digest {
				p.record(ctx, ref, w)
				point.Hit("pull/recorded")
			}
		}
	}
	return f
}

// descriptorCost is what a descriptor of a child takes in memory, in bytes, its digest apart.
const descriptorCost = 200

// remember keeps a manifest in memory.
func (p *Puller) remember(doc *oci.Manifest) *manifest {
	var own struct {
		MediaType string `json:"mediaType"`
	}
	_ = json.Unmarshal(doc.Bytes, &own) // what is not JSON has none
	m := &manifest{digest: doc.Digest, bytes: doc.Bytes, own: own.MediaType, read: doc.MediaType}
	seen := map[oci.Digest]bool{doc.Digest: true}
	m.parts = append(m.parts, doc.Digest)
	for _, c := range doc.Children {
		if !seen[c.Digest] {
			seen[c.Digest] = true
			m.parts = append(m.parts, c.Digest)
			m.names = append(m.names, oci.Descriptor{MediaType: unique.Make(c.MediaType).Value(), Digest: c.Digest, Size: c.Size})
		}
	}
	p.hot.put(m.digest, m, int64(len(m.bytes)+len(m.parts)*(len(m.digest)+descriptorCost)))
	return m
}
