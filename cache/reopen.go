package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/registrymirror/mirror/oci"
)

// Reopen is Open for a caller that was reading o, a hit, and could not continue because of err: that content is removed,
// unless another file is in its place by now, and fetched again. Where the cache has closed o itself, since its content was
// evicted and o was read slowly, the caller gets the rest from its own source. The caller still closes o.
func (c *Cache) Reopen(
	ctx context.Context, o Object, err error, d oci.Digest, size int64, s Source,
) (Object, Outcome, error) {
	if errors.Is(err, fs.ErrClosed) { // by the cache, for its space: a slow reader gets no other file
		return c.direct(ctx, d, size, s)
	}
	if !replaced(c.o.Store, d, o) {
		c.o.Log.WarnContext(ctx, "cached content can't be read; it is removed and fetched again: check the disk of "+
			"cache.dir", "digest", d, "size", size, "error", err)
		if err := c.Remove(d); err != nil {
			c.health.fail(err)
			return c.direct(ctx, d, size, s)
		}
	}
	return c.Open(ctx, d, size, s)
}

// replaced reports whether the store has another file than o for a digest.
func replaced(s Store, d oci.Digest, o Object) bool {
	now, err := s.Open(d)
	if err != nil {
		return false
	}
	defer now.Close()
	was, file := o.(Stater)
	is, other := now.(Stater)
	if !file || !other {
		return false
	}
	before, err := was.Stat()
	after, errNow := is.Stat()
	return err == nil && errNow == nil && !os.SameFile(before, after)
}
