package e2e_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// canary is a secret of one kind: its letters change when they are escaped, and its first word is in no other text.
func canary(kind string) string { return "canary/" + kind + "+7d21=x" }

// kinds are the secrets that the mirror holds, or is told, in this test.
var kinds = []string{
	"file", "env", "auths", "identity", "entry", "helper", "configured", "plugin", // passwords, and an identity token
	"aws-identity", "aws-key", "aws-session", "aws-login", "google-metadata", "google-key", "azure-identity", "azure-entra",
	"azure-refresh", "token", "proxy",
}

// forms are how a secret may show: as it is, and as it is written in URLs, headers and forms.
func forms(user, secret string) []string {
	b := []byte(user + ":" + secret)
	return []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret),
		base64.StdEncoding.EncodeToString(b), base64.RawStdEncoding.EncodeToString(b), base64.URLEncoding.EncodeToString(b),
		url.QueryEscape(base64.StdEncoding.EncodeToString(b)), base64.StdEncoding.EncodeToString([]byte(secret)),
	}
}

// registries are the upstreams, by name, with what they let in: a kind of secret, with a user name.
var registries = []struct{ host, user, kind, credential string }{
	{"file.test", "bot", "file", "username: bot, passwordFile: DIR/pass"},
	{"env.test", "bot", "env", "username: bot, passwordEnv: CANARY_PASSWORD"},
	{"auths.test", "bot", "auths", "dockerConfig: DIR/config.json"},
	{"identity.test", "", "identity", "dockerConfig: DIR/config.json"},
	{"entry.test", "bot", "entry", "dockerConfig: DIR/mounted"},
	{"configured.test", "bot", "configured", "dockerConfig: DIR/config.json, lifetime: 10s"},
	{"helper.test", "bot", "helper", "helper: DIR/docker-credential-canary, lifetime: 10s"},
	{"plugin.test", "bot", "plugin", "plugin: {command: DIR/provider}"},
	{"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "AWS", "aws-login", "ecr: {}"},
	{"europe-docker.pkg.dev", "oauth2accesstoken", "google-metadata", "gar: {}"},
	{"gcr.io", "oauth2accesstoken", "google-key", "gar: {keyFile: DIR/google.json}"},
	{"acme.azurecr.io", "", "azure-refresh", "acr: {}"},
}

// services are the other hosts that there are.
var services = []string{
	"sts.eu-west-1.amazonaws.com", "api.ecr.eu-west-1.amazonaws.com", "oauth2.googleapis.com", "login.microsoftonline.com",
	"cdn.test",
}

// world is all of these hosts. It knows no secret but from what it is shown, and repeats that in every failure.
type world struct {
	mu      sync.Mutex
	act     act
	told    map[string]bool // kinds that the right requests have shown
	strange []string        // what it was shown and should not have been
}

// act names the side that refuses.
type act string

const (
	works   act = "all is well"
	refused act = "registries and token services refuse"
	second  act = "clouds refuse what they gave keys for"
	first   act = "everybody refuses"
)

func (w *world) begin(a act) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.act = a
}

func (w *world) now() act {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.act
}

func (w *world) saw(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[kind] = true
}

// heard is all that a request tells, in every form in which it could be repeated.
func heard(r *http.Request) string {
	_ = r.ParseForm()
	said := []string{r.URL.RawQuery, r.Form.Encode()}
	for _, values := range r.Form {
		said = append(said, values...)
	}
	for _, name := range []string{"Authorization", "X-Amz-Security-Token"} {
		v := r.Header.Get(name)
		_, bare, _ := strings.Cut(v, " ")
		said = append(said, v, bare)
		if user, password, ok := r.BasicAuth(); ok {
			said = append(said, user+":"+password, password)
			said = append(said, forms(user, password)...)
		}
		if bare != "" {
			said = append(said, url.QueryEscape(bare), url.PathEscape(bare))
		}
	}
	return strings.Join(said, " | ")
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	now := w.now()
	text := heard(r)
	is := func(value, kind string) bool {
		if now == first || value != canary(kind) {
			return false
		}
		w.saw(kind)
		return true
	}
	refuse := func(status int, body string) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	}
	no := func() {
		refuse(http.StatusForbidden, fmt.Sprintf(`{"error":"denied","error_description":%q,"message":%q,"__type":"Denied"}`, text, text))
	}
	future := time.Now().Add(time.Hour)
	switch host {
	case "sts.eu-west-1.amazonaws.com":
		if !is(r.Form.Get("WebIdentityToken"), "aws-identity") {
			no()
			return
		}
		_, _ = fmt.Fprintf(rw, `<R><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIDEXAMPLE</AccessKeyId>`+
			`<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken></Credentials></AssumeRoleWithWebIdentityResult></R>`,
			canary("aws-key"), canary("aws-session"))
		w.saw("aws-key") // with which it signs; it is never sent
	case "api.ecr.eu-west-1.amazonaws.com":
		if !is(r.Header.Get("X-Amz-Security-Token"), "aws-session") || now == second {
			no()
			return
		}
		_, _ = fmt.Fprintf(rw, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`,
			base64.StdEncoding.EncodeToString([]byte("AWS:"+canary("aws-login"))), future.Unix())
	case "oauth2.googleapis.com":
		if now == first || now == second || strings.Count(r.Form.Get("assertion"), ".") != 2 {
			no()
			return
		}
		_, _ = fmt.Fprintf(rw, `{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, canary("google-key"))
	case "login.microsoftonline.com":
		if !is(r.Form.Get("client_assertion"), "azure-identity") {
			no()
			return
		}
		_, _ = fmt.Fprintf(rw, `{"access_token":%q}`, canary("azure-entra"))
	case "cdn.test":
		rw.Header().Set("Content-Type", "application/xml")
		rw.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(rw, "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>%s</Message></Error>",
			html.EscapeString(text))
		if r.Header.Get("Authorization") != "" {
			w.mu.Lock()
			w.strange = append(w.strange, "the blob host was shown "+r.Header.Get("Authorization"))
			w.mu.Unlock()
		}
	default:
		if host == "acme.azurecr.io" && r.URL.Path == "/oauth2/exchange" {
			if !is(r.Form.Get("access_token"), "azure-entra") || now == second {
				no()
				return
			}
			_, _ = fmt.Fprintf(rw, `{"refresh_token":%q}`, canary("azure-refresh"))
			return
		}
		w.registry(rw, r, host, text, now != works)
	}
}

// registry is one whose tokens come from itself, but for those who take a password on every request.
func (w *world) registry(rw http.ResponseWriter, r *http.Request, host, text string, failing bool) {
	i := slices.IndexFunc(registries, func(x struct{ host, user, kind, credential string }) bool { return x.host == host })
	if i < 0 {
		http.NotFound(rw, r)
		return
	}
	x := registries[i]
	user, password, _ := r.BasicAuth()
	login := user == x.user && password == canary(x.kind) || x.user == "" && r.Form.Get("refresh_token") == canary(x.kind)
	repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if r.URL.Path == "/token" {
		repo = strings.TrimPrefix(r.URL.Query().Get("scope")+r.Form.Get("scope"), "repository:")
		repo, _, _ = strings.Cut(repo, "/")
		if !login || failing || repo == "notoken" {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(rw, `{"details":%q}`, "you are not "+text)
			return
		}
		w.saw(x.kind)
		_, _ = fmt.Fprintf(rw, `{"token":%q,"expires_in":300}`, canary("token"))
		return
	}
	basic := x.kind == "env" || x.kind == "helper" || x.kind == "aws-login"
	in := !basic && r.Header.Get("Authorization") == "Bearer "+canary("token")
	if basic && login {
		w.saw(x.kind)
		in = true
	}
	if !basic && in {
		w.saw("token")
	}
	said := fmt.Sprintf(`{"errors":[{"code":"DENIED","message":%q,"detail":%q}]}`, "you sent "+text, text)
	if !in || failing || repo == "e401" {
		challenge := fmt.Sprintf("Bearer realm=%q,service=%q", "https://"+host+"/token", host)
		if basic {
			challenge = `Basic realm="` + host + `"`
		}
		if repo == "realm" {
			challenge = fmt.Sprintf("Bearer realm=%q", "https://evil.test/?"+url.QueryEscape(text))
		}
		rw.Header().Set("Www-Authenticate", challenge+`,error_description="`+url.QueryEscape(text)+`"`)
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(rw, said)
		return
	}
	answer := func(status int, mediaType, body string) {
		rw.Header().Set("Content-Type", mediaType)
		rw.Header().Set("X-You-Sent", r.Header.Get("Authorization"))
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	}
	switch repo {
	case "e403":
		answer(403, "application/json", said)
	case "e500":
		answer(500, "application/json", said)
	case "e429":
		answer(429, "text/plain", text)
	case "e418":
		answer(418, "text/plain", text)
	case "expired":
		answer(403, "application/json", strings.Replace(said, "you sent", "token has expired:", 1))
	case "page":
		answer(403, "text/html", "<html><title>"+html.EscapeString(text)+"</title></html>")
	case "page200":
		answer(200, "text/html", "<html><title>"+html.EscapeString(text)+"</title></html>")
	case "xml":
		answer(400, "application/xml", "<Error><Code>X</Code><Message>"+html.EscapeString(text)+"</Message></Error>")
	case "away":
		rw.Header().Set("Location", "https://cdn.test/blob?X-Amz-Signature="+url.QueryEscape(text))
		rw.WriteHeader(http.StatusTemporaryRedirect)
	case "nowhere":
		rw.Header().Set("Location", "ftp://"+url.QueryEscape(text)+"@cdn.test/")
		rw.WriteHeader(http.StatusTemporaryRedirect)
	case "plain":
		rw.Header().Set("Location", "http://cdn.test/?"+url.QueryEscape(text))
		rw.WriteHeader(http.StatusTemporaryRedirect)
	case "cut":
		rw.Header().Set("Content-Length", "100000")
		answer(200, "application/vnd.oci.image.manifest.v1+json", "{")
		panic(http.ErrAbortHandler)
	case "gone":
		panic(http.ErrAbortHandler)
	default:
		answer(200, "application/vnd.oci.image.index.v1+json",
			`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	}
}

// proxy connects to the world, whatever host is asked for, for requests with its password.
func (w *world) proxy(t *testing.T, to string) *httptest.Server {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("px:"+canary("proxy")))
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Proxy-Authorization"); got != want || r.Method != http.MethodConnect ||
			strings.HasPrefix(r.Host, "unproxied.test") {
			rw.WriteHeader(http.StatusProxyAuthRequired)
			_, _ = io.WriteString(rw, "you sent "+got)
			return
		}
		w.saw("proxy")
		out, err := net.Dial("tcp", to)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			_ = out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}))
	t.Cleanup(s.Close)
	return s
}

// TestCanaries gives the binary a login of every kind there is, each with a secret of its own, and has registries, token
// services and clouds repeat what they are told in every failure. No secret shows in any form: in an answer to a client,
// in the log, metrics, API, profiles, the output of a command, what is on disk, or the dump of a killed process.
func TestCanaries(t *testing.T) {
	t.Parallel()
	w := &world{told: map[string]bool{}}
	names := slices.Clone(services)
	for _, x := range registries {
		names = append(names, x.host)
	}
	o := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: names}})
	o.Script(origin.Rule{Early: true, Do: origin.Fault{Handler: w.ServeHTTP}})
	proxy := w.proxy(t, o.Host())
	metadata := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Metadata-Flavor", "Google")
		if now := w.now(); now == first || now == second {
			rw.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(rw, "you sent "+heard(r))
			return
		}
		_, _ = fmt.Fprintf(rw, `{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, canary("google-metadata"))
	}))
	t.Cleanup(metadata.Close)

	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets")
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(secrets, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("pass", canary("file")+"\n", 0o600)
	write("config.json", fmt.Sprintf(`{"auths":{"auths.test":{"auth":%q},"identity.test":{"identitytoken":%q}},`+
		`"credHelpers":{"configured.test":"canary"}}`,
		base64.StdEncoding.EncodeToString([]byte("bot:"+canary("auths"))), canary("identity")), 0o600)
	write("mounted/.dockerconfigjson", fmt.Sprintf(`{"auths":{"entry.test":{"username":"bot","password":%q}}}`, canary("entry")), 0o600)
	// They print their answer, and fail all the same; and print their secret, as bad programs do, once it is known.
	write("docker-credential-canary", `#!/bin/sh
read host
kind=${host%.test}
[ -e `+secrets+`/known ] && echo "cannot unlock with canary/$kind+7d21=x" >&2
[ -e `+secrets+`/broken ] && echo "cannot unlock" >&2
echo '{"ServerURL":"'$host'","Username":"bot","Secret":"canary/'$kind'+7d21=x"}'
[ ! -e `+secrets+`/broken ] && [ ! -e `+secrets+`/known ]
`, 0o700)
	write("provider", `#!/bin/sh
cat > /dev/null
[ -e `+secrets+`/broken ] && echo "login was refused" >&2
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry",'
echo '"cacheDuration":"1h","auth":{"plugin.test":{"username":"bot","password":"canary/plugin+7d21=x"}}}'
[ ! -e `+secrets+`/broken ]
`, 0o700)
	key := testKey(t)
	write("google.json", fmt.Sprintf(`{"type":"service_account","client_email":"m@p.iam.gserviceaccount.com","private_key":%q}`, key), 0o600)
	ca := write("ca.pem", string(o.CAPEM()), 0o600)
	proxied, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxied.User = url.UserPassword("px", canary("proxy"))

	var upstreams strings.Builder
	for _, x := range registries {
		key := x.host // or a pattern, by which each host gets a login of its own
		switch x.kind {
		case "aws-login":
			key = "*.dkr.ecr.*.amazonaws.com"
		case "azure-refresh":
			key = "*.azurecr.io"
		}
		fmt.Fprintf(&upstreams, "%q: {access: rules, cdnHosts: [cdn.test], credentials: [{name: c, %s}]}\n", key,
			strings.ReplaceAll(x.credential, "DIR", secrets))
	}
	upstreams.WriteString("unproxied.test: {}\n")
	env := []string{
		"SSL_CERT_FILE=" + ca, "HTTPS_PROXY=" + proxied.String(), "NO_PROXY=", "GOTRACEBACK=all",
		"PATH=" + secrets + ":" + os.Getenv("PATH"), "CANARY_PASSWORD=" + canary("env"),
		"AWS_WEB_IDENTITY_TOKEN_FILE=" + write("aws.jwt", canary("aws-identity"), 0o600), "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/m",
		"GCE_METADATA_HOST=" + strings.TrimPrefix(metadata.URL, "http://"),
		"AZURE_FEDERATED_TOKEN_FILE=" + write("azure.jwt", canary("azure-identity"), 0o600), "AZURE_CLIENT_ID=id", "AZURE_TENANT_ID=tenant",
	}
	seen := &shows{texts: map[string]string{}}
	for i, a := range []act{works, refused, second, first} {
		w.begin(a)
		if a == first {
			write("broken", "", 0o600)
		}
		perform(t, a, seen, mirrord.Options{
			Dir: filepath.Join(dir, fmt.Sprint(i)), Program: mirrord.Binary, Upstreams: upstreams.String(), Env: env,
			More: `rules: [{who: ["*"], pull: ["**"]}]`,
		})
	}
	for _, kind := range kinds {
		if !w.told[kind] {
			t.Errorf("no request has shown the secret of %s: the test proves nothing of it", kind)
		}
	}
	if len(w.strange) > 0 {
		t.Errorf("%q", w.strange)
	}

	texts := map[string]string{"the key of Google's account": strings.Split(key, "\n")[3]}
	for _, kind := range kinds {
		for i, form := range forms("bot", canary(kind)) {
			texts[fmt.Sprintf("%s, form %d", kind, i)] = form
		}
	}
	for _, x := range registries {
		for i, form := range forms(x.user, canary(x.kind)) {
			texts[fmt.Sprintf("%s, as %s, form %d", x.kind, x.user, i)] = form
		}
	}
	for where, shown := range seen.texts {
		for what, text := range texts {
			if i := strings.Index(shown, text); i >= 0 {
				t.Errorf("%s shows %s: ...%s...", where, what, shown[max(0, i-300):min(len(shown), i+len(text)+60)])
				break
			}
		}
	}
	if len(seen.texts) < 1200 {
		t.Errorf("only %d texts were looked at", len(seen.texts))
	}
}

// shows is what was shown, by where.
type shows struct {
	mu    sync.Mutex
	texts map[string]string
}

func (s *shows) add(where, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts[where] += text + "\n"
}

// perform runs a mirror of its own through an act, and collects all that it shows to anybody, until it is killed.
func perform(t *testing.T, a act, seen *shows, o mirrord.Options) {
	t.Helper()
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := mirrord.Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.End()
	show := func(where, text string) { seen.add(string(a)+": "+where, text) }
	digest := "sha256:" + strings.Repeat("ab", 32)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	ask := func(method, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, m.URL()+"/v2/"+path, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return 0
		}
		defer func() { _ = res.Body.Close() }()
		body, _ := io.ReadAll(res.Body) // a broken one is among what is tested
		var head bytes.Buffer
		_ = res.Header.Write(&head)
		show("answer to "+method+" "+path, res.Status+head.String()+string(body))
		return res.StatusCode
	}
	faults := []string{"good"}
	if a == works {
		faults = append(faults, "e401", "e403", "e500", "e429", "e418", "expired", "page", "page200", "xml", "away", "nowhere", "plain",
			"cut", "gone", "realm", "notoken")
	}
	var all sync.WaitGroup
	for _, x := range registries {
		all.Go(func() {
			for _, fault := range faults {
				base := x.host + "/" + fault + "/app/"
				if code := ask("GET", base+"manifests/v1"); fault == "good" && (code == http.StatusOK) != (a == works) {
					t.Errorf("%s: %s: %d", a, base, code)
				}
				ask("HEAD", base+"manifests/v1")
				ask("GET", base+"blobs/"+digest)
				ask("GET", base+"tags/list")
				ask("GET", base+"referrers/"+digest)
			}
		})
	}
	all.Wait()
	ask("GET", "unproxied.test/app/manifests/v1") // which the proxy refuses
	if a == works {                               // programs are asked anew after five seconds, and then fail
		known := filepath.Join(filepath.Dir(o.Dir), "secrets", "known")
		if err := os.WriteFile(known, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		wait.For(t, 2*time.Minute, "helpers to fail", func() error {
			_, body := m.Get(t, "/api/v1/upstreams")
			if n := strings.Count(body, "cannot unlock with ***"); n != 2 {
				return fmt.Errorf("%d have: %s", n, body)
			}
			return nil
		})
		if err := os.Remove(known); err != nil {
			t.Fatal(err)
		}
	}

	for _, path := range []string{
		"/metrics", "/api/v1/upstreams", "/api/v1/failures?declined=true&limit=1000", "/api/v1/failures/summary", "/api/v1/pulls",
		"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1",
		"/debug/pprof/heap", "/debug/pprof/allocs?debug=1", "/debug/pprof/block?debug=1", "/debug/pprof/mutex?debug=1",
		"/debug/pprof/threadcreate?debug=1", "/debug/pprof/cmdline", "/debug/pprof/trace?seconds=1", "/readyz", "/none",
	} {
		_, body := m.Get(t, path)
		if body == "" {
			t.Errorf("%s says nothing", path)
		}
		if z, err := gzip.NewReader(strings.NewReader(body)); err == nil { // profiles are
			b, _ := io.ReadAll(z)
			body += string(b)
		}
		show(path, body)
		if want := `"state":"failing"`; path == "/api/v1/upstreams" {
			failing := strings.Count(body, want)
			if least := map[act]int{second: 4, first: 7}[a]; failing < least {
				t.Errorf("%s: %d logins can't be had, want %d: %s", a, failing, least, body)
			}
		}
	}
	for _, args := range [][]string{
		{"upstreams", "--admin", m.Admin},
		{"upstreams", "--admin", m.Admin, "-o", "json"},
		{"failures", "--admin", m.Admin, "--declined"},
		{"failures", "--admin", m.Admin, "-o", "json"},
		{"failures", "--admin", m.Admin, "--by", "class"},
		{"config", "print", "--config", m.File},
		{"config", "check", "--no-files", "--config", m.File},
	} {
		r := proc.Run(t, proc.Options{Env: o.Env}, mirrord.Binary, args...)
		if r.Code != 0 || r.Text() == "" {
			t.Errorf("mirror %s: %d %s", strings.Join(args, " "), r.Code, r.Text())
		}
		show("mirror "+strings.Join(args, " "), r.Text())
	}
	m.Signal(t, syscall.SIGQUIT) // which has Go dump all goroutines
	<-m.Done()
	if !strings.Contains(m.Output(), "goroutine ") {
		t.Error("there is no dump")
	}
	show("log and dump", m.Output())
	err = filepath.WalkDir(m.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		show(path, string(b))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// testKey is a private key, PEM.
func testKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
