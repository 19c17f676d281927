package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestDiskIsFull fills the disk of the data folder under a running mirror, to the last byte or the last inode. Every
// pull succeeds, what is stored is served from there, the state is visible, and it ends by itself.
func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mount string
		fill        func(dir string) error
	}{
		{"bytes", "size=16m", fillBytes},
		{"inodes", "size=64m,nr_inodes=100", fillInodes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := origin.Start(t, origin.Options{})
			built := make(map[string]origin.Built)
			for i, repo := range []string{"library/old", "library/new"} {
				built[repo] = up.AddImage(repo, "v1", origin.Image{
					Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: int64(i) + 1,
					Layers: []int64{4 << 10, 300 << 10, 5 << 20},
				})
			}
			o := mirrord.Options{
				Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}", Cache: "minFree: 0", Dir: t.TempDir(),
			}
			data := filepath.Join(o.Dir, "data")
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("none", data, "tmpfs", 0, tt.mount); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(data, 0); err != nil {
					t.Error(err)
				}
			})
			m := mirrord.Start(t, o)
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			pull := func(repo string) error {
				p := puller{client: &http.Client{Transport: tr}, base: m.URL() + "/v2/docker.io/" + repo + "/"}
				return p.image(t.Context(), "v1", built[repo].Root.Digest.String(), "amd64")
			}
			stored := func(repo string) error { // the client has the last byte a moment before the cache has committed
				for _, d := range append(slices.Clone(built[repo].Layers[0]), built[repo].Configs[0]) {
					if got := cacheStatus(t, m, repo, d.Digest.String()); !strings.HasSuffix(got, "; hit") {
						return fmt.Errorf("Cache-Status of %s: %s", d.Digest, got)
					}
				}
				return nil
			}
			if err := pull("library/old"); err != nil {
				t.Fatal(err)
			}
			wait.For(t, time.Minute, "the image to be stored", func() error { return stored("library/old") })
			junk := filepath.Join(data, "junk")
			if err := os.Mkdir(junk, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.fill(junk); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("fill: %v", err)
			}

			var clients errgroup.Group
			for range 5 {
				clients.Go(func() error { return errors.Join(pull("library/new"), pull("library/old")) })
			}
			if err := clients.Wait(); err != nil {
				t.Errorf("with the disk full: %v", err)
			}
			layer := built["library/new"].Layers[0][2].Digest.String()
			if got := cacheStatus(t, m, "library/new", layer); !strings.HasSuffix(got, "; detail=uncached") {
				t.Errorf("Cache-Status with the disk full: %q", got)
			}
			if code, body := m.Get(t, "/readyz"); code != http.StatusOK {
				t.Errorf("/readyz with the disk full: %d %s", code, body)
			}
			if metric(t, m, "mirror_cache_uncached_total") == 0 {
				t.Error("no metric tells")
			}
			if !strings.Contains(m.Output(), "cache.dir") {
				t.Error("no line of the log tells")
			}
			up.Down()
			if err := pull("library/old"); err != nil {
				t.Errorf("what is stored, with the disk full and the upstream down: %v", err)
			}
			up.Up()

			if err := os.RemoveAll(junk); err != nil {
				t.Fatal(err)
			}
			wait.For(t, 2*time.Minute, "the mirror to store again", func() error {
				if err := pull("library/new"); err != nil {
					t.Errorf("with room again: %v", err)
				}
				if err := stored("library/new"); err != nil {
					return err
				}
				if metric(t, m, "mirror_cache_degraded") != 0 {
					return errors.New("it is still degraded")
				}
				return pull("library/new") // the manifest and the configuration too
			})
			if n := metric(t, m, "mirror_cache_degraded"); n != 0 {
				t.Errorf("still degraded: %d", n)
			}
			up.Down()
			if err := pull("library/new"); err != nil {
				t.Errorf("what was stored since, with the upstream down: %v", err)
			}
			stop(t, m)
		})
	}
}

func fillBytes(dir string) error {
	f, err := os.Create(filepath.Join(dir, "junk"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for n := 1 << 20; err == nil || n > 1; { // to the last page
		if _, err = f.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
	return err
}

func fillInodes(dir string) error {
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			return err
		}
	}
}

// cacheStatus is what the mirror says of a blob.
func cacheStatus(t *testing.T, m *mirrord.Mirror, repo, digest string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.URL()+"/v2/docker.io/"+repo+"/blobs/"+digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get("Cache-Status")
}
