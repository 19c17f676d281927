package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is the one that the mirror runs as: it has no rights beyond its data folder.
const user = 65532

// image is that of one platform: a layer with the files that a program expects, and one with the binary.
func (r release) image(p v1.Platform, binary []byte) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, Created: v1.Time{Time: r.created}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User: fmt.Sprintf("%d:%d", user, user), WorkingDir: "/var/lib/mirror", Labels: r.annotations(),
			Entrypoint: []string{"/usr/local/bin/mirror"}, Cmd: []string{"serve"},
			ExposedPorts: map[string]struct{}{"5000/tcp": {}, "5001/tcp": {}},
			Volumes:      map[string]struct{}{"/var/lib/mirror": {}},
		},
	})
	if err != nil {
		return nil, err
	}
	for _, files := range [][]file{
		{
			{name: "etc/passwd", mode: 0o644, content: []byte(fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nmirror:x:%d:%d:mirror:/var/lib/mirror:/sbin/nologin\n", user, user))},
			{name: "etc/group", mode: 0o644, content: []byte(fmt.Sprintf("root:x:0:\nmirror:x:%d:\n", user))},
			{name: "tmp/", mode: 0o1777},
			{name: "var/lib/mirror/", mode: 0o750, owner: user},
		},
		{{name: "usr/local/bin/mirror", mode: 0o755, content: binary}},
	} {
		layer, err := r.layer(files)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "make image"}})
		if err != nil {
			return nil, err
		}
	}
	return mutate.Annotations(img, r.annotations()).(v1.Image), nil
}

// file is one of a layer. A name that ends in / is a folder's.
type file struct {
	name    string
	mode    int64
	owner   int
	content []byte
}

// layer packs files, with the folders that they are in. Each has the time of the release.
func (r release) layer(files []file) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := make(map[string]bool)
	when := r.created
	if when.IsZero() {
		when = time.Unix(0, 0).UTC()
	}
	add := func(f file) error {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.owner, Gid: f.owner, Size: int64(len(f.content)), ModTime: when, Format: tar.FormatPAX}
		h.Typeflag = tar.TypeReg
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
			made[f.name] = true
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(f.content)
		return err
	}
	for _, f := range files {
		for i := range len(f.name) - 1 {
			if folder := f.name[:i+1]; f.name[i] == '/' && !made[folder] {
				if err := add(file{name: folder, mode: 0o755}); err != nil {
					return nil, err
				}
			}
		}
		if err := add(f); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}
