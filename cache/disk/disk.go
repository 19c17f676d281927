package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/coalesce"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// Options for a Store. The zero value of a field means what its comment says.
type Options struct {
	// Strict syncs every file and its folder in Commit; else one syncfs every 30 s covers all.
	Strict bool
	// Wait is how long Open waits for another process to leave the folder: 1 min; negative: not at all.
	Wait time.Duration
	// Stop ends that wait when it is closed. Nil: only Wait ends it.
	Stop <-chan struct{}
	// Sync is the time between two syncs of fresh content: 30 s.
	Sync time.Duration
	Log  *slog.Logger // nil: discard
}

const (
	blobsDir = "blobs"
	spoolDir = "spool"
	lockFile = "LOCK"
	bootFile = "boot.json"
)

// Store is a cache.Store on a directory. Make one with Open; it is safe for concurrent use until Close.
type Store struct {
	o      Options
	bootID string // of the machine, as it runs

	folder    *folder
	lock      *os.File // of the folder
	boot      bootRecord
	contents  *contents
	spools    *spools
	scrubbed  scrubbed
	verifying coalesce.Group[oci.Digest, struct{}] // hashes of suspect content

	stop    chan struct{}
	checked chan struct{} // closed when checkUnmarked has ended
	wg      sync.WaitGroup
	end     sync.Once

	// Locks are taken in this order: syncing, naming, those of the parts above.
	syncing sync.Mutex // one sync at a time

	// naming is held to read while content gets its name, until that is in contents, and to write by code that relies on
	// names and contents to agree. It guards the fields below.
	naming   sync.RWMutex
	failures int // of syncs: what was being written at that time may have lost bytes
	closed   bool
}

var _ cache.Store = (*Store)(nil)

// Open takes the directory into use and makes it if it is not there. Where another process has it, Open waits and then
// returns a *LockedError. What was left in the spool is removed, but for unfinished downloads that a process left which
// stopped cleanly: those are for Resume. Close gives the directory back.
func Open(dir string, o Options) (*Store, error) { return openOn(dir, o, openSystem, bootID()) }

// openOn is Open on a volume, at a boot of the machine.
func openOn(dir string, o Options, on func(dir string) (volume, error), bootID string) (*Store, error) {
	o.Wait, o.Sync = cmp.Or(o.Wait, time.Minute), cmp.Or(o.Sync, 30*time.Second)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	s := &Store{
		o: o, bootID: bootID, contents: newContents(), stop: make(chan struct{}), checked: make(chan struct{}),
	}
	err := makeFolder(dir)
	if err == nil {
		s.folder, err = openFolder(dir, on, o.Log)
	}
	if err == nil {
		if err = s.open(); err != nil {
			s.release()
		}
	}
	if _, ok := errors.AsType[*LockedError](err); ok {
		return nil, err // it names the folder
	}
	if err != nil {
		return nil, fmt.Errorf("open cache folder %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	f := s.folder
	s.boot.folder, s.spools = f, newSpools(f)
	if f.self, err = f.root.Open("."); err != nil {
		return err
	}
	if s.lock, err = f.lock(s.o.Wait, s.o.Stop); err != nil {
		return err
	}
	f.warnOfForeign()
	if name := networkFS(f.self); name != "" {
		f.report(slog.LevelWarn, "cache folder is on a network file system, where locks and renames are less reliable; "+
			"a local disk is better", "type", name)
	}
	for _, name := range []string{blobsDir, spoolDir} {
		if err := f.make(name); err != nil {
			return err
		}
	}
	last := s.boot.read()
	if last.Clean {
		s.spools.findLeftovers()
	}
	s.spools.sweep(slog.LevelWarn)
	s.begin(last)
	s.wg.Go(func() {
		defer close(s.checked)
		if !last.Clean {
			s.checkUnmarked()
		}
	})
	s.wg.Go(s.run)
	return nil
}

// begin decides from the record of the process before whether content without a mark is suspect, and writes the record of
// this one. Where there are marks, content without one is not known to be on disk. That the machine runs on proves
// nothing: a disk that failed may have been mounted again since.
func (s *Store) begin(last boot) {
	s.folder.mark(s.lock) // to find out whether there are marks
	trusted := last.Clean || s.folder.noMarks.Load() && last.Boot != "" && last.Boot == s.bootID
	s.boot.want = boot{Boot: s.bootID}
	if !trusted {
		s.boot.want.Boot = last.Boot // until everything from before is hashed
	}
	if err := s.boot.ensure(); err != nil {
		s.folder.report(slog.LevelWarn, "the record of this start can't be written: the disk of the cache folder is full, "+
			"read-only or fails; nothing is cached until it can", "error", err)
		// Such a disk may have lost content that the process before could neither sync nor remove.
		trusted = last.Clean
	}
	s.contents.suspect.Store(!trusted)
}

// run syncs fresh content from time to time.
func (s *Store) run() {
	tick := time.NewTicker(s.o.Sync)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if err := s.Sync(); err != nil {
				s.folder.report(slog.LevelError, "cache folder could not be synced; content that was not on disk yet is dropped: "+
					"check the disk", "error", err)
			}
		}
	}
}

// Close syncs what is fresh, records that it did, and gives the directory back. Open objects stay readable; spools and
// further calls fail. Closing twice is not an error.
func (s *Store) Close() error {
	var err error
	s.end.Do(func() {
		close(s.stop)
		s.wg.Wait()
		s.naming.Lock()
		s.closed = true
		s.naming.Unlock()
		// Whatever is fresh: a start that was cut short has not looked at all content of the process before.
		err = s.sync(true)
		if err == nil && !s.spools.lost.Load() && !s.contents.suspect.Load() && !s.contents.removing.Load() {
			point.Hit("disk/closing")
			err = s.boot.write(boot{Boot: s.bootID, Clean: true})
			point.Hit("disk/clean")
		}
		s.release()
	})
	if err != nil {
		return fmt.Errorf("close cache folder %s: %w", s.folder.path, err)
	}
	return nil
}

func (s *Store) release() {
	if s.lock != nil {
		_ = s.lock.Close() // ends the flock
	}
	s.folder.close()
}

// Open returns the content, as an object that embeds the *os.File, so that the kernel can copy it to a socket. Content
// that is suspect after a crash of the machine is hashed first; concurrent callers share that.
func (s *Store) Open(d oci.Digest) (cache.Object, error) {
	name, err := blobPath(d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cache.ErrNotFound, err)
	}
	if s.contents.isRemoved(d) {
		return nil, fmt.Errorf("open %s: it could not be synced: %w", name, cache.ErrNotFound)
	}
	o, err := s.folder.open(name)
	if err != nil {
		return nil, err
	}
	if !s.isSuspect(d, o.File) {
		return o, nil
	}
	_ = o.Close()
	if err := s.verify(d); err != nil {
		return nil, err
	}
	if o, err = s.folder.open(name); err != nil {
		return nil, err
	}
	return o, nil
}

// Remove takes the content away. Open objects stay readable, since the file lives as long as they do.
func (s *Store) Remove(d oci.Digest) error {
	name, err := blobPath(d)
	if err != nil {
		return nil // it was never stored
	}
	fi, err := s.folder.root.Lstat(name)
	if err != nil {
		if errors.Is(missing(name, err), cache.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("remove %s: %w", d, err)
	}
	if !fi.Mode().IsRegular() {
		s.folder.reportForeign(name)
		return nil
	}
	point.Hit("disk/unlink")
	if err := s.folder.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", d, err)
	}
	point.Hit("disk/unlinked")
	s.contents.remove(d)
	return nil
}

// All yields every piece of content. Foreign files are left out and logged.
func (s *Store) All() iter.Seq2[cache.Entry, error] { return s.folder.all(firstDigest) }

// Check returns why nothing can be stored: the folder is not where it was, or may not be written to.
func (s *Store) Check() error {
	is, err := os.Stat(s.folder.path)
	if err != nil {
		return fmt.Errorf("look at the cache folder: %w", err)
	}
	was, err := s.folder.self.Stat()
	if err != nil {
		return fmt.Errorf("look at the cache folder: %w", err)
	}
	if !os.SameFile(is, was) {
		return fmt.Errorf("look at the cache folder: another one is in its place: %w", fs.ErrNotExist)
	}
	if readOnly(s.folder.self) {
		return &fs.PathError{Op: "write to", Path: s.folder.path, Err: syscall.EROFS}
	}
	return nil
}

// Free tells what the file system has left for the cache.
func (s *Store) Free() (cache.Space, error) {
	sp, err := space(s.folder.self)
	if err != nil {
		return cache.Space{}, fmt.Errorf("free space of %s: %w", s.folder.path, err)
	}
	return sp, nil
}

// SpaceAt is the space of the disk that a folder is on, or would be on once it is made.
func SpaceAt(path string) (cache.Space, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return cache.Space{}, err
	}
	for {
		dir, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
			path = filepath.Dir(path)
			continue
		}
		if err != nil {
			return cache.Space{}, err
		}
		defer dir.Close()
		return space(dir)
	}
}
