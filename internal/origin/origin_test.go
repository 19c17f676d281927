package origin_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client trusts the origin, keeps nothing between tests, and follows no redirect.
func client(t *testing.T, o *origin.Origin, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: o.CA()}, DisableCompression: true, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// ask sends a request; header is "Key: value" lines.
func ask(t *testing.T, c *http.Client, method, url string, header ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Add(k, v)
	}
	resp, err := c.Do(req)
	if err == nil {
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	return resp, err
}

// get is ask for an answer that comes, and what was read of its body.
func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	resp, err := ask(t, c, http.MethodGet, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// What a client pulls through each arrangement is what was put in.
func TestPull(t *testing.T) {
	t.Parallel()
	bearer := origin.Auth{Kind: "bearer", Username: "u", Password: "p"}
	with := func(f func(*origin.Auth)) origin.Auth { a := bearer; f(&a); return a }
	for _, tt := range []struct {
		name string
		o    origin.Options
		user string
	}{
		{"plain", origin.Options{}, ""},
		{"tls", origin.Options{TLS: true}, ""},
		{"h2", origin.Options{TLS: true, HTTP2: true}, ""},
		{"basic", origin.Options{Auth: origin.Auth{Kind: "basic", Username: "u", Password: "p"}}, "u"},
		{"bearer", origin.Options{Auth: bearer}, "u"},
		{"bearer over tls", origin.Options{TLS: true, Auth: bearer}, "u"},
		{"bearer, anonymous", origin.Options{Auth: with(func(a *origin.Auth) { a.Anonymous = true })}, ""},
		{"bearer, own host", origin.Options{Auth: with(func(a *origin.Auth) { a.SeparateHost = true })}, "u"},
		{"bearer, jwt", origin.Options{Auth: with(func(a *origin.Auth) { a.JWT = true })}, "u"},
		{"bearer, access_token", origin.Options{Auth: with(func(a *origin.Auth) { a.AccessTokenOnly = true })}, "u"},
		{"bearer, one scope", origin.Options{Auth: with(func(a *origin.Auth) { a.Scope = "aws" })}, "u"},
		{"blob host", origin.Options{Redirect: true, Auth: bearer}, "u"},
		{"blob host over tls", origin.Options{Redirect: true, TLS: true, Auth: bearer}, "u"},
		{"relative redirect", origin.Options{RedirectRelative: true}, ""},
		{"no lengths", origin.Options{NoLength: true, NoDigest: true, NoRange: true, NoHeadBlob: true}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, tt.o)
			built := o.AddImage("acme/app", "1.0", origin.Image{
				Platforms: []string{"linux/amd64", "linux/arm64/v8"},
				Layers:    []int64{100, 5000, 3 << 20}, Seed: 7,
			})
			p := &puller{t: t, c: client(t, o, tt.o.HTTP2), base: o.URL(), user: tt.user}
			root, index := p.manifest("acme/app", "1.0")
			if root != built.Index.Digest || len(index.Children) != 2 {
				t.Fatalf("index %s with %d manifests, want %s with 2", root, len(index.Children), built.Index.Digest)
			}
			if got := index.Children[1].Platform; got.Architecture != "arm64" || got.Variant != "v8" {
				t.Errorf("platform %+v", got)
			}
			for _, child := range index.Children {
				_, m := p.manifest("acme/app", string(child.Digest))
				for i, d := range m.Children {
					b := p.blob("acme/app", d.Digest)
					if int64(len(b)) != d.Size || digest.FromBytes(b) != d.Digest {
						t.Errorf("blob %s: %d bytes of %s, want %d", d.Digest, len(b), digest.FromBytes(b), d.Size)
					}
					if i == 0 || d.Size < 2048 {
						continue
					}
					tr := tar.NewReader(bytes.NewReader(b))
					if _, err := tr.Next(); err != nil {
						t.Errorf("a layer is not a tar: %v", err)
					}
					if _, err := tr.Next(); err != io.EOF {
						t.Errorf("behind the file of a layer: %v", err)
					}
				}
			}
			for _, d := range built.Blobs() {
				if got := o.Bytes(d.Digest); got != d.Size {
					t.Errorf("%d bytes of %s counted, its size is %d", got, d.Digest, d.Size)
				}
			}
		})
	}
}

// puller is the client's side of a pull, as simple as it gets.
type puller struct {
	t    *testing.T
	c    *http.Client
	base string
	user string
	auth string // header
}

var param = regexp.MustCompile(`(\w+)="([^"]*)"`)

func (p *puller) get(url, accept string) (*http.Response, []byte) {
	p.t.Helper()
	for range 5 {
		h := []string{"Accept: " + accept}
		if strings.HasPrefix(url, p.base) && p.auth != "" {
			h = append(h, "Authorization: "+p.auth)
		}
		resp, b, err := get(p.t, p.c, url, h...)
		switch {
		case err != nil:
			p.t.Fatalf("%s: %v", url, err)
		case resp.StatusCode == http.StatusUnauthorized:
			p.answer(resp.Header.Get("WWW-Authenticate"))
		case resp.StatusCode == http.StatusTemporaryRedirect:
			to, err := resp.Location()
			if err != nil {
				p.t.Fatal(err)
			}
			url = to.String()
		case resp.StatusCode == http.StatusOK:
			return resp, b
		default:
			p.t.Fatalf("%s: %s %s", url, resp.Status, b)
		}
	}
	p.t.Fatalf("%s: no end", url)
	return nil, nil
}

// answer answers a challenge.
func (p *puller) answer(challenge string) {
	p.t.Helper()
	var login []string
	if p.user != "" {
		login = []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":p"))}
	}
	if strings.HasPrefix(challenge, "Basic ") {
		p.auth = strings.TrimPrefix(login[0], "Authorization: ")
		return
	}
	q := make(url.Values)
	realm := ""
	for _, m := range param.FindAllStringSubmatch(challenge, -1) {
		if m[1] == "realm" {
			realm = m[2]
			continue
		}
		q.Set(m[1], m[2])
	}
	resp, b, err := get(p.t, p.c, realm+"?"+q.Encode(), login...)
	var token struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(b, &token) != nil {
		p.t.Fatalf("token: %s %s, %v", resp.Status, b, err)
	}
	p.auth = "Bearer " + cmp.Or(token.Token, token.Access)
}

func (p *puller) manifest(repo, ref string) (oci.Digest, *oci.Manifest) {
	p.t.Helper()
	resp, b := p.get(p.base+"/v2/"+repo+"/manifests/"+ref, "*/*")
	m, err := oci.ParseManifest(resp.Header.Get("Content-Type"), b)
	if err != nil {
		p.t.Fatal(err)
	}
	return digest.FromBytes(b), m
}

func (p *puller) blob(repo string, d oci.Digest) []byte {
	p.t.Helper()
	_, b := p.get(p.base+"/v2/"+repo+"/blobs/"+string(d), "*/*")
	return b
}

func TestImages(t *testing.T) {
	t.Parallel()
	o, other := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{})
	spec := origin.Image{
		Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: 3,
		Layers: []int64{0, 1, 2047, 2048, 9999},
	}
	a, b := o.AddImage("r", "t", spec), other.AddImage("r", "t", spec)
	if a.Root.Digest != b.Root.Digest {
		t.Error("the same image has two digests")
	}
	if n := len(a.Blobs()); n != 2+1+2*4 { // the empty layer is one for both platforms
		t.Errorf("%d blobs", n)
	}
	spec.Shared = true
	if n := len(o.AddImage("r", "t", spec).Blobs()); n != 2+5 {
		t.Errorf("%d blobs with shared layers", n)
	}
	spec.Seed = 4
	if c := o.AddImage("r", "t", spec); c.Root.Digest == a.Root.Digest || c.Layers[0][3].Digest == a.Layers[0][3].Digest {
		t.Error("another seed makes the same bytes")
	}
	plain := o.AddImage("r", "plain", origin.Image{})
	if plain.Index.Digest != "" || plain.Root.Digest != plain.Manifests[0].Digest {
		t.Errorf("one platform: root %s, index %s", plain.Root.Digest, plain.Index.Digest)
	}
	for _, d := range a.Blobs() {
		if got := a.Bytes(d.Digest); int64(len(got)) != d.Size {
			t.Errorf("%d bytes, want %d", len(got), d.Size)
		}
	}
}

func TestRequestsAreRecorded(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	built := o.AddImage("acme/app", "1.0", origin.Image{Layers: []int64{1 << 20}})
	layer := built.Layers[0][0]
	c := client(t, o, false)
	arrived := o.Arrived(func(r origin.Request) bool { return r.Kind == origin.KindBlob })
	for _, path := range []string{
		"/v2/", "/v2/acme/app/manifests/1.0", "/v2/acme/app/tags/list?n=5", "/v2/acme/app/blobs/" + string(layer.Digest),
		"/v2/acme/app/manifests/none", "/v2/other/manifests/1.0", "/elsewhere",
	} {
		_, _, _ = get(t, c, o.URL()+path, "X-Canary: yes")
	}
	if _, err := ask(t, c, http.MethodHead, o.URL()+"/v2/acme/app/manifests/1.0"); err != nil {
		t.Fatal(err)
	}
	if r := <-arrived; r.Ref != string(layer.Digest) || r.Header.Get("X-Canary") != "yes" {
		t.Errorf("arrived: %+v", r)
	}
	var got []string
	for _, r := range o.Requests() {
		got = append(got, fmt.Sprint(r.Method, " ", r.Role, " ", r.Kind, " ", r.Repo, " ", r.Ref, " ", r.Status))
	}
	want := []string{
		"GET registry ping   200", "GET registry manifest acme/app 1.0 200", "GET registry tags acme/app  200",
		"GET registry blob acme/app " + string(layer.Digest) + " 200", "GET registry manifest acme/app none 404",
		"GET registry manifest other 1.0 404", "GET registry other   404", "HEAD registry manifest acme/app 1.0 200",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := o.Count(origin.KindManifest); n != 4 {
		t.Errorf("%d manifest requests", n)
	}
	if n := o.CountRef(origin.KindManifest, "1.0", http.MethodHead); n != 1 {
		t.Errorf("%d HEADs of the tag", n)
	}
	if n := o.Bytes(layer.Digest); n != layer.Size {
		t.Errorf("%d bytes of the layer, want %d", n, layer.Size)
	}
	if n := o.Sent(); n <= layer.Size {
		t.Errorf("%d bytes in all", n)
	}
	o.ClearRequests()
	if n := len(o.Requests()); n != 0 || o.Bytes(layer.Digest) != 0 {
		t.Errorf("%d requests after they were forgotten", n)
	}
}
