package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/point"
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
	root volume
	dir  *os.File // the directory itself, for syncfs and statfs
	lock *os.File
	boot string // of the machine, as it runs

	stop    chan struct{}
	settled chan struct{} // closed when settle is over
	wg      sync.WaitGroup
	end     sync.Once

	// doubt is true while content without a mark may be from before a crash of the machine.
	doubt    atomic.Bool
	noMarks  atomic.Bool // the file system keeps no extended attributes
	untidy   atomic.Bool // something is left in the spool that could not be removed
	buried   atomic.Bool // dead is not empty
	foreign  atomic.Int64
	scrubbed scrubbed

	// Locks are taken in this order: promoting, naming, noting, mu.
	promoting sync.Mutex // one sync at a time

	// naming is held to read by who gives content its name, until that is in fresh, and to write by who relies on a
	// name and fresh to agree. It guards what follows.
	naming   sync.RWMutex
	failures int // of syncs: what was being written at that time may have lost bytes
	closed   bool

	noting   sync.Mutex // guards boot.json, and what follows
	promised boot       // what boot.json says, or has to before anything is committed
	noted    atomic.Bool

	mu        sync.Mutex // guards what follows; nothing is called while holding it
	fresh     map[oci.Digest]struct{}
	sound     map[oci.Digest]struct{} // while in doubt: committed or hashed by this process
	dead      map[oci.Digest]struct{} // to be removed, and not there for anybody until then
	kept      map[string]struct{}     // folders whose own names are known to be on disk, under strict durability
	inUse     map[string]struct{}     // names in the spool folder
	lefts     []left                  // spools of the process before, for Resume
	keeps     map[string]int          // spools for the next process, and the failures by then
	verifying map[oci.Digest]*verification
}

var (
	_ cache.Store   = (*Store)(nil)
	_ cache.Resumer = (*Store)(nil)
	_ cache.Checker = (*Store)(nil)
)

// Open takes the directory into use and makes it if it is not there. Where another process has it, Open waits and then
// returns a *LockedError. What was left in the spool is removed, but for unfinished downloads that a process left which
// stopped in order: those are for Resume. Close gives the directory back.
func Open(dir string, o Options) (*Store, error) { return openOn(dir, o, openSystem, bootID()) }

// openOn is Open on a volume, at a boot of the machine.
func openOn(dir string, o Options, on func(dir string) (volume, error), boot string) (*Store, error) {
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
		o: o, path: dir, boot: boot, stop: make(chan struct{}), settled: make(chan struct{}),
		fresh:     make(map[oci.Digest]struct{}),
		sound:     make(map[oci.Digest]struct{}),
		dead:      make(map[oci.Digest]struct{}),
		kept:      make(map[string]struct{}),
		inUse:     make(map[string]struct{}),
		keeps:     make(map[string]int),
		verifying: make(map[oci.Digest]*verification),
	}
	if err := s.open(on); err != nil {
		s.release()
		if _, ok := errors.AsType[*LockedError](err); ok {
			return nil, err // says it all
		}
		return nil, fmt.Errorf("open cache folder %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open(on func(dir string) (volume, error)) (err error) {
	if err := makeFolder(s.path); err != nil {
		return err
	}
	if s.root, err = on(s.path); err != nil {
		return err
	}
	if s.dir, err = s.root.Open("."); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	s.strangers()
	if name := networkFS(s.dir); name != "" {
		s.o.Log.Warn("cache folder is on a network file system, where locks and renames are less reliable; "+
			"a local disk is better", "dir", s.path, "fs", name)
	}
	for _, name := range []string{blobsDir, spoolDir} {
		if err := s.folder(name); err != nil {
			return err
		}
	}
	last := s.recall()
	if last.Clean {
		s.findLeft()
	}
	s.sweep()
	// Where there are marks, what has none is not known to be on disk. That the machine runs on is no proof: a disk that
	// failed may have been mounted anew since. The note is changed before the first commit.
	s.mark(s.lock)
	settled := last.Clean || s.noMarks.Load() && last.Boot != "" && last.Boot == s.boot
	s.promised = boot{Boot: s.boot}
	if !settled {
		s.promised.Boot = last.Boot // until everything from before is hashed
	}
	if err := s.begin(); err != nil {
		s.o.Log.Warn("note about this start can't be written: the disk of the cache folder is full, read-only or fails; "+
			"nothing is cached until it can", "dir", s.path, "err", err)
		// Such a disk may have lost what the process before could neither sync nor remove.
		settled = last.Clean
	}
	s.doubt.Store(!settled)
	s.wg.Go(func() {
		defer close(s.settled)
		if !last.Clean {
			s.settle()
		}
	})
	s.wg.Go(s.run)
	return nil
}

// makeFolder makes a folder, and those above it. The names of new ones are brought to the disk.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	above := filepath.Dir(filepath.Clean(dir))
	if above != dir {
		if err := makeFolder(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(above)
	if err != nil {
		return nil // a folder that may be passed and not read: it is as lasting as it gets
	}
	defer f.Close()
	_ = f.Sync()
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
		s.naming.Lock()
		s.closed = true
		s.naming.Unlock()
		// Whatever is fresh: a start that was cut short has not looked at what the process before left.
		if err = s.sync(true); err == nil {
			err = s.dropLost()
		}
		if err == nil && !s.doubt.Load() && !s.buried.Load() {
			point.Hit("disk/closing")
			err = s.note(boot{Boot: s.boot, Clean: true})
			point.Hit("disk/clean")
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

// Check implements cache.Checker: the folder is where it was, and may be written to.
func (s *Store) Check() error {
	is, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("look at the cache folder: %w", err)
	}
	was, err := s.dir.Stat()
	if err != nil {
		return fmt.Errorf("look at the cache folder: %w", err)
	}
	if !os.SameFile(is, was) {
		return fmt.Errorf("look at the cache folder: another one is in its place: %w", fs.ErrNotExist)
	}
	if readOnly(s.dir) {
		return &fs.PathError{Op: "write to", Path: s.path, Err: syscall.EROFS}
	}
	return nil
}

// Free tells what the file system has left for us.
func (s *Store) Free() (cache.Space, error) {
	sp, err := space(s.dir)
	if err != nil {
		return cache.Space{}, fmt.Errorf("free space of %s: %w", s.path, err)
	}
	return sp, nil
}

// SpaceAt is what there is on the disk that a folder is on, or would be on once it is made.
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
