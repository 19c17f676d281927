package oci_test

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/oci"
)

const (
	hex64  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sum256 = "sha256:" + hex64
	sum512 = "sha512:" + hex64 + hex64
)

func TestParseRequest(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 255)
	tests := []struct {
		name string
		uri  string
		want oci.Request
	}{
		{"ping", "/v2/", oci.Request{Kind: oci.KindPing}},
		{"ping without a slash", "/v2", oci.Request{Kind: oci.KindPing}},
		{"ping with ns", "/v2/?ns=ghcr.io", oci.Request{Kind: oci.KindPing, Namespace: "ghcr.io"}},
		{"tag", "/v2/library/nginx/manifests/1.27", oci.Request{Kind: oci.KindManifest, Name: "library/nginx", Tag: "1.27"}},
		{"one component", "/v2/nginx/manifests/_A-b.C", oci.Request{Kind: oci.KindManifest, Name: "nginx", Tag: "_A-b.C"}},
		{
			"longest tag", "/v2/a/manifests/" + long[:128],
			oci.Request{Kind: oci.KindManifest, Name: "a", Tag: long[:128]},
		},
		{"longest name", "/v2/" + long + "/manifests/v1", oci.Request{Kind: oci.KindManifest, Name: long, Tag: "v1"}},
		{
			"manifest by sha256", "/v2/a/b/manifests/" + sum256,
			oci.Request{Kind: oci.KindManifest, Name: "a/b", Digest: sum256},
		},
		{"manifest by sha512", "/v2/a/manifests/" + sum512, oci.Request{Kind: oci.KindManifest, Name: "a", Digest: sum512}},
		{"blob", "/v2/a/blobs/" + sum256, oci.Request{Kind: oci.KindBlob, Name: "a", Digest: sum256}},
		{"tags", "/v2/a/tags/list", oci.Request{Kind: oci.KindTags, Name: "a"}},
		{"tags, a page", "/v2/a/tags/list?n=5&last=v1&next_page=x%3D&ns=quay.io", oci.Request{
			Kind: oci.KindTags, Name: "a", Namespace: "quay.io",
			Query: url.Values{"n": {"5"}, "last": {"v1"}, "next_page": {"x="}},
		}},
		{"referrers", "/v2/a/referrers/" + sum256 + "?artifactType=a%2Fb&artifactType=c", oci.Request{
			Kind: oci.KindReferrers, Name: "a", Digest: sum256, Query: url.Values{"artifactType": {"a/b", "c"}},
		}},
		{"query of a blob is not kept", "/v2/a/blobs/" + sum256 + "?x=y", oci.Request{
			Kind: oci.KindBlob, Name: "a", Digest: sum256,
		}},
		{"ns with a port, as containerd escapes it", "/v2/a/manifests/v1?ns=localhost%3A5001", oci.Request{
			Kind: oci.KindManifest, Name: "a", Tag: "v1", Namespace: "localhost:5001",
		}},
		{"ns with an escaped key", "/v2/a/manifests/v1?%6Es=ghcr.io", oci.Request{
			Kind: oci.KindManifest, Name: "a", Tag: "v1", Namespace: "ghcr.io",
		}},
		{"ns and a host first", "/v2/ghcr.io/x/manifests/v1?ns=docker.io", oci.Request{
			Kind: oci.KindManifest, Name: "ghcr.io/x", Tag: "v1", Namespace: "docker.io",
		}},
		{"host first", "/v2/ghcr.io/acme/app/manifests/v1", oci.Request{
			Kind: oci.KindManifest, Name: "ghcr.io/acme/app", Tag: "v1",
		}},
		{"escaped colon of a digest", "/v2/a/manifests/sha256%3A" + sum256[7:], oci.Request{
			Kind: oci.KindManifest, Name: "a", Digest: sum256,
		}},
		{"the same in lower case, of a blob", "/v2/a/b/blobs/sha256%3a" + sum256[7:], oci.Request{
			Kind: oci.KindBlob, Name: "a/b", Digest: sum256,
		}},
		{"escaped colon of a subject", "/v2/a/referrers/sha256%3A" + sum256[7:] + "?ns=ghcr.io", oci.Request{
			Kind: oci.KindReferrers, Name: "a", Digest: sum256, Namespace: "ghcr.io",
		}},
		{"escapes that mean themselves", "/%76%32/%61%2Db/m%61nifests/1%2E27%5Fx", oci.Request{
			Kind: oci.KindManifest, Name: "a-b", Tag: "1.27_x",
		}},
		{"escaped port", "/v2/registry.corp%3A5000/app/tags/list", oci.Request{
			Kind: oci.KindTags, Name: "registry.corp:5000/app",
		}},
		{"host with a port first, and ns", "/v2/reg:5000/a/manifests/v1?ns=reg%3A5000", oci.Request{
			Kind: oci.KindManifest, Name: "reg:5000/a", Tag: "v1", Namespace: "reg:5000",
		}},
		{"host with a port first", "/v2/registry.corp:5000/app/manifests/v1", oci.Request{
			Kind: oci.KindManifest, Name: "registry.corp:5000/app", Tag: "v1",
		}},
		{"short host with a port first", "/v2/reg:5000/app/tags/list", oci.Request{
			Kind: oci.KindTags, Name: "reg:5000/app",
		}},
		{"host with capitals first", "/v2/GHCR.IO/acme/app/manifests/v1", oci.Request{
			Kind: oci.KindManifest, Name: "GHCR.IO/acme/app", Tag: "v1",
		}},
		{"IPv6 address first", "/v2/[::1]:5000/app/manifests/v1", oci.Request{
			Kind: oci.KindManifest, Name: "[::1]:5000/app", Tag: "v1",
		}},
		{"separators", "/v2/a.b/a_b/a__b/a---b/manifests/v1", oci.Request{
			Kind: oci.KindManifest, Name: "a.b/a_b/a__b/a---b", Tag: "v1",
		}},
		{"repository a/blobs", "/v2/a/blobs/manifests/v1", oci.Request{Kind: oci.KindManifest, Name: "a/blobs", Tag: "v1"}},
		{"repository a/manifests", "/v2/a/manifests/tags/list", oci.Request{Kind: oci.KindTags, Name: "a/manifests"}},
		{"repository manifests", "/v2/manifests/manifests/manifests", oci.Request{
			Kind: oci.KindManifest, Name: "manifests", Tag: "manifests",
		}},
		{"repository a/tags, tag list", "/v2/a/tags/manifests/list", oci.Request{
			Kind: oci.KindManifest, Name: "a/tags", Tag: "list",
		}},
		{"repository a/tags/list", "/v2/a/tags/list/blobs/" + sum256, oci.Request{
			Kind: oci.KindBlob, Name: "a/tags/list", Digest: sum256,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				got, err := oci.ParseRequest(method, parseURI(t, tt.uri))
				if err != nil {
					t.Fatalf("%s %s: %v", method, tt.uri, err)
				}
				want := tt.want
				want.Head = method == http.MethodHead
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s %s (-want +got):\n%s", method, tt.uri, diff)
				}
			}
		})
	}
}

func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		method string
		uri    string
		code   errcode.ErrorCode
		says   string // a part of the message that names the thing or the way out
	}{
		{"push", "PUT", "/v2/a/manifests/v1", errcode.ErrorCodeUnsupported, "read-only; push to the registry itself"},
		{"upload", "POST", "/v2/a/blobs/uploads/", errcode.ErrorCodeUnsupported, `"POST"`},
		{"delete", "DELETE", "/v2/a/manifests/v1", errcode.ErrorCodeUnsupported, `"DELETE"`},
		{"method of no name", "", "/v2/", errcode.ErrorCodeUnsupported, "read-only"},
		{"catalog", "GET", "/v2/_catalog", errcode.ErrorCodeUnsupported, `"/v2/_catalog"`},
		{"upload status", "GET", "/v2/a/blobs/uploads/123", errcode.ErrorCodeUnsupported, "blobs/uploads/123"},
		{"unknown word", "GET", "/v2/a/layers/x", errcode.ErrorCodeUnsupported, "/v2/a/layers/x"},
		{"tags of another word", "GET", "/v2/a/tags/all", errcode.ErrorCodeUnsupported, "/v2/a/tags/all"},
		{"outside", "GET", "/v1/a/manifests/v1", errcode.ErrorCodeUnsupported, "/v1/a/"},
		{"like v2", "GET", "/v22/", errcode.ErrorCodeUnsupported, "/v22/"},
		{"escaped slash", "GET", "/v2/a%2Fb/manifests/v1", errcode.ErrorCodeNameInvalid, "a%2Fb"},
		{"escaped dots", "GET", "/v2/%2e%2e/a/manifests/v1", errcode.ErrorCodeNameInvalid, `".."`},
		{"one escaped dot", "GET", "/v2/%2E/a/manifests/v1", errcode.ErrorCodeNameInvalid, `"."`},
		{"escaped dots as a tag", "GET", "/v2/a/manifests/%2e%2e", errcode.ErrorCodeTagInvalid, `".."`},
		{"half escaped dots", "GET", "/v2/a/.%2e/manifests/v1", errcode.ErrorCodeNameInvalid, `".."`},
		{"quote that needs an escape", "GET", `/v2/a"b/manifests/v1`, errcode.ErrorCodeNameInvalid, `escape "%22"`},
		{"escaped slash", "GET", "/v2/a%2Fb/manifests/v1", errcode.ErrorCodeNameInvalid, `escape "%2F"`},
		{"escaped slash before a digest", "GET", "/v2/a/manifests%2fsha256%3A" + strings.Repeat("0", 64), errcode.ErrorCodeNameInvalid, `escape "%2f"`},
		{"escaped backslash", "GET", "/v2/a%5Cb/manifests/v1", errcode.ErrorCodeNameInvalid, `escape "%5C"`},
		{"second escape", "GET", "/v2/a/manifests/sha256%253A" + strings.Repeat("0", 64), errcode.ErrorCodeNameInvalid, `escape "%25"`},
		{"escaped NUL", "GET", "/v2/a/manifests/v1%00", errcode.ErrorCodeNameInvalid, `escape "%00"`},
		{"escaped line end", "GET", "/v2/a/manifests/v1%0d%0a", errcode.ErrorCodeNameInvalid, `escape "%0d"`},
		{"escaped space", "GET", "/v2/a/manifests/v1%20", errcode.ErrorCodeNameInvalid, `escape "%20"`},
		{"escaped question mark", "GET", "/v2/a/manifests/v1%3Fns=ghcr.io", errcode.ErrorCodeNameInvalid, `escape "%3F"`},
		{"escaped hash", "GET", "/v2/a/manifests/v1%23x", errcode.ErrorCodeNameInvalid, `escape "%23"`},
		{"escaped letter that no name has", "GET", "/v2/%C3%A9/manifests/v1", errcode.ErrorCodeNameInvalid, `escape "%C3"`},
		{"escaped capital in a name", "GET", "/v2/a/%42/manifests/v1", errcode.ErrorCodeNameInvalid, `"B"`},
		{"escaped colon in a tag", "GET", "/v2/a/manifests/v%3A1", errcode.ErrorCodeDigestInvalid, `"v:1"`},
		{"no name", "GET", "/v2/manifests/v1", errcode.ErrorCodeNameInvalid, "names no repository"},
		{"empty name", "GET", "/v2//manifests/v1", errcode.ErrorCodeNameInvalid, "names no repository"},
		{"double slash", "GET", "/v2/a//b/manifests/v1", errcode.ErrorCodeNameInvalid, "extra slash"},
		{"dots", "GET", "/v2/../a/manifests/v1", errcode.ErrorCodeNameInvalid, `".."`},
		{"dots inside", "GET", "/v2/a/../b/manifests/v1", errcode.ErrorCodeNameInvalid, `".."`},
		{"capitals", "GET", "/v2/Acme/app/manifests/v1", errcode.ErrorCodeNameInvalid, `"Acme"`},
		{"capitals behind a host", "GET", "/v2/ghcr.io/Acme/manifests/v1", errcode.ErrorCodeNameInvalid, `"Acme"`},
		{"port in the middle", "GET", "/v2/a/b:5000/c/manifests/v1", errcode.ErrorCodeNameInvalid, `"b:5000"`},
		{"host with a port alone", "GET", "/v2/reg:5000/manifests/v1", errcode.ErrorCodeNameInvalid, `"reg:5000"`},
		{"port that is none", "GET", "/v2/reg:x/a/manifests/v1", errcode.ErrorCodeNameInvalid, `"reg:x"`},
		{"three underscores", "GET", "/v2/a___b/manifests/v1", errcode.ErrorCodeNameInvalid, `"a___b"`},
		{"separator first", "GET", "/v2/-a/manifests/v1", errcode.ErrorCodeNameInvalid, `"-a"`},
		{"separator last", "GET", "/v2/a./manifests/v1", errcode.ErrorCodeNameInvalid, `"a."`},
		{
			"name too long", "GET", "/v2/" + strings.Repeat("a", 256) + "/manifests/v1", errcode.ErrorCodeNameInvalid,
			"256 bytes",
		},
		{"empty tag", "GET", "/v2/a/manifests/", errcode.ErrorCodeTagInvalid, `tag ""`},
		{"tag with a dot first", "GET", "/v2/a/manifests/.x", errcode.ErrorCodeTagInvalid, `".x"`},
		{"tag with a plus", "GET", "/v2/a/manifests/1+1", errcode.ErrorCodeTagInvalid, `"1+1"`},
		{"tag too long", "GET", "/v2/a/manifests/" + strings.Repeat("a", 129), errcode.ErrorCodeTagInvalid, "128"},
		{"short digest", "GET", "/v2/a/manifests/sha256:abc", errcode.ErrorCodeDigestInvalid, "64"},
		{"long digest", "GET", "/v2/a/blobs/" + sum256 + "0", errcode.ErrorCodeDigestInvalid, "65"},
		{
			"digest with capitals", "GET", "/v2/a/blobs/sha256:" + strings.ToUpper(hex64), errcode.ErrorCodeDigestInvalid,
			"lower-case",
		},
		{"digest of no hex", "GET", "/v2/a/blobs/sha256:" + hex64[:63] + "g", errcode.ErrorCodeDigestInvalid, `"g"`},
		{"other algorithm", "GET", "/v2/a/blobs/sha384:" + hex64, errcode.ErrorCodeDigestInvalid, "sha512"},
		{"algorithm with capitals", "GET", "/v2/a/blobs/SHA256:" + hex64, errcode.ErrorCodeDigestInvalid, "SHA256"},
		{"tag for a blob", "GET", "/v2/a/blobs/latest", errcode.ErrorCodeDigestInvalid, `"latest"`},
		{"tag for referrers", "GET", "/v2/a/referrers/latest", errcode.ErrorCodeDigestInvalid, `"latest"`},
		{"two ns", "GET", "/v2/a/manifests/v1?ns=docker.io&ns=ghcr.io", errcode.ErrorCodeNameInvalid, "two ns"},
		{"two equal ns", "GET", "/v2/a/manifests/v1?ns=docker.io&ns=docker.io", errcode.ErrorCodeNameInvalid, "two ns"},
		{"empty ns", "GET", "/v2/a/manifests/v1?ns=", errcode.ErrorCodeNameInvalid, "empty"},
		{"ns with a path", "GET", "/v2/a/manifests/v1?ns=ghcr.io/acme", errcode.ErrorCodeNameInvalid, "ghcr.io/acme"},
		{"ns with a line end", "GET", "/v2/a/manifests/v1?ns=a%0D%0Ab", errcode.ErrorCodeNameInvalid, `\r\n`},
		{"ns too long", "GET", "/v2/a/manifests/v1?ns=" + strings.Repeat("a", 256), errcode.ErrorCodeNameInvalid, "ns"},
		{"ns on a ping is checked too", "GET", "/v2/?ns=", errcode.ErrorCodeNameInvalid, "empty"},
		{"n of letters", "GET", "/v2/a/tags/list?n=ten", errcode.ErrorCodePaginationNumberInvalid, `"ten"`},
		{"n below zero", "GET", "/v2/a/tags/list?n=-1", errcode.ErrorCodePaginationNumberInvalid, `"-1"`},
		{"two n", "GET", "/v2/a/tags/list?n=1&n=2", errcode.ErrorCodePaginationNumberInvalid, "one number"},
		{"n of referrers", "GET", "/v2/a/referrers/" + sum256 + "?n=x", errcode.ErrorCodePaginationNumberInvalid, `"x"`},
		{"bad escape", "GET", "/v2/a/manifests/v1?x=%zz", errcode.ErrorCodeNameInvalid, "%zz"},
		{"semicolon", "GET", "/v2/a/manifests/v1?ns=a;ns=b", errcode.ErrorCodeNameInvalid, "ns=a;ns=b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := oci.ParseRequest(tt.method, parseURI(t, tt.uri))
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if diff := cmp.Diff(oci.Request{}, got); diff != "" {
				t.Errorf("a request beside the error:\n%s", diff)
			}
			checkRefusal(t, err, tt.code)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("message %q does not say %q", err, tt.says)
			}
		})
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"/v2/a/manifests/v1":            "v1",
		"/v2/a/manifests/" + sum256:     sum256,
		"/v2/a/blobs/" + sum512:         sum512,
		"/v2/a/referrers/" + sum256:     sum256,
		"/v2/a/tags/list":               "",
		"/v2/":                          "",
		"/v2/a/manifests/v1?ns=ghcr.io": "v1",
	} {
		r, err := oci.ParseRequest(http.MethodGet, parseURI(t, uri))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Reference(); got != want {
			t.Errorf("%s: reference %q, want %q", uri, got, want)
		}
	}
}

// checkRefusal checks the promise of each refusal: an errcode.Error with one of the codes, and a message of one
// printable line of at most 300 bytes. No code: any of the four.
func checkRefusal(t *testing.T, err error, codes ...errcode.ErrorCode) {
	t.Helper()
	if len(codes) == 0 {
		codes = []errcode.ErrorCode{
			errcode.ErrorCodeNameInvalid, errcode.ErrorCodeTagInvalid, errcode.ErrorCodeDigestInvalid,
			errcode.ErrorCodeUnsupported,
		}
	}
	e, ok := err.(errcode.Error) //nolint:errorlint // the promise is the value itself
	if !ok {
		t.Fatalf("error is a %T, want an errcode.Error", err)
	}
	found := false
	for _, c := range codes {
		found = found || e.Code == c
	}
	if !found {
		t.Errorf("code %v, want one of %v", e.Code, codes)
	}
	if len(e.Message) == 0 || len(e.Message) > 300 {
		t.Errorf("message has %d bytes: %q", len(e.Message), e.Message)
	}
	for _, c := range []byte(e.Message) {
		if c < 0x20 || c > 0x7e {
			t.Fatalf("message has byte %#x: %q", c, e.Message)
		}
	}
}

func parseURI(t *testing.T, uri string) *url.URL {
	t.Helper()
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// build is the path and query of a request, by the endpoints of the distribution spec.
func build(r oci.Request) string {
	path := "/v2/"
	switch r.Kind {
	case oci.KindManifest:
		path += r.Name + "/manifests/" + r.Reference()
	case oci.KindBlob:
		path += r.Name + "/blobs/" + r.Reference()
	case oci.KindReferrers:
		path += r.Name + "/referrers/" + r.Reference()
	case oci.KindTags:
		path += r.Name + "/tags/list"
	}
	q := make(url.Values)
	maps.Copy(q, r.Query)
	if r.Namespace != "" {
		q.Set("ns", r.Namespace)
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func FuzzParseRequest(f *testing.F) {
	for _, uri := range []string{
		"/v2/", "/v2", "/v2/library/nginx/manifests/1.27?ns=docker.io", "/v2/ghcr.io/acme/app/manifests/" + sum256,
		"/v2/registry.corp:5000/app/blobs/" + sum512, "/v2/a/tags/list?n=5&last=v1&ns=quay.io",
		"/v2/a/referrers/" + sum256 + "?artifactType=a%2Fb", "/v2/a/blobs/manifests/v1", "/v2/tags/tags/list",
		"/v2/a%2f..%2fb/manifests/v1", "/v2/a//b/manifests/v1", "/v2/../../etc/manifests/v1",
		"/v2/[::1]:5000/a/tags/list",
		"/v2/a/manifests/v1?ns=a&ns=b", "/v2/a/manifests/v1?%6es=a;b", "/v2/_catalog", "/v2/a/blobs/uploads/",
		"http://host/v2/a/manifests/v1", "*", "/v2/A.b/c/manifests/x", "/v2/a/manifests/sha256%3A" + sum256[7:],
		"/v2/%2e%2e/a/manifests/v1", "/v2/a/manifests/sha256%253A", "/%76%32/%61/manifests/v%31", "/v2/a%", "/v2/a%2",
	} {
		f.Add("GET", uri)
	}
	f.Add("PUT", "/v2/a/manifests/v1")
	f.Add("HEAD", "/v2/a/manifests/v1")
	f.Fuzz(func(t *testing.T, method, uri string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return // net/http refuses it before us
		}
		r, err := oci.ParseRequest(method, u)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if method != http.MethodGet && method != http.MethodHead || r.Head != (method == http.MethodHead) {
			t.Fatalf("method %q gave %+v", method, r)
		}
		if strings.Contains(r.Name, "..") || strings.Contains(r.Name, "//") || len(r.Name) > 255 {
			t.Fatalf("name %q", r.Name)
		}
		if (r.Name == "") != (r.Kind == oci.KindPing) {
			t.Fatalf("kind %d with name %q", r.Kind, r.Name)
		}
		again, err := oci.ParseRequest(method, parseURI(t, build(r)))
		if err != nil {
			t.Fatalf("%s, built from %q: %v", build(r), uri, err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatalf("%s, built from %q (-first +again):\n%s", build(r), uri, diff)
		}
	})
}

var (
	specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	specTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// FuzzGrammar holds names and tags against the regular expressions of the distribution spec, word for word.
func FuzzGrammar(f *testing.F) {
	for _, s := range []string{
		"a", "library/nginx", "a__b", "a___b", "a..b", "a--b", "a-_b", "a_-b", "a._b", "-a", "a-", "a/", "/a", "A", "_a",
		"a_", "a__", "__a", "1.27", "_", ".", strings.Repeat("a", 129),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "%?#") {
			return
		}
		// With ns the name is a repository and nothing else.
		if u, err := url.ParseRequestURI("/v2/" + s + "/tags/list?ns=docker.io"); err == nil {
			_, err := oci.ParseRequest(http.MethodGet, u)
			if want := specName.MatchString(s) && len(s) <= 255; (err == nil) != want {
				t.Errorf("name %q: %v; the spec's grammar says %v", s, err, want)
			}
		}
		if strings.ContainsAny(s, "/:") {
			return // another path, or a digest
		}
		if u, err := url.ParseRequestURI("/v2/a/manifests/" + s); err == nil {
			_, err := oci.ParseRequest(http.MethodGet, u)
			if want := specTag.MatchString(s); (err == nil) != want {
				t.Errorf("tag %q: %v; the spec's grammar says %v", s, err, want)
			}
		}
	})
}

// A request for a manifest or blob is read without allocating: it is the hottest path there is.
func TestParseRequestAllocates(t *testing.T) { // not parallel: AllocsPerRun counts the whole process
	for _, uri := range []string{
		"/v2/library/nginx/manifests/1.27?ns=docker.io", "/v2/ghcr.io/acme/app/blobs/" + sum256, "/v2/",
	} {
		u := parseURI(t, uri)
		if n := testing.AllocsPerRun(100, func() { _, _ = oci.ParseRequest(http.MethodGet, u) }); n != 0 {
			t.Errorf("%s: %v allocations", uri, n)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	u, err := url.ParseRequestURI("/v2/library/nginx/manifests/" + sum256 + "?ns=docker.io")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := oci.ParseRequest(http.MethodGet, u); err != nil {
			b.Fatal(err)
		}
	}
}
