package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	// maxImageParts bounds the parts of one image: ten times what ECR takes, for an index of some hundred platforms.
	maxImageParts = 100_000
	// maxImageDepth is how deep indexes may be nested: an index of indexes exists, deeper ones are not known.
	maxImageDepth = 4
)

// Part is one piece of content of an image.
type Part struct {
	oci.Descriptor        // Size is -1 where no manifest gives it
	Manifest       bool   // it is fetched from /manifests/
	Platform       string // OS/ARCH or OS/ARCH/VARIANT, for a manifest that an index names with its platform; else empty
	Here           bool   // it is in the cache
	Fetched        bool   // it is a manifest that Puller.Manifests has just fetched
}

// Image is an image with the parts that nodes of some platforms pull.
type Image struct {
	Ref       oci.Ref  // canonical, with the digest
	Platforms []string // of the manifests below an index; empty for an image without an index
	// Parts are the manifests and blobs, each once: the image's own manifest first. Below a manifest that is not here they
	// are not known.
	Parts []Part
}

// Size is the bytes of all parts, and of those that are in the cache. Parts of an unknown size count as none.
func (m *Image) Size() (all, here int64) {
	for _, p := range m.Parts {
		n := max(p.Size, 0)
		all += n
		if p.Here {
			here += n
		}
	}
	return all, here
}

// Missing are the parts that are not in the cache. None: the image can be pulled without its registry.
func (m *Image) Missing() (list []oci.Digest) {
	for _, p := range m.Parts {
		if !p.Here {
			list = append(list, p.Digest)
		}
	}
	return list
}

// Digests are those of all parts.
func (m *Image) Digests() []oci.Digest {
	list := make([]oci.Digest, len(m.Parts))
	for i, p := range m.Parts {
		list[i] = p.Digest
	}
	return list
}

// MissingError says that parts of an image are not in the cache, and why they could not be fetched.
type MissingError struct {
	Ref     oci.Ref
	Digests []oci.Digest // as far as they are known
	Err     error
}

func (e *MissingError) Error() string { return fmt.Sprintf("%s: %v", e.Lack(), e.Err) }

// Lack is what is missing, without the reason.
func (e *MissingError) Lack() string {
	parts := fmt.Sprintf("%d parts of the image are", len(e.Digests))
	if len(e.Digests) == 1 {
		parts = "1 part of the image is"
	}
	return fmt.Sprintf("%s: %s not in the cache and could not be fetched", e.Ref, parts)
}

func (e *MissingError) Unwrap() error { return e.Err }

// Survey reads which parts an image has, by the manifests that are in the cache: it asks no registry, and counts as no use.
// ref has a digest. Platforms are OS/ARCH or OS/ARCH/VARIANT: of an index, the manifests that nodes of these run; all of them
// where there are none for these, or the list is empty. What an index has for no platform, as the attestations of BuildKit, is
// left out, and so are layers that clients fetch from other hosts by a URL.
//
// An error says that the reference is of no upstream, or that a manifest that is here can't be read as one.
func (p *Puller) Survey(ref oci.Ref, platforms []string) (*Image, error) {
	_, ref, err := p.own(ref)
	if err != nil {
		return nil, err
	}
	return survey(ref, platforms, p.peekManifest, p.cached)
}

// peekManifest reads a manifest that is in the cache, which counts as no use. Nil: it is not there, or too large to be one.
func (p *Puller) peekManifest(d oci.Descriptor) (*oci.Manifest, error) {
	n, here := p.cache.Stat(d.Digest)
	if !here || n > oci.MaxManifestSize {
		return nil, nil
	}
	b, err := p.cache.Peek(d.Digest)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", d.Digest, err)
	}
	return parse(d.Digest, d.MediaType, b)
}

// cached reports whether content is in the cache.
func (p *Puller) cached(d oci.Digest) bool {
	_, here := p.cache.Stat(d)
	return here
}

// own is the upstream of a reference and the canonical reference, for the mirror's own requests: no client's right is checked.
func (p *Puller) own(ref oci.Ref) (*site, oci.Ref, error) {
	st, to, err := p.route(oci.Request{Namespace: ref.Host, Name: ref.Name, Tag: ref.Tag, Digest: ref.Digest})
	if err == nil && st.Open != nil {
		st, err = p.hosts.site(p, st, to.Host)
	}
	return st, to, err
}

// allowed is own for what asks a registry: only for repositories that the upstream may be asked for, and that a rule names if it has
// rules.
func (p *Puller) allowed(ref oci.Ref) (*site, oci.Ref, error) {
	st, ref, err := p.own(ref)
	if err == nil {
		err = st.Names.Check(ref.Repo)
	}
	if err == nil && st.Ruled && !st.rules.Name(ref.Repo) {
		err = &access.ForbiddenError{Repo: ref.Repo, Mirrored: true}
	}
	return st, ref, err
}

// survey walks the manifests of an image. read returns nil for a manifest that can't be had.
func survey(ref oci.Ref, platforms []string, read func(oci.Descriptor) (*oci.Manifest, error), here func(oci.Digest) bool) (
	*Image, error,
) {
	m := &Image{Ref: ref}
	seen := make(map[oci.Digest]bool)
	var walk func(part Part, depth int) error
	walk = func(part Part, depth int) error {
		if seen[part.Digest] {
			return nil
		}
		seen[part.Digest] = true
		if len(m.Parts) >= maxImageParts || depth > maxImageDepth {
			return &ImageError{ref, fmt.Sprintf("it has more than %d parts, or its indexes are nested deeper than %d", maxImageParts, maxImageDepth)}
		}
		part.Here = here(part.Digest)
		if part.Platform != "" && !slices.Contains(m.Platforms, part.Platform) {
			m.Platforms = append(m.Platforms, part.Platform)
		}
		at := len(m.Parts)
		m.Parts = append(m.Parts, part)
		if !part.Manifest {
			return nil
		}
		doc, err := read(part.Descriptor)
		if e, ok := errors.AsType[*oci.ManifestError](err); ok && !fault.Is[*fault.Error](err) { // it is in the cache
			return &ImageError{ref, fmt.Sprintf("its manifest %s is not valid: %s", part.Digest, e.Detail)}
		}
		if err != nil {
			return err
		}
		if doc == nil {
			m.Parts[at].Here = false
			return nil
		}
		m.Parts[at].Here = here(part.Digest)
		m.Parts[at].Fetched = !part.Here && m.Parts[at].Here
		if depth == 0 && oci.IsIndex(doc.MediaType) && len(doc.Children) == 0 && doc.Subject == nil && doc.Artifact == "" {
			return &ImageError{ref, "its index has no manifests"}
		}
		m.Parts[at].Size, m.Parts[at].MediaType = int64(len(doc.Bytes)), doc.MediaType
		for _, c := range wanted(doc, platforms) {
			if err := walk(c, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return m, walk(Part{Descriptor: oci.Descriptor{Digest: ref.Digest, Size: -1}, Manifest: true}, 0)
}

// wanted are the parts of a manifest that nodes of the platforms pull.
func wanted(doc *oci.Manifest, platforms []string) (parts []Part) {
	var others []Part // of platforms that are not wanted
	for _, c := range doc.Children {
		part := Part{Descriptor: c.Descriptor, Manifest: c.Manifest}
		if !c.Manifest {
			if len(c.URLs) == 0 {
				parts = append(parts, part)
			}
			continue
		}
		if c.Platform == nil || c.Platform.OS == "" {
			parts = append(parts, part)
			continue
		}
		if c.Platform.OS == "unknown" {
			continue
		}
		part.Platform = oci.PlatformText(*c.Platform)
		if len(platforms) == 0 || slices.ContainsFunc(platforms, func(node string) bool { return oci.Runs(oci.ParsePlatform(node), *c.Platform) }) {
			parts = append(parts, part)
		} else {
			others = append(others, part)
		}
	}
	if len(parts) == 0 {
		return others
	}
	return parts
}

// maxConfig is how large a config of an image may be to be read: those of images have some kilobytes.
const maxConfig = 1 << 20

// Description is what the documents of an image say of it, as far as they are in the cache.
type Description struct {
	Size    int64        // bytes of all parts of the first platform; 0: not known
	Created time.Time    // when it was built, by its config; zero: not known
	Layers  []oci.Digest // of the first platform
	// Same are the digests under which runtimes know the image: of the index, of its manifests and of their configs.
	Same []oci.Digest
}

// Describe reads the documents of an image that are in the cache. It asks no registry. Of an index, the first of the platforms
// that it has counts for all but Same.
func (p *Puller) Describe(ref oci.Ref, platforms []string) (d Description) {
	all, err := p.Survey(ref, nil)
	if err != nil {
		return Description{Same: []oci.Digest{ref.Digest}}
	}
	for _, part := range all.Parts {
		if part.Manifest || isConfig(part.MediaType) {
			d.Same = append(d.Same, part.Digest)
		}
	}
	one, err := p.Survey(ref, platforms)
	if err == nil && len(one.Platforms) > 0 {
		one, err = p.Survey(ref, one.Platforms[:1])
	}
	if err != nil {
		return d
	}
	for _, part := range one.Parts {
		if !part.Manifest && !isConfig(part.MediaType) {
			d.Layers = append(d.Layers, part.Digest)
		}
	}
	config, ok := one.Config()
	if !ok { // the manifest is not here
		return d
	}
	d.Size, _ = one.Size()
	d.Created = p.config(config.Digest).Created.UTC()
	return d
}

// Config is the config of a container image for one platform.
func (m *Image) Config() (config Part, ok bool) {
	for _, part := range m.Parts {
		if !part.Manifest && isConfig(part.MediaType) {
			config, ok = part, true
		}
	}
	return config, ok
}

// Built is the platform for which an image without an index was built, by its config. Empty: it is an artifact, its config does not
// say it or is not in the cache.
func (p *Puller) Built(m *Image) string {
	config, ok := m.Config()
	if !ok || len(m.Platforms) > 0 {
		return ""
	}
	c := p.config(config.Digest)
	if c.OS == "" || c.Architecture == "" {
		return ""
	}
	return oci.PlatformText(oci.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant})
}

// config is what the config of an image says of it, if it is in the cache.
func (p *Puller) config(d oci.Digest) (c struct {
	Created      time.Time `json:"created"`
	OS           string    `json:"os"`
	Architecture string    `json:"architecture"`
	Variant      string    `json:"variant"`
},
) {
	if n, here := p.cache.Stat(d); here && n <= maxConfig {
		if b, err := p.cache.Peek(d); err == nil {
			_ = json.Unmarshal(b, &c) // what can't be read is not known
		}
	}
	return c
}

// isConfig reports whether a media type is that of the config of a container image.
func isConfig(mediaType string) bool {
	return mediaType == "application/vnd.oci.image.config.v1+json" || mediaType == "application/vnd.docker.container.image.v1+json"
}

// Choice is the digest that a pull of a tag gets by its record, with the pin and the policy that hold now. No registry is asked.
func (p *Puller) Choice(t catalog.Tag) catalog.Choice {
	st, ref, err := p.own(t.Ref)
	if err != nil {
		return catalog.Choice{Digest: t.Digest, Latest: t.Digest}
	}
	now := time.Now()
	if pin, ok := p.catalog.Pinned(ref, now); ok {
		return catalog.Choice{Digest: pin.Digest, Latest: t.Digest, Hold: catalog.HeldByPin}
	}
	return t.Choose(st.Tags.For(ref.Name, ref.Tag), now)
}

// Known is the record of a tag with the registry's last word on it, which may be newer than the record. The error is
// catalog.ErrUnknown for a tag that was never recorded.
func (p *Puller) Known(ctx context.Context, ref oci.Ref) (catalog.Tag, error) {
	st, ref, err := p.own(ref)
	if err != nil {
		return catalog.Tag{}, err
	}
	if _, err := p.recorded(st, ref); err != nil {
		return catalog.Tag{}, err
	}
	return p.tagState(ctx, st, ref).Tag, nil
}

// Canonical is the reference under which the mirror knows an image, with the names of the configuration. The error is a
// *route.UnknownError.
func (p *Puller) Canonical(ref oci.Ref) (oci.Ref, error) {
	_, ref, err := p.own(ref)
	return ref, err
}
