package oci

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// Digests of no bytes: the only ones that a size of zero fits.
const (
	emptySHA256 Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	emptySHA512 Digest = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" +
		"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

// ParseDigest reads a digest: sha256 with 64 or sha512 with 128 lower-case hexadecimal digits. Anything else is an
// errcode.Error with DIGEST_INVALID.
func ParseDigest(s string) (Digest, error) {
	alg, sum, _ := strings.Cut(s, ":")
	var want int
	switch alg {
	case "sha256":
		want = sha256.Size * 2
	case "sha512":
		want = sha512.Size * 2
	default:
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
	alg, sum, _ := strings.Cut(string(d), ":")
	switch alg {
	case "sha256":
		got := sha256.Sum256(b)
		return sum == hex.EncodeToString(got[:])
	case "sha512":
		got := sha512.Sum512(b)
		return sum == hex.EncodeToString(got[:])
	}
	return false
}

// ReferrersTag is the tag under which registries without the referrers API keep the list of referrers of d, by the
// referrers tag schema of the distribution spec: algorithm, dash, and at most 64 characters of the digest.
func ReferrersTag(d Digest) string {
	alg, sum, _ := strings.Cut(string(d), ":")
	return fmt.Sprintf("%.32s-%.64s", alg, sum)
}

func sumSHA256(b []byte) Digest {
	sum := sha256.Sum256(b)
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}
