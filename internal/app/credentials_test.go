package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/acr"
	"github.com/registrymirror/mirror/auth/ecr"
	"github.com/registrymirror/mirror/auth/gar"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/testlog"
)

// secret is a password that must show nowhere.
const secret = "canary-5b1d7e90"

// limited is a registry that lets anybody pull what is public, and bot what is private, too.
func limited(t *testing.T) *origin.Origin {
	t.Helper()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{
		Kind: "bearer", Username: "bot", Password: secret, Anonymous: true,
		Private: func(repo string) bool { return strings.HasPrefix(repo, "private/") },
	}})
	o.AddImage("public/app", "1", origin.Image{})
	o.AddImage("private/app", "1", origin.Image{})
	return o
}

// loginsFor counts the token requests for a repository that showed bot's password, and those that showed something else.
func loginsFor(o *origin.Origin, repo string) (bot, other int) {
	right := "Basic " + base64.StdEncoding.EncodeToString([]byte("bot:"+secret))
	for _, r := range o.Requests() {
		switch got := r.Header.Get("Authorization"); {
		case r.Kind != origin.KindToken || r.Repo != repo || got == "":
		case got == right:
			bot++
		default:
			other++
		}
	}
	return bot, other
}

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// Each source that the configuration can name logs in, for public images alone; its state shows, its secret doesn't.
func TestSources(t *testing.T) {
	t.Setenv("MIRROR_TEST_PASSWORD", secret)
	dir := t.TempDir()
	o := limited(t)
	host := nameOf(o)
	write(t, filepath.Join(dir, "pass"), secret+"\n")
	auths := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("bot:"+secret)))
	write(t, filepath.Join(dir, "config.json"), auths)
	if err := os.Mkdir(filepath.Join(dir, "mounted"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mounted", ".dockerconfigjson"), auths)
	helper, plugin := filepath.Join(dir, "docker-credential-test"), filepath.Join(dir, "provider")
	script(t, helper, `read host; [ "$1 $host" = "get `+host+`" ] || exit 3
echo '{"ServerURL":"x","Username":"bot","Secret":"`+secret+`"}'`)
	script(t, plugin, `[ "$1 $COLOUR" = "get-credentials blue" ] || exit 3
cat > /dev/null
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry",`+
		`"cacheDuration":"1h","auth":{"`+host+`":{"username":"bot","password":"`+secret+`"}}}'`)

	for _, tt := range []struct{ name, kind, source string }{
		{"file", "file", "username: bot, passwordFile: " + filepath.Join(dir, "pass")},
		{"env", "env", "username: bot, passwordEnv: MIRROR_TEST_PASSWORD"},
		{"dockerConfig", "dockerConfig", "dockerConfig: " + filepath.Join(dir, "config.json")},
		{"mounted secret", "dockerConfig", "dockerConfig: " + filepath.Join(dir, "mounted")},
		{"helper", "helper", "helper: " + helper},
		{"plugin", "plugin", "plugin: {command: " + plugin + ", args: [get-credentials], env: {COLOUR: blue}}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o.ClearRequests()
			a, log := start(t, parse(t, t.TempDir(),
				fmt.Sprintf("  %s: {endpoints: [%q], credentials: [{name: hub, %s}]}\n", host, o.URL(), tt.source)))
			r := &running{App: a}
			if err := r.pull(t, o, "public/app:1"); err != nil {
				t.Fatal(err)
			}
			if bot, other := loginsFor(o, "public/app"); bot != 1 || other != 0 {
				t.Errorf("%d token requests as bot, %d as others; want one as bot", bot, other)
			}
			if status, text := get(t, "http://"+a.Addr().String()+"/v2/"+host+"/private/app/manifests/1"); status != http.StatusForbidden {
				t.Errorf("a private image: %d %s", status, text)
			}
			if bot, other := loginsFor(o, "private/app"); bot+other != 0 {
				t.Errorf("%d logins for a private repository", bot+other)
			}
			_, text := get(t, "http://"+a.AdminAddr().String()+"/metrics")
			for state, is := range map[string]int{"ok": 1, "failing": 0, "rejected": 0} {
				if want := fmt.Sprintf(`mirror_credential_state{credential="hub",state=%q,upstream=%q} %d`, state, host, is); !strings.Contains(text, want+"\n") {
					t.Errorf("no %s", want)
				}
			}
			status, api := get(t, "http://"+a.AdminAddr().String()+"/api/v1/upstreams")
			var list admin.UpstreamList
			if err := json.Unmarshal([]byte(api), &list); err != nil || status != http.StatusOK || len(list.Upstreams) != 1 {
				t.Fatalf("%d %s: %v", status, api, err)
			}
			up := list.Upstreams[0]
			if up.Name != host || up.Access != "public" || len(up.Endpoints) != 1 || up.Endpoints[0].State != "up" ||
				len(up.Credentials) != 1 || up.Credentials[0].Name != "hub" || up.Credentials[0].State != "ok" ||
				!strings.EqualFold(up.Credentials[0].Kind, tt.kind) {
				t.Errorf("%+v", up)
			}
			for what, text := range map[string]string{"log": log.Take(), "metrics": text, "API": api} {
				if strings.Contains(text, secret) {
					t.Errorf("the password shows in the %s", what)
				}
			}
		})
	}
}

// A password that is wrong harms no public image: one is pulled as before, with a warning that stands until the password
// is put right, which needs no reload.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	o.AddImage("public/app", "2", origin.Image{Seed: 2})
	pass := filepath.Join(dir, "pass")
	write(t, pass, "wrong")
	a, log := start(t, parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], credentials: [{name: hub, username: bot, "+
		"passwordFile: pass}]}\n", nameOf(o), o.URL())))
	r := &running{App: a}
	state := func(want string) {
		t.Helper()
		_, text := get(t, "http://"+a.AdminAddr().String()+"/metrics")
		if line := fmt.Sprintf(`mirror_credential_state{credential="hub",state=%q,upstream=%q} 1`, want, nameOf(o)); !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if err := r.pull(t, o, "public/app:1"); err != nil {
		t.Fatal(err)
	}
	state("rejected")
	if n := strings.Count(log.Take(), "credential refused; continuing without it"); n != 1 {
		t.Errorf("%d warnings in the log, want 1", n)
	}
	write(t, pass, secret)
	o.RevokeTokens()
	if err := r.pull(t, o, "public/app:2"); err != nil {
		t.Fatal(err)
	}
	if bot, _ := loginsFor(o, "public/app"); bot == 0 {
		t.Error("the right password was not used")
	}
	state("ok")
}

// Where there is no credential at all at first, the mirror starts, serves what is public, and says what is wrong.
func TestSourceThatIsNotThere(t *testing.T) {
	t.Parallel()
	o := limited(t)
	a, log := start(t, parse(t, t.TempDir(), fmt.Sprintf("  %s: {endpoints: [%q], credentials: [{name: hub, "+
		"helper: docker-credential-none-such}]}\n", nameOf(o), o.URL())))
	r := &running{App: a}
	if err := r.pull(t, o, "public/app:1"); err != nil {
		t.Fatal(err)
	}
	_, text := get(t, "http://"+a.AdminAddr().String()+"/metrics")
	for _, want := range []string{
		fmt.Sprintf(`mirror_credential_state{credential="hub",state="failing",upstream=%q} 1`, nameOf(o)),
		fmt.Sprintf(`mirror_credential_refreshes_total{credential="hub",result="error",upstream=%q} `, nameOf(o)),
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if text := log.Take(); !strings.Contains(text, "credential can't be fetched: only public images are pulled") {
		t.Errorf("log:\n%s", text)
	}
}

// logged waits for a line that a goroutine of the mirror writes.
func logged(t *testing.T, log *testlog.Log, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the log:\n%s", log.String())
		}
	}()
	eventually(t, fmt.Sprintf("the log says %q", text), func() bool { return strings.Contains(log.String(), text) })
}

// A credential that does not exist is failing from the start, before a pull needs it: in the API, in the metric that
// alerts are made of, and in the log.
func TestACredentialThatIsNotThereIsNeverOK(t *testing.T) {
	t.Setenv("MIRROR_TEST_PASSWORD", "")
	for _, tt := range []struct{ name, source, says string }{
		{"missing file", "username: bot, passwordFile: none", "none does not exist; create it"},
		{"empty file", "username: bot, passwordFile: empty", "empty is empty; write the password to it"},
		{"empty variable", "username: bot, passwordEnv: MIRROR_TEST_PASSWORD", "MIRROR_TEST_PASSWORD is empty"},
		{"missing docker config", "dockerConfig: none.json", "none.json: no such file"},
		{"docker config without an entry", "dockerConfig: other.json", "has no entry for"},
		{"missing helper", "helper: docker-credential-none-such", "executable file not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "empty"), "\n")
			write(t, filepath.Join(dir, "other.json"), `{"auths":{"other.example":{"auth":"Ym90OngK"}}}`)
			o := limited(t)
			a, log := start(t, parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], credentials: [{name: hub, %s}]}\n", nameOf(o), o.URL(),
				tt.source)))
			if tt.name == "missing helper" { // it is run once the mirror runs
				logged(t, log, "credential can't be fetched")
			}
			_, api := get(t, "http://"+a.AdminAddr().String()+"/api/v1/upstreams")
			var list admin.UpstreamList
			if err := json.Unmarshal([]byte(api), &list); err != nil {
				t.Fatal(err)
			}
			c := list.Upstreams[0].Credentials[0]
			if c.State != "failing" || !strings.Contains(c.LastError, tt.says) {
				t.Errorf("%+v", c)
			}
			_, text := get(t, "http://"+a.AdminAddr().String()+"/metrics")
			want := fmt.Sprintf(`mirror_credential_state{credential="hub",state="failing",upstream=%q} 1`, nameOf(o))
			if !strings.Contains(text, "\n"+want) {
				t.Errorf("no %s", want)
			}
			if tt.name != "docker config without an entry" { // that may be meant: the file is read, and others use it
				logged(t, log, "credential=hub")
			}
			if n := len(o.Requests()); n != 0 {
				t.Errorf("the registry was asked %d times", n)
			}
		})
	}
}

// A password file that was emptied while the mirror runs: the old password is still used, and where the registry refuses it
// the failure says what is the matter with the file.
func TestAnEmptiedPasswordFileIsInTheEvidence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	pass := filepath.Join(dir, "pass")
	write(t, pass, "last year's")
	c := parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], access: rules, credentials: [{name: hub, username: bot, passwordFile: pass}]}\n"+
		"rules: [{who: [anonymous], pull: ['**']}]\n", nameOf(o), o.URL()))
	a, log := start(t, c)
	get(t, "http://"+a.AdminAddr().String()+"/api/v1/upstreams") // it is read
	write(t, pass, "")
	status, text := get(t, "http://"+a.Addr().String()+"/v2/"+nameOf(o)+"/private/app/manifests/1")
	if status != http.StatusForbidden || !strings.Contains(text, "rejects credential hub") {
		t.Errorf("%d %s", status, text)
	}
	_, text = get(t, "http://"+a.AdminAddr().String()+"/api/v1/failures")
	want := "credential hub: rejected; its password file " + pass + " is empty; write the password to it; until then the password that " +
		"was read before is used"
	if !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
	if !strings.Contains(log.String(), "the password that was read before stays in use") {
		t.Errorf("log:\n%s", log)
	}
}

// A login of a cloud that the configuration accepts is accepted by its source, and the other way about.
func TestHostsOfClouds(t *testing.T) {
	t.Parallel()
	is := map[string]func(string) bool{
		"ecr": func(host string) bool { _, err := ecr.New(ecr.Options{Host: host}, auth.Refresh{}); return err == nil },
		"gar": func(host string) bool { _, err := gar.New(gar.Options{Host: host}, auth.Refresh{}); return err == nil },
		"acr": func(host string) bool { _, err := acr.New(acr.Options{Host: host}, auth.Refresh{}); return err == nil },
	}
	for _, host := range []string{
		"public.ecr.aws", "ecr-public.aws.com", "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
		"123456789012.dkr-ecr.eu-west-1.on.aws", "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "public.ecr.aws.evil.example",
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
		"gcr.io", "eu.gcr.io", "a.b.gcr.io", "xgcr.io", "europe-docker.pkg.dev", "docker.pkg.dev", "europe-west1-docker.pkg.dev",
		"a.azurecr.io", "a-b.azurecr.cn", "a.azurecr.us", "azurecr.io", "a.b.azurecr.io", "a.azurecr.io:443", "docker.io",
	} {
		for source, want := range is {
			u := config.Upstream{Name: host, Endpoints: []config.Endpoint{{URL: "https://other.example"}}}
			if _, got := u.CloudHost(source); got != want(host) {
				t.Errorf("%s for %s: %v by the configuration, %v by its source", source, host, got, want(host))
			}
		}
	}
}

// A reload brings credentials and takes them away, in the middle of a download too.
func TestReloadOfCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "pass"), secret)
	o := limited(t)
	o.AddImage("public/app", "2", origin.Image{Layers: []int64{5000}})
	blob := o.AddBlob("public/app", bytes.Repeat([]byte("x"), 3<<20))
	conf := func(credentials string) *config.Config {
		return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q]%s}\n", nameOf(o), o.URL(), credentials))
	}
	a, _ := start(t, conf(""))
	r := &running{App: a}
	shown := func(want int) {
		t.Helper()
		_, text := get(t, "http://"+a.AdminAddr().String()+"/api/v1/upstreams")
		if got := strings.Count(text, `"name":"hub"`); got != want {
			t.Errorf("%d credentials are shown, want %d: %s", got, want, text)
		}
	}
	if err := r.pull(t, o, "public/app:1"); err != nil {
		t.Fatal(err)
	}
	shown(0)

	// A download that runs while its upstream gets another credential.
	gate := make(chan struct{})
	sent := 0
	o.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Method: "GET", Do: origin.Fault{Cut: &origin.Cut{At: 1 << 20}}})
	done := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + a.Addr().String() + "/v2/" + nameOf(o) + "/public/app/blobs/" + string(blob.Digest))
		if err == nil {
			defer resp.Body.Close()
			close(gate)
			var b []byte
			b, err = io.ReadAll(resp.Body)
			sent = len(b)
		}
		done <- err
	}()
	<-gate
	if err := a.Reload(conf(", credentials: [{name: hub, username: bot, passwordFile: pass}]")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || sent != 3<<20 {
		t.Errorf("the download that ran: %d bytes, %v", sent, err)
	}
	if bot, other := loginsFor(o, "public/app"); bot+other != 0 {
		t.Errorf("%d logins before there was a credential for them", bot+other)
	}
	if err := r.pull(t, o, "public/app:2"); err != nil {
		t.Fatal(err)
	}
	if bot, other := loginsFor(o, "public/app"); bot != 1 || other != 0 {
		t.Errorf("%d logins as bot, %d as others", bot, other)
	}
	shown(1)
	if err := a.Reload(conf("")); err != nil {
		t.Fatal(err)
	}
	shown(0)
}
