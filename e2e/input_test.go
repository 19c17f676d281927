package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestBadInput sends the real binary what is wrong, from clients and from the upstream. Each answer names the thing and a
// way out, in all places where clients look; nothing of it is in the cache afterwards; and what is right is still served.
func TestBadInput(t *testing.T) {
	t.Parallel()
	const repo = "library/app"
	up := origin.Start(t, origin.Options{})
	good := up.AddImage(repo, "v1", origin.Image{})
	layer := good.Layers[0][0]

	page := up.AddImage(repo, "page", origin.Image{Seed: 1})
	up.Script(origin.Rule{Kind: origin.KindManifest, Match: func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/page") || strings.HasSuffix(r.URL.Path, page.Root.Digest.String())
	}, Do: origin.Fault{
		Status: http.StatusOK, Body: origin.HTMLBody("Sign in to the guest network"), Header: http.Header{"Content-Type": {"text/html"}},
	}})
	huge := up.AddManifest(repo, "huge", "application/vnd.oci.image.index.v1+json",
		[]byte(`{"schemaVersion":2,"manifests":[],"annotations":{"a":"`+strings.Repeat("x", 4<<20)+`"}}`))
	both := up.AddManifest(repo, "both", "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil,
		`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%[1]q,"size":1},`+
			`"layers":[],"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%[1]q,"size":1}]}`, layer.Digest))
	forged := up.AddManifestAs(repo, "forged", "application/vnd.oci.image.index.v1+json",
		digest.FromString("what was asked for"), []byte(`{"schemaVersion":2,"manifests":[]}`))
	wrong := up.AddImage(repo, "wrong", origin.Image{Seed: 2, Layers: []int64{1 << 20}}).Layers[0][0]
	up.Script(origin.Rule{Kind: origin.KindBlob, Ref: wrong.Digest.String(), Do: origin.Fault{Wrong: true}})

	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}"})
	base := "/v2/docker.io/" + repo
	long := strings.Repeat("a", 300)
	none := digest.FromString("nothing").String()
	t.Run("answers", func(t *testing.T) {
		for _, tt := range []struct {
			name, method, path, rang string
			status                   int
			code                     string
			says                     []string // the thing and the way out
		}{
			{
				name: "unknown ns", path: "/v2/acme/app/manifests/v1?ns=registry.acme.example", status: 404, code: "NAME_UNKNOWN",
				says: []string{"registry.acme.example", "upstreams"},
			},
			{name: "ns that is not a host", path: "/v2/acme/app/manifests/v1?ns=a/b", status: 400, code: "NAME_INVALID", says: []string{"a/b"}},
			{name: "upper case", path: "/v2/docker.io/Library/app/manifests/v1", status: 400, code: "NAME_INVALID", says: []string{"Library/app"}},
			{name: "long name", path: "/v2/docker.io/" + long + "/manifests/v1", status: 400, code: "NAME_INVALID", says: []string{"255"}},
			{name: "dots", path: "/v2/docker.io/library/../app/manifests/v1", status: 400, code: "NAME_INVALID", says: []string{".."}},
			{name: "escaped", path: "/v2/docker.io/library%2Fapp/manifests/v1", status: 400, code: "NAME_INVALID", says: []string{"%"}},
			{name: "escaped dots", path: "/v2/docker.io/%2e%2e/app/manifests/v1", status: 400, code: "NAME_INVALID", says: []string{".."}},
			{name: "tag", path: base + "/manifests/-v1", status: 400, code: "TAG_INVALID", says: []string{"-v1", "correct the tag"}},
			{name: "digest", path: base + "/blobs/sha256:abc", status: 400, code: "DIGEST_INVALID", says: []string{"sha256:abc"}},
			{name: "algorithm", path: base + "/blobs/md5:" + strings.Repeat("0", 32), status: 400, code: "DIGEST_INVALID", says: []string{"md5"}},
			{
				name: "range behind the end", path: base + "/blobs/" + layer.Digest.String(), rang: "bytes=999999999-", status: 416,
				code: "RANGE_INVALID", says: []string{fmt.Sprint(layer.Size)},
			},
			{name: "push", method: "PUT", path: base + "/manifests/v1", status: 405, code: "UNSUPPORTED", says: []string{"push"}},
			{name: "upload", method: "POST", path: base + "/blobs/uploads/", status: 405, code: "UNSUPPORTED", says: []string{"push"}},
			{name: "delete", method: "DELETE", path: base + "/manifests/v1", status: 405, code: "UNSUPPORTED", says: []string{"mirror"}},
			{name: "no such tag", path: base + "/manifests/nope", status: 404, code: "MANIFEST_UNKNOWN", says: []string{"nope", "docker.io", "check"}},
			{name: "no such blob", path: base + "/blobs/" + none, status: 404, code: "BLOB_UNKNOWN", says: []string{none[:19]}},
			{name: "a page", path: base + "/manifests/page", status: 502, code: "UNAVAILABLE", says: []string{"web page", up.Host()}},
			{name: "a huge manifest", path: base + "/manifests/huge", status: 502, code: "UNAVAILABLE", says: []string{"4 MiB", repo}},
			{name: "an ambiguous manifest", path: base + "/manifests/both", status: 502, code: "UNAVAILABLE", says: []string{"both", repo}},
			{name: "a forged manifest", path: base + "/manifests/" + forged.Digest.String(), status: 502, code: "UNAVAILABLE", says: []string{"corrupt data"}},
			{name: "a wrong blob", path: base + "/blobs/" + wrong.Digest.String(), status: 502, code: "UNAVAILABLE", says: []string{"corrupt data"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				method := tt.method
				if method == "" {
					method = http.MethodGet
				}
				req, err := http.NewRequestWithContext(t.Context(), method, m.URL()+tt.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if tt.rang != "" {
					req.Header.Set("Range", tt.rang)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				var doc struct {
					Errors []struct{ Code, Message, Detail string }
				}
				if err := json.Unmarshal(body, &doc); err != nil || len(doc.Errors) != 1 {
					t.Fatalf("%s %q: %v", resp.Status, body, err)
				}
				e := doc.Errors[0]
				if resp.StatusCode != tt.status || e.Code != tt.code {
					t.Errorf("%s %s, want %d %s: %s", resp.Status, e.Code, tt.status, tt.code, e.Message)
				}
				for _, want := range tt.says {
					if !strings.Contains(e.Message, want) {
						t.Errorf("it does not say %q: %s", want, e.Message)
					}
				}
				if !strings.Contains(e.Message, "; ") || len(e.Message) > 300 {
					t.Errorf("no way out, or too long: %s", e.Message)
				}
				if _, id, ok := strings.Cut(resp.Header.Get("Mirror-Reason"), "; id="); !ok || !strings.Contains(e.Detail, id) {
					t.Errorf("Mirror-Reason %q, detail %q", resp.Header.Get("Mirror-Reason"), e.Detail)
				} else if tt.status != 404 && (!strings.Contains(resp.Status, "(mirror: ") || !strings.Contains(resp.Status, id)) {
					t.Errorf("the status line does not say it: %s", resp.Status)
				}
				t.Logf("%s %s: %s", resp.Status, e.Code, e.Message)
			})
		}
	})
	for _, d := range []digest.Digest{page.Root.Digest, huge.Digest, both.Digest, forged.Digest, wrong.Digest} {
		file := filepath.Join(m.Data, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s is kept: %v", d, err)
		}
	}
	wait.For(t, time.Minute, "the spool to be empty", func() error {
		if left := filesBelow(t, filepath.Join(m.Data, "spool")); len(left) > 0 {
			return fmt.Errorf("it has %v", left)
		}
		return nil
	})
	code, body := mirrord.Get(t, m.URL()+base+"/blobs/"+layer.Digest.String())
	if code != http.StatusOK || digest.FromString(body) != layer.Digest {
		t.Errorf("the right blob: %d, %d bytes", code, len(body))
	}
}
