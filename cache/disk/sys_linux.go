package disk

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/cache"
)

// bootID names the present boot of the machine, the same in every container on it. Empty: not known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// allocate takes size bytes of the disk for f without changing its length. Where the file system can't, nothing
// happens.
func allocate(f *os.File, size int64) error {
	// What doesn't fit is not tried: ext4 takes all there is before it gives up, and starves everybody meanwhile.
	if sp, err := space(f); err == nil && sp.Total > 0 && size > sp.Free {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: unix.ENOSPC}
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG),
			errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS):
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		default:
			return nil
		}
	}
}

func syncFS(dir *os.File) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir.Name(), Err: err}
	}
	return nil
}

func space(dir *os.File) (cache.Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return cache.Space{}, &os.PathError{Op: "statfs", Path: dir.Name(), Err: err}
	}
	block := st.Frsize
	if block == 0 {
		block = st.Bsize
	}
	return cache.Space{
		Free: int64(st.Bavail) * block, Total: int64(st.Blocks) * block,
		FreeInodes: int64(st.Ffree), AllInodes: int64(st.Files),
	}, nil
}

// networkFS names the network file system that the folder is on. Empty: a local one.
func networkFS(dir *os.File) string {
	var st unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &st) != nil {
		return ""
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "smb"
	}
	return ""
}
