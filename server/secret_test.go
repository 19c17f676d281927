package server_test

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream"
)

// No header of a client reaches an upstream; the mirror's password reaches only the hosts that it is for; neither shows in
// logs, records or answers.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	const ours, theirs = "our-5ecret", "their-5ecret"
	w := newWire(t, wired{
		hub: origin.Options{
			Redirect: true,
			Auth:     origin.Auth{Kind: "bearer", Username: "bot", Password: ours, SeparateHost: true},
		},
		ghcr:       origin.Options{Auth: origin.Auth{Kind: "basic", Username: "bot", Password: ours}},
		credential: auth.Credential{Name: "hub", Username: "bot", Password: auth.NewSecret(ours)},
	})
	// Sites are made once the hosts are known.
	u, err := url.Parse(w.hub.URL())
	if err != nil {
		t.Fatal(err)
	}
	r, err := upstream.New(upstream.Options{
		Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: u}}, AuthHosts: []string{w.hub.TokenHost()},
		Credential: auth.Credential{Name: "hub", Username: "bot", Password: auth.NewSecret(ours)}, Log: w.logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	w.use("docker.io", r)
	im := w.hub.AddImage("library/app", "1", origin.Image{})
	w.ghcr.AddImage("acme/app", "1", origin.Image{})
	w.hub.Script(origin.Rule{Kind: origin.KindManifest, Ref: "bad", Do: origin.Fault{
		Handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-You-Sent", r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte(origin.ErrorBody("DENIED", "you sent "+r.Header.Get("Authorization")+" and bot:"+ours)))
		},
	}})
	header := []string{
		"Authorization", "Bearer " + theirs, "Cookie", "session=" + theirs, "Proxy-Authorization", "Basic " + theirs,
		"X-Registry-Auth", theirs, "Referer", "https://" + theirs, "X-Forwarded-For", theirs, "User-Agent", "docker/" + theirs,
		"Accept", "application/" + theirs, "Accept-Encoding", "gzip, " + theirs, "Via", "1.1 " + theirs,
	}
	var answers strings.Builder
	for path, status := range map[string]int{
		"/v2/app/manifests/1": 200, "/v2/app/blobs/" + im.Layers[0][0].Digest.String(): 200, "/v2/app/tags/list": 200,
		"/v2/app/manifests/none": 404, "/v2/app/manifests/bad": 403, "/v2/ghcr.io/acme/app/manifests/1": 403,
		"/v2/app/referrers/" + im.Root.Digest.String(): 200, "/v2/evil.example/a/manifests/1": 404,
	} {
		for _, method := range []string{"HEAD", "GET"} {
			res, body := w.do(t, method, path, header...)
			if res.StatusCode != status {
				t.Errorf("%s %s: %s, want %d\n%s", method, path, res.Status, status, body)
			}
			_ = res.Header.Write(&answers)
			answers.WriteString(res.Status)
			if status != 200 && status != 404 {
				answers.Write(body)
			}
		}
	}
	tokens := 0
	for name, o := range map[string]*origin.Origin{"hub": w.hub, "ghcr": w.ghcr} {
		for _, q := range o.Requests() {
			for key, values := range q.Header {
				if text := strings.Join(values, " "); strings.Contains(text, theirs) {
					t.Errorf("%s got %s: %s of the client", name, key, text)
				}
				known := []string{"Accept", "Accept-Encoding", "Authorization", "Range", "User-Agent"}
				if !slices.Contains(known, key) {
					t.Errorf("%s got an unwanted header: %s %q", name, key, values)
				}
			}
			user, password, _ := (&http.Request{Header: q.Header}).BasicAuth()
			switch given := q.Header.Get("Authorization"); {
			case q.Role == origin.RoleCDN && given != "":
				t.Errorf("the blob host got %q", given)
			case q.Role == origin.RoleRegistry && user != "":
				t.Errorf("%s: the registry got the password for the token service", name)
			case q.Role == origin.RoleToken && user == "bot" && password == ours:
				tokens++
			}
		}
	}
	if tokens == 0 {
		t.Error("the token service got no password: the test proves nothing")
	}
	for what, text := range map[string]string{"answers": answers.String(), "log": w.log.String()} {
		text = strings.ReplaceAll(text, "Bearer ***", "")
		for _, secret := range []string{ours, theirs, "Bearer ", "Basic "} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s have %q: ...%s", what, secret, text[max(0, i-200):min(len(text), i+80)])
			}
		}
	}
}

// use replaces the upstream of a site.
func (w *wire) use(name string, u pull.Upstream) {
	setup := pull.Setup{Routes: w.setup.Routes, Sites: make(map[string]pull.Site)}
	maps.Copy(setup.Sites, w.setup.Sites)
	site := setup.Sites[name]
	site.Upstream = u
	setup.Sites[name] = site
	w.setup = setup
	w.puller.Use(setup)
}

// A mirror whose endpoint is itself says so in the answer to the client.
func TestEndpointThatIsTheMirror(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{via: "mirror-a"})
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	r, err := upstream.New(upstream.Options{Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: u}}, Via: "mirror-a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	w.use("docker.io", r)
	digest := sum([]byte("x")).String()
	for _, path := range []string{
		"/v2/library/app/manifests/1", "/v2/library/app/manifests/" + digest, "/v2/library/app/blobs/" + digest, "/v2/app/tags/list",
	} {
		for _, method := range []string{"HEAD", "GET"} {
			before := len(w.records.all())
			res, _ := w.do(t, method, path)
			if res.StatusCode != 502 || !strings.Contains(res.Status, "came back to it") {
				t.Errorf("%s %s: %s", method, path, res.Status)
			}
			if n := len(w.records.all()) - before; n > 6 { // with those of the loop
				t.Errorf("%s %s: %d requests", method, path, n)
			}
		}
	}
}
