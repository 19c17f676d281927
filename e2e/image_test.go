package e2e_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestContainerImage: the mirror's own image comes through the mirror, and containerd runs it: not as root, on a root file system
// that can't be written to. It serves.
func TestContainerImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary, err := build(dir, "mirror", false, "-trimpath", "-ldflags=-s -w -X main.version=v0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(dir, "layout")
	proc.Must(t, proc.Options{Dir: ".."}, "go", "run", "./internal/image", "-version", "v0.0.1", "-o", layout, "linux/amd64="+binary)
	upstream := registry.Start(t, registry.Options{})
	proc.Must(t, proc.Options{}, tool.Built(t, "crane"), "push", "--index", "--insecure", layout, upstream.Host+"/mirror/mirror:v0.0.1")
	m := mirrord.Start(t, mirrord.Options{Upstreams: "ghcr.io: {endpoints: [" + upstream.URL() + "]}"})
	c := containerd.Start(t, containerd.V1, containerd.Certs{Mirror: m.URL()})
	const ref = "ghcr.io/mirror/mirror:v0.0.1"
	if _, err := c.Ctr(t, ref); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	own := c.Run(t, []string{
		"--read-only", "--net-host", "--mount", "type=bind,src=" + data + ",dst=/var/lib/mirror,options=rbind:rw",
		"--env", "MIRROR_LISTEN=127.0.0.1:0", "--env", "MIRROR_ADMIN_LISTEN=127.0.0.1:0", "--env", "MIRROR_CACHE_MIN_FREE=0",
		"--env", "MIRROR_LOG_FORMAT=json",
	}, ref, "own")
	var listen string
	wait.For(t, time.Minute, "the mirror in the container to be ready", func() error {
		for _, text := range own.Lines() {
			var line struct{ Msg, Listen string }
			if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "mirror is ready" {
				listen = line.Listen
				return nil
			}
		}
		return cmp.Or(own.Exited(), errors.New("it has not said so"))
	})
	resp, err := http.Get("http://" + listen + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	equal(t, "status", resp.StatusCode, http.StatusOK)
	status, err := os.ReadFile("/proc/" + c.Task(t, "own") + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "Gid:\t65532\t", "CapEff:\t0000000000000000\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	c.Stop(t, "own")
	equal(t, "exit code after SIGTERM", own.WaitExit(t, time.Minute), 0)
}
