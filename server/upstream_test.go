package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

// headers makes a header of pairs.
func headers(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// Whatever an upstream answers to a first pull, the client gets the right bytes or one of the answers of the table: the same
// by HEAD as by GET, presentable in each of its three places, and without headers of the upstream.
func TestBadUpstreams(t *testing.T) {
	t.Parallel()
	const (
		fine        = "200 "
		page        = "502 not-a-registry"
		mismatch    = "502 digest-mismatch"
		broken      = "502 connection-reset"
		failing     = "502 upstream-error"
		blocked     = "403 upstream-blocked"
		private     = "403 not-found-or-no-access"
		limited     = "503 rate-limited"
		redirect    = "502 redirect-not-allowed"
		noTag       = "404 tag-not-found"
		noDigest    = "404 digest-not-found"
		noRepo      = "404 repository-not-found"
		unsupported = "502 unsupported-image"
		tooLarge    = "502 manifest-too-large"
	)
	evil := "no\r\nX-Evil: 1\x00 \u2028\u00e9 <b> \"quoted\" " + strings.Repeat("word ", 200)
	type want struct{ tag, digest, blob, tags string }
	same := func(s string) want { return want{s, s, s, s} }
	for _, c := range []struct {
		name  string
		fault origin.Fault
		want  want
		late  bool // the mistake is in the body
	}{
		{
			name:  "page",
			fault: origin.Fault{Status: 200, Body: origin.HTMLBody("Log in " + evil)},
			want:  same(page),
		},
		{
			name:  "page with 404",
			fault: origin.Fault{Status: 404, Body: origin.HTMLBody("404")},
			want:  want{noTag, noDigest, noDigest, noRepo},
		},
		{
			name:  "page with 401",
			fault: origin.Fault{Status: 401, Body: origin.HTMLBody("Log in " + evil)},
			want:  same(blocked),
		},
		{
			name:  "page with 403",
			fault: origin.Fault{Status: 403, Body: origin.HTMLBody("Blocked " + evil)},
			want:  same(blocked),
		},
		{
			name:  "page with 502",
			fault: origin.Fault{Status: 502, Body: origin.HTMLBody("nginx " + evil)},
			want:  same(failing),
		},
		{
			name:  "denied",
			fault: origin.Fault{Status: 403, Body: origin.ErrorBody("DENIED", evil)},
			want:  same(private),
		},
		{
			name:  "unauthorized without a challenge",
			fault: origin.Fault{Status: 401, Body: origin.ErrorBody("UNAUTHORIZED", evil)},
			want:  same(private),
		},
		{
			name:  "challenge without a realm",
			fault: origin.Fault{Status: 401, Header: headers("WWW-Authenticate", `Bearer service="x"`)},
			want:  same(private),
		},
		{
			name:  "challenge of a scheme unheard of",
			fault: origin.Fault{Status: 401, Header: headers("WWW-Authenticate", `Hobo realm="x"`)},
			want:  same(private),
		},
		{
			name: "realm elsewhere",
			fault: origin.Fault{
				Status: 401,
				Header: headers("WWW-Authenticate", `Bearer realm="https://evil.example/`+"\u00e9"+`"`),
			},
			want: same("502 auth-host-not-allowed"),
		},
		{
			name:  "missing",
			fault: origin.Fault{Status: 404, Body: origin.ErrorBody("MANIFEST_UNKNOWN", evil)},
			want:  want{noTag, noDigest, noDigest, noRepo},
		},
		{
			name:  "gone",
			fault: origin.Fault{Status: 410, Body: origin.ErrorBody("TAG_EXPIRED", evil)},
			want:  want{noTag, noDigest, noDigest, noRepo},
		},
		{
			name:  "limited",
			fault: origin.Fault{Status: 429, Header: headers("Retry-After", "77")},
			want:  same(limited),
		},
		{
			name:  "limited for ages",
			fault: origin.Fault{Status: 429, Header: headers("Retry-After", "99999999999999999999")},
			want:  same(limited),
		},
		{
			name:  "limited until nonsense",
			fault: origin.Fault{Status: 429, Header: headers("Retry-After", "soon")},
			want:  same(limited),
		},
		{
			name:  "legal",
			fault: origin.Fault{Status: 451, Body: origin.ErrorBody("DENIED", evil)},
			want:  same(blocked),
		},
		{name: "policy", fault: origin.Fault{Status: 412, Body: origin.MessageBody(evil)}, want: same(blocked)},
		{
			name: "down",
			fault: origin.Fault{
				Status: 503, Body: origin.ErrorBody("UNAVAILABLE", evil),
				Header: headers("Retry-After", "7"),
			},
			want: same(failing),
		},
		{name: "teapot", fault: origin.Fault{Status: 418, Body: evil}, want: same(blocked)},
		{name: "status of its own", fault: origin.Fault{Status: 799, Body: evil}, want: same(failing)},
		{name: "nothing", fault: origin.Fault{Status: 204}, want: same(page)},
		{name: "accepted", fault: origin.Fault{Status: 202, Body: "soon"}, want: same(page)},
		{name: "not modified", fault: origin.Fault{Status: 304}, want: same(failing)},
		{name: "choice", fault: origin.Fault{Status: 300, Body: "a or b"}, want: same(failing)},
		{
			name:  "redirect in a circle",
			fault: origin.Fault{Status: 302, Header: headers("Location", "?x=1")},
			want:  same(redirect),
		},
		{name: "redirect nowhere", fault: origin.Fault{Status: 302}, want: same(redirect)},
		{
			name:  "redirect to another protocol",
			fault: origin.Fault{Status: 302, Header: headers("Location", "file:///etc/passwd")},
			want:  same(redirect),
		},
		{
			name:  "redirect to metadata",
			fault: origin.Fault{Status: 302, Header: headers("Location", "http://169.254.169.254/latest")},
			want:  same(redirect),
		},
		{
			name: "redirect to metadata in IPv6",
			fault: origin.Fault{
				Status: 302,
				Header: headers("Location", "http://[::ffff:169.254.169.254]/latest"),
			},
			want: same(redirect),
		},
		{
			name:  "redirect with a line end",
			fault: origin.Fault{Status: 302, Header: headers("Location", "http://a b/%0d%0aX-Evil:1")},
			want:  same(redirect),
		},
		{name: "packed", fault: origin.Fault{Gzip: true}, want: same(failing)},
		{name: "chunked", fault: origin.Fault{Length: origin.LengthChunked}, want: same(fine)},
		{name: "until it closes", fault: origin.Fault{Length: origin.LengthNone}, want: same(fine)},
		{name: "more than it said", fault: origin.Fault{Extra: "more"}, want: same(fine)},
		{
			name:  "less than it said",
			fault: origin.Fault{Cut: &origin.Cut{At: 7, How: origin.CutHonest}},
			want:  want{mismatch, mismatch, mismatch, page}, late: true,
		},
		{
			name:  "cut",
			fault: origin.Fault{Cut: &origin.Cut{At: 7}},
			want:  want{broken, broken, "", broken}, late: true,
		},
		{name: "dropped", fault: origin.Fault{Drop: true}, want: same(broken)},
		{name: "reset", fault: origin.Fault{Drop: true, Reset: true}, want: same(broken)},
		{
			name:  "other bytes",
			fault: origin.Fault{Wrong: true},
			want:  want{mismatch, mismatch, mismatch, page}, late: true,
		},
		{
			name:  "type of text",
			fault: origin.Fault{Header: headers("Content-Type", "text/plain")},
			want:  same(fine),
		},
		{name: "no type", fault: origin.Fault{Header: http.Header{"Content-Type": nil}}, want: same(fine)},
		{
			name:  "evil type",
			fault: origin.Fault{Header: headers("Content-Type", "a/b; \u00e9=\"")},
			want:  same(fine),
		},
		{
			name:  "no digest",
			fault: origin.Fault{Header: http.Header{"Docker-Content-Digest": nil}},
			want:  same(fine),
		},
		{
			name:  "digest that is none",
			fault: origin.Fault{Header: headers("Docker-Content-Digest", "sha256:xyz")},
			want:  same(fine),
		},
		{
			name: "no JSON",
			fault: origin.Fault{
				Status: 200, Body: "schemaVersion: 2",
				Header: headers("Content-Type", "application/json"),
			},
			want: want{page, mismatch, "", page},
		},
		{
			name: "ambiguous",
			fault: origin.Fault{
				Status: 200, Body: `{"manifests":[],"layers":[]}`,
				Header: headers("Content-Type", "application/json"),
			},
			want: want{unsupported, mismatch, "", page},
		},
		{
			name: "5 MiB",
			fault: origin.Fault{
				Status: 200, Body: `{"a":"` + strings.Repeat("x", 5<<20) + `"}`,
				Header: headers("Content-Type", "application/json"),
			},
			want: want{tooLarge, tooLarge, "", page},
		},
		{
			name: "5 MiB in chunks",
			fault: origin.Fault{
				Status: 200, Body: `{"a":"` + strings.Repeat("x", 5<<20) + `"}`, Length: origin.LengthChunked,
				Header: headers("Content-Type", "application/json"),
			},
			want: want{tooLarge, tooLarge, "", page},
		},
	} {
		for _, first := range []string{"HEAD", "GET"} {
			t.Run(c.name+"/"+first, func(t *testing.T) {
				t.Parallel()
				w := newWire(t, wired{})
				im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{100_000}})
				other := w.hub.AddImage("library/app", "2", origin.Image{Seed: 2})
				w.hub.Script(origin.Rule{Role: origin.RoleRegistry, Do: c.fault})
				layer := im.Layers[0][0].Digest
				for _, q := range []struct {
					what, path, want string
					bytes            []byte
				}{
					{"tag", "/v2/app/manifests/1", c.want.tag, im.Bytes(im.Root.Digest)},
					{"digest", "/v2/app/manifests/" + other.Root.Digest.String(), c.want.digest, other.Bytes(other.Root.Digest)},
					{"tags", "/v2/app/tags/list", c.want.tags, nil},
					{"blob", "/v2/app/blobs/" + layer.String(), c.want.blob, im.Bytes(layer)},
				} {
					if q.want == "" {
						continue
					}
					order := []string{first, map[string]string{"HEAD": "GET", "GET": "HEAD"}[first]}
					got := make(map[string]string)
					for _, method := range order {
						res, body := w.do(t, method, q.path)
						got[method] = fmt.Sprintf("%d %s", res.StatusCode, strings.Split(res.Header.Get("Mirror-Reason"), ";")[0])
						if res.Header.Get("X-Evil") != "" || res.Header.Get("WWW-Authenticate") != "" ||
							res.Header.Get("Content-Encoding") != "" || res.Header.Get("Location") != "" {
							t.Errorf("%s %s: %v", method, q.path, res.Header)
						}
						switch {
						case res.StatusCode == 200:
							if method == "GET" && q.bytes != nil && string(body) != string(q.bytes) {
								t.Errorf("GET %s: %d bytes that are others", q.path, len(body))
							}
							if n := len(q.bytes); n > 0 && !c.late && res.ContentLength != int64(n) {
								t.Errorf("%s %s: Content-Length %d of %d", method, q.path, res.ContentLength, n)
							}
						case method == "GET":
							var head strings.Builder
							_ = res.Header.Write(&head)
							line := "HTTP/1.1 " + res.Status + "\r\n"
							if res.Close {
								line += "Connection: close\r\n"
							}
							checkAnswer(t, line+head.String(), string(body), res.StatusCode)
						}
					}
					// The header of such an answer is fine, and a first HEAD asks for no more. And a blob with wrong bytes may be
					// right the second time.
					fineYet := c.late && got["HEAD"] == fine && (q.what == "blob" || q.what == "tag" && first == "HEAD")
					if got["GET"] != q.want || got["HEAD"] != q.want && !fineYet {
						t.Errorf("%s: %v, want %s", q.path, got, q.want)
					}
				}
			})
		}
	}
}
