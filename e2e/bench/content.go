package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is one that is pulled, as files: DIR/v2/REPO/manifests/... and DIR/v2/REPO/blobs/..., so that nginx can serve
// them as they are.
type image struct {
	repo     string
	manifest ocispec.Descriptor
	blobs    []ocispec.Descriptor // config first
	sums     map[digest.Digest]uint32
}

const tag = "v1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bytes is the size of what a pull transfers.
func (x *image) bytes() int64 {
	n := x.manifest.Size
	for _, d := range x.blobs {
		n += d.Size
	}
	return n
}

// largest is its largest blob.
func (x *image) largest() ocispec.Descriptor {
	big := x.blobs[0]
	for _, d := range x.blobs {
		if d.Size > big.Size {
			big = d
		}
	}
	return big
}

// layer is one of so many bytes: random ones, or zeros, which as a file take no room.
type layer struct {
	size  int64
	zeros bool
}

// newImage writes an image.
func newImage(dir, repo string, layers ...layer) (*image, error) {
	x := &image{repo: repo, sums: make(map[digest.Digest]uint32)}
	root := filepath.Join(dir, "v2", repo)
	for _, sub := range []string{"manifests", "blobs"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			return nil, err
		}
	}
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Author: repo, Created: new(time.Unix(0, 0).UTC()),
	})
	if err != nil {
		return nil, err
	}
	if err := x.add(root, ocispec.MediaTypeImageConfig, int64(len(config)), bytes.NewReader(config)); err != nil {
		return nil, err
	}
	for _, l := range layers {
		from := rand.Reader
		if l.zeros {
			from = zeros{}
		}
		if err := x.add(root, ocispec.MediaTypeImageLayer, l.size, io.LimitReader(from, l.size)); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: x.blobs[0], Layers: x.blobs[1:],
	})
	if err != nil {
		return nil, err
	}
	x.manifest = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	for _, name := range []string{tag, x.manifest.Digest.String()} {
		if err := os.WriteFile(filepath.Join(root, "manifests", name), raw, 0o644); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (x *image) add(root, mediaType string, size int64, r io.Reader) error {
	f, err := os.CreateTemp(root, "new-")
	if err != nil {
		return err
	}
	sum, crc := sha256.New(), crc32.New(castagnoli)
	n, err := io.CopyBuffer(io.MultiWriter(holes{f}, sum, crc), r, make([]byte, 1<<20))
	if err != nil || n != size {
		return fmt.Errorf("write %s: %d of %d bytes: %w", f.Name(), n, size, err)
	}
	if err := f.Truncate(size); err != nil { // where it ends in a hole
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d := ocispec.Descriptor{
		MediaType: mediaType, Size: size,
		Digest: digest.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil))),
	}
	x.blobs = append(x.blobs, d)
	x.sums[d.Digest] = crc.Sum32()
	return os.Rename(f.Name(), filepath.Join(root, "blobs", d.Digest.String()))
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// holes writes a file, and leaves out what is zero.
type holes struct{ f *os.File }

// Write implements io.Writer.
func (h holes) Write(p []byte) (int, error) {
	if len(bytes.TrimLeft(p, "\x00")) > 0 {
		return h.f.Write(p)
	}
	_, err := h.f.Seek(int64(len(p)), io.SeekCurrent)
	return len(p), err
}

func digestOf(b []byte) string { return digest.FromBytes(b).String() }

// mediaType is what a manifest says of itself.
func mediaType(b []byte) string {
	var doc struct{ MediaType string }
	_ = json.Unmarshal(b, &doc) // ours, and valid
	return doc.MediaType
}
