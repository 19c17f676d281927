package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/oci"
)

// folder is the cache's directory: names, and what their files hold. Which content may be served it does not know.
type folder struct {
	path string
	root volume
	self *os.File // the directory itself, for syncfs and statfs; nil where content is only verified
	log  *slog.Logger

	foreign atomic.Int64 // files of others that were met
	noMarks atomic.Bool  // the file system keeps no extended attributes

	mu     sync.Mutex          // guards synced; a leaf
	synced map[string]struct{} // folders below whose own names are known to be on disk, under strict durability
}

func openFolder(dir string, on func(dir string) (volume, error), log *slog.Logger) (*folder, error) {
	root, err := on(dir)
	if err != nil {
		return nil, err
	}
	return &folder{path: dir, root: root, log: log, synced: make(map[string]struct{})}, nil
}

func (f *folder) close() {
	if f.self != nil {
		_ = f.self.Close()
	}
	_ = f.root.Close()
}

// report logs with the folder's path.
func (f *folder) report(l slog.Level, msg string, args ...any) {
	f.log.Log(context.Background(), l, msg, append(args, "cache_dir", f.path)...)
}

// maxForeignLogged is how many foreign files are logged, so that a folder of another program does not fill the log.
const maxForeignLogged = 100

// reportForeign logs a file that is not the cache's.
func (f *folder) reportForeign(name string) {
	if f.foreign.Add(1) <= maxForeignLogged {
		f.report(slog.LevelWarn, "not a file of the cache: it is ignored; move it away", "name", name)
	}
}

// makeFolder makes a directory, and those above it. The names of new ones are brought to the disk.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	above := filepath.Dir(filepath.Clean(dir))
	if above != dir {
		if err := makeFolder(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(above)
	if err != nil {
		return nil // a directory that may be entered and not read can't be synced
	}
	defer f.Close()
	_ = f.Sync()
	return nil
}

// make makes a folder of the cache, and refuses anything else in its place.
func (f *folder) make(name string) error {
	if err := f.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := f.root.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a folder; move it away, or name another cache.dir", name)
	}
	return nil
}

// makeAll makes the folder of a blob, and those above it.
func (f *folder) makeAll(dir string) error {
	if _, err := f.root.Lstat(dir); err == nil {
		return nil
	}
	f.mu.Lock()
	for name := dir; name != "."; name = path.Dir(name) {
		delete(f.synced, name)
	}
	f.mu.Unlock()
	return f.root.MkdirAll(dir, 0o700)
}

// sync makes the names in a folder durable, and its own and those above it where they are not known to be.
func (f *folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	err = f.root.Sync(d)
	_ = d.Close()
	if err != nil || dir == "." {
		return err
	}
	f.mu.Lock()
	_, known := f.synced[dir]
	f.mu.Unlock()
	if known {
		return nil
	}
	if err := f.sync(path.Dir(dir)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced[dir] = struct{}{}
	return nil
}

// writeTemp writes a JSON document beside its place. It returns the name, for the caller to rename.
func (f *folder) writeTemp(name string, v any, sync bool) (tmp string, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	tmp = name + ".tmp"
	file, err := f.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if _, err := f.root.WriteAt(file, append(data, '\n'), 0); err != nil || !sync {
		return tmp, err
	}
	return tmp, f.root.Sync(file)
}

// mark marks a file as known to be on disk. Where that does not work the file stays suspect after a crash, no more.
func (f *folder) mark(file *os.File) {
	err := f.root.Mark(file)
	if err == nil {
		return
	}
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		if !f.noMarks.Swap(true) {
			f.report(slog.LevelWarn, "file system of the cache folder keeps no extended attributes; after a crash of the "+
				"machine all content is hashed before it is served")
		}
		return
	}
	f.report(slog.LevelDebug, "content can't be marked", "name", file.Name(), "error", err)
}

// sameFile reports whether a name still is that of an open file.
func (f *folder) sameFile(name string, o *Object) bool {
	now, err := f.root.Lstat(name)
	if err != nil {
		return false
	}
	was, err := o.Stat()
	return err == nil && os.SameFile(now, was)
}

// removeFile removes a file that was found damaged, unless another one has its name by now.
func (f *folder) removeFile(name string, o *Object) error {
	now, err := f.root.Lstat(name)
	was, serr := o.Stat()
	if err == nil && serr == nil && !os.SameFile(now, was) {
		return nil
	}
	if err == nil {
		err = f.root.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// hashPiece is how many bytes are read at once to be hashed.
const hashPiece = 256 << 10

// hash reads a file to its end and returns the digest of its bytes, by the algorithm of d. next gets the number of bytes of
// each piece, and may end it with an error.
func (f *folder) hash(
	o *Object, d oci.Digest, read func(*os.File, []byte, int64) (int, error), next func(n int) error,
) (oci.Digest, error) {
	h := d.Algorithm().Digester()
	buf := make([]byte, hashPiece)
	for off := int64(0); off < o.size; {
		p := buf[:min(hashPiece, o.size-off)]
		n, err := read(o.File, p, off)
		if n < len(p) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", fmt.Errorf("read at %d: %w", off+int64(n), err)
		}
		_, _ = h.Hash().Write(p)
		off += int64(n)
		if err := next(n); err != nil {
			return "", err
		}
	}
	return h.Digest(), nil
}

// examine reads content without keeping it in memory, and returns what is wrong with it; empty: it is what d says. An
// error means that this is not known.
func (f *folder) examine(o *Object, d oci.Digest, next func(n int) error) (wrong string, err error) {
	got, err := f.hash(o, d, f.root.ReadCold, next)
	switch {
	case errors.Is(err, unix.EIO):
		return fmt.Sprintf("read: %v", err), nil
	case err != nil:
		return "", err
	case got == d:
		return "", nil
	case o.size == 0:
		return "size: the file is empty", nil
	}
	return fmt.Sprintf("hash: its bytes are %s", got), nil
}
