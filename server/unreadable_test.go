package server_test

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

// badSectors is a store on a disk with unreadable sectors, until the content in them is removed.
type badSectors struct {
	*disk.Store
	from     atomic.Int64 // the first unreadable byte of any file; 0: all are readable
	readOnly bool         // content can't be removed
}

func (s *badSectors) Open(d oci.Digest) (cache.Object, error) {
	o, err := s.Store.Open(d)
	if err != nil || s.from.Load() == 0 {
		return o, err
	}
	return &badObject{Object: o, from: s.from.Load()}, nil
}

func (s *badSectors) Remove(d oci.Digest) error {
	if s.readOnly {
		return &fs.PathError{Op: "unlink", Path: string(d), Err: syscall.EROFS}
	}
	s.from.Store(0)
	return s.Store.Remove(d)
}

type badObject struct {
	cache.Object
	from int64
}

func (o *badObject) Read(p []byte) (int, error) {
	at, err := o.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if at >= o.from {
		return 0, &fs.PathError{Op: "read", Path: "blob", Err: syscall.EIO}
	}
	return o.Object.Read(p[:min(int64(len(p)), o.from-at)])
}

func (o *badObject) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > o.from {
		return 0, &fs.PathError{Op: "read", Path: "blob", Err: syscall.EIO}
	}
	return o.Object.ReadAt(p, off)
}

// stored returns the file of a blob, which gets its name shortly after its last byte is sent.
func stored(t *testing.T, dir string, d oci.Digest) string {
	t.Helper()
	name := filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	for begin := time.Now(); ; {
		_, err := os.Stat(name)
		if err == nil {
			return name
		}
		if time.Since(begin) > time.Minute {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// Stored content can't be read to its end, while it is sent: the response continues from the upstream, and the content is
// replaced. Without the upstream the client sees that its response was cut.
func TestStoredContentCantBeRead(t *testing.T) {
	t.Parallel()
	const size, bad = 24 << 20, 14 << 20
	for _, tt := range []struct {
		name     string
		cut      bool // the file is truncated; else the disk fails
		rng      string
		down     bool // the upstream is
		wrong    bool // the upstream sends other bytes by now
		readOnly bool
	}{
		{name: "cut"},
		{name: "cut, range", rng: "bytes=100-20000000"},
		{name: "cut, ranges"},
		{name: "cut, upstream down", down: true},
		{name: "cut, upstream wrong", wrong: true},
		{name: "I/O error"},
		{name: "I/O error, range", rng: "bytes=100-20000000"},
		{name: "I/O error, read-only", readOnly: true},
		{name: "I/O error, upstream down", down: true},
	} {
		tt.cut = strings.HasPrefix(tt.name, "cut")
		if tt.name == "cut, ranges" {
			tt.rng = "bytes=0-99,1000-22999999"
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			store, err := disk.Open(dir, disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			shaky := &badSectors{Store: store, readOnly: tt.readOnly}
			w := newWire(t, wired{store: shaky})
			im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{size}})
			layer := im.Layers[0][0]
			content := im.Bytes(layer.Digest)
			if res, _ := w.do(t, "GET", "/v2/app/manifests/1"); res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
			path := "/v2/app/blobs/" + layer.Digest.String()
			if res, b := w.do(t, "GET", path); res.StatusCode != 200 || len(b) != size {
				t.Fatal(res.Status)
			}
			file := stored(t, dir, layer.Digest)
			if !tt.cut {
				shaky.from.Store(bad)
			}
			if tt.wrong {
				w.hub.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Flip: []int64{size - 10}}})
			}
			r := request(t, w.Server, "GET", path)
			if tt.rng != "" {
				r.Header.Set("Range", tt.rng)
			}
			res, err := w.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.Header.Get("Cache-Status") != "mirror; hit" {
				t.Errorf("Cache-Status: %s", res.Header.Get("Cache-Status"))
			}
			start := make([]byte, 1000)
			if _, err := io.ReadFull(res.Body, start); err != nil {
				t.Fatal(err)
			}
			if tt.cut {
				if err := os.Truncate(file, bad); err != nil {
					t.Fatal(err)
				}
			}
			if tt.down {
				w.hub.Down()
			}
			rest, err := io.ReadAll(res.Body)
			got := string(start) + string(rest)
			switch {
			case tt.down || tt.wrong:
				if err == nil || !strings.HasPrefix(string(content), got) {
					t.Errorf("%d bytes of %d, %v", len(got), size, err)
				}
				return
			case tt.rng == "":
				if err != nil || got != string(content) {
					t.Errorf("%d bytes of %d, %v", len(got), size, err)
				}
			default:
				var from, to int
				_, _ = fmt.Sscanf(tt.rng[strings.LastIndexAny(tt.rng, "=,")+1:], "%d-%d", &from, &to)
				if err != nil || !strings.Contains(got, string(content[from:to+1])) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
			res, b := w.do(t, "GET", path) // at once: its download may still run
			if res.StatusCode != 200 || string(b) != string(content) {
				t.Errorf("the next pull: %s, %d bytes", res.Status, len(b))
			}
			if n := w.hub.CountRef(origin.KindBlob, layer.Digest.String(), http.MethodGet); n < 2 {
				t.Errorf("fetched %d times", n)
			}
		})
	}
}

// Content is not removed because its reader leaves.
func TestClientLeavesStoredContent(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	store, err := disk.Open(t.TempDir(), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	w := newWire(t, wired{store: store})
	im := w.hub.AddImage("library/app", "1", origin.Image{Layers: []int64{size}})
	layer := im.Layers[0][0].Digest
	if res, _ := w.do(t, "GET", "/v2/app/manifests/1"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	path := "/v2/app/blobs/" + layer.String()
	for range 20 {
		res, err := w.Client().Do(request(t, w.Server, "GET", path))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	if res, b := w.do(t, "GET", path); res.StatusCode != 200 || len(b) != size {
		t.Errorf("%s, %d bytes", res.Status, len(b))
	}
	if n := w.hub.CountRef(origin.KindBlob, layer.String(), http.MethodGet); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
}
