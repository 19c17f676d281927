package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// UnusedIndex is an index that a runtime got, and from which it requested no manifest.
type UnusedIndex struct {
	Image     string         // as the sentence names it
	Platforms []oci.Platform // in the index
	Client    string         // that got the index
	Platform  string         // OS/ARCH of the client; empty: not known
	Nodes     []string       // platforms of the nodes by the configuration, where the client's is not known
	Waited    time.Duration  // for a request, since the client got the index
}

// Missing returns the platforms that the index lacks, with the finding that says so. It lacks the platform of the client, or
// else those of the nodes that run nothing in it. ok is false where it lacks none.
func (x UnusedIndex) Missing() (lacks []string, f Finding, ok bool) {
	have := x.names()
	evidence := []string{
		"platforms in the index: " + strings.Join(have, ", "),
		fmt.Sprintf("the client got the index and asked for nothing in it within %s", x.Waited),
	}
	whose := fmt.Sprintf("which %s is", x.Client)
	switch {
	case x.Platform == "":
		lacks, whose = Lacking(x.Nodes, x.Platforms)
		evidence = append(evidence, "platforms in the configuration: "+strings.Join(x.Nodes, ", ")+
			"; which of them "+x.Client+" is, is not known")
	case !slices.Contains(have, x.Platform):
		lacks = []string{x.Platform}
	}
	if len(lacks) == 0 {
		return nil, Finding{}, false
	}
	f = New(PlatformMissing,
		fmt.Sprintf("%s has %s, and nothing for %s, %s", x.Image, strings.Join(have, ", "), and(lacks), whose),
		"build the image for "+and(lacks)+", or run it on a node of another platform").Finding
	f.Evidence = evidence
	return lacks, f, true
}

// Lacking returns those of the nodes, each OS/ARCH or OS/ARCH/VARIANT, that run nothing in an index, with the words for whose
// platforms they are.
func Lacking(nodes []string, index []oci.Platform) (list []string, whose string) {
	list = oci.Lacking(nodes, index)
	if len(list) < len(nodes) {
		return list, "which some of your nodes are"
	}
	return list, "which your nodes are"
}

// names are the platforms of the index as OS/ARCH, sorted, each once.
func (x UnusedIndex) names() []string {
	names := make([]string, len(x.Platforms))
	for i, p := range x.Platforms {
		names[i] = p.OS + "/" + p.Architecture
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// and puts a list into a sentence.
func and(list []string) string {
	if n := len(list); n > 1 {
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
	return strings.Join(list, "")
}
