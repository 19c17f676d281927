package upstream_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// A list that was redirected to another host, whose Link is its own: all pages come, and each is asked for at the registry.
func TestPagesAfterARedirect(t *testing.T) {
	t.Parallel()
	pages := map[string]string{"": "a", "last=a": "b", "last=b": "c"}
	var backend *server
	backend = serve(t, func(w http.ResponseWriter, r *http.Request) {
		tag := pages[r.URL.RawQuery]
		if tag != "c" {
			w.Header().Set("Link", fmt.Sprintf(`<%s/internal/tags/list?last=%s>; rel="next"`, backend.URL, tag))
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"name":"library/app","tags":[%q]}`, tag)
	})
	front := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, backend.URL+"/internal/tags/list?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
	})
	r := registry(t, front.URL)
	var tags []string
	query := url.Values{}
	for range len(pages) + 1 {
		doc, err := r.Tags(t.Context(), repo, query)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(doc.Bytes, &list); err != nil {
			t.Fatal(err)
		}
		tags = append(tags, list.Tags...)
		if doc.Next == "" {
			break
		}
		query, _ = url.ParseQuery(doc.Next)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if f, b := len(front.asked()), len(backend.asked()); f != 3 || b != 3 {
		t.Errorf("%d and %d requests, want 3 of each", f, b)
	}
}

// Registries without the referrers API, and what they send in its place.
func TestReferrersOfOddRegistries(t *testing.T) {
	t.Parallel()
	type answer struct {
		status           int
		mediaType, body  string
		redirect, header string // another path, at the web site; a header as "Name: value"
	}
	subject := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","manifests":[{"mediaType":"` +
		oci.MediaTypeOCIManifest + `","digest":"` + string(digestOf(manifest)) + `","size":2}]}`
	d := digestOf([]byte(subject))
	list := strings.Replace(subject, `"size":2`, `"size":3`, 1)
	dockerList := strings.ReplaceAll(list, oci.MediaTypeOCIIndex, oci.MediaTypeDockerManifestList)
	page := answer{status: 200, mediaType: "text/html", body: "<html><title>Sign in</title>"}
	missing := answer{status: 404, mediaType: "application/json", body: `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`}
	is := func(mediaType, body string) answer { return answer{status: 200, mediaType: mediaType, body: body} }
	tagged := is(oci.MediaTypeOCIIndex, list)
	none := string(oci.EmptyIndex())
	for _, tt := range []struct {
		name     string
		api      answer // to /referrers/
		site     answer // of the host that it redirects to
		tag      answer // to the tag of the tag schema
		want     string // the list; else
		status   int    // of the error, or
		kind     fault.ContentKind
		requests int
	}{
		{name: "login page", api: page, tag: missing, want: none, requests: 2},
		{name: "login page, tag schema", api: page, tag: tagged, want: list, requests: 2},
		{name: "login page elsewhere", api: answer{redirect: "/login"}, site: page, tag: missing, want: none, requests: 3},
		{name: "404 elsewhere", api: answer{redirect: "/x"}, site: missing, tag: tagged, want: list, requests: 3},
		{name: "405 elsewhere", api: answer{redirect: "/x"}, site: answer{status: 405}, tag: missing, want: none, requests: 3},
		{name: "429 elsewhere", api: answer{redirect: "/x"}, site: answer{status: 429}, tag: tagged, want: list, requests: 3},
		{
			name: "429 elsewhere for long", api: answer{redirect: "/x"}, site: answer{status: 429, header: "Retry-After: 3600"},
			tag: missing, want: none, requests: 3,
		},
		{name: "500 elsewhere, tag schema", api: answer{redirect: "/x"}, site: answer{status: 500}, tag: tagged, want: list, requests: 3},
		{name: "500 elsewhere", api: answer{redirect: "/x"}, site: answer{status: 500}, tag: missing, status: 500, requests: 3},
		{name: "403 elsewhere", api: answer{redirect: "/x"}, site: answer{status: 403}, tag: missing, status: 403, requests: 3},
		{name: "other JSON", api: is("application/json", `{"message":"ok"}`), tag: missing, want: none, requests: 2},
		{name: "429 of its own", api: answer{status: 429}, status: 429, requests: 1},
		{name: "503 of its own", api: answer{status: 503}, status: 503, requests: 1},
		{name: "the tag is the subject", api: missing, tag: is(oci.MediaTypeOCIIndex, subject), want: none, requests: 2},
		{name: "the tag is a Docker list", api: missing, tag: is(oci.MediaTypeDockerManifestList, dockerList), want: none, requests: 2},
		{name: "the tag is an image", api: missing, tag: is(oci.MediaTypeOCIManifest, string(manifest)), want: none, requests: 2},
		{name: "the API gives the subject", api: is(oci.MediaTypeOCIIndex, subject), tag: missing, want: none, requests: 2},
		{name: "the API gives a Docker list", api: is(oci.MediaTypeDockerManifestList, dockerList), tag: tagged, want: list, requests: 2},
		{name: "the API says JSON", api: is("application/json", list), want: list, requests: 1},
		{name: "pages everywhere", api: page, tag: page, kind: fault.ContentNotRegistry, requests: 2},
		{name: "the tag is refused", api: missing, tag: answer{status: 403}, status: 403, requests: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var site *server
			send := func(a answer) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					if a.redirect != "" {
						http.Redirect(w, r, site.URL+a.redirect, http.StatusSeeOther)
						return
					}
					if name, value, ok := strings.Cut(a.header, ": "); ok {
						w.Header().Set(name, value)
					}
					w.Header().Set("Content-Type", a.mediaType)
					w.WriteHeader(a.status)
					_, _ = io.WriteString(w, a.body)
				}
			}
			site = serve(t, send(tt.site))
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/referrers/"):
					send(tt.api)(w, r)
				case strings.HasSuffix(r.URL.Path, "/manifests/"+oci.ReferrersTag(d)):
					send(tt.tag)(w, r)
				default:
					send(is(oci.MediaTypeOCIManifest, string(manifest)))(w, r)
				}
			})
			r := registry(t, s.URL)
			doc, err := r.Referrers(t.Context(), repo, d, nil)
			got, _ := errors.AsType[*fault.Error](err)
			bad, _ := errors.AsType[*fault.ContentError](err)
			switch {
			case tt.want != "" && (err != nil || string(doc.Bytes) != tt.want || doc.MediaType != oci.MediaTypeOCIIndex && tt.requests > 1):
				t.Errorf("%+v, %v; want %s", doc, err, tt.want)
			case tt.want == "" && (got == nil || got.Status != tt.status || tt.kind != "" && (bad == nil || bad.Kind != tt.kind)):
				t.Errorf("%+v, %v; want %d %s", doc, err, tt.status, tt.kind)
			}
			if n := len(s.asked()) + len(site.asked()); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			// What another host has said stops no pull, and does not count against the registry.
			if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
				t.Errorf("then: %v", err)
			}
			if st := r.State()[0]; tt.api.redirect != "" && (st.State != endpoint.StateUp || st.LastError != "") {
				t.Errorf("the endpoint is %s: %s", st.State, st.LastError)
			}
		})
	}
}

// labels are codings that object stores say, and in which the bytes are not.
var labels = []string{
	"aws-chunked", "aws-chunked,gzip", "x-gzip", "gzip", "deflate", "br", "zstd", "utf-8", "UTF-8", "binary", "none", "identity", " ",
	"base64",
}

// Right bytes are right, whatever coding they are said to be in.
func TestRightBytesInAWrongCoding(t *testing.T) {
	t.Parallel()
	content := blobOf(100_000)
	for _, label := range labels {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", label)
				switch {
				case strings.Contains(r.URL.Path, "/manifests/"):
					w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
					_, _ = w.Write(manifest)
				case strings.Contains(r.URL.Path, "/tags/"):
					_, _ = io.WriteString(w, `{"name":"library/app","tags":["1"]}`)
				default:
					http.ServeContent(w, r, "", zeroTime, bytes.NewReader(content))
				}
			})
			r := registry(t, s.URL)
			for _, reference := range []string{"1", string(digestOf(manifest))} {
				if m, err := r.Manifest(t.Context(), repo, reference); err != nil || !bytes.Equal(m.Bytes, manifest) {
					t.Errorf("%s: %+v, %v", reference, m, err)
				}
			}
			if doc, err := r.Tags(t.Context(), repo, nil); err != nil {
				t.Errorf("%+v, %v", doc, err)
			}
			n := int64(len(content))
			for name, w := range map[string]flight.Want{
				"whole": {To: -1}, "whole, size known": {To: n, Size: n}, "size known, no end": {To: -1, Size: n},
				"part": {From: 4 << 10, To: 8 << 10, Size: n, Part: true},
			} {
				want := content
				if w.Part {
					want = content[w.From:w.To]
				}
				if b, _, err := fetch(t, r, digestOf(content), w); err != nil || !bytes.Equal(b, want) {
					t.Errorf("%s: %d bytes, %v", name, len(b), err)
				}
			}
			if n := len(s.asked()); n != 7 {
				t.Errorf("%d requests, want 7", n)
			}
		})
	}
}

// Bytes that are in the coding are not the content, and the cause is named, also where no size gives them away.
func TestBytesInACoding(t *testing.T) {
	t.Parallel()
	pack := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
		return out.Bytes()
	}
	content := bytes.Repeat([]byte("0123456789"), 1000)
	for _, chunked := range []bool{false, true} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			b := pack(content)
			if strings.Contains(r.URL.Path, "/manifests/") {
				b = pack(manifest)
			}
			if chunked {
				w.(http.Flusher).Flush()
			}
			_, _ = w.Write(b)
		})
		r := registry(t, s.URL)
		n := int64(len(content))
		for name, err := range map[string]error{
			"tag":    second(r.Manifest(t.Context(), repo, "1")),
			"digest": second(r.Manifest(t.Context(), repo, string(digestOf(manifest)))),
			"whole":  fetchFails(t, r, digestOf(content), flight.Want{To: -1}),
			"known":  fetchFails(t, r, digestOf(content), flight.Want{To: n, Size: n}),
		} {
			if e, ok := errors.AsType[*fault.ContentError](err); !ok || e.Kind != fault.ContentEncoding {
				t.Errorf("%s, chunked %t: %v", name, chunked, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func fetchFails(t *testing.T, r *upstream.Registry, d oci.Digest, w flight.Want) error {
	t.Helper()
	_, _, err := fetch(t, r, d, w)
	return err
}

// A HEAD whose answer a proxy has made says 0, or a type for everything: neither is said of the content.
func TestHeadsThatSayNothing(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	get := func(w http.ResponseWriter, r *http.Request, length, mediaType string) {
		w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
		w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", length)
			w.Header().Set("Content-Type", mediaType)
			return
		}
		_, _ = w.Write(manifest)
	}
	size := fmt.Sprint(len(manifest))
	want := oci.Descriptor{Digest: digestOf(manifest), Size: int64(len(manifest)), MediaType: oci.MediaTypeOCIManifest}
	for _, tt := range []struct {
		name, length, mediaType string
		want                    oci.Descriptor
	}{
		{"right", size, oci.MediaTypeOCIManifest, want},
		{"another vendor's type", size, "application/vnd.acme.thing+json", oci.Descriptor{
			Digest: want.Digest, Size: want.Size, MediaType: "application/vnd.acme.thing+json",
		}},
		{"length 0", "0", oci.MediaTypeOCIManifest, oci.Descriptor{Digest: want.Digest, Size: -1, MediaType: want.MediaType}},
		{"length of a word", "2", oci.MediaTypeOCIManifest, oci.Descriptor{Digest: want.Digest, Size: -1, MediaType: want.MediaType}},
		{"JSON", size, "application/json; charset=utf-8", oci.Descriptor{Digest: want.Digest, Size: want.Size}},
		{"text", size, "text/plain", oci.Descriptor{Digest: want.Digest, Size: want.Size}},
		{"bytes", size, "application/octet-stream", oci.Descriptor{Digest: want.Digest, Size: want.Size}},
		{"S3's bytes", size, "binary/octet-stream", oci.Descriptor{Digest: want.Digest, Size: want.Size}},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { get(w, r, tt.length, tt.mediaType) })
		got, err := registry(t, s.URL).Resolve(t.Context(), repo, "1")
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
		if n := len(s.asked()); n != 1 {
			t.Errorf("%s: %d requests", tt.name, n)
		}
	}
	for _, tt := range []struct {
		name     string
		content  []byte
		ranges   bool
		size     int64
		requests []string
	}{
		{"blob", content, true, 1000, []string{"HEAD", "GET"}},
		{"blob without ranges", content, false, 1000, []string{"HEAD", "GET"}},
		{"empty blob", nil, true, 0, []string{"HEAD"}},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Length", "0")
				return
			}
			if !tt.ranges {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", zeroTime, bytes.NewReader(tt.content))
		})
		got, err := registry(t, s.URL).Stat(t.Context(), repo, digestOf(tt.content))
		if err != nil || got.Size != tt.size {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		var methods []string
		for _, line := range s.asked() {
			methods = append(methods, line[:strings.IndexByte(line, ' ')])
		}
		if !slices.Equal(methods, tt.requests) {
			t.Errorf("%s: %q", tt.name, methods)
		}
	}
}

// A token service that moves its requests within its own origin is asked once more, with the login; one that sends them
// elsewhere, or on and on, is not.
func TestTokenRequestThatMoves(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	for _, tt := range []struct {
		name, location string
		status         int
		ok             bool
		tokens         int
	}{
		{"slash", "/service/token/?service=reg", 301, true, 2},
		{"found", "/service/token/", 302, true, 2},
		{"see other", "/service/token/", 303, true, 2},
		{"temporary", "/service/token/", 307, true, 2},
		{"permanent, absolute", "SELF/service/token/", 308, true, 2},
		{"twice", "/again", 307, false, 2},
		{"elsewhere", elsewhere.URL + "/token", 307, false, 1},
		{"no Location", "", 307, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s *server
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/service/token", r.URL.Path == "/again":
					if tt.location != "" {
						w.Header().Set("Location", strings.Replace(tt.location, "SELF", s.URL, 1))
					}
					w.WriteHeader(tt.status)
				case r.URL.Path == "/service/token/" && r.Header.Get("Authorization") == basic("bot", "pw"):
					_, _ = io.WriteString(w, `{"token":"good"}`)
				case r.Header.Get("Authorization") == "Bearer good":
					w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
					_, _ = w.Write(manifest)
				default:
					w.Header().Set("WWW-Authenticate", `Bearer realm="/service/token",service="reg"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
			})
			_, err := registry(t, s.URL, as(login("bot", "pw"))).Manifest(t.Context(), repo, string(digestOf(manifest)))
			if (err == nil) != tt.ok {
				t.Error(err)
			}
			as := 0
			for _, line := range s.asked() {
				if !strings.Contains(line, "/v2/") && strings.Contains(line, basic("bot", "pw")) {
					as++
				}
			}
			if as != tt.tokens {
				t.Errorf("%d requests with the login, want %d", as, tt.tokens)
			}
		})
	}
	if n := len(elsewhere.asked()); n > 0 {
		t.Errorf("another host was asked %d times", n)
	}
}

// A registry behind a proxy that ends TLS names its token service by http: that it is listed does not help, and the error
// says why.
func TestRealmOverHTTP(t *testing.T) {
	t.Parallel()
	realm := ""
	s := &server{}
	s.Server = httptest.NewTLSServer(s.noted(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="harbor-registry"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	for _, tt := range []struct {
		realm string
		plain bool
	}{
		{"http://127.0.0.1/service/token", true},
		{"http://auth.example/token", true},
		{"http://other.example/token", false},
		{"https://other.example/token", false},
		{"ftp://other.example/token", false},
	} {
		realm = tt.realm
		_, err := registry(t, s.URL, func(o *upstream.Options) {
			o.Endpoints[0].RootCAs, o.AuthHosts = pool, []string{"auth.example"}
		}).Manifest(t.Context(), repo, "1")
		if e, ok := errors.AsType[*fault.RealmError](err); !ok || e.Plain != tt.plain {
			t.Errorf("%s: %v", tt.realm, err)
		}
	}
}

// A signed manifest of schema 1 is known by the digest of what was signed.
func TestSignedSchema1(t *testing.T) {
	t.Parallel()
	const signed = `{"schemaVersion":1,"name":"library/app","tag":"1","architecture":"amd64","fsLayers":[],"history":[],` +
		`"signatures":[{"header":{"alg":"ES256"},"signature":"x","protected":"y"}]}`
	payload := digestOf([]byte(`{"schemaVersion":1,"name":"library/app"}`))
	for _, typ := range []string{oci.MediaTypeDockerSchema1Signed, "application/json"} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typ)
			w.Header().Set("Docker-Content-Digest", string(payload))
			_, _ = io.WriteString(w, signed)
		})
		for _, reference := range []string{"1", string(payload)} {
			_, err := registry(t, s.URL).Manifest(t.Context(), repo, reference)
			if e, ok := errors.AsType[*oci.ManifestError](err); !ok || e.Fault != oci.FaultSigned {
				t.Errorf("%s: %v", reference, err)
			}
		}
	}
}

// A vanity host sends on to a registry with a challenge of its own. Where the operator has named it and its token service, it
// is let in there, without the login that is for the vanity host; else the error says where to go.
func TestVanityHost(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	for _, tt := range []struct {
		name                     string
		redirectHosts, authHosts bool
		challenge                string // of the registry behind it
		status                   int    // with the token; 0: 200
		ok, away                 bool
		tokens                   int
	}{
		{name: "both named", redirectHosts: true, authHosts: true, ok: true, tokens: 1},
		{name: "token service not named", redirectHosts: true, away: true},
		{name: "registry not named", authHosts: true, away: true},
		{name: "a password", redirectHosts: true, authHosts: true, challenge: `Basic realm="x"`, away: true},
		{name: "no challenge", redirectHosts: true, authHosts: true, challenge: "-"},
		{name: "refused with the token, too", redirectHosts: true, authHosts: true, status: 401, tokens: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var behind *server
			var at string
			behind = serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					_, _ = io.WriteString(w, `{"token":"there"}`)
				case r.Header.Get("Authorization") != "Bearer there" || tt.status != 0:
					c := orElse(tt.challenge, `Bearer realm="`+at+`/token",service="b",scope="repository:acme/app:pull"`)
					if c != "-" {
						w.Header().Set("WWW-Authenticate", c)
					}
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/manifests/"):
					w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
					w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
					_, _ = w.Write(manifest)
				default:
					http.ServeContent(w, r, "", zeroTime, bytes.NewReader(content))
				}
			})
			at = strings.Replace(behind.URL, "127.0.0.1", "localhost", 1) // an endpoint's own host is always named
			front := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", "Basic realm=front")
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, at+strings.Replace(r.URL.Path, repo, "acme/app", 1), http.StatusTemporaryRedirect)
			})
			r := registry(t, front.URL, as(login("bot", "pw")), func(o *upstream.Options) {
				if tt.redirectHosts {
					o.RedirectHosts = []string{"localhost"}
				}
				if tt.authHosts {
					o.AuthHosts = []string{"localhost"}
				}
			})
			_, rerr := r.Resolve(t.Context(), repo, "1")
			_, merr := r.Manifest(t.Context(), repo, "1")
			berr := fetchFails(t, r, digestOf(content), flight.Want{To: -1})
			for what, err := range map[string]error{"tag": rerr, "manifest": merr, "blob": berr} {
				e, away := errors.AsType[*fault.AwayError](err)
				if (err == nil) != tt.ok || away != tt.away || away && e.To != strings.TrimPrefix(at, "http://") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if n := behind.count("/token"); n != tt.tokens {
				t.Errorf("%d token requests, want %d", n, tt.tokens)
			}
			if n := behind.count("Basic"); n != 0 {
				t.Errorf("our login went to another registry %d times", n)
			}
			if st := r.State()[0]; tt.away && st.State != endpoint.StateUp {
				t.Errorf("the endpoint is %s: %s", st.State, st.LastError)
			}
		})
	}
}
