// Package podman pulls with Podman and skopeo, which read registries.conf as CRI-O and Buildah do.
package podman

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
)

// Client is a fresh one: nothing in its storage.
type Client struct {
	dir string
	env []string
}

// registries is what an operator writes, for one registry.
const registries = `unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "%[1]s"
location = "%[2]s"
insecure = %[4]t

[[registry.mirror]]
location = "%[3]s/%[1]s"
insecure = true
`

// Options of a client.
type Options struct {
	Mirror   string // HOST:PORT
	Registry string // as in image names
	Location string // where Registry is, HOST:PORT on plain HTTP; empty: at its name, which is out of reach here
	Made     string // a registries.conf that is used as it is; then nothing else counts
}

// New makes a client.
func New(t testing.TB, o Options) *Client {
	t.Helper()
	dir := proc.Dir(t)
	location, plain := o.Registry, false
	if o.Location != "" {
		location, plain = o.Location, true
	}
	files := map[string]string{
		"registries.conf": fmt.Sprintf(registries, o.Registry, location, o.Mirror, plain),
		"auth.json":       "{}",
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"storage.conf":    fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", dir+"/graph", dir+"/run"),
		"containers.conf": fmt.Sprintf("[engine]\ntmp_dir = %q\nevents_logger = \"none\"\ncgroup_manager = \"cgroupfs\"\n", dir+"/tmp"),
	}
	if o.Made != "" {
		files["registries.conf"] = o.Made
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Client{dir: dir, env: []string{
		"CONTAINERS_REGISTRIES_CONF=" + dir + "/registries.conf",
		"CONTAINERS_STORAGE_CONF=" + dir + "/storage.conf",
		"CONTAINERS_CONF=" + dir + "/containers.conf",
		"REGISTRY_AUTH_FILE=" + dir + "/auth.json",
		"HOME=" + dir,
		"XDG_RUNTIME_DIR=" + dir,
		"TMPDIR=" + dir,
	}}
	t.Cleanup(func() {
		// The overlay driver leaves a mount on its folder.
		_, _ = proc.Exec(context.Background(), proc.Options{}, tool.System(t, "umount"), dir+"/graph/overlay")
	})
	return c
}

// Pull pulls with Podman and returns the image id. An error is what Podman printed.
func (c *Client) Pull(t testing.TB, ref string) (id string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	return c.PullWithin(ctx, t, ref)
}

// PullWithin is Pull until the context ends, which is an error too.
func (c *Client) PullWithin(ctx context.Context, t testing.TB, ref string) (id string, err error) {
	t.Helper()
	r, err := proc.Exec(ctx, proc.Options{Env: c.env}, tool.System(t, "podman"), "--root", c.dir+"/graph", "--runroot", c.dir+"/run",
		"pull", "--signature-policy", c.dir+"/policy.json", "--arch", "amd64", ref)
	switch {
	case err != nil:
		return "", err
	case r.Code != 0:
		return "", errors.New(strings.TrimSpace(r.Text()))
	}
	return "sha256:" + strings.TrimSpace(r.Stdout), nil
}

// Run runs a command of Podman.
func (c *Client) Run(t testing.TB, args ...string) proc.Result {
	t.Helper()
	return proc.Run(t, proc.Options{Env: c.env}, tool.System(t, "podman"), append([]string{"--root", c.dir + "/graph", "--runroot", c.dir + "/run"}, args...)...)
}

// End runs a command of Podman when the test has ended, and returns what it printed.
func (c *Client) End(args ...string) string {
	r, err := proc.Exec(context.Background(), proc.Options{Env: c.env}, "/usr/bin/podman", append([]string{"--root", c.dir + "/graph", "--runroot", c.dir + "/run"}, args...)...)
	if err != nil {
		return err.Error()
	}
	return r.Text()
}

// Must runs a command of Podman that has to succeed and returns its stdout.
func (c *Client) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := c.Run(t, args...)
	if r.Code != 0 {
		t.Fatalf("podman %s: exit code %d\n%s", strings.Join(args, " "), r.Code, r.Text())
	}
	return r.Stdout
}

// Certs gives the client the files of a registry, HOST:PORT, by their names there: ca.crt, client.cert and client.key.
func (c *Client) Certs(t testing.TB, host, from string, files map[string]string) {
	t.Helper()
	// In the home folder: --cert-dir would count for the registry behind the mirror, too.
	dir := filepath.Join(c.dir, ".config", "containers", "certs.d", host)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, file := range files {
		b, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Auth gives the client an auth file with one entry: a registry, HOST or HOST:PORT.
func (c *Client) Auth(t testing.TB, host, user, password string) {
	t.Helper()
	text := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	if err := os.WriteFile(filepath.Join(c.dir, "auth.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Login logs in to a registry, HOST:PORT, on plain HTTP. An error is what Podman printed.
func (c *Client) Login(t testing.TB, host, user, password string) error {
	t.Helper()
	r, err := proc.Exec(t.Context(), proc.Options{Env: c.env, Stdin: []byte(password)}, tool.System(t, "podman"), "--root", c.dir+"/graph",
		"--runroot", c.dir+"/run", "login", "--tls-verify=false", "--username", user, "--password-stdin", host)
	if err == nil && r.Code != 0 {
		err = errors.New(strings.TrimSpace(r.Text()))
	}
	return err
}

// Copy copies the image with all its platforms into an OCI layout with skopeo, checks each file in it against its
// digest, and returns the digests. That of the index is another one: skopeo 1.9 writes indexes anew.
func (c *Client) Copy(t testing.TB, ref string) (digests []string, err error) {
	t.Helper()
	dst, err := os.MkdirTemp(c.dir, "oci-")
	if err != nil {
		t.Fatal(err)
	}
	r := proc.Run(t, proc.Options{Env: c.env}, tool.System(t, "skopeo"), "--policy", c.dir+"/policy.json",
		"--registries-conf", c.dir+"/registries.conf",
		"copy", "--all", "docker://"+ref, "oci:"+dst+":copy")
	if r.Code != 0 {
		return nil, errors.New(strings.TrimSpace(r.Text()))
	}
	files, err := filepath.Glob(filepath.Join(dst, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); got != filepath.Base(file) {
			t.Errorf("skopeo copied %s with the bytes of %s", filepath.Base(file), got)
		}
		digests = append(digests, "sha256:"+filepath.Base(file))
	}
	return digests, nil
}
