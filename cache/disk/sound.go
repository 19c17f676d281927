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
	"github.com/registrymirror/mirror/internal/point"
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
func (s *Store) recall() (b boot) {
	data, err := s.root.ReadFile(bootFile)
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return b
	}
	s.o.Log.Warn("note about the last stop can't be read; content is hashed before it is served", "dir", s.path,
		"name", bootFile, "err", err)
	return boot{}
}

// begin sees to it that boot.json promises no more than is true, before anything is committed.
func (s *Store) begin() error {
	if s.noted.Load() {
		return nil
	}
	s.noting.Lock()
	defer s.noting.Unlock()
	if s.noted.Load() {
		return nil
	}
	if err := s.note(s.promised); err != nil {
		return fmt.Errorf("write %s: %w", bootFile, err)
	}
	s.noted.Store(true)
	return nil
}

// promise changes what boot.json says.
func (s *Store) promise(b boot) error {
	s.noting.Lock()
	s.promised = b
	s.noted.Store(false)
	s.noting.Unlock()
	return s.begin()
}

// note writes boot.json, durably.
func (s *Store) note(b boot) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	const tmp = bootFile + ".tmp"
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.root.WriteAt(f, append(data, '\n'), 0); err != nil {
		return err
	}
	if err := s.root.Sync(f); err != nil {
		return err
	}
	point.Hit("disk/note")
	if err := s.root.Rename(tmp, bootFile); err != nil {
		return err
	}
	point.Hit("disk/noted")
	return s.root.Sync(s.dir)
}

// mark marks a file. Where that doesn't work the file stays suspect after a crash, no more.
func (s *Store) mark(f *os.File) {
	err := s.root.Mark(f)
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

// committed notes new content.
func (s *Store) committed(d oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dead, d)
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
	return !ok && !s.root.Marked(f)
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
	point.Hit("disk/suspect")
	s.root.Uncache(o.File) // what counts is what the disk has
	got, err := s.hash(o, d, s.root.ReadAt, func(int) error {
		select {
		case <-s.stop:
			return errStopped
		default:
			return nil
		}
	})
	if errors.Is(err, errStopped) {
		return err
	}
	point.Hit("disk/suspect-hashed")
	if err == nil && got == d {
		return nil
	}
	s.o.Log.Warn("content was not all on disk when the mirror or its machine stopped; it is removed and fetched again",
		"dir", s.path, "digest", d, "size", o.size, "err", err)
	if err := s.removeFile(name, o); err != nil {
		return fmt.Errorf("remove damaged %s: %w", d, err)
	}
	point.Hit("disk/suspect-removed")
	return fmt.Errorf("%s was damaged: %w", d, cache.ErrNotFound)
}

// removeFile removes what was found wrong, unless something else has its name by now.
func (s *Store) removeFile(name string, o *Object) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	now, err := s.root.Lstat(name)
	was, serr := o.Stat()
	if err == nil && serr == nil && !os.SameFile(now, was) {
		return nil
	}
	if err == nil {
		err = s.root.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// errStopped ends a hash.
var errStopped = errors.New("the cache folder is being closed")

// hash reads a file to its end and returns the digest of its bytes, of the kind that d is. next is told how many bytes
// each piece had, and may end it with an error.
func (s *Store) hash(
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

// hashPiece is how many bytes are read at once.
const hashPiece = 256 << 10

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
		unmarked, err := s.unmarked(e.Digest)
		if err != nil {
			s.o.Log.Warn("content can't be looked at", "dir", s.path, "digest", e.Digest, "err", err)
			end = false
			continue
		}
		if !unmarked {
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
	if s.buried.Load() {
		return
	}
	point.Hit("disk/settled")
	// What was suspect is on disk now, with a mark or, where there are none, by this sync: it is of this boot.
	if err := s.promise(boot{Boot: s.boot}); err != nil {
		s.o.Log.Warn("note about this start can't be written", "dir", s.path, "err", err)
		return
	}
	s.doubt.Store(false)
	s.mu.Lock()
	clear(s.sound)
	s.mu.Unlock()
	if hashed > 0 {
		s.o.Log.Info("content that may not have been on disk was hashed", "dir", s.path, "hashed", hashed, "removed", wrong)
	}
}

// unmarked reports whether content is there and has no mark.
func (s *Store) unmarked(d oci.Digest) (bool, error) {
	name, err := blobPath(d)
	if err != nil {
		return false, err
	}
	o, err := s.openFile(name)
	if errors.Is(err, cache.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer o.Close()
	return !s.root.Marked(o.File), nil
}
