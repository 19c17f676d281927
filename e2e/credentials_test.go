package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// tokens is a token service as distribution's specification has it, for a registry whose repositories below public/ are
// for all clients. As on Docker Hub, a token without any right is given where the client may not read.
type tokens struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	cert []byte

	mu    sync.Mutex
	pass  map[string]string // by user
	asked []string          // "REPOSITORY as USER", with a ! where the password was wrong
}

func newTokens(t *testing.T) *tokens {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tokens"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := &tokens{key: key, cert: cert, pass: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

// settings are those of a registry that believes its tokens.
func (s *tokens) settings(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("auth: {token: {realm: %q, service: reg, issuer: e2e, rootcertbundle: %q}}\n", s.URL+"/token", file)
}

func (s *tokens) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, pass, login := r.BasicAuth()
	right := login && s.pass[user] == pass
	scope := r.URL.Query().Get("scope")
	parts := strings.Split(scope, ":")
	if len(parts) != 3 {
		parts = []string{"", "", ""}
	}
	line := parts[1] + " as " + user
	if !login {
		line += "anonymous"
	}
	if login && !right {
		line += "!"
	}
	s.asked = append(s.asked, line)
	if login && !right {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"details":"incorrect username or password"}`)
		return
	}
	access := []map[string]any{}
	if right || strings.HasPrefix(parts[1], "public/") && parts[2] == "pull" {
		access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": strings.Split(parts[2], ",")})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": s.sign(user, access), "expires_in": 60})
}

// sign makes a JSON Web Token.
func (s *tokens) sign(user string, access []map[string]any) string {
	now := time.Now()
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]any{
		"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.cert)},
	}) + "." + part(map[string]any{
		"iss": "e2e", "sub": user, "aud": "reg", "exp": now.Add(time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(),
		"iat": now.Unix(), "jti": fmt.Sprint(now.UnixNano()), "access": access,
	})
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		panic(err)
	}
	var signature [64]byte
	a.FillBytes(signature[:32])
	b.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature[:])
}

func (s *tokens) let(user, pass string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass[user] = pass
}

// count is how often a line was asked for, and forgets nothing.
func (s *tokens) count(line string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.asked {
		if l == line {
			n++
		}
	}
	return n
}

// TestCredentials has distribution's registry with token authentication, a kubelet credential provider as an executable,
// and the binary between them: the login is spent on public images alone, its rotation goes unnoticed, and the password
// shows nowhere.
func TestCredentials(t *testing.T) {
	t.Parallel()
	const canary = "canary-41ce77b0"
	s := newTokens(t)
	s.let("bot", canary+"-1")
	o := registry.Options{Program: tool.Built(t, "registry"), Dir: t.TempDir()}
	open, err := registry.Launch(t.Context(), o) // of the same folder, for pushes
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"public/one", "public/two", "private/app"} {
		image.Push(t, open.Host, repo, "v1", image.New(t, "linux/amd64", image.Layers{2000}))
	}
	open.End()
	o.More = s.settings(t)
	up, err := registry.Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer up.End()
	dir := t.TempDir()
	plugin, password := filepath.Join(dir, "provider"), filepath.Join(dir, "password")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(password, canary+"-1", 0o600)
	write(plugin, `#!/bin/sh
grep -q '"image":"reg.test' || exit 3
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry",'
echo '"cacheDuration":"1h","auth":{"*.test":{"username":"bot","password":"'$(cat `+password+`)'"}}}'
`, 0o700)
	host := strings.TrimPrefix(s.URL, "http://")
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("reg.test: {endpoints: [%s], authHosts: [%q], credentials: [{name: node, plugin: {command: %q}}]}",
			up.URL(), host, plugin),
	})
	pull := func(repo string) error {
		ref, err := name.ParseReference(m.Host + "/reg.test/" + repo + ":v1")
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(ref, remote.WithContext(t.Context()))
		if err != nil {
			return err
		}
		return validate.Image(img)
	}

	if err := pull("public/one"); err != nil {
		t.Fatal(err)
	}
	equal(t, "anonymous tokens", s.count("public/one as anonymous"), 1)
	equal(t, "tokens of bot", s.count("public/one as bot"), 1)

	// The password is another one now: the provider is asked again, and no client notices.
	s.let("bot", canary+"-2")
	write(password, canary+"-2", 0o600)
	if err := pull("public/two"); err != nil {
		t.Fatal(err)
	}
	equal(t, "tokens that were refused", s.count("public/two as bot!"), 1)
	equal(t, "tokens of bot with the new password", s.count("public/two as bot"), 1)

	if err := pull("private/app"); err == nil {
		t.Error("a private image was pulled")
	}
	equal(t, "tokens of bot for a private image", s.count("private/app as bot")+s.count("private/app as bot!"), 0)

	out, err := exec.CommandContext(t.Context(), mirrord.Binary, "upstreams", "--admin", m.Admin).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "reg.test  node        plugin  ok") {
		t.Errorf("mirror upstreams: %v\n%s", err, out)
	}
	for _, path := range []string{"/metrics", "/api/v1/upstreams", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline"} {
		code, body := mirrord.Get(t, m.Admin+path)
		if code != http.StatusOK || strings.Contains(body, canary) {
			t.Errorf("%s: %d, or it has a password", path, code)
		}
	}
	if strings.Contains(m.Output()+string(out), canary) {
		t.Error("a password shows in the log or the command's output")
	}
}
