package main

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	manifestType = ocispec.MediaTypeImageManifest
	indexType    = ocispec.MediaTypeImageIndex
	configType   = ocispec.MediaTypeImageConfig
	layerType    = ocispec.MediaTypeImageLayerGzip
)

// descriptor is one as a publisher writes it: sizes and digests may be anything.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// manifestOf makes a manifest that names what it is given. note makes it another one.
func manifestOf(note string, config descriptor, layers ...descriptor) document {
	return documentOf(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers,
		"annotations": map[string]string{"note": note},
	})
}

// indexOf makes an index that names what it is given.
func indexOf(note string, children ...descriptor) document {
	return documentOf(indexType, map[string]any{
		"schemaVersion": 2, "mediaType": indexType, "manifests": children, "annotations": map[string]string{"note": note},
	})
}

func documentOf(mediaType string, v any) document {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps and structs of this package
	}
	return document{mediaType: mediaType, bytes: b, digest: sum(b)}
}

// descriptor is what refers to the document.
func (d document) descriptor() descriptor {
	return descriptor{MediaType: d.mediaType, Digest: d.digest, Size: int64(len(d.bytes))}
}

// forPlatform is a child of an index.
func (d descriptor) forPlatform() descriptor {
	d.Platform = &platform{Architecture: "amd64", OS: "linux"}
	return d
}

// config adds a small one to a repository.
func (r *repository) config(note string) descriptor {
	d := r.add(text(`{"architecture":"amd64","os":"linux","note":"` + note + `"}`))
	d.MediaType = configType
	return d
}
