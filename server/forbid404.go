package server

import (
	"regexp"
	"strings"

	"github.com/registrymirror/mirror/oci"
)

// signatureTag matches the tags of signatures beside an image: the referrers tag schema, and cosign's with a suffix. Tools
// expect a 404 for most images.
var signatureTag = regexp.MustCompile(`^sha(256-[0-9a-f]{64}|512-[0-9a-f]{64,128})(\.[A-Za-z0-9._-]+)?$`)

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
	if x.req.Kind != oci.KindManifest || signatureTag.MatchString(x.req.Tag) {
		return false
	}
	agent := strings.ToLower(x.r.UserAgent())
	for _, tool := range probingTools {
		if strings.HasPrefix(agent, tool) {
			return false
		}
	}
	return true
}
