package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// Options for a Store. The zero value of a field means what its comment says.
type Options struct {
	// Strict syncs every file and its folder in Commit; else one syncfs every 30 s covers all.
	Strict bool
	// Wait is how long Open waits for another process to leave the folder: 1 min; negative: not at all.
	Wait time.Duration
	// Stop ends that wait when it is closed. Nil: only Wait does.
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
	o    Options
	path string
	root *os.Root
	dir  *os.File // the directory itself, for syncfs and statfs
	lock *os.File
	boot string // of the machine, as it runs

	syncFS, syncFile func(*os.File) error // the system's

	stop    chan struct{}
	settled chan struct{} // closed when settle is over
	wg      sync.WaitGroup
	end     sync.Once

	// doubt is true while content without a mark may be from before a crash of the machine.
	doubt     atomic.Bool
	noMarks   atomic.Bool // the file system keeps no extended attributes
	foreign   atomic.Int64
	promoting sync.Mutex // one promote at a time

	mu        sync.Mutex // guards what follows; nothing is called while holding it
	fresh     map[oci.Digest]struct{}
	sound     map[oci.Digest]struct{} // while in doubt: committed or hashed by this process
	verifying map[oci.Digest]*verification
}

var _ cache.Store = (*Store)(nil)

// Open takes the directory into use and makes it if it is not there. Where another process has it, Open waits and then
// returns a *LockedError. What was left in the spool is removed. Close gives the directory back.
func Open(dir string, o Options) (*Store, error) {
	if o.Wait == 0 {
		o.Wait = time.Minute
	}
	if o.Sync == 0 {
		o.Sync = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		o: o, path: dir, boot: bootID(), stop: make(chan struct{}), settled: make(chan struct{}),
		syncFS: syncFS, syncFile: (*os.File).Sync,
		fresh:     make(map[oci.Digest]struct{}),
		sound:     make(map[oci.Digest]struct{}),
		verifying: make(map[oci.Digest]*verification),
	}
	if err := s.open(); err != nil {
		s.release()
		if _, ok := errors.AsType[*LockedError](err); ok {
			return nil, err // says it all
		}
		return nil, fmt.Errorf("open cache folder %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if err := os.MkdirAll(s.path, 0o700); err != nil {
		return err
	}
	if s.root, err = os.OpenRoot(s.path); err != nil {
		return err
	}
	if s.dir, err = s.root.Open("."); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if name := networkFS(s.dir); name != "" {
		s.o.Log.Warn("cache folder is on a network file system, where locks and renames are less reliable; "+
			"a local disk is better", "dir", s.path, "fs", name)
	}
	for _, name := range []string{blobsDir, spoolDir} {
		if err := s.folder(name); err != nil {
			return err
		}
	}
	s.sweep()
	last, err := s.recall()
	if err != nil {
		return err
	}
	// Only content of this very boot is trusted without a mark. The note is changed before the first commit.
	settled := last.Clean || last.Boot != "" && last.Boot == s.boot
	s.doubt.Store(!settled)
	note := boot{Boot: s.boot}
	if !settled {
		note.Boot = last.Boot // until everything from before is hashed
	}
	if err := s.note(note); err != nil {
		return err
	}
	s.wg.Go(func() {
		defer close(s.settled)
		if !last.Clean {
			s.settle()
		}
	})
	s.wg.Go(s.run)
	return nil
}

// folder makes a folder of ours, and refuses anything else in its place.
func (s *Store) folder(name string) error {
	if err := s.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := s.root.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a folder; move it away, or name another cache.dir", name)
	}
	return nil
}

// sweep removes what a former process left in the spool.
func (s *Store) sweep() {
	left, err := fs.ReadDir(s.root.FS(), spoolDir)
	if err != nil {
		s.o.Log.Warn("spool can't be read", "dir", s.path, "err", err)
	}
	for _, e := range left {
		if err := s.root.RemoveAll(path.Join(spoolDir, e.Name())); err != nil {
			s.o.Log.Warn("spool file can't be removed", "dir", s.path, "name", e.Name(), "err", err)
		}
	}
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
				s.o.Log.Error("cache folder could not be synced; what was not on disk yet is dropped, look at the disk",
					"dir", s.path, "err", err)
			}
		}
	}
}

// Close syncs what is fresh, notes that it did, and gives the directory back. Open objects stay readable; spools and
// further calls fail. Closing twice is not an error.
func (s *Store) Close() error {
	var err error
	s.end.Do(func() {
		close(s.stop)
		s.wg.Wait()
		if err = s.Sync(); err == nil && !s.doubt.Load() {
			err = s.note(boot{Boot: s.boot, Clean: true})
		}
		s.release()
	})
	if err != nil {
		return fmt.Errorf("close cache folder %s: %w", s.path, err)
	}
	return nil
}

func (s *Store) release() {
	if s.lock != nil {
		_ = s.lock.Close() // ends the flock
	}
	if s.dir != nil {
		_ = s.dir.Close()
	}
	if s.root != nil {
		_ = s.root.Close()
	}
}

// Free tells what the file system has left for us.
func (s *Store) Free() (cache.Space, error) {
	sp, err := space(s.dir)
	if err != nil {
		return cache.Space{}, fmt.Errorf("free space of %s: %w", s.path, err)
	}
	return sp, nil
}
