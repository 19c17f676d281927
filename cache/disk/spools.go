package disk

import (
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"

	"github.com/registrymirror/mirror/internal/point"
)

// spools is the spool folder: which of its names are in use, and the removal of the others.
type spools struct {
	folder *folder
	untidy atomic.Bool // a file is there that could not be removed
	kept   atomic.Bool // a spool is for the next process
	lost   atomic.Bool // a sync has failed since, so it may lack bytes

	mu        sync.Mutex          // guards the fields below; a leaf
	inUse     map[string]struct{} // names
	leftovers []leftover          // of the process before, for Resume
}

func newSpools(f *folder) *spools {
	return &spools{folder: f, inUse: make(map[string]struct{})}
}

// use says that a name is in use.
func (s *spools) use(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse[path.Base(name)] = struct{}{}
}

// release says that nothing has a name any more, or should have it.
func (s *spools) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse, path.Base(name))
}

// remove takes a spool's name away. What can't be removed is tried again.
func (s *spools) remove(name string) {
	err := s.folder.root.Remove(name)
	s.release(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.untidy.Store(true)
		s.folder.report(slog.LevelWarn, "spool file can't be removed; tried again later", "name", name, "error", err)
	}
}

// sweep removes unused files: those of a former process, and those that could not be removed before.
func (s *spools) sweep(l slog.Level) {
	list, err := s.folder.root.ReadDir(spoolDir)
	if err != nil {
		s.untidy.Store(!errors.Is(err, fs.ErrNotExist))
		s.folder.report(l, "spool folder can't be read", "error", err)
	}
	for _, e := range list {
		s.mu.Lock()
		_, used := s.inUse[e.Name()]
		s.mu.Unlock()
		if used {
			continue
		}
		if err := s.folder.root.RemoveAll(path.Join(spoolDir, e.Name())); err != nil {
			s.untidy.Store(true)
			s.folder.report(l, "spool file can't be removed; tried again later", "name", e.Name(), "error", err)
			l = slog.LevelDebug // one stands for all
		}
		point.Hit("disk/swept")
	}
}

// retry sweeps again where a file could not be removed.
func (s *spools) retry() {
	if s.untidy.Swap(false) {
		s.sweep(slog.LevelDebug)
	}
}
