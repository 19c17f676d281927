package disk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
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

// openBlob opens content to read, and returns its name as well.
func (f *folder) openBlob(d oci.Digest) (o *Object, name string, err error) {
	if name, err = blobPath(d); err == nil {
		o, err = f.open(name)
	}
	return o, name, err
}

// open opens a regular file to read. os.Root follows links that stay inside, so the file is looked at before, without
// following, and compared with the one that was opened.
func (f *folder) open(name string) (*Object, error) {
	for range 3 { // a commit may replace the file in between
		seen, err := f.root.Lstat(name)
		if err != nil {
			return nil, missing(name, err)
		}
		if !seen.Mode().IsRegular() {
			f.reportForeign(name)
			return nil, fmt.Errorf("open %s: not a regular file: %w", name, cache.ErrNotFound)
		}
		file, err := f.root.Open(name)
		if err != nil {
			return nil, missing(name, err)
		}
		got, err := file.Stat()
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		if os.SameFile(seen, got) {
			return &Object{File: file, size: got.Size()}, nil
		}
		_ = file.Close()
	}
	return nil, fmt.Errorf("open %s: it changes all the time: %w", name, cache.ErrNotFound)
}

func missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("open %s: %w", name, cache.ErrNotFound)
	}
	return err
}

// firstDigest is the lowest of all digests.
const firstDigest = oci.Digest(digest.SHA256 + ":")

// all yields every piece of content from a digest on, by its digest. Foreign files are left out and logged.
func (f *folder) all(from oci.Digest) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		f.reportForeignBlobs()
		for sub, err := range f.subfolders() {
			if err != nil {
				if !yield(cache.Entry{}, err) {
					return
				}
				continue
			}
			if last := oci.Digest(string(sub.algorithm) + ":" + sub.prefix + "g"); last < from {
				continue
			}
			if !f.allIn(sub, from, yield) {
				return
			}
		}
	}
}

// subfolder is the folder of the content whose digests begin with prefix, two digits.
type subfolder struct {
	algorithm digest.Algorithm
	prefix    string
}

func (s subfolder) path() string { return path.Join(blobsDir, string(s.algorithm), s.prefix) }

// subfolders yields the folders of content, in the order of its digests. An error is of one algorithm's folder.
func (f *folder) subfolders() iter.Seq2[subfolder, error] {
	return func(yield func(subfolder, error) bool) {
		for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			dir := path.Join(blobsDir, string(a))
			list, err := f.root.ReadDir(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !yield(subfolder{}, err) {
				return
			}
			for _, e := range list {
				if b, err := hex.DecodeString(e.Name()); !e.IsDir() || err != nil || len(b) != 1 {
					f.reportForeign(path.Join(dir, e.Name()))
					continue
				}
				if !yield(subfolder{a, e.Name()}, nil) {
					return
				}
			}
		}
	}
}

// allIn yields the content of one folder. It reports whether the caller wants more.
func (f *folder) allIn(in subfolder, from oci.Digest, yield func(cache.Entry, error) bool) bool {
	// A volume of the folder's own saves the walk to it for every file.
	sub, err := f.root.Sub(in.path())
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(cache.Entry{}, err)
	}
	defer sub.Close()
	list, err := sub.ReadDir(".")
	if err != nil && !yield(cache.Entry{}, err) {
		return false
	}
	for _, file := range list {
		e := cache.Entry{Digest: digest.NewDigestFromEncoded(in.algorithm, file.Name())}
		if e.Digest.Validate() != nil || file.Name()[:2] != in.prefix {
			f.reportForeign(path.Join(in.path(), file.Name()))
			continue
		}
		if e.Digest < from {
			continue
		}
		fi, err := sub.Lstat(file.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // removed meanwhile
		case err == nil && !fi.Mode().IsRegular():
			f.reportForeign(path.Join(in.path(), file.Name()))
			continue
		case err == nil:
			e.Size = fi.Size()
		}
		if !yield(e, err) {
			return false
		}
	}
	return true
}

// reportForeignBlobs logs files that don't belong among the folders of the algorithms.
func (f *folder) reportForeignBlobs() {
	list, err := f.root.ReadDir(blobsDir)
	if err != nil {
		return // all fails on it
	}
	for _, e := range list {
		if a := digest.Algorithm(e.Name()); !e.IsDir() || a != digest.SHA256 && a != digest.SHA512 {
			f.reportForeign(path.Join(blobsDir, e.Name()))
		}
	}
}
