package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// nodeFolder is a certs.d of containerd with one hosts.toml for docker.io, with lines about the mirror.
func nodeFolder(t *testing.T, mirror, lines string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "docker.io"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = \"http://127.0.0.1:9\"\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n%s", mirror, lines)
	if err := os.WriteFile(filepath.Join(dir, "docker.io", "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// refusedWith checks the error of a pull that has to fail, with words in it.
func refusedWith(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("the pull succeeded")
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in\n%v", w, err)
		}
	}
}

// TestSetupTLS: with the files of "mirror setup tls" nodes pull what a rule gives them by their certificates: containerd by client in
// the hosts.toml of "mirror setup containerd", Podman by its certs.d. A node that no rule names is told so by its name, and one without a
// certificate that it has none.
func TestSetupTLS(t *testing.T) {
	t.Parallel()
	pki := filepath.Join(t.TempDir(), "pki")
	out := proc.Must(t, proc.Options{}, mirrord.Binary, "setup", "tls", "--dir", pki, "--host", "127.0.0.1", "--node", "worker-1", "--node", "stranger")
	if !strings.Contains(out, "Next:") {
		t.Errorf("setup tls says: %s", out)
	}
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {access: rules, endpoints: [" + upstream.URL() + "]}",
		More: fmt.Sprintf("tls: {cert: %q, key: %q}\nclients: {ca: %q}\nrules: [{who: ['node:worker-*'], pull: ['docker.io/library/*']}]",
			pki+"/tls.crt", pki+"/tls.key", pki+"/ca.crt"),
	})
	for _, line := range containerd.All {
		t.Run("containerd "+string(line), func(t *testing.T) {
			t.Parallel()
			pull := func(node string) (containerd.Pulled, error) {
				t.Helper()
				dir := filepath.Join(t.TempDir(), "certs.d")
				c := containerd.Start(t, line, containerd.Certs{Made: dir})
				args := []string{
					"setup", "containerd", "--mirror", "https://" + m.Host, "--registry", "docker.io=http://127.0.0.1:9", "--ca", pki + "/ca.crt",
					"--install=" + dir, "--containerd-config", c.Config(),
				}
				if node != "" {
					args = append(args, "--client-cert", pki+"/nodes/"+node+".crt", "--client-key", pki+"/nodes/"+node+".key")
				}
				proc.Must(t, proc.Options{}, mirrord.Binary, args...)
				return c.CRI(t, app)
			}
			p, err := pull("worker-1")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "digest", p.Digest, x.Digest.String())
			if seen := command(t, m, "tags", "show", app, "-o", "json"); !strings.Contains(seen, `"worker-1"`) {
				t.Errorf("the record does not name the node: %s", seen)
			}
			_, err = pull("stranger")
			refusedWith(t, err, "403 Forbidden (mirror: ", "node stranger")
			_, err = pull("")
			refusedWith(t, err, "403 Forbidden (mirror: ", "lets clients pull")
		})
	}
	t.Run("podman", func(t *testing.T) {
		t.Parallel()
		pull := func(node string) (string, error) {
			t.Helper()
			c := podman.New(t, podman.Options{Made: fmt.Sprintf("[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:9\"\n"+
				"[[registry.mirror]]\nlocation = %q\n", m.Host+"/docker.io")})
			files := map[string]string{"ca.crt": "ca.crt"}
			if node != "" {
				files["client.cert"], files["client.key"] = "nodes/"+node+".crt", "nodes/"+node+".key"
			}
			c.Certs(t, m.Host, pki, files)
			return c.Pull(t, app)
		}
		id, err := pull("worker-1")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "image id", id, x.Config(t, "linux/amd64"))
		_, err = pull("stranger")
		refusedWith(t, err, "node stranger")
		_, err = pull("")
		refusedWith(t, err, "lets clients pull")
	})
}

// TestClientLogin: real clients log in to the mirror by its own name, with a password and with a token, and pull what a rule gives them;
// a wrong login fails at once.
func TestClientLogin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := strings.TrimSpace(proc.Must(t, proc.Options{}, mirrord.Binary, "token", "new", "ci", "--file", dir+"/tokens.yaml"))
	if err := os.WriteFile(dir+"/users", []byte("# users\r\n"+htpasswdLine), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {access: rules, endpoints: [" + upstream.URL() + "]}",
		More: fmt.Sprintf("clients: {tokens: %q, htpasswd: %q}\nrules: [{who: [ci, bot], pull: ['docker.io/library/*']}]",
			dir+"/tokens.yaml", dir+"/users"),
	})
	ref := m.Host + "/docker.io/" + appRepository + ":v1"
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	crane := func(user, password string) (string, error) {
		home := t.TempDir()
		env := []string{"DOCKER_CONFIG=" + home, "HOME=" + home}
		if user != "" {
			r, err := proc.Exec(ctx, proc.Options{Env: env}, tool.Built(t, "crane"), "auth", "login", m.Host, "--insecure", "-u", user, "-p", password)
			if err != nil || r.Code != 0 {
				return "", fmt.Errorf("login: %s %s", fmt.Sprint(err), r.Text())
			}
		}
		r, err := proc.Exec(ctx, proc.Options{Env: env}, tool.Built(t, "crane"), "digest", "--insecure", ref)
		if err != nil || r.Code != 0 {
			return "", fmt.Errorf("digest: %s %s", fmt.Sprint(err), r.Text())
		}
		return strings.TrimSpace(r.Stdout), nil
	}
	for user, password := range map[string]string{"ci": token, "bot": htpasswdCanary} {
		got, err := crane(user, password)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "digest for "+user, got, x.Digest.String())
		p := podman.New(t, podman.Options{Made: fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", m.Host)})
		if err := p.Login(t, m.Host, user, password); err != nil {
			t.Fatal(err)
		}
		id, err := p.Pull(t, ref)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "image id for "+user, id, x.Config(t, "linux/amd64"))
	}
	p := podman.New(t, podman.Options{Made: fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", m.Host)})
	refusedWith(t, p.Login(t, m.Host, "bot", "rabbit"), "invalid username/password")
	_, err := crane("", "")
	refusedWith(t, err, "UNAUTHORIZED")
	// containerd, with the mirror's own token in hosts.toml.
	header := fmt.Sprintf("  [host.%q.header]\n    Authorization = \"Bearer %s\"\n", m.URL(), token)
	for _, line := range containerd.Lines {
		t.Run("containerd "+string(line), func(t *testing.T) {
			t.Parallel()
			pulled, err := containerd.Start(t, line, containerd.Certs{Made: nodeFolder(t, m.URL(), header)}).CRI(t, app)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "digest", pulled.Digest, x.Digest.String())
			_, err = containerd.Start(t, line, containerd.Certs{Made: nodeFolder(t, m.URL(), "")}).CRI(t, app)
			refusedWith(t, err, "403 Forbidden (mirror: ", "lets clients pull")
		})
	}
}

// TestServiceAccounts: the real API server says which tokens are good, and the mirror knows the account; a token for another audience,
// one of a deleted account, and a made-up one are refused. With the API server's keys the same, but for deleted accounts.
func TestServiceAccounts(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t)
	own := cluster.Account(t, "mirror-system", "mirror")
	cluster.Kubectl(t, "create", "clusterrolebinding", "mirror", "--clusterrole", "system:auth-delegator", "--serviceaccount", "mirror-system:mirror")
	cluster.Account(t, "builds", "kaniko")
	for _, name := range []string{"stranger", "gone"} {
		cluster.Kubectl(t, "create", "serviceaccount", name, "--namespace", "builds")
	}
	token := func(name, audience string) string {
		return strings.TrimSpace(cluster.Kubectl(t, "create", "token", name, "--namespace", "builds", "--audience", audience))
	}
	good, other, stranger, gone := token("kaniko", "mirror"), token("kaniko", "vault"), token("stranger", "mirror"), token("gone", "mirror")
	later := token("kaniko", "mirror")
	cluster.Kubectl(t, "delete", "serviceaccount", "gone", "--namespace", "builds")
	keys := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(keys, []byte(cluster.Kubectl(t, "get", "--raw", "/openid/v1/jwks")), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream := registry.Start(t, registry.Options{})
	image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	for name, how := range map[string]string{
		"review": fmt.Sprintf("kubernetes: {server: %q, caFile: %q, tokenFile: %q}\nclients: {kubernetes: {audience: mirror}}", cluster.Server, cluster.CA, own),
		"keys":   fmt.Sprintf("clients: {kubernetes: {audience: mirror, issuer: https://kubernetes.test, jwksFile: %q}}", keys),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mirrord.Start(t, mirrord.Options{
				Upstreams: "docker.io: {access: rules, endpoints: [" + upstream.URL() + "]}",
				More:      how + "\nrules: [{who: ['sa:builds/kaniko', 'sa:builds/gone'], pull: ['docker.io/library/*']}]",
			})
			parts := strings.Split(good, ".")
			ofGone := http.StatusUnauthorized
			if name == "keys" {
				ofGone = http.StatusOK // it counts until it expires
			}
			for _, tt := range []struct {
				name, user, token string
				status            int
			}{
				{"a builder", "", good, http.StatusOK},
				{"a builder, as a password", "kaniko", good, http.StatusOK},
				{"an account without a rule", "", stranger, http.StatusForbidden},
				{"another audience", "", other, http.StatusUnauthorized},
				{"a deleted account", "", gone, ofGone},
				{"another signature", "", parts[0] + "." + parts[1] + "." + strings.Split(stranger, ".")[2], http.StatusUnauthorized},
				{"none", "", "", http.StatusUnauthorized},
				{"another token of the account, after forged ones", "", later, http.StatusOK},
			} {
				for i := 0; tt.token == later && i < 100; i++ { // for the account, from the same address
					forged := parts[0] + "." + parts[1] + "." + fmt.Sprintf("%03d", i) + parts[2][3:]
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.URL()+"/v2/", nil)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Authorization", "Bearer "+forged)
					resp, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					equal(t, "a forged token", resp.StatusCode, http.StatusUnauthorized)
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.URL()+"/v2/docker.io/"+appRepository+"/manifests/v1", nil)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case tt.user != "":
					req.SetBasicAuth(tt.user, tt.token)
				case tt.token != "":
					req.Header.Set("Authorization", "Bearer "+tt.token)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				equal(t, tt.name, resp.StatusCode, tt.status)
			}
			// Any service account may read the keys of its cluster: forged tokens are not shown to the API server.
			if _, report := m.Get(t, "/api/v1/doctor"); !strings.Contains(report, "forged tokens are refused by the keys of the cluster") {
				t.Errorf("mirror doctor says: %s", report)
			}
			if seen := command(t, m, "tags", "show", app, "-o", "json"); !strings.Contains(seen, `"sa:builds/kaniko"`) {
				t.Errorf("the record does not name the account: %s", seen)
			}
		})
	}
}
