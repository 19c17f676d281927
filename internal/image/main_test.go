package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// The same binaries make the same image: one of two platforms that runs without root, with the SBOM of each.
func TestImage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	self, err := os.Executable() // a Go program with its modules in it
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := func(name string) layout.Path {
		t.Helper()
		out := filepath.Join(dir, name)
		if err := run([]string{"-version", "v1.2.3", "-revision", "abc", "-o", out, "linux/amd64=" + self, "linux/arm64=" + self}); err != nil {
			t.Fatal(err)
		}
		l, err := layout.FromPath(out)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	one, two := build("one"), build("two")
	a, err := os.ReadFile(filepath.Join(string(one), "index.json"))
	b, err2 := os.ReadFile(filepath.Join(string(two), "index.json"))
	if err := errors.Join(err, err2); err != nil || string(a) != string(b) {
		t.Errorf("index.json differs: %v", err)
	}
	if err := run([]string{"-o", string(one), "linux/amd64=" + self}); err == nil {
		t.Error("a layout was written over another one")
	}
	top, err := one.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || m.Manifests[0].MediaType != types.OCIImageIndex || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "v1.2.3" {
		t.Fatalf("the layout has %+v", m.Manifests)
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	images, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range images.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, img, d)
		checkBOM(t, bomFile(string(one), *d.Platform), d.Digest)
	}
}

func checkImage(t *testing.T, img v1.Image, d v1.Descriptor) {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "65532:65532" || c.Architecture != d.Platform.Architecture || c.Created.Unix() != 1700000000 {
		t.Errorf("config: %+v", c)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]int64)
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		files := tar.NewReader(r)
		for {
			h, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.ModTime.Unix() != 1700000000 {
				t.Errorf("%s is of %s", h.Name, h.ModTime)
			}
			have[h.Name] = h.Mode
		}
	}
	for name, mode := range map[string]int64{"usr/local/bin/mirror": 0o755, "usr/local/": 0o755, "var/lib/mirror/": 0o750, "etc/passwd": 0o644, "tmp/": 0o1777} {
		if have[name] != mode {
			t.Errorf("%s has the mode %o", name, have[name])
		}
	}
}

func checkBOM(t *testing.T, file string, of v1.Hash) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		SPDXVersion, DocumentNamespace string
		Packages                       []struct{ Name string }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(doc.Packages))
	for i, p := range doc.Packages {
		names[i] = p.Name
	}
	all := strings.Join(names, " ")
	if doc.SPDXVersion != "SPDX-2.3" || !strings.HasSuffix(doc.DocumentNamespace, of.String()) || !strings.Contains(all, "stdlib") ||
		!strings.Contains(all, "github.com/google/go-containerregistry") {
		t.Errorf("the SBOM of %s has %s", doc.DocumentNamespace, all)
	}
}
