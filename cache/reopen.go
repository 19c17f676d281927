package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/registrymirror/mirror/oci"
)

// Reopen is Open for who was reading o, a hit, and could not go on because of err: that content is removed, unless
// something else is in its place by now, and fetched anew. Where the cache has closed o itself, since its content was evicted
// and o was read slowly, the caller goes on from its own source. The caller still closes o.
func (c *Cache) Reopen(
	ctx context.Context, o Object, err error, d oci.Digest, size int64, s Source,
) (Object, Outcome, error) {
	if errors.Is(err, fs.ErrClosed) { // by us, for its space: a slow reader gets no other one of ours
		return c.direct(ctx, d, size, s)
	}
	if !c.replaced(o, d) {
		c.o.Log.WarnContext(ctx, "cached content can't be read; it is removed and fetched again: check the disk of "+
			"cache.dir", "digest", d, "size", size, "err", err)
		if err := c.Remove(d); err != nil {
			c.diskFailed(err)
			return c.direct(ctx, d, size, s)
		}
	}
	return c.Open(ctx, d, size, s)
}

// replaced reports whether what is stored is not what o is.
func (c *Cache) replaced(o Object, d oci.Digest) bool {
	now, err := c.o.Store.Open(d)
	if err != nil {
		return false
	}
	defer now.Close()
	was, is := fileInfo(o), fileInfo(now)
	return was != nil && is != nil && !os.SameFile(was, is)
}

// fileInfo is that of an object that is a file; nil: it isn't.
func fileInfo(o Object) fs.FileInfo {
	f, ok := o.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return nil
	}
	fi, err := f.Stat()
	if err != nil {
		return nil
	}
	return fi
}
