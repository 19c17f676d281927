package oci

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// maxDescriptors is how many descriptors a manifest may have. Images have at most 127 layers in Docker and 500 in ECR;
// artifacts with a layer for each file, and lists of signatures, are known with 1,400 and some 4,000.
const maxDescriptors = 10_000

// Fault is the kind of mistake for which a manifest is refused.
type Fault string

// The faults of manifests.
const (
	FaultTooLarge      Fault = "too-large"        // above MaxManifestSize
	FaultNotJSON       Fault = "not-json"         // not one JSON object
	FaultTooDeep       Fault = "too-deep"         // nested deeper than any manifest is
	FaultAmbiguous     Fault = "ambiguous"        // two clients could read it as two images (CVE-2021-41190)
	FaultMediaType     Fault = "bad-media-type"   // its mediaType is not one
	FaultBadDescriptor Fault = "bad-descriptor"   // a digest, a size or the shape of a descriptor
	FaultTooMany       Fault = "too-many-entries" // more than 10,000 descriptors
	FaultSigned        Fault = "signed-schema-1"  // its digest is that of a part of it
)

// ManifestError says why a document is not passed on as a manifest. The fault is the upstream's or the publisher's,
// not the client's.
type ManifestError struct {
	Fault  Fault
	Detail string // one sentence without its end, which names the place
}

func (e *ManifestError) Error() string {
	return fmt.Sprintf("manifest refused, %s: %s", e.Fault, e.Detail)
}

func fault(f Fault, format string, args ...any) *ManifestError {
	return &ManifestError{Fault: f, Detail: fmt.Sprintf(format, args...)}
}

// ParseManifest reads a manifest or index. It keeps b, which the caller must not change, and computes its sha256
// digest; the caller compares it with the requested one, by VerifyDigest.
//
// The document's own mediaType wins over contentType, which may have parameters or be empty. An unknown type
// passes without children, as long as the document is a JSON object. Errors are *ManifestError.
func ParseManifest(contentType string, b []byte) (*Manifest, error) {
	if len(b) > MaxManifestSize {
		return nil, fault(FaultTooLarge, "it has %d bytes, at most %d are allowed", len(b), MaxManifestSize)
	}
	doc, err := readDocument(b)
	if err != nil {
		return nil, err
	}
	f, mediaType, err := doc.classify(bareType(contentType))
	if err != nil {
		return nil, err
	}
	m := &Manifest{Digest: digest.FromBytes(b), MediaType: mediaType, Bytes: b}
	if f == formUnknown {
		return m, nil
	}
	if err := doc.fill(m, f); err != nil {
		return nil, err
	}
	return m, nil
}

// fill sets the children of the manifest, in the order of the spec: config, layers, blobs; or manifests.
func (d *document) fill(m *Manifest, f form) (err error) {
	var keys []key
	switch f {
	case formIndex:
		keys = []key{keyManifests}
	case formManifest:
		keys = []key{keyConfig, keyLayers}
	case formArtifact:
		keys = []key{keyBlobs}
	}
	for _, k := range keys {
		if m.Children, err = d.children(m.Children, k); err != nil {
			return err
		}
	}
	if f == formSchema1 {
		return nil // its fsLayers are digests without a size, and clients no longer pull it
	}
	if m.Subject, err = d.descriptor(keySubject); err != nil {
		return err
	}
	if m.Artifact, err = d.text(keyArtifactType); err != nil {
		return err
	}
	if m.Artifact == "" && f == formManifest && !d.null(keyConfig) {
		m.Artifact = m.Children[0].MediaType
	}
	return nil
}

// Resembles reports whether a document can be a manifest at all: it has one of the keys that list children, or its media type
// is of a format that this package does not know. An error of a web service in JSON is neither, whatever type it was sent with.
// For a document that is not JSON it returns true: ParseManifest refuses it.
func Resembles(contentType string, b []byte) bool {
	at := blank(b, 0)
	if at == len(b) || b[at] != '{' || !json.Valid(b) {
		return true
	}
	own, failed := "", false
	for name, v := range members(b[at:]) {
		switch name {
		case keyNames[keyManifests], keyNames[keyConfig], keyNames[keyLayers], keyNames[keyBlobs], keyNames[keyFSLayers]:
			return true
		case keyNames[keyMediaType]:
			if v[0] == '"' {
				own = unquoted(v)
			}
		case "errors":
			failed = v[0] == '[' && v[blank(v, 1)] != ']'
		}
	}
	return isForeign(own) || !failed && isForeign(bareType(contentType))
}

// OwnMediaType is the mediaType in the document of a parsed manifest; empty where it has none.
func OwnMediaType(m *Manifest) string {
	own := ""
	for name, v := range members(m.Bytes[blank(m.Bytes, 0):]) {
		if name == keyNames[keyMediaType] && v[0] == '"' {
			own = unquoted(v)
		}
	}
	return own
}
