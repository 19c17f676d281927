package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// Sync brings everything committed so far to the disk and marks it. If that fails, what was not on disk yet is removed:
// the kernel forgets which bytes it could not write, and reads would not tell. It runs by itself every Options.Sync.
func (s *Store) Sync() error { return s.sync(false) }

// sync is Sync. Where nothing is fresh it syncs only if always is set.
func (s *Store) sync(always bool) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.retry()
	batch := s.contents.takeFresh()
	if len(batch) == 0 && !always {
		return nil
	}
	point.Hit("disk/sync")
	if err := s.folder.root.SyncFS(s.folder.self); err != nil {
		s.removeUnsynced(batch)
		return fmt.Errorf("sync %s: %w", s.folder.path, err)
	}
	point.Hit("disk/syncfs")
	for d := range batch {
		if s.folder.noMarks.Load() {
			break
		}
		s.markSynced(d)
	}
	return nil
}

// markSynced marks content that a sync has covered.
func (s *Store) markSynced(d oci.Digest) {
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.contents.isFresh(d) {
		return // committed again since, and not covered
	}
	if o, _, err := s.folder.openBlob(d); err == nil {
		s.folder.mark(o.File)
		point.Hit("disk/marked")
		_ = o.Close()
	}
}

// removeUnsynced removes what a failed sync may have lost, which is all that was written since the last: the content of
// the batch, what was committed since, and what is in the spool.
func (s *Store) removeUnsynced(batch digests) {
	s.naming.Lock()
	s.failures++
	s.spools.lost.Store(s.spools.kept.Load())
	maps.Copy(batch, s.contents.takeFresh())
	s.contents.queueRemovals(batch)
	s.naming.Unlock()
	s.removeQueued(slog.LevelWarn)
	if !s.contents.removing.Load() {
		return
	}
	// A process that comes after this one must not trust what is left, though the machine has not crashed.
	if err := s.boot.change(boot{}); err != nil {
		s.folder.report(slog.LevelWarn, "the record that content may be damaged can't be written; tried again later", "error", err)
	}
}

// removeQueued removes the files of content that is to be removed. What can't be removed stays queued.
func (s *Store) removeQueued(l slog.Level) {
	for _, d := range s.contents.queuedRemovals() {
		if err := s.removeOne(d); err != nil {
			s.folder.report(l, "content that may not be on disk can't be removed; it is not served", "digest", d, "error", err)
			l = slog.LevelDebug // one stands for all
		}
	}
}

func (s *Store) removeOne(d oci.Digest) error {
	s.naming.Lock() // so that it is not committed meanwhile
	defer s.naming.Unlock()
	if !s.contents.isRemoved(d) {
		return nil
	}
	name, err := blobPath(d)
	if err == nil {
		err = s.folder.root.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.contents.remove(d)
	return nil
}

// retry tries again what failed before: to remove content and spool files, and to write boot.json.
func (s *Store) retry() {
	if s.contents.removing.Load() {
		s.removeQueued(slog.LevelDebug)
	}
	s.spools.retry()
	if err := s.boot.ensure(); err != nil {
		s.folder.report(slog.LevelDebug, "the record of this start can't be written", "error", err)
	}
}
