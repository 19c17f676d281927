package e2e_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/crash"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

const pageSize = int64(4096)

// harm is a way to damage a file.
type harm struct {
	name string
	do   func(path string) error
}

// harms are the ways for a file of that size: cut at each page and within one, metas zeroed, garbage, gone. A small file has
// pages of an eighth of it.
func harms(size int64) (list []harm) {
	pageSize := min(pageSize, size/8)
	for at := int64(0); at < size; at += pageSize {
		list = append(list, harm{fmt.Sprint("cut at page ", at/pageSize), func(path string) error {
			return os.Truncate(path, at)
		}})
	}
	zero := func(pages ...int64) func(string) error {
		return func(path string) (err error) {
			for _, p := range pages {
				err = errors.Join(err, overwrite(path, make([]byte, pageSize), p*pageSize))
			}
			return err
		}
	}
	list = append(list,
		harm{"deleted", os.Remove},
		harm{"cut within a page", func(path string) error { return os.Truncate(path, size/2+100) }},
		harm{"first meta zeroed", zero(0)},
		harm{"second meta zeroed", zero(1)},
		harm{"both metas zeroed", zero(0, 1)},
		harm{"all zeros", func(path string) error { return overwrite(path, make([]byte, size), 0) }},
		harm{"a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }},
		harm{"not readable as a database", func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("no database ", 2000)), 0o600)
		}},
	)
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 8))
		junk, at := make([]byte, pageSize), r.Int64N(size/pageSize)*pageSize
		if seed%2 == 1 {
			at += r.Int64N(pageSize) // over a border
		}
		_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(junk)
		list = append(list, harm{fmt.Sprint("garbage at ", at), func(path string) error { return overwrite(path, junk, at) }})
	}
	return list
}

func overwrite(path string, b []byte, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}

// TestDamagedFiles damages the state, the index and both, in every way, while the mirror is stopped and the upstream
// down. It is ready soon; tags and rights of the last good copy hold; what it has lost it says.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	up := origin.Start(t, origin.Options{})
	built := make(map[string]origin.Built)
	for i, repo := range []string{"library/app", "library/late"} {
		built[repo] = up.AddImage(repo, "v1", origin.Image{
			Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: int64(i) + 1, Layers: []int64{3 << 10, 300 << 10},
		})
	}
	o := mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}", More: "drain: 1s", Level: "info", Dir: t.TempDir(),
	}
	pull := func(t *testing.T, m *mirrord.Mirror, repo string) error {
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		p := puller{client: &http.Client{Transport: tr}, base: m.URL() + "/v2/docker.io/" + repo + "/"}
		return p.image(t.Context(), "v1", built[repo].Root.Digest.String(), "amd64")
	}
	data := filepath.Join(o.Dir, "data")
	state, index := filepath.Join(data, "state.db"), filepath.Join(data, "recency.bin")
	for _, repo := range []string{"library/app", "library/late"} {
		m := mirrord.Start(t, o)
		if err := pull(t, m, repo); err != nil {
			t.Fatal(err)
		}
		stop(t, m)
		if repo == "library/app" { // what the mirror does once a day
			b, err := os.ReadFile(state)
			if err == nil {
				err = os.WriteFile(state+".good", b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	up.Down()

	for name, files := range map[string][]string{"state": {state}, "index": {index}, "both": {state, index}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var size int64
			for _, f := range files {
				info, err := os.Stat(f)
				if err != nil {
					t.Fatal(err)
				}
				size = max(size, info.Size())
			}
			lost := 0
			for _, h := range harms(size) {
				if name == "both" && strings.HasPrefix(h.name, "cut at page") {
					continue
				}
				o := o
				o.Dir = t.TempDir()
				if err := os.CopyFS(filepath.Join(o.Dir, "data"), os.DirFS(data)); err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					if err := h.do(filepath.Join(o.Dir, "data", filepath.Base(f))); err != nil {
						t.Fatalf("%s: %v", h.name, err)
					}
				}
				m, err := mirrord.Launch(t.Context(), launched(o))
				if err != nil {
					t.Errorf("%s: %v", h.name, err)
					continue
				}
				if err := pull(t, m, "library/app"); err != nil {
					t.Errorf("%s: an image of the last good copy: %v\n%s", h.name, err, m.Tail())
				}
				switch err := pull(t, m, "library/late"); {
				case errors.Is(err, errWrongBytes), err != nil && name == "index":
					t.Errorf("%s: an image that came since: %v\n%s", h.name, err, m.Tail())
				case err != nil:
					lost++
					if !slices.ContainsFunc(m.Log(), func(line map[string]any) bool {
						return line["level"] == "ERROR" && strings.Contains(fmt.Sprint(line["msg"]), "state")
					}) {
						t.Errorf("%s: what it lost it doesn't say: %v\n%s", h.name, err, m.Tail())
					}
				}
				layer := built["library/app"].Layers[0][1].Digest.String()
				if code, _ := mirrord.Get(t, m.URL()+"/v2/docker.io/library/other/blobs/"+layer); code == http.StatusOK {
					t.Errorf("%s: content of one repository is served as another's", h.name)
				}
				if !m.End() {
					t.Errorf("%s: it did not stop", h.name)
				}
			}
			if t.Logf("the image since the copy was lost %d times", lost); (lost > 0) != (name != "index") {
				t.Error("the test proves little")
			}
		})
	}
}

// launched has what Launch wants set.
func launched(o mirrord.Options) mirrord.Options {
	o.Program = mirrord.Binary
	return o
}

func stop(t *testing.T, m *mirrord.Mirror) {
	t.Helper()
	m.Signal(t, syscall.SIGTERM)
	equal(t, "exit code", m.WaitExit(t, 2*time.Minute), 0)
}

// TestScrubber damages stored content behind the mirror's back. The scrubber removes it, and the next pull is right.
func TestScrubber(t *testing.T) {
	t.Parallel()
	up := origin.Start(t, origin.Options{})
	blob := up.AddImage("library/app", "v1", origin.Image{Layers: []int64{5 << 20}}).Layers[0][0]
	o := mirrord.Options{Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}", More: "drain: 1s", Dir: t.TempDir()}
	m := mirrord.Start(t, o)
	p := puller{client: &http.Client{Transport: &http.Transport{}}, base: m.URL() + "/v2/docker.io/library/app/"}
	if err := p.blob(t.Context(), blob); err != nil {
		t.Fatal(err)
	}
	stop(t, m)
	if err := crash.Flip(m.Data, blob.Digest, 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(m.Data, "scrub.json")); err != nil { // a day later
		t.Fatal(err)
	}
	m = mirrord.Start(t, o)
	p.base = m.URL() + "/v2/docker.io/library/app/"
	wait.For(t, 2*time.Minute, "the damage to be found", func() error {
		if n := metric(t, m, "mirror_cache_damaged_total"); n != 1 {
			return fmt.Errorf("found %d, read %d", n, metric(t, m, "mirror_cache_scrubbed_total"))
		}
		return nil
	})
	if err := p.blob(t.Context(), blob); err != nil {
		t.Errorf("the pull after it: %v", err)
	}
	if n := up.CountRef(origin.KindBlob, blob.Digest.String(), http.MethodGet); n != 2 {
		t.Errorf("fetched %d times, want 2", n)
	}
	if _, ok := m.Line("cached content was damaged; it is removed, and fetched again when it is next pulled: " +
		"check the disk of cache.dir"); !ok {
		t.Error("the log doesn't tell")
	}
}
