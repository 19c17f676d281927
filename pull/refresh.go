package pull

import (
	"context"
	"fmt"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
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
		return t.Digest, "", err
	}
	return t.Digest, desc.Digest, nil
}
