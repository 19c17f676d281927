package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
)

// TestCorruptOnceThenHealthy has the upstream send a layer with a wrong byte once. Real clients have the image within two
// attempts.
//
// One case is missing because no server can help there: a large layer that is wrong in what was sent before the digest
// could be known. containerd keeps what it has got for a day, resumes behind it at each attempt, and refuses the whole
// each time; Podman begins anew.
func TestCorruptOnceThenHealthy(t *testing.T) {
	t.Parallel()
	pulls := map[string]func(t *testing.T, m *mirrord.Mirror) func() error{
		"podman": func(t *testing.T, m *mirrord.Mirror) func() error {
			p := podman.New(t, podman.Options{Mirror: m.Host, Registry: "docker.io"})
			return func() error { _, err := p.Pull(t, app); return err }
		},
	}
	for _, line := range containerd.Lines {
		pulls["containerd "+string(line)] = func(t *testing.T, m *mirrord.Mirror) func() error {
			c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL()})
			return func() error { _, err := c.CRI(t, app); return err }
		}
	}
	for name, start := range pulls {
		for _, c := range []struct {
			name     string
			size, at int64
		}{
			{"verified before its headers", 200 << 10, 100 << 10},
			{"streamed, wrong at the end", 9 << 20, 9<<20 - 1000},
			{"streamed, wrong at the start", 9 << 20, 1000},
		} {
			if c.at == 1000 && name != "podman" {
				continue
			}
			t.Run(name+", "+c.name, func(t *testing.T) {
				t.Parallel()
				up := origin.Start(t, origin.Options{})
				layer := up.AddImage(appRepository, "v1", origin.Image{Layers: []int64{c.size}}).Layers[0][0]
				up.Script(origin.Rule{
					Kind: origin.KindBlob, Ref: layer.Digest.String(), Times: 1, Do: origin.Fault{Flip: []int64{c.at}},
				})
				m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}"})
				pull := start(t, m)
				if first := pull(); first != nil {
					if second := pull(); second != nil {
						t.Errorf("the first attempt: %v\nthe second: %v", first, second)
					}
				}
				if n := up.CountRef(origin.KindBlob, layer.Digest.String(), http.MethodGet); n > 3 {
					t.Errorf("the layer was asked for %d times", n)
				}
			})
		}
	}
}

// storm is how long TestEvictionStorm lasts: STORM=30m by hand.
func storm(t *testing.T) time.Duration {
	text := os.Getenv("STORM")
	if text == "" {
		return 2 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("STORM: %v", err)
	}
	return d
}

// TestEvictionStorm lets fifty clients pull images at random through a cache that holds three fifths of them. No pull
// fails, all bytes are right, and the cache is never over its budget.
func TestEvictionStorm(t *testing.T) {
	t.Parallel()
	const clients, images = 50, 20
	up := origin.Start(t, origin.Options{})
	type target struct{ repo, digest string }
	var list []target
	var set int64
	for i := range images {
		repo := fmt.Sprintf("library/app%d", i)
		x := up.AddImage(repo, "v1", origin.Image{
			Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: int64(i) + 1, Layers: []int64{4 << 10, 300 << 10, 2 << 20, 5 << 20},
		})
		list = append(list, target{repo, x.Root.Digest.String()})
		for _, d := range x.Layers[0] {
			set += d.Size
		}
	}
	budget := set * 3 / 5
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}", Cache: fmt.Sprintf("size: %d, minFree: 0", budget), Level: "info",
	})
	ctx, stop := context.WithTimeout(t.Context(), storm(t))
	defer stop()
	var pulls, most atomic.Int64
	group, whole := errgroup.WithContext(t.Context())
	for i := range clients {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		group.Go(func() error {
			transport := &http.Transport{DisableCompression: true}
			defer transport.CloseIdleConnections()
			for ctx.Err() == nil {
				x := list[r.IntN(len(list))]
				p := puller{client: &http.Client{Transport: transport}, base: m.URL() + "/v2/docker.io/" + x.repo + "/"}
				if err := p.image(whole, "v1", x.digest, "amd64"); err != nil {
					return fmt.Errorf("client %d, %s, after %d pulls: %w", i, x.repo, pulls.Load(), err)
				}
				pulls.Add(1)
			}
			return nil
		})
	}
	group.Go(func() error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil && whole.Err() == nil {
			n, err := bytesBelow(m.Data, "blobs", "spool")
			if err != nil {
				return err
			}
			most.Store(max(most.Load(), n))
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	// Files take whole blocks.
	if most.Load() > budget+budget/20 {
		t.Errorf("%d bytes in the cache's folder, the budget is %d", most.Load(), budget)
	}
	t.Logf("%d pulls of %d images; at most %d of %d bytes; %d bytes from the upstream", pulls.Load(), images, most.Load(), budget, up.Sent())
}

// bytesBelow is how many bytes the files below some folders take on disk, of those that are there at the same time: while
// it looks at one after the other, some go and others come in their place.
func bytesBelow(dir string, names ...string) (int64, error) {
	sizes := make(map[string]fs.FileInfo)
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreGone(err)
			}
			info, err := d.Info()
			if err == nil {
				sizes[path] = info
			}
			return ignoreGone(err)
		})
		if err != nil {
			return 0, err
		}
	}
	var sum int64
	for path, before := range sizes {
		switch now, err := os.Lstat(path); {
		case err == nil && os.SameFile(before, now):
			sum += min(before.Size(), blocks(before))
		case err != nil && ignoreGone(err) != nil:
			return 0, err
		}
	}
	return sum, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// blocks is what a file takes on disk in bytes: a spool has its size from the start.
func blocks(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }
