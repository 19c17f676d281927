package recency

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

const (
	// fileName is the name of the index in the cache's folder.
	fileName = "recency.bin"
	// formerName is the name of the index of earlier versions, a bbolt file.
	formerName = "index.db"
	// maxReplaced is how many records may be replaced by later ones, beside as many as there are, before the file is
	// written again.
	maxReplaced = 100_000
	// maxAside is how many files that were set aside are kept.
	maxAside = 3
)

// Index is a cache.Index on a file. Make one with Open; it is safe for concurrent use until Close.
type Index struct {
	path        string
	log         *slog.Logger
	maxReplaced int // maxReplaced; less in tests

	mu      sync.Mutex  // guards the fields below
	file    *os.File    // nil: not open yet, or the disk takes no write
	info    os.FileInfo // of file, when it was opened
	end     int64       // length of the sound part of the file, in bytes
	records int         // in the file
	live    int         // of these, that no later one replaced, when that was last known
	closed  bool
}

var _ cache.Index = (*Index)(nil)

// Open returns the index of a cache's folder. The file is read by Load, and made where there is none. A nil log discards.
func Open(dir string, log *slog.Logger) *Index {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	former := named(dir, formerName)
	for _, name := range former {
		_ = os.Remove(name) // tried again at the next start
	}
	if len(former) > 0 {
		log.Info("removed the index of an earlier version; eviction is less exact until content is used again", "path", former[0])
	}
	return &Index{path: filepath.Join(dir, fileName), log: log, maxReplaced: maxReplaced}
}

// named returns the paths in a folder whose names begin with prefix, in order.
func named(dir, prefix string) (paths []string) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if strings.HasPrefix(e.Name(), prefix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// Close closes the file.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	return x.closeFile()
}

func (x *Index) closeFile() error {
	if x.file == nil {
		return nil
	}
	f := x.file
	x.file = nil
	return f.Close()
}

// Load implements cache.Index.
func (x *Index) Load() (map[oci.Digest]cache.Access, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	all, err := x.load()
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", x.path, err)
	}
	return all, nil
}

func (x *Index) load() (map[oci.Digest]cache.Access, error) {
	all := make(map[oci.Digest]cache.Access)
	apply := func(r record) {
		if r.removed {
			delete(all, r.Digest)
		} else {
			all[r.Digest] = r.Access
		}
	}
	if x.file == nil {
		if err := x.open(apply); err != nil {
			return nil, err
		}
	} else {
		end, _, err := readBatches(x.file, x.end, apply)
		if err == nil && end < x.end {
			err = &damageError{fmt.Errorf("the batch at byte %d is not what was written", end)}
		}
		if err != nil {
			return nil, err
		}
	}
	x.live = len(all)
	return all, nil
}

// Write implements cache.Index. cache.ErrReset in its error says that the file was found damaged and that all that was
// recorded before is lost; the batch is in the new file.
func (x *Index) Write(used []cache.Access, removed []oci.Digest) error {
	b, err := encode(slices.Values(used), removed)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return fmt.Errorf("write index %s: %w", x.path, os.ErrClosed)
	}
	if err := x.write(b); err != nil {
		return fmt.Errorf("write index %s: %w", x.path, err)
	}
	return nil
}

func (x *Index) write(b batches) error {
	if x.file == nil {
		if err := x.open(func(record) {}); err != nil {
			return err
		}
	}
	err := x.append(b)
	if err == nil && x.records > 2*x.live+x.maxReplaced {
		err = x.compact()
	}
	if _, damaged := errors.AsType[*damageError](err); !damaged {
		return err
	}
	if rerr := x.restart(err); rerr != nil {
		return fmt.Errorf("%w: %w", err, rerr)
	}
	if err := x.append(b); err != nil {
		return fmt.Errorf("%w: %w", cache.ErrReset, err)
	}
	return cache.ErrReset
}

// append writes batches behind the others. A part of them that a failed write leaves is written over by the next.
func (x *Index) append(b batches) error {
	if err := x.inPlace(); err != nil {
		return err
	}
	if b.records == 0 {
		return nil
	}
	point.Hit("recency/append")
	_, err := x.file.WriteAt(b.bytes, x.end)
	if err == nil {
		point.Hit("recency/appended")
		err = x.file.Sync()
	}
	if err != nil {
		_ = x.file.Truncate(x.end)
		return err
	}
	point.Hit("recency/synced")
	x.end += int64(len(b.bytes))
	x.records += b.records
	return nil
}

// inPlace is a *damageError where the file is gone, cut, or another one has its name.
func (x *Index) inPlace() error {
	now, err := os.Lstat(x.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && (!os.SameFile(now, x.info) || now.Size() < x.end) {
		return &damageError{errors.New("the file was cut, removed or replaced")}
	}
	return err
}

// compact writes the file again without the records that later ones replace. Its only error is a *damageError: where the
// disk has no room for both, the file stays as it is.
func (x *Index) compact() error {
	all, err := x.load()
	if _, damaged := errors.AsType[*damageError](err); damaged {
		return err
	}
	if err == nil {
		err = x.replace(all)
	}
	if err != nil {
		x.log.Warn("recency index can't be made smaller; tried again when it has doubled", "path", x.path, "error", err)
		x.live = x.records
	}
	return nil
}

// open opens the file, or makes it, and calls apply with its records.
func (x *Index) open(apply func(record)) error {
	_ = os.Remove(x.path + ".tmp") // of a process that was killed
	err := x.openFile(apply)
	if errors.Is(err, os.ErrNotExist) {
		return x.replace(nil)
	}
	if _, damaged := errors.AsType[*damageError](err); damaged {
		return x.restart(err)
	}
	return err
}

func (x *Index) openFile(apply func(record)) error {
	info, err := os.Lstat(x.path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &damageError{errors.New("not a regular file")}
	}
	f, err := os.OpenFile(x.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	end, n, err := readBatches(f, info.Size(), apply)
	if err == nil && end < info.Size() {
		x.log.Warn("the end of the recency index is damaged and cut off; eviction is less exact until content is used again",
			"path", x.path, "bytes", info.Size()-end, "remaining", end)
		err = f.Truncate(end)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	x.file, x.info, x.end, x.records, x.live = f, info, end, n, n
	return nil
}

// restart sets the file aside, because of err, and begins an empty one.
func (x *Index) restart(err error) error {
	_ = x.closeFile()
	aside := x.path + ".bad-" + time.Now().UTC().Format("20060102T150405.000000000")
	if rerr := os.Rename(x.path, aside); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		return fmt.Errorf("set the damaged index aside: %w", rerr)
	}
	point.Hit("recency/aside")
	old := named(filepath.Dir(x.path), fileName+".bad-")
	for _, name := range old[:max(0, len(old)-maxAside)] {
		_ = os.RemoveAll(name)
	}
	x.log.Warn("recency index was damaged and is started again; cached content is not affected", "path", x.path,
		"file", aside, "error", err)
	return x.replace(nil)
}

// replace puts a file with these records in the place of the present one, whole or not at all.
func (x *Index) replace(all map[oci.Digest]cache.Access) error {
	b, err := encode(maps.Values(all), nil)
	if err != nil {
		return err
	}
	tmp := x.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte(magic), b.bytes...))
	if err == nil {
		err = f.Sync()
	}
	info, serr := f.Stat()
	if err = errors.Join(err, serr); err == nil {
		point.Hit("recency/snapshot")
		err = os.Rename(tmp, x.path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(tmp)
		return err
	}
	point.Hit("recency/renamed")
	_ = x.closeFile()
	x.file, x.info, x.end, x.records, x.live = f, info, info.Size(), len(all), len(all)
	return syncFolder(filepath.Dir(x.path))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
