package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// spool is a sparse file on its way to become content.
type spool struct {
	*os.File
	s        *Store
	size     int64 // as declared; -1: not known
	failures int   // Store.failures when it was made

	mu        sync.RWMutex // guards the fields below, and the name against calls that open it
	name      string       // in the root; empty: the file is removed
	committed bool
	discarded bool
	kept      bool // for the next process: Discard does not remove it
}

var (
	_ cache.Spool     = (*spool)(nil)
	_ cache.Allocator = (*spool)(nil)
)

// Create makes a spool. It takes no space yet: see Allocate.
func (s *Store) Create(size int64) (cache.Spool, error) {
	name := rand.Text()
	s.spools.use(name)
	p := s.newSpool(path.Join(spoolDir, name), size)
	f, err := s.folder.root.OpenFile(p.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) && s.folder.make(spoolDir) == nil { // the folder was removed
		f, err = s.folder.root.OpenFile(p.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		s.spools.release(p.name)
		return nil, fmt.Errorf("make spool: %w", err)
	}
	p.File = f
	point.Hit("disk/spooled")
	return p, nil
}

// newSpool makes a spool without its file.
func (s *Store) newSpool(name string, size int64) *spool {
	s.naming.RLock()
	defer s.naming.RUnlock()
	return &spool{s: s, size: size, name: name, failures: s.failures}
}

// Allocate implements cache.Allocator.
func (p *spool) Allocate(off, n int64) error {
	if n <= 0 {
		return nil
	}
	if err := p.s.folder.root.Allocate(p.File, off, n); err != nil {
		return fmt.Errorf("take %d bytes of the disk for a spool: %w", n, err)
	}
	point.Hit("disk/allocated")
	return nil
}

func (p *spool) ReadAt(b []byte, off int64) (int, error) {
	return p.s.folder.root.ReadAt(p.File, b, off)
}

func (p *spool) WriteAt(b []byte, off int64) (int, error) {
	return p.s.folder.root.WriteAt(p.File, b, off)
}

// Open returns the spool's bytes with a file position of their own.
func (p *spool) Open() (cache.Object, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.name == "" || p.discarded {
		return nil, fmt.Errorf("open spool: %w", fs.ErrClosed)
	}
	o, err := p.s.folder.open(p.name)
	if err != nil {
		return nil, err
	}
	if p.size >= 0 {
		o.size = p.size
	}
	return o, nil
}

// Park does nothing: what the disk was asked for stays.
func (p *spool) Park() {}

// Commit gives the file its digest's name. If that content is there already the spool is dropped. On an error nothing
// is visible and the spool is dropped.
func (p *spool) Commit(d oci.Digest, size int64) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.committed || p.kept || p.name == "" {
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
	point.Hit("disk/commit")
	if err := p.trim(size); err != nil {
		return err
	}
	point.Hit("disk/trimmed")
	// Under strict durability what is there already may not be on disk yet: this one replaces it.
	if !p.s.o.Strict && p.s.has(d, name, size) {
		p.drop()
		p.name, p.committed = name, true
		return nil
	}
	if err := p.s.boot.ensure(); err != nil {
		return err
	}
	if err := p.s.folder.makeAll(path.Dir(name)); err != nil {
		return err
	}
	point.Hit("disk/folder")
	if p.s.o.Strict {
		// The mark comes first: one sync covers it, and a crash in between leaves a spool, which is swept.
		p.s.folder.mark(p.File)
		if err := p.s.folder.root.Sync(p.File); err != nil {
			return err
		}
		point.Hit("disk/synced")
	}
	if err := p.rename(d, name); err != nil {
		return err
	}
	point.Hit("disk/renamed")
	if p.s.o.Strict {
		if err := p.s.folder.sync(path.Dir(name)); err != nil {
			p.name = ""
			p.s.contents.queueRemovals(digests{d: {}})
			p.s.removeQueued(slog.LevelWarn)
			return err
		}
		point.Hit("disk/folder-synced")
	}
	p.committed = true
	return nil
}

var errLost = errors.New("a sync of the disk failed while it was written, bytes may be lost")

// sound returns why the spool's bytes may not be kept, or nil. The caller holds naming, so that no sync fails meanwhile.
func (p *spool) sound() error {
	switch {
	case p.s.closed:
		return fs.ErrClosed
	case p.failures != p.s.failures:
		return errLost
	}
	return nil
}

// rename gives the spool its name as content.
func (p *spool) rename(d oci.Digest, name string) error {
	p.s.naming.RLock()
	defer p.s.naming.RUnlock()
	if err := p.sound(); err != nil {
		return err
	}
	if err := p.s.folder.root.Rename(p.name, name); err != nil {
		return err
	}
	p.s.spools.release(p.name)
	p.name = name
	p.s.contents.commit(d, p.s.o.Strict)
	return nil
}

// trim checks that the file has size bytes, and gives back what was allocated behind them.
func (p *spool) trim(size int64) error {
	fi, err := p.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < size {
		return fmt.Errorf("spool holds %d bytes, expected %d", fi.Size(), size)
	}
	if fi.Size() > size || p.size > size {
		return p.s.folder.root.Truncate(p.File, size)
	}
	return nil
}

// drop takes the file's name away. The lock is held.
func (p *spool) drop() {
	if p.name == "" {
		return
	}
	p.s.spools.remove(p.name)
	p.name = ""
}

// Discard ends the spool. Unless it was committed or kept, its file is removed.
func (p *spool) Discard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discarded {
		return nil
	}
	p.discarded = true
	if !p.committed && !p.kept {
		p.drop()
	}
	return p.Close()
}

// has reports whether the content is stored already, and can be served.
func (s *Store) has(d oci.Digest, name string, size int64) bool {
	o, err := s.folder.open(name)
	if err != nil {
		return false
	}
	defer o.Close()
	return o.size == size && !s.contents.isRemoved(d) && !s.isSuspect(d, o.File)
}
