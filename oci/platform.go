package oci

import (
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is what an entry of an index is for, or what a node is. Only its OS, architecture and variant count here.
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

// level is a variant as a number, by which those of an architecture follow each other. What is not said is what runtimes
// take it for.
func level(p Platform) float64 {
	if n, err := strconv.ParseFloat(strings.TrimPrefix(p.Variant, "v"), 64); err == nil {
		return n
	}
	return map[string]float64{"arm": 7, "arm64": 8, "amd64": 1}[p.Architecture]
}

// Runs reports whether a node runs what is for a platform, as containerd has it: its own variant and what is below that.
// Where nobody says what variant the node is, any may do.
func Runs(node, p Platform) bool {
	return node.OS == p.OS && node.Architecture == p.Architecture && (node.Variant == "" || level(p) <= level(node))
}

// Lacking are those of the nodes, as text, that run nothing of what there is.
func Lacking(nodes []string, there []Platform) (list []string) {
	for _, text := range nodes {
		n := ParsePlatform(text)
		if !slices.ContainsFunc(there, func(p Platform) bool { return Runs(n, p) }) {
			list = append(list, text)
		}
	}
	return list
}
