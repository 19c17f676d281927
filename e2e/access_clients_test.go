package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/dockerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
)

// registryPassword is that of bot at the registries of TestAccess.
const registryPassword = "at-the-registry-41c7"

// accessed is a mirror with an upstream for each access, and what clients have for it.
type accessed struct {
	*mirrord.Mirror
	team  *origin.Origin // of ghcr.io, under rules
	ci    string         // the token of the client that a rule names
	other string         // that of one that none names
}

// newAccessed starts one. Where only is set, it has the upstream under rules alone.
func newAccessed(t *testing.T, only bool) accessed {
	t.Helper()
	dir := t.TempDir()
	token := func(name string) string {
		return strings.TrimSpace(proc.Must(t, proc.Options{}, mirrord.Binary, "token", "new", name, "--file", dir+"/tokens.yaml"))
	}
	a := accessed{ci: token("ci"), other: token("other")}
	if err := os.WriteFile(dir+"/pass", []byte(registryPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	login := origin.Auth{Kind: "bearer", Username: "bot", Password: registryPassword, Anonymous: true, Private: func(repo string) bool {
		return !strings.HasPrefix(repo, "library/")
	}}
	hub := origin.Start(t, origin.Options{Auth: login})
	hub.AddImage("library/app", "v1", origin.Image{})
	hub.AddImage("private/app", "v1", origin.Image{Seed: 1})
	a.team = origin.Start(t, origin.Options{Auth: login})
	a.team.AddImage("acme/app", "v1", origin.Image{Seed: 2})
	a.team.AddImage("acme/other", "v1", origin.Image{Seed: 3})
	a.team.AddImage("acme/other", "v2", origin.Image{Seed: 2}) // the same content
	quay := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true, Private: login.Private, Users: map[string]origin.User{
		"alice": {Password: "alice-41c7", Reads: func(repo string) bool { return repo == "alice/app" }},
		"bob":   {Password: "bob-41c7", Reads: func(repo string) bool { return repo == "bob/app" }},
	}}})
	quay.AddImage("library/app", "v1", origin.Image{Seed: 4})
	quay.AddImage("alice/app", "v1", origin.Image{Seed: 5})
	quay.AddImage("bob/app", "v1", origin.Image{Seed: 6})
	upstreams := fmt.Sprintf("ghcr.io: {endpoints: [%q], access: rules, credentials: [{name: team, username: bot, passwordFile: %q}]}\n", a.team.URL(), dir+"/pass")
	if !only {
		upstreams += fmt.Sprintf("docker.io: {endpoints: [%q], credentials: [{name: hub, username: bot, passwordFile: %q}]}\n", hub.URL(), dir+"/pass") +
			fmt.Sprintf("quay.io: {endpoints: [%q], access: client}\n", quay.URL())
	}
	a.Mirror = mirrord.Start(t, mirrord.Options{
		Upstreams: upstreams,
		More:      fmt.Sprintf("clients: {tokens: %q}\nrules: [{who: [ci], pull: ['ghcr.io/acme/app']}]", dir+"/tokens.yaml"),
	})
	return a
}

// nodeFolders is a certs.d of containerd for some registries, with a mirror and nowhere to go on to.
func nodeFolders(t *testing.T, mirror string, hosts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, host := range hosts {
		if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("server = \"http://127.0.0.1:9\"\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", mirror)
		if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// attempt is a pull by a client that has a login, or none.
type attempt struct {
	ref, user, password string
	refused             string // words of the error; empty: it succeeds
}

func (a attempt) check(t *testing.T, err error, words ...string) {
	t.Helper()
	if a.refused == "" {
		if err != nil {
			t.Errorf("%s as %q: %v", a.ref, a.user, err)
		}
		return
	}
	refusedWith(t, err, append(words, a.refused)...)
}

// TestAccess: under each access real clients pull what they may and nothing else, also of what another client has brought into the cache;
// the error says what is missing. containerd pulls by CRI with pull secrets, Podman with an auth file, Docker after docker login.
func TestAccess(t *testing.T) {
	t.Parallel()
	m := newAccessed(t, false)
	const (
		private = "has no credentials for docker.io/private/app, which is private or doesn't exist"
		noRule  = "has no rule that lets clients pull ghcr.io/acme/app"
		noOther = "has no rule that lets user ci pull"
		noLogin = "quay.io doesn't let the client's login pull alice/app, or has no such image"
	)
	own := m.Host + "/ghcr.io/"
	attempts := []attempt{
		// public: each client pulls what the registry shows to all, and no login of a client opens more.
		{"docker.io/library/app:v1", "", "", ""},
		{"docker.io/library/app:v1", "me", "a pull secret", ""},
		{"docker.io/private/app:v1", "", "", private},
		{"docker.io/private/app:v1", "bot", registryPassword, private},
		// rules: a node without an identity has no right, whatever secret a pod has for the registry.
		{"ghcr.io/acme/app:v1", "", "", noRule},
		{"ghcr.io/acme/app:v1", "bot", registryPassword, noRule},
		// By the mirror's own name a pull secret is one for the mirror.
		{own + "acme/app:v1", "ci", m.ci, ""},
		{own + "acme/other:v1", "ci", m.ci, noOther},
		{own + "acme/other:v2", "ci", m.ci, noOther}, // its content is cached
		{own + "acme/app:v1", "other", m.other, "has no rule that lets user other pull"},
		{own + "acme/app:v1", "ci", "wrong", "does not accept this password or token of user ci"},
	}
	// client: the pod's secret for the registry decides, also of what another pod has brought.
	secrets := []attempt{
		{"quay.io/library/app:v1", "", "", ""},
		{"quay.io/library/app:v1", "bob", "bob-41c7", ""},
		{"quay.io/alice/app:v1", "alice", "wrong", noLogin},
		{"quay.io/alice/app:v1", "alice", "alice-41c7", ""},
		{"quay.io/alice/app:v1", "bob", "bob-41c7", noLogin},
		{"quay.io/bob/app:v1", "bob", "bob-41c7", ""},
	}
	anonymous := []attempt{
		{own + "acme/app:v1", "", "", noRule},
		{"quay.io/alice/app:v1", "", "", "quay.io wants a login for alice/app"},
	}
	for _, line := range containerd.All {
		t.Run("containerd "+string(line), func(t *testing.T) {
			t.Parallel()
			c := containerd.Start(t, line, containerd.Certs{Made: nodeFolders(t, m.URL(), "docker.io", "ghcr.io", "quay.io")})
			for _, a := range append(attempts, secrets...) {
				var err error
				if a.user == "" {
					_, err = c.CRI(t, a.ref)
				} else {
					_, err = c.Secret(t, a.ref, a.user, a.password)
				}
				a.check(t, err, "(mirror: ")
			}
			for _, a := range anonymous {
				if line != containerd.V1 { // it does not print what the answer with a challenge says
					a.refused = "no basic auth credentials"
				}
				_, err := c.CRI(t, a.ref)
				a.check(t, err)
			}
		})
	}
	t.Run("podman", func(t *testing.T) {
		t.Parallel()
		conf := fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", m.Host)
		for _, host := range []string{"docker.io", "ghcr.io", "quay.io"} { // and nowhere else: it would try that three times
			conf += fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", host, m.Host+"/"+host)
		}
		for _, a := range slices.Concat(attempts, secrets, anonymous) {
			host, path, _ := strings.Cut(a.ref, "/")
			if host == "quay.io" && a.user != "" { // it sends a login to the mirror by the mirror's own name alone
				a.ref, host = m.Host+"/quay.io/"+path, m.Host
			}
			c := podman.New(t, podman.Options{Made: conf})
			if a.user != "" {
				c.Auth(t, host, a.user, a.password)
			}
			_, err := c.Pull(t, a.ref)
			a.check(t, err)
		}
	})
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		ruled := newAccessed(t, true) // Docker logs in only where no client is served without a login
		d := dockerd.Start(t, m.URL())
		own := ruled.Host + "/ghcr.io/"
		for _, a := range []attempt{
			{"library/app:v1", "", "", ""},
			{m.Host + "/docker.io/private/app:v1", "", "", private},
			{own + "acme/app:v1", "", "", "no basic auth credentials"},
			{own + "acme/app:v1", "ci", ruled.ci, ""},
			{own + "acme/other:v2", "ci", ruled.ci, noOther},
			{own + "acme/app:v1", "other", ruled.other, "has no rule that lets user other pull"},
		} {
			if a.user != "" {
				if err := d.Login(t, ruled.Host, a.user, a.password); err != nil {
					t.Error(err)
				}
			}
			_, err := d.Pull(t, a.ref)
			a.check(t, err)
		}
		refusedWith(t, d.Login(t, ruled.Host, "ci", "wrong"), "401 Unauthorized")
		ruled.spared(t)
	})
	t.Cleanup(func() { m.spared(t) })
}

// spared checks that the registry was not asked for what no client may pull.
func (a accessed) spared(t *testing.T) {
	t.Helper()
	for _, q := range a.team.Requests() {
		if q.Repo == "acme/other" {
			t.Errorf("the registry was asked: %s %s", q.Method, q.Path)
		}
	}
}
