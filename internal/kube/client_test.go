package kube_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/registrymirror/mirror/internal/kube"
)

func TestNewClientSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	token, empty, two := write("token", "sesame"), write("empty", "\n"), write("two", "a\nb\n")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBERNETES_SERVICE_PORT", "")
	tests := []struct {
		name string
		o    kube.ClientOptions
		want string
	}{
		{"no pod", kube.ClientOptions{TokenFile: token}, "set kubernetes.server"},
		{"plain HTTP", kube.ClientOptions{Server: "http://api.test", TokenFile: token}, "is not https://HOST:PORT"},
		{"a path", kube.ClientOptions{Server: "https://api.test/k8s", TokenFile: token}, "is not https://HOST:PORT"},
		{"a password", kube.ClientOptions{Server: "https://a:b@api.test", TokenFile: token}, "is not https://HOST:PORT"},
		{"no token", kube.ClientOptions{Server: "https://api.test", TokenFile: filepath.Join(dir, "none")}, "read the token"},
		{"empty token", kube.ClientOptions{Server: "https://api.test", TokenFile: empty}, "holds no bearer token"},
		{"two tokens", kube.ClientOptions{Server: "https://api.test", TokenFile: two}, "holds no bearer token"},
		{"no certificates", kube.ClientOptions{Server: "https://api.test", TokenFile: token, CAFile: filepath.Join(dir, "none")}, "read the certificates"},
		{"certificates that are none", kube.ClientOptions{Server: "https://api.test", TokenFile: token, CAFile: token}, "holds no PEM certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := kube.NewClient(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestTokenGoesNowhereElse: over real TLS, to a server with a certificate of another, and to one that redirects.
func TestTokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	var shown atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			shown.Add(1)
		}
	}))
	t.Cleanup(thief.Close)
	var asked atomic.Int64
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(api.Close)
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			shown.Add(1)
		}
	}))
	t.Cleanup(stranger.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, server, want string }{
		{"redirect", api.URL, "answered 307"},
		{"another's certificate", strings.Replace(stranger.URL, "127.0.0.1", "localhost", 1), "certificate"},
	} {
		c, err := kube.NewClient(kube.ClientOptions{Server: tt.server, TokenFile: tokenFile(t), CAFile: ca})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		c.Close()
	}
	if shown.Load() != 0 || asked.Load() != 1 {
		t.Errorf("the token was shown to others %d times; the API server was asked %d times", shown.Load(), asked.Load())
	}
}

// TestTokenIsReadAgain: the kubelet replaces the file.
func TestTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	file := tokenFile(t)
	c := &cluster{events: make(map[string]map[string]any)}
	client, err := kube.NewClient(kube.ClientOptions{Server: "https://api.test", TokenFile: file, Transport: c})
	if err != nil {
		t.Fatal(err)
	}
	for token, works := range map[string]bool{"other": false, "sesame": true} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := client.Ready(t.Context()); (err == nil) != works {
			t.Errorf("with %q: %v", token, err)
		}
	}
}
