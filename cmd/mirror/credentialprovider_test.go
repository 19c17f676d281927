package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/identity"
)

// kubeletResponse is CredentialProviderResponse of credentialprovider.kubelet.k8s.io/v1. The kubelet reads it strictly.
type kubeletResponse struct {
	APIVersion    string  `json:"apiVersion"`
	Kind          string  `json:"kind"`
	CacheKeyType  string  `json:"cacheKeyType"`
	CacheDuration *string `json:"cacheDuration,omitempty"`
	Auth          map[string]struct {
		Username string `json:"username"`
		Password string `json:"password"`
	} `json:"auth,omitempty"`
}

// read reads what the command prints, as strictly as the kubelet. hold is how long the answer is kept.
func (r *kubeletResponse) read(t *testing.T, out string) (hold time.Duration) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("there is more behind the answer: %s", out)
	}
	if r.APIVersion != "credentialprovider.kubelet.k8s.io/v1" || r.Kind != "CredentialProviderResponse" || r.CacheKeyType != "Registry" || r.CacheDuration == nil {
		t.Fatal(out) // without a duration the kubelet takes its own default
	}
	hold, err := time.ParseDuration(*r.CacheDuration)
	if err != nil || hold < 0 {
		t.Fatal(out)
	}
	return hold
}

const kubernetesIssuer = "https://kubernetes.default.svc.cluster.local"

// accountSigner signs tokens as an API server does.
func accountSigner(t *testing.T) (sign func(change map[string]any) string, keys identity.Keys) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "a"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "a", Algorithm: string(jose.ES256), Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	keys, err = identity.ParseKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	return func(change map[string]any) string {
		now := time.Now()
		claims := map[string]any{
			"aud": []string{"mirror"}, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "nbf": now.Unix(), "iss": kubernetesIssuer,
			"sub": "system:serviceaccount:team-a:web", "jti": "b2a9c0de-3f0c-4d26-9f2e-0a3a3bde2c6e",
			"kubernetes.io": map[string]any{"namespace": "team-a", "pod": map[string]any{"name": "web-1", "uid": "0f3b6a11"}},
		}
		maps.Copy(claims, change)
		maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}, keys
}

// kubeletRequest is what a kubelet of 1.34 and later sends; with fields that are not known here.
func kubeletRequest(t *testing.T, image, token string, change map[string]any) string {
	t.Helper()
	r := map[string]any{
		"kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "image": image,
		"serviceAccountToken": token, "serviceAccountAnnotations": map[string]string{"example.com/tenant": "a"}, "later": []int{1},
	}
	maps.Copy(r, change)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// provide runs the command as a kubelet does.
func provide(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{"credential-provider"}, args...))
	err := root.ExecuteContext(t.Context())
	if err == nil {
		return exitOK, out.String(), errs.String()
	}
	code = exitUsage
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
	}
	return code, out.String(), errs.String() + err.Error()
}

// The token is given for images of the mirror's own host, and for none that is named otherwise.
func TestCredentialProvider(t *testing.T) {
	t.Parallel()
	sign, _ := accountSigner(t)
	token := sign(nil)
	for _, tt := range []struct{ mirror, image, host string }{
		{"mirror.example:5000", "mirror.example:5000/docker.io/library/nginx", "mirror.example:5000"},
		{"mirror.example:5000", "mirror.example:5000/app:v1", "mirror.example:5000"},
		{"mirror.example:5000", "mirror.example:5000/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "mirror.example:5000"},
		{"mirror.example", "mirror.example/ghcr.io/acme/app", "mirror.example"},
		{"Mirror.Example", "mirror.example/app", "mirror.example"},
		{"mirror.example", "MIRROR.example/app", "MIRROR.example"}, // the kubelet compares the key with the image as it is
		{"10.0.0.7:5000", "10.0.0.7:5000/quay.io/acme/app", "10.0.0.7:5000"},
		{"[fd00::7]:5000", "[fd00::7]:5000/quay.io/acme/app", "[fd00::7]:5000"},
		{"localhost:5000", "localhost:5000/app", "localhost:5000"},

		{"mirror.example:5000", "docker.io/library/nginx", ""}, // the kubelet's form of nginx
		{"mirror.example:5000", "nginx", ""},
		{"mirror.example:5000", "library/nginx", ""},
		{"mirror.example:5000", "ghcr.io/acme/app", ""},
		{"mirror.example:5000", "ghcr.io/mirror.example:5000/app", ""},
		{"mirror.example:5000", "mirror.example/app", ""},
		{"mirror.example", "mirror.example:443/app", ""},
		{"mirror.example:5000", "mirror.example:50000/app", ""},
		{"mirror.example", "sub.mirror.example/app", ""},
		{"mirror.example", "mirror.example.evil.example/app", ""},
		{"mirror.example", "mirrorxexample/app", ""},
		{"mirror.example", "*.example/app", ""},
		{"mirror.example", "user@mirror.example/app", ""},
		{"mirror.example", "https://mirror.example/app", ""},
		{"mirror.example", "mirror.example", ""},
		{"mirror.example", "mirror.example:v1", ""},
		{"kirk.example", "\u212airk.example/app", ""}, // the sign of Kelvin is a k in lower case
		{"[fd00::7]:5000", "[fd00::8]:5000/app", ""},
	} {
		code, out, errs := provide(t, kubeletRequest(t, tt.image, token, nil), "--mirror", tt.mirror, "--audience", "mirror")
		if code != exitOK || errs != "" {
			t.Errorf("%s: %d %s", tt.image, code, errs)
			continue
		}
		var got kubeletResponse
		hold := got.read(t, out)
		if tt.host == "" {
			if got.Auth != nil || hold != 0 || strings.Contains(out, token) {
				t.Errorf("%s at %s: %s", tt.image, tt.mirror, out)
			}
			continue
		}
		if login, ok := got.Auth[tt.host]; !ok || len(got.Auth) != 1 || login.Password != token || login.Username == "" || strings.Contains(login.Username, ":") {
			t.Errorf("%s at %s: %s", tt.image, tt.mirror, out)
		}
		if hold < 57*time.Minute || hold > 59*time.Minute {
			t.Errorf("%s is kept for %s", tt.image, hold)
		}
	}
	request := kubeletRequest(t, "mirror-b.example/app", token, nil)
	if code, out, errs := provide(t, request, "--mirror", "mirror-a.example", "--mirror", "mirror-b.example"); code != exitOK || !strings.Contains(out, `"mirror-b.example":{`) {
		t.Errorf("two mirrors: %d %s%s", code, out, errs)
	}
	for _, change := range []map[string]any{{"serviceAccountAnnotations": nil}, {"metadata": map[string]any{}}} {
		if code, out, errs := provide(t, kubeletRequest(t, "mirror.example/app", token, change), "--mirror", "mirror.example"); code != exitOK {
			t.Errorf("%v: %d %s%s", change, code, out, errs)
		}
	}
	// An image of another host is answered whatever the token is: it goes nowhere.
	if code, out, errs := provide(t, kubeletRequest(t, "ghcr.io/acme/app", "", nil), "--mirror", "mirror.example"); code != exitOK {
		t.Errorf("no token: %d %s%s", code, out, errs)
	}
}

// The mirror takes what the kubelet is given.
func TestCredentialProviderLogsIn(t *testing.T) {
	t.Parallel()
	sign, keys := accountSigner(t)
	v := identity.New(identity.Options{})
	v.Use(identity.Settings{Accounts: identity.NewAccounts(identity.AccountOptions{Audience: "mirror", Issuer: kubernetesIssuer, Keys: keys})})
	_, out, errs := provide(t, kubeletRequest(t, "mirror.example/app", sign(nil), nil), "--mirror", "mirror.example", "--audience", "mirror")
	var got kubeletResponse
	got.read(t, out)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://mirror.example/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	login := got.Auth["mirror.example"]
	r.SetBasicAuth(login.Username, login.Password)
	if who, _, err := v.Identify(r, "10.0.0.7", false); who != "sa:team-a/web" || err != nil {
		t.Errorf("%q %v; %s", who, err, errs)
	}
}

// The kubelet keeps a token no longer than it lives.
func TestCredentialProviderKeepsNoEndedToken(t *testing.T) {
	t.Parallel()
	sign, _ := accountSigner(t)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		expires any
		want    time.Duration
	}{
		{now.Add(time.Hour).Unix(), 59 * time.Minute},
		{now.Add(10 * time.Minute).Unix(), 9 * time.Minute},
		{float64(now.Add(10*time.Minute).Unix()) + 0.75, 9 * time.Minute},
		{now.Add(30 * time.Second).Unix(), 0}, // the kubelet may wait a minute for the answer
		{now.Add(48 * time.Hour).Unix(), time.Hour},
		{nil, 0},
	} {
		p := credentialProvider{mirrors: []string{"mirror.example"}}
		token := sign(map[string]any{"exp": tt.expires})
		out, err := p.answer(strings.NewReader(kubeletRequest(t, "mirror.example/app", token, nil)), now)
		if err != nil {
			t.Errorf("%v: %v", tt.expires, err)
			continue
		}
		var got kubeletResponse
		if hold := got.read(t, out); hold != tt.want || got.Auth["mirror.example"].Password != token {
			t.Errorf("%v: kept for %s, want %s: %s", tt.expires, hold, tt.want, out)
		}
	}
}

// A token that the mirror would not take, or that may do more than pull, is not given, and is shown nowhere.
func TestCredentialProviderRefuses(t *testing.T) {
	t.Parallel()
	sign, _ := accountSigner(t)
	good := sign(nil)
	request := func(token string, change map[string]any) string {
		return kubeletRequest(t, "mirror.example/app", token, change)
	}
	with := func(change map[string]any) string { return request(sign(change), nil) }
	none, _, _ := strings.Cut(good, ".")
	for _, tt := range []struct{ name, stdin, says string }{
		{"no token", request("", nil), "sent no token of a service account; in its CredentialProviderConfig set tokenAttributes.serviceAccountTokenAudience"},
		{"expired", with(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), "the token of sa:team-a/web has expired at "},
		{"negative end", with(map[string]any{"exp": -1}), "has expired at"},
		{"another audience", with(map[string]any{"aud": []string{"vault"}}), `is for the audience ["vault"], want "mirror"; set tokenAttributes`},
		{"two audiences", with(map[string]any{"aud": []string{"mirror", "vault"}}), `want "mirror"`},
		{"no audience", with(map[string]any{"aud": nil}), `want "mirror"`},
		{"the API server's", with(map[string]any{"aud": []string{kubernetesIssuer}}), "is for the API server"},
		{"the API server's too", with(map[string]any{"aud": []string{"mirror", kubernetesIssuer}}), "is for the API server"},
		{"of a user", with(map[string]any{"sub": "alice"}), "the token is not of a service account"},
		{"a number as its end", with(map[string]any{"exp": "tomorrow"}), "the claims of the token can't be read"},
		{"not a token", request("hunter2-hunter2", nil), "the token can't be read"},
		{"unsigned", request(none+"..", nil), "the token can't be read"},
		{"a long token", request(good+strings.Repeat("A", 8<<10), nil), "the token has more than 8 KiB"},

		{"nothing", " \n", "standard input is empty"},
		{"text", "serviceAccountToken: " + good, "is not an object in JSON"},
		{"half", request(good, nil)[:200], "is not an object in JSON"},
		{"two", request(good, nil) + request(good, nil), "is not an object in JSON"},
		{"a list", "[" + request(good, nil) + "]", "is not an object in JSON"},
		{"a number for the token", request("", map[string]any{"serviceAccountToken": 20061225}), `"serviceAccountToken" of the request is not a text`},
		{"large", request(good, map[string]any{"later": strings.Repeat("A", 1<<20)}), "has more than 1024 KiB"},
		{"no image", request(good, map[string]any{"image": ""}), "names no image"},
		{"another kind", request(good, map[string]any{"kind": "CredentialProviderResponse"}), `is a "CredentialProviderResponse", want`},
		{"an older version", request(good, map[string]any{"apiVersion": "credentialprovider.kubelet.k8s.io/v1beta1"}), "write apiVersion: credentialprovider.kubelet.k8s.io/v1"},
		{"no version", request(good, map[string]any{"apiVersion": nil}), "write apiVersion: credentialprovider.kubelet.k8s.io/v1"},
	} {
		code, out, errs := provide(t, tt.stdin, "--mirror", "mirror.example", "--audience", "mirror")
		if code != exitFailed || out != "" || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: %d %s%s", tt.name, code, out, errs)
		}
		for _, secret := range append(strings.Split(good, "."), "hunter2", "20061225") {
			if len(secret) > 6 && strings.Contains(errs, secret) {
				t.Errorf("%s: a part of the token is in %s", tt.name, errs)
			}
		}
	}
}

// The host of a registry is not taken for the mirror's: it would get the tokens of pods.
func TestCredentialProviderIsForNoRegistry(t *testing.T) {
	t.Parallel()
	sign, _ := accountSigner(t)
	const registry, named = "this is a registry, which would get the tokens of pods", "no image can be named by this host"
	for mirror, says := range map[string]string{
		"docker.io": registry, "index.docker.io": registry, "registry-1.docker.io": registry, "auth.docker.io": registry, "Docker.IO": registry,
		"docker.io:443": registry, "ghcr.io": registry, "quay.io": registry, "cdn.quay.io": registry, "registry.k8s.io": registry,
		"mcr.microsoft.com": registry, "gcr.io": registry, "mirror.gcr.io": registry, "europe-west1-docker.pkg.dev": registry,
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com": registry, "acme.azurecr.io": registry, "gitlab.com": registry,

		"https://mirror.example:5000/": "names of images have no https://; write mirror.example:5000",
		"mirror":                       named, "": named, "mirror.example/docker.io": named, "*.example": named, "mirror.example:": named,
		"mirror.example:5000:5000": named, "mirror.example,quay.io": named, "docker.io.": named, "fd00::7": named,
		"[fd00::7]": "the kubelet compares an IPv6 address only with its port",
	} {
		code, out, errs := provide(t, kubeletRequest(t, mirror+"/app", sign(nil), nil), "--mirror", "mirror.example", "--mirror", mirror)
		if code != exitUsage || out != "" || !strings.Contains(errs, "--mirror "+mirror+": "+says) {
			t.Errorf("%q: %d %s%s", mirror, code, out, errs)
		}
	}
	// A load balancer of a cloud is not one of its registries.
	for _, mirror := range []string{"mirror-1.elb.eu-west-1.amazonaws.com:5000", "mirror.example.docker.io.internal"} {
		if code, out, errs := provide(t, kubeletRequest(t, mirror+"/app", sign(nil), nil), "--mirror", mirror); code != exitOK {
			t.Errorf("%s: %d %s%s", mirror, code, out, errs)
		}
	}
	if code, _, errs := provide(t, "", "--audience", "mirror"); code != exitUsage || !strings.Contains(errs, "credential-provider needs --mirror HOST[:PORT]") {
		t.Errorf("without --mirror: %d %s", code, errs)
	}
}

// The kubelet's configuration in docs/access.md has only fields of CredentialProviderConfig, all that it requires, and a working command.
func TestCredentialProviderConfigOfTheDocument(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs", "access.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(apiVersion: kubelet.config.k8s.io/v1\n.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("it is not there")
	}
	var c struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Providers  []struct {
			Name                 string   `yaml:"name"`
			APIVersion           string   `yaml:"apiVersion"`
			Args                 []string `yaml:"args"`
			MatchImages          []string `yaml:"matchImages"`
			DefaultCacheDuration *string  `yaml:"defaultCacheDuration"`
			TokenAttributes      struct {
				Audience       string `yaml:"serviceAccountTokenAudience"`
				CacheType      string `yaml:"cacheType"`
				RequireAccount *bool  `yaml:"requireServiceAccount"`
			} `yaml:"tokenAttributes"`
		} `yaml:"providers"`
	}
	d := yaml.NewDecoder(bytes.NewReader(m[1]))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	if c.Kind != "CredentialProviderConfig" || len(c.Providers) != 1 {
		t.Fatalf("%s", m[1])
	}
	p := c.Providers[0]
	if p.Name != "mirror" || p.APIVersion != providerAPI || p.DefaultCacheDuration == nil || p.TokenAttributes.CacheType != "Token" || p.TokenAttributes.RequireAccount == nil ||
		len(p.Args) == 0 || p.Args[0] != "credential-provider" || len(p.MatchImages) != 1 {
		t.Fatalf("%s", m[1])
	}
	sign, _ := accountSigner(t)
	request := kubeletRequest(t, p.MatchImages[0]+"/ghcr.io/team-a/app", sign(map[string]any{"aud": []string{p.TokenAttributes.Audience}}), nil)
	if code, out, errs := provide(t, request, p.Args[1:]...); code != exitOK || !strings.Contains(out, `"`+p.MatchImages[0]+`":{`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
}
