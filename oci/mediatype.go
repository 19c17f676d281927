package oci

import "strings"

// Media types of manifests and of lists of manifests.
const (
	MediaTypeOCIIndex            = "application/vnd.oci.image.index.v1+json"
	MediaTypeOCIManifest         = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeOCIArtifactManifest = "application/vnd.oci.artifact.manifest.v1+json" // of the 1.1 release candidates
	MediaTypeDockerManifestList  = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerManifest      = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// AcceptManifests is the value of the Accept header of a request for a manifest: every type by name, since some
// registries convert or refuse a type that is not named, and then any other type.
const AcceptManifests = MediaTypeDockerManifest + ", " + MediaTypeDockerManifestList + ", " +
	MediaTypeOCIManifest + ", " + MediaTypeOCIIndex + ", " + MediaTypeOCIArtifactManifest + ", */*"

// IsIndex reports whether the media type is one of a list of manifests.
func IsIndex(mediaType string) bool {
	return formOf(mediaType) == formIndex
}

// IsManifest reports whether the media type is one of a manifest that is known, an index included.
func IsManifest(mediaType string) bool {
	return formOf(mediaType) > formGeneric
}

// EmptyIndex returns an OCI index without entries: the answer to a request for referrers where there are none.
func EmptyIndex() []byte {
	return []byte(`{"schemaVersion":2,"mediaType":"` + MediaTypeOCIIndex + `","manifests":[]}`)
}

// form is how a document is read.
type form int

const (
	formUnknown form = iota // a type that this package does not know: passed on, not parsed
	formGeneric             // a type without meaning: the document's keys decide
	formIndex               // this one and the following are of known manifests
	formManifest
	formArtifact
	formSchema1
)

func formOf(mediaType string) form {
	switch mediaType {
	case MediaTypeOCIIndex, MediaTypeDockerManifestList:
		return formIndex
	case MediaTypeOCIManifest, MediaTypeDockerManifest:
		return formManifest
	case MediaTypeOCIArtifactManifest:
		return formArtifact
	case MediaTypeDockerSchema1, MediaTypeDockerSchema1Signed:
		return formSchema1
	case "", "application/json", "application/octet-stream", "text/plain":
		return formGeneric
	}
	return formUnknown
}

// isForeign reports whether a media type is of a format that this package does not know: it is not that of a known manifest, nor
// a generic one of web services.
func isForeign(mediaType string) bool {
	t := strings.ToLower(mediaType)
	switch t {
	case "application/problem+json", "application/vnd.api+json", "application/hal+json", "application/x-json", "application/xml",
		"application/javascript", "application/x-javascript", "application/x-www-form-urlencoded":
		return false
	}
	return formOf(t) == formUnknown && !strings.HasPrefix(t, "text/")
}

// bareType is a Content-Type without its parameters; empty if it is not a media type.
func bareType(contentType string) string {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.TrimSpace(t)
	if !isMediaType(t) {
		return ""
	}
	return t
}

// isMediaType reports whether s is type/subtype by RFC 6838, section 4.2. A media type of a document becomes a header,
// so nothing else may be in it.
func isMediaType(s string) bool {
	t, sub, ok := strings.Cut(s, "/")
	return ok && isRestrictedName(t) && isRestrictedName(sub)
}

func isRestrictedName(s string) bool {
	if s == "" || len(s) > 127 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := isLowerAlnum(c) || 'A' <= c && c <= 'Z'
		if !alnum && (i == 0 || !strings.ContainsRune("!#$&-^_.+", rune(c))) {
			return false
		}
	}
	return true
}
