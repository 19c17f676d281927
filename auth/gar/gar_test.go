package gar_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/gar"
	"github.com/registrymirror/mirror/auth/internal/standin"
	"github.com/registrymirror/mirror/internal/clouds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host   = "europe-west1-docker.pkg.dev"
	access = "ya29.canary-access-token-5d"
	email  = "mirror@project.iam.gserviceaccount.com"
)

var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func keyPEM() string {
	b, err := x509.MarshalPKCS8PrivateKey(key())
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// clean reports a text that shows a token, a key, or a piece of one.
func clean(t *testing.T, what string, v any) {
	t.Helper()
	text := fmt.Sprintf("%+v", v)
	for _, c := range []string{access, "PRIVATE KEY", keyPEM()[60:90], "eyJ"} {
		if strings.Contains(text, c) {
			t.Errorf("%s shows a secret: %s", what, text)
		}
	}
}

// google stands in for the metadata server and for the token service, and checks its requests as they do.
type google struct {
	t      *testing.T
	skew   time.Duration
	life   int
	absent bool
}

func (s *google) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := map[string]any{"access_token": access, "expires_in": s.life, "token_type": "Bearer"}
	switch r.URL.Path {
	case "/computeMetadata/v1/instance/service-accounts/default/token":
		w.Header().Set("Metadata-Flavor", "Google")
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google" || r.Header.Get("X-Forwarded-For") != "":
			http.Error(w, "Missing required header", http.StatusForbidden)
		case s.absent:
			http.NotFound(w, r)
		default:
			_ = json.NewEncoder(w).Encode(answer)
		}
	case "/token":
		if why := s.check(r); why != "" {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": why})
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	default:
		http.NotFound(w, r)
	}
}

// check verifies an assertion as RFC 7523 has it.
func (s *google) check(r *http.Request) string {
	assertion := r.FormValue("assertion")
	parts := strings.Split(assertion, ".")
	if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		return "bad request"
	}
	decode := func(p string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil {
			s.t.Error(err)
		}
		return b
	}
	var header struct{ Alg, Typ, Kid string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	if json.Unmarshal(decode(parts[0]), &header) != nil || json.Unmarshal(decode(parts[1]), &claims) != nil {
		return "not JSON"
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	now := time.Now().Add(s.skew)
	iat := time.Unix(claims.Iat, 0)
	switch {
	case header.Alg != "RS256" || header.Kid != "kid-1":
		return "Invalid JWT: header"
	case rsa.VerifyPKCS1v15(&key().PublicKey, crypto.SHA256, sum[:], decode(parts[2])) != nil:
		return "Invalid JWT Signature. " + assertion
	case claims.Iss != email || claims.Scope != "https://www.googleapis.com/auth/cloud-platform" ||
		!strings.HasSuffix(claims.Aud, "/token"):
		return "Invalid JWT: claims"
	case iat.Sub(now).Abs() > 5*time.Minute || claims.Exp-claims.Iat > 3600 || time.Unix(claims.Exp, 0).Before(now):
		return "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
	}
	return ""
}

func keyFile(t *testing.T, change func(map[string]string)) string {
	t.Helper()
	doc := map[string]string{
		"type": "service_account", "client_email": email, "private_key": keyPEM(), "private_key_id": "kid-1",
	}
	if change != nil {
		change(doc)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sa.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func envOf(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

// Each way to a token, over loopback.
func TestLogin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		host   string
		change func(*google)
		key    func(map[string]string) // nil: the metadata server
		env    bool                    // the key is named by the environment
		asked  string
		err    string
	}{
		{name: "metadata", asked: "GET /computeMetadata/v1/instance/service-accounts/default/token"},
		{name: "gcr", host: "eu.gcr.io", asked: "GET /computeMetadata/v1/instance/service-accounts/default/token"},
		{
			name: "machine without a service account", change: func(s *google) { s.absent = true },
			asked: "GET /computeMetadata/v1/instance/service-accounts/default/token", err: "the machine has no service account",
		},
		{name: "key", key: func(map[string]string) {}, asked: "POST /token"},
		{name: "key of the environment", key: func(map[string]string) {}, env: true, asked: "POST /token"},
		{
			name: "another key", asked: "POST /token", err: "400 invalid_grant: Invalid JWT: header",
			key: func(m map[string]string) { m["private_key_id"] = "kid-2" },
		},
		{
			name: "another account", asked: "POST /token", err: "log in as other@x: ",
			key: func(m map[string]string) { m["client_email"] = "other@x" },
		},
		{name: "no key", key: func(m map[string]string) { m["private_key"] = "" }, err: "has no private_key or no client_email"},
		{name: "garbage as a key", key: func(m map[string]string) { m["private_key"] = keyPEM()[:200] }, err: "has no private_key"},
		{name: "user", key: func(m map[string]string) { m["type"] = "authorized_user" }, err: "is of type authorized_user"},
		{name: "federation", key: func(m map[string]string) { m["type"] = "external_account" }, err: "is of type external_account"},
		{name: "no type", key: func(m map[string]string) { m["type"] = "" }, err: "is not a key of a service_account"},
		{
			name: "token service without TLS", key: func(m map[string]string) { m["token_uri"] = "http://evil.example/token" },
			err: "token_uri that is not https",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &google{t: t, life: 3599}
			if tt.change != nil {
				tt.change(s)
			}
			service := &standin.Service{Handler: s}
			server := httptest.NewServer(service)
			defer server.Close()
			o := gar.Options{Host: host, Env: envOf(map[string]string{"GCE_METADATA_HOST": strings.TrimPrefix(server.URL, "http://")})}
			if tt.host != "" {
				o.Host = tt.host
			}
			if tt.key != nil {
				file := keyFile(t, func(m map[string]string) {
					m["token_uri"] = server.URL + "/token"
					tt.key(m)
				})
				if tt.env {
					o.Env = envOf(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": file})
				} else {
					o.KeyFile = file
				}
			}
			var log bytes.Buffer
			src, err := gar.New(o, auth.Refresh{Name: "google", Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			c, err := src.Credential(t.Context())
			clean(t, "error", err)
			clean(t, "log", log.String())
			clean(t, "state", src.Status())
			if got := strings.Join(service.Asked(), ","); got != tt.asked {
				t.Errorf("asked %s, want %s", got, tt.asked)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || c.Username != "oauth2accesstoken" || c.Password.Reveal() != access {
				t.Fatalf("%s %q, %v", c.Username, c.Password.Reveal(), err)
			}
			if left := time.Until(c.Expires); left < 3590*time.Second || left > 3599*time.Second {
				t.Errorf("expires in %s", left)
			}
			if st := src.Status(); st.State != auth.StateOK || st.Kind != "gar" || st.For != o.Host {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-2 * time.Hour, 6 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			service := &standin.Service{Handler: &google{t: t, life: 3599, skew: skew}, Skew: skew}
			var log bytes.Buffer
			src, err := gar.New(gar.Options{
				Host: host, Transport: service, Env: envOf(nil), KeyFile: keyFile(t, nil),
			}, auth.Refresh{Name: "google", Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			c, err := src.Credential(t.Context())
			if err != nil || time.Until(c.Expires) != 3599*time.Second || len(service.Asked()) != 2 ||
				!strings.Contains(log.String(), "local clock differs from Google's") {
				t.Errorf("%v, %v, asked %q, log %s", c, err, service.Asked(), &log)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	l := standin.Login{
		Host: "169.254.169.254", Header: http.Header{"Metadata-Flavor": {"Google"}}, Limit: 3 * time.Second, Clean: clean,
		Try: func(t *testing.T, service *standin.Service) (bool, any, error) {
			service.Handler = &google{t: t, life: 3599}
			src, err := gar.New(gar.Options{Host: host, Transport: service, Env: envOf(nil)}, auth.Refresh{Name: "google"})
			if err != nil {
				t.Fatal(err)
			}
			c, err := src.Credential(t.Context())
			return c.Password.Reveal() == access, src.Status(), err
		},
	}
	other := l
	other.Header = nil
	fault := func(name, err string, a standin.Answer) standin.Fault {
		return standin.Fault{Name: name, Asked: 1, Err: err, Answer: a}
	}
	token := func(rest string) standin.Answer { return l.Reply(200, `{"access_token":"`+access+`"`+rest+`}`) }
	standin.TestFaults(
		t, l,
		fault("another server", "is not Google's metadata server", other.Reply(200, `{"access_token":"`+access+`"}`)),
		fault("no token", "without an access token", l.Reply(200, `{"expires_in":5}`)),
		fault("another type", "another type", token(`,"token_type":"MAC"`)),
		fault("a life without sense", "that lives", token(`,"expires_in":1e18`)),
		fault("a negative life", "that lives", token(`,"expires_in":-1`)),
		fault("no life", "", token("")),
		fault("text as a life", `wrong type of value in "expires_in"`, token(`,"expires_in":"x"`)),
		fault("refusal", "403 PERMISSION_DENIED: no", l.Reply(403, `{"error":{"code":403,"status":"PERMISSION_DENIED","message":"no"}}`)),
	)
}

// The metadata server gives a token of its cache, with the rest of its life: it is asked again before that is over.
func TestTokenOfACache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Hour)
		serial := 0
		service := &standin.Service{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if time.Until(end) < 5*time.Minute {
				end = time.Now().Add(time.Hour)
				serial++
			}
			w.Header().Set("Metadata-Flavor", "Google")
			_, _ = fmt.Fprintf(w, `{"access_token":"t%d","expires_in":%d}`, serial, int(time.Until(end).Seconds()))
		})}
		src, err := gar.New(gar.Options{Host: host, Transport: service, Env: envOf(nil)}, auth.Refresh{Name: "google"})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 * 60 * 2 { // five hours
			c, err := src.Credential(t.Context())
			if err != nil || time.Until(c.Expires) <= 0 {
				t.Fatalf("%v, expires in %s", err, time.Until(c.Expires))
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
		}
		if n := len(service.Asked()); n > 60 {
			t.Errorf("asked %d times in five hours", n)
		}
	})
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"gcr.io": true, "eu.gcr.io": true, "us-docker.pkg.dev": true, "europe-west1-docker.pkg.dev": true,
		"docker.io": false, "evilgcr.io": false, "gcr.io.evil.example": false, "a.b.gcr.io": false, "gcr.io:5000": false,
		"us-docker.pkg.dev.evil.example": false, "evil.example/us-docker.pkg.dev": false, "us-npm.pkg.dev": false,
		"x.us-docker.pkg.dev": false, "gcrxio": false, "gcr.io\n": false, "": false,
	} {
		if got := clouds.GAR.Is(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
		if _, err := gar.New(gar.Options{Host: host}, auth.Refresh{}); (err == nil) != want {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// Whatever a key file holds, an error has nothing of it.
func FuzzKeyFile(f *testing.F) {
	f.Add(`{"type":"service_account","client_email":"a","private_key":"b"}`)
	f.Add(`{"type":"service_account","client_email":"a","token_uri":"http://[::1"}`)
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "sa.json")
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := gar.New(gar.Options{
			Host: host, KeyFile: path, Env: envOf(nil), Transport: &standin.Service{Handler: http.NotFoundHandler()},
		}, auth.Refresh{Name: "google"})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := src.Credential(t.Context()); err == nil {
			t.Errorf("a login without a key: %v", c)
		}
	})
}
