package disk

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// A stop in order leaves unfinished downloads to the next process:
//
//	Keep ──> spool/<random>.json beside the spool ──> Close: syncfs, then boot.json says clean ──> Open ──> Resume
//
// The record costs no sync of its own: it and the bytes that it speaks of are on disk before the note that the stop was
// in order, and without that note nothing is taken up. After a crash what is in the spool may be anything, and range
// requests are served out of it before a digest could tell: then all of it is swept.

// recordSuffix is what the name of a record ends with. Names of spools have no dot.
const recordSuffix = ".json"

// recordMost is how long a record may be: an extent takes some 30 bytes, and a blob has one for each 4 MiB at most.
const recordMost = 4 << 20

// record is what is known of a spool.
type record struct {
	Digest oci.Digest `json:"digest"`
	Size   int64      `json:"size"` // of the blob; -1: not known
	Have   [][2]int64 `json:"have"` // extents, from and to
	Until  time.Time  `json:"until"`
	Hashed int64      `json:"hashed"`
	Sum    string     `json:"sum"`  // hex, of the first Hashed bytes
	File   int64      `json:"file"` // length of the file
}

// left is a spool of the process before.
type left struct {
	name string // in the spool folder
	rest flight.Rest
}

// Keep implements flight.Keeper.
func (p *spool) Keep(r flight.Rest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.committed || p.discarded || p.name == "" {
		return fmt.Errorf("keep spool: %w", fs.ErrClosed)
	}
	fi, err := p.Stat()
	if err != nil {
		return err
	}
	rec := record{
		Digest: r.Digest, Size: r.Size, Until: r.Until.UTC(), Hashed: r.Hashed, Sum: hex.EncodeToString(r.Sum),
		File: fi.Size(),
	}
	for _, x := range r.Have {
		rec.Have = append(rec.Have, [2]int64{x.From, x.To})
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	// No sync may fail from here on and Close not know of it.
	p.s.naming.RLock()
	defer p.s.naming.RUnlock()
	switch {
	case p.s.closed:
		return fs.ErrClosed
	case p.failures != p.s.failures:
		return errLost
	}
	base := path.Base(p.name)
	p.s.uses(base + recordSuffix)
	if err := p.s.writeRecord(p.name+recordSuffix, data); err != nil {
		p.s.unused(base + recordSuffix)
		_ = p.s.root.Remove(p.name + recordSuffix)
		return fmt.Errorf("keep spool: %w", err)
	}
	point.Hit("disk/kept")
	p.kept = true
	p.s.mu.Lock()
	p.s.keeps[base] = p.failures
	p.s.mu.Unlock()
	return nil
}

func (s *Store) writeRecord(name string, data []byte) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = s.root.WriteAt(f, data, 0)
	return errors.Join(err, f.Close())
}

// dropLost removes what was kept before a sync that failed. It is called when nothing is kept any more.
func (s *Store) dropLost() error {
	s.naming.RLock()
	defer s.naming.RUnlock()
	s.mu.Lock()
	var lost []string
	for name, failures := range s.keeps {
		if failures != s.failures {
			lost = append(lost, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range lost {
		for _, name := range []string{name + recordSuffix, name} {
			if err := s.root.Remove(path.Join(spoolDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// findLeft finds what a process that stopped in order has left. All else in the spool folder is swept.
func (s *Store) findLeft() {
	list, err := s.root.ReadDir(spoolDir)
	if err != nil {
		return // sweep tells
	}
	for _, e := range list {
		name, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		rest, err := s.readRecord(name)
		if err != nil {
			s.say(slog.LevelWarn, "an unfinished download of the process before is not gone on with", "name", name,
				"err", err)
			continue
		}
		s.uses(name)
		s.uses(e.Name())
		s.lefts = append(s.lefts, left{name: name, rest: rest})
	}
}

// readRecord reads and checks a record, and that its spool agrees with it.
func (s *Store) readRecord(name string) (r flight.Rest, err error) {
	full := path.Join(spoolDir, name)
	fi, err := s.root.Lstat(full + recordSuffix)
	if err != nil {
		return r, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > recordMost {
		return r, errors.New("its record is none")
	}
	data, err := s.root.ReadFile(full + recordSuffix)
	if err != nil {
		return r, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return r, fmt.Errorf("read its record: %w", err)
	}
	sum, err := hex.DecodeString(rec.Sum)
	if err != nil {
		return r, fmt.Errorf("read its record: %w", err)
	}
	blob, err := blobPath(rec.Digest)
	if err != nil {
		return r, err
	}
	if !rec.Until.After(time.Now()) {
		return r, errors.New("it was kept for long enough")
	}
	r = flight.Rest{Digest: rec.Digest, Size: rec.Size, Until: rec.Until, Hashed: rec.Hashed, Sum: sum}
	for _, x := range rec.Have {
		if x[0] < 0 || x[1] > rec.File {
			return r, fmt.Errorf("its record speaks of bytes %d to %d, of %d", x[0], x[1], rec.File)
		}
		r.Have = append(r.Have, flight.Extent{From: x[0], To: x[1]})
	}
	if fi, err = s.root.Lstat(full); err != nil {
		return r, err
	}
	if !fi.Mode().IsRegular() || fi.Size() != rec.File {
		return r, fmt.Errorf("it has %d bytes, its record speaks of %d", fi.Size(), rec.File)
	}
	if _, err := s.root.Lstat(blob); err == nil {
		return r, errors.New("it is there in full")
	}
	return r, nil
}

// Resume implements cache.Resumer.
func (s *Store) Resume() (list []cache.Unfinished) {
	s.mu.Lock()
	all := s.lefts
	s.lefts = nil
	s.mu.Unlock()
	for _, l := range all {
		u, err := s.resume(l)
		if err != nil {
			s.say(slog.LevelWarn, "an unfinished download of the process before is not gone on with", "name", l.name,
				"err", err)
			s.unused(l.name)
			s.untidy.Store(true)
		} else {
			list = append(list, u)
		}
		// The record is true as long as the spool is there. Without it nothing is kept by mistake.
		if err := s.root.Remove(path.Join(spoolDir, l.name+recordSuffix)); err != nil {
			s.untidy.Store(true)
		}
		s.unused(l.name + recordSuffix)
	}
	return list
}

func (s *Store) resume(l left) (u cache.Unfinished, err error) {
	name := path.Join(spoolDir, l.name)
	seen, err := s.root.Lstat(name)
	if err != nil {
		return u, err
	}
	if !seen.Mode().IsRegular() {
		return u, errors.New("not a regular file")
	}
	f, err := s.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return u, err
	}
	if got, err := f.Stat(); err != nil || !os.SameFile(seen, got) {
		return u, errors.Join(errors.New("it has changed"), err, f.Close())
	}
	p := &spool{File: f, s: s, size: l.rest.Size, name: name}
	s.naming.RLock()
	p.failures = s.failures
	s.naming.RUnlock()
	point.Hit("disk/resumed")
	return cache.Unfinished{Rest: l.rest, Spool: p}, nil
}

// uses says that a name in the spool folder is in use.
func (s *Store) uses(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse[name] = struct{}{}
}
