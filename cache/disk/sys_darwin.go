package disk

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/cache"
)

// bootID names the present boot of the machine. Empty: not known.
func bootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}

// allocate does nothing: F_PREALLOCATE is not kept over a truncate, and APFS shares its space among volumes.
func allocate(*os.File, int64, int64) error { return nil }

// uncache does nothing: darwin has no call for it.
func uncache(*os.File, int64, int64) {}

// readCold is ReadAt: what is read once stays in memory, for the kernel to push out.
func readCold(f *os.File, p []byte, off int64) (int, error) { return f.ReadAt(p, off) }

// syncFS syncs everything: darwin has no call for one file system.
func syncFS(*os.File) error { return unix.Sync() }

func space(dir *os.File) (cache.Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return cache.Space{}, &os.PathError{Op: "statfs", Path: dir.Name(), Err: err}
	}
	return cache.Space{
		Free: int64(st.Bavail) * int64(st.Bsize), Total: int64(st.Blocks) * int64(st.Bsize),
		FreeInodes: int64(st.Ffree), AllInodes: int64(st.Files),
	}, nil
}

// readOnly reports whether the file system takes no writes.
func readOnly(dir *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(dir.Fd()), &st) == nil && st.Flags&unix.MNT_RDONLY != 0
}

// networkFS names the network file system that the folder is on. Empty: a local one.
func networkFS(dir *os.File) string {
	var st unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &st) != nil {
		return ""
	}
	switch name := unix.ByteSliceToString(st.Fstypename[:]); name {
	case "nfs", "smbfs", "afpfs", "webdav":
		return name
	}
	return ""
}
