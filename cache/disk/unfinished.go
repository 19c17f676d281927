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

// A clean stop leaves unfinished downloads to the next process:
//
//	Keep ──> spool/<random>.json beside the spool ──> Close: syncfs, then boot.json says clean ──> Open ──> Resume
//
// The record costs no sync of its own: it and the bytes of the spool are on disk before boot.json says that the stop was in
// order, and without that nothing is resumed. After a crash a spool may hold anything, and range requests are served from it
// before its digest is known: then all spools are removed.

// recordSuffix is the end of a record's name. Names of spools have no dot.
const recordSuffix = ".json"

// maxRecord is how many bytes a record may have: an extent takes some 30, and a blob has one for each 4 MiB at most.
const maxRecord = 4 << 20

// record is the description of a spool.
type record struct {
	Digest oci.Digest `json:"digest"`
	Size   int64      `json:"size"` // of the blob; -1: not known
	Have   [][2]int64 `json:"have"` // extents, from and to
	Until  time.Time  `json:"until"`
	Hashed int64      `json:"hashed"`
	Sum    string     `json:"sum"`  // hex, of the first Hashed bytes
	File   int64      `json:"file"` // length of the file
}

// leftover is a spool of the process before.
type leftover struct {
	name string // in the spool folder
	rest flight.Rest
}

// Keep leaves the spool to the next process, with a record.
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
	// From here on no sync may fail without Close knowing of it.
	p.s.naming.RLock()
	defer p.s.naming.RUnlock()
	if err := p.sound(); err != nil {
		return err
	}
	record := p.name + recordSuffix
	p.s.spools.use(record)
	if err := p.s.spools.writeRecord(record, data); err != nil {
		p.s.spools.release(record)
		_ = p.s.folder.root.Remove(record)
		return fmt.Errorf("keep spool: %w", err)
	}
	point.Hit("disk/kept")
	p.kept = true
	p.s.spools.kept.Store(true)
	return nil
}

func (s *spools) writeRecord(name string, data []byte) error {
	f, err := s.folder.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = s.folder.root.WriteAt(f, data, 0)
	return errors.Join(err, f.Close())
}

// findLeftovers finds the unfinished downloads of a process that stopped cleanly. All else in the spool folder is swept.
func (s *spools) findLeftovers() {
	list, err := s.folder.root.ReadDir(spoolDir)
	if err != nil {
		return // sweep reports it
	}
	for _, e := range list {
		name, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		rest, err := s.readRecord(name)
		if err != nil {
			s.reportDropped(name, err)
			continue
		}
		s.use(name)
		s.use(e.Name())
		s.leftovers = append(s.leftovers, leftover{name: name, rest: rest})
	}
}

func (s *spools) reportDropped(name string, err error) {
	s.folder.report(slog.LevelWarn, "an unfinished download of the process before is not resumed", "name", name, "error", err)
}

// readRecord reads and checks a record, and that its spool agrees with it.
func (s *spools) readRecord(name string) (r flight.Rest, err error) {
	full := path.Join(spoolDir, name)
	fi, err := s.folder.root.Lstat(full + recordSuffix)
	if err != nil {
		return r, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxRecord {
		return r, errors.New("its record is not a file of that kind")
	}
	data, err := s.folder.root.ReadFile(full + recordSuffix)
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
		return r, errors.New("it is too old")
	}
	r = flight.Rest{Digest: rec.Digest, Size: rec.Size, Until: rec.Until, Hashed: rec.Hashed, Sum: sum}
	for _, x := range rec.Have {
		if x[0] < 0 || x[1] > rec.File {
			return r, fmt.Errorf("its record names bytes %d to %d of %d", x[0], x[1], rec.File)
		}
		r.Have = append(r.Have, flight.Extent{From: x[0], To: x[1]})
	}
	if fi, err = s.folder.root.Lstat(full); err != nil {
		return r, err
	}
	if !fi.Mode().IsRegular() || fi.Size() != rec.File {
		return r, fmt.Errorf("it has %d bytes, its record says %d", fi.Size(), rec.File)
	}
	if _, err := s.folder.root.Lstat(blob); err == nil {
		return r, errors.New("the content is stored by now")
	}
	return r, nil
}

// Resume returns the unfinished downloads of the process before, once.
func (s *Store) Resume() (list []cache.Unfinished) {
	for _, l := range s.spools.takeLeftovers() {
		u, err := s.resume(l)
		if err != nil {
			s.spools.reportDropped(l.name, err)
			s.spools.release(l.name)
			s.spools.untidy.Store(true)
		} else {
			list = append(list, u)
		}
		// The record is true as long as the spool is there. Without it nothing is kept by mistake.
		if err := s.folder.root.Remove(path.Join(spoolDir, l.name+recordSuffix)); err != nil {
			s.spools.untidy.Store(true)
		}
		s.spools.release(l.name + recordSuffix)
	}
	return list
}

// takeLeftovers returns the spools of the process before, once.
func (s *spools) takeLeftovers() []leftover {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.leftovers
	s.leftovers = nil
	return all
}

func (s *Store) resume(l leftover) (u cache.Unfinished, err error) {
	name := path.Join(spoolDir, l.name)
	seen, err := s.folder.root.Lstat(name)
	if err != nil {
		return u, err
	}
	if !seen.Mode().IsRegular() {
		return u, errors.New("not a regular file")
	}
	f, err := s.folder.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return u, err
	}
	if got, err := f.Stat(); err != nil || !os.SameFile(seen, got) {
		return u, errors.Join(errors.New("it has changed"), err, f.Close())
	}
	p := s.newSpool(name, l.rest.Size)
	p.File = f
	point.Hit("disk/resumed")
	return cache.Unfinished{Rest: l.rest, Spool: p}, nil
}
