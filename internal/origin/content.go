package origin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/oci"
)

// Content is bytes of a known size, in memory or made up.
type Content interface {
	io.ReaderAt
	Size() int64
}

type content = Content

// repository is what a repository has. Guarded by Origin.mu.
type repository struct {
	blobs     map[oci.Digest]struct{}
	manifests map[oci.Digest]string // media types
	tags      map[string]oci.Digest
}

// repo returns the repository, and makes it. The lock is held.
func (g *Origin) repo(name string) *repository {
	r := g.repos[name]
	if r == nil {
		r = &repository{
			blobs: make(map[oci.Digest]struct{}), manifests: make(map[oci.Digest]string),
			tags: make(map[string]oci.Digest),
		}
		g.repos[name] = r
	}
	return r
}

// AddBlob puts a blob into a repository.
func (g *Origin) AddBlob(repo string, b []byte) oci.Descriptor {
	return g.AddBlobAs(repo, digest.FromBytes(b), b)
}

// AddBlobAs puts a blob into a repository under a digest of the caller's choice: sha512, or a wrong one.
func (g *Origin) AddBlobAs(repo string, d oci.Digest, b []byte) oci.Descriptor {
	return g.addContent(repo, d, bytes.NewReader(bytes.Clone(b)))
}

// AddLargeBlob puts a blob of that size, made from the seed and never held, into a repository.
func (g *Origin) AddLargeBlob(repo string, size, seed int64) oci.Descriptor {
	c := newRandom(seed, size)
	return g.addContent(repo, sum(c), c)
}

func (g *Origin) addContent(repo string, d oci.Digest, c content) oci.Descriptor {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.content[d] = c
	g.repo(repo).blobs[d] = struct{}{}
	return oci.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: c.Size()}
}

// AddManifest puts a manifest into a repository, whatever its bytes. The tag may be empty.
func (g *Origin) AddManifest(repo, tag, mediaType string, b []byte) oci.Descriptor {
	return g.AddManifestAs(repo, tag, mediaType, digest.FromBytes(b), b)
}

// AddManifestAs is AddManifest under a digest of the caller's choice: sha512, or a wrong one.
func (g *Origin) AddManifestAs(repo, tag, mediaType string, d oci.Digest, b []byte) oci.Descriptor {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.content[d] = bytes.NewReader(bytes.Clone(b))
	r := g.repo(repo)
	r.manifests[d] = mediaType
	if tag != "" {
		r.tags[tag] = d
	}
	return oci.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// SetTag points a tag at a digest, which need not be there.
func (g *Origin) SetTag(repo, tag string, d oci.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.repo(repo).tags[tag] = d
}

// DeleteTag removes a tag.
func (g *Origin) DeleteTag(repo, tag string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.repo(repo).tags, tag)
}

// Delete removes a blob or manifest from a repository. Tags keep pointing at it.
func (g *Origin) Delete(repo string, d oci.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.repo(repo).blobs, d)
	delete(g.repo(repo).manifests, d)
}

// Open reads content that was added. It is empty where there is none.
func (g *Origin) Open(d oci.Digest) *io.SectionReader {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.content[d]
	if !ok {
		return io.NewSectionReader(bytes.NewReader(nil), 0, 0)
	}
	return io.NewSectionReader(c, 0, c.Size())
}

// findManifest looks a reference up.
func (g *Origin) findManifest(repo, ref string) (d oci.Digest, mediaType string, c content, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, known := g.repos[repo]
	if !known {
		return "", "", nil, false
	}
	d = oci.Digest(ref)
	if t, ok := r.tags[ref]; ok {
		d = t
	}
	mediaType, ok := r.manifests[d]
	if !ok {
		return "", "", nil, true
	}
	return d, mediaType, g.content[d], true
}

func (g *Origin) findBlob(repo, ref string) (c content, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, known := g.repos[repo]
	if !known {
		return nil, false
	}
	if _, ok := r.blobs[oci.Digest(ref)]; !ok {
		return nil, true
	}
	return g.content[oci.Digest(ref)], true
}

func (g *Origin) tagsOf(repo string) (tags []string, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, known := g.repos[repo]
	if !known {
		return nil, false
	}
	tags = []string{}
	for t := range r.tags {
		tags = append(tags, t)
	}
	slices.Sort(tags)
	return tags, true
}

// sum hashes content that is not held.
func sum(c content) oci.Digest {
	h := sha256.New()
	_, _ = io.CopyBuffer(h, io.NewSectionReader(c, 0, c.Size()), make([]byte, 256<<10))
	return oci.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// AddContent puts a blob under its digest into a repository: bytes that the caller makes, of which none are held.
func (g *Origin) AddContent(repo string, d oci.Digest, r Content) oci.Descriptor {
	return g.addContent(repo, d, r)
}
