package disk

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/internal/regular"
)

// volume is the part of the file system that a store uses. Names are relative to the folder and can't leave it. The product has
// one, system; tests have one that fails at any call, and that forgets what was not synced.
//
// Files are always the system's own: the bytes of a hit go from the kernel to the socket, past this interface.
type volume interface {
	// As os.Root has them.
	Open(name string) (*os.File, error)
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Lstat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	MkdirAll(name string, perm fs.FileMode) error
	Rename(from, to string) error
	Remove(name string) error
	RemoveAll(name string) error
	ReadFile(name string) ([]byte, error)
	Close() error

	// ReadDir lists a folder, by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Sub is the volume of a folder below. It is closed on its own.
	Sub(name string) (volume, error)

	// Calls for an open file.
	ReadAt(f *os.File, p []byte, off int64) (int, error)
	// ReadCold is ReadAt that leaves no more of the file in memory than before.
	ReadCold(f *os.File, p []byte, off int64) (int, error)
	WriteAt(f *os.File, p []byte, off int64) (int, error)
	Truncate(f *os.File, size int64) error
	// Allocate takes n bytes of the disk for the file at off without changing its length, where the file system can.
	Allocate(f *os.File, off, n int64) error
	// Uncache asks the kernel to drop the clean pages of a file, so that the next read is the disk's.
	Uncache(f *os.File)
	// Mark sets the mark of content that is known to be on disk; Marked reports whether it is there.
	Mark(f *os.File) error
	Marked(f *os.File) bool
	// Sync brings a file, or the names in a folder, to the disk; SyncFS all of the file system that dir is on.
	Sync(f *os.File) error
	SyncFS(dir *os.File) error
}

// system is the volume of the operating system.
type system struct{ *os.Root }

func openSystem(dir string) (volume, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return system{r}, nil
}

// ReadFile reads a record of the store, the largest of which are those of unfinished downloads.
func (v system) ReadFile(name string) ([]byte, error) {
	return regular.ReadIn(regular.Below(v.Root), name, maxRecord)
}

func (v system) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(v.FS(), name) }

func (v system) Sub(name string) (volume, error) {
	r, err := v.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return system{r}, nil
}

func (system) ReadAt(f *os.File, p []byte, off int64) (int, error)   { return f.ReadAt(p, off) }
func (system) ReadCold(f *os.File, p []byte, off int64) (int, error) { return readCold(f, p, off) }
func (system) WriteAt(f *os.File, p []byte, off int64) (int, error)  { return f.WriteAt(p, off) }
func (system) Truncate(f *os.File, size int64) error                 { return f.Truncate(size) }
func (system) Allocate(f *os.File, off, n int64) error               { return allocate(f, off, n) }
func (system) Uncache(f *os.File)                                    { uncache(f, 0, 0) }
func (system) Sync(f *os.File) error                                 { return f.Sync() }
func (system) SyncFS(dir *os.File) error                             { return syncFS(dir) }

// attr is the mark. It is in the inode and not in a list, so that it is lost with the file, and it survives changes of modes
// and owners (the kubelet makes them, for fsGroup).
const attr = "user.mirror.synced"

func (system) Mark(f *os.File) error { return unix.Fsetxattr(int(f.Fd()), attr, []byte{'1'}, 0) }

func (system) Marked(f *os.File) bool {
	var b [8]byte
	n, err := unix.Fgetxattr(int(f.Fd()), attr, b[:])
	return err == nil && n == 1 && b[0] == '1'
}
