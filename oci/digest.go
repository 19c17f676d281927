package oci

import (
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// ParseDigest reads a digest: sha256 with 64 or sha512 with 128 lower-case hexadecimal digits. Anything else is an
// errcode.Error with DIGEST_INVALID.
func ParseDigest(s string) (Digest, error) {
	alg, sum, _ := strings.Cut(s, ":")
	want := 2 * digest.Algorithm(alg).Size()
	if !isVerified(alg) {
		return "", refuse(errcode.ErrorCodeDigestInvalid,
			"digest %s is not one that the mirror can verify; use sha256:<64 hex digits> or sha512:<128 hex digits>",
			quote(s))
	}
	if len(sum) != want {
		return "", refuse(errcode.ErrorCodeDigestInvalid,
			"digest %s has %d characters after %q, it needs %d hex digits; copy the whole digest",
			quote(s), len(sum), alg+":", want)
	}
	for i := range len(sum) {
		if c := sum[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", refuse(errcode.ErrorCodeDigestInvalid,
				"digest %s has %s after %q, it needs lower-case hex digits; copy the digest as the registry shows it",
				quote(s), quote(sum[i:i+1]), alg+":")
		}
	}
	return Digest(s), nil
}

// VerifyDigest reports whether b has the digest d. A digest that ParseDigest refuses never matches.
func VerifyDigest(d Digest, b []byte) bool {
	alg, _, _ := strings.Cut(string(d), ":")
	return isVerified(alg) && digest.Algorithm(alg).FromBytes(b) == d
}

// isVerified reports whether the mirror verifies digests of an algorithm.
func isVerified(alg string) bool { return alg == "sha256" || alg == "sha512" }

// ReferrersTag is the tag under which registries without the referrers API keep the list of referrers of d, by the
// referrers tag schema of the distribution spec: algorithm, dash, and at most 64 characters of the digest.
func ReferrersTag(d Digest) string {
	alg, sum, _ := strings.Cut(string(d), ":")
	return fmt.Sprintf("%.32s-%.64s", alg, sum)
}
