package origin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/registrymirror/mirror/oci"
)

// Image says what AddImage makes. Layers are uncompressed tars that runtimes can unpack, from 2 KiB up.
type Image struct {
	Platforms []string // "linux/amd64", "linux/arm64/v8"; empty: linux/amd64
	Layers    []int64  // sizes in bytes, for each platform; empty: one of 4 KiB
	Seed      int64    // another seed makes other bytes
	Index     bool     // an index for a single platform too
	Shared    bool     // all platforms have the same layers
}

// Built is an image as it was made.
type Built struct {
	Root      oci.Descriptor     // what the tag points to: Index, or the only manifest
	Index     oci.Descriptor     // zero where there is none
	Manifests []oci.Descriptor   // in order of Image.Platforms
	Configs   []oci.Descriptor   // in order of Image.Platforms
	Layers    [][]oci.Descriptor // of each platform

	content map[oci.Digest]content
}

// Blobs are the configs and layers, each once.
func (b Built) Blobs() []oci.Descriptor {
	var list []oci.Descriptor
	seen := make(map[oci.Digest]bool)
	for i, c := range b.Configs {
		for _, d := range append([]oci.Descriptor{c}, b.Layers[i]...) {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				list = append(list, d)
			}
		}
	}
	return list
}

// Open reads anything of the image. It is empty where the image does not have it.
func (b Built) Open(d oci.Digest) *io.SectionReader {
	c, ok := b.content[d]
	if !ok {
		return io.NewSectionReader(bytes.NewReader(nil), 0, 0)
	}
	return io.NewSectionReader(c, 0, c.Size())
}

// Bytes is all of anything of the image.
func (b Built) Bytes(d oci.Digest) []byte {
	r := b.Open(d)
	p := make([]byte, r.Size())
	_, _ = io.ReadFull(r, p) // it is in memory or made up
	return p
}

// AddImage makes an image and tags it. The tag may be empty. The same Image is the same bytes.
func (g *Origin) AddImage(repo, tag string, spec Image) Built {
	if len(spec.Platforms) == 0 {
		spec.Platforms = []string{"linux/amd64"}
	}
	if len(spec.Layers) == 0 {
		spec.Layers = []int64{4 << 10}
	}
	b := Built{content: make(map[oci.Digest]content)}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	single := len(spec.Platforms) == 1 && !spec.Index
	for i, name := range spec.Platforms {
		m := g.addPlatform(repo, name, spec, i, &b)
		p := platform(name)
		m.Platform = &p
		index.Manifests = append(index.Manifests, m)
		if single {
			b.Root = b.Manifests[0]
		}
	}
	if !single {
		raw := marshal(index)
		b.Index = g.AddManifest(repo, "", ocispec.MediaTypeImageIndex, raw)
		b.Root = b.Index
		b.content[b.Index.Digest] = bytes.NewReader(raw)
	}
	if tag != "" {
		g.SetTag(repo, tag, b.Root.Digest)
	}
	return b
}

// addPlatform makes one manifest with its config and layers, and returns its descriptor.
func (g *Origin) addPlatform(repo, name string, spec Image, i int, b *Built) oci.Descriptor {
	var layers []oci.Descriptor
	var diffs []oci.Digest
	for j, size := range spec.Layers {
		seed := spec.Seed*1_000_003 + int64(j+1)
		if !spec.Shared {
			seed += int64(i+1) * 10_007
		}
		c := newLayer(seed, size)
		d := g.addContent(repo, layerSum(seed, c), c)
		d.MediaType = ocispec.MediaTypeImageLayer
		layers = append(layers, d)
		diffs = append(diffs, d.Digest)
		b.content[d.Digest] = c
	}
	config := marshal(ocispec.Image{
		Platform: platform(name),
		Config:   ocispec.ImageConfig{Cmd: []string{"/true"}, Labels: map[string]string{"seed": fmt.Sprint(spec.Seed)}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffs},
	})
	cd := g.AddBlob(repo, config)
	cd.MediaType = ocispec.MediaTypeImageConfig
	b.content[cd.Digest] = bytes.NewReader(config)
	raw := marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: cd, Layers: layers,
	})
	md := g.AddManifest(repo, "", ocispec.MediaTypeImageManifest, raw)
	b.content[md.Digest] = bytes.NewReader(raw)
	b.Manifests = append(b.Manifests, md)
	b.Configs = append(b.Configs, cd)
	b.Layers = append(b.Layers, layers)
	return md
}

// AddReferrer puts a manifest into a repository that refers to subject.
func (g *Origin) AddReferrer(repo string, subject oci.Descriptor, artifactType string) oci.Descriptor {
	empty := g.AddBlob(repo, []byte("{}"))
	empty.MediaType = ocispec.MediaTypeEmptyJSON
	return g.AddManifest(repo, "", ocispec.MediaTypeImageManifest, marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: empty, Layers: []oci.Descriptor{empty}, Subject: &subject,
		Annotations: map[string]string{"about": digest.FromString(artifactType).Encoded()[:8]},
	}))
}

func platform(s string) ocispec.Platform {
	part := append(strings.SplitN(s, "/", 3), "", "")
	return ocispec.Platform{OS: part[0], Architecture: part[1], Variant: part[2]}
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of the spec
	}
	return b
}
