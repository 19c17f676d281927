package upstream_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

// rotating is a source whose password changes.
type rotating struct {
	mu   sync.Mutex
	pass []string // of each time that it is asked, the last one for good
}

func (r *rotating) Credential(context.Context) (auth.Credential, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pass[0]
	if len(r.pass) > 1 {
		r.pass = r.pass[1:]
	}
	return auth.Credential{Name: "aws", Username: "AWS", Password: auth.NewSecret(p)}, nil
}

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

// TestECR is a registry that takes Basic on every request, and says 403 to a password that has expired.
func TestECR(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "":
			w.Header().Set("WWW-Authenticate", `Basic realm="https://1.dkr.ecr.example/",service="ecr.amazonaws.com"`)
			http.Error(w, "Not Authorized", http.StatusUnauthorized)
		case basic("AWS", "new"):
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, origin.ErrorBody("DENIED",
				"Your authorization token has expired. Reauthenticate and try again."))
		}
	})
	// The source has a new password when it is asked again: that is all that a refusal needs.
	r := registry(t, s.URL, as(&rotating{pass: []string{"old", "new"}}))
	if _, err := r.Manifest(t.Context(), "app", "1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		"GET /v2/app/manifests/1", "GET /v2/app/manifests/1 [" + basic("AWS", "old") + "]",
		"GET /v2/app/manifests/1 [" + basic("AWS", "new") + "]",
	}, s.asked()); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}

	r = registry(t, s.URL, as(login("AWS", "old")))
	_, err := r.Resolve(t.Context(), "app", "1") // whose HEAD says 403 and nothing else
	e := upstreamError(t, err)
	if e.Status != 403 || e.Code != "DENIED" || e.Credential.State != auth.StateExpired {
		t.Errorf("%d %s, credential %+v, want 403 DENIED, expired", e.Status, e.Code, e.Credential)
	}
}

// TestPublicECR is a registry whose 400 means 401.
func TestPublicECR(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good := "one"
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/token/":
			_, _ = io.WriteString(w, `{"token":"`+good+`"}`)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token/",service="public.ecr.aws",scope="aws"`)
			http.Error(w, origin.ErrorBody("DENIED", "Not Authorized"), http.StatusUnauthorized)
		case r.Header.Get("Authorization") != "Bearer "+good:
			http.Error(w, origin.ErrorBody("DENIED", "Your Authorization Token is invalid."), http.StatusBadRequest)
		default:
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		}
	})
	r := registry(t, s.URL)
	get := func(repo string) {
		t.Helper()
		if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
			t.Error(err)
		}
	}
	get("a/one")
	get("b/two")
	if n := s.count("/token/"); n != 1 {
		t.Errorf("%d token requests for two repositories, want 1: the scope is aws", n)
	}
	mu.Lock()
	good = "two"
	mu.Unlock()
	get("a/one")
	if n := s.count("/token/"); n != 2 {
		t.Errorf("%d token requests after it expired, want 2", n)
	}
	if _, err := r.Resolve(t.Context(), "a/one", "1"); err != nil { // by HEAD, without a body to read
		t.Error(err)
	}
}

// TestHarbor is a registry that offers Bearer to whom it doesn't know and Basic to whom it refuses.
func TestHarbor(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good := 1
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch a := r.Header.Get("Authorization"); {
		case r.URL.Path == "/service/token":
			_, _ = fmt.Fprintf(w, `{"token":"t%d"}`, good)
		case a == fmt.Sprintf("Bearer t%d", good):
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		default:
			if a == "" {
				w.Header().Set("WWW-Authenticate",
					`Bearer realm="`+s.URL+`/service/token",service="harbor-registry",scope="repository:p/r:pull"`)
			} else {
				w.Header().Set("WWW-Authenticate", `Basic realm="harbor"`)
			}
			http.Error(w, origin.ErrorBody("UNAUTHORIZED", "unauthorized to access repository"), http.StatusUnauthorized)
		}
	})
	r := registry(t, s.URL, as(login("bot", "pw")))
	for range 2 {
		if _, err := r.Manifest(t.Context(), "p/r", "1"); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		good++
		mu.Unlock()
	}
	if n := s.count("/service/token"); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
	if n := s.count("/manifests/1 [Basic"); n != 0 {
		t.Errorf("%d requests to the registry with the password, want none: it works with tokens", n)
	}
}

// TestArtifactory is a registry with a token service for each of its repositories.
func TestArtifactory(t *testing.T) {
	t.Parallel()
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		key, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/"):
			key := strings.Split(r.URL.Path, "/")[2]
			if !strings.Contains(r.URL.RawQuery, "repository%3A"+key+"%2F") {
				http.Error(w, `{"errors":[{"status":403,"message":"not of this repository"}]}`, http.StatusForbidden)
				return
			}
			_, _ = io.WriteString(w, `{"token":"`+key+`"}`)
		case r.Header.Get("Authorization") == "Bearer "+key:
			w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
			_, _ = w.Write(manifest)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/api/`+key+`/token",service="art"`)
			http.Error(w, origin.ErrorBody("UNAUTHORIZED", "authentication required"), http.StatusUnauthorized)
		}
	})
	r := registry(t, s.URL)
	for range 3 {
		for _, repo := range []string{"local/app", "remote/app", "local/other"} {
			if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
				t.Fatalf("%s: %v", repo, err)
			}
		}
	}
	asked := s.asked()
	tokens := slices.DeleteFunc(slices.Clone(asked), func(l string) bool { return !strings.Contains(l, "/api/") })
	if len(tokens) != 4 { // one of them to learn that remote has its own
		t.Errorf("token requests %q, want 4", tokens)
	}
}
