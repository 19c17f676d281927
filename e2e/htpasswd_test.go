package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// The line that "htpasswd -nbB -C 5 bot pull-canary-7d21" gives.
const (
	htpasswdCanary = "pull-canary-7d21"
	htpasswdLine   = "bot:$2y$05$KaEvPEEv7CEO6N.HEdB01Os4qlc8sBYVuIKiSdbNRpKrVXaEKwKYu\n"
)

// TestHtpasswd has distribution's registry with htpasswd, where everything is private, a credential helper as an
// executable, and rules: a private image comes through the mirror by the helper's login. While the helper's password is
// wrong, what is cached still pulls, and the rest says whose login is refused; put right, it is used without a word.
func TestHtpasswd(t *testing.T) {
	t.Parallel()
	o := registry.Options{Program: tool.Built(t, "registry"), Dir: t.TempDir()}
	open, err := registry.Launch(t.Context(), o) // of the same folder, for pushes
	if err != nil {
		t.Fatal(err)
	}
	for i, repo := range []string{"private/one", "private/two", "private/three", "secret/app"} {
		image.Push(t, open.Host, repo, "v1", image.New(t, "linux/amd64", image.Layers{2000 + i}))
	}
	open.End()
	dir := t.TempDir()
	write := func(file, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	o.More = fmt.Sprintf("auth: {htpasswd: {realm: reg, path: %q}}\n", write("users", htpasswdLine, 0o600))
	up, err := registry.Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer up.End()
	password := write("password", htpasswdCanary, 0o600)
	helper := write("docker-credential-e2e", `#!/bin/sh
read host
[ "$1 $host" = "get reg.test" ] || exit 3
echo '{"ServerURL":"reg.test","Username":"bot","Secret":"'$(cat `+password+`)'"}'
`, 0o700)
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("reg.test: {endpoints: [%s], access: rules, credentials: [{name: helped, helper: %q}], tags: {maxAge: 0s}}",
			up.URL(), helper),
		More: `rules: [{who: [anonymous], pull: ["reg.test/private/**"]}]`,
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
	state := func(want string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), mirrord.Binary, "upstreams", "--admin", m.Admin).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "reg.test  helped      helper  "+want) {
			t.Errorf("mirror upstreams: %v\n%s", err, out)
		}
	}

	if err := pull("private/one"); err != nil {
		t.Fatal(err)
	}
	state("ok")
	if err := pull("secret/app"); err == nil || !strings.Contains(err.Error(), "has no rule that lets clients pull reg.test/secret/app") {
		t.Errorf("what no rule names: %v", err)
	}

	// The helper now has another password, and the mirror a login that it had before: so the registry's changes too.
	write("users", strings.Replace(htpasswdLine, "bot:", "other:", 1), 0o600)
	later := time.Now().Add(time.Minute) // the registry looks at the time of the file
	if err := os.Chtimes(filepath.Join(dir, "users"), later, later); err != nil {
		t.Fatal(err)
	}
	write("password", "wrong", 0o600)
	if err := pull("private/one"); err != nil {
		t.Errorf("what is cached, with a wrong password: %v", err)
	}
	if err := pull("private/two"); err == nil || !strings.Contains(err.Error(), "rejects credential helped") {
		t.Errorf("what is not: %v", err)
	}
	state("rejected")
	code, text := mirrord.Get(t, m.Admin+"/api/v1/failures?reason=credentials-rejected")
	if code != http.StatusOK || !strings.Contains(text, "reg.test/private/two:v1") {
		t.Errorf("failures: %d %s", code, text)
	}

	// Both are put right. For half a minute the helper is not run again for what has failed.
	write("users", htpasswdLine, 0o600)
	later = later.Add(time.Minute)
	if err := os.Chtimes(filepath.Join(dir, "users"), later, later); err != nil {
		t.Fatal(err)
	}
	write("password", htpasswdCanary, 0o600)
	wait.For(t, 2*time.Minute, "the right password to be used", func() error { return pull("private/two") })
	if err := pull("private/three"); err != nil {
		t.Errorf("the right password, for an image that was not asked for yet: %v", err)
	}
	state("ok")

	up.End()
	if err := pull("private/one"); err != nil {
		t.Errorf("with the registry down: %v", err)
	}
	if strings.Contains(m.Output(), htpasswdCanary) {
		t.Error("the password shows in the log")
	}
}
