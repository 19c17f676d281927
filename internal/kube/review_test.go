package kube_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/kube"
)

// Answers of API servers, as they send them.
func TestReviewToken(t *testing.T) {
	t.Parallel()
	const metadata = `"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{"creationTimestamp":null},"spec":{"token":"TOKEN"},`
	for _, tt := range []struct {
		name, answer string
		code         int
		user, why    string
		refused      int
	}{
		{
			"valid", `{` + metadata + `"status":{"authenticated":true,"user":{"username":"system:serviceaccount:builds:kaniko",` +
				`"uid":"c1d2","groups":["system:serviceaccounts","system:authenticated"],"extra":{"authentication.kubernetes.io/pod-name":["a"]}},` +
				`"audiences":["mirror"]}}`, 201, "system:serviceaccount:builds:kaniko", "", 0,
		},
		{
			"for another audience", `{` + metadata + `"status":{"user":{},"error":"[invalid bearer token, token audiences [\"vault\"] is ` +
				`invalid for the target audiences [\"mirror\"]]"}}`, 201, "", "[invalid bearer token, token audiences", 0,
		},
		{"a deleted pod", `{` + metadata + `"status":{"user":{},"error":"[invalid bearer token, service account token has been invalidated]"}}`, 201, "", "has been invalidated", 0},
		{"an API server without audiences", `{` + metadata + `"status":{"authenticated":true,"user":{"username":"system:serviceaccount:a:b"}}}`, 201, "", "", 0},
		{"an error that shows the token", `{` + metadata + `"status":{"user":{},"error":"bad token sesame-sesame"}}`, 201, "", "bad token ***", 0},
		{
			"without the right", `{"kind":"Status","status":"Failure","message":"tokenreviews.authentication.k8s.io is forbidden: User ` +
				`\"system:serviceaccount:mirror:mirror\" cannot create resource","reason":"Forbidden","code":403}`, 403, "", "", 403,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var in struct {
					APIVersion, Kind string
					Spec             struct {
						Token     string
						Audiences []string
					}
				}
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != http.MethodPost ||
					r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || in.APIVersion != "authentication.k8s.io/v1" ||
					in.Kind != "TokenReview" || in.Spec.Token != "sesame-sesame" || len(in.Spec.Audiences) != 1 || in.Spec.Audiences[0] != "mirror" ||
					r.Header.Get("Authorization") != "Bearer own" {
					t.Errorf("%s %s: %+v, %v", r.Method, r.URL, in, err)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.code)
				_, _ = w.Write([]byte(tt.answer))
			}))
			t.Cleanup(s.Close)
			dir := t.TempDir()
			ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
			for name, text := range map[string][]byte{"token": []byte("own"), "ca": ca} {
				if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c, err := kube.NewClient(kube.ClientOptions{Server: s.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca")})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			user, why, err := c.ReviewToken(t.Context(), "sesame-sesame", "mirror")
			if e, _ := errors.AsType[*kube.APIError](err); user != tt.user || !strings.Contains(why, tt.why) || (e != nil) != (tt.refused != 0) ||
				e != nil && e.Status != tt.refused {
				t.Errorf("%q %q %v", user, why, err)
			}
		})
	}
}

// The keys of a cluster come as a type of their own, which has to be asked for.
func TestKeys(t *testing.T) {
	t.Parallel()
	const set = `{"keys":[{"use":"sig","kty":"EC","kid":"a","crv":"P-256","alg":"ES256","x":"x","y":"y"}]}`
	allowed := true
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet || r.URL.Path != "/openid/v1/jwks" || r.Header.Get("Authorization") != "Bearer own":
			t.Errorf("%s %s", r.Method, r.URL)
		case !strings.Contains(r.Header.Get("Accept"), "*/*"): // as API servers do
			w.WriteHeader(http.StatusNotAcceptable)
		case !allowed:
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind":"Status","status":"Failure","message":"forbidden: cannot get path \"/openid/v1/jwks\"","reason":"Forbidden","code":403}`))
		default:
			w.Header().Set("Content-Type", "application/jwk-set+json")
			_, _ = w.Write([]byte(set))
		}
	}))
	defer s.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, err := kube.NewClient(kube.ClientOptions{
		Server: s.URL, TokenFile: write("token", "own"),
		CAFile: write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.Keys(t.Context()); err != nil || string(got) != set {
		t.Errorf("%s, %v", got, err)
	}
	allowed = false
	if _, err := c.Keys(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot get path") {
		t.Errorf("without the right: %v", err)
	}
}
