package disk_test

import (
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/oci"
)

// FuzzPath holds the promise: whatever a client asks for, the file of its content is below the folder of blobs, two levels deep, and has
// the digest as its name. The request is taken whole, and its last part as a digest that no parser has seen.
func FuzzPath(f *testing.F) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, uri := range []string{
		"/v2/a/blobs/" + digest, "/v2/a/manifests/" + digest, "/v2/a/blobs/sha512:" + strings.Repeat("ab", 64), "/v2/a/blobs/sha256:../../x",
		"/v2/a/blobs/sha256%3A" + digest[7:], "/v2/../../etc/passwd", "/v2/a/blobs/" + digest + "/../../x", "/v2/a/blobs/sha256:" + strings.Repeat("AB", 32),
		"/v2/a/blobs/sha256:..%2f..%2f" + strings.Repeat("a", 58), "/v2/a/blobs/sha384:" + strings.Repeat("ab", 48), "/v2/a/blobs/sha256:\x00" + digest[8:],
	} {
		f.Add(uri)
	}
	name := regexp.MustCompile(`^blobs/(sha256/[0-9a-f]{2}/[0-9a-f]{64}|sha512/[0-9a-f]{2}/[0-9a-f]{128})$`)
	check := func(t *testing.T, d oci.Digest) {
		got, err := disk.BlobPath(d)
		if err != nil {
			return
		}
		algorithm, hex, _ := strings.Cut(string(d), ":")
		if !name.MatchString(got) || !filepath.IsLocal(got) || got != path.Join("blobs", algorithm, hex[:2], hex) {
			t.Errorf("%q leads to %q", d, got)
		}
	}
	f.Fuzz(func(t *testing.T, uri string) {
		check(t, oci.Digest(uri[strings.LastIndexByte(uri, '/')+1:]))
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		if r, err := oci.ParseRequest(http.MethodGet, u); err == nil {
			check(t, r.Digest)
		}
	})
}
