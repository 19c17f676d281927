package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
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

// bom is the SBOM of an image: the modules that its binary was linked from, by the binary itself. Source: SPDX 2.3.
func (r release) bom(img v1.Image, binary []byte) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read the modules of the binary: %w", err)
	}
	d, err := img.Digest()
	if err != nil {
		return nil, err
	}
	type ref struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	type pkg struct {
		ID       string `json:"SPDXID"`
		Name     string `json:"name"`
		Version  string `json:"versionInfo"`
		Location string `json:"downloadLocation"`
		Analyzed bool   `json:"filesAnalyzed"`
		Refs     []ref  `json:"externalRefs"`
	}
	type relation struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
	doc := struct {
		Version   string     `json:"spdxVersion"`
		License   string     `json:"dataLicense"`
		ID        string     `json:"SPDXID"`
		Name      string     `json:"name"`
		Namespace string     `json:"documentNamespace"`
		Creation  any        `json:"creationInfo"`
		Packages  []pkg      `json:"packages"`
		Relations []relation `json:"relationships"`
	}{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "mirror " + r.version,
		Namespace: "https://" + info.Main.Path + "/sbom/" + d.String(),
		Creation: map[string]any{
			"created": r.created.Format(time.RFC3339), "creators": []string{"Tool: " + info.Main.Path + "/internal/image"},
		},
	}
	add := func(name, version, locator string) {
		id := fmt.Sprintf("SPDXRef-Package-%d", len(doc.Packages))
		doc.Packages = append(doc.Packages, pkg{
			ID: id, Name: name, Version: version, Location: "NOASSERTION", Refs: []ref{{"PACKAGE-MANAGER", "purl", locator}},
		})
		kind, from := "CONTAINS", "SPDXRef-Package-0"
		if len(doc.Packages) == 1 {
			kind, from = "DESCRIBES", doc.ID
		}
		doc.Relations = append(doc.Relations, relation{from, kind, id})
	}
	add(info.Main.Path, r.version, "pkg:golang/"+info.Main.Path+"@"+r.version)
	add("stdlib", info.GoVersion, "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(m.Path, m.Version, "pkg:golang/"+m.Path+"@"+m.Version)
	}
	return json.MarshalIndent(doc, "", " ")
}
