package upstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// shop is a registry with one private repository, app, which bot may read, and a front that answers requests without a
// login as it is told.
type shop struct {
	mu     sync.Mutex
	front  http.HandlerFunc // nil: 401
	tokens bool             // Bearer, and the token service gives every client a token
	logins []string         // requests with bot's login
}

func (s *shop) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, _, basic := r.BasicAuth()
	if r.URL.Path == "/token" {
		value := "for-all"
		if basic {
			value = "for-" + user
		}
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, value)
		return
	}
	if user == "bot" || r.Header.Get("Authorization") == "Bearer for-bot" {
		s.logins = append(s.logins, r.Method+" "+r.URL.Path)
		honest(w, r)
		return
	}
	if s.front != nil {
		s.front(w, r)
		return
	}
	challenge := `Basic realm="reg"`
	if s.tokens {
		challenge = `Bearer realm="/token",service="reg"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
}

// honest is a registry's honest answer.
func honest(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/tags/list") {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"name":"app","tags":["1"]}`))
		return
	}
	if strings.Contains(r.URL.Path, "/referrers/") {
		w.Header().Set("Content-Type", oci.MediaTypeOCIIndex)
		_, _ = w.Write(oci.EmptyIndex())
		return
	}
	if strings.Contains(r.URL.Path, "/blobs/") {
		w.Header().Set("Content-Length", "5")
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte("layer"))
		}
		return
	}
	w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
	w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
	w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(manifest)
	}
}

func (s *shop) stands(front http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.front = front
}

func (s *shop) shown() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.logins
	s.logins = nil
	return list
}

func (s *shop) registry(t *testing.T) *upstream.Registry {
	t.Helper()
	srv := serve(t, s.serve)
	return registry(t, srv.URL, as(login("bot", "pw")), func(o *upstream.Options) {
		o.Public = true
		o.RedirectHosts = []string{"127.0.0.1", "localhost"}
	})
}

// everything asks for all that a client can ask for, and ignores what comes.
func everything(t *testing.T, r *upstream.Registry) {
	t.Helper()
	d := digestOf(manifest)
	if desc, err := r.Resolve(t.Context(), "app", "1"); err == nil { // what follows a tag in a pull
		_, _ = r.Manifest(t.Context(), "app", string(desc.Digest))
	}
	if m, err := r.Manifest(t.Context(), "app", "1"); err == nil {
		_, _ = r.Manifest(t.Context(), "app", string(m.Digest))
	}
	_, _ = r.Resolve(t.Context(), "app", string(d))
	_, _ = r.Manifest(t.Context(), "app", string(d))
	_, _ = r.Stat(t.Context(), "app", digestOf([]byte("layer")))
	_, _ = r.Tags(t.Context(), "app", nil)
	_, _ = r.Referrers(t.Context(), "app", d, nil)
}

// Whatever stands before a private repository and answers requests without a login: unless it sends the very bytes of a
// manifest, our login reads nothing, however often it is asked, and also once the registry is itself again.
func TestWhatIsNotAProofOfPublic(t *testing.T) {
	t.Parallel()
	page := func(contentType, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			if r.Method == http.MethodGet {
				_, _ = w.Write([]byte(text))
			}
		}
	}
	digested := func(h http.HandlerFunc, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", string(digestOf([]byte(text))))
			h(w, r)
		}
	}
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/login") {
			page("text/html", "<html>sign in</html>")(w, r)
			return
		}
		honest(w, r)
	})
	to := func(status int, target string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if target == "" {
				target = elsewhere.URL + r.URL.Path
			}
			w.Header().Set("Location", target)
			w.WriteHeader(status)
		}
	}
	only := func(part string, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, part) {
				h(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
			http.Error(w, `{}`, http.StatusUnauthorized)
		}
	}
	fronts := map[string]http.HandlerFunc{
		"a login page":                  page("text/html", "<html>sign in</html>"),
		"a login page called JSON":      page("application/json", "<html>sign in</html>"),
		"a page that looks like one":    page("application/json", `{"status":"ok"}`),
		"a page with a manifest's type": page(oci.MediaTypeOCIManifest, `{"schemaVersion":2,"mediaType":"`+oci.MediaTypeOCIManifest+`","config":{"mediaType":"a/b","digest":"`+string(digestOf(nil))+`","size":0},"layers":[]}`),
		"JSON of a login":               page("application/json", `{"login":"https://sso.example/"}`),
		"JSON as a manifest":            page(oci.MediaTypeOCIManifest, `{"login":"https://sso.example/"}`),
		"JSON as an index":              page(oci.MediaTypeOCIIndex, `{"login":"https://sso.example/"}`),
		"JSON that says its digest":     digested(page("application/json", `{"login":"https://sso.example/"}`), `{"login":"https://sso.example/"}`),
		"JSON as a manifest, digest":    digested(page(oci.MediaTypeOCIManifest, `{"login":"https://sso.example/"}`), `{"login":"https://sso.example/"}`),
		"an empty index":                digested(page(oci.MediaTypeOCIIndex, string(oci.EmptyIndex())), string(oci.EmptyIndex())),
		"nothing":                       page("text/plain", ""),
		"a redirect to a login page":    to(http.StatusFound, elsewhere.URL+"/login"),
		"303 to a login page":           to(http.StatusSeeOther, elsewhere.URL+"/login"),
		"307 to a login page":           to(http.StatusTemporaryRedirect, elsewhere.URL+"/login"),
		"a redirect within the origin":  to(http.StatusFound, "/login"),
		"a redirect to an open repository": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v2/open/") {
				honest(w, r)
				return
			}
			if strings.HasSuffix(r.URL.Path, "/manifests/1") {
				w.Header().Set("Location", "/v2/open/manifests/1")
				w.WriteHeader(http.StatusTemporaryRedirect)
				return
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
			http.Error(w, `{}`, http.StatusUnauthorized)
		},
		"another host has the manifest": to(http.StatusTemporaryRedirect, ""),
		"lists are open":                only("/tags/", honest),
		"referrers are open":            only("/referrers/", honest),
		"blobs are open":                only("/blobs/", honest),
		"HEAD is open": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				honest(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
			http.Error(w, `{}`, http.StatusUnauthorized)
		},
		"204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"404": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusNotFound) },
		"429": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusTooManyRequests) },
		"503": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusServiceUnavailable) },
	}
	for name, front := range fronts {
		for _, tokens := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tokens %v", name, tokens), func(t *testing.T) {
				t.Parallel()
				s := &shop{front: front, tokens: tokens}
				r := s.registry(t)
				everything(t, r)
				everything(t, r)
				if got := s.shown(); len(got) > 0 {
					t.Errorf("behind it our login was shown: %v", got)
				}
				s.stands(nil)
				everything(t, r)
				if got := s.shown(); len(got) > 0 {
					t.Errorf("after it our login was shown: %v", got)
				}
			})
		}
	}
}

// A repository that refuses a request without a login is public no longer, from that answer on: the next check of a tag
// finds it out, since it goes without our login.
func TestPublicEndsWithARefusal(t *testing.T) {
	t.Parallel()
	for _, tokens := range []bool{false, true} {
		for name, front := range map[string]http.HandlerFunc{
			"challenged": nil,
			"401":        func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusUnauthorized) },
			"403":        func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusForbidden) },
		} {
			t.Run(fmt.Sprintf("%s, tokens %v", name, tokens), func(t *testing.T) {
				t.Parallel()
				s := &shop{tokens: tokens}
				s.stands(func(w http.ResponseWriter, r *http.Request) {
					if tokens && r.Header.Get("Authorization") == "" {
						w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`)
						http.Error(w, `{}`, http.StatusUnauthorized)
						return
					}
					honest(w, r)
				})
				r := s.registry(t)
				everything(t, r)
				if got := s.shown(); tokens && !slices.Contains(got, "GET /v2/app/manifests/"+string(digestOf(manifest))) {
					t.Fatalf("our login was not used for a public repository: %v", got)
				}
				s.stands(front)
				if _, err := r.Resolve(t.Context(), "app", "1"); err == nil {
					t.Error("a private tag was resolved")
				}
				everything(t, r)
				if got := s.shown(); len(got) > 0 {
					t.Errorf("our login was shown: %v", got)
				}
			})
		}
	}
}

// A tag is checked without our login where that is for quota alone. Where the address has reached its limit the login goes
// on, for a repository that is known to be public.
func TestTagsAreCheckedWithoutALogin(t *testing.T) {
	t.Parallel()
	s := &shop{tokens: true}
	open := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`)
			http.Error(w, `{}`, http.StatusUnauthorized)
			return
		}
		honest(w, r)
	}
	s.stands(open)
	r := s.registry(t)
	if _, err := r.Manifest(t.Context(), "app", "1"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.shown(); len(got) > 0 {
		t.Errorf("our login was shown: %v", got)
	}
	s.stands(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusTooManyRequests) })
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Error(err)
	}
	if got := s.shown(); len(got) != 1 || got[0] != "HEAD /v2/app/manifests/1" {
		t.Errorf("our login was shown for %v", got)
	}
	if _, err := r.Resolve(t.Context(), "other", "1"); err == nil {
		t.Error("a repository that has shown nothing was asked with our login")
	}
	if got := s.shown(); len(got) > 0 {
		t.Errorf("our login was shown: %v", got)
	}
}

// What a registry shows to our certificate is shown to a login, and proves nothing of a repository.
func TestACertificateIsALogin(t *testing.T) {
	t.Parallel()
	s := &shop{tokens: true}
	s.stands(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 || r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`)
			http.Error(w, `{}`, http.StatusUnauthorized)
			return
		}
		honest(w, r)
	})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	r := registry(t, srv.URL, as(login("bot", "pw")), func(o *upstream.Options) {
		pool := x509.NewCertPool()
		pool.AddCert(srv.Certificate())
		o.Public, o.Endpoints[0].RootCAs, o.Endpoints[0].Certificate = true, pool, &srv.TLS.Certificates[0]
	})
	if _, err := r.Manifest(t.Context(), "app", "1"); err != nil {
		t.Fatal(err)
	}
	everything(t, r)
	if got := s.shown(); len(got) > 0 {
		t.Errorf("by our certificate the repository was taken for public, and our login was shown: %v", got)
	}
}
