package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// errStopped ends a hash.
var errStopped = errors.New("the cache folder is being closed")

// isSuspect reports whether content must be hashed before it is served.
func (s *Store) isSuspect(d oci.Digest, f *os.File) bool {
	return s.contents.suspect.Load() && !s.contents.isVerified(d) && !s.folder.root.Marked(f)
}

// verify hashes suspect content, once for all concurrent callers. Damaged content is removed.
func (s *Store) verify(d oci.Digest) error {
	_, _, err := s.verifying.Do(context.Background(), d, func(context.Context) (struct{}, error) {
		err := s.rehash(d)
		if err == nil {
			s.contents.verify(d)
		}
		return struct{}{}, err
	})
	return err
}

func (s *Store) rehash(d oci.Digest) error {
	o, name, err := s.folder.openBlob(d)
	if err != nil {
		return err
	}
	defer o.Close()
	if !s.isSuspect(d, o.File) {
		return nil // hashed by a call that has just ended
	}
	point.Hit("disk/suspect")
	s.folder.root.Uncache(o.File) // what counts is what the disk has
	got, err := s.folder.hash(o, d, s.folder.root.ReadAt, func(int) error {
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
	s.folder.report(slog.LevelWarn, "content was not all on disk when the mirror or its machine stopped; it is removed and "+
		"fetched again", "digest", d, "size", o.size, "error", err)
	if err := s.removeDamaged(name, o); err != nil {
		return fmt.Errorf("remove damaged %s: %w", d, err)
	}
	point.Hit("disk/suspect-removed")
	return fmt.Errorf("%s was damaged: %w", d, cache.ErrNotFound)
}

// removeDamaged removes a file that was found damaged, unless another one has its name by now.
func (s *Store) removeDamaged(name string, o *Object) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	return s.folder.removeFile(name, o)
}

// checkUnmarked looks at all content after a stop without Close. Where the machine went on, what has no mark is only fresh;
// where it crashed, it is hashed. When all is hashed and synced, nothing is suspect any more.
func (s *Store) checkUnmarked() {
	whole := s.contents.suspect.Load() // nothing suspect was left out
	var hashed, damaged int
	for e, err := range s.All() {
		select {
		case <-s.stop:
			return
		default:
		}
		if err != nil {
			s.folder.report(slog.LevelWarn, "content can't be listed", "error", err)
			whole = false
			continue
		}
		unmarked, err := s.isUnmarked(e.Digest)
		if err != nil {
			s.folder.report(slog.LevelWarn, "content can't be opened", "digest", e.Digest, "error", err)
			whole = false
			continue
		}
		if !unmarked {
			continue
		}
		if !s.contents.suspect.Load() {
			s.contents.addFresh(e.Digest)
			continue
		}
		hashed++
		switch err := s.verify(e.Digest); {
		case errors.Is(err, errStopped):
			return
		case errors.Is(err, cache.ErrNotFound):
			damaged++
		case err != nil:
			s.folder.report(slog.LevelWarn, "content can't be hashed", "digest", e.Digest, "error", err)
			whole = false
		}
	}
	if !whole {
		return
	}
	if err := s.Sync(); err != nil {
		s.folder.report(slog.LevelError, "cache folder could not be synced", "error", err)
		return
	}
	if s.contents.removing.Load() {
		return
	}
	point.Hit("disk/settled")
	// What was suspect is on disk now, with a mark or, where there are none, by this sync: it is of this boot.
	if err := s.boot.change(boot{Boot: s.bootID}); err != nil {
		s.folder.report(slog.LevelWarn, "the record of this start can't be written; content is hashed again after the next stop "+
			"that is not in order", "error", err)
		return
	}
	s.contents.trust()
	if hashed > 0 {
		s.folder.report(slog.LevelInfo, "content that may not have been on disk was hashed", "count", hashed, "removed", damaged)
	}
}

// isUnmarked reports whether content is there and has no mark.
func (s *Store) isUnmarked(d oci.Digest) (bool, error) {
	o, _, err := s.folder.openBlob(d)
	if errors.Is(err, cache.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer o.Close()
	return !s.folder.root.Marked(o.File), nil
}
