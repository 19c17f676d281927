package upstream_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

func TestHostileRealms(t *testing.T) {
	t.Parallel()
	sniffer := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	for _, realm := range []string{
		sniffer.URL + "/token", "http://0.0.0.0:" + portOf(sniffer) + "/token", "http://localhost:" + portOf(sniffer) +
			"/token",
		"http://[::1]:" + portOf(sniffer) + "/token", "//" + sniffer.host() + "/token", "https://evil.example/token",
		"http://169.254.169.254/latest", "http://bot:pw@" + sniffer.host() + "/token",
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("WWW-Authenticate", `Bearer realm="`+realm+`",service="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		r := registry(t, s.URL, as(login("bot", "pw")))
		_, err := r.Manifest(t.Context(), "app", "1")
		e, ok := errors.AsType[*fault.RealmError](err)
		if !ok {
			t.Errorf("realm %s: %v, want a RealmError", realm, err)
			continue
		}
		if step := upstreamError(t, err).Step(); step.Name != fault.StepToken || step.Host != e.Host {
			t.Errorf("realm %s: last step %+v", realm, step)
		}
		for _, line := range s.asked() {
			if strings.Contains(line, "[") {
				t.Errorf("realm %s: credentials went out: %s", realm, line)
			}
		}
	}
	if got := sniffer.asked(); len(got) > 0 {
		t.Errorf("the sniffer was asked: %q", got)
	}
}

// A registry whose own address is set wrong names a token service that can't be asked: the error has that address as it is
// written, without a login, and doesn't say that its host should be named.
func TestMalformedRealms(t *testing.T) {
	t.Parallel()
	for realm, want := range map[string]string{
		"null://H/token":                 "null://H/token",
		"ftp://H/token":                  "ftp://H/token",
		"http://u:p4ss@H/token":          "http://***@H/token",
		"https://u:p4/ss@H/token":        "https://***@H/token",
		"//u:p4ss@H/token":               "//***@H/token",
		"null://u:p4ss@H/token?p=p4ss#x": "null://***@H/token",
		"HTTPS:H/token":                  "HTTPS:H/token",
		"https:///token":                 "https:///token",
		"https://H:99999/token":          "https://H:99999/token",
		"localhost:5000/token":           "localhost:5000/token",
		"https://{registry}/token":       "https://{registry}/token",
		"{registry}:5002/v2/token":       "{registry}:5002/v2/token",
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("WWW-Authenticate", `Bearer realm="`+realm+`",service="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		_, err := registry(t, s.URL, func(o *upstream.Options) { o.AuthHosts = []string{"h"} }).Manifest(t.Context(), "app", "1")
		e, ok := errors.AsType[*fault.RealmError](err)
		if !ok || e.Malformed != want {
			t.Errorf("realm %s: %v, want %s", realm, err, want)
			continue
		}
		f := diagnose.Explain(err)
		if !strings.Contains(f.Summary, "malformed: "+diagnose.Clean(want)) || !strings.Contains(f.Remedy, "external URL") ||
			strings.Contains(f.Summary+f.Remedy, "authHosts") || strings.Contains(strings.Join(f.Evidence, " ")+err.Error()+e.Host, "p4") {
			t.Errorf("realm %s: %+v", realm, f)
		}
	}
}

func portOf(s *server) string { return s.host()[strings.LastIndex(s.host(), ":")+1:] }

func TestSharedTokenServiceGivesOurScopeOnly(t *testing.T) {
	t.Parallel()
	tokens := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate",
				`Bearer realm="`+tokens.URL+`",service="reg",scope="repository:acme/secret:pull,push"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
		_, _ = w.Write(manifest)
	})
	r := registry(t, s.URL, as(login("bot", "pw")), func(o *upstream.Options) { o.AuthHosts = []string{tokens.host()} })
	if _, err := r.Manifest(t.Context(), "library/app", "1"); err != nil {
		t.Fatal(err)
	}
	if got := tokens.asked(); len(got) != 1 || strings.Contains(got[0], "secret") || !strings.Contains(got[0],
		"library%2Fapp%3Apull&") {
		t.Errorf("token requests %q, want one for library/app and pull", got)
	}
}

func TestTokenService(t *testing.T) {
	t.Parallel()
	sniffer := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"x"}`) })
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		check  func(*testing.T, *fault.Error)
	}{
		{
			"redirects", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, sniffer.URL+"/token?a=secret", http.StatusTemporaryRedirect)
			},
			func(t *testing.T, e *fault.Error) {
				if got, ok := errors.AsType[*fault.RedirectError](e); !ok || got.Host != sniffer.host() {
					t.Errorf("%v, want a RedirectError to the sniffer", e)
				}
			},
		},
		{"is too long", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"`+strings.Repeat("x", 1<<20)+`"}`)
		}, wantContent(fault.ContentTooLarge)},
		{"sends a page", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `<html><title>Sign in</title></html>`)
		}, wantContent(fault.ContentNotRegistry)},
		{
			"sends no token", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) },
			wantContent(fault.ContentNotRegistry),
		},
		{"injects a header", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"x\r\nX-Evil: 1"}`)
		}, wantContent(fault.ContentNotRegistry)},
		{
			"is down", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) },
			func(t *testing.T, e *fault.Error) {
				if e.Status != 503 || e.Message != "busy" {
					t.Errorf("%d %q", e.Status, e.Message)
				}
			},
		},
		{"limits", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "slow down", http.StatusTooManyRequests)
		}, func(t *testing.T, e *fault.Error) {
			if e.Status != 429 || e.RetryAfter.Seconds() != 7 {
				t.Errorf("%d after %s", e.Status, e.RetryAfter)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s *server
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					tt.answer(w, r)
					return
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			_, err := registry(t, s.URL, as(login("bot", "pw"))).Manifest(t.Context(), "app", "1")
			e := upstreamError(t, err)
			if step := e.Step(); step.Name != fault.StepToken || step.Host != s.host() || step.Err == nil {
				t.Errorf("last step %+v, want the token request", step)
			}
			tt.check(t, e)
		})
	}
	t.Cleanup(func() {
		if got := sniffer.asked(); len(got) > 0 {
			t.Errorf("a redirect was followed with %q", got)
		}
	})
}

func wantContent(kind fault.ContentKind) func(*testing.T, *fault.Error) {
	return func(t *testing.T, e *fault.Error) {
		t.Helper()
		if got, ok := errors.AsType[*fault.ContentError](e); !ok || got.Kind != kind {
			t.Errorf("%v, want %s", e, kind)
		}
	}
}
