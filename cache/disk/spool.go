package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// spool is a sparse file on its way to become content.
type spool struct {
	*os.File // ReadAt and WriteAt
	s        *Store
	size     int64 // as declared; -1: not known

	mu        sync.RWMutex // guards what follows: the file's name against who opens it
	name      string       // in the root; empty: nowhere any more
	committed bool
	discarded bool
}

var (
	_ cache.Spool   = (*spool)(nil)
	_ flight.Opener = (*spool)(nil)
)

// Create makes a spool. Where the file system can, the space is taken at once, so that a full disk is known before the
// download and not after.
func (s *Store) Create(size int64) (cache.Spool, error) {
	name := path.Join(spoolDir, rand.Text())
	f, err := s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) && s.folder(spoolDir) == nil { // somebody tidied up
		f, err = s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	if size > 0 {
		if err := allocate(f, size); err != nil {
			_ = f.Close()
			_ = s.root.Remove(name)
			return nil, fmt.Errorf("make spool of %d bytes: %w", size, err)
		}
	}
	return &spool{File: f, s: s, size: size, name: name}, nil
}

// Open returns the spool's bytes with a file position of their own.
func (p *spool) Open() (cache.Object, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.name == "" || p.discarded {
		return nil, fmt.Errorf("open spool: %w", fs.ErrClosed)
	}
	o, err := p.s.openFile(p.name)
	if err != nil {
		return nil, err
	}
	if p.size >= 0 {
		o.size = p.size
	}
	return o, nil
}

// Commit gives the file its digest's name. If that content is there already the spool is dropped. On an error nothing
// is visible and the spool is dropped.
func (p *spool) Commit(d oci.Digest, size int64) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.committed || p.name == "" {
		return fmt.Errorf("commit %s: spool has ended: %w", d, fs.ErrClosed)
	}
	defer func() {
		if err != nil {
			p.drop()
			err = fmt.Errorf("commit %s: %w", d, err)
		}
	}()
	name, err := blobPath(d)
	if err != nil {
		return err
	}
	if err := p.trim(size); err != nil {
		return err
	}
	if p.s.has(d, name, size) {
		p.drop()
		p.name, p.committed = name, true
		return nil
	}
	made, err := p.s.mkdir(path.Dir(name))
	if err != nil {
		return err
	}
	if p.s.o.Strict {
		// The mark comes first: one sync covers it, and a crash in between leaves a spool, which is swept.
		p.s.mark(p.File)
		if err := p.s.syncFile(p.File); err != nil {
			return err
		}
	}
	if err := p.s.root.Rename(p.name, name); err != nil {
		return err
	}
	p.name = name // under which it is dropped, should the sync fail
	if p.s.o.Strict {
		if err := p.s.syncFolders(path.Dir(name), made); err != nil {
			return err
		}
	}
	p.committed = true
	p.s.committed(d)
	return nil
}

// trim checks that what is there is size bytes, and gives back what was allocated behind.
func (p *spool) trim(size int64) error {
	fi, err := p.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < size {
		return fmt.Errorf("spool holds %d bytes, expected %d", fi.Size(), size)
	}
	if fi.Size() > size || p.size > size {
		return p.Truncate(size)
	}
	return nil
}

// drop takes the file's name away. The lock is held.
func (p *spool) drop() {
	if p.name == "" {
		return
	}
	if err := p.s.root.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.s.o.Log.Warn("spool file can't be removed; it is at the next start", "dir", p.s.path, "name", p.name, "err", err)
	}
	p.name = ""
}

// Discard ends the spool. What was not committed is removed.
func (p *spool) Discard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discarded {
		return nil
	}
	p.discarded = true
	if !p.committed {
		p.drop()
	}
	return p.Close()
}

// has reports whether the content is there already, and sound.
func (s *Store) has(d oci.Digest, name string, size int64) bool {
	o, err := s.openFile(name)
	if err != nil {
		return false
	}
	defer o.Close()
	return o.size == size && !s.doubted(d, o.File)
}

// mkdir makes the folder of a blob. It reports whether folders were made.
func (s *Store) mkdir(dir string) (made bool, err error) {
	if _, err := s.root.Lstat(dir); err == nil {
		return false, nil
	}
	if err := s.root.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	return true, nil
}

// syncFolders makes a rename into dir durable, and dir itself where it is new.
func (s *Store) syncFolders(dir string, made bool) error {
	for {
		f, err := s.root.Open(dir)
		if err != nil {
			return err
		}
		err = s.syncFile(f)
		_ = f.Close()
		if err != nil || !made || dir == "." {
			return err
		}
		dir = path.Dir(dir)
	}
}
