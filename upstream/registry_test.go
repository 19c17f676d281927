package upstream_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// image serves a manifest under the tag "1" and one blob, to requests with the token "t0k".
func image(blob []byte, self func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			_, _ = io.WriteString(w, `{"token":"t0k","expires_in":300}`)
			return
		}
		if r.Header.Get("Authorization") != "Bearer t0k" {
			scope := "repository:" + strings.TrimPrefix(r.URL.Path[:strings.LastIndex(r.URL.Path[:strings.LastIndex(r.URL.Path,
				"/")], "/")], "/v2/") + ":pull"
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+self()+`/token",service="reg",scope="`+scope+`"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
			w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
			_, _ = w.Write(manifest)
		case strings.HasSuffix(r.URL.Path, string(digestOf(blob))):
			http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(blob)))
		default:
			http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}`, http.StatusNotFound)
		}
	}
}

func TestColdPullCosts(t *testing.T) {
	t.Parallel()
	blob := []byte(strings.Repeat("layer", 1000))
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) { image(blob, func() string { return s.URL })(w, r) })
	r := registry(t, s.URL)

	desc, err := r.Resolve(t.Context(), "library/app", "1")
	if err != nil {
		t.Fatal(err)
	}
	want := oci.Descriptor{Digest: digestOf(manifest), Size: int64(len(manifest)), MediaType: oci.MediaTypeOCIManifest}
	if diff := cmp.Diff(want, desc); diff != "" {
		t.Errorf("descriptor (-want +got)\n%s", diff)
	}
	m, err := r.Manifest(t.Context(), "library/app", string(desc.Digest))
	if err != nil || string(m.Bytes) != string(manifest) || m.Digest != digestOf(manifest) {
		t.Fatalf("manifest %v, %v", m, err)
	}
	for range 3 {
		body, err := r.Blob(t.Context(), "library/app", digestOf(blob), flight.Want{To: int64(len(blob))})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(body)
		if err != nil || string(b) != string(blob) || body.Size() != int64(len(blob)) || body.Host() != s.host() {
			t.Errorf("blob of %d bytes, %v, size %d, from %s", len(b), err, body.Size(), body.Host())
		}
		body.Close()
	}
	p, d := "/v2/library/app/", string(digestOf(blob))
	auth := " [Bearer t0k]"
	if diff := cmp.Diff([]string{
		"HEAD " + p + "manifests/1",
		"GET /token?scope=repository%3Alibrary%2Fapp%3Apull&service=reg",
		"HEAD " + p + "manifests/1" + auth,
		"GET " + p + "manifests/" + string(digestOf(manifest)) + auth,
		"GET " + p + "blobs/" + d + auth, "GET " + p + "blobs/" + d + auth, "GET " + p + "blobs/" + d + auth,
	}, s.asked()); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
	// Another repository of the same host: no 401, its own token.
	if _, err := r.Manifest(t.Context(), "other/app", "1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		"GET /token?scope=repository%3Aother%2Fapp%3Apull&service=reg", "GET /v2/other/app/manifests/1" + auth,
	}, s.asked()); diff != "" {
		t.Errorf("requests for another repository (-want +got)\n%s", diff)
	}
}
