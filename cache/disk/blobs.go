package disk

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// blobPath is the only way from a digest to a name. A digest that isn't one, or of an algorithm we don't keep, has no
// path.
func blobPath(d oci.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", string(d), err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", fmt.Errorf("digest %q: only sha256 and sha512 are kept", string(d))
	}
	return path.Join(blobsDir, string(d.Algorithm()), d.Encoded()[:2], d.Encoded()), nil
}

// Open returns the content. What it returns embeds the *os.File, so that the kernel can copy it to a socket. Content
// that is in doubt after a crash of the machine is hashed first; concurrent callers share that.
func (s *Store) Open(d oci.Digest) (cache.Object, error) {
	name, err := blobPath(d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cache.ErrNotFound, err)
	}
	if s.isDead(d) {
		return nil, fmt.Errorf("open %s: it could not be synced: %w", name, cache.ErrNotFound)
	}
	o, err := s.openFile(name)
	if err != nil {
		return nil, err
	}
	if !s.doubted(d, o.File) {
		return o, nil
	}
	_ = o.Close()
	if err := s.verify(d); err != nil {
		return nil, err
	}
	if o, err = s.openFile(name); err != nil {
		return nil, err
	}
	return o, nil
}

// openFile opens a regular file of ours to read. os.Root follows links that stay inside, so the file is looked at
// before, without following, and compared with what was opened.
func (s *Store) openFile(name string) (*Object, error) {
	for range 3 { // a commit may replace the file in between
		seen, err := s.root.Lstat(name)
		if err != nil {
			return nil, missing(name, err)
		}
		if !seen.Mode().IsRegular() {
			s.logForeign(name)
			return nil, fmt.Errorf("open %s: not a regular file: %w", name, cache.ErrNotFound)
		}
		f, err := s.root.Open(name)
		if err != nil {
			return nil, missing(name, err)
		}
		got, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		if os.SameFile(seen, got) {
			return &Object{File: f, size: got.Size()}, nil
		}
		_ = f.Close()
	}
	return nil, fmt.Errorf("open %s: it changes all the time: %w", name, cache.ErrNotFound)
}

func missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("open %s: %w", name, cache.ErrNotFound)
	}
	return err
}

// Remove takes the content away. Open objects stay readable, since the file lives as long as they do.
func (s *Store) Remove(d oci.Digest) error {
	name, err := blobPath(d)
	if err != nil {
		return nil // never was here
	}
	fi, err := s.root.Lstat(name)
	if err != nil {
		if errors.Is(missing(name, err), cache.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("remove %s: %w", d, err)
	}
	if !fi.Mode().IsRegular() {
		s.logForeign(name)
		return nil
	}
	point.Hit("disk/unlink")
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", d, err)
	}
	point.Hit("disk/unlinked")
	s.mu.Lock()
	delete(s.fresh, d)
	delete(s.sound, d)
	delete(s.dead, d)
	s.mu.Unlock()
	return nil
}

// All yields every piece of content. What is foreign is left out and logged.
func (s *Store) All() iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		s.lookForForeign()
		for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			for prefix, err := range s.subfolders(path.Join(blobsDir, string(a))) {
				if err != nil {
					if !yield(cache.Entry{}, err) {
						return
					}
					continue
				}
				if !s.allIn(a, prefix, yield) {
					return
				}
			}
		}
	}
}

// subfolders yields the names of the two-digit folders of dir.
func (s *Store) subfolders(dir string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		list, err := s.root.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !yield("", err) {
			return
		}
		for _, e := range list {
			if b, err := hex.DecodeString(e.Name()); !e.IsDir() || err != nil || len(b) != 1 {
				s.logForeign(path.Join(dir, e.Name()))
				continue
			}
			if !yield(e.Name(), nil) {
				return
			}
		}
	}
}

// allIn yields the content of one folder. It reports whether the caller wants more.
func (s *Store) allIn(a digest.Algorithm, prefix string, yield func(cache.Entry, error) bool) bool {
	dir := path.Join(blobsDir, string(a), prefix)
	// A volume of the folder's own saves the walk to it for every file.
	sub, err := s.root.Sub(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(cache.Entry{}, err)
	}
	defer sub.Close()
	f, err := sub.Open(".")
	if err != nil {
		return yield(cache.Entry{}, err)
	}
	defer f.Close()
	for {
		names, err := sub.Names(f, 1024)
		for _, name := range names {
			d := digest.NewDigestFromEncoded(a, name)
			if d.Validate() != nil || name[:2] != prefix {
				s.logForeign(path.Join(dir, name))
				continue
			}
			fi, err := sub.Lstat(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err == nil && !fi.Mode().IsRegular() {
				s.logForeign(path.Join(dir, name))
				continue
			}
			e := cache.Entry{Digest: d}
			if err == nil {
				e.Size = fi.Size()
			}
			if !yield(e, err) {
				return false
			}
		}
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			return yield(cache.Entry{}, err)
		}
	}
}

// lookForForeign logs what doesn't belong among the folders of the algorithms.
func (s *Store) lookForForeign() {
	list, err := s.root.ReadDir(blobsDir)
	if err != nil {
		return // All fails on it
	}
	for _, e := range list {
		if a := digest.Algorithm(e.Name()); !e.IsDir() || a != digest.SHA256 && a != digest.SHA512 {
			s.logForeign(path.Join(blobsDir, e.Name()))
		}
	}
}

// say logs with the folder's name.
func (s *Store) say(l slog.Level, msg string, args ...any) {
	s.o.Log.Log(context.Background(), l, msg, append(args, "dir", s.path)...)
}

// logForeign tells of something that is not ours; of the first hundred, so that a folder of somebody else's doesn't
// fill the log.
func (s *Store) logForeign(name string) {
	if s.foreign.Add(1) <= 100 {
		s.o.Log.Warn("not a file of the cache: it is ignored; move it away", "dir", s.path, "name", name)
	}
}
