package disk

import (
	"errors"
	"os"
	"strings"
	"unsafe"

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

// allocate takes n bytes of the disk for f at off without changing its length. Where the file system can't, nothing
// happens.
func allocate(f *os.File, off, n int64) error {
	// What doesn't fit is not tried: ext4 takes all free space before it gives up, and other writers get none meanwhile.
	if sp, err := space(f); err == nil && sp.Total > 0 && n > sp.Free {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: unix.ENOSPC}
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
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

// uncache has the kernel forget clean pages of a file; length 0: to its end.
func uncache(f *os.File, off, length int64) {
	_ = unix.Fadvise(int(f.Fd()), off, length, unix.FADV_DONTNEED)
}

// readCold is ReadAt that leaves no more of the file in memory than before: a scrubber that reads everything once must not
// push out what clients read again and again. Read-ahead would bring in more than is asked for, so f has none.
func readCold(f *os.File, p []byte, off int64) (int, error) {
	if off == 0 {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	}
	before := inMemory(f, off, len(p))
	n, err := f.ReadAt(p, off)
	size := int64(os.Getpagesize())
	for i := 0; i < len(before); {
		from := i
		for i < len(before) && before[i]&1 == 0 {
			i++
		}
		if i > from {
			uncache(f, off+int64(from)*size, int64(i-from)*size)
		}
		i++
	}
	return n, err
}

// inMemory tells of each page of a part of a file, in the lowest bit, whether it is in memory. The part begins with a
// page. A read with RWF_NOWAIT doesn't tell: it begins to read what is not there. Nil: not known.
func inMemory(f *os.File, off int64, n int) []byte {
	m, err := unix.Mmap(int(f.Fd()), off, n, unix.PROT_READ, unix.MAP_SHARED) // only to be asked about
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Munmap(m) }()
	pages := make([]byte, (n+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(n),
		uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		return nil
	}
	return pages
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

// readOnly reports whether the file system takes no writes.
func readOnly(dir *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(dir.Fd()), &st) == nil && st.Flags&unix.ST_RDONLY != 0
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
