package origin_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	b := []byte("0123456789")
	d := o.AddBlob("r", b)
	empty := o.AddBlob("r", nil)
	for _, tt := range []struct {
		blob   oci.Digest
		header string
		status int
		crange string
		body   string
	}{
		{d.Digest, "bytes=0-0", 206, "bytes 0-0/10", "0"},
		{d.Digest, "bytes=2-5", 206, "bytes 2-5/10", "2345"},
		{d.Digest, "bytes=8-", 206, "bytes 8-9/10", "89"},
		{d.Digest, "bytes=-3", 206, "bytes 7-9/10", "789"},
		{d.Digest, "bytes=-30", 206, "bytes 0-9/10", "0123456789"},
		{d.Digest, "bytes=5-99", 206, "bytes 5-9/10", "56789"},
		{d.Digest, "bytes=10-", 416, "bytes */10", ""},
		{d.Digest, "bytes=-0", 416, "bytes */10", ""},
		{d.Digest, "bytes=5-2", 200, "", "0123456789"},
		{d.Digest, "bytes=0-1,4-5", 200, "", "0123456789"},
		{d.Digest, "lines=0-1", 200, "", "0123456789"},
		{empty.Digest, "bytes=0-", 416, "bytes */0", ""},
	} {
		resp, got, err := get(t, client(t, o, false), o.URL()+"/v2/r/blobs/"+string(tt.blob), "Range: "+tt.header)
		crange := resp.Header.Get("Content-Range")
		if resp.StatusCode != tt.status || crange != tt.crange || string(got) != tt.body || err != nil {
			t.Errorf("%s: %d %q %q, %v", tt.header, resp.StatusCode, crange, got, err)
		}
	}
	path := o.URL() + "/v2/r/blobs/" + string(d.Digest)
	for etag, want := range map[string]int{`"` + string(d.Digest) + `"`: 206, `"other"`: 200} {
		resp, _, _ := get(t, client(t, o, false), path, "Range: bytes=1-2", "If-Range: "+etag)
		if resp.StatusCode != want {
			t.Errorf("If-Range %s: %d, want %d", etag, resp.StatusCode, want)
		}
	}
	if r := o.Requests()[1]; r.From != 2 || r.Bytes != 4 {
		t.Errorf("on record: %d bytes from %d, want 4 from 2", r.Bytes, r.From)
	}
}

func TestManifests(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{StrictAccept: true})
	big := []byte(`{"x":"` + strings.Repeat("x", 5<<20) + `"}`)
	o.AddManifest("r", "big", "application/json", big)
	sum512 := digest.SHA512.FromString("{}")
	o.AddManifestAs("r", "", "application/json", sum512, []byte("{}"))
	o.AddBlobAs("r", sum512, []byte("{}"))
	c := client(t, o, false)
	base := o.URL() + "/v2/r/manifests/"
	if _, b, err := get(t, c, base+"big", "Accept: application/json"); err != nil || !bytes.Equal(b, big) {
		t.Errorf("5 MiB: %d bytes, %v", len(b), err)
	}
	head, err := ask(t, c, http.MethodHead, base+"big", "Accept: text/plain, application/json;q=0.5")
	if err != nil || head.ContentLength != int64(len(big)) || head.Header.Get("Content-Type") != "application/json" ||
		head.Header.Get("Docker-Content-Digest") != string(digest.FromBytes(big)) {
		t.Errorf("HEAD: %v, %v", head, err)
	}
	if resp, _, _ := get(t, c, base+"big", "Accept: text/plain"); resp.StatusCode != 404 {
		t.Errorf("a type that is not accepted: %d", resp.StatusCode)
	}
	for _, path := range []string{"/v2/r/manifests/", "/v2/r/blobs/"} {
		resp, b, err := get(t, c, o.URL()+path+string(sum512), "Accept: */*")
		if resp.StatusCode != 200 || string(b) != "{}" || err != nil {
			t.Errorf("%s by sha512: %d %s, %v", path, resp.StatusCode, b, err)
		}
	}
	o.DeleteTag("r", "big")
	if resp, _, _ := get(t, c, base+"big", "Accept: */*"); resp.StatusCode != 404 {
		t.Errorf("a deleted tag: %d", resp.StatusCode)
	}
	if resp, _, _ := get(t, c, base+string(digest.FromBytes(big)), "Accept: */*"); resp.StatusCode != 200 {
		t.Errorf("its digest: %d", resp.StatusCode)
	}
	o.Delete("r", digest.FromBytes(big))
	if resp, _, _ := get(t, c, base+string(digest.FromBytes(big)), "Accept: */*"); resp.StatusCode != 404 {
		t.Errorf("a deleted manifest: %d", resp.StatusCode)
	}
	if resp, err := ask(t, c, http.MethodPut, base+"x"); err != nil || resp.StatusCode != 405 {
		t.Errorf("PUT: %v, %v", resp, err)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{PageSize: 3})
	var want []string
	for _, tag := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		o.AddManifest("r", tag, "application/json", []byte("{}"))
		want = append(want, tag)
	}
	for _, tt := range []struct {
		query string
		pages int
	}{{"", 3}, {"?n=2", 4}, {"?n=100", 3}} {
		var got []string
		pages := 0
		for next := "/v2/r/tags/list" + tt.query; next != ""; pages++ {
			resp, b, err := get(t, client(t, o, false), o.URL()+next)
			var page struct{ Tags []string }
			if err != nil || json.Unmarshal(b, &page) != nil {
				t.Fatalf("%s: %v", b, err)
			}
			got = append(got, page.Tags...)
			next, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		}
		if d := gocmp.Diff(want, got); d != "" || pages != tt.pages {
			t.Errorf("%q: %d pages, want %d; %s", tt.query, pages, tt.pages, d)
		}
	}
	_, b, _ := get(t, client(t, o, false), o.URL()+"/v2/r/tags/list?last=cc&n=1")
	if string(b) != `{"name":"r","tags":["d"]}` {
		t.Errorf("after a tag that is not there: %s", b)
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	o, old := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{NoReferrers: true})
	image := o.AddImage("r", "1", origin.Image{})
	sig := o.AddReferrer("r", image.Root, "application/x-signature")
	o.AddReferrer("r", image.Root, "application/x-sbom")
	for _, tt := range []struct {
		query   string
		n       int
		applied string
	}{
		{"", 2, ""},
		{"?artifactType=application/x-signature", 1, "artifactType"},
		{"?artifactType=none", 0, "artifactType"},
	} {
		resp, b, err := get(t, client(t, o, false), o.URL()+"/v2/r/referrers/"+string(image.Root.Digest)+tt.query)
		if err != nil {
			t.Fatal(err)
		}
		m, err := oci.ParseManifest(resp.Header.Get("Content-Type"), b)
		if err != nil || len(m.Children) != tt.n || resp.Header.Get("OCI-Filters-Applied") != tt.applied {
			t.Errorf("%q: %s, %v, %v", tt.query, b, resp.Header, err)
		}
		if tt.n == 1 && (m.Children[0].Digest != sig.Digest || m.Children[0].Size != sig.Size) {
			t.Errorf("%+v, want %+v", m.Children[0], sig)
		}
	}
	resp, _, _ := get(t, client(t, old, false), old.URL()+"/v2/r/referrers/"+string(image.Root.Digest))
	if resp.StatusCode != 404 {
		t.Errorf("without the API: %d", resp.StatusCode)
	}
}

func basicAuth(userPass string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(userPass))
}

// token asks for one and returns it with the status.
func token(t *testing.T, o *origin.Origin, c *http.Client, repo string, header ...string) (string, int) {
	t.Helper()
	scheme, _, _ := strings.Cut(o.URL(), "://")
	resp, b, err := get(t, c, scheme+"://"+o.TokenHost()+"/token?service=origin&scope=repository:"+repo+":pull", header...)
	var v struct{ Token string }
	if err != nil || json.Unmarshal(b, &v) != nil {
		t.Fatalf("token: %s, %v", b, err)
	}
	return v.Token, resp.StatusCode
}

func TestBearer(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{
		Kind: "bearer", Username: "u", Password: "p", Anonymous: true,
		Private: func(repo string) bool { return repo == "secret" }, SeparateHost: true, Identity: "id",
	}})
	o.AddImage("public", "1", origin.Image{})
	o.AddImage("secret", "1", origin.Image{})
	c := client(t, o, false)
	if o.TokenHost() == o.Host() {
		t.Error("the token service has no host of its own")
	}
	resp, _, _ := get(t, c, o.URL()+"/v2/public/manifests/1")
	want := `Bearer realm="http://` + o.TokenHost() + `/token",service="origin",scope="repository:public:pull"`
	if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != 401 || got != want {
		t.Errorf("challenge %d %s, want %s", resp.StatusCode, got, want)
	}
	pull := func(repo, token string) (int, string) {
		resp, _, _ := get(t, c, o.URL()+"/v2/"+repo+"/manifests/1", "Authorization: Bearer "+token)
		_, flaw, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), "error=")
		return resp.StatusCode, flaw
	}
	for _, tt := range []struct {
		name, scope, login, pull string
		token, status            int
		flaw                     string
	}{
		{"anonymous", "public", "", "public", 200, 200, ""},
		{"anonymous, private: a token of no use", "secret", "", "secret", 200, 401, `"insufficient_scope"`},
		{"right", "secret", "u:p", "secret", 200, 200, ""},
		{"right, another repository", "public", "u:p", "secret", 200, 401, `"insufficient_scope"`},
		{"wrong", "public", "u:x", "", 401, 0, ""},
	} {
		var header []string
		if tt.login != "" {
			header = append(header, basicAuth(tt.login))
		}
		tok, status := token(t, o, c, tt.scope, header...)
		if status != tt.token {
			t.Errorf("%s: token service says %d, want %d", tt.name, status, tt.token)
		}
		if tt.pull == "" {
			continue
		}
		if status, flaw := pull(tt.pull, tok); status != tt.status || flaw != tt.flaw {
			t.Errorf("%s: %d %s, want %d %s", tt.name, status, flaw, tt.status, tt.flaw)
		}
	}
	tok, _ := token(t, o, c, "public")
	o.RevokeTokens()
	if status, flaw := pull("public", tok); status != 401 || flaw != `"invalid_token"` {
		t.Errorf("a revoked token: %d %s", status, flaw)
	}
	o.SetCredentials("u", "new")
	if _, status := token(t, o, c, "secret", basicAuth("u:p")); status != 401 {
		t.Errorf("an old password: %d", status)
	}
	for id, want := range map[string]int{"id": 200, "other": 401} {
		resp, err := c.PostForm("http://"+o.TokenHost()+"/token", url.Values{
			"grant_type":    {"refresh_token"},
			"refresh_token": {id}, "service": {"origin"}, "scope": {"repository:secret:pull"},
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("identity %s: %d, want %d", id, resp.StatusCode, want)
		}
	}
	if n := o.Count(origin.KindToken); n != 9 {
		t.Errorf("%d token requests, want 9", n)
	}
	if r := o.Requests(); r[1].Role != origin.RoleToken || r[1].Repo != "public" {
		t.Errorf("on record: %+v", r[1])
	}
}

func TestTokensEnd(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true, TokenLife: 1}})
	o.AddImage("r", "1", origin.Image{})
	c := client(t, o, false)
	tok, _ := token(t, o, c, "r")
	if resp, _, _ := get(t, c, o.URL()+"/v2/r/manifests/1", "Authorization: Bearer "+tok); resp.StatusCode != 401 {
		t.Errorf("a token of a nanosecond: %d", resp.StatusCode)
	}
}

func TestAuthQuirks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		auth  origin.Auth
		login string
		want  int
		has   map[string]bool // keys of the answer
	}{
		{
			"all",
			origin.Auth{Anonymous: true},
			"", 200,
			map[string]bool{"token": true, "access_token": true, "expires_in": true},
		},
		{"no expires_in", origin.Auth{Anonymous: true, NoExpiresIn: true}, "", 200, map[string]bool{"expires_in": false}},
		{
			"access_token only",
			origin.Auth{Anonymous: true, AccessTokenOnly: true},
			"", 200,
			map[string]bool{"token": false, "access_token": true},
		},
		{"no anonymous tokens", origin.Auth{}, "", 401, nil},
		{
			"private, refused",
			origin.Auth{Anonymous: true, NoAccess: 403, Private: func(string) bool { return true }},
			"", 403, nil,
		},
		{"wrong, 403", origin.Auth{Anonymous: true, Rejected: 403}, "u:x", 403, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.auth.Kind = "bearer"
			o := origin.Start(t, origin.Options{Auth: tt.auth})
			var header []string
			if tt.login != "" {
				header = append(header, basicAuth(tt.login))
			}
			resp, b, err := get(t, client(t, o, false), o.URL()+"/token?scope=repository:r:pull", header...)
			var v map[string]any
			if err != nil || resp.StatusCode != tt.want || json.Unmarshal(b, &v) != nil {
				t.Fatalf("%d %s, %v", resp.StatusCode, b, err)
			}
			for k, want := range tt.has {
				if _, has := v[k]; has != want {
					t.Errorf("%s there: %t, want %t", k, has, want)
				}
			}
		})
	}
}

// A rule for the answer is not used up by the question for a token, unless it says so.
func TestRulesAndAuth(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{
		Kind: "basic", Username: "u", Password: "p",
		Realm: "https://elsewhere.invalid/",
	}, Header: http.Header{"Ratelimit-Remaining": {"99;w=21600"}}})
	o.AddImage("r", "1", origin.Image{})
	c := client(t, o, false)
	o.Script(origin.Rule{Kind: origin.KindManifest, Times: 1, Do: origin.Fault{Status: 401}})
	path := o.URL() + "/v2/r/manifests/1"
	resp, b, _ := get(t, c, path)
	if resp.StatusCode != 401 || !strings.Contains(string(b), "UNAUTHORIZED") {
		t.Errorf("not asked who: %d %s", resp.StatusCode, b)
	}
	resp, b, _ = get(t, c, path, basicAuth("u:p"))
	if resp.StatusCode != 401 || len(b) != 0 || resp.Header.Get("WWW-Authenticate") !=
		`Basic realm="https://elsewhere.invalid/",service="origin"` {
		t.Errorf("the rule's: %d %s %v", resp.StatusCode, b, resp.Header)
	}
	resp, _, _ = get(t, c, path, basicAuth("u:p"))
	if resp.StatusCode != 200 || resp.Header.Get("Ratelimit-Remaining") != "99;w=21600" {
		t.Errorf("afterwards: %d %v", resp.StatusCode, resp.Header)
	}
	o.Script(origin.Rule{Early: true, Do: origin.Fault{Status: 500}})
	if resp, _, _ = get(t, c, path); resp.StatusCode != 500 {
		t.Errorf("an early rule: %d", resp.StatusCode)
	}
}

func TestBlobHost(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Redirect: true})
	d := o.AddBlob("r", []byte("bytes"))
	c := client(t, o, false)
	at := func() string {
		resp, _, _ := get(t, c, o.URL()+"/v2/r/blobs/"+string(d.Digest))
		to, err := resp.Location()
		if err != nil || resp.StatusCode != 307 || to.Host != o.CDNHost() {
			t.Fatalf("%d %v, %v", resp.StatusCode, to, err)
		}
		return to.String()
	}
	url := at()
	if resp, b, _ := get(t, c, url, "Range: bytes=1-2"); resp.StatusCode != 206 || string(b) != "yt" {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	if resp, _, _ := get(t, c, url, "Authorization: Bearer x"); resp.StatusCode != 400 {
		t.Errorf("with a credential: %d", resp.StatusCode)
	}
	o.ExpireRedirects()
	if resp, b, _ := get(t, c, url); resp.StatusCode != 403 || !strings.Contains(string(b), "AccessDenied") {
		t.Errorf("expired: %d %s", resp.StatusCode, b)
	}
	if resp, b, _ := get(t, c, at()); resp.StatusCode != 200 || string(b) != "bytes" {
		t.Errorf("asked anew: %d %s", resp.StatusCode, b)
	}
	if n := o.Count(origin.KindCDN); n != 4 || o.Bytes(d.Digest) != 2+5 {
		t.Errorf("%d requests, %d bytes", n, o.Bytes(d.Digest))
	}
	o.DownCDN()
	if _, err := ask(t, c, http.MethodGet, url); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("blob host down: %v", err)
	}
	short := origin.Start(t, origin.Options{Redirect: true, RedirectLife: 1})
	short.AddBlob("r", []byte("bytes"))
	resp, _, _ := get(t, c, short.URL()+"/v2/r/blobs/"+string(d.Digest))
	if resp, _, _ := get(t, c, resp.Header.Get("Location")); resp.StatusCode != 403 {
		t.Errorf("an address of a nanosecond: %d", resp.StatusCode)
	}
}

func TestDownAndUp(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		o, url, b := blobs(t, origin.Options{TLS: secure})
		gate := origin.NewGate()
		remove := o.Script(origin.Rule{Do: origin.Fault{Stall: &origin.Stall{At: 1000, Gate: gate}}})
		c := client(t, o, false)
		resp, err := ask(t, c, http.MethodGet, url)
		if err != nil {
			t.Fatal(err)
		}
		<-gate.Arrived()
		for range 3 {
			o.Down()
			if got, err := io.ReadAll(resp.Body); err == nil || len(got) > 1000 {
				t.Errorf("an answer goes on: %d bytes, %v", len(got), err)
			}
			if _, err := ask(t, c, http.MethodGet, url); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("down: %v", err)
			}
			// The port is not for others.
			if ln, err := net.Listen("tcp", o.Host()); err == nil {
				_ = ln.Close()
				t.Error("another process can have the port")
			}
			o.Up()
			remove()
			if _, body, err := get(t, c, url); err != nil || !bytes.Equal(body, b) {
				t.Errorf("up again: %d bytes, %v", len(body), err)
			}
		}
	}
}

func TestSilent(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		o, url, b := blobs(t, origin.Options{TLS: secure})
		o.Silent()
		c, err := net.Dial("tcp", o.Host())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		o.Up() // resets it: nothing was said before
		if got, err := io.ReadAll(c); len(got) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("it said %q, %v", got, err)
		}
		_ = c.Close()
		if _, body, err := get(t, client(t, o, false), url); err != nil || !bytes.Equal(body, b) {
			t.Errorf("up again: %d bytes, %v", len(body), err)
		}
	}
}
