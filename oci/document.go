package oci

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// maxDepth is how deep a manifest may be nested. A platform in a descriptor in a list is at 5.
const maxDepth = 64

// key is a key at the top of a document that decides how it is read.
type key int

const (
	keyMediaType key = iota
	keyArtifactType
	keyManifests
	keyConfig
	keyLayers
	keyBlobs
	keyFSLayers
	keySubject
	keySchemaVersion
	keyCount
)

var keyNames = [keyCount]string{
	keyMediaType:     "mediaType",
	keyArtifactType:  "artifactType",
	keyManifests:     "manifests",
	keyConfig:        "config",
	keyLayers:        "layers",
	keyBlobs:         "blobs",
	keyFSLayers:      "fsLayers",
	keySubject:       "subject",
	keySchemaVersion: "schemaVersion",
}

// document is the top level of a manifest. Its values are neither parsed nor copied; all of it is valid JSON.
type document struct {
	values [keyCount][]byte
	twice  [keyCount]bool   // the key is there more than once
	like   [keyCount]string // a key that differs in case only, which some decoders take for this one
}

func readDocument(b []byte) (*document, error) {
	if d := depth(b); d > maxDepth {
		return nil, fault(FaultTooDeep, "it is nested %d levels deep, at most %d are allowed", d, maxDepth)
	}
	at := blank(b, 0)
	if at == len(b) || b[at] != '{' {
		return nil, fault(FaultNotJSON, "it does not begin as a JSON object")
	}
	if !json.Valid(b) {
		bad, _ := errors.AsType[*json.SyntaxError](json.Unmarshal(b, new(struct{})))
		if end := value(b, at); bad.Offset > int64(end) {
			return nil, fault(FaultNotJSON, "there is more data after the end of the object, at byte %d", end)
		}
		return nil, fault(FaultNotJSON, "at byte %d: %v", bad.Offset, bad)
	}
	d := new(document)
	for name, v := range members(b[at:]) {
		d.set(name, v)
	}
	return d, nil
}

// depth is how deep the brackets of b are nested, without those in strings. b need not be JSON.
func depth(b []byte) int {
	deepest, now, text := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

func (d *document) set(name string, v json.RawMessage) {
	for k, want := range keyNames {
		switch {
		case name == want:
			d.twice[k] = d.values[k] != nil
			d.values[k] = v
		case strings.EqualFold(name, want):
			d.like[k] = name
		}
	}
}

func (d *document) has(k key) bool { return d.values[k] != nil }

// null reports whether the key is missing or null, which encoders write for an empty list.
func (d *document) null(k key) bool {
	return d.values[k] == nil || string(d.values[k]) == "null"
}

// unique refuses keys that two clients could read differently.
func (d *document) unique(keys ...key) error {
	for _, k := range keys {
		if d.twice[k] {
			return fault(FaultAmbiguous, "it has the key %q more than once", keyNames[k])
		}
		if d.like[k] != "" {
			return fault(FaultAmbiguous, "it has the key %s, which some clients read as %q", quote(d.like[k]), keyNames[k])
		}
	}
	return nil
}

// classify decides how the document is read, and which media type is kept. contentType has no parameters.
func (d *document) classify(contentType string) (form, string, error) {
	if err := d.unique(keyMediaType); err != nil {
		return 0, "", err
	}
	own, err := d.text(keyMediaType)
	if err != nil {
		return 0, "", err
	}
	if own != "" && !isMediaType(own) {
		return 0, "", fault(FaultMediaType, "its mediaType %s is not a media type", quote(own))
	}
	outer, f, mediaType := formOf(contentType), formOf(own), own
	if own == "" {
		f, mediaType = outer, contentType
	}
	if f == formUnknown && (own == "" || outer == formUnknown || outer == formGeneric) {
		return formUnknown, mediaType, nil
	}
	if err := d.unambiguous(f, outer); err != nil {
		return 0, "", err
	}
	if own != "" && outer > formGeneric && f > formGeneric && (outer == formIndex) != (f == formIndex) {
		return 0, "", fault(FaultAmbiguous, "its mediaType is %s, it was sent as %s", quote(own), quote(contentType))
	}
	if f == formGeneric {
		f = d.guess()
	}
	if mediaType == "" {
		mediaType = defaultTypes[f]
	}
	return f, mediaType, nil
}

// unambiguous refuses documents that are an index for one client and an image for another (CVE-2021-41190).
func (d *document) unambiguous(forms ...form) error {
	for k := range keyCount {
		if err := d.unique(k); err != nil {
			return err
		}
	}
	for _, image := range []key{keyLayers, keyConfig, keyFSLayers, keyBlobs} {
		if !d.has(image) {
			continue
		}
		if d.has(keyManifests) {
			return fault(FaultAmbiguous, "it has both %q and %q", keyNames[keyManifests], keyNames[image])
		}
		if slices.Contains(forms, formIndex) {
			return fault(FaultAmbiguous, "it says to be an index and has %q", keyNames[image])
		}
	}
	for _, f := range forms {
		if d.has(keyManifests) && (f == formManifest || f == formArtifact || f == formSchema1) {
			return fault(FaultAmbiguous, "it says to be an image and has %q", keyNames[keyManifests])
		}
	}
	if d.has(keyFSLayers) && d.has(keyLayers) {
		return fault(FaultAmbiguous, "it has both %q and %q", keyNames[keyFSLayers], keyNames[keyLayers])
	}
	return nil
}

// defaultTypes are the media types of documents that name none and came without one. Docker's own forms require a mediaType,
// except schema 1.
var defaultTypes = map[form]string{
	formIndex:    MediaTypeOCIIndex,
	formManifest: MediaTypeOCIManifest,
	formSchema1:  MediaTypeDockerSchema1Signed,
	formUnknown:  "application/json",
}

// guess derives the form from the keys.
func (d *document) guess() form {
	switch {
	case d.has(keyManifests):
		return formIndex
	case d.has(keyFSLayers):
		return formSchema1
	case d.has(keyConfig) && d.has(keyLayers):
		return formManifest
	}
	return formUnknown
}

// text is the string at a key, empty where it is missing.
func (d *document) text(k key) (s string, err error) {
	if d.null(k) {
		return "", nil
	}
	if err := json.Unmarshal(d.values[k], &s); err != nil {
		return "", fault(FaultMediaType, "its %q is not a string", keyNames[k])
	}
	return s, nil
}
