package server

import (
	"slices"
	"strings"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

// probingTools begin the User-Agents of tools that look whether content exists, and rely on a 404: signatures, build caches,
// charts, newer tags. Runtimes are not among them.
var probingTools = []string{
	"cosign", "notation", "oras", "ratify", "kyverno", "connaisseur", "policy-controller", "sigstore", "gitsign",
	"go-containerregistry", "crane", "ko/", "kaniko", "buildkit", "buildah", "skopeo", "regclient", "regctl", "regsync",
	"helm", "flux", "source-controller", "image-reflector-controller", "renovate", "argocd", "keel", "trivy", "syft", "grype",
}

// forbids404 reports whether a 403 has to stand for a 404, where clients cannot go on to the registry. containerd drops the
// text of a 404 and reports the error of the next host, which does not exist; it prints the text of a 403. A client that
// requests a blob, a list or a signature relies on the status.
func (x *exchange) forbids404() bool {
	agent := strings.ToLower(x.r.UserAgent())
	return x.req.Kind == oci.KindManifest && !catalog.IsArtifactTag(x.req.Tag) &&
		!slices.ContainsFunc(probingTools, func(tool string) bool { return strings.HasPrefix(agent, tool) })
}
