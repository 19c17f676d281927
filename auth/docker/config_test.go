package docker_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/docker"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func config(t *testing.T, host, text string) *docker.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, text)
	return docker.NewConfig(docker.Options{Name: "file", Path: path, Host: host})
}

func TestEntries(t *testing.T) {
	t.Parallel()
	login := func(s string) string { return fmt.Sprintf(`{"auth":%q}`, b64(s)) }
	auths := func(kv ...string) string {
		var b strings.Builder
		for i := 0; i < len(kv); i += 2 {
			fmt.Fprintf(&b, "%q:%s,", kv[i], kv[i+1])
		}
		return `{"auths":{` + strings.TrimSuffix(b.String(), ",") + `}}`
	}
	for _, tt := range []struct {
		name, host, repo, text string
		want                   string
		err                    string
	}{
		{name: "host", host: "ghcr.io", text: auths("ghcr.io", login("bot:pw")), want: "bot:pw:"},
		{name: "password with colons", host: "ghcr.io", text: auths("ghcr.io", login("bot:p:w")), want: "bot:p:w:"},
		{name: "zero bytes at the end", host: "ghcr.io", text: auths("ghcr.io", login("bot:pw\x00\x00")), want: "bot:pw:"},
		{name: "unpadded", host: "ghcr.io", text: auths("ghcr.io", `{"auth":"Ym90OnA"}`), want: "bot:p:"},
		{name: "plain fields", host: "ghcr.io", text: auths("ghcr.io", `{"username":"u","password":"p"}`), want: "u:p:"},
		{name: "auth wins", host: "ghcr.io", text: auths("ghcr.io", `{"username":"u","password":"p","auth":"`+b64("a:b")+`"}`), want: "a:b:"},
		{
			name: "identity token", host: "r.azurecr.io",
			text: auths("r.azurecr.io", `{"auth":"`+b64("00000000-0000-0000-0000-000000000000:")+`","identitytoken":"rt"}`),
			want: "::rt",
		},
		{name: "URL", host: "ghcr.io", text: auths("https://ghcr.io/v2/", login("bot:pw")), want: "bot:pw:"},
		{name: "hub as docker writes it", host: "docker.io", text: auths("https://index.docker.io/v1/", login("hub:pw")), want: "hub:pw:"},
		{name: "hub by another name", host: "docker.io", text: auths("registry-1.docker.io", login("hub:pw")), want: "hub:pw:"},
		{
			name: "hub twice, one empty", host: "docker.io",
			text: auths("docker.io", `{}`, "https://index.docker.io/v1/", login("hub:pw")), want: "hub:pw:",
		},
		{name: "port", host: "reg.example:5000", text: auths("reg.example", login("a:b"), "reg.example:5000", login("c:d")), want: "c:d:"},
		{name: "other port", host: "reg.example", text: auths("reg.example:5000", login("c:d")), err: "has no entry for reg.example"},
		{name: "case", host: "ghcr.io", text: auths("GHCR.io", login("bot:pw")), want: "bot:pw:"},
		{name: "longest path", host: "quay.io", repo: "acme/team/app", text: auths("quay.io", login("a:1"), "quay.io/acme", login("b:2"), "quay.io/acme/team", login("c:3")), want: "c:3:"},
		{name: "path ends at a slash", host: "quay.io", repo: "acmecorp/app", text: auths("quay.io", login("a:1"), "quay.io/acme", login("b:2")), want: "a:1:"},
		{name: "the repository itself", host: "quay.io", repo: "acme/app", text: auths("quay.io/acme/app", login("b:2")), want: "b:2:"},
		{name: "other repository", host: "quay.io", repo: "other/app", text: auths("quay.io/acme", login("b:2")), want: "::"},
		{name: "no repository", host: "quay.io", text: auths("quay.io/acme", login("b:2")), want: "::"},
		{name: "glob", host: "eu.gcr.io", text: auths("*.gcr.io", login("a:1")), want: "a:1:"},
		{name: "glob in a label", host: "app2.reg.example", text: auths("app*.reg.example", login("a:1")), want: "a:1:"},
		{name: "exact before glob", host: "eu.gcr.io", text: auths("*.gcr.io", login("a:1"), "eu.gcr.io", login("b:2")), want: "b:2:"},
		{name: "glob has as many labels", host: "a.b.gcr.io", text: auths("*.gcr.io", login("a:1")), err: "has no entry for a.b.gcr.io"},
		{name: "suffix of another domain", host: "evilgcr.io", text: auths("gcr.io", login("a:1")), err: "has no entry"},
		{name: "prefix of another domain", host: "gcr.io.evil.example", text: auths("gcr.io", login("a:1"), "*.io", login("b:2")), err: "has no entry"},
		{name: "dockercfg", host: "ghcr.io", text: `{"ghcr.io":` + login("old:pw") + `}`, want: "old:pw:"},
		{name: "nothing", host: "ghcr.io", text: `{}`, err: "has no entry for ghcr.io; add one"},
		{name: "empty entry", host: "ghcr.io", text: auths("ghcr.io", `{}`), err: "the entry ghcr.io"},
		{name: "registrytoken", host: "ghcr.io", text: auths("ghcr.io", `{"registrytoken":"`+canary+`"}`), err: "registrytoken alone"},
		{name: "broken auth", host: "ghcr.io", text: auths("ghcr.io", `{"auth":"`+canary+`!"}`), err: "not the base64 of USER:PASSWORD"},
		{name: "auth without colon", host: "ghcr.io", text: auths("ghcr.io", `{"auth":"`+b64(canary)+`"}`), err: "not the base64 of USER:PASSWORD"},
		{name: "entry of another type", host: "ghcr.io", text: `{"auths":{"ghcr.io":"` + canary + `"}}`, err: "it is not an object"},
		{name: "not JSON", host: "ghcr.io", text: canary, err: "config.json is not JSON, at byte 1; put a docker config there"},
		{name: "JSON of another type", host: "ghcr.io", text: `["` + canary + `"]`, err: "wrong type"},
		{name: "too large", host: "ghcr.io", text: strings.Repeat(" ", 1<<20+1), err: "has more than 1 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src := config(t, tt.host, tt.text)
			c, err := auth.For(src, tt.repo).Credential(t.Context())
			st := auth.Describe(auth.For(src, tt.repo))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "credential file") {
					t.Errorf("%q, error %v, want one with %q", shown(c), err, tt.err)
				}
				if st.State != auth.StateFailing || strings.Contains(fmt.Sprint(err, st), canary) ||
					strings.Contains(fmt.Sprint(err, st), b64(canary)) {
					t.Errorf("error %v, status %+v", err, st)
				}
				return
			}
			if err != nil || shown(c) != tt.want {
				t.Errorf("%q, %v, want %q", shown(c), err, tt.want)
			}
			if st.State != auth.StateOK || st.Kind != "dockerConfig" || st.For != tt.host || st.Name != "file" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestConfigWithHelpers(t *testing.T) {
	t.Parallel()
	teach(t, "c1.example", say{Out: `{"Username":"helped","Secret":"pw"}`})
	teach(t, "c4.example", say{Err: "locked", Code: 1})
	login := func(host string) string { return fmt.Sprintf(`"auths":{%q:{"auth":%q}}`, host, b64("file:pw")) }
	for _, tt := range []struct {
		name, host, text string
		want, err        string
		asked            []string
	}{
		{
			"credHelpers", "c1.example", `{"credHelpers":{"c1.example":"test"},"credsStore":"other",` + login("c1.example") + `}`,
			"helped:pw:", "",
			[]string{"docker-credential-test"},
		},
		{"credsStore", "c2.example", `{"credsStore":"other","auths":{"c2.example":{}}}`, "::", "", []string{"docker-credential-other"}},
		{
			"store has nothing, file has", "c3.example", `{"credsStore":"other",` + login("c3.example") + `}`,
			"file:pw:", "",
			[]string{"docker-credential-other"},
		},
		{
			"store fails, file has", "c4.example", `{"credsStore":"other",` + login("c4.example") + `}`,
			"", "docker-credential-other: exit status 1: locked",
			[]string{"docker-credential-other"},
		},
		{"helper of another host", "c5.example", `{"credHelpers":{"c1.example":"test"},` + login("c5.example") + `}`, "file:pw:", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src := config(t, tt.host, tt.text)
			c, err := src.Credential(t.Context())
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || tt.err == "" && err != nil || err == nil && shown(c) != tt.want {
				t.Errorf("%q, %v, want %q %q", shown(c), err, tt.want, tt.err)
			}
			if got := asked(t, tt.host); strings.Join(got, " ") != strings.Join(tt.asked, " ") {
				t.Errorf("asked %q, want %q", got, tt.asked)
			}
		})
	}
}

// A mounted secret, as the kubelet swaps it: file -> ..data/file, ..data -> a folder per version.
func TestMountedSecretIsSwapped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	swap := func(version, password string) {
		t.Helper()
		at := filepath.Join(dir, version)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(at, ".dockerconfigjson"), `{"auths":{"ghcr.io":{"auth":"`+b64("bot:"+password)+`"}}}`)
		next := filepath.Join(dir, "..next")
		if err := os.Symlink(version, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap("..v1", "one")
	if err := os.Symlink(filepath.Join("..data", ".dockerconfigjson"), filepath.Join(dir, ".dockerconfigjson")); err != nil {
		t.Fatal(err)
	}
	looks := make(chan error, 100)
	src := docker.NewConfig(docker.Options{
		Name: "pulled", Path: dir, Host: "ghcr.io", Observe: func(_ string, err error) { looks <- err },
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- src.Run(ctx) }()
	if err := <-looks; err != nil {
		t.Errorf("first look: %v", err)
	}
	begun := time.Now()
	expect(t, src, "bot:one:")
	swap("..v2", "two")
	if err := <-looks; err != nil {
		t.Errorf("look: %v", err)
	}
	if took := time.Since(begun); took > 9*time.Second {
		t.Errorf("the change was noticed after %s, by the poll and not by the event", took)
	}
	expect(t, src, "bot:two:")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Where no event comes, as of a network file system, the content is compared, also where size and times are the same.
func TestFileIsPolled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	text := func(p string) string { return `{"auths":{"ghcr.io":{"auth":"` + b64("bot:"+p) + `"}}}` }
	when := time.Now().Add(-time.Hour)
	put := func(p string) {
		t.Helper()
		write(t, path, p)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	put(text("one"))
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		src := docker.NewConfig(docker.Options{
			Name: "f", Path: path, Host: "ghcr.io", Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		expect(t, src, "bot:one:")
		put(text("two"))
		expect(t, src, "bot:one:") // it was looked at just now
		time.Sleep(10 * time.Second)
		expect(t, src, "bot:two:")

		// A file that is broken or gone changes nothing but the state.
		for _, broken := range []string{"", "{", canary} {
			put(broken)
			time.Sleep(10 * time.Second)
			expect(t, src, "bot:two:")
			if st := src.Status(); st.State != auth.StateFailing || !strings.Contains(st.LastError, "not JSON") {
				t.Errorf("status %+v", st)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		expect(t, src, "bot:two:")
		put(text("two"))
		time.Sleep(10 * time.Second)
		expect(t, src, "bot:two:")
		if st := src.Status(); st.State != auth.StateOK || st.LastError != "" {
			t.Errorf("status %+v", st)
		}
		// A refusal looks at once.
		put(text("three"))
		old := auth.Credential{Username: "bot", Password: auth.NewSecret("two")}
		if c, err := src.Renew(t.Context(), old); err != nil || shown(c) != "bot:three:" {
			t.Errorf("after a refusal: %q, %v", shown(c), err)
		}
	})
	for what, n := range map[string]int{"stays in use": 1, "is read": 4, canary: 0} {
		if got := strings.Count(log.String(), what); got != n {
			t.Errorf("the log says %q %d times, want %d:\n%s", what, got, n, &log)
		}
	}
}

func TestFolderWithSeveralFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	entry := func(host, login string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, b64(login))
	}
	src := docker.NewConfig(docker.Options{Name: "f", Path: dir, Host: "ghcr.io"})
	if _, err := src.Credential(t.Context()); err == nil || !strings.Contains(err.Error(), "has no .dockerconfigjson") {
		t.Errorf("empty folder: %v", err)
	}
	write(t, filepath.Join(dir, "team.json"), entry("ghcr.io", "team:pw"))
	write(t, filepath.Join(dir, "config.json"), entry("quay.io", "quay:pw"))
	src = docker.NewConfig(docker.Options{Name: "f", Path: dir, Host: "ghcr.io"})
	expect(t, src, "team:pw:")
	write(t, filepath.Join(dir, ".dockerconfigjson"), entry("ghcr.io", "first:pw"))
	src = docker.NewConfig(docker.Options{Name: "f", Path: dir, Host: "ghcr.io"})
	expect(t, src, "first:pw:")
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	teach(t, "many.example", say{Out: `{"Username":"bot","Secret":"pw"}`})
	src := config(t, "many.example", `{"credsStore":"test"}`)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- src.Run(ctx) }()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { expect(t, src, "bot:pw:") })
	}
	wg.Wait()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(asked(t, "many.example")); n != 1 {
		t.Errorf("the helper was asked %d times, want once", n)
	}
}

func expect(t *testing.T, s auth.Source, want string) {
	t.Helper()
	if c, err := s.Credential(t.Context()); err != nil || shown(c) != want {
		t.Errorf("credential %q, %v, want %q", shown(c), err, want)
	}
}
