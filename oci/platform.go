package oci

import (
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is that of an entry of an index, or of a node. Only its OS, architecture and variant count here.
type Platform = ocispec.Platform

// ParsePlatform reads OS/ARCH or OS/ARCH/VARIANT.
func ParsePlatform(text string) Platform {
	parts := append(strings.SplitN(text, "/", 3), "", "")
	return Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

// PlatformText is OS/ARCH or OS/ARCH/VARIANT.
func PlatformText(p Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// level is a variant as a number: a node runs its own level and those below. Without a variant it is the one that runtimes
// assume.
func level(p Platform) float64 {
	if n, err := strconv.ParseFloat(strings.TrimPrefix(p.Variant, "v"), 64); err == nil {
		return n
	}
	return map[string]float64{"arm": 7, "arm64": 8, "amd64": 1}[p.Architecture]
}

// Runs reports whether a node runs the images of a platform, by containerd's rule: its own variant and those below it. A node
// without a variant runs any.
func Runs(node, p Platform) bool {
	return node.OS == p.OS && node.Architecture == p.Architecture && (node.Variant == "" || level(p) <= level(node))
}

// Lacking returns those of the nodes, as text, that run none of the platforms of an index.
func Lacking(nodes []string, index []Platform) (list []string) {
	for _, text := range nodes {
		n := ParsePlatform(text)
		if !slices.ContainsFunc(index, func(p Platform) bool { return Runs(n, p) }) {
			list = append(list, text)
		}
	}
	return list
}
