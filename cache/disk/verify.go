package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// Amount is how much content there is, or was read.
type Amount struct{ Blobs, Bytes int64 }

// Damage is a piece of content that is not what its name says.
type Damage struct {
	Digest  oci.Digest
	Size    int64  // bytes of the file
	Why     string // what is wrong: "size: ...", "hash: ..." or "read: ..."
	Removed bool
}

// VerifyOptions for Verify. The zero value of a field means what its comment says.
type VerifyOptions struct {
	Remove   bool                   // damaged content; else it is only reported
	Damaged  func(Damage)           // called for each piece; nil: not called
	Progress func(done, all Amount) // called for each piece of at most 256 KiB; nil: not called
}

// Verified is what a Verify has found.
type Verified struct {
	Amount
	Damaged, Removed int64
}

// Verify reads all content of a cache folder and compares it with its digests, as fast as the disk can. It takes no
// lock, so a mirror may use the folder meanwhile: content never changes, content that is removed meanwhile is passed over, and damaged content that is
// removed is fetched again. When ctx ends it returns what it has found so far, and the cause.
func Verify(ctx context.Context, dir string, o VerifyOptions) (v Verified, err error) {
	f, err := openFolder(dir, openSystem, slog.New(slog.DiscardHandler))
	if err != nil {
		return v, fmt.Errorf("open cache folder: %w", err)
	}
	defer f.close()
	if _, err := f.root.Lstat(blobsDir); errors.Is(err, fs.ErrNotExist) {
		return v, fmt.Errorf("%s is not a cache folder: it has no %s in it", dir, filepath.Base(blobsDir))
	}
	var all Amount
	var unlisted error
	for e, err := range f.all(firstDigest) {
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		if err == nil {
			all.Blobs++
			all.Bytes += e.Size
		}
	}
	for e, err := range f.all(firstDigest) {
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		if err != nil {
			unlisted = errors.Join(unlisted, err)
			continue
		}
		if err := f.verify(ctx, o, e.Digest, &v, all); err != nil {
			return v, err
		}
	}
	if unlisted != nil {
		return v, fmt.Errorf("part of the cache can't be listed: %w", unlisted)
	}
	return v, nil
}

// verify reads one piece of content.
func (f *folder) verify(ctx context.Context, opts VerifyOptions, d oci.Digest, v *Verified, all Amount) error {
	o, name, err := f.openBlob(d)
	if errors.Is(err, cache.ErrNotFound) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	defer o.Close()
	wrong, err := f.examine(o, d, func(n int) error {
		v.Bytes += int64(n)
		if opts.Progress != nil {
			opts.Progress(v.Amount, all)
		}
		return context.Cause(ctx)
	})
	if err != nil {
		return err
	}
	v.Blobs++
	if wrong == "" || !f.sameFile(name, o) {
		return nil
	}
	v.Damaged++
	found := Damage{Digest: d, Size: o.size, Why: wrong}
	if opts.Remove {
		if err := f.removeFile(name, o); err != nil {
			return fmt.Errorf("remove damaged %s: %w", d, err)
		}
		found.Removed = true
		v.Removed++
	}
	if opts.Damaged != nil {
		opts.Damaged(found)
	}
	return nil
}
