package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// boot is the content of boot.json.
type boot struct {
	// Boot is the boot of the machine whose unmarked content can be trusted. It stays at a former boot until all that
	// was in doubt has been hashed, so that a second crash in between forgets nothing.
	Boot string `json:"boot"`
	// Clean says that everything was synced and no process has used the folder since.
	Clean bool `json:"clean"`
}

// recall reads the note of the process before. Without one, everything is in doubt.
func (s *Store) recall() (boot, error) {
	var b boot
	data, err := s.root.ReadFile(bootFile)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(data, &b); err != nil {
		s.o.Log.Warn("note about the last stop can't be read; content is hashed before it is served", "dir", s.path,
			"name", bootFile, "err", err)
		return boot{}, nil
	}
	return b, nil
}

// note writes boot.json, durably. On a disk that takes no write the old note is removed, or else stays if it promises
// less.
func (s *Store) note(b boot) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	const tmp = bootFile + ".tmp"
	err = func() error {
		f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(append(data, '\n')); err != nil {
			return err
		}
		if err := s.syncFile(f); err != nil {
			return err
		}
		if err := s.root.Rename(tmp, bootFile); err != nil {
			return err
		}
		return s.syncFile(s.dir)
	}()
	if err == nil || b.Clean {
		return err
	}
	s.o.Log.Warn("note about this start can't be written; the disk is full or read-only", "dir", s.path, "err", err)
	_ = s.root.Remove(tmp)
	if err := s.root.Remove(bootFile); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return err
	}
	_ = s.syncFile(s.dir) // where it fails nothing gets committed either
	return nil
}

// attr is the mark of content that is known to be on disk. It is in the inode and not in a list, so that it is lost
// with the file, and it survives who changes modes and owners (kubelet does, for fsGroup).
const attr = "user.mirror.synced"

// mark marks a file. Where that doesn't work the file stays suspect after a crash, no more.
func (s *Store) mark(f *os.File) {
	err := unix.Fsetxattr(int(f.Fd()), attr, []byte{'1'}, 0)
	if err == nil {
		return
	}
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		if !s.noMarks.Swap(true) {
			s.o.Log.Warn("file system of the cache folder keeps no extended attributes; after a crash of the machine "+
				"all content is hashed before it is served", "dir", s.path)
		}
		return
	}
	s.o.Log.Debug("content can't be marked", "dir", s.path, "name", f.Name(), "err", err)
}

func marked(f *os.File) bool {
	var b [8]byte
	n, err := unix.Fgetxattr(int(f.Fd()), attr, b[:])
	return err == nil && n == 1 && b[0] == '1'
}

// committed notes new content.
func (s *Store) committed(d oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.o.Strict {
		s.fresh[d] = struct{}{}
	}
	if s.doubt.Load() {
		s.sound[d] = struct{}{}
	}
}

// doubted reports whether content must be hashed before it is served.
func (s *Store) doubted(d oci.Digest, f *os.File) bool {
	if !s.doubt.Load() {
		return false
	}
	s.mu.Lock()
	_, ok := s.sound[d]
	s.mu.Unlock()
	return !ok && !marked(f)
}

// verification is one hash that several wait for.
type verification struct {
	done chan struct{}
	err  error
}

// verify hashes suspect content, once for all who want it. What is wrong is removed.
func (s *Store) verify(d oci.Digest) error {
	s.mu.Lock()
	if v := s.verifying[d]; v != nil {
		s.mu.Unlock()
		<-v.done
		return v.err
	}
	v := &verification{done: make(chan struct{})}
	s.verifying[d] = v
	s.mu.Unlock()

	v.err = s.rehash(d)
	s.mu.Lock()
	delete(s.verifying, d)
	if v.err == nil {
		// Right as it is read now; whether it is on disk only the next sync knows.
		s.fresh[d] = struct{}{}
		s.sound[d] = struct{}{}
	}
	s.mu.Unlock()
	close(v.done)
	return v.err
}

func (s *Store) rehash(d oci.Digest) error {
	name, err := blobPath(d)
	if err != nil {
		return err
	}
	o, err := s.openFile(name)
	if err != nil {
		return err
	}
	defer o.Close()
	if !s.doubted(d, o.File) {
		return nil // somebody has been here
	}
	v := d.Verifier()
	_, err = io.CopyBuffer(onlyWriter{v}, &stoppable{r: o.File, stop: s.stop}, make([]byte, 1<<20))
	if errors.Is(err, errStopped) {
		return err
	}
	if err == nil && v.Verified() {
		return nil
	}
	s.o.Log.Warn("content was damaged by a crash of the machine; it is removed and will be fetched again",
		"dir", s.path, "digest", d, "size", o.size, "err", err)
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove damaged %s: %w", d, err)
	}
	return fmt.Errorf("%s was damaged: %w", d, cache.ErrNotFound)
}

var errStopped = errors.New("the cache folder is being closed")

// stoppable is a reader that ends with the store.
type stoppable struct {
	r    io.Reader
	stop <-chan struct{}
}

func (r *stoppable) Read(p []byte) (int, error) {
	select {
	case <-r.stop:
		return 0, errStopped
	default:
		return r.r.Read(p)
	}
}

// onlyWriter hides everything but Write.
type onlyWriter struct{ io.Writer }

// settle looks at all content after a stop without Close. Where the machine went on, what has no mark is only fresh;
// where it crashed, it is hashed. It ends the doubt.
func (s *Store) settle() {
	end := s.doubt.Load() // there is one, and all of it was looked at
	var hashed, wrong int
	for e, err := range s.All() {
		select {
		case <-s.stop:
			return
		default:
		}
		if err != nil {
			s.o.Log.Warn("content can't be listed", "dir", s.path, "err", err)
			end = false
			continue
		}
		if !s.unmarked(e.Digest) {
			continue
		}
		if !s.doubt.Load() {
			s.mu.Lock()
			s.fresh[e.Digest] = struct{}{}
			s.mu.Unlock()
			continue
		}
		hashed++
		switch err := s.verify(e.Digest); {
		case errors.Is(err, errStopped):
			return
		case errors.Is(err, cache.ErrNotFound):
			wrong++
		case err != nil:
			s.o.Log.Warn("content can't be hashed", "dir", s.path, "digest", e.Digest, "err", err)
			end = false
		}
	}
	if !end {
		return
	}
	if err := s.Sync(); err != nil {
		s.o.Log.Error("cache folder could not be synced", "dir", s.path, "err", err)
		return
	}
	// What was suspect is on disk now, with a mark or, where there are none, by this sync: it is of this boot.
	if err := s.note(boot{Boot: s.boot}); err != nil {
		s.o.Log.Warn("note about this start can't be written", "dir", s.path, "err", err)
		return
	}
	s.doubt.Store(false)
	s.mu.Lock()
	clear(s.sound)
	s.mu.Unlock()
	if hashed > 0 {
		s.o.Log.Info("content was hashed after a crash of the machine", "dir", s.path, "hashed", hashed, "removed", wrong)
	}
}

func (s *Store) unmarked(d oci.Digest) bool {
	name, err := blobPath(d)
	if err != nil {
		return false
	}
	o, err := s.openFile(name)
	if err != nil {
		return false
	}
	defer o.Close()
	return !marked(o.File)
}

// Sync brings everything committed so far to the disk and marks it. If that fails, what was not on disk yet is removed:
// the kernel forgets which bytes it could not write, and reads would not tell. It runs by itself every Options.Sync.
func (s *Store) Sync() error {
	s.promoting.Lock()
	defer s.promoting.Unlock()
	s.mu.Lock()
	batch := s.fresh
	s.fresh = make(map[oci.Digest]struct{})
	s.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if err := s.syncFS(s.dir); err != nil {
		for d := range batch {
			if rerr := s.Remove(d); rerr != nil {
				s.o.Log.Warn("content that may not be on disk can't be removed", "dir", s.path, "digest", d, "err", rerr)
			}
		}
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	for d := range batch {
		if s.noMarks.Load() {
			break
		}
		name, err := blobPath(d)
		if err != nil {
			continue
		}
		if o, err := s.openFile(name); err == nil {
			s.mark(o.File)
			_ = o.Close()
		}
	}
	return nil
}
