package acr_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/acr"
	"github.com/registrymirror/mirror/auth/internal/standin"
	"github.com/registrymirror/mirror/internal/clouds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host      = "myregistry.azurecr.io"
	tenant    = "11111111-2222-3333-4444-555555555555"
	client    = "99999999-8888-7777-6666-555555555555"
	federated = "canary.federated.token-1a"
	secret    = "canary-client+secret/2b"
	entra     = "canary.entra.token-3c"
)

// refresh is a refresh token of three hours by a clock that is a year off.
var refresh = "eyJh." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iat":%d,"exp":%d}`, int(1e9), int(1e9)+3*3600)) +
	".canary-refresh-4d"

func clean(t *testing.T, what string, v any) {
	t.Helper()
	text := fmt.Sprintf("%+v", v)
	for _, c := range []string{federated, secret, url.QueryEscape(secret), entra, refresh, "canary"} {
		if strings.Contains(text, c) {
			t.Errorf("%s shows a secret: %s", what, text)
		}
	}
}

// azure stands in for Entra, a machine's metadata, and a registry's exchange, and checks its requests as they do.
type azure struct{ refused bool }

func (s azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	no := func(status int, code, text string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": code, "error_description": text, "error_codes": []int{700016}})
	}
	switch r.URL.Path {
	case "/" + tenant + "/oauth2/v2.0/token":
		known := r.FormValue("client_assertion") == federated &&
			r.FormValue("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
			r.FormValue("client_secret") == secret
		switch {
		case r.FormValue("grant_type") != "client_credentials" ||
			r.FormValue("scope") != "https://containerregistry.azure.net/.default":
			no(400, "invalid_request", "")
		case !known || r.FormValue("client_id") != client:
			no(401, "invalid_client", "AADSTS7000215: Invalid client secret provided: "+r.FormValue("client_secret")+
				r.FormValue("client_assertion")+"\r\nTrace ID: x")
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": entra})
		}
	case "/metadata/identity/oauth2/token":
		switch {
		case r.Header.Get("Metadata") != "true" || r.FormValue("resource") != "https://containerregistry.azure.net" ||
			r.FormValue("api-version") == "":
			no(400, "invalid_request", "")
		case s.refused:
			no(400, "invalid_request", "Identity not found")
		case r.FormValue("client_id") != "" && r.FormValue("client_id") != client:
			no(400, "invalid_request", "Multiple user assigned identities exist")
		default: // numbers are texts here
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": entra, "expires_in": "86399", "token_type": "Bearer"})
		}
	case "/oauth2/exchange":
		if r.Method != http.MethodPost || r.FormValue("grant_type") != "access_token" || r.FormValue("service") != host ||
			r.FormValue("access_token") != entra {
			w.WriteHeader(401)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no access with %s"}]}`, r.FormValue("access_token"))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"refresh_token": refresh})
	default:
		http.NotFound(w, r)
	}
}

func envOf(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

// Each identity, over loopback.
func TestLogin(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(federated+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	workload := map[string]string{"AZURE_FEDERATED_TOKEN_FILE": file, "AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenant}
	with := func(m map[string]string, kv ...string) map[string]string {
		n := map[string]string{}
		maps.Copy(n, m)
		for i := 0; i < len(kv); i += 2 {
			n[kv[i]] = kv[i+1]
		}
		return n
	}
	entraThen := "POST /" + tenant + "/oauth2/v2.0/token,POST /oauth2/exchange"
	for _, tt := range []struct {
		name  string
		env   map[string]string
		s     azure
		asked string
		err   string
	}{
		{name: "workload identity", env: workload, asked: entraThen},
		{
			name: "client secret", asked: entraThen,
			env: map[string]string{"AZURE_CLIENT_SECRET": secret, "AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenant},
		},
		{name: "managed identity", asked: "GET /metadata/identity/oauth2/token,POST /oauth2/exchange"},
		{
			name: "one of several managed identities", env: map[string]string{"AZURE_CLIENT_ID": client},
			asked: "GET /metadata/identity/oauth2/token,POST /oauth2/exchange",
		},
		{
			name: "another managed identity", env: map[string]string{"AZURE_CLIENT_ID": "x"},
			asked: "GET /metadata/identity/oauth2/token", err: "Multiple user assigned identities exist",
		},
		{name: "none", s: azure{refused: true}, asked: "GET /metadata/identity/oauth2/token", err: "no Azure credentials: the machine's"},
		{
			name: "wrong secret", asked: "POST /" + tenant + "/oauth2/v2.0/token",
			env: map[string]string{"AZURE_CLIENT_SECRET": secret + "x", "AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenant},
			err: "401 invalid_client: AADSTS7000215: Invalid client secret provided: ***",
		},
		{
			name: "another client", env: with(workload, "AZURE_CLIENT_ID", "x"), asked: "POST /" + tenant + "/oauth2/v2.0/token",
			err: "workload identity x: ",
		},
		{name: "no tenant", env: with(workload, "AZURE_TENANT_ID", ""), err: "AZURE_CLIENT_ID and AZURE_TENANT_ID must be set"},
		{name: "tenant with a path", env: with(workload, "AZURE_TENANT_ID", "a/../b"), err: "must be set"},
		{name: "no file", env: with(workload, "AZURE_FEDERATED_TOKEN_FILE", "/nowhere/x"), err: "AZURE_FEDERATED_TOKEN_FILE: open"},
		{
			name: "authority without TLS", env: with(workload, "AZURE_AUTHORITY_HOST", "http://evil.example"),
			err: "AZURE_AUTHORITY_HOST is not an https URL",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			service := &standin.Service{Handler: tt.s}
			server := httptest.NewServer(service)
			defer server.Close()
			env := map[string]string{"AZURE_AUTHORITY_HOST": server.URL, "AZURE_POD_IDENTITY_AUTHORITY_HOST": server.URL + "/"}
			maps.Copy(env, tt.env)
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			src, err := acr.New(acr.Options{Host: host, Env: envOf(env), Exchange: u},
				auth.Refresh{Name: "azure", Log: slog.New(slog.NewTextHandler(&log, nil))})
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
			if err != nil || c.Identity.Reveal() != refresh || c.Username != "" || !c.Password.IsZero() {
				t.Fatalf("%+v, %v", c, err)
			}
			if left := time.Until(c.Expires); left < 3*time.Hour-time.Minute || left > 3*time.Hour {
				t.Errorf("expires in %s, want 3h by our own clock", left)
			}
			if st := src.Status(); st.State != auth.StateOK || st.Kind != "acr" || st.For != host {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	try := func(t *testing.T, service *standin.Service) (bool, any, error) {
		service.Handler = azure{}
		src, err := acr.New(acr.Options{Host: host, Transport: service, Env: envOf(nil)}, auth.Refresh{Name: "azure"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := src.Credential(t.Context())
		return c.Identity.Reveal() == refresh, src.Status(), err
	}
	exchange := standin.Login{
		Host: host, Path: "/oauth2/exchange", Before: 1, Limit: 8 * time.Second, Secret: entra, Clean: clean, Try: try,
	}
	metadata := standin.Login{
		Host: "169.254.169.254", Path: "/identity/oauth2/token", After: 1, Limit: 3 * time.Second, Clean: clean, Try: try,
	}
	t.Run("exchange", func(t *testing.T) {
		standin.TestFaults(
			t, exchange,
			standin.Fault{
				Name: "firewall", Asked: 2, Err: "403 DENIED: client with IP '10.0.0.1' is not allowed access",
				Answer: exchange.Reply(403, `{"errors":[{"code":"DENIED","message":"client with IP '10.0.0.1' is not allowed access"}]}`),
			},
			standin.Fault{
				Name: "another type", Asked: 2, Err: "wrong type", Answer: exchange.Reply(200, `{"refresh_token":["`+refresh+`"]}`),
			},
		)
	})
	t.Run("metadata", func(t *testing.T) { standin.TestFaults(t, metadata) })
}

// Each cloud has an Entra of its own, and the registry's host alone gets the token.
func TestClouds(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"a.azurecr.io": "login.microsoftonline.com", "a.azurecr.cn": "login.chinacloudapi.cn", "a.azurecr.us": "login.microsoftonline.us",
	} {
		var asked []string
		src, err := acr.New(acr.Options{
			Host: host,
			Env:  envOf(map[string]string{"AZURE_CLIENT_SECRET": secret, "AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenant}),
			Transport: transport(func(r *http.Request) *http.Response {
				asked = append(asked, r.URL.Scheme+"://"+r.URL.Host)
				return &http.Response{
					StatusCode: 200, Header: http.Header{}, Request: r,
					Body: io.NopCloser(strings.NewReader(`{"access_token":"t","refresh_token":"r"}`)),
				}
			}),
		}, auth.Refresh{Name: "azure"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.Credential(t.Context()); err != nil {
			t.Error(err)
		}
		if got := strings.Join(asked, " "); got != "https://"+want+" https://"+host {
			t.Errorf("%s: asked %s", host, got)
		}
	}
}

type transport func(*http.Request) *http.Response

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"myregistry.azurecr.io": true, "a1.azurecr.cn": true, "a.azurecr.us": true, "reg-abc123.azurecr.io": true,
		"azurecr.io": false, "evil.azurecr.io.attacker.com": false, "a.b.azurecr.io": false, "a.azurecr.io:443": false,
		"aazurecr.io": false, "a.azurecrxio": false, "evil.example/a.azurecr.io": false, "a.azurecr.io\n": false,
		"a.azurecr.de": false, "mcr.microsoft.com": false, "": false,
	} {
		if got := clouds.ACR.Is(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
		if _, err := acr.New(acr.Options{Host: host}, auth.Refresh{}); (err == nil) != want {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// A token may claim any life.
func FuzzLife(f *testing.F) {
	f.Add(`{"iat":1,"exp":3601}`)
	f.Add(`{"exp":1e300}`)
	f.Add(`{"iat":-5,"nbf":7,"exp":8.5}`)
	f.Fuzz(func(t *testing.T, claims string) {
		token := "a." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c"
		src, err := acr.New(acr.Options{Host: host, Env: envOf(nil), Transport: transport(func(r *http.Request) *http.Response {
			return &http.Response{
				StatusCode: 200, Header: http.Header{}, Request: r,
				Body: io.NopCloser(strings.NewReader(`{"access_token":"t","refresh_token":"` + token + `"}`)),
			}
		})}, auth.Refresh{Name: "azure"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := src.Credential(t.Context())
		if err == nil && (c.Identity.Reveal() != token || !c.Expires.IsZero() && time.Until(c.Expires) > 24*time.Hour) {
			t.Errorf("%v expires in %s", c, time.Until(c.Expires))
		}
	})
}
