package server

import (
	"regexp"
	"strings"

	"github.com/registrymirror/mirror/oci"
)

// signatureTag is a tag that tools look for beside an image: the referrers tag schema, and cosign's with a suffix. Most
// images have none, and a 404 says so.
var signatureTag = regexp.MustCompile(`^sha(256-[0-9a-f]{64}|512-[0-9a-f]{64,128})(\.[A-Za-z0-9._-]+)?$`)

// lookers begin the User-Agents of tools that look whether something is there, and go by a 404: for signatures, build
// caches, charts, newer tags. Runtimes are none of them.
var lookers = []string{
	"cosign", "notation", "oras", "ratify", "kyverno", "connaisseur", "policy-controller", "sigstore", "gitsign",
	"go-containerregistry", "crane", "ko/", "kaniko", "buildkit", "buildah", "skopeo", "regclient", "regctl", "regsync",
	"helm", "flux", "source-controller", "image-reflector-controller", "renovate", "argocd", "keel", "trivy", "syft", "grype",
}

// mustTell reports whether a 404 is to be a 403, where clients have nowhere else to go. containerd drops the text of a 404,
// and then reports the next host, which does not exist: a name that does not resolve. It prints the text of a 403. A client
// that asks for a blob, a list or a signature goes by the status.
func (x *exchange) mustTell() bool {
	if x.req.Kind != oci.KindManifest || signatureTag.MatchString(x.req.Tag) {
		return false
	}
	agent := strings.ToLower(x.r.UserAgent())
	for _, tool := range lookers {
		if strings.HasPrefix(agent, tool) {
			return false
		}
	}
	return true
}
