// Package image makes images and pushes them to a real registry.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/registrymirror/mirror/internal/origin"
)

// Index is a pushed image of several platforms.
type Index struct {
	Repository string // without a registry
	Tag        string
	Digest     v1.Hash
	Size       int64
	Platforms  []string
	Images     map[string]v1.Image // by platform
}

// Config is the digest of a platform's config: the image id of containerd, Docker and Podman.
func (x *Index) Config(t testing.TB, platform string) string {
	t.Helper()
	m, err := x.Images[platform].Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Config.Digest.String()
}

// Content is the digests of everything below the index: manifests, configs and layers of each platform.
func (x *Index) Content(t testing.TB) []string {
	t.Helper()
	var list []string
	for _, platform := range x.Platforms {
		img := x.Images[platform]
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d.String(), m.Config.Digest.String())
		for _, layer := range m.Layers {
			list = append(list, layer.Digest.String())
		}
	}
	return list
}

// Descriptor is what refers to it.
func (x *Index) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: types.OCIImageIndex, Digest: x.Digest, Size: x.Size}
}

// Layers are the sizes of each platform's layers, in bytes before compression. The content does not compress.
type Layers []int

// PushIndex makes an image for linux/amd64 and linux/arm64 that runtimes can unpack, and pushes it.
func PushIndex(t testing.TB, host, repository, tag string, layers Layers) *Index {
	t.Helper()
	return PushBuilt(t, host, repository, tag, func(platform string) v1.Image { return New(t, platform, layers) })
}

// PushBuilt is PushIndex of images that the caller builds.
func PushBuilt(t testing.TB, host, repository, tag string, build func(platform string) v1.Image) *Index {
	t.Helper()
	x := &Index{
		Repository: repository, Tag: tag, Platforms: []string{"linux/amd64", "linux/arm64"},
		Images: make(map[string]v1.Image),
	}
	index := v1.ImageIndex(mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	for _, platform := range x.Platforms {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		x.Images[platform] = build(platform)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: x.Images[platform], Descriptor: v1.Descriptor{Platform: p}})
	}
	if err := remote.WriteIndex(ref(t, host, repository, tag), index, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	var err error
	if x.Digest, err = index.Digest(); err != nil {
		t.Fatal(err)
	}
	if x.Size, err = index.Size(); err != nil {
		t.Fatal(err)
	}
	return x
}

// Push pushes an image of one platform, or an artifact.
func Push(t testing.TB, host, repository, tag string, img v1.Image) v1.Hash {
	t.Helper()
	if err := remote.Write(ref(t, host, repository, tag), img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// New makes an image of one platform, with OCI media types.
func New(t testing.TB, platform string, layers Layers) v1.Image {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = p.OS, p.Architecture, p.Variant
	file.Config.Cmd = []string{"/bin/true"}
	file.Config.Labels = map[string]string{"made-for": t.Name()}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	for i, size := range layers {
		raw := archive(t, fmt.Sprintf("layer-%d", i), size)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(raw)), nil
		}, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// PushProgram pushes an image that is one static program and runs it, of this machine's platform and, so that there is
// an index, of another.
func PushProgram(t testing.TB, host, repository, tag string, binary []byte) {
	t.Helper()
	PushBuilt(t, host, repository, tag, func(platform string) v1.Image { return Program(t, platform, binary) })
}

// Program is an image that is one static program and runs it.
func Program(t testing.TB, platform string, binary []byte) v1.Image {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(binary)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(binary); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(out.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(New(t, platform, nil), layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Config.Cmd, file.Config.Entrypoint = nil, []string{"/program"}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// Give has an origin offer an image.
func Give(t testing.TB, to *origin.Origin, repository, tag string, img v1.Image) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		r, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		to.AddBlob(repository, b)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	to.AddBlob(repository, config)
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	kind, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	to.AddManifest(repository, tag, string(kind), manifest)
}

// FromLayout is the image of a platform in an OCI layout.
func FromLayout(t testing.TB, dir, platform string) v1.Image {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	root, err := layout.ImageIndexFromPath(dir) // which names the image's own index
	if err != nil {
		t.Fatal(err)
	}
	indexes, err := partial.FindIndexes(root, match.MediaTypes(string(types.OCIImageIndex)))
	if err != nil || len(indexes) != 1 {
		t.Fatalf("%d indexes are in %s: %v", len(indexes), dir, err)
	}
	list, err := partial.FindImages(indexes[0], match.Platforms(*p))
	if err != nil || len(list) != 1 {
		t.Fatalf("%d images of %s are in %s: %v", len(list), platform, dir, err)
	}
	return list[0]
}

// Chart is an artifact as Helm pushes it: media types that no image has.
func Chart(t testing.TB) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		"application/vnd.cncf.helm.config.v1+json")
	img, err := mutate.AppendLayers(img, static.NewLayer(archive(t, "chart/Chart.yaml", 2048),
		"application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Referrer is an artifact that refers to subject, as signatures and bills of materials do.
func Referrer(t testing.TB, subject v1.Descriptor) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.example.sbom.config")
	img, err := mutate.AppendLayers(img, static.NewLayer([]byte(`{"packages":[]}`), "application/spdx+json"))
	if err != nil {
		t.Fatal(err)
	}
	sub, ok := mutate.Subject(img, subject).(v1.Image)
	if !ok {
		t.Fatal("an image with a subject is not an image")
	}
	return sub
}

// archive is a tar with one file of random bytes.
func archive(t testing.TB, file string, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	_, _ = rand.Read(body) // never fails
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func ref(t testing.TB, host, repository, tag string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(host + "/" + repository + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
