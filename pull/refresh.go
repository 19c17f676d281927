package pull

import (
	"context"
	"fmt"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// Refresh asks the registry now which digest a tag means, whatever the age of the record, and returns the digest before and
// after; before is empty where the tag was not known. What failed there lately is forgotten first. It is one HEAD, shared with
// clients that wait for the same; the content comes with the next pull. The error is as for Manifest.
func (p *Puller) Refresh(ctx context.Context, ref oci.Ref) (before, after oci.Digest, err error) {
	st, ref, err := p.allowed(ref)
	if err != nil {
		return "", "", err
	}
	if ref.Tag == "" {
		return "", "", fmt.Errorf("refresh %s: only a tag can be refreshed; a digest never means other content", ref)
	}
	ref.Digest = ""
	q := p.tagPull(st, ref, catalog.ByCheck)
	t := p.tagState(ctx, st, ref)
	p.failures.clear(st.key(oci.KindManifest, ref.Repo, ref.Tag))
	desc, _, err := q.resolve(ctx, t, p.wait)
	if err != nil {
		return t.Digest, "", st.forMirror(ref.Repo, err)
	}
	return t.Digest, desc.Digest, nil
}

// Latest is the digest that a tag means by its registry's last word, for work that can wait: also one that minAge holds back, as long
// as nodes may need it later. Of a tag that is pinned, or must not move, it is the digest that is served. The registry is asked, by
// one HEAD, only if the record is older than the policy says.
func (p *Puller) Latest(ctx context.Context, ref oci.Ref) (oci.Digest, error) {
	st, ref, err := p.allowed(ref)
	if err != nil {
		return "", err
	}
	ref.Digest = ""
	q := p.tagPull(st, ref, catalog.ByCheck)
	if pin, ok := p.catalog.Pinned(ref, q.start); ok {
		return pin.Digest, nil
	}
	t := p.tagState(ctx, st, ref)
	if t.Judge(q.policy, q.start) != catalog.Serve {
		desc, _, err := q.resolve(upstream.Spare(ctx), t, p.wait)
		if err != nil || !q.policy.Immutable {
			return desc.Digest, st.forMirror(ref.Repo, err)
		}
		t = p.tagState(ctx, st, ref)
	}
	if q.policy.Immutable {
		return t.Choose(q.policy, time.Now()).Digest, nil
	}
	return t.Digest, nil
}
