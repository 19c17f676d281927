package catalog

import "strings"

// artifactSums are the algorithms of digests in tags, with the number of hex digits. The OCI specification cuts a sum off
// after 64.
var artifactSums = map[string][]int{"sha256": {64}, "sha384": {64, 96}, "sha512": {64, 128}}

// IsArtifactTag reports whether a tag is made by a program from the digest of an image, for content about that image: a
// signature, an attestation, a bill of materials or the list of all of these. Such a tag is not a version of an image.
//
//	sha256-<hex>                                          the list of referrers, where a registry has no API for it
//	sha256-<hex>.sig, sha256-<hex>.att, sha256-<hex>.sbom    cosign
//	sha256-<hex>.<anything>                               other tools, which use the same form
func IsArtifactTag(tag string) bool {
	algorithm, rest, ok := strings.Cut(tag, "-")
	if !ok {
		return false
	}
	digits := 0
	for digits < len(rest) && (rest[digits] >= '0' && rest[digits] <= '9' || rest[digits] >= 'a' && rest[digits] <= 'f') {
		digits++
	}
	for _, n := range artifactSums[algorithm] {
		if digits == n && (len(rest) == n || rest[n] == '.') {
			return true
		}
	}
	return false
}
