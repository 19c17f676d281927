package journal

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// platform is what an entry of an index is for, or what a node is: OS/ARCH[/VARIANT].
type platform struct{ system, architecture, variant string }

func platformOf(p *v1.Platform) platform { return platform{p.OS, p.Architecture, p.Variant} }

func parsePlatform(text string) platform {
	parts := append(strings.SplitN(text, "/", 3), "", "")
	return platform{parts[0], parts[1], parts[2]}
}

func (p platform) String() string {
	return strings.TrimSuffix(p.system+"/"+p.architecture+"/"+p.variant, "/")
}

// level is a variant as a number, by which those of an architecture follow each other. What is not said is what runtimes
// take it for.
func (p platform) level() float64 {
	if n, err := strconv.ParseFloat(strings.TrimPrefix(p.variant, "v"), 64); err == nil {
		return n
	}
	return map[string]float64{"arm": 7, "arm64": 8, "amd64": 1}[p.architecture]
}

// runs reports whether a node that is p runs what is for another platform, as containerd has it: its own variant and what
// is below that. Where nobody says what variant the node is, any may do.
func (p platform) runs(other platform) bool {
	return p.system == other.system && p.architecture == other.architecture && (p.variant == "" || other.level() <= p.level())
}

// lacking are those of the nodes that run nothing of what there is.
func lacking(nodes, there []platform) (list []platform) {
	for _, n := range nodes {
		if !slices.ContainsFunc(there, n.runs) {
			list = append(list, n)
		}
	}
	return list
}

func texts(list []platform) []string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = p.String()
	}
	return s
}

// and puts a list into a sentence.
func and(list []string) string {
	if n := len(list); n > 1 {
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
	return strings.Join(list, "")
}
