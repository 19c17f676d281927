// Package buildkit runs BuildKit's daemon with folders and a socket of its own, and builds with it.
package buildkit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// BuildKit is a running daemon.
type BuildKit struct {
	*proc.Process
	dir, address string
}

// Start runs one with a buildkitd.toml until the test ends.
func Start(t testing.TB, toml string) *BuildKit {
	t.Helper()
	dir := proc.Dir(t)
	file := filepath.Join(dir, "buildkitd.toml")
	if err := os.WriteFile(file, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &BuildKit{dir: dir, address: "unix://" + dir + "/b.sock"}
	b.Process = proc.Start(t, proc.Options{Name: "buildkitd"}, tool.Built(t, "buildkitd"), "--config", file, "--root", dir+"/root", "--addr", b.address,
		"--oci-worker=true", "--containerd-worker=false", "--oci-worker-snapshotter=overlayfs", "--oci-worker-net=host", "--oci-worker-gc=false")
	wait.For(t, 2*time.Minute, "buildkitd", func() error {
		if err := b.Exited(); err != nil {
			return err
		}
		r := b.run(t, "debug", "workers")
		if r.Code != 0 {
			return errors.New(r.Text())
		}
		return nil
	})
	return b
}

func (b *BuildKit) run(t testing.TB, args ...string) proc.Result {
	t.Helper()
	return proc.Run(t, proc.Options{Env: []string{"HOME=" + b.dir}}, tool.Built(t, "buildctl"), append([]string{"--addr", b.address}, args...)...)
}

// Build builds an image that begins with another one and adds a file to it. An error is what buildctl printed.
func (b *BuildKit) Build(t testing.TB, from string) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+from+"\nCOPY Dockerfile /\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := b.run(t, "build", "--progress=plain", "--frontend=dockerfile.v0", "--local", "context="+dir, "--local", "dockerfile="+dir,
		"--opt", "platform=linux/amd64", "--output", "type=oci,dest="+filepath.Join(dir, "image.tar"))
	if r.Code != 0 {
		return errors.New(strings.TrimSpace(r.Text()))
	}
	return nil
}
