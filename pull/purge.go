package pull

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

// PinnedError says that content is kept, since a tag is pinned to it.
type PinnedError struct {
	Ref oci.Ref // the pinned tag, with the digest
}

func (e *PinnedError) Error() string {
	return fmt.Sprintf("%s:%s is pinned to %s; remove the pin first", e.Ref.Repo, e.Ref.Tag, e.Ref.Digest)
}

// Purge removes an image from the cache, and has the next pull of its tag ask the registry: ref has a tag, a digest, or both. Of
// a tag, the images go that it means and that it is or may be served with. All parts that their manifests name go, for every platform,
// those that other images share too: they are fetched again when an image needs them. What the repository has not shown, and parts of pinned images stay, and so does
// the history of the tag, without which a purge would lift what its policy holds back. Clients that read some of them now finish.
//
// The error is a *PinnedError if the tag or the image itself is pinned, and then nothing was removed. Content that is not
// cached is not an error.
func (p *Puller) Purge(ctx context.Context, ref oci.Ref) error {
	st, ref, err := p.own(ref)
	if err != nil {
		return err
	}
	roots := []oci.Digest{ref.Digest}
	if ref.Digest == "" {
		t := p.tagState(ctx, st, ref)
		policy, now := st.Tags.For(ref.Name, ref.Tag), time.Now()
		roots = []oci.Digest{t.Digest, t.Choose(policy, now).Digest}
		for _, c := range t.Copies(policy, now) {
			roots = append(roots, c.Digest)
		}
	}
	roots = slices.DeleteFunc(roots, func(d oci.Digest) bool { return d == "" })
	slices.Sort(roots)
	var parts []oci.Digest
	for _, root := range slices.Compact(roots) {
		m, err := p.Survey(oci.Ref{Repo: ref.Repo, Tag: ref.Tag, Digest: root}, nil)
		if err != nil && m == nil {
			return err
		}
		for _, d := range m.Digests() { // as far as it could be read: a damaged manifest is to go, too
			// What a manifest only names may be another repository's.
			if member, err := p.catalog.Member(ref.Repo, d); d == root || err == nil && member.Standing > catalog.Named {
				parts = append(parts, d)
			}
		}
	}
	if pinned, ok := p.pins.of(ref, roots); ok {
		return &PinnedError{Ref: pinned}
	}
	if ref.Tag != "" {
		if err := p.catalog.Expire(ref, catalog.ByPull, time.Now()); err != nil {
			return err
		}
	}
	p.Forget(ref.Repo)
	return p.removeContent(p.pins.without(parts))
}

// PurgeContent removes one piece of content from the cache, whichever images have it. The error is as for Purge.
func (p *Puller) PurgeContent(d oci.Digest) error {
	if pinned, ok := p.pins.with(d); ok {
		return &PinnedError{Ref: pinned}
	}
	return p.removeContent([]oci.Digest{d})
}

// removeContent removes content from memory and from the cache. It goes on after an error, and returns the first.
func (p *Puller) removeContent(parts []oci.Digest) (first error) {
	for _, d := range parts {
		p.hot.Remove(d)
		if err := p.cache.Remove(d); err != nil && first == nil {
			first = fmt.Errorf("purge %s: %w", d, err)
		}
	}
	return first
}
