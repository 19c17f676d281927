package disk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
)

// open opens a store for the length of a test.
func open(t *testing.T, dir string, o disk.Options) *disk.Store {
	t.Helper()
	s, err := disk.Open(dir, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func blobFile(dir string, d oci.Digest) string {
	return filepath.Join(dir, "blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded())
}

// files lists what lies under dir, by its path.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestStore(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		name := map[bool]string{false: "relaxed", true: "strict"}[strict]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cachetest.TestStore(t, func(t *testing.T) cache.Store {
				dir := t.TempDir()
				s := open(t, dir, disk.Options{Strict: strict})
				t.Cleanup(func() {
					if left := files(t, filepath.Join(dir, "spool")); len(left) > 0 {
						t.Errorf("left in the spool: %v", left)
					}
				})
				return s
			})
		})
	}
}

func TestLayoutAndModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	if err := open(t, dir, disk.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, disk.Options{}) // after a stop in peace it has nothing to write of its own accord
	b, d := cachetest.Bytes(1, 1000)
	cachetest.Fill(t, s, b)
	p, err := s.Create(10)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Discard()
	if _, err := os.Stat(blobFile(dir, d)); err != nil {
		t.Errorf("content is not where it belongs: %v", err)
	}
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if got := fi.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", p, got, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestObjectIsAFile(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), disk.Options{})
	d := cachetest.Fill(t, s, []byte("content"))
	o, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	// What package net asks for before it uses sendfile.
	if _, ok := o.(syscall.Conn); !ok {
		t.Errorf("%T hides the file from the kernel", o)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, d := cachetest.Bytes(1, 70_000)
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cachetest.Fill(t, s, b)
	p, err := s.Create(1 << 20) // on its way when we stop
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := s.Create(1); err == nil {
		t.Error("a closed store made a spool")
	}
	_ = p.Discard()
	if err := os.MkdirAll(filepath.Join(dir, "spool", "junk", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir, disk.Options{})
	if left := files(t, filepath.Join(dir, "spool")); len(left) > 0 {
		t.Errorf("not swept: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "spool", "junk")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("junk in the spool: %v, want it gone", err)
	}
	wantContent(t, s, d, b)
}

func wantContent(t *testing.T, s *disk.Store, d oci.Digest, want []byte) {
	t.Helper()
	o, err := s.Open(d)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer o.Close()
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v, want the %d that were committed", len(got), err, len(want))
	}
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log testlog.Log
	s := open(t, dir, disk.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	b, d := cachetest.Bytes(1, 100)
	cachetest.Fill(t, s, b)

	of := func(s string) oci.Digest { return digest.FromString(s) }
	outside, inside, folder, fifo, other := of("outside"), of("inside"), of("folder"), of("fifo"), of("other")
	for _, d := range []oci.Digest{outside, inside, folder, fifo, other} {
		if err := os.MkdirAll(filepath.Dir(blobFile(dir, d)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Symlink(secret, blobFile(dir, outside)),
		os.Symlink(blobFile(dir, d), blobFile(dir, inside)),
		os.MkdirAll(filepath.Join(blobFile(dir, folder), "deep"), 0o700),
		syscall.Mkfifo(blobFile(dir, fifo), 0o600),
		os.WriteFile(filepath.Join(dir, "blobs", "README"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "blobs", "sha256", "junk"), nil, 0o600),
		os.WriteFile(filepath.Join(filepath.Dir(blobFile(dir, other)), "junk.txt"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "blobs", "sha256", other.Encoded()[:2], strings.Repeat("0", 64)), nil, 0o600),
		os.MkdirAll(filepath.Join(dir, "blobs", "md5", "ab"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if other.Encoded()[:2] == "00" {
		t.Fatal("the test's digest does not tell folders apart")
	}
	for name, d := range map[string]oci.Digest{
		"link to outside": outside, "link to inside": inside, "folder": folder, "fifo": fifo,
	} {
		if o, err := s.Open(d); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("open of a %s: %v, %v, want ErrNotFound", name, o, err)
		}
		if err := s.Remove(d); err != nil {
			t.Errorf("remove of a %s: %v", name, err)
		}
		if _, err := os.Lstat(blobFile(dir, d)); err != nil {
			t.Errorf("a foreign %s was touched: %v", name, err)
		}
	}
	got := make(map[oci.Digest]int64)
	for e, err := range s.All() {
		if err != nil {
			t.Errorf("list: %v", err)
		}
		got[e.Digest] = e.Size
	}
	if diff := cmp.Diff(map[oci.Digest]int64{d: 100}, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for _, name := range []string{"blobs/README", "blobs/md5", "blobs/sha256/junk", "junk.txt", outside.Encoded()} {
		if !strings.Contains(log.String(), name) {
			t.Errorf("the log does not name %s", name)
		}
	}
	// Content may take the place of a link: the link is replaced, not followed.
	cachetest.Fill(t, s, []byte("outside"))
	wantContent(t, s, outside, []byte("outside"))
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Errorf("the link was followed: %q, %v", b, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(dir string) error{
		"blobs is a file": func(dir string) error { return os.WriteFile(filepath.Join(dir, "blobs"), nil, 0o600) },
		"spool is a link": func(dir string) error { return os.Symlink("/tmp", filepath.Join(dir, "spool")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			s, err := disk.Open(dir, disk.Options{})
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), "cache.dir") || !strings.Contains(err.Error(), dir) {
				t.Errorf("no way out in: %v", err)
			}
			// The lock is free again.
			if _, err := disk.Open(dir, disk.Options{Wait: -1}); errors.As(err, new(*disk.LockedError)) {
				t.Errorf("still locked: %v", err)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Open(file, disk.Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("open of a file: %v", err)
	}
}

func TestSpaceIsTakenAhead(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), disk.Options{})
	sp, err := s.Free()
	if err != nil {
		t.Fatal(err)
	}
	if sp.Free <= 0 || sp.Total < sp.Free || sp.AllInodes < sp.FreeInodes {
		t.Fatalf("free space makes no sense: %+v", sp)
	}
	// A size costs nothing by itself; what is taken ahead of the writes is known to be there.
	p, err := s.Create(sp.Total + 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Discard() }()
	err = p.(cache.Allocator).Allocate(0, sp.Total+1<<30)
	if err == nil {
		t.Fatal("took more than the disk has")
	}
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("%v, want ENOSPC", err)
	}
}

func TestSpoolFolderRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, disk.Options{})
	b, d := cachetest.Bytes(1, 100)
	for _, name := range []string{"spool", "blobs"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(d); err != nil {
			t.Errorf("remove: %v", err)
		}
		cachetest.Fill(t, s, b)
		wantContent(t, s, d, b)
	}
}

func TestFailedCommitLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, disk.Options{})
	b, d := cachetest.Bytes(1, 100)
	// A folder in the way: rename fails.
	if err := os.MkdirAll(filepath.Join(blobFile(dir, d), "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := s.Create(100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(d, 100); err == nil {
		t.Fatal("commit over a folder went well")
	}
	if left := files(t, filepath.Join(dir, "spool")); len(left) > 0 {
		t.Errorf("left in the spool: %v", left)
	}
	got := make([]byte, 100)
	if n, err := p.ReadAt(got, 0); n != 100 || !bytes.Equal(got, b) {
		t.Errorf("readers lost the spool: %d, %v", n, err)
	}
	if err := p.Discard(); err != nil {
		t.Errorf("discard: %v", err)
	}
}

// What the kernel could not write it forgets: after a failed sync nothing that was not on disk may stay.
func TestFailedSyncDropsContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old, dOld := cachetest.Bytes(1, 100)
	cachetest.Fill(t, s, old)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	s.FailSyncs(1, syscall.EIO)
	fresh, dFresh := cachetest.Bytes(2, 100)
	cachetest.Fill(t, s, fresh)
	if err := s.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v, want EIO", err)
	}
	if o, err := s.Open(dFresh); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("content after a failed sync: %v, %v, want it gone", o, err)
	}
	wantContent(t, s, dOld, old)
	if err := s.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v, want EIO: it could not note a stop in peace", err)
	}
}

func TestFailedSyncFailsStrictCommit(t *testing.T) {
	t.Parallel()
	// The file; its folder, new; and those above.
	for n := 1; n <= 5; n++ {
		dir := t.TempDir()
		s, err := disk.Open(dir, disk.Options{Strict: true})
		if err != nil {
			t.Fatal(err)
		}
		s.FailSyncs(n, syscall.EIO)
		b, d := cachetest.Bytes(1, 100)
		p, err := s.Create(100)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(d, 100); !errors.Is(err, syscall.EIO) {
			t.Errorf("commit with sync %d failing: %v, want EIO", n, err)
		}
		if o, err := s.Open(d); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("content after a failed commit: %v, %v, want none", o, err)
		}
		if err := p.Discard(); err != nil {
			t.Errorf("discard: %v", err)
		}
		if left := files(t, filepath.Join(dir, "spool")); len(left) > 0 {
			t.Errorf("left in the spool: %v", left)
		}
		_ = s.Close() // can't note a stop in peace
	}
}
