// Package dockerd runs Docker's daemon with folders and a socket of its own, no network, and the mirror in
// registry-mirrors, and pulls through it.
package dockerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// Docker is a running daemon with its client.
type Docker struct {
	*proc.Process
	dir string
}

// Start runs one until the test ends.
func Start(t testing.TB, mirror string) *Docker {
	t.Helper()
	return StartWith(t, map[string]any{"registry-mirrors": []string{mirror}})
}

// StartWith is Start with the settings of a daemon.json beside those that a test needs.
func StartWith(t testing.TB, daemon map[string]any) *Docker {
	t.Helper()
	dir := proc.Dir(t)
	all := map[string]any{
		"data-root": dir + "/data", "exec-root": dir + "/exec", "pidfile": dir + "/pid",
		"hosts": []string{"unix://" + dir + "/d.sock"}, "bridge": "none", "iptables": false, "ip-forward": false,
		"storage-driver": "overlay2",
	}
	maps.Copy(all, daemon)
	settings, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	// It starts a containerd of its own, the first that PATH has: Debian's, which it was built with.
	d := &Docker{dir: dir, Process: proc.Start(t, proc.Options{
		Name: "dockerd", Grace: 30 * time.Second, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	}, tool.System(t, "dockerd"), "--config-file", file)}
	wait.For(t, 2*time.Minute, "dockerd", func() error {
		if err := d.Exited(); err != nil {
			return err
		}
		r, err := d.run(t, "version", "--format", "{{.Server.Version}}")
		if err == nil && r.Code != 0 {
			err = errors.New(r.Text())
		}
		return err
	})
	return d
}

func (d *Docker) run(t testing.TB, args ...string) (proc.Result, error) {
	t.Helper()
	return proc.Exec(t.Context(), proc.Options{Env: []string{"HOME=" + d.dir, "DOCKER_CONFIG=" + d.dir + "/client"}},
		tool.System(t, "docker"), append([]string{"--host", "unix://" + d.dir + "/d.sock"}, args...)...)
}

// Image is what Docker says of one that it has.
type Image struct {
	ID          string `json:"Id"`
	RepoDigests []string
}

// Pull pulls, and returns what Docker has then. An error is what Docker printed.
func (d *Docker) Pull(t testing.TB, ref string) (Image, error) {
	t.Helper()
	r, err := d.run(t, "pull", ref)
	if err != nil {
		return Image{}, err
	}
	if r.Code != 0 {
		return Image{}, errors.New(strings.TrimSpace(r.Text()))
	}
	r, err = d.run(t, "image", "inspect", ref)
	if err != nil {
		return Image{}, err
	}
	var list []Image
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil || len(list) != 1 {
		return Image{}, fmt.Errorf("docker image inspect %s: %w\n%s", ref, err, r.Text())
	}
	return list[0], nil
}

// Login logs in to a registry. An error is what Docker printed.
func (d *Docker) Login(t testing.TB, host, user, password string) error {
	t.Helper()
	r, err := d.run(t, "login", "--username", user, "--password", password, host)
	if err == nil && r.Code != 0 {
		err = errors.New(strings.TrimSpace(r.Text()))
	}
	return err
}
