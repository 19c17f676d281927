package diagnose

import "github.com/registrymirror/mirror/oci"

// Lacking are those of the nodes, each OS/ARCH or OS/ARCH/VARIANT, that run nothing of what there is, with the words that say
// whose they are.
func Lacking(nodes []string, there []oci.Platform) (list []string, whose string) {
	list = oci.Lacking(nodes, there)
	if len(list) < len(nodes) {
		return list, "which some of your nodes are"
	}
	return list, "which your nodes are"
}
