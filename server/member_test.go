package server_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

// The size of a layer of the private image; and of one whose header does not wait for its last byte.
const (
	secretLayer = 1 << 20
	largeLayer  = 5 << 20
)

// membership is a mirror that has pulled all of acme/secret for a client with the right to it, and two other repositories
// without that content: one at the same registry, one of the same name at another.
type membership struct {
	*wire
	image origin.Built
	bytes []byte // of the layer
}

func newMembership(t *testing.T, layer int64) *membership {
	t.Helper()
	m := &membership{wire: newWire(t, wired{})}
	m.image = m.hub.AddImage("acme/secret", "1", origin.Image{Layers: []int64{layer}, Index: true})
	m.bytes = m.image.Bytes(m.layer())
	m.hub.AddImage("acme/other", "2", origin.Image{Seed: 2})
	m.ghcr.AddImage("acme/secret", "2", origin.Image{Seed: 3})
	return m
}

func (m *membership) layer() oci.Digest  { return m.image.Layers[0][0].Digest }
func (m *membership) config() oci.Digest { return m.image.Configs[0].Digest }

// pull pulls the whole private image through the mirror, and forgets the requests for it.
func (m *membership) pull(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"manifests/1", "manifests/" + m.image.Manifests[0].Digest.String(), "blobs/" + m.layer().String(), "blobs/" + m.config().String(),
	} {
		if res, _ := m.do(t, "GET", "/v2/acme/secret/"+path); res.StatusCode != 200 {
			t.Fatalf("%s: %s", path, res.Status)
		}
	}
	m.hub.ClearRequests()
}

// asked are the requests to the upstreams about other repositories than the private one, and whether the answers had any byte
// of content.
func (m *membership) asked(t *testing.T) (lines []string) {
	t.Helper()
	for name, o := range map[string]*origin.Origin{"docker.io": m.hub, "ghcr.io": m.ghcr} {
		for _, q := range o.Requests() {
			switch {
			case name == "docker.io" && q.Repo == "acme/secret":
				t.Errorf("%s %s: the private repository was asked", q.Method, q.Path)
				continue
			case q.Kind == origin.KindTags: // to separate a missing tag from a missing repository
				continue
			}
			if q.Kind == origin.KindTags { // which separates a missing tag from a missing repository
				continue
			}
			lines = append(lines, fmt.Sprintf("%s %s/%s %s %s", q.Method, name, q.Repo, q.Kind, q.Ref))
		}
		o.ClearRequests()
	}
	return lines
}

// Cached content of one repository is not served through another, for any kind of request. The other one's registry is asked,
// once, and its refusal is the answer; where it has the content, no cached byte is fetched again.
func TestMembership(t *testing.T) {
	t.Parallel()
	type way struct {
		name, method string
		path         func(*membership) string
		header       []string
		question     func(*membership) string // without the repository
		status       int                      // once the other repository has it
	}
	manifest := func(m *membership) string { return m.image.Manifests[0].Digest.String() }
	layer := func(m *membership) string { return m.layer().String() }
	under := func(kind string, ref func(*membership) string) func(*membership) string {
		return func(m *membership) string { return kind + ref(m) }
	}
	const stat, get, resolve = "HEAD %s blob ", "GET %s manifest ", "HEAD %s manifest "
	tag := func(*membership) string { return "1" }
	ways := []way{
		{"tag", "GET", under("manifests/", tag), nil, under(resolve, tag), 200},
		{"tag by HEAD", "HEAD", under("manifests/", tag), nil, under(resolve, tag), 200},
		{"digest", "GET", under("manifests/", manifest), nil, under(get, manifest), 200},
		{"digest by HEAD", "HEAD", under("manifests/", manifest), nil, under(get, manifest), 200},
		{
			"digest of the index", "GET", under("manifests/", func(m *membership) string { return m.image.Root.Digest.String() }), nil,
			under(get, func(m *membership) string { return m.image.Root.Digest.String() }), 200,
		},
		{"digest with If-None-Match", "GET", under("manifests/", manifest), []string{"If-None-Match", "*"}, under(get, manifest), 304},
		{"layer", "GET", under("blobs/", layer), nil, under(stat, layer), 200},
		{"layer by HEAD", "HEAD", under("blobs/", layer), nil, under(stat, layer), 200},
		{
			"config", "GET", under("blobs/", func(m *membership) string { return m.config().String() }), nil,
			under(stat, func(m *membership) string { return m.config().String() }), 200,
		},
		{"Range", "GET", under("blobs/", layer), []string{"Range", "bytes=0-0"}, under(stat, layer), 206},
		{"Range of the end", "GET", under("blobs/", layer), []string{"Range", "bytes=-100"}, under(stat, layer), 206},
		{"several ranges", "GET", under("blobs/", layer), []string{"Range", "bytes=0-1,100-200"}, under(stat, layer), 206},
		{"Range beyond the end", "GET", under("blobs/", layer), []string{"Range", "bytes=99999999-"}, under(stat, layer), 416},
		{"Range by HEAD", "HEAD", under("blobs/", layer), []string{"Range", "bytes=0-0"}, under(stat, layer), 200},
		{"layer with If-None-Match", "GET", under("blobs/", layer), []string{"If-None-Match", "*"}, under(stat, layer), 304},
		{"manifest as a blob", "GET", under("blobs/", manifest), nil, under(stat, manifest), 200},
		{"layer as a manifest", "GET", under("manifests/", layer), nil, under(get, layer), 404},
	}
	for _, other := range []struct{ name, path string }{
		{"docker.io/acme/other", "/v2/acme/other/"}, {"ghcr.io/acme/secret", "/v2/ghcr.io/acme/secret/"},
	} {
		for _, w := range ways {
			t.Run(w.name+" through "+other.name, func(t *testing.T) {
				t.Parallel()
				m := newMembership(t, secretLayer)
				m.pull(t)
				res, body := m.do(t, w.method, other.path+w.path(m), w.header...)
				if res.StatusCode != 404 || strings.Contains(string(body), string(m.bytes[:100])) {
					t.Errorf("%s with %d bytes", res.Status, len(body))
				}
				if res.Header.Get("Docker-Content-Digest") != "" || res.Header.Get("Etag") != "" {
					t.Errorf("headers of what it may not have: %v", res.Header)
				}
				want := []string{fmt.Sprintf(w.question(m), other.name)}
				if diff := cmp.Diff(want, m.asked(t)); diff != "" {
					t.Errorf("questions (-want +got):\n%s", diff)
				}

				// It has been pushed there, too.
				at, repo, _ := strings.Cut(other.name, "/")
				o := map[string]*origin.Origin{"docker.io": m.hub, "ghcr.io": m.ghcr}[at]
				o.AddImage(repo, "1", origin.Image{Layers: []int64{secretLayer}, Index: true})
				o.AddBlob(repo, m.image.Bytes(m.image.Manifests[0].Digest)) // as a blob, too
				m.puller.Use(m.setup)                                       // forgets the refusal
				res, body = m.do(t, w.method, other.path+w.path(m), w.header...)
				if res.StatusCode != w.status {
					t.Errorf("where it belongs: %s %s", res.Status, body)
				}
				for _, line := range m.asked(t) {
					if strings.HasPrefix(line, "GET") && strings.Contains(line, " blob ") {
						t.Errorf("%s: its bytes are here", line)
					}
				}
			})
		}
	}
}

// A client without the right to a blob does not join a download of it.
func TestMembershipOfARunningDownload(t *testing.T) {
	t.Parallel()
	for _, other := range []struct{ name, path string }{
		{"docker.io/acme/other", "/v2/acme/other/"}, {"ghcr.io/acme/secret", "/v2/ghcr.io/acme/secret/"},
	} {
		for _, w := range []struct {
			name, method string
			header       []string
		}{
			{"GET", "GET", nil},
			{"HEAD", "HEAD", nil},
			{"Range that has arrived", "GET", []string{"Range", "bytes=0-99"}},
			{"Range that has not", "GET", []string{"Range", "bytes=5000000-"}},
		} {
			t.Run(w.name+" through "+other.name, func(t *testing.T) {
				t.Parallel()
				m := newMembership(t, largeLayer)
				gate := origin.NewGate()
				m.hub.Script(origin.Rule{
					Kind: origin.KindBlob, Method: "GET", Ref: m.layer().String(),
					Do: origin.Fault{Stall: &origin.Stall{At: largeLayer / 2, Gate: gate}},
				})
				if res, _ := m.do(t, "GET", "/v2/acme/secret/manifests/"+m.image.Manifests[0].Digest.String()); res.StatusCode != 200 {
					t.Fatal(res.Status)
				}
				conn, r := m.dial(t)
				_, err := io.WriteString(conn, "GET /v2/acme/secret/blobs/"+m.layer().String()+" HTTP/1.1\r\nHost: m\r\n\r\n")
				if err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body := bufio.NewReader(res.Body)
				head := make([]byte, 1000) // it runs
				if _, err := io.ReadFull(body, head); err != nil {
					t.Fatal(err)
				}
				m.hub.ClearRequests()
				got, text := m.do(t, w.method, other.path+"blobs/"+m.layer().String(), w.header...)
				if got.StatusCode != 404 || bytes.Contains(text, m.bytes[:100]) || got.Header.Get("Docker-Content-Digest") != "" {
					t.Errorf("%s with %d bytes", got.Status, len(text))
				}
				want := []string{"HEAD " + other.name + " blob " + m.layer().String()}
				if diff := cmp.Diff(want, m.asked(t)); diff != "" {
					t.Errorf("questions (-want +got):\n%s", diff)
				}
				gate.Open()
				rest, err := io.ReadAll(body)
				if err != nil || !slices.Equal(append(head, rest...), m.bytes) {
					t.Errorf("the client with the right to it got %d bytes, %v", len(head)+len(rest), err)
				}
			})
		}
	}
}

// A manifest that names the layer of another repository does not give the right to a 304 of it either, during its download or
// after it.
func TestNotModifiedIsShown(t *testing.T) {
	t.Parallel()
	for _, runs := range []bool{true, false} {
		t.Run(fmt.Sprint("runs ", runs), func(t *testing.T) {
			t.Parallel()
			m := newMembership(t, largeLayer)
			naming := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"a/b","digest":%q,"size":%d},"layers":[{"mediaType":`+
				`"a/b","digest":%q,"size":%d}]}`, oci.MediaTypeOCIManifest, m.config(), len(m.image.Bytes(m.config())), m.layer(), largeLayer)
			m.hub.AddManifest("acme/other", "naming", oci.MediaTypeOCIManifest, naming)
			if res, _ := m.do(t, "GET", "/v2/acme/other/manifests/naming"); res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
			gate := origin.NewGate()
			t.Cleanup(gate.Open)
			if runs {
				m.hub.Script(origin.Rule{
					Kind: origin.KindBlob, Method: "GET", Ref: m.layer().String(),
					Do: origin.Fault{Stall: &origin.Stall{At: largeLayer / 2, Gate: gate}},
				})
				conn, r := m.dial(t)
				defer conn.Close()
				if _, err := io.WriteString(conn, "GET /v2/acme/secret/blobs/"+m.layer().String()+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if _, err := io.ReadFull(res.Body, make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			for _, match := range []string{"*", `"` + m.layer().String() + `"`} {
				res, _ := m.do(t, "GET", "/v2/acme/other/blobs/"+m.layer().String(), "If-None-Match", match)
				if res.StatusCode != 404 || res.Header.Get("Etag") != "" {
					t.Errorf("%s: %s %v", match, res.Status, res.Header)
				}
			}
			gate.Open() // before the response is closed, which reads it to its end
		})
	}
}
