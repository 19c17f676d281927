package disk_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// restOf is what a flight knows of a download that has two parts of b.
func restOf(b []byte, d oci.Digest) flight.Rest {
	n := int64(len(b))
	return flight.Rest{
		Digest: d, Size: n, Have: []flight.Extent{{From: 0, To: n / 4}, {From: n / 2, To: n * 3 / 4}},
		Until: time.Now().Add(time.Hour).UTC().Round(0), Hashed: n / 8, Sum: []byte{1, 2, 255},
	}
}

// leave keeps a download in a folder and stops cleanly.
func leave(t *testing.T, dir string, change func(*flight.Rest)) ([]byte, flight.Rest) {
	t.Helper()
	b, d := cachetest.Bytes(9, 400_000)
	r := restOf(b, d)
	if change != nil {
		change(&r)
	}
	s := open(t, dir, disk.Options{})
	p, err := s.Create(r.Size)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range restOf(b, d).Have {
		if _, err := p.WriteAt(b[x.From:x.To], x.From); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Keep(r), p.Discard(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return b, r
}

func spooled(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "spool"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// What is kept at a clean stop is there after it, once, and can be continued.
func TestUnfinishedOutlivesAStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, r := leave(t, dir, nil)
	for range 2 { // no client asks for it in the first life
		if names := spooled(t, dir); len(names) != 2 {
			t.Fatalf("in the spool: %v", names)
		}
		if err := open(t, dir, disk.Options{}).Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, disk.Options{})
	list := s.Resume()
	if len(list) != 1 || len(s.Resume()) != 0 {
		t.Fatalf("%d are left", len(list))
	}
	u := list[0]
	if diff := cmp.Diff(r, u.Rest); diff != "" {
		t.Errorf("rest (-want +got):\n%s", diff)
	}
	for _, x := range r.Have {
		got := make([]byte, x.To-x.From)
		if _, err := u.Spool.ReadAt(got, x.From); err != nil || !bytes.Equal(got, b[x.From:x.To]) {
			t.Errorf("bytes %d to %d came back changed, %v", x.From, x.To, err)
		}
	}
	own, err := u.Spool.Open()
	if err != nil || own.Size() != r.Size {
		t.Fatalf("open: %v", err)
	}
	_ = own.Close()
	n := r.Size
	for _, x := range [][2]int64{{n / 4, n / 2}, {n * 3 / 4, n}} {
		if _, err := u.Spool.WriteAt(b[x[0]:x[1]], x[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(u.Spool.Commit(r.Digest, n), u.Spool.Discard()); err != nil {
		t.Fatal(err)
	}
	wantContent(t, s, r.Digest, b)
	if names := spooled(t, dir); len(names) > 0 {
		t.Errorf("in the spool: %v", names)
	}
}

// What was kept twice is there twice; what is discarded after Resume is gone.
func TestUnfinishedOverManyStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, r := leave(t, dir, nil)
	for range 3 {
		s := open(t, dir, disk.Options{})
		list := s.Resume()
		if len(list) != 1 {
			t.Fatalf("%d are left", len(list))
		}
		p := list[0].Spool
		if err := errors.Join(p.Keep(r), p.Discard(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, disk.Options{})
	for _, u := range s.Resume() {
		if err := u.Spool.Discard(); err != nil {
			t.Error(err)
		}
	}
	if names := spooled(t, dir); len(names) > 0 {
		t.Errorf("in the spool: %v", names)
	}
}

// What is damaged, foreign or expired, what was not left in order and what is there already, is swept.
func TestUnfinishedIsSwept(t *testing.T) {
	t.Parallel()
	change := func(f func(m map[string]any)) func(t *testing.T, dir, spool string) {
		return func(t *testing.T, _, spool string) {
			data, err := os.ReadFile(spool + ".json")
			if err != nil {
				t.Fatal(err)
			}
			m := make(map[string]any)
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			f(m)
			if data, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(spool+".json", data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	do := func(f func(dir, spool string) error) func(t *testing.T, dir, spool string) {
		return func(t *testing.T, dir, spool string) {
			if err := f(dir, spool); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, harm := range map[string]func(t *testing.T, dir, spool string){
		"expired": change(func(m map[string]any) { m["until"] = time.Now().Add(-time.Second) }),
		"not a digest": change(func(m map[string]any) {
			m["digest"] = "sha256:../../../../etc/passwd"
		}),
		"an extent behind the end": change(func(m map[string]any) { m["have"] = [][2]int64{{0, 1 << 40}} }),
		"an extent before the start": change(func(m map[string]any) {
			m["have"] = [][2]int64{{-1, 10}}
		}),
		"not a sum":            change(func(m map[string]any) { m["sum"] = "x" }),
		"another length":       change(func(m map[string]any) { m["file"] = 5 }),
		"the wrong kind":       change(func(m map[string]any) { m["have"] = "all" }),
		"a record cut off":     do(func(_, spool string) error { return os.Truncate(spool+".json", 20) }),
		"an empty record":      do(func(_, spool string) error { return os.Truncate(spool+".json", 0) }),
		"a record too large":   do(func(_, spool string) error { return os.Truncate(spool+".json", 5<<20) }),
		"no record":            do(func(_, spool string) error { return os.Remove(spool + ".json") }),
		"no spool":             do(func(_, spool string) error { return os.Remove(spool) }),
		"a spool cut off":      do(func(_, spool string) error { return os.Truncate(spool, 1000) }),
		"a spool that grew":    do(func(_, spool string) error { return os.Truncate(spool, 1<<20) }),
		"after a crash":        do(func(dir, _ string) error { return os.WriteFile(dir+"/boot.json", []byte(`{}`), 0o600) }),
		"no note":              do(func(dir, _ string) error { return os.Remove(dir + "/boot.json") }),
		"not a record":         do(func(dir, _ string) error { return os.WriteFile(dir+"/boot.json", []byte("x"), 0o600) }),
		"a link for a spool":   do(func(dir, spool string) error { return link(dir, spool) }),
		"a link for a record":  do(func(dir, spool string) error { return link(dir, spool+".json") }),
		"a folder for a spool": do(func(_, spool string) error { return errors.Join(os.Remove(spool), os.Mkdir(spool, 0o700)) }),
		"there already": func(t *testing.T, dir, _ string) {
			b, d := cachetest.Bytes(9, 400_000)
			name := blobFile(dir, d)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, b, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			leave(t, dir, nil)
			for _, n := range spooled(t, dir) {
				if !strings.HasSuffix(n, ".json") {
					harm(t, dir, filepath.Join(dir, "spool", n))
				}
			}
			s := open(t, dir, disk.Options{})
			if list := s.Resume(); len(list) > 0 {
				t.Errorf("continued: %+v", list[0].Rest)
			}
			if names := spooled(t, dir); len(names) > 0 {
				t.Errorf("in the spool: %v", names)
			}
			if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil && strings.HasPrefix(name, "a link") {
				t.Errorf("what a link led to: %v", err)
			}
		})
	}
}

// link puts a link to a foreign file in the place of a file of the store.
func link(dir, name string) error {
	precious := filepath.Join(dir, "precious")
	return errors.Join(os.Rename(name, precious), os.Symlink("../precious", name))
}

// What is in an ended spool, or in one of an ended store, is not kept.
func TestKeepIsRefused(t *testing.T) {
	t.Parallel()
	b, d := cachetest.Bytes(9, 1000)
	for name, end := range map[string]func(s *disk.Store, p cache.Spool) error{
		"committed": func(_ *disk.Store, p cache.Spool) error { return p.Commit(d, 1000) },
		"discarded": func(_ *disk.Store, p cache.Spool) error { return p.Discard() },
		"closed":    func(s *disk.Store, _ cache.Spool) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, disk.Options{})
			p, err := s.Create(1000)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			if err := end(s, p); err != nil {
				t.Fatal(err)
			}
			if err := p.Keep(restOf(b, d)); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("keep: %v", err)
			}
			_ = p.Discard()
			_ = s.Close()
			if list := open(t, dir, disk.Options{}).Resume(); len(list) > 0 {
				t.Error("kept")
			}
		})
	}
}

// A sync that fails before the stop leaves the bytes of spools unknown: nothing of that is continued, though the last
// sync went well.
func TestKeptBeforeAFailedSync(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"create", "keep"} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			w := opened(t, false)
			w.must(1)
			b, d := cachetest.Bytes(9, 20_000)
			p, err := w.s.Create(20_000)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.WriteAt(b[:10_000], 0); err != nil {
				t.Fatal(err)
			}
			r := restOf(b, d)
			r.Have, r.Hashed = []flight.Extent{{From: 0, To: 10_000}}, 0
			if after == "keep" {
				if err := p.Keep(r); err != nil {
					t.Fatal(err)
				}
			}
			w.c.fail = once(syscall.EIO, "syncfs")
			if err := w.s.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("sync: %v", err)
			}
			if after == "create" {
				if err := p.Keep(r); err == nil {
					t.Error("kept after a sync that failed")
				}
			}
			_ = p.Discard()
			w.blobs[d] = b
			w.stop(true)
			w.open()
			if w.resumed > 0 {
				t.Error("continued")
			}
			w.spoolEmpty()
		})
	}
}
