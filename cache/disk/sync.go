package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// Sync brings everything committed so far to the disk and marks it. If that fails, what was not on disk yet is removed:
// the kernel forgets which bytes it could not write, and reads would not tell. It runs by itself every Options.Sync.
func (s *Store) Sync() error { return s.sync(false) }

// sync is Sync. Where nothing is fresh it does nothing, unless it always shall.
func (s *Store) sync(always bool) error {
	s.promoting.Lock()
	defer s.promoting.Unlock()
	s.tidy()
	s.mu.Lock()
	batch := s.fresh
	s.fresh = make(map[oci.Digest]struct{})
	s.mu.Unlock()
	if len(batch) == 0 && !always {
		return nil
	}
	point.Hit("disk/sync")
	if err := s.root.SyncFS(s.dir); err != nil {
		s.lose(batch)
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	point.Hit("disk/syncfs")
	for d := range batch {
		if s.noMarks.Load() {
			break
		}
		s.promote(d)
	}
	return nil
}

// promote marks content that a sync has covered.
func (s *Store) promote(d oci.Digest) {
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.Lock()
	_, again := s.fresh[d]
	s.mu.Unlock()
	if again {
		return // committed anew since, and not covered
	}
	name, err := blobPath(d)
	if err != nil {
		return
	}
	if o, err := s.openFile(name); err == nil {
		s.mark(o.File)
		point.Hit("disk/marked")
		_ = o.Close()
	}
}

// lose takes away what a failed sync has left open, which is all that was written since the last: what is in batch,
// what was committed since, and what is in the spool.
func (s *Store) lose(batch map[oci.Digest]struct{}) {
	s.naming.Lock()
	s.failures++
	s.mu.Lock()
	maps.Copy(batch, s.fresh)
	clear(s.fresh)
	s.mu.Unlock()
	s.condemn(slices.Collect(maps.Keys(batch))...)
	s.naming.Unlock()
	s.bury(slog.LevelWarn)
	if !s.buried.Load() {
		return
	}
	// A process that comes after this one must not trust what is left, though the machine has not crashed.
	if err := s.promise(boot{}); err != nil {
		s.o.Log.Warn("note that content may be damaged can't be written; it is tried again", "dir", s.path, "err", err)
	}
}

// condemn takes content away at once from whoever asks for it; bury removes it.
func (s *Store) condemn(list ...oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		s.dead[d] = struct{}{}
		delete(s.sound, d)
	}
	s.buried.Store(len(s.dead) > 0)
}

// bury removes what is dead. What can't be removed stays so.
func (s *Store) bury(l slog.Level) {
	s.mu.Lock()
	list := maps.Clone(s.dead)
	s.mu.Unlock()
	for d := range list {
		if err := s.buryOne(d); err != nil {
			s.say(l, "content that may not be on disk can't be removed; it is not served", "digest", d, "err", err)
			l = slog.LevelDebug // one stands for all
		}
	}
	s.mu.Lock()
	s.buried.Store(len(s.dead) > 0)
	s.mu.Unlock()
}

func (s *Store) buryOne(d oci.Digest) error {
	s.naming.Lock() // so that nobody commits it meanwhile
	defer s.naming.Unlock()
	if !s.isDead(d) {
		return nil
	}
	name, err := blobPath(d)
	if err == nil {
		err = s.root.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.dead, d)
	s.mu.Unlock()
	return nil
}

// isDead reports whether content is only there because it can't be removed. It costs a hit nothing while all is well.
func (s *Store) isDead(d oci.Digest) bool {
	if !s.buried.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.dead[d]
	return ok
}

// tidy tries again what could not be done: to remove what is dead or left in the spool, and to write boot.json.
func (s *Store) tidy() {
	if s.buried.Load() {
		s.bury(slog.LevelDebug)
	}
	if s.untidy.Swap(false) {
		s.sweepAt(slog.LevelDebug)
	}
	if err := s.begin(); err != nil {
		s.say(slog.LevelDebug, "note can't be written", "err", err)
	}
}

// sweep removes what nobody uses from the spool: what a former process left, and what could not be removed before.
func (s *Store) sweep() { s.sweepAt(slog.LevelWarn) }

func (s *Store) sweepAt(l slog.Level) {
	left, err := s.root.ReadDir(spoolDir)
	if err != nil {
		s.untidy.Store(!errors.Is(err, fs.ErrNotExist))
		s.say(l, "spool can't be read", "err", err)
	}
	for _, e := range left {
		s.mu.Lock()
		_, used := s.inUse[e.Name()]
		s.mu.Unlock()
		if used {
			continue
		}
		if err := s.root.RemoveAll(path.Join(spoolDir, e.Name())); err != nil {
			s.untidy.Store(true)
			s.say(l, "spool file can't be removed; it is tried again", "name", e.Name(), "err", err)
			l = slog.LevelDebug // one stands for all
		}
		point.Hit("disk/swept")
	}
}

// syncFolder makes the names in a folder durable, and its own and those above it where they are not known to be.
func (s *Store) syncFolder(dir string) error {
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	err = s.root.Sync(f)
	_ = f.Close()
	if err != nil || dir == "." {
		return err
	}
	s.mu.Lock()
	_, known := s.kept[dir]
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := s.syncFolder(path.Dir(dir)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[dir] = struct{}{}
	return nil
}
