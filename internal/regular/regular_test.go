package regular_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/registrymirror/mirror/internal/regular"
)

// odd makes one of each kind in a folder, and returns what the errors say of it.
func odd(t *testing.T, dir string) map[string]string {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	big, err := os.Create(at("big"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := errors.Join(
		syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("folder"), 0o700), big.Truncate(1<<40), big.Close(), os.Symlink("pipe", at("link")),
		os.WriteFile(at("eleven"), []byte("01234567890"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"pipe":   "it is a pipe, and not a file; write its content to a file",
		"link":   "it is a pipe, and not a file; write its content to a file",
		"socket": "it is a socket, and not a file; write its content to a file",
		"folder": "it is a folder, and not a file; name the file in it",
		"big":    "it has more than 10 B, which no file of its use has; name the right one",
		"eleven": "it has more than 10 B, which no file of its use has; name the right one",
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wrong := odd(t, dir)
	root, err := regular.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "..2026"), 0o700), os.WriteFile(filepath.Join(dir, "..2026", "token"), []byte("0123456789"), 0o600),
		os.Symlink("..2026", filepath.Join(dir, "..data")), os.Symlink("..data/token", filepath.Join(dir, "token")),
	); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(name string) ([]byte, error){
		"a path":           func(name string) ([]byte, error) { return regular.Read(filepath.Join(dir, name), 10) },
		"below a root":     func(name string) ([]byte, error) { return regular.ReadIn(regular.Below(root), name, 10) },
		"in a file system": func(name string) ([]byte, error) { return regular.ReadIn(os.DirFS(dir), name, 10) },
	} {
		for file, want := range wrong {
			_, err := read(file)
			if err == nil || !strings.Contains(err.Error(), file+": "+want) || !regular.Unfit(err) {
				t.Errorf("%s: %s: %v", name, file, err)
			}
			if errors.Is(err, syscall.EISDIR) != (file == "folder") {
				t.Errorf("%s: %s is a folder: %v", name, file, err)
			}
		}
		if b, err := read("token"); err != nil || string(b) != "0123456789" {
			t.Errorf("%s: a mounted secret: %q, %v", name, b, err)
		}
		if _, err := read("absent"); !errors.Is(err, fs.ErrNotExist) || regular.Unfit(err) {
			t.Errorf("%s: absent: %v", name, err)
		}
	}
	if _, err := regular.Read("/dev/zero", 10); err == nil || !strings.Contains(err.Error(), "it is a device") {
		t.Errorf("a device: %v", err)
	}
	if _, err := regular.Read("/proc/self/status", 10); err == nil || !strings.Contains(err.Error(), "more than 10 B") {
		t.Errorf("a file without a size: %v", err)
	}
	if _, err := regular.OpenRoot(filepath.Join(dir, "pipe")); err == nil || !strings.Contains(err.Error(), "it is not a folder") {
		t.Errorf("a pipe in the place of a folder: %v", err)
	}
}

// Links lead nowhere out of a root, and neither a folder nor a walk opens anything else.
func TestBelow(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	odd(t, dir)
	if err := errors.Join(os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600), os.Symlink(outside, filepath.Join(dir, "away"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	below := regular.Below(root)
	if _, err := regular.ReadIn(below, "away/secret", 10); err == nil {
		t.Error("a link that leads out of the root was followed")
	}
	entries, err := fs.ReadDir(below, ".")
	if err != nil || len(entries) != 7 {
		t.Errorf("%v, %v", entries, err)
	}
	for _, name := range []string{"pipe", "socket"} {
		if _, err := fs.ReadDir(below, name); err == nil {
			t.Errorf("%s was opened as a folder", name)
		}
		if _, err := below.Open(name); !regular.Unfit(err) {
			t.Errorf("%s was opened: %v", name, err)
		}
	}
	if target, err := fs.ReadLink(below, "link"); err != nil || target != "pipe" {
		t.Errorf("%q, %v", target, err)
	}
}

// counted counts the bytes that are read of a file whose size is not known.
type counted struct {
	fs.FS
	read *atomic.Int64
}

type countedFile struct {
	fs.File
	read *atomic.Int64
}

func (c counted) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	return countedFile{f, c.read}, err
}

func (c countedFile) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	c.read.Add(int64(n))
	return n, err
}

type unsized struct{ fs.FileInfo }

func (unsized) Size() int64 { return 0 }

func (c countedFile) Stat() (fs.FileInfo, error) {
	info, err := c.File.Stat()
	return unsized{info}, err
}

// A file is not read further than a byte beyond its limit.
func TestReadIsBounded(t *testing.T) {
	t.Parallel()
	var read atomic.Int64
	files := counted{fstest.MapFS{"a": {Data: make([]byte, 8<<20)}}, &read}
	if _, err := regular.ReadIn(files, "a", 1<<20); !regular.Unfit(err) || read.Load() > 1<<20+1 {
		t.Errorf("%d bytes were read: %v", read.Load(), err)
	}
}

// What a command reads may be a pipe: one without a writer is empty, and the bytes of one with a writer are waited for.
func TestInput(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := regular.Input(pipe)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || len(b) != 0 {
		t.Errorf("without a writer: %q, %v", b, err)
	}
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = w.WriteString("late")
		w.Close()
	}()
	g, err := regular.Input(pipe)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(g); err != nil || string(b) != "late" {
		t.Errorf("with a writer: %q, %v", b, err)
	}
	if err := errors.Join(f.Close(), g.Close()); err != nil {
		t.Error(err)
	}
}
