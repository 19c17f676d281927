package pull

import (
	"context"
	"fmt"

	"github.com/registrymirror/mirror/oci"
)

// PinnedError says that content is kept, since a tag is pinned to it.
type PinnedError struct {
	Ref oci.Ref // the pinned tag, with the digest
}

func (e *PinnedError) Error() string {
	return fmt.Sprintf("%s:%s is pinned to %s; remove the pin first", e.Ref.Repo, e.Ref.Tag, e.Ref.Digest)
}

// Purge removes an image from the cache, with what is remembered of it, so that its next pull asks the registry: ref has a
// tag, a digest, or both. All parts that its manifests name go, for every platform, those that other images share too: they
// are fetched again when an image needs them. Clients that read some of them now finish. Content of a pinned tag stays:
// the error is then a *PinnedError, and nothing was removed. Content that is not cached is not an error.
func (p *Puller) Purge(ctx context.Context, ref oci.Ref) error {
	st, ref, err := p.own(ref)
	if err != nil {
		return err
	}
	var roots []oci.Digest
	switch {
	case ref.Digest != "":
		roots = []oci.Digest{ref.Digest}
	case ref.Tag != "":
		t := p.tagState(ctx, st, ref)
		for _, d := range []oci.Digest{t.Digest, t.recorded.Digest} {
			if d != "" {
				roots = append(roots, d)
			}
		}
	}
	var parts []oci.Digest
	for _, root := range roots {
		m, err := p.Survey(oci.Ref{Repo: ref.Repo, Tag: ref.Tag, Digest: root}, nil)
		if err != nil && m == nil {
			return err
		}
		parts = append(parts, m.Digests()...) // as far as it could be read: a damaged manifest is to go, too
	}
	if pinned, ok := p.pins.holds(ref, parts); ok {
		return &PinnedError{Ref: pinned}
	}
	if ref.Tag != "" {
		if err := p.catalog.Forget(ref); err != nil {
			return err
		}
	}
	p.Forget(ref.Repo)
	return p.removeContent(parts)
}

// PurgeContent removes one piece of content from the cache, whichever images have it. The error is as for Purge.
func (p *Puller) PurgeContent(d oci.Digest) error {
	if pinned, ok := p.pins.holds(oci.Ref{}, []oci.Digest{d}); ok {
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
