package app_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

// Holes that other registries and proxies had, each in the form in which it was used there. The names are those under which they
// were published.

// aliceAndBob is a mirror of a registry with two repositories of which each of two users may pull one, by rules.
func aliceAndBob(t *testing.T, dir string, o *origin.Origin, more string) *config.Config {
	t.Helper()
	write(t, filepath.Join(dir, "pass"), secret)
	users(t, dir, "alice", "bob")
	return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], access: rules, credentials: [{name: hub, username: bot, passwordFile: pass}]%s}\n"+
		"clients: {htpasswd: users}\nrules: [{who: [alice], pull: [%q]}, {who: [bob], pull: [%q]}]\n",
		nameOf(o), o.URL(), more, nameOf(o)+"/private/alice", nameOf(o)+"/private/bob"))
}

// got is the status and the reason of an answer, without what comes after them.
func (a answered) got() string {
	return strings.TrimSpace(a.status[:3] + " " + a.reason)
}

// expect asks, and compares the status and the reason.
func (r *running) expect(t *testing.T, want, method, path string, header ...string) answered {
	t.Helper()
	a := r.asks(t, method, path, header...)
	if a.got() != want {
		t.Errorf("%s %s: %s, want %s", method, path, a.got(), want)
	}
	return a
}

// A cache of blobs for all repositories answered HEAD for a digest that only another repository had, and put the blob into the
// repository that was named; a mount by digest did the same. Any user could so read each private layer by its digest.
func TestCVE_2024_39897(t *testing.T) {
	t.Parallel()
	o := limited(t)
	built := o.AddImage("private/alice", "1", origin.Image{})
	// Bob's own manifest names alice's layer, as anybody may write one.
	o.AddManifest("private/bob", "1", built.Root.MediaType, built.Bytes(built.Root.Digest))
	r := run(t, aliceAndBob(t, t.TempDir(), o, ""))
	alice, bob := []string{"Authorization", basic("alice", "alice1")}, []string{"Authorization", basic("bob", "bob1")}
	at := nameOf(o) + "/private/"
	for _, path := range []string{"manifests/1", "blobs/" + built.Configs[0].Digest.String(), "blobs/" + built.Layers[0][0].Digest.String()} {
		r.expect(t, "200", "GET", at+"alice/"+path, alice...)
	}
	r.expect(t, "200", "GET", at+"bob/manifests/1", bob...)
	o.ClearRequests()
	for _, blob := range []oci.Descriptor{built.Configs[0], built.Layers[0][0]} {
		path := "blobs/" + blob.Digest.String()
		part := append([]string{"Range", "bytes=0-0"}, bob...)
		for range 2 { // HEAD and mount first, then what they would have opened
			r.expect(t, "404 digest-not-found", "HEAD", at+"bob/"+path, bob...)
			r.expect(t, "405 bad-request", "POST", at+"bob/blobs/uploads/?mount="+blob.Digest.String()+"&from=private/alice", bob...)
			r.expect(t, "404 digest-not-found", "GET", at+"bob/"+path, part...)
			r.expect(t, "404 digest-not-found", "GET", at+"bob/"+path, bob...)
			r.expect(t, "403 client-forbidden", "HEAD", at+"alice/"+path, bob...)
		}
	}
	for _, q := range o.Requests() {
		if q.Method == "POST" || q.Repo == "private/alice" {
			t.Errorf("the registry was asked: %s %s", q.Method, q.Path)
		}
	}
}

// A repository's blob was deleted, its membership in the cache was not. When another repository brought the same blob
// again, the first one served it again.
func TestCVE_2026_35172(t *testing.T) {
	t.Parallel()
	for name, access := range map[string]string{"public": "", "rules": ", access: rules"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := origin.Start(t, origin.Options{})
			built := o.AddImage("acme/a", "1", origin.Image{})
			o.AddImage("acme/b", "1", origin.Image{})
			text := fmt.Sprintf("  %s: {endpoints: [%q], tags: {maxAge: 0s, deleted: drop}%s}\n", nameOf(o), o.URL(), access)
			if access != "" {
				text += fmt.Sprintf("rules: [{who: [anonymous], pull: [%q]}]\n", nameOf(o)+"/**")
			}
			c := parse(t, dir, text)
			r := run(t, c)
			pull := func(repo, want string) {
				t.Helper()
				for _, path := range []string{"blobs/" + built.Layers[0][0].Digest.String(), "blobs/" + built.Configs[0].Digest.String(), "manifests/" + built.Root.Digest.String()} {
					for _, method := range []string{"HEAD", "GET"} {
						r.expect(t, want, method, nameOf(o)+"/acme/"+repo+"/"+path)
					}
				}
			}
			for _, repo := range []string{"a", "b"} {
				r.expect(t, "200", "GET", nameOf(o)+"/acme/"+repo+"/manifests/1")
				pull(repo, "200")
			}
			o.DeleteTag("acme/a", "1")
			for _, d := range append(built.Blobs(), built.Root) {
				o.Delete("acme/a", d.Digest)
			}
			r.expect(t, "404 tag-not-found", "GET", nameOf(o)+"/acme/a/manifests/1")
			pull("a", "404 digest-not-found")
			for range 2 {
				r.expect(t, "200", "GET", nameOf(o)+"/acme/b/manifests/1")
				pull("b", "200") // brings it all again
				pull("a", "404 digest-not-found")
				if err := r.stop(); err != nil { // what is on disk counts as well
					t.Fatal(err)
				}
				r = run(t, c)
			}
		})
	}
}

// spy is a server that a registry or a publisher would like the mirror to ask. It counts what comes, and wants a login.
func spy(t *testing.T) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Www-Authenticate", `Basic realm="spy"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// The realm of a registry's challenge was asked for a token wherever it was, with the proxy's own password.
func TestCVE_2026_33540(t *testing.T) {
	t.Parallel()
	at, asked := spy(t)
	for name, realm := range map[string]string{
		"an address":     at + "/token",
		"the same by 0":  strings.Replace(at, "127.0.0.1", "0.0.0.0", 1) + "/token",
		"by a name":      strings.Replace(at, "127.0.0.1", "localhost", 1) + "/token",
		"with user info": strings.Replace(at, "http://", "http://REGISTRY@", 1) + "/token",
		"no scheme":      strings.TrimPrefix(at, "http:") + "/token",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: secret, Realm: realm}})
			o.AddImage("private/app", "1", origin.Image{})
			a, log := start(t, ruled(t, t.TempDir(), o, "private/*"))
			r := &running{App: a}
			for _, path := range []string{"manifests/1", "tags/list", "blobs/sha256:" + strings.Repeat("0", 64)} {
				r.expect(t, "502 auth-host-not-allowed", "GET", nameOf(o)+"/private/app/"+path)
			}
			for _, q := range o.Requests() {
				if q.Header.Get("Authorization") != "" {
					t.Errorf("%s %s has a login", q.Method, q.Path)
				}
			}
			if text := log.String(); strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("bot:"+secret))) {
				t.Error("the password shows in the log")
			}
		})
	}
	t.Cleanup(func() {
		if n := asked.Load(); n != 0 {
			t.Errorf("the host of the realm was asked %d times", n)
		}
	})
}

// raw sends a request line as it is: clients clean a path before they send it.
func raw(t *testing.T, addr net.Addr, method, target string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", method, target); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return res.StatusCode, string(b)
}

// An empty segment in an escaped path was taken for the root of the file system, so that "/%2F%2F..%2F..%2Fetc%2Fpasswd" read
// any file. Here each place that serves something by its path is asked for a file of the mirror's own.
func TestCVE_2024_4956(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	r := run(t, ruled(t, dir, o, "**"))
	if err := r.pull(t, o, "private/app:1"); err != nil {
		t.Fatal(err)
	}
	o.ClearRequests()
	file := strings.TrimPrefix(filepath.Join(dir, "pass"), "/")
	for _, listener := range []struct {
		addr     net.Addr
		prefixes []string
	}{
		{r.Addr(), []string{
			"/", "/v2/", "/v2/" + nameOf(o) + "/", "/v2/" + nameOf(o) + "/private/app/manifests/",
			"/v2/" + nameOf(o) + "/private/app/blobs/", "/v2/" + nameOf(o) + "/private/app/blobs/sha256:", "/healthz/",
		}},
		{r.AdminAddr(), []string{"/", "/docs/failures/", "/api/v1/", "/api/v1/tags/", "/api/v1/warm/", "/debug/pprof/", "/metrics/"}},
	} {
		for _, prefix := range listener.prefixes {
			for _, attack := range []string{
				"%2F%2F%2F%2F%2F%2F%2F" + strings.Repeat("..%2F", 12) + strings.ReplaceAll(file, "/", "%2F"),
				"%2f%2f" + strings.Repeat("..%2f", 12) + strings.ReplaceAll(file, "/", "%2f"),
				"//" + strings.Repeat("../", 12) + file,
				strings.Repeat("%2e%2e/", 12) + file,
				strings.Repeat("%252e%252e%252f", 12) + file,
				strings.Repeat("..%5c", 12) + file,
				"%2F" + strings.ReplaceAll(file, "/", "%2F"),
				"..;/" + strings.Repeat("..;/", 11) + file,
			} {
				for _, method := range []string{"GET", "HEAD"} {
					status, body := raw(t, listener.addr, method, prefix+attack)
					if status < 400 || status >= 500 || strings.Contains(body, secret) {
						t.Errorf("%s %s%s: %d %s", method, prefix, attack, status, body)
					}
				}
			}
		}
	}
	if n := len(o.Requests()); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
}

// The routes of jobs were the only ones of an API without a check of the caller.
func TestCVE_2026_24124(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	c := aliceAndBob(t, dir, o, "")
	c.Admin.TokenFile = filepath.Join(dir, "admin")
	write(t, c.Admin.TokenFile, "operator's own\n")
	r := run(t, c)
	job := r.submitted(t, warm.Request{Images: []string{nameOf(o) + "/private/alice:none"}})
	r.finished(t, job.ID)
	o.ClearRequests()
	ask := func(addr net.Addr, method, path, login string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr.String()+path, strings.NewReader(`{"images":["`+nameOf(o)+`/private/app:1"]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if login != "" {
			req.Header.Set("Authorization", login)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	routes := [][3]string{ // the third: no such route
		{"POST", "/api/v1/warm"},
		{"GET", "/api/v1/warm"},
		{"GET", "/api/v1/warm/" + job.ID},
		{"DELETE", "/api/v1/warm/" + job.ID},
		{"GET", "/api/v1/warm/" + job.ID + "/events"},
		{"GET", "/api/v1/warm/none"},
		{"GET", "//api/v1/warm", "none"},
		{"GET", "/api/v1/warm/", "none"},
		{"POST", "/API/v1/warm", "none"},
	}
	for _, route := range routes {
		for _, login := range []string{"", "Bearer operator's", basic("alice", "alice1"), basic("", "operator's own"), "Bearer"} {
			if status := ask(r.AdminAddr(), route[0], route[1], login); status != 401 && (status != 404 || route[2] == "") {
				t.Errorf("%s %s with %q: %d", route[0], route[1], login, status)
			}
		}
		// The listener of clients has no such route, for the operator neither.
		if status := ask(r.Addr(), route[0], route[1], "Bearer operator's own"); status != 404 && status != 405 {
			t.Errorf("%s %s where clients pull: %d", route[0], route[1], status)
		}
	}
	if jobs := r.Warm().Jobs(); len(jobs) != 1 || len(o.Requests()) > 0 {
		t.Errorf("%d jobs, %d requests to the registry", len(jobs), len(o.Requests()))
	}
	if status := ask(r.AdminAddr(), "GET", "/api/v1/warm/"+job.ID, "Bearer operator's own"); status != 200 {
		t.Errorf("the operator: %d", status)
	}
}

// A document with the fields of an image and those of an index is one or the other by its Content-Type alone, so the
// same digest means two images. It is refused, however it is sent, and nothing of it is kept.
func TestCVE_2021_41190(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	built := o.AddImage("acme/app", "1", origin.Image{})
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)))
	descriptor := func(d oci.Descriptor) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, d.MediaType, d.Digest, d.Size)
	}
	config, layer, child := descriptor(built.Configs[0]), descriptor(built.Layers[0][0]), descriptor(built.Root)
	for name, doc := range map[string]string{
		"layers":       `{"schemaVersion":2,"config":` + config + `,"layers":[` + layer + `],"manifests":[` + child + `]}`,
		"config-alone": `{"schemaVersion":2,"config":` + config + `,"manifests":[` + child + `]}`,
		"typed-image":  `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIManifest + `","config":` + config + `,"layers":[` + layer + `],"manifests":[` + child + `]}`,
		"typed-index":  `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIIndex + `","layers":[` + layer + `],"manifests":[` + child + `]}`,
	} {
		repo := "acme/" + name
		d := o.AddManifest(repo, "1", oci.MediaTypeOCIManifest, []byte(doc)).Digest
		for _, sent := range []string{oci.MediaTypeOCIManifest, oci.MediaTypeOCIIndex, oci.MediaTypeDockerManifest, ""} {
			remove := o.Script(origin.Rule{Repo: repo, Kind: origin.KindManifest, Do: origin.Fault{Header: http.Header{"Content-Type": {sent}}}})
			for _, ref := range []string{"1", d.String()} {
				r.expect(t, "502 unsupported-image", "GET", nameOf(o)+"/"+repo+"/manifests/"+ref)
			}
			remove()
		}
		r.expect(t, "404 digest-not-found", "GET", nameOf(o)+"/"+repo+"/blobs/"+d.String())
	}
	// A document that is not ambiguous and does not say what it is keeps the type with which it came first, whatever comes later.
	plain := o.AddManifest("acme/plain", "1", oci.MediaTypeOCIIndex, []byte(`{"schemaVersion":2,"manifests":[`+child+`]}`)).Digest
	for _, sent := range []string{oci.MediaTypeOCIIndex, oci.MediaTypeOCIManifest} {
		remove := o.Script(origin.Rule{Repo: "acme/plain", Kind: origin.KindManifest, Do: origin.Fault{Header: http.Header{"Content-Type": {sent}}}})
		for _, ref := range []string{"1", plain.String()} {
			res, err := http.Get("http://" + r.Addr().String() + "/v2/" + nameOf(o) + "/acme/plain/manifests/" + ref)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != oci.MediaTypeOCIIndex {
				t.Errorf("%s as %s: %d %s", ref, sent, res.StatusCode, got)
			}
		}
		remove()
	}
}

// A layer with URLs of its publisher's choice was fetched from there, and where that wanted a login it got the registry's.
func TestCVE_2020_15157(t *testing.T) {
	t.Parallel()
	at, asked := spy(t)
	o := limited(t)
	built := o.AddImage("private/app", "1", origin.Image{})
	layer := built.Layers[0][0]
	gone := "sha256:" + strings.Repeat("0", 63) + "1"
	for i, mediaType := range []string{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", layer.MediaType} {
		o.AddManifest("private/app", fmt.Sprint("foreign", i), oci.MediaTypeDockerManifest, fmt.Appendf(nil,
			`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d,"urls":[%q]},"layers":[{"mediaType":%q,"digest":%q,"size":10,"urls":[%q]}]}`,
			oci.MediaTypeDockerManifest, built.Configs[0].MediaType, built.Configs[0].Digest, built.Configs[0].Size, at+"/config", mediaType, gone, at+"/layer"))
	}
	r := run(t, ruled(t, t.TempDir(), o, "private/*"))
	for i := range 3 {
		tag := fmt.Sprint("foreign", i)
		got := r.expect(t, "200", "GET", nameOf(o)+"/private/app/manifests/"+tag)
		if !strings.Contains(got.body, at+"/layer") {
			t.Error("the manifest is not the registry's")
		}
		for _, method := range []string{"HEAD", "GET"} {
			r.expect(t, "404 digest-not-found", method, nameOf(o)+"/private/app/blobs/"+gone)
		}
		r.expect(t, "200", "GET", nameOf(o)+"/private/app/blobs/"+built.Configs[0].Digest.String())
		r.warmed(t, o, warm.Request{Images: []string{"private/app:" + tag}, With: []string{warm.Referrers}})
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a URL of a manifest was asked %d times", n)
	}
}

// What GET of a whole blob checked, HEAD, Range, content in the cache, a download that runs, and a second way into the cache did
// not. Here each gate holds on each way.
func TestGHSA_4j4m_fchf_gr9r(t *testing.T) {
	t.Parallel()
	for name, gate := range map[string]struct {
		more   string // settings of the upstream once the gate is shut
		client string // the one that asks
		want   string
		tag    bool // the gate is for tags: digests are what a client has chosen
	}{
		"right":  {"", "bob", "403 client-forbidden", false},
		"deny":   {", deny: [private/alice]", "alice", "403 blocked-by-policy", false},
		"only":   {", only: [private/bob]", "alice", "403 blocked-by-policy", false},
		"minAge": {", tags: {minAge: 24h, minAgeUnknown: hold}", "alice", "403 too-new", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := limited(t)
			built := o.AddImage("private/alice", "1", origin.Image{Layers: []int64{5 << 20, 4 << 10}})
			o.AddImage("private/bob", "1", origin.Image{Layers: []int64{5 << 20, 4 << 10}}) // another way into the cache
			large, small := built.Layers[0][0].Digest.String(), built.Layers[0][1].Digest.String()
			if gate.tag { // the gate is there from the first pull on
				c := aliceAndBob(t, dir, o, gate.more)
				r := run(t, c)
				ways := func(when string) {
					t.Helper()
					for _, method := range []string{"HEAD", "GET"} {
						for _, header := range [][]string{nil, {"Range", "bytes=0-9"}, {"If-None-Match", `"` + built.Root.Digest.String() + `"`}} {
							header = append([]string{"Authorization", basic(gate.client, gate.client+"1")}, header...)
							if got := r.asks(t, method, nameOf(o)+"/private/alice/manifests/1", header...); got.got() != gate.want {
								t.Errorf("%s: %s %v: %s, want %s", when, method, header[2:], got.got(), gate.want)
							}
						}
					}
				}
				ways("first")
				// The digest is known from another tag, and cached.
				r.expect(t, "200", "GET", nameOf(o)+"/private/alice/manifests/"+built.Root.Digest.String(), "Authorization", basic("alice", "alice1"))
				r.expect(t, "403 too-new", "GET", nameOf(o)+"/private/bob/manifests/1", "Authorization", basic("bob", "bob1"))
				ways("cached by its digest")
				r.warmed(t, o, warm.Request{Images: []string{"private/alice:1"}})
				ways("warm")
				o.Down()
				ways("stale")
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				r = run(t, c)
				ways("after a restart")
				return
			}
			r := run(t, aliceAndBob(t, dir, o, ""))
			ways := func(when string) {
				t.Helper()
				login := []string{"Authorization", basic(gate.client, gate.client+"1")}
				for _, path := range []string{"manifests/1", "manifests/" + built.Root.Digest.String(), "blobs/" + large, "blobs/" + small, "tags/list", "referrers/" + built.Root.Digest.String()} {
					for _, method := range []string{"HEAD", "GET"} {
						for _, header := range [][]string{nil, {"Range", "bytes=0-9"}, {"Range", "bytes=-1"}, {"If-None-Match", "*"}} {
							if got := r.asks(t, method, nameOf(o)+"/private/alice/"+path, append(header, login...)...); got.got() != gate.want {
								t.Errorf("%s: %s %s %v: %s, want %s", when, method, path, header, got.got(), gate.want)
							}
						}
					}
				}
			}
			alice := []string{"Authorization", basic("alice", "alice1")}
			r.expect(t, "200", "GET", nameOf(o)+"/private/alice/manifests/1", alice...)
			r.expect(t, "200", "GET", nameOf(o)+"/private/alice/blobs/"+small, alice...)
			half := origin.NewGate()
			defer half.Open()
			o.Script(origin.Rule{Kind: origin.KindBlob, Method: "GET", Ref: large, Do: origin.Fault{Stall: &origin.Stall{At: 1 << 20, Gate: half}}})
			done := make(chan answered, 1)
			go func() { done <- r.asks(t, "GET", nameOf(o)+"/private/alice/blobs/"+large, alice...) }()
			<-half.Arrived()
			if err := r.Reload(aliceAndBob(t, dir, o, gate.more)); err != nil {
				t.Fatal(err)
			}
			o.ClearRequests()
			ways("while a download runs")
			half.Open()
			if got := <-done; got.got() != "200" || len(got.body) != 5<<20 {
				t.Errorf("the download that ran: %s, %d bytes", got.got(), len(got.body))
			}
			ways("cached")
			o.Down()
			ways("stale")
			for _, q := range o.Requests() {
				t.Errorf("the registry was asked: %s %s", q.Method, q.Path)
			}
			o.Up()
			job := r.warmed(t, o, warm.Request{Images: []string{"private/alice:1"}})
			if blocked := job.State == warm.Failed; blocked != (gate.more != "") {
				t.Errorf("a job: %s %+v", job.State, job.Images[0].Failure)
			}
			ways("warm")
		})
	}
}
